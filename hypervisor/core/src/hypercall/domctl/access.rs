//! What of the machine a domain may use, and signals to it.

use crate::access::Access;
use crate::ctx::Ctx;
use crate::domain::Domain;
use crate::event::virq_is_global;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::SeqCst;
use oxen_abi::Errno;
use oxen_abi::domctl::{
    IomemPermission, IoportPermission, IrqPermission, SENDTRIGGER_NMI, SENDTRIGGER_POWER, SENDTRIGGER_SLEEP, SendTrigger, SetVirqHandler, Subscribe,
};
use oxen_abi::xen::{NR_VIRQS, Virq};
use oxen_hal::Machine;
use oxen_mm::{MmioAccess, MmioPolicy};
use oxen_types::{Mfn, VcpuId};

/// I/O ports that there are.
const NR_PORTS: u32 = 0x1_0000;

impl<M: Machine> Ctx<'_, M> {
    /// Gives or takes ports that the caller has.
    pub(super) fn permit_ports(&self, target: &Arc<Domain>, request: &IoportPermission) -> Result<(), Errno> {
        let (first, count) = (request.first_port, request.nr_ports);
        let end = first.checked_add(count).filter(|&end| count != 0 && end <= NR_PORTS).ok_or(Errno::EINVAL)?;
        self.require_hardware()?;
        if (first..end).any(|port| self.hv.keeps_port(port as u16)) {
            return Err(Errno::EPERM);
        }
        self.change_access(target, request.allow_access != 0, |access| &mut access.ports, (first.into(), u64::from(end) - 1))
    }

    /// Gives or takes device memory that the caller has. What is mapped stays mapped.
    pub(super) fn permit_memory(&self, target: &Arc<Domain>, request: &IomemPermission) -> Result<(), Errno> {
        let (first, count) = (request.first_mfn, request.nr_mfns);
        let last = count.checked_sub(1).and_then(|rest| first.checked_add(rest)).ok_or(Errno::EINVAL)?;
        self.require_hardware()?;
        let policy = self.hv.device_memory(self.domain);
        // A range of such length that looking at each frame takes long is no device's.
        let fits = count <= MAX_DEVICE_FRAMES
            && (first..=last).all(|n| self.machine().meta(Mfn(n)).is_none() && policy.mmio_access(Mfn(n)) == MmioAccess::ReadWrite);
        if !fits {
            return Err(Errno::EPERM);
        }
        self.change_access(target, request.allow_access != 0, |access| &mut access.memory, (first, last))
    }

    fn change_access(
        &self,
        target: &Domain,
        allow: bool,
        kind: impl FnOnce(&mut Access) -> &mut crate::access::Ranges,
        (first, last): (u64, u64),
    ) -> Result<(), Errno> {
        let mut access = target.access.lock();
        let ranges = kind(&mut access);
        let done = if allow { ranges.insert(first, last) } else { ranges.remove(first, last) };
        if done { Ok(()) } else { Err(Errno::ENOSPC) }
    }

    /// Gives or takes an interrupt that the caller has.
    pub(super) fn permit_interrupt(&self, target: &Arc<Domain>, request: &IrqPermission) -> Result<(), Errno> {
        let number = request.pirq;
        let known = self.domain.pirqs.lock().get(number).map(|pirq| pirq.irq.0);
        // The lines of I/O APICs are the hardware domain's by their own numbers, mapped or not.
        let irq = known.or_else(|| (number < self.machine().nr_lines()).then_some(number)).ok_or(Errno::EINVAL)?;
        self.require_hardware()?;
        let mut access = target.access.lock();
        if request.allow_access != 0 {
            access.interrupts.insert(irq);
        } else {
            access.interrupts.remove(&irq);
        }
        Ok(())
    }

    /// Presses a button: PV guests have only the one for an NMI.
    pub(super) fn send_trigger(&self, target: &Arc<Domain>, request: &SendTrigger) -> Result<(), Errno> {
        let vcpu = target.vcpu(VcpuId(request.vcpu)).ok_or(Errno::ESRCH)?;
        match request.trigger {
            SENDTRIGGER_NMI => {
                vcpu.nmi_pending.store(true, SeqCst);
                self.hv.kick_upcall(vcpu);
                Ok(())
            }
            SENDTRIGGER_POWER | SENDTRIGGER_SLEEP => Err(Errno::EINVAL),
            _ => Err(Errno::ENOSYS),
        }
    }

    /// Lets a domain have a virtual interrupt that concerns the whole machine.
    pub(super) fn set_virq_handler(&self, target: &Arc<Domain>, request: &SetVirqHandler) -> Result<(), Errno> {
        if request.virq >= NR_VIRQS || !virq_is_global(Virq(request.virq)) || target.is_dying() {
            return Err(Errno::EINVAL);
        }
        let handler = self.hv.virq_handlers.get(request.virq as usize).ok_or(Errno::EINVAL)?;
        handler.store(target.id.0, SeqCst);
        if target.is_dying() {
            // Its end may have looked for what it handles before.
            self.hv.forget_virq_handler(target.id);
        }
        Ok(())
    }

    /// Names the domain's port by which its suspension is told.
    pub(super) fn subscribe(&self, target: &Arc<Domain>, request: &Subscribe) {
        target.suspend_port.store(request.port, SeqCst);
    }
}

/// Most frames of device memory given at once: 4 GiB.
const MAX_DEVICE_FRAMES: u64 = 1 << 20;
