//! The allocator: no overlap, coalescing, limits, claims, exhaustion.

mod common;

use common::{D1, D2, World};
use oxen_hal::{AddressSpace, FlushScope, Frames};
use oxen_mm::{FrameBlock, MAX_ORDER, MmError};
use oxen_testkit::{Config, Event, Rng};
use oxen_types::{CpuId, CpuSet, Mfn};
use std::collections::BTreeSet;

#[test]
fn every_frame_but_the_first_is_free() {
    let w = World::new(1000);
    assert_eq!(w.mm.free_frames(), 999);
    assert_eq!(w.mm.free_frames_below(0), 999);
    assert_eq!(w.mm.free_frames_below(12 + 9), 511);
}

#[test]
fn holes_are_left_out() {
    let w = World::with(Config { frames: 1000, holes: vec![(160, 256), (700, 701)], ..Config::default() });
    assert_eq!(w.mm.free_frames(), 999 - 96 - 1);
    let mut all = BTreeSet::new();
    while let Ok(block) = w.mm.alloc(0, 0) {
        assert!(w.machine.meta(block.mfn()).is_some());
        assert!(all.insert(block.mfn()));
    }
    assert_eq!(all.len() as u64, 902);
}

#[test]
fn address_limits_hold_and_high_memory_goes_first() {
    let w = World::new(4096);
    let high = w.mm.alloc(0, 0).unwrap();
    assert!(high.mfn().0 >= 2048);
    let low = w.mm.alloc(3, 12 + 6).unwrap();
    assert!(low.mfn().0 + 8 <= 64 && low.mfn().0.is_multiple_of(8));
    assert_eq!(w.mm.alloc(6, 12 + 6), Err(MmError::NoMemory), "the lowest 64 frames hold no block of 64");
    assert_eq!(w.mm.alloc(0, 12), Err(MmError::NoMemory));
    assert_eq!(w.mm.alloc(MAX_ORDER + 1, 0), Err(MmError::NoMemory));
    assert_eq!(w.mm.alloc(77, 0), Err(MmError::NoMemory));
    w.mm.free(high);
    w.mm.free(low);
    assert_eq!(w.mm.free_frames(), 4095);
}

#[test]
fn blocks_merge_again() {
    let w = World::new(1 << 12);
    let mut blocks: Vec<FrameBlock> = std::iter::from_fn(|| w.mm.alloc(0, 0).ok()).collect();
    assert_eq!(w.mm.free_frames(), 0);
    let mut rng = Rng::new(5);
    while !blocks.is_empty() {
        let i = rng.below(blocks.len() as u64) as usize;
        w.mm.free(blocks.swap_remove(i));
    }
    let big = w.mm.alloc(11, 0).expect("2048 frames in one block");
    assert_eq!(big.mfn(), Mfn(2048));
    let second = w.mm.alloc(10, 0).expect("and 1024");
    assert_eq!(second.mfn(), Mfn(1024));
}

#[test]
fn random_blocks_never_overlap() {
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let w = World::with(Config { frames: 3000, holes: vec![(1000, 1100)], ..Config::default() });
        let total = w.mm.free_frames();
        let mut held: Vec<FrameBlock> = Vec::new();
        let mut owned = BTreeSet::new();
        for _ in 0..3000 {
            if rng.one_in(2) {
                let bits = if rng.one_in(3) { 12 + 3 + rng.below(9) as u32 } else { 0 };
                let order = rng.below(7) as u32;
                if let Ok(block) = w.mm.alloc(order, bits) {
                    for i in 0..1 << order {
                        let mfn = block.mfn().offset(i);
                        assert!(bits == 0 || mfn.0 < 1 << (bits - 12));
                        assert!(w.machine.meta(mfn).is_some() && mfn.0 != 0);
                        assert!(owned.insert(mfn), "{mfn} given out twice");
                    }
                    held.push(block);
                }
            } else if !held.is_empty() {
                let block = held.swap_remove(rng.below(held.len() as u64) as usize);
                for i in 0..1 << block.order() {
                    owned.remove(&block.mfn().offset(i));
                }
                if rng.one_in(4) {
                    block.split().for_each(|b| w.mm.free(b));
                } else {
                    w.mm.free(block);
                }
            }
            assert_eq!(w.mm.free_frames() + owned.len() as u64, total);
        }
        assert_eq!(w.mm.free_frames_below(0), w.mm.free_frames());
    }
}

#[test]
fn domains_have_limits() {
    let w = World::new(256);
    let account = w.mm.account(D1).unwrap();
    account.set_limit(8);
    let block = w.mm.alloc_for(D1, 3, 0).unwrap();
    assert_eq!(w.mm.alloc_for(D1, 0, 0), Err(MmError::OverLimit(D1)));
    w.mm.release(block, D1).unwrap();
    assert_eq!(account.pages(), 7);
    assert_eq!(w.mm.release(block, D1).unwrap_err().errno(), oxen_abi::Errno::EINVAL);
    w.mm.alloc_for(D1, 0, 0).unwrap();
    account.set_dying();
    assert_eq!(w.mm.alloc_for(D1, 0, 0), Err(MmError::Dying(D1)));
}

