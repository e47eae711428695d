//! The `privcmd` device.

use crate::buffer::Buffer;
use crate::device::{self, Blocking};
use crate::error::{Error, Result};
use crate::mapping::{FRAME_LEN, SharedMemory};
use oxen_abi::Hypercall;
use oxen_abi::memory::ResourceType;
use oxen_abi::zerocopy::{FromBytes, Immutable, IntoBytes};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Where the device is; the second is the name that kernels before devtmpfs used.
const PRIVCMD: [&str; 2] = ["/dev/xen/privcmd", "/proc/xen/privcmd"];
const MODULE: &str = "xen-privcmd";
/// The device that gives memory for hypercalls.
const HYPERCALL_BUFFERS: &str = "/dev/xen/hypercall";
/// One-page buffers kept for the next call.
const SPARE_BUFFERS: usize = 4;
/// How often a frame that is being paged in is asked for, and how long to wait between.
const PAGED_TRIES: u32 = 100;
const PAGED_WAIT: Duration = Duration::from_millis(10);

/// The argument of [`IOCTL_PRIVCMD_HYPERCALL`] (`struct privcmd_hypercall`).
#[repr(C)]
struct PrivcmdHypercall {
    op: u64,
    args: [u64; 5],
}

/// The argument of [`IOCTL_PRIVCMD_MMAPBATCH_V2`] (`struct privcmd_mmapbatch_v2`).
#[repr(C)]
struct PrivcmdMmapBatch {
    num: u32,
    dom: u16,
    addr: u64,
    arr: *const u64,
    err: *mut i32,
}

/// The argument of [`IOCTL_PRIVCMD_MMAP_RESOURCE`] (`struct privcmd_mmap_resource`).
#[repr(C)]
struct PrivcmdMmapResource {
    dom: u16,
    kind: u32,
    id: u32,
    idx: u32,
    num: u64,
    addr: u64,
}

/// A request number of Linux's `xen/privcmd.h`: no direction, type `P`, number `nr`, size of the argument.
const fn request<T>(nr: u64) -> u64 {
    (size_of::<T>() as u64) << 16 | (b'P' as u64) << 8 | nr
}

const IOCTL_PRIVCMD_HYPERCALL: u64 = request::<PrivcmdHypercall>(0);
const IOCTL_PRIVCMD_MMAPBATCH_V2: u64 = request::<PrivcmdMmapBatch>(4);
const IOCTL_PRIVCMD_MMAP_RESOURCE: u64 = request::<PrivcmdMmapResource>(7);

/// An open connection to the hypervisor. It may be used from several threads at once.
#[derive(Debug)]
pub struct Xen {
    /// Buffers of one page that no call uses.
    spare: Mutex<Vec<Buffer>>,
    transport: Box<dyn Transport>,
}

/// Frames of a domain that have no frame numbers of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The domain.
    pub domid: u16,
    /// What kind of frames.
    pub kind: ResourceType,
    /// Which of that kind.
    pub id: u32,
    /// The first frame.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// Why a mapping failed: the index of the frame at fault, where the kernel says so, and the reason.
pub(crate) type MapFailure = (Option<usize>, io::Error);

/// What carries hypercalls. Tests put a hypervisor of their own behind it.
pub(crate) trait Transport: fmt::Debug + Send + Sync {
    /// Makes hypercall `op`. Returns the result, 0 or more, or the hypervisor's or the kernel's error.
    ///
    /// # Safety
    ///
    /// As for [`Xen::hypercall`].
    unsafe fn hypercall(&self, op: Hypercall, args: [u64; 5]) -> io::Result<u32>;

    /// The device that gives memory for arguments, if there is one.
    fn buffers(&self) -> Option<&File>;

    /// Maps frames of domain `domid`.
    fn map_frames(
        &self,
        domid: u16,
        frames: &[u64],
        writable: bool,
    ) -> std::result::Result<SharedMemory, MapFailure>;

    /// Maps frames of a resource.
    fn map_resource(&self, resource: &Resource, writable: bool) -> io::Result<SharedMemory>;
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

    fn map_frames(
        &self,
        domid: u16,
        frames: &[u64],
        writable: bool,
    ) -> std::result::Result<SharedMemory, MapFailure> {
        let whole = |error| (None, error);
        let einval = || whole(io::Error::from_raw_os_error(libc::EINVAL));
        let num = u32::try_from(frames.len()).map_err(|_| einval())?;
        let len = frames.len().checked_mul(FRAME_LEN).ok_or_else(einval)?;
        let memory =
            SharedMemory::map(self.privcmd.as_raw_fd(), 0, len, writable).map_err(whole)?;
        let mut errors = vec![0_i32; frames.len()];
        for _ in 0..PAGED_TRIES {
            let mut argument = PrivcmdMmapBatch {
                num,
                dom: domid,
                addr: memory.address(),
                arr: frames.as_ptr(),
                err: errors.as_mut_ptr(),
            };
            // SAFETY: the request's argument is the structure that it names; the mapping is of `num` pages of this device, and both
            // arrays have `num` elements.
            let result = unsafe {
                libc::ioctl(
                    self.privcmd.as_raw_fd(),
                    IOCTL_PRIVCMD_MMAPBATCH_V2 as libc::Ioctl,
                    &raw mut argument,
                )
            };
            let error = (result != 0).then(io::Error::last_os_error);
            // Some frame is paged out; the hypervisor has been asked to bring it in.
            if error.as_ref().and_then(io::Error::raw_os_error) == Some(libc::ENOENT) {
                thread::sleep(PAGED_WAIT);
                continue;
            }
            if let Some(error) = error {
                return Err(whole(error));
            }
            return match errors.iter().position(|error| *error != 0) {
                None => Ok(memory),
                Some(index) => {
                    let raw = errors
                        .get(index)
                        .map_or(libc::EFAULT, |error| error.wrapping_neg());
                    Err((Some(index), io::Error::from_raw_os_error(raw)))
                }
            };
        }
        Err(whole(io::Error::from_raw_os_error(libc::ENOENT)))
    }

