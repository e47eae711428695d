//! The FIFO ABI: one word per port in pages that the guest supplied, linked into 16 queues per vCPU whose heads are in the vCPU's control block.
//!
//! The words belong to the guest as much as to the hypervisor: every change is one atomic operation, links are checked against
//! the number of pages before use, and loops over a word that the guest keeps changing are bounded.

use super::{Channel, Raised};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use oxen_abi::Errno;
use oxen_abi::event_channel::{
    EVTCHN_FIFO_BUSY, EVTCHN_FIFO_LINK_MASK, EVTCHN_FIFO_LINKED, EVTCHN_FIFO_MASKED, EVTCHN_FIFO_NR_CHANNELS, EVTCHN_FIFO_PENDING,
    FIFO_MAX_QUEUES,
};
use oxen_hal::Frames;
use oxen_types::{Mfn, Port, VcpuId};

const PENDING: u32 = 1 << EVTCHN_FIFO_PENDING;
const MASKED: u32 = 1 << EVTCHN_FIFO_MASKED;
const LINKED: u32 = 1 << EVTCHN_FIFO_LINKED;
const BUSY: u32 = 1 << EVTCHN_FIFO_BUSY;
const WORDS_PER_PAGE: u32 = 1024;
const MAX_PAGES: usize = (EVTCHN_FIFO_NR_CHANNELS / WORDS_PER_PAGE) as usize;
/// Size of `struct evtchn_fifo_control_block`.
const CONTROL_BLOCK_BYTES: usize = 72;
/// Offset of its `head` array.
pub(super) const HEADS: usize = 8;
/// Attempts to change a word that the guest changes at the same time.
const MAX_ATTEMPTS: u32 = 4;

#[derive(Clone, Debug)]
struct ControlBlock {
    frame: Mfn,
    offset: usize,
    /// Last port linked in each queue; 0 for none.
    tails: [u32; FIFO_MAX_QUEUES],
}

/// FIFO state of a domain.
#[derive(Clone, Debug)]
pub struct Fifo {
    pages: Vec<Mfn>,
    blocks: Vec<Option<ControlBlock>>,
    /// Ports that became pending while their word's page was missing.
    waiting: BTreeSet<u32>,
}

impl Fifo {
    pub(super) fn new(max_vcpus: usize) -> Self {
        Self { pages: Vec::new(), blocks: alloc::vec![None; max_vcpus], waiting: BTreeSet::new() }
    }

    pub(super) fn add_control_block(&mut self, frames: &impl Frames, vcpu: VcpuId, (frame, offset): (Mfn, usize)) -> Result<(), Errno> {
        if offset > 4096 - CONTROL_BLOCK_BYTES || !offset.is_multiple_of(8) {
            return Err(Errno::EINVAL);
        }
        let slot = self.blocks.get_mut(vcpu.index()).ok_or(Errno::ENOENT)?;
        if slot.is_some() {
            return Err(Errno::EINVAL);
        }
        for queue in 0..FIFO_MAX_QUEUES {
            frames.shared_u32(frame, offset + HEADS + 4 * queue).store(0, Ordering::SeqCst);
        }
        *slot = Some(ControlBlock { frame, offset, tails: [0; FIFO_MAX_QUEUES] });
        Ok(())
    }

    /// Adds a page of words; returns the first port that it holds.
    pub(super) fn add_page(&mut self, page: Mfn) -> Result<u32, Errno> {
        if self.pages.len() >= MAX_PAGES {
            return Err(Errno::ENOSPC);
        }
        let first = self.pages.len() as u32 * WORDS_PER_PAGE;
        self.pages.push(page);
        Ok(first)
    }

    /// Takes the ports that waited for the page whose first port is `first`.
    pub(super) fn take_waiting(&mut self, first: u32) -> Vec<Port> {
        let ports: Vec<u32> = self.waiting.range(first..first + WORDS_PER_PAGE).copied().collect();
        for port in &ports {
            self.waiting.remove(port);
        }
        ports.into_iter().map(Port).collect()
    }

    pub(super) fn into_frames(self) -> Vec<Mfn> {
        self.pages.into_iter().chain(self.blocks.into_iter().flatten().map(|b| b.frame)).collect()
    }

