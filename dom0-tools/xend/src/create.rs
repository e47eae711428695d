//! From a configuration to a running guest.

use crate::daemon::{Daemon, Places, Target};
use crate::error::ToApi;
use crate::records::{Record, Stage};
use crate::tasks::{Job, now};
use oxen_devices::Guest;
use oxen_domain_build::{Built, Identity, Request};
use oxen_guest_config::{GuestConfig, Mac, Uuid};
use oxen_xenctl::{CpuMap, NewDomain, Xen};
use oxen_xend_api::{Code, Create, Error, Outcome, Task};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

/// The kernel that a guest starts with.
struct Boot {
    kernel: String,
    ramdisk: Option<String>,
    command_line: String,
    /// Files that were made for this and go when the guest is built.
    files: Vec<PathBuf>,
}

impl Drop for Boot {
    fn drop(&mut self) {
        for file in &self.files {
            if let Err(error) = std::fs::remove_file(file) {
                tracing::warn!("cannot remove {}: {error}", file.display());
            }
        }
    }
}

/// GRUB as a guest's kernel, of Debian's package `grub-xen-host`.
const PVGRUB: &str = "/usr/lib/grub-xen/grub-x86_64-xen.bin";

impl Daemon {
    /// Begins to create a guest, or makes a managed one known.
    ///
    /// # Errors
    ///
    /// A configuration that makes no sense; a name or UUID in use.
    pub fn create(self: &Arc<Self>, request: Create) -> Result<Task, Error> {
        let Create { mut config, paused, managed, start } = request;
        let problems: Vec<String> = config.check().iter().map(ToString::to_string).collect();
        if !problems.is_empty() {
            return Err(Error::new(Code::BadConfig, problems.join("; ")).about(&config.name));
        }
        if !start && !managed {
            return Err(Error::new(Code::BadRequest, "a guest that is not managed must be started"));
        }
        let uuid = *config.uuid.get_or_insert_with(Uuid::new_v4);
        // Chosen once, so that a guest keeps its addresses when it is started again.
        for vif in config.vifs.iter_mut().filter(|vif| vif.mac.is_none()) {
            vif.mac = Some(Mac::random().map_err(|error| Error::new(Code::System, error.to_string()))?);
        }
        let target = Target { name: config.name.clone(), uuid, domid: None, record: None };
        self.start("create", &target, move |daemon, job| {
            let stage = if start { Stage::Creating } else { Stage::Halted };
            let record = Record { uuid, config: *config, managed, stage, domid: None, started_at: None, restarts: Vec::new(), returning: false, plugging: None };
            {
                let _naming = daemon.naming.lock().unwrap_or_else(PoisonError::into_inner);
                daemon.check_identity(&record.config, uuid)?;
                daemon.records.put(record.clone()).or_api("remembering the guest")?;
            }
            if start {
                daemon.create_or_undo(&record, false, paused, job)?;
            }
            Ok(Outcome::Domain { domain: daemon.domain(&uuid.to_string())? })
        })
    }

    /// Names and UUIDs are unique, among the daemon's guests and among the domains of others.
    fn check_identity(&self, config: &GuestConfig, uuid: Uuid) -> Result<(), Error> {
        let name = &config.name;
        let in_use = |by: String| Error::new(Code::NameInUse, format!("the name {name} is in use by {by}")).about(name);
        if let Some(other) = self.records.named(name) {
            return Err(in_use(format!("guest {}", other.uuid)));
        }
        if self.records.get(uuid).is_some() {
            return Err(Error::new(Code::UuidInUse, format!("the UUID {uuid} is in use by guest {name}")).about(uuid.to_string()));
        }
        for info in self.xen.domains().or_api("listing domains")? {
            if info.handle == *uuid.as_bytes() {
                return Err(Error::new(Code::UuidInUse, format!("the UUID {uuid} is in use by domain {}", info.domain)).about(uuid.to_string()));
            }
            if self.stored_name(info.domain).as_deref() == Some(name) {
                return Err(in_use(format!("domain {}", info.domain)));
            }
        }
        Ok(())
    }

    /// Creates the domain of a guest that is known and does not run. When a step fails, everything is undone.
    pub(crate) fn bring_up(&self, record: Record, paused: bool, job: &Job) -> Result<(), Error> {
        let known_before = self.records.get(record.uuid).is_some();
        let record = Record { stage: Stage::Creating, domid: None, plugging: None, ..record };
        self.records.put(record.clone()).or_api("remembering the guest")?;
        self.create_or_undo(&record, known_before, paused, job)
    }

