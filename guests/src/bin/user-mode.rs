//! User mode: entering it by the iret hypercall, and every way back into the kernel.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::mem::{self, PAGE};
use oxen_guests::probe::Trap;
use oxen_guests::sys::{self, FLAT_CS32, FLAT_CS64, FLAT_SS, VIRT_BASE};
use oxen_guests::trap::{self, Frame};
use oxen_guests::user::{USER_BASE, USER_CODE, USER_DATA, USER_STACK, USER_UNMAPPED, UserSpace};
use oxen_guests::{check, expect, expect_text, hypercall, value};

oxen_guests::test_kernel!("user-mode", run);

const UD2: &[u8] = &[0x0f, 0x0b];
const SYSCALL: &[u8] = &[0x0f, 0x05];
const LOAD: &[u8] = &[0x48, 0x8b, 0x00];
const STORE: &[u8] = &[0x48, 0x89, 0x00];

fn run() {
    let user = UserSpace::install();
    basics(&user);
    faults(&user);
    system_call_without_callback(&user);
    system_call(&user);
    flags(&user);
    iret_frames(&user);
    int80(&user);
    privileged(&user);
    compat(&user);
    unregister(&user);
}

fn basics(user: &UserSpace) {
    let start = Frame {
        rax: 1,
        rbx: 2,
        rcx: 3,
        rdx: 4,
        rsi: 5,
        rdi: 6,
        rbp: 7,
        r8: 8,
        r9: 9,
        r10: 10,
        r11: 11,
        r12: 12,
        r13: 13,
        r14: 14,
        r15: 15,
        ..Frame::default()
    };
    let trap = user
        .probe(UD2)
        .with(|f| *f = Frame { rip: f.rip, cs: f.cs, rflags: 0x202, rsp: f.rsp, ss: f.ss, ..start })
        .run();
    expect_text!("basics.trap", trap, "#UD+0");
    let f = &trap.frame;
    let kept = [f.rax, f.rbx, f.rcx, f.rdx, f.rsi, f.rdi, f.rbp, f.r8, f.r9, f.r10, f.r11, f.r12, f.r13, f.r14, f.r15];
    expect!("basics.registers_kept", kept.iter().zip(1..).filter(|(have, want)| **have == *want).count(), 15);
    expect!("basics.cs", f.cs & 0xffff, FLAT_CS64);
    expect!("basics.ss", f.ss, FLAT_SS);
    expect!("basics.rsp_kept", f.rsp, USER_STACK + PAGE);
    expect!("basics.saved_mask", f.saved_upcall_mask(), 0);
    expect!("basics.mask_on_entry", trap.mask_on_entry, true);
    value!("basics.rflags", format_args!("{:#x}", f.rflags));
    // The handler runs on the stack of stack_switch, whatever rsp user mode had.
    expect_text!("basics.bad_user_stack", user.probe(UD2).with(|f| f.rsp = 0x123).run(), "#UD+0");
    expect_text!("basics.push_pop", user.probe(&[0x50, 0x58]).run(), "done");
    expect_text!("basics.store", user.probe(STORE).with(|f| f.rax = USER_DATA).run(), "done");
    expect!("basics.stored", user.data.read(0), USER_DATA);
}

