//! Where a PV guest's pages are: its physical-to-machine table, found through its shared information page.
//!
//! Newer kernels give a page-table root and an address where the table lies in one piece; older ones a tree of three levels of frames.

use crate::elf::PAGE;
use crate::{DumpError, bytes};
use oxen_abi::xen::SharedInfo;
use oxen_xenctl::Xen;
use std::collections::HashSet;

/// The most entries of a table that is believed: 4 TiB of guest memory.
const MAX_ENTRIES: u64 = 1 << 30;
/// Entries of a frame.
const PER_FRAME: u64 = PAGE / 8;
/// Page-table entries: present, large page, and the frame's bits (AMD64 manual volume 2, "Page-Translation-Table Entry Fields").
const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
const FRAME: u64 = 0x000f_ffff_ffff_f000;
/// Frame numbers have at most so many bits; above are Linux's marks for foreign and identity pages, and the mark for no page.
const FRAME_BITS: u32 = 40;
/// All ones: the old tree is not usable.
const NO_TREE: u64 = u64::MAX;

/// A page of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its number in the guest.
    pub pfn: u64,
    /// Its frame.
    pub mfn: u64,
}

/// Finds the entries in a frame of the table, given the frame's index; `None` when the guest has none there.
type Lookup<'x> = dyn Fn(u64) -> Result<Option<Vec<u64>>, DumpError> + 'x;

/// The guest's pages by ascending number, at most `limit`, each frame once.
pub fn pages(xen: &Xen, domid: u16, shared: &SharedInfo, limit: u64) -> Result<Vec<Page>, DumpError> {
    let arch = &shared.arch;
    let nr_entries = arch.max_pfn;
    if nr_entries == 0 {
        return Err(DumpError::NoPages { why: "it has not come so far in its start" });
    }
    if nr_entries > MAX_ENTRIES {
        return Err(DumpError::NoPages { why: "its table would be larger than any memory" });
    }
    let frames = Frames { xen, domid };
    let table: Box<Lookup> = if arch.p2m_cr3 != 0 {
        let root = root_frame(arch.p2m_cr3);
        let base = arch.p2m_vaddr;
        Box::new(move |index| {
            let address = base.wrapping_add(index * PAGE);
            frames.translate(root, address)?.map(|frame| frames.words(frame)).transpose().map(Option::flatten)
        })
    } else if !matches!(arch.pfn_to_mfn_frame_list_list, 0 | NO_TREE) {
        let top = arch.pfn_to_mfn_frame_list_list;
        Box::new(move |index| frames.tree(top, index))
    } else {
        return Err(DumpError::NoPages { why: "it has set up no table" });
    };
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for index in 0..nr_entries.div_ceil(PER_FRAME) {
        let Some(entries) = table(index)? else { continue };
        for (pfn, mfn) in (index * PER_FRAME..nr_entries).zip(entries) {
            let real = mfn >> FRAME_BITS == 0 && mfn != 0;
            if real && (found.len() as u64) < limit && seen.insert(mfn) {
                found.push(Page { pfn, mfn });
            }
        }
    }
    if found.is_empty() {
        return Err(DumpError::NoPages { why: "its table is empty" });
    }
    Ok(found)
}

/// The frame in a CR3 value of the interface: 64-bit guests have it as in the register.
fn root_frame(cr3: u64) -> u64 {
    (cr3 & FRAME) / PAGE
}

/// The guest's frames.
#[derive(Clone, Copy)]
struct Frames<'x> {
    xen: &'x Xen,
    domid: u16,
}

impl Frames<'_> {
    /// The words of a frame; `None` when it is not the guest's.
    fn words(&self, mfn: u64) -> Result<Option<Vec<u64>>, DumpError> {
        let Ok(memory) = self.xen.map_foreign(self.domid, &[mfn], false) else { return Ok(None) };
        let copy = bytes(&memory, 0, PAGE as usize)?;
        let (words, _) = copy.as_chunks::<8>();
        Ok(Some(words.iter().map(|word| u64::from_le_bytes(*word)).collect()))
    }

    /// The frame behind a page-aligned address under a page-table root.
    fn translate(&self, root: u64, address: u64) -> Result<Option<u64>, DumpError> {
        let mut frame = root;
        for level in (0..4_u32).rev() {
            let shift = 12 + 9 * level;
            let index = (address >> shift) & (PER_FRAME - 1);
            let Some(table) = self.words(frame)? else { return Ok(None) };
            let entry = table.get(index as usize).copied().unwrap_or_default();
            if entry & PRESENT == 0 {
                return Ok(None);
            }
            frame = (entry & FRAME) / PAGE;
            if level > 0 && entry & LARGE != 0 {
                let pages = (1_u64 << (shift - 12)) - 1;
                return Ok(Some((frame & !pages) | ((address / PAGE) & pages)));
            }
        }
        Ok(Some(frame))
    }

    /// Frame `index` of the table that hangs in the tree under `top`.
    fn tree(&self, top: u64, index: u64) -> Result<Option<Vec<u64>>, DumpError> {
        let mut frame = top;
        for at in [index / PER_FRAME, index % PER_FRAME] {
            let Some(list) = self.words(frame)? else { return Ok(None) };
            match list.get(at as usize) {
                Some(next) if next >> FRAME_BITS == 0 && *next != 0 => frame = *next,
                _ => return Ok(None),
            }
        }
        self.words(frame)
    }
}
