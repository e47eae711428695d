//! `sysctl.h`: host control.

use crate::domctl::GetDomainInfo;
use crate::xen::XenctlBitmap;
use crate::{GuestHandle, Payload};

abi_consts! {
    /// What [`Sysctl::interface_version`] must be.
    pub const XEN_SYSCTL_INTERFACE_VERSION: u32 = 0x15;

    /// [`PhysInfo::capabilities`]: HVM guests.
    pub const PHYSCAP_HVM: u32 = 1 << 0 => "XEN_SYSCTL_PHYSCAP_hvm";
    /// [`PhysInfo::capabilities`]: PV guests.
    pub const PHYSCAP_PV: u32 = 1 << 1 => "XEN_SYSCTL_PHYSCAP_pv";
    /// [`PhysInfo::capabilities`]: an IOMMU.
    pub const PHYSCAP_DIRECTIO: u32 = 1 << 2 => "XEN_SYSCTL_PHYSCAP_directio";
    /// [`PhysInfo::capabilities`]: nested paging.
    pub const PHYSCAP_HAP: u32 = 1 << 3 => "XEN_SYSCTL_PHYSCAP_hap";
    /// [`PhysInfo::capabilities`]: shadow paging.
    pub const PHYSCAP_SHADOW: u32 = 1 << 4 => "XEN_SYSCTL_PHYSCAP_shadow";
    /// [`PhysInfo::capabilities`]: IOMMU and processor share page tables.
    pub const PHYSCAP_IOMMU_HAP_PT_SHARE: u32 = 1 << 5 => "XEN_SYSCTL_PHYSCAP_iommu_hap_pt_share";
    /// [`PhysInfo::capabilities`]: tracing.
    pub const PHYSCAP_VMTRACE: u32 = 1 << 6 => "XEN_SYSCTL_PHYSCAP_vmtrace";
    /// [`PhysInfo::capabilities`]: virtual performance counters.
    pub const PHYSCAP_VPMU: u32 = 1 << 7 => "XEN_SYSCTL_PHYSCAP_vpmu";
    /// [`PhysInfo::capabilities`]: grant tables version 1.
    pub const PHYSCAP_GNTTAB_V1: u32 = 1 << 8 => "XEN_SYSCTL_PHYSCAP_gnttab_v1";
    /// [`PhysInfo::capabilities`]: grant tables version 2.
    pub const PHYSCAP_GNTTAB_V2: u32 = 1 << 9 => "XEN_SYSCTL_PHYSCAP_gnttab_v2";

    /// [`CpuTopo::core`] of an absent pCPU.
    pub const XEN_INVALID_CORE_ID: u32 = !0;
    /// [`CpuTopo::socket`] of an absent pCPU.
    pub const XEN_INVALID_SOCKET_ID: u32 = !0;
    /// [`CpuTopo::node`] of an absent pCPU.
    pub const XEN_INVALID_NODE_ID: u32 = !0;

    /// [`CpupoolOp::cpupool_id`]: any.
    pub const CPUPOOL_PAR_ANY: u32 = 0xffff_ffff => "XEN_SYSCTL_CPUPOOL_PAR_ANY";

    /// [`CpuHotplug::op`]: online.
    pub const CPU_HOTPLUG_ONLINE: u32 = 0 => "XEN_SYSCTL_CPU_HOTPLUG_ONLINE";
    /// [`CpuHotplug::op`]: offline.
    pub const CPU_HOTPLUG_OFFLINE: u32 = 1 => "XEN_SYSCTL_CPU_HOTPLUG_OFFLINE";

    /// [`CpuFeatureset::index`]: what the host has.
    pub const CPU_FEATURESET_RAW: u32 = 0 => "XEN_SYSCTL_cpu_featureset_raw";
    /// [`CpuFeatureset::index`]: what the hypervisor uses.
    pub const CPU_FEATURESET_HOST: u32 = 1 => "XEN_SYSCTL_cpu_featureset_host";
    /// [`CpuFeatureset::index`]: default of PV guests.
    pub const CPU_FEATURESET_PV: u32 = 2 => "XEN_SYSCTL_cpu_featureset_pv";
    /// [`CpuFeatureset::index`]: default of HVM guests.
    pub const CPU_FEATURESET_HVM: u32 = 3 => "XEN_SYSCTL_cpu_featureset_hvm";
    /// [`CpuFeatureset::index`]: most that PV guests can have.
    pub const CPU_FEATURESET_PV_MAX: u32 = 4 => "XEN_SYSCTL_cpu_featureset_pv_max";
    /// [`CpuFeatureset::index`]: most that HVM guests can have.
    pub const CPU_FEATURESET_HVM_MAX: u32 = 5 => "XEN_SYSCTL_cpu_featureset_hvm_max";

    /// [`CpuPolicy::index`]: what the host has.
    pub const CPU_POLICY_RAW: u32 = 0 => "XEN_SYSCTL_cpu_policy_raw";
    /// [`CpuPolicy::index`]: what the hypervisor uses.
    pub const CPU_POLICY_HOST: u32 = 1 => "XEN_SYSCTL_cpu_policy_host";
    /// [`CpuPolicy::index`]: most that PV guests can have.
    pub const CPU_POLICY_PV_MAX: u32 = 2 => "XEN_SYSCTL_cpu_policy_pv_max";
    /// [`CpuPolicy::index`]: most that HVM guests can have.
    pub const CPU_POLICY_HVM_MAX: u32 = 3 => "XEN_SYSCTL_cpu_policy_hvm_max";
    /// [`CpuPolicy::index`]: default of PV guests.
    pub const CPU_POLICY_PV_DEFAULT: u32 = 4 => "XEN_SYSCTL_cpu_policy_pv_default";
    /// [`CpuPolicy::index`]: default of HVM guests.
    pub const CPU_POLICY_HVM_DEFAULT: u32 = 5 => "XEN_SYSCTL_cpu_policy_hvm_default";

    /// [`SchedulerOp::cmd`]: set.
    pub const SCHEDOP_PUTINFO: u32 = 0 => "XEN_SYSCTL_SCHEDOP_putinfo";
    /// [`SchedulerOp::cmd`]: get.
    pub const SCHEDOP_GETINFO: u32 = 1 => "XEN_SYSCTL_SCHEDOP_getinfo";
}

