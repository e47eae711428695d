//! A value that has one user at a time, for as long as the user likes.

use crate::atomic::{AtomicBool, Ordering, const_unless_loom};
use crate::relax;
use alloc::sync::Arc;
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

/// Holds a value that is taken out for long stretches: the private state of a vCPU belongs to the processor that runs it, from
/// the switch that puts it there to the switch that takes it off. The guard owns a reference count, so it can be stored.
#[derive(Debug, Default)]
pub struct Exclusive<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: at most one guard exists at a time, so sharing the cell moves `T` between CPUs at most.
unsafe impl<T: Send> Sync for Exclusive<T> {}

impl<T> Exclusive<T> {
    const_unless_loom! {
        /// A cell that nobody has taken.
        pub fn new(value: T) -> Self {
            Self { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
        }
    }

    /// Takes the value if nobody has it.
    #[inline]
    pub fn try_take(self: &Arc<Self>) -> Option<ExclusiveGuard<T>> {
        self.taken
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
            .then(|| ExclusiveGuard { cell: self.clone() })
    }

    /// Waits until nobody has the value, then takes it. Only for values whose user is known to give them back soon.
    pub fn take(self: &Arc<Self>) -> ExclusiveGuard<T> {
        loop {
            if let Some(guard) = self.try_take() {
                return guard;
            }
            relax();
        }
    }

    /// True while somebody has the value.
    pub fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }
}

/// The right to use the value of an [`Exclusive`]; given back when dropped.
#[derive(Debug)]
pub struct ExclusiveGuard<T> {
    cell: Arc<Exclusive<T>>,
}

impl<T> Deref for ExclusiveGuard<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one.
        unsafe { &*self.cell.value.get() }
    }
}

impl<T> DerefMut for ExclusiveGuard<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard is the only one, and is borrowed exclusively.
        unsafe { &mut *self.cell.value.get() }
    }
}

impl<T> Drop for ExclusiveGuard<T> {
    #[inline]
    fn drop(&mut self) {
        self.cell.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_at_a_time() {
        let cell = Arc::new(Exclusive::new(5));
        let mut guard = cell.try_take().unwrap();
        *guard += 1;
        assert!(cell.try_take().is_none() && cell.is_taken());
        drop(guard);
        assert_eq!(*cell.take(), 6);
    }
}
