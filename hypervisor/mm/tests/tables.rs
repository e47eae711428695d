//! The rules of whole tables: validation, pins, roots, preemption.

mod common;

use common::{ALL, D1, D2, PLENTY, RO, World};
use oxen_abi::Errno;
use oxen_hal::AddressSpace;
use oxen_mm::entry::{self, GLOBAL, NX, PAT_OR_PSE, PCD, PRESENT, PWT, RW};
use oxen_mm::{Level, MmError};
use oxen_types::{Gva, Mfn};

#[test]
fn a_root_validates_all_below() {
    let mut w = World::new(256);
    let t = w.chain(D1);
    let page = w.page(D1);
    w.poke(t[3], 5, entry::make(page, ALL));
    w.pin(D1, t[0], Level::L4).unwrap();
    for mfn in t {
        let info = w.mm.inspect(mfn).unwrap();
        assert!(info.validated && info.uses == 1 && info.references == 2, "{mfn} {info:?}");
    }
    assert!(w.mm.inspect(t[0]).unwrap().pinned);
    for slot in 0..16 {
        assert_eq!(w.peek(t[0], 256 + slot), w.machine.hypervisor_slot(slot));
    }
    assert_eq!(w.uses(page), 1);
    w.unpin(D1, t[0]).unwrap();
    for mfn in t.into_iter().chain([page]) {
        assert_eq!((w.uses(mfn), w.refs(mfn)), (0, 1));
    }
}

#[test]
fn pins_are_checked() {
    let mut w = World::new(256);
    let t = w.chain(D1);
    assert_eq!(w.unpin(D1, t[3]), Err(MmError::NotPinned(t[3])));
    w.pin(D1, t[3], Level::L1).unwrap();
    assert_eq!(w.pin(D1, t[3], Level::L1), Err(MmError::AlreadyPinned(t[3])));
    assert_eq!(w.uses(t[3]), 1);
    assert!(matches!(w.pin(D1, t[3], Level::L2), Err(MmError::Type { .. })));
    assert!(matches!(w.pin(D2, t[2], Level::L2), Err(MmError::Owner { .. })));
    assert!(matches!(w.unpin(D2, t[3]), Err(MmError::Owner { .. })));
    assert_eq!(w.pin(D1, Mfn(0x10_0000), Level::L1), Err(MmError::NotRam(Mfn(0x10_0000))));
    w.pin(D1, t[0], Level::L4).unwrap();
    assert_eq!(w.uses(t[3]), 2);
    w.unpin(D1, t[3]).unwrap();
    w.unpin(D1, t[0]).unwrap();
    assert_eq!(w.uses(t[3]), 0);
}

#[test]
fn a_frame_has_one_level() {
    let mut w = World::new(256);
    let t = w.chain(D1);
    // The level-2 table refers to itself, to its parent and to the root: no linear page tables.
    for wrong in [t[2], t[1], t[0]] {
        w.poke(t[2], 1, entry::make(wrong, RO));
        let e = w.pin(D1, t[0], Level::L4).unwrap_err();
        assert_eq!(e.errno(), Errno::EINVAL, "{e}");
        assert!(t.iter().all(|&mfn| w.refs(mfn) == 1));
    }
    w.poke(t[2], 1, 0);
    w.poke(t[0], 300, entry::make(t[0], RO));
    assert_eq!(w.pin(D1, t[0], Level::L4).unwrap_err().errno(), Errno::EINVAL);
    w.poke(t[0], 300, 0);
    w.pin(D1, t[0], Level::L4).unwrap();
}

