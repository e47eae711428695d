//! The buddy allocator of machine frames.
//!
//! Free frames form blocks of 2^order frames, aligned to their size. Blocks of one order and one zone are in a doubly linked list whose links live in the
//! records of the blocks' first frames, so the allocator needs no memory of its own. Zone `z` holds the frame numbers whose
//! highest set bit is bit `z`: "below 2^n bytes" is then a set of whole zones, and a block never crosses a zone.

use crate::record::{Kind, Refs};
use core::sync::atomic::Ordering::Relaxed;
use oxen_hal::Frames;
use oxen_types::{Mfn, PAGE_SHIFT};

/// Largest order of a block: 2^18 frames are 1 GiB.
pub const MAX_ORDER: u32 = 18;
const ORDERS: usize = MAX_ORDER as usize + 1;
const ZONES: usize = 31;
const NONE: u32 = Refs::NO_LINK as u32;

/// The lists; the caller holds the allocator's lock.
#[derive(Debug)]
pub(crate) struct Buddy {
    heads: [[u32; ORDERS]; ZONES],
    /// Bit `order` of entry `zone`: the list has a block.
    filled: [u32; ZONES],
    free_frames: u64,
}

const fn zone_of(mfn: u64) -> usize {
    (63 - (mfn | 1).leading_zeros()) as usize
}

impl Buddy {
    pub const fn new() -> Self {
        Self { heads: [[NONE; ORDERS]; ZONES], filled: [0; ZONES], free_frames: 0 }
    }

    pub const fn free_frames(&self) -> u64 {
        self.free_frames
    }

    /// Frames free below machine address 2^`address_bits`.
    pub fn free_below<F: Frames>(&self, frames: &F, address_bits: u32) -> u64 {
        let mut sum = 0;
        for zone in 0..zones_below(address_bits) {
            for order in 0..ORDERS {
                let mut at = self.heads[zone][order];
                while at != NONE {
                    sum += 1 << order;
                    at = self.next(frames, at);
                }
            }
        }
        sum
    }

    fn next<F: Frames>(&self, frames: &F, at: u32) -> u32 {
        match frames.meta(Mfn(u64::from(at))) {
            Some(meta) => Refs(meta.refs.load(Relaxed)).next() as u32,
            None => NONE,
        }
    }

    /// Takes a block of 2^`order` frames below machine address 2^`address_bits`, from the highest zone that has one. Returns its first frame, whose record is
    /// zero again, and the stamp before which every processor must have flushed.
    pub fn take<F: Frames>(&mut self, frames: &F, order: u32, address_bits: u32) -> Option<(Mfn, u32)> {
        if order > MAX_ORDER {
            return None;
        }
        let wanted = !0 << order;
        let zone = (0..zones_below(address_bits)).rev().find(|&z| self.filled[z] & wanted != 0)?;
        let found = (self.filled[zone] & wanted).trailing_zeros();
        let mfn = u64::from(self.heads[zone][found as usize]);
        let stamp = self.unlink(frames, mfn, found)?;
        // The lower half is kept at each split, the upper one goes back.
        for half in (order..found).rev() {
            self.link(frames, mfn + (1 << half), half, stamp);
        }
        self.free_frames -= 1 << order;
        Some((Mfn(mfn), stamp))
    }

    /// Gives back a block of 2^`order` frames whose records are zero, merging it with its free neighbours.
    pub fn give<F: Frames>(&mut self, frames: &F, mfn: Mfn, order: u32, stamp: u32) {
        let (mut at, mut order, mut stamp) = (mfn.0, order, stamp);
        self.free_frames += 1 << order;
        while order < MAX_ORDER {
            let buddy = at ^ (1 << order);
            if zone_of(buddy) != zone_of(at) {
                break;
            }
            let Some(meta) = frames.meta(Mfn(buddy)) else { break };
            let kind = Kind(meta.kind.load(Relaxed));
            if kind.0 & !u64::from(u32::MAX) != Kind::free_head(order, 0).0 {
                break;
            }
            let Some(other) = self.unlink(frames, buddy, order) else { break };
            stamp = stamp.max(other);
            at &= !(1 << order);
            order += 1;
        }
        self.link(frames, at, order, stamp);
    }

    fn link<F: Frames>(&mut self, frames: &F, mfn: u64, order: u32, stamp: u32) {
        let Some(meta) = frames.meta(Mfn(mfn)) else { return };
        let zone = zone_of(mfn);
        let first = self.heads[zone][order as usize];
        meta.refs.store(Refs::links(Refs::NO_LINK, u64::from(first)).0, Relaxed);
        meta.kind.store(Kind::free_head(order, stamp).0, Relaxed);
        if let Some(next) = frames.meta(Mfn(u64::from(first))).filter(|_| first != NONE) {
            let links = Refs(next.refs.load(Relaxed));
            next.refs.store(Refs::links(mfn, links.next()).0, Relaxed);
        }
        self.heads[zone][order as usize] = mfn as u32;
        self.filled[zone] |= 1 << order;
    }

    /// Takes the block at `mfn` out of its list; gives its stamp.
    fn unlink<F: Frames>(&mut self, frames: &F, mfn: u64, order: u32) -> Option<u32> {
        let meta = frames.meta(Mfn(mfn))?;
        let links = Refs(meta.refs.load(Relaxed));
        let stamp = Kind(meta.kind.load(Relaxed)).stamp();
        let zone = zone_of(mfn);
        if links.prev() == Refs::NO_LINK {
            self.heads[zone][order as usize] = links.next() as u32;
            if links.next() == Refs::NO_LINK {
                self.filled[zone] &= !(1 << order);
            }
        } else if let Some(prev) = frames.meta(Mfn(links.prev())) {
            let other = Refs(prev.refs.load(Relaxed));
            prev.refs.store(Refs::links(other.prev(), links.next()).0, Relaxed);
        }
        if links.next() != Refs::NO_LINK
            && let Some(next) = frames.meta(Mfn(links.next()))
        {
            let other = Refs(next.refs.load(Relaxed));
            next.refs.store(Refs::links(links.prev(), other.next()).0, Relaxed);
        }
        meta.refs.store(0, Relaxed);
        meta.kind.store(0, Relaxed);
        Some(stamp)
    }
}

/// Number of zones that lie wholly below machine address 2^`address_bits`; 0 bits means no limit.
fn zones_below(address_bits: u32) -> usize {
    match address_bits {
        0 => ZONES,
        bits => (bits.saturating_sub(PAGE_SHIFT) as usize).min(ZONES),
    }
}
