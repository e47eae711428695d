//! Runs the machine tests of [`crate::cases`]: at most as many machines at a time as the host has processors for.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use regex_lite::Regex;

use crate::bad_kernels;
use crate::cases::{self, ALWAYS_FORBIDDEN, BadCase, Boots, Dom0Case, GuestCase};
use crate::disk;
use crate::dom0::{self, Flavour, Image};
use crate::domu;
use crate::hypervisor::{Hypervisor, Kind};
use crate::iso::{self, BootFiles};
use crate::process::{Tool, find};
use crate::qemu::{self, End, Machine, Transcript};
use crate::report::{Outcome, Report};
use crate::workspace::{Key, Workspace};

/// Raise when the way guests are booted changes, so that remembered results of the real Xen are made again.
const RECIPE: u32 = 2;

/// A machine test ready to run.
pub struct Job<'a> {
    /// Its name in the report.
    pub name: String,
    /// Emulated processors; machines with more than one keep both host processors busy.
    pub cpus: u32,
    /// Does it.
    pub work: Box<dyn FnOnce() -> Outcome + Send + 'a>,
}

/// Runs jobs in order, as many at once as fit: machines count with their processors, up to `width`.
pub fn run_jobs(report: &Report, jobs: Vec<Job<'_>>, width: u32) {
    let free = Mutex::new(width);
    let changed = Condvar::new();
    let (free, changed) = (&free, &changed);
    std::thread::scope(|scope| {
        for job in jobs {
            let weight = job.cpus.clamp(1, width);
            let mut left = free.lock().unwrap_or_else(PoisonError::into_inner);
            while *left < weight {
                left = changed.wait(left).unwrap_or_else(PoisonError::into_inner);
            }
            *left -= weight;
            drop(left);
            scope.spawn(move || {
                let started = Instant::now();
                let outcome = (job.work)();
                report.record(&job.name, outcome, started.elapsed());
                *free.lock().unwrap_or_else(PoisonError::into_inner) += weight;
                changed.notify_all();
            });
        }
    });
}

/// Turns a result into an outcome.
fn outcome(result: Result<()>) -> Outcome {
    match result {
        Ok(()) => Outcome::Passed,
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

/// Boots `files` on `machine` and returns what came out.
fn boot(ws: &Workspace, name: &str, files: &BootFiles, machine: &Machine, stop: &[&str], limit: Duration) -> Result<Transcript> {
    let scratch = tempfile::tempdir()?;
    let iso = scratch.path().join("boot.iso");
    iso::quick(ws, files, &iso)?;
    let mut args = machine.arguments(scratch.path())?;
    args.extend(machine.boot_iso(&iso));
    let stop = (!stop.is_empty()).then(|| Regex::new(&stop.join("|"))).transpose()?;
    qemu::run(&args, &log_path(ws, name), stop.as_ref(), limit)
}

fn log_path(ws: &Workspace, name: &str) -> PathBuf {
    ws.logs.join(format!("machine-{}.log", name.replace('/', "-")))
}

/// The first line that matches a pattern.
fn find_line<'t>(text: &'t str, pattern: &str) -> Option<&'t str> {
    let regex = Regex::new(pattern).ok()?;
    text.lines().find(|line| regex.is_match(line))
}

/// Fails on console text that no test may show.
fn check_forbidden(ws: &Workspace, name: &str, transcript: &Transcript) -> Result<()> {
    for pattern in ALWAYS_FORBIDDEN {
        if let Some(line) = find_line(&transcript.text, pattern) {
            bail!("{} ({})", line.trim(), log_path(ws, name).display());
        }
    }
    Ok(())
}

/// The dom0 images that the tests boot; `None` for those that the configured archive cannot supply.
pub type Images = BTreeMap<Boots, Option<Image>>;

/// Assembles every image that the wanted dom0 tests need, before machines keep the processors busy.
pub fn prepare_images(ws: &Workspace, wanted: impl Fn(&str) -> bool, kind: Kind) -> Result<Images> {
    let mut images = Images::new();
    for case in cases::dom0().into_iter().filter(|case| case.on.contains(&kind) && wanted(&dom0_name(kind, case))) {
        if let Entry::Vacant(entry) = images.entry(case.boots) {
            entry.insert(dom0_image(ws, case.boots)?);
        }
    }
    Ok(images)
}

