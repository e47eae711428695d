//! Page tables as a whole: validating them, counting their uses, undoing them.
//!
//! Everything here runs under the owner's page-table lock (shown by the context). Recursion goes one level down at each step, so it is at
//! most four deep; a table never refers to one of its own level.

use crate::context::NO_TABLE;
use crate::entry::{self, PRESENT};
use crate::leaf::{GROUP, group_has_present};
use crate::record::{Kind, Refs};
use crate::refs::Taken;
use crate::{FrameType, Hardware, Level, Mm, MmError, MmioPolicy, MmuContext, Purpose};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use oxen_hal::FrameMeta;
use oxen_types::{Mfn, PT_ENTRIES};

/// What a level-1 table takes from the budget; it is checked in one go.
const L1_COST: u32 = PT_ENTRIES as u32;
/// What looking through the absent entries of another table takes from it.
const UPPER_COST: u32 = 64;

/// A use of a page table: as a root, or by a structure. Goes back through [`Mm::put_table`]; dropping it leaks the table.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct HeldTable {
    mfn: Mfn,
    level: Level,
}

impl HeldTable {
    pub(crate) const fn new(mfn: Mfn, level: Level) -> Self {
        Self { mfn, level }
    }

    /// The table's frame.
    #[must_use]
    pub const fn mfn(&self) -> Mfn {
        self.mfn
    }

    /// Its level.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }
}

impl<M: Hardware> Mm<M> {
    /// Uses a frame of the context's owner as page table of `level`, validating it with all that it refers to where that has not been done.
    ///
    /// # Errors
    /// [`MmError::Preempted`] when the budget runs out: the same call carries on. Otherwise what is wrong with the frame or one below it.
    #[inline]
    pub fn get_table<P: MmioPolicy>(&self, ctx: &mut MmuContext<'_, P>, mfn: Mfn, level: Level) -> Result<HeldTable, MmError> {
        self.finish_pending(ctx)?;
        self.use_table(ctx, mfn, level)?;
        Ok(HeldTable { mfn, level })
    }

    /// Ends a use of a page table. With the last one the table's references are dropped; where the budget runs out before that is
    /// done, the next operation on the domain's tables carries on.
    ///
    /// # Errors
    /// Gives the table back where the budget ran out before anything was done: the caller tries again later.
    #[inline]
    pub fn put_table<P: MmioPolicy>(&self, ctx: &mut MmuContext<'_, P>, table: HeldTable) -> Result<(), HeldTable> {
        if self.finish_pending(ctx).is_err() {
            return Err(table);
        }
        self.leave_table(ctx, table.mfn, table.level);
        Ok(())
    }

    /// Carries on with an interrupted undoing.
    ///
    /// # Errors
    /// [`MmError::Preempted`] when it is still not done.
    #[inline]
    pub fn finish_pending<P: MmioPolicy>(&self, ctx: &mut MmuContext<'_, P>) -> Result<(), MmError> {
        match ctx.tables.pending {
            None => Ok(()),
            Some(mfn) => self.undo_partial(ctx, mfn),
        }
    }

    /// Undoes a partial table; does nothing for other frames.
    #[cold]
    #[inline(never)]
    pub(crate) fn undo_partial<P: MmioPolicy>(&self, ctx: &mut MmuContext<'_, P>, mfn: Mfn) -> Result<(), MmError> {
        if let Some((meta, kind, level)) = self.partial_table(ctx, mfn) {
            self.undo_upper(ctx, mfn, meta, level, kind.done())?;
        }
        if ctx.tables.pending == Some(mfn) {
            ctx.tables.pending = None;
        }
        Ok(())
    }

    /// The frame's record, state and level where it is a partial table of the context's owner.
    fn partial_table<P: MmioPolicy>(&self, ctx: &MmuContext<'_, P>, mfn: Mfn) -> Option<(&'static FrameMeta, Kind, Level)> {
        let meta = self.machine.meta(mfn)?;
        if meta.refs.load(Acquire) & Refs::IDENTITY != Refs::expect(ctx.owner) {
            return None;
        }
        let kind = Kind(meta.kind.load(Relaxed));
        let level = kind.ty().level()?;
        kind.has(Kind::PARTIAL).then_some((meta, kind, level))
    }

