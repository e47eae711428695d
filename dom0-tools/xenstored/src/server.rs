//! The event loop: one thread, which serves sockets and rings in batches. What a batch changed is in the journal before any of its
//! answers is sent.

mod rings;
mod sockets;
mod xen;

use crate::engine::Engine;
use crate::journal::Journal;
use crate::limits::Limits;
use crate::log;
use rings::Rings;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use sockets::Sockets;
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use rings::{Connector, NoRings};
pub use xen::Xen;

/// How many descriptors are looked at in one round.
const EVENTS: usize = 256;
/// How often guests' long transactions are looked at.
const TICK: Duration = Duration::from_secs(20);
/// How often a journal that could not be written is tried again.
const JOURNAL_RETRY: Duration = Duration::from_secs(2);

/// What an epoll event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Listener { read_only: bool },
    Rings,
    Signal,
    Client(usize),
}

impl Source {
    const FIRST_CLIENT: u64 = 4;

    const fn to_raw(self) -> u64 {
        match self {
            Self::Listener { read_only } => read_only as u64,
            Self::Rings => 2,
            Self::Signal => 3,
            Self::Client(client) => client as u64 + Self::FIRST_CLIENT,
        }
    }

    const fn from_raw(raw: u64) -> Self {
        match raw {
            0 => Self::Listener { read_only: false },
            1 => Self::Listener { read_only: true },
            2 => Self::Rings,
            3 => Self::Signal,
            client => Self::Client((client - Self::FIRST_CLIENT) as usize),
        }
    }
}

/// Where a round is cut short, for tests: what `kill -9` at that moment leaves behind.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// Requests are handled, nobody knows.
    BeforeJournal,
    /// The journal has everything, nothing is sent.
    AfterJournal,
    /// Answers are in the rings, whose requests are not given back.
    AfterSend,
}

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory of the sockets and the journal.
    pub rundir: PathBuf,
    /// The quotas.
    pub limits: Limits,
    /// Whether to keep a journal.
    pub journal: bool,
    /// Whether every request is logged.
    pub trace: bool,
}

/// The daemon.
pub struct Server<C> {
    engine: Engine,
    journal: Option<Journal>,
    journal_retry: Option<Instant>,
    epoll: OwnedFd,
    sockets: Sockets,
    rings: Rings<C>,
    /// Clients with requests that wait for their turn.
    backlog: Vec<usize>,
    dirty: Vec<usize>,
    last_tick: Instant,
    crash: Option<CrashPoint>,
    resumed: Option<usize>,
}

impl<C: Connector> Server<C> {
    /// Opens the sockets, reads the journal, and connects the domains that it tells of, or domain 0.
    ///
    /// # Errors
    ///
    /// When the directory cannot be used or another daemon uses it, or when this domain's own ring cannot be connected.
    pub fn new(options: &Options, connector: C) -> io::Result<Self> {
        let (journal, mut engine, restored) = open_journal(options)?;
        engine.trace = options.trace;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let sockets = Sockets::open(&options.rundir)?;
        for (listener, read_only) in sockets.listeners() {
            epoll::add(&epoll, listener, epoll::EventData::new_u64(Source::Listener { read_only }.to_raw()), epoll::EventFlags::IN)?;
        }
        let rings = Rings::new(connector);
        if let Some(fd) = rings.fd() {
            epoll::add(&epoll, fd, epoll::EventData::new_u64(Source::Rings.to_raw()), epoll::EventFlags::IN)?;
        }
        let mut server = Self {
            engine,
            journal,
            journal_retry: None,
            epoll,
            sockets,
            rings,
            backlog: Vec::new(),
            dirty: Vec::new(),
            last_tick: Instant::now(),
            crash: None,
            resumed: None,
        };
        server.connect_domains(restored)?;
        server.rewrite_journal();
        Ok(server)
    }

    /// The number of domains that were connected before a restart; `None` for a daemon that starts for the first time.
    pub fn resumed(&self) -> Option<usize> {
        self.resumed
    }

