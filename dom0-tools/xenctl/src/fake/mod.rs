//! Hypervisors for tests.

mod calls;
mod events;
mod host;
mod memory;
#[cfg(test)]
mod script;
mod sysctl;

pub use host::{Activity, FakeDomain, FakeHost, Hook, Moment};
#[cfg(test)]
pub(crate) use script::xen;

use oxen_abi::zerocopy::{FromBytes, Immutable, IntoBytes};

/// The `T` at `address`, which came with a hypercall.
pub(crate) fn read<T: FromBytes>(address: u64) -> T {
    // SAFETY: the callers of a hypercall vouch for the addresses that they pass, and every bit pattern is a `T`.
    unsafe { std::ptr::with_exposed_provenance::<T>(address as usize).read_unaligned() }
}

/// The `len` bytes at `address`, which came with a hypercall.
pub(crate) fn read_bytes(address: u64, len: usize) -> Vec<u8> {
    let from = std::ptr::with_exposed_provenance::<u8>(address as usize);
    // SAFETY: as for [`read`]; the caller of the hypercall vouches for that many bytes.
    unsafe { std::slice::from_raw_parts(from, len) }.to_vec()
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