    /// Counts a use of a table.
    #[inline]
    pub(crate) fn use_table<P: MmioPolicy>(&self, ctx: &mut MmuContext<'_, P>, mfn: Mfn, level: Level) -> Result<(), MmError> {
        let meta = self.machine.meta(mfn).ok_or(MmError::NotRam(mfn))?;
        let refs = Refs(meta.refs.load(Acquire));
        if refs.0 & Refs::IDENTITY != Refs::expect(ctx.owner) {
            return Err(self.owner_error(mfn, refs, ctx.owner));
        }
        let kind = Kind(meta.kind.load(Relaxed));
        // Table types change under the lock only, so a table in use stays as it is and counting it needs no second look.
        if kind.can_share_table(FrameType::table(level)) {
            meta.kind.store(kind.0 + Kind::COUNT_UNIT, Relaxed);
            return Ok(());
        }
        self.validate_table(ctx, mfn, meta, level)
    }

    #[cold]
    #[inline(never)]
    fn validate_table<P: MmioPolicy>(
        &self,
        ctx: &mut MmuContext<'_, P>,
        mfn: Mfn,
        meta: &'static FrameMeta,
        level: Level,
    ) -> Result<(), MmError> {
        if ctx.is_foreign() {
            return Err(MmError::ForeignTable(mfn));
        }
        let ty = FrameType::table(level);
        let kind = Kind(meta.kind.load(Relaxed));
        if kind.has(Kind::PARTIAL) && kind.ty() == ty {
            // The use that the partial state holds becomes the caller's.
            return self.validate_upper(ctx, mfn, meta, level, kind.done());
        }
        if kind.count() != 0 {
            let purpose = Purpose::Use;
            return Err(if kind.ty() == ty { MmError::Full(mfn) } else { MmError::Type { mfn, expected: ty, actual: kind.ty(), purpose } });
        }
        if ctx.budget == 0 {
            return Err(MmError::Preempted);
        }
        self.count_page(mfn, meta, ctx.owner)?;
        match self.take_type(mfn, meta, ty, Some(ctx.dirty_cpus)) {
            Ok(Taken::First) => {}
            Ok(Taken::Another) => {
                // Only holders of the lock take table types, so somebody else's first use cannot have come between.
                self.put_page(mfn, meta);
                return Ok(());
            }
            Err(error) => {
                self.put_page(mfn, meta);
                return Err(error);
            }
        }
        if level != Level::L1 {
            return self.validate_upper(ctx, mfn, meta, level, 0);
        }
        ctx.spend(L1_COST);
        match self.validate_l1(ctx, mfn) {
            Ok(()) => {
                meta.kind.store(Kind::first_use(ty).0 | Kind::VALIDATED, Release);
                Ok(())
            }
            Err(error) => {
                self.end_table(mfn, meta, ty);
                Err(error)
            }
        }
    }

    /// Checks the entries from `start` of a table whose entries before that hold their references; its one use is the caller's.
    fn validate_upper<P: MmioPolicy>(
        &self,
        ctx: &mut MmuContext<'_, P>,
        mfn: Mfn,
        meta: &'static FrameMeta,
        level: Level,
        start: usize,
    ) -> Result<(), MmError> {
        let ty = FrameType::table(level);
        let entries = self.machine.table(mfn);
        let mut next = start;
        while let Some(slot) = entries.get(next) {
            let index = next;
            if index.is_multiple_of(GROUP) && !group_has_present(entries, index) {
                next += GROUP;
                continue;
            }
            next += 1;
            let old = slot.load(Acquire);
            if old & PRESENT == 0 || level == Level::L4 && entry::is_hypervisor_slot(index) {
                continue;
            }
            let checked = if ctx.budget == 0 { Err(MmError::Preempted) } else { self.get_upper(ctx, level, old) };
            // Paid afterwards, so that each call, whatever its budget, gets at least one leaf further.
            ctx.spend(1);
            match checked {
                Ok(new) if new == old => {}
                Ok(new) => slot.store(new, Release),
                Err(MmError::Preempted) => {
                    meta.kind.store(Kind::partial(ty, index).0, Release);
                    return Err(MmError::Preempted);
                }
                Err(error) => {
                    if self.undo_upper(ctx, mfn, meta, level, index).is_err() {
                        ctx.tables.pending = Some(mfn);
                    }
                    return Err(error);
                }
            }
        }
        ctx.spend(UPPER_COST);
        if level == Level::L4 {
            self.fill_hypervisor_slots(mfn);
        }
        meta.kind.store(Kind::first_use(ty).0 | Kind::VALIDATED, Release);
        Ok(())
    }

