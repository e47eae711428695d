//! Finding a compiler for the bare machine: rustup's target if it is there or can be added, else Debian's compiler
//! with a sysroot that we build once, else a message that says what to install.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{Tool, exists, find, query};
use crate::setup;
use crate::ui;
use crate::workspace::{Key, Workspace};

/// The target of the hypervisor and the test guests.
pub const BARE_TARGET: &str = "x86_64-unknown-none";

/// Variables that the outer `cargo xtask` leaves behind and an inner cargo must not see.
pub const INHERITED: &[&str] =
    &["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "CARGO_MANIFEST_DIR"];

/// Code generation for everything on the bare machine: frame pointers, which the backtraces of fatal paths follow. The target's default
/// of position-independent code stays: the hypervisor's addresses do not fit the sign-extended 32 bits of other forms.
const BARE_FLAGS: &[&str] = &["-Cforce-frame-pointers=yes"];

/// Raise when the way the sysroot is built changes.
const SYSROOT_RECIPE: u32 = 2;

/// A compiler that can build for [`BARE_TARGET`].
#[derive(Debug)]
pub struct BareToolchain {
    cargo: PathBuf,
    rustc: Option<PathBuf>,
    flags: Vec<String>,
}

impl BareToolchain {
    /// Finds or makes one. `OXEN_BARE_TOOLCHAIN=rustup|debian` overrides the choice.
    pub fn find(ws: &Workspace) -> Result<Self> {
        match std::env::var("OXEN_BARE_TOOLCHAIN").as_deref() {
            Ok("debian") => return Self::debian(ws),
            Ok("rustup") => return rustup_target(ws)?.context("rustup has no usable x86_64-unknown-none target"),
            Ok(other) => bail!("OXEN_BARE_TOOLCHAIN is {other}; it can be rustup or debian"),
            Err(_) => {}
        }
        match rustup_target(ws)? {
            Some(toolchain) => Ok(toolchain),
            None => Self::debian(ws).context(
                "no compiler for the bare machine; run `rustup target add x86_64-unknown-none` on a connected machine, \
                 or install Debian's rustc-web, cargo-web, rust-web-src and lld",
            ),
        }
    }

    /// Debian's compiler and a sysroot with `core`, `alloc` and `compiler_builtins` under `target/sysroot/`.
    fn debian(ws: &Workspace) -> Result<Self> {
        setup::debian_rust(ws)?;
        let rustc = PathBuf::from("/usr/bin/rustc");
        let cargo = PathBuf::from("/usr/bin/cargo");
        let version = query("/usr/bin/rustc", &["-vV"]).context("/usr/bin/rustc does not run")?;
        let sysroot = ws.target.join("sysroot").join(Key::new("sysroot", SYSROOT_RECIPE).value(&version).finish());
        if !sysroot.exists() {
            build_sysroot(ws, &cargo, &rustc, &sysroot)?;
        }
        let linker = find("ld.lld").context("Debian's package lld is needed for /usr/bin/ld.lld")?;
        let mut flags: Vec<String> = BARE_FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
        flags.push(format!("--sysroot={}", sysroot.display()));
        flags.push(format!("-Clinker={}", linker.display()));
        flags.push("-Clinker-flavor=ld.lld".to_owned());
        Ok(Self { cargo, rustc: Some(rustc), flags })
    }

    /// A cargo invocation for the bare machine, with further compiler flags; arguments follow.
    pub fn cargo<'a>(&self, ws: &Workspace, title: &'a str, more_flags: &[String]) -> Tool<'a> {
        let mut flags = self.flags.clone();
        flags.extend_from_slice(more_flags);
        let tool = Tool::new(ws, &self.cargo, title).without_env(INHERITED).env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        match &self.rustc {
            Some(rustc) => tool.env("RUSTC", rustc),
            None => tool,
        }
    }
}

/// The rustup toolchain of this checkout, if the bare target is installed in it or can be added.
fn rustup_target(ws: &Workspace) -> Result<Option<BareToolchain>> {
    if !has_target() && !add_target(ws)? {
        return Ok(None);
    }
    let flags = BARE_FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
    Ok(Some(BareToolchain { cargo: PathBuf::from("cargo"), rustc: None, flags }))
}

fn has_target() -> bool {
    query("rustc", &["--print", "target-libdir", "--target", BARE_TARGET])
        .and_then(|dir| fs::read_dir(dir).ok())
        .is_some_and(|entries| entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-")))
}

/// Tries to add the target; a failure is remembered for a day so that an unconnected machine waits only once.
fn add_target(ws: &Workspace) -> Result<bool> {
    if !exists("rustup") {
        return Ok(false);
    }
    let failed = ws.cache.join("rustup-target-failed");
    let recent = fs::metadata(&failed).and_then(|meta| meta.modified()).is_ok_and(|time| time.elapsed().unwrap_or_default() < Duration::from_secs(24 * 3600));
    if recent {
        return Ok(false);
    }
    let outcome = Tool::new(ws, "rustup", "Adding the target x86_64-unknown-none")
        .args(["target", "add", BARE_TARGET])
        .time_limit(Duration::from_secs(90))
        .run();
    if outcome.is_ok() && has_target() {
        return Ok(true);
    }
    ui::note("rustup cannot add the target here; using Debian's compiler");
    fs::write(&failed, "")?;
    Ok(false)
}

/// Builds the three libraries that bare-metal programs need. Only this step may use unstable features: with
/// `RUSTC_BOOTSTRAP` set for the project itself, dependencies would detect a nightly compiler and misbehave.
fn build_sysroot(ws: &Workspace, cargo: &Path, rustc: &Path, sysroot: &Path) -> Result<()> {
    let scratch = tempfile::Builder::new().prefix("sysroot-").tempdir_in(&ws.target)?;
    let package = scratch.path().join("empty");
    fs::create_dir_all(package.join("src"))?;
    fs::write(package.join("src/lib.rs"), "#![no_std]\n")?;
    fs::write(
        package.join("Cargo.toml"),
        "[package]\nname = \"empty\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n[profile.release]\npanic = \"abort\"\n",
    )?;
    // Bitcode for link-time optimisation, and frame pointers so that backtraces pass through `core`.
    let mut flags = vec!["-Cembed-bitcode=yes"];
    flags.extend(BARE_FLAGS);
    Tool::new(ws, cargo, "Building core and alloc for the bare machine (once, about a minute)")
        .args(["build", "--release", "--target", BARE_TARGET, "-Zbuild-std=core,alloc,compiler_builtins", "-Zbuild-std-features=compiler-builtins-mem"])
        .current_dir(&package)
        .without_env(INHERITED)
        .env("RUSTC", rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", scratch.path().join("out"))
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .run()?;
    let tree = scratch.path().join("sysroot");
    let libraries = tree.join("lib/rustlib").join(BARE_TARGET).join("lib");
    fs::create_dir_all(&libraries)?;
    let built = scratch.path().join("out").join(BARE_TARGET).join("release/deps");
    for name in ["libcore-", "liballoc-", "libcompiler_builtins-"] {
        let file = fs::read_dir(&built)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|ext| ext == "rlib") && path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name)))
            .with_context(|| format!("the build left no {name}*.rlib"))?;
        fs::copy(&file, libraries.join(file.file_name().context("library without a name")?))?;
    }
    fs::create_dir_all(sysroot.parent().context("sysroot without parent directory")?)?;
    fs::rename(&tree, sysroot)?;
    Ok(())
}
