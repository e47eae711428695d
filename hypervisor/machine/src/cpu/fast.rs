//! What the entry code may do for the running vCPU without calling logic (entry/fast.s).

use crate::layout::direct;
use crate::memory::is_ram;
use crate::percpu::{MODE_SLOW, current};
use oxen_hal::FastPaths;
use oxen_types::{Gva, Maddr};

/// Bytes of the frame for `syscall`: rcx, r11, rip, cs, rflags, rsp, ss.
const SYSCALL_FRAME: u64 = 56;
/// Bytes of the frame for a page fault, which has an error code besides.
const FAULT_FRAME: u64 = 64;
/// Offset of the upcall mask in `vcpu_info` (public header `xen.h`).
const UPCALL_MASK: u64 = 1;

/// Takes over the values, or switches the paths off where one of them is not usable.
pub(super) fn set(paths: Option<&FastPaths>) {
    let fast = &current().fast;
    let Some(paths) = paths.filter(|paths| is_usable(paths)) else {
        fast.mode.set(fast.mode.get() | MODE_SLOW);
        return;
    };
    fast.kernel_cr3.set(paths.kernel_root.maddr().0);
    fast.user_cr3.set(paths.user_root.maddr().0);
    fast.syscall.set(paths.syscall.0);
    fast.page_fault.set(paths.page_fault.0);
    fast.upcall_mask.set(direct(Maddr(paths.info.0 + UPCALL_MASK)));
    fast.mode.set(fast.mode.get() & !MODE_SLOW);
    set_stack(paths.kernel_sp);
}

/// Takes over the stack, or switches the paths off where it is not usable.
#[inline]
pub(super) fn set_stack(kernel_sp: Gva) {
    let fast = &current().fast;
    let top = kernel_sp.0 & !0xf;
    let Some(frame) = top.checked_sub(FAULT_FRAME).filter(|at| Gva(*at).range_is_guest(FAULT_FRAME as usize)) else {
        fast.mode.set(fast.mode.get() | MODE_SLOW);
        return;
    };
    fast.fault_frame.set(frame);
    fast.syscall_frame.set(top - SYSCALL_FRAME);
}

/// The entry points may be given to `sysret`, the `vcpu_info` lies in memory.
fn is_usable(paths: &FastPaths) -> bool {
    let in_guest = |va: Gva| !va.is_null() && va.range_is_guest(1);
    in_guest(paths.syscall)
        && in_guest(paths.page_fault)
        && is_ram(paths.info.mfn())
        && paths.info.page_offset() <= 4096 - 64
}