    fn fill_hypervisor_slots(&self, root: Mfn) {
        for slot in 0..entry::HYPERVISOR_SLOTS {
            self.machine.write_entry(root, entry::FIRST_HYPERVISOR_SLOT + slot, self.machine.hypervisor_slot(slot));
        }
    }

    /// Takes the reference that a present entry of a table above level 1 holds. Gives the form to store.
    pub(crate) fn get_upper<P: MmioPolicy>(&self, ctx: &mut MmuContext<'_, P>, level: Level, new: u64) -> Result<u64, MmError> {
        let Some(below) = level.below().filter(|_| new & entry::UPPER_DISALLOWED == 0) else {
            return Err(MmError::Flags { level, entry: new });
        };
        self.use_table(ctx, entry::frame(new), below)?;
        Ok(entry::adjust_upper(new))
    }

    /// Ends a use of a table. Where undoing it is interrupted, it becomes the pending one.
    #[inline]
    pub(crate) fn leave_table<P: MmioPolicy>(&self, ctx: &mut MmuContext<'_, P>, mfn: Mfn, level: Level) {
        if self.drop_table(ctx, mfn, level).is_err() {
            ctx.tables.pending = Some(mfn);
        }
    }

    /// Ends a use of a table. An error means that it was the last one and that the table is partial now.
    #[inline]
    fn drop_table<P: MmioPolicy>(&self, ctx: &mut MmuContext<'_, P>, mfn: Mfn, level: Level) -> Result<(), MmError> {
        let Some(meta) = self.machine.meta(mfn) else { return Ok(()) };
        let kind = Kind(meta.kind.load(Relaxed));
        debug_assert!(kind.count() != 0 && kind.ty() == FrameType::table(level), "{mfn} is no {level:?} table in use");
        if kind.count() > 1 {
            meta.kind.store(kind.0 - Kind::COUNT_UNIT, Relaxed);
            return Ok(());
        }
        self.undo_table(ctx, mfn, meta, level)
    }

    #[cold]
    #[inline(never)]
    fn undo_table<P: MmioPolicy>(
        &self,
        ctx: &mut MmuContext<'_, P>,
        mfn: Mfn,
        meta: &'static FrameMeta,
        level: Level,
    ) -> Result<(), MmError> {
        if level != Level::L1 {
            return self.undo_upper(ctx, mfn, meta, level, PT_ENTRIES);
        }
        ctx.leaf_table = NO_TABLE;
        ctx.spend(L1_COST);
        self.put_leaves(ctx, mfn, PT_ENTRIES);
        self.end_table(mfn, meta, FrameType::L1);
        Ok(())
    }

