//! Has a confined process read a guest's disk, and keeps what it finds.

use crate::find::{MAX_KERNEL, MAX_RAMDISK};
use crate::wire::{Answer, MAX_LINE};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// The user and group that own nothing.
const NOBODY: u32 = 65534;
/// Bytes that are copied at a time.
const CHUNK: usize = 256 * 1024;

/// What to boot from.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The disk: a block device or a file with its raw bytes.
    pub disk: &'a Path,
    /// The entry of the boot menu, as [`crate::find::find`] takes it.
    pub entry: Option<&'a str>,
    /// Where the files go; only root should be able to write there.
    pub directory: &'a Path,
    /// The guest's name, with which the files' names begin.
    pub name: &'a str,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booted {
    /// The entry's title.
    pub title: String,
    /// The kernel, a file for the caller to remove.
    pub kernel: PathBuf,
    /// The initial RAM disk, a file for the caller to remove.
    pub ramdisk: Option<PathBuf>,
    /// The kernel's command line.
    pub arguments: String,
}

/// Why a guest cannot be booted from its disk.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The disk cannot be opened.
    Disk {
        /// The disk.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The confined process cannot be started.
    Start {
        /// Its program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing to boot on the disk.
    Nothing {
        /// The disk.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The confined process ended without an answer: the disk's structures lead nowhere, or ask for too much.
    Damaged {
        /// The disk.
        path: PathBuf,
        /// What happened.
        what: String,
    },
    /// A file cannot be written.
    Output {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk { path, source } => {
                write!(f, "cannot open the disk {}: {source}", path.display())
            }
            Self::Start { program, source } => write!(
                f,
                "cannot start the boot loader {}: {source}",
                program.display()
            ),
            Self::Nothing { path, reason } => {
                write!(f, "nothing to boot on {}: {reason}", path.display())
            }
            Self::Damaged { path, what } => {
                write!(f, "the disk {} cannot be read: {what}", path.display())
            }
            Self::Output { path, source } => write!(f, "cannot write {}: {source}", path.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Disk { source, .. }
            | Self::Start { source, .. }
            | Self::Output { source, .. } => Some(source),
            Self::Nothing { .. } | Self::Damaged { .. } => None,
        }
    }
}

/// Finds what a disk boots and writes it to files; `program` is the `oxen-bootloader` binary. A failure leaves no files.
///
/// # Errors
///
/// [`Error`].
pub fn extract(request: &Request<'_>, program: &Path) -> Result<Booted, Error> {
    let disk = File::open(request.disk).map_err(|source| Error::Disk {
        path: request.disk.to_owned(),
        source,
    })?;
    let mut child = start(program, disk, request.entry).map_err(|source| Error::Start {
        program: program.to_owned(),
        source,
    })?;
    let result = match child.stdout.take() {
        Some(pipe) => receive(request, BufReader::new(pipe)),
        None => Err(damaged(request, "it has no output".to_owned())),
    };
    // It may still be writing what nobody reads; a process that has ended already cannot be ended.
    let _ = child.kill();
    let _ = child.wait();
    result
}

fn damaged(request: &Request<'_>, what: String) -> Error {
    Error::Damaged {
        path: request.disk.to_owned(),
        what,
    }
}

/// Starts the confined process.
fn start(program: &Path, disk: File, entry: Option<&str>) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.arg("--confined");
    if let Some(entry) = entry {
        command.arg(format!("--entry={entry}"));
    }
    command
        .env_clear()
        .current_dir("/")
        .stdin(disk)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.spawn()
}

/// Takes the answer.
fn receive(request: &Request<'_>, mut pipe: BufReader<ChildStdout>) -> Result<Booted, Error> {
    let broken = |error: io::Error| damaged(request, format!("the reader's output: {error}"));
    let mut line = Vec::new();
    pipe.by_ref()
        .take(MAX_LINE)
        .read_until(b'\n', &mut line)
        .map_err(broken)?;
    let answer = serde_json::from_slice(&line).map_err(|_| {
        damaged(
            request,
            "its structures make no sense or ask for too much memory or time".to_owned(),
        )
    })?;
    let (title, arguments, kernel_len, ramdisk_len) = match answer {
        Answer::Refused { reason } => {
            return Err(Error::Nothing {
                path: request.disk.to_owned(),
                reason: printable(&reason),
            });
        }
        Answer::Found {
            title,
            arguments,
            kernel_len,
            ramdisk_len,
        } => (title, arguments, kernel_len, ramdisk_len),
    };
    if kernel_len > MAX_KERNEL || ramdisk_len.is_some_and(|len| len > MAX_RAMDISK) {
        return Err(damaged(
            request,
            "kernel or initial RAM disk is too large".to_owned(),
        ));
    }
    if arguments.chars().any(char::is_control) {
        return Err(damaged(
            request,
            "there are control characters in the command line".to_owned(),
        ));
    }
    let kernel = keep(request, &mut pipe, "kernel", kernel_len)?;
    let ramdisk = match ramdisk_len.map(|len| keep(request, &mut pipe, "ramdisk", len)) {
        None => None,
        Some(Ok(path)) => Some(path),
        Some(Err(error)) => {
            // What cannot be removed is overwritten next time.
            let _ = fs::remove_file(&kernel);
            return Err(error);
        }
    };
    Ok(Booted {
        title: printable(&title),
        kernel,
        ramdisk,
        arguments,
    })
}

/// Writes `len` bytes of the pipe to a file.
fn keep(
    request: &Request<'_>,
    pipe: &mut impl Read,
    what: &str,
    len: u64,
) -> Result<PathBuf, Error> {
    let path = request
        .directory
        .join(format!("{}.{what}", request.name.replace('/', "_")));
    let fail = |source: io::Error| Error::Output {
        path: path.clone(),
        source,
    };
    // Never through a link or into a file that somebody else holds open.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(fail)?;
    match copy(pipe, &mut file, len) {
        Ok(copied) if copied == len => Ok(path),
        outcome => {
            let _ = fs::remove_file(&path);
            Err(match outcome {
                Ok(copied) => damaged(
                    request,
                    format!("the {what} ends after {copied} of {len} bytes"),
                ),
                Err(error) => fail(error),
            })
        }
    }
}

/// Copies `len` bytes, or those that there are; how many that were.
fn copy(from: &mut impl Read, to: &mut impl Write, len: u64) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut copied = 0;
    while copied < len {
        let most = usize::try_from(len - copied).unwrap_or(CHUNK).min(CHUNK);
        let bytes = buffer.get_mut(..most).unwrap_or_default();
        match from.read(bytes) {
            Ok(0) => break,
            Ok(got) => {
                to.write_all(bytes.get(..got).unwrap_or_default())?;
                copied += got as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(copied)
}

/// Text of the guest's as it may be shown on a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
