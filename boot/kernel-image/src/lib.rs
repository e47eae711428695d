//! Reads kernels as distributions ship them: bzImage or ELF, payload compressed or not, with the notes by which a kernel says how a
//! hypervisor is to start it.
//!
//! The way from a boot module to a loaded kernel, with one large buffer and no second copy:
//!
//! 1. [`KernelFile::open`] recognises the container and the compression from the module's bytes;
//! 2. the caller provides [`KernelFile::unpacked_len`] bytes and calls [`KernelFile::unpack_into`] (or [`KernelFile::unpack`], which
//!    allocates); an uncompressed kernel is used where it lies;
//! 3. [`Kernel::parse`] reads the ELF headers and the notes out of the unpacked bytes;
//! 4. [`Kernel::segments`] are copied into the guest's frames (`oxen-builder` does that).
//!
//! Every input is hostile: no byte sequence makes this crate panic, and nothing is allocated from a length that the input states before
//! that length has been compared with a limit.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod bytes;
mod bzimage;
mod elf;
mod error;
mod file;
mod info;
mod unpack;

pub use elf::{Kernel, Segment};
pub use error::ImageError;
pub use file::{Container, KernelFile, MAX_UNPACKED_LEN};
pub use info::{Features, KernelInfo, L1MfnValid};
pub use unpack::Compression;
