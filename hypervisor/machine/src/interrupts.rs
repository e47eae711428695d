//! Device interrupts: lines and MSIs, their vectors, and what an arriving vector means.
//!
//! A vector means the same on all CPUs; devices' interrupts go to the boot CPU until they are sent elsewhere. Numbers of [`PhysIrq`]: lines first, by their GSI, then MSIs.

use crate::X86;
use crate::apic::vectors::{self, VectorAllocator};
use crate::apic::{HARDWARE_LEVEL, io, local, redirection};
use crate::{acpi, time, tlb};
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering};
use oxen_hal::{Arrived, Interrupts, IrqLine, LineTrigger, MsiMessage, PhysIrq, Processors};
use oxen_sync::SpinLock;
use oxen_types::CpuId;

/// Most lines that are used; a machine with more loses the highest.
const MAX_LINES: usize = 512;
/// Most MSIs at once: there are fewer device vectors than this.
const MAX_MSIS: usize = 176;

/// What a vector belongs to, as one word: 0 for nobody, else the number of its [`PhysIrq`] plus one, with [`LEVEL_LINE`].
static OWNERS: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];
const LEVEL_LINE: u32 = 1 << 31;

/// The vector of each [`PhysIrq`]; 0 for none.
static VECTORS: [AtomicU8; MAX_LINES + MAX_MSIS] = [const { AtomicU8::new(0) }; MAX_LINES + MAX_MSIS];
/// The APIC id to which each [`PhysIrq`] was sent, plus one; 0 for the boot CPU's.
static DESTINATIONS: [AtomicU16; MAX_LINES + MAX_MSIS] = [const { AtomicU16::new(0) }; MAX_LINES + MAX_MSIS];
/// Number of lines, set once.
static NR_LINES: AtomicU32 = AtomicU32::new(0);
/// The lines of the hypervisor's serial ports plus one; 0 for none. They are not given out.
static SERIAL_LINES: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
/// Unexpected vectors seen, to limit their reports.
static STRAY: AtomicU32 = AtomicU32::new(0);
/// Reports of unexpected vectors and APIC errors before they are only counted.
const MAX_REPORTS: u32 = 16;

static ALLOCATOR: SpinLock<VectorAllocator, HARDWARE_LEVEL> = SpinLock::new(VectorAllocator::new());

/// Prepares the I/O APICs.
pub(crate) fn init(tables: &acpi::Tables) {
    let nr_lines = io::init(tables.madt.io_apics.iter());
    if nr_lines as usize > MAX_LINES {
        crate::log!("The machine has {nr_lines} interrupt lines; the first {MAX_LINES} are used");
    }
    NR_LINES.store(nr_lines.min(MAX_LINES as u32), Ordering::Relaxed);
}

/// The 8-bit APIC id to which new interrupts go, which is the boot CPU's.
fn usual_destination() -> u8 {
    crate::smp::boot_apic_id().min(0xff) as u8
}

/// The APIC id to which an interrupt goes.
fn destination(irq: PhysIrq) -> u8 {
    match DESTINATIONS.get(irq.0 as usize).map_or(0, |d| d.load(Ordering::Relaxed)) {
        0 => usual_destination(),
        n => (n - 1) as u8,
    }
}

fn vector_of(irq: PhysIrq) -> Option<u8> {
    VECTORS.get(irq.0 as usize).map(|v| v.load(Ordering::Relaxed)).filter(|v| *v != 0)
}

fn owner_word(irq: PhysIrq, level: bool) -> u32 {
    (irq.0 + 1) | if level { LEVEL_LINE } else { 0 }
}

/// Opens the line of a serial port that is the hypervisor's; `index` is 0 or 1. Its interrupts arrive as [`Arrived::ConsoleInput`].
pub(crate) fn open_serial_line(index: usize, isa_irq: u8) {
    let line = crate::MACHINE.isa_line(isa_irq);
    if !io::program(line, vectors::SERIAL, usual_destination(), false) {
        crate::log!("No I/O APIC has the serial port's interrupt {isa_irq}");
    } else if let Some(slot) = SERIAL_LINES.get(index) {
        slot.store(line.gsi + 1, Ordering::Relaxed);
    }
}

fn is_serial(gsi: u32) -> bool {
    SERIAL_LINES.iter().any(|slot| slot.load(Ordering::Relaxed) == gsi + 1)
}

/// Answers a vector that nobody owns: a device that fires after its MSI was freed, or a defect.
#[cold]
fn stray(vector: u8) -> Arrived {
    if STRAY.fetch_add(1, Ordering::Relaxed) < MAX_REPORTS {
        crate::log!("Interrupt with vector {vector:#x}, which nobody owns");
    }
    local::end_of_interrupt();
    Arrived::Nothing
}

#[cold]
fn apic_error() -> Arrived {
    let errors = local::take_errors();
    local::end_of_interrupt();
    if STRAY.fetch_add(1, Ordering::Relaxed) < MAX_REPORTS {
        crate::log!("Local APIC error, status {errors:#x}");
    }
    Arrived::Nothing
}

