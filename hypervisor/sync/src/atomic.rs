//! The atomics that the locks are made of: the processor's own, or, to try every interleaving, those of loom.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Defines a function that is `const`, except under loom, whose atomics cannot be made at compile time.
macro_rules! const_unless_loom {
    ($(#[$meta:meta])* pub fn $name:ident($($arg:ident: $ty:ty),*) -> $result:ty $body:block) => {
        $(#[$meta])*
        #[cfg(not(loom))]
        pub const fn $name($($arg: $ty),*) -> $result $body

        $(#[$meta])*
        #[cfg(loom)]
        pub fn $name($($arg: $ty),*) -> $result $body
    };
}
pub(crate) use const_unless_loom;
