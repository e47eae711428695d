//! What the hypervisor and domain 0 count, in Prometheus' text format.
//!
//! [`Snapshot::take`] asks the hypervisor and reads sysfs; [`Snapshot::render`] writes it down. A source that fails leaves its metrics
//! out and is counted in `oxen_scrape_errors`: one domain that ends meanwhile, or a hypervisor without some call, costs nothing else.

#![forbid(unsafe_code)]

mod sysfs;
mod text;

pub use sysfs::{Disk, Interface};

use oxen_abi::domctl::{DOMINF_BLOCKED, DOMINF_PAUSED, DOMINF_RUNNING, DOMINF_SHUTDOWN, GetDomainInfo};
use oxen_abi::event_channel::EvtchnStatus;
use oxen_xenctl::{GrantTableSize, Result, Xen};
use std::path::Path;

/// Bytes of a page.
const PAGE: u64 = 4096;
/// The most ports that a domain is asked for; more need the FIFO layout and are not counted.
const PORTS: u32 = 4096;

/// A vCPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vcpu {
    /// Its number.
    pub vcpu: u32,
    /// Processor time in ns.
    pub cpu_time_ns: u64,
    /// Whether it takes part.
    pub online: bool,
    /// Time in ns that it waited for a pCPU. Xen tells it of domain 0 only.
    pub steal_ns: Option<u64>,
}

/// A domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domain {
    /// Its id.
    pub domid: u16,
    /// Its name.
    pub name: String,
    /// `DOMINF_*` of the public interface.
    pub flags: u32,
    /// Processor time in ns.
    pub cpu_time_ns: u64,
    /// Its memory in bytes.
    pub memory: u64,
    /// The most memory that it may have, in bytes; `None` without limit.
    pub max_memory: Option<u64>,
    /// Its security label.
    pub ssid: u32,
    /// Its vCPUs.
    pub vcpus: Vec<Vcpu>,
    /// Its grant table; `None` when the hypervisor does not tell.
    pub grants: Option<GrantTableSize>,
    /// Its event channels in use; `None` when the hypervisor does not tell.
    pub ports: Option<u64>,
}

/// The host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// pCPUs.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Free memory in bytes.
    pub free: u64,
    /// Memory promised to domains under construction, in bytes.
    pub claimed: u64,
    /// Memory that belongs to no domain and is not free, in bytes: the hypervisor's own.
    pub hypervisor: u64,
}

/// Everything at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The host; `None` when the hypervisor does not tell.
    pub host: Option<Host>,
    /// Its domains.
    pub domains: Vec<Domain>,
    /// Back ends of disks.
    pub disks: Vec<Disk>,
    /// Back ends of network cards.
    pub interfaces: Vec<Interface>,
    /// Sources that failed.
    pub errors: u64,
}

impl Snapshot {
    /// Asks everybody. `name` tells domains' names.
    pub fn take(xen: &Xen, name: impl Fn(u16) -> Option<String>) -> Self {
        Self::take_from(xen, name, Path::new("/"))
    }

    /// As [`Snapshot::take`], with the kernel's files below `root`.
    pub fn take_from(xen: &Xen, name: impl Fn(u16) -> Option<String>, root: &Path) -> Self {
        let mut snapshot = Self::default();
        let infos = xen.domains().unwrap_or_else(|_| {
            snapshot.errors += 1;
            Vec::new()
        });
        snapshot.fill(xen, &infos, name, root);
        for domain in &mut snapshot.domains {
            domain.grants = xen.grant_table_size(domain.domid).ok();
            snapshot.errors += u64::from(domain.grants.is_none());
            domain.ports = ports(xen, domain.domid);
        }
        snapshot
    }

    /// What domains use, without their grant tables and event channels, which take a call for each port.
    ///
    /// # Errors
    ///
    /// When the hypervisor does not list the domains; everything else may be missing.
    pub fn usage(xen: &Xen, name: impl Fn(u16) -> Option<String>, root: &Path) -> Result<Self> {
        let mut snapshot = Self::default();
        snapshot.fill(xen, &xen.domains()?, name, root);
        Ok(snapshot)
    }

    /// Adds the host, the domains that are in `infos`, and the kernel's back ends.
    fn fill(&mut self, xen: &Xen, infos: &[GetDomainInfo], name: impl Fn(u16) -> Option<String>, root: &Path) {
        let owned: u64 = infos.iter().map(|info| info.tot_pages).sum();
        match xen.physinfo() {
            Ok(info) => {
                let pages = |pages: u64| pages.saturating_mul(PAGE);
                let used = info.total_pages.saturating_sub(info.free_pages).saturating_sub(info.scrub_pages);
                self.host = Some(Host {
                    cpus: info.nr_cpus,
                    memory: pages(info.total_pages),
                    free: pages(info.free_pages.saturating_add(info.scrub_pages)),
                    claimed: pages(info.outstanding_pages),
                    hypervisor: pages(used.saturating_sub(owned)),
                });
            }
            Err(_) => self.errors += 1,
        }
        let steal = sysfs::steal_ns(root);
        for info in infos {
            let name = name(info.domain).unwrap_or_else(|| format!("domain-{}", info.domain));
            let domain = self.domain(xen, info, name, &steal);
            self.domains.push(domain);
        }
        (self.disks, self.interfaces) = sysfs::back_ends(root);
    }

