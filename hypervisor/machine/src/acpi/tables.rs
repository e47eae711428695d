//! Finding and checking ACPI tables in physical memory (ACPI specification 6.5, chapter 5).
//!
//! Firmware tables are input like any other: every length is checked against the bytes that are really there, and a table whose checksum
//! is wrong is not used.

use core::fmt;
use oxen_types::Maddr;

/// Largest table that is accepted. Real DSDTs reach a few hundred KiB.
const MAX_TABLE_BYTES: u32 = 4 << 20;
/// Bytes of the header that every table but the RSDP starts with.
pub const HEADER_BYTES: usize = 36;
/// Most entries of the root table that are looked at.
const MAX_ROOT_ENTRIES: u32 = 1024;

/// Access to physical memory, as far as the parser needs it.
pub trait Physical {
    /// Copies `to.len()` bytes from `from`; `false` where that is not possible.
    fn read(&self, from: Maddr, to: &mut [u8]) -> bool;
}

/// A four-letter table signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 4]);

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for b in self.0 {
            write!(f, "{}", if b.is_ascii_graphic() { char::from(b) } else { '?' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why the tables cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// Neither the boot loader nor the firmware's areas have a root pointer.
    NoRootPointer,
    /// The root pointer's checksum is wrong or it is too short.
    BadRootPointer,
    /// A table's memory cannot be read.
    Unreadable(Maddr),
    /// A table's length field is impossible.
    BadLength(Signature, u32),
    /// A table's checksum is wrong.
    BadChecksum(Signature),
    /// The table at the address has another signature than expected.
    Unexpected(Signature),
    /// A table that start-up needs is missing.
    Missing(Signature),
    /// The MADT has no enabled processor.
    NoProcessor,
    /// The MADT has no I/O APIC.
    NoIoApic,
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableError::NoRootPointer => write!(f, "no ACPI tables: neither the boot loader nor the firmware has an RSDP"),
            TableError::BadRootPointer => write!(f, "the ACPI root pointer (RSDP) is damaged"),
            TableError::Unreadable(at) => write!(f, "the ACPI table at {at} cannot be read"),
            TableError::BadLength(s, n) => write!(f, "ACPI table {s} has the impossible length {n}"),
            TableError::BadChecksum(s) => write!(f, "ACPI table {s} has a wrong checksum"),
            TableError::Unexpected(s) => write!(f, "unexpected ACPI table {s}"),
            TableError::Missing(s) => write!(f, "ACPI table {s} is missing"),
            TableError::NoProcessor => write!(f, "the ACPI table APIC lists no usable processor"),
            TableError::NoIoApic => write!(f, "the ACPI table APIC lists no I/O APIC"),
        }
    }
}

/// Little-endian field of a byte slice; `None` past its end.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// See [`u16_at`].
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// See [`u16_at`].
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |a, b| a.wrapping_add(*b))
}

/// Where the root table is, out of the root pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootPointer {
    /// Address of the RSDT or XSDT.
    pub table: Maddr,
    /// True for an XSDT (64-bit entries).
    pub extended: bool,
}

impl RootPointer {
    /// Checks and decodes the bytes of a root pointer (20 bytes of revision 0, 36 of revision 2).
    pub fn parse(bytes: &[u8]) -> Result<Self, TableError> {
        let bad = TableError::BadRootPointer;
        let first = bytes.get(..20).ok_or(bad)?;
        if &first[..8] != b"RSD PTR " || sum(first) != 0 {
            return Err(bad);
        }
        if first[15] >= 2 {
            let length = u32_at(bytes, 20).ok_or(bad)? as usize;
            let all = bytes.get(..length).filter(|all| all.len() >= 36).ok_or(bad)?;
            if sum(all) != 0 {
                return Err(bad);
            }
            let table = u64_at(all, 24).ok_or(bad)?;
            if table != 0 {
                return Ok(Self { table: Maddr(table), extended: true });
            }
        }
        Ok(Self { table: Maddr(u64::from(u32_at(first, 16).ok_or(bad)?)), extended: false })
    }
}

