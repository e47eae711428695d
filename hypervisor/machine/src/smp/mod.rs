//! The processors: which there are, how they are started, kicked and put to sleep.

mod topology;
mod trampoline;

use crate::acpi::madt::Processor;
use crate::acpi::Tables;
use crate::apic::{START_UP_LEVEL, local, vectors};
use crate::list::FixedList;
use crate::time::skew::Skew;
use crate::{X86, apic, memory, paging, percpu, time};
use core::arch::{asm, x86_64::__cpuid_count};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use oxen_hal::Processors;
use oxen_sync::{OnceCell, SpinGuard, SpinLock};
use oxen_types::{CpuId, CpuSet, MAX_CPUS};
use topology::{Cpuid, IdFields};
use trampoline::{Parameters, Trampoline};

/// What is known of the processors before they start.
struct Plan {
    /// By [`CpuId`]; the boot CPU first.
    processors: FixedList<Processor, MAX_CPUS>,
    fields: IdFields,
    trampoline: Option<Trampoline>,
    trampoline_root: u32,
}

/// The plan is a few KiB and start-up runs on a small stack: it is made in place. The lock is taken once and never given back.
static STORAGE: SpinLock<Plan, START_UP_LEVEL> = SpinLock::new(Plan {
    processors: FixedList::new(),
    fields: IdFields { thread_bits: 0, socket_bits: 0 },
    trampoline: None,
    trampoline_root: 0,
});
static PLAN: OnceCell<SpinGuard<'static, Plan, START_UP_LEVEL>> = OnceCell::new();
static ONLINE: CpuSet = CpuSet::new();
/// Whether any CPU but the boot CPU runs.
static SEVERAL: AtomicBool = AtomicBool::new(false);

/// Set while a kick is on its way to the CPU and has not been answered.
#[repr(align(64))]
struct Kicked(AtomicBool);
static KICKED: [Kicked; MAX_CPUS] = [const { Kicked(AtomicBool::new(false)) }; MAX_CPUS];

/// A fatal report is being written: CPUs that get an NMI stop.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// CPUID of the calling processor.
struct Hardware;
impl Cpuid for Hardware {
    fn query(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let r = __cpuid_count(leaf, subleaf);
        [r.eax, r.ebx, r.ecx, r.edx]
    }
}

/// Orders the processors, the boot CPU first, and keeps at most `max_cpus` of those that `is_reachable` by their APIC id.
fn choose(
    chosen: &mut FixedList<Processor, MAX_CPUS>,
    listed: &FixedList<Processor, MAX_CPUS>,
    boot_apic_id: u32,
    max_cpus: usize,
    is_reachable: impl Fn(u32) -> bool,
) {
    let boot = listed.iter().find(|p| p.apic_id == boot_apic_id);
    // Firmware that does not list the boot CPU gives no ACPI id for it.
    chosen.push(boot.unwrap_or(Processor { apic_id: boot_apic_id, acpi_id: 0 }));
    for processor in listed.iter().filter(|p| p.apic_id != boot_apic_id && is_reachable(p.apic_id)) {
        if chosen.len() < max_cpus {
            chosen.push(processor);
        }
    }
}

/// Decides which processors will run and takes what they need to start; returns their number, the boot CPU included. `max_cpus` 0 means one. The local
/// APIC is on and the early allocator open.
pub(crate) fn init(tables: &Tables, max_cpus: u32) -> u32 {
    let limit = (max_cpus as usize).clamp(1, MAX_CPUS);
    let Some(mut plan) = STORAGE.try_lock() else { return nr_planned() };
    // Without x2APIC, APIC ids have 8 bits and the last one means all.
    choose(&mut plan.processors, &tables.madt.processors, local::id(), limit, |id| local::is_x2apic() || id < 0xff);
    plan.fields = IdFields::detect(&Hardware);
    if plan.processors.len() > 1 {
        match memory::early_alloc_low(1) {
            Some(page) => {
                plan.trampoline = Some(Trampoline::install(page));
                plan.trampoline_root = paging::trampoline_root().0 as u32;
            }
            None => crate::log!("No free page below 1 MiB: only the boot CPU can run"),
        }
    }
    let listed = tables.madt.processors.len() as u32 + tables.madt.ignored_processors;
    if listed as usize > plan.processors.len() {
        crate::log!("{} of {listed} processors are used", plan.processors.len());
    }
    // The cell is empty: the lock was free.
    let _ = PLAN.set(plan);
    ONLINE.insert(CpuId(0));
    nr_planned()
}

fn processor(cpu: CpuId) -> Option<Processor> {
    PLAN.get()?.processors.get(cpu.index())
}

/// The boot CPU's APIC id.
pub(crate) fn boot_apic_id() -> u32 {
    processor(CpuId(0)).map_or_else(local::id, |p| p.apic_id)
}

/// Number of processors that start-up has prepared for, started or not.
#[must_use]
pub fn nr_planned() -> u32 {
    PLAN.get().map_or(1, |plan| if plan.trampoline.is_some() { plan.processors.len() as u32 } else { 1 })
}

