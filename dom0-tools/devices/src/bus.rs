//! A device's directories in xenstore, and waiting for its back end.

use crate::error::{about, store as in_store};
use crate::{Code, Devices, Result};
use oxen_xend_api::DeviceState;
use oxen_xenstore::{Access, Nodes, Perms, Store};
use std::fmt;
use std::time::{Duration, Instant};

/// The states that are written here (`xenbus.h`).
const INITIALISING: &str = "1";
const CLOSING: &str = "5";

/// The kind of a device: a directory's name in xenstore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Vbd,
    Vif,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Vbd, Self::Vif];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vbd => "vbd",
            Self::Vif => "vif",
        }
    }

    /// The kernel module of the back end.
    fn module(self) -> &'static str {
        match self {
            Self::Vbd => "xen-blkback",
            Self::Vif => "xen-netback",
        }
    }
}

/// A device of a guest, served by domain 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) kind: Kind,
    pub(crate) domid: u16,
    pub(crate) devid: u32,
}

impl Address {
    /// The directory of the guest's driver. The guest can write there.
    pub(crate) fn frontend(self) -> String {
        format!(
            "/local/domain/{}/device/{}/{}",
            self.domid,
            self.kind.name(),
            self.devid
        )
    }

    /// The directory of the driver in domain 0. The guest can read there.
    pub(crate) fn backend(self) -> String {
        format!("/local/domain/0/{}", self.backend_in_domain())
    }

    /// The same, relative to domain 0's home.
    pub(crate) fn backend_in_domain(self) -> String {
        format!("backend/{}/{}/{}", self.kind.name(), self.domid, self.devid)
    }

    /// What the tools know of the device. No guest can see it.
    pub(crate) fn record(self) -> String {
        format!(
            "/libxl/{}/device/{}/{}",
            self.domid,
            self.kind.name(),
            self.devid
        )
    }

    /// Where the back-end driver says what went wrong.
    pub(crate) fn backend_error(self) -> String {
        format!("/local/domain/0/error/{}/error", self.backend_in_domain())
    }

    /// Where the guest's driver says what went wrong.
    pub(crate) fn frontend_error(self) -> String {
        format!(
            "/local/domain/{}/error/device/{}/{}/error",
            self.domid,
            self.kind.name(),
            self.devid
        )
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} of domain {}",
            self.kind.name(),
            self.devid,
            self.domid
        )
    }
}

