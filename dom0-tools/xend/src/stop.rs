//! How guests end: asked to, by themselves, or at once.

use crate::daemon::{Daemon, Target};
use crate::error::ToApi;
use crate::nodes::home;
use crate::records::{Record, Stage};
use crate::tasks::{Job, now};
use oxen_abi::domctl::DOMINF_DYING;
use oxen_abi::sched::ShutdownReason;
use oxen_guest_config::{Action, Uuid};
use oxen_xend_api::{Code, Error, Outcome, ShutdownWay, Task};
use oxen_xenstore::Nodes;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::sleep;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(50);
const CONSOLE_POLL: Duration = Duration::from_millis(10);
/// Restarts are counted over this time, in seconds.
const RESTART_WINDOW_S: u64 = 60;
/// How long a domain that is destroyed may keep its last frames, which others have mapped, before that is reported.
const LAST_FRAMES: Duration = Duration::from_secs(5);

impl Daemon {
    /// Ends a guest at once.
    ///
    /// # Errors
    ///
    /// A guest that is unknown, does not run, or is busy.
    pub(crate) fn destroy(self: &Arc<Self>, target: &Target) -> Result<Task, Error> {
        let uuid = target.uuid;
        let is_half = |record: &Record| matches!(record.stage, Stage::Creating | Stage::Destroying);
        // What an operation left that failed half-way need not have a domain.
        let seen = if target.record.as_ref().is_some_and(is_half) { None } else { Some(target.running_guest()?) };
        self.start("destroy", target, move |daemon, job| {
            job.step("destroying the domain");
            // The guest may have started again since it was looked for.
            let record = daemon.records.get(uuid);
            match record.as_ref().and_then(|record| record.domid).or(seen) {
                Some(domid) => daemon.end(domid, uuid, record.as_ref())?,
                None => {
                    if let Some(record) = record.filter(is_half) {
                        daemon.undo(&record, true)?;
                    }
                }
            }
            Ok(Outcome::Nothing)
        })
    }

    /// Takes a domain and all that belongs to it away, and remembers what is to be remembered of the guest.
    pub(crate) fn end(&self, domid: u16, uuid: Uuid, record: Option<&Record>) -> Result<(), Error> {
        if record.is_some()
            && let Err(error) = self.records.update(uuid, |record| record.stage = Stage::Destroying)
        {
            // A full disk must not keep a guest alive. A daemon that starts in between sees that the domain is gone.
            tracing::error!("the database failed, destroying goes on: {error}");
        }
        self.remove_domain(domid, uuid)?;
        match record {
            Some(record) if record.managed => {
                let halted = |record: &mut Record| {
                    record.stage = Stage::Halted;
                    record.domid = None;
                    record.started_at = None;
                    record.returning = false;
                    record.plugging = None;
                };
                self.records.update(uuid, halted).or_api("remembering the guest")?;
            }
            Some(_) => self.records.remove(uuid).or_api("forgetting the guest")?,
            None => {}
        }
        Ok(())
    }

    /// Removes a domain: the hypervisor's part, devices, xenstore. Everything may be gone already, and the number may be another
    /// domain's by now, which is left alone.
    pub(crate) fn remove_domain(&self, domid: u16, uuid: Uuid) -> Result<(), Error> {
        if self.xen.domain(domid).is_ok_and(|info| info.handle != *uuid.as_bytes()) {
            tracing::warn!("domain {domid} is not {uuid} any more and is left alone");
            return self.store.rm_if_exists(&format!("/vm/{uuid}")).or_api("removing the guest's xenstore nodes");
        }
        match self.xen.pause_domain(domid) {
            Ok(()) | Err(oxen_xenctl::Error::NoSuchDomain { .. }) => {}
            Err(error) => tracing::warn!("domain {domid} cannot be paused: {error}"),
        }
        // The back ends close and let go of its last frames while the others are freed.
        let leaving = self.devices.begin_detaching(&self.store, domid);
        match self.xen.destroy_domain(domid) {
            Ok(()) | Err(oxen_xenctl::Error::NoSuchDomain { .. }) => {}
            Err(error) => return Err(error).or_api("destroying the domain"),
        }
        leaving.and_then(|leaving| self.devices.finish_detaching(&self.store, leaving)).or_api("detaching devices")?;
        if self.store.is_introduced(domid).unwrap_or(false) {
            // xenstored may have seen the end of the domain by itself in between.
            let _ = self.store.release(domid);
        }
        self.remove_nodes(domid, uuid)?;
        self.wait_until_gone(domid, uuid);
        Ok(())
    }

