//! Measuring the time stamp counter and the local APIC timer against a clock of known rate.

use super::scale::NANOS_PER_SEC;
use crate::acpi::Tables;
use crate::apic::local;
use crate::port::{in8, in32, out8};
use core::arch::x86_64::{__cpuid, __cpuid_count, _mm_lfence, _rdtsc};
use core::fmt;

/// ACPI specification 6.5, section 4.8.3.3.
const PM_TIMER_HZ: u64 = 3_579_545;
/// Intel 8254 data sheet and PC convention.
const PIT_HZ: u64 = 1_193_182;
/// Length of one measurement with the PIT, in its ticks: less than half a turn of its counter.
const PIT_WINDOW: u64 = 24_000;
/// Length of one measurement.
const WINDOW_NS: u64 = 50_000_000;
/// Relative error, in millionths, above which a measurement is repeated.
const GOOD_PPM: u64 = 100;
/// Turns of an empty loop between two looks at the reference.
const PLAIN_TURNS: u32 = 5000;
/// Readings of which the one that took least time counts.
const READINGS: u32 = 8;

/// Reads the time stamp counter after all earlier instructions are done.
#[inline]
pub(crate) fn ordered_tsc() -> u64 {
    // SAFETY: every x86-64 processor has both instructions, and they have no effect on memory.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}

/// A clock of known rate.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reference {
    /// High precision event timer: its main counter.
    Hpet { counter: usize, hz: u64, is_64_bit: bool },
    /// ACPI PM timer.
    Pm { port: u16, is_32_bit: bool },
    /// Channel 2 of the legacy timer, for machines without the others. Its counter has 16 bits and counts down.
    Pit,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Hpet { hz, .. } => write!(f, "HPET at {hz} Hz"),
            Reference::Pm { port, .. } => write!(f, "ACPI PM timer at port {port:#x}"),
            Reference::Pit => write!(f, "PIT"),
        }
    }
}

/// Offsets of the HPET's registers (IA-PC HPET specification 1.0a, section 2.3).
mod hpet {
    pub const CAPABILITIES: usize = 0;
    pub const CONFIGURATION: usize = 0x10;
    pub const COUNTER: usize = 0xf0;
    pub const ENABLE: u64 = 1;
    pub const COUNTER_IS_64_BIT: u64 = 1 << 13;
    /// Longest period that the specification allows: 100 ns, in femtoseconds.
    pub const MAX_PERIOD_FS: u64 = 100_000_000;
    pub const FS_PER_SEC: u64 = 1_000_000_000_000_000;
}

/// The clocks of known rate that a machine can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceClock {
    /// The high precision event timer.
    Hpet,
    /// The ACPI PM timer.
    Pm,
    /// The legacy timer.
    Pit,
}

impl Reference {
    /// Chooses the clock that is wanted, or else the best one that the machine has, and makes it run.
    pub(crate) fn choose(tables: &Tables, wanted: Option<ReferenceClock>) -> Self {
        if let Some(wanted) = wanted {
            match Self::find(tables, wanted) {
                Some(found) => return found,
                None => crate::log!("The machine has no clock of the kind that was wanted, {wanted:?}"),
            }
        }
        [ReferenceClock::Hpet, ReferenceClock::Pm].into_iter().find_map(|kind| Self::find(tables, kind)).unwrap_or_else(Self::pit)
    }

    fn find(tables: &Tables, kind: ReferenceClock) -> Option<Self> {
        match kind {
            ReferenceClock::Hpet => tables.hpet.and_then(Self::hpet),
            ReferenceClock::Pm => {
                let pm = tables.fadt.pm_timer.map(|port| Reference::Pm { port, is_32_bit: tables.fadt.pm_timer_is_32_bit });
                pm.filter(|pm| pm.counts())
            }
            ReferenceClock::Pit => Some(Self::pit()),
        }
    }

    fn hpet(at: oxen_types::Maddr) -> Option<Self> {
        let page = oxen_types::Maddr(at.0 & !0xfff);
        let base = crate::paging::map_mmio(page, 4096) as usize + at.page_offset();
        // SAFETY: the page of registers is mapped for ever; starting the main counter has no effect on memory.
        let capabilities = unsafe {
            let capabilities = ((base + hpet::CAPABILITIES) as *const u64).read_volatile();
            let configuration = (base + hpet::CONFIGURATION) as *mut u64;
            configuration.write_volatile(configuration.read_volatile() | hpet::ENABLE);
            capabilities
        };
        let period_fs = capabilities >> 32;
        if period_fs == 0 || period_fs > hpet::MAX_PERIOD_FS {
            return None;
        }
        let hz = (hpet::FS_PER_SEC + period_fs / 2) / period_fs;
        let is_64_bit = capabilities & hpet::COUNTER_IS_64_BIT != 0;
        let clock = Reference::Hpet { counter: base + hpet::COUNTER, hz, is_64_bit };
        clock.counts().then_some(clock)
    }

    fn pit() -> Self {
        // SAFETY: ports of the timer and of the speaker gate; they do not touch memory. Gate on, speaker off, channel 2 in mode 2 from 65536.
        unsafe {
            out8(0x61, in8(0x61) & !2 | 1);
            out8(0x43, 0xb4);
            out8(0x42, 0);
            out8(0x42, 0);
        }
        Reference::Pit
    }

    fn hz(self) -> u64 {
        match self {
            Reference::Hpet { hz, .. } => hz,
            Reference::Pm { .. } => PM_TIMER_HZ,
            Reference::Pit => PIT_HZ,
        }
    }

