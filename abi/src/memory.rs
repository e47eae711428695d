//! `memory.h`: memory reservations and physical maps.

use crate::GuestHandle;

/// Low bits of `cmd` that hold the [`MemoryOp`]; the bits above carry a continuation's progress (`MEMOP_CMD_MASK` in Xen).
pub const MEMOP_CMD_MASK: u64 = 0x3f;

abi_consts! {
    /// `mem_flags`: allocate on demand.
    pub const XENMEMF_POPULATE_ON_DEMAND: u32 = 1 << 16 => "XENMEMF_populate_on_demand";
    /// `mem_flags`: only the given node will do.
    pub const XENMEMF_EXACT_NODE_REQUEST: u32 = 1 << 17 => "XENMEMF_exact_node_request";
    /// `mem_flags`: the node is a virtual one.
    pub const XENMEMF_VNODE: u32 = 1 << 18 => "XENMEMF_vnode";

    /// Grant table frames: ids of [`ResourceType::GRANT_TABLE`]: the shared entries.
    pub const RESOURCE_GRANT_TABLE_ID_SHARED: u32 = 0 => "XENMEM_resource_grant_table_id_shared";
    /// Ids of [`ResourceType::GRANT_TABLE`]: the status array.
    pub const RESOURCE_GRANT_TABLE_ID_STATUS: u32 = 1 => "XENMEM_resource_grant_table_id_status";
    /// Frames of [`ResourceType::IOREQ_SERVER`]: the buffered requests; the frames after it are synchronous ones.
    pub const RESOURCE_IOREQ_SERVER_FRAME_BUFIOREQ: u64 = 0 => "XENMEM_resource_ioreq_server_frame_bufioreq";
    /// [`AddToPhysmap::idx`] of a grant table: the status array.
    pub const XENMAPIDX_GRANT_TABLE_STATUS: u64 = 0x8000_0000 => "XENMAPIDX_grant_table_status";
    /// [`ReservedDeviceMemoryMap::flags`]: all devices.
    pub const XENMEM_RDM_ALL: u32 = 1;
}

abi_enums! {
    /// The commands of `memory_op`.
    pub enum MemoryOp: u32 {
        /// [`MemoryReservation`]; returns the number of extents done.
        INCREASE_RESERVATION = 0 => "XENMEM_increase_reservation",
        /// [`MemoryReservation`]; returns the number of extents done.
        DECREASE_RESERVATION = 1 => "XENMEM_decrease_reservation",
        /// Returns the highest MFN plus one.
        MAXIMUM_RAM_PAGE = 2 => "XENMEM_maximum_ram_page",
        /// A domain id; returns its pages.
        CURRENT_RESERVATION = 3 => "XENMEM_current_reservation",
        /// A domain id; returns its limit in pages.
        MAXIMUM_RESERVATION = 4 => "XENMEM_maximum_reservation",
        /// [`MachphysMfnList`].
        MACHPHYS_MFN_LIST = 5 => "XENMEM_machphys_mfn_list",
        /// [`MemoryReservation`]; returns the number of extents done.
        POPULATE_PHYSMAP = 6 => "XENMEM_populate_physmap",
        /// [`AddToPhysmap`].
        ADD_TO_PHYSMAP = 7 => "XENMEM_add_to_physmap",
        /// [`MemoryMap`] of the calling domain.
        MEMORY_MAP = 9 => "XENMEM_memory_map",
        /// [`MemoryMap`] of the host.
        MACHINE_MEMORY_MAP = 10 => "XENMEM_machine_memory_map",
        /// [`MemoryExchange`].
        EXCHANGE = 11 => "XENMEM_exchange",
        /// [`MachphysMapping`].
        MACHPHYS_MAPPING = 12 => "XENMEM_machphys_mapping",
        /// [`ForeignMemoryMap`].
        SET_MEMORY_MAP = 13 => "XENMEM_set_memory_map",
        /// A domain id; returns its highest GFN.
        MAXIMUM_GPFN = 14 => "XENMEM_maximum_gpfn",
        /// [`RemoveFromPhysmap`].
        REMOVE_FROM_PHYSMAP = 15 => "XENMEM_remove_from_physmap",
        /// [`PodTarget`].
        SET_POD_TARGET = 16 => "XENMEM_set_pod_target",
        /// [`PodTarget`].
        GET_POD_TARGET = 17 => "XENMEM_get_pod_target",
        /// Returns the pages freed by sharing.
        GET_SHARING_FREED_PAGES = 18 => "XENMEM_get_sharing_freed_pages",
        /// Returns the pages shared.
        GET_SHARING_SHARED_PAGES = 19 => "XENMEM_get_sharing_shared_pages",
        /// Paging.
        PAGING_OP = 20 => "XENMEM_paging_op",
        /// Access control by a monitor.
        ACCESS_OP = 21 => "XENMEM_access_op",
        /// Sharing.
        SHARING_OP = 22 => "XENMEM_sharing_op",
        /// [`AddToPhysmapBatch`].
        ADD_TO_PHYSMAP_BATCH = 23 => "XENMEM_add_to_physmap_batch",
        /// [`MemoryReservation`]: claims memory without allocating.
        CLAIM_PAGES = 24 => "XENMEM_claim_pages",
        /// [`MachphysMfnList`] of 32-bit guests.
        MACHPHYS_COMPAT_MFN_LIST = 25 => "XENMEM_machphys_compat_mfn_list",
        /// [`VnumaTopologyInfo`].
        GET_VNUMAINFO = 26 => "XENMEM_get_vnumainfo",
        /// [`ReservedDeviceMemoryMap`].
        RESERVED_DEVICE_MEMORY_MAP = 27 => "XENMEM_reserved_device_memory_map",
        /// [`MemAcquireResource`].
        ACQUIRE_RESOURCE = 28 => "XENMEM_acquire_resource",
    }

    /// What to map into a guest's physical map.
    pub enum MapSpace: u32 {
        /// The shared information page.
        SHARED_INFO = 0 => "XENMAPSPACE_shared_info",
        /// A frame of the grant table.
        GRANT_TABLE = 1 => "XENMAPSPACE_grant_table",
        /// Another of the guest's frames.
        GMFN = 2 => "XENMAPSPACE_gmfn",
        /// A range of the guest's frames.
        GMFN_RANGE = 3 => "XENMAPSPACE_gmfn_range",
        /// Another domain's frame.
        GMFN_FOREIGN = 4 => "XENMAPSPACE_gmfn_foreign",
        /// Device memory.
        DEV_MMIO = 5 => "XENMAPSPACE_dev_mmio",
    }

    /// Kinds of resources for [`MemAcquireResource`].
    pub enum ResourceType: u16 {
        /// Pages of an I/O request server.
        IOREQ_SERVER = 0 => "XENMEM_resource_ioreq_server",
        /// Frames of a grant table.
        GRANT_TABLE = 1 => "XENMEM_resource_grant_table",
        /// A trace buffer.
        VMTRACE_BUF = 2 => "XENMEM_resource_vmtrace_buf",
    }
}

