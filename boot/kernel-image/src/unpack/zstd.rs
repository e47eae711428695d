//! Zstandard (RFC 8878), by `ruzstd`.

use super::Fault;
use crate::file::MAX_UNPACKED_LEN;
use ruzstd::decoding::FrameDecoder;

/// Unpacks the first frame; returns the number of bytes written.
pub(super) fn unpack(payload: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(MAX_UNPACKED_LEN as u64);
    // The length trailer behind the frame would be taken for another frame.
    let frame = payload
        .split_last_chunk::<4>()
        .map_or(payload, |(frame, _)| frame);
    decoder
        .decode_all(frame, out)
        .map_err(|_| Fault("invalid zstd stream"))
}
