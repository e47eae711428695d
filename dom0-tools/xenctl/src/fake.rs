//! A hypervisor for tests: a function that gets the hypercalls of this process.

use crate::privcmd::{Transport, Xen};
use oxen_abi::zerocopy::{FromBytes, Immutable, IntoBytes};
use oxen_abi::{Errno, Hypercall};
use std::fmt;
use std::fs::File;
use std::io;

/// A connection to the hypervisor that `answer` plays. It reads and writes arguments with [`read`] and [`write`].
pub(crate) fn xen(answer: impl Fn(Hypercall, [u64; 5]) -> Result<u32, Errno> + 'static) -> Xen {
    Xen::over(Fake {
        answer: Box::new(answer),
    })
}

/// The function behind a connection.
type Answer = dyn Fn(Hypercall, [u64; 5]) -> Result<u32, Errno>;

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
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

/// The `T` at `address`, which came with a hypercall.
pub(crate) fn read<T: FromBytes>(address: u64) -> T {
    // SAFETY: the callers of a hypercall vouch for the addresses that they pass, and every bit pattern is a `T`.
    unsafe { std::ptr::with_exposed_provenance::<T>(address as usize).read_unaligned() }
}

/// Puts `value` at `address`, which came with a hypercall.
pub(crate) fn write<T: IntoBytes + Immutable>(address: u64, value: &T) {
    write_bytes(address, value.as_bytes());
}

/// Puts `bytes` at `address`, which came with a hypercall.
pub(crate) fn write_bytes(address: u64, bytes: &[u8]) {
    let to = std::ptr::with_exposed_provenance_mut::<u8>(address as usize);
    // SAFETY: the callers of a hypercall vouch for the addresses that they pass and for the room there, and borrow nothing of it.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
}
