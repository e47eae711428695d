//! Rows about mappings. All of them use small pages: the huge ones of the kernel would hide what is measured.

use std::io::{Error, Result};
use std::ptr::null_mut;

use libc::{MADV_NOHUGEPAGE, MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, MREMAP_FIXED, MREMAP_MAYMOVE, PROT_READ, PROT_WRITE, c_void};

use crate::checked;

const PAGE: usize = 4096;

/// Private anonymous memory, unmapped when dropped.
struct Mapping {
    start: *mut c_void,
    pages: usize,
}

impl Mapping {
    fn new(pages: usize) -> Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { libc::mmap(null_mut(), pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) };
        if start == MAP_FAILED {
            return Err(Error::last_os_error());
        }
        let mapping = Self { start, pages };
        // SAFETY: advice about the mapping just made. Kernels without huge pages refuse it, which is as good.
        unsafe { libc::madvise(start, pages * PAGE, MADV_NOHUGEPAGE) };
        Ok(mapping)
    }

    /// Writes one byte into every page.
    fn touch(&self) {
        for page in 0..self.pages {
            // SAFETY: inside the mapping, which is writable whenever this is called; volatile so that it happens.
            unsafe { self.start.cast::<u8>().add(page * PAGE).write_volatile(1) };
        }
    }

    fn protect(&self, protection: i32) -> Result<()> {
        // SAFETY: our own mapping; nobody touches it while it is read-only.
        checked(unsafe { libc::mprotect(self.start, self.pages * PAGE, protection) }.into()).map(drop)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, no longer used.
        unsafe { libc::munmap(self.start, self.pages * PAGE) };
    }
}

/// First writes to fresh pages.
pub fn page_faults(count: u64) -> Result<()> {
    let pages = usize::try_from(count).unwrap_or(usize::MAX);
    Mapping::new(pages)?.touch();
    Ok(())
}

/// Mapping, touching and unmapping one page.
pub fn map_unmap(count: u64) -> Result<()> {
    for _ in 0..count {
        Mapping::new(1)?.touch();
    }
    Ok(())
}

/// Changing the protection of one page there and back; each change counts.
pub fn mprotect(count: u64) -> Result<()> {
    let mapping = Mapping::new(1)?;
    mapping.touch();
    for _ in 0..count / 2 {
        mapping.protect(PROT_READ)?;
        mapping.protect(PROT_READ | PROT_WRITE)?;
    }
    Ok(())
}

/// Moving one touched page between two addresses: the kernel clears one entry and sets another.
pub fn pte_updates(count: u64) -> Result<()> {
    let (here, there) = (Mapping::new(1)?, Mapping::new(1)?);
    here.touch();
    let (mut from, mut to) = (here.start, there.start);
    for _ in 0..count {
        // SAFETY: both addresses are our own mappings of one page. The page is moved onto `to`; `from` is then empty
        // until the next move brings it back. Dropping an empty range is harmless.
        let moved = unsafe { libc::mremap(from, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) };
        if moved == MAP_FAILED {
            return Err(Error::last_os_error());
        }
        (from, to) = (to, from);
    }
    Ok(())
}

/// Changing the protection of 100 touched pages at once: the kernel sends its updates in batches.
pub fn batches_of_100(count: u64) -> Result<()> {
    let mapping = Mapping::new(100)?;
    mapping.touch();
    for _ in 0..count / 2 {
        mapping.protect(PROT_READ)?;
        mapping.protect(PROT_READ | PROT_WRITE)?;
    }
    Ok(())
}