#[test]
fn upper_entries_have_few_flags() {
    let mut w = World::new(256);
    w.devices = true;
    let t = w.chain(D1);
    for (table, level) in [(t[0], Level::L4), (t[1], Level::L3), (t[2], Level::L2)] {
        for flag in [PWT, PCD, PAT_OR_PSE, GLOBAL] {
            let good = w.peek(table, 0);
            w.poke(table, 0, good | flag);
            assert!(matches!(w.pin(D1, t[0], Level::L4), Err(MmError::Flags { level: l, .. }) if l == level));
            w.poke(table, 0, good);
        }
    }
    w.poke(t[0], 0, entry::make(t[1], PRESENT | NX | 1 << 62));
    w.pin(D1, t[0], Level::L4).unwrap();
    assert_eq!(w.peek(t[0], 0), entry::make(t[1], PRESENT | entry::USER | NX | 1 << 62));
    assert!(matches!(w.update(D1, t[2], 0, entry::make(t[3], ALL | PAT_OR_PSE)), Err(MmError::Flags { .. })));
}

#[test]
fn the_hypervisors_slots_are_not_the_guests() {
    let mut w = World::new(256);
    let t = w.chain(D1);
    let other = w.page(D2);
    w.poke(t[0], 260, entry::make(other, ALL));
    w.pin(D1, t[0], Level::L4).unwrap();
    assert_eq!(w.peek(t[0], 260), w.machine.hypervisor_slot(4), "what the guest left there does not count");
    for index in [256, 271] {
        let e = w.update(D1, t[0], index, 0).unwrap_err();
        assert_eq!((e, e.errno()), (MmError::HypervisorSlot { mfn: t[0], index }, Errno::EINVAL));
    }
    w.update(D1, t[0], 255, 0).unwrap();
    w.update(D1, t[0], 272, 0).unwrap();
    assert!(w.mm.walk(t[0], Gva(0xffff_8000_0000_0000)).is_none());
}

#[test]
fn upper_entries_change_with_their_references() {
    let mut w = World::new(256);
    let t = w.chain(D1);
    w.pin(D1, t[0], Level::L4).unwrap();
    let l1 = w.page(D1);
    let mm = w.mm;
    let mut ctx = w.ctx(D1);
    mm.update_entry(&mut ctx, t[2], 1, entry::make(l1, ALL), false).unwrap();
    assert!(!ctx.effects.upper_changed);
    mm.update_entry(&mut ctx, t[2], 1, entry::make(l1, RO), false).unwrap();
    assert!(ctx.effects.upper_changed);
    assert_eq!(w.uses(l1), 1);
    w.update(D1, t[2], 0, entry::make(l1, ALL)).unwrap();
    assert_eq!((w.uses(l1), w.uses(t[3])), (2, 0));
    assert_eq!(w.update(D1, t[2], 2, entry::make(t[1], ALL)).unwrap_err().errno(), Errno::EINVAL);
    assert_eq!(w.peek(t[2], 2), 0);
    assert_eq!(w.update(D1, t[1], 0, 0), Ok(()));
    assert_eq!((w.uses(l1), w.uses(t[2])), (0, 0));
}

#[test]
fn tables_belong_to_one_domain() {
    let mut w = World::new(256);
    let t = w.chain(D1);
    w.pin(D1, t[0], Level::L4).unwrap();
    let theirs = w.page(D2);
    assert_eq!(w.update(D1, t[2], 1, entry::make(theirs, ALL)).unwrap_err().errno(), Errno::EINVAL);
    let mm = w.mm;
    let e = mm.update_entry(&mut w.ctx(D1).with_foreign(D2), t[2], 1, entry::make(theirs, ALL), false).unwrap_err();
    assert_eq!(e.errno(), Errno::EPERM);
    let l1 = w.page(D1);
    let e = mm.pin(&mut w.ctx(D1).with_foreign(D2), l1, Level::L1).unwrap_err();
    assert_eq!(e, MmError::ForeignTable(l1));
}

