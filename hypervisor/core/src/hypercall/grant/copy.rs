//! Copying from and to granted pages.

use super::map::page_status;
use crate::ctx::Ctx;
use crate::domain::Domain;
use alloc::sync::Arc;
use oxen_abi::grant_table::{CopyPtr, GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF, GrantCopy, GrantStatus};
use oxen_abi::xen::DOMID_SELF;
use oxen_hal::Machine;
use oxen_mm::{PageRef, TypedRef};
use oxen_types::{DomId, GrantRef, Mfn, PAGE_SIZE};

/// Bytes that a part of a page is copied by.
const PIECE: usize = 512;

/// The use of a grant for the time of a copy.
struct Pin<'a, M: Machine> {
    machine: &'a M,
    granter: Arc<Domain>,
    reference: GrantRef,
    write: bool,
}

impl<M: Machine> Drop for Pin<'_, M> {
    fn drop(&mut self) {
        self.granter.grants.lock().unpin(self.machine, self.reference, self.write, 1);
    }
}

enum Held<'a, M: Machine> {
    Read(PageRef<'a, M>),
    Write(TypedRef<'a, M>),
}

/// One side's page. Fields are dropped in order: the reference goes before the granter is told.
struct Side<'a, M: Machine> {
    held: Held<'a, M>,
    _pin: Option<Pin<'a, M>>,
}

impl<M: Machine> Side<'_, M> {
    const fn mfn(&self) -> Mfn {
        match &self.held {
            Held::Read(page) => page.mfn(),
            Held::Write(page) => page.mfn(),
        }
    }
}

impl<M: Machine> Ctx<'_, M> {
    /// Carries one copy out.
    pub(super) fn copy_grant(&self, request: &GrantCopy) -> Result<(), GrantStatus> {
        let source_granted = request.flags & GNTCOPY_SOURCE_GREF != 0;
        let dest_granted = request.flags & GNTCOPY_DEST_GREF != 0;
        let from = self.copy_domain(&request.source, source_granted)?;
        let to = self.copy_domain(&request.dest, dest_granted)?;
        let source = self.copy_side(from, &request.source, source_granted, false)?;
        let dest = self.copy_side(to, &request.dest, dest_granted, true)?;
        let len = usize::from(request.len);
        let (source_at, dest_at) = (usize::from(request.source.offset), usize::from(request.dest.offset));
        if source_at.max(dest_at) + len > PAGE_SIZE as usize {
            return Err(GrantStatus::BAD_COPY_ARG);
        }
        if len == PAGE_SIZE as usize {
            self.machine().copy_frame(dest.mfn(), source.mfn());
            return Ok(());
        }
        let mut piece = [0; PIECE];
        let mut done = 0;
        while done < len {
            let part = &mut piece[..PIECE.min(len - done)];
            self.machine().read_bytes(source.mfn(), source_at + done, part);
            self.machine().write_bytes(dest.mfn(), dest_at + done, part);
            done += part.len();
        }
        Ok(())
    }

    /// The domain that a side means: any for grants, the caller alone for frames.
    fn copy_domain(&self, side: &CopyPtr, granted: bool) -> Result<Arc<Domain>, GrantStatus> {
        if side.domid == DOMID_SELF || side.domid == self.domain.id.0 {
            return Ok(self.domain.clone());
        }
        let other = self.hv.domains.get(DomId(side.domid)).filter(|domain| !domain.is_dying());
        let other = other.ok_or(GrantStatus::BAD_DOMAIN)?;
        if granted { Ok(other) } else { Err(GrantStatus::PERMISSION_DENIED) }
    }

    /// The page that a side means.
    fn copy_side(&self, domain: Arc<Domain>, side: &CopyPtr, granted: bool, write: bool) -> Result<Side<'_, M>, GrantStatus> {
        let memory = &self.hv.memory;
        let (mfn, pin) = if granted {
            let reference = GrantRef(side.u as u32);
            let mfn = domain.grants.lock().pin(self.machine(), reference, self.domain.id, write, 1)?;
            (mfn, Some(Pin { machine: self.machine(), granter: domain.clone(), reference, write }))
        } else {
            (Mfn(side.u), None)
        };
        let held = if write {
            Held::Write(memory.get_writable(mfn, domain.id, &domain.dirty_cpus).map_err(page_status)?)
        } else {
            Held::Read(memory.get_page(mfn, domain.id).map_err(page_status)?)
        };
        Ok(Side { held, _pin: pin })
    }
}
