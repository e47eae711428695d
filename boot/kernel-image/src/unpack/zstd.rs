//! Zstandard, RFC 8878. The output slice is the window, so frames with the 128 MiB window that kernels are packed with need no more memory
//! than others.

use super::{ENDS_EARLY, Fault, TOO_LONG};
use crate::bytes::{u32_at, u64_at};
use block::BlockDecoder;

mod bits;
mod block;
mod fse;
mod huffman;
mod literals;
mod sequences;
mod xxhash;

const MAGIC_LEN: usize = 4;
/// Section 3.1.1.2.
const BLOCK_HEADER_LEN: usize = 3;
const BLOCK_RAW: u32 = 0;
const BLOCK_RLE: u32 = 1;
const BLOCK_COMPRESSED: u32 = 2;
/// Section 3.1.1.2.4: no block unpacks to more.
const MAX_BLOCK_LEN: usize = 128 << 10;

/// Unpacks the first frame; returns the number of bytes written.
pub(super) fn unpack(payload: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    let header = FrameHeader::read(payload.get(MAGIC_LEN..).ok_or(ENDS_EARLY)?)?;
    let mut at = MAGIC_LEN + header.len;
    let mut decoder = BlockDecoder::new();
    let mut written = 0;
    loop {
        let [b0, b1, b2] = *payload
            .get(at..)
            .and_then(|rest| rest.first_chunk::<BLOCK_HEADER_LEN>())
            .ok_or(ENDS_EARLY)?;
        at += BLOCK_HEADER_LEN;
        let block_header = u32::from_le_bytes([b0, b1, b2, 0]);
        let len = (block_header >> 3) as usize;
        if len > MAX_BLOCK_LEN {
            return Err(Fault("oversized zstd block"));
        }
        let stored_len = if block_header >> 1 & 3 == BLOCK_RLE {
            1
        } else {
            len
        };
        let stored = payload.get(at..at + stored_len).ok_or(ENDS_EARLY)?;
        at += stored_len;
        match block_header >> 1 & 3 {
            BLOCK_RAW => {
                out.get_mut(written..written + len)
                    .ok_or(TOO_LONG)?
                    .copy_from_slice(stored);
                written += len;
            }
            BLOCK_RLE => {
                out.get_mut(written..written + len)
                    .ok_or(TOO_LONG)?
                    .fill(*stored.first().ok_or(ENDS_EARLY)?);
                written += len;
            }
            BLOCK_COMPRESSED => written = decoder.decode(stored, out, written)?,
            _ => return Err(Fault("zstd block of reserved type")),
        }
        if block_header & 1 != 0 {
            break;
        }
    }
    if header.has_checksum {
        let data = out.get(..written).unwrap_or_default();
        if u32_at(payload, at).ok_or(ENDS_EARLY)? != xxhash::xxh64(data) as u32 {
            return Err(Fault("checksum mismatch"));
        }
    }
    match header.content_len {
        Some(len) if len != written as u64 => {
            Err(Fault("the frame's length differs from its header's"))
        }
        _ => Ok(written),
    }
}

/// Section 3.1.1.1.
struct FrameHeader {
    len: usize,
    has_checksum: bool,
    content_len: Option<u64>,
}

impl FrameHeader {
    fn read(bytes: &[u8]) -> Result<Self, Fault> {
        let descriptor = *bytes.first().ok_or(ENDS_EARLY)?;
        let single_segment = descriptor & 0x20 != 0;
        if descriptor & 0x08 != 0 {
            return Err(Fault("zstd frame with a reserved bit set"));
        }
        let window_len = usize::from(!single_segment);
        let dictionary_len = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let content_len_len = match descriptor >> 6 {
            0 => usize::from(single_segment),
            n => 1 << n,
        };
        let dictionary_at = 1 + window_len;
        let content_len_at = dictionary_at + dictionary_len;
        let len = content_len_at + content_len_len;
        let header = bytes.get(..len).ok_or(ENDS_EARLY)?;
        if header
            .get(dictionary_at..content_len_at)
            .is_some_and(|id| id.iter().any(|byte| *byte != 0))
        {
            return Err(Fault("zstd frame that needs a dictionary"));
        }
        let mut field = [0; 8];
        for (to, from) in field
            .iter_mut()
            .zip(header.get(content_len_at..).unwrap_or_default())
        {
            *to = *from;
        }
        let value = u64_at(&field, 0).unwrap_or_default();
        let content_len = match content_len_len {
            0 => None,
            // The two-byte form counts from 256.
            2 => Some(value + 256),
            _ => Some(value),
        };
        Ok(Self {
            len,
            has_checksum: descriptor & 4 != 0,
            content_len,
        })
    }
}
