//! System time out of vcpu_time_info.

use crate::{cpu, start};

/// One consistent copy of a vcpu_time_info.
#[derive(Clone, Copy, Debug)]
pub struct TimeInfo {
    /// Update counter, even.
    pub version: u32,
    /// Time-stamp counter at `system_time_ns`.
    pub tsc_timestamp: u64,
    /// Nanoseconds since boot at `tsc_timestamp`.
    pub system_time_ns: u64,
    /// Fixed-point multiplier, 32 fraction bits.
    pub mul: u32,
    /// Power of two applied before the multiplication.
    pub shift: i8,
    /// Bit 0: the counter is stable across vCPUs.
    pub flags: u8,
}

/// Copies the time information at `va`, repeating while the hypervisor updates it.
pub fn read_time_info(va: u64) -> TimeInfo {
    loop {
        let before = word(va) as u32;
        let info = TimeInfo {
            version: before,
            tsc_timestamp: word(va + 8),
            system_time_ns: word(va + 16),
            mul: word(va + 24) as u32,
            shift: (word(va + 24) >> 32) as i8,
            flags: (word(va + 24) >> 40) as u8,
        };
        if before & 1 == 0 && word(va) as u32 == before {
            return info;
        }
        cpu::relax();
    }
}

fn word(va: u64) -> u64 {
    // SAFETY: `va` lies in a vcpu_info or a registered time area, both mapped; volatile because the hypervisor writes it.
    unsafe { (va as *const u64).read_volatile() }
}

impl TimeInfo {
    /// Nanoseconds of system time at counter value `tsc`.
    pub fn at(&self, tsc: u64) -> u64 {
        let delta = tsc.wrapping_sub(self.tsc_timestamp);
        let delta = if self.shift < 0 { delta >> -self.shift } else { delta << self.shift };
        let scaled = (u128::from(delta) * u128::from(self.mul)) >> 32;
        self.system_time_ns.wrapping_add(scaled as u64)
    }
}

/// Nanoseconds since the hypervisor booted, as seen by `vcpu`, which must be the caller.
pub fn now_on(vcpu: usize) -> u64 {
    let va = start::vcpu_info(vcpu).time_va();
    loop {
        let info = read_time_info(va);
        let now = info.at(cpu::rdtsc());
        // An update between the copy and the counter would mix two bases.
        if word(va) as u32 == info.version {
            return now;
        }
    }
}

/// Nanoseconds since the hypervisor booted, on the boot vCPU.
pub fn now() -> u64 {
    now_on(0)
}

/// Milliseconds in nanoseconds.
pub const MS: u64 = 1_000_000;

/// Spins until `done` says so; false when `timeout_ns` passed first.
pub fn spin_until(timeout_ns: u64, mut done: impl FnMut() -> bool) -> bool {
    let deadline = now() + timeout_ns;
    loop {
        // The clock first: this loop may be held up for longer than the timeout, which must not decide the answer.
        let late = now() > deadline;
        if done() {
            return true;
        }
        if late {
            return false;
        }
        cpu::relax();
    }
}
