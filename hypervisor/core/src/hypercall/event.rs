//! `event_channel_op`.

use super::{Answer, Args};
use crate::ctx::Ctx;
use crate::domain::Domain;
use crate::event::{EventTable, PortState, virq_is_global};
use alloc::sync::Arc;
use oxen_abi::Errno;
use oxen_abi::event_channel::{
    AllocUnbound, BindInterdomain, BindIpi, BindPirq, BindVcpu, BindVirq, Close, EvtchnOp, ExpandArray, InitControl, Reset, Send,
    SetPriority, Status, Unmask,
};
use oxen_abi::xen::{DOMID_SELF, NR_VIRQS};
use oxen_abi::zerocopy::{FromBytes, Immutable, IntoBytes};
use oxen_hal::Machine;
use oxen_types::{DomId, Gva, Mfn, Port, VcpuId};

/// Ports closed before the guest may take interrupts.
const RESET_BUDGET: usize = 512;

impl<M: Machine> Ctx<'_, M> {
    /// `(command, argument)`.
    #[inline]
    pub(super) fn event_channel_op(&mut self, args: &Args) -> Answer {
        let argument = Gva(args[1]);
        let op = EvtchnOp(super::low32(args[0]));
        if op == EvtchnOp::SEND {
            let request: Send = self.read(argument)?;
            self.hv.send_event(self.domain, Port(request.port))?;
            return Ok(0);
        }
        self.event_channel_rare(op, argument)
    }

    fn event_channel_rare(&mut self, op: EvtchnOp, argument: Gva) -> Answer {
        match op {
            EvtchnOp::ALLOC_UNBOUND => self.update_struct(argument, |ctx, r: &mut AllocUnbound| {
                r.port = ctx.alloc_unbound(r.dom, r.remote_dom)?.0;
                Ok(())
            })?,
            EvtchnOp::BIND_INTERDOMAIN => self.update_struct(argument, |ctx, r: &mut BindInterdomain| {
                r.local_port = ctx.bind_interdomain(r.remote_dom, Port(r.remote_port))?.0;
                Ok(())
            })?,
            EvtchnOp::BIND_VIRQ => self.update_struct(argument, |ctx, r: &mut BindVirq| {
                r.port = ctx.bind_virq(r)?.0;
                Ok(())
            })?,
            EvtchnOp::BIND_IPI => self.update_struct(argument, |ctx, r: &mut BindIpi| {
                let vcpu = ctx.existing_vcpu(r.vcpu)?;
                r.port = ctx.domain.events.lock().allocate(ctx.machine(), PortState::Ipi, vcpu)?.0;
                Ok(())
            })?,
            EvtchnOp::BIND_PIRQ => self.update_struct(argument, |ctx, r: &mut BindPirq| {
                r.port = ctx.bind_pirq(r.pirq)?.0;
                Ok(())
            })?,
            EvtchnOp::CLOSE => {
                let request: Close = self.read(argument)?;
                self.hv.close_port(self.domain, Port(request.port))?;
            }
            EvtchnOp::STATUS => self.update_struct(argument, |ctx, r: &mut Status| ctx.port_status(r))?,
            EvtchnOp::BIND_VCPU => {
                let request: BindVcpu = self.read(argument)?;
                self.bind_port_to_vcpu(Port(request.port), request.vcpu)?;
            }
            EvtchnOp::UNMASK => {
                let request: Unmask = self.read(argument)?;
                self.unmask_port(Port(request.port))?;
            }
            EvtchnOp::RESET => {
                let request: Reset = self.read(argument)?;
                let target = self.target_domain(request.dom)?;
                if target.id != self.domain.id && !target.is_paused() {
                    return Err(Errno::EINVAL);
                }
                self.hv.reset_events(&target)?;
            }
            EvtchnOp::INIT_CONTROL => self.update_struct(argument, |ctx, r: &mut InitControl| ctx.init_control(r))?,
            EvtchnOp::EXPAND_ARRAY => {
                let request: ExpandArray = self.read(argument)?;
                self.expand_array(Mfn(request.array_gfn))?;
            }
            EvtchnOp::SET_PRIORITY => {
                let request: SetPriority = self.read(argument)?;
                self.domain.events.lock().set_priority(Port(request.port), request.priority)?;
            }
            _ => return Err(Errno::ENOSYS),
        }
        Ok(0)
    }

    /// Reads a structure, lets `f` work on it, and writes it back where `f` succeeded.
    fn update_struct<T: FromBytes + IntoBytes + Immutable>(
        &mut self,
        at: Gva,
        f: impl FnOnce(&mut Self, &mut T) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mut value: T = self.read(at)?;
        f(self, &mut value)?;
        self.write(at, &value)
    }

    fn existing_vcpu(&self, id: u32) -> Result<VcpuId, Errno> {
        self.domain.vcpu(VcpuId(id)).map(|v| v.id).ok_or(Errno::ENOENT)
    }

    /// Signals whoever is at the other end of a port.
    #[inline]
    fn alloc_unbound(&mut self, dom: u16, remote_dom: u16) -> Result<Port, Errno> {
        let owner = self.target_domain(dom)?;
        let remote = if remote_dom == DOMID_SELF { self.domain.id } else { DomId(remote_dom) };
        owner.events.lock().allocate(self.machine(), PortState::Unbound { remote }, VcpuId(0))
    }

    fn bind_interdomain(&mut self, remote_dom: u16, remote_port: Port) -> Result<Port, Errno> {
        let remote_id = if remote_dom == DOMID_SELF { self.domain.id } else { DomId(remote_dom) };
        let remote = self.hv.domains.get(remote_id).ok_or(Errno::ESRCH)?;
        let me = self.domain;
        let port = {
            let (mut mine, theirs) = oxen_sync::lock_pair((me.id, &me.events), (remote.id, &remote.events));
            let mut theirs = theirs;
            let their_table: &EventTable = theirs.as_deref().unwrap_or(&mine);
            let reserved_for_me = matches!(their_table.channel(remote_port)?.state, PortState::Unbound { remote } if remote == me.id);
            if !reserved_for_me {
                return Err(Errno::EINVAL);
            }
            let state = PortState::Interdomain { remote: Arc::downgrade(&remote), remote_id, remote_port };
            let port = mine.allocate(self.machine(), state, VcpuId(0))?;
            let back = PortState::Interdomain { remote: Arc::downgrade(me), remote_id: me.id, remote_port: port };
            theirs.as_deref_mut().unwrap_or(&mut mine).channel_mut(remote_port)?.state = back;
            port
        };
        // An event that the other side sent before the connection stood would be lost otherwise.
        self.hv.raise_port(me, port);
        Ok(port)
    }

    fn bind_virq(&mut self, request: &BindVirq) -> Result<Port, Errno> {
        if request.virq.raw() >= NR_VIRQS || virq_is_global(request.virq) && request.vcpu != 0 {
            return Err(Errno::EINVAL);
        }
        let vcpu = self.existing_vcpu(request.vcpu)?;
        self.domain.events.lock().bind_virq(self.machine(), vcpu, request.virq)
    }

    fn bind_pirq(&mut self, pirq: u32) -> Result<Port, Errno> {
        if pirq >= crate::irq::NR_PIRQS {
            return Err(Errno::EINVAL);
        }
        let irq = match self.domain.pirqs.lock().get(pirq) {
            None => return Err(Errno::EPERM),
            Some(p) if p.port.is_some() => return Err(Errno::EEXIST),
            Some(p) => p.irq,
        };
        if !self.domain.privileges.hardware && !self.domain.access.lock().interrupts.contains(&irq.0) {
            return Err(Errno::EPERM);
        }
        let port = self.domain.events.lock().allocate(self.machine(), PortState::Pirq(pirq), VcpuId(0))?;
        if let Err(error) = self.hv.connect_pirq(self.domain, pirq, port) {
            self.domain.events.lock().free(self.machine(), port);
            return Err(error);
        }
        self.steer(pirq, VcpuId(0));
        Ok(port)
    }

    fn port_status(&mut self, request: &mut Status) -> Result<(), Errno> {
        let target = self.target_domain(request.dom)?;
        let events = target.events.lock();
        let channel = events.channel(Port(request.port))?;
        request.status = EventTable::status_of(&channel.state);
        request.vcpu = channel.notify.0;
        request.u = match &channel.state {
            PortState::Unbound { remote } => [remote.0.into(), 0],
            PortState::Interdomain { remote_id, remote_port, .. } => [remote_id.0.into(), remote_port.0],
            PortState::Pirq(pirq) => [*pirq, 0],
            PortState::Virq(virq) => [virq.raw(), 0],
            PortState::Free | PortState::Ipi => [0, 0],
        };
        Ok(())
    }

    fn bind_port_to_vcpu(&mut self, port: Port, vcpu: u32) -> Result<(), Errno> {
        let vcpu = self.existing_vcpu(vcpu)?;
        let mut events = self.domain.events.lock();
        let channel = events.channel_mut(port)?;
        match channel.state {
            PortState::Virq(virq) if !virq_is_global(virq) => return Err(Errno::EINVAL),
            PortState::Virq(_) | PortState::Unbound { .. } | PortState::Interdomain { .. } | PortState::Pirq(_) => {}
            PortState::Ipi | PortState::Free => return Err(Errno::EINVAL),
        }
        channel.notify = vcpu;
        if let PortState::Pirq(number) = channel.state {
            drop(events);
            self.steer(number, vcpu);
        }
        Ok(())
    }

    fn steer(&self, pirq: u32, vcpu: VcpuId) {
        if let Some(vcpu) = self.domain.vcpu(vcpu) {
            self.hv.steer_pirq(self.domain, pirq, vcpu);
        }
    }

    fn unmask_port(&mut self, port: Port) -> Result<(), Errno> {
        let raised = {
            let mut events = self.domain.events.lock();
            events.channel(port)?;
            events.unmask(self.machine(), self.domain, port)
        };
        self.hv.tell(self.domain, port, raised);
        Ok(())
    }

    fn init_control(&mut self, request: &mut InitControl) -> Result<(), Errno> {
        let vcpu = self.existing_vcpu(request.vcpu)?;
        let frame = self.writable_frame(Mfn(request.control_gfn))?;
        let block = (frame.mfn(), request.offset as usize);
        if let Err(error) = self.domain.events.lock().init_control(self.machine(), vcpu, block) {
            self.hv.memory.put_typed(frame);
            return Err(error);
        }
        self.domain.event_frames.lock().push(frame);
        request.link_bits = oxen_abi::event_channel::EVTCHN_FIFO_LINK_BITS as u8;
        Ok(())
    }

    fn expand_array(&mut self, page: Mfn) -> Result<(), Errno> {
        let frame = self.writable_frame(page)?;
        let raised = match self.domain.events.lock().expand_array(self.machine(), frame.mfn()) {
            Ok(raised) => raised,
            Err(error) => {
                self.hv.memory.put_typed(frame);
                return Err(error);
            }
        };
        self.domain.event_frames.lock().push(frame);
        for upcall in raised {
            self.hv.tell(self.domain, Port(0), crate::event::Raised { newly_pending: false, ..upcall });
        }
        Ok(())
    }

    fn writable_frame(&self, mfn: Mfn) -> Result<oxen_mm::HeldTyped, Errno> {
        let frame = self.hv.memory.get_writable(mfn, self.domain.id, &self.domain.dirty_cpus).map_err(oxen_mm::MmError::errno)?;
        Ok(frame.hold())
    }
}

