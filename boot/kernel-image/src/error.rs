//! What can be wrong with a kernel file.

use crate::unpack::Compression;
use core::fmt;

/// Why a boot module cannot be used as a paravirtualized kernel. `Display` gives one line that names the culprit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// Neither a bzImage nor an ELF file nor a gzip stream.
    NotAKernel {
        /// Length of the module in bytes.
        len: usize,
        /// Its first bytes, zero-filled.
        first: [u8; 8],
    },
    /// The file ends before what its headers promise.
    Truncated {
        /// The part that is cut off.
        what: &'static str,
        /// Bytes that the headers ask for.
        need: u64,
        /// Bytes that are there.
        have: u64,
    },
    /// A bzImage without payload fields (boot protocol before 2.08).
    OldBootProtocol {
        /// The protocol version, for instance 0x0207.
        version: u16,
    },
    /// A bzImage whose payload fields are zero.
    NoPayload,
    /// The payload starts with no magic number that this crate knows.
    UnknownCompression {
        /// The payload's first bytes.
        magic: [u8; 8],
    },
    /// A compression that is recognised but not supported.
    UnsupportedCompression(Compression),
    /// The unpacked kernel is larger than the limit.
    TooLarge {
        /// Bytes that the file says it unpacks to.
        len: u64,
        /// The limit in bytes.
        limit: usize,
    },
    /// The buffer given to [`crate::KernelFile::unpack_into`] is too small.
    BufferTooSmall {
        /// Bytes needed.
        need: usize,
        /// Bytes given.
        have: usize,
    },
    /// No memory for unpacking.
    OutOfMemory {
        /// Bytes asked for.
        len: usize,
    },
    /// The decoder refused the payload.
    Corrupt {
        /// Which decoder.
        compression: Compression,
        /// What it found wrong.
        reason: &'static str,
    },
    /// The payload unpacks to something that is no ELF file.
    NotElf {
        /// Its first bytes.
        first: [u8; 8],
    },
    /// An ELF file for another word size (class 1 is 32-bit).
    WrongClass {
        /// `e_ident[EI_CLASS]`.
        class: u8,
    },
    /// A big-endian ELF file.
    WrongByteOrder {
        /// `e_ident[EI_DATA]`.
        data: u8,
    },
    /// An ELF file for another processor.
    WrongMachine {
        /// `e_machine`.
        machine: u16,
    },
    /// An ELF file that is not an executable.
    NotExecutable {
        /// `e_type`.
        kind: u16,
    },
    /// An ELF header or a note that contradicts itself.
    BadElf(&'static str),
    /// No notes with the owner "Xen": the kernel cannot run paravirtualized.
    NoXenNotes,
    /// Xen notes, but none that gives a paravirtualized entry point.
    NoPvEntry,
    /// The kernel asks for another interface than `xen-3.0`.
    WrongInterface {
        /// What it asks for, zero-filled.
        version: [u8; 16],
    },
    /// Neither the loader "generic" nor the guest "linux".
    WrongLoader,
    /// The kernel requires a feature that the hypervisor does not know.
    UnknownFeature {
        /// The feature's name, cut to 32 bytes and zero-filled.
        name: [u8; 32],
    },
    /// A note's address lies outside the loaded kernel or in the hypervisor's range.
    BadAddress {
        /// Which address.
        what: &'static str,
        /// Its value.
        va: u64,
    },
}

/// Bytes of a fixed-size text field up to the first zero, with anything unprintable shown as a dot.
struct Text<'a>(&'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for &byte in self.0.iter().take_while(|byte| **byte != 0) {
            f.write_char(if byte.is_ascii_graphic() || byte == b' ' {
                byte as char
            } else {
                '.'
            })?;
        }
        Ok(())
    }
}

/// Bytes in hexadecimal, separated by blanks.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if index != 0 {
                f.write_str(" ")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotAKernel { len, ref first } => {
                write!(
                    f,
                    "not a kernel: {len} bytes starting with {}; expected a bzImage or an x86-64 ELF file",
                    Hex(first)
                )
            }
            Self::Truncated { what, need, have } => write!(
                f,
                "truncated: {what} needs {need} bytes, only {have} are there"
            ),
            Self::OldBootProtocol { version } => {
                write!(
                    f,
                    "bzImage with boot protocol {}.{:02}; 2.08 or later is needed",
                    version >> 8,
                    version & 0xff
                )
            }
            Self::NoPayload => f.write_str("bzImage without a payload"),
            Self::UnknownCompression { ref magic } => write!(
                f,
                "unknown compression: the payload starts with {}",
                Hex(magic)
            ),
            Self::UnsupportedCompression(compression) => {
                write!(
                    f,
                    "payload compressed with {compression}, which is not supported (gzip, xz, lzma, lz4, zstd are)"
                )
            }
            Self::TooLarge { len, limit } => write!(
                f,
                "the kernel would unpack to {len} bytes, more than the limit of {limit}"
            ),
            Self::BufferTooSmall { need, have } => {
                write!(f, "unpacking needs a buffer of {need} bytes, got {have}")
            }
            Self::OutOfMemory { len } => write!(f, "no memory for unpacking {len} bytes"),
            Self::Corrupt {
                compression,
                reason,
            } => write!(f, "corrupt {compression} payload: {reason}"),
            Self::NotElf { ref first } => write!(
                f,
                "the payload is not an ELF file: it starts with {}",
                Hex(first)
            ),
            Self::WrongClass { class: 1 } => {
                f.write_str("32-bit kernel; only 64-bit kernels are supported")
            }
            Self::WrongClass { class } => write!(f, "ELF file of unknown class {class}"),
            Self::WrongByteOrder { data } => write!(
                f,
                "ELF file in byte order {data}; little-endian (1) is needed"
            ),
            Self::WrongMachine { machine } => {
                write!(f, "kernel for ELF machine {machine}; x86-64 (62) is needed")
            }
            Self::NotExecutable { kind } => write!(
                f,
                "ELF file of type {kind}; an executable (2 or 3) is needed"
            ),
            Self::BadElf(what) => write!(f, "damaged ELF file: {what}"),
            Self::NoXenNotes => f.write_str(
                "ELF file without Xen notes: the kernel was built without Xen PV support",
            ),
            Self::NoPvEntry => {
                f.write_str("Xen notes without a PV entry point: the kernel supports PVH only")
            }
            Self::WrongInterface { ref version } => {
                write!(
                    f,
                    "the kernel wants interface \"{}\"; this is xen-3.0",
                    Text(version)
                )
            }
            Self::WrongLoader => f.write_str(
                "the kernel's notes name neither loader \"generic\" nor guest \"linux\"",
            ),
            Self::UnknownFeature { ref name } => {
                write!(f, "the kernel requires unknown feature \"{}\"", Text(name))
            }
            Self::BadAddress { what, va } => {
                write!(f, "{what} {va:#x} is outside the range it must lie in")
            }
        }
    }
}

impl core::error::Error for ImageError {}