    fn domain(&mut self, xen: &Xen, info: &GetDomainInfo, name: String, steal: &[u64]) -> Domain {
        let domid = info.domain;
        let nr_vcpus = info.max_vcpu_id.wrapping_add(1);
        let mut vcpus = Vec::new();
        for vcpu in 0..nr_vcpus {
            match xen.vcpu(domid, vcpu) {
                Ok(Some(state)) => vcpus.push(Vcpu {
                    vcpu,
                    cpu_time_ns: state.cpu_time,
                    online: state.online != 0,
                    steal_ns: self.steal(xen, domid, vcpu).or_else(|| steal.get(vcpu as usize).copied().filter(|_| domid == 0)),
                }),
                Ok(None) => {}
                Err(_) => {
                    self.errors += 1;
                    break;
                }
            }
        }
        Domain {
            domid,
            name,
            flags: info.flags,
            cpu_time_ns: info.cpu_time,
            memory: info.tot_pages.saturating_mul(PAGE),
            // Without a limit, max_pages is the highest number of pages that fits some integer type.
            max_memory: (info.max_pages < u64::from(u32::MAX >> 1)).then_some(info.max_pages.saturating_mul(PAGE)),
            ssid: info.ssidref,
            vcpus,
            grants: None,
            ports: None,
        }
    }

    /// How long a vCPU has waited for a pCPU, in ns, if the hypervisor tells.
    fn steal(&mut self, xen: &Xen, domid: u16, vcpu: u32) -> Option<u64> {
        xen.hypfs_number(&format!("/domain/{domid}/vcpu/{vcpu}/runnable")).unwrap_or_else(|_| {
            self.errors += 1;
            None
        })
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        let mut out = text::Page::default();
        if let Some(host) = &self.host {
            let gauges = [
                ("oxen_host_memory_bytes", "Memory of the host.", host.memory),
                ("oxen_host_free_memory_bytes", "Memory that no domain has.", host.free),
                ("oxen_host_claimed_memory_bytes", "Memory promised to domains under construction.", host.claimed),
                ("oxen_hypervisor_memory_bytes", "Memory that the hypervisor uses itself.", host.hypervisor),
                ("oxen_host_cpus", "Physical processors.", u64::from(host.cpus)),
            ];
            for (name, about, value) in gauges {
                out.family(name, about, text::Kind::Gauge).sample(&[], value);
            }
        }
        out.family("oxen_domains", "Domains.", text::Kind::Gauge).sample(&[], self.domains.len() as u64);
        self.domains_page(&mut out);
        self.vcpus_page(&mut out);
        self.devices_page(&mut out);
        out.family("oxen_scrape_errors", "Sources that did not answer this time.", text::Kind::Gauge).sample(&[], self.errors);
        out.finish()
    }

    fn domains_page(&self, out: &mut text::Page) {
        let mut family = out.family("oxen_domain_cpu_seconds_total", "Processor time of a domain.", text::Kind::Counter);
        for domain in &self.domains {
            family.nanoseconds(&domain.labels(), domain.cpu_time_ns);
        }
        let mut family = out.family("oxen_domain_memory_bytes", "Memory of a domain.", text::Kind::Gauge);
        for domain in &self.domains {
            family.sample(&domain.labels(), domain.memory);
        }
        let mut family = out.family("oxen_domain_max_memory_bytes", "The most memory that a domain may have.", text::Kind::Gauge);
        for (domain, max) in self.domains.iter().filter_map(|domain| Some((domain, domain.max_memory?))) {
            family.sample(&domain.labels(), max);
        }
        let mut family = out.family("oxen_domain_state", "1 for each state that a domain is in.", text::Kind::Gauge);
        let states = [("running", DOMINF_RUNNING), ("blocked", DOMINF_BLOCKED), ("paused", DOMINF_PAUSED), ("shutdown", DOMINF_SHUTDOWN)];
        for domain in &self.domains {
            let [id, name] = domain.labels();
            for (state, flag) in states {
                family.sample(&[id.clone(), name.clone(), ("state", state.to_owned())], u64::from(domain.flags & flag != 0));
            }
        }
        let grants = || self.domains.iter().filter_map(|domain| Some((domain, domain.grants?)));
        let mut family = out.family("oxen_domain_grant_frames", "Frames of a domain's grant table.", text::Kind::Gauge);
        grants().for_each(|(domain, size)| family.sample(&domain.labels(), u64::from(size.frames)));
        let mut family = out.family("oxen_domain_max_grant_frames", "The most frames that a domain's grant table may have.", text::Kind::Gauge);
        grants().for_each(|(domain, size)| family.sample(&domain.labels(), u64::from(size.max_frames)));
        let mut family = out.family("oxen_domain_event_channels", "Event channels of a domain that are in use.", text::Kind::Gauge);
        for (domain, ports) in self.domains.iter().filter_map(|domain| Some((domain, domain.ports?))) {
            family.sample(&domain.labels(), ports);
        }
    }

