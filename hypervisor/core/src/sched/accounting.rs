//! Handing out credits: every time slice, what the processors gave goes to the vCPUs that take part, by their domains' weights.
//!
//! What is handed out is what was used, plus what nobody used: so credits neither pile up nor run out, and who had less than his share
//! is ahead of who had more, until that has levelled out. A domain's weight is its own, however many vCPUs it has: its vCPUs divide it by what
//! each wants.

use super::Scheduler;
use super::fair::{Claim, Part, Set, divide};
use crate::vcpu::{Placement, Vcpu};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use oxen_abi::vcpu::Runstate;
use oxen_hal::{Clock, Processors};
use oxen_sync::{SpinLock, level};
use oxen_types::{CpuSet, DomId};

/// Most different sets of processors that are told apart; further ones count as all processors.
const MAX_SETS: usize = 16;
/// Credits reach at most this many slices up and down.
const MAX_SLICES: u64 = 10;
/// Fraction of its distance from zero by which the average of those that compete moves there at each accounting.
const DRIFT: i64 = 8;
/// Bits by which weights are scaled, so that a domain's can be divided.
const WEIGHT_SHIFT: u32 = 20;

/// Who takes part, and when accounts were made last.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    /// Held while accounts are made. A processor that finds it taken leaves the work to the other.
    books: SpinLock<Books, { level::RUN_QUEUE - 2 }>,
    newcomers: SpinLock<Vec<Weak<Vcpu>>, { level::RUN_QUEUE + 2 }>,
    next_ns: AtomicU64,
}

#[derive(Debug, Default)]
struct Books {
    vcpus: Vec<Weak<Vcpu>>,
    last_ns: u64,
    /// Used and idle time of each processor at the last accounting.
    given_ns: Vec<u64>,
}

/// One that takes part in this accounting.
struct Member {
    vcpu: Arc<Vcpu>,
    wanted_ns: u64,
    /// What its domain's cap allows all its vCPUs together.
    domain_limit_ns: u64,
    set: usize,
}

impl Accounts {
    /// Lets a vCPU take part from now on.
    pub fn enlist(&self, vcpu: &Arc<Vcpu>) {
        self.newcomers.lock().push(Arc::downgrade(vcpu));
    }

    /// When accounts are made next, if anybody looks.
    pub fn next_ns(&self) -> u64 {
        self.next_ns.load(Relaxed)
    }
}

impl Scheduler {
    /// Makes the accounts where it is time for it. The caller holds no lock of the scheduler's.
    #[inline]
    pub(super) fn account_if_due<M: Processors + Clock>(&self, machine: &M, now: u64) {
        if now >= self.accounts.next_ns() {
            self.account(machine, now);
        }
    }

    #[cold]
    fn account<M: Processors + Clock>(&self, machine: &M, now: u64) {
        let Some(mut books) = self.accounts.books.try_lock() else { return };
        if now < self.accounts.next_ns() {
            return;
        }
        self.accounts.next_ns.store(now.saturating_add(self.times.slice()), Relaxed);
        let elapsed = now.saturating_sub(core::mem::replace(&mut books.last_ns, now));
        books.vcpus.append(&mut self.accounts.newcomers.lock());
        let mut sets = Vec::new();
        let members = self.members(&mut books, &mut sets, elapsed, now);
        self.fill_capacities(machine, &mut books, &mut sets, elapsed, now);
        let claims = claims(&members);
        let parts = divide(&claims, &sets);
        self.hand_out(&members, &parts, sets.len());
        drop(members);
        self.refresh_queues(machine, now);
    }

    /// Who takes part, with what each wants. Those who sleep and have all that they may save are left out from now on.
    fn members(&self, books: &mut Books, sets: &mut Vec<Set>, elapsed: u64, now: u64) -> Vec<Member> {
        let slice = self.times.slice();
        sets.push(Set { cpus: everywhere(), capacity_ns: 0 });
        let mut members = Vec::with_capacity(books.vcpus.len());
        books.vcpus.retain(|weak| {
            let Some(vcpu) = weak.upgrade() else { return false };
            let place = *vcpu.place.lock();
            self.settle(&vcpu, place.cpu(), now);
            let allowance = vcpu.share.refill(now, slice);
            let times = vcpu.runstate.lock().info_at(now).time;
            let of = |state: Runstate| times.get(state.raw() as usize).copied().unwrap_or(0);
            let mut credit = vcpu.credit.lock();
            let demand = credit.take_demand(of(Runstate::RUNNING).saturating_add(of(Runstate::RUNNABLE)));
            let missing = u64::try_from(i64::try_from(slice).unwrap_or(i64::MAX).saturating_sub(credit.balance_ns)).unwrap_or(0);
            let wanted_ns = demand.max(missing).min(elapsed);
            let domain_limit_ns = allowance.map_or(u64::MAX, |allowed| allowed.saturating_mul(elapsed) / slice.max(1));
            let asleep = matches!(place, Placement::Off(_)) && demand == 0;
            if asleep && (missing == 0 || !vcpu.is_up()) {
                credit.listed = false;
                return false;
            }
            drop(credit);
            let set = set_of(sets, &vcpu.hard_affinity.lock());
            members.push(Member { vcpu, wanted_ns, domain_limit_ns, set });
            true
        });
        members
    }

