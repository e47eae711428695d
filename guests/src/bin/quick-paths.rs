//! The hypercalls and page-table writes that kernels make all the time, from a kernel that has a user mode: such a one may be served by shorter ways, which must
//! not differ from the long ones.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_abi::xen::MmuextCmd;
use oxen_guests::hypercall::{Rc, handle, raw};
use oxen_guests::mem::{self, A, D, FRAME_MASK, P, Page, RO_PAGE, RW_PAGE, alloc_page};
use oxen_guests::probe::Probe;
use oxen_guests::start::start_info;
use oxen_guests::sys::{self, CALLBACKTYPE_SYSCALL, DOMID_SELF, MmuUpdate, nr};
use oxen_guests::trap::{self, Frame};
use oxen_guests::user::{USER_BASE, USER_DATA, UserSpace};
use oxen_guests::{check, event, expect, expect_text, hypercall, value};

oxen_guests::test_kernel!("quick-paths", run);

const SYSCALL: &[u8] = &[0x0f, 0x05];
const SELF: u64 = DOMID_SELF as u64;
/// Command of a request of `mmu_update` that keeps accessed and dirty bits.
const PRESERVE_AD: u64 = 2;

fn run() {
    let user = UserSpace::install();
    trap::register_callback(CALLBACKTYPE_SYSCALL, trap::SYSCALL);
    // From here on the vCPU has all that the short ways need.
    expect_text!("user_mode", user.probe(&[0x90]).run(), "done");
    registers();
    single_step();
    updates(&user);
    lists(&user);
    addresses(&user);
    operations(&user);
    roots(&user);
    kernel_roots();
    stores(&user);
    upcalls();
    expect_text!("user_mode_still", user.probe(&[0x90]).run(), "done");
}

/// A call by `syscall`, with marks in all registers that are not its arguments.
fn registers() {
    let mut flush = sys_mmuext(sys::MMUEXT_INVLPG_LOCAL, 0x1000);
    for (name, number, args) in [
        ("registers.xen_version", nr::XEN_VERSION, &[0, 0][..]),
        ("registers.fpu_taskswitch", nr::FPU_TASKSWITCH, &[0]),
        ("registers.set_segment_base", nr::SET_SEGMENT_BASE, &[0, 0x1234_5000]),
        ("registers.mmuext_op", nr::MMUEXT_OP, &[handle(&mut flush), 1, 0, SELF]),
        ("registers.bad_mmuext_op", nr::MMUEXT_OP, &[0x1000, 1, 0, SELF]),
        ("registers.bad_mmu_update", nr::MMU_UPDATE, &[0x1000, 1, 0, SELF]),
        ("registers.none", 60, &[]),
    ] {
        let marks = Frame { rbx: 1, rbp: 2, r12: 3, r13: 4, r14: 5, r15: 6, r8: 7, r9: 8, rdx: 9, r10: 10, rsi: 11, rdi: 12, ..Frame::default() };
        let trap = Probe::kernel(SYSCALL)
            .with(|f| {
                *f = Frame { rax: number, rip: f.rip, cs: f.cs, rflags: f.rflags, rsp: f.rsp, ss: f.ss, ..marks };
                for (register, value) in [&mut f.rdi, &mut f.rsi, &mut f.rdx, &mut f.r10].into_iter().zip(args) {
                    *register = *value;
                }
            })
            .run();
        value!(name, format_args!("{trap} {}", Rc(trap.frame.rax as i64)));
        let f = &trap.frame;
        let others = [f.rdi == 12, f.rsi == 11, f.rdx == 9, f.r10 == 10];
        check!(name, [f.rbx, f.rbp, f.r12, f.r13, f.r14, f.r15, f.r8, f.r9] == [1, 2, 3, 4, 5, 6, 7, 8]);
        check!(name, others.iter().skip(args.len()).all(|kept| *kept));
        check!(name, f.rcx == f.rip - 1 && f.r11 & !0x3200 == f.rflags & !0x3200);
    }
}

fn single_step() {
    let trap = Probe::kernel(&[0x0f, 0x05, 0x90]).with(|f| { f.rflags |= 0x100; f.rax = nr::FPU_TASKSWITCH; }).run();
    value!("step.hypercall", trap);
}

fn sys_mmuext(cmd: u32, arg1: u64) -> [u64; 3] {
    [cmd.into(), arg1, 0]
}

fn request(table: Page, index: u64, command: u64, val: u64) -> MmuUpdate {
    MmuUpdate { ptr: table.maddr() + index * 8 | command, val }
}

