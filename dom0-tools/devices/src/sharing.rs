//! Who uses a disk's data: what keeps two from writing, or one from writing what another reads.

use crate::bus::{Address, Kind};
use crate::error::{about, store as in_store};
use crate::kernel::{Access, FileId, LoopUse, Number};
use crate::{Code, Devices, Result};
use oxen_guest_config::DiskMode;
use oxen_xenstore::{Nodes, Store};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a loop device of a guest that ended may take to go away.
const LOOP_PATIENCE: Duration = Duration::from_millis(500);
const LOOP_RETRY: Duration = Duration::from_millis(10);

/// What a disk's data are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Data {
    /// A block device.
    Device(Number),
    /// A file.
    File(FileId),
}

/// A disk of a guest.
#[derive(Debug)]
struct GuestUse {
    at: Address,
    number: Number,
    data: Data,
    writable: bool,
    name: String,
}

impl Devices {
    /// Opens a disk's data as its mode says, after making sure that nobody else's use forbids that. The attachment `own` is no use by
    /// others.
    pub(crate) fn claim(
        &self,
        store: &Store,
        device: &str,
        path: &Path,
        data: Data,
        mode: DiskMode,
        own: Option<Address>,
    ) -> Result<File> {
        if !mode.forced() {
            self.check_guests(store, device, path, data, mode, own)?;
            if mode == DiskMode::Read
                && let Data::Device(number) = data
            {
                self.check_writable_mounts(device, path, number)?;
            }
        }
        let exclusive = mode == DiskMode::Write && matches!(data, Data::Device(_));
        let opened = self.kernel.open(
            path,
            Access {
                write: mode.writable(),
                exclusive,
            },
        );
        opened.map_err(|error| match (error.kind(), data) {
            (ErrorKind::ResourceBusy, Data::Device(number)) => self.busy(device, path, number),
            (ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied, _) if mode.writable() => {
                about(
                    Code::BadDisk,
                    device,
                    format_args!(
                        "{} cannot be written ({error}); mode `r` would do without",
                        path.display()
                    ),
                )
            }
            _ => about(
                Code::BadDisk,
                device,
                format_args!("{} cannot be opened: {error}", path.display()),
            ),
        })
    }

    /// Guests, and loop devices that no guest has.
    fn check_guests(
        &self,
        store: &Store,
        device: &str,
        path: &Path,
        data: Data,
        mode: DiskMode,
        own: Option<Address>,
    ) -> Result<()> {
        let patience = Instant::now() + LOOP_PATIENCE;
        let in_use = |by: String| {
            about(
                Code::DiskInUse,
                device,
                format_args!(
                    "{} is in use by {by}; mode `{mode}!` would ignore that",
                    path.display()
                ),
            )
        };
        loop {
            let loops = self.kernel.loops().map_err(|error| {
                about(
                    Code::System,
                    device,
                    format_args!("loop devices cannot be listed: {error}"),
                )
            })?;
            let guests = guest_uses(store, &loops).map_err(in_store(device))?;
            let other = guests.iter().find(|other| {
                other.data == data && Some(other.at) != own && (mode.writable() || other.writable)
            });
            if let Some(other) = other {
                let name = store
                    .try_read(&format!("/local/domain/{}/name", other.at.domid))
                    .ok()
                    .flatten()
                    .unwrap_or_default();
                let way = if other.writable {
                    "writable"
                } else {
                    "read-only"
                };
                return Err(in_use(format!(
                    "domain {} ({name}) as {}, {way}",
                    other.at.domid, other.name
                )));
            }
            let Some(left) = loops.iter().find(|it| {
                Data::File(it.file) == data
                    && (mode.writable() || !it.read_only)
                    && !guests.iter().any(|guest| guest.number == it.number)
            }) else {
                return Ok(());
            };
            if Instant::now() >= patience {
                return Err(in_use(format!(
                    "domain 0, which has it as /dev/loop{}",
                    left.index
                )));
            }
            sleep(LOOP_RETRY);
        }
    }

    fn check_writable_mounts(&self, device: &str, path: &Path, number: Number) -> Result<()> {
        let mounts = self.kernel.mounts().map_err(|error| {
            about(
                Code::System,
                device,
                format_args!("mounts cannot be listed: {error}"),
            )
        })?;
        match mounts
            .iter()
            .find(|mount| mount.number == number && mount.writable)
        {
            Some(mount) => Err(about(
                Code::DiskInUse,
                device,
                format_args!(
                    "{} is mounted in domain 0 at {}, writable; mode `r!` would ignore that",
                    path.display(),
                    mount.place
                ),
            )),
            None => Ok(()),
        }
    }

    /// Says who in domain 0 has claimed a block device.
    fn busy(&self, device: &str, path: &Path, number: Number) -> crate::Error {
        let mounts: io::Result<_> = self.kernel.mounts();
        let mounted = mounts
            .ok()
            .and_then(|mounts| mounts.into_iter().find(|mount| mount.number == number));
        let holders = self.kernel.holders(number).unwrap_or_default();
        let by = match (mounted, holders.is_empty()) {
            (Some(mount), _) => format!("is mounted in domain 0 at {}", mount.place),
            (None, false) => format!("is part of {} in domain 0", holders.join(", ")),
            (None, true) => {
                "is in use in domain 0, such as for a mounted partition, swap, LVM or RAID"
                    .to_owned()
            }
        };
        about(
            Code::DiskInUse,
            device,
            format_args!("{} {by}; mode `w!` would ignore that", path.display()),
        )
    }
}

/// The disks of all guests that domain 0 serves.
fn guest_uses(store: &Store, loops: &[LoopUse]) -> oxen_xenstore::Result<Vec<GuestUse>> {
    let mut uses = Vec::new();
    let children = |path: &str| match store.directory(path) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        found => found,
    };
    let root = "/local/domain/0/backend/vbd";
    for domid in children(root)?
        .iter()
        .filter_map(|name| name.parse::<u16>().ok())
    {
        for devid in children(&format!("{root}/{domid}"))?
            .iter()
            .filter_map(|name| name.parse::<u32>().ok())
        {
            let at = Address {
                kind: Kind::Vbd,
                domid,
                devid,
            };
            let node = |name: &str| store.try_read(&format!("{}/{name}", at.backend()));
            let Some(number) = node("physical-device")?.and_then(|text| Number::parse(&text))
            else {
                continue;
            };
            let data = loops
                .iter()
                .find(|it| it.number == number)
                .map_or(Data::Device(number), |it| Data::File(it.file));
            // What is not said to be read-only may write.
            let writable = node("mode")?.is_none_or(|mode| mode != "r");
            let name = node("dev")?.unwrap_or_else(|| devid.to_string());
            uses.push(GuestUse {
                at,
                number,
                data,
                writable,
                name,
            });
        }
    }
    Ok(uses)
}