    /// A destroyed domain lives on while somebody has its frames mapped, which ends as soon as daemons and back ends have noticed.
    fn wait_until_gone(&self, domid: u16, uuid: Uuid) {
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        while self.xen.domain(domid).is_ok_and(|info| info.handle == *uuid.as_bytes()) {
            if start.elapsed() > LAST_FRAMES {
                tracing::warn!("domain {domid} is destroyed, but somebody still has frames of it mapped");
                return;
            }
            sleep(pause);
            pause = (pause * 2).min(POLL);
        }
    }

    /// Asks a guest to shut down or reboot.
    pub(crate) fn shut_down(self: &Arc<Self>, target: &Target, operation: &str, request: &'static str, wait_s: Option<u32>) -> Result<Task, Error> {
        let domid = target.running_guest()?;
        let (name, uuid) = (target.name.clone(), target.uuid);
        self.start(operation, target, move |daemon, job| {
            job.step("asking the guest");
            daemon.ask(domid, &name, request)?;
            // From here on the guest's end is handled like any other.
            job.release();
            let Some(wait_s) = wait_s else { return Ok(Outcome::Nothing) };
            job.step("waiting for the guest");
            daemon.wait_for_end(domid, uuid, &name, request == "reboot", Duration::from_secs(wait_s.into()))?;
            Ok(Outcome::Nothing)
        })
    }

    /// Writes the request and waits for the guest to take note of it.
    fn ask(&self, domid: u16, name: &str, request: &str) -> Result<(), Error> {
        if self.xen.domain(domid).or_api("asking for the guest's state")?.shutdown_reason().is_some() {
            return Err(Error::new(Code::WrongState, format!("{name} has shut down already")).about(name));
        }
        self.write_node(domid, "control/shutdown", request)?;
        let node = format!("{}/control/shutdown", crate::nodes::home(domid));
        let deadline = Instant::now() + self.settings.shutdown_timeout;
        loop {
            let value = self.store.try_read(&node).or_api("waiting for the guest")?;
            let over = || self.xen.domain(domid).map_or(true, |info| info.shutdown_reason().is_some());
            if value.is_none_or(|value| value.is_empty()) || over() {
                return Ok(());
            }
            if Instant::now() > deadline {
                // A request that is taken back cannot surprise anybody later.
                self.write_node(domid, "control/shutdown", "")?;
                let seconds = self.settings.shutdown_timeout.as_secs();
                return Err(Error::new(Code::GuestRefuses, format!("{name} did not react to the request to {request} within {seconds} s; `xm destroy` ends it")).about(name));
            }
            sleep(POLL);
        }
    }

    /// Waits until a guest has ended and what its configuration says about that has been done.
    fn wait_for_end(&self, domid: u16, uuid: Uuid, name: &str, restarted: bool, limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        let failed = |what: &str| Err(Error::new(Code::WrongState, format!("{name} {what}")).about(name));
        loop {
            match self.records.get(uuid) {
                Some(record) if record.domid == Some(domid) && matches!(record.stage, Stage::Running | Stage::Destroying) => {}
                Some(record) if !restarted || record.stage == Stage::Running => return Ok(()),
                Some(record) if matches!(record.stage, Stage::Halted | Stage::Preserved) => return failed("ended but was not started again"),
                Some(_) => {}
                // A guest of others is not looked after here.
                None if self.xen.domain(domid).is_ok_and(|info| info.handle == *uuid.as_bytes() && info.shutdown_reason().is_none()) => {}
                None if restarted => return failed("ended but was not started again"),
                None => return Ok(()),
            }
            if Instant::now() > deadline {
                return Err(Error::new(Code::Timeout, format!("{name} has not ended within {} s", limit.as_secs())).about(name));
            }
            sleep(POLL);
        }
    }

