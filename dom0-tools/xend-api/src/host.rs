//! The host.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// The version of the interface, [`crate::VERSION`].
    pub api: u32,
    /// The daemon's version.
    pub daemon: String,
    /// The daemon's process id.
    pub pid: u32,
    /// When it started, in seconds since 1970.
    pub started_at: u64,
}

/// The host as the hypervisor describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// The hypervisor's version, such as `4.17-oxen`.
    pub hypervisor: String,
    /// What kinds of guests it runs.
    pub capabilities: String,
    /// The scheduler's name.
    pub scheduler: String,
    /// Number of pCPUs.
    pub nr_cpus: u32,
    /// Their clock in kHz.
    pub cpu_khz: u32,
    /// NUMA nodes.
    pub nr_nodes: u32,
    /// Memory in KiB.
    pub memory_kib: u64,
    /// Free memory in KiB, claims not taken off.
    pub free_memory_kib: u64,
    /// Memory promised to guests under construction, in KiB.
    pub claimed_memory_kib: u64,
    /// Number of domains, domain 0 included.
    pub nr_domains: u32,
    /// What domain 0 keeps at least, in KiB.
    pub dom0_min_memory_kib: u64,
    /// The pCPUs.
    #[serde(default)]
    pub cpus: Vec<Cpu>,
}

/// A pCPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cpu {
    /// Its number.
    pub cpu: u32,
    /// Its core.
    pub core: u32,
    /// Its socket.
    pub socket: u32,
    /// Its NUMA node.
    pub node: u32,
}
