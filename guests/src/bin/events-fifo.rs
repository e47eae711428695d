//! Event channels with the FIFO structures: set-up, queues, priorities, masking.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::Ordering;
use oxen_guests::event::{self, op, rc_of};
use oxen_abi::event_channel::InitControl;
use oxen_guests::fifo::{self, LINKED, MASKED, PENDING};
use oxen_guests::mem::{self, alloc_page};
use oxen_guests::start::vcpu_info;
use oxen_guests::sys::DOMID_SELF;
use oxen_guests::time::{self, MS};
use oxen_guests::{check, expect, expect_text, hypercall, value};

oxen_guests::test_kernel!("events-fifo", run);

fn run() {
    hypercall::vcpu_op_null(7, 0);
    let early = event::bind_ipi(0).unwrap_or(0);
    set_up();
    let ipi = single(early);
    masking(ipi);
    order();
    priorities();
    timer();
    before_page_exists();
    reset(ipi);
}

fn set_up() {
    let page = alloc_page();
    let control = |control_gfn, offset, vcpu| {
        let mut arg = InitControl { control_gfn, offset, vcpu, ..InitControl::default() };
        (fifo::init_control(&mut arg), arg.link_bits)
    };
    expect_text!("init.absent_vcpu", control(page.mfn(), 0, 100).0, "-ENOENT");
    expect_text!("init.offset_unaligned", control(page.mfn(), 4, 0).0, "-EINVAL");
    expect_text!("init.offset_too_high", control(page.mfn(), 4096 - 64, 0).0, "-EINVAL");
    expect_text!("init.offset_huge", control(page.mfn(), u32::MAX - 7, 0).0, "-EINVAL");
    expect_text!("init.beyond_memory", control(0xff_ffff_ffff, 0, 0).0, "-EINVAL");
    expect_text!("init.page_table", control(mem::l4_maddr() / 4096, 0, 0).0, "-EINVAL");
    expect_text!("init.expand_before", fifo::expand_array(page.mfn()), "-EOPNOTSUPP");
    expect_text!("init.first", fifo::add_vcpu(0), "0");
    let (rc, _) = control(page.mfn(), 0, 0);
    expect_text!("init.twice", rc, "-EINVAL");
    let (rc, link_bits) = control(page.mfn(), 4096 - 72, 1);
    expect_text!("init.second_vcpu", rc, "0");
    expect!("init.link_bits", link_bits, 17);
    expect_text!("expand.beyond_memory", fifo::expand_array(0xff_ffff_ffff), "-EINVAL");
    expect_text!("expand.page_table", fifo::expand_array(mem::l4_maddr() / 4096), "-EINVAL");
}

/// One event, that was sent before its page existed.
fn single(early: u32) -> u32 {
    expect_text!("early.send", event::send(early), "0");
    let (rc, page) = fifo::add_first_array_page();
    expect_text!("expand.first", rc, "0");
    // The page is the hypervisor's too: it cannot become a page table, but stays writable.
    expect_text!("expand.stays_writable", page.make_writable(), "0");
    value!("early.word", format_args!("{:#x}", fifo::word(early).load(Ordering::Relaxed)));
    event::enable_upcalls();
    expect!("early.masked", event::count(early), 0);
    expect_text!("early.unmask", fifo::unmask(early), "0");
    value!("early.delivered", event::count(early));
    let before = event::count(early);
    expect_text!("single.send", event::send(early), "0");
    expect!("single.arrived", event::count(early) - before, 1);
    value!("single.word", format_args!("{:#x}", fifo::word(early).load(Ordering::Relaxed)));
    expect!("single.selector_unused", vcpu_info(0).pending_sel().load(Ordering::Relaxed), 0);
    early
}

fn masking(ipi: u32) {
    let before = event::count(ipi);
    fifo::word(ipi).fetch_or(MASKED, Ordering::AcqRel);
    event::send(ipi);
    expect!("mask.word", fifo::word(ipi).load(Ordering::Relaxed), PENDING | MASKED);
    expect!("mask.held", event::count(ipi) - before, 0);
    expect_text!("mask.unmask", fifo::unmask(ipi), "0");
    expect!("mask.delivered", event::count(ipi) - before, 1);
    // Held back by the upcall mask instead: linked, but not taken.
    event::disable_upcalls();
    event::send(ipi);
    expect!("linked.word", fifo::word(ipi).load(Ordering::Relaxed), PENDING | LINKED);
    expect!("linked.ready", fifo::ready(0).load(Ordering::Relaxed), 1 << 7);
    expect!("linked.upcall_pending", vcpu_info(0).upcall_pending(), true);
    event::enable_upcalls();
    expect!("linked.delivered", event::count(ipi) - before, 2);
}