    /// Looks at every guest: those that have ended get what their configuration says.
    pub fn look_after_guests(self: &Arc<Self>) {
        let domains = match self.xen.domains() {
            Ok(domains) => domains,
            Err(error) => {
                tracing::error!("cannot list domains: {error}");
                return;
            }
        };
        for record in self.records.all() {
            let (Stage::Running, Some(domid)) = (record.stage, record.domid) else { continue };
            let info = domains.iter().find(|info| info.domain == domid && info.handle == *record.uuid.as_bytes() && info.flags & DOMINF_DYING == 0);
            let ended = match info {
                None => self.after(&record, domid, "vanished", |daemon, record, domid, _| daemon.end(domid, record.uuid, Some(record))),
                Some(info) => match info.shutdown_reason() {
                    Some(reason) => self.after(&record, domid, reason_word(reason), move |daemon, record, domid, job| daemon.apply(record, domid, reason, job)),
                    None => continue,
                },
            };
            match ended {
                Err(error) if error.code == Code::Busy => self.look_again.store(true, SeqCst),
                Err(error) => tracing::error!("{}: {error}", record.config.name),
                Ok(()) => {}
            }
        }
    }

    fn after(
        self: &Arc<Self>,
        record: &Record,
        domid: u16,
        what: &str,
        work: impl FnOnce(&Self, &Record, u16, &Job) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let target = Target { name: record.config.name.clone(), uuid: record.uuid, domid: Some(domid), record: Some(record.clone()) };
        let known = record.clone();
        self.start(what, &target, move |daemon, job| {
            // What was seen may be out of date by now.
            if daemon.records.get(known.uuid).is_some_and(|record| record.stage == Stage::Running && record.domid == Some(domid)) {
                work(daemon, &known, domid, job)?;
            }
            Ok(Outcome::Nothing)
        })
        .map(drop)
    }

    /// Waits until `xenconsoled` has found the console of a guest that has ended: what such a guest wrote goes with its domain otherwise.
    fn wait_for_console(&self, domid: u16, name: &str) {
        let start = Instant::now();
        while !self.has_console(domid) {
            if start.elapsed() >= self.settings.console_timeout {
                tracing::warn!("{name}: xenconsoled has not found its console; what it wrote there may be lost");
                return;
            }
            sleep(CONSOLE_POLL);
        }
    }

    /// Whether `xenconsoled` serves a domain's console.
    fn has_console(&self, domid: u16) -> bool {
        let tty = self.store.try_read(&format!("{}/console/tty", home(domid)));
        tty.ok().flatten().is_some_and(|tty| !tty.is_empty())
    }

    /// Does what the configuration says about a guest that has ended.
    fn apply(&self, record: &Record, domid: u16, reason: ShutdownReason, job: &Job) -> Result<(), Error> {
        let config = &record.config;
        let action = match reason {
            ShutdownReason::POWEROFF => config.on_poweroff,
            ShutdownReason::REBOOT => config.on_reboot,
            ShutdownReason::WATCHDOG => config.on_watchdog,
            // Whoever saves a guest takes it away.
            ShutdownReason::SUSPEND => return Ok(()),
            _ => config.on_crash,
        };
        tracing::info!("{}: {}, so {action}", config.name, reason_word(reason));
        self.wait_for_console(domid, &config.name);
        match action {
            Action::Destroy => self.end(domid, record.uuid, Some(record)),
            Action::Restart => self.restart(record, domid, job),
            Action::Preserve => self.preserve(record),
            Action::RenameRestart => {
                let Some(next) = self.again(record) else { return self.preserve(record) };
                self.records.put(next.clone()).or_api("remembering the guest")?;
                let fresh = self.preserve_renamed(&next, domid)?;
                // The successor gets them.
                self.devices.detach_all(&self.store, domid).or_api("detaching devices")?;
                self.bring_up(fresh, false, job)
            }
            Action::CoredumpDestroy | Action::CoredumpRestart => {
                // Without the dump the guest is not worth keeping either: the administrator wants it gone or back.
                if let Err(error) = self.write_core(domid, &config.name, None, job) {
                    tracing::error!("{}: {error}", config.name);
                }
                if action == Action::CoredumpDestroy { self.end(domid, record.uuid, Some(record)) } else { self.restart(record, domid, job) }
            }
            Action::SoftReset => {
                tracing::error!("{}: {action} is not supported; the guest is kept for examination", config.name);
                self.preserve(record)
            }
        }
    }

    /// Leaves a guest that has ended as it is. It is no longer looked after.
    fn preserve(&self, record: &Record) -> Result<(), Error> {
        self.records.update(record.uuid, |record| record.stage = Stage::Preserved).or_api("remembering the guest")?;
        Ok(())
    }

