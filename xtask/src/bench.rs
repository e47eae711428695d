//! `bench`: the same kernel and the same program on the bare machine, on Xen 4.17 and on Oxen, counted in instructions.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use regex_lite::Regex;

use crate::cases::ALWAYS_FORBIDDEN;
use crate::compile;
use crate::dom0::{self, Image};
use crate::hypervisor::{Hypervisor, Kind};
use crate::iso::{self, BootFiles, GRUB_SAYS};
use crate::qemu::{self, Machine};
use crate::setup;
use crate::ui;
use crate::workspace::Workspace;

/// Time limits of a counted and of a plain boot.
const COUNTED_LIMIT: Duration = Duration::from_secs(1800);
const PLAIN_LIMIT: Duration = Duration::from_secs(300);

/// The line with which init announces itself.
const INIT_SAYS: &str = "init: user space reached";

/// A row whose overhead over native exceeds this share of Xen's is not done.
const NOT_DONE: f64 = 0.7;

/// What `bench` can be told.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// What to measure; ratios need all three
    #[arg(long, value_enum, value_delimiter = ',', default_value = "native,xen,oxen")]
    on: Vec<System>,
    /// Leave out the wall-clock boots
    #[arg(long)]
    no_wall_clock: bool,
    /// Also write how often each block of the hypervisor ran in each row (target/logs/machine-bench-*.blocks)
    #[arg(long)]
    blocks: bool,
}

/// What runs under the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
enum System {
    /// Nothing: the bare machine.
    Native,
    /// The real Xen 4.17.
    Xen,
    /// Oxen.
    Oxen,
}

/// One operation's cost.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// Instructions per operation.
    instructions: f64,
    /// The share of them that the hypervisor executed, 0 to 1.
    hypervisor: Option<f64>,
}

impl Cost {
    /// The part that the hypervisor executed.
    fn of_hypervisor(self) -> Option<Self> {
        Some(Self { instructions: self.instructions * self.hypervisor?, ..self })
    }
}

/// All costs of one system by row, in the program's order.
#[derive(Debug, Default)]
struct Costs {
    rows: Vec<(String, Cost)>,
    wall_clock_boot: Option<Duration>,
}

impl Costs {
    fn get(&self, row: &str) -> Option<Cost> {
        self.rows.iter().find(|(name, _)| name == row).map(|(_, cost)| *cost)
    }
}

/// Measures and prints the table; also writes `target/bench.tsv`.
pub fn run(ws: &Workspace, options: &Options) -> Result<bool> {
    setup::image_tools(ws)?;
    iso::prepare(ws)?;
    let image = dom0::image_with_bench(ws)?.context("Debian's archive has no kernel")?;
    let plugin = compile::counting_plugin(ws)?;
    let mut systems = Vec::new();
    for system in &options.on {
        let hypervisor = match system {
            System::Native => None,
            System::Xen => Some(Hypervisor::prepare(ws, Kind::Xen)?),
            System::Oxen => Some(Hypervisor::prepare(ws, Kind::Oxen)?),
        };
        systems.push((*system, hypervisor));
    }
    // Counting is deterministic, so machines may share the host's processors.
    let mut results = ui::step("Counting instructions (some minutes)", || {
        std::thread::scope(|scope| {
            let threads: Vec<_> = systems
                .iter()
                .map(|(system, hypervisor)| (*system, scope.spawn(|| count(ws, *system, hypervisor.as_ref(), &image, &plugin, options.blocks))))
                .collect();
            let join = |(system, thread): (System, std::thread::ScopedJoinHandle<'_, Result<Costs>>)| {
                let costs = thread.join().map_err(|_| anyhow::anyhow!("measuring {system:?} panicked"))?;
                Ok((system, costs.with_context(|| format!("measuring {system:?}"))?))
            };
            threads.into_iter().map(join).collect::<Result<BTreeMap<System, Costs>>>()
        })
    })?;
    if !options.no_wall_clock {
        for (system, hypervisor) in &systems {
            let took = ui::step(&format!("Timing a boot on {system:?}"), || wall_clock_boot(ws, *system, hypervisor.as_ref(), &image))?;
            results.entry(*system).or_default().wall_clock_boot = Some(took);
        }
    }
    let (table, done) = table(&results);
    print!("{table}");
    fs::write(ws.target.join("bench.tsv"), tsv(&results))?;
    Ok(done)
}

/// The boot files of one system.
fn boot_files(system: System, hypervisor: Option<&Hypervisor>, image: &Image, test: &str) -> BootFiles {
    match hypervisor {
        // A hypervisor's default verbosity, as an administrator would have it.
        Some(hypervisor) => {
            let cmdline = format!("console=hvc0 loglevel=4 panic=5 oxen.test={test}");
            BootFiles::new(&hypervisor.file, "com1=115200,8n1 console=com1", &image.kernel, &cmdline, image.initrd.as_deref())
        }
        None => {
            debug_assert_eq!(system, System::Native);
            let cmdline = format!("console=ttyS0 loglevel=4 panic=5 oxen.native=1 oxen.test={test}");
            BootFiles::bare(&image.kernel, &cmdline, image.initrd.as_deref())
        }
    }
}

