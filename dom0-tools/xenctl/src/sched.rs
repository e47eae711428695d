//! `sched_op` on other domains.

use crate::error::Result;
use crate::privcmd::Xen;
use oxen_abi::Hypercall;
use oxen_abi::sched::{RemoteShutdown, SchedOp, ShutdownReason};

impl Xen {
    /// Stops domain `domid` as if it had shut down for `reason`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchDomain`](crate::Error::NoSuchDomain).
    pub fn shut_down(&self, domid: u16, reason: ShutdownReason) -> Result<()> {
        let argument = RemoteShutdown {
            domain_id: domid,
            reason,
            ..RemoteShutdown::default()
        };
        let op = u64::from(SchedOp::REMOTE_SHUTDOWN.raw());
        let call = "sched_op remote_shutdown";
        // SAFETY: the structure holds no addresses.
        unsafe { self.hypercall_in_out(call, Hypercall::SCHED_OP, Some(op), &argument) }
            .map(drop)
            .map_err(|error| error.about(domid))
    }
}
