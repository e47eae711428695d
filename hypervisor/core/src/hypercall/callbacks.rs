//! Entry points of the guest's kernel: trap table, callbacks, assists, debug registers.

use super::{Answer, Args};
use crate::ctx::Ctx;
use crate::vcpu::Callback;
use oxen_abi::Errno;
use oxen_abi::arch_x86_64::TrapInfo;
use oxen_abi::callback::{CALLBACKF_MASK_EVENTS, CallbackOp, CallbackRegister, CallbackType, CallbackUnregister};
use oxen_hal::Machine;
use oxen_types::Gva;

/// Entries of a trap table read before the guest may take interrupts; a table of 256 vectors is done at once.
const MAX_TRAP_ENTRIES: u64 = 512;
/// Assists that exist: 4gb_segments, 4gb_segments_notify, writable_pagetables, pae_extended_cr3, architectural_iopl,
/// runstate_update_flag and m2p_strict (public header `xen.h`).
const KNOWN_ASSISTS: u64 = 0x3f | 1 << 32;
/// Fixed bits of DR6 and DR7 (Intel SDM vol. 3, "Debug Registers").
const DR6_ONES: u64 = 0xffff_0ff0;
const DR6_ZEROS: u64 = 1 << 12;
const DR7_ONES: u64 = 1 << 10;
const DR7_ZEROS: u64 = 1 << 11 | 1 << 12 | 1 << 14 | 1 << 15;
const DR7_GENERAL_DETECT: u64 = 1 << 13;
/// Enable bits of the four breakpoints.
const DR7_ENABLES: u64 = 0xff;

