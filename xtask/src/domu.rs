//! The guest image that dom0 carries: Debian's kernel and a small initramfs, with a configuration to create a guest from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::compile;
use crate::debs;
use crate::disk::{self, Partitions};
use crate::dom0::{self, Flavour, Kernel};
use crate::initramfs::{Member, Recipe};
use crate::workspace::Workspace;

/// Where dom0 has the guest's files.
pub const PLACE: &str = "usr/share/oxen/guest";

/// The files for dom0's image; `None` when the configured archive has no kernel.
pub fn members(ws: &Workspace) -> Result<Option<Vec<Member>>> {
    let Some(kernel) = dom0::kernel(ws, Flavour::Stock)? else { return Ok(None) };
    let initrd = initramfs(ws, &kernel, "boot/domu/modules", Vec::new())?;
    Ok(Some(files(ws, kernel, initrd)))
}

/// As [`members`], with the benchmark programs `programs` in the guest, and a second guest that only sleeps.
pub fn members_for_bench(ws: &Workspace, programs: &[Member]) -> Result<Option<Vec<Member>>> {
    let Some(kernel) = dom0::kernel(ws, Flavour::Stock)? else { return Ok(None) };
    let initrd = initramfs(ws, &kernel, "tests/control-bench/guest-modules", programs.to_vec())?;
    let mut members = files(ws, kernel, initrd);
    let (_, idle) = compile::guests(ws)?.into_iter().find(|(name, _)| name == "idle").context("guests/ has no kernel called idle")?;
    members.push(Member::data(format!("{PLACE}/idle"), idle));
    Ok(Some(members))
}

fn files(ws: &Workspace, kernel: Kernel, initrd: PathBuf) -> Vec<Member> {
    vec![
        Member::data(format!("{PLACE}/vmlinuz"), kernel.bzimage),
        Member::data(format!("{PLACE}/initrd.gz"), initrd),
        Member::data("etc/xen/demo", ws.root.join("boot/domu/demo")),
    ]
}

/// Debian's GRUB as the kernel of a guest, which boots what the guest's disk says.
pub fn pvgrub(ws: &Workspace) -> Result<Member> {
    let place = "usr/lib/grub-xen/grub-x86_64-xen.bin";
    let package = debs::unpack(ws, "grub-xen-host", &[&format!("./{place}")])?;
    Ok(Member::data(place, package.join(place)))
}

/// Makes a guest's disk that boots by itself: a partition with the guest's kernel, its initramfs and a menu as Debian writes it.
pub fn bootable_disk(ws: &Workspace, path: &Path) -> Result<()> {
    let kernel = dom0::kernel(ws, Flavour::Stock)?.context("Debian's archive has no kernel")?;
    let tree = tempfile::tempdir_in(&ws.target)?;
    let boot = tree.path().join("boot");
    fs::create_dir_all(boot.join("grub"))?;
    fs::copy(&kernel.bzimage, boot.join(format!("vmlinuz-{}", kernel.release)))?;
    fs::copy(initramfs(ws, &kernel, "boot/domu/modules", Vec::new())?, boot.join(format!("initrd.img-{}", kernel.release)))?;
    let menu = fs::read_to_string(ws.root.join("boot/domu/grub.cfg"))?;
    fs::write(boot.join("grub/grub.cfg"), menu.replace("@RELEASE@", &kernel.release))?;
    disk::partitioned(ws, tree.path(), path, 96, Partitions::One)
}

fn initramfs(ws: &Workspace, kernel: &Kernel, groups: &str, more: Vec<Member>) -> Result<PathBuf> {
    let folder = ws.root.join("boot/domu");
    let mut members = vec![
        Member::program("init", folder.join("init")),
        Member::program("bin/serve", folder.join("serve")),
        Member::program("sbin/poweroff", folder.join("poweroff")),
        Member::program("sbin/reboot", folder.join("poweroff")),
        Member::program("etc/udhcpc.sh", ws.root.join("boot/dom0/udhcpc.sh")),
    ];
    members.extend(more);
    Recipe { name: "guest", release: &kernel.release, modules: &kernel.modules, groups: ws.root.join(groups), members }.assemble(ws)
}
