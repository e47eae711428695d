//! Physical interrupts: who gets them.
//!
//! A domain names its interrupts by its own numbers (pirqs). For dom0 the pirq of an I/O APIC line is its GSI; MSIs get numbers above the lines.
//! A level-triggered line stays masked from its arrival until the guest has said that it dealt with it.

use crate::Hypervisor;
use crate::domain::Domain;
use crate::vcpu::Vcpu;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use oxen_abi::Errno;
use oxen_hal::{IrqLine, LinePolarity, LineTrigger, Machine, PciAddress, PhysIrq};
use oxen_mm::HeldTyped;
use oxen_types::{CpuId, Maddr, Port};

/// Highest pirq number that a domain may have, plus one: one page of EOI flags.
pub const NR_PIRQS: u32 = 4096;

/// One interrupt of a domain.
#[derive(Debug)]
pub struct Pirq {
    /// The machine's interrupt.
    pub irq: PhysIrq,
    /// Where the message is to be written, of an MSI.
    pub msi: Option<MsiRequest>,
    /// The processor that it was sent to last; `None` for the boot processor.
    pub sent_to: Option<CpuId>,
    /// Port that carries it.
    pub port: Option<Port>,
    /// It has arrived, and its line is masked until the guest's EOI.
    pub in_flight: bool,
}

/// A domain's interrupts.
#[derive(Debug, Default)]
pub struct DomainPirqs {
    map: BTreeMap<u32, Pirq>,
    /// Page of one flag per pirq, by which the guest knows which ones need an EOI call.
    pub eoi_page: Option<HeldTyped>,
}

impl DomainPirqs {
    /// The interrupt with that number.
    #[must_use]
    pub fn get(&self, pirq: u32) -> Option<&Pirq> {
        self.map.get(&pirq)
    }

    /// The interrupt with that number, for changing it.
    pub fn get_mut(&mut self, pirq: u32) -> Option<&mut Pirq> {
        self.map.get_mut(&pirq)
    }

    /// All of them, by number.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Pirq)> {
        self.map.iter().map(|(n, p)| (*n, p))
    }

    /// The lowest free number from `first` up.
    pub(crate) fn free_number(&self, first: u32) -> Option<u32> {
        (first..NR_PIRQS).find(|n| !self.map.contains_key(n))
    }
}

/// Which domain's pirq a machine interrupt is.
#[derive(Debug)]
struct Binding {
    domain: Weak<Domain>,
    pirq: u32,
}

/// The machine's interrupts that domains have.
#[derive(Debug, Default)]
pub struct IrqTable {
    bound: BTreeMap<PhysIrq, Binding>,
    lines: BTreeMap<u32, IrqLine>,
}

/// A device's MSI as `PHYSDEVOP_map_pirq` names it.
#[derive(Clone, Copy, Debug)]
pub struct MsiRequest {
    /// The function.
    pub function: PciAddress,
    /// MSI-X: index in the table.
    pub entry: u32,
    /// MSI-X: machine address of the table; `None` for MSI.
    pub table: Option<Maddr>,
}

/// PCI configuration space (PCI Local Bus Specification 3.0, sections 6.7 and 6.8).
mod pci {
    pub const STATUS: u16 = 0x06;
    pub const STATUS_CAPABILITIES: u32 = 1 << 4;
    pub const CAPABILITIES: u16 = 0x34;
    pub const CAP_MSI: u32 = 0x05;
    pub const MSI_64BIT: u32 = 1 << 7;
    pub const MSI_MASKABLE: u32 = 1 << 8;
    pub const MSIX_ENTRY_BYTES: u64 = 16;
}

