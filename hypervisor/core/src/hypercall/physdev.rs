//! `physdev_op`: interrupts, I/O privileges and PCI functions of the hardware domain.

use super::{Answer, Args, low32};
use crate::ctx::Ctx;
use crate::domain::Domain;
use crate::irq::MsiRequest;
use crate::vcpu::IoBitmap;
use alloc::sync::Arc;
use oxen_abi::Errno;
use oxen_abi::physdev::{
    Apic, DbgpOp, Eoi, GetFreePirq, Irq, IrqStatusQuery, ManagePci, ManagePciExt, MapPirq, MapPirqType, PciDevice, PciDeviceAdd,
    PciMmcfgReserved, PhysdevOp, PirqEoiGmfn, SetIobitmap, SetIopl, SetupGsi, UnmapPirq,
    XENIRQSTAT_NEEDS_EOI,
};
use oxen_hal::{IrqLine, LinePolarity, LineTrigger, Machine, PciAddress};
use oxen_types::{Gva, Maddr, Mfn};

/// Registers of an I/O APIC (Intel 82093AA): the version register's number, and what dom0 reads there: version 0x20, lines in bits 16 to 23.
const IOAPIC_VERSION_REGISTER: u32 = 1;
const IOAPIC_VERSION: u32 = 0x20;

