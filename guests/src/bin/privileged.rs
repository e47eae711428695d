//! Privileged instructions in the guest kernel: cpuid, model-specific registers, control registers, port I/O, xsetbv.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::cpu::{cpuid, cpuid_forced};
use oxen_guests::hypercall::{Rc, physdev_op};
use oxen_guests::mem::{self, alloc_page, alloc_pages};
use oxen_guests::probe::{Probe, Trap};
use oxen_guests::start::vcpu_info;
use oxen_guests::trap::Frame;
use oxen_guests::user::UserSpace;
use oxen_guests::{check, expect, expect_text, value};

oxen_guests::test_kernel!("privileged", run);

fn run() {
    let user = UserSpace::install();
    identification(&user);
    msr_reads();
    msr_writes();
    control_registers();
    ports(&user);
    string_io();
    extended_state();
    time_stamp(&user);
    user_privileges(&user);
}

fn kernel(code: &[u8], change: impl FnOnce(&mut Frame)) -> Trap {
    Probe::kernel(code).with(change).run()
}

/// Hypervisor leaves, which start where the signature is.
fn identification(user: &UserSpace) {
    let base = cpuid_forced(0x4000_0000, 0);
    let mut signature = [0_u8; 12];
    for (chunk, word) in signature.chunks_mut(4).zip(&base[1..]) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    expect_text!("cpuid.signature", core::str::from_utf8(&signature).unwrap_or("?"), "XenVMMXenVMM");
    value!("cpuid.max_hypervisor_leaf", format_args!("{:#x}", base[0]));
    expect!("cpuid.version", cpuid_forced(0x4000_0001, 0)[0], 4 << 16 | 17);
    let pages = cpuid_forced(0x4000_0002, 0);
    expect!("cpuid.hypercall_pages", pages[0], 1);
    value!("cpuid.hypercall_msr", format_args!("{:#x}", pages[1]));
    value!("cpuid.features_1", format_args!("{:#x}", pages[2]));
    let leaf5 = cpuid_forced(0x4000_0005, 0);
    value!("cpuid.leaf_5", format_args!("{:#x} {:#x}", leaf5[0], leaf5[1] >> 8));
    let features = cpuid_forced(1, 0);
    for (name, register, bit) in [
        ("cpuid.hypervisor", 2, 31),
        ("cpuid.xsave", 2, 26),
        ("cpuid.x2apic", 2, 21),
        ("cpuid.vmx", 2, 5),
        ("cpuid.monitor", 2, 3),
        ("cpuid.pcid", 2, 17),
        ("cpuid.tsc_deadline", 2, 24),
        ("cpuid.sse2", 3, 26),
        ("cpuid.pse", 3, 3),
        ("cpuid.pge", 3, 13),
        ("cpuid.vme", 3, 1),
        ("cpuid.pat", 3, 16),
        ("cpuid.apic", 3, 9),
    ] {
        value!(name, features[register] >> bit & 1);
    }
    let extended = cpuid_forced(0x8000_0001, 0);
    for (name, register, bit) in
        [("cpuid.svm", 2, 2), ("cpuid.long_mode", 3, 29), ("cpuid.nx", 3, 20), ("cpuid.page1gb", 3, 26), ("cpuid.syscall", 3, 11), ("cpuid.rdtscp", 3, 27)]
    {
        value!(name, extended[register] >> bit & 1);
    }
    let seven = cpuid_forced(7, 0);
    for (name, bit) in [("cpuid.fsgsbase", 0), ("cpuid.smep", 7), ("cpuid.smap", 20), ("cpuid.invpcid", 10), ("cpuid.avx2", 5)] {
        value!(name, seven[1] >> bit & 1);
    }
    // The plain instruction answers too; its vendor is the processor's.
    let plain = cpuid(0, 0);
    check!("cpuid.plain_vendor", plain[1..] == cpuid_forced(0, 0)[1..]);
    // The prefix works in user mode, and an unknown prefix is an invalid instruction.
    let prefixed = [0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2];
    let trap = user.probe(&prefixed).with(|f| f.rax = 0x4000_0000).run();
    expect_text!("cpuid.user", trap, "done");
    expect!("cpuid.user_signature", trap.frame.rbx, 0x566e_6558);
    expect_text!("cpuid.wrong_prefix", kernel(&[0x0f, 0x0b, 0x78, 0x65, 0x6d, 0x0f, 0xa2], |_| {}), "#UD+0");
    expect_text!("cpuid.prefix_alone", kernel(&[0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x90, 0x90], |_| {}), "#UD+0");
}

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