    fn map_resource(&self, resource: &Resource, writable: bool) -> io::Result<SharedMemory> {
        let len = (resource.count as usize).saturating_mul(FRAME_LEN);
        let memory = SharedMemory::map(self.privcmd.as_raw_fd(), 0, len, writable)?;
        let mut argument = PrivcmdMmapResource {
            dom: resource.domid,
            kind: u32::from(resource.kind.raw()),
            id: resource.id,
            idx: resource.first,
            num: u64::from(resource.count),
            addr: memory.address(),
        };
        // SAFETY: the request's argument is the structure that it names, and the mapping is of `num` pages of this device.
        let result = unsafe {
            libc::ioctl(
                self.privcmd.as_raw_fd(),
                IOCTL_PRIVCMD_MMAP_RESOURCE as libc::Ioctl,
                &raw mut argument,
            )
        };
        if result == 0 {
            Ok(memory)
        } else {
            Err(io::Error::last_os_error())
        }
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
        let mut last = Error::NoPrivcmd;
        for path in PRIVCMD {
            match device::open(path, MODULE, Blocking::Yes) {
                Ok(privcmd) => {
                    let buffers = device::open(HYPERCALL_BUFFERS, MODULE, Blocking::Yes).ok();
                    return Ok(Self::over(Privcmd { privcmd, buffers }));
                }
                Err(Error::NoDevice { .. }) => last = Error::NoPrivcmd,
                Err(error @ Error::NotUnderXen) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// A connection over `transport`.
    pub(crate) fn over(transport: impl Transport + 'static) -> Self {
        Self {
            spare: Mutex::default(),
            transport: Box::new(transport),
        }
    }

    /// A buffer of `len` bytes.
    pub(crate) fn buffer(&self, len: usize) -> Result<Buffer> {
        Buffer::new(self.transport.buffers(), len)
    }

    /// A buffer that holds `value`.
    pub(crate) fn buffer_holding<T: IntoBytes + Immutable + ?Sized>(
        &self,
        value: &T,
    ) -> Result<Buffer> {
        Buffer::holding(self.transport.buffers(), value)
    }

    /// Maps the frames `frames` of domain `domid` (MFNs of a PV domain), one after the other.
    ///
    /// # Errors
    ///
    /// [`Error::Map`]; all frames are mapped or none.
    pub fn map_foreign(&self, domid: u16, frames: &[u64], writable: bool) -> Result<SharedMemory> {
        self.transport
            .map_frames(domid, frames, writable)
            .map_err(|(index, source)| Error::Map {
                domid,
                frame: frames.get(index.unwrap_or(0)).copied().unwrap_or_default(),
                source,
            })
    }

    /// Maps frames of a resource.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn map_resource(&self, resource: &Resource, writable: bool) -> Result<SharedMemory> {
        self.transport
            .map_resource(resource, writable)
            .map_err(|source| Error::Map {
                domid: resource.domid,
                frame: u64::from(resource.first),
                source,
            })
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
        let buffer = self.argument_holding(argument)?;
        let address = buffer.address();
        let result = match leading {
            // SAFETY: `address` is that of `buffer`, which holds a `T`; the caller vouches for the rest.
            Some(leading) => unsafe { self.hypercall(call, op, &[leading, address]) },
            // SAFETY: as above.
            None => unsafe { self.hypercall(call, op, &[address]) },
        };
        let value = buffer.value();
        self.put_back(buffer);
        result?;
        value.ok_or(Error::BadAnswer { call })
    }

    /// A buffer that holds `value`, a spare one if there is one: most calls pass one small structure, and mapping a page for each
    /// would cost more than the call.
    pub(crate) fn argument_holding<T: IntoBytes + Immutable>(&self, value: &T) -> Result<Buffer> {
        let spare = self
            .spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        if let Some(mut buffer) = spare
            && buffer.refill(value.as_bytes())
        {
            return Ok(buffer);
        }
        self.buffer_holding(value)
    }

    /// Keeps a buffer for the next call.
    pub(crate) fn put_back(&self, buffer: Buffer) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_BUFFERS && buffer.is_one_page() {
            spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_numbers_are_linux_s() {
        assert_eq!(IOCTL_PRIVCMD_HYPERCALL, 0x0030_5000);
        assert_eq!(IOCTL_PRIVCMD_MMAPBATCH_V2, 0x0020_5004);
        assert_eq!(IOCTL_PRIVCMD_MMAP_RESOURCE, 0x0020_5007);
    }
}
