//! Changes of single entries that a guest asks for.

use crate::entry::{self, PRESENT};
use crate::record::{Kind, Refs};
use crate::{FrameType, Hardware, HeldPage, HeldTyped, Level, Mm, MmError, MmioPolicy, MmuContext, Purpose};
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use oxen_types::{DomId, Mfn, PT_ENTRIES};

/// The reference that a grant mapping's entry owns: a count for a read-only mapping, a use for a writable one.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum MappingRef {
    /// Read-only.
    Read(HeldPage),
    /// Writable.
    Write(HeldTyped),
}

/// How a level-1 entry is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// Over whatever is there.
    Plain,
    /// Keeping the accessed and dirty bits that the processor sets meanwhile.
    KeepAccessedDirty,
    /// Only over the old entry, so that no bit that the processor sets meanwhile is lost.
    IfUnchanged,
}

impl<M: Hardware> Mm<M> {
    /// Writes `new` to entry `index` (below 512) of a frame of the context's owner: `mmu_update` of a page-table entry. In a page table the
    /// entry is checked and its references change hands; elsewhere it is a plain store. With `preserve_ad` the accessed and
    /// dirty bits that the processor sets meanwhile are kept.
    ///
    /// # Errors
    /// What is wrong with the frame or the entry; nothing has changed then.
    #[inline]
    pub fn update_entry<P: MmioPolicy>(
        &self,
        ctx: &mut MmuContext<'_, P>,
        table: Mfn,
        index: usize,
        new: u64,
        preserve_ad: bool,
    ) -> Result<(), MmError> {
        self.finish_pending(ctx)?;
        let index = index % PT_ENTRIES;
        if table != ctx.leaf_table {
            let meta = self.machine.meta(table).ok_or(MmError::NotRam(table))?;
            let refs = Refs(meta.refs.load(Acquire));
            if refs.0 & Refs::IDENTITY != Refs::expect(ctx.owner) {
                return Err(self.owner_error(table, refs, ctx.owner));
            }
            // Under the lock a validated table stays one: no reference is needed.
            let kind = Kind(meta.kind.load(Relaxed));
            if kind.0 & (Kind::TYPE | Kind::VALIDATED) != Kind::bits(FrameType::L1) | Kind::VALIDATED {
                return self.update_other(ctx, table, index, new, preserve_ad, kind);
            }
            ctx.leaf_table = table;
        }
        let store = if preserve_ad { Store::KeepAccessedDirty } else { Store::Plain };
        self.mod_l1(ctx, table, index, self.machine.read_entry(table, index), new, store)
    }

    /// Replaces entry `index` of `table`, a level-1 table of the context's owner, where it is still `old`: an instruction of the guest that reads and writes it.
    ///
    /// # Errors
    /// [`MmError::EntryChanged`]; [`MmError::NotValidated`], [`MmError::Type`] where `table` is no such table; otherwise as [`Mm::update_entry`].
    pub fn exchange_leaf<P: MmioPolicy>(
        &self,
        ctx: &mut MmuContext<'_, P>,
        table: Mfn,
        index: usize,
        old: u64,
        new: u64,
    ) -> Result<(), MmError> {
        self.finish_pending(ctx)?;
        self.check_leaf_table(ctx, table)?;
        self.mod_l1(ctx, table, index % PT_ENTRIES, old, new, Store::IfUnchanged)
    }

