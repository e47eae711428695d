//! What a machine was asked to do.

use oxen_hal::{FlushScope, PowerAction};
use oxen_types::{CpuId, Maddr, Mfn};

/// Something that the logic made the machine do and that leaves no other trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A processor was told to look at its work.
    Kick(CpuId),
    /// These processors flushed.
    Flush(Vec<CpuId>, FlushScope),
    /// A processor waited for an interrupt.
    Wait(CpuId),
    /// Caches were written back.
    WriteBack(CpuId),
    /// Part of a frame was written back from caches: frame, offset, bytes.
    FlushLines(Mfn, usize, usize),
    /// A port was written: port, bytes, value.
    PortOut(u16, u8, u32),
    /// A device register was written.
    MmioWrite(Maddr, u32),
    /// The machine's power was to change.
    Power(PowerAction),
}

/// One write to a page-table entry by the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryWrite {
    /// The table.
    pub mfn: Mfn,
    /// Index of the entry.
    pub index: usize,
    /// What it was.
    pub old: u64,
    /// What it became.
    pub new: u64,
}
