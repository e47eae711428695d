//! Serial port settings.

use crate::value;

/// The clock of PC UARTs.
const CLOCK_HZ: u64 = 1_843_200;

/// Parity of a serial line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parity {
    /// No parity bit.
    #[default]
    None,
    /// Odd.
    Odd,
    /// Even.
    Even,
    /// Always one.
    Mark,
    /// Always zero.
    Space,
}

/// `com1=` or `com2=`. `None` means: as the firmware left it, or the port's usual value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComPort {
    /// Bits per second; `None` for `auto`, the rate that the firmware set.
    pub baud: Option<u32>,
    /// Data bits, 5 to 8.
    pub data_bits: u8,
    /// Parity.
    pub parity: Parity,
    /// Stop bits, 1 or 2.
    pub stop_bits: u8,
    /// First I/O port.
    pub io_base: Option<u16>,
    /// Interrupt line; 0 means that the port is polled.
    pub irq: Option<u8>,
}

impl ComPort {
    /// Reads `<baud>|auto[/1843200][,<dps>[,<io-base>[,<irq>]]]`; parts may be left empty.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut port = Self {
            baud: None,
            data_bits: 8,
            parity: Parity::None,
            stop_bits: 1,
            io_base: None,
            irq: None,
        };
        let mut parts = text.split(',');
        let speed = parts.next()?;
        let (baud, clock) = speed
            .split_once('/')
            .map_or((speed, None), |(baud, clock)| (baud, Some(clock)));
        let nonzero = |text: &str| u32::try_from(value::number(text)?).ok().filter(|n| *n != 0);
        if baud != "auto" {
            port.baud = Some(nonzero(baud)?);
        }
        if clock.is_some_and(|clock| value::number(clock) != Some(CLOCK_HZ)) {
            return None;
        }
        if let Some(format) = parts.next().filter(|part| !part.is_empty()) {
            port.read_format(format)?;
        }
        if let Some(base) = parts.next().filter(|part| !part.is_empty()) {
            port.io_base = Some(u16::try_from(value::number(base)?).ok()?);
        }
        if let Some(irq) = parts.next().filter(|part| !part.is_empty()) {
            port.irq = Some(u8::try_from(value::number(irq)?).ok()?);
        }
        parts.next().is_none().then_some(port)
    }

    /// Reads data bits, parity and stop bits, for instance `8n1`.
    fn read_format(&mut self, text: &str) -> Option<()> {
        let mut chars = text.chars();
        self.data_bits = match chars.next()? {
            digit @ '5'..='8' => digit as u8 - b'0',
            _ => return None,
        };
        self.parity = match chars.next()? {
            'n' => Parity::None,
            'o' => Parity::Odd,
            'e' => Parity::Even,
            'm' => Parity::Mark,
            's' => Parity::Space,
            _ => return None,
        };
        self.stop_bits = match chars.next()? {
            digit @ '1'..='2' => digit as u8 - b'0',
            _ => return None,
        };
        chars.next().is_none().then_some(())
    }
}
