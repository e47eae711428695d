//! The rules of level-1 entries.

mod common;

use common::{ALL, D1, D2, PLENTY, RO, World};
use oxen_abi::Errno;
use oxen_mm::entry::{self, ACCESSED, AVAILABLE_HIGH, DIRTY, GLOBAL, GUEST_KERNEL, NX, PAT_OR_PSE, PCD, PRESENT, PWT, RW, USER};
use oxen_mm::{FrameType, Level, MappingRef, MmError, NoMmio};
use oxen_testkit::{Config, EntryWrite};
use oxen_types::{CpuId, DomId, Mfn};

/// A world with a pinned, empty level-1 table of domain 1, and a page of it.
fn with_table() -> (World, Mfn, Mfn) {
    let mut w = World::new(256);
    let (l1, page) = (w.page(D1), w.page(D1));
    w.pin(D1, l1, Level::L1).unwrap();
    (w, l1, page)
}

fn errno(result: Result<(), MmError>) -> Errno {
    result.unwrap_err().errno()
}

#[test]
fn a_mapping_holds_a_reference() {
    let (mut w, l1, page) = with_table();
    w.update(D1, l1, 3, entry::make(page, ALL)).unwrap();
    assert_eq!((w.uses(page), w.refs(page)), (1, 2));
    w.update(D1, l1, 4, entry::make(page, ALL)).unwrap();
    w.update(D1, l1, 5, entry::make(page, RO)).unwrap();
    assert_eq!((w.uses(page), w.refs(page)), (2, 3));
    for i in [3, 4, 5] {
        w.update(D1, l1, i, 0).unwrap();
    }
    assert_eq!((w.uses(page), w.refs(page)), (0, 1));
}

#[test]
fn present_entries_are_stored_in_the_documented_form() {
    let (mut w, l1, page) = with_table();
    for (i, (given, stored)) in [
        (PRESENT, PRESENT | USER | GUEST_KERNEL),
        (PRESENT | RW | USER | NX, PRESENT | RW | USER | NX | GLOBAL),
        (PRESENT | USER | GUEST_KERNEL, PRESENT | USER | GUEST_KERNEL),
        (PRESENT | ACCESSED | DIRTY | AVAILABLE_HIGH, PRESENT | USER | ACCESSED | DIRTY | AVAILABLE_HIGH),
    ]
    .into_iter()
    .enumerate()
    {
        w.update(D1, l1, i, entry::make(page, given)).unwrap();
        assert_eq!(w.peek(l1, i), entry::make(page, stored), "entry {i}");
    }
}

#[test]
fn absent_entries_hold_anything() {
    let (mut w, l1, _) = with_table();
    w.update(D1, l1, 0, 0xffff_ffff_ffff_fffe).unwrap();
    assert_eq!(w.peek(l1, 0), 0xffff_ffff_ffff_fffe);
    w.unpin(D1, l1).unwrap();
}

#[test]
fn memory_types_are_for_domains_with_devices() {
    let (mut w, l1, page) = with_table();
    for flag in [PWT, PCD, PAT_OR_PSE] {
        assert_eq!(errno(w.update(D1, l1, 0, entry::make(page, ALL | flag))), Errno::EINVAL);
    }
    w.devices = true;
    w.update(D1, l1, 0, entry::make(page, ALL | PWT | PCD | PAT_OR_PSE)).unwrap();
    assert_eq!(w.peek(l1, 0) & (PWT | PCD | PAT_OR_PSE), PWT | PCD | PAT_OR_PSE);
}

#[test]
fn changes_of_harmless_bits_take_no_references() {
    let (mut w, l1, page) = with_table();
    w.update(D1, l1, 0, entry::make(page, ALL)).unwrap();
    let before = w.mm.inspect(page);
    w.update(D1, l1, 0, entry::make(page, ALL | NX | ACCESSED | DIRTY)).unwrap();
    w.update(D1, l1, 0, entry::make(page, PRESENT | RW)).unwrap();
    assert_eq!(w.mm.inspect(page), before);
    w.update(D1, l1, 0, entry::make(page, RO)).unwrap();
    assert_eq!((w.uses(page), w.refs(page)), (0, 2));
}