#[test]
fn update_va_finds_the_leaf() {
    let mut w = World::new(256);
    let t = w.chain(D1);
    let page = w.page(D1);
    w.pin(D1, t[0], Level::L4).unwrap();
    let mm = w.mm;
    let va = Gva(0x1f_f000);
    mm.update_va(&mut w.ctx(D1), t[0], va, entry::make(page, ALL)).unwrap();
    let found = mm.walk(t[0], va).unwrap();
    assert_eq!((found.table, found.index, found.frame()), (t[3], 511, Some(page)));
    assert!(found.writable && found.executable && !found.kernel_only());
    for bad in [0x20_0000, 0x4000_0000, 0x80_0000_0000, 0xffff_8000_0000_0000, 0x8000_0000_0000] {
        let e = mm.update_va(&mut w.ctx(D1), t[0], Gva(bad), 0).unwrap_err();
        assert_eq!(e, MmError::NotMapped);
        assert_eq!(mm.walk(t[0], Gva(bad)), None);
    }
    w.update(D1, t[2], 0, entry::make(t[3], RO | NX)).unwrap();
    let found = mm.walk(t[0], va).unwrap();
    assert!(!found.writable && !found.executable);
}

#[test]
fn roots_in_use_outlive_their_pin() {
    let mut w = World::new(256);
    let t = w.chain(D1);
    w.pin(D1, t[0], Level::L4).unwrap();
    let mm = w.mm;
    let root = mm.get_table(&mut w.ctx(D1), t[0], Level::L4).unwrap();
    assert_eq!((root.mfn(), root.level()), (t[0], Level::L4));
    w.unpin(D1, t[0]).unwrap();
    mm.release(t[0], D1).unwrap();
    assert_eq!((w.uses(t[0]), w.uses(t[3])), (1, 1));
    mm.put_table(&mut w.ctx(D1), root).unwrap();
    assert_eq!((mm.owner(t[0]), w.uses(t[3])), (None, 0));
}

/// A wide tree: 3 level-3, 9 level-2 and 27 level-1 tables with some mappings of one page.
fn wide(w: &World) -> (Mfn, Mfn, Vec<Mfn>) {
    let page = w.page(D1);
    let mut all = Vec::new();
    let root = build(w, 4, page, &mut all);
    (root, page, all)
}

fn build(w: &World, level: u32, page: Mfn, all: &mut Vec<Mfn>) -> Mfn {
    let table = w.page(D1);
    all.push(table);
    for i in 0..3 {
        let below = if level == 1 { page } else { build(w, level - 1, page, all) };
        w.poke(table, 170 * i, entry::make(below, if i == 1 { RO } else { ALL }));
    }
    table
}

#[test]
fn validation_and_undoing_proceed_in_steps() {
    for budget in [1, 2, 5, 600, 2000] {
        let mut w = World::new(512);
        let (root, page, all) = wide(&w);
        w.budget = budget;
        let mut steps = 1;
        while let Err(e) = w.pin(D1, root, Level::L4) {
            assert_eq!(e, MmError::Preempted);
            steps += 1;
            assert!(steps < 1000);
        }
        assert!(all.iter().all(|&mfn| w.mm.inspect(mfn).unwrap().validated && w.uses(mfn) == 1 && w.refs(mfn) == 2));
        assert_eq!((w.uses(page), w.refs(page)), (54, 29));
        let mut steps = 1;
        w.unpin(D1, root).unwrap();
        while w.tables.has_pending() {
            let _ = w.mm.finish_pending(&mut w.ctx(D1));
            steps += 1;
            assert!(steps < 1000);
        }
        assert!(budget > 600 || steps > 10, "budget {budget}: {steps} steps");
        assert!(all.iter().all(|&mfn| w.uses(mfn) == 0 && w.refs(mfn) == 1), "budget {budget}");
        assert_eq!((w.uses(page), w.refs(page)), (0, 1));
    }
}

#[test]
fn failure_half_way_is_undone_in_steps() {
    for budget in [1, 3, 700, PLENTY] {
        let mut w = World::new(512);
        let (root, page, all) = wide(&w);
        let bad = *all.last().unwrap();
        w.poke(bad, 500, entry::make(w.page(D2), RO));
        w.budget = budget;
        let error = loop {
            match w.pin(D1, root, Level::L4) {
                Err(MmError::Preempted) => {}
                Err(e) => break e,
                Ok(()) => panic!("must fail"),
            }
        };
        assert_eq!(error.errno(), Errno::EBUSY);
        // Whatever comes next finishes the clean-up first.
        while w.update(D1, page, 0, 0) == Err(MmError::Preempted) {}
        assert!(all.iter().all(|&mfn| w.uses(mfn) == 0 && w.refs(mfn) == 1), "budget {budget}");
        assert_eq!((w.uses(page), w.refs(page)), (0, 1));
    }
}

