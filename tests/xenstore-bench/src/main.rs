//! Loads xenstore daemons with many connections, one daemon after the other in short turns, and prints their throughput side by side.
//!
//! `cargo run --release -p oxen-xenstore-bench -- --ours PATH [--c PATH] [--ocaml PATH] [--preload SHIM]`; the shim
//! (`oxen-xenstore-shim`) lets the others run without a hypervisor.
#![forbid(unsafe_code)]

mod daemon;
mod load;

use anyhow::{Context, Result};
use clap::Parser;
use daemon::Daemon;
use load::{Client, Load};
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Debug, Parser)]
struct Arguments {
    /// Our daemon
    #[arg(long)]
    ours: PathBuf,
    /// Xen's daemon in C
    #[arg(long)]
    c: Option<PathBuf>,
    /// Xen's daemon in OCaml
    #[arg(long)]
    ocaml: Option<PathBuf>,
    /// A library to preload into the others
    #[arg(long)]
    preload: Option<PathBuf>,
    /// Connections
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Length of a turn
    #[arg(long, default_value_t = 150, value_name = "MILLISECONDS")]
    turn: u64,
    /// Turns of each daemon for each load; the best counts
    #[arg(long, default_value_t = 7)]
    turns: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut daemons = vec![Daemon::start("ours", &arguments.ours, &["-N", "-D"], None)?];
    if let Some(path) = &arguments.c {
        daemons.push(Daemon::start("C", path, &["-N"], arguments.preload.as_deref())?);
    }
    if let Some(path) = &arguments.ocaml {
        daemons.push(Daemon::start("OCaml", path, &["--no-fork", "--no-domain-init"], arguments.preload.as_deref())?);
    }
    let mut clients = Vec::new();
    for daemon in &daemons {
        let mut connected = Vec::new();
        for number in 0..arguments.connections {
            connected.push(Client::connect(&daemon.socket(), number).with_context(|| format!("{}: connection {number}", daemon.name))?);
        }
        load::prepare(&mut connected).with_context(|| daemon.name.to_owned())?;
        clients.push(connected);
    }
    println!("{} connections; thousands of operations per second, and how many times the others' we do", arguments.connections);
    let names: String = daemons.iter().map(|daemon| format!("{:>10}", daemon.name)).collect();
    println!("{:<14}{names}", "");
    let mut behind = false;
    for load in Load::ALL {
        let mut best = vec![0.0f64; daemons.len()];
        for _ in 0..arguments.turns {
            for (at, connected) in clients.iter_mut().enumerate() {
                let start = Instant::now();
                let done = load.run(connected, Duration::from_millis(arguments.turn)).with_context(|| format!("{} under {load:?}", daemons[at].name))?;
                best[at] = best[at].max(done as f64 / start.elapsed().as_secs_f64() / 1000.0);
            }
        }
        let values: String = best.iter().map(|value| format!("{value:>10.1}")).collect();
        let ratios: String = best[1..].iter().map(|value| format!("  {:.2}x", best[0] / value)).collect();
        behind |= best[1..].iter().any(|value| best[0] < *value);
        println!("{:<14}{values}{ratios}", load.name());
    }
    let memory: Vec<u64> = daemons.iter().map(Daemon::memory_kib).collect::<Result<_>>()?;
    let values: String = memory.iter().map(|value| format!("{value:>10}")).collect();
    let ratios: String = memory[1..].iter().map(|value| format!("  {:.2}x", memory[0] as f64 / *value as f64)).collect();
    println!("{:<14}{values}{ratios}", "memory, KiB");
    if behind {
        println!("behind on at least one load");
    }
    Ok(())
}
