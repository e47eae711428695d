//! Changing the version of a table's format. The first entries, which the domain's builder fills, are carried over; the others are lost.

use super::{Entry, GrantTable, Pins, entries_per_frame, status_frames_for};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use oxen_abi::Errno;
use oxen_abi::grant_table::{GNTTAB_NR_RESERVED_ENTRIES, GTF_PERMIT_ACCESS, GTF_READING, GTF_TRANSITIVE, GTF_TYPE_MASK, GTF_WRITING};
use oxen_hal::{Frames, Machine};
use oxen_mm::{Mm, MmError};
use oxen_types::{DomId, GrantRef, Mfn};

const MARKS: u16 = GTF_READING | GTF_WRITING;

/// One of the first entries, without its format. Part of a page counts as a grant of the whole, as in Xen.
#[derive(Clone, Copy, Default)]
struct Kept {
    /// Flags, without those that say that it is in use.
    flags: u16,
    marks: u16,
    domid: u16,
    frame: u64,
}

impl GrantTable {
    /// Changes the format to version `wanted`.
    ///
    /// # Errors
    /// `EINVAL` for a version that does not exist, `ENOSYS` for one that the domain may not have, `EBUSY` while grants are in use or the status array is mapped,
    /// `ERANGE` where an entry that is to be carried over has no form in version 1, `ENOMEM`.
    pub fn set_version<M: Machine>(&mut self, mm: &Mm<M>, owner: DomId, wanted: u32) -> Result<(), Errno> {
        if wanted != 1 && wanted != 2 {
            return Err(Errno::EINVAL);
        }
        if wanted > self.max_version {
            return Err(Errno::ENOSYS);
        }
        if wanted == self.version {
            return Ok(());
        }
        let reserved = GNTTAB_NR_RESERVED_ENTRIES as usize;
        if !self.frames.iter().flat_map(|frame| &frame.pins).skip(reserved).all(Pins::unused) {
            return Err(Errno::EBUSY);
        }
        let memory = mm.machine();
        if wanted == 2 {
            let kept = self.keep_v1(memory);
            self.grow_status(mm, owner, self.nr_frames())?;
            self.rewrite(memory, wanted, &kept);
            return Ok(());
        }
        let kept = self.keep_v2(memory)?;
        let in_use = |mfn: Mfn| mm.inspect(mfn).is_none_or(|frame| (frame.references, frame.uses) != (1, 1));
        if self.status_frames().any(in_use) {
            return Err(Errno::EBUSY);
        }
        for frame in core::mem::take(&mut self.status) {
            mm.unshare(frame);
        }
        self.rewrite(memory, wanted, &kept);
        Ok(())
    }

    /// Makes the status array long enough for `frames` frames of the table.
    pub(super) fn grow_status<M: Machine>(&mut self, mm: &Mm<M>, owner: DomId, frames: u32) -> Result<(), Errno> {
        while self.status.len() < status_frames_for(frames) as usize {
            self.status.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            let block = mm.alloc_zeroed(0, 0).map_err(MmError::errno)?;
            self.status.push(mm.share(block, owner, true));
        }
        Ok(())
    }

    fn reserved_entries(&mut self) -> impl Iterator<Item = Option<Entry>> {
        (0..GNTTAB_NR_RESERVED_ENTRIES).map(|n| self.place(GrantRef(n)).map(|(entry, _)| entry))
    }

    fn keep_v1(&mut self, memory: &impl Frames) -> Vec<Kept> {
        let keep = |entry: Entry| {
            let word = memory.shared_u64(entry.table, entry.offset).load(Ordering::Acquire);
            let flags = word as u16;
            Kept { flags: flags & !MARKS, marks: flags & MARKS, domid: (word >> 16) as u16, frame: word >> 32 }
        };
        self.reserved_entries().map(|entry| entry.map(keep).unwrap_or_default()).collect()
    }

    fn keep_v2(&mut self, memory: &impl Frames) -> Result<Vec<Kept>, Errno> {
        let keep = |entry: Entry| {
            let head = memory.shared_u32(entry.table, entry.offset).load(Ordering::Acquire);
            let frame = memory.shared_u64(entry.table, entry.offset + 8).load(Ordering::Acquire);
            let flags = head as u16;
            match flags & GTF_TYPE_MASK {
                GTF_PERMIT_ACCESS if frame >> 32 == 0 => {
                    Ok(Kept { flags: flags & !MARKS, marks: entry.marks(memory), domid: (head >> 16) as u16, frame })
                }
                GTF_PERMIT_ACCESS | GTF_TRANSITIVE => Err(Errno::ERANGE),
                _ => Ok(Kept::default()),
            }
        };
        self.reserved_entries().map(|entry| entry.map_or(Ok(Kept::default()), keep)).collect()
    }

    /// Empties the table and writes the kept entries in the new format.
    fn rewrite(&mut self, memory: &impl Frames, version: u32, kept: &[Kept]) {
        self.frames().for_each(|mfn| memory.zero_frame(mfn));
        self.version = version;
        debug_assert!(kept.len() < entries_per_frame(version) as usize);
        for (entry, kept) in self.reserved_entries().zip(kept) {
            let Some(entry) = entry else { return };
            let word = |flags: u16| u64::from(kept.domid) << 16 | u64::from(flags);
            if version == 1 {
                let value = kept.frame << 32 | word(kept.flags | kept.marks);
                memory.shared_u64(entry.table, entry.offset).store(value, Ordering::Release);
                continue;
            }
            entry.set_marks(memory, kept.marks);
            memory.shared_u64(entry.table, entry.offset + 8).store(kept.frame, Ordering::Release);
            memory.shared_u64(entry.table, entry.offset).store(word(kept.flags), Ordering::Release);
        }
    }
}
