//! The guest's frames while it is built.

use crate::error::BuildError;
use oxen_builder::GuestMemory;
use oxen_types::{PAGE_SHIFT, Pfn};
use oxen_xenctl::{Error, FRAME_LEN, SharedMemory, Xen};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;

/// log2 of the frames of a large extent: 2 MiB.
const LARGE_ORDER: u32 = 9;
const LARGE_FRAMES: u64 = 1 << LARGE_ORDER;
/// Frames asked for at once where large extents are not to be had.
const SMALL_BATCH: u64 = 1 << 16;
/// Frames mapped together for what is written in small pieces. More are fewer round trips to the kernel, but each costs some thousand instructions whether it
/// is needed or not.
const WINDOW_FRAMES: u64 = 32;
/// Frames mapped at most for filling them in one go.
const LOAD_FRAMES: u64 = 2048;
/// Frames that one word tells about in [`Frames::written`].
const WORD_FRAMES: u64 = u64::BITS as u64;

/// A domain's frames, with those parts mapped that were touched. The hypervisor gives out frames that are clear: others' data must not be in them.
pub(crate) struct Frames<'x> {
    xen: &'x Xen,
    domid: u16,
    /// MFN by PFN.
    p2m: Vec<u64>,
    /// Mapped windows by number.
    windows: BTreeMap<u64, SharedMemory>,
    /// One bit for each frame that may not be clear any more.
    written: Vec<u64>,
}

/// A part of a range of bytes.
struct Part {
    /// Bytes of the range before it.
    done: u64,
    len: usize,
}

impl<'x> Frames<'x> {
    /// Gives domain `domid` the PFNs `0..nr_pages`, in large extents while there are such.
    pub(crate) fn populate(xen: &'x Xen, domid: u16, nr_pages: u64) -> Result<Self, BuildError> {
        let call = |source| BuildError::Call {
            doing: "allocating the guest's memory",
            source,
        };
        let mut p2m: Vec<u64> = Vec::new();
        let len = usize::try_from(nr_pages).unwrap_or(usize::MAX);
        if p2m.try_reserve_exact(len).is_err() {
            return Err(BuildError::Memory {
                need_kib: nr_pages.saturating_mul(4),
                free_kib: None,
            });
        }
        let mut large: Vec<u64> = (0..nr_pages / LARGE_FRAMES)
            .map(|n| n * LARGE_FRAMES)
            .collect();
        let done = xen
            .populate(domid, LARGE_ORDER, &mut large)
            .or_else(none_to_be_had)
            .map_err(call)?;
        for mfn in large.iter().take(done) {
            p2m.extend(*mfn..mfn.saturating_add(LARGE_FRAMES));
        }
        while (p2m.len() as u64) < nr_pages {
            let first = p2m.len() as u64;
            let mut small: Vec<u64> = (first..nr_pages.min(first + SMALL_BATCH)).collect();
            let done = xen
                .populate(domid, 0, &mut small)
                .or_else(none_to_be_had)
                .map_err(call)?;
            if done < small.len() {
                return Err(BuildError::Memory {
                    need_kib: nr_pages.saturating_mul(4),
                    free_kib: free_kib(xen),
                });
            }
            p2m.extend(small);
        }
        Ok(Self {
            xen,
            domid,
            written: vec![0; p2m.len().div_ceil(WORD_FRAMES as usize)],
            p2m,
            windows: BTreeMap::new(),
        })
    }

    /// The frame of `pfn`.
    pub(crate) fn mfn(&self, pfn: Pfn) -> Result<u64, BuildError> {
        let mut mfns = [0];
        self.mfns(pfn, &mut mfns)?;
        let [mfn] = mfns;
        Ok(mfn)
    }

    /// Reads `len` bytes of `file` from its byte `at` on straight into the frames at the address `paddr`. The outer error is the
    /// mapping's, the inner one the file's.
    pub(crate) fn load(
        &mut self,
        paddr: u64,
        file: &File,
        at: u64,
        len: u64,
    ) -> Result<io::Result<()>, BuildError> {
        let mut result = Ok(());
        self.in_parts(paddr, len, |mapped, offset, part| {
            result = mapped.read_from(offset, part.len, file, at.saturating_add(part.done));
            Ok(result.is_ok())
        })?;
        Ok(result)
    }

    /// Copies `bytes` to the frames at the address `paddr`.
    pub(crate) fn store(&mut self, paddr: u64, bytes: &[u8]) -> Result<(), BuildError> {
        self.in_parts(paddr, bytes.len() as u64, |mapped, offset, part| {
            let start = part.done as usize;
            let bytes = bytes.get(start..start + part.len).ok_or_else(outside)?;
            mapped.write(offset, bytes).map_err(|_| outside())?;
            Ok(true)
        })
    }

