//! The firmware's tables: found, checked and decoded once at start-up. AML is left to dom0.

pub mod fadt;
pub mod madt;
pub mod small;
pub mod tables;

use crate::apic::START_UP_LEVEL;
use crate::list::FixedList;
use fadt::Fadt;
use madt::Madt;
use oxen_sync::{OnceCell, SpinGuard, SpinLock, level};
use oxen_types::{Maddr, PAGE_SIZE};
use small::{MAX_MMCFG, MmcfgRange};
use tables::{Physical, RootPointer, RootTable, Signature, Table, TableError, u64_at};

/// What start-up takes from the tables.
#[derive(Debug)]
pub struct Tables {
    /// Where the root pointer is in memory, where known: dom0 starts its own search there.
    pub root_pointer: Option<Maddr>,
    /// Processors and interrupt controllers.
    pub madt: Madt,
    /// Power management.
    pub fadt: Fadt,
    /// Registers of the HPET.
    pub hpet: Option<Maddr>,
    /// Memory-mapped PCI configuration space.
    pub mmcfg: FixedList<MmcfgRange, MAX_MMCFG>,
    /// Sleep types of `\_S5` for PM1a and PM1b.
    pub s5: Option<(u8, u8)>,
}

/// The tables are several KiB and start-up runs on a small stack: they are decoded in place. The lock is taken once and never given back.
static STORAGE: SpinLock<Tables, START_UP_LEVEL> = SpinLock::new(Tables {
    root_pointer: None,
    madt: Madt::new(),
    fadt: Fadt::new(),
    hpet: None,
    mmcfg: FixedList::new(),
    s5: None,
});
static TABLES: OnceCell<SpinGuard<'static, Tables, START_UP_LEVEL>> = OnceCell::new();

/// The decoded tables; `None` before [`init`].
#[must_use]
pub fn tables() -> Option<&'static Tables> {
    TABLES.get().map(|guard| &**guard)
}

/// Most pages of firmware tables that stay mapped for further reads. Beyond it a page is mapped anew each time.
const MAPPED_PAGES: usize = 128;

/// The pages that are mapped: address and where.
static MAPPED: SpinLock<FixedList<(u64, usize), MAPPED_PAGES>, TABLE_PAGES> = SpinLock::new(FixedList::new());
/// The lock is held while a page is mapped, which takes the lock of the page tables.
const TABLE_PAGES: u8 = level::ALLOCATOR - 2;

/// Physical memory that holds firmware tables, through mappings that stay for ever.
struct MachineMemory;

impl MachineMemory {
    fn page(page: u64) -> usize {
        let mut mapped = MAPPED.lock();
        if let Some((_, virt)) = mapped.iter().find(|(p, _)| *p == page) {
            return virt;
        }
        let virt = crate::paging::map_mmio(Maddr(page), PAGE_SIZE) as usize;
        mapped.push((page, virt));
        virt
    }
}

impl Physical for MachineMemory {
    fn read(&self, from: Maddr, to: &mut [u8]) -> bool {
        // No x86 processor has more than 52 physical address bits.
        let Some(end) = from.0.checked_add(to.len() as u64).filter(|end| *end <= 1 << 52) else { return false };
        let mut at = from.0;
        let mut done = 0;
        while at < end {
            let n = (PAGE_SIZE - at % PAGE_SIZE).min(end - at) as usize;
            let virt = Self::page(at - at % PAGE_SIZE) + (at % PAGE_SIZE) as usize;
            for (i, byte) in to[done..done + n].iter_mut().enumerate() {
                // SAFETY: the page is mapped readable and stays so; the bytes belong to the firmware and are only read.
                *byte = unsafe { ((virt + i) as *const u8).read_volatile() };
            }
            at += n as u64;
            done += n;
        }
        true
    }
}

/// Where the boot loader says that the tables begin.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoaderHints<'a> {
    /// Copy of the root pointer (multiboot2 tags 14 and 15).
    pub root_pointer_copy: Option<&'a [u8]>,
    /// Machine address of the EFI system table.
    pub efi_system_table: Option<Maddr>,
}