/// Registers whose content the interface fixes, and ones that must not be there.
fn msr_reads() {
    let fixed = |name: &'static str, msr: u64| {
        let trap = rdmsr(msr);
        if trap.done() {
            value!(name, format_args!("{:#x}", msr_value(&trap)));
        } else {
            value!(name, trap);
        }
    };
    fixed("rdmsr.apic_base", 0x1b);
    fixed("rdmsr.pat", 0x277);
    fixed("rdmsr.efer", 0xc000_0080);
    fixed("rdmsr.star", 0xc000_0081);
    fixed("rdmsr.lstar", 0xc000_0082);
    fixed("rdmsr.sysenter_eip", 0x176);
    fixed("rdmsr.mtrr_cap", 0xfe);
    fixed("rdmsr.mtrr_def_type", 0x2ff);
    fixed("rdmsr.perf_capabilities", 0x345);
    fixed("rdmsr.vm_hsave_pa", 0xc001_0117);
    fixed("rdmsr.x2apic_id", 0x802);
    fixed("rdmsr.tsc_deadline", 0x6e0);
    fixed("rdmsr.vmx_basic", 0x480);
    fixed("rdmsr.unknown", 0x1234_5678);
    fixed("rdmsr.hypercall", 0x4000_0000);
    fixed("rdmsr.hypercall_next", 0x4000_0001);
    check!("rdmsr.microcode", rdmsr(0x8b).done() || rdmsr(0x8b).is(13));
}

fn msr_writes() {
    let pat = 0x0000_0501_0007_0406;
    expect_text!("wrmsr.pat_same", wrmsr(0x277, pat), "#GP(0x0)+0");
    expect_text!("wrmsr.pat_other", wrmsr(0x277, 0x0007_0406_0007_0406), "#GP(0x0)+0");
    let efer = msr_value(&rdmsr(0xc000_0080));
    expect_text!("wrmsr.efer_same", wrmsr(0xc000_0080, efer), "done");
    expect_text!("wrmsr.efer_other", wrmsr(0xc000_0080, efer ^ 1), "#GP(0x0)+0");
    for (name, msr) in [
        ("wrmsr.lstar", 0xc000_0082),
        ("wrmsr.star", 0xc000_0081),
        ("wrmsr.mask", 0xc000_0084),
        ("wrmsr.sysenter_eip", 0x176),
        ("wrmsr.apic_base", 0x1b),
        ("wrmsr.tsc", 0x10),
        ("wrmsr.mtrr", 0x200),
        ("wrmsr.vm_hsave_pa", 0xc001_0117),
        ("wrmsr.unknown", 0x1234_5678),
        ("wrmsr.x2apic_icr", 0x830),
    ] {
        value!(name, wrmsr(msr, 0));
    }
    // The hypercall page by its register, the way HVM guests do.
    let page = alloc_page();
    let trap = wrmsr(0x4000_0000, page.maddr());
    value!("wrmsr.hypercall", trap);
    value!("wrmsr.hypercall_first_entry", format_args!("{:#x}", page.read(0)));
    value!("wrmsr.hypercall_iret_entry", format_args!("{:#x}", page.read(23 * 4)));
    value!("wrmsr.hypercall_page_index", wrmsr(0x4000_0000, page.maddr() | 1));
    value!("wrmsr.hypercall_bad_frame", wrmsr(0x4000_0000, 0xff_ffff_f000));
}

