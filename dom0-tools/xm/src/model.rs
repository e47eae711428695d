//! What the commands print, as data.

use oxen_abi::domctl::{
    DOMINF_BLOCKED, DOMINF_DYING, DOMINF_HVM_GUEST, DOMINF_PAUSED, DOMINF_RUNNING, DOMINF_SHUTDOWN,
    GetDomainInfo, GetVcpuInfo,
};
use oxen_abi::sched::ShutdownReason;
use oxen_abi::sysctl as abi;
use oxen_abi::sysctl::PhysInfo;
use oxen_xenctl::{CpuMap, VcpuAffinity, VersionInfo};
use serde::{Serialize, Serializer};

/// Bytes in a MiB.
const MIB: u64 = 1 << 20;

/// A domain.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Domain {
    /// Its name; the hypervisor does not know names.
    pub name: Option<String>,
    /// Its id.
    pub id: u16,
    /// Its memory in MiB.
    pub memory_mib: u64,
    /// The most memory that it may have, in MiB; `None` without limit.
    pub max_memory_mib: Option<u64>,
    /// Its vCPUs that are online.
    pub vcpus: u32,
    /// Its highest vCPU number plus one.
    pub max_vcpus: u32,
    /// What it is doing.
    pub state: State,
    /// Processor time in seconds.
    pub cpu_time_s: f64,
    /// `pv` or `hvm`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Its UUID.
    pub uuid: String,
    /// The pool of pCPUs that it belongs to.
    pub cpupool: u32,
}

/// A guest that xend knows and that does not run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Halted {
    /// Its name.
    pub name: String,
    /// It has no id.
    pub id: Option<u16>,
    /// The memory that it gets, in MiB.
    pub memory_mib: u64,
    /// The vCPUs that it gets.
    pub vcpus: u32,
    /// Its UUID.
    pub uuid: String,
}

/// What a domain is doing; several can hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct State {
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
    /// Why it shut down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown_reason: Option<&'static str>,
}

impl Domain {
    /// A domain as the hypervisor describes it, with the name that `name` is.
    pub fn new(info: &GetDomainInfo, name: Option<String>, page_size: u64) -> Self {
        let mib = |pages: u64| pages.saturating_mul(page_size) / MIB;
        let max_memory = mib(info.max_pages);
        Self {
            name,
            id: info.domain,
            memory_mib: mib(info.tot_pages.saturating_add(info.outstanding_pages)),
            // Without a limit, max_pages is the highest number of pages that fits some integer type.
            max_memory_mib: (info.max_pages < u64::from(u32::MAX >> 1)).then_some(max_memory),
            vcpus: info.nr_online_vcpus,
            max_vcpus: info.max_vcpu_id.wrapping_add(1),
            state: State::new(info),
            cpu_time_s: seconds(info.cpu_time),
            kind: if info.flags & DOMINF_HVM_GUEST == 0 {
                "pv"
            } else {
                "hvm"
            },
            uuid: uuid(&info.handle),
            cpupool: info.cpupool,
        }
    }

    /// A domain of which only id and name matter.
    #[cfg(test)]
    pub fn named(id: u16, name: &str) -> Self {
        Self {
            id,
            name: Some(name.to_owned()),
            ..Self::default()
        }
    }
}

impl State {
    /// The state that the hypervisor describes.
    pub fn new(info: &GetDomainInfo) -> Self {
        let has = |flag: u32| info.flags & flag != 0;
        let reason = info.shutdown_reason();
        Self {
            running: has(DOMINF_RUNNING),
            blocked: has(DOMINF_BLOCKED),
            paused: has(DOMINF_PAUSED),
            shutdown: has(DOMINF_SHUTDOWN),
            crashed: reason == Some(ShutdownReason::CRASH),
            dying: has(DOMINF_DYING),
            shutdown_reason: reason.map(|reason| match reason {
                ShutdownReason::POWEROFF => "poweroff",
                ShutdownReason::REBOOT => "reboot",
                ShutdownReason::SUSPEND => "suspend",
                ShutdownReason::CRASH => "crash",
                ShutdownReason::WATCHDOG => "watchdog",
                ShutdownReason::SOFT_RESET => "soft-reset",
                _ => "unknown",
            }),
        }
    }
}

/// A vCPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Vcpu {
    /// Its domain's name.
    pub name: Option<String>,
    /// Its domain's id.
    pub id: u16,
    /// Its number.
    pub vcpu: u32,
    /// The pCPU that it is on, or was on last; `None` while offline.
    pub cpu: Option<u32>,
    /// On a pCPU.
    pub running: bool,
    /// Waits.
    pub blocked: bool,
    /// Processor time in seconds.
    pub cpu_time_s: f64,
    /// Where it may run; `None` when the hypervisor does not say.
    pub hard_affinity: Option<Cpus>,
    /// Where it had better run; `None` when the hypervisor does not say.
    pub soft_affinity: Option<Cpus>,
}