fn dom0_image(ws: &Workspace, boots: Boots) -> Result<Option<Image>> {
    match boots {
        Boots::Distributed(flavour) => dom0::image(ws, flavour),
        Boots::DebianTools => dom0::image_with_xl(ws),
        Boots::Guest => dom0::image_with_guest(ws),
        Boots::PvGrub => dom0::image_with_pvgrub(ws),
        Boots::SmallGuest => dom0::image_with_small_guest(ws),
        Boots::Elf => match dom0::image(ws, Flavour::Stock)? {
            Some(image) => Ok(Some(Image { kernel: bad_kernels::inner_elf(ws, &image.kernel)?, ..image })),
            None => Ok(None),
        },
    }
}

fn dom0_name(kind: Kind, case: &Dom0Case) -> String {
    format!("dom0/{kind}/{}", case.name)
}

/// The jobs for dom0 on one hypervisor, those whose images were prepared.
pub fn dom0_jobs<'a>(ws: &'a Workspace, hypervisor: &'a Hypervisor, images: &'a Images) -> Vec<Job<'a>> {
    let kind = hypervisor.kind;
    let cases = cases::dom0().into_iter().filter(move |case| case.on.contains(&kind));
    cases
        .filter_map(|case| {
            let image = images.get(&case.boots)?;
            let name = dom0_name(hypervisor.kind, &case);
            // Processors that take turns need one of ours.
            let cpus = if qemu::takes_turns() { 1 } else { case.cpus };
            let work = {
                let name = name.clone();
                move || match image {
                    Some(image) => outcome(dom0_boot(ws, hypervisor, &name, &case, image)),
                    None => Outcome::Skipped("the configured Debian archive does not have it".to_owned()),
                }
            };
            Some(Job { name, cpus, work: Box::new(work) })
        })
        .collect()
}

fn dom0_boot(ws: &Workspace, hypervisor: &Hypervisor, name: &str, case: &Dom0Case, image: &Image) -> Result<()> {
    let scratch = tempfile::tempdir_in(&ws.target)?;
    let mut disks = Vec::new();
    if let Some(size_mib) = case.disks_mib() {
        for disk_name in ["ahci.img", "virtio.img"] {
            let path = scratch.path().join(disk_name);
            disk::ext4(ws, &path, size_mib)?;
            disks.push(path);
        }
    }
    let mut attached = disks.clone();
    if case.tests.contains(&"bootloader") {
        let path = scratch.path().join("guest.img");
        domu::bootable_disk(ws, &path)?;
        attached.push(path);
    }
    let files = BootFiles::new(&hypervisor.file, &hypervisor.options(case.options), &image.kernel, &case.kernel_cmdline(), image.initrd.as_deref());
    let machine = case.machine(hypervisor.cpu_model(), &attached);
    let limit = Duration::from_secs(case.seconds);
    let transcript = boot(ws, name, &files, &machine, ALWAYS_FORBIDDEN, limit)?;
    check_forbidden(ws, name, &transcript)?;
    for test in case.tests.iter().chain(&["klog"]) {
        if find_line(&transcript.text, &format!("VERDICT: ok {test}$")).is_none() {
            bail!("{}: no passing verdict of `{test}` within {} s ({})", ended(&transcript), transcript.took.as_secs(), log_path(ws, name).display());
        }
    }
    if transcript.end != End::PoweredOff {
        bail!("dom0 did not power the machine off: {} ({})", ended(&transcript), log_path(ws, name).display());
    }
    for path in &disks {
        disk::check(ws, path)?;
    }
    match disks.first() {
        Some(first) if case.dumps_core() => check_core(ws, first, scratch.path()),
        _ => Ok(()),
    }
}

