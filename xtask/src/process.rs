//! Running other programs: output kept in a log, shown only when it matters.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::ui;
use crate::workspace::Workspace;

/// How many lines of a failed program's output are shown.
const TAIL_LINES: usize = 40;

/// A program to run, with a log of its output under `target/logs/`.
pub struct Tool<'a> {
    command: Command,
    title: &'a str,
    log: PathBuf,
    time_limit: Option<Duration>,
}

impl<'a> Tool<'a> {
    /// A program that will be shown under `title` while it runs.
    pub fn new(ws: &Workspace, program: impl AsRef<OsStr>, title: &'a str) -> Self {
        let name: String = title.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let log = ws.logs.join(format!("{}.log", name.trim_matches('-').to_lowercase()));
        let mut command = Command::new(program);
        command.current_dir(&ws.root).stdin(Stdio::null());
        Self { command, title, log, time_limit: None }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Removes environment variables.
    pub fn without_env(mut self, names: &[&str]) -> Self {
        for name in names {
            self.command.env_remove(name);
        }
        self
    }

    /// Runs in another directory than the checkout's root.
    pub fn current_dir(mut self, dir: impl AsRef<std::path::Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Ends the program, as a failure, after this long.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    /// Runs the program under a progress line; a failure carries the end of its output.
    pub fn run(self) -> Result<()> {
        let title = self.title;
        ui::step(title, || self.run_quietly().map(drop))
    }

    /// Runs the program without a progress line and returns its whole output.
    pub fn run_quietly(self) -> Result<String> {
        let log = self.log.clone();
        let (status, output) = self.finish()?;
        if !status.success() {
            let lines: Vec<&str> = output.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
            bail!("{status}; the end of {}:\n{tail}", log.display());
        }
        Ok(output)
    }

    /// Runs the program and returns how it ended together with its whole output.
    pub fn finish(mut self) -> Result<(ExitStatus, String)> {
        let mut log = File::options().create(true).truncate(true).read(true).write(true).open(&self.log)?;
        self.command.stdout(log.try_clone()?).stderr(log.try_clone()?);
        let program = self.command.get_program().to_string_lossy().into_owned();
        let mut child = self.command.spawn().with_context(|| format!("cannot run {program}"))?;
        let status = match self.time_limit {
            None => child.wait()?,
            Some(limit) => match wait_until(&mut child, Instant::now() + limit)? {
                Some(status) => status,
                None => {
                    child.kill()?;
                    child.wait()?;
                    bail!("{program} did not finish within {} s", limit.as_secs());
                }
            },
        };
        let mut output = Vec::new();
        log.seek(SeekFrom::Start(0))?;
        log.read_to_end(&mut output)?;
        Ok((status, String::from_utf8_lossy(&output).into_owned()))
    }
}

/// Waits for a child up to a deadline; `None` when it still runs then.
pub fn wait_until(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The standard output of a short command, trimmed; `None` when it cannot run or fails.
pub fn query(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether a program is on the path (or in the administrator's directories, which a plain user's path lacks).
pub fn exists(program: &str) -> bool {
    find(program).is_some()
}

/// Where a program is, searching the path and then the administrator's directories.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| fs::metadata(file).is_ok_and(|meta| meta.is_file()))
}
