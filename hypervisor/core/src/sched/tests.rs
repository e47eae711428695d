//! The scheduler under a clock that the test moves: guests that compute all the time or in bursts, on a few processors. After every step, no vCPU is in
//! two places, and no processor is idle while one waits that may run there.

use super::fair::{Claim, Set, divide};
use super::stopped_state;
use crate::domain::{Domain, DomainSpec, Privileges};
use crate::vcpu::{Placement, Vcpu, stop};
use crate::{Config, Hypervisor};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU8;
use oxen_abi::vcpu::Runstate;
use oxen_hal::Clock;
use oxen_mm::Mm;
use oxen_testkit::{FakeMachine, Rng};
use oxen_types::{CpuId, CpuSet, DomId, Mfn, VcpuId};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
/// Time that goes by before something is measured.
const WARM_UP: u64 = SECOND;
/// Time over which shares are measured.
const MEASURED: u64 = 10 * SECOND;
/// By how much a share may be off, in thousandths of itself.
const TOLERANCE: u64 = 20;

/// What a vCPU does.
#[derive(Clone, Copy, Debug)]
enum Habit {
    Computes,
    /// Runs for about so long, then waits for about so long.
    Bursts { run_ns: u64, wait_ns: u64 },
}

struct Worker {
    vcpu: Arc<Vcpu>,
    habit: Habit,
    /// Running time at which its burst is over.
    burst_end_ns: u64,
    /// When it wakes up.
    wakes_at_ns: Option<u64>,
}

struct Simulation {
    machine: &'static FakeMachine,
    hv: Hypervisor<FakeMachine>,
    rng: Rng,
    on_cpu: Vec<Option<Arc<Vcpu>>>,
    timers: Vec<Option<u64>>,
    workers: Vec<Worker>,
    nr_domains: u16,
}

fn cpu_set(cpus: &[u32]) -> CpuSet {
    let set = CpuSet::new();
    for &n in cpus {
        set.insert(CpuId(n));
    }
    set
}

impl Simulation {
    fn new(nr_cpus: u32, seed: u64) -> Self {
        let config = oxen_testkit::Config { frames: 512, cpus: nr_cpus, ..oxen_testkit::Config::default() };
        let machine = FakeMachine::new(config);
        let memory = Mm::new(machine);
        memory.add_range(Mfn(0), 512);
        let region = Box::leak((0..4096).map(|_| AtomicU8::new(0)).collect());
        let hv = Hypervisor::new(machine, memory, Config::default(), crate::console::Ring::in_region(region).0);
        let count = nr_cpus as usize;
        Self {
            machine,
            hv,
            rng: Rng::new(seed),
            on_cpu: (0..count).map(|_| None).collect(),
            timers: (0..count).map(|_| None).collect(),
            workers: Vec::new(),
            nr_domains: 0,
        }
    }

    /// Adds a domain whose vCPUs all do the same.
    fn guest(&mut self, habit: Habit, nr_vcpus: u32, weight: u16, cap: u16) -> Arc<Domain> {
        let id = DomId(self.nr_domains);
        self.nr_domains += 1;
        let domain = self.hv.add_domain(&DomainSpec::new(id, Privileges::default(), nr_vcpus)).unwrap();
        self.hv.add_vcpus(&domain, false);
        domain.share.set_weight(weight);
        domain.share.set_cap(cap, self.machine.now_ns());
        for vcpu in domain.vcpus() {
            vcpu.unstop(stop::DOWN);
            let burst_end_ns = self.burst(habit).0;
            self.workers.push(Worker { vcpu: vcpu.clone(), habit, burst_end_ns, wakes_at_ns: None });
            self.hv.sched.wake(self.machine, vcpu);
        }
        domain
    }

    fn pin(&self, domain: &Domain, cpus: &[u32]) {
        for vcpu in domain.vcpus() {
            *vcpu.hard_affinity.lock() = cpu_set(cpus);
            self.hv.sched.affinity_changed(self.machine, vcpu);
        }
    }

