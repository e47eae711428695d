//! `arch-x86/hvm/start_info.h`: what a PVH guest finds at `ebx`.

abi_consts! {
    /// [`HvmStartInfo::magic`]: "xEn3" with bit 7 of the E set.
    pub const XEN_HVM_START_MAGIC_VALUE: u32 = 0x336e_c578;
}

abi_enums! {
    /// What a range of the memory map is.
    pub enum MemmapType: u32 {
        /// Memory.
        RAM = 1 => "XEN_HVM_MEMMAP_TYPE_RAM",
        /// Reserved.
        RESERVED = 2 => "XEN_HVM_MEMMAP_TYPE_RESERVED",
        /// ACPI tables.
        ACPI = 3 => "XEN_HVM_MEMMAP_TYPE_ACPI",
        /// ACPI non-volatile storage.
        NVS = 4 => "XEN_HVM_MEMMAP_TYPE_NVS",
        /// Bad memory.
        UNUSABLE = 5 => "XEN_HVM_MEMMAP_TYPE_UNUSABLE",
        /// Disabled memory.
        DISABLED = 6 => "XEN_HVM_MEMMAP_TYPE_DISABLED",
        /// Persistent memory.
        PMEM = 7 => "XEN_HVM_MEMMAP_TYPE_PMEM",
    }
}

abi_structs! {
    /// The head. Addresses are guest-physical.
    pub struct HvmStartInfo = "struct hvm_start_info"[56] {
        [0] magic: u32,
        /// 1: the memory map fields exist.
        [4] version: u32,
        /// [`crate::xen::SIF_PRIVILEGED`], [`crate::xen::SIF_INITDOMAIN`].
        [8] flags: u32,
        [12] nr_modules: u32,
        /// Array of [`HvmModlistEntry`].
        [16] modlist_paddr: u64,
        /// Command line.
        [24] cmdline_paddr: u64,
        /// ACPI RSDP.
        [32] rsdp_paddr: u64,
        /// Array of [`HvmMemmapTableEntry`].
        [40] memmap_paddr: u64,
        [48] memmap_entries: u32,
        [52] reserved: u32,
    }

    /// A module; the first one is Linux's initial RAM disk.
    pub struct HvmModlistEntry = "struct hvm_modlist_entry"[32] {
        [0] paddr: u64,
        /// Bytes.
        [8] size: u64,
        [16] cmdline_paddr: u64,
        [24] reserved: u64,
    }

    /// A range of memory.
    pub struct HvmMemmapTableEntry = "struct hvm_memmap_table_entry"[24] {
        [0] addr: u64,
        /// Bytes.
        [8] size: u64,
        [16] kind: MemmapType as "type",
        [20] reserved: u32,
    }
}
