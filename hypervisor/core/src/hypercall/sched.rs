//! `sched_op` and `set_timer_op`.

use super::{Answer, Args};
use crate::ctx::Ctx;
use crate::sched::work;
use crate::timer::TimerKind;
use crate::vcpu::{POLL_ANY, stop};
use core::sync::atomic::Ordering::SeqCst;
use oxen_abi::Errno;
use oxen_abi::sched::{Poll, RemoteShutdown, SchedOp, Shutdown, ShutdownReason};
use oxen_hal::Machine;
use oxen_types::{Gva, Port};

/// Most ports that one poll may name.
const MAX_POLL_PORTS: u32 = 128;

impl<M: Machine> Ctx<'_, M> {
    /// `(command, argument)`.
    pub(super) fn sched_op(&mut self, args: &Args) -> Answer {
        let argument = Gva(args[1]);
        match SchedOp(super::low32(args[0])) {
            SchedOp::YIELD => self.hv.sched.add_work(self.cpu, work::RESCHEDULE),
            SchedOp::BLOCK => self.block(),
            SchedOp::SHUTDOWN => {
                let reason = self.read::<Shutdown>(argument)?.reason;
                check_reason(reason)?;
                self.hv.shutdown_domain(self.domain, reason);
            }
            SchedOp::POLL => self.poll(argument)?,
            SchedOp::REMOTE_SHUTDOWN => {
                let request: RemoteShutdown = self.read(argument)?;
                self.require_control()?;
                check_reason(request.reason)?;
                let target = self.hv.domains.get(oxen_types::DomId(request.domain_id)).ok_or(Errno::ESRCH)?;
                self.hv.shutdown_domain(&target, request.reason);
            }
            _ => return Err(Errno::ENOSYS),
        }
        Ok(0)
    }

    /// Waits for an event: upcalls are unmasked, and the vCPU stops unless one is pending already.
    fn block(&mut self) {
        let Some(info) = self.vcpu.info() else { return };
        info.set_upcall_mask(self.machine(), false);
        self.vcpu.stop(stop::BLOCKED);
        // An event that became pending before the vCPU was marked blocked did not wake it.
        core::sync::atomic::fence(SeqCst);
        if info.upcall_pending(self.machine()) {
            self.vcpu.unstop(stop::BLOCKED);
        }
    }

    /// Waits until one of some ports is pending, or a time has come. The order of marking and checking closes the gap as in [`Ctx::block`].
    fn poll(&mut self, argument: Gva) -> Result<(), Errno> {
        let request: Poll = self.read(argument)?;
        if request.nr_ports > MAX_POLL_PORTS {
            return Err(Errno::EINVAL);
        }
        let list = Gva(request.ports.address());
        let port = |i: u32| self.read_element::<u32>(list, i.into());
        let mark = if request.nr_ports == 1 { port(0)? } else { POLL_ANY };
        self.vcpu.polled_port.store(mark, SeqCst);
        self.vcpu.stop(stop::POLLING);
        self.domain.pollers.fetch_add(1, SeqCst);
        let upcall = self.vcpu.info().is_some_and(|i| i.upcall_deliverable(self.machine()));
        let pending = if upcall { Ok(true) } else { self.any_pending(list, request.nr_ports) };
        if !matches!(pending, Ok(false)) {
            self.hv.end_poll(self.domain, self.vcpu);
            return pending.map(|_| ());
        }
        if request.timeout != 0 {
            self.hv.set_vcpu_timer(self.cpu, self.vcpu, TimerKind::Poll, Some(request.timeout));
        } else {
            self.hv.set_vcpu_timer(self.cpu, self.vcpu, TimerKind::Poll, None);
        }
        Ok(())
    }

    fn any_pending(&self, list: Gva, count: u32) -> Result<bool, Errno> {
        for index in 0..count {
            let port = Port(self.read_element::<u32>(list, index.into())?);
            let events = self.domain.events.lock();
            events.channel(port)?;
            if events.is_pending(self.machine(), port) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `(deadline)`: absolute system time in nanoseconds, 0 to cancel.
    pub(super) fn set_timer_op(&mut self, args: &Args) -> Answer {
        let deadline = args[0];
        let deadline = (deadline != 0).then_some(if (deadline as i64) < 0 { 0 } else { deadline });
        self.hv.set_vcpu_timer(self.cpu, self.vcpu, TimerKind::SingleShot, deadline);
        Ok(0)
    }
}

fn check_reason(reason: ShutdownReason) -> Result<(), Errno> {
    if reason <= ShutdownReason::SOFT_RESET { Ok(()) } else { Err(Errno::EINVAL) }
}
