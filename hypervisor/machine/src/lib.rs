//! Everything that touches the x86 machine: boot, paging, memory, console, traps, interrupts, timers, processors.
//!
//! [`X86`] implements the traits of `oxen-hal`. The binary crate defines the upcalls through which the machine hands control over.
#![no_std]
// The assembly that calls much of this crate is only built for the bare machine.
#![cfg_attr(not(target_os = "none"), allow(dead_code))]

extern crate alloc;

pub mod acpi;
pub mod apic;
pub mod boot;
pub mod console;
pub mod cpu;
pub mod descriptors;
pub mod entry;
pub mod fatal;
mod guest;
pub mod interrupts;
pub mod layout;
mod list;
pub mod memory;
pub mod paging;
pub mod percpu;
pub mod platform;
pub mod port;
pub mod smp;
mod space;
mod symbols;
pub mod time;
pub mod tlb;
pub mod upcall;
mod window;

/// The machine. It has no state of its own: that is in the processors and in this crate's statics.
#[derive(Clone, Copy, Debug)]
pub struct X86;

/// The machine, for those who need a reference that lives for ever.
pub static MACHINE: X86 = X86;