#[test]
fn exhaustion_is_an_error_and_costs_nothing() {
    let w = World::new(64);
    w.mm.account(D1).unwrap().set_limit(1 << 20);
    let mut n = 0;
    while w.mm.alloc_for(D1, 0, 0).is_ok() {
        n += 1;
    }
    assert_eq!((n, w.mm.free_frames()), (63, 0));
    assert_eq!(w.mm.alloc_for(D1, 0, 0), Err(MmError::NoMemory));
    assert_eq!(w.mm.account(D1).unwrap().pages(), 63);
}

#[test]
fn claims_are_kept_for_their_domain() {
    let w = World::new(101);
    w.mm.claim(D1, 60).unwrap();
    assert_eq!(w.mm.claim(D1, 10), Err(MmError::InUse(Mfn::INVALID)));
    assert_eq!(w.mm.claim(D2, 50), Err(MmError::NoMemory));
    for _ in 0..40 {
        w.mm.alloc_for(D2, 0, 0).unwrap();
    }
    assert_eq!(w.mm.alloc_for(D2, 0, 0), Err(MmError::NoMemory));
    assert_eq!(w.mm.alloc(0, 0), Err(MmError::NoMemory));
    for _ in 0..60 {
        w.mm.alloc_for(D1, 0, 0).unwrap();
    }
    assert_eq!((w.mm.claimed_frames(), w.mm.account(D1).unwrap().claim()), (0, 0));
    w.mm.claim(D1, 0).unwrap();
}

#[test]
fn a_claim_can_be_taken_back() {
    let w = World::new(101);
    w.mm.claim(D1, 60).unwrap();
    w.mm.claim(D1, 0).unwrap();
    assert_eq!(w.mm.claimed_frames(), 0);
    w.mm.claim(D2, 100).unwrap();
}

#[test]
fn domain_memory_is_zeroed_and_its_m2p_entry_invalid() {
    let w = World::new(16);
    let mfn = w.page(D1);
    w.poke(mfn, 7, 0xdead);
    w.machine.set_m2p(mfn, 5);
    w.mm.release(mfn, D1).unwrap();
    assert_eq!(w.machine.m2p(mfn), u64::MAX);
    for _ in 0..15 {
        let mfn = w.page(D2);
        assert!((0..512).all(|i| w.peek(mfn, i) == 0));
    }
}

#[test]
fn reuse_waits_for_the_processors_that_may_remember() {
    let w = World::with(Config { frames: 8, cpus: 3, ..Config::default() });
    let mfn = w.page(D1);
    while w.mm.alloc(0, 0).is_ok() {}
    w.machine.flush_remote(&CpuSet::of(CpuId(0)), FlushScope::All);
    w.mm.release(mfn, D1).unwrap();
    w.machine.flush_remote(&CpuSet::of(CpuId(1)), FlushScope::All);
    w.machine.take_events();
    assert_eq!(w.page(D2), mfn);
    assert_eq!(w.machine.take_events(), [Event::Flush(vec![CpuId(0), CpuId(2)], FlushScope::All)]);
    w.mm.release(mfn, D2).unwrap();
    for cpu in 0..3 {
        w.machine.flush_remote(&CpuSet::of(CpuId(cpu)), FlushScope::All);
    }
    w.machine.take_events();
    assert_eq!(w.page(D1), mfn);
    assert_eq!(w.machine.take_events(), [], "everybody has flushed already");
}

#[test]
fn stealing_needs_a_frame_that_nobody_uses() {
    let w = World::new(16);
    let mfn = w.page(D1);
    assert!(matches!(w.mm.steal(mfn, D2), Err(MmError::Owner { .. })));
    let user = w.mm.get_page(mfn, D1).unwrap();
    assert_eq!(w.mm.steal(mfn, D1), Err(MmError::InUse(mfn)));
    drop(user);
    let block = w.mm.steal(mfn, D1).unwrap();
    assert_eq!(w.mm.account(D1).unwrap().pages(), 0);
    assert!(w.mm.get_page(mfn, D1).is_err());
    assert_eq!(w.mm.assign(block, D2).unwrap(), mfn);
    assert_eq!(w.mm.owner(mfn), Some(D2));
}

#[test]
fn shared_frames_live_as_long_as_their_last_user() {
    let mut w = World::new(64);
    let free = w.mm.free_frames();
    let frame = w.mm.share(w.mm.alloc_zeroed(0, 0).unwrap(), D1, true);
    let mfn = frame.mfn();
    assert_eq!(w.mm.account(D1).unwrap().pages(), 0, "not the domain's memory");
    assert!(matches!(w.mm.release(mfn, D1), Err(MmError::Owner { .. })));
    assert!(matches!(w.mm.steal(mfn, D1), Err(MmError::Owner { .. })));
    let l1 = w.page(D1);
    w.poke(l1, 0, oxen_mm::entry::make(mfn, common::ALL));
    w.pin(D1, l1, oxen_mm::Level::L1).unwrap();
    w.mm.unshare(frame);
    assert_eq!(w.mm.owner(mfn), Some(D1));
    w.destroy(D1, 10);
    assert_eq!(w.mm.free_frames(), free);
    assert_eq!(w.mm.owner(mfn), None);
}
