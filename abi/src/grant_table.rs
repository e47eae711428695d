//! `grant_table.h`: grant tables.

use crate::GuestHandle;

/// A grant reference: an index into the granter's table.
pub type GrantRef = u32;

/// What `map_grant_ref` gives and `unmap_grant_ref` takes.
pub type GrantHandle = u32;

abi_consts! {
    /// Entries at the start of the table that are not for general use.
    pub const GNTTAB_NR_RESERVED_ENTRIES: u32 = 8;
    /// The entry for the console ring.
    pub const GNTTAB_RESERVED_CONSOLE: GrantRef = 0;
    /// The entry for the xenstore ring.
    pub const GNTTAB_RESERVED_XENSTORE: GrantRef = 1;

    /// Entry flags: unused.
    pub const GTF_INVALID: u16 = 0 => "GTF_invalid";
    /// Entry flags: the other domain may map or copy.
    pub const GTF_PERMIT_ACCESS: u16 = 1 => "GTF_permit_access";
    /// Entry flags: the other domain may transfer a page.
    pub const GTF_ACCEPT_TRANSFER: u16 = 2 => "GTF_accept_transfer";
    /// Entry flags: refers to another grant (version 2).
    pub const GTF_TRANSITIVE: u16 = 3 => "GTF_transitive";
    /// Entry flags: the bits of the type.
    pub const GTF_TYPE_MASK: u16 = 3 => "GTF_type_mask";
    /// Entry flags: no writes.
    pub const GTF_READONLY: u16 = 1 << 2 => "GTF_readonly";
    /// Entry flags, set by the hypervisor: in use for reading.
    pub const GTF_READING: u16 = 1 << 3 => "GTF_reading";
    /// Entry flags, set by the hypervisor: in use for writing.
    pub const GTF_WRITING: u16 = 1 << 4 => "GTF_writing";
    /// Entry flags: cache attribute PWT.
    pub const GTF_PWT: u16 = 1 << 5;
    /// Entry flags: cache attribute PCD.
    pub const GTF_PCD: u16 = 1 << 6;
    /// Entry flags: cache attribute PAT.
    pub const GTF_PAT: u16 = 1 << 7;
    /// Entry flags: only part of a page (version 2).
    pub const GTF_SUB_PAGE: u16 = 1 << 8 => "GTF_sub_page";
    /// Transfer entries, set by the hypervisor: a transfer has begun.
    pub const GTF_TRANSFER_COMMITTED: u16 = 1 << 2 => "GTF_transfer_committed";
    /// Transfer entries, set by the hypervisor: a transfer is complete.
    pub const GTF_TRANSFER_COMPLETED: u16 = 1 << 3 => "GTF_transfer_completed";

    /// [`MapGrantRef::flags`]: map for device access.
    pub const GNTMAP_DEVICE_MAP: u32 = 1 << 0 => "GNTMAP_device_map";
    /// [`MapGrantRef::flags`]: map for processor access.
    pub const GNTMAP_HOST_MAP: u32 = 1 << 1 => "GNTMAP_host_map";
    /// [`MapGrantRef::flags`]: without write access.
    pub const GNTMAP_READONLY: u32 = 1 << 2 => "GNTMAP_readonly";
    /// [`MapGrantRef::flags`]: accessible to user mode.
    pub const GNTMAP_APPLICATION_MAP: u32 = 1 << 3 => "GNTMAP_application_map";
    /// [`MapGrantRef::flags`]: `host_addr` is the machine address of a page-table entry.
    pub const GNTMAP_CONTAINS_PTE: u32 = 1 << 4 => "GNTMAP_contains_pte";
    /// [`MapGrantRef::flags`]: available bits for the page-table entry.
    pub const GNTMAP_GUEST_AVAIL_MASK: u32 = 0xffff_0000 => "GNTMAP_guest_avail_mask";

    /// [`GrantCopy::flags`]: the source is a grant reference.
    pub const GNTCOPY_SOURCE_GREF: u16 = 1 << 0 => "GNTCOPY_source_gref";
    /// [`GrantCopy::flags`]: the destination is a grant reference.
    pub const GNTCOPY_DEST_GREF: u16 = 1 << 1 => "GNTCOPY_dest_gref";

    /// [`CacheFlush::op`]: write back.
    pub const GNTTAB_CACHE_CLEAN: u32 = 1 << 0;
    /// [`CacheFlush::op`]: invalidate.
    pub const GNTTAB_CACHE_INVAL: u32 = 1 << 1;
    /// [`CacheFlush::op`]: `a` is a grant reference.
    pub const GNTTAB_CACHE_SOURCE_GREF: u32 = 1 << 31;
}

