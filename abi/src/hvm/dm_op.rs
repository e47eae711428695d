//! `hvm/dm_op.h`: what a device model asks for its guest.

use crate::sched::ShutdownReason;
use crate::xen::EvtchnPort;
use crate::{GuestHandle, Payload};

abi_consts! {
    /// [`GetIoreqServerInfo::flags`]: the frames are not wanted.
    pub const NO_GFNS: u16 = 1 => "XEN_DMOP_no_gfns";
    /// [`IoreqServerRange::kind`]: I/O ports.
    pub const IO_RANGE_PORT: u32 = 0 => "XEN_DMOP_IO_RANGE_PORT";
    /// [`IoreqServerRange::kind`]: memory.
    pub const IO_RANGE_MEMORY: u32 = 1 => "XEN_DMOP_IO_RANGE_MEMORY";
    /// [`IoreqServerRange::kind`]: a PCI function's configuration space.
    pub const IO_RANGE_PCI: u32 = 2 => "XEN_DMOP_IO_RANGE_PCI";
    /// [`CreateIoreqServer::handle_bufioreq`]: no buffered requests.
    pub const HVM_IOREQSRV_BUFIOREQ_OFF: u8 = 0;
    /// [`CreateIoreqServer::handle_bufioreq`]: buffered requests, pointers not read atomically.
    pub const HVM_IOREQSRV_BUFIOREQ_LEGACY: u8 = 1;
    /// [`CreateIoreqServer::handle_bufioreq`]: buffered requests, pointers read atomically.
    pub const HVM_IOREQSRV_BUFIOREQ_ATOMIC: u8 = 2;
    /// [`PinMemoryCacheattr::kind`]: uncacheable.
    pub const MEM_CACHEATTR_UC: u32 = 0 => "XEN_DMOP_MEM_CACHEATTR_UC";
    /// [`PinMemoryCacheattr::kind`]: write-combining.
    pub const MEM_CACHEATTR_WC: u32 = 1 => "XEN_DMOP_MEM_CACHEATTR_WC";
    /// [`PinMemoryCacheattr::kind`]: write-through.
    pub const MEM_CACHEATTR_WT: u32 = 4 => "XEN_DMOP_MEM_CACHEATTR_WT";
    /// [`PinMemoryCacheattr::kind`]: write-protected.
    pub const MEM_CACHEATTR_WP: u32 = 5 => "XEN_DMOP_MEM_CACHEATTR_WP";
    /// [`PinMemoryCacheattr::kind`]: write-back.
    pub const MEM_CACHEATTR_WB: u32 = 6 => "XEN_DMOP_MEM_CACHEATTR_WB";
    /// [`PinMemoryCacheattr::kind`]: uncacheable, MTRRs may override.
    pub const MEM_CACHEATTR_UCM: u32 = 7 => "XEN_DMOP_MEM_CACHEATTR_UCM";
    /// [`PinMemoryCacheattr::kind`]: no longer pinned.
    pub const DELETE_MEM_CACHEATTR: u32 = !0 => "XEN_DMOP_DELETE_MEM_CACHEATTR";
}

