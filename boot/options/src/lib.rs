//! The hypervisor command line, declared in one table.
//!
//! [`TABLE`] holds every option with its syntax, default and meaning; [`parse`] reads a command line by it, and [`markdown`] renders it as
//! the page `OPTIONS.md` (a test keeps the two in step). Option names and values are those of Xen's command line, so that existing boot
//! entries carry over.
//!
//! A mistake on the command line never stops the boot: [`parse`] reports it as a [`Complaint`] and goes on.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod complaint;
mod document;
mod dom0;
mod options;
mod parse;
mod serial;
mod table;
mod value;

pub use complaint::Complaint;
pub use document::markdown;
pub use dom0::{Amount, Dom0Mem, Dom0Pages, Dom0Vcpus, MemNote};
pub use options::{ClockSource, ConsoleSet, LogLevel, LogThreshold, Options};
pub use parse::parse;
pub use serial::{ComPort, Parity};
pub use table::{OptionSpec, TABLE};
