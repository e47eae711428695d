//! How far the time stamp counter of one CPU is from the boot CPU's.
//!
//! Each exchange gives bounds that do not depend on how long it took: the other CPU reads its counter after the boot CPU has read `before`
//! and before the boot CPU reads `after`. The offset therefore lies in the intersection of all intervals.

/// Bounds of the offset `other - boot`, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    low: i64,
    high: i64,
}

impl Skew {
    /// Nothing known.
    #[must_use]
    pub const fn unknown() -> Self {
        Self { low: i64::MIN, high: i64::MAX }
    }

    /// Takes in one exchange.
    #[must_use]
    pub fn narrowed(self, before: u64, other: u64, after: u64) -> Self {
        let low = other.wrapping_sub(after) as i64;
        let high = other.wrapping_sub(before) as i64;
        Self { low: self.low.max(low), high: self.high.min(high) }
    }

    /// The offset to correct: 0 where the counters may be in step, else the middle of the bounds.
    #[must_use]
    pub fn offset(self) -> i64 {
        if self.low <= 0 && self.high >= 0 {
            return 0;
        }
        // Bounds that contradict each other come from counters of different rates; the middle is as good as any.
        ((i128::from(self.low) + i128::from(self.high)) / 2) as i64
    }

    /// Width of the bounds, in ticks.
    #[must_use]
    pub fn uncertainty(self) -> u64 {
        self.high.abs_diff(self.low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_step() {
        let skew = Skew::unknown().narrowed(100, 130, 200).narrowed(1000, 1001, 1010);
        assert_eq!((skew.offset(), skew.uncertainty()), (0, 10));
    }

    #[test]
    fn ahead_and_behind() {
        let ahead = Skew::unknown().narrowed(100, 5150, 200).narrowed(1000, 6010, 1020);
        assert_eq!(ahead.offset(), 5000);
        let behind = Skew::unknown().narrowed(10_000, 10_010_u64.wrapping_sub(50_000), 10_020);
        assert_eq!(behind.offset(), -50_000);
        let far = Skew::unknown().narrowed(1 << 62, 5, (1 << 62) + 10);
        assert!(far.offset() < 0);
    }
}
