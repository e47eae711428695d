//! Grant tables of version 2: changing the version, status frames, grants of parts of pages and of grants, each mapped and copied.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU64, Ordering};
use oxen_abi::GuestHandle;
use oxen_abi::grant_table::{
    CacheFlush, CopyPtr, GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF, GNTMAP_HOST_MAP, GNTMAP_READONLY, GTF_PERMIT_ACCESS, GTF_READONLY, GTF_SUB_PAGE,
    GTF_TRANSITIVE, GetStatusFrames, GetVersion, GrantCopy, GrantStatus, GrantTableOp, MapGrantRef, SetVersion, SetupTable, SwapGrantRef,
    UnmapAndReplace, UnmapGrantRef,
};
use oxen_abi::memory::{MemAcquireResource, ResourceType};
use oxen_guests::domu::{Remote, SPARE, map_foreign};
use oxen_guests::hypercall::{self, Rc, handle, memory_op};
use oxen_guests::mem::{self, PAGE, Page, RW_PAGE, alloc_page};
use oxen_guests::start::ABSENT_DOMAIN;
use oxen_guests::sys::{self, DOMID_SELF, nr};
use oxen_guests::{check, expect, expect_text, value};

oxen_guests::test_kernel!("grants-v2", run);

/// A reserved entry, which survives changes of the version.
const RESERVED: u32 = 3;
const PERMIT: u64 = GTF_PERMIT_ACCESS as u64;

fn run() {
    let table = Table::set_up();
    replaces(&table);
    flushes();
    change(&table);
    whole_pages(&table);
    parts(&table);
    transitive(&table);
    swaps(&table);
    change_back(&table);
}

fn op<T>(cmd: GrantTableOp, arg: &mut T) -> Rc {
    Rc(hypercall::raw(nr::GRANT_TABLE_OP, [cmd.raw().into(), handle(arg), 1, 0, 0]))
}

fn map_at(window: Page, mfn: u64) -> bool {
    hypercall::update_va_mapping(window.va(), mfn * PAGE | RW_PAGE, sys::UVMF_INVLPG).is_ok()
}

/// This domain's table and, once there are such, its status words.
struct Table {
    entries: Page,
    status: Page,
}

impl Table {
    fn set_up() -> Self {
        let (entries, status) = (alloc_page(), alloc_page());
        let mut frames = [0_u64; 1];
        let mut setup = SetupTable { dom: DOMID_SELF, nr_frames: 1, frame_list: GuestHandle::new(handle(&mut frames)), ..SetupTable::default() };
        check!("setup", op(GrantTableOp::SETUP_TABLE, &mut setup).is_ok() && setup.status == GrantStatus::OKAY);
        check!("setup.map", map_at(entries, frames[0]));
        Self { entries, status }
    }

    /// Word `index` of the table, which the hypervisor accesses too.
    fn word(&self, index: u32) -> &'static AtomicU64 {
        assert!(index < 512);
        // SAFETY: inside the mapped first page of the table.
        unsafe { &*((self.entries.va() + u64::from(index) * 8) as *const AtomicU64) }
    }

    /// Writes an entry of version 1.
    fn grant_v1(&self, reference: u32, flags: u16, mfn: u64) {
        self.word(reference).store(mfn << 32 | u64::from(flags), Ordering::SeqCst);
    }

    /// Writes an entry of version 2 for this domain: the 32 bits behind the head, and the second word.
    fn grant(&self, reference: u32, flags: u16, middle: u32, second: u64) {
        self.word(2 * reference + 1).store(second, Ordering::SeqCst);
        self.word(2 * reference).store(u64::from(middle) << 32 | u64::from(flags), Ordering::SeqCst);
    }

    fn part(&self, reference: u32, flags: u16, offset: u16, length: u16, mfn: u64) {
        self.grant(reference, flags | GTF_SUB_PAGE, u32::from(length) << 16 | u32::from(offset), mfn);
    }

    fn status(&self, reference: u32) -> u64 {
        self.status.read(reference as usize / 4) >> (reference % 4 * 16) & 0xffff
    }
}

fn map(domain: u16, reference: u32, address: u64, flags: u32) -> MapGrantRef {
    let mut request = MapGrantRef { host_addr: address, flags, gref: reference, dom: domain, status: GrantStatus(99), ..MapGrantRef::default() };
    check!("map.call", op(GrantTableOp::MAP_GRANT_REF, &mut request).is_ok());
    request
}

