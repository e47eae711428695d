//! Disks.

use crate::bus::{Address, Kind, Nodesets, publish};
use crate::error::{about, store as in_store};
use crate::kernel::{NewLoop, Number, Target};
use crate::script::Step;
use crate::sharing::Data;
use crate::{Code, Devices, Guest, Result};
use oxen_guest_config::{BlockBackend, Disk, DiskFormat};
use oxen_xend_api::BlockDevice;
use oxen_xenstore::{Nodes, Store};
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

/// The unit of a disk's length, in bytes.
const SECTOR: u64 = 512;

/// A disk that is ready for its back end.
struct Ready {
    /// Keeps the data claimed.
    file: File,
    number: Number,
    /// The block device's path.
    node: String,
    /// `phy` or `file`.
    kind: &'static str,
}

impl Devices {
    /// Checks that a disk can be attached: that its data are there, can be read, and written if the mode says so, and that nobody
    /// else's use forbids it.
    ///
    /// # Errors
    ///
    /// `bad-disk`, `disk-in-use`, `xenstore`, `system`, `unsupported`.
    pub fn check_disk(&self, store: &Store, disk: &Disk) -> Result<()> {
        let device = format!("disk {}", disk.vdev);
        check_supported(&device, disk)?;
        match &disk.script {
            Some(script) => self.check_script(Code::BadDisk, &device, script).map(drop),
            None => {
                let data = self.data(&device, disk)?;
                self.claim(
                    store,
                    &device,
                    Path::new(&disk.target),
                    data,
                    disk.mode,
                    None,
                )
                .map(drop)
            }
        }
    }

    /// Attaches a disk to a guest, which runs or is about to. The guest's driver connects when it likes.
    ///
    /// # Errors
    ///
    /// Like [`Devices::check_disk`], and `script-failed` and `timeout`. Nothing is left behind.
    pub fn attach_disk(&self, store: &Store, guest: &Guest, disk: &Disk) -> Result<BlockDevice> {
        let device = label(guest, disk.vdev.name());
        check_supported(&device, disk)?;
        let at = Address {
            kind: Kind::Vbd,
            domid: guest.domid,
            devid: disk.vdev.number(),
        };
        self.check_new(store, at, &device)?;
        let attached = match &disk.script {
            Some(script) => self.attach_by_script(store, at, &device, disk, script),
            None => self.attach_directly(store, at, &device, disk),
        };
        match attached.and_then(|()| self.block(store, at)) {
            Ok(block) => Ok(block),
            Err(error) => {
                // The first failure is the one to tell.
                let _ = self.withdraw(store, at, &device);
                Err(error)
            }
        }
    }

    /// Takes a disk away from a running guest. `device` is its name in the guest or its number. With `force` it is pulled out: it is served until the guest has let go, for five seconds at most.
    ///
    /// # Errors
    ///
    /// `no-such-device`; `guest-refuses` when the guest says that it still uses it, `timeout` when it says nothing; then the disk
    /// goes as soon as the guest lets go of it.
    pub fn detach_disk(
        &self,
        store: &Store,
        guest: &Guest,
        device: &str,
        force: bool,
    ) -> Result<()> {
        let name = label(guest, device);
        let Ok(vdev) = device.parse::<oxen_guest_config::Vdev>() else {
            return Err(about(
                Code::NoSuchDevice,
                &name,
                "this is no name of a disk",
            ));
        };
        let at = Address {
            kind: Kind::Vbd,
            domid: guest.domid,
            devid: vdev.number(),
        };
        self.remove(store, at, &name, force)
    }

    fn attach_directly(&self, store: &Store, at: Address, device: &str, disk: &Disk) -> Result<()> {
        {
            let _choosing = self.choosing();
            let ready = self.ready(store, at, device, disk)?;
            let mut nodes = nodes(disk, ready.kind);
            nodes
                .backend
                .push(("physical-device", ready.number.to_string()));
            nodes.backend.push(("physical-device-path", ready.node));
            nodes
                .backend
                .push(("hotplug-status", "connected".to_owned()));
            nodes
                .backend
                .push(("script", self.script_path("block").display().to_string()));
            publish(store, at, &nodes).map_err(in_store(device))?;
            self.held().insert((at.domid, at.devid), ready.file);
        }
        self.wait_for_backend(store, at, device, self.settings.block_timeout)
    }

