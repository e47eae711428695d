//! The guest image that dom0 carries: Debian's kernel and a small initramfs, with a configuration to create a guest from.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::compile;
use crate::dom0::{self, Flavour, Kernel};
use crate::initramfs::{Member, Recipe};
use crate::workspace::Workspace;

/// Where dom0 has the guest's files.
const PLACE: &str = "usr/share/oxen/guest";

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

fn initramfs(ws: &Workspace, kernel: &Kernel, groups: &str, more: Vec<Member>) -> Result<PathBuf> {
    let folder = ws.root.join("boot/domu");
    let mut members = vec![
        Member::program("init", folder.join("init")),
        Member::program("bin/serve", folder.join("serve")),
        Member::program("sbin/poweroff", folder.join("poweroff")),
        Member::program("sbin/reboot", folder.join("poweroff")),
        Member::program("etc/poweroff", folder.join("poweroff")),
        Member::program("etc/udhcpc.sh", ws.root.join("boot/dom0/udhcpc.sh")),
    ];
    members.extend(more);
    Recipe { name: "guest", release: &kernel.release, modules: &kernel.modules, groups: ws.root.join(groups), members }.assemble(ws)
}
