//! The meaning of the two words of a frame's record ([`oxen_hal::FrameMeta`]).
//!
//! # States of a frame
//!
//! | state | `refs` | `kind` |
//! |---|---|---|
//! | held by the hypervisor, or inside a free block | 0 | 0 |
//! | first frame of a free block | links to the neighbours in its free list | [`Kind::FREE_HEAD`], order, TLB stamp |
//! | owned by a domain, or shared with it | [`Refs::IN_USE`], flags, owner, total count | type, flags, type count, stamp |
//!
//! # Counting
//!
//! The total count is the number of reasons why the frame may not be freed: 1 for its allocation to the domain
//! ([`Refs::ALLOCATED`]) or for the hypervisor's share of it ([`Refs::SHARED`]), 1 for each read-only mapping and each [`crate::PageRef`], and
//! 1 in all for the type references, as long as there are any. The type count is the number of uses in the present type: each
//! writable mapping, each entry that refers to a page table, each root in use, the pin. So a change of one mapping costs one
//! compare-exchange, on one of the two words.
//!
//! # The type
//!
//! * While the type count is 0 the type only says what the frame was; the stamp is the value of the flush clock when
//!   the last use ended. A new use in another type takes the word by compare-exchange, and then has the processors flushed that
//!   have not flushed since the stamp, before it relies on the type.
//! * A page table is *validated* once all its entries have been checked and hold their references. Page-table types are taken and dropped only under the
//!   owner's page-table lock, so nobody else sees the moments between.
//! * A page table of level 2 to 4 is *partial* when work on it stopped half-way, in either direction: the entries below the index in the
//!   low half of the word hold their references, the others do not. The type count is 1 and belongs to the partial state itself. Any holder of
//!   the lock may carry the work on upwards (validation checks the remaining entries anew) or downwards (undo).

use oxen_types::DomId;

/// What a frame is used as. A frame has one type at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameType {
    /// Not used in any way that matters since it was allocated.
    None = 0,
    /// Page table of level 1 (leaf).
    L1 = 1,
    /// Page table of level 2.
    L2 = 2,
    /// Page table of level 3.
    L3 = 3,
    /// Page table of level 4 (root).
    L4 = 4,
    /// Part of a descriptor table (GDT or LDT).
    SegDesc = 5,
    /// Mapped writable.
    Writable = 6,
    /// Shared by the hypervisor for reading; never writable by a guest.
    ReadOnly = 7,
}

impl FrameType {
    /// The page-table type of `level`.
    #[inline]
    #[must_use]
    pub const fn table(level: Level) -> Self {
        match level {
            Level::L1 => FrameType::L1,
            Level::L2 => FrameType::L2,
            Level::L3 => FrameType::L3,
            Level::L4 => FrameType::L4,
        }
    }

    /// The level of a page-table type.
    #[inline]
    #[must_use]
    pub const fn level(self) -> Option<Level> {
        match self {
            FrameType::L1 => Some(Level::L1),
            FrameType::L2 => Some(Level::L2),
            FrameType::L3 => Some(Level::L3),
            FrameType::L4 => Some(Level::L4),
            _ => None,
        }
    }

    #[inline]
    const fn from_bits(bits: u64) -> Self {
        match bits & 7 {
            1 => FrameType::L1,
            2 => FrameType::L2,
            3 => FrameType::L3,
            4 => FrameType::L4,
            5 => FrameType::SegDesc,
            6 => FrameType::Writable,
            7 => FrameType::ReadOnly,
            _ => FrameType::None,
        }
    }
}

/// Level of a page table: 1 maps pages, 4 is the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Level {
    L1 = 1,
    L2 = 2,
    L3 = 3,
    L4 = 4,
}

impl Level {
    /// The level of the tables that entries of this level refer to; `None` for level 1.
    #[inline]
    #[must_use]
    pub const fn below(self) -> Option<Level> {
        match self {
            Level::L1 => None,
            Level::L2 => Some(Level::L1),
            Level::L3 => Some(Level::L2),
            Level::L4 => Some(Level::L3),
        }
    }
}

