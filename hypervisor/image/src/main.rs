//! The hypervisor binary.
#![no_std]
#![cfg_attr(target_os = "none", no_main)]
#![cfg_attr(not(target_os = "none"), allow(dead_code))]

mod bringup;
mod heap;

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    oxen_machine::fatal::panic(info)
}

#[cfg(not(target_os = "none"))]
fn main() {}
