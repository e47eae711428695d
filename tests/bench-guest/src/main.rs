//! Micro-benchmarks of what a hypervisor makes slower: each row repeats one operation and prints its cost.
//!
//! Time is read with `rdtsc`; under QEMU's instruction counting that is the number of executed instructions. Output,
//! one line per row: `BENCH <row> <operations> <ticks>`. The kernel must be otherwise idle, on one processor.

mod marker;
mod memory;
mod process;
mod xen;

/// One row of the table: its name, how many operations one measurement makes, and the measured function.
struct Row {
    name: &'static str,
    /// The kernel's device through which the operation goes, where the bare machine has no such thing: without it the row is left out.
    device: Option<&'static str>,
    operations: u64,
    work: fn(u64) -> std::io::Result<()>,
}

/// The rows in the order of their printing; `cargo xtask bench` reads the names.
const ROWS: &[Row] = &[
    Row { name: "system-call", device: None, operations: 20_000, work: process::system_calls },
    Row { name: "page-fault", device: None, operations: 4_000, work: memory::page_faults },
    Row { name: "map-unmap", device: None, operations: 2_000, work: memory::map_unmap },
    Row { name: "mprotect", device: None, operations: 2_000, work: memory::mprotect },
    Row { name: "signal", device: None, operations: 2_000, work: process::signals },
    Row { name: "pipe-ping-pong", device: None, operations: 1_000, work: process::pipe_ping_pong },
    Row { name: "fork-exit", device: None, operations: 100, work: process::fork_exit },
    Row { name: "fork-exec", device: None, operations: 50, work: process::fork_exec },
    Row { name: "null-hypercall", device: Some(xen::PRIVCMD), operations: 5_000, work: xen::null_hypercalls },
    Row { name: "pte-update", device: None, operations: 2_000, work: memory::pte_updates },
    Row { name: "batch-of-100-updates", device: None, operations: 200, work: memory::batches_of_100 },
    Row { name: "event-channel", device: Some(xen::EVTCHN), operations: 2_000, work: xen::events },
];

fn main() {
    // `fork-exec` starts this program again with an argument.
    if std::env::args().nth(1).is_some() {
        return;
    }
    println!("BENCH boot-to-init 1 {}", marker::ticks());
    marker::reached_init();
    for row in ROWS {
        if row.device.is_some_and(|device| !std::path::Path::new(device).exists()) {
            continue;
        }
        // Once unmeasured: caches, lazily made page tables and the allocator settle.
        let warm = (row.work)(row.operations / 10 + 1);
        let result = warm.and_then(|()| marker::measure(|| (row.work)(row.operations)));
        match result {
            Ok(ticks) => println!("BENCH {} {} {ticks}", row.name, row.operations),
            Err(error) => println!("BENCH-FAILED {}: {error}", row.name),
        }
    }
}

/// The error of the last system call when its result says so.
fn checked(result: libc::c_long) -> std::io::Result<libc::c_long> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}
