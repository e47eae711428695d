//! Reading the clock, and telling the instruction counter (`tests/instruction-count`) where a row starts and ends.

use std::arch::{asm, x86_64::_rdtsc};

/// High half of the number in a marker: a long no-operation that no compiler emits.
const MAGIC: u32 = 0x4f58_0000;
/// The marker of user space reached.
const INIT: u32 = MAGIC | 0xffff;

/// The time stamp counter.
pub fn ticks() -> u64 {
    // SAFETY: rdtsc reads a register; Linux lets programs do so.
    unsafe { _rdtsc() }
}

/// Marks that the kernel has started this program.
pub fn reached_init() {
    // SAFETY: a no-operation.
    unsafe { asm!(".byte 0x0f, 0x1f, 0x80", ".long {}", const INIT, options(nomem, nostack, preserves_flags)) }
}

/// Runs `work` between two markers and returns the ticks that it took. Rows are told apart by their order.
pub fn measure(work: impl FnOnce() -> std::io::Result<()>) -> std::io::Result<u64> {
    begin();
    let started = ticks();
    let result = work();
    let took = ticks() - started;
    end();
    result.map(|()| took)
}

fn begin() {
    // SAFETY: a no-operation.
    unsafe { asm!(".byte 0x0f, 0x1f, 0x80", ".long {}", const MAGIC | 1, options(nomem, nostack, preserves_flags)) }
}

fn end() {
    // SAFETY: a no-operation.
    unsafe { asm!(".byte 0x0f, 0x1f, 0x80", ".long {}", const MAGIC | 2, options(nomem, nostack, preserves_flags)) }
}
