//! What goes wrong.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A failure. `code` is stable; `message` is one line for people that names the cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Error {
    /// The kind of failure.
    pub code: Code,
    /// What failed and why.
    pub message: String,
    /// What it is about: the guest's name, a path, an option, a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub culprit: Option<String>,
}

impl Error {
    /// An error without culprit. Control characters in what it repeats of others are written as escape sequences.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: in_one_line(message.into()),
            culprit: None,
        }
    }

    /// The same error, about `culprit`.
    #[must_use]
    pub fn about(mut self, culprit: impl Into<String>) -> Self {
        self.culprit = Some(culprit.into());
        self
    }

    /// The same error, its message beginning with what was being done.
    #[must_use]
    pub fn while_doing(mut self, doing: &str) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }
}

fn in_one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Kinds of failure. New kinds may come: a client treats one that it does not know as [`Code::Internal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Code {
    /// The request is no valid JSON or lacks something.
    BadRequest,
    /// The guest's configuration cannot be.
    BadConfig,
    /// There is no such domain.
    NoSuchDomain,
    /// The domain has no such device.
    NoSuchDevice,
    /// There is no such task; old ones are forgotten.
    NoSuchTask,
    /// Another guest has this name.
    NameInUse,
    /// Another guest has this UUID.
    UuidInUse,
    /// Another operation on the guest is under way.
    Busy,
    /// The operation does not fit the guest's state, such as starting one that runs.
    WrongState,
    /// The host has too little free memory.
    NotEnoughMemory,
    /// A limit of the hypervisor or of the guest forbids it, such as more vCPUs than it was created with.
    Limit,
    /// Kernel or initrd is missing, unreadable or not one.
    BadKernel,
    /// A disk is missing or unusable.
    BadDisk,
    /// A disk is in use elsewhere.
    DiskInUse,
    /// A network card cannot be set up, such as when its bridge is missing.
    BadNetwork,
    /// A user's script failed.
    ScriptFailed,
    /// The boot loader found nothing to boot.
    BadBootLoader,
    /// The guest did not do in time what it was asked for.
    Timeout,
    /// The guest does not know how to do what it was asked for.
    GuestRefuses,
    /// The hypervisor refused a call.
    Hypervisor,
    /// xenstored cannot be reached or refused a request.
    Xenstore,
    /// The file system or the kernel refused something.
    System,
    /// This daemon or hypervisor does not implement it.
    Unsupported,
    /// The daemon was ended while it worked on this.
    Interrupted,
    /// A fault of the daemon.
    #[serde(other)]
    Internal,
}

impl Code {
    /// The HTTP status that goes with it.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::NoSuchDomain | Self::NoSuchDevice | Self::NoSuchTask => 404,
            Self::NameInUse | Self::UuidInUse | Self::Busy | Self::WrongState | Self::DiskInUse => {
                409
            }
            Self::BadConfig
            | Self::Limit
            | Self::BadKernel
            | Self::BadDisk
            | Self::BadNetwork
            | Self::BadBootLoader => 422,
            Self::Timeout => 504,
            Self::Unsupported => 501,
            Self::NotEnoughMemory => 507,
            Self::GuestRefuses
            | Self::ScriptFailed
            | Self::Hypervisor
            | Self::Xenstore
            | Self::System
            | Self::Interrupted
            | Self::Internal => 500,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_stable_names() {
        let json = serde_json::to_string(&Code::NotEnoughMemory).unwrap();
        assert_eq!(json, "\"not-enough-memory\"");
    }

    #[test]
    fn messages_are_one_line() {
        let error = Error::new(Code::BadRequest, "no `a\nb\u{1b}`, \u{e9}");
        assert_eq!(error.message, "no `a\\nb\\u{1b}`, \u{e9}");
    }

    #[test]
    fn an_unknown_code_is_an_internal_error() {
        let error: Error =
            serde_json::from_str(r#"{"code":"from-the-future","message":"x"}"#).unwrap();
        assert_eq!(error.code, Code::Internal);
    }
}