/// The same processor for all: the one that Xen can work with.
fn machine() -> Machine {
    Machine { cpu: "max,-smap".to_owned(), ..Machine::default() }
}

/// Boots and reads the program's lines and the plugin's counts.
fn count(ws: &Workspace, system: System, hypervisor: Option<&Hypervisor>, image: &Image, plugin: &Path, blocks: bool) -> Result<Costs> {
    let mut files = boot_files(system, hypervisor, image, "bench");
    let (text, marks) = counted_boot(ws, &format!("bench-{system:?}"), &files, plugin, blocks)?;
    if !text.contains("VERDICT: ok bench") {
        let reason = text.lines().rev().find(|line| line.contains("FAIL") || line.contains("anic")).unwrap_or("no verdict");
        bail!("{reason} (target/logs/machine-bench-{system:?}.log)");
    }
    files.only_load = true;
    let (_, loading) = counted_boot(ws, &format!("bench-{system:?}-load"), &files, plugin, false)?;
    let before = loading.iter().find(|mark| mark.name == "end").context("the instruction counter wrote no end")?;
    costs(&text, &marks, before.all)
}

/// One line of the plugin.
#[derive(Debug, PartialEq, Eq)]
struct Mark {
    name: String,
    hypervisor: u64,
    all: u64,
}

fn counted_boot(
    ws: &Workspace,
    name: &str,
    files: &BootFiles,
    plugin: &Path,
    blocks: bool,
) -> Result<(String, Vec<Mark>)> {
    let scratch = tempfile::tempdir()?;
    let iso = scratch.path().join("boot.iso");
    iso::quick(ws, files, &iso)?;
    let machine = Machine { counts_instructions: true, ..machine() };
    let mut args = machine.arguments(scratch.path())?;
    args.extend(machine.boot_iso(&iso));
    let out = scratch.path().join("counts");
    let mut words = format!("file={},out={}", plugin.display(), out.display());
    if blocks {
        words.push_str(&format!(",blocks={}", ws.logs.join(format!("machine-{name}.blocks")).display()));
    }
    args.extend(["-plugin".to_owned(), words]);
    let stop = Regex::new(&ALWAYS_FORBIDDEN.join("|"))?;
    let transcript = qemu::run(&args, &ws.logs.join(format!("machine-{name}.log")), Some(&stop), COUNTED_LIMIT)?;
    let marks = fs::read_to_string(&out).context("the instruction counter wrote nothing")?;
    Ok((transcript.text, marks.lines().filter_map(mark).collect()))
}

fn mark(line: &str) -> Option<Mark> {
    let mut words = line.split_whitespace();
    Some(Mark { name: words.next()?.to_owned(), hypervisor: words.next()?.parse().ok()?, all: words.next()?.parse().ok()? })
}

/// Joins the program's lines with the plugin's marks: `1` before and `2` after each row, `65535` when init is reached.
fn costs(text: &str, marks: &[Mark], loader: u64) -> Result<Costs> {
    let share = |hypervisor: u64, all: u64| (all > 0).then(|| ratio(hypervisor, all));
    let mut spans = marks.windows(2).filter(|pair| pair[0].name == "1" && pair[1].name == "2");
    let mut rows = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("BENCH ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, operations, ticks] = words[..] else { bail!("cannot read `BENCH {line}`") };
        let (operations, ticks): (u64, u64) = (operations.parse()?, ticks.parse()?);
        let (ticks, hypervisor) = if name == "boot-to-init" {
            let init = marks.iter().find(|mark| mark.name == "65535").context("no mark of init")?;
            let spent = init.all.saturating_sub(loader);
            (spent, share(init.hypervisor, spent))
        } else {
            let pair = spans.next().with_context(|| format!("no marks of row {name}"))?;
            (ticks, share(pair[1].hypervisor - pair[0].hypervisor, pair[1].all - pair[0].all))
        };
        rows.push((name.to_owned(), Cost { instructions: ratio(ticks, operations), hypervisor }));
    }
    Ok(Costs { rows, wall_clock_boot: None })
}

/// A quotient for printing; counts here are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b as f64
}

fn wall_clock_boot(ws: &Workspace, system: System, hypervisor: Option<&Hypervisor>, image: &Image) -> Result<Duration> {
    let iso = iso::cached(ws, &boot_files(system, hypervisor, image, "nothing"))?;
    let scratch = tempfile::tempdir()?;
    let machine = machine();
    let mut args = machine.arguments(scratch.path())?;
    args.extend(machine.boot_iso(&iso));
    let stop = Regex::new(INIT_SAYS)?;
    let transcript = qemu::run(&args, &ws.logs.join(format!("machine-boot-{system:?}.log")), Some(&stop), PLAIN_LIMIT)?;
    transcript.between(GRUB_SAYS, INIT_SAYS).with_context(|| format!("{system:?} does not reach init (target/logs/machine-boot-{system:?}.log)"))
}