#[test]
fn preserving_keeps_what_the_processor_set() {
    let (mut w, l1, page) = with_table();
    w.update(D1, l1, 0, entry::make(page, ALL | ACCESSED | DIRTY)).unwrap();
    w.mm.update_entry(&mut w.ctx(D1), l1, 0, entry::make(page, ALL), true).unwrap();
    assert_eq!(w.peek(l1, 0) & (ACCESSED | DIRTY), ACCESSED | DIRTY);
    w.mm.update_entry(&mut w.ctx(D1), l1, 0, entry::make(page, RO), true).unwrap();
    assert_eq!(w.peek(l1, 0) & (ACCESSED | DIRTY), ACCESSED | DIRTY);
    w.mm.update_entry(&mut w.ctx(D1), l1, 0, entry::make(page, RO), false).unwrap();
    assert_eq!(w.peek(l1, 0) & (ACCESSED | DIRTY), 0);
}

#[test]
fn frames_of_others_are_refused() {
    let (mut w, l1, _) = with_table();
    let other = w.page(D2);
    assert_eq!(errno(w.update(D1, l1, 0, entry::make(other, ALL))), Errno::EBUSY);
    assert_eq!(errno(w.update(D1, l1, 0, entry::make(other, RO))), Errno::EBUSY);
    let hypervisors = w.mm.alloc(0, 0).unwrap();
    assert_eq!(errno(w.update(D1, l1, 0, entry::make(hypervisors.mfn(), RO))), Errno::EBUSY);
    let free = Mfn(255);
    assert_eq!(w.mm.owner(free), None);
    assert_eq!(errno(w.update(D1, l1, 0, entry::make(free, RO))), Errno::EBUSY);
    assert_eq!(w.peek(l1, 0), 0);
    assert_eq!((w.uses(other), w.refs(other)), (0, 1));
}

#[test]
fn foreign_frames_need_the_foreign_domain() {
    let (mut w, l1, own) = with_table();
    let other = w.page(D2);
    let mm = w.mm;
    mm.update_entry(&mut w.ctx(D1).with_foreign(D2), l1, 0, entry::make(other, ALL), false).unwrap();
    assert_eq!((w.uses(other), w.refs(other)), (1, 2));
    let e = mm.update_entry(&mut w.ctx(D1).with_foreign(D2), l1, 1, entry::make(own, ALL), false);
    assert_eq!(errno(e), Errno::EBUSY);
    mm.release(other, D2).unwrap();
    assert_eq!(mm.owner(other), Some(D2), "still mapped");
    w.update(D1, l1, 0, 0).unwrap();
    assert_eq!(mm.owner(other), None);
}

#[test]
fn tables_and_descriptors_cannot_be_mapped_writable() {
    let (mut w, l1, page) = with_table();
    assert_eq!(errno(w.update(D1, l1, 0, entry::make(l1, ALL))), Errno::EBUSY);
    w.update(D1, l1, 0, entry::make(l1, RO)).unwrap();
    let gdt = w.mm.get_descriptors(&mut w.ctx(D1), page).unwrap();
    assert_eq!(errno(w.update(D1, l1, 1, entry::make(page, ALL))), Errno::EBUSY);
    w.update(D1, l1, 1, entry::make(page, RO)).unwrap();
    let mm = w.mm;
    let mut ctx = w.ctx(D1);
    mm.update_entry(&mut ctx, l1, 1, 0, false).unwrap();
    assert!(ctx.effects.ldt_stale);
    mm.put_typed(gdt);
    w.update(D1, l1, 1, entry::make(page, ALL)).unwrap();
}

