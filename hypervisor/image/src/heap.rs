//! The heap: a small part in the image, for the command line, and the large one that the machine gives.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::NonNull;
use linked_list_allocator::Heap;
use oxen_machine::memory;
use oxen_sync::{SpinLock, level};

/// Bytes of the first part. Reading the command line needs a few hundred.
const EARLY_BYTES: usize = 64 << 10;

/// log2 of the frames by which the heap grows: 2 MiB.
const PIECE_ORDER: u32 = 9;
const PIECE_BYTES: usize = 4096 << PIECE_ORDER;

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
        loop {
            if let Some(block) = self.allocate(layout) {
                return block.as_ptr();
            }
            if !self.grow(layout.size()) {
                return core::ptr::null_mut();
            }
        }
    }

    // SAFETY: the caller's promise is that of `GlobalAlloc::dealloc`.
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(block) = NonNull::new(block) else { return };
        let mut parts = self.0.lock();
        let early = EARLY.0.get().addr()..EARLY.0.get().addr() + EARLY_BYTES;
        let part = if early.contains(&block.addr().get()) { &mut parts.early } else { &mut parts.main };
        // SAFETY: the caller got `block` from `alloc` with the same layout, and its address tells from which part.
        unsafe { part.deallocate(block, layout) };
    }
}

impl LockedHeap {
    fn allocate(&self, layout: Layout) -> Option<NonNull<u8>> {
        let mut parts = self.0.lock();
        parts.main.allocate_first_fit(layout).or_else(|()| parts.early.allocate_first_fit(layout)).ok()
    }

    /// Adds a piece of free memory to the heap. Not for blocks larger than the piece: nothing in the hypervisor needs one.
    fn grow(&self, wanted: usize) -> bool {
        if wanted > PIECE_BYTES / 2 {
            return false;
        }
        // Frames come from the frame allocator, whose lock is an outer one: the heap's is not held here.
        let Some(block) = crate::start::spare_frames(PIECE_ORDER) else { return false };
        let mut parts = self.0.lock();
        let Some(bytes) = memory::extend_heap(block.mfn()) else { return false };
        // SAFETY: the machine has mapped that many bytes behind the heap's region, and the frames are the heap's now.
        unsafe { parts.main.extend(bytes) };
        true
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
