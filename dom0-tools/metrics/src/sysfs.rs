//! What domain 0's kernel counts.

use std::fs;
use std::path::Path;

/// Bytes of a sector in blkback's counts.
const SECTOR: u64 = 512;
/// ns in a unit of `/proc/stat` (USER_HZ is 100 on x86).
const TICK_NS: u64 = 10_000_000;
/// Which number of a `cpuN` line of `/proc/stat` is stolen time.
const STEAL: usize = 8;

/// The back end of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// The guest's domain id.
    pub domid: u16,
    /// The device's number.
    pub devid: u32,
    /// Bytes read by the guest.
    pub read_bytes: u64,
    /// Bytes written by the guest.
    pub written_bytes: u64,
    /// Read requests.
    pub reads: u64,
    /// Write requests.
    pub writes: u64,
    /// How often the back end had no room for another request.
    pub out_of_requests: u64,
}

/// The back end of a network card. What the guest sent is what the back end received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// The guest's domain id.
    pub domid: u16,
    /// The device's number.
    pub devid: u32,
    /// Bytes that the guest received.
    pub received_bytes: u64,
    /// Bytes that the guest sent.
    pub sent_bytes: u64,
    /// Packets that the guest received.
    pub received_packets: u64,
    /// Packets that the guest sent.
    pub sent_packets: u64,
    /// Packets for the guest that failed.
    pub received_errors: u64,
    /// Packets from the guest that failed.
    pub sent_errors: u64,
    /// Packets for the guest that were dropped.
    pub received_dropped: u64,
    /// Packets from the guest that were dropped.
    pub sent_dropped: u64,
}

/// Reads the counts of all back ends of this kernel, in the order of domain and device.
pub fn back_ends(root: &Path) -> (Vec<Disk>, Vec<Interface>) {
    let mut disks = Vec::new();
    let mut interfaces = Vec::new();
    let entries = fs::read_dir(root.join("sys/bus/xen-backend/devices")).into_iter().flatten().flatten();
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let Some((kind, domid, devid)) = parse(&name) else { continue };
        if kind == "vbd" {
            let statistics = path.join("statistics");
            let count = |file: &str| number(&statistics.join(file));
            disks.push(Disk {
                domid,
                devid,
                read_bytes: count("rd_sect").saturating_mul(SECTOR),
                written_bytes: count("wr_sect").saturating_mul(SECTOR),
                reads: count("rd_req"),
                writes: count("wr_req"),
                out_of_requests: count("oo_req"),
            });
        } else if let Some(interface) = fs::read_dir(path.join("net")).into_iter().flatten().flatten().next() {
            // The interface may have another name than `vifDOMAIN.DEVICE`.
            let statistics = interface.path().join("statistics");
            let count = |file: &str| number(&statistics.join(file));
            interfaces.push(Interface {
                domid,
                devid,
                received_bytes: count("tx_bytes"),
                sent_bytes: count("rx_bytes"),
                received_packets: count("tx_packets"),
                sent_packets: count("rx_packets"),
                received_errors: count("tx_errors"),
                sent_errors: count("rx_errors"),
                received_dropped: count("tx_dropped"),
                sent_dropped: count("rx_dropped"),
            });
        }
    }
    disks.sort_by_key(|disk| (disk.domid, disk.devid));
    interfaces.sort_by_key(|card| (card.domid, card.devid));
    (disks, interfaces)
}

/// Time in ns that each of this kernel's processors was kept waiting.
pub fn steal_ns(root: &Path) -> Vec<u64> {
    let text = fs::read_to_string(root.join("proc/stat")).unwrap_or_default();
    let mut steal = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(cpu) = words.next().and_then(|word| word.strip_prefix("cpu")?.parse::<usize>().ok()) else { continue };
        let ticks = words.nth(STEAL - 1).and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
        // Processors that are off have no line.
        if cpu < 4096 {
            steal.resize(steal.len().max(cpu + 1), 0);
            if let Some(of_cpu) = steal.get_mut(cpu) {
                *of_cpu = ticks.saturating_mul(TICK_NS);
            }
        }
    }
    steal
}

/// Kind, domain and device of a directory such as `vbd-3-51712`.
fn parse(name: &str) -> Option<(&str, u16, u32)> {
    let mut parts = name.split('-');
    let kind = parts.next().filter(|kind| matches!(*kind, "vbd" | "vif"))?;
    Some((kind, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The number in a file; 0 when there is none, as for a back end that goes away now.
fn number(path: &Path) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or_default()
}
