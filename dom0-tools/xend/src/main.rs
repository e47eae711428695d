//! `xend`: start-up and end of the daemon.

#![forbid(unsafe_code)]

use clap::Parser;
use oxen_xenctl::Xen;
use oxen_xend::settings::{DEFAULT_PATH, Settings};
use oxen_xend::{Daemon, Places, http, watcher};
use oxen_xenstore::Store;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

/// The daemon that owns the guests' configuration and life cycle
#[derive(Parser)]
#[command(version)]
struct Options {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// The socket to listen on
    #[arg(long, value_name = "FILE", default_value = oxen_xend_api::SOCKET)]
    socket: PathBuf,
    /// The directory of the database
    #[arg(long, value_name = "DIR", default_value = "/var/lib/xend")]
    state: PathBuf,
    /// The log
    #[arg(long, value_name = "FILE", default_value = "/var/log/xen/xend.log")]
    log: PathBuf,
    /// Write log lines to standard error too
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xend: {error}");
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let (settings, warnings) = Settings::read(&options.config)?;
    start_log(options, &settings)?;
    for warning in warnings {
        tracing::warn!("{}: {warning}", options.config.display());
    }
    fs::create_dir_all(&options.state).map_err(|error| format!("cannot create {}: {error}", options.state.display()))?;
    let xen = Xen::open()?;
    let store = Store::open()?;
    let places = Places { state: options.state.clone(), log: options.log.clone(), ..Places::default() };
    let network_script = settings.network_script.clone();
    let daemon = Arc::new(Daemon::new(settings, places, xen, store)?);
    if let Some(script) = network_script {
        run_network_script(&script);
    }
    daemon.resume()?;
    let watched = Arc::downgrade(&daemon);
    let events = Store::open()?;
    std::thread::Builder::new().name("watcher".to_owned()).spawn(move || watcher::run(&watched, &events))?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(serve(daemon, &options.socket))
}

async fn serve(daemon: Arc<Daemon>, socket: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let listener = listen(socket).map_err(|error| format!("cannot listen on {}: {error}", socket.display()))?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    daemon.start_marked();
    tracing::info!("ready, listening on {}", socket.display());
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; guests go on running");
    };
    http::serve(daemon, listener, stop).await?;
    Ok(())
}

/// Takes the place of a socket that a killed daemon left behind. The database is locked, so that no other daemon listens on it.
fn listen(socket: &Path) -> std::io::Result<UnixListener> {
    if let Some(parent) = socket.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn start_log(options: &Options, settings: &Settings) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("cannot write to {}: {error}", options.log.display());
    if let Some(parent) = options.log.parent() {
        fs::create_dir_all(parent).map_err(fail)?;
    }
    let file: File = OpenOptions::new().create(true).append(true).open(&options.log).map_err(fail)?;
    let format = tracing_subscriber::fmt().with_max_level(settings.log_level).with_target(false).with_ansi(false);
    if options.verbose {
        use tracing_subscriber::fmt::writer::MakeWriterExt;
        format.with_writer(Mutex::new(file).and(std::io::stderr)).init();
    } else {
        format.with_writer(Mutex::new(file)).init();
    }
    Ok(())
}

/// Runs the administrator's network script; what it says in failing is logged, and the daemon goes on.
fn run_network_script(script: &str) {
    let mut words = script.split_whitespace();
    let Some(name) = words.next() else { return };
    let program = if name.starts_with('/') { PathBuf::from(name) } else { Path::new("/etc/xen/scripts").join(name) };
    match std::process::Command::new(&program).arg("start").args(words).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => tracing::error!("network-script {} ended with {}: {}", program.display(), output.status, String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => tracing::error!("network-script {}: {error}", program.display()),
    }
}
