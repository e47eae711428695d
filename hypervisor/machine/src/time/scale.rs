//! Conversion between counter ticks and nanoseconds by one multiplication.

/// Nanoseconds in a second.
pub const NANOS_PER_SEC: u64 = 1_000_000_000;

/// A factor `multiplier / 2^32 * 2^shift`, in the form that guests also use (public header `xen.h`, `struct vcpu_time_info`): a value is
/// shifted first, then multiplied, and the low 32 bits of the product are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Multiplier with its highest bit set.
    pub multiplier: u32,
    /// Shift to the left, negative for the right.
    pub shift: i8,
}

impl Scale {
    /// The factor `to / from`; both are frequencies in Hz, not 0. `None` where the form cannot express it.
    #[must_use]
    pub fn new(from_hz: u64, to_hz: u64) -> Option<Self> {
        if from_hz == 0 || to_hz == 0 {
            return None;
        }
        (-31_i8..=31).find_map(|shift| {
            let wide = u128::from(to_hz) << 64 >> (32 + i32::from(shift)) as u32;
            let multiplier = u32::try_from(wide / u128::from(from_hz)).ok()?;
            (multiplier >> 31 == 1).then_some(Self { multiplier, shift })
        })
    }

    /// `value` times the factor, rounded down; the largest number where the shift alone does not fit.
    #[inline]
    #[must_use]
    pub fn apply(self, value: u64) -> u64 {
        let shifted = if self.shift < 0 {
            value >> -self.shift
        } else if value > u64::MAX >> self.shift {
            return u64::MAX;
        } else {
            value << self.shift
        };
        let product = (u128::from(shifted) * u128::from(self.multiplier)) >> 32;
        // The multiplier has 32 bits, so that the product always fits.
        product as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_for_round_frequencies() {
        let s = Scale::new(NANOS_PER_SEC, NANOS_PER_SEC).unwrap();
        assert_eq!((s.multiplier, s.shift), (1 << 31, 1));
        for v in [0, 1, 7, 1 << 40, u64::MAX >> 1] {
            assert_eq!(s.apply(v), v);
        }
        assert_eq!(s.apply(u64::MAX - 1), u64::MAX);
        assert_eq!(Scale::new(2_000_000_000, NANOS_PER_SEC).unwrap().apply(2_000_000_000), NANOS_PER_SEC);
        assert_eq!(Scale::new(0, 1), None);
    }

    #[test]
    fn errors_stay_below_one_in_two_billion() {
        for hz in [3_579_545, 14_318_180, 100_000_000, 999_999_937, 1_000_000_001, 2_394_453_100, 5_800_000_000] {
            let s = Scale::new(hz, NANOS_PER_SEC).unwrap();
            for seconds in [1_u64, 60, 86_400, 31_536_000] {
                let ns = s.apply(hz * seconds);
                let exact = seconds * NANOS_PER_SEC;
                // Rounded down, by at most the multiplier's last bit and one.
                assert!(ns <= exact && exact - ns <= exact / (1 << 31) + 2, "{hz} Hz after {seconds} s: {ns}");
            }
            let back = Scale::new(NANOS_PER_SEC, hz).unwrap();
            let ticks = back.apply(s.apply(hz * 3600));
            assert!(hz * 3600 - ticks <= hz * 3600 / (1 << 30) + 2);
        }
    }

    #[test]
    fn never_goes_back() {
        let s = Scale::new(2_394_453_100, NANOS_PER_SEC).unwrap();
        let mut last = 0;
        for v in (0..100_000).chain((1 << 50)..(1 << 50) + 100_000) {
            let ns = s.apply(v);
            assert!(ns >= last);
            last = ns;
        }
    }
}