fn control_registers() {
    let cr = |code: &[u8]| kernel(code, |_| {});
    let cr0 = cr(&[0x0f, 0x20, 0xc0]).frame.rax;
    value!("cr0.reads", format_args!("{cr0:#x}"));
    expect_text!("cr0.same", kernel(&[0x0f, 0x22, 0xc0], |f| f.rax = cr0), "done");
    expect_text!("cr0.ts", kernel(&[0x0f, 0x22, 0xc0], |f| f.rax = cr0 | 8), "done");
    expect!("cr0.ts_reads", cr(&[0x0f, 0x20, 0xc0]).frame.rax == cr0 | 8, true);
    expect_text!("cr0.ts_clear", kernel(&[0x0f, 0x22, 0xc0], |f| f.rax = cr0 & !8), "done");
    expect_text!("cr0.wp", kernel(&[0x0f, 0x22, 0xc0], |f| f.rax = cr0 ^ 1 << 16), "#GP(0x0)+0");
    expect_text!("cr0.pg", kernel(&[0x0f, 0x22, 0xc0], |f| f.rax = cr0 & !(1 << 31)), "#GP(0x0)+0");
    expect_text!("cr0.lmsw", kernel(&[0x0f, 0x01, 0xf0], |f| f.rax = cr0 & 0xf), "#GP(0x0)+0");
    // smsw needs no privilege.
    expect_text!("cr0.smsw", cr(&[0x0f, 0x01, 0xe0]), "done");
    expect_text!("cr2.write", kernel(&[0x0f, 0x22, 0xd0], |f| f.rax = 0x5678), "done");
    expect!("cr2.read", cr(&[0x0f, 0x20, 0xd0]).frame.rax, 0x5678);
    expect!("cr2.shared", vcpu_info(0).cr2(), 0x5678);
    let cr3 = cr(&[0x0f, 0x20, 0xd8]).frame.rax;
    expect!("cr3.reads", cr3 == mem::l4_maddr(), true);
    expect_text!("cr3.same", kernel(&[0x0f, 0x22, 0xd8], |f| f.rax = cr3), "done");
    expect_text!("cr3.bad", kernel(&[0x0f, 0x22, 0xd8], |f| f.rax = alloc_page().maddr()), "#GP(0x0)+0");
    expect_text!("cr3.beyond_memory", kernel(&[0x0f, 0x22, 0xd8], |f| f.rax = 0xff_ffff_f000), "#GP(0x0)+0");
    let cr4 = cr(&[0x0f, 0x20, 0xe0]).frame.rax;
    value!("cr4.reads", format_args!("{cr4:#x}"));
    expect_text!("cr4.same", kernel(&[0x0f, 0x22, 0xe0], |f| f.rax = cr4), "done");
    for (name, bit) in [
        ("cr4.vme", 0),
        ("cr4.tsd", 2),
        ("cr4.de", 3),
        ("cr4.pse", 4),
        ("cr4.pae", 5),
        ("cr4.mce", 6),
        ("cr4.pge", 7),
        ("cr4.pce", 8),
        ("cr4.osfxsr", 9),
        ("cr4.umip", 11),
        ("cr4.vmxe", 13),
        ("cr4.fsgsbase", 16),
        ("cr4.pcide", 17),
        ("cr4.osxsave", 18),
        ("cr4.smep", 20),
        ("cr4.smap", 21),
        ("cr4.pke", 22),
        ("cr4.reserved", 40),
    ] {
        let flipped = cr4 ^ 1 << bit;
        let trap = kernel(&[0x0f, 0x22, 0xe0], |f| f.rax = flipped);
        let now = cr(&[0x0f, 0x20, 0xe0]).frame.rax;
        value!(name, format_args!("{trap}, {}", if now == cr4 { "dropped" } else { "taken" }));
        check!("cr4.restore", kernel(&[0x0f, 0x22, 0xe0], |f| f.rax = cr4).done());
    }
    value!("cr8.read", cr(&[0x44, 0x0f, 0x20, 0xc0]));
    value!("cr8.write", cr(&[0x44, 0x0f, 0x22, 0xc0]));
    value!("cr1.read", cr(&[0x0f, 0x20, 0xc8]));
}

/// in al, dx and out dx, al at `port`.
fn inb(port: u64) -> Trap {
    kernel(&[0xec], |f| {
        f.rdx = port;
        f.rax = 0x77;
    })
}

fn outb(port: u64, byte: u64) -> Trap {
    kernel(&[0xee], |f| {
        f.rdx = port;
        f.rax = byte;
    })
}

fn set_iopl(iopl: u32) -> Rc {
    let mut arg = iopl;
    physdev_op(6, &mut arg)
}

