//! The entries that guest kernels make all the time, done with no more than they need: the machine's entry code asks here before it saves all registers and goes the
//! ordinary way ([`Hypervisor::from_guest`]).
//!
//! Each function does the usual case or nothing (of a list: its first part); `None` sends the call the ordinary way. None of them gives its own processor work or
//! stops the calling vCPU, so that the way back needs to look at the pending upcall only.

use crate::domain::Domain;
use crate::enter::{Local, Running};
use crate::hypercall::VERSION;
use crate::vcpu::{BATCH, VcpuState};
use crate::{Hypervisor, pv};
use oxen_abi::Hypercall;
use oxen_abi::version::VersionOp;
use oxen_abi::xen::{DOMID_SELF, MmuextCmd, UVMF_FLUSHTYPE_MASK, UVMF_INVLPG, UVMF_TLB_FLUSH};
use oxen_abi::zerocopy::IntoBytes;
use oxen_hal::{FlushScope, GuestFrame, Machine};
use oxen_mm::QuickTables;
use oxen_types::{Gva, Mfn};

/// Requests of `mmu_update` in one call, at most.
const MAX_UPDATES: u32 = 512;
/// Operations of `mmuext_op`, at most.
const MAX_OPERATIONS: u32 = 8;
/// Bytes of `struct mmu_update` and `struct mmuext_op`.
const UPDATE_BYTES: u64 = 16;
const OPERATION_BYTES: u64 = 24;

/// Argument words of a quick call.
pub type Words = [u64; 4];

/// A count that is 1 to `max`.
#[inline(always)]
fn count_within(word: u64, max: u32) -> Option<u32> {
    let count = word as u32;
    (count.wrapping_sub(1) < max).then_some(count)
}

impl<M: Machine> Hypervisor<M> {
    /// A hypercall of a guest's kernel, with its first four argument words; `frame` has the argument registers. Gives the value for rax, or `None` where the ordinary way is to
    /// be taken, with the arguments that are then in `frame`.
    #[inline(always)]
    pub fn quick_call(&self, local: &mut Local, number: Hypercall, words: Words, frame: &mut GuestFrame) -> Option<i64> {
        match number {
            Hypercall::MMU_UPDATE => self.quick_mmu_update(local, words, frame),
            Hypercall::UPDATE_VA_MAPPING => self.quick_update_va_mapping(local, words),
            Hypercall::MMUEXT_OP => self.quick_mmuext_op(local, words, frame),
            Hypercall::STACK_SWITCH => self.quick_stack_switch(local, words),
            // What is wrong is refused by the ordinary way.
            Hypercall::SET_SEGMENT_BASE => self.set_segment_base(words[0] as u32, words[1]).ok(),
            Hypercall::FPU_TASKSWITCH => self.quick_fpu_taskswitch(local, words),
            Hypercall::XEN_VERSION => quick_xen_version(words),
            _ => None,
        }
    }

    /// `mmu_update` of the caller's own tables. What is not done of the list is left as the arguments in `frame`.
    #[inline(always)]
    fn quick_mmu_update(&self, local: &mut Local, [list, count, done_at, foreign]: Words, frame: &mut GuestFrame) -> Option<i64> {
        let count = count_within(count, MAX_UPDATES)?;
        let running = local.running.as_mut()?;
        if done_at != 0 || foreign as u32 != u32::from(DOMID_SELF) {
            return None;
        }
        if count != 1 {
            return self.quick_batch(running, list, count, frame);
        }
        let request = self.machine.read_guest_pair(Gva(list)).ok()?;
        (self.quick_requests(&running.domain, &[request])? == 1).then_some(0)
    }

    /// Requests of a list that the caller's tables take the quick way.
    #[inline(always)]
    fn quick_requests(&self, domain: &Domain, requests: &[[u64; 2]]) -> Option<usize> {
        let mut tables = domain.page_tables.lock();
        let mut quick = QuickTables::new(&mut tables, domain.id, domain.has_devices())?;
        Some(self.memory.quick_updates(&mut quick, requests))
    }

    #[inline(never)]
    fn quick_batch(&self, running: &mut Running, list: u64, count: u32, frame: &mut GuestFrame) -> Option<i64> {
        let Running { domain, state, .. } = running;
        let (mut at, mut left) = (Gva(list), count as usize);
        while left != 0 {
            let requests = state.requests.get_mut(..left.min(BATCH))?;
            let done = match self.machine.copy_from_guest(requests.as_mut_bytes(), at) {
                Ok(()) => self.quick_requests(domain, requests).unwrap_or(0),
                Err(_) => 0,
            };
            left -= done;
            // A list that wraps around goes on in the guest's own memory.
            at = Gva(at.0.wrapping_add(done as u64 * UPDATE_BYTES));
            if done != requests.len() {
                (frame.rdi, frame.rsi) = (at.0, left as u64);
                return None;
            }
        }
        Some(0)
    }

