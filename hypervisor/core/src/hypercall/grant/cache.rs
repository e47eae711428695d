//! Writing caches back for granted frames.

use super::super::{Answer, Args, low32};
use super::{BUDGET, later};
use crate::ctx::Ctx;
use oxen_abi::Errno;
use oxen_abi::grant_table::{CacheFlush, GNTTAB_CACHE_CLEAN, GNTTAB_CACHE_INVAL};
use oxen_hal::Machine;
use oxen_types::{Gva, Maddr, PAGE_SIZE};

impl<M: Machine> Ctx<'_, M> {
    /// Writes lines of the caches back, and drops them. An error ends the whole list.
    pub(super) fn flush_granted(&self, args: &mut Args) -> Answer {
        let (list, count) = (Gva(args[1]), low32(args[2]));
        for index in 0..count {
            if index == BUDGET {
                return later::<CacheFlush>(args, index);
            }
            self.flush_one(&self.read_element(list, index.into())?)?;
        }
        Ok(0)
    }

    fn flush_one(&self, request: &CacheFlush) -> Result<(), Errno> {
        let (offset, length) = (u64::from(request.offset), u64::from(request.length));
        let known = GNTTAB_CACHE_CLEAN | GNTTAB_CACHE_INVAL;
        if offset >= PAGE_SIZE || offset + length > PAGE_SIZE || request.op & !known != 0 {
            return Err(Errno::EINVAL);
        }
        if length == 0 || request.op == 0 {
            return Ok(());
        }
        let memory = &self.hv.memory;
        let mfn = Maddr(request.a).mfn();
        self.machine().meta(mfn).ok_or(Errno::EINVAL)?;
        // The machine-to-phys table and frames without an owner are nobody's to flush.
        let owner = memory.inspect(mfn).map(|frame| frame.owner).filter(|&owner| self.hv.domains.get(owner).is_some());
        let owner = owner.ok_or(Errno::EPERM)?;
        let mapped = || self.domain.maptrack.lock().mappings().any(|mapping| mapping.mfn == mfn && mapping.granter.id == owner);
        if owner != self.domain.id && !mapped() {
            return Err(Errno::EINVAL);
        }
        if request.op == GNTTAB_CACHE_INVAL {
            // No instruction drops single lines without writing them back.
            return Err(Errno::EOPNOTSUPP);
        }
        let page = memory.get_page(mfn, owner).map_err(|_| Errno::EPERM)?;
        self.machine().flush_lines(page.mfn(), offset as usize, length as usize);
        Ok(())
    }
}
