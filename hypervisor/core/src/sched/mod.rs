//! The scheduler: which vCPU runs where. It works as users know Xen's credit scheduler, by weights and caps.
//!
//! Every processor has a queue of vCPUs that wait for it, best first ([`queue`]). What is best is told by credits ([`credit`]): running costs them, and
//! every time slice they are handed out anew by the domains' weights ([`accounting`], [`fair`]). A vCPU that wakes up with credits left is
//! boosted, goes first and takes the place of others. Processors take work from each other where they have none, or where better work waits
//! elsewhere than at home ([`balance`]).
//!
//! A vCPU's place ([`Placement`]) changes only under its own lock, so that it is in one queue or on one processor at most, and a wake-up is never lost:
//! whoever clears a stop reason looks at the place afterwards, and the processor that takes a vCPU off looks at the stop reasons afterwards.
//!
//! A processor needs no timer while nobody waits for it: slices end only where they matter.

mod accounting;
mod balance;
pub mod credit;
pub mod fair;
pub mod params;
pub mod queue;
#[cfg(test)]
mod tests;

use crate::vcpu::{Placement, Vcpu, stop};
use accounting::Accounts;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use core::sync::atomic::Ordering::Relaxed;
use credit::Rank;
use oxen_abi::vcpu::Runstate;
use oxen_hal::{Clock, Processors};
use oxen_sync::{SpinLock, level};
use oxen_types::{CpuId, CpuSet, MAX_CPUS};
use params::{Params, Times};
use queue::RunQueue;

/// Shortest slice in nanoseconds that is worth a timer: what a cap leaves may be less.
const MIN_SLICE_NS: u64 = 100_000;

/// Reasons for a processor to look at its pending work, in [`Scheduler::take_work`].
pub mod work {
    /// Choose again which vCPU runs.
    pub const RESCHEDULE: u32 = 1 << 0;
    /// Some timer's time has come.
    pub const TIMER: u32 = 1 << 1;
}

/// One processor's part. What is not the queue itself are copies for others to look at without its lock, and times.
#[derive(Debug)]
struct CpuQueue {
    queue: SpinLock<RunQueue<Arc<Vcpu>>, { level::RUN_QUEUE }>,
    nr_ready: AtomicU32,
    nr_parked: AtomicU32,
    /// The best waiting rank ([`Rank::to_word`]).
    best: AtomicI64,
    work: AtomicU32,
    /// System time at which it last became idle, and nanoseconds that it was idle before; written by the processor itself.
    idle_since_ns: AtomicU64,
    idle_ns: AtomicU64,
    /// Nanoseconds that vCPUs ran on it, as far as they have been paid for.
    used_ns: AtomicU64,
    /// Credits of the running vCPU when its slice began, whether it is boosted, and when that was.
    running: AtomicI64,
    running_boosted: AtomicBool,
    since_ns: AtomicU64,
    /// When its slice ends, and until when it is left alone although a better one waits (0 where none does).
    slice_end_ns: AtomicU64,
    spared_until_ns: AtomicU64,
    /// When it last looked for a better place for those that wait.
    pushed_ns: AtomicU64,
}

impl CpuQueue {
    fn new() -> Self {
        Self {
            queue: SpinLock::new(RunQueue::default()),
            nr_ready: AtomicU32::new(0),
            nr_parked: AtomicU32::new(0),
            best: AtomicI64::new(i64::MIN),
            work: AtomicU32::new(0),
            idle_since_ns: AtomicU64::new(0),
            idle_ns: AtomicU64::new(0),
            used_ns: AtomicU64::new(0),
            running: AtomicI64::new(i64::MIN),
            running_boosted: AtomicBool::new(false),
            since_ns: AtomicU64::new(0),
            slice_end_ns: AtomicU64::new(0),
            spared_until_ns: AtomicU64::new(0),
            pushed_ns: AtomicU64::new(0),
        }
    }

    fn has_ready(&self) -> bool {
        self.nr_ready.load(Ordering::SeqCst) != 0
    }

