//! Disk images with ext4 file systems.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::process::{Tool, find};
use crate::workspace::Workspace;

/// Makes a sparse image with an empty file system.
pub fn ext4(ws: &Workspace, path: &Path, size_mib: u64) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    file.set_len(size_mib << 20)?;
    drop(file);
    let program = find("mkfs.ext4").context("mkfs.ext4 is missing (Debian package e2fsprogs)")?;
    Tool::new(ws, program, &format!("mkfs {}", path.file_name().unwrap_or_default().to_string_lossy()))
        .args(["-q".as_ref(), "-F".as_ref(), path.as_os_str()])
        .run_quietly()
        .map(drop)
}

/// How a disk is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitions {
    /// A master boot record and one bootable partition.
    One,
    /// A GUID partition table that GRUB can start by BIOS and by UEFI: the system is the first partition, the second takes GRUB's core,
    /// the third is the EFI system partition, without a file system.
    ForBothFirmwares,
}

impl Partitions {
    /// Where the first partition starts, and what is left free behind it, in MiB.
    fn around_first(self) -> (u64, u64) {
        match self {
            Self::One => (1, 0),
            Self::ForBothFirmwares => (64, 1),
        }
    }

    /// The table in the words of `sfdisk`; sectors have 512 bytes.
    fn table(self, size_mib: u64) -> String {
        let (start, behind) = self.around_first();
        let (first, sectors) = (start * 2048, (size_mib - start - behind) * 2048);
        match self {
            Self::One => format!("start={first}, size={sectors}, type=83, bootable\n"),
            Self::ForBothFirmwares => format!(
                "label: gpt\n1: start={first}, size={sectors}, type=linux\n\
                 2: start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649\n3: start=4096, size=98304, type=uefi\n"
            ),
        }
    }
}

/// Makes a sparse image with partitions; the first one's file system holds what is in `tree`.
pub fn partitioned(ws: &Workspace, tree: &Path, path: &Path, size_mib: u64, partitions: Partitions) -> Result<()> {
    File::create(path).with_context(|| format!("cannot create {}", path.display()))?.set_len(size_mib << 20)?;
    let table = tempfile::NamedTempFile::new()?;
    write!(table.as_file(), "{}", partitions.table(size_mib))?;
    let sfdisk = find("sfdisk").context("sfdisk is missing (Debian package fdisk)")?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let script = format!("'{}' -q '{}' < '{}'", sfdisk.display(), path.display(), table.path().display());
    Tool::new(ws, "sh", &format!("Partitioning {name}")).args(["-c", &script]).run_quietly()?;
    let mkfs = find("mkfs.ext4").context("mkfs.ext4 is missing (Debian package e2fsprogs)")?;
    let (start, behind) = partitions.around_first();
    let offset = format!("offset={}", start << 20);
    let blocks = format!("{}k", (size_mib - start - behind) << 10);
    Tool::new(ws, mkfs, &format!("Filling {name}"))
        .args(["-q".as_ref(), "-F".as_ref(), "-d".as_ref(), tree.as_os_str(), "-E".as_ref(), offset.as_ref(), path.as_os_str(), blocks.as_ref()])
        .run_quietly()
        .map(drop)
}

/// Checks the file system of an image without changing it.
pub fn check(ws: &Workspace, path: &Path) -> Result<()> {
    let program = find("e2fsck").context("e2fsck is missing (Debian package e2fsprogs)")?;
    let title = format!("fsck {}", path.file_name().unwrap_or_default().to_string_lossy());
    let (status, output) = Tool::new(ws, program, &title).args(["-f".as_ref(), "-n".as_ref(), path.as_os_str()]).finish()?;
    if !status.success() {
        bail!("e2fsck finds damage: {}", output.lines().filter(|line| !line.starts_with("Pass")).collect::<Vec<_>>().join("; "));
    }
    Ok(())
}

/// Copies a file out of an image.
pub fn extract(ws: &Workspace, image: &Path, from: &str, to: &Path) -> Result<()> {
    let program = find("debugfs").context("debugfs is missing (Debian package e2fsprogs)")?;
    let request = format!("dump {from} {}", to.display());
    let (_, output) = Tool::new(ws, program, "debugfs dump").args(["-R".as_ref(), request.as_ref(), image.as_os_str()]).finish()?;
    // Its exit code is 0 whatever happens.
    if !to.exists() {
        bail!("the image has no {from}: {}", output.trim());
    }
    Ok(())
}
