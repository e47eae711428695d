//! Telling vCPUs: upcalls, virtual interrupts, polls.

use crate::Hypervisor;
use crate::domain::Domain;
use crate::event::{PortState, Raised, virq_is_global};
use crate::sched::work;
use crate::vcpu::{POLL_ANY, Vcpu, stop};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use oxen_abi::Errno;
use oxen_abi::xen::Virq;
use oxen_hal::Machine;
use oxen_types::{DomId, Port, VcpuId};

impl<M: Machine> Hypervisor<M> {
    /// Makes a port of `domain` pending and tells whoever waits for it.
    pub fn raise_port(&self, domain: &Arc<Domain>, port: Port) {
        let raised = domain.events.lock().set_pending(self.machine, domain, port);
        self.tell(domain, port, raised);
    }

    /// Sends an event through one of a domain's ports.
    ///
    /// # Errors
    /// `EINVAL` for ports that events cannot be sent through.
    pub(crate) fn send_event(&self, domain: &Arc<Domain>, port: Port) -> Result<(), Errno> {
        let mut events = domain.events.lock();
        match &events.channel(port)?.state {
            PortState::Ipi => {
                let raised = events.set_pending(self.machine, domain, port);
                drop(events);
                self.tell(domain, port, raised);
                Ok(())
            }
            PortState::Interdomain { remote, remote_port, .. } => {
                let (remote, remote_port) = (remote.upgrade(), *remote_port);
                drop(events);
                if let Some(remote) = remote {
                    self.raise_port(&remote, remote_port);
                }
                Ok(())
            }
            PortState::Unbound { .. } => Ok(()),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Carries out what a change of a port asked for.
    pub fn tell(&self, domain: &Arc<Domain>, port: Port, raised: Raised) {
        if let Some(vcpu) = raised.upcall.and_then(|id| domain.vcpu(id)) {
            self.mark_upcall(vcpu);
        }
        if raised.newly_pending && domain.pollers.load(Ordering::SeqCst) != 0 {
            for vcpu in domain.vcpus() {
                let polled = vcpu.polled_port.load(Ordering::SeqCst);
                if polled == port.0 || polled == POLL_ANY {
                    self.end_poll(domain, vcpu);
                }
            }
        }
    }

    /// Sets a vCPU's upcall-pending flag and makes it notice.
    pub fn mark_upcall(&self, vcpu: &Arc<Vcpu>) {
        let Some(info) = vcpu.info() else { return };
        // The mask is not asked: a guest may be clearing it at this moment, after its last look at the pending flag.
        if info.set_upcall_pending(self.machine) {
            self.kick_upcall(vcpu);
        }
    }

    /// Wakes a blocked vCPU, or makes the processor that runs it look at its pending events.
    pub fn kick_upcall(&self, vcpu: &Arc<Vcpu>) {
        if vcpu.unstop(stop::BLOCKED) != 0 {
            self.sched.wake(self.machine, vcpu);
        } else {
            self.sched.nudge(self.machine, vcpu, 0);
        }
    }

    /// Ends a vCPU's `SCHEDOP_poll`, where it is in one.
    pub fn end_poll(&self, domain: &Domain, vcpu: &Arc<Vcpu>) {
        if vcpu.unstop(stop::POLLING) != 0 {
            vcpu.polled_port.store(0, Ordering::SeqCst);
            domain.pollers.fetch_sub(1, Ordering::SeqCst);
            self.sched.wake(self.machine, vcpu);
        }
    }

    /// Raises a virtual interrupt of a vCPU, where the guest has bound it.
    pub fn raise_vcpu_virq(&self, vcpu: &Arc<Vcpu>, virq: Virq) {
        let Some(domain) = vcpu.domain() else { return };
        let slot = if virq_is_global(virq) { VcpuId(0) } else { vcpu.id };
        let (port, raised) = {
            let mut events = domain.events.lock();
            let Some(port) = events.virq_port(slot, virq) else { return };
            (port, events.set_pending(self.machine, &domain, port))
        };
        self.tell(&domain, port, raised);
    }

    /// Raises a global virtual interrupt in the domain that handles it, which is dom0 where the tools have not named another.
    pub fn raise_global_virq(&self, virq: Virq) {
        let handler = self.virq_handlers.get(virq.raw() as usize).map_or(DomId::DOM0, |handler| DomId(handler.load(Ordering::SeqCst)));
        if let Some(domain) = self.domains.get(handler).filter(|domain| !domain.is_dying()).or_else(|| self.domains.get(DomId::DOM0))
            && let Some(vcpu) = domain.vcpu(VcpuId(0))
        {
            self.raise_vcpu_virq(vcpu, virq);
        }
    }

    /// A domain ends: what it handled is dom0's again.
    pub(crate) fn forget_virq_handler(&self, ended: DomId) {
        for handler in &self.virq_handlers {
            let _ = handler.compare_exchange(ended.0, DomId::DOM0.0, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// The peer of an interdomain port, where it still exists and is still connected to it.
    pub fn peer(&self, domain: &Domain, port: Port) -> Option<(Arc<Domain>, Port)> {
        let events = domain.events.lock();
        match &events.channel(port).ok()?.state {
            PortState::Interdomain { remote, remote_port, .. } => Some((remote.upgrade()?, *remote_port)),
            _ => None,
        }
    }

    /// Makes `vcpu`'s processor choose again what runs.
    pub fn reschedule(&self, vcpu: &Vcpu) {
        self.sched.nudge(self.machine, vcpu, work::RESCHEDULE);
    }
}
