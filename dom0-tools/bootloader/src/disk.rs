//! Partitions.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes of a sector, in which partition tables count. Tables of disks with larger sectors are not read.
const SECTOR: u64 = 512;
/// The most partitions that are looked at.
const MAX_PARTITIONS: usize = 128;
/// The most bytes of an entry of a GUID partition table that are believed (the specification's minimum is 128).
const MAX_ENTRY: u32 = 4096;
/// The system types of extended partitions in a master boot record.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
/// The system type that says that there is a GUID partition table.
const PROTECTIVE: u8 = 0xee;

/// A part of a disk.
#[derive(Clone, Debug)]
pub struct Partition {
    disk: Arc<File>,
    /// Its number, from 1; 0 is the whole disk.
    pub number: u32,
    /// Where it starts, in bytes.
    pub start: u64,
    /// How long it is, in bytes.
    pub len: u64,
}

impl Partition {
    /// Reads bytes at `at`, all of them or none.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` beyond the partition's end, else what reading said.
    pub fn read_at(&self, at: u64, to: &mut [u8]) -> io::Result<()> {
        let end = at
            .checked_add(to.len() as u64)
            .filter(|end| *end <= self.len);
        let from = self.start.checked_add(at);
        match (end, from) {
            (Some(_), Some(from)) => self.disk.read_exact_at(to, from),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// A sector of 512 bytes.
    fn sector(&self, number: u64) -> Option<[u8; SECTOR as usize]> {
        let mut bytes = [0; SECTOR as usize];
        self.read_at(number.checked_mul(SECTOR)?, &mut bytes).ok()?;
        Some(bytes)
    }

    /// The part of this that a table describes by first sector and number of sectors; `None` when it is not within this.
    fn part(&self, number: usize, first: u64, sectors: u64) -> Option<Self> {
        let start = first.checked_mul(SECTOR)?;
        let len = sectors.checked_mul(SECTOR).filter(|len| *len > 0)?;
        start.checked_add(len).filter(|end| *end <= self.len)?;
        Some(Self {
            disk: Arc::clone(&self.disk),
            number: u32::try_from(number).ok()?,
            start: self.start.checked_add(start)?,
            len,
        })
    }
}

/// The whole disk of `len` bytes, then its partitions in the order of their numbers.
pub fn partitions(disk: File, len: u64) -> Vec<Partition> {
    let whole = Partition {
        disk: Arc::new(disk),
        number: 0,
        start: 0,
        len,
    };
    let found = match whole.sector(0) {
        Some(record) if record.ends_with(&[0x55, 0xaa]) => {
            let protective = entries(&record).any(|entry| entry.kind == PROTECTIVE);
            let guid = if protective { guid_table(&whole) } else { None };
            guid.unwrap_or_else(|| boot_record(&whole, &record))
        }
        _ => Vec::new(),
    };
    std::iter::once(whole).chain(found).collect()
}

/// An entry of a master boot record.
struct Entry {
    kind: u8,
    first: u64,
    sectors: u64,
}

/// The four entries of a master boot record (UEFI specification, "Legacy Master Boot Record").
fn entries(record: &[u8; SECTOR as usize]) -> impl Iterator<Item = Entry> + '_ {
    record
        .get(446..510)
        .unwrap_or(&[])
        .chunks_exact(16)
        .map(|entry| Entry {
            kind: entry.get(4).copied().unwrap_or(0),
            first: u64::from(le32(entry, 8).unwrap_or(0)),
            sectors: u64::from(le32(entry, 12).unwrap_or(0)),
        })
}

/// The partitions of a master boot record: 1 to 4, and from 5 those of the chain in an extended one.
fn boot_record(disk: &Partition, record: &[u8; SECTOR as usize]) -> Vec<Partition> {
    let mut found = Vec::new();
    for (entry, number) in entries(record).zip(1..) {
        if EXTENDED.contains(&entry.kind) {
            found.extend(chain(disk, entry.first));
        } else if entry.kind != 0 {
            found.extend(disk.part(number, entry.first, entry.sectors));
        }
    }
    found.sort_by_key(|partition| partition.number);
    found
}

/// The logical partitions in the extended partition at sector `base`. Each record names one and the place of the next record.
fn chain(disk: &Partition, base: u64) -> Vec<Partition> {
    let mut found = Vec::new();
    let mut at = base;
    // The bound also ends chains that go round in circles.
    for number in 5..MAX_PARTITIONS {
        let Some(record) = disk
            .sector(at)
            .filter(|record| record.ends_with(&[0x55, 0xaa]))
        else {
            break;
        };
        let mut links = entries(&record);
        if let Some(logical) = links.next().filter(|entry| entry.kind != 0) {
            found.extend(disk.part(number, at.saturating_add(logical.first), logical.sectors));
        }
        match links.next().filter(|entry| EXTENDED.contains(&entry.kind)) {
            Some(next) => at = base.saturating_add(next.first),
            None => break,
        }
    }
    found
}

/// The partitions of a GUID partition table (UEFI specification, "GPT Header" and "GPT Partition Entry Array").
fn guid_table(disk: &Partition) -> Option<Vec<Partition>> {
    let header = disk
        .sector(1)
        .filter(|header| header.starts_with(b"EFI PART"))?;
    let (table, count, size) = (le64(&header, 72)?, le32(&header, 80)?, le32(&header, 84)?);
    if !(128..=MAX_ENTRY).contains(&size) {
        return None;
    }
    let mut found = Vec::new();
    for index in 0..(count as usize).min(MAX_PARTITIONS) {
        let at = table
            .checked_mul(SECTOR)?
            .checked_add(u64::from(size).checked_mul(index as u64)?)?;
        let mut entry = [0; 48];
        disk.read_at(at, &mut entry).ok()?;
        let (first, last) = (le64(&entry, 32)?, le64(&entry, 40)?);
        let used = entry.iter().take(16).any(|byte| *byte != 0);
        if let Some(sectors) = last
            .checked_sub(first)
            .and_then(|sectors| sectors.checked_add(1))
            .filter(|_| used)
        {
            found.extend(disk.part(index + 1, first, sectors));
        }
    }
    Some(found)
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}
