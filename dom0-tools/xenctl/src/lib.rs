//! Calls the hypervisor from dom0 user space.
//!
//! [`Xen`] is an open `/dev/xen/privcmd`. Its methods are the calls that the tools need, each with plain arguments and results; the
//! layouts come from [`oxen_abi`]. An [`Error`] says what to do about it.
//!
//! All unsafe code of the domain-0 tools lives here, in `buffer` (memory that the hypervisor may access) and `privcmd` (the ioctl).
//! Elsewhere in this crate `unsafe` only vouches for the addresses that a call's argument carries.

mod bitmap;
mod buffer;
mod domctl;
mod error;
#[cfg(test)]
mod fake;
mod memory;
mod privcmd;
mod sysctl;
mod version;

pub use bitmap::CpuMap;
pub use domctl::VcpuAffinity;
pub use error::{Error, Result};
pub use privcmd::Xen;
pub use sysctl::{CpuPool, NumaNode};
pub use version::{CompiledBy, VersionInfo};
