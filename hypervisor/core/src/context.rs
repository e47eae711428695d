//! A vCPU's whole register state as the public interface carries it (`struct vcpu_guest_context`).

use crate::Hypervisor;
use crate::domain::Domain;
use crate::vcpu::{Callback, Ldt, Vcpu, VcpuState};
use alloc::vec::Vec;
use oxen_abi::Errno;
use oxen_abi::arch_x86_64::{
    FIRST_RESERVED_GDT_ENTRY, VGCF_FAILSAFE_DISABLES_EVENTS, VGCF_I387_VALID, VGCF_IN_KERNEL, VGCF_SYSCALL_DISABLES_EVENTS,
    VcpuGuestContext,
};
use oxen_hal::{GuestFrame, Machine};
use oxen_types::{Gva, Maddr, Mfn};

/// RFLAGS bits that are always as given here: bit 1 and IF set; IOPL, VM, VIF and VIP clear.
const FLAGS_SET: u64 = 1 << 1 | 1 << 9;
const FLAGS_CLEARED: u64 = 3 << 12 | 1 << 17 | 1 << 19 | 1 << 20;

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
        fill(state, c);
        if vcpu.id.0 == 0 {
            domain.vm_assist.store(c.vm_assist, core::sync::atomic::Ordering::SeqCst);
        }
        if let Some(info) = vcpu.info() {
            info.set_upcall_mask(self.machine, c.user_regs.saved_upcall_mask != 0 || c.user_regs.rflags & 1 << 9 == 0);
        }
        state.initialised = true;
        Ok(())
    }

    fn get_roots(&self, domain: &Domain, c: &VcpuGuestContext) -> Result<(oxen_mm::HeldTable, Option<oxen_mm::HeldTable>), Errno> {
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
