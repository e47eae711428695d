//! The machine memory of a fake host: a sparse file, so that a frame mapped twice is the same frame.

use crate::mapping::{FRAME_LEN, SharedMemory};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

/// Frames that the file has room for.
const NR_FRAMES: u64 = 1 << 24;

#[derive(Debug)]
pub(super) struct Memory {
    file: File,
}

impl Memory {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: the name is a C string; the result is a descriptor that nobody else owns, or -1.
        let file = unsafe {
            let fd = libc::memfd_create(c"fake host".as_ptr(), libc::MFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            File::from_raw_fd(fd)
        };
        file.set_len(NR_FRAMES * FRAME_LEN as u64)?;
        Ok(Self { file })
    }

    /// The frames one after the other.
    pub(super) fn map(&self, frames: &[u64], writable: bool) -> io::Result<SharedMemory> {
        let len = frames.len().saturating_mul(FRAME_LEN);
        let memory = SharedMemory::map(self.file.as_raw_fd(), 0, len, writable)?;
        for (index, frame) in frames.iter().enumerate() {
            memory.replace_frame(index, &self.file, *frame)?;
        }
        Ok(memory)
    }
}
