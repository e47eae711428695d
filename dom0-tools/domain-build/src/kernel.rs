//! Reading the guest's files.

use crate::error::{BuildError, Purpose};
use oxen_kernel_image::{Kernel, KernelFile, MAX_UNPACKED_LEN};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// An unpacked kernel, ready to be laid out.
#[derive(Debug)]
pub struct Loaded {
    path: PathBuf,
    elf: Vec<u8>,
}

impl Loaded {
    /// Reads and unpacks a kernel.
    ///
    /// # Errors
    ///
    /// [`BuildError::File`], [`BuildError::Kernel`].
    pub fn open(path: &Path) -> Result<Self, BuildError> {
        let bytes = read(path).map_err(|source| file_error(Purpose::Kernel, path, source))?;
        let kernel_error = |source| BuildError::Kernel {
            path: path.to_owned(),
            source,
        };
        let file = KernelFile::open(&bytes).map_err(kernel_error)?;
        let elf = if file.stored().is_some_and(|elf| elf.len() == bytes.len()) {
            bytes
        } else {
            file.unpack().map_err(kernel_error)?.into_owned()
        };
        Ok(Self {
            path: path.to_owned(),
            elf,
        })
    }

    /// The kernel's headers and notes.
    ///
    /// # Errors
    ///
    /// [`BuildError::Kernel`].
    pub fn parse(&self) -> Result<Kernel<'_>, BuildError> {
        Kernel::parse(&self.elf).map_err(|source| BuildError::Kernel {
            path: self.path.clone(),
            source,
        })
    }

    /// Where it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// An initial RAM disk that is still on disk.
#[derive(Debug)]
pub(crate) struct Ramdisk {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) len: u64,
}

impl Ramdisk {
    pub(crate) fn open(path: &Path) -> Result<Self, BuildError> {
        let (file, len) =
            open(path).map_err(|source| file_error(Purpose::Ramdisk, path, source))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            len,
        })
    }
}

/// The error of a file that cannot be read.
pub(crate) fn file_error(purpose: Purpose, path: &Path, source: io::Error) -> BuildError {
    BuildError::File {
        purpose,
        path: path.to_owned(),
        source,
    }
}

/// Opens a regular file; anything else could block or never end.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let metadata = path.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let file = File::open(path)?;
    Ok((file, metadata.len()))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let (mut file, len) = open(path)?;
    let len = usize::try_from(len)
        .ok()
        .filter(|len| *len <= MAX_UNPACKED_LEN)
        .ok_or_else(|| io::Error::other("it is too large for a kernel"))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len)?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
