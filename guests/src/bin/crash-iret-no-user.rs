//! The iret hypercall to user mode without user page tables.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::check;
use oxen_guests::probe;
use oxen_guests::sys::{FLAT_CS64, FLAT_SS};
use oxen_guests::trap::Frame;

oxen_guests::test_kernel!("crash-iret-no-user", run);

fn run() {
    check::die(|| {
        let frame = Frame { rip: 0x1000, cs: FLAT_CS64, rflags: 0x202, rsp: 0x2000, ss: FLAT_SS, ..Frame::default() };
        probe::run_frame(&frame, 0x1000, 0);
    })
}