impl Vcpu {
    /// A vCPU of `domain`. `all` is the set of all pCPUs.
    pub fn new(
        domain: &Domain,
        info: &GetVcpuInfo,
        affinity: Option<&VcpuAffinity>,
        all: &CpuMap,
    ) -> Self {
        Self {
            name: domain.name.clone(),
            id: domain.id,
            vcpu: info.vcpu,
            cpu: (info.online != 0).then_some(info.cpu),
            running: info.running != 0,
            blocked: info.blocked != 0,
            cpu_time_s: seconds(info.cpu_time),
            hard_affinity: affinity.map(|affinity| Cpus::new(&affinity.hard, all)),
            soft_affinity: affinity.map(|affinity| Cpus::new(&affinity.soft, all)),
        }
    }
}

/// A set of pCPUs as users read it: `all`, `none` or ranges.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Cpus(pub String);

impl Cpus {
    fn new(set: &CpuMap, all: &CpuMap) -> Self {
        let covers = all.members().iter().all(|cpu| set.members().contains(cpu));
        Self(if covers {
            "all".to_owned()
        } else {
            set.to_string()
        })
    }
}

/// How long a domain has been running.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Uptime {
    /// Its name.
    pub name: Option<String>,
    /// Its id.
    pub id: u16,
    /// Seconds; `None` when nobody recorded when it started.
    pub uptime_s: Option<u64>,
}

/// The value of a line of `xm info`.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Number(u64),
    /// Thousandths.
    Thousandths(u64),
    /// Text.
    Text(String),
    /// Words.
    Words(Vec<&'static str>),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::Thousandths(number) => serializer.serialize_f64(*number as f64 / 1000.0),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Words(words) => words.serialize(serializer),
        }
    }
}

/// `xm info`: lines in order, and the topology where it was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Info {
    /// Keys and values.
    pub lines: Vec<(&'static str, Value)>,
    /// The topology.
    pub topology: Option<Topology>,
}

impl Serialize for Info {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in &self.lines {
            map.serialize_entry(key, value)?;
        }
        if let Some(topology) = &self.topology {
            map.serialize_entry("topology", topology)?;
        }
        map.end()
    }
}

/// Where processors and memory are.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Topology {
    /// The pCPUs that are present.
    pub cpus: Vec<Cpu>,
    /// The nodes.
    pub nodes: Vec<Node>,
}

/// A pCPU.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cpu {
    /// Its number.
    pub cpu: u32,
    /// Its core.
    pub core: u32,
    /// Its socket.
    pub socket: u32,
    /// Its node.
    pub node: u32,
}

/// A NUMA node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    /// Its number.
    pub node: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Free memory in MiB.
    pub free_mib: u64,
    /// Distance to each node.
    pub distances: Vec<u32>,
}

impl Node {
    /// A node as the hypervisor describes it.
    pub fn new(node: oxen_xenctl::NumaNode) -> Self {
        Self {
            node: node.node,
            memory_mib: node.size / MIB,
            free_mib: node.free / MIB,
            distances: node.distances,
        }
    }
}

/// What domain 0's kernel says about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kernel {
    /// Host name.
    pub host: String,
    /// Release.
    pub release: String,
    /// Version.
    pub version: String,
}

/// Everything that `xm info` needs. The optional parts are those that a hypervisor may lack.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    /// The kernel.
    pub kernel: Kernel,
    /// The hypervisor.
    pub version: VersionInfo,
    /// Processors and memory.
    pub phys: PhysInfo,
    /// The scheduler's name.
    pub scheduler: Option<String>,
    /// Pages that sharing freed, pages that are shared.
    pub sharing: Option<(u64, u64)>,
    /// Number of pCPUs in no pool.
    pub free_cpus: Option<u64>,
    /// Pages of all domains together.
    pub domain_pages: Option<u64>,
    /// The topology, where it was asked for.
    pub topology: Option<Topology>,
}

impl From<HostFacts> for Info {
    fn from(facts: HostFacts) -> Self {
        let mut lines = Vec::new();
        kernel_lines(&mut lines, &facts);
        processor_lines(&mut lines, &facts);
        memory_lines(&mut lines, &facts);
        version_lines(&mut lines, facts.version, facts.scheduler);
        Self {
            lines,
            topology: facts.topology,
        }
    }
}

impl HostFacts {
    /// Whether the hypervisor is Oxen, not another one with the same interface.
    fn is_oxen(&self) -> bool {
        self.version.extra.contains("Oxen")
    }
}

