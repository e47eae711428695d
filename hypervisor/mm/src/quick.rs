//! The changes of page tables that guests make all the time, without a context and without words for what is wrong.
//!
//! Each function does the usual case or nothing: `false` (or `None`) means that nothing has changed and that the function of the same purpose in
//! `update` or `table` is to be asked, which does it or says why not.

use crate::entry::{self, PRESENT, RW};
use crate::record::{Kind, Refs};
use crate::update::Store;
use crate::{FrameType, Hardware, HeldTable, Level, Mm, PageTables};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use oxen_abi::xen::MmuUpdateType;
use oxen_hal::FrameMeta;
use oxen_types::{DomId, Gva, Maddr, Mfn, PT_ENTRIES};

/// A domain's tables, whose level-1 entries refer to its own frames, while their lock is held.
#[derive(Debug)]
pub struct QuickTables<'a> {
    /// Shows that the lock is held.
    _tables: &'a mut PageTables,
    /// [`Refs::expect`] of the domain.
    identity: u64,
    l1_disallowed: u64,
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
        Some(Self { _tables: tables, identity: Refs::expect(owner), l1_disallowed })
    }
}

/// The commands of `mmu_update` that write entries, one bit each.
const ENTRY_UPDATES: u32 =
    1 << MmuUpdateType::NORMAL_PT_UPDATE.0 | 1 << MmuUpdateType::PT_UPDATE_PRESERVE_AD.0 | 1 << MmuUpdateType::PT_UPDATE_NO_TRANSLATE.0;

/// The address in a request of `mmu_update` without the place in the table: the table and the command.
const fn table_and_command(ptr: u64) -> u64 {
    ptr & !0xff8
}

/// The entry of a table that the address in a request names.
#[inline(always)]
const fn slot_of(table: &[AtomicU64; PT_ENTRIES], address: u64) -> &AtomicU64 {
    &table[(address >> 3) as usize % PT_ENTRIES]
}

impl<M: Hardware> Mm<M> {
    /// Carries out requests of `mmu_update`, each an address with a command in its low bits and an entry: [`Mm::update_entry`] of level-1 tables. Gives how many were done, up to
    /// the first that is not usual.
    #[inline(always)]
    pub fn quick_updates(&self, quick: &mut QuickTables<'_>, requests: &[[u64; 2]]) -> usize {
        let mut done = 0;
        while let Some(&[ptr, _]) = requests.get(done) {
            // The table and how entries are stored, for all requests that follow with the same ones.
            let run = table_and_command(ptr);
            let command = MmuUpdateType((ptr & 7) as u32);
            if ENTRY_UPDATES >> command.0 & 1 == 0 {
                break;
            }
            let store = if command == MmuUpdateType::PT_UPDATE_PRESERVE_AD { Store::KeepAccessedDirty } else { Store::Plain };
            let Some(table) = self.leaf_table(quick, Maddr(ptr).mfn()) else { break };
            let before = done;
            for &[ptr, new] in requests.iter().skip(before) {
                let slot = slot_of(table, ptr);
                if table_and_command(ptr) != run || !self.quick_leaf(quick, slot, slot.load(Acquire), new, store) {
                    break;
                }
                done += 1;
            }
            if done == before {
                break;
            }
        }
        done
    }

    /// [`Mm::update_va`].
    #[inline(always)]
    pub fn quick_update_va(&self, quick: &mut QuickTables<'_>, root: Mfn, va: Gva, new: u64) -> bool {
        let Some(slot) = self.quick_slot(root, va) else { return false };
        self.quick_leaf(quick, slot, slot.load(Acquire), new, Store::Plain)
    }

    /// [`Mm::exchange_at`].
    #[inline(always)]
    pub fn quick_exchange_at(&self, quick: &mut QuickTables<'_>, root: Mfn, va: Gva, new: u64) -> Option<u64> {
        let mapping = self.quick_slot(root, va)?.load(Acquire);
        if mapping & (PRESENT | RW) != PRESENT {
            return None;
        }
        let slot = slot_of(self.leaf_table(quick, entry::frame(mapping))?, va.0);
        let old = slot.load(Acquire);
        self.quick_leaf(quick, slot, old, new, Store::IfUnchanged).then_some(old)
    }

