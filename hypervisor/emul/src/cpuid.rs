//! What CPUID shows to PV guests: what the machine has, cut down to what a guest may use.

/// Registers of a CPUID answer: eax, ebx, ecx, edx.
pub type Leaf = [u32; 4];

/// Feature masks of PV guests, word for word those of Xen 4.17 (its default PV policy); leaf and register are in the constants' names.
mod mask {
    pub const L1_EDX: u32 = 0x1fc9_cbf5;
    pub const L1_ECX: u32 = 0xf6d8_3203;
    pub const E1_EDX: u32 = 0xea50_0800;
    pub const E1_ECX: u32 = 0x0421_09e3;
    pub const LD1_EAX: u32 = 0x0000_0007;
    pub const L7_EBX: u32 = 0xfdaf_0b29;
    pub const L7_ECX: u32 = 0x0240_5f43;
    pub const E8_EBX: u32 = 0x6400_1005;
    pub const L7_EDX: u32 = 0xac00_441c;
    pub const L7_1_EAX: u32 = 0x0000_1c30;
    pub const E21_EAX: u32 = 0x7800_0064;
    pub const L7_2_EDX: u32 = 0x0000_0021;
}

const XSAVE: u32 = 1 << 26;
const OSXSAVE: u32 = 1 << 27;
const HYPERVISOR: u32 = 1 << 31;
const INVARIANT_TSC: u32 = 1 << 8;
/// State components that guests may enable: x87, SSE, AVX, AVX-512.
const XSTATES: u64 = 0xe7;
const XSTATE_AVX512: u64 = 0xe0;
/// Highest leaves that guests see.
const MAX_BASIC: u32 = 0xd;
const MAX_EXTENDED: u32 = 0x8000_0021;
/// First of the hypervisor's own leaves (public header `arch-x86/cpuid.h`).
const HYPERVISOR_BASE: u32 = 0x4000_0000;
const HYPERVISOR_LAST: u32 = 0x4000_0005;
/// 4.17.
const VERSION: u32 = 4 << 16 | 17;
/// `XEN_CPUID_FEAT1_MMU_PT_UPDATE_PRESERVE_AD`.
const PRESERVE_AD: u32 = 1;

/// One question of a guest.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// eax.
    pub leaf: u32,
    /// ecx.
    pub subleaf: u32,
    /// The guest's own CR4 bits.
    pub cr4: u64,
    /// The guest's XCR0.
    pub xcr0: u64,
    /// Number of the vCPU that asks.
    pub vcpu: u32,
    /// vCPUs that the domain may have.
    pub max_vcpus: u32,
    /// It drives the hardware: it stays on this machine.
    pub hardware_domain: bool,
    /// TSC frequency in kHz.
    pub tsc_khz: u64,
    /// Multiplier and shift from TSC ticks to nanoseconds.
    pub tsc_scale: (u32, i8),
}

/// CR4 bits that a guest may set on a machine whose CPUID is `host`: TSD, DE, FSGSBASE, OSXSAVE.
pub fn allowed_cr4(host: &dyn Fn(u32, u32) -> Leaf) -> u64 {
    let mut bits = 1 << 2 | 1 << 3;
    if host(0, 0)[0] >= 7 && host(7, 0)[1] & 1 != 0 {
        bits |= 1 << 16;
    }
    if host(1, 0)[2] & XSAVE != 0 {
        bits |= 1 << 18;
    }
    bits
}

/// State components that guests may enable on this machine.
pub fn xstates(host: &dyn Fn(u32, u32) -> Leaf) -> u64 {
    if host(1, 0)[2] & XSAVE == 0 {
        return 3;
    }
    let [low, _, _, high] = host(0xd, 0);
    (u64::from(low) | u64::from(high) << 32) & XSTATES
}

/// Whether a guest may set XCR0 to `value`.
pub fn valid_xcr0(value: u64, host: &dyn Fn(u32, u32) -> Leaf) -> bool {
    let avx_without_sse = value & 4 != 0 && value & 2 == 0;
    let avx512 = value & XSTATE_AVX512;
    let bad_avx512 = avx512 != 0 && (avx512 != XSTATE_AVX512 || value & 4 == 0);
    value & 1 != 0 && value & !xstates(host) == 0 && !avx_without_sse && !bad_avx512
}

