//! The daemon without its input and output: requests in, answers, events and journal records out.

mod control;
mod domains;
mod fire;
mod nodes;
mod restore;
mod transactions;
mod watches;

use crate::client::Client;
use crate::journal::record::{Record, Writer};
use crate::limits::{Limits, QuotaLog};
use crate::log;
use crate::tree::{Change, Tree};
use crate::watch::Watches;
use oxen_abi::Errno;
use oxen_abi::io::xs_wire::{XENSTORE_PAYLOAD_MAX, XsType};
use oxen_xenstore::wire::{self, Head};
use oxen_xenstore::{Access, Perms, path};
use slab::Slab;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

pub use domains::{Domain, Life};
pub use fire::SOCKET_QUEUE;

/// A transaction of a guest may take this long while others change the tree; it keeps the old tree in memory.
const TRANSACTION_TIME: Duration = Duration::from_secs(60);

/// What an answer's handler returns: nothing, as it has sent the answer itself, or the error to answer with.
type Answer = Result<(), Errno>;

/// What connects the daemon to domains' rings.
pub trait Host {
    /// Maps the ring of a domain that was introduced and binds its event channel. Returns the request ring's consumer index and the
    /// answer ring's producer index.
    ///
    /// # Errors
    ///
    /// When either cannot be done.
    fn connect(&mut self, domid: u16, gfn: u64, port: u32, client: usize) -> Result<(u32, u32), Errno>;

    /// Binds another event channel of a connected domain.
    ///
    /// # Errors
    ///
    /// When it cannot be bound; the old one is gone.
    fn rebind(&mut self, domid: u16, port: u32) -> Result<(), Errno>;

    /// Unmaps a domain's ring.
    fn disconnect(&mut self, domid: u16);
}

/// The state of the daemon.
#[derive(Debug)]
pub struct Engine {
    live: Tree,
    clients: Slab<Client>,
    watches: Watches,
    domains: BTreeMap<u16, Domain>,
    /// The permissions of the special names.
    introduce_perms: Rc<Perms>,
    release_perms: Rc<Perms>,
    /// The quotas.
    pub limits: Limits,
    quota_log: QuotaLog,
    journal: Writer,
    dirty: Dirty,
    /// Whether every request is logged.
    pub trace: bool,
}

/// A request on its way through the engine.
#[derive(Debug, Clone, Copy)]
struct Request<'a> {
    client: usize,
    head: Head,
    payload: &'a [u8],
}

impl Default for Engine {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Engine {
    /// An engine with the nodes that a new daemon has.
    pub fn new(limits: Limits) -> Self {
        let mut engine = Self::empty(limits);
        for path in ["/local/domain", "/tool/xenstored"] {
            let created = Some(Rc::new(Perms::owned(0, Access::None)));
            engine.commit_change(Change::Write { path: Rc::from(path), value: None, created });
        }
        engine.journal.end_frame();
        engine
    }

    fn empty(limits: Limits) -> Self {
        let private = Rc::new(Perms::owned(0, Access::None));
        Self {
            live: Tree::new(0),
            clients: Slab::new(),
            watches: Watches::default(),
            domains: BTreeMap::new(),
            introduce_perms: Rc::clone(&private),
            release_perms: private,
            limits,
            quota_log: QuotaLog::default(),
            journal: Writer::default(),
            dirty: Dirty::default(),
            trace: false,
        }
    }

    /// The tree as it is.
    pub fn tree(&self) -> &Tree {
        &self.live
    }

    /// A connection over the socket.
    pub fn add_client(&mut self, writable: bool) -> usize {
        self.clients.insert(Client::new(0, writable, false))
    }

    /// A client.
    pub fn client(&self, client: usize) -> Option<&Client> {
        self.clients.get(client)
    }

    /// A client.
    pub fn client_mut(&mut self, client: usize) -> Option<&mut Client> {
        self.clients.get_mut(client)
    }

    /// Forgets a connection with its watches and transactions.
    pub fn remove_client(&mut self, client: usize) {
        if let Some(gone) = self.clients.try_remove(client) {
            gone.watches.iter().for_each(|watch| self.watches.remove(watch));
        }
    }

    /// The clients that got output since the last call.
    pub fn take_dirty(&mut self, into: &mut Vec<usize>) {
        into.clear();
        into.append(&mut self.dirty.clients);
        for client in into.iter() {
            if let Some(client) = self.clients.get_mut(*client) {
                client.dirty = false;
            }
        }
    }

