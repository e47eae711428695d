//! The heap: a small part in the image, for the command line, and the large one that the machine gives.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::NonNull;
use linked_list_allocator::Heap;
use oxen_sync::{SpinLock, level};

/// Bytes of the first part. Reading the command line needs a few hundred.
const EARLY_BYTES: usize = 64 << 10;

#[repr(C, align(4096))]
struct EarlyRegion(UnsafeCell<[u8; EARLY_BYTES]>);

// SAFETY: only the heap that `start_early` makes of it uses the region, under the heap's lock.
unsafe impl Sync for EarlyRegion {}

static EARLY: EarlyRegion = EarlyRegion(UnsafeCell::new([0; EARLY_BYTES]));

struct Parts {
    early: Heap,
    main: Heap,
}

struct LockedHeap(SpinLock<Parts, { level::HEAP }>);

#[cfg_attr(target_os = "none", global_allocator)]
static HEAP: LockedHeap = LockedHeap(SpinLock::new(Parts { early: Heap::empty(), main: Heap::empty() }));

// SAFETY: the inner allocators hand out disjoint blocks of the regions they were given; the lock makes their use exclusive.
unsafe impl GlobalAlloc for LockedHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut parts = self.0.lock();
        let block = parts.main.allocate_first_fit(layout).or_else(|()| parts.early.allocate_first_fit(layout));
        block.map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(block) = NonNull::new(block) else { return };
        let mut parts = self.0.lock();
        let early = EARLY.0.get().addr()..EARLY.0.get().addr() + EARLY_BYTES;
        let part = if early.contains(&block.addr().get()) { &mut parts.early } else { &mut parts.main };
        // SAFETY: the caller got `block` from `alloc` with the same layout, and its address tells from which part.
        unsafe { part.deallocate(block, layout) };
    }
}

/// Starts the heap with its first part. Called once, before anything else.
pub fn start_early() {
    // SAFETY: the region is a static that nothing else refers to, and this runs once.
    unsafe { HEAP.0.lock().early.init(EARLY.0.get().cast(), EARLY_BYTES) };
}

/// Gives the heap its main region.
///
/// # Safety
/// The region is mapped for writing and nothing else uses it. Called once.
pub unsafe fn start_main(start: *mut u8, bytes: usize) {
    // SAFETY: passed on to the caller.
    unsafe { HEAP.0.lock().main.init(start, bytes) };
}
