//! Identifiers of domains, vCPUs, processors, event ports and grants.

use core::fmt;

/// A domain identifier. Ordinary domains have 0 to 0x7fef; the values from 0x7ff0 have fixed meanings (public header `xen.h`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct DomId(pub u16);

impl DomId {
    /// The first guest, which drives the hardware and runs the control stack.
    pub const DOM0: DomId = DomId(0);
    /// First reserved value: no ordinary domain has it or a larger one.
    pub const FIRST_RESERVED: DomId = DomId(0x7ff0);
    /// "The calling domain".
    pub const SELF: DomId = DomId(0x7ff0);
    /// The owner of memory-mapped I/O frames.
    pub const IO: DomId = DomId(0x7ff1);
    /// The owner of frames that the hypervisor shares with privileged guests.
    pub const XEN: DomId = DomId(0x7ff2);
    /// No domain.
    pub const INVALID: DomId = DomId(0x7ff4);
    /// The owner of the idle vCPUs.
    pub const IDLE: DomId = DomId(0x7fff);

    /// True for identifiers that an ordinary domain may have.
    #[inline]
    #[must_use]
    pub const fn is_ordinary(self) -> bool {
        self.0 < Self::FIRST_RESERVED.0
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $tag:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The number as an array index.
            #[inline]
            #[must_use]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($tag, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number!(
    /// A vCPU's number within its domain.
    VcpuId,
    "v"
);
number!(
    /// A physical processor's number: dense, 0 is the boot processor.
    CpuId,
    "cpu"
);
number!(
    /// An event channel port. Port 0 is never used.
    Port,
    "port"
);
number!(
    /// A grant reference: an index into the granting domain's table.
    GrantRef,
    "gref"
);

impl fmt::Debug for DomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d{}", self.0)
    }
}

impl fmt::Display for DomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d{}", self.0)
    }
}
