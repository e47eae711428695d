//! The guest image that dom0 carries: Debian's kernel and a small initramfs, with a configuration to create a guest from.

use std::path::PathBuf;

use anyhow::Result;

use crate::dom0::{self, Flavour, Kernel};
use crate::initramfs::{Member, Recipe};
use crate::workspace::Workspace;

/// Where dom0 has the guest's files.
const PLACE: &str = "usr/share/oxen/guest";

/// The files for dom0's image; `None` when the configured archive has no kernel.
pub fn members(ws: &Workspace) -> Result<Option<Vec<Member>>> {
    let Some(kernel) = dom0::kernel(ws, Flavour::Stock)? else { return Ok(None) };
    let initrd = initramfs(ws, &kernel)?;
    Ok(Some(vec![
        Member::data(format!("{PLACE}/vmlinuz"), kernel.bzimage),
        Member::data(format!("{PLACE}/initrd.gz"), initrd),
        Member::data("etc/xen/demo", ws.root.join("boot/domu/demo")),
    ]))
}

fn initramfs(ws: &Workspace, kernel: &Kernel) -> Result<PathBuf> {
    let folder = ws.root.join("boot/domu");
    let members = vec![
        Member::program("init", folder.join("init")),
        Member::program("bin/serve", folder.join("serve")),
        Member::program("sbin/poweroff", folder.join("poweroff")),
        Member::program("sbin/reboot", folder.join("poweroff")),
        Member::program("etc/poweroff", folder.join("poweroff")),
        Member::program("etc/udhcpc.sh", ws.root.join("boot/dom0/udhcpc.sh")),
    ];
    Recipe { name: "guest", release: &kernel.release, modules: &kernel.modules, groups: folder.join("modules"), members }.assemble(ws)
}