fn faults(user: &UserSpace) {
    let at = |code: &'static [u8], address| user.probe(code).with(|f| f.rax = address).run();
    let page_fault = |name, trap: Trap, expected, address| {
        expect_text!(name, trap, expected);
        check!(name, trap.cr2 == address);
    };
    page_fault("fault.load_unmapped", at(LOAD, USER_UNMAPPED), "#PF(0x4)+0", USER_UNMAPPED);
    page_fault("fault.store_unmapped", at(STORE, USER_UNMAPPED + 8), "#PF(0x6)+0", USER_UNMAPPED + 8);
    page_fault("fault.store_read_only", at(STORE, USER_CODE + 0x800), "#PF(0x7)+0", USER_CODE + 0x800);
    page_fault("fault.jump_unmapped", at(&[0xff, 0xe0], USER_UNMAPPED), "#PF(0x14)+elsewhere", USER_UNMAPPED);
    // The kernel is not in the user's tables.
    page_fault("fault.load_kernel", at(LOAD, VIRT_BASE + 0x10_0000), "#PF(0x4)+0", VIRT_BASE + 0x10_0000);
    // The hypervisor's part looks like memory of a kernel.
    let hole = 0xffff_8300_0000_0000;
    let trap = at(LOAD, hole);
    check!("fault.load_hole", trap.is(14) && trap.cr2 == hole && trap.frame.error & !1 == 4);
    check!("fault.no_exec", user.set_entry(USER_DATA, user.data.pte(mem::RW_PAGE | mem::NX)).is_ok());
    page_fault("fault.jump_no_exec", at(&[0xff, 0xe0], USER_DATA), "#PF(0x15)+elsewhere", USER_DATA);
    expect_text!("fault.divide", user.probe(&[0x31, 0xd2, 0xf7, 0xf2]).run(), "#DE+2");
    expect_text!("fault.non_canonical", at(LOAD, 1 << 63), "#GP(0x0)+0");
    expect_text!("fault.breakpoint", user.probe(&[0xcc]).run(), "#BP+1");
    expect_text!("fault.ds_beyond", user.probe(&[0x8e, 0xd8]).with(|f| f.rax = 0xfff8).run(), "#GP(0xfff8)+0");
}

fn system_call_without_callback(user: &UserSpace) {
    expect_text!("no_callback.syscall", user.probe(SYSCALL).run(), "#UD+0");
    expect_text!("no_callback.sysenter", user.probe(&[0x0f, 0x34]).run(), "#UD+0");
}

fn system_call(user: &UserSpace) {
    trap::register_callback(sys::CALLBACKTYPE_SYSCALL, trap::SYSCALL);
    let code = [0x0f, 0x05, 0x90];
    // DF, CF, SF, ID and IF on.
    let trap = user.probe(&code).with(|f| {
        f.rflags = 0x20_0000 | 0x400 | 0x200 | 0x80 | 0x2 | 0x1;
        f.rax = 0x1234;
        f.rcx = 5;
        f.r11 = 6;
    }).run();
    expect_text!("syscall.trap", trap, "syscall+2");
    expect!("syscall.cs", trap.frame.cs & 0xffff, FLAT_CS64);
    expect!("syscall.ss", trap.frame.ss, FLAT_SS);
    expect!("syscall.saved_mask", trap.frame.saved_upcall_mask(), 0);
    expect!("syscall.mask_on_entry", trap.mask_on_entry, true);
    value!("syscall.rflags", format_args!("{:#x}", trap.frame.rflags));
    value!("syscall.r11", format_args!("{:#x}", trap.frame.r11));
    expect!("syscall.rcx_is_rip", trap.frame.rcx, trap.frame.rip);
    expect!("syscall.rsp_kept", trap.frame.rsp, USER_STACK + PAGE);
    expect!("syscall.rax", trap.frame.rax, 0x1234);
    // Without the flag the callback starts with events as they were.
    let rc = hypercall::register_callback(sys::CALLBACKTYPE_SYSCALL, 0, trap::callback_address(trap::SYSCALL));
    expect_text!("syscall.register_unmasked", rc, "0");
    let trap = user.probe(SYSCALL).with(|f| f.rflags = 0x202).run();
    expect!("syscall.unmasked_on_entry", trap.mask_on_entry, false);
    let trap = user.probe(SYSCALL).run();
    expect!("syscall.masked_on_entry", trap.mask_on_entry, true);
    trap::register_callback(sys::CALLBACKTYPE_SYSCALL, trap::SYSCALL);
    // A hypercall number in rax means nothing in user mode.
    let trap = user.probe(SYSCALL).with(|f| f.rax = sys::nr::SCHED_OP).run();
    expect_text!("syscall.not_a_hypercall", trap, "syscall+2");
    trap::register_callback(sys::CALLBACKTYPE_SYSENTER, trap::SYSENTER);
    // AMD processors have no sysenter in long mode.
    value!("sysenter.trap", user.probe(&[0x0f, 0x34]).run());
}

