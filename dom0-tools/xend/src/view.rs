//! Guests as the interface shows them.

use crate::daemon::Daemon;
use crate::error::ToApi;
use crate::nodes::home;
use crate::records::{Record, Stage};
use oxen_abi::domctl::{DOMINF_BLOCKED, DOMINF_DYING, DOMINF_PAUSED, DOMINF_RUNNING, DOMINF_SHUTDOWN, GetDomainInfo};
use oxen_abi::sched::ShutdownReason;
use oxen_guest_config::Uuid;
use oxen_xenctl::CpuMap;
use oxen_xend_api::{BlockDevice, Domain, Error, Flags, NetworkDevice, Reason, Scheduling, State, Vcpu};
use oxen_xenstore::Nodes;

impl Daemon {
    /// All domains, running ones by id, then the others by name.
    ///
    /// # Errors
    ///
    /// When the hypervisor does not answer.
    pub fn domains(&self) -> Result<Vec<Domain>, Error> {
        let infos = self.xen.domains().or_api("listing domains")?;
        let records = self.records.all();
        let mut domains: Vec<Domain> = infos
            .iter()
            .map(|info| {
                let uuid = Uuid::from_bytes(info.handle);
                self.running(info, records.iter().find(|record| record.uuid == uuid))
            })
            .collect();
        let known = |record: &&Record| !infos.iter().any(|info| info.handle == *record.uuid.as_bytes());
        let mut others: Vec<Domain> = records.iter().filter(known).map(|record| self.halted(record)).collect();
        others.sort_by(|a, b| a.name.cmp(&b.name));
        domains.append(&mut others);
        Ok(domains)
    }

    /// The guests that are known and do not run, by name. Asks nobody.
    pub fn halted_domains(&self) -> Vec<Domain> {
        let mut halted: Vec<Domain> = self.records.all().iter().filter(|record| record.domid.is_none()).map(|record| self.halted(record)).collect();
        halted.sort_by(|a, b| a.name.cmp(&b.name));
        halted
    }

    /// One domain.
    ///
    /// # Errors
    ///
    /// When there is none of that name, id or UUID.
    pub fn domain(&self, which: &str) -> Result<Domain, Error> {
        let target = self.target(which)?;
        if let Some(domid) = target.domid
            && let Ok(info) = self.xen.domain(domid)
            && info.handle == *target.uuid.as_bytes()
        {
            return Ok(self.running(&info, target.record.as_ref()));
        }
        match &target.record {
            Some(record) => Ok(self.halted(record)),
            None => Err(Error::new(oxen_xend_api::Code::NoSuchDomain, format!("domain {which} has just ended")).about(which)),
        }
    }

    fn running(&self, info: &GetDomainInfo, record: Option<&Record>) -> Domain {
        let domid = info.domain;
        let uuid = Uuid::from_bytes(info.handle);
        let set = |flag: u32| info.flags & flag != 0;
        let reason = info.shutdown_reason().map(reason);
        let crashed = matches!(reason, Some(Reason::Crash | Reason::Watchdog));
        let name = record.map(|record| record.config.name.clone()).or_else(|| self.stored_name(domid)).unwrap_or_else(|| if domid == 0 { "Domain-0".to_owned() } else { String::new() });
        let busy = self.tasks.busy(uuid);
        let state = match record.map(|record| record.stage) {
            _ if set(DOMINF_DYING) => State::Dying,
            Some(Stage::Creating) => State::Creating,
            Some(Stage::Destroying) => State::Dying,
            _ if crashed => State::Crashed,
            _ if set(DOMINF_SHUTDOWN) => State::Shutdown,
            _ if busy.as_ref().is_some_and(|busy| matches!(busy.operation.as_str(), "shutdown" | "reboot")) => State::ShuttingDown,
            _ if set(DOMINF_PAUSED) => State::Paused,
            _ => State::Running,
        };
        let scheduling = self.xen.scheduler().ok().and_then(|scheduler| self.xen.credit(domid, scheduler).ok());
        // No limit of the hypervisor is far above any real memory.
        let max_memory_kib = info.max_pages.checked_mul(4).filter(|kib| *kib < 1 << 42);
        Domain {
            uuid: uuid.to_string(),
            name,
            domid: Some(domid),
            state,
            flags: Flags {
                running: set(DOMINF_RUNNING),
                blocked: set(DOMINF_BLOCKED),
                paused: set(DOMINF_PAUSED),
                shutdown: set(DOMINF_SHUTDOWN),
                crashed,
                dying: set(DOMINF_DYING),
            },
            reason,
            managed: record.is_some_and(|record| record.managed),
            memory_kib: info.tot_pages * 4,
            target_kib: self.number_node(domid, "memory/target"),
            max_memory_kib,
            vcpus: info.nr_online_vcpus,
            max_vcpus: nr_vcpus(info),
            cpu_time_ns: info.cpu_time,
            started_at: record.and_then(|record| record.started_at),
            cpupool: info.cpupool,
            scheduling: scheduling.map(|credit| Scheduling { weight: credit.weight, cap: credit.cap }),
            console: self.store.try_read(&format!("{}/console/tty", home(domid))).ok().flatten().filter(|tty| !tty.is_empty()),
            busy,
            config: record.map(|record| Box::new(record.config.clone())),
        }
    }

