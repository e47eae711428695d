//! Random hypercalls against the hypervisor's logic on a fake machine.
//!
//! An episode is a fresh machine with three domains, some thousand calls of theirs, and their end ([`episode`]). After every few calls all frames are
//! recounted ([`check`]); a panic, a wrong count, a processor that waits for ever and a frame that does not come back are findings.
//! Episodes run in child processes, since fake machines are never freed.
//!
//! ```text
//! oxen-fuzz --calls 1000000 --seed 1      so many calls
//! oxen-fuzz --episode 17 --shorten        looks for the fewest calls that still show what episode 17 finds
//! oxen-fuzz --episode 17 --only 3,99      plays these calls and prints them
//! ```
#![forbid(unsafe_code)]
#![allow(missing_docs)]

mod calls;
mod check;
mod episode;
mod traps;
mod values;
mod world;

use anyhow::{Context, Result, bail};
use clap::Parser;
use episode::{PROGRESS, Plan};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Episodes that one child process plays.
const EPISODES_PER_CHILD: u64 = 20;
/// Seconds in which a single call ends.
const CALL_SECONDS: u64 = 20;
/// Distance between the episodes of one seed and those of the next.
const EPISODES_PER_SEED: u64 = 1 << 32;

/// Random hypercalls against the hypervisor's logic on a fake machine.
#[derive(Debug, Parser)]
struct Options {
    /// How many hypercalls; 0 goes on until something is found
    #[arg(long, default_value_t = 1_000_000)]
    calls: u64,
    /// Start of the random sequence
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Plays one episode only
    #[arg(long)]
    episode: Option<u64>,
    /// Only these calls of the episode, which are printed
    #[arg(long, value_delimiter = ',')]
    only: Option<Vec<u64>>,
    /// Prints the calls of the episode
    #[arg(long)]
    show: bool,
    /// Looks for the fewest calls that show the same
    #[arg(long)]
    shorten: bool,
    /// Plays so many episodes from the given one on, in this process
    #[arg(long, hide = true)]
    count: Option<u64>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match options {
        Options { episode: Some(first), count: Some(count), .. } => child(first, count),
        Options { episode: Some(episode), .. } => one(episode, &options),
        _ => all(options.calls, options.seed),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Plays in child processes, two at a time.
fn all(calls: u64, seed: u64) -> Result<()> {
    let program = std::env::current_exe().context("this program's own path")?;
    let mut first = seed.wrapping_mul(EPISODES_PER_SEED);
    let mut made = 0;
    while calls == 0 || made < calls {
        let missing = if calls == 0 { u64::MAX } else { (calls - made).div_ceil(episode::CALLS) };
        let mut children = Vec::new();
        for _ in 0..2 {
            let count = EPISODES_PER_CHILD.min(missing.div_ceil(2));
            let child = Command::new(&program)
                .args(["--episode", &first.to_string(), "--count", &count.to_string()])
                .stdout(Stdio::piped())
                .spawn()
                .context("cannot start a child")?;
            children.push((child, first, count));
            first = first.wrapping_add(count);
        }
        for (child, first, count) in children {
            let output = child.wait_with_output().context("a child process")?;
            let text = String::from_utf8_lossy(&output.stdout);
            if !output.status.success() {
                bail!("seed {seed}: {}\nepisodes {first} to {}; repeat with --episode N --shorten ({})", text.trim(), first + count - 1, output.status);
            }
            made += text.trim().parse::<u64>().with_context(|| format!("a child says {text:?}"))?;
        }
        if calls == 0 {
            println!("{made} calls, nothing found");
        }
    }
    println!("{made} calls with seed {seed}: nothing found");
    Ok(())
}

fn child(first: u64, count: u64) -> Result<()> {
    episode::catch_messages();
    watch();
    println!("{}", episode::play_many(first, count)?);
    Ok(())
}

fn one(number: u64, options: &Options) -> Result<()> {
    episode::catch_messages();
    watch();
    let only = options.only.as_ref().map(|calls| calls.iter().copied().collect());
    let plan = Plan { episode: number, every: only.is_some() || options.shorten, verbose: options.show || only.is_some(), only };
    let Err(finding) = episode::play(&plan) else {
        println!("episode {number}: nothing found");
        return Ok(());
    };
    println!("episode {number}, call {}: {}", finding.call, finding.what);
    if options.shorten {
        let calls: Vec<String> = episode::shorten(&finding, number).iter().map(u64::to_string).collect();
        println!("{} calls are enough: --episode {number} --only {}", calls.len(), calls.join(","));
    }
    bail!("found something");
}

/// Ends the program where a call does not end.
fn watch() {
    std::thread::spawn(|| {
        let mut last = u64::MAX;
        let mut same = 0;
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = PROGRESS.load(Relaxed);
            same = if now == last { same + 1 } else { 0 };
            last = now;
            if same > CALL_SECONDS {
                println!("a call does not end: the {now}th of this process");
                std::process::exit(2);
            }
        }
    });
}
