//! Descriptor tables: set_gdt, update_descriptor, the LDT, and what a loaded selector then does.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_guests::hypercall::{self, Rc, mmuext};
use oxen_guests::mem::{self, Page, alloc_page, alloc_pages};
use oxen_guests::probe::{Probe, Trap};
use oxen_guests::start::start_info;
use oxen_guests::sys::{self, MMUEXT_SET_LDT};
use oxen_guests::{check, expect, expect_text, value};

oxen_guests::test_kernel!("descriptors", run);

/// Flat 64-bit code, ring 3, accessed.
const CODE64: u64 = 0x00af_fb00_0000_ffff;
/// Flat 32-bit code, ring 3, accessed.
const CODE32: u64 = 0x00cf_fb00_0000_ffff;
/// Flat writable data, ring 3, accessed.
const DATA: u64 = 0x00cf_f300_0000_ffff;

/// mov ds, ax.
const LOAD_DS: &[u8] = &[0x8e, 0xd8];
/// mov ss, ax.
const LOAD_SS: &[u8] = &[0x8e, 0xd0];

fn run() {
    gdt();
    update();
    use_of_segments();
    ldt();
}

fn set_gdt(frames: &mut [u64], entries: u64) -> Rc {
    Rc(hypercall::raw(sys::nr::SET_GDT, [hypercall::handle(frames), entries, 0, 0, 0]))
}

fn update_descriptor(page: Page, index: u64, descriptor: u64) -> Rc {
    Rc(hypercall::raw(sys::nr::UPDATE_DESCRIPTOR, [page.maddr() + index * 8, descriptor, 0, 0, 0]))
}

fn load(code: &[u8], selector: u64) -> Trap {
    Probe::kernel(code).with(|f| f.rax = selector).run()
}

fn gdt() {
    let page = alloc_page();
    page.write(1, DATA);
    expect_text!("gdt.empty", set_gdt(&mut [0], 0), "0");
    expect_text!("gdt.no_entry_yet", load(LOAD_DS, 0x0b), "#GP(0x8)+0");
    expect_text!("gdt.writable_page", set_gdt(&mut [page.mfn()], 512), "-EINVAL");
    check!("gdt.make_read_only", page.make_read_only().is_ok());
    expect_text!("gdt.set", set_gdt(&mut [page.mfn()], 512), "0");
    expect_text!("gdt.load_ds", load(LOAD_DS, 0x0b), "done");
    expect_text!("gdt.load_ds_back", load(LOAD_DS, 0), "done");
    expect_text!("gdt.in_use", page.make_writable(), "-EBUSY");
    expect_text!("gdt.as_table", mmuext(0, page.mfn(), 0), "-EINVAL");
    expect_text!("gdt.too_many", set_gdt(&mut [page.mfn()], 7169), "-EINVAL");
    expect_text!("gdt.bad_pointer", Rc(hypercall::raw(sys::nr::SET_GDT, [0x1000, 512, 0, 0, 0])), "-EFAULT");
    expect_text!("gdt.page_table", set_gdt(&mut [start_info().pt_base / 4096], 512), "-EINVAL");
    expect_text!("gdt.beyond_memory", set_gdt(&mut [0xff_ffff_ffff], 512), "-EINVAL");
    expect_text!("gdt.kept_after_error", load(LOAD_DS, 0x0b), "done");
    expect_text!("gdt.second_frame_bad", set_gdt(&mut [page.mfn(), 0xff_ffff_ffff], 1024), "-EINVAL");
    // The whole frame becomes valid whatever the number of entries says.
    value!("gdt.one_entry", set_gdt(&mut [page.mfn()], 1));
    value!("gdt.one_entry_load", load(LOAD_DS, 0x0b));
    expect_text!("gdt.remove", set_gdt(&mut [], 0), "0");
    expect_text!("gdt.removed", load(LOAD_DS, 0x0b), "#GP(0x8)+0");
    expect_text!("gdt.released", page.make_writable(), "0");
    // Descriptors that the hypervisor must not accept.
    let try_with = |name: &'static str, descriptor: u64| {
        let page = alloc_page();
        page.write(3, descriptor);
        check!(name, page.make_read_only().is_ok());
        let rc = set_gdt(&mut [page.mfn()], 512);
        value!(name, rc);
        if rc.is_ok() {
            value!("gdt.becomes", format_args!("{:#x}", page.read(3)));
            check!(name, set_gdt(&mut [], 0).is_ok());
        }
        check!(name, page.make_writable().is_ok());
    };
    for (name, descriptor) in DESCRIPTORS {
        try_with(name, *descriptor);
    }
}

