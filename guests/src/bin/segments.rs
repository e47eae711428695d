//! Segment bases, fsgsbase, debug registers, the lazy FPU.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::hypercall::{self, Rc};
use oxen_guests::mem::alloc_page;
use oxen_guests::probe::{Probe, Trap};
use oxen_guests::sys::{self, nr};
use oxen_guests::trap::Frame;
use oxen_guests::user::{USER_CODE, USER_DATA, UserSpace};
use oxen_guests::{check, cpu, expect, expect_text, value};

oxen_guests::test_kernel!("segments", run);

const FS: u64 = 0;
const GS_USER: u64 = 1;
const GS_KERNEL: u64 = 2;
const GS_USER_SELECTOR: u64 = 3;
const NON_CANONICAL: u64 = 1 << 63;

fn run() {
    let user = UserSpace::install();
    bases(&user);
    msrs(&user);
    fsgsbase(&user);
    debug_registers(&user);
    fpu(&user);
}

fn set_base(which: u64, base: u64) -> Rc {
    Rc(hypercall::raw(nr::SET_SEGMENT_BASE, [which, base, 0, 0, 0]))
}

fn kernel(code: &[u8], change: impl FnOnce(&mut Frame)) -> Trap {
    Probe::kernel(code).with(change).run()
}

/// mov rax, fs:[0].
const READ_FS: &[u8] = &[0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0];
/// mov rax, gs:[0].
const READ_GS: &[u8] = &[0x65, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0];

fn bases(user: &UserSpace) {
    let (a, b) = (alloc_page(), alloc_page());
    a.write(0, 0xaaaa);
    b.write(0, 0xbbbb);
    user.data.write(0, 0xcccc);
    expect_text!("base.fs", set_base(FS, a.va()), "0");
    expect!("base.fs_reads", kernel(READ_FS, |_| {}).frame.rax, 0xaaaa);
    expect_text!("base.gs_kernel", set_base(GS_KERNEL, b.va()), "0");
    expect!("base.gs_kernel_reads", kernel(READ_GS, |_| {}).frame.rax, 0xbbbb);
    expect_text!("base.gs_user", set_base(GS_USER, USER_DATA), "0");
    expect!("base.gs_kernel_still", kernel(READ_GS, |_| {}).frame.rax, 0xbbbb);
    expect!("base.gs_user_reads", user.probe(READ_GS).run().frame.rax, 0xcccc);
    expect!("base.gs_kernel_after_user", kernel(READ_GS, |_| {}).frame.rax, 0xbbbb);
    // fs is one for both modes.
    expect_text!("base.fs_in_user", user.probe(READ_FS).run(), "#PF(0x4)+0");
    expect_text!("base.fs_user_address", set_base(FS, USER_DATA), "0");
    expect!("base.fs_user_reads", user.probe(READ_FS).run().frame.rax, 0xcccc);
    expect_text!("base.fs_non_canonical", set_base(FS, NON_CANONICAL), "-EINVAL");
    expect_text!("base.gs_user_non_canonical", set_base(GS_USER, NON_CANONICAL), "-EINVAL");
    expect_text!("base.gs_kernel_non_canonical", set_base(GS_KERNEL, NON_CANONICAL), "-EINVAL");
    expect_text!("base.unknown", set_base(4, 0), "-EINVAL");
    expect_text!("base.selector_null", set_base(GS_USER_SELECTOR, 0), "0");
    expect_text!("base.selector_bad", set_base(GS_USER_SELECTOR, 0xfff8), "0");
    // mov eax, gs in user mode.
    let trap = user.probe(&[0x8c, 0xe8]).run();
    value!("base.selector_after_bad", format_args!("{:#x}", trap.frame.rax & 0xffff));
    expect_text!("base.selector_data", set_base(GS_USER_SELECTOR, sys::FLAT_SS), "0");
    let trap = user.probe(&[0x8c, 0xe8]).run();
    value!("base.selector_after_data", format_args!("{:#x}", trap.frame.rax & 0xffff));
    expect!("base.gs_kernel_after_selector", kernel(READ_GS, |_| {}).frame.rax, 0xbbbb);
    expect_text!("base.selector_end", set_base(GS_USER_SELECTOR, 0), "0");
}

/// rdmsr of `msr`: result in rax and rdx.
fn rdmsr(msr: u64) -> Trap {
    kernel(&[0x0f, 0x32], |f| f.rcx = msr)
}

fn wrmsr(msr: u64, value: u64) -> Trap {
    kernel(&[0x0f, 0x30], |f| {
        f.rcx = msr;
        f.rax = value & 0xffff_ffff;
        f.rdx = value >> 32;
    })
}

fn msr_value(trap: &Trap) -> u64 {
    trap.frame.rdx << 32 | trap.frame.rax & 0xffff_ffff
}