impl<M: Machine> Hypervisor<M> {
    /// A device raised `irq`: makes the port pending that carries it.
    pub(crate) fn device_interrupt(&self, irq: PhysIrq) {
        let target = {
            let irqs = self.irqs.lock();
            irqs.bound.get(&irq).and_then(|b| Some((b.domain.upgrade()?, b.pirq)))
        };
        let level = self.machine.is_level(irq);
        let port = target.and_then(|(domain, number)| {
            let mut pirqs = domain.pirqs.lock();
            let pirq = pirqs.get_mut(number)?;
            let port = pirq.port?;
            pirq.in_flight = level;
            drop(pirqs);
            Some((domain, port))
        });
        match port {
            Some((domain, port)) => self.raise_port(&domain, port),
            None => self.log_limited(format_args!("interrupt {} arrived and no domain has bound it", irq.0)),
        }
    }

    /// Sets trigger and polarity of a line and opens it to domains.
    pub(crate) fn configure_line(&self, line: IrqLine) -> Result<(), Errno> {
        if line.gsi >= self.machine.nr_lines() {
            return Err(Errno::EINVAL);
        }
        let mut irqs = self.irqs.lock();
        if irqs.lines.get(&line.gsi) == Some(&line) {
            return Ok(());
        }
        self.machine.setup_line(line).ok_or(Errno::ENOSPC)?;
        irqs.lines.insert(line.gsi, line);
        Ok(())
    }

    /// Gives a domain the I/O APIC line `gsi` as the pirq of the same number (or `wanted`).
    pub(crate) fn map_line(&self, domain: &Arc<Domain>, gsi: u32, wanted: Option<u32>) -> Result<u32, Errno> {
        if gsi >= self.machine.nr_lines() {
            return Err(Errno::EINVAL);
        }
        let number = wanted.unwrap_or(gsi);
        if number >= NR_PIRQS {
            return Err(Errno::EINVAL);
        }
        if let Some(pirq) = domain.pirqs.lock().get(number) {
            return if pirq.irq == PhysIrq(gsi) { Ok(number) } else { Err(Errno::EEXIST) };
        }
        let configured = self.irqs.lock().lines.contains_key(&gsi);
        if !configured {
            let line = match u8::try_from(gsi) {
                Ok(isa) if isa < 16 => IrqLine { gsi, ..self.machine.isa_line(isa) },
                _ => IrqLine { gsi, trigger: LineTrigger::Level, polarity: LinePolarity::Low },
            };
            self.configure_line(line)?;
        }
        self.bind(domain, number, PhysIrq(gsi), None)?;
        Ok(number)
    }

    fn bind(&self, domain: &Arc<Domain>, number: u32, irq: PhysIrq, msi: Option<MsiRequest>) -> Result<(), Errno> {
        {
            let mut irqs = self.irqs.lock();
            if irqs.bound.get(&irq).is_some_and(|b| b.domain.strong_count() != 0) {
                return Err(Errno::EBUSY);
            }
            irqs.bound.insert(irq, Binding { domain: Arc::downgrade(domain), pirq: number });
        }
        let mut pirqs = domain.pirqs.lock();
        pirqs.map.insert(number, Pirq { irq, msi, sent_to: None, port: None, in_flight: false });
        self.show_eoi_need(&pirqs, number);
        Ok(())
    }

    /// Gives a domain an MSI: takes a vector and writes the message into the device.
    pub(crate) fn map_msi(&self, domain: &Arc<Domain>, request: MsiRequest, wanted: Option<u32>) -> Result<u32, Errno> {
        let first = self.machine.nr_lines();
        let number = match wanted {
            Some(n) if n >= NR_PIRQS => return Err(Errno::EINVAL),
            Some(n) if domain.pirqs.lock().get(n).is_some() => return Err(Errno::EEXIST),
            Some(n) => n,
            None => domain.pirqs.lock().free_number(first).ok_or(Errno::ENOSPC)?,
        };
        let irq = self.machine.allocate_msi().ok_or(Errno::ENOSPC)?;
        let written = self.write_msi(request, irq).and_then(|()| self.bind(domain, number, irq, Some(request)));
        if let Err(error) = written {
            self.machine.free_msi(irq);
            return Err(error);
        }
        Ok(number)
    }

