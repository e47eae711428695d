//! PCI configuration space: memory-mapped where the firmware says so, else by the ports 0xcf8 and 0xcfc.

use crate::acpi::small::{MAX_MMCFG, MmcfgRange};
use crate::apic::HARDWARE_LEVEL;
use crate::list::FixedList;
use crate::port::{in8, in16, in32, out8, out16, out32};
use crate::{memory, paging};
use oxen_hal::{MemoryKind, MemoryRange, PciAddress};
use oxen_sync::{OnceCell, SpinLock};

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
/// Bytes of configuration space that the ports reach.
const LEGACY_BYTES: u16 = 256;
const FUNCTION_BYTES: u16 = 4096;

/// A memory-mapped range that is in use.
#[derive(Clone, Copy, Debug)]
struct Mapped {
    range: MmcfgRange,
    va: u64,
}

static MAPPED: OnceCell<FixedList<Mapped, MAX_MMCFG>> = OnceCell::new();
/// Address and data port belong together.
static PORTS: SpinLock<(), HARDWARE_LEVEL> = SpinLock::new(());

/// True where the firmware's map reserves the whole range. A range that is RAM or that the map does not know may be anything.
fn is_reserved(range: &MmcfgRange, map: &[MemoryRange]) -> bool {
    let end = range.start().0 + range.len_bytes();
    let mut covered = range.start().0;
    for r in map.iter().filter(|r| matches!(r.kind, MemoryKind::Reserved | MemoryKind::AcpiNvs)) {
        if r.start.0 <= covered && r.end.0 > covered {
            covered = r.end.0;
        }
    }
    covered >= end
}

/// Maps the ranges that can be trusted.
pub(crate) fn init(ranges: &FixedList<MmcfgRange, MAX_MMCFG>) {
    let mut mapped = FixedList::new();
    for range in ranges.iter() {
        if !is_reserved(&range, memory::map()) {
            crate::log!(
                "PCI: the memory map does not reserve {:#x}, said to be configuration space of segment {}; not used",
                range.start().0,
                range.segment
            );
            continue;
        }
        let va = paging::map_mmio(range.start(), range.len_bytes()) as u64;
        mapped.push(Mapped { range, va });
        crate::info!(
            "PCI segment {} buses {} to {}: configuration space at {:#x}",
            range.segment,
            range.first_bus,
            range.last_bus,
            range.start().0
        );
    }
    // Called once, at start-up.
    let _ = MAPPED.set(mapped);
}

/// Where an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// To this virtual address.
    Memory(u64),
    /// Through the ports, with this address word.
    Ports(u32),
}

/// Finds the way; `None` for an access that no function can answer.
fn way(mapped: &FixedList<Mapped, MAX_MMCFG>, at: PciAddress, offset: u16, bytes: u8) -> Option<Way> {
    if !matches!(bytes, 1 | 2 | 4) || !offset.is_multiple_of(u16::from(bytes)) || offset >= FUNCTION_BYTES {
        return None;
    }
    let covers = |m: &Mapped| m.range.segment == at.segment && (m.range.first_bus..=m.range.last_bus).contains(&at.bus);
    if let Some(m) = mapped.iter().find(covers) {
        let function = u64::from(at.bus - m.range.first_bus) << 20 | u64::from(at.devfn) << 12;
        return Some(Way::Memory(m.va + function + u64::from(offset)));
    }
    (at.segment == 0 && offset < LEGACY_BYTES)
        .then(|| Way::Ports(1 << 31 | u32::from(at.bus) << 16 | u32::from(at.devfn) << 8 | u32::from(offset)))
}

fn find(at: PciAddress, offset: u16, bytes: u8) -> Option<Way> {
    MAPPED.get().map_or_else(|| way(&FixedList::new(), at, offset, bytes), |mapped| way(mapped, at, offset, bytes))
}

