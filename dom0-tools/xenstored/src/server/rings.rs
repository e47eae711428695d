//! Domains, over their rings.

use crate::engine::{Engine, Host, Life};
use crate::log::{self, RateLimit};
use oxen_abi::Errno;
use oxen_abi::io::xs_wire::{XENSTORE_RING_SIZE, XenstoreDomainInterface};
use oxen_xenctl::{LocalPort, Ring, RingFault, RingLayout, SharedMemory};
use oxen_xenstore::wire;
use std::collections::BTreeMap;
use std::io;
use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

/// How often a ring is looked at again in one turn.
const ROUNDS: usize = 8;

/// What maps rings, binds event channels, and knows which domains live.
pub trait Connector {
    /// Maps a domain's ring page.
    ///
    /// # Errors
    ///
    /// When the domain is gone or does not let it be mapped.
    fn map(&mut self, domid: u16, gfn: u64) -> Result<SharedMemory, String>;

    /// Binds the event channel that a domain has prepared.
    ///
    /// # Errors
    ///
    /// When it is not prepared for this domain.
    fn bind(&mut self, domid: u16, port: u32) -> Result<LocalPort, String>;

    /// Closes an event channel.
    fn unbind(&mut self, port: LocalPort);

    /// Notifies the other end.
    fn notify(&mut self, port: LocalPort);

    /// Lets a port come again that was pending.
    fn unmask(&mut self, port: LocalPort);

    /// The ports that are pending.
    fn pending(&mut self) -> Vec<LocalPort>;

    /// The port that tells of domains that change their state.
    fn life_port(&self) -> Option<LocalPort>;

    /// Whether a domain lives.
    fn life(&mut self, domid: u16) -> Life;

    /// The event channel of this domain's own kernel, if it has a ring.
    ///
    /// # Errors
    ///
    /// When there should be one, but it cannot be used.
    fn own_port(&self) -> io::Result<Option<u32>>;

    /// Readable when a port is pending.
    fn fd(&self) -> Option<BorrowedFd<'_>>;
}

/// The connected domains.
#[derive(Debug)]
pub(super) struct Rings<C> {
    connector: C,
    rings: BTreeMap<u16, Connected>,
    by_client: BTreeMap<usize, u16>,
    by_port: BTreeMap<LocalPort, u16>,
    complaints: RateLimit,
    /// Domains whose consumer index is to be moved.
    consumed: Vec<u16>,
}

#[derive(Debug)]
struct Connected {
    memory: SharedMemory,
    port: Option<LocalPort>,
    client: usize,
    /// Bytes to be given back to the domain when the journal has what they asked for.
    consumed: usize,
    /// Whether the domain is to be notified.
    notify: bool,
}

impl Connected {
    fn requests(&self) -> Ring<'_> {
        Ring::new(&self.memory, RingLayout::XENSTORE_REQUESTS)
    }

    fn answers(&self) -> Ring<'_> {
        Ring::new(&self.memory, RingLayout::XENSTORE_REPLIES)
    }
}

