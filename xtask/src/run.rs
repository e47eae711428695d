//! `run` and `iso`: everything from nothing to dom0's console.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::dom0::{self, Image, Overrides};
use crate::hypervisor::{Hypervisor, Kind};
use crate::iso::{self, BootFiles};
use crate::qemu::{self, Board, Bus, Firmware, Machine};
use crate::setup;
use crate::ui;
use crate::workspace::Workspace;

/// dom0's kernel command line for a person at the console.
const INTERACTIVE_CMDLINE: &str = "console=hvc0 earlyprintk=xen panic=10";

/// What `run` and `iso` can be told.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    overrides: Overrides,
    /// Which hypervisor to boot
    #[arg(long, value_enum, default_value = "oxen")]
    hypervisor: Kind,
    /// More hypervisor options, such as "dom0_mem=512M"
    #[arg(long, value_name = "WORDS", default_value = "", env = "OXEN_OPTIONS")]
    options: String,
    /// More words for dom0's kernel command line
    #[arg(long, value_name = "WORDS", default_value = "", env = "OXEN_DOM0_CMDLINE")]
    cmdline: String,
}

/// The emulated machine of `run`.
#[derive(Debug, clap::Args)]
pub struct MachineOptions {
    /// Number of processors
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Memory in MiB
    #[arg(long, default_value_t = 2048)]
    memory: u32,
    /// Boot through UEFI (OVMF) instead of BIOS
    #[arg(long)]
    uefi: bool,
    /// The older main board `pc` instead of `q35`
    #[arg(long)]
    pc: bool,
    /// Show the machine's screen in a window (needs a display)
    #[arg(long)]
    screen: bool,
    /// Further QEMU arguments, after `--`
    #[arg(last = true)]
    qemu: Vec<String>,
}

/// Makes `target/dist/oxen.iso`, bootable on BIOS and UEFI from CD or USB stick.
pub fn make_iso(ws: &Workspace, options: &Options) -> Result<PathBuf> {
    setup::image_tools(ws)?;
    let (files, _) = boot_files(ws, options)?;
    let path = ws.dist.join(if options.hypervisor == Kind::Oxen { "oxen.iso" } else { "xen.iso" });
    iso::distributable(ws, &files, &path)?;
    Ok(path)
}

/// Boots everything and leaves the user at dom0's console.
pub fn run(ws: &Workspace, options: &Options, machine: &MachineOptions) -> Result<()> {
    setup::image_tools(ws)?;
    let (files, hypervisor) = boot_files(ws, options)?;
    let iso = iso::cached(ws, &files)?;
    let disk = scratch_disk(ws)?;
    let machine_spec = Machine {
        board: if machine.pc { Board::Pc } else { Board::Q35 },
        firmware: if machine.uefi { Firmware::Uefi } else { Firmware::Bios },
        cpus: machine.cpus,
        memory_mib: machine.memory,
        cpu: hypervisor.cpu_model().to_owned(),
        disks: vec![(Bus::VirtioBlk, disk)],
        nics: vec!["virtio-net-pci"],
        ends_at_reset: false,
        starts_linux: true,
        extra: machine.qemu.clone(),
        ..Machine::default()
    };
    let scratch = tempfile::tempdir()?;
    let mut args = machine_spec.arguments(scratch.path())?;
    args.extend(machine_spec.boot_iso(&iso));
    // Ctrl-a belongs to the hypervisor's console (three times switches the input) and Ctrl-] to `xm console`, so QEMU listens to Ctrl-^.
    args.extend(["-serial", "mon:stdio", "-echr", "30"].map(str::to_owned));
    if !machine.screen {
        args.extend(["-display", "none"].map(str::to_owned));
    }
    ui::note(&format!("{} on {} processors, {}; Ctrl-^ x ends the emulator, Ctrl-a three times switches the console", options.hypervisor, machine.cpus, acceleration()));
    if !std::io::stdin().is_terminal() {
        ui::note("standard input is no terminal: dom0's console will read end of file");
    }
    let status = Command::new(qemu::QEMU).args(&args).status().with_context(|| format!("cannot run {}", qemu::QEMU))?;
    if !status.success() {
        bail!("the emulator ended with {status}");
    }
    Ok(())
}

fn boot_files(ws: &Workspace, options: &Options) -> Result<(BootFiles, Hypervisor)> {
    let hypervisor = Hypervisor::prepare(ws, options.hypervisor)?;
    let Image { kernel, initrd } = dom0::default_image(ws, &options.overrides)?;
    let cmdline = format!("{INTERACTIVE_CMDLINE} {}", options.cmdline);
    let files = BootFiles::new(&hypervisor.file, &hypervisor.options(&options.options), &kernel, cmdline.trim_end(), initrd.as_deref());
    Ok((files, hypervisor))
}

fn acceleration() -> &'static str {
    if qemu::has_kvm() { "hardware virtualisation" } else { "emulated" }
}

/// A disk that keeps what the user writes between runs: 1 GiB, sparse, ext4.
fn scratch_disk(ws: &Workspace) -> Result<PathBuf> {
    let path = ws.target.join("run-disk.img");
    if !path.exists() {
        crate::disk::ext4(ws, &path, 1024)?;
    }
    Ok(path)
}
