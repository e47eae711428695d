//! What the daemon holds, and who is meant by a name.

use crate::error::ToApi;
use crate::records::{Record, Records};
use crate::settings::Settings;
use crate::tasks::{Job, Tasks, now};
use oxen_devices::Devices;
use oxen_guest_config::Uuid;
use oxen_xenctl::Xen;
use oxen_xend_api::{Code, Error, Outcome, Task};
use oxen_xenstore::{Nodes, Store};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

/// Where the daemon's files are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The directory of the database.
    pub state: PathBuf,
    /// The log, which `xm log` shows.
    pub log: PathBuf,
    /// Memory images of crashed guests.
    pub dumps: PathBuf,
    /// Unpacked kernels, kept for the next guest.
    pub kernels: PathBuf,
    /// The confined reader of guests' disks.
    pub boot_loader: PathBuf,
    /// The directory in which that puts kernels.
    pub boot: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { state: "/var/lib/xend".into(), log: "/var/log/xen/xend.log".into(), dumps: "/var/lib/xen/dump".into(), kernels: oxen_domain_build::CACHE_DIR.into(), boot_loader: "/usr/sbin/oxen-bootloader".into(), boot: "/run/xend/boot".into() }
    }
}

/// The daemon.
pub struct Daemon {
    pub(crate) settings: Settings,
    pub(crate) places: Places,
    pub(crate) xen: Xen,
    pub(crate) store: Store,
    pub(crate) devices: Devices,
    pub(crate) records: Records,
    /// The operations.
    pub tasks: Arc<Tasks>,
    pub(crate) started_at: u64,
    /// Held while memory is made free and taken, so that two creations do not count on the same memory.
    pub(crate) memory: std::sync::Mutex<()>,
    /// Held from the check that a name is free until it is taken.
    pub(crate) naming: std::sync::Mutex<()>,
    /// A guest that has ended was found busy.
    pub(crate) look_again: AtomicBool,
}

/// Who is meant.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The name to speak of.
    pub name: String,
    /// The UUID: also domains that others created have one.
    pub uuid: Uuid,
    /// The domain id, while it runs.
    pub domid: Option<u16>,
    /// The record, unless others created it.
    pub record: Option<Record>,
}

impl Target {
    /// The domain id of a guest that must be running.
    pub fn running(&self) -> Result<u16, Error> {
        self.domid.ok_or_else(|| Error::new(Code::WrongState, format!("{} is not running", self.name)).about(&self.name))
    }

    /// As [`Target::running`], for what cannot be done to domain 0.
    pub fn running_guest(&self) -> Result<u16, Error> {
        match self.running()? {
            0 => Err(Error::new(Code::WrongState, "this cannot be done to domain 0").about("Domain-0")),
            domid => Ok(domid),
        }
    }
}

impl Daemon {
    /// Opens the database.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn new(settings: Settings, places: Places, xen: Xen, store: Store) -> Result<Self, Error> {
        let devices = Devices::new(device_settings(&settings));
        Self::with_devices(settings, places, xen, store, devices)
    }

    /// As [`Daemon::new`], with devices that are set up otherwise.
    ///
    /// # Errors
    ///
    /// When the database cannot be opened.
    pub fn with_devices(settings: Settings, places: Places, xen: Xen, store: Store, devices: Devices) -> Result<Self, Error> {
        let path = places.state.join("guests.redb");
        let records = Records::open(&path).map_err(|error| Error::new(Code::System, format!("cannot open {}: {error}", path.display())))?;
        Ok(Self { settings, places, xen, store, devices, records, tasks: Arc::default(), started_at: now(), memory: std::sync::Mutex::default(), naming: std::sync::Mutex::default(), look_again: AtomicBool::new(false) })
    }

    /// Finds who is meant by a name, a domain id or a UUID.
    pub(crate) fn target(&self, which: &str) -> Result<Target, Error> {
        let by_uuid = Uuid::parse_str(which).ok();
        let record = by_uuid.map_or_else(|| self.records.named(which), |uuid| self.records.get(uuid));
        if let Some(record) = record {
            return Ok(Target { name: record.config.name.clone(), uuid: record.uuid, domid: record.domid, record: Some(record) });
        }
        let domains = self.xen.domains().or_api("listing domains")?;
        let wanted_id = which.parse::<u16>().ok();
        let found = domains.iter().find(|info| {
            by_uuid.is_some_and(|uuid| *uuid.as_bytes() == info.handle) || wanted_id == Some(info.domain) || (wanted_id.is_none() && self.stored_name(info.domain).as_deref() == Some(which))
        });
        let info = found.ok_or_else(|| Error::new(Code::NoSuchDomain, format!("there is no domain {which}")).about(which))?;
        let uuid = Uuid::from_bytes(info.handle);
        let record = self.records.get(uuid).filter(|record| record.domid == Some(info.domain));
        let name = record.as_ref().map(|record| record.config.name.clone()).or_else(|| self.stored_name(info.domain)).unwrap_or_else(|| format!("domain {}", info.domain));
        Ok(Target { name, uuid, domid: Some(info.domain), record })
    }

    /// The name that xenstore has for a domain.
    pub(crate) fn stored_name(&self, domid: u16) -> Option<String> {
        self.store.try_read(&format!("/local/domain/{domid}/name")).ok().flatten()
    }

    /// Begins an operation on `target` and does `work` on a thread of its own.
    pub(crate) fn start(
        self: &Arc<Self>,
        operation: &str,
        target: &Target,
        work: impl FnOnce(&Arc<Self>, &mut Job) -> Result<Outcome, Error> + Send + 'static,
    ) -> Result<Task, Error> {
        let mut job = self.tasks.begin(operation, target.uuid, &target.name)?;
        let task = job.task().ok_or_else(|| Error::new(Code::Internal, "the task is already forgotten"))?;
        let daemon = Arc::clone(self);
        let (operation, name) = (operation.to_owned(), target.name.clone());
        tracing::info!("{name}: {operation}");
        let thread = std::thread::Builder::new().name(format!("{operation} {name}"));
        let started = thread.spawn(move || {
            let result = work(&daemon, &mut job);
            match &result {
                Ok(_) => tracing::info!("{name}: {operation} done"),
                Err(error) => tracing::error!("{name}: {operation} failed: {error}"),
            }
            job.finish(result);
            if daemon.look_again.swap(false, SeqCst) {
                daemon.look_after_guests();
            }
        });
        match started {
            Ok(_) => Ok(task),
            Err(error) => Err(Error::new(Code::System, format!("cannot start a thread: {error}"))),
        }
    }
}

/// What `settings` say about devices.
pub fn device_settings(settings: &Settings) -> oxen_devices::Settings {
    oxen_devices::Settings {
        vif_script: settings.vif_script.clone(),
        default_bridge: settings.vif_bridge.clone(),
        block_timeout: settings.device_timeout,
        vif_timeout: settings.device_timeout,
        ..oxen_devices::Settings::default()
    }
}
