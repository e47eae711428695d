//! Operations on a guest that exists.

use crate::create::host_cpus;
use crate::daemon::{Daemon, Target};
use crate::error::ToApi;
use crate::records::{Record, Stage};
use crate::stop::request;
use crate::tasks::Job;
use crate::view::nr_vcpus;
use oxen_guest_config::{CpuSet, check_name};
use oxen_xenctl::CpuMap;
use oxen_xend_api::{Code, Error, Operation, Outcome, Task};
use std::sync::{Arc, PoisonError};

/// A domain may have this much more than it was promised, in KiB (`LIBXL_MAXMEM_CONSTANT` of Xen's tools).
const SLACK_KIB: u64 = 1024;
/// The least memory that a guest is told to shrink to, in KiB: below it no kernel survives.
const LEAST_KIB: u64 = 4096;

impl Daemon {
    /// Begins an operation on the domain that `which` names.
    ///
    /// # Errors
    ///
    /// An unknown or busy guest, one in the wrong state, an operation that makes no sense.
    pub fn operate(self: &Arc<Self>, which: &str, operation: Operation) -> Result<Task, Error> {
        let target = self.target(which)?;
        let name = operation.name();
        match operation {
            Operation::Start { paused } => self.start_managed(&target, paused),
            Operation::Delete => self.delete(&target),
            Operation::Shutdown { way, wait_s } => self.shut_down(&target, name, request(way), wait_s),
            Operation::Reboot { wait_s } => self.shut_down(&target, name, "reboot", wait_s),
            Operation::Destroy => self.destroy(&target),
            other => {
                let seen = target.clone();
                self.start(name, &target, move |daemon, job| daemon.change(&seen, other, job))
            }
        }
    }

    /// The quick operations.
    fn change(&self, target: &Target, operation: Operation, job: &Job) -> Result<Outcome, Error> {
        match operation {
            Operation::Pause => self.xen.pause_domain(target.running_guest()?).or_api("pausing")?,
            Operation::Unpause => self.xen.unpause_domain(target.running_guest()?).or_api("unpausing")?,
            Operation::Rename { name } => self.rename(target, &name)?,
            Operation::MemSet { target_kib } => self.set_target(target, target_kib, job)?,
            Operation::MemMax { max_kib } => self.set_max(target, max_kib)?,
            Operation::VcpuSet { vcpus } => self.set_vcpus(target, vcpus)?,
            Operation::VcpuPin { vcpu, hard, soft } => self.pin(target, vcpu, hard.as_deref(), soft.as_deref())?,
            Operation::SchedCredit { weight, cap } => {
                let scheduler = self.xen.scheduler().or_api("asking for the scheduler")?;
                self.xen.set_credit(target.running()?, scheduler, weight, cap).or_api("setting weight and cap")?;
                self.remember(target, |record| {
                    record.config.cpu_weight = weight.or(record.config.cpu_weight);
                    record.config.cpu_cap = cap.or(record.config.cpu_cap);
                })?;
            }
            Operation::Sysrq { key } => self.write_node(target.running_guest()?, "control/sysrq", &key.to_string())?,
            Operation::BlockAttach { disk } => return self.attach_disk(target, *disk),
            Operation::BlockDetach { device, force } => self.detach_disk(target, &device, force)?,
            Operation::NetworkAttach { vif } => return self.attach_vif(target, *vif),
            Operation::NetworkDetach { device, force } => self.detach_vif(target, &device, force)?,
            Operation::DumpCore { path, live, destroy } => return self.dump_core(target, path.map(Into::into), live, destroy, job),
            other => return Err(Error::new(Code::Internal, format!("{} has no handler", other.name()))),
        }
        Ok(Outcome::Nothing)
    }

    /// Changes what is remembered of a guest, so that it comes back like this. Guests of others have no record.
    pub(crate) fn remember(&self, target: &Target, change: impl FnOnce(&mut Record)) -> Result<(), Error> {
        self.records.update(target.uuid, change).or_api("remembering the guest").map(drop)
    }

    fn start_managed(self: &Arc<Self>, target: &Target, paused: bool) -> Result<Task, Error> {
        let uuid = target.uuid;
        let name = target.name.clone();
        self.start("start", target, move |daemon, job| {
            let record = daemon.records.get(uuid).filter(|record| record.stage == Stage::Halted);
            let record = record.ok_or_else(|| Error::new(Code::WrongState, format!("{name} is running already")).about(&name))?;
            daemon.bring_up(record, paused, job)?;
            Ok(Outcome::Domain { domain: daemon.domain(&uuid.to_string())? })
        })
    }

    fn delete(self: &Arc<Self>, target: &Target) -> Result<Task, Error> {
        let (uuid, name) = (target.uuid, target.name.clone());
        self.start("delete", target, move |daemon, _| {
            match daemon.records.get(uuid) {
                Some(record) if record.stage == Stage::Halted => daemon.records.remove(uuid).or_api("forgetting the guest")?,
                Some(_) => return Err(Error::new(Code::WrongState, format!("{name} is running; destroy it first or shut it down")).about(&name)),
                None => return Err(Error::new(Code::WrongState, format!("{name} is not managed")).about(&name)),
            }
            Ok(Outcome::Nothing)
        })
    }

