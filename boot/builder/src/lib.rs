//! Lays out and fills the memory of a paravirtualized x86-64 domain: kernel, initial RAM disk, p2m, start information, page tables.
//!
//! The hypervisor builds domain 0 with it, the control stack every other domain. The work has two halves:
//!
//! * [`Plan::new`] computes the layout and nothing else: which PFN holds what, what is mapped where, how many page tables that takes.
//! * [`load_kernel`] (or [`clear_rest`]), [`load_initrd`] and [`build`] write the frames through [`GuestMemory`], which the caller implements.
//!
//! The layout, low to high from the kernel's VIRT_BASE, each part page-aligned and at PFN `(va - VIRT_BASE) / 4096`:
//!
//! | part | remark |
//! |---|---|
//! | kernel image | at its physical addresses; what lies below them is mapped too |
//! | initial RAM disk | only for kernels without the note MOD_START_PFN |
//! | p2m | only for kernels without the note INIT_P2M |
//! | start information | domU: then the xenstore page and the console page |
//! | page tables | L4, L3s, L2s, L1s; mapped read-only |
//! | boot stack | one page |
//! | spare | at least 512 KiB, up to the next 4 MiB boundary |
//!
//! Behind that, unmapped unless noted: the initial RAM disk of kernels with MOD_START_PFN, then for kernels with INIT_P2M the tables that
//! map the p2m, and the p2m itself, mapped writable at the address of the note.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod build;
mod error;
mod plan;
mod tables;

pub use build::{Built, GuestMemory, build, clear_rest, load_initrd, load_kernel};
pub use error::PlanError;
pub use oxen_abi::hypercall_page::pv_hypercall_page;
pub use plan::{Initrd, P2m, PfnRange, Plan, PlanInput, Role};
pub use tables::{TableFrames, TableLevel};
