//! What domains have used, as the hypervisor counts it.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use oxen_xenctl::Xen;

/// Processor time of every domain at one moment.
#[derive(Debug)]
pub struct Cpu {
    at: Instant,
    /// Nanoseconds by domain.
    used: BTreeMap<u16, u64>,
}

impl Cpu {
    /// Now.
    pub fn now(xen: &Xen) -> Result<Self> {
        let used = xen.domains()?.into_iter().map(|info| (info.domain, info.cpu_time)).collect();
        Ok(Self { at: Instant::now(), used })
    }

    /// Time that passed, and processor time that the domains which existed at both moments used meanwhile.
    pub fn until(&self, later: &Self) -> (Duration, Duration) {
        let spent = later.used.iter().filter_map(|(domid, used)| Some(used.saturating_sub(*self.used.get(domid)?))).sum();
        (later.at - self.at, Duration::from_nanos(spent))
    }
}

/// Memory at one moment, in KiB.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// The hypervisor's free memory.
    pub free_kib: u64,
    /// What the domains have.
    pub domains_kib: u64,
    /// What dom0's kernel could give to programs.
    pub dom0_available_kib: u64,
}

impl Memory {
    /// Now.
    pub fn now(xen: &Xen) -> Result<Self> {
        let pages: u64 = xen.domains()?.iter().map(|info| info.tot_pages).sum();
        let info = xen.physinfo()?;
        let text = fs::read_to_string("/proc/meminfo")?;
        let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).and_then(|rest| rest.split_whitespace().next());
        let dom0_available_kib = available.and_then(|word| word.parse().ok()).context("/proc/meminfo has no MemAvailable")?;
        Ok(Self { free_kib: (info.free_pages + info.scrub_pages) * 4, domains_kib: pages * 4, dom0_available_kib })
    }
}
