//! What CPUID shows a domain.

use crate::Hypervisor;
use crate::ctx::Ctx;
use crate::domain::Domain;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use oxen_abi::Errno;
use oxen_abi::arch_x86_64::CpuidLeaf;
use oxen_abi::domctl::CpuPolicy;
use oxen_abi::GuestHandle;
use oxen_emul::cpuid;
use oxen_emul::policy::{CpuidPolicy, MAX_LEAVES, MAX_MSRS};
use oxen_hal::Machine;
use oxen_types::Gva;

/// What the error fields of a request hold where they name nothing.
const NOTHING: u32 = u32::MAX;

impl<M: Machine> Hypervisor<M> {
    /// What a PV guest sees that does not drive the hardware.
    pub(in crate::hypercall) fn pv_policy(&self) -> CpuidPolicy {
        let machine = self.machine;
        CpuidPolicy::collect(|leaf, subleaf| {
            let query = cpuid::Query {
                leaf,
                subleaf,
                cr4: 0,
                xcr0: 1,
                vcpu: 0,
                max_vcpus: 1,
                hardware_domain: false,
                tsc_khz: machine.tsc_khz(),
                tsc_scale: machine.tsc_scale(),
            };
            cpuid::pv(&query, |leaf, subleaf| machine.cpuid(leaf, subleaf))
        })
    }

    fn policy_of(&self, domain: &Domain) -> CpuidPolicy {
        let set = domain.cpuid.lock().clone();
        set.map_or_else(|| self.pv_policy(), |policy| (*policy).clone())
    }
}

impl<M: Machine> Ctx<'_, M> {
    pub(super) fn cpu_policy(&self, target: &Arc<Domain>, request: &mut CpuPolicy) -> Result<(), Errno> {
        let policy = self.hv.policy_of(target);
        self.write_policy(&policy, &mut request.nr_leaves, request.leaves)?;
        request.nr_msrs = if request.msrs.is_null() { MAX_MSRS as u32 } else { 0 };
        Ok(())
    }

    /// Writes a policy's leaves, and their number to `room`; a null array asks for the number that there can be.
    pub(in crate::hypercall) fn write_policy(&self, policy: &CpuidPolicy, room: &mut u32, leaves: GuestHandle<CpuidLeaf>) -> Result<(), Errno> {
        if leaves.is_null() {
            *room = MAX_LEAVES as u32;
            return Ok(());
        }
        if (*room as usize) < policy.leaves().len() {
            return Err(Errno::ENOBUFS);
        }
        for (index, leaf) in policy.leaves().iter().enumerate() {
            self.write_element(Gva(leaves.address()), index as u64, leaf)?;
        }
        *room = policy.leaves().len() as u32;
        Ok(())
    }

    /// Replaces leaves of a domain's policy, before it runs for the first time. On failure the error fields name the culprit.
    pub(super) fn set_cpu_policy(&self, target: &Arc<Domain>, request: &mut CpuPolicy) -> Result<(), Errno> {
        (request.err_leaf, request.err_subleaf, request.err_msr) = (NOTHING, NOTHING, NOTHING);
        self.require_other(target)?;
        let _control = self.hv.control.try_take().ok_or(Errno::ERESTART)?;
        if target.created.load(Ordering::SeqCst) {
            return Err(Errno::EEXIST);
        }
        if request.nr_leaves as usize > MAX_LEAVES || request.nr_msrs as usize > MAX_MSRS {
            return Err(Errno::E2BIG);
        }
        if request.nr_msrs != 0 {
            let first: oxen_abi::arch_x86_64::MsrEntry = self.read_element(Gva(request.msrs.address()), 0)?;
            request.err_msr = first.idx;
            return Err(Errno::ERANGE);
        }
        let mut policy = self.hv.policy_of(target);
        for index in 0..request.nr_leaves {
            let leaf: CpuidLeaf = self.read_element(Gva(request.leaves.address()), index.into())?;
            if let Err(unknown) = policy.set(&leaf) {
                (request.err_leaf, request.err_subleaf) = (unknown.leaf, unknown.subleaf);
                return Err(Errno::ERANGE);
            }
        }
        if let Some(too_high) = policy.exceeds(&self.hv.pv_policy()) {
            (request.err_leaf, request.err_subleaf) = (too_high.leaf, too_high.subleaf);
            return Err(Errno::EINVAL);
        }
        *target.cpuid.lock() = Some(Arc::new(policy));
        Ok(())
    }
}
