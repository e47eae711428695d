//! The hypervisor's part of every address space: PML4 slots 256 to 271. Public header `arch-x86/xen-x86_64.h` fixes its bounds and the place of the
//! machine-to-phys table; the rest is ours.

use oxen_types::Maddr;

/// Machine-to-phys table: 8 bytes for each frame, guest-readable. `MACH2PHYS_VIRT_START` of the public header.
pub const M2P: u64 = 0xffff_8000_0000_0000;
/// End of the room for the machine-to-phys table.
pub const M2P_END: u64 = 0xffff_8080_0000_0000;
/// Per-CPU areas.
pub const PER_CPU: u64 = 0xffff_8200_0000_0000;
/// Distance between the areas of two CPUs.
pub const PER_CPU_STRIDE: u64 = 1 << 20;
/// Memory-mapped devices and firmware tables.
pub const MMIO: u64 = 0xffff_8280_0000_0000;
/// End of the window for [`MMIO`].
pub const MMIO_END: u64 = 0xffff_82c0_0000_0000;
/// The heap.
pub const HEAP: u64 = 0xffff_82c0_0000_0000;
/// End of the room for the heap.
pub const HEAP_END: u64 = 0xffff_82d0_0000_0000;
/// The image's linked address (also in the linker script).
pub const IMAGE: u64 = 0xffff_82d0_4000_0000;
/// The frame table: 16 bytes for each frame.
pub const FRAME_TABLE: u64 = 0xffff_82e0_0000_0000;
/// End of the room for the frame table.
pub const FRAME_TABLE_END: u64 = 0xffff_8300_0000_0000;
/// The direct map of all RAM.
pub const DIRECT_MAP: u64 = 0xffff_8300_0000_0000;
/// End of the room for the direct map: 5 TiB.
pub const DIRECT_MAP_END: u64 = 0xffff_8800_0000_0000;

/// First PML4 slot of the hypervisor.
pub const FIRST_SLOT: usize = 256;
/// Number of its PML4 slots.
pub const NR_SLOTS: usize = 16;

/// Highest frame number, exclusive, that the tables above have room for.
pub const MAX_FRAMES: u64 = {
    let by_direct_map = (DIRECT_MAP_END - DIRECT_MAP) / 4096;
    let by_m2p = (M2P_END - M2P) / 8;
    let by_frame_table = (FRAME_TABLE_END - FRAME_TABLE) / 16;
    let smaller = if by_direct_map < by_m2p { by_direct_map } else { by_m2p };
    if smaller < by_frame_table { smaller } else { by_frame_table }
};

/// Where the direct map shows a machine address. Only RAM is mapped there.
#[inline]
#[must_use]
pub const fn direct(maddr: Maddr) -> u64 {
    DIRECT_MAP + maddr.0
}
