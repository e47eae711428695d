//! Programs of this domain, over Unix sockets.

use super::Source;
use crate::engine::{Engine, Host, SOCKET_QUEUE};
use crate::log;
use oxen_xenstore::wire;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// A client that leaves this many bytes unread waits until it has read them.
const UNREAD: usize = 1 << 20;

const READ: epoll::EventFlags = epoll::EventFlags::IN;
const READ_WRITE: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::OUT);

/// The listening sockets and the connections.
#[derive(Debug)]
pub(super) struct Sockets {
    listener: UnixListener,
    read_only: UnixListener,
    /// By client number.
    connections: Vec<Option<Connection>>,
    chunk: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    fd: OwnedFd,
    /// What is waited for.
    interest: epoll::EventFlags,
}

impl Sockets {
    pub fn open(rundir: &Path) -> io::Result<Self> {
        let listener = listen(&rundir.join("socket"), 0o600)?;
        let read_only = listen(&rundir.join("socket_ro"), 0o660)?;
        Ok(Self { listener, read_only, connections: Vec::new(), chunk: vec![0; CHUNK] })
    }

    /// The listening sockets, and whether what they accept may only read.
    pub fn listeners(&self) -> [(BorrowedFd<'_>, bool); 2] {
        [(self.listener.as_fd(), false), (self.read_only.as_fd(), true)]
    }

    /// Accepts whoever waits.
    pub fn accept(&mut self, engine: &mut Engine, epoll: &OwnedFd, read_only: bool) {
        let listener = if read_only { &self.read_only } else { &self.listener };
        while let Ok((stream, _)) = listener.accept() {
            let client = engine.add_client(!read_only);
            let added =
                stream.set_nonblocking(true).and_then(|()| Ok(epoll::add(epoll, &stream, epoll::EventData::new_u64(Source::Client(client).to_raw()), READ)?));
            if let Err(error) = added {
                log::line(&format!("cannot accept a connection: {error}"));
                engine.remove_client(client);
                continue;
            }
            if self.connections.len() <= client {
                self.connections.resize_with(client + 1, || None);
            }
            if let Some(place) = self.connections.get_mut(client) {
                *place = Some(Connection { fd: stream.into(), interest: READ });
            }
        }
    }

    /// Reads and handles requests.
    pub fn serve(&mut self, engine: &mut Engine, host: &mut dyn Host, client: usize) {
        let Some(Some(connection)) = self.connections.get(client) else { return };
        let Some(state) = engine.client_mut(client) else { return };
        if state.output.waiting().len() > UNREAD {
            return;
        }
        let partial = std::mem::take(&mut state.partial);
        let got = match rustix::net::recv(&connection.fd, self.chunk.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                self.close(engine, client);
                return;
            }
            Ok((got, _)) => got,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => {
                self.close(engine, client);
                return;
            }
        };
        let new = self.chunk.get(..got).unwrap_or_default();
        let joined;
        let bytes = if partial.is_empty() {
            new
        } else {
            joined = [partial.as_slice(), new].concat();
            joined.as_slice()
        };
        let Some(used) = handle(engine, host, client, bytes) else {
            log::line(&format!("client {client} sends what is no request; cut off"));
            self.close(engine, client);
            return;
        };
        let rest = bytes.get(used..).unwrap_or_default();
        if let Some(state) = engine.client_mut(client).filter(|_| !rest.is_empty()) {
            state.partial = rest.to_vec();
        }
    }

    /// Sends what waits; says whether requests of the client wait that could not be handled before.
    pub fn send(&mut self, engine: &mut Engine, epoll: &OwnedFd, client: usize) -> bool {
        let Some(Some(connection)) = self.connections.get_mut(client) else { return false };
        let Some(state) = engine.client_mut(client) else { return false };
        let was_full = state.output.waiting().len() > UNREAD;
        if state.output.waiting().len() > SOCKET_QUEUE {
            log::line(&format!("client {client} leaves {} bytes unread; cut off", state.output.waiting().len()));
            self.close(engine, client);
            return false;
        }
        loop {
            let waiting = state.output.waiting();
            if waiting.is_empty() {
                break;
            }
            match rustix::net::send(&connection.fd, waiting, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => state.output.advance(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    self.close(engine, client);
                    return false;
                }
            }
        }
        let left = state.output.waiting().len();
        // Reading stops while the client does not read: the kernel then stops it from sending.
        let interest = match left {
            0 => READ,
            1..=UNREAD => READ_WRITE,
            _ => epoll::EventFlags::OUT,
        };
        if interest != connection.interest {
            connection.interest = interest;
            if epoll::modify(epoll, &connection.fd, epoll::EventData::new_u64(Source::Client(client).to_raw()), interest).is_err() {
                self.close(engine, client);
                return false;
            }
        }
        was_full && left <= UNREAD
    }

    fn close(&mut self, engine: &mut Engine, client: usize) {
        engine.remove_client(client);
        if let Some(place) = self.connections.get_mut(client) {
            *place = None;
        }
    }
}

/// Handles the requests in `bytes`; returns how many bytes they were. `None` if the client breaks the protocol.
fn handle(engine: &mut Engine, host: &mut dyn Host, client: usize, bytes: &[u8]) -> Option<usize> {
    let mut used = 0;
    loop {
        let rest = bytes.get(used..).unwrap_or_default();
        let Some((head, payload)) = wire::first_message(rest).ok()? else { return Some(used) };
        engine.request(client, head, payload, host);
        engine.end_request();
        used += wire::HEAD_LEN + payload.len();
        if engine.client(client)?.output.waiting().len() > UNREAD {
            return Some(used);
        }
    }
}

/// A socket at a path, in place of one that an earlier daemon left.
fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let fail = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    // Bound under another name, so that clients never find a socket that does not answer yet.
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&new).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode)).map_err(fail)?;
    std::fs::rename(&new, path).map_err(fail)?;
    Ok(listener)
}
