//! Data segment registers and their bases. All of them hold the guest's values at all times: the hypervisor's code needs none.

use super::msr;
use super::registers::{rdmsr, wrmsr};
use super::start::CR4_FSGSBASE;
use crate::entry::ex_table;
use crate::percpu::current;
use core::arch::asm;

macro_rules! selector {
    ($read:ident, $load:ident, $register:literal) => {
        /// Reads the selector.
        pub(crate) fn $read() -> u16 {
            let value: u32;
            // SAFETY: reads a register.
            unsafe { asm!(concat!("mov {:e}, ", $register), out(reg) value, options(nomem, nostack, preserves_flags)) };
            value as u16
        }

        /// Loads a selector; one that the descriptor tables do not allow is loaded as null, and `false` comes back.
        pub(crate) fn $load(selector: u16) -> bool {
            let failed: u32;
            // SAFETY: 64-bit code does not use the segment; a refusal goes on at label 3 with `failed` still 1.
            unsafe {
                asm!("mov {failed:e}, 1", concat!("2: mov ", $register, ", {selector:e}"), "xor {failed:e}, {failed:e}", "3:",
                     ex_table!("2b", "3b", "3b"), failed = out(reg) failed, selector = in(reg) u32::from(selector), options(nostack));
                if failed != 0 {
                    asm!(concat!("mov ", $register, ", {:e}"), in(reg) 0, options(nostack, preserves_flags));
                }
            }
            failed == 0
        }
    };
}

selector!(ds, load_ds, "ds");
selector!(es, load_es, "es");
selector!(fs, load_fs, "fs");
selector!(gs, load_gs, "gs");

/// Exchanges the active and the inactive GS base.
#[inline(always)]
pub(crate) fn swapgs() {
    // SAFETY: the hypervisor does not use GS.
    unsafe { asm!("swapgs", options(nomem, nostack, preserves_flags)) };
}

/// True where the instructions for bases work: the processor has them and the running guest has them enabled.
#[inline]
fn fsgsbase() -> bool {
    current().cr4.get() & CR4_FSGSBASE != 0
}

fn read_msr(register: u32) -> u64 {
    // The registers exist in every 64-bit processor.
    rdmsr(register).unwrap_or(0)
}

fn write_msr(register: u32, value: u64) {
    // SAFETY: the hypervisor uses neither FS nor GS. A value that is not canonical is refused and changes nothing.
    unsafe { wrmsr(register, value) };
}

/// FS base.
pub(crate) fn fs_base() -> u64 {
    if !fsgsbase() {
        return read_msr(msr::FS_BASE);
    }
    let value;
    // SAFETY: reads a register, by an instruction that CR4 enables.
    unsafe { asm!("rdfsbase {}", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Active GS base.
pub(crate) fn gs_base() -> u64 {
    if !fsgsbase() {
        return read_msr(msr::GS_BASE);
    }
    let value;
    // SAFETY: as in `fs_base`.
    unsafe { asm!("rdgsbase {}", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Sets the FS base; a value that is not canonical changes nothing.
pub(crate) fn set_fs_base(base: u64) {
    if !fsgsbase() {
        return write_msr(msr::FS_BASE, base);
    }
    // SAFETY: the hypervisor does not use FS; a refusal goes on at label 3.
    unsafe { asm!("2: wrfsbase {}", "3:", ex_table!("2b", "3b", "3b"), in(reg) base, options(nomem, nostack, preserves_flags)) };
}

/// Sets the active GS base; a value that is not canonical changes nothing.
pub(crate) fn set_gs_base(base: u64) {
    if !fsgsbase() {
        return write_msr(msr::GS_BASE, base);
    }
    // SAFETY: as in `set_fs_base`.
    unsafe { asm!("2: wrgsbase {}", "3:", ex_table!("2b", "3b", "3b"), in(reg) base, options(nomem, nostack, preserves_flags)) };
}

/// Inactive GS base.
pub(crate) fn inactive_gs_base() -> u64 {
    if !fsgsbase() {
        return read_msr(msr::KERNEL_GS_BASE);
    }
    swapgs();
    let value = gs_base();
    swapgs();
    value
}

/// Sets the inactive GS base; a value that is not canonical changes nothing.
pub(crate) fn set_inactive_gs_base(base: u64) {
    if !fsgsbase() {
        return write_msr(msr::KERNEL_GS_BASE, base);
    }
    swapgs();
    set_gs_base(base);
    swapgs();
}
