//! What of the machine's devices a domain may use besides what its privileges give it: ranges of ports and of device memory, and interrupts.

use alloc::collections::{BTreeMap, BTreeSet};

/// Most separate ranges that a domain is given of one kind.
const MAX_RANGES: usize = 1024;

/// Numbers, as ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// First number to last.
    map: BTreeMap<u64, u64>,
}

impl Ranges {
    /// True where all of `first..=last` is in.
    #[must_use]
    pub fn contains(&self, first: u64, last: u64) -> bool {
        first <= last && self.map.range(..=first).next_back().is_some_and(|(_, &end)| end >= last)
    }

    /// Adds `first..=last`; `false` where that would be one range too many.
    #[must_use]
    pub fn insert(&mut self, first: u64, last: u64) -> bool {
        let near = (first.saturating_sub(1), last.saturating_add(1));
        let (mut start, mut end) = (first, last);
        while let Some((&s, &e)) = self.map.range(..=near.1).next_back().filter(|&(_, &e)| e >= near.0) {
            start = start.min(s);
            end = end.max(e);
            self.map.remove(&s);
        }
        if self.map.len() >= MAX_RANGES {
            // Only a range that touched no other comes here: nothing was removed.
            return false;
        }
        self.map.insert(start, end);
        true
    }

    /// Takes `first..=last` out; `false`, with nothing changed, where the two halves of a range would be one too many.
    #[must_use]
    pub fn remove(&mut self, first: u64, last: u64) -> bool {
        let splits = self.map.range(..first).next_back().is_some_and(|(_, &e)| e > last);
        if splits && self.map.len() >= MAX_RANGES {
            return false;
        }
        while let Some((&s, &e)) = self.map.range(..=last).next_back().filter(|&(_, &e)| e >= first) {
            self.map.remove(&s);
            if e > last {
                self.map.insert(last + 1, e);
            }
            if s < first {
                self.map.insert(s, first - 1);
            }
        }
        true
    }
}

/// A domain's permissions.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// I/O ports.
    pub ports: Ranges,
    /// Frames of device memory.
    pub memory: Ranges,
    /// Interrupts, by the machine's numbers.
    pub interrupts: BTreeSet<u32>,
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use oxen_testkit::Rng;
    use std::collections::BTreeSet;

    #[test]
    fn ranges_agree_with_a_set() {
        let mut rng = Rng::new(7);
        for _ in 0..50 {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for _ in 0..200 {
                let first = rng.below(64);
                let last = first + rng.below(12);
                if rng.one_in(2) {
                    assert!(ranges.insert(first, last));
                    set.extend(first..=last);
                } else {
                    assert!(ranges.remove(first, last));
                    set.retain(|n| !(first..=last).contains(n));
                }
                let (from, to) = (rng.below(64), rng.below(80));
                assert_eq!(ranges.contains(from, to), from <= to && (from..=to).all(|n| set.contains(&n)), "{from} to {to} in {ranges:?}");
            }
            let apart = ranges.map.iter().zip(ranges.map.iter().skip(1)).all(|((_, end), (start, _))| end + 1 < *start);
            assert!(apart, "{ranges:?}");
        }
    }

    #[test]
    fn ends_of_the_numbers() {
        let mut ranges = Ranges::default();
        assert!(ranges.insert(u64::MAX, u64::MAX) && ranges.insert(0, 0));
        assert!(ranges.contains(0, 0) && ranges.contains(u64::MAX, u64::MAX) && !ranges.contains(0, 1));
        assert!(ranges.insert(1, u64::MAX - 1) && ranges.contains(0, u64::MAX));
        assert!(ranges.remove(5, u64::MAX) && ranges.contains(0, 4) && !ranges.contains(5, 5));
    }

    #[test]
    fn their_number_is_bounded() {
        let mut ranges = Ranges::default();
        assert!((0..MAX_RANGES as u64).all(|n| ranges.insert(n * 8, n * 8 + 4)));
        assert!(!ranges.insert(1 << 40, 1 << 40));
        assert!(ranges.insert(5, 7), "two become one");
        assert!(ranges.insert(1 << 40, 1 << 40));
        let before = ranges.clone();
        assert!(!ranges.remove(2, 2));
        assert_eq!(ranges, before);
    }
}