    fn attach_by_script(
        &self,
        store: &Store,
        at: Address,
        device: &str,
        disk: &Disk,
        script: &str,
    ) -> Result<()> {
        let script = self.check_script(Code::BadDisk, device, script)?;
        let mut nodes = nodes(disk, "phy");
        nodes.backend.push(("script", script.display().to_string()));
        nodes.record.push(("setup", "script".to_owned()));
        publish(store, at, &nodes).map_err(in_store(device))?;
        self.wait_for_backend(store, at, device, self.settings.block_timeout)?;
        self.run_script(store, &script, Step::Add, at, device, None)?;
        let number = store
            .try_read(&format!("{}/physical-device", at.backend()))
            .map_err(in_store(device))?;
        if number.as_deref().and_then(Number::parse).is_none() {
            let why = format!(
                "{} has not said which block device it made (physical-device)",
                script.display()
            );
            return Err(about(Code::ScriptFailed, device, why));
        }
        Ok(())
    }

    /// Claims a disk's data and makes a block device of them.
    fn ready(&self, store: &Store, at: Address, device: &str, disk: &Disk) -> Result<Ready> {
        let data = self.data(device, disk)?;
        let file = self.claim(
            store,
            device,
            Path::new(&disk.target),
            data,
            disk.mode,
            Some(at),
        )?;
        match data {
            Data::Device(number) => Ok(Ready {
                file,
                number,
                node: disk.target.clone(),
                kind: "phy",
            }),
            Data::File(_) => {
                let NewLoop {
                    device: file,
                    index,
                    number,
                } = self
                    .kernel
                    .bind_loop(&file, !disk.mode.writable())
                    .map_err(|error| {
                        about(
                            Code::BadDisk,
                            device,
                            format_args!("no loop device for {}: {error}", disk.target),
                        )
                    })?;
                Ok(Ready {
                    file,
                    number,
                    node: format!("/dev/loop{index}"),
                    kind: "file",
                })
            }
        }
    }

    /// What a disk's target leads to.
    fn data(&self, device: &str, disk: &Disk) -> Result<Data> {
        let bad = |why: String| about(Code::BadDisk, device, format_args!("{} {why}", disk.target));
        let target = self
            .kernel
            .target(Path::new(&disk.target))
            .map_err(|error| {
                bad(match error.kind() {
                    ErrorKind::NotFound => "does not exist".to_owned(),
                    _ => format!("cannot be used: {error}"),
                })
            })?;
        match target {
            Target::Device(number) => Ok(Data::Device(number)),
            Target::File(..) if disk.backend == BlockBackend::Phy => Err(bad(
                "is a file, not a block device; `file:` is for files".to_owned(),
            )),
            Target::File(_, len) if len < SECTOR => Err(bad(format!(
                "has {len} bytes, less than a sector of {SECTOR}"
            ))),
            Target::File(id, _) => Ok(Data::File(id)),
            Target::Other(what) => Err(bad(format!(
                "is {what}; a disk is a file or a block device"
            ))),
        }
    }
}

/// How errors name a disk.
fn label(guest: &Guest, name: &str) -> String {
    format!("disk {name} of {}", guest.name)
}

/// Refuses what cannot be.
fn check_supported(device: &str, disk: &Disk) -> Result<()> {
    if let Some(domain) = disk
        .backend_domain
        .as_deref()
        .filter(|domain| !matches!(*domain, "0" | "Domain-0"))
    {
        return Err(about(
            Code::Unsupported,
            device,
            format_args!(
                "its back end would be in domain {domain}; disks are served by domain 0 only"
            ),
        ));
    }
    if disk.target.is_empty() {
        return Err(about(
            Code::BadDisk,
            device,
            "an empty drive is of no use to a paravirtual guest",
        ));
    }
    if disk.format != DiskFormat::Raw && disk.script.is_none() {
        let why = format!(
            "format {format} is not supported; `qemu-img convert -f {format} -O raw {target} NEW` makes a raw image of it",
            format = disk.format,
            target = disk.target
        );
        return Err(about(Code::BadDisk, device, why));
    }
    Ok(())
}

/// The nodes of a disk, as Xen's tools write them.
fn nodes(disk: &Disk, kind: &str) -> Nodesets {
    let device_type = if disk.cdrom { "cdrom" } else { "disk" };
    let flag = |on: bool| String::from(if on { "1" } else { "0" });
    Nodesets {
        frontend: vec![
            ("virtual-device", disk.vdev.number().to_string()),
            ("device-type", device_type.to_owned()),
        ],
        backend: vec![
            ("params", disk.target.clone()),
            ("removable", flag(disk.cdrom)),
            ("bootable", flag(true)),
            ("dev", disk.vdev.name().to_owned()),
            ("type", "phy".to_owned()),
            (
                "mode",
                String::from(if disk.mode.writable() { "w" } else { "r" }),
            ),
            ("device-type", device_type.to_owned()),
            (
                "discard-enable",
                flag(disk.discard.unwrap_or(disk.mode.writable())),
            ),
        ],
        record: vec![("kind", kind.to_owned())],
    }
}