fn device(vector: u8) -> Arrived {
    let owner = OWNERS[usize::from(vector)].load(Ordering::Relaxed);
    if owner == 0 {
        return stray(vector);
    }
    let irq = PhysIrq((owner & !LEVEL_LINE) - 1);
    if owner & LEVEL_LINE != 0 {
        // Masked first: the end of the interrupt lets a line that is still active fire again.
        io::set_mask(irq.0, true);
    }
    local::end_of_interrupt();
    Arrived::Device(irq)
}

impl Interrupts for X86 {
    fn acknowledge(&self, vector: u8) -> Arrived {
        match vector {
            vectors::TIMER => {
                local::end_of_interrupt();
                if time::timer_fired() { Arrived::Timer } else { Arrived::Nothing }
            }
            vectors::KICK => {
                local::end_of_interrupt();
                crate::smp::kick_arrived();
                Arrived::Kick
            }
            vectors::FLUSH => {
                local::end_of_interrupt();
                tlb::serve();
                Arrived::Nothing
            }
            vectors::SERIAL => {
                local::end_of_interrupt();
                Arrived::ConsoleInput
            }
            vectors::SPURIOUS | vectors::LEGACY_FIRST..=vectors::LEGACY_LAST => Arrived::Nothing,
            vectors::ERROR => apic_error(),
            _ => device(vector),
        }
    }

    fn nr_lines(&self) -> u32 {
        NR_LINES.load(Ordering::Relaxed)
    }

    fn isa_line(&self, isa: u8) -> IrqLine {
        let fallback = IrqLine { gsi: u32::from(isa), trigger: LineTrigger::Edge, polarity: oxen_hal::LinePolarity::High };
        acpi::tables().and_then(|t| t.madt.isa.get(usize::from(isa)).copied()).unwrap_or(fallback)
    }

    fn setup_line(&self, line: IrqLine) -> Option<PhysIrq> {
        if line.gsi >= self.nr_lines() || is_serial(line.gsi) || !io::has_line(line.gsi) {
            return None;
        }
        let irq = PhysIrq(line.gsi);
        let vector = match vector_of(irq) {
            Some(vector) => vector,
            None => ALLOCATOR.lock().allocate()?,
        };
        let level = line.trigger == LineTrigger::Level;
        OWNERS[usize::from(vector)].store(owner_word(irq, level), Ordering::Relaxed);
        VECTORS.get(irq.0 as usize)?.store(vector, Ordering::Relaxed);
        io::program(line, vector, destination(irq), true).then_some(irq)
    }

    fn allocate_msi(&self) -> Option<PhysIrq> {
        let first = self.nr_lines();
        let mut allocator = ALLOCATOR.lock();
        let number = (first..first + MAX_MSIS as u32).find(|n| vector_of(PhysIrq(*n)).is_none())?;
        let vector = allocator.allocate()?;
        OWNERS[usize::from(vector)].store(owner_word(PhysIrq(number), false), Ordering::Relaxed);
        VECTORS.get(number as usize)?.store(vector, Ordering::Relaxed);
        DESTINATIONS.get(number as usize)?.store(0, Ordering::Relaxed);
        Some(PhysIrq(number))
    }

    fn set_destination(&self, irq: PhysIrq, cpu: CpuId) -> bool {
        // Devices have 8 bits for an APIC id, the last of which means all CPUs.
        let id = crate::MACHINE.cpu_identity(cpu).and_then(|(apic_id, _)| u8::try_from(apic_id).ok()).filter(|&id| id != 0xff);
        let (Some(id), Some(slot)) = (id, DESTINATIONS.get(irq.0 as usize)) else { return false };
        if vector_of(irq).is_none() {
            return false;
        }
        slot.store(u16::from(id) + 1, Ordering::Relaxed);
        if irq.0 < self.nr_lines() {
            io::set_destination(irq.0, id);
        }
        true
    }

    fn free_msi(&self, irq: PhysIrq) {
        if irq.0 < self.nr_lines() {
            return;
        }
        let mut allocator = ALLOCATOR.lock();
        let vector = VECTORS.get(irq.0 as usize).map_or(0, |v| v.swap(0, Ordering::Relaxed));
        if vector != 0 {
            OWNERS[usize::from(vector)].store(0, Ordering::Relaxed);
            allocator.free(vector);
        }
    }

    fn msi_message(&self, irq: PhysIrq) -> Option<MsiMessage> {
        if irq.0 < self.nr_lines() {
            return None;
        }
        vector_of(irq).map(|vector| redirection::msi_message(vector, destination(irq)))
    }

    fn vector(&self, irq: PhysIrq) -> Option<u8> {
        vector_of(irq)
    }

    fn set_line_mask(&self, irq: PhysIrq, masked: bool) {
        if irq.0 < self.nr_lines() && vector_of(irq).is_some() {
            io::set_mask(irq.0, masked);
        }
    }

    fn is_level(&self, irq: PhysIrq) -> bool {
        vector_of(irq).is_some_and(|v| OWNERS[usize::from(v)].load(Ordering::Relaxed) & LEVEL_LINE != 0)
    }
}
