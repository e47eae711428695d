//! The MADT (signature `APIC`): processors and interrupt controllers (ACPI specification 6.5, section 5.2.12).

use super::tables::{HEADER_BYTES, Physical, Table, TableError, u16_at, u32_at, u64_at};
use crate::list::FixedList;
use oxen_hal::{IrqLine, LinePolarity, LineTrigger};
use oxen_types::{MAX_CPUS, Maddr};

/// Most I/O APICs that are used.
pub const MAX_IO_APICS: usize = 64;

/// A processor that the firmware lists as enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Local APIC id.
    pub apic_id: u32,
    /// ACPI processor id, by which the firmware's namespace names it.
    pub acpi_id: u32,
}

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApicEntry {
    /// Id.
    pub id: u8,
    /// Machine address of its registers.
    pub address: Maddr,
    /// First global system interrupt.
    pub gsi_base: u32,
}

/// What the MADT says.
#[derive(Debug)]
pub struct Madt {
    /// Machine address of the local APICs' registers.
    pub local_apic: Maddr,
    /// True where the machine also has the two legacy 8259 controllers.
    pub has_legacy_pic: bool,
    /// Enabled processors in table order, each APIC id once.
    pub processors: FixedList<Processor, MAX_CPUS>,
    /// Processors that did not fit.
    pub ignored_processors: u32,
    /// I/O APICs in table order.
    pub io_apics: FixedList<IoApicEntry, MAX_IO_APICS>,
    /// The line of each legacy ISA interrupt.
    pub isa: [IrqLine; 16],
}

/// Where ISA interrupts are without an override: line of the same number, edge, active high.
const fn identity_isa_lines() -> [IrqLine; 16] {
    let mut lines = [IrqLine { gsi: 0, trigger: LineTrigger::Edge, polarity: LinePolarity::High }; 16];
    let mut i = 0;
    while i < lines.len() {
        lines[i].gsi = i as u32;
        i += 1;
    }
    lines
}

/// The line that an interrupt source override describes. `flags` are the MPS INTI flags (table 5.26 of the specification): two bits
/// of polarity, two of trigger mode, 0 meaning "as the bus has it", which is edge and active high for ISA.
#[must_use]
pub fn override_line(gsi: u32, flags: u16) -> IrqLine {
    let polarity = if flags & 3 == 3 { LinePolarity::Low } else { LinePolarity::High };
    let trigger = if flags >> 2 & 3 == 3 { LineTrigger::Level } else { LineTrigger::Edge };
    IrqLine { gsi, trigger, polarity }
}

impl Madt {
    /// Nothing known yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            local_apic: Maddr(0),
            has_legacy_pic: false,
            processors: FixedList::new(),
            ignored_processors: 0,
            io_apics: FixedList::new(),
            isa: identity_isa_lines(),
        }
    }

    /// Decodes the table into this value, which is new.
    pub fn parse(&mut self, memory: &impl Physical, table: Table) -> Result<(), TableError> {
        let mut fixed = [0; HEADER_BYTES + 8];
        if !table.read(memory, 0, &mut fixed) {
            return Err(TableError::BadLength(table.signature, table.len_bytes));
        }
        let bad = TableError::BadLength(table.signature, table.len_bytes);
        self.local_apic = Maddr(u64::from(u32_at(&fixed, HEADER_BYTES).ok_or(bad)?));
        self.has_legacy_pic = fixed[HEADER_BYTES + 4] & 1 != 0;
        let mut offset = fixed.len() as u32;
        while offset < table.len_bytes {
            let mut head = [0; 2];
            if !table.read(memory, offset, &mut head) || head[1] < 2 {
                return Err(bad);
            }
            let mut entry = [0; 255];
            let entry = &mut entry[..usize::from(head[1])];
            if !table.read(memory, offset, entry) {
                return Err(bad);
            }
            // An entry too short for its type is passed over: the fields that it lacks cannot be guessed.
            let _ = self.add(entry);
            offset += u32::from(head[1]);
        }
        if self.processors.is_empty() {
            return Err(TableError::NoProcessor);
        }
        if self.io_apics.is_empty() {
            return Err(TableError::NoIoApic);
        }
        Ok(())
    }

    /// Takes in one entry; `None` where it is too short.
    fn add(&mut self, entry: &[u8]) -> Option<()> {
        match *entry.first()? {
            0 => {
                let (acpi_id, apic_id) = (u32::from(*entry.get(2)?), u32::from(*entry.get(3)?));
                // 0xff is the broadcast address, which firmware uses for sockets that are empty.
                if u32_at(entry, 4)? & 1 != 0 && apic_id != 0xff {
                    self.add_processor(Processor { apic_id, acpi_id });
                }
            }
            1 => {
                let (id, address, gsi_base) = (*entry.get(2)?, u32_at(entry, 4)?, u32_at(entry, 8)?);
                self.io_apics.push(IoApicEntry { id, address: Maddr(u64::from(address)), gsi_base });
            }
            2 => {
                let (bus, source) = (*entry.get(2)?, *entry.get(3)?);
                let line = override_line(u32_at(entry, 4)?, u16_at(entry, 8)?);
                if bus == 0 {
                    *self.isa.get_mut(usize::from(source))? = line;
                }
            }
            5 => self.local_apic = Maddr(u64_at(entry, 4)?),
            9 => {
                let (apic_id, flags, acpi_id) = (u32_at(entry, 4)?, u32_at(entry, 8)?, u32_at(entry, 12)?);
                if flags & 1 != 0 && apic_id != u32::MAX {
                    self.add_processor(Processor { apic_id, acpi_id });
                }
            }
            _ => {}
        }
        Some(())
    }

    fn add_processor(&mut self, processor: Processor) {
        if self.processors.iter().any(|p| p.apic_id == processor.apic_id) {
            return;
        }
        if !self.processors.push(processor) {
            self.ignored_processors += 1;
        }
    }
}