    /// Creates the domain of a guest whose record says that this has begun; `keep` says whether the guest is remembered when that fails.
    fn create_or_undo(&self, record: &Record, keep: bool, paused: bool, job: &Job) -> Result<(), Error> {
        let result = self.create_domain(record, paused, job);
        if let Err(error) = &result {
            tracing::error!("{}: undoing the creation: {error}", record.config.name);
            job.step("undoing what was done");
            // With the number of the domain, which a daemon that carries this on would not find when the domain is gone already.
            if let Err(error) = self.records.update(record.uuid, |_| ()) {
                tracing::error!("the database failed, undoing goes on: {error}");
            }
            if let Err(undo) = self.undo(record, keep) {
                return Err(Error::new(error.code, format!("{error} (and not everything could be undone: {undo})")));
            }
        }
        result
    }

    /// Takes back whatever there is of a guest whose creation broke off.
    pub(crate) fn undo(&self, record: &Record, keep: bool) -> Result<(), Error> {
        let domains = self.xen.domains().or_api("listing domains")?;
        for info in domains.iter().filter(|info| info.handle == *record.uuid.as_bytes()) {
            self.remove_domain(info.domain, record.uuid)?;
        }
        if keep && record.managed {
            self.records.put(Record { stage: Stage::Halted, domid: None, started_at: None, returning: false, plugging: None, ..record.clone() }).or_api("remembering the guest")
        } else {
            self.records.remove(record.uuid).or_api("forgetting the guest")
        }
    }

    fn create_domain(&self, record: &Record, paused: bool, job: &Job) -> Result<(), Error> {
        let config = &record.config;
        job.step("checking disks and network cards");
        for disk in &config.disks {
            self.devices.check_disk(&self.store, disk).or_api("checking the disks")?;
        }
        for vif in &config.vifs {
            self.devices.check_vif(vif).or_api("checking the network cards")?;
        }
        let boot = boot(record, &self.places)?;
        let built = self.build(record, &boot, job)?;
        drop(boot);
        let domid = built.domid;
        // In memory: a daemon that is restarted while the domain exists finds it by its UUID.
        self.records.note(record.uuid, |record| record.domid = Some(domid));
        self.schedule(domid, config)?;
        job.step("connecting xenstore and console");
        let started_at = now();
        self.write_nodes(config, record.uuid, &built, started_at)?;
        self.store.introduce(domid, built.store_mfn, built.store_port).or_api("introducing the guest to xenstore")?;
        self.attach_devices(record, domid, job)?;
        if !paused {
            self.xen.unpause_domain(domid).or_api("starting the guest")?;
        }
        let running = |record: &mut Record| {
            record.stage = Stage::Running;
            record.started_at = Some(started_at);
            record.returning = false;
        };
        self.records.update(record.uuid, running).or_api("remembering the guest")?;
        Ok(())
    }

    /// Builds the domain. One at a time: they compete for memory and, on small hosts, for the processor.
    fn build(&self, record: &Record, boot: &Boot, job: &Job) -> Result<Built, Error> {
        let config = &record.config;
        let _one = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        self.make_room(config.memory_mib * 1024, job)?;
        job.step("building the domain");
        let mut request = Request::new(&boot.kernel, config.memory_mib * 1024);
        request.max_memory_kib = config.max_memory_mib() * 1024;
        request.cache = Some(self.places.kernels.clone());
        // What was taken from a guest's disk is another file each time.
        request.identity = if boot.files.is_empty() { Identity::File } else { Identity::Content };
        request.ramdisk = boot.ramdisk.as_ref().map(Into::into);
        request.command_line.clone_from(&boot.command_line);
        let usual = NewDomain::default();
        request.domain = NewDomain {
            handle: *record.uuid.as_bytes(),
            nr_vcpus: config.max_vcpus(),
            max_port: config.limits.max_event_channels.or(usual.max_port),
            max_grant_frames: config.limits.max_grant_frames,
            max_maptrack_frames: config.limits.max_maptrack_frames,
            ..usual
        };
        oxen_domain_build::build(&self.xen, &request).or_api("building the domain")
    }

    /// Weight, cap and affinities.
    fn schedule(&self, domid: u16, config: &GuestConfig) -> Result<(), Error> {
        if config.cpu_weight.is_some() || config.cpu_cap.is_some() {
            let scheduler = self.xen.scheduler().or_api("asking for the scheduler")?;
            self.xen.set_credit(domid, scheduler, config.cpu_weight, config.cpu_cap).or_api("setting weight and cap")?;
        }
        if config.cpus.is_none() && config.cpus_soft.is_none() {
            return Ok(());
        }
        let host = host_cpus(&self.xen)?;
        let nr_cpus = host.iter().map(|(cpu, _)| cpu + 1).max().unwrap_or(1);
        for vcpu in 0..config.max_vcpus() {
            let set = |affinity: &Option<oxen_guest_config::Affinity>| affinity.as_ref().and_then(|affinity| affinity.of(vcpu)).map(|set| CpuMap::new(set.resolve(&host)));
            let (hard, soft) = (set(&config.cpus), set(&config.cpus_soft));
            if let Some(empty) = [&hard, &soft].into_iter().flatten().find(|map| map.members().is_empty()) {
                return Err(Error::new(Code::BadConfig, format!("cpus: none of the processors that vCPU {vcpu} may use exists ({empty:?}); the host has {nr_cpus}")));
            }
            self.xen.set_vcpu_affinity(domid, vcpu, hard.as_ref(), soft.as_ref(), nr_cpus).or_api("setting affinities")?;
        }
        Ok(())
    }

