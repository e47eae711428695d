//! Frame numbers: machine, guest and pseudo-physical.

use crate::{Maddr, PAGE_SHIFT};
use core::fmt;

macro_rules! frame_number {
    ($(#[$doc:meta])* $name:ident, $tag:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The frame `n` places further; wraps, which no valid frame number can reach.
            #[inline]
            #[must_use]
            pub const fn offset(self, n: u64) -> Self {
                Self(self.0.wrapping_add(n))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($tag, " {:#x}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($tag, " {:#x}"), self.0)
            }
        }
    };
}

frame_number!(
    /// A machine frame number: the number of a 4 KiB frame of the machine's own physical address space.
    Mfn,
    "mfn"
);
frame_number!(
    /// A guest frame number: what the guest names in hypercalls. For PV guests it is an [`Mfn`], for translated guests a [`Pfn`].
    Gfn,
    "gfn"
);
frame_number!(
    /// A pseudo-physical frame number: the guest's own contiguous numbering of its memory.
    Pfn,
    "pfn"
);

impl Mfn {
    /// The value that stands for "no frame" in the public interface.
    pub const INVALID: Mfn = Mfn(u64::MAX);

    /// Machine address of the frame's first byte.
    #[inline]
    #[must_use]
    pub const fn maddr(self) -> Maddr {
        Maddr(self.0 << PAGE_SHIFT)
    }
}
