//! Which processor: where a vCPU goes that wakes up, and how processors take work from each other and pass it on.

use super::Scheduler;
use super::credit::Rank;
use crate::vcpu::{Placement, Vcpu};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use oxen_hal::{Clock, Processors};
use oxen_types::CpuId;

impl Scheduler {
    /// True where a processor has nothing to do.
    fn is_free(&self, cpu: CpuId) -> bool {
        self.idle.contains(cpu) && self.cpu(cpu).is_some_and(|c| !c.has_ready())
    }

    /// The processor for a vCPU that wakes up: a free one, among these rather one that it prefers, and rather the last one it was on. Where
    /// none is free it is the last one, or that whose running vCPU is the least urgent where the last one may not run it.
    pub(super) fn choose_cpu<M: Processors + Clock>(&self, machine: &M, vcpu: &Vcpu, last: CpuId) -> CpuId {
        let online = machine.online();
        let last_usable = online.contains(last) && vcpu.may_run_on(last);
        if last_usable && self.is_free(last) && vcpu.prefers(last) {
            return last;
        }
        let allowed = vcpu.hard_affinity.lock().clone();
        let usable = || online.iter().filter(|&cpu| allowed.contains(cpu));
        let mut first_free = None;
        for cpu in usable().filter(|&cpu| self.is_free(cpu)) {
            if vcpu.prefers(cpu) {
                return cpu;
            }
            first_free = first_free.or(Some(cpu));
        }
        if last_usable && (self.is_free(last) || first_free.is_none()) {
            return last;
        }
        let now = machine.now_ns();
        let running = |cpu: &CpuId| self.cpu(*cpu).map(|c| c.running(now).max(c.best()));
        first_free.or_else(|| usable().min_by_key(running)).unwrap_or(CpuId(0))
    }

    /// True where `to` may take a vCPU out of the queue of `from`.
    pub(super) fn may_take<M: Clock>(&self, machine: &M, vcpu: &Vcpu, from: CpuId, to: CpuId) -> bool {
        if from == to {
            return true;
        }
        let delay = self.times.migration_delay();
        vcpu.may_run_on(to) && (delay == 0 || machine.now_ns().saturating_sub(vcpu.credit.lock().last_ran_ns) >= delay)
    }

    /// True where vCPUs wait for other processors.
    pub(super) fn waits_elsewhere<M: Processors>(&self, machine: &M, cpu: CpuId) -> bool {
        self.waiting_elsewhere(machine, cpu).next().is_some()
    }

    fn waiting_elsewhere<'a, M: Processors>(&'a self, machine: &'a M, cpu: CpuId) -> impl Iterator<Item = (Rank, CpuId)> + 'a {
        let any = self.nr_ready.load(Relaxed) != 0;
        let others = machine.online().iter().filter(move |&other| any && other != cpu);
        others.filter_map(|other| self.cpu(other).filter(|c| c.has_ready()).map(|c| (c.best(), other)))
    }

    /// True where one that waits for another processor should rather run on this one than a vCPU of rank `rank`.
    pub(super) fn better_elsewhere<M: Processors>(&self, machine: &M, cpu: CpuId, rank: Rank) -> bool {
        self.waiting_elsewhere(machine, cpu).any(|(best, _)| best.displaces(rank, self.margin()))
    }

    /// Takes a vCPU from another processor's queue, where this one has none or only worse ones.
    pub(super) fn steal<M: Processors + Clock>(&self, machine: &M, cpu: CpuId) -> Option<Arc<Vcpu>> {
        let own = self.cpu(cpu)?;
        let own_count = own.nr_ready.load(Relaxed) as usize;
        if self.nr_ready.load(Relaxed) == own_count {
            return None;
        }
        let own_best = if own_count == 0 { Rank::LOWEST } else { own.best() };
        let mut peers: Vec<(Rank, CpuId)> =
            self.waiting_elsewhere(machine, cpu).filter(|(best, _)| own_count == 0 || best.displaces(own_best, self.margin())).collect();
        peers.sort_by_key(|(best, _)| core::cmp::Reverse(*best));
        let better = |rank: Rank| own_count == 0 || rank.displaces(own_best, self.margin());
        // First those that prefer this processor.
        let preferred = |rank, vcpu: &Vcpu| better(rank) && vcpu.prefers(cpu);
        peers.iter().find_map(|&(_, peer)| self.take_from(machine, peer, cpu, preferred)).or_else(|| {
            peers.iter().find_map(|&(_, peer)| self.take_from(machine, peer, cpu, |rank, _| better(rank)))
        })
    }

