//! The numbers.

use crate::model::State;
use crate::text;
use oxen_abi::domctl::GetDomainInfo;
use oxen_metrics::{Domain, Snapshot};
use serde::Serialize;
use std::cmp::Ordering;
use std::fmt::Write;
use std::time::Instant;

/// A moment.
pub struct Look {
    /// The domains, by id.
    pub rows: Vec<Row>,
    /// All of the host's memory, in KiB.
    pub memory_kib: u64,
    /// Free memory, in KiB.
    pub free_kib: u64,
    /// Processors.
    pub cpus: u32,
    at: Instant,
    /// Processor time of each domain, in nanoseconds.
    cpu_time_ns: Vec<(u16, u64)>,
}

/// A domain.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: u16,
    /// Its state as letters.
    pub state: String,
    /// Processor time, in seconds.
    pub cpu_time_s: f64,
    /// Processor time since the last look, in percent of one pCPU; `None` at the first look.
    pub cpu_percent: Option<f64>,
    /// Memory, in KiB.
    pub memory_kib: u64,
    /// Memory, in percent of the host's.
    pub memory_percent: f64,
    /// The most memory that it may have, in KiB; `None` without limit.
    pub max_memory_kib: Option<u64>,
    /// vCPUs that are online.
    pub vcpus: usize,
    /// Network cards.
    pub networks: usize,
    /// What the guest has sent, in KiB.
    pub sent_kib: u64,
    /// What the guest has received, in KiB.
    pub received_kib: u64,
    /// Disks.
    pub disks: usize,
    /// Requests to read.
    pub reads: u64,
    /// Requests to write.
    pub writes: u64,
    /// What was read from disks, in KiB.
    pub read_kib: u64,
    /// What was written to disks, in KiB.
    pub written_kib: u64,
}

impl Look {
    /// The look that `snapshot`, taken at `at`, gives, compared with `before`.
    pub fn new(snapshot: Snapshot, at: Instant, before: Option<&Self>) -> Self {
        let memory = snapshot.host.as_ref().map_or(0, |host| host.memory);
        let cpu_time_ns = snapshot
            .domains
            .iter()
            .map(|domain| (domain.domid, domain.cpu_time_ns))
            .collect();
        let rows = snapshot
            .domains
            .iter()
            .map(|domain| {
                let share = before.and_then(|before| before.share(domain, at));
                Row::new(domain, &snapshot, memory, share)
            })
            .collect();
        Self {
            rows,
            memory_kib: memory >> 10,
            free_kib: snapshot.host.as_ref().map_or(0, |host| host.free >> 10),
            cpus: snapshot.host.as_ref().map_or(0, |host| host.cpus),
            at,
            cpu_time_ns,
        }
    }

    /// The processor time of `domain` between this look and `now`, in percent of one pCPU; `None` for a domain that is new.
    fn share(&self, domain: &Domain, now: Instant) -> Option<f64> {
        let (_, before) = self
            .cpu_time_ns
            .iter()
            .find(|(domid, _)| *domid == domain.domid)?;
        let elapsed = now.saturating_duration_since(self.at).as_nanos();
        // An id that was given to another domain meanwhile has less time than before.
        let used = domain.cpu_time_ns.checked_sub(*before)?;
        (elapsed > 0).then(|| used as f64 * 100.0 / elapsed as f64)
    }
}

impl Row {
    fn new(
        domain: &Domain,
        snapshot: &Snapshot,
        host_memory: u64,
        cpu_percent: Option<f64>,
    ) -> Self {
        let disks = || {
            snapshot
                .disks
                .iter()
                .filter(|disk| disk.domid == domain.domid)
        };
        let cards = || {
            snapshot
                .interfaces
                .iter()
                .filter(|card| card.domid == domain.domid)
        };
        let info = GetDomainInfo {
            flags: domain.flags,
            ..GetDomainInfo::default()
        };
        Self {
            name: domain.name.clone(),
            id: domain.domid,
            state: text::state(&State::new(&info)),
            cpu_time_s: domain.cpu_time_ns as f64 / 1e9,
            cpu_percent,
            memory_kib: domain.memory >> 10,
            memory_percent: percent(domain.memory, host_memory),
            max_memory_kib: domain.max_memory.map(|most| most >> 10),
            vcpus: domain.vcpus.iter().filter(|vcpu| vcpu.online).count(),
            networks: cards().count(),
            sent_kib: cards().map(|card| card.sent_bytes).sum::<u64>() >> 10,
            received_kib: cards().map(|card| card.received_bytes).sum::<u64>() >> 10,
            disks: disks().count(),
            reads: disks().map(|disk| disk.reads).sum(),
            writes: disks().map(|disk| disk.writes).sum(),
            read_kib: disks().map(|disk| disk.read_bytes).sum::<u64>() >> 10,
            written_kib: disks().map(|disk| disk.written_bytes).sum::<u64>() >> 10,
        }
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 * 100.0 / whole as f64
    }
}

/// What rows are ordered by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    /// The id.
    #[default]
    Id,
    /// Processor time since the last look, the most first.
    Cpu,
    /// Memory, the most first.
    Memory,
    /// The name.
    Name,
}

