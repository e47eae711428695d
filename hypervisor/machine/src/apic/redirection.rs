//! The words that describe an interrupt to the hardware: I/O APIC redirection entries (Intel 82093AA data sheet, section 3.2.4) and MSI
//! messages (Intel SDM vol. 3, section "Message Signalled Interrupts").

use oxen_hal::{IrqLine, LinePolarity, LineTrigger, MsiMessage};

const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const ACTIVE_LOW: u32 = 1 << 13;

/// A redirection entry: fixed delivery of `vector` to one CPU by its physical APIC id. (high word, low word).
#[must_use]
pub fn redirection_entry(line: IrqLine, vector: u8, apic_id: u8, masked: bool) -> (u32, u32) {
    let mut low = u32::from(vector);
    if line.trigger == LineTrigger::Level {
        low |= LEVEL;
    }
    if line.polarity == LinePolarity::Low {
        low |= ACTIVE_LOW;
    }
    (destination_word(apic_id), with_mask(low, masked))
}

/// The high word of a redirection entry.
#[must_use]
pub const fn destination_word(apic_id: u8) -> u32 {
    (apic_id as u32) << 24
}

/// The low word of a redirection entry with its mask bit set or cleared.
#[must_use]
pub const fn with_mask(low: u32, masked: bool) -> u32 {
    if masked { low | MASKED } else { low & !MASKED }
}

/// The message for fixed, edge-triggered delivery of `vector` to one CPU by its physical APIC id.
#[must_use]
pub fn msi_message(vector: u8, apic_id: u8) -> MsiMessage {
    MsiMessage { address: 0xfee0_0000 | u64::from(apic_id) << 12, data: u32::from(vector) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let line = IrqLine { gsi: 9, trigger: LineTrigger::Level, polarity: LinePolarity::Low };
        assert_eq!(redirection_entry(line, 0x41, 3, true), (0x0300_0000, 0x0001_a041));
        let line = IrqLine { gsi: 4, trigger: LineTrigger::Edge, polarity: LinePolarity::High };
        assert_eq!(redirection_entry(line, 0x30, 0, false), (0, 0x30));
        assert_eq!(with_mask(with_mask(0xa041, true), false), 0xa041);
    }

    #[test]
    fn messages() {
        assert_eq!(msi_message(0x55, 2), MsiMessage { address: 0xfee0_2000, data: 0x55 });
    }
}
