//! `memory_op`: reservations and maps.

use super::{Answer, Args};
use crate::ctx::Ctx;
use crate::domain::Domain;
use crate::grant::{status_frames_for, table_frames_for};
use alloc::sync::Arc;
use alloc::vec::Vec;
use oxen_abi::Errno;
use oxen_abi::arch_x86_64::{MACH2PHYS_VIRT_END, MACH2PHYS_VIRT_START};
use oxen_abi::memory::{
    AddToPhysmap, AddToPhysmapBatch, E820Entry, ForeignMemoryMap, MachphysMapping, MachphysMfnList, MemAcquireResource, MemoryMap, MemoryOp,
    MemoryReservation, PodTarget, RemoveFromPhysmap, ReservedDeviceMemoryMap, ResourceType, VnumaTopologyInfo,
};
use oxen_hal::{Machine, MemoryKind, MemoryRange};
use oxen_mm::MmError;
use oxen_types::{DomId, Gva, Maddr, Mfn};

/// Low bits of the command; the others say how many extents were done before a restart.
const COMMAND_BITS: u32 = 6;
const COMMAND_MASK: u64 = (1 << COMMAND_BITS) - 1;
/// Frames done before the guest may take interrupts.
const BUDGET: u64 = 512;
/// Largest order by privilege: a domain without devices, with devices, with control.
const MAX_ORDER_GUEST: u32 = 9;
const MAX_ORDER_HARDWARE: u32 = 12;
const MAX_ORDER_CONTROL: u32 = 18;
/// Most entries of a memory map that a domain is given.
const MAX_MAP_ENTRIES: u32 = 1024;
/// `XENMEM_resource_grant_table_id_shared` and `_status` of the public header `memory.h`.
const GRANT_TABLE_SHARED: u32 = 0;
const GRANT_TABLE_STATUS: u32 = 1;
/// Bytes of the machine-to-phys table per extent of `XENMEM_machphys_mfn_list`: 2 MiB.
const M2P_FRAMES_PER_EXTENT: u64 = (2 << 20) / 8;

