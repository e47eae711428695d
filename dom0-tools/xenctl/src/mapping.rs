//! Memory that other domains can change.

use crate::buffer::page_size;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a frame.
pub const FRAME_LEN: usize = 4096;

/// Frames of another domain, mapped into this process until the value is dropped.
///
/// The other domain may change every byte at any time. So there are no references to the contents: bytes are copied in and out, and
/// the words that two domains synchronise by are atomics. What was read must be checked after the copy, never before.
///
/// It may be used from several threads at once.
#[derive(Debug)]
pub struct SharedMemory {
    base: NonNull<u8>,
    len: usize,
    writable: bool,
    backing: Backing,
}

/// What must be done after unmapping.
#[derive(Debug)]
enum Backing {
    /// Nothing.
    None,
    /// The grants are given back.
    Grants {
        device: Arc<File>,
        index: u64,
        count: u32,
    },
}

/// An access outside the mapping, or one that it does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessError {
    /// The range is not inside the mapping, or not aligned for the access.
    OutOfBounds {
        /// First byte.
        offset: usize,
        /// Bytes.
        len: usize,
        /// Bytes that are mapped.
        mapped: usize,
    },
    /// The mapping is for reading only.
    ReadOnly,
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfBounds {
                offset,
                len,
                mapped,
            } => write!(
                f,
                "{len} bytes at {offset} are not inside the {mapped} bytes mapped"
            ),
            Self::ReadOnly => f.write_str("the mapping is for reading only"),
        }
    }
}

