//! Credits: what a vCPU has left of its share, and what a domain may have.
//!
//! Credits are nanoseconds of processor time. Running costs them one for one; at each accounting ([`super::fair`]) what the processors gave is handed
//! out by weight. A vCPU with credit left is UNDER its share, one without is OVER it.

use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Weight of a new domain.
pub const DEFAULT_WEIGHT: u16 = 256;
/// Percent in one processor.
const PERCENT: u64 = 100;
/// Slices whose part of the cap adds up while a capped domain does not use it.
const SAVED_SLICES: u64 = 4;

/// How urgently a vCPU is to run. A processor with none of these is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// It has had more than its share.
    Over,
    /// It has had less than its share.
    Under,
    /// It has had less than its share and woke up just now.
    Boost,
}

/// What decides between two vCPUs: the greater one runs first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// It woke up just now.
    pub boosted: bool,
    /// Its credits in nanoseconds.
    pub balance_ns: i64,
}

impl Rank {
    /// The rank of nothing.
    pub const LOWEST: Self = Self { boosted: false, balance_ns: i64::MIN };
    const BOOSTED: i64 = i64::MAX;

    /// The class that it belongs to.
    #[must_use]
    pub fn priority(self) -> Priority {
        match self {
            Self { boosted: true, .. } => Priority::Boost,
            Self { balance_ns: 0.., .. } => Priority::Under,
            _ => Priority::Over,
        }
    }

    /// True where a vCPU of this rank takes the place of a running one: it is of a better class, or ahead by more than `margin_ns`.
    #[must_use]
    pub fn displaces(self, running: Self, margin_ns: u64) -> bool {
        match self.priority().cmp(&running.priority()) {
            core::cmp::Ordering::Greater => true,
            core::cmp::Ordering::Equal => self.balance_ns.saturating_sub(running.balance_ns) > i64::try_from(margin_ns).unwrap_or(i64::MAX),
            core::cmp::Ordering::Less => false,
        }
    }

    /// As one word, in the same order as far as it matters.
    pub(super) fn to_word(self) -> i64 {
        if self.boosted { Self::BOOSTED } else { self.balance_ns }
    }

    pub(super) fn from_word(word: i64) -> Self {
        Self { boosted: word == Self::BOOSTED, balance_ns: word }
    }
}

/// A vCPU's account.
#[derive(Debug, Default)]
pub struct Credit {
    /// Credits in nanoseconds.
    pub balance_ns: i64,
    /// It woke up while it had credits, and has not run for a tick since.
    pub boosted: bool,
    /// It gave its processor up although it could run on.
    pub yielded: bool,
    /// It takes part in the accounting.
    pub listed: bool,
    /// When it ran last.
    pub last_ran_ns: u64,
    /// Time on a processor that has been paid for.
    paid_ns: u64,
    /// Time on or for a processor (running and runnable) that has been looked at.
    seen_demand_ns: u64,
}

impl Credit {
    /// Its rank among the waiting.
    #[must_use]
    pub fn rank(&self) -> Rank {
        Rank { boosted: self.boosted, balance_ns: self.balance_ns }
    }

    /// Pays for what it ran, given the whole time that it ever did; returns what was new.
    pub fn settle(&mut self, ran_ns: u64) -> u64 {
        let new = ran_ns.saturating_sub(self.paid_ns);
        self.paid_ns = self.paid_ns.max(ran_ns);
        self.balance_ns = self.balance_ns.saturating_sub_unsigned(new);
        new
    }

    /// How long it wanted a processor since the last call, given the whole time that it ever did.
    pub fn take_demand(&mut self, wanted_ns: u64) -> u64 {
        let new = wanted_ns.saturating_sub(self.seen_demand_ns);
        self.seen_demand_ns = self.seen_demand_ns.max(wanted_ns);
        new
    }

    /// Adds to its credits, within `limit_ns` on both sides.
    pub fn add(&mut self, ns: i64, limit_ns: u64) {
        let limit = i64::try_from(limit_ns).unwrap_or(i64::MAX);
        self.balance_ns = self.balance_ns.saturating_add(ns).clamp(-limit, limit);
    }
}