/// The `kind` word as a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind(pub u64);

impl Kind {
    /// Bits 0 to 31: TLB stamp; of a partial table the number of entries that hold their references.
    const STAMP: u64 = 0xffff_ffff;
    const COUNT_SHIFT: u32 = 32;
    /// Adds one to the type count.
    pub const COUNT_UNIT: u64 = 1 << Self::COUNT_SHIFT;
    /// Bits 32 to 55: the type count.
    pub const COUNT: u64 = 0x00ff_ffff << Self::COUNT_SHIFT;
    pub const VALIDATED: u64 = 1 << 56;
    pub const PARTIAL: u64 = 1 << 57;
    pub const PINNED: u64 = 1 << 58;
    const TYPE_SHIFT: u32 = 60;
    pub const TYPE: u64 = 7 << Self::TYPE_SHIFT;
    /// The frame is the first of a free block; bits 32 to 36 then hold the block's order.
    pub const FREE_HEAD: u64 = 1 << 63;

    /// The bits of a type.
    #[inline]
    pub const fn bits(ty: FrameType) -> u64 {
        (ty as u64) << Self::TYPE_SHIFT
    }

    /// `ty` with one use, not validated.
    #[inline]
    pub const fn first_use(ty: FrameType) -> Self {
        Kind(Self::bits(ty) | Self::COUNT_UNIT)
    }

    /// A table of `ty` of which the first `done` entries hold their references.
    #[inline]
    pub const fn partial(ty: FrameType, done: usize) -> Self {
        Kind(Self::first_use(ty).0 | Self::PARTIAL | done as u64)
    }

    /// `ty` without a use, since the flush clock stood at `stamp`.
    #[inline]
    pub const fn unused(ty: FrameType, stamp: u32) -> Self {
        Kind(Self::bits(ty) | stamp as u64)
    }

    pub const fn free_head(order: u32, stamp: u32) -> Self {
        Kind(Self::FREE_HEAD | (order as u64) << Self::COUNT_SHIFT | stamp as u64)
    }

    #[inline]
    pub const fn ty(self) -> FrameType {
        FrameType::from_bits(self.0 >> Self::TYPE_SHIFT)
    }

    #[inline]
    pub const fn count(self) -> u64 {
        (self.0 & Self::COUNT) >> Self::COUNT_SHIFT
    }

    #[inline]
    pub const fn stamp(self) -> u32 {
        (self.0 & Self::STAMP) as u32
    }

    /// Entries that hold their references; only of a partial table.
    #[inline]
    pub const fn done(self) -> usize {
        (self.0 & Self::STAMP) as usize
    }

    #[inline]
    pub const fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    /// True for a frame that has uses in the type `ty` and room to count one more.
    #[inline]
    pub const fn can_share(self, ty: FrameType) -> bool {
        let count = self.0 & Self::COUNT;
        self.0 & Self::TYPE == Self::bits(ty) && count != 0 && count != Self::COUNT
    }

    /// [`Kind::can_share`] as writable, by one comparison; false for frames that the hypervisor shares too.
    #[inline]
    pub const fn can_share_writable(self) -> bool {
        const FIRST: u64 = Kind::first_use(FrameType::Writable).0;
        self.0.wrapping_sub(FIRST) < Kind::COUNT - Kind::COUNT_UNIT
    }

    /// True for a frame that has two uses or more as writable, by one comparison; false for frames that the hypervisor shares too.
    #[inline]
    pub const fn is_shared_writable(self) -> bool {
        const SECOND: u64 = Kind::first_use(FrameType::Writable).0 + Kind::COUNT_UNIT;
        self.0.wrapping_sub(SECOND) < Kind::COUNT - Kind::COUNT_UNIT
    }

    /// True for a validated table of `ty` in use with room to count one more.
    #[inline]
    pub const fn can_share_table(self, ty: FrameType) -> bool {
        self.can_share(ty) && self.has(Self::VALIDATED)
    }
}

/// The `refs` word as a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refs(pub u64);

