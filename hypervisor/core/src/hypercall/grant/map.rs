//! Mapping and unmapping grants.

use super::super::{Answer, Args, low32};
use super::{BUDGET, Preempted, Refusal};
use crate::ctx::Ctx;
use crate::domain::Domain;
use crate::grant::{Mapping, Object, Purpose};
use alloc::sync::Arc;
use alloc::vec::Vec;
use oxen_abi::Errno;
use oxen_abi::grant_table::{
    GNTMAP_APPLICATION_MAP, GNTMAP_CONTAINS_PTE, GNTMAP_DEVICE_MAP, GNTMAP_HOST_MAP, GNTMAP_READONLY, GrantStatus, MapGrantRef,
    UnmapAndReplace, UnmapGrantRef,
};
use oxen_hal::{FlushScope, Machine};
use oxen_mm::entry::{ACCESSED, AVAILABLE, DIRTY, NX, USER};
use oxen_mm::{MappingRef, Mm, MmError};
use oxen_types::{DomId, GrantRef, Gva, Maddr, Mfn};

/// From the first of the guest's available bits in `GNTMAP_*` (16) to that in a page-table entry (9).
const AVAILABLE_SHIFT: u32 = 16 - 9;

/// One request to unmap.
struct Unmap {
    handle: u32,
    /// Where the processor's mapping is; 0 where it stays.
    host_addr: u64,
    /// The frame's machine address; 0 where the devices' mapping stays.
    dev_bus_addr: u64,
    /// Address whose entry takes the mapping's place; 0 for none.
    new_addr: u64,
}

/// A mapping, out of the domain's list, some of whose sides have ended. Translations may still exist.
pub(super) struct Ended {
    handle: u32,
    mapping: Mapping,
    host: Option<MappingRef>,
    device: Option<MappingRef>,
}

