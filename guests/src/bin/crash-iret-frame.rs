//! The iret hypercall with a frame that cannot be read.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::check;

oxen_guests::test_kernel!("crash-iret-frame", run);

fn run() {
    check::die(|| {
        // SAFETY: gives up the stack for good.
        unsafe { core::arch::asm!("mov rsp, 0x10000", "mov eax, 23", "syscall", "ud2", options(noreturn)) }
    })
}
