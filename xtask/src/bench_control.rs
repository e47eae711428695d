//! `bench-control`: the same guests, created by `xl` on Xen 4.17 and by `xm` on Oxen, in machines whose clock counts instructions.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use regex_lite::Regex;

use crate::cases::ALWAYS_FORBIDDEN;
use crate::dom0::{self, Image};
use crate::hypervisor::{Hypervisor, Kind};
use crate::iso::{self, BootFiles};
use crate::qemu::{self, Machine};
use crate::setup;
use crate::ui;
use crate::workspace::Workspace;

const LIMIT: Duration = Duration::from_secs(3600);
const MEMORY_MIB: u32 = 2560;
/// Enough for dom0's own files, the guests' disks and 100 copies of Xen's `xl`, which stay with their guests.
const DOM0_MEMORY: &str = "dom0_mem=1024M,max:1024M";

/// Goals, as Oxen's share of what Xen takes: creating and destroying, and everything else.
const GOAL_OF_LIFE: f64 = 0.2;
const GOAL: f64 = 1.0;

/// Where the table is kept for readers of the sources.
const RESULTS: &str = "tests/bench-guest/RESULTS-control.md";

/// What `bench-control` can be told.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// What to measure; what is left out is taken from the last run
    #[arg(long, value_enum, value_delimiter = ',', default_value = "xen,oxen")]
    on: Vec<Kind>,
    /// The parts to measure, instead of all; the rows of the others are taken from the last run
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART")]
    part: Vec<Part>,
    /// Also write the table to tests/bench-guest/RESULTS-control.md
    #[arg(long)]
    write: bool,
}

/// What can be measured by itself; the names are those of `oxen-control-bench`.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Part {
    /// One guest that only sleeps
    Minimal,
    /// A hundred of them
    Many,
    /// A Linux guest
    Linux,
    /// Two Linux guests with disks and network cards
    Devices,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Many => "many",
            Self::Linux => "linux",
            Self::Devices => "devices",
        }
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    name: String,
    value: f64,
    unit: String,
}

/// Measures and prints the table.
pub fn run(ws: &Workspace, options: &Options) -> Result<bool> {
    setup::image_tools(ws)?;
    iso::prepare(ws)?;
    let image = dom0::image_with_control_bench(ws)?.context("Debian's archive has no kernel")?;
    for kind in &options.on {
        let hypervisor = Hypervisor::prepare(ws, *kind)?;
        ui::step(&format!("Measuring {} on {kind} (some minutes)", tools(*kind)), || measure(ws, &hypervisor, &image, &options.part))?;
    }
    let [xen, oxen] = [Kind::Xen, Kind::Oxen].map(|kind| last_rows(ws, kind));
    let (xen, oxen) = (xen?, oxen?);
    let table = table(&xen, &oxen);
    print!("{table}");
    if options.write {
        fs::write(ws.root.join(RESULTS), page(&table))?;
    }
    Ok(true)
}

/// The command that belongs to a hypervisor.
fn tools(kind: Kind) -> &'static str {
    match kind {
        Kind::Xen => "xl",
        Kind::Oxen => "xm",
    }
}

fn log_name(kind: Kind) -> String {
    format!("machine-bench-control-{kind}.log")
}