/// Descriptors of every interesting kind.
const DESCRIPTORS: &[(&str, u64)] = &[
    ("kind.zero", 0),
    ("kind.data_ring3", DATA),
    ("kind.data_ring0", DATA & !(3 << 45)),
    ("kind.data_not_accessed", DATA & !(1 << 40)),
    ("kind.code64_ring3", CODE64),
    ("kind.code64_ring0", CODE64 & !(3 << 45)),
    ("kind.code32_ring1", CODE32 & !(2 << 45)),
    ("kind.conforming_ring0", (CODE64 | 1 << 42) & !(3 << 45)),
    ("kind.code_l_and_d", CODE64 | 1 << 54),
    ("kind.data_l", DATA | 1 << 53),
    ("kind.not_present", DATA & !(1 << 47)),
    ("kind.not_present_garbage", 0xffff_7fff_ffff_ffff),
    ("kind.call_gate", 0x0000_8c00_0008_0000),
    ("kind.interrupt_gate", 0x0000_8e00_0008_0000),
    ("kind.trap_gate", 0x0000_8f00_0008_0000),
    ("kind.task_gate", 0x0000_8500_0008_0000),
    ("kind.tss", 0x0000_8900_0000_0067),
    ("kind.tss_busy", 0x0000_8b00_0000_0067),
    ("kind.ldt", 0x0000_8200_0000_ffff),
];

fn update() {
    let page = alloc_page();
    expect_text!("update.writable_page", update_descriptor(page, 4, DATA), "0");
    expect!("update.written", page.read(4), DATA);
    check!("update.make_read_only", page.make_read_only().is_ok());
    check!("update.set_gdt", set_gdt(&mut [page.mfn()], 512).is_ok());
    for (name, descriptor) in DESCRIPTORS {
        let rc = update_descriptor(page, 5, *descriptor);
        let read = page.read(5);
        value!(name, format_args!("update {rc}, reads {read:#x}"));
        check!("update.clear", update_descriptor(page, 5, 0).is_ok());
    }
    expect_text!("update.unaligned", Rc(hypercall::raw(sys::nr::UPDATE_DESCRIPTOR, [page.maddr() + 4, DATA, 0, 0, 0])), "-EINVAL");
    expect_text!("update.beyond_memory", Rc(hypercall::raw(sys::nr::UPDATE_DESCRIPTOR, [0xf_ffff_ffff_f000, DATA, 0, 0, 0])), "-EINVAL");
    expect_text!("update.page_table", Rc(hypercall::raw(sys::nr::UPDATE_DESCRIPTOR, [mem::l4_maddr(), DATA, 0, 0, 0])), "-EINVAL");
    check!("update.remove", set_gdt(&mut [], 0).is_ok());
    check!("update.release", page.make_writable().is_ok());
}

