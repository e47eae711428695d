//! The scheduler: which vCPU runs where.
//!
//! Every processor has a queue of runnable vCPUs and gives each a slice in turn; a vCPU that wakes up goes ahead of those that used up theirs.
//! An idle processor takes work from the others. A vCPU's place ([`Placement`]) changes only under its own lock, so that it is in
//! one queue or on one processor at most, and a wake-up is never lost: whoever clears a stop reason looks at the place afterwards, and the
//! processor that takes a vCPU off looks at the stop reasons afterwards.

use crate::vcpu::{Placement, Vcpu};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use oxen_abi::vcpu::Runstate;
use oxen_hal::{Clock, Processors};
use oxen_sync::{SpinLock, level};
use oxen_types::{CpuId, CpuSet, MAX_CPUS};

/// Length of a time slice in nanoseconds.
pub const SLICE_NS: u64 = 30_000_000;

/// Reasons for a processor to look at its pending work, in [`Scheduler::take_work`].
pub mod work {
    /// Choose again which vCPU runs.
    pub const RESCHEDULE: u32 = 1 << 0;
    /// Some timer's time has come.
    pub const TIMER: u32 = 1 << 1;
}

#[derive(Debug, Default)]
struct RunQueue {
    /// Vcpus that woke up, ahead of the others.
    woken: VecDeque<Arc<Vcpu>>,
    /// Vcpus that used their slice.
    waiting: VecDeque<Arc<Vcpu>>,
}

impl RunQueue {
    fn len(&self) -> usize {
        self.woken.len() + self.waiting.len()
    }

    fn take_first(&mut self, mut may_run: impl FnMut(&Vcpu) -> bool) -> Option<Arc<Vcpu>> {
        for queue in [&mut self.woken, &mut self.waiting] {
            if let Some(index) = queue.iter().position(|v| may_run(v)) {
                return queue.remove(index);
            }
        }
        None
    }

    /// Takes a vCPU out; says whether it was there.
    fn remove(&mut self, vcpu: &Arc<Vcpu>) -> bool {
        let before = self.len();
        self.woken.retain(|v| !Arc::ptr_eq(v, vcpu));
        self.waiting.retain(|v| !Arc::ptr_eq(v, vcpu));
        self.len() != before
    }
}

#[derive(Debug)]
struct CpuQueue {
    queue: SpinLock<RunQueue, { level::RUN_QUEUE }>,
    work: AtomicU32,
    idle: AtomicBool,
    /// System time at which it last became idle, and nanoseconds that it was idle before; written by the processor itself.
    idle_since_ns: AtomicU64,
    idle_ns: AtomicU64,
}

/// Run queues of all processors.
#[derive(Debug)]
pub struct Scheduler {
    cpus: Vec<CpuQueue>,
}

impl Default for Scheduler {
    fn default() -> Self {
        Self::new()
    }
}

impl Scheduler {
    /// Empty queues.
    #[must_use]
    pub fn new() -> Self {
        let cpu = || CpuQueue {
            queue: SpinLock::new(RunQueue::default()),
            work: AtomicU32::new(0),
            idle: AtomicBool::new(true),
            idle_since_ns: AtomicU64::new(0),
            idle_ns: AtomicU64::new(0),
        };
        Self { cpus: (0..MAX_CPUS).map(|_| cpu()).collect() }
    }

    fn cpu(&self, cpu: CpuId) -> Option<&CpuQueue> {
        self.cpus.get(cpu.index())
    }

    /// Adds reasons for `cpu` to look at its work.
    pub fn add_work(&self, cpu: CpuId, reasons: u32) {
        if let Some(c) = self.cpu(cpu) {
            c.work.fetch_or(reasons, Ordering::SeqCst);
        }
    }

    /// True where the calling CPU has pending work.
    #[inline]
    #[must_use]
    pub fn has_work(&self, cpu: CpuId) -> bool {
        self.cpus.get(cpu.index()).is_some_and(|c| c.work.load(Ordering::Relaxed) != 0)
    }

    /// Takes the pending work of the calling CPU.
    pub fn take_work(&self, cpu: CpuId) -> u32 {
        self.cpu(cpu).map_or(0, |c| c.work.swap(0, Ordering::SeqCst))
    }

