//! Event channels: structures, the upcall, and a log of what arrived.

use crate::hypercall::{self, Rc};
use crate::start::{self, offsets, shared_word, vcpu_info};
use crate::{cpu, sys};
use oxen_abi::event_channel::Status;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

/// event_channel_op commands, as the register takes them.
#[allow(missing_docs)]
pub mod op {
    use oxen_abi::event_channel::EvtchnOp as E;

    pub const BIND_INTERDOMAIN: u64 = E::BIND_INTERDOMAIN.0 as u64;
    pub const BIND_VIRQ: u64 = E::BIND_VIRQ.0 as u64;
    pub const BIND_PIRQ: u64 = E::BIND_PIRQ.0 as u64;
    pub const CLOSE: u64 = E::CLOSE.0 as u64;
    pub const SEND: u64 = E::SEND.0 as u64;
    pub const STATUS: u64 = E::STATUS.0 as u64;
    pub const ALLOC_UNBOUND: u64 = E::ALLOC_UNBOUND.0 as u64;
    pub const BIND_IPI: u64 = E::BIND_IPI.0 as u64;
    pub const BIND_VCPU: u64 = E::BIND_VCPU.0 as u64;
    pub const UNMASK: u64 = E::UNMASK.0 as u64;
    pub const RESET: u64 = E::RESET.0 as u64;
    pub const INIT_CONTROL: u64 = E::INIT_CONTROL.0 as u64;
    pub const EXPAND_ARRAY: u64 = E::EXPAND_ARRAY.0 as u64;
    pub const SET_PRIORITY: u64 = E::SET_PRIORITY.0 as u64;
}

/// Ports that the log can tell apart.
const LOGGED_PORTS: usize = 256;
/// Events that the log keeps in order.
const LOG_LEN: usize = 64;

static COUNTS: [AtomicU32; LOGGED_PORTS] = [const { AtomicU32::new(0) }; LOGGED_PORTS];
static LOG: [AtomicU32; LOG_LEN] = [const { AtomicU32::new(0) }; LOG_LEN];
static LOGGED: AtomicUsize = AtomicUsize::new(0);
static UPCALLS: AtomicU32 = AtomicU32::new(0);
static FIFO: AtomicBool = AtomicBool::new(false);
static CURRENT_VCPU: AtomicBool = AtomicBool::new(false);

/// Says that gs:0 holds the number of the running vCPU from now on, on every vCPU that takes events.
pub fn vcpu_number_is_in_gs() {
    CURRENT_VCPU.store(true, Ordering::Relaxed);
}

/// Number of the running vCPU.
pub fn current_vcpu() -> usize {
    if CURRENT_VCPU.load(Ordering::Relaxed) { cpu::gs_word() as usize } else { 0 }
}

/// Says that upcalls are to look for events in the FIFO structures.
pub fn use_fifo() {
    FIFO.store(true, Ordering::Relaxed);
}

/// Body of the event callback: takes every deliverable event of this vCPU and logs it.
pub(crate) fn upcall() {
    UPCALLS.fetch_add(1, Ordering::Relaxed);
    let vcpu = current_vcpu();
    if FIFO.load(Ordering::Relaxed) {
        crate::fifo::upcall(vcpu);
        return;
    }
    let info = vcpu_info(vcpu);
    loop {
        info.set_upcall_pending(false);
        let mut selector = info.pending_sel().swap(0, Ordering::AcqRel);
        if selector == 0 {
            return;
        }
        while selector != 0 {
            let word = selector.trailing_zeros();
            selector &= selector - 1;
            let pending = shared_word(offsets::EVTCHN_PENDING + word as usize * 8);
            let mask = shared_word(offsets::EVTCHN_MASK + word as usize * 8);
            let mut ready = pending.load(Ordering::Acquire) & !mask.load(Ordering::Acquire);
            while ready != 0 {
                let bit = ready.trailing_zeros();
                ready &= ready - 1;
                pending.fetch_and(!(1 << bit), Ordering::AcqRel);
                record(word * 64 + bit);
            }
        }
    }
}

/// Logs one event.
pub(crate) fn record(port: u32) {
    if let Some(count) = COUNTS.get(port as usize) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    let index = LOGGED.fetch_add(1, Ordering::Relaxed);
    if let Some(slot) = LOG.get(index) {
        slot.store(port, Ordering::Relaxed);
    }
}

/// How often `port` was delivered.
pub fn count(port: u32) -> u32 {
    COUNTS[port as usize].load(Ordering::Relaxed)
}

/// How often the callback ran.
pub fn upcalls() -> u32 {
    UPCALLS.load(Ordering::Relaxed)
}

/// Forgets the order of events so far.
pub fn clear_log() {
    LOGGED.store(0, Ordering::Relaxed);
}

