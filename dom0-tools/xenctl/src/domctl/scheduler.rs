//! A domain's share of the processors.

use crate::error::Result;
use crate::privcmd::Xen;
use oxen_abi::Payload;
use oxen_abi::domctl::{
    DomctlCmd, SCHEDOP_GETINFO, SCHEDOP_PUTINFO, SchedCredit, SchedulerId, SchedulerOp,
};

/// The share of a domain under the credit schedulers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditParameters {
    /// Its weight against other domains; 256 is usual.
    pub weight: u16,
    /// The most that it gets, in percent of one pCPU; 0 for no limit.
    pub cap: u16,
}

/// What leaves the weight as it is.
const KEEP_WEIGHT: u16 = 0;
/// What leaves the cap as it is.
const KEEP_CAP: u16 = 0xffff;

impl Xen {
    /// The share of domain `domid` under `scheduler`, which must be credit or credit2 and the one in use.
    ///
    /// # Errors
    ///
    /// [`Error::Domain`](crate::Error::Domain) with `EINVAL` under another scheduler.
    pub fn credit(&self, domid: u16, scheduler: SchedulerId) -> Result<CreditParameters> {
        self.credit_op(domid, scheduler, SCHEDOP_GETINFO, SchedCredit::default())
    }

    /// Changes the share of domain `domid`; `None` leaves a part as it is.
    ///
    /// # Errors
    ///
    /// As [`Xen::credit`], and `EINVAL` for a weight or cap out of range.
    pub fn set_credit(
        &self,
        domid: u16,
        scheduler: SchedulerId,
        weight: Option<u16>,
        cap: Option<u16>,
    ) -> Result<()> {
        let put = SchedCredit {
            weight: weight.unwrap_or(KEEP_WEIGHT),
            cap: cap.unwrap_or(KEEP_CAP),
        };
        self.credit_op(domid, scheduler, SCHEDOP_PUTINFO, put)
            .map(drop)
    }

    fn credit_op(
        &self,
        domid: u16,
        scheduler: SchedulerId,
        cmd: u32,
        parameters: SchedCredit,
    ) -> Result<CreditParameters> {
        let argument = SchedulerOp {
            sched_id: scheduler,
            cmd,
            u: Payload::new(&parameters),
        };
        let call = "domctl scheduler_op";
        // SAFETY: the commands for a whole domain take no addresses.
        let answer = unsafe { self.domctl(call, DomctlCmd::SCHEDULER_OP, domid, &argument)? };
        let parameters: SchedCredit = answer.u.read();
        Ok(CreditParameters {
            weight: parameters.weight,
            cap: parameters.cap,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeHost;

    #[test]
    fn parts_that_are_not_named_stay() {
        let host = FakeHost::new(10).unwrap();
        host.add_domain(3);
        let xen = host.xen();
        let credit = |weight, cap| CreditParameters { weight, cap };
        let get = || xen.credit(3, SchedulerId::CREDIT).unwrap();
        assert_eq!(get(), credit(256, 0));
        xen.set_credit(3, SchedulerId::CREDIT, None, Some(50))
            .unwrap();
        assert_eq!(get(), credit(256, 50));
        xen.set_credit(3, SchedulerId::CREDIT, Some(512), None)
            .unwrap();
        assert_eq!(get(), credit(512, 50));
    }
}
