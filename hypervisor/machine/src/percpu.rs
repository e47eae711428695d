//! The per-CPU areas: system call stub, the CPU's own data, descriptor tables, stacks.
//!
//! An area is 1 MiB of virtual addresses, the same in every address space. All stacks of a CPU lie in its area, so the area's base is `rsp` with
//! the low bits cleared: no register needs to be reserved, and GS stays the guest's at all times.

use crate::descriptors::{GUEST_GDT_PAGES, LDT_PAGES, NR_IST, Tss};
use crate::layout::{PER_CPU, PER_CPU_STRIDE};
use core::arch::asm;
use core::cell::{Cell, UnsafeCell};
use oxen_hal::GuestFrame;
use oxen_types::{CpuId, MAX_CPUS};

const PAGE: u64 = 4096;

/// Offset of the system call stub's page in an area. The assembly counts on 0.
pub const STUB: u64 = 0;
/// Offset of the CPU's data.
pub const DATA: u64 = PAGE;
/// Offset of the GDT as the processor sees it: the guest's pages, then the hypervisor's.
pub const GDT: u64 = 16 * PAGE;
/// Offset of the LDT as the processor sees it.
pub const LDT: u64 = 32 * PAGE;
/// Offset of the first interrupt stack's guard page; each stack follows its guard.
const IST_STACKS: u64 = 64 * PAGE;
/// Pages of an interrupt stack, enough for a fatal report.
pub const IST_STACK_PAGES: u64 = 2;
/// Offset of the lowest page of the main stack; an unmapped page lies below.
pub const MAIN_STACK: u64 = 96 * PAGE;
/// Pages of the main stack.
pub const MAIN_STACK_PAGES: u64 = 8;
/// Offset of the end of the main stack.
pub const MAIN_STACK_TOP: u64 = MAIN_STACK + MAIN_STACK_PAGES * PAGE;
/// Offset from where the hypervisor's own code uses the main stack downwards: the guest's frame and its padding have the room above.
pub const MAIN_STACK_START: u64 = MAIN_STACK_TOP - 192;

const _: () = assert!(MAIN_STACK_TOP + PAGE <= PER_CPU_STRIDE && size_of::<GuestFrame>() + 8 <= 192 && MAIN_STACK_START.is_multiple_of(16));

/// Offset of the lowest page of interrupt stack `index`.
#[must_use]
pub const fn ist_stack(index: usize) -> u64 {
    IST_STACKS + index as u64 * (IST_STACK_PAGES + 1) * PAGE + PAGE
}

const _: () = assert!(ist_stack(NR_IST) < MAIN_STACK);

/// Base of the area of `cpu`.
#[must_use]
pub const fn area_of(cpu: CpuId) -> u64 {
    PER_CPU + cpu.0 as u64 * PER_CPU_STRIDE
}

/// The address from which `cpu` starts to use its main stack.
#[must_use]
pub const fn main_stack(cpu: CpuId) -> u64 {
    area_of(cpu) + MAIN_STACK_START
}

/// The running guest is in user mode.
pub(crate) const MODE_USER: u8 = 1;
/// The entry code serves nothing by itself. The assembly counts on these values: 0 and 1 are kernel and user mode with its own paths.
pub(crate) const MODE_SLOW: u8 = 2;

/// The values behind [`oxen_hal::FastPaths`], as the assembly reads them, and the running guest's mode, which it changes.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Fast {
    /// [`MODE_USER`] and [`MODE_SLOW`].
    pub mode: Cell<u8>,
    /// CR3 for kernel mode.
    pub kernel_cr3: Cell<u64>,
    /// CR3 for user mode.
    pub user_cr3: Cell<u64>,
    /// Where the frame of a `syscall` goes.
    pub syscall_frame: Cell<u64>,
    /// Where the frame of a page fault goes.
    pub fault_frame: Cell<u64>,
    /// The guest's callback for `syscall`.
    pub syscall: Cell<u64>,
    /// The guest's page fault handler.
    pub page_fault: Cell<u64>,
    /// The hypervisor's address of the upcall mask in the `vcpu_info`.
    pub upcall_mask: Cell<u64>,
}

