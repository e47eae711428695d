//! Event channels of one domain.
//!
//! A table holds the domain's ports, each in one [`PortState`], and knows how to make a port pending in either ABI: two-level (bits in the shared information
//! page) or FIFO (event words in pages that the guest supplied). Everything about one domain's ports happens under the lock of its table. Methods
//! report which vCPU must be told; the caller wakes it after the lock is released.

mod fifo;
#[cfg(test)]
mod model_tests;
mod two_level;

pub use fifo::Fifo;

use crate::domain::Domain;
use alloc::sync::Weak;
use alloc::vec::Vec;
use core::num::NonZeroU32;
use oxen_abi::Errno;
use oxen_abi::event_channel::{EVTCHN_2L_NR_CHANNELS, EVTCHN_FIFO_NR_CHANNELS, EVTCHN_FIFO_PRIORITY_DEFAULT, EvtchnStatus};
use oxen_abi::xen::{NR_VIRQS, Virq};
use oxen_hal::Frames;
use oxen_types::{DomId, Mfn, Port, VcpuId};

/// What a port is connected to.
#[derive(Clone, Debug, Default)]
pub enum PortState {
    /// Nothing; may be allocated.
    #[default]
    Free,
    /// Waits for a domain to bind to it.
    Unbound {
        /// The only domain that may.
        remote: DomId,
    },
    /// Connected to a port of another (or the same) domain.
    Interdomain {
        /// The other domain.
        remote: Weak<Domain>,
        /// Its number, for reports.
        remote_id: DomId,
        /// Its port.
        remote_port: Port,
    },
    /// Carries a physical interrupt, by the domain's own number.
    Pirq(u32),
    /// Carries a virtual interrupt.
    Virq(Virq),
    /// Carries signals from the domain's own vCPUs.
    Ipi,
}

/// One port.
#[derive(Clone, Debug, Default)]
pub struct Channel {
    /// What it is connected to.
    pub state: PortState,
    /// The vCPU that is told.
    pub notify: VcpuId,
    /// FIFO priority, 0 (first) to 15.
    pub priority: u32,
    /// The FIFO queue in which the port was linked last: vCPU and priority.
    last_queue: Option<(VcpuId, u32)>,
}

/// Who must be told after a port was made pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Raised {
    /// The port was not pending before: vCPUs that poll it must be woken.
    pub newly_pending: bool,
    /// This vCPU's upcall-pending flag must be set.
    pub upcall: Option<VcpuId>,
}

/// The ports of a domain.
#[derive(Debug)]
pub struct EventTable {
    ports: Vec<Channel>,
    /// Port bound to each per-vCPU virtual interrupt; 0 for none.
    virqs: Vec<[u32; NR_VIRQS as usize]>,
    shared_info: Mfn,
    fifo: Option<Fifo>,
    /// Highest port number that the domain may have.
    pub max_port: u32,
    /// Where the search for a free port starts.
    first_free: u32,
    /// No port is given out any more: the domain is dying.
    closed: bool,
}

impl EventTable {
    /// A table without ports, in the two-level ABI.
    #[must_use]
    pub fn new(shared_info: Mfn, max_vcpus: u32, max_port: u32) -> Self {
        Self {
            ports: Vec::new(),
            virqs: alloc::vec![[0; NR_VIRQS as usize]; max_vcpus as usize],
            shared_info,
            fifo: None,
            max_port: max_port.min(EVTCHN_FIFO_NR_CHANNELS - 1),
            first_free: 1,
            closed: false,
        }
    }

    /// Number of ports that the present ABI can name.
    #[must_use]
    pub fn nr_ports(&self) -> u32 {
        let abi = if self.fifo.is_some() { EVTCHN_FIFO_NR_CHANNELS } else { EVTCHN_2L_NR_CHANNELS };
        abi.min(self.max_port.saturating_add(1))
    }

    /// True in the FIFO ABI.
    #[must_use]
    pub fn is_fifo(&self) -> bool {
        self.fifo.is_some()
    }

    /// The port, where its number is within the ABI's range.
    pub fn channel(&self, port: Port) -> Result<&Channel, Errno> {
        if port.0 >= self.nr_ports() {
            return Err(Errno::EINVAL);
        }
        static FREE: Channel = Channel { state: PortState::Free, notify: VcpuId(0), priority: 0, last_queue: None };
        Ok(self.ports.get(port.index()).unwrap_or(&FREE))
    }

