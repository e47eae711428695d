//! Pausing domains on behalf of the control stack.

use crate::Hypervisor;
use crate::domain::Domain;
use crate::sched::work;
use crate::vcpu::{Placement, Vcpu, stop};
use alloc::sync::Arc;
use oxen_abi::Errno;
use oxen_hal::Machine;

impl<M: Machine> Hypervisor<M> {
    /// Counts one more pause of a domain that is not the caller's; on return none of its vCPUs runs.
    ///
    /// # Errors
    /// `E2BIG` where the count is at its end.
    pub fn pause_domain(&self, domain: &Domain) -> Result<(), Errno> {
        if !domain.count_pause() {
            return Err(Errno::E2BIG);
        }
        for vcpu in domain.vcpus() {
            vcpu.pause();
            self.sched.unqueue(self.machine, vcpu);
            self.sched.nudge(self.machine, vcpu, work::RESCHEDULE);
        }
        domain.vcpus().for_each(|vcpu| self.wait_until_off(vcpu));
        Ok(())
    }

    /// Counts one pause less; the last one lets the vCPUs run on.
    ///
    /// # Errors
    /// `EINVAL` where the domain is not paused.
    pub fn unpause_domain(&self, domain: &Domain) -> Result<(), Errno> {
        if !domain.count_unpause() {
            return Err(Errno::EINVAL);
        }
        for vcpu in domain.vcpus() {
            vcpu.unpause();
            self.sched.wake(self.machine, vcpu);
        }
        Ok(())
    }

    /// Lets a domain run on that has shut down (a suspended one), as if it had not.
    pub fn resume_domain(&self, domain: &Domain) {
        if domain.shutdown_reason().is_none() {
            return;
        }
        domain.clear_shutdown();
        for vcpu in domain.vcpus() {
            if vcpu.unstop(stop::SHUTDOWN) != 0 {
                self.sched.wake(self.machine, vcpu);
            }
        }
    }

    /// Waits until the processor that runs a vCPU has let go of it, or somebody lets it run again.
    pub(crate) fn wait_until_off(&self, vcpu: &Arc<Vcpu>) {
        while !vcpu.is_runnable() && matches!(*vcpu.place.lock(), Placement::Running(_)) {
            oxen_sync::relax();
        }
    }
}
