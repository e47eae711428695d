//! `physdev.h`: physical interrupts and PCI devices.

use crate::GuestHandle;

abi_consts! {
    /// [`IrqStatusQuery::flags`]: the guest must end the interrupt with [`Eoi`].
    pub const XENIRQSTAT_NEEDS_EOI: u32 = 1 << 0 => "XENIRQSTAT_needs_eoi";
    /// [`IrqStatusQuery::flags`]: other guests share the interrupt.
    pub const XENIRQSTAT_SHARED: u32 = 1 << 1 => "XENIRQSTAT_shared";
    /// [`PciMmcfgReserved::flags`]: firmware reserves the region.
    pub const XEN_PCI_MMCFG_RESERVED: u32 = 1;
    /// [`PciDeviceAdd::flags`]: an extended function.
    pub const XEN_PCI_DEV_EXTFN: u32 = 1;
    /// [`PciDeviceAdd::flags`]: a virtual function.
    pub const XEN_PCI_DEV_VIRTFN: u32 = 2;
    /// [`PciDeviceAdd::flags`]: a proximity domain follows the structure.
    pub const XEN_PCI_DEV_PXM: u32 = 4;
    /// [`DbgpOp::op`]: the debug port is about to be reset.
    pub const PHYSDEVOP_DBGP_RESET_PREPARE: u8 = 1;
    /// [`DbgpOp::op`]: the debug port was reset.
    pub const PHYSDEVOP_DBGP_RESET_DONE: u8 = 2;
    /// [`DbgpOp::bus`]: unknown.
    pub const PHYSDEVOP_DBGP_BUS_UNKNOWN: u8 = 0;
    /// [`DbgpOp::bus`]: PCI.
    pub const PHYSDEVOP_DBGP_BUS_PCI: u8 = 1;
}

abi_enums! {
    /// The commands of `physdev_op`.
    pub enum PhysdevOp: u32 {
        /// Obsolete [`Eoi`].
        IRQ_UNMASK_NOTIFY = 4 => "PHYSDEVOP_IRQ_UNMASK_NOTIFY",
        /// [`IrqStatusQuery`].
        IRQ_STATUS_QUERY = 5 => "PHYSDEVOP_irq_status_query",
        /// [`SetIopl`].
        SET_IOPL = 6 => "PHYSDEVOP_set_iopl",
        /// [`SetIobitmap`].
        SET_IOBITMAP = 7 => "PHYSDEVOP_set_iobitmap",
        /// [`Apic`].
        APIC_READ = 8 => "PHYSDEVOP_apic_read",
        /// [`Apic`].
        APIC_WRITE = 9 => "PHYSDEVOP_apic_write",
        /// [`Irq`].
        ALLOC_IRQ_VECTOR = 10 => "PHYSDEVOP_alloc_irq_vector",
        /// [`Irq`].
        FREE_IRQ_VECTOR = 11 => "PHYSDEVOP_free_irq_vector",
        /// [`Eoi`].
        EOI = 12 => "PHYSDEVOP_eoi",
        /// [`MapPirq`].
        MAP_PIRQ = 13 => "PHYSDEVOP_map_pirq",
        /// [`UnmapPirq`].
        UNMAP_PIRQ = 14 => "PHYSDEVOP_unmap_pirq",
        /// [`ManagePci`].
        MANAGE_PCI_ADD = 15 => "PHYSDEVOP_manage_pci_add",
        /// [`ManagePci`].
        MANAGE_PCI_REMOVE = 16 => "PHYSDEVOP_manage_pci_remove",
        /// [`PirqEoiGmfn`], with automatic unmasking.
        PIRQ_EOI_GMFN_V1 = 17 => "PHYSDEVOP_pirq_eoi_gmfn_v1",
        /// [`ManagePci`] (`struct physdev_restore_msi`).
        RESTORE_MSI = 19 => "PHYSDEVOP_restore_msi",
        /// [`ManagePciExt`].
        MANAGE_PCI_ADD_EXT = 20 => "PHYSDEVOP_manage_pci_add_ext",
        /// [`SetupGsi`].
        SETUP_GSI = 21 => "PHYSDEVOP_setup_gsi",
        /// [`GetFreePirq`].
        GET_FREE_PIRQ = 23 => "PHYSDEVOP_get_free_pirq",
        /// [`PciMmcfgReserved`].
        PCI_MMCFG_RESERVED = 24 => "PHYSDEVOP_pci_mmcfg_reserved",
        /// [`PciDeviceAdd`].
        PCI_DEVICE_ADD = 25 => "PHYSDEVOP_pci_device_add",
        /// [`PciDevice`].
        PCI_DEVICE_REMOVE = 26 => "PHYSDEVOP_pci_device_remove",
        /// [`PciDevice`].
        RESTORE_MSI_EXT = 27 => "PHYSDEVOP_restore_msi_ext",
        /// [`PirqEoiGmfn`].
        PIRQ_EOI_GMFN_V2 = 28 => "PHYSDEVOP_pirq_eoi_gmfn_v2",
        /// [`DbgpOp`].
        DBGP_OP = 29 => "PHYSDEVOP_dbgp_op",
        /// [`PciDevice`].
        PREPARE_MSIX = 30 => "PHYSDEVOP_prepare_msix",
        /// [`PciDevice`].
        RELEASE_MSIX = 31 => "PHYSDEVOP_release_msix",
    }

    /// What [`MapPirq`] maps.
    pub enum MapPirqType: u32 {
        /// An MSI of segment 0.
        MSI = 0 => "MAP_PIRQ_TYPE_MSI",
        /// A global system interrupt.
        GSI = 1 => "MAP_PIRQ_TYPE_GSI",
        /// Unknown.
        UNKNOWN = 2 => "MAP_PIRQ_TYPE_UNKNOWN",
        /// An MSI, the segment in the high half of `bus`.
        MSI_SEG = 3 => "MAP_PIRQ_TYPE_MSI_SEG",
        /// Several MSIs, their number in `entry_nr`.
        MULTI_MSI = 4 => "MAP_PIRQ_TYPE_MULTI_MSI",
    }
}