abi_structs! {
    /// Extents to allocate or to free.
    pub struct MemoryReservation = "struct xen_memory_reservation"[32] {
        /// Frames, in or out as the command says.
        [0] extent_start: GuestHandle<u64>,
        [8] nr_extents: u64,
        /// Log2 of an extent's pages.
        [16] extent_order: u32,
        /// Bits 0-7: address bits, 0 for any; bits 8-15: node plus one; `XENMEMF_*`.
        [20] mem_flags: u32,
        [24] domid: u16,
        [26] _pad: [u16; 3],
    }

    /// Memory to give back and memory to get for it.
    pub struct MemoryExchange = "struct xen_memory_exchange"[72] {
        /// What is given.
        [0] input: MemoryReservation as "in",
        /// What is wanted.
        [32] output: MemoryReservation as "out",
        /// Input extents done; 0 on entry.
        [64] nr_exchanged: u64,
    }

    /// Where the M2P is in machine memory.
    pub struct MachphysMfnList = "struct xen_machphys_mfn_list"[24] {
        /// Room in the array.
        [0] max_extents: u32,
        [4] _pad0: u32,
        /// MFNs of 2 MiB extents.
        [8] extent_start: GuestHandle<u64>,
        /// Result.
        [16] nr_extents: u32,
        [20] _pad1: u32,
    }

    /// Where the M2P is in the address space.
    pub struct MachphysMapping = "struct xen_machphys_mapping"[24] {
        /// First address.
        [0] v_start: u64,
        /// First address after it.
        [8] v_end: u64,
        /// Highest MFN that has an entry.
        [16] max_mfn: u64,
    }

    /// Puts something at a guest frame.
    pub struct AddToPhysmap = "struct xen_add_to_physmap"[24] {
        [0] domid: u16,
        /// Number of pages ([`MapSpace::GMFN_RANGE`]).
        [2] size: u16,
        [4] space: MapSpace,
        /// Which of the source.
        [8] idx: u64,
        /// Where.
        [16] gpfn: u64,
    }

    /// Puts some things at some guest frames.
    pub struct AddToPhysmapBatch = "struct xen_add_to_physmap_batch"[32] {
        [0] domid: u16,
        /// A [`MapSpace`].
        [2] space: u16,
        [4] size: u16,
        /// The owner ([`MapSpace::GMFN_FOREIGN`]), else 0.
        [6] foreign_domid: u16 as "u.foreign_domid",
        [8] idxs: GuestHandle<u64>,
        [16] gpfns: GuestHandle<u64>,
        /// Result of each.
        [24] errs: GuestHandle<i32>,
    }

    /// Empties a guest frame.
    pub struct RemoveFromPhysmap = "struct xen_remove_from_physmap"[16] {
        [0] domid: u16,
        [2] _pad: [u16; 3],
        [8] gpfn: u64,
    }

    /// An array of [`E820Entry`].
    pub struct MemoryMap = "struct xen_memory_map"[16] {
        /// Room in the array, then entries written.
        [0] nr_entries: u32,
        [4] _pad: u32,
        [8] buffer: GuestHandle<E820Entry>,
    }

    /// Sets a domain's memory map.
    pub struct ForeignMemoryMap = "struct xen_foreign_memory_map"[24] {
        [0] domid: u16,
        [2] _pad: [u16; 3],
        [8] map: MemoryMap,
    }

    /// Populate-on-demand.
    pub struct PodTarget = "struct xen_pod_target"[40] {
        [0] target_pages: u64,
        [8] tot_pages: u64,
        [16] pod_cache_pages: u64,
        [24] pod_entries: u64,
        [32] domid: u16,
        [34] _pad: [u16; 3],
    }

    /// Memory that firmware reserved for devices.
    pub struct ReservedDeviceMemoryMap = "struct xen_reserved_device_memory_map"[24] {
        /// [`XENMEM_RDM_ALL`] or 0.
        [0] flags: u32,
        /// Room in the array, then entries that exist.
        [4] nr_entries: u32,
        [8] buffer: GuestHandle<ReservedDeviceMemory>,
        [16] pci_seg: u16 as "dev.pci.seg",
        [18] pci_bus: u8 as "dev.pci.bus",
        [19] pci_devfn: u8 as "dev.pci.devfn",
        [20] _pad: u32,
    }

    /// A range of such memory.
    pub struct ReservedDeviceMemory = "struct xen_reserved_device_memory"[16] {
        [0] start_pfn: u64,
        [8] nr_pages: u64,
    }

    /// Makes frames of a domain's resource mappable.
    pub struct MemAcquireResource = "struct xen_mem_acquire_resource"[32] {
        [0] domid: u16,
        [2] kind: ResourceType as "type",
        [4] id: u32,
        /// Number of frames; with a null list the result is the resource's size.
        [8] nr_frames: u32,
        /// Zero.
        [12] pad: u32,
        /// First frame wanted.
        [16] frame: u64,
        [24] frame_list: GuestHandle<u64>,
    }

    /// The calling domain's virtual NUMA topology.
    pub struct VnumaTopologyInfo = "struct xen_vnuma_topology_info"[40] {
        [0] domid: u16,
        /// Zero.
        [2] pad: u16,
        [4] nr_vnodes: u32,
        [8] nr_vcpus: u32,
        [12] nr_vmemranges: u32,
        [16] vdistance: GuestHandle<u32>,
        [24] vcpu_to_vnode: GuestHandle<u32>,
        [32] vmemrange: GuestHandle<Vmemrange>,
    }

    /// A range of memory of a virtual node.
    pub struct Vmemrange = "struct xen_vmemrange"[24] {
        [0] start: u64,
        [8] end: u64,
        [16] flags: u32,
        [20] nid: u32,
    }
}

/// An entry of an e820 memory map: 20 bytes without padding, as firmware gives it.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
    zerocopy::Unaligned,
)]
#[repr(C)]
pub struct E820Entry {
    /// First byte.
    pub addr: zerocopy::little_endian::U64,
    /// Bytes.
    pub size: zerocopy::little_endian::U64,
    /// [`E820Entry::RAM`] and so on.
    pub kind: zerocopy::little_endian::U32,
}

impl E820Entry {
    /// Usable memory.
    pub const RAM: u32 = 1;
    /// Reserved.
    pub const RESERVED: u32 = 2;
    /// ACPI tables, reclaimable.
    pub const ACPI: u32 = 3;
    /// ACPI non-volatile storage.
    pub const NVS: u32 = 4;
    /// Bad memory.
    pub const UNUSABLE: u32 = 5;

    /// The entry for `size` bytes at `addr` of the given kind.
    pub const fn new(addr: u64, size: u64, kind: u32) -> Self {
        use zerocopy::little_endian::{U32, U64};
        Self {
            addr: U64::new(addr),
            size: U64::new(size),
            kind: U32::new(kind),
        }
    }
}

const _: () = assert!(size_of::<E820Entry>() == 20);
