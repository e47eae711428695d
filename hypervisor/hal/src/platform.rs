//! Clocks, the console, PCI configuration space, power.

/// Time.
pub trait Clock {
    /// System time: nanoseconds since the machine's clock was started, the same on all CPUs.
    fn now_ns(&self) -> u64;

    /// The time stamp counter.
    fn tsc(&self) -> u64;

    /// TSC frequency in kHz.
    fn tsc_khz(&self) -> u64;

    /// System time in nanoseconds at a TSC value of this machine.
    fn tsc_to_ns(&self, tsc: u64) -> u64;

    /// The pair (multiplier, shift) by which guests turn TSC differences into nanoseconds (public header `xen.h`, `struct vcpu_time_info`).
    fn tsc_scale(&self) -> (u32, i8);

    /// True where the TSC runs at one rate, in step on all CPUs.
    fn tsc_is_stable(&self) -> bool;

    /// Arms the calling CPU's timer for a system time in nanoseconds; `None` disarms it. A time in the past fires at once.
    fn set_deadline(&self, deadline_ns: Option<u64>);

    /// Time of day at system time 0.
    fn wall_clock_at_zero(&self) -> WallClock;

    /// Changes the time of day (dom0 keeps it by NTP).
    fn set_wall_clock_at_zero(&self, clock: WallClock);
}

/// A time of day: seconds and nanoseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct WallClock {
    /// Seconds.
    pub secs: u64,
    /// Nanoseconds, below 10^9.
    pub nanos: u32,
}

/// The console devices (serial ports and screen). The ring that `xm dmesg` reads is kept by `core`.
pub trait Console {
    /// Writes bytes to the devices; `\n` is sent as the device needs it.
    fn console_write(&self, text: &[u8]);

    /// The next byte received from the serial port.
    fn console_read(&self) -> Option<u8>;
}

/// A PCI function: segment, bus, device and function (`devfn = device << 3 | function`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub struct PciAddress {
    pub segment: u16,
    pub bus: u8,
    pub devfn: u8,
}

/// What to do with the machine's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerAction {
    /// Restart.
    Reboot,
    /// Switch off (ACPI S5).
    PowerOff,
    /// Enter an ACPI sleep state with the values that dom0 took from its own tables: SLP_TYP fields for PM1a and PM1b control and the state's number.
    Sleep {
        /// Value for PM1a_CNT.
        pm1a: u16,
        /// Value for PM1b_CNT.
        pm1b: u16,
        /// Sleep state, 1 to 5.
        state: u8,
    },
}

/// The platform around the processors.
pub trait Platform {
    /// Reads PCI configuration space; `bytes` is 1, 2 or 4 and `offset` a multiple of it. Absent functions read as all ones.
    fn pci_read(&self, function: PciAddress, offset: u16, bytes: u8) -> u32;

    /// Writes PCI configuration space.
    fn pci_write(&self, function: PciAddress, offset: u16, bytes: u8, value: u32);

    /// Writes an aligned 32-bit register of a device: the MSI-X table of a function that dom0 drives.
    fn mmio_write(&self, at: oxen_types::Maddr, value: u32);

    /// The frames of an MMIO range are to be left to the hypervisor: the local APICs, the I/O APICs, the HPET where it is the clock.
    fn is_hypervisor_mmio(&self, mfn: oxen_types::Mfn) -> bool;

    /// The I/O ports that the hypervisor keeps for itself (its serial port).
    fn is_hypervisor_port(&self, port: u16) -> bool;

    /// Port of the ACPI PM timer and of PM1a/PM1b control, where the tables name them.
    fn acpi_pm1_control(&self) -> Option<(u16, Option<u16>)>;

    /// Machine address of the ACPI root pointer.
    fn acpi_rsdp(&self) -> Option<oxen_types::Maddr>;

    /// Carries out a power action; returns only where the machine refuses.
    fn power(&self, action: PowerAction);
}
