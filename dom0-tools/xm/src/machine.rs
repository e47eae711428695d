//! Where the commands find what they look at.

use oxen_xenctl::{Result, Xen};
use oxen_xend_api::Client;
use oxen_xenstore::Store;
use std::env;
use std::path::PathBuf;

/// Where xenstored listens, and the variables that say otherwise: for the socket, and for the directory that it is in.
const STORE_RUNDIR: (&str, &str) = ("/run/xenstored", "XENSTORED_RUNDIR");
const STORE_VARIABLE: &str = "XENSTORED_PATH";

/// How to reach the hypervisor, the daemons and the kernel's files.
pub struct Machine {
    /// Connects to the hypervisor.
    pub hypervisor: Box<dyn Fn() -> Result<Xen>>,
    /// The socket of xenstored.
    pub store_socket: PathBuf,
    /// The client of xend.
    pub xend: Client,
    /// The directory of `proc` and `sys`.
    pub root: PathBuf,
}

impl Machine {
    /// Connects to xenstored; `None` while it does not run. The kernel's device for it would wait for a daemon that may never come.
    pub fn store(&self) -> Option<Store> {
        Store::open_path(&self.store_socket).ok()
    }
}

impl Default for Machine {
    /// The machine that this program runs on.
    fn default() -> Self {
        let (default, variable) = STORE_RUNDIR;
        let rundir = || env::var_os(variable).map_or_else(|| PathBuf::from(default), PathBuf::from);
        Self {
            hypervisor: Box::new(Xen::open),
            store_socket: env::var_os(STORE_VARIABLE).map_or_else(|| rundir().join("socket"), PathBuf::from),
            xend: Client::default(),
            root: PathBuf::from("/"),
        }
    }
}