fn ports(user: &UserSpace) {
    // The start has virtual I/O privilege level 0: the kernel may not either.
    expect_text!("io.kernel_iopl_0", inb(0x80), "#GP(0x0)+0");
    expect_text!("io.cli_iopl_0", kernel(&[0xfa], |_| {}), "#GP(0x0)+0");
    expect_text!("io.set_iopl_4", set_iopl(4), "-EINVAL");
    expect_text!("io.set_iopl", set_iopl(1), "0");
    expect_text!("io.kernel_iopl_1", inb(0x80), "done");
    expect_text!("io.out", outb(0x80, 0), "done");
    expect_text!("io.in_immediate", kernel(&[0xe4, 0x80], |_| {}), "done");
    expect_text!("io.out_immediate", kernel(&[0xe6, 0x80], |_| {}), "done");
    value!("io.cli", kernel(&[0xfa], |_| {}));
    value!("io.sti", kernel(&[0xfb], |_| {}));
    expect_text!("io.user_iopl_1", user.probe(&[0xec]).with(|f| f.rdx = 0x80).run(), "#GP(0x0)+0");
    // Ports that the hypervisor keeps: reads give ones, writes vanish.
    for (name, port) in [("io.pic_1", 0x21), ("io.pic_2", 0xa1), ("io.pit_0", 0x40), ("io.serial", 0x3f8)] {
        let trap = inb(port);
        value!(name, format_args!("{trap}, {:#x}", trap.frame.rax & 0xff));
        expect_text!("io.kept_write", outb(port, 0), "done");
    }
    // Upper halves: in al keeps the rest of rax, in eax clears bits 32 and up.
    let trap = kernel(&[0xec], |f| {
        f.rdx = 0x21;
        f.rax = 0x1122_3344_5566_7788;
    });
    value!("io.byte_merge", format_args!("{:#x}", trap.frame.rax));
    let trap = kernel(&[0x66, 0xed], |f| {
        f.rdx = 0x21;
        f.rax = 0x1122_3344_5566_7788;
    });
    value!("io.word_merge", format_args!("{:#x}", trap.frame.rax));
    // The configuration address latch is per domain; an absent device reads ones.
    expect_text!("io.cf8_write", kernel(&[0xef], |f| { f.rdx = 0xcf8; f.rax = 0x8000_0000 | 31 << 11; }), "done");
    let trap = kernel(&[0xed], |f| { f.rdx = 0xcf8; f.rax = 0x1122_3344_5566_7788; });
    expect!("io.cf8_reads", trap.frame.rax, 0x8000_0000 | 31 << 11);
    expect_text!("io.cf8_host_bridge", kernel(&[0xef], |f| { f.rdx = 0xcf8; f.rax = 0x8000_0000; }), "done");
    let trap = kernel(&[0xed], |f| f.rdx = 0xcfc);
    value!("io.host_bridge", format_args!("{:#x}", trap.frame.rax));
    expect_text!("io.rtc_index", outb(0x70, 0x0d), "done");
    let trap = inb(0x71);
    value!("io.rtc_valid_ram", format_args!("{:#x}", trap.frame.rax & 0x80));
    // A bitmap opens single ports to user mode.
    let bitmap = alloc_pages(2);
    for page in [bitmap, bitmap.nth(1)] {
        for word in 0..512 {
            page.write(word, u64::MAX);
        }
    }
    bitmap.write(0x80 / 64, !1);
    let set_bitmap = |va: u64, nr_ports: u32| physdev_op(7, &mut [va, u64::from(nr_ports)]);
    expect_text!("bitmap.set", set_bitmap(bitmap.va(), 65536), "0");
    expect_text!("bitmap.too_many", set_bitmap(bitmap.va(), 65537), "-EINVAL");
    expect_text!("bitmap.user_open", user.probe(&[0xec]).with(|f| f.rdx = 0x80).run(), "done");
    expect_text!("bitmap.user_closed", user.probe(&[0xec]).with(|f| f.rdx = 0x81).run(), "#GP(0x0)+0");
    expect_text!("bitmap.user_word", user.probe(&[0x66, 0xed]).with(|f| f.rdx = 0x80).run(), "#GP(0x0)+0");
    expect_text!("bitmap.short", set_bitmap(bitmap.va(), 0x80), "0");
    expect_text!("bitmap.beyond_end", user.probe(&[0xec]).with(|f| f.rdx = 0x80).run(), "#GP(0x0)+0");
    expect_text!("bitmap.unmapped", set_bitmap(0x10000, 65536), "0");
    expect_text!("bitmap.unmapped_user", user.probe(&[0xec]).with(|f| f.rdx = 0x80).run(), "#GP(0x0)+0");
    expect_text!("bitmap.hole", set_bitmap(0xffff_8300_0000_0000, 65536), "-EINVAL");
    expect_text!("bitmap.none", set_bitmap(0, 0), "0");
    expect_text!("io.set_iopl_3", set_iopl(3), "0");
    expect_text!("io.user_iopl_3", user.probe(&[0xec]).with(|f| f.rdx = 0x80).run(), "done");
    expect_text!("io.set_iopl_1", set_iopl(1), "0");
}