fn flags(user: &UserSpace) {
    let trap = user.probe(&[0x90, 0x90]).with(|f| f.rflags |= 0x100).run();
    expect_text!("flags.single_step", trap, "#DB+1");
    let trap = user.probe(&[0x0f, 0x05, 0x90, 0x90]).with(|f| f.rflags |= 0x100).run();
    value!("flags.step_over_syscall", trap);
    value!("flags.step_over_syscall_tf", trap.frame.rflags & 0x100);
    // Privilege bits in the frame: IOPL 3, VM, VIF, VIP, NT, RF, AC, ID.
    let trap = user.probe(UD2).with(|f| f.rflags = 0x3f_7ed7 & !0x10000 & !0x400).run();
    value!("flags.everything", format_args!("{:#x}", trap.frame.rflags));
    let trap = user.probe(UD2).with(|f| f.rflags = 0).run();
    value!("flags.nothing", format_args!("{:#x}", trap.frame.rflags));
    // User mode runs with interrupts on whatever the frame says: pushfq; pop rax.
    let trap = user.probe(&[0x9c, 0x58]).with(|f| f.rflags = 2).run();
    value!("flags.real", format_args!("{:#x}", trap.frame.rax));
    // popf cannot change them: push 0x3202... ; popfq; pushfq; pop rax.
    let trap = user.probe(&[0x68, 0x02, 0x30, 0x00, 0x00, 0x9d, 0x9c, 0x58]).with(|f| f.rflags = 0x202).run();
    value!("flags.popf", format_args!("{:#x}", trap.frame.rax));
}

fn iret_frames(user: &UserSpace) {
    // A return address that no processor accepts must harm nobody but this context.
    let show = |name: &'static str, change: fn(&mut Frame)| {
        let trap = user.probe(UD2).with(change).run();
        value!(name, format_args!("{trap} from {} mode", if trap.frame.cs & 3 == 3 { "user" } else { "kernel" }));
    };
    show("iret.rip_non_canonical", |f| f.rip = 1 << 63 | USER_CODE);
    show("iret.rip_kernel", |f| f.rip = VIRT_BASE + 0x10_0000);
    show("iret.rip_edge", |f| f.rip = 0x0000_7fff_ffff_fffe);
    show("iret.cs_null", |f| f.cs = 0);
    show("iret.cs_data", |f| f.cs = FLAT_SS);
    show("iret.cs_beyond", |f| f.cs = 0xfffb);
    show("iret.ss_beyond", |f| f.ss = 0xfffb);
    show("iret.ss_null", |f| f.ss = 0);
    show("iret.ss_code", |f| f.ss = FLAT_CS64);
    show("iret.cs_hypervisor", |f| f.cs = 0xe00b);
    show("iret.ss_hypervisor", |f| f.ss = 0xe013);
    show("iret.rsp_non_canonical", |f| f.rsp = 1 << 62);
    expect_text!("iret.still_works", user.probe(&[0x90]).run(), "done");
    // VGCF_in_syscall: rcx and r11 are given up.
    let trap = user.probe(UD2).with(|f| f.error = 0x100).run();
    expect_text!("iret.in_syscall", trap, "#UD+0");
    let trap = user.probe(UD2).with(|f| { f.error = 0x100; f.rip |= 1 << 63; }).run();
    value!("iret.in_syscall_non_canonical", trap);
    let trap = user.probe(UD2).with(|f| { f.rcx = 0x77; f.r11 = 0x3000; }).run();
    expect!("iret.rcx", trap.frame.rcx, 0x77);
    expect!("iret.r11", trap.frame.r11, 0x3000);
    // The highest user address: rip after a syscall there is not canonical.
    let last = 0x0000_7fff_ffff_f000;
    let l1 = mem::make_table(&[(511, user.code.pte(mem::RO_PAGE))]);
    let l2 = mem::make_table(&[(511, l1.pte(0x67))]);
    let l3 = mem::make_table(&[(511, l2.pte(0x67))]);
    expect_text!("iret.map_last_page", hypercall::write_pte(user.l4.maddr() + 255 * 8, l3.pte(0x67)), "0");
    user.code.write_bytes(4094, SYSCALL);
    let trap = user.probe(&[]).with(|f| f.rip = last).run();
    expect_text!("iret.last_page", trap, "done");
    let frame = Frame { rip: last + 4094, cs: FLAT_CS64, rflags: 2, rsp: USER_STACK + PAGE, ss: FLAT_SS, ..Frame::default() };
    let trap = oxen_guests::probe::run_frame(&frame, last + 4094, 0);
    check!("iret.syscall_at_end", trap.frame.vector == trap::SYSCALL || trap.is(13) || trap.is(14));
    expect_text!("iret.survived", user.probe(&[0x90]).run(), "done");
    let _ = USER_BASE;
}

