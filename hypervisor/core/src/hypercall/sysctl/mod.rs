//! `sysctl`: the host as a whole.

mod console;
mod cpu;
mod domains;
mod host;
mod pool;
#[cfg(test)]
mod tests;

use super::{Answer, Args};
use crate::ctx::Ctx;
use oxen_abi::Errno;
use oxen_abi::sysctl::{Sysctl, SysctlCmd, XEN_SYSCTL_INTERFACE_VERSION};
use oxen_abi::zerocopy::{FromBytes, Immutable, IntoBytes};
use oxen_hal::Machine;
use oxen_types::Gva;

impl<M: Machine> Ctx<'_, M> {
    /// `(operation)`.
    pub(super) fn sysctl(&mut self, args: &Args) -> Answer {
        self.require_control()?;
        let argument = Gva(args[0]);
        let mut op: Sysctl = self.read(argument)?;
        if op.interface_version != XEN_SYSCTL_INTERFACE_VERSION {
            return Err(Errno::EACCES);
        }
        match op.cmd {
            SysctlCmd::READCONSOLE => self.with_payload(&mut op, Self::read_console)?,
            SysctlCmd::PHYSINFO => self.with_payload(&mut op, Self::physinfo)?,
            SysctlCmd::SCHED_ID => self.with_payload(&mut op, Self::sched_id)?,
            SysctlCmd::GETDOMAININFOLIST => self.with_payload(&mut op, Self::domain_info_list)?,
            SysctlCmd::DEBUG_KEYS => self.debug_keys(&op.u.read())?,
            SysctlCmd::GETCPUINFO => self.with_payload(&mut op, Self::cpu_idle_times)?,
            SysctlCmd::AVAILHEAP => self.with_payload(&mut op, Self::available_heap)?,
            SysctlCmd::CPUTOPOINFO => self.with_payload(&mut op, Self::cpu_topology)?,
            SysctlCmd::NUMAINFO => self.with_payload(&mut op, Self::numa_info)?,
            SysctlCmd::CPUPOOL_OP => self.with_payload(&mut op, Self::cpupool_op)?,
            SysctlCmd::SCHEDULER_OP => self.with_payload(&mut op, Self::scheduler_op)?,
            SysctlCmd::GET_CPU_FEATURESET => {
                let mut request = op.u.read();
                let done = self.cpu_featureset(&mut request);
                // A caller with too short an array gets what fits and the number of words, along with the error.
                op.u.write(&request);
                self.write(argument, &op)?;
                done?;
                return Ok(0);
            }
            SysctlCmd::GET_CPU_POLICY => self.with_payload(&mut op, Self::host_policy)?,
            // Where PCI functions are is not looked up: dom0 finds them, the hypervisor keeps no list.
            SysctlCmd::PCITOPOINFO => return Err(Errno::ENODEV),
            other => {
                self.hv.log_limited(format_args!("{}: sysctl {other:?} is not implemented", self.domain.id));
                return Err(Errno::ENOSYS);
            }
        }
        self.write(argument, &op)?;
        self.hv.bury_dead();
        Ok(0)
    }

    /// Lets `handler` work on the payload, which is changed where it succeeds.
    fn with_payload<T: FromBytes + IntoBytes + Immutable>(
        &self,
        op: &mut Sysctl,
        handler: impl FnOnce(&Self, &mut T) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mut request: T = op.u.read();
        handler(self, &mut request)?;
        op.u.write(&request);
        Ok(())
    }
}
