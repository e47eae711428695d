//! The unit and property tests of every crate that compiles for the host, the ABI comparison among them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::compile::static_cargo;
use crate::metadata::Packages;
use crate::process::Tool;
use crate::report::{Outcome, Report};
use crate::setup;
use crate::toolchain::INHERITED;
use crate::ui;
use crate::workspace::Workspace;

/// Packages that only make sense on the bare machine.
const BARE_ONLY: &[&str] = &["oxen-image", "oxen-guests"];

/// Runs them all, or those whose name contains `only`.
pub fn run(ws: &Workspace, report: &Report, only: Option<&str>) -> Result<()> {
    setup::compile_tools(ws)?;
    if let Err(error) = setup::host_test_tools(ws) {
        ui::note(&format!("the tests that use Debian's xenstore tools are skipped: {error}"));
    }
    let tools = ws.root.join("dom0-tools");
    let packages = Packages::load(ws)?;
    let (dom0, rest): (Vec<_>, Vec<_>) = packages
        .iter()
        .filter(|package| !BARE_ONLY.contains(&package.name.as_str()) && only.is_none_or(|only| package.name.contains(only)))
        .partition(|package| package.dir.starts_with(&tools));
    for (title, build, packages) in [("Host tests", Build::Development, rest), ("Host tests of the dom0 programs", Build::Dom0, dom0)] {
        let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
        if !names.is_empty() {
            run_group(ws, report, title, build, &names)?;
        }
    }
    Ok(())
}

/// How a group of tests is compiled.
#[derive(Debug, Clone, Copy)]
enum Build {
    /// Plain `cargo test`.
    Development,
    /// As the programs of the dom0 image are: their large dependencies are then compiled once for both.
    Dom0,
}

fn run_group(ws: &Workspace, report: &Report, title: &str, build: Build, packages: &[&str]) -> Result<()> {
    let output = ui::step(&format!("Building and running: {title}"), || cargo_test(ws, title, build, packages))?;
    if !output.results.is_empty() || output.passed {
        record(report, &output);
        return Ok(());
    }
    // One crate that does not compile must not hide the results of the others.
    for package in packages {
        let output = cargo_test(ws, &format!("Host tests of {package}"), build, &[package])?;
        if output.results.is_empty() && !output.passed {
            report.record(&format!("host/{package}"), Outcome::Failed(format!("does not compile: {}", output.first_error)), Duration::ZERO);
        }
        record(report, &output);
    }
    Ok(())
}

struct Output {
    /// Test names with their crate, and whether each passed; `None` for ignored ones.
    results: Vec<(String, Option<bool>)>,
    passed: bool,
    first_error: String,
}

fn record(report: &Report, output: &Output) {
    for (name, passed) in &output.results {
        let outcome = match passed {
            Some(true) => Outcome::Passed,
            Some(false) => Outcome::Failed("see target/logs/host-tests*.log".to_owned()),
            None => Outcome::Skipped("ignored by its author".to_owned()),
        };
        report.record(&format!("host/{name}"), outcome, Duration::ZERO);
    }
    if !output.passed && output.results.iter().all(|(_, passed)| *passed != Some(false)) && !output.results.is_empty() {
        report.record("host", Outcome::Failed(format!("cargo test failed: {}", output.first_error)), Duration::ZERO);
    }
}

fn cargo_test(ws: &Workspace, title: &str, build: Build, packages: &[&str]) -> Result<Output> {
    let verb = ["test", "--no-fail-fast"];
    let cargo = match build {
        Build::Development => Tool::new(ws, "cargo", title).args(verb).without_env(INHERITED),
        Build::Dom0 => static_cargo(ws, title, &verb),
    };
    let packages = packages.iter().flat_map(|package| ["--package", package]);
    let (status, text) = cargo.args(packages).time_limit(Duration::from_secs(2400)).finish()?;
    if text.is_empty() {
        bail!("cargo test printed nothing ({status})");
    }
    let first_error = text.lines().find(|line| line.starts_with("error")).unwrap_or("no error line").to_owned();
    Ok(Output { results: parse(&text), passed: status.success(), first_error })
}

/// Reads the lines of the standard test harness: `test name ... ok`.
fn parse(text: &str) -> Vec<(String, Option<bool>)> {
    let mut results = Vec::new();
    let mut unit = String::new();
    for line in text.lines() {
        if let Some(name) = running_crate(line) {
            unit = name;
        } else if let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ")) {
            let passed = match result.split([' ', ',', '<']).next().unwrap_or_default() {
                "ok" => Some(true),
                "ignored" => None,
                _ => Some(false),
            };
            // `should panic` is a remark of the harness, not part of the name.
            results.push((format!("{unit}/{}", name.trim_end_matches(" - should panic")), passed));
        }
    }
    results
}

/// The crate that a harness line announces.
fn running_crate(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(format!("{name}-doc"));
    }
    let path = line.strip_prefix("Running ")?.rsplit_once('(')?.1.trim_end_matches(')');
    let file = Path::new(path).file_name()?.to_str()?;
    Some(file.rsplit_once('-').map_or(file, |(name, _)| name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harness_lines_become_results() {
        let text = "     Running unittests src/lib.rs (target/debug/deps/oxen_mm-0a1b)\n\nrunning 3 tests\ntest buddy::splits ... ok\n\
                    test typing::model - should panic ... ok\ntest slow ... ignored, takes long\n   Doc-tests oxen_mm\ntest src/lib.rs - a (line 3) ... FAILED\n";
        let results = parse(text);
        let expected = [
            ("oxen_mm/buddy::splits", Some(true)),
            ("oxen_mm/typing::model", Some(true)),
            ("oxen_mm/slow", None),
            ("oxen_mm-doc/src/lib.rs - a (line 3)", Some(false)),
        ];
        assert_eq!(results, expected.map(|(name, passed)| (name.to_owned(), passed)));
    }
}
