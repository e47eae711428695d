//! Exceptions raised in the guest kernel: vector, error code, frame and what the handler starts with.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::mem;
use oxen_guests::probe::{Probe, Trap};
use oxen_guests::start::vcpu_info;
use oxen_guests::sys::{self, FLAT_CS64, FLAT_SS, TrapInfo, VIRT_BASE};
use oxen_guests::trap::{self, Frame};
use oxen_guests::{check, expect, expect_text, hypercall, value};

oxen_guests::test_kernel!("exceptions", run);

const UD2: &[u8] = &[0x0f, 0x0b];
const LOAD: &[u8] = &[0x48, 0x8b, 0x00];
const STORE: &[u8] = &[0x48, 0x89, 0x00];
const NON_CANONICAL: u64 = 0x8000_0000_0000_0000;

fn run() {
    vectors();
    page_faults();
    frame();
    single_step();
    registration();
    dpl();
}

fn probe(code: &[u8]) -> Trap {
    Probe::kernel(code).run()
}

fn at(code: &[u8], rax: u64) -> Trap {
    Probe::kernel(code).with(|f| f.rax = rax).run()
}

fn vectors() {
    expect_text!("nothing", probe(&[]), "done");
    expect_text!("ud2", probe(UD2), "#UD+0");
    // xor edx, edx; div edx
    expect_text!("divide", probe(&[0x31, 0xd2, 0xf7, 0xf2]), "#DE+2");
    expect_text!("int3", probe(&[0xcc, 0x90]), "#BP+1");
    expect_text!("non_canonical_load", at(LOAD, NON_CANONICAL), "#GP(0x0)+0");
    // Intel's processors report the jump, AMD's the target.
    check!("non_canonical_jump", at(&[0xff, 0xe0], NON_CANONICAL).is(13));
    expect_text!("hlt", probe(&[0xf4]), "#GP(0x0)+0");
    expect_text!("lgdt", at(&[0x0f, 0x01, 0x10], VIRT_BASE), "#GP(0x0)+0");
    expect_text!("lidt", at(&[0x0f, 0x01, 0x18], VIRT_BASE), "#GP(0x0)+0");
    expect_text!("ltr", probe(&[0x0f, 0x00, 0xd8]), "#GP(0x0)+0");
    expect_text!("lldt", probe(&[0x0f, 0x00, 0xd0]), "#GP(0x0)+0");
    expect_text!("invlpg", at(&[0x0f, 0x01, 0x38], VIRT_BASE), "#GP(0x0)+0");
    expect_text!("swapgs", probe(&[0x0f, 0x01, 0xf8]), "#GP(0x0)+0");
    expect_text!("sysret", probe(&[0x48, 0x0f, 0x07]), "#GP(0x0)+0");
    expect_text!("invd", probe(&[0x0f, 0x08]), "#GP(0x0)+0");
    expect_text!("wbinvd", probe(&[0x0f, 0x09]), "done");
    // mov ds, ax with selectors: beyond every table, a null one, the hypervisor's own code segment.
    expect_text!("ds_beyond", at(&[0x8e, 0xd8], 0xfff8), "#GP(0xfff8)+0");
    expect_text!("ds_null", at(&[0x8e, 0xd8], 0), "done");
    expect_text!("ds_hypervisor_code", at(&[0x8e, 0xd8], 0xe008), "#GP(0xe008)+0");
    expect_text!("ss_null", at(&[0x8e, 0xd0], 0), "#GP(0x0)+0");
    expect_text!("x87_pending", x87_error(), "#MF+10");
}

/// fninit; fldcw with the divide mask clear; fld1; fldz; fdivp; fwait: the exception is reported by the wait.
fn x87_error() -> Trap {
    let page = mem::alloc_page();
    page.write(0, 0x037b);
    let trap = at(&[0xdb, 0xe3, 0xd9, 0x28, 0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0x9b], page.va());
    // fnclex; fninit, or the exception stays pending.
    expect_text!("x87_reset", probe(&[0xdb, 0xe2, 0xdb, 0xe3]), "done");
    trap
}

fn page_faults() {
    let page = mem::alloc_page();
    for (name, trap, address) in [
        ("pf.load_unmapped", at(LOAD, 0x1000), 0x1000),
        ("pf.store_unmapped", at(STORE, 0x1008), 0x1008),
        ("pf.jump_unmapped", at(&[0xff, 0xe0], 0x1010), 0x1010),
    ] {
        value!(name, trap);
        check!(name, trap.is(14) && trap.cr2 == address);
    }
    check!("pf.make_read_only", page.make_read_only().is_ok());
    let trap = at(STORE, page.va() + 24);
    expect_text!("pf.store_read_only", trap, "#PF(0x3)+0");
    check!("pf.store_read_only_cr2", trap.cr2 == page.va() + 24);
    check!("pf.no_exec", hypercall::update_va_mapping(page.va(), page.pte(mem::RW_PAGE | mem::NX), sys::UVMF_INVLPG).is_ok());
    let trap = at(&[0xff, 0xe0], page.va());
    expect_text!("pf.jump_no_exec", trap, "#PF(0x11)+elsewhere");
    check!("pf.jump_no_exec_rip", trap.frame.rip == page.va());
    // The hole: present for the hypervisor only, which a guest must see as an ordinary fault.
    let trap = at(STORE, 0xffff_8300_0000_0000);
    check!("pf.hole", trap.is(14) && trap.cr2 == 0xffff_8300_0000_0000);
}

