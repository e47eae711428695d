//! What tools are told of a domain.

use crate::Hypervisor;
use crate::ctx::Ctx;
use crate::domain::{Domain, Life};
use crate::vcpu::{Placement, Vcpu, stop};
use oxen_abi::Errno;
use oxen_abi::domctl::{
    DOMINF_BLOCKED, DOMINF_DYING, DOMINF_PAUSED, DOMINF_RUNNING, DOMINF_SHUTDOWN, DOMINF_SHUTDOWN_MASK, DOMINF_SHUTDOWN_SHIFT, Domctl,
    GetDomainInfo, XEN_INVALID_MAX_VCPU_ID,
};
use oxen_hal::Machine;
use oxen_types::DomId;

/// The pool of all processors.
const POOL: u32 = 0;
/// CPUID leaf whose eax says in its low byte how many bits a physical address has.
const LEAF_ADDRESS_SIZES: u32 = 0x8000_0008;

impl<M: Machine> Ctx<'_, M> {
    /// Describes a domain; where there is none of that number, the one that follows.
    pub(super) fn domain_info(&self, op: &mut Domctl) -> Result<(), Errno> {
        let wanted = DomId(op.domain);
        if !wanted.is_ordinary() {
            return Err(Errno::EINVAL);
        }
        let found = self.hv.domains.at_or_after(wanted).ok_or(Errno::ESRCH)?;
        op.domain = found.id.0;
        op.u.write(&self.hv.describe_domain(&found));
        Ok(())
    }
}

/// True where a vCPU waits for an event.
pub(super) fn waits(vcpu: &Vcpu) -> bool {
    vcpu.stop_reasons() & (stop::BLOCKED | stop::POLLING) != 0
}

/// True where a vCPU is on a processor.
pub(super) fn is_running(vcpu: &Vcpu) -> bool {
    matches!(*vcpu.place.lock(), Placement::Running(_))
}

impl<M: Machine> Hypervisor<M> {
    /// A domain as `struct xen_domctl_getdomaininfo` tells it.
    pub(in crate::hypercall) fn describe_domain(&self, domain: &Domain) -> GetDomainInfo {
        let now = self.machine.now_ns();
        let mut info = GetDomainInfo {
            domain: domain.id.0,
            max_vcpu_id: XEN_INVALID_MAX_VCPU_ID,
            shared_info_frame: domain.shared_info.mfn().0,
            handle: *domain.handle.lock(),
            cpupool: POOL,
            gpaddr_bits: self.machine.cpuid(LEAF_ADDRESS_SIZES, 0)[0] as u8,
            ..GetDomainInfo::default()
        };
        let mut all_wait = true;
        for vcpu in domain.vcpus() {
            info.max_vcpu_id = vcpu.id.0;
            info.cpu_time = info.cpu_time.wrapping_add(vcpu.runstate.lock().running_ns(now));
            if vcpu.is_up() {
                info.nr_online_vcpus += 1;
                all_wait &= waits(vcpu);
                if is_running(vcpu) {
                    info.flags |= DOMINF_RUNNING;
                }
            }
        }
        if all_wait && info.nr_online_vcpus != 0 {
            info.flags |= DOMINF_BLOCKED;
        }
        info.flags |= state_flags(domain);
        if let Some(account) = self.memory.account(domain.id) {
            info.tot_pages = account.pages();
            info.max_pages = account.limit();
            info.outstanding_pages = account.claim();
        }
        info
    }
}

/// The flags of the domain as a whole, with the reason of a shutdown or "none".
fn state_flags(domain: &Domain) -> u32 {
    let mut flags = 0;
    let mut reason = DOMINF_SHUTDOWN_MASK;
    if let Some(why) = domain.shutdown_reason() {
        flags |= DOMINF_SHUTDOWN;
        reason = why.raw() & DOMINF_SHUTDOWN_MASK;
    }
    if domain.life() == Life::Dead {
        flags |= DOMINF_DYING;
    }
    if domain.is_paused() {
        flags |= DOMINF_PAUSED;
    }
    flags | reason << DOMINF_SHUTDOWN_SHIFT
}
