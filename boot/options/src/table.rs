//! The table of options.

use crate::dom0::{Dom0Mem, Dom0Vcpus};
use crate::options::{ClockSource, ConsoleSet, LogThreshold, Options};
use crate::serial::ComPort;
use crate::value;

/// How an option's value is read and stored.
#[derive(Clone, Copy)]
pub(crate) enum Setter {
    /// A truth value: `name`, `no-name` or `name=<boolean>`.
    Switch(fn(&mut Options, bool)),
    /// The bare name, which asks for what is so anyway.
    Bare,
    /// Any other value; `None` where the text is none that the option knows.
    Value(fn(&mut Options, &str) -> Option<()>),
}

/// One option.
pub struct OptionSpec {
    /// Its name, as on the command line.
    pub name: &'static str,
    /// What its value may be; empty for switches.
    pub syntax: &'static str,
    /// What holds where it is not given.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
    pub(crate) setter: Setter,
}

/// What a switch's value may be.
pub(crate) const SWITCH_SYNTAX: &str = "<boolean>";

const COM_SYNTAX: &str = "<baud>|auto[/1843200][,<data><parity><stop>[,<io-base>[,<irq>]]]";
const LEVEL_SYNTAX: &str =
    "<level>[/<rate-limited level>] of none, error, warning, info, debug, all";

