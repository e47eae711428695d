//! Uses of grants, one by one.

extern crate std;
use super::*;
use oxen_abi::grant_table::{GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_WRITING};
use oxen_testkit::{Config, FakeMachine};
use std::vec::Vec;

const GRANTER: DomId = DomId(1);
const GRANTEE: DomId = DomId(2);
const R: GrantRef = GrantRef(9);

struct World {
    machine: &'static FakeMachine,
    table: GrantTable,
}

impl World {
    fn new() -> Self {
        let machine = FakeMachine::new(Config { frames: 64, ..Config::default() });
        let mm = Mm::new(machine);
        mm.add_range(Mfn(0), 64);
        let mut table = GrantTable::new(MAX_FRAMES, MAX_VERSION);
        table.grow(&mm, GRANTER, 1).unwrap();
        Self { machine, table }
    }

    fn word(&self, reference: GrantRef) -> &core::sync::atomic::AtomicU64 {
        let frames: Vec<Mfn> = self.table.frames().collect();
        self.machine.shared_u64(frames[0], reference.0 as usize * 8)
    }

    fn grant(&self, reference: GrantRef, flags: u16, frame: u32) {
        self.word(reference).store(u64::from(frame) << 32 | u64::from(GRANTEE.0) << 16 | u64::from(flags), Ordering::SeqCst);
    }

    fn flags(&self, reference: GrantRef) -> u16 {
        self.word(reference).load(Ordering::SeqCst) as u16
    }

    fn pin(&mut self, by: DomId, write: bool) -> Result<Object, GrantStatus> {
        self.table.pin(self.machine, R, (by, Purpose::Map), write, 1)
    }

    fn unpin(&mut self, write: bool) {
        self.table.unpin(self.machine, R, write, 1);
    }
}

#[test]
fn flags_follow_the_uses() {
    let mut w = World::new();
    w.grant(R, GTF_PERMIT_ACCESS, 77);
    assert_eq!(w.pin(GRANTEE, false), Ok(Object::Page(Mfn(77))));
    assert_eq!(w.flags(R), GTF_PERMIT_ACCESS | GTF_READING);
    assert_eq!(w.pin(GRANTEE, true), Ok(Object::Page(Mfn(77))));
    assert_eq!(w.flags(R), GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING);
    w.unpin(false);
    assert_eq!(w.flags(R), GTF_PERMIT_ACCESS | GTF_READING | GTF_WRITING);
    w.unpin(true);
    assert_eq!(w.flags(R), GTF_PERMIT_ACCESS);
}

#[test]
fn uses_keep_the_first_frame_and_grantee() {
    let mut w = World::new();
    w.grant(R, GTF_PERMIT_ACCESS, 77);
    w.pin(GRANTEE, false).unwrap();
    w.grant(R, GTF_PERMIT_ACCESS, 78);
    assert_eq!(w.pin(GRANTEE, false), Ok(Object::Page(Mfn(77))));
    assert_eq!(w.pin(DomId(3), false), Err(GrantStatus::GENERAL_ERROR));
    w.unpin(false);
    w.unpin(false);
    assert_eq!(w.pin(GRANTEE, false), Ok(Object::Page(Mfn(78))));
}

#[test]
fn what_is_not_granted() {
    let mut w = World::new();
    assert_eq!(w.pin(GRANTEE, false), Err(GrantStatus::GENERAL_ERROR));
    w.grant(R, GTF_PERMIT_ACCESS | GTF_READONLY, 77);
    assert_eq!(w.pin(GRANTEE, true), Err(GrantStatus::GENERAL_ERROR));
    assert_eq!(w.pin(GRANTER, false), Err(GrantStatus::GENERAL_ERROR));
    w.pin(GRANTEE, false).unwrap();
    assert_eq!(w.pin(GRANTEE, true), Err(GrantStatus::GENERAL_ERROR));
    w.unpin(false);
    assert_eq!(w.flags(R), GTF_PERMIT_ACCESS | GTF_READONLY);
    for beyond in [MOST_ENTRIES, u32::MAX] {
        assert_eq!(w.table.pin(w.machine, GrantRef(beyond), (GRANTEE, Purpose::Map), false, 1), Err(GrantStatus::BAD_GNTREF));
    }
    assert_eq!(w.table.pin(w.machine, GrantRef(MOST_ENTRIES - 1), (GRANTEE, Purpose::Map), false, 1), Err(GrantStatus::GENERAL_ERROR));
}

#[test]
fn swaps_unused_entries() {
    let mut w = World::new();
    let other = GrantRef(10);
    w.grant(R, GTF_PERMIT_ACCESS, 77);
    w.grant(other, GTF_PERMIT_ACCESS | GTF_READONLY, 78);
    assert_eq!(w.table.swap(w.machine, R, other), Ok(()));
    assert_eq!((w.flags(R), w.flags(other)), (GTF_PERMIT_ACCESS | GTF_READONLY, GTF_PERMIT_ACCESS));
    assert_eq!(w.pin(GRANTEE, false), Ok(Object::Page(Mfn(78))));
    assert_eq!(w.table.swap(w.machine, R, other), Err(GrantStatus::EAGAIN));
    assert_eq!(w.table.swap(w.machine, R, R), Ok(()));
    assert_eq!(w.table.swap(w.machine, R, GrantRef(MOST_ENTRIES)), Err(GrantStatus::BAD_GNTREF));
}