    /// Gives a guest that has ended another name and UUID; returns the record for its successor.
    fn preserve_renamed(&self, record: &Record, domid: u16) -> Result<Record, Error> {
        let uuid = Uuid::new_v4();
        let mut kept = record.clone();
        kept.uuid = uuid;
        kept.config.name = kept_name(&record.config.name, domid);
        kept.config.uuid = Some(uuid);
        kept.stage = Stage::Preserved;
        kept.managed = false;
        kept.returning = false;
        let name = kept.config.name.clone();
        // First of all, so that a daemon that starts in between knows the domain under either UUID.
        self.records.put(kept).or_api("remembering the guest")?;
        let renamed = self.xen.set_handle(domid, *uuid.as_bytes()).or_api("giving the crashed guest another UUID").and_then(|()| self.move_nodes(domid, record.uuid, uuid, &name));
        if let Err(error) = renamed {
            // The next look at the guest tries again, from the start.
            self.xen.set_handle(domid, *record.uuid.as_bytes()).or_api("giving the crashed guest its UUID back")?;
            self.records.remove(uuid).or_api("forgetting the guest")?;
            return Err(error);
        }
        Ok(Record { domid: None, ..record.clone() })
    }

    /// The record with which a guest starts again by itself, unless it has done so too often.
    fn again(&self, record: &Record) -> Option<Record> {
        let mut next = record.clone();
        let now = now();
        next.restarts.retain(|at| at + RESTART_WINDOW_S > now);
        if next.restarts.len() >= self.settings.restart_limit {
            tracing::error!("{}: restarted {} times within {RESTART_WINDOW_S} s; not started again", record.config.name, next.restarts.len());
            return None;
        }
        next.restarts.push(now);
        next.returning = true;
        Some(next)
    }

    fn restart(&self, record: &Record, domid: u16, job: &Job) -> Result<(), Error> {
        let Some(next) = self.again(record) else { return self.end(domid, record.uuid, Some(record)) };
        job.step("removing the old domain");
        self.records.put(Record { stage: Stage::Destroying, ..next.clone() }).or_api("remembering the guest")?;
        self.remove_domain(domid, record.uuid)?;
        self.bring_up(next, false, job)
    }

    /// Carries on with a restart that broke off with the daemon; says whether there was one, not too long ago.
    ///
    /// # Errors
    ///
    /// The old domain cannot be removed.
    pub(crate) fn carry_on_restart(self: &Arc<Self>, record: &Record, domid: Option<u16>) -> Result<bool, Error> {
        let is_recent = record.restarts.last().is_some_and(|at| at + RESTART_WINDOW_S > now());
        if !record.returning || !is_recent {
            return Ok(false);
        }
        let name = record.config.name.clone();
        tracing::warn!("the restart of {name} broke off; it is carried on");
        if let Some(domid) = domid.or(record.domid) {
            // Whoever carries this on in turn would not find the number when the domain is gone already.
            self.records.update(record.uuid, |record| record.domid = Some(domid)).or_api("remembering the guest")?;
            self.remove_domain(domid, record.uuid)?;
            // Where the old domain is kept under another name, the successor gets its devices.
            let is_kept = |other: &Record| other.stage == Stage::Preserved && other.domid == Some(domid) && other.config.name == kept_name(&name, domid);
            if self.records.all().iter().any(is_kept) {
                self.devices.detach_all(&self.store, domid).or_api("detaching devices")?;
            }
        }
        let next = Record { domid: None, ..record.clone() };
        let target = Target { name, uuid: record.uuid, domid: None, record: Some(next.clone()) };
        self.start("restart", &target, move |daemon, job| daemon.bring_up(next, false, job).map(|()| Outcome::Nothing))?;
        Ok(true)
    }
}

/// The name of what is kept of a guest that starts again.
fn kept_name(name: &str, domid: u16) -> String {
    format!("{name}-{domid}")
}

/// The word for a guest's end.
fn reason_word(reason: ShutdownReason) -> &'static str {
    match reason {
        ShutdownReason::POWEROFF => "powered off",
        ShutdownReason::REBOOT => "reboots",
        ShutdownReason::SUSPEND => "suspended",
        ShutdownReason::CRASH => "crashed",
        ShutdownReason::WATCHDOG => "watchdog expired",
        _ => "ended",
    }
}

/// The request in `control/shutdown`.
pub(crate) fn request(way: ShutdownWay) -> &'static str {
    match way {
        ShutdownWay::Poweroff => "poweroff",
        ShutdownWay::Halt => "halt",
    }
}