    /// The level-1 entry that translates `va` below a validated root, as [`Mm::leaf_slot`].
    #[inline(always)]
    fn quick_slot(&self, root: Mfn, va: Gva) -> Option<&AtomicU64> {
        let (table, index) = self.leaf_slot(root, va)?;
        self.machine.table(table).get(index)
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

    /// A frame as the validated level-1 table of the domain that it is.
    #[inline(always)]
    fn leaf_table(&self, quick: &QuickTables<'_>, table: Mfn) -> Option<&[AtomicU64; PT_ENTRIES]> {
        let meta = self.machine.meta(table)?;
        // Under the lock a validated table stays one: no reference is needed.
        let is_table = meta.refs.load(Acquire) & Refs::IDENTITY == quick.identity
            && meta.kind.load(Relaxed) & (Kind::TYPE | Kind::VALIDATED) == Kind::bits(FrameType::L1) | Kind::VALIDATED;
        is_table.then(|| self.machine.table(table))
    }

    /// `mod_l1`.
    #[inline(always)]
    fn quick_leaf(&self, quick: &QuickTables<'_>, slot: &AtomicU64, old: u64, new: u64, store: Store) -> bool {
        if new & PRESENT == 0 {
            return self.quick_clear(slot, old, new, store);
        }
        if new & quick.l1_disallowed != 0 {
            return false;
        }
        let changed = (old ^ new) & !entry::HARMLESS;
        if changed == 0 {
            return put_entry(slot, old, entry::adjust_l1(new), store);
        }
        let Some(meta) = self.machine.meta(entry::frame(new)) else { return false };
        if changed == RW {
            return self.quick_access(quick, slot, (old, new), store, meta);
        }
        // Kernels clear an entry before they let it refer to another frame.
        old & PRESENT == 0 && self.take_leaf(quick.identity, entry::frame(new), meta, new) && self.put_taken(slot, (old, new), store, meta)
    }

    /// Makes an entry absent.
    #[inline(always)]
    fn quick_clear(&self, slot: &AtomicU64, old: u64, new: u64, store: Store) -> bool {
        if old & PRESENT == 0 {
            return put_entry(slot, old, new, store);
        }
        let Some(meta) = self.machine.meta(entry::frame(old)) else { return false };
        if is_descriptor_mapping(old, meta) || !put_entry(slot, old, new, store) {
            return false;
        }
        self.drop_leaf(old, meta);
        true
    }

    /// Only the access changes: both references are to the frame with this record, which the old one keeps from changing hands.
    #[inline(always)]
    fn quick_access(&self, quick: &QuickTables<'_>, slot: &AtomicU64, (old, new): (u64, u64), store: Store, meta: &FrameMeta) -> bool {
        let refs = meta.refs.load(Acquire);
        if refs & Refs::IDENTITY != quick.identity {
            return false;
        }
        let taken = if new & RW == 0 {
            refs & Refs::COUNT != Refs::COUNT && meta.refs.compare_exchange(refs, refs + 1, Acquire, Relaxed).is_ok()
        } else {
            // A frame in use as writable is no descriptor table.
            let kind = Kind(meta.kind.load(Relaxed));
            kind.can_share_writable() && meta.kind.compare_exchange(kind.0, kind.0 + Kind::COUNT_UNIT, AcqRel, Relaxed).is_ok()
        };
        if !taken || !self.put_taken(slot, (old, new), store, meta) {
            return false;
        }
        self.drop_leaf(old, meta);
        true
    }

    /// Stores an entry whose reference has been taken; gives that back where the entry is not the old one any more.
    #[inline(always)]
    fn put_taken(&self, slot: &AtomicU64, (old, new): (u64, u64), store: Store, meta: &FrameMeta) -> bool {
        let stored = put_entry(slot, old, entry::adjust_l1(new), store);
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

/// [`Mm::store_entry`]; false where the entry was not `old` any more and had to be.
#[inline(always)]
fn put_entry(slot: &AtomicU64, old: u64, new: u64, store: Store) -> bool {
    match store {
        Store::Plain => slot.store(new, Release),
        Store::KeepAccessedDirty => {
            let mut old = old;
            while let Err(now) = slot.compare_exchange(old, new | old & (entry::ACCESSED | entry::DIRTY), AcqRel, Acquire) {
                old = now;
            }
        }
        Store::IfUnchanged => return slot.compare_exchange(old, new, AcqRel, Acquire).is_ok(),
    }
    true
}

/// Whether dropping the mapping has consequences for LDTs ([`crate::Effects::ldt_stale`]). Frames become descriptor tables of the domain under its lock only.
#[inline(always)]
fn is_descriptor_mapping(old: u64, meta: &FrameMeta) -> bool {
    old & RW == 0 && meta.kind.load(Relaxed) & Kind::TYPE == Kind::bits(FrameType::SegDesc)
}
