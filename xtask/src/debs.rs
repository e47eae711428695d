//! Files out of Debian packages, without installing them: fetched once into `target/cache/debs`, unpacked once.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{Tool, query};
use crate::setup;
use crate::ui;
use crate::workspace::Workspace;

/// Fetches and unpacks a package and returns the root of its file tree; `members` limits unpacking to these path prefixes (`./boot`), empty means all.
///
/// A package that was unpacked before is used again, whatever the archive now offers: nothing is fetched twice.
pub fn unpack(ws: &Workspace, package: &str, members: &[&str]) -> Result<PathBuf> {
    let dir = ws.cache.join("packages").join(package);
    let stamp = dir.join(".version");
    if stamp.exists() {
        return Ok(dir);
    }
    ui::step(&format!("Fetching {package}"), || {
        let deb = download(ws, package)?;
        let version = query("dpkg-deb", &["-f", &deb.to_string_lossy(), "Version"]).context("dpkg-deb cannot read the package")?;
        let scratch = tempfile::tempdir_in(&ws.cache)?;
        extract(ws, &deb, scratch.path(), members)?;
        fs::write(scratch.path().join(".version"), &version)?;
        fs::create_dir_all(dir.parent().context("cache directory without parent")?)?;
        let _ = fs::remove_dir_all(&dir);
        fs::rename(scratch.keep(), &dir)?;
        fs::remove_file(&deb)?;
        Ok(dir.clone())
    })
}

/// The package that a metapackage stands for, such as the newest kernel of a flavour; `None` when the archive has none.
pub fn newest_kernel(ws: &Workspace, meta: &str) -> Result<Option<String>> {
    let memo = ws.cache.join("packages").join(format!("{meta}.stands-for"));
    if let Ok(name) = fs::read_to_string(&memo) {
        return Ok(Some(name));
    }
    setup::update_lists(ws, &[meta])?;
    let Some(text) = query("apt-cache", &["depends", meta]) else { return Ok(None) };
    let Some(name) = text.lines().find_map(|line| line.trim().strip_prefix("Depends: ").filter(|name| name.starts_with("linux-image-"))) else {
        return Ok(None);
    };
    fs::create_dir_all(memo.parent().context("cache directory without parent")?)?;
    fs::write(&memo, name)?;
    Ok(Some(name.to_owned()))
}

fn download(ws: &Workspace, package: &str) -> Result<PathBuf> {
    let dir = tempfile::Builder::new().prefix("fetch-").tempdir_in(&ws.cache)?;
    // apt drops its privileges for downloads; let it write here.
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777))?;
    }
    setup::update_lists(ws, &[package])?;
    Tool::new(ws, "apt-get", &format!("download {package}"))
        .args(["download", package])
        .current_dir(dir.path())
        .time_limit(Duration::from_secs(900))
        .run_quietly()
        .with_context(|| format!("apt-get cannot fetch {package}; is this Debian 12 with its archive configured?"))?;
    let deb = fs::read_dir(dir.path())?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|ext| ext == "deb"))
        .with_context(|| format!("apt-get left no package file for {package}"))?;
    let kept = ws.cache.join(deb.file_name().context("package file without a name")?);
    fs::rename(deb, &kept)?;
    Ok(kept)
}

fn extract(ws: &Workspace, deb: &Path, into: &Path, members: &[&str]) -> Result<()> {
    let title = format!("unpack {}", deb.file_name().unwrap_or_default().to_string_lossy());
    if members.is_empty() {
        return Tool::new(ws, "dpkg-deb", &title).args(["-x".as_ref(), deb.as_os_str(), into.as_os_str()]).run_quietly().map(drop);
    }
    let script = format!(
        "set -o pipefail; dpkg-deb --fsys-tarfile '{}' | tar -x -C '{}' --wildcards {}",
        deb.display(),
        into.display(),
        members.iter().map(|member| format!("'{member}'")).collect::<Vec<_>>().join(" ")
    );
    let (status, output) = Tool::new(ws, "bash", &title).args(["-c", &script]).finish()?;
    if !status.success() {
        bail!("cannot unpack {}: {output}", deb.display());
    }
    Ok(())
}
