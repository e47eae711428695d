//! The two small tables: HPET and MCFG.

use super::tables::{HEADER_BYTES, Physical, Table, u16_at, u64_at};
use crate::list::FixedList;
use oxen_types::Maddr;

/// Most MMCFG ranges that are used.
pub const MAX_MMCFG: usize = 16;

/// Machine address of the HPET's registers (IA-PC HPET specification 1.0a, section 3.2.4), where they are memory-mapped.
pub fn hpet_address(memory: &impl Physical, table: Table) -> Option<Maddr> {
    let mut buffer = [0; HEADER_BYTES + 16];
    table.read(memory, 0, &mut buffer).then_some(())?;
    let address = u64_at(&buffer, HEADER_BYTES + 8).filter(|a| *a != 0)?;
    (buffer[HEADER_BYTES + 4] == 0).then_some(Maddr(address))
}

/// Memory-mapped PCI configuration space of some buses (PCI firmware specification 3.3, section 4.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmcfgRange {
    /// Machine address where bus 0 of the segment would be.
    pub base: Maddr,
    /// PCI segment.
    pub segment: u16,
    /// First bus.
    pub first_bus: u8,
    /// Last bus.
    pub last_bus: u8,
}

impl MmcfgRange {
    /// Machine address of the first byte that the range covers.
    #[must_use]
    pub fn start(&self) -> Maddr {
        Maddr(self.base.0 + (u64::from(self.first_bus) << 20))
    }

    /// Bytes that the range covers.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        (u64::from(self.last_bus) - u64::from(self.first_bus) + 1) << 20
    }
}

/// The ranges of the MCFG that make sense.
pub fn mmcfg_ranges(memory: &impl Physical, table: Table) -> FixedList<MmcfgRange, MAX_MMCFG> {
    let mut ranges = FixedList::new();
    let mut offset = HEADER_BYTES as u32 + 8;
    let mut entry = [0; 16];
    while table.read(memory, offset, &mut entry) {
        offset += 16;
        let (Some(base), Some(segment)) = (u64_at(&entry, 0), u16_at(&entry, 8)) else { continue };
        let range = MmcfgRange { base: Maddr(base), segment, first_bus: entry[10], last_bus: entry[11] };
        if base != 0 && base.is_multiple_of(1 << 20) && base < 1 << 52 && range.first_bus <= range.last_bus {
            ranges.push(range);
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::super::tables::tests::{FakeMemory, table};
    use super::*;
    use std::vec::Vec;

    fn open(bytes: Vec<u8>) -> (FakeMemory, Table) {
        let mut memory = FakeMemory::default();
        memory.0.insert(0x1000, bytes);
        let table = Table::open(&memory, Maddr(0x1000)).unwrap();
        (memory, table)
    }

    #[test]
    fn hpet() {
        let mut body = [0; 20];
        body[8..16].copy_from_slice(&0xfed0_0000_u64.to_le_bytes());
        let (memory, t) = open(table(b"HPET", &body));
        assert_eq!(hpet_address(&memory, t), Some(Maddr(0xfed0_0000)));
        body[4] = 1;
        let (memory, t) = open(table(b"HPET", &body));
        assert_eq!(hpet_address(&memory, t), None);
        let (memory, t) = open(table(b"HPET", &body[..4]));
        assert_eq!(hpet_address(&memory, t), None);
    }

    #[test]
    fn mcfg() {
        let mut body = std::vec![0; 8];
        for (base, first, last) in [(0xb000_0000_u64, 0, 255), (0, 0, 255), (0xc000_0000, 9, 3), (0xd000_0001, 0, 1)] {
            body.extend_from_slice(&base.to_le_bytes());
            body.extend_from_slice(&[0, 0, first, last, 0, 0, 0, 0]);
        }
        body.extend_from_slice(&[1, 2, 3]);
        let (memory, t) = open(table(b"MCFG", &body));
        let ranges: Vec<_> = mmcfg_ranges(&memory, t).iter().collect();
        assert_eq!(ranges, [MmcfgRange { base: Maddr(0xb000_0000), segment: 0, first_bus: 0, last_bus: 255 }]);
        assert_eq!((ranges[0].start(), ranges[0].len_bytes()), (Maddr(0xb000_0000), 256 << 20));
    }
}