    fn burst(&mut self, habit: Habit) -> (u64, u64) {
        match habit {
            Habit::Computes => (u64::MAX, 0),
            Habit::Bursts { run_ns, wait_ns } => {
                let mut about = |ns: u64| ns / 2 + self.rng.below(ns.max(1)) + 1;
                (about(run_ns), about(wait_ns))
            }
        }
    }

    fn ran(&self, vcpu: &Vcpu) -> u64 {
        vcpu.runstate.lock().running_ns(self.machine.now_ns())
    }

    fn domain_ran(&self, domain: &Domain) -> u64 {
        domain.vcpus().map(|vcpu| self.ran(vcpu)).sum()
    }

    /// Does what a processor does when it has work: chooses anew, and sets its timer.
    fn choose(&mut self, cpu: u32) {
        let (sched, machine, id) = (&self.hv.sched, self.machine, CpuId(cpu));
        let place = &mut self.on_cpu[cpu as usize];
        let timer = &mut self.timers[cpu as usize];
        machine.on_cpu(cpu, || {
            if !place.as_ref().is_some_and(|vcpu| sched.goes_on(machine, id, vcpu)) {
                if let Some(vcpu) = place.take() {
                    sched.put_back(machine, id, &vcpu);
                }
                *place = sched.pick(machine, id);
            }
            *timer = sched.next_choice(id, place.as_ref());
        });
    }

