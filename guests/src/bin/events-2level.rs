//! Event channels with the 2-level structures: binding, delivery, masking, polling, and the errors of every operation.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::Ordering;
use oxen_abi::event_channel::Status;
use oxen_guests::event::{self, op, rc_of};
use oxen_guests::hypercall::{self, Rc};
use oxen_guests::start::{ABSENT_DOMAIN, offsets, shared_word, vcpu_info};
use oxen_guests::sys::{self, DOMID_SELF};
use oxen_guests::time::{self, MS};
use oxen_guests::{check, expect, expect_text, mem, value};

oxen_guests::test_kernel!("events-2level", run);

fn run() {
    hypercall::vcpu_op_null(7, 0);
    let ipi = delivery();
    masking(ipi);
    interdomain();
    virqs();
    errors(ipi);
    status_of_each(ipi);
    polling(ipi);
    many_ports();
    reset();
}

/// bind_ipi, send, upcall.
fn delivery() -> u32 {
    let ipi = match event::bind_ipi(0) {
        Ok(port) => port,
        Err(rc) => oxen_guests::check::abort(format_args!("bind_ipi: {rc}")),
    };
    expect!("first_port", ipi, 1);
    expect_text!("delivery.send_masked", event::send(ipi), "0");
    expect!("delivery.pending", event::is_pending(ipi), true);
    expect!("delivery.selector", vcpu_info(0).pending_sel().load(Ordering::Relaxed), 1);
    expect!("delivery.upcall_pending", vcpu_info(0).upcall_pending(), true);
    expect!("delivery.not_yet", event::upcalls(), 0);
    event::enable_upcalls();
    expect!("delivery.arrived", event::count(ipi), 1);
    expect!("delivery.upcalls", event::upcalls(), 1);
    expect!("delivery.mask_after", vcpu_info(0).upcall_mask(), false);
    expect_text!("delivery.send_enabled", event::send(ipi), "0");
    expect!("delivery.arrived_again", event::count(ipi), 2);
    // Twice before delivery is once.
    event::disable_upcalls();
    event::send(ipi);
    event::send(ipi);
    event::enable_upcalls();
    expect!("delivery.merged", event::count(ipi), 3);
    // The pending flag alone brings an upcall.
    let before = event::upcalls();
    event::disable_upcalls();
    vcpu_info(0).set_upcall_pending(true);
    event::enable_upcalls();
    expect!("delivery.spurious", event::upcalls() - before, 1);
    ipi
}

fn masking(ipi: u32) {
    event::set_masked(ipi, true);
    let before = event::count(ipi);
    expect_text!("mask.send", event::send(ipi), "0");
    expect!("mask.pending", event::is_pending(ipi), true);
    expect!("mask.selector", vcpu_info(0).pending_sel().load(Ordering::Relaxed), 0);
    expect!("mask.held", event::count(ipi) - before, 0);
    expect_text!("mask.unmask", event::unmask(ipi), "0");
    expect!("mask.delivered", event::count(ipi) - before, 1);
    expect_text!("mask.unmask_idle", event::unmask(ipi), "0");
    expect!("mask.nothing_more", event::count(ipi) - before, 1);
    // Clearing the bit oneself delivers nothing until the port becomes pending again.
    event::set_masked(ipi, true);
    event::send(ipi);
    event::set_masked(ipi, false);
    event::enable_upcalls();
    expect!("mask.lost_edge", event::count(ipi) - before, 1);
    event::send(ipi);
    expect!("mask.still_pending_no_edge", event::count(ipi) - before, 1);
    event::clear_pending(ipi);
    event::send(ipi);
    expect!("mask.works_again", event::count(ipi) - before, 2);
}

/// Loopback: an unbound port of this domain for itself.
fn interdomain() {
    let local = event::alloc_unbound(DOMID_SELF, DOMID_SELF);
    expect_text!("loop.alloc", rc_of(local), "0");
    let Ok(local) = local else { return };
    value!("loop.port", local);
    expect_text!("loop.send_unbound", event::send(local), "0");
    expect!("loop.send_unbound_lost", event::is_pending(local), false);
    let remote = event::bind_interdomain(DOMID_SELF, local);
    expect_text!("loop.bind", rc_of(remote), "0");
    let Ok(remote) = remote else { return };
    expect!("loop.first_event", event::count(remote), 1);
    expect!("loop.other_end_quiet", event::count(local), 0);
    event::send(local);
    expect!("loop.to_remote", event::count(remote), 2);
    event::send(remote);
    expect!("loop.to_local", event::count(local), 1);
    expect_text!("loop.bind_again", rc_of(event::bind_interdomain(DOMID_SELF, local)), "-EINVAL");
    expect_text!("loop.close_remote", event::close(remote), "0");
    let (rc, status) = event::status(local);
    expect_text!("loop.status", rc, "0");
    expect!("loop.unbound_again", status.status.0, 1);
    let remote = event::bind_interdomain(0, local);
    expect_text!("loop.rebind_by_number", rc_of(remote), "0");
    expect_text!("loop.close_local", event::close(local), "0");
    expect_text!("loop.close_rest", remote.map_or_else(|rc| rc, event::close), "0");
    expect_text!("loop.close_closed", event::close(local), "-EINVAL");
    let other = event::alloc_unbound(DOMID_SELF, ABSENT_DOMAIN);
    expect_text!("loop.for_absent_domain", rc_of(other), "0");
    if let Ok(port) = other {
        expect_text!("loop.bind_for_other", rc_of(event::bind_interdomain(DOMID_SELF, port)), "-EINVAL");
        expect_text!("loop.close_other", event::close(port), "0");
    }
}

