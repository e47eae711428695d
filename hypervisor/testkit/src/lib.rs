//! Host-only fakes of the machine for tests.
//!
//! [`FakeMachine`] implements all traits of `oxen-hal`. One machine is shared by all threads of a test; [`FakeMachine::on_cpu`] says as which processor a
//! piece of code runs. It behaves as badly as real hardware may: translations stay in the simulated TLBs until they are flushed,
//! and are used while they are there.
//!
//! ```text
//! let machine = FakeMachine::new(Config { frames: 4096, cpus: 2, ..Config::default() });
//! machine.on_cpu(1, || core_function(machine));
//! machine.advance_ns(1_000_000);
//! assert_eq!(machine.take_events(), [Event::Kick(CpuId(1))]);
//! ```
//!
//! Oracle for "a frame is reused only after every processor has forgotten it": [`FakeMachine::assert_not_cached`] when it has a new owner.

mod cpu;
mod devices;
mod event;
mod guest;
mod ram;
mod rng;
mod tlb;

pub use event::{EntryWrite, Event};
pub use ram::FakePage;
pub use rng::Rng;
pub use tlb::Cached;

use cpu::FakeCpu;
use devices::Devices;
use oxen_hal::{MemoryKind, MemoryRange};
use oxen_types::{CpuId, CpuSet, MAX_CPUS, Maddr, Mfn, PAGE_SIZE};
use ram::Ram;
use std::cell::Cell;
use std::sync::{Mutex, OnceLock};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// What a fake machine is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// One more than the highest RAM frame number.
    pub frames: u64,
    /// Ranges of frame numbers below `frames` that are no RAM: first, one past the last.
    pub holes: Vec<(u64, u64)>,
    /// Number of processors.
    pub cpus: u32,
    /// TSC frequency.
    pub tsc_khz: u64,
    /// The processor's state area size, in bytes.
    pub fpu_bytes: usize,
    /// I/O APIC lines.
    pub lines: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { frames: 1024, holes: Vec::new(), cpus: 1, tsc_khz: 1_000_000, fpu_bytes: 832, lines: 24 }
    }
}

/// A machine that exists in the host's memory only.
#[derive(Debug)]
pub struct FakeMachine {
    config: Config,
    map: Vec<MemoryRange>,
    ram: Ram,
    cpus: Vec<FakeCpu>,
    online: CpuSet,
    flush_clock: AtomicU32,
    now_ns: AtomicU64,
    devices: Mutex<Devices>,
    events: Mutex<Vec<Event>>,
    entry_writes: Mutex<Vec<EntryWrite>>,
    record_entries: AtomicBool,
    idle_hook: OnceLock<fn()>,
}

thread_local! {
    static THIS_CPU: Cell<u32> = const { Cell::new(0) };
}

impl FakeMachine {
    /// A machine that lives until the test program ends, as the hypervisor's does.
    ///
    /// # Panics
    /// With no processor, or more than [`MAX_CPUS`].
    #[must_use]
    pub fn new(config: Config) -> &'static Self {
        assert!(config.cpus > 0 && config.cpus as usize <= MAX_CPUS);
        let online = CpuSet::new();
        for cpu in 0..config.cpus {
            online.insert(CpuId(cpu));
        }
        let machine = Self {
            map: memory_map(&config),
            ram: Ram::new(config.frames, &config.holes),
            cpus: (0..config.cpus).map(|_| FakeCpu::new()).collect(),
            online,
            flush_clock: AtomicU32::new(1),
            now_ns: AtomicU64::new(0),
            devices: Mutex::new(Devices::new(config.lines)),
            events: Mutex::default(),
            entry_writes: Mutex::default(),
            record_entries: AtomicBool::new(false),
            idle_hook: OnceLock::new(),
            config,
        };
        Box::leak(Box::new(machine))
    }

    /// Runs `f` as processor `cpu`.
    ///
    /// # Panics
    /// Where there is no such processor.
    pub fn on_cpu<T>(&self, cpu: u32, f: impl FnOnce() -> T) -> T {
        assert!(cpu < self.config.cpus);
        /// Changes back also where `f` panics.
        struct Before(u32);
        impl Drop for Before {
            fn drop(&mut self) {
                THIS_CPU.set(self.0);
            }
        }
        let _before = Before(THIS_CPU.replace(cpu));
        f()
    }

    /// Sets what a processor does that waits for an interrupt: by default it goes on at once. The first call counts.
    pub fn on_idle(&self, hook: fn()) {
        // Later ones are ignored, as said.
        let _ = self.idle_hook.set(hook);
    }

    /// Moves the clock on.
    pub fn advance_ns(&self, ns: u64) {
        self.now_ns.fetch_add(ns, Ordering::SeqCst);
    }

    /// The deadline that `cpu`'s timer is armed for.
    #[must_use]
    pub fn deadline_ns(&self, cpu: u32) -> Option<u64> {
        self.cpu(cpu).deadline_ns
    }

    /// True where `cpu`'s timer has reached its deadline; disarms it then.
    pub fn timer_fired(&self, cpu: u32) -> bool {
        let now = self.now_ns.load(Ordering::SeqCst);
        let mut state = self.cpu(cpu);
        let fired = state.deadline_ns.is_some_and(|at| at <= now);
        if fired {
            state.deadline_ns = None;
        }
        fired
    }

    /// The root page table that `cpu` has loaded; `None` for the hypervisor's own.
    #[must_use]
    pub fn loaded_root(&self, cpu: u32) -> Option<Mfn> {
        self.cpu(cpu).root
    }

    /// The frames of the guest's GDT that `cpu` has.
    #[must_use]
    pub fn guest_gdt(&self, cpu: u32) -> Vec<Mfn> {
        self.cpu(cpu).gdt.clone()
    }

    /// The LDT that `cpu` has: number of entries, and the pages that are mapped.
    #[must_use]
    pub fn guest_ldt(&self, cpu: u32) -> (u32, Vec<(usize, Mfn)>) {
        let state = self.cpu(cpu);
        (state.ldt_entries, state.ldt_pages.iter().map(|(&i, &m)| (i, m)).collect())
    }

    /// All that happened since the last call, in order.
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut lock(&self.events))
    }

    /// Starts (or stops) keeping each write to a page-table entry for [`FakeMachine::take_entry_writes`].
    pub fn record_entry_writes(&self, on: bool) {
        self.record_entries.store(on, Ordering::SeqCst);
    }

    /// The recorded writes since the last call, in order.
    pub fn take_entry_writes(&self) -> Vec<EntryWrite> {
        std::mem::take(&mut lock(&self.entry_writes))
    }

    /// Frames that hold anything but zero, or were ever written: what the test costs in host memory.
    #[must_use]
    pub fn touched_frames(&self) -> usize {
        self.ram.touched()
    }

    fn event(&self, event: Event) {
        lock(&self.events).push(event);
    }

    fn this(&self) -> u32 {
        THIS_CPU.get()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A test that panicked elsewhere has already failed; what it left is still readable.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn memory_map(config: &Config) -> Vec<MemoryRange> {
    let mut map = Vec::new();
    let mut at = 0;
    let mut holes = config.holes.clone();
    holes.sort_unstable();
    let mut add = |from: u64, to: u64, kind| {
        if from < to {
            map.push(MemoryRange { start: Maddr(from * PAGE_SIZE), end: Maddr(to * PAGE_SIZE), kind });
        }
    };
    for (from, to) in holes {
        add(at, from, MemoryKind::Ram);
        add(from, to, MemoryKind::Reserved);
        at = to;
    }
    add(at, config.frames, MemoryKind::Ram);
    map
}