    /// Lets all processors do their work, in turn, until none has any.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 1000, "the processors never come to rest: {}", self.describe());
            let mut any = false;
            for cpu in 0..self.on_cpu.len() as u32 {
                let stopped = self.on_cpu[cpu as usize].as_ref().is_some_and(|vcpu| !vcpu.is_runnable());
                if self.hv.sched.take_work(CpuId(cpu)) != 0 || stopped {
                    any = true;
                    self.choose(cpu);
                }
            }
            if !any {
                break;
            }
        }
        self.machine.take_events();
        self.check();
    }

    fn describe(&self) -> alloc::string::String {
        let mut text = alloc::string::String::new();
        self.hv.sched.describe(&cpu_set(&(0..self.on_cpu.len() as u32).collect::<Vec<_>>()), &mut text).unwrap();
        text
    }

    fn check(&self) {
        let nr_cpus = self.on_cpu.len() as u32;
        let mut nr_ready = 0;
        for worker in &self.workers {
            let vcpu = &worker.vcpu;
            let mut places = Vec::new();
            let mut parked = false;
            for cpu in (0..nr_cpus).map(CpuId) {
                let queue = self.hv.sched.cpus[cpu.index()].queue.lock();
                places.extend(queue.ready().filter(|(_, v)| Arc::ptr_eq(v, vcpu)).map(|_| Placement::Queued(cpu)));
                nr_ready += queue.ready().filter(|(_, v)| Arc::ptr_eq(v, vcpu)).count();
                let here = queue.parked().filter(|v| Arc::ptr_eq(v, vcpu)).count();
                parked |= here != 0;
                places.extend((0..here).map(|_| Placement::Queued(cpu)));
                if self.on_cpu[cpu.index()].as_ref().is_some_and(|v| Arc::ptr_eq(v, vcpu)) {
                    places.push(Placement::Running(cpu));
                }
            }
            let place = *vcpu.place.lock();
            let state = vcpu.runstate.lock().info().state;
            match place {
                Placement::Off(_) => assert!(places.is_empty() && !vcpu.is_runnable() && state == stopped_state(vcpu)),
                _ => assert_eq!(places, [place], "{}", self.describe()),
            }
            let waits = matches!(place, Placement::Queued(_)) && !parked;
            match place {
                Placement::Running(cpu) => assert!(state == Runstate::RUNNING && vcpu.may_run_on(cpu)),
                Placement::Queued(_) => assert_eq!(state, if parked { Runstate::OFFLINE } else { Runstate::RUNNABLE }),
                Placement::Off(_) => {}
            }
            for cpu in (0..nr_cpus).map(CpuId) {
                assert!(!waits || !vcpu.may_run_on(cpu) || self.on_cpu[cpu.index()].is_some(), "idle {cpu:?}: {}", self.describe());
            }
        }
        assert_eq!(self.hv.sched.nr_ready.load(super::Relaxed), nr_ready);
    }

    /// The next time at which something happens.
    fn next_event(&self) -> u64 {
        let now = self.machine.now_ns();
        let timers = self.timers.iter().flatten().copied();
        let wakes = self.workers.iter().filter_map(|w| w.wakes_at_ns);
        let running = self.workers.iter().filter(|w| matches!(*w.vcpu.place.lock(), Placement::Running(_)));
        let ends = running.map(|w| now.saturating_add(w.burst_end_ns.saturating_sub(self.ran(&w.vcpu))));
        timers.chain(wakes).chain(ends).min().unwrap_or(u64::MAX).max(now)
    }

    /// Lets time go by.
    fn run(&mut self, ns: u64) {
        let end = self.machine.now_ns() + ns;
        self.settle();
        loop {
            let next = self.next_event().min(end);
            self.machine.advance_ns(next - self.machine.now_ns());
            self.events(next);
            self.settle();
            if next >= end {
                return;
            }
        }
    }

    fn events(&mut self, now: u64) {
        for cpu in 0..self.timers.len() {
            if self.timers[cpu].is_some_and(|at| at <= now) {
                self.timers[cpu] = None;
                self.hv.sched.add_work(CpuId(cpu as u32), super::work::RESCHEDULE);
            }
        }
        for index in 0..self.workers.len() {
            let vcpu = self.workers[index].vcpu.clone();
            let ran = self.ran(&vcpu);
            if self.workers[index].wakes_at_ns.is_some_and(|at| at <= now) {
                let (run, _) = self.burst(self.workers[index].habit);
                self.workers[index].burst_end_ns = ran.saturating_add(run);
                self.workers[index].wakes_at_ns = None;
                vcpu.unstop(stop::BLOCKED);
                let from = self.rng.below(self.on_cpu.len() as u64) as u32;
                self.machine.on_cpu(from, || self.hv.sched.wake(self.machine, &vcpu));
            } else if matches!(*vcpu.place.lock(), Placement::Running(_)) && ran >= self.workers[index].burst_end_ns {
                let (_, wait) = self.burst(self.workers[index].habit);
                self.workers[index].wakes_at_ns = Some(now + wait);
                vcpu.stop(stop::BLOCKED);
            }
        }
    }

    /// What each domain ran in a measurement after a warm-up.
    fn measure(&mut self, domains: &[Arc<Domain>]) -> Vec<u64> {
        self.run(WARM_UP);
        let before: Vec<u64> = domains.iter().map(|d| self.domain_ran(d)).collect();
        self.run(MEASURED);
        domains.iter().zip(before).map(|(d, before)| self.domain_ran(d) - before).collect()
    }
}

fn is_close(measured: u64, expected: u64) -> bool {
    measured.abs_diff(expected) * 1000 / expected.max(1) <= TOLERANCE
}

fn assert_close(what: &str, measured: u64, expected: u64) {
    assert!(is_close(measured, expected), "{what}: {} ms instead of {} ms", measured / MS, expected / MS);
}

#[test]
fn eight_guests_on_two_processors_get_their_weights() {
    let mut simulation = Simulation::new(2, 1);
    let weights = [256, 256, 256, 256, 512, 512, 1024, 128];
    let domains: Vec<_> = weights.iter().map(|&w| simulation.guest(Habit::Computes, 1, w, 0)).collect();
    let ran = simulation.measure(&domains);
    let all: u64 = weights.iter().map(|&w| u64::from(w)).sum();
    for (weight, ran) in weights.iter().zip(ran) {
        assert_close("guest", ran, 2 * MEASURED * u64::from(*weight) / all);
    }
}

