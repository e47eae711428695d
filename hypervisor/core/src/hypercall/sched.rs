//! `sched_op` and `set_timer_op`.

use super::{Answer, Args};
use crate::ctx::Ctx;
use crate::sched::work;
use crate::timer::TimerKind;
use crate::vcpu::{POLL_ANY, stop};
use core::sync::atomic::Ordering::SeqCst;
use oxen_abi::Errno;
use oxen_abi::sched::{PinOverride, Poll, RemoteShutdown, SchedOp, Shutdown, ShutdownReason, Watchdog};
use oxen_hal::Machine;
use oxen_types::{CpuId, CpuSet, Gva, Port, VcpuId};

/// Most ports that one poll may name.
const MAX_POLL_PORTS: u32 = 128;
/// Watchdogs of a domain.
const WATCHDOGS: u8 = 2;
const NANOS_PER_SEC: u64 = 1_000_000_000;

impl<M: Machine> Ctx<'_, M> {
    /// `(command, argument)`.
    pub(super) fn sched_op(&mut self, args: &Args) -> Answer {
        let argument = Gva(args[1]);
        match SchedOp(super::low32(args[0])) {
            SchedOp::YIELD => self.hv.sched.give_way(self.cpu, self.vcpu),
            SchedOp::BLOCK => self.block(),
            SchedOp::SHUTDOWN => {
                let reason = self.read::<Shutdown>(argument)?.reason;
                check_reason(reason)?;
                if reason == ShutdownReason::CRASH {
                    self.hv.log(format_args!("{}v{} says that it crashed", self.domain.id, self.vcpu.id));
                    self.log_registers();
                }
                self.hv.shutdown_domain(self.domain, reason);
            }
            SchedOp::SHUTDOWN_CODE => {
                let reason = self.read::<Shutdown>(argument)?.reason;
                check_reason(reason)?;
                self.domain.announce_shutdown(reason);
            }
            SchedOp::WATCHDOG => {
                let request: Watchdog = self.read(argument)?;
                return self.watchdog(request);
            }
            SchedOp::PIN_OVERRIDE => {
                let request: PinOverride = self.read(argument)?;
                self.require_hardware()?;
                self.pin_override(request.pcpu)?;
            }
            SchedOp::POLL => self.poll(argument)?,
            SchedOp::REMOTE_SHUTDOWN => {
                let request: RemoteShutdown = self.read(argument)?;
                let target = self.hv.domains.get(oxen_types::DomId(request.domain_id)).ok_or(Errno::ESRCH)?;
                self.require_control()?;
                check_reason(request.reason)?;
                self.hv.shutdown_domain(&target, request.reason);
            }
            _ => return Err(Errno::ENOSYS),
        }
        Ok(0)
    }

    /// Starts, restarts or stops one of the domain's two watchdogs; a new one's number is the answer.
    fn watchdog(&self, request: Watchdog) -> Answer {
        let vcpu = self.domain.vcpu(VcpuId(0)).ok_or(Errno::EINVAL)?;
        let armed = |n: u8| vcpu.timers.lock().slot(TimerKind::Watchdog(n)).is_some();
        let (number, new) = match request.id {
            0 if request.timeout == 0 => return Err(Errno::EINVAL),
            0 => ((1..=WATCHDOGS).find(|&n| !armed(n)).ok_or(Errno::ENOSPC)?, true),
            id => {
                let n = u8::try_from(id).ok().filter(|&n| n <= WATCHDOGS && armed(n)).ok_or(Errno::EINVAL)?;
                (n, false)
            }
        };
        let deadline = self.machine().now_ns().saturating_add(u64::from(request.timeout) * NANOS_PER_SEC);
        self.hv.set_vcpu_timer(self.cpu, vcpu, TimerKind::Watchdog(number), (request.timeout != 0).then_some(deadline));
        Ok(if new { number.into() } else { 0 })
    }

    /// Ties the calling vCPU to a processor until it undoes that with a negative number.
    fn pin_override(&mut self, pcpu: i32) -> Result<(), Errno> {
        match u32::try_from(pcpu) {
            Err(_) => {
                let before = self.state.affinity_before_pin.take().ok_or(Errno::EINVAL)?;
                *self.vcpu.hard_affinity.lock() = before;
            }
            Ok(cpu) => {
                if self.state.affinity_before_pin.is_some() {
                    return Err(Errno::EBUSY);
                }
                if !self.machine().online().contains(CpuId(cpu)) {
                    return Err(Errno::EINVAL);
                }
                let before = core::mem::replace(&mut *self.vcpu.hard_affinity.lock(), CpuSet::of(CpuId(cpu)));
                self.state.affinity_before_pin = Some(before);
            }
        }
        self.hv.sched.add_work(self.cpu, work::RESCHEDULE);
        Ok(())
    }

    /// `sched_op` of old interfaces: `(command, argument)`, a shutdown's reason in the argument itself.
    pub(super) fn sched_op_compat(&mut self, args: &Args) -> Answer {
        match SchedOp(super::low32(args[0])) {
            SchedOp::YIELD => self.hv.sched.give_way(self.cpu, self.vcpu),
            SchedOp::BLOCK => self.block(),
            SchedOp::SHUTDOWN => {
                let reason = ShutdownReason(super::low32(args[1]));
                check_reason(reason)?;
                self.hv.shutdown_domain(self.domain, reason);
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