fn unmap(mapped: &MapGrantRef, address: u64) -> i16 {
    let mut request = UnmapGrantRef { host_addr: address, handle: mapped.handle, status: GrantStatus(99), ..UnmapGrantRef::default() };
    check!("unmap.call", op(GrantTableOp::UNMAP_GRANT_REF, &mut request).is_ok());
    request.status.raw()
}

/// The mapping's place takes another entry, which is taken from its own place.
fn replaces(table: &Table) {
    let (data, window, other) = (alloc_page(), alloc_page(), alloc_page());
    let other_mfn = other.mfn();
    other.write(0, 0x07e2);
    table.grant_v1(9, GTF_PERMIT_ACCESS, data.mfn());
    let mapped = map(0, 9, window.va(), GNTMAP_HOST_MAP);
    let replace = |name: &str, handle: u32, place: u64, new: u64| {
        let mut request = UnmapAndReplace { host_addr: place, new_addr: new, handle, status: GrantStatus(99), ..UnmapAndReplace::default() };
        check!("replace.call", op(GrantTableOp::UNMAP_AND_REPLACE, &mut request).is_ok());
        value!(name, request.status.raw());
    };
    replace("replace.bad_handle", 0xffff_fff0, window.va(), other.va());
    // The real one loses the entry that was to move when the place is wrong.
    replace("replace.wrong_place", mapped.handle, other.va(), alloc_page().va());
    replace("replace.from_nowhere", mapped.handle, window.va(), 0x4000_0000_0000);
    value!("replace.kept", window.read(0));
    replace("replace.moved", mapped.handle, window.va(), other.va());
    expect!("replace.sees", window.read(0), 0x07e2);
    check!("replace.frame", (mem::entry(window.va(), 1) & mem::FRAME_MASK) / PAGE == other_mfn);
    value!("replace.from_entry", mem::entry(other.va(), 1));
    value!("replace.flags", table.word(9).load(Ordering::SeqCst) & 0xffff);
    replace("replace.again", mapped.handle, window.va(), other.va());
    check!("replace.restore", map_at(other, other_mfn) && window.make_writable().is_ok());
}

fn flushes() {
    let data = alloc_page();
    let flush = |name: &str, address: u64, offset: u16, length: u16, operation: u32| {
        let mut request = CacheFlush { a: address, offset, length, op: operation };
        value!(name, op(GrantTableOp::CACHE_FLUSH, &mut request));
    };
    flush("flush.own", data.maddr(), 0, 4096, 3);
    flush("flush.clean", data.maddr(), 64, 64, 1);
    flush("flush.invalidate", data.maddr(), 0, 64, 2);
    flush("flush.nothing", data.maddr(), 0, 0, 3);
    flush("flush.no_operation", data.maddr(), 0, 64, 0);
    flush("flush.unknown_operation", data.maddr(), 0, 64, 4);
    flush("flush.by_reference", 9, 0, 64, 1 << 31 | 3);
    flush("flush.offset", data.maddr(), 4096, 0, 3);
    flush("flush.too_long", data.maddr(), 64, 4096, 3);
    flush("flush.no_memory", 0xff_ffff_f000, 0, 64, 3);
    flush("flush.page_table", mem::l4_maddr(), 0, 64, 3);
}

fn version_of(domain: u16) -> u32 {
    let mut arg = GetVersion { dom: domain, ..GetVersion::default() };
    check!("get_version", op(GrantTableOp::GET_VERSION, &mut arg).is_ok());
    arg.version
}

fn set_version(name: &str, version: u32) {
    let mut arg = SetVersion { version };
    let rc = op(GrantTableOp::SET_VERSION, &mut arg);
    value!(name, format_args!("{rc} {}", arg.version));
}

fn status_frames(name: &str, nr_frames: u32) -> u64 {
    let mut frames = [0_u64; 16];
    let mut arg =
        GetStatusFrames { nr_frames, dom: DOMID_SELF, status: GrantStatus(99), frame_list: GuestHandle::new(handle(&mut frames)) };
    let rc = op(GrantTableOp::GET_STATUS_FRAMES, &mut arg);
    value!(name, format_args!("{rc} {} {}", arg.status.raw(), frames[0] != 0));
    frames[0]
}

