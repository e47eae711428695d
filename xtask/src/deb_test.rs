//! The rung `deb`: both packages installed on a fresh Debian 12 disk, which GRUB then boots under Oxen, by BIOS and by UEFI.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cases::ALWAYS_FORBIDDEN;
use crate::deb;
use crate::disk::{self, Partitions};
use crate::domu;
use crate::initramfs::{files_in, name_of};
use crate::process::{Tool, query};
use crate::qemu::{self, Bus, Firmware, Machine};
use crate::setup;
use crate::ui;
use crate::workspace::Workspace;

/// What the fresh system has, beside Debian's required packages.
const INCLUDE: &str = "linux-image-amd64,initramfs-tools,grub-pc,grub-efi-amd64-bin,dosfstools,systemd-sysv,udev,kmod,iproute2";
/// The disk's size.
const DISK_MIB: u64 = 3072;
/// What Debian's checker finds fault with and we cannot help: there is no mail address, and programs for dom0 are static on purpose.
const ACCEPTED: &str = "bogus-mail-host,bogus-mail-host-in-debian-changelog,statically-linked-binary";
/// What the installed system prints when it has been started by this firmware and everything was as it should be.
const STARTS: [(Firmware, &str); 2] = [(Firmware::Bios, "VERDICT: ok first"), (Firmware::Uefi, "VERDICT: ok second")];

/// Installs and boots.
pub fn run(ws: &Workspace) -> Result<()> {
    setup::debian_disk_tools(ws)?;
    if query("id", &["-u"]).as_deref() != Some("0") {
        bail!("installing Debian into a directory needs root");
    }
    let packages = deb::build(ws)?;
    lint(ws, &packages)?;
    let tree = fresh_system(ws)?;
    let own = [packages.hypervisor, packages.tools].into_iter().chain(files_in(&ws.root.join("packaging/test"))?);
    let mut files: Vec<(String, PathBuf)> = own.map(|file| (name_of(&file), file)).collect();
    let guest = domu::members(ws)?.context("Debian's archive has no kernel")?;
    files.extend(guest.into_iter().map(|member| (name_of(Path::new(&member.place)), member.source)));
    let home = tree.join("root");
    for old in files_in(&home)? {
        fs::remove_file(old)?;
    }
    for (name, file) in &files {
        let place = home.join(name);
        fs::copy(file, &place).with_context(|| format!("cannot copy {}", file.display()))?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
    }
    let scratch = tempfile::tempdir_in(&ws.target)?;
    let disk = scratch.path().join("debian.img");
    ui::step("Filling the disk", || disk::partitioned(ws, &tree, &disk, DISK_MIB, Partitions::ForBothFirmwares))?;
    ui::step("Installing the packages on it", || install(ws, &tree, &disk))?;
    for (firmware, verdict) in STARTS {
        ui::step(&format!("Starting it under Oxen by {firmware:?}"), || start(ws, &disk, firmware, verdict))?;
    }
    Ok(())
}

/// Fails on what Debian's checker of packages calls an error.
fn lint(ws: &Workspace, packages: &deb::Packages) -> Result<()> {
    Tool::new(ws, "lintian", "Checking the packages")
        .args(["--allow-root", "--no-cfg", "--fail-on=error", "--suppress-tags", ACCEPTED])
        .args([packages.hypervisor.as_os_str(), packages.tools.as_os_str()])
        .run()
}

/// A minimal Debian 12, fetched once for a list of packages.
fn fresh_system(ws: &Workspace) -> Result<PathBuf> {
    let tree = ws.cache.join("debian-12");
    let done = ws.cache.join("debian-12.done");
    if fs::read_to_string(&done).is_ok_and(|included| included == INCLUDE) {
        return Ok(tree);
    }
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    let include = format!("--include={INCLUDE}");
    Tool::new(ws, "debootstrap", "Installing a minimal Debian 12 into a directory")
        .args(["--variant=minbase".as_ref(), include.as_ref(), "bookworm".as_ref(), tree.as_os_str()])
        .run()?;
    fs::write(&done, INCLUDE)?;
    Ok(tree)
}

fn machine(disk: &Path) -> Machine {
    Machine { memory_mib: 2048, disks: vec![(Bus::VirtioBlk, disk.to_path_buf())], nics: vec!["virtio-net-pci"], starts_linux: true, ..Machine::default() }
}

/// Boots the system without a hypervisor and installs the packages and GRUB from inside.
fn install(ws: &Workspace, tree: &Path, disk: &Path) -> Result<()> {
    let boot = files_in(&tree.join("boot"))?;
    let file = |prefix: &str| boot.iter().find(|path| name_of(path).starts_with(prefix)).with_context(|| format!("the fresh system has no {prefix}*"));
    let scratch = tempfile::tempdir()?;
    let mut args = machine(disk).arguments(scratch.path())?;
    args.extend(["-kernel".to_owned(), file("vmlinuz-")?.display().to_string(), "-initrd".to_owned(), file("initrd.img-")?.display().to_string()]);
    args.extend(["-append", "root=/dev/vda1 rw console=ttyS0 loglevel=4 panic=5 init=/root/install"].map(str::to_owned));
    let log = ws.logs.join("machine-deb-install.log");
    let transcript = qemu::run(&args, &log, None, Duration::from_secs(600))?;
    if !transcript.text.contains("VERDICT: ok install") {
        bail!("the packages could not be installed ({})", log.display());
    }
    Ok(())
}

/// Boots the disk by its own GRUB, until the system restarts or switches the machine off.
fn start(ws: &Workspace, disk: &Path, firmware: Firmware, verdict: &str) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let args = Machine { cpus: 2, firmware, ..machine(disk) }.arguments(scratch.path())?;
    let log = ws.logs.join(format!("machine-deb-{}.log", format!("{firmware:?}").to_lowercase()));
    let stop = regex_lite::Regex::new(&ALWAYS_FORBIDDEN.join("|"))?;
    let transcript = qemu::run(&args, &log, Some(&stop), Duration::from_secs(900))?;
    if !transcript.text.contains(verdict) {
        let line = transcript.text.lines().find(|line| stop.is_match(line)).unwrap_or("no verdict within the time limit");
        bail!("{line} ({})", log.display());
    }
    Ok(())
}
