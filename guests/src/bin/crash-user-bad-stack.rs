//! A fault in user mode when the kernel stack of stack_switch is not mapped.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::sys::FLAT_SS;
use oxen_guests::user::UserSpace;
use oxen_guests::{check, expect_text, hypercall};

oxen_guests::test_kernel!("crash-user-bad-stack", run);

fn run() {
    let user = UserSpace::install();
    expect_text!("stack_switch", hypercall::stack_switch(FLAT_SS, 0x10000), "0");
    check::die(|| {
        user.probe(&[0x0f, 0x0b]).run();
    })
}
