//! The xz format.

use super::{ENDS_EARLY, Fault, TOO_LONG};
use xz4rust::XzDecoder;

/// Unpacks the first stream; returns the number of bytes written.
pub(super) fn unpack(payload: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    let mut decoder = XzDecoder::in_heap_with_alloc_dict_size(1 << 16, 128 << 20);
    let (mut read, mut written) = (0, 0);
    loop {
        let (input, room) = (
            payload.get(read..).ok_or(ENDS_EARLY)?,
            out.get_mut(written..).ok_or(TOO_LONG)?,
        );
        let progress = decoder
            .decode(input, room)
            .map_err(|_| Fault("invalid xz stream"))?;
        read += progress.input_consumed();
        written += progress.output_produced();
        if progress.is_end_of_stream() {
            return Ok(written);
        }
        if !progress.made_progress() {
            return Err(if read == payload.len() {
                ENDS_EARLY
            } else {
                TOO_LONG
            });
        }
    }
}
