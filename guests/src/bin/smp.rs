//! Several vCPUs: bring-up, inter-vCPU events, down and up again, and the errors of vcpu_op.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use oxen_guests::event::{self, rc_of};
use oxen_guests::hypercall::{self, Rc, vcpu_op, vcpu_op_null};
use oxen_guests::mem::{self, PAGE, Page, alloc_page, alloc_pages};
use oxen_guests::start::{self, vcpu_info};
use oxen_guests::sys;
use oxen_guests::time::{self, MS, now, spin_until};
use oxen_guests::vcpu::{self, Context};
use oxen_guests::{check, cpu, expect, expect_text, value};

oxen_guests::test_kernel!("smp", run);

/// vCPUs of the domain (`dom0_max_vcpus=4`).
const VCPUS: usize = 4;

const INITIALISE: u64 = 0;
const UP: u64 = 1;
const DOWN: u64 = 2;
const IS_UP: u64 = 3;
const REGISTER_VCPU_INFO: u64 = 10;

/// How far each vCPU came: 1 entered, 2 took an event.
static STAGE: [AtomicU32; VCPUS] = [const { AtomicU32::new(0) }; VCPUS];
static ENTRIES: [AtomicU32; VCPUS] = [const { AtomicU32::new(0) }; VCPUS];
/// What a secondary is to do next: 0 wait, 1 send to `REPLY_PORT`, 2 go down.
static ORDER: [AtomicU32; VCPUS] = [const { AtomicU32::new(0) }; VCPUS];
static REPLY_PORT: AtomicU32 = AtomicU32::new(0);
static LAST_TIME: AtomicU64 = AtomicU64::new(0);
static BACKWARDS: AtomicU32 = AtomicU32::new(0);
static DOWN_RESULT: AtomicU64 = AtomicU64::new(u64::MAX);

fn run() {
    vcpu_op_null(7, 0);
    vcpu::install_number(0);
    errors();
    bring_up();
    events_between();
    clocks();
    down_and_up();
    vcpu_info_placement();
}

fn errors() {
    expect_text!("is_up.0", vcpu_op_null(IS_UP, 0), "1");
    expect_text!("is_up.1", vcpu_op_null(IS_UP, 1), "0");
    expect_text!("is_up.3", vcpu_op_null(IS_UP, 3), "0");
    expect_text!("is_up.4", vcpu_op_null(IS_UP, 4), "-ENOENT");
    expect_text!("is_up.8191", vcpu_op_null(IS_UP, 8191), "-ENOENT");
    expect_text!("is_up.huge", vcpu_op_null(IS_UP, u64::MAX), "-ENOENT");
    expect_text!("unknown", vcpu_op_null(99, 0), "-ENOSYS");
    expect_text!("unknown_absent", vcpu_op_null(99, 100), "-ENOENT");
    expect_text!("up.uninitialised", vcpu_op_null(UP, 1), "-EINVAL");
    expect_text!("initialise.0", vcpu_op(INITIALISE, 0, &mut *context(1)), "-EEXIST");
    expect_text!("initialise.bad_pointer", Rc(hypercall::raw(sys::nr::VCPU_OP, [INITIALISE, 1, 0x1000, 0, 0])), "-EFAULT");
    let try_with = |change: fn(&mut Context)| {
        let context = context(1);
        change(context);
        vcpu_op(INITIALISE, 1, &mut *context)
    };
    expect_text!("initialise.cr3_zero", try_with(|c| c.ctrlreg[3] = 0), "-EINVAL");
    expect_text!("initialise.cr3_data", try_with(|c| c.ctrlreg[3] = alloc_page().maddr()), "-EINVAL");
    expect_text!("initialise.rip", try_with(|c| c.user_regs.rip = 1 << 63), "-EINVAL");
    expect_text!("initialise.event_callback", try_with(|c| c.event_callback_eip = 1 << 63), "-EINVAL");
    expect_text!("initialise.syscall_callback", try_with(|c| c.syscall_callback_eip = 1 << 63), "-EINVAL");
    expect_text!("initialise.fs_base", try_with(|c| c.fs_base = 1 << 63), "-EINVAL");
    expect_text!("initialise.kernel_gs_base", try_with(|c| c.gs_base_kernel = 1 << 63), "-EINVAL");
    expect_text!("initialise.gdt_entries", try_with(|c| c.gdt_ents = 7169), "-EINVAL");
    expect_text!("initialise.gdt_frame", try_with(|c| { c.gdt_ents = 16; c.gdt_frames[0] = mem::l4_maddr() / PAGE; }), "-EINVAL");
    expect_text!("initialise.ldt_entries", try_with(|c| c.ldt_ents = 8193), "-EINVAL");
    expect_text!("initialise.ldt_base", try_with(|c| { c.ldt_ents = 1; c.ldt_base = 8; }), "-EINVAL");
    expect_text!("is_up.still_down", vcpu_op_null(IS_UP, 1), "0");
    value!("send_nmi.argument", vcpu_op(11, 0, &mut 0_u64));
}

