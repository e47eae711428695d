//! Time: vcpu_time_info, the wall clock, timers, and runstate.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::Ordering;
use oxen_guests::event::{self, rc_of};
use oxen_guests::hypercall::{self, Rc, set_timer_op, vcpu_op, vcpu_op_null};
use oxen_guests::mem::alloc_page;
use oxen_guests::start::{offsets, shared_word, vcpu_info};
use oxen_guests::time::{self, MS, now, read_time_info, spin_until};
use oxen_guests::{check, cpu, expect, expect_text, sys, value};

oxen_guests::test_kernel!("time", run);

/// sched_op block.
const BLOCK: u64 = 1;
/// sched_op yield.
const YIELD: u64 = 0;

fn run() {
    let Ok(timer) = event::bind_virq(0, 0) else { return oxen_guests::check::fail("bind_virq") };
    clock();
    initial_periodic(timer);
    periodic(timer);
    single_shot(timer);
    timer_op(timer);
    blocking(timer);
    runstate();
    time_area();
}

fn clock() {
    let info = read_time_info(vcpu_info(0).time_va());
    expect!("clock.version_even", info.version & 1, 0);
    check!("clock.mul", info.mul != 0);
    check!("clock.shift", (-31..=31).contains(&info.shift));
    value!("clock.unknown_flags", info.flags & !3);
    let mut last = now();
    let mut monotonic = true;
    for _ in 0..10_000 {
        let next = now();
        monotonic &= next >= last;
        last = next;
    }
    expect!("clock.monotonic", monotonic, true);
    // The same rate over 20 ms by counter and by the interface's own timer is checked below; here only that it moves.
    let start = now();
    check!("clock.moves", spin_until(5 * MS, || now() - start > MS));
    // The wall clock's version is even and it names a plausible second.
    let word = shared_word(offsets::WALL_CLOCK).load(Ordering::Relaxed);
    expect!("wall.version_even", word & 1, 0);
    check!("wall.plausible", (1_600_000_000..4_000_000_000).contains(&(word >> 32)));
    let nanoseconds = shared_word(offsets::WALL_CLOCK + 8).load(Ordering::Relaxed);
    check!("wall.nanoseconds", nanoseconds & 0xffff_ffff < 1_000_000_000);
    expect!("wall.high_seconds", nanoseconds >> 32, 0);
}

/// Waits until `timer` arrived `times` more often than `before`, a count taken before the timer was set.
fn wait(timer: u32, before: u32, times: u32) -> bool {
    spin_until(2000 * MS, || event::count(timer) >= before + times)
}

/// Whether nothing arrives for `ns`.
fn quiet(timer: u32, ns: u64) -> bool {
    let before = event::count(timer);
    !spin_until(ns, || event::count(timer) != before)
}

/// A new vCPU has a 10 ms periodic timer.
fn initial_periodic(timer: u32) {
    event::enable_upcalls();
    expect!("initial.ticks", wait(timer, event::count(timer), 3), true);
    expect_text!("initial.stop", vcpu_op_null(7, 0), "0");
    event::enable_upcalls();
    expect!("initial.stopped", quiet(timer, 50 * MS), true);
    expect_text!("initial.stop_again", vcpu_op_null(7, 0), "0");
}

fn periodic(timer: u32) {
    let mut period = MS / 2;
    expect_text!("periodic.too_short", vcpu_op(6, 0, &mut period), "-EINVAL");
    period = u64::MAX;
    value!("periodic.endless", vcpu_op(6, 0, &mut period));
    period = 5 * MS;
    let (start, before) = (now(), event::count(timer));
    expect_text!("periodic.set", vcpu_op(6, 0, &mut period), "0");
    expect!("periodic.ticks", wait(timer, before, 4), true);
    check!("periodic.not_early", now() - start >= 14 * MS);
    expect_text!("periodic.stop", vcpu_op_null(7, 0), "0");
    expect_text!("periodic.bad_pointer", Rc(hypercall::raw(sys::nr::VCPU_OP, [6, 0, 0x1000, 0, 0])), "-EFAULT");
    expect!("periodic.stopped", quiet(timer, 20 * MS), true);
}

/// vcpu_set_singleshot_timer.
fn set_single(timeout_ns: u64, flags: u64) -> Rc {
    vcpu_op(8, 0, &mut [timeout_ns, flags])
}

fn single_shot(timer: u32) {
    let before = event::count(timer);
    let deadline = now() + 3 * MS;
    expect_text!("single.set", set_single(deadline, 0), "0");
    expect!("single.fires", wait(timer, before, 1), true);
    check!("single.not_early", now() >= deadline);
    expect!("single.once", quiet(timer, 10 * MS), true);
    let before = event::count(timer);
    expect_text!("single.past", set_single(1, 0), "0");
    expect!("single.past_fires", spin_until(1000 * MS, || event::count(timer) > before), true);
    expect_text!("single.past_future_flag", set_single(1, 1), "0");
    spin_until(2 * MS, || false);
    let before = event::count(timer);
    expect_text!("single.future_flag", set_single(now() + 2 * MS, 1), "0");
    expect!("single.future_fires", wait(timer, before, 1), true);
    check!("single.set_far", set_single(now() + 100 * MS, 0).is_ok());
    expect_text!("single.stop", vcpu_op_null(9, 0), "0");
    expect!("single.stopped", quiet(timer, 150 * MS), true);
    check!("single.set_twice", set_single(now() + 100 * MS, 0).is_ok());
    expect_text!("single.replace", set_single(now() + 60_000 * MS, 0), "0");
    expect!("single.replaced", quiet(timer, 150 * MS), true);
    expect_text!("single.stop_last", vcpu_op_null(9, 0), "0");
    expect_text!("single.other_vcpu", vcpu_op(8, 1, &mut [now() + MS, 0]), "-EINVAL");
    expect_text!("single.stop_other_vcpu", vcpu_op_null(9, 1), "-EINVAL");
    expect_text!("single.bad_pointer", Rc(hypercall::raw(sys::nr::VCPU_OP, [8, 0, 0x1000, 0, 0])), "-EFAULT");
}

