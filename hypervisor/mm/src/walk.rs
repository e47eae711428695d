//! The software walk of a guest's tables.

use crate::entry::{self, PRESENT};
use crate::{Hardware, Mm};
use oxen_types::{Gva, Mfn};

/// What a walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The level-1 table.
    pub table: Mfn,
    /// Index of the entry in it.
    pub index: usize,
    /// The entry; it may be absent.
    pub entry: u64,
    /// All levels allow writing.
    pub writable: bool,
    /// No level forbids execution.
    pub executable: bool,
}

impl Translation {
    /// The frame that the address is mapped to, where it is.
    #[must_use]
    pub const fn frame(&self) -> Option<Mfn> {
        if self.entry & PRESENT == 0 { None } else { Some(entry::frame(self.entry)) }
    }

    /// The guest means the mapping for its kernel only.
    #[must_use]
    pub const fn kernel_only(&self) -> bool {
        self.entry & entry::GUEST_KERNEL != 0
    }
}

impl<M: Hardware> Mm<M> {
    /// The level-1 table and index that translate `va` below a validated root; `None` for addresses of the hypervisor, non-canonical
    /// ones, and where a table is missing. The caller holds the page-table lock of the root's owner.
    #[inline]
    pub(crate) fn leaf_slot(&self, root: Mfn, va: Gva) -> Option<(Mfn, usize)> {
        let top = va.pt_index(4);
        if entry::is_hypervisor_slot(top) || !va.is_canonical() {
            return None;
        }
        let l4e = self.machine.read_entry(root, top);
        if l4e & PRESENT == 0 {
            return None;
        }
        let l3e = self.machine.read_entry(entry::frame(l4e), va.pt_index(3));
        if l3e & PRESENT == 0 {
            return None;
        }
        let l2e = self.machine.read_entry(entry::frame(l3e), va.pt_index(2));
        if l2e & PRESENT == 0 {
            return None;
        }
        Some((entry::frame(l2e), va.pt_index(1)))
    }

    /// Walks the tables below a validated root. `None` where no level-1 table covers `va` or the address is not a guest's. The caller holds
    /// the page-table lock of the root's owner, or else treats the answer as a guess.
    #[must_use]
    pub fn walk(&self, root: Mfn, va: Gva) -> Option<Translation> {
        let top = va.pt_index(4);
        if entry::is_hypervisor_slot(top) || !va.is_canonical() {
            return None;
        }
        let (mut table, mut flags, mut forbidden) = (root, entry::RW, 0);
        for level in [4, 3, 2] {
            self.machine.meta(table)?;
            let e = self.machine.read_entry(table, va.pt_index(level));
            if e & PRESENT == 0 {
                return None;
            }
            flags &= e;
            forbidden |= e & entry::NX;
            table = entry::frame(e);
        }
        self.machine.meta(table)?;
        let index = va.pt_index(1);
        let e = self.machine.read_entry(table, index);
        let present = e & PRESENT != 0;
        Some(Translation {
            table,
            index,
            entry: e,
            writable: present && flags & e & entry::RW != 0,
            executable: present && (forbidden | e) & entry::NX == 0,
        })
    }
}
