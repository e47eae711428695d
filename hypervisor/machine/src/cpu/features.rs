//! What the processors of this machine can do. Asked once, on the boot CPU; the others are the same.

use core::arch::x86_64::{__cpuid, __cpuid_count};
use oxen_sync::OnceCell;

/// State components that guests may use: x87, SSE, AVX and AVX-512 (SDM vol. 1, "XSAVE-Supported Features and State-Component Bitmaps").
const XCR0_ALLOWED: u64 = 0xe7;

/// The features that the machine crate uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    /// Supervisor-mode execution prevention.
    pub smep: bool,
    /// Supervisor-mode access prevention.
    pub smap: bool,
    /// Instructions for FS and GS bases.
    pub fsgsbase: bool,
    /// XSAVE.
    pub xsave: bool,
    /// XSAVEOPT.
    pub xsaveopt: bool,
    /// State components that the processor has and guests may use; 3 without XSAVE.
    pub xcr0: u64,
    /// Bytes of an extended state area. Known once XCR0 holds `xcr0`.
    pub fpu_bytes: usize,
    /// TSC_AUX exists.
    pub tsc_aux: bool,
    /// Global pages.
    pub pge: bool,
    /// Page attribute table.
    pub pat: bool,
    /// Machine checks.
    pub mce: bool,
    /// The x87 pointers are to be cleared before a state is loaded.
    pub clears_fpu_pointers: bool,
    /// SYSENTER works in 64-bit mode (it does not on AMD's).
    pub sysenter: bool,
}

impl Features {
    /// Asks the processor. `fpu_bytes` stays 0.
    pub(super) fn detect() -> Self {
        let max = __cpuid(0);
        let one = __cpuid(1);
        let seven = if max.eax >= 7 { __cpuid_count(7, 0).ebx } else { 0 };
        let max_extended = __cpuid(0x8000_0000).eax;
        let extended_edx = if max_extended >= 0x8000_0001 { __cpuid(0x8000_0001).edx } else { 0 };
        let extended_8_ebx = if max_extended >= 0x8000_0008 { __cpuid(0x8000_0008).ebx } else { 0 };
        let bit = |word: u32, n: u32| word >> n & 1 != 0;
        let xsave = bit(one.ecx, 26) && max.eax >= 0xd;
        let components = || {
            let leaf = __cpuid_count(0xd, 0);
            (u64::from(leaf.edx) << 32 | u64::from(leaf.eax)) & XCR0_ALLOWED
        };
        let amd = matches!(&vendor(max.ebx, max.edx, max.ecx), b"AuthenticAMD" | b"HygonGenuine");
        Self {
            smep: bit(seven, 7),
            smap: bit(seven, 20),
            fsgsbase: bit(seven, 0),
            xsave,
            xsaveopt: xsave && bit(__cpuid_count(0xd, 1).eax, 0),
            xcr0: if xsave { consistent(components()) } else { 3 },
            fpu_bytes: 0,
            tsc_aux: bit(extended_edx, 27),
            pge: bit(one.edx, 13),
            pat: bit(one.edx, 16),
            mce: bit(one.edx, 7),
            clears_fpu_pointers: amd && !bit(extended_8_ebx, 2),
            sysenter: bit(one.edx, 11) && !amd,
        }
    }
}

fn vendor(b: u32, d: u32, c: u32) -> [u8; 12] {
    let mut text = [0; 12];
    text[..4].copy_from_slice(&b.to_le_bytes());
    text[4..8].copy_from_slice(&d.to_le_bytes());
    text[8..].copy_from_slice(&c.to_le_bytes());
    text
}

/// The largest value that XSETBV accepts out of `components`: AVX-512 needs all its three parts and AVX, AVX needs SSE.
const fn consistent(components: u64) -> u64 {
    let mut result = components | 3;
    if result & 0xe0 != 0xe0 || result & 4 == 0 {
        result &= !0xe0;
    }
    result
}

static FEATURES: OnceCell<Features> = OnceCell::new();

/// The machine's features, once the boot CPU has been set up; none before.
pub fn features() -> Features {
    FEATURES.get().copied().unwrap_or_default()
}

/// The machine's features, for paths where a copy costs.
#[inline]
pub(crate) fn features_ref() -> &'static Features {
    static NONE: Features = Features {
        smep: false,
        smap: false,
        fsgsbase: false,
        xsave: false,
        xsaveopt: false,
        xcr0: 3,
        fpu_bytes: 512,
        tsc_aux: false,
        pge: false,
        pat: false,
        mce: false,
        clears_fpu_pointers: false,
        sysenter: false,
    };
    FEATURES.get().unwrap_or(&NONE)
}

/// Fixes the features. The first call counts.
pub(super) fn set(features: Features) {
    let _ = FEATURES.set(features);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn component_sets_are_loadable() {
        assert_eq!(consistent(0x7), 7);
        assert_eq!(consistent(0xe7), 0xe7);
        assert_eq!(consistent(0x27), 7);
        assert_eq!(consistent(0xe3), 3);
    }
}
