//! `arch-x86/cpuid.h`: the hypervisor's CPUID leaves.

/// The signature in `ebx`, `ecx`, `edx` of the first leaf: "XenVMMXenVMM".
pub const SIGNATURE: [u32; 3] = [
    XEN_CPUID_SIGNATURE_EBX,
    XEN_CPUID_SIGNATURE_ECX,
    XEN_CPUID_SIGNATURE_EDX,
];

abi_consts! {
    /// The first leaf: highest leaf and signature.
    pub const XEN_CPUID_FIRST_LEAF: u32 = 0x4000_0000;
    /// Leaves after the first one.
    pub const XEN_CPUID_MAX_NUM_LEAVES: u32 = 5;
    /// "XenV".
    pub const XEN_CPUID_SIGNATURE_EBX: u32 = 0x566e_6558;
    /// "MMXe".
    pub const XEN_CPUID_SIGNATURE_ECX: u32 = 0x6558_4d4d;
    /// "nVMM".
    pub const XEN_CPUID_SIGNATURE_EDX: u32 = 0x4d4d_566e;
    /// Leaf +2, `ecx`: `MMU_PT_UPDATE_PRESERVE_AD` exists.
    pub const XEN_CPUID_FEAT1_MMU_PT_UPDATE_PRESERVE_AD: u32 = 1 << 0;
    /// Leaf +4, `eax`: APIC registers are virtualised.
    pub const XEN_HVM_CPUID_APIC_ACCESS_VIRT: u32 = 1 << 0;
    /// Leaf +4, `eax`: x2APIC accesses are virtualised.
    pub const XEN_HVM_CPUID_X2APIC_VIRT: u32 = 1 << 1;
    /// Leaf +4, `eax`: grant and foreign mappings are in the IOMMU too.
    pub const XEN_HVM_CPUID_IOMMU_MAPPINGS: u32 = 1 << 2;
    /// Leaf +4, `eax`: `ebx` is the vCPU's number.
    pub const XEN_HVM_CPUID_VCPU_ID_PRESENT: u32 = 1 << 3;
    /// Leaf +4, `eax`: `ecx` is the domain id.
    pub const XEN_HVM_CPUID_DOMID_PRESENT: u32 = 1 << 4;
    /// Leaf +4, `eax`: interrupts reach APIC ids above 255.
    pub const XEN_HVM_CPUID_EXT_DEST_ID: u32 = 1 << 5;
    /// Leaf +4, `eax`: each vCPU can have its own event vector.
    pub const XEN_HVM_CPUID_UPCALL_VECTOR: u32 = 1 << 6;
    /// Leaf +5, `ebx`: width of machine addresses.
    pub const XEN_CPUID_MACHINE_ADDRESS_WIDTH_MASK: u32 = 0xff;
}
