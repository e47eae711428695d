//! The frame table, the machine-to-phys table, and access to frames through the direct map.

use super::early::{Purpose, early_alloc_for};
use super::{FIRST_MANAGED, ram};
use crate::X86;
use crate::boot::ranges::Span;
use crate::layout::{DIRECT_MAP, FRAME_TABLE, HEAP, HEAP_END, M2P, MAX_FRAMES};
use crate::paging::{self, Access};
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};
use oxen_hal::{FrameMeta, Frames, MemoryRange};
use oxen_types::{Maddr, Mfn, PAGE_SIZE, PT_ENTRIES};

/// Bytes of one piece of a table.
const PIECE_BYTES: u64 = 2 << 20;
/// Frames in one piece.
const PIECE_FRAMES: u64 = PIECE_BYTES >> 12;
/// Frames whose records fill one piece of the frame table.
const META_PER_PIECE: u64 = PIECE_BYTES / size_of::<FrameMeta>() as u64;
/// Frames whose entries fill one piece of the machine-to-phys table.
const M2P_PER_PIECE: u64 = PIECE_BYTES / 8;

const BLOCK_NONE: u8 = 0;
const BLOCK_ALL: u8 = 1;
const BLOCK_MIXED: u8 = 2;
/// log2 of the frames in a block.
const BLOCK_SHIFT: u32 = 9;

static MAX_MFN: AtomicU64 = AtomicU64::new(0);
/// For each block of 512 frames, whether they are RAM: one byte tells in all cases but the mixed ones.
static BLOCKS: AtomicPtr<AtomicU8> = AtomicPtr::new(core::ptr::null_mut());
/// For each piece of the machine-to-phys table, where the direct map shows it; null for a hole. The hypervisor uses the table there, as the
/// guests' view of it is made of user pages, which SMAP forbids it to touch.
static M2P_PIECES: AtomicPtr<AtomicPtr<AtomicU64>> = AtomicPtr::new(core::ptr::null_mut());
static NR_M2P_PIECES: AtomicU64 = AtomicU64::new(0);
/// First byte of the heap, from [`HEAP`]: its first part ends on a multiple of 2 MiB, so that it can grow by large pages.
static HEAP_OFFSET: AtomicU64 = AtomicU64::new(0);
static HEAP_USED: AtomicU64 = AtomicU64::new(0);

/// RAM that the frame table describes: whole pages from 1 MiB up. The first MiB counts as I/O memory, as guests expect.
fn managed() -> impl Iterator<Item = Span> {
    ram().map(|span| span.intersection(Span { start: FIRST_MANAGED, end: u64::MAX })).filter(|span| !span.is_empty())
}

/// True where the frame is RAM that the hypervisor manages.
#[inline]
#[must_use]
pub fn is_ram(mfn: Mfn) -> bool {
    if mfn.0 >= MAX_MFN.load(Ordering::Relaxed) {
        return false;
    }
    // SAFETY: the array has one byte for each block below MAX_MFN, which is set after it.
    let block = unsafe { &*BLOCKS.load(Ordering::Relaxed).add((mfn.0 >> BLOCK_SHIFT) as usize) };
    let block = block.load(Ordering::Relaxed);
    // The common answer after one comparison.
    block == BLOCK_ALL || block != BLOCK_NONE && is_ram_by_map(mfn)
}

#[cold]
fn is_ram_by_map(mfn: Mfn) -> bool {
    let address = mfn.maddr().0;
    managed().any(|span| span.start <= address && address < span.end)
}

/// Allocates and maps the frame table, the machine-to-phys table and the heap's first part of `heap_bytes`.
pub(crate) fn start_tables(heap_bytes: u64) {
    let max_mfn = managed().map(|span| span.end >> 12).max().unwrap_or(0);
    make_blocks(max_mfn);
    for piece in 0..max_mfn.div_ceil(META_PER_PIECE) {
        if any_ram(piece * META_PER_PIECE, META_PER_PIECE) {
            let first = early_alloc_for(PIECE_FRAMES, PIECE_FRAMES, Purpose::FrameTable);
            fill_piece(first, 0);
            paging::map(FRAME_TABLE + piece * PIECE_BYTES, first.maddr(), PIECE_BYTES, Access::ReadWrite);
        }
    }
    make_m2p(max_mfn);
    MAX_MFN.store(max_mfn, Ordering::Release);

    let bytes = heap_bytes.next_multiple_of(PAGE_SIZE);
    let offset = bytes.next_multiple_of(PIECE_BYTES) - bytes;
    let first = early_alloc_for(bytes >> 12, 1, Purpose::Heap);
    paging::map(HEAP + offset, first.maddr(), bytes, Access::ReadWrite);
    HEAP_OFFSET.store(offset, Ordering::Relaxed);
    HEAP_USED.store(offset + bytes, Ordering::Relaxed);
}

