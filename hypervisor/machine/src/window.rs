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

impl Window {
    /// Shows the page of `at` and gives the address of `at`. The caller holds [`IN_USE`].
    fn show(self, at: Maddr) -> u64 {
        let page = at.0 & bits::ADDRESS;
        let no_execute = word(self.entry).load(Ordering::Relaxed) & bits::NO_EXECUTE;
        word(self.entry).store(page | (Access::Device.entry_bits() & !bits::NO_EXECUTE) | no_execute, Ordering::Release);
        // Other CPUs may keep an old translation of the window: each drops its own before every use.
        tlb::flush_page(Gva(self.va));
        self.va + at.0 % PAGE_SIZE
    }
}

/// Writes an aligned 32-bit register.
pub(crate) fn write_u32(at: Maddr, value: u32) {
    debug_assert!(at.0.is_multiple_of(4));
    let Some(window) = WINDOW.get() else { return };
    let _in_use = IN_USE.lock();
    // SAFETY: the window shows a device's page; the caller answers for the effect of the register.
    unsafe { (window.show(at) as *mut u32).write_volatile(value) };
}

/// Writes an 8-bit register, for a machine that is to restart: gives up where the window stays in use, as its user may have been stopped.
pub(crate) fn write_u8_or_give_up(at: Maddr, value: u8) {
    let Some(window) = WINDOW.get() else { return };
    for _ in 0..1_000_000 {
        if let Some(_in_use) = IN_USE.try_lock() {
            // SAFETY: as in `write_u32`.
            unsafe { (window.show(at) as *mut u8).write_volatile(value) };
            return;
        }
        core::hint::spin_loop();
    }
}
