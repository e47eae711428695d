//! Model-specific registers that are known to exist.

use core::arch::asm;

/// Local APIC base address and mode.
pub const APIC_BASE: u32 = 0x1b;
/// Deadline of the local APIC timer, in TSC ticks.
pub const TSC_DEADLINE: u32 = 0x6e0;
/// First register of the x2APIC.
pub const X2APIC_FIRST: u32 = 0x800;

/// Reads a register.
///
/// # Safety
/// The processor has the register.
#[inline]
#[must_use]
pub unsafe fn read(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller says that the register exists; reading one has no effect on memory.
    unsafe { asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a register.
///
/// # Safety
/// The processor has the register, and the value has no effect on memory that Rust code uses.
#[inline]
pub unsafe fn write(msr: u32, value: u64) {
    // SAFETY: as the caller says. Memory may be ordered against it (no `nomem`): an interrupt may be its effect.
    unsafe { asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags)) };
}
