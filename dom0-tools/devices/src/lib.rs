//! Guests' disks and network cards, seen from domain 0.
//!
//! A device is a directory of the guest, one of its back end, and the record of it that only the control domain can write
//! ([`bus`]). Attaching writes all three in one transaction, waits for the kernel's back-end driver, and sets up what is behind it:
//! a block device or a loop device ([`disk`], after the checks of [`sharing`]), a bridge or a route ([`vif`]), or what a user's script
//! does ([`script`]). What guests can rewrite is never believed: every later step goes by the record.
//!
//! The kernel is behind a trait ([`kernel`]); the feature `fake` has one for tests (`fake`).
#![forbid(unsafe_code)]

mod bus;
mod disk;
mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod kernel;
mod linux;
mod list;
mod netlink;
mod remove;
mod script;
mod sharing;
#[cfg(test)]
mod tests;
mod vif;

use kernel::Kernel;
use oxen_guest_config::Uuid;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use oxen_xend_api::{Code, Error};
pub use remove::Leaving;

/// The result of an operation. The error's message names the device and the cause.
pub type Result<T> = std::result::Result<T, Error>;

/// The guest that a device is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Its domain id.
    pub domid: u16,
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: Uuid,
}

/// How devices are set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What sets up network cards whose configuration does not say: `vif-bridge` and `vif-route`, which are built in, or a script.
    /// `None` is `vif-bridge`.
    pub vif_script: Option<String>,
    /// The bridge of network cards whose configuration does not say; `None` is `xenbr0`, or the only bridge that there is.
    pub default_bridge: Option<String>,
    /// Where scripts that are named without a directory are.
    pub script_dir: PathBuf,
    /// How long a disk's back end, and its guest when the disk is taken away, may take.
    pub block_timeout: Duration,
    /// How long a network card's back end, and its guest when the card is taken away, may take.
    pub vif_timeout: Duration,
    /// How long a script may run.
    pub script_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            vif_script: None,
            default_bridge: None,
            script_dir: PathBuf::from("/etc/xen/scripts"),
            block_timeout: Duration::from_secs(10),
            vif_timeout: Duration::from_secs(10),
            // As long as Xen's tools wait.
            script_timeout: Duration::from_secs(40),
        }
    }
}

/// Sets up guests' devices and takes them away. Several threads may use it at once.
pub struct Devices {
    settings: Settings,
    kernel: Box<dyn Kernel>,
    /// Held from the check that nobody else uses a disk until the nodes say that this guest does, and from the choice of a device
    /// number until it is taken.
    choosing: Mutex<()>,
    /// Open block devices of the disks that this process attached, by domain and device number: an exclusive one keeps others from
    /// mounting it, and one of a loop device keeps it bound until the back end has opened it.
    held: Mutex<BTreeMap<(u16, u32), File>>,
}

impl Devices {
    /// With the kernel that this runs on.
    pub fn new(settings: Settings) -> Self {
        Self::with_kernel(settings, Box::new(linux::Linux))
    }

    fn with_kernel(settings: Settings, kernel: Box<dyn Kernel>) -> Self {
        Self {
            settings,
            kernel,
            choosing: Mutex::new(()),
            held: Mutex::new(BTreeMap::new()),
        }
    }

    fn choosing(&self) -> MutexGuard<'_, ()> {
        self.choosing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<(u16, u32), File>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
