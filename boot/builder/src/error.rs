//! Why a domain cannot be laid out.

use core::fmt;

/// Why [`crate::Plan::new`] refuses. `Display` gives one line that names the culprit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// The layout needs more pages than the domain has.
    TooLittleMemory {
        /// Pages that the layout needs, without any that the running kernel will want.
        need: u64,
        /// Pages that the domain has.
        have: u64,
    },
    /// The kernel cannot be domain 0: its notes do not list the feature.
    NotForDom0,
    /// The kernel requires a feature that no paravirtualized domain has.
    FeatureUnsupported(&'static str),
    /// The kernel allows the hypervisor's range to start only higher than it does.
    HypervisorRangeTooLow {
        /// The note HV_START_LOW.
        hv_start_low: u64,
    },
    /// An address that the kernel asks for is not page-aligned, not canonical, or in the hypervisor's range.
    BadAddress {
        /// Which address.
        what: &'static str,
        /// Its value.
        va: u64,
    },
    /// The mapped range does not fit between its base and the end of the address space or the hypervisor's range.
    NoRoom {
        /// First address of the range.
        va: u64,
        /// Length in bytes.
        len: u64,
    },
    /// The initial p2m lies in the same 512 GiB as the kernel, which this builder does not support.
    P2mBesideKernel {
        /// The note INIT_P2M.
        va: u64,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooLittleMemory { need, have } => {
                write!(
                    f,
                    "too little memory: kernel, initial RAM disk and tables need {need} pages, the domain has {have}"
                )
            }
            Self::NotForDom0 => f.write_str("the kernel's notes say that it cannot be domain 0"),
            Self::FeatureUnsupported(name) => write!(
                f,
                "the kernel requires feature \"{name}\", which a PV domain does not have"
            ),
            Self::HypervisorRangeTooLow { hv_start_low } => {
                write!(
                    f,
                    "the kernel wants the hypervisor's range to start at {hv_start_low:#x} or higher"
                )
            }
            Self::BadAddress { what, va } => write!(
                f,
                "{what} at {va:#x} is misaligned or outside the guest's range"
            ),
            Self::NoRoom { va, len } => write!(
                f,
                "no room for {len} bytes from {va:#x} in the address space"
            ),
            Self::P2mBesideKernel { va } => write!(
                f,
                "the initial p2m at {va:#x} shares a top-level entry with the kernel"
            ),
        }
    }
}

impl core::error::Error for PlanError {}
