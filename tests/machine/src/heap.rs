//! A heap that is never given back: enough for a test.

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering};

struct Bump {
    next: AtomicUsize,
    end: AtomicUsize,
}

#[global_allocator]
static HEAP: Bump = Bump { next: AtomicUsize::new(0), end: AtomicUsize::new(0) };

// SAFETY: every block lies behind all earlier ones, within the region.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let fits = |next: usize| {
            let start = next.next_multiple_of(layout.align());
            (start + layout.size() <= self.end.load(Ordering::Relaxed)).then_some(start + layout.size())
        };
        match self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(before) => before.next_multiple_of(layout.align()) as *mut u8,
            Err(_) => core::ptr::null_mut(),
        }
    }

    // SAFETY: nothing is ever given back.
    unsafe fn dealloc(&self, _block: *mut u8, _layout: Layout) {}
}

/// Gives the heap its region.
pub fn start(first: *mut u8, len: usize) {
    HEAP.next.store(first as usize, Ordering::Relaxed);
    HEAP.end.store(first as usize + len, Ordering::Relaxed);
}
