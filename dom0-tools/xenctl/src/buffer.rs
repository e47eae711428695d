//! Memory that the hypervisor may access.

use crate::error::{Error, Result};
use oxen_abi::GuestHandle;
use oxen_abi::zerocopy::{FromBytes, Immutable, IntoBytes};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// Page-aligned zeroed memory that stays resident, so that the hypervisor always finds it mapped.
///
/// Memory from `/dev/xen/hypercall` is never migrated or write-protected by the kernel. Without that device, the memory is locked and
/// kept out of child processes, which is as good as older kernels can do.
#[derive(Debug)]
pub(crate) struct Buffer {
    base: NonNull<u8>,
    /// Bytes asked for.
    len: usize,
    /// Bytes mapped, a multiple of the page size.
    mapped: usize,
}

impl Buffer {
    /// At least one page that has room for `len` bytes.
    pub(crate) fn new(device: Option<&File>, len: usize) -> Result<Self> {
        match Self::allocate(device, len) {
            // The device gives each process 64 pages only.
            Err(_) if device.is_some() => Self::allocate(None, len),
            result => result,
        }
    }

    fn allocate(device: Option<&File>, len: usize) -> Result<Self> {
        const DOING: &str = "allocating memory for a hypercall";
        let page = page_size();
        let mapped = len
            .max(1)
            .checked_next_multiple_of(page)
            .filter(|mapped| isize::try_from(*mapped).is_ok())
            .ok_or_else(|| Error::Kernel {
                doing: DOING,
                source: io::Error::from_raw_os_error(libc::ENOMEM),
            })?;
        let (fd, kind) = match device {
            Some(device) => (device.as_raw_fd(), libc::MAP_SHARED),
            None => (-1, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS),
        };

        // SAFETY: the kernel chooses a fresh range, so no memory that Rust knows of changes; `mapped` is a nonzero number of pages.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                kind,
                fd,
                0,
            )
        };
        let base = match NonNull::new(address.cast::<u8>()) {
            Some(base) if address != libc::MAP_FAILED => base,
            _ => {
                return Err(Error::Kernel {
                    doing: DOING,
                    source: io::Error::last_os_error(),
                });
            }
        };
        // From here on dropping the buffer unmaps it.
        let buffer = Self { base, len, mapped };
        if device.is_none() {
            buffer.lock()?;
        }
        Ok(buffer)
    }

    /// Keeps the memory resident and out of child processes (whose creation would make it copy-on-write).
    fn lock(&self) -> Result<()> {
        const DOING: &str = "locking memory for a hypercall";
        // SAFETY: the range is exactly this buffer's mapping, and neither call changes its contents.
        let locked = unsafe {
            libc::madvise(self.base.as_ptr().cast(), self.mapped, libc::MADV_DONTFORK) == 0
                && libc::mlock(self.base.as_ptr().cast(), self.mapped) == 0
        };
        if locked {
            Ok(())
        } else {
            Err(Error::Kernel {
                doing: DOING,
                source: io::Error::last_os_error(),
            })
        }
    }

    /// A buffer that holds `value`.
    pub(crate) fn holding<T: IntoBytes + Immutable + ?Sized>(
        device: Option<&File>,
        value: &T,
    ) -> Result<Self> {
        let mut buffer = Self::new(device, size_of_val(value))?;
        buffer.bytes_mut().copy_from_slice(value.as_bytes());
        Ok(buffer)
    }

    /// Makes this the buffer of `bytes` alone; `false`, with nothing changed, when they do not fit.
    pub(crate) fn refill(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > self.mapped {
            return false;
        }
        self.len = bytes.len();
        self.bytes_mut().copy_from_slice(bytes);
        true
    }

    /// Whether it is as small as buffers are.
    pub(crate) fn is_one_page(&self) -> bool {
        self.mapped == page_size()
    }

    /// The address, for a hypercall.
    pub(crate) fn address(&self) -> u64 {
        self.base.as_ptr().expose_provenance() as u64
    }

    /// The address, as a handle in a structure.
    pub(crate) fn handle<T>(&self) -> GuestHandle<T> {
        GuestHandle::new(self.address())
    }

    /// The contents.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `base` points at `len <= mapped` bytes that stay mapped while `self` exists and were initialised by the kernel. The
        // hypervisor writes them only during calls that borrow no slice of them.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }

    /// The contents.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`; the borrow of `self` is unique.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }

    /// The `count` structures at the start, or `None` when the buffer is too small for them.
    pub(crate) fn array<T: FromBytes + Immutable>(&self, count: usize) -> Option<Vec<T>> {
        let bytes = self.bytes().get(..count.checked_mul(size_of::<T>())?)?;
        bytes
            .chunks_exact(size_of::<T>().max(1))
            .map(|chunk| T::read_from_bytes(chunk).ok())
            .collect()
    }

    /// The structure at the start, or `None` when the buffer is too small for it.
    pub(crate) fn value<T: FromBytes>(&self) -> Option<T> {
        T::read_from_prefix(self.bytes())
            .ok()
            .map(|(value, _)| value)
    }

    /// The text at the start, up to the first zero byte.
    pub(crate) fn text(&self) -> String {
        text(self.bytes())
    }
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for Buffer {}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the range is exactly this buffer's mapping, and no slice of it outlives `self`.
        let _ = unsafe { libc::munmap(self.base.as_ptr().cast(), self.mapped) };
    }
}

/// The text in `bytes` up to the first zero byte.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// Bytes per page of this kernel.
pub(crate) fn page_size() -> usize {
    // SAFETY: reads a constant of the system.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_page_aligned_and_zeroed() {
        let buffer = Buffer::new(None, 5000).unwrap();
        assert_eq!(buffer.address() % 4096, 0);
        assert_eq!(buffer.bytes().len(), 5000);
        assert!(buffer.bytes().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn reads_back_structures() {
        let buffer = Buffer::holding(None, &[1_u32, 2, 3]).unwrap();
        assert_eq!(buffer.array::<u32>(3), Some(vec![1, 2, 3]));
        assert_eq!(buffer.array::<u32>(4), None);
        assert_eq!(buffer.array::<u32>(usize::MAX), None);
        assert_eq!(buffer.value::<u64>(), Some(0x2_0000_0001));
        assert_eq!(buffer.value::<[u64; 2]>(), None);
    }

    #[test]
    fn refuses_sizes_that_do_not_fit_the_address_space() {
        assert!(Buffer::new(None, usize::MAX).is_err());
    }

    #[test]
    fn text_ends_at_the_first_zero() {
        assert_eq!(text(b"abc\0def"), "abc");
        assert_eq!(text(b"abc"), "abc");
    }
}
