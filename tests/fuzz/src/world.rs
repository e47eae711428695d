//! A hypervisor on a fake machine with two processors and three domains: domain 0, which controls, and two that do not. Each has page tables that
//! the hypervisor has validated, memory, and two vCPUs that run.

use oxen_abi::Hypercall;
use oxen_abi::arch_x86_64::{FLAT_KERNEL_CS, FLAT_KERNEL_SS, VGCF_IN_KERNEL, VGCF_ONLINE, VcpuGuestContext};
use oxen_core::console::Ring;
use oxen_core::domain::{Domain, DomainSpec, Privileges};
use oxen_core::start::Start;
use oxen_core::{Config, Hypervisor, Local};
use oxen_hal::{Arrived, Clock, CpuOps, Frames, GuestFrame, GuestMemory, VECTOR_DONE, VECTOR_HYPERCALL};
use oxen_mm::Mm;
use oxen_mm::entry::{self, ACCESSED, DIRTY, PRESENT, RW, USER};
use oxen_testkit::FakeMachine;
use oxen_types::{CpuId, DomId, Gva, Mfn, VcpuId};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

/// Frames of the machine.
pub const FRAMES: u64 = 512;
pub const CPUS: u32 = 2;
/// Where guests have their pages.
pub const BASE: u64 = 0x10_0000;
/// Pages with data, then pages that are tables or may become some, which the guest may read only.
pub const DATA_PAGES: u64 = 24;
const SPARE_TABLES: u64 = 8;
const TABLES: u64 = 4;
pub const PAGES: u64 = DATA_PAGES + SPARE_TABLES + TABLES;
/// Pages with the stacks, one for each vCPU.
const STACK_PAGE: u64 = 22;
/// Domains without privileges that there are at first, and most domains for which lost ones are replaced.
const GUESTS: u16 = 2;
const MOST_DOMAINS: usize = 6;
/// Page in which guests have their entry points.
pub const CODE: u64 = BASE;
/// Vectors by which a processor notices things.
pub const KICK_VECTOR: u32 = 0xfa;
const TIMER_VECTOR: u32 = 0xfb;
const PAGE_FAULT: u32 = 14;
/// Error code of a page fault by a write in ring 3 to a page that is there.
const WRITE_TO_PRESENT: u32 = 0b111;
const TRAP_FLAG: u64 = 1 << 8;
/// Turns of waiting loops after which nobody is thought to end the waiting.
const MOST_TURNS: u32 = 200_000;
const RING_BYTES: usize = 1 << 14;

/// What ends a call on a processor that has nothing to do.
struct Idle;

/// A processor as the fuzzer drives it.
pub struct Cpu {
    pub local: Local,
    pub frame: GuestFrame,
}

pub struct World {
    pub machine: &'static FakeMachine,
    pub hv: &'static Hypervisor<FakeMachine>,
    pub cpus: Vec<RefCell<Cpu>>,
    turns: Cell<u32>,
    /// Entries so far: every other one asks for the quick way first.
    entries: Cell<u32>,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

fn idle() {
    resume_unwind(Box::new(Idle));
}

/// A processor waits for another one: the other one gets on.
fn relax() {
    let Some(world) = CURRENT.with_borrow(Clone::clone) else { return };
    world.turns.set(world.turns.get() + 1);
    assert!(world.turns.get() < MOST_TURNS, "a processor waits for ever");
    for cpu in 0..CPUS {
        if world.cpus[cpu as usize].try_borrow_mut().is_ok() {
            world.enter(cpu, KICK_VECTOR);
        }
    }
}

impl World {
    pub fn new() -> Rc<Self> {
        let config = oxen_testkit::Config { frames: FRAMES, cpus: CPUS, ..oxen_testkit::Config::default() };
        let machine = FakeMachine::new(config);
        machine.on_idle(idle);
        oxen_sync::set_relax_hook(relax);
        let memory = Mm::new(machine);
        memory.add_range(Mfn(0), FRAMES);
        let region = Box::leak((0..RING_BYTES).map(|_| AtomicU8::new(0)).collect());
        let config = Config { no_reboot: true, ..Config::default() };
        let hv: &'static _ = Box::leak(Box::new(Hypervisor::new(machine, memory, config, Ring::in_region(region).0)));
        let cpus = (0..CPUS).map(|n| RefCell::new(Cpu { local: Local::new(CpuId(n)), frame: GuestFrame::default() })).collect();
        let world = Rc::new(Self { machine, hv, cpus, turns: Cell::new(0), entries: Cell::new(0) });
        CURRENT.set(Some(world.clone()));
        world.build(DomId::DOM0, true);
        world.replenish();
        world
    }