#[test]
fn device_memory_goes_by_permission() {
    let (mut w, l1, _) = with_table();
    w.update(D1, l1, 0, entry::make(Mfn(0x10_0000), ALL)).unwrap();
    assert_eq!(w.peek(l1, 0) & RW, 0, "read-only device memory");
    w.update(D1, l1, 1, entry::make(Mfn(0x10_0100), ALL)).unwrap();
    assert_eq!(w.peek(l1, 1) & RW, RW);
    assert_eq!(errno(w.update(D1, l1, 2, entry::make(Mfn(0x10_0200), RO))), Errno::EPERM);
    assert_eq!(errno(w.update(D1, l1, 2, entry::make(entry::frame(u64::MAX), RO))), Errno::EINVAL);
    let mm = w.mm;
    mm.update_entry(&mut w.ctx(D1).with_foreign(DomId::IO), l1, 2, entry::make(Mfn(0x10_0101), ALL), false).unwrap();
    let own = w.page(D1);
    let e = mm.update_entry(&mut w.ctx(D1).with_foreign(DomId::IO), l1, 3, entry::make(own, ALL), false);
    assert_eq!(errno(e), Errno::EBUSY, "RAM is not device memory");
    for i in 0..3 {
        w.update(D1, l1, i, 0).unwrap();
    }
}

#[test]
fn hypervisor_frames_shared_for_reading() {
    let (mut w, l1, _) = with_table();
    let mm = w.mm;
    let frame = mm.share(mm.alloc(0, 0).unwrap(), DomId::XEN, false);
    let e = mm.update_entry(&mut w.ctx(D1).with_foreign(DomId::XEN), l1, 0, entry::make(frame.mfn(), ALL), false);
    assert_eq!(errno(e), Errno::EBUSY);
    mm.update_entry(&mut w.ctx(D1).with_foreign(DomId::XEN), l1, 0, entry::make(frame.mfn(), RO), false).unwrap();
    let private = mm.alloc(0, 0).unwrap();
    let e = mm.update_entry(&mut w.ctx(D1).with_foreign(DomId::XEN), l1, 1, entry::make(private.mfn(), RO), false);
    assert_eq!(errno(e), Errno::EBUSY);
    w.update(D1, l1, 0, 0).unwrap();
    mm.unshare(frame);
    assert_eq!(mm.owner(Mfn(1)).is_some(), mm.inspect(Mfn(1)).is_some());
}

#[test]
fn hypervisor_frames_shared_for_writing() {
    let (mut w, l1, _) = with_table();
    let mm = w.mm;
    let frame = mm.share(mm.alloc_zeroed(0, 0).unwrap(), D1, true);
    let mfn = frame.mfn();
    w.update(D1, l1, 0, entry::make(mfn, ALL)).unwrap();
    assert_eq!(w.uses(mfn), 2);
    assert!(matches!(w.pin(D1, mfn, Level::L1), Err(MmError::Type { .. })), "shared frames never become tables");
    w.update(D1, l1, 0, 0).unwrap();
    assert!(matches!(w.pin(D1, mfn, Level::L1), Err(MmError::Type { .. })));
    mm.unshare(frame);
    assert_eq!(mm.owner(mfn), None);
}

#[test]
fn plain_pages_are_stored_to() {
    let (mut w, _, page) = with_table();
    w.update(D1, page, 9, 0xabcd).unwrap();
    assert_eq!(w.peek(page, 9), 0xabcd);
    assert_eq!((w.uses(page), w.mm.inspect(page).unwrap().ty), (0, FrameType::Writable));
    let gdt = w.mm.get_descriptors(&mut w.ctx(D1), page).unwrap();
    assert_eq!(errno(w.update(D1, page, 9, 1)), Errno::EINVAL);
    w.mm.put_typed(gdt);
    assert_eq!(errno(w.update(D2, page, 9, 1)), Errno::EINVAL);
    assert_eq!(errno(w.update(D1, Mfn(0x10_0000), 9, 1)), Errno::EINVAL);
}

#[test]
fn a_failed_validation_holds_nothing() {
    let mut w = World::new(256);
    let (l1, page, other) = (w.page(D1), w.page(D1), w.page(D2));
    for i in 0..100 {
        w.poke(l1, i, entry::make(page, if i % 2 == 0 { ALL } else { RO }));
    }
    w.poke(l1, 100, entry::make(other, RO));
    assert_eq!(w.pin(D1, l1, Level::L1).unwrap_err().errno(), Errno::EBUSY);
    assert_eq!((w.uses(page), w.refs(page), w.refs(l1)), (0, 1, 1));
    w.poke(l1, 100, 0);
    w.pin(D1, l1, Level::L1).unwrap();
    assert_eq!((w.uses(page), w.refs(page)), (50, 52));
    w.unpin(D1, l1).unwrap();
    assert_eq!((w.uses(page), w.refs(page), w.refs(l1)), (0, 1, 1));
}

