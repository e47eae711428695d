//! A cell that is written once, at start-up, and read for ever after.

use crate::atomic::{AtomicU8, Ordering, const_unless_loom};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;

const EMPTY: u8 = 0;
const WRITING: u8 = 1;
const FULL: u8 = 2;

/// A value that is set once. Reading it is one load.
#[derive(Debug)]
pub struct OnceCell<T> {
    state: AtomicU8,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: after `FULL` is published the value is only read; before, only the CPU that won `WRITING` touches it.
unsafe impl<T: Send + Sync> Sync for OnceCell<T> {}

impl<T> OnceCell<T> {
    const_unless_loom! {
        /// An empty cell.
        pub fn new() -> Self {
            Self { state: AtomicU8::new(EMPTY), value: UnsafeCell::new(MaybeUninit::uninit()) }
        }
    }

    /// Stores `value`; gives it back where the cell already has one.
    pub fn set(&self, value: T) -> Result<(), T> {
        if self.state.compare_exchange(EMPTY, WRITING, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return Err(value);
        }
        // SAFETY: the state is `WRITING`, which only one caller ever reaches, and readers wait for `FULL`.
        unsafe { (*self.value.get()).write(value) };
        self.state.store(FULL, Ordering::Release);
        Ok(())
    }

    /// The value, where it has been set.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        if self.state.load(Ordering::Acquire) != FULL {
            return None;
        }
        // SAFETY: `FULL` is published after the value was written, and the value is never written again.
        Some(unsafe { (*self.value.get()).assume_init_ref() })
    }

    /// The value, without looking whether it is there.
    ///
    /// # Safety
    /// The value has been set, and that happened before the call.
    #[inline(always)]
    pub unsafe fn get_unchecked(&self) -> &T {
        debug_assert_eq!(self.state.load(Ordering::Relaxed), FULL);
        // SAFETY: the caller's promise; the value is never written again.
        unsafe { (*self.value.get()).assume_init_ref() }
    }
}

impl<T> Default for OnceCell<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for OnceCell<T> {
    fn drop(&mut self) {
        if self.state.load(Ordering::Acquire) == FULL {
            // SAFETY: the value was written, and nobody can read it any more.
            unsafe { self.value.get_mut().assume_init_drop() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_set_once() {
        let cell = OnceCell::new();
        assert_eq!(cell.get(), None);
        assert_eq!(cell.set(3), Ok(()));
        assert_eq!(cell.set(4), Err(4));
        assert_eq!(cell.get(), Some(&3));
        // SAFETY: set above.
        assert_eq!(unsafe { cell.get_unchecked() }, &3);
    }
}
