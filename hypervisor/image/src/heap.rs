//! The heap.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use linked_list_allocator::Heap;
use oxen_sync::{SpinLock, level};

struct LockedHeap(SpinLock<Heap, { level::HEAP }>);

#[global_allocator]
static HEAP: LockedHeap = LockedHeap(SpinLock::new(Heap::empty()));

// SAFETY: the inner allocator hands out disjoint blocks of the region it was given; the lock makes its use exclusive.
unsafe impl GlobalAlloc for LockedHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.lock().allocate_first_fit(layout).map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller got `block` from `alloc` with the same layout.
            unsafe { self.0.lock().deallocate(block, layout) };
        }
    }
}

/// Gives the heap its region.
///
/// # Safety
/// The region is mapped for writing and nothing else uses it. Called once.
pub unsafe fn start(start: *mut u8, bytes: usize) {
    // SAFETY: passed on to the caller.
    unsafe { HEAP.0.lock().init(start, bytes) };
}