/// Has `readelf` read the core file of a guest that a test left on a disk.
fn check_core(ws: &Workspace, disk: &Path, scratch: &Path) -> Result<()> {
    let core = scratch.join("core");
    disk::extract(ws, disk, "/core", &core)?;
    let program = find("readelf").context("readelf is missing (Debian package binutils)")?;
    let (status, output) = Tool::new(ws, program, "readelf core").args(["-W".as_ref(), "-h".as_ref(), "-S".as_ref(), "-n".as_ref(), core.as_os_str()]).finish()?;
    if !status.success() || output.contains("readelf: ") {
        bail!("readelf does not understand the core file: {}", output.lines().filter(|line| line.contains("readelf: ")).collect::<Vec<_>>().join("; "));
    }
    for wanted in ["CORE (Core file)", ".xen_prstatus", ".xen_pages", ".xen_p2m"] {
        if !output.contains(wanted) {
            bail!("readelf shows no `{wanted}` in the core file");
        }
    }
    Ok(())
}

/// How the run ended, with the last line of text: often all that is needed to know where it stopped.
fn ended(transcript: &Transcript) -> String {
    let how = match transcript.end {
        End::PoweredOff => "the machine ended",
        End::Text => "stopped",
        End::TimedOut => "time is up",
        End::EmulatorFailed => "the emulator failed",
    };
    let last = transcript.text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("(no output)");
    format!("{how} after `{}`", last.trim())
}

/// The jobs for bad input.
pub fn bad_jobs<'a>(ws: &'a Workspace, hypervisor: &'a Hypervisor) -> Vec<Job<'a>> {
    cases::bad()
        .into_iter()
        .map(|case| {
            let name = format!("bad/{}", case.name);
            Job { name: name.clone(), cpus: 1, work: Box::new(move || outcome(bad_test(ws, hypervisor, &name, &case))) }
        })
        .collect()
}

fn bad_test(ws: &Workspace, hypervisor: &Hypervisor, name: &str, case: &BadCase) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let stock = dom0::kernel(ws, Flavour::Stock)?.context("Debian's archive has no kernel")?.bzimage;
    let mut files = BootFiles::new(&hypervisor.file, &hypervisor.options(case.options), &stock, "console=hvc0", None);
    match bad_kernels::make(ws, case.wrong, &stock, scratch.path())? {
        Some(kernel) => files.modules[0].0 = kernel,
        None => files.modules.clear(),
    }
    let machine = Machine {
        board: case.board,
        memory_mib: case.memory_mib,
        cpu: hypervisor.cpu_model().to_owned(),
        extra: case.extra.iter().map(|word| (*word).to_owned()).collect(),
        ..Machine::default()
    };
    let transcript = boot(ws, name, &files, &machine, &[case.expect], Duration::from_secs(case.seconds))?;
    if find_line(&transcript.text, case.expect).is_none() {
        bail!("no line matches `{}`; {} ({})", case.expect, ended(&transcript), log_path(ws, name).display());
    }
    if let Some(line) = find_line(&transcript.text, ALWAYS_FORBIDDEN[2]) {
        bail!("reported as a hypervisor bug: {} ({})", line.trim(), log_path(ws, name).display());
    }
    Ok(())
}

/// The jobs for test guests on Oxen, each compared with the real Xen when `oracle` is given.
pub fn guest_jobs<'a>(ws: &'a Workspace, guests: &'a [(String, PathBuf)], oxen: Option<&'a Hypervisor>, oracle: Option<&'a Hypervisor>) -> Vec<Job<'a>> {
    let mut jobs = Vec::new();
    for (program, file) in guests {
        let case = cases::guest(program);
        if let Some(xen) = oracle.filter(|_| case.on.contains(&Kind::Xen) && oxen.is_none()) {
            let name = format!("guest/xen/{program}");
            let case = case.clone();
            jobs.push(Job { name: name.clone(), cpus: case.cpus, work: Box::new(move || outcome(guest_boot(ws, xen, &name, &case, file).map(drop))) });
        }
        if let Some(oxen) = oxen.filter(|_| case.on.contains(&Kind::Oxen)) {
            let oracle = oracle.filter(|_| case.on.contains(&Kind::Xen));
            let name = format!("guest/{program}");
            jobs.push(Job { name: name.clone(), cpus: case.cpus, work: Box::new(move || outcome(guest_test(ws, oxen, oracle, &name, &case, file))) });
        }
    }
    jobs
}

