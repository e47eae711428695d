//! `deb`: the Debian packages, from what `build` leaves and the recipes in `packaging/`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::compile;
use crate::initramfs::{Member, files_in, name_of};
use crate::process::{Tool, query};
use crate::workspace::Workspace;

/// The packages that were made.
#[derive(Debug)]
pub struct Packages {
    /// The hypervisor with its GRUB entry.
    pub hypervisor: PathBuf,
    /// The daemons and `xm`.
    pub tools: PathBuf,
}

/// Builds both packages into `target/dist/`.
pub fn build(ws: &Workspace) -> Result<Packages> {
    Ok(Packages { hypervisor: hypervisor(ws)?, tools: tools(ws)? })
}

fn hypervisor(ws: &Workspace) -> Result<PathBuf> {
    let built = compile::hypervisor(ws)?;
    let recipe = ws.root.join("packaging/oxen-hypervisor");
    let members = vec![
        Member::data("boot/oxen.gz", built.gz),
        Member::data("usr/lib/debug/boot/oxen.elf", built.elf),
        Member::data("etc/default/grub.d/oxen.cfg", recipe.join("oxen.cfg")),
        Member::program("etc/grub.d/11_linux_oxen", recipe.join("11_linux_oxen")),
        Member::data("usr/share/doc/oxen-hypervisor/OPTIONS.md", ws.root.join("boot/options/OPTIONS.md")),
    ];
    package(ws, "oxen-hypervisor", with_documents(ws, "oxen-hypervisor", members), &[])
}

fn tools(ws: &Workspace) -> Result<PathBuf> {
    let recipe = ws.root.join("packaging/oxen-tools");
    let programs = compile::dom0_programs(ws)?;
    let xm = programs.iter().find(|program| name_of(program) == "xm").context("there is no program xm")?.clone();
    let mut members: Vec<Member> = programs.into_iter().map(|program| Member::program(format!("usr/sbin/{}", name_of(&program)), program)).collect();
    let units = files_in(&ws.root.join("dom0-tools/systemd"))?;
    members.extend(units.iter().map(|unit| Member::data(format!("lib/systemd/system/{}", name_of(unit)), unit)));
    members.push(Member::data("usr/lib/modules-load.d/oxen.conf", recipe.join("modules.conf")));
    let etc = files_in(&ws.root.join("dom0-tools/etc"))?;
    members.extend(etc.iter().map(|file| Member::data(format!("etc/xen/{}", name_of(file)), file)));
    members.extend(manuals(ws, &xm)?);
    let enabled: Vec<String> = units.iter().map(|unit| name_of(unit)).filter(|name| name.ends_with(".service")).collect();
    package(ws, "oxen-tools", with_documents(ws, "oxen-tools", members), &[("@UNITS@", &enabled.join(" "))])
}

/// The manual pages and shell completions, which `xm` writes itself.
fn manuals(ws: &Workspace, xm: &Path) -> Result<Vec<Member>> {
    let dir = ws.dist.join("manuals");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    Tool::new(ws, xm, "Writing the manual pages").args(["manuals".as_ref(), dir.as_os_str()]).run_quietly()?;
    let place = |file: &Path| match file.extension().and_then(|extension| extension.to_str()) {
        Some(section @ ("1" | "5" | "8")) => format!("usr/share/man/man{section}/{}.gz", name_of(file)),
        Some("bash") => "usr/share/bash-completion/completions/xm".to_owned(),
        Some("fish") => "usr/share/fish/vendor_completions.d/xm.fish".to_owned(),
        _ => "usr/share/zsh/vendor-completions/_xm".to_owned(),
    };
    Ok(files_in(&dir)?.into_iter().map(|file| Member::data(place(&file), file)).collect())
}

/// Adds what every package has below `usr/share/doc`.
fn with_documents(ws: &Workspace, package: &str, mut members: Vec<Member>) -> Vec<Member> {
    for name in ["README.md", "CAVEATS.md", "packaging/copyright"] {
        let source = ws.root.join(name);
        members.push(Member::data(format!("usr/share/doc/{package}/{}", name_of(&source)), source));
    }
    members.push(Member::data(format!("usr/share/doc/{package}/changelog.gz"), ws.root.join("packaging/changelog")));
    members
}

/// Lays the files out and calls `dpkg-deb`.
fn package(ws: &Workspace, name: &str, members: Vec<Member>, values: &[(&str, &str)]) -> Result<PathBuf> {
    let tree = tempfile::tempdir_in(&ws.target)?;
    fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755))?;
    let version = env!("CARGO_PKG_VERSION");
    for member in members {
        let mut content = fs::read(&member.source).with_context(|| format!("cannot read {}", member.source.display()))?;
        // Debian's policy wants manual pages and the changelog compressed; what is an archive by itself comes as it is.
        if member.place.ends_with(".gz") && member.source.extension().is_none_or(|extension| extension != "gz") {
            content = compile::gzip(String::from_utf8(content)?.replace("@VERSION@", version).as_bytes())?;
        }
        place(&tree.path().join(&member.place), &content, member.mode)?;
    }
    let recipe = ws.root.join("packaging").join(name);
    for (file, mode) in [("control", 0o644), ("conffiles", 0o644), ("postinst", 0o755), ("prerm", 0o755), ("postrm", 0o755)] {
        let source = recipe.join(file);
        if !source.exists() {
            continue;
        }
        let mut text = fs::read_to_string(&source)?.replace("@VERSION@", version);
        for (key, value) in values {
            text = text.replace(key, value);
        }
        place(&tree.path().join("DEBIAN").join(file), text.as_bytes(), mode)?;
    }
    let path = ws.dist.join(format!("{name}_{version}_amd64.deb"));
    let title = format!("Packing {name}");
    Tool::new(ws, "dpkg-deb", &title)
        .args(["--root-owner-group".as_ref(), "-Zxz".as_ref(), "-z3".as_ref(), "--build".as_ref(), tree.path().as_os_str(), path.as_os_str()])
        .run()
        .with_context(|| format!("dpkg-deb is {}", if query("dpkg-deb", &["--version"]).is_some() { "there" } else { "missing: packages can be built on Debian only" }))?;
    Ok(path)
}

fn place(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let parent = path.parent().context("a file needs a directory")?;
    fs::create_dir_all(parent)?;
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(())
}