    /// Maps `len` bytes at the address `paddr` part by part, for as long as `fill` says that it goes on; it is given the mapping and where in it the part
    /// starts.
    fn in_parts(
        &mut self,
        paddr: u64,
        len: u64,
        mut fill: impl FnMut(&SharedMemory, usize, &Part) -> Result<bool, BuildError>,
    ) -> Result<(), BuildError> {
        let mut done = 0;
        while done < len {
            let to = paddr.saturating_add(done);
            let offset = to % FRAME_LEN as u64;
            let part = (LOAD_FRAMES * FRAME_LEN as u64 - offset).min(len - done);
            let first = to >> PAGE_SHIFT;
            let count = (offset + part).div_ceil(FRAME_LEN as u64);
            let mapped = self.map(first, count)?;
            (first..first + count).for_each(|pfn| self.mark(Pfn(pfn)));
            if !fill(&mapped, offset as usize, &Part { done, len: part as usize })? {
                return Ok(());
            }
            done += part;
        }
        Ok(())
    }

    /// Unmaps everything: a frame that is mapped writable cannot become a page table.
    pub(crate) fn unmap(&mut self) {
        self.windows.clear();
    }

    /// The window that has `pfn`, mapped, and the offset of the frame in it.
    fn window(&mut self, pfn: Pfn) -> Result<(&SharedMemory, usize), BuildError> {
        let number = pfn.0 / WINDOW_FRAMES;
        let offset = (pfn.0 % WINDOW_FRAMES) as usize * FRAME_LEN;
        let window = match self.windows.entry(number) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let first = number * WINDOW_FRAMES;
                let count = (self.p2m.len() as u64).saturating_sub(first).min(WINDOW_FRAMES);
                let window = map(self.xen, self.domid, &self.p2m, first, count)?;
                entry.insert(window)
            }
        };
        Ok((window, offset))
    }

    /// Maps `count` frames from PFN `first` on.
    fn map(&self, first: u64, count: u64) -> Result<SharedMemory, BuildError> {
        map(self.xen, self.domid, &self.p2m, first, count)
    }

    /// Remembers that a frame may not be clear any more.
    fn mark(&mut self, pfn: Pfn) {
        if let Some(word) = self.written.get_mut((pfn.0 / WORD_FRAMES) as usize) {
            *word |= 1 << (pfn.0 % WORD_FRAMES);
        }
    }

    fn is_marked(&self, pfn: Pfn) -> bool {
        self.written.get((pfn.0 / WORD_FRAMES) as usize).is_some_and(|word| word & 1 << (pfn.0 % WORD_FRAMES) != 0)
    }
}

/// Maps `count` of a domain's frames from PFN `first` on.
fn map(xen: &Xen, domid: u16, p2m: &[u64], first: u64, count: u64) -> Result<SharedMemory, BuildError> {
    let range = usize::try_from(first).ok().zip(usize::try_from(first.saturating_add(count)).ok());
    let frames = range.and_then(|(first, end)| p2m.get(first..end)).filter(|frames| !frames.is_empty()).ok_or_else(outside)?;
    xen.map_foreign(domid, frames, true).map_err(mapping)
}

impl GuestMemory for Frames<'_> {
    type Error = BuildError;

    fn mfns(&self, first: Pfn, out: &mut [u64]) -> Result<(), BuildError> {
        let start = usize::try_from(first.0).map_err(|_| outside())?;
        let end = start.checked_add(out.len()).ok_or_else(outside)?;
        out.copy_from_slice(self.p2m.get(start..end).ok_or_else(outside)?);
        Ok(())
    }

    fn write(&mut self, pfn: Pfn, offset: usize, bytes: &[u8]) -> Result<(), BuildError> {
        self.mark(pfn);
        let (window, base) = self.window(pfn)?;
        window.write(base + offset, bytes).map_err(|_| outside())
    }

    fn zero(&mut self, pfn: Pfn, offset: usize, len: usize) -> Result<(), BuildError> {
        if pfn.0 < self.p2m.len() as u64 && !self.is_marked(pfn) {
            return Ok(());
        }
        let (window, base) = self.window(pfn)?;
        window.zero(base + offset, len).map_err(|_| outside())
    }
}

/// The memory that is free, in KiB, if that can be told.
pub(crate) fn free_kib(xen: &Xen) -> Option<u64> {
    let info = xen.physinfo().ok()?;
    Some(
        info.free_pages
            .saturating_sub(info.outstanding_pages)
            .saturating_mul(4),
    )
}

/// The hypervisor may say that there is no memory at all by an error.
fn none_to_be_had(error: Error) -> Result<usize, Error> {
    match error.errno() {
        Some(oxen_abi::Errno::ENOMEM) => Ok(0),
        _ => Err(error),
    }
}

fn mapping(source: Error) -> BuildError {
    BuildError::Call {
        doing: "mapping the guest's memory",
        source,
    }
}

/// The layout and the memory do not fit together.
fn outside() -> BuildError {
    mapping(Error::BadAnswer {
        call: "memory_op populate_physmap",
    })
}