    /// What the processors of each set gave since the last accounting, used or not.
    fn fill_capacities<M: Processors>(&self, machine: &M, books: &mut Books, sets: &mut [Set], elapsed: u64, now: u64) {
        books.given_ns.resize(self.cpus.len(), 0);
        for cpu in machine.online().iter() {
            let (Some(c), Some(before)) = (self.cpu(cpu), books.given_ns.get_mut(cpu.index())) else { continue };
            let total = c.used_ns.load(Relaxed).saturating_add(self.idle_at(c, cpu, now));
            let given = total.saturating_sub(core::mem::replace(before, total)).min(elapsed);
            for set in sets.iter_mut().filter(|set| set.cpus.contains(cpu)) {
                set.capacity_ns = set.capacity_ns.saturating_add(given);
            }
        }
    }

    /// Adds the parts to the credits. Those that compete (had less than they wanted) are moved together so that their average comes near zero:
    /// UNDER and OVER then mean having had less or more than the others.
    fn hand_out(&self, members: &[Member], parts: &[Part], nr_sets: usize) {
        let limit = self.times.slice().saturating_mul(MAX_SLICES);
        let mut sums = alloc::vec![(0_i64, 0_i64); nr_sets];
        for (member, part) in members.iter().zip(parts) {
            let mut credit = member.vcpu.credit.lock();
            credit.add(i64::try_from(part.given_ns).unwrap_or(i64::MAX), limit);
            if let Some((sum, count)) = part.short_in.and_then(|set| sums.get_mut(set)) {
                *sum = sum.saturating_add(credit.balance_ns);
                *count += 1;
            }
        }
        for (member, part) in members.iter().zip(parts) {
            if let Some(&(sum, count)) = part.short_in.and_then(|set| sums.get(set)) {
                member.vcpu.credit.lock().add(-(sum / count.max(1) / DRIFT), limit);
            }
        }
    }

    /// Orders the queues by the new credits, and lets those wait again whose caps allow it.
    fn refresh_queues<M: Processors + Clock>(&self, machine: &M, now: u64) {
        for cpu in machine.online().iter() {
            let Some(c) = self.cpu(cpu) else { continue };
            if !c.has_ready() && c.nr_parked.load(Relaxed) == 0 {
                continue;
            }
            let let_go = self.with_queue(c, |queue| {
                queue.refresh(
                    |vcpu| vcpu.credit.lock().rank(),
                    |vcpu| {
                        let free = !vcpu.share.is_exhausted();
                        if free {
                            vcpu.runstate.lock().enter(Runstate::RUNNABLE, now);
                        }
                        free
                    },
                )
            });
            if let_go {
                self.poke(machine, cpu);
                self.push_to_free(machine, cpu);
            }
        }
    }
}

/// The set of processors of an affinity; 0 is all of them.
fn set_of(sets: &mut Vec<Set>, cpus: &CpuSet) -> usize {
    if let Some(index) = sets.iter().position(|set| set.cpus.iter().eq(cpus.iter())) {
        return index;
    }
    if sets.len() >= MAX_SETS {
        return 0;
    }
    sets.push(Set { cpus: cpus.clone(), capacity_ns: 0 });
    sets.len() - 1
}

fn everywhere() -> CpuSet {
    let set = CpuSet::new();
    for n in 0..oxen_types::MAX_CPUS as u32 {
        set.insert(oxen_types::CpuId(n));
    }
    set
}

/// The claims of the members: a domain's weight is divided among its vCPUs by what they want.
fn claims(members: &[Member]) -> Vec<Claim> {
    let mut wanted: alloc::collections::BTreeMap<DomId, u64> = alloc::collections::BTreeMap::new();
    for member in members {
        let sum = wanted.entry(member.vcpu.domid).or_default();
        *sum = sum.saturating_add(member.wanted_ns);
    }
    members
        .iter()
        .map(|member| {
            let all = wanted.get(&member.vcpu.domid).copied().unwrap_or(0).max(1);
            let weight = u128::from(member.vcpu.share.weight()) << WEIGHT_SHIFT;
            let own = weight * u128::from(member.wanted_ns) / u128::from(all);
            let limited = u128::from(member.domain_limit_ns) * u128::from(member.wanted_ns) / u128::from(all);
            let wanted_ns = member.wanted_ns.min(u64::try_from(limited).unwrap_or(u64::MAX));
            Claim { weight: u64::try_from(own).unwrap_or(u64::MAX).max(1), wanted_ns, set: member.set }
        })
        .collect()
}
