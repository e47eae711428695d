//! Unpacked kernels, kept for the next guest that boots from the same file: unpacking is most of the work of building a guest.
//!
//! An entry is a file whose name is the identity of the packed one: device, inode, length, times of last change; or a digest of what is in it,
//! where the packed one is a copy that goes. A guest that brings its own kernel must not be able to make one that another guest then boots, so
//! that the digest is a cryptographic one. The directory is root's alone, and so are the entries in it. Whatever is wrong with the cache, a guest can be built without it.

use rustix::fs::{FlockOperation, flock, statvfs};
use sha2::{Digest, Sha256};
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where entries are kept unless a request says otherwise.
pub const DEFAULT_DIR: &str = "/var/cache/oxen/kernels";
/// Entries kept; the least recently used ones go.
const MAX_ENTRIES: usize = 3;
/// There must be room for so many times an entry before it is made.
const ROOM_FACTOR: u64 = 2;
/// What an entry starts with, before the length of the kernel.
const MAGIC: &[u8; 8] = b"oxenelf1";
const HEADER_LEN: usize = 16;
/// Holds the entry that is being written, and by its lock the right to write one.
const NEW: &str = "new";

/// The name of the entry for a file.
pub fn key(file: &Metadata) -> String {
    format!(
        "{:x}-{:x}-{:x}-{:x}.{:x}-{:x}.{:x}",
        file.dev(),
        file.ino(),
        file.len(),
        file.mtime(),
        file.mtime_nsec(),
        file.ctime(),
        file.ctime_nsec()
    )
}

/// The name of the entry for a file with these bytes.
pub fn content_key(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The file of an entry, if there is one, with the place and the length of the kernel in it; it then counts as used.
pub fn open(dir: &Path, key: &str, max_len: usize) -> Option<(File, u64, usize)> {
    let mut file = File::open(dir.join(key)).ok()?;
    let mut header = [0; HEADER_LEN];
    file.read_exact(&mut header).ok()?;
    let (magic, len) = header.split_at(MAGIC.len());
    let len = usize::try_from(u64::from_le_bytes(len.try_into().ok()?)).ok()?;
    let whole = file.metadata().ok()?.len() == (HEADER_LEN as u64).checked_add(len as u64)?;
    if magic != MAGIC || len > max_len || !whole {
        return None;
    }
    // Entries are replaced in the order of their last use. A file system that does not record it only chooses worse.
    let _ = file.set_modified(SystemTime::now());
    Some((file, HEADER_LEN as u64, len))
}

/// Makes an entry, if there is room for it. Another process may be doing the same: then that one does it.
///
/// # Errors
///
/// Those of the file system; nothing is left half done.
pub fn store(dir: &Path, key: &str, elf: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let new = dir.join(NEW);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&new)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    // Left by a process that was killed.
    file.set_len(0)?;
    trim(dir, MAX_ENTRIES - 1)?;
    let need = (elf.len() as u64).saturating_mul(ROOM_FACTOR);
    if room(dir)? < need {
        return fs::remove_file(&new);
    }
    let written = file
        .write_all(MAGIC)
        .and_then(|()| file.write_all(&(elf.len() as u64).to_le_bytes()))
        .and_then(|()| file.write_all(elf))
        // Without this a crash of the machine could leave an entry of the right length and zeroes in it.
        .and_then(|()| file.sync_data())
        .and_then(|()| fs::rename(&new, dir.join(key)));
    written.inspect_err(|_| {
        // The next one to write starts anew in any case.
        let _ = fs::remove_file(&new);
    })
}

/// Removes all but the `keep` entries used last.
fn trim(dir: &Path, keep: usize) -> io::Result<()> {
    let mut entries: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name() != NEW {
            entries.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    entries.sort();
    for (_, path) in entries.iter().rev().skip(keep) {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Bytes that can be written in `dir`. Where that is memory without a limit of its own, the memory that is available.
fn room(dir: &Path) -> io::Result<u64> {
    let info = statvfs(dir)?;
    if info.f_blocks > 0 {
        return Ok(info.f_bavail.saturating_mul(info.f_frsize));
    }
    let text = fs::read_to_string("/proc/meminfo")?;
    let available = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = available
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|word| word.parse::<u64>().ok());
    Ok(kib.unwrap_or(0).saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn load(dir: &Path, key: &str, max_len: usize) -> Option<Vec<u8>> {
        let (file, at, len) = open(dir, key, max_len)?;
        let mut elf = vec![0; len];
        file.read_exact_at(&mut elf, at).unwrap();
        Some(elf)
    }

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("oxen-cache-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn entries_come_back_and_the_oldest_go() {
        let dir = dir("order");
        for n in 0..5_u8 {
            store(&dir, &format!("k{n}"), &[n; 1000]).unwrap();
            // The first one stays in use.
            assert_eq!(load(&dir, "k0", 2000), Some(vec![0; 1000]));
            std::thread::sleep(std::time::Duration::from_millis(15));
        }
        assert_eq!(load(&dir, "k4", 2000), Some(vec![4; 1000]));
        assert_eq!(load(&dir, "k1", 2000), None);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), MAX_ENTRIES);
        assert_eq!(load(&dir, "k4", 999), None);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn damaged_entries_are_none() {
        let dir = dir("damage");
        store(&dir, "k", &[7; 1000]).unwrap();
        let bytes = fs::read(dir.join("k")).unwrap();
        for len in [0, 7, 15, 16, 1015] {
            fs::write(dir.join("k"), &bytes[..len]).unwrap();
            assert_eq!(load(&dir, "k", 2000), None);
        }
        fs::write(dir.join("k"), [&[0; 8], &bytes[8..]].concat()).unwrap();
        assert_eq!(load(&dir, "k", 2000), None);
        // What a killed process left is overwritten.
        fs::write(dir.join(NEW), [1; 5000]).unwrap();
        store(&dir, "k", &[8; 10]).unwrap();
        assert_eq!(load(&dir, "k", 2000), Some(vec![8; 10]));
        fs::remove_dir_all(&dir).unwrap();
    }
}
