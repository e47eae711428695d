//! A processor's run queue: the vCPUs that wait for it, best first, and those that their domain's cap keeps from running.

use super::credit::Rank;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// A run queue of `T`.
#[derive(Debug)]
pub struct RunQueue<T> {
    /// Best first; of equals, who came first.
    ready: VecDeque<(Rank, T)>,
    parked: Vec<T>,
}

impl<T> Default for RunQueue<T> {
    fn default() -> Self {
        Self { ready: VecDeque::new(), parked: Vec::new() }
    }
}

impl<T> RunQueue<T> {
    /// Puts an element where its rank belongs; with `behind_one`, behind one other at least.
    pub fn insert(&mut self, rank: Rank, item: T, behind_one: bool) {
        let place = self.ready.partition_point(|(other, _)| *other >= rank);
        let first = usize::from(behind_one).min(self.ready.len());
        self.ready.insert(place.max(first), (rank, item));
    }

    /// Puts an element aside.
    pub fn park(&mut self, item: T) {
        self.parked.push(item);
    }

    /// Takes out the best element that `may` accepts.
    pub fn take_first(&mut self, mut may: impl FnMut(Rank, &T) -> bool) -> Option<T> {
        let index = self.ready.iter().position(|(rank, item)| may(*rank, item))?;
        self.ready.remove(index).map(|(_, item)| item)
    }

    /// Takes an element out wherever it is; says whether it was there.
    pub fn remove(&mut self, mut is_it: impl FnMut(&T) -> bool) -> bool {
        let before = self.ready.len() + self.parked.len();
        self.ready.retain(|(_, item)| !is_it(item));
        self.parked.retain(|item| !is_it(item));
        self.ready.len() + self.parked.len() != before
    }

    /// Gives all waiting elements the ranks that `rank` tells, and lets those parked ones wait that `is_free` accepts; says whether there were any.
    pub fn refresh(&mut self, mut rank: impl FnMut(&T) -> Rank, mut is_free: impl FnMut(&T) -> bool) -> bool {
        let (free, parked) = core::mem::take(&mut self.parked).into_iter().partition::<Vec<T>, _>(|item| is_free(item));
        self.parked = parked;
        let any = !free.is_empty();
        self.ready.extend(free.into_iter().map(|item| (Rank::LOWEST, item)));
        for (old, item) in &mut self.ready {
            *old = rank(item);
        }
        self.ready.make_contiguous().sort_by(|(a, _), (b, _)| b.cmp(a));
        any
    }

    /// The best rank.
    #[must_use]
    pub fn best(&self) -> Option<Rank> {
        self.ready.front().map(|(rank, _)| *rank)
    }

    /// The waiting elements, best first.
    pub fn ready(&self) -> impl Iterator<Item = (Rank, &T)> {
        self.ready.iter().map(|(rank, item)| (*rank, item))
    }

    /// The parked elements.
    pub fn parked(&self) -> impl Iterator<Item = &T> {
        self.parked.iter()
    }

    /// Number of waiting elements.
    #[must_use]
    pub fn nr_ready(&self) -> usize {
        self.ready.len()
    }

    /// Number of parked elements.
    #[must_use]
    pub fn nr_parked(&self) -> usize {
        self.parked.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(balance_ns: i64) -> Rank {
        Rank { boosted: false, balance_ns }
    }

    #[test]
    fn best_first_and_equals_in_turn() {
        let mut queue = RunQueue::default();
        queue.insert(plain(5), 'a', false);
        queue.insert(plain(5), 'b', false);
        queue.insert(plain(9), 'c', true);
        queue.insert(Rank { boosted: true, balance_ns: 0 }, 'd', false);
        queue.park('e');
        assert_eq!(queue.ready().map(|(_, c)| *c).collect::<Vec<_>>(), ['d', 'a', 'c', 'b']);
        assert_eq!((queue.nr_ready(), queue.nr_parked(), queue.best()), (4, 1, Some(Rank { boosted: true, balance_ns: 0 })));
        assert_eq!(queue.take_first(|_, c| *c != 'd'), Some('a'));
        assert!(queue.remove(|c| *c == 'e') && !queue.remove(|c| *c == 'e'));
    }

    #[test]
    fn new_ranks_and_parked_ones() {
        let mut queue = RunQueue::default();
        queue.insert(plain(3), 1, false);
        queue.insert(plain(2), 2, false);
        queue.park(7);
        queue.park(8);
        assert!(queue.refresh(|n| plain(*n), |n| *n == 7));
        assert_eq!(queue.ready().map(|(_, n)| *n).collect::<Vec<_>>(), [7, 2, 1]);
        assert_eq!(queue.parked().copied().collect::<Vec<_>>(), [8]);
        assert!(!queue.refresh(|n| plain(*n), |_| false));
    }
}
