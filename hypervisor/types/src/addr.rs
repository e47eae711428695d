//! Byte addresses.

use crate::{Mfn, PAGE_SHIFT, PAGE_SIZE};
use core::fmt;

/// First address of the range that belongs to the hypervisor in every PV address space (PML4 slot 256).
/// Public header `arch-x86/xen-x86_64.h`: `HYPERVISOR_VIRT_START`.
pub const HYPERVISOR_VIRT_START: u64 = 0xffff_8000_0000_0000;
/// One past the last address of that range (PML4 slot 271 is the last). `HYPERVISOR_VIRT_END`.
pub const HYPERVISOR_VIRT_END: u64 = 0xffff_8800_0000_0000;

/// A machine (physical) byte address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Maddr(pub u64);

impl Maddr {
    /// The frame that contains the address.
    #[inline]
    #[must_use]
    pub const fn mfn(self) -> Mfn {
        Mfn(self.0 >> PAGE_SHIFT)
    }

    /// Offset within the frame, in bytes.
    #[inline]
    #[must_use]
    pub const fn page_offset(self) -> usize {
        (self.0 % PAGE_SIZE) as usize
    }
}

impl fmt::Debug for Maddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "maddr {:#x}", self.0)
    }
}

impl fmt::Display for Maddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A guest virtual address: a number that a guest supplied. It is never dereferenced, only handed to the guest copy functions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Gva(pub u64);

impl Gva {
    /// The null handle.
    pub const NULL: Gva = Gva(0);

    /// True for the null handle.
    #[inline]
    #[must_use]
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }

    /// True where bits 63..47 are all equal, which the processor requires of every address in 4-level paging.
    #[inline]
    #[must_use]
    pub const fn is_canonical(self) -> bool {
        (((self.0 as i64) << 16) >> 16) as u64 == self.0
    }

    /// True where the `len` bytes from here are canonical and outside the hypervisor's own range, that is, where a PV guest may
    /// have something mapped. The empty range is accepted anywhere.
    #[inline]
    #[must_use]
    pub const fn range_is_guest(self, len: usize) -> bool {
        if len == 0 {
            return true;
        }
        let Some(last) = self.0.checked_add(len as u64 - 1) else {
            return false;
        };
        if last < 0x0000_8000_0000_0000 {
            return true;
        }
        self.0 >= HYPERVISOR_VIRT_END
    }

    /// Address `n` bytes further, or `None` past the end of the address space.
    #[inline]
    #[must_use]
    pub const fn checked_add(self, n: u64) -> Option<Gva> {
        match self.0.checked_add(n) {
            Some(va) => Some(Gva(va)),
            None => None,
        }
    }

    /// Offset within the page, in bytes.
    #[inline]
    #[must_use]
    pub const fn page_offset(self) -> usize {
        (self.0 % PAGE_SIZE) as usize
    }

    /// Index into the page table of `level` (4 for the root, 1 for the leaf) that translates this address.
    #[inline]
    #[must_use]
    pub const fn pt_index(self, level: u32) -> usize {
        ((self.0 >> (PAGE_SHIFT + 9 * (level - 1))) & 511) as usize
    }
}

impl fmt::Debug for Gva {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "va {:#x}", self.0)
    }
}

impl fmt::Display for Gva {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_ranges() {
        assert!(Gva(0).range_is_guest(4096));
        assert!(Gva(0x7fff_ffff_f000).range_is_guest(4096));
        assert!(!Gva(0x7fff_ffff_f000).range_is_guest(4097));
        assert!(!Gva(HYPERVISOR_VIRT_START).range_is_guest(1));
        assert!(!Gva(HYPERVISOR_VIRT_END - 1).range_is_guest(1));
        assert!(Gva(HYPERVISOR_VIRT_END).range_is_guest(8));
        assert!(Gva(u64::MAX).range_is_guest(1));
        assert!(!Gva(u64::MAX).range_is_guest(2));
        assert!(Gva(HYPERVISOR_VIRT_START).range_is_guest(0));
    }

    #[test]
    fn canonical_addresses() {
        assert!(Gva(0x7fff_ffff_ffff).is_canonical());
        assert!(!Gva(0x8000_0000_0000).is_canonical());
        assert!(!Gva(0xffff_7fff_ffff_ffff).is_canonical());
        assert!(Gva(0xffff_8000_0000_0000).is_canonical());
    }
}
