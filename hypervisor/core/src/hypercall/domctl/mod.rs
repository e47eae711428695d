//! `domctl`: one domain.

mod access;
mod context;
mod info;
mod life;
mod policy;
mod settings;
mod state;
mod vcpu;
#[cfg(test)]
mod life_tests;
#[cfg(test)]
mod tests;

use super::{Answer, Args};
use crate::ctx::Ctx;
use crate::domain::Domain;
use alloc::sync::Arc;
use oxen_abi::Errno;
use oxen_abi::domctl::{Domctl, DomctlCmd, XEN_DOMCTL_INTERFACE_VERSION};
use oxen_abi::zerocopy::{FromBytes, Immutable, IntoBytes};
use oxen_hal::Machine;
use oxen_types::{DomId, Gva};

impl<M: Machine> Ctx<'_, M> {
    /// `(operation)`.
    pub(super) fn domctl(&mut self, args: &Args) -> Answer {
        let argument = Gva(args[0]);
        let mut op: Domctl = self.read(argument)?;
        if op.interface_version != XEN_DOMCTL_INTERFACE_VERSION {
            return Err(Errno::EACCES);
        }
        // That a domain does not exist is told to anybody, as in Xen.
        if op.cmd != DomctlCmd::CREATEDOMAIN && !self.domain.privileges.control && self.hv.domains.get(DomId(op.domain)).is_none() {
            return Err(Errno::ESRCH);
        }
        self.require_control()?;
        if op.cmd == DomctlCmd::GETDOMAININFO {
            self.domain_info(&mut op)?;
            self.write(argument, &op)?;
            return Ok(0);
        }
        if op.cmd == DomctlCmd::CREATEDOMAIN {
            self.create_domain(&mut op)?;
            self.write(argument, &op)?;
            return Ok(0);
        }
        let target = self.hv.domains.get(DomId(op.domain)).ok_or(Errno::ESRCH)?;
        let result = self.domctl_on(&target, &mut op);
        drop(target);
        // It may have been the last that kept a dead domain.
        self.hv.bury_dead();
        if op.cmd == DomctlCmd::SET_CPU_POLICY || result? {
            self.write(argument, &op)?;
        }
        result.map(|_| 0)
    }

    /// Carries out an operation on a domain that exists; says whether there is something to tell.
    fn domctl_on(&mut self, target: &Arc<Domain>, op: &mut Domctl) -> Result<bool, Errno> {
        match op.cmd {
            DomctlCmd::PAUSEDOMAIN => {
                // Nobody would be left to undo it.
                self.require_other(target)?;
                self.hv.pause_domain(target)?;
                return Ok(false);
            }
            DomctlCmd::UNPAUSEDOMAIN => {
                self.require_other(target)?;
                target.created.store(true, core::sync::atomic::Ordering::SeqCst);
                self.hv.unpause_domain(target)?;
                return Ok(false);
            }
            DomctlCmd::RESUMEDOMAIN => {
                self.require_other(target)?;
                self.hv.resume_domain(target);
                return Ok(false);
            }
            DomctlCmd::DESTROYDOMAIN => {
                self.destroy_domain(target)?;
                return Ok(false);
            }
            DomctlCmd::MAX_VCPUS => {
                self.set_max_vcpus(target, &op.u.read())?;
                return Ok(false);
            }
            DomctlCmd::SETVCPUCONTEXT => {
                self.set_vcpu_context(target, &op.u.read())?;
                return Ok(false);
            }
            DomctlCmd::GETVCPUCONTEXT => {
                self.vcpu_context(target, &op.u.read())?;
                return Ok(false);
            }
            DomctlCmd::SET_ADDRESS_SIZE => {
                self.set_address_size(&op.u.read())?;
                return Ok(false);
            }
            DomctlCmd::SETTIMEOFFSET => {
                self.set_time_offset(target, &op.u.read());
                return Ok(false);
            }
            DomctlCmd::SETTSCINFO => {
                self.set_tsc_info(target, &op.u.read())?;
                return Ok(false);
            }
            DomctlCmd::HYPERCALL_INIT => {
                self.fill_hypercall_page(target, &op.u.read())?;
                return Ok(false);
            }
            DomctlCmd::SET_CPU_POLICY => {
                let mut request = op.u.read();
                let done = self.set_cpu_policy(target, &mut request);
                op.u.write(&request);
                return done.map(|()| true);
            }
            DomctlCmd::GET_CPU_POLICY => self.with_domctl(target, op, Self::cpu_policy)?,
            DomctlCmd::GETPAGEFRAMEINFO3 => self.with_domctl(target, op, Self::page_types)?,
            DomctlCmd::MAX_MEM => {
                self.set_max_mem(target, &op.u.read())?;
                return Ok(false);
            }
            DomctlCmd::SETDOMAINHANDLE => {
                let request: oxen_abi::domctl::SetDomainHandle = op.u.read();
                *target.handle.lock() = request.handle;
                return Ok(false);
            }
            DomctlCmd::SETNODEAFFINITY => {
                self.set_node_affinity(&op.u.read())?;
                return Ok(false);
            }
            DomctlCmd::GETNODEAFFINITY => self.with_domctl(target, op, Self::node_affinity)?,
            DomctlCmd::GET_EXT_VCPUCONTEXT => self.with_domctl(target, op, Self::ext_context)?,
            DomctlCmd::GETVCPUEXTSTATE => self.with_domctl(target, op, Self::ext_state)?,
            DomctlCmd::GET_VCPU_MSRS => self.with_domctl(target, op, Self::msrs)?,
            DomctlCmd::GETVCPUINFO => self.with_domctl(target, op, Self::vcpu_info)?,
            DomctlCmd::GETVCPUAFFINITY => self.with_domctl(target, op, Self::vcpu_affinity)?,
            DomctlCmd::SCHEDULER_OP => self.with_domctl(target, op, Self::domain_scheduling)?,
            DomctlCmd::SETVCPUAFFINITY => self.with_domctl(target, op, Self::set_vcpu_affinity)?,
            DomctlCmd::GETTSCINFO => self.with_domctl(target, op, Self::tsc_info)?,
            DomctlCmd::GET_ADDRESS_SIZE => self.with_domctl(target, op, Self::address_size)?,
            other => {
                self.domctl_rare(target, other, op)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Operations of tools other than those that make and end guests, and what PV guests cannot have. None of them tells anything.
    fn domctl_rare(&mut self, target: &Arc<Domain>, cmd: DomctlCmd, op: &Domctl) -> Result<(), Errno> {
        match cmd {
            DomctlCmd::IOPORT_PERMISSION => self.permit_ports(target, &op.u.read()),
            DomctlCmd::IOMEM_PERMISSION => self.permit_memory(target, &op.u.read()),
            DomctlCmd::IRQ_PERMISSION => self.permit_interrupt(target, &op.u.read()),
            DomctlCmd::SENDTRIGGER => self.send_trigger(target, &op.u.read()),
            DomctlCmd::SET_VIRQ_HANDLER => self.set_virq_handler(target, &op.u.read()),
            DomctlCmd::SUBSCRIBE => {
                self.subscribe(target, &op.u.read());
                Ok(())
            }
            DomctlCmd::SET_EXT_VCPUCONTEXT => self.set_ext_context(target, &op.u.read()),
            DomctlCmd::SETVCPUEXTSTATE => self.set_ext_state(target, &op.u.read()),
            DomctlCmd::SET_VCPU_MSRS => self.set_msrs(target, &op.u.read()),
            // There is no IOMMU, and no shadow of a PV guest's tables.
            DomctlCmd::ASSIGN_DEVICE
            | DomctlCmd::TEST_ASSIGN_DEVICE
            | DomctlCmd::DEASSIGN_DEVICE
            | DomctlCmd::GET_DEVICE_GROUP
            | DomctlCmd::GET_PAGING_MEMPOOL_SIZE
            | DomctlCmd::SET_PAGING_MEMPOOL_SIZE
            | DomctlCmd::IOPORT_MAPPING
            | DomctlCmd::MONITOR_OP
            | DomctlCmd::SET_TARGET => Err(Errno::EOPNOTSUPP),
            // These are of guests that are not PV.
            DomctlCmd::GETHVMCONTEXT | DomctlCmd::SETHVMCONTEXT | DomctlCmd::GETHVMCONTEXT_PARTIAL => Err(Errno::EINVAL),
            // Platform quality of service is not driven.
            DomctlCmd::PSR_CMT_OP | DomctlCmd::PSR_ALLOC => Err(Errno::ENODEV),
            other => {
                self.hv.log_limited(format_args!("{}: domctl {other:?} for {} is not implemented", self.domain.id, target.id));
                Err(Errno::ENOSYS)
            }
        }
    }

    pub(super) fn require_other(&self, target: &Arc<Domain>) -> Result<(), Errno> {
        if Arc::ptr_eq(target, self.domain) { Err(Errno::EINVAL) } else { Ok(()) }
    }

    /// Lets `handler` work on the payload, which is changed where it succeeds.
    fn with_domctl<T: FromBytes + IntoBytes + Immutable>(
        &self,
        target: &Arc<Domain>,
        op: &mut Domctl,
        handler: impl FnOnce(&Self, &Arc<Domain>, &mut T) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mut request: T = op.u.read();
        handler(self, target, &mut request)?;
        op.u.write(&request);
        Ok(())
    }
}
