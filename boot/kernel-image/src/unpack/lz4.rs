//! The legacy LZ4 frame (`lz4 -l`): a magic number, then blocks of a 32-bit length and that many compressed bytes, each block unpacking to
//! 8 MiB except the last. Linux's build appends the 32-bit unpacked length, which reads like the length of one more block.
//! LZ4 frame format description, "Legacy frame".

use super::{ENDS_EARLY, Fault};
use crate::bytes::u32_at;

const MAGIC_LEN: usize = 4;
const MAGIC: u32 = 0x184c_2102;
const BLOCK_LEN: usize = 8 << 20;

/// Unpacks all blocks; returns the number of bytes written.
pub(super) fn unpack(payload: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    let mut input = payload.get(MAGIC_LEN..).ok_or(ENDS_EARLY)?;
    let mut written = 0;
    while written < out.len() {
        let len = u32_at(input, 0).ok_or(ENDS_EARLY)?;
        input = input.get(4..).ok_or(ENDS_EARLY)?;
        // Frames may be concatenated.
        if len == MAGIC {
            continue;
        }
        let (block, rest) = input.split_at_checked(len as usize).ok_or(ENDS_EARLY)?;
        let room = out.get_mut(written..).unwrap_or_default();
        let room_len = room.len().min(BLOCK_LEN);
        let room = room.get_mut(..room_len).unwrap_or_default();
        let produced = lz4_flex::block::decompress_into(block, room)
            .map_err(|_| Fault("invalid lz4 block"))?;
        if produced == 0 {
            return Err(Fault("empty lz4 block"));
        }
        written += produced;
        input = rest;
    }
    Ok(written)
}
