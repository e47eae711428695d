//! Distinct types for frames, addresses, identifiers and faults.
//!
//! Each number that means one thing gets its own type, so that a machine frame can never be passed where a guest frame
//! or a byte address is meant. The types are plain wrappers and cost nothing.
#![no_std]
#![forbid(unsafe_code)]

mod addr;
mod cpuset;
mod frame;
mod id;

pub use addr::{Gva, HYPERVISOR_VIRT_END, HYPERVISOR_VIRT_START, Maddr};
pub use cpuset::{CpuSet, MAX_CPUS};
pub use frame::{Gfn, Mfn, Pfn};
pub use id::{CpuId, DomId, GrantRef, Port, VcpuId};

/// Bytes in a page frame.
pub const PAGE_SIZE: u64 = 4096;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Eight-byte entries in a page table page.
pub const PT_ENTRIES: usize = 512;

/// A guest-supplied address could not be accessed: the page is absent, lacks the permission, or lies in the range that
/// belongs to the hypervisor. Hypercalls report it as `-EFAULT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// First address that could not be accessed.
    pub va: Gva,
}
