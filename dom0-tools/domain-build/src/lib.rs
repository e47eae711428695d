//! Builds PV guests: from a kernel, an initial RAM disk and some numbers to a paused domain that is ready to run.
//!
//! [`Request`] says what is wanted; [`build`] does it all and returns a [`Built`] with what xenstore and the daemons must be told. The
//! layout is that of `oxen-builder`, which builds domain 0 too.
//!
//! The kernel is read, unpacked and laid out before anything is created, so a bad kernel costs nothing. After that the order is: domain,
//! vCPUs, limits, claim, memory, contents, page tables, registers. When a step fails, the domain is destroyed, and the [`BuildError`] says
//! which step and why.
#![forbid(unsafe_code)]

mod build;
mod cache;
mod error;
mod frames;
mod kernel;
mod request;

pub use build::{build, build_loaded};
pub use cache::DEFAULT_DIR as CACHE_DIR;
pub use error::{BuildError, Purpose};
pub use kernel::Loaded;
pub use request::{Built, Identity, Request};