    fn attach_devices(&self, record: &Record, domid: u16, job: &Job) -> Result<(), Error> {
        let config = &record.config;
        let guest = Guest { domid, name: config.name.clone(), uuid: record.uuid };
        let total = (config.disks.len() + config.vifs.len()) as u64;
        for (done, disk) in (0..).zip(&config.disks) {
            job.progress("attaching disks", done, total);
            self.devices.attach_disk(&self.store, &guest, disk).or_api("attaching the disks")?;
        }
        for (id, vif) in (0..).zip(&config.vifs) {
            job.progress("attaching network cards", config.disks.len() as u64 + u64::from(id), total);
            self.devices.attach_vif(&self.store, &guest, Some(id), vif).or_api("attaching the network cards")?;
        }
        Ok(())
    }
}

/// The host's processors with their NUMA nodes.
pub(crate) fn host_cpus(xen: &Xen) -> Result<Vec<(u32, u32)>, Error> {
    let topology = xen.cpu_topology().or_api("asking for the processors")?;
    Ok((0..).zip(&topology).map(|(cpu, topo)| (cpu, topo.node)).collect())
}

/// What the guest starts with: the kernel that its configuration names, or the one that its disk boots.
fn boot(record: &Record, places: &Places) -> Result<Boot, Error> {
    let config = &record.config;
    if let Some(kernel) = &config.kernel {
        for (what, path) in [("kernel", Some(kernel)), ("ramdisk", config.ramdisk.as_ref())] {
            if let Some(path) = path {
                check_file(what, path)?;
            }
        }
        return Ok(Boot { kernel: kernel.clone(), ramdisk: config.ramdisk.clone(), command_line: config.command_line(), files: Vec::new() });
    }
    match &config.bootloader {
        Some(loader) if loader.is_builtin() => boot_from_disk(record, places),
        Some(loader) if loader.is_pvgrub() => {
            check_file("kernel", PVGRUB).map_err(|error| Error::new(error.code, format!("{} (Debian package grub-xen-host)", error.message)).about(&config.name))?;
            Ok(Boot { kernel: PVGRUB.to_owned(), ramdisk: None, command_line: config.command_line(), files: Vec::new() })
        }
        Some(loader) => Err(Error::new(Code::Unsupported, format!("bootloader {}: only builtin and pvgrub are supported", loader.program)).about(&config.name)),
        None => Err(Error::new(Code::BadConfig, "neither kernel nor bootloader is given").about(&config.name)),
    }
}

/// Has the confined reader look for a kernel on the guest's first disk.
fn boot_from_disk(record: &Record, places: &Places) -> Result<Boot, Error> {
    let config = &record.config;
    let disk = config.disks.iter().find(|disk| !disk.cdrom).ok_or_else(|| Error::new(Code::BadConfig, "bootloader: the guest has no disk").about(&config.name))?;
    let directory = &places.boot;
    std::fs::create_dir_all(directory).map_err(|error| Error::new(Code::System, format!("cannot create {}: {error}", directory.display())))?;
    let request = oxen_bootloader::Request { disk: Path::new(&disk.target), entry: config.bootentry.as_deref(), directory, name: &config.name };
    let found = oxen_bootloader::extract(&request, &places.boot_loader).map_err(|error| Error::new(Code::BadBootLoader, error.to_string()).about(&config.name))?;
    tracing::info!("{}: boots `{}` from its disk", config.name, found.title);
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    // Words of the configuration come after those of the disk, so that they win.
    let command_line = [found.arguments, config.command_line()].iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join(" ");
    Ok(Boot {
        kernel: text(&found.kernel),
        ramdisk: found.ramdisk.as_ref().map(text),
        command_line,
        files: [Some(found.kernel), found.ramdisk].into_iter().flatten().collect(),
    })
}

fn check_file(what: &str, path: &str) -> Result<(), Error> {
    let problem = match std::fs::metadata(Path::new(path)) {
        Ok(metadata) if metadata.is_file() => return Ok(()),
        Ok(_) => "it is no file".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Error::new(Code::BadKernel, format!("cannot read the {what} {path}: {problem}")).about(path))
}