impl<M: Machine> Ctx<'_, M> {
    /// `(command, argument)`.
    pub(super) fn physdev_op(&mut self, args: &Args) -> Answer {
        let argument = Gva(args[1]);
        match PhysdevOp(low32(args[0])) {
            PhysdevOp::EOI | PhysdevOp::IRQ_UNMASK_NOTIFY => {
                let request: Eoi = self.read(argument)?;
                self.hv.end_of_interrupt(self.domain, request.irq)?;
            }
            PhysdevOp::IRQ_STATUS_QUERY => {
                let mut request: IrqStatusQuery = self.read(argument)?;
                if request.irq >= crate::irq::NR_PIRQS {
                    return Err(Errno::EINVAL);
                }
                request.flags = XENIRQSTAT_NEEDS_EOI;
                self.write(argument, &request)?;
            }
            PhysdevOp::SET_IOPL => {
                let iopl = self.read::<SetIopl>(argument)?.iopl;
                self.state.iopl = u8::try_from(iopl).ok().filter(|&n| n <= 3).ok_or(Errno::EINVAL)?;
            }
            PhysdevOp::SET_IOBITMAP => {
                let request: SetIobitmap = self.read(argument)?;
                let address = Gva(request.bitmap.address());
                if request.nr_ports > 65536 || !address.range_is_guest(request.nr_ports as usize) {
                    return Err(Errno::EINVAL);
                }
                let used = request.nr_ports != 0 && !address.is_null();
                self.state.io_bitmap = used.then_some(IoBitmap { address, nr_ports: request.nr_ports });
            }
            other => return self.physdev_hardware(other, argument),
        }
        Ok(0)
    }

    fn physdev_hardware(&mut self, op: PhysdevOp, argument: Gva) -> Answer {
        match op {
            PhysdevOp::MAP_PIRQ => {
                let mut request: MapPirq = self.read(argument)?;
                self.require_hardware()?;
                let target = self.target_domain(request.domid)?;
                request.pirq = self.map_pirq(&target, &request)? as i32;
                self.write(argument, &request)?;
            }
            PhysdevOp::UNMAP_PIRQ => {
                let request: UnmapPirq = self.read(argument)?;
                self.require_hardware()?;
                let target = self.target_domain(request.domid)?;
                self.hv.unmap_pirq(&target, u32::try_from(request.pirq).map_err(|_| Errno::EINVAL)?)?;
            }
            PhysdevOp::SETUP_GSI => {
                let request: SetupGsi = self.read(argument)?;
                self.require_hardware()?;
                let gsi = u32::try_from(request.gsi).map_err(|_| Errno::EINVAL)?;
                let trigger = if request.triggering == 0 { LineTrigger::Edge } else { LineTrigger::Level };
                let polarity = if request.polarity == 0 { LinePolarity::High } else { LinePolarity::Low };
                self.hv.configure_line(IrqLine { gsi, trigger, polarity })?;
            }
            PhysdevOp::ALLOC_IRQ_VECTOR => {
                let mut request: Irq = self.read(argument)?;
                self.require_hardware()?;
                let number = request.irq;
                let irq = self.domain.pirqs.lock().get(number).map(|p| p.irq);
                request.vector = irq.and_then(|irq| self.machine().vector(irq)).unwrap_or(0).into();
                self.write(argument, &request)?;
            }
            PhysdevOp::APIC_READ => {
                let mut request: Apic = self.read(argument)?;
                self.require_hardware()?;
                self.check_ioapic(&request)?;
                request.value = match request.reg {
                    IOAPIC_VERSION_REGISTER => IOAPIC_VERSION | self.machine().nr_lines().saturating_sub(1).min(255) << 16,
                    _ => 0,
                };
                self.write(argument, &request)?;
            }
            PhysdevOp::APIC_WRITE => {
                let request: Apic = self.read(argument)?;
                self.require_hardware()?;
                self.check_ioapic(&request)?;
                return Err(Errno::EPERM);
            }
            PhysdevOp::PIRQ_EOI_GMFN_V1 => {
                self.read::<PirqEoiGmfn>(argument)?;
                return Err(Errno::ENOSYS);
            }
            PhysdevOp::PIRQ_EOI_GMFN_V2 => self.pirq_eoi_page(argument)?,
            PhysdevOp::GET_FREE_PIRQ => {
                let mut request: GetFreePirq = self.read(argument)?;
                self.require_hardware()?;
                let first = self.machine().nr_lines();
                request.pirq = self.domain.pirqs.lock().free_number(first).ok_or(Errno::ENOSPC)?;
                self.write(argument, &request)?;
            }
            other => return self.physdev_pci(other, argument),
        }
        Ok(0)
    }

    /// Refuses an address at which no I/O APIC is.
    fn check_ioapic(&self, request: &Apic) -> Result<(), Errno> {
        if self.machine().is_hypervisor_mmio(Maddr(request.apic_physbase).mfn()) { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// What concerns one PCI function. The hypervisor keeps no list of them and leaves configuration space to the hardware domain: there is nothing
    /// to add or remove.
    fn physdev_pci(&mut self, op: PhysdevOp, argument: Gva) -> Answer {
        match op {
            PhysdevOp::PCI_DEVICE_ADD => {
                self.read::<PciDeviceAdd>(argument)?;
            }
            PhysdevOp::MANAGE_PCI_ADD | PhysdevOp::MANAGE_PCI_REMOVE => {
                self.read::<ManagePci>(argument)?;
            }
            PhysdevOp::MANAGE_PCI_ADD_EXT => {
                self.read::<ManagePciExt>(argument)?;
            }
            PhysdevOp::DBGP_OP => {
                self.read::<DbgpOp>(argument)?;
            }
            PhysdevOp::PCI_MMCFG_RESERVED => {
                let request: PciMmcfgReserved = self.read(argument)?;
                if request.segment != 0 {
                    return Err(Errno::ENODEV);
                }
            }
            PhysdevOp::PCI_DEVICE_REMOVE => {
                let request: PciDevice = self.read(argument)?;
                self.existing_function(request.seg, request.bus, request.devfn)?;
            }
            PhysdevOp::PREPARE_MSIX | PhysdevOp::RELEASE_MSIX | PhysdevOp::RESTORE_MSI_EXT => {
                let request: PciDevice = self.read(argument)?;
                self.existing_function(request.seg, request.bus, request.devfn)?;
                return Err(Errno::ENOSYS);
            }
            PhysdevOp::RESTORE_MSI => {
                let request: ManagePci = self.read(argument)?;
                self.existing_function(0, request.bus, request.devfn)?;
                return Err(Errno::ENOSYS);
            }
            _ => return Err(Errno::ENOSYS),
        }
        self.require_hardware()?;
        Ok(0)
    }

    /// Refuses functions that the bus does not have.
    fn existing_function(&self, segment: u16, bus: u8, devfn: u8) -> Result<(), Errno> {
        /// Vendor identifier of a function that is not there.
        const NOBODY: u32 = 0xffff;
        self.require_hardware()?;
        let vendor = self.machine().pci_read(PciAddress { segment, bus, devfn }, 0, 2);
        if segment != 0 || vendor == NOBODY { Err(Errno::ENODEV) } else { Ok(()) }
    }

    fn map_pirq(&self, target: &Arc<Domain>, request: &MapPirq) -> Result<u32, Errno> {
        let wanted = u32::try_from(request.pirq).ok();
        match request.kind {
            MapPirqType::GSI => {
                let gsi = u32::try_from(request.index).map_err(|_| Errno::EINVAL)?;
                self.hv.map_line(target, gsi, wanted)
            }
            MapPirqType::MSI | MapPirqType::MSI_SEG => {
                let segment = if request.kind == MapPirqType::MSI { 0 } else { (request.bus >> 16) as u16 };
                let function = PciAddress { segment, bus: request.bus as u8, devfn: request.devfn as u8 };
                let table = (request.table_base != 0).then_some(Maddr(request.table_base));
                let entry = u32::try_from(request.entry_nr).ok().filter(|&n| n < 2048).ok_or(Errno::EINVAL)?;
                self.hv.map_msi(target, MsiRequest { function, entry, table }, wanted)
            }
            // One message with several vectors needs them side by side; drivers are content with one.
            MapPirqType::MULTI_MSI => Err(Errno::EOPNOTSUPP),
            _ => Err(Errno::EINVAL),
        }
    }

    fn pirq_eoi_page(&self, argument: Gva) -> Result<(), Errno> {
        let request: PirqEoiGmfn = self.read(argument)?;
        let frame = self.hv.memory.get_writable(Mfn(request.gmfn), self.domain.id, &self.domain.dirty_cpus);
        let frame = frame.map_err(|_| Errno::EINVAL)?.hold();
        self.hv.set_eoi_page(self.domain, frame).map_err(|(error, frame)| {
            self.hv.memory.put_typed(frame);
            error
        })
    }
}
