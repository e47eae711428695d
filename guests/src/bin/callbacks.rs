//! callback_op, nmi_op, set_callbacks, sched_op and vm_assist.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::event;
use oxen_guests::hypercall::{self, Rc, handle, sched_op};
use oxen_guests::start::ABSENT_DOMAIN;
use oxen_guests::sys::nr;
use oxen_guests::time::{self, MS};
use oxen_guests::{check, expect, expect_text, trap, value};

oxen_guests::test_kernel!("callbacks", run);

fn run() {
    hypercall::vcpu_op_null(7, 0);
    callbacks();
    scheduling();
    assists();
    nmi();
    all_at_once();
}

fn callbacks() {
    let register = |kind: u16, flags: u16, address: u64| hypercall::register_callback(kind, flags, address);
    let stub = trap::callback_address(trap::EVENT);
    expect_text!("callback.event", register(0, 1, stub), "0");
    expect_text!("callback.failsafe", register(1, 1, trap::callback_address(trap::FAILSAFE)), "0");
    expect_text!("callback.syscall", register(2, 1, trap::callback_address(trap::SYSCALL)), "0");
    value!("callback.sysenter_deprecated", register(3, 1, stub));
    expect_text!("callback.nmi", register(4, 1, trap::callback_address(trap::NMI)), "0");
    expect_text!("callback.sysenter", register(5, 1, trap::callback_address(trap::SYSENTER)), "0");
    value!("callback.unknown_6", register(6, 1, stub));
    expect_text!("callback.syscall32", register(7, 1, trap::callback_address(trap::SYSCALL32)), "0");
    value!("callback.unknown_8", register(8, 1, stub));
    for (name, kind) in [("callback.non_canonical_event", 0), ("callback.non_canonical_failsafe", 1), ("callback.non_canonical_syscall", 2), ("callback.non_canonical_nmi", 4)] {
        expect_text!(name, register(kind, 1, 1 << 63), "-EINVAL");
    }
    value!("callback.unknown_flags", register(2, 0xfe, trap::callback_address(trap::SYSCALL)));
    let unregister = |kind: u16| {
        let mut arg = kind;
        Rc(hypercall::raw(nr::CALLBACK_OP, [1, handle(&mut arg), 0, 0, 0]))
    };
    for (name, kind) in [
        ("callback.unregister_event", 0),
        ("callback.unregister_failsafe", 1),
        ("callback.unregister_syscall", 2),
        ("callback.unregister_nmi", 4),
        ("callback.unregister_sysenter", 5),
        ("callback.unregister_unknown", 99),
    ] {
        value!(name, unregister(kind));
    }
    let raw = |cmd, arg| Rc(hypercall::raw(nr::CALLBACK_OP, [cmd, arg, 0, 0, 0]));
    expect_text!("callback.bad_pointer", raw(0, 0x1000), "-EFAULT");
    expect_text!("callback.bad_pointer_unregister", raw(1, 0x1000), "-EFAULT");
    expect_text!("callback.unknown", raw(2, 0), "-ENOSYS");
}

fn scheduling() {
    let mut nothing = 0_u32;
    expect_text!("sched.yield", sched_op(0, &mut nothing), "0");
    let raw = |cmd, arg| Rc(hypercall::raw(nr::SCHED_OP, [cmd, arg, 0, 0, 0]));
    expect_text!("sched.yield_null", raw(0, 0), "0");
    expect_text!("sched.unknown", raw(8, 0), "-ENOSYS");
    expect_text!("sched.unknown_huge", raw(0xffff_ffff, 0), "-ENOSYS");
    for (name, cmd) in [("sched.pointer_shutdown", 2), ("sched.pointer_poll", 3), ("sched.pointer_remote", 4)] {
        expect_text!(name, raw(cmd, 0x1000), "-EFAULT");
    }
    expect_text!("sched.remote_absent", sched_op(4, &mut [u32::from(ABSENT_DOMAIN), 0]), "-ESRCH");
}

fn assists() {
    for (name, kind) in [
        ("assist.4gb_segments", 0),
        ("assist.4gb_segments_notify", 1),
        ("assist.writable_pagetables", 2),
        ("assist.pae_extended_cr3", 3),
        ("assist.architectural_iopl", 4),
        ("assist.runstate_update_flag", 5),
        ("assist.6", 6),
        ("assist.m2p_strict", 32),
        ("assist.33", 33),
        ("assist.64", 64),
        ("assist.huge", 0xffff_ffff),
    ] {
        value!(name, format_args!("{} {}", hypercall::vm_assist(0, kind), hypercall::vm_assist(1, kind)));
    }
    expect_text!("assist.unknown_command", hypercall::vm_assist(5, 0), "-ENOSYS");
    check!("assist.writable_again", hypercall::vm_assist(0, 2).is_ok());
}

fn nmi() {
    let register = |address: u64| Rc(hypercall::raw(nr::NMI_OP, [0, handle(&mut [address, 0]), 0, 0, 0]));
    expect_text!("nmi.register", register(trap::callback_address(trap::NMI)), "0");
    expect_text!("nmi.register_non_canonical", register(1 << 63), "-EINVAL");
    expect_text!("nmi.bad_pointer", Rc(hypercall::raw(nr::NMI_OP, [0, 0x1000, 0, 0, 0])), "-EFAULT");
    expect_text!("nmi.unregister", Rc(hypercall::raw(nr::NMI_OP, [1, 0, 0, 0, 0])), "0");
    expect_text!("nmi.unknown", Rc(hypercall::raw(nr::NMI_OP, [2, 0, 0, 0, 0])), "-ENOSYS");
    // An NMI to oneself comes at the next return to the kernel.
    static SEEN: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);
    fn count(_: &mut trap::Frame) {
        SEEN.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
    }
    trap::set_hook(trap::NMI, Some(count));
    trap::set_hook(2, Some(count));
    check!("nmi.register_again", register(trap::callback_address(trap::NMI)).is_ok());
    value!("nmi.send", hypercall::vcpu_op_null(11, 0));
    time::spin_until(10 * MS, || SEEN.load(core::sync::atomic::Ordering::Relaxed) != 0);
    value!("nmi.seen", SEEN.load(core::sync::atomic::Ordering::Relaxed));
    trap::set_hook(trap::NMI, None);
    trap::set_hook(2, None);
}

/// The older form that sets three callbacks.
fn all_at_once() {
    let raw = |number, args| Rc(hypercall::raw(number, args));
    let event = trap::callback_address(trap::EVENT);
    let failsafe = trap::callback_address(trap::FAILSAFE);
    let syscall = trap::callback_address(trap::SYSCALL);
    expect_text!("set_callbacks", raw(nr::SET_CALLBACKS, [event, failsafe, syscall, 0, 0]), "0");
    expect_text!("set_callbacks.non_canonical", raw(nr::SET_CALLBACKS, [1 << 63, failsafe, syscall, 0, 0]), "0");
    let Ok(port) = event::bind_ipi(0) else { return oxen_guests::check::fail("bind_ipi") };
    event::enable_upcalls();
    event::send(port);
    expect!("set_callbacks.works", event::count(port), 1);
    expect_text!("stack_switch", hypercall::stack_switch(0, 0), "0");
}
