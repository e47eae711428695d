//! Where in memory a domain's frames are, roughly: so that ending a small domain on a large machine does not take a look at every frame.

use core::ops::Range;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use oxen_types::Mfn;

/// log2 of the number of regions into which memory is divided.
const REGIONS_ORDER: u32 = 10;
const WORDS: usize = 1 << (REGIONS_ORDER - u64::BITS.ilog2());
/// log2 of the frames of the smallest region: 2 MiB.
const MIN_ORDER: u32 = 9;

/// The regions in which a domain was given frames.
#[derive(Debug, Default)]
pub(crate) struct Regions([AtomicU64; WORDS]);

/// log2 of the frames of a region where memory ends at `max_mfn`.
fn order(max_mfn: u64) -> u32 {
    let bits = u64::BITS - max_mfn.saturating_sub(1).leading_zeros();
    bits.saturating_sub(REGIONS_ORDER).max(MIN_ORDER)
}

impl Regions {
    /// Notes that the domain is given 2^`block_order` frames from `mfn` on, a multiple of their number. Memory ends at `max_mfn`, which never changes. To be
    /// called before the frames are marked as the domain's.
    pub fn mark(&self, max_mfn: u64, mfn: Mfn, block_order: u32) {
        let order = order(max_mfn);
        let first = mfn.0 >> order;
        let last = (mfn.0 + (1 << block_order) - 1) >> order;
        for region in first..=last {
            let Some(word) = self.0.get((region / 64) as usize) else { return };
            let bit = 1 << (region % 64);
            // Mostly it is there already, and reading is cheaper.
            if word.load(Relaxed) & bit == 0 {
                word.fetch_or(bit, Relaxed);
            }
        }
    }

    /// The frames that follow `mfn`, or start there, that the domain may have been given, up to where it may have none or a region ends; `None` if there are none.
    pub fn range(&self, max_mfn: u64, mfn: u64) -> Option<Range<u64>> {
        let order = order(max_mfn);
        let mut at = mfn;
        while at < max_mfn {
            let region = at >> order;
            let end = (region + 1) << order;
            let word = self.0.get((region / 64) as usize).map_or(0, |word| word.load(Relaxed));
            if word >> (region % 64) & 1 != 0 {
                return Some(at..end.min(max_mfn));
            }
            at = end;
        }
        None
    }

    /// Forgets everything: the domain has no frames.
    pub fn clear(&self) {
        for word in &self.0 {
            word.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_cover_all_memory() {
        for max_mfn in [1, 511, 512, 513, 1 << 18, 655_360, (1 << 28) + 1, 5 << 28] {
            assert!((max_mfn - 1) >> order(max_mfn) < 1 << REGIONS_ORDER, "{max_mfn}");
        }
    }

    #[test]
    fn frames_are_found_and_little_else() {
        let max_mfn = 655_360;
        let regions = Regions::default();
        assert_eq!(regions.range(max_mfn, 0), None);
        regions.mark(max_mfn, Mfn(0x1_2345), 0);
        regions.mark(max_mfn, Mfn(max_mfn - 512), 9);
        assert_eq!(regions.range(max_mfn, 0), Some(0x1_2000..0x1_2400));
        assert_eq!(regions.range(max_mfn, 0x1_2345), Some(0x1_2345..0x1_2400));
        assert_eq!(regions.range(max_mfn, 0x1_2400), Some(max_mfn - 1024..max_mfn));
        assert_eq!(regions.range(max_mfn, max_mfn - 1), Some(max_mfn - 1..max_mfn));
        assert_eq!(regions.range(max_mfn, max_mfn), None);
        assert_eq!(regions.range(max_mfn - 1, max_mfn - 512), Some(max_mfn - 512..max_mfn - 1));
        regions.clear();
        assert_eq!(regions.range(max_mfn, 0), None);
    }

    #[test]
    fn a_block_larger_than_a_region_marks_all_of_its_regions() {
        let regions = Regions::default();
        regions.mark(1 << 18, Mfn(1 << 12), 12);
        assert_eq!((0..1 << 18).step_by(512).filter(|mfn| regions.range(1 << 18, *mfn).is_some_and(|range| range.start == *mfn)).count(), 8);
    }
}
