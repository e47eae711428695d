//! The configuration of a guest.
//!
//! [`GuestConfig`] is what the tools agree on: the command line reads a configuration file into it, the daemon keeps it and builds
//! the guest from it. It travels as JSON; fields that are not given have their defaults, unknown ones are refused, so that a setting
//! is never lost between tools of different versions.
//!
//! The parts that have a spelling of their own in configuration files and on the command line (disks, network cards, sets of
//! processors, rates) implement [`FromStr`](std::str::FromStr) and [`Display`](std::fmt::Display).
#![forbid(unsafe_code)]

mod actions;
mod check;
mod command_line;
mod cpus;
mod disk;
mod error;
mod mac;
mod rate;
mod text;
mod vdev;
mod vif;

pub use actions::{Action, OnDaemonStart, OnDaemonStop};
pub use check::check_name;
pub use command_line::KernelArguments;
pub use cpus::{Affinity, CpuSet, CpuTerm, Cpus};
pub use disk::{BlockBackend, Disk, DiskFormat, DiskMode};
pub use error::{Error, Result};
pub use mac::Mac;
pub use rate::Rate;
pub use uuid::Uuid;
pub use vdev::Vdev;
pub use vif::Vif;

use serde::{Deserialize, Serialize};

/// The most vCPUs that a configuration may ask for, as with Xen's tools; what the hypervisor allows may be less.
pub const MAX_VCPUS: u32 = 512;

/// The weight of a guest that does not set one (`CSCHED_DEFAULT_WEIGHT` of Xen's credit scheduler).
pub const DEFAULT_WEIGHT: u16 = 256;

/// The kind of a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestKind {
    /// Paravirtual.
    #[default]
    Pv,
    /// Paravirtual in hardware-virtualised memory. [`GuestConfig::check`] refuses it.
    Pvh,
    /// Fully virtual. [`GuestConfig::check`] refuses it.
    Hvm,
}

/// What finds the kernel of a guest that does not name one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bootloader {
    /// The program: a path, `builtin` for the built-in reader, which also stands in for `pygrub`, or `pvgrub`.
    pub program: String,
    /// Arguments of the program.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
}

impl Bootloader {
    /// Whether this is the built-in reader: by its name, or by that of Xen's program whose work it does.
    pub fn is_builtin(&self) -> bool {
        let name = self.program.rsplit('/').next().unwrap_or(&self.program);
        matches!(name, "builtin" | "pygrub" | "oxen-bootloader")
    }

    /// Whether the guest starts with GRUB as its kernel, which boots what the guest chooses on its own console.
    pub fn is_pvgrub(&self) -> bool {
        matches!(self.program.as_str(), "pvgrub" | "pvgrub64")
    }
}

/// Where the guest's text console goes, beside the terminal of `xm console`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Console {
    /// Keep a log under `/var/log/xen/console/`; `None` leaves it to the daemon's configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<bool>,
    /// The most bytes of output that are kept while nobody reads; `None` leaves it to the daemon's configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
}

/// Limits of the guest's own tables in the hypervisor; `None` takes the tools' default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The most frames of its grant table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_grant_frames: Option<u32>,
    /// The most frames of its table of foreign grants that it has mapped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_maptrack_frames: Option<u32>,
    /// The highest event channel port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_event_channels: Option<u32>,
    /// The highest grant table version, 1 or 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_grant_version: Option<u32>,
}

/// The configuration of one guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuestConfig {
    /// Its name: unique among the guests of a host.
    pub name: String,
    /// Its identity; `None` asks for a random one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<Uuid>,
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: GuestKind,

    /// Its kernel, a path in domain 0. Either this or `bootloader` is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Its initial RAM disk, a path in domain 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ramdisk: Option<String>,
    /// What its kernel's command line is made of; [`GuestConfig::command_line`] puts it together.
    pub arguments: KernelArguments,
    /// What finds its kernel when `kernel` is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootloader: Option<Bootloader>,
    /// The entry of the guest's own boot menu to take: a number from 0, a title, or `kernel,ramdisk`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootentry: Option<String>,

    /// Memory at start, in MiB.
    pub memory_mib: u64,
    /// The most memory that it may balloon up to, in MiB; `None` is `memory_mib`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory_mib: Option<u64>,

    /// vCPUs that are online at start.
    pub vcpus: u32,
    /// The most vCPUs that it may bring online; `None` is `vcpus`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_vcpus: Option<u32>,
    /// pCPUs that its vCPUs may run on; `None` is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Affinity>,
    /// pCPUs that its vCPUs had better run on; `None` is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus_soft: Option<Affinity>,
    /// Its share of processor time relative to others, 1 to 65535; `None` is [`DEFAULT_WEIGHT`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_weight: Option<u16>,
    /// The most processor time that it gets, in percent of one pCPU; 0 and `None` set no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cap: Option<u16>,

    /// Its network cards; the position is the device number.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vifs: Vec<Vif>,
    /// Its disks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,

    /// What happens when it has shut down.
    pub on_poweroff: Action,
    /// What happens when it wants to reboot.
    pub on_reboot: Action,
    /// What happens when it has crashed.
    pub on_crash: Action,
    /// What happens when its watchdog has run out.
    pub on_watchdog: Action,
    /// Whether it starts with domain 0.
    pub on_xend_start: OnDaemonStart,
    /// What happens to it when domain 0 stops.
    pub on_xend_stop: OnDaemonStop,

    /// Its console.
    pub console: Console,
    /// Limits of its tables in the hypervisor.
    pub limits: Limits,
}

impl Default for GuestConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            uuid: None,
            kind: GuestKind::Pv,
            kernel: None,
            ramdisk: None,
            arguments: KernelArguments::default(),
            bootloader: None,
            bootentry: None,
            memory_mib: 128,
            max_memory_mib: None,
            vcpus: 1,
            max_vcpus: None,
            cpus: None,
            cpus_soft: None,
            cpu_weight: None,
            cpu_cap: None,
            vifs: Vec::new(),
            disks: Vec::new(),
            on_poweroff: Action::Destroy,
            on_reboot: Action::Restart,
            on_crash: Action::Destroy,
            on_watchdog: Action::Destroy,
            on_xend_start: OnDaemonStart::Ignore,
            on_xend_stop: OnDaemonStop::Shutdown,
            console: Console::default(),
            limits: Limits::default(),
        }
    }
}

impl GuestConfig {
    /// The most memory that it may have, in MiB.
    pub fn max_memory_mib(&self) -> u64 {
        self.max_memory_mib.unwrap_or(self.memory_mib)
    }

    /// The number of vCPUs that it is created with.
    pub fn max_vcpus(&self) -> u32 {
        self.max_vcpus.unwrap_or(self.vcpus)
    }

    /// Its weight.
    pub fn weight(&self) -> u16 {
        self.cpu_weight.unwrap_or(DEFAULT_WEIGHT)
    }

    /// The most processor time that it gets, in percent of one pCPU; 0 is no limit.
    pub fn cap_percent(&self) -> u16 {
        self.cpu_cap.unwrap_or(0)
    }

    /// Its kernel's command line.
    pub fn command_line(&self) -> String {
        self.arguments.command_line()
    }
}

#[cfg(test)]
mod tests;
