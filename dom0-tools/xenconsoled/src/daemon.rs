//! The daemon's loop.

use crate::console::{Channel, Console};
use crate::hypervisor::HypervisorLog;
use crate::logfile::LogFile;
use crate::nodes::{self, ConsoleNodes};
pub use crate::logfile::Rotation;
use oxen_abi::domctl::DOMINF_DYING;
use oxen_abi::xen::DOMID_FIRST_RESERVED;
use oxen_xenctl::{EventChannels, Grants, Xen};
use oxen_xenstore::Store;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What the daemon is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where log files go.
    pub log_dir: PathBuf,
    /// Whether guests' output is recorded.
    pub log_guests: bool,
    /// Whether the hypervisor's console is recorded.
    pub log_hypervisor: bool,
    /// When log files rotate.
    pub rotation: Rotation,
    /// Bytes per second that a guest may write for long.
    pub per_second: u64,
    /// Bytes that a guest may write at once.
    pub burst: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log_dir: PathBuf::from("/var/log/xen/console"),
            log_guests: true,
            log_hypervisor: false,
            rotation: Rotation { max_len: 4 << 20, keep: 4 },
            per_second: 64 << 10,
            burst: 1 << 20,
        }
    }
}

/// Why the daemon cannot go on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The hypervisor or its devices.
    Xen(oxen_xenctl::Error),
    /// Xenstore.
    Store(oxen_xenstore::Error),
    /// The operating system.
    System(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xen(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
            Self::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<oxen_xenctl::Error> for Error {
    fn from(error: oxen_xenctl::Error) -> Self {
        Self::Xen(error)
    }
}

impl From<oxen_xenstore::Error> for Error {
    fn from(error: oxen_xenstore::Error) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Domains come.
const INTRODUCE: &str = "@introduceDomain";
/// Domains go.
const RELEASE: &str = "@releaseDomain";
/// A domain's watches have this and its id as token.
const DOMAIN_TOKEN: &str = "domain/";

/// The console daemon.
#[derive(Debug)]
pub struct Daemon {
    options: Options,
    xen: Xen,
    events: EventChannels,
    grants: Grants,
    store: Store,
    /// Domains whose nodes are watched.
    watched: BTreeSet<u16>,
    consoles: BTreeMap<u16, Console>,
    hypervisor: Option<HypervisorLog>,
    /// When guests that wrote too fast may go on.
    resume: Option<Instant>,
}

/// What woke the daemon.
struct Woken {
    store: bool,
    events: bool,
    /// Consoles whose pseudo-terminals are ready.
    terminals: Vec<u16>,
}

impl Daemon {
    /// A daemon that serves the guests that there are and those that come.
    ///
    /// # Errors
    ///
    /// [`Error`], when the watches cannot be set.
    pub fn new(options: Options, xen: Xen, events: EventChannels, grants: Grants, store: Store) -> Result<Self, Error> {
        store.watch(INTRODUCE, INTRODUCE)?;
        store.watch(RELEASE, RELEASE)?;
        let mut daemon =
            Self { options, xen, events, grants, store, watched: BTreeSet::new(), consoles: BTreeMap::new(), hypervisor: None, resume: None };
        if daemon.options.log_hypervisor {
            let file = LogFile::new(daemon.options.log_dir.join("hypervisor.log"), daemon.options.rotation);
            match HypervisorLog::start(&daemon.xen, &daemon.events, file) {
                Ok(log) => daemon.hypervisor = Some(log),
                Err(error) => eprintln!("xenconsoled: the hypervisor's console is not recorded: {error}"),
            }
        }
        daemon.scan()?;
        Ok(daemon)
    }

    /// Serves for ever.
    ///
    /// # Errors
    ///
    /// [`Error`] when xenstore or the devices are lost for good.
    pub fn run(&mut self) -> Result<(), Error> {
        loop {
            self.turn(None)?;
        }
    }

    /// Waits for something to do, at most `timeout`, and does it.
    ///
    /// # Errors
    ///
    /// As [`Daemon::run`].
    pub fn turn(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        let woken = self.wait(timeout)?;
        if woken.store {
            self.take_store_events()?;
        }
        if woken.events {
            self.take_events()?;
        }
        for domid in woken.terminals {
            if let Some(console) = self.consoles.get_mut(&domid) {
                console.unblock();
                console.take_input(&self.events);
            }
        }
        let now = Instant::now();
        self.resume = None;
        for console in self.consoles.values_mut() {
            if let Some(later) = console.serve(&self.events, now) {
                self.resume = Some(self.resume.map_or(later, |resume| resume.min(later)));
            }
            console.flush();
        }
        Ok(())
    }

    /// The guests that are served.
    #[must_use]
    pub fn domids(&self) -> Vec<u16> {
        self.consoles.keys().copied().collect()
    }

    fn wait(&self, timeout: Option<Duration>) -> io::Result<Woken> {
        let left = self.resume.map(|resume| resume.saturating_duration_since(Instant::now()));
        let timeout = match (timeout, left) {
            (Some(timeout), Some(left)) => Some(timeout.min(left)),
            (timeout, left) => timeout.or(left),
        };
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let store = self.store.event_fd();
        let mut fds = vec![PollFd::from_borrowed_fd(store, PollFlags::IN), PollFd::new(&self.events, PollFlags::IN)];
        let mut domids = Vec::new();
        for console in self.consoles.values() {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, console.input_room() > 0);
            flags.set(PollFlags::OUT, console.has_backlog());
            if !flags.is_empty() {
                fds.push(PollFd::from_borrowed_fd(console.pty.as_fd(), flags));
                domids.push(console.domid);
            }
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let (store, events) = (ready.next() == Some(true), ready.next() == Some(true));
        let terminals = domids.into_iter().zip(ready).filter(|(_, ready)| *ready).map(|(domid, _)| domid).collect();
        Ok(Woken { store, events, terminals })
    }

    fn take_events(&mut self) -> Result<(), Error> {
        let pending = match self.events.pending() {
            Ok(pending) => pending,
            // The device lost events: look everywhere.
            Err(error) => {
                eprintln!("xenconsoled: {error}; looking at all consoles");
                self.consoles.values_mut().for_each(Console::notified);
                return Ok(());
            }
        };
        for port in pending {
            if let Some(log) = self.hypervisor.as_mut().filter(|log| log.port() == port) {
                log.serve(&self.xen, &self.events)?;
                continue;
            }
            let console = self.consoles.values_mut().find(|console| console.channel.as_ref().is_some_and(|channel| channel.port() == port));
            if let Some(console) = console {
                console.notified();
            }
        }
        Ok(())
    }

    fn take_store_events(&mut self) -> Result<(), Error> {
        let mut scan = false;
        let mut changed = BTreeSet::new();
        while let Some(event) = self.store.next_event(Some(Duration::ZERO))? {
            match event.token.strip_prefix(DOMAIN_TOKEN).and_then(|domid| domid.parse().ok()) {
                Some(domid) => drop(changed.insert(domid)),
                None => scan = true,
            }
        }
        if scan {
            self.scan()?;
        }
        for domid in changed {
            if self.watched.contains(&domid) {
                self.look_at(domid)?;
            }
        }
        Ok(())
    }

    /// Compares the domains that there are with those that are served, as is done whenever xenstore says that some came or went.
    ///
    /// # Errors
    ///
    /// As [`Daemon::run`].
    pub fn scan(&mut self) -> Result<(), Error> {
        let domains = self.xen.domains()?;
        let alive: BTreeSet<u16> =
            domains.iter().filter(|info| info.flags & DOMINF_DYING == 0).map(|info| info.domain).filter(|domid| (1..DOMID_FIRST_RESERVED).contains(domid)).collect();
        for domid in self.watched.difference(&alive).copied().collect::<Vec<_>>() {
            self.forget(domid);
        }
        for domid in alive {
            if !self.watched.contains(&domid) {
                let token = format!("{DOMAIN_TOKEN}{domid}");
                // Each fires once at once, and so the nodes are looked at.
                self.store.watch(&nodes::console_path(domid), &token)?;
                self.store.watch(&nodes::name_path(domid), &token)?;
                self.watched.insert(domid);
            }
        }
        Ok(())
    }

    /// A domain is gone: its last words are taken, and its frame is let go, without which it could not end.
    fn forget(&mut self, domid: u16) {
        self.watched.remove(&domid);
        if let Some(mut console) = self.consoles.remove(&domid) {
            console.disconnect(&self.events);
        }
        let token = format!("{DOMAIN_TOKEN}{domid}");
        for path in [nodes::console_path(domid), nodes::name_path(domid)] {
            // The daemon may have been restarted without them.
            let _ = self.store.unwatch(&path, &token);
        }
    }

    /// Reads a domain's nodes and follows them.
    fn look_at(&mut self, domid: u16) -> Result<(), Error> {
        let Some(found) = nodes::read(&self.store, domid)? else { return Ok(()) };
        let log = self.options.log_guests.then(|| LogFile::for_guest(&self.options.log_dir, &found.name, self.options.rotation));
        let moved = match self.consoles.get_mut(&domid) {
            Some(console) => {
                let moved = (console.nodes.ring_ref, console.nodes.port) != (found.ring_ref, found.port) || console.channel.is_none();
                console.update(found.clone(), log);
                moved
            }
            None => {
                let console = Console::new(domid, found.clone(), log, self.options.per_second, self.options.burst)?;
                self.consoles.insert(domid, console);
                true
            }
        };
        if moved {
            self.connect(domid, &found)?;
        }
        Ok(())
    }

    fn connect(&mut self, domid: u16, found: &ConsoleNodes) -> Result<(), Error> {
        let Some(console) = self.consoles.get_mut(&domid) else { return Ok(()) };
        // The old port must be closed first: where only the ring moved, the guest's end is still bound to it.
        console.disconnect(&self.events);
        match Channel::connect(&self.xen, &self.grants, &self.events, domid, found) {
            Ok(channel) => {
                console.connect(channel, &self.events);
                nodes::publish_tty(&self.store, domid, console.pty.path())?;
            }
            Err(error) => {
                // Not for good: it is tried again when the nodes change. Without the ring there is nothing to serve.
                eprintln!("xenconsoled: no console for domain {domid} ({}): {error}", found.name);
                self.consoles.remove(&domid);
            }
        }
        Ok(())
    }
}