/// Finds and decodes the tables. An error means that the machine cannot be used: without the MADT there is no way to interrupts.
pub fn init(hints: LoaderHints<'_>) -> Result<&'static Tables, TableError> {
    let memory = MachineMemory;
    let address = hints
        .efi_system_table
        .and_then(|at| root_pointer_from_efi(&memory, at))
        .or_else(|| if hints.efi_system_table.is_some() { None } else { tables::scan_for_root_pointer(&memory) });
    let pointer = match (hints.root_pointer_copy.map(RootPointer::parse), address) {
        (Some(Ok(pointer)), _) => pointer,
        (_, Some(at)) => read_root_pointer(&memory, at)?,
        (Some(Err(e)), None) => return Err(e),
        (None, None) => return Err(TableError::NoRootPointer),
    };
    let root = RootTable::open(&memory, pointer)?;
    if let Some(mut storage) = STORAGE.try_lock() {
        storage.root_pointer = address;
        decode(&memory, &root, &mut storage)?;
        // The cell is empty: the lock was free.
        let _ = TABLES.set(storage);
    }
    tables().ok_or(TableError::NoRootPointer)
}

fn read_root_pointer(memory: &impl Physical, at: Maddr) -> Result<RootPointer, TableError> {
    let mut bytes = [0; 36];
    if !memory.read(at, &mut bytes) {
        return Err(TableError::Unreadable(at));
    }
    RootPointer::parse(&bytes)
}

fn decode(memory: &MachineMemory, root: &RootTable, to: &mut Tables) -> Result<(), TableError> {
    for broken in root.tables(memory).filter_map(Result::err) {
        crate::log!("ACPI: {broken}; the table is not used");
    }
    to.madt.parse(memory, root.find(memory, *b"APIC")?)?;
    match root.find(memory, *b"FACP") {
        Ok(table) => to.fadt = Fadt::parse(memory, table),
        Err(e) => crate::log!("ACPI: {e}: no PM timer, no ACPI reset and no power off"),
    }
    to.hpet = root.find(memory, *b"HPET").ok().and_then(|t| small::hpet_address(memory, t));
    to.mmcfg = root.find(memory, *b"MCFG").map(|t| small::mmcfg_ranges(memory, t)).unwrap_or_default();
    let dsdt = to.fadt.dsdt.and_then(|at| Table::open(memory, at).ok()).filter(|t| t.signature == Signature(*b"DSDT"));
    to.s5 = dsdt.and_then(|t| fadt::find_s5(memory, t)).or_else(|| {
        root.tables(memory).flatten().filter(|t| t.signature == Signature(*b"SSDT")).find_map(|t| fadt::find_s5(memory, t))
    });
    Ok(())
}

/// The root pointer's address from the EFI configuration tables (UEFI specification 2.10, section 4.6).
fn root_pointer_from_efi(memory: &impl Physical, system_table: Maddr) -> Option<Maddr> {
    /// `EFI_ACPI_20_TABLE_GUID`, then the one of revision 1.
    const GUIDS: [[u8; 16]; 2] = [
        [0x71, 0xe8, 0x68, 0x88, 0xf1, 0xe4, 0xd3, 0x11, 0xbc, 0x22, 0x00, 0x80, 0xc7, 0x3c, 0x88, 0x81],
        [0x30, 0x2d, 0x9d, 0xeb, 0x88, 0x2d, 0xd3, 0x11, 0x9a, 0x16, 0x00, 0x90, 0x27, 0x3f, 0xc1, 0x4d],
    ];
    let mut header = [0; 120];
    memory.read(system_table, &mut header).then_some(())?;
    if &header[..8] != b"IBI SYST" {
        return None;
    }
    let (count, list) = (u64_at(&header, 104)?.min(256), u64_at(&header, 112)?);
    GUIDS.iter().find_map(|guid| {
        (0..count).find_map(|i| {
            let mut entry = [0; 24];
            memory.read(Maddr(list.checked_add(24 * i)?), &mut entry).then_some(())?;
            (&entry[..16] == guid).then(|| u64_at(&entry, 16)).flatten().map(Maddr)
        })
    })
}
