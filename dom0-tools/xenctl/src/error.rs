//! What can go wrong, and what to do about it.

use oxen_abi::Errno;
use std::fmt;
use std::io;

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed call. The text says what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// This kernel does not run under the hypervisor.
    NotUnderXen,
    /// This is a guest, but not the control domain, or not a privileged user.
    NotRoot {
        /// The device that could not be opened.
        path: &'static str,
    },
    /// The kernel offers no `privcmd` device.
    NoPrivcmd,
    /// The kernel does not offer another device.
    NoDevice {
        /// The device.
        path: &'static str,
        /// The kernel module that provides it.
        module: &'static str,
    },
    /// The hypervisor refused: this domain is not the control domain.
    NotControlDomain {
        /// The call.
        call: &'static str,
    },
    /// Tool and hypervisor do not speak the same version of the control interface.
    InterfaceVersion {
        /// The call.
        call: &'static str,
        /// The version that this tool speaks.
        ours: u32,
    },
    /// The hypervisor does not implement the call.
    NotImplemented {
        /// The call.
        call: &'static str,
    },
    /// The domain does not exist.
    NoSuchDomain {
        /// Its id.
        domid: u16,
    },
    /// The hypervisor refused the call for another reason.
    Hypercall {
        /// The call.
        call: &'static str,
        /// The reason.
        errno: Errno,
    },
    /// The hypervisor refused a call about a domain.
    Domain {
        /// The call.
        call: &'static str,
        /// The domain.
        domid: u16,
        /// The reason.
        errno: Errno,
    },
    /// Frames of a domain could not be mapped.
    Map {
        /// The domain.
        domid: u16,
        /// The frame at fault, or the first one.
        frame: u64,
        /// The reason.
        source: io::Error,
    },
    /// A frame that a domain granted could not be mapped.
    Grant {
        /// The domain.
        domid: u16,
        /// The first grant reference.
        reference: u32,
        /// The reason.
        source: io::Error,
    },
    /// An operation on an event channel failed.
    Event {
        /// What was being done.
        doing: &'static str,
        /// The domain at the other end, where it matters.
        domid: Option<u16>,
        /// The port, or the number of the virtual interrupt.
        port: u32,
        /// The reason.
        source: io::Error,
    },
    /// The kernel failed to carry out a step.
    Kernel {
        /// What was being done.
        doing: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// The hypervisor's answer makes no sense.
    BadAnswer {
        /// The call.
        call: &'static str,
    },
}

impl Error {
    /// The error for a hypercall that the kernel reports as failed.
    pub(crate) fn from_ioctl(call: &'static str, error: io::Error) -> Self {
        match error
            .raw_os_error()
            .and_then(|raw| Errno::from_raw(i64::from(raw)))
        {
            Some(Errno::EPERM) => Self::NotControlDomain { call },
            Some(Errno::ENOSYS) => Self::NotImplemented { call },
            Some(errno) => Self::Hypercall { call, errno },
            None => Self::Kernel {
                doing: call,
                source: error,
            },
        }
    }

    /// The same error, with `EACCES` read as a difference in interface versions. Only sysctl and domctl check versions.
    pub(crate) fn or_interface_version(self, ours: u32) -> Self {
        match self {
            Self::Hypercall {
                call,
                errno: Errno::EACCES,
            } => Self::InterfaceVersion { call, ours },
            other => other,
        }
    }

    /// The same error, about domain `domid`.
    pub(crate) fn about(self, domid: u16) -> Self {
        match self {
            Self::Hypercall {
                errno: Errno::ESRCH,
                ..
            } => Self::NoSuchDomain { domid },
            Self::Hypercall { call, errno } => Self::Domain { call, domid, errno },
            other => other,
        }
    }

