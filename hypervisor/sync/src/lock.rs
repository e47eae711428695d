//! A spin lock whose level is part of its type.

use crate::atomic::{AtomicBool, Ordering, const_unless_loom};
use crate::relax;
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

/// A spin lock of level `LEVEL` (see [`crate::level`]).
#[derive(Debug, Default)]
pub struct SpinLock<T: ?Sized, const LEVEL: u8> {
    locked: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives out one reference at a time, so sharing it moves `T` between CPUs at most.
unsafe impl<T: ?Sized + Send, const LEVEL: u8> Sync for SpinLock<T, LEVEL> {}
// SAFETY: owning the lock is owning the value.
unsafe impl<T: ?Sized + Send, const LEVEL: u8> Send for SpinLock<T, LEVEL> {}

impl<T, const LEVEL: u8> SpinLock<T, LEVEL> {
    const_unless_loom! {
        /// An unlocked lock around `value`.
        pub fn new(value: T) -> Self {
            Self { locked: AtomicBool::new(false), value: UnsafeCell::new(value) }
        }
    }

    /// The value, taken out of the lock.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized, const LEVEL: u8> SpinLock<T, LEVEL> {
    /// Waits for the lock and takes it.
    #[inline]
    pub fn lock(&self) -> SpinGuard<'_, T, LEVEL> {
        while self.locked.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.wait();
        }
        SpinGuard { lock: self }
    }

    #[cold]
    fn wait(&self) {
        while self.locked.load(Ordering::Relaxed) {
            relax();
            if cfg!(loom) {
                // A load may see the same old value for ever there; the exchange that follows sees the newest.
                break;
            }
        }
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> Option<SpinGuard<'_, T, LEVEL>> {
        self.locked
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
            .then(|| SpinGuard { lock: self })
    }

    /// The value, with no locking needed as the borrow is exclusive.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

/// Access to the value of a [`SpinLock`]; gives the lock back when dropped.
#[must_use]
#[derive(Debug)]
pub struct SpinGuard<'a, T: ?Sized, const LEVEL: u8> {
    lock: &'a SpinLock<T, LEVEL>,
}

impl<T: ?Sized, const LEVEL: u8> Deref for SpinGuard<'_, T, LEVEL> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard exists only while the lock is held.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized, const LEVEL: u8> DerefMut for SpinGuard<'_, T, LEVEL> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard exists only while the lock is held, and is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized, const LEVEL: u8> Drop for SpinGuard<'_, T, LEVEL> {
    #[inline]
    fn drop(&mut self) {
        self.lock.locked.store(false, Ordering::Release);
    }
}

/// The two guards of [`lock_pair`]; the second is `None` where both keys name the same lock.
pub type PairGuards<'a, T, const LEVEL: u8> = (SpinGuard<'a, T, LEVEL>, Option<SpinGuard<'a, T, LEVEL>>);

/// Takes two locks of one level in the order of their keys (for two domains: their identifiers). Equal keys mean the same lock.
/// The guards come back in the order of the arguments.
pub fn lock_pair<'a, T: ?Sized, K: Ord, const LEVEL: u8>(
    a: (K, &'a SpinLock<T, LEVEL>),
    b: (K, &'a SpinLock<T, LEVEL>),
) -> PairGuards<'a, T, LEVEL> {
    match a.0.cmp(&b.0) {
        core::cmp::Ordering::Equal => (a.1.lock(), None),
        core::cmp::Ordering::Less => {
            let first = a.1.lock();
            let second = b.1.lock();
            (first, Some(second))
        }
        core::cmp::Ordering::Greater => {
            let second = b.1.lock();
            let first = a.1.lock();
            (first, Some(second))
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::sync::Arc;

    #[test]
    fn counts_from_many_threads() {
        let lock = Arc::new(SpinLock::<u64, 1>::new(0));
        let threads: std::vec::Vec<_> = (0..4)
            .map(|_| {
                let lock = lock.clone();
                std::thread::spawn(move || {
                    for _ in 0..1000 {
                        *lock.lock() += 1;
                    }
                })
            })
            .collect();
        for t in threads {
            t.join().unwrap();
        }
        assert_eq!(*lock.lock(), 4000);
    }

    #[test]
    fn a_failed_attempt_leaves_the_lock_held() {
        let lock = SpinLock::<u64, 1>::new(0);
        let held = lock.lock();
        assert!(lock.try_lock().is_none());
        assert!(lock.try_lock().is_none(), "the first attempt has given the lock of somebody else back");
        drop(held);
        assert!(lock.try_lock().is_some());
    }

    #[test]
    fn same_key_locks_once() {
        let lock = SpinLock::<u64, 1>::new(0);
        let (a, b) = lock_pair((1, &lock), (1, &lock));
        assert!(b.is_none() && lock.try_lock().is_none());
        drop(a);
        assert!(lock.try_lock().is_some());
    }
}
