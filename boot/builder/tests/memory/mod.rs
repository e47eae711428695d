//! Guest memory for tests, and a walk through page tables as a processor does it.

use oxen_builder::GuestMemory;
use oxen_types::Pfn;
use std::collections::{BTreeMap, HashMap};

pub const PAGE: u64 = 4096;

/// Memory whose frames are scattered: a permutation of 2^20 frame numbers stands for the allocator's whims. Frames hold rubbish at first.
pub struct Scattered {
    nr_pages: u64,
    pub frames: HashMap<u64, Box<[u8; 4096]>>,
}

#[derive(Debug, PartialEq)]
pub struct OutOfRange;

impl Scattered {
    const SPACE: u64 = 1 << 20;

    pub fn new(nr_pages: u64) -> Self {
        assert!(nr_pages <= Self::SPACE);
        Self {
            nr_pages,
            frames: HashMap::new(),
        }
    }

    pub fn mfn_of(pfn: u64) -> u64 {
        pfn.wrapping_mul(0x9_e375).wrapping_add(77_777) % Self::SPACE + 0x10_0000
    }

    fn frame(&mut self, pfn: Pfn) -> Result<&mut [u8; 4096], OutOfRange> {
        if pfn.0 >= self.nr_pages {
            return Err(OutOfRange);
        }
        Ok(self
            .frames
            .entry(Self::mfn_of(pfn.0))
            .or_insert_with(|| Box::new([0xa5; 4096])))
    }

    pub fn read(&self, pfn: Pfn) -> &[u8; 4096] {
        &self.frames[&Self::mfn_of(pfn.0)]
    }

    pub fn entry(&self, mfn: u64, index: usize) -> u64 {
        let frame = self
            .frames
            .get(&mfn)
            .unwrap_or_else(|| panic!("table in mfn {mfn:#x}, which was never written"));
        u64::from_le_bytes(frame[index * 8..index * 8 + 8].try_into().unwrap())
    }
}

impl GuestMemory for Scattered {
    type Error = OutOfRange;

    fn mfns(&self, first: Pfn, out: &mut [u64]) -> Result<(), OutOfRange> {
        for (pfn, out) in (first.0..).zip(out) {
            if pfn >= self.nr_pages {
                return Err(OutOfRange);
            }
            *out = Self::mfn_of(pfn);
        }
        Ok(())
    }

    fn write(&mut self, pfn: Pfn, offset: usize, bytes: &[u8]) -> Result<(), OutOfRange> {
        self.frame(pfn)?[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn zero(&mut self, pfn: Pfn, offset: usize, len: usize) -> Result<(), OutOfRange> {
        self.frame(pfn)?[offset..offset + len].fill(0);
        Ok(())
    }
}

/// What the page tables say: mapped pages with their frame and whether they are writable, and the frames of the tables by level.
#[derive(Default)]
pub struct Walk {
    pub pages: BTreeMap<u64, (u64, bool)>,
    pub tables: HashMap<u64, u64>,
}

impl Walk {
    pub fn new(memory: &Scattered, root: u64) -> Self {
        let mut walk = Self::default();
        walk.descend(memory, root, 4, 0);
        walk
    }

    fn descend(&mut self, memory: &Scattered, table: u64, level: u64, base: u64) {
        assert_eq!(
            self.tables.insert(table, level),
            None,
            "table {table:#x} is used twice"
        );
        for index in 0..512 {
            let entry = memory.entry(table, index);
            if entry == 0 {
                continue;
            }
            let va = base | (index as u64) << (12 + 9 * (level - 1));
            let mfn = entry >> 12;
            if level > 1 {
                assert_eq!(entry & 0xfff, 0x67, "entry of level {level} for {va:#x}");
                self.descend(memory, mfn, level - 1, va);
            } else {
                assert_eq!(entry & 0xffd, 0x65, "entry for {va:#x}");
                // Addresses of the upper half have all bits above 47 set.
                let va = ((va << 16) as i64 >> 16) as u64;
                self.pages.insert(va, (mfn, entry & 2 != 0));
            }
        }
    }
}