    /// Moves those that wait for `cpu` to free processors.
    pub(super) fn push_to_free<M: Processors + Clock>(&self, machine: &M, cpu: CpuId) {
        let Some(c) = self.cpu(cpu) else { return };
        let free = || machine.online().iter().filter(|&to| to != cpu && self.is_free(to));
        if free().next().is_none() {
            return;
        }
        let waiting: Vec<Arc<Vcpu>> = c.queue.lock().ready().map(|(_, vcpu)| vcpu.clone()).collect();
        // Where it is free itself, the first one stays.
        for vcpu in waiting.into_iter().skip(self.idle.contains(cpu).into()) {
            if let Some(to) = free().find(|&to| self.may_take(machine, &vcpu, cpu, to)) {
                self.move_waiting(machine, &vcpu, cpu, to);
            }
        }
    }

    /// Finds a better place for those that wait for `cpu`: free processors first; now and then also ones that run something less urgent.
    pub(super) fn push<M: Processors + Clock>(&self, machine: &M, cpu: CpuId, now: u64) {
        let Some(c) = self.cpu(cpu) else { return };
        self.push_to_free(machine, cpu);
        if now.saturating_sub(c.pushed_ns.load(Relaxed)) < self.times.tick() {
            return;
        }
        c.pushed_ns.store(now, Relaxed);
        let Some((rank, vcpu)) = c.queue.lock().ready().next().map(|(rank, vcpu)| (rank, vcpu.clone())) else { return };
        let others = machine.online().iter().filter(|&to| to != cpu && self.may_take(machine, &vcpu, cpu, to));
        let least = others.filter_map(|to| self.cpu(to).map(|other| (other.running(now).max(other.best()), to))).min();
        if let Some((other, to)) = least
            && rank.displaces(other, self.margin())
        {
            self.move_waiting(machine, &vcpu, cpu, to);
        }
    }

    /// Moves a waiting vCPU to another queue, where it still waits in the one named.
    fn move_waiting<M: Processors + Clock>(&self, machine: &M, vcpu: &Arc<Vcpu>, from: CpuId, to: CpuId) {
        let mut place = vcpu.place.lock();
        if *place != Placement::Queued(from) {
            return;
        }
        // Where it is in no queue, a processor has just picked it.
        let Some(c) = self.cpu(from) else { return };
        if !self.with_queue(c, |queue| queue.remove(|v| Arc::ptr_eq(v, vcpu))) {
            return;
        }
        *place = Placement::Queued(to);
        let rank = vcpu.credit.lock().rank();
        if self.enqueue(machine.now_ns(), to, vcpu, rank, false) {
            self.poke(machine, to);
        }
    }

    /// Makes a changed hard affinity hold: a vCPU that waits for a processor on which it may no longer run waits for another one, and a processor that
    /// runs it gives it up soon. One that waits moves to a free processor that it may use now.
    pub fn affinity_changed<M: Processors + Clock>(&self, machine: &M, vcpu: &Arc<Vcpu>) {
        let place = *vcpu.place.lock();
        match place {
            Placement::Queued(cpu) => {
                let to = self.choose_cpu(machine, vcpu, cpu);
                if to != cpu {
                    self.move_waiting(machine, vcpu, cpu, to);
                }
            }
            Placement::Running(cpu) if !vcpu.may_run_on(cpu) => self.poke(machine, cpu),
            _ => {}
        }
    }
}