fn change(table: &Table) {
    let (data, window) = (alloc_page(), alloc_page());
    status_frames("status.v1_none", 0);
    status_frames("status.v1", 1);
    table.grant_v1(RESERVED, GTF_PERMIT_ACCESS, data.mfn());
    table.grant_v1(9, GTF_PERMIT_ACCESS, data.mfn());
    let other = map(0, 9, window.va(), GNTMAP_HOST_MAP);
    set_version("change.in_use", 2);
    expect!("change.unmap", unmap(&other, window.va()), 0);
    let reserved = map(0, RESERVED, window.va(), GNTMAP_HOST_MAP);
    expect!("change.map_reserved", reserved.status.raw(), 0);
    set_version("change.to_2", 2);
    expect!("change.version", version_of(DOMID_SELF), 2);
    let mfn = status_frames("status.v2", 1);
    status_frames("status.too_many", 2);
    check!("status.map", map_at(table.status, mfn));
    value!("change.reserved_status", table.status(RESERVED));
    value!("change.reserved_head", table.word(2 * RESERVED).load(Ordering::SeqCst));
    check!("change.reserved_frame", table.word(2 * RESERVED + 1).load(Ordering::SeqCst) == data.mfn());
    value!("change.old_entry", table.word(9).load(Ordering::SeqCst));
    expect!("change.unmap_reserved", unmap(&reserved, window.va()), 0);
    value!("change.reserved_status_after", table.status(RESERVED));
    set_version("change.again", 2);
    set_version("change.to_3", 3);
    // A second frame of entries needs no second one of status words; a ninth does.
    let mut frames = [0_u64; 9];
    let mut setup = SetupTable { dom: DOMID_SELF, nr_frames: 9, frame_list: GuestHandle::new(handle(&mut frames)), ..SetupTable::default() };
    check!("grow", op(GrantTableOp::SETUP_TABLE, &mut setup).is_ok() && setup.status == GrantStatus::OKAY);
    status_frames("status.grown", 2);
    status_frames("status.beyond", 3);
    check!("change.restore", window.make_writable().is_ok());
}

fn whole_pages(table: &Table) {
    let (data, window) = (alloc_page(), alloc_page());
    data.write(0, 0xd00d);
    table.grant(20, GTF_PERMIT_ACCESS, 0, data.mfn());
    let mapped = map(0, 20, window.va(), GNTMAP_HOST_MAP);
    expect!("whole.map", mapped.status.raw(), 0);
    expect!("whole.reads", window.read(0), 0xd00d);
    value!("whole.flags", table.word(40).load(Ordering::SeqCst));
    value!("whole.status", table.status(20));
    expect!("whole.unmap", unmap(&mapped, window.va()), 0);
    value!("whole.status_after", table.status(20));
    table.grant(21, GTF_PERMIT_ACCESS | GTF_READONLY, 0, data.mfn());
    value!("whole.write_of_read_only", map(0, 21, window.va(), GNTMAP_HOST_MAP).status.raw());
    let read_only = map(0, 21, window.va(), GNTMAP_HOST_MAP | GNTMAP_READONLY);
    expect!("whole.read_only", read_only.status.raw(), 0);
    value!("whole.read_only_status", table.status(21));
    expect!("whole.read_only_unmap", unmap(&read_only, window.va()), 0);
    table.grant(22, GTF_PERMIT_ACCESS, 0, 1 << 40);
    value!("whole.bad_frame", map(0, 22, window.va(), GNTMAP_HOST_MAP).status.raw());
    value!("whole.bad_frame_status", table.status(22));
    value!("whole.empty", map(0, 50, window.va(), GNTMAP_HOST_MAP).status.raw());
    value!("whole.last", map(0, 9 * 256 - 1, window.va(), GNTMAP_HOST_MAP).status.raw());
    value!("whole.beyond", map(0, 9 * 256, window.va(), GNTMAP_HOST_MAP).status.raw());
    check!("whole.restore", window.make_writable().is_ok());
}

/// A copy between `mine` and what `reference` of `domain` grants; tells the status.
fn copy(name: &str, domain: u16, reference: u32, offset: u16, mine: Page, write: bool, len: u16) {
    let theirs = CopyPtr { u: reference.into(), domid: domain, offset, ..CopyPtr::default() };
    let mine = CopyPtr { u: mine.mfn(), domid: DOMID_SELF, ..CopyPtr::default() };
    let (source, dest, flags) = if write { (mine, theirs, GNTCOPY_DEST_GREF) } else { (theirs, mine, GNTCOPY_SOURCE_GREF) };
    let mut request = GrantCopy { source, dest, len, flags, status: GrantStatus(99), ..GrantCopy::default() };
    check!("copy.call", op(GrantTableOp::COPY, &mut request).is_ok());
    value!(name, request.status.raw());
}

