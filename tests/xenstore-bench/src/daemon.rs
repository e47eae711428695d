//! A daemon in a directory of its own.

use anyhow::{Context, Result, bail};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// The OCaml daemon cannot be told another place.
const COMPILED_IN: &str = "/run/xenstored/socket";

/// A running daemon; dropping it ends it.
#[derive(Debug)]
pub struct Daemon {
    pub name: &'static str,
    dir: tempfile::TempDir,
    child: Child,
}

impl Daemon {
    /// Starts a daemon and waits until its socket is there.
    pub fn start(name: &'static str, program: &Path, arguments: &[&str], preload: Option<&Path>) -> Result<Self> {
        // Where the state is kept in real life: in memory.
        let place = ["/run", "/dev/shm", "/tmp"].iter().find(|dir| Path::new(dir).is_dir()).context("no place for temporary files")?;
        let dir = tempfile::Builder::new().prefix("xenstore-bench-").tempdir_in(place)?;
        if name == "OCaml" {
            remove_stale(Path::new(COMPILED_IN))?;
        }
        let mut command = Command::new(program);
        command.args(arguments).env("XENSTORED_RUNDIR", dir.path()).env("XENSTORED_ROOTDIR", dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(std::fs::File::create(dir.path().join("log"))?);
        if name == "OCaml" {
            let config = dir.path().join("oxenstored.conf");
            let at = |name: &str| dir.path().join(name).display().to_string();
            let text = format!("pid-file = {}\nxenstored-log-file = {}\naccess-log-file = {}\n", at("pid"), at("daemon.log"), at("access.log"));
            std::fs::write(&config, text)?;
            command.arg("--config-file").arg(config);
        }
        if let Some(library) = preload {
            command.env("LD_PRELOAD", library);
        }
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let mut daemon = Self { name, dir, child };
        for _ in 0..200 {
            if daemon.socket().exists() {
                return Ok(daemon);
            }
            if let Some(status) = daemon.child.try_wait()? {
                bail!("{name} ended ({status}): {}", std::fs::read_to_string(daemon.dir.path().join("log"))?.trim());
            }
            sleep(Duration::from_millis(20));
        }
        bail!("{name} makes no socket in {}", daemon.dir.path().display())
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        let own = self.dir.path().join("socket");
        if own.exists() || self.name != "OCaml" { own } else { PathBuf::from(COMPILED_IN) }
    }

    /// The memory that only this process has, and its share of files in memory.
    pub fn memory_kib(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        let files: u64 = std::fs::read_dir(self.dir.path())?
            .flatten()
            .filter_map(|entry| entry.metadata().ok())
            .filter(|found| found.is_file())
            .map(|found| found.len() / 1024)
            .sum();
        Ok(value("RssAnon:").context("no RssAnon")? + files)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Ours alone: the process is our child and not waited for yet.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Removes a socket that a daemon left behind.
fn remove_stale(socket: &Path) -> Result<()> {
    if UnixStream::connect(socket).is_ok() {
        bail!("a daemon serves {}; measure on another machine", socket.display());
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(std::fs::create_dir_all(socket.parent().context("a socket without directory")?)?),
    }
}