/// Reads; all ones where there is nothing.
pub(crate) fn read(at: PciAddress, offset: u16, bytes: u8) -> u32 {
    // SAFETY: the addresses are in mapped configuration space and aligned; ports and registers are those of the PCI host bridge, whose
    // configuration space the hypervisor may read.
    unsafe {
        match (find(at, offset, bytes), bytes) {
            (Some(Way::Memory(va)), 1) => u32::from((va as *const u8).read_volatile()),
            (Some(Way::Memory(va)), 2) => u32::from((va as *const u16).read_volatile()),
            (Some(Way::Memory(va)), _) => (va as *const u32).read_volatile(),
            (Some(Way::Ports(word)), _) => {
                let _ports = PORTS.lock();
                out32(ADDRESS, word & !3);
                let port = DATA + (offset & 3);
                match bytes {
                    1 => u32::from(in8(port)),
                    2 => u32::from(in16(port)),
                    _ => in32(port),
                }
            }
            (None, _) => u32::MAX,
        }
    }
}

/// Writes; nothing where there is nothing.
pub(crate) fn write(at: PciAddress, offset: u16, bytes: u8, value: u32) {
    // SAFETY: as in `read`; what a device does by the write is dom0's affair, whom the logic has checked.
    unsafe {
        match (find(at, offset, bytes), bytes) {
            (Some(Way::Memory(va)), 1) => (va as *mut u8).write_volatile(value as u8),
            (Some(Way::Memory(va)), 2) => (va as *mut u16).write_volatile(value as u16),
            (Some(Way::Memory(va)), _) => (va as *mut u32).write_volatile(value),
            (Some(Way::Ports(word)), _) => {
                let _ports = PORTS.lock();
                out32(ADDRESS, word & !3);
                let port = DATA + (offset & 3);
                match bytes {
                    1 => out8(port, value as u8),
                    2 => out16(port, value as u16),
                    _ => out32(port, value),
                }
            }
            (None, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oxen_types::Maddr;

    const RANGE: MmcfgRange = MmcfgRange { base: Maddr(0xb000_0000), segment: 0, first_bus: 2, last_bus: 4 };

    fn address(segment: u16, bus: u8, devfn: u8) -> PciAddress {
        PciAddress { segment, bus, devfn }
    }

    #[test]
    fn ways() {
        let mut mapped = FixedList::new();
        mapped.push(Mapped { range: RANGE, va: 0x1000_0000 });
        let way = |at, offset, bytes| way(&mapped, at, offset, bytes);
        assert_eq!(way(address(0, 3, 0x11), 0x104, 4), Some(Way::Memory(0x1000_0000 + (1 << 20) + 0x11104)));
        assert_eq!(way(address(0, 0, 0xf8), 0x40, 2), Some(Way::Ports(0x8000_f840)));
        assert_eq!(way(address(0, 0, 0xf8), 0x100, 4), None);
        assert_eq!(way(address(1, 3, 0), 0, 4), None);
        assert_eq!(way(address(0, 3, 0), 2, 4), None);
        assert_eq!(way(address(0, 3, 0), 4096, 4), None);
        assert_eq!(way(address(0, 3, 0), 0, 3), None);
    }

    #[test]
    fn only_reserved_ranges() {
        let range = |start, end, kind| MemoryRange { start: Maddr(start), end: Maddr(end), kind };
        let whole = [range(0, 0x8000_0000, MemoryKind::Ram), range(0xb000_0000, 0xc000_0000, MemoryKind::Reserved)];
        assert!(is_reserved(&RANGE, &whole));
        let pieces = [range(0xb010_0000, 0xb030_0000, MemoryKind::Reserved), range(0xb030_0000, 0xb050_0000, MemoryKind::AcpiNvs)];
        assert!(is_reserved(&RANGE, &pieces));
        assert!(!is_reserved(&RANGE, &pieces[..1]));
        assert!(!is_reserved(&RANGE, &whole[..1]));
    }
}