abi_enums! {
    /// The commands of `grant_table_op`.
    pub enum GrantTableOp: u32 {
        /// [`MapGrantRef`].
        MAP_GRANT_REF = 0 => "GNTTABOP_map_grant_ref",
        /// [`UnmapGrantRef`].
        UNMAP_GRANT_REF = 1 => "GNTTABOP_unmap_grant_ref",
        /// [`SetupTable`].
        SETUP_TABLE = 2 => "GNTTABOP_setup_table",
        /// [`DumpTable`].
        DUMP_TABLE = 3 => "GNTTABOP_dump_table",
        /// [`Transfer`].
        TRANSFER = 4 => "GNTTABOP_transfer",
        /// [`GrantCopy`].
        COPY = 5 => "GNTTABOP_copy",
        /// [`QuerySize`].
        QUERY_SIZE = 6 => "GNTTABOP_query_size",
        /// [`UnmapAndReplace`].
        UNMAP_AND_REPLACE = 7 => "GNTTABOP_unmap_and_replace",
        /// [`SetVersion`].
        SET_VERSION = 8 => "GNTTABOP_set_version",
        /// [`GetStatusFrames`].
        GET_STATUS_FRAMES = 9 => "GNTTABOP_get_status_frames",
        /// [`GetVersion`].
        GET_VERSION = 10 => "GNTTABOP_get_version",
        /// [`SwapGrantRef`].
        SWAP_GRANT_REF = 11 => "GNTTABOP_swap_grant_ref",
        /// [`CacheFlush`].
        CACHE_FLUSH = 12 => "GNTTABOP_cache_flush",
    }

    /// The result of one operation of a batch.
    pub enum GrantStatus: i16 {
        /// Done.
        OKAY = 0 => "GNTST_okay",
        /// Some error.
        GENERAL_ERROR = -1 => "GNTST_general_error",
        /// No such domain.
        BAD_DOMAIN = -2 => "GNTST_bad_domain",
        /// No such grant, or not fit for this.
        BAD_GNTREF = -3 => "GNTST_bad_gntref",
        /// No such handle.
        BAD_HANDLE = -4 => "GNTST_bad_handle",
        /// Nothing can be mapped at this address.
        BAD_VIRT_ADDR = -5 => "GNTST_bad_virt_addr",
        /// Not the device address of the mapping.
        BAD_DEV_ADDR = -6 => "GNTST_bad_dev_addr",
        /// The IOMMU is full.
        NO_DEVICE_SPACE = -7 => "GNTST_no_device_space",
        /// Not privileged.
        PERMISSION_DENIED = -8 => "GNTST_permission_denied",
        /// Not a fit page.
        BAD_PAGE = -9 => "GNTST_bad_page",
        /// The copy crosses a page.
        BAD_COPY_ARG = -10 => "GNTST_bad_copy_arg",
        /// The page is out of the receiver's reach.
        ADDRESS_TOO_BIG = -11 => "GNTST_address_too_big",
        /// Try again.
        EAGAIN = -12 => "GNTST_eagain",
        /// The table is full.
        NO_SPACE = -13 => "GNTST_no_space",
    }
}