/// `mmu_update` as Linux makes it: without a place for the number of requests done.
fn update(requests: &mut [MmuUpdate]) -> Rc {
    let count = requests.len() as u64;
    Rc(raw(nr::MMU_UPDATE, [handle(requests), count, 0, SELF, 0]))
}

fn one(table: Page, index: u64, val: u64) -> Rc {
    update(&mut [request(table, index, 0, val)])
}

fn shown(entry: u64) -> u64 {
    entry & !(FRAME_MASK | mem::G | 0x07f0_0000_0000_0000)
}

fn updates(user: &UserSpace) {
    let page = alloc_page();
    let l1 = user.l1;
    expect_text!("update.set", one(l1, 8, page.pte(RO_PAGE)), "0");
    value!("update.set_flags", format_args!("{:#x}", shown(l1.read(8))));
    expect_text!("update.writable", one(l1, 8, page.pte(RW_PAGE)), "0");
    expect_text!("update.keeps_bits", update(&mut [request(l1, 8, PRESERVE_AD, page.pte(RO_PAGE) & !(A | D))]), "0");
    value!("update.kept_flags", format_args!("{:#x}", shown(l1.read(8))));
    expect_text!("update.loses_bits", one(l1, 8, page.pte(RO_PAGE) & !(A | D)), "0");
    value!("update.lost_flags", format_args!("{:#x}", shown(l1.read(8))));
    expect_text!("update.kernel_only", one(l1, 8, page.pte(P)), "0");
    value!("update.kernel_only_flags", format_args!("{:#x}", shown(l1.read(8))));
    expect_text!("update.table_writable", one(l1, 9, l1.pte(RW_PAGE)), "-EBUSY");
    expect_text!("update.table_read_only", one(l1, 9, l1.pte(RO_PAGE)), "0");
    expect_text!("update.other_frame", one(l1, 9, page.pte(RW_PAGE)), "0");
    expect_text!("update.absent", one(l1, 9, 0x5550), "0");
    expect!("update.absent_read", l1.read(9), 0x5550);
    expect_text!("update.clear", one(l1, 8, 0), "0");
    // Not a frame of the domain, not a frame at all.
    value!("update.no_memory", one(l1, 9, 0x00ff_ffff_f000_0067));
    // The page is no longer mapped here, so it can become a table.
    expect_text!("update.read_only", page.make_read_only(), "0");
    expect_text!("update.becomes_table", hypercall::mmuext(sys::MMUEXT_PIN_L1_TABLE, page.mfn(), 0), "0");
    expect_text!("update.is_table", one(l1, 8, page.pte(RW_PAGE)), "-EBUSY");
    expect_text!("update.no_table", hypercall::mmuext(sys::MMUEXT_UNPIN_TABLE, page.mfn(), 0), "0");
    // A plain store to a page that is no table.
    let data = alloc_page();
    expect_text!("update.data", one(data, 3, 0x1234), "0");
    expect!("update.data_read", data.read(3), 0x1234);
    expect_text!("update.l2", one(user.l2, 7, 0), "0");
    value!("update.command", update(&mut [request(l1, 9, 5, 0)]));
    value!("update.bad_list", Rc(raw(nr::MMU_UPDATE, [0x1000, 1, 0, SELF, 0])));
    value!("update.no_requests", Rc(raw(nr::MMU_UPDATE, [0x1000, 0, 0, SELF, 0])));
    value!("update.bad_domain", Rc(raw(nr::MMU_UPDATE, [0x1000, 1, 0, 77, 0])));
}

/// Lists with something unusual at each place.
fn lists(user: &UserSpace) {
    let l1 = user.l1;
    let page = alloc_page();
    for bad in [0, 1, 17, 31, 32, 39] {
        let mut requests: [MmuUpdate; 40] = core::array::from_fn(|n| request(l1, 16 + n as u64, 0, page.pte(RO_PAGE)));
        requests[bad] = request(l1, 16 + bad as u64, 0, l1.pte(RW_PAGE));
        expect_text!("list.bad_entry", update(&mut requests), "-EBUSY");
        let done = (16..56).filter(|n| l1.read(*n) & P != 0).count();
        expect!("list.done_before_it", done, bad);
        // Data in between is no reason to stop.
        requests[bad] = request(page, 5, 0, bad as u64);
        expect_text!("list.with_data", update(&mut requests), "0");
        expect!("list.data", page.read(5), bad as u64);
        expect!("list.all_done", (16..56).filter(|n| l1.read(*n) & P != 0).count(), 39);
        let mut clear: [MmuUpdate; 40] = core::array::from_fn(|n| request(l1, 16 + n as u64, if n % 3 == 0 { PRESERVE_AD } else { 0 }, 0));
        expect_text!("list.clear", update(&mut clear), "0");
        expect!("list.cleared", (16..56).filter(|n| l1.read(*n) & P != 0).count(), 0);
    }
}