fn int80(user: &UserSpace) {
    let trap = user.probe(&[0xcd, 0x80]).with(|f| f.rflags = 0x202).run();
    expect_text!("int80.trap", trap, "vector 0x80+2");
    expect!("int80.cs", trap.frame.cs & 0xffff, FLAT_CS64);
    expect!("int80.mask_on_entry", trap.mask_on_entry, true);
    value!("int80.rflags", format_args!("{:#x}", trap.frame.rflags));
}

fn privileged(user: &UserSpace) {
    for (name, code) in [
        ("priv.hlt", &[0xf4][..]),
        ("priv.cli", &[0xfa]),
        ("priv.sti", &[0xfb]),
        ("priv.in", &[0xec]),
        ("priv.out", &[0xee]),
        ("priv.rdmsr", &[0x0f, 0x32]),
        ("priv.wrmsr", &[0x0f, 0x30]),
        ("priv.read_cr0", &[0x0f, 0x20, 0xc0]),
        ("priv.read_cr4", &[0x0f, 0x20, 0xe0]),
        ("priv.write_cr0", &[0x0f, 0x22, 0xc0]),
        ("priv.read_dr7", &[0x0f, 0x21, 0xf8]),
        ("priv.invlpg", &[0x0f, 0x01, 0x38]),
        ("priv.wbinvd", &[0x0f, 0x09]),
        ("priv.clts", &[0x0f, 0x06]),
        ("priv.swapgs", &[0x0f, 0x01, 0xf8]),
        ("priv.sysret", &[0x48, 0x0f, 0x07]),
    ] {
        expect_text!(name, user.probe(code).run(), "#GP(0x0)+0");
    }
    value!("priv.vmcall", user.probe(&[0x0f, 0x01, 0xc1]).run());
    value!("priv.vmmcall", user.probe(&[0x0f, 0x01, 0xd9]).run());
}

/// 32-bit user code in the hypervisor's flat compatibility segment needs code below 4 GiB.
fn compat(user: &UserSpace) {
    let l1 = mem::make_table(&[(1, user.code.pte(mem::RO_PAGE)), (2, user.stack.pte(mem::RW_PAGE))]);
    let l2 = mem::make_table(&[(0, l1.pte(0x67))]);
    let l3 = mem::make_table(&[(0, l2.pte(0x67))]);
    expect_text!("compat.map", hypercall::write_pte(user.l4.maddr(), l3.pte(0x67)), "0");
    let run = |code: &'static [u8]| {
        user.probe(code).with(|f| {
            f.rip = 0x1000;
            f.cs = FLAT_CS32;
            f.rsp = 0x3000;
        }).run()
    };
    expect_text!("compat.nop", run(&[0x90]), "done");
    let trap = run(UD2);
    expect_text!("compat.ud2", trap, "#UD+0");
    expect!("compat.cs", trap.frame.cs & 0xffff, FLAT_CS32);
    expect_text!("compat.int80", run(&[0xcd, 0x80]), "vector 0x80+2");
    value!("compat.sysenter_no_callback", run(&[0x0f, 0x34]));
    value!("compat.syscall_no_callback", run(SYSCALL));
    trap::register_callback(sys::CALLBACKTYPE_SYSCALL32, trap::SYSCALL32);
    let trap = run(SYSCALL);
    value!("compat.syscall", trap);
    value!("compat.syscall_cs", format_args!("{:#x}", trap.frame.cs & 0xffff));
    value!("compat.syscall_ss", format_args!("{:#x}", trap.frame.ss));
}

fn unregister(user: &UserSpace) {
    let mut kind = sys::CALLBACKTYPE_SYSCALL;
    let rc = hypercall::Rc(hypercall::raw(sys::nr::CALLBACK_OP, [1, hypercall::handle(&mut kind), 0, 0, 0]));
    value!("unregister.syscall", rc);
    value!("unregister.then", user.probe(SYSCALL).run());
}