    /// Makes a vCPU run if nothing keeps it from running: called by whoever took a stop reason away.
    pub fn wake<M: Processors + Clock>(&self, machine: &M, vcpu: &Arc<Vcpu>) {
        let mut place = vcpu.place.lock();
        let Placement::Off(last) = *place else { return };
        if !vcpu.is_runnable() {
            return;
        }
        let cpu = self.choose_cpu(machine, vcpu, last);
        *place = Placement::Queued(cpu);
        vcpu.runstate.lock().enter(Runstate::RUNNABLE, machine.now_ns());
        if let Some(c) = self.cpu(cpu) {
            c.queue.lock().woken.push_back(vcpu.clone());
        }
        drop(place);
        self.add_work(cpu, work::RESCHEDULE);
        if cpu != machine.this_cpu() {
            machine.kick(cpu);
        }
    }

    /// Makes the vCPU's processor look at it again, where it is on one: a stop reason was added, or an event became pending.
    pub fn nudge<M: Processors + Clock>(&self, machine: &M, vcpu: &Vcpu, reasons: u32) {
        let place = *vcpu.place.lock();
        if let Placement::Running(cpu) = place {
            self.add_work(cpu, reasons);
            if cpu != machine.this_cpu() {
                machine.kick(cpu);
            }
        }
    }

    /// The processor for a vCPU that wakes up: the last one where it is idle or nothing better is, else an idle one that it may run on.
    fn choose_cpu<M: Processors>(&self, machine: &M, vcpu: &Vcpu, last: CpuId) -> CpuId {
        let online = machine.online();
        let allowed = vcpu.hard_affinity.lock().clone();
        let usable = |cpu: CpuId| online.contains(cpu) && allowed.contains(cpu);
        let idle = |cpu: CpuId| self.cpu(cpu).is_some_and(|c| c.idle.load(Ordering::Relaxed) && c.queue.lock().len() == 0);
        if usable(last) && idle(last) {
            return last;
        }
        if let Some(cpu) = online.iter().find(|&cpu| usable(cpu) && idle(cpu)) {
            return cpu;
        }
        if usable(last) { last } else { online.iter().find(|&cpu| usable(cpu)).unwrap_or(CpuId(0)) }
    }

    /// Puts a vCPU that was just taken off `cpu` (its registers saved and given back) where it belongs: behind the others where it may go
    /// on, nowhere where it is stopped. Where it may no longer run on `cpu` it moves to another processor.
    pub fn put_back<M: Processors + Clock>(&self, machine: &M, cpu: CpuId, vcpu: &Arc<Vcpu>) {
        let mut place = vcpu.place.lock();
        let now = machine.now_ns();
        if vcpu.is_runnable() {
            let to = if vcpu.may_run_on(cpu) { cpu } else { self.choose_cpu(machine, vcpu, cpu) };
            *place = Placement::Queued(to);
            vcpu.runstate.lock().enter(Runstate::RUNNABLE, now);
            self.queue_last(machine, to, vcpu);
        } else {
            *place = Placement::Off(cpu);
            let state = if vcpu.is_up() { Runstate::BLOCKED } else { Runstate::OFFLINE };
            vcpu.runstate.lock().enter(state, now);
        }
    }

    /// Queues a vCPU behind the others of `cpu`; another processor than the calling one is told.
    fn queue_last<M: Processors>(&self, machine: &M, cpu: CpuId, vcpu: &Arc<Vcpu>) {
        if let Some(c) = self.cpu(cpu) {
            c.queue.lock().waiting.push_back(vcpu.clone());
        }
        if cpu != machine.this_cpu() {
            self.add_work(cpu, work::RESCHEDULE);
            machine.kick(cpu);
        }
    }

    /// Makes a changed hard affinity hold: a vCPU that waits for a processor on which it may no longer run waits for another one, and a processor that
    /// runs it gives it up soon.
    pub fn affinity_changed<M: Processors + Clock>(&self, machine: &M, vcpu: &Arc<Vcpu>) {
        let mut place = vcpu.place.lock();
        match *place {
            Placement::Queued(cpu) if !vcpu.may_run_on(cpu) => {
                // Where it is in no queue, a processor has just picked it, and will look at its affinity again.
                if self.cpu(cpu).is_some_and(|c| c.queue.lock().remove(vcpu)) {
                    let to = self.choose_cpu(machine, vcpu, cpu);
                    *place = Placement::Queued(to);
                    self.queue_last(machine, to, vcpu);
                    self.add_work(to, work::RESCHEDULE);
                }
            }
            Placement::Running(cpu) if !vcpu.may_run_on(cpu) => {
                drop(place);
                self.nudge(machine, vcpu, work::RESCHEDULE);
            }
            _ => {}
        }
    }