fn parts(table: &Table) {
    let (data, mine, window) = (alloc_page(), alloc_page(), alloc_page());
    for word in 0..512 {
        data.write(word, word as u64);
    }
    table.part(30, GTF_PERMIT_ACCESS, 64, 128, data.mfn());
    value!("part.map", map(0, 30, window.va(), GNTMAP_HOST_MAP).status.raw());
    value!("part.status", table.status(30));
    copy("part.inside", 0, 30, 64, mine, false, 128);
    expect!("part.first", mine.read(0), 8);
    expect!("part.last", mine.read(15), 23);
    copy("part.before", 0, 30, 56, mine, false, 16);
    copy("part.behind", 0, 30, 184, mine, false, 16);
    copy("part.beyond_page", 0, 30, 4090, mine, false, 16);
    copy("part.nothing_before", 0, 30, 0, mine, false, 0);
    copy("part.nothing_inside", 0, 30, 100, mine, false, 0);
    copy("part.write", 0, 30, 64, mine, true, 8);
    copy("part.write_before", 0, 30, 0, mine, true, 8);
    table.part(31, GTF_PERMIT_ACCESS | GTF_READONLY, 0, 4096, data.mfn());
    copy("part.write_read_only", 0, 31, 64, mine, true, 8);
    copy("part.read_read_only", 0, 31, 64, mine, false, 8);
    table.part(32, GTF_PERMIT_ACCESS, 4000, 4000, data.mfn());
    copy("part.over_the_end", 0, 32, 4000, mine, false, 96);
    copy("part.over_the_end_beyond", 0, 32, 4000, mine, false, 104);
    copy("part.whole_v2", 0, 20, 0, mine, false, 4096);
    value!("part.status_after", table.status(30));
    // A grant that is mapped as a whole page keeps that form while it is in use.
    table.grant(33, GTF_PERMIT_ACCESS, 0, data.mfn());
    let mapped = map(0, 33, window.va(), GNTMAP_HOST_MAP | GNTMAP_READONLY);
    table.part(33, GTF_PERMIT_ACCESS, 64, 64, data.mfn());
    copy("part.changed_in_use", 0, 33, 0, mine, false, 8);
    copy("part.changed_in_use_write", 0, 33, 0, mine, true, 8);
    expect!("part.changed_unmap", unmap(&mapped, window.va()), 0);
    copy("part.changed_after", 0, 33, 0, mine, false, 8);
    check!("part.restore", window.make_writable().is_ok());
}

/// The child's table, mapped.
fn child_table(remote: &Remote, window: Page) {
    let mut frames = [0_u64; 1];
    let list = GuestHandle::new(handle(&mut frames));
    let kind = ResourceType::GRANT_TABLE;
    let mut resource = MemAcquireResource { domid: remote.child.id, kind, nr_frames: 1, frame_list: list, ..MemAcquireResource::default() };
    expect_text!("child.table", memory_op(28, &mut resource), "0");
    check!("child.map_table", map_foreign(window, frames[0], remote.child.id, RW_PAGE).is_ok());
    for (name, nr_frames, list) in [("child.status_size", 0, 0), ("child.status_frame", 1, handle(&mut frames))] {
        let frame_list = GuestHandle::new(list);
        let mut resource = MemAcquireResource { domid: remote.child.id, kind, id: 1, nr_frames, frame_list, ..MemAcquireResource::default() };
        value!(name, format_args!("{} {}", memory_op(28, &mut resource), resource.nr_frames));
    }
}

