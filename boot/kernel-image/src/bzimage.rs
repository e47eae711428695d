//! The bzImage container. Layout: Linux `Documentation/arch/x86/boot.rst`, "The Real-Mode Kernel Header".

use crate::bytes::{slice_at, u16_at, u32_at};
use crate::error::ImageError;

const SETUP_SECTS: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const HEADER_MAGIC: usize = 0x202;
const PROTOCOL_VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

const SECTOR_LEN: u64 = 512;
/// What a `setup_sects` of zero means.
const DEFAULT_SETUP_SECTS: u8 = 4;
/// The version that introduced the payload fields.
const FIRST_WITH_PAYLOAD: u16 = 0x0208;

/// A recognised bzImage.
pub(crate) struct BzImage<'a> {
    /// Boot protocol version, for instance 0x020f.
    pub protocol: u16,
    /// The compressed kernel with the length trailer that Linux's build appends.
    pub payload: &'a [u8],
}

/// True where the file carries the bzImage signatures.
pub(crate) fn is_bzimage(file: &[u8]) -> bool {
    u16_at(file, BOOT_FLAG) == Some(0xaa55)
        && u32_at(file, HEADER_MAGIC) == Some(u32::from_le_bytes(*b"HdrS"))
}

/// Finds the payload.
pub(crate) fn parse(file: &[u8]) -> Result<BzImage<'_>, ImageError> {
    let header_cut = ImageError::Truncated {
        what: "the bzImage header",
        need: PAYLOAD_LENGTH as u64 + 4,
        have: file.len() as u64,
    };
    let protocol = u16_at(file, PROTOCOL_VERSION).ok_or(header_cut)?;
    if protocol < FIRST_WITH_PAYLOAD {
        return Err(ImageError::OldBootProtocol { version: protocol });
    }
    let setup_sects = match file.get(SETUP_SECTS).ok_or(header_cut)? {
        0 => DEFAULT_SETUP_SECTS,
        n => *n,
    };
    let offset = u32_at(file, PAYLOAD_OFFSET).ok_or(header_cut)?;
    let len = u32_at(file, PAYLOAD_LENGTH).ok_or(header_cut)?;
    if offset == 0 || len == 0 {
        return Err(ImageError::NoPayload);
    }
    // The payload's offset counts from the 32-bit code, which follows the boot sector and the set-up sectors.
    let start = (u64::from(setup_sects) + 1) * SECTOR_LEN + u64::from(offset);
    let payload = slice_at(file, start, len.into()).ok_or(ImageError::Truncated {
        what: "the bzImage payload",
        need: start + u64::from(len),
        have: file.len() as u64,
    })?;
    Ok(BzImage { protocol, payload })
}
