//! A fault in the kernel with its stack pointer in the hypervisor's memory: the frame must not be written there.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::check;

oxen_guests::test_kernel!("crash-stack-in-hole", run);

fn run() {
    check::die(|| {
        // SAFETY: gives up the stack for good, and raises an exception.
        unsafe { core::arch::asm!("mov rsp, {}", "ud2", in(reg) 0xffff_8300_0000_1000_u64, options(noreturn)) }
    })
}
