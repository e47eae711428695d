//! The journal: every acknowledged change is in this file before it is acknowledged, so that a daemon that is killed can go on where it
//! was. The file is in memory (`/run`): it outlives the process, not the machine, as do the domains that it tells of.

pub mod record;

use crate::log::{self, RateLimit};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The file's name in its directory.
const NAME: &str = "state";
const NEW_NAME: &str = "state.new";
const LOCK_NAME: &str = "lock";

/// What the file may grow by before it is written anew, at least.
const GROWTH: u64 = 256 << 10;

/// The file, open for appending.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    file: File,
    len: u64,
    /// The length when it was written anew.
    base: u64,
    /// Whether something is missing in it.
    broken: bool,
    complaints: RateLimit,
    _lock: File,
}

impl Journal {
    /// Opens the journal in a directory, and returns what is in it.
    ///
    /// # Errors
    ///
    /// When the directory cannot be written, or another daemon uses it.
    pub fn open(dir: &Path) -> io::Result<(Self, Vec<u8>)> {
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(dir.join(LOCK_NAME))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| io::Error::new(error.kind(), format!("another daemon uses {}", dir.display())))?;
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(dir.join(NAME))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let len = bytes.len() as u64;
        let journal = Self { dir: dir.to_owned(), file, len, base: len, broken: false, complaints: RateLimit::default(), _lock: lock };
        Ok((journal, bytes))
    }

    /// Appends frames. When that fails, the journal is incomplete until it is written anew.
    pub fn append(&mut self, frames: &[u8]) {
        if self.broken || frames.is_empty() {
            return;
        }
        match self.file.write_all(frames) {
            Ok(()) => self.len += frames.len() as u64,
            Err(error) => {
                self.broken = true;
                let dir = self.dir.display();
                self.complaints.line(|| format!("cannot write the journal in {dir}: {error}; a restart now would lose changes"));
            }
        }
    }

    /// Whether it should be written anew.
    pub fn wants_rewrite(&self) -> bool {
        self.broken || self.len > self.base + self.base.max(GROWTH)
    }

    /// Replaces everything by the frames that `write` writes.
    pub fn rewrite(&mut self, write: impl FnOnce(&mut File) -> io::Result<()>) {
        match self.try_rewrite(write) {
            Ok(()) => {
                if self.broken {
                    log::line("the journal is complete again");
                }
                self.broken = false;
            }
            Err(error) => {
                self.broken = true;
                let dir = self.dir.display();
                self.complaints.line(|| format!("cannot write the journal in {dir} anew: {error}"));
            }
        }
    }

    fn try_rewrite(&mut self, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        let new = self.dir.join(NEW_NAME);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&new)?;
        write(&mut file)?;
        let len = file.stream_position()?;
        std::fs::rename(&new, self.dir.join(NAME))?;
        self.file = file;
        self.len = len;
        self.base = len;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, bytes) = Journal::open(dir.path()).unwrap();
        assert_eq!(bytes, b"");
        journal.append(b"one");
        assert!(Journal::open(dir.path()).is_err(), "two daemons must not share a journal");
        journal.append(b"two");
        drop(journal);
        let (mut journal, bytes) = Journal::open(dir.path()).unwrap();
        assert_eq!(bytes, b"onetwo");
        journal.rewrite(|file| file.write_all(b"all"));
        journal.append(b"more");
        assert!(!journal.wants_rewrite());
        journal.append(&vec![0; GROWTH as usize]);
        assert!(journal.wants_rewrite());
        drop(journal);
        assert_eq!(&Journal::open(dir.path()).unwrap().1[..7], b"allmore");
    }
}
