//! CPUID as a list of answers: how the tools read what guests see, and cut it down for one domain.
//!
//! The list has the leaves that the public header `arch-x86/xen.h` (`xen_cpuid_leaf_t`) and the tools of 4.17 know, in their order. A domain's list never
//! adds to what [`crate::cpuid::pv`] says: [`CpuidPolicy::apply`] takes away what the list has not.

use crate::cpuid::Leaf;
use alloc::vec::Vec;
use oxen_abi::arch_x86_64::{CpuidLeaf, XEN_CPUID_NO_SUBLEAF};

/// Most leaves that a list has: 10 plain ones up to 0xd, 6 of caches, 3 of features, 2 of topology, 63 of state components, 2 of the hypervisor, 34
/// extended ones.
pub const MAX_LEAVES: usize = 120;
/// MSRs that policies of 4.17 have; no guest sees either, so lists here hold none.
pub const MAX_MSRS: usize = 2;

const MAX_BASIC: u32 = 0xd;
const LEAF_CACHES: u32 = 4;
const LEAF_FEATURES: u32 = 7;
const LEAF_TOPOLOGY: u32 = 0xb;
const LEAF_XSTATE: u32 = 0xd;
const MAX_CACHES: u32 = 6;
const MAX_FEATURE_SUBLEAVES: u32 = 3;
const MAX_TOPOLOGY: u32 = 2;
const MAX_XSTATES: u32 = 63;
const HYPERVISOR: u32 = 0x4000_0000;
const HYPERVISOR_2: u32 = 0x4000_0100;
const EXTENDED: u32 = 0x8000_0000;
const MAX_EXTENDED: u32 = 0x8000_0021;

/// Bits of leaf 1's ecx that follow the guest's state: OSXSAVE, and that it is a guest.
const DYNAMIC_1C: u32 = 1 << 27 | 1 << 31;
const XSAVE: u32 = 1 << 26;

/// A list of answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuidPolicy {
    leaves: Vec<CpuidLeaf>,
}

/// A leaf that lists do not have, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownLeaf {
    /// Leaf.
    pub leaf: u32,
    /// Subleaf.
    pub subleaf: u32,
}

impl CpuidPolicy {
    /// What `ask` answers, leaf and subleaf being its arguments.
    pub fn collect(ask: impl Fn(u32, u32) -> Leaf) -> Self {
        let mut policy = Self { leaves: Vec::with_capacity(MAX_LEAVES) };
        for leaf in 0..=ask(0, 0)[0].min(MAX_BASIC) {
            match leaf {
                LEAF_CACHES => policy.add_until(leaf, MAX_CACHES, &ask, |[a, ..]| a & 0x1f == 0),
                LEAF_FEATURES => policy.add_until(leaf, ask(leaf, 0)[0].saturating_add(1).min(MAX_FEATURE_SUBLEAVES), &ask, |_| false),
                LEAF_TOPOLOGY => policy.add_until(leaf, MAX_TOPOLOGY, &ask, |[_, _, c, _]| c >> 8 & 0xff == 0),
                LEAF_XSTATE => policy.add_xstates(&ask),
                _ => policy.add(leaf, XEN_CPUID_NO_SUBLEAF, ask(leaf, 0)),
            }
        }
        // How many leaves of the hypervisor's the guest sees: 0 means all.
        policy.add(HYPERVISOR, XEN_CPUID_NO_SUBLEAF, [0; 4]);
        policy.add(HYPERVISOR_2, XEN_CPUID_NO_SUBLEAF, [0; 4]);
        for leaf in EXTENDED..=ask(EXTENDED, 0)[0].min(MAX_EXTENDED) {
            policy.add(leaf, XEN_CPUID_NO_SUBLEAF, ask(leaf, 0));
        }
        policy
    }

    fn add(&mut self, leaf: u32, subleaf: u32, [a, b, c, d]: Leaf) {
        self.leaves.push(CpuidLeaf { leaf, subleaf, a, b, c, d });
    }

    fn add_until(&mut self, leaf: u32, limit: u32, ask: &impl Fn(u32, u32) -> Leaf, is_last: impl Fn(Leaf) -> bool) {
        for subleaf in 0..limit {
            let answer = ask(leaf, subleaf);
            self.add(leaf, subleaf, answer);
            if is_last(answer) {
                return;
            }
        }
    }

