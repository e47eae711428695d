//! Whether a configuration makes sense as a whole.

use crate::{
    Action, BlockBackend, Disk, DiskFormat, Error, GuestConfig, GuestKind, MAX_VCPUS, OnDaemonStop,
};
use std::collections::HashSet;

/// The longest name, in bytes; longer ones do not fit the columns and nodes that Xen's tools show them in.
const MAX_NAME: usize = 255;

/// The most memory that is believed to be meant, in MiB: 4 PiB.
const MAX_MEMORY_MIB: u64 = 1 << 32;

impl GuestConfig {
    /// Everything that is wrong with the configuration, whatever the host is like.
    ///
    /// Everyone who takes a configuration from somebody else calls this: the daemon on what clients send, the command line on what
    /// it has read.
    pub fn check(&self) -> Vec<Error> {
        let mut errors = Vec::new();
        self.check_identity(&mut errors);
        self.check_boot(&mut errors);
        self.check_resources(&mut errors);
        self.check_devices(&mut errors);
        self.check_actions(&mut errors);
        errors
    }

    fn check_identity(&self, errors: &mut Vec<Error>) {
        match self.kind {
            GuestKind::Pv => {}
            GuestKind::Pvh => errors.push(unsupported("type", "pvh")),
            GuestKind::Hvm => errors.push(unsupported("type", "hvm")),
        }
        if let Err(problem) = check_name(&self.name) {
            errors.push(Error::new("name", problem));
        }
        if self.uuid.is_some_and(|uuid| uuid.is_nil()) {
            errors.push(Error::new("uuid", "all zeros is domain 0's"));
        }
    }

    fn check_boot(&self, errors: &mut Vec<Error>) {
        match (&self.kernel, &self.bootloader) {
            (None, None) => errors.push(Error::new(
                "kernel",
                "neither `kernel` nor `bootloader` is given; name a kernel file of domain 0, or set bootloader=\"builtin\" to boot \
                 from the guest's own disk",
            )),
            (None, Some(loader)) if loader.is_builtin() && self.disks.is_empty() => {
                errors.push(Error::new("bootloader", "there is no disk to boot from"));
            }
            _ => {}
        }
        for (option, value) in [("kernel", &self.kernel), ("ramdisk", &self.ramdisk)] {
            if value
                .as_ref()
                .is_some_and(|path| path.is_empty() || path.contains('\0'))
            {
                errors.push(Error::new(
                    option,
                    "the path is empty or has a zero byte in it",
                ));
            }
        }
        if self.kernel.is_none() && self.ramdisk.is_some() {
            errors.push(Error::new("ramdisk", "it is given without `kernel`"));
        }
        if self.command_line().contains('\0') {
            errors.push(Error::new(
                "extra",
                "there is a zero byte in the command line",
            ));
        }
    }

    fn check_resources(&self, errors: &mut Vec<Error>) {
        if !(1..=MAX_MEMORY_MIB).contains(&self.memory_mib) {
            errors.push(Error::new(
                "memory",
                format!("`{}` is no size; expected MiB, 1 or more", self.memory_mib),
            ));
        }
        if self.max_memory_mib().checked_sub(self.memory_mib).is_none()
            || self.max_memory_mib() > MAX_MEMORY_MIB
        {
            errors.push(Error::new(
                "maxmem",
                format!(
                    "`{}` is less than memory (`{}` MiB), or more than any machine has",
                    self.max_memory_mib(),
                    self.memory_mib
                ),
            ));
        }
        if !(1..=MAX_VCPUS).contains(&self.vcpus) {
            errors.push(Error::new(
                "vcpus",
                format!("`{}` is not within 1 to {MAX_VCPUS}", self.vcpus),
            ));
        }
        if !(self.vcpus..=MAX_VCPUS).contains(&self.max_vcpus()) {
            errors.push(Error::new(
                "maxvcpus",
                format!(
                    "`{}` is not within vcpus (`{}`) and {MAX_VCPUS}",
                    self.max_vcpus(),
                    self.vcpus
                ),
            ));
        }
        if self.cpu_weight == Some(0) {
            errors.push(Error::new("cpu_weight", "`0` is not within 1 to 65535"));
        }
        let most = self.max_vcpus().saturating_mul(100);
        if u32::from(self.cap_percent()) > most {
            errors.push(Error::new(
                "cpu_cap",
                format!(
                    "`{}` is more than {most}, which is 100 for each vCPU",
                    self.cap_percent()
                ),
            ));
        }
        if self
            .limits
            .max_grant_version
            .is_some_and(|version| !(1..=2).contains(&version))
        {
            errors.push(Error::new("max_grant_version", "expected 1 or 2"));
        }
    }

