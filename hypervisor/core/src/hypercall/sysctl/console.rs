//! The console: reading its ring, pressing its keys.

use crate::ctx::Ctx;
use oxen_abi::Errno;
use oxen_abi::sysctl::{DebugKeys, ReadConsole};
use oxen_hal::Machine;
use oxen_types::Gva;

/// Bytes that are copied at a time.
const CHUNK: usize = 1024;
/// Most keys of one call: each may write a screenful.
const MAX_KEYS: u32 = 32;

impl<M: Machine> Ctx<'_, M> {
    /// Copies the ring's text out, from its beginning or from where an earlier read ended.
    pub(super) fn read_console(&self, request: &mut ReadConsole) -> Result<(), Errno> {
        let to = Gva(request.buffer.address());
        let mut index = self.hv.console_ring_start((request.incremental != 0).then_some(request.index));
        let mut done = 0;
        while done < request.count {
            let mut chunk = [0; CHUNK];
            let room = chunk.get_mut(..(request.count - done).min(CHUNK as u32) as usize).ok_or(Errno::EINVAL)?;
            let (copied, next) = self.hv.console_copy_ring(index, room);
            let text = room.get(..copied).ok_or(Errno::EINVAL)?;
            if text.is_empty() {
                break;
            }
            self.write(to.checked_add(done.into()).ok_or(Errno::EFAULT)?, text)?;
            index = next;
            done += copied as u32;
        }
        if request.clear != 0 {
            self.hv.console_clear_ring_to(index);
        }
        request.count = done;
        request.index = index as u32;
        Ok(())
    }

    pub(super) fn debug_keys(&self, request: &DebugKeys) -> Result<(), Errno> {
        if request.nr_keys > MAX_KEYS {
            return Err(Errno::E2BIG);
        }
        for index in 0..request.nr_keys {
            let key: u8 = self.read_element(Gva(request.keys.address()), index.into())?;
            self.hv.debug_key(key);
        }
        Ok(())
    }
}
