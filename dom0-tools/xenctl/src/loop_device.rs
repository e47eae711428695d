//! Loop devices: block devices whose data are in a file (`loop(4)`).

use libc::c_ulong;
use linux_raw_sys::loop_device as abi;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Hands out free loop devices.
const CONTROL: &str = "/dev/loop-control";
/// Requests of `linux/loop.h`.
const LOOP_GET_STATUS64: c_ulong = 0x4c05;
const LOOP_CONFIGURE: c_ulong = 0x4c0a;
const LOOP_CTL_GET_FREE: c_ulong = 0x4c82;
/// Flags of a loop device (`linux/loop.h`).
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;
/// How often a device that was free may be taken by somebody else before it is bound.
const ATTEMPTS: u32 = 64;

/// A loop device that is bound to a file.
#[derive(Debug)]
pub struct Loop {
    /// The open device. When the last one who has it open closes it, it is unbound.
    pub device: File,
    /// Its number: the device is `/dev/loopNUMBER`.
    pub number: u32,
}

/// What a loop device is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The device number of the file's file system, as `st_dev` has it.
    pub file_device: u64,
    /// The file's inode number.
    pub file_inode: u64,
    /// Whether the data can only be read.
    pub read_only: bool,
    /// Whether the device is unbound when the last one closes it.
    pub auto_clear: bool,
}

/// Binds a free loop device to the open file `backing`, past the page cache where the file system can do that. A device that can be
/// written is opened exclusively: nobody can mount it meanwhile.
///
/// # Errors
///
/// When the kernel has no loop devices, or cannot use the file as one.
pub fn bind(backing: BorrowedFd<'_>, read_only: bool) -> io::Result<Loop> {
    let control = OpenOptions::new().read(true).write(true).open(CONTROL).map_err(|error| named(CONTROL, &error))?;
    for _ in 0..ATTEMPTS {
        // SAFETY: the request takes no argument and touches no memory.
        let number = check(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) })?;
        let number = u32::try_from(number).map_err(|_| io::Error::other("the kernel names a loop device with a negative number"))?;
        let path = format!("/dev/loop{number}");
        let exclusive = if read_only { 0 } else { libc::O_EXCL };
        let device = match OpenOptions::new().read(true).write(!read_only).custom_flags(exclusive).open(&path) {
            Ok(device) => device,
            // Somebody else was faster.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => continue,
            Err(error) => return Err(named(&path, &error)),
        };
        match configure(&device, backing, read_only) {
            Ok(()) => return Ok(Loop { device, number }),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "each free loop device was taken by others before it could be used"))
}

/// What the open loop device `device` is bound to; `None` when to nothing.
///
/// # Errors
///
/// When it is no loop device.
pub fn status(device: &File) -> io::Result<Option<Status>> {
    let mut info = empty_info();
    // SAFETY: the request writes one `loop_info64`, which `info` is.
    match check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, &raw mut info) }) {
        Ok(_) => Ok(Some(Status {
            file_device: info.lo_device,
            file_inode: info.lo_inode,
            read_only: info.lo_flags & LO_FLAGS_READ_ONLY != 0,
            auto_clear: info.lo_flags & LO_FLAGS_AUTOCLEAR != 0,
        })),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

fn configure(device: &File, backing: BorrowedFd<'_>, read_only: bool) -> io::Result<()> {
    let fd = u32::try_from(backing.as_raw_fd()).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    let mut info = empty_info();
    info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO | if read_only { LO_FLAGS_READ_ONLY } else { 0 };
    let config = abi::loop_config { fd, block_size: 0, info, __reserved: [0; 8] };
    // SAFETY: the request reads one `loop_config`, which `config` is.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) }).map(drop)
}

fn empty_info() -> abi::loop_info64 {
    abi::loop_info64 {
        lo_device: 0,
        lo_inode: 0,
        lo_rdevice: 0,
        lo_offset: 0,
        lo_sizelimit: 0,
        lo_number: 0,
        lo_encrypt_type: 0,
        lo_encrypt_key_size: 0,
        lo_flags: 0,
        lo_file_name: [0; 64],
        lo_crypt_name: [0; 64],
        lo_encrypt_key: [0; 32],
        lo_init: [0; 2],
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn named(path: impl AsRef<Path>, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.as_ref().display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_and_requests_are_the_kernels() {
        assert_eq!(size_of::<abi::loop_info64>(), 232);
        assert_eq!(size_of::<abi::loop_config>(), 304);
        assert_eq!(LOOP_CONFIGURE, c_ulong::from(abi::LOOP_CONFIGURE));
        assert_eq!(LOOP_GET_STATUS64, c_ulong::from(abi::LOOP_GET_STATUS64));
        assert_eq!(LOOP_CTL_GET_FREE, c_ulong::from(abi::LOOP_CTL_GET_FREE));
    }

    #[test]
    fn what_is_no_loop_device_has_no_status() {
        assert!(status(&File::open("/dev/null").unwrap()).is_err());
    }
}
