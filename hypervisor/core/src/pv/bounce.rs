//! Bounce frames: how an exception, an event or a system call enters the guest's kernel.
//!
//! The guest kernel runs in ring 3 like its user mode. An entry switches to the kernel's page tables and GS base, pushes a frame on the guest's kernel
//! stack and goes on at the registered address. The frame is the processor's own with rcx and r11 below, so that the way
//! back to the guest may use `sysret`, which destroys the two.

use super::{ASSIST_ARCHITECTURAL_IOPL, flags};
use crate::ctx::Ctx;
use crate::vcpu::VcpuInfoPtr;
use core::sync::atomic::Ordering;
use oxen_abi::arch_x86_64::{FLAT_KERNEL_CS, FLAT_KERNEL_SS, FLAT_RING3_CS32, FLAT_RING3_CS64};
use oxen_hal::{Machine, VECTOR_SYSENTER};
use oxen_mm::HeldTable;
use oxen_types::Gva;

/// What a bounce enters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub address: u64,
    pub masks_events: bool,
    pub error_code: Option<u64>,
}

/// Flags that are clear when the guest's kernel is entered.
const CLEARED: u64 = flags::TF | flags::VM | flags::RF | flags::NT | flags::AC;

impl<M: Machine> Ctx<'_, M> {
    /// Switches to the guest's kernel mode.
    #[inline]
    pub(crate) fn enter_kernel_mode(&mut self) {
        if let Some(root) = self.state.root.as_ref().map(HeldTable::mfn) {
            self.machine().swap_gs();
            self.machine().load_root(root, false);
            self.state.context.in_kernel = true;
        }
    }

    /// Switches to the guest's user mode; false where the guest has given no user page tables.
    #[inline]
    pub(crate) fn enter_user_mode(&mut self) -> bool {
        let Some(root) = self.state.user_root.as_ref().map(HeldTable::mfn) else { return false };
        self.machine().swap_gs();
        self.machine().load_root(root, false);
        self.state.context.in_kernel = false;
        true
    }

    #[inline]
    fn info(&self) -> Option<VcpuInfoPtr> {
        self.vcpu.info()
    }

    /// The flags as the guest sees them in a frame: IF is the negated upcall mask, IOPL the virtual one where the guest asked for that.
    #[inline]
    fn visible_flags(&self, masked: bool) -> u64 {
        let mut value = self.frame.rflags & !(flags::IF | flags::IOPL);
        if !masked {
            value |= flags::IF;
        }
        if self.domain.has_assist(ASSIST_ARCHITECTURAL_IOPL) {
            value |= u64::from(self.state.iopl) << 12;
        }
        value
    }

    /// Pushes a frame and goes to `entry`. A guest whose kernel stack cannot be written is crashed.
    #[inline]
    pub(super) fn bounce(&mut self, entry: Entry) {
        let machine = self.machine();
        let info = self.info();
        let masked = info.is_some_and(|i| i.upcall_masked(machine));
        let rflags = self.visible_flags(masked);
        let from_kernel = self.state.context.in_kernel;
        let sp = if from_kernel { self.frame.rsp } else { self.state.kernel_sp };
        if !from_kernel {
            self.enter_kernel_mode();
        }
        let cs = if from_kernel { self.frame.cs & 0xfffc } else { self.frame.cs & 0xffff };
        let cs = cs | u64::from(masked) << 32;
        let f = &*self.frame;
        let words = [f.rcx, f.r11, entry.error_code.unwrap_or(0), f.rip, cs, rflags, f.rsp, f.ss & 0xffff];
        let top = sp & !0xf;
        let written = if entry.error_code.is_some() {
            let at = top.wrapping_sub(64);
            machine.write_guest_words(Gva(at), &words).map(|()| at)
        } else {
            let at = top.wrapping_sub(56);
            let short = [words[0], words[1], words[3], words[4], words[5], words[6], words[7]];
            machine.write_guest_words(Gva(at), &short).map(|()| at)
        };
        match written {
            Ok(at) => self.enter_at(entry, at, info),
            Err(fault) => self.crash(format_args!("cannot push an exception frame on its kernel stack at {}", fault.va)),
        }
    }

    #[inline]
    fn enter_at(&mut self, entry: Entry, sp: u64, info: Option<VcpuInfoPtr>) {
        if entry.masks_events && let Some(info) = info {
            info.set_upcall_mask(self.machine(), true);
        }
        let f = &mut *self.frame;
        f.rip = entry.address;
        f.cs = FLAT_KERNEL_CS.into();
        f.ss = FLAT_KERNEL_SS.into();
        f.rsp = sp;
        f.rflags = (f.rflags & !CLEARED) | flags::IF;
        // The two registers are in the frame already; these values let the way back use sysret.
        f.rcx = f.rip;
        f.r11 = f.rflags;
    }
}

