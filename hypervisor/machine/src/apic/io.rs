//! The I/O APICs (Intel 82093AA data sheet).

use super::HARDWARE_LEVEL;
use super::redirection::{destination_word, redirection_entry, with_mask};
use crate::acpi::madt::{IoApicEntry, MAX_IO_APICS};
use crate::list::FixedList;
use oxen_hal::IrqLine;
use oxen_sync::SpinLock;
use oxen_types::{Maddr, Mfn};

const VERSION: u32 = 1;
const REDIRECTION: u32 = 0x10;

/// One I/O APIC.
#[derive(Clone, Copy, Debug)]
struct IoApic {
    registers: usize,
    address: Maddr,
    gsi_base: u32,
    nr_lines: u32,
}

impl IoApic {
    fn read(&self, index: u32) -> u32 {
        // SAFETY: the page of registers is mapped for ever, and the caller holds the lock of the register window.
        unsafe {
            (self.registers as *mut u32).write_volatile(index);
            ((self.registers + 0x10) as *const u32).read_volatile()
        }
    }

    fn write(&self, index: u32, value: u32) {
        // SAFETY: as in `read`; interrupts that the entries cause go to vectors that the hypervisor answers.
        unsafe {
            (self.registers as *mut u32).write_volatile(index);
            ((self.registers + 0x10) as *mut u32).write_volatile(value);
        }
    }
}

/// All I/O APICs; the lock also guards their register windows.
static IO_APICS: SpinLock<FixedList<IoApic, MAX_IO_APICS>, HARDWARE_LEVEL> = SpinLock::new(FixedList::new());

/// Maps the I/O APICs and masks all their lines. Returns one more than the highest line number.
pub(crate) fn init(entries: impl Iterator<Item = IoApicEntry>) -> u32 {
    let mut nr_lines = 0;
    for entry in entries {
        let page = Maddr(entry.address.0 & !0xfff);
        let registers = crate::paging::map_mmio(page, 4096) as usize + entry.address.page_offset();
        let mut apic = IoApic { registers, address: entry.address, gsi_base: entry.gsi_base, nr_lines: 0 };
        let version = apic.read(VERSION);
        if version == u32::MAX {
            crate::log!("I/O APIC {} at {} does not answer; its lines are not used", entry.id, entry.address);
            continue;
        }
        apic.nr_lines = (version >> 16 & 0xff) + 1;
        for pin in 0..apic.nr_lines {
            apic.write(REDIRECTION + 2 * pin, with_mask(0, true));
            apic.write(REDIRECTION + 2 * pin + 1, 0);
        }
        crate::info!(
            "I/O APIC {} at {}: lines {} to {}",
            entry.id,
            entry.address,
            apic.gsi_base,
            apic.gsi_base.saturating_add(apic.nr_lines - 1)
        );
        nr_lines = nr_lines.max(apic.gsi_base.saturating_add(apic.nr_lines));
        IO_APICS.lock().push(apic);
    }
    nr_lines
}

fn find(apics: &FixedList<IoApic, MAX_IO_APICS>, gsi: u32) -> Option<(IoApic, u32)> {
    let apic = apics.iter().find(|a| gsi.checked_sub(a.gsi_base).is_some_and(|pin| pin < a.nr_lines))?;
    Some((apic, REDIRECTION + 2 * (gsi - apic.gsi_base)))
}

/// True where some I/O APIC has the line.
pub(crate) fn has_line(gsi: u32) -> bool {
    find(&IO_APICS.lock(), gsi).is_some()
}

/// Programs a line; `false` where no I/O APIC has it.
pub(crate) fn program(line: IrqLine, vector: u8, apic_id: u8, masked: bool) -> bool {
    let apics = IO_APICS.lock();
    let Some((apic, index)) = find(&apics, line.gsi) else { return false };
    let (high, low) = redirection_entry(line, vector, apic_id, masked);
    // Masked while the two halves disagree.
    apic.write(index, with_mask(low, true));
    apic.write(index + 1, high);
    if !masked {
        apic.write(index, low);
    }
    true
}

/// Sends a line to another CPU. The vector stays, so that nothing else of the entry changes.
pub(crate) fn set_destination(gsi: u32, apic_id: u8) {
    let apics = IO_APICS.lock();
    if let Some((apic, index)) = find(&apics, gsi) {
        apic.write(index + 1, destination_word(apic_id));
    }
}

/// Opens or closes a line.
pub(crate) fn set_mask(gsi: u32, masked: bool) {
    let apics = IO_APICS.lock();
    if let Some((apic, index)) = find(&apics, gsi) {
        let low = apic.read(index);
        apic.write(index, with_mask(low, masked));
    }
}

/// True where the frame holds an I/O APIC's registers.
pub(crate) fn owns_frame(mfn: Mfn) -> bool {
    IO_APICS.lock().iter().any(|a| a.address.mfn() == mfn)
}
