//! Grants between domains: seeding another's table, mapping, copying, and what becomes of grants whose domain ends.
#![cfg_attr(target_os = "none", no_std, no_main)]

use oxen_abi::domctl::DomctlCmd;
use oxen_abi::grant_table::{
    CopyPtr, GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF, GNTMAP_DEVICE_MAP, GNTMAP_HOST_MAP, GNTMAP_READONLY, GTF_PERMIT_ACCESS, GTF_READONLY, GetVersion,
    GrantCopy, GrantStatus, GrantTableOp, MapGrantRef, QuerySize, SetVersion, SetupTable, Transfer, UnmapGrantRef,
};
use oxen_abi::memory::MemAcquireResource;
use oxen_abi::memory::ResourceType;
use oxen_abi::GuestHandle;
use oxen_guests::domu::{CHILD_BASE, Remote, SPARE, domctl_plain, exists, map_foreign, wait_until};
use oxen_guests::hypercall::{self, Rc, handle, memory_op};
use oxen_guests::mem::{self, PAGE, Page, RW_PAGE, alloc_page};
use oxen_guests::start::ABSENT_DOMAIN;
use oxen_guests::sys::{self, DOMID_SELF, nr};
use oxen_guests::{check, expect, expect_text, value};

oxen_guests::test_kernel!("domain-grants", run);

/// References in the child's table: to this domain, likewise read-only, to nobody, of its root table, to itself.
const RW_REF: u32 = 9;
const RO_REF: u32 = 10;
const OTHER_REF: u32 = 11;
const TABLE_REF: u32 = 12;
const COPY_REF: u32 = 14;
/// A reference of this domain's, to the child.
const TO_CHILD: u32 = 20;

fn op<T>(cmd: GrantTableOp, arg: &mut T) -> Rc {
    Rc(hypercall::raw(nr::GRANT_TABLE_OP, [cmd.raw().into(), handle(arg), 1, 0, 0]))
}

fn entry(domain: u16, flags: u16, mfn: u64) -> u64 {
    mfn << 32 | u64::from(domain) << 16 | u64::from(flags)
}

fn run() {
    let (window, data, table) = (alloc_page(), alloc_page(), alloc_page());
    let remote = Remote::start(window, data);
    find_table(&remote, table);
    let child = remote.child;
    let shared = child.frames[SPARE];
    table.write(RW_REF as usize, entry(0, GTF_PERMIT_ACCESS, shared));
    table.write(RO_REF as usize, entry(0, GTF_PERMIT_ACCESS | GTF_READONLY, shared));
    table.write(OTHER_REF as usize, entry(ABSENT_DOMAIN, GTF_PERMIT_ACCESS, shared));
    table.write(TABLE_REF as usize, entry(0, GTF_PERMIT_ACCESS, child.root()));
    table.write(COPY_REF as usize, entry(0, GTF_PERMIT_ACCESS, child.frames[SPARE + 1]));
    let flags = |reference: u32| table.read(reference as usize) & 0xffff;
    maps(&remote, window, &flags);
    copies(&remote, window, &flags);
    mapped_by_the_child(&remote, window);
    ends(remote, window, table);
}

