//! Frames of descriptor tables.

mod common;

use common::{ALL, D1, D2, World};
use oxen_abi::Errno;
use oxen_mm::{FrameType, Level, MmError, entry};

const DATA: u64 = 0x00cf_9300_0000_ffff;
const TSS: u64 = 0x0000_8900_0000_0067;

#[test]
fn the_first_use_checks_all_descriptors() {
    let mut w = World::new(64);
    let gdt = w.page(D1);
    w.poke(gdt, 3, DATA);
    let mm = w.mm;
    let held = mm.get_descriptors(&mut w.ctx(D1), gdt).unwrap();
    assert_eq!(w.peek(gdt, 3), DATA | 3 << 45);
    assert_eq!(mm.inspect(gdt).unwrap().ty, FrameType::SegDesc);
    let again = mm.get_descriptors(&mut w.ctx(D1), gdt).unwrap();
    assert_eq!(w.uses(gdt), 2);
    mm.put_typed(held);
    mm.put_typed(again);
    assert_eq!((w.uses(gdt), w.refs(gdt)), (0, 1));
    w.poke(gdt, 511, TSS);
    assert_eq!(mm.get_descriptors(&mut w.ctx(D1), gdt), Err(MmError::Descriptor(TSS)));
    assert_eq!((w.uses(gdt), w.refs(gdt)), (0, 1));
}

#[test]
fn single_descriptors_are_checked() {
    let mut w = World::new(64);
    let gdt = w.page(D1);
    let mm = w.mm;
    mm.update_descriptor(&mut w.ctx(D1), gdt, 1, DATA).unwrap();
    let held = mm.get_descriptors(&mut w.ctx(D1), gdt).unwrap();
    mm.update_descriptor(&mut w.ctx(D1), gdt, 2, DATA).unwrap();
    assert_eq!((w.peek(gdt, 1), w.peek(gdt, 2)), (DATA | 3 << 45, DATA | 3 << 45));
    assert_eq!(mm.update_descriptor(&mut w.ctx(D1), gdt, 2, TSS), Err(MmError::Descriptor(TSS)));
    assert_eq!(mm.update_descriptor(&mut w.ctx(D2), gdt, 2, 0).unwrap_err().errno(), Errno::EINVAL);
    mm.put_typed(held);
    let l1 = w.page(D1);
    w.pin(D1, l1, Level::L1).unwrap();
    assert_eq!(mm.update_descriptor(&mut w.ctx(D1), l1, 2, DATA).unwrap_err().errno(), Errno::EINVAL);
    assert_eq!(w.peek(l1, 2), 0);
    assert_eq!((w.uses(l1), w.refs(l1)), (1, 2));
}

#[test]
fn descriptor_tables_are_not_writable_and_not_page_tables() {
    let mut w = World::new(64);
    let (gdt, l1) = (w.page(D1), w.page(D1));
    let mm = w.mm;
    w.poke(l1, 0, entry::make(gdt, ALL));
    w.pin(D1, l1, Level::L1).unwrap();
    assert_eq!(mm.get_descriptors(&mut w.ctx(D1), gdt).unwrap_err().errno(), Errno::EINVAL);
    assert_eq!(mm.get_descriptors(&mut w.ctx(D1), l1).unwrap_err().errno(), Errno::EINVAL);
    assert_eq!(mm.get_descriptors(&mut w.ctx(D2), gdt).unwrap_err().errno(), Errno::EINVAL);
    w.update(D1, l1, 0, 0).unwrap();
    let held = mm.get_descriptors(&mut w.ctx(D1), gdt).unwrap();
    assert!(matches!(w.pin(D1, gdt, Level::L1), Err(MmError::Type { .. })));
    assert!(mm.get_writable(gdt, D1, &w.dirty).is_err());
    mm.put_typed(held);
}