impl Order {
    /// Puts `rows` in order.
    pub fn sort(self, rows: &mut [Row]) {
        rows.sort_by(|a, b| {
            let by = match self {
                Self::Id => Ordering::Equal,
                Self::Cpu => b
                    .cpu_percent
                    .unwrap_or(0.0)
                    .total_cmp(&a.cpu_percent.unwrap_or(0.0)),
                Self::Memory => b.memory_kib.cmp(&a.memory_kib),
                Self::Name => a.name.cmp(&b.name),
            };
            by.then(a.id.cmp(&b.id))
        });
    }
}

/// The columns' heads, as in xentop, with the least width of each.
pub const COLUMNS: &[(&str, usize)] = &[
    ("NAME", 10),
    ("STATE", 6),
    ("CPU(sec)", 10),
    ("CPU(%)", 6),
    ("MEM(k)", 10),
    ("MEM(%)", 6),
    ("MAXMEM(k)", 10),
    ("VCPUS", 5),
    ("NETS", 4),
    ("NETTX(k)", 8),
    ("NETRX(k)", 8),
    ("VBDS", 4),
    ("VBD_RD", 8),
    ("VBD_WR", 8),
    ("VBD_RD(k)", 9),
    ("VBD_WR(k)", 9),
];

/// The cells of a row, in the order of [`COLUMNS`].
pub fn cells(row: &Row) -> Vec<String> {
    vec![
        row.name.clone(),
        row.state.clone(),
        format!("{:.0}", row.cpu_time_s),
        format!("{:.1}", row.cpu_percent.unwrap_or(0.0)),
        row.memory_kib.to_string(),
        format!("{:.1}", row.memory_percent),
        row.max_memory_kib
            .map_or_else(|| "no limit".to_owned(), |most| most.to_string()),
        row.vcpus.to_string(),
        row.networks.to_string(),
        row.sent_kib.to_string(),
        row.received_kib.to_string(),
        row.disks.to_string(),
        row.reads.to_string(),
        row.writes.to_string(),
        row.read_kib.to_string(),
        row.written_kib.to_string(),
    ]
}

/// The widths of the columns that `rows` need.
pub fn widths(rows: &[Row]) -> Vec<usize> {
    let mut widths: Vec<usize> = COLUMNS
        .iter()
        .map(|(head, least)| head.len().max(*least))
        .collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(cells(row)) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}

/// A table as text.
pub fn text(rows: &[Row]) -> String {
    let widths = widths(rows);
    let heads = COLUMNS.iter().map(|(head, _)| (*head).to_owned()).collect();
    let mut out = String::new();
    for line in std::iter::once(heads).chain(rows.iter().map(cells)) {
        let line: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:>width$}"))
            .collect();
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}", line.join(" "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use oxen_metrics::Host;
    use std::time::Duration;

    fn snapshot(cpu_time_ns: u64) -> Snapshot {
        let domain = |domid, name: &str, memory, cpu_time_ns| Domain {
            domid,
            name: name.to_owned(),
            memory,
            cpu_time_ns,
            ..Domain::default()
        };
        Snapshot {
            host: Some(Host {
                cpus: 2,
                memory: 1 << 30,
                free: 1 << 29,
                ..Host::default()
            }),
            domains: vec![
                domain(0, "Domain-0", 1 << 29, 5_000_000_000),
                domain(3, "web", 1 << 26, cpu_time_ns),
            ],
            ..Snapshot::default()
        }
    }

    #[test]
    fn shares_are_of_the_time_between_two_looks() {
        let start = Instant::now();
        let first = Look::new(snapshot(1_000_000_000), start, None);
        assert_eq!(first.rows[1].cpu_percent, None);
        let second = Look::new(
            snapshot(2_500_000_000),
            start + Duration::from_secs(2),
            Some(&first),
        );
        assert_eq!(second.rows[1].cpu_percent, Some(75.0));
        assert_eq!(second.rows[0].cpu_percent, Some(0.0));
        // Another domain with the same id.
        let third = Look::new(snapshot(0), start + Duration::from_secs(3), Some(&second));
        assert_eq!(third.rows[1].cpu_percent, None);
    }

    #[test]
    fn the_table_has_xentop_s_columns() {
        let look = Look::new(snapshot(1_500_000_000), Instant::now(), None);
        let table = text(&look.rows);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines[0],
            "      NAME  STATE   CPU(sec) CPU(%)     MEM(k) MEM(%)  MAXMEM(k) VCPUS NETS NETTX(k) NETRX(k) VBDS   VBD_RD   VBD_WR VBD_RD(k) VBD_WR(k)"
        );
        assert_eq!(
            lines[2],
            "       web ------          2    0.0      65536    6.2   no limit     0    0        0        0    0        0        0         0         0"
        );
    }

    #[test]
    fn rows_can_be_ordered() {
        let mut rows = Look::new(snapshot(1), Instant::now(), None).rows;
        Order::Name.sort(&mut rows);
        assert_eq!(rows[0].name, "Domain-0");
        rows[1].cpu_percent = Some(1.0);
        Order::Cpu.sort(&mut rows);
        assert_eq!(rows[0].name, "web");
        Order::Memory.sort(&mut rows);
        assert_eq!(rows[0].name, "Domain-0");
        Order::Id.sort(&mut rows);
        assert_eq!(rows[1].id, 3);
    }
}
