//! Guest time: the time record of each vCPU, the wall clock, run state times, and what timers do when they go off.

use crate::Hypervisor;
use crate::domain::Domain;
use crate::sched::work;
use crate::timer::{Armed, TimerId, TimerKind};
use crate::vcpu::{Vcpu, VcpuState, stop};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};
use oxen_abi::sched::ShutdownReason;
use oxen_abi::xen::{VcpuTimeInfo, Virq, XEN_PVCLOCK_TSC_STABLE_BIT};
use oxen_abi::zerocopy::IntoBytes;
use oxen_hal::Machine;
use oxen_types::{CpuId, Gva, Maddr};

/// Offsets in `struct shared_info` (public header `xen.h`).
mod shared_offset {
    pub const WC_VERSION: usize = 3072;
    pub const WC_SEC: usize = 3076;
    pub const WC_NSEC: usize = 3080;
    pub const WC_SEC_HI: usize = 3084;
}

/// Offset of `state_entry_time` in `struct vcpu_runstate_info`.
const RUNSTATE_ENTRY_TIME: u64 = 8;
/// Number of the assist `VMASST_TYPE_runstate_update_flag`.
const ASSIST_RUNSTATE_UPDATE_FLAG: u32 = 5;
/// Shortest period of a periodic timer, in nanoseconds.
pub const MIN_PERIOD_NS: u64 = 1_000_000;
/// Longest one: a quarter of what 64 bits hold, which leaves room to add it to a time.
pub const MAX_PERIOD_NS: u64 = u64::MAX / 4;
/// Period with which the timer of a new PV vCPU runs, in nanoseconds.
pub const DEFAULT_PERIOD_NS: u64 = 10_000_000;

impl<M: Machine> Hypervisor<M> {
    /// The record by which a guest computes system time from the TSC.
    fn time_record(&self) -> VcpuTimeInfo {
        let tsc = self.machine.tsc();
        let (multiplier, shift) = self.machine.tsc_scale();
        VcpuTimeInfo {
            tsc_timestamp: tsc,
            system_time: self.machine.tsc_to_ns(tsc),
            tsc_to_system_mul: multiplier,
            tsc_shift: shift,
            flags: if self.machine.tsc_is_stable() { XEN_PVCLOCK_TSC_STABLE_BIT } else { 0 },
            ..VcpuTimeInfo::default()
        }
    }

    /// Writes the time record of a vCPU that is about to run on the calling CPU, with its address space loaded.
    pub fn update_vcpu_time(&self, vcpu: &Vcpu, state: &VcpuState) {
        let mut record = self.time_record();
        if let Some(info) = vcpu.info() {
            self.write_time_record(info.time(), &record);
        }
        if !state.time_area.is_null() {
            // The vDSO reads this copy with the same version protocol: odd first, the body, then even.
            record.version = 1;
            let area = state.time_area;
            let written = self.machine.copy_to_guest(area, &record.version.to_ne_bytes()).and_then(|()| {
                record.version = 2;
                self.machine.copy_to_guest(Gva(area.0.wrapping_add(4)), record.as_bytes().get(4..).unwrap_or(&[]))?;
                self.machine.copy_to_guest(area, &record.version.to_ne_bytes())
            });
            // A guest that unmapped its own area loses the copy, nothing else.
            let _ = written;
        }
    }

    fn write_time_record(&self, at: Maddr, record: &VcpuTimeInfo) {
        let (mfn, offset) = (at.mfn(), at.page_offset());
        let version = self.machine.shared_u32(mfn, offset);
        begin_update(version);
        self.machine.write_bytes(mfn, offset + 4, record.as_bytes().get(4..).unwrap_or(&[]));
        end_update(version);
    }

    /// Writes the wall clock into a domain's shared information page.
    pub fn update_wall_clock(&self, domain: &Domain) {
        let clock = self.machine.wall_clock_at_zero();
        let secs = clock.secs.wrapping_add(domain.time_offset_secs.load(Ordering::Relaxed));
        let word = |offset| self.machine.shared_u32(domain.shared_info.mfn(), offset);
        begin_update(word(shared_offset::WC_VERSION));
        word(shared_offset::WC_SEC).store(secs as u32, Ordering::Relaxed);
        word(shared_offset::WC_SEC_HI).store((secs >> 32) as u32, Ordering::Relaxed);
        word(shared_offset::WC_NSEC).store(clock.nanos, Ordering::Relaxed);
        end_update(word(shared_offset::WC_VERSION));
    }

    /// Writes the run state times where the guest asked for them; its address space is loaded.
    pub fn update_runstate_area(&self, vcpu: &Vcpu, state: &VcpuState) {
        if state.runstate_area.is_null() {
            return;
        }
        let info = vcpu.runstate.lock().info();
        let flagged = vcpu.domain().is_some_and(|d| d.has_assist(ASSIST_RUNSTATE_UPDATE_FLAG));
        let area = state.runstate_area;
        let entry_time = Gva(area.0.wrapping_add(RUNSTATE_ENTRY_TIME));
        let mark = |time: u64| self.machine.write_guest_words(entry_time, &[time]);
        // A guest that unmapped its own area loses the times, nothing else.
        let _ = if flagged {
            let mut marked = info;
            marked.state_entry_time |= oxen_abi::vcpu::XEN_RUNSTATE_UPDATE;
            mark(marked.state_entry_time)
                .and_then(|()| self.machine.copy_to_guest(area, marked.as_bytes()))
                .and_then(|()| mark(info.state_entry_time))
        } else {
            self.machine.copy_to_guest(area, info.as_bytes())
        };
    }

