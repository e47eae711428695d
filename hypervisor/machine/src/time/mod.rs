//! Time: the time stamp counter as the machine's clock, the local APIC's timer for deadlines, the CMOS clock for the time of day.
//!
//! System time is a linear function of the TSC. Where a CPU's TSC is found out of step with the boot CPU's, its offset is taken off; guests
//! are then told that the TSC is not to be compared between CPUs.

mod calibrate;
mod rtc;
pub mod scale;
pub(crate) mod skew;

use crate::X86;
use crate::acpi::Tables;
use crate::apic::{HARDWARE_LEVEL, local, msr};
use calibrate::Reference;
pub use calibrate::ReferenceClock;
pub(crate) use calibrate::ordered_tsc;
use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use oxen_hal::{Clock, Processors, WallClock};
use oxen_sync::{OnceCell, SpinLock};
use oxen_types::{CpuId, MAX_CPUS};
use scale::{NANOS_PER_SEC, Scale};
use skew::Skew;

/// No deadline.
const NEVER: u64 = u64::MAX;
/// How much too early the timer may come for the wait to be finished on the spot rather than with another interrupt.
const EARLY_NS: u64 = 1000;

/// What was found at start-up.
#[derive(Debug)]
struct Source {
    base: u64,
    tsc_hz: u64,
    to_ns: Scale,
    from_ns: Scale,
    /// Nanoseconds to ticks of the APIC timer; `None` where the timer compares with the TSC itself.
    to_apic: Option<Scale>,
}

static SOURCE: OnceCell<Source> = OnceCell::new();
static WALL_CLOCK: SpinLock<WallClock, HARDWARE_LEVEL> = SpinLock::new(WallClock { secs: 0, nanos: 0 });
/// Whether any CPU's TSC is out of step.
static ANY_SKEW: AtomicBool = AtomicBool::new(false);

/// One CPU's part, on a cache line of its own.
#[repr(align(64))]
struct PerCpu {
    /// Ticks by which this CPU's TSC is ahead of the boot CPU's.
    skew: AtomicI64,
    /// The deadline that the timer is set for. Only the CPU itself uses it.
    deadline_ns: AtomicU64,
}

static PER_CPU: [PerCpu; MAX_CPUS] = [const { PerCpu { skew: AtomicI64::new(0), deadline_ns: AtomicU64::new(NEVER) } }; MAX_CPUS];

fn per_cpu(cpu: CpuId) -> &'static PerCpu {
    &PER_CPU[cpu.index() % MAX_CPUS]
}

/// Calibrates the clocks and starts system time. The boot CPU's local APIC is on.
pub(crate) fn init(tables: &Tables, wanted: Option<ReferenceClock>) {
    let reference = Reference::choose(tables, wanted);
    let rates = calibrate::measure(reference);
    let scales = Scale::new(rates.tsc_hz, NANOS_PER_SEC).zip(Scale::new(NANOS_PER_SEC, rates.tsc_hz));
    let Some((to_ns, from_ns)) = scales else {
        panic!("the time stamp counter does not count: {} Hz against the {reference}", rates.tsc_hz);
    };
    let deadline_mode = __cpuid(1).ecx & 1 << 24 != 0;
    let to_apic = if deadline_mode { None } else { Scale::new(NANOS_PER_SEC, rates.apic_hz) };
    if !deadline_mode && to_apic.is_none() {
        panic!("the local APIC timer does not count");
    }
    let source = Source { base: ordered_tsc(), tsc_hz: rates.tsc_hz, to_ns, from_ns, to_apic };
    if SOURCE.set(source).is_err() {
        return;
    }
    init_this_cpu();
    set_wall_clock(tables);
    let khz = rates.tsc_hz / 1000;
    crate::info!("TSC {}.{:03} MHz by the {reference}, error below {} ppm", khz / 1000, khz % 1000, rates.error_ppm);
    if deadline_mode {
        crate::info!("Timer: TSC deadline");
    } else {
        crate::info!("Timer: local APIC one-shot, {} kHz", rates.apic_hz / 1000);
    }
}

fn set_wall_clock(tables: &Tables) {
    let seconds = if tables.fadt.has_rtc { rtc::read(tables.fadt.century_register) } else { None };
    let Some(seconds) = seconds else {
        crate::log!("No usable CMOS clock: the time of day starts at 1970 until dom0 sets it");
        return;
    };
    let since_start = crate::MACHINE.now_ns();
    let at_zero = (u128::from(seconds) * u128::from(NANOS_PER_SEC)).saturating_sub(u128::from(since_start));
    *WALL_CLOCK.lock() = WallClock {
        secs: (at_zero / u128::from(NANOS_PER_SEC)) as u64,
        nanos: (at_zero % u128::from(NANOS_PER_SEC)) as u32,
    };
}

/// Prepares the calling CPU's timer.
pub(crate) fn init_this_cpu() {
    if SOURCE.get().is_some_and(|s| s.to_apic.is_none()) {
        local::timer_use_tsc_deadline();
    } else {
        local::timer_use_one_shot();
    }
}

