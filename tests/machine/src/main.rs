//! Tries out the machine crate on the machine: a program in ring 3 makes one entry after the other, and each is compared with what is expected. Prints
//! `machine test: passed`, or the first difference, and restarts the machine.
#![no_std]
#![cfg_attr(target_os = "none", no_main)]
#![cfg_attr(not(target_os = "none"), allow(dead_code, unused_imports))]

extern crate alloc;

#[cfg(target_os = "none")]
mod heap;
#[cfg(target_os = "none")]
mod space;
#[cfg(target_os = "none")]
mod steps;
#[cfg(target_os = "none")]
mod upcalls;

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    oxen_machine::fatal::panic(info)
}

#[cfg(not(target_os = "none"))]
fn main() {}
