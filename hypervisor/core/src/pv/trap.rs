//! Exceptions of PV guests: what the hypervisor deals with itself, and what the guest's own handlers get.

use super::bounce::Entry;
use super::{emulate, page_fault};
use crate::ctx::Ctx;
use oxen_hal::Machine;

/// Exceptions that push an error code (Intel SDM vol. 3, "Exception and Interrupt Reference").
const WITH_ERROR_CODE: u32 = 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 21;

const DEBUG: u8 = 1;
const NMI: u8 = 2;
const INVALID_OPCODE: u8 = 6;
const NO_DEVICE: u8 = 7;
const GENERAL_PROTECTION: u8 = 13;
const PAGE_FAULT: u8 = 14;

/// Bit 2 of `trap_info.flags`: upcalls are masked on entry.
pub(super) const MASKS_EVENTS: u8 = 1 << 2;

/// Handles an exception that a guest raised.
pub(crate) fn exception<M: Machine>(ctx: &mut Ctx<'_, M>, vector: u8) {
    match vector {
        PAGE_FAULT => page_fault::page_fault(ctx),
        GENERAL_PROTECTION => general_protection(ctx),
        INVALID_OPCODE => {
            if !emulate::invalid_opcode(ctx) {
                inject(ctx, vector, None);
            }
        }
        DEBUG => {
            let status = ctx.machine().debug_register(6);
            ctx.state.context.debug[6] = status;
            inject(ctx, vector, None);
        }
        NO_DEVICE => {
            inject(ctx, vector, None);
            // The guest's handler finds the flag clear: it loads its registers without asking for that first.
            emulate::set_task_switched(ctx, false);
        }
        NMI => ctx.hv.nmi_from_guest(ctx.cpu),
        _ => {
            let code = has_error_code(vector).then_some(u64::from(ctx.frame.error_code));
            inject(ctx, vector, code);
        }
    }
}

/// A guest that single-steps has completed a hypercall, which is one instruction to it: the trap comes before the next one.
#[cold]
pub(crate) fn stepped_over_hypercall<M: Machine>(ctx: &mut Ctx<'_, M>) {
    /// DR6: the trap comes from single-stepping.
    const SINGLE_STEP: u64 = 1 << 14;
    ctx.state.context.debug[6] |= SINGLE_STEP;
    ctx.machine().set_debug_register(6, ctx.state.context.debug[6]);
    inject(ctx, DEBUG, None);
}

fn has_error_code(vector: u8) -> bool {
    vector < 32 && WITH_ERROR_CODE >> vector & 1 != 0
}

/// Enters the guest's handler for `vector`; a guest without one is crashed.
pub(super) fn inject<M: Machine>(ctx: &mut Ctx<'_, M>, vector: u8, error_code: Option<u64>) {
    let handler = ctx.state.traps.get(usize::from(vector)).copied().unwrap_or_default();
    if handler.address == 0 {
        let code = error_code.unwrap_or(0);
        let mode = if ctx.state.context.in_kernel { "kernel" } else { "user" };
        ctx.crash(format_args!("exception {vector} (error code {code:#x}) in {mode} mode, and no handler is registered"));
        return;
    }
    ctx.bounce(Entry { address: handler.address, masks_events: handler.flags & MASKS_EVENTS != 0, error_code });
}

/// `#GP`: a software interrupt that the real descriptor table does not let through, a privileged instruction, or the guest's own mistake.
fn general_protection<M: Machine>(ctx: &mut Ctx<'_, M>) {
    let code = ctx.frame.error_code;
    if code == 0 && ctx.state.context.in_kernel && emulate::plain_rdmsr(ctx) {
        return;
    }
    if let Some((vector, length)) = emulate::software_interrupt(ctx)
        && let Some(handler) = ctx.state.traps.get(usize::from(vector)).copied()
    {
        // Bits 0-1 of the flags are the least privileged mode that may use the gate; kernel mode counts as ring 1.
        let ring = if ctx.state.context.in_kernel { 1 } else { 3 };
        if handler.address != 0 && handler.flags & 3 >= ring {
            ctx.frame.rip = ctx.frame.rip.wrapping_add(length);
            ctx.bounce(Entry { address: handler.address, masks_events: handler.flags & MASKS_EVENTS != 0, error_code: None });
            return;
        }
        inject(ctx, GENERAL_PROTECTION, Some(u64::from(vector) << 3 | 2));
        return;
    }
    if code == 0 && emulate::privileged(ctx) {
        return;
    }
    inject(ctx, GENERAL_PROTECTION, Some(code.into()));
}