    fn vcpus_page(&self, out: &mut text::Page) {
        let vcpus = || self.domains.iter().flat_map(|domain| domain.vcpus.iter().map(move |vcpu| (domain.vcpu_labels(vcpu), vcpu)));
        let mut family = out.family("oxen_vcpu_cpu_seconds_total", "Processor time of a vCPU.", text::Kind::Counter);
        vcpus().for_each(|(labels, vcpu)| family.nanoseconds(&labels, vcpu.cpu_time_ns));
        let mut family = out.family("oxen_vcpu_online", "Whether a vCPU takes part.", text::Kind::Gauge);
        vcpus().for_each(|(labels, vcpu)| family.sample(&labels, u64::from(vcpu.online)));
        let mut family = out.family("oxen_vcpu_steal_seconds_total", "Time that a vCPU waited for a physical processor.", text::Kind::Counter);
        for (labels, steal) in vcpus().filter_map(|(labels, vcpu)| Some((labels, vcpu.steal_ns?))) {
            family.nanoseconds(&labels, steal);
        }
    }

    fn devices_page(&self, out: &mut text::Page) {
        type DiskCount = fn(&Disk) -> u64;
        let disks: [(&str, &str, DiskCount); 4] = [
            ("oxen_disk_read_bytes_total", "Bytes that a guest read from a disk.", |disk| disk.read_bytes),
            ("oxen_disk_written_bytes_total", "Bytes that a guest wrote to a disk.", |disk| disk.written_bytes),
            ("oxen_disk_reads_total", "Read requests of a guest to a disk.", |disk| disk.reads),
            ("oxen_disk_writes_total", "Write requests of a guest to a disk.", |disk| disk.writes),
        ];
        for (name, about, count) in disks {
            let mut family = out.family(name, about, text::Kind::Counter);
            for disk in &self.disks {
                family.sample(&self.device_labels(disk.domid, disk.devid), count(disk));
            }
        }
        type InterfaceCount = fn(&Interface) -> u64;
        let interfaces: [(&str, &str, InterfaceCount); 4] = [
            ("oxen_network_received_bytes_total", "Bytes that a guest received.", |card| card.received_bytes),
            ("oxen_network_sent_bytes_total", "Bytes that a guest sent.", |card| card.sent_bytes),
            ("oxen_network_received_packets_total", "Packets that a guest received.", |card| card.received_packets),
            ("oxen_network_sent_packets_total", "Packets that a guest sent.", |card| card.sent_packets),
        ];
        for (name, about, count) in interfaces {
            let mut family = out.family(name, about, text::Kind::Counter);
            for card in &self.interfaces {
                family.sample(&self.device_labels(card.domid, card.devid), count(card));
            }
        }
    }

    fn device_labels(&self, domid: u16, devid: u32) -> [text::Label; 3] {
        let name = self.domains.iter().find(|domain| domain.domid == domid).map(|domain| domain.name.clone());
        [("domid", domid.to_string()), ("domain", name.unwrap_or_default()), ("device", devid.to_string())]
    }
}

impl Domain {
    fn labels(&self) -> [text::Label; 2] {
        [("domid", self.domid.to_string()), ("domain", self.name.clone())]
    }

    fn vcpu_labels(&self, vcpu: &Vcpu) -> [text::Label; 3] {
        let [id, name] = self.labels();
        [id, name, ("vcpu", vcpu.vcpu.to_string())]
    }
}

/// The number of a domain's ports that are in use. The hypervisor refuses ports that it never allocated room for.
fn ports(xen: &Xen, domid: u16) -> Option<u64> {
    let mut used = 0;
    for port in 0..PORTS {
        match xen.port_status(domid, port) {
            Ok(port) => used += u64::from(port.status != EvtchnStatus::CLOSED),
            Err(_) if port > 0 => break,
            Err(_) => return None,
        }
    }
    Some(used)
}

#[cfg(test)]
mod tests;