/// The answer for a PV guest; `host` asks the processor.
pub fn pv(query: &Query, host: impl Fn(u32, u32) -> Leaf) -> Leaf {
    let host: &dyn Fn(u32, u32) -> Leaf = &host;
    match query.leaf {
        0..=MAX_BASIC => basic(query, host),
        HYPERVISOR_BASE..=HYPERVISOR_LAST => hypervisor(query, host),
        0x8000_0000..=MAX_EXTENDED => extended(query, host),
        _ => [0; 4],
    }
}

fn basic(query: &Query, host: &dyn Fn(u32, u32) -> Leaf) -> Leaf {
    let raw = host(query.leaf, query.subleaf);
    if query.leaf > host(0, 0)[0] {
        return [0; 4];
    }
    let [a, b, c, d] = raw;
    match query.leaf {
        0 => [a.min(MAX_BASIC), b, c, d],
        1 => {
            let osxsave = if query.cr4 >> 18 & 1 != 0 { OSXSAVE } else { 0 };
            let ecx = c & mask::L1_ECX & !OSXSAVE | osxsave | HYPERVISOR;
            // Initial APIC id in bits 24 to 31, logical processors in 16 to 23.
            let apic = query.vcpu.wrapping_mul(2) & 0xff;
            let logical = query.max_vcpus.min(127) * 2;
            [a, b & 0xffff | logical << 16 | apic << 24, ecx, d & mask::L1_EDX]
        }
        2 | 4 => raw,
        7 => match query.subleaf {
            0 => [a.min(2), b & mask::L7_EBX, c & mask::L7_ECX, d & mask::L7_EDX],
            1 if host(7, 0)[0] >= 1 => [a & mask::L7_1_EAX, 0, 0, 0],
            2 if host(7, 0)[0] >= 2 => [0, 0, 0, d & mask::L7_2_EDX],
            _ => [0; 4],
        },
        0xb => match query.subleaf {
            0 => [1, 1, 0x100, query.vcpu.wrapping_mul(2)],
            1 => [8, query.max_vcpus, 0x201, query.vcpu.wrapping_mul(2)],
            n => [0, 0, n & 0xff, query.vcpu.wrapping_mul(2)],
        },
        0xd => xsave_leaf(query, host),
        _ => [0; 4],
    }
}

fn xsave_leaf(query: &Query, host: &dyn Fn(u32, u32) -> Leaf) -> Leaf {
    let states = xstates(host);
    if host(1, 0)[2] & XSAVE == 0 {
        return [0; 4];
    }
    match query.subleaf {
        0 => [states as u32, xsave_bytes(query.xcr0, host), xsave_bytes(states, host), (states >> 32) as u32],
        1 => [host(0xd, 1)[0] & mask::LD1_EAX, 0, 0, 0],
        n @ 2..=62 if states >> n & 1 != 0 => host(0xd, n),
        _ => [0; 4],
    }
}

/// Bytes of an XSAVE area in standard form with these components.
fn xsave_bytes(states: u64, host: &dyn Fn(u32, u32) -> Leaf) -> u32 {
    (2..63)
        .filter(|n| states >> n & 1 != 0)
        .map(|n| {
            let [size, offset, ..] = host(0xd, n);
            size.saturating_add(offset)
        })
        .fold(576, u32::max)
}

