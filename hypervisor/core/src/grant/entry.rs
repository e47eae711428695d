//! One grant as its granter wrote it, in either version of the format (`struct grant_entry_v1` and `union grant_entry_v2` of the public header
//! `grant_table.h`). The granter may change it at any time.

use super::{Object, Purpose};
use core::sync::atomic::{AtomicU32, Ordering};
use oxen_abi::grant_table::{
    GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_SUB_PAGE, GTF_TRANSITIVE, GTF_TYPE_MASK, GTF_WRITING, GrantStatus,
};
use oxen_hal::Frames;
use oxen_types::{DomId, GrantRef, Mfn};

/// Offset of the frame number in an entry of version 1.
const FRAME_V1: usize = 4;
/// Offset, in an entry of version 2, of what stands behind the head: the part of a page (offset, length) or the other granter.
const MIDDLE_V2: usize = 4;
/// Offset of an entry's second half in version 2: the frame number (64 bits) or the other granter's reference (32 bits).
const SECOND_V2: usize = 8;
/// How often a granter may change the entry under the hypervisor's hands before it is given up.
const ATTEMPTS: u32 = 5;

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Frame of the table.
    pub table: Mfn,
    /// Offset in it, in bytes.
    pub offset: usize,
    /// Version 2: the frame of status words, and this entry's place among its 16-bit words.
    pub status: Option<(Mfn, usize)>,
}

/// What a use asks of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub grantee: DomId,
    pub write: bool,
    pub purpose: Purpose,
    /// Nobody uses the entry. Otherwise it was found good before, and the granter has no business changing it.
    pub first: bool,
}

impl Claim {
    /// Whether an entry with this head (flags below, domain above) can be used so.
    const fn fits(&self, head: u32, version_2: bool) -> bool {
        let (flags, domid) = (head as u16, (head >> 16) as u16);
        if self.write && flags & GTF_READONLY != 0 {
            return false;
        }
        if !self.first {
            return true;
        }
        let fit = match self.purpose {
            Purpose::Map => flags & (GTF_TYPE_MASK | GTF_SUB_PAGE) == GTF_PERMIT_ACCESS,
            Purpose::Copy => {
                flags & GTF_TYPE_MASK == GTF_PERMIT_ACCESS || version_2 && flags & GTF_TYPE_MASK == GTF_TRANSITIVE
            }
            Purpose::CopyOfGrant => flags & GTF_TYPE_MASK == GTF_PERMIT_ACCESS,
        };
        fit && domid == self.grantee.0
    }

    const fn marks(&self) -> u16 {
        if self.write { GTF_READING | GTF_WRITING } else { GTF_READING }
    }
}

impl Entry {
    /// Marks the entry as in use; gives the flags that it had.
    pub fn claim(&self, memory: &impl Frames, claim: &Claim) -> Result<u16, GrantStatus> {
        let head = memory.shared_u32(self.table, self.offset);
        let Some((frame, index)) = self.status else { return claim_v1(head, claim) };
        if !claim.fits(head.load(Ordering::Acquire), true) {
            return Err(GrantStatus::GENERAL_ERROR);
        }
        let (word, shift) = status_word(memory, frame, index);
        word.fetch_or(u32::from(claim.marks()) << shift, Ordering::SeqCst);
        // The granter who takes the grant back clears the head and then looks at the status; the head must be good after the marks were set.
        let seen = head.load(Ordering::SeqCst);
        if claim.fits(seen, true) {
            return Ok(seen as u16);
        }
        let undone = if claim.first { GTF_READING | GTF_WRITING } else { GTF_WRITING };
        word.fetch_and(!(u32::from(undone) << shift), Ordering::SeqCst);
        Err(GrantStatus::GENERAL_ERROR)
    }

    /// Takes those marks away for which there is no use any more.
    pub fn release(&self, memory: &impl Frames, readers: bool, writers: bool) {
        let mut gone = 0;
        if !writers {
            gone |= GTF_WRITING;
            if !readers {
                gone |= GTF_READING;
            }
        }
        if gone == 0 {
            return;
        }
        let (word, shift) = match self.status {
            None => (memory.shared_u32(self.table, self.offset), 0),
            Some((frame, index)) => status_word(memory, frame, index),
        };
        word.fetch_and(!(u32::from(gone) << shift), Ordering::AcqRel);
    }

    /// What an entry with these flags gives.
    pub fn object(&self, memory: &impl Frames, flags: u16) -> Object {
        if self.status.is_none() {
            return Object::Page(Mfn(memory.shared_u32(self.table, self.offset + FRAME_V1).load(Ordering::Acquire).into()));
        }
        let middle = memory.shared_u32(self.table, self.offset + MIDDLE_V2).load(Ordering::Acquire);
        let second = memory.shared_u64(self.table, self.offset + SECOND_V2).load(Ordering::Acquire);
        if flags & GTF_TYPE_MASK == GTF_TRANSITIVE {
            Object::Grant { granter: DomId(middle as u16), reference: GrantRef(second as u32) }
        } else if flags & GTF_SUB_PAGE != 0 {
            Object::Part { mfn: Mfn(second), start: middle as u16, length: (middle >> 16) as u16 }
        } else {
            Object::Page(Mfn(second))
        }
    }

    /// The marks of an entry of version 2.
    pub fn marks(&self, memory: &impl Frames) -> u16 {
        let Some((frame, index)) = self.status else { return 0 };
        let (word, shift) = status_word(memory, frame, index);
        (word.load(Ordering::Acquire) >> shift) as u16 & (GTF_READING | GTF_WRITING)
    }

    /// Sets the marks of an entry of version 2, which nobody else does meanwhile.
    pub fn set_marks(&self, memory: &impl Frames, marks: u16) {
        let Some((frame, index)) = self.status else { return };
        let (word, shift) = status_word(memory, frame, index);
        word.fetch_and(!(0xffff << shift), Ordering::AcqRel);
        word.fetch_or(u32::from(marks) << shift, Ordering::AcqRel);
    }
}

/// The 32-bit word that holds status word `index`, and how far it is shifted in it.
fn status_word(memory: &impl Frames, frame: Mfn, index: usize) -> (&AtomicU32, u32) {
    (memory.shared_u32(frame, index / 2 * 4), if index.is_multiple_of(2) { 0 } else { 16 })
}

fn claim_v1(head: &AtomicU32, claim: &Claim) -> Result<u16, GrantStatus> {
    let mut seen = head.load(Ordering::Acquire);
    for _ in 0..ATTEMPTS {
        if !claim.fits(seen, false) {
            return Err(GrantStatus::GENERAL_ERROR);
        }
        match head.compare_exchange(seen, seen | u32::from(claim.marks()), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Ok(seen as u16),
            Err(now) => seen = now,
        }
    }
    Err(GrantStatus::GENERAL_ERROR)
}
