//! `vcpu_op`: bringing vCPUs up and down, their records and timers.

use super::{Answer, Args};
use crate::ctx::Ctx;
use crate::sched::work;
use crate::time::{MAX_PERIOD_NS, MIN_PERIOD_NS};
use crate::timer::TimerKind;
use crate::vcpu::{Vcpu, VcpuInfoPtr, stop};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::SeqCst;
use oxen_abi::Errno;
use oxen_abi::arch_x86_64::VcpuGuestContext;
use oxen_abi::sched::ShutdownReason;
use oxen_abi::vcpu::{
    GetPhysid, RegisterRunstateMemoryArea, RegisterTimeMemoryArea, RegisterVcpuInfo, SetPeriodicTimer, SetSingleshotTimer,
    VcpuOp,
};
use oxen_abi::zerocopy::IntoBytes;
use alloc::boxed::Box;
use oxen_hal::Machine;
use oxen_types::{Gva, Maddr, Mfn, VcpuId};

/// Size of `struct vcpu_info`.
const VCPU_INFO_BYTES: usize = 64;

impl<M: Machine> Ctx<'_, M> {
    /// `(command, vcpu, argument)`.
    pub(super) fn vcpu_op(&mut self, args: &Args) -> Answer {
        let id = VcpuId(super::low32(args[1]));
        let target = self.domain.vcpu(id).cloned().ok_or(Errno::ENOENT)?;
        let argument = Gva(args[2]);
        let own = Arc::ptr_eq(&target, self.vcpu);
        match VcpuOp(super::low32(args[0])) {
            VcpuOp::SET_SINGLESHOT_TIMER => self.set_singleshot_timer(own, argument)?,
            VcpuOp::STOP_SINGLESHOT_TIMER => {
                require(own)?;
                self.hv.set_vcpu_timer(self.cpu, &target, TimerKind::SingleShot, None);
            }
            VcpuOp::INITIALISE => self.initialise(&target, argument)?,
            VcpuOp::UP => self.bring_up(&target, own)?,
            VcpuOp::DOWN => self.take_down(&target),
            VcpuOp::IS_UP => return Ok(target.is_up().into()),
            VcpuOp::GET_RUNSTATE_INFO => {
                let info = target.runstate.lock().info_at(self.machine().now_ns());
                self.write(argument, &info)?;
            }
            VcpuOp::REGISTER_RUNSTATE_MEMORY_AREA => {
                let area: RegisterRunstateMemoryArea = self.read(argument)?;
                self.register_runstate(&target, own, Gva(area.address))?;
            }
            VcpuOp::REGISTER_VCPU_TIME_MEMORY_AREA => {
                let area: RegisterTimeMemoryArea = self.read(argument)?;
                self.register_time(&target, own, Gva(area.address))?;
            }
            VcpuOp::SET_PERIODIC_TIMER => {
                let request: SetPeriodicTimer = self.read(argument)?;
                if !(MIN_PERIOD_NS..=MAX_PERIOD_NS).contains(&request.period_ns) {
                    return Err(Errno::EINVAL);
                }
                self.hv.set_period(self.cpu, &target, request.period_ns);
            }
            VcpuOp::STOP_PERIODIC_TIMER => self.hv.set_period(self.cpu, &target, 0),
            VcpuOp::REGISTER_VCPU_INFO => {
                let request: RegisterVcpuInfo = self.read(argument)?;
                self.register_vcpu_info(&target, own, request)?;
            }
            VcpuOp::SEND_NMI => {
                if !argument.is_null() {
                    return Err(Errno::EINVAL);
                }
                target.nmi_pending.store(true, SeqCst);
                self.hv.kick_upcall(&target);
            }
            VcpuOp::GET_PHYSID => self.get_physid(&target, argument)?,
            _ => return Err(Errno::ENOSYS),
        }
        Ok(0)
    }

    fn set_singleshot_timer(&mut self, own: bool, argument: Gva) -> Result<(), Errno> {
        require(own)?;
        let request: SetSingleshotTimer = self.read(argument)?;
        // A time in the past goes off at once, with the flag VCPU_SSHOTTMR_future too, as in Xen 4.17.
        self.hv.set_vcpu_timer(self.cpu, self.vcpu, TimerKind::SingleShot, Some(request.timeout_abs_ns));
        Ok(())
    }

    fn initialise(&mut self, target: &Arc<Vcpu>, argument: Gva) -> Result<(), Errno> {
        if target.info().is_none() {
            return Err(Errno::EINVAL);
        }
        let mut context = Box::new(VcpuGuestContext::default());
        self.machine().copy_from_guest(context.as_mut_bytes(), argument).map_err(|_| Errno::EFAULT)?;
        // A vCPU that is up has its state taken by a processor; one that is down has not, for long.
        if target.is_up() {
            return Err(Errno::EEXIST);
        }
        // A sibling may have taken it down a moment ago, and its processor still has the state: the call is made again.
        let mut state = target.state.try_take().ok_or(Errno::ERESTART)?;
        if state.initialised {
            return Err(Errno::EEXIST);
        }
        self.hv.set_guest_context(self.domain, target, &mut state, &context)
    }

    fn bring_up(&self, target: &Arc<Vcpu>, own: bool) -> Result<(), Errno> {
        if own {
            return Ok(());
        }
        let initialised = target.is_up() || target.state.try_take().ok_or(Errno::ERESTART)?.initialised;
        if !initialised {
            return Err(Errno::EINVAL);
        }
        self.hv.bring_up(self.cpu, target);
        Ok(())
    }

    fn take_down(&self, target: &Arc<Vcpu>) {
        let others_up = self.domain.vcpus().any(|v| !Arc::ptr_eq(v, target) && v.is_up());
        if !others_up {
            self.hv.shutdown_domain(self.domain, ShutdownReason::POWEROFF);
            return;
        }
        target.stop(stop::DOWN);
        self.hv.sched.unqueue(self.machine(), target);
        self.hv.sched.nudge(self.machine(), target, work::RESCHEDULE);
    }

    fn register_runstate(&mut self, target: &Arc<Vcpu>, own: bool, area: Gva) -> Result<(), Errno> {
        if !area.range_is_guest(size_of::<oxen_abi::vcpu::RunstateInfo>()) {
            return Err(Errno::EFAULT);
        }
        if own {
            self.state.runstate_area = area;
            self.hv.update_runstate_area(self.vcpu, self.state);
            return Ok(());
        }
        // The record of another vCPU is written when it runs next, through its own page tables.
        let info = target.runstate.lock().info_at(self.machine().now_ns());
        self.write(area, &info)?;
        target.state.try_take().ok_or(Errno::EBUSY)?.runstate_area = area;
        Ok(())
    }

    fn register_time(&mut self, target: &Arc<Vcpu>, own: bool, area: Gva) -> Result<(), Errno> {
        if !area.range_is_guest(size_of::<oxen_abi::xen::VcpuTimeInfo>()) {
            return Err(Errno::EFAULT);
        }
        if own {
            self.state.time_area = area;
            self.hv.update_vcpu_time(self.vcpu, self.state);
        } else {
            target.state.try_take().ok_or(Errno::EBUSY)?.time_area = area;
        }
        Ok(())
    }

    /// Moves a vCPU's record to a frame of the guest's, where it stays.
    fn register_vcpu_info(&mut self, target: &Arc<Vcpu>, own: bool, request: RegisterVcpuInfo) -> Result<(), Errno> {
        let offset = request.offset as usize;
        if offset > 4096 - VCPU_INFO_BYTES || !offset.is_multiple_of(8) {
            return Err(Errno::ENXIO);
        }
        if !own && target.is_up() {
            return Err(Errno::EINVAL);
        }
        let frame = self
            .hv
            .memory
            .get_writable(Mfn(request.mfn), self.domain.id, &self.domain.dirty_cpus)
            .map_err(oxen_mm::MmError::errno)?
            .hold();
        let mfn = frame.mfn();
        {
            let mut place = target.info_frame.lock();
            if place.is_some() {
                drop(place);
                self.hv.memory.put_typed(frame);
                return Err(Errno::EINVAL);
            }
            *place = Some(frame);
        }
        let to = Maddr(mfn.maddr().0 + offset as u64);
        match target.info() {
            Some(VcpuInfoPtr(from)) => {
                let mut bytes = [0; VCPU_INFO_BYTES];
                self.machine().read_bytes(from.mfn(), from.page_offset(), &mut bytes);
                self.machine().write_bytes(mfn, offset, &bytes);
            }
            None => {
                self.machine().write_bytes(mfn, offset, &[0; VCPU_INFO_BYTES]);
                VcpuInfoPtr(to).set_upcall_mask(self.machine(), true);
            }
        }
        target.set_info(to);
        self.state.fast_paths_stale = true;
        // Whatever became pending meanwhile was recorded in the old place only: have the guest look at everything.
        core::sync::atomic::fence(SeqCst);
        let info = VcpuInfoPtr(to);
        info.or_pending_selector(self.machine(), u64::MAX);
        self.hv.mark_upcall(target);
        Ok(())
    }

    /// The physical identity of a vCPU that stays on one processor.
    fn get_physid(&self, target: &Vcpu, argument: Gva) -> Result<(), Errno> {
        self.require_hardware()?;
        let affinity = target.hard_affinity.lock().clone();
        let mut cpus = affinity.iter();
        let (Some(cpu), None) = (cpus.next(), cpus.next()) else { return Err(Errno::EINVAL) };
        let (apic, acpi) = self.machine().cpu_identity(cpu).ok_or(Errno::EINVAL)?;
        self.write(argument, &GetPhysid { phys_id: u64::from(apic) | u64::from(acpi) << 32 })
    }
}

fn require(own: bool) -> Result<(), Errno> {
    if own { Ok(()) } else { Err(Errno::EINVAL) }
}
