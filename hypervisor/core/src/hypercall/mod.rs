//! Hypercalls.
//!
//! Each handler gets the calling vCPU and its six argument words, and returns the value for rax or an error number. `ERESTART` never reaches a
//! guest: it means that the handler did a part, left its progress in the argument words (which it will read again as untrusted input),
//! and wants to be called once more; in between, the guest may take interrupts.

mod bitmap;
mod callbacks;
mod console;
mod domctl;
mod event;
mod grant;
mod hypfs;
mod memory;
mod memory_exchange;
mod mmu;
mod mmuext;
mod multicall;
mod physdev;
mod platform;
mod sched;
mod segments;
mod sysctl;
#[cfg(test)]
pub(crate) mod testing;
mod vcpu;
mod version;

pub use version::VersionInfo;
pub(crate) use version::VERSION;

use crate::ctx::Ctx;
use crate::pv;
use oxen_abi::{Errno, Hypercall};
use oxen_hal::Machine;
use oxen_types::Gva;

/// Argument words of a hypercall.
pub(crate) type Args = [u64; 6];

/// Value for rax, or an error.
pub(crate) type Answer = Result<i64, Errno>;

/// Offset of the union in the structures of `event_channel_op_compat` and `physdev_op_compat` (public headers `event_channel.h`, `physdev.h`).
const EVENT_CHANNEL_COMPAT_UNION: u64 = 4;
const PHYSDEV_COMPAT_UNION: u64 = 8;
/// Length of the instruction that made the call, by which it is done again.
const SYSCALL_BYTES: u64 = 2;

impl<M: Machine> Ctx<'_, M> {
    /// Carries out the hypercall in the registers.
    #[inline]
    pub(crate) fn hypercall(&mut self) {
        let number = Hypercall(u32::try_from(self.frame.rax).unwrap_or(u32::MAX));
        if number == Hypercall::IRET {
            pv::iret(self);
            return;
        }
        let f = &*self.frame;
        let mut args = [f.rdi, f.rsi, f.rdx, f.r10, f.r8, f.r9];
        let answer = self.dispatch(number, &mut args);
        if answer == Err(Errno::ERESTART) {
            self.restart(&args);
            return;
        }
        self.frame.rax = to_rax(answer);
        if self.frame.rflags & pv::flags::TF != 0 {
            pv::stepped_over_hypercall(self);
        }
    }

    /// Makes the guest issue the call again, with the arguments as the handler left them.
    #[cold]
    fn restart(&mut self, args: &Args) {
        let f = &mut *self.frame;
        f.rip = f.rip.wrapping_sub(SYSCALL_BYTES);
        // The way back must not take these two for the return address and flags of the call that was interrupted.
        f.rcx = f.rip;
        [f.rdi, f.rsi, f.rdx, f.r10, f.r8, _] = *args;
    }

    /// Calls the handler of a hypercall.
    #[inline]
    pub(crate) fn dispatch(&mut self, number: Hypercall, args: &mut Args) -> Answer {
        match number {
            Hypercall::MMU_UPDATE => self.mmu_update(args),
            Hypercall::UPDATE_VA_MAPPING => self.update_va_mapping(args),
            Hypercall::MMUEXT_OP => self.mmuext_op(args),
            Hypercall::MULTICALL => self.multicall(args),
            Hypercall::STACK_SWITCH => self.stack_switch(args),
            Hypercall::SET_SEGMENT_BASE => self.set_segment_base(args),
            Hypercall::FPU_TASKSWITCH => self.fpu_taskswitch(args),
            Hypercall::VCPU_OP => self.vcpu_op(args),
            Hypercall::SCHED_OP => self.sched_op(args),
            Hypercall::EVENT_CHANNEL_OP => self.event_channel_op(args),
            Hypercall::XEN_VERSION => self.xen_version(args),
            Hypercall::SET_TIMER_OP => self.set_timer_op(args),
            Hypercall::UPDATE_DESCRIPTOR => self.update_descriptor(args),
            Hypercall::GRANT_TABLE_OP => self.grant_table_op(args),
            Hypercall::PHYSDEV_OP => self.physdev_op(args),
            other => self.dispatch_rare(other, args),
        }
    }

    fn dispatch_rare(&mut self, number: Hypercall, args: &mut Args) -> Answer {
        // Among these are all that change the guest's entry points.
        self.state.fast_paths_stale = true;
        match number {
            Hypercall::SET_TRAP_TABLE => self.set_trap_table(args),
            Hypercall::SET_GDT => self.set_gdt(args),
            Hypercall::SET_CALLBACKS => self.set_callbacks(args),
            Hypercall::PLATFORM_OP => self.platform_op(args),
            Hypercall::SET_DEBUGREG => self.set_debugreg(args),
            Hypercall::GET_DEBUGREG => self.get_debugreg(args),
            Hypercall::MEMORY_OP => self.memory_op(args),
            Hypercall::CONSOLE_IO => self.console_io(args),
            Hypercall::VM_ASSIST => self.vm_assist(args),
            Hypercall::UPDATE_VA_MAPPING_OTHERDOMAIN => self.update_va_mapping_otherdomain(args),
            Hypercall::CALLBACK_OP => self.callback_op(args),
            Hypercall::NMI_OP => self.nmi_op(args),
            Hypercall::SCHED_OP_COMPAT => self.sched_op_compat(args),
            Hypercall::EVENT_CHANNEL_OP_COMPAT => self.compat(args, EVENT_CHANNEL_COMPAT_UNION, Self::event_channel_op),
            Hypercall::PHYSDEV_OP_COMPAT => self.compat(args, PHYSDEV_COMPAT_UNION, Self::physdev_op),
            Hypercall::SYSCTL => self.sysctl(args),
            Hypercall::DOMCTL => self.domctl(args),
            Hypercall::HYPFS_OP => self.hypfs_op(args),
            _ => Err(Errno::ENOSYS),
        }
    }
}

impl<M: Machine> Ctx<'_, M> {
    /// An old form of a call: one structure that begins with the command, with the command's own structure `offset` bytes in.
    fn compat(&mut self, args: &Args, offset: u64, call: impl FnOnce(&mut Self, &Args) -> Answer) -> Answer {
        let command: u32 = self.read(Gva(args[0]))?;
        call(self, &[command.into(), args[0].wrapping_add(offset), 0, 0, 0, 0])
    }
}

/// An answer as the guest sees it.
#[inline]
pub(crate) fn to_rax(answer: Answer) -> u64 {
    match answer {
        Ok(value) => value as u64,
        Err(error) => error.to_ret() as u64,
    }
}

/// An argument that the interface defines as 32 bits wide.
#[inline]
pub(crate) fn low32(arg: u64) -> u32 {
    arg as u32
}