fn make_m2p(max_mfn: u64) {
    let pieces = max_mfn.div_ceil(M2P_PER_PIECE);
    let list = early_alloc_for((pieces * 8).div_ceil(PAGE_SIZE).max(1), 1, Purpose::M2p);
    let list = (DIRECT_MAP + list.maddr().0) as *mut AtomicPtr<AtomicU64>;
    for piece in 0..pieces {
        let mut shown = core::ptr::null_mut();
        if any_ram(piece * M2P_PER_PIECE, M2P_PER_PIECE) {
            let first = early_alloc_for(PIECE_FRAMES, PIECE_FRAMES, Purpose::M2p);
            fill_piece(first, 0xff);
            paging::map(M2P + piece * PIECE_BYTES, first.maddr(), PIECE_BYTES, Access::GuestReadOnly);
            shown = (DIRECT_MAP + first.maddr().0) as *mut AtomicU64;
        }
        // SAFETY: the list was allocated with room for `pieces` entries.
        unsafe { list.add(piece as usize).write(AtomicPtr::new(shown)) };
    }
    M2P_PIECES.store(list, Ordering::Relaxed);
    NR_M2P_PIECES.store(pieces, Ordering::Release);
}

/// The entry of a frame in the machine-to-phys table.
#[inline]
fn m2p_entry(mfn: Mfn) -> Option<&'static AtomicU64> {
    let piece = mfn.0 / M2P_PER_PIECE;
    if piece >= NR_M2P_PIECES.load(Ordering::Acquire) {
        return None;
    }
    // SAFETY: the list has an entry for each piece below NR_M2P_PIECES.
    let shown = unsafe { &*M2P_PIECES.load(Ordering::Relaxed).add(piece as usize) }.load(Ordering::Relaxed);
    if shown.is_null() {
        return None;
    }
    // SAFETY: a piece has M2P_PER_PIECE entries and stays for ever.
    Some(unsafe { &*shown.add((mfn.0 % M2P_PER_PIECE) as usize) })
}

fn any_ram(first: u64, count: u64) -> bool {
    let wanted = Span { start: first << 12, end: (first + count) << 12 };
    managed().any(|span| span.overlaps(wanted))
}

fn fill_piece(first: Mfn, byte: u8) {
    // SAFETY: the frames were just allocated and are in the direct map.
    unsafe { core::ptr::write_bytes((DIRECT_MAP + first.maddr().0) as *mut u8, byte, PIECE_BYTES as usize) };
}

fn make_blocks(max_mfn: u64) {
    let count = max_mfn.div_ceil(1 << BLOCK_SHIFT);
    let first = early_alloc_for(count.div_ceil(PAGE_SIZE).max(1), 1, Purpose::FrameTable);
    let blocks = (DIRECT_MAP + first.maddr().0) as *mut AtomicU8;
    for block in 0..count {
        let frames = Span { start: block << (BLOCK_SHIFT + 12), end: (block + 1) << (BLOCK_SHIFT + 12) };
        let covered: u64 = managed().map(|span| span.intersection(frames).len()).sum();
        let state = match covered {
            0 => BLOCK_NONE,
            bytes if bytes == frames.len() => BLOCK_ALL,
            _ => BLOCK_MIXED,
        };
        // SAFETY: the array was allocated with room for `count` bytes.
        unsafe { blocks.add(block as usize).write(AtomicU8::new(state)) };
    }
    BLOCKS.store(blocks, Ordering::Release);
}

