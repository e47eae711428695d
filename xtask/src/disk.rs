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

/// Where the partition of [`partitioned`] starts.
const PARTITION_BYTES: u64 = 1 << 20;

/// Makes a sparse image with a master boot record and one bootable partition, whose file system holds what is in `tree`.
pub fn partitioned(ws: &Workspace, tree: &Path, path: &Path, size_mib: u64) -> Result<()> {
    File::create(path).with_context(|| format!("cannot create {}", path.display()))?.set_len(size_mib << 20)?;
    let table = tempfile::NamedTempFile::new()?;
    writeln!(table.as_file(), "start={}, type=83, bootable", PARTITION_BYTES / 512)?;
    let sfdisk = find("sfdisk").context("sfdisk is missing (Debian package fdisk)")?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let script = format!("'{}' -q '{}' < '{}'", sfdisk.display(), path.display(), table.path().display());
    Tool::new(ws, "sh", &format!("Partitioning {name}")).args(["-c", &script]).run_quietly()?;
    let mkfs = find("mkfs.ext4").context("mkfs.ext4 is missing (Debian package e2fsprogs)")?;
    let offset = format!("offset={PARTITION_BYTES}");
    let blocks = format!("{}k", (size_mib << 10) - PARTITION_BYTES / 1024);
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