    /// The hypervisor's error number, where the error is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::NotControlDomain { .. } => Some(Errno::EPERM),
            Self::InterfaceVersion { .. } => Some(Errno::EACCES),
            Self::NotImplemented { .. } => Some(Errno::ENOSYS),
            Self::NoSuchDomain { .. } => Some(Errno::ESRCH),
            Self::Hypercall { errno, .. } | Self::Domain { errno, .. } => Some(*errno),
            Self::Map { source, .. } | Self::Grant { source, .. } | Self::Event { source, .. } => {
                source
                    .raw_os_error()
                    .and_then(|raw| Errno::from_raw(i64::from(raw)))
            }
            Self::NotUnderXen
            | Self::NotRoot { .. }
            | Self::NoPrivcmd
            | Self::NoDevice { .. }
            | Self::Kernel { .. }
            | Self::BadAnswer { .. } => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUnderXen => f.write_str(
                "this system does not run under Oxen or Xen; boot the hypervisor from the boot menu and try again in domain 0",
            ),
            Self::NotRoot { path } => write!(f, "permission to open {path} denied; run this as root in domain 0"),
            Self::NoPrivcmd => f.write_str(
                "this kernel offers no /dev/xen/privcmd; load the module with `modprobe xen-privcmd` (only domain 0 needs it)",
            ),
            Self::NoDevice { path, module } => {
                write!(f, "this kernel offers no {path}; load the module with `modprobe {module}`")
            }
            Self::NotControlDomain { call } => {
                write!(f, "the hypervisor refused {call}: this is not the control domain; run this in domain 0")
            }
            Self::InterfaceVersion { call, ours } => write!(
                f,
                "the hypervisor refused {call}: it speaks another version of the control interface than {ours:#x}; \
                 install the tools that belong to the running hypervisor"
            ),
            Self::NotImplemented { call } => write!(f, "the running hypervisor does not implement {call}"),
            Self::NoSuchDomain { domid } => write!(f, "there is no domain {domid}; `xm list` shows those that exist"),
            Self::Hypercall { call, errno } => write!(f, "the hypervisor refused {call}: {errno}"),
            Self::Domain { call, domid, errno } => {
                write!(f, "the hypervisor refused {call} for domain {domid}: {errno}{}", advice(*errno))
            }
            Self::Map { domid, frame, source } => write!(f, "mapping frame {frame:#x} of domain {domid}: {source}"),
            Self::Grant { domid, reference, source } => {
                write!(f, "mapping grant {reference} of domain {domid}: {source}; has the domain granted it to this one?")
            }
            Self::Event { doing, domid: Some(domid), port, source } => write!(f, "{doing} {port} of domain {domid}: {source}"),
            Self::Event { doing, domid: None, port, source } => write!(f, "{doing} {port}: {source}"),
            Self::Kernel { doing, source } => write!(f, "{doing}: {source}"),
            Self::BadAnswer { call } => write!(f, "the hypervisor's answer to {call} makes no sense; tools and hypervisor do not match"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Kernel { source, .. }
            | Self::Map { source, .. }
            | Self::Grant { source, .. }
            | Self::Event { source, .. } => Some(source),
            Self::Hypercall { errno, .. } | Self::Domain { errno, .. } => Some(errno),
            _ => None,
        }
    }
}

/// What a refusal that is not the caller's mistake usually means.
fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOMEM => {
            "; `xm info` shows the free memory, `xm mem-set 0` takes some from domain 0"
        }
        Errno::EBUSY => "; something else is using it, try again",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ioctl_error(raw: i32) -> Error {
        Error::from_ioctl("sysctl physinfo", io::Error::from_raw_os_error(raw))
    }

    #[test]
    fn permission_errors_point_at_domain_0() {
        assert!(matches!(ioctl_error(1), Error::NotControlDomain { .. }));
        assert!(ioctl_error(1).to_string().contains("domain 0"));
    }

    #[test]
    fn eacces_is_a_version_difference_where_versions_are_checked() {
        let error = ioctl_error(13).or_interface_version(0x15);
        assert!(matches!(error, Error::InterfaceVersion { ours: 0x15, .. }));
        assert!(error.to_string().contains("0x15"));
        assert!(matches!(
            ioctl_error(22).or_interface_version(0x15),
            Error::Hypercall {
                errno: Errno::EINVAL,
                ..
            }
        ));
    }

    #[test]
    fn other_errors_keep_their_number() {
        assert_eq!(
            ioctl_error(12).to_string(),
            "the hypervisor refused sysctl physinfo: ENOMEM (out of memory)"
        );
        assert_eq!(ioctl_error(38).errno(), Some(Errno::ENOSYS));
    }
}
