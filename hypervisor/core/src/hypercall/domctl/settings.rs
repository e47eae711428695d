//! Limits and properties of a domain.

use crate::ctx::Ctx;
use crate::domain::{Domain, TscSettings};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use oxen_abi::Errno;
use oxen_abi::domctl::{
    AddressSize, GetPageFrameInfo3, HypercallInit, MaxMem, NodeAffinity, PFINFO_L1TAB, PFINFO_L2TAB, PFINFO_L3TAB, PFINFO_L4TAB,
    PFINFO_LPINTAB, PFINFO_NOTAB, PFINFO_XTAB, SetTimeOffset, TscInfo,
};
use oxen_abi::hypercall_page::pv_hypercall_page;
use oxen_hal::Machine;
use oxen_mm::{FrameInfo, Level};
use oxen_types::{CpuId, Gva, Mfn, PAGE_SIZE};

/// The only NUMA node, as a member of a set.
const NODE: CpuId = CpuId(0);
/// Width of every PV guest.
const GUEST_BITS: u32 = 64;
/// [`TscInfo::tsc_mode`]: guests read the processor's own counter where that is good enough, which it is here; in no case; in any case.
const TSC_DEFAULT: u32 = 0;
const TSC_ALWAYS_EMULATED: u32 = 1;
const TSC_NEVER_EMULATED: u32 = 2;
/// Most frames of one `getpageframeinfo3`.
const MAX_PAGE_TYPES: u64 = 1024;

fn page_type(frame: &FrameInfo) -> u32 {
    let pinned = if frame.pinned { PFINFO_LPINTAB } else { 0 };
    let level = match frame.ty.level() {
        Some(Level::L1) => PFINFO_L1TAB,
        Some(Level::L2) => PFINFO_L2TAB,
        Some(Level::L3) => PFINFO_L3TAB,
        Some(Level::L4) => PFINFO_L4TAB,
        None => return PFINFO_NOTAB,
    };
    if frame.validated { level | pinned } else { PFINFO_NOTAB }
}

impl<M: Machine> Ctx<'_, M> {
    /// Limits a domain's memory. It keeps what it has above the limit.
    pub(super) fn set_max_mem(&self, target: &Arc<Domain>, request: &MaxMem) -> Result<(), Errno> {
        let account = self.hv.memory.account(target.id).ok_or(Errno::ESRCH)?;
        account.set_limit(request.max_memkb / (PAGE_SIZE / 1024));
        Ok(())
    }

    pub(super) fn node_affinity(&self, _: &Arc<Domain>, request: &mut NodeAffinity) -> Result<(), Errno> {
        self.write_nodes(&request.nodemap)
    }

    /// With one node there is one set to choose.
    pub(super) fn set_node_affinity(&self, request: &NodeAffinity) -> Result<(), Errno> {
        if self.read_cpus(&request.nodemap)?.contains(NODE) { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// Every guest reads the processor's counter itself; its time runs with the machine's.
    pub(super) fn tsc_info(&self, target: &Arc<Domain>, answer: &mut TscInfo) -> Result<(), Errno> {
        self.require_other(target)?;
        let settings = *target.tsc.lock();
        *answer = TscInfo {
            tsc_mode: settings.mode,
            gtsc_khz: u32::try_from(self.machine().tsc_khz()).unwrap_or(u32::MAX),
            incarnation: settings.incarnation,
            elapsed_nsec: self.machine().now_ns(),
            ..TscInfo::default()
        };
        Ok(())
    }

    /// Keeps what the tools say of the counter. That every read of it be emulated cannot be had.
    pub(super) fn set_tsc_info(&self, target: &Arc<Domain>, request: &TscInfo) -> Result<(), Errno> {
        self.require_other(target)?;
        match request.tsc_mode {
            TSC_DEFAULT | TSC_NEVER_EMULATED => {}
            TSC_ALWAYS_EMULATED => {
                self.hv.log(format_args!("{}: tsc_mode=always_emulate is not supported", target.id));
                return Err(Errno::EOPNOTSUPP);
            }
            _ => return Err(Errno::EINVAL),
        }
        *target.tsc.lock() = TscSettings { mode: request.tsc_mode, incarnation: request.incarnation.wrapping_add(1) };
        Ok(())
    }

    /// Sets by how much a domain's wall clock differs from the machine's.
    pub(super) fn set_time_offset(&self, target: &Arc<Domain>, request: &SetTimeOffset) {
        target.time_offset_secs.store(request.time_offset_seconds as u64, Ordering::Relaxed);
        self.hv.update_wall_clock(target);
    }

    /// There are 64-bit guests only.
    pub(super) fn set_address_size(&self, request: &AddressSize) -> Result<(), Errno> {
        if request.size == GUEST_BITS { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// Fills one of the domain's pages with the stubs of hypercalls.
    pub(super) fn fill_hypercall_page(&self, target: &Arc<Domain>, request: &HypercallInit) -> Result<(), Errno> {
        let frame = self.hv.memory.get_writable(Mfn(request.gmfn), target.id, &target.dirty_cpus).map_err(|_| Errno::EACCES)?;
        self.machine().write_bytes(frame.mfn(), 0, &pv_hypercall_page());
        Ok(())
    }

    /// Replaces frame numbers by what the frames are used as, the form in which saving tools want it.
    pub(super) fn page_types(&self, target: &Arc<Domain>, request: &mut GetPageFrameInfo3) -> Result<(), Errno> {
        if request.num > MAX_PAGE_TYPES {
            return Err(Errno::E2BIG);
        }
        let array = Gva(request.array.address());
        for index in 0..request.num {
            let mfn = Mfn(self.read_element::<u64>(array, index)?);
            let found = self.hv.memory.inspect(mfn).filter(|frame| frame.owner == target.id);
            let kind = found.map_or(PFINFO_XTAB, |frame| page_type(&frame));
            self.write_element(array, index, &u64::from(kind))?;
        }
        Ok(())
    }

    pub(super) fn address_size(&self, _: &Arc<Domain>, answer: &mut AddressSize) -> Result<(), Errno> {
        answer.size = GUEST_BITS;
        Ok(())
    }
}
