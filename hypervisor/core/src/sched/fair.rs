//! Dividing processor time: by weight, as far as each vCPU wants some and may run where it is.
//!
//! Every vCPU gets in proportion to its weight, but no more than it wants; what it leaves goes to the others (the level at which everybody's part
//! stands, time per weight, rises until the time is used up). Where vCPUs are tied to some of the processors, those that share a
//! set of processors with too little time stop rising together, at that set's level, and the rest goes on.

use alloc::vec::Vec;
use oxen_types::CpuSet;

/// One vCPU's claim.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Its weight, above 0.
    pub weight: u64,
    /// What it wants at most, in nanoseconds.
    pub wanted_ns: u64,
    /// Index of the set of processors on which it may run.
    pub set: usize,
}

/// What a claim came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Nanoseconds.
    pub given_ns: u64,
    /// The set of processors whose time ran out before it had what it wanted.
    pub short_in: Option<usize>,
}

/// A set of processors.
#[derive(Debug)]
pub struct Set {
    /// Its members.
    pub cpus: CpuSet,
    /// The time that they have, in nanoseconds.
    pub capacity_ns: u64,
}

/// Time per weight, as a fraction.
#[derive(Clone, Copy)]
struct Level {
    time: u128,
    weight: u128,
}

impl Level {
    fn is_below(self, other: Self) -> bool {
        self.time.saturating_mul(other.weight) < other.time.saturating_mul(self.weight)
    }

    fn part(self, claim: &Claim) -> u64 {
        let part = self.time.saturating_mul(claim.weight.into()) / self.weight.max(1);
        u64::try_from(part).unwrap_or(u64::MAX).min(claim.wanted_ns)
    }
}

/// Divides the time of `sets` among `claims`; the answer has one part for each claim, in their order.
#[must_use]
pub fn divide(claims: &[Claim], sets: &[Set]) -> Vec<Part> {
    let mut parts: Vec<Option<Part>> = claims.iter().map(|_| None).collect();
    let mut order: Vec<usize> = (0..claims.len()).collect();
    // Those that have soonest what they want come first: by the level at which they do.
    order.sort_by(|&a, &b| match (claims.get(a), claims.get(b)) {
        (Some(a), Some(b)) => {
            (u128::from(a.wanted_ns) * u128::from(b.weight)).cmp(&(u128::from(b.wanted_ns) * u128::from(a.weight)))
        }
        _ => core::cmp::Ordering::Equal,
    });
    loop {
        let mut tightest: Option<(usize, Level)> = None;
        for (index, set) in sets.iter().enumerate() {
            if let Some(level) = level_of(set, sets, claims, &order, &parts)
                && tightest.is_none_or(|(_, least)| level.is_below(least))
            {
                tightest = Some((index, level));
            }
        }
        let Some((index, level)) = tightest else { break };
        let Some(set) = sets.get(index) else { break };
        for (claim, part) in claims.iter().zip(&mut parts) {
            if part.is_none() && is_within(claim, set, sets) {
                let given_ns = level.part(claim);
                *part = Some(Part { given_ns, short_in: (given_ns < claim.wanted_ns).then_some(index) });
            }
        }
    }
    let in_full = |claim: &Claim| Part { given_ns: claim.wanted_ns, short_in: None };
    claims.iter().zip(parts).map(|(claim, part)| part.unwrap_or_else(|| in_full(claim))).collect()
}

fn is_within(claim: &Claim, set: &Set, sets: &[Set]) -> bool {
    sets.get(claim.set).is_some_and(|own| own.cpus.iter().all(|cpu| set.cpus.contains(cpu)))
}