/// A context that enters `secondary` with events masked.
fn context(vcpu: usize) -> &'static mut Context {
    vcpu::kernel_context(vcpu, secondary as *const () as u64)
}

extern "C" fn secondary(vcpu: u64) -> ! {
    let index = vcpu as usize;
    ENTRIES[index].fetch_add(1, Ordering::AcqRel);
    STAGE[index].store(1, Ordering::Release);
    let info = vcpu_info(index);
    let mut nothing = 0_u32;
    // A new vCPU starts with the periodic timer; stop it or it wakes for nothing.
    vcpu_op_null(7, vcpu);
    info.set_upcall_mask(false);
    loop {
        match ORDER[index].swap(0, Ordering::AcqRel) {
            1 => {
                event::send(REPLY_PORT.load(Ordering::Acquire));
            }
            2 => {
                let result = vcpu_op_null(DOWN, vcpu);
                DOWN_RESULT.store(result.0 as u64, Ordering::Release);
                // Here again after UP.
                ENTRIES[index].fetch_add(1, Ordering::AcqRel);
            }
            3 => {
                for _ in 0..200 {
                    let before = LAST_TIME.load(Ordering::Acquire);
                    let time = time::now_on(index);
                    if time < before {
                        BACKWARDS.fetch_add(1, Ordering::Relaxed);
                    }
                    LAST_TIME.fetch_max(time, Ordering::AcqRel);
                }
                STAGE[index].store(3, Ordering::Release);
            }
            _ => {
                hypercall::sched_op(0, &mut nothing);
                cpu::relax();
            }
        }
    }
}

/// Lets the others run until `done`.
fn wait(mut done: impl FnMut() -> bool) -> bool {
    let mut nothing = 0_u32;
    spin_until(5000 * MS, || {
        hypercall::sched_op(0, &mut nothing);
        done()
    })
}

fn bring_up() {
    for (vcpu, stage) in STAGE.iter().enumerate().skip(1) {
        expect_text!("bring_up.initialise", vcpu_op(INITIALISE, vcpu as u64, &mut *context(vcpu)), "0");
        expect_text!("bring_up.initialise_again", vcpu_op(INITIALISE, vcpu as u64, &mut *context(vcpu)), "-EEXIST");
        expect_text!("bring_up.down_until_up", vcpu_op_null(IS_UP, vcpu as u64), "0");
        expect!("bring_up.not_entered", stage.load(Ordering::Acquire), 0);
        expect_text!("bring_up.up", vcpu_op_null(UP, vcpu as u64), "0");
        expect_text!("bring_up.is_up", vcpu_op_null(IS_UP, vcpu as u64), "1");
        expect_text!("bring_up.up_again", vcpu_op_null(UP, vcpu as u64), "0");
        expect!("bring_up.entered", wait(|| stage.load(Ordering::Acquire) == 1), true);
    }
}

fn events_between() {
    let Ok(reply) = event::bind_ipi(0) else { return oxen_guests::check::fail("reply port") };
    REPLY_PORT.store(reply, Ordering::Release);
    event::enable_upcalls();
    for (vcpu, order) in ORDER.iter().enumerate().skip(1) {
        let port = event::bind_ipi(vcpu as u32);
        expect_text!("ipi.bind", rc_of(port), "0");
        let Ok(port) = port else { return };
        expect_text!("ipi.send", event::send(port), "0");
        expect!("ipi.taken", wait(|| event::count(port) == 1), true);
        let before = event::count(reply);
        order.store(1, Ordering::Release);
        expect!("ipi.reply", wait(|| event::count(reply) > before), true);
        // An event channel moved to the other vCPU is taken there.
        if let Ok(local) = event::alloc_unbound(sys::DOMID_SELF, sys::DOMID_SELF) {
            expect_text!("ipi.move", event::bind_vcpu(local, vcpu as u32), "0");
            let remote = event::bind_interdomain(sys::DOMID_SELF, local).unwrap_or(0);
            event::disable_upcalls();
            event::send(remote);
            expect!("ipi.moved_taken", wait(|| event::count(local) > 0), true);
            event::enable_upcalls();
        }
    }
    expect_text!("virq.other_vcpu", rc_of(event::bind_virq(0, 1)), "0");
    expect_text!("virq.other_vcpu_again", rc_of(event::bind_virq(0, 1)), "-EEXIST");
}

