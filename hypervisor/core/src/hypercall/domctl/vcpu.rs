//! A domain's vCPUs: their state, and where they may run.

use super::info::{is_running, waits};
use crate::ctx::Ctx;
use crate::domain::Domain;
use crate::vcpu::Vcpu;
use alloc::sync::Arc;
use oxen_abi::Errno;
use oxen_abi::domctl::{
    GetVcpuInfo, SCHEDOP_GETINFO, SCHEDOP_PUTINFO, SchedCredit, SchedulerId, SchedulerOp, VCPUAFFINITY_HARD, VCPUAFFINITY_SOFT, VcpuAffinity,
};
use oxen_hal::Machine;
use oxen_types::{CpuSet, VcpuId};

/// [`SchedCredit::cap`] that changes nothing.
const KEEP_CAP: u16 = u16::MAX;

/// The vCPU of that number: `EINVAL` beyond the domain's places, `ESRCH` for a place without a vCPU.
fn vcpu_of(domain: &Domain, number: u32) -> Result<&Arc<Vcpu>, Errno> {
    if number >= domain.max_vcpus() {
        return Err(Errno::EINVAL);
    }
    domain.vcpu(VcpuId(number)).ok_or(Errno::ESRCH)
}

impl<M: Machine> Ctx<'_, M> {
    pub(super) fn vcpu_info(&self, target: &Arc<Domain>, request: &mut GetVcpuInfo) -> Result<(), Errno> {
        let vcpu = vcpu_of(target, request.vcpu)?;
        request.online = vcpu.is_up().into();
        request.blocked = waits(vcpu).into();
        request.running = is_running(vcpu).into();
        request.cpu_time = vcpu.runstate.lock().running_ns(self.machine().now_ns());
        request.cpu = vcpu.place.lock().cpu().0;
        Ok(())
    }

    /// Tells or sets a domain's weight and cap. Weight 0 and cap 0xffff leave what was there.
    pub(super) fn domain_scheduling(&self, target: &Arc<Domain>, request: &mut SchedulerOp) -> Result<(), Errno> {
        if request.sched_id != SchedulerId::CREDIT {
            return Err(Errno::EINVAL);
        }
        match request.cmd {
            SCHEDOP_GETINFO => {
                request.u.write(&SchedCredit { weight: target.share.weight(), cap: target.share.cap() });
                Ok(())
            }
            SCHEDOP_PUTINFO => {
                let wanted: SchedCredit = request.u.read();
                if wanted.weight != 0 {
                    target.share.set_weight(wanted.weight);
                }
                if wanted.cap != KEEP_CAP {
                    target.share.set_cap(wanted.cap, self.machine().now_ns());
                    // Slices begin to end, or parked vCPUs may run.
                    target.vcpus().for_each(|vcpu| self.hv.reschedule(vcpu));
                }
                Ok(())
            }
            // This scheduler has nothing that is set per vCPU.
            _ => Err(Errno::EINVAL),
        }
    }

    pub(super) fn vcpu_affinity(&self, target: &Arc<Domain>, request: &mut VcpuAffinity) -> Result<(), Errno> {
        check_maps(request)?;
        let vcpu = vcpu_of(target, request.vcpu)?;
        if request.flags & VCPUAFFINITY_HARD != 0 {
            let hard = vcpu.hard_affinity.lock().clone();
            self.write_cpus(&request.cpumap_hard, &hard)?;
        }
        if request.flags & VCPUAFFINITY_SOFT != 0 {
            let soft = vcpu.soft_affinity.lock().clone();
            self.write_cpus(&request.cpumap_soft, &soft)?;
        }
        Ok(())
    }

    /// Sets where a vCPU may run and where it prefers to. The maps return what comes of it.
    pub(super) fn set_vcpu_affinity(&self, target: &Arc<Domain>, request: &mut VcpuAffinity) -> Result<(), Errno> {
        check_maps(request)?;
        let vcpu = vcpu_of(target, request.vcpu)?;
        let online = self.machine().online();
        let hard = self.wanted(request, VCPUAFFINITY_HARD)?;
        let soft = self.wanted(request, VCPUAFFINITY_SOFT)?;
        if hard.iter().chain(&soft).any(|cpus| intersection(cpus, online).is_empty()) {
            return Err(Errno::EINVAL);
        }
        if let Some(hard) = &hard {
            *vcpu.hard_affinity.lock() = hard.clone();
            self.hv.sched.affinity_changed(self.machine(), vcpu);
        }
        if let Some(soft) = &soft {
            *vcpu.soft_affinity.lock() = soft.clone();
        }
        let usable = intersection(&vcpu.hard_affinity.lock().clone(), online);
        if hard.is_some() {
            self.write_cpus(&request.cpumap_hard, &usable)?;
        }
        if let Some(soft) = soft {
            self.write_cpus(&request.cpumap_soft, &intersection(&soft, &usable))?;
        }
        Ok(())
    }

    /// The map that goes with `flag`, where the request has it.
    fn wanted(&self, request: &VcpuAffinity, flag: u32) -> Result<Option<CpuSet>, Errno> {
        if request.flags & flag == 0 {
            return Ok(None);
        }
        let map = if flag == VCPUAFFINITY_HARD { &request.cpumap_hard } else { &request.cpumap_soft };
        self.read_cpus(map).map(Some)
    }
}

/// Refuses a request for nothing, and maps that are nowhere.
fn check_maps(request: &VcpuAffinity) -> Result<(), Errno> {
    let missing = |flag: u32, address: u64| request.flags & flag != 0 && address == 0;
    if request.flags & (VCPUAFFINITY_HARD | VCPUAFFINITY_SOFT) == 0
        || missing(VCPUAFFINITY_HARD, request.cpumap_hard.bitmap.address())
        || missing(VCPUAFFINITY_SOFT, request.cpumap_soft.bitmap.address())
    {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

fn intersection(a: &CpuSet, b: &CpuSet) -> CpuSet {
    let both = CpuSet::new();
    for cpu in a.iter().filter(|&cpu| b.contains(cpu)) {
        both.insert(cpu);
    }
    both
}
