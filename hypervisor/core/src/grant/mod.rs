//! Grant tables: how a domain lets others use its memory, in both versions of the format (a domain may have only the first: `grant_opts` of `createdomain`).
//!
//! Three records have to agree on each grant in use: the marks that tell the granter (version 1: in the entry's flags; version 2: in the status array); the
//! [`GrantTable`]'s pins, which say what the marks must be; and the mapper's [`MapTrack`], each of whose mappings owns its pins and, for devices, its
//! reference to the frame. The reference of a processor's mapping belongs to the page-table entry.

mod entry;
mod maptrack;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
mod version;

pub use maptrack::{MAX_MAPTRACK_FRAMES, MapTrack, Mapping};

use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use entry::{Claim, Entry};
use oxen_abi::Errno;
use oxen_abi::grant_table::GrantStatus;
use oxen_hal::{Frames, Machine};
use oxen_mm::{Mm, MmError, SharedFrame};
use oxen_types::{DomId, GrantRef, Mfn, PAGE_SIZE};

/// Frames that a table may have.
pub const MAX_FRAMES: u32 = 64;
/// The newest version of the format.
pub const MAX_VERSION: u32 = 2;
/// Status words (16 bits) of a frame of the status array.
const STATUS_WORDS: u32 = PAGE_SIZE as u32 / 2;
/// Entries of version 1 in a frame of the table: no version has more.
const MOST_ENTRIES: u32 = entries_per_frame(1);

/// Entries that a frame of the table holds: 8 bytes each in version 1, 16 in version 2.
const fn entries_per_frame(version: u32) -> u32 {
    PAGE_SIZE as u32 / if version < 2 { 8 } else { 16 }
}

/// Frames of the status array that go with `frames` frames of a table of version 2.
#[must_use]
pub const fn status_frames_for(frames: u32) -> u32 {
    frames.div_ceil(STATUS_WORDS / entries_per_frame(2))
}

/// The shortest table of version 2 whose status array has `frames` frames; more than a table can have where that is no number.
#[must_use]
pub const fn table_frames_for(frames: u32) -> u32 {
    match frames {
        0 => 0,
        n => (n - 1).saturating_mul(STATUS_WORDS / entries_per_frame(2)).saturating_add(1),
    }
}

/// What a grant is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Whole pages can be mapped.
    Map,
    /// Everything can be copied.
    Copy,
    /// A grant of a grant is copied, and this is the one that it stands for: not one that stands for another.
    CopyOfGrant,
}

/// What a grant gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// A frame.
    Page(Mfn),
    /// `length` bytes of a frame from `start` on; neither is checked.
    Part {
        /// The frame.
        mfn: Mfn,
        /// The first byte.
        start: u16,
        /// How many.
        length: u16,
    },
    /// What somebody else grants to the granter.
    Grant {
        /// That other one.
        granter: DomId,
        /// And its grant.
        reference: GrantRef,
    },
}

/// The uses of a grant.
#[derive(Clone, Copy, Debug)]
struct Pins {
    /// What the entry gave when the first use began.
    object: Object,
    readers: u32,
    writers: u32,
    /// The domain that has the uses.
    grantee: DomId,
}

impl Pins {
    const NONE: Pins = Pins { object: Object::Page(Mfn(0)), readers: 0, writers: 0, grantee: DomId(0) };

    const fn unused(&self) -> bool {
        self.readers == 0 && self.writers == 0
    }

    fn count(&mut self, write: bool) -> &mut u32 {
        if write { &mut self.writers } else { &mut self.readers }
    }
}

/// A frame of a table, shared with its domain for writing, and the uses of its entries.
#[derive(Debug)]
struct TableFrame {
    shared: SharedFrame,
    pins: Vec<Pins>,
}

/// A domain's grants.
#[derive(Debug)]
pub struct GrantTable {
    frames: Vec<TableFrame>,
    /// The status array, in version 2; at least as long as the table needs.
    status: Vec<SharedFrame>,
    version: u32,
    max_version: u32,
    /// Most frames that it may have.
    pub max_frames: u32,
}

impl GrantTable {
    /// A table without frames, which may be changed to any version up to `max_version`.
    #[must_use]
    pub const fn new(max_frames: u32, max_version: u32) -> Self {
        Self { frames: Vec::new(), status: Vec::new(), version: 1, max_version, max_frames }
    }

    /// Frames that it has.
    #[must_use]
    pub fn nr_frames(&self) -> u32 {
        u32::try_from(self.frames.len()).unwrap_or(u32::MAX)
    }