/// What the boot CPU and a starting one tell each other.
struct Meeting {
    /// The CPU that has arrived, plus one.
    arrived: AtomicU32,
    /// Exchange of time stamps that the boot CPU wants; [`Meeting::FINISHED`] after the last.
    round: AtomicU32,
    /// The last one that is answered.
    answered: AtomicU32,
    /// The answer.
    tsc: AtomicU64,
}

impl Meeting {
    const ROUNDS: u32 = 16;
    const FINISHED: u32 = u32::MAX;
}

static MEETING: Meeting =
    Meeting { arrived: AtomicU32::new(0), round: AtomicU32::new(0), answered: AtomicU32::new(0), tsc: AtomicU64::new(0) };

/// Time between INIT and the start-up message (Intel SDM vol. 3, section "MP Initialization Protocol Algorithm for MP Systems").
const AFTER_INIT_NS: u64 = 10_000_000;
/// Time after which the start-up message is repeated.
const REPEAT_NS: u64 = 200_000;
/// Time within which a processor must arrive.
const ARRIVAL_NS: u64 = 2_000_000_000;

/// Waits until `done`, at most for a time; says whether it came true.
fn wait_for(limit_ns: u64, done: impl Fn() -> bool) -> bool {
    let until = time::now_ns_or_zero().saturating_add(limit_ns);
    while !done() {
        if time::now_ns_or_zero() > until {
            return done();
        }
        oxen_sync::relax();
    }
    true
}

/// Starts all other processors; each goes to `oxen_cpu_main`. Returns the number of those that run, the boot CPU included. Called once, by the boot CPU.
pub fn start_all() -> u32 {
    let Some(plan) = PLAN.get() else { return 1 };
    if let Some(trampoline) = plan.trampoline {
        for p in plan.processors.iter().skip(1) {
            local::send_init(p.apic_id);
        }
        time::delay_ns(AFTER_INIT_NS);
        for (index, p) in plan.processors.iter().enumerate().skip(1) {
            let cpu = CpuId(index as u32);
            if !start(cpu, p, trampoline, plan.trampoline_root) {
                crate::log!("CPU {cpu} (APIC id {}) does not start; it is left alone", p.apic_id);
                // A processor that is only late must not come through the trampoline in the name of the next one.
                local::send_init(p.apic_id);
                time::delay_ns(AFTER_INIT_NS);
            }
        }
    }
    let count = ONLINE.len();
    let stable = if time::tsc_is_invariant() { "invariant" } else { "in step as measured" };
    let state = if oxen_hal::Clock::tsc_is_stable(&crate::MACHINE) { stable } else { "out of step, corrected" };
    crate::log!("{count} of {} CPUs online, TSC {state}", plan.processors.len());
    count
}

fn start(cpu: CpuId, processor: Processor, trampoline: Trampoline, root: u32) -> bool {
    const CR0: u32 = 0x8001_0033; // PG, WP, NE, ET, MP, PE
    const CR4: u32 = 0xa0; // PGE, PAE
    const EFER: u32 = 0xc000_0080;
    const EFER_SCE_LME_NXE: u64 = 0x901;
    // SAFETY: the register exists in every 64-bit processor.
    let efer = unsafe { apic::msr::read(EFER) } & EFER_SCE_LME_NXE;
    trampoline.prepare(Parameters {
        stack: percpu::main_stack(cpu),
        entry: ap_entry as *const () as u64,
        cr3: root,
        cr4: CR4,
        cr0: CR0,
        efer: efer as u32,
        cpu: cpu.0,
        padding: 0,
    });
    MEETING.round.store(0, Ordering::Relaxed);
    MEETING.answered.store(0, Ordering::Relaxed);
    MEETING.arrived.store(0, Ordering::SeqCst);
    let arrived = || MEETING.arrived.load(Ordering::Acquire) == cpu.0 + 1;
    local::send_startup(processor.apic_id, trampoline.page_number());
    if !wait_for(REPEAT_NS, arrived) {
        local::send_startup(processor.apic_id, trampoline.page_number());
    }
    if !wait_for(ARRIVAL_NS, arrived) {
        return false;
    }
    time::set_skew(cpu, measure_skew());
    MEETING.round.store(Meeting::FINISHED, Ordering::Release);
    wait_for(ARRIVAL_NS, || ONLINE.contains(cpu))
}

/// Compares the starting CPU's time stamp counter with this one's.
fn measure_skew() -> Skew {
    let mut skew = Skew::unknown();
    for round in 1..=Meeting::ROUNDS {
        let before = time::ordered_tsc();
        MEETING.round.store(round, Ordering::Release);
        while MEETING.answered.load(Ordering::Acquire) != round {
            oxen_sync::relax();
        }
        let other = MEETING.tsc.load(Ordering::Relaxed);
        skew = skew.narrowed(before, other, time::ordered_tsc());
    }
    skew
}

