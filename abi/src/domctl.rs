//! `domctl.h`: domain control.

use crate::arch_x86_64::{ArchDomainConfig, CpuidLeaf, MsrEntry, VcpuGuestContext};
use crate::memory::Vmemrange;
use crate::xen::{DomainHandle, EvtchnPort, XenctlBitmap};
use crate::{GuestHandle, Payload};

abi_consts! {
    /// What [`Domctl::interface_version`] must be.
    pub const XEN_DOMCTL_INTERFACE_VERSION: u32 = 0x15;

    /// [`CreateDomain::flags`]: an HVM or PVH guest.
    pub const CDF_HVM: u32 = 1 << 0 => "XEN_DOMCTL_CDF_hvm";
    /// [`CreateDomain::flags`]: nested paging.
    pub const CDF_HAP: u32 = 1 << 1 => "XEN_DOMCTL_CDF_hap";
    /// [`CreateDomain::flags`]: memory is checked across suspend to RAM.
    pub const CDF_S3_INTEGRITY: u32 = 1 << 2 => "XEN_DOMCTL_CDF_s3_integrity";
    /// [`CreateDomain::flags`]: no out-of-sync shadows.
    pub const CDF_OOS_OFF: u32 = 1 << 3 => "XEN_DOMCTL_CDF_oos_off";
    /// [`CreateDomain::flags`]: the xenstore domain.
    pub const CDF_XS_DOMAIN: u32 = 1 << 4 => "XEN_DOMCTL_CDF_xs_domain";
    /// [`CreateDomain::flags`]: prepared for device assignment.
    pub const CDF_IOMMU: u32 = 1 << 5 => "XEN_DOMCTL_CDF_iommu";
    /// [`CreateDomain::flags`]: nested virtualisation.
    pub const CDF_NESTED_VIRT: u32 = 1 << 6 => "XEN_DOMCTL_CDF_nested_virt";
    /// [`CreateDomain::flags`]: performance counters.
    pub const CDF_VPMU: u32 = 1 << 7 => "XEN_DOMCTL_CDF_vpmu";
    /// [`CreateDomain::iommu_opts`]: no sharing of page tables.
    pub const IOMMU_NO_SHAREPT: u32 = 1 << 0 => "XEN_DOMCTL_IOMMU_no_sharept";
    /// [`CreateDomain::grant_opts`]: the bits of the highest version.
    pub const GRANT_VERSION_MASK: u32 = 0xf => "XEN_DOMCTL_GRANT_version_mask";

    /// [`GetDomainInfo::flags`]: is being destroyed.
    pub const DOMINF_DYING: u32 = 1 << 0 => "XEN_DOMINF_dying";
    /// [`GetDomainInfo::flags`]: an HVM or PVH guest.
    pub const DOMINF_HVM_GUEST: u32 = 1 << 1 => "XEN_DOMINF_hvm_guest";
    /// [`GetDomainInfo::flags`]: has shut down.
    pub const DOMINF_SHUTDOWN: u32 = 1 << 2 => "XEN_DOMINF_shutdown";
    /// [`GetDomainInfo::flags`]: paused by its controller.
    pub const DOMINF_PAUSED: u32 = 1 << 3 => "XEN_DOMINF_paused";
    /// [`GetDomainInfo::flags`]: all vCPUs wait.
    pub const DOMINF_BLOCKED: u32 = 1 << 4 => "XEN_DOMINF_blocked";
    /// [`GetDomainInfo::flags`]: some vCPU is on a pCPU.
    pub const DOMINF_RUNNING: u32 = 1 << 5 => "XEN_DOMINF_running";
    /// [`GetDomainInfo::flags`]: under a debugger.
    pub const DOMINF_DEBUGGED: u32 = 1 << 6 => "XEN_DOMINF_debugged";
    /// [`GetDomainInfo::flags`]: the xenstore domain.
    pub const DOMINF_XS_DOMAIN: u32 = 1 << 7 => "XEN_DOMINF_xs_domain";
    /// [`GetDomainInfo::flags`]: nested paging.
    pub const DOMINF_HAP: u32 = 1 << 8 => "XEN_DOMINF_hap";
    /// [`GetDomainInfo::flags`], after the shift: the shutdown reason.
    pub const DOMINF_SHUTDOWN_MASK: u32 = 255 => "XEN_DOMINF_shutdownmask";
    /// [`GetDomainInfo::flags`]: where the shutdown reason starts.
    pub const DOMINF_SHUTDOWN_SHIFT: u32 = 16 => "XEN_DOMINF_shutdownshift";
    /// [`GetDomainInfo::max_vcpu_id`] without vCPUs.
    pub const XEN_INVALID_MAX_VCPU_ID: u32 = !0;

    /// Types in [`GetPageFrameInfo3::array`]: an ordinary page.
    pub const PFINFO_NOTAB: u32 = 0 => "XEN_DOMCTL_PFINFO_NOTAB";
    /// Types: an L1 table.
    pub const PFINFO_L1TAB: u32 = 1 << 28 => "XEN_DOMCTL_PFINFO_L1TAB";
    /// Types: an L2 table.
    pub const PFINFO_L2TAB: u32 = 2 << 28 => "XEN_DOMCTL_PFINFO_L2TAB";
    /// Types: an L3 table.
    pub const PFINFO_L3TAB: u32 = 3 << 28 => "XEN_DOMCTL_PFINFO_L3TAB";
    /// Types: an L4 table.
    pub const PFINFO_L4TAB: u32 = 4 << 28 => "XEN_DOMCTL_PFINFO_L4TAB";
    /// Types: the table is pinned.
    pub const PFINFO_LPINTAB: u32 = 1 << 31 => "XEN_DOMCTL_PFINFO_LPINTAB";
    /// Types: not a page of the domain.
    pub const PFINFO_XTAB: u32 = 0xf << 28 => "XEN_DOMCTL_PFINFO_XTAB";
    /// Types, in streams only: allocate but do not restore.
    pub const PFINFO_XALLOC: u32 = 0xe << 28 => "XEN_DOMCTL_PFINFO_XALLOC";
    /// Types: broken memory.
    pub const PFINFO_BROKEN: u32 = 0xd << 28 => "XEN_DOMCTL_PFINFO_BROKEN";

    /// [`ShadowOp::mode`] of clean: the last round, the domain is paused.
    pub const SHADOW_LOGDIRTY_FINAL: u32 = 1 => "XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL";

    /// [`VcpuAffinity::flags`]: the hard affinity.
    pub const VCPUAFFINITY_HARD: u32 = 1 << 0 => "XEN_VCPUAFFINITY_HARD";
    /// [`VcpuAffinity::flags`]: the soft affinity.
    pub const VCPUAFFINITY_SOFT: u32 = 1 << 1 => "XEN_VCPUAFFINITY_SOFT";
    /// [`VcpuAffinity::flags`]: override a temporary pin.
    pub const VCPUAFFINITY_FORCE: u32 = 1 << 2 => "XEN_VCPUAFFINITY_FORCE";

    /// [`SchedulerOp::cmd`]: set.
    pub const SCHEDOP_PUTINFO: u32 = 0 => "XEN_DOMCTL_SCHEDOP_putinfo";
    /// [`SchedulerOp::cmd`]: get.
    pub const SCHEDOP_GETINFO: u32 = 1 => "XEN_DOMCTL_SCHEDOP_getinfo";
    /// [`SchedulerOp::cmd`]: set per vCPU.
    pub const SCHEDOP_PUTVCPUINFO: u32 = 2 => "XEN_DOMCTL_SCHEDOP_putvcpuinfo";
    /// [`SchedulerOp::cmd`]: get per vCPU.
    pub const SCHEDOP_GETVCPUINFO: u32 = 3 => "XEN_DOMCTL_SCHEDOP_getvcpuinfo";

    /// [`SendTrigger::trigger`]: NMI.
    pub const SENDTRIGGER_NMI: u32 = 0 => "XEN_DOMCTL_SENDTRIGGER_NMI";
    /// [`SendTrigger::trigger`]: reset.
    pub const SENDTRIGGER_RESET: u32 = 1 => "XEN_DOMCTL_SENDTRIGGER_RESET";
    /// [`SendTrigger::trigger`]: INIT.
    pub const SENDTRIGGER_INIT: u32 = 2 => "XEN_DOMCTL_SENDTRIGGER_INIT";
    /// [`SendTrigger::trigger`]: power button.
    pub const SENDTRIGGER_POWER: u32 = 3 => "XEN_DOMCTL_SENDTRIGGER_POWER";
    /// [`SendTrigger::trigger`]: sleep button.
    pub const SENDTRIGGER_SLEEP: u32 = 4 => "XEN_DOMCTL_SENDTRIGGER_SLEEP";

    /// [`MemoryMapping::add_mapping`], [`IoportMapping::add_mapping`]: add.
    pub const DPCI_ADD_MAPPING: u32 = 1;
    /// [`MemoryMapping::add_mapping`], [`IoportMapping::add_mapping`]: remove.
    pub const DPCI_REMOVE_MAPPING: u32 = 0;
}

