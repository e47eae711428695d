//! How domains end.

use crate::Hypervisor;
use crate::ctx::Ctx;
use crate::domain::Domain;
use crate::sched::work;
use crate::vcpu::stop;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::Ordering::SeqCst;
use oxen_abi::sched::ShutdownReason;
use oxen_abi::xen::Virq;
use oxen_hal::{Machine, PowerAction};
use oxen_types::{CpuId, DomId, Port};

impl<M: Machine> Ctx<'_, M> {
    /// Ends the domain for something that it did itself, with one line that says what, and its registers.
    #[cold]
    pub fn crash(&mut self, why: fmt::Arguments<'_>) {
        self.hv.log(format_args!("{}v{} on CPU{} crashed: {why}", self.domain.id, self.vcpu.id, self.cpu));
        self.log_registers();
        self.hv.shutdown_domain(self.domain, ShutdownReason::CRASH);
    }

    /// Shows the vCPU's registers and the top of its stack in the log.
    pub(crate) fn log_registers(&self) {
        let f = *self.frame;
        self.hv.log(format_args!(
            "  rip {:04x}:{:016x} rsp {:04x}:{:016x} rflags {:08x} cr2 {:016x}",
            f.cs,
            f.rip,
            f.ss,
            f.rsp,
            f.rflags,
            self.machine().fault_address().0
        ));
        self.hv.log(format_args!("  rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}", f.rax, f.rbx, f.rcx, f.rdx));
        self.hv.log(format_args!("  rsi {:016x} rdi {:016x} rbp {:016x} r8  {:016x}", f.rsi, f.rdi, f.rbp, f.r8));
        self.hv.log(format_args!("  r9  {:016x} r10 {:016x} r11 {:016x} r12 {:016x}", f.r9, f.r10, f.r11, f.r12));
        self.hv.log(format_args!("  r13 {:016x} r14 {:016x} r15 {:016x}", f.r13, f.r14, f.r15));
        self.log_guest_stack();
    }

    fn log_guest_stack(&self) {
        for row in 0..4_u64 {
            let mut words = [0_u64; 4];
            for (i, word) in words.iter_mut().enumerate() {
                let at = self.frame.rsp.wrapping_add(row * 32 + i as u64 * 8);
                match self.machine().read_guest_u64(oxen_types::Gva(at)) {
                    Ok(value) => *word = value,
                    Err(fault) => {
                        self.hv.log(format_args!("  stack unreadable at {}", fault.va));
                        return;
                    }
                }
            }
            self.hv.log(format_args!("  stack {:016x} {:016x} {:016x} {:016x}", words[0], words[1], words[2], words[3]));
        }
    }
}

impl<M: Machine> Hypervisor<M> {
    /// Stops all vCPUs of a domain and tells the control stack. dom0's end is the machine's.
    pub fn shutdown_domain(&self, domain: &Arc<Domain>, reason: ShutdownReason) {
        let reason = domain.announced_reason().unwrap_or(reason);
        if !domain.set_shutdown(reason) {
            return;
        }
        for vcpu in domain.vcpus() {
            vcpu.stop(stop::SHUTDOWN);
            self.sched.unqueue(self.machine, vcpu);
            self.sched.nudge(self.machine, vcpu, work::RESCHEDULE);
        }
        if domain.id == DomId::DOM0 {
            self.dom0_ended(reason);
        } else {
            self.log(format_args!("{} shut down: {reason:?}", domain.id));
            let port = Port(domain.suspend_port.load(SeqCst));
            if reason != ShutdownReason::SUSPEND || port.0 == 0 || self.send_event(domain, port).is_err() {
                self.raise_global_virq(Virq::DOM_EXC);
            }
        }
    }

    /// Reports why dom0 ended and switches the machine off or restarts it.
    fn dom0_ended(&self, reason: ShutdownReason) {
        let action = match reason {
            ShutdownReason::POWEROFF => {
                self.log(format_args!("dom0 powered off"));
                self.console_end_well();
                PowerAction::PowerOff
            }
            ShutdownReason::REBOOT => {
                self.log(format_args!("dom0 rebooted"));
                self.console_end_well();
                PowerAction::Reboot
            }
            other => {
                self.log(format_args!("dom0 ended: {other:?}"));
                if self.config.no_reboot {
                    self.log(format_args!("noreboot: the machine stays as it is; reset it by hand"));
                    return;
                }
                self.log(format_args!("the machine restarts in 5 seconds; the option noreboot prevents that"));
                self.delay_ns(5_000_000_000);
                PowerAction::Reboot
            }
        };
        self.machine.power(action);
        self.log(format_args!("the machine refused {action:?}"));
    }

    fn delay_ns(&self, ns: u64) {
        let end = self.machine.now_ns().saturating_add(ns);
        while self.machine.now_ns() < end {
            oxen_sync::relax();
        }
    }

    /// An NMI that arrived while a guest ran: the hypervisor's own concern.
    pub(crate) fn nmi_from_guest(&self, cpu: CpuId) {
        self.log_limited(format_args!("NMI on CPU{cpu}"));
    }
}
