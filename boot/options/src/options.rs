//! The values that a command line sets.

use crate::dom0::{Dom0Mem, Dom0Vcpus};
use crate::serial::ComPort;
use alloc::string::String;

/// How serious a message is; each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing.
    None,
    /// Errors.
    Error,
    /// Warnings.
    Warning,
    /// Information.
    Info,
    /// Everything.
    Debug,
}

/// Which messages are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogThreshold {
    /// Up to this level always.
    pub always: LogLevel,
    /// Up to this level at a limited rate; at least `always`.
    pub rate_limited: LogLevel,
}

impl LogThreshold {
    /// Reads `<level>[/<rate-limited level>]`.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let level = |text: &str| match text {
            "none" => Some(LogLevel::None),
            "error" => Some(LogLevel::Error),
            "warning" => Some(LogLevel::Warning),
            "info" => Some(LogLevel::Info),
            "debug" | "all" => Some(LogLevel::Debug),
            _ => None,
        };
        let (always, limited) = text.split_once('/').unwrap_or((text, text));
        let (always, limited) = (level(always)?, level(limited)?);
        Some(Self {
            always,
            rate_limited: limited.max(always),
        })
    }
}

/// Where the hypervisor's messages go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsoleSet {
    /// The first serial port.
    pub com1: bool,
    /// The second serial port.
    pub com2: bool,
    /// The screen.
    pub vga: bool,
}

impl ConsoleSet {
    /// Reads a list of `com1`, `com2`, `vga`, `none`; later items add to earlier ones, `none` starts over.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut set = Self::default();
        for item in text.split(',') {
            match item {
                "com1" => set.com1 = true,
                "com2" => set.com2 = true,
                "vga" => set.vga = true,
                "none" => set = Self::default(),
                _ => return None,
            }
        }
        Some(set)
    }
}

/// The clock by which the time stamp counter is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockSource {
    /// None in particular.
    Tsc,
    /// The high-precision event timer.
    Hpet,
    /// The ACPI power-management timer.
    Acpi,
    /// The 8254 timer.
    Pit,
}

/// Everything that the command line can set, with the defaults where it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `dom0_mem=`
    pub dom0_mem: Dom0Mem,
    /// `dom0_max_vcpus=`
    pub dom0_max_vcpus: Dom0Vcpus,
    /// `dom0_vcpus_pin`
    pub dom0_vcpus_pin: bool,
    /// `com1=`; `None` for the port's usual settings.
    pub com1: Option<ComPort>,
    /// `com2=`; `None` for the port's usual settings.
    pub com2: Option<ComPort>,
    /// `console=`
    pub console: ConsoleSet,
    /// `loglvl=`
    pub loglvl: LogThreshold,
    /// `guest_loglvl=`
    pub guest_loglvl: LogThreshold,
    /// `conring_size=`, in bytes.
    pub conring_len_bytes: u64,
    /// `vga=keep`
    pub vga_keep: bool,
    /// `noreboot`
    pub noreboot: bool,
    /// `maxcpus=`; `None` for all.
    pub maxcpus: Option<u32>,
    /// `nosmp`
    pub nosmp: bool,
    /// `x2apic=`
    pub x2apic: bool,
    /// `smep=`
    pub smep: bool,
    /// `smap=`
    pub smap: bool,
    /// `clocksource=`; `None` for the best there is.
    pub clocksource: Option<ClockSource>,
    /// `sched_credit_tslice_ms=`
    pub sched_credit_tslice_ms: u32,
    /// `sched_ratelimit_us=`
    pub sched_ratelimit_us: u32,
    /// What follows ` -- `: appended to the kernel command line of domain 0.
    pub dom0_args: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dom0_mem: Dom0Mem::default(),
            dom0_max_vcpus: Dom0Vcpus::default(),
            dom0_vcpus_pin: false,
            com1: None,
            com2: None,
            console: ConsoleSet {
                com1: true,
                com2: false,
                vga: true,
            },
            loglvl: LogThreshold {
                always: LogLevel::Info,
                rate_limited: LogLevel::Info,
            },
            guest_loglvl: LogThreshold {
                always: LogLevel::None,
                rate_limited: LogLevel::Warning,
            },
            conring_len_bytes: 1 << 20,
            vga_keep: false,
            noreboot: false,
            maxcpus: None,
            nosmp: false,
            x2apic: true,
            smep: true,
            smap: true,
            clocksource: None,
            sched_credit_tslice_ms: 30,
            sched_ratelimit_us: 1000,
            dom0_args: String::new(),
        }
    }
}