/// Boots the image and lets it measure; what it printed stays in the log.
fn measure(ws: &Workspace, hypervisor: &Hypervisor, image: &Image, parts: &[Part]) -> Result<()> {
    let names: Vec<&str> = parts.iter().map(|part| part.name()).collect();
    // A hypervisor's default verbosity, as an administrator would have it.
    let cmdline = format!("console=hvc0 loglevel=4 panic=5 oxen.test=bench-control oxen.tools={} oxen.parts={}", tools(hypervisor.kind), names.join(","));
    let options = format!("com1=115200,8n1 console=com1 {DOM0_MEMORY}");
    let files = BootFiles::new(&hypervisor.file, &options, &image.kernel, &cmdline, image.initrd.as_deref());
    let scratch = tempfile::tempdir()?;
    let iso = scratch.path().join("boot.iso");
    iso::quick(ws, &files, &iso)?;
    // The same processor for both: the one that Xen can work with.
    let machine = Machine { cpu: "max,-smap".to_owned(), memory_mib: MEMORY_MIB, counts_instructions: true, ..Machine::default() };
    let mut args = machine.arguments(scratch.path())?;
    args.extend(machine.boot_iso(&iso));
    let stop = Regex::new(&ALWAYS_FORBIDDEN.join("|"))?;
    let log = ws.logs.join(log_name(hypervisor.kind));
    let transcript = qemu::run(&args, &log, Some(&stop), LIMIT)?;
    let measured: Vec<Row> = transcript.text.lines().filter_map(row).collect();
    let old = if parts.is_empty() { Vec::new() } else { last_rows(ws, hypervisor.kind).unwrap_or_default() };
    let rows = merged(old, measured);
    fs::write(tsv(ws, hypervisor.kind), rows.iter().map(|row| format!("{}\t{}\t{}\n", row.name, row.value, row.unit)).collect::<String>())?;
    if !transcript.text.contains("VERDICT: ok bench-control") {
        let reason = transcript.text.lines().rev().find(|line| line.contains("FAIL") || line.contains("anic")).unwrap_or("no verdict");
        bail!("{reason} ({})", log.display());
    }
    Ok(())
}

fn tsv(ws: &Workspace, kind: Kind) -> std::path::PathBuf {
    ws.target.join(format!("bench-control-{kind}.tsv"))
}

/// What the last run on a hypervisor measured.
fn last_rows(ws: &Workspace, kind: Kind) -> Result<Vec<Row>> {
    let path = tsv(ws, kind);
    let text = fs::read_to_string(&path).with_context(|| format!("{kind} was never measured ({} is missing)", path.display()))?;
    Ok(text.lines().filter_map(|line| row(&format!("CONTROL {line}"))).collect())
}

/// The old rows with the new values in their places, then the rows that are new.
fn merged(mut rows: Vec<Row>, new: Vec<Row>) -> Vec<Row> {
    for row in new {
        match rows.iter_mut().find(|old| old.name == row.name) {
            Some(old) => *old = row,
            None => rows.push(row),
        }
    }
    rows
}

/// Reads one line of the program in dom0.
fn row(line: &str) -> Option<Row> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["CONTROL", name, value, unit] = words[..] else { return None };
    Some(Row { name: name.to_owned(), value: value.parse().ok()?, unit: unit.to_owned() })
}

/// The goal of a row.
fn goal(name: &str) -> f64 {
    if name.starts_with("create-") || name.starts_with("destroy-") { GOAL_OF_LIFE } else { GOAL }
}

fn table(xen: &[Row], oxen: &[Row]) -> String {
    let mut out = format!("{:<30}{:>14}{:>14}{:>9}{:>7}\n", "", "xl, Xen 4.17", "xm, Oxen", "ratio", "goal");
    let mut missed = 0;
    for theirs in xen {
        let name = &theirs.name;
        let Some(ours) = oxen.iter().find(|row| row.name == *name) else {
            out.push_str(&format!("{name:<30}{:>14}{:>14}\n", value(theirs), "-"));
            continue;
        };
        let goal = goal(name);
        let (ratio, misses) = match ratio(ours.value, theirs.value) {
            Some(ratio) => (format!("{ratio:.2}"), ratio > goal),
            None => ("-".to_owned(), false),
        };
        missed += u32::from(misses);
        out.push_str(&format!("{name:<30}{:>14}{:>14}{ratio:>9}{:>7}{}\n", value(theirs), value(ours), format!("{goal:.1}"), if misses { " *" } else { "" }));
    }
    for ours in oxen.iter().filter(|ours| xen.iter().all(|theirs| theirs.name != ours.name)) {
        out.push_str(&format!("{:<30}{:>14}{:>14}\n", ours.name, "-", value(ours)));
    }
    out.push_str(&format!("ratio: Oxen's value over Xen's, less is better in every row; * {missed} rows miss their goal.\n"));
    out
}

