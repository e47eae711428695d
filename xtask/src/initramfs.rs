//! Initramfs images: busybox, the files of a recipe folder, kernel modules, programs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::compile;
use crate::cpio::Archive;
use crate::debs;
use crate::kmod::Modules;
use crate::ui;
use crate::workspace::{Key, Workspace, write_if_changed};

/// Raise when the layout of the images changes.
const LAYOUT: u32 = 2;

/// A file of an image.
#[derive(Debug, Clone)]
pub struct Member {
    /// Where it goes, without a leading slash.
    pub place: String,
    /// The permission bits.
    pub mode: u32,
    /// Where it is here.
    pub source: PathBuf,
}

impl Member {
    /// A program.
    pub fn program(place: impl Into<String>, source: impl Into<PathBuf>) -> Self {
        Self { place: place.into(), mode: 0o755, source: source.into() }
    }

    /// A file to read.
    pub fn data(place: impl Into<String>, source: impl Into<PathBuf>) -> Self {
        Self { mode: 0o644, ..Self::program(place, source) }
    }
}

/// What goes into an image beside busybox.
pub struct Recipe<'a> {
    /// Who boots it: `dom0`.
    pub name: &'a str,
    /// The kernel's version, `6.1.0-56-amd64`.
    pub release: &'a str,
    /// The kernel's directory of modules.
    pub modules: &'a Path,
    /// The file that lists groups of modules.
    pub groups: PathBuf,
    /// The files.
    pub members: Vec<Member>,
}

impl Recipe<'_> {
    /// Assembles the image, once for each content.
    pub fn assemble(&self, ws: &Workspace) -> Result<PathBuf> {
        let mut key = Key::new("initramfs", LAYOUT).value(self.name).value(self.release).file(&self.groups)?;
        for member in &self.members {
            key = key.value(&member.place).value(member.mode).file(&member.source)?;
        }
        let path = ws.cache.join("initrd").join(format!("{}-{}-{}.gz", self.name, self.release, key.finish()));
        if !path.exists() {
            let busybox = busybox(ws)?;
            ui::step(&format!("Assembling {}'s initramfs for {}", self.name, self.release), || self.write(ws, &busybox, &path))?;
        }
        Ok(path)
    }

    fn write(&self, ws: &Workspace, busybox: &Path, path: &Path) -> Result<()> {
        let mut archive = Archive::default();
        for dir in ["proc", "sys", "dev", "run", "tmp", "mnt", "root", "usr/bin"] {
            archive.directory(dir);
        }
        // The kernel opens the console before `init` can mount devtmpfs.
        archive.char_device("dev/console", 5, 1);
        archive.char_device("dev/null", 1, 3);
        archive.file("bin/busybox", 0o755, &fs::read(busybox)?);
        archive.link("bin/sh", "busybox");
        archive.file("etc/passwd", 0o644, b"root::0:0:root:/root:/bin/sh\n");
        archive.file("etc/group", 0o644, b"root:x:0:\n");
        archive.file("etc/hostname", 0o644, format!("{}\n", self.name).as_bytes());
        for member in &self.members {
            let content = fs::read(&member.source).with_context(|| format!("cannot read {}", member.source.display()))?;
            archive.file(&member.place, member.mode, &content);
        }
        self.add_modules(ws, &mut archive)?;
        write_if_changed(path, &compile::gzip(&archive.finish())?)?;
        Ok(())
    }

    /// Adds the modules of every group and one list per group in loading order.
    fn add_modules(&self, ws: &Workspace, archive: &mut Archive) -> Result<()> {
        let modules = Modules::scan(self.modules)?;
        let mut added = BTreeSet::new();
        for line in fs::read_to_string(&self.groups)?.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split_whitespace();
            let Some(group) = words.next() else { continue };
            let wanted: Vec<&str> = words.collect();
            let order = modules.resolve(ws, &wanted)?;
            let names: Vec<&str> = order.iter().map(|module| module.name.as_str()).collect();
            archive.file(&format!("lib/modules/{group}.order"), 0o644, (names.join("\n") + "\n").as_bytes());
            for module in &order {
                if added.insert(module.name.clone()) {
                    archive.file(&format!("lib/modules/{}.ko", module.name), 0o644, &module.content);
                }
            }
        }
        Ok(())
    }
}

fn busybox(ws: &Workspace) -> Result<PathBuf> {
    let package = debs::unpack(ws, "busybox-static", &[])?;
    ["bin/busybox", "usr/bin/busybox"].iter().map(|file| package.join(file)).find(|file| file.exists()).context("busybox-static has no busybox")
}

/// The plain files of a directory, in name order.
pub fn files_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    Ok(files)
}

/// The last part of a path.
pub fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
