//! Instruction decoding and emulation, CPUID and MSR policy.
//!
//! Only what guests need emulated is decoded: the instructions by which a PV kernel writes page-table entries that it sees read-only, and the
//! privileged ones. An unknown instruction decodes to `None`, and the guest gets the fault that the processor raised.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod cpuid;
pub mod decode;
pub mod msr;
pub mod policy;
pub mod registers;
pub mod rmw;
pub mod string;

pub use decode::{Instruction, MAX_INSTRUCTION_BYTES, Map};