impl Refs {
    /// Bits 0 to 31: the total count.
    pub const COUNT: u64 = 0xffff_ffff;
    const OWNER_SHIFT: u32 = 32;
    /// Bits 32 to 47: the owner.
    pub const OWNER: u64 = 0xffff << Self::OWNER_SHIFT;
    /// A mapping in tables of another domain than the owner has existed, so translations may sit in any processor.
    pub const FOREIGN: u64 = 1 << 60;
    /// One count belongs to the hypervisor, which shares the frame with the owner; it does not count as the owner's memory.
    pub const SHARED: u64 = 1 << 61;
    /// One count belongs to the allocation to the owner.
    pub const ALLOCATED: u64 = 1 << 62;
    /// The word is a count; without this bit the frame has no owner and cannot be referred to.
    pub const IN_USE: u64 = 1 << 63;
    /// What [`Refs::expect`] compares.
    pub const IDENTITY: u64 = Self::IN_USE | Self::OWNER;

    const LINK_BITS: u32 = 31;
    /// No neighbour; also the limit of frame numbers that the allocator can handle (8 TiB).
    pub const NO_LINK: u64 = (1 << Self::LINK_BITS) - 1;

    /// The identity bits of a frame in use by `owner`.
    #[inline]
    pub const fn expect(owner: DomId) -> u64 {
        Self::IN_USE | (owner.0 as u64) << Self::OWNER_SHIFT
    }

    /// Neighbours in a free list; the word has [`Refs::IN_USE`] clear.
    #[inline]
    pub const fn links(prev: u64, next: u64) -> Self {
        Refs(prev << Self::LINK_BITS | next)
    }

    #[inline]
    pub const fn next(self) -> u64 {
        self.0 & Self::NO_LINK
    }

    #[inline]
    pub const fn prev(self) -> u64 {
        self.0 >> Self::LINK_BITS & Self::NO_LINK
    }

    #[inline]
    pub const fn owner(self) -> Option<DomId> {
        if self.0 & Self::IN_USE == 0 {
            return None;
        }
        Some(DomId((self.0 >> Self::OWNER_SHIFT & 0xffff) as u16))
    }

    #[inline]
    pub const fn count(self) -> u64 {
        self.0 & Self::COUNT
    }

    #[inline]
    pub const fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_overlap() {
        let k = Kind(Kind::bits(FrameType::ReadOnly) | Kind::COUNT | Kind::VALIDATED | Kind::PARTIAL | Kind::PINNED);
        assert_eq!(k.stamp(), 0);
        assert!(!k.has(Kind::FREE_HEAD));
        assert_eq!((k.ty(), k.count()), (FrameType::ReadOnly, 0xff_ffff));
        assert!(!k.can_share(FrameType::ReadOnly), "a full count cannot be shared");
        assert_eq!(Kind::partial(FrameType::L4, 512).done(), 512);
        let writable = Kind::first_use(FrameType::Writable).0;
        for uses in [0, 1, 2, 0xff_fffe, 0xff_ffff] {
            for other in [0, 0xffff_ffff, Kind::VALIDATED] {
                let k = Kind(writable - Kind::COUNT_UNIT + uses * Kind::COUNT_UNIT | other);
                let plain = other != Kind::VALIDATED;
                assert_eq!(k.can_share_writable(), plain && k.can_share(FrameType::Writable), "{uses} {other:#x}");
                assert_eq!(k.is_shared_writable(), plain && k.count() > 1, "{uses} {other:#x}");
            }
        }
        for ty in [FrameType::None, FrameType::L1, FrameType::SegDesc, FrameType::ReadOnly] {
            let k = Kind(Kind::first_use(ty).0 + 5 * Kind::COUNT_UNIT);
            assert!(!k.can_share_writable() && !k.is_shared_writable());
        }
        let r = Refs::links(Refs::NO_LINK, Refs::NO_LINK);
        assert_eq!((r.prev(), r.next()), (Refs::NO_LINK, Refs::NO_LINK));
        assert!(r.owner().is_none());
        assert_eq!(Refs(Refs::expect(DomId(0x7ff2)) | Refs::COUNT).owner(), Some(DomId(0x7ff2)));
    }
}
