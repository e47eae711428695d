//! Building the hypervisor, the test guests and the static dom0 programs into `target/dist/`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::metadata::Packages;
use crate::process::Tool;
use crate::setup;
use crate::toolchain::{BARE_TARGET, BareToolchain, INHERITED};
use crate::workspace::{Workspace, copy_if_changed, write_if_changed};

/// The target of the static dom0 programs.
const DOM0_TARGET: &str = "x86_64-unknown-linux-gnu";

/// The hypervisor's two forms.
#[derive(Debug, Clone)]
pub struct Hypervisor {
    /// What GRUB's `multiboot2` loads: gzip of the ELF without line tables.
    pub gz: PathBuf,
    /// The same program with symbols and line tables.
    pub elf: PathBuf,
}

/// Builds the hypervisor: `target/dist/oxen.gz` and `target/dist/oxen.elf`.
pub fn hypervisor(ws: &Workspace) -> Result<Hypervisor> {
    setup::compile_tools(ws)?;
    let toolchain = BareToolchain::find(ws)?;
    // The package's build script names the linker script and the link arguments.
    bare_build(ws, &toolchain, "Building the hypervisor", &[], "oxen-image", "bare-image")?;
    let built = ws.target.join("bare-image").join(BARE_TARGET).join("bare/oxen");
    let elf = ws.dist.join("oxen.elf");
    copy_if_changed(&built, &elf)?;
    let gz = ws.dist.join("oxen.gz");
    write_if_changed(&gz, &gzip(&without_line_tables(ws, &built)?)?)?;
    Ok(Hypervisor { gz, elf })
}

/// Builds every test guest into `target/dist/guests/` and returns them in name order.
pub fn guests(ws: &Workspace) -> Result<Vec<(String, PathBuf)>> {
    setup::compile_tools(ws)?;
    let names = Packages::load(ws)?.binaries("oxen-guests");
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let toolchain = BareToolchain::find(ws)?;
    // Linked at a fixed address in the top 2 GiB.
    let flags = [
        "-Crelocation-model=static".to_owned(),
        "-Ccode-model=kernel".to_owned(),
        format!("-Clink-arg=-T{}", ws.root.join("guests/guest.ld").display()),
    ];
    bare_build(ws, &toolchain, "Building the test guests", &flags, "oxen-guests", "bare-guests")?;
    let mut guests = Vec::new();
    for name in names {
        let built = ws.target.join("bare-guests").join(BARE_TARGET).join("bare").join(&name);
        let file = ws.dist.join("guests").join(&name);
        write_if_changed(&file, &without_line_tables(ws, &built)?)?;
        guests.push((name, file));
    }
    guests.sort();
    Ok(guests)
}

/// Builds the static dom0 programs, all that `dom0-tools/` has, into `target/dist/bin/` and returns their paths.
pub fn dom0_programs(ws: &Workspace) -> Result<Vec<PathBuf>> {
    let tools = ws.root.join("dom0-tools");
    let packages = Packages::load(ws)?;
    let with_programs = packages.iter().filter(|package| package.dir.starts_with(&tools) && !package.binaries.is_empty());
    let names: Vec<&str> = with_programs.map(|package| package.name.as_str()).collect();
    static_programs(ws, &names, &ws.dist.join("bin"))
}

/// Builds the programs of packages statically for Linux into `dir`; returns their paths.
pub fn static_programs(ws: &Workspace, packages: &[&str], dir: &Path) -> Result<Vec<PathBuf>> {
    setup::compile_tools(ws)?;
    let title = format!("Building {}", packages.join(", "));
    static_cargo(ws, &title, &["build", "--bins"]).args(packages.iter().flat_map(|package| ["--package", package])).run()?;
    let mut files = Vec::new();
    let all = Packages::load(ws)?;
    for name in packages.iter().flat_map(|package| all.binaries(package)) {
        let file = dir.join(&name);
        copy_if_changed(&ws.target.join("tools").join(DOM0_TARGET).join("release").join(&name), &file)?;
        files.push(file);
    }
    Ok(files)
}

/// Cargo for the static Linux programs. Everything that is built for them goes through here, so that their dependencies
/// are compiled once.
pub fn static_cargo<'a>(ws: &Workspace, title: &'a str, verb: &[&str]) -> Tool<'a> {
    Tool::new(ws, "cargo", title)
        .args(verb)
        .args(["--release", "--target", DOM0_TARGET])
        .without_env(INHERITED)
        .env("CARGO_TARGET_DIR", ws.target.join("tools"))
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static\x1f-Crelocation-model=static\x1f-Cstrip=symbols")
}

fn bare_build(ws: &Workspace, toolchain: &BareToolchain, title: &str, flags: &[String], package: &str, target: &str) -> Result<()> {
    toolchain
        .cargo(ws, title, flags)
        .args(["build", "--profile", "bare", "--target", BARE_TARGET, "--package", package, "--bins"])
        .env("CARGO_TARGET_DIR", ws.target.join(target))
        .run()
}

/// Builds the instruction-counting QEMU plugin for the host.
pub fn counting_plugin(ws: &Workspace) -> Result<PathBuf> {
    setup::compile_tools(ws)?;
    let target = ws.target.join("plugin");
    Tool::new(ws, "cargo", "Building the instruction counter")
        .args(["build", "--release", "--package", "oxen-instruction-count"])
        .without_env(INHERITED)
        .env("CARGO_TARGET_DIR", &target)
        .run()?;
    Ok(target.join("release/liboxen_instruction_count.so"))
}

/// The program without its debug sections, keeping the symbol table: GRUB loads every section of a multiboot2 ELF, and
/// line tables would cost memory on every machine.
fn without_line_tables(ws: &Workspace, elf: &Path) -> Result<Vec<u8>> {
    let out = tempfile::NamedTempFile::new_in(&ws.target)?;
    Tool::new(ws, "objcopy", "Removing line tables")
        .args(["--strip-debug".as_ref(), elf.as_os_str(), out.path().as_os_str()])
        .run_quietly()
        .with_context(|| format!("objcopy cannot read {}", elf.display()))?;
    Ok(fs::read(out.path())?)
}

/// Compresses reproducibly: no name, no time stamp.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}
