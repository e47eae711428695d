//! `mmu_update`, `update_va_mapping`.

use super::{Answer, Args, low32};
use crate::ctx::Ctx;
use crate::domain::Domain;
use crate::tables::FlushTarget;
use alloc::sync::Arc;
use core::ops::Range;
use oxen_abi::Errno;
use oxen_abi::xen::{DOMID_SELF, MmuUpdate, MmuUpdateType, UVMF_ALL, UVMF_FLUSHTYPE_MASK, UVMF_INVLPG, UVMF_TLB_FLUSH};
use oxen_hal::{FlushScope, Machine};
use oxen_mm::MmError;
use oxen_types::{DomId, Gva, Maddr};

/// Requests done before the guest may take interrupts.
const BUDGET: u32 = 512;
/// Requests carried out under one taking of the lock.
const CHUNK: u32 = 64;
/// Bit of the count that says: this call carries on, and `*done` counts what was done before.
pub(super) const CONTINUED: u32 = 1 << 31;

/// Why a request is refused.
enum Refusal {
    /// The request itself.
    Call(Errno),
    /// The entry or its table; it is said in the log.
    Entry(MmError),
}

impl<M: Machine> Ctx<'_, M> {
    /// `(requests, count, done, foreign)`.
    #[inline]
    pub(super) fn mmu_update(&mut self, args: &mut Args) -> Answer {
        let list = Gva(args[0]);
        let count = low32(args[1]);
        let foreign = low32(args[3]);
        if count == 1 && foreign == u32::from(DOMID_SELF) {
            let (_, result) = self.mmu_updates(self.domain, self.domain.id, list, 0..1);
            if args[2] != 0 {
                self.write(Gva(args[2]), &u32::from(result.is_ok()))?;
            }
            return result.map(|()| 0);
        }
        self.mmu_update_batch(args, list, count, foreign)
    }

    fn mmu_update_batch(&mut self, args: &mut Args, list: Gva, count: u32, foreign: u32) -> Answer {
        let done_at = Gva(args[2]);
        let before = if count & CONTINUED != 0 && !done_at.is_null() { self.read::<u32>(done_at)? } else { 0 };
        let count = count & !CONTINUED;
        let (owner, foreign) = self.table_domains(foreign)?;
        let mut done = 0;
        let mut answer = Ok(0);
        while done < count {
            if done == BUDGET {
                answer = Err(Errno::ERESTART);
                break;
            }
            let end = count.min(BUDGET).min(done + CHUNK);
            let (some, result) = self.mmu_updates(&owner, foreign, list, done..end);
            done += some;
            if let Err(error) = result {
                answer = Err(error);
                break;
            }
        }
        if !done_at.is_null() {
            self.write(done_at, &before.wrapping_add(done))?;
        }
        if answer == Err(Errno::ERESTART) {
            args[0] = list.0.wrapping_add(u64::from(done) * size_of::<MmuUpdate>() as u64);
            args[1] = u64::from((count - done) | CONTINUED);
        }
        answer
    }

    /// Carries out some of the requests of a list, up to the first that is refused; gives how many were done.
    #[inline(always)]
    fn mmu_updates(&self, owner: &Arc<Domain>, foreign: DomId, list: Gva, which: Range<u32>) -> (u32, Result<(), Errno>) {
        let mut done = 0;
        let result = self.hv.with_tables(owner, foreign, |mm, ctx| {
            // Looked at under the lock: the tables of a dying domain are being taken apart.
            if owner.id != self.domain.id && owner.is_dying() {
                return Err(Refusal::Entry(MmError::Dying(owner.id)));
            }
            for index in which {
                let request: MmuUpdate = self.read_element(list, index.into()).map_err(Refusal::Call)?;
                // Entries are 8 bytes: what an address has below that is the command.
                let kind = MmuUpdateType(low32(request.ptr & 7));
                let at = Maddr(request.ptr & !7);
                let preserve = kind == MmuUpdateType::PT_UPDATE_PRESERVE_AD;
                match kind {
                    MmuUpdateType::NORMAL_PT_UPDATE | MmuUpdateType::PT_UPDATE_PRESERVE_AD | MmuUpdateType::PT_UPDATE_NO_TRANSLATE => {
                        mm.update_entry(ctx, at.mfn(), at.page_offset() / 8, request.val, preserve).map_err(Refusal::Entry)?;
                    }
                    MmuUpdateType::MACHPHYS_UPDATE => mm.set_machphys(at.mfn(), foreign, request.val).map_err(Refusal::Entry)?,
                    _ => return Err(Refusal::Call(Errno::ENOSYS)),
                }
                done += 1;
            }
            Ok(())
        });
        let result = result.map_err(|refusal| match refusal {
            Refusal::Call(error) => error,
            Refusal::Entry(error) => self.refuse("mmu_update", error),
        });
        (done, result)
    }

    /// The domain whose tables change and the one whose frames the entries may name, from the fourth argument.
    pub(super) fn table_domains(&self, argument: u32) -> Result<(Arc<Domain>, DomId), Errno> {
        let owner = match argument >> 16 {
            0 => self.domain.clone(),
            n if DomId((n - 1) as u16) == DomId::SELF => return Err(Errno::ESRCH),
            n => self.target_domain((n - 1) as u16)?,
        };
        let foreign = self.foreign_domain(argument as u16)?;
        Ok((owner, foreign))
    }

    /// A domain whose frames are to be mapped; the caller has the privilege for it.
    pub(super) fn foreign_domain(&self, id: u16) -> Result<DomId, Errno> {
        match DomId(id) {
            DomId::SELF => Ok(self.domain.id),
            // A domain is not foreign to itself.
            id if id == self.domain.id => Err(Errno::ESRCH),
            DomId::IO => {
                self.require_hardware()?;
                Ok(DomId::IO)
            }
            DomId::XEN => {
                self.require_control()?;
                Ok(DomId::XEN)
            }
            id => Ok(self.target_domain(id.0)?.id),
        }
    }

    /// The error number of a refused operation; says in the log what was wrong.
    #[cold]
    pub(super) fn refuse(&self, what: &str, error: MmError) -> Errno {
        if error != MmError::Preempted {
            self.hv.log_limited(format_args!("{}v{}: {what} refused: {error}", self.domain.id, self.vcpu.id));
        }
        error.errno()
    }

    /// `(address, value, flags)`.
    #[inline]
    pub(super) fn update_va_mapping(&mut self, args: &Args) -> Answer {
        let foreign = self.domain.id;
        self.update_va(args, foreign)
    }

    /// `(address, value, flags, domain)`.
    pub(super) fn update_va_mapping_otherdomain(&mut self, args: &Args) -> Answer {
        let foreign = self.foreign_domain(args[3] as u16)?;
        self.update_va(args, foreign)
    }

    #[inline]
    fn update_va(&mut self, args: &Args, foreign: DomId) -> Answer {
        let (va, value, flags) = (Gva(args[0]), args[1], args[2]);
        let root = self.state.root.as_ref().ok_or(Errno::EINVAL)?.mfn();
        let result = self.hv.with_tables(self.domain, foreign, |mm, ctx| mm.update_va(ctx, root, va, value));
        if let Err(error) = result {
            return Err(self.refuse("update_va_mapping", error));
        }
        let scope = match flags & UVMF_FLUSHTYPE_MASK {
            UVMF_TLB_FLUSH => FlushScope::All,
            UVMF_INVLPG => FlushScope::Page(va),
            _ => return Ok(0),
        };
        let target = match flags & !UVMF_FLUSHTYPE_MASK {
            0 => FlushTarget::Local,
            UVMF_ALL => FlushTarget::All,
            mask => FlushTarget::Vcpus(Gva(mask)),
        };
        self.flush(target, scope)?;
        Ok(0)
    }
}
