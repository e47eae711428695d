//! The FADT (signature `FACP`): power management registers, reset, century register; and the sleep type for S5 in the DSDT
//! (ACPI specification 6.5, sections 5.2.9 and 7.4.2).

use super::tables::{Physical, Table, u16_at, u32_at, u64_at};
use oxen_types::Maddr;

/// Where a register is (Generic Address Structure, section 5.2.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// Memory-mapped.
    Memory(Maddr),
    /// I/O port.
    Port(u16),
}

impl Register {
    /// Decodes 12 bytes; `None` for an absent register or an address space that start-up does not use.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let address = u64_at(bytes, 4).filter(|a| *a != 0)?;
        match *bytes.first()? {
            0 => Some(Register::Memory(Maddr(address))),
            1 => u16::try_from(address).ok().map(Register::Port),
            _ => None,
        }
    }
}

/// What start-up takes from the FADT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fadt {
    /// Address of the DSDT.
    pub dsdt: Option<Maddr>,
    /// PM1a control register (port).
    pub pm1a_control: Option<u16>,
    /// PM1b control register (port).
    pub pm1b_control: Option<u16>,
    /// The PM timer (port).
    pub pm_timer: Option<u16>,
    /// True where the PM timer has 32 bits instead of 24.
    pub pm_timer_is_32_bit: bool,
    /// Port and value by which ACPI mode is switched on.
    pub enable: Option<(u16, u8)>,
    /// Register and value that reset the machine.
    pub reset: Option<(Register, u8)>,
    /// Index of the CMOS register that holds the century.
    pub century_register: Option<u8>,
    /// False where the firmware says that there is no CMOS clock.
    pub has_rtc: bool,
}

const FLAG_RESET_SUPPORTED: u32 = 1 << 10;
const FLAG_TIMER_32_BIT: u32 = 1 << 8;
const BOOT_FLAG_NO_RTC: u16 = 1 << 5;

impl Fadt {
    /// What holds without the table.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            dsdt: None,
            pm1a_control: None,
            pm1b_control: None,
            pm_timer: None,
            pm_timer_is_32_bit: false,
            enable: None,
            reset: None,
            century_register: None,
            has_rtc: true,
        }
    }

    /// Decodes the table; fields past its end are absent.
    #[must_use]
    pub fn parse(memory: &impl Physical, table: Table) -> Self {
        let mut buffer = [0; 244];
        let n = table.read_prefix(memory, &mut buffer);
        Self::decode(&buffer[..n])
    }

    fn decode(bytes: &[u8]) -> Self {
        let port32 = |at| u32_at(bytes, at).and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0);
        // The extended address is preferred where it is a port; some firmware leaves one of the two at zero.
        let block = |extended: usize, legacy| match bytes.get(extended..extended + 12).and_then(Register::parse) {
            Some(Register::Port(p)) => Some(p),
            _ => port32(legacy),
        };
        let flags = u32_at(bytes, 112).unwrap_or(0);
        let dsdt = u64_at(bytes, 140).filter(|a| *a != 0).or(u32_at(bytes, 40).map(u64::from).filter(|a| *a != 0));
        let reset = bytes.get(116..128).and_then(Register::parse).zip(bytes.get(128).copied());
        Self {
            dsdt: dsdt.map(Maddr),
            pm1a_control: block(172, 64),
            pm1b_control: block(184, 68),
            pm_timer: block(208, 76),
            pm_timer_is_32_bit: flags & FLAG_TIMER_32_BIT != 0,
            enable: port32(48).zip(bytes.get(52).copied().filter(|v| *v != 0)),
            reset: reset.filter(|_| flags & FLAG_RESET_SUPPORTED != 0),
            century_register: bytes.get(108).copied().filter(|r| *r != 0),
            has_rtc: u16_at(bytes, 109).unwrap_or(0) & BOOT_FLAG_NO_RTC == 0,
        }
    }
}

impl Default for Fadt {
    fn default() -> Self {
        Self::new()
    }
}

/// One integer constant of AML (section 20.2.3): its value and length.
fn aml_integer(bytes: &[u8]) -> Option<(u8, usize)> {
    match *bytes.first()? {
        0x00 => Some((0, 1)),
        0x01 => Some((1, 1)),
        0x0a => Some((*bytes.get(1)?, 2)),
        0x0b => Some((*bytes.get(1)?, 3)),
        0x0c => Some((*bytes.get(1)?, 5)),
        _ => None,
    }
}

/// The sleep types for PM1a and PM1b in a `\_S5` package, given the bytes that follow the name `_S5_`.
#[must_use]
pub fn decode_s5(after_name: &[u8]) -> Option<(u8, u8)> {
    const PACKAGE_OP: u8 = 0x12;
    if *after_name.first()? != PACKAGE_OP {
        return None;
    }
    // The two high bits of the first length byte give how many more there are; then comes the number of elements.
    let elements = 2 + usize::from(*after_name.get(1)? >> 6);
    if *after_name.get(elements)? < 1 {
        return None;
    }
    let first = after_name.get(elements + 1..)?;
    let (a, len) = aml_integer(first)?;
    let b = first.get(len..).and_then(aml_integer).map_or(0, |(b, _)| b);
    (a < 8 && b < 8).then_some((a, b))
}

