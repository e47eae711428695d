//! A fault in the kernel on a stack that is not mapped: the frame cannot be delivered.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::check;

oxen_guests::test_kernel!("crash-bad-stack", run);

fn run() {
    check::die(|| {
        // SAFETY: gives up the stack for good, and raises an exception.
        unsafe { core::arch::asm!("mov rsp, 0x10000", "ud2", options(noreturn)) }
    })
}