impl Fast {
    /// No path, kernel mode.
    pub(crate) const fn none() -> Self {
        Self {
            mode: Cell::new(MODE_SLOW),
            kernel_cr3: Cell::new(0),
            user_cr3: Cell::new(0),
            syscall_frame: Cell::new(0),
            fault_frame: Cell::new(0),
            syscall: Cell::new(0),
            page_fault: Cell::new(0),
            upcall_mask: Cell::new(0),
        }
    }
}

/// What a CPU keeps for itself. Only the CPU itself uses it, and it has one page of its own.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct PerCpu {
    /// Where the system call stub goes on.
    pub(crate) syscall_entry: u64,
    /// Where it goes on for 32-bit code.
    pub(crate) syscall32_entry: u64,
    /// What the entry code serves by itself.
    pub(crate) fast: Fast,
    /// The CPU's number.
    pub(crate) cpu: CpuId,
    /// Copies of registers, so that they are written only when they change and read without the cost of reading the register.
    pub(crate) cr0: Cell<u64>,
    pub(crate) cr4: Cell<u64>,
    pub(crate) xcr0: Cell<u64>,
    pub(crate) tsc_aux: Cell<u32>,
    /// Debug registers 0 to 3, and 7.
    pub(crate) debug: [Cell<u64>; 4],
    pub(crate) dr7: Cell<u64>,
    /// The guest frames in the GDT window; `u64::MAX` where the empty page is shown.
    pub(crate) gdt_frames: [Cell<u64>; GUEST_GDT_PAGES],
    /// The guest frames in the LDT window; `u64::MAX` where nothing is mapped.
    pub(crate) ldt_frames: [Cell<u64>; LDT_PAGES],
    /// Descriptors of the guest's LDT.
    pub(crate) ldt_entries: Cell<u32>,
    /// The page-table entries that map the area, one for each page.
    pub(crate) entries: *mut u64,
    pub(crate) tss: UnsafeCell<Tss>,
}

const _: () = assert!(size_of::<PerCpu>() as u64 <= PAGE);

/// A stack pointer somewhere in the caller's frame.
#[inline(always)]
fn stack_pointer() -> u64 {
    let rsp: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(pure, nomem, nostack, preserves_flags)) };
    rsp
}

/// Base of the calling CPU's area. Meaningful from the time when the CPU runs on its own stacks.
#[inline(always)]
#[must_use]
pub fn area() -> u64 {
    stack_pointer() & !(PER_CPU_STRIDE - 1)
}

/// True where the calling code runs on a stack of a per-CPU area, which it does not at the very beginning.
#[must_use]
pub fn on_own_stack() -> bool {
    (PER_CPU..PER_CPU + MAX_CPUS as u64 * PER_CPU_STRIDE).contains(&stack_pointer())
}

/// The calling CPU's data.
#[inline(always)]
#[must_use]
pub fn current() -> &'static PerCpu {
    // SAFETY: the CPU runs on a stack of its area, whose data page was filled in before. `PerCpu` is not `Sync`, so the reference stays with this CPU.
    unsafe { &*core::ptr::with_exposed_provenance::<PerCpu>((area() + DATA) as usize) }
}

/// The calling CPU's number; the boot CPU's where per-CPU areas are not in use yet.
#[inline]
#[must_use]
pub fn this_cpu() -> CpuId {
    if on_own_stack() { current().cpu } else { CpuId(0) }
}

/// The calling CPU's number, after an entry from a guest.
#[inline(always)]
#[must_use]
pub fn entered_cpu() -> CpuId {
    current().cpu
}

/// The place of the guest's frame at the top of the calling CPU's main stack.
pub(crate) fn main_frame() -> *mut GuestFrame {
    core::ptr::with_exposed_provenance_mut((area() + MAIN_STACK_TOP - size_of::<GuestFrame>() as u64) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_have_guards_and_do_not_meet() {
        for index in 0..NR_IST {
            let end = ist_stack(index) + IST_STACK_PAGES * PAGE;
            let next = if index + 1 < NR_IST { ist_stack(index + 1) } else { MAIN_STACK };
            assert!(end + PAGE <= next);
        }
        assert!(LDT + LDT_PAGES as u64 * PAGE <= ist_stack(0) - PAGE);
        assert!(GDT + (GUEST_GDT_PAGES as u64 + 1) * PAGE <= LDT);
    }
}
