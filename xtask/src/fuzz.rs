//! `fuzz`: the program of the package `oxen-fuzz`, which throws random and structured hypercalls at the fake machine.

use anyhow::{Context, Result, bail};

use crate::metadata::Packages;
use crate::process::Tool;
use crate::report::{Outcome, Report};
use crate::toolchain::INHERITED;
use crate::workspace::Workspace;

/// The package with the fuzzer.
const PACKAGE: &str = "oxen-fuzz";

/// Hypercalls in a test run.
const CI_CALLS: u64 = 1_000_000;

/// What `fuzz` can be told.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many hypercalls; 0 goes on until something is found or Ctrl-c
    #[arg(long, default_value_t = 0)]
    calls: u64,
    /// Start of the random sequence; printed with every finding so that it can be repeated
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs it in the foreground.
pub fn run(ws: &Workspace, options: &Options) -> Result<()> {
    let status = std::process::Command::new(build(ws)?)
        .args(["--calls", &options.calls.to_string(), "--seed", &options.seed.to_string()])
        .status()
        .context("cannot run the fuzzer")?;
    if !status.success() {
        bail!("the fuzzer found something ({status})");
    }
    Ok(())
}

/// The short run of the test ladder.
pub fn record(ws: &Workspace, report: &Report) {
    if !exists(ws) {
        report.record("fuzz", Outcome::Skipped(format!("the workspace has no package {PACKAGE}")), std::time::Duration::ZERO);
        return;
    }
    report.step("fuzz/hypercalls", || {
        let program = build(ws)?;
        Tool::new(ws, program, "Fuzzing the hypercalls").args(["--calls", &CI_CALLS.to_string(), "--seed", "1"]).time_limit(std::time::Duration::from_secs(600)).run()
    });
}

fn exists(ws: &Workspace) -> bool {
    Packages::load(ws).is_ok_and(|packages| !packages.binaries(PACKAGE).is_empty())
}

/// Builds the fuzzer optimised, with overflow checks and assertions, in its own directory.
fn build(ws: &Workspace) -> Result<std::path::PathBuf> {
    if !exists(ws) {
        bail!("the workspace has no package {PACKAGE}");
    }
    let target = ws.target.join("fuzz");
    Tool::new(ws, "cargo", "Building the fuzzer")
        .args(["build", "--release", "--package", PACKAGE])
        .without_env(INHERITED)
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true")
        .run()?;
    Ok(target.join("release").join(PACKAGE))
}
