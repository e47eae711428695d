//! The frozen Xen ABI for x86-64: numbers and layouts, one file per public header.
//!
//! This crate states facts and does nothing else. The hypervisor, the domain-0 tools and the test guests all use it, so a number or a
//! layout is written down once.
//!
//! Conventions:
//!
//! * Structures are `#[repr(C)]` with every padding byte named (`_pad…`), and implement the `zerocopy` traits: code without `unsafe`
//!   turns guest bytes into a structure with `read_from_bytes` and back with `as_bytes`. `Default` is all bytes zero.
//! * Each structure's size and field offsets are asserted at compile time, beside the fields.
//! * C unions are [`Payload`]s: words of raw bytes, read and written as a typed structure chosen by the command.
//! * A number that a guest can supply is an *open enum*: a transparent newtype with named constants, so that every bit pattern is a
//!   valid value and the unknown ones reach the `_` arm of a `match`.
//! * Guest pointers are [`GuestHandle`]s: guest virtual addresses that remember what they point at.
//! * Everything carries its C name, in the documentation and in [`tables`], from which `tests/abi-headers` checks it against the
//!   public headers.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

#[macro_use]
mod macros;

mod handle;
mod payload;
pub mod tables;

pub mod arch_x86_64;
pub mod callback;
pub mod cpuid;
pub mod domctl;
pub mod elfnote;
pub mod errno;
pub mod event_channel;
pub mod features;
pub mod grant_table;
pub mod hypercall_page;
pub mod hypfs;
pub mod hvm;
pub mod io;
pub mod mca;
pub mod memory;
pub mod nmi;
pub mod physdev;
pub mod platform;
pub mod sched;
pub mod start_info;
pub mod sysctl;
pub mod vcpu;
pub mod version;
pub mod xen;
pub mod xenpmu;

pub use errno::Errno;
pub use handle::GuestHandle;
pub use payload::Payload;
pub use xen::Hypercall;

/// The traits that move these structures to and from bytes, so that users need no dependency of their own.
pub use zerocopy;