#[test]
fn a_table_that_maps_itself_writable_is_refused() {
    let mut w = World::new(64);
    let l1 = w.page(D1);
    w.poke(l1, 0, entry::make(l1, ALL));
    assert!(matches!(w.pin(D1, l1, Level::L1), Err(MmError::Type { .. })));
    w.poke(l1, 0, entry::make(l1, RO));
    w.pin(D1, l1, Level::L1).unwrap();
    w.unpin(D1, l1).unwrap();
    assert_eq!(w.refs(l1), 1);
}

#[test]
fn stale_writable_translations_are_flushed_before_a_frame_becomes_a_table() {
    let mut w = World::with(Config { frames: 256, cpus: 2, ..Config::default() });
    w.dirty.insert(CpuId(1));
    let [root, _, _, l1] = w.chain(D1);
    let page = w.page(D1);
    w.poke(l1, 1, entry::make(page, ALL));
    w.pin(D1, root, Level::L4).unwrap();
    let machine = w.machine;
    machine.on_cpu(1, || {
        oxen_hal::AddressSpace::load_root(machine, root, true);
        oxen_hal::GuestMemory::copy_to_guest(machine, oxen_types::Gva(0x1000), &[0]).unwrap();
    });
    w.update(D1, l1, 1, 0).unwrap();
    assert!(machine.is_cached(page, true), "the guest has not flushed");
    w.pin(D1, page, Level::L1).unwrap();
    assert!(!machine.is_cached(page, true));
    machine.take_events();
    w.unpin(D1, page).unwrap();
    w.update(D1, l1, 1, entry::make(page, ALL)).unwrap();
    assert_eq!(machine.take_events().len(), 1, "the old table may be in the processor's caches of tables");
}

#[test]
fn foreign_mappings_are_flushed_everywhere() {
    let mut w = World::with(Config { frames: 256, cpus: 2, ..Config::default() });
    let [root, _, _, l1] = w.chain(D2);
    w.pin(D2, root, Level::L4).unwrap();
    let page = w.page(D1);
    let (mm, machine) = (w.mm, w.machine);
    mm.update_entry(&mut w.ctx(D2).with_foreign(D1), l1, 1, entry::make(page, ALL), false).unwrap();
    machine.on_cpu(1, || {
        oxen_hal::AddressSpace::load_root(machine, root, true);
        oxen_hal::GuestMemory::copy_to_guest(machine, oxen_types::Gva(0x1000), &[0]).unwrap();
    });
    w.update(D2, l1, 1, 0).unwrap();
    assert!(machine.is_cached(page, true));
    // Domain 1 has never run on CPU 1.
    w.pin(D1, page, Level::L1).unwrap();
    assert!(!machine.is_cached(page, true));
}

#[test]
fn a_stolen_frame_is_flushed_before_its_next_owner_has_it() {
    let mut w = World::new(256);
    let [root, _, _, l1] = w.chain(D1);
    let (keep, give) = (w.page(D1), w.page(D1));
    w.poke(l1, 1, entry::make(keep, RO));
    w.poke(l1, 2, entry::make(give, RO));
    w.pin(D1, root, Level::L4).unwrap();
    let (mm, machine) = (w.mm, w.machine);
    oxen_hal::AddressSpace::load_root(machine, root, true);
    for va in [0x1000, 0x2000] {
        oxen_hal::GuestMemory::read_guest_u64(machine, oxen_types::Gva(va)).unwrap();
    }
    w.update(D1, l1, 1, 0).unwrap();
    w.update(D1, l1, 2, 0).unwrap();
    let block = mm.steal(give, D1).unwrap();
    assert!(machine.is_cached(give, false));
    assert_eq!(mm.assign(block, D2).unwrap(), give);
    assert!(!machine.is_cached(give, false));

    oxen_hal::GuestMemory::read_guest_u64(machine, oxen_types::Gva(0x1000)).unwrap_err();
    w.update(D1, l1, 1, entry::make(keep, RO)).unwrap();
    oxen_hal::GuestMemory::read_guest_u64(machine, oxen_types::Gva(0x1000)).unwrap();
    w.update(D1, l1, 1, 0).unwrap();
    let block = mm.steal(keep, D1).unwrap();
    mm.free(block);
    while let Ok(block) = mm.alloc(0, 0) {
        machine.assert_not_cached(block.mfn());
    }
}

