//! The loads: every connection always has one request under way.

use anyhow::{Context, Result, bail};
use oxen_xenstore::XsType;
use oxen_xenstore::wire::{self, HEAD_LEN};
use rustix::event::epoll;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Nodes below each connection's directory.
const NODES: usize = 30;

/// A connection, as a domain would use it.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    number: usize,
    input: Vec<u8>,
    transaction: u32,
    step: usize,
    turn: usize,
    message: Vec<u8>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Reading nodes.
    Read,
    /// Listing a directory of 30.
    Directory,
    /// Writing nodes that exist.
    Write,
    /// Making nodes and removing them.
    Create,
    /// Transactions that read one node and write one.
    Transaction,
    /// Writes that somebody watches; counted with their events.
    Watch,
}

impl Client {
    /// Connects.
    pub fn connect(socket: &Path, number: usize) -> Result<Self> {
        let deadline = Instant::now() + Duration::from_secs(5);
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        Ok(Self { stream, number, input: Vec::new(), transaction: 0, step: 0, turn: 0, message: Vec::new() })
    }

    fn path(&self, node: usize) -> String {
        format!("/local/domain/{}/device/vif/0/node-{node}", self.number + 1)
    }

    fn send(&mut self, kind: XsType, transaction: u32, parts: &[&[u8]]) -> Result<()> {
        self.message.clear();
        wire::put_message(&mut self.message, kind, 1, transaction, parts);
        Ok(self.stream.write_all(&self.message)?)
    }

    /// Sends a request and waits for its answer; for what is not measured.
    fn ask(&mut self, kind: XsType, parts: &[&[u8]]) -> Result<()> {
        self.send(kind, 0, parts)?;
        loop {
            self.fill()?;
            while let Some((answered, payload)) = self.message()? {
                match answered {
                    XsType::WATCH_EVENT => {}
                    XsType::ERROR => bail!("{kind:?}: {}", String::from_utf8_lossy(&payload)),
                    _ => return Ok(()),
                }
            }
        }
    }

    fn fill(&mut self) -> Result<()> {
        let mut chunk = [0; 8192];
        match self.stream.read(&mut chunk) {
            Ok(0) => bail!("the daemon hangs up"),
            Ok(got) => self.input.extend_from_slice(&chunk[..got]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn message(&mut self) -> Result<Option<(XsType, Vec<u8>)>> {
        let Some((head, payload)) = wire::first_message(&self.input).map_err(|head| anyhow::anyhow!("a message of {} bytes", head.len))? else {
            return Ok(None);
        };
        let payload = payload.to_vec();
        self.input.drain(..HEAD_LEN + payload.len());
        Ok(Some((head.kind, payload)))
    }
}

/// Makes the nodes that loads work on, and a watch of each connection on its own directory's first node.
pub fn prepare(clients: &mut [Client]) -> Result<()> {
    for client in clients {
        for node in 0..NODES {
            let path = client.path(node);
            client.ask(XsType::WRITE, &[path.as_bytes(), b"\0", b"a value of usual length"])?;
        }
        let watched = format!("/local/domain/{}/watched\0token\0", client.number + 1);
        client.ask(XsType::WATCH, &[watched.as_bytes()])?;
        client.stream.set_nonblocking(true)?;
    }
    Ok(())
}

impl Load {
    /// Every load.
    pub const ALL: [Self; 6] = [Self::Read, Self::Directory, Self::Write, Self::Create, Self::Transaction, Self::Watch];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Directory => "directory",
            Self::Write => "write",
            Self::Create => "create+remove",
            Self::Transaction => "transaction",
            Self::Watch => "watch",
        }
    }

    /// Runs for some time and returns the operations done.
    pub fn run(self, clients: &mut [Client], time: Duration) -> Result<u64> {
        let epoll: OwnedFd = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (at, client) in clients.iter_mut().enumerate() {
            epoll::add(&epoll, &client.stream, epoll::EventData::new_u64(at as u64), epoll::EventFlags::IN)?;
            client.step = 0;
            self.next(client)?;
        }
        let deadline = Instant::now() + time;
        let (mut done, mut under_way, mut over) = (0, clients.len(), false);
        let mut events = Vec::with_capacity(clients.len());
        while under_way > 0 {
            events.clear();
            epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
            over |= Instant::now() > deadline;
            for event in &events {
                let client = clients.get_mut(event.data.u64() as usize).context("an event of nobody")?;
                client.fill()?;
                while let Some((kind, payload)) = client.message()? {
                    if kind == XsType::ERROR && !payload.starts_with(b"EAGAIN") {
                        bail!("{}: {}", self.name(), String::from_utf8_lossy(&payload));
                    }
                    let finished = self.answered(client, kind, &payload)?;
                    done += u64::from(finished == Some(true));
                    match (finished, over) {
                        (Some(true), true) => under_way -= 1,
                        (Some(_), _) => self.next(client)?,
                        (None, _) => {}
                    }
                }
            }
        }
        Ok(done)
    }

    /// Sends the next request of a client.
    fn next(self, client: &mut Client) -> Result<()> {
        client.turn += 1;
        let path = client.path(client.turn % NODES);
        let path = path.as_bytes();
        match (self, client.step) {
            (Self::Read, _) => client.send(XsType::READ, 0, &[path, b"\0"]),
            (Self::Directory, _) => {
                let dir = format!("/local/domain/{}/device/vif/0\0", client.number + 1);
                client.send(XsType::DIRECTORY, 0, &[dir.as_bytes()])
            }
            (Self::Write, _) => client.send(XsType::WRITE, 0, &[path, b"\0", b"a value of usual length"]),
            (Self::Create, 0) => client.send(XsType::WRITE, 0, &[path, b"/new\0", b"value"]),
            (Self::Create, _) => {
                client.turn -= 1;
                let path = client.path(client.turn % NODES);
                client.send(XsType::RM, 0, &[path.as_bytes(), b"/new\0"])
            }
            (Self::Transaction, 0) => client.send(XsType::TRANSACTION_START, 0, &[b"\0"]),
            (Self::Transaction, 1) => client.send(XsType::READ, client.transaction, &[path, b"\0"]),
            (Self::Transaction, 2) => client.send(XsType::WRITE, client.transaction, &[path, b"\0", b"a value"]),
            (Self::Transaction, _) => client.send(XsType::TRANSACTION_END, client.transaction, &[b"T\0"]),
            (Self::Watch, _) => {
                let watched = format!("/local/domain/{}/watched/below\0", client.number + 1);
                client.send(XsType::WRITE, 0, &[watched.as_bytes(), b"value"])
            }
        }
    }

    /// Takes an answer in: whether an operation is complete, or `None` if more must come first.
    fn answered(self, client: &mut Client, kind: XsType, payload: &[u8]) -> Result<Option<bool>> {
        match self {
            Self::Watch => {
                // The answer and the event come in either order.
                client.step |= if kind == XsType::WATCH_EVENT { 1 } else { 2 };
                if client.step < 3 {
                    return Ok(None);
                }
                client.step = 0;
                Ok(Some(true))
            }
            // The first event of a watch that was just set.
            _ if kind == XsType::WATCH_EVENT => Ok(None),
            Self::Create => {
                client.step = 1 - client.step;
                Ok(Some(client.step == 0))
            }
            Self::Transaction => {
                if kind == XsType::TRANSACTION_START {
                    client.transaction = std::str::from_utf8(payload)?.trim_end_matches('\0').parse()?;
                }
                client.step = (client.step + 1) % 4;
                Ok(Some(client.step == 0))
            }
            _ => Ok(Some(true)),
        }
    }
}