/// A size in [`MemInfo`] of an absent node.
pub const INVALID_MEM_SZ: u64 = !0;

abi_enums! {
    /// The commands of `sysctl`.
    pub enum SysctlCmd: u32 {
        /// [`ReadConsole`].
        READCONSOLE = 1 => "XEN_SYSCTL_readconsole",
        /// Trace buffers.
        TBUF_OP = 2 => "XEN_SYSCTL_tbuf_op",
        /// [`PhysInfo`].
        PHYSINFO = 3 => "XEN_SYSCTL_physinfo",
        /// [`SchedId`].
        SCHED_ID = 4 => "XEN_SYSCTL_sched_id",
        /// Performance counters.
        PERFC_OP = 5 => "XEN_SYSCTL_perfc_op",
        /// [`GetDomainInfoList`].
        GETDOMAININFOLIST = 6 => "XEN_SYSCTL_getdomaininfolist",
        /// [`DebugKeys`].
        DEBUG_KEYS = 7 => "XEN_SYSCTL_debug_keys",
        /// [`GetCpuInfo`].
        GETCPUINFO = 8 => "XEN_SYSCTL_getcpuinfo",
        /// [`AvailHeap`].
        AVAILHEAP = 9 => "XEN_SYSCTL_availheap",
        /// Power management statistics.
        GET_PMSTAT = 10 => "XEN_SYSCTL_get_pmstat",
        /// [`CpuHotplug`].
        CPU_HOTPLUG = 11 => "XEN_SYSCTL_cpu_hotplug",
        /// Power management.
        PM_OP = 12 => "XEN_SYSCTL_pm_op",
        /// Takes memory offline.
        PAGE_OFFLINE_OP = 14 => "XEN_SYSCTL_page_offline_op",
        /// Lock profiling.
        LOCKPROF_OP = 15 => "XEN_SYSCTL_lockprof_op",
        /// [`CpuTopoInfo`].
        CPUTOPOINFO = 16 => "XEN_SYSCTL_cputopoinfo",
        /// [`NumaInfo`].
        NUMAINFO = 17 => "XEN_SYSCTL_numainfo",
        /// [`CpupoolOp`].
        CPUPOOL_OP = 18 => "XEN_SYSCTL_cpupool_op",
        /// [`SchedulerOp`].
        SCHEDULER_OP = 19 => "XEN_SYSCTL_scheduler_op",
        /// Code coverage.
        COVERAGE_OP = 20 => "XEN_SYSCTL_coverage_op",
        /// Cache monitoring.
        PSR_CMT_OP = 21 => "XEN_SYSCTL_psr_cmt_op",
        /// [`PciTopoInfo`].
        PCITOPOINFO = 22 => "XEN_SYSCTL_pcitopoinfo",
        /// Cache allocation.
        PSR_ALLOC = 23 => "XEN_SYSCTL_psr_alloc",
        /// CPUID levelling.
        GET_CPU_LEVELLING_CAPS = 25 => "XEN_SYSCTL_get_cpu_levelling_caps",
        /// [`CpuFeatureset`].
        GET_CPU_FEATURESET = 26 => "XEN_SYSCTL_get_cpu_featureset",
        /// Live patches.
        LIVEPATCH_OP = 27 => "XEN_SYSCTL_livepatch_op",
        /// [`CpuPolicy`].
        GET_CPU_POLICY = 29 => "XEN_SYSCTL_get_cpu_policy",
    }

    /// The operations of [`CpupoolOp`].
    pub enum CpupoolCmd: u32 {
        /// New pool.
        CREATE = 1 => "XEN_SYSCTL_CPUPOOL_OP_CREATE",
        /// Removes a pool.
        DESTROY = 2 => "XEN_SYSCTL_CPUPOOL_OP_DESTROY",
        /// Describes the pool with this id or the next higher one.
        INFO = 3 => "XEN_SYSCTL_CPUPOOL_OP_INFO",
        /// Adds a pCPU.
        ADDCPU = 4 => "XEN_SYSCTL_CPUPOOL_OP_ADDCPU",
        /// Removes a pCPU.
        RMCPU = 5 => "XEN_SYSCTL_CPUPOOL_OP_RMCPU",
        /// Moves a domain.
        MOVEDOMAIN = 6 => "XEN_SYSCTL_CPUPOOL_OP_MOVEDOMAIN",
        /// pCPUs without a pool.
        FREEINFO = 7 => "XEN_SYSCTL_CPUPOOL_OP_FREEINFO",
    }
}