fn addresses(user: &UserSpace) {
    let page = alloc_page();
    let va = USER_BASE + 8 * mem::PAGE;
    let map = |va, entry, flags| Rc(raw(nr::UPDATE_VA_MAPPING, [va, entry, flags, 0, 0]));
    for flags in [0, sys::UVMF_INVLPG, sys::UVMF_TLB_FLUSH, sys::UVMF_ALL | sys::UVMF_INVLPG, 3] {
        expect_text!("va.set", map(va, page.pte(RW_PAGE), flags), "0");
        page.write(0, flags + 0x77);
        // SAFETY: mapped just now.
        expect!("va.read", unsafe { (va as *const u64).read_volatile() }, flags + 0x77);
        expect_text!("va.clear", map(va, 0, sys::UVMF_INVLPG), "0");
    }
    expect!("va.entry", user.l1.read(8), 0);
    value!("va.no_table", map(USER_BASE + (5 << 30), 0, 0));
    value!("va.not_canonical", map(1 << 63, 0, 0));
    value!("va.hypervisor", map(0xffff_8000_0000_0000, 0, 0));
    expect_text!("va.table_writable", map(va, user.l1.pte(RW_PAGE), 0), "-EBUSY");
}

fn operations(user: &UserSpace) {
    let ops = |list: &mut [[u64; 3]]| Rc(raw(nr::MMUEXT_OP, [handle(list), list.len() as u64, 0, SELF, 0]));
    let flush = sys_mmuext(sys::MMUEXT_TLB_FLUSH_LOCAL, 0);
    let page = sys_mmuext(sys::MMUEXT_INVLPG_LOCAL, USER_DATA);
    expect_text!("ops.flushes", ops(&mut [flush, page, flush, page]), "0");
    expect_text!("ops.odd_address", ops(&mut [sys_mmuext(sys::MMUEXT_INVLPG_LOCAL, 1 << 63 | 5)]), "0");
    value!("ops.unknown", ops(&mut [flush, sys_mmuext(99, 0), page]));
    value!("ops.bad_pin", ops(&mut [page, sys_mmuext(sys::MMUEXT_UNPIN_TABLE, user.data.mfn())]));
    value!("ops.bad_list", Rc(raw(nr::MMUEXT_OP, [0x1000, 1, 0, SELF, 0])));
    value!("ops.none", Rc(raw(nr::MMUEXT_OP, [0x1000, 0, 0, SELF, 0])));
}

/// Changing roots there and back, and to frames that are none.
fn roots(user: &UserSpace) {
    let user_root = |page: Page| hypercall::mmuext(sys::MMUEXT_NEW_USER_BASEPTR, page.mfn(), 0);
    let other = mem::make_table(&[(16, user.l3.pte(0x67))]);
    expect_text!("roots.not_pinned", user_root(other), "0");
    expect_text!("roots.other_works", user.probe(&[0x90]).run(), "done");
    expect_text!("roots.back", user_root(user.l4), "0");
    expect_text!("roots.pin", hypercall::mmuext(MmuextCmd::PIN_L4_TABLE.0, other.mfn(), 0), "0");
    for _ in 0..3 {
        expect_text!("roots.pinned", user_root(other), "0");
        expect_text!("roots.pinned_works", user.probe(&[0x90]).run(), "done");
        expect_text!("roots.and_back", user_root(user.l4), "0");
    }
    expect_text!("roots.same", user_root(user.l4), "0");
    value!("roots.no_root", user_root(user.l1));
    value!("roots.data", user_root(user.data));
    expect_text!("roots.unpin", hypercall::mmuext(sys::MMUEXT_UNPIN_TABLE, other.mfn(), 0), "0");
    expect_text!("roots.free", other.make_writable(), "0");
}

