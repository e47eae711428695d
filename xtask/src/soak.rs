//! `soak`: dom0 under load of every kind for a long time.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cases::ALWAYS_FORBIDDEN;
use crate::disk;
use crate::dom0::{self, Flavour};
use crate::hypervisor::{Hypervisor, Kind};
use crate::iso::{self, BootFiles};
use crate::qemu::{self, Bus, Machine};
use crate::setup;
use crate::ui;
use crate::workspace::Workspace;

/// What `soak` can be told.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How long to keep the load up
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Number of processors
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Which hypervisor
    #[arg(long, value_enum, default_value = "oxen")]
    hypervisor: Kind,
}

/// Runs it; says whether nothing went wrong.
pub fn run(ws: &Workspace, options: &Options) -> Result<bool> {
    setup::image_tools(ws)?;
    let hypervisor = Hypervisor::prepare(ws, options.hypervisor)?;
    let image = dom0::image(ws, Flavour::Stock)?.context("Debian's archive has no kernel")?;
    let scratch = tempfile::tempdir_in(&ws.target)?;
    let disks = [Bus::Ahci, Bus::VirtioBlk].map(|bus| (bus, scratch.path().join(format!("{bus:?}.img"))));
    for (_, path) in &disks {
        disk::ext4(ws, path, 128)?;
    }
    let cmdline = format!(
        "console=hvc0 loglevel=6 panic=5 oxen.test=soak oxen.seconds={} oxen.disks=sda,vda oxen.nics=e1000e",
        options.minutes * 60
    );
    let files = BootFiles::new(&hypervisor.file, &hypervisor.options(""), &image.kernel, &cmdline, image.initrd.as_deref());
    let iso = iso::cached(ws, &files)?;
    let machine = Machine { cpus: options.cpus, cpu: hypervisor.cpu_model().to_owned(), disks: disks.to_vec(), nics: vec!["e1000e"], ..Machine::default() };
    let mut args = machine.arguments(scratch.path())?;
    args.extend(machine.boot_iso(&iso));
    let log = ws.logs.join("soak.log");
    // Emulated time may run slower than ours.
    let limit = Duration::from_secs(options.minutes * 60 * 3 + 300);
    let stop = regex_lite::Regex::new(&ALWAYS_FORBIDDEN.join("|"))?;
    let transcript = ui::step(&format!("Load for {} minutes on {} (follow {})", options.minutes, options.hypervisor, log.display()), || {
        qemu::run(&args, &log, Some(&stop), limit)
    })?;
    for (_, path) in &disks {
        disk::check(ws, path)?;
    }
    for wanted in ["VERDICT: ok soak", "VERDICT: ok klog"] {
        if !transcript.text.contains(wanted) {
            let reason = transcript.text.lines().find(|line| stop.is_match(line)).unwrap_or("no verdict within the time limit");
            bail!("{reason} ({})", log.display());
        }
    }
    ui::note("no error, stall or clock step");
    Ok(true)
}