/// Learns where the child's table is, in each way, and maps its first frame.
fn find_table(remote: &Remote, table: Page) {
    let id = remote.child.id;
    let mut frames = [0_u64; 4];
    let resource = |kind: ResourceType, id_in_kind: u32, frame: u64, nr_frames: u32, list: u64| MemAcquireResource {
        domid: id,
        kind,
        id: id_in_kind,
        nr_frames,
        frame,
        frame_list: GuestHandle::new(list),
        ..MemAcquireResource::default()
    };
    let grants = ResourceType::GRANT_TABLE;
    let mut size = resource(grants, 0, 0, 0, 0);
    value!("resource.size", format_args!("{} {}", memory_op(28, &mut size), size.nr_frames));
    value!("resource.bad_id", memory_op(28, &mut resource(grants, 7, 0, 1, handle(&mut frames))));
    value!("resource.beyond", memory_op(28, &mut resource(grants, 0, 64, 1, handle(&mut frames))));
    value!("resource.overflow", memory_op(28, &mut resource(grants, 0, u64::MAX, 2, handle(&mut frames))));
    value!("resource.unknown", memory_op(28, &mut resource(ResourceType(77), 0, 0, 1, handle(&mut frames))));
    value!("resource.trace", memory_op(28, &mut resource(ResourceType::VMTRACE_BUF, 0, 0, 1, handle(&mut frames))));
    expect_text!("resource", memory_op(28, &mut resource(grants, 0, 0, 2, handle(&mut frames))), "0");
    let mut listed = [0_u64; 2];
    let mut setup = SetupTable { dom: id, nr_frames: 2, status: GrantStatus(99), frame_list: GuestHandle::new(handle(&mut listed)), ..SetupTable::default() };
    expect_text!("setup", op(GrantTableOp::SETUP_TABLE, &mut setup), "0");
    expect!("setup.status", setup.status.raw(), 0);
    check!("setup.same", listed[0] == frames[0] && listed[1] == frames[1] && frames[0] != frames[1]);
    let mut query = QuerySize { dom: id, ..QuerySize::default() };
    check!("query.call", op(GrantTableOp::QUERY_SIZE, &mut query).is_ok());
    value!("query", format_args!("{} {} of {}", query.status.raw(), query.nr_frames, query.max_nr_frames));
    let mut version = GetVersion { dom: id, ..GetVersion::default() };
    value!("version", format_args!("{} {}", op(GrantTableOp::GET_VERSION, &mut version), version.version));
    expect_text!("map_table", map_foreign(table, frames[0], id, RW_PAGE), "0");
    // What the child gets when it asks.
    remote.put(&SetVersion { version: 2 });
    value!("child.set_version", remote.call(nr::GRANT_TABLE_OP, [GrantTableOp::SET_VERSION.raw().into(), remote.argument(), 1, 0, 0]));
    remote.put(&SetupTable { dom: 0, nr_frames: 1, frame_list: GuestHandle::new(remote.argument() + 256), ..SetupTable::default() });
    check!("child.setup", remote.call(nr::GRANT_TABLE_OP, [GrantTableOp::SETUP_TABLE.raw().into(), remote.argument(), 1, 0, 0]).is_ok());
    value!("child.setup_of_dom0", remote.get::<SetupTable>().status.raw());
}

fn map(domain: u16, reference: u32, address: u64, flags: u32) -> MapGrantRef {
    let mut request = MapGrantRef { host_addr: address, flags, gref: reference, dom: domain, status: GrantStatus(99), ..MapGrantRef::default() };
    check!("map.call", op(GrantTableOp::MAP_GRANT_REF, &mut request).is_ok());
    request
}

fn unmap(mapped: &MapGrantRef, address: u64, bus: u64) -> i16 {
    let mut request = UnmapGrantRef { host_addr: address, dev_bus_addr: bus, handle: mapped.handle, status: GrantStatus(99), ..UnmapGrantRef::default() };
    check!("unmap.call", op(GrantTableOp::UNMAP_GRANT_REF, &mut request).is_ok());
    request.status.raw()
}

fn maps(remote: &Remote, window: Page, flags: &dyn Fn(u32) -> u64) {
    let id = remote.child.id;
    let spare = alloc_page();
    let mapped = map(id, RW_REF, window.va(), GNTMAP_HOST_MAP);
    expect!("map", mapped.status.raw(), 0);
    value!("map.flags", flags(RW_REF));
    window.write(3, 0x5eed);
    remote.child.with_page(spare, SPARE, |page| expect!("map.same_frame", page.read(3), 0x5eed));
    let both = map(id, RW_REF, spare.va(), GNTMAP_HOST_MAP | GNTMAP_DEVICE_MAP | GNTMAP_READONLY);
    expect!("map.both", both.status.raw(), 0);
    expect!("unmap", unmap(&mapped, window.va(), 0), 0);
    value!("unmap.flags", flags(RW_REF));
    expect!("unmap.host_side", unmap(&both, spare.va(), 0), 0);
    value!("unmap.host_side_flags", flags(RW_REF));
    expect!("unmap.device_side", unmap(&both, 0, both.dev_bus_addr), 0);
    value!("unmap.all_flags", flags(RW_REF));
    value!("map.read_only_grant", map(id, RO_REF, window.va(), GNTMAP_HOST_MAP).status.raw());
    value!("map.somebody_else_s", map(id, OTHER_REF, window.va(), GNTMAP_HOST_MAP).status.raw());
    value!("map.page_table", map(id, TABLE_REF, window.va(), GNTMAP_HOST_MAP).status.raw());
    let table = map(id, TABLE_REF, window.va(), GNTMAP_HOST_MAP | GNTMAP_READONLY);
    value!("map.page_table_read_only", table.status.raw());
    if table.status == GrantStatus::OKAY {
        check!("map.page_table_undo", unmap(&table, window.va(), 0) == 0);
    }
    value!("map.absent", map(ABSENT_DOMAIN, RW_REF, window.va(), GNTMAP_HOST_MAP).status.raw());
    value!("map.beyond", map(id, 5000, window.va(), GNTMAP_HOST_MAP).status.raw());
    for reference in [RW_REF, RO_REF, OTHER_REF, TABLE_REF] {
        value!("map.flags_after", flags(reference));
    }
    // The child takes its grant back while it is mapped: the mapping holds what it had.
    check!("restore", window.make_writable().is_ok() && spare.make_writable().is_ok());
    let mut transfer = Transfer { mfn: spare.mfn(), domid: id, gref: RW_REF, status: GrantStatus(99), ..Transfer::default() };
    check!("transfer.call", op(GrantTableOp::TRANSFER, &mut transfer).is_ok());
    check!("transfer.refused", transfer.status != GrantStatus::OKAY);
}

