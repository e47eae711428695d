//! CPU pools and the scheduler's parameters. All processors are in pool 0, which cannot be changed.

use super::host::SCHEDULER;
use crate::ctx::Ctx;
use crate::sched::params::Params;
use oxen_abi::Errno;
use oxen_abi::sysctl::{CPUPOOL_PAR_ANY, CpupoolCmd, CpupoolOp, CreditSchedule, SCHEDOP_GETINFO, SCHEDOP_PUTINFO, SchedulerOp};
use oxen_hal::Machine;
use oxen_types::{CpuId, CpuSet, DomId};

/// The only pool.
const POOL: u32 = 0;
/// The boot processor, which never leaves pool 0.
const BOOT_CPU: CpuId = CpuId(0);

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
            CpupoolCmd::CREATE if request.cpupool_id == POOL => Err(Errno::EEXIST),
            CpupoolCmd::CREATE => self.one_pool(request),
            CpupoolCmd::MOVEDOMAIN => self.move_domain(request),
            CpupoolCmd::DESTROY | CpupoolCmd::ADDCPU | CpupoolCmd::RMCPU if request.cpupool_id != POOL => Err(Errno::ENOENT),
            // dom0 is in it.
            CpupoolCmd::DESTROY => Err(Errno::EBUSY),
            // None is free to be added.
            CpupoolCmd::ADDCPU if request.cpu == CPUPOOL_PAR_ANY || self.machine().online().contains(CpuId(request.cpu)) => Err(Errno::ENODEV),
            CpupoolCmd::ADDCPU => Err(Errno::EINVAL),
            CpupoolCmd::RMCPU => self.remove_cpu(request),
            _ => Err(Errno::ENOSYS),
        }
    }

    fn move_domain(&self, request: &CpupoolOp) -> Result<(), Errno> {
        let id = DomId(u16::try_from(request.domid).map_err(|_| Errno::ESRCH)?);
        if id == self.domain.id || id == DomId::SELF {
            return Err(Errno::EPERM);
        }
        self.hv.domains.get(id).ok_or(Errno::ESRCH)?;
        if request.cpupool_id == POOL { Ok(()) } else { Err(Errno::ENOENT) }
    }

    fn remove_cpu(&self, request: &CpupoolOp) -> Result<(), Errno> {
        let online = self.machine().online();
        let cpu = if request.cpu == CPUPOOL_PAR_ANY { online.iter().last().unwrap_or(BOOT_CPU) } else { CpuId(request.cpu) };
        if cpu == BOOT_CPU || !online.contains(cpu) { Err(Errno::EINVAL) } else { self.one_pool(request) }
    }

    fn one_pool(&self, request: &CpupoolOp) -> Result<(), Errno> {
        self.hv.log_limited(format_args!("{}: {:?} is not supported: there is one pool", self.domain.id, request.op));
        Err(Errno::EOPNOTSUPP)
    }

    pub(super) fn scheduler_op(&self, request: &mut SchedulerOp) -> Result<(), Errno> {
        if request.cmd != SCHEDOP_GETINFO && request.cmd != SCHEDOP_PUTINFO {
            return Err(Errno::EINVAL);
        }
        if request.cpupool_id != POOL {
            return Err(Errno::ESRCH);
        }
        if request.sched_id != SCHEDULER {
            return Err(Errno::EINVAL);
        }
        if request.cmd == SCHEDOP_PUTINFO {
            let wanted: CreditSchedule = request.u.read();
            let params = Params {
                tslice_ms: wanted.tslice_ms,
                ratelimit_us: wanted.ratelimit_us,
                migration_delay_us: wanted.vcpu_migr_delay_us,
            };
            if !params.are_valid() {
                return Err(Errno::EINVAL);
            }
            self.hv.sched.set_params(params);
        }
        // Both commands tell what holds now.
        let params = self.hv.sched.params();
        request.u.write(&CreditSchedule {
            tslice_ms: params.tslice_ms,
            ratelimit_us: params.ratelimit_us,
            vcpu_migr_delay_us: params.migration_delay_us,
        });
        Ok(())
    }
}
