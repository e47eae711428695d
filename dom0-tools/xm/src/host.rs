//! Asks the hypervisor and domain 0's kernel.

use crate::machine::Machine;
use crate::model::{Cpu, Domain, HostFacts, Info, Kernel, Node, Topology, Uptime, Vcpu};
use oxen_abi::Errno;
use oxen_abi::domctl::SchedulerId;
use oxen_abi::sysctl::XEN_INVALID_CORE_ID;
use oxen_xenctl::{CpuMap, Error, Result, Xen};
use oxen_xenstore::{Nodes, Store};
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The hypervisor's page size on x86, in which it counts memory.
const PAGE_SIZE: u64 = 4096;

/// The hypervisor under this domain 0.
pub struct Host<'m> {
    machine: &'m Machine,
    xen: Xen,
}

impl<'m> Host<'m> {
    /// Connects to the hypervisor.
    pub fn open(machine: &'m Machine) -> Result<Self> {
        Ok(Self {
            machine,
            xen: (machine.hypervisor)()?,
        })
    }

    /// The connection, for those who ask more.
    pub fn xen(&self) -> &Xen {
        &self.xen
    }

    /// Everything for `xm info`; `numa` adds the topology.
    pub fn info(&self, numa: bool) -> Result<Info> {
        let phys = self.xen.physinfo()?;
        let nr_cpus = phys.max_cpu_id.saturating_add(1);
        let facts = HostFacts {
            kernel: kernel(&self.machine.root),
            version: self.xen.version()?,
            phys,
            scheduler: optional(self.xen.scheduler())?.map(scheduler_name),
            sharing: optional(self.xen.sharing())?,
            free_cpus: optional(self.xen.free_cpus(nr_cpus))?
                .map(|cpus| cpus.members().len() as u64),
            domain_pages: optional(self.xen.domains())?
                .map(|domains| domains.iter().map(|info| info.tot_pages).sum()),
            topology: if numa { Some(self.topology()?) } else { None },
        };
        Ok(facts.into())
    }

    /// All domains.
    pub fn domains(&self) -> Result<Vec<Domain>> {
        let infos = self.xen.domains()?;
        // Without guests nobody needs xenstore, which may not even run.
        let store = if infos.len() > 1 { self.machine.store() } else { None };
        Ok(infos
            .iter()
            .map(|info| Domain::new(info, domain_name(store.as_ref(), info.domain), PAGE_SIZE))
            .collect())
    }

