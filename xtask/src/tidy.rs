//! `tidy`: rules about the sources that the compiler does not check.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::metadata::Packages;
use crate::report::{Outcome, Report};
use crate::ui;
use crate::workspace::Workspace;

/// A file longer than this is pointed out, and longer than the second refused.
const LONG_LINES: usize = 600;
const TOO_LONG_LINES: usize = 1000;

/// How far above an unsafe block its SAFETY comment may start.
const SAFETY_REACH: usize = 12;

/// The rooms of the hypervisor's house and what each may import; Cargo would allow more.
const IMPORTS: &[(&str, &[&str])] = &[
    ("oxen-abi", &[]),
    ("oxen-types", &["oxen-abi"]),
    ("oxen-sync", &["oxen-types", "oxen-abi"]),
    ("oxen-hal", &["oxen-types", "oxen-sync", "oxen-abi"]),
    ("oxen-mm", &["oxen-abi", "oxen-types", "oxen-sync", "oxen-hal"]),
    ("oxen-emul", &["oxen-abi", "oxen-types", "oxen-hal"]),
    ("oxen-core", &["oxen-abi", "oxen-types", "oxen-sync", "oxen-hal", "oxen-mm", "oxen-emul"]),
    ("oxen-machine", &["oxen-abi", "oxen-types", "oxen-sync", "oxen-hal"]),
    ("oxen-testkit", &["oxen-abi", "oxen-types", "oxen-sync", "oxen-hal"]),
    ("oxen-kernel-image", &["oxen-abi", "oxen-types"]),
    ("oxen-builder", &["oxen-abi", "oxen-types", "oxen-kernel-image"]),
    ("oxen-options", &[]),
];

/// Crates of pure logic: they must forbid unsafe code, which no inner attribute can allow again.
const SAFE_CRATES: &[&str] = &[
    "oxen-abi",
    "oxen-bootloader",
    "oxen-builder",
    "oxen-config-evaluator",
    "oxen-config-file",
    "oxen-core",
    "oxen-core-dump",
    "oxen-emul",
    "oxen-guest-config",
    "oxen-hal",
    "oxen-kernel-image",
    "oxen-metrics",
    "oxen-mm",
    "oxen-options",
    "oxen-types",
    "oxen-xend-api",
    "oxen-xenddomains",
    "oxen-xenstore",
    "oxen-xenstored",
    "oxen-xm",
    "xtask",
];

/// Directories whose code runs on behalf of guests or reads what they supply: nothing there may panic on purpose.
const NO_PANIC_DIRS: &[&str] = &["dom0-tools/bootloader/src", "dom0-tools/config-evaluator/src", "dom0-tools/config-file/src", "dom0-tools/guest-config/src", "dom0-tools/xenstore/src", "dom0-tools/xenstored/src", "hypervisor/core/src", "hypervisor/mm/src", "hypervisor/emul/src", "boot/kernel-image/src", "boot/builder/src", "boot/options/src"];

/// What counts as panicking on purpose.
const PANICS: &[&str] = &[".unwrap()", ".expect(", "panic!(", "unreachable!(", "todo!(", "unimplemented!("];

/// One broken rule at one place.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    place: String,
    what: String,
}

/// Checks everything and prints what is found; says whether nothing was.
pub fn run(ws: &Workspace) -> Result<bool> {
    let report = Report::default();
    record(ws, &report)?;
    Ok(report.finish())
}

