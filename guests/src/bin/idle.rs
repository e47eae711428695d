//! Sleeps in short pieces, as an idle guest does: for the benchmarks a domain that does nothing, for ever; in dom0's place a few times, then the verdict.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_abi::sched::{Poll, SchedOp};
use oxen_abi::xen::SIF_INITDOMAIN;
use oxen_guests::{hypercall, start, time};

oxen_guests::test_kernel!("idle", run);

/// Length of one sleep.
const NAP_NS: u64 = 100_000_000;

fn run() {
    if start::start_info().flags & SIF_INITDOMAIN == 0 {
        loop {
            nap();
        }
    }
    let before = time::now_on(0);
    for _ in 0..3 {
        oxen_guests::expect!("nap", nap(), hypercall::Rc(0));
    }
    oxen_guests::check!("slept_as_long_as_asked", time::now_on(0) - before >= 3 * NAP_NS);
}

/// Waits for no port at all until the time is over.
fn nap() -> hypercall::Rc {
    let mut poll = Poll { timeout: time::now_on(0) + NAP_NS, ..Poll::default() };
    hypercall::sched_op(SchedOp::POLL.0.into(), &mut poll)
}
