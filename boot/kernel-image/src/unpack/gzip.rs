//! gzip (RFC 1952): the member header and trailer here, the deflate stream by `miniz_oxide`, which uses the output as its window.

use super::{ENDS_EARLY, Fault, TOO_LONG};
use crate::bytes::{u16_at, u32_at};
use crate::unpack::crc32::crc32;
use alloc::boxed::Box;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

const DEFLATE: u8 = 8;
const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;

/// Unpacks the first member of `payload`; returns the number of bytes written.
pub(super) fn unpack(payload: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    let stream = payload
        .get(header_len(payload).ok_or(ENDS_EARLY)??..)
        .ok_or(ENDS_EARLY)?;
    let mut inflater = Box::<DecompressorOxide>::default();
    let (status, consumed, produced) = decompress(
        &mut inflater,
        stream,
        out,
        0,
        inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
    );
    match status {
        TINFLStatus::Done => {}
        TINFLStatus::HasMoreOutput => return Err(TOO_LONG),
        TINFLStatus::FailedCannotMakeProgress | TINFLStatus::NeedsMoreInput => {
            return Err(ENDS_EARLY);
        }
        _ => return Err(Fault("invalid deflate stream")),
    }
    let trailer = stream.get(consumed..).ok_or(ENDS_EARLY)?;
    let written = out.get(..produced).ok_or(TOO_LONG)?;
    if u32_at(trailer, 0).ok_or(ENDS_EARLY)? != crc32(written) {
        return Err(Fault("CRC mismatch"));
    }
    Ok(produced)
}

/// Length of the member header, `None` where it is cut off.
fn header_len(payload: &[u8]) -> Option<Result<usize, Fault>> {
    if *payload.get(2)? != DEFLATE {
        return Some(Err(Fault("gzip method other than deflate")));
    }
    let flags = *payload.get(3)?;
    let mut at = 10;
    if flags & FEXTRA != 0 {
        at += 2 + usize::from(u16_at(payload, at)?);
    }
    for flag in [FNAME, FCOMMENT] {
        if flags & flag != 0 {
            at += payload.get(at..)?.iter().position(|byte| *byte == 0)? + 1;
        }
    }
    if flags & FHCRC != 0 {
        at += 2;
    }
    Some(Ok(at))
}
