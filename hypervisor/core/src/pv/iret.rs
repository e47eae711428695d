//! The `iret` hypercall: back from an exception, to user or to kernel mode.

use super::{ASSIST_ARCHITECTURAL_IOPL, flags};
use crate::ctx::Ctx;
use oxen_abi::arch_x86_64::{IretContext, VGCF_IN_SYSCALL};
use oxen_hal::Machine;
use oxen_types::Gva;

/// Flags that a guest cannot choose.
const REFUSED: u64 = flags::IOPL | flags::VM | flags::VIF | flags::VIP;

/// Takes the frame at the guest's stack pointer.
pub(crate) fn iret<M: Machine>(ctx: &mut Ctx<'_, M>) {
    let frame: IretContext = match ctx.read(Gva(ctx.frame.rsp)) {
        Ok(frame) => frame,
        Err(_) => {
            let at = ctx.frame.rsp;
            ctx.crash(format_args!("iret: cannot read the frame at its stack pointer {at:#x}"));
            return;
        }
    };
    if frame.cs & 3 == 3 && !ctx.enter_user_mode() {
        ctx.crash(format_args!("iret to user mode without user page tables"));
        return;
    }
    if ctx.domain.has_assist(ASSIST_ARCHITECTURAL_IOPL) {
        ctx.state.iopl = (frame.rflags >> 12 & 3) as u8;
    }
    if ctx.state.nmi_masked {
        ctx.state.nmi_masked = false;
        ctx.state.fast_paths_stale = true;
    }
    let regs = &mut *ctx.frame;
    regs.rip = frame.rip;
    regs.cs = frame.cs & 0xffff | 3;
    regs.rflags = frame.rflags & !REFUSED | flags::IF | flags::FIXED;
    regs.rsp = frame.rsp;
    regs.ss = frame.ss & 0xffff | 3;
    if frame.flags & VGCF_IN_SYSCALL == 0 {
        regs.r11 = frame.r11;
        regs.rcx = frame.rcx;
    }
    regs.rax = frame.rax;
    if let Some(info) = ctx.vcpu.info() {
        info.set_upcall_mask(ctx.machine(), frame.rflags & flags::IF == 0);
    }
}