/// Contents of the bounce frame and state in the handler.
fn frame() {
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
    let trap = Probe::kernel(UD2).with(|f| *f = Frame { rip: f.rip, cs: f.cs, rflags: f.rflags, rsp: f.rsp, ss: f.ss, ..start }).run();
    let f = &trap.frame;
    let kept = [f.rax, f.rbx, f.rcx, f.rdx, f.rsi, f.rdi, f.rbp, f.r8, f.r9, f.r10, f.r11, f.r12, f.r13, f.r14, f.r15];
    expect!("frame.registers_kept", kept.iter().zip(1..).filter(|(have, want)| **have == *want).count(), 15);
    expect!("frame.cs", f.cs & 0xffff, FLAT_CS64 & !3);
    expect!("frame.saved_mask", f.saved_upcall_mask(), 1);
    expect!("frame.ss", f.ss, FLAT_SS);
    value!("frame.rflags", format_args!("{:#x}", f.rflags));
    expect!("frame.mask_on_entry", trap.mask_on_entry, true);
    // With events on, the frame says so, in both places.
    let trap = Probe::kernel(UD2).with(|f| f.rflags |= 0x200).run();
    expect!("frame.saved_mask_when_enabled", trap.frame.saved_upcall_mask(), 0);
    value!("frame.rflags_when_enabled", format_args!("{:#x}", trap.frame.rflags));
    expect!("frame.mask_on_entry_when_enabled", trap.mask_on_entry, true);
    // Flags that a guest may set survive; the I/O privilege level does not, and the handler runs without them.
    let trap = Probe::kernel(UD2).with(|f| f.rflags = 0x4_4cd7 | 0x3000).run();
    value!("frame.rflags_all", format_args!("{:#x}", trap.frame.rflags));
    // An unaligned stack is aligned before the frame is pushed.
    let trap = Probe::kernel(UD2).with(|f| f.rsp -= 5).run();
    expect!("frame.rsp_kept", trap.frame.rsp & 15, 11);
    // A handler without bit 2 in its flags starts with events as they were.
    let mut table = [trap::trap_entry(6, 0), TrapInfo::default()];
    check!("frame.unmasking_handler", hypercall::set_trap_table(&mut table).is_ok());
    expect!("frame.mask_kept_when_masked", Probe::kernel(UD2).run().mask_on_entry, true);
    expect!("frame.mask_kept_when_enabled", Probe::kernel(UD2).with(|f| f.rflags |= 0x200).run().mask_on_entry, false);
    let mut table = [trap::trap_entry(6, 4), TrapInfo::default()];
    check!("frame.masking_handler", hypercall::set_trap_table(&mut table).is_ok());
    vcpu_info(0).set_upcall_mask(true);
}

fn single_step() {
    let trap = Probe::kernel(&[0x90, 0x90]).with(|f| f.rflags |= 0x100).run();
    expect_text!("step.nop", trap, "#DB+1");
    expect!("step.tf_in_frame", trap.frame.rflags & 0x100, 0x100);
    // A hypercall under TF: the trap comes after it.
    let trap = Probe::kernel(&[0x0f, 0x05, 0x90]).with(|f| {
        f.rflags |= 0x100;
        f.rax = sys::nr::XEN_VERSION;
        f.rdi = 0;
    }).run();
    value!("step.hypercall", trap);
    // popfq can set TF by itself; the step is taken after the next instruction.
    let trap = Probe::kernel(&[0x68, 0x02, 0x01, 0x00, 0x00, 0x9d, 0x90, 0x90]).run();
    expect_text!("step.popfq", trap, "#DB+7");
}

fn set_one(entry: TrapInfo) -> hypercall::Rc {
    hypercall::set_trap_table(&mut [entry, TrapInfo::default()])
}

fn registration() {
    expect_text!("register.non_canonical", set_one(TrapInfo { vector: 6, address: NON_CANONICAL, ..trap::trap_entry(6, 4) }), "-EINVAL");
    expect_text!("register.bad_pointer", hypercall::Rc(hypercall::raw(sys::nr::SET_TRAP_TABLE, [0x1000, 0, 0, 0, 0])), "-EFAULT");
    expect_text!("register.hole_pointer", hypercall::Rc(hypercall::raw(sys::nr::SET_TRAP_TABLE, [sys::HOLE_START, 0, 0, 0, 0])), "-EFAULT");
    expect_text!("register.ring0_cs", set_one(TrapInfo { cs: (FLAT_CS64 & !3) as u16, ..trap::trap_entry(6, 4) }), "0");
    expect_text!("register.still_works", probe(UD2), "#UD+0");
    // Only the named vectors change.
    expect_text!("register.other_vector_kept", at(LOAD, 0x1000), "#PF(0x0)+0");
}

fn dpl() {
    // int3 needs no privilege level of the entry; 0x80 has one.
    check!("dpl.register", set_one(trap::trap_entry(3, 4)).is_ok());
    expect_text!("dpl.int3_zero", probe(&[0xcc]), "#BP+1");
    check!("dpl.restore", set_one(trap::trap_entry(3, 7)).is_ok());
    expect_text!("dpl.int80_kernel", probe(&[0xcd, 0x80]), "vector 0x80+2");
}
