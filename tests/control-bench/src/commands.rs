//! Running the command under test.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The command under test: `xl` or `xm`.
#[derive(Debug, Clone)]
pub struct Tools(pub String);

impl Tools {
    /// Runs it; returns what it printed and how long it took. Its errors go where ours go.
    pub fn run(&self, words: &[&str]) -> Result<(String, Duration)> {
        let started = Instant::now();
        let output = Command::new(&self.0)
            .args(words)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run {}", self.0))?;
        let took = started.elapsed();
        if !output.status.success() {
            bail!("{} {} ended with {}", self.0, words.join(" "), output.status);
        }
        Ok((String::from_utf8_lossy(&output.stdout).into_owned(), took))
    }

    /// Runs it for its time.
    pub fn time(&self, words: &[&str]) -> Result<Duration> {
        self.run(words).map(|(_, took)| took)
    }

    /// Creates a guest from `config`.
    pub fn create(&self, config: &Config, paused: bool) -> Result<Duration> {
        let file = config.write()?;
        if paused { self.time(&["create", "-p", &file]) } else { self.time(&["create", &file]) }
    }

    /// Destroys a guest.
    pub fn destroy(&self, name: &str) -> Result<Duration> {
        self.time(&["destroy", name])
    }

    /// A guest's number.
    pub fn domid(&self, name: &str) -> Result<u16> {
        let (text, _) = self.run(&["domid", name])?;
        text.trim().parse().with_context(|| format!("{} domid {name} says `{}`", self.0, text.trim()))
    }
}

/// The kernel that does nothing but sleep.
const IDLE: &str = "/usr/share/oxen/guest/idle";
/// Its memory.
pub const IDLE_MIB: u32 = 8;
/// The Linux guest.
const LINUX: &str = "/usr/share/oxen/guest/vmlinuz";
const LINUX_DISK: &str = "/usr/share/oxen/guest/initrd.gz";

/// A guest's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its name.
    pub name: String,
    lines: Vec<String>,
}

impl Config {
    /// The guest that only sleeps.
    pub fn idle(name: &str) -> Self {
        Self::new(name, &[format!("kernel = \"{IDLE}\""), format!("memory = {IDLE_MIB}")])
    }

    /// The Linux guest; `extra` are more words for its kernel. Where Xen does not trust the time stamp counter, as in QEMU, it would emulate each reading of it, and
    /// Linux reads it in every system call.
    pub fn linux(name: &str, extra: &str) -> Self {
        Self::new(
            name,
            &[format!("kernel = \"{LINUX}\""), format!("ramdisk = \"{LINUX_DISK}\""), "memory = 160".to_owned(), "tsc_mode = \"native\"".to_owned(), format!("extra = \"console=hvc0 earlyprintk=xen guest.serve=1 {extra}\"")],
        )
    }

    fn new(name: &str, lines: &[String]) -> Self {
        Self { name: name.to_owned(), lines: lines.to_vec() }
    }

    /// With one more line.
    #[must_use]
    pub fn with(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    fn write(&self) -> Result<String> {
        let file = format!("/run/{}.cfg", self.name);
        let text = format!("name = \"{}\"\nvcpus = 1\n{}\n", self.name, self.lines.join("\n"));
        fs::write(&file, text).with_context(|| format!("cannot write {file}"))?;
        Ok(file)
    }
}
