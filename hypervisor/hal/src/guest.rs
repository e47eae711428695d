//! Copies to and from guest virtual memory.

use oxen_types::{Fault, Gva};

/// Access to the virtual memory of the guest whose page tables are loaded on this CPU. Bytes are copied, never borrowed: another vCPU may change
/// them at any time, so each input is read once and checked as the copy. The whole range must lie outside the hypervisor's own
/// ([`Gva::range_is_guest`]); a page that is absent or lacks the permission gives a [`Fault`], with the bytes before it done.
pub trait GuestMemory {
    /// Reads `to.len()` bytes at `from`.
    fn copy_from_guest(&self, to: &mut [u8], from: Gva) -> Result<(), Fault>;

    /// Writes `from.len()` bytes at `to`.
    fn copy_to_guest(&self, to: Gva, from: &[u8]) -> Result<(), Fault>;

    /// Reads one 64-bit word: the fast form for hot paths.
    fn read_guest_u64(&self, from: Gva) -> Result<u64, Fault> {
        let mut bytes = [0; 8];
        self.copy_from_guest(&mut bytes, from)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Reads two consecutive 64-bit words: likewise.
    #[inline]
    fn read_guest_pair(&self, from: Gva) -> Result<[u64; 2], Fault> {
        let mut bytes = [0; 16];
        self.copy_from_guest(&mut bytes, from)?;
        let [low, high] = [0, 8].map(|at| u64::from_ne_bytes(core::array::from_fn(|i| bytes[at + i])));
        Ok([low, high])
    }

    /// Writes consecutive 64-bit words upwards from `to`: the fast form for bounce frames.
    fn write_guest_words(&self, to: Gva, words: &[u64]) -> Result<(), Fault> {
        for (i, word) in words.iter().enumerate() {
            self.copy_to_guest(Gva(to.0.wrapping_add(8 * i as u64)), &word.to_ne_bytes())?;
        }
        Ok(())
    }
}
