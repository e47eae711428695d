//! Physical interrupts.

use oxen_types::CpuId;

/// A physical interrupt source with a vector of its own: an I/O APIC line or an allocated MSI. The number is the machine's own, dense from 0; lines come
/// first and have the number of their GSI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysIrq(pub u32);

/// How a line signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineTrigger {
    /// On the edge.
    Edge,
    /// For as long as the level is active.
    Level,
}

/// Which level of a line is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinePolarity {
    /// Active high.
    High,
    /// Active low.
    Low,
}

/// A line of an I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrqLine {
    /// Global system interrupt number.
    pub gsi: u32,
    /// Trigger mode.
    pub trigger: LineTrigger,
    /// Polarity.
    pub polarity: LinePolarity,
}

/// The two words that a device writes to raise an MSI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiMessage {
    /// Address (Intel SDM vol. 3, "Message Signalled Interrupts").
    pub address: u64,
    /// Data.
    pub data: u32,
}

/// What an interrupt means to the logic, once the machine has acknowledged it and dealt with what is its own (TLB flush requests, spurious vectors).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// The machine dealt with it.
    Nothing,
    /// The calling CPU's timer reached its deadline.
    Timer,
    /// Another CPU wants this one to look at its pending work.
    Kick,
    /// The serial port has input.
    ConsoleInput,
    /// A device's interrupt. A level-triggered line is masked until it is opened again.
    Device(PhysIrq),
}

/// The interrupt controllers.
pub trait Interrupts {
    /// Acknowledges the interrupt that entered with `vector` (32 to 255) and says what it means.
    fn acknowledge(&self, vector: u8) -> Arrived;

    /// Number of lines that the I/O APICs have.
    fn nr_lines(&self) -> u32;

    /// The line that carries a legacy ISA interrupt (ACPI interrupt source overrides applied).
    fn isa_line(&self, isa: u8) -> IrqLine;

    /// Programs a line, masked, with a vector; a new one goes to the boot CPU. Doing it again with other settings changes them. `None` where there is no such line or no vector is left.
    fn setup_line(&self, line: IrqLine) -> Option<PhysIrq>;

    /// Takes a vector for one MSI. `None` where none is left.
    fn allocate_msi(&self) -> Option<PhysIrq>;

    /// Has an interrupt delivered to another CPU. A line is programmed at once; an MSI's new message ([`Interrupts::msi_message`]), which differs in the low half
    /// of the address only, is for the caller to write. `false`, with nothing changed, where devices cannot reach that CPU.
    fn set_destination(&self, irq: PhysIrq, cpu: CpuId) -> bool;

    /// Gives an MSI's vector back; the device no longer sends it.
    fn free_msi(&self, irq: PhysIrq);

    /// The message that makes `irq` (an MSI) arrive.
    fn msi_message(&self, irq: PhysIrq) -> Option<MsiMessage>;

    /// The vector of an interrupt, for reports.
    fn vector(&self, irq: PhysIrq) -> Option<u8>;

    /// Opens or closes a line. No effect on MSIs, which are masked in the device.
    fn set_line_mask(&self, irq: PhysIrq, masked: bool);

    /// True where the interrupt is a level-triggered line: it is kept masked from delivery until the guest says that it has dealt with it.
    fn is_level(&self, irq: PhysIrq) -> bool;
}