    /// Builds new domains in the place of those that ended, where there is memory for them.
    pub fn replenish(&self) {
        for id in (1..=GUESTS).map(DomId) {
            let gone = self.hv.domains.get(id).is_none() && self.hv.domains.snapshot().len() <= MOST_DOMAINS;
            if gone && self.hv.memory.free_frames().saturating_sub(self.hv.memory.claimed_frames()) > 2 * PAGES {
                if let Some(account) = self.hv.memory.account(id) {
                    account.reset();
                }
                self.build(id, false);
            }
        }
    }

    fn build(&self, id: DomId, privileged: bool) {
        let (hv, machine) = (self.hv, self.machine);
        hv.memory.account(id).expect("an ordinary number").set_limit(PAGES + 20);
        let spec = DomainSpec { max_port: 200, max_grant_frames: 3, max_maptrack_frames: 2, ..DomainSpec::new(id, Privileges { control: privileged, hardware: privileged }, 4) };
        let domain = hv.add_domain(&spec).expect("the first domains fit");
        hv.add_vcpus(&domain, false);
        let frames: Vec<Mfn> = (0..PAGES).map(|_| hv.memory.alloc_for(id, 0, 0).expect("memory for the first domains")).collect();
        for (pfn, &mfn) in frames.iter().enumerate() {
            machine.zero_frame(mfn);
            hv.memory.set_machphys(mfn, id, pfn as u64).expect("its own frame");
        }
        let root = link(machine, &frames);
        let start = Start { rip: Gva(CODE), rsp: Gva(stack(VcpuId(0))), rsi: Gva(BASE), root };
        hv.set_start(&domain, &start).expect("the tables are right");
        let second = domain.vcpu(VcpuId(1)).expect("it was made").clone();
        let mut state = second.state.take();
        hv.set_guest_context(&domain, &second, &mut state, &context(root, VcpuId(1))).expect("the context is right");
        drop(state);
        for n in [0, 1] {
            let vcpu = domain.vcpu(VcpuId(n)).expect("it was made");
            machine.on_cpu(n, || hv.bring_up(CpuId(n), vcpu));
        }
    }

    /// Enters the hypervisor on a processor, with the registers that it has and `vector`; false where it has nothing to run.
    pub fn enter(&self, cpu: u32, vector: u32) -> bool {
        let mut place = self.cpus[cpu as usize].borrow_mut();
        let Cpu { local, frame } = &mut *place;
        frame.entry_vector = vector;
        self.entries.set(self.entries.get() + 1);
        let asks_quick = self.entries.get() % 2 == 0;
        let enter = || {
            if asks_quick && self.quick(local, frame) {
                frame.entry_vector = VECTOR_DONE;
            }
            self.hv.from_guest(local, frame);
        };
        let result = catch_unwind(AssertUnwindSafe(|| self.machine.on_cpu(cpu, enter)));
        match result {
            Ok(()) => true,
            Err(payload) if payload.is::<Idle>() => false,
            Err(payload) => resume_unwind(payload),
        }
    }

    /// What the machine's entry code does before it takes the ordinary way: true where that does the whole work.
    fn quick(&self, local: &mut Local, frame: &mut GuestFrame) -> bool {
        if !self.machine.guest_in_kernel() {
            return false;
        }
        if frame.entry_vector == PAGE_FAULT && frame.error_code == WRITE_TO_PRESENT {
            return self.hv.quick_write_fault(local, frame);
        }
        let Ok(number) = u32::try_from(frame.rax) else { return false };
        if frame.entry_vector != VECTOR_HYPERCALL || frame.rflags & TRAP_FLAG != 0 {
            return false;
        }
        let words = [frame.rdi, frame.rsi, frame.rdx, frame.r10];
        let answer = self.hv.quick_call(local, Hypercall(number), words, frame);
        if let Some(value) = answer {
            frame.rax = value as u64;
        }
        answer.is_some()
    }

