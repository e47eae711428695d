//! `domctl.h`: domain control.

use crate::Payload;

pub(crate) mod payload;

pub use payload::*;

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
