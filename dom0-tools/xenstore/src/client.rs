//! The blocking client.

mod batch;
mod connection;
mod requests;
mod transaction;

use crate::error::{Cause, Error, Result};
use crate::wire;
use batch::Request;
use connection::{Answer, Connection, Place};
use oxen_abi::Errno;
use oxen_abi::io::xs_wire::{XENSTORE_PAYLOAD_MAX, XsType};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub use batch::Batch;
pub use requests::Nodes;
pub use transaction::Transaction;

/// Names the daemon's socket.
const PATH_VARIABLE: &str = "XENSTORED_PATH";
/// Names the directory with the daemon's socket.
const RUNDIR_VARIABLE: &str = "XENSTORED_RUNDIR";
const DEFAULT_RUNDIR: &str = "/run/xenstored";
/// Carries requests where the daemon is in another domain.
const DEVICES: [&str; 2] = ["/dev/xen/xenbus", "/proc/xen/xenbus"];

/// How long a client waits for a daemon that went away to come back.
const PATIENCE: Duration = Duration::from_secs(15);
/// The pause between two attempts.
const RETRY: Duration = Duration::from_millis(25);

/// Tells that something below a watched path changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What changed: as the watch was set, relative or absolute.
    pub path: String,
    /// The watch's token.
    pub token: String,
}

/// A connection to the daemon. Clones share it, threads may share it; requests of several threads take turns.
///
/// Events go to whoever calls [`Store::next_event`] first: programs with several independent listeners open several stores.
///
/// When the daemon is restarted the connection is made anew, watches are set again (each fires once, as a new one does) and the
/// request is repeated; a transaction under way fails with `EAGAIN`.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    place: Place,
    /// Readable when an event can be had: covers the connection and `queued`.
    readiness: OwnedFd,
    /// Readable while `State::events` has any.
    queued: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    connection: Connection,
    /// Counts how often the connection was made anew.
    epoch: u64,
    next_req_id: u32,
    watches: BTreeSet<(String, String)>,
    events: VecDeque<Vec<u8>>,
}

impl Store {
    /// Connects to `XENSTORED_PATH`, else the socket in `XENSTORED_RUNDIR`, else `/run/xenstored/socket`, else the kernel's device.
    ///
    /// # Errors
    ///
    /// [`Cause::Io`] when none of them answers.
    pub fn open() -> Result<Self> {
        if let Some(path) = std::env::var_os(PATH_VARIABLE) {
            return Self::open_path(path);
        }
        let rundir = std::env::var_os(RUNDIR_VARIABLE).map_or_else(|| PathBuf::from(DEFAULT_RUNDIR), PathBuf::from);
        let socket = Self::open_path(rundir.join("socket"));
        let Err(error) = socket else { return socket };
        DEVICES.iter().find_map(|device| Self::open_path(device).ok()).ok_or(error)
    }

    /// Connects to a socket or a device.
    ///
    /// # Errors
    ///
    /// [`Cause::Io`] when it does not answer.
    pub fn open_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let fail = |error: io::Error| Error::new("connect", path.display().to_string(), Cause::Io(error));
        let place = Place::of(path);
        let connection = Connection::open(&place).map_err(fail)?;
        let shared = Shared::new(place, connection).map_err(fail)?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Opens another connection to the same daemon: for a listener of its own.
    ///
    /// # Errors
    ///
    /// [`Cause::Io`] when it does not answer.
    pub fn reopen(&self) -> Result<Self> {
        Self::open_path(self.shared.place.path())
    }