/// The heap's first part: address and bytes.
pub(crate) fn heap_region() -> (*mut u8, usize) {
    let offset = HEAP_OFFSET.load(Ordering::Relaxed);
    ((HEAP + offset) as *mut u8, (HEAP_USED.load(Ordering::Relaxed) - offset) as usize)
}

/// Adds 512 frames, on a multiple of 512, to the end of the heap's region. Gives the number of bytes by which the region grew; `None` where its
/// place in the address space is used up. The caller owns the frames and does not use them any more.
#[must_use]
pub fn extend_heap(first: Mfn) -> Option<usize> {
    let used = HEAP_USED.load(Ordering::Relaxed);
    let fits = used + PIECE_BYTES <= HEAP_END - HEAP && first.0.is_multiple_of(PIECE_FRAMES);
    if !fits {
        return None;
    }
    paging::map(HEAP + used, first.maddr(), PIECE_BYTES, Access::ReadWrite);
    HEAP_USED.store(used + PIECE_BYTES, Ordering::Relaxed);
    Some(PIECE_BYTES as usize)
}

/// Bytes of a cache line, on every processor with 64-bit mode.
const LINE_BYTES: u64 = 64;

/// Where the direct map shows a byte of a frame. A frame number beyond the direct map's room is a hypervisor bug; one that is not RAM hits an unmapped page
/// of the direct map, which is a fatal report as well.
#[inline]
fn frame_address(mfn: Mfn, offset: usize, bytes: usize) -> u64 {
    if mfn.0 >= MAX_FRAMES || offset > PAGE_SIZE as usize || bytes > PAGE_SIZE as usize - offset {
        bad_frame(mfn, offset, bytes);
    }
    DIRECT_MAP + (mfn.0 << 12) + offset as u64
}

#[cold]
#[inline(never)]
fn bad_frame(mfn: Mfn, offset: usize, bytes: usize) -> ! {
    panic!("access to {bytes} bytes at {offset:#x} of {mfn}, which is not RAM");
}

#[inline]
fn entry(mfn: Mfn, index: usize) -> &'static AtomicU64 {
    // SAFETY: the address is in the direct map, aligned, and used only as an atomic by this module and by guests.
    unsafe { AtomicU64::from_ptr(frame_address(mfn, index * 8, 8) as *mut u64) }
}

/// Copies bytes that another CPU may change at the same time; which of its writes are seen is unspecified.
#[inline]
fn copy(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: both ranges are valid for `len` bytes (the callers check); the string instruction, opaque to the compiler, tolerates concurrent writes.
    unsafe {
        core::arch::asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
                         options(nostack, preserves_flags));
    }
}

impl Frames for X86 {
    #[inline]
    fn meta(&self, mfn: Mfn) -> Option<&FrameMeta> {
        if !is_ram(mfn) {
            return None;
        }
        let record = (FRAME_TABLE + mfn.0 * size_of::<FrameMeta>() as u64) as *const FrameMeta;
        // SAFETY: the frame table, which is not at address 0, has a record for each frame that is RAM, for ever.
        Some(unsafe {
            core::hint::assert_unchecked(!record.is_null());
            &*record
        })
    }

    fn max_mfn(&self) -> u64 {
        MAX_MFN.load(Ordering::Relaxed)
    }

    fn memory_map(&self) -> &[MemoryRange] {
        super::map()
    }

    #[inline]
    fn table(&self, mfn: Mfn) -> &[AtomicU64; PT_ENTRIES] {
        // SAFETY: one whole frame in the direct map, used only as atomics by this module's callers and by guests.
        unsafe { &*(frame_address(mfn, 0, PAGE_SIZE as usize) as *const [AtomicU64; PT_ENTRIES]) }
    }

    #[inline]
    fn read_entry(&self, mfn: Mfn, index: usize) -> u64 {
        entry(mfn, index).load(Ordering::Acquire)
    }

    #[inline]
    fn write_entry(&self, mfn: Mfn, index: usize, value: u64) {
        entry(mfn, index).store(value, Ordering::Release);
    }

