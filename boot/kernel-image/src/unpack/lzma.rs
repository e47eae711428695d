//! The "LZMA alone" format.

use super::{ENDS_EARLY, Fault};
use lzma_rust2::{LzmaReader, Read};

/// Unpacks the stream; returns the number of bytes written.
pub(super) fn unpack(payload: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
    let mut reader = LzmaReader::new_mem_limit(payload, 128 << 10, None)
        .map_err(|_| Fault("invalid lzma header"))?;
    let mut written = 0;
    while let Some(room) = out.get_mut(written..).filter(|room| !room.is_empty()) {
        match reader.read(room) {
            Ok(0) => return Err(ENDS_EARLY),
            Ok(n) => written += n,
            Err(_) => return Err(Fault("invalid lzma stream")),
        }
    }
    Ok(written)
}
