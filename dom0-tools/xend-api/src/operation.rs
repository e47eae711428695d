//! What can be done with guests.

use oxen_guest_config::{Disk, GuestConfig, Vif};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A request for a new guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Create {
    /// Its configuration. Without a UUID it gets a random one.
    #[schemars(with = "serde_json::Value")]
    pub config: Box<GuestConfig>,
    /// Leave it paused.
    #[serde(default)]
    pub paused: bool,
    /// Keep it when it does not run.
    #[serde(default)]
    pub managed: bool,
    /// Start it; `false` (only for managed guests) only makes it known.
    #[serde(default = "yes")]
    pub start: bool,
}

fn yes() -> bool {
    true
}

/// Something to do with a guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "operation", rename_all = "kebab-case")]
pub enum Operation {
    /// Start a managed guest.
    Start {
        /// Leave it paused.
        #[serde(default)]
        paused: bool,
    },
    /// Forget a managed guest, which must be halted.
    Delete,
    /// Ask the guest to shut down. The task ends when it has done so, or, without `wait_s`, when it has taken note.
    Shutdown {
        /// How.
        #[serde(default)]
        way: ShutdownWay,
        /// How long to wait for it, in seconds.
        #[serde(default)]
        wait_s: Option<u32>,
    },
    /// Ask the guest to shut down and start again.
    Reboot {
        /// How long to wait for it to run again, in seconds.
        #[serde(default)]
        wait_s: Option<u32>,
    },
    /// End it at once.
    Destroy,
    /// Stop its vCPUs.
    Pause,
    /// Let its vCPUs run.
    Unpause,
    /// Give it another name.
    Rename {
        /// The name.
        name: String,
    },
    /// Tell its balloon driver how much memory to have.
    MemSet {
        /// How much, in KiB.
        target_kib: u64,
    },
    /// Set the most memory that it may have.
    MemMax {
        /// How much, in KiB.
        max_kib: u64,
    },
    /// Tell it how many of its vCPUs to use.
    VcpuSet {
        /// How many.
        vcpus: u32,
    },
    /// Say where vCPUs may run.
    VcpuPin {
        /// Which vCPU; `None` for all.
        vcpu: Option<u32>,
        /// The pCPUs that it may run on, such as `0-3,^2` or `all`; `None` leaves that as it is.
        #[serde(default)]
        hard: Option<String>,
        /// The pCPUs that it had better run on; `None` leaves that as it is.
        #[serde(default)]
        soft: Option<String>,
    },
    /// Set weight and cap; what is `None` stays.
    SchedCredit {
        /// The share, relative to other domains' weights; 256 is usual.
        #[serde(default)]
        weight: Option<u16>,
        /// The most processor time, in percent of one pCPU; 0 is no limit.
        #[serde(default)]
        cap: Option<u16>,
    },
    /// Add a disk.
    BlockAttach {
        /// The disk.
        #[schemars(with = "serde_json::Value")]
        disk: Box<Disk>,
    },
    /// Take a disk away.
    BlockDetach {
        /// Its name in the guest or its number.
        device: String,
        /// Pull it out: what the guest holds is still written, for up to five seconds.
        #[serde(default)]
        force: bool,
    },
    /// Add a network card.
    NetworkAttach {
        /// The card.
        #[schemars(with = "serde_json::Value")]
        vif: Box<Vif>,
    },
    /// Take a network card away.
    NetworkDetach {
        /// Its number or its address.
        device: String,
        /// Even if the guest does not let go of it within two seconds.
        #[serde(default)]
        force: bool,
    },
    /// Press a magic system request key.
    Sysrq {
        /// The key.
        key: char,
    },
    /// Write its memory to an ELF core file.
    DumpCore {
        /// Where to; `None` for a name below `/var/lib/xen/dump`.
        #[serde(default)]
        path: Option<String>,
        /// Do not pause it meanwhile.
        #[serde(default)]
        live: bool,
        /// Destroy it afterwards.
        #[serde(default)]
        destroy: bool,
    },
}

impl Operation {
    /// Its name in [`crate::Task::operation`] and [`crate::Busy::operation`].
    pub fn name(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Delete => "delete",
            Self::Shutdown { .. } => "shutdown",
            Self::Reboot { .. } => "reboot",
            Self::Destroy => "destroy",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Rename { .. } => "rename",
            Self::MemSet { .. } => "mem-set",
            Self::MemMax { .. } => "mem-max",
            Self::VcpuSet { .. } => "vcpu-set",
            Self::VcpuPin { .. } => "vcpu-pin",
            Self::SchedCredit { .. } => "sched-credit",
            Self::BlockAttach { .. } => "block-attach",
            Self::BlockDetach { .. } => "block-detach",
            Self::NetworkAttach { .. } => "network-attach",
            Self::NetworkDetach { .. } => "network-detach",
            Self::Sysrq { .. } => "sysrq",
            Self::DumpCore { .. } => "dump-core",
        }
    }
}

/// How a guest is asked to shut down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ShutdownWay {
    /// As if its power button had been pressed.
    #[default]
    Poweroff,
    /// Stop without powering off.
    Halt,
}

/// Weight and cap of a domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Scheduling {
    /// The share, relative to other domains' weights.
    pub weight: u16,
    /// The most processor time, in percent of one pCPU; 0 is no limit.
    pub cap: u16,
}