impl<M: Machine> Ctx<'_, M> {
    pub(super) fn map_grants(&self, args: &mut Args) -> Answer {
        let mut of_dying = false;
        let answer = self.grant_list(args, |ctx, request: &mut MapGrantRef| {
            request.status = match ctx.map_grant(request, &mut of_dying) {
                Ok((handle, mfn)) => {
                    request.handle = handle;
                    request.dev_bus_addr = mfn.maddr().0;
                    GrantStatus::OKAY
                }
                Err(Refusal::Status(status)) => status,
                Err(Refusal::Preempted) => return Err(Preempted),
            };
            Ok(())
        });
        if of_dying {
            // A request that failed may have been the last to refer to it.
            self.hv.bury_dead();
        }
        answer
    }

    pub(super) fn unmap_grants(&self, args: &mut Args) -> Answer {
        self.unmap_list(args, |ctx, request: &mut UnmapGrantRef, ended| {
            let &mut UnmapGrantRef { host_addr, dev_bus_addr, handle, .. } = request;
            request.status = ctx.unmap_grant(&Unmap { handle, host_addr, dev_bus_addr, new_addr: 0 }, ended)?;
            Ok(())
        })
    }

    pub(super) fn unmap_and_replace_grants(&self, args: &mut Args) -> Answer {
        self.unmap_list(args, |ctx, request: &mut UnmapAndReplace, ended| {
            let &mut UnmapAndReplace { host_addr, new_addr, handle, .. } = request;
            request.status = ctx.unmap_grant(&Unmap { handle, host_addr, dev_bus_addr: 0, new_addr }, ended)?;
            Ok(())
        })
    }

    /// The handle and frame of a new mapping. Domains that are being destroyed still grant what is left of them.
    fn map_grant(&self, request: &MapGrantRef, of_dying: &mut bool) -> Result<(u32, Mfn), Refusal> {
        if request.flags & (GNTMAP_DEVICE_MAP | GNTMAP_HOST_MAP) == 0 {
            return Err(GrantStatus::BAD_GNTREF.into());
        }
        let granter = self.hv.domains.get(DomId(request.dom)).ok_or(GrantStatus::BAD_DOMAIN)?;
        *of_dying |= granter.is_dying();
        let handle = self.domain.maptrack.lock().reserve().ok_or(GrantStatus::NO_DEVICE_SPACE)?;
        match self.pinned_mapping(granter, request) {
            Ok(mapping) => {
                let mfn = mapping.mfn;
                self.domain.maptrack.lock().fill(handle, mapping);
                Ok((handle, mfn))
            }
            Err(refusal) => {
                self.domain.maptrack.lock().free(handle);
                Err(refusal)
            }
        }
    }

    /// Pins a grant and maps it; on failure it is not pinned.
    fn pinned_mapping(&self, granter: Arc<Domain>, request: &MapGrantRef) -> Result<Mapping, Refusal> {
        let reference = GrantRef(request.gref);
        let writable = request.flags & GNTMAP_READONLY == 0;
        let host = request.flags & GNTMAP_HOST_MAP != 0;
        let with_device = request.flags & GNTMAP_DEVICE_MAP != 0;
        let sides = u32::from(host) + u32::from(with_device);
        let user = (self.domain.id, Purpose::Map);
        let Object::Page(mfn) = granter.grants.lock().pin(self.machine(), reference, user, writable, sides)? else {
            granter.grants.lock().unpin(self.machine(), reference, writable, sides);
            return Err(GrantStatus::GENERAL_ERROR.into());
        };
        match self.refer_and_enter(&granter, request, mfn) {
            Ok(device) => {
                let by_entry = request.flags & GNTMAP_CONTAINS_PTE != 0;
                Ok(Mapping { granter, reference, mfn, writable, by_entry, host, device })
            }
            Err(refusal) => {
                granter.grants.lock().unpin(self.machine(), reference, writable, sides);
                Err(refusal)
            }
        }
    }

    /// Takes the references and enters the mapping where the request says. Gives the reference for devices.
    fn refer_and_enter(&self, granter: &Domain, request: &MapGrantRef, mfn: Mfn) -> Result<Option<MappingRef>, Refusal> {
        let writable = request.flags & GNTMAP_READONLY == 0;
        let device = if request.flags & GNTMAP_DEVICE_MAP == 0 { None } else { Some(self.refer(granter, mfn, writable)?) };
        if request.flags & GNTMAP_HOST_MAP == 0 {
            return Ok(device);
        }
        let entered = self.refer(granter, mfn, writable).map_err(Refusal::from).and_then(|held| self.enter(request, held));
        if let Err(refusal) = entered {
            if let Some(device) = device {
                self.hv.memory.put_mapping(device);
            }
            return Err(refusal);
        }
        Ok(device)
    }

    /// Refers to a granter's frame as a mapping does.
    fn refer(&self, granter: &Domain, mfn: Mfn, writable: bool) -> Result<MappingRef, GrantStatus> {
        let memory = &self.hv.memory;
        if writable {
            let page = memory.get_writable(mfn, granter.id, &granter.dirty_cpus).map_err(page_status)?;
            Ok(MappingRef::Write(page.hold()))
        } else {
            Ok(MappingRef::Read(memory.get_page(mfn, granter.id).map_err(page_status)?.hold()))
        }
    }

    /// Writes the page-table entry, which then owns the reference.
    fn enter(&self, request: &MapGrantRef, held: MappingRef) -> Result<(), Refusal> {
        let user = if request.flags & GNTMAP_APPLICATION_MAP != 0 { USER } else { 0 };
        let available = u64::from(request.flags >> AVAILABLE_SHIFT) & AVAILABLE;
        let by_entry = request.flags & GNTMAP_CONTAINS_PTE != 0;
        let result = self.hv.with_tables(self.domain, self.domain.id, |mm, tables| {
            match self.slot_of_mapping(mm, request.host_addr, by_entry) {
                Some((table, index)) => mm.set_grant_entry(tables, table, index, ACCESSED | DIRTY | NX | user | available, held),
                None => Err((MmError::NotMapped, held)),
            }
        });
        result.map_err(|(error, held)| {
            self.hv.memory.put_mapping(held);
            match error {
                MmError::Preempted => Refusal::Preempted,
                _ => GrantStatus::GENERAL_ERROR.into(),
            }
        })
    }

    /// The table and index of the entry that a request means. Called under the page-table lock.
    fn slot_of_mapping(&self, mm: &Mm<M>, host_addr: u64, by_entry: bool) -> Option<(Mfn, usize)> {
        if !by_entry {
            let found = mm.walk(self.state.root.as_ref()?.mfn(), Gva(host_addr))?;
            return Some((found.table, found.index));
        }
        let at = Maddr(host_addr);
        host_addr.is_multiple_of(8).then(|| (at.mfn(), at.page_offset() / 8))
    }

    /// Does a list of requests to unmap, then flushes once, then gives all references back.
    fn unmap_list<T: oxen_abi::zerocopy::FromBytes + oxen_abi::zerocopy::IntoBytes + oxen_abi::zerocopy::Immutable>(
        &self,
        args: &mut Args,
        mut each: impl FnMut(&Self, &mut T, &mut Vec<Ended>) -> Result<(), Preempted>,
    ) -> Answer {
        let mut ended = Vec::new();
        ended.try_reserve_exact(low32(args[2]).min(BUDGET) as usize).map_err(|_| Errno::ENOMEM)?;
        let answer = self.grant_list(args, |ctx, request| each(ctx, request, &mut ended));
        self.finish_unmaps(&mut ended);
        answer
    }

    /// Ends sides of a mapping, all that the request names or none.
    fn unmap_grant(&self, request: &Unmap, ended: &mut Vec<Ended>) -> Result<GrantStatus, Preempted> {
        let mut taken = self.domain.maptrack.lock().take(request.handle);
        if taken.is_none() && ended.iter().any(|earlier| earlier.handle == request.handle) {
            // The list names the mapping twice, once for each side.
            self.finish_unmaps(ended);
            taken = self.domain.maptrack.lock().take(request.handle);
        }
        let Some(mut mapping) = taken else { return Ok(GrantStatus::BAD_HANDLE) };
        match self.end_host_side(request, &mapping) {
            Ok(host) => {
                mapping.host &= host.is_none();
                let device = if request.dev_bus_addr == 0 { None } else { mapping.device.take() };
                ended.push(Ended { handle: request.handle, mapping, host, device });
                Ok(GrantStatus::OKAY)
            }
            Err(refusal) => {
                self.domain.maptrack.lock().fill(request.handle, mapping);
                match refusal {
                    Refusal::Status(status) => Ok(status),
                    Refusal::Preempted => Err(Preempted),
                }
            }
        }
    }

    /// Removes the page-table entry of a mapping, where the request names it. Gives the reference that the entry owned.
    fn end_host_side(&self, request: &Unmap, mapping: &Mapping) -> Result<Option<MappingRef>, Refusal> {
        let bus = request.dev_bus_addr;
        if bus != 0 && mapping.device.is_some() && bus != mapping.mfn.maddr().0 {
            return Err(GrantStatus::BAD_DEV_ADDR.into());
        }
        if request.host_addr == 0 || !mapping.host {
            return Ok(None);
        }
        if request.new_addr != 0 && mapping.by_entry {
            return Err(GrantStatus::GENERAL_ERROR.into());
        }
        let result = self.hv.with_tables(self.domain, self.domain.id, |mm, tables| {
            let (table, index) = self.slot_of_mapping(mm, request.host_addr, mapping.by_entry).ok_or(MmError::NotMapped)?;
            if request.new_addr == 0 {
                return mm.clear_grant_entry(tables, table, index, mapping.mfn, mapping.writable, 0);
            }
            let (from, at) = self.slot_of_mapping(mm, request.new_addr, false).ok_or(MmError::NotMapped)?;
            let moved = match mm.take_entry(tables, from, at) {
                Ok(moved) => moved,
                Err(MmError::NotMapped) => 0,
                Err(error) => return Err(error),
            };
            let cleared = mm.clear_grant_entry(tables, table, index, mapping.mfn, mapping.writable, moved);
            if cleared.is_err() && moved != 0 {
                // Back with its reference: the lock has been held since it was taken out.
                mm.machine().write_entry(from, at, moved);
            }
            cleared
        });
        match result {
            Ok(held) => Ok(Some(held)),
            Err(MmError::Preempted) => Err(Refusal::Preempted),
            Err(_) => Err(GrantStatus::GENERAL_ERROR.into()),
        }
    }

    /// Drops the translations of mappings that have ended, then gives references, pins and handles back.
    fn finish_unmaps(&self, ended: &mut Vec<Ended>) {
        if ended.iter().any(|one| one.host.is_some()) {
            self.machine().flush_remote(&self.domain.dirty_cpus, FlushScope::All);
        }
        let mut of_dying = false;
        for Ended { handle, mapping, host, device } in ended.drain(..) {
            of_dying |= mapping.granter.is_dying();
            let mut sides = 0;
            for held in [host, device].into_iter().flatten() {
                self.hv.memory.put_mapping(held);
                sides += 1;
            }
            if sides != 0 {
                mapping.granter.grants.lock().unpin(self.machine(), mapping.reference, mapping.writable, sides);
            }
            let mut track = self.domain.maptrack.lock();
            if mapping.host || mapping.device.is_some() {
                track.fill(handle, mapping);
            } else {
                track.free(handle);
            }
        }
        if of_dying {
            self.hv.bury_dead();
        }
    }
}

/// What a request for a frame that cannot be had gets as its status.
pub(super) fn page_status(error: MmError) -> GrantStatus {
    match error {
        MmError::Type { .. } | MmError::Full(_) => GrantStatus::GENERAL_ERROR,
        _ => GrantStatus::BAD_PAGE,
    }
}