#[test]
fn grant_mappings_own_their_reference() {
    let (mut w, l1, own) = with_table();
    let granted = w.page(D2);
    let mm = w.mm;
    let read = MappingRef::Read(mm.get_page(granted, D2).unwrap().hold());
    let write = MappingRef::Write(mm.get_writable(granted, D2, &w.dirty).unwrap().hold());
    w.update(D1, l1, 0, entry::make(own, ALL)).unwrap();
    mm.set_grant_entry(&mut w.ctx(D1), l1, 0, RO, read).unwrap();
    mm.set_grant_entry(&mut w.ctx(D1), l1, 1, ALL | NX, write).unwrap();
    assert_eq!(w.refs(own), 1, "the old entry gave its reference back");
    assert_eq!(w.peek(l1, 0), entry::make(granted, RO | GLOBAL));
    assert_eq!(w.peek(l1, 1), entry::make(granted, ALL | NX | GLOBAL));
    let wrong = mm.clear_grant_entry(&mut w.ctx(D1), l1, 1, granted, false, 0);
    assert!(matches!(wrong, Err(MmError::EntryChanged { .. })));
    let held = mm.clear_grant_entry(&mut w.ctx(D1), l1, 1, granted, true, 0).unwrap();
    assert!(matches!(&held, MappingRef::Write(page) if page.mfn() == granted));
    mm.put_mapping(held);
    let held = mm.clear_grant_entry(&mut w.ctx(D1), l1, 0, granted, false, 0).unwrap();
    mm.put_mapping(held);
    assert_eq!((w.refs(granted), w.uses(granted)), (1, 0));
    assert_eq!(w.peek(l1, 0), 0);
}

#[test]
fn grant_mappings_need_a_table() {
    let (mut w, _, own) = with_table();
    let granted = w.page(D2);
    let mm = w.mm;
    let held = MappingRef::Read(mm.get_page(granted, D2).unwrap().hold());
    let (error, held) = mm.set_grant_entry(&mut w.ctx(D1), own, 0, RO, held).unwrap_err();
    assert!(matches!(error, MmError::Type { .. }));
    mm.put_mapping(held);
}

#[test]
fn one_map_and_one_unmap_write_one_entry_each() {
    let (mut w, l1, page) = with_table();
    w.machine.record_entry_writes(true);
    let new = entry::make(page, ALL | GLOBAL);
    w.update(D1, l1, 8, new).unwrap();
    w.update(D1, l1, 8, 0).unwrap();
    assert_eq!(
        w.machine.take_entry_writes(),
        [EntryWrite { mfn: l1, index: 8, old: 0, new }, EntryWrite { mfn: l1, index: 8, old: new, new: 0 }]
    );
}

#[test]
fn counters_never_wrap() {
    let (mut w, _, page) = with_table();
    let mm = w.mm;
    let first = mm.get_writable(page, D1, &w.dirty).unwrap().hold();
    for _ in 1..(1 << 24) - 1 {
        let _ = mm.get_writable(page, D1, &w.dirty).unwrap().hold();
    }
    assert_eq!(mm.get_writable(page, D1, &w.dirty).unwrap_err(), MmError::Full(page));
    let l1 = w.page(D1);
    w.pin(D1, l1, Level::L1).unwrap();
    assert_eq!(errno(w.update(D1, l1, 0, entry::make(page, ALL))), Errno::EBUSY);
    mm.put_typed(first);
    w.update(D1, l1, 0, entry::make(page, ALL)).unwrap();
}

#[test]
fn policies_are_optional() {
    let (mut w, l1, page) = with_table();
    let mut ctx = oxen_mm::MmuContext::new(&mut w.tables, D1, &w.dirty, &NoMmio, false, PLENTY);
    w.mm.update_entry(&mut ctx, l1, 0, entry::make(page, ALL), false).unwrap();
    assert!(w.mm.update_entry(&mut ctx, l1, 0, entry::make(Mfn(0x10_0100), ALL), false).is_err());
}
