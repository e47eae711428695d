//! sched_op shutdown with the reason "crash".
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::{check, hypercall, sys};

oxen_guests::test_kernel!("crash-shutdown", run);

fn run() {
    check::die(|| {
        let mut reason = 3_u32;
        hypercall::sched_op(sys::SCHEDOP_SHUTDOWN, &mut reason);
    })
}
