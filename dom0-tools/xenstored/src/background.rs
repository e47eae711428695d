//! Going to the background: the program starts itself anew as a process of its own session, and ends when that one serves.

use oxen_xenstored::log;
use std::io::{BufRead, BufReader, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};

/// Set in the process that serves.
const CHILD_VARIABLE: &str = "OXEN_XENSTORED_BACKGROUND";
/// What it prints when clients can connect.
const READY: &str = "ready";
const LOG_FILE: &str = "/var/log/xen/xenstored.log";

/// Whether this is the process in the background.
pub fn is_child() -> bool {
    std::env::var_os(CHILD_VARIABLE).is_some()
}

/// Starts the process in the background and waits until it serves.
pub fn start(output_pid: bool) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("cannot start in the background: {error}");
    let program = std::env::current_exe().map_err(fail)?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(CHILD_VARIABLE, "1")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(fail)?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line).map_err(fail)?;
    }
    if line.trim() != READY {
        // It has said why on standard error.
        let status = child.wait().map_err(fail)?;
        return Err(format!("the daemon ended ({status})"));
    }
    if output_pid {
        println!("{}", child.id());
    }
    Ok(())
}

/// Sends further log lines to the log file.
pub fn open_log(log_file: Option<&Path>, foreground: bool) {
    let Some(file) = log_file.or((!foreground).then_some(Path::new(LOG_FILE))) else { return };
    if let Some(dir) = file.parent() {
        // If it cannot be made, opening the file says so.
        let _ = std::fs::create_dir_all(dir);
    }
    if let Err(error) = log::to_file(file) {
        log::line(&format!("{}: {error}", file.display()));
    }
}

/// Tells whoever waits that clients can connect.
pub fn ready() {
    if is_child() {
        leave_terminal();
    }
    notify_manager();
    log::line(&format!("version {} serves as process {}", env!("CARGO_PKG_VERSION"), std::process::id()));
}

fn leave_terminal() {
    // A process that leads a session already has nothing to leave.
    let _ = rustix::process::setsid();
    let mut out = std::io::stdout();
    // A parent that has gone away does not wait.
    let _ = writeln!(out, "{READY}").and_then(|()| out.flush());
    if let Ok(null) = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty()) {
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

/// The protocol of `sd_notify(3)`: a datagram to the socket that the service manager names.
fn notify_manager() {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let name = name.to_string_lossy();
    let address = match name.strip_prefix('@') {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name),
        None => SocketAddr::from_pathname(&*name),
    };
    let text = format!("READY=1\nMAINPID={}\n", std::process::id());
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address));
    if let Err(error) = sent {
        log::line(&format!("cannot notify {name}: {error}"));
    }
}
