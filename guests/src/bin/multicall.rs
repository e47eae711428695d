//! multicall, callback_op, sched_op, vm_assist, nmi_op and the older forms of calls.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::event;
use oxen_guests::hypercall::{self, Rc, handle, sched_op};
use oxen_guests::mem::alloc_page;
use oxen_guests::start::ABSENT_DOMAIN;
use oxen_guests::sys::{self, nr};
use oxen_guests::time::{self, MS};
use oxen_guests::{check, expect, expect_text, trap, value};

oxen_guests::test_kernel!("multicall", run);

/// multicall_entry.
#[derive(Clone, Copy)]
#[repr(C)]
struct Entry {
    op: u64,
    result: i64,
    args: [u64; 6],
}

fn entry(op: u64, args: [u64; 6]) -> Entry {
    Entry { op, result: 77, args }
}

fn multicall(list: &mut [Entry]) -> Rc {
    Rc(hypercall::raw(nr::MULTICALL, [handle(list), list.len() as u64, 0, 0, 0]))
}

fn run() {
    hypercall::vcpu_op_null(7, 0);
    batches();
    callbacks();
    scheduling();
    assists();
    nmi();
    old_forms();
}

fn batches() {
    expect_text!("multicall.none", multicall(&mut []), "0");
    let version = entry(nr::XEN_VERSION, [0; 6]);
    let mut list = [version; 3];
    expect_text!("multicall.three", multicall(&mut list), "0");
    expect!("multicall.results", list.iter().filter(|e| e.result == 0x4_0011).count(), 3);
    // A failing call does not stop the others; an unknown one is -ENOSYS.
    let mut list = [version, entry(nr::XEN_VERSION, [99, 0, 0, 0, 0, 0]), entry(99, [0; 6]), entry(u64::MAX, [0; 6]), version];
    expect_text!("multicall.mixed", multicall(&mut list), "0");
    for e in &list {
        value!("multicall.mixed_result", Rc(e.result));
    }
    // A large batch is done in steps, each call once.
    let page = alloc_page();
    let mut list = [version; 512];
    for (index, e) in list.iter_mut().enumerate() {
        // update_va_mapping alternates the mapping of one page.
        let flags = if index % 2 == 0 { oxen_guests::mem::RO_PAGE } else { oxen_guests::mem::RW_PAGE };
        *e = entry(nr::UPDATE_VA_MAPPING, [page.va(), page.pte(flags), sys::UVMF_INVLPG, 0, 0, 0]);
    }
    expect_text!("multicall.large", multicall(&mut list), "0");
    expect!("multicall.large_results", list.iter().filter(|e| e.result == 0).count(), 512);
    page.write(0, 1);
    // Five arguments arrive.
    let mut done = 0_u32;
    let mut request = sys::MmuUpdate { ptr: page.maddr(), val: 0x99 };
    let mut list = [entry(nr::MMU_UPDATE, [handle(&mut request), 1, handle(&mut done), sys::DOMID_SELF.into(), 0, 0])];
    expect_text!("multicall.arguments", multicall(&mut list), "0");
    expect!("multicall.arguments_result", list[0].result, 0);
    expect!("multicall.arguments_done", done, 1);
    expect!("multicall.arguments_effect", page.read(0), 0x99);
    // Nested.
    let mut inner = [version];
    let mut list = [entry(nr::MULTICALL, [handle(&mut inner), 1, 0, 0, 0, 0]), version];
    let rc = multicall(&mut list);
    value!("multicall.nested", format_args!("{rc} {} {} {}", Rc(list[0].result), list[1].result, inner[0].result));
    let raw = |list, count| Rc(hypercall::raw(nr::MULTICALL, [list, count, 0, 0, 0]));
    expect_text!("multicall.bad_pointer", raw(0x1000, 1), "-EFAULT");
    expect_text!("multicall.hole", raw(sys::HOLE_START, 1), "-EFAULT");
    expect_text!("multicall.bad_pointer_none", raw(0x1000, 0), "0");
    value!("multicall.huge_count", raw(0x1000, 0xffff_ffff));
    // A list that runs off its page: the first call happens.
    let pages = [alloc_page(), alloc_page()];
    check!("multicall.unmap", pages[1].va() == pages[0].va() + 4096 && pages[1].unmap().is_ok());
    pages[0].write(504, nr::XEN_VERSION);
    let rc = raw(pages[0].va() + 4096 - 64, 2);
    value!("multicall.crossing", format_args!("{rc} {:#x}", pages[0].read(505)));
    check!("multicall.restore", pages[1].make_writable().is_ok());
    // A read-only list cannot take its results.
    pages[0].write(505, 0);
    check!("multicall.read_only", pages[0].make_read_only().is_ok());
    value!("multicall.read_only_list", raw(pages[0].va() + 4096 - 64, 1));
    // iret and block have no place in a batch, but must do no harm.
    let mut nothing = 0_u32;
    let mut list = [entry(nr::SCHED_OP, [0, handle(&mut nothing), 0, 0, 0, 0]), version];
    expect_text!("multicall.yield", multicall(&mut list), "0");
    expect!("multicall.after_yield", list[1].result, 0x4_0011);
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
    for (name, cmd) in [("sched.pointer_shutdown", 2), ("sched.pointer_poll", 3), ("sched.pointer_remote", 4), ("sched.pointer_code", 5), ("sched.pointer_watchdog", 6), ("sched.pointer_pin", 7)] {
        expect_text!(name, raw(cmd, 0x1000), "-EFAULT");
    }
    expect_text!("sched.remote_absent", sched_op(4, &mut [u32::from(ABSENT_DOMAIN), 0]), "-ESRCH");
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

/// Calls that only old kernels make.
fn old_forms() {
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
    value!("sched_op_compat.yield", raw(nr::SCHED_OP_COMPAT, [0; 5]));
    value!("sched_op_compat.unknown", raw(nr::SCHED_OP_COMPAT, [9, 0, 0, 0, 0]));
    // The old event call: a command and the union in one structure.
    let mut arg = [event::op::SEND as u32, port, 0, 0, 0, 0, 0, 0];
    value!("event_channel_op_compat.send", raw(nr::EVENT_CHANNEL_OP_COMPAT, [handle(&mut arg), 0, 0, 0, 0]));
    value!("event_channel_op_compat.count", event::count(port));
    let mut arg = [6_u32, 1, 0, 0];
    value!("physdev_op_compat.set_iopl", raw(nr::PHYSDEV_OP_COMPAT, [handle(&mut arg), 0, 0, 0, 0]));
    expect_text!("stack_switch", hypercall::stack_switch(0, 0), "0");
}