impl<M: Machine> crate::Hypervisor<M> {
    /// Closes a port; the other end of a connection waits again for the one that closed it.
    pub fn close_port(&self, domain: &Arc<Domain>, port: Port) -> Result<(), Errno> {
        // In one go: of two vCPUs that close a port one does, and the other cannot end what takes its place.
        let was = {
            let mut events = domain.events.lock();
            events.channel(port)?;
            events.free(self.machine, port)
        };
        match was {
            PortState::Free => return Err(Errno::EINVAL),
            PortState::Pirq(pirq) => self.disconnect_pirq(domain, pirq),
            PortState::Interdomain { remote, remote_port, .. } => {
                if let Some(remote) = remote.upgrade() {
                    self.close_peer(domain, port, &remote, remote_port);
                }
            }
            PortState::Unbound { .. } | PortState::Virq(_) | PortState::Ipi => {}
        }
        Ok(())
    }

    fn close_peer(&self, domain: &Arc<Domain>, port: Port, remote: &Arc<Domain>, remote_port: Port) {
        let mut theirs = remote.events.lock();
        if let Ok(channel) = theirs.channel_mut(remote_port)
            && matches!(&channel.state, PortState::Interdomain { remote_id, remote_port: back, .. } if *remote_id == domain.id && *back == port)
        {
            channel.state = PortState::Unbound { remote: domain.id };
        }
    }

    /// Closes ports of a domain; after the last of them returns it to the two-level ABI.
    ///
    /// # Errors
    /// `ERESTART` where there are more: to be called again.
    pub fn reset_events(&self, domain: &Arc<Domain>) -> Result<(), Errno> {
        let ports: alloc::vec::Vec<Port> = domain.events.lock().in_use().map(|(p, _)| p).take(RESET_BUDGET).collect();
        let more = ports.len() == RESET_BUDGET;
        for port in ports {
            // A port that was closed meanwhile needs no closing.
            let _ = self.close_port(domain, port);
        }
        if more {
            return Err(Errno::ERESTART);
        }
        domain.events.lock().reset_abi();
        for frame in core::mem::take(&mut *domain.event_frames.lock()) {
            self.memory.put_typed(frame);
        }
        Ok(())
    }
}