fn hypervisor(query: &Query, host: &dyn Fn(u32, u32) -> Leaf) -> Leaf {
    let text = |four: &[u8; 4]| u32::from_le_bytes(*four);
    match query.leaf - HYPERVISOR_BASE {
        0 => [HYPERVISOR_LAST, text(b"XenV"), text(b"MMXe"), text(b"nVMM")],
        1 => [VERSION, 0, 0, 0],
        // One hypercall page, placed by writing this MSR.
        2 => [1, HYPERVISOR_BASE, PRESERVE_AD, 0],
        3 => match query.subleaf {
            // Bit 2: the TSC is safe to use on its own; mode 0; frequency; incarnation 0.
            0 => [1 << 2, 0, query.tsc_khz as u32, 0],
            1 => [0, 0, query.tsc_scale.0, i32::from(query.tsc_scale.1) as u32],
            2 => [query.tsc_khz as u32, 0, 0, 0],
            _ => [0; 4],
        },
        5 => [0, host(0x8000_0008, 0)[0] & 0xff, 0, 0],
        _ => [0; 4],
    }
}

fn extended(query: &Query, host: &dyn Fn(u32, u32) -> Leaf) -> Leaf {
    if query.leaf > host(0x8000_0000, 0)[0] {
        return [0; 4];
    }
    let [a, b, c, d] = host(query.leaf, query.subleaf);
    match query.leaf & 0xff {
        0 => [a.min(MAX_EXTENDED), b, c, d],
        1 => [a, b & 0xf000_0000, c & mask::E1_ECX, d & mask::E1_EDX | host(1, 0)[3] & mask::L1_EDX & shared_with_leaf_1(host)],
        2..=6 => [a, b, c, d],
        7 => [0, 0, 0, if query.hardware_domain { d & INVARIANT_TSC } else { 0 }],
        8 => [a & 0xffff, b & mask::E8_EBX, 0, 0],
        0x21 => [a & mask::E21_EAX, 0, 0, 0],
        _ => [0; 4],
    }
}

/// AMD and Hygon processors repeat many bits of leaf 1's edx in the extended leaf (AMD APM vol. 3, appendix "Fn8000_0001").
fn shared_with_leaf_1(host: &dyn Fn(u32, u32) -> Leaf) -> u32 {
    let [_, b, ..] = host(0, 0);
    if b == u32::from_le_bytes(*b"Auth") || b == u32::from_le_bytes(*b"Hygo") { 0x0183_f3ff } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything(leaf: u32, _: u32) -> Leaf {
        match leaf {
            0 => [0x20, u32::from_le_bytes(*b"Auth"), 0, 0],
            0x8000_0000 => [0x8000_0021, 0, 0, 0],
            _ => [u32::MAX; 4],
        }
    }

    fn query(leaf: u32, subleaf: u32) -> Query {
        Query { leaf, subleaf, cr4: 0, xcr0: 1, vcpu: 1, max_vcpus: 2, hardware_domain: false, tsc_khz: 1_000_000, tsc_scale: (1 << 31, 1) }
    }

    #[test]
    fn hides_what_a_pv_guest_cannot_use() {
        let [_, _, ecx, edx] = pv(&query(1, 0), everything);
        assert_eq!((ecx & OSXSAVE, ecx & HYPERVISOR, ecx & 1 << 5), (0, HYPERVISOR, 0));
        assert_eq!((edx & 1 << 3, edx & 1 << 13), (0, 0), "PSE and PGE");
        assert_eq!(pv(&query(7, 0), everything)[1] & (1 << 7 | 1 << 20), 0, "SMEP and SMAP");
        assert_eq!(pv(&query(0x15, 0), everything), [0; 4]);
        assert_eq!(pv(&query(0, 0), everything)[0], MAX_BASIC);
    }

    #[test]
    fn signs_itself() {
        let [max, b, c, d] = pv(&query(HYPERVISOR_BASE, 0), everything);
        assert!(max >= HYPERVISOR_BASE + 2);
        let text: [[u8; 4]; 3] = [b, c, d].map(u32::to_le_bytes);
        assert_eq!(text.as_flattened(), b"XenVMMXenVMM");
    }

    #[test]
    fn xcr0_rules() {
        assert!(valid_xcr0(1, &everything) && valid_xcr0(7, &everything) && valid_xcr0(0xe7, &everything));
        assert!(!valid_xcr0(0, &everything) && !valid_xcr0(5, &everything) && !valid_xcr0(0x67, &everything) && !valid_xcr0(1 << 9 | 3, &everything));
    }
}
