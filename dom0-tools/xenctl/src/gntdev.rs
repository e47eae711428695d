//! `/dev/xen/gntdev`: frames that other domains have granted us.

use crate::device;
use crate::error::{Error, Result};
use crate::mapping::{FRAME_LEN, SharedMemory};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

const PATH: &str = "/dev/xen/gntdev";
const MODULE: &str = "xen-gntdev";

/// Maps frames by grant reference.
#[derive(Debug)]
pub struct Grants {
    device: Box<dyn GrantDevice>,
}

/// What carries the calls. Tests put a model behind it.
pub(crate) trait GrantDevice: fmt::Debug + Send + Sync {
    fn map(&self, domid: u16, references: &[u32], writable: bool) -> io::Result<SharedMemory>;
}

impl Grants {
    /// Opens the device.
    ///
    /// # Errors
    ///
    /// As [`Xen::open`](crate::Xen::open).
    pub fn open() -> Result<Self> {
        let file = Arc::new(device::open(PATH, MODULE, device::Blocking::Yes)?);
        Ok(Self::over(Gntdev { file }))
    }

    pub(crate) fn over(device: impl GrantDevice + 'static) -> Self {
        Self {
            device: Box::new(device),
        }
    }

    /// Maps the frames that domain `domid` granted by `references`, one after the other. Dropping the mapping gives them back.
    ///
    /// # Errors
    ///
    /// [`Error::Grant`].
    pub fn map(&self, domid: u16, references: &[u32], writable: bool) -> Result<SharedMemory> {
        self.device
            .map(domid, references, writable)
            .map_err(|source| Error::Grant {
                domid,
                reference: references.first().copied().unwrap_or_default(),
                source,
            })
    }
}

/// The kernel's device.
#[derive(Debug)]
struct Gntdev {
    file: Arc<File>,
}

/// The head of `struct ioctl_gntdev_map_grant_ref`; the references follow it.
const MAP_HEAD: usize = 16;
/// Bytes of a `struct ioctl_gntdev_grant_ref`.
const REFERENCE_LEN: usize = 8;

/// The argument of [`UNMAP`] (`struct ioctl_gntdev_unmap_grant_ref`).
#[repr(C)]
struct UnmapGrantRef {
    index: u64,
    count: u32,
    pad: u32,
}

/// Request number `nr` of the device with an argument of `len` bytes (`_IOC_NONE`, type `G`).
const fn request(nr: u64, len: usize) -> u64 {
    (len as u64) << 16 | (b'G' as u64) << 8 | nr
}

/// The request's size is that of the structure with one reference, however many there are.
const MAP: u64 = request(0, MAP_HEAD + REFERENCE_LEN);
const UNMAP: u64 = request(1, size_of::<UnmapGrantRef>());

impl GrantDevice for Gntdev {
    fn map(&self, domid: u16, references: &[u32], writable: bool) -> io::Result<SharedMemory> {
        let count = u32::try_from(references.len())
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        // count, padding, index (two words), then pairs of domain and reference.
        let mut argument = vec![count, 0, 0, 0];
        for reference in references {
            argument.extend([u32::from(domid), *reference]);
        }
        // SAFETY: the argument holds the head and `count` references, as the request wants it; the kernel writes the index, which is
        // part of the head.
        let result = unsafe {
            libc::ioctl(
                self.file.as_raw_fd(),
                MAP as libc::Ioctl,
                argument.as_mut_ptr(),
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let index = match argument.as_slice() {
            [_, _, low, high, ..] => u64::from(*high) << 32 | u64::from(*low),
            _ => 0,
        };
        let len = references.len().saturating_mul(FRAME_LEN);
        match SharedMemory::map(self.file.as_raw_fd(), index, len, writable) {
            Ok(memory) => Ok(memory.backed_by_grants(Arc::clone(&self.file), index, count)),
            Err(error) => {
                unmap(&self.file, index, count);
                Err(error)
            }
        }
    }
}

/// Gives grants back whose mapping is gone.
pub(crate) fn unmap(device: &File, index: u64, count: u32) {
    let argument = UnmapGrantRef {
        index,
        count,
        pad: 0,
    };
    // SAFETY: the request names the size of its argument, which the kernel only reads.
    let _ = unsafe {
        libc::ioctl(
            device.as_raw_fd(),
            UNMAP as libc::Ioctl,
            &raw const argument,
        )
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_numbers_are_linux_s() {
        assert_eq!(MAP, 0x0018_4700);
        assert_eq!(UNMAP, 0x0010_4701);
    }
}
