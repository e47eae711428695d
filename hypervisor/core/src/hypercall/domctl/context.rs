//! The register state of another domain's vCPUs.

use crate::Hypervisor;
use crate::ctx::Ctx;
use crate::domain::Domain;
use crate::sched::work::RESCHEDULE;
use crate::vcpu::{Vcpu, VcpuState, stop};
use alloc::boxed::Box;
use alloc::sync::Arc;
use oxen_abi::Errno;
use oxen_abi::arch_x86_64::{VGCF_ONLINE, VcpuGuestContext};
use oxen_abi::domctl::VcpuContext;
use oxen_abi::zerocopy::IntoBytes;
use oxen_hal::Machine;
use oxen_types::{Gva, VcpuId};

/// Lets a vCPU run again when dropped.
struct Paused<'a, M: Machine> {
    hv: &'a Hypervisor<M>,
    vcpu: &'a Arc<Vcpu>,
}

impl<M: Machine> Drop for Paused<'_, M> {
    fn drop(&mut self) {
        self.vcpu.unpause();
        self.hv.sched.wake(self.hv.machine, self.vcpu);
    }
}

impl<M: Machine> Hypervisor<M> {
    /// Keeps a vCPU of another domain than the caller's from running while `work` has its state.
    pub(super) fn with_stopped<R>(&self, vcpu: &Arc<Vcpu>, work: impl FnOnce(&mut VcpuState) -> R) -> R {
        vcpu.pause();
        let _paused = Paused { hv: self, vcpu };
        self.sched.unqueue(self.machine, vcpu);
        self.sched.nudge(self.machine, vcpu, RESCHEDULE);
        self.wait_until_off(vcpu);
        work(&mut vcpu.state.take())
    }
}

impl<M: Machine> Ctx<'_, M> {
    /// Sets a vCPU up, gives new registers to one that is set up, or, with a null context, makes it one that is not.
    pub(super) fn set_vcpu_context(&mut self, target: &Arc<Domain>, request: &VcpuContext) -> Result<(), Errno> {
        self.require_other(target)?;
        let vcpu = target.vcpu(VcpuId(request.vcpu)).ok_or(Errno::EINVAL)?;
        let _control = self.hv.control.try_take().ok_or(Errno::ERESTART)?;
        if target.is_dying() {
            return Err(Errno::EINVAL);
        }
        if request.ctxt.is_null() {
            vcpu.stop(stop::DOWN);
            return self.hv.with_stopped(vcpu, |state| self.hv.reset_vcpu(target, state));
        }
        let mut context = Box::new(VcpuGuestContext::default());
        self.machine().copy_from_guest(context.as_mut_bytes(), Gva(request.ctxt.address())).map_err(|_| Errno::EFAULT)?;
        self.hv.with_stopped(vcpu, |state| {
            if state.initialised {
                self.hv.replace_guest_context(target, vcpu, state, &context)
            } else {
                self.hv.set_guest_context(target, vcpu, state, &context)
            }
        })?;
        if vcpu.id.0 == 0 {
            // The tools have just cleared the page that has it.
            self.hv.update_wall_clock(target);
        }
        if context.flags & VGCF_ONLINE != 0 {
            self.hv.bring_up(self.cpu, vcpu);
        } else {
            vcpu.stop(stop::DOWN);
        }
        Ok(())
    }

    /// Tells the registers of a vCPU.
    pub(super) fn vcpu_context(&self, target: &Arc<Domain>, request: &VcpuContext) -> Result<(), Errno> {
        self.require_other(target)?;
        if request.vcpu >= target.max_vcpus() {
            return Err(Errno::EINVAL);
        }
        let vcpu = target.vcpu(VcpuId(request.vcpu)).ok_or(Errno::ESRCH)?;
        let mut context = Box::new(VcpuGuestContext::default());
        self.hv.with_stopped(vcpu, |state| {
            if !state.initialised {
                return Err(Errno::ENODATA);
            }
            self.hv.tell_guest_context(target, vcpu, state, &mut context);
            Ok(())
        })?;
        self.write(Gva(request.ctxt.address()), &*context)
    }
}
