//! Taking devices away.

use crate::bus::{Address, Kind, ask_to_close, cut_off, erase, printable, state, unplug, wait_looking};
use crate::error::{about, store as in_store};
use crate::script::Step;
use crate::{Code, Devices, Result};
use oxen_xend_api::DeviceState;
use oxen_xenstore::{Nodes, Store};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a guest may take to let go of a disk that is taken away by force: it writes what it holds. One that loses a disk while it
/// writes waits for an answer for ever, and may wait with the thread that all its devices need: Linux does.
const DISK_GRACE: Duration = Duration::from_secs(5);
/// The same of a network card.
const CARD_GRACE: Duration = Duration::from_secs(2);
/// How long the kernel may take to let go of a device after its driver said that it is closed.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
const RELEASE_RETRY: Duration = Duration::from_millis(1);
/// How often a back end is looked at: Linux' block driver lets go of a guest that is gone without writing a state.
const UNREGISTER_PERIOD: Duration = Duration::from_millis(1);

/// Devices of a domain whose back ends have been told to close.
#[must_use]
#[derive(Debug)]
pub struct Leaving {
    domid: u16,
    all: BTreeSet<Address>,
    told: Vec<Result<()>>,
}

impl Devices {
    /// Takes all devices of a domain away that does not run any more, or whose creation failed: back ends, loop devices, interfaces,
    /// nodes. Devices that are half set up or half gone go as well, so that this can be called again, also by another process.
    ///
    /// # Errors
    ///
    /// The first failure; what can be taken away is, all the same.
    pub fn detach_all(&self, store: &Store, domid: u16) -> Result<()> {
        let leaving = self.begin_detaching(store, domid)?;
        self.finish_detaching(store, leaving)
    }

    /// The first half of [`Devices::detach_all`]: back ends begin to close. Other parts of a domain can be taken away meanwhile.
    ///
    /// # Errors
    ///
    /// xenstore does not tell which devices there are.
    pub fn begin_detaching(&self, store: &Store, domid: u16) -> Result<Leaving> {
        let name = format!("devices of domain {domid}");
        let all = self.addresses(store, domid).map_err(in_store(&name))?;
        // All at once, so that the drivers work at the same time.
        let told = all
            .iter()
            .map(|at| cut_off(store, *at).map_err(in_store(&at.to_string())))
            .collect();
        Ok(Leaving { domid, all, told })
    }

    /// The second half of [`Devices::detach_all`].
    ///
    /// # Errors
    ///
    /// Like [`Devices::detach_all`].
    pub fn finish_detaching(&self, store: &Store, leaving: Leaving) -> Result<()> {
        let Leaving { domid, all, told } = leaving;
        let mut results = told;
        results.extend(
            all.iter()
                .map(|at| self.finish(store, *at, &at.to_string())),
        );
        let of_domain = (domid, u32::MIN)..=(domid, u32::MAX);
        let left: Vec<_> = self.held().range(of_domain).map(|(key, _)| *key).collect();
        for key in left {
            self.held().remove(&key);
        }
        results.into_iter().collect()
    }

    /// Refuses a device that there is already.
    pub(crate) fn check_new(&self, store: &Store, at: Address, device: &str) -> Result<()> {
        let exists = |directory: String| store.exists(&directory).map_err(in_store(device));
        if exists(at.record())? || exists(at.backend())? {
            let code = if at.kind == Kind::Vbd {
                Code::BadDisk
            } else {
                Code::BadNetwork
            };
            return Err(about(code, device, "there is one with this name already"));
        }
        Ok(())
    }

    /// Takes one device away from a guest that may run.
    pub(crate) fn remove(
        &self,
        store: &Store,
        at: Address,
        device: &str,
        force: bool,
    ) -> Result<()> {
        if !store.exists(&at.record()).map_err(in_store(device))? {
            return Err(about(
                Code::NoSuchDevice,
                device,
                "the guest has no such device",
            ));
        }
        let front = state(store, &at.frontend()).map_err(in_store(device))?;
        // A guest whose driver never came, or has gone, cannot answer.
        let is_served = !matches!(
            front,
            DeviceState::Unknown | DeviceState::Initialising | DeviceState::Closed
        );
        if !is_served {
            return self.withdraw(store, at, device);
        }
        let patience = match (force, at.kind) {
            (false, _) => self.timeout(at),
            (true, Kind::Vbd) => self.timeout(at).min(DISK_GRACE),
            (true, Kind::Vif) => self.timeout(at).min(CARD_GRACE),
        };
        // Asked to close a disk that it is writing to, Linux (6.1) stops its queue first and then waits for it.
        let tell = if force && at.kind == Kind::Vbd { unplug } else { ask_to_close };
        tell(store, at).map_err(in_store(device))?;
        if self.wait_until_closed(store, at, device, patience)? {
            return self.finish(store, at, device);
        }
        if force {
            return self.withdraw(store, at, device);
        }
        let said = store
            .read(&at.frontend_error())
            .ok()
            .map(|said| printable(&String::from_utf8_lossy(&said)));
        Err(match said.filter(|said| !said.is_empty()) {
            Some(said) => about(
                Code::GuestRefuses,
                device,
                format_args!(
                    "the guest still uses it and says: {said}; it goes when the guest lets go, or by force"
                ),
            ),
            None => about(
                Code::Timeout,
                device,
                format_args!(
                    "the guest has not let go of it in {} s; it goes when the guest does, or by force",
                    self.timeout(at).as_secs_f32()
                ),
            ),
        })
    }