/// Looks for the root pointer where BIOS firmware puts it: the first KiB of the extended BIOS data area and 0xe0000 to 0xfffff, on 16-byte
/// boundaries (specification section 5.2.5.1).
pub fn scan_for_root_pointer(memory: &impl Physical) -> Option<Maddr> {
    let mut segment = [0; 2];
    let ebda = if memory.read(Maddr(0x40e), &mut segment) { u64::from(u16::from_le_bytes(segment)) << 4 } else { 0 };
    let areas = [(ebda, if (0x400..0xa_0000).contains(&ebda) { 1024 } else { 0 }), (0xe_0000, 0x2_0000)];
    for (start, len) in areas {
        for at in (start..start + len).step_by(16) {
            let mut bytes = [0; 36];
            if memory.read(Maddr(at), &mut bytes[..8])
                && &bytes[..8] == b"RSD PTR "
                && memory.read(Maddr(at), &mut bytes)
                && RootPointer::parse(&bytes).is_ok()
            {
                return Some(Maddr(at));
            }
        }
    }
    None
}

/// A table whose length and checksum are right.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Address of its header.
    pub at: Maddr,
    /// Length in bytes, header included.
    pub len_bytes: u32,
    /// Its name.
    pub signature: Signature,
}

impl Table {
    /// Checks the table at `at`.
    pub fn open(memory: &impl Physical, at: Maddr) -> Result<Self, TableError> {
        let mut header = [0; HEADER_BYTES];
        if at.0 == 0 || !memory.read(at, &mut header) {
            return Err(TableError::Unreadable(at));
        }
        let signature = Signature([header[0], header[1], header[2], header[3]]);
        let len_bytes = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        if (len_bytes as usize) < HEADER_BYTES || len_bytes > MAX_TABLE_BYTES {
            return Err(TableError::BadLength(signature, len_bytes));
        }
        let table = Self { at, len_bytes, signature };
        let mut total = 0_u8;
        let mut offset = 0;
        let mut chunk = [0; 256];
        while offset < len_bytes {
            let n = (len_bytes - offset).min(256);
            let part = &mut chunk[..n as usize];
            if !table.read(memory, offset, part) {
                return Err(TableError::Unreadable(at));
            }
            total = total.wrapping_add(sum(part));
            offset += n;
        }
        if total != 0 {
            return Err(TableError::BadChecksum(signature));
        }
        Ok(table)
    }

    /// Copies bytes of the table out; `false` where they reach past its end.
    pub fn read(&self, memory: &impl Physical, offset: u32, to: &mut [u8]) -> bool {
        let inside = u32::try_from(to.len()).ok().and_then(|n| offset.checked_add(n)).is_some_and(|end| end <= self.len_bytes);
        let Some(from) = self.at.0.checked_add(u64::from(offset)) else { return false };
        inside && memory.read(Maddr(from), to)
    }

    /// Copies the beginning of the table into a buffer of fixed size and gives how many bytes were there.
    pub fn read_prefix(&self, memory: &impl Physical, to: &mut [u8]) -> usize {
        let n = to.len().min(self.len_bytes as usize);
        if self.read(memory, 0, &mut to[..n]) { n } else { 0 }
    }
}

/// The root table: the list of all others.
#[derive(Clone, Copy, Debug)]
pub struct RootTable {
    table: Table,
    entry_bytes: u32,
}

impl RootTable {
    /// Opens the table that the root pointer names.
    pub fn open(memory: &impl Physical, pointer: RootPointer) -> Result<Self, TableError> {
        let table = Table::open(memory, pointer.table)?;
        let (expected, entry_bytes) = if pointer.extended { (*b"XSDT", 8) } else { (*b"RSDT", 4) };
        if table.signature.0 != expected {
            return Err(TableError::Unexpected(table.signature));
        }
        Ok(Self { table, entry_bytes })
    }

    /// The tables in order. Entries that cannot be opened come as their error.
    pub fn tables<'a, M: Physical>(&'a self, memory: &'a M) -> impl Iterator<Item = Result<Table, TableError>> + 'a {
        let count = ((self.table.len_bytes - HEADER_BYTES as u32) / self.entry_bytes).min(MAX_ROOT_ENTRIES);
        (0..count).map(move |i| {
            let mut entry = [0; 8];
            let offset = HEADER_BYTES as u32 + i * self.entry_bytes;
            if !self.table.read(memory, offset, &mut entry[..self.entry_bytes as usize]) {
                return Err(TableError::Unreadable(self.table.at));
            }
            Table::open(memory, Maddr(u64::from_le_bytes(entry)))
        })
    }

