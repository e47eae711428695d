//! Calls the hypervisor from dom0 user space.
//!
//! [`Xen`] is an open `/dev/xen/privcmd`. Its methods are the calls that the tools need, each with plain arguments and results; the
//! layouts come from [`oxen_abi`]. An [`Error`] says what to do about it.
//!
//! [`Xen::map_foreign`] and [`Grants`] map other domains' frames as [`SharedMemory`], on which [`Ring`] works; [`EventChannels`] are the
//! signals between domains. With the feature `fake`, [`fake::FakeHost`] plays hypervisor and guests for tests on any machine.
//!
//! All unsafe code of the domain-0 tools lives here, in `buffer` (memory that the hypervisor may access), `mapping` (memory of other
//! domains) and the devices' ioctls, those of loop devices ([`loop_device`]) among them. Elsewhere in this crate `unsafe` only vouches for the addresses that a call's argument carries.

mod bitmap;
mod buffer;
mod device;
mod domctl;
mod error;
mod event;
mod evtchn;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod gntdev;
mod grant;
mod hypfs;
pub mod loop_device;
mod mapping;
mod memory;
mod mmu;
mod privcmd;
mod ring;
mod sched;
mod sysctl;
mod version;
mod xsd;

pub use bitmap::CpuMap;
pub use domctl::{CreditParameters, NewDomain, VcpuAffinity};
pub use error::{Error, Result};
pub use event::PortStatus;
pub use evtchn::{EventChannels, LocalPort};
pub use gntdev::Grants;
pub use grant::GrantTableSize;
pub use mapping::{AccessError, FRAME_LEN, SharedMemory};
pub use privcmd::{Resource, Xen};
pub use ring::{Ring, RingFault, RingLayout};
pub use sysctl::{CpuPool, NumaNode};
pub use version::{CompiledBy, VersionInfo};
pub use xsd::{own_xenstore_page, own_xenstore_port};
