//! One connection to the daemon: bytes in, bytes out, messages.

use crate::wire::{self, Head};
use oxen_abi::io::xs_wire::XsType;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How many bytes are read at once.
const CHUNK: usize = 16 << 10;

/// Where the daemon is reached.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// Its Unix socket.
    Socket(PathBuf),
    /// The kernel's device, which passes requests on over this domain's ring.
    Device(PathBuf),
}

impl Place {
    /// A socket if `path` is one, else a device.
    pub fn of(path: &Path) -> Self {
        use std::os::unix::fs::FileTypeExt as _;
        let is_device = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_char_device());
        if is_device { Self::Device(path.to_owned()) } else { Self::Socket(path.to_owned()) }
    }

    pub fn path(&self) -> &Path {
        match self {
            Self::Socket(path) | Self::Device(path) => path,
        }
    }
}

/// The kind of an answer, and its payload.
pub(super) type Answer = (XsType, Vec<u8>);

/// A connection that never blocks unless asked to.
#[derive(Debug)]
pub(super) struct Connection {
    fd: OwnedFd,
    is_socket: bool,
    input: Vec<u8>,
    /// Bytes of `input` that are used up.
    used: usize,
}

impl Connection {
    pub fn open(place: &Place) -> io::Result<Self> {
        let (fd, is_socket) = match place {
            Place::Socket(path) => (connect(path)?, true),
            Place::Device(path) => (rustix::fs::open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?, false),
        };
        Ok(Self { fd, is_socket, input: Vec::new(), used: 0 })
    }

    /// Whether several requests can be sent before the first answer. The kernel's device takes one at a time.
    pub fn takes_many(&self) -> bool {
        self.is_socket
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends all of `bytes`, waiting as long as needed. What arrives meanwhile is taken in, so that a daemon that waits for this
    /// client to read does not wait for ever.
    pub fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write(bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if self.wait(PollFlags::IN | PollFlags::OUT)?.contains(PollFlags::IN) {
                        self.fill()?;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        if self.is_socket { rustix::net::send(&self.fd, bytes, SendFlags::NOSIGNAL) } else { rustix::io::write(&self.fd, bytes) }
    }

    fn wait(&self, flags: PollFlags) -> io::Result<PollFlags> {
        let mut fds = [PollFd::new(&self.fd, flags)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => Ok(fds[0].revents()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes in what has arrived; says whether there was anything.
    fn fill(&mut self) -> io::Result<bool> {
        if self.used > 0 {
            self.input.drain(..self.used);
            self.used = 0;
        }
        self.input.reserve(CHUNK);
        let got = rustix::io::read(&self.fd, rustix::buffer::spare_capacity(&mut self.input));
        match got {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The next message that is complete already.
    fn ready(&mut self) -> io::Result<Option<(Head, Vec<u8>)>> {
        let pending = self.input.get(self.used..).unwrap_or_default();
        match wire::first_message(pending) {
            Ok(None) => Ok(None),
            Ok(Some((head, payload))) => {
                let payload = payload.to_vec();
                self.used += wire::HEAD_LEN + payload.len();
                Ok(Some((head, payload)))
            }
            Err(head) => Err(io::Error::new(io::ErrorKind::InvalidData, format!("the daemon announces a message of {} bytes", head.len))),
        }
    }

    /// Waits for the answer to request `req_id`; events that come with it go to `events`, also those behind it: the descriptor does
    /// not become readable for them again.
    pub fn answer(&mut self, req_id: u32, events: &mut VecDeque<Vec<u8>>) -> io::Result<Answer> {
        self.answers(req_id, 1, events)?.pop().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// As [`Connection::answer`], for `count` requests with ascending numbers.
    pub fn answers(&mut self, first: u32, count: usize, events: &mut VecDeque<Vec<u8>>) -> io::Result<Vec<Answer>> {
        let mut answers = Vec::with_capacity(count);
        loop {
            while let Some((head, payload)) = self.ready()? {
                if head.kind == XsType::WATCH_EVENT {
                    events.push_back(payload);
                } else if answers.len() < count && head.req_id == first.wrapping_add(answers.len() as u32) {
                    answers.push((head.kind, payload));
                }
            }
            if answers.len() == count {
                return Ok(answers);
            }
            // The daemon has hardly answered already: asking first is one call less.
            self.wait(PollFlags::IN)?;
            self.fill()?;
        }
    }

    /// Takes in the events that have arrived, without waiting.
    pub fn take_events(&mut self, events: &mut VecDeque<Vec<u8>>) -> io::Result<()> {
        loop {
            while let Some((head, payload)) = self.ready()? {
                if head.kind == XsType::WATCH_EVENT {
                    events.push_back(payload);
                }
            }
            if !self.fill()? {
                return Ok(());
            }
        }
    }
}

fn connect(path: &Path) -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}