#[test]
fn half_done_tables_cannot_be_used_or_changed() {
    let mut w = World::new(512);
    let (root, _, _) = wide(&w);
    w.budget = 1;
    assert_eq!(w.pin(D1, root, Level::L4), Err(MmError::Preempted));
    assert!(w.mm.inspect(root).unwrap().partial);
    w.budget = PLENTY;
    assert_eq!(w.update(D1, root, 400, 0), Err(MmError::NotValidated(root)));
    assert_eq!(w.unpin(D1, root), Err(MmError::NotPinned(root)));
    let l1 = w.page(D1);
    w.pin(D1, l1, Level::L1).unwrap();
    assert_eq!(w.update(D1, l1, 0, entry::make(root, ALL)).unwrap_err().errno(), Errno::EBUSY);
    assert!(matches!(w.pin(D1, root, Level::L3), Err(MmError::Type { .. })));
    // Somebody else's need for it carries the work on.
    let held = w.mm.get_table(&mut w.ctx(D1), root, Level::L4).unwrap();
    assert!(w.mm.inspect(root).unwrap().validated);
    assert_eq!(w.mm.put_table(&mut w.ctx(D1), held), Ok(()));
    assert_eq!(w.refs(root), 1);
}

#[test]
fn an_abandoned_validation_does_not_outlive_the_domain() {
    for budget in [1, 2, 3, 515, 1000, 3000] {
        let mut w = World::new(512);
        let free = w.mm.free_frames();
        let (root, ..) = wide(&w);
        w.budget = budget;
        for _ in 0..3 {
            let _ = w.pin(D1, root, Level::L4);
        }
        w.destroy(D1, 7);
        assert_eq!(w.mm.free_frames(), free, "budget {budget}");
        assert_eq!(w.mm.account(D1).unwrap().pages(), 0);
    }
}

#[test]
fn a_domain_dies_with_all_its_tables() {
    let mut w = World::new(1024);
    let free = w.mm.free_frames();
    let (root, page, all) = wide(&w);
    w.pin(D1, root, Level::L4).unwrap();
    w.pin(D1, all[3], Level::L1).unwrap();
    let foreign_l1 = w.page(D2);
    w.pin(D2, foreign_l1, Level::L1).unwrap();
    let mm = w.mm;
    mm.update_entry(&mut w.ctx(D2).with_foreign(D1), foreign_l1, 0, entry::make(page, ALL), false).unwrap();
    w.destroy(D1, 20);
    assert_eq!(mm.account(D1).unwrap().pages(), 1, "domain 2 still maps one page");
    assert_eq!(mm.owner(page), Some(D1));
    w.update(D2, foreign_l1, 0, 0).unwrap();
    assert_eq!(mm.account(D1).unwrap().pages(), 0);
    w.destroy(D2, 1000);
    assert_eq!(mm.free_frames(), free);
}

#[test]
fn the_entry_that_is_replaced_may_take_long_to_undo() {
    let mut w = World::new(512);
    let (root, page, all) = wide(&w);
    w.pin(D1, root, Level::L4).unwrap();
    w.budget = 1;
    w.update(D1, root, 0, 0).unwrap();
    assert!(w.tables.has_pending());
    assert_eq!(w.peek(root, 0), 0);
    while w.update(D1, root, 340, 0) == Err(MmError::Preempted) {}
    while w.update(D1, root, 340, 0) == Err(MmError::Preempted) {}
    assert!(!w.tables.has_pending());
    assert_eq!(w.uses(page), 18);
    assert_eq!(all.iter().filter(|&&mfn| w.uses(mfn) != 0).count(), 1 + 13);
    assert_eq!(w.peek(root, 170) & RW, 0);
}