/// Delivers pending events to the guest's event callback.
pub(crate) fn deliver_upcall<M: Machine>(ctx: &mut Ctx<'_, M>) {
    let address = ctx.state.callbacks.event;
    if address == 0 {
        ctx.crash(format_args!("an event is pending and unmasked, but no event callback is registered"));
        return;
    }
    ctx.bounce(Entry { address, masks_events: true, error_code: None });
}

/// Delivers a non-maskable interrupt through the handler of vector 2, where there is one.
pub(crate) fn deliver_nmi<M: Machine>(ctx: &mut Ctx<'_, M>) {
    ctx.vcpu.nmi_pending.store(false, Ordering::SeqCst);
    if let Some(handler) = ctx.state.traps.get(2).copied()
        && handler.address != 0
    {
        ctx.state.nmi_masked = true;
        ctx.state.fast_paths_stale = true;
        ctx.bounce(Entry { address: handler.address, masks_events: handler.flags & 4 != 0, error_code: None });
    }
}

/// The `syscall` instruction in the guest's user mode.
#[inline]
pub(crate) fn syscall_from_user<M: Machine>(ctx: &mut Ctx<'_, M>) {
    let callback = ctx.state.callbacks.syscall;
    // Linux and others put their own selectors into the frame; these are the values that the interface promises.
    ctx.frame.cs = FLAT_RING3_CS64.into();
    ctx.frame.ss = FLAT_KERNEL_SS.into();
    if callback.address == 0 {
        ctx.frame.rip = ctx.frame.rip.wrapping_sub(2);
        super::trap::inject(ctx, 6, None);
        return;
    }
    ctx.bounce(Entry { address: callback.address, masks_events: callback.masks_events, error_code: None });
    ctx.frame.rflags &= !flags::DF;
    ctx.frame.r11 = ctx.frame.rflags;
}

/// `syscall` from 32-bit user code and `sysenter`.
#[cold]
pub(crate) fn legacy_syscall<M: Machine>(ctx: &mut Ctx<'_, M>, vector: u32) {
    if vector == VECTOR_SYSENTER {
        let callback = ctx.state.callbacks.sysenter;
        ctx.frame.rip = 0;
        ctx.frame.cs = 3;
        if callback.address == 0 || ctx.state.context.in_kernel {
            super::trap::inject(ctx, 13, Some(0));
        } else {
            ctx.bounce(Entry { address: callback.address, masks_events: callback.masks_events, error_code: None });
        }
        return;
    }
    let callback = ctx.state.callbacks.syscall32;
    ctx.frame.cs = FLAT_RING3_CS32.into();
    ctx.frame.ss = FLAT_KERNEL_SS.into();
    if callback.address == 0 || ctx.state.context.in_kernel {
        ctx.frame.rip = ctx.frame.rip.wrapping_sub(2);
        super::trap::inject(ctx, 6, None);
        return;
    }
    ctx.bounce(Entry { address: callback.address, masks_events: callback.masks_events, error_code: None });
    ctx.frame.rflags &= !flags::DF;
    ctx.frame.r11 = ctx.frame.rflags;
}

/// Tells the guest that data selectors could not be reloaded: they are null now, the old ones are in the frame.
pub(crate) fn failsafe<M: Machine>(ctx: &mut Ctx<'_, M>) {
    let callback = ctx.state.callbacks.failsafe;
    if callback.address == 0 {
        ctx.crash(format_args!("a data selector cannot be loaded, and no failsafe callback is registered"));
        return;
    }
    let context = &ctx.state.context;
    let selectors = [context.ds, context.es, context.fs, context.gs].map(u64::from);
    ctx.machine().clear_data_selectors();
    ctx.bounce(Entry { address: callback.address, masks_events: callback.masks_events, error_code: None });
    // The four selectors go between r11 and rip: push the frame's first two words again below them.
    let sp = ctx.frame.rsp;
    let moved = ctx.machine().read_guest_u64(Gva(sp)).and_then(|rcx| {
        let r11 = ctx.machine().read_guest_u64(Gva(sp.wrapping_add(8)))?;
        let words = [rcx, r11, selectors[0], selectors[1], selectors[2], selectors[3]];
        ctx.machine().write_guest_words(Gva(sp.wrapping_sub(32)), &words)
    });
    match moved {
        Ok(()) => ctx.frame.rsp = sp.wrapping_sub(32),
        Err(fault) => ctx.crash(format_args!("cannot push a failsafe frame on its kernel stack at {}", fault.va)),
    }
}
