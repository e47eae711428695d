//! The hypervisor binary: start-up order, wiring, panic handler.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]
#![cfg_attr(not(target_os = "none"), allow(dead_code))]

extern crate alloc;

mod dom0;
mod heap;
mod local;
mod options;
mod start;
mod upcalls;

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    oxen_machine::fatal::panic(info)
}

#[cfg(not(target_os = "none"))]
fn main() {}