/// Every option, in the order of the documentation.
pub static TABLE: &[OptionSpec] = &[
    OptionSpec {
        name: "dom0_mem",
        syntax: "<amount>[,min:<amount>][,max:<amount>]",
        default: "a quarter of the memory, at least 1 GiB, at most 4 GiB",
        help: "Memory of domain 0. An amount is a size with suffix B, K, M, G or T (K where there is none), a percentage of the machine's \
               memory such as `25%`, or both, `512M+10%`. A minus sign in front means all memory but that amount. `max:` also bounds \
               later growth. Domain 0 gets what is free where it asks for more.",
        setter: Setter::Value(|options, text| set(&mut options.dom0_mem, Dom0Mem::read(text))),
    },
    OptionSpec {
        name: "dom0_max_vcpus",
        syntax: "<n>|<min>-<max>|<min>-|-<max>",
        default: "one for each processor",
        help: "Number of domain 0's vCPUs, or bounds for it.",
        setter: Setter::Value(|options, text| {
            set(&mut options.dom0_max_vcpus, Dom0Vcpus::read(text))
        }),
    },
    OptionSpec {
        name: "dom0_vcpus_pin",
        syntax: "",
        default: "off",
        help: "Binds each vCPU of domain 0 to the processor of the same number.",
        setter: Setter::Switch(|options, on| options.dom0_vcpus_pin = on),
    },
    OptionSpec {
        name: "com1",
        syntax: COM_SYNTAX,
        default: "115200,8n1,0x3f8,4",
        help: "How to drive the first serial port, where `console` names it. `auto` keeps the rate that the firmware set. Parts may be left \
               empty. Interrupt 0 means polling. A UART with another clock than 1843200 Hz is not supported.",
        setter: Setter::Value(|options, text| {
            set(&mut options.com1, ComPort::read(text).map(Some))
        }),
    },
    OptionSpec {
        name: "com2",
        syntax: COM_SYNTAX,
        default: "115200,8n1,0x2f8,3",
        help: "As `com1`, for the second serial port.",
        setter: Setter::Value(|options, text| {
            set(&mut options.com2, ComPort::read(text).map(Some))
        }),
    },
    OptionSpec {
        name: "console",
        syntax: "<list of com1, com2, vga, none>",
        default: "com1,vga",
        help: "Where the hypervisor's messages go, and where its console input comes from.",
        setter: Setter::Value(|options, text| set(&mut options.console, ConsoleSet::read(text))),
    },
    OptionSpec {
        name: "loglvl",
        syntax: LEVEL_SYNTAX,
        default: "info",
        help: "Which of the hypervisor's own messages are shown: from `info` on also those that only inform, such as what was found of the \
               hardware. Warnings and what is worse are always shown, and none of these messages comes often enough to limit its rate.",
        setter: Setter::Value(|options, text| set(&mut options.loglvl, LogThreshold::read(text))),
    },
    OptionSpec {
        name: "guest_loglvl",
        syntax: LEVEL_SYNTAX,
        default: "none/warning",
        help: "Whether messages that guests can cause at will, all of level `warning`, are shown: always where the first level includes them, \
               at a limited rate where the second does, else not. Why a guest ended is always shown.",
        setter: Setter::Value(|options, text| {
            set(&mut options.guest_loglvl, LogThreshold::read(text))
        }),
    },
    OptionSpec {
        name: "conring_size",
        syntax: "<size>",
        default: "1M",
        help: "Size of the ring that keeps messages for `xm dmesg`; rounded up to a power of two, at least 1 MiB, at most 64 MiB.",
        setter: Setter::Value(|options, text| {
            set(
                &mut options.conring_len_bytes,
                value::size(text).and_then(conring_len),
            )
        }),
    },
    OptionSpec {
        name: "sync_console",
        syntax: "",
        default: "",
        help: "Every message is written out before the hypervisor goes on; it is always so.",
        setter: Setter::Bare,
    },
    OptionSpec {
        name: "vga",
        syntax: "current|keep|current,keep",
        default: "current",
        help: "The screen mode is the one that the boot loader set (in GRUB: `gfxpayload`). `keep` goes on writing to the screen after \
               domain 0 has taken it.",
        setter: Setter::Value(|options, text| set(&mut options.vga_keep, vga_keep(text))),
    },
    OptionSpec {
        name: "noreboot",
        syntax: "",
        default: "off",
        help: "Stops the machine after a fatal error, instead of rebooting it after five seconds.",
        setter: Setter::Switch(|options, on| options.noreboot = on),
    },
    OptionSpec {
        name: "maxcpus",
        syntax: "<n>",
        default: "all",
        help: "Starts at most this many processors.",
        setter: Setter::Value(|options, text| {
            let n = u32::try_from(value::number(text)?)
                .ok()
                .filter(|n| *n != 0)?;
            set(&mut options.maxcpus, Some(Some(n)))
        }),
    },
    OptionSpec {
        name: "nosmp",
        syntax: "",
        default: "off",
        help: "Starts only the boot processor.",
        setter: Setter::Switch(|options, on| options.nosmp = on),
    },
    OptionSpec {
        name: "sched",
        syntax: "credit",
        default: "credit",
        help: "The scheduler. There is one.",
        setter: Setter::Value(|_, text| (text == "credit").then_some(())),
    },
    OptionSpec {
        name: "sched_credit_tslice_ms",
        syntax: "<n>",
        default: "30",
        help: "Time slice of the scheduler in milliseconds, 1 to 1000.",
        setter: Setter::Value(|options, text| {
            set(&mut options.sched_credit_tslice_ms, number_in(text, 1..=1000))
        }),
    },
    OptionSpec {
        name: "sched_ratelimit_us",
        syntax: "<n>",
        default: "1000",
        help: "How long a vCPU runs at least, in microseconds, before one that woke up takes its place: 100 to 500000, or 0 for no such time.",
        setter: Setter::Value(|options, text| {
            let wanted = number_in(text, 0..=0).or_else(|| number_in(text, 100..=500_000));
            set(&mut options.sched_ratelimit_us, wanted)
        }),
    },
    OptionSpec {
        name: "lapic",
        syntax: "",
        default: "on",
        help: "Uses the local APIC even where the firmware left it off, which is done anyway: it cannot be switched off.",
        setter: Setter::Bare,
    },
    OptionSpec {
        name: "x2apic",
        syntax: "",
        default: "on",
        help: "Uses the local APIC's x2APIC mode where the processor has it.",
        setter: Setter::Switch(|options, on| options.x2apic = on),
    },
    OptionSpec {
        name: "smep",
        syntax: "",
        default: "on",
        help: "Uses supervisor-mode execution prevention where the processor has it.",
        setter: Setter::Switch(|options, on| options.smep = on),
    },
    OptionSpec {
        name: "smap",
        syntax: "",
        default: "on",
        help: "Uses supervisor-mode access prevention where the processor has it.",
        setter: Setter::Switch(|options, on| options.smap = on),
    },
    OptionSpec {
        name: "clocksource",
        syntax: "tsc|hpet|acpi|pit",
        default: "the best there is",
        help: "The clock against which the rate of the time stamp counter, which keeps the time, is measured. `tsc` leaves the choice to the \
               hypervisor, and so does a clock that the machine does not have, which is then reported.",
        setter: Setter::Value(|options, text| {
            set(&mut options.clocksource, clocksource(text).map(Some))
        }),
    },
    OptionSpec {
        name: "noirqbalance",
        syntax: "",
        default: "",
        help: "Interrupts go to the processor on which the vCPU runs that they are bound to, and nothing else moves them; it is always so.",
        setter: Setter::Bare,
    },
];

/// Stores a value that could be read.
fn set<T>(place: &mut T, value: Option<T>) -> Option<()> {
    *place = value?;
    Some(())
}

fn number_in(text: &str, range: core::ops::RangeInclusive<u32>) -> Option<u32> {
    u32::try_from(value::number(text)?).ok().filter(|n| range.contains(n))
}

fn conring_len(len: u64) -> Option<u64> {
    len.checked_next_power_of_two()
        .map(|len| len.max(1 << 20))
        .filter(|len| *len <= 64 << 20)
}

fn vga_keep(text: &str) -> Option<bool> {
    match text {
        "current" => Some(false),
        "keep" | "current,keep" => Some(true),
        _ => None,
    }
}

fn clocksource(text: &str) -> Option<ClockSource> {
    match text {
        "tsc" => Some(ClockSource::Tsc),
        "hpet" => Some(ClockSource::Hpet),
        "acpi" => Some(ClockSource::Acpi),
        "pit" => Some(ClockSource::Pit),
        _ => None,
    }
}
