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
    operations: u64,
    work: fn(u64) -> std::io::Result<()>,
}

/// The rows in the order of their printing; `cargo xtask bench` reads the names.
const ROWS: &[Row] = &[
    Row { name: "system-call", operations: 20_000, work: process::system_calls },
    Row { name: "page-fault", operations: 4_000, work: memory::page_faults },
    Row { name: "map-unmap", operations: 2_000, work: memory::map_unmap },
    Row { name: "mprotect", operations: 2_000, work: memory::mprotect },
    Row { name: "signal", operations: 2_000, work: process::signals },
    Row { name: "pipe-ping-pong", operations: 1_000, work: process::pipe_ping_pong },
    Row { name: "fork-exit", operations: 100, work: process::fork_exit },
    Row { name: "fork-exec", operations: 50, work: process::fork_exec },
    Row { name: "null-hypercall", operations: 5_000, work: xen::null_hypercalls },
    Row { name: "pte-update", operations: 2_000, work: memory::pte_updates },
    Row { name: "batch-of-100-updates", operations: 200, work: memory::batches_of_100 },
    Row { name: "event-channel", operations: 2_000, work: xen::events },
];

fn main() {
    // `fork-exec` starts this program again with an argument.
    if std::env::args().nth(1).is_some() {
        return;
    }
    println!("BENCH boot-to-init 1 {}", marker::ticks());
    marker::reached_init();
    for row in ROWS {
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
