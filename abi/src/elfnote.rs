//! `elfnote.h`: the notes by which a kernel image describes itself.

/// The name of the notes' owner, without the terminating zero.
pub const NOTE_NAME: &str = "Xen";

abi_enums! {
    /// Types of the notes of owner "Xen".
    pub enum ElfNote: u32 {
        /// Text.
        INFO = 0 => "XEN_ELFNOTE_INFO",
        /// Virtual address of the entry point.
        ENTRY = 1 => "XEN_ELFNOTE_ENTRY",
        /// Virtual address of the page to fill with hypercall stubs.
        HYPERCALL_PAGE = 2 => "XEN_ELFNOTE_HYPERCALL_PAGE",
        /// Virtual address of pseudo-physical address 0.
        VIRT_BASE = 3 => "XEN_ELFNOTE_VIRT_BASE",
        /// What to subtract from the image's physical addresses.
        PADDR_OFFSET = 4 => "XEN_ELFNOTE_PADDR_OFFSET",
        /// Interface version, `xen-3.0`.
        XEN_VERSION = 5 => "XEN_ELFNOTE_XEN_VERSION",
        /// Name of the guest.
        GUEST_OS = 6 => "XEN_ELFNOTE_GUEST_OS",
        /// Version of the guest.
        GUEST_VERSION = 7 => "XEN_ELFNOTE_GUEST_VERSION",
        /// Loader, `generic`.
        LOADER = 8 => "XEN_ELFNOTE_LOADER",
        /// `yes` and variants for 32-bit PAE kernels.
        PAE_MODE = 9 => "XEN_ELFNOTE_PAE_MODE",
        /// Features as text.
        FEATURES = 10 => "XEN_ELFNOTE_FEATURES",
        /// Whether to load symbols.
        BSD_SYMTAB = 11 => "XEN_ELFNOTE_BSD_SYMTAB",
        /// Lowest address that the hypervisor's hole may start at.
        HV_START_LOW = 12 => "XEN_ELFNOTE_HV_START_LOW",
        /// Mask and value by which an unused L1 entry keeps a frame.
        L1_MFN_VALID = 13 => "XEN_ELFNOTE_L1_MFN_VALID",
        /// Whether the guest understands a cancelled suspend.
        SUSPEND_CANCEL = 14 => "XEN_ELFNOTE_SUSPEND_CANCEL",
        /// Virtual address at which to map the initial p2m.
        INIT_P2M = 15 => "XEN_ELFNOTE_INIT_P2M",
        /// Whether the guest takes its RAM disk by PFN.
        MOD_START_PFN = 16 => "XEN_ELFNOTE_MOD_START_PFN",
        /// Features as bits ([`crate::features`]).
        SUPPORTED_FEATURES = 17 => "XEN_ELFNOTE_SUPPORTED_FEATURES",
        /// Physical address of the 32-bit entry point for PVH.
        PHYS32_ENTRY = 18 => "XEN_ELFNOTE_PHYS32_ENTRY",
    }
}
