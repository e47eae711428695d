//! Booting from a guest's own disk: finds the kernel, the initial RAM disk and the command line that the guest's boot menu names.
//!
//! The disk belongs to the guest, so whatever reads it may be lied to. [`extract`] therefore has another process do the reading
//! (`oxen-bootloader --confined`): without privileges, with limits on memory and time, unable to open anything (a system call filter
//! leaves it reading and writing), with the disk at its standard input and a pipe at its standard output. What comes through the pipe
//! is checked and written to files, which the domain builder then reads as it reads any kernel.
//!
//! [`disk`] finds partitions, [`menu`] reads boot menus, [`find`] puts both together on ext2, ext3 and ext4.
#![forbid(unsafe_code)]

pub mod confined;
pub mod disk;
mod extract;
pub mod find;
pub mod menu;
mod wire;

pub use extract::{Booted, Error, Request, extract};