    /// The port for changing it; it has been allocated.
    pub fn channel_mut(&mut self, port: Port) -> Result<&mut Channel, Errno> {
        if port.0 >= self.nr_ports() {
            return Err(Errno::EINVAL);
        }
        self.ports.get_mut(port.index()).ok_or(Errno::EINVAL)
    }

    /// Ports in use, with their numbers.
    pub fn in_use(&self) -> impl Iterator<Item = (Port, &Channel)> {
        self.ports
            .iter()
            .enumerate()
            .filter(|(_, c)| !matches!(c.state, PortState::Free))
            .map(|(i, c)| (Port(i as u32), c))
    }

    /// Takes a free port for `state`, delivered to `notify`.
    pub fn allocate(&mut self, frames: &impl Frames, state: PortState, notify: VcpuId) -> Result<Port, Errno> {
        if self.closed {
            return Err(Errno::EINVAL);
        }
        let limit = self.nr_ports();
        let port = (self.first_free..limit)
            .find(|&p| self.ports.get(p as usize).is_none_or(|c| matches!(c.state, PortState::Free) && !self.is_busy(frames, Port(p))))
            .ok_or(Errno::ENOSPC)?;
        if self.ports.len() <= port as usize {
            let missing = port as usize + 1 - self.ports.len();
            self.ports.try_reserve(missing).map_err(|_| Errno::ENOMEM)?;
            self.ports.resize(port as usize + 1, Channel::default());
        }
        let channel = self.ports.get_mut(port as usize).ok_or(Errno::ENOSPC)?;
        channel.state = state;
        channel.notify = notify;
        channel.priority = EVTCHN_FIFO_PRIORITY_DEFAULT;
        self.first_free = port + 1;
        let port = Port(port);
        self.clear_pending(frames, port);
        Ok(port)
    }

    /// Frees a port; returns what it was, for the caller to deal with its other end.
    pub fn free(&mut self, frames: &impl Frames, port: Port) -> PortState {
        let mut was = PortState::Free;
        if let Some(channel) = self.ports.get_mut(port.index()) {
            if let PortState::Virq(virq) = channel.state {
                let vcpu = channel.notify;
                let slots = if virq_is_global(virq) { self.virqs.first_mut() } else { self.virqs.get_mut(vcpu.index()) };
                if let Some(slot) = slots.and_then(|s| s.get_mut(virq.raw() as usize)) {
                    *slot = 0;
                }
            }
            was = core::mem::take(&mut channel.state);
            channel.notify = VcpuId(0);
            self.first_free = self.first_free.min(port.0).max(1);
        }
        self.clear_pending(frames, port);
        was
    }

    /// Gives out no more ports.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// The port that carries a virtual interrupt of a vCPU.
    #[must_use]
    pub fn virq_port(&self, vcpu: VcpuId, virq: Virq) -> Option<Port> {
        let port = *self.virqs.get(vcpu.index())?.get(virq.raw() as usize)?;
        NonZeroU32::new(port).map(|p| Port(p.get()))
    }

    /// Binds a virtual interrupt to a new port.
    pub fn bind_virq(&mut self, frames: &impl Frames, vcpu: VcpuId, virq: Virq) -> Result<Port, Errno> {
        if self.virq_port(vcpu, virq).is_some() {
            return Err(Errno::EEXIST);
        }
        let port = self.allocate(frames, PortState::Virq(virq), vcpu)?;
        if let Some(slot) = self.virqs.get_mut(vcpu.index()).and_then(|v| v.get_mut(virq.raw() as usize)) {
            *slot = port.0;
        }
        Ok(port)
    }

    /// Makes a port pending.
    pub fn set_pending(&mut self, frames: &impl Frames, domain: &Domain, port: Port) -> Raised {
        let Some(channel) = self.ports.get_mut(port.index()) else { return Raised::default() };
        match &mut self.fifo {
            Some(fifo) => fifo.set_pending(frames, channel, port),
            None => two_level::set_pending(frames, domain, self.shared_info, channel.notify, port),
        }
    }

    /// Opens a masked port; where it was pending its vCPU is told.
    pub fn unmask(&mut self, frames: &impl Frames, domain: &Domain, port: Port) -> Raised {
        let Some(channel) = self.ports.get_mut(port.index()) else { return Raised::default() };
        match &mut self.fifo {
            Some(fifo) => fifo.unmask(frames, channel, port),
            None => two_level::unmask(frames, domain, self.shared_info, channel.notify, port),
        }
    }

