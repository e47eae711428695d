//! Frames, their records, and the machine-to-phys table.

use crate::{EntryWrite, Event, FakeMachine, lock};
use oxen_hal::{FrameMeta, Frames, MemoryRange};
use oxen_types::{Mfn, PT_ENTRIES};
use std::cell::UnsafeCell;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// The bytes of one frame.
#[repr(C, align(4096))]
pub struct FakePage(UnsafeCell<[u64; PT_ENTRIES]>);

// SAFETY: the cell is only ever reached through atomics.
unsafe impl Sync for FakePage {}
// SAFETY: the page has no ties to a thread.
unsafe impl Send for FakePage {}

impl fmt::Debug for FakePage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakePage")
    }
}

impl FakePage {
    fn zeroed() -> Box<Self> {
        Box::new(Self(UnsafeCell::new([0; PT_ENTRIES])))
    }

    /// The 64-bit word at a byte offset.
    ///
    /// # Panics
    /// Where the offset is not a multiple of 8 within the page.
    #[must_use]
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < 4096, "offset {offset}");
        // SAFETY: aligned and inside the page, which lives as long as the borrow; all accesses are atomic.
        unsafe { AtomicU64::from_ptr(self.0.get().cast::<u64>().add(offset / 8)) }
    }

    fn table(&self) -> &[AtomicU64; PT_ENTRIES] {
        // SAFETY: as in `word`, for all words of the page.
        unsafe { &*self.0.get().cast::<[AtomicU64; PT_ENTRIES]>() }
    }

    fn half(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset < 4096, "offset {offset}");
        // SAFETY: as in `word`; x86 keeps accesses of different sizes to one word coherent.
        unsafe { AtomicU32::from_ptr(self.0.get().cast::<u32>().add(offset / 4)) }
    }

    fn byte(&self, offset: usize) -> &AtomicU8 {
        assert!(offset < 4096, "offset {offset}");
        // SAFETY: as in `half`.
        unsafe { AtomicU8::from_ptr(self.0.get().cast::<u8>().add(offset)) }
    }
}

/// RAM that takes host memory only where it is touched.
#[derive(Debug)]
pub(crate) struct Ram {
    pages: Vec<OnceLock<Box<FakePage>>>,
    records: Vec<FrameMeta>,
    is_ram: Vec<bool>,
    m2p: Vec<AtomicU64>,
}

impl Ram {
    pub fn new(frames: u64, holes: &[(u64, u64)]) -> Self {
        let n = frames as usize;
        let is_ram = (0..frames).map(|mfn| !holes.iter().any(|&(from, to)| (from..to).contains(&mfn))).collect();
        Self {
            pages: (0..n).map(|_| OnceLock::new()).collect(),
            records: (0..n).map(|_| FrameMeta::default()).collect(),
            is_ram,
            m2p: (0..n).map(|_| AtomicU64::new(u64::MAX)).collect(),
        }
    }

    pub fn touched(&self) -> usize {
        self.pages.iter().filter(|p| p.get().is_some()).count()
    }

    pub fn is_ram(&self, mfn: Mfn) -> bool {
        self.is_ram.get(mfn.0 as usize).copied().unwrap_or(false)
    }

    /// The frame's bytes.
    pub fn page(&self, mfn: Mfn) -> &FakePage {
        assert!(self.is_ram(mfn), "hypervisor bug: {mfn} is not RAM");
        self.pages[mfn.0 as usize].get_or_init(FakePage::zeroed)
    }
}

impl FakeMachine {
    /// The bytes of a frame, as a device would reach them.
    ///
    /// # Panics
    /// Where the frame is not RAM.
    #[must_use]
    pub fn page(&self, mfn: Mfn) -> &FakePage {
        self.ram.page(mfn)
    }

    fn recorded(&self, mfn: Mfn, index: usize, old: u64, new: u64) {
        if self.record_entries.load(Ordering::Relaxed) {
            lock(&self.entry_writes).push(EntryWrite { mfn, index, old, new });
        }
    }
}

impl Frames for FakeMachine {
    fn meta(&self, mfn: Mfn) -> Option<&FrameMeta> {
        self.ram.is_ram(mfn).then(|| &self.ram.records[mfn.0 as usize])
    }

    fn max_mfn(&self) -> u64 {
        self.config.frames
    }

    fn memory_map(&self) -> &[MemoryRange] {
        &self.map
    }

    fn table(&self, mfn: Mfn) -> &[AtomicU64; PT_ENTRIES] {
        self.page(mfn).table()
    }

    fn read_entry(&self, mfn: Mfn, index: usize) -> u64 {
        self.page(mfn).word(index * 8).load(Ordering::Acquire)
    }

    fn write_entry(&self, mfn: Mfn, index: usize, value: u64) {
        let old = self.page(mfn).word(index * 8).swap(value, Ordering::AcqRel);
        self.recorded(mfn, index, old, value);
    }

    fn exchange_entry(&self, mfn: Mfn, index: usize, old: u64, new: u64) -> Result<(), u64> {
        self.page(mfn).word(index * 8).compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire)?;
        self.recorded(mfn, index, old, new);
        Ok(())
    }

    fn shared_u8(&self, mfn: Mfn, offset: usize) -> &AtomicU8 {
        self.page(mfn).byte(offset)
    }

    fn shared_u32(&self, mfn: Mfn, offset: usize) -> &AtomicU32 {
        self.page(mfn).half(offset)
    }

    fn shared_u64(&self, mfn: Mfn, offset: usize) -> &AtomicU64 {
        self.page(mfn).word(offset)
    }

    fn read_bytes(&self, mfn: Mfn, offset: usize, to: &mut [u8]) {
        let page = self.page(mfn);
        for (i, byte) in to.iter_mut().enumerate() {
            *byte = page.byte(offset + i).load(Ordering::Relaxed);
        }
    }

    fn write_bytes(&self, mfn: Mfn, offset: usize, from: &[u8]) {
        let page = self.page(mfn);
        for (i, byte) in from.iter().enumerate() {
            page.byte(offset + i).store(*byte, Ordering::Relaxed);
        }
    }

    fn zero_frame(&self, mfn: Mfn) {
        let page = self.page(mfn);
        for offset in (0..4096).step_by(8) {
            page.word(offset).store(0, Ordering::Relaxed);
        }
    }

    fn flush_lines(&self, mfn: Mfn, offset: usize, len: usize) {
        assert!(offset + len <= 4096);
        self.event(Event::FlushLines(mfn, offset, len));
    }

    fn copy_frame(&self, to: Mfn, from: Mfn) {
        for offset in (0..4096).step_by(8) {
            let word = self.page(from).word(offset).load(Ordering::Relaxed);
            self.page(to).word(offset).store(word, Ordering::Relaxed);
        }
    }

    fn copy_part(&self, to: (Mfn, usize), from: (Mfn, usize), len: usize) {
        let mut bytes = vec![0; len];
        self.read_bytes(from.0, from.1, &mut bytes);
        self.write_bytes(to.0, to.1, &bytes);
    }

    fn m2p(&self, mfn: Mfn) -> u64 {
        self.ram.m2p.get(mfn.0 as usize).map_or(u64::MAX, |e| e.load(Ordering::Relaxed))
    }

    fn set_m2p(&self, mfn: Mfn, pfn: u64) {
        if let Some(entry) = self.ram.m2p.get(mfn.0 as usize) {
            entry.store(pfn, Ordering::Relaxed);
        }
    }

    fn m2p_extent(&self, _: usize) -> Option<Mfn> {
        // The fake table is not made of frames.
        None
    }
}