fn msrs(user: &UserSpace) {
    let page = alloc_page();
    page.write(0, 0xdddd);
    for (name, msr) in [("msr.fs_base", 0xc000_0100), ("msr.gs_base", 0xc000_0101), ("msr.kernel_gs_base", 0xc000_0102)] {
        expect_text!(name, wrmsr(msr, page.va()), "done");
        let trap = rdmsr(msr);
        expect!("msr.reads_back", msr_value(&trap) == page.va(), true);
        expect_text!("msr.non_canonical", wrmsr(msr, NON_CANONICAL), "#GP(0x0)+0");
        expect!("msr.kept", msr_value(&rdmsr(msr)) == page.va(), true);
    }
    expect!("msr.gs_active", kernel(READ_GS, |_| {}).frame.rax, 0xdddd);
    expect_text!("msr.user_gs", wrmsr(0xc000_0102, USER_DATA), "done");
    expect!("msr.user_gs_reads", user.probe(READ_GS).run().frame.rax, 0xcccc);
}

/// rdfsbase and friends, natively or emulated.
fn fsgsbase(user: &UserSpace) {
    let supported = cpu::cpuid_forced(7, 0)[1] & 1;
    value!("fsgsbase.cpuid", supported);
    if supported == 0 {
        return;
    }
    let page = alloc_page();
    page.write(0, 0xeeee);
    // mov rbx, cr4; mov [..]: the guest's choice of CR4.FSGSBASE is bit 16.
    let cr4 = kernel(&[0x0f, 0x20, 0xe0], |_| {}).frame.rax;
    value!("fsgsbase.cr4_bit", cr4 >> 16 & 1);
    let set_cr4 = |value: u64| {
        expect_text!("fsgsbase.set_cr4", kernel(&[0x0f, 0x22, 0xe0], |f| f.rax = value), "done");
        expect!("fsgsbase.cr4_reads", kernel(&[0x0f, 0x20, 0xe0], |_| {}).frame.rax == value, true);
    };
    const WRFSBASE: &[u8] = &[0xf3, 0x48, 0x0f, 0xae, 0xd0];
    const WRGSBASE: &[u8] = &[0xf3, 0x48, 0x0f, 0xae, 0xd8];
    // rdfsbase rbx; rdgsbase rcx.
    const RDFSBASE: &[u8] = &[0xf3, 0x48, 0x0f, 0xae, 0xc3];
    const RDGSBASE: &[u8] = &[0xf3, 0x48, 0x0f, 0xae, 0xc9];
    set_cr4(cr4 & !(1 << 16));
    for code in [WRFSBASE, WRGSBASE, RDFSBASE, RDGSBASE] {
        expect_text!("fsgsbase.off", kernel(code, |f| f.rax = page.va()), "#UD+0");
    }
    expect_text!("fsgsbase.off_user", user.probe(WRGSBASE).with(|f| f.rax = USER_DATA).run(), "#UD+0");
    set_cr4(cr4 | 1 << 16);
    expect_text!("fsgsbase.wrfsbase", kernel(WRFSBASE, |f| f.rax = page.va()), "done");
    expect!("fsgsbase.fs", kernel(READ_FS, |_| {}).frame.rax, 0xeeee);
    expect_text!("fsgsbase.wrgsbase", kernel(WRGSBASE, |f| f.rax = page.va()), "done");
    expect!("fsgsbase.gs", kernel(READ_GS, |_| {}).frame.rax, 0xeeee);
    let trap = kernel(RDFSBASE, |_| {});
    expect_text!("fsgsbase.rdfsbase", trap, "done");
    check!("fsgsbase.rdfsbase_value", trap.frame.rbx == page.va());
    let trap = kernel(RDGSBASE, |_| {});
    expect_text!("fsgsbase.rdgsbase", trap, "done");
    check!("fsgsbase.rdgsbase_value", trap.frame.rcx == page.va());
    expect_text!("fsgsbase.user", user.probe(WRGSBASE).with(|f| f.rax = USER_DATA + 8).run(), "done");
    user.data.write(1, 0x9999);
    // User's change is kept apart from the kernel's base.
    expect!("fsgsbase.user_gs_kept", user.probe(READ_GS).run().frame.rax, 0x9999);
    expect!("fsgsbase.kernel_gs_kept", kernel(READ_GS, |_| {}).frame.rax, 0xeeee);
}

fn set_debugreg(index: u64, value: u64) -> Rc {
    Rc(hypercall::raw(nr::SET_DEBUGREG, [index, value, 0, 0, 0]))
}

fn get_debugreg(index: u64) -> i64 {
    hypercall::raw(nr::GET_DEBUGREG, [index, 0, 0, 0, 0])
}

