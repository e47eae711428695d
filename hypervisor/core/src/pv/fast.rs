//! What the machine's entry code may do for the running vCPU by itself.

use super::ASSIST_ARCHITECTURAL_IOPL;
use super::trap::MASKS_EVENTS;
use crate::ctx::Ctx;
use oxen_hal::{FastPaths, Machine};
use oxen_mm::HeldTable;
use oxen_types::Gva;

const PAGE_FAULT: usize = 14;

impl<M: Machine> Ctx<'_, M> {
    /// Tells the machine what it may use now.
    #[cold]
    pub(crate) fn refresh_fast_paths(&mut self) {
        self.state.fast_paths_stale = false;
        self.machine().set_fast_paths(self.fast_paths().as_ref());
    }

    /// The values, where the guest is one for which the entry code does all that is to be done.
    fn fast_paths(&self) -> Option<FastPaths> {
        // An `iret` also ends the masking of NMIs.
        if self.domain.has_assist(ASSIST_ARCHITECTURAL_IOPL) || self.state.nmi_masked {
            return None;
        }
        let syscall = self.state.callbacks.syscall;
        let page_fault = self.state.traps.get(PAGE_FAULT)?;
        if !syscall.masks_events || page_fault.flags & MASKS_EVENTS == 0 {
            return None;
        }
        Some(FastPaths {
            kernel_root: self.state.root.as_ref().map(HeldTable::mfn)?,
            user_root: self.state.user_root.as_ref().map(HeldTable::mfn)?,
            kernel_sp: Gva(self.state.kernel_sp),
            syscall: Gva(syscall.address),
            page_fault: Gva(page_fault.address),
            info: self.vcpu.info()?.0,
        })
    }
}