    /// Drops the references of the entries below `end`, and the table's one use. An error means that the table is partial.
    fn undo_upper<P: MmioPolicy>(
        &self,
        ctx: &mut MmuContext<'_, P>,
        mfn: Mfn,
        meta: &'static FrameMeta,
        level: Level,
        end: usize,
    ) -> Result<(), MmError> {
        let ty = FrameType::table(level);
        let Some(below) = level.below() else { return Ok(()) };
        let mut done = end;
        // The entry at which earlier work stopped may refer to a table that is partial itself. Nobody else would look after that one.
        if let Err(error) = self.undo_partial_child(ctx, mfn, level, done) {
            meta.kind.store(Kind::partial(ty, done).0, Release);
            return Err(error);
        }
        let entries = self.machine.table(mfn);
        while let Some(index) = done.checked_sub(1) {
            if done.is_multiple_of(GROUP) && !group_has_present(entries, done - GROUP) {
                done -= GROUP;
                continue;
            }
            let old = entries.get(index).map_or(0, |slot| slot.load(Acquire));
            if old & PRESENT != 0 && !(level == Level::L4 && entry::is_hypervisor_slot(index)) {
                if ctx.budget == 0 {
                    meta.kind.store(Kind::partial(ty, done).0, Release);
                    return Err(MmError::Preempted);
                }
                let dropped = self.drop_table(ctx, entry::frame(old), below);
                ctx.spend(1);
                if let Err(error) = dropped {
                    meta.kind.store(Kind::partial(ty, index).0, Release);
                    return Err(error);
                }
            }
            done = index;
        }
        ctx.spend(UPPER_COST);
        self.end_table(mfn, meta, ty);
        Ok(())
    }

    fn undo_partial_child<P: MmioPolicy>(&self, ctx: &mut MmuContext<'_, P>, mfn: Mfn, level: Level, index: usize) -> Result<(), MmError> {
        if index >= PT_ENTRIES || level == Level::L4 && entry::is_hypervisor_slot(index) {
            return Ok(());
        }
        let old = self.machine.read_entry(mfn, index);
        let Some(below) = level.below().filter(|_| old & PRESENT != 0) else { return Ok(()) };
        let child = entry::frame(old);
        match self.partial_table(ctx, child) {
            Some((_, kind, _)) if kind.ty() == FrameType::table(below) => self.undo_partial(ctx, child),
            _ => Ok(()),
        }
    }

    /// Ends the one use of a table whose entries hold no references any more.
    fn end_table(&self, mfn: Mfn, meta: &FrameMeta, ty: FrameType) {
        meta.kind.store(self.unused_now(Kind::first_use(ty)), Release);
        self.put_page(mfn, meta);
    }

    /// Pins a table: validates it and keeps it validated until [`Mm::unpin`].
    ///
    /// # Errors
    /// [`MmError::AlreadyPinned`]; otherwise as [`Mm::get_table`].
    pub fn pin<P: MmioPolicy>(&self, ctx: &mut MmuContext<'_, P>, mfn: Mfn, level: Level) -> Result<(), MmError> {
        self.finish_pending(ctx)?;
        self.use_table(ctx, mfn, level)?;
        let Some(meta) = self.machine.meta(mfn) else { return Ok(()) };
        let old = Kind(meta.kind.load(Relaxed));
        if old.has(Kind::PINNED) {
            self.leave_table(ctx, mfn, level);
            return Err(MmError::AlreadyPinned(mfn));
        }
        meta.kind.store(old.0 | Kind::PINNED, Relaxed);
        Ok(())
    }

    /// Takes a table's pin away.
    ///
    /// # Errors
    /// [`MmError::NotPinned`], [`MmError::NotRam`], [`MmError::Owner`]; [`MmError::Preempted`] before anything was done.
    pub fn unpin<P: MmioPolicy>(&self, ctx: &mut MmuContext<'_, P>, mfn: Mfn) -> Result<(), MmError> {
        self.finish_pending(ctx)?;
        let meta = self.machine.meta(mfn).ok_or(MmError::NotRam(mfn))?;
        let refs = Refs(meta.refs.load(Acquire));
        if refs.0 & Refs::IDENTITY != Refs::expect(ctx.owner) {
            return Err(self.owner_error(mfn, refs, ctx.owner));
        }
        let kind = Kind(meta.kind.load(Relaxed));
        let Some(level) = kind.ty().level().filter(|_| kind.has(Kind::PINNED)) else {
            return Err(MmError::NotPinned(mfn));
        };
        meta.kind.store(kind.0 & !Kind::PINNED, Relaxed);
        self.leave_table(ctx, mfn, level);
        Ok(())
    }
}
