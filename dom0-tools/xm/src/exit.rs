//! Failures and their exit codes.

use oxen_xenctl::Error;
use oxen_xend_api::Code;
use std::fmt;
use std::io;
use std::process::ExitCode;

/// The exit codes, for the help text. Code 2 comes from the command line parser.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the hypervisor or the kernel refused or failed
  2  the command line is wrong
  3  not under the hypervisor, or the kernel offers no /dev/xen/privcmd
  4  not permitted: not root, or not in the control domain
  5  no such domain
  6  the hypervisor speaks another version of the control interface
  7  xend does not run
  8  a configuration file is wrong
  9  the guest is busy, in the wrong state, or does not react
  10 a name, UUID, disk or other resource is in use, or memory does not suffice";

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// A call failed.
    Call(Error),
    /// No domain has this name or id.
    NoSuchDomain(String),
    /// There is no such command to help with.
    NoSuchCommand(String),
    /// Standard output cannot be written.
    Output(io::Error),
    /// The command line is wrong in a way that only the command knows.
    Usage(String),
    /// What is wrong with a configuration file, line by line.
    Config(Vec<String>),
    /// The daemon does not answer or refuses.
    Daemon(oxen_xend_api::Failure),
    /// Something else.
    Other(String),
}

impl Failure {
    /// The number of the exit code; see [`EXIT_CODES`].
    pub fn code(&self) -> u8 {
        match self {
            Self::NoSuchCommand(_) | Self::Usage(_) => 2,
            Self::Config(_) => 8,
            Self::Daemon(failure) => daemon_code(failure),
            Self::Other(_) => 1,
            Self::Call(Error::NotUnderXen | Error::NoPrivcmd) => 3,
            Self::Call(Error::NotRoot { .. } | Error::NotControlDomain { .. }) => 4,
            Self::Call(Error::NoSuchDomain { .. }) | Self::NoSuchDomain(_) => 5,
            Self::Call(Error::InterfaceVersion { .. }) => 6,
            Self::Call(_) | Self::Output(_) => 1,
        }
    }

    /// The exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

/// The exit code for what the daemon says.
fn daemon_code(failure: &oxen_xend_api::Failure) -> u8 {
    match failure.refusal().map(|error| error.code) {
        None if matches!(failure, oxen_xend_api::Failure::NotRunning { .. }) => 7,
        Some(Code::BadRequest) => 2,
        Some(Code::NoSuchDomain) => 5,
        Some(Code::BadConfig) => 8,
        Some(Code::Busy | Code::WrongState | Code::GuestRefuses | Code::Timeout) => 9,
        Some(Code::NameInUse | Code::UuidInUse | Code::DiskInUse | Code::NotEnoughMemory) => 10,
        _ => 1,
    }
}

impl From<oxen_xend_api::Failure> for Failure {
    fn from(failure: oxen_xend_api::Failure) -> Self {
        Self::Daemon(failure)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(error) => error.fmt(f),
            Self::NoSuchDomain(name) => write!(
                f,
                "there is no domain {name}; `xm list` shows those that exist"
            ),
            Self::NoSuchCommand(name) => write!(
                f,
                "there is no command {name}; `xm help` shows those that exist"
            ),
            Self::Output(error) => write!(f, "cannot write the output: {error}"),
            Self::Usage(problem) | Self::Other(problem) => f.write_str(problem),
            Self::Config(problems) => f.write_str(&problems.join("\n    ")),
            Self::Daemon(failure) => failure.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_documented_ones() {
        assert_eq!(Failure::from(Error::NotUnderXen).code(), 3);
        assert_eq!(Failure::from(Error::NoPrivcmd).code(), 3);
        assert_eq!(
            Failure::from(Error::NotRoot {
                path: "/dev/xen/privcmd"
            })
            .code(),
            4
        );
        assert_eq!(Failure::from(Error::NoSuchDomain { domid: 7 }).code(), 5);
        assert_eq!(
            Failure::from(Error::InterfaceVersion {
                call: "sysctl",
                ours: 0x15
            })
            .code(),
            6
        );
        assert_eq!(
            Failure::from(Error::NotImplemented { call: "sysctl" }).code(),
            1
        );
    }
}
