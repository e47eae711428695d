//! Debug keys: what the hypervisor shows when asked on its serial line or by `xm debug-keys`.

use crate::Hypervisor;
use alloc::string::String;
use core::fmt::{self, Write};
use oxen_hal::{Machine, PowerAction};

/// A debug key.
struct Key<M: Machine> {
    key: u8,
    what: &'static str,
    show: fn(&Hypervisor<M>, &mut String) -> fmt::Result,
}

fn keys<M: Machine>() -> [Key<M>; 9] {
    let key = |key, what, show| Key { key, what, show };
    [
        key(b'h', "list these keys", Hypervisor::<M>::show_keys),
        key(b'q', "domains and their vCPUs", Hypervisor::<M>::show_domains),
        key(b'0', "registers of dom0's vCPUs that are not running", Hypervisor::<M>::show_registers),
        key(b'r', "run queues", Hypervisor::<M>::show_run_queues),
        key(b'e', "event channels", Hypervisor::<M>::show_events),
        key(b'm', "memory", Hypervisor::<M>::show_memory),
        key(b'i', "interrupts", Hypervisor::<M>::show_interrupts),
        key(b'a', "timers", Hypervisor::<M>::show_timers),
        key(b'R', "restart the machine at once", Hypervisor::<M>::restart),
    ]
}

impl<M: Machine> Hypervisor<M> {
    /// Does what a key stands for.
    pub fn debug_key(&self, byte: u8) {
        let Some(key) = keys::<M>().into_iter().find(|k| k.key == byte) else {
            self.log(format_args!("no debug key {:?}; h lists them", char::from(byte)));
            return;
        };
        self.log(format_args!("'{}' pressed: {}", char::from(byte), key.what));
        let mut text = String::new();
        // Writing to memory fails only if a value's own formatting does.
        let _ = (key.show)(self, &mut text);
        for line in text.lines() {
            self.log(format_args!("{line}"));
        }
    }

    fn show_keys(&self, out: &mut String) -> fmt::Result {
        for key in keys::<M>() {
            writeln!(out, " {}  {}", char::from(key.key), key.what)?;
        }
        Ok(())
    }

    fn show_domains(&self, out: &mut String) -> fmt::Result {
        let now = self.machine.now_ns();
        for domain in self.domains.snapshot() {
            let pages = self.memory.account(domain.id).map_or(0, oxen_mm::Account::pages);
            writeln!(out, "{}: {pages} pages, shutdown {:?}, dirty CPUs {}", domain.id, domain.shutdown_reason(), domain.dirty_cpus.len())?;
            for vcpu in domain.vcpus() {
                let place = *vcpu.place.lock();
                let running_ms = vcpu.runstate.lock().running_ns(now) / 1_000_000;
                write!(out, "  v{}: {place:?}, stop reasons {:#x}, ran {running_ms} ms", vcpu.id, vcpu.stop_reasons())?;
                if let Some(info) = vcpu.info() {
                    write!(out, ", upcall pending {} masked {}", info.upcall_pending(self.machine), info.upcall_masked(self.machine))?;
                }
                writeln!(out)?;
            }
        }
        Ok(())
    }

    fn show_registers(&self, out: &mut String) -> fmt::Result {
        let Some(domain) = self.domains.get(oxen_types::DomId::DOM0) else { return Ok(()) };
        for vcpu in domain.vcpus() {
            match vcpu.state.try_take() {
                Some(state) => {
                    let f = &state.context.frame;
                    writeln!(out, "v{}: rip {:04x}:{:016x} rsp {:04x}:{:016x} rflags {:x}", vcpu.id, f.cs, f.rip, f.ss, f.rsp, f.rflags)?;
                    writeln!(out, "  rax {:x} rbx {:x} rcx {:x} rdx {:x} rsi {:x} rdi {:x}", f.rax, f.rbx, f.rcx, f.rdx, f.rsi, f.rdi)?;
                }
                None => writeln!(out, "v{}: on a processor", vcpu.id)?,
            }
        }
        Ok(())
    }

    fn show_run_queues(&self, out: &mut String) -> fmt::Result {
        self.sched.describe(self.machine.online(), out)
    }

    fn show_events(&self, out: &mut String) -> fmt::Result {
        for domain in self.domains.snapshot() {
            let events = domain.events.lock();
            writeln!(out, "{}: {} ABI", domain.id, if events.is_fifo() { "FIFO" } else { "two-level" })?;
            for (port, channel) in events.in_use() {
                let pending = events.is_pending(self.machine, port);
                let masked = events.is_masked(self.machine, port);
                writeln!(out, "  {port:?}: pending {pending} masked {masked} v{} {}", channel.notify, describe(&channel.state))?;
            }
        }
        Ok(())
    }

    fn show_memory(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "free frames {}, claimed {}", self.memory.free_frames(), self.memory.claimed_frames())?;
        for domain in self.domains.snapshot() {
            if let Some(account) = self.memory.account(domain.id) {
                writeln!(out, "{}: {} of {} pages", domain.id, account.pages(), account.limit())?;
            }
        }
        Ok(())
    }

    fn show_interrupts(&self, out: &mut String) -> fmt::Result {
        for domain in self.domains.snapshot() {
            for (number, pirq) in domain.pirqs.lock().iter() {
                let kind = if pirq.msi.is_some() { "MSI" } else { "line" };
                let vector = self.machine.vector(pirq.irq).unwrap_or(0);
                writeln!(out, "{} pirq {number}: {kind} {} vector {vector:#x} CPU{} {:?} in flight {}", domain.id, pirq.irq.0, pirq.sent_to.map_or(0, |cpu| cpu.0), pirq.port, pirq.in_flight)?;
            }
        }
        Ok(())
    }

    fn show_timers(&self, out: &mut String) -> fmt::Result {
        let now = self.machine.now_ns();
        writeln!(out, "now {now} ns")?;
        for cpu in self.machine.online().iter() {
            let Some(queue) = self.timers.get(cpu.index()) else { continue };
            let queue = queue.lock();
            writeln!(out, "CPU{cpu}: {} timers, next at {:?}", queue.len(), queue.next_deadline())?;
        }
        Ok(())
    }

    fn restart(&self, _: &mut String) -> fmt::Result {
        self.machine.power(PowerAction::Reboot);
        Ok(())
    }
}

fn describe(state: &crate::event::PortState) -> String {
    use crate::event::PortState;
    match state {
        PortState::Free => String::from("free"),
        PortState::Unbound { remote } => alloc::format!("waits for {remote}"),
        PortState::Interdomain { remote_id, remote_port, .. } => alloc::format!("connected to {remote_id} {remote_port:?}"),
        PortState::Pirq(n) => alloc::format!("pirq {n}"),
        PortState::Virq(virq) => alloc::format!("{virq:?}"),
        PortState::Ipi => String::from("IPI"),
    }
}
