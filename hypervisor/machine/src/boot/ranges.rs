//! Lists of machine address ranges in fixed storage: the memory map and the early allocator work before there is a heap.

use oxen_hal::{MemoryKind, MemoryRange};
use oxen_types::{Maddr, PAGE_SIZE};

/// A half-open range of machine addresses, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl Span {
    /// The range from `start`, `len` bytes long; it ends at the end of the address space at most.
    #[must_use]
    pub const fn new(start: u64, len: u64) -> Self {
        Self { start, end: start.saturating_add(len) }
    }

    /// Bytes in the range.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// True where it has no byte.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// The smallest range of whole pages that covers it.
    #[must_use]
    pub const fn outer_pages(self) -> Self {
        Self { start: self.start & !(PAGE_SIZE - 1), end: self.end.saturating_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1) }
    }

    /// The largest range of whole pages inside it.
    #[must_use]
    pub const fn inner_pages(self) -> Self {
        Self { start: self.start.saturating_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1), end: self.end & !(PAGE_SIZE - 1) }
    }

    /// The bytes that both ranges have.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self { start: self.start.max(other.start), end: self.end.min(other.end) }
    }

    /// True where both have a byte in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        !self.intersection(other).is_empty()
    }
}

/// The list has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A sorted list of ranges that do not overlap.
#[derive(Clone, Debug)]
pub struct SpanList<const N: usize> {
    spans: [Span; N],
    used: usize,
}

impl<const N: usize> SpanList<N> {
    /// An empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self { spans: [Span { start: 0, end: 0 }; N], used: 0 }
    }

    /// The ranges, lowest first.
    #[must_use]
    pub fn as_slice(&self) -> &[Span] {
        &self.spans[..self.used]
    }

    /// Adds a range; it melts together with neighbours that it touches.
    pub fn add(&mut self, mut new: Span) -> Result<(), Full> {
        if new.is_empty() {
            return Ok(());
        }
        let mut kept = 0;
        for i in 0..self.used {
            let span = self.spans[i];
            if span.end >= new.start && span.start <= new.end {
                new = Span { start: span.start.min(new.start), end: span.end.max(new.end) };
            } else {
                self.spans[kept] = span;
                kept += 1;
            }
        }
        self.used = kept;
        let at = self.as_slice().partition_point(|span| span.start < new.start);
        self.insert(at, new)
    }

    /// Takes a range out.
    pub fn remove(&mut self, gone: Span) -> Result<(), Full> {
        if gone.is_empty() {
            return Ok(());
        }
        let mut i = 0;
        while i < self.used {
            let span = self.spans[i];
            if !span.overlaps(gone) {
                i += 1;
                continue;
            }
            let below = Span { start: span.start, end: gone.start };
            let above = Span { start: gone.end, end: span.end };
            match (below.is_empty(), above.is_empty()) {
                (true, true) => {
                    self.spans.copy_within(i + 1..self.used, i);
                    self.used -= 1;
                }
                (false, true) => {
                    self.spans[i] = below;
                    i += 1;
                }
                (true, false) => {
                    self.spans[i] = above;
                    i += 1;
                }
                (false, false) => {
                    self.spans[i] = below;
                    self.insert(i + 1, above)?;
                    i += 2;
                }
            }
        }
        Ok(())
    }

    /// Takes `len` bytes on a multiple of `align` (a power of two) out of the list, as high as possible but inside `within`.
    pub fn take_highest(&mut self, len: u64, align: u64, within: Span) -> Option<Span> {
        let found = self.as_slice().iter().rev().find_map(|span| {
            let room = span.intersection(within);
            let start = room.end.checked_sub(len)? & !(align - 1);
            (!room.is_empty() && start >= room.start).then_some(Span { start, end: start + len })
        })?;
        self.remove(found).ok()?;
        Some(found)
    }

    fn insert(&mut self, at: usize, span: Span) -> Result<(), Full> {
        if self.used == N {
            return Err(Full);
        }
        self.spans.copy_within(at..self.used, at + 1);
        self.spans[at] = span;
        self.used += 1;
        Ok(())
    }
}

impl<const N: usize> Default for SpanList<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// Which of two kinds an address has where the firmware's map names it twice: the one that forbids more.
fn stronger(a: MemoryKind, b: MemoryKind) -> MemoryKind {
    let weight = |kind| match kind {
        MemoryKind::Ram => 0,
        MemoryKind::AcpiTables => 1,
        MemoryKind::AcpiNvs => 2,
        MemoryKind::Other(_) => 3,
        MemoryKind::Reserved => 4,
        MemoryKind::Unusable => 5,
    };
    if weight(a) >= weight(b) { a } else { b }
}

