//! The two-level ABI: a pending and a mask bit per port in the shared information page, and a selector per vCPU of the words with bits set.

use super::Raised;
use crate::domain::Domain;
use core::sync::atomic::{AtomicU64, Ordering};
use oxen_hal::Frames;
use oxen_types::{Mfn, Port, VcpuId};

/// Offset of `evtchn_pending` in `struct shared_info`.
const PENDING: usize = 2048;
/// Offset of `evtchn_mask`.
const MASK: usize = 2560;

fn word(frames: &impl Frames, shared_info: Mfn, array: usize, port: Port) -> (&AtomicU64, u64) {
    let offset = array + (port.index() % 4096) / 64 * 8;
    (frames.shared_u64(shared_info, offset), 1 << (port.0 % 64))
}

pub(super) fn set_pending(frames: &impl Frames, domain: &Domain, shared_info: Mfn, notify: VcpuId, port: Port) -> Raised {
    let (pending, bit) = word(frames, shared_info, PENDING, port);
    if pending.fetch_or(bit, Ordering::SeqCst) & bit != 0 {
        return Raised::default();
    }
    let upcall = if is_masked(frames, shared_info, port) { None } else { select(frames, domain, notify, port) };
    Raised { newly_pending: true, upcall }
}

/// Sets the port's word in the selector of the vCPU; the vCPU is to be told where the bit was clear.
fn select(frames: &impl Frames, domain: &Domain, notify: VcpuId, port: Port) -> Option<VcpuId> {
    let info = domain.vcpu(notify)?.info()?;
    let bit = 1 << ((port.0 / 64) % 64);
    (info.or_pending_selector(frames, bit) & bit == 0).then_some(notify)
}

pub(super) fn unmask(frames: &impl Frames, domain: &Domain, shared_info: Mfn, notify: VcpuId, port: Port) -> Raised {
    let (mask, bit) = word(frames, shared_info, MASK, port);
    let was_masked = mask.fetch_and(!bit, Ordering::SeqCst) & bit != 0;
    let upcall = if was_masked && is_pending(frames, shared_info, port) { select(frames, domain, notify, port) } else { None };
    Raised { newly_pending: false, upcall }
}

pub(super) fn is_pending(frames: &impl Frames, shared_info: Mfn, port: Port) -> bool {
    let (pending, bit) = word(frames, shared_info, PENDING, port);
    pending.load(Ordering::SeqCst) & bit != 0
}

pub(super) fn is_masked(frames: &impl Frames, shared_info: Mfn, port: Port) -> bool {
    let (mask, bit) = word(frames, shared_info, MASK, port);
    mask.load(Ordering::SeqCst) & bit != 0
}

pub(super) fn clear_pending(frames: &impl Frames, shared_info: Mfn, port: Port) {
    if port.0 < 4096 {
        let (pending, bit) = word(frames, shared_info, PENDING, port);
        pending.fetch_and(!bit, Ordering::SeqCst);
    }
}
