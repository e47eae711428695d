//! Taking a dying domain's memory away.

use crate::record::{Kind, Refs};
use crate::{Account, Hardware, Mm, MmError, MmioPolicy, MmuContext};
use core::sync::atomic::Ordering::{Acquire, Relaxed};
use oxen_types::Mfn;

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
        if *cursor == 0 {
            self.claim(ctx.owner, 0)?;
            if self.accounts.get(ctx.owner).is_some_and(Account::is_arriving) {
                return Err(MmError::Preempted);
            }
        }
        let owner = Refs::expect(ctx.owner);
        while *cursor < self.machine.max_mfn() {
            if ctx.budget == 0 {
                return Err(MmError::Preempted);
            }
            ctx.spend(1);
            let mfn = Mfn(*cursor);
            if let Some(meta) = self.machine.meta(mfn)
                && meta.refs.load(Acquire) & Refs::IDENTITY == owner
            {
                let kind = Kind(meta.kind.load(Relaxed));
                if kind.has(Kind::PINNED) {
                    // An interrupted undoing leaves its trace in the context and is carried on with first of all.
                    self.unpin(ctx, mfn)?;
                } else if kind.has(Kind::PARTIAL) {
                    self.undo_partial(ctx, mfn)?;
                }
                self.finish_pending(ctx)?;
                if Refs(meta.refs.load(Acquire)).has(Refs::ALLOCATED) && self.owner(mfn) == Some(ctx.owner) {
                    self.release(mfn, ctx.owner)?;
                }
            }
            *cursor += 1;
        }
        Ok(())
    }
}
