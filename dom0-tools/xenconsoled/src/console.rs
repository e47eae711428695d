//! One guest's console.

use crate::backlog::Backlog;
use crate::logfile::LogFile;
use crate::nodes::ConsoleNodes;
use crate::pty::Pty;
use crate::rate::Rate;
use oxen_abi::grant_table::GNTTAB_RESERVED_CONSOLE;
use oxen_xenctl::{EventChannels, Grants, LocalPort, Ring, RingFault, RingLayout, SharedMemory, Xen};
use std::io;
use std::time::Instant;

/// Bytes taken from a ring at once; a ring has no more.
const CHUNK: usize = 2048;
/// Bytes of input taken from a pseudo-terminal at once; the ring has no more.
const INPUT_CHUNK: usize = 1024;

/// The hypervisor's side of a console.
#[derive(Debug)]
pub struct Channel {
    memory: SharedMemory,
    port: LocalPort,
}

impl Channel {
    /// Connects to a guest: by the grant that the domain builder made, or else by the ring's frame.
    pub fn connect(xen: &Xen, grants: &Grants, events: &EventChannels, domid: u16, nodes: &ConsoleNodes) -> oxen_xenctl::Result<Self> {
        let memory = grants.map(domid, &[GNTTAB_RESERVED_CONSOLE], true).or_else(|_| xen.map_foreign(domid, &[nodes.ring_ref], true))?;
        let port = events.bind_interdomain(domid, nodes.port)?;
        Ok(Self { memory, port })
    }

    /// The port that becomes pending when the guest wrote or read something.
    pub fn port(&self) -> LocalPort {
        self.port
    }
}

/// A guest's console: ring, pseudo-terminal, log file.
#[derive(Debug)]
pub struct Console {
    /// The guest.
    pub domid: u16,
    /// What xenstore said of it last.
    pub nodes: ConsoleNodes,
    /// Its pseudo-terminal.
    pub pty: Pty,
    /// The ring, while connected.
    pub channel: Option<Channel>,
    log: Option<LogFile>,
    backlog: Backlog,
    rate: Rate,
    /// An event came that was not seen to.
    pending: bool,
    /// The guest's mistakes were reported.
    faulted: bool,
    /// Nobody reads the pseudo-terminal, and it is full.
    blocked: bool,
}

impl Console {
    /// A console that is not connected yet.
    pub fn new(domid: u16, nodes: ConsoleNodes, log: Option<LogFile>, per_second: u64, burst: u64) -> io::Result<Self> {
        let backlog = Backlog::new(nodes.limit);
        let rate = Rate::new(per_second, burst, Instant::now());
        Ok(Self { domid, nodes, pty: Pty::open()?, channel: None, log, backlog, rate, pending: false, faulted: false, blocked: false })
    }

    /// Connects to the ring that the nodes name, dropping an older one. What waits in it is seen to at the next [`Console::serve`].
    pub fn connect(&mut self, channel: Channel, events: &EventChannels) {
        self.disconnect(events);
        self.channel = Some(channel);
        self.pending = true;
    }

    /// Lets go of the ring after taking what is left in it.
    pub fn disconnect(&mut self, events: &EventChannels) {
        self.drain();
        if let Some(channel) = self.channel.take() {
            // The port of a guest that is gone may be closed already.
            let _ = events.unbind(channel.port);
        }
    }

    /// Takes over changed settings.
    pub fn update(&mut self, nodes: ConsoleNodes, log: Option<LogFile>) {
        self.backlog.set_limit(nodes.limit);
        if nodes.name != self.nodes.name {
            self.log = log;
        }
        self.nodes = nodes;
    }

    /// Notes that the guest sent an event.
    pub fn notified(&mut self) {
        self.pending = true;
    }

    /// Sees to events; returns when to try again, where the guest's rate did not allow everything.
    pub fn serve(&mut self, events: &EventChannels, now: Instant) -> Option<Instant> {
        if !self.pending {
            return None;
        }
        let port = self.channel.as_ref()?.port;
        loop {
            if let Some(later) = self.rate.wait_until(now) {
                // The port stays masked, so the guest cannot wake this daemon meanwhile; with a full ring it waits.
                return Some(later);
            }
            let taken = self.take();
            self.rate.charge(taken);
            if taken == 0 {
                break;
            }
            // Closing the port is the guest's right.
            let _ = events.notify(port);
        }
        self.pending = false;
        let _ = events.unmask(port);
        None
    }

    /// Moves a chunk from the ring to log and backlog; returns its length, 0 when the ring is empty.
    fn take(&mut self) -> usize {
        let Some(channel) = &self.channel else { return 0 };
        let ring = Ring::new(&channel.memory, RingLayout::CONSOLE_OUTPUT);
        let mut chunk = [0; CHUNK];
        let len = match ring.peek(&mut chunk) {
            Ok(len) => len,
            Err(fault) => return self.repair(&fault),
        };
        let bytes = chunk.get(..len).unwrap_or_default();
        if len == 0 {
            return 0;
        }
        // Only what is in the log leaves the ring: a daemon that is killed here repeats a chunk, and loses none.
        if let Some(log) = &mut self.log {
            log.append(bytes);
        }
        self.backlog.push(bytes);
        match ring.advance(len) {
            Ok(()) => len,
            Err(fault) => self.repair(&fault),
        }
    }

    /// Gives up the contents of a ring that makes no sense; costs the guest as much as a full ring.
    fn repair(&mut self, fault: &RingFault) -> usize {
        if !self.faulted {
            eprintln!("xenconsoled: domain {} ({}): {fault}; its output up to here is dropped", self.domid, self.nodes.name);
            self.faulted = true;
        }
        if let Some(channel) = &self.channel {
            // Fails only for memory without rings, which was not mapped.
            let _ = Ring::new(&channel.memory, RingLayout::CONSOLE_OUTPUT).drain();
        }
        CHUNK
    }

    /// Takes what is in the ring, once: the guest may be writing still.
    fn drain(&mut self) {
        self.take();
        self.flush();
    }

    /// Notes that the pseudo-terminal takes output again.
    pub fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Writes to the pseudo-terminal what fits, if it takes any.
    pub fn flush(&mut self) {
        while !self.blocked && !self.backlog.is_empty() {
            match self.pty.write(self.backlog.front()) {
                Ok(0) | Err(_) => self.blocked = true,
                Ok(len) => self.backlog.advance(len),
            }
        }
    }

    /// Whether output waits for somebody to read it.
    pub fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Room for input in the ring.
    pub fn input_room(&self) -> usize {
        let room = self.channel.as_ref().and_then(|channel| Ring::new(&channel.memory, RingLayout::CONSOLE_INPUT).room().ok());
        room.unwrap_or(0) as usize
    }

    /// Moves typed input into the ring.
    pub fn take_input(&mut self, events: &EventChannels) {
        let room = self.input_room();
        let mut typed = [0; INPUT_CHUNK];
        let Some(buffer) = typed.get_mut(..room.min(INPUT_CHUNK)).filter(|buffer| !buffer.is_empty()) else { return };
        let Ok(len) = self.pty.read(buffer) else { return };
        let Some(channel) = &self.channel else { return };
        let ring = Ring::new(&channel.memory, RingLayout::CONSOLE_INPUT);
        if ring.produce(buffer.get(..len).unwrap_or_default()).is_ok_and(|len| len > 0) {
            let _ = events.notify(channel.port);
        }
    }
}
