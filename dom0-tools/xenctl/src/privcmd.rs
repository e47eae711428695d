//! The `privcmd` device.

use crate::buffer::Buffer;
use crate::error::{Error, Result};
use oxen_abi::Hypercall;
use oxen_abi::zerocopy::{FromBytes, Immutable, IntoBytes};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::path::Path;

/// Where the device is; the second is the name that kernels before devtmpfs used.
const PRIVCMD: [&str; 2] = ["/dev/xen/privcmd", "/proc/xen/privcmd"];
/// The device that gives memory for hypercalls.
const HYPERCALL_BUFFERS: &str = "/dev/xen/hypercall";

/// The argument of [`IOCTL_PRIVCMD_HYPERCALL`] (`struct privcmd_hypercall`).
#[repr(C)]
struct PrivcmdHypercall {
    op: u64,
    args: [u64; 5],
}

/// The request number: no direction, type `P`, number 0, size of the argument (`IOCTL_PRIVCMD_HYPERCALL` of Linux's
/// `xen/privcmd.h`).
const IOCTL_PRIVCMD_HYPERCALL: u64 =
    (size_of::<PrivcmdHypercall>() as u64) << 16 | (b'P' as u64) << 8;

/// An open connection to the hypervisor.
#[derive(Debug)]
pub struct Xen {
    transport: Box<dyn Transport>,
}

/// What carries hypercalls. Tests put a hypervisor of their own behind it.
pub(crate) trait Transport: fmt::Debug {
    /// Makes hypercall `op`. Returns the result, 0 or more, or the hypervisor's or the kernel's error.
    ///
    /// # Safety
    ///
    /// As for [`Xen::hypercall`].
    unsafe fn hypercall(&self, op: Hypercall, args: [u64; 5]) -> io::Result<u32>;

    /// The device that gives memory for arguments, if there is one.
    fn buffers(&self) -> Option<&File>;
}

/// The kernel's devices.
#[derive(Debug)]
struct Privcmd {
    privcmd: File,
    buffers: Option<File>,
}

impl Transport for Privcmd {
    // SAFETY: what the arguments must be is the trait's condition, passed on to the caller.
    unsafe fn hypercall(&self, op: Hypercall, args: [u64; 5]) -> io::Result<u32> {
        let mut argument = PrivcmdHypercall {
            op: u64::from(op.raw()),
            args,
        };
        // SAFETY: the descriptor is open, the request's argument is the structure that it names, and the caller vouches for the
        // addresses in it.
        let result = unsafe {
            libc::ioctl(
                self.privcmd.as_raw_fd(),
                IOCTL_PRIVCMD_HYPERCALL as libc::Ioctl,
                &raw mut argument,
            )
        };
        u32::try_from(result).map_err(|_| io::Error::last_os_error())
    }

    fn buffers(&self) -> Option<&File> {
        self.buffers.as_ref()
    }
}

impl Xen {
    /// Opens the connection.
    ///
    /// # Errors
    ///
    /// [`Error::NotRoot`] when the device may not be opened, [`Error::NoPrivcmd`] when it does not exist although this is a Xen
    /// guest, [`Error::NotUnderXen`] when it does not exist because this is none.
    pub fn open() -> Result<Self> {
        for path in PRIVCMD {
            match OpenOptions::new().read(true).write(true).open(path) {
                Ok(privcmd) => {
                    let buffers = OpenOptions::new()
                        .read(true)
                        .write(true)
                        .open(HYPERCALL_BUFFERS)
                        .ok();
                    return Ok(Self::over(Privcmd { privcmd, buffers }));
                }
                Err(error) => match error.kind() {
                    ErrorKind::NotFound => {}
                    ErrorKind::PermissionDenied => return Err(Error::NotRoot { path }),
                    // A device node without a driver behind it.
                    _ if error.raw_os_error() == Some(libc::ENODEV)
                        || error.raw_os_error() == Some(libc::ENXIO) => {}
                    _ => {
                        return Err(Error::Kernel {
                            doing: "opening /dev/xen/privcmd",
                            source: error,
                        });
                    }
                },
            }
        }
        Err(if runs_under_xen(Path::new("/")) {
            Error::NoPrivcmd
        } else {
            Error::NotUnderXen
        })
    }

    /// A connection over `transport`.
    pub(crate) fn over(transport: impl Transport + 'static) -> Self {
        Self {
            transport: Box::new(transport),
        }
    }

    /// A buffer of `len` bytes.
    pub(crate) fn buffer(&self, len: usize) -> Result<Buffer> {
        Buffer::new(self.transport.buffers(), len)
    }

    /// A buffer that holds `value`.
    pub(crate) fn buffer_holding<T: IntoBytes + Immutable>(&self, value: &T) -> Result<Buffer> {
        Buffer::holding(self.transport.buffers(), value)
    }

    /// Makes hypercall `op`; `call` names it in errors. Returns the result, 0 or more.
    ///
    /// # Safety
    ///
    /// Every address in `args`, and in the structures at those addresses, must be null or lie in a [`Buffer`] (not borrowed otherwise
    /// during the call) that is large enough for what the hypervisor reads and writes there.
    pub(crate) unsafe fn hypercall(
        &self,
        call: &'static str,
        op: Hypercall,
        args: &[u64],
    ) -> Result<u32> {
        let mut all = [0; 5];
        for (to, from) in all.iter_mut().zip(args) {
            *to = *from;
        }
        // SAFETY: the caller vouches for the addresses.
        unsafe { self.transport.hypercall(op, all) }.map_err(|error| Error::from_ioctl(call, error))
    }

    /// Makes hypercall `op` with `leading`, if given, and the address of `argument`; returns the argument as the hypervisor left it.
    ///
    /// # Safety
    ///
    /// The hypervisor must access no more than `argument` itself there; addresses in `argument` as for [`Xen::hypercall`].
    pub(crate) unsafe fn hypercall_in_out<T: IntoBytes + FromBytes + Immutable>(
        &self,
        call: &'static str,
        op: Hypercall,
        leading: Option<u64>,
        argument: &T,
    ) -> Result<T> {
        let buffer = self.buffer_holding(argument)?;
        let address = buffer.address();
        let result = match leading {
            // SAFETY: `address` is that of `buffer`, which holds a `T`; the caller vouches for the rest.
            Some(leading) => unsafe { self.hypercall(call, op, &[leading, address]) },
            // SAFETY: as above.
            None => unsafe { self.hypercall(call, op, &[address]) },
        };
        result?;
        buffer.value().ok_or(Error::BadAnswer { call })
    }
}

/// Whether the kernel of the file system at `root` runs under Xen.
fn runs_under_xen(root: &Path) -> bool {
    match std::fs::read_to_string(root.join("sys/hypervisor/type")) {
        Ok(kind) => kind.trim() == "xen",
        Err(_) => root.join("proc/xen").is_dir(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_number_is_linux_s() {
        assert_eq!(IOCTL_PRIVCMD_HYPERCALL, 0x0030_5000);
    }

    #[test]
    fn recognises_xen_by_its_kernel_interfaces() {
        let root = std::env::temp_dir().join(format!("oxen-xenctl-{}", std::process::id()));
        let hypervisor = root.join("sys/hypervisor");
        assert!(!runs_under_xen(&root));
        std::fs::create_dir_all(&hypervisor).unwrap();
        std::fs::write(hypervisor.join("type"), "xen\n").unwrap();
        assert!(runs_under_xen(&root));
        std::fs::write(hypervisor.join("type"), "other\n").unwrap();
        assert!(!runs_under_xen(&root));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
