//! Several processors on the same frames at once.

mod common;

use common::{ALL, D1, D2, PLENTY, RO};
use oxen_hal::Processors;
use oxen_mm::{FrameType, Level, Mm, MmuContext, NoMmio, PageTables, entry};
use oxen_testkit::{Config, FakeMachine, Rng};
use oxen_types::{CpuSet, DomId, Mfn};
use std::thread;

const ROUNDS: u32 = 100_000;

struct Side {
    mm: &'static Mm<FakeMachine>,
    id: DomId,
    tables: PageTables,
    dirty: CpuSet,
    l1: Mfn,
}

impl Side {
    fn new(mm: &'static Mm<FakeMachine>, id: DomId) -> Self {
        let dirty = mm.machine().online().clone();
        let l1 = mm.alloc_for(id, 0, 0).unwrap();
        let mut side = Self { mm, id, tables: PageTables::new(), dirty, l1 };
        mm.pin(&mut side.ctx(id), l1, Level::L1).unwrap();
        side
    }

    fn ctx(&mut self, foreign: DomId) -> MmuContext<'_, NoMmio> {
        MmuContext::new(&mut self.tables, self.id, &self.dirty, &NoMmio, false, PLENTY).with_foreign(foreign)
    }

    fn map(&mut self, foreign: DomId, index: usize, entry: u64) -> bool {
        let (mm, l1) = (self.mm, self.l1);
        mm.update_entry(&mut self.ctx(foreign), l1, index, entry, false).is_ok()
    }
}

/// Domain 1 uses one of its frames as page table and as data in turn, while domain 2 and the hypervisor try to write it.
#[test]
fn one_frame_has_one_type() {
    let machine = FakeMachine::new(Config { frames: 64, cpus: 3, ..Config::default() });
    let mm: &'static Mm<FakeMachine> = Box::leak(Box::new(Mm::new(machine)));
    mm.add_range(Mfn(0), 64);
    for id in [D1, D2] {
        mm.account(id).unwrap().set_limit(64);
    }
    let page = mm.alloc_for(D1, 0, 0).unwrap();
    let ty = move || mm.inspect(page).unwrap().ty;
    let owner = thread::spawn(move || {
        let mut side = Side::new(mm, D1);
        let (mut pins, mut maps) = (0, 0);
        for _ in 0..ROUNDS {
            if mm.pin(&mut side.ctx(D1), page, Level::L1).is_ok() {
                pins += 1;
                assert_eq!(ty(), FrameType::L1);
                assert!(!side.map(D1, 0, entry::make(page, ALL)));
                mm.unpin(&mut side.ctx(D1), page).unwrap();
            }
            if side.map(D1, 0, entry::make(page, ALL)) {
                maps += 1;
                assert_eq!(ty(), FrameType::Writable);
                assert!(mm.pin(&mut side.ctx(D1), page, Level::L1).is_err());
            }
            side.map(D1, 0, 0);
        }
        (pins, maps)
    });
    let other = thread::spawn(move || {
        let mut side = Side::new(mm, D2);
        let mut rng = Rng::new(1);
        for _ in 0..ROUNDS {
            let flags = if rng.one_in(2) { ALL } else { RO };
            if side.map(D1, 1, entry::make(page, flags)) && flags == ALL {
                assert_eq!(ty(), FrameType::Writable);
            }
            side.map(D1, 1, 0);
        }
    });
    let hypervisor = thread::spawn(move || {
        let cpus = machine.online();
        for _ in 0..ROUNDS {
            if let Ok(_use) = mm.get_writable(page, D1, cpus) {
                assert_eq!(ty(), FrameType::Writable);
            }
        }
    });
    let (pins, maps) = owner.join().unwrap();
    other.join().unwrap();
    hypervisor.join().unwrap();
    println!("{pins} pins, {maps} writable mappings");
    let info = mm.inspect(page).unwrap();
    assert_eq!((info.uses, info.references), (0, 1));
}

/// Frames change owners while others look at them.
#[test]
fn frames_never_have_two_owners() {
    let machine = FakeMachine::new(Config { frames: 32, cpus: 4, ..Config::default() });
    let mm: &'static Mm<FakeMachine> = Box::leak(Box::new(Mm::new(machine)));
    mm.add_range(Mfn(0), 32);
    let total = mm.free_frames();
    let domains = [D1, D2, DomId(3)];
    for id in domains {
        mm.account(id).unwrap().set_limit(16);
    }
    let workers: Vec<_> = domains
        .into_iter()
        .map(|id| {
            thread::spawn(move || {
                let mut rng = Rng::new(u64::from(id.0));
                let mut held = Vec::new();
                let cpus = machine.online();
                for _ in 0..ROUNDS {
                    match rng.below(4) {
                        0 => held.extend(mm.alloc_for(id, 0, 0)),
                        1 if !held.is_empty() => {
                            let mfn = held.swap_remove(rng.below(held.len() as u64) as usize);
                            // Somebody else's glance may keep it for a moment; the release is certain all the same.
                            mm.release(mfn, id).unwrap();
                        }
                        2 if !held.is_empty() => {
                            let mfn = *rng.pick(&held);
                            let user = mm.get_writable(mfn, id, cpus).unwrap();
                            assert_eq!(mm.owner(user.mfn()), Some(id));
                        }
                        _ => {
                            let mfn = Mfn(rng.below(32));
                            let other = *rng.pick(&domains);
                            if let Ok(user) = mm.get_writable(mfn, other, cpus) {
                                assert_eq!(mm.owner(user.mfn()), Some(other));
                            }
                        }
                    }
                }
                held.into_iter().for_each(|mfn| mm.release(mfn, id).unwrap());
            })
        })
        .collect();
    workers.into_iter().for_each(|w| w.join().unwrap());
    assert_eq!(mm.free_frames(), total);
    assert!(domains.iter().all(|&id| mm.account(id).unwrap().pages() == 0));
}