    /// The frames in order.
    pub fn frames(&self) -> impl Iterator<Item = Mfn> + '_ {
        self.frames.iter().map(|frame| frame.shared.mfn())
    }

    /// The frames of the status array in order; none in version 1.
    pub fn status_frames(&self) -> impl Iterator<Item = Mfn> + '_ {
        self.status.iter().map(SharedFrame::mfn)
    }

    /// The format's version.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// Makes it at least `wanted` frames long.
    ///
    /// # Errors
    /// `EINVAL` beyond its bound, `ENOMEM`.
    pub fn grow<M: Machine>(&mut self, mm: &Mm<M>, owner: DomId, wanted: u32) -> Result<(), Errno> {
        if wanted > self.max_frames {
            return Err(Errno::EINVAL);
        }
        if self.version == 2 {
            self.grow_status(mm, owner, wanted)?;
        }
        while self.nr_frames() < wanted {
            let mut pins = Vec::new();
            pins.try_reserve_exact(MOST_ENTRIES as usize).map_err(|_| Errno::ENOMEM)?;
            pins.resize(MOST_ENTRIES as usize, Pins::NONE);
            self.frames.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            let block = mm.alloc_zeroed(0, 0).map_err(MmError::errno)?;
            self.frames.push(TableFrame { shared: mm.share(block, owner, true), pins });
        }
        Ok(())
    }

    /// Ends its growth, as the domain ends.
    pub fn seal(&mut self) {
        self.max_frames = self.nr_frames();
        self.max_version = self.version;
    }

    /// Takes the frames out, for the domain's end; there will be no others.
    pub fn take_frames(&mut self) -> Vec<SharedFrame> {
        self.max_frames = 0;
        let frames = core::mem::take(&mut self.frames).into_iter().map(|frame| frame.shared);
        frames.chain(core::mem::take(&mut self.status)).collect()
    }

    /// Where an entry is, and its pins.
    fn place(&mut self, reference: GrantRef) -> Option<(Entry, &mut Pins)> {
        let entries = entries_per_frame(self.version);
        let index = (reference.0 % entries) as usize;
        let frame = self.frames.get_mut((reference.0 / entries) as usize)?;
        let status = match self.version {
            2 => Some((self.status.get((reference.0 / STATUS_WORDS) as usize)?.mfn(), (reference.0 % STATUS_WORDS) as usize)),
            _ => None,
        };
        let entry = Entry { table: frame.shared.mfn(), offset: index * (PAGE_SIZE as u32 / entries) as usize, status };
        Some((entry, frame.pins.get_mut(index)?))
    }

    /// Begins `count` uses of a grant by `grantee`, and tells the granter by the marks. Gives what the grant names; the table
    /// knows nothing about whether the granter owns it.
    ///
    /// # Errors
    /// `BAD_GNTREF` beyond the table; `GENERAL_ERROR` where the entry does not grant that, or has too many uses.
    pub fn pin(
        &mut self,
        memory: &impl Frames,
        reference: GrantRef,
        (grantee, purpose): (DomId, Purpose),
        write: bool,
        count: u32,
    ) -> Result<Object, GrantStatus> {
        let (entry, pins) = self.place(reference).ok_or(GrantStatus::BAD_GNTREF)?;
        let first = pins.unused();
        let unfit = match purpose {
            Purpose::Map => !matches!(pins.object, Object::Page(_)),
            Purpose::Copy => false,
            Purpose::CopyOfGrant => matches!(pins.object, Object::Grant { .. }),
        };
        if !first && (pins.grantee != grantee || unfit) {
            return Err(GrantStatus::GENERAL_ERROR);
        }
        let counted = pins.count(write).checked_add(count).ok_or(GrantStatus::GENERAL_ERROR)?;
        if first || write && pins.writers == 0 {
            let flags = entry.claim(memory, &Claim { grantee, write, purpose, first })?;
            if first {
                // The granter leaves the entry alone from the claim on. If it does not, all uses still have the one object read here.
                pins.object = entry.object(memory, flags);
                pins.grantee = grantee;
            }
        }
        *pins.count(write) = counted;
        Ok(pins.object)
    }

    /// Ends `count` uses that [`GrantTable::pin`] began.
    pub fn unpin(&mut self, memory: &impl Frames, reference: GrantRef, write: bool, count: u32) {
        let Some((entry, pins)) = self.place(reference) else { return };
        debug_assert!(*pins.count(write) >= count, "{reference} unpinned too often");
        *pins.count(write) = pins.count(write).saturating_sub(count);
        entry.release(memory, pins.readers != 0, pins.writers != 0);
    }

    /// Exchanges two entries that nobody uses.
    ///
    /// # Errors
    /// `BAD_GNTREF` beyond the table; `EAGAIN` while one is in use.
    pub fn swap(&mut self, memory: &impl Frames, a: GrantRef, b: GrantRef) -> Result<(), GrantStatus> {
        let mut find = |reference| -> Result<_, GrantStatus> {
            let (entry, pins) = self.place(reference).ok_or(GrantStatus::BAD_GNTREF)?;
            Ok((entry, pins.unused()))
        };
        let (first, first_unused) = find(a)?;
        let (second, second_unused) = find(b)?;
        if a == b {
            return Ok(());
        }
        if !first_unused || !second_unused {
            return Err(GrantStatus::EAGAIN);
        }
        let words = if self.version == 2 { 2 } else { 1 };
        for word in (0..words).map(|n| n * 8) {
            let one = memory.shared_u64(first.table, first.offset + word);
            let other = memory.shared_u64(second.table, second.offset + word);
            let old = one.swap(other.load(Ordering::Acquire), Ordering::AcqRel);
            other.store(old, Ordering::Release);
        }
        Ok(())
    }
}