    fn write_msi(&self, request: MsiRequest, irq: PhysIrq) -> Result<(), Errno> {
        let message = self.machine.msi_message(irq).ok_or(Errno::ENOSPC)?;
        if let Some(table) = request.table {
            let offset = u64::from(request.entry) * pci::MSIX_ENTRY_BYTES;
            let entry = Maddr(table.0.checked_add(offset).filter(|at| at.is_multiple_of(4)).ok_or(Errno::EINVAL)?);
            let last = Maddr(entry.0.checked_add(pci::MSIX_ENTRY_BYTES - 1).ok_or(Errno::EINVAL)?);
            let refused = |at: Maddr| self.machine.meta(at.mfn()).is_some() || self.machine.is_hypervisor_mmio(at.mfn());
            if refused(entry) || refused(last) {
                return Err(Errno::EINVAL);
            }
            let words = [message.address as u32, (message.address >> 32) as u32, message.data, 0];
            for (i, word) in words.into_iter().enumerate() {
                self.machine.mmio_write(Maddr(entry.0 + 4 * i as u64), word);
            }
            return Ok(());
        }
        let capability = self.find_capability(request.function, pci::CAP_MSI).ok_or(Errno::ENODEV)?;
        let write = |offset: u16, bytes, value| self.machine.pci_write(request.function, capability + offset, bytes, value);
        let control = self.machine.pci_read(request.function, capability + 2, 2);
        write(4, 4, message.address as u32);
        let data = if control & pci::MSI_64BIT != 0 {
            write(8, 4, (message.address >> 32) as u32);
            12
        } else {
            8
        };
        write(data, 2, message.data);
        if control & pci::MSI_MASKABLE != 0 {
            write(data + 4, 4, 0);
        }
        Ok(())
    }

    fn find_capability(&self, function: PciAddress, id: u32) -> Option<u16> {
        let read = |offset, bytes| self.machine.pci_read(function, offset, bytes);
        if read(pci::STATUS, 2) & pci::STATUS_CAPABILITIES == 0 {
            return None;
        }
        let mut at = read(pci::CAPABILITIES, 1) as u16 & 0xfc;
        // The list has at most 48 entries of 4 bytes between 0x40 and 0xff.
        for _ in 0..48 {
            if at < 0x40 {
                return None;
            }
            if read(at, 1) == id {
                return Some(at);
            }
            at = read(at + 1, 1) as u16 & 0xfc;
        }
        None
    }

    /// Takes an interrupt away from a domain; its port, if any, stays and is never raised again.
    pub(crate) fn unmap_pirq(&self, domain: &Domain, number: u32) -> Result<(), Errno> {
        let pirq = domain.pirqs.lock().map.remove(&number).ok_or(Errno::EINVAL)?;
        self.irqs.lock().bound.remove(&pirq.irq);
        if pirq.msi.is_some() {
            self.machine.free_msi(pirq.irq);
        } else {
            self.machine.set_line_mask(pirq.irq, true);
        }
        Ok(())
    }

    /// Connects a pirq to a port and opens its line.
    pub(crate) fn connect_pirq(&self, domain: &Domain, number: u32, port: Port) -> Result<(), Errno> {
        let mut pirqs = domain.pirqs.lock();
        let pirq = pirqs.get_mut(number).ok_or(Errno::EINVAL)?;
        if pirq.port.is_some() {
            return Err(Errno::EEXIST);
        }
        pirq.port = Some(port);
        let (irq, is_msi) = (pirq.irq, pirq.msi.is_some());
        self.show_eoi_need(&pirqs, number);
        drop(pirqs);
        if !is_msi {
            self.machine.set_line_mask(irq, false);
        }
        Ok(())
    }

