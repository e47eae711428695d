//! `test`: the whole ladder, from host tests to stock Linux.

use std::time::Duration;

use anyhow::Result;

use crate::compile;
use crate::deb_test;
use crate::fuzz;
use crate::host_tests;
use crate::hypervisor::{Hypervisor, Kind};
use crate::iso;
use crate::machine_tests::{self, Job};
use crate::report::{Outcome, Report};
use crate::setup;
use crate::tidy;
use crate::workspace::Workspace;

/// One rung of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Rung {
    /// Unit and property tests, and the ABI against Xen's C headers.
    Host,
    /// Checks of the sources.
    Tidy,
    /// A million random hypercalls on the fake machine.
    Fuzz,
    /// Test guests on Oxen, compared with the real Xen.
    Guests,
    /// Input that must be answered by one clear line.
    Bad,
    /// Stock Linux as dom0.
    Dom0,
    /// The Debian packages on a freshly installed disk. Takes long and needs root, so it runs only when asked for.
    Deb,
}

/// What `test` can be told.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only these rungs
    #[arg(long, value_enum, value_delimiter = ',')]
    rung: Vec<Rung>,
    /// Only tests whose name contains this text; for host tests, crates
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Boot guests and dom0 on this hypervisor; with xen, the oracle proves the images and the tests themselves
    #[arg(long, value_enum, default_value = "oxen")]
    hypervisor: Kind,
    /// Do not compare test guests with the real Xen
    #[arg(long)]
    no_oracle: bool,
    /// How many emulated processors may be busy at once
    #[arg(long, default_value_t = 2)]
    jobs: u32,
    /// Print the names of the machine tests and stop
    #[arg(long)]
    list: bool,
}

impl Options {
    fn wants(&self, rung: Rung) -> bool {
        self.rung.is_empty() || self.rung.contains(&rung)
    }

    fn wants_name(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }
}

/// Climbs the ladder; says whether everything passed.
pub fn run(ws: &Workspace, options: &Options) -> Result<bool> {
    let report = Report::default();
    let oxen_rungs = options.hypervisor == Kind::Oxen;
    if oxen_rungs && !options.list {
        if options.wants(Rung::Tidy) && options.only.is_none() {
            tidy::record(ws, &report)?;
        }
        if options.wants(Rung::Host) {
            host_tests::run(ws, &report, options.only.as_deref())?;
        }
        if options.wants(Rung::Fuzz) && options.only.is_none() {
            fuzz::record(ws, &report);
        }
    }
    if [Rung::Guests, Rung::Bad, Rung::Dom0].iter().any(|rung| options.wants(*rung)) {
        machines(ws, options, &report)?;
    }
    if options.rung.contains(&Rung::Deb) && !options.list {
        report.step("deb", || deb_test::run(ws));
    }
    Ok(options.list || report.finish())
}

/// The rungs that boot machines.
fn machines(ws: &Workspace, options: &Options, report: &Report) -> Result<()> {
    setup::image_tools(ws)?;
    let Some(main) = report.step(&format!("build/{}", options.hypervisor), || Hypervisor::prepare(ws, options.hypervisor)) else { return Ok(()) };
    let wants_oracle = options.hypervisor == Kind::Xen || (options.wants(Rung::Guests) && !options.no_oracle);
    let xen = wants_oracle.then(|| Hypervisor::prepare(ws, Kind::Xen)).transpose();
    let xen = match xen {
        Ok(xen) => xen,
        Err(error) => {
            report.record("oracle", Outcome::Skipped(format!("the real Xen cannot be fetched: {error:#}")), Duration::ZERO);
            None
        }
    };
    let guests = if options.wants(Rung::Guests) { report.step("build/guests", || compile::guests(ws)).unwrap_or_default() } else { Vec::new() };
    iso::prepare(ws)?;
    let wanted = |name: &str| options.wants(Rung::Dom0) && options.wants_name(name);
    let images = report.step("build/dom0-images", || machine_tests::prepare_images(ws, wanted, options.hypervisor)).unwrap_or_default();
    let oxen = (options.hypervisor == Kind::Oxen).then_some(&main);
    let mut jobs: Vec<Job<'_>> = Vec::new();
    if options.wants(Rung::Guests) {
        jobs.extend(machine_tests::guest_jobs(ws, &guests, oxen, xen.as_ref()));
    }
    if let Some(oxen) = oxen.filter(|_| options.wants(Rung::Bad)) {
        jobs.extend(machine_tests::bad_jobs(ws, oxen));
    }
    if options.wants(Rung::Dom0) {
        jobs.extend(machine_tests::dom0_jobs(ws, &main, &images));
    }
    jobs.retain(|job| options.wants_name(&job.name));
    if options.list {
        for job in &jobs {
            println!("{}", job.name);
        }
        return Ok(());
    }
    machine_tests::run_jobs(report, jobs, options.jobs.max(1));
    Ok(())
}
