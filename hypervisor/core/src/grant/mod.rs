//! Grant tables: how a domain lets others use its memory. Version 1 of the format.
//!
//! Three records have to agree on each grant in use: the entry in the granter's table, whose flags tell the granter; the [`GrantTable`]'s pins,
//! which say what the flags must be; and the mapper's [`MapTrack`], each of whose mappings owns its pins and, for devices, its
//! reference to the frame. The reference of a processor's mapping belongs to the page-table entry.

mod entry;
mod maptrack;

pub use maptrack::{MAX_MAPTRACK_FRAMES, MapTrack, Mapping};

use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use oxen_abi::Errno;
use oxen_abi::grant_table::GrantStatus;
use oxen_hal::{Frames, Machine};
use oxen_mm::{Mm, MmError, SharedFrame};
use oxen_types::{DomId, GrantRef, Mfn, PAGE_SIZE};

/// Frames that a table may have.
pub const MAX_FRAMES: u32 = 64;
/// Bytes of an entry.
const ENTRY_BYTES: u32 = 8;
/// Entries of a frame of the table.
const ENTRIES: u32 = PAGE_SIZE as u32 / ENTRY_BYTES;

/// The uses of a granted frame.
#[derive(Clone, Copy, Debug, Default)]
struct Pins {
    /// The frame, as the entry had it when the first use began.
    mfn: Mfn,
    readers: u32,
    writers: u32,
    /// The domain that has the uses.
    grantee: DomId,
}

impl Pins {
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
    /// Most frames that it may have.
    pub max_frames: u32,
}