    /// Journal frames to be written before any output is sent.
    pub fn journal(&mut self) -> &mut Writer {
        &mut self.journal
    }

    /// Handles a request of a client.
    pub fn request(&mut self, client: usize, head: Head, payload: &[u8], host: &mut dyn Host) {
        let request = Request { client, head, payload };
        if self.trace {
            self.trace(&request);
        }
        if let Err(errno) = self.handle(&request, host) {
            self.reply(&request, XsType::ERROR, &[wire::error_name(errno).as_bytes(), b"\0"]);
        }
    }

    /// Ends a request that came by ring: the journal gets its effects, its answer and the consumer's new index.
    pub fn end_ring_request(&mut self, client: usize, consumed: u32) {
        if let Some(found) = self.clients.get_mut(client) {
            found.partial = Vec::new();
            found.consumed = consumed;
            self.journal.put(&Record::Consumed { domid: found.domid, index: consumed });
        }
        self.end_request();
    }

    /// Takes bytes of an incomplete request out of a ring.
    pub fn keep_partial(&mut self, client: usize, bytes: &[u8]) {
        if let Some(found) = self.clients.get_mut(client) {
            found.partial.extend_from_slice(bytes);
            found.consumed = found.consumed.wrapping_add(bytes.len() as u32);
            self.journal.put(&Record::Partial { domid: found.domid, bytes });
        }
        self.end_request();
    }

    /// Ends a request, or anything else that had effects: they become one frame of the journal.
    pub fn end_request(&mut self) {
        for client in self.dirty.rings.drain(..) {
            let Some(client) = self.clients.get_mut(client) else { continue };
            let domid = client.domid;
            if let Some((index, bytes)) = client.output.take_unjournaled() {
                self.journal.put(&Record::Output { domid, index, bytes });
            }
        }
        self.journal.end_frame();
    }

    /// Lets go of what guests hold too long.
    pub fn tick(&mut self) {
        let now = Instant::now();
        for (_, client) in self.clients.iter_mut().filter(|(_, client)| !client.is_privileged()) {
            for transaction in client.transactions.values_mut() {
                if now.duration_since(transaction.started()) > TRANSACTION_TIME {
                    transaction.doom(&self.live);
                }
            }
        }
    }

    fn handle(&mut self, request: &Request<'_>, host: &mut dyn Host) -> Answer {
        let client = self.clients.get(request.client).ok_or(Errno::EINVAL)?;
        let kind = request.head.kind;
        let tx_id = request.head.tx_id;
        if tx_id != 0 && !client.transactions.contains_key(&tx_id) {
            return Err(Errno::ENOENT);
        }
        match kind {
            XsType::READ => return self.read(request),
            XsType::DIRECTORY => return self.directory(request),
            XsType::DIRECTORY_PART => return self.directory_part(request),
            XsType::GET_PERMS => return self.get_perms(request),
            XsType::WATCH => return self.watch(request),
            XsType::UNWATCH => return self.unwatch(request),
            XsType::RESET_WATCHES => return self.reset_watches(request),
            XsType::TRANSACTION_START => return self.transaction_start(request),
            XsType::TRANSACTION_END => return self.transaction_end(request),
            XsType::GET_DOMAIN_PATH => return self.get_domain_path(request),
            _ => {}
        }
        if !client.writable {
            return Err(if wire::name(kind).is_some() { Errno::EROFS } else { Errno::ENOSYS });
        }
        match kind {
            XsType::WRITE => return self.write(request),
            XsType::MKDIR => return self.mkdir(request),
            XsType::RM => return self.rm(request),
            XsType::SET_PERMS => return self.set_perms(request),
            _ => {}
        }
        let privileged = client.is_privileged();
        let only_privileged: fn(&mut Self, &Request<'_>, &mut dyn Host) -> Answer = match kind {
            XsType::INTRODUCE => Self::introduce,
            XsType::RELEASE => Self::release,
            XsType::RESUME => Self::resume,
            XsType::IS_DOMAIN_INTRODUCED => Self::is_introduced,
            XsType::SET_TARGET => Self::set_target,
            XsType::CONTROL => Self::control,
            _ => return Err(Errno::ENOSYS),
        };
        if privileged { only_privileged(self, request, host) } else { Err(Errno::EACCES) }
    }

    /// Answers a request.
    fn reply(&mut self, request: &Request<'_>, kind: XsType, parts: &[&[u8]]) {
        if let Some(client) = self.clients.get_mut(request.client) {
            client.output.put(kind, request.head.req_id, request.head.tx_id, parts);
            self.dirty.mark(client, request.client);
        }
    }

