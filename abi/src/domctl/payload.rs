//! The payloads of [`Domctl`](super::Domctl).

use super::{DOMINF_SHUTDOWN, DOMINF_SHUTDOWN_MASK, DOMINF_SHUTDOWN_SHIFT, SchedulerId, ShadowCmd};
use crate::arch_x86_64::{ArchDomainConfig, CpuidLeaf, MsrEntry, VcpuGuestContext};
use crate::memory::Vmemrange;
use crate::sched::ShutdownReason;
use crate::xen::{DomainHandle, EvtchnPort, XenctlBitmap};
use crate::{GuestHandle, Payload};

abi_structs! {
    /// A new domain.
    pub struct CreateDomain = "struct xen_domctl_createdomain"[64] {
        /// Security label.
        [0] ssidref: u32,
        [4] handle: DomainHandle,
        /// `CDF_*`.
        [20] flags: u32,
        /// [`IOMMU_NO_SHAREPT`](super::IOMMU_NO_SHAREPT) or 0.
        [24] iommu_opts: u32,
        [28] max_vcpus: u32,
        /// Highest port, as a signed number; negative for no limit.
        [32] max_evtchn_port: u32,
        /// Negative for the default.
        [36] max_grant_frames: i32,
        /// Negative for the default.
        [40] max_maptrack_frames: i32,
        /// [`GRANT_VERSION_MASK`](super::GRANT_VERSION_MASK).
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
        /// [`XEN_INVALID_MAX_VCPU_ID`](super::XEN_INVALID_MAX_VCPU_ID) without vCPUs.
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
        /// [`DPCI_ADD_MAPPING`](super::DPCI_ADD_MAPPING) or [`DPCI_REMOVE_MAPPING`](super::DPCI_REMOVE_MAPPING).
        [24] add_mapping: u32,
        [28] padding: u32,
    }

    /// Maps I/O ports.
    pub struct IoportMapping = "struct xen_domctl_ioport_mapping"[16] {
        [0] first_gport: u32,
        [4] first_mport: u32,
        [8] nr_ports: u32,
        /// [`DPCI_ADD_MAPPING`](super::DPCI_ADD_MAPPING) or [`DPCI_REMOVE_MAPPING`](super::DPCI_REMOVE_MAPPING).
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

impl GetDomainInfo {
    /// Why the domain shut down, if it has.
    pub fn shutdown_reason(&self) -> Option<ShutdownReason> {
        let reason = (self.flags >> DOMINF_SHUTDOWN_SHIFT) & DOMINF_SHUTDOWN_MASK;
        (self.flags & DOMINF_SHUTDOWN != 0).then_some(ShutdownReason(reason))
    }
}
