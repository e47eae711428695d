//! Every developer verb of Oxen: `cargo xtask <verb>`.

#![forbid(unsafe_code)]

mod bad_kernels;
mod bench;
mod bench_control;
mod cases;
mod compile;
mod cpio;
mod deb;
mod deb_test;
mod debian_tools;
mod debs;
mod disk;
mod dom0;
mod domu;
mod fuzz;
mod host_tests;
mod hypervisor;
mod initramfs;
mod iso;
mod kmod;
mod ladder;
mod machine_tests;
mod metadata;
mod process;
mod qemu;
mod report;
mod run;
mod setup;
mod soak;
mod tidy;
mod toolchain;
mod ui;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Build, boot, test and measure Oxen.
///
/// Everything that is fetched or built is kept under target/: a second start takes seconds. Missing Debian packages are
/// installed when the user is root, otherwise the line to type is printed. The full output of every step and of every
/// emulated machine is under target/logs/.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true, after_help = ENVIRONMENT)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const ENVIRONMENT: &str = "Environment:
  OXEN_DOM0_KERNEL      another dom0 kernel for run and iso (same as --dom0-kernel)
  OXEN_DOM0_INITRD      another dom0 initrd for run and iso (same as --dom0-initrd)
  OXEN_DOM0_CMDLINE     more words for dom0's kernel command line in run and iso
  OXEN_OPTIONS          more hypervisor options in run and iso
  OXEN_BARE_TOOLCHAIN   rustup or debian: which compiler builds for the bare machine
  OXEN_ACCEL            tcg: never use hardware virtualisation";

#[derive(Subcommand)]
enum Verb {
    /// Set up, build, and boot in QEMU, leaving you at dom0's console
    Run {
        #[command(flatten)]
        options: run::Options,
        #[command(flatten)]
        machine: run::MachineOptions,
    },
    /// Build the hypervisor, the static dom0 programs and the test guests into target/dist/
    Build,
    /// Make target/dist/oxen.iso with Oxen and the dom0 image, bootable on BIOS and UEFI
    Iso {
        #[command(flatten)]
        options: run::Options,
    },
    /// Make the Debian packages oxen-hypervisor and oxen-tools in target/dist/
    Deb,
    /// Run the test ladder: host tests, test guests on Oxen and Xen, bad input, dom0, tidy, a short fuzz
    Test(ladder::Options),
    /// Count the cost of system calls, faults, forks and more on the bare machine, on Xen 4.17 and on Oxen
    Bench(bench::Options),
    /// Measure xm and our daemons on Oxen beside xl and Xen's daemons on Xen 4.17: create, destroy, list, and what guests cost
    BenchControl(bench_control::Options),
    /// Check the sources: SAFETY comments, imports between rooms, forbidden unsafe, file sizes, panics on guest paths
    Tidy,
    /// Fuzz the hypercall handlers on the fake machine
    Fuzz(fuzz::Options),
    /// Load dom0 with processes, disk and network traffic, or with guests, for half an hour (not part of test)
    Soak(soak::Options),
    /// Remove what was built; fetched packages stay unless --all
    Clean {
        /// Also remove fetched packages, unpacked kernels and the bare-metal sysroot
        #[arg(long)]
        all: bool,
    },
}

fn main() -> ExitCode {
    match act(Cli::parse().verb) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does what the verb says; `false` when it found failures and has reported them.
fn act(verb: Verb) -> Result<bool> {
    let ws = Workspace::open()?;
    match verb {
        Verb::Run { options, machine } => run::run(&ws, &options, &machine)?,
        Verb::Build => {
            let hypervisor = compile::hypervisor(&ws)?;
            compile::dom0_programs(&ws)?;
            compile::guests(&ws)?;
            ui::note(&format!("{} and {} are ready", hypervisor.gz.display(), hypervisor.elf.display()));
        }
        Verb::Iso { options } => {
            let path = run::make_iso(&ws, &options)?;
            ui::note(&format!("{} is ready", path.display()));
        }
        Verb::Deb => {
            let packages = deb::build(&ws)?;
            ui::note(&format!("{} and {} are ready", packages.hypervisor.display(), packages.tools.display()));
        }
        Verb::Test(options) => return ladder::run(&ws, &options),
        Verb::Bench(options) => return bench::run(&ws, &options),
        Verb::BenchControl(options) => return bench_control::run(&ws, &options),
        Verb::Tidy => return tidy::run(&ws),
        Verb::Fuzz(options) => fuzz::run(&ws, &options)?,
        Verb::Soak(options) => return soak::run(&ws, &options),
        Verb::Clean { all } => clean(&ws, all)?,
    }
    Ok(true)
}

/// Removes build results. The running program itself lives in `target/debug`, which `cargo clean` is for.
fn clean(ws: &Workspace, all: bool) -> Result<()> {
    let mut names = vec!["dist", "logs", "bare-image", "bare-guests", "tools", "host-tests", "run-disk.img", "cache/iso", "cache/initrd", "cache/verdicts"];
    if all {
        names.extend(["cache", "sysroot"]);
    }
    for name in names {
        let path = ws.target.join(name);
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => anyhow::bail!("cannot remove {}: {error}", path.display()),
            _ => {}
        }
    }
    Ok(())
}
