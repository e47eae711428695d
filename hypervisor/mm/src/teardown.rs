//! Taking a dying domain's memory away.

use crate::record::{Kind, Refs};
use crate::{Account, Hardware, Mm, MmError, MmioPolicy, MmuContext};
use core::sync::atomic::Ordering::{Acquire, Relaxed};
use oxen_hal::FrameMeta;
use oxen_types::Mfn;

/// Frames between two looks at the budget.
const FRAMES_AT_ONCE: u64 = 64;

impl<M: Hardware> Mm<M> {
    /// Takes all memory from the context's owner: pins, half-done page tables and allocations. `cursor` starts at 0 and tells where to carry on. The
    /// domain is dying ([`crate::Account::set_dying`]), none of its vCPUs runs, and their roots and descriptor tables have been given back.
    ///
    /// Frames that others have mapped stay until they drop them: [`crate::Account::pages`] tells how many there are.
    ///
    /// # Errors
    /// [`MmError::Preempted`] when the budget runs out: call again.
    pub fn relinquish<P: MmioPolicy>(&self, ctx: &mut MmuContext<'_, P>, cursor: &mut u64) -> Result<(), MmError> {
        self.finish_pending(ctx)?;
        let account = self.account(ctx.owner).ok_or(MmError::Dying(ctx.owner))?;
        if *cursor == 0 {
            self.claim(ctx.owner, 0)?;
            if account.is_arriving() {
                return Err(MmError::Preempted);
            }
        }
        let max_mfn = self.machine.max_mfn();
        if *cursor < max_mfn {
            self.undo_tables(ctx, account, cursor)?;
        }
        let mut next = *cursor - max_mfn;
        let mut run = Run { first: Mfn(next), count: 0 };
        let result = self.take_frames(ctx, account, &mut next, &mut run);
        self.give_run(run.first, run.count, ctx.owner);
        *cursor = max_mfn + next;
        result
    }

    /// Shows `visit` the frames from `cursor` on that the owner of `account` may have.
    fn visit_frames<P: MmioPolicy>(
        &self,
        ctx: &mut MmuContext<'_, P>,
        account: &Account,
        cursor: &mut u64,
        mut visit: impl FnMut(&mut MmuContext<'_, P>, Mfn, &FrameMeta) -> Result<(), MmError>,
    ) -> Result<(), MmError> {
        let max_mfn = self.machine.max_mfn();
        loop {
            let Some(range) = account.regions.range(max_mfn, *cursor) else {
                *cursor = max_mfn;
                return Ok(());
            };
            *cursor = range.start;
            if ctx.budget == 0 {
                return Err(MmError::Preempted);
            }
            let end = range.end.min(range.start + FRAMES_AT_ONCE);
            while *cursor < end {
                let mfn = Mfn(*cursor);
                if let Some(meta) = self.machine.meta(mfn) {
                    visit(ctx, mfn, meta)?;
                }
                *cursor += 1;
            }
            ctx.spend((end - range.start) as u32);
        }
    }

    /// Undoes what is pinned and half done from frame `cursor` on, so that hardly any frame is in use when they are freed.
    fn undo_tables<P: MmioPolicy>(&self, ctx: &mut MmuContext<'_, P>, account: &Account, cursor: &mut u64) -> Result<(), MmError> {
        let owner = Refs::expect(ctx.owner);
        self.visit_frames(ctx, account, cursor, |ctx, mfn, meta| {
            if !Kind(meta.kind.load(Relaxed)).has(Kind::PINNED | Kind::PARTIAL) || meta.refs.load(Acquire) & Refs::IDENTITY != owner {
                return Ok(());
            }
            self.give_up_table(ctx, mfn, meta)
        })
    }

    /// Undoes a frame that is pinned or half done.
    fn give_up_table<P: MmioPolicy>(&self, ctx: &mut MmuContext<'_, P>, mfn: Mfn, meta: &FrameMeta) -> Result<(), MmError> {
        let kind = Kind(meta.kind.load(Relaxed));
        if kind.has(Kind::PINNED) {
            // An interrupted undoing leaves its trace in the context and is carried on with first of all.
            self.unpin(ctx, mfn)?;
        } else if kind.has(Kind::PARTIAL) {
            self.undo_partial(ctx, mfn)?;
        }
        self.finish_pending(ctx)
    }

    /// The frames from `cursor` on. Those that nobody else uses are collected in `run`, which is freed whenever it ends and, after the last one, by the caller.
    fn take_frames<P: MmioPolicy>(&self, ctx: &mut MmuContext<'_, P>, account: &Account, cursor: &mut u64, run: &mut Run) -> Result<(), MmError> {
        let owner = Refs::expect(ctx.owner);
        self.visit_frames(ctx, account, cursor, |ctx, mfn, meta| {
            if meta.refs.load(Relaxed) & Refs::IDENTITY != owner {
                return Ok(());
            }
            if !self.take_unused(mfn, meta, ctx.owner) {
                return self.take_used(ctx, mfn, meta);
            }
            if run.first.0 + run.count != mfn.0 {
                self.give_run(run.first, run.count, ctx.owner);
                *run = Run { first: mfn, count: 0 };
            }
            run.count += 1;
            Ok(())
        })
    }

    /// A frame that is in use, mostly by others.
    fn take_used<P: MmioPolicy>(&self, ctx: &mut MmuContext<'_, P>, mfn: Mfn, meta: &FrameMeta) -> Result<(), MmError> {
        self.give_up_table(ctx, mfn, meta)?;
        if Refs(meta.refs.load(Acquire)).has(Refs::ALLOCATED) && self.owner(mfn) == Some(ctx.owner) {
            self.release(mfn, ctx.owner)?;
        }
        Ok(())
    }
}

/// Neighbouring frames that are about to be freed.
struct Run {
    first: Mfn,
    count: u64,
}
