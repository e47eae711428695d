//! `console_io`: the hypervisor's own console, for dom0.

use super::{Answer, Args, low32};
use crate::ctx::Ctx;
use oxen_abi::Errno;
use oxen_hal::Machine;
use oxen_types::Gva;

const WRITE: u32 = 0;
const READ: u32 = 1;
/// Bytes that are copied at a time.
const CHUNK: usize = 128;
/// Bytes of one call before the guest may take interrupts.
const BUDGET: u64 = 4096;

impl<M: Machine> Ctx<'_, M> {
    /// `(command, count, buffer)`.
    pub(super) fn console_io(&mut self, args: &mut Args) -> Answer {
        self.require_control()?;
        let (count, buffer) = (u64::from(low32(args[1])), Gva(args[2]));
        match low32(args[0]) {
            WRITE => self.console_write(args, count, buffer),
            READ if count > i32::MAX as u64 => Err(Errno::E2BIG),
            READ => {
                let bytes = self.hv.take_console_input(count.min(CHUNK as u64) as usize);
                self.write(buffer, bytes.as_slice())?;
                Ok(bytes.len() as i64)
            }
            _ => Err(Errno::ENOSYS),
        }
    }

    fn console_write(&mut self, args: &mut Args, count: u64, buffer: Gva) -> Answer {
        let mut done = 0;
        while done < count {
            if done >= BUDGET {
                args[1] = count - done;
                args[2] = buffer.0.wrapping_add(done);
                return Err(Errno::ERESTART);
            }
            let length = (count - done).min(CHUNK as u64) as usize;
            let mut chunk = [0; CHUNK];
            let part = chunk.get_mut(..length).ok_or(Errno::EINVAL)?;
            let from = buffer.checked_add(done).ok_or(Errno::EFAULT)?;
            self.machine().copy_from_guest(part, from).map_err(|_| Errno::EFAULT)?;
            self.hv.console_output(part);
            done += length as u64;
        }
        Ok(0)
    }
}
