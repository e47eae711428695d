//! Reading the guest's files.

use crate::cache;
use crate::error::{BuildError, Purpose};
use oxen_kernel_image::{Kernel, KernelFile, MAX_UNPACKED_LEN};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// An unpacked kernel, ready to be laid out.
#[derive(Debug)]
pub struct Loaded {
    path: PathBuf,
    elf: Vec<u8>,
    /// Where the cache may keep it: directory and name of the entry. `None` for what is there already or needs no unpacking.
    cacheable: Option<(PathBuf, String)>,
}

impl Loaded {
    /// Reads and unpacks a kernel, or finds it unpacked in the directory `cache`.
    ///
    /// # Errors
    ///
    /// [`BuildError::File`], [`BuildError::Kernel`].
    pub fn open(path: &Path, cache: Option<&Path>) -> Result<Self, BuildError> {
        let file_error = |source| file_error(Purpose::Kernel, path, source);
        let kernel_error = |source| BuildError::Kernel {
            path: path.to_owned(),
            source,
        };
        let (file, metadata) = open(path).map_err(file_error)?;
        let key = cache::key(&metadata);
        let loaded = |elf, cacheable| Self {
            path: path.to_owned(),
            elf,
            cacheable,
        };
        if let Some(elf) = cache.and_then(|dir| cache::load(dir, &key, MAX_UNPACKED_LEN)) {
            return Ok(loaded(elf, None));
        }
        let bytes = read(file, metadata.len()).map_err(file_error)?;
        let packed = KernelFile::open(&bytes).map_err(kernel_error)?;
        if packed.stored().is_some_and(|elf| elf.len() == bytes.len()) {
            return Ok(loaded(bytes, None));
        }
        let elf = packed.unpack().map_err(kernel_error)?.into_owned();
        Ok(loaded(elf, cache.map(|dir| (dir.to_owned(), key))))
    }

    /// Keeps the unpacked kernel for the next guest, in a thread of its own: this one need not wait for the disk.
    pub fn keep(self) {
        if let Some((dir, key)) = self.cacheable {
            let elf = self.elf;
            // Without thread, room or disk there is no cache, and no guest suffers.
            let _ = std::thread::Builder::new()
                .name("kernel cache".into())
                .spawn(move || cache::store(&dir, &key, &elf));
        }
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
        let (file, metadata) =
            open(path).map_err(|source| file_error(Purpose::Ramdisk, path, source))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            len: metadata.len(),
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
fn open(path: &Path) -> io::Result<(File, Metadata)> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

fn read(mut file: File, len: u64) -> io::Result<Vec<u8>> {
    let len = usize::try_from(len)
        .ok()
        .filter(|len| *len <= MAX_UNPACKED_LEN)
        .ok_or_else(|| io::Error::other("it is too large for a kernel"))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len)?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