/// Checks everything, one test per rule.
pub fn record(ws: &Workspace, report: &Report) -> Result<()> {
    let packages = Packages::load(ws)?;
    let sources = sources(ws)?;
    let rules: [(&str, Vec<Finding>); 6] = [
        ("safety-comments", sources.iter().flat_map(safety_comments).collect()),
        ("imports", imports(&packages)),
        ("forbid-unsafe", forbid_unsafe(&packages)),
        ("file-size", sources.iter().filter_map(file_size).collect()),
        ("no-panic", sources.iter().flat_map(no_panic).collect()),
        ("no-leftovers", sources.iter().flat_map(leftovers).collect()),
    ];
    for (name, findings) in rules {
        let name = format!("tidy/{name}");
        if findings.is_empty() {
            report.record(&name, Outcome::Passed, Duration::ZERO);
            continue;
        }
        let list: Vec<String> = findings.iter().map(|finding| format!("{}: {}", finding.place, finding.what)).collect();
        report.record(&name, Outcome::Failed(format!("{} findings\n  {}", findings.len(), list.join("\n  "))), Duration::ZERO);
    }
    for source in sources.iter().filter(|source| (LONG_LINES + 1..=TOO_LONG_LINES).contains(&source.lines.len())) {
        ui::note(&format!("{} has {} lines; split it before it reaches {TOO_LONG_LINES}", source.path, source.lines.len()));
    }
    Ok(())
}

/// A Rust source file.
struct Source {
    /// Relative to the checkout.
    path: String,
    lines: Vec<String>,
    /// The first line of the module of tests, or the number of lines.
    tests_from: usize,
}

impl Source {
    fn new(path: String, text: &str) -> Self {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let is_test_module = |at: usize| lines[at].trim() == "#[cfg(test)]" && lines[at + 1..].iter().take(2).any(|line| line.trim_start().starts_with("mod ") && line.ends_with('{'));
        let tests_from = if path.ends_with("tests.rs") || path.contains("/tests/") { 0 } else { (0..lines.len()).find(|at| is_test_module(*at)).unwrap_or(lines.len()) };
        Self { path, lines, tests_from }
    }

    fn finding(&self, line: usize, what: impl Into<String>) -> Finding {
        Finding { place: format!("{}:{}", self.path, line + 1), what: what.into() }
    }
}

/// The code of a line: without a trailing comment and without string contents.
fn code(line: &str) -> String {
    let mut out = String::new();
    let mut in_string = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_string => {
                chars.next();
            }
            '"' => in_string = !in_string,
            '/' if !in_string && chars.peek() == Some(&'/') => break,
            c if !in_string => out.push(c),
            _ => {}
        }
    }
    out
}

fn sources(ws: &Workspace) -> Result<Vec<Source>> {
    let mut files: Vec<PathBuf> = Vec::new();
    let mut pending: Vec<PathBuf> = ["abi", "boot", "dom0-tools", "guests", "hypervisor", "tests", "xtask"].iter().map(|dir| ws.root.join(dir)).collect();
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?.flatten() {
            let path = entry.path();
            if path.is_dir() && entry.file_name() != "target" {
                pending.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files.iter().map(|path| Ok(Source::new(relative(ws, path), &fs::read_to_string(path)?))).collect()
}

fn relative(ws: &Workspace, path: &Path) -> String {
    path.strip_prefix(&ws.root).unwrap_or(path).to_string_lossy().into_owned()
}

/// Every unsafe block and implementation says why it is sound; every unsafe function says what its caller owes.
fn safety_comments(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in source.lines.iter().enumerate() {
        let code = code(line);
        let Some(position) = code.match_indices("unsafe").find(|(position, _)| is_word(&code, *position)).map(|(position, _)| position) else { continue };
        let rest = code[position + "unsafe".len()..].trim_start();
        // `#[unsafe(no_mangle)]` is an attribute, `unsafe fn(...)` without a name a type.
        if rest.starts_with('(') || rest.starts_with("fn(") || rest.starts_with("_op_in") || rest.starts_with("_code") {
            continue;
        }
        let wanted: &[&str] = if rest.starts_with("fn") || rest.starts_with("trait") || rest.starts_with("extern") { &["# Safety", "SAFETY:"] } else { &["SAFETY:"] };
        let from = at.saturating_sub(SAFETY_REACH);
        if !source.lines[from..=at].iter().any(|line| wanted.iter().any(|text| line.contains(text))) {
            findings.push(source.finding(at, "unsafe without a SAFETY comment"));
        }
    }
    findings
}

/// Whether the text at a position is a word of its own.
fn is_word(code: &str, position: usize) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !code[..position].ends_with(part) && !code[position + "unsafe".len()..].starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn imports(packages: &Packages) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages.iter() {
        let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == package.name) else { continue };
        for import in package.imports.iter().filter(|import| !allowed.contains(&import.as_str())) {
            findings.push(Finding { place: package.name.clone(), what: format!("imports {import}, which its room may not") });
        }
    }
    findings
}

