//! The locks under loom, which tries every interleaving of a few threads and every value that a load may see. What the locks guard is a cell of loom's, which
//! reports two uses that nothing puts in order. To run: `RUSTFLAGS="--cfg loom" cargo test --release -p oxen-sync --test loom`.
#![cfg(loom)]
#![allow(missing_docs)]

use loom::cell::UnsafeCell;
use loom::thread;
use oxen_sync::{Exclusive, OnceCell, SpinLock, lock_pair};
use std::sync::Arc;

/// A number whose uses loom watches.
struct Watched(UnsafeCell<u32>);

// SAFETY: the locks under test let one thread at it at a time, which is what loom checks.
unsafe impl Send for Watched {}
// SAFETY: as above.
unsafe impl Sync for Watched {}

impl Watched {
    fn new(value: u32) -> Self {
        Self(UnsafeCell::new(value))
    }

    fn add(&self, n: u32) {
        // SAFETY: loom fails the test where another thread uses the cell meanwhile.
        self.0.with_mut(|value| unsafe { *value += n });
    }

    fn get(&self) -> u32 {
        // SAFETY: as in `add`.
        self.0.with(|value| unsafe { *value })
    }
}

#[test]
fn a_spin_lock_has_one_holder() {
    loom::model(|| {
        let lock = Arc::new(SpinLock::<Watched, 1>::new(Watched::new(0)));
        let theirs = lock.clone();
        let thread = thread::spawn(move || theirs.lock().add(1));
        if let Some(held) = lock.try_lock() {
            held.add(1);
        } else {
            lock.lock().add(1);
        }
        thread.join().unwrap();
        assert_eq!(lock.lock().get(), 2);
    });
}

#[test]
fn pairs_of_locks_do_not_wait_for_each_other() {
    loom::model(|| {
        let locks: Arc<[SpinLock<Watched, 1>; 2]> = Arc::new([0, 1].map(|_| SpinLock::new(Watched::new(0))));
        let both = |locks: &[SpinLock<Watched, 1>; 2], one: usize, other: usize| {
            let (a, b) = lock_pair((one, &locks[one]), (other, &locks[other]));
            a.add(1);
            b.unwrap().add(1);
        };
        let theirs = locks.clone();
        let thread = thread::spawn(move || both(&theirs, 0, 1));
        both(&locks, 1, 0);
        thread.join().unwrap();
        assert_eq!((locks[0].lock().get(), locks[1].lock().get()), (2, 2));
    });
}

#[test]
fn an_exclusive_cell_moves_between_threads() {
    loom::model(|| {
        let cell = Arc::new(Exclusive::new(Watched::new(0)));
        let theirs = cell.clone();
        let thread = thread::spawn(move || theirs.take().add(1));
        if let Some(guard) = cell.try_take() {
            guard.add(1);
        } else {
            cell.take().add(1);
        }
        thread.join().unwrap();
        assert!(!cell.is_taken());
        assert_eq!(cell.take().get(), 2);
    });
}

#[test]
fn a_once_cell_shows_whole_values() {
    loom::model(|| {
        let cell = Arc::new(OnceCell::new());
        let writers: Vec<_> = (1..3)
            .map(|n| {
                let cell = cell.clone();
                thread::spawn(move || cell.set(Watched::new(n)).is_ok())
            })
            .collect();
        if let Some(value) = cell.get() {
            assert!([1, 2].contains(&value.get()));
        }
        let won: Vec<bool> = writers.into_iter().map(|t| t.join().unwrap()).collect();
        assert_eq!(won.iter().filter(|&&won| won).count(), 1);
        assert_eq!(cell.get().map(Watched::get), Some(if won[0] { 1 } else { 2 }));
    });
}
