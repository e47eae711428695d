//! A vCPU's whole register state as the public interface carries it (`struct vcpu_guest_context`).

use crate::Hypervisor;
use crate::domain::Domain;
use crate::vcpu::{Callback, Ldt, Vcpu, VcpuState};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use oxen_abi::Errno;
use oxen_abi::arch_x86_64::{
    CpuUserRegs,    FIRST_RESERVED_GDT_ENTRY, VGCF_FAILSAFE_DISABLES_EVENTS, VGCF_I387_VALID, VGCF_IN_KERNEL, VGCF_ONLINE, VGCF_SYSCALL_DISABLES_EVENTS,
    VcpuGuestContext,
};
use oxen_hal::{GuestFrame, Machine};
use oxen_mm::HeldTable;
use oxen_types::{Gva, Maddr, Mfn};

/// RFLAGS bits that are always as given here: bit 1 and IF set; IOPL, VM, VIF and VIP clear.
const FLAGS_SET: u64 = 1 << 1 | 1 << 9;
const FLAGS_CLEARED: u64 = 3 << 12 | 1 << 17 | 1 << 19 | 1 << 20;
/// CR0 as tools see it (Intel SDM vol. 3, "Control Registers"): PG, AM, WP, NE, ET, PE; and TS, which follows the guest.
const CR0_OF_GUESTS: u64 = 1 << 31 | 1 << 18 | 1 << 16 | 1 << 5 | 1 << 4 | 1;
const CR0_TS: u64 = 1 << 3;

impl<M: Machine> Hypervisor<M> {
    /// Sets up a vCPU that has not been set up before. Everything is checked before anything is changed. Whether the vCPU is up is not touched.
    pub fn set_guest_context(&self, domain: &Domain, vcpu: &Vcpu, state: &mut VcpuState, c: &VcpuGuestContext) -> Result<(), Errno> {
        check(c)?;
        let gdt_pages = c.gdt_ents.div_ceil(512) as usize;
        let gdt: Vec<Mfn> = c.gdt_frames.iter().take(gdt_pages).map(|&mfn| Mfn(mfn)).collect();
        let frames = self.take_descriptor_frames(domain, &gdt)?;
        let roots = self.get_roots(domain, c);
        let (root, user_root) = match roots {
            Ok(roots) => roots,
            Err(error) => {
                frames.into_iter().for_each(|frame| self.memory.put_typed(frame));
                return Err(error);
            }
        };
        self.replace_gdt(state, frames, c.gdt_ents as u32);
        state.root = Some(root);
        state.user_root = user_root;
        self.finish_context(domain, vcpu, state, c);
        Ok(())
    }

    /// Gives a vCPU that is set up new registers. Its page tables and descriptor tables have to be those that it has.
    ///
    /// # Errors
    /// `EINVAL` for values that no vCPU may have, `EOPNOTSUPP` for other tables.
    pub fn replace_guest_context(&self, domain: &Domain, vcpu: &Vcpu, state: &mut VcpuState, c: &VcpuGuestContext) -> Result<(), Errno> {
        check(c)?;
        let mut present = Box::new(VcpuGuestContext::default());
        tell_tables(state, &mut present);
        let roots = |c: &VcpuGuestContext| [c.ctrlreg[1], c.ctrlreg[3]];
        let gdt = |c: &VcpuGuestContext| (c.gdt_ents, c.gdt_frames);
        if roots(c) != roots(&present) || gdt(c) != gdt(&present) || (c.ldt_base, c.ldt_ents) != (present.ldt_base, present.ldt_ents) {
            return Err(Errno::EOPNOTSUPP);
        }
        self.finish_context(domain, vcpu, state, c);
        Ok(())
    }

    fn finish_context(&self, domain: &Domain, vcpu: &Vcpu, state: &mut VcpuState, c: &VcpuGuestContext) {
        fill(state, c);
        if vcpu.id.0 == 0 {
            domain.vm_assist.store(c.vm_assist, Ordering::SeqCst);
        }
        // Whether upcalls are masked is between the guest, or who builds it, and its `vcpu_info`.
        state.initialised = true;
    }

