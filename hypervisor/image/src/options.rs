//! From the command line's options to what the machine wants to know.

use oxen_machine::boot::EarlyOptions;
use oxen_machine::console::{ConsoleSettings, Parity, SerialSettings};
use oxen_core::console::GuestLines;
use oxen_machine::time::ReferenceClock;
use oxen_options::{ClockSource, ComPort, LogLevel, Options};

/// Bytes of the heap's first part; it grows by itself.
const HEAP_BYTES: u64 = 1 << 20;

/// The options that the machine needs before anything else.
pub fn early(options: &Options) -> EarlyOptions {
    EarlyOptions {
        console: ConsoleSettings {
            com1: options.console.com1.then(|| serial(SerialSettings::COM1, options.com1)),
            com2: options.console.com2.then(|| serial(SerialSettings::COM2, options.com2)),
            screen: options.console.vga,
        },
        no_reboot: options.noreboot,
        max_cpus: if options.nosmp { 1 } else { options.maxcpus.unwrap_or(u32::MAX).max(1) },
        x2apic: options.x2apic,
        smep: options.smep,
        smap: options.smap,
        informative: options.loglvl.always >= LogLevel::Info,
        clock: match options.clocksource {
            None | Some(ClockSource::Tsc) => None,
            Some(ClockSource::Hpet) => Some(ReferenceClock::Hpet),
            Some(ClockSource::Acpi) => Some(ReferenceClock::Pm),
            Some(ClockSource::Pit) => Some(ReferenceClock::Pit),
        },
        console_ring_bytes: options.conring_len_bytes + oxen_core::console::RING_HEADER_BYTES as u64,
        heap_bytes: HEAP_BYTES,
        ..EarlyOptions::default()
    }
}

/// What becomes of lines that guests cause, which are warnings.
pub fn guest_lines(options: &Options) -> GuestLines {
    if options.guest_loglvl.always >= LogLevel::Warning {
        GuestLines::All
    } else if options.guest_loglvl.rate_limited >= LogLevel::Warning {
        GuestLines::Limited
    } else {
        GuestLines::None
    }
}

fn serial(usual: SerialSettings, wanted: Option<ComPort>) -> SerialSettings {
    let Some(port) = wanted else { return usual };
    SerialSettings {
        port: port.io_base.unwrap_or(usual.port),
        baud: port.baud.unwrap_or(0),
        data_bits: port.data_bits,
        parity: match port.parity {
            oxen_options::Parity::None => Parity::None,
            oxen_options::Parity::Odd => Parity::Odd,
            oxen_options::Parity::Even => Parity::Even,
            oxen_options::Parity::Mark => Parity::Mark,
            oxen_options::Parity::Space => Parity::Space,
        },
        stop_bits: port.stop_bits,
        isa_irq: match port.irq {
            Some(0) => None,
            Some(irq) => Some(irq),
            None => usual.isa_irq,
        },
    }
}