/// Searches a DSDT or SSDT for the definition of `\_S5`. AML is not interpreted: a method instead of a package is not understood.
#[must_use]
pub fn find_s5(memory: &impl Physical, table: Table) -> Option<(u8, u8)> {
    const NAME: &[u8; 4] = b"_S5_";
    const TAIL: u32 = 24;
    let mut buffer = [0; 512];
    let mut offset = super::tables::HEADER_BYTES as u32;
    while offset < table.len_bytes {
        let n = (table.len_bytes - offset).min(buffer.len() as u32);
        let part = &mut buffer[..n as usize];
        if !table.read(memory, offset, part) {
            return None;
        }
        for at in 0..part.len().saturating_sub(NAME.len()) {
            if &part[at..at + NAME.len()] == NAME
                && let Some(types) = decode_s5(&part[at + NAME.len()..])
            {
                return Some(types);
            }
        }
        if offset + n == table.len_bytes {
            break;
        }
        // Chunks overlap so that a package on the border of two is seen whole in the second.
        offset += n - TAIL;
    }
    None
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::super::tables::tests::{FakeMemory, table};
    use super::*;
    use std::vec::Vec;

    fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
        bytes[at..at + value.len()].copy_from_slice(value);
    }

    #[test]
    fn legacy_and_extended_fields() {
        let mut bytes = [0; 244];
        put(&mut bytes, 40, &0x1234_u32.to_le_bytes());
        put(&mut bytes, 48, &0xb2_u32.to_le_bytes());
        bytes[52] = 0xf1;
        put(&mut bytes, 64, &0x604_u32.to_le_bytes());
        put(&mut bytes, 76, &0x608_u32.to_le_bytes());
        bytes[108] = 0x32;
        put(&mut bytes, 112, &(FLAG_RESET_SUPPORTED | FLAG_TIMER_32_BIT).to_le_bytes());
        put(&mut bytes, 116, &[1, 8, 0, 1, 0xf9, 0x0c]);
        bytes[128] = 0x0f;
        let old = Fadt::decode(&bytes[..116]);
        assert_eq!((old.reset, old.pm1a_control, old.dsdt), (None, Some(0x604), Some(Maddr(0x1234))));
        put(&mut bytes, 140, &0x5678_u64.to_le_bytes());
        put(&mut bytes, 172, &[1, 16, 0, 2, 0x04, 0x10]);
        let new = Fadt::decode(&bytes);
        assert_eq!((new.dsdt, new.pm1a_control, new.pm1b_control), (Some(Maddr(0x5678)), Some(0x1004), None));
        assert_eq!((new.pm_timer, new.pm_timer_is_32_bit), (Some(0x608), true));
        assert_eq!(new.reset, Some((Register::Port(0xcf9), 0x0f)));
        assert_eq!(new.enable, Some((0xb2, 0xf1)));
        assert_eq!(new.century_register, Some(0x32));
        assert_eq!(Fadt::decode(&[]), Fadt::new());
    }

    #[test]
    fn s5_packages() {
        assert_eq!(decode_s5(&[0x12, 0x06, 0x04, 0x00, 0x00, 0x00, 0x00]), Some((0, 0)));
        assert_eq!(decode_s5(&[0x12, 0x08, 0x04, 0x0a, 0x05, 0x0a, 0x06, 0x00]), Some((5, 6)));
        assert_eq!(decode_s5(&[0x12, 0x48, 0x00, 0x02, 0x0a, 0x07, 0x01]), Some((7, 1)));
        assert_eq!(decode_s5(&[0x12, 0x06, 0x01, 0x0a, 0x07]), Some((7, 0)));
        assert_eq!(decode_s5(&[0x14, 0x06]), None);
        assert_eq!(decode_s5(&[0x12, 0x06, 0x04, 0x0a]), None);
        assert_eq!(decode_s5(&[0x12, 0x06, 0x04, 0x0a, 0x20, 0x00]), None);
    }

    #[test]
    fn s5_is_found_wherever_it_lies() {
        for at in [0, 400, 460, 470, 475, 480, 485, 500, 900] {
            let mut body: Vec<u8> = std::vec![0x5f; at];
            body.extend_from_slice(b"_S5_\x12\x06\x04\x0a\x05\x0a\x05\x00\x00");
            body.extend_from_slice(&[0; 300]);
            let mut memory = FakeMemory::default();
            memory.0.insert(0x1000, table(b"DSDT", &body));
            let opened = Table::open(&memory, Maddr(0x1000)).unwrap();
            assert_eq!(find_s5(&memory, opened), Some((5, 5)), "at {at}");
        }
    }
}