abi_enums! {
    /// The commands of `domctl`.
    pub enum DomctlCmd: u32 {
        /// [`CreateDomain`].
        CREATEDOMAIN = 1 => "XEN_DOMCTL_createdomain",
        /// Destroys the domain.
        DESTROYDOMAIN = 2 => "XEN_DOMCTL_destroydomain",
        /// Pauses the domain (counted).
        PAUSEDOMAIN = 3 => "XEN_DOMCTL_pausedomain",
        /// Undoes one pause.
        UNPAUSEDOMAIN = 4 => "XEN_DOMCTL_unpausedomain",
        /// [`GetDomainInfo`].
        GETDOMAININFO = 5 => "XEN_DOMCTL_getdomaininfo",
        /// [`VcpuAffinity`].
        SETVCPUAFFINITY = 9 => "XEN_DOMCTL_setvcpuaffinity",
        /// [`ShadowOp`].
        SHADOW_OP = 10 => "XEN_DOMCTL_shadow_op",
        /// [`MaxMem`].
        MAX_MEM = 11 => "XEN_DOMCTL_max_mem",
        /// [`VcpuContext`].
        SETVCPUCONTEXT = 12 => "XEN_DOMCTL_setvcpucontext",
        /// [`VcpuContext`].
        GETVCPUCONTEXT = 13 => "XEN_DOMCTL_getvcpucontext",
        /// [`GetVcpuInfo`].
        GETVCPUINFO = 14 => "XEN_DOMCTL_getvcpuinfo",
        /// [`MaxVcpus`].
        MAX_VCPUS = 15 => "XEN_DOMCTL_max_vcpus",
        /// [`SchedulerOp`].
        SCHEDULER_OP = 16 => "XEN_DOMCTL_scheduler_op",
        /// [`SetDomainHandle`].
        SETDOMAINHANDLE = 17 => "XEN_DOMCTL_setdomainhandle",
        /// [`SetDebugging`].
        SETDEBUGGING = 18 => "XEN_DOMCTL_setdebugging",
        /// [`IrqPermission`].
        IRQ_PERMISSION = 19 => "XEN_DOMCTL_irq_permission",
        /// [`IomemPermission`].
        IOMEM_PERMISSION = 20 => "XEN_DOMCTL_iomem_permission",
        /// [`IoportPermission`].
        IOPORT_PERMISSION = 21 => "XEN_DOMCTL_ioport_permission",
        /// [`HypercallInit`].
        HYPERCALL_INIT = 22 => "XEN_DOMCTL_hypercall_init",
        /// [`SetTimeOffset`].
        SETTIMEOFFSET = 24 => "XEN_DOMCTL_settimeoffset",
        /// [`VcpuAffinity`].
        GETVCPUAFFINITY = 25 => "XEN_DOMCTL_getvcpuaffinity",
        /// Obsolete.
        REAL_MODE_AREA = 26 => "XEN_DOMCTL_real_mode_area",
        /// Lets a suspended domain run on.
        RESUMEDOMAIN = 27 => "XEN_DOMCTL_resumedomain",
        /// [`SendTrigger`].
        SENDTRIGGER = 28 => "XEN_DOMCTL_sendtrigger",
        /// [`Subscribe`].
        SUBSCRIBE = 29 => "XEN_DOMCTL_subscribe",
        /// [`HvmContext`].
        GETHVMCONTEXT = 33 => "XEN_DOMCTL_gethvmcontext",
        /// [`HvmContext`].
        SETHVMCONTEXT = 34 => "XEN_DOMCTL_sethvmcontext",
        /// [`AddressSize`].
        SET_ADDRESS_SIZE = 35 => "XEN_DOMCTL_set_address_size",
        /// [`AddressSize`].
        GET_ADDRESS_SIZE = 36 => "XEN_DOMCTL_get_address_size",
        /// [`AssignDevice`].
        ASSIGN_DEVICE = 37 => "XEN_DOMCTL_assign_device",
        /// [`BindPtIrq`].
        BIND_PT_IRQ = 38 => "XEN_DOMCTL_bind_pt_irq",
        /// [`MemoryMapping`].
        MEMORY_MAPPING = 39 => "XEN_DOMCTL_memory_mapping",
        /// [`IoportMapping`].
        IOPORT_MAPPING = 40 => "XEN_DOMCTL_ioport_mapping",
        /// [`ExtVcpuContext`].
        SET_EXT_VCPUCONTEXT = 42 => "XEN_DOMCTL_set_ext_vcpucontext",
        /// [`ExtVcpuContext`].
        GET_EXT_VCPUCONTEXT = 43 => "XEN_DOMCTL_get_ext_vcpucontext",
        /// Obsolete.
        SET_OPT_FEATURE = 44 => "XEN_DOMCTL_set_opt_feature",
        /// [`AssignDevice`].
        TEST_ASSIGN_DEVICE = 45 => "XEN_DOMCTL_test_assign_device",
        /// [`SetTarget`].
        SET_TARGET = 46 => "XEN_DOMCTL_set_target",
        /// [`AssignDevice`].
        DEASSIGN_DEVICE = 47 => "XEN_DOMCTL_deassign_device",
        /// [`BindPtIrq`].
        UNBIND_PT_IRQ = 48 => "XEN_DOMCTL_unbind_pt_irq",
        /// [`GetDeviceGroup`].
        GET_DEVICE_GROUP = 50 => "XEN_DOMCTL_get_device_group",
        /// [`DebugOp`].
        DEBUG_OP = 54 => "XEN_DOMCTL_debug_op",
        /// [`HvmContextPartial`].
        GETHVMCONTEXT_PARTIAL = 55 => "XEN_DOMCTL_gethvmcontext_partial",
        /// Monitor rings.
        VM_EVENT_OP = 56 => "XEN_DOMCTL_vm_event_op",
        /// Memory sharing.
        MEM_SHARING_OP = 57 => "XEN_DOMCTL_mem_sharing_op",
        /// [`TscInfo`].
        GETTSCINFO = 59 => "XEN_DOMCTL_gettscinfo",
        /// [`TscInfo`].
        SETTSCINFO = 60 => "XEN_DOMCTL_settscinfo",
        /// [`GetPageFrameInfo3`].
        GETPAGEFRAMEINFO3 = 61 => "XEN_DOMCTL_getpageframeinfo3",
        /// [`VcpuExtState`].
        SETVCPUEXTSTATE = 62 => "XEN_DOMCTL_setvcpuextstate",
        /// [`VcpuExtState`].
        GETVCPUEXTSTATE = 63 => "XEN_DOMCTL_getvcpuextstate",
        /// Access listeners.
        SET_ACCESS_REQUIRED = 64 => "XEN_DOMCTL_set_access_required",
        /// Checks the p2m.
        AUDIT_P2M = 65 => "XEN_DOMCTL_audit_p2m",
        /// [`SetVirqHandler`].
        SET_VIRQ_HANDLER = 66 => "XEN_DOMCTL_set_virq_handler",
        /// Marks a broken page.
        SET_BROKEN_PAGE_P2M = 67 => "XEN_DOMCTL_set_broken_page_p2m",
        /// [`NodeAffinity`].
        SETNODEAFFINITY = 68 => "XEN_DOMCTL_setnodeaffinity",
        /// [`NodeAffinity`].
        GETNODEAFFINITY = 69 => "XEN_DOMCTL_getnodeaffinity",
        /// ARM only.
        CACHEFLUSH = 71 => "XEN_DOMCTL_cacheflush",
        /// [`VcpuMsrs`].
        GET_VCPU_MSRS = 72 => "XEN_DOMCTL_get_vcpu_msrs",
        /// [`VcpuMsrs`].
        SET_VCPU_MSRS = 73 => "XEN_DOMCTL_set_vcpu_msrs",
        /// [`Vnuma`].
        SETVNUMAINFO = 74 => "XEN_DOMCTL_setvnumainfo",
        /// Cache monitoring.
        PSR_CMT_OP = 75 => "XEN_DOMCTL_psr_cmt_op",
        /// Monitoring.
        MONITOR_OP = 77 => "XEN_DOMCTL_monitor_op",
        /// Cache allocation.
        PSR_ALLOC = 78 => "XEN_DOMCTL_psr_alloc",
        /// Resets the domain but keeps its memory.
        SOFT_RESET = 79 => "XEN_DOMCTL_soft_reset",
        /// Virtual serial port.
        VUART_OP = 81 => "XEN_DOMCTL_vuart_op",
        /// [`CpuPolicy`].
        GET_CPU_POLICY = 82 => "XEN_DOMCTL_get_cpu_policy",
        /// [`CpuPolicy`].
        SET_CPU_POLICY = 83 => "XEN_DOMCTL_set_cpu_policy",
        /// Tracing.
        VMTRACE_OP = 84 => "XEN_DOMCTL_vmtrace_op",
        /// [`PagingMempool`].
        GET_PAGING_MEMPOOL_SIZE = 85 => "XEN_DOMCTL_get_paging_mempool_size",
        /// [`PagingMempool`].
        SET_PAGING_MEMPOOL_SIZE = 86 => "XEN_DOMCTL_set_paging_mempool_size",
        /// Debugger: memory.
        GDBSX_GUESTMEMIO = 1000 => "XEN_DOMCTL_gdbsx_guestmemio",
        /// Debugger: pauses a vCPU.
        GDBSX_PAUSEVCPU = 1001 => "XEN_DOMCTL_gdbsx_pausevcpu",
        /// Debugger: unpauses a vCPU.
        GDBSX_UNPAUSEVCPU = 1002 => "XEN_DOMCTL_gdbsx_unpausevcpu",
        /// Debugger: state.
        GDBSX_DOMSTATUS = 1003 => "XEN_DOMCTL_gdbsx_domstatus",
    }

    /// A scheduler.
    pub enum SchedulerId: u32 {
        /// Credit.
        CREDIT = 5 => "XEN_SCHEDULER_CREDIT",
        /// Credit2.
        CREDIT2 = 6 => "XEN_SCHEDULER_CREDIT2",
        /// ARINC 653.
        ARINC653 = 7 => "XEN_SCHEDULER_ARINC653",
        /// Real-time deferrable server.
        RTDS = 8 => "XEN_SCHEDULER_RTDS",
        /// One vCPU per pCPU.
        NULL = 9 => "XEN_SCHEDULER_NULL",
    }

    /// The operations of [`ShadowOp`].
    pub enum ShadowCmd: u32 {
        /// Turns everything off.
        OFF = 0 => "XEN_DOMCTL_SHADOW_OP_OFF",
        /// Turns shadowing on for tests.
        ENABLE_TEST = 1 => "XEN_DOMCTL_SHADOW_OP_ENABLE_TEST",
        /// Starts recording writes.
        ENABLE_LOGDIRTY = 2 => "XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY",
        /// Reads the bitmap and starts anew.
        CLEAN = 11 => "XEN_DOMCTL_SHADOW_OP_CLEAN",
        /// Reads the bitmap.
        PEEK = 12 => "XEN_DOMCTL_SHADOW_OP_PEEK",
        /// Reads the memory allowance.
        GET_ALLOCATION = 30 => "XEN_DOMCTL_SHADOW_OP_GET_ALLOCATION",
        /// Sets the memory allowance.
        SET_ALLOCATION = 31 => "XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION",
        /// Turns on what `mode` says.
        ENABLE = 32 => "XEN_DOMCTL_SHADOW_OP_ENABLE",
    }
}

