//! The early allocator: whole frames, taken at start-up for ever. What is left is given to the binary's allocator once.

use super::FIRST_MANAGED;
use crate::boot::ranges::{Span, SpanList};
use crate::layout::direct;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use oxen_sync::{SpinLock, level};
use oxen_types::{Maddr, Mfn, PAGE_SIZE};

/// What frames are taken for, for the report of the hypervisor's memory use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Purpose {
    /// The image and what the loader left for it.
    Image,
    /// The frame table.
    FrameTable,
    /// The machine-to-phys table.
    M2p,
    /// Page tables of the hypervisor.
    PageTables,
    /// Stacks, descriptor tables and private data of the processors.
    PerCpu,
    /// The heap.
    Heap,
    /// The console ring.
    ConsoleRing,
    /// Anything else.
    Other,
}

impl Purpose {
    /// Every purpose.
    const ALL: [Self; NR_PURPOSES] = [Self::Image, Self::FrameTable, Self::M2p, Self::PageTables, Self::PerCpu, Self::Heap, Self::ConsoleRing, Self::Other];

    /// The word for it in reports.
    const fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::FrameTable => "frame table",
            Self::M2p => "machine-to-phys table",
            Self::PageTables => "page tables",
            Self::PerCpu => "processors",
            Self::Heap => "heap",
            Self::ConsoleRing => "console ring",
            Self::Other => "other",
        }
    }
}

const NR_PURPOSES: usize = 8;

/// The hypervisor's memory by purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    bytes: [u64; NR_PURPOSES],
}

impl MemoryUse {
    /// Bytes taken for one purpose.
    #[must_use]
    pub fn bytes(&self, purpose: Purpose) -> u64 {
        self.bytes[purpose as usize]
    }

    /// All bytes taken.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.bytes.iter().sum()
    }
}

/// `9344 KiB (image 988, frame table 4100, ...)`.
impl fmt::Display for MemoryUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB (", self.total() >> 10)?;
        for (n, purpose) in Purpose::ALL.into_iter().filter(|purpose| self.bytes(*purpose) != 0).enumerate() {
            let separator = if n == 0 { "" } else { ", " };
            write!(f, "{separator}{} {}", purpose.name(), self.bytes(purpose) >> 10)?;
        }
        f.write_str(")")
    }
}

#[derive(Debug)]
struct Early {
    /// Free memory from 1 MiB up.
    free: SpanList<320>,
    /// Free memory below 1 MiB, for the start-up code of the other processors.
    low: SpanList<32>,
}

static EARLY: SpinLock<Early, { level::ALLOCATOR }> = SpinLock::new(Early { free: SpanList::new(), low: SpanList::new() });
static USED: [AtomicU64; NR_PURPOSES] = [const { AtomicU64::new(0) }; NR_PURPOSES];
/// Set when the rest has been given away.
static CLOSED: AtomicBool = AtomicBool::new(false);
/// While the boot tables are in use only the first 4 GiB can be reached.
static REACHABLE: AtomicU64 = AtomicU64::new(1 << 32);

/// Page-table frames kept for mappings that are made after the allocator has closed.
const TABLE_RESERVE: u64 = 16;
static TABLE_FRAMES: SpinLock<Span, { level::ALLOCATOR }> = SpinLock::new(Span { start: 0, end: 0 });

fn count(purpose: Purpose, bytes: u64) {
    USED[purpose as usize].fetch_add(bytes, Ordering::Relaxed);
}

/// Gives the allocator its memory. The parts that are in use are taken out with [`reserve`] before the first allocation.
pub(crate) fn seed(ram: impl Iterator<Item = Span>) {
    let mut early = EARLY.lock();
    for span in ram {
        // A list that is full loses memory, nothing else.
        let _ = early.free.add(span.intersection(Span { start: FIRST_MANAGED, end: u64::MAX }));
        // The first page holds the BIOS data area, which firmware code uses at run time.
        let _ = early.low.add(span.intersection(Span { start: PAGE_SIZE, end: FIRST_MANAGED }));
    }
}

/// Takes a range out of the free memory.
pub(crate) fn reserve(span: Span, purpose: Option<Purpose>) {
    let pages = span.outer_pages();
    let mut early = EARLY.lock();
    let _ = early.low.remove(pages);
    if early.free.remove(pages).is_err() {
        panic!("the list of free memory is full");
    }
    if let Some(purpose) = purpose {
        count(purpose, pages.len());
    }
}

/// Puts a range back that [`reserve`] took, or an allocation.
pub(crate) fn unreserve(span: Span, purpose: Purpose) {
    USED[purpose as usize].fetch_sub(span.len(), Ordering::Relaxed);
    let _ = EARLY.lock().free.add(span);
}

/// The final tables are loaded: all memory can be reached.
pub(crate) fn reach_all() {
    REACHABLE.store(u64::MAX, Ordering::Relaxed);
}

/// Free bytes.
pub(crate) fn free_bytes() -> u64 {
    EARLY.lock().free.as_slice().iter().map(|span| span.len()).sum()
}

/// True where the whole range is free.
pub(crate) fn is_free(span: Span) -> bool {
    EARLY.lock().free.as_slice().iter().any(|free| free.start <= span.start && span.end <= free.end)
}