fn copies(remote: &Remote, window: Page, flags: &dyn Fn(u32) -> u64) {
    let id = remote.child.id;
    let own = alloc_page();
    own.write(0, 0x1111);
    let by_ref = |reference: u32| CopyPtr { u: reference.into(), domid: id, ..CopyPtr::default() };
    let mine = CopyPtr { u: own.mfn(), domid: DOMID_SELF, ..CopyPtr::default() };
    let run = |name: &str, source: CopyPtr, dest: CopyPtr, flags: u16, len: u16| {
        let mut request = GrantCopy { source, dest, len, flags, status: GrantStatus(99), ..GrantCopy::default() };
        check!("copy.call", op(GrantTableOp::COPY, &mut request).is_ok());
        value!(name, request.status.raw());
    };
    run("copy.to_child", mine, by_ref(COPY_REF), GNTCOPY_DEST_GREF, 4096);
    remote.child.with_page(window, SPARE + 1, |page| {
        expect!("copy.arrived", page.read(0), 0x1111);
        page.write(1, 0x2222);
    });
    run("copy.from_child", by_ref(COPY_REF), mine, GNTCOPY_SOURCE_GREF, 16);
    expect!("copy.came", own.read(1), 0x2222);
    own.write(32, 0x0807_0605_0403_0201);
    own.write(33, 0x100f_0e0d_0c0b_0a09);
    run("copy.part", CopyPtr { offset: 257, ..mine }, CopyPtr { offset: 515, ..by_ref(COPY_REF) }, GNTCOPY_DEST_GREF, 12);
    remote.child.with_page(window, SPARE + 1, |page| {
        expect!("copy.part_begins", page.read(64), 0x0605_0403_0200_0000);
        expect!("copy.part_ends", page.read(65), 0x000d_0c0b_0a09_0807);
    });
    // A list whose requests mean the same pages again, with one in between that fails.
    let piece = |reference: u32, offset: u16| GrantCopy {
        source: CopyPtr { offset: 256, ..mine },
        dest: CopyPtr { offset, ..by_ref(reference) },
        len: 8,
        flags: GNTCOPY_DEST_GREF,
        status: GrantStatus(99),
        ..GrantCopy::default()
    };
    let mut list = [piece(COPY_REF, 800), piece(COPY_REF, 808), piece(RO_REF, 816), piece(COPY_REF, 824), piece(COPY_REF, 4090)];
    let count = list.len() as u64;
    check!("copy.list", Rc(hypercall::raw(nr::GRANT_TABLE_OP, [GrantTableOp::COPY.raw().into(), handle(&mut list), count, 0, 0])).is_ok());
    for request in &list {
        value!("copy.list_status", request.status.raw());
    }
    remote.child.with_page(window, SPARE + 1, |page| {
        for (index, wanted) in [(100, 0x0807_0605_0403_0201), (101, 0x0807_0605_0403_0201), (102, 0), (103, 0x0807_0605_0403_0201)] {
            expect!("copy.list_arrived", page.read(index), wanted);
        }
    });
    value!("copy.flags_after_list", flags(COPY_REF));
    run("copy.to_read_only", mine, by_ref(RO_REF), GNTCOPY_DEST_GREF, 8);
    run("copy.to_page_table", mine, by_ref(TABLE_REF), GNTCOPY_DEST_GREF, 8);
    run("copy.from_somebody_else_s", by_ref(OTHER_REF), mine, GNTCOPY_SOURCE_GREF, 8);
    run("copy.not_granted", CopyPtr { u: remote.child.frames[SPARE], domid: id, ..CopyPtr::default() }, mine, 0, 8);
    run("copy.absent", CopyPtr { u: 1, domid: ABSENT_DOMAIN, ..CopyPtr::default() }, mine, GNTCOPY_SOURCE_GREF, 8);
    run("copy.too_far", CopyPtr { offset: 4090, ..by_ref(COPY_REF) }, mine, GNTCOPY_SOURCE_GREF, 16);
    for reference in [COPY_REF, RO_REF, TABLE_REF] {
        value!("copy.flags_after", flags(reference));
    }
}

