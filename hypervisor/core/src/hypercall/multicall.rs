//! `multicall`: several hypercalls in one.

use super::{Answer, Args, to_rax};
use crate::ctx::Ctx;
use oxen_abi::xen::MulticallEntry;
use oxen_abi::{Errno, Hypercall};
use oxen_hal::Machine;
use oxen_types::Gva;

/// Entries done before the guest may take interrupts.
const BUDGET: u64 = 512;
/// Offset of `result` in `struct multicall_entry`.
const RESULT: u64 = 8;
/// Offset of `args`.
const ARGS: u64 = 16;

impl<M: Machine> Ctx<'_, M> {
    /// `(list, count)`.
    pub(super) fn multicall(&mut self, args: &mut Args) -> Answer {
        let mut list = Gva(args[0]);
        let count = u64::from(super::low32(args[1]));
        for done in 0..count {
            if done == BUDGET {
                return again(args, list, count - done);
            }
            let entry: MulticallEntry = self.read(list)?;
            let mut call = entry.args;
            let number = Hypercall(u32::try_from(entry.op).unwrap_or(u32::MAX));
            let answer = match number {
                // A multicall in a multicall could nest without end, and iret leaves no place for a result.
                Hypercall::MULTICALL => Err(Errno::EINVAL),
                Hypercall::IRET => Err(Errno::ENOSYS),
                _ => self.dispatch(number, &mut call),
            };
            if answer == Err(Errno::ERESTART) {
                let to = list.checked_add(ARGS).ok_or(Errno::EFAULT)?;
                self.write(to, &call)?;
                return again(args, list, count - done);
            }
            let result = to_rax(answer);
            let to = list.checked_add(RESULT).ok_or(Errno::EFAULT)?;
            self.write(to, &result)?;
            list = list.checked_add(size_of::<MulticallEntry>() as u64).ok_or(Errno::EFAULT)?;
            if !self.vcpu.is_runnable() {
                return if done + 1 == count { Ok(0) } else { again(args, list, count - done - 1) };
            }
        }
        Ok(0)
    }
}

fn again(args: &mut Args, list: Gva, left: u64) -> Answer {
    args[0] = list.0;
    args[1] = left;
    Err(Errno::ERESTART)
}
