//! `hvm/hvm_info_table.h`: what the toolstack tells HVM firmware, at a fixed address.

abi_consts! {
    /// Guest-physical address of the table.
    pub const HVM_INFO_PADDR: u64 = 0x9_f800;
    /// Most vCPUs of an HVM guest.
    pub const HVM_MAX_VCPUS: u32 = 128;
}

abi_structs! {
    /// The table; its bytes sum up to 0.
    pub struct HvmInfoTable = "struct hvm_info_table"[48] {
        /// "HVM INFO".
        [0] signature: [u8; 8],
        [8] length: u32,
        [12] checksum: u8,
        /// Whether there are APICs.
        [13] apic_mode: u8,
        [14] _pad: u16,
        [16] nr_vcpus: u32,
        /// First frame after low memory.
        [20] low_mem_pgend: u32,
        /// First frame that is reserved below 4 GiB.
        [24] reserved_mem_pgstart: u32,
        /// First frame after high memory.
        [28] high_mem_pgend: u32,
        /// Bits.
        [32] vcpu_online: [u8; 16],
    }
}
