//! sched_op: the watchdog timers and the pinning of dom0's vCPUs.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::hypercall::{self, Rc, sched_op};
use oxen_guests::sys::nr;
use oxen_guests::{expect_text, value};

oxen_guests::test_kernel!("watchdog", run);

fn run() {
    for (name, cmd) in [("pointer.code", 5), ("pointer.watchdog", 6), ("pointer.pin", 7)] {
        expect_text!(name, Rc(hypercall::raw(nr::SCHED_OP, [cmd, 0x1000, 0, 0, 0])), "-EFAULT");
    }
    let watchdog = |id: u32, timeout_s: u32| sched_op(6, &mut [id, timeout_s]);
    expect_text!("watchdog.disable_unknown", watchdog(1, 0), "-EINVAL");
    expect_text!("watchdog.first", watchdog(0, 600), "1");
    expect_text!("watchdog.second", watchdog(0, 600), "2");
    // This error arrives without its sign extension: 32 bits.
    expect_text!("watchdog.third", Rc(i64::from(watchdog(0, 600).0 as i32)), "-ENOSPC");
    expect_text!("watchdog.rearm", watchdog(2, 600), "0");
    expect_text!("watchdog.bad_id", watchdog(3, 600), "-EINVAL");
    expect_text!("watchdog.disable_first", watchdog(1, 0), "0");
    expect_text!("watchdog.disable_second", watchdog(2, 0), "0");
    expect_text!("watchdog.disabled", watchdog(1, 600), "-EINVAL");
    value!("pin.undo", sched_op(7, &mut { -1_i32 }));
    value!("pin.0", sched_op(7, &mut { 0_i32 }));
    value!("pin.undo_again", sched_op(7, &mut { -1_i32 }));
    value!("pin.absent", sched_op(7, &mut { 4000_i32 }));
}
