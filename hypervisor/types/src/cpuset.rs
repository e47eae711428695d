//! Sets of physical processors.

use crate::CpuId;
use core::sync::atomic::{AtomicU64, Ordering};

/// Most processors that one machine may have.
pub const MAX_CPUS: usize = 256;
const WORDS: usize = MAX_CPUS / 64;

/// A set of processors that several CPUs may change at once, one atomic word per 64 CPUs.
#[derive(Debug, Default)]
pub struct CpuSet {
    words: [AtomicU64; WORDS],
}

impl CpuSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { words: [const { AtomicU64::new(0) }; WORDS] }
    }

    /// The set that contains `cpu` only.
    #[must_use]
    pub fn of(cpu: CpuId) -> Self {
        let set = Self::new();
        set.insert(cpu);
        set
    }

    /// Adds `cpu`; returns whether it was absent. A number beyond [`MAX_CPUS`] is ignored.
    pub fn insert(&self, cpu: CpuId) -> bool {
        let bit = 1 << (cpu.0 % 64);
        self.words.get(cpu.index() / 64).is_some_and(|w| w.fetch_or(bit, Ordering::SeqCst) & bit == 0)
    }

    /// Removes `cpu`; returns whether it was present.
    pub fn remove(&self, cpu: CpuId) -> bool {
        let bit = 1 << (cpu.0 % 64);
        self.words.get(cpu.index() / 64).is_some_and(|w| w.fetch_and(!bit, Ordering::SeqCst) & bit != 0)
    }

    /// True where `cpu` is in the set.
    #[must_use]
    pub fn contains(&self, cpu: CpuId) -> bool {
        let bit = 1 << (cpu.0 % 64);
        self.words.get(cpu.index() / 64).is_some_and(|w| w.load(Ordering::SeqCst) & bit != 0)
    }

    /// The members in ascending order, each word read once.
    pub fn iter(&self) -> impl Iterator<Item = CpuId> + '_ {
        self.words.iter().enumerate().flat_map(|(i, w)| {
            let mut bits = w.load(Ordering::SeqCst);
            core::iter::from_fn(move || {
                let low = bits.checked_ilog2().map(|_| bits.trailing_zeros())?;
                bits &= bits - 1;
                Some(CpuId(i as u32 * 64 + low))
            })
        })
    }

    /// True where the set has no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|w| w.load(Ordering::SeqCst) == 0)
    }

    /// Number of members.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.words.iter().map(|w| w.load(Ordering::SeqCst).count_ones()).sum()
    }
}

impl Clone for CpuSet {
    fn clone(&self) -> Self {
        let copy = Self::new();
        for (to, from) in copy.words.iter().zip(&self.words) {
            to.store(from.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        copy
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn members_in_order() {
        let set = CpuSet::new();
        for n in [200, 3, 63, 64] {
            assert!(set.insert(CpuId(n)));
        }
        assert!(!set.insert(CpuId(3)));
        assert!(!set.insert(CpuId(256)));
        assert_eq!(set.iter().map(|c| c.0).collect::<Vec<_>>(), [3, 63, 64, 200]);
        assert!(set.remove(CpuId(64)) && !set.remove(CpuId(64)));
        assert_eq!(set.len(), 3);
    }
}