    /// The first table with the signature.
    pub fn find(&self, memory: &impl Physical, signature: [u8; 4]) -> Result<Table, TableError> {
        self.tables(memory)
            .find_map(|entry| match entry {
                Ok(table) if table.signature.0 == signature => Some(Ok(table)),
                Err(e @ (TableError::BadChecksum(s) | TableError::BadLength(s, _))) if s.0 == signature => Some(Err(e)),
                _ => None,
            })
            .unwrap_or(Err(TableError::Missing(Signature(signature))))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    /// Physical memory made of a few pieces.
    #[derive(Default)]
    pub struct FakeMemory(pub BTreeMap<u64, Vec<u8>>);

    impl Physical for FakeMemory {
        fn read(&self, from: Maddr, to: &mut [u8]) -> bool {
            let Some((start, bytes)) = self.0.range(..=from.0).next_back() else { return false };
            let at = (from.0 - start) as usize;
            match bytes.get(at..at.saturating_add(to.len())) {
                Some(part) => {
                    to.copy_from_slice(part);
                    true
                }
                None => false,
            }
        }
    }

    /// Adds the byte that makes the sum zero at `at`.
    fn fix_sum(bytes: &mut [u8], at: usize) {
        bytes[at] = 0;
        bytes[at] = 0_u8.wrapping_sub(sum(bytes));
    }

    /// A table with a right header.
    pub fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut bytes = std::vec![0; HEADER_BYTES];
        bytes[..4].copy_from_slice(signature);
        bytes.extend_from_slice(body);
        let len = bytes.len() as u32;
        bytes[4..8].copy_from_slice(&len.to_le_bytes());
        fix_sum(&mut bytes, 9);
        bytes
    }

    fn pointer(rsdt: u32, xsdt: u64) -> Vec<u8> {
        let mut bytes = std::vec![0; 36];
        bytes[..8].copy_from_slice(b"RSD PTR ");
        bytes[15] = if xsdt == 0 { 0 } else { 2 };
        bytes[16..20].copy_from_slice(&rsdt.to_le_bytes());
        bytes[20..24].copy_from_slice(&36_u32.to_le_bytes());
        bytes[24..32].copy_from_slice(&xsdt.to_le_bytes());
        let (first, _) = bytes.split_at_mut(20);
        fix_sum(first, 8);
        fix_sum(&mut bytes, 32);
        bytes
    }

    #[test]
    fn finds_tables_through_both_roots() {
        let mut memory = FakeMemory::default();
        memory.0.insert(0x1000, table(b"APIC", &[1, 2, 3]));
        memory.0.insert(0x2000, table(b"RSDT", &0x1000_u32.to_le_bytes()));
        memory.0.insert(0x3000, table(b"XSDT", &0x1000_u64.to_le_bytes()));
        for (xsdt, extended) in [(0, false), (0x3000, true)] {
            let root = RootPointer::parse(&pointer(0x2000, xsdt)).unwrap();
            assert_eq!(root.extended, extended);
            let root = RootTable::open(&memory, root).unwrap();
            assert_eq!(root.find(&memory, *b"APIC").unwrap().len_bytes, 39);
            assert_eq!(root.find(&memory, *b"HPET").unwrap_err(), TableError::Missing(Signature(*b"HPET")));
        }
    }

    #[test]
    fn refuses_damage() {
        let mut memory = FakeMemory::default();
        let mut bytes = pointer(0x2000, 0x3000);
        assert!(RootPointer::parse(&bytes[..30]).is_err());
        bytes[33] ^= 1;
        assert_eq!(RootPointer::parse(&bytes), Err(TableError::BadRootPointer));

        let mut bad = table(b"APIC", &[0; 8]);
        bad[40] = 1;
        memory.0.insert(0x1000, bad.clone());
        assert!(matches!(Table::open(&memory, Maddr(0x1000)), Err(TableError::BadChecksum(_))));
        bad[4..8].copy_from_slice(&3_u32.to_le_bytes());
        memory.0.insert(0x1000, bad.clone());
        assert!(matches!(Table::open(&memory, Maddr(0x1000)), Err(TableError::BadLength(_, 3))));
        bad[4..8].copy_from_slice(&3000_u32.to_le_bytes());
        memory.0.insert(0x1000, bad);
        assert!(matches!(Table::open(&memory, Maddr(0x1000)), Err(TableError::Unreadable(_))));
        assert!(Table::open(&memory, Maddr(0)).is_err());
    }

    #[test]
    fn scan_skips_false_hits() {
        let mut area = std::vec![0; 0x2_0000];
        area[0x100..0x108].copy_from_slice(b"RSD PTR ");
        area[0x230..0x254].copy_from_slice(&pointer(0x2000, 0));
        let mut memory = FakeMemory::default();
        memory.0.insert(0xe_0000, area);
        assert_eq!(scan_for_root_pointer(&memory), Some(Maddr(0xe_0230)));
        assert_eq!(scan_for_root_pointer(&FakeMemory::default()), None);
    }
}