    /// True where another vCPU waits for this processor.
    #[must_use]
    pub fn has_waiting(&self, cpu: CpuId) -> bool {
        self.cpu(cpu).is_some_and(|c| c.queue.lock().len() != 0)
    }

    /// The next vCPU for `cpu`: its own queue first, then the others'. `None` makes it idle.
    pub fn pick<M: Processors + Clock>(&self, machine: &M, cpu: CpuId) -> Option<Arc<Vcpu>> {
        let others = machine.online().iter().filter(|&other| other != cpu);
        for from in core::iter::once(cpu).chain(others) {
            if let Some(vcpu) = self.take_from(machine, from, cpu) {
                self.set_idle(machine, cpu, false);
                return Some(vcpu);
            }
        }
        self.set_idle(machine, cpu, true);
        None
    }

    fn take_from<M: Processors + Clock>(&self, machine: &M, from: CpuId, to: CpuId) -> Option<Arc<Vcpu>> {
        loop {
            let vcpu = self.cpu(from)?.queue.lock().take_first(|v| v.hard_affinity.lock().contains(to))?;
            let mut place = vcpu.place.lock();
            if *place != Placement::Queued(from) {
                continue;
            }
            let now = machine.now_ns();
            if vcpu.is_runnable() && !vcpu.may_run_on(to) {
                // Its affinity changed since it was picked.
                let other = self.choose_cpu(machine, &vcpu, from);
                *place = Placement::Queued(other);
                self.queue_last(machine, other, &vcpu);
                continue;
            }
            if vcpu.is_runnable() {
                *place = Placement::Running(to);
                vcpu.runstate.lock().enter(Runstate::RUNNING, now);
                drop(place);
                return Some(vcpu);
            }
            *place = Placement::Off(from);
            let state = if vcpu.is_up() { Runstate::BLOCKED } else { Runstate::OFFLINE };
            vcpu.runstate.lock().enter(state, now);
        }
    }

    /// Takes a vCPU that is to stop out of its queue.
    pub fn unqueue<M: Clock>(&self, machine: &M, vcpu: &Arc<Vcpu>) {
        let mut place = vcpu.place.lock();
        if let Placement::Queued(cpu) = *place
            && !vcpu.is_runnable()
        {
            if let Some(c) = self.cpu(cpu) {
                c.queue.lock().remove(vcpu);
            }
            *place = Placement::Off(cpu);
            vcpu.runstate.lock().enter(Runstate::BLOCKED, machine.now_ns());
        }
    }

    fn set_idle<M: Clock>(&self, machine: &M, cpu: CpuId, idle: bool) {
        let Some(c) = self.cpu(cpu) else { return };
        if c.idle.swap(idle, Ordering::Relaxed) == idle {
            return;
        }
        let now = machine.now_ns();
        if idle {
            c.idle_since_ns.store(now, Ordering::Relaxed);
        } else {
            c.idle_ns.fetch_add(now.saturating_sub(c.idle_since_ns.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
    }

    /// Nanoseconds that `cpu` has been idle in all.
    #[must_use]
    pub fn idle_ns<M: Clock>(&self, machine: &M, cpu: CpuId) -> u64 {
        let Some(c) = self.cpu(cpu) else { return 0 };
        let before = c.idle_ns.load(Ordering::Relaxed);
        if !c.idle.load(Ordering::Relaxed) {
            return before;
        }
        before.saturating_add(machine.now_ns().saturating_sub(c.idle_since_ns.load(Ordering::Relaxed)))
    }

    /// Describes the queues for the debug key `r`.
    pub fn describe(&self, online: &CpuSet, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        for cpu in online.iter() {
            let Some(c) = self.cpu(cpu) else { continue };
            let queue = c.queue.lock();
            write!(out, "CPU{cpu}: idle={} queue:", c.idle.load(Ordering::Relaxed))?;
            for vcpu in queue.woken.iter().chain(&queue.waiting) {
                write!(out, " {}v{}", vcpu.domid, vcpu.id)?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