/// System time is one clock for all vCPUs.
fn clocks() {
    for order in &ORDER[1..] {
        order.store(3, Ordering::Release);
    }
    let finished = wait(|| {
        LAST_TIME.fetch_max(now(), Ordering::AcqRel);
        STAGE[1..].iter().all(|stage| stage.load(Ordering::Acquire) == 3)
    });
    expect!("clocks.finished", finished, true);
    // Not compared: how well an emulator's processors agree differs from run to run.
    oxen_guests::say!("NOTE clocks.backwards: {} readings", BACKWARDS.load(Ordering::Acquire));
}

fn down_and_up() {
    let entries = ENTRIES[1].load(Ordering::Acquire);
    expect_text!("down.other_running", vcpu_op_null(IS_UP, 1), "1");
    ORDER[1].store(2, Ordering::Release);
    expect!("down.went_down", wait(|| vcpu_op_null(IS_UP, 1).0 == 0), true);
    expect!("down.silent", ENTRIES[1].load(Ordering::Acquire) == entries, true);
    expect_text!("down.initialise_again", vcpu_op(INITIALISE, 1, &mut *context(1)), "-EEXIST");
    expect_text!("down.up", vcpu_op_null(UP, 1), "0");
    expect!("down.continues", wait(|| ENTRIES[1].load(Ordering::Acquire) == entries + 1), true);
    expect!("down.result", DOWN_RESULT.load(Ordering::Acquire), 0);
    // From outside.
    expect_text!("down.by_other", vcpu_op_null(DOWN, 2), "0");
    expect_text!("down.by_other_is_up", vcpu_op_null(IS_UP, 2), "0");
    expect_text!("down.twice", vcpu_op_null(DOWN, 2), "0");
    expect_text!("down.other_up", vcpu_op_null(UP, 2), "0");
}

/// vcpu_register_vcpu_info.
#[repr(C)]
struct Register {
    mfn: u64,
    offset: u32,
    reserved: u32,
}

fn vcpu_info_placement() {
    let page: Page = alloc_pages(1);
    let register = |vcpu: u64, mfn, offset| vcpu_op(REGISTER_VCPU_INFO, vcpu, &mut Register { mfn, offset, reserved: 0 });
    expect_text!("place.offset_too_high", register(0, page.mfn(), 4096 - 63), "-ENXIO");
    value!("place.offset_unaligned", register(0, page.mfn(), 4));
    expect_text!("place.beyond_memory", register(0, 0xff_ffff_ffff, 0), "-EINVAL");
    expect_text!("place.page_table", register(0, mem::l4_maddr() / PAGE, 0), "-EINVAL");
    value!("place.other_running", register(3, page.mfn(), 128));
    expect_text!("place.absent", register(100, page.mfn(), 0), "-ENOENT");
    event::disable_upcalls();
    expect_text!("place.self", register(0, page.mfn(), 64), "0");
    start::move_vcpu_info(0, page.va() + 64);
    let info = vcpu_info(0);
    expect!("place.mask_kept", info.upcall_mask(), true);
    expect!("place.upcall_pending", info.upcall_pending(), true);
    expect!("place.selector", info.pending_sel().load(Ordering::Relaxed), u64::MAX);
    expect_text!("place.twice", register(0, page.mfn(), 128), "-EINVAL");
    event::enable_upcalls();
    let port = REPLY_PORT.load(Ordering::Relaxed);
    let before = event::count(port);
    event::send(port);
    expect!("place.delivered", event::count(port) - before, 1);
    check!("place.time", spin_until(10 * MS, || now() > 0));

}
