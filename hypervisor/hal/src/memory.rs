//! Access to machine frames.

use crate::FrameMeta;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use oxen_types::{Maddr, Mfn, PT_ENTRIES};

/// What the firmware says of a range of machine addresses (the E820 types of the ACPI specification, section "Address Range Types").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Usable memory (type 1).
    Ram,
    /// Reserved (type 2).
    Reserved,
    /// ACPI tables, reclaimable (type 3).
    AcpiTables,
    /// ACPI non-volatile storage (type 4).
    AcpiNvs,
    /// Memory with errors (type 5).
    Unusable,
    /// Any other type, as the firmware gave it.
    Other(u32),
}

impl MemoryKind {
    /// The E820 number.
    #[must_use]
    pub const fn e820(self) -> u32 {
        match self {
            MemoryKind::Ram => 1,
            MemoryKind::Reserved => 2,
            MemoryKind::AcpiTables => 3,
            MemoryKind::AcpiNvs => 4,
            MemoryKind::Unusable => 5,
            MemoryKind::Other(n) => n,
        }
    }

    /// The kind that an E820 number stands for.
    #[must_use]
    pub const fn from_e820(number: u32) -> Self {
        match number {
            1 => MemoryKind::Ram,
            2 => MemoryKind::Reserved,
            3 => MemoryKind::AcpiTables,
            4 => MemoryKind::AcpiNvs,
            5 => MemoryKind::Unusable,
            n => MemoryKind::Other(n),
        }
    }
}

/// One range of the firmware's memory map: `start` inclusive, `end` exclusive, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// First byte.
    pub start: Maddr,
    /// One past the last byte.
    pub end: Maddr,
    /// What it holds.
    pub kind: MemoryKind,
}

/// Machine frames and their records. Methods that take a frame number accept only frames for which [`Frames::meta`] answers, unless
/// they say otherwise; the implementation stops the hypervisor on any other number, since passing one is a hypervisor bug.
pub trait Frames {
    /// The frame's record, or `None` where the number is not RAM that the hypervisor manages (MMIO, firmware, holes).
    fn meta(&self, mfn: Mfn) -> Option<&FrameMeta>;

    /// One more than the highest RAM frame number.
    fn max_mfn(&self) -> u64;

    /// The firmware's memory map, sorted and without overlap.
    fn memory_map(&self) -> &[MemoryRange];

    /// A frame seen as a page table, for several accesses to its entries.
    fn table(&self, mfn: Mfn) -> &[AtomicU64; PT_ENTRIES];

    /// Reads entry `index` (0 to 511) of a frame seen as a page table.
    fn read_entry(&self, mfn: Mfn, index: usize) -> u64;

    /// Writes entry `index` of a frame seen as a page table, as one store.
    fn write_entry(&self, mfn: Mfn, index: usize, value: u64);

    /// Replaces entry `index` where it holds `old`; otherwise gives what it holds.
    fn exchange_entry(&self, mfn: Mfn, index: usize, old: u64, new: u64) -> Result<(), u64>;

    /// A byte of a frame that a guest may write at the same time. The caller holds a reference to the frame for as long as it uses the result.
    fn shared_u8(&self, mfn: Mfn, offset: usize) -> &AtomicU8;

    /// As [`Frames::shared_u8`] for an aligned 32-bit word.
    fn shared_u32(&self, mfn: Mfn, offset: usize) -> &AtomicU32;

    /// As [`Frames::shared_u8`] for an aligned 64-bit word.
    fn shared_u64(&self, mfn: Mfn, offset: usize) -> &AtomicU64;

    /// Copies bytes out of a frame; `offset + to.len()` is at most 4096. A guest may write the frame meanwhile: the copy is what was read.
    fn read_bytes(&self, mfn: Mfn, offset: usize, to: &mut [u8]);

    /// Copies bytes into a frame; `offset + from.len()` is at most 4096.
    fn write_bytes(&self, mfn: Mfn, offset: usize, from: &[u8]);

    /// Fills a frame with zero.
    fn zero_frame(&self, mfn: Mfn);

    /// Writes part of a frame back from all processors' caches and drops it there; `offset + len` is at most 4096.
    fn flush_lines(&self, mfn: Mfn, offset: usize, len: usize);

    /// Copies one whole frame to another.
    fn copy_frame(&self, to: Mfn, from: Mfn);

    /// Copies `len` bytes from an offset in one frame to an offset in another; either offset and `len` are together at most 4096. What comes of ranges that
    /// overlap is unspecified.
    fn copy_part(&self, to: (Mfn, usize), from: (Mfn, usize), len: usize);

    /// The machine-to-phys table's entry; `u64::MAX` where the frame has none.
    fn m2p(&self, mfn: Mfn) -> u64;

    /// Sets the machine-to-phys table's entry. Frames without a table page are ignored.
    fn set_m2p(&self, mfn: Mfn, pfn: u64);

    /// The frames of the machine-to-phys table itself, as 2 MiB extents in table order: the first frame of each extent, `None` where the
    /// extent is a hole.
    fn m2p_extent(&self, index: usize) -> Option<Mfn>;
}
