//! A hypervisor for this crate's tests: a function that gets the hypercalls of this process.

use crate::mapping::SharedMemory;
use crate::privcmd::{MapFailure, Resource, Transport, Xen};
use oxen_abi::{Errno, Hypercall};
use std::fmt;
use std::fs::File;
use std::io;

/// A connection to the hypervisor that `answer` plays. It reads and writes arguments with [`read`] and [`write`].
pub(crate) fn xen(
    answer: impl Fn(Hypercall, [u64; 5]) -> Result<u32, Errno> + Send + Sync + 'static,
) -> Xen {
    Xen::over(Fake {
        answer: Box::new(answer),
    })
}

/// The function behind a connection.
type Answer = dyn Fn(Hypercall, [u64; 5]) -> Result<u32, Errno> + Send + Sync;

struct Fake {
    answer: Box<Answer>,
}

impl Transport for Fake {
    // SAFETY: the fake answers from its arguments and touches no memory that they name.
    unsafe fn hypercall(&self, op: Hypercall, args: [u64; 5]) -> io::Result<u32> {
        (self.answer)(op, args)
            .map_err(|errno| io::Error::from_raw_os_error(i32::from(errno.raw())))
    }

    fn buffers(&self) -> Option<&File> {
        None
    }

    fn map_frames(&self, _: u16, _: &[u64], _: bool) -> Result<SharedMemory, MapFailure> {
        Err((None, io::Error::from_raw_os_error(libc::ENODEV)))
    }

    fn map_resource(&self, _: &Resource, _: bool) -> io::Result<SharedMemory> {
        Err(io::Error::from_raw_os_error(libc::ENODEV))
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}