/// The nodes of a device that is about to be.
#[derive(Debug)]
pub(crate) struct Nodesets {
    /// Of the guest's driver, beside those that all devices have.
    pub(crate) frontend: Vec<(&'static str, String)>,
    /// Of the back end, likewise; the record has them too.
    pub(crate) backend: Vec<(&'static str, String)>,
    /// Only of the record.
    pub(crate) record: Vec<(&'static str, String)>,
}

/// Writes a new device's nodes, all at once, as Xen's tools do.
pub(crate) fn publish(store: &Store, at: Address, nodes: &Nodesets) -> oxen_xenstore::Result<()> {
    let (frontend, backend, record) = (at.frontend(), at.backend(), at.record());
    store.transaction(|t| {
        // An error of a device that had this name before is none of this one.
        t.rm_if_exists(&at.backend_error())?;
        for (directory, perms) in [
            (&record, Perms::owned(0, Access::None)),
            (
                &frontend,
                Perms::owned(at.domid, Access::None).and(0, Access::Read),
            ),
            (
                &backend,
                Perms::owned(0, Access::None).and(at.domid, Access::Read),
            ),
        ] {
            t.rm_if_exists(directory)?;
            t.mkdir(directory)?;
            t.set_perms(directory, &perms)?;
        }
        for directory in [&backend, &record] {
            t.write(&format!("{directory}/frontend"), &frontend)?;
            t.write(&format!("{directory}/frontend-id"), at.domid.to_string())?;
            t.write(&format!("{directory}/online"), "1")?;
            t.write(&format!("{directory}/state"), INITIALISING)?;
            for (name, value) in &nodes.backend {
                t.write(&format!("{directory}/{name}"), value)?;
            }
        }
        t.write(&format!("{record}/backend"), &backend)?;
        for (name, value) in &nodes.record {
            t.write(&format!("{record}/{name}"), value)?;
        }
        t.write(&format!("{frontend}/backend"), &backend)?;
        t.write(&format!("{frontend}/backend-id"), "0")?;
        t.write(&format!("{frontend}/state"), INITIALISING)?;
        for (name, value) in &nodes.frontend {
            t.write(&format!("{frontend}/{name}"), value)?;
        }
        Ok(())
    })
}

/// Asks the back end to close the device for good.
pub(crate) fn ask_to_close(store: &Store, at: Address) -> oxen_xenstore::Result<()> {
    store.transaction(|t| tell_to_close(t, &at.backend()))
}

/// Writes that a back end is to close, if there is one.
fn tell_to_close(nodes: &impl Nodes, backend: &str) -> oxen_xenstore::Result<()> {
    let state = nodes.try_read(&format!("{backend}/state"))?;
    if state.is_none() {
        return Ok(());
    }
    nodes.write(&format!("{backend}/online"), "0")?;
    if !matches!(parse_state(state.as_deref()), DeviceState::Closed) {
        nodes.write(&format!("{backend}/state"), CLOSING)?;
    }
    Ok(())
}

/// Hides a device from its guest, whose driver then ends as if the device had been pulled out, while the back end still serves it. What
/// the guest has to write reaches the disk, and its driver says that it is closed: the state's node stays the guest's.
pub(crate) fn unplug(store: &Store, at: Address) -> oxen_xenstore::Result<()> {
    store.transaction(|t| {
        t.write(&format!("{}/online", at.backend()), "0")?;
        t.set_perms(&at.frontend(), &Perms::owned(0, Access::None))
    })
}

/// Takes the guest's end away: its back end closes without asking. It is told so in its state too: Linux' driver for disks says that it is
/// closed only then.
pub(crate) fn cut_off(store: &Store, at: Address) -> oxen_xenstore::Result<()> {
    store.transaction(|t| {
        t.rm_if_exists(&at.frontend())?;
        tell_to_close(t, &at.backend())
    })
}

/// Removes all nodes of a device, and directories of its kind that this leaves empty.
pub(crate) fn erase(store: &Store, at: Address) -> oxen_xenstore::Result<()> {
    let error = format!("/local/domain/0/error/{}", at.backend_in_domain());
    store.transaction(|t| {
        for directory in [at.frontend(), at.backend(), at.record(), error.clone()] {
            t.rm_if_exists(&directory)?;
            for above in oxen_xenstore::path::parent(&directory)
                .into_iter()
                .filter(|above| is_of_one_domain(above))
            {
                let empty = match t.directory(above) {
                    Ok(names) => names.is_empty(),
                    Err(error) if error.is_not_found() => false,
                    Err(error) => return Err(error),
                };
                if empty {
                    t.rm(above)?;
                }
            }
        }
        Ok(())
    })
}

/// Whether a directory is only there for devices of one kind of one domain: `.../vbd/7` or `.../device/vbd`.
fn is_of_one_domain(directory: &str) -> bool {
    let kind_of = |path: &str| {
        Kind::ALL
            .iter()
            .any(|kind| path.ends_with(&format!("/{}", kind.name())))
    };
    kind_of(directory) || oxen_xenstore::path::parent(directory).is_some_and(kind_of)
}

/// A state as the protocol has it; guests write what they like.
pub(crate) fn parse_state(text: Option<&str>) -> DeviceState {
    match text {
        Some("1") => DeviceState::Initialising,
        Some("2") => DeviceState::InitWait,
        Some("3") => DeviceState::Initialised,
        Some("4") => DeviceState::Connected,
        Some("5") => DeviceState::Closing,
        Some("6") => DeviceState::Closed,
        Some("7") => DeviceState::Reconfiguring,
        Some("8") => DeviceState::Reconfigured,
        _ => DeviceState::Unknown,
    }
}

/// The state in a device's directory; `Unknown` if there is none.
pub(crate) fn state(store: &Store, directory: &str) -> oxen_xenstore::Result<DeviceState> {
    let value = match store.read(&format!("{directory}/state")) {
        Ok(value) => Some(value),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    Ok(parse_state(
        value
            .as_deref()
            .and_then(|value| std::str::from_utf8(value).ok()),
    ))
}

/// Waits until `ready` has an answer, looking again whenever something below `paths` changes. `None` when the time is over.
pub(crate) fn wait<T>(
    store: &Store,
    paths: &[String],
    timeout: Duration,
    ready: impl FnMut() -> oxen_xenstore::Result<Option<T>>,
) -> oxen_xenstore::Result<Option<T>> {
    wait_looking(store, paths, timeout, Duration::MAX, ready)
}

/// Like [`wait`], for what can change without xenstore telling it: looks again at least every `period`.
pub(crate) fn wait_looking<T>(
    store: &Store,
    paths: &[String],
    timeout: Duration,
    period: Duration,
    mut ready: impl FnMut() -> oxen_xenstore::Result<Option<T>>,
) -> oxen_xenstore::Result<Option<T>> {
    if let Some(answer) = ready()? {
        return Ok(Some(answer));
    }
    let deadline = Instant::now().checked_add(timeout);
    // Of its own: the events of the caller's connection are the caller's.
    let watcher = store.reopen()?;
    for path in paths {
        watcher.watch(path, "")?;
    }
    loop {
        let left = deadline.map_or(Duration::MAX, |deadline| {
            deadline.saturating_duration_since(Instant::now())
        });
        let next = left.min(period);
        watcher.next_event((next < Duration::MAX).then_some(next))?;
        if let Some(answer) = ready()? {
            return Ok(Some(answer));
        }
        if left.is_zero() {
            return Ok(None);
        }
    }
}

impl Devices {
    /// Waits until the back-end driver has seen the device and waits for the guest.
    pub(crate) fn wait_for_backend(
        &self,
        store: &Store,
        at: Address,
        device: &str,
        timeout: Duration,
    ) -> Result<()> {
        let (backend, error) = (at.backend(), at.backend_error());
        let seen = wait(
            store,
            &[format!("{backend}/state"), error.clone()],
            timeout,
            || {
                Ok(match (state(store, &backend)?, store.try_read(&error)?) {
                    (_, Some(message)) => Some(Err(message)),
                    (DeviceState::Unknown | DeviceState::Initialising, None) => None,
                    _ => Some(Ok(())),
                })
            },
        );
        match seen.map_err(in_store(device))? {
            Some(Ok(())) => Ok(()),
            Some(Err(message)) => Err(about(
                Code::System,
                device,
                format_args!("its driver in domain 0 failed: {}", printable(&message)),
            )),
            None => Err(about(
                Code::Timeout,
                device,
                format_args!(
                    "its driver in domain 0 has not seen it in {} s; is the kernel module {} loaded?",
                    timeout.as_secs_f32(),
                    at.kind.module()
                ),
            )),
        }
    }
}

/// The most of others' text that a message repeats, in characters.
const MESSAGE_LEN: usize = 300;

/// Text of a driver or a script for people: one line, not too long, without control characters.
pub(crate) fn printable(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .take(MESSAGE_LEN)
        .collect()
}
