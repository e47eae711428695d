//! Interrupt controllers, the console, PCI, power.

use crate::{Event, FakeMachine, lock};
use oxen_hal::{
    Arrived, Console, Interrupts, IrqLine, LinePolarity, LineTrigger, MsiMessage, PciAddress, PhysIrq, Platform, PowerAction, WallClock,
};
use oxen_types::{CpuId, Maddr, Mfn};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Vectors that devices may get.
const FIRST_VECTOR: u8 = 0x30;
const LAST_VECTOR: u8 = 0xdf;

/// The state of what is outside the processors.
#[derive(Debug)]
pub(crate) struct Devices {
    pub cpuid: BTreeMap<(u32, u32), [u32; 4]>,
    pub ports: BTreeMap<u16, u32>,
    pub wall_clock: WallClock,
    lines: u32,
    routes: BTreeMap<PhysIrq, Route>,
    arriving: BTreeMap<u8, Arrived>,
    console_out: Vec<u8>,
    console_in: VecDeque<u8>,
    pci: BTreeMap<(PciAddress, u16), u32>,
    hypervisor_mmio: BTreeSet<u64>,
    hypervisor_ports: BTreeSet<u16>,
}

/// How one interrupt is set up.
#[derive(Clone, Copy, Debug)]
struct Route {
    vector: u8,
    level: bool,
    msi: bool,
    masked: bool,
    cpu: CpuId,
}

impl Devices {
    pub fn new(lines: u32) -> Self {
        Self {
            cpuid: BTreeMap::new(),
            ports: BTreeMap::new(),
            wall_clock: WallClock { secs: 1_700_000_000, nanos: 0 },
            lines,
            routes: BTreeMap::new(),
            arriving: BTreeMap::new(),
            console_out: Vec::new(),
            console_in: VecDeque::new(),
            pci: BTreeMap::new(),
            hypervisor_mmio: BTreeSet::new(),
            hypervisor_ports: BTreeSet::new(),
        }
    }

    fn free_vector(&self) -> Option<u8> {
        (FIRST_VECTOR..=LAST_VECTOR).find(|v| !self.routes.values().any(|r| r.vector == *v))
    }
}

impl FakeMachine {
    /// What the processor answers to CPUID; all other leaves are 0.
    pub fn set_cpuid(&self, leaf: u32, subleaf: u32, registers: [u32; 4]) {
        lock(&self.devices).cpuid.insert((leaf, subleaf), registers);
    }

    /// What reading a port gives; all others give ones.
    pub fn set_port(&self, port: u16, value: u32) {
        lock(&self.devices).ports.insert(port, value);
    }

    /// What the next acknowledgement of `vector` says. Without, set-up interrupts arrive as themselves.
    pub fn set_arrival(&self, vector: u8, arrived: Arrived) {
        lock(&self.devices).arriving.insert(vector, arrived);
    }

    /// The processor to which the interrupt goes.
    #[must_use]
    pub fn destination(&self, irq: PhysIrq) -> Option<CpuId> {
        lock(&self.devices).routes.get(&irq).map(|route| route.cpu)
    }

    /// Whether the interrupt is masked.
    #[must_use]
    pub fn is_masked(&self, irq: PhysIrq) -> bool {
        lock(&self.devices).routes.get(&irq).is_none_or(|r| r.masked)
    }

    /// Everything written to the console since the last call.
    pub fn take_console(&self) -> Vec<u8> {
        std::mem::take(&mut lock(&self.devices).console_out)
    }

    /// Bytes that the serial port receives.
    pub fn type_on_console(&self, bytes: &[u8]) {
        lock(&self.devices).console_in.extend(bytes);
    }

    /// A word of PCI configuration space; functions without any word are absent.
    pub fn set_pci(&self, function: PciAddress, offset: u16, value: u32) {
        lock(&self.devices).pci.insert((function, offset & !3), value);
    }

    /// A frame of device memory that the hypervisor keeps.
    pub fn keep_mmio(&self, mfn: Mfn) {
        lock(&self.devices).hypervisor_mmio.insert(mfn.0);
    }

    /// A port that the hypervisor keeps.
    pub fn keep_port(&self, port: u16) {
        lock(&self.devices).hypervisor_ports.insert(port);
    }
}

impl Interrupts for FakeMachine {
    fn acknowledge(&self, vector: u8) -> Arrived {
        let mut devices = lock(&self.devices);
        if let Some(arrived) = devices.arriving.remove(&vector) {
            return arrived;
        }
        for (irq, route) in &mut devices.routes {
            if route.vector == vector && !route.masked {
                route.masked = route.level;
                return Arrived::Device(*irq);
            }
        }
        Arrived::Nothing
    }

    fn nr_lines(&self) -> u32 {
        lock(&self.devices).lines
    }

