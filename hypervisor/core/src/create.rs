//! Making domains and their vCPUs.

use crate::Hypervisor;
use crate::domain::{Domain, DomainSpec};
use crate::vcpu::{Vcpu, VcpuInfoPtr};
use alloc::sync::Arc;
use oxen_abi::Errno;
use oxen_abi::xen::LEGACY_MAX_VCPUS;
use oxen_hal::Machine;
use oxen_mm::MmError;
use oxen_types::{CpuId, CpuSet, DomId, Maddr, VcpuId};

/// Size of `struct vcpu_info`.
const VCPU_INFO_BYTES: u64 = 64;

/// What has one user at a time: making and ending domains, and setting up their vCPUs.
#[derive(Debug, Default)]
pub struct Control {
    /// The number that was given out last.
    last_id: u16,
}

impl Control {
    /// The next number that no domain has, after the one given out last; numbers of ended domains come round late.
    fn free_id<M: Machine>(&mut self, hv: &Hypervisor<M>) -> Option<DomId> {
        let last = DomId::FIRST_RESERVED.0 - 1;
        let after = self.last_id.saturating_add(1)..=last;
        let id = after.chain(1..=self.last_id).find(|&n| hv.domains.get(DomId(n)).is_none())?;
        self.last_id = id;
        Some(DomId(id))
    }
}

impl<M: Machine> Hypervisor<M> {
    /// Makes a domain without memory and vCPUs. Number 0 in `spec` stands for the next free one.
    ///
    /// # Errors
    /// `EEXIST` where the number is taken, `ENOSPC` where none is free, `ENOMEM`.
    pub(crate) fn make_domain(&self, control: &mut Control, spec: &DomainSpec) -> Result<Arc<Domain>, Errno> {
        let id = match spec.id {
            DomId::DOM0 => control.free_id(self).ok_or(Errno::ENOSPC)?,
            id if self.domains.get(id).is_some() => return Err(Errno::EEXIST),
            id => id,
        };
        self.memory.account(id).ok_or(Errno::EINVAL)?.reset();
        self.add_domain(&DomainSpec { id, ..spec.clone() })
    }

    /// Makes the domain that `spec` describes, with its number, and without memory and vCPUs.
    ///
    /// # Errors
    /// `EEXIST` where the number is taken, `ENOMEM`.
    pub fn add_domain(&self, spec: &DomainSpec) -> Result<Arc<Domain>, Errno> {
        let block = self.memory.alloc_zeroed(0, 0).map_err(MmError::errno)?;
        let domain = Arc::new(Domain::new(spec, self.memory.share(block, spec.id, true)));
        self.update_wall_clock(&domain);
        // Its first frame is there from the start.
        let first_frame = u32::from(spec.max_grant_frames != 0);
        let grown = domain.grants.lock().grow(&self.memory, spec.id, first_frame);
        let added = grown.and_then(|()| self.domains.insert(domain.clone()).map_err(|_| Errno::EEXIST));
        if let Err(error) = added {
            if let Ok(domain) = Arc::try_unwrap(domain) {
                self.dispose(domain);
            }
            return Err(error);
        }
        Ok(domain)
    }

    /// Masks the upcalls of all vCPUs whose record is in the shared information page, as builders of domains do.
    pub(crate) fn mask_upcalls(&self, domain: &Domain) {
        for n in 0..LEGACY_MAX_VCPUS as u64 {
            VcpuInfoPtr(legacy_info(domain, n)).set_upcall_mask(self.machine, true);
        }
    }

    /// Makes the vCPUs that a domain has places for and not yet, all down. With `pinned`, vCPU n stays on CPU n (modulo the number of CPUs).
    pub fn add_vcpus(&self, domain: &Arc<Domain>, pinned: bool) {
        let nr_cpus = self.machine.online().len().max(1);
        let now = self.machine.now_ns();
        for n in (0..domain.max_vcpus()).filter(|&n| domain.vcpu(VcpuId(n)).is_none()) {
            let cpu = CpuId(n % nr_cpus);
            let affinity = if pinned { CpuSet::of(cpu) } else { all_cpus() };
            let vcpu = Vcpu::new(&Arc::downgrade(domain), domain.id, VcpuId(n), cpu, affinity, self.machine.fpu_bytes(), now);
            if (n as usize) < LEGACY_MAX_VCPUS {
                vcpu.set_info(legacy_info(domain, n.into()));
            }
            (0..domain.pauses()).for_each(|_| vcpu.pause());
            // The place was empty, and making vCPUs has one user at a time.
            let _ = domain.add_vcpu(Arc::new(vcpu));
        }
    }
}

/// Where the `vcpu_info` of one of the first vCPUs is.
fn legacy_info(domain: &Domain, n: u64) -> Maddr {
    Maddr(domain.shared_info.mfn().maddr().0 + n * VCPU_INFO_BYTES)
}

fn all_cpus() -> CpuSet {
    let set = CpuSet::new();
    for n in 0..oxen_types::MAX_CPUS as u32 {
        set.insert(CpuId(n));
    }
    set
}
