//! Failures and their exit codes.

use oxen_xenctl::Error;
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
  6  the hypervisor speaks another version of the control interface";

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
}

impl Failure {
    /// The number of the exit code; see [`EXIT_CODES`].
    pub fn code(&self) -> u8 {
        match self {
            Self::NoSuchCommand(_) => 2,
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
