//! Why there is no dump.

use std::path::PathBuf;
use std::{fmt, io};

/// Why a guest's memory cannot be written to a file.
#[derive(Debug)]
#[non_exhaustive]
pub enum DumpError {
    /// A call failed.
    Call {
        /// What was being done.
        doing: &'static str,
        /// The reason.
        source: oxen_xenctl::Error,
    },
    /// The guest has not told, or not in a way that makes sense, where its pages are.
    NoPages {
        /// What is wrong.
        why: &'static str,
    },
    /// The file cannot be written.
    File {
        /// Its name.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The file system has too little room.
    Space {
        /// The file's name.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// Mapped memory is not as large as it should be.
    Copy,
}

impl fmt::Display for DumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call { doing, source } => write!(f, "{doing}: {source}"),
            Self::NoPages { why } => write!(f, "the guest does not tell where its memory is: {why}"),
            Self::File { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Space { path, needed, free } => {
                write!(f, "{}: the dump needs {needed} bytes, the file system has {free} bytes free", path.display())
            }
            Self::Copy => f.write_str("a mapping is smaller than what was mapped"),
        }
    }
}

impl std::error::Error for DumpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Call { source, .. } => Some(source),
            Self::File { source, .. } => Some(source),
            Self::NoPages { .. } | Self::Space { .. } | Self::Copy => None,
        }
    }
}
