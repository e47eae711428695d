//! `features.h`: bit numbers of the features that guests ask for with `XENVER_get_features`.

abi_consts! {
    /// Guests may write their page tables directly.
    pub const XENFEAT_WRITABLE_PAGE_TABLES: u32 = 0 => "XENFEAT_writable_page_tables";
    /// Guests may write their descriptor tables directly.
    pub const XENFEAT_WRITABLE_DESCRIPTOR_TABLES: u32 = 1 => "XENFEAT_writable_descriptor_tables";
    /// Frames in page tables are guest frames.
    pub const XENFEAT_AUTO_TRANSLATED_PHYSMAP: u32 = 2 => "XENFEAT_auto_translated_physmap";
    /// The kernel runs in ring 0.
    pub const XENFEAT_SUPERVISOR_MODE_KERNEL: u32 = 3 => "XENFEAT_supervisor_mode_kernel";
    /// PAE page directories may be above 4 GiB.
    pub const XENFEAT_PAE_PGDIR_ABOVE_4GB: u32 = 4 => "XENFEAT_pae_pgdir_above_4gb";
    /// `MMU_PT_UPDATE_PRESERVE_AD` exists.
    pub const XENFEAT_MMU_PT_UPDATE_PRESERVE_AD: u32 = 5 => "XENFEAT_mmu_pt_update_preserve_ad";
    /// `MMUEXT_CLEAR_PAGE` and `MMUEXT_COPY_PAGE` exist.
    pub const XENFEAT_HIGHMEM_ASSIST: u32 = 6 => "XENFEAT_highmem_assist";
    /// Grant mappings take available bits of the entry.
    pub const XENFEAT_GNTTAB_MAP_AVAIL_BITS: u32 = 7 => "XENFEAT_gnttab_map_avail_bits";
    /// HVM guests may take events at a vector.
    pub const XENFEAT_HVM_CALLBACK_VECTOR: u32 = 8 => "XENFEAT_hvm_callback_vector";
    /// The PV clock is safe to use in HVM guests.
    pub const XENFEAT_HVM_SAFE_PVCLOCK: u32 = 9 => "XENFEAT_hvm_safe_pvclock";
    /// HVM guests may take interrupts over event channels.
    pub const XENFEAT_HVM_PIRQS: u32 = 10 => "XENFEAT_hvm_pirqs";
    /// The guest may be domain 0.
    pub const XENFEAT_DOM0: u32 = 11 => "XENFEAT_dom0";
    /// Memory reservations may name virtual NUMA nodes.
    pub const XENFEAT_MEMORY_OP_VNODE_SUPPORTED: u32 = 13 => "XENFEAT_memory_op_vnode_supported";
    /// ELF note only: the kernel takes the RSDP anywhere.
    pub const XENFEAT_LINUX_RSDP_UNRESTRICTED: u32 = 15 => "XENFEAT_linux_rsdp_unrestricted";
    /// Guest frames are not machine frames.
    pub const XENFEAT_NOT_DIRECT_MAPPED: u32 = 16 => "XENFEAT_not_direct_mapped";
    /// Guest frames are machine frames.
    pub const XENFEAT_DIRECT_MAPPED: u32 = 17 => "XENFEAT_direct_mapped";
}