abi_structs! {
    /// Ends an interrupt.
    pub struct Eoi = "struct physdev_eoi"[4] {
        [0] irq: u32,
    }

    /// A page of bits, one per pirq: "ending this interrupt needs a hypercall".
    pub struct PirqEoiGmfn = "struct physdev_pirq_eoi_gmfn"[8] {
        [0] gmfn: u64,
    }

    /// An interrupt's properties.
    pub struct IrqStatusQuery = "struct physdev_irq_status_query"[8] {
        [0] irq: u32,
        /// Result: `XENIRQSTAT_*`.
        [4] flags: u32,
    }

    /// Sets the virtual I/O privilege level.
    pub struct SetIopl = "struct physdev_set_iopl"[4] {
        [0] iopl: u32,
    }

    /// Sets the I/O permission bitmap.
    pub struct SetIobitmap = "struct physdev_set_iobitmap"[16] {
        /// A clear bit permits the port.
        [0] bitmap: GuestHandle<u8>,
        [8] nr_ports: u32,
        [12] _pad: u32,
    }

    /// Accesses an I/O APIC register.
    pub struct Apic = "struct physdev_apic"[16] {
        [0] apic_physbase: u64,
        [8] reg: u32,
        /// In or out.
        [12] value: u32,
    }

    /// Allocates an interrupt's vector.
    pub struct Irq = "struct physdev_irq"[8] {
        [0] irq: u32,
        /// Result.
        [4] vector: u32,
    }

    /// Gives an interrupt a pirq.
    pub struct MapPirq = "struct physdev_map_pirq"[40] {
        [0] domid: u16,
        [2] _pad0: u16,
        [4] kind: MapPirqType as "type",
        /// The GSI, or -1.
        [8] index: i32,
        /// Wanted pirq or -1; result.
        [12] pirq: i32,
        /// Bits 16 and up: segment ([`MapPirqType::MSI_SEG`]).
        [16] bus: i32,
        [20] devfn: i32,
        /// MSI-X entry, or number of MSIs.
        [24] entry_nr: i32,
        [28] _pad1: u32,
        /// Physical address of the MSI-X table; 0 for MSI.
        [32] table_base: u64,
    }

    /// Takes a pirq away.
    pub struct UnmapPirq = "struct physdev_unmap_pirq"[8] {
        [0] domid: u16,
        [2] _pad: u16,
        [4] pirq: i32,
    }

    /// A PCI device on segment 0.
    pub struct ManagePci = "struct physdev_manage_pci"[2] {
        [0] bus: u8,
        [1] devfn: u8,
    }

    /// A PCI device on segment 0, with virtual functions.
    pub struct ManagePciExt = "struct physdev_manage_pci_ext"[16] {
        [0] bus: u8,
        [1] devfn: u8,
        [2] _pad0: u16,
        [4] is_extfn: u32,
        [8] is_virtfn: u32,
        [12] physfn_bus: u8 as "physfn.bus",
        [13] physfn_devfn: u8 as "physfn.devfn",
        [14] _pad1: u16,
    }

    /// A global system interrupt's trigger and polarity.
    pub struct SetupGsi = "struct physdev_setup_gsi"[8] {
        [0] gsi: i32,
        /// 0 edge, 1 level.
        [4] triggering: u8,
        /// 0 active high, 1 active low.
        [5] polarity: u8,
        [6] _pad: u16,
    }

    /// Reserves a pirq.
    pub struct GetFreePirq = "struct physdev_get_free_pirq"[8] {
        [0] kind: MapPirqType as "type",
        /// Result.
        [4] pirq: u32,
    }

    /// A region of memory-mapped configuration space.
    pub struct PciMmcfgReserved = "struct physdev_pci_mmcfg_reserved"[16] {
        [0] address: u64,
        [8] segment: u16,
        [10] start_bus: u8,
        [11] end_bus: u8,
        /// [`XEN_PCI_MMCFG_RESERVED`] or 0.
        [12] flags: u32,
    }

    /// A PCI device that exists; a `u32` proximity domain may follow.
    pub struct PciDeviceAdd = "struct physdev_pci_device_add"[12] {
        [0] seg: u16,
        [2] bus: u8,
        [3] devfn: u8,
        /// `XEN_PCI_DEV_*`.
        [4] flags: u32,
        [8] physfn_bus: u8 as "physfn.bus",
        [9] physfn_devfn: u8 as "physfn.devfn",
        [10] _pad: u16,
    }

    /// A PCI device.
    pub struct PciDevice = "struct physdev_pci_device"[4] {
        [0] seg: u16,
        [2] bus: u8,
        [3] devfn: u8,
    }

    /// A USB debug port.
    pub struct DbgpOp = "struct physdev_dbgp_op"[6] {
        [0] op: u8,
        [1] bus: u8,
        [2] pci: PciDevice as "u.pci",
    }
}