/// Boots a guest on Oxen and compares what it observed with what it observes on Xen.
fn guest_test(ws: &Workspace, oxen: &Hypervisor, oracle: Option<&Hypervisor>, name: &str, case: &GuestCase, file: &Path) -> Result<()> {
    let ours = guest_boot(ws, oxen, name, case, file)?;
    let Some(xen) = oracle else { return Ok(()) };
    let theirs = remembered_guest_boot(ws, xen, &format!("{name}-on-xen"), case, file).context("the same guest fails on Xen")?;
    let difference = ours.lines().zip(theirs.lines()).find(|(ours, theirs)| ours != theirs);
    if let Some((ours, theirs)) = difference {
        bail!("Oxen says `{ours}`, Xen says `{theirs}` ({})", log_path(ws, name).display());
    }
    if ours.lines().count() != theirs.lines().count() {
        bail!("{} observations on Oxen, {} on Xen ({})", ours.lines().count(), theirs.lines().count(), log_path(ws, name).display());
    }
    Ok(())
}

/// Boots a guest; returns its observations and verdict, one line each.
fn guest_boot(ws: &Workspace, hypervisor: &Hypervisor, name: &str, case: &GuestCase, file: &Path) -> Result<String> {
    let files = BootFiles::new(&hypervisor.file, &hypervisor.options(case.options), file, "", None);
    let machine = Machine { memory_mib: cases::GUEST_MACHINE_MIB, cpus: case.cpus, cpu: hypervisor.cpu_model().to_owned(), ..Machine::default() };
    let mut stop = ALWAYS_FORBIDDEN.to_vec();
    match case.dies {
        // The hypervisor restarts the machine after the guest's death, which ends the emulator.
        Some(_) => stop = vec!["VERDICT: FAIL"],
        None => stop.push("VERDICT: ok"),
    }
    let transcript = boot(ws, name, &files, &machine, &stop, Duration::from_secs(case.seconds))?;
    match case.dies {
        Some(death) => {
            for text in [death, "VERDICT: ok"] {
                find_line(&transcript.text, text).with_context(|| format!("no line matches `{text}`; {} ({})", ended(&transcript), log_path(ws, name).display()))?;
            }
            if transcript.end != End::PoweredOff {
                bail!("the machine was not restarted: {} ({})", ended(&transcript), log_path(ws, name).display());
            }
        }
        None => {
            check_forbidden(ws, name, &transcript)?;
            if find_line(&transcript.text, "VERDICT: ok").is_none() {
                bail!("no verdict; {} ({})", ended(&transcript), log_path(ws, name).display());
            }
        }
    }
    Ok(observations(&transcript.text))
}

/// The lines on which hypervisors must agree.
fn observations(text: &str) -> String {
    text.lines().filter_map(|line| line.find("VALUE ").or_else(|| line.find("VERDICT: ")).map(|at| line[at..].trim_end().to_owned() + "\n")).collect()
}

/// Like [`guest_boot`] on Xen, which does not change: a passing result is remembered for as long as the guest is the same.
fn remembered_guest_boot(ws: &Workspace, xen: &Hypervisor, name: &str, case: &GuestCase, file: &Path) -> Result<String> {
    let key = Key::new("verdict", RECIPE).file(&xen.file)?.file(file)?.value(case.cpus).value(case.options).finish();
    let memo = ws.cache.join("verdicts").join(key);
    if let Ok(text) = fs::read_to_string(&memo) {
        return Ok(text);
    }
    let text = guest_boot(ws, xen, name, case, file)?;
    crate::workspace::write_if_changed(&memo, text.as_bytes())?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_drop_what_surrounds_them() {
        assert_eq!(observations("(XEN) VALUE a = 1\nnoise\nVERDICT: ok x \n"), "VALUE a = 1\nVERDICT: ok x\n");
    }

    #[test]
    fn jobs_all_run_whatever_their_width() {
        let report = Report::default();
        let count = std::sync::atomic::AtomicU32::new(0);
        let jobs = (1..=6)
            .map(|cpus| Job {
                name: format!("job {cpus}"),
                cpus,
                work: Box::new(|| {
                    count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    Outcome::Passed
                }),
            })
            .collect();
        run_jobs(&report, jobs, 2);
        assert_eq!(count.into_inner(), 6);
    }
}
