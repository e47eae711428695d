//! The platform around the processors: PCI configuration space, power, and what of it belongs to the hypervisor.

pub(crate) mod pci;
mod power;

use crate::acpi::{self, LoaderHints};
use crate::apic::{io, local, pic};
use crate::boot::BootInfo;
use crate::{X86, interrupts, smp, time, tlb, window};
use core::sync::atomic::{AtomicU16, Ordering};
use oxen_hal::{PciAddress, Platform, PowerAction};
use oxen_types::{CpuId, Maddr, Mfn};

pub use power::reboot;

/// First ports of the serial ports that the hypervisor uses; 0 for none.
static SERIAL_PORTS: [AtomicU16; 2] = [const { AtomicU16::new(0) }; 2];
const SERIAL_PORT_COUNT: u16 = 8;

/// Frames to which message-signalled interrupts are written; the local APICs' registers are the first of them.
const MSI_FRAMES: core::ops::RangeInclusive<u64> = 0xf_ee00..=0xf_eeff;

/// Ports of the legacy interrupt controllers and of the legacy timer's counters.
const LEGACY_PORTS: [core::ops::RangeInclusive<u16>; 4] = [0x20..=0x21, 0x40..=0x43, 0xa0..=0xa1, 0x4d0..=0x4d1];

/// Keeps the eight ports from `first` on for the hypervisor's console; `index` is 0 or 1.
fn keep_serial_ports(index: usize, first: u16) {
    if let Some(slot) = SERIAL_PORTS.get(index) {
        slot.store(first, Ordering::Relaxed);
    }
}

/// Starts everything around the boot CPU: firmware tables, interrupt controllers, clock, PCI configuration space; prepares the areas of the other CPUs. Memory,
/// paging and console are ready, interrupts are off, and the early allocator is open.
///
/// Without usable ACPI tables this ends in a report: there is no other way to the processors and interrupt controllers.
pub(crate) fn start(info: &BootInfo) {
    let hints = LoaderHints { root_pointer_copy: info.rsdp, efi_system_table: info.efi_system_table.map(Maddr) };
    let tables = acpi::init(hints).unwrap_or_else(|error| {
        crate::fatal::cannot_go_on(format_args!(
            "Oxen cannot start: {error}. It finds processors and interrupt controllers by the firmware's ACPI tables; switch ACPI on in the firmware's set-up."
        ))
    });
    window::init(tables.madt.local_apic);
    pic::disable();
    local::init_boot_cpu(tables.madt.local_apic, info.options.x2apic);
    let nr_cpus = smp::init(tables, info.options.max_cpus);
    interrupts::init(tables);
    pci::init(&tables.mmcfg);
    time::init(tables, info.options.clock);
    tlb::init();
    for cpu in 1..nr_cpus {
        crate::cpu::prepare(CpuId(cpu));
    }
    for (index, port) in [info.options.console.com1, info.options.console.com2].into_iter().enumerate() {
        let Some(settings) = port else { continue };
        keep_serial_ports(index, settings.port);
        if let Some(isa_irq) = settings.isa_irq {
            interrupts::open_serial_line(index, isa_irq);
        }
    }
    crate::fatal::set_stop_others(smp::stop_others);
    crate::fatal::set_reboot(|| reboot());
}

impl Platform for X86 {
    fn pci_read(&self, function: PciAddress, offset: u16, bytes: u8) -> u32 {
        pci::read(function, offset, bytes)
    }

    fn pci_write(&self, function: PciAddress, offset: u16, bytes: u8, value: u32) {
        pci::write(function, offset, bytes, value);
    }

    fn mmio_write(&self, at: Maddr, value: u32) {
        window::write_u32(at, value);
    }

    fn is_hypervisor_mmio(&self, mfn: Mfn) -> bool {
        let local = acpi::tables().is_some_and(|t| t.madt.local_apic.mfn() == mfn);
        // The HPET serves for calibration only and is dom0's afterwards.
        local || MSI_FRAMES.contains(&mfn.0) || io::owns_frame(mfn)
    }

    fn is_hypervisor_port(&self, port: u16) -> bool {
        let serial = SERIAL_PORTS.iter().map(|p| p.load(Ordering::Relaxed)).filter(|first| *first != 0);
        LEGACY_PORTS.iter().any(|ports| ports.contains(&port))
            || serial.into_iter().any(|first| port.checked_sub(first).is_some_and(|n| n < SERIAL_PORT_COUNT))
    }

    fn acpi_pm1_control(&self) -> Option<(u16, Option<u16>)> {
        let fadt = acpi::tables()?.fadt;
        fadt.pm1a_control.map(|a| (a, fadt.pm1b_control))
    }

    fn acpi_rsdp(&self) -> Option<Maddr> {
        acpi::tables()?.root_pointer
    }

    fn power(&self, action: PowerAction) {
        match action {
            PowerAction::Reboot => reboot(),
            PowerAction::PowerOff => match power::s5_values() {
                Some((a, b)) => power::enter_sleep(a, b),
                None => crate::log!("The firmware's tables do not say how to switch the machine off"),
            },
            PowerAction::Sleep { pm1a, pm1b, state: 5 } => power::enter_sleep(pm1a, pm1b),
            PowerAction::Sleep { state, .. } => crate::log!("ACPI sleep state S{state} is not supported; the machine keeps running"),
        }
    }
}
