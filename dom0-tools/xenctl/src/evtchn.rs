//! `/dev/xen/evtchn`: event channels of this process.

use crate::device;
use crate::error::{Error, Result};
use oxen_abi::xen::Virq;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

const PATH: &str = "/dev/xen/evtchn";
const MODULE: &str = "xen-evtchn";

/// An event channel of this domain, bound to this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalPort(pub u32);

impl fmt::Display for LocalPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The event channels that this process has bound. Dropping it closes them.
///
/// An event makes the descriptor readable; [`EventChannels::pending`] then names the ports. A port named there stays masked until
/// [`EventChannels::unmask`], so no event is lost between looking at the ring and unmasking.
#[derive(Debug)]
pub struct EventChannels {
    device: Box<dyn EventDevice>,
}

/// What carries the calls. Tests put a model behind it.
pub(crate) trait EventDevice: fmt::Debug + Send + Sync {
    fn bind_unbound(&self, remote: u16) -> io::Result<u32>;
    fn bind_interdomain(&self, remote: u16, remote_port: u32) -> io::Result<u32>;
    fn bind_virq(&self, virq: u32) -> io::Result<u32>;
    fn unbind(&self, port: u32) -> io::Result<()>;
    fn notify(&self, port: u32) -> io::Result<()>;
    fn unmask(&self, port: u32) -> io::Result<()>;
    /// Ports that became pending; none at once if there are none.
    fn pending(&self) -> io::Result<Vec<u32>>;
    /// Readable when a port is pending.
    fn fd(&self) -> BorrowedFd<'_>;
}

impl EventChannels {
    /// Opens the device.
    ///
    /// # Errors
    ///
    /// As [`Xen::open`](crate::Xen::open).
    pub fn open() -> Result<Self> {
        let file = device::open(PATH, MODULE, device::Blocking::No)?;
        Ok(Self::over(Evtchn { file }))
    }

    pub(crate) fn over(device: impl EventDevice + 'static) -> Self {
        Self {
            device: Box::new(device),
        }
    }

    /// A new port that domain `remote` may bind to.
    ///
    /// # Errors
    ///
    /// [`Error::Event`].
    pub fn bind_unbound(&self, remote: u16) -> Result<LocalPort> {
        self.device
            .bind_unbound(remote)
            .map(LocalPort)
            .map_err(event("allocating an event channel", Some(remote), 0))
    }

    /// A new port connected to the port that domain `remote` left unbound for us.
    ///
    /// # Errors
    ///
    /// [`Error::Event`], for instance when the port is not ours to bind to.
    pub fn bind_interdomain(&self, remote: u16, remote_port: u32) -> Result<LocalPort> {
        self.device
            .bind_interdomain(remote, remote_port)
            .map(LocalPort)
            .map_err(event("binding event channel", Some(remote), remote_port))
    }

    /// A port that gets the global virtual interrupt `virq`.
    ///
    /// # Errors
    ///
    /// [`Error::Event`], `EEXIST` when somebody has it already.
    pub fn bind_virq(&self, virq: Virq) -> Result<LocalPort> {
        self.device
            .bind_virq(virq.raw())
            .map(LocalPort)
            .map_err(event("binding virtual interrupt", None, virq.raw()))
    }

    /// Closes a port.
    ///
    /// # Errors
    ///
    /// [`Error::Event`].
    pub fn unbind(&self, port: LocalPort) -> Result<()> {
        self.device
            .unbind(port.0)
            .map_err(event("closing event channel", None, port.0))
    }

    /// Sends an event to the other end.
    ///
    /// # Errors
    ///
    /// [`Error::Event`].
    pub fn notify(&self, port: LocalPort) -> Result<()> {
        self.device
            .notify(port.0)
            .map_err(event("notifying event channel", None, port.0))
    }

    /// Lets a port that was pending become pending again.
    ///
    /// # Errors
    ///
    /// [`Error::Event`].
    pub fn unmask(&self, port: LocalPort) -> Result<()> {
        self.device
            .unmask(port.0)
            .map_err(event("unmasking event channel", None, port.0))
    }

