//! Machine memory: the firmware's map, the early allocator, the frame table and the machine-to-phys table.

mod early;
mod frames;
mod persistent;

pub use early::{
    MemoryUse, Purpose, early_alloc, early_alloc_below, early_alloc_for, early_alloc_low, early_buffer, early_release, buffer_frames, free_ranges, memory_use,
};
pub(crate) use early::{free_bytes, reach_all, reserve, seed, take_table_frame, unreserve};
pub use frames::{extend_heap, is_ram};
pub use persistent::persistent_region;
pub(crate) use frames::{heap_region, start_tables};
pub(crate) use persistent::start as start_persistent;

use crate::boot::ranges::{Span, normalise};
use oxen_hal::{MemoryKind, MemoryRange};
use oxen_sync::OnceCell;
use oxen_types::Maddr;

/// Most ranges that are kept of the firmware's map.
pub(crate) const MAX_RANGES: usize = 256;
/// Memory below this address is left to the firmware's and dom0's legacy uses: it is not managed as RAM.
pub(crate) const FIRST_MANAGED: u64 = 1 << 20;

#[derive(Debug)]
struct Map {
    ranges: [MemoryRange; MAX_RANGES],
    used: usize,
}

static MAP: OnceCell<Map> = OnceCell::new();

const NOTHING: MemoryRange = MemoryRange { start: Maddr(0), end: Maddr(0), kind: MemoryKind::Reserved };

/// Takes the firmware's map, `raw` as it came. RAM at or above `limit` is left out.
pub(crate) fn set_map(raw: impl Iterator<Item = MemoryRange>, limit: u64) {
    let mut collected = [NOTHING; MAX_RANGES];
    let mut count = 0;
    for mut range in raw.take(MAX_RANGES) {
        if range.kind == MemoryKind::Ram {
            range.end = Maddr(range.end.0.min(limit));
        }
        collected[count] = range;
        count += 1;
    }
    let mut map = Map { ranges: [NOTHING; MAX_RANGES], used: 0 };
    map.used = normalise(&collected[..count], &mut map.ranges);
    let _ = MAP.set(map);
}

/// The firmware's memory map, sorted and without overlap.
#[must_use]
pub fn map() -> &'static [MemoryRange] {
    MAP.get().map_or(&[], |map| &map.ranges[..map.used])
}

/// The RAM of the machine in whole pages, the first MiB included.
pub(crate) fn ram() -> impl Iterator<Item = Span> {
    map()
        .iter()
        .filter(|range| range.kind == MemoryKind::Ram)
        .map(|range| Span { start: range.start.0, end: range.end.0.min(crate::layout::MAX_FRAMES << 12) }.inner_pages())
        .filter(|span| !span.is_empty())
}