    fn word<'f>(&self, frames: &'f impl Frames, port: u32) -> Option<&'f AtomicU32> {
        let page = *self.pages.get((port / WORDS_PER_PAGE) as usize)?;
        Some(frames.shared_u32(page, (port % WORDS_PER_PAGE) as usize * 4))
    }

    pub(super) fn set_pending(&mut self, frames: &impl Frames, channel: &mut Channel, port: Port) -> Raised {
        let Some(word) = self.word(frames, port.0) else {
            self.waiting.insert(port.0);
            return Raised { newly_pending: true, upcall: None };
        };
        let newly_pending = word.fetch_or(PENDING, Ordering::SeqCst) & PENDING == 0;
        let upcall = self.link_if_open(frames, word, channel, port);
        Raised { newly_pending, upcall }
    }

    pub(super) fn unmask(&mut self, frames: &impl Frames, channel: &mut Channel, port: Port) -> Raised {
        let Some(word) = self.word(frames, port.0) else { return Raised::default() };
        let was = word.fetch_and(!MASKED, Ordering::SeqCst);
        let upcall = if was & PENDING != 0 { self.link_if_open(frames, word, channel, port) } else { None };
        Raised { newly_pending: false, upcall }
    }

    /// Links a pending port into its queue unless it is masked or linked already; returns the vCPU that must be told.
    fn link_if_open(&mut self, frames: &impl Frames, word: &AtomicU32, channel: &mut Channel, port: Port) -> Option<VcpuId> {
        if word.load(Ordering::SeqCst) & (MASKED | LINKED) != 0 {
            return None;
        }
        let (vcpu, priority) = (channel.notify, channel.priority);
        self.blocks.get(vcpu.index())?.as_ref()?;
        if word.fetch_or(LINKED, Ordering::SeqCst) & LINKED != 0 {
            return None;
        }
        self.leave_old_queue(channel, port, (vcpu, priority));
        let queue = priority as usize;
        let tail = *self.blocks.get(vcpu.index())?.as_ref()?.tails.get(queue)?;
        // A port that is the tail itself only looks linked since a moment ago: the queue is empty.
        let linked = tail != 0 && tail != port.0 && self.word(frames, tail).is_some_and(|tail_word| link_behind(tail_word, port.0));
        let block = self.blocks.get_mut(vcpu.index())?.as_mut()?;
        if let Some(tail) = block.tails.get_mut(queue) {
            *tail = port.0;
        }
        if linked {
            return None;
        }
        frames.shared_u32(block.frame, block.offset + HEADS + 4 * queue).store(port.0, Ordering::SeqCst);
        let ready = frames.shared_u32(block.frame, block.offset).fetch_or(1 << queue, Ordering::SeqCst);
        (ready & 1 << queue == 0).then_some(vcpu)
    }

    /// A port that moves to another queue must not stay the tail of its old one.
    fn leave_old_queue(&mut self, channel: &mut Channel, port: Port, new: (VcpuId, u32)) {
        if let Some((vcpu, priority)) = channel.last_queue
            && channel.last_queue != Some(new)
            && let Some(Some(block)) = self.blocks.get_mut(vcpu.index())
            && let Some(tail) = block.tails.get_mut(priority as usize)
            && *tail == port.0
        {
            *tail = 0;
        }
        channel.last_queue = Some(new);
    }

    pub(super) fn is_pending(&self, frames: &impl Frames, port: Port) -> bool {
        self.word(frames, port.0).is_some_and(|w| w.load(Ordering::SeqCst) & PENDING != 0)
    }

    pub(super) fn is_masked(&self, frames: &impl Frames, port: Port) -> bool {
        self.word(frames, port.0).is_none_or(|w| w.load(Ordering::SeqCst) & MASKED != 0)
    }

    pub(super) fn is_busy(&self, frames: &impl Frames, port: Port) -> bool {
        self.word(frames, port.0).is_some_and(|w| w.load(Ordering::SeqCst) & LINKED != 0)
    }

    pub(super) fn clear_pending(&self, frames: &impl Frames, port: Port) {
        if let Some(word) = self.word(frames, port.0) {
            word.fetch_and(!PENDING, Ordering::SeqCst);
        }
    }
}

/// Links `port` behind the tail whose word is given, while that tail is still linked itself. The busy bit keeps the guest from
/// unlinking it between two attempts.
fn link_behind(tail: &AtomicU32, port: u32) -> bool {
    let mut seen = tail.load(Ordering::SeqCst);
    for attempt in 0..MAX_ATTEMPTS {
        if seen & LINKED == 0 {
            if seen & BUSY != 0 {
                tail.fetch_and(!BUSY, Ordering::SeqCst);
            }
            return false;
        }
        let new = seen & !(BUSY | EVTCHN_FIFO_LINK_MASK) | port;
        match tail.compare_exchange(seen, new, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => return true,
            Err(_) if attempt + 2 < MAX_ATTEMPTS => seen = tail.fetch_or(BUSY, Ordering::SeqCst) | BUSY,
            Err(now) => seen = now,
        }
    }
    tail.fetch_and(!BUSY, Ordering::SeqCst);
    false
}
