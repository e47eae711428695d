//! Serial ports of the 16550 family (National Semiconductor PC16550D data sheet).

use crate::port::{in8, out8};

const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
const FIFO_CONTROL: u16 = 2;
const INTERRUPT_IDENTIFICATION: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const SCRATCH: u16 = 7;

const STATUS_DATA_READY: u8 = 1;
const STATUS_TRANSMITTER_EMPTY: u8 = 0x20;

/// Polls after which a byte is given up: a port whose cable or chip holds the line must not stop the hypervisor.
const TRANSMIT_PATIENCE: u32 = 200_000;

/// Parity of a serial line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Parity {
    None,
    Odd,
    Even,
    Mark,
    Space,
}

/// A serial port and its line settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SerialSettings {
    /// First I/O port: 0x3f8 for com1, 0x2f8 for com2.
    pub port: u16,
    /// Line speed in bits per second; 0 keeps what the firmware set.
    pub baud: u32,
    /// Data bits, 5 to 8.
    pub data_bits: u8,
    /// Parity.
    pub parity: Parity,
    /// Stop bits, 1 or 2.
    pub stop_bits: u8,
    /// ISA interrupt of the port, where input is to arrive by interrupt.
    pub isa_irq: Option<u8>,
}

impl SerialSettings {
    /// The first serial port as most machines have it: 115200 baud, 8n1, ISA interrupt 4.
    pub const COM1: Self =
        Self { port: 0x3f8, baud: 115_200, data_bits: 8, parity: Parity::None, stop_bits: 1, isa_irq: Some(4) };
    /// The second one: ISA interrupt 3.
    pub const COM2: Self = Self { port: 0x2f8, isa_irq: Some(3), ..Self::COM1 };
}

/// A port in use.
#[derive(Debug)]
pub(super) struct Uart {
    settings: SerialSettings,
    /// The last byte was given up; later ones are tried once only, until the port takes one again.
    stuck: bool,
    /// Bytes that the transmitter takes when it reports that it is empty: 16 with a FIFO that works.
    fifo_bytes: u8,
    /// Bytes that it takes now without being asked again.
    room: u8,
}

impl Uart {
    fn read(&self, register: u16) -> u8 {
        // SAFETY: the port belongs to a UART, whose registers do not touch memory.
        unsafe { in8(self.settings.port.wrapping_add(register)) }
    }

    fn set(&self, register: u16, value: u8) {
        // SAFETY: as in `read`.
        unsafe { out8(self.settings.port.wrapping_add(register), value) };
    }

    /// Sets the line up; `None` where no UART answers.
    pub(super) fn start(settings: SerialSettings) -> Option<Self> {
        let mut uart = Self { settings, stuck: false, fifo_bytes: 1, room: 0 };
        uart.set(SCRATCH, 0x5a);
        if uart.read(SCRATCH) != 0x5a || uart.read(LINE_STATUS) == 0xff {
            return None;
        }
        uart.set(INTERRUPT_ENABLE, 0);
        let parity = match settings.parity {
            Parity::None => 0,
            Parity::Odd => 0x08,
            Parity::Even => 0x18,
            Parity::Mark => 0x28,
            Parity::Space => 0x38,
        };
        let stop = if settings.stop_bits == 2 { 4 } else { 0 };
        let line = (settings.data_bits.clamp(5, 8) - 5) | stop | parity;
        if let Some(divisor) = 115_200_u32.checked_div(settings.baud) {
            let divisor = divisor.clamp(1, 0xffff) as u16;
            uart.set(LINE_CONTROL, line | 0x80);
            uart.set(DATA, divisor as u8);
            uart.set(INTERRUPT_ENABLE, (divisor >> 8) as u8);
        }
        uart.set(LINE_CONTROL, line);
        uart.set(FIFO_CONTROL, 0x07);
        if uart.read(INTERRUPT_IDENTIFICATION) & 0xc0 == 0xc0 {
            uart.fifo_bytes = 16;
        }
        // DTR, RTS and OUT2, which connects the interrupt line.
        uart.set(MODEM_CONTROL, 0x0b);
        Some(uart)
    }

    /// Sends bytes, a carriage return before each line feed.
    pub(super) fn write(&mut self, text: &[u8]) {
        for &byte in text {
            if byte == b'\n' {
                self.send(b'\r');
            }
            self.send(byte);
        }
    }

    fn send(&mut self, byte: u8) {
        let patience = if self.stuck { 1 } else { TRANSMIT_PATIENCE };
        for _ in 0..patience {
            if self.room == 0 && self.read(LINE_STATUS) & STATUS_TRANSMITTER_EMPTY != 0 {
                self.room = self.fifo_bytes;
            }
            if self.room != 0 {
                self.set(DATA, byte);
                self.room -= 1;
                self.stuck = false;
                return;
            }
        }
        self.stuck = true;
    }

    /// The next received byte.
    pub(super) fn receive(&mut self) -> Option<u8> {
        self.has_input().then(|| self.read(DATA))
    }

    /// Makes received bytes raise the port's interrupt.
    pub(super) fn enable_receive_interrupt(&mut self) {
        self.set(INTERRUPT_ENABLE, 1);
    }

    pub(super) fn has_input(&self) -> bool {
        self.read(LINE_STATUS) & STATUS_DATA_READY != 0
    }

    /// Whether an I/O port is one of this UART's eight.
    pub(super) fn owns(&self, port: u16) -> bool {
        port & !7 == self.settings.port & !7
    }

    pub(super) fn settings(&self) -> &SerialSettings {
        &self.settings
    }
}
