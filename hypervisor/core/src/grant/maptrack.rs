//! The grants that a domain has mapped, by handle.

use crate::domain::Domain;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use oxen_mm::MappingRef;
use oxen_types::{GrantRef, Mfn};

/// Handles that come into being together: as many as the interface's tracking structure (16 bytes) fits in a frame.
const CHUNK: u32 = 256;
/// Most chunks that a domain may have; the usual number too.
pub const MAX_MAPTRACK_FRAMES: u32 = 1024;

/// A grant in use. It owns the pins of its sides: one if the processor maps it, one if devices do.
#[derive(Debug)]
pub struct Mapping {
    /// Whose grant it is. The domain stays until its grants are unmapped.
    pub granter: Arc<Domain>,
    /// Which.
    pub reference: GrantRef,
    /// The frame.
    pub mfn: Mfn,
    /// With write access.
    pub writable: bool,
    /// The place was given as a page-table entry, not as an address.
    pub by_entry: bool,
    /// A page-table entry maps it, and owns a reference.
    pub host: bool,
    /// The reference for devices.
    pub device: Option<MappingRef>,
}

enum Slot {
    /// Free; the next free one.
    Free(Option<u32>),
    /// Someone works on it, who then fills or frees it.
    Busy,
    Used(Mapping),
}

/// A domain's mappings.
///
/// Nobody works on a mapping under the lock: it is taken out first. A second vCPU that names the same handle meanwhile is told that there
/// is none.
pub struct MapTrack {
    chunks: Vec<Vec<Slot>>,
    max_chunks: u32,
    first_free: Option<u32>,
}

impl fmt::Debug for MapTrack {
    /// Without the mappings: a domain that maps its own grants would be printed without end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapTrack").field("chunks", &self.chunks.len()).finish_non_exhaustive()
    }
}

impl MapTrack {
    /// No mapping yet, and room for `max_frames` frames' worth of them.
    #[must_use]
    pub const fn new(max_frames: u32) -> Self {
        Self { chunks: Vec::new(), max_chunks: max_frames, first_free: None }
    }

    fn slot(&mut self, handle: u32) -> Option<&mut Slot> {
        self.chunks.get_mut((handle / CHUNK) as usize)?.get_mut((handle % CHUNK) as usize)
    }

    /// A handle for a new mapping, to be filled or freed; `None` where the domain has its maximum, or memory is short.
    pub fn reserve(&mut self) -> Option<u32> {
        if self.first_free.is_none() {
            self.grow()?;
        }
        let handle = self.first_free?;
        let slot = self.slot(handle)?;
        let Slot::Free(next) = core::mem::replace(slot, Slot::Busy) else { return None };
        self.first_free = next;
        Some(handle)
    }

    fn grow(&mut self) -> Option<()> {
        if self.chunks.len() >= self.max_chunks as usize {
            return None;
        }
        let base = u32::try_from(self.chunks.len()).ok()? * CHUNK;
        let mut chunk = Vec::new();
        chunk.try_reserve_exact(CHUNK as usize).ok()?;
        self.chunks.try_reserve(1).ok()?;
        chunk.extend((1..=CHUNK).map(|i| Slot::Free((i < CHUNK).then_some(base + i))));
        self.chunks.push(chunk);
        self.first_free = Some(base);
        Some(())
    }

    /// Puts a mapping where [`MapTrack::reserve`] or [`MapTrack::take`] made place for it.
    pub fn fill(&mut self, handle: u32, mapping: Mapping) {
        if let Some(slot) = self.slot(handle) {
            debug_assert!(matches!(slot, Slot::Busy), "handle {handle} is not reserved");
            *slot = Slot::Used(mapping);
        }
    }

    /// Takes a mapping out to work on it; its handle is then to be filled or freed.
    pub fn take(&mut self, handle: u32) -> Option<Mapping> {
        let slot = self.slot(handle)?;
        if !matches!(slot, Slot::Used(_)) {
            return None;
        }
        match core::mem::replace(slot, Slot::Busy) {
            Slot::Used(mapping) => Some(mapping),
            Slot::Free(_) | Slot::Busy => None,
        }
    }

    /// The mappings that nobody works on.
    pub fn mappings(&self) -> impl Iterator<Item = &Mapping> {
        self.chunks.iter().flatten().filter_map(|slot| match slot {
            Slot::Used(mapping) => Some(mapping),
            Slot::Free(_) | Slot::Busy => None,
        })
    }

    /// Takes out the next mapping at or after handle `*from`, which then stands behind it. The handle is not free again.
    pub fn take_next(&mut self, from: &mut u32) -> Option<Mapping> {
        while (*from / CHUNK) < self.chunks.len() as u32 {
            let handle = *from;
            *from += 1;
            if let Some(mapping) = self.take(handle) {
                return Some(mapping);
            }
        }
        None
    }

    /// Ends the use of a handle that was reserved or taken.
    pub fn free(&mut self, handle: u32) {
        let next = self.first_free;
        if let Some(slot) = self.slot(handle) {
            debug_assert!(matches!(slot, Slot::Busy), "handle {handle} is not reserved");
            *slot = Slot::Free(next);
            self.first_free = Some(handle);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn handles_are_distinct_reused_and_bounded() {
        let mut track = MapTrack::new(MAX_MAPTRACK_FRAMES);
        let all: BTreeSet<u32> = core::iter::from_fn(|| track.reserve()).collect();
        assert_eq!(all.len(), (MAX_MAPTRACK_FRAMES * CHUNK) as usize);
        assert!(track.reserve().is_none());
        track.free(5);
        track.free(70_000);
        assert_eq!(track.reserve(), Some(70_000));
        assert_eq!(track.reserve(), Some(5));
        assert!(track.reserve().is_none());
    }

    #[test]
    fn only_filled_handles_can_be_taken() {
        let mut track = MapTrack::new(MAX_MAPTRACK_FRAMES);
        let handle = track.reserve().unwrap();
        for bad in [handle, handle + 1, CHUNK, u32::MAX] {
            assert!(track.take(bad).is_none());
        }
    }
}
