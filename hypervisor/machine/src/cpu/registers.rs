//! Single processor registers and instructions.

use crate::entry::ex_table;
use core::arch::asm;

/// Page-fault address.
#[inline(always)]
pub(crate) fn cr2() -> u64 {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Reads control register 0.
pub(crate) fn cr0() -> u64 {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr0", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Loads control register 0.
///
/// # Safety
/// The value is one with which the running code can go on.
pub(crate) unsafe fn set_cr0(value: u64) {
    // SAFETY: the caller's promise.
    unsafe { asm!("mov cr0, {}", in(reg) value, options(nostack, preserves_flags)) };
}

/// Reads control register 4.
pub(crate) fn cr4() -> u64 {
    let value;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr4", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Loads control register 4.
///
/// # Safety
/// As for [`set_cr0`].
pub(crate) unsafe fn set_cr4(value: u64) {
    // SAFETY: the caller's promise.
    unsafe { asm!("mov cr4, {}", in(reg) value, options(nostack, preserves_flags)) };
}

/// Reads a model-specific register; `None` where the processor refuses.
pub(crate) fn rdmsr(msr: u32) -> Option<u64> {
    let (low, high, failed): (u32, u32, u32);
    // SAFETY: reading a register has no effect on memory; a refusal goes on at label 3 with `failed` still 1.
    unsafe {
        asm!("mov {failed:e}, 1", "2: rdmsr", "xor {failed:e}, {failed:e}", "3:", ex_table!("2b", "3b", "3b"),
             failed = out(reg) failed, in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack));
    }
    (failed == 0).then_some(u64::from(high) << 32 | u64::from(low))
}

/// Writes a model-specific register; `false` where the processor refuses.
///
/// # Safety
/// The register is not one on which the running hypervisor depends, or the value is right for it.
pub(crate) unsafe fn wrmsr(msr: u32, value: u64) -> bool {
    let failed: u32;
    // SAFETY: the caller's promise; a refusal goes on at label 3 with `failed` still 1.
    unsafe {
        asm!("mov {failed:e}, 1", "2: wrmsr", "xor {failed:e}, {failed:e}", "3:", ex_table!("2b", "3b", "3b"),
             failed = out(reg) failed, in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack));
    }
    failed == 0
}

/// Loads extended control register 0; `false` where the processor refuses.
pub(crate) fn xsetbv(value: u64) -> bool {
    let failed: u32;
    // SAFETY: the register only says which extended state exists, and the hypervisor keeps nothing in such state.
    unsafe {
        asm!("mov {failed:e}, 1", "2: xsetbv", "xor {failed:e}, {failed:e}", "3:", ex_table!("2b", "3b", "3b"),
             failed = out(reg) failed, in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack));
    }
    failed == 0
}

macro_rules! debug_registers {
    ($($number:literal)*) => {
        /// Reads a debug register (0 to 3, 6, 7; others read as 0).
        pub(crate) fn debug_register(number: usize) -> u64 {
            let value;
            match number {
                // SAFETY: reads a register.
                $($number => unsafe { asm!(concat!("mov {}, dr", $number), out(reg) value, options(nomem, nostack, preserves_flags)) },)*
                _ => value = 0,
            }
            value
        }

        /// Loads a debug register (0 to 3, 6, 7; others are ignored).
        ///
        /// # Safety
        /// No watchpoint covers the hypervisor's own addresses; reserved bits are as the processor demands.
        pub(crate) unsafe fn set_debug_register(number: usize, value: u64) {
            match number {
                // SAFETY: the caller's promise.
                $($number => unsafe { asm!(concat!("mov dr", $number, ", {}"), in(reg) value, options(nomem, nostack, preserves_flags)) },)*
                _ => {}
            }
        }
    };
}
debug_registers!(0 1 2 3 6 7);

/// Drops the calling CPU's translation of one address, a global one too.
#[inline]
pub(crate) fn invlpg(va: u64) {
    // SAFETY: forgetting a translation changes no meaning.
    unsafe { asm!("invlpg [{}]", in(reg) va, options(nostack, preserves_flags)) };
}