fn new_ipi() -> u32 {
    let port = event::bind_ipi(0).unwrap_or(0);
    check!("new_ipi", fifo::unmask(port).is_ok());
    port
}

/// Events of one priority arrive in the order of sending.
fn order() {
    let ports = [new_ipi(), new_ipi(), new_ipi(), new_ipi()];
    event::disable_upcalls();
    event::clear_log();
    for index in [2, 0, 3, 1, 0, 2] {
        event::send(ports[index]);
    }
    expect!("order.first_links", fifo::word(ports[2]).load(Ordering::Relaxed), PENDING | LINKED | ports[0]);
    expect!("order.last_does_not", fifo::word(ports[1]).load(Ordering::Relaxed), PENDING | LINKED);
    event::enable_upcalls();
    expect!("order.count", event::logged_count(), 4);
    for (position, index) in [2, 0, 3, 1].into_iter().enumerate() {
        expect!("order.as_sent", event::logged(position) == Some(ports[index]), true);
    }
}

fn priorities() {
    let (low, high, middle) = (new_ipi(), new_ipi(), new_ipi());
    expect_text!("priority.set_low", event::set_priority(low, 15), "0");
    expect_text!("priority.set_high", event::set_priority(high, 0), "0");
    expect_text!("priority.too_large", event::set_priority(high, 16), "-EINVAL");
    event::disable_upcalls();
    event::clear_log();
    event::send(low);
    event::send(middle);
    event::send(high);
    expect!("priority.ready", fifo::ready(0).load(Ordering::Relaxed), 1 | 1 << 7 | 1 << 15);
    event::enable_upcalls();
    expect!("priority.first", event::logged(0) == Some(high), true);
    expect!("priority.second", event::logged(1) == Some(middle), true);
    expect!("priority.third", event::logged(2) == Some(low), true);
    // A change while linked takes effect with the next event.
    event::disable_upcalls();
    event::clear_log();
    event::send(low);
    check!("priority.raise", event::set_priority(low, 1).is_ok());
    event::send(middle);
    event::enable_upcalls();
    expect!("priority.old_queue", event::logged(0) == Some(middle), true);
    event::disable_upcalls();
    event::clear_log();
    event::send(middle);
    event::send(low);
    event::enable_upcalls();
    expect!("priority.new_queue", event::logged(0) == Some(low), true);
}

/// A port whose word lies in the second page.
fn before_page_exists() {
    let mut last = 0;
    while last < 1030 {
        match event::alloc_unbound(DOMID_SELF, DOMID_SELF) {
            Ok(port) => last = port,
            Err(rc) => {
                value!("second.alloc", rc);
                break;
            }
        }
    }
    expect!("second.reached", last, 1030);
    let page = alloc_page();
    expect_text!("second.expand", fifo::expand_array(page.mfn()), "0");
    // Port 1029 is word 5 of the second page: unmasked because the page is zero. The upcall only knows the first page.
    event::disable_upcalls();
    let remote = event::bind_interdomain(DOMID_SELF, 1029);
    expect_text!("second.bind", rc_of(remote), "0");
    check!("second.send", event::send(remote.unwrap_or(0)).is_ok());
    expect!("second.word", page.read(2) >> 32, u64::from(PENDING | LINKED));
}

fn timer() {
    let Ok(port) = event::bind_virq(0, 0) else { return oxen_guests::check::fail("timer.bind") };
    hypercall::set_timer_op(time::now() + MS);
    // The word starts masked, like the whole page.
    expect!("timer.pending", time::spin_until(1000 * MS, || fifo::word(port).load(Ordering::Relaxed) & PENDING != 0), true);
    expect!("timer.masked", event::count(port), 0);
    expect_text!("timer.unmask", fifo::unmask(port), "0");
    expect!("timer.delivered", event::count(port), 1);
    check!("timer.close", event::close(port).is_ok());
}

fn reset(ipi: u32) {
    let mut domain = DOMID_SELF;
    expect_text!("reset", hypercall::event_channel_op(op::RESET, &mut domain), "0");
    expect!("reset.closed", event::status(ipi).1.status.0, 0);
    // Back to the 2-level structures.
    expect_text!("reset.no_expand", fifo::expand_array(alloc_page().mfn()), "-EOPNOTSUPP");
    let port = event::bind_ipi(0).unwrap_or(0);
    event::send(port);
    expect!("reset.two_level", event::is_pending(port), true);
    event::clear_pending(port);
    expect_text!("reset.init_again", fifo::add_vcpu(0), "0");
}