    /// Ends [`Server::run`] when `fd` becomes readable.
    ///
    /// # Errors
    ///
    /// When it cannot be waited for.
    pub fn stop_on(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(Source::Signal.to_raw()), epoll::EventFlags::IN)?)
    }

    /// Serves until told to stop.
    ///
    /// # Errors
    ///
    /// When waiting fails.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            let pause = if self.backlog.is_empty() { TICK } else { Duration::ZERO };
            if self.round(&mut events, pause)? {
                return Ok(());
            }
        }
    }

    /// Waits up to `pause` for something to do, and does it; says whether to stop.
    ///
    /// # Errors
    ///
    /// When waiting fails.
    pub fn round(&mut self, events: &mut Vec<epoll::Event>, pause: Duration) -> io::Result<bool> {
        events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), Timespec::try_from(pause).ok().as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut waiting = std::mem::take(&mut self.backlog);
        for client in waiting.drain(..) {
            self.serve(client);
        }
        for event in events.iter() {
            match Source::from_raw(event.data.u64()) {
                Source::Listener { read_only } => self.sockets.accept(&mut self.engine, &self.epoll, read_only),
                Source::Rings => self.ring_events(),
                Source::Signal => return Ok(true),
                Source::Client(client) => self.socket_event(client, event.flags),
            }
        }
        self.flush()?;
        self.look_after();
        Ok(false)
    }

    /// Handles requests of a client, a fair share of what waits.
    fn serve(&mut self, client: usize) {
        match self.rings.domain_of(client) {
            Some(domid) => {
                if self.rings.serve(&mut self.engine, domid) {
                    self.backlog.push(client);
                }
            }
            None => self.sockets.serve(&mut self.engine, &mut self.rings, client),
        }
    }

    fn ring_events(&mut self) {
        for client in self.rings.events(&mut self.engine) {
            self.serve(client);
            // A guest that has read answers makes room for more.
            self.dirty.push(client);
        }
    }

    fn socket_event(&mut self, client: usize, flags: epoll::EventFlags) {
        if flags.contains(epoll::EventFlags::OUT) {
            self.send(client);
        }
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            self.serve(client);
        }
    }

    /// Writes the journal, then sends what there is to send.
    fn flush(&mut self) -> io::Result<()> {
        self.maybe_crash(CrashPoint::BeforeJournal)?;
        let mut again = std::mem::take(&mut self.dirty);
        let frames = self.engine.journal();
        if let Some(journal) = &mut self.journal {
            journal.append(frames.bytes());
        }
        frames.clear();
        self.maybe_crash(CrashPoint::AfterJournal)?;
        let mut dirty = Vec::new();
        self.engine.take_dirty(&mut dirty);
        dirty.append(&mut again);
        for client in dirty.drain(..) {
            self.send(client);
        }
        self.dirty = dirty;
        self.maybe_crash(CrashPoint::AfterSend)?;
        self.rings.acknowledge(&mut self.engine, &mut self.backlog);
        Ok(())
    }

    fn maybe_crash(&mut self, point: CrashPoint) -> io::Result<()> {
        if self.crash.is_some_and(|wanted| wanted == point) { Err(io::Error::other("cut short by the test")) } else { Ok(()) }
    }

    /// Cuts the next round short; the server must not be used afterwards.
    #[doc(hidden)]
    pub fn crash_at(&mut self, point: CrashPoint) {
        self.crash = Some(point);
    }

    /// The engine, to look at.
    #[doc(hidden)]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Introduces a domain.
    #[doc(hidden)]
    pub fn introduce(&mut self, domid: u16, gfn: u64, port: u32) -> Result<(), oxen_abi::Errno> {
        self.engine.introduce_domain(domid, gfn, port, &mut self.rings)?;
        self.engine.end_request();
        Ok(())
    }

    /// Makes a request of a program of domain 0, without looking at the answer.
    #[doc(hidden)]
    pub fn ask_as_dom0(&mut self, kind: oxen_xenstore::XsType, payload: &[u8]) {
        let client = self.engine.add_client(true);
        let head = oxen_xenstore::wire::Head { kind, req_id: 0, tx_id: 0, len: payload.len() as u32 };
        self.engine.request(client, head, payload, &mut self.rings);
        self.engine.end_request();
        self.engine.remove_client(client);
    }

    fn send(&mut self, client: usize) {
        match self.rings.domain_of(client) {
            Some(domid) => self.rings.send(&mut self.engine, domid),
            None => {
                if self.sockets.send(&mut self.engine, &self.epoll, client) {
                    self.backlog.push(client);
                }
            }
        }
    }

    fn look_after(&mut self) {
        if self.last_tick.elapsed() > TICK {
            self.last_tick = Instant::now();
            self.engine.tick();
        }
        let due = self.journal_retry.is_none_or(|at| at.elapsed() > JOURNAL_RETRY);
        if due && self.journal.as_ref().is_some_and(Journal::wants_rewrite) {
            self.rewrite_journal();
        }
    }

    fn rewrite_journal(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        journal.rewrite(|file| self.engine.snapshot(|piece| file.write_all(piece)));
        self.engine.journal().clear();
        self.journal_retry = journal.wants_rewrite().then(Instant::now);
    }

    /// Connects the domains of the journal again, or this domain for the first time.
    fn connect_domains(&mut self, restored: bool) -> io::Result<()> {
        let known: Vec<(u16, u32, usize)> = self.engine.domains().map(|(domid, domain)| (domid, domain.port, domain.client)).collect();
        for (domid, port, client) in &known {
            if let Err(error) = self.rings.reconnect(&mut self.engine, *domid, *port, *client) {
                log::line(&format!("cannot connect domain {domid} again: {error}"));
            }
        }
        self.resumed = restored.then_some(known.len());
        if !known.iter().any(|(domid, ..)| *domid == 0) {
            self.rings.connect_own(&mut self.engine)?;
        }
        self.rings.check_domains(&mut self.engine);
        // Requests and answers may wait in every ring.
        self.backlog.extend(self.engine.domains().map(|(_, domain)| domain.client));
        self.dirty.extend(self.engine.domains().map(|(_, domain)| domain.client));
        Ok(())
    }
}

fn open_journal(options: &Options) -> io::Result<(Option<Journal>, Engine, bool)> {
    std::fs::create_dir_all(&options.rundir)?;
    if !options.journal {
        return Ok((None, Engine::new(options.limits.clone()), false));
    }
    let (journal, bytes) = Journal::open(&options.rundir)?;
    if bytes.is_empty() {
        return Ok((Some(journal), Engine::new(options.limits.clone()), false));
    }
    let (engine, used) = Engine::restore(options.limits.clone(), &bytes);
    if used < bytes.len() {
        log::line(&format!("the journal's last {} bytes were not acknowledged to anybody; left out", bytes.len() - used));
    }
    Ok((Some(journal), engine, true))
}
