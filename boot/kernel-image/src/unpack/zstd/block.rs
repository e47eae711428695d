//! Compressed blocks. Section 3.1.1.3.

use super::MAX_BLOCK_LEN;
use super::literals::Literals;
use super::sequences::Sequences;
use crate::unpack::{ENDS_EARLY, Fault};

/// Decodes the blocks of a frame in order.
pub(super) struct BlockDecoder {
    literals: Literals,
    sequences: Sequences,
}

impl BlockDecoder {
    pub fn new() -> Self {
        Self {
            literals: Literals::new(),
            sequences: Sequences::new(),
        }
    }

    /// Appends what `block` holds to the first `pos` bytes of `out`; returns the new length.
    pub fn decode(&mut self, block: &[u8], out: &mut [u8], pos: usize) -> Result<usize, Fault> {
        let literals_len = self.literals.read(block)?;
        let sequences = block.get(literals_len..).ok_or(ENDS_EARLY)?;
        let end = self
            .sequences
            .decode(sequences, self.literals.bytes(), out, pos)?;
        if end - pos > MAX_BLOCK_LEN {
            return Err(Fault("oversized zstd block"));
        }
        Ok(end)
    }
}