fn timer_op(timer: u32) {
    let before = event::count(timer);
    let deadline = now() + 3 * MS;
    expect_text!("timer_op.set", set_timer_op(deadline), "0");
    expect!("timer_op.fires", wait(timer, before, 1), true);
    check!("timer_op.not_early", now() >= deadline);
    let before = event::count(timer);
    expect_text!("timer_op.past", set_timer_op(1), "0");
    expect!("timer_op.past_fires", spin_until(1000 * MS, || event::count(timer) > before), true);
    check!("timer_op.set_far", set_timer_op(now() + 100 * MS).is_ok());
    expect_text!("timer_op.cancel", set_timer_op(0), "0");
    expect!("timer_op.cancelled", quiet(timer, 150 * MS), true);
    value!("timer_op.negative", set_timer_op(1 << 63));
    check!("timer_op.cancel_last", set_timer_op(0).is_ok());
    spin_until(5 * MS, || false);
}

/// Blocks until a timer `ns` from now. Upcalls are off until the block itself, or the event could come too early and be lost.
fn sleep(ns: u64) {
    event::disable_upcalls();
    check!("sleep.timer", set_single(now() + ns, 0).is_ok());
    check!("sleep.block", hypercall::sched_op(BLOCK, &mut 0_u32).is_ok());
}

fn blocking(timer: u32) {
    let mut nothing = 0_u32;
    let deadline = now() + 5 * MS;
    check!("block.timer", set_single(deadline, 0).is_ok());
    let before = event::count(timer);
    event::disable_upcalls();
    expect_text!("block.rc", hypercall::sched_op(BLOCK, &mut nothing), "0");
    expect!("block.woken_by_timer", event::count(timer) - before, 1);
    check!("block.slept", now() >= deadline);
    expect!("block.unmasks", vcpu_info(0).upcall_mask(), false);
    // With an event pending it does not sleep.
    let Ok(ipi) = event::bind_ipi(0) else { return oxen_guests::check::fail("block.bind_ipi") };
    event::disable_upcalls();
    event::send(ipi);
    expect_text!("block.pending_rc", hypercall::sched_op(BLOCK, &mut nothing), "0");
    expect!("block.pending_delivered", event::count(ipi), 1);
    expect_text!("block.yield", hypercall::sched_op(YIELD, &mut nothing), "0");
    // A wake-up inside a longer sleep: short timer, then block again until the real one.
    for _ in 0..20 {
        sleep(MS);
    }
    expect!("block.repeated", event::count(timer) - before, 21);
}

/// vcpu_runstate_info.
fn runstate() {
    let mut info = [0_u64; 6];
    expect_text!("runstate.get", vcpu_op(4, 0, &mut info), "0");
    expect!("runstate.state", info[0] as u32, 0);
    let sum: u64 = info[2..].iter().sum();
    let moment = now();
    check!("runstate.sum", sum <= moment && moment - sum < 1000 * MS || sum > 0);
    check!("runstate.blocked_time", info[4] >= 5 * MS);
    let blocked = info[4];
    sleep(20 * MS);
    check!("runstate.get_again", vcpu_op(4, 0, &mut info).is_ok());
    check!("runstate.blocked_grows", info[4] > blocked);
    expect_text!("runstate.other", vcpu_op(4, 1, &mut info), "0");
    expect!("runstate.other_state", info[0] as u32, 3);
    expect_text!("runstate.bad_pointer", Rc(hypercall::raw(sys::nr::VCPU_OP, [4, 0, 0x1000, 0, 0])), "-EFAULT");
    // A registered area is written at once and at every change.
    let page = alloc_page();
    let mut area = page.va();
    expect_text!("area.register", vcpu_op(5, 0, &mut area), "0");
    expect!("area.state", page.read(0) as u32, 0);
    check!("area.entry_time", page.read(1) & (1 << 63) == 0 && page.read(1) <= now());
    let blocked = page.read(4);
    sleep(20 * MS);
    check!("area.grows", page.read(4) > blocked);
    expect_text!("area.update_flag", hypercall::vm_assist(0, 5), "0");
    area = 0x1000;
    value!("area.unmapped", vcpu_op(5, 0, &mut area));
    area = sys::HOLE_START;
    expect_text!("area.hole", vcpu_op(5, 0, &mut area), "-EFAULT");
    expect_text!("area.bad_pointer", Rc(hypercall::raw(sys::nr::VCPU_OP, [5, 0, 0x1000, 0, 0])), "-EFAULT");
    area = page.va();
    expect_text!("area.back", vcpu_op(5, 0, &mut area), "0");
}

fn time_area() {
    let page = alloc_page();
    let mut area = page.va();
    expect_text!("secondary.register", vcpu_op(13, 0, &mut area), "0");
    sleep(2 * MS);
    let (main, copy) = (read_time_info(vcpu_info(0).time_va()), read_time_info(page.va()));
    expect!("secondary.mul", copy.mul == main.mul, true);
    let (a, b) = (copy.at(cpu::rdtsc()), time::now());
    check!("secondary.agrees", b.wrapping_sub(a) < 100 * MS || a.wrapping_sub(b) < 100 * MS);
    expect_text!("secondary.bad_pointer", Rc(hypercall::raw(sys::nr::VCPU_OP, [13, 0, 0x1000, 0, 0])), "-EFAULT");
    check!("secondary.timer_port", rc_of(event::bind_virq(0, 0)).0 == -17);
}