/// The ideal division for guests that compute all the time.
fn ideal(weights: &[u64], wanted: &[u64], nr_cpus: u32) -> Vec<u64> {
    let cpus = cpu_set(&(0..nr_cpus).collect::<Vec<_>>());
    let sets = [Set { cpus, capacity_ns: MEASURED * u64::from(nr_cpus) }];
    let claims: Vec<Claim> = weights.iter().zip(wanted).map(|(&weight, &wanted_ns)| Claim { weight, wanted_ns, set: 0 }).collect();
    divide(&claims, &sets).iter().map(|part| part.given_ns).collect()
}

#[test]
fn random_weights_and_caps_hold() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let nr_cpus = 1 + rng.below(4) as u32;
        let mut simulation = Simulation::new(nr_cpus, seed);
        let count = 2 + rng.below(9);
        let guests: Vec<(u64, u64, u32)> = (0..count)
            .map(|_| {
                let cap = if rng.below(3) == 0 { 5 + rng.below(150) } else { 0 };
                (64 << rng.below(5), cap, 1 + rng.below(3) as u32)
            })
            .collect();
        let domains: Vec<_> = guests
            .iter()
            .map(|&(weight, cap, vcpus)| simulation.guest(Habit::Computes, vcpus, weight as u16, cap as u16))
            .collect();
        let wanted: Vec<u64> = guests
            .iter()
            .map(|&(_, cap, vcpus)| {
                let all = MEASURED * u64::from(vcpus.min(nr_cpus));
                if cap == 0 { all } else { all.min(MEASURED * cap / 100) }
            })
            .collect();
        let weights: Vec<u64> = guests.iter().map(|g| g.0).collect();
        let expected = ideal(&weights, &wanted, nr_cpus);
        let ran = simulation.measure(&domains);
        for ((guest, ran), expected) in guests.iter().zip(ran).zip(expected) {
            // A small share is a few slices, which cannot be divided.
            let near = is_close(ran, expected) || ran.abs_diff(expected) < 30 * MS;
            assert!(near, "seed {seed}, {nr_cpus} CPUs, {guest:?} of {guests:?}: {} ms instead of {} ms", ran / MS, expected / MS);
        }
    }
}

#[test]
fn extreme_weights_hold() {
    let mut simulation = Simulation::new(2, 3);
    let weights = [65535, 655, 655];
    let domains: Vec<_> = weights.iter().map(|&w| simulation.guest(Habit::Computes, 1, w, 0)).collect();
    let ran = simulation.measure(&domains);
    for (ran, expected) in ran.iter().zip([MEASURED, MEASURED / 2, MEASURED / 2]) {
        assert_close("guest", *ran, expected);
    }
}

#[test]
fn guests_tied_to_one_processor_share_it_by_weight() {
    let mut simulation = Simulation::new(2, 4);
    let dom0 = simulation.guest(Habit::Bursts { run_ns: MS, wait_ns: 9 * MS }, 2, 256, 0);
    let light = simulation.guest(Habit::Computes, 1, 256, 0);
    let heavy = simulation.guest(Habit::Computes, 1, 512, 0);
    simulation.pin(&light, &[1]);
    simulation.pin(&heavy, &[1]);
    let ran = simulation.measure(&[dom0, light, heavy]);
    assert!(ran[1] + ran[2] > MEASURED * 9 / 10);
    assert_close("heavy to light", ran[2], 2 * ran[1]);
}

#[test]
fn a_cap_holds_on_an_idle_machine() {
    for cap in [1, 10, 50, 90, 150] {
        let mut simulation = Simulation::new(2, 5);
        let domain = simulation.guest(Habit::Computes, 2, 256, cap);
        let ran = simulation.measure(&[domain]);
        assert_close(&alloc::format!("cap {cap}"), ran[0], MEASURED * u64::from(cap) / 100);
    }
}