    fn isa_line(&self, isa: u8) -> IrqLine {
        // As on PCs: the timer is on line 2, the ACPI interrupt is level-triggered.
        let gsi = if isa == 0 { 2 } else { u32::from(isa) };
        let trigger = if isa == 9 { LineTrigger::Level } else { LineTrigger::Edge };
        IrqLine { gsi, trigger, polarity: LinePolarity::High }
    }

    fn setup_line(&self, line: IrqLine) -> Option<PhysIrq> {
        let mut devices = lock(&self.devices);
        if line.gsi >= devices.lines {
            return None;
        }
        let irq = PhysIrq(line.gsi);
        let vector = match devices.routes.get(&irq) {
            Some(route) => route.vector,
            None => devices.free_vector()?,
        };
        let level = line.trigger == LineTrigger::Level;
        devices.routes.insert(irq, Route { vector, level, msi: false, masked: true, cpu: CpuId(0) });
        Some(irq)
    }

    fn allocate_msi(&self) -> Option<PhysIrq> {
        let mut devices = lock(&self.devices);
        let vector = devices.free_vector()?;
        let first = devices.lines;
        let irq = (first..).map(PhysIrq).find(|irq| !devices.routes.contains_key(irq))?;
        devices.routes.insert(irq, Route { vector, level: false, msi: true, masked: false, cpu: CpuId(0) });
        Some(irq)
    }

    fn set_destination(&self, irq: PhysIrq, cpu: CpuId) -> bool {
        lock(&self.devices).routes.get_mut(&irq).map(|route| route.cpu = cpu).is_some()
    }

    fn free_msi(&self, irq: PhysIrq) {
        let mut devices = lock(&self.devices);
        let route = devices.routes.remove(&irq);
        assert!(route.is_some_and(|r| r.msi), "{irq:?} is no MSI");
    }

    fn msi_message(&self, irq: PhysIrq) -> Option<MsiMessage> {
        let devices = lock(&self.devices);
        let route = devices.routes.get(&irq).filter(|r| r.msi)?;
        Some(MsiMessage { address: 0xfee0_0000 | u64::from(route.cpu.0) << 12, data: u32::from(route.vector) })
    }

    fn vector(&self, irq: PhysIrq) -> Option<u8> {
        Some(lock(&self.devices).routes.get(&irq)?.vector)
    }

    fn set_line_mask(&self, irq: PhysIrq, masked: bool) {
        if let Some(route) = lock(&self.devices).routes.get_mut(&irq).filter(|r| !r.msi) {
            route.masked = masked;
        }
    }

    fn is_level(&self, irq: PhysIrq) -> bool {
        lock(&self.devices).routes.get(&irq).is_some_and(|r| r.level)
    }
}

impl Console for FakeMachine {
    fn console_write(&self, text: &[u8]) {
        lock(&self.devices).console_out.extend_from_slice(text);
    }

    fn console_read(&self) -> Option<u8> {
        lock(&self.devices).console_in.pop_front()
    }
}

impl Platform for FakeMachine {
    fn pci_read(&self, function: PciAddress, offset: u16, bytes: u8) -> u32 {
        let devices = lock(&self.devices);
        if !devices.pci.keys().any(|(f, _)| *f == function) {
            return u32::MAX >> (32 - 8 * u32::from(bytes.clamp(1, 4)));
        }
        let word = devices.pci.get(&(function, offset & !3)).copied().unwrap_or(0);
        let shifted = word >> (8 * u32::from(offset & 3));
        shifted & u32::MAX >> (32 - 8 * u32::from(bytes.clamp(1, 4)))
    }

    fn pci_write(&self, function: PciAddress, offset: u16, bytes: u8, value: u32) {
        let mut devices = lock(&self.devices);
        let shift = 8 * u32::from(offset & 3);
        let mask = (u32::MAX >> (32 - 8 * u32::from(bytes.clamp(1, 4)))) << shift;
        let word = devices.pci.entry((function, offset & !3)).or_default();
        *word = *word & !mask | value << shift & mask;
    }

    fn mmio_write(&self, at: Maddr, value: u32) {
        self.event(Event::MmioWrite(at, value));
    }

    fn is_hypervisor_mmio(&self, mfn: Mfn) -> bool {
        lock(&self.devices).hypervisor_mmio.contains(&mfn.0)
    }

    fn is_hypervisor_port(&self, port: u16) -> bool {
        lock(&self.devices).hypervisor_ports.contains(&port)
    }

    fn acpi_pm1_control(&self) -> Option<(u16, Option<u16>)> {
        Some((0x604, None))
    }

    fn acpi_rsdp(&self) -> Option<Maddr> {
        Some(Maddr(0xf_52a0))
    }

    fn power(&self, action: PowerAction) {
        self.event(Event::Power(action));
    }
}
