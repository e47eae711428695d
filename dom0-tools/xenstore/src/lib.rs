//! Xenstore: the wire protocol ([`wire`], shared with the daemon), paths and permissions, and a blocking client.
//!
//! ```no_run
//! use oxen_xenstore::{Nodes, Store};
//! # fn main() -> oxen_xenstore::Result<()> {
//! let store = Store::open()?;
//! store.write("/local/domain/1/name", "demo")?;
//! store.transaction(|t| {
//!     let target = t.read_text("/local/domain/1/memory/target")?;
//!     t.write("/local/domain/1/memory/static-max", target)
//! })?;
//! store.watch("@releaseDomain", "domains")?;
//! while let Some(event) = store.next_event(None)? {
//!     println!("{} changed ({})", event.path, event.token);
//! }
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod client;
mod error;
pub mod path;
pub mod perms;
pub mod wire;

pub use client::{Batch, Event, Nodes, Store, Transaction};
pub use error::{Cause, Error, Result};
pub use oxen_abi::Errno;
pub use oxen_abi::io::xs_wire::XsType;
pub use perms::{Access, Perm, Perms};