    /// `update_va_mapping` with a flush of this processor, or none.
    #[inline(always)]
    fn quick_update_va_mapping(&self, local: &mut Local, [va, value, flags, _]: Words) -> Option<i64> {
        let running = local.running.as_ref()?;
        if flags & !UVMF_FLUSHTYPE_MASK != 0 {
            return None;
        }
        let root = running.state.root.as_ref()?.mfn();
        let domain = &*running.domain;
        {
            let mut tables = domain.page_tables.lock();
            let mut quick = QuickTables::new(&mut tables, domain.id, domain.has_devices())?;
            if !self.memory.quick_update_va(&mut quick, root, Gva(va), value) {
                return None;
            }
        }
        match flags {
            UVMF_TLB_FLUSH => self.machine.flush_local(FlushScope::All),
            UVMF_INVLPG => self.machine.flush_page_local(Gva(va)),
            _ => {}
        }
        Some(0)
    }

    /// `mmuext_op` that flushes this processor or changes to another root. What is not done of the list is left as the arguments in `frame`.
    #[inline(always)]
    fn quick_mmuext_op(&self, local: &mut Local, [list, count, done_at, foreign]: Words, frame: &mut GuestFrame) -> Option<i64> {
        let count = count_within(count, MAX_OPERATIONS)?;
        if done_at != 0 || foreign as u32 != u32::from(DOMID_SELF) {
            return None;
        }
        if count == 1 && self.quick_flush(self.machine.read_guest_pair(Gva(list)).ok()?) {
            return Some(0);
        }
        self.quick_operations(local, list, count, frame)
    }

    /// One operation, its first two words, where it is a flush of this processor.
    #[inline(always)]
    fn quick_flush(&self, [command, address]: [u64; 2]) -> bool {
        match MmuextCmd(command as u32) {
            MmuextCmd::INVLPG_LOCAL => self.machine.flush_page_local(Gva(address)),
            MmuextCmd::TLB_FLUSH_LOCAL => self.machine.flush_local(FlushScope::All),
            _ => return false,
        }
        true
    }

    #[inline(never)]
    fn quick_operations(&self, local: &mut Local, list: u64, count: u32, frame: &mut GuestFrame) -> Option<i64> {
        let (mut at, mut left) = (Gva(list), count);
        while left != 0 {
            let done = match self.machine.read_guest_pair(at) {
                Ok(operation @ [command, mfn]) => match MmuextCmd(command as u32) {
                    MmuextCmd::NEW_BASEPTR => self.quick_switch(local, Mfn(mfn), true),
                    MmuextCmd::NEW_USER_BASEPTR => self.quick_switch(local, Mfn(mfn), false),
                    _ => self.quick_flush(operation),
                },
                Err(_) => false,
            };
            if !done {
                (frame.rdi, frame.rsi) = (at.0, left.into());
                return None;
            }
            left -= 1;
            at = Gva(at.0.wrapping_add(OPERATION_BYTES));
        }
        Some(0)
    }

    /// Makes `root`, which is in use already, the root of kernel or user mode.
    #[inline(always)]
    fn quick_switch(&self, local: &mut Local, root: Mfn, for_kernel: bool) -> bool {
        let Some(running) = local.running.as_mut() else { return false };
        let domain = &*running.domain;
        let VcpuState { root: kernel_root, user_root, ldt, .. } = &mut *running.state;
        // An LDT is found through the old tables.
        let held = if for_kernel { kernel_root.as_mut().filter(|_| ldt.entries == 0) } else { user_root.as_mut() };
        let Some(held) = held else { return false };
        let mut tables = domain.page_tables.lock();
        let Some(mut quick) = QuickTables::new(&mut tables, domain.id, domain.has_devices()) else { return false };
        self.memory.quick_switch_root(&mut quick, held, root, || {
            if for_kernel {
                self.machine.load_root(root, true);
                self.machine.set_fast_kernel_root(root);
            } else {
                self.machine.set_fast_user_root(root);
            }
        })
    }

    /// `stack_switch`.
    #[inline(always)]
    fn quick_stack_switch(&self, local: &mut Local, [ss, sp, ..]: Words) -> Option<i64> {
        let running = local.running.as_mut()?;
        running.state.set_kernel_stack(ss, sp);
        self.machine.set_fast_stack(Gva(sp));
        Some(0)
    }

    /// `fpu_taskswitch`.
    #[inline(always)]
    fn quick_fpu_taskswitch(&self, local: &mut Local, [set, ..]: Words) -> Option<i64> {
        let running = local.running.as_mut()?;
        running.state.context.task_switched = set != 0;
        self.machine.set_task_switched(set != 0);
        Some(0)
    }

