//! Guest virtual memory: the walk that the processor does.

use crate::{Cached, FakeMachine};
use oxen_hal::{Frames, GuestMemory};
use oxen_types::{Fault, Gva, Mfn, PAGE_SHIFT, PAGE_SIZE};
use std::sync::atomic::Ordering;

const PRESENT: u64 = 1;
const RW: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const GLOBAL: u64 = 1 << 8;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

impl FakeMachine {
    /// What a guest's access does to the processor's TLB, where the address leads to RAM.
    pub fn translate_guest(&self, va: Gva, write: bool) -> Option<Mfn> {
        self.translate(va, write).filter(|&mfn| self.meta(mfn).is_some())
    }

    /// Translates as the calling processor would: from its TLB, else by a walk that sets accessed and dirty bits. `None` is a page fault.
    pub fn translate(&self, va: Gva, write: bool) -> Option<Mfn> {
        let page = va.0 >> PAGE_SHIFT;
        let cpu = self.this();
        if let Some(c) = self.cpu(cpu).tlb.get(&page).filter(|c| c.writable || !write) {
            return Some(c.mfn);
        }
        let found = self.walk(self.loaded_root(cpu)?, va, write)?;
        self.cpu(cpu).tlb.insert(page, found);
        Some(found.mfn)
    }

    fn walk(&self, root: Mfn, va: Gva, write: bool) -> Option<Cached> {
        if !va.is_canonical() {
            return None;
        }
        let mut table = root;
        let mut path = Vec::new();
        let mut rights = RW | USER;
        for level in [4, 3, 2, 1] {
            // A table outside RAM reads as all ones on real hardware; here it is a bug of what is tested.
            let entry = self.page(table).word(va.pt_index(level) * 8).load(Ordering::Acquire);
            if entry & PRESENT == 0 {
                return None;
            }
            rights &= entry;
            path.push((table, va.pt_index(level)));
            table = Mfn((entry & FRAME) >> PAGE_SHIFT);
        }
        if rights & USER == 0 || write && rights & RW == 0 {
            return None;
        }
        for &(mfn, index) in &path {
            self.page(mfn).word(index * 8).fetch_or(ACCESSED, Ordering::AcqRel);
        }
        let &(leaf_table, leaf_index) = path.last()?;
        let leaf = self.page(leaf_table).word(leaf_index * 8);
        if write {
            leaf.fetch_or(DIRTY, Ordering::AcqRel);
        }
        let global = leaf.load(Ordering::Acquire) & GLOBAL != 0;
        Some(Cached { mfn: table, writable: rights & RW != 0, global })
    }

    fn guest_pieces(
        &self,
        va: Gva,
        len: usize,
        write: bool,
        mut piece: impl FnMut(Mfn, usize, std::ops::Range<usize>),
    ) -> Result<(), Fault> {
        if !va.range_is_guest(len) {
            return Err(Fault { va });
        }
        let mut done = 0;
        while done < len {
            let at = Gva(va.0 + done as u64);
            let n = (PAGE_SIZE as usize - at.page_offset()).min(len - done);
            let mfn = self.translate(at, write).filter(|&mfn| self.meta(mfn).is_some()).ok_or(Fault { va: at })?;
            piece(mfn, at.page_offset(), done..done + n);
            done += n;
        }
        Ok(())
    }
}

impl GuestMemory for FakeMachine {
    fn copy_from_guest(&self, to: &mut [u8], from: Gva) -> Result<(), Fault> {
        self.guest_pieces(from, to.len(), false, |mfn, offset, range| self.read_bytes(mfn, offset, &mut to[range]))
    }

    fn copy_to_guest(&self, to: Gva, from: &[u8]) -> Result<(), Fault> {
        self.guest_pieces(to, from.len(), true, |mfn, offset, range| self.write_bytes(mfn, offset, &from[range]))
    }
}
