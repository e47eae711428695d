//! The "LZMA alone" format: 13 bytes of header, one LZMA stream. LZMA SDK, `lzma-specification.txt`, "lzma file format".

use super::lzma_decoder::{Lzma, Properties, Stop};
use super::{ENDS_EARLY, Fault};
use crate::bytes::u64_at;

/// Properties (1), dictionary size (4), unpacked size (8; all ones where the stream ends with a marker).
const HEADER_LEN: usize = 13;
const UNPACKED_LEN: usize = 5;
const ENDS_WITH_MARKER: u64 = u64::MAX;

/// Unpacks the stream; returns the number of bytes written.
pub(super) fn unpack(payload: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    let properties = Properties::read(*payload.first().ok_or(ENDS_EARLY)?)?;
    let len = u64_at(payload, UNPACKED_LEN).ok_or(ENDS_EARLY)?;
    if len != ENDS_WITH_MARKER && len != out.len() as u64 {
        return Err(Fault(
            "the stream's length differs from the recorded length",
        ));
    }
    let stream = payload.get(HEADER_LEN..).ok_or(ENDS_EARLY)?;
    match Lzma::new(properties).decode(stream, out, 0)? {
        (Stop::Full, _) => Ok(out.len()),
        (Stop::Marker(len), _) => Ok(len),
    }
}
