//! The changes of page tables that guests make all the time, without a context and without words for what is wrong.
//!
//! Each function does the usual case or nothing: `false` (or `None`) means that nothing has changed and that the function of the same purpose in
//! `update` or `table` is to be asked, which does it or says why not.

use crate::context::NO_TABLE;
use crate::entry::{self, PRESENT, RW};
use crate::record::{Kind, Refs};
use crate::update::Store;
use crate::{FrameType, Hardware, HeldTable, Level, Mm, PageTables};
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use oxen_hal::FrameMeta;
use oxen_types::{DomId, Gva, Mfn, PT_ENTRIES};

/// A domain's tables, whose level-1 entries refer to its own frames, while their lock is held.
#[derive(Debug)]
pub struct QuickTables<'a> {
    /// Shows that the lock is held.
    _tables: &'a mut PageTables,
    /// [`Refs::expect`] of the domain.
    identity: u64,
    l1_disallowed: u64,
    /// A frame found to be a validated level-1 table of the domain, or [`NO_TABLE`]. It stays one while this value exists: nothing here ends the use of a
    /// level-1 table.
    leaf_table: Mfn,
}

impl<'a> QuickTables<'a> {
    /// The tables of `owner`; `device_access` as for [`crate::MmuContext::new`]. `None` while an interrupted undoing has to be finished first.
    #[inline(always)]
    #[must_use]
    pub fn new(tables: &'a mut PageTables, owner: DomId, device_access: bool) -> Option<Self> {
        if tables.has_pending() {
            return None;
        }
        let l1_disallowed = if device_access { 0 } else { entry::CACHE_ATTRIBUTES };
        Some(Self { _tables: tables, identity: Refs::expect(owner), l1_disallowed, leaf_table: NO_TABLE })
    }
}

impl<M: Hardware> Mm<M> {
    /// [`Mm::update_entry`] of a level-1 table.
    #[inline(always)]
    pub fn quick_update_entry(&self, quick: &mut QuickTables<'_>, table: Mfn, index: usize, new: u64, preserve_ad: bool) -> bool {
        let index = index % PT_ENTRIES;
        if table != quick.leaf_table {
            if !self.is_leaf_table(quick, table) {
                return false;
            }
            quick.leaf_table = table;
        }
        let store = if preserve_ad { Store::KeepAccessedDirty } else { Store::Plain };
        self.quick_leaf(quick, table, index, self.machine.read_entry(table, index), new, store)
    }

    /// [`Mm::update_va`].
    #[inline(always)]
    pub fn quick_update_va(&self, quick: &mut QuickTables<'_>, root: Mfn, va: Gva, new: u64) -> bool {
        match self.leaf_slot(root, va) {
            Some((table, index)) => self.quick_leaf(quick, table, index, self.machine.read_entry(table, index), new, Store::Plain),
            None => false,
        }
    }

    /// [`Mm::exchange_at`].
    #[inline(always)]
    pub fn quick_exchange_at(&self, quick: &mut QuickTables<'_>, root: Mfn, va: Gva, new: u64) -> Option<u64> {
        let (table, index) = self.leaf_slot(root, va)?;
        let mapping = self.machine.read_entry(table, index);
        let seen = entry::frame(mapping);
        if mapping & (PRESENT | RW) != PRESENT || !self.is_leaf_table(quick, seen) {
            return None;
        }
        let index = va.page_offset() / 8;
        let old = self.machine.read_entry(seen, index);
        self.quick_leaf(quick, seen, index, old, new, Store::IfUnchanged).then_some(old)
    }

    /// Makes `held` a use of `new`, another root of the domain that is in use already; `load` makes the processor use it, before the use of the old one ends, which is
    /// not the last.
    #[inline(always)]
    pub fn quick_switch_root(&self, quick: &mut QuickTables<'_>, held: &mut HeldTable, new: Mfn, load: impl FnOnce()) -> bool {
        let Some(meta) = self.machine.meta(new) else { return false };
        if meta.refs.load(Acquire) & Refs::IDENTITY != quick.identity {
            return false;
        }
        let kind = Kind(meta.kind.load(Relaxed));
        if !kind.can_share_table(FrameType::L4) || held.mfn() == new {
            return false;
        }
        let Some(old) = self.machine.meta(held.mfn()) else { return false };
        let left = Kind(old.kind.load(Relaxed));
        if left.count() < 2 {
            return false;
        }
        // Table types change under the lock only, so plain stores do.
        meta.kind.store(kind.0 + Kind::COUNT_UNIT, Relaxed);
        load();
        old.kind.store(left.0 - Kind::COUNT_UNIT, Relaxed);
        *held = HeldTable::new(new, Level::L4);
        true
    }