abi_structs! {
    /// A grant, version 1.
    pub struct GrantEntryV1 = "struct grant_entry_v1"[8] {
        /// `GTF_*`.
        [0] flags: u16,
        /// The domain that may use the grant.
        [2] domid: u16,
        /// The frame: MFN of PV guests, GFN of HVM guests.
        [4] frame: u32,
    }

    /// The head of a grant, version 2.
    pub struct GrantEntryHeader = "struct grant_entry_header"[4] {
        /// `GTF_*`.
        [0] flags: u16,
        /// The domain that may use the grant.
        [2] domid: u16,
    }

    /// A grant of a whole page, version 2.
    pub struct GrantEntryV2FullPage = "union grant_entry_v2"[16] {
        [0] hdr: GrantEntryHeader,
        [4] _pad: u32,
        [8] frame: u64 as "full_page.frame",
    }

    /// Maps a grant.
    pub struct MapGrantRef = "struct gnttab_map_grant_ref"[32] {
        /// Where: a virtual address, a page-table entry's machine address, or a guest-physical address.
        [0] host_addr: u64,
        /// `GNTMAP_*`.
        [8] flags: u32,
        [12] gref: GrantRef as "ref",
        /// The granter.
        [16] dom: u16,
        /// Result.
        [18] status: GrantStatus,
        /// Result.
        [20] handle: GrantHandle,
        /// Result: the machine address.
        [24] dev_bus_addr: u64,
    }

    /// Ends a mapping.
    pub struct UnmapGrantRef = "struct gnttab_unmap_grant_ref"[24] {
        /// The mapping's `host_addr`, or 0.
        [0] host_addr: u64,
        /// The mapping's `dev_bus_addr`, or 0.
        [8] dev_bus_addr: u64,
        [16] handle: GrantHandle,
        /// Result.
        [20] status: GrantStatus,
        [22] _pad: u16,
    }

    /// Grows a table and lists its frames.
    pub struct SetupTable = "struct gnttab_setup_table"[24] {
        [0] dom: u16,
        [2] _pad0: u16,
        [4] nr_frames: u32,
        /// Result.
        [8] status: GrantStatus,
        [10] _pad1: [u16; 3],
        /// Result.
        [16] frame_list: GuestHandle<u64>,
    }

    /// Prints a table on the hypervisor's console.
    pub struct DumpTable = "struct gnttab_dump_table"[4] {
        [0] dom: u16,
        /// Result.
        [2] status: GrantStatus,
    }

    /// Gives a page away.
    pub struct Transfer = "struct gnttab_transfer"[24] {
        [0] mfn: u64,
        /// The receiver.
        [8] domid: u16,
        [10] _pad0: u16,
        [12] gref: GrantRef as "ref",
        /// Result.
        [16] status: GrantStatus,
        [18] _pad1: [u16; 3],
    }

    /// One side of a copy.
    pub struct CopyPtr = "struct gnttab_copy_ptr"[16] {
        /// A grant reference (low 32 bits) or a frame, as the flags say.
        [0] u: u64,
        [8] domid: u16,
        /// Where in the page, in bytes.
        [10] offset: u16,
        [12] _pad: u32,
    }

    /// Copies part of a page.
    pub struct GrantCopy = "struct gnttab_copy"[40] {
        [0] source: CopyPtr,
        [16] dest: CopyPtr,
        /// Bytes.
        [32] len: u16,
        /// `GNTCOPY_*`.
        [34] flags: u16,
        /// Result.
        [36] status: GrantStatus,
        [38] _pad: u16,
    }

    /// A table's size.
    pub struct QuerySize = "struct gnttab_query_size"[16] {
        [0] dom: u16,
        [2] _pad0: u16,
        /// Result.
        [4] nr_frames: u32,
        /// Result.
        [8] max_nr_frames: u32,
        /// Result.
        [12] status: GrantStatus,
        [14] _pad1: u16,
    }

    /// Ends a mapping and puts another page-table entry in its place.
    pub struct UnmapAndReplace = "struct gnttab_unmap_and_replace"[24] {
        [0] host_addr: u64,
        /// Where the replacement comes from.
        [8] new_addr: u64,
        [16] handle: GrantHandle,
        /// Result.
        [20] status: GrantStatus,
        [22] _pad: u16,
    }

    /// Chooses the table's version.
    pub struct SetVersion = "struct gnttab_set_version"[4] {
        /// Wanted version, then the one in force.
        [0] version: u32,
    }

    /// The table's version.
    pub struct GetVersion = "struct gnttab_get_version"[8] {
        [0] dom: u16,
        [2] pad: u16,
        /// Result.
        [4] version: u32,
    }

    /// Lists the frames of the status array.
    pub struct GetStatusFrames = "struct gnttab_get_status_frames"[16] {
        [0] nr_frames: u32,
        [4] dom: u16,
        /// Result.
        [6] status: GrantStatus,
        /// Result.
        [8] frame_list: GuestHandle<u64>,
    }

    /// Exchanges two entries.
    pub struct SwapGrantRef = "struct gnttab_swap_grant_ref"[12] {
        [0] ref_a: GrantRef,
        [4] ref_b: GrantRef,
        /// Result.
        [8] status: GrantStatus,
        [10] _pad: u16,
    }

    /// Maintains the cache for a granted page.
    pub struct CacheFlush = "struct gnttab_cache_flush"[16] {
        /// A device address or a grant reference (low 32 bits).
        [0] a: u64,
        [8] offset: u16,
        [10] length: u16,
        /// `GNTTAB_CACHE_*`.
        [12] op: u32,
    }
}