    #[inline]
    fn exchange_entry(&self, mfn: Mfn, index: usize, old: u64, new: u64) -> Result<(), u64> {
        entry(mfn, index).compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).map(|_| ())
    }

    #[inline]
    fn shared_u8(&self, mfn: Mfn, offset: usize) -> &AtomicU8 {
        // SAFETY: the address is in the direct map; the caller holds a reference to the frame.
        unsafe { AtomicU8::from_ptr(frame_address(mfn, offset, 1) as *mut u8) }
    }

    #[inline]
    fn shared_u32(&self, mfn: Mfn, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4), "unaligned shared word");
        // SAFETY: as in `shared_u8`, and aligned.
        unsafe { AtomicU32::from_ptr(frame_address(mfn, offset, 4) as *mut u32) }
    }

    #[inline]
    fn shared_u64(&self, mfn: Mfn, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8), "unaligned shared word");
        // SAFETY: as in `shared_u8`, and aligned.
        unsafe { AtomicU64::from_ptr(frame_address(mfn, offset, 8) as *mut u64) }
    }

    #[inline]
    fn read_bytes(&self, mfn: Mfn, offset: usize, to: &mut [u8]) {
        copy(to.as_mut_ptr(), frame_address(mfn, offset, to.len()) as *const u8, to.len());
    }

    #[inline]
    fn write_bytes(&self, mfn: Mfn, offset: usize, from: &[u8]) {
        copy(frame_address(mfn, offset, from.len()) as *mut u8, from.as_ptr(), from.len());
    }

    #[inline]
    fn zero_frame(&self, mfn: Mfn) {
        let to = frame_address(mfn, 0, PAGE_SIZE as usize);
        // SAFETY: one whole frame in the direct map.
        unsafe {
            core::arch::asm!("rep stosq", inout("rcx") PAGE_SIZE / 8 => _, inout("rdi") to => _, in("rax") 0_u64,
                             options(nostack, preserves_flags));
        }
    }

    #[inline]
    fn flush_lines(&self, mfn: Mfn, offset: usize, len: usize) {
        let start = frame_address(mfn, offset, len);
        for line in (start & !(LINE_BYTES - 1)..start + len as u64).step_by(LINE_BYTES as usize) {
            // SAFETY: the line is in a frame of the direct map, whose contents the instruction does not change.
            unsafe { core::arch::asm!("clflush [{}]", in(reg) line, options(nostack, preserves_flags)) };
        }
        // SAFETY: a fence has no requirements.
        unsafe { core::arch::asm!("mfence", options(nostack, preserves_flags)) };
    }

    fn copy_frame(&self, to: Mfn, from: Mfn) {
        let bytes = PAGE_SIZE as usize;
        let (to, from) = (frame_address(to, 0, bytes), frame_address(from, 0, bytes));
        // SAFETY: two whole frames in the direct map.
        unsafe {
            core::arch::asm!("rep movsq", inout("rcx") PAGE_SIZE / 8 => _, inout("rdi") to => _, inout("rsi") from => _,
                             options(nostack, preserves_flags));
        }
    }

    #[inline]
    fn copy_part(&self, to: (Mfn, usize), from: (Mfn, usize), len: usize) {
        let (to, from) = (frame_address(to.0, to.1, len), frame_address(from.0, from.1, len));
        // SAFETY: both ranges are within frames of the direct map; the string instructions, opaque to the compiler, tolerate concurrent writes and overlap.
        unsafe {
            core::arch::asm!("rep movsq", "mov rcx, {tail}", "rep movsb", tail = in(reg) len % 8,
                             inout("rcx") len / 8 => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags));
        }
    }

    #[inline]
    fn m2p(&self, mfn: Mfn) -> u64 {
        m2p_entry(mfn).map_or(u64::MAX, |entry| entry.load(Ordering::Relaxed))
    }

    #[inline]
    fn set_m2p(&self, mfn: Mfn, pfn: u64) {
        if let Some(entry) = m2p_entry(mfn) {
            entry.store(pfn, Ordering::Relaxed);
        }
    }

    fn m2p_extent(&self, index: usize) -> Option<Mfn> {
        let first = m2p_entry(Mfn((index as u64).checked_mul(M2P_PER_PIECE)?))?;
        Some(Maddr(core::ptr::from_ref(first) as u64 - DIRECT_MAP).mfn())
    }
}
