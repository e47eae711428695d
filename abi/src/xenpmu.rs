//! `pmu.h`: virtual performance counters.

abi_consts! {
    /// Interface version, major.
    pub const XENPMU_VER_MAJ: u32 = 0;
    /// Interface version, minor.
    pub const XENPMU_VER_MIN: u32 = 1;
}

abi_enums! {
    /// The commands of `xenpmu_op`.
    pub enum PmuOp: u32 {
        /// Reads the mode.
        MODE_GET = 0 => "XENPMU_mode_get",
        /// Sets the mode.
        MODE_SET = 1 => "XENPMU_mode_set",
        /// Reads the features.
        FEATURE_GET = 2 => "XENPMU_feature_get",
        /// Sets the features.
        FEATURE_SET = 3 => "XENPMU_feature_set",
        /// Sets up a vCPU's shared page.
        INIT = 4 => "XENPMU_init",
        /// Gives it up.
        FINISH = 5 => "XENPMU_finish",
        /// Sets the interrupt.
        LVTPC_SET = 6 => "XENPMU_lvtpc_set",
        /// Writes cached values back.
        FLUSH = 7 => "XENPMU_flush",
    }
}

abi_structs! {
    /// Argument of all commands.
    pub struct PmuParams = "struct xen_pmu_params"[24] {
        [0] version_maj: u32 as "version.maj",
        [4] version_min: u32 as "version.min",
        [8] val: u64,
        [16] vcpu: u32,
        [20] pad: u32,
    }
}