    /// Exchanges the entry at `va`, an aligned address in a level-1 table of the context's owner that the tables below `root` (a validated root of the owner) show
    /// read-only, for `new`; gives the old one. `None` where `va` is not such a place or the entry changed meanwhile: nothing is done then.
    ///
    /// # Errors
    /// As [`Mm::update_entry`].
    #[inline]
    pub fn exchange_at<P: MmioPolicy>(
        &self,
        ctx: &mut MmuContext<'_, P>,
        root: Mfn,
        va: oxen_types::Gva,
        new: u64,
    ) -> Result<Option<u64>, MmError> {
        self.finish_pending(ctx)?;
        let Some((table, index)) = self.leaf_slot(root, va) else { return Ok(None) };
        let mapping = self.machine.read_entry(table, index);
        let seen = entry::frame(mapping);
        if mapping & (PRESENT | entry::RW) != PRESENT || self.check_leaf_table(ctx, seen).is_err() {
            return Ok(None);
        }
        let index = va.page_offset() / 8;
        let old = self.machine.read_entry(seen, index);
        match self.mod_l1(ctx, seen, index, old, new, Store::IfUnchanged) {
            Ok(()) => Ok(Some(old)),
            Err(MmError::EntryChanged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    #[inline(never)]
    fn update_other<P: MmioPolicy>(
        &self,
        ctx: &mut MmuContext<'_, P>,
        table: Mfn,
        index: usize,
        new: u64,
        preserve_ad: bool,
        kind: Kind,
    ) -> Result<(), MmError> {
        match kind.ty().level() {
            Some(level) if kind.count() != 0 => {
                if kind.has(Kind::VALIDATED) {
                    self.mod_upper(ctx, table, level, index, new, preserve_ad)
                } else {
                    Err(MmError::NotValidated(table))
                }
            }
            _ => {
                let _use = self.get_writable(table, ctx.owner, ctx.dirty_cpus)?;
                self.machine.write_entry(table, index, new);
                Ok(())
            }
        }
    }

    /// Replaces entry `index` of a validated table above level 1.
    fn mod_upper<P: MmioPolicy>(
        &self,
        ctx: &mut MmuContext<'_, P>,
        table: Mfn,
        level: Level,
        index: usize,
        new: u64,
        preserve_ad: bool,
    ) -> Result<(), MmError> {
        if ctx.is_foreign() {
            return Err(MmError::ForeignTable(table));
        }
        if level == Level::L4 && entry::is_hypervisor_slot(index) {
            return Err(MmError::HypervisorSlot { mfn: table, index });
        }
        let Some(below) = level.below() else { return Err(MmError::NotValidated(table)) };
        let old = self.machine.read_entry(table, index);
        let mut new = new;
        if new & PRESENT != 0 {
            if new & entry::UPPER_DISALLOWED != 0 {
                return Err(MmError::Flags { level, entry: new });
            }
            let same = old & PRESENT != 0 && entry::frame(old) == entry::frame(new);
            new = if same { entry::adjust_upper(new) } else { self.get_upper(ctx, level, new)? };
            self.store_upper(table, index, old, new, preserve_ad);
            ctx.effects.upper_changed |= old & PRESENT != 0;
            if same {
                return Ok(());
            }
        } else {
            self.store_upper(table, index, old, new, preserve_ad);
            ctx.effects.upper_changed |= old & PRESENT != 0;
        }
        if old & PRESENT != 0 {
            self.leave_table(ctx, entry::frame(old), below);
        }
        Ok(())
    }

    /// Replaces the level-1 entry that translates `va` below `root`, a validated root of the context's owner: `update_va_mapping`.
    ///
    /// # Errors
    /// [`MmError::NotMapped`]; otherwise as [`Mm::update_entry`].
    #[inline]
    pub fn update_va<P: MmioPolicy>(
        &self,
        ctx: &mut MmuContext<'_, P>,
        root: Mfn,
        va: oxen_types::Gva,
        new: u64,
    ) -> Result<(), MmError> {
        self.finish_pending(ctx)?;
        let (table, index) = self.leaf_slot(root, va).ok_or(MmError::NotMapped)?;
        self.mod_l1(ctx, table, index, self.machine.read_entry(table, index), new, Store::Plain)
    }

    /// Sets the machine-to-phys entry of a frame of `owner`.
    ///
    /// # Errors
    /// [`MmError::NotRam`], [`MmError::Owner`].
    pub fn set_machphys(&self, mfn: Mfn, owner: DomId, pfn: u64) -> Result<(), MmError> {
        let page = self.get_page(mfn, owner)?;
        self.machine.set_m2p(page.mfn(), pfn);
        Ok(())
    }

    /// Writes an entry that a grant mapping made of `flags` into entry `index` of `table`, a level-1 table of the context's owner. The entry owns `held` from then
    /// on; what it held before is dropped.
    ///
    /// # Errors
    /// [`MmError::NotValidated`] where `table` is no level-1 table of the owner, [`MmError::Flags`], [`MmError::Preempted`]; the reference comes back.
    pub fn set_grant_entry<P: MmioPolicy>(
        &self,
        ctx: &mut MmuContext<'_, P>,
        table: Mfn,
        index: usize,
        flags: u64,
        held: MappingRef,
    ) -> Result<(), (MmError, MappingRef)> {
        let index = index % PT_ENTRIES;
        if let Err(error) = self.finish_pending(ctx).and_then(|()| self.check_leaf_table(ctx, table)) {
            return Err((error, held));
        }
        if flags & ctx.l1_disallowed != 0 {
            return Err((MmError::Flags { level: Level::L1, entry: flags }, held));
        }
        let (mfn, rw) = match &held {
            MappingRef::Read(page) => (page.mfn(), 0),
            MappingRef::Write(page) => (page.mfn(), entry::RW),
        };
        if let Some(meta) = self.machine.meta(mfn)
            && meta.refs.load(Relaxed) & Refs::IDENTITY != Refs::expect(ctx.owner)
        {
            meta.refs.fetch_or(Refs::FOREIGN, AcqRel);
        }
        let new = entry::adjust_l1(entry::make(mfn, flags & !entry::RW | rw | PRESENT));
        let old = self.machine.read_entry(table, index);
        self.machine.write_entry(table, index, new);
        if old & PRESENT != 0 {
            self.put_leaf(ctx, old);
        }
        Ok(())
    }

    /// Removes a grant mapping of `mfn` from entry `index` of `table`, leaving `replacement` (0, or an entry whose references the caller hands over). The translations must be
    /// flushed before the returned reference is given back.
    ///
    /// # Errors
    /// [`MmError::NotValidated`]; [`MmError::EntryChanged`] where the entry does not map `mfn` with that access; [`MmError::Preempted`].
    pub fn clear_grant_entry<P: MmioPolicy>(
        &self,
        ctx: &mut MmuContext<'_, P>,
        table: Mfn,
        index: usize,
        mfn: Mfn,
        writable: bool,
        replacement: u64,
    ) -> Result<MappingRef, MmError> {
        self.finish_pending(ctx)?;
        let index = index % PT_ENTRIES;
        self.check_leaf_table(ctx, table)?;
        let old = self.machine.read_entry(table, index);
        if old & PRESENT == 0 || entry::frame(old) != mfn || (old & entry::RW != 0) != writable {
            return Err(MmError::EntryChanged { mfn: table, entry: old });
        }
        self.machine.write_entry(table, index, replacement);
        Ok(if writable { MappingRef::Write(HeldTyped(mfn)) } else { MappingRef::Read(HeldPage(mfn)) })
    }

    /// Takes a present entry out of a level-1 table together with the reference that it holds, for a move to another place: the returned entry
    /// is the `replacement` of [`Mm::clear_grant_entry`].
    ///
    /// # Errors
    /// [`MmError::NotValidated`]; [`MmError::NotMapped`]; [`MmError::Preempted`].
    pub fn take_entry<P: MmioPolicy>(&self, ctx: &mut MmuContext<'_, P>, table: Mfn, index: usize) -> Result<u64, MmError> {
        self.finish_pending(ctx)?;
        let index = index % PT_ENTRIES;
        self.check_leaf_table(ctx, table)?;
        let old = self.machine.read_entry(table, index);
        if old & PRESENT == 0 {
            return Err(MmError::NotMapped);
        }
        self.machine.write_entry(table, index, 0);
        Ok(old)
    }

    /// Gives the reference that a mapping held back.
    pub fn put_mapping(&self, held: MappingRef) {
        match held {
            MappingRef::Read(page) => self.put(page),
            MappingRef::Write(page) => self.put_typed(page),
        }
    }

    #[inline]
    fn check_leaf_table<P: MmioPolicy>(&self, ctx: &MmuContext<'_, P>, table: Mfn) -> Result<(), MmError> {
        let meta = self.machine.meta(table).ok_or(MmError::NotRam(table))?;
        let refs = Refs(meta.refs.load(Acquire));
        if refs.0 & Refs::IDENTITY != Refs::expect(ctx.owner) {
            return Err(self.owner_error(table, refs, ctx.owner));
        }
        let kind = Kind(meta.kind.load(Relaxed));
        if kind.ty() != FrameType::L1 {
            let (expected, actual) = (FrameType::L1, kind.ty());
            return Err(MmError::Type { mfn: table, expected, actual, purpose: Purpose::Use });
        }
        if kind.has(Kind::VALIDATED) { Ok(()) } else { Err(MmError::NotValidated(table)) }
    }

    fn store_upper(&self, table: Mfn, index: usize, old: u64, new: u64, preserve_ad: bool) {
        if preserve_ad {
            self.store_keeping(table, index, old, new);
        } else {
            self.machine.write_entry(table, index, new);
        }
    }

    /// Stores an entry over `old`. An error means that the entry was not `old` any more.
    #[inline(always)]
    pub(crate) fn store_entry(&self, table: Mfn, index: usize, old: u64, new: u64, store: Store) -> Result<(), MmError> {
        match store {
            Store::Plain => self.machine.write_entry(table, index, new),
            Store::KeepAccessedDirty => self.store_keeping(table, index, old, new),
            Store::IfUnchanged => {
                return self.machine.exchange_entry(table, index, old, new).map_err(|entry| MmError::EntryChanged { mfn: table, entry });
            }
        }
        Ok(())
    }

    /// Stores an entry over `old` with the bits that the processor sets meanwhile.
    #[inline(always)]
    fn store_keeping(&self, table: Mfn, index: usize, old: u64, new: u64) {
        let mut old = old;
        loop {
            let merged = new | old & (entry::ACCESSED | entry::DIRTY);
            match self.machine.exchange_entry(table, index, old, merged) {
                Ok(()) => return,
                Err(now) => old = now,
            }
        }
    }
}