    /// Starts counting the turns of waiting loops anew.
    pub fn begin_step(&self) {
        self.turns.set(0);
    }

    /// The domain and vCPU that run on a processor.
    pub fn running(&self, cpu: u32) -> Option<(Arc<Domain>, VcpuId)> {
        let place = self.cpus[cpu as usize].borrow();
        place.local.running.as_ref().map(|running| (running.domain.clone(), running.vcpu.id))
    }

    /// Lets a processor's timer go off where its time has come.
    pub fn timer(&self, cpu: u32) {
        if self.machine.timer_fired(cpu) {
            self.machine.set_arrival(TIMER_VECTOR as u8, Arrived::Timer);
            if self.cpus[cpu as usize].borrow().local.running.is_some() {
                self.enter(cpu, TIMER_VECTOR);
            } else {
                self.machine.on_cpu(cpu, || self.hv.host_interrupt(CpuId(cpu), TIMER_VECTOR as u8));
            }
        }
    }

    /// Moves the clock on to the next timer, and lets one domain run on, whatever keeps it: so that the test goes on.
    pub fn wake_somebody(&self, choice: u64) {
        let next = (0..CPUS).filter_map(|cpu| self.machine.deadline_ns(cpu)).min();
        let now = self.machine.now_ns();
        self.machine.advance_ns(next.unwrap_or(0).saturating_sub(now).min(50_000_000));
        (0..CPUS).for_each(|cpu| self.timer(cpu));
        let domains = self.hv.domains.snapshot();
        let Some(domain) = domains.get(choice as usize % domains.len().max(1)).filter(|domain| !domain.is_dying()) else { return };
        if domain.shutdown_reason().is_some() {
            self.hv.resume_domain(domain);
        }
        if domain.is_paused() {
            // A domain without memory stays as it is when it may run.
            let _ = self.hv.unpause_domain(domain);
        }
        for vcpu in domain.vcpus() {
            self.hv.end_poll(domain, vcpu);
            self.hv.kick_upcall(vcpu);
            if vcpu.state.try_take().is_some_and(|state| state.initialised) {
                self.hv.bring_up(CpuId(0), vcpu);
            }
        }
    }

    /// Writes to the memory of the guest that runs on `cpu`, as the guest would; without effect where it may not.
    pub fn write(&self, cpu: u32, at: u64, bytes: &[u8]) {
        // What does not arrive was not to.
        let _ = self.machine.on_cpu(cpu, || self.machine.copy_to_guest(Gva(at), bytes));
    }
}

/// Top of a vCPU's stack.
pub fn stack(vcpu: VcpuId) -> u64 {
    BASE + (STACK_PAGE + u64::from(vcpu.0 % 2) + 1) * 4096
}

/// Tables in the last pages that map all pages, the tables themselves for reading; the root comes last.
fn link(machine: &FakeMachine, frames: &[Mfn]) -> Mfn {
    let tables = &frames[(PAGES - TABLES) as usize..];
    let all = PRESENT | USER | ACCESSED | DIRTY;
    for (i, &mfn) in frames.iter().enumerate() {
        let rights = if (i as u64) < DATA_PAGES { RW } else { 0 };
        machine.write_entry(tables[0], Gva(BASE).pt_index(1) + i, entry::make(mfn, all | rights));
    }
    for level in 2..=4_u32 {
        let (table, below) = (tables[level as usize - 1], tables[level as usize - 2]);
        machine.write_entry(table, Gva(BASE).pt_index(level), entry::make(below, all | RW));
    }
    tables[3]
}

/// Registers of a vCPU that starts on page tables made by [`link`].
pub fn context(root: Mfn, vcpu: VcpuId) -> VcpuGuestContext {
    let mut context = VcpuGuestContext { flags: VGCF_IN_KERNEL | VGCF_ONLINE, ..VcpuGuestContext::default() };
    context.user_regs.rip = CODE;
    context.user_regs.rsp = stack(vcpu);
    context.user_regs.cs = FLAT_KERNEL_CS;
    context.user_regs.ss = FLAT_KERNEL_SS;
    context.user_regs.rflags = 1 << 9;
    context.kernel_ss = FLAT_KERNEL_SS.into();
    context.kernel_sp = stack(vcpu);
    context.ctrlreg[3] = root.0 << 12;
    context
}