    fn add_xstates(&mut self, ask: &impl Fn(u32, u32) -> Leaf) {
        let first = ask(LEAF_XSTATE, 0);
        let second = ask(LEAF_XSTATE, 1);
        self.add(LEAF_XSTATE, 0, first);
        self.add(LEAF_XSTATE, 1, second);
        let states = u64::from(first[0] | second[2]) | u64::from(first[3] | second[3]) << 32;
        for subleaf in (2..MAX_XSTATES).filter(|n| states >> n & 1 != 0) {
            self.add(LEAF_XSTATE, subleaf, ask(LEAF_XSTATE, subleaf));
        }
    }

    /// The answers in order.
    #[must_use]
    pub fn leaves(&self) -> &[CpuidLeaf] {
        &self.leaves
    }

    /// Puts an answer into the list, in the place of an earlier one.
    ///
    /// # Errors
    /// The leaf, where lists do not have it.
    pub fn set(&mut self, new: &CpuidLeaf) -> Result<(), UnknownLeaf> {
        if !is_known(new.leaf, new.subleaf) {
            return Err(UnknownLeaf { leaf: new.leaf, subleaf: new.subleaf });
        }
        let place = self.leaves.binary_search_by_key(&(new.leaf, new.subleaf), |l| (l.leaf, l.subleaf));
        match place {
            Ok(index) => {
                if let Some(old) = self.leaves.get_mut(index) {
                    *old = *new;
                }
            }
            Err(index) => self.leaves.insert(index, *new),
        }
        Ok(())
    }

    /// The first limit (highest basic leaf, subleaf of leaf 7, extended leaf) that is above `max`'s.
    #[must_use]
    pub fn exceeds(&self, max: &Self) -> Option<UnknownLeaf> {
        let above = |leaf, subleaf| match (self.get(leaf, subleaf), max.get(leaf, subleaf)) {
            (Some(mine), Some(theirs)) => mine[0] > theirs[0],
            (Some(mine), None) => mine[0] != 0,
            (None, _) => false,
        };
        let limits = [(0, XEN_CPUID_NO_SUBLEAF), (LEAF_FEATURES, 0), (EXTENDED, XEN_CPUID_NO_SUBLEAF)];
        limits.into_iter().find(|&(leaf, subleaf)| above(leaf, subleaf)).map(|(leaf, subleaf)| UnknownLeaf { leaf, subleaf })
    }

    fn get(&self, leaf: u32, subleaf: u32) -> Option<Leaf> {
        let index = self.leaves.binary_search_by_key(&(leaf, subleaf), |l| (l.leaf, l.subleaf)).ok()?;
        self.leaves.get(index).map(|l| [l.a, l.b, l.c, l.d])
    }

    fn plain(&self, leaf: u32) -> Leaf {
        self.get(leaf, XEN_CPUID_NO_SUBLEAF).unwrap_or_default()
    }

    /// Cuts what a guest would see in a leaf down to what this list has.
    #[must_use]
    pub fn apply(&self, leaf: u32, subleaf: u32, answer: Leaf) -> Leaf {
        let [a, b, c, d] = answer;
        if leaf <= MAX_BASIC {
            let has_xsave = self.plain(1)[2] & XSAVE != 0;
            return match leaf {
                _ if leaf > self.plain(0)[0] => [0; 4],
                0 => [a.min(self.plain(0)[0]), b, c, d],
                1 => {
                    let mine = self.plain(1);
                    [mine[0], b, c & (mine[2] | DYNAMIC_1C), d & mine[3]]
                }
                LEAF_CACHES => self.get(leaf, subleaf).unwrap_or_default(),
                LEAF_FEATURES => {
                    let mine = self.get(leaf, subleaf).unwrap_or_default();
                    let first = if subleaf == 0 { a.min(mine[0]) } else { a & mine[0] };
                    [first, b & mine[1], c & mine[2], d & mine[3]]
                }
                LEAF_XSTATE if !has_xsave => [0; 4],
                LEAF_XSTATE if subleaf == 1 => [a & self.get(leaf, 1).unwrap_or_default()[0], b, c, d],
                _ => answer,
            };
        }
        if !(EXTENDED..=MAX_EXTENDED).contains(&leaf) {
            return answer;
        }
        let mine = self.plain(leaf);
        match leaf - EXTENDED {
            _ if leaf > self.plain(EXTENDED)[0] => [0; 4],
            0 => [a.min(mine[0]), b, c, d],
            1 => [mine[0], b, c & mine[2], d & mine[3]],
            2..=4 => mine,
            7 => [a, b, c, d & mine[3]],
            8 => [mine[0], b & mine[1], c, d],
            0x21 => [a & mine[0], b & mine[1], c & mine[2], d & mine[3]],
            _ => answer,
        }
    }
}

