//! `hvm/hvm_op.h`: calls of and about HVM guests.

use super::params::HvmParam;

abi_consts! {
    /// Kinds of memory: ordinary.
    pub const HVMMEM_RAM_RW: u16 = 0 => "HVMMEM_ram_rw";
    /// Kinds of memory: read-only, writes are dropped.
    pub const HVMMEM_RAM_RO: u16 = 1 => "HVMMEM_ram_ro";
    /// Kinds of memory: accesses go to the device model.
    pub const HVMMEM_MMIO_DM: u16 = 2 => "HVMMEM_mmio_dm";
    /// Kinds of memory: an I/O request server's.
    pub const HVMMEM_IOREQ_SERVER: u16 = 4 => "HVMMEM_ioreq_server";
}

abi_enums! {
    /// The commands of `hvm_op`.
    pub enum HvmOp: u32 {
        /// [`Param`].
        SET_PARAM = 0 => "HVMOP_set_param",
        /// [`Param`].
        GET_PARAM = 1 => "HVMOP_get_param",
        /// Flushes the TLBs of the calling domain's vCPUs; no argument.
        FLUSH_TLBS = 5 => "HVMOP_flush_tlbs",
        /// [`PagetableDying`].
        PAGETABLE_DYING = 9 => "HVMOP_pagetable_dying",
        /// [`GetTime`].
        GET_TIME = 10 => "HVMOP_get_time",
        /// Writes a trace record.
        XENTRACE = 11 => "HVMOP_xentrace",
        /// [`GetMemType`].
        GET_MEM_TYPE = 15 => "HVMOP_get_mem_type",
        /// [`EvtchnUpcallVector`].
        SET_EVTCHN_UPCALL_VECTOR = 23 => "HVMOP_set_evtchn_upcall_vector",
        /// Asks a monitor for attention.
        GUEST_REQUEST_VM_EVENT = 24 => "HVMOP_guest_request_vm_event",
        /// Alternate views of memory.
        ALTP2M = 25 => "HVMOP_altp2m",
    }
}

abi_structs! {
    /// A parameter.
    pub struct Param = "struct xen_hvm_param"[16] {
        [0] domid: u16,
        [2] pad: u16,
        [4] index: HvmParam,
        /// In or out.
        [8] value: u64,
    }

    /// A page table is about to go away.
    pub struct PagetableDying = "struct xen_hvm_pagetable_dying"[16] {
        [0] domid: u16,
        [2] pad: [u16; 3],
        /// Guest-physical address of its root.
        [8] gpa: u64,
    }

    /// System time.
    pub struct GetTime = "struct xen_hvm_get_time"[8] {
        /// Result: ns.
        [0] now: u64,
    }

    /// The kind of a page.
    pub struct GetMemType = "struct xen_hvm_get_mem_type"[16] {
        [0] domid: u16,
        /// Result: `HVMMEM_*`.
        [2] mem_type: u16,
        [4] pad: [u16; 2],
        [8] pfn: u64,
    }

    /// The vector that tells a vCPU about events.
    pub struct EvtchnUpcallVector = "struct xen_hvm_evtchn_upcall_vector"[8] {
        [0] vcpu: u32,
        [4] vector: u8,
        [5] _pad: [u8; 3],
    }
}