fn virqs() {
    let debug = event::bind_virq(1, 0);
    expect_text!("virq.debug", rc_of(debug), "0");
    expect_text!("virq.debug_again", rc_of(event::bind_virq(1, 0)), "-EEXIST");
    expect_text!("virq.out_of_range", rc_of(event::bind_virq(24, 0)), "-EINVAL");
    expect_text!("virq.huge", rc_of(event::bind_virq(u32::MAX, 0)), "-EINVAL");
    expect_text!("virq.absent_vcpu", rc_of(event::bind_virq(0, 100)), "-ENOENT");
    expect_text!("virq.huge_vcpu", rc_of(event::bind_virq(0, u32::MAX)), "-ENOENT");
    expect_text!("virq.console", rc_of(event::bind_virq(2, 0)), "0");
    expect_text!("virq.global_other_vcpu", rc_of(event::bind_virq(3, 1)), "-EINVAL");
    expect_text!("virq.dom_exc", rc_of(event::bind_virq(3, 0)), "0");
    if let Ok(port) = debug {
        expect_text!("virq.send", event::send(port), "-EINVAL");
        expect_text!("virq.bind_vcpu", event::bind_vcpu(port, 0), "-EINVAL");
        expect_text!("virq.close", event::close(port), "0");
        expect_text!("virq.bind_after_close", rc_of(event::bind_virq(1, 0)), "0");
    }
    let timer = event::bind_virq(0, 0);
    expect_text!("virq.timer", rc_of(timer), "0");
    if let Ok(port) = timer {
        let before = event::count(port);
        hypercall::set_timer_op(time::now() + 2 * MS);
        expect!("virq.timer_fires", time::spin_until(1000 * MS, || event::count(port) != before), true);
        expect_text!("virq.timer_close", event::close(port), "0");
    }
}

fn errors(ipi: u32) {
    let raw = |cmd, arg| Rc(hypercall::raw(sys::nr::EVENT_CHANNEL_OP, [cmd, arg, 0, 0, 0]));
    expect_text!("error.unknown", raw(15, 0), "-ENOSYS");
    expect_text!("error.unknown_large", raw(u64::from(u32::MAX), 0), "-ENOSYS");
    for (name, cmd) in [
        ("error.pointer_0", 0),
        ("error.pointer_1", 1),
        ("error.pointer_2", 2),
        ("error.pointer_3", 3),
        ("error.pointer_4", 4),
        ("error.pointer_5", 5),
        ("error.pointer_6", 6),
        ("error.pointer_7", 7),
        ("error.pointer_8", 8),
        ("error.pointer_9", 9),
        ("error.pointer_10", 10),
        ("error.pointer_11", 11),
        ("error.pointer_12", 12),
        ("error.pointer_13", 13),
    ] {
        expect_text!(name, raw(cmd, 0x1000), "-EFAULT");
        expect_text!("error.pointer_in_hole", raw(cmd, sys::HOLE_START + 0x1000), "-EFAULT");
    }
    for (name, port) in [("error.port_zero", 0), ("error.port_closed", 40), ("error.port_4096", 4096), ("error.port_huge", u32::MAX)] {
        value!(name, format_args!(
            "send {} close {} unmask {} bind_vcpu {} priority {} status {}",
            event::send(port),
            event::close(port),
            event::unmask(port),
            event::bind_vcpu(port, 0),
            event::set_priority(port, 7),
            event::status(port).0
        ));
    }
    expect_text!("error.ipi_absent_vcpu", rc_of(event::bind_ipi(100)), "-ENOENT");
    expect_text!("error.ipi_huge_vcpu", rc_of(event::bind_ipi(u32::MAX)), "-ENOENT");
    expect_text!("error.ipi_rebind", event::bind_vcpu(ipi, 0), "-EINVAL");
    expect_text!("error.bind_vcpu_absent", event::bind_vcpu(ipi, 100), "-ENOENT");
    expect_text!("error.priority_2level", event::set_priority(ipi, 3), "-ENOSYS");
    expect_text!("error.expand_2level", oxen_guests::fifo::expand_array(mem::alloc_page().mfn()), "-EOPNOTSUPP");
    expect_text!("error.alloc_absent", rc_of(event::alloc_unbound(ABSENT_DOMAIN, DOMID_SELF)), "-ESRCH");
    expect_text!("error.bind_absent_domain", rc_of(event::bind_interdomain(ABSENT_DOMAIN, 1)), "-ESRCH");
    expect_text!("error.bind_huge_port", rc_of(event::bind_interdomain(DOMID_SELF, u32::MAX)), "-EINVAL");
    expect_text!("error.bind_ipi_as_remote", rc_of(event::bind_interdomain(DOMID_SELF, ipi)), "-EINVAL");
    let mut status = Status { dom: ABSENT_DOMAIN, port: 1, ..Status::default() };
    expect_text!("error.status_absent", hypercall::event_channel_op(op::STATUS, &mut status), "-ESRCH");
    let mut domain = u64::from(ABSENT_DOMAIN);
    expect_text!("error.reset_absent", hypercall::event_channel_op(op::RESET, &mut domain), "-ESRCH");
    expect_text!("error.pirq_huge", rc_of(event::bind_pirq(u32::MAX, 0)), "-EINVAL");
    value!("error.pirq_unmapped", rc_of(event::bind_pirq(200, 0)));
}

