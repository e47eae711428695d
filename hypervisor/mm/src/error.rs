//! What can go wrong, with what a log line needs.

use crate::{FrameType, Level};
use core::fmt;
use oxen_abi::Errno;
use oxen_types::{DomId, Mfn};

/// What a frame was wanted for: decides the error number that guests expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A mapping in a level-1 table.
    Mapping,
    /// Anything else.
    Use,
}

/// Why a memory operation did not happen. Unless it says otherwise nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmError {
    /// The budget is used up. What was done so far is kept; the same call carries on.
    Preempted,
    /// The number is not RAM.
    NotRam(Mfn),
    /// The frame belongs to somebody else, or to nobody.
    Owner {
        /// The frame.
        mfn: Mfn,
        /// Who should own it.
        expected: DomId,
        /// Who does.
        actual: Option<DomId>,
        /// What it was wanted for.
        purpose: Purpose,
    },
    /// The frame has uses in another type.
    Type {
        /// The frame.
        mfn: Mfn,
        /// The type that was wanted.
        expected: FrameType,
        /// The type that it has.
        actual: FrameType,
        /// What it was wanted for.
        purpose: Purpose,
    },
    /// A reference counter is full.
    Full(Mfn),
    /// The page table is not (completely) validated.
    NotValidated(Mfn),
    /// An entry has bits that are not the guest's to set.
    Flags {
        /// Level of the table.
        level: Level,
        /// The entry.
        entry: u64,
    },
    /// The domain may not map this device memory.
    Mmio(Mfn),
    /// Entries of the root that belong to the hypervisor.
    HypervisorSlot {
        /// The root.
        mfn: Mfn,
        /// Index in it.
        index: usize,
    },
    /// A table above level 1 would refer to frames of another domain.
    ForeignTable(Mfn),
    /// The table is pinned already.
    AlreadyPinned(Mfn),
    /// The table is not pinned.
    NotPinned(Mfn),
    /// The virtual address is not mapped down to level 1.
    NotMapped,
    /// The entry is not the one that the operation expects.
    EntryChanged {
        /// The table.
        mfn: Mfn,
        /// What the entry is.
        entry: u64,
    },
    /// The descriptor is of a kind that a guest may not have.
    Descriptor(u64),
    /// No memory of the wanted size and place.
    NoMemory,
    /// The domain has its maximum.
    OverLimit(DomId),
    /// The domain is being destroyed.
    Dying(DomId),
    /// The frame has other users.
    InUse(Mfn),
}

impl MmError {
    /// The error number of the hypercall interface. [`MmError::Preempted`] has none that reaches a guest; it gives the internal `ERESTART`.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            MmError::Preempted => Errno::ERESTART,
            MmError::Owner { purpose: Purpose::Mapping, .. }
            | MmError::Type { purpose: Purpose::Mapping, .. }
            | MmError::InUse(_) => Errno::EBUSY,
            MmError::Mmio(_) | MmError::ForeignTable(_) => Errno::EPERM,
            MmError::NoMemory | MmError::OverLimit(_) => Errno::ENOMEM,
            MmError::NotRam(_)
            | MmError::Owner { .. }
            | MmError::Type { .. }
            | MmError::Full(_)
            | MmError::NotValidated(_)
            | MmError::Flags { .. }
            | MmError::HypervisorSlot { .. }
            | MmError::AlreadyPinned(_)
            | MmError::NotPinned(_)
            | MmError::NotMapped
            | MmError::EntryChanged { .. }
            | MmError::Descriptor(_)
            | MmError::Dying(_) => Errno::EINVAL,
        }
    }
}

impl fmt::Display for MmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            MmError::Preempted => write!(f, "not finished yet"),
            MmError::NotRam(mfn) => write!(f, "{mfn} is not RAM"),
            MmError::Owner { mfn, expected, actual: Some(actual), .. } => {
                write!(f, "{mfn} belongs to {actual}, not {expected}")
            }
            MmError::Owner { mfn, expected, actual: None, .. } => write!(f, "{mfn} does not belong to {expected}"),
            MmError::Type { mfn, expected, actual, .. } => write!(f, "{mfn} is wanted as {expected:?} but in use as {actual:?}"),
            MmError::Full(mfn) => write!(f, "{mfn} has too many users"),
            MmError::NotValidated(mfn) => write!(f, "{mfn} is not a validated page table"),
            MmError::Flags { level, entry } => write!(f, "bad flags in {level:?} entry {entry:#018x}"),
            MmError::Mmio(mfn) => write!(f, "no permission to map device memory {mfn}"),
            MmError::HypervisorSlot { mfn, index } => write!(f, "entry {index} of root {mfn} belongs to the hypervisor"),
            MmError::ForeignTable(mfn) => write!(f, "{mfn} of another domain in a table above level 1"),
            MmError::AlreadyPinned(mfn) => write!(f, "{mfn} is already pinned"),
            MmError::NotPinned(mfn) => write!(f, "{mfn} is not pinned"),
            MmError::NotMapped => write!(f, "address not mapped down to level 1"),
            MmError::EntryChanged { mfn, entry } => write!(f, "entry in {mfn} is {entry:#018x}"),
            MmError::Descriptor(d) => write!(f, "bad descriptor {d:#018x}"),
            MmError::NoMemory => write!(f, "out of memory"),
            MmError::OverLimit(d) => write!(f, "{d} has its maximum of memory"),
            MmError::Dying(d) => write!(f, "{d} is being destroyed"),
            MmError::InUse(mfn) => write!(f, "{mfn} has other users"),
        }
    }
}
