//! `arch-x86/xen-mca.h`: machine checks, as far as a control domain asks for them.

use crate::{GuestHandle, Payload};

abi_consts! {
    /// What [`Mc::interface_version`] must be.
    pub const XEN_MCA_INTERFACE_VERSION: u32 = 0x01ec_c003;
}

abi_enums! {
    /// The commands of the machine check call.
    pub enum McCmd: u32 {
        /// Reads telemetry.
        FETCH = 1 => "XEN_MC_fetch",
        /// Notifies a domain.
        NOTIFYDOMAIN = 2 => "XEN_MC_notifydomain",
        /// [`PhysCpuInfo`].
        PHYSCPUINFO = 3 => "XEN_MC_physcpuinfo",
        /// Injects MSR values.
        MSRINJECT = 4 => "XEN_MC_msrinject",
        /// Triggers a machine check.
        MCEINJECT = 5 => "XEN_MC_mceinject",
        /// Injects on some pCPUs.
        INJECT_V2 = 6 => "XEN_MC_inject_v2",
    }
}

abi_structs! {
    /// Argument of the call.
    pub struct Mc = "struct xen_mc"[152] {
        [0] cmd: McCmd,
        [4] interface_version: u32,
        /// As `cmd` says.
        [8] u: Payload<18>,
    }

    /// Payload of physcpuinfo.
    pub struct PhysCpuInfo = "struct xen_mc_physcpuinfo"[16] {
        /// Number of pCPUs.
        [0] ncpus: u32,
        [4] _pad0: u32,
        /// Array to fill, or null.
        [8] info: GuestHandle<u8>,
    }
}
