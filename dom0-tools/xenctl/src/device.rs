//! Opening the kernel's Xen devices.

use crate::error::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Whether reads wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocking {
    /// They do.
    Yes,
    /// They do not.
    No,
}

/// Opens the device at `path`, which kernel module `module` provides.
pub(crate) fn open(path: &'static str, module: &'static str, blocking: Blocking) -> Result<File> {
    let flags = match blocking {
        Blocking::Yes => 0,
        Blocking::No => libc::O_NONBLOCK,
    };
    let result = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path);
    result.map_err(|error| reason(path, module, error, Path::new("/")))
}

/// Why the device at `path`, which kernel module `module` provides, could not be opened, in a system whose files are below `root`.
fn reason(path: &'static str, module: &'static str, error: io::Error, root: &Path) -> Error {
    if error.kind() == ErrorKind::PermissionDenied {
        Error::NotRoot { path }
    } else if !is_absent(&error) {
        Error::Kernel {
            doing: "opening a device of /dev/xen",
            source: error,
        }
    } else if runs_under_xen(root) {
        Error::NoDevice { path, module }
    } else {
        Error::NotUnderXen
    }
}

/// Whether the device node does not exist, or has no driver behind it.
fn is_absent(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
        || matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
}

/// Whether the kernel of the file system at `root` runs under Xen.
fn runs_under_xen(root: &Path) -> bool {
    match std::fs::read_to_string(root.join("sys/hypervisor/type")) {
        Ok(kind) => kind.trim() == "xen",
        Err(_) => root.join("proc/xen").is_dir(),
    }
}

/// Waits until `fd` is readable or `timeout` has passed (`None` waits for ever).
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<()> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left_ms = deadline.map_or(-1, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up: a wait of less than a millisecond must not become none.
            libc::c_int::try_from(left.as_millis().saturating_add(1)).unwrap_or(libc::c_int::MAX)
        });
        let mut polled = libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: the argument is one entry, and the descriptor is open.
        match unsafe { libc::poll(&raw mut polled, 1, left_ms) } {
            -1 => {
                let error = io::Error::last_os_error();
                if error.kind() != ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

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

    /// Not root, another hypervisor or none, a missing module and a broken device are told apart.
    #[test]
    fn a_device_that_cannot_be_opened_is_explained() {
        let (bare, xen) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(xen.path().join("proc/xen")).unwrap();
        let reason = |raw: i32, root: &tempfile::TempDir| reason("/dev/xen/privcmd", "xen-privcmd", io::Error::from_raw_os_error(raw), root.path());
        for absent in [libc::ENOENT, libc::ENXIO, libc::ENODEV] {
            assert!(matches!(reason(absent, &bare), Error::NotUnderXen));
            assert!(matches!(reason(absent, &xen), Error::NoDevice { path: "/dev/xen/privcmd", module: "xen-privcmd" }));
        }
        for root in [&bare, &xen] {
            assert!(matches!(reason(libc::EACCES, root), Error::NotRoot { path: "/dev/xen/privcmd" }));
            assert!(matches!(reason(libc::EPERM, root), Error::NotRoot { .. }));
            assert!(matches!(reason(libc::EMFILE, root), Error::Kernel { .. }));
        }
    }

    #[test]
    fn waiting_ends() {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let start = Instant::now();
        wait_readable(near.as_fd(), Some(Duration::from_millis(20))).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(20));
        drop(far);
        wait_readable(near.as_fd(), None).unwrap();
    }
}
