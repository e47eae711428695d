//! Prerequisites from Debian's archive: installed when allowed, otherwise named in one line to type.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};

use crate::process::{Tool, query};
use crate::ui;
use crate::workspace::Workspace;

/// Programs and data that building images and booting them needs: the file that proves presence, and its package.
/// Files rather than package names, so that a machine that got them another way is left alone.
const IMAGE_TOOLS: &[(&str, &str)] = &[
    ("/usr/bin/qemu-system-x86_64", "qemu-system-x86"),
    ("/usr/share/seabios/bios-256k.bin", "seabios"),
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"),
    ("/usr/lib/ipxe/qemu/pxe-e1000.rom", "ipxe-qemu"),
    ("/usr/bin/grub-mkimage", "grub-common"),
    ("/usr/lib/grub/i386-pc/multiboot2.mod", "grub-pc-bin"),
    ("/usr/lib/grub/x86_64-efi/multiboot2.mod", "grub-efi-amd64-bin"),
    ("/usr/bin/xorriso", "xorriso"),
    ("/usr/bin/mformat", "mtools"),
    ("/usr/sbin/mkfs.ext4", "e2fsprogs"),
    ("/sbin/sfdisk", "fdisk"),
    ("/usr/bin/xz", "xz-utils"),
];

/// What compiling needs beside the Rust toolchain.
const COMPILE_TOOLS: &[(&str, &str)] = &[
    ("/usr/bin/gcc", "gcc"),
    ("/usr/bin/objcopy", "binutils"),
    ("/usr/lib/x86_64-linux-gnu/libc.a", "libc6-dev"),
    ("/usr/include/xen/xen.h", "libxen-dev"),
];

/// What compiling for the bare machine needs when rustup cannot supply the target.
const DEBIAN_RUST: &[(&str, &str)] = &[
    ("/usr/bin/rustc", "rustc-web"),
    ("/usr/bin/cargo", "cargo-web"),
    ("/usr/lib/rustlib/src/rust/library/core/Cargo.toml", "rust-web-src"),
    ("/usr/bin/ld.lld", "lld"),
];

/// What installing Debian on a disk image needs.
const DEBIAN_DISK_TOOLS: &[(&str, &str)] = &[("/usr/sbin/debootstrap", "debootstrap"), ("/usr/bin/dpkg-deb", "dpkg"), ("/usr/bin/lintian", "lintian")];

/// Makes sure Debian can be installed on a disk image.
pub fn debian_disk_tools(ws: &Workspace) -> Result<()> {
    image_tools(ws)?;
    ensure(ws, DEBIAN_DISK_TOOLS)
}

/// Makes sure images can be built and booted.
pub fn image_tools(ws: &Workspace) -> Result<()> {
    ensure(ws, IMAGE_TOOLS)
}

/// Makes sure host programs can be compiled and linked statically.
pub fn compile_tools(ws: &Workspace) -> Result<()> {
    ensure(ws, COMPILE_TOOLS)
}

/// Makes sure the programs are there that host tests run ours against.
pub fn host_test_tools(ws: &Workspace) -> Result<()> {
    ensure(ws, &[("/usr/bin/xenstore-ls", "xenstore-utils")])
}

/// Makes sure Debian's Rust compiler with its library sources is there.
pub fn debian_rust(ws: &Workspace) -> Result<()> {
    ensure(ws, DEBIAN_RUST)
}

fn ensure(ws: &Workspace, needs: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = needs.iter().filter(|(file, _)| !Path::new(file).exists()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    install(ws, &missing)
}

/// Installs Debian packages, or says how.
fn install(ws: &Workspace, packages: &[&str]) -> Result<()> {
    if query("apt-get", &["--version"]).is_none() {
        bail!("these Debian packages (or their equivalents here) are needed: {}", packages.join(" "));
    }
    let mut args = vec!["install", "-y", "--no-install-recommends"];
    args.extend(packages);
    // A newer qemu-utils from elsewhere conflicts with Debian's emulator; the trailing dash lets apt remove it.
    if packages.contains(&"qemu-system-x86") {
        args.push("qemu-utils-");
    }
    if !is_root() {
        bail!("packages are missing; please run\n\n    sudo apt-get update && sudo apt-get {}\n\nand start again", args.join(" "));
    }
    update_lists(ws, packages)?;
    ui::note(&format!("installing from Debian: {}", packages.join(" ")));
    Tool::new(ws, "apt-get", "Installing packages").args(args).env("DEBIAN_FRONTEND", "noninteractive").run()
}

/// Refreshes apt's lists, only when a package is unknown to them or they are older than a day.
pub fn update_lists(ws: &Workspace, packages: &[&str]) -> Result<()> {
    let known = packages.iter().all(|package| query("apt-cache", &["show", "--no-all-versions", package]).is_some_and(|text| !text.is_empty()));
    let fresh = fs::metadata("/var/lib/apt/lists/partial")
        .and_then(|meta| meta.modified())
        .is_ok_and(|time| SystemTime::now().duration_since(time).unwrap_or_default() < Duration::from_secs(24 * 3600));
    if (known && fresh) || !is_root() {
        return Ok(());
    }
    Tool::new(ws, "apt-get", "Refreshing apt's package lists").args(["update"]).run()
}

/// Whether this process may install packages.
fn is_root() -> bool {
    query("id", &["-u"]).as_deref() == Some("0")
}