/// Grants of this domain that stand for grants of a child to this domain.
fn transitive(table: &Table) {
    let (window, data, theirs, mine) = (alloc_page(), alloc_page(), alloc_page(), alloc_page());
    let remote = Remote::start(window, data);
    let id = remote.child.id;
    child_table(&remote, theirs);
    remote.child.with_page(window, SPARE, |page| page.write(0, 0x7245));
    let entry = |flags: u16, domain: u16| remote.child.frames[SPARE] << 32 | u64::from(domain) << 16 | u64::from(flags);
    theirs.write(9, entry(GTF_PERMIT_ACCESS, 0));
    theirs.write(10, entry(GTF_PERMIT_ACCESS | GTF_READONLY, 0));
    theirs.write(11, entry(GTF_PERMIT_ACCESS, ABSENT_DOMAIN));
    let via = |reference: u32, flags: u16, domain: u16, theirs: u32| table.grant(reference, GTF_TRANSITIVE | flags, domain.into(), theirs.into());
    via(60, 0, id, 9);
    value!("via.map", map(0, 60, window.va(), GNTMAP_HOST_MAP).status.raw());
    value!("via.map_status", table.status(60));
    copy("via.read", 0, 60, 0, mine, false, 8);
    expect!("via.value", mine.read(0), 0x7245);
    mine.write(0, 0x1e44);
    copy("via.write", 0, 60, 8, mine, true, 8);
    remote.child.with_page(window, SPARE, |page| expect!("via.wrote", page.read(1), 0x1e44));
    value!("via.status", table.status(60));
    value!("via.their_flags", theirs.read(9) & 0xffff);
    via(61, 0, id, 10);
    copy("via.read_only_below", 0, 61, 0, mine, false, 8);
    copy("via.write_below", 0, 61, 0, mine, true, 8);
    via(62, GTF_READONLY, id, 9);
    copy("via.read_only", 0, 62, 0, mine, false, 8);
    copy("via.write_read_only", 0, 62, 0, mine, true, 8);
    via(63, 0, id, 11);
    copy("via.not_ours", 0, 63, 0, mine, false, 8);
    via(64, 0, id, 100);
    copy("via.empty", 0, 64, 0, mine, false, 8);
    via(65, 0, id, 100_000);
    copy("via.beyond", 0, 65, 0, mine, false, 8);
    via(66, 0, ABSENT_DOMAIN, 9);
    copy("via.absent", 0, 66, 0, mine, false, 8);
    via(67, 0, 0, 20);
    copy("via.itself", 0, 67, 0, mine, false, 8);
    via(68, 0, DOMID_SELF, 20);
    copy("via.self", 0, 68, 0, mine, false, 8);
    for reference in 60..=68 {
        value!("via.status_after", table.status(reference));
    }
    // The child's version is another than this domain's.
    value!("child.version", version_of(id));
    check!("child.unmap_table", theirs.make_writable().is_ok());
    remote.end();
}

fn swaps(table: &Table) {
    let (data, window) = (alloc_page(), alloc_page());
    table.grant(70, GTF_PERMIT_ACCESS, 0, data.mfn());
    table.part(71, GTF_PERMIT_ACCESS | GTF_READONLY, 16, 32, data.mfn());
    let swap = |name: &str, ref_a: u32, ref_b: u32| {
        let mut request = SwapGrantRef { ref_a, ref_b, status: GrantStatus(99), ..SwapGrantRef::default() };
        check!("swap.call", op(GrantTableOp::SWAP_GRANT_REF, &mut request).is_ok());
        value!(name, request.status.raw());
    };
    swap("swap", 70, 71);
    value!("swap.first", format_args!("{:#x}", table.word(140).load(Ordering::SeqCst)));
    value!("swap.second", format_args!("{:#x}", table.word(142).load(Ordering::SeqCst)));
    let mapped = map(0, 71, window.va(), GNTMAP_HOST_MAP);
    expect!("swap.map", mapped.status.raw(), 0);
    swap("swap.in_use", 70, 71);
    swap("swap.same_in_use", 71, 71);
    swap("swap.beyond", 70, 9 * 256);
    expect!("swap.unmap", unmap(&mapped, window.va()), 0);
    check!("swap.restore", window.make_writable().is_ok());
}

fn change_back(table: &Table) {
    let data = alloc_page();
    table.grant(RESERVED, GTF_PERMIT_ACCESS, 0, 1 << 32 | data.mfn());
    set_version("back.wide_frame", 1);
    table.grant(RESERVED, GTF_TRANSITIVE, 5, 7);
    set_version("back.transitive", 1);
    table.grant(RESERVED, GTF_PERMIT_ACCESS, 0, data.mfn());
    set_version("back.status_mapped", 1);
    check!("back.unmap_status", table.status.make_writable().is_ok());
    set_version("back", 1);
    expect!("back.version", version_of(DOMID_SELF), 1);
    check!("back.reserved", table.word(RESERVED).load(Ordering::SeqCst) == data.mfn() << 32 | PERMIT);
    value!("back.others", (8..512).filter(|&index| table.word(index).load(Ordering::SeqCst) != 0).count());
    status_frames("back.status", 1);
    status_frames("back.status_none", 0);
}