    fn rename(&self, target: &Target, name: &str) -> Result<(), Error> {
        let _naming = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        check_name(name).map_err(|problem| Error::new(Code::BadRequest, format!("{name}: {problem}")).about(name))?;
        if self.records.named(name).is_some() || self.xen.domains().or_api("listing domains")?.iter().any(|info| self.stored_name(info.domain).as_deref() == Some(name)) {
            return Err(Error::new(Code::NameInUse, format!("the name {name} is in use")).about(name));
        }
        if target.domid == Some(0) {
            return Err(Error::new(Code::WrongState, "domain 0 keeps its name").about("Domain-0"));
        }
        if let Some(domid) = target.domid {
            self.write_node(domid, "name", name)?;
            oxen_xenstore::Nodes::write(&self.store, &format!("/vm/{}/name", target.uuid), name).or_api("renaming")?;
        }
        self.remember(target, |record| record.config.name = name.to_owned())
    }

    fn set_target(&self, target: &Target, kib: u64, job: &Job) -> Result<(), Error> {
        let domid = target.running()?;
        let refuse = |why: String| Err(Error::new(Code::Limit, why).about(&target.name));
        let least = if domid == 0 { self.settings.dom0_min_mem_kib.max(LEAST_KIB) } else { LEAST_KIB };
        if kib < least {
            return refuse(format!("{kib} KiB are less than the {least} KiB that {} needs", target.name));
        }
        if let Some(max) = self.number_node(domid, "memory/static-max").filter(|max| kib > *max) {
            return refuse(format!("{kib} KiB are more than the {max} KiB that {} may have; `xm mem-max` raises that", target.name));
        }
        let _one = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let has = self.xen.domain(domid).or_api("asking for the memory")?.tot_pages * 4;
        if kib > has {
            if domid != 0 {
                self.make_room(kib - has, job)?;
            }
            self.xen.set_max_memory(domid, kib.saturating_add(SLACK_KIB)).or_api("raising the limit")?;
        }
        self.write_node(domid, "memory/target", &kib.to_string())?;
        self.remember(target, |record| record.config.memory_mib = kib / 1024)
    }

    fn set_max(&self, target: &Target, kib: u64) -> Result<(), Error> {
        if let Some(domid) = target.domid {
            let has = self.xen.domain(domid).or_api("asking for the memory")?.tot_pages * 4;
            if kib < has {
                return Err(Error::new(Code::Limit, format!("{} has {has} KiB now; `xm mem-set` shrinks it first", target.name)).about(&target.name));
            }
            self.xen.set_max_memory(domid, kib.saturating_add(SLACK_KIB)).or_api("setting the limit")?;
            self.write_node(domid, "memory/static-max", &kib.to_string())?;
        }
        self.remember(target, |record| record.config.max_memory_mib = Some(kib / 1024))
    }

    fn set_vcpus(&self, target: &Target, vcpus: u32) -> Result<(), Error> {
        let domid = target.running()?;
        let info = self.xen.domain(domid).or_api("asking for the vCPUs")?;
        let max = nr_vcpus(&info);
        if vcpus == 0 || vcpus > max {
            return Err(Error::new(Code::Limit, format!("{vcpus} vCPUs: {} can have 1 to {max}", target.name)).about(&target.name));
        }
        for vcpu in 0..max {
            self.write_node(domid, &format!("cpu/{vcpu}/availability"), if vcpu < vcpus { "online" } else { "offline" })?;
        }
        self.remember(target, |record| record.config.vcpus = vcpus)
    }

    fn pin(&self, target: &Target, vcpu: Option<u32>, hard: Option<&str>, soft: Option<&str>) -> Result<(), Error> {
        let domid = target.running()?;
        let host = host_cpus(&self.xen)?;
        let nr_cpus = host.iter().map(|(cpu, _)| cpu + 1).max().unwrap_or(1);
        let set = |text: Option<&str>| {
            text.map(|text| {
                let set: CpuSet = text.parse().map_err(|problem| Error::new(Code::BadRequest, format!("{text}: {problem}")).about(text))?;
                let members = set.resolve(&host);
                if members.is_empty() {
                    return Err(Error::new(Code::BadRequest, format!("{text}: none of these processors exists; the host has {nr_cpus}")).about(text));
                }
                Ok(CpuMap::new(members))
            })
            .transpose()
        };
        let (hard, soft) = (set(hard)?, set(soft)?);
        let nr_vcpus = nr_vcpus(&self.xen.domain(domid).or_api("asking for the vCPUs")?);
        let vcpus = match vcpu {
            Some(vcpu) if vcpu >= nr_vcpus => return Err(Error::new(Code::Limit, format!("{} has no vCPU {vcpu}; it has {nr_vcpus}", target.name)).about(&target.name)),
            Some(vcpu) => vcpu..vcpu + 1,
            None => 0..nr_vcpus,
        };
        for vcpu in vcpus {
            self.xen.set_vcpu_affinity(domid, vcpu, hard.as_ref(), soft.as_ref(), nr_cpus).or_api("pinning")?;
        }
        Ok(())
    }
}