/// The other side of [`measure_skew`].
fn answer_skew() {
    loop {
        let round = MEETING.round.load(Ordering::Acquire);
        if round == Meeting::FINISHED {
            return;
        }
        if round != MEETING.answered.load(Ordering::Relaxed) {
            MEETING.tsc.store(time::ordered_tsc(), Ordering::Relaxed);
            MEETING.answered.store(round, Ordering::Release);
        }
        core::hint::spin_loop();
    }
}

/// First Rust code of every processor but the boot CPU: 64-bit mode, own main stack, trampoline tables.
extern "C" fn ap_entry(cpu: u32) -> ! {
    let cpu = CpuId(cpu);
    // SAFETY: the hypervisor's root maps everything that runs from here on, as the trampoline's did.
    unsafe { asm!("mov cr3, {}", in(reg) paging::idle_root().maddr().0, options(nostack, preserves_flags)) };
    // SAFETY: this CPU runs in 64-bit mode on the hypervisor's tables for the first time, and the boot CPU has prepared its area.
    unsafe { crate::cpu::start(cpu) };
    local::init_this_cpu();
    time::init_this_cpu();
    MEETING.arrived.store(cpu.0 + 1, Ordering::Release);
    answer_skew();
    SEVERAL.store(true, Ordering::SeqCst);
    ONLINE.insert(cpu);
    crate::upcall::oxen_cpu_main(cpu)
}

/// True where the boot CPU is the only one that runs.
#[inline]
pub(crate) fn is_alone() -> bool {
    !SEVERAL.load(Ordering::SeqCst)
}

/// Takes note that a kick has arrived: the next one needs an interrupt again.
#[inline]
pub(crate) fn kick_arrived() {
    KICKED[crate::MACHINE.this_cpu().index() % MAX_CPUS].0.store(false, Ordering::SeqCst);
}

/// Stops all other CPUs, for a fatal report: each gets an NMI, on which it calls [`stop_if_asked`]. The first caller wins; a CPU that comes second
/// stops here.
pub fn stop_others() {
    if STOPPING.swap(true, Ordering::SeqCst) {
        halt();
    }
    if ONLINE.len() > 1 {
        local::send_nmi_to_others();
    }
}

/// Stops the calling CPU for ever where another one writes a fatal report. Called on every NMI.
pub fn stop_if_asked() {
    if STOPPING.load(Ordering::SeqCst) {
        halt();
    }
}

fn halt() -> ! {
    loop {
        // SAFETY: the CPU is to do nothing any more.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

impl Processors for X86 {
    #[inline]
    fn this_cpu(&self) -> CpuId {
        percpu::this_cpu()
    }

    #[inline]
    fn online(&self) -> &CpuSet {
        &ONLINE
    }

    fn kick(&self, cpu: CpuId) {
        let (Some(kicked), Some(p)) = (KICKED.get(cpu.index()), processor(cpu)) else { return };
        // One interrupt on its way is enough: the CPU looks at its work after it has cleared the flag.
        if ONLINE.contains(cpu) && !kicked.0.swap(true, Ordering::SeqCst) {
            local::send(p.apic_id, vectors::KICK);
        }
    }

    fn wait_for_interrupt(&self) {
        if KICKED[self.this_cpu().index() % MAX_CPUS].0.swap(false, Ordering::SeqCst) {
            return;
        }
        // SAFETY: handlers run on this stack below the caller's frames and keep all registers. `sti` takes effect after the next instruction, so
        // that an interrupt which is already pending ends the `hlt`.
        unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
    }

    fn cpu_identity(&self, cpu: CpuId) -> Option<(u32, u32)> {
        processor(cpu).map(|p| (p.apic_id, p.acpi_id))
    }

    fn topology(&self, cpu: CpuId) -> Option<(u32, u32, u32)> {
        let (core, socket) = PLAN.get()?.fields.place(processor(cpu)?.apic_id);
        // The firmware's memory affinity table is not read: all processors are reported as one node.
        Some((core, socket, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(ids: &[u32]) -> FixedList<Processor, MAX_CPUS> {
        let mut list = FixedList::new();
        for id in ids {
            list.push(Processor { apic_id: *id, acpi_id: *id + 100 });
        }
        list
    }

    #[test]
    fn boot_cpu_is_first() {
        let ids = |list: &[u32], boot, max| {
            let mut chosen = FixedList::new();
            choose(&mut chosen, &listed(list), boot, max, |id| id < 0xff);
            chosen.iter().map(|p: Processor| p.apic_id).collect::<alloc::vec::Vec<_>>()
        };
        assert_eq!(ids(&[4, 0, 2, 6], 2, MAX_CPUS), [2, 4, 0, 6]);
        assert_eq!(ids(&[4, 0, 2, 6], 2, 1), [2]);
        assert_eq!(ids(&[4, 0], 9, 2), [9, 4]);
        assert_eq!(ids(&[0, 300, 1], 0, MAX_CPUS), [0, 1]);
    }
}
