//! `event_channel_op` for other domains.

use crate::error::Result;
use crate::privcmd::Xen;
use oxen_abi::Hypercall;
use oxen_abi::event_channel::{AllocUnbound, EvtchnOp, EvtchnStatus, Status};

/// What a port of a domain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortStatus {
    /// What it is bound to.
    pub status: EvtchnStatus,
    /// The vCPU that is notified.
    pub vcpu: u32,
    /// The domain at the other end, of unbound and interdomain ports.
    pub remote_domain: u16,
    /// The port at the other end, of interdomain ports; the number, of pirqs and virqs.
    pub number: u32,
}

impl Xen {
    /// A new port of domain `domid` to which domain `remote` may bind.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`](crate::Error::Domain): `ENOSPC` when all its ports are in use.
    pub fn alloc_unbound_port(&self, domid: u16, remote: u16) -> Result<u32> {
        let argument = AllocUnbound {
            dom: domid,
            remote_dom: remote,
            ..AllocUnbound::default()
        };
        let op = u64::from(EvtchnOp::ALLOC_UNBOUND.raw());
        let call = "event_channel_op alloc_unbound";
        // SAFETY: the structure holds no addresses.
        unsafe { self.hypercall_in_out(call, Hypercall::EVENT_CHANNEL_OP, Some(op), &argument) }
            .map(|answer| answer.port)
            .map_err(|error| error.about(domid))
    }

    /// What `port` of domain `domid` is.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`](crate::Error::Domain): `EINVAL` when it cannot have such a port.
    pub fn port_status(&self, domid: u16, port: u32) -> Result<PortStatus> {
        let argument = Status {
            dom: domid,
            port,
            ..Status::default()
        };
        let op = u64::from(EvtchnOp::STATUS.raw());
        let call = "event_channel_op status";
        // SAFETY: the structure holds no addresses.
        let answer = unsafe {
            self.hypercall_in_out(call, Hypercall::EVENT_CHANNEL_OP, Some(op), &argument)
        }
        .map_err(|error| error.about(domid))?;
        let [first, second] = answer.u;
        let number = match answer.status {
            EvtchnStatus::PIRQ | EvtchnStatus::VIRQ => first,
            _ => second,
        };
        Ok(PortStatus {
            status: answer.status,
            vcpu: answer.vcpu,
            // The domain is the low half of the first word.
            remote_domain: first as u16,
            number,
        })
    }
}