    /// True where the port is pending and whether it is masked.
    #[must_use]
    pub fn is_pending(&self, frames: &impl Frames, port: Port) -> bool {
        match &self.fifo {
            Some(fifo) => fifo.is_pending(frames, port),
            None => two_level::is_pending(frames, self.shared_info, port),
        }
    }

    /// True where the port is masked.
    #[must_use]
    pub fn is_masked(&self, frames: &impl Frames, port: Port) -> bool {
        match &self.fifo {
            Some(fifo) => fifo.is_masked(frames, port),
            None => two_level::is_masked(frames, self.shared_info, port),
        }
    }

    /// A free port that the guest has not finished with: it is still linked in a FIFO queue.
    fn is_busy(&self, frames: &impl Frames, port: Port) -> bool {
        self.fifo.as_ref().is_some_and(|f| f.is_busy(frames, port))
    }

    fn clear_pending(&self, frames: &impl Frames, port: Port) {
        match &self.fifo {
            Some(fifo) => fifo.clear_pending(frames, port),
            None => two_level::clear_pending(frames, self.shared_info, port),
        }
    }

    /// Gives a vCPU its FIFO control block; the first one switches the domain to the FIFO ABI.
    pub fn init_control(&mut self, frames: &impl Frames, vcpu: VcpuId, block: (Mfn, usize)) -> Result<(), Errno> {
        let max_vcpus = self.virqs.len();
        match &mut self.fifo {
            Some(fifo) => fifo.add_control_block(frames, vcpu, block),
            None => {
                let mut fifo = Fifo::new(max_vcpus);
                fifo.add_control_block(frames, vcpu, block)?;
                for channel in &mut self.ports {
                    channel.priority = EVTCHN_FIFO_PRIORITY_DEFAULT;
                }
                self.fifo = Some(fifo);
                Ok(())
            }
        }
    }

    /// Adds the next page of event words; ports that became pending while their page was missing are raised.
    pub fn expand_array(&mut self, frames: &impl Frames, page: Mfn) -> Result<Vec<Raised>, Errno> {
        let fifo = self.fifo.as_mut().ok_or(Errno::EOPNOTSUPP)?;
        let first = fifo.add_page(page)?;
        let mut raised = Vec::new();
        for port in fifo.take_waiting(first) {
            if let Some(channel) = self.ports.get_mut(port.index()) {
                raised.push(fifo.set_pending(frames, channel, port));
            }
        }
        Ok(raised)
    }

    /// Puts the domain back in the two-level ABI; gives the frames that the FIFO ABI held.
    pub fn reset_abi(&mut self) -> Vec<Mfn> {
        self.fifo.take().map(Fifo::into_frames).unwrap_or_default()
    }

    /// Sets the priority with which later events of a port are queued.
    pub fn set_priority(&mut self, port: Port, priority: u32) -> Result<(), Errno> {
        self.channel(port)?;
        if self.fifo.is_none() {
            return Err(Errno::ENOSYS);
        }
        if priority > oxen_abi::event_channel::EVTCHN_FIFO_PRIORITY_MIN {
            return Err(Errno::EINVAL);
        }
        self.channel_mut(port)?.priority = priority;
        Ok(())
    }

    /// The status code of a port's state for `EVTCHNOP_status`.
    #[must_use]
    pub fn status_of(state: &PortState) -> EvtchnStatus {
        match state {
            PortState::Free => EvtchnStatus::CLOSED,
            PortState::Unbound { .. } => EvtchnStatus::UNBOUND,
            PortState::Interdomain { .. } => EvtchnStatus::INTERDOMAIN,
            PortState::Pirq(_) => EvtchnStatus::PIRQ,
            PortState::Virq(_) => EvtchnStatus::VIRQ,
            PortState::Ipi => EvtchnStatus::IPI,
        }
    }
}

/// True for virtual interrupts of which a domain has one, bound on vCPU 0; false for those of which each vCPU has one.
#[must_use]
pub fn virq_is_global(virq: Virq) -> bool {
    !matches!(virq, Virq::TIMER | Virq::DEBUG | Virq::XENOPROF | Virq::XENPMU)
}
