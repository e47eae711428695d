//! Waiting for lines on a guest's console, by the log file that either console daemon keeps.

use std::fs;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};

const LOGS: &str = "/var/log/xen/console";

/// The log of one guest, followed by file notification.
#[derive(Debug)]
pub struct Log {
    file: PathBuf,
    notify: OwnedFd,
}

impl Log {
    /// The log of a guest that need not exist yet.
    pub fn of(name: &str) -> Result<Self> {
        fs::create_dir_all(LOGS)?;
        let notify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        add_watch(&notify, LOGS, WatchFlags::MODIFY | WatchFlags::CREATE)?;
        Ok(Self { file: Path::new(LOGS).join(format!("guest-{name}.log")), notify })
    }

    /// Waits until the log has `text`; says when it was seen.
    pub fn wait_for(&self, text: &str, limit: Duration) -> Result<Instant> {
        let deadline = Instant::now() + limit;
        loop {
            let log = fs::read(&self.file).unwrap_or_default();
            if log.windows(text.len()).any(|window| window == text.as_bytes()) {
                return Ok(Instant::now());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let log = String::from_utf8_lossy(&log);
                let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("(nothing)");
                bail!("no `{text}` in {} within {} s; the last line is `{last}`", self.file.display(), limit.as_secs());
            }
            self.wait(left)?;
        }
    }

    /// Waits for a change and takes note of all that have been notified.
    fn wait(&self, limit: Duration) -> Result<()> {
        let timeout = Timespec::try_from(limit).context("the time limit is too long")?;
        poll(&mut [PollFd::new(&self.notify, PollFlags::IN)], Some(&timeout))?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.notify, &mut buffer);
        while reader.next().is_ok() {}
        Ok(())
    }
}
