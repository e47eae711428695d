//! The quick ways do the usual cases, and nothing where there is anything unusual.

mod common;

use common::{ALL, D1, D2, RO, World};
use oxen_abi::xen::MmuUpdateType;
use oxen_mm::entry::{self, ACCESSED, DIRTY, GLOBAL, GUEST_KERNEL, PRESENT, PWT, RW, USER};
use oxen_mm::{FrameType, Level, Mm, QuickTables};
use oxen_testkit::FakeMachine;
use oxen_types::{DomId, Gva, Mfn, PT_ENTRIES};

/// What a level-1 entry that the guest writes as `entry` is stored as.
fn stored(entry: u64) -> u64 {
    if entry & USER == 0 { entry | USER | GUEST_KERNEL } else { entry | GLOBAL }
}

/// A pinned root with the chain of tables below it, the last of which is the level-1 table, and a data page that is mapped writable there at index 7.
fn world() -> (World, [Mfn; 4], Mfn) {
    let mut w = World::new(64);
    let chain = w.chain(D1);
    let page = w.page(D1);
    w.poke(chain[3], 7, entry::make(page, ALL));
    let mm = w.mm;
    mm.pin(&mut w.ctx(D1), chain[0], Level::L4).unwrap();
    (w, chain, page)
}

fn quick<R>(w: &mut World, owner: DomId, f: impl FnOnce(&mut QuickTables<'_>) -> R) -> R {
    f(&mut QuickTables::new(&mut w.tables, owner, false).unwrap())
}

/// A request of `mmu_update`.
fn update(mm: &Mm<FakeMachine>, q: &mut QuickTables<'_>, table: Mfn, index: u64, new: u64, preserve_ad: bool) -> bool {
    let command = if preserve_ad { MmuUpdateType::PT_UPDATE_PRESERVE_AD } else { MmuUpdateType::NORMAL_PT_UPDATE };
    mm.quick_updates(q, &[[table.maddr().0 | index * 8 | u64::from(command.0), new]]) == 1
}

fn entries(w: &World, table: Mfn) -> Vec<u64> {
    (0..PT_ENTRIES).map(|index| w.peek(table, index)).collect()
}

fn counts(w: &World, mfn: Mfn) -> (u64, u64) {
    let info = w.mm.inspect(mfn).unwrap();
    (info.references, info.uses)
}

#[test]
fn entries_are_set_changed_and_cleared() {
    let (mut w, [.., l1], page) = world();
    let mm = w.mm;
    assert_eq!(counts(&w, page), (2, 1));
    assert!(quick(&mut w, D1, |q| update(mm, q, l1, 8, entry::make(page, RO), false)));
    assert_eq!((w.peek(l1, 8), counts(&w, page)), (stored(entry::make(page, RO)), (3, 1)));
    assert!(quick(&mut w, D1, |q| update(mm, q, l1, 8, entry::make(page, ALL), false)));
    assert_eq!((w.peek(l1, 8), counts(&w, page)), (stored(entry::make(page, ALL)), (2, 2)));
    assert!(quick(&mut w, D1, |q| update(mm, q, l1, 8, entry::make(page, RO | ACCESSED), false)));
    assert_eq!(counts(&w, page), (3, 1));
    assert!(quick(&mut w, D1, |q| update(mm, q, l1, 8, 0x77 << 12, false)));
    assert_eq!((w.peek(l1, 8), counts(&w, page)), (0x77 << 12, (2, 1)));
}

#[test]
fn bits_of_the_processor_are_kept_where_that_is_asked_for() {
    let (mut w, [.., l1], page) = world();
    let mm = w.mm;
    // A page that is mapped writable elsewhere too: the first use and the last one are not quick.
    assert!(quick(&mut w, D1, |q| update(mm, q, l1, 6, entry::make(page, ALL), false)));
    w.poke(l1, 7, w.peek(l1, 7) | ACCESSED | DIRTY);
    assert!(quick(&mut w, D1, |q| update(mm, q, l1, 7, entry::make(page, RO), true)));
    assert_eq!(w.peek(l1, 7), stored(entry::make(page, RO | ACCESSED | DIRTY)));
    assert!(quick(&mut w, D1, |q| update(mm, q, l1, 7, entry::make(page, ALL), false)));
    assert_eq!(w.peek(l1, 7), stored(entry::make(page, ALL)));
}

#[test]
fn addresses_and_writes_to_tables_find_their_entries() {
    let (mut w, [root, _, _, l1], page) = world();
    let mm = w.mm;
    assert!(quick(&mut w, D1, |q| mm.quick_update_va(q, root, Gva(7 << 12), entry::make(page, RO))));
    assert_eq!(w.peek(l1, 7), stored(entry::make(page, RO)));
    assert!(!quick(&mut w, D1, |q| mm.quick_update_va(q, root, Gva(7 << 30), 0)), "no table covers this");
    // The guest sees its table read-only at page 9.
    assert!(quick(&mut w, D1, |q| update(mm, q, l1, 9, entry::make(l1, RO), false)));
    let old = quick(&mut w, D1, |q| mm.quick_exchange_at(q, root, Gva(9 << 12 | 7 * 8), 0));
    assert_eq!((old, w.peek(l1, 7), counts(&w, page)), (Some(stored(entry::make(page, RO))), 0, (1, 0)));
    let data = quick(&mut w, D1, |q| update(mm, q, l1, 7, entry::make(page, RO), false));
    assert!(data && quick(&mut w, D1, |q| mm.quick_exchange_at(q, root, Gva(7 << 12), 0)).is_none(), "no table is there");
}

#[test]
fn whatever_is_unusual_changes_nothing() {
    let (mut w, [_, _, l2, l1], page) = world();
    let mm = w.mm;
    let foreign = w.page(D2);
    let refused = [
        ("another domain's frame", l1, entry::make(foreign, RO)),
        ("a page table, writable", l1, entry::make(l1, ALL)),
        ("a memory type", l1, entry::make(page, ALL | PWT)),
        ("device memory", l1, entry::make(Mfn(0x10_0000), RO)),
        ("an upper table's entry", l2, 0),
        ("data", page, 0),
        ("no RAM", Mfn(0x20_0000), 0),
        ("another domain's data", foreign, 0),
    ];
    for (what, table, new) in refused {
        let before = (entries(&w, l1), counts(&w, page), counts(&w, l1), counts(&w, foreign));
        assert!(!quick(&mut w, D1, |q| update(mm, q, table, 7, new, false)), "{what}");
        assert_eq!(before, (entries(&w, l1), counts(&w, page), counts(&w, l1), counts(&w, foreign)), "{what}");
    }
    assert!(!quick(&mut w, D2, |q| update(mm, q, l1, 7, 0, false)), "tables of another domain");
}

#[test]
fn mappings_of_descriptor_tables_are_not_dropped_quickly() {
    let (mut w, [.., l1], _) = world();
    let mm = w.mm;
    let table = w.page(D1);
    assert!(quick(&mut w, D1, |q| update(mm, q, l1, 8, entry::make(table, RO), false)));
    let held = mm.get_descriptors(&mut w.ctx(D1), table).unwrap();
    assert!(!quick(&mut w, D1, |q| update(mm, q, l1, 8, 0, false)));
    let page = w.page(D1);
    assert!(!quick(&mut w, D1, |q| update(mm, q, l1, 8, entry::make(page, RO), false)));
    assert_eq!(w.peek(l1, 8) & (PRESENT | RW), PRESENT);
    mm.put_typed(held);
}

#[test]
fn roots_in_use_are_exchanged() {
    let (mut w, [root, ..], _) = world();
    let mm = w.mm;
    let other = w.chain(D1)[0];
    let mut held = mm.get_table(&mut w.ctx(D1), root, Level::L4).unwrap();
    let mut loaded = false;
    assert!(!quick(&mut w, D1, |q| mm.quick_switch_root(q, &mut held, other, || loaded = true)), "not validated");
    mm.pin(&mut w.ctx(D1), other, Level::L4).unwrap();
    assert!(!loaded && quick(&mut w, D1, |q| mm.quick_switch_root(q, &mut held, other, || loaded = true)));
    assert!(loaded && held.mfn() == other && mm.inspect(root).unwrap().uses == 1 && mm.inspect(other).unwrap().uses == 2);
    mm.unpin(&mut w.ctx(D1), other).unwrap();
    assert!(!quick(&mut w, D1, |q| mm.quick_switch_root(q, &mut held, root, || ())), "the old root's last use ends");
    assert_eq!(mm.inspect(other).unwrap().ty, FrameType::L4);
    assert!(mm.put_table(&mut w.ctx(D1), held).is_ok());
}

#[test]
fn lists_are_done_up_to_what_is_unusual() {
    let (mut w, [_, _, _, l1], page) = world();
    let mm = w.mm;
    let other = w.chain(D1);
    mm.pin(&mut w.ctx(D1), other[3], Level::L1).unwrap();
    let at = |table: Mfn, index: u64, command: MmuUpdateType| table.maddr().0 | index * 8 | u64::from(command.0);
    let (plain, keep) = (MmuUpdateType::NORMAL_PT_UPDATE, MmuUpdateType::PT_UPDATE_PRESERVE_AD);
    w.poke(other[3], 3, entry::make(Mfn(0x77), ACCESSED));
    let new = entry::make(page, RO);
    let list = [
        [at(l1, 0, plain), new],
        [at(l1, 1, plain), new],
        [at(other[3], 2, plain), new],
        [at(other[3], 3, keep), new],
        [at(other[3], 4, MmuUpdateType::PT_UPDATE_NO_TRANSLATE), new],
        [at(page, 1, MmuUpdateType::MACHPHYS_UPDATE), 5],
        [at(l1, 2, plain), new],
    ];
    assert_eq!(quick(&mut w, D1, |q| mm.quick_updates(q, &list)), 5);
    assert_eq!(w.peek(other[3], 3), stored(new | ACCESSED));
    assert_eq!((counts(&w, page), w.peek(l1, 2)), ((7, 1), 0));
    assert_eq!(quick(&mut w, D1, |q| mm.quick_updates(q, &[])), 0);
}
