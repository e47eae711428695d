//! The xz format, as much of it as kernels are packed with. "The .xz File Format", version 1.2.1 (section numbers below are its).
//!
//! Blocks are unpacked one after the other into the output. The index behind them is not read: it repeats lengths that are checked
//! against the recorded length of the whole.

use super::bcj_x86;
use super::crc32::crc32;
use super::lzma2;
use super::{ENDS_EARLY, Fault};
use crate::bytes::u32_at;

/// Section 2.1.1: magic (6), flags (2), CRC (4).
const STREAM_HEADER_LEN: usize = 12;
/// Section 2.1.1.2: the checks that the format defines by number; kernels are packed with CRC-32.
const CHECK_NONE: u8 = 0;
const CHECK_CRC32: u8 = 1;
/// Section 3.1.2.
const FLAG_PACKED_LEN: u8 = 0x40;
const FLAG_UNPACKED_LEN: u8 = 0x80;
/// Section 5.3.
const FILTER_X86: u64 = 0x04;
const FILTER_LZMA2: u64 = 0x21;

const BAD_HEADER: Fault = Fault("damaged xz header");
const BAD_FILTER: Fault = Fault("unsupported xz filter");

/// What a block's header says.
struct Block {
    /// The x86 filter's start offset, where the filter is used.
    x86_offset: Option<u32>,
}

/// Unpacks the first stream; returns the number of bytes written.
pub(super) fn unpack(payload: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    let has_check = read_stream_header(payload)?;
    let mut at = STREAM_HEADER_LEN;
    let mut written = 0;
    loop {
        // Section 3.1.1: zero in the place of a block header's size is the start of the index.
        let size_byte = *payload.get(at).ok_or(ENDS_EARLY)?;
        if size_byte == 0 {
            return Ok(written);
        }
        let header_len = (usize::from(size_byte) + 1) * 4;
        let block = read_block_header(payload.get(at..at + header_len).ok_or(ENDS_EARLY)?)?;
        at += header_len;
        let room = out.get_mut(written..).unwrap_or_default();
        let (packed_len, unpacked_len) = lzma2::unpack(payload.get(at..).ok_or(ENDS_EARLY)?, room)?;
        at = (at + packed_len).next_multiple_of(4);
        let data = room.get_mut(..unpacked_len).unwrap_or_default();
        if let Some(offset) = block.x86_offset {
            bcj_x86::decode(data, offset);
        }
        if has_check {
            if u32_at(payload, at).ok_or(ENDS_EARLY)? != crc32(data) {
                return Err(Fault("CRC mismatch"));
            }
            at += 4;
        }
        written += unpacked_len;
    }
}

/// Checks the stream header; tells whether the blocks carry a CRC.
fn read_stream_header(payload: &[u8]) -> Result<bool, Fault> {
    let header: &[u8; STREAM_HEADER_LEN] = payload.first_chunk().ok_or(ENDS_EARLY)?;
    let [.., reserved, check, c0, c1, c2, c3] = *header;
    if u32::from_le_bytes([c0, c1, c2, c3]) != crc32(&[reserved, check]) || reserved != 0 {
        return Err(BAD_HEADER);
    }
    match check {
        CHECK_NONE => Ok(false),
        CHECK_CRC32 => Ok(true),
        _ => Err(Fault("xz check other than CRC-32")),
    }
}

/// Reads a block header (section 3.1).
fn read_block_header(header: &[u8]) -> Result<Block, Fault> {
    let (fields, crc) = header.split_last_chunk::<4>().ok_or(BAD_HEADER)?;
    if u32::from_le_bytes(*crc) != crc32(fields) {
        return Err(BAD_HEADER);
    }
    let flags = *fields.get(1).ok_or(BAD_HEADER)?;
    let mut rest = fields.get(2..).ok_or(BAD_HEADER)?;
    for flag in [FLAG_PACKED_LEN, FLAG_UNPACKED_LEN] {
        if flags & flag != 0 {
            read_number(&mut rest)?;
        }
    }
    let mut block = Block { x86_offset: None };
    let last_filter = flags & 3;
    for filter in 0..=last_filter {
        let id = read_number(&mut rest)?;
        let len = read_number(&mut rest)?;
        let (properties, behind) = usize::try_from(len)
            .ok()
            .and_then(|len| rest.split_at_checked(len))
            .ok_or(BAD_HEADER)?;
        rest = behind;
        match (id, filter == last_filter, properties.len()) {
            (FILTER_LZMA2, true, 1) => {}
            (FILTER_X86, false, 0) if filter == 0 => block.x86_offset = Some(0),
            (FILTER_X86, false, 4) if filter == 0 => block.x86_offset = u32_at(properties, 0),
            _ => return Err(BAD_FILTER),
        }
    }
    Ok(block)
}

/// Reads a variable-length number (section 1.2): seven bits a byte, least significant first.
fn read_number(rest: &mut &[u8]) -> Result<u64, Fault> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (byte, behind) = rest.split_first().ok_or(BAD_HEADER)?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(BAD_HEADER)
}
