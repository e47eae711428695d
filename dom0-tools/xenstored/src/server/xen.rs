//! The hypervisor, as the daemon uses it.

use super::Connector;
use crate::engine::Life;
use crate::log;
use oxen_abi::Errno;
use oxen_abi::domctl::{DOMINF_DYING, DOMINF_SHUTDOWN};
use oxen_abi::grant_table::GNTTAB_RESERVED_XENSTORE;
use oxen_abi::xen::Virq;
use oxen_xenctl::{Error, EventChannels, Grants, LocalPort, SharedMemory};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// The devices of `/dev/xen`.
#[derive(Debug)]
pub struct Xen {
    calls: oxen_xenctl::Xen,
    events: EventChannels,
    grants: Grants,
    life_port: LocalPort,
    /// Whether this domain's own kernel has a ring.
    own: bool,
}

impl Xen {
    /// Opens the devices.
    ///
    /// # Errors
    ///
    /// When one of them cannot be opened, or another daemon has the virtual interrupt that tells of domains.
    pub fn open() -> Result<Self, Error> {
        Self::over(oxen_xenctl::Xen::open()?, EventChannels::open()?, Grants::open()?, true)
    }

    /// Over open devices; `own` says whether the kernel's own ring is served.
    ///
    /// # Errors
    ///
    /// When another daemon has the virtual interrupt that tells of domains.
    pub fn over(calls: oxen_xenctl::Xen, events: EventChannels, grants: Grants, own: bool) -> Result<Self, Error> {
        let life_port = events.bind_virq(Virq::DOM_EXC)?;
        Ok(Self { calls, events, grants, life_port, own })
    }
}

impl Connector for Xen {
    fn map(&mut self, domid: u16, gfn: u64) -> Result<SharedMemory, String> {
        if domid == 0 {
            return oxen_xenctl::own_xenstore_page().map_err(|error| error.to_string());
        }
        let granted = self.grants.map(domid, &[GNTTAB_RESERVED_XENSTORE], true);
        // A toolstack that fills no grant table says where the page is.
        match granted {
            Err(_) if gfn != 0 => self.calls.map_foreign(domid, &[gfn], true),
            granted => granted,
        }
        .map_err(|error| error.to_string())
    }

    fn bind(&mut self, domid: u16, port: u32) -> Result<LocalPort, String> {
        self.events.bind_interdomain(domid, port).map_err(|error| error.to_string())
    }

    fn unbind(&mut self, port: LocalPort) {
        if let Err(error) = self.events.unbind(port) {
            log::line(&error.to_string());
        }
    }

    fn notify(&mut self, port: LocalPort) {
        // The other end may be gone; then nobody is left to notify.
        let _ = self.events.notify(port);
    }

    fn unmask(&mut self, port: LocalPort) {
        let _ = self.events.unmask(port);
    }

    fn pending(&mut self) -> Vec<LocalPort> {
        self.events.pending().unwrap_or_else(|error| {
            log::line(&error.to_string());
            Vec::new()
        })
    }

    fn life_port(&self) -> Option<LocalPort> {
        Some(self.life_port)
    }

    fn life(&mut self, domid: u16) -> Life {
        match self.calls.domain(domid) {
            Ok(info) if info.flags & DOMINF_DYING != 0 => Life::Gone,
            Ok(info) if info.flags & DOMINF_SHUTDOWN != 0 => Life::ShutDown,
            Ok(_) => Life::Running,
            Err(Error::NoSuchDomain { .. } | Error::Hypercall { errno: Errno::ESRCH, .. }) => Life::Gone,
            Err(error) => {
                // Better a dead domain that is taken for alive than the other way round.
                log::line(&format!("domain {domid}: {error}"));
                Life::Running
            }
        }
    }

    fn own_port(&self) -> io::Result<Option<u32>> {
        if !self.own {
            return Ok(None);
        }
        oxen_xenctl::own_xenstore_port().map_err(io::Error::other)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.events.as_fd())
    }
}
