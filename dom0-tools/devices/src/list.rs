//! Listing devices.

use crate::bus::{Address, Kind, parse_state};
use crate::error::store as in_store;
use crate::vif::interface;
use crate::{Devices, Result};
use oxen_xend_api::{BlockDevice, Device, NetworkDevice};
use oxen_xenstore::{Nodes, Store};
use std::str::FromStr;

/// A device's record and its two ends. Only the record and the back end are to be believed.
struct View<'a> {
    store: &'a Store,
    at: Address,
    backend: String,
}

impl<'a> View<'a> {
    fn new(store: &'a Store, at: Address) -> oxen_xenstore::Result<Self> {
        // Guests of other tools may have back ends elsewhere.
        let backend = store
            .try_read(&format!("{}/backend", at.record()))?
            .unwrap_or_else(|| at.backend());
        Ok(Self { store, at, backend })
    }

    fn record(&self, name: &str) -> oxen_xenstore::Result<Option<String>> {
        self.store.try_read(&format!("{}/{name}", self.at.record()))
    }

    fn backend(&self, name: &str) -> oxen_xenstore::Result<Option<String>> {
        self.store.try_read(&format!("{}/{name}", self.backend))
    }

    /// What the guest says, as a number: it can write anything there.
    fn frontend<T: FromStr>(&self, name: &str) -> oxen_xenstore::Result<Option<T>> {
        match self.store.read(&format!("{}/{name}", self.at.frontend())) {
            Ok(value) => Ok(std::str::from_utf8(&value)
                .ok()
                .and_then(|text| text.parse().ok())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn device(&self) -> oxen_xenstore::Result<Device> {
        let backend_domid = self
            .backend
            .strip_prefix("/local/domain/")
            .and_then(|rest| rest.split('/').next())
            .and_then(|domid| domid.parse().ok());
        let frontend_state: Option<u32> = self.frontend("state")?;
        Ok(Device {
            id: self.at.devid,
            backend_domid: backend_domid.unwrap_or_default(),
            backend: self.backend.clone(),
            frontend: self.at.frontend(),
            backend_state: parse_state(self.backend("state")?.as_deref()),
            frontend_state: parse_state(frontend_state.map(|state| state.to_string()).as_deref()),
            event_channel: self.event_channel()?,
        })
    }

    /// A guest with several queues, or one channel for each direction, says the first here.
    fn event_channel(&self) -> oxen_xenstore::Result<Option<u32>> {
        for name in [
            "event-channel",
            "event-channel-tx",
            "queue-0/event-channel",
            "queue-0/event-channel-tx",
        ] {
            if let Some(port) = self.frontend(name)? {
                return Ok(Some(port));
            }
        }
        Ok(None)
    }

    /// The first ring of that name, or of the first queue.
    fn ring(&self, name: &str) -> oxen_xenstore::Result<Option<u32>> {
        for name in [
            name.to_owned(),
            format!("{name}0"),
            format!("queue-0/{name}"),
            format!("queue-0/{name}0"),
        ] {
            if let Some(reference) = self.frontend(&name)? {
                return Ok(Some(reference));
            }
        }
        Ok(None)
    }

    fn block(&self) -> oxen_xenstore::Result<BlockDevice> {
        let kind = self
            .record("kind")?
            .or(self.backend("type")?)
            .unwrap_or_else(|| "phy".to_owned());
        Ok(BlockDevice {
            device: self.device()?,
            name: self
                .backend("dev")?
                .unwrap_or_else(|| self.at.devid.to_string()),
            kind,
            target: self.backend("params")?.unwrap_or_default(),
            writable: self.backend("mode")?.is_some_and(|mode| mode != "r"),
            ring_ref: self.ring("ring-ref")?,
        })
    }

    fn network(&self) -> oxen_xenstore::Result<NetworkDevice> {
        Ok(NetworkDevice {
            device: self.device()?,
            mac: self.backend("mac")?.unwrap_or_default(),
            bridge: self.backend("bridge")?,
            ip: self.backend("ip")?,
            interface: self
                .backend("vifname")?
                .unwrap_or_else(|| interface(self.at)),
            tx_ring_ref: self.ring("tx-ring-ref")?,
            rx_ring_ref: self.ring("rx-ring-ref")?,
        })
    }
}

impl Devices {
    /// A domain's disks, by number.
    ///
    /// # Errors
    ///
    /// `xenstore`.
    pub fn disks(&self, store: &Store, domid: u16) -> Result<Vec<BlockDevice>> {
        self.list(store, domid, Kind::Vbd, |at| self.block(store, at))
    }

    /// A domain's network cards, by number.
    ///
    /// # Errors
    ///
    /// `xenstore`.
    pub fn vifs(&self, store: &Store, domid: u16) -> Result<Vec<NetworkDevice>> {
        self.list(store, domid, Kind::Vif, |at| self.network(store, at))
    }

    fn list<T>(
        &self,
        store: &Store,
        domid: u16,
        kind: Kind,
        view: impl Fn(Address) -> Result<T>,
    ) -> Result<Vec<T>> {
        let all = self
            .addresses(store, domid)
            .map_err(in_store(&format!("devices of domain {domid}")))?;
        all.into_iter()
            .filter(|at| at.kind == kind)
            .map(view)
            .collect()
    }

    pub(crate) fn block(&self, store: &Store, at: Address) -> Result<BlockDevice> {
        View::new(store, at)
            .and_then(|view| view.block())
            .map_err(in_store(&at.to_string()))
    }

    pub(crate) fn network(&self, store: &Store, at: Address) -> Result<NetworkDevice> {
        View::new(store, at)
            .and_then(|view| view.network())
            .map_err(in_store(&at.to_string()))
    }
}