/// A domain's part of the processors.
#[derive(Debug)]
pub struct Share {
    weight: AtomicU32,
    /// Percent of one processor; 0 for no cap.
    cap: AtomicU32,
    /// What a capped domain may still run, in nanoseconds; below zero it ran too much.
    budget_ns: AtomicI64,
    refilled_ns: AtomicU64,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            weight: AtomicU32::new(DEFAULT_WEIGHT.into()),
            cap: AtomicU32::new(0),
            budget_ns: AtomicI64::new(0),
            refilled_ns: AtomicU64::new(0),
        }
    }
}

impl Share {
    /// Its weight: under contention, processor time is divided in proportion to it.
    #[must_use]
    pub fn weight(&self) -> u16 {
        u16::try_from(self.weight.load(Relaxed)).unwrap_or(u16::MAX)
    }

    /// Sets the weight; 0 counts as 1.
    pub fn set_weight(&self, weight: u16) {
        self.weight.store(weight.max(1).into(), Relaxed);
    }

    /// Its cap in percent of one processor; 0 for none.
    #[must_use]
    pub fn cap(&self) -> u16 {
        u16::try_from(self.cap.load(Relaxed)).unwrap_or(u16::MAX)
    }

    /// Sets the cap; it holds from `now_ns` on.
    pub fn set_cap(&self, cap: u16, now_ns: u64) {
        self.refilled_ns.store(now_ns, Relaxed);
        self.budget_ns.store(1, Relaxed);
        self.cap.store(cap.into(), Relaxed);
    }

    /// What it may run before its cap stops it; `None` without a cap.
    #[must_use]
    pub fn budget(&self) -> Option<i64> {
        (self.cap() != 0).then(|| self.budget_ns.load(Relaxed))
    }

    /// True where its cap keeps it from running.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.budget().is_some_and(|left| left <= 0)
    }

    /// Counts time that one of its vCPUs ran.
    pub fn charge(&self, ns: u64) {
        if self.cap() != 0 {
            self.budget_ns.fetch_sub(i64::try_from(ns).unwrap_or(i64::MAX), Relaxed);
        }
    }

    /// Gives what the cap allows for the time since the last call. What is not used adds up for a few
    /// slices. Returns what a slice gives.
    pub fn refill(&self, now_ns: u64, slice_ns: u64) -> Option<u64> {
        let cap = u64::from(self.cap());
        if cap == 0 {
            return None;
        }
        let elapsed = now_ns.saturating_sub(self.refilled_ns.swap(now_ns, Relaxed));
        let allowed = |ns: u64| ns.saturating_mul(cap) / PERCENT;
        let most = i64::try_from(allowed(slice_ns.saturating_mul(SAVED_SLICES))).unwrap_or(i64::MAX);
        let refilled = |left: i64| Some(left.saturating_add_unsigned(allowed(elapsed)).min(most));
        // The closure never refuses.
        let _ = self.budget_ns.fetch_update(Relaxed, Relaxed, refilled);
        Some(allowed(slice_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_is_paid_once() {
        let mut credit = Credit::default();
        assert_eq!(credit.rank().priority(), Priority::Under);
        assert_eq!((credit.settle(50), credit.settle(50), credit.settle(40), credit.settle(70)), (50, 0, 0, 20));
        assert_eq!((credit.balance_ns, credit.rank().priority()), (-70, Priority::Over));
        credit.add(1000, 100);
        assert_eq!(credit.balance_ns, 100);
    }

    #[test]
    fn classes_come_before_credits() {
        let rank = |boosted, balance_ns| Rank { boosted, balance_ns };
        assert!(rank(true, 0).displaces(rank(false, 1000), 50));
        assert!(rank(false, 0).displaces(rank(false, -1), 50));
        assert!(rank(false, 200).displaces(rank(false, 100), 50) && !rank(false, 120).displaces(rank(false, 100), 50));
        assert!(!rank(false, 200).displaces(rank(true, -5), 50));
    }

    #[test]
    fn a_cap_is_a_rate() {
        let share = Share::default();
        share.charge(1000);
        assert_eq!((share.budget(), share.is_exhausted(), share.refill(1, 30)), (None, false, None));
        share.set_cap(20, 1000);
        assert!(!share.is_exhausted());
        share.charge(11);
        assert!(share.is_exhausted());
        assert_eq!(share.refill(1030, 30), Some(6));
        assert_eq!(share.budget(), Some(-4));
        share.refill(1060, 30);
        assert_eq!(share.budget(), Some(2));
        share.refill(9000, 30);
        assert_eq!(share.budget(), Some(24));
    }
}
