//! Log files that rotate by size.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// How large log files become, and how many are kept.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// Bytes of one file; a file becomes larger only by what is written to it at once.
    pub max_len: u64,
    /// Older files kept beside the current one.
    pub keep: u32,
}

/// A log file that is being written.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    file: Option<File>,
    len: u64,
    /// Writing failed, and that was reported.
    failed: bool,
}

impl LogFile {
    /// The file `guest-NAME.log` in `dir` for the guest of that name.
    pub fn for_guest(dir: &Path, name: &str, rotation: Rotation) -> Self {
        Self::new(dir.join(format!("guest-{}.log", file_name(name))), rotation)
    }

    /// The file at `path`; it is opened when something is written.
    pub fn new(path: PathBuf, rotation: Rotation) -> Self {
        Self { path, rotation, file: None, len: 0, failed: false }
    }

    /// Adds `bytes`. A file that cannot be written (a full disk) costs its lines but nothing else: it is reported once and tried again
    /// the next time.
    pub fn append(&mut self, bytes: &[u8]) {
        match self.try_append(bytes) {
            Ok(()) => self.failed = false,
            Err(error) => {
                if !self.failed {
                    eprintln!("xenconsoled: cannot write {}: {error}; the guest's output is not recorded", self.path.display());
                }
                self.failed = true;
                self.file = None;
            }
        }
    }

    fn try_append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            let file = OpenOptions::new().append(true).create(true).open(&self.path)?;
            self.len = file.metadata()?.len();
            self.file = Some(file);
        }
        if self.len > 0 && self.len.saturating_add(bytes.len() as u64) > self.rotation.max_len {
            self.rotate()?;
        }
        if let Some(file) = &mut self.file {
            file.write_all(bytes)?;
            self.len = self.len.saturating_add(bytes.len() as u64);
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |n: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        for n in (1..self.rotation.keep).rev() {
            rename_if_exists(&numbered(n), &numbered(n + 1))?;
        }
        if self.rotation.keep > 0 {
            rename_if_exists(&self.path, &numbered(1))?;
        } else {
            fs::remove_file(&self.path)?;
        }
        self.file = Some(OpenOptions::new().append(true).create(true).open(&self.path)?);
        self.len = 0;
        Ok(())
    }
}

fn rename_if_exists(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// `name` as a part of a file name.
fn file_name(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    name.chars().take(128).map(|c| if plain(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_rotate_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let rotation = Rotation { max_len: 1000, keep: 2 };
        let mut log = LogFile::for_guest(dir.path(), "a", rotation);
        for n in 0..100 {
            log.append(format!("line {n:03} {}\n", "x".repeat(90)).as_bytes());
        }
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["guest-a.log", "guest-a.log.1", "guest-a.log.2"]);
        let text: String = ["guest-a.log.2", "guest-a.log.1", "guest-a.log"].iter().map(|name| fs::read_to_string(dir.path().join(name)).unwrap()).collect();
        assert!(text.len() <= 3000);
        let numbers: Vec<u32> = text.lines().map(|line| line[5..8].parse().unwrap()).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
        assert_eq!(numbers.last(), Some(&99));
    }

    #[test]
    fn a_restarted_daemon_goes_on_in_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let rotation = Rotation { max_len: 1000, keep: 1 };
        LogFile::for_guest(dir.path(), "a", rotation).append(b"one\n");
        LogFile::for_guest(dir.path(), "a", rotation).append(b"two\n");
        assert_eq!(fs::read(dir.path().join("guest-a.log")).unwrap(), b"one\ntwo\n");
    }

    #[test]
    fn a_name_cannot_leave_the_directory() {
        assert_eq!(file_name("../../etc/passwd"), ".._.._etc_passwd");
        assert_eq!(file_name("web-1.example+x_y"), "web-1.example+x_y");
    }

    #[test]
    fn a_directory_that_is_missing_is_no_failure_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("console");
        let mut log = LogFile::for_guest(&below, "a", Rotation { max_len: 1000, keep: 1 });
        log.append(b"lost\n");
        fs::create_dir(&below).unwrap();
        log.append(b"kept\n");
        assert_eq!(fs::read(below.join("guest-a.log")).unwrap(), b"kept\n");
    }
}