impl<M: Machine> Ctx<'_, M> {
    /// `(command, argument)`.
    pub(super) fn memory_op(&mut self, args: &mut Args) -> Answer {
        let op = MemoryOp((args[0] & COMMAND_MASK) as u32);
        let argument = Gva(args[1]);
        match op {
            MemoryOp::INCREASE_RESERVATION | MemoryOp::DECREASE_RESERVATION | MemoryOp::POPULATE_PHYSMAP => self.reservation(args, op, argument),
            MemoryOp::MAXIMUM_RAM_PAGE => Ok(self.machine().max_mfn() as i64),
            MemoryOp::CURRENT_RESERVATION => Ok(self.account_of(argument)?.pages() as i64),
            MemoryOp::MAXIMUM_RESERVATION => Ok(self.account_of(argument)?.limit().min(u32::MAX.into()) as i64),
            MemoryOp::MAXIMUM_GPFN => {
                let target = self.target_domain(self.read::<u16>(argument)?)?;
                /// Offset of `arch.max_pfn` in `struct shared_info`.
                const MAX_PFN: usize = 3088;
                let max_pfn = self.machine().shared_u64(target.shared_info.mfn(), MAX_PFN).load(core::sync::atomic::Ordering::Relaxed);
                Ok(max_pfn.max(1) as i64 - 1)
            }
            MemoryOp::MACHPHYS_MFN_LIST => self.machphys_mfn_list(argument),
            MemoryOp::MACHPHYS_MAPPING => {
                let max_mfn = self.machine().max_mfn().saturating_sub(1);
                self.write(argument, &MachphysMapping { v_start: MACH2PHYS_VIRT_START, v_end: MACH2PHYS_VIRT_END, max_mfn })?;
                Ok(0)
            }
            MemoryOp::MEMORY_MAP => self.memory_map(argument),
            MemoryOp::MACHINE_MEMORY_MAP => self.machine_memory_map(argument),
            MemoryOp::SET_MEMORY_MAP => self.set_memory_map(argument),
            MemoryOp::EXCHANGE => self.exchange(argument),
            other => self.memory_op_rare(other, argument),
        }
    }

    /// What PV guests cannot use, or seldom do.
    fn memory_op_rare(&self, op: MemoryOp, argument: Gva) -> Answer {
        match op {
            // A PV guest's frames are in no map of the hypervisor's that could be changed.
            MemoryOp::ADD_TO_PHYSMAP => {
                let request: AddToPhysmap = self.read(argument)?;
                self.target_domain(request.domid)?;
                Err(Errno::EACCES)
            }
            MemoryOp::ADD_TO_PHYSMAP_BATCH => {
                let request: AddToPhysmapBatch = self.read(argument)?;
                self.target_domain(request.domid)?;
                Err(Errno::EACCES)
            }
            MemoryOp::REMOVE_FROM_PHYSMAP => {
                let request: RemoveFromPhysmap = self.read(argument)?;
                self.target_domain(request.domid)?;
                Err(Errno::EACCES)
            }
            MemoryOp::SET_POD_TARGET | MemoryOp::GET_POD_TARGET => {
                let request: PodTarget = self.read(argument)?;
                self.target_domain(request.domid)?;
                Err(Errno::EINVAL)
            }
            MemoryOp::GET_VNUMAINFO => {
                let request: VnumaTopologyInfo = self.read(argument)?;
                if request.pad != 0 {
                    return Err(Errno::EINVAL);
                }
                self.target_domain(request.domid)?;
                Err(Errno::EOPNOTSUPP)
            }
            // No device needs memory at its own addresses: there is no I/O memory management unit in use.
            MemoryOp::RESERVED_DEVICE_MEMORY_MAP => {
                let mut request: ReservedDeviceMemoryMap = self.read(argument)?;
                request.nr_entries = 0;
                self.write(argument, &request)?;
                Ok(0)
            }
            MemoryOp::ACQUIRE_RESOURCE => self.acquire_resource(argument),
            MemoryOp::CLAIM_PAGES => {
                let request: MemoryReservation = self.read(argument)?;
                if request.extent_order != 0 || request.mem_flags != 0 || !request.extent_start.is_null() {
                    return Err(Errno::EINVAL);
                }
                self.require_control()?;
                let target = self.hv.domains.get(DomId(request.domid)).ok_or(Errno::EINVAL)?;
                self.hv.memory.claim(target.id, request.nr_extents).map_err(MmError::errno)?;
                Ok(0)
            }
            _ => Err(Errno::ENOSYS),
        }
    }

    fn account_of(&self, argument: Gva) -> Result<&oxen_mm::Account, Errno> {
        let target = self.target_domain(self.read::<u16>(argument)?)?;
        self.hv.memory.account(target.id).ok_or(Errno::ESRCH)
    }

    pub(super) fn max_order(&self) -> u32 {
        if self.domain.privileges.control {
            MAX_ORDER_CONTROL
        } else if self.domain.privileges.hardware {
            MAX_ORDER_HARDWARE
        } else {
            MAX_ORDER_GUEST
        }
    }

    /// Increases, decreases and populations return the number of extents done, whatever happened.
    fn reservation(&mut self, args: &mut Args, op: MemoryOp, argument: Gva) -> Answer {
        let start = args[0] >> COMMAND_BITS;
        let Ok(request) = self.read::<MemoryReservation>(argument) else { return Ok(start as i64) };
        let Ok(target) = self.target_domain(request.domid) else { return Ok(start as i64) };
        if start > request.nr_extents || request.extent_order > self.max_order() {
            return Ok(start as i64);
        }
        let mut spent = 0;
        for index in start..request.nr_extents {
            if spent >= BUDGET {
                args[0] = u64::from(op.raw()) | index << COMMAND_BITS;
                return Err(Errno::ERESTART);
            }
            spent += 1 << request.extent_order;
            let done = match op {
                MemoryOp::DECREASE_RESERVATION => self.give_up(&target, &request, index),
                _ => self.obtain(&target, &request, index, op),
            };
            if done.is_err() {
                return Ok(index as i64);
            }
        }
        Ok(request.nr_extents as i64)
    }

    fn give_up(&self, target: &Arc<Domain>, request: &MemoryReservation, index: u64) -> Result<(), Errno> {
        let first: u64 = self.read_element(Gva(request.extent_start.address()), index)?;
        for i in 0..1 << request.extent_order {
            let mfn = Mfn(first.checked_add(i).ok_or(Errno::EINVAL)?);
            self.hv.memory.release(mfn, target.id).map_err(|e| self.refuse("decrease_reservation", e))?;
        }
        Ok(())
    }

    fn obtain(&self, target: &Arc<Domain>, request: &MemoryReservation, index: u64, op: MemoryOp) -> Result<(), Errno> {
        let list = Gva(request.extent_start.address());
        let populate = op == MemoryOp::POPULATE_PHYSMAP;
        let pfn: u64 = if populate { self.read_element(list, index)? } else { 0 };
        let address_bits = request.mem_flags & 0xff;
        let mfn = self.hv.memory.alloc_for(target.id, request.extent_order, address_bits).map_err(MmError::errno)?;
        if populate {
            for i in 0..1 << request.extent_order {
                self.machine().set_m2p(mfn.offset(i), pfn.wrapping_add(i));
            }
        }
        if !list.is_null() {
            self.write_element(list, index, &mfn.0)?;
        }
        Ok(())
    }

    /// Tells the frames of something that belongs to another domain, by which the caller maps them: its grant table.
    fn acquire_resource(&self, argument: Gva) -> Answer {
        let mut request: MemAcquireResource = self.read(argument)?;
        if request.pad != 0 {
            return Err(Errno::EINVAL);
        }
        // Only another domain is meant, so that the name for the caller itself is no domain at all.
        match DomId(request.domid) {
            DomId::SELF => return Err(Errno::ESRCH),
            own if own == self.domain.id => return Err(Errno::EPERM),
            _ => {}
        }
        let target = self.target_domain(request.domid)?;
        match request.kind {
            ResourceType::GRANT_TABLE if matches!(request.id, GRANT_TABLE_SHARED | GRANT_TABLE_STATUS) => {}
            // No domain has a trace buffer.
            ResourceType::GRANT_TABLE | ResourceType::VMTRACE_BUF => return Err(Errno::EINVAL),
            _ => return Err(Errno::EOPNOTSUPP),
        }
        let of_status = request.id == GRANT_TABLE_STATUS;
        if request.frame_list.is_null() {
            let most = target.grants.lock().max_frames;
            request.nr_frames = if of_status { status_frames_for(most) } else { most };
            self.write(argument, &request)?;
            return Ok(0);
        }
        let end = request.frame.checked_add(request.nr_frames.into()).and_then(|end| u32::try_from(end).ok()).ok_or(Errno::EINVAL)?;
        let wanted = request.frame as usize..end as usize;
        let frames: Vec<Mfn> = {
            let mut grants = target.grants.lock();
            if of_status {
                if grants.version() != 2 {
                    return Err(Errno::EINVAL);
                }
                grants.grow(&self.hv.memory, target.id, table_frames_for(end))?;
                grants.status_frames().take(wanted.end).skip(wanted.start).collect()
            } else {
                grants.grow(&self.hv.memory, target.id, end)?;
                grants.frames().take(wanted.end).skip(wanted.start).collect()
            }
        };
        for (index, mfn) in frames.iter().enumerate() {
            self.write_element(Gva(request.frame_list.address()), index as u64, &mfn.0)?;
        }
        Ok(0)
    }

    fn machphys_mfn_list(&self, argument: Gva) -> Answer {
        let mut request: MachphysMfnList = self.read(argument)?;
        let extents = self.machine().max_mfn().div_ceil(M2P_FRAMES_PER_EXTENT).min(request.max_extents.into());
        let mut last = 0;
        for index in 0..extents {
            // A hole repeats the extent before it, so that what tools map is always something.
            if let Some(mfn) = self.machine().m2p_extent(index as usize) {
                last = mfn.0;
            }
            self.write_element(Gva(request.extent_start.address()), index, &last)?;
        }
        request.nr_extents = extents as u32;
        self.write(argument, &request)?;
        Ok(0)
    }

    fn memory_map(&self, argument: Gva) -> Answer {
        let mut request: MemoryMap = self.read(argument)?;
        let map = self.domain.memory_map.lock().clone();
        if map.is_empty() {
            return Err(Errno::ENOSYS);
        }
        let count = map.len().min(request.nr_entries as usize);
        self.write_map(&request, map.get(..count).unwrap_or(&[]))?;
        request.nr_entries = count as u32;
        self.write(argument, &request)?;
        Ok(0)
    }

    fn machine_memory_map(&self, argument: Gva) -> Answer {
        self.require_hardware()?;
        let mut request: MemoryMap = self.read(argument)?;
        let map = self.machine().memory_map();
        if (request.nr_entries as usize) < map.len() + 1 {
            return Err(Errno::EINVAL);
        }
        self.write_map(&request, map)?;
        request.nr_entries = map.len() as u32;
        self.write(argument, &request)?;
        Ok(0)
    }

    fn write_map(&self, request: &MemoryMap, map: &[MemoryRange]) -> Result<(), Errno> {
        for (index, range) in map.iter().enumerate() {
            let size = range.end.0.saturating_sub(range.start.0);
            let entry = E820Entry { addr: range.start.0.into(), size: size.into(), kind: range.kind.e820().into() };
            self.write_element(Gva(request.buffer.address()), index as u64, &entry)?;
        }
        Ok(())
    }

    fn set_memory_map(&self, argument: Gva) -> Answer {
        let request: ForeignMemoryMap = self.read(argument)?;
        if request.map.nr_entries > MAX_MAP_ENTRIES {
            return Err(Errno::EINVAL);
        }
        let target = self.target_domain(request.domid)?;
        let mut map = alloc::vec::Vec::new();
        for index in 0..request.map.nr_entries {
            let entry: E820Entry = self.read_element(Gva(request.map.buffer.address()), index.into())?;
            let start: u64 = entry.addr.into();
            let end = start.checked_add(entry.size.into()).ok_or(Errno::EINVAL)?;
            map.push(MemoryRange { start: Maddr(start), end: Maddr(end), kind: MemoryKind::from_e820(entry.kind.into()) });
        }
        *target.memory_map.lock() = map;
        Ok(0)
    }
}