    fn halted(&self, record: &Record) -> Domain {
        let config = &record.config;
        let state = match record.stage {
            Stage::Creating => State::Creating,
            Stage::Destroying => State::Dying,
            Stage::Halted | Stage::Running | Stage::Preserved => State::Halted,
        };
        Domain {
            uuid: record.uuid.to_string(),
            name: config.name.clone(),
            state,
            managed: record.managed,
            memory_kib: config.memory_mib * 1024,
            max_memory_kib: Some(config.max_memory_mib() * 1024),
            vcpus: config.vcpus,
            max_vcpus: config.max_vcpus(),
            busy: self.tasks.busy(record.uuid),
            config: Some(Box::new(config.clone())),
            ..Domain::default()
        }
    }

    /// A domain's vCPUs.
    ///
    /// # Errors
    ///
    /// When the domain does not run.
    pub fn vcpus(&self, which: &str) -> Result<Vec<Vcpu>, Error> {
        let domid = self.target(which)?.running()?;
        let nr_cpus = self.xen.physinfo().or_api("asking for the processors")?.max_cpu_id.saturating_add(1);
        let nr_vcpus = nr_vcpus(&self.xen.domain(domid).or_api("asking for the vCPUs")?);
        (0..nr_vcpus)
            .map(|vcpu| {
                let Some(info) = self.xen.vcpu(domid, vcpu).or_api("asking for a vCPU")? else { return Ok(Vcpu { vcpu, ..Vcpu::default() }) };
                let affinity = self.xen.vcpu_affinity(domid, vcpu, nr_cpus).or_api("asking for affinities")?;
                let online = info.online != 0;
                Ok(Vcpu {
                    vcpu,
                    cpu: online.then_some(info.cpu),
                    online,
                    running: info.running != 0,
                    blocked: info.blocked != 0,
                    cpu_time_ns: info.cpu_time,
                    hard_affinity: ranges(&affinity.hard),
                    soft_affinity: ranges(&affinity.soft),
                })
            })
            .collect()
    }

    /// A domain's disks.
    ///
    /// # Errors
    ///
    /// When the domain does not run.
    pub fn blocks(&self, which: &str) -> Result<Vec<BlockDevice>, Error> {
        self.devices.disks(&self.store, self.target(which)?.running()?).or_api("listing the disks")
    }

    /// A domain's network cards.
    ///
    /// # Errors
    ///
    /// When the domain does not run.
    pub fn networks(&self, which: &str) -> Result<Vec<NetworkDevice>, Error> {
        self.devices.vifs(&self.store, self.target(which)?.running()?).or_api("listing the network cards")
    }
}

/// The vCPUs of a domain; one that has just been created has none.
pub(crate) fn nr_vcpus(info: &GetDomainInfo) -> u32 {
    // `XEN_INVALID_MAX_VCPU_ID` is the number before 0.
    info.max_vcpu_id.wrapping_add(1)
}

fn reason(reason: ShutdownReason) -> Reason {
    match reason {
        ShutdownReason::POWEROFF => Reason::Poweroff,
        ShutdownReason::REBOOT => Reason::Reboot,
        ShutdownReason::SUSPEND => Reason::Suspend,
        ShutdownReason::CRASH => Reason::Crash,
        ShutdownReason::WATCHDOG => Reason::Watchdog,
        ShutdownReason::SOFT_RESET => Reason::SoftReset,
        _ => Reason::Unknown,
    }
}

/// `0-3,5`.
fn ranges(map: &CpuMap) -> String {
    let mut text = String::new();
    let mut members = map.members().iter().copied().peekable();
    while let Some(first) = members.next() {
        let mut last = first;
        while let Some(next) = members.next_if(|next| *next == last + 1) {
            last = next;
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&if first == last { first.to_string() } else { format!("{first}-{last}") });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_processors_are_short() {
        assert_eq!(ranges(&CpuMap::new([0, 1, 2, 5, 7, 8])), "0-2,5,7-8");
        assert_eq!(ranges(&CpuMap::new([])), "");
    }

    #[test]
    fn a_domain_without_vcpus_has_none() {
        let info = |max_vcpu_id| GetDomainInfo { max_vcpu_id, ..GetDomainInfo::default() };
        assert_eq!(nr_vcpus(&info(oxen_abi::domctl::XEN_INVALID_MAX_VCPU_ID)), 0);
        assert_eq!(nr_vcpus(&info(3)), 4);
    }
}
