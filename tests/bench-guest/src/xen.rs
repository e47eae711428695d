//! Rows that speak to the hypervisor through the kernel's device files.

use std::fs::File;
use std::io::{Read, Result, Write};
use std::os::fd::AsRawFd;

use crate::checked;

/// Linux `include/uapi/xen/privcmd.h`: `_IOC(_IOC_NONE, 'P', 0, sizeof(struct privcmd_hypercall))`.
const IOCTL_PRIVCMD_HYPERCALL: libc::c_ulong = 0x0030_5000;
/// Linux `include/uapi/xen/evtchn.h`: `_IOC(_IOC_NONE, 'E', number, size)`.
const IOCTL_EVTCHN_BIND_INTERDOMAIN: libc::c_ulong = 0x0008_4501;
const IOCTL_EVTCHN_BIND_UNBOUND_PORT: libc::c_ulong = 0x0004_4502;
const IOCTL_EVTCHN_NOTIFY: libc::c_ulong = 0x0004_4504;

/// Xen `public/xen.h`: `__HYPERVISOR_xen_version`, and its first command, which reads a number.
const XEN_VERSION: u64 = 17;

/// `struct privcmd_hypercall`.
#[repr(C)]
struct Hypercall {
    op: u64,
    arg: [u64; 5],
}

/// The device for hypercalls.
pub const PRIVCMD: &str = "/dev/xen/privcmd";
/// The device for event channels.
pub const EVTCHN: &str = "/dev/xen/evtchn";

/// A hypercall that only returns a number.
pub fn null_hypercalls(count: u64) -> Result<()> {
    let device = File::options().read(true).write(true).open(PRIVCMD)?;
    for _ in 0..count {
        let mut call = Hypercall { op: XEN_VERSION, arg: [0; 5] };
        // SAFETY: the structure is the one the number's definition names, and the call writes no other memory.
        checked(unsafe { libc::ioctl(device.as_raw_fd(), IOCTL_PRIVCMD_HYPERCALL, &raw mut call) }.into())?;
    }
    Ok(())
}

/// An event sent to and received from oneself.
pub fn events(count: u64) -> Result<()> {
    let mut device = File::options().read(true).write(true).open(EVTCHN)?;
    let remote_domain = 0_u32;
    // SAFETY: `struct ioctl_evtchn_bind_unbound_port` is one 32-bit domain number.
    let unbound = checked(unsafe { libc::ioctl(device.as_raw_fd(), IOCTL_EVTCHN_BIND_UNBOUND_PORT, &raw const remote_domain) }.into())?;
    let request = [0_u32, u32::try_from(unbound).unwrap_or(0)];
    // SAFETY: `struct ioctl_evtchn_bind_interdomain` is a 32-bit domain number and a 32-bit port.
    let bound = checked(unsafe { libc::ioctl(device.as_raw_fd(), IOCTL_EVTCHN_BIND_INTERDOMAIN, &raw const request) }.into())?;
    let port = u32::try_from(bound).unwrap_or(0);
    let mut arrived = [0; 4];
    for _ in 0..count {
        // SAFETY: `struct ioctl_evtchn_notify` is one 32-bit port.
        checked(unsafe { libc::ioctl(device.as_raw_fd(), IOCTL_EVTCHN_NOTIFY, &raw const port) }.into())?;
        device.read_exact(&mut arrived)?;
        // Writing a port back lets it be signalled again.
        device.write_all(&arrived)?;
    }
    Ok(())
}
