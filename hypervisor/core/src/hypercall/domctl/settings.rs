//! Limits and properties of a domain.

use crate::ctx::Ctx;
use crate::domain::Domain;
use alloc::sync::Arc;
use oxen_abi::Errno;
use oxen_abi::domctl::{AddressSize, MaxMem, NodeAffinity, TscInfo};
use oxen_hal::Machine;
use oxen_types::{CpuId, PAGE_SIZE};

/// The only NUMA node, as a member of a set.
const NODE: CpuId = CpuId(0);
/// Width of every PV guest.
const GUEST_BITS: u32 = 64;
/// [`TscInfo::tsc_mode`]: guests read the processor's own counter.
const TSC_NEVER_EMULATED: u32 = 2;

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

    /// Every guest reads the processor's counter itself.
    pub(super) fn tsc_info(&self, target: &Arc<Domain>, answer: &mut TscInfo) -> Result<(), Errno> {
        self.require_other(target)?;
        *answer = TscInfo { tsc_mode: TSC_NEVER_EMULATED, ..TscInfo::default() };
        Ok(())
    }

    pub(super) fn address_size(&self, _: &Arc<Domain>, answer: &mut AddressSize) -> Result<(), Errno> {
        answer.size = GUEST_BITS;
        Ok(())
    }
}