impl<C: Connector> Rings<C> {
    pub fn new(connector: C) -> Self {
        Self { connector, rings: BTreeMap::new(), by_client: BTreeMap::new(), by_port: BTreeMap::new(), complaints: RateLimit::default(), consumed: Vec::new() }
    }

    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.connector.fd()
    }

    /// The domain that a client is.
    pub fn domain_of(&self, client: usize) -> Option<u16> {
        self.by_client.get(&client).copied()
    }

    /// Connects this domain's own kernel, if it has a ring.
    pub fn connect_own(&mut self, engine: &mut Engine) -> io::Result<()> {
        let Some(port) = self.connector.own_port()? else { return Ok(()) };
        engine.introduce_domain(0, 0, port, self).map_err(|errno| io::Error::other(format!("cannot connect domain 0: {}", errno.text())))?;
        engine.end_request();
        self.notify(0);
        Ok(())
    }

    /// Connects a domain after a restart: the ring's indices say what is answered and what was sent.
    pub fn reconnect(&mut self, engine: &mut Engine, domid: u16, port: u32, client: usize) -> Result<(), String> {
        let memory = self.connector.map(domid, 0)?;
        let port = match domid {
            0 => self.connector.own_port().ok().flatten().unwrap_or(port),
            _ => port,
        };
        let bound = self.connector.bind(domid, port)?;
        self.add(domid, memory, bound, client);
        let Some(ring) = self.rings.get(&domid) else { return Ok(()) };
        let fault = resume(engine, client, &ring.memory).err();
        if let Some(fault) = fault {
            self.cut_off(engine, domid, &fault);
        }
        self.notify(domid);
        Ok(())
    }

    /// Looks which domains have died.
    pub fn check_domains(&mut self, engine: &mut Engine) {
        // The engine asks and disconnects by the same value; what it asks needs only the connector's view of the moment.
        let mut lives = BTreeMap::new();
        for domid in engine.domains().map(|(domid, _)| domid).chain(engine.tree().owners().iter().map(|(domid, _)| *domid)) {
            if domid != 0 && !lives.contains_key(&domid) {
                lives.insert(domid, self.connector.life(domid));
            }
        }
        engine.check_domains(|domid| lives.get(&domid).copied().unwrap_or(Life::Running), self);
    }

    /// Takes in the pending ports; returns the clients that have something to say.
    pub fn events(&mut self, engine: &mut Engine) -> Vec<usize> {
        let mut clients = Vec::new();
        for port in self.connector.pending() {
            if Some(port) == self.connector.life_port() {
                self.check_domains(engine);
            } else if let Some(ring) = self.by_port.get(&port).and_then(|domid| self.rings.get(domid)) {
                clients.push(ring.client);
            }
            self.connector.unmask(port);
        }
        clients
    }

    /// Handles a domain's requests; says whether there is more to do at once.
    pub fn serve(&mut self, engine: &mut Engine, domid: u16) -> bool {
        for _ in 0..ROUNDS {
            match self.serve_once(engine, domid) {
                Ok(true) => {}
                Ok(false) => return false,
                Err(fault) => {
                    self.cut_off(engine, domid, &fault);
                    return false;
                }
            }
        }
        true
    }

    /// Handles the requests that are complete in the ring; says whether there were any.
    fn serve_once(&mut self, engine: &mut Engine, domid: u16) -> Result<bool, String> {
        let Some(ring) = self.rings.get(&domid) else { return Ok(false) };
        let (client, skip) = (ring.client, ring.consumed);
        let mut chunk = [0; XENSTORE_RING_SIZE];
        let got = ring.requests().peek(&mut chunk).map_err(|fault| fault.to_string())?;
        let new = chunk.get(skip..got).unwrap_or_default();
        if new.is_empty() {
            return Ok(false);
        }
        let unread = engine.limits.unread as usize;
        let Some(state) = engine.client_mut(client) else { return Ok(false) };
        let start = state.consumed;
        let partial = state.partial.clone();
        let joined = [partial.as_slice(), new].concat();
        let mut used = 0;
        let has_room = |engine: &Engine| engine.client(client).is_some_and(|client| client.output.waiting().len() <= unread);
        while has_room(engine) {
            let rest = joined.get(used..).unwrap_or_default();
            let message = wire::first_message(rest).map_err(|head| format!("it announces a request of {} bytes", head.len))?;
            let Some((head, payload)) = message else { break };
            used += wire::HEAD_LEN + payload.len();
            let index = start.wrapping_add((used - partial.len()) as u32);
            engine.request(client, head, payload, self);
            engine.end_ring_request(client, index);
        }
        let taken = if has_room(engine) {
            // The start of a request is taken too: a domain that adds to bytes that nobody has taken does not notify.
            let rest = if used > 0 { joined.get(used..).unwrap_or_default() } else { new };
            if !rest.is_empty() {
                engine.keep_partial(client, rest);
            }
            new.len()
        } else {
            used.saturating_sub(partial.len())
        };
        if taken > 0
            && let Some(ring) = self.rings.get_mut(&domid)
        {
            ring.consumed += taken;
            self.consumed.push(domid);
        }
        Ok(taken > 0)
    }

    /// Puts answers and events into a domain's ring.
    pub fn send(&mut self, engine: &mut Engine, domid: u16) {
        let Some(ring) = self.rings.get_mut(&domid) else { return };
        let Some(state) = engine.client_mut(ring.client) else { return };
        let sent = ring.answers().produce(state.output.waiting());
        match sent {
            Ok(0) => {}
            Ok(count) => {
                state.output.advance(count);
                ring.notify = true;
                self.consumed.push(domid);
            }
            Err(fault) => self.cut_off(engine, domid, &fault.to_string()),
        }
    }

    /// Gives the domains back what they have written and the journal has dealt with, and notifies them. Adds those to `again` that
    /// have written more meanwhile: they do not notify while they see that what they wrote before is not taken.
    pub fn acknowledge(&mut self, engine: &mut Engine, again: &mut Vec<usize>) {
        for domid in std::mem::take(&mut self.consumed) {
            let Some(ring) = self.rings.get_mut(&domid) else { continue };
            let consumed = std::mem::take(&mut ring.consumed);
            let notify = std::mem::take(&mut ring.notify) || consumed > 0;
            let (port, client) = (ring.port, ring.client);
            let requests = ring.requests();
            let more = if consumed > 0 { requests.advance(consumed).and_then(|()| requests.used()) } else { Ok(0) };
            match more {
                Err(fault) => {
                    self.cut_off(engine, domid, &fault.to_string());
                    continue;
                }
                Ok(0) => {}
                Ok(_) => again.push(client),
            }
            if let Some(port) = port.filter(|_| notify) {
                self.connector.notify(port);
            }
        }
    }

    fn add(&mut self, domid: u16, memory: SharedMemory, port: LocalPort, client: usize) {
        self.by_client.insert(client, domid);
        self.by_port.insert(port, domid);
        self.rings.insert(domid, Connected { memory, port: Some(port), client, consumed: 0, notify: false });
    }

    fn notify(&mut self, domid: u16) {
        if let Some(port) = self.rings.get(&domid).and_then(|ring| ring.port) {
            self.connector.notify(port);
        }
    }

    /// Ends the connection of a domain that breaks the protocol. Only that domain notices.
    fn cut_off(&mut self, engine: &mut Engine, domid: u16, why: &str) {
        self.complaints.line(|| format!("domain {domid} breaks the protocol: {why}; its connection ends"));
        if let Some(ring) = self.rings.get(&domid) {
            let error = oxen_abi::io::xs_wire::XENSTORE_ERROR_PROTO;
            // The domain may have unmapped nothing; if it cannot be told, nothing is lost.
            let _ = ring.memory.store_u32(offset_of!(XenstoreDomainInterface, error), error, Ordering::Release);
        }
        self.notify(domid);
        engine.cut_off(domid, self);
    }
}