fn use_of_segments() {
    let page = alloc_page();
    for (index, descriptor) in [(1, CODE64), (2, DATA), (3, CODE32), (4, DATA & !(1 << 47)), (5, DATA & !(1 << 41))] {
        page.write(index, descriptor);
    }
    check!("use.make_read_only", page.make_read_only().is_ok());
    expect_text!("use.set_gdt", set_gdt(&mut [page.mfn()], 512), "0");
    expect_text!("use.own_cs_ss", Probe::kernel(&[0x90]).with(|f| { f.cs = 0x08; f.ss = 0x13; }).run(), "done");
    let trap = Probe::kernel(&[0x0f, 0x0b]).with(|f| { f.cs = 0x08; f.ss = 0x13; }).run();
    expect!("use.cs_in_frame", trap.frame.cs & 0xffff, 8);
    expect!("use.ss_in_frame", trap.frame.ss, 0x13);
    expect_text!("use.not_present", load(LOAD_DS, 0x23), "#NP(0x20)+0");
    expect_text!("use.ss_not_present", load(LOAD_SS, 0x23), "#SS(0x20)+0");
    expect_text!("use.ss_read_only", load(LOAD_SS, 0x2b), "#GP(0x28)+0");
    expect_text!("use.ss_code", load(LOAD_SS, 0x0b), "#GP(0x8)+0");
    expect_text!("use.ds_code", load(LOAD_DS, 0x0b), "done");
    expect_text!("use.beyond", load(LOAD_DS, 0xffb), "#GP(0xff8)+0");
    expect_text!("use.beyond_page", load(LOAD_DS, 0x1003), "#GP(0x1000)+0");
    expect_text!("use.ds_back", load(LOAD_DS, 0), "done");
    // lar, lsl and verr tell what the hypervisor's own descriptors look like to a guest: nothing it may use.
    let trap = Probe::kernel(&[0x0f, 0x02, 0xd8]).with(|f| f.rax = 0xe008).run();
    expect!("use.lar_hypervisor_zf", trap.frame.rflags & 0x40, 0);
    let trap = Probe::kernel(&[0x0f, 0x02, 0xd8]).with(|f| f.rax = 0x10).run();
    expect!("use.lar_own_zf", trap.frame.rflags & 0x40, 0x40);
    value!("use.lar_own", format_args!("{:#x}", trap.frame.rbx));
    check!("use.remove", set_gdt(&mut [], 0).is_ok());
}

fn set_ldt(va: u64, entries: u64) -> Rc {
    mmuext(MMUEXT_SET_LDT, va, entries)
}

fn ldt() {
    let pages = alloc_pages(2);
    pages.write(1, DATA);
    pages.nth(1).write(0, DATA);
    expect_text!("ldt.unaligned", set_ldt(pages.va() + 8, 4), "-EINVAL");
    expect_text!("ldt.too_many", set_ldt(pages.va(), 8193), "-EINVAL");
    expect_text!("ldt.hole", set_ldt(sys::HOLE_START, 4), "-EINVAL");
    value!("ldt.non_canonical", set_ldt(1 << 63, 4));
    expect_text!("ldt.none", load(LOAD_DS, 0x0f), "#GP(0xc)+0");
    // Pages are looked at on the first use. A writable one is no descriptor page.
    expect_text!("ldt.set", set_ldt(pages.va(), 1024), "0");
    value!("ldt.writable_page", load(LOAD_DS, 0x0f));
    check!("ldt.read_only", pages.make_read_only().is_ok() && pages.nth(1).make_read_only().is_ok());
    check!("ldt.set_again", set_ldt(0, 0).is_ok() && set_ldt(pages.va(), 1024).is_ok());
    expect_text!("ldt.load", load(LOAD_DS, 0x0f), "done");
    expect_text!("ldt.in_use", pages.make_writable(), "-EBUSY");
    expect_text!("ldt.second_page_unused", pages.nth(1).make_writable(), "0");
    expect_text!("ldt.second_page_read_only", pages.nth(1).make_read_only(), "0");
    expect_text!("ldt.second_page", load(LOAD_DS, 0x1007), "done");
    expect_text!("ldt.beyond", load(LOAD_DS, 0x2007), "#GP(0x2004)+0");
    expect_text!("ldt.update", update_descriptor(pages, 2, DATA), "0");
    expect_text!("ldt.updated", load(LOAD_DS, 0x17), "done");
    expect_text!("ldt.null", load(LOAD_DS, 0), "done");
    // An LDT over unmapped memory.
    expect_text!("ldt.unmapped", set_ldt(0x10000, 4), "0");
    let trap = load(LOAD_DS, 0x0f);
    value!("ldt.unmapped_load", trap);
    value!("ldt.unmapped_cr2", format_args!("{:#x}", trap.cr2));
    expect_text!("ldt.remove", set_ldt(0, 0), "0");
    expect_text!("ldt.removed", load(LOAD_DS, 0x0f), "#GP(0xc)+0");
    expect_text!("ldt.released", pages.make_writable(), "0");

}
