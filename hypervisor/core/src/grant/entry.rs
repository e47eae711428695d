//! The first word of an entry: flags in its low half, the grantee in its high half. The granter changes it at the same time.

use core::sync::atomic::{AtomicU32, Ordering};
use oxen_abi::grant_table::{GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_SUB_PAGE, GTF_TYPE_MASK, GTF_WRITING, GrantStatus};
use oxen_types::DomId;

/// Offset of the frame number in an entry.
pub(super) const FRAME_OFFSET: usize = 4;
/// How often a granter may change the entry under the hypervisor's hands before it is given up.
const ATTEMPTS: u32 = 5;

/// Marks an entry as in use by `grantee`.
pub(super) fn claim(word: &AtomicU32, grantee: DomId, write: bool) -> Result<(), GrantStatus> {
    let mut seen = word.load(Ordering::Acquire);
    for _ in 0..ATTEMPTS {
        let (flags, domid) = (seen as u16, (seen >> 16) as u16);
        let granted = flags & (GTF_TYPE_MASK | GTF_SUB_PAGE) == GTF_PERMIT_ACCESS && domid == grantee.0;
        if !granted || write && flags & GTF_READONLY != 0 {
            return Err(GrantStatus::GENERAL_ERROR);
        }
        let marks = if write { GTF_READING | GTF_WRITING } else { GTF_READING };
        match word.compare_exchange(seen, seen | u32::from(marks), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Ok(()),
            Err(now) => seen = now,
        }
    }
    Err(GrantStatus::GENERAL_ERROR)
}

/// Takes those marks away for which there is no use any more.
pub(super) fn release(word: &AtomicU32, readers: bool, writers: bool) {
    let mut gone = 0;
    if !writers {
        gone |= GTF_WRITING;
        if !readers {
            gone |= GTF_READING;
        }
    }
    if gone != 0 {
        word.fetch_and(!u32::from(gone), Ordering::AcqRel);
    }
}