type Lines = Vec<(&'static str, Value)>;

fn kernel_lines(lines: &mut Lines, facts: &HostFacts) {
    lines.push(("host", Value::Text(facts.kernel.host.clone())));
    lines.push(("release", Value::Text(facts.kernel.release.clone())));
    lines.push(("version", Value::Text(facts.kernel.version.clone())));
    lines.push(("machine", Value::Text(std::env::consts::ARCH.to_owned())));
}

fn processor_lines(lines: &mut Lines, facts: &HostFacts) {
    let phys = &facts.phys;
    let number = |value: u32| Value::Number(u64::from(value));
    lines.push(("nr_cpus", number(phys.nr_cpus)));
    lines.push(("max_cpu_id", number(phys.max_cpu_id)));
    lines.push(("nr_nodes", number(phys.nr_nodes)));
    lines.push(("cores_per_socket", number(phys.cores_per_socket)));
    lines.push(("threads_per_core", number(phys.threads_per_core)));
    lines.push(("cpu_mhz", Value::Thousandths(u64::from(phys.cpu_khz))));
    let words: Vec<String> = phys
        .hw_cap
        .iter()
        .map(|word| format!("{word:08x}"))
        .collect();
    lines.push(("hw_caps", Value::Text(words.join(":"))));
    lines.push(("virt_caps", Value::Words(virt_caps(phys.capabilities))));
}

/// The names of the host's capabilities. Device assignment is named per kind of guest.
fn virt_caps(capabilities: u32) -> Vec<&'static str> {
    let has = |bits: u32| capabilities & bits == bits;
    let names = [
        (abi::PHYSCAP_PV, "pv"),
        (abi::PHYSCAP_HVM, "hvm"),
        (abi::PHYSCAP_HVM | abi::PHYSCAP_DIRECTIO, "hvm_directio"),
        (abi::PHYSCAP_PV | abi::PHYSCAP_DIRECTIO, "pv_directio"),
        (abi::PHYSCAP_HAP, "hap"),
        (abi::PHYSCAP_SHADOW, "shadow"),
        (abi::PHYSCAP_IOMMU_HAP_PT_SHARE, "iommu_hap_pt_share"),
        (abi::PHYSCAP_VMTRACE, "vmtrace"),
        (abi::PHYSCAP_VPMU, "vpmu"),
        (abi::PHYSCAP_GNTTAB_V1, "gnttab-v1"),
        (abi::PHYSCAP_GNTTAB_V2, "gnttab-v2"),
    ];
    names
        .into_iter()
        .filter(|(bits, _)| has(*bits))
        .map(|(_, name)| name)
        .collect()
}

fn memory_lines(lines: &mut Lines, facts: &HostFacts) {
    let phys = &facts.phys;
    let page_size = u64::from(facts.version.page_size);
    let mib = |pages: u64| Value::Number(pages.saturating_mul(page_size) / MIB);
    lines.push(("total_memory", mib(phys.total_pages)));
    lines.push((
        "free_memory",
        mib(phys.free_pages.saturating_sub(phys.outstanding_pages)),
    ));
    if let Some((freed, shared)) = facts.sharing {
        lines.push(("sharing_freed_memory", mib(freed)));
        lines.push(("sharing_used_memory", mib(shared)));
    }
    lines.push(("outstanding_claims", mib(phys.outstanding_pages)));
    if let Some(domain_pages) = facts.domain_pages.filter(|_| facts.is_oxen()) {
        // What is neither free nor a domain's is the hypervisor's own.
        let pages = phys
            .total_pages
            .saturating_sub(phys.free_pages)
            .saturating_sub(phys.scrub_pages)
            .saturating_sub(domain_pages);
        lines.push((
            "oxen_memory_kb",
            Value::Number(pages.saturating_mul(page_size) / 1024),
        ));
    }
    if let Some(free_cpus) = facts.free_cpus {
        lines.push(("free_cpus", Value::Number(free_cpus)));
    }
}

fn version_lines(lines: &mut Lines, version: VersionInfo, scheduler: Option<String>) {
    let number = |value: u32| Value::Number(u64::from(value));
    lines.push(("xen_major", number(version.major)));
    lines.push(("xen_minor", number(version.minor)));
    let xen_version = format!("{}.{}{}", version.major, version.minor, version.extra);
    lines.push(("xen_extra", Value::Text(version.extra)));
    lines.push(("xen_version", Value::Text(xen_version)));
    lines.push((
        "xen_caps",
        Value::Text(version.capabilities.trim_end().to_owned()),
    ));
    if let Some(scheduler) = scheduler {
        lines.push(("xen_scheduler", Value::Text(scheduler)));
    }
    lines.push(("xen_pagesize", number(version.page_size)));
    lines.push((
        "platform_params",
        Value::Text(format!("virt_start={:#x}", version.virt_start)),
    ));
    lines.push(("xen_changeset", Value::Text(version.changeset)));
    lines.push(("xen_commandline", Value::Text(version.command_line)));
    lines.push(("cc_compiler", Value::Text(version.compiled.compiler)));
    lines.push(("cc_compile_by", Value::Text(version.compiled.by)));
    lines.push(("cc_compile_domain", Value::Text(version.compiled.domain)));
    lines.push(("cc_compile_date", Value::Text(version.compiled.date)));
    if let Some(id) = version.build_id {
        lines.push((
            "build_id",
            Value::Text(id.iter().map(|byte| format!("{byte:02x}")).collect()),
        ));
    }
    lines.push(("xend_config_format", Value::Number(4)));
}

/// The messages of the console ring, line by line.
pub fn lines(ring: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(ring)
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Nanoseconds as seconds.
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// A UUID as text.
fn uuid(handle: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (i, byte) in handle.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
