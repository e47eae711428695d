//! The xenconsoled program.

#![forbid(unsafe_code)]

use clap::{Parser, ValueEnum};
use oxen_xenconsoled::daemon::{Daemon, Options, Rotation};
use oxen_xenctl::{EventChannels, Grants, Xen};
use oxen_xenstore::Store;
use rustix::fs::{FlockOperation, flock};
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Serves guests' consoles: a pseudo-terminal for `xm console` and a log file for each
#[derive(Debug, Parser)]
#[command(name = "xenconsoled", version)]
struct Arguments {
    /// What is recorded
    #[arg(long, value_enum, default_value_t = Recorded::Guest)]
    log: Recorded,
    /// Where log files go
    #[arg(long, value_name = "DIR", default_value = "/var/log/xen/console")]
    log_dir: PathBuf,
    /// Size in KiB at which a log file is put aside
    #[arg(long, value_name = "KIB", default_value_t = 4096)]
    log_size: u64,
    /// Number of log files put aside that are kept
    #[arg(long, value_name = "NUMBER", default_value_t = 4)]
    log_keep: u32,
    /// KiB per second that a guest may write for long
    #[arg(long, value_name = "KIB", default_value_t = 64)]
    rate: u64,
    /// KiB that a guest may write at once
    #[arg(long, value_name = "KIB", default_value_t = 1024)]
    burst: u64,
    /// Holds the process id; there is one daemon per file
    #[arg(long, value_name = "FILE", default_value = "/run/xenconsoled.pid")]
    pid_file: PathBuf,
    /// Accepted for other daemons' sake; this one always stays in the foreground
    #[arg(short, long, hide = true)]
    interactive: bool,
}

/// What is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Recorded {
    /// Nothing
    None,
    /// Guests
    Guest,
    /// The hypervisor
    Hv,
    /// Guests and the hypervisor
    All,
}

fn main() -> ExitCode {
    match serve(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xenconsoled: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let _lock = lock(&arguments.pid_file)?;
    let options = Options {
        log_dir: arguments.log_dir.clone(),
        log_guests: matches!(arguments.log, Recorded::Guest | Recorded::All),
        log_hypervisor: matches!(arguments.log, Recorded::Hv | Recorded::All),
        rotation: Rotation { max_len: arguments.log_size.saturating_mul(1024), keep: arguments.log_keep },
        per_second: arguments.rate.saturating_mul(1024),
        burst: arguments.burst.saturating_mul(1024),
    };
    if arguments.log != Recorded::None {
        std::fs::create_dir_all(&options.log_dir).map_err(|error| format!("cannot make {}: {error}", options.log_dir.display()))?;
    }
    let mut daemon = Daemon::new(options, Xen::open()?, EventChannels::open()?, Grants::open()?, Store::open()?)?;
    daemon.run()?;
    Ok(())
}

/// Takes the lock that there is only one of, and leaves the process id in it.
fn lock(path: &Path) -> Result<File, Box<dyn Error>> {
    let name = |error| format!("{}: {error}", path.display());
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(name)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(format!("{} is in use: another xenconsoled runs", path.display()).into());
    }
    file.set_len(0).map_err(name)?;
    writeln!(file, "{}", std::process::id()).map_err(name)?;
    Ok(file)
}