    /// The vCPUs of `domains`. Domains that go away meanwhile are left out.
    pub fn vcpus(&self, domains: Vec<Domain>) -> Result<Vec<Vcpu>> {
        let nr_cpus = self.xen.physinfo()?.max_cpu_id.saturating_add(1);
        let all = self.present_cpus(nr_cpus)?;
        let mut vcpus = Vec::new();
        for domain in &domains {
            match self.vcpus_of(domain, nr_cpus, &all) {
                Ok(found) => vcpus.extend(found),
                Err(Error::NoSuchDomain { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(vcpus)
    }

    /// The vCPUs of `domain`.
    fn vcpus_of(&self, domain: &Domain, nr_cpus: u32, all: &CpuMap) -> Result<Vec<Vcpu>> {
        let mut vcpus = Vec::new();
        for number in 0..domain.max_vcpus {
            if let Some(info) = self.xen.vcpu(domain.id, number)? {
                let affinity = optional(self.xen.vcpu_affinity(domain.id, number, nr_cpus))?;
                vcpus.push(Vcpu::new(domain, &info, affinity.as_ref(), all));
            }
        }
        Ok(vcpus)
    }

    /// The pCPUs that are present; all numbers below `nr_cpus` when the hypervisor does not say.
    fn present_cpus(&self, nr_cpus: u32) -> Result<CpuMap> {
        let every = || vec![u8::MAX; nr_cpus.div_ceil(8) as usize];
        let bytes = match optional(self.xen.cpu_topology())? {
            None => every(),
            Some(cpus) => cpus
                .chunks(8)
                .map(|chunk| {
                    chunk.iter().rev().fold(0, |byte, cpu| {
                        byte << 1 | u8::from(cpu.core != XEN_INVALID_CORE_ID)
                    })
                })
                .collect(),
        };
        Ok(CpuMap::from_bytes(&bytes, nr_cpus))
    }

    /// Where processors and memory are.
    fn topology(&self) -> Result<Topology> {
        let cpus = (0..).zip(self.xen.cpu_topology()?);
        Ok(Topology {
            cpus: cpus
                .filter(|(_, topo)| topo.core != XEN_INVALID_CORE_ID)
                .map(|(cpu, topo)| Cpu {
                    cpu,
                    core: topo.core,
                    socket: topo.socket,
                    node: topo.node,
                })
                .collect(),
            nodes: self.xen.numa_nodes()?.into_iter().map(Node::new).collect(),
        })
    }

    /// The hypervisor's messages; `clear` forgets them.
    pub fn dmesg(&self, clear: bool) -> Result<Vec<u8>> {
        self.xen.read_console(clear)
    }

    /// Presses `keys` on the hypervisor's console.
    pub fn debug_keys(&self, keys: &str) -> Result<()> {
        self.xen.debug_keys(keys)
    }
}

/// How long `domains` have been running. Domain 0's start is known to its own kernel, the others' to xenstore.
pub fn uptimes(machine: &Machine, domains: Vec<Domain>) -> Vec<Uptime> {
    let own = fs::read_to_string(machine.root.join("proc/uptime")).ok().and_then(|text| parse_uptime(&text));
    let store = if domains.iter().any(|domain| domain.id != 0) { machine.store() } else { None };
    let uptime = |domain: Domain| Uptime {
        uptime_s: if domain.id == 0 { own } else { store.as_ref().and_then(|store| running_since(store, domain.id)) },
        name: domain.name,
        id: domain.id,
    };
    domains.into_iter().map(uptime).collect()
}

/// Seconds since the start of a guest.
fn running_since(store: &Store, domid: u16) -> Option<u64> {
    let vm = store.try_read(&format!("/local/domain/{domid}/vm")).ok()??;
    let start: f64 = store.try_read(&format!("{vm}/start_time")).ok()??.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(now.as_secs().saturating_sub(start as u64))
}

/// The whole seconds in the first word of `/proc/uptime`.
fn parse_uptime(text: &str) -> Option<u64> {
    text.split(['.', ' ']).next()?.parse().ok()
}

/// A domain's name. Only domain 0's is fixed; the others' are in xenstore.
fn domain_name(store: Option<&Store>, domid: u16) -> Option<String> {
    if domid == 0 {
        return Some("Domain-0".to_owned());
    }
    store?.try_read(&format!("/local/domain/{domid}/name")).ok()?
}

/// A part of the answer that a hypervisor need not offer.
fn optional<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if matches!(
                error.errno(),
                Some(Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::ENODEV)
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The scheduler's name as Xen's tools have it.
fn scheduler_name(scheduler: SchedulerId) -> String {
    match scheduler {
        SchedulerId::CREDIT => "credit".to_owned(),
        SchedulerId::CREDIT2 => "credit2".to_owned(),
        SchedulerId::ARINC653 => "arinc653".to_owned(),
        SchedulerId::RTDS => "rtds".to_owned(),
        SchedulerId::NULL => "null".to_owned(),
        other => format!("unknown ({})", other.raw()),
    }
}

/// What the kernel says about itself in its files below `root`.
fn kernel(root: &Path) -> Kernel {
    let read = |name: &str| {
        let text = fs::read_to_string(root.join("proc/sys/kernel").join(name)).unwrap_or_default();
        text.trim_end().to_owned()
    };
    Kernel {
        host: read("hostname"),
        release: read("osrelease"),
        version: read("version"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_is_cut_to_seconds() {
        assert_eq!(parse_uptime("350735.47 234388.90\n"), Some(350_735));
        assert_eq!(parse_uptime(""), None);
    }

    #[test]
    fn missing_parts_are_no_failure() {
        assert!(matches!(
            optional::<()>(Err(Error::NotImplemented { call: "x" })),
            Ok(None)
        ));
        assert!(optional::<()>(Err(Error::NotControlDomain { call: "x" })).is_err());
    }

    #[test]
    fn schedulers_have_the_names_of_xen_s_tools() {
        assert_eq!(scheduler_name(SchedulerId::CREDIT2), "credit2");
        assert_eq!(scheduler_name(SchedulerId(77)), "unknown (77)");
    }
}