impl GrantTable {
    /// A table without frames.
    #[must_use]
    pub const fn new(max_frames: u32) -> Self {
        Self { frames: Vec::new(), max_frames }
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

    /// Makes it at least `wanted` frames long.
    pub fn grow<M: Machine>(&mut self, mm: &Mm<M>, owner: DomId, wanted: u32) -> Result<(), Errno> {
        if wanted > self.max_frames {
            return Err(Errno::EINVAL);
        }
        while self.nr_frames() < wanted {
            let mut pins = Vec::new();
            pins.try_reserve_exact(ENTRIES as usize).map_err(|_| Errno::ENOMEM)?;
            pins.resize(ENTRIES as usize, Pins::default());
            self.frames.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            let block = mm.alloc_zeroed(0, 0).map_err(MmError::errno)?;
            self.frames.push(TableFrame { shared: mm.share(block, owner, true), pins });
        }
        Ok(())
    }

    /// Takes the frames out, for the domain's end; there will be no others.
    pub fn take_frames(&mut self) -> Vec<SharedFrame> {
        self.max_frames = 0;
        core::mem::take(&mut self.frames).into_iter().map(|frame| frame.shared).collect()
    }

    /// The frame of the table and the offset in it where an entry is, and the entry's pins.
    fn place(&mut self, reference: GrantRef) -> Option<(Mfn, usize, &mut Pins)> {
        let index = (reference.0 % ENTRIES) as usize;
        let frame = self.frames.get_mut((reference.0 / ENTRIES) as usize)?;
        Some((frame.shared.mfn(), index * ENTRY_BYTES as usize, frame.pins.get_mut(index)?))
    }

    /// Begins `count` uses of a grant by `grantee`, and tells the granter by the entry's flags. Gives the frame that the grant names; the table
    /// knows nothing about whether the granter owns it.
    ///
    /// # Errors
    /// `BAD_GNTREF` beyond the table; `GENERAL_ERROR` where the entry does not grant that, or has too many uses.
    pub fn pin(
        &mut self,
        memory: &impl Frames,
        reference: GrantRef,
        grantee: DomId,
        write: bool,
        count: u32,
    ) -> Result<Mfn, GrantStatus> {
        let (table, offset, pins) = self.place(reference).ok_or(GrantStatus::BAD_GNTREF)?;
        let first = pins.unused();
        if !first && pins.grantee != grantee {
            return Err(GrantStatus::GENERAL_ERROR);
        }
        let counted = pins.count(write).checked_add(count).ok_or(GrantStatus::GENERAL_ERROR)?;
        if first || write && pins.writers == 0 {
            entry::claim(memory.shared_u32(table, offset), grantee, write)?;
        }
        if first {
            // The granter leaves the entry alone from the claim on. If it does not, all uses still have the one frame read here.
            let frame = memory.shared_u32(table, offset + entry::FRAME_OFFSET).load(Ordering::Acquire);
            pins.mfn = Mfn(frame.into());
            pins.grantee = grantee;
        }
        *pins.count(write) = counted;
        Ok(pins.mfn)
    }

    /// Ends `count` uses that [`GrantTable::pin`] began.
    pub fn unpin(&mut self, memory: &impl Frames, reference: GrantRef, write: bool, count: u32) {
        let Some((table, offset, pins)) = self.place(reference) else { return };
        debug_assert!(*pins.count(write) >= count, "{reference} unpinned too often");
        *pins.count(write) = pins.count(write).saturating_sub(count);
        entry::release(memory.shared_u32(table, offset), pins.readers != 0, pins.writers != 0);
    }

    /// Exchanges two entries that nobody uses.
    ///
    /// # Errors
    /// `BAD_GNTREF` beyond the table; `EAGAIN` while one is in use.
    pub fn swap(&mut self, memory: &impl Frames, a: GrantRef, b: GrantRef) -> Result<(), GrantStatus> {
        let mut find = |reference| -> Result<_, GrantStatus> {
            let (table, offset, pins) = self.place(reference).ok_or(GrantStatus::BAD_GNTREF)?;
            Ok((memory.shared_u64(table, offset), pins.unused()))
        };
        let (a, a_unused) = find(a)?;
        let (b, b_unused) = find(b)?;
        if core::ptr::eq(a, b) {
            return Ok(());
        }
        if !a_unused || !b_unused {
            return Err(GrantStatus::EAGAIN);
        }
        let old = a.swap(b.load(Ordering::Acquire), Ordering::AcqRel);
        b.store(old, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use oxen_abi::grant_table::{GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_WRITING};
    use oxen_testkit::{Config, FakeMachine};
    use std::vec::Vec;

    const GRANTER: DomId = DomId(1);
    const GRANTEE: DomId = DomId(2);
    const R: GrantRef = GrantRef(9);

    struct World {
        machine: &'static FakeMachine,
        table: GrantTable,
    }

    impl World {
        fn new() -> Self {
            let machine = FakeMachine::new(Config { frames: 64, ..Config::default() });
            let mm = Mm::new(machine);
            mm.add_range(Mfn(0), 64);
            let mut table = GrantTable::new(MAX_FRAMES);
            table.grow(&mm, GRANTER, 1).unwrap();
            Self { machine, table }
        }

        fn word(&self, reference: GrantRef) -> &core::sync::atomic::AtomicU64 {
            let frames: Vec<Mfn> = self.table.frames().collect();
            self.machine.shared_u64(frames[0], reference.0 as usize * 8)
        }

        fn grant(&self, reference: GrantRef, flags: u16, frame: u32) {
            self.word(reference).store(u64::from(frame) << 32 | u64::from(GRANTEE.0) << 16 | u64::from(flags), Ordering::SeqCst);
        }

        fn flags(&self, reference: GrantRef) -> u16 {
            self.word(reference).load(Ordering::SeqCst) as u16
        }

        fn pin(&mut self, by: DomId, write: bool) -> Result<Mfn, GrantStatus> {
            self.table.pin(self.machine, R, by, write, 1)
        }

        fn unpin(&mut self, write: bool) {
            self.table.unpin(self.machine, R, write, 1);
        }
    }

    #[test]
    fn flags_follow_the_uses() {
        let mut w = World::new();
        w.grant(R, GTF_PERMIT_ACCESS, 77);
        assert_eq!(w.pin(GRANTEE, false), Ok(Mfn(77)));
        assert_eq!(w.flags(R), GTF_PERMIT_ACCESS | GTF_READING);
        assert_eq!(w.pin(GRANTEE, true), Ok(Mfn(77)));
        assert_eq!(w.flags(R), GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING);
        w.unpin(false);
        assert_eq!(w.flags(R), GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING);
        w.unpin(true);
        assert_eq!(w.flags(R), GTF_PERMIT_ACCESS);
    }

    #[test]
    fn uses_keep_the_first_frame_and_grantee() {
        let mut w = World::new();
        w.grant(R, GTF_PERMIT_ACCESS, 77);
        w.pin(GRANTEE, false).unwrap();
        w.grant(R, GTF_PERMIT_ACCESS, 78);
        assert_eq!(w.pin(GRANTEE, false), Ok(Mfn(77)));
        assert_eq!(w.pin(DomId(3), false), Err(GrantStatus::GENERAL_ERROR));
        w.unpin(false);
        w.unpin(false);
        assert_eq!(w.pin(GRANTEE, false), Ok(Mfn(78)));
    }

    #[test]
    fn what_is_not_granted() {
        let mut w = World::new();
        assert_eq!(w.pin(GRANTEE, false), Err(GrantStatus::GENERAL_ERROR));
        w.grant(R, GTF_PERMIT_ACCESS | GTF_READONLY, 77);
        assert_eq!(w.pin(GRANTEE, true), Err(GrantStatus::GENERAL_ERROR));
        assert_eq!(w.pin(GRANTER, false), Err(GrantStatus::GENERAL_ERROR));
        w.pin(GRANTEE, false).unwrap();
        assert_eq!(w.pin(GRANTEE, true), Err(GrantStatus::GENERAL_ERROR));
        w.unpin(false);
        assert_eq!(w.flags(R), GTF_PERMIT_ACCESS | GTF_READONLY);
        for beyond in [ENTRIES, u32::MAX] {
            assert_eq!(w.table.pin(w.machine, GrantRef(beyond), GRANTEE, false, 1), Err(GrantStatus::BAD_GNTREF));
        }
        assert_eq!(w.table.pin(w.machine, GrantRef(ENTRIES - 1), GRANTEE, false, 1), Err(GrantStatus::GENERAL_ERROR));
    }

    #[test]
    fn swaps_unused_entries() {
        let mut w = World::new();
        let other = GrantRef(10);
        w.grant(R, GTF_PERMIT_ACCESS, 77);
        w.grant(other, GTF_PERMIT_ACCESS | GTF_READONLY, 78);
        assert_eq!(w.table.swap(w.machine, R, other), Ok(()));
        assert_eq!((w.flags(R), w.flags(other)), (GTF_PERMIT_ACCESS | GTF_READONLY, GTF_PERMIT_ACCESS));
        assert_eq!(w.pin(GRANTEE, false), Ok(Mfn(78)));
        assert_eq!(w.table.swap(w.machine, R, other), Err(GrantStatus::EAGAIN));
        assert_eq!(w.table.swap(w.machine, R, R), Ok(()));
        assert_eq!(w.table.swap(w.machine, R, GrantRef(ENTRIES)), Err(GrantStatus::BAD_GNTREF));
    }
}
