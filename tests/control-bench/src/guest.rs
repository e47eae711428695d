//! Asking the Linux guests to do something: their image answers a line on port 7000 with its output and `status N`.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use oxen_xenctl::Xen;

use crate::peer;
use crate::usage::Cpu;

const PROGRAM: &str = "oxen-control-bench";
/// dom0's address on the bridge.
const DOM0: &str = "192.168.77.1";
/// Where [`peer::sink`] listens.
const SINK_PORT: u16 = 7100;
/// Moved by each row about throughput, once after a tenth of it for practice.
const NET_MIB: usize = 48;
const DISK_MIB: usize = 24;
const EVENTS: u32 = 2000;

/// A running Linux guest.
#[derive(Debug)]
pub struct Guest {
    /// Its address on the bridge.
    pub address: String,
    /// Its number.
    pub domid: u16,
}

/// A row's value by its name.
pub type Row = (String, f64, &'static str);

impl Guest {
    /// Has it carry out a line for the shell; returns what that printed.
    fn ask(&self, line: &str) -> Result<String> {
        let mut stream = peer::connect(&format!("{}:7000", self.address))?;
        stream.set_read_timeout(Some(Duration::from_secs(600)))?;
        stream.write_all(format!("{line}\n").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        match text.trim_end().strip_suffix("status 0") {
            Some(output) => Ok(output.to_owned()),
            None => bail!("`{line}` in guest {}: {}", self.domid, text.trim()),
        }
    }

    /// The micro-benchmarks of `oxen-bench` inside the guest, in ticks of the time stamp counter.
    pub fn micro(&self) -> Result<Vec<Row>> {
        let text = self.ask("oxen-bench")?;
        let mut rows = Vec::new();
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("BENCH ") else { continue };
            let [name, operations, ticks] = rest.split_whitespace().collect::<Vec<_>>()[..] else { bail!("cannot read `{line}`") };
            if name != "boot-to-init" {
                rows.push((format!("domu-{name}"), ticks.parse::<f64>()? / operations.parse::<f64>()?, "ticks"));
            }
        }
        if rows.is_empty() {
            bail!("oxen-bench in the guest printed nothing: {text}");
        }
        Ok(rows)
    }

    /// An event to another guest and back.
    pub fn event_round_trip(&self, other: &Self) -> Result<Row> {
        let text = other.ask(&format!("{PROGRAM} events-listen {} >/run/port 2>&1 & while [ ! -s /run/port ]; do sleep 0.05; done; cat /run/port", self.domid))?;
        let port: u32 = text.trim().parse().with_context(|| format!("guest {} says `{}` instead of a port", other.domid, text.trim()))?;
        let ns = self.ask(&format!("{PROGRAM} events-call {} {port} {EVENTS}", other.domid))?;
        Ok(("event-round-trip".to_owned(), number(&ns)?, "ns"))
    }

    fn start_sink(&self) -> Result<()> {
        self.ask(&format!("{PROGRAM} sink {SINK_PORT} >/dev/null 2>&1 </dev/null &")).map(drop)
    }

    fn sink_address(&self) -> String {
        format!("{}:{SINK_PORT}", self.address)
    }

    /// TCP to the guest, from it, and from it to another, each with the processor time of all domains.
    pub fn network(&self, other: &Self, xen: &Xen) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let to_guest = |mib: usize| -> Result<f64> {
            self.start_sink()?;
            Ok(peer::source(&self.sink_address(), mib)?.as_secs_f64() * 1e6)
        };
        let from_guest = |mib: usize| -> Result<f64> {
            let listener = TcpListener::bind(("0.0.0.0", SINK_PORT))?;
            let thread = std::thread::spawn(move || peer::sink_on(&listener));
            let ns = self.ask(&format!("{PROGRAM} source {DOM0}:{SINK_PORT} {mib}"))?;
            thread.join().map_err(|_| anyhow::anyhow!("the receiving end panicked"))??;
            Ok(number(&ns)? / 1e3)
        };
        let between = |mib: usize| -> Result<f64> {
            other.start_sink()?;
            Ok(number(&self.ask(&format!("{PROGRAM} source {} {mib}", other.sink_address()))?)? / 1e3)
        };
        let ways: [(&str, &dyn Fn(usize) -> Result<f64>); 3] = [("vif-to-guest", &to_guest), ("vif-from-guest", &from_guest), ("vif-between-guests", &between)];
        for (name, way) in ways {
            way(NET_MIB / 10)?;
            let before = Cpu::now(xen)?;
            let us = way(NET_MIB)?;
            let (_, cpu) = before.until(&Cpu::now(xen)?);
            rows.extend(both(name, us, cpu, NET_MIB));
        }
        Ok(rows)
    }

    /// Writing and reading the guest's disk.
    pub fn disk(&self, xen: &Xen) -> Result<Vec<Row>> {
        self.ask("umount /mnt/xvda")?;
        let run = |mib: usize| self.ask(&format!("{PROGRAM} disk /dev/xvda {mib}"));
        run(DISK_MIB / 10)?;
        let before = Cpu::now(xen)?;
        let text = run(DISK_MIB)?;
        let (_, cpu) = before.until(&Cpu::now(xen)?);
        let Some((write, read)) = text.trim().split_once(' ') else { bail!("`{text}` is not two times") };
        let per_mib = |ns: &str| -> Result<f64> { Ok(number(ns)? / 1e3 / mib_count(DISK_MIB)) };
        Ok(vec![
            ("vbd-write".to_owned(), per_mib(write)?, "us/MiB"),
            ("vbd-read".to_owned(), per_mib(read)?, "us/MiB"),
            ("vbd-cpu".to_owned(), cpu.as_secs_f64() * 1e6 / mib_count(2 * DISK_MIB), "us/MiB"),
        ])
    }
}

/// A row for the time of a transfer and one for the processor time.
fn both(name: &str, us: f64, cpu: Duration, mib: usize) -> [Row; 2] {
    [(name.to_owned(), us / mib_count(mib), "us/MiB"), (format!("{name}-cpu"), cpu.as_secs_f64() * 1e6 / mib_count(mib), "us/MiB")]
}

/// A small count as a divisor.
fn mib_count(mib: usize) -> f64 {
    f64::from(u32::try_from(mib).unwrap_or(u32::MAX))
}

fn number(text: &str) -> Result<f64> {
    text.trim().parse().with_context(|| format!("`{}` is not a number", text.trim()))
}