/// This domain's own table, mapped.
fn own_table() -> Page {
    let table = alloc_page();
    let mut frames = [0_u64; 1];
    let mut setup = SetupTable { dom: DOMID_SELF, nr_frames: 1, frame_list: GuestHandle::new(handle(&mut frames)), ..SetupTable::default() };
    check!("own_table", op(GrantTableOp::SETUP_TABLE, &mut setup).is_ok() && setup.status == GrantStatus::OKAY);
    check!("own_table.map", hypercall::update_va_mapping(table.va(), frames[0] * PAGE | RW_PAGE, sys::UVMF_INVLPG).is_ok());
    table
}

fn mapped_by_the_child(remote: &Remote, window: Page) {
    let own = own_table();
    let page = alloc_page();
    page.write(0, 0x600d);
    own.write(TO_CHILD as usize, entry(remote.child.id, GTF_PERMIT_ACCESS, page.mfn()));
    let place = CHILD_BASE + (SPARE + 2) as u64 * PAGE;
    let call = |request: &MapGrantRef| {
        remote.put(request);
        check!("child.map_call", remote.call(nr::GRANT_TABLE_OP, [GrantTableOp::MAP_GRANT_REF.raw().into(), remote.argument(), 1, 0, 0]).is_ok());
        remote.get::<MapGrantRef>()
    };
    let request = MapGrantRef { host_addr: place, flags: GNTMAP_HOST_MAP, gref: TO_CHILD, dom: 0, ..MapGrantRef::default() };
    let mapped = call(&request);
    expect!("child.map", mapped.status.raw(), 0);
    value!("child.map_flags", own.read(TO_CHILD as usize) & 0xffff);
    value!("child.map_not_granted", call(&MapGrantRef { gref: TO_CHILD + 1, ..request }).status.raw());
    value!("child.map_elsewhere", call(&MapGrantRef { host_addr: 0x1000, ..request }).status.raw());
    // It stays mapped, for the child's end to undo.
    check!("child.window", window.make_writable().is_ok());
}

fn ends(remote: Remote, window: Page, table: Page) {
    let child = remote.child;
    let mapped = map(child.id, RW_REF, window.va(), GNTMAP_HOST_MAP);
    expect!("end.map", mapped.status.raw(), 0);
    window.write(0, 0xfeed);
    check!("end.unmap_table", table.make_writable().is_ok());
    remote.end();
    check!("end.kept", exists(child.id));
    expect!("end.pages", child.info().1.tot_pages, 1);
    expect!("end.contents", window.read(0), 0xfeed);
    let own = own_table();
    value!("end.child_s_mapping", own.read(TO_CHILD as usize) & 0xffff);
    value!("end.pause", domctl_plain(DomctlCmd::PAUSEDOMAIN, child.id));
    // What is left of it can still be mapped, but not copied.
    let (spare, copied) = (alloc_page(), alloc_page());
    let again = map(child.id, RW_REF, spare.va(), GNTMAP_HOST_MAP);
    expect!("end.map_again", again.status.raw(), 0);
    expect!("end.unmap_again", unmap(&again, spare.va(), 0), 0);
    value!("end.map_gone", map(child.id, COPY_REF, spare.va(), GNTMAP_HOST_MAP).status.raw());
    let mut copy = GrantCopy {
        source: CopyPtr { u: RW_REF.into(), domid: child.id, ..CopyPtr::default() },
        dest: CopyPtr { u: copied.mfn(), domid: DOMID_SELF, ..CopyPtr::default() },
        len: 8,
        flags: GNTCOPY_SOURCE_GREF,
        ..GrantCopy::default()
    };
    check!("end.copy_call", op(GrantTableOp::COPY, &mut copy).is_ok());
    value!("end.copy", copy.status.raw());
    let mut query = QuerySize { dom: child.id, ..QuerySize::default() };
    check!("end.query", op(GrantTableOp::QUERY_SIZE, &mut query).is_ok());
    value!("end.table", format_args!("{} {}", query.status.raw(), query.nr_frames));
    check!("end.restore", spare.make_writable().is_ok());
    expect!("end.unmap", unmap(&mapped, window.va(), 0), 0);
    check!("end.gone", wait_until(20, || !exists(child.id)));
    check!("end.entry", mem::entry(window.va(), 1) & 1 == 0);
}