    /// A vCPU is to have an interrupt: it is delivered where that vCPU runs, and will follow it.
    pub(crate) fn steer_pirq(&self, domain: &Domain, number: u32, vcpu: &Vcpu) {
        let cpu = vcpu.place.lock().cpu();
        vcpu.interrupts_at.store(cpu.0, Relaxed);
        vcpu.has_interrupts.store(true, Relaxed);
        self.send_pirq(domain, number, cpu);
    }

    /// A vCPU that has interrupts begins to run on `cpu`: they go there from now on.
    pub(crate) fn interrupts_follow(&self, domain: &Domain, vcpu: &Vcpu, cpu: CpuId) {
        if vcpu.interrupts_at.swap(cpu.0, Relaxed) == cpu.0 {
            return;
        }
        let connected: Vec<(u32, Port)> = domain.pirqs.lock().iter().filter_map(|(number, pirq)| Some((number, pirq.port?))).collect();
        for (number, port) in connected {
            let notified = domain.events.lock().channel(port).is_ok_and(|channel| channel.notify == vcpu.id);
            if notified {
                self.send_pirq(domain, number, cpu);
            }
        }
    }

    fn send_pirq(&self, domain: &Domain, number: u32, cpu: CpuId) {
        let mut pirqs = domain.pirqs.lock();
        let Some(pirq) = pirqs.get_mut(number) else { return };
        if pirq.sent_to == Some(cpu) || !self.machine.set_destination(pirq.irq, cpu) {
            return;
        }
        pirq.sent_to = Some(cpu);
        if let (Some(request), Some(message)) = (pirq.msi, self.machine.msi_message(pirq.irq)) {
            self.write_msi_address(request, message.address as u32);
        }
    }

    /// Writes the half of an MSI's address that says which processor it goes to: one write, so that the device never sees half of a change.
    fn write_msi_address(&self, request: MsiRequest, low: u32) {
        match request.table {
            // That the place is no RAM and not the hypervisor's was checked when the message was first written, and does not change.
            Some(table) => self.machine.mmio_write(Maddr(table.0 + u64::from(request.entry) * pci::MSIX_ENTRY_BYTES), low),
            None => {
                if let Some(capability) = self.find_capability(request.function, pci::CAP_MSI) {
                    self.machine.pci_write(request.function, capability + 4, 4, low);
                }
            }
        }
    }

    /// Cuts a pirq off from its port and closes its line.
    pub(crate) fn disconnect_pirq(&self, domain: &Domain, number: u32) {
        let mut pirqs = domain.pirqs.lock();
        if let Some(pirq) = pirqs.get_mut(number) {
            pirq.port = None;
            pirq.in_flight = false;
            if pirq.msi.is_none() {
                self.machine.set_line_mask(pirq.irq, true);
            }
        }
    }

    /// The guest has dealt with a pirq: its line may be raised again.
    pub(crate) fn end_of_interrupt(&self, domain: &Domain, number: u32) -> Result<(), Errno> {
        let mut pirqs = domain.pirqs.lock();
        if number >= NR_PIRQS {
            return Err(Errno::EINVAL);
        }
        if let Some(pirq) = pirqs.get_mut(number)
            && core::mem::take(&mut pirq.in_flight)
        {
            self.machine.set_line_mask(pirq.irq, false);
        }
        Ok(())
    }

    /// Sets the pirq's flag in the EOI page: only level-triggered lines need an EOI call.
    fn show_eoi_need(&self, pirqs: &DomainPirqs, number: u32) {
        let (Some(page), Some(pirq)) = (&pirqs.eoi_page, pirqs.get(number)) else { return };
        let offset = (number / 64) as usize * 8;
        if offset >= 4096 {
            return;
        }
        let word = self.machine.shared_u64(page.mfn(), offset);
        let bit = 1 << (number % 64);
        if self.machine.is_level(pirq.irq) {
            word.fetch_or(bit, core::sync::atomic::Ordering::SeqCst);
        } else {
            word.fetch_and(!bit, core::sync::atomic::Ordering::SeqCst);
        }
    }

