//! `version.h`: what hypervisor this is.

abi_enums! {
    /// The commands of `xen_version`.
    pub enum VersionOp: u32 {
        /// Returns `major << 16 | minor`.
        VERSION = 0 => "XENVER_version",
        /// 16 bytes of text.
        EXTRAVERSION = 1 => "XENVER_extraversion",
        /// [`CompileInfo`].
        COMPILE_INFO = 2 => "XENVER_compile_info",
        /// 1024 bytes of text.
        CAPABILITIES = 3 => "XENVER_capabilities",
        /// 64 bytes of text.
        CHANGESET = 4 => "XENVER_changeset",
        /// [`PlatformParameters`].
        PLATFORM_PARAMETERS = 5 => "XENVER_platform_parameters",
        /// [`FeatureInfo`].
        GET_FEATURES = 6 => "XENVER_get_features",
        /// Returns the page size in bytes.
        PAGESIZE = 7 => "XENVER_pagesize",
        /// 16 bytes: the caller's UUID.
        GUEST_HANDLE = 8 => "XENVER_guest_handle",
        /// 1024 bytes of text.
        COMMANDLINE = 9 => "XENVER_commandline",
        /// [`BuildId`], then that many bytes; a null argument asks for the length.
        BUILD_ID = 10 => "XENVER_build_id",
    }
}

/// Bytes of the text that [`VersionOp::EXTRAVERSION`] gives (`xen_extraversion_t`).
pub const EXTRAVERSION_LEN: usize = 16;
/// Bytes of the text that [`VersionOp::CAPABILITIES`] gives (`xen_capabilities_info_t`).
pub const CAPABILITIES_LEN: usize = 1024;
/// Bytes of the text that [`VersionOp::CHANGESET`] gives (`xen_changeset_info_t`).
pub const CHANGESET_LEN: usize = 64;
/// Bytes of the text that [`VersionOp::COMMANDLINE`] gives (`xen_commandline_t`).
pub const COMMANDLINE_LEN: usize = 1024;

abi_structs! {
    /// Who compiled the hypervisor; zero-terminated texts.
    pub struct CompileInfo = "struct xen_compile_info"[144] {
        [0] compiler: [u8; 64],
        [64] compile_by: [u8; 16],
        [80] compile_domain: [u8; 32],
        [112] compile_date: [u8; 32],
    }

    /// Where the hypervisor's address space starts.
    pub struct PlatformParameters = "struct xen_platform_parameters"[8] {
        [0] virt_start: u64,
    }

    /// 32 feature bits ([`crate::features`]).
    pub struct FeatureInfo = "struct xen_feature_info"[8] {
        /// Which 32; only 0 exists.
        [0] submap_idx: u32,
        /// Result: the bits.
        [4] submap: u32,
    }

    /// Head of the build id.
    pub struct BuildId = "xen_build_id_t"[4] {
        /// Bytes that follow.
        [0] len: u32,
    }
}