/// Sorts a firmware map, resolves overlaps and joins neighbours of one kind. Writes to `out`, gives the number of ranges. Where `out` is too
/// small the highest ranges are lost, which costs memory but is safe.
pub fn normalise(raw: &[MemoryRange], out: &mut [MemoryRange]) -> usize {
    let mut used = 0;
    let mut at = raw.iter().filter(|range| range.start < range.end).map(|range| range.start.0).min();
    while let Some(start) = at {
        // Up to the next place where any range starts or ends, the set of ranges that cover it is constant.
        let end = raw.iter().flat_map(|range| [range.start.0, range.end.0]).filter(|&edge| edge > start).min();
        let Some(end) = end else { break };
        let kind = raw.iter().filter(|range| range.start.0 <= start && range.end.0 >= end).map(|range| range.kind).reduce(stronger);
        if let Some(kind) = kind {
            let joins = used > 0 && out[used - 1].kind == kind && out[used - 1].end.0 == start;
            if joins {
                out[used - 1].end = Maddr(end);
            } else if used < out.len() {
                out[used] = MemoryRange { start: Maddr(start), end: Maddr(end), kind };
                used += 1;
            } else {
                break;
            }
        }
        at = Some(end);
    }
    used
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn span(start: u64, end: u64) -> Span {
        Span { start, end }
    }

    #[test]
    fn add_melts_and_remove_splits() {
        let mut list = SpanList::<4>::new();
        list.add(span(10, 20)).unwrap();
        list.add(span(30, 40)).unwrap();
        list.add(span(20, 30)).unwrap();
        assert_eq!(list.as_slice(), [span(10, 40)]);
        list.remove(span(15, 18)).unwrap();
        list.remove(span(39, 100)).unwrap();
        assert_eq!(list.as_slice(), [span(10, 15), span(18, 39)]);
        list.remove(span(0, 100)).unwrap();
        assert!(list.as_slice().is_empty());
    }

    #[test]
    fn full_list_is_reported() {
        let mut list = SpanList::<1>::new();
        list.add(span(0, 10)).unwrap();
        assert_eq!(list.add(span(20, 30)), Err(Full));
        assert_eq!(list.remove(span(3, 4)), Err(Full));
    }

    #[test]
    fn takes_from_the_top_with_alignment() {
        let mut list = SpanList::<8>::new();
        list.add(span(0x1000, 0x8000)).unwrap();
        list.add(span(0x10000, 0x13000)).unwrap();
        assert_eq!(list.take_highest(0x1000, 0x1000, span(0, u64::MAX)), Some(span(0x12000, 0x13000)));
        assert_eq!(list.take_highest(0x1000, 0x4000, span(0, 0x9000)), Some(span(0x4000, 0x5000)));
        assert_eq!(list.take_highest(0x3000, 0x1000, span(0, 0x10000)), Some(span(0x5000, 0x8000)));
        assert_eq!(list.take_highest(0x4000, 0x1000, span(0, u64::MAX)), None);
        assert_eq!(list.as_slice(), [span(0x1000, 0x4000), span(0x10000, 0x12000)]);
    }

    #[test]
    fn random_operations_agree_with_a_bitmap() {
        let mut seed = 12345_u64;
        let mut next = |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % n
        };
        let mut list = SpanList::<128>::new();
        let mut model = [false; 200];
        for _ in 0..5000 {
            let start = next(200);
            let end = (start + next(20)).min(200);
            let add = next(2) == 0;
            if add { list.add(span(start, end)).unwrap() } else { list.remove(span(start, end)).unwrap() }
            model[start as usize..end as usize].fill(add);
            let seen: Vec<bool> = (0..200).map(|i| list.as_slice().iter().any(|s| s.start <= i && i < s.end)).collect();
            assert_eq!(seen, model);
            assert!(list.as_slice().windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }

    #[test]
    fn overlap_goes_to_the_stricter_kind() {
        let range = |start, end, kind| MemoryRange { start: Maddr(start), end: Maddr(end), kind };
        let raw = [
            range(0x100, 0x900, MemoryKind::Ram),
            range(0x300, 0x400, MemoryKind::Reserved),
            range(0x900, 0xa00, MemoryKind::Ram),
            range(0x50, 0x50, MemoryKind::Ram),
        ];
        let mut out = [range(0, 0, MemoryKind::Ram); 8];
        let n = normalise(&raw, &mut out);
        assert_eq!(
            out[..n],
            [
                range(0x100, 0x300, MemoryKind::Ram),
                range(0x300, 0x400, MemoryKind::Reserved),
                range(0x400, 0xa00, MemoryKind::Ram)
            ]
        );
        assert_eq!(normalise(&raw, &mut out[..1]), 1);
        assert_eq!(normalise(&[], &mut out), 0);
    }
}