    /// A write of the guest's kernel to a page that is there, but read-only to it: done where it is one to a page table, by a plain instruction. False where nothing was done.
    #[inline(always)]
    pub fn quick_write_fault(&self, local: &mut Local, frame: &mut GuestFrame) -> bool {
        let Some(running) = local.running.as_ref() else { return false };
        pv::quick_table_write(self, &running.domain, &running.state, frame)
    }
}

/// `xen_version` where it gives the version's number, which guests ask for merely to have pending upcalls delivered.
#[inline(always)]
fn quick_xen_version([command, ..]: Words) -> Option<i64> {
    (VersionOp(command as u32) == VersionOp::VERSION).then_some(VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypercall::testing::{BUFFER, D5, NOWHERE, World};
    use oxen_abi::arch_x86_64::SEGBASE_FS;
    use oxen_abi::xen::MmuextOp;
    use oxen_abi::zerocopy::FromZeros;
    use oxen_types::{CpuId, VcpuId};

    /// A processor on which the first vCPU of domain 5 runs.
    fn running(w: &World) -> Local {
        let domain = w.domain(D5);
        let vcpu = domain.vcpu(VcpuId(0)).unwrap().clone();
        let state = vcpu.state.take();
        Local { cpu: CpuId(0), running: Some(Running { vcpu, domain, state }) }
    }

    fn operation(cmd: MmuextCmd) -> MmuextOp {
        MmuextOp { cmd, arg1: BUFFER.0, ..MmuextOp::new_zeroed() }
    }

    #[test]
    fn a_list_is_done_up_to_what_is_unusual() {
        let w = World::new();
        let mut local = running(&w);
        let list = [operation(MmuextCmd::INVLPG_LOCAL), operation(MmuextCmd::PIN_L1_TABLE)];
        w.poke(BUFFER, list.as_bytes());
        let itself = DOMID_SELF.into();
        let mut frame = GuestFrame { rdi: BUFFER.0, rsi: 2, ..GuestFrame::default() };
        assert_eq!(w.hv.quick_call(&mut local, Hypercall::MMUEXT_OP, [BUFFER.0, 2, 0, itself], &mut frame), None);
        assert_eq!((frame.rdi, frame.rsi), (BUFFER.0 + OPERATION_BYTES, 1), "the second one is left");
        assert_eq!(w.hv.quick_call(&mut local, Hypercall::MMUEXT_OP, [BUFFER.0, 1, 0, itself], &mut frame), Some(0));
    }

    #[test]
    fn other_lists_are_left_alone() {
        let w = World::new();
        let mut local = running(&w);
        w.poke(BUFFER, operation(MmuextCmd::INVLPG_LOCAL).as_bytes());
        let itself = u64::from(DOMID_SELF);
        for number in [Hypercall::MMU_UPDATE, Hypercall::MMUEXT_OP] {
            for words in [
                [BUFFER.0, 0, 0, itself],
                [BUFFER.0, 1 << 31 | 1, 0, itself],
                [BUFFER.0, 1, BUFFER.0, itself],
                [BUFFER.0, 1, 0, 0],
                [NOWHERE.0, 1, 0, itself],
            ] {
                let before = GuestFrame { rdi: words[0], rsi: words[1], ..GuestFrame::default() };
                let mut frame = before;
                assert_eq!(w.hv.quick_call(&mut local, number, words, &mut frame), None);
                assert_eq!(frame, before, "{number:?} {words:x?}");
            }
        }
        let mut idle = Local::new(CpuId(0));
        assert_eq!(w.hv.quick_call(&mut idle, Hypercall::MMU_UPDATE, [BUFFER.0, 1, 0, itself], &mut GuestFrame::default()), None);
    }

    #[test]
    fn values_reach_the_vcpu() {
        let w = World::new();
        let mut local = running(&w);
        let mut call = |number, words| w.hv.quick_call(&mut local, number, words, &mut GuestFrame::default());
        assert_eq!(call(Hypercall::STACK_SWITCH, [0x12_0008, 0x7000, 0, 0]), Some(0));
        assert_eq!(call(Hypercall::FPU_TASKSWITCH, [1, 0, 0, 0]), Some(0));
        assert_eq!(call(Hypercall::XEN_VERSION, [0; 4]), Some(VERSION));
        assert_eq!(call(Hypercall::XEN_VERSION, [1, 0, 0, 0]), None);
        assert_eq!(call(Hypercall::SET_SEGMENT_BASE, [SEGBASE_FS.into(), 0x8000_0000_0000, 0, 0]), None, "not canonical");
        assert_eq!(call(Hypercall::SCHED_OP, [0; 4]), None);
        let state = &local.running.as_ref().unwrap().state;
        assert_eq!((state.kernel_ss, state.kernel_sp, state.context.task_switched), (0xb, 0x7000, true));
    }
}