/// The `index`th event since [`clear_log`].
pub fn logged(index: usize) -> Option<u32> {
    (index < LOGGED.load(Ordering::Relaxed)).then(|| LOG[index].load(Ordering::Relaxed))
}

/// Number of events since [`clear_log`].
pub fn logged_count() -> usize {
    LOGGED.load(Ordering::Relaxed)
}

fn bit(offset: usize, port: u32) -> (&'static core::sync::atomic::AtomicU64, u64) {
    (shared_word(offset + port as usize / 64 * 8), 1 << (port % 64))
}

/// Whether `port` is pending, in the 2-level structures.
pub fn is_pending(port: u32) -> bool {
    let (word, mask) = bit(offsets::EVTCHN_PENDING, port);
    word.load(Ordering::Acquire) & mask != 0
}

/// Clears the pending bit of `port`, in the 2-level structures.
pub fn clear_pending(port: u32) {
    let (word, mask) = bit(offsets::EVTCHN_PENDING, port);
    word.fetch_and(!mask, Ordering::AcqRel);
}

/// Masks or unmasks `port` in the 2-level structures, without delivering what is pending.
pub fn set_masked(port: u32, masked: bool) {
    let (word, mask) = bit(offsets::EVTCHN_MASK, port);
    if masked { word.fetch_or(mask, Ordering::AcqRel) } else { word.fetch_and(!mask, Ordering::AcqRel) };
}

/// Lets upcalls happen on the boot vCPU, and delivers what is pending.
pub fn enable_upcalls() {
    start::vcpu_info(0).set_upcall_mask(false);
    // Any hypercall checks for pending events on its way back.
    hypercall::raw(sys::nr::XEN_VERSION, [0, 0, 0, 0, 0]);
}

/// Stops upcalls on the boot vCPU.
pub fn disable_upcalls() {
    start::vcpu_info(0).set_upcall_mask(true);
}

/// Result of an operation that yields a port.
pub type PortOr = Result<u32, Rc>;

/// bind_ipi.
pub fn bind_ipi(vcpu: u32) -> PortOr {
    let mut arg = [vcpu, 0];
    port_or(hypercall::event_channel_op(op::BIND_IPI, &mut arg), arg[1])
}

/// bind_virq.
pub fn bind_virq(virq: u32, vcpu: u32) -> PortOr {
    let mut arg = [virq, vcpu, 0];
    port_or(hypercall::event_channel_op(op::BIND_VIRQ, &mut arg), arg[2])
}

/// bind_pirq.
pub fn bind_pirq(pirq: u32, flags: u32) -> PortOr {
    let mut arg = [pirq, flags, 0];
    port_or(hypercall::event_channel_op(op::BIND_PIRQ, &mut arg), arg[2])
}

/// alloc_unbound: a port of `dom` that `remote` may bind.
pub fn alloc_unbound(dom: u16, remote: u16) -> PortOr {
    let mut arg = [u32::from(dom) | u32::from(remote) << 16, 0];
    port_or(hypercall::event_channel_op(op::ALLOC_UNBOUND, &mut arg), arg[1])
}

/// bind_interdomain.
pub fn bind_interdomain(remote: u16, remote_port: u32) -> PortOr {
    let mut arg = [u32::from(remote), remote_port, 0];
    port_or(hypercall::event_channel_op(op::BIND_INTERDOMAIN, &mut arg), arg[2])
}

fn port_or(rc: Rc, port: u32) -> PortOr {
    if rc.is_ok() { Ok(port) } else { Err(rc) }
}

/// The error of `result`, or zero.
pub fn rc_of(result: PortOr) -> Rc {
    result.err().unwrap_or(Rc(0))
}

/// An operation whose argument is one port.
pub fn port_op(cmd: u64, port: u32) -> Rc {
    let mut arg = port;
    hypercall::event_channel_op(cmd, &mut arg)
}

/// send.
pub fn send(port: u32) -> Rc {
    port_op(op::SEND, port)
}

/// close.
pub fn close(port: u32) -> Rc {
    port_op(op::CLOSE, port)
}

/// unmask.
pub fn unmask(port: u32) -> Rc {
    port_op(op::UNMASK, port)
}

/// bind_vcpu.
pub fn bind_vcpu(port: u32, vcpu: u32) -> Rc {
    let mut arg = [port, vcpu];
    hypercall::event_channel_op(op::BIND_VCPU, &mut arg)
}

/// set_priority.
pub fn set_priority(port: u32, priority: u32) -> Rc {
    let mut arg = [port, priority];
    hypercall::event_channel_op(op::SET_PRIORITY, &mut arg)
}

/// status of one of the caller's ports.
pub fn status(port: u32) -> (Rc, Status) {
    let mut arg = Status { dom: sys::DOMID_SELF, port, ..Status::default() };
    let rc = hypercall::event_channel_op(op::STATUS, &mut arg);
    (rc, arg)
}
