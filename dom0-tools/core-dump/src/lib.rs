//! Writes a PV guest's memory and registers to an ELF core file in Xen's format (`docs/misc/dump-core-format.txt` of Xen's
//! documentation), which `crash` and other tools for Xen's dumps read and `readelf` lists.
//!
//! Which frame holds which of the guest's pages is told by the guest itself, in its shared information page. All of it is checked: a
//! guest that lies gets a dump without the pages it lies about.

#![forbid(unsafe_code)]

mod elf;
mod error;
mod p2m;

pub use error::DumpError;

use elf::{PAGE, Section};
use oxen_abi::xen::SharedInfo;
use oxen_abi::zerocopy::{FromBytes, IntoBytes};
use oxen_xenctl::{SharedMemory, Xen};
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Frames mapped at a time.
const BATCH: usize = 256;
/// What a file needs beside pages and the table of them: headers, notes, the shared information page.
const OVERHEAD: u64 = 64 << 10;

/// Writes the memory of domain `domid` to `path`; `progress` is told pages done and pages in total. Returns the file's size in bytes.
/// The caller pauses the domain first if the dump is to be consistent.
///
/// The file appears under its name only when it is complete.
///
/// # Errors
///
/// Every [`DumpError`]; nothing is left behind.
pub fn dump(xen: &Xen, domid: u16, path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<u64, DumpError> {
    let guest = Guest::look(xen, domid)?;
    let pages = p2m::pages(xen, domid, &guest.shared, guest.tot_pages)?;
    let needed = OVERHEAD + pages.len() as u64 * (PAGE + 16) + guest.contexts.len() as u64;
    check_space(path, needed)?;
    let partial = partial(path);
    let result = write(xen, domid, &guest, &pages, &partial, progress).and_then(|bytes| {
        fs::rename(&partial, path).map_err(|source| file(path, source))?;
        Ok(bytes)
    });
    if result.is_err() {
        // The error to tell is the first one.
        let _ = fs::remove_file(&partial);
    }
    result
}

/// What a dump has besides memory.
struct Guest {
    tot_pages: u64,
    nr_vcpus: u64,
    /// The vCPUs' contexts, one after the other.
    contexts: Vec<u8>,
    shared_page: Vec<u8>,
    shared: SharedInfo,
}

impl Guest {
    fn look(xen: &Xen, domid: u16) -> Result<Self, DumpError> {
        let call = |doing| move |source| DumpError::Call { doing, source };
        let info = xen.domain(domid).map_err(call("looking at the domain"))?;
        let (mut contexts, mut nr_vcpus) = (Vec::new(), 0);
        for vcpu in 0..info.max_vcpu_id.wrapping_add(1) {
            if let Some(context) = xen.vcpu_context(domid, vcpu).map_err(call("reading the registers"))? {
                contexts.extend_from_slice(context.as_bytes());
                nr_vcpus += 1;
            }
        }
        let map = xen
            .map_foreign(domid, &[info.shared_info_frame], false)
            .map_err(call("mapping the shared information page"))?;
        let shared_page = bytes(&map, 0, PAGE as usize)?;
        let (shared, _) = SharedInfo::read_from_prefix(&shared_page).map_err(|_| DumpError::Copy)?;
        Ok(Self { tot_pages: info.tot_pages, nr_vcpus, contexts, shared_page, shared })
    }
}

/// A copy of mapped memory.
fn bytes(memory: &SharedMemory, offset: usize, len: usize) -> Result<Vec<u8>, DumpError> {
    let mut copy = vec![0; len];
    memory.read(offset, &mut copy).map_err(|_| DumpError::Copy)?;
    Ok(copy)
}

fn file(path: &Path, source: std::io::Error) -> DumpError {
    DumpError::File { path: path.to_owned(), source }
}

/// The name while it is being written.
fn partial(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    path.with_file_name(name)
}

fn check_space(path: &Path, needed: u64) -> Result<(), DumpError> {
    let directory = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(file(path, std::io::ErrorKind::IsADirectory.into())),
    };
    let facts = rustix::fs::statvfs(directory).map_err(|error| file(directory, error.into()))?;
    let free = facts.f_bavail.saturating_mul(facts.f_frsize);
    if free < needed {
        return Err(DumpError::Space { path: path.to_owned(), needed, free });
    }
    Ok(())
}

