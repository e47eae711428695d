//! A fault for which the kernel has no handler ends the domain.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::hypercall;
use oxen_guests::sys::nr;
use oxen_guests::{check, expect_text};

oxen_guests::test_kernel!("crash-no-handler", run);

fn run() {
    // A null table clears every entry.
    expect_text!("clear", hypercall::Rc(hypercall::raw(nr::SET_TRAP_TABLE, [0; 5])), "0");
    check::die(|| {
        // SAFETY: raises an exception; nothing follows.
        unsafe { core::arch::asm!("ud2") }
    })
}
