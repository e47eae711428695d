//! Disk images with an ext4 file system for dom0.

use std::fs::File;
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
