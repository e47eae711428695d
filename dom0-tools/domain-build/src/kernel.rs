//! Reading the guest's files.

use crate::cache;
use crate::error::{BuildError, Purpose};
use crate::frames::Frames;
use crate::request::Identity;
use oxen_kernel_image::{Kernel, KernelFile, MAX_UNPACKED_LEN};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What is read of an unpacked kernel at first: its headers are in there.
const HEAD_LEN: usize = 4096;

/// An unpacked kernel, ready to be laid out.
#[derive(Debug)]
pub struct Loaded {
    path: PathBuf,
    /// The ELF file; where it is also in `file`, only what lies in the headers and notes.
    elf: Vec<u8>,
    /// The ELF file on disk and where it begins there. Its segments go from there to the guest's frames without a stop in between.
    file: Option<(File, u64)>,
    /// Where the cache may keep it: directory and name of the entry. `None` for what is there already or needs no unpacking.
    cacheable: Option<(PathBuf, String)>,
}

impl Loaded {
    /// Reads and unpacks a kernel, or finds it unpacked in the directory `cache`, where it is known by its `identity`.
    ///
    /// # Errors
    ///
    /// [`BuildError::File`], [`BuildError::Kernel`].
    pub fn open(path: &Path, cache: Option<&Path>, identity: Identity) -> Result<Self, BuildError> {
        let file_error = |source| file_error(Purpose::Kernel, path, source);
        let kernel_error = |source| BuildError::Kernel {
            path: path.to_owned(),
            source,
        };
        let (file, metadata) = open(path).map_err(file_error)?;
        let read = || read(&file, metadata.len()).map_err(file_error);
        let (key, bytes) = match identity {
            Identity::File => (cache::key(&metadata), None),
            Identity::Content => {
                let bytes = read()?;
                (cache::content_key(&bytes), Some(bytes))
            }
        };
        let loaded = |elf, file, cacheable| Self {
            path: path.to_owned(),
            elf,
            file,
            cacheable,
        };
        if let Some((entry, at, len)) = cache.and_then(|dir| cache::open(dir, &key, MAX_UNPACKED_LEN))
            && let Ok(elf) = outline(&entry, at, len)
        {
            return Ok(loaded(elf, Some((entry, at)), None));
        }
        let bytes = bytes.map_or_else(read, Ok)?;
        let packed = KernelFile::open(&bytes).map_err(kernel_error)?;
        if packed.stored().is_some_and(|elf| elf.len() == bytes.len()) {
            return Ok(loaded(bytes, None, None));
        }
        let elf = packed.unpack().map_err(kernel_error)?.into_owned();
        Ok(loaded(elf, None, cache.map(|dir| (dir.to_owned(), key))))
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

    /// Puts the kernel's segments into their frames and clears what they leave open.
    pub(crate) fn load(&self, kernel: &Kernel<'_>, frames: &mut Frames<'_>) -> Result<(), BuildError> {
        for segment in kernel.segments() {
            match &self.file {
                Some((file, at)) => frames
                    .load(segment.paddr, file, at.saturating_add(segment.offset), segment.data.len() as u64)?
                    .map_err(|source| file_error(Purpose::Kernel, &self.path, source))?,
                None => frames.store(segment.paddr, segment.data)?,
            }
            oxen_builder::clear_rest(segment, frames)?;
        }
        Ok(())
    }

    /// Where it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Of the ELF file of `len` bytes at `at`, what [`Kernel::parse`] looks at; everything else stays zero, which costs no memory.
///
/// # Errors
///
/// Those of the file; `InvalidData` for one that has to be read whole.
fn outline(file: &File, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut elf = vec![0; len];
    let head_len = HEAD_LEN.min(len);
    read_part(file, at, &mut elf, 0, head_len as u64)?;
    let notes = Kernel::note_segments(elf.get(..head_len).unwrap_or_default(), len as u64);
    if notes.is_empty() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    for (offset, len) in notes {
        read_part(file, at, &mut elf, offset, len)?;
    }
    Ok(elf)
}

/// Reads `len` bytes at `offset` of the file at `at` to the same place in `elf`.
fn read_part(file: &File, at: u64, elf: &mut [u8], offset: u64, len: u64) -> io::Result<()> {
    let range = usize::try_from(offset).ok().zip(usize::try_from(len).ok());
    let part = range.and_then(|(offset, len)| elf.get_mut(offset..offset.checked_add(len)?));
    file.read_exact_at(part.ok_or(io::ErrorKind::InvalidData)?, at.saturating_add(offset))
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

fn read(mut file: &File, len: u64) -> io::Result<Vec<u8>> {
    let len = usize::try_from(len)
        .ok()
        .filter(|len| *len <= MAX_UNPACKED_LEN)
        .ok_or_else(|| io::Error::other("it is too large for a kernel"))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len)?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
