//! The rung `deb`: both packages installed on a fresh Debian 12 disk, which GRUB then boots under Oxen.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cases::ALWAYS_FORBIDDEN;
use crate::deb;
use crate::initramfs::{files_in, name_of};
use crate::process::{Tool, query};
use crate::qemu::{self, Bus, Machine};
use crate::setup;
use crate::workspace::Workspace;

/// What the fresh system has, beside Debian's required packages.
const INCLUDE: &str = "linux-image-amd64,initramfs-tools,grub-pc,systemd-sysv,udev,kmod,iproute2";
/// The disk's size.
const DISK_MIB: u64 = 3072;
/// Where its only partition starts.
const PARTITION_BYTES: u64 = 1 << 20;
/// What the installed system prints once it is up under Oxen and everything answers.
const VERDICT: &str = "VERDICT: ok deb";

/// Installs and boots.
pub fn run(ws: &Workspace) -> Result<()> {
    setup::debian_disk_tools(ws)?;
    if query("id", &["-u"]).as_deref() != Some("0") {
        bail!("installing Debian into a directory needs root");
    }
    let packages = deb::build(ws)?;
    let tree = fresh_system(ws)?;
    let recipe = ws.root.join("packaging/test");
    for file in [&packages.hypervisor, &packages.tools].into_iter().chain(&files_in(&recipe)?) {
        let place = tree.join("root").join(name_of(file));
        fs::copy(file, &place)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
    }
    let scratch = tempfile::tempdir_in(&ws.target)?;
    let disk = scratch.path().join("debian.img");
    make_disk(ws, &tree, &disk)?;
    install(ws, &tree, &disk)?;
    start(ws, &disk)
}

/// A minimal Debian 12, fetched once.
fn fresh_system(ws: &Workspace) -> Result<PathBuf> {
    let tree = ws.cache.join("debian-12");
    let done = ws.cache.join("debian-12.done");
    if !done.exists() {
        if tree.exists() {
            fs::remove_dir_all(&tree)?;
        }
        let include = format!("--include={INCLUDE}");
        Tool::new(ws, "debootstrap", "Installing a minimal Debian 12 into a directory")
            .args(["--variant=minbase".as_ref(), include.as_ref(), "bookworm".as_ref(), tree.as_os_str()])
            .run()?;
        File::create(&done)?;
    }
    Ok(tree)
}

/// A disk with one bootable partition that holds the tree.
fn make_disk(ws: &Workspace, tree: &Path, disk: &Path) -> Result<()> {
    File::create(disk)?.set_len(DISK_MIB << 20)?;
    let table = tempfile::NamedTempFile::new()?;
    writeln!(table.as_file(), "start={}, type=83, bootable", PARTITION_BYTES / 512)?;
    let script = format!("sfdisk -q '{}' < '{}'", disk.display(), table.path().display());
    Tool::new(ws, "sh", "Partitioning the disk").args(["-c", &script]).run_quietly()?;
    let offset = format!("offset={PARTITION_BYTES}");
    let blocks = format!("{}k", (DISK_MIB << 10) - PARTITION_BYTES / 1024);
    Tool::new(ws, "mkfs.ext4", "Filling the disk")
        .args(["-q".as_ref(), "-F".as_ref(), "-d".as_ref(), tree.as_os_str(), "-E".as_ref(), offset.as_ref(), disk.as_os_str(), blocks.as_ref()])
        .run()
}

fn machine(disk: &Path) -> Machine {
    Machine { memory_mib: 2048, disks: vec![(Bus::VirtioBlk, disk.to_path_buf())], nics: vec!["virtio-net-pci"], ..Machine::default() }
}

/// Boots the system without a hypervisor and installs the packages and GRUB from inside.
fn install(ws: &Workspace, tree: &Path, disk: &Path) -> Result<()> {
    let boot = files_in(&tree.join("boot"))?;
    let file = |prefix: &str| boot.iter().find(|path| name_of(path).starts_with(prefix)).with_context(|| format!("the fresh system has no {prefix}*"));
    let scratch = tempfile::tempdir()?;
    let mut args = machine(disk).arguments(scratch.path())?;
    args.extend(["-kernel".to_owned(), file("vmlinuz-")?.display().to_string(), "-initrd".to_owned(), file("initrd.img-")?.display().to_string()]);
    args.extend(["-append", "root=/dev/vda1 rw console=ttyS0 loglevel=4 panic=5 init=/root/install", "-display", "none", "-serial", "stdio", "-monitor", "none"].map(str::to_owned));
    let log = ws.logs.join("machine-deb-install.log");
    let transcript = qemu::run(&args, &log, None, Duration::from_secs(600))?;
    if !transcript.text.contains("VERDICT: ok install") {
        bail!("the packages could not be installed ({})", log.display());
    }
    Ok(())
}

/// Boots the disk by its own GRUB.
fn start(ws: &Workspace, disk: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut args = machine(disk).arguments(scratch.path())?;
    args.extend(["-display", "none", "-serial", "stdio", "-monitor", "none"].map(str::to_owned));
    let log = ws.logs.join("machine-deb.log");
    let stop = regex_lite::Regex::new(&ALWAYS_FORBIDDEN.join("|"))?;
    let transcript = qemu::run(&args, &log, Some(&stop), Duration::from_secs(600))?;
    if !transcript.text.contains(VERDICT) {
        let line = transcript.text.lines().find(|line| stop.is_match(line)).unwrap_or("no verdict within the time limit");
        bail!("{line} ({})", log.display());
    }
    Ok(())
}