    fn check_devices(&self, errors: &mut Vec<Error>) {
        let mut vdevs = HashSet::new();
        for (i, disk) in self.disks.iter().enumerate() {
            let option = format!("disk[{i}]");
            errors.extend(check_disk(disk).map(|problem| Error::new(&option, problem)));
            if !vdevs.insert(disk.vdev.number()) {
                errors.push(Error::new(
                    option,
                    format!("there are two disks `{}`", disk.vdev),
                ));
            }
        }
        let (mut macs, mut devids) = (HashSet::new(), HashSet::new());
        for (i, vif) in self.vifs.iter().enumerate() {
            if vif.mac.is_some_and(|mac| !macs.insert(mac)) {
                errors.push(Error::new(
                    format!("vif[{i}]"),
                    "another card of this guest has the same mac",
                ));
            }
            if vif.devid.is_some_and(|devid| !devids.insert(devid)) {
                errors.push(Error::new(
                    format!("vif[{i}]"),
                    "another card of this guest has the same devid",
                ));
            }
        }
    }

    fn check_actions(&self, errors: &mut Vec<Error>) {
        let actions = [
            ("on_poweroff", self.on_poweroff),
            ("on_reboot", self.on_reboot),
            ("on_crash", self.on_crash),
            ("on_watchdog", self.on_watchdog),
        ];
        for (option, action) in actions {
            if action == Action::SoftReset {
                errors.push(unsupported(option, action.as_str()));
            }
        }
        if self.on_xend_stop == OnDaemonStop::Suspend {
            errors.push(unsupported("on_xend_stop", self.on_xend_stop.as_str()));
        }
    }
}

/// Whether a guest may have this name; the error says why not.
///
/// # Errors
///
/// When the name is empty, too long, has characters that paths of the store and file names cannot have, looks like a domain's id
/// or is domain 0's.
pub fn check_name(name: &str) -> std::result::Result<(), String> {
    if name.is_empty() {
        return Err("it is not given; expected the guest's name".to_owned());
    }
    if name.len() > MAX_NAME {
        return Err(format!(
            "it has {} bytes; expected at most {MAX_NAME}",
            name.len()
        ));
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || "_-.:+@".contains(c);
    if let Some(bad) = name.chars().find(|c| !legal(*c)) {
        return Err(format!(
            "`{name}` has {bad:?} in it; expected letters, digits and any of _ - . : + @"
        ));
    }
    if name.starts_with(['.', '-']) {
        return Err(format!("`{name}` starts with a dot or a dash"));
    }
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "`{name}` would be taken for a domain's id; expected a letter in it"
        ));
    }
    if name == "Domain-0" {
        return Err("`Domain-0` is domain 0's name".to_owned());
    }
    Ok(())
}

/// What is wrong with a disk.
fn check_disk(disk: &Disk) -> Option<String> {
    if disk.format != DiskFormat::Raw {
        return Some(format!(
            "format {} is not supported; convert the image with `qemu-img convert -O raw`",
            disk.format
        ));
    }
    if disk.target.is_empty() {
        return (!disk.cdrom).then(|| format!("`{}` has no target", disk.vdev));
    }
    if disk.cdrom && disk.mode.writable() {
        return Some(format!(
            "the CD drive `{}` cannot be written; expected access r",
            disk.vdev
        ));
    }
    if disk.target.contains('\0') {
        return Some("there is a zero byte in the target".to_owned());
    }
    let path_wanted = disk.script.is_none() || disk.backend != BlockBackend::Auto;
    (path_wanted && !disk.target.starts_with('/'))
        .then(|| format!("`{}` is no absolute path", disk.target))
}

/// The error for something that exists in Xen but not here.
fn unsupported(option: &str, value: &str) -> Error {
    Error::new(option, format!("`{value}` is not supported yet"))
}
