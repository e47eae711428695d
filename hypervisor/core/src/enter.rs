//! From a guest and back: every entry ends here, and every return to a guest starts here.

use crate::ctx::Ctx;
use crate::domain::Domain;
use crate::sched::work;
use crate::vcpu::{Vcpu, VcpuState, stop};
use crate::{Hypervisor, pv};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;
use oxen_abi::sched::ShutdownReason;
use oxen_hal::{Arrived, GuestFrame, Machine, VECTOR_DONE, VECTOR_HYPERCALL};
use oxen_sync::ExclusiveGuard;
use oxen_types::CpuId;

/// First vector that is an interrupt; below are the processor's exceptions.
const FIRST_INTERRUPT: u32 = 32;

/// The vCPU that runs on a processor, with what that processor has taken of it.
#[derive(Debug)]
pub struct Running {
    /// The vCPU.
    pub vcpu: Arc<Vcpu>,
    /// Its domain.
    pub domain: Arc<Domain>,
    /// Its private state.
    pub state: ExclusiveGuard<VcpuState>,
}

/// What a processor keeps for itself.
#[derive(Debug)]
pub struct Local {
    /// Its number.
    pub cpu: CpuId,
    /// The vCPU that runs on it; `None` while it is idle.
    pub running: Option<Running>,
}

impl Local {
    /// An idle processor.
    #[must_use]
    pub const fn new(cpu: CpuId) -> Self {
        Self { cpu, running: None }
    }
}

impl<M: Machine> Hypervisor<M> {
    /// Handles one entry from a guest and prepares the return: `frame` holds the registers of the guest that was interrupted, and on return those of
    /// the guest that is to go on, which may be another one.
    #[inline]
    pub fn from_guest(&self, local: &mut Local, frame: &mut GuestFrame) {
        if let Some(running) = &mut local.running {
            let mut ctx = Ctx {
                hv: self,
                cpu: local.cpu,
                vcpu: &running.vcpu,
                domain: &running.domain,
                state: &mut running.state,
                frame,
            };
            // The entry code may have changed the mode by itself.
            ctx.state.context.in_kernel = self.machine.guest_in_kernel();
            ctx.handle_entry();
            if ctx.finish() {
                return;
            }
        }
        self.reschedule_and_finish(local, frame);
    }

    /// Starts scheduling on a processor that has run no guest yet; returns with the registers of the first one in `frame`.
    pub fn start_cpu(&self, local: &mut Local, frame: &mut GuestFrame) {
        self.sched.add_work(local.cpu, work::RESCHEDULE);
        self.reschedule_and_finish(local, frame);
    }

    /// An interrupt that arrived in the idle loop.
    pub fn host_interrupt(&self, cpu: CpuId, vector: u8) {
        self.arrived(cpu, vector);
    }

    /// Does what an interrupt asks for.
    pub(crate) fn arrived(&self, cpu: CpuId, vector: u8) {
        match self.machine.acknowledge(vector) {
            Arrived::Nothing => {}
            Arrived::Kick => {
                if self.memory.take_freed_of_dying() {
                    self.bury_dead();
                }
            }
            Arrived::Timer => self.sched.add_work(cpu, work::TIMER),
            Arrived::ConsoleInput => self.console_input(),
            Arrived::Device(irq) => self.device_interrupt(irq),
        }
    }

    #[cold]
    fn reschedule_and_finish(&self, local: &mut Local, frame: &mut GuestFrame) {
        loop {
            self.do_work(local, frame);
            let Some(running) = &mut local.running else {
                self.machine.wait_for_interrupt();
                continue;
            };
            self.refresh_ldt(&running.vcpu, &mut running.state);
            let mut ctx = Ctx {
                hv: self,
                cpu: local.cpu,
                vcpu: &running.vcpu,
                domain: &running.domain,
                state: &mut running.state,
                frame,
            };
            if ctx.finish() {
                return;
            }
        }
    }

    /// Runs due timers and changes the running vCPU where that was asked for.
    fn do_work(&self, local: &mut Local, frame: &mut GuestFrame) {
        let mut todo = self.sched.take_work(local.cpu);
        if todo & work::TIMER != 0 {
            self.run_timers(local.cpu);
            todo |= self.sched.take_work(local.cpu);
        }
        let must_stop = local.running.as_ref().is_some_and(|r| !r.vcpu.is_runnable());
        if todo & work::RESCHEDULE != 0 || must_stop || local.running.is_none() {
            self.change_vcpu(local, frame);
        }
    }

    /// Takes the running vCPU off and puts the next one on; the same one again where nothing else waits.
    fn change_vcpu(&self, local: &mut Local, frame: &mut GuestFrame) {
        if let Some(running) = &local.running
            && self.sched.goes_on(self.machine, local.cpu, &running.vcpu)
        {
            self.set_slice_timer(local);
            return;
        }
        if let Some(running) = local.running.take() {
            self.take_off(local.cpu, running, frame);
        }
        while let Some(vcpu) = self.sched.pick(self.machine, local.cpu) {
            local.running = self.put_on(local.cpu, vcpu.clone(), frame);
            if local.running.is_some() {
                break;
            }
            self.refuse(local.cpu, &vcpu);
        }
        self.set_slice_timer(local);
    }

    /// Takes a vCPU off that cannot run: it was set up for user mode without page tables for it, or its domain is gone.
    #[cold]
    fn refuse(&self, cpu: CpuId, vcpu: &Arc<Vcpu>) {
        match vcpu.domain() {
            Some(domain) => {
                self.log(format_args!("{}v{} on CPU{cpu} crashed: no page tables for the mode that it is in", vcpu.domid, vcpu.id));
                self.shutdown_domain(&domain, ShutdownReason::CRASH);
                // Where the domain had shut down before, that alone keeps nobody from running.
                vcpu.stop(stop::DOWN);
            }
            None => vcpu.stop(stop::DYING),
        }
        self.sched.put_back(self.machine, cpu, vcpu);
    }

