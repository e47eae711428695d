//! The FIFO event ABI: control block, event words and their upcall.

use crate::event;
use crate::hypercall::{self, Rc};
use crate::mem::{self, Page};
use crate::start::vcpu_info;
use oxen_abi::event_channel as abi;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Event word: pending.
pub const PENDING: u32 = 1 << abi::EVTCHN_FIFO_PENDING;
/// Event word: masked.
pub const MASKED: u32 = 1 << abi::EVTCHN_FIFO_MASKED;
/// Event word: in a queue.
pub const LINKED: u32 = 1 << abi::EVTCHN_FIFO_LINKED;
/// Event word: the hypervisor is linking another event behind this one.
pub const BUSY: u32 = 1 << abi::EVTCHN_FIFO_BUSY;
/// Event word: next port in the queue.
pub const LINK_MASK: u32 = abi::EVTCHN_FIFO_LINK_MASK;

/// vCPUs with a control block.
const VCPUS: usize = 8;

static CONTROL: [AtomicU64; VCPUS] = [const { AtomicU64::new(0) }; VCPUS];
static ARRAY: AtomicU64 = AtomicU64::new(0);
static HEADS: [[AtomicU32; 16]; VCPUS] = [const { [const { AtomicU32::new(0) }; 16] }; VCPUS];

/// init_control.
pub fn init_control(arg: &mut abi::InitControl) -> Rc {
    hypercall::event_channel_op(event::op::INIT_CONTROL, arg)
}

/// expand_array with the page at machine frame `mfn`.
pub fn expand_array(mfn: u64) -> Rc {
    let mut arg = mfn;
    hypercall::event_channel_op(event::op::EXPAND_ARRAY, &mut arg)
}

/// Gives `vcpu` a control block in a page of its own.
pub fn add_vcpu(vcpu: usize) -> Rc {
    let page = mem::alloc_page();
    let mut arg = abi::InitControl { control_gfn: page.mfn(), vcpu: vcpu as u32, ..abi::InitControl::default() };
    let rc = init_control(&mut arg);
    if rc.is_ok() {
        CONTROL[vcpu].store(page.va(), Ordering::Relaxed);
    }
    rc
}

/// Adds the first page of event words, all masked, and makes upcalls use the FIFO structures.
pub fn add_first_array_page() -> (Rc, Page) {
    let page = mem::alloc_page();
    for index in 0..512 {
        page.write(index, u64::from(MASKED) << 32 | u64::from(MASKED));
    }
    ARRAY.store(page.va(), Ordering::Relaxed);
    let rc = expand_array(page.mfn());
    event::use_fifo();
    (rc, page)
}

/// The event word of `port`, which lies in the first page.
pub fn word(port: u32) -> &'static AtomicU32 {
    assert!(port < 1024);
    // SAFETY: inside the first array page, aligned, accessed atomically.
    unsafe { &*((ARRAY.load(Ordering::Relaxed) + u64::from(port) * 4) as *const AtomicU32) }
}

/// Bitmap of priorities with events, of `vcpu`.
pub fn ready(vcpu: usize) -> &'static AtomicU32 {
    // SAFETY: start of the vCPU's control block, accessed atomically.
    unsafe { &*(CONTROL[vcpu].load(Ordering::Relaxed) as *const AtomicU32) }
}

fn shared_head(vcpu: usize, priority: usize) -> &'static AtomicU32 {
    // SAFETY: inside the vCPU's control block (heads start at offset 8), accessed atomically.
    unsafe { &*((CONTROL[vcpu].load(Ordering::Relaxed) + 8 + priority as u64 * 4) as *const AtomicU32) }
}

/// Takes every deliverable event of `vcpu`, most urgent priority first.
pub(crate) fn upcall(vcpu: usize) {
    vcpu_info(vcpu).set_upcall_pending(false);
    let mut todo = ready(vcpu).swap(0, Ordering::AcqRel);
    while todo != 0 {
        let priority = todo.trailing_zeros() as usize;
        let head = &HEADS[vcpu][priority];
        let mut port = head.load(Ordering::Relaxed);
        if port == 0 {
            port = shared_head(vcpu, priority).load(Ordering::Acquire);
        }
        let next = unlink(port);
        if next == 0 {
            todo &= !(1 << priority);
        }
        head.store(next, Ordering::Relaxed);
        let state = word(port).load(Ordering::Acquire);
        if state & PENDING != 0 && state & MASKED == 0 {
            word(port).fetch_and(!PENDING, Ordering::AcqRel);
            event::record(port);
        }
        todo |= ready(vcpu).swap(0, Ordering::AcqRel);
    }
}

/// Takes `port` off its queue and returns its successor, 0 at the end.
fn unlink(port: u32) -> u32 {
    let word = word(port);
    let mut old = word.load(Ordering::Acquire);
    loop {
        let new = old & !(LINKED | LINK_MASK);
        match word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return old & LINK_MASK,
            Err(now) => old = now,
        }
    }
}

/// Clears the mask bit of `port` by the hypercall.
pub fn unmask(port: u32) -> Rc {
    event::unmask(port)
}