/// The same with the root in use: a copy of the first one.
fn kernel_roots() {
    let first = start_info().pt_base;
    let own = (0..512).filter(|slot| !(256..272).contains(slot));
    let copy = alloc_page();
    own.for_each(|slot| copy.write(slot, mem::read_entry(first, slot)));
    expect_text!("kernel_roots.read_only", copy.make_read_only(), "0");
    let (first, copy_mfn) = (mem::va_to_mfn(first), copy.mfn());
    let go_to = |mfn| hypercall::mmuext(sys::MMUEXT_NEW_BASEPTR, mfn, 0);
    expect_text!("kernel_roots.not_pinned", go_to(copy_mfn), "0");
    expect_text!("kernel_roots.back", go_to(first), "0");
    expect_text!("kernel_roots.pin", hypercall::mmuext(MmuextCmd::PIN_L4_TABLE.0, copy_mfn, 0), "0");
    for _ in 0..3 {
        expect_text!("kernel_roots.pinned", go_to(copy_mfn), "0");
        expect_text!("kernel_roots.works", Probe::kernel(&[0x90]).run(), "done");
        expect_text!("kernel_roots.and_back", go_to(first), "0");
    }
    value!("kernel_roots.data", go_to(alloc_page().mfn()));
    expect_text!("kernel_roots.unpin", hypercall::mmuext(sys::MMUEXT_UNPIN_TABLE, copy_mfn, 0), "0");
    expect_text!("kernel_roots.free", copy.make_writable(), "0");
}

/// Stores to a table, by instructions of each form.
fn stores(user: &UserSpace) {
    let page = alloc_page();
    let l1 = user.l1;
    let slot = l1.va() + 10 * 8;
    let entry = page.pte(RO_PAGE);
    // mov [rax], rbx; mov [rax + 8], rbx; mov [r9], r10; mov [r8 - 8], r15; xchg [rdi], rax; xchg [rsi], r13; mov [r12], rbx; mov [rax + 0x100], rbx; mov [rax], ebx.
    for (name, code, at) in [
        ("store.plain", &[0x48, 0x89, 0x18][..], 0),
        ("store.displaced", &[0x48, 0x89, 0x58, 0x08], -8),
        ("store.high", &[0x4d, 0x89, 0x11], 0),
        ("store.negative", &[0x4d, 0x89, 0x78, 0xf8], 8),
        ("store.exchange", &[0x48, 0x87, 0x07], 0),
        ("store.exchange_high", &[0x4c, 0x87, 0x2e], 0),
        ("store.sib", &[0x49, 0x89, 0x1c, 0x24], 0),
        ("store.far", &[0x48, 0x89, 0x98, 0x00, 0x01, 0x00, 0x00], -0x100),
        ("store.32", &[0x89, 0x18], 0),
    ] {
        check!("store.reset", one(l1, 10, page.pte(RW_PAGE)).is_ok());
        let place = slot.wrapping_add_signed(at);
        let exchanges = name.starts_with("store.exchange");
        let by_rax = name == "store.exchange";
        let trap = Probe::kernel(code)
            .with(|f| {
                (f.rax, f.r9, f.r8, f.rdi, f.rsi, f.r12) = (place, place, place, place, place, place);
                (f.rbx, f.r10, f.r15, f.r13) = (entry, entry, entry, entry);
                if by_rax {
                    f.rax = entry;
                }
            })
            .run();
        let old = if by_rax { trap.frame.rax } else { trap.frame.r13 };
        let old = if exchanges { shown(old) } else { 0 };
        value!(name, format_args!("{trap} {:#x} {old:#x}", shown(l1.read(10))));
    }
    let refused = Probe::kernel(&[0x48, 0x89, 0x18]).with(|f| { f.rax = slot; f.rbx = l1.pte(RW_PAGE); }).run();
    value!("store.refused", refused);
    expect_text!("store.l2", Probe::kernel(&[0x48, 0x89, 0x18]).with(|f| { f.rax = user.l2.va(); f.rbx = 0; }).run(), "#PF(0x3)+0");
    check!("store.clear", one(l1, 10, 0).is_ok());
}

/// An upcall that becomes deliverable is delivered on the way back from a call.
fn upcalls() {
    let port = event::bind_ipi(0).unwrap_or(0);
    check!("upcall.port", port != 0);
    event::disable_upcalls();
    check!("upcall.send", event::send(port).is_ok());
    expect_text!("upcall.masked", Rc(raw(nr::FPU_TASKSWITCH, [0; 5])), "0");
    expect!("upcall.not_yet", event::count(port), 0);
    event::enable_upcalls();
    expect!("upcall.delivered", event::count(port), 1);
    event::disable_upcalls();
}
