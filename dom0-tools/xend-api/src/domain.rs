//! Domains and their devices.

use oxen_guest_config::GuestConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A guest or domain 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Domain {
    /// Its UUID.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// Its domain id; `None` while it does not run.
    pub domid: Option<u16>,
    /// Where it is in its life.
    pub state: State,
    /// What its vCPUs do.
    pub flags: Flags,
    /// Why it shut down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Whether it is kept when it does not run.
    pub managed: bool,
    /// Its memory in KiB.
    pub memory_kib: u64,
    /// The memory that its balloon driver was told to reach, in KiB; `None` when nobody told it.
    pub target_kib: Option<u64>,
    /// The most memory that it may have, in KiB; `None` without limit.
    pub max_memory_kib: Option<u64>,
    /// Its vCPUs that are online.
    pub vcpus: u32,
    /// Its number of vCPUs.
    pub max_vcpus: u32,
    /// Processor time in nanoseconds.
    pub cpu_time_ns: u64,
    /// When it started, in seconds since 1970.
    pub started_at: Option<u64>,
    /// The pool of pCPUs that it belongs to.
    pub cpupool: u32,
    /// Weight and cap; `None` while it does not run or the scheduler has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<crate::Scheduling>,
    /// The terminal of its console.
    pub console: Option<String>,
    /// What is being done with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy: Option<Busy>,
    /// Its configuration; `None` for domain 0 and for guests that others created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub config: Option<Box<GuestConfig>>,
}

/// Where a guest is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Known, not running.
    #[default]
    Halted,
    /// Being built.
    Creating,
    /// Running, or waiting for something to do.
    Running,
    /// Stopped by its administrator.
    Paused,
    /// Asked to shut down, has not done so yet.
    ShuttingDown,
    /// Has shut down; its memory is still there.
    Shutdown,
    /// Has crashed; its memory is still there.
    Crashed,
    /// Being destroyed.
    Dying,
}

/// What a domain's vCPUs do, as the hypervisor says; several can hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Flags {
    /// Some vCPU is on a pCPU.
    pub running: bool,
    /// All vCPUs wait.
    pub blocked: bool,
    /// Paused by its controller.
    pub paused: bool,
    /// Has shut down.
    pub shutdown: bool,
    /// Has shut down because it crashed.
    pub crashed: bool,
    /// Is being destroyed.
    pub dying: bool,
}

/// Why a guest shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It powered off.
    Poweroff,
    /// It wants to be started again.
    Reboot,
    /// It was saved.
    Suspend,
    /// It crashed.
    Crash,
    /// Its watchdog expired.
    Watchdog,
    /// It wants its devices taken away.
    SoftReset,
    /// A reason that this version does not know.
    Unknown,
}

/// What is being done with a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Busy {
    /// The operation.
    pub operation: String,
    /// Its task.
    pub task: Option<u64>,
    /// Since when, in seconds since 1970.
    pub since: u64,
}

/// A vCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Vcpu {
    /// Its number.
    pub vcpu: u32,
    /// The pCPU that it is on, or was on last; `None` while offline.
    pub cpu: Option<u32>,
    /// Whether it takes part.
    pub online: bool,
    /// On a pCPU.
    pub running: bool,
    /// Waits.
    pub blocked: bool,
    /// Processor time in nanoseconds.
    pub cpu_time_ns: u64,
    /// The pCPUs that it may run on, such as `0-3,5`.
    pub hard_affinity: String,
    /// The pCPUs that it had better run on.
    pub soft_affinity: String,
}

/// A state of one end of a device (XenbusState of the public interface).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceState {
    /// Not there, or no number that is a state.
    #[default]
    Unknown,
    /// 1.
    Initialising,
    /// 2.
    InitWait,
    /// 3.
    Initialised,
    /// 4.
    Connected,
    /// 5.
    Closing,
    /// 6.
    Closed,
    /// 7.
    Reconfiguring,
    /// 8.
    Reconfigured,
}

/// What all devices have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Device {
    /// The device's number.
    pub id: u32,
    /// The domain of the back end.
    pub backend_domid: u16,
    /// The back end's xenstore directory.
    pub backend: String,
    /// The front end's xenstore directory.
    pub frontend: String,
    /// The back end's state.
    pub backend_state: DeviceState,
    /// The front end's state.
    pub frontend_state: DeviceState,
    /// The front end's event channel.
    pub event_channel: Option<u32>,
}

/// A disk of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlockDevice {
    /// What all devices have.
    #[serde(flatten)]
    pub device: Device,
    /// Its name in the guest, such as `xvda`.
    pub name: String,
    /// `phy`, `file`, ...
    pub kind: String,
    /// The device or file behind it.
    pub target: String,
    /// Whether the guest may write.
    pub writable: bool,
    /// Its ring's grant.
    pub ring_ref: Option<u32>,
}

/// A network card of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkDevice {
    /// What all devices have.
    #[serde(flatten)]
    pub device: Device,
    /// Its address.
    pub mac: String,
    /// The bridge that it is on.
    pub bridge: Option<String>,
    /// The guest's IP addresses, as configured.
    pub ip: Option<String>,
    /// Its name in domain 0.
    pub interface: String,
    /// Its transmit ring's grant.
    pub tx_ring_ref: Option<u32>,
    /// Its receive ring's grant.
    pub rx_ring_ref: Option<u32>,
}