    /// Arms one of a vCPU's timers on the calling CPU; `None` stops it.
    pub fn set_vcpu_timer(&self, cpu: CpuId, vcpu: &Arc<Vcpu>, kind: TimerKind, deadline_ns: Option<u64>) {
        let id = TimerId { domain: vcpu.domid, vcpu: vcpu.id, kind };
        let mut timers = vcpu.timers.lock();
        if let Some(armed) = timers.slot(kind).take()
            && let Some(queue) = self.timers.get(armed.cpu.index())
        {
            queue.lock().remove(armed.deadline_ns, id);
        }
        if let Some(deadline_ns) = deadline_ns
            && let Some(queue) = self.timers.get(cpu.index())
        {
            *timers.slot(kind) = Some(Armed { cpu, deadline_ns });
            queue.lock().insert(deadline_ns, id, Arc::downgrade(vcpu));
        }
        drop(timers);
        self.program_deadline(cpu);
    }

    /// Sets the period of a vCPU's periodic timer, in nanoseconds, and starts it; 0 stops it.
    pub fn set_period(&self, cpu: CpuId, vcpu: &Arc<Vcpu>, period_ns: u64) {
        vcpu.timers.lock().period_ns = period_ns;
        let first = (period_ns != 0).then(|| self.machine.now_ns().saturating_add(period_ns));
        self.set_vcpu_timer(cpu, vcpu, TimerKind::Periodic, first);
    }

    /// Lets a vCPU that has been set up run. Its periodic timer ticks from the first time on.
    pub fn bring_up(&self, cpu: CpuId, vcpu: &Arc<Vcpu>) {
        if vcpu.unstop(stop::DOWN) == 0 {
            return;
        }
        if !vcpu.started.swap(true, Ordering::SeqCst) {
            self.set_period(cpu, vcpu, DEFAULT_PERIOD_NS);
        }
        self.sched.wake(self.machine, vcpu);
    }

    /// Sets the hardware timer of the calling CPU to its first deadline.
    pub fn program_deadline(&self, cpu: CpuId) {
        if let Some(queue) = self.timers.get(cpu.index()) {
            let next = queue.lock().next_deadline();
            self.machine.set_deadline(next);
        }
    }

    /// Lets all timers of the calling CPU go off whose time has come.
    pub fn run_timers(&self, cpu: CpuId) {
        let Some(queue) = self.timers.get(cpu.index()) else { return };
        loop {
            let now = self.machine.now_ns();
            let expired = {
                let mut queue = queue.lock();
                if queue.slice_end_ns.is_some_and(|end| end <= now) {
                    queue.slice_end_ns = None;
                    self.sched.add_work(cpu, work::RESCHEDULE);
                }
                queue.pop_expired(now)
            };
            let Some((deadline, id, vcpu)) = expired else { break };
            if let Some(vcpu) = vcpu.upgrade() {
                self.timer_expired(cpu, &vcpu, deadline, id.kind);
            }
        }
        self.program_deadline(cpu);
    }

    fn timer_expired(&self, cpu: CpuId, vcpu: &Arc<Vcpu>, deadline_ns: u64, kind: TimerKind) {
        let period_ns = {
            let mut timers = vcpu.timers.lock();
            let slot = timers.slot(kind);
            // Armed anew, perhaps on another CPU, between the pop and now: that timer has its own entry.
            if *slot != Some(Armed { cpu, deadline_ns }) {
                return;
            }
            *slot = None;
            timers.period_ns
        };
        match kind {
            TimerKind::SingleShot => self.raise_vcpu_virq(vcpu, Virq::TIMER),
            TimerKind::Periodic => {
                self.raise_vcpu_virq(vcpu, Virq::TIMER);
                if period_ns != 0 {
                    let next = deadline_ns.saturating_add(period_ns).max(self.machine.now_ns().saturating_add(1));
                    self.set_vcpu_timer(cpu, vcpu, TimerKind::Periodic, Some(next));
                }
            }
            TimerKind::Watchdog(number) => {
                if let Some(domain) = vcpu.domain() {
                    self.log(format_args!("{}: watchdog {number} ran out", domain.id));
                    self.shutdown_domain(&domain, ShutdownReason::WATCHDOG);
                }
            }
            TimerKind::Poll => {
                if let Some(domain) = vcpu.domain() {
                    self.end_poll(&domain, vcpu);
                }
            }
        }
    }
}

/// Makes a version word odd: readers wait.
fn begin_update(version: &AtomicU32) {
    version.fetch_or(1, Ordering::SeqCst);
}

/// Makes a version word even again, and different from before.
fn end_update(version: &AtomicU32) {
    version.store((version.load(Ordering::Relaxed) | 1).wrapping_add(1), Ordering::SeqCst);
}