    /// Takes a device away without asking the guest.
    pub(crate) fn withdraw(&self, store: &Store, at: Address, device: &str) -> Result<()> {
        cut_off(store, at).map_err(in_store(device))?;
        self.finish(store, at, device)
    }

    /// Ends a device whose guest's end is gone or closed.
    fn finish(&self, store: &Store, at: Address, device: &str) -> Result<()> {
        let shown = self.kernel.backend(at.kind.name(), at.domid, at.devid);
        // A driver that does not close loses its nodes, which ends it as well.
        self.wait_until_closed(store, at, device, self.timeout(at))?;
        let undone = self.undo_setup(store, at, device);
        erase(store, at).map_err(in_store(device))?;
        let released = wait_until_gone(shown.as_deref());
        if at.kind == Kind::Vbd {
            self.held().remove(&(at.domid, at.devid));
        }
        undone?;
        if released {
            Ok(())
        } else {
            Err(about(
                Code::Timeout,
                device,
                format_args!(
                    "its driver in domain 0 has not let go of it in {} s",
                    RELEASE_TIMEOUT.as_secs()
                ),
            ))
        }
    }

    /// Waits until the back end is closed or has no driver; says whether that came in time.
    fn wait_until_closed(
        &self,
        store: &Store,
        at: Address,
        device: &str,
        patience: Duration,
    ) -> Result<bool> {
        let backend = at.backend();
        let paths = [format!("{backend}/state")];
        let closed = wait_looking(store, &paths, patience, UNREGISTER_PERIOD, || {
            let is_served = self
                .kernel
                .backend(at.kind.name(), at.domid, at.devid)
                .is_some();
            let is_closed = !is_served
                || matches!(
                    state(store, &backend)?,
                    DeviceState::Closed | DeviceState::Unknown
                );
            Ok(is_closed.then_some(()))
        });
        Ok(closed.map_err(in_store(device))?.is_some())
    }

    /// Runs the script that set the device up, if one did.
    fn undo_setup(&self, store: &Store, at: Address, device: &str) -> Result<()> {
        let node = |name: &str| {
            store
                .try_read(&format!("{}/{name}", at.record()))
                .map_err(in_store(device))
        };
        let by_script = node("setup")?.is_some_and(|setup| setup == "script");
        match node("script")?
            .map(PathBuf::from)
            .filter(|script| by_script && script.exists())
        {
            Some(script) => self.run_script(
                store,
                &script,
                Step::Remove,
                at,
                device,
                node("interface")?.as_deref(),
            ),
            None => Ok(()),
        }
    }

    fn timeout(&self, at: Address) -> Duration {
        match at.kind {
            Kind::Vbd => self.settings.block_timeout,
            Kind::Vif => self.settings.vif_timeout,
        }
    }

    /// All devices of a domain that domain 0 serves, whatever is left of each.
    pub(crate) fn addresses(
        &self,
        store: &Store,
        domid: u16,
    ) -> oxen_xenstore::Result<BTreeSet<Address>> {
        let mut found = BTreeSet::new();
        for kind in Kind::ALL {
            let name = kind.name();
            for directory in [
                format!("/libxl/{domid}/device/{name}"),
                format!("/local/domain/0/backend/{name}/{domid}"),
            ] {
                let names = match store.directory(&directory) {
                    Err(error) if error.is_not_found() => Vec::new(),
                    names => names?,
                };
                found.extend(
                    names
                        .iter()
                        .filter_map(|name| name.parse().ok())
                        .map(|devid| Address { kind, domid, devid }),
                );
            }
        }
        Ok(found)
    }
}

/// Waits until the kernel has let go of a device, which it showed in the directory `shown`; says whether it did.
fn wait_until_gone(shown: Option<&Path>) -> bool {
    let Some(shown) = shown else { return true };
    let deadline = Instant::now() + RELEASE_TIMEOUT;
    while shown.exists() {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(RELEASE_RETRY);
    }
    true
}