    #[inline(always)]
    fn is_leaf_table(&self, quick: &QuickTables<'_>, table: Mfn) -> bool {
        let Some(meta) = self.machine.meta(table) else { return false };
        // Under the lock a validated table stays one: no reference is needed.
        meta.refs.load(Acquire) & Refs::IDENTITY == quick.identity
            && meta.kind.load(Relaxed) & (Kind::TYPE | Kind::VALIDATED) == Kind::bits(FrameType::L1) | Kind::VALIDATED
    }

    /// `mod_l1`.
    #[inline(always)]
    fn quick_leaf(&self, quick: &QuickTables<'_>, table: Mfn, index: usize, old: u64, new: u64, store: Store) -> bool {
        if new & PRESENT == 0 {
            if old & PRESENT == 0 {
                return self.store_entry(table, index, old, new, store).is_ok();
            }
            let Some(meta) = self.machine.meta(entry::frame(old)) else { return false };
            if is_descriptor_mapping(old, meta) || self.store_entry(table, index, old, new, store).is_err() {
                return false;
            }
            self.drop_leaf(old, meta);
            return true;
        }
        if new & quick.l1_disallowed != 0 {
            return false;
        }
        if (old ^ new) & !entry::HARMLESS == 0 {
            return self.store_entry(table, index, old, entry::adjust_l1(new), store).is_ok();
        }
        let Some(meta) = self.machine.meta(entry::frame(new)) else { return false };
        if old & PRESENT == 0 {
            return self.take_leaf(quick.identity, entry::frame(new), meta, new) && self.store_taken(table, index, old, new, store, meta);
        }
        // Where only the access changes, both references are to one frame.
        let same = entry::frame(old) == entry::frame(new);
        let Some(old_meta) = (if same { Some(meta) } else { self.machine.meta(entry::frame(old)) }) else { return false };
        if is_descriptor_mapping(old, old_meta)
            || !self.take_leaf(quick.identity, entry::frame(new), meta, new)
            || !self.store_taken(table, index, old, new, store, meta)
        {
            return false;
        }
        self.drop_leaf(old, old_meta);
        true
    }

    /// Stores an entry whose reference has been taken; gives that back where the entry is not `old` any more.
    #[inline(always)]
    fn store_taken(&self, table: Mfn, index: usize, old: u64, new: u64, store: Store, meta: &FrameMeta) -> bool {
        let stored = self.store_entry(table, index, old, entry::adjust_l1(new), store).is_ok();
        if !stored {
            self.drop_leaf(new, meta);
        }
        stored
    }

    /// Takes the reference of a present level-1 entry to a frame of the domain with `identity`, where that is no more than counting.
    #[inline(always)]
    pub(crate) fn take_leaf(&self, identity: u64, mfn: Mfn, meta: &FrameMeta, new: u64) -> bool {
        let refs = meta.refs.load(Acquire);
        if refs & Refs::IDENTITY != identity {
            return false;
        }
        // Both words are changed by the common case here and by the rare ones in the called functions.
        if new & RW == 0 {
            return refs & Refs::COUNT != Refs::COUNT && meta.refs.compare_exchange(refs, refs + 1, Acquire, Relaxed).is_ok();
        }
        let kind = Kind(meta.kind.load(Relaxed));
        if !kind.can_share_writable() || meta.kind.compare_exchange(kind.0, kind.0 + Kind::COUNT_UNIT, AcqRel, Relaxed).is_err() {
            return false;
        }
        // The frame cannot change hands any more, but it may just have.
        if meta.refs.load(Acquire) & Refs::IDENTITY == identity {
            return true;
        }
        self.drop_use(mfn, meta);
        false
    }

    /// Drops the reference that a present level-1 entry held to the frame with this record.
    #[inline(always)]
    fn drop_leaf(&self, old: u64, meta: &FrameMeta) {
        if old & RW != 0 {
            let kind = meta.kind.load(Relaxed);
            let shared = Kind(kind).is_shared_writable();
            if !shared || meta.kind.compare_exchange(kind, kind - Kind::COUNT_UNIT, AcqRel, Relaxed).is_err() {
                self.drop_use(entry::frame(old), meta);
            }
        } else {
            self.put_page(entry::frame(old), meta);
        }
    }
}

/// Whether dropping the mapping has consequences for LDTs ([`crate::Effects::ldt_stale`]). Frames become descriptor tables of the domain under its lock only.
#[inline(always)]
fn is_descriptor_mapping(old: u64, meta: &FrameMeta) -> bool {
    old & RW == 0 && meta.kind.load(Relaxed) & Kind::TYPE == Kind::bits(FrameType::SegDesc)
}
