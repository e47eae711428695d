//! The numbers.

use crate::model::State;
use crate::text;
use oxen_abi::domctl::GetDomainInfo;
use oxen_metrics::{Disk, Domain, Interface, Snapshot};
use serde::Serialize;
use std::time::Instant;

/// Bytes of a sector in the counts of disks.
pub const SECTOR: u64 = 512;

/// A moment.
#[derive(Clone, Debug)]
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
    /// The same.
    #[serde(skip)]
    pub states: State,
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
    /// The same, in percent of the host's; `None` without limit.
    pub max_memory_percent: Option<f64>,
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
    /// How often back ends had no room for another request.
    pub out_of_requests: u64,
    /// Requests to read.
    pub reads: u64,
    /// Requests to write.
    pub writes: u64,
    /// What was read from disks, in KiB.
    pub read_kib: u64,
    /// What was written to disks, in KiB.
    pub written_kib: u64,
    /// Sectors read.
    pub read_sectors: u64,
    /// Sectors written.
    pub written_sectors: u64,
    /// Its security label.
    pub ssid: u32,
    /// The parts that the sums are of.
    #[serde(skip)]
    pub parts: Parts,
}

/// A domain's vCPUs and devices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts {
    /// Number and processor time in ns of the vCPUs that are online.
    pub vcpus: Vec<(u32, u64)>,
    /// Back ends of network cards.
    pub cards: Vec<Interface>,
    /// Back ends of disks.
    pub disks: Vec<Disk>,
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
        let disks: Vec<Disk> = snapshot.disks.iter().filter(|disk| disk.domid == domain.domid).copied().collect();
        let cards: Vec<Interface> = snapshot.interfaces.iter().filter(|card| card.domid == domain.domid).copied().collect();
        let info = GetDomainInfo {
            flags: domain.flags,
            ..GetDomainInfo::default()
        };
        let states = State::new(&info);
        let of_disks = |count: fn(&Disk) -> u64| disks.iter().map(count).sum::<u64>();
        let of_cards = |count: fn(&Interface) -> u64| cards.iter().map(count).sum::<u64>();
        let (read_bytes, written_bytes) = (of_disks(|disk| disk.read_bytes), of_disks(|disk| disk.written_bytes));
        let online = domain.vcpus.iter().filter(|vcpu| vcpu.online);
        let vcpus: Vec<(u32, u64)> = online.map(|vcpu| (vcpu.vcpu, vcpu.cpu_time_ns)).collect();
        Self {
            // Whoever may write a name must not write to the terminal.
            name: domain.name.replace(char::is_control, "?"),
            id: domain.domid,
            state: text::state(&states),
            states,
            cpu_time_s: domain.cpu_time_ns as f64 / 1e9,
            cpu_percent,
            memory_kib: domain.memory >> 10,
            memory_percent: percent(domain.memory, host_memory),
            max_memory_kib: domain.max_memory.map(|most| most >> 10),
            max_memory_percent: domain.max_memory.map(|most| percent(most, host_memory)),
            vcpus: vcpus.len(),
            networks: cards.len(),
            sent_kib: of_cards(|card| card.sent_bytes) >> 10,
            received_kib: of_cards(|card| card.received_bytes) >> 10,
            disks: disks.len(),
            out_of_requests: of_disks(|disk| disk.out_of_requests),
            reads: of_disks(|disk| disk.reads),
            writes: of_disks(|disk| disk.writes),
            read_kib: read_bytes >> 10,
            written_kib: written_bytes >> 10,
            read_sectors: read_bytes / SECTOR,
            written_sectors: written_bytes / SECTOR,
            ssid: domain.ssid,
            parts: Parts { vcpus, cards, disks },
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
}
