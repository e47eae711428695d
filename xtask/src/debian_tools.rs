//! Debian's own Xen tools for the dom0 image: `xl`, `xenstored` and the libraries they need, out of their packages.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::debs;
use crate::initramfs::{files_in, name_of};
use crate::process::query;
use crate::setup;
use crate::workspace::Workspace;

/// The programs by package and directory, where they also go in the image.
const PROGRAMS: &[(&str, &str, &[&str])] = &[
    ("xen-utils-4.17", "usr/lib/xen-4.17/bin", &["xl", "xenstored", "xen-init-dom0", "xenconsoled", "xenconsole"]),
    ("xenstore-utils", "usr/bin", &["xenstore", "xenstore-exists", "xenstore-list", "xenstore-ls", "xenstore-read", "xenstore-rm", "xenstore-watch", "xenstore-write"]),
];

/// What the programs run for guests' devices: scripts, and by package what those need that busybox does not have.
const SCRIPTS: &str = "etc/xen/scripts";
const FOR_SCRIPTS: &[(&str, &str)] = &[("bash", "bin/bash"), ("util-linux", "usr/bin/flock")];

/// The packages whose libraries the programs may need.
const LIBRARIES: &[&str] = &[
    "libc6",
    "libgcc-s1",
    "libtinfo6",
    "libxencall1",
    "libxendevicemodel1",
    "libxenevtchn1",
    "libxenforeignmemory1",
    "libxengnttab1",
    "libxenhypfs1",
    "libxenmisc4.17",
    "libxenstore4",
    "libxentoolcore1",
    "libxentoollog1",
    "libyajl2",
    "libuuid1",
    "zlib1g",
    "liblzma5",
    "libzstd1",
];

/// Libraries that the C library loads by itself, when a thread is cancelled.
const LOADED_LATER: &[&str] = &["libgcc_s.so.1"];

/// Where each file goes in the image, and where it is here.
pub fn files(ws: &Workspace) -> Result<Vec<(String, PathBuf)>> {
    with_libraries(ws, programs(ws)?)
}

/// As [`files`], with what guests with disks and network cards need.
pub fn files_for_devices(ws: &Workspace) -> Result<Vec<(String, PathBuf)>> {
    let mut files = programs(ws)?;
    for (package, program) in FOR_SCRIPTS {
        files.push(((*program).to_owned(), debs::unpack(ws, package, &[&format!("./{program}")])?.join(program)));
    }
    let mut files = with_libraries(ws, files)?;
    let scripts = debs::unpack(ws, "xen-utils-common", &[&format!("./{SCRIPTS}")])?.join(SCRIPTS);
    files.extend(files_in(&scripts)?.into_iter().map(|script| (format!("{SCRIPTS}/{}", name_of(&script)), script)));
    Ok(files)
}

fn programs(ws: &Workspace) -> Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for (package, dir, programs) in PROGRAMS {
        let root = debs::unpack(ws, package, &[&format!("./{dir}")])?;
        files.extend(programs.iter().map(|program| (format!("{dir}/{program}"), root.join(dir).join(program))));
    }
    Ok(files)
}

/// Adds the libraries that programs need.
fn with_libraries(ws: &Workspace, mut files: Vec<(String, PathBuf)>) -> Result<Vec<(String, PathBuf)>> {
    setup::compile_tools(ws)?;
    let mut directories = Vec::new();
    for package in LIBRARIES {
        let root = debs::unpack(ws, package, &[])?;
        directories.extend(["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"].map(|dir| root.join(dir)));
    }
    let mut pending: Vec<PathBuf> = files.iter().map(|(_, path)| path.clone()).collect();
    let mut seen = BTreeSet::new();
    while let Some(path) = pending.pop() {
        for name in needed(&path)?.into_iter().chain(LOADED_LATER.iter().map(|name| (*name).to_owned())) {
            if !seen.insert(name.clone()) {
                continue;
            }
            let library = directories.iter().map(|dir| dir.join(&name)).find(|file| file.exists()).with_context(|| format!("no package has {name}"))?;
            let library = fs::canonicalize(library)?;
            let dir = if name.starts_with("ld-") { "lib64" } else { "lib/x86_64-linux-gnu" };
            files.push((format!("{dir}/{name}"), library.clone()));
            pending.push(library);
        }
    }
    Ok(files)
}

/// The libraries that a program or library names.
fn needed(file: &Path) -> Result<Vec<String>> {
    let text = query("objdump", &["-p", &file.to_string_lossy()]).with_context(|| format!("objdump cannot read {}", file.display()))?;
    Ok(text.lines().filter_map(|line| line.trim().strip_prefix("NEEDED")).map(|name| name.trim().to_owned()).collect())
}
