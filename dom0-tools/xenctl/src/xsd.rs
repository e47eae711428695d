//! `/proc/xen/xsd_kva` and `/proc/xen/xsd_port`: the xenstore ring of this domain's own kernel.

use crate::error::{Error, Result};
use crate::mapping::{FRAME_LEN, SharedMemory};
use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;

const PAGE: &str = "/proc/xen/xsd_kva";
const PORT: &str = "/proc/xen/xsd_port";

/// The port that the kernel has prepared for the xenstore daemon; `None` where the kernel looks for the daemon in another domain.
///
/// # Errors
///
/// [`Error::Kernel`].
pub fn own_xenstore_port() -> Result<Option<u32>> {
    let fail = |source| Error::Kernel {
        doing: "reading /proc/xen/xsd_port",
        source,
    };
    match std::fs::read_to_string(PORT) {
        Ok(text) => text
            .trim()
            .parse()
            .map(Some)
            .map_err(|_| fail(io::Error::from(ErrorKind::InvalidData))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fail(error)),
    }
}

/// Maps the page of the kernel's ring.
///
/// # Errors
///
/// [`Error::Kernel`].
pub fn own_xenstore_page() -> Result<SharedMemory> {
    let open = OpenOptions::new().read(true).write(true).open(PAGE);
    open.and_then(|file| SharedMemory::map(file.as_raw_fd(), 0, FRAME_LEN, true))
        .map_err(|source| Error::Kernel {
            doing: "mapping /proc/xen/xsd_kva",
            source,
        })
}