abi_structs! {
    /// Argument of the call.
    pub struct Domctl = "struct xen_domctl"[144] {
        [0] cmd: DomctlCmd,
        [4] interface_version: u32,
        [8] domain: u16,
        [10] _pad: [u16; 3],
        /// As `cmd` says.
        [16] u: Payload<16>,
    }

    /// A new domain.
    pub struct CreateDomain = "struct xen_domctl_createdomain"[64] {
        /// Security label.
        [0] ssidref: u32,
        [4] handle: DomainHandle,
        /// `CDF_*`.
        [20] flags: u32,
        /// [`IOMMU_NO_SHAREPT`] or 0.
        [24] iommu_opts: u32,
        [28] max_vcpus: u32,
        /// Highest port, as a signed number; negative for no limit.
        [32] max_evtchn_port: u32,
        /// Negative for the default.
        [36] max_grant_frames: i32,
        /// Negative for the default.
        [40] max_maptrack_frames: i32,
        /// [`GRANT_VERSION_MASK`].
        [44] grant_opts: u32,
        /// Bytes per vCPU.
        [48] vmtrace_size: u32,
        [52] cpupool_id: u32,
        [56] arch: ArchDomainConfig,
    }

    /// A domain's state.
    pub struct GetDomainInfo = "struct xen_domctl_getdomaininfo"[112] {
        [0] domain: u16,
        [2] pad1: u16,
        /// `DOMINF_*`.
        [4] flags: u32,
        [8] tot_pages: u64,
        [16] max_pages: u64,
        /// Claimed but not allocated.
        [24] outstanding_pages: u64,
        /// Shared.
        [32] shr_pages: u64,
        /// Paged out.
        [40] paged_pages: u64,
        /// Frame of the shared information page: MFN of PV guests, GFN of HVM guests.
        [48] shared_info_frame: u64,
        /// ns.
        [56] cpu_time: u64,
        [64] nr_online_vcpus: u32,
        /// [`XEN_INVALID_MAX_VCPU_ID`] without vCPUs.
        [68] max_vcpu_id: u32,
        /// Security label.
        [72] ssidref: u32,
        [76] handle: DomainHandle,
        [92] cpupool: u32,
        /// Width of guest-physical addresses.
        [96] gpaddr_bits: u8,
        [97] pad2: [u8; 7],
        [104] arch_config: ArchDomainConfig,
    }

    /// Types of frames.
    pub struct GetPageFrameInfo3 = "struct xen_domctl_getpageframeinfo3"[16] {
        [0] num: u64,
        /// Frames in, `PFINFO_*` out.
        [8] array: GuestHandle<u64>,
    }

    /// Recording of writes.
    pub struct ShadowOp = "struct xen_domctl_shadow_op"[40] {
        [0] op: ShadowCmd,
        [4] mode: u32,
        /// Memory allowance in MiB.
        [8] mb: u32,
        [12] _pad: u32,
        /// One bit per page, PFN of PV guests, GFN of HVM guests.
        [16] dirty_bitmap: GuestHandle<u8>,
        /// Bits in the bitmap.
        [24] pages: u64,
        /// Result.
        [32] stats: ShadowOpStats,
    }

    /// Counters of [`ShadowOp`].
    pub struct ShadowOpStats = "struct xen_domctl_shadow_op_stats"[8] {
        [0] fault_count: u32,
        [4] dirty_count: u32,
    }

    /// A memory limit.
    pub struct MaxMem = "struct xen_domctl_max_mem"[8] {
        /// KiB.
        [0] max_memkb: u64,
    }

    /// A vCPU's registers.
    pub struct VcpuContext = "struct xen_domctl_vcpucontext"[16] {
        [0] vcpu: u32,
        [4] _pad: u32,
        [8] ctxt: GuestHandle<VcpuGuestContext>,
    }

    /// A vCPU's state.
    pub struct GetVcpuInfo = "struct xen_domctl_getvcpuinfo"[24] {
        [0] vcpu: u32,
        /// Result: not down.
        [4] online: u8,
        /// Result: waits.
        [5] blocked: u8,
        /// Result: on a pCPU.
        [6] running: u8,
        [7] _pad0: u8,
        /// Result: ns.
        [8] cpu_time: u64,
        /// Result: pCPU.
        [16] cpu: u32,
        [20] _pad1: u32,
    }

    /// The NUMA nodes that a domain prefers.
    pub struct NodeAffinity = "struct xen_domctl_nodeaffinity"[16] {
        [0] nodemap: XenctlBitmap,
    }

    /// The pCPUs that a vCPU may run on.
    pub struct VcpuAffinity = "struct xen_domctl_vcpuaffinity"[40] {
        [0] vcpu: u32,
        /// `VCPUAFFINITY_*`.
        [4] flags: u32,
        [8] cpumap_hard: XenctlBitmap,
        [24] cpumap_soft: XenctlBitmap,
    }

    /// Number of vCPUs to allocate.
    pub struct MaxVcpus = "struct xen_domctl_max_vcpus"[4] {
        [0] max: u32,
    }

    /// Scheduling parameters.
    pub struct SchedulerOp = "struct xen_domctl_scheduler_op"[24] {
        [0] sched_id: SchedulerId,
        /// `SCHEDOP_*`.
        [4] cmd: u32,
        /// [`SchedCredit`] (credit and credit2), [`SchedRtds`] or [`SchedVcpuList`].
        [8] u: Payload<2>,
    }

    /// Parameters of credit and credit2.
    pub struct SchedCredit = "struct xen_domctl_sched_credit"[4] {
        [0] weight: u16,
        /// Percent of one pCPU; 0 for none.
        [2] cap: u16,
    }

    /// Parameters of the real-time scheduler.
    pub struct SchedRtds = "struct xen_domctl_sched_rtds"[12] {
        /// us.
        [0] period: u32,
        /// us.
        [4] budget: u32,
        [8] flags: u32,
    }

    /// A domain's UUID.
    pub struct SetDomainHandle = "struct xen_domctl_setdomainhandle"[16] {
        [0] handle: DomainHandle,
    }

    /// Whether a debugger controls the domain.
    pub struct SetDebugging = "struct xen_domctl_setdebugging"[1] {
        [0] enable: u8,
    }

    /// Access to an interrupt.
    pub struct IrqPermission = "struct xen_domctl_irq_permission"[8] {
        [0] pirq: u32,
        [4] allow_access: u8,
        [5] pad: [u8; 3],
    }

    /// Access to I/O memory.
    pub struct IomemPermission = "struct xen_domctl_iomem_permission"[24] {
        [0] first_mfn: u64,
        [8] nr_mfns: u64,
        [16] allow_access: u8,
        [17] _pad: [u8; 7],
    }

    /// Access to I/O ports.
    pub struct IoportPermission = "struct xen_domctl_ioport_permission"[12] {
        [0] first_port: u32,
        [4] nr_ports: u32,
        [8] allow_access: u8,
        [9] _pad: [u8; 3],
    }

    /// Fills a page with hypercall stubs.
    pub struct HypercallInit = "struct xen_domctl_hypercall_init"[8] {
        [0] gmfn: u64,
    }

    /// Offset of a domain's wall clock.
    pub struct SetTimeOffset = "struct xen_domctl_settimeoffset"[8] {
        [0] time_offset_seconds: i64,
    }

    /// An HVM guest's state as a stream of records.
    pub struct HvmContext = "struct xen_domctl_hvmcontext"[16] {
        /// Bytes of the buffer; result: bytes written or needed.
        [0] size: u32,
        [4] _pad: u32,
        /// Null asks for the size.
        [8] buffer: GuestHandle<u8>,
    }

    /// One record of an HVM guest's state.
    pub struct HvmContextPartial = "struct xen_domctl_hvmcontext_partial"[24] {
        [0] kind: u32 as "type",
        [4] instance: u32,
        [8] bufsz: u64,
        [16] buffer: GuestHandle<u8>,
    }

    /// A PV guest's width: 32 or 64.
    pub struct AddressSize = "struct xen_domctl_address_size"[4] {
        [0] size: u32,
    }

    /// Presses a button.
    pub struct SendTrigger = "struct xen_domctl_sendtrigger"[8] {
        /// `SENDTRIGGER_*`.
        [0] trigger: u32,
        [4] vcpu: u32,
    }

    /// Gives a device to a domain.
    pub struct AssignDevice = "struct xen_domctl_assign_device"[24] {
        /// 0: PCI.
        [0] dev: u32,
        [4] flags: u32,
        /// The device as segment, bus, device and function (low 32 bits).
        [8] u: Payload<2>,
    }

    /// Devices that can only be given away together.
    pub struct GetDeviceGroup = "struct xen_domctl_get_device_group"[24] {
        [0] machine_sbdf: u32,
        [4] max_sdevs: u32,
        /// Result.
        [8] num_sdevs: u32,
        [12] _pad: u32,
        [16] sdev_array: GuestHandle<u32>,
    }

    /// Routes a device's interrupt.
    pub struct BindPtIrq = "struct xen_domctl_bind_pt_irq"[24] {
        [0] machine_irq: u32,
        [4] irq_type: u32,
        [8] u: Payload<2>,
    }

    /// Maps I/O memory.
    pub struct MemoryMapping = "struct xen_domctl_memory_mapping"[32] {
        [0] first_gfn: u64,
        [8] first_mfn: u64,
        [16] nr_mfns: u64,
        /// [`DPCI_ADD_MAPPING`] or [`DPCI_REMOVE_MAPPING`].
        [24] add_mapping: u32,
        [28] padding: u32,
    }

    /// Maps I/O ports.
    pub struct IoportMapping = "struct xen_domctl_ioport_mapping"[16] {
        [0] first_gport: u32,
        [4] first_mport: u32,
        [8] nr_ports: u32,
        /// [`DPCI_ADD_MAPPING`] or [`DPCI_REMOVE_MAPPING`].
        [12] add_mapping: u32,
    }

    /// A vCPU's further registers.
    pub struct ExtVcpuContext = "struct xen_domctl_ext_vcpucontext"[64] {
        [0] vcpu: u32,
        /// Bytes that are valid.
        [4] size: u32,
        [8] syscall32_callback_eip: u64,
        [16] sysenter_callback_eip: u64,
        [24] syscall32_callback_cs: u16,
        [26] sysenter_callback_cs: u16,
        [28] syscall32_disables_events: u8,
        [29] sysenter_disables_events: u8,
        [30] _pad: u16,
        /// Machine check: MCG_CAP, MCi_CTL2 of banks 0 and 1, MCG_EXT_CTL.
        [32] vmce: [u64; 4],
    }

    /// The domain that a device model domain serves.
    pub struct SetTarget = "struct xen_domctl_set_target"[2] {
        [0] target: u16,
    }

    /// CPUID and MSRs that a domain sees.
    pub struct CpuPolicy = "struct xen_domctl_cpu_policy"[40] {
        /// Room, then leaves.
        [0] nr_leaves: u32,
        /// Room, then MSRs.
        [4] nr_msrs: u32,
        [8] leaves: GuestHandle<CpuidLeaf>,
        [16] msrs: GuestHandle<MsrEntry>,
        /// Result: the leaf at fault, or all ones.
        [24] err_leaf: u32,
        /// Result: the subleaf at fault, or all ones.
        [28] err_subleaf: u32,
        /// Result: the MSR at fault, or all ones.
        [32] err_msr: u32,
        [36] _pad: u32,
    }

    /// The port to notify when the domain suspends.
    pub struct Subscribe = "struct xen_domctl_subscribe"[4] {
        [0] port: EvtchnPort,
    }

    /// Single steps.
    pub struct DebugOp = "struct xen_domctl_debug_op"[8] {
        [0] op: u32,
        [4] vcpu: u32,
    }

    /// How a domain sees the time-stamp counter.
    pub struct TscInfo = "struct xen_domctl_tsc_info"[24] {
        /// 0 default, 1 always emulate, 2 never.
        [0] tsc_mode: u32,
        [4] gtsc_khz: u32,
        [8] incarnation: u32,
        [12] pad: u32,
        [16] elapsed_nsec: u64,
    }

    /// The domain that gets a global virtual interrupt.
    pub struct SetVirqHandler = "struct xen_domctl_set_virq_handler"[4] {
        [0] virq: u32,
    }

    /// A vCPU's extended processor state.
    pub struct VcpuExtState = "struct xen_domctl_vcpuextstate"[32] {
        [0] vcpu: u32,
        [4] _pad: u32,
        [8] xfeature_mask: u64,
        /// Bytes.
        [16] size: u64,
        /// XCR0, accumulated XCR0, then an XSAVE area.
        [24] buffer: GuestHandle<u64>,
    }

    /// A vCPU's MSRs.
    pub struct VcpuMsrs = "struct xen_domctl_vcpu_msrs"[16] {
        [0] vcpu: u32,
        [4] msr_count: u32,
        [8] msrs: GuestHandle<VcpuMsr>,
    }

    /// One MSR.
    pub struct VcpuMsr = "struct xen_domctl_vcpu_msr"[16] {
        [0] index: u32,
        [4] reserved: u32,
        [8] value: u64,
    }

    /// A domain's virtual NUMA topology.
    pub struct Vnuma = "struct xen_domctl_vnuma"[48] {
        [0] nr_vnodes: u32,
        [4] nr_vmemranges: u32,
        [8] nr_vcpus: u32,
        [12] pad: u32,
        [16] vdistance: GuestHandle<u32>,
        [24] vcpu_to_vnode: GuestHandle<u32>,
        [32] vnode_to_pnode: GuestHandle<u32>,
        [40] vmemrange: GuestHandle<Vmemrange>,
    }

    /// Memory for a domain's paging structures.
    pub struct PagingMempool = "struct xen_domctl_paging_mempool"[8] {
        /// Bytes.
        [0] size: u64,
    }

    /// One vCPU's scheduling parameters.
    pub struct SchedparamVcpu = "xen_domctl_schedparam_vcpu_t"[16] {
        /// As [`SchedulerOp::u`].
        [0] u: [u32; 3],
        [12] vcpuid: u32,
    }

    /// [`SchedulerOp::u`] of the commands per vCPU.
    pub struct SchedVcpuList = "struct xen_domctl_scheduler_op::u.v"[16] {
        [0] vcpus: GuestHandle<SchedparamVcpu>,
        [8] nr_vcpus: u32,
        [12] padding: u32,
    }
}

impl Domctl {
    /// A command for `domain` at this crate's interface version.
    pub fn new<T: zerocopy::IntoBytes + zerocopy::Immutable>(
        cmd: DomctlCmd,
        domain: u16,
        argument: &T,
    ) -> Self {
        Self {
            cmd,
            interface_version: XEN_DOMCTL_INTERFACE_VERSION,
            domain,
            u: Payload::new(argument),
            ..Self::default()
        }
    }
}

impl GetDomainInfo {
    /// Why the domain shut down, if it has.
    pub fn shutdown_reason(&self) -> Option<crate::sched::ShutdownReason> {
        let reason = (self.flags >> DOMINF_SHUTDOWN_SHIFT) & DOMINF_SHUTDOWN_MASK;
        (self.flags & DOMINF_SHUTDOWN != 0).then_some(crate::sched::ShutdownReason(reason))
    }
}