    /// Tells the registers of a vCPU that does not run.
    pub fn tell_guest_context(&self, domain: &Domain, vcpu: &Vcpu, state: &VcpuState, c: &mut VcpuGuestContext) {
        tell(state, c);
        tell_tables(state, c);
        if vcpu.is_up() {
            c.flags |= VGCF_ONLINE;
        }
        if vcpu.runstate.lock().running_ns(self.machine.now_ns()) != 0 {
            c.flags |= VGCF_I387_VALID;
        }
        if let Some(info) = vcpu.info() {
            c.user_regs.saved_upcall_mask = info.upcall_masked(self.machine).into();
        }
        c.vm_assist = domain.vm_assist.load(Ordering::SeqCst);
    }

    fn get_roots(&self, domain: &Domain, c: &VcpuGuestContext) -> Result<(HeldTable, Option<HeldTable>), Errno> {
        let root = self.get_root(domain, Maddr(c.ctrlreg[3]).mfn()).map_err(|_| Errno::EINVAL)?;
        if c.ctrlreg[1] == 0 {
            return Ok((root, None));
        }
        match self.get_root(domain, Maddr(c.ctrlreg[1]).mfn()) {
            Ok(user) => Ok((root, Some(user))),
            Err(_) => {
                self.put_root(domain, root);
                Err(Errno::EINVAL)
            }
        }
    }
}

fn check(c: &VcpuGuestContext) -> Result<(), Errno> {
    let addresses = [
        c.user_regs.rip,
        c.event_callback_eip,
        c.failsafe_callback_eip,
        c.syscall_callback_eip,
        c.fs_base,
        c.gs_base_kernel,
        c.gs_base_user,
    ];
    let fine = addresses.iter().chain(c.trap_ctxt.iter().map(|t| &t.address)).all(|&a| Gva(a).is_canonical())
        && c.gdt_ents <= u64::from(FIRST_RESERVED_GDT_ENTRY)
        && c.ldt_base.is_multiple_of(4096)
        && c.ldt_ents <= 8192
        && Gva(c.ldt_base).range_is_guest(c.ldt_ents as usize * 8);
    if fine { Ok(()) } else { Err(Errno::EINVAL) }
}

fn fill(state: &mut VcpuState, c: &VcpuGuestContext) {
    let r = &c.user_regs;
    let context = &mut state.context;
    context.frame = GuestFrame {
        r15: r.r15,
        r14: r.r14,
        r13: r.r13,
        r12: r.r12,
        rbp: r.rbp,
        rbx: r.rbx,
        r11: r.r11,
        r10: r.r10,
        r9: r.r9,
        r8: r.r8,
        rax: r.rax,
        rcx: r.rcx,
        rdx: r.rdx,
        rsi: r.rsi,
        rdi: r.rdi,
        error_code: 0,
        entry_vector: 0,
        rip: r.rip,
        cs: u64::from(r.cs | 3),
        rflags: r.rflags & !FLAGS_CLEARED | FLAGS_SET,
        rsp: r.rsp,
        ss: u64::from(r.ss | 3),
    };
    let user = |selector: u16| if selector & 0xfffc == 0 { selector } else { selector | 3 };
    context.ds = user(r.ds);
    context.es = user(r.es);
    context.fs = user(r.fs);
    context.gs = user(r.gs);
    context.fs_base = c.fs_base;
    context.gs_base_kernel = c.gs_base_kernel;
    context.gs_base_user = c.gs_base_user;
    context.in_kernel = c.flags & VGCF_IN_KERNEL != 0;
    // The privilege level for I/O is virtual and comes in the flags: Linux starts its secondary vCPUs with level 1, and they use ports at once.
    state.iopl = (r.rflags >> 12 & 3) as u8;
    if c.flags & VGCF_I387_VALID != 0
        && let Some(area) = context.fpu.as_mut_bytes().get_mut(..512)
    {
        area.copy_from_slice(&c.fpu_ctxt);
        // MXCSR bits beyond the always supported ones would fault when the area is loaded (Intel SDM vol. 1, "MXCSR").
        if let Some(high) = area.get_mut(26..28) {
            high.fill(0);
        }
        state.fpu_given = true;
    }
    for (vector, (slot, entry)) in state.traps.iter_mut().zip(&c.trap_ctxt).enumerate() {
        *slot = *entry;
        slot.vector = vector as u8;
        slot.cs |= 3;
    }
    state.ldt = Ldt { base: Gva(c.ldt_base), entries: c.ldt_ents as u32 };
    state.kernel_ss = c.kernel_ss | 3;
    state.kernel_sp = c.kernel_sp;
    let masks = |flag: u64| c.flags & flag != 0;
    state.callbacks.event = c.event_callback_eip;
    state.callbacks.failsafe = Callback { address: c.failsafe_callback_eip, masks_events: masks(VGCF_FAILSAFE_DISABLES_EVENTS) };
    state.callbacks.syscall = Callback { address: c.syscall_callback_eip, masks_events: masks(VGCF_SYSCALL_DISABLES_EVENTS) };
}