    /// Sets the timer that makes the processor choose again, where it is to.
    fn set_slice_timer(&self, local: &Local) {
        if let Some(queue) = self.timers.get(local.cpu.index()) {
            let end = self.sched.next_choice(local.cpu, local.running.as_ref().map(|running| &running.vcpu));
            let changed = {
                let mut queue = queue.lock();
                let changed = queue.slice_end_ns != end;
                queue.slice_end_ns = end;
                changed
            };
            if changed {
                self.program_deadline(local.cpu);
            }
        }
    }

    fn take_off(&self, cpu: CpuId, mut running: Running, frame: &GuestFrame) {
        self.machine.save_context(&mut running.state.context, frame);
        self.machine.load_idle_root();
        running.domain.dirty_cpus.remove(cpu);
        let Running { vcpu, state, .. } = running;
        drop(state);
        self.sched.put_back(self.machine, cpu, &vcpu);
    }

    /// Loads a vCPU. `None` where it cannot run, as its domain or the page tables for its mode are missing.
    fn put_on(&self, cpu: CpuId, vcpu: Arc<Vcpu>, frame: &mut GuestFrame) -> Option<Running> {
        let domain = vcpu.domain()?;
        let state = vcpu.state.take();
        let root = state.active_root()?;
        domain.dirty_cpus.insert(cpu);
        if vcpu.has_interrupts.load(Relaxed) {
            self.interrupts_follow(&domain, &vcpu, cpu);
        }
        self.machine.load_root(root, true);
        let gdt: alloc::vec::Vec<_> = state.gdt_frames.iter().map(oxen_mm::HeldTyped::mfn).collect();
        self.machine.set_guest_gdt(&gdt);
        self.machine.set_guest_ldt(state.ldt.entries);
        for (index, page) in state.ldt_frames.iter().enumerate() {
            if let Some(page) = page {
                self.machine.map_ldt_page(index, page.mfn());
            }
        }
        let selectors_fine = self.machine.load_context(&state.context, frame);
        let mut running = Running { vcpu, domain, state };
        running.state.fast_paths_stale = true;
        self.update_guest_time(&mut running);
        if !selectors_fine {
            let Running { vcpu, domain, state } = &mut running;
            let mut ctx = Ctx { hv: self, cpu, vcpu, domain, state, frame };
            pv::failsafe(&mut ctx);
        }
        Some(running)
    }

    /// Writes the records that change whenever a vCPU starts to run. They go through the guest kernel's page tables.
    fn update_guest_time(&self, running: &mut Running) {
        let in_user = !running.state.context.in_kernel;
        let needs_kernel_root = in_user && !(running.state.runstate_area.is_null() && running.state.time_area.is_null());
        if needs_kernel_root && let Some(root) = running.state.root.as_ref().map(oxen_mm::HeldTable::mfn) {
            self.machine.load_root(root, false);
        }
        self.update_vcpu_time(&running.vcpu, &running.state);
        self.update_runstate_area(&running.vcpu, &running.state);
        if needs_kernel_root && let Some(root) = running.state.user_root.as_ref().map(oxen_mm::HeldTable::mfn) {
            self.machine.load_root(root, false);
        }
    }
}

impl<M: Machine> Ctx<'_, M> {
    /// Dispatches on what brought the guest here.
    #[inline]
    fn handle_entry(&mut self) {
        let vector = self.frame.entry_vector;
        if vector == VECTOR_HYPERCALL {
            if self.state.context.in_kernel {
                self.hypercall();
            } else {
                pv::syscall_from_user(self);
            }
        } else if vector < FIRST_INTERRUPT {
            pv::exception(self, vector as u8);
        } else if vector < VECTOR_HYPERCALL {
            self.hv.arrived(self.cpu, vector as u8);
        } else if vector != VECTOR_DONE {
            pv::legacy_syscall(self, vector);
        }
    }

    /// Delivers a pending upcall and says whether the guest may go on; not so where the processor has other work first.
    #[inline(always)]
    fn finish(&mut self) -> bool {
        if self.hv.sched.has_work(self.cpu) || !self.vcpu.is_runnable() {
            return false;
        }
        if self.vcpu.nmi_pending.load(Relaxed) && !self.state.nmi_masked {
            pv::deliver_nmi(self);
        }
        if self.state.fast_paths_stale {
            self.refresh_fast_paths();
        }
        if let Some(info) = self.vcpu.info()
            && info.upcall_deliverable(self.machine())
        {
            pv::deliver_upcall(self);
            return self.vcpu.is_runnable();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypercall::testing::{D5, World};
    use crate::vcpu::Placement;
    use oxen_types::VcpuId;

    #[test]
    fn a_vcpu_without_page_tables_crashes_its_domain_and_leaves_the_processor() {
        let w = World::new();
        let d5 = w.domain(D5);
        let vcpu = d5.vcpu(VcpuId(0)).unwrap();
        vcpu.unstop(stop::DOWN);
        w.hv.sched.wake(w.machine, vcpu);
        let mut local = Local::new(CpuId(0));
        w.hv.do_work(&mut local, &mut GuestFrame::default());
        assert!(local.running.is_none());
        assert_eq!(*vcpu.place.lock(), Placement::Off(CpuId(0)));
        assert!(!vcpu.state.is_taken());
        assert_eq!(d5.shutdown_reason(), Some(ShutdownReason::CRASH));
    }
}
