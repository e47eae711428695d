//! Which model-specific registers a PV guest may read and write, and what it sees.

/// Numbers of model-specific registers (Intel SDM vol. 4; AMD APM vol. 2, appendix "MSR Cross-Reference").
#[allow(missing_docs)]
pub mod number {
    pub const TSC: u32 = 0x10;
    pub const PLATFORM_ID: u32 = 0x17;
    pub const APIC_BASE: u32 = 0x1b;
    pub const UCODE_REV: u32 = 0x8b;
    pub const PLATFORM_INFO: u32 = 0xce;
    pub const MTRR_CAP: u32 = 0xfe;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const PAT: u32 = 0x277;
    pub const PERF_CAPABILITIES: u32 = 0x345;
    /// Public header `arch-x86/cpuid.h`, leaf base + 2: writing an address places the hypercall page there.
    pub const HYPERCALL_PAGE: u32 = 0x4000_0000;
    pub const EFER: u32 = 0xc000_0080;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const SHADOW_GS_BASE: u32 = 0xc000_0102;
    pub const TSC_AUX: u32 = 0xc000_0103;
    pub const K8_SYSCFG: u32 = 0xc001_0010;
    pub const K8_HWCR: u32 = 0xc001_0015;
    pub const K8_TOP_MEM1: u32 = 0xc001_001a;
    pub const K8_TOP_MEM2: u32 = 0xc001_001d;
    pub const AMD64_DE_CFG: u32 = 0xc001_1029;
}

/// The fixed PAT of the PV interface: PA0 to PA7 are WB, WT, UC-, UC, WC, WP, UC, UC.
pub const PV_PAT: u64 = 0x0000_0501_0007_0406;
/// EFER as a 64-bit PV guest sees it: SCE, LME, LMA, NX.
pub const PV_EFER: u64 = 0xd01;
/// Local APIC base: the architectural address, enabled.
pub const PV_APIC_BASE: u64 = 0xfee0_0000 | 1 << 11;
/// The bit of the boot processor in the APIC base register.
pub const APIC_BASE_BSP: u64 = 1 << 8;

/// What reading a register gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// This value.
    Value(u64),
    /// The FS base.
    FsBase,
    /// The active (kernel) GS base.
    ActiveGsBase,
    /// The inactive (user) GS base.
    InactiveGsBase,
    /// The vCPU's TSC_AUX.
    TscAux,
    /// What the machine has, where it has it.
    Machine,
    /// What the machine has, for the hardware domain only; others get `#GP`.
    MachineForHardwareDomain,
    /// `#GP`.
    Refused,
}

/// What writing a register does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets the FS base.
    FsBase,
    /// Sets the active GS base.
    ActiveGsBase,
    /// Sets the inactive GS base.
    InactiveGsBase,
    /// Fills a page of the guest's with hypercall stubs.
    HypercallPage,
    /// Sets TSC_AUX.
    TscAux,
    /// Nothing, silently.
    Ignored,
    /// Nothing where the value is this one, else `#GP`.
    OnlyValue(u64),
    /// `#GP`.
    Refused,
}

/// Policy for reads in the guest's kernel mode. `boot_vcpu` is true on vCPU 0.
#[must_use]
pub fn read(msr: u32, boot_vcpu: bool) -> Read {
    match msr {
        number::FS_BASE => Read::FsBase,
        number::GS_BASE => Read::ActiveGsBase,
        number::SHADOW_GS_BASE => Read::InactiveGsBase,
        number::EFER => Read::Value(PV_EFER),
        number::PAT => Read::Value(PV_PAT),
        number::APIC_BASE => Read::Value(PV_APIC_BASE | if boot_vcpu { APIC_BASE_BSP } else { 0 }),
        number::TSC_AUX => Read::TscAux,
        number::TSC | number::UCODE_REV | number::MISC_ENABLE => Read::Machine,
        number::HYPERCALL_PAGE | number::PERF_CAPABILITIES | number::MCG_CAP | number::MCG_STATUS | number::K8_HWCR => Read::Value(0),
        number::K8_SYSCFG | number::K8_TOP_MEM1 | number::K8_TOP_MEM2 => Read::MachineForHardwareDomain,
        // LFENCE serialises.
        number::AMD64_DE_CFG => Read::Value(2),
        _ => Read::Refused,
    }
}

/// Policy for writes in the guest's kernel mode.
#[must_use]
pub fn write(msr: u32) -> Write {
    match msr {
        number::FS_BASE => Write::FsBase,
        number::GS_BASE => Write::ActiveGsBase,
        number::SHADOW_GS_BASE => Write::InactiveGsBase,
        number::HYPERCALL_PAGE => Write::HypercallPage,
        number::EFER => Write::OnlyValue(PV_EFER),
        number::TSC_AUX => Write::TscAux,
        number::MISC_ENABLE | number::K8_HWCR | number::UCODE_REV => Write::Ignored,
        _ => Write::Refused,
    }
}
