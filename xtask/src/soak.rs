//! `soak`: dom0 under load of every kind for a long time, or guests in numbers and under kills.

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

/// What is done all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Load {
    /// Processes, disk and network traffic in dom0, for as long as `--minutes` says.
    Dom0,
    /// A thousand guests created and destroyed, `--rounds` rounds with killed daemons, `--megabytes` over TCP; `--minutes` is the limit.
    Guests,
}

/// What `soak` can be told.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How long to keep the load up
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// The load
    #[arg(long, value_enum, default_value = "dom0")]
    load: Load,
    /// With guests: how many rounds with killed daemons, each of about 10 s
    #[arg(long, default_value_t = 100)]
    rounds: u32,
    /// With guests: how much is sent over TCP, about 0.7 MiB/s in the emulator
    #[arg(long, default_value_t = 1024)]
    megabytes: u32,
    /// With guests: the seed of the killed daemons' times, to repeat a run
    #[arg(long)]
    seed: Option<u32>,
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
    let guests = options.load == Load::Guests;
    let image = if guests { dom0::image_with_small_guest(ws) } else { dom0::image(ws, Flavour::Stock) }?.context("Debian's archive has no kernel")?;
    let scratch = tempfile::tempdir_in(&ws.target)?;
    let disks = [Bus::Ahci, Bus::VirtioBlk].map(|bus| (bus, scratch.path().join(format!("{bus:?}.img"))));
    for (_, path) in &disks {
        disk::ext4(ws, path, if guests { 320 } else { 128 })?;
    }
    let tests: &[&str] = if guests { &["devices", "policies", "faults", "herd", "chaos"] } else { &["soak"] };
    let words = if guests {
        let seed = options.seed.map_or_else(String::new, |seed| format!(" oxen.seed={seed}"));
        format!("oxen.guests=100 oxen.cycles=1000 oxen.rounds={} oxen.megabytes={}{seed}", options.rounds, options.megabytes)
    } else {
        format!("oxen.seconds={} oxen.disks=sda,vda oxen.nics=e1000e", options.minutes * 60)
    };
    let cmdline = format!("console=hvc0 loglevel=6 panic=5 oxen.test={} {words}", tests.join(","));
    let more = if guests { "dom0_mem=560M" } else { "" };
    let files = BootFiles::new(&hypervisor.file, &hypervisor.options(more), &image.kernel, &cmdline, image.initrd.as_deref());
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
    for wanted in tests.iter().chain(&["klog"]).map(|test| format!("VERDICT: ok {test}")) {
        if !transcript.text.contains(&wanted) {
            let reason = transcript.text.lines().find(|line| stop.is_match(line)).unwrap_or("no verdict within the time limit");
            bail!("{reason} ({})", log.display());
        }
    }
    ui::note("no error, stall or clock step");
    Ok(true)
}