abi_enums! {
    /// The commands of `dm_op`.
    pub enum DmOpCmd: u32 {
        /// [`CreateIoreqServer`].
        CREATE_IOREQ_SERVER = 1 => "XEN_DMOP_create_ioreq_server",
        /// [`GetIoreqServerInfo`].
        GET_IOREQ_SERVER_INFO = 2 => "XEN_DMOP_get_ioreq_server_info",
        /// [`IoreqServerRange`].
        MAP_IO_RANGE_TO_IOREQ_SERVER = 3 => "XEN_DMOP_map_io_range_to_ioreq_server",
        /// [`IoreqServerRange`].
        UNMAP_IO_RANGE_FROM_IOREQ_SERVER = 4 => "XEN_DMOP_unmap_io_range_from_ioreq_server",
        /// [`SetIoreqServerState`].
        SET_IOREQ_SERVER_STATE = 5 => "XEN_DMOP_set_ioreq_server_state",
        /// [`DestroyIoreqServer`].
        DESTROY_IOREQ_SERVER = 6 => "XEN_DMOP_destroy_ioreq_server",
        /// [`TrackDirtyVram`].
        TRACK_DIRTY_VRAM = 7 => "XEN_DMOP_track_dirty_vram",
        /// [`SetPciIntxLevel`].
        SET_PCI_INTX_LEVEL = 8 => "XEN_DMOP_set_pci_intx_level",
        /// [`SetIsaIrqLevel`].
        SET_ISA_IRQ_LEVEL = 9 => "XEN_DMOP_set_isa_irq_level",
        /// [`SetPciLinkRoute`].
        SET_PCI_LINK_ROUTE = 10 => "XEN_DMOP_set_pci_link_route",
        /// [`ModifiedMemory`].
        MODIFIED_MEMORY = 11 => "XEN_DMOP_modified_memory",
        /// [`SetMemType`].
        SET_MEM_TYPE = 12 => "XEN_DMOP_set_mem_type",
        /// [`InjectEvent`].
        INJECT_EVENT = 13 => "XEN_DMOP_inject_event",
        /// [`InjectMsi`].
        INJECT_MSI = 14 => "XEN_DMOP_inject_msi",
        /// [`MapMemTypeToIoreqServer`].
        MAP_MEM_TYPE_TO_IOREQ_SERVER = 15 => "XEN_DMOP_map_mem_type_to_ioreq_server",
        /// [`RemoteShutdown`].
        REMOTE_SHUTDOWN = 16 => "XEN_DMOP_remote_shutdown",
        /// [`RelocateMemory`].
        RELOCATE_MEMORY = 17 => "XEN_DMOP_relocate_memory",
        /// [`PinMemoryCacheattr`].
        PIN_MEMORY_CACHEATTR = 18 => "XEN_DMOP_pin_memory_cacheattr",
        /// [`SetIrqLevel`].
        SET_IRQ_LEVEL = 19 => "XEN_DMOP_set_irq_level",
        /// [`NrVcpus`].
        NR_VCPUS = 20 => "XEN_DMOP_nr_vcpus",
    }
}

