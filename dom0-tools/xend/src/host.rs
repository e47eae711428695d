//! The host, the log and the daemon itself.

use crate::daemon::Daemon;
use crate::error::ToApi;
use oxen_metrics::Snapshot;
use oxen_xend_api::{Code, Cpu, Error, Host, VERSION, Version};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// The most of the log that is shown, in bytes.
const LOG_LIMIT: u64 = 4 << 20;

impl Daemon {
    /// Who answers.
    pub fn version(&self) -> Version {
        Version { api: VERSION, daemon: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id(), started_at: self.started_at }
    }

    /// The host.
    ///
    /// # Errors
    ///
    /// When the hypervisor does not answer.
    pub fn host(&self) -> Result<Host, Error> {
        let info = self.xen.physinfo().or_api("asking for the host")?;
        let version = self.xen.version().or_api("asking for the hypervisor's version")?;
        let scheduler = self.xen.scheduler().or_api("asking for the scheduler")?;
        let topology = self.xen.cpu_topology().or_api("asking for the processors")?;
        Ok(Host {
            hypervisor: format!("{}.{}{}", version.major, version.minor, version.extra),
            capabilities: version.capabilities,
            scheduler: format!("{scheduler:?}").to_lowercase(),
            nr_cpus: info.nr_cpus,
            cpu_khz: info.cpu_khz,
            nr_nodes: info.nr_nodes,
            memory_kib: info.total_pages * 4,
            free_memory_kib: info.free_pages * 4,
            claimed_memory_kib: info.outstanding_pages * 4,
            nr_domains: u32::try_from(self.xen.domains().or_api("listing domains")?.len()).unwrap_or(u32::MAX),
            dom0_min_memory_kib: self.settings.dom0_min_mem_kib,
            cpus: (0..).zip(&topology).map(|(cpu, topo)| Cpu { cpu, core: topo.core, socket: topo.socket, node: topo.node }).collect(),
        })
    }

    /// Metrics in Prometheus' text format.
    pub fn metrics(&self) -> String {
        Snapshot::take(&self.xen, |domid| self.stored_name(domid)).render()
    }

    /// The last lines of the log.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn log(&self, lines: usize) -> Result<String, Error> {
        let path = &self.places.log;
        let read = || {
            let mut file = File::open(path)?;
            let length = file.seek(SeekFrom::End(0))?;
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_LIMIT)))?;
            let mut bytes = Vec::new();
            file.take(LOG_LIMIT).read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(bytes)
        };
        let bytes = read().map_err(|error| Error::new(Code::System, format!("cannot read {}: {error}", path.display())))?;
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<&str> = text.lines().collect();
        Ok(all.iter().skip(all.len().saturating_sub(lines)).map(|line| format!("{line}\n")).collect())
    }
}
