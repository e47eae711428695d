//! One page of addresses through which any device register can be reached when no page tables can be made any more.

use crate::apic::HARDWARE_LEVEL;
use crate::layout::direct;
use crate::paging::{self, Access, bits};
use crate::tlb;
use core::sync::atomic::{AtomicU64, Ordering};
use oxen_sync::{OnceCell, SpinLock};
use oxen_types::{Gva, Maddr, PAGE_SIZE};

/// The window's address and where the entry that maps it lies in the direct map.
#[derive(Clone, Copy, Debug)]
struct Window {
    va: u64,
    entry: u64,
}

static WINDOW: OnceCell<Window> = OnceCell::new();
/// Held while the window shows something.
static IN_USE: SpinLock<(), HARDWARE_LEVEL> = SpinLock::new(());

fn word(at: u64) -> &'static AtomicU64 {
    // SAFETY: only called with addresses of page-table entries in the direct map, which stay for ever.
    unsafe { AtomicU64::from_ptr(at as *mut u64) }
}

/// Makes the window. `placeholder` is a device page that is mapped until the first use.
pub(crate) fn init(placeholder: Maddr) {
    let va = paging::map_mmio(Maddr(placeholder.0 & !(PAGE_SIZE - 1)), PAGE_SIZE) as u64;
    let mut table = paging::idle_root().maddr().0;
    for level in [4, 3, 2] {
        let entry = direct(Maddr(table)) + 8 * Gva(va).pt_index(level) as u64;
        table = word(entry).load(Ordering::Relaxed) & bits::ADDRESS;
    }
    let entry = direct(Maddr(table)) + 8 * Gva(va).pt_index(1) as u64;
    // Made once, at start-up.
    let _ = WINDOW.set(Window { va, entry });
}

/// Shows the page of `at` and calls `action` with the address of `at`. `None` where there is no window yet.
fn with<R>(at: Maddr, action: impl FnOnce(u64) -> R) -> Option<R> {
    let window = WINDOW.get()?;
    let _in_use = IN_USE.lock();
    let page = at.0 & bits::ADDRESS;
    let flags = word(window.entry).load(Ordering::Relaxed) & bits::NO_EXECUTE;
    word(window.entry).store(page | (Access::Device.entry_bits() & !bits::NO_EXECUTE) | flags, Ordering::Release);
    // Other CPUs may keep an old translation of the window: each drops its own before every use.
    tlb::flush_page(Gva(window.va));
    Some(action(window.va + at.0 % PAGE_SIZE))
}

/// Writes an aligned 32-bit register.
pub(crate) fn write_u32(at: Maddr, value: u32) {
    debug_assert!(at.0.is_multiple_of(4));
    // SAFETY: the window shows a device's page; the caller answers for the effect of the register.
    with(at, |va| unsafe { (va as *mut u32).write_volatile(value) });
}

/// Writes an 8-bit register.
pub(crate) fn write_u8(at: Maddr, value: u8) {
    // SAFETY: as in `write_u32`.
    with(at, |va| unsafe { (va as *mut u8).write_volatile(value) });
}
