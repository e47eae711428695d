//! Copying from and to granted pages.

use super::super::{Answer, Args};
use super::map::page_status;
use crate::ctx::Ctx;
use crate::domain::Domain;
use crate::grant::{Object, Purpose};
use alloc::sync::Arc;
use oxen_abi::grant_table::{CopyPtr, GNTCOPY_DEST_GREF, GNTCOPY_SOURCE_GREF, GrantCopy, GrantStatus};
use oxen_abi::xen::DOMID_SELF;
use oxen_hal::Machine;
use oxen_mm::{PageRef, TypedRef};
use oxen_types::{DomId, GrantRef, Mfn, PAGE_SIZE};

/// The use of a grant for the time of a copy.
struct Pin<'a, M: Machine> {
    machine: &'a M,
    granter: Arc<Domain>,
    reference: GrantRef,
    write: bool,
    object: Object,
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

/// One side's page, and which bytes of it may be used. Fields are dropped in order: the reference goes before the granters are told.
struct Side<'a, M: Machine> {
    held: Held<'a, M>,
    start: usize,
    end: usize,
    /// A grant that the one below stands for.
    below: Option<Pin<'a, M>>,
    pin: Option<Pin<'a, M>>,
}

impl<M: Machine> Side<'_, M> {
    const fn mfn(&self) -> Mfn {
        match &self.held {
            Held::Read(page) => page.mfn(),
            Held::Write(page) => page.mfn(),
        }
    }

    const fn covers(&self, at: usize, len: usize) -> bool {
        at >= self.start && at + len <= self.end
    }
}

impl<M: Machine> Side<'_, M> {
    fn is_of_dying(&self) -> bool {
        [&self.pin, &self.below].into_iter().flatten().any(|pin| pin.granter.is_dying())
    }
}

/// What a request says of a side: the domain, the frame or grant, and whether it is a grant.
type Meant = (u16, u64, bool);

/// A side as the last request of a list left it. Requests in a row often mean the same page: a packet's pieces.
struct Slot<'a, M: Machine> {
    kept: Option<(Meant, Side<'a, M>)>,
    write: bool,
}

impl<'a, M: Machine> Slot<'a, M> {
    const fn new(write: bool) -> Self {
        Self { kept: None, write }
    }

    fn has(&self, meant: Meant) -> bool {
        self.kept.as_ref().is_some_and(|(kept, _)| *kept == meant)
    }

    /// Lets go of the page. Tells whether its domain is dying, and this may have been the last to refer to it.
    fn empty(&mut self) -> bool {
        self.kept.take().is_some_and(|(_, side)| side.is_of_dying())
    }

    fn side(&self) -> Result<&Side<'a, M>, GrantStatus> {
        self.kept.as_ref().map(|(_, side)| side).ok_or(GrantStatus::GENERAL_ERROR)
    }
}