impl<C: Connector> Host for Rings<C> {
    fn connect(&mut self, domid: u16, gfn: u64, port: u32, client: usize) -> Result<(u32, u32), Errno> {
        let fail = |why: String| {
            log::line(&format!("cannot connect domain {domid}: {why}"));
            Errno::EINVAL
        };
        let memory = self.connector.map(domid, gfn).map_err(fail)?;
        let bound = self.connector.bind(domid, port).map_err(fail)?;
        let indices = first_indices(domid, &memory);
        match indices {
            Ok(indices) => {
                self.add(domid, memory, bound, client);
                Ok(indices)
            }
            Err(fault) => {
                self.connector.unbind(bound);
                Err(fail(fault.to_string()))
            }
        }
    }

    fn rebind(&mut self, domid: u16, port: u32) -> Result<(), Errno> {
        let ring = self.rings.get_mut(&domid).ok_or(Errno::EINVAL)?;
        if let Some(old) = ring.port.take() {
            self.by_port.remove(&old);
            self.connector.unbind(old);
        }
        let bound = self.connector.bind(domid, port).map_err(|why| {
            log::line(&format!("cannot bind domain {domid} anew: {why}"));
            Errno::EINVAL
        })?;
        ring.port = Some(bound);
        self.by_port.insert(bound, domid);
        self.connector.notify(bound);
        Ok(())
    }

    fn disconnect(&mut self, domid: u16) {
        let Some(ring) = self.rings.remove(&domid) else { return };
        self.by_client.remove(&ring.client);
        if let Some(port) = ring.port {
            self.by_port.remove(&port);
            self.connector.unbind(port);
        }
    }
}

const REQ_CONS: usize = offset_of!(XenstoreDomainInterface, req_cons);
const RSP_PROD: usize = offset_of!(XenstoreDomainInterface, rsp_prod);

/// The indices that a connection starts with: zero for a new domain, whatever it has written; those in the page for this domain's own
/// kernel, which may have requests in it.
fn first_indices(domid: u16, memory: &SharedMemory) -> Result<(u32, u32), RingFault> {
    if domid != 0 {
        for index in [offset_of!(XenstoreDomainInterface, req_prod), REQ_CONS, offset_of!(XenstoreDomainInterface, rsp_cons), RSP_PROD] {
            memory.store_u32(index, 0, Ordering::Release)?;
        }
    }
    Ok((memory.load_u32(REQ_CONS, Ordering::Acquire)?, memory.load_u32(RSP_PROD, Ordering::Acquire)?))
}

/// Goes on with a ring after a restart. The journal knows which requests are answered; how much of the answers is in the ring, the
/// ring says.
fn resume(engine: &mut Engine, client: usize, memory: &SharedMemory) -> Result<(), String> {
    let access = |fault: oxen_xenctl::AccessError| fault.to_string();
    let Some(state) = engine.client_mut(client) else { return Ok(()) };
    let produced = memory.load_u32(RSP_PROD, Ordering::Acquire).map_err(access)?;
    if !state.output.resume(produced) {
        return Err(format!("its producer index is {produced:#x}, which was never given"));
    }
    memory.store_u32(REQ_CONS, state.consumed, Ordering::Release).map_err(access)
}

/// The connector of a daemon without domains, for a machine without the hypervisor.
#[derive(Debug, Default)]
pub struct NoRings;

impl Connector for NoRings {
    fn map(&mut self, _: u16, _: u64) -> Result<SharedMemory, String> {
        Err("this machine does not run the hypervisor".to_owned())
    }

    fn bind(&mut self, _: u16, _: u32) -> Result<LocalPort, String> {
        Err("this machine does not run the hypervisor".to_owned())
    }

    fn unbind(&mut self, _: LocalPort) {}

    fn notify(&mut self, _: LocalPort) {}

    fn unmask(&mut self, _: LocalPort) {}

    fn pending(&mut self) -> Vec<LocalPort> {
        Vec::new()
    }

    fn life_port(&self) -> Option<LocalPort> {
        None
    }

    fn life(&mut self, _: u16) -> Life {
        Life::Running
    }

    fn own_port(&self) -> io::Result<Option<u32>> {
        Ok(None)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