fn is_known(leaf: u32, subleaf: u32) -> bool {
    match leaf {
        LEAF_CACHES => subleaf < MAX_CACHES,
        LEAF_FEATURES => subleaf < MAX_FEATURE_SUBLEAVES,
        LEAF_TOPOLOGY => subleaf < MAX_TOPOLOGY,
        LEAF_XSTATE => subleaf < MAX_XSTATES,
        0..=MAX_BASIC | HYPERVISOR | HYPERVISOR_2 | EXTENDED..=MAX_EXTENDED => subleaf == XEN_CPUID_NO_SUBLEAF,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything(leaf: u32, subleaf: u32) -> Leaf {
        match (leaf, subleaf) {
            (0, _) => [0x20, 0, 0, 0],
            (LEAF_FEATURES, 0) => [9, u32::MAX, u32::MAX, u32::MAX],
            (EXTENDED, _) => [0x8000_0040, 0, 0, 0],
            _ => [u32::MAX; 4],
        }
    }

    fn leaf(leaf: u32, subleaf: u32, [a, b, c, d]: Leaf) -> CpuidLeaf {
        CpuidLeaf { leaf, subleaf, a, b, c, d }
    }

    #[test]
    fn the_longest_list_has_the_tools_size_and_order() {
        let policy = CpuidPolicy::collect(everything);
        assert_eq!(policy.leaves().len(), MAX_LEAVES);
        assert!(policy.leaves().is_sorted_by_key(|l| (l.leaf, l.subleaf)));
        assert!(policy.leaves().iter().all(|l| is_known(l.leaf, l.subleaf)));
    }

    #[test]
    fn takes_known_leaves_only() {
        let mut policy = CpuidPolicy::collect(everything);
        for (number, subleaf) in [(4, 6), (7, 3), (1, 0), (0xe, XEN_CPUID_NO_SUBLEAF), (0x4000_0001, XEN_CPUID_NO_SUBLEAF), (0x8000_0022, XEN_CPUID_NO_SUBLEAF)] {
            assert_eq!(policy.set(&leaf(number, subleaf, [0; 4])), Err(UnknownLeaf { leaf: number, subleaf }));
        }
        assert_eq!(policy.set(&leaf(1, XEN_CPUID_NO_SUBLEAF, [1, 2, 3, 4])), Ok(()));
        assert_eq!(policy.plain(1), [1, 2, 3, 4]);
        assert_eq!(policy.leaves().len(), MAX_LEAVES);
    }

    #[test]
    fn cuts_down_and_never_adds() {
        let mut policy = CpuidPolicy::collect(everything);
        policy.set(&leaf(1, XEN_CPUID_NO_SUBLEAF, [0x123, 0, 1, 2])).unwrap();
        assert_eq!(policy.apply(1, 0, [7, 8, 0xf800_0003, 3]), [0x123, 8, 1 | 0x8800_0000, 2]);
        assert_eq!(policy.apply(0xd, 0, [7, 7, 7, 7]), [0; 4], "without XSAVE");
        policy.set(&leaf(0, XEN_CPUID_NO_SUBLEAF, [5, 0, 0, 0])).unwrap();
        assert_eq!(policy.apply(7, 0, [1; 4]), [0; 4]);
        assert_eq!(policy.apply(0, 0, [0xd, 1, 2, 3]), [5, 1, 2, 3]);
        assert_eq!(policy.apply(0x4000_0000, 0, [1, 2, 3, 4]), [1, 2, 3, 4]);
    }

    #[test]
    fn limits_are_compared() {
        let max = CpuidPolicy::collect(everything);
        let mut policy = max.clone();
        assert_eq!(policy.exceeds(&max), None);
        policy.set(&leaf(7, 0, [10, 0, 0, 0])).unwrap();
        assert_eq!(policy.exceeds(&max), Some(UnknownLeaf { leaf: 7, subleaf: 0 }));
    }
}