    /// The ports that became pending since the last call, at once; none if there are none.
    ///
    /// # Errors
    ///
    /// [`Error::Kernel`].
    pub fn pending(&self) -> Result<Vec<LocalPort>> {
        match self.device.pending() {
            Ok(ports) => Ok(ports.into_iter().map(LocalPort).collect()),
            Err(source) => Err(Error::Kernel {
                doing: "reading /dev/xen/evtchn",
                source,
            }),
        }
    }

    /// Waits until a port is pending and returns those that are; none after `timeout` (`None` waits for ever).
    ///
    /// # Errors
    ///
    /// [`Error::Kernel`].
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Vec<LocalPort>> {
        device::wait_readable(self.as_fd(), timeout).map_err(|source| Error::Kernel {
            doing: "waiting for an event",
            source,
        })?;
        self.pending()
    }
}

impl AsFd for EventChannels {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.fd()
    }
}

/// Makes the error of a failed call.
fn event(doing: &'static str, domid: Option<u16>, port: u32) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Event {
        doing,
        domid,
        port,
        source,
    }
}

/// The kernel's device.
#[derive(Debug)]
struct Evtchn {
    file: File,
}

/// Request number `nr` of the device with an argument of `T` (`_IOC_NONE`, type `E`).
const fn request<T>(nr: u64) -> u64 {
    (size_of::<T>() as u64) << 16 | (b'E' as u64) << 8 | nr
}

const BIND_VIRQ: u64 = request::<[u32; 1]>(0);
const BIND_INTERDOMAIN: u64 = request::<[u32; 2]>(1);
const BIND_UNBOUND: u64 = request::<[u32; 1]>(2);
const UNBIND: u64 = request::<[u32; 1]>(3);
const NOTIFY: u64 = request::<[u32; 1]>(4);
const RESET: u64 = (b'E' as u64) << 8 | 5;

/// Ports read at once.
const PORTS_PER_READ: usize = 64;

impl Evtchn {
    fn ioctl<const N: usize>(&self, request: u64, argument: [u32; N]) -> io::Result<u32> {
        // SAFETY: every request above names the size of its argument, and the kernel only reads it.
        let result = unsafe {
            libc::ioctl(
                self.file.as_raw_fd(),
                request as libc::Ioctl,
                argument.as_ptr(),
            )
        };
        u32::try_from(result).map_err(|_| io::Error::last_os_error())
    }
}

impl EventDevice for Evtchn {
    fn bind_unbound(&self, remote: u16) -> io::Result<u32> {
        self.ioctl(BIND_UNBOUND, [u32::from(remote)])
    }

    fn bind_interdomain(&self, remote: u16, remote_port: u32) -> io::Result<u32> {
        self.ioctl(BIND_INTERDOMAIN, [u32::from(remote), remote_port])
    }

    fn bind_virq(&self, virq: u32) -> io::Result<u32> {
        self.ioctl(BIND_VIRQ, [virq])
    }

    fn unbind(&self, port: u32) -> io::Result<()> {
        self.ioctl(UNBIND, [port]).map(drop)
    }

    fn notify(&self, port: u32) -> io::Result<()> {
        self.ioctl(NOTIFY, [port]).map(drop)
    }

    fn unmask(&self, port: u32) -> io::Result<()> {
        (&self.file).write_all(&port.to_ne_bytes())
    }

    fn pending(&self) -> io::Result<Vec<u32>> {
        let mut bytes = [0; PORTS_PER_READ * size_of::<u32>()];
        match (&self.file).read(&mut bytes) {
            Ok(len) => Ok(bytes
                .get(..len)
                .unwrap_or_default()
                .chunks_exact(size_of::<u32>())
                .filter_map(|port| port.try_into().ok().map(u32::from_ne_bytes))
                .collect()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Vec::new()),
            Err(error) => {
                // After an overflow the device answers nothing but EFBIG until it is reset.
                if error.raw_os_error() == Some(libc::EFBIG) {
                    self.ioctl(RESET, [])?;
                }
                Err(error)
            }
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_numbers_are_linux_s() {
        assert_eq!(BIND_VIRQ, 0x0004_4500);
        assert_eq!(BIND_INTERDOMAIN, 0x0008_4501);
        assert_eq!(BIND_UNBOUND, 0x0004_4502);
        assert_eq!(UNBIND, 0x0004_4503);
        assert_eq!(NOTIFY, 0x0004_4504);
        assert_eq!(RESET, 0x4505);
    }
}