abi_structs! {
    /// Argument of the call.
    pub struct Sysctl = "struct xen_sysctl"[136] {
        [0] cmd: SysctlCmd,
        [4] interface_version: u32,
        /// As `cmd` says.
        [8] u: Payload<16>,
    }

    /// Reads the console ring.
    pub struct ReadConsole = "struct xen_sysctl_readconsole"[24] {
        /// Nonzero: forget what was read.
        [0] clear: u8,
        /// Nonzero: start at `index`.
        [1] incremental: u8,
        [2] _pad0: u16,
        /// Where to start; result: where the next read starts.
        [4] index: u32,
        [8] buffer: GuestHandle<u8>,
        /// Room in the buffer; result: bytes read.
        [16] count: u32,
        [20] _pad1: u32,
    }

    /// The host.
    pub struct PhysInfo = "struct xen_sysctl_physinfo"[112] {
        [0] threads_per_core: u32,
        [4] cores_per_socket: u32,
        /// pCPUs online.
        [8] nr_cpus: u32,
        /// Highest possible pCPU number.
        [12] max_cpu_id: u32,
        /// NUMA nodes online.
        [16] nr_nodes: u32,
        /// Highest possible node number.
        [20] max_node_id: u32,
        [24] cpu_khz: u32,
        /// `PHYSCAP_*`.
        [28] capabilities: u32,
        [32] arch_capabilities: u32,
        [36] pad: u32,
        [40] total_pages: u64,
        [48] free_pages: u64,
        [56] scrub_pages: u64,
        /// Claimed but not allocated.
        [64] outstanding_pages: u64,
        /// Highest possible MFN.
        [72] max_mfn: u64,
        /// CPUID feature words.
        [80] hw_cap: [u32; 8],
    }

    /// The scheduler.
    pub struct SchedId = "struct xen_sysctl_sched_id"[4] {
        /// A [`crate::domctl::SchedulerId`].
        [0] sched_id: crate::domctl::SchedulerId,
    }

    /// Describes domains.
    pub struct GetDomainInfoList = "struct xen_sysctl_getdomaininfolist"[24] {
        /// Lowest id wanted.
        [0] first_domain: u16,
        [2] _pad0: u16,
        /// Room in the buffer.
        [4] max_domains: u32,
        [8] buffer: GuestHandle<GetDomainInfo>,
        /// Result: how many were written.
        [16] num_domains: u32,
        [20] _pad1: u32,
    }

    /// Presses keys on the hypervisor's console.
    pub struct DebugKeys = "struct xen_sysctl_debug_keys"[16] {
        [0] keys: GuestHandle<u8>,
        [8] nr_keys: u32,
        [12] _pad: u32,
    }

    /// One pCPU's idle time.
    pub struct CpuInfo = "struct xen_sysctl_cpuinfo"[8] {
        /// ns.
        [0] idletime: u64,
    }

    /// pCPUs' idle time.
    pub struct GetCpuInfo = "struct xen_sysctl_getcpuinfo"[24] {
        /// Room in the array.
        [0] max_cpus: u32,
        [4] _pad0: u32,
        [8] info: GuestHandle<CpuInfo>,
        /// Result.
        [16] nr_cpus: u32,
        [20] _pad1: u32,
    }

    /// Free memory of a zone.
    pub struct AvailHeap = "struct xen_sysctl_availheap"[24] {
        /// Smallest address width; 0 for any.
        [0] min_bitwidth: u32,
        /// Largest address width; 0 for any.
        [4] max_bitwidth: u32,
        /// NUMA node; -1 for all.
        [8] node: i32,
        [12] _pad: u32,
        /// Result.
        [16] avail_bytes: u64,
    }

    /// Takes a pCPU on or offline.
    pub struct CpuHotplug = "struct xen_sysctl_cpu_hotplug"[8] {
        [0] cpu: u32,
        /// `CPU_HOTPLUG_*`.
        [4] op: u32,
    }

    /// Where a pCPU is.
    pub struct CpuTopo = "struct xen_sysctl_cputopo"[12] {
        [0] core: u32,
        [4] socket: u32,
        [8] node: u32,
    }

    /// Where the pCPUs are.
    pub struct CpuTopoInfo = "struct xen_sysctl_cputopoinfo"[16] {
        /// Room in the array, then pCPUs.
        [0] num_cpus: u32,
        [4] _pad: u32,
        /// Null asks for the number only.
        [8] cputopo: GuestHandle<CpuTopo>,
    }

    /// A node's memory.
    pub struct MemInfo = "struct xen_sysctl_meminfo"[16] {
        /// Bytes.
        [0] memsize: u64,
        /// Bytes.
        [8] memfree: u64,
    }

    /// The NUMA nodes.
    pub struct NumaInfo = "struct xen_sysctl_numainfo"[24] {
        /// Room in the arrays, then nodes.
        [0] num_nodes: u32,
        [4] _pad: u32,
        [8] meminfo: GuestHandle<MemInfo>,
        /// `num_nodes` squared.
        [16] distance: GuestHandle<u32>,
    }

    /// Where PCI devices are.
    pub struct PciTopoInfo = "struct xen_sysctl_pcitopoinfo"[24] {
        [0] num_devs: u32,
        [4] _pad: u32,
        [8] devs: GuestHandle<crate::physdev::PciDevice>,
        [16] nodes: GuestHandle<u32>,
    }

    /// Pools of pCPUs.
    pub struct CpupoolOp = "struct xen_sysctl_cpupool_op"[40] {
        [0] op: CpupoolCmd,
        [4] cpupool_id: u32,
        [8] sched_id: crate::domctl::SchedulerId,
        [12] domid: u32,
        [16] cpu: u32,
        /// Result: number of domains.
        [20] n_dom: u32,
        [24] cpumap: XenctlBitmap,
    }

    /// The scheduler's parameters.
    pub struct SchedulerOp = "struct xen_sysctl_scheduler_op"[32] {
        [0] cpupool_id: u32,
        [4] sched_id: crate::domctl::SchedulerId,
        /// [`SCHEDOP_PUTINFO`] or [`SCHEDOP_GETINFO`].
        [8] cmd: u32,
        [12] _pad: u32,
        /// [`CreditSchedule`] or [`Credit2Schedule`].
        [16] u: Payload<2>,
    }

    /// Parameters of the credit scheduler.
    pub struct CreditSchedule = "struct xen_sysctl_credit_schedule"[12] {
        [0] tslice_ms: u32,
        [4] ratelimit_us: u32,
        [8] vcpu_migr_delay_us: u32,
    }

    /// Parameters of the credit2 scheduler.
    pub struct Credit2Schedule = "struct xen_sysctl_credit2_schedule"[4] {
        [0] ratelimit_us: u32,
    }

    /// CPU features.
    pub struct CpuFeatureset = "struct xen_sysctl_cpu_featureset"[16] {
        /// `CPU_FEATURESET_*`.
        [0] index: u32,
        /// Room in the array, then words.
        [4] nr_features: u32,
        /// Null asks for the number only.
        [8] features: GuestHandle<u32>,
    }

    /// CPU policies.
    pub struct CpuPolicy = "struct xen_sysctl_cpu_policy"[32] {
        /// `CPU_POLICY_*`.
        [0] index: u32,
        /// Room, then leaves.
        [4] nr_leaves: u32,
        /// Room, then MSRs.
        [8] nr_msrs: u32,
        /// Zero.
        [12] rsvd: u32 as "_rsvd",
        [16] leaves: GuestHandle<crate::arch_x86_64::CpuidLeaf>,
        [24] msrs: GuestHandle<crate::arch_x86_64::MsrEntry>,
    }
}

impl Sysctl {
    /// A command at this crate's interface version.
    pub fn new<T: zerocopy::IntoBytes + zerocopy::Immutable>(cmd: SysctlCmd, argument: &T) -> Self {
        Self {
            cmd,
            interface_version: XEN_SYSCTL_INTERFACE_VERSION,
            u: Payload::new(argument),
        }
    }
}
