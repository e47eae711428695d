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
    let top = paths.kernel_sp.0 & !0xf;
    fast.kernel_cr3.set(paths.kernel_root.maddr().0);
    fast.user_cr3.set(paths.user_root.maddr().0);
    fast.syscall_frame.set(top - SYSCALL_FRAME);
    fast.fault_frame.set(top - FAULT_FRAME);
    fast.syscall.set(paths.syscall.0);
    fast.page_fault.set(paths.page_fault.0);
    fast.upcall_mask.set(direct(Maddr(paths.info.0 + UPCALL_MASK)));
    fast.mode.set(fast.mode.get() & !MODE_SLOW);
}

/// The entry points may be given to `sysret`, the frames lie in the guest's own addresses, the `vcpu_info` in memory.
fn is_usable(paths: &FastPaths) -> bool {
    let in_guest = |va: Gva| !va.is_null() && va.range_is_guest(1);
    let top = paths.kernel_sp.0 & !0xf;
    let frame = top.checked_sub(FAULT_FRAME).map(Gva);
    in_guest(paths.syscall)
        && in_guest(paths.page_fault)
        && frame.is_some_and(|va| va.range_is_guest(FAULT_FRAME as usize))
        && is_ram(paths.info.mfn())
        && paths.info.page_offset() <= 4096 - 64
}
