//! `oxen-bootloader`: finds kernel and initial RAM disk on a guest's own disk.
#![forbid(unsafe_code)]

use clap::Parser;
use oxen_bootloader::{Request, confined, extract};
use std::path::PathBuf;
use std::process::ExitCode;

/// Find what a guest's disk boots, copy kernel and initial RAM disk out, and print where they are as JSON
///
/// Exit codes: 0 done; 1 nothing to boot, or the disk cannot be read; 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "oxen-bootloader", version)]
struct Arguments {
    /// The entry of the boot menu: a number from 0, a title or an identifier, with > before entries of submenus; or files, as in
    /// /vmlinuz,/initrd
    #[arg(long, allow_hyphen_values = true)]
    entry: Option<String>,
    /// Where kernel and initial RAM disk go
    #[arg(long, default_value = "/run/xend/boot")]
    output_directory: PathBuf,
    /// What the names of the files begin with
    #[arg(long, default_value = "guest")]
    name: String,
    /// Read the disk at standard input, confined, and write what is found to standard output; for the program itself
    #[arg(long, hide = true)]
    confined: bool,
    /// The disk
    #[arg(required_unless_present = "confined")]
    disk: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(disk) = arguments.disk.filter(|_| !arguments.confined) else {
        return confined::run(arguments.entry.as_deref());
    };
    let request = Request {
        disk: &disk,
        entry: arguments.entry.as_deref(),
        directory: &arguments.output_directory,
        name: &arguments.name,
    };
    let booted = std::env::current_exe()
        .map_err(|error| error.to_string())
        .and_then(|program| extract(&request, &program).map_err(|error| error.to_string()))
        .and_then(|booted| {
            serde_json::to_string_pretty(&booted).map_err(|error| error.to_string())
        });
    match booted {
        Ok(json) => {
            println!("{json}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("oxen-bootloader: {message}");
            ExitCode::FAILURE
        }
    }
}