/// One that sleeps a lot gets a processor soon, although others compute all the time.
#[test]
fn who_wakes_up_goes_first() {
    let mut simulation = Simulation::new(1, 6);
    let sleeper = simulation.guest(Habit::Bursts { run_ns: MS / 5, wait_ns: 10 * MS }, 1, 256, 0);
    let others: Vec<_> = (0..4).map(|_| simulation.guest(Habit::Computes, 1, 256, 0)).collect();
    simulation.run(WARM_UP + MEASURED);
    let vcpu = sleeper.vcpu(VcpuId(0)).unwrap();
    let times = vcpu.runstate.lock().info_at(simulation.machine.now_ns()).time;
    let waited = times[Runstate::RUNNABLE.raw() as usize];
    // About one wake-up in 10 ms, each waiting for no longer than the rate limit.
    assert!(waited < (WARM_UP + MEASURED) / 10, "waited {} ms", waited / MS);
    let each = simulation.domain_ran(&others[0]);
    assert!(others.iter().all(|d| simulation.domain_ran(d).abs_diff(each) < SECOND / 10));
}

/// Everything at once: guests of all kinds that come to rest and start again, with changing weights, caps and affinities. The invariants are checked at
/// each step.
#[test]
fn holds_together_under_random_loads() {
    for seed in 100..130 {
        let mut rng = Rng::new(seed);
        let nr_cpus = 1 + rng.below(4) as u32;
        let mut simulation = Simulation::new(nr_cpus, seed);
        let mut domains = Vec::new();
        for _ in 0..2 + rng.below(6) {
            let habit = match rng.below(3) {
                0 => Habit::Computes,
                _ => Habit::Bursts { run_ns: 1 + rng.below(40 * MS), wait_ns: 1 + rng.below(40 * MS) },
            };
            domains.push(simulation.guest(habit, 1 + rng.below(4) as u32, 1 + rng.below(65535) as u16, rng.below(200) as u16));
        }
        for _ in 0..40 {
            simulation.run(rng.below(100 * MS));
            let domain = &domains[rng.below(domains.len() as u64) as usize];
            match rng.below(6) {
                0 => {
                    let first = rng.below(nr_cpus.into()) as u32;
                    let last = first + rng.below(u64::from(nr_cpus - first)) as u32;
                    simulation.pin(domain, &(first..=last).collect::<Vec<_>>());
                }
                1 => domain.share.set_weight(1 + rng.below(65535) as u16),
                2 => {
                    domain.share.set_cap(rng.below(200) as u16, simulation.machine.now_ns());
                    domain.vcpus().for_each(|vcpu| simulation.hv.reschedule(vcpu));
                }
                3 => set_paused(&simulation.hv, domain, true),
                4 => set_paused(&simulation.hv, domain, false),
                _ => {
                    let vcpu = domain.vcpu(VcpuId(0)).unwrap();
                    if let Placement::Running(cpu) = *vcpu.place.lock() {
                        simulation.hv.sched.give_way(cpu, vcpu);
                    }
                }
            }
            simulation.settle();
        }
    }
}

/// Pauses without waiting, as the simulated processors move on only afterwards.
fn set_paused(hv: &Hypervisor<FakeMachine>, domain: &Domain, paused: bool) {
    for vcpu in domain.vcpus() {
        if paused {
            vcpu.pause();
            hv.sched.unqueue(hv.machine, vcpu);
            hv.reschedule(vcpu);
        } else {
            vcpu.unpause();
            hv.sched.wake(hv.machine, vcpu);
        }
    }
}

#[test]
fn shares_are_counted_per_domain() {
    let mut simulation = Simulation::new(2, 7);
    let wide = simulation.guest(Habit::Computes, 8, 256, 0);
    let narrow = simulation.guest(Habit::Computes, 1, 256, 0);
    let ran = simulation.measure(&[wide.clone(), narrow]);
    assert_close("eight vCPUs", ran[0], MEASURED);
    assert_close("one vCPU", ran[1], MEASURED);
    for vcpu in wide.vcpus() {
        assert_close("one of eight", simulation.ran(vcpu) * 10 / 11, MEASURED / 8);
    }
}
