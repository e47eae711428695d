//! xen_version: every sub-operation, its result and what it says.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::hypercall::{self, Rc, xen_version};
use oxen_guests::mem::alloc_page;
use oxen_guests::sys::{self, nr};
use oxen_guests::{check, expect, expect_text, value};

oxen_guests::test_kernel!("xen-version", run);

fn run() {
    expect!("version", xen_version(0, &mut 0_u64).0, 4 << 16 | 17);
    expect_text!("version.null", raw(0, 0), "262161");
    expect_text!("version.bad_pointer", raw(0, 0x1000), "262161");
    strings();
    features();
    small();
    errors();
}

fn raw(cmd: u64, arg: u64) -> Rc {
    Rc(hypercall::raw(nr::XEN_VERSION, [cmd, arg, 0, 0, 0]))
}

/// Length of the zero-terminated text at `bytes`, or the number of bytes.
fn text_len(bytes: &[u8]) -> usize {
    bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len())
}

fn strings() {
    let mut bytes = [0xff_u8; 1024];
    let mut ask = |cmd: u64| {
        bytes.fill(0xff);
        (xen_version(cmd, &mut bytes), bytes)
    };
    let (rc, extra) = ask(1);
    expect_text!("extraversion", rc, "0");
    check!("extraversion.terminated", text_len(&extra) < 16);
    check!("extraversion.no_more", extra[16..].iter().all(|b| *b == 0xff));
    let (rc, info) = ask(2);
    expect_text!("compile_info", rc, "0");
    for (name, field) in [("compile_info.compiler", 0..64), ("compile_info.by", 64..80), ("compile_info.domain", 80..112), ("compile_info.date", 112..144)] {
        check!(name, text_len(&info[field.clone()]) < field.len());
    }
    check!("compile_info.no_more", info[144..].iter().all(|b| *b == 0xff));
    let (rc, capabilities) = ask(3);
    expect_text!("capabilities", rc, "0");
    let text = core::str::from_utf8(&capabilities[..text_len(&capabilities)]).unwrap_or("not text");
    // A hypervisor may offer more kinds of guest than another; these are what this interface is about.
    expect!("capabilities.pv64", text.split(' ').any(|w| w == "xen-3.0-x86_64"), true);
    value!("capabilities.words_start_well", text.split(' ').all(|w| w.is_empty() || w.starts_with("xen-3.0-") || w.starts_with("hvm-3.0-")));
    let (rc, changeset) = ask(4);
    expect_text!("changeset", rc, "0");
    check!("changeset.terminated", text_len(&changeset) < 64);
    let (rc, command_line) = ask(9);
    expect_text!("command_line", rc, "0");
    check!("command_line.terminated", text_len(&command_line) < 1024);
    check!("command_line.contents", command_line.windows(8).any(|w| w == b"dom0_mem"));
}

fn features() {
    let mut info = [0_u32, 0xdead];
    expect_text!("features", xen_version(6, &mut info), "0");
    expect!("features.bits", info[1], 0x228f0);
    info = [1, 0xdead];
    value!("features.index_1", xen_version(6, &mut info));
    value!("features.index_1_bits", format_args!("{:#x}", info[1]));
    info = [u32::MAX, 0xdead];
    value!("features.index_huge", xen_version(6, &mut info));
    // The bit that an assist switches; the kernel's ELF notes ask for it already.
    expect_text!("features.enable_extended_cr3", hypercall::vm_assist(0, 3), "0");
    info = [0, 0];
    check!("features.again", xen_version(6, &mut info).is_ok());
    value!("features.with_assist", format_args!("{:#x}", info[1]));
}

fn small() {
    let mut start = 0_u64;
    expect_text!("platform_parameters", xen_version(5, &mut start), "0");
    expect!("platform_parameters.virt_start", start == sys::HOLE_START, true);
    expect_text!("pagesize", raw(7, 0), "4096");
    expect_text!("pagesize.argument", xen_version(7, &mut 0_u64), "-EINVAL");
    let mut handle = [0xff_u8; 16];
    expect_text!("guest_handle", xen_version(8, &mut handle), "0");
    expect!("guest_handle.dom0", handle == [0; 16], true);
    // A hypervisor may have been linked without one.
    let length = raw(10, 0);
    check!("build_id.length", length.0 == -61 || (8..=64).contains(&length.0));
    if length.0 > 0 {
        let page = alloc_page();
        check!("build_id.no_room", xen_version(10, &mut [0_u32; 2]) == Rc(-22));
        check!("build_id.short", xen_version(10, &mut [4_u32, 0]) == Rc(-105));
        page.write(0, 512);
        check!("build_id.read", raw(10, page.va()) == length);
    }
}

fn errors() {
    expect_text!("unknown", raw(11, 0), "-ENOSYS");
    expect_text!("unknown_huge", raw(0xffff_ffff, 0), "-ENOSYS");
    for (name, cmd) in [
        ("pointer.extraversion", 1),
        ("pointer.compile_info", 2),
        ("pointer.capabilities", 3),
        ("pointer.changeset", 4),
        ("pointer.platform_parameters", 5),
        ("pointer.features", 6),
        ("pointer.guest_handle", 8),
        ("pointer.command_line", 9),
    ] {
        expect_text!(name, raw(cmd, 0x1000), "-EFAULT");
        expect_text!("pointer.hole", raw(cmd, 0xffff_8300_0000_0000), "-EFAULT");
        expect_text!("pointer.non_canonical", raw(cmd, 1 << 63), "-EFAULT");
    }
    // A buffer that ends in an unmapped page.
    let page = alloc_page();
    let next = alloc_page();
    check!("pointer.adjacent", next.va() == page.va() + 4096 && next.unmap().is_ok());
    expect_text!("pointer.crossing", raw(3, page.va() + 4090), "-EFAULT");
    expect_text!("pointer.crossing_fits", raw(1, page.va() + 4080), "0");
    check!("pointer.restore", next.make_writable().is_ok());
    // Into memory mapped read-only.
    check!("pointer.read_only", page.make_read_only().is_ok());
    expect_text!("pointer.to_read_only", raw(1, page.va()), "-EFAULT");
}
