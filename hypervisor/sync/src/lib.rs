//! Locks with a level in their type, owned exclusive cells and once-cells.
//!
//! The hypervisor runs with maskable interrupts off (they are taken only in the idle loop and on the way back to a guest), so
//! no lock needs an interrupt-safe variant. What a CPU must do while it waits for another one (answer TLB flush requests) is done
//! by the relax hook, which every waiting loop calls.
#![no_std]

extern crate alloc;

mod atomic;
mod exclusive;
mod lock;
mod once;

pub use exclusive::{Exclusive, ExclusiveGuard};
pub use lock::{SpinGuard, SpinLock, lock_pair};
pub use once::OnceCell;

use core::sync::atomic::{AtomicPtr, Ordering};

static RELAX_HOOK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Sets the function that every waiting loop calls on each turn. The machine sets it once, before the second CPU starts.
pub fn set_relax_hook(hook: fn()) {
    RELAX_HOOK.store(hook as *mut (), Ordering::Release);
}

/// One turn of a waiting loop: answers what other CPUs ask of this one, then pauses.
pub fn relax() {
    let hook = RELAX_HOOK.load(Ordering::Acquire);
    if !hook.is_null() {
        // SAFETY: the only non-null values ever stored come from `set_relax_hook`, which takes a `fn()`.
        let hook: fn() = unsafe { core::mem::transmute(hook) };
        hook();
    }
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

/// The lock levels, outermost first: a CPU that holds a lock may take only locks of a higher level.
pub mod level {
    /// The list of domains.
    pub const DOMAIN_LIST: u8 = 10;
    /// One domain's control state.
    pub const DOMAIN: u8 = 20;
    /// Page-table updates of one domain.
    pub const PAGE_TABLES: u8 = 30;
    /// A domain's grant table.
    pub const GRANT: u8 = 40;
    /// A domain's event channels.
    pub const EVENT: u8 = 50;
    /// Physical interrupts and their binding to domains.
    pub const IRQ: u8 = 60;
    /// A processor's run queue.
    pub const RUN_QUEUE: u8 = 70;
    /// A processor's timer heap.
    pub const TIMER: u8 = 80;
    /// The frame allocator.
    pub const ALLOCATOR: u8 = 90;
    /// The heap.
    pub const HEAP: u8 = 100;
    /// The console ring and devices.
    pub const CONSOLE: u8 = 110;
}