/// Nothing to compare with where the other value is zero.
fn ratio(ours: f64, theirs: f64) -> Option<f64> {
    (theirs > 0.0).then(|| ours / theirs)
}

fn value(row: &Row) -> String {
    let digits = if row.value < 1.0 {
        3
    } else if row.value < 100.0 {
        1
    } else {
        0
    };
    format!("{:.digits$} {}", row.value, row.unit)
}

/// The page for readers of the sources.
fn page(table: &str) -> String {
    format!(
        "# What the control stacks cost

`cargo xtask bench-control --write` boots one dom0 image (Debian 12's kernel 6.1, one processor, 1 GiB) on Xen 4.17, where Debian's `xl`, `xenstored` and
`xenconsoled` run, and on Oxen, where `xm` and our daemons run, and gives both the same words and the same configuration files. QEMU 7.2 with
`-icount shift=0,sleep=off`: an executed instruction is a nanosecond, so that times repeat and do not depend on the host. They say nothing about what single
instructions cost on a real processor, nor about disks and networks: image files are in dom0's memory.

```
{table}```

- *minimal*: a test kernel in 8 MiB that sleeps in pieces of 100 ms (`guests/src/bin/idle.rs`); *linux*: Debian's kernel with a small initramfs in 160 MiB and with
  `tsc_mode = \"native\"` (by default Xen would emulate readings of the time stamp counter in this machine, about 1260 instructions in each of the guest's system calls);
  *devices*: with a disk (a file behind a loop device) and a card on a bridge, which `xl` sets up with Xen's own scripts.
- *minimal* and *list* are medians of three, the first time not counted; *first* is a Linux guest whose kernel nobody has unpacked yet.
- *first-line*, *init*: from the start of the command to the kernel's first line and to the guest's init, as the console's log shows them.
- *domu-*: the rows of `cargo xtask bench`, inside a guest. *vif*, *vbd*: time for each MiB by TCP and on the disk; *cpu*: processor time of all domains for it.
- *idle*: processor time of all domains while nothing is asked for.
- *memory*: what the hypervisor's free memory shrinks beyond the guests' own, and what dom0's available memory shrinks, for each of 100 minimal guests
  (a copy of `xl` stays with each).

`--part minimal,many,linux,devices` names the parts to measure; the rows of the others are then those of the last run.
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_parts_replace_those_of_the_last_run() {
        let rows = |text: &str| text.lines().filter_map(row).collect::<Vec<_>>();
        let old = rows("CONTROL list-1 10 ms\nCONTROL create-linux 100 ms");
        let new = rows("CONTROL create-linux 90 ms\nCONTROL vbd-read 1 us");
        assert_eq!(merged(old, new), rows("CONTROL list-1 10 ms\nCONTROL create-linux 90 ms\nCONTROL vbd-read 1 us"));
    }

    #[test]
    fn rows_are_joined_by_name() {
        let rows = |text: &str| text.lines().filter_map(row).collect::<Vec<_>>();
        let xen = rows("noise\nCONTROL create-linux 100 ms\nCONTROL idle-100-guests 0.000 %\nCONTROL list-1 10 ms\nCONTROL only-there 1 ms");
        let oxen = rows("CONTROL list-1 12 ms\nCONTROL create-linux 15 ms\nCONTROL idle-100-guests 1 %");
        let table = table(&xen, &oxen);
        let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert!(line("create-linux").ends_with("0.15    0.2"), "{table}");
        assert!(line("list-1").ends_with("1.20    1.0 *"), "{table}");
        assert!(line("idle-100-guests").contains(" - "), "{table}");
        assert!(line("only-there").ends_with('-'), "{table}");
        assert!(table.contains("* 1 rows miss"), "{table}");
    }
}