impl Default for Madt {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::super::tables::tests::{FakeMemory, table};
    use super::*;
    use std::vec::Vec;

    fn parse(entries: &[&[u8]]) -> Result<Madt, TableError> {
        let mut body = Vec::from([0, 0, 0xe0, 0xfe, 1, 0, 0, 0]);
        for entry in entries {
            body.extend_from_slice(entry);
        }
        let mut memory = FakeMemory::default();
        memory.0.insert(0x1000, table(b"APIC", &body));
        let opened = Table::open(&memory, Maddr(0x1000)).unwrap();
        let mut madt = Madt::new();
        madt.parse(&memory, opened).map(|()| madt)
    }

    const IO_APIC: &[u8] = &[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0];

    fn lapic(acpi_id: u8, apic_id: u8, flags: u8) -> [u8; 8] {
        [0, 8, acpi_id, apic_id, flags, 0, 0, 0]
    }

    #[test]
    fn processors_once_each_and_only_enabled_ones() {
        let x2: [u8; 16] = [9, 16, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0];
        let big: [u8; 16] = [9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0];
        let madt = parse(&[&lapic(0, 0, 1), &lapic(1, 1, 1), &lapic(2, 2, 0), &lapic(3, 0xff, 1), &x2, &big, IO_APIC]).unwrap();
        let ids: Vec<_> = madt.processors.iter().map(|p| (p.apic_id, p.acpi_id)).collect();
        assert_eq!(ids, [(0, 0), (1, 1), (256, 8)]);
        assert!(madt.has_legacy_pic);
        assert_eq!(madt.local_apic, Maddr(0xfee0_0000));
    }

    #[test]
    fn overrides_and_address() {
        let timer = [2, 10, 0, 0, 2, 0, 0, 0, 0, 0];
        let sci = [2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0];
        let low = [2, 10, 0, 11, 20, 0, 0, 0, 0x0f, 0];
        let beyond = [2, 10, 0, 99, 20, 0, 0, 0, 0x0f, 0];
        let base = [5, 12, 0, 0, 0, 0, 0xe1, 0xfe, 1, 0, 0, 0];
        let madt = parse(&[&lapic(0, 0, 1), IO_APIC, &timer, &sci, &low, &beyond, &base]).unwrap();
        assert_eq!(madt.isa[0], IrqLine { gsi: 2, trigger: LineTrigger::Edge, polarity: LinePolarity::High });
        assert_eq!(madt.isa[9], IrqLine { gsi: 9, trigger: LineTrigger::Level, polarity: LinePolarity::High });
        assert_eq!(madt.isa[11], IrqLine { gsi: 20, trigger: LineTrigger::Level, polarity: LinePolarity::Low });
        assert_eq!(madt.isa[4].gsi, 4);
        assert_eq!(madt.local_apic, Maddr(0x1_fee1_0000));
    }

    #[test]
    fn damaged_entries() {
        assert_eq!(parse(&[IO_APIC]).unwrap_err(), TableError::NoProcessor);
        assert_eq!(parse(&[&lapic(0, 0, 1)]).unwrap_err(), TableError::NoIoApic);
        assert!(matches!(parse(&[&lapic(0, 0, 1), &[1, 0]]), Err(TableError::BadLength(..))));
        assert!(matches!(parse(&[&lapic(0, 0, 1), &[1, 200, 0]]), Err(TableError::BadLength(..))));
        // A short entry of a known type is passed over.
        assert!(parse(&[&lapic(0, 0, 1), &[2, 3, 0], IO_APIC]).is_ok());
    }
}
