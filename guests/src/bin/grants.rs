//! Grants of the domain to itself: mapping, unmapping, copying, and wrong requests.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU32, Ordering};
use oxen_guests::hypercall::{self, Rc, handle};
use oxen_guests::mem::{self, FRAME_MASK, PAGE, Page, RW_PAGE, alloc_page, alloc_pages};
use oxen_guests::start::ABSENT_DOMAIN;
use oxen_guests::sys::{self, DOMID_SELF, nr};
use oxen_guests::{check, expect, expect_text, probe::Probe, value};

oxen_guests::test_kernel!("grants", run);

const MAP: u64 = 0;
const UNMAP: u64 = 1;
const SETUP: u64 = 2;
const COPY: u64 = 5;

const PERMIT: u32 = 1;
const READ_ONLY: u32 = 4;
const READING: u32 = 8;
const WRITING: u32 = 16;

fn run() {
    let table = set_up();
    mapping(&table);
    by_pte(&table);
    bad_maps(&table);
    copies(&table);
}

fn op<T: ?Sized>(cmd: u64, arg: &mut T, count: u64) -> Rc {
    Rc(hypercall::raw(nr::GRANT_TABLE_OP, [cmd, handle(arg), count, 0, 0]))
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct SetupTable {
    dom: u16,
    nr_frames: u32,
    status: i16,
    frame_list: u64,
}

const _: () = assert!(size_of::<Copy>() == 40);

/// The table's first page, mapped.
struct Table {
    window: Page,
}

fn set_up() -> Table {
    let mut frames = [0_u64; 1];
    let mut arg = SetupTable { dom: DOMID_SELF, nr_frames: 1, status: 99, frame_list: handle(&mut frames) };
    check!("setup", op(SETUP, &mut arg, 1).is_ok() && arg.status == 0);
    let window = alloc_page();
    check!("setup.map", hypercall::update_va_mapping(window.va(), (frames[0] * PAGE) | RW_PAGE, sys::UVMF_INVLPG).is_ok());
    Table { window }
}

impl Table {
    fn header(&self, reference: u32) -> &'static AtomicU32 {
        // SAFETY: inside the mapped first page of the table; the hypervisor accesses it atomically too.
        unsafe { &*((self.window.va() + u64::from(reference) * 8) as *const AtomicU32) }
    }

    /// Grants `mfn` to `domid`.
    fn grant(&self, reference: u32, domid: u16, mfn: u64, flags: u32) {
        // SAFETY: as in `header`; entries are 8 bytes.
        let frame = unsafe { &*((self.window.va() + u64::from(reference) * 8 + 4) as *const AtomicU32) };
        frame.store(mfn as u32, Ordering::Release);
        self.header(reference).store(u32::from(domid) << 16 | flags, Ordering::Release);
    }

    fn flags(&self, reference: u32) -> u32 {
        self.header(reference).load(Ordering::Acquire) & 0xffff
    }
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct MapGrant {
    host_addr: u64,
    flags: u32,
    reference: u32,
    dom: u16,
    status: i16,
    handle: u32,
    dev_bus_addr: u64,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct UnmapGrant {
    host_addr: u64,
    dev_bus_addr: u64,
    handle: u32,
    status: i16,
}

/// GNTMAP flags.
const HOST: u32 = 2;
const RO: u32 = 4;
const CONTAINS_PTE: u32 = 16;
const DEVICE: u32 = 1;

fn map(dom: u16, reference: u32, host_addr: u64, flags: u32) -> MapGrant {
    let mut arg = MapGrant { host_addr, flags, reference, dom, status: 99, ..MapGrant::default() };
    let rc = op(MAP, &mut arg, 1);
    check!("map.call", rc.is_ok());
    arg
}

fn unmap(handle: u32, host_addr: u64) -> i16 {
    let mut arg = UnmapGrant { host_addr, handle, status: 99, ..UnmapGrant::default() };
    let rc = op(UNMAP, &mut arg, 1);
    check!("unmap.call", rc.is_ok());
    arg.status
}

fn mapping(table: &Table) {
    let data = alloc_page();
    let window = alloc_page();
    data.write(0, 0x1234);
    table.grant(8, 0, data.mfn(), PERMIT);
    let mapped = map(0, 8, window.va(), HOST);
    expect!("map.status", mapped.status, 0);
    check!("map.bus_address", mapped.dev_bus_addr == data.maddr());
    expect!("map.reads", window.read(0), 0x1234);
    window.write(1, 0x5678);
    expect!("map.writes", data.read(1), 0x5678);
    expect!("map.flags", table.flags(8), PERMIT | READING | WRITING);
    value!("map.entry", format_args!("{:#x}", mem::entry(window.va(), 1) & !(FRAME_MASK | 0x07f0_0000_0000_0100)));
    let second_window = alloc_page();
    let second = map(0, 8, second_window.va(), HOST | RO);
    expect!("map.twice", second.status, 0);
    check!("map.other_handle", second.handle != mapped.handle);
    let trap = Probe::kernel(&[0x48, 0x89, 0x00]).with(|f| f.rax = second_window.va()).run();
    expect_text!("map.read_only", trap, "#PF(0x3)+0");
    // The granter's page is referenced: it stays the domain's.
    expect!("unmap.wrong_address", unmap(mapped.handle, second_window.va()), -1);
    expect!("unmap.status", unmap(mapped.handle, window.va()), 0);
    expect!("unmap.gone", mem::entry(window.va(), 1) & 1, 0);
    expect!("unmap.flags", table.flags(8), PERMIT | READING);
    expect!("unmap.twice", unmap(mapped.handle, window.va()), -4);
    expect!("unmap.second", unmap(second.handle, second_window.va()), 0);
    expect!("unmap.flags_clear", table.flags(8), PERMIT);
    expect!("unmap.bad_handle", unmap(0xffff_fff0, window.va()), -4);
    // A read-only grant.
    table.grant(9, 0, data.mfn(), PERMIT | READ_ONLY);
    expect!("map.write_of_read_only", map(0, 9, window.va(), HOST).status, -1);
    let read_only = map(0, 9, window.va(), HOST | RO);
    expect!("map.read_of_read_only", read_only.status, 0);
    expect!("map.read_only_flags", table.flags(9), PERMIT | READ_ONLY | READING);
    expect!("unmap.read_only", unmap(read_only.handle, window.va()), 0);
    // A list of several, of which one is wrong.
    let mut list = [MapGrant::default(); 3];
    for (entry, reference) in list.iter_mut().zip([8, 4000, 9]) {
        *entry = MapGrant { host_addr: window.va(), flags: HOST | RO, reference, dom: 0, status: 99, ..MapGrant::default() };
    }
    list[2].host_addr = second_window.va();
    expect_text!("list.call", op(MAP, &mut list, 3), "0");
    value!("list.status", format_args!("{} {} {}", list[0].status, list[1].status, list[2].status));
    check!("list.unmap", unmap(list[0].handle, window.va()) == 0 && unmap(list[2].handle, second_window.va()) == 0);
    check!("restore", window.make_writable().is_ok() && second_window.make_writable().is_ok());
}

fn by_pte(table: &Table) {
    let data = alloc_page();
    let window = alloc_page();
    data.write(0, 0x4321);
    table.grant(10, 0, data.mfn(), PERMIT);
    check!("pte.clear", window.unmap().is_ok());
    let entry = mem::entry_maddr(window.va(), 1);
    let mapped = map(0, 10, entry, HOST | CONTAINS_PTE);
    expect!("pte.status", mapped.status, 0);
    expect!("pte.reads", window.read(0), 0x4321);
    // The entry changed behind the hypervisor's back: unmapping must notice.
    expect!("pte.wrong_entry", unmap(mapped.handle, entry + 8), -1);
    expect!("pte.unmap", unmap(mapped.handle, entry), 0);
    expect!("pte.gone", mem::entry(window.va(), 1), 0);
    // Available bits travel with the mapping (gntdev).
    let mapped = map(0, 10, entry, HOST | CONTAINS_PTE | 1 << 16);
    value!("pte.available", format_args!("{} {:#x}", mapped.status, mem::entry(window.va(), 1) >> 52 & 0x7f));
    value!("pte.available_unmap", unmap(mapped.handle, entry));
    value!("pte.unaligned", map(0, 10, entry + 4, HOST | CONTAINS_PTE).status);
    value!("pte.no_table", map(0, 10, alloc_page().maddr(), HOST | CONTAINS_PTE).status);
    value!("pte.beyond_memory", map(0, 10, 0xff_ffff_ffff_f000, HOST | CONTAINS_PTE).status);
    value!("pte.l4", map(0, 10, mem::l4_maddr(), HOST | CONTAINS_PTE).status);
    check!("pte.restore", window.make_writable().is_ok());
    // Device mappings only count.
    let device = map(0, 10, 0, DEVICE);
    expect!("device.status", device.status, 0);
    expect!("device.flags", table.flags(10), PERMIT | READING | WRITING);
    let mut arg = UnmapGrant { dev_bus_addr: device.dev_bus_addr, handle: device.handle, status: 99, ..UnmapGrant::default() };
    check!("device.call", op(UNMAP, &mut arg, 1).is_ok());
    expect!("device.unmap", arg.status, 0);
    expect!("device.flags_clear", table.flags(10), PERMIT);
}

fn bad_maps(table: &Table) {
    let data = alloc_page();
    let window = alloc_page();
    let entry = mem::entry(window.va(), 1);
    table.grant(11, ABSENT_DOMAIN, data.mfn(), PERMIT);
    table.grant(12, 0, 0xffff_ffff, PERMIT);
    table.grant(13, 0, mem::l4_maddr() / PAGE, PERMIT);
    table.grant(14, 0, data.mfn(), 2);
    table.grant(15, 0, data.mfn(), 3);
    table.grant(16, 0, data.mfn(), PERMIT);
    let status = |name: &str, dom: u16, reference: u32, address: u64, flags: u32| {
        let mapped = map(dom, reference, address, flags);
        value!(name, mapped.status);
        if mapped.status == 0 {
            check!("bad.undo", unmap(mapped.handle, address) == 0);
        }
    };
    status("bad.other_grantee", 0, 11, window.va(), HOST);
    status("bad.frame", 0, 12, window.va(), HOST);
    status("bad.page_table", 0, 13, window.va(), HOST);
    status("bad.page_table_read_only", 0, 13, window.va(), HOST | RO);
    status("bad.transfer_entry", 0, 14, window.va(), HOST);
    status("bad.transitive_entry", 0, 15, window.va(), HOST);
    status("bad.free_entry", 0, 100, window.va(), HOST);
    status("bad.beyond_table", 0, 1_000_000, window.va(), HOST);
    status("bad.absent_domain", ABSENT_DOMAIN, 16, window.va(), HOST);
    status("bad.self", DOMID_SELF, 16, window.va(), HOST);
    status("bad.no_kind", 0, 16, window.va(), 0);
    status("bad.no_kind_read_only", 0, 16, window.va(), RO);
    status("bad.unmapped_address", 0, 16, 0x4000_0000_0000, HOST);
    status("bad.hole", 0, 16, sys::HOLE_START, HOST);
    status("bad.non_canonical", 0, 16, 1 << 63, HOST);
    for reference in 11..=16 {
        value!("bad.flags_after", table.flags(reference));
    }
    check!("bad.window_kept", mem::entry(window.va(), 1) & FRAME_MASK == entry & FRAME_MASK || window.make_writable().is_ok());
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Copy {
    source: u64,
    source_dom: u16,
    source_offset: u16,
    dest: u64,
    dest_dom: u16,
    dest_offset: u16,
    pad: u32,
    len: u16,
    flags: u16,
    status: i16,
}

fn copies(table: &Table) {
    let pages = alloc_pages(2);
    let (from, to) = (pages, pages.nth(1));
    for word in 0..512 {
        from.write(word, word as u64 + 1);
    }
    table.grant(20, 0, from.mfn(), PERMIT | READ_ONLY);
    table.grant(21, 0, to.mfn(), PERMIT);
    let base = Copy { source: 20, source_dom: 0, dest: to.mfn(), dest_dom: DOMID_SELF, len: 4096, flags: 1, status: 99, ..Copy::default() };
    let run = |name: &str, change: fn(&mut Copy)| {
        let mut arg = base;
        change(&mut arg);
        let rc = op(COPY, &mut arg, 1);
        value!(name, format_args!("{rc} {}", arg.status));
    };
    run("copy.page", |_| {});
    expect!("copy.done", (0..512).filter(|word| to.read(*word) == *word as u64 + 1).count(), 512);
    to.clear();
    run("copy.part", |c| { c.len = 16; c.source_offset = 8; c.dest_offset = 100; });
    expect!("copy.part_low", to.read(12) >> 32, 2);
    run("copy.nothing", |c| c.len = 0);
    run("copy.source_end", |c| c.source_offset = 1);
    run("copy.dest_end", |c| c.dest_offset = 4000);
    run("copy.offset_huge", |c| { c.source_offset = 0xffff; c.len = 0xffff; });
    run("copy.bad_reference", |c| c.source = 100);
    run("copy.reference_beyond", |c| c.source = 1_000_000);
    run("copy.absent_source", |c| c.source_dom = ABSENT_DOMAIN);
    run("copy.absent_dest", |c| c.dest_dom = ABSENT_DOMAIN);
    run("copy.bad_frame", |c| c.dest = 0xff_ffff_ffff);
    run("copy.to_read_only_grant", |c| { c.dest = 20; c.dest_dom = 0; c.flags = 3; });
    run("copy.to_grant", |c| { c.dest = 21; c.dest_dom = 0; c.flags = 3; });
    run("copy.foreign_frame", |c| { c.dest_dom = ABSENT_DOMAIN; });
    let mut arg = Copy { dest: mem::l4_maddr() / PAGE, len: 8, ..base };
    value!("copy.to_page_table", format_args!("{} {}", op(COPY, &mut arg, 1), arg.status));
    expect!("copy.flags_after", table.flags(20), PERMIT | READ_ONLY);
    expect!("copy.flags_after_dest", table.flags(21), PERMIT);
    // Sixteen in one call.
    let mut list = [Copy { len: 8, ..base }; 16];
    for (index, entry) in list.iter_mut().enumerate() {
        entry.source_offset = index as u16 * 8;
        entry.dest_offset = (15 - index as u16) * 8;
    }
    expect_text!("copy.list", op(COPY, &mut list, 16), "0");
    expect!("copy.list_status", list.iter().filter(|c| c.status == 0).count(), 16);
    expect!("copy.list_reversed", (0..16).filter(|i| to.read(15 - i) == *i as u64 + 1).count(), 16);
}