    /// A descriptor that is readable while [`Store::next_event`] may have something to do.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.shared.readiness.as_fd()
    }

    /// Sets a watch on a path, also on what lies below it. It fires once at once.
    ///
    /// # Errors
    ///
    /// `EEXIST` if this connection has the same watch already; `E2BIG`, `ENOSPC` or `EINVAL` for quotas and bad paths.
    pub fn watch(&self, path: &str, token: &str) -> Result<()> {
        let mut state = self.shared.lock();
        self.shared.request(&mut state, XsType::WATCH, 0, &[path.as_bytes(), b"\0", token.as_bytes(), b"\0"])?;
        state.watches.insert((path.to_owned(), token.to_owned()));
        Ok(())
    }

    /// Removes a watch. Events that it caused before may still be queued.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such watch.
    pub fn unwatch(&self, path: &str, token: &str) -> Result<()> {
        let mut state = self.shared.lock();
        state.watches.remove(&(path.to_owned(), token.to_owned()));
        self.shared.request(&mut state, XsType::UNWATCH, 0, &[path.as_bytes(), b"\0", token.as_bytes(), b"\0"])?;
        Ok(())
    }

    /// Waits for the next event; without a `timeout` for as long as it takes. `None` when the time is over.
    ///
    /// # Errors
    ///
    /// [`Cause::Io`] when the connection is lost for good.
    pub fn next_event(&self, timeout: Option<Duration>) -> Result<Option<Event>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if let Some(event) = self.shared.queued_event()? {
                return Ok(Some(event));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if !self.shared.wait(left).map_err(|error| Error::new("watch_event", "", Cause::Io(error)))? && left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
        }
    }

    /// Starts a transaction; most callers want [`Store::transaction`].
    ///
    /// # Errors
    ///
    /// `ENOSPC` when this connection has as many as it may have.
    pub fn begin(&self) -> Result<Transaction<'_>> {
        Transaction::start(self)
    }

    /// Runs `work` in a transaction and commits it, again for as long as somebody else interferes. `work` must not have effects
    /// outside the transaction. When it fails, the transaction is given up and its error returned.
    ///
    /// # Errors
    ///
    /// What `work` returns, and what starting and ending a transaction return, except `EAGAIN`.
    pub fn transaction<T>(&self, mut work: impl FnMut(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut round: u32 = 0;
        loop {
            let transaction = self.begin()?;
            let result = match work(&transaction) {
                Ok(value) => transaction.commit().map(|()| value),
                Err(error) => {
                    drop(transaction);
                    Err(error)
                }
            };
            match result {
                Err(error) if error.errno() == Some(Errno::EAGAIN) => {
                    round = round.saturating_add(1);
                    // Somebody who is always faster must not starve this one.
                    sleep(Duration::from_micros(100 * u64::from(round.min(100))));
                }
                result => return result,
            }
        }
    }

    /// Sends a request and returns the answer's payload.
    fn call(&self, kind: XsType, tx_id: u32, parts: &[&[u8]]) -> Result<Vec<u8>> {
        self.shared.request(&mut self.shared.lock(), kind, tx_id, parts)
    }
}

