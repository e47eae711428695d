//! The scheduler's parameters, with the values and limits of Xen's credit scheduler (public header `sysctl.h`).

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

const NANOS_PER_MILLI: u64 = 1_000_000;
const NANOS_PER_MICRO: u64 = 1_000;

/// Longest and shortest time slice in milliseconds (`XEN_SYSCTL_CSCHED_TSLICE_MAX`, `_MIN`).
const TSLICE_MS: core::ops::RangeInclusive<u32> = 1..=1000;
/// Longest and shortest rate limit in microseconds (`XEN_SYSCTL_SCHED_RATELIMIT_MAX`, `_MIN`); 0 means none.
const RATELIMIT_US: core::ops::RangeInclusive<u32> = 100..=500_000;
/// Longest migration delay in microseconds (`XEN_SYSCTL_CSCHED_MGR_DLY_MAX_US`).
const MIGRATION_DELAY_MAX_US: u32 = 100_000;
/// Ticks in a time slice: a boosted vCPU runs for one.
const TICKS_PER_SLICE: u64 = 3;

/// The parameters in the units in which they are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Time slice, and interval at which credits are handed out, in milliseconds.
    pub tslice_ms: u32,
    /// Time in microseconds that a vCPU runs at least before another one that woke up takes its place; 0 for none.
    pub ratelimit_us: u32,
    /// Time in microseconds after which a vCPU that ran is taken to another processor; 0 for none.
    pub migration_delay_us: u32,
}

impl Default for Params {
    fn default() -> Self {
        Self { tslice_ms: 30, ratelimit_us: 1000, migration_delay_us: 0 }
    }
}

impl Params {
    /// True where all values are within their limits.
    #[must_use]
    pub fn are_valid(&self) -> bool {
        TSLICE_MS.contains(&self.tslice_ms)
            && (self.ratelimit_us == 0 || RATELIMIT_US.contains(&self.ratelimit_us))
            && self.migration_delay_us <= MIGRATION_DELAY_MAX_US
    }
}

/// The parameters as every processor reads them, in nanoseconds.
#[derive(Debug)]
pub(super) struct Times {
    slice_ns: AtomicU64,
    ratelimit_ns: AtomicU64,
    migration_delay_ns: AtomicU64,
}

impl Times {
    pub fn new(params: Params) -> Self {
        let times = Self { slice_ns: AtomicU64::new(0), ratelimit_ns: AtomicU64::new(0), migration_delay_ns: AtomicU64::new(0) };
        times.set(params);
        times
    }

    pub fn set(&self, params: Params) {
        self.slice_ns.store(u64::from(params.tslice_ms) * NANOS_PER_MILLI, Relaxed);
        self.ratelimit_ns.store(u64::from(params.ratelimit_us) * NANOS_PER_MICRO, Relaxed);
        self.migration_delay_ns.store(u64::from(params.migration_delay_us) * NANOS_PER_MICRO, Relaxed);
    }

    pub fn params(&self) -> Params {
        let in_units = |ns: u64, unit: u64| u32::try_from(ns / unit).unwrap_or(u32::MAX);
        Params {
            tslice_ms: in_units(self.slice(), NANOS_PER_MILLI),
            ratelimit_us: in_units(self.ratelimit(), NANOS_PER_MICRO),
            migration_delay_us: in_units(self.migration_delay(), NANOS_PER_MICRO),
        }
    }

    pub fn slice(&self) -> u64 {
        self.slice_ns.load(Relaxed)
    }

    pub fn tick(&self) -> u64 {
        self.slice() / TICKS_PER_SLICE
    }

    pub fn ratelimit(&self) -> u64 {
        self.ratelimit_ns.load(Relaxed)
    }

    pub fn migration_delay(&self) -> u64 {
        self.migration_delay_ns.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_units() {
        let usual = Params::default();
        assert!(usual.are_valid() && Times::new(usual).params() == usual);
        for wrong in [
            Params { tslice_ms: 0, ..usual },
            Params { tslice_ms: 1001, ..usual },
            Params { ratelimit_us: 99, ..usual },
            Params { ratelimit_us: 500_001, ..usual },
            Params { migration_delay_us: 100_001, ..usual },
        ] {
            assert!(!wrong.are_valid(), "{wrong:?}");
        }
        assert!(Params { ratelimit_us: 0, ..usual }.are_valid());
        assert_eq!(Times::new(usual).tick(), 10_000_000);
    }
}
