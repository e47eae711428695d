//! Extended state: x87, SSE, AVX and AVX-512 registers. It is switched with the vCPU at once, never lazily, and a vCPU starts with all of it
//! in its initial state, so that no guest sees another one's registers.

use super::features::Features;
use super::registers::xsetbv;
use crate::entry::ex_table;
use crate::percpu::current;
use core::arch::asm;
use oxen_hal::FpuArea;

/// Saves the extended state into `area`. CR0.TS is clear.
pub(crate) fn save(features: &Features, area: &mut FpuArea) {
    let guest = current().xcr0.get();
    let to = pointer(features, area);
    if !features.xsave {
        // SAFETY: the area is aligned and large enough, which `pointer` checks.
        unsafe { asm!("fxsave64 [{}]", in(reg) to, options(nostack, preserves_flags)) };
        return;
    }
    let all = features.xcr0;
    if guest != all {
        // What the guest has disabled is still its state.
        xsetbv(all);
    }
    let (low, high) = (all as u32, (all >> 32) as u32);
    // SAFETY: as above; the components are those that the area's size was computed for.
    unsafe {
        if features.xsaveopt {
            asm!("xsaveopt64 [{}]", in(reg) to, in("eax") low, in("edx") high, options(nostack, preserves_flags));
        } else {
            asm!("xsave64 [{}]", in(reg) to, in("eax") low, in("edx") high, options(nostack, preserves_flags));
        }
    }
    if guest != all {
        xsetbv(guest);
    }
}

/// Loads the extended state from `area` and the guest's `xcr0`. CR0.TS is clear. An image that the processor refuses (a guest's restored state
/// can be anything) gives the initial state and `false`.
pub(crate) fn load(features: &Features, area: &FpuArea, xcr0: u64) -> bool {
    let from = area.as_bytes().as_ptr();
    assert!(area.as_bytes().len() >= features.fpu_bytes, "extended state area is too small");
    if features.clears_fpu_pointers {
        clear_fpu_pointers();
    }
    if !features.xsave {
        return fxrstor(from);
    }
    let cpu = current();
    if cpu.xcr0.get() != features.xcr0 {
        xsetbv(features.xcr0);
        cpu.xcr0.set(features.xcr0);
    }
    let done = xrstor(features.xcr0, from) || {
        let clean = Initial::new();
        xrstor(features.xcr0, clean.bytes.as_ptr());
        false
    };
    if xcr0 != features.xcr0 && xsetbv(xcr0) {
        cpu.xcr0.set(xcr0);
    }
    done
}

fn xrstor(mask: u64, from: *const u8) -> bool {
    let failed: u32;
    // SAFETY: the area is aligned and as large as `mask` needs; a refusal goes on at label 3 with `failed` still 1.
    unsafe {
        asm!("mov {failed:e}, 1", "2: xrstor64 [{from}]", "xor {failed:e}, {failed:e}", "3:", ex_table!("2b", "3b", "3b"),
             failed = out(reg) failed, from = in(reg) from, in("eax") mask as u32, in("edx") (mask >> 32) as u32,
             options(nostack, readonly));
    }
    failed == 0
}

fn fxrstor(from: *const u8) -> bool {
    let restore = |from: *const u8| {
        let failed: u32;
        // SAFETY: as in `xrstor`.
        unsafe {
            asm!("mov {failed:e}, 1", "2: fxrstor64 [{from}]", "xor {failed:e}, {failed:e}", "3:", ex_table!("2b", "3b", "3b"),
                 failed = out(reg) failed, from = in(reg) from, options(nostack, readonly));
        }
        failed == 0
    };
    restore(from) || {
        restore(Initial::new().bytes.as_ptr());
        false
    }
}

/// AMD processors without the feature "XSaveErPtr" keep the x87 instruction and data pointers of the last user when no exception is
/// pending (APM vol. 2, "FXSAVE and FXRSTOR instructions"): this loads harmless ones.
fn clear_fpu_pointers() {
    let zero = 0_u32;
    // SAFETY: changes x87 state only, which is loaded next.
    unsafe { asm!("fnclex", "emms", "fild dword ptr [{}]", in(reg) &raw const zero, options(nostack)) };
}

/// The initial state in the format of XRSTOR and FXRSTOR: no component present, default control words.
#[repr(C, align(64))]
struct Initial {
    bytes: [u8; 576],
}

impl Initial {
    fn new() -> Self {
        let mut bytes = [0; 576];
        bytes[0..2].copy_from_slice(&0x37f_u16.to_le_bytes());
        bytes[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        Self { bytes }
    }
}

fn pointer(features: &Features, area: &mut FpuArea) -> *mut u8 {
    let bytes = area.as_mut_bytes();
    assert!(bytes.len() >= features.fpu_bytes, "extended state area is too small");
    bytes.as_mut_ptr()
}
