//! From a boot module to the bytes of an ELF file.

use crate::bytes::{first_bytes, u32_at};
use crate::bzimage;
use crate::error::ImageError;
use crate::unpack::{self, Compression};
use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;

/// No kernel is taken that unpacks to more than this many bytes. Debian's 6.1 kernel unpacks to 63 MiB.
pub const MAX_UNPACKED_LEN: usize = 512 << 20;

const ELF_MAGIC: &[u8] = b"\x7fELF";

/// What the boot module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// A Linux bzImage.
    BzImage {
        /// Boot protocol version, for instance 0x020f for 2.15.
        protocol: u16,
    },
    /// An ELF file, not compressed.
    Elf,
    /// A gzip stream, presumably of an ELF file.
    Gzip,
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BzImage { protocol } => write!(
                f,
                "bzImage (protocol {}.{:02})",
                protocol >> 8,
                protocol & 0xff
            ),
            Self::Elf => f.write_str("ELF"),
            Self::Gzip => f.write_str("gzip file"),
        }
    }
}

/// A boot module whose container and compression have been recognised.
#[derive(Clone, Copy, Debug)]
pub struct KernelFile<'a> {
    container: Container,
    compression: Compression,
    payload: &'a [u8],
    unpacked_len: usize,
}

impl<'a> KernelFile<'a> {
    /// Recognises a boot module. Errors: [`ImageError::NotAKernel`], [`ImageError::Truncated`], [`ImageError::OldBootProtocol`],
    /// [`ImageError::NoPayload`], [`ImageError::UnknownCompression`], [`ImageError::UnsupportedCompression`], [`ImageError::TooLarge`].
    pub fn open(module: &'a [u8]) -> Result<Self, ImageError> {
        let (container, payload) = if module.starts_with(ELF_MAGIC) {
            (Container::Elf, module)
        } else if bzimage::is_bzimage(module) {
            let image = bzimage::parse(module)?;
            (
                Container::BzImage {
                    protocol: image.protocol,
                },
                image.payload,
            )
        } else if Compression::detect(module) == Some(Compression::Gzip) {
            (Container::Gzip, module)
        } else {
            return Err(ImageError::NotAKernel {
                len: module.len(),
                first: first_bytes(module),
            });
        };
        let compression =
            Compression::detect(payload).ok_or_else(|| ImageError::UnknownCompression {
                magic: first_bytes(payload),
            })?;
        if matches!(compression, Compression::Bzip2 | Compression::Lzo) {
            return Err(ImageError::UnsupportedCompression(compression));
        }
        let unpacked_len = unpacked_len(payload, compression)?;
        Ok(Self {
            container,
            compression,
            payload,
            unpacked_len,
        })
    }

    /// What the module is.
    #[must_use]
    pub fn container(&self) -> Container {
        self.container
    }

    /// How the kernel in it is compressed.
    #[must_use]
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Length of the unpacked kernel in bytes, at most [`MAX_UNPACKED_LEN`].
    #[must_use]
    pub fn unpacked_len(&self) -> usize {
        self.unpacked_len
    }

    /// The kernel's bytes where they are stored uncompressed and need no unpacking.
    #[must_use]
    pub fn stored(&self) -> Option<&'a [u8]> {
        (self.compression == Compression::None).then_some(self.payload)
    }

    /// Unpacks into the first [`Self::unpacked_len`] bytes of `out` and returns them. Decoders use the output as their dictionary, so
    /// little memory is needed beside it.
    ///
    /// Errors: [`ImageError::BufferTooSmall`], [`ImageError::Corrupt`], [`ImageError::OutOfMemory`].
    pub fn unpack_into<'b>(&self, out: &'b mut [u8]) -> Result<&'b [u8], ImageError> {
        let have = out.len();
        let out = out
            .get_mut(..self.unpacked_len)
            .ok_or(ImageError::BufferTooSmall {
                need: self.unpacked_len,
                have,
            })?;
        unpack::unpack(self.compression, self.payload, out)?;
        Ok(out)
    }

    /// The unpacked kernel: borrowed where it is stored, otherwise in memory that this allocates. Errors: as [`Self::unpack_into`].
    pub fn unpack(&self) -> Result<Cow<'a, [u8]>, ImageError> {
        if let Some(stored) = self.stored() {
            return Ok(Cow::Borrowed(stored));
        }
        let mut out = Vec::new();
        out.try_reserve_exact(self.unpacked_len)
            .map_err(|_| ImageError::OutOfMemory {
                len: self.unpacked_len,
            })?;
        out.resize(self.unpacked_len, 0);
        self.unpack_into(&mut out)?;
        Ok(Cow::Owned(out))
    }
}

/// The length that the file itself states: the last four bytes of the payload. gzip ends so by its own format; behind the other
/// compressions Linux's build appends them (`size_append` in `scripts/Makefile.lib`).
fn unpacked_len(payload: &[u8], compression: Compression) -> Result<usize, ImageError> {
    if compression == Compression::None {
        return Ok(payload.len());
    }
    let trailer_at = payload
        .len()
        .checked_sub(4)
        .and_then(|at| u32_at(payload, at));
    let len = trailer_at.ok_or(ImageError::Truncated {
        what: "the compressed payload",
        need: 4,
        have: payload.len() as u64,
    })?;
    match usize::try_from(len) {
        Ok(len) if len <= MAX_UNPACKED_LEN => Ok(len),
        _ => Err(ImageError::TooLarge {
            len: len.into(),
            limit: MAX_UNPACKED_LEN,
        }),
    }
}