impl Shared {
    fn new(place: Place, connection: Connection) -> io::Result<Self> {
        let readiness = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let queued = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let readable = epoll::EventFlags::IN;
        epoll::add(&readiness, &queued, epoll::EventData::new_u64(0), readable)?;
        epoll::add(&readiness, connection.fd(), epoll::EventData::new_u64(1), readable)?;
        let state = State { connection, epoch: 0, next_req_id: 1, watches: BTreeSet::new(), events: VecDeque::new() };
        Ok(Self { place, readiness, queued, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two steps that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something arrives; says whether it did.
    fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut [PollFd::new(&self.readiness, PollFlags::IN)], timeout.as_ref()) {
            Ok(count) => Ok(count > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn queued_event(&self) -> Result<Option<Event>> {
        let mut state = self.lock();
        let state = &mut *state;
        if state.events.is_empty()
            && let Err(error) = state.connection.take_events(&mut state.events)
        {
            self.reconnect(state, "watch_event", error)?;
        }
        let payload = state.events.pop_front();
        self.show_queue(state);
        payload.map(parse_event).transpose()
    }

    /// Makes `queued` readable exactly while there are events.
    fn show_queue(&self, state: &State) {
        // Neither can fail in a way that matters: the counter is full, or zero already.
        let _ = if state.events.is_empty() { rustix::io::read(&self.queued, &mut [0; 8]) } else { rustix::io::write(&self.queued, &1u64.to_ne_bytes()) };
    }

    fn request(&self, state: &mut State, kind: XsType, tx_id: u32, parts: &[&[u8]]) -> Result<Vec<u8>> {
        let operation = wire::name(kind).unwrap_or("request");
        let subject = || subject_of(parts);
        if parts.iter().map(|part| part.len()).sum::<usize>() > XENSTORE_PAYLOAD_MAX {
            return Err(Error::new(operation, subject(), Cause::BadRequest("longer than a message may be")));
        }
        let had_events = !state.events.is_empty();
        let mut attempts: u32 = 0;
        let answer = loop {
            match state.exchange(kind, tx_id, parts) {
                Ok(answer) => break answer,
                Err(error) => {
                    attempts += 1;
                    if attempts > 3 {
                        return Err(Error::new(operation, subject(), Cause::Io(error)));
                    }
                    self.reconnect(state, operation, error)?;
                    if tx_id != 0 {
                        // The transaction ended with the old connection.
                        return Err(Error::new(operation, subject(), Cause::Refused(Errno::EAGAIN)));
                    }
                }
            }
        };
        if !had_events && !state.events.is_empty() {
            self.show_queue(state);
        }
        understood(kind, answer, subject)
    }

    /// Makes requests in a transaction, which are sent together; the answers in their order.
    fn requests(&self, state: &mut State, tx_id: u32, requests: &[Request]) -> Result<Vec<Result<Vec<u8>>>> {
        const OPERATION: &str = "transaction";
        if let Some(long) = requests.iter().find(|request| request.payload.len() > XENSTORE_PAYLOAD_MAX) {
            let operation = wire::name(long.kind).unwrap_or("request");
            return Err(Error::new(operation, subject_of(&[&long.payload]), Cause::BadRequest("longer than a message may be")));
        }
        let had_events = !state.events.is_empty();
        let answers = match state.exchange_all(tx_id, requests) {
            Ok(answers) => answers,
            Err(error) => {
                self.reconnect(state, OPERATION, error)?;
                return Err(Error::new(OPERATION, "", Cause::Refused(Errno::EAGAIN)));
            }
        };
        if !had_events && !state.events.is_empty() {
            self.show_queue(state);
        }
        Ok(answers.into_iter().zip(requests).map(|(answer, request)| understood(request.kind, answer, || subject_of(&[&request.payload]))).collect())
    }

    /// Replaces a connection that failed with `error` and sets the watches again.
    fn reconnect(&self, state: &mut State, operation: &'static str, error: io::Error) -> Result<()> {
        let fail = |error| Error::new(operation, self.place.path().display().to_string(), Cause::Io(error));
        if matches!(self.place, Place::Device(_)) {
            return Err(fail(error));
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.connect_again(state) {
                Ok(()) => return Ok(()),
                Err(again) if Instant::now() >= deadline => return Err(fail(again)),
                Err(_) => sleep(RETRY),
            }
        }
    }

    fn connect_again(&self, state: &mut State) -> io::Result<()> {
        let mut connection = Connection::open(&self.place)?;
        for (at, (path, token)) in (0u32..).zip(&state.watches) {
            let mut message = Vec::new();
            wire::put_message(&mut message, XsType::WATCH, at, 0, &[path.as_bytes(), b"\0", token.as_bytes(), b"\0"]);
            connection.send(&message)?;
            connection.answer(at, &mut state.events)?;
        }
        epoll::add(&self.readiness, connection.fd(), epoll::EventData::new_u64(1), epoll::EventFlags::IN)?;
        state.connection = connection;
        state.epoch += 1;
        self.show_queue(state);
        Ok(())
    }
}

impl State {
    fn exchange(&mut self, kind: XsType, tx_id: u32, parts: &[&[u8]]) -> io::Result<Answer> {
        let req_id = self.numbers(1);
        let mut message = Vec::new();
        wire::put_message(&mut message, kind, req_id, tx_id, parts);
        self.connection.send(&message)?;
        self.connection.answer(req_id, &mut self.events)
    }

    fn exchange_all(&mut self, tx_id: u32, requests: &[Request]) -> io::Result<Vec<Answer>> {
        if !self.connection.takes_many() {
            return requests.iter().map(|request| self.exchange(request.kind, tx_id, &[&request.payload])).collect();
        }
        let first = self.numbers(requests.len() as u32);
        let mut messages = Vec::new();
        for (at, request) in (0u32..).zip(requests) {
            wire::put_message(&mut messages, request.kind, first.wrapping_add(at), tx_id, &[&request.payload]);
        }
        self.connection.send(&messages)?;
        self.connection.answers(first, requests.len(), &mut self.events)
    }

    /// The first of `count` new numbers for requests.
    fn numbers(&mut self, count: u32) -> u32 {
        let first = self.next_req_id;
        self.next_req_id = first.wrapping_add(count);
        first
    }
}

/// What an answer to a request of this kind says.
fn understood(kind: XsType, answer: Answer, subject: impl Fn() -> String) -> Result<Vec<u8>> {
    let operation = wire::name(kind).unwrap_or("request");
    match answer {
        (answered, payload) if answered == kind => Ok(payload),
        (XsType::ERROR, payload) => {
            let cause = wire::parse_error(&payload).map_or(Cause::BadAnswer("an unknown error"), Cause::Refused);
            Err(Error::new(operation, subject(), cause))
        }
        _ => Err(Error::new(operation, subject(), Cause::BadAnswer("it answers another request"))),
    }
}

/// What an error names: the first argument.
fn subject_of(parts: &[&[u8]]) -> String {
    let first = parts.first().copied().unwrap_or_default();
    let end = first.iter().position(|byte| *byte == 0).unwrap_or(first.len());
    String::from_utf8_lossy(first.get(..end).unwrap_or_default()).into_owned()
}

fn parse_event(payload: Vec<u8>) -> Result<Event> {
    let bad = || Error::new("watch_event", "", Cause::BadAnswer("an event is not a path and a token"));
    let text = String::from_utf8(payload).map_err(|_| bad())?;
    let (path, rest) = text.split_once('\0').ok_or_else(bad)?;
    let token = rest.strip_suffix('\0').unwrap_or(rest);
    Ok(Event { path: path.to_owned(), token: token.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    #[test]
    fn an_event_behind_an_answer_makes_the_descriptor_readable() {
        let socket = std::env::temp_dir().join(format!("oxen-xenstore-client-{}", std::process::id()));
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let store = Store::open_path(&socket).unwrap();
        let (mut daemon, _) = listener.accept().unwrap();
        std::fs::remove_file(&socket).unwrap();
        let daemon = std::thread::spawn(move || {
            let mut head = [0; wire::HEAD_LEN];
            daemon.read_exact(&mut head).unwrap();
            let head = wire::Head::parse(&head);
            daemon.read_exact(&mut vec![0; head.len as usize]).unwrap();
            // In one piece, as a daemon sends what it has.
            let mut both = Vec::new();
            wire::put_message(&mut both, XsType::READ, head.req_id, 0, &[b"value"]);
            wire::put_message(&mut both, XsType::WATCH_EVENT, 0, 0, &[b"/a\0token\0"]);
            daemon.write_all(&both).unwrap();
            daemon
        });
        assert_eq!(store.try_read("/a").unwrap().as_deref(), Some("value"));
        let soon = Timespec::try_from(Duration::from_secs(10)).unwrap();
        assert_eq!(poll(&mut [PollFd::from_borrowed_fd(store.event_fd(), PollFlags::IN)], Some(&soon)), Ok(1));
        assert_eq!(store.next_event(Some(Duration::ZERO)).unwrap(), Some(Event { path: "/a".to_owned(), token: "token".to_owned() }));
        drop(daemon.join());
    }
}