/// Takes note of what was measured of a CPU's TSC, before the CPU uses the clock.
pub(crate) fn set_skew(cpu: CpuId, skew: Skew) {
    let offset = skew.offset();
    if offset != 0 {
        crate::log!("CPU {cpu}: TSC is {offset} ticks off the boot CPU's (+/- {}); corrected", skew.uncertainty() / 2);
        per_cpu(cpu).skew.store(offset, Ordering::Relaxed);
        ANY_SKEW.store(true, Ordering::Relaxed);
    }
}

/// The clock; the whole hypervisor is built on it, so that its absence is a start-up bug.
#[inline]
fn source() -> &'static Source {
    match SOURCE.get() {
        Some(source) => source,
        None => not_started(),
    }
}

#[cold]
fn not_started() -> ! {
    panic!("the clock is used before it is started")
}

/// Nanoseconds of system time; 0 before the clock is started. For log lines and waits that may come early.
#[must_use]
pub fn now_ns_or_zero() -> u64 {
    if SOURCE.get().is_some() { crate::MACHINE.now_ns() } else { 0 }
}

/// Waits, answering what other CPUs ask. The clock runs.
pub(crate) fn delay_ns(ns: u64) {
    let until = crate::MACHINE.now_ns().saturating_add(ns);
    while crate::MACHINE.now_ns() < until {
        oxen_sync::relax();
    }
}

/// Sets the timer for a deadline that is not [`NEVER`].
fn arm(deadline_ns: u64) {
    let source = source();
    let Some(to_apic) = source.to_apic else {
        let ticks = source.from_ns.apply(deadline_ns).saturating_add(1);
        let tsc = ticks.saturating_add(source.base).saturating_add_signed(this_skew());
        // 0 would switch the timer off.
        // SAFETY: in this mode the register exists; its effect is the timer interrupt.
        unsafe { msr::write(msr::TSC_DEADLINE, tsc.max(1)) };
        return;
    };
    let ns = deadline_ns.saturating_sub(crate::MACHINE.now_ns());
    let count = to_apic.apply(ns).saturating_add(1);
    local::timer_set_count(u32::try_from(count).unwrap_or(u32::MAX));
}

#[inline]
fn this_skew() -> i64 {
    if ANY_SKEW.load(Ordering::Relaxed) { per_cpu(crate::MACHINE.this_cpu()).skew.load(Ordering::Relaxed) } else { 0 }
}

/// Answers the timer interrupt: true where the deadline is reached. A timer that came early, because its counter is too short for the
/// whole wait, is set again.
pub(crate) fn timer_fired() -> bool {
    let mine = per_cpu(crate::MACHINE.this_cpu());
    let deadline = mine.deadline_ns.load(Ordering::Relaxed);
    if deadline == NEVER {
        return false;
    }
    let now = crate::MACHINE.now_ns();
    if deadline > now.saturating_add(EARLY_NS) {
        arm(deadline);
        return false;
    }
    while crate::MACHINE.now_ns() < deadline {
        core::hint::spin_loop();
    }
    mine.deadline_ns.store(NEVER, Ordering::Relaxed);
    true
}

impl Clock for X86 {
    #[inline]
    fn now_ns(&self) -> u64 {
        self.tsc_to_ns(ordered_tsc())
    }

    #[inline]
    fn tsc(&self) -> u64 {
        ordered_tsc()
    }

    fn tsc_khz(&self) -> u64 {
        source().tsc_hz / 1000
    }

    #[inline]
    fn tsc_to_ns(&self, tsc: u64) -> u64 {
        let source = source();
        let ticks = tsc.wrapping_sub(source.base).wrapping_sub(this_skew() as u64);
        // Just after start a TSC that is behind gives a negative difference.
        if ticks >> 63 != 0 { 0 } else { source.to_ns.apply(ticks) }
    }

    fn tsc_scale(&self) -> (u32, i8) {
        let Scale { multiplier, shift } = source().to_ns;
        (multiplier, shift)
    }

    fn tsc_is_stable(&self) -> bool {
        !ANY_SKEW.load(Ordering::Relaxed)
    }

    fn set_deadline(&self, deadline_ns: Option<u64>) {
        let mine = per_cpu(self.this_cpu());
        let deadline = deadline_ns.unwrap_or(NEVER);
        if mine.deadline_ns.load(Ordering::Relaxed) == deadline {
            return;
        }
        mine.deadline_ns.store(deadline, Ordering::Relaxed);
        if deadline != NEVER {
            arm(deadline);
        } else if source().to_apic.is_some() {
            local::timer_set_count(0);
        } else {
            // SAFETY: in this mode the register exists; 0 switches the timer off.
            unsafe { msr::write(msr::TSC_DEADLINE, 0) };
        }
    }

    fn wall_clock_at_zero(&self) -> WallClock {
        *WALL_CLOCK.lock()
    }

    fn set_wall_clock_at_zero(&self, clock: WallClock) {
        *WALL_CLOCK.lock() = clock;
    }
}

/// True where the processor promises a TSC of one rate in all power states (CPUID 0x80000007, edx bit 8).
#[must_use]
pub fn tsc_is_invariant() -> bool {
    __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & 1 << 8 != 0
}