    fn best(&self) -> Rank {
        Rank::from_word(self.best.load(Relaxed))
    }

    /// The rank of the running vCPU as it is now that it has run for a while.
    fn running(&self, now_ns: u64) -> Rank {
        let ran = now_ns.saturating_sub(self.since_ns.load(Relaxed));
        Rank {
            boosted: self.running_boosted.load(Relaxed) && now_ns < self.slice_end_ns.load(Relaxed),
            balance_ns: self.running.load(Relaxed).saturating_sub_unsigned(ran),
        }
    }
}

/// The state of all processors' scheduling.
#[derive(Debug)]
pub struct Scheduler {
    cpus: Vec<CpuQueue>,
    /// Processors that run no vCPU.
    idle: CpuSet,
    /// Number of vCPUs that wait, on all processors.
    nr_ready: AtomicUsize,
    times: Times,
    accounts: Accounts,
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
        let idle = CpuSet::new();
        for n in 0..MAX_CPUS as u32 {
            idle.insert(CpuId(n));
        }
        Self {
            cpus: (0..MAX_CPUS).map(|_| CpuQueue::new()).collect(),
            idle,
            nr_ready: AtomicUsize::new(0),
            times: Times::new(Params::default()),
            accounts: Accounts::default(),
        }
    }

    /// The parameters.
    #[must_use]
    pub fn params(&self) -> Params {
        self.times.params()
    }

    /// Sets the parameters, which the caller has checked ([`Params::are_valid`]).
    pub fn set_params(&self, params: Params) {
        self.times.set(params);
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
        self.cpus.get(cpu.index()).is_some_and(|c| c.work.load(Relaxed) != 0)
    }

    /// Takes the pending work of the calling CPU.
    pub fn take_work(&self, cpu: CpuId) -> u32 {
        self.cpu(cpu).map_or(0, |c| c.work.swap(0, Ordering::SeqCst))
    }

    /// Makes `cpu` choose again.
    fn poke<M: Processors>(&self, machine: &M, cpu: CpuId) {
        self.add_work(cpu, work::RESCHEDULE);
        if cpu != machine.this_cpu() {
            machine.kick(cpu);
        }
    }

    /// Changes a queue, and what others are told of it.
    fn with_queue<T>(&self, cpu: &CpuQueue, change: impl FnOnce(&mut RunQueue<Arc<Vcpu>>) -> T) -> T {
        let mut queue = cpu.queue.lock();
        let before = queue.nr_ready();
        let result = change(&mut queue);
        let after = queue.nr_ready();
        cpu.nr_ready.store(after as u32, Ordering::SeqCst);
        cpu.nr_parked.store(queue.nr_parked() as u32, Relaxed);
        cpu.best.store(queue.best().map_or(i64::MIN, Rank::to_word), Relaxed);
        if after > before {
            self.nr_ready.fetch_add(after - before, Ordering::SeqCst);
        } else {
            self.nr_ready.fetch_sub(before - after, Ordering::SeqCst);
        }
        result
    }

    /// Makes a vCPU run if nothing keeps it from running: called by whoever took a stop reason away.
    pub fn wake<M: Processors + Clock>(&self, machine: &M, vcpu: &Arc<Vcpu>) {
        let now = machine.now_ns();
        self.account_if_due(machine, now);
        let mut place = vcpu.place.lock();
        let Placement::Off(last) = *place else { return };
        if !vcpu.is_runnable() {
            // It may still be paused, but have stopped waiting.
            let state = stopped_state(vcpu);
            let mut clock = vcpu.runstate.lock();
            if clock.info().state != state {
                clock.enter(state, now);
            }
            return;
        }
        let rank = {
            let mut credit = vcpu.credit.lock();
            if !credit.listed {
                credit.listed = true;
                self.accounts.enlist(vcpu);
            }
            credit.boosted = credit.balance_ns >= 0;
            credit.rank()
        };
        let cpu = self.choose_cpu(machine, vcpu, last);
        *place = Placement::Queued(cpu);
        let must_look = self.enqueue(now, cpu, vcpu, rank, false);
        drop(place);
        if must_look {
            self.poke(machine, cpu);
        }
    }

    /// Puts a vCPU that may run in a queue; its place says so already, and is locked. Returns whether that processor is to look at it at once.
    fn enqueue(&self, now: u64, cpu: CpuId, vcpu: &Arc<Vcpu>, rank: Rank, yielded: bool) -> bool {
        let Some(c) = self.cpu(cpu) else { return false };
        let parked = vcpu.share.is_exhausted();
        vcpu.runstate.lock().enter(if parked { Runstate::OFFLINE } else { Runstate::RUNNABLE }, now);
        let was_empty = self.with_queue(c, |queue| {
            let was_empty = queue.nr_ready() == 0;
            if parked {
                queue.park(vcpu.clone());
            } else {
                queue.insert(rank, vcpu.clone(), yielded);
            }
            was_empty
        });
        // The first that waits makes the processor's slices end; the first that is parked makes it look when the cap allows more.
        was_empty || rank.displaces(c.running(now), self.margin())
    }

    /// How far one vCPU must be ahead of another of its class to take its place.
    fn margin(&self) -> u64 {
        self.times.slice()
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

    /// Notes that the running vCPU gives up its turn.
    pub fn give_way(&self, cpu: CpuId, vcpu: &Vcpu) {
        if self.nr_ready.load(Relaxed) != 0 {
            vcpu.credit.lock().yielded = true;
            self.add_work(cpu, work::RESCHEDULE);
        }
    }

    /// Whether the vCPU that runs on `cpu` goes on, for the rest of its slice or for a new one; if not, it is to be put back and another one picked.
    pub fn goes_on<M: Processors + Clock>(&self, machine: &M, cpu: CpuId, vcpu: &Arc<Vcpu>) -> bool {
        let now = machine.now_ns();
        self.account_if_due(machine, now);
        let Some(c) = self.cpu(cpu) else { return false };
        if !vcpu.is_runnable() || !vcpu.may_run_on(cpu) {
            return false;
        }
        self.settle(vcpu, cpu, now);
        if vcpu.share.is_exhausted() {
            return false;
        }
        let over = now >= c.slice_end_ns.load(Relaxed);
        let (rank, yielded) = {
            let mut credit = vcpu.credit.lock();
            credit.boosted &= !over;
            (credit.rank(), core::mem::take(&mut credit.yielded))
        };
        if yielded && (c.has_ready() || self.waits_elsewhere(machine, cpu)) {
            vcpu.credit.lock().yielded = true;
            return false;
        }
        if !over {
            let better = c.has_ready() && c.best().displaces(rank, self.margin());
            let spared_until = c.since_ns.load(Relaxed).saturating_add(self.times.ratelimit());
            c.spared_until_ns.store(if better { spared_until } else { 0 }, Relaxed);
            return !better || now < spared_until;
        }
        let better_here = c.has_ready() && c.best() > rank;
        if better_here || self.better_elsewhere(machine, cpu, rank) {
            return false;
        }
        self.begin_slice(c, vcpu, now);
        true
    }

    fn begin_slice(&self, c: &CpuQueue, vcpu: &Vcpu, now: u64) {
        let rank = vcpu.credit.lock().rank();
        let usual = if rank.boosted {
            self.times.tick()
        } else if c.has_ready() {
            // It goes on until it is a tick behind the next one.
            let ahead = rank.balance_ns.saturating_sub(c.best().balance_ns);
            u64::try_from(ahead).unwrap_or(0).saturating_add(self.times.tick()).min(self.times.slice())
        } else {
            self.times.slice()
        };
        let length = match vcpu.share.budget() {
            None => usual,
            Some(left) => usual.min(u64::try_from(left).unwrap_or(0).max(MIN_SLICE_NS)),
        };
        c.running.store(rank.balance_ns, Relaxed);
        c.running_boosted.store(rank.boosted, Relaxed);
        c.since_ns.store(now, Relaxed);
        c.slice_end_ns.store(now.saturating_add(length), Relaxed);
        c.spared_until_ns.store(0, Relaxed);
    }

    /// The time at which `cpu` must choose again; `None` where nothing is to change by itself. `running` is the vCPU that it runs.
    #[must_use]
    pub fn next_choice(&self, cpu: CpuId, running: Option<&Arc<Vcpu>>) -> Option<u64> {
        let c = self.cpu(cpu)?;
        let parked = (c.nr_parked.load(Relaxed) != 0).then(|| self.accounts.next_ns());
        let Some(vcpu) = running else { return parked };
        let slice_end = (c.has_ready() || vcpu.share.cap() != 0).then(|| {
            let spared_until = c.spared_until_ns.load(Relaxed);
            let slice_end = c.slice_end_ns.load(Relaxed);
            if spared_until == 0 { slice_end } else { slice_end.min(spared_until) }
        });
        match (slice_end, parked) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Makes a vCPU pay for what it ran until now.
    fn settle(&self, vcpu: &Vcpu, cpu: CpuId, now: u64) {
        let ran = vcpu.runstate.lock().running_ns(now);
        let new = vcpu.credit.lock().settle(ran);
        vcpu.share.charge(new);
        if let Some(c) = self.cpu(cpu) {
            c.used_ns.fetch_add(new, Relaxed);
        }
    }

    /// Puts a vCPU that was just taken off `cpu` (its registers saved and given back) where it belongs: among those that wait where it may go
    /// on, nowhere where it is stopped. Where it may no longer run on `cpu` it moves to another processor.
    pub fn put_back<M: Processors + Clock>(&self, machine: &M, cpu: CpuId, vcpu: &Arc<Vcpu>) {
        let mut place = vcpu.place.lock();
        let now = machine.now_ns();
        self.settle(vcpu, cpu, now);
        let (rank, yielded) = {
            let mut credit = vcpu.credit.lock();
            credit.boosted = false;
            credit.last_ran_ns = now;
            (credit.rank(), core::mem::take(&mut credit.yielded))
        };
        if vcpu.is_runnable() {
            let to = if vcpu.may_run_on(cpu) { cpu } else { self.choose_cpu(machine, vcpu, cpu) };
            *place = Placement::Queued(to);
            let must_look = self.enqueue(now, to, vcpu, rank, yielded);
            if to != cpu && must_look {
                self.poke(machine, to);
            }
        } else {
            *place = Placement::Off(cpu);
            vcpu.runstate.lock().enter(stopped_state(vcpu), now);
        }
    }

    /// True where another vCPU waits for this processor.
    #[must_use]
    pub fn has_waiting(&self, cpu: CpuId) -> bool {
        self.cpu(cpu).is_some_and(CpuQueue::has_ready)
    }

    /// The next vCPU for `cpu`: the best of its own queue, or a better one of another's. `None` makes it idle.
    pub fn pick<M: Processors + Clock>(&self, machine: &M, cpu: CpuId) -> Option<Arc<Vcpu>> {
        let now = machine.now_ns();
        self.account_if_due(machine, now);
        let c = self.cpu(cpu)?;
        let picked = self.steal(machine, cpu).or_else(|| self.take_from(machine, cpu, cpu, |_, _| true));
        match &picked {
            Some(vcpu) => {
                self.set_idle(c, cpu, false, now);
                self.begin_slice(c, vcpu, now);
            }
            None => {
                c.running.store(i64::MIN, Relaxed);
                c.running_boosted.store(false, Relaxed);
                self.set_idle(c, cpu, true, now);
            }
        }
        if c.has_ready() {
            self.push(machine, cpu, now);
        }
        picked
    }

    /// Takes the best vCPU of a queue that may run on `to` and is `wanted`; `to` then is its place.
    fn take_from<M: Processors + Clock>(
        &self,
        machine: &M,
        from: CpuId,
        to: CpuId,
        wanted: impl Fn(Rank, &Vcpu) -> bool,
    ) -> Option<Arc<Vcpu>> {
        let c = self.cpu(from)?;
        while c.has_ready() {
            let vcpu = self.with_queue(c, |queue| queue.take_first(|rank, vcpu| self.may_take(machine, vcpu, from, to) && wanted(rank, vcpu)))?;
            let mut place = vcpu.place.lock();
            if *place != Placement::Queued(from) {
                continue;
            }
            let now = machine.now_ns();
            if !vcpu.is_runnable() {
                *place = Placement::Off(from);
                vcpu.runstate.lock().enter(stopped_state(&vcpu), now);
                continue;
            }
            if !vcpu.may_run_on(to) {
                // Its affinity changed since it was picked.
                let other = self.choose_cpu(machine, &vcpu, from);
                *place = Placement::Queued(other);
                let rank = vcpu.credit.lock().rank();
                if self.enqueue(now, other, &vcpu, rank, false) {
                    self.poke(machine, other);
                }
                continue;
            }
            *place = Placement::Running(to);
            vcpu.runstate.lock().enter(Runstate::RUNNING, now);
            drop(place);
            return Some(vcpu);
        }
        None
    }

    /// Takes a vCPU that is to stop out of its queue.
    pub fn unqueue<M: Clock>(&self, machine: &M, vcpu: &Arc<Vcpu>) {
        let mut place = vcpu.place.lock();
        if let Placement::Queued(cpu) = *place
            && !vcpu.is_runnable()
        {
            if let Some(c) = self.cpu(cpu) {
                self.with_queue(c, |queue| queue.remove(|v| Arc::ptr_eq(v, vcpu)));
            }
            *place = Placement::Off(cpu);
            vcpu.runstate.lock().enter(stopped_state(vcpu), machine.now_ns());
        }
    }

    fn set_idle(&self, c: &CpuQueue, cpu: CpuId, idle: bool, now: u64) {
        if idle {
            if self.idle.insert(cpu) {
                c.idle_since_ns.store(now, Relaxed);
            }
        } else if self.idle.contains(cpu) && self.idle.remove(cpu) {
            c.idle_ns.fetch_add(now.saturating_sub(c.idle_since_ns.load(Relaxed)), Relaxed);
        }
    }

    /// Nanoseconds that `cpu` has been idle in all.
    #[must_use]
    pub fn idle_ns<M: Clock>(&self, machine: &M, cpu: CpuId) -> u64 {
        self.cpu(cpu).map_or(0, |c| self.idle_at(c, cpu, machine.now_ns()))
    }

    fn idle_at(&self, c: &CpuQueue, cpu: CpuId, now: u64) -> u64 {
        let before = c.idle_ns.load(Relaxed);
        if !self.idle.contains(cpu) {
            return before;
        }
        before.saturating_add(now.saturating_sub(c.idle_since_ns.load(Relaxed)))
    }

    /// Describes the queues for the debug key `r`.
    pub fn describe(&self, online: &CpuSet, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        writeln!(out, "{:?}, {} waiting", self.params(), self.nr_ready.load(Relaxed))?;
        for cpu in online.iter() {
            let Some(c) = self.cpu(cpu) else { continue };
            let queue = c.queue.lock();
            write!(out, "CPU{cpu}: idle={} waiting:", self.idle.contains(cpu))?;
            for (rank, vcpu) in queue.ready() {
                write!(out, " {}v{} ({:?} {} us)", vcpu.domid, vcpu.id, rank.priority(), rank.balance_ns / 1000)?;
            }
            if queue.nr_parked() != 0 {
                write!(out, "; stopped by their caps:")?;
                for vcpu in queue.parked() {
                    write!(out, " {}v{}", vcpu.domid, vcpu.id)?;
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

/// The run state of a vCPU that is not runnable.
fn stopped_state(vcpu: &Vcpu) -> Runstate {
    if vcpu.stop_reasons() & (stop::BLOCKED | stop::POLLING) != 0 { Runstate::BLOCKED } else { Runstate::OFFLINE }
}