abi_structs! {
    /// A buffer of the call: the first holds a [`DmOp`], the second what the command adds.
    pub struct DmOpBuf = "struct xen_dm_op_buf"[16] {
        [0] h: GuestHandle<u8>,
        /// Bytes.
        [8] size: u64,
    }

    /// A command.
    pub struct DmOp = "struct xen_dm_op"[32] {
        [0] op: DmOpCmd,
        /// Zero.
        [4] pad: u32,
        /// As `op` says.
        [8] u: Payload<3>,
    }

    /// Makes an I/O request server.
    pub struct CreateIoreqServer = "struct xen_dm_op_create_ioreq_server"[6] {
        /// `HVM_IOREQSRV_BUFIOREQ_*`.
        [0] handle_bufioreq: u8,
        [1] pad: [u8; 3],
        /// Result.
        [4] id: u16,
    }

    /// Where a server's pages and event channel are.
    pub struct GetIoreqServerInfo = "struct xen_dm_op_get_ioreq_server_info"[24] {
        [0] id: u16,
        /// [`NO_GFNS`] or 0.
        [2] flags: u16,
        /// Result.
        [4] bufioreq_port: EvtchnPort,
        /// Result.
        [8] ioreq_gfn: u64,
        /// Result.
        [16] bufioreq_gfn: u64,
    }

    /// What a server serves.
    pub struct IoreqServerRange = "struct xen_dm_op_ioreq_server_range"[24] {
        [0] id: u16,
        [2] pad: u16,
        /// `IO_RANGE_*`.
        [4] kind: u32 as "type",
        /// First.
        [8] start: u64,
        /// Last.
        [16] end: u64,
    }

    /// Starts or stops a server.
    pub struct SetIoreqServerState = "struct xen_dm_op_set_ioreq_server_state"[4] {
        [0] id: u16,
        [2] enabled: u8,
        [3] pad: u8,
    }

    /// Removes a server.
    pub struct DestroyIoreqServer = "struct xen_dm_op_destroy_ioreq_server"[4] {
        [0] id: u16,
        [2] pad: u16,
    }

    /// Which pages of video memory were written; the bitmap is the second buffer.
    pub struct TrackDirtyVram = "struct xen_dm_op_track_dirty_vram"[16] {
        /// Pages; 0 stops tracking.
        [0] nr: u32,
        [4] pad: u32,
        [8] first_pfn: u64,
    }

    /// A PCI interrupt wire.
    pub struct SetPciIntxLevel = "struct xen_dm_op_set_pci_intx_level"[6] {
        /// Zero.
        [0] domain: u16,
        /// Zero.
        [2] bus: u8,
        /// 0 to 31.
        [3] device: u8,
        /// 0 to 3.
        [4] intx: u8,
        /// 1 asserts.
        [5] level: u8,
    }

    /// An ISA interrupt wire.
    pub struct SetIsaIrqLevel = "struct xen_dm_op_set_isa_irq_level"[2] {
        /// 0 to 15.
        [0] isa_irq: u8,
        /// 1 asserts.
        [1] level: u8,
    }

    /// Where a PCI interrupt link leads.
    pub struct SetPciLinkRoute = "struct xen_dm_op_set_pci_link_route"[2] {
        /// 0 to 3.
        [0] link: u8,
        /// 0 to 15; 0 for none.
        [1] isa_irq: u8,
    }

    /// The device model wrote memory; the extents are the second buffer.
    pub struct ModifiedMemory = "struct xen_dm_op_modified_memory"[8] {
        [0] nr_extents: u32,
        /// Zero; for continuation.
        [4] opaque: u32,
    }

    /// An extent of [`ModifiedMemory`].
    pub struct ModifiedMemoryExtent = "struct xen_dm_op_modified_memory_extent"[16] {
        /// Pages.
        [0] nr: u32,
        [4] pad: u32,
        [8] first_pfn: u64,
    }

    /// Changes the kind of pages.
    pub struct SetMemType = "struct xen_dm_op_set_mem_type"[16] {
        /// Pages.
        [0] nr: u32,
        /// `HVMMEM_*`.
        [4] mem_type: u16,
        [6] pad: u16,
        [8] first_pfn: u64,
    }

    /// Injects an exception or interrupt.
    pub struct InjectEvent = "struct xen_dm_op_inject_event"[24] {
        [0] vcpuid: u32,
        [4] vector: u8,
        /// As in VMX.
        [5] kind: u8 as "type",
        [6] insn_len: u8,
        [7] pad0: u8,
        [8] error_code: u32,
        [12] pad1: u32,
        [16] cr2: u64,
    }

    /// Sends a message-signalled interrupt.
    pub struct InjectMsi = "struct xen_dm_op_inject_msi"[16] {
        [0] data: u32,
        [4] pad: u32,
        [8] addr: u64,
    }

    /// Sends accesses to a kind of memory to a server.
    pub struct MapMemTypeToIoreqServer = "struct xen_dm_op_map_mem_type_to_ioreq_server"[16] {
        [0] id: u16,
        /// `HVMMEM_*`.
        [2] kind: u16 as "type",
        [4] flags: u32,
        /// Zero; for continuation.
        [8] opaque: u64,
    }

    /// Shuts the guest down.
    pub struct RemoteShutdown = "struct xen_dm_op_remote_shutdown"[4] {
        [0] reason: ShutdownReason,
    }

    /// Moves pages.
    pub struct RelocateMemory = "struct xen_dm_op_relocate_memory"[24] {
        /// Pages.
        [0] size: u32,
        [4] pad: u32,
        [8] src_gfn: u64,
        [16] dst_gfn: u64,
    }

    /// Pins the caching of pages.
    pub struct PinMemoryCacheattr = "struct xen_dm_op_pin_memory_cacheattr"[24] {
        /// First frame.
        [0] start: u64,
        /// Last frame.
        [8] end: u64,
        /// `MEM_CACHEATTR_*`.
        [16] kind: u32 as "type",
        [20] pad: u32,
    }

    /// An interrupt wire on Arm.
    pub struct SetIrqLevel = "struct xen_dm_op_set_irq_level"[8] {
        [0] irq: u32,
        [4] level: u8,
        [5] pad: [u8; 3],
    }

    /// The guest's number of vCPUs.
    pub struct NrVcpus = "struct xen_dm_op_nr_vcpus"[4] {
        /// Result.
        [0] vcpus: u32,
    }
}
