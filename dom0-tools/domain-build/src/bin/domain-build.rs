//! Builds a guest without the rest of the control stack, for developers.

#![forbid(unsafe_code)]

use clap::Parser;
use oxen_domain_build::{Loaded, Request, build_loaded};
use oxen_xenctl::Xen;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Build a PV guest that xenstore and xend know nothing of, and leave it paused
#[derive(Parser)]
#[command(version)]
struct Options {
    /// The kernel
    kernel: PathBuf,
    /// The initial RAM disk
    #[arg(long)]
    ramdisk: Option<PathBuf>,
    /// Memory in MiB
    #[arg(long, default_value_t = 128)]
    memory: u64,
    /// Number of vCPUs
    #[arg(long, default_value_t = 1)]
    vcpus: u32,
    /// The kernel's command line
    #[arg(long, default_value = "console=hvc0")]
    cmdline: String,
    /// Let it run
    #[arg(long)]
    run: bool,
    /// Destroy it after so many seconds
    #[arg(long)]
    seconds: Option<u64>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("domain-build: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let xen = Xen::open()?;
    let mut request = Request::new(&options.kernel, options.memory.saturating_mul(1024));
    request.ramdisk.clone_from(&options.ramdisk);
    request.command_line.clone_from(&options.cmdline);
    request.domain.nr_vcpus = options.vcpus;
    let start = Instant::now();
    let loaded = Loaded::open(&request.kernel, request.cache.as_deref(), request.identity)?;
    println!("kernel unpacked in {} ms", start.elapsed().as_millis());
    let start = Instant::now();
    let built = build_loaded(&xen, &request, &loaded)?;
    let ms = start.elapsed().as_millis();
    println!(
        "domain {} built in {ms} ms: {} pages, store {:#x} {}, console {:#x} {}, {}",
        built.domid,
        built.nr_pages,
        built.store_mfn,
        built.store_port,
        built.console_mfn,
        built.console_port,
        built.guest_os
    );
    loaded.keep();
    if options.run {
        xen.unpause_domain(built.domid)?;
    }
    if let Some(seconds) = options.seconds {
        std::thread::sleep(Duration::from_secs(seconds));
        let info = xen.domain(built.domid)?;
        println!(
            "after {seconds} s: {} ms of CPU time, {} vCPUs online, shut down for {:?}",
            info.cpu_time / 1_000_000,
            info.nr_online_vcpus,
            info.shutdown_reason()
        );
        let start = Instant::now();
        xen.destroy_domain(built.domid)?;
        println!("destroyed in {} ms", start.elapsed().as_millis());
    }
    Ok(())
}
