//! Page-table entries and the bits that guests may use.

use oxen_types::{Mfn, PAGE_SHIFT};

/// Present.
pub const PRESENT: u64 = 1;
/// Writable.
pub const RW: u64 = 1 << 1;
/// User: every guest mapping has it, as the guest kernel runs in ring 3 too.
pub const USER: u64 = 1 << 2;
/// Write-through.
pub const PWT: u64 = 1 << 3;
/// Cache disable.
pub const PCD: u64 = 1 << 4;
/// Accessed.
pub const ACCESSED: u64 = 1 << 5;
/// Dirty.
pub const DIRTY: u64 = 1 << 6;
/// PAT in level 1, page size above.
pub const PAT_OR_PSE: u64 = 1 << 7;
/// Global.
pub const GLOBAL: u64 = 1 << 8;
/// Bits 9 to 11, free for the guest.
pub const AVAILABLE: u64 = 7 << 9;
/// Bits 52 to 62, free for the guest except for [`GUEST_KERNEL`].
pub const AVAILABLE_HIGH: u64 = 0x7ff << 52;
/// Marks a level-1 entry that the guest meant for its kernel only (the guest left [`USER`] clear).
pub const GUEST_KERNEL: u64 = 1 << 52;
/// No execution.
pub const NX: u64 = 1 << 63;

const FRAME: u64 = 0x000f_ffff_ffff_f000;
/// Bits that choose the memory type in level 1; only domains with devices may set them.
pub const CACHE_ATTRIBUTES: u64 = PWT | PCD | PAT_OR_PSE;
/// Bits that a present entry above level 1 may not have. Page size is among them: PV guests have no large pages.
pub const UPPER_DISALLOWED: u64 = PWT | PCD | PAT_OR_PSE | GLOBAL;
/// Bits of a level-1 entry whose change leaves what the entry refers to, and how, the same.
pub const HARMLESS: u64 = NX | AVAILABLE | AVAILABLE_HIGH | GLOBAL | DIRTY | ACCESSED | USER;

/// The frame that an entry refers to.
#[inline]
#[must_use]
pub const fn frame(entry: u64) -> Mfn {
    Mfn((entry & FRAME) >> PAGE_SHIFT)
}

/// An entry for `mfn` with `flags`.
#[inline]
#[must_use]
pub const fn make(mfn: Mfn, flags: u64) -> u64 {
    (mfn.0 << PAGE_SHIFT) & FRAME | flags
}

/// The form in which a present level-1 entry is stored: entries without [`USER`] get it and [`GUEST_KERNEL`], the others become
/// global, so that they survive the switch between a process's kernel and user root.
#[inline(always)]
#[must_use]
pub const fn adjust_l1(entry: u64) -> u64 {
    if entry & (USER | GUEST_KERNEL) == USER { entry | GLOBAL } else { adjust_l1_of_kernel(entry) }
}

#[cold]
const fn adjust_l1_of_kernel(entry: u64) -> u64 {
    entry | USER | GUEST_KERNEL
}

/// The form in which a present entry above level 1 is stored.
#[inline]
#[must_use]
pub const fn adjust_upper(entry: u64) -> u64 {
    entry | USER
}

/// True for the root's entries that belong to the hypervisor.
#[inline]
#[must_use]
pub const fn is_hypervisor_slot(index: usize) -> bool {
    index >= FIRST_HYPERVISOR_SLOT && index < FIRST_HYPERVISOR_SLOT + HYPERVISOR_SLOTS
}

/// First of the hypervisor's entries in a root.
pub const FIRST_HYPERVISOR_SLOT: usize = 256;
/// How many there are.
pub const HYPERVISOR_SLOTS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_one_form() {
        assert_eq!(adjust_l1(PRESENT), PRESENT | USER | GUEST_KERNEL);
        assert_eq!(adjust_l1(PRESENT | USER), PRESENT | USER | GLOBAL);
        assert_eq!(adjust_l1(PRESENT | USER | GUEST_KERNEL), PRESENT | USER | GUEST_KERNEL);
        for e in [PRESENT, PRESENT | USER, PRESENT | GUEST_KERNEL | GLOBAL] {
            assert_eq!(adjust_l1(adjust_l1(e)), adjust_l1(e));
        }
    }
}