/// The level at which a set's time runs out; `None` where it has enough for all that must run within it, or nobody is left there.
fn level_of(set: &Set, sets: &[Set], claims: &[Claim], order: &[usize], parts: &[Option<Part>]) -> Option<Level> {
    let mut time = u128::from(set.capacity_ns);
    let mut weight = 0_u128;
    let mut wanted = 0_u128;
    let within: Vec<bool> = claims.iter().map(|claim| is_within(claim, set, sets)).collect();
    for ((claim, part), _) in claims.iter().zip(parts).zip(&within).filter(|(_, within)| **within) {
        match part {
            Some(part) => time = time.saturating_sub(part.given_ns.into()),
            None => {
                weight += u128::from(claim.weight);
                wanted += u128::from(claim.wanted_ns);
            }
        }
    }
    if weight == 0 || wanted <= time {
        return None;
    }
    for &index in order {
        let (Some(claim), Some(None), Some(true)) = (claims.get(index), parts.get(index), within.get(index)) else { continue };
        if u128::from(claim.wanted_ns) * weight > time * u128::from(claim.weight) {
            break;
        }
        time = time.saturating_sub(claim.wanted_ns.into());
        weight -= u128::from(claim.weight);
    }
    Some(Level { time, weight })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use oxen_testkit::Rng;
    use oxen_types::CpuId;


    fn set(cpus: &[u32], capacity_ns: u64) -> Set {
        let members = CpuSet::new();
        cpus.iter().for_each(|&n| {
            members.insert(CpuId(n));
        });
        Set { cpus: members, capacity_ns }
    }

    fn claim(weight: u64, wanted_ns: u64, set: usize) -> Claim {
        Claim { weight, wanted_ns, set }
    }

    fn given(parts: &[Part]) -> Vec<u64> {
        parts.iter().map(|part| part.given_ns).collect()
    }

    #[test]
    fn by_weight_and_no_more_than_wanted() {
        let sets = [set(&[0, 1], 200)];
        let parts = divide(&[claim(1, 100, 0), claim(2, 100, 0), claim(1, 100, 0)], &sets);
        assert_eq!(given(&parts), [50, 100, 50]);
        assert_eq!(parts.iter().map(|p| p.short_in).collect::<Vec<_>>(), [Some(0), None, Some(0)]);
        let parts = divide(&[claim(1, 10, 0), claim(3, 100, 0), claim(3, 100, 0)], &sets);
        assert_eq!(given(&parts), [10, 95, 95]);
        assert_eq!(given(&divide(&[claim(1, 60, 0), claim(1, 70, 0)], &sets)), [60, 70]);
        assert!(divide(&[], &sets).is_empty());
    }

    #[test]
    fn those_tied_to_one_processor_share_it() {
        let sets = [set(&[0, 1], 200), set(&[1], 100)];
        let parts = divide(&[claim(2, 100, 1), claim(1, 100, 1), claim(1, 10, 0)], &sets);
        assert_eq!(parts[2], Part { given_ns: 10, short_in: None });
        assert_eq!(given(&parts), [66, 33, 10]);
        let parts = divide(&[claim(1, 100, 1), claim(1, 100, 1), claim(1, 100, 1), claim(1, 100, 0)], &sets);
        assert_eq!(given(&parts), [33, 33, 33, 100]);
    }

    /// No set gives more than it has; nobody gets more than he wants; where somebody is left short, the set's time is used up and nobody in it
    /// got more per weight.
    #[test]
    fn holds_for_random_claims() {
        let mut rng = Rng::new(1);
        for _ in 0..3000 {
            let nr_sets = 1 + rng.below(4) as usize;
            let sets: Vec<Set> = (0..nr_sets)
                .map(|i| {
                    let (first, last) = if i == 0 { (0, 4) } else { (rng.below(3) as u32, 3 + rng.below(2) as u32) };
                    let members: Vec<u32> = (first..last).collect();
                    set(&members, 1000 * u64::from(last - first))
                })
                .collect();
            let claims: Vec<Claim> =
                (0..rng.below(12)).map(|_| claim(1 + rng.below(65535), rng.below(1001), rng.below(nr_sets as u64) as usize)).collect();
            let parts = divide(&claims, &sets);
            for (claim, part) in claims.iter().zip(&parts) {
                assert!(part.given_ns <= claim.wanted_ns);
                assert_eq!(part.short_in.is_some(), part.given_ns < claim.wanted_ns);
                let Some(short_in) = part.short_in else { continue };
                let others: Vec<_> =
                    claims.iter().zip(&parts).filter(|(other, _)| is_within(other, &sets[short_in], &sets)).collect();
                let used: u64 = others.iter().map(|(_, p)| p.given_ns).sum();
                assert!(sets[short_in].capacity_ns - used <= claims.len() as u64, "{claims:?} {parts:?}");
                for (other, other_part) in others {
                    let mine = u128::from(part.given_ns + 1) * u128::from(other.weight);
                    assert!(u128::from(other_part.given_ns) * u128::from(claim.weight) <= mine + u128::from(other.weight), "{claims:?} {parts:?}");
                }
            }
            for one in &sets {
                let inside = claims.iter().zip(&parts).filter(|(c, _)| is_within(c, one, &sets));
                assert!(inside.map(|(_, p)| p.given_ns).sum::<u64>() <= one.capacity_ns);
            }
        }
    }
}
