//! Sets of page tables that map one contiguous range of virtual addresses.

use oxen_types::{PAGE_SHIFT, Pfn};

/// Level of a page table: 1 holds the entries that map pages, 4 is the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableLevel {
    /// Page table.
    L1 = 1,
    /// Page directory.
    L2 = 2,
    /// Page-directory-pointer table.
    L3 = 3,
    /// Page-map level 4, the root.
    L4 = 4,
}

impl TableLevel {
    /// log2 of the bytes that one *entry* of this level spans.
    pub(crate) const fn entry_shift(self) -> u32 {
        PAGE_SHIFT + 9 * (self as u32 - 1)
    }

    /// log2 of the bytes that one *table* of this level spans.
    pub(crate) const fn table_shift(self) -> u32 {
        self.entry_shift() + 9
    }

    /// Index into a table of this level for `va`.
    pub(crate) const fn index(self, va: u64) -> usize {
        ((va >> self.entry_shift()) & 511) as usize
    }
}

/// A virtual range with the frames of the L3, L2 and L1 tables that map it: L3s first, then L2s, then L1s, each level in address order.
/// The range is not empty, lies in one canonical half, and starts and ends on page boundaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFrames {
    first_va: u64,
    last_va: u64,
    first_pfn: Pfn,
}

impl TableFrames {
    /// Tables for the addresses `first_va..=last_va` in frames from `first_pfn` on.
    pub(crate) const fn new(first_va: u64, last_va: u64, first_pfn: Pfn) -> Self {
        Self {
            first_va,
            last_va,
            first_pfn,
        }
    }

    /// Number of tables of `level` (not [`TableLevel::L4`], of which the domain has one).
    #[must_use]
    pub const fn count(&self, level: TableLevel) -> u64 {
        count(self.first_va, self.last_va, level)
    }

    /// Number of tables of all levels.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.count(TableLevel::L3) + self.count(TableLevel::L2) + self.count(TableLevel::L1)
    }

    /// First frame of the tables of `level`.
    #[must_use]
    pub const fn first(&self, level: TableLevel) -> Pfn {
        let before = match level {
            TableLevel::L4 | TableLevel::L3 => 0,
            TableLevel::L2 => self.count(TableLevel::L3),
            TableLevel::L1 => self.count(TableLevel::L3) + self.count(TableLevel::L2),
        };
        self.first_pfn.offset(before)
    }

    /// First mapped address.
    pub(crate) const fn first_va(&self) -> u64 {
        self.first_va
    }

    /// The page-aligned range of addresses, first and last byte, that table number `n` of `level` contributes to the mapped range.
    pub(crate) fn part(&self, level: TableLevel, n: u64) -> (u64, u64) {
        let shift = level.table_shift();
        let base = ((self.first_va >> shift) + n) << shift;
        (
            base.max(self.first_va),
            (base + ((1 << shift) - 1)).min(self.last_va),
        )
    }

    /// Every table frame with its level.
    pub fn iter(&self) -> impl Iterator<Item = (Pfn, TableLevel)> + use<> {
        let this = *self;
        [TableLevel::L3, TableLevel::L2, TableLevel::L1]
            .into_iter()
            .flat_map(move |level| {
                (0..this.count(level)).map(move |n| (this.first(level).offset(n), level))
            })
    }
}

/// Whether some entry of the root table serves both ranges.
pub(crate) const fn share_root_entry(a: &TableFrames, b: &TableFrames) -> bool {
    let shift = TableLevel::L4.entry_shift();
    a.first_va >> shift <= b.last_va >> shift && b.first_va >> shift <= a.last_va >> shift
}

/// Number of tables of `level` that `first_va..=last_va` takes.
const fn count(first_va: u64, last_va: u64, level: TableLevel) -> u64 {
    let shift = level.table_shift();
    (last_va >> shift) - (first_va >> shift) + 1
}
