//! Why a guest cannot be built.

use oxen_builder::PlanError;
use oxen_kernel_image::ImageError;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The kernel.
    Kernel,
    /// The initial RAM disk.
    Ramdisk,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Ramdisk => "ramdisk",
        })
    }
}

/// Why a guest cannot be built. The text names the culprit. Nothing is left behind, except as [`BuildError::Leftover`] says.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// A file cannot be read.
    File {
        /// What it is for.
        purpose: Purpose,
        /// Its name.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The kernel file is not one that can be started.
    Kernel {
        /// Its name.
        path: PathBuf,
        /// The reason.
        source: ImageError,
    },
    /// The kernel cannot be laid out in the memory.
    Plan {
        /// The kernel's name.
        path: PathBuf,
        /// The reason.
        source: PlanError,
    },
    /// The command line is too long for the start information.
    CommandLine {
        /// Its length in bytes.
        len: usize,
        /// The longest allowed.
        max: usize,
    },
    /// The most memory is less than that at the start.
    Limits {
        /// Memory at the start in KiB.
        memory_kib: u64,
        /// The most in KiB.
        max_memory_kib: u64,
    },
    /// There is not enough free memory.
    Memory {
        /// What the guest needs in KiB.
        need_kib: u64,
        /// What is free, in KiB, if that is known.
        free_kib: Option<u64>,
    },
    /// A call failed.
    Call {
        /// What was being done.
        doing: &'static str,
        /// The reason.
        source: oxen_xenctl::Error,
    },
    /// Building failed, and the half-built domain could not be destroyed.
    Leftover {
        /// The domain.
        domid: u16,
        /// Why building failed.
        cause: Box<BuildError>,
        /// Why destroying failed.
        destroy: oxen_xenctl::Error,
    },
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File {
                purpose,
                path,
                source,
            } => write!(f, "cannot read the {purpose} {}: {source}", path.display()),
            Self::Kernel { path, source } => {
                write!(f, "cannot start the kernel {}: {source}", path.display())
            }
            Self::Plan { path, source } => {
                write!(f, "cannot load the kernel {}: {source}", path.display())
            }
            Self::CommandLine { len, max } => write!(
                f,
                "the kernel's command line has {len} bytes; at most {max} are possible"
            ),
            Self::Limits {
                memory_kib,
                max_memory_kib,
            } => write!(
                f,
                "maxmem ({max_memory_kib} KiB) is less than memory ({memory_kib} KiB)"
            ),
            Self::Memory {
                need_kib,
                free_kib: Some(free_kib),
            } => write!(
                f,
                "not enough free memory: the guest needs {need_kib} KiB, {free_kib} KiB are free; \
                 `xm mem-set 0` takes some from domain 0"
            ),
            Self::Memory {
                need_kib,
                free_kib: None,
            } => write!(f, "not enough free memory: the guest needs {need_kib} KiB"),
            Self::Call { doing, source } => write!(f, "{doing}: {source}"),
            Self::Leftover {
                domid,
                cause,
                destroy,
            } => write!(
                f,
                "{cause} (and the half-built domain {domid} is left: {destroy})"
            ),
        }
    }
}

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } => Some(source),
            Self::Call { source, .. } => Some(source),
            Self::Leftover { cause, .. } => Some(cause),
            Self::Kernel { .. }
            | Self::Plan { .. }
            | Self::CommandLine { .. }
            | Self::Limits { .. }
            | Self::Memory { .. } => None,
        }
    }
}