/// The page tables and descriptor tables that a vCPU has.
fn tell_tables(state: &VcpuState, c: &mut VcpuGuestContext) {
    let root = |table: &Option<HeldTable>| table.as_ref().map_or(0, |table| table.mfn().maddr().0);
    c.ctrlreg[3] = root(&state.root);
    c.ctrlreg[1] = root(&state.user_root);
    c.gdt_ents = state.gdt_entries.into();
    for (to, frame) in c.gdt_frames.iter_mut().zip(&state.gdt_frames) {
        *to = frame.mfn().0;
    }
    c.ldt_base = state.ldt.base.0;
    c.ldt_ents = state.ldt.entries.into();
}

/// Everything else that the vCPU's own state says.
fn tell(state: &VcpuState, c: &mut VcpuGuestContext) {
    let context = &state.context;
    let f = &context.frame;
    c.user_regs = CpuUserRegs {
        r15: f.r15,
        r14: f.r14,
        r13: f.r13,
        r12: f.r12,
        rbp: f.rbp,
        rbx: f.rbx,
        r11: f.r11,
        r10: f.r10,
        r9: f.r9,
        r8: f.r8,
        rax: f.rax,
        rcx: f.rcx,
        rdx: f.rdx,
        rsi: f.rsi,
        rdi: f.rdi,
        rip: f.rip,
        cs: f.cs as u16,
        rflags: f.rflags | u64::from(state.iopl) << 12,
        rsp: f.rsp,
        ss: f.ss as u16,
        es: context.es,
        ds: context.ds,
        fs: context.fs,
        gs: context.gs,
        ..CpuUserRegs::default()
    };
    c.fs_base = context.fs_base;
    c.gs_base_kernel = context.gs_base_kernel;
    c.gs_base_user = context.gs_base_user;
    c.flags = 0;
    let mut flag = |set: bool, bit: u64| c.flags |= if set { bit } else { 0 };
    flag(state.fpu_given, VGCF_I387_VALID);
    flag(context.in_kernel, VGCF_IN_KERNEL);
    flag(state.callbacks.failsafe.masks_events, VGCF_FAILSAFE_DISABLES_EVENTS);
    flag(state.callbacks.syscall.masks_events, VGCF_SYSCALL_DISABLES_EVENTS);
    if let Some(area) = context.fpu.as_bytes().get(..c.fpu_ctxt.len()) {
        c.fpu_ctxt.copy_from_slice(area);
    }
    c.trap_ctxt = *state.traps;
    c.kernel_ss = state.kernel_ss;
    c.kernel_sp = state.kernel_sp;
    c.debugreg = context.debug;
    c.ctrlreg[0] = CR0_OF_GUESTS | if context.task_switched { CR0_TS } else { 0 };
    c.ctrlreg[4] = context.cr4;
    c.event_callback_eip = state.callbacks.event;
    c.failsafe_callback_eip = state.callbacks.failsafe.address;
    c.syscall_callback_eip = state.callbacks.syscall.address;
}