fn write(
    xen: &Xen,
    domid: u16,
    guest: &Guest,
    pages: &[p2m::Page],
    path: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<u64, DumpError> {
    let failed = |source| file(path, source);
    // The guest's secrets are in it.
    let out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
    let mut out = BufWriter::with_capacity(1 << 20, out);
    let note = elf::notes(guest.nr_vcpus, pages.len() as u64, xen.version().ok().as_ref());
    let mut at = elf::HEADERS;
    let mut place = |name, kind, len: u64, entry| {
        let section = Section { name, kind, offset: at, len, entry };
        // Sections start on pages, so that memory can be mapped from the file.
        at = (at + len).next_multiple_of(PAGE);
        section
    };
    let context_len = guest.contexts.len() as u64;
    let mut sections = [
        place(".note.Xen", elf::NOTE, note.len() as u64, 0),
        place(".xen_prstatus", elf::DATA, context_len, context_len.checked_div(guest.nr_vcpus).unwrap_or(0)),
        place(".xen_shared_info", elf::DATA, PAGE, PAGE),
        place(".xen_p2m", elf::DATA, pages.len() as u64 * 16, 16),
        place(".xen_pages", elf::DATA, pages.len() as u64 * PAGE, PAGE),
    ];
    let [note_at, prstatus_at, shared_at, p2m_at, pages_at] = sections.each_ref().map(|section| section.offset);
    out.seek(SeekFrom::Start(pages_at)).map_err(failed)?;
    let mut written = Vec::with_capacity(pages.len());
    for batch in pages.chunks(BATCH) {
        copy_pages(xen, domid, batch, &mut out, &mut written, path)?;
        progress(written.len() as u64, pages.len() as u64);
    }
    let nr_written = written.len() as u64;
    for (section, len) in sections.iter_mut().skip(3).zip([16, PAGE]) {
        section.len = nr_written * len;
    }
    let end = pages_at + nr_written * PAGE;
    let table: Vec<u8> = written.iter().flat_map(|page| [page.pfn, page.mfn]).flat_map(u64::to_le_bytes).collect();
    let note = elf::notes(guest.nr_vcpus, nr_written, xen.version().ok().as_ref());
    let parts: [(u64, &[u8]); 5] = [
        (0, &elf::headers(&sections)),
        (note_at, &note),
        (prstatus_at, &guest.contexts),
        (shared_at, &guest.shared_page),
        (p2m_at, &table),
    ];
    for (offset, part) in parts {
        out.seek(SeekFrom::Start(offset)).and_then(|_| out.write_all(part)).map_err(failed)?;
    }
    let out: File = out.into_inner().map_err(|error| failed(error.into_error()))?;
    out.sync_all().map_err(failed)?;
    Ok(end)
}

/// Copies pages to the file; those that cannot be mapped, because the guest does not own them, are left out.
fn copy_pages(
    xen: &Xen,
    domid: u16,
    batch: &[p2m::Page],
    out: &mut impl Write,
    written: &mut Vec<p2m::Page>,
    path: &Path,
) -> Result<(), DumpError> {
    let frames: Vec<u64> = batch.iter().map(|page| page.mfn).collect();
    match xen.map_foreign(domid, &frames, false) {
        Ok(memory) => {
            let copy = bytes(&memory, 0, memory.len())?;
            out.write_all(&copy).map_err(|source| file(path, source))?;
            written.extend_from_slice(batch);
        }
        Err(_) if batch.len() > 1 => {
            let (first, second) = batch.split_at(batch.len() / 2);
            copy_pages(xen, domid, first, out, written, path)?;
            copy_pages(xen, domid, second, out, written, path)?;
        }
        // The whole domain may be gone.
        Err(_) => {
            xen.domain(domid).map_err(|source| DumpError::Call { doing: "looking at the domain", source })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
