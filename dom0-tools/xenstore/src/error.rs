//! What can go wrong between a client and the daemon.

use oxen_abi::Errno;
use std::{fmt, io};

/// The result of a request.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed request: what was asked, about which path (or other argument), and why it failed.
#[derive(Debug)]
pub struct Error {
    /// The request, as the protocol calls it: `read`, `transaction_end`, ...
    pub operation: &'static str,
    /// The path or the argument that the request was about; empty where there is none.
    pub subject: String,
    /// Why it failed.
    pub cause: Cause,
}

/// Why a request failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Cause {
    /// The daemon refused.
    Refused(Errno),
    /// The connection failed and could not be made anew.
    Io(io::Error),
    /// The daemon's answer makes no sense.
    BadAnswer(&'static str),
    /// The request cannot be sent: it would break the protocol.
    BadRequest(&'static str),
}

impl Error {
    pub(crate) fn new(operation: &'static str, subject: impl Into<String>, cause: Cause) -> Self {
        Self { operation, subject: subject.into(), cause }
    }

    /// The daemon's error number, where it answered with one.
    pub fn errno(&self) -> Option<Errno> {
        match self.cause {
            Cause::Refused(errno) => Some(errno),
            _ => None,
        }
    }

    /// Whether the node, domain or transaction does not exist.
    pub fn is_not_found(&self) -> bool {
        self.errno() == Some(Errno::ENOENT)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "xenstore {}", self.operation)?;
        if !self.subject.is_empty() {
            write!(f, " {}", self.subject)?;
        }
        match &self.cause {
            Cause::Refused(errno) => write!(f, ": {} ({})", errno.text(), errno.name()),
            Cause::Io(error) => write!(f, ": {error}"),
            Cause::BadAnswer(what) => write!(f, ": the daemon's answer makes no sense: {what}"),
            Cause::BadRequest(what) => write!(f, ": {what}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Io(error) => Some(error),
            _ => None,
        }
    }
}
