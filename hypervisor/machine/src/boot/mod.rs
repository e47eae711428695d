//! From GRUB to the binary's main function.

mod info;
pub mod multiboot2;
pub mod ranges;
mod start;

pub use info::{BootInfo, EarlyOptions, MAX_MODULES, Module};

#[cfg(target_os = "none")]
core::arch::global_asm!(include_str!("entry.s"), rust_entry = sym start::rust_entry, options(att_syntax));
