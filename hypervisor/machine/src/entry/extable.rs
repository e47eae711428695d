//! Instructions of the hypervisor that may fault, and where to go on when they do.

use crate::layout::{PER_CPU, PER_CPU_STRIDE};

/// One record of the section `.ex_table`: a fault at an instruction from `start` up to `end` (exclusive) goes on at `fixup`, registers unchanged.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Fixup {
    start: u64,
    end: u64,
    fixup: u64,
}

/// The directives that record a range for inline assembly: `ex_table!("2b", "3b", "4f")` for the labels of start, end and fix-up.
macro_rules! ex_table {
    ($start:literal, $end:literal, $fixup:literal) => {
        concat!(
            ".pushsection .ex_table, \"a\", @progbits\n.balign 8\n.quad ",
            $start,
            ", ",
            $end,
            ", ",
            $fixup,
            "\n.popsection"
        )
    };
}
pub(crate) use ex_table;

// SAFETY: the linker script defines both symbols, around records of this type.
unsafe extern "C" {
    static exception_table_start: [Fixup; 0];
    static exception_table_end: [Fixup; 0];
    static oxen_syscall_stub: [u8; 0];
}

/// The linked address of an instruction: the system call stub runs in each CPU's area, a page shown at another place than where it is linked.
pub(crate) fn linked_address(rip: u64) -> u64 {
    let offset = rip.wrapping_sub(PER_CPU) % PER_CPU_STRIDE;
    if rip >= PER_CPU && rip < PER_CPU + (oxen_types::MAX_CPUS as u64) * PER_CPU_STRIDE && offset < 4096 {
        (&raw const oxen_syscall_stub).addr() as u64 + offset
    } else {
        rip
    }
}

/// Where to go on after a fault at `rip`, if the table has it.
pub(crate) fn find(rip: u64) -> Option<u64> {
    lookup(table(), linked_address(rip))
}

fn table() -> &'static [Fixup] {
    let start = &raw const exception_table_start;
    let end = &raw const exception_table_end;
    let len = (end.addr() - start.addr()) / size_of::<Fixup>();
    // SAFETY: the linker script puts the two symbols around the records of all `.ex_table` sections, which are constant.
    unsafe { core::slice::from_raw_parts(start.cast::<Fixup>(), len) }
}

fn lookup(table: &[Fixup], rip: u64) -> Option<u64> {
    table.iter().find(|entry| (entry.start..entry.end).contains(&rip)).map(|entry| entry.fixup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_range_that_contains_the_fault() {
        let table = [Fixup { start: 10, end: 12, fixup: 100 }, Fixup { start: 20, end: 21, fixup: 200 }];
        assert_eq!(lookup(&table, 9), None);
        assert_eq!(lookup(&table, 10), Some(100));
        assert_eq!(lookup(&table, 12), None);
        assert_eq!(lookup(&table, 20), Some(200));
    }
}
