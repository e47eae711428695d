//! Attaching a terminal to a guest's console.

use crate::nodes::tty_path;
use oxen_xenstore::{Nodes as _, Store, path};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Ctrl-].
pub const ESCAPE: u8 = 0x1d;
/// How long a console may be without a daemon before its guest is taken to be without one.
const DAEMON_PATIENCE: Duration = Duration::from_secs(10);
/// How often a guest that may be gone is looked for.
const LOOK: Duration = Duration::from_millis(500);

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The user typed the escape character.
    Detached,
    /// The guest is gone.
    GuestGone,
}

/// Why a console cannot be had.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// There is no such domain.
    NoSuchDomain {
        /// Its id.
        domid: u16,
    },
    /// The domain has no console within the time given.
    NoConsole {
        /// Its id.
        domid: u16,
    },
    /// Somebody else has the console.
    InUse {
        /// The domain.
        domid: u16,
    },
    /// Xenstore failed.
    Store(oxen_xenstore::Error),
    /// A terminal failed.
    Terminal(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchDomain { domid } => write!(f, "there is no domain {domid}"),
            Self::NoConsole { domid } => write!(f, "domain {domid} has no console; is xenconsoled running?"),
            Self::InUse { domid } => write!(f, "the console of domain {domid} is in use by another session"),
            Self::Store(error) => error.fmt(f),
            Self::Terminal(error) => write!(f, "terminal: {error}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<oxen_xenstore::Error> for Error {
    fn from(error: oxen_xenstore::Error) -> Self {
        Self::Store(error)
    }
}

impl From<Errno> for Error {
    fn from(error: Errno) -> Self {
        Self::Terminal(error.into())
    }
}

/// Connects standard input and output to the console of domain `domid` until the user types [`ESCAPE`] or the guest is gone.
///
/// A terminal at standard input is put into raw mode for that time. Waits up to `patience` for the console to appear. When standard input
/// ends, output is still shown. A restart of the daemon goes unnoticed.
///
/// `store` is used for this alone: a watch is set on it and its events are taken.
///
/// # Errors
///
/// [`Error`].
pub fn attach(store: &Store, domid: u16, patience: Duration) -> Result<Ended, Error> {
    let (input, output) = (rustix::stdio::stdin(), rustix::stdio::stdout());
    // The raw mode ends with the function, however that happens.
    let _raw = if isatty(input) { Some(RawMode::enter(input)?) } else { None };
    attach_to(store, domid, patience, input, output)
}

/// As [`attach`], with other descriptors, which are left as they are.
///
/// # Errors
///
/// [`Error`].
pub fn attach_to(store: &Store, domid: u16, patience: Duration, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Result<Ended, Error> {
    let node = tty_path(domid);
    let token = format!("console/{domid}");
    store.watch(&node, &token)?;
    let mut session = Session { store, domid, input: Some(input), output };
    let result = session.run(&node, patience);
    // The connection may be gone, and the watch with it.
    let _ = store.unwatch(&node, &token);
    result
}

/// Why a terminal was left.
enum Left {
    Detached,
    /// The daemon or the guest ended.
    HungUp,
}

struct Session<'a> {
    store: &'a Store,
    domid: u16,
    /// `None` after its end.
    input: Option<BorrowedFd<'a>>,
    output: BorrowedFd<'a>,
}

impl Session<'_> {
    fn run(&mut self, node: &str, patience: Duration) -> Result<Ended, Error> {
        if !self.guest_exists()? {
            return Err(Error::NoSuchDomain { domid: self.domid });
        }
        // The event that every new watch fires.
        self.store.next_event(Some(LOOK))?;
        let mut patience = patience;
        // Whether the node is known to have been written since the terminal it named hung up.
        let mut current = true;
        loop {
            let terminal = match self.find(node, current, patience)? {
                Some(terminal) => terminal,
                None if !self.guest_exists()? => return Ok(Ended::GuestGone),
                None => return Err(Error::NoConsole { domid: self.domid }),
            };
            if let Left::Detached = self.talk(&terminal)? {
                return Ok(Ended::Detached);
            }
            patience = DAEMON_PATIENCE;
            current = false;
        }
    }

    /// Opens the console's terminal, once the node that names it is `current`. A stale name may be that of somebody else's terminal by
    /// now, and a new one may be the old one again; only that the node is written tells.
    fn find(&self, node: &str, mut current: bool, patience: Duration) -> Result<Option<OwnedFd>, Error> {
        let deadline = Instant::now() + patience;
        loop {
            let name = self.store.try_read(node)?.unwrap_or_default();
            if current && !name.is_empty() {
                match open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()) {
                    Ok(terminal) if flock(&terminal, FlockOperation::NonBlockingLockExclusive).is_ok() => return Ok(Some(terminal)),
                    Ok(_) => return Err(Error::InUse { domid: self.domid }),
                    // The name of a daemon that is gone; a new one will write another.
                    Err(Errno::NOENT | Errno::IO | Errno::NXIO) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.guest_exists()? {
                return Ok(None);
            }
            current |= self.store.next_event(Some(left.min(LOOK)))?.is_some();
        }
    }

    fn guest_exists(&self) -> Result<bool, Error> {
        Ok(self.store.exists(&path::home(self.domid))?)
    }

    /// Copies both ways.
    fn talk(&mut self, terminal: &OwnedFd) -> Result<Left, Error> {
        let tick = Timespec::try_from(LOOK).ok();
        loop {
            let mut fds = vec![PollFd::new(terminal, PollFlags::IN)];
            fds.extend(self.input.map(|input| PollFd::from_borrowed_fd(input, PollFlags::IN)));
            match poll(&mut fds, tick.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
            let (from_guest, typed) = (ready.next() == Some(true), ready.next() == Some(true));
            if from_guest && !copy(terminal.as_fd(), self.output)? {
                return Ok(Left::HungUp);
            }
            if let Some(input) = self.input.filter(|_| typed) {
                let mut buffer = [0; 512];
                let len = read(input, &mut buffer)?;
                let bytes = buffer.get(..len.unwrap_or(0)).unwrap_or_default();
                let before = bytes.split(|byte| *byte == ESCAPE).next().unwrap_or_default();
                if write_all(terminal.as_fd(), before).is_err() {
                    return Ok(Left::HungUp);
                }
                if before.len() < bytes.len() {
                    return Ok(Left::Detached);
                }
                if len == Some(0) {
                    self.input = None;
                }
            }
        }
    }
}

/// Copies what there is; `false` at the end.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<bool, Error> {
    let mut buffer = [0; 4096];
    match rustix::io::read(from, &mut buffer) {
        // A hung-up terminal.
        Ok(0) | Err(Errno::IO) => Ok(false),
        Ok(len) => {
            write_all(to, buffer.get(..len).unwrap_or_default())?;
            Ok(true)
        }
        Err(Errno::INTR | Errno::AGAIN) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// What can be read; `None` when nothing can yet.
fn read(from: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
    match rustix::io::read(from, buffer) {
        Ok(len) => Ok(Some(len)),
        Err(Errno::INTR | Errno::AGAIN) => Ok(None),
        // A terminal that hung up will give nothing more.
        Err(Errno::IO) => Ok(Some(0)),
        Err(error) => Err(error),
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::from_borrowed_fd(to, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A terminal in raw mode, which gets its settings back in the end.
struct RawMode<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> RawMode<'a> {
    fn enter(terminal: BorrowedFd<'a>) -> Result<Self, Errno> {
        let before = tcgetattr(terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Drain, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        // A terminal that hung up has no settings to restore.
        let _ = tcsetattr(self.terminal, OptionalActions::Drain, &self.before);
    }
}