    /// Bits of the counter that count.
    fn mask(self) -> u64 {
        match self {
            Reference::Hpet { is_64_bit: true, .. } => u64::MAX,
            Reference::Hpet { .. } | Reference::Pm { is_32_bit: true, .. } => u64::from(u32::MAX),
            Reference::Pm { .. } => 0xff_ffff,
            Reference::Pit => 0xffff,
        }
    }

    fn read(self) -> u64 {
        // SAFETY: a mapped register or ports of timers; reading them has no effect on memory.
        unsafe {
            match self {
                Reference::Hpet { counter, is_64_bit: true, .. } => (counter as *const u64).read_volatile(),
                Reference::Hpet { counter, .. } => u64::from((counter as *const u32).read_volatile()),
                Reference::Pm { port, .. } => u64::from(in32(port)),
                Reference::Pit => {
                    out8(0x43, 0x80);
                    let low = in8(0x42);
                    u64::from(0xffff - u16::from_le_bytes([low, in8(0x42)]))
                }
            }
        }
    }

    /// Ticks from one reading to another, less than one turn of the counter apart.
    fn ticks(self, from: u64, to: u64) -> u64 {
        to.wrapping_sub(from) & self.mask()
    }

    fn counts(self) -> bool {
        let first = self.read();
        (0..100_000).any(|_| self.ticks(first, self.read()) != 0)
    }

    /// The counter and the TSC at the same moment, and how many TSC ticks the reading took: the shortest of a few.
    fn sample(self) -> Sample {
        let mut best = Sample { tsc: 0, reference: 0, width: u64::MAX };
        for _ in 0..READINGS {
            let before = ordered_tsc();
            let reference = self.read();
            let width = ordered_tsc().wrapping_sub(before);
            if width < best.width {
                best = Sample { tsc: before.wrapping_add(width / 2), reference, width };
            }
        }
        best
    }
}

#[derive(Clone, Copy)]
struct Sample {
    tsc: u64,
    reference: u64,
    width: u64,
}

/// Result of a measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    /// Time stamp counter, in Hz.
    pub tsc_hz: u64,
    /// Local APIC timer without divider, in Hz; 0 where it does not count.
    pub apic_hz: u64,
    /// Bound of the relative error, in millionths.
    pub error_ppm: u64,
}

/// Measures the counters. The local APIC is on; its timer is left stopped.
pub(crate) fn measure(reference: Reference) -> Rates {
    let mut best = measure_once(reference);
    for _ in 0..2 {
        let turns_fast = matches!(reference, Reference::Pit);
        if best.error_ppm <= GOOD_PPM && !turns_fast {
            break;
        }
        let again = measure_once(reference);
        // A turn of the PIT's counter that goes unseen makes the TSC look fast.
        if if turns_fast { again.tsc_hz < best.tsc_hz } else { again.error_ppm < best.error_ppm } {
            best = again;
        }
    }
    if let Some(exact) = tsc_hz_from_cpuid() {
        // The processor's own word counts where the measurement does not contradict it.
        if exact.abs_diff(best.tsc_hz) < best.tsc_hz / 200 {
            best.apic_hz = (u128::from(best.apic_hz) * u128::from(exact) / u128::from(best.tsc_hz)) as u64;
            best.tsc_hz = exact;
            best.error_ppm = 0;
        }
    }
    best
}

fn measure_once(reference: Reference) -> Rates {
    let window = if matches!(reference, Reference::Pit) { PIT_WINDOW } else { reference.hz() / (NANOS_PER_SEC / WINDOW_NS) };
    local::timer_start_silent(u32::MAX);
    let start = reference.sample();
    let (apic_start, apic_start_tsc) = apic_sample();
    while reference.ticks(start.reference, reference.read()) < window {
        // Reading a device's clock is slow, under an emulator that counts instructions very slow: a microsecond or two of plain code between.
        for turn in 0..PLAIN_TURNS {
            core::hint::black_box(turn);
        }
    }
    let end = reference.sample();
    let (apic_end, apic_end_tsc) = apic_sample();
    local::timer_set_count(0);

    let ticks = reference.ticks(start.reference, end.reference).max(1);
    let tsc = end.tsc.wrapping_sub(start.tsc).max(1);
    let tsc_hz = (u128::from(tsc) * u128::from(reference.hz()) / u128::from(ticks)) as u64;
    let apic_ticks = u64::from(apic_start.wrapping_sub(apic_end));
    let apic_tsc = apic_end_tsc.wrapping_sub(apic_start_tsc).max(1);
    let apic_hz = (u128::from(apic_ticks) * u128::from(tsc_hz) / u128::from(apic_tsc)) as u64;
    // Half the width of each reading and one tick of the reference.
    let error_ppm = (start.width / 2 + end.width / 2).saturating_mul(1_000_000) / tsc + 1_000_000 / ticks;
    Rates { tsc_hz, apic_hz, error_ppm }
}

/// The APIC timer's count and the TSC at the same moment.
fn apic_sample() -> (u32, u64) {
    let mut best = (0, 0, u64::MAX);
    for _ in 0..READINGS {
        let before = ordered_tsc();
        let count = local::timer_count();
        let width = ordered_tsc().wrapping_sub(before);
        if width < best.2 {
            best = (count, before.wrapping_add(width / 2), width);
        }
    }
    (best.0, best.1)
}

/// The TSC's frequency where the processor states it (CPUID leaf 0x15).
fn tsc_hz_from_cpuid() -> Option<u64> {
    if __cpuid(0).eax < 0x15 {
        return None;
    }
    let leaf = __cpuid_count(0x15, 0);
    if leaf.eax == 0 || leaf.ebx == 0 || leaf.ecx == 0 {
        return None;
    }
    Some(u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax))
}