fn debug_registers(user: &UserSpace) {
    for index in 0..8 {
        value!("dr.initial", format_args!("{index}: {}", Hex(get_debugreg(index))));
    }
    expect_text!("dr.set_address", set_debugreg(0, USER_CODE + 1), "0");
    expect!("dr.get_address", get_debugreg(0) == (USER_CODE + 1) as i64, true);
    expect_text!("dr.set_hole", set_debugreg(1, sys::HOLE_START), "-EPERM");
    expect_text!("dr.set_non_canonical", set_debugreg(1, NON_CANONICAL), "-EPERM");
    expect_text!("dr.set_kernel", set_debugreg(1, sys::VIRT_BASE), "0");
    expect_text!("dr.set_4", set_debugreg(4, 0), "0");
    expect_text!("dr.set_8", set_debugreg(8, 0), "-ENODEV");
    expect_text!("dr.set_huge", set_debugreg(u64::MAX, 0), "-ENODEV");
    value!("dr.get_4", Rc(get_debugreg(4)));
    value!("dr.get_8", Rc(get_debugreg(8)));
    expect_text!("dr.dr6_high", set_debugreg(6, 1 << 32), "-EINVAL");
    expect_text!("dr.dr6_zero", set_debugreg(6, 0), "0");
    value!("dr.dr6_reads", Hex(get_debugreg(6)));
    expect_text!("dr.dr7_high", set_debugreg(7, 1 << 32), "-EINVAL");
    value!("dr.dr7_general_detect", set_debugreg(7, 1 << 13));
    value!("dr.dr7_io", set_debugreg(7, 2 << 16 | 1));
    value!("dr.dr7_after", Hex(get_debugreg(7)));
    // An execution breakpoint on the second instruction, in user mode.
    expect_text!("dr.dr7_enable", set_debugreg(7, 0x401), "0");
    let trap = user.probe(&[0x90, 0x90, 0x90]).run();
    expect_text!("dr.hit", trap, "#DB+1");
    value!("dr.hit_dr6", Hex(get_debugreg(6)));
    expect_text!("dr.disable", set_debugreg(7, 0x400), "0");
    expect_text!("dr.quiet", user.probe(&[0x90, 0x90, 0x90]).run(), "done");
    // mov to and from debug registers in the kernel follows the same rules.
    expect_text!("dr.mov_to", kernel(&[0x0f, 0x23, 0xc8], |f| f.rax = 0x1234), "done");
    let trap = kernel(&[0x0f, 0x21, 0xcb], |_| {});
    expect_text!("dr.mov_from", trap, "done");
    expect!("dr.mov_from_value", trap.frame.rbx, 0x1234);
    expect_text!("dr.mov_to_bad", kernel(&[0x0f, 0x23, 0xc8], |f| f.rax = sys::HOLE_START), "#GP(0x0)+0");
    value!("dr.mov_from_dr4", kernel(&[0x0f, 0x21, 0xe3], |_| {}));
    // A data breakpoint: write to the user data page, 8 bytes, DR1.
    expect_text!("dr.data_address", set_debugreg(1, USER_DATA), "0");
    // Enable 1, type write, length 8.
    expect_text!("dr.data_enable", set_debugreg(7, 0x400 | 1 << 2 | 1 << 20 | 2 << 22), "0");
    let trap = user.probe(&[0x48, 0x89, 0x00, 0x90]).with(|f| f.rax = USER_DATA).run();
    expect_text!("dr.data_hit", trap, "#DB+3");
    expect_text!("dr.data_disable", set_debugreg(7, 0x400), "0");
}

struct Hex(i64);

impl core::fmt::Display for Hex {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

fn taskswitch(set: u64) -> Rc {
    Rc(hypercall::raw(nr::FPU_TASKSWITCH, [set, 0, 0, 0, 0]))
}

fn fpu(user: &UserSpace) {
    // movd xmm0, eax; movd ebx, xmm0.
    let use_sse = &[0x66, 0x0f, 0x6e, 0xc0, 0x66, 0x0f, 0x7e, 0xc3];
    let trap = kernel(use_sse, |f| f.rax = 0x55);
    expect_text!("fpu.on", trap, "done");
    expect!("fpu.value", trap.frame.rbx, 0x55);
    expect_text!("fpu.set", taskswitch(1), "0");
    expect!("fpu.cr0_ts", kernel(&[0x0f, 0x20, 0xc0], |_| {}).frame.rax >> 3 & 1, 1);
    let trap = kernel(use_sse, |f| f.rax = 0x66);
    expect_text!("fpu.off", trap, "#NM+0");
    // Taking #NM clears the flag, as the interface has it.
    expect!("fpu.cr0_ts_after", kernel(&[0x0f, 0x20, 0xc0], |_| {}).frame.rax >> 3 & 1, 0);
    // The contents survive: movd ebx, xmm0.
    expect!("fpu.kept", kernel(&[0x66, 0x0f, 0x7e, 0xc3], |_| {}).frame.rbx, 0x55);
    expect_text!("fpu.set_again", taskswitch(1), "0");
    expect_text!("fpu.user", user.probe(use_sse).run(), "#NM+0");
    expect_text!("fpu.set_third", taskswitch(1), "0");
    expect_text!("fpu.clts", kernel(&[0x0f, 0x06], |_| {}), "done");
    expect_text!("fpu.after_clts", kernel(use_sse, |f| f.rax = 0x77), "done");
    // fninit; fnstcw via x87 as well: fnstsw ax.
    expect_text!("fpu.set_fourth", taskswitch(1), "0");
    expect_text!("fpu.x87", kernel(&[0xdd, 0xe8], |_| {}), "#NM+0");
    expect_text!("fpu.clear", taskswitch(0), "0");
    expect_text!("fpu.cleared", kernel(&[0xdb, 0xe3], |_| {}), "done");
}