    /// Starts using an EOI page; gives the old one back to the caller.
    pub(crate) fn set_eoi_page(&self, domain: &Domain, page: HeldTyped) -> Result<(), (Errno, HeldTyped)> {
        let mut pirqs = domain.pirqs.lock();
        if pirqs.eoi_page.is_some() {
            return Err((Errno::EBUSY, page));
        }
        pirqs.eoi_page = Some(page);
        let numbers: alloc::vec::Vec<u32> = pirqs.map.keys().copied().collect();
        for number in numbers {
            self.show_eoi_need(&pirqs, number);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypercall::testing::World;
    use crate::vcpu::Placement;
    use oxen_abi::Hypercall;
    use oxen_abi::event_channel::{BindPirq, BindVcpu, EvtchnOp};
    use oxen_hal::Interrupts;
    use oxen_testkit::Event;
    use oxen_types::{DomId, VcpuId};

    const TABLE: Maddr = Maddr(0xfeb0_0000);

    fn event_op<T: oxen_abi::zerocopy::FromBytes + oxen_abi::zerocopy::IntoBytes + oxen_abi::zerocopy::Immutable>(w: &World, op: EvtchnOp, request: &mut T) {
        let words = |at| [u64::from(op.raw()), at, 0, 0, 0, 0];
        assert_eq!(w.call_with(DomId::DOM0, Hypercall::EVENT_CHANNEL_OP, words, request), Ok(0));
    }

    fn bound(w: &World, pirq: u32) -> u32 {
        let mut request = BindPirq { pirq, ..BindPirq::default() };
        event_op(w, EvtchnOp::BIND_PIRQ, &mut request);
        request.port
    }

    #[test]
    fn interrupts_go_where_their_vcpu_runs() {
        let w = World::new();
        let dom0 = w.domain(DomId::DOM0);
        let line = w.hv.map_line(&dom0, 9, None).unwrap();
        let request = MsiRequest { function: PciAddress { segment: 0, bus: 0, devfn: 8 }, entry: 3, table: Some(TABLE) };
        let msi = w.hv.map_msi(&dom0, request, None).unwrap();
        let irq = |number: u32| dom0.pirqs.lock().get(number).unwrap().irq;
        let ports = [line, msi].map(|number| bound(&w, number));
        let [first, second] = [0, 1].map(|n| dom0.vcpu(VcpuId(n)).unwrap());
        *first.place.lock() = Placement::Running(CpuId(0));
        *second.place.lock() = Placement::Off(CpuId(1));
        w.machine.take_events();
        for port in ports {
            event_op(&w, EvtchnOp::BIND_VCPU, &mut BindVcpu { port, vcpu: 1 });
        }
        let destinations = || [line, msi].map(|number| w.machine.destination(irq(number)).unwrap());
        assert_eq!(destinations(), [CpuId(1); 2]);
        // Of the message only the half is written that has changed.
        let written = |cpu: u64| Event::MmioWrite(Maddr(TABLE.0 + 3 * 16), 0xfee0_0000 | (cpu as u32) << 12);
        assert_eq!(w.machine.take_events().into_iter().filter(|e| matches!(e, Event::MmioWrite(..))).collect::<Vec<_>>(), [written(1)]);
        // They follow the vCPU, and only when it has moved.
        w.hv.interrupts_follow(&dom0, second, CpuId(0));
        assert_eq!(destinations(), [CpuId(0); 2]);
        w.hv.interrupts_follow(&dom0, second, CpuId(0));
        assert_eq!(w.machine.take_events().into_iter().filter(|e| matches!(e, Event::MmioWrite(..))).count(), 1);
        // Another vCPU's stay where they are.
        w.hv.interrupts_follow(&dom0, first, CpuId(1));
        assert_eq!(destinations(), [CpuId(0); 2]);
        assert!(second.has_interrupts.load(Relaxed) && w.machine.vector(irq(msi)).is_some());
    }
}