impl<M: Machine> Ctx<'_, M> {
    /// `(traps)`: an array that ends with address 0, or null to clear all.
    pub(super) fn set_trap_table(&mut self, args: &Args) -> Answer {
        let list = Gva(args[0]);
        if list.is_null() {
            self.state.traps.fill(TrapInfo::default());
            return Ok(0);
        }
        for index in 0..MAX_TRAP_ENTRIES {
            let mut entry: TrapInfo = self.read_element(list, index)?;
            if entry.address == 0 {
                return Ok(0);
            }
            if !Gva(entry.address).is_canonical() {
                return Err(Errno::EINVAL);
            }
            entry.cs |= 3;
            if let Some(slot) = self.state.traps.get_mut(usize::from(entry.vector)) {
                *slot = entry;
            }
        }
        Err(Errno::EINVAL)
    }

    /// `(event, failsafe, syscall)`.
    pub(super) fn set_callbacks(&mut self, args: &Args) -> Answer {
        let callbacks = &mut self.state.callbacks;
        // This old call cannot fail: an address that cannot be one changes nothing.
        for (place, address) in [
            (&mut callbacks.event, args[0]),
            (&mut callbacks.failsafe.address, args[1]),
            (&mut callbacks.syscall.address, args[2]),
        ] {
            if Gva(address).is_canonical() {
                *place = address;
            }
        }
        Ok(0)
    }

    /// `(command, argument)`.
    pub(super) fn callback_op(&mut self, args: &Args) -> Answer {
        let argument = Gva(args[1]);
        let (kind, callback) = match CallbackOp(super::low32(args[0])) {
            CallbackOp::REGISTER => {
                let r: CallbackRegister = self.read(argument)?;
                if !Gva(r.address).is_canonical() {
                    return Err(Errno::EINVAL);
                }
                (r.kind, Some(Callback { address: r.address, masks_events: r.flags & CALLBACKF_MASK_EVENTS != 0 }))
            }
            CallbackOp::UNREGISTER => (self.read::<CallbackUnregister>(argument)?.kind, None),
            _ => return Err(Errno::ENOSYS),
        };
        let entry = callback.unwrap_or_default();
        let callbacks = &mut self.state.callbacks;
        match kind {
            // Only the handler of non-maskable interrupts can be taken away.
            CallbackType::EVENT
            | CallbackType::FAILSAFE
            | CallbackType::SYSCALL
            | CallbackType::SYSCALL32
            | CallbackType::SYSENTER
                if callback.is_none() =>
            {
                return Err(Errno::EINVAL);
            }
            CallbackType::EVENT => callbacks.event = entry.address,
            CallbackType::FAILSAFE => callbacks.failsafe = entry,
            CallbackType::SYSCALL => callbacks.syscall = entry,
            CallbackType::SYSCALL32 => callbacks.syscall32 = entry,
            CallbackType::SYSENTER => callbacks.sysenter = entry,
            CallbackType::NMI => self.set_nmi_handler(entry.address)?,
            _ => return Err(Errno::ENOSYS),
        }
        Ok(0)
    }

    /// `(command, argument)`: 0 registers, 1 unregisters the NMI handler.
    pub(super) fn nmi_op(&mut self, args: &Args) -> Answer {
        let address = match super::low32(args[0]) {
            0 => {
                let address = self.read::<u64>(Gva(args[1]))?;
                if !Gva(address).is_canonical() {
                    return Err(Errno::EINVAL);
                }
                address
            }
            1 => 0,
            _ => return Err(Errno::ENOSYS),
        };
        self.set_nmi_handler(address)?;
        Ok(0)
    }

    fn set_nmi_handler(&mut self, address: u64) -> Result<(), Errno> {
        let slot = self.state.traps.get_mut(2).ok_or(Errno::EINVAL)?;
        *slot = TrapInfo { vector: 2, flags: 4, cs: oxen_abi::arch_x86_64::FLAT_KERNEL_CS, address, ..TrapInfo::default() };
        Ok(())
    }

    /// `(command, type)`.
    pub(super) fn vm_assist(&mut self, args: &Args) -> Answer {
        use core::sync::atomic::Ordering::SeqCst;
        let bit = 1_u64.checked_shl(super::low32(args[1])).filter(|bit| bit & KNOWN_ASSISTS != 0).ok_or(Errno::EINVAL)?;
        match super::low32(args[0]) {
            0 => self.domain.vm_assist.fetch_or(bit, SeqCst),
            1 => self.domain.vm_assist.fetch_and(!bit, SeqCst),
            _ => return Err(Errno::ENOSYS),
        };
        Ok(0)
    }

    /// `(register, value)`.
    pub(super) fn set_debugreg(&mut self, args: &Args) -> Answer {
        self.load_debug_register(super::low32(args[0]), args[1])?;
        Ok(0)
    }

    /// Checks a value for a debug register of the guest, and loads it.
    pub(crate) fn load_debug_register(&mut self, register: u32, value: u64) -> Result<(), Errno> {
        let number = match register {
            n @ 0..=3 => {
                if !Gva(value).range_is_guest(8) || !Gva(value).is_canonical() {
                    return Err(Errno::EPERM);
                }
                n
            }
            4 | 6 => 6,
            5 | 7 => 7,
            _ => return Err(Errno::ENODEV),
        };
        let value = match number {
            6 | 7 if value >> 32 != 0 => return Err(Errno::EINVAL),
            6 => value & !DR6_ZEROS | DR6_ONES,
            7 => self.checked_dr7(value)?,
            _ => value,
        };
        if let Some(slot) = self.state.context.debug.get_mut(number as usize) {
            *slot = value;
        }
        let active = self.state.context.debug[7] & DR7_ENABLES != 0;
        if number == 7 && active {
            for n in 0..4 {
                self.machine().set_debug_register(n, self.state.context.debug[n]);
            }
        }
        if active || number >= 6 {
            self.machine().set_debug_register(number as usize, value);
        }
        Ok(())
    }

    /// I/O breakpoints and general detection would stop the hypervisor itself.
    fn checked_dr7(&self, value: u64) -> Result<u64, Errno> {
        if value & DR7_GENERAL_DETECT != 0 {
            return Err(Errno::EPERM);
        }
        let io_breakpoint = (0..4).any(|i| value >> (2 * i) & 3 != 0 && value >> (16 + 4 * i) & 3 == 2);
        if io_breakpoint {
            return Err(Errno::EPERM);
        }
        Ok(value & !DR7_ZEROS | DR7_ONES)
    }

    /// `(register)`.
    pub(super) fn get_debugreg(&mut self, args: &Args) -> Answer {
        let number = match args[0] {
            n @ 0..=3 => n as usize,
            4 | 6 => 6,
            5 | 7 => 7,
            _ => return Err(Errno::ENODEV),
        };
        let value = self.state.context.debug.get(number).copied().ok_or(Errno::EINVAL)?;
        Ok(value as i64)
    }
}