fn forbid_unsafe(packages: &Packages) -> Vec<Finding> {
    let missing = |dir: &Path| !["src/lib.rs", "src/main.rs"].iter().any(|file| fs::read_to_string(dir.join(file)).is_ok_and(|text| text.contains("#![forbid(unsafe_code)]")));
    packages
        .iter()
        .filter(|package| SAFE_CRATES.contains(&package.name.as_str()) && missing(&package.dir))
        .map(|package| Finding { place: package.name.clone(), what: "lacks #![forbid(unsafe_code)]".to_owned() })
        .collect()
}

fn file_size(source: &Source) -> Option<Finding> {
    (source.lines.len() > TOO_LONG_LINES).then(|| Finding { place: source.path.clone(), what: format!("{} lines", source.lines.len()) })
}

fn no_panic(source: &Source) -> Vec<Finding> {
    // Modules of these names exist under test only.
    let test_module = ["/testing.rs", "/tests.rs"].iter().any(|end| source.path.ends_with(end)) || source.path.contains("/tests/");
    if test_module || !NO_PANIC_DIRS.iter().any(|dir| source.path.starts_with(dir)) {
        return Vec::new();
    }
    let lines = source.lines[..source.tests_from].iter().enumerate();
    lines
        .filter(|(_, line)| !line.contains("const _: () = assert!"))
        .filter_map(|(at, line)| {
            let code = code(line);
            PANICS.iter().find(|text| code.contains(**text)).map(|text| source.finding(at, format!("`{text}` where guests can be the cause")))
        })
        .collect()
}

fn leftovers(source: &Source) -> Vec<Finding> {
    // Spelled in two parts so that this file does not find itself.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
    let lines = source.lines.iter().enumerate();
    lines.filter_map(|(at, line)| words.iter().find(|word| line.contains(**word)).map(|word| source.finding(at, format!("leftover {word}")))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source::new(path.to_owned(), text)
    }

    #[test]
    fn every_unsafe_needs_its_reason() {
        assert_eq!(safety_comments(&source("a.rs", concat!("let x = un", "safe { f() };"))).len(), 1);
        assert_eq!(safety_comments(&source("a.rs", "// SAFETY: f is fine.\nlet x = unsafe { f() };")).len(), 0);
        assert_eq!(safety_comments(&source("a.rs", concat!("#[un", "safe(no_mangle)]\n// un", "safe in words\nlet s = \"un", "safe { }\";"))).len(), 0);
        assert_eq!(safety_comments(&source("a.rs", "#![forbid(unsafe_code)]")).len(), 0);
        assert_eq!(safety_comments(&source("a.rs", concat!("/// # Safety\n/// The caller owns x.\nun", "safe fn f() {}"))).len(), 0);
    }

    #[test]
    fn panics_are_found_outside_tests_only() {
        let text = "fn f() { g().unwrap(); }\n#[cfg(test)]\nmod tests {\n g().unwrap();\n}";
        assert_eq!(no_panic(&source("hypervisor/mm/src/a.rs", text)).len(), 1);
        assert_eq!(no_panic(&source("xtask/src/a.rs", text)).len(), 0);
        assert_eq!(no_panic(&source("hypervisor/mm/src/a.rs", "// x.unwrap() is forbidden")).len(), 0);
    }
}
