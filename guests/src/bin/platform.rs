//! platform_op, console_io, the calls of the control stack and unknown hypercalls, by their result codes.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::hypercall::{self, Rc, handle};
use oxen_guests::mem::alloc_page;
use oxen_guests::sys::{self, PlatformOp, nr};
use oxen_guests::{check, expect, expect_text, value};

oxen_guests::test_kernel!("platform", run);

fn run() {
    platform();
    console();
    control();
}

fn platform_op(op: &mut PlatformOp) -> Rc {
    Rc(hypercall::raw(nr::PLATFORM_OP, [handle(op), 0, 0, 0, 0]))
}

fn platform() {
    let simple = |cmd: u32| platform_op(&mut PlatformOp::new(cmd));
    expect_text!("platform.version", platform_op(&mut PlatformOp { interface_version: 0x0300_0000, ..PlatformOp::new(55) }), "-EACCES");
    expect_text!("platform.version_before_command", platform_op(&mut PlatformOp { interface_version: 1, ..PlatformOp::new(9999) }), "-EACCES");
    expect_text!("platform.unknown", simple(9999), "-ENOSYS");
    value!("platform.unknown_zero", simple(0));
    expect_text!("platform.bad_pointer", Rc(hypercall::raw(nr::PLATFORM_OP, [0x1000, 0, 0, 0, 0])), "-EFAULT");
    // pcpuinfo: processor 0 is online, an absent one is not.
    let mut op = PlatformOp::new(55);
    expect_text!("cpuinfo", platform_op(&mut op), "0");
    expect!("cpuinfo.flags", op.body[1] as u32, 1);
    let mut op = PlatformOp::new(55);
    op.body[0] = 5000;
    value!("cpuinfo.absent", platform_op(&mut op));
    // settime64 with the current second: the wall clock stays plausible.
    let mut op = PlatformOp::new(62);
    op.body[0] = 1_800_000_000;
    expect_text!("settime64", platform_op(&mut op), "0");
    let mut op = PlatformOp::new(62);
    op.body[1] = 1 << 32;
    value!("settime64.must_be_zero", platform_op(&mut op));
    let firmware = |kind: u64, index: u64| {
        let mut op = PlatformOp::new(50);
        op.body[0] = kind | index << 32;
        platform_op(&mut op)
    };
    value!("firmware.disk_beyond", firmware(1, 1000));
    value!("firmware.mbr_beyond", firmware(2, 1000));
    value!("firmware.unknown", firmware(99, 0));
    value!("firmware.efi_version", firmware(4, 0));
    check!("firmware.keyboard", firmware(5, 0).is_ok() || firmware(5, 0).0 < 0);
    value!("efi_runtime_call", simple(49));
    value!("cpu_online.absent", { let mut op = PlatformOp::new(56); op.body[0] = 5000; platform_op(&mut op) });
    value!("cpu_offline.boot", simple(57));
    value!("pminfo.unknown", { let mut op = PlatformOp::new(54); op.body[0] = 99 << 32; platform_op(&mut op) });
    value!("sleep.state_zero", simple(51));
    value!("symbol.beyond", { let mut op = PlatformOp::new(63); op.body[0] = 0xffff_ffff << 32; platform_op(&mut op) });
}

fn console() {
    let io = |cmd: u64, count: u64, buffer: u64| Rc(hypercall::raw(nr::CONSOLE_IO, [cmd, count, buffer, 0, 0]));
    expect_text!("console.nothing", io(0, 0, 0), "0");
    expect_text!("console.bad_pointer", io(0, 5, 0x1000), "-EFAULT");
    expect_text!("console.hole", io(0, 5, sys::HOLE_START), "-EFAULT");
    expect_text!("console.unknown", io(2, 0, 0), "-ENOSYS");
    let page = alloc_page();
    expect_text!("console.read_none", io(1, 16, page.va()), "0");
    value!("console.huge_write", io(0, 0xffff_ffff, 0x1000));
    value!("console.huge_read", io(1, 0xffff_ffff, page.va()));
}

fn control() {
    // A wrong interface version is refused before anything else.
    let page = alloc_page();
    for (name, number) in [("sysctl", nr::SYSCTL), ("domctl", nr::DOMCTL)] {
        page.clear();
        value!(name, Rc(hypercall::raw(number, [page.va(), 0, 0, 0, 0])));
        page.write(0, 0x15 << 32 | 9999);
        value!("control.unknown", Rc(hypercall::raw(number, [page.va(), 0, 0, 0, 0])));
        expect_text!("control.bad_pointer", Rc(hypercall::raw(number, [0x1000, 0, 0, 0, 0])), "-EFAULT");
    }
    // Numbers that exist, but whose service a hypervisor may lack (profiling, Argo, crash kernels and the like), are left out.
    for number in [38, 43, 47, 50, 55, 56, 63, 64, 1000, 0xffff_ffff] {
        value!("number", format_args!("{number} {}", Rc(hypercall::raw(number, [0; 5]))));
    }
    // The number is 32 bits wide.
    value!("number.upper_bits", Rc(hypercall::raw(nr::XEN_VERSION | 1 << 32, [0; 5])));
    value!("hvm_op", Rc(hypercall::raw(34, [99, 0, 0, 0, 0])));
}
