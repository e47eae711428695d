//! Lines for the administrator.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where lines go; standard error until [`to_file`].
static FILE: Mutex<Option<std::fs::File>> = Mutex::new(None);

/// Sends further lines to a file.
///
/// # Errors
///
/// When it cannot be opened for appending.
pub fn to_file(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    *FILE.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(file);
    Ok(())
}

/// Writes a line.
pub fn line(text: &str) {
    let mut file = FILE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // A log that cannot be written is no reason to stop serving.
    let _ = match file.as_mut() {
        Some(file) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            file.write_all(format!("{}.{:03} {text}\n", now.as_secs(), now.subsec_millis()).as_bytes())
        }
        None => io::stderr().lock().write_all(format!("xenstored: {text}\n").as_bytes()),
    };
}

/// Lets a number of lines through in each span of time, then says how many it held back.
#[derive(Debug, Default)]
pub struct RateLimit {
    since: Option<Instant>,
    lines: u32,
}

impl RateLimit {
    const SPAN: Duration = Duration::from_secs(5);
    const LINES: u32 = 10;

    /// Writes a line, unless there were too many.
    pub fn line(&mut self, text: impl FnOnce() -> String) {
        let now = Instant::now();
        if self.since.is_none_or(|since| now.duration_since(since) > Self::SPAN) {
            if self.lines > Self::LINES {
                line(&format!("({} more lines like this)", self.lines - Self::LINES));
            }
            self.since = Some(now);
            self.lines = 0;
        }
        self.lines = self.lines.saturating_add(1);
        if self.lines <= Self::LINES {
            line(&text());
        }
    }
}
