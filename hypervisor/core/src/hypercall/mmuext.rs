//! `mmuext_op`: pinning, base pointers, flushes.

use super::mmu::CONTINUED;
use super::{Answer, Args, low32};
use crate::ctx::Ctx;
use crate::domain::Domain;
use crate::tables::FlushTarget;
use alloc::sync::Arc;
use oxen_abi::Errno;
use oxen_abi::xen::{DOMID_SELF, MmuextCmd, MmuextOp};
use oxen_hal::{FlushScope, Machine};
use oxen_mm::{HeldTable, Level, MmError};
use oxen_types::{Gva, Mfn};

/// Operations done before the guest may take interrupts.
const BUDGET: u32 = 256;

impl<M: Machine> Ctx<'_, M> {
    /// `(operations, count, done, foreign)`.
    pub(super) fn mmuext_op(&mut self, args: &mut Args) -> Answer {
        let (list, done_at) = (Gva(args[0]), Gva(args[2]));
        let count = low32(args[1]);
        let before = if count & CONTINUED != 0 && !done_at.is_null() { self.read::<u32>(done_at)? } else { 0 };
        let count = count & !CONTINUED;
        let other = if low32(args[3]) == u32::from(DOMID_SELF) {
            None
        } else {
            let foreign = self.foreign_domain(args[3] as u16)?;
            if foreign == self.domain.id { None } else { Some(self.hv.domains.get(foreign).ok_or(Errno::ESRCH)?) }
        };
        let own = self.domain;
        let owner = other.as_ref().unwrap_or(own);
        let mut done = 0;
        let mut answer = Ok(0);
        while done < count {
            if done == BUDGET {
                answer = Err(Errno::ERESTART);
                break;
            }
            let result = match self.read_element::<MmuextOp>(list, done.into()) {
                Ok(op) => self.one_mmuext_op(owner, &op),
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                answer = Err(error);
                break;
            }
            done += 1;
        }
        if !done_at.is_null() {
            self.write(done_at, &before.wrapping_add(done))?;
        }
        if answer == Err(Errno::ERESTART) {
            args[0] = list.0.wrapping_add(u64::from(done) * size_of::<MmuextOp>() as u64);
            args[1] = u64::from((count - done) | CONTINUED);
        }
        answer
    }

    fn one_mmuext_op(&mut self, owner: &Arc<Domain>, op: &MmuextOp) -> Result<(), Errno> {
        let mfn = Mfn(op.arg1);
        let va = Gva(op.arg1);
        let mask = FlushTarget::Vcpus(Gva(op.arg2));
        let bad_mask = |_| Errno::EINVAL;
        match op.cmd {
            MmuextCmd::NEW_BASEPTR => self.new_base_pointer(mfn),
            MmuextCmd::NEW_USER_BASEPTR => self.new_user_base_pointer(mfn),
            MmuextCmd::PIN_L1_TABLE => self.pin(owner, mfn, Level::L1),
            MmuextCmd::PIN_L2_TABLE => self.pin(owner, mfn, Level::L2),
            MmuextCmd::PIN_L3_TABLE => self.pin(owner, mfn, Level::L3),
            MmuextCmd::PIN_L4_TABLE => self.pin(owner, mfn, Level::L4),
            MmuextCmd::UNPIN_TABLE => {
                let result = self.hv.with_tables(owner, owner.id, |mm, ctx| mm.unpin(ctx, mfn));
                result.map_err(|e| self.refuse("unpin", e))
            }
            MmuextCmd::TLB_FLUSH_LOCAL => self.flush(FlushTarget::Local, FlushScope::All),
            MmuextCmd::INVLPG_LOCAL => self.flush(FlushTarget::Local, FlushScope::Page(va)),
            MmuextCmd::TLB_FLUSH_MULTI => self.flush(mask, FlushScope::All).map_err(bad_mask),
            MmuextCmd::INVLPG_MULTI => self.flush(mask, FlushScope::Page(va)).map_err(bad_mask),
            MmuextCmd::TLB_FLUSH_ALL => self.flush(FlushTarget::All, FlushScope::All),
            MmuextCmd::INVLPG_ALL => self.flush(FlushTarget::All, FlushScope::Page(va)),
            MmuextCmd::FLUSH_CACHE | MmuextCmd::FLUSH_CACHE_GLOBAL => {
                if !self.domain.has_devices() {
                    return Err(if op.cmd == MmuextCmd::FLUSH_CACHE { Errno::EACCES } else { Errno::EINVAL });
                }
                self.machine().wbinvd();
                Ok(())
            }
            MmuextCmd::SET_LDT => self.set_ldt(op.arg1, u64::from(low32(op.arg2))),
            MmuextCmd::CLEAR_PAGE => {
                let frame = self.plain_frame(owner, mfn)?;
                self.machine().zero_frame(frame.mfn());
                Ok(())
            }
            MmuextCmd::COPY_PAGE => {
                let to = self.plain_frame(owner, mfn)?;
                let from = self.hv.memory.get_page(Mfn(op.arg2), owner.id).map_err(MmError::errno)?;
                self.machine().copy_frame(to.mfn(), from.mfn());
                Ok(())
            }
            MmuextCmd::MARK_SUPER | MmuextCmd::UNMARK_SUPER => Err(Errno::EOPNOTSUPP),
            _ => Err(Errno::ENOSYS),
        }
    }

    fn plain_frame(&self, owner: &Domain, mfn: Mfn) -> Result<oxen_mm::TypedRef<'_, M>, Errno> {
        self.hv.memory.get_writable(mfn, owner.id, &owner.dirty_cpus).map_err(MmError::errno)
    }

    fn pin(&mut self, owner: &Arc<Domain>, mfn: Mfn, level: Level) -> Result<(), Errno> {
        let result = self.hv.with_tables(owner, owner.id, |mm, ctx| {
            // Looked at under the lock: a dying domain's pins are being taken away, and nobody would take this one.
            if owner.is_dying() { Err(MmError::Dying(owner.id)) } else { mm.pin(ctx, mfn, level) }
        });
        result.map_err(|e| self.refuse("pin", e))
    }

    /// Switches the kernel's root, which is the one in use.
    pub(crate) fn new_base_pointer(&mut self, mfn: Mfn) -> Result<(), Errno> {
        if self.state.root.as_ref().is_some_and(|root| root.mfn() == mfn) {
            self.machine().load_root(mfn, true);
            return Ok(());
        }
        // The LDT was found through the old tables.
        if self.state.ldt.entries != 0 {
            self.machine().set_guest_ldt(self.state.ldt.entries);
            self.hv.drop_ldt(self.state);
        }
        let left = self.hv.with_tables(self.domain, self.domain.id, |mm, ctx| {
            let new = mm.get_table(ctx, mfn, Level::L4)?;
            self.hv.machine.load_root(mfn, true);
            let old = self.state.root.replace(new);
            Ok(old.and_then(|old| mm.put_table(ctx, old).err()))
        });
        self.state.fast_paths_stale = true;
        self.finish_root_change("new base pointer", left)
    }

    /// Sets the user mode's root; 0 for none.
    fn new_user_base_pointer(&mut self, mfn: Mfn) -> Result<(), Errno> {
        if self.state.user_root.as_ref().is_some_and(|root| root.mfn() == mfn) {
            return Ok(());
        }
        let left = self.hv.with_tables(self.domain, self.domain.id, |mm, ctx| {
            let new = if mfn.0 == 0 { None } else { Some(mm.get_table(ctx, mfn, Level::L4)?) };
            let old = core::mem::replace(&mut self.state.user_root, new);
            Ok(old.and_then(|old| mm.put_table(ctx, old).err()))
        });
        self.state.fast_paths_stale = true;
        self.finish_root_change("new user base pointer", left)
    }

    /// Gives back an old root for which the work on tables left no room.
    fn finish_root_change(&self, what: &str, left: Result<Option<HeldTable>, MmError>) -> Result<(), Errno> {
        if let Some(old) = left.map_err(|e| self.refuse(what, e))? {
            self.hv.put_root(self.domain, old);
        }
        Ok(())
    }
}
