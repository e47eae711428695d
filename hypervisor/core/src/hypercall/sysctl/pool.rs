//! CPU pools and the scheduler's parameters. All processors are in pool 0, which cannot be changed.

use super::host::SCHEDULER;
use crate::ctx::Ctx;
use crate::sched::SLICE_NS;
use oxen_abi::Errno;
use oxen_abi::sysctl::{CpupoolCmd, CpupoolOp, CreditSchedule, SCHEDOP_GETINFO, SCHEDOP_PUTINFO, SchedulerOp};
use oxen_hal::Machine;
use oxen_types::CpuSet;

const NANOS_PER_MILLI: u64 = 1_000_000;
/// The only pool.
const POOL: u32 = 0;

impl<M: Machine> Ctx<'_, M> {
    pub(super) fn cpupool_op(&self, request: &mut CpupoolOp) -> Result<(), Errno> {
        match request.op {
            CpupoolCmd::INFO => {
                // Tools ask for each next pool until there is none.
                if request.cpupool_id > POOL {
                    return Err(Errno::ENOENT);
                }
                request.sched_id = SCHEDULER;
                request.n_dom = u32::try_from(self.hv.domains.snapshot().len()).unwrap_or(u32::MAX);
                self.write_cpus(&request.cpumap, self.machine().online())
            }
            CpupoolCmd::FREEINFO => self.write_cpus(&request.cpumap, &CpuSet::new()),
            CpupoolCmd::CREATE | CpupoolCmd::DESTROY | CpupoolCmd::ADDCPU | CpupoolCmd::RMCPU | CpupoolCmd::MOVEDOMAIN => {
                self.hv.log_limited(format_args!("{}: {:?} is not supported: there is one pool", self.domain.id, request.op));
                Err(Errno::EOPNOTSUPP)
            }
            _ => Err(Errno::ENOSYS),
        }
    }

    pub(super) fn scheduler_op(&self, request: &mut SchedulerOp) -> Result<(), Errno> {
        if request.cpupool_id != POOL {
            return Err(Errno::ESRCH);
        }
        if request.sched_id != SCHEDULER {
            return Err(Errno::EINVAL);
        }
        match request.cmd {
            SCHEDOP_GETINFO => {
                let tslice_ms = (SLICE_NS / NANOS_PER_MILLI) as u32;
                request.u.write(&CreditSchedule { tslice_ms, ratelimit_us: 0, vcpu_migr_delay_us: 0 });
                Ok(())
            }
            SCHEDOP_PUTINFO => {
                self.hv.log_limited(format_args!("{}: the scheduler's parameters cannot be changed", self.domain.id));
                Err(Errno::EOPNOTSUPP)
            }
            _ => Err(Errno::EINVAL),
        }
    }
}
