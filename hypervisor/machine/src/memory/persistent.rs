//! A region at a place that only the machine's memory map decides, so that the next start finds there what this one left, if memory kept its contents
//! over the reset.

use super::early::{Purpose, is_free, reserve};
use super::ram;
use crate::boot::ranges::Span;
use crate::layout::direct;
use core::sync::atomic::AtomicU8;
use oxen_sync::OnceCell;
use oxen_types::Maddr;

static REGION: OnceCell<&'static [AtomicU8]> = OnceCell::new();

/// The region's place is a multiple of this.
const STEP: u64 = 2 << 20;

/// Reserves the region: in the middle of the largest range of RAM below 4 GiB, where neither boot loaders, which work from both ends, nor
/// the modules come by; the next lower place that is free otherwise.
pub(crate) fn start(bytes: u64) {
    let below_4g = Span { start: super::FIRST_MANAGED, end: 1 << 32 };
    let Some(largest) = ram().map(|span| span.intersection(below_4g)).max_by_key(|span| span.len()) else { return };
    let mut at = (largest.start + largest.len() / 2) & !(STEP - 1);
    while at > largest.start {
        let span = Span::new(at, bytes).outer_pages();
        if is_free(span) {
            reserve(span, Some(Purpose::ConsoleRing));
            // SAFETY: the range is RAM, in the direct map, and reserved for this one use; bytes are reached as atomics only.
            let region = unsafe { core::slice::from_raw_parts(direct(Maddr(at)) as *const AtomicU8, bytes as usize) };
            let _ = REGION.set(region);
            return;
        }
        at -= STEP;
    }
}

/// The region, of the size that [`crate::boot::EarlyOptions`] asked for. Its contents are whatever was there: the previous boot's, or noise. `None` where no
/// place was found.
#[must_use]
pub fn persistent_region() -> Option<&'static [AtomicU8]> {
    REGION.get().copied()
}
