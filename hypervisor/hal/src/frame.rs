//! The record that the hypervisor keeps for each machine frame.

use core::sync::atomic::AtomicU64;

/// The record of one frame, as the frame table holds it: 16 bytes, so that the table of a 4 GiB machine is 16 MiB. The crate `mm` gives the
/// bits their meaning; a frame that nobody has taken yet is all zero.
#[derive(Debug, Default)]
#[repr(C, align(16))]
pub struct FrameMeta {
    /// Type, type count, validation flags and TLB stamp.
    pub kind: AtomicU64,
    /// Owner and total reference count; for a free frame, its place in the allocator's lists.
    pub refs: AtomicU64,
}

const _: () = assert!(size_of::<FrameMeta>() == 16);