impl std::error::Error for AccessError {}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for SharedMemory {}
// SAFETY: every access is an atomic or a copy through raw pointers of bytes that other domains may change anyway; no reference to the
// contents ever exists, and unmapping takes the value itself.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Maps `len` bytes of the device or file behind `fd`, from `offset` on.
    pub(crate) fn map(fd: RawFd, offset: u64, len: usize, writable: bool) -> io::Result<Self> {
        let len = len
            .max(1)
            .checked_next_multiple_of(page_size())
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        let offset = libc::off_t::try_from(offset)
            .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        let write = if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: the kernel chooses a fresh range, so no memory that Rust knows of changes.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | write,
                libc::MAP_SHARED,
                fd,
                offset,
            )
        };
        match NonNull::new(address.cast::<u8>()) {
            Some(base) if address != libc::MAP_FAILED => Ok(Self {
                base,
                len,
                writable,
                backing: Backing::None,
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Pages of this process alone, zeroed: what tests put in the place of another domain's.
    pub fn private(nr_frames: usize) -> io::Result<Self> {
        let len = nr_frames
            .max(1)
            .checked_mul(FRAME_LEN)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        // SAFETY: the kernel chooses a fresh range, so no memory that Rust knows of changes.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        match NonNull::new(address.cast::<u8>()) {
            Some(base) if address != libc::MAP_FAILED => Ok(Self {
                base,
                len,
                writable: true,
                backing: Backing::None,
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Puts one frame of `file` at the `index`th page of this mapping.
    #[cfg(any(test, feature = "fake"))]
    pub(crate) fn replace_frame(&self, index: usize, file: &File, frame: u64) -> io::Result<()> {
        let einval = || io::Error::from_raw_os_error(libc::EINVAL);
        let at = self
            .check(index.checked_mul(FRAME_LEN).ok_or_else(einval)?, FRAME_LEN)
            .map_err(|_| einval())?;
        let offset = frame
            .checked_mul(FRAME_LEN as u64)
            .and_then(|offset| libc::off_t::try_from(offset).ok())
            .ok_or_else(einval)?;
        let write = if self.writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: the page is inside this value's own mapping (just checked), to whose contents no reference exists.
        let address = unsafe {
            libc::mmap(
                at.cast(),
                FRAME_LEN,
                libc::PROT_READ | write,
                libc::MAP_SHARED | libc::MAP_FIXED,
                file.as_raw_fd(),
                offset,
            )
        };
        if address == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// The same mapping, whose grants `device` takes back after it is unmapped.
    pub(crate) fn backed_by_grants(mut self, device: Arc<File>, index: u64, count: u32) -> Self {
        self.backing = Backing::Grants {
            device,
            index,
            count,
        };
        self
    }

    /// The address, for the ioctls that fill the mapping.
    pub(crate) fn address(&self) -> u64 {
        self.base.as_ptr().expose_provenance() as u64
    }

    /// Bytes mapped.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is mapped, which never is so.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies the bytes at `offset` into `out`. Bytes that the other domain changes meanwhile may be old or new, each on its own.
    ///
    /// # Errors
    ///
    /// [`AccessError::OutOfBounds`].
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), AccessError> {
        let from = self.check(offset, out.len())?;
        // SAFETY: the range is mapped (just checked) and not part of `out`, which is memory of Rust's.
        unsafe { std::ptr::copy_nonoverlapping(from.cast_const(), out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Errors
    ///
    /// [`AccessError::OutOfBounds`], [`AccessError::ReadOnly`].
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), AccessError> {
        let to = self.check_write(offset, bytes.len())?;
        // SAFETY: the range is mapped for writing (just checked) and not part of `bytes`, which is memory of Rust's.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    /// Clears `len` bytes at `offset`.
    ///
    /// # Errors
    ///
    /// [`AccessError::OutOfBounds`], [`AccessError::ReadOnly`].
    pub fn zero(&self, offset: usize, len: usize) -> Result<(), AccessError> {
        let to = self.check_write(offset, len)?;
        // SAFETY: the range is mapped for writing (just checked).
        unsafe { std::ptr::write_bytes(to, 0, len) };
        Ok(())
    }

    /// Reads `len` bytes of `file` from its byte `at` on to `offset`, without a copy in between.
    ///
    /// # Errors
    ///
    /// The file's errors; `UnexpectedEof` when it is too short, `InvalidInput` for an [`AccessError`].
    pub fn read_from(&self, offset: usize, len: usize, file: &File, at: u64) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let left = len - done;
            let to = self
                .check_write(offset.saturating_add(done), left)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            let from = libc::off_t::try_from(at.saturating_add(done as u64))
                .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
            // SAFETY: `left` bytes at `to` are mapped for writing (just checked), to which no reference exists.
            let count = unsafe { libc::pread(file.as_raw_fd(), to.cast(), left, from) };
            match usize::try_from(count) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads the word at `offset` (a multiple of 4) in one piece.
    ///
    /// # Errors
    ///
    /// [`AccessError::OutOfBounds`].
    pub fn load_u32(&self, offset: usize, order: Ordering) -> Result<u32, AccessError> {
        let at = self.check_word(offset)?;
        if !self.writable {
            // SAFETY: the word is mapped and aligned (just checked); a volatile read of an aligned word is one access on x86, where
            // reads also are never moved before earlier ones. An atomic may not point at memory that is mapped for reading only.
            return Ok(unsafe { at.cast_const().read_volatile() });
        }
        // SAFETY: the word is mapped for writing and aligned; whoever else of this process accesses it does so by these methods.
        Ok(unsafe { AtomicU32::from_ptr(at) }.load(order))
    }

    /// Writes the word at `offset` (a multiple of 4) in one piece.
    ///
    /// # Errors
    ///
    /// [`AccessError::OutOfBounds`], [`AccessError::ReadOnly`].
    pub fn store_u32(&self, offset: usize, value: u32, order: Ordering) -> Result<(), AccessError> {
        if !self.writable {
            return Err(AccessError::ReadOnly);
        }
        let at = self.check_word(offset)?;
        // SAFETY: as for `load_u32`.
        unsafe { AtomicU32::from_ptr(at) }.store(value, order);
        Ok(())
    }

    /// The address of the aligned word at `offset`.
    fn check_word(&self, offset: usize) -> Result<*mut u32, AccessError> {
        let at = self.check(offset, size_of::<u32>())?;
        if offset.is_multiple_of(align_of::<u32>()) {
            Ok(at.cast())
        } else {
            Err(self.out_of_bounds(offset, size_of::<u32>()))
        }
    }

    /// The address of `len` writable bytes at `offset`.
    fn check_write(&self, offset: usize, len: usize) -> Result<*mut u8, AccessError> {
        if self.writable {
            self.check(offset, len)
        } else {
            Err(AccessError::ReadOnly)
        }
    }

    /// The address of `len` bytes at `offset`.
    fn check(&self, offset: usize, len: usize) -> Result<*mut u8, AccessError> {
        match offset.checked_add(len) {
            // SAFETY: `offset` is at most the length of the mapping.
            Some(end) if end <= self.len => Ok(unsafe { self.base.as_ptr().add(offset) }),
            _ => Err(self.out_of_bounds(offset, len)),
        }
    }

    fn out_of_bounds(&self, offset: usize, len: usize) -> AccessError {
        AccessError::OutOfBounds {
            offset,
            len,
            mapped: self.len,
        }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the range is exactly this value's mapping, to whose contents no reference exists.
        let _ = unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
        if let Backing::Grants {
            device,
            index,
            count,
        } = &self.backing
        {
            crate::gntdev::unmap(device, *index, *count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_stay_inside() {
        let memory = SharedMemory::private(1).unwrap();
        memory.write(4094, &[1, 2]).unwrap();
        let mut out = [0; 2];
        memory.read(4094, &mut out).unwrap();
        assert_eq!(out, [1, 2]);
        for offset in [4095, 4096, usize::MAX] {
            assert!(memory.read(offset, &mut out).is_err());
            assert!(memory.write(offset, &out).is_err());
            assert!(memory.zero(offset, 2).is_err());
        }
        memory.zero(4095, 1).unwrap();
        memory.read(4094, &mut out).unwrap();
        assert_eq!(out, [1, 0]);
    }

    #[test]
    fn words_must_be_aligned() {
        let memory = SharedMemory::private(1).unwrap();
        memory.store_u32(8, 7, Ordering::Release).unwrap();
        assert_eq!(memory.load_u32(8, Ordering::Acquire), Ok(7));
        assert!(memory.load_u32(9, Ordering::Acquire).is_err());
        assert!(memory.load_u32(4096, Ordering::Acquire).is_err());
    }

    #[test]
    fn a_mapping_for_reading_refuses_writes() {
        let file = File::open("/proc/self/exe").unwrap();
        let memory = SharedMemory::map(file.as_raw_fd(), 0, 4096, false).unwrap();
        assert_eq!(memory.write(0, &[1]), Err(AccessError::ReadOnly));
        assert_eq!(
            memory.store_u32(0, 1, Ordering::Release),
            Err(AccessError::ReadOnly)
        );
        assert_eq!(
            memory.load_u32(0, Ordering::Acquire),
            Ok(u32::from_le_bytes(*b"\x7fELF"))
        );
    }
}
