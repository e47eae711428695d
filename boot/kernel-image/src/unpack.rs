//! Decompression of kernel payloads.

use crate::error::ImageError;
use core::fmt;

mod bcj_x86;
mod copy;
mod crc32;
mod gzip;
mod lz4;
mod lzma;
mod lzma2;
mod lzma_decoder;
mod range;
mod xz;
mod zstd;

/// How a kernel payload is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all: an ELF file.
    None,
    /// gzip.
    Gzip,
    /// xz.
    Xz,
    /// The older "LZMA alone" format.
    Lzma,
    /// The legacy LZ4 frame format that Linux uses.
    Lz4,
    /// Zstandard.
    Zstd,
    /// bzip2: recognised, not supported.
    Bzip2,
    /// LZO: recognised, not supported.
    Lzo,
}

impl Compression {
    /// Tells the compression from the payload's first bytes.
    #[must_use]
    pub fn detect(payload: &[u8]) -> Option<Self> {
        const MAGICS: &[(&[u8], Compression)] = &[
            (b"\x7fELF", Compression::None),
            (&[0x1f, 0x8b], Compression::Gzip),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Compression::Xz),
            // Properties lc=3 lp=0 pb=2 and a dictionary size that is a multiple of 64 KiB: what the lzma tool writes.
            (&[0x5d, 0, 0], Compression::Lzma),
            (&[0x02, 0x21, 0x4c, 0x18], Compression::Lz4),
            (&[0x28, 0xb5, 0x2f, 0xfd], Compression::Zstd),
            (b"BZh", Compression::Bzip2),
            (
                &[0x89, b'L', b'Z', b'O', 0, 0x0d, 0x0a, 0x1a, 0x0a],
                Compression::Lzo,
            ),
        ];
        MAGICS
            .iter()
            .find(|(magic, _)| payload.starts_with(magic))
            .map(|(_, compression)| *compression)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "uncompressed",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Lzma => "lzma",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Lzo => "lzo",
        })
    }
}

/// What a decoder found wrong, in a few words.
pub(crate) struct Fault(pub &'static str);

/// The stream ends inside a compressed unit.
const ENDS_EARLY: Fault = Fault("the compressed data ends early");
/// The stream holds more than its length trailer says.
const TOO_LONG: Fault = Fault("it unpacks to more than the recorded length");

/// Unpacks `payload` so that it fills `out` exactly.
pub(crate) fn unpack(
    compression: Compression,
    payload: &[u8],
    out: &mut [u8],
) -> Result<(), ImageError> {
    let corrupt = |Fault(reason)| ImageError::Corrupt {
        compression,
        reason,
    };
    let len = match compression {
        Compression::None => {
            out.copy_from_slice(
                payload
                    .get(..out.len())
                    .ok_or_else(|| corrupt(ENDS_EARLY))?,
            );
            Ok(out.len())
        }
        Compression::Gzip => gzip::unpack(payload, out),
        Compression::Xz => xz::unpack(payload, out),
        Compression::Lzma => lzma::unpack(payload, out),
        Compression::Lz4 => lz4::unpack(payload, out),
        Compression::Zstd => zstd::unpack(payload, out),
        Compression::Bzip2 | Compression::Lzo => {
            return Err(ImageError::UnsupportedCompression(compression));
        }
    }
    .map_err(corrupt)?;
    if len == out.len() {
        Ok(())
    } else {
        Err(corrupt(Fault(
            "it unpacks to less than the recorded length",
        )))
    }
}