    /// Answers with the request's own kind.
    fn answer(&mut self, request: &Request<'_>, parts: &[&[u8]]) -> Answer {
        if parts.iter().map(|part| part.len()).sum::<usize>() > XENSTORE_PAYLOAD_MAX {
            return Err(Errno::E2BIG);
        }
        self.reply(request, request.head.kind, parts);
        Ok(())
    }

    fn ok(&mut self, request: &Request<'_>) -> Answer {
        self.answer(request, &[b"OK\0"])
    }

    fn trace(&self, request: &Request<'_>) {
        let domid = self.clients.get(request.client).map_or(u16::MAX, |client| client.domid);
        let shown: String = request.payload.iter().take(200).map(|byte| if (b' '..127).contains(byte) { char::from(*byte) } else { ' ' }).collect();
        let Head { kind, req_id, tx_id, .. } = request.head;
        log::line(&format!("domain {domid} client {} request {req_id} transaction {tx_id}: {} {shown}", request.client, wire::name(kind).unwrap_or("?")));
    }

    /// The absolute path that a client means.
    fn absolute<'a>(&self, request: &Request<'_>, given: &'a str) -> Result<Cow<'a, str>, Errno> {
        let absolute = if given.starts_with('/') {
            Cow::Borrowed(given)
        } else {
            let domid = self.clients.get(request.client).ok_or(Errno::EINVAL)?.domid;
            Cow::Owned(format!("{}/{given}", path::home(domid)))
        };
        if path::is_valid(&absolute) { Ok(absolute) } else { Err(Errno::EINVAL) }
    }

    /// The tree that a request is about.
    fn view(&self, request: &Request<'_>) -> Result<&Tree, Errno> {
        match request.head.tx_id {
            0 => Ok(&self.live),
            id => {
                let client = self.clients.get(request.client).ok_or(Errno::EINVAL)?;
                client.transactions.get(&id).map(|transaction| transaction.view()).ok_or(Errno::ENOENT)
            }
        }
    }

    /// Makes a change, in the transaction of the request or at once.
    fn change(&mut self, request: &Request<'_>, change: Change) -> Answer {
        match request.head.tx_id {
            0 => self.commit_change(change),
            id => {
                let client = self.clients.get_mut(request.client).ok_or(Errno::EINVAL)?;
                client.transactions.get_mut(&id).ok_or(Errno::ENOENT)?.change(change);
            }
        }
        Ok(())
    }

    /// Makes a change in the live tree, tells the journal and the watchers.
    fn commit_change(&mut self, change: Change) {
        self.journal.put_change(&change);
        self.live.apply(&change);
        self.fire(&change);
    }

    /// Reports a quota that a client reached.
    fn over(&mut self, request: &Request<'_>, name: &'static str, value: usize, limit: u32, about: &str) {
        let domid = self.clients.get(request.client).map_or(u16::MAX, |client| client.domid);
        self.quota_log.hit(domid, name, value, limit, about);
    }
}

/// Clients with output that nobody has looked at.
#[derive(Debug, Default)]
struct Dirty {
    clients: Vec<usize>,
    /// Those of them whose output the journal does not have, some perhaps twice.
    rings: Vec<usize>,
}

impl Dirty {
    fn mark(&mut self, client: &mut Client, number: usize) {
        if client.ring {
            self.rings.push(number);
        }
        if !client.dirty {
            client.dirty = true;
            self.clients.push(number);
        }
    }

    fn clear(&mut self) {
        self.clients.clear();
        self.rings.clear();
    }
}

/// The strings of a payload, each with a zero byte at its end.
fn strings(payload: &[u8]) -> Option<impl Iterator<Item = &str>> {
    let text = std::str::from_utf8(payload.strip_suffix(b"\0")?).ok()?;
    Some(text.split('\0'))
}

/// The only string of a payload.
fn one_string(payload: &[u8]) -> Result<&str, Errno> {
    let mut strings = strings(payload).ok_or(Errno::EINVAL)?;
    match (strings.next(), strings.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(Errno::EINVAL),
    }
}

/// The first string of a payload and the bytes after it.
fn string_and_rest(payload: &[u8]) -> Result<(&str, &[u8]), Errno> {
    let end = payload.iter().position(|byte| *byte == 0).ok_or(Errno::EINVAL)?;
    let (first, rest) = payload.split_at(end);
    let first = std::str::from_utf8(first).map_err(|_| Errno::EINVAL)?;
    Ok((first, rest.get(1..).unwrap_or_default()))
}
