//! Users' scripts, called as Xen's tools call them (`xl-disk-configuration(5)`, `xl-network-configuration(5)`).

use crate::bus::{Address, Kind, printable};
use crate::error::{about, store as in_store};
use crate::{Code, Devices, Result};
use oxen_xenstore::{Nodes, Store};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The most of a script's output that is read, in bytes: its end is what tells why it failed.
const OUTPUT_LEN: u64 = 4096;

/// Whether a device comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Add,
    Remove,
}

impl Step {
    /// The word that scripts of this kind of device take.
    fn word(self, kind: Kind) -> &'static str {
        match (self, kind) {
            (Self::Add, Kind::Vbd) => "add",
            (Self::Remove, Kind::Vbd) => "remove",
            (Self::Add, Kind::Vif) => "online",
            (Self::Remove, Kind::Vif) => "offline",
        }
    }
}

impl Devices {
    /// Where a script is.
    pub(crate) fn script_path(&self, name: &str) -> PathBuf {
        self.settings.script_dir.join(name)
    }

    /// Runs a device's script; `device` names the device in errors, `interface` is a card's name in domain 0.
    pub(crate) fn run_script(
        &self,
        store: &Store,
        script: &Path,
        step: Step,
        at: Address,
        device: &str,
        interface: Option<&str>,
    ) -> Result<()> {
        let word = step.word(at.kind);
        let mut command = Command::new(script);
        command
            .arg(word)
            .env("script", script)
            .env("XENBUS_TYPE", at.kind.name())
            .env("XENBUS_PATH", at.backend_in_domain())
            .env("XENBUS_BASE_PATH", "backend")
            .current_dir("/");
        if let Some(interface) = interface {
            command.arg("type_if=vif").env("vif", interface);
        }
        let failed = |why: String| {
            about(
                Code::ScriptFailed,
                device,
                format_args!("{} {word}: {why}", script.display()),
            )
        };
        let (status, output) = run(&mut command, self.settings.script_timeout)
            .map_err(|error| failed(error.to_string()))?;
        // Xen's scripts say there what went wrong, some with exit status 0.
        let said = store
            .try_read(&format!("{}/hotplug-error", at.backend()))
            .map_err(in_store(device))?;
        let said = said
            .filter(|_| step == Step::Add)
            .map(|said| printable(&said))
            .filter(|said| !said.is_empty());
        let why = match (status, said) {
            (Some(status), None) if status.success() => return Ok(()),
            (Some(_), Some(said)) => said,
            (Some(status), None) => format!("it failed ({status})"),
            (None, _) => format!(
                "it was ended after {} s",
                self.settings.script_timeout.as_secs_f32()
            ),
        };
        let output = printable(&output);
        Err(failed(if output.is_empty() {
            why
        } else {
            format!("{why}: {output}")
        }))
    }
}

/// Runs a command to its end, at most for `timeout`; its status, `None` if it had to be ended, and the end of its output.
fn run(command: &mut Command, timeout: Duration) -> io::Result<(Option<ExitStatus>, String)> {
    // Not a pipe: what the script leaves behind in the background could hold that open.
    let output = memfd_create("script-output", MemfdFlags::CLOEXEC)?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::from(output.try_clone()?))
        .stderr(Stdio::from(output.try_clone()?))
        .process_group(0)
        .spawn()?;
    let status = wait(&mut child, timeout)?;
    let len = rustix::fs::fstat(&output)?.st_size;
    let start = u64::try_from(len)
        .unwrap_or_default()
        .saturating_sub(OUTPUT_LEN);
    seek(&output, SeekFrom::Start(start))?;
    let mut text = Vec::new();
    File::from(output).take(OUTPUT_LEN).read_to_end(&mut text)?;
    Ok((status, String::from_utf8_lossy(&text).into_owned()))
}

/// Waits for a child, which leads its own process group; ends all of the group when the time is over.
fn wait(child: &mut Child, timeout: Duration) -> io::Result<Option<ExitStatus>> {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::other("a process without a number"))?;
    let ended = wait_until_readable(pid, timeout);
    if matches!(ended, Ok(true)) {
        return child.wait().map(Some);
    }
    // It fails only if all are gone.
    let _ = kill_process_group(pid, Signal::KILL);
    child.wait()?;
    ended.map(|_| None)
}

/// Waits for the end of a process; says whether it came in time.
fn wait_until_readable(pid: Pid, timeout: Duration) -> io::Result<bool> {
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match poll(
            &mut [PollFd::new(&process, PollFlags::IN)],
            Timespec::try_from(left).ok().as_ref(),
        ) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str, timeout: Duration) -> (Option<ExitStatus>, String) {
        run(Command::new("/bin/sh").arg("-c").arg(text), timeout).unwrap()
    }

    #[test]
    fn the_end_of_the_output_is_kept() {
        let (status, output) = shell(
            "echo start; seq 10000; echo end >&2; exit 3",
            Duration::from_secs(20),
        );
        assert_eq!(status.and_then(|status| status.code()), Some(3));
        assert!(output.ends_with("10000\nend\n") && !output.contains("start"));
    }

    #[test]
    fn a_script_that_hangs_is_ended_with_its_children() {
        let start = Instant::now();
        let (status, output) = shell("echo waiting; sleep 100 & wait", Duration::from_millis(100));
        assert_eq!((status, output.as_str()), (None, "waiting\n"));
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
