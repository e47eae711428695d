//! The daemon that owns the guests of a host: their configuration, their life from creation to end, their devices.
//!
//! - [`Daemon`] holds everything; its operations are ordinary blocking functions, each on a thread of its own. A [`tasks::Job`] makes sure that
//!   there is one at a time per guest.
//! - [`records`] is what must survive the daemon: after a kill it resumes with every running guest known, undoes creations that broke off, and finishes
//!   destructions ([`Daemon::resume`]).
//! - [`http`] is the interface of `oxen-xend-api`; [`watcher`] sees guests end and does what their configuration says.
//!
//! xenstore has what guests need to know, as Xen's tools write it. What the daemon relies on is in its own database or under paths that guests cannot write.
#![forbid(unsafe_code)]

mod change;
mod create;
mod daemon;
mod dump;
mod error;
mod host;
pub mod http;
mod memory;
mod nodes;
mod plug;
pub mod records;
mod resume;
pub mod settings;
mod stop;
pub mod sxp;
pub mod tasks;
mod view;
pub mod watcher;

pub use daemon::{Daemon, Places, device_settings};