fn status_of_each(ipi: u32) {
    let show = |name: &str, port: u32| {
        let (rc, status) = event::status(port);
        value!(name, format_args!("{rc} status {} vcpu {}", status.status.0, status.vcpu));
    };
    show("status.closed", 40);
    show("status.ipi", ipi);
    if let Ok(port) = event::alloc_unbound(DOMID_SELF, DOMID_SELF) {
        show("status.unbound", port);
        value!("status.unbound_remote", event::status(port).1.u[0] & 0xffff);
        if let Ok(other) = event::bind_interdomain(DOMID_SELF, port) {
            show("status.interdomain", port);
            expect!("status.interdomain_port", event::status(port).1.u[1], other);
            expect_text!("status.move", event::bind_vcpu(port, 1), "0");
            show("status.moved", port);
            check!("status.close", event::close(other).is_ok());
        }
        check!("status.close", event::close(port).is_ok());
    }
    if let Ok(port) = event::bind_virq(9, 0) {
        show("status.virq", port);
        value!("status.virq_number", event::status(port).1.u[0]);
        check!("status.close", event::close(port).is_ok());
    }
}

/// xen's sched_poll.
#[repr(C)]
struct Poll {
    ports: u64,
    nr_ports: u32,
    pad: u32,
    timeout_ns: u64,
}

fn polling(ipi: u32) {
    event::disable_upcalls();
    let mut ports = [ipi];
    let handle = hypercall::handle(&mut ports);
    let poll = |ports, nr_ports, timeout_ns| {
        hypercall::sched_op(3, &mut Poll { ports, nr_ports, pad: 0, timeout_ns })
    };
    event::send(ipi);
    expect_text!("poll.pending", poll(handle, 1, 0), "0");
    expect!("poll.still_pending", event::is_pending(ipi), true);
    event::clear_pending(ipi);
    vcpu_info(0).set_upcall_pending(false);
    vcpu_info(0).pending_sel().store(0, Ordering::Relaxed);
    let start = time::now();
    expect_text!("poll.timeout", poll(handle, 1, start + 5 * MS), "0");
    expect!("poll.waited", time::now() >= start + 5 * MS, true);
    expect_text!("poll.past", poll(handle, 1, 1), "0");
    expect_text!("poll.no_ports", poll(handle, 0, time::now() + MS), "0");
    expect_text!("poll.too_many", poll(handle, 129, 0), "-EINVAL");
    expect_text!("poll.bad_pointer", poll(0x1000, 1, 0), "-EFAULT");
    let mut bad = [70_000_u32];
    expect_text!("poll.bad_port", poll(hypercall::handle(&mut bad), 1, time::now() + MS), "-EINVAL");
    event::enable_upcalls();
}

/// Ports beyond the first words.
fn many_ports() {
    let mut last = 0;
    while last < 300 {
        match event::alloc_unbound(DOMID_SELF, DOMID_SELF) {
            Ok(port) => last = port,
            Err(rc) => {
                value!("many.error", rc);
                return oxen_guests::check::fail("many");
            }
        }
    }
    expect!("many.last", last, 300);
    check!("many.close", event::close(200).is_ok());
    let freed = event::bind_interdomain(DOMID_SELF, 255);
    expect_text!("many.bind", rc_of(freed), "0");
    expect!("many.lowest_free", freed.unwrap_or(0), 200);
    event::send(200);
    expect!("many.delivered", event::count(255), 1);
}

fn reset() {
    let mut domain = DOMID_SELF;
    expect_text!("reset", hypercall::event_channel_op(op::RESET, &mut domain), "0");
    expect!("reset.closed", event::status(255).1.status.0, 0);
    expect!("reset.port", event::bind_ipi(0).unwrap_or(0), 1);
    event::send(1);
    let pending = shared_word(offsets::EVTCHN_PENDING).load(Ordering::Relaxed);
    expect!("reset.works", pending & 2 == 0 && event::count(1) > 0, true);
}
