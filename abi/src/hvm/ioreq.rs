//! `hvm/ioreq.h`: requests for device models.

abi_consts! {
    /// Direction: read.
    pub const IOREQ_READ: u8 = 1;
    /// Direction: write.
    pub const IOREQ_WRITE: u8 = 0;
    /// Slots of [`BufferedIopage`].
    pub const IOREQ_BUFFER_SLOT_NUM: usize = 511;
    /// ACPI event block, first choice ([`super::params::HvmParam::ACPI_IOPORTS_LOCATION`] 0).
    pub const ACPI_PM1A_EVT_BLK_ADDRESS_V0: u16 = 0x1f40;
    /// ACPI timer, first choice.
    pub const ACPI_PM_TMR_BLK_ADDRESS_V0: u16 = 0x1f48;
    /// ACPI event block, second choice ([`super::params::HvmParam::ACPI_IOPORTS_LOCATION`] 1).
    pub const ACPI_PM1A_EVT_BLK_ADDRESS_V1: u16 = 0xb000;
    /// ACPI control block, second choice.
    pub const ACPI_PM1A_CNT_BLK_ADDRESS_V1: u16 = 0xb004;
    /// ACPI timer, second choice.
    pub const ACPI_PM_TMR_BLK_ADDRESS_V1: u16 = 0xb008;
}

abi_enums! {
    /// Whose turn a request is.
    pub enum IoreqState: u8 {
        /// Nobody's.
        NONE = 0 => "STATE_IOREQ_NONE",
        /// The device model's.
        READY = 1 => "STATE_IOREQ_READY",
        /// The device model works on it.
        INPROCESS = 2 => "STATE_IOREQ_INPROCESS",
        /// The hypervisor's.
        RESP_READY = 3 => "STATE_IORESP_READY",
    }

    /// What is accessed.
    pub enum IoreqType: u8 {
        /// I/O ports.
        PIO = 0 => "IOREQ_TYPE_PIO",
        /// Memory.
        COPY = 1 => "IOREQ_TYPE_COPY",
        /// PCI configuration space.
        PCI_CONFIG = 2 => "IOREQ_TYPE_PCI_CONFIG",
        /// The guest set its clock.
        TIMEOFFSET = 7 => "IOREQ_TYPE_TIMEOFFSET",
        /// The device model shall forget its mappings.
        INVALIDATE = 8 => "IOREQ_TYPE_INVALIDATE",
    }
}

abi_structs! {
    /// A request; a page holds one per vCPU.
    pub struct Ioreq = "struct ioreq"[32] {
        [0] addr: u64,
        /// The data, or where they are.
        [8] data: u64,
        /// Repetitions.
        [16] count: u32,
        /// Bytes.
        [20] size: u32,
        /// Event channel for both sides.
        [24] vp_eport: u32,
        [28] _pad0: u16,
        /// Bits 0-3 [`IoreqState`], 4 data is an address, 5 direction, 6 descending.
        [30] bits: u8 as "_bits",
        [31] kind: IoreqType as "type",
    }

    /// A buffered write.
    pub struct BufIoreq = "struct buf_ioreq"[8] {
        [0] kind: IoreqType as "type",
        /// Bit 1 direction, 2-3 log2 of the size, 4-23 address.
        [1] bits: [u8; 3] as "_bits",
        [4] data: u32,
    }

    /// The page of buffered writes.
    pub struct BufferedIopage = "struct buffered_iopage"[4096] {
        [0] read_pointer: u32,
        [4] write_pointer: u32,
        [8] buf_ioreq: [BufIoreq; IOREQ_BUFFER_SLOT_NUM],
    }
}