/// The table, and whether no row exceeds what counts as done.
fn table(results: &BTreeMap<System, Costs>) -> (String, bool) {
    let mut out = format!(
        "{:<22}{:>12}{:>12}{:>12}{:>10}{:>10}{:>10}{:>9}{:>9}\n",
        "instructions per", "native", "Xen 4.17", "Oxen", "Xen/nat.", "Oxen/nat.", "overhead", "in Xen", "in Oxen"
    );
    let mut done = true;
    let mut rows: Vec<&str> = Vec::new();
    for (row, _) in results.values().flat_map(|costs| &costs.rows) {
        if !rows.contains(&row.as_str()) {
            rows.push(row);
        }
    }
    for row in rows {
        let cost = |system: System| results.get(&system).and_then(|costs| costs.get(row));
        let [native, xen, oxen] = [System::Native, System::Xen, System::Oxen].map(cost);
        let over = |a: Option<Cost>, b: Option<Cost>| Some(a?.instructions / b?.instructions);
        let overhead = if results.contains_key(&System::Native) { overhead(native, xen, oxen) } else { None };
        done &= overhead.is_none_or(|overhead| overhead <= NOT_DONE);
        out.push_str(&format!(
            "{row:<22}{:>12}{:>12}{:>12}{:>10}{:>10}{:>10}{:>9}{:>9}\n",
            number(native, row),
            number(xen, row),
            number(oxen, row),
            decimal(over(xen, native)),
            decimal(over(oxen, native)),
            decimal(overhead),
            number(xen.and_then(Cost::of_hypervisor), row),
            number(oxen.and_then(Cost::of_hypervisor), row)
        ));
    }
    let seconds = |system: System| results.get(&system).and_then(|costs| costs.wall_clock_boot).map_or("-".to_owned(), |time| format!("{:.1} s", time.as_secs_f32()));
    out.push_str(&format!("{:<22}{:>12}{:>12}{:>12}\n", "GRUB to init, wall", seconds(System::Native), seconds(System::Xen), seconds(System::Oxen)));
    out.push_str(
        "overhead: what Oxen adds to native over what Xen adds; the goal is 0.50, above 0.70 a row is not done. Where the bare machine has no such\n\
         operation, it is what Oxen itself executes over what Xen does. in Xen, in Oxen: the instructions that the hypervisor itself executes.\n",
    );
    (out, done)
}

/// What Oxen adds over what Xen adds. An operation that the bare machine does not have costs the same in both kernels, whose code is the same: there the
/// hypervisors' own instructions are compared.
fn overhead(native: Option<Cost>, xen: Option<Cost>, oxen: Option<Cost>) -> Option<f64> {
    let (xen, oxen) = (xen?, oxen?);
    let (native, xen, oxen) = match native {
        Some(native) => (native.instructions, xen.instructions, oxen.instructions),
        None => (0.0, xen.of_hypervisor()?.instructions, oxen.of_hypervisor()?.instructions),
    };
    (xen > native).then(|| (oxen - native) / (xen - native))
}

fn number(cost: Option<Cost>, row: &str) -> String {
    let Some(cost) = cost else { return "-".to_owned() };
    if row == "boot-to-init" { format!("{:.0} M", cost.instructions / 1e6) } else { format!("{:.0}", cost.instructions) }
}

fn decimal(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.2}"))
}

fn tsv(results: &BTreeMap<System, Costs>) -> String {
    let mut out = "system\trow\tinstructions\thypervisor_share\n".to_owned();
    for (system, costs) in results {
        for (row, cost) in &costs.rows {
            let share = cost.hypervisor.map_or(String::new(), |share| format!("{share:.4}"));
            out.push_str(&format!("{system:?}\t{row}\t{:.1}\t{share}\n", cost.instructions));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_join_their_marks() {
        let marks: Vec<Mark> = "65535 100 1000\n1 200 2000\n2 700 3000\nend 900 9000".lines().filter_map(mark).collect();
        let costs = costs("noise\nBENCH boot-to-init 1 5555\nBENCH system-call 10 1000\n", &marks, 500).unwrap();
        assert_eq!(costs.get("boot-to-init").unwrap().instructions, 500.0);
        let call = costs.get("system-call").unwrap();
        assert_eq!(call.instructions, 100.0);
        assert_eq!(call.hypervisor, Some(0.5));
    }

    #[test]
    fn overhead_compares_what_is_added() {
        let cost = |instructions| Some(Cost { instructions, hypervisor: None });
        assert_eq!(overhead(cost(100.0), cost(500.0), cost(300.0)), Some(0.5));
        assert_eq!(overhead(cost(100.0), cost(100.0), cost(100.0)), None);
        assert_eq!(overhead(None, cost(1.0), cost(1.0)), None, "without the hypervisors' shares there is nothing to compare");
        let call = |instructions| Some(Cost { instructions, hypervisor: Some(0.5) });
        assert_eq!(overhead(None, call(100.0), call(40.0)), Some(0.4));
    }
}