impl<M: Machine> Ctx<'_, M> {
    pub(super) fn copy_grants(&self, args: &mut Args) -> Answer {
        let mut of_dying = false;
        let (mut source, mut dest) = (Slot::new(false), Slot::new(true));
        let answer = self.grant_list(args, |_, request: &mut GrantCopy| {
            request.status = self.copy_grant(request, &mut source, &mut dest, &mut of_dying).err().unwrap_or(GrantStatus::OKAY);
            Ok(())
        });
        of_dying |= source.empty();
        of_dying |= dest.empty();
        if of_dying {
            // The request may have been the last to refer to it.
            self.hv.bury_dead();
        }
        answer
    }

    /// Carries one copy out.
    fn copy_grant<'a>(
        &'a self,
        request: &GrantCopy,
        from: &mut Slot<'a, M>,
        to: &mut Slot<'a, M>,
        of_dying: &mut bool,
    ) -> Result<(), GrantStatus> {
        let meant = |side: &CopyPtr, flag: u16| (side.domid, side.u, request.flags & flag != 0);
        let (source, dest) = (meant(&request.source, GNTCOPY_SOURCE_GREF), meant(&request.dest, GNTCOPY_DEST_GREF));
        let from_domain = self.copy_domain(from, source, of_dying)?;
        let to_domain = self.copy_domain(to, dest, of_dying)?;
        self.fill(from, from_domain, source, of_dying)?;
        self.fill(to, to_domain, dest, of_dying)?;
        let (source, dest) = (from.side()?, to.side()?);
        let len = usize::from(request.len);
        let (source_at, dest_at) = (usize::from(request.source.offset), usize::from(request.dest.offset));
        if source_at.max(dest_at) + len > PAGE_SIZE as usize {
            return Err(GrantStatus::BAD_COPY_ARG);
        }
        if !source.covers(source_at, len) || !dest.covers(dest_at, len) {
            return Err(GrantStatus::GENERAL_ERROR);
        }
        self.machine().copy_part((dest.mfn(), dest_at), (source.mfn(), source_at), len);
        Ok(())
    }

    /// The domain that a side means, where its page is not at hand: any living one for grants, the caller alone for frames.
    fn copy_domain(&self, slot: &Slot<'_, M>, meant: Meant, of_dying: &mut bool) -> Result<Option<Arc<Domain>>, GrantStatus> {
        if slot.has(meant) {
            return Ok(None);
        }
        let (domid, _, granted) = meant;
        if domid == DOMID_SELF || domid == self.domain.id.0 {
            return Ok(Some(self.domain.clone()));
        }
        let other = self.hv.domains.get(DomId(domid)).ok_or(GrantStatus::BAD_DOMAIN)?;
        if other.is_dying() {
            *of_dying = true;
            return Err(GrantStatus::BAD_DOMAIN);
        }
        if granted { Ok(Some(other)) } else { Err(GrantStatus::PERMISSION_DENIED) }
    }

    /// Gets hold of the page that a side means, where it is not at hand.
    fn fill<'a>(&'a self, slot: &mut Slot<'a, M>, domain: Option<Arc<Domain>>, meant: Meant, of_dying: &mut bool) -> Result<(), GrantStatus> {
        if let Some(domain) = domain {
            *of_dying |= slot.empty();
            slot.kept = Some((meant, self.copy_side(domain, meant, slot.write)?));
        }
        Ok(())
    }

    /// The page that a side means.
    fn copy_side(&self, domain: Arc<Domain>, (_, number, granted): Meant, write: bool) -> Result<Side<'_, M>, GrantStatus> {
        if !granted {
            let held = self.hold(&domain, Mfn(number), write)?;
            return Ok(Side { held, start: 0, end: PAGE_SIZE as usize, below: None, pin: None });
        }
        let pin = self.pin_for_copy(domain, GrantRef(number as u32), (self.domain.id, Purpose::Copy), write)?;
        let below = match pin.object {
            Object::Grant { granter, reference } => Some(self.pin_below(pin.granter.id, granter, reference, write)?),
            _ => None,
        };
        let last = below.as_ref().unwrap_or(&pin);
        let (mfn, start, end) = match last.object {
            Object::Page(mfn) => (mfn, 0, PAGE_SIZE as usize),
            Object::Part { mfn, start, length } => (mfn, usize::from(start), usize::from(start) + usize::from(length)),
            Object::Grant { .. } => return Err(GrantStatus::GENERAL_ERROR),
        };
        let held = self.hold(&last.granter, mfn, write)?;
        Ok(Side { held, start, end, below, pin: Some(pin) })
    }

    fn hold(&self, owner: &Domain, mfn: Mfn, write: bool) -> Result<Held<'_, M>, GrantStatus> {
        let memory = &self.hv.memory;
        Ok(if write {
            Held::Write(memory.get_writable(mfn, owner.id, &owner.dirty_cpus).map_err(page_status)?)
        } else {
            Held::Read(memory.get_page(mfn, owner.id).map_err(page_status)?)
        })
    }

    fn pin_for_copy(
        &self,
        granter: Arc<Domain>,
        reference: GrantRef,
        user: (DomId, Purpose),
        write: bool,
    ) -> Result<Pin<'_, M>, GrantStatus> {
        let object = granter.grants.lock().pin(self.machine(), reference, user, write, 1)?;
        Ok(Pin { machine: self.machine(), granter, reference, write, object })
    }

    /// Uses, for `middle`, the grant that one of its own stands for.
    fn pin_below(&self, middle: DomId, granter: DomId, reference: GrantRef, write: bool) -> Result<Pin<'_, M>, GrantStatus> {
        let granter = if granter == middle { None } else { self.hv.domains.get(granter) };
        let granter = granter.ok_or(GrantStatus::GENERAL_ERROR)?;
        self.pin_for_copy(granter, reference, (middle, Purpose::CopyOfGrant), write)
    }
}