/// Takes `frames` contiguous frames whose first number is a multiple of `align` (a power of two, in frames), as high as possible
/// below the machine address `below`. The contents are whatever they were.
///
/// # Panics
/// After [`free_ranges`].
#[must_use]
pub fn early_alloc_below(frames: u64, align: u64, below: u64, purpose: Purpose) -> Option<Mfn> {
    if CLOSED.load(Ordering::Relaxed) {
        panic!("early allocation after the memory was given away");
    }
    let within = Span { start: 0, end: below.min(REACHABLE.load(Ordering::Relaxed)) };
    let span = EARLY.lock().free.take_highest(frames << 12, align << 12, within)?;
    count(purpose, span.len());
    Some(Maddr(span.start).mfn())
}

/// As [`early_alloc_below`], anywhere.
///
/// # Panics
/// After [`free_ranges`], and where no memory is left: nothing can run without what is allocated this early.
#[must_use]
pub fn early_alloc_for(frames: u64, align: u64, purpose: Purpose) -> Mfn {
    early_alloc_below(frames, align, u64::MAX, purpose)
        .unwrap_or_else(|| panic!("not enough memory: {} KiB for {purpose:?} cannot be had", frames * 4))
}

/// As [`early_alloc_for`], for the processors' areas.
#[must_use]
pub fn early_alloc(frames: u64, align: u64) -> Mfn {
    early_alloc_for(frames, align, Purpose::PerCpu)
}

/// Takes frames below 1 MiB, where processors start in real mode.
#[must_use]
pub fn early_alloc_low(frames: u64) -> Option<Mfn> {
    let span = EARLY.lock().low.take_highest(frames << 12, PAGE_SIZE, Span { start: 0, end: 0xa0000 })?;
    count(Purpose::PerCpu, span.len());
    Some(Maddr(span.start).mfn())
}

/// A frame for a page table. After the allocator has closed it comes from a small reserve.
pub(crate) fn take_table_frame() -> Maddr {
    if !CLOSED.load(Ordering::Relaxed) {
        return early_alloc_for(1, 1, Purpose::PageTables).maddr();
    }
    let mut reserve = TABLE_FRAMES.lock();
    if reserve.is_empty() {
        panic!("no page-table frame left for a late mapping");
    }
    let frame = Maddr(reserve.start);
    reserve.start += PAGE_SIZE;
    frame
}

/// A large buffer for work at start-up (unpacking a kernel), zeroed; given back with [`early_release`]. `None` where memory does not suffice.
#[must_use]
pub fn early_buffer(bytes: usize) -> Option<&'static mut [u8]> {
    let frames = (bytes as u64).div_ceil(PAGE_SIZE);
    let first = early_alloc_below(frames, 1, u64::MAX, Purpose::Other)?;
    // SAFETY: the frames are in the direct map and were free: nobody else has a reference to them.
    let buffer = unsafe { core::slice::from_raw_parts_mut(direct(first.maddr()) as *mut u8, bytes) };
    buffer.fill(0);
    Some(buffer)
}

/// The memory behind a buffer of [`early_buffer`].
fn buffer_span(buffer: &'static mut [u8]) -> Span {
    let start = (buffer.as_ptr() as u64).wrapping_sub(crate::layout::DIRECT_MAP);
    if !start.is_multiple_of(PAGE_SIZE) {
        panic!("only whole buffers can be given back");
    }
    Span::new(start, buffer.len() as u64).outer_pages()
}

/// Gives back a buffer of [`early_buffer`], before [`free_ranges`].
///
/// # Panics
/// Where the slice does not start where the buffer does.
pub fn early_release(buffer: &'static mut [u8]) {
    unreserve(buffer_span(buffer), Purpose::Other);
}

/// The frames of a buffer of [`early_buffer`] that is given up after the allocator has closed: the first one and their number.
///
/// # Panics
/// Where the slice does not start where the buffer does.
pub fn buffer_frames(buffer: &'static mut [u8]) -> (Mfn, u64) {
    let span = buffer_span(buffer);
    USED[Purpose::Other as usize].fetch_sub(span.len(), Ordering::Relaxed);
    (Maddr(span.start).mfn(), span.len() >> 12)
}

/// The hypervisor's memory use so far, by purpose.
#[must_use]
pub fn memory_use() -> MemoryUse {
    let mut result = MemoryUse::default();
    for (to, from) in result.bytes.iter_mut().zip(&USED) {
        *to = from.load(Ordering::Relaxed);
    }
    result
}

/// Closes the early allocator and gives the frames that nobody has taken: first frame and count, lowest first. Modules are not
/// among them: whoever has used one up may give its frames to the allocator too. Called once.
///
/// # Panics
/// On the second call.
pub fn free_ranges() -> impl Iterator<Item = (Mfn, u64)> {
    let reserve = early_alloc_for(TABLE_RESERVE, 1, Purpose::PageTables);
    *TABLE_FRAMES.lock() = Span::new(reserve.maddr().0, TABLE_RESERVE << 12);
    CLOSED.store(true, Ordering::Relaxed);
    let free = core::mem::take(&mut EARLY.lock().free);
    let mut next = 0;
    core::iter::from_fn(move || {
        let span = free.as_slice().get(next)?;
        next += 1;
        Some((Maddr(span.start).mfn(), span.len() >> 12))
    })
}