/// ins and outs.
fn string_io() {
    let page = alloc_page();
    let trap = kernel(&[0x6c], |f| { f.rdx = 0x21; f.rdi = page.va(); });
    expect_text!("ins.byte", trap, "done");
    expect!("ins.rdi", trap.frame.rdi - page.va(), 1);
    value!("ins.data", format_args!("{:#x}", page.read(0)));
    let trap = kernel(&[0xf3, 0x6c], |f| { f.rdx = 0x21; f.rdi = page.va(); f.rcx = 5; });
    expect_text!("ins.rep", trap, "done");
    expect!("ins.rep_rcx", trap.frame.rcx, 0);
    value!("ins.rep_data", format_args!("{:#x}", page.read(0)));
    let trap = kernel(&[0xf3, 0x6e], |f| { f.rdx = 0x80; f.rsi = page.va(); f.rcx = 3; });
    expect_text!("outs.rep", trap, "done");
    expect!("outs.rep_rsi", trap.frame.rsi - page.va(), 3);
    let trap = kernel(&[0x6c], |f| { f.rdx = 0x21; f.rdi = 0x3000; });
    expect_text!("ins.unmapped", trap, "#PF(0x2)+0");
    check!("ins.unmapped_cr2", trap.cr2 == 0x3000);
    let trap = kernel(&[0x6e], |f| { f.rdx = 0x80; f.rsi = 0x3000; });
    expect_text!("outs.unmapped", trap, "#PF(0x0)+0");
    let trap = kernel(&[0x6c], |f| { f.rdx = 0x21; f.rdi = 0xffff_8300_0000_0000; });
    check!("ins.hole", trap.is(13) || trap.is(14));
}

fn extended_state() {
    let cr4 = kernel(&[0x0f, 0x20, 0xe0], |_| {}).frame.rax;
    let with_xsave = cr4 | 1 << 18;
    expect_text!("xsave.osxsave", kernel(&[0x0f, 0x22, 0xe0], |f| f.rax = with_xsave), "done");
    if kernel(&[0x0f, 0x20, 0xe0], |_| {}).frame.rax != with_xsave {
        value!("xsave.available", false);
        return;
    }
    expect!("xsave.cpuid_bit", cpuid_forced(1, 0)[2] >> 27 & 1, 1);
    let trap = kernel(&[0x0f, 0x01, 0xd0], |f| f.rcx = 0);
    expect_text!("xsave.xgetbv", trap, "done");
    value!("xsave.xcr0", format_args!("{:#x}", trap.frame.rax));
    let xsetbv = |index: u64, value: u64| {
        kernel(&[0x0f, 0x01, 0xd1], |f| {
            f.rcx = index;
            f.rax = value & 0xffff_ffff;
            f.rdx = value >> 32;
        })
    };
    expect_text!("xsetbv.x87_sse", xsetbv(0, 3), "done");
    expect_text!("xsetbv.avx", xsetbv(0, 7), "done");
    expect_text!("xsetbv.none", xsetbv(0, 0), "#GP(0x0)+0");
    expect_text!("xsetbv.no_x87", xsetbv(0, 2), "#GP(0x0)+0");
    expect_text!("xsetbv.avx_without_sse", xsetbv(0, 5), "#GP(0x0)+0");
    expect_text!("xsetbv.reserved", xsetbv(0, 3 | 1 << 62), "#GP(0x0)+0");
    expect_text!("xsetbv.other_register", xsetbv(1, 3), "#GP(0x0)+0");
    expect!("xsetbv.kept", kernel(&[0x0f, 0x01, 0xd0], |f| f.rcx = 0).frame.rax, 7);
    check!("xsave.restore", kernel(&[0x0f, 0x22, 0xe0], |f| f.rax = cr4).done());
}

fn time_stamp(user: &UserSpace) {
    let trap = kernel(&[0x0f, 0x31], |_| {});
    expect_text!("rdtsc.kernel", trap, "done");
    expect_text!("rdtsc.user", user.probe(&[0x0f, 0x31]).run(), "done");
    let cr4 = kernel(&[0x0f, 0x20, 0xe0], |_| {}).frame.rax;
    expect_text!("rdtsc.set_tsd", kernel(&[0x0f, 0x22, 0xe0], |f| f.rax = cr4 | 4), "done");
    expect_text!("rdtsc.user_tsd", user.probe(&[0x0f, 0x31]).run(), "#GP(0x0)+0");
    expect_text!("rdtsc.kernel_tsd", kernel(&[0x0f, 0x31], |_| {}), "done");
    expect_text!("rdtsc.clear_tsd", kernel(&[0x0f, 0x22, 0xe0], |f| f.rax = cr4), "done");
    expect_text!("rdtsc.user_again", user.probe(&[0x0f, 0x31]).run(), "done");
    value!("rdpmc", kernel(&[0x0f, 0x33], |_| {}));
}

/// What the kernel may, its user may not: nothing above changed that.
fn user_privileges(user: &UserSpace) {
    for (name, code) in [
        ("user.rdmsr", &[0x0f, 0x32][..]),
        ("user.cr0", &[0x0f, 0x20, 0xc0]),
        ("user.cr3", &[0x0f, 0x20, 0xd8]),
        ("user.out", &[0xee]),
    ] {
        value!(name, user.probe(code).run());
    }
}
