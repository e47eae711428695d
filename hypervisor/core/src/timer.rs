//! Timers: a queue per processor, ordered by deadline.

use alloc::collections::BTreeMap;
use alloc::sync::Weak;

use crate::vcpu::Vcpu;
use oxen_types::{CpuId, DomId, VcpuId};

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerKind {
    /// The vCPU's one-shot timer: raises `VIRQ_TIMER`.
    SingleShot,
    /// The vCPU's periodic timer: raises `VIRQ_TIMER` and starts again.
    Periodic,
    /// Ends `SCHEDOP_poll`.
    Poll,
    /// One of the domain's two watchdogs (1 or 2), kept with vCPU 0: shuts the domain down.
    Watchdog(u8),
}

/// Identity of a timer: each vCPU has one of each kind, so a queue never holds more entries than vCPUs have timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerId {
    /// The vCPU's domain.
    pub domain: DomId,
    /// The vCPU.
    pub vcpu: VcpuId,
    /// Which of its timers.
    pub kind: TimerKind,
}

/// Where a vCPU's timer stands: the processor that has it and the deadline under which it is filed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Armed {
    /// Processor whose queue has it.
    pub cpu: CpuId,
    /// System time in nanoseconds.
    pub deadline_ns: u64,
}

/// The timers of one vCPU.
#[derive(Debug, Default)]
pub struct VcpuTimers {
    /// One-shot.
    pub single_shot: Option<Armed>,
    /// Periodic.
    pub periodic: Option<Armed>,
    /// Poll time-out.
    pub poll: Option<Armed>,
    /// Watchdogs.
    pub watchdogs: [Option<Armed>; 2],
    /// Period of the periodic timer in nanoseconds; 0 while stopped.
    pub period_ns: u64,
}

impl VcpuTimers {
    /// The slot of a kind.
    pub fn slot(&mut self, kind: TimerKind) -> &mut Option<Armed> {
        match kind {
            TimerKind::SingleShot => &mut self.single_shot,
            TimerKind::Periodic => &mut self.periodic,
            TimerKind::Poll => &mut self.poll,
            TimerKind::Watchdog(1) => &mut self.watchdogs[0],
            TimerKind::Watchdog(_) => &mut self.watchdogs[1],
        }
    }
}

/// The timers of one processor.
#[derive(Debug, Default)]
pub struct TimerQueue {
    entries: BTreeMap<(u64, TimerId), Weak<Vcpu>>,
    /// When the processor is to choose again which vCPU runs.
    pub slice_end_ns: Option<u64>,
}

impl TimerQueue {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: BTreeMap::new(), slice_end_ns: None }
    }

    /// Files a timer; the caller took out an earlier entry of the same timer.
    pub fn insert(&mut self, deadline_ns: u64, id: TimerId, vcpu: Weak<Vcpu>) {
        self.entries.insert((deadline_ns, id), vcpu);
    }

    /// Takes a timer out. No effect where it has gone off already.
    pub fn remove(&mut self, deadline_ns: u64, id: TimerId) {
        self.entries.remove(&(deadline_ns, id));
    }

    /// The time at which the processor must be woken.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let first = self.entries.keys().next().map(|(deadline, _)| *deadline);
        match (first, self.slice_end_ns) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Takes out the first timer whose time has come.
    pub fn pop_expired(&mut self, now_ns: u64) -> Option<(u64, TimerId, Weak<Vcpu>)> {
        let entry = self.entries.first_entry()?;
        if entry.key().0 > now_ns {
            return None;
        }
        let ((deadline, id), vcpu) = entry.remove_entry();
        Some((deadline, id, vcpu))
    }

    /// Number of timers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True where no timer is filed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(vcpu: u32, kind: TimerKind) -> TimerId {
        TimerId { domain: DomId(0), vcpu: VcpuId(vcpu), kind }
    }

    #[test]
    fn fires_in_order_and_only_when_due() {
        let mut queue = TimerQueue::new();
        queue.insert(30, id(0, TimerKind::SingleShot), Weak::new());
        queue.insert(10, id(1, TimerKind::Poll), Weak::new());
        queue.insert(20, id(1, TimerKind::SingleShot), Weak::new());
        assert_eq!(queue.next_deadline(), Some(10));
        queue.slice_end_ns = Some(5);
        assert_eq!(queue.next_deadline(), Some(5));
        queue.remove(20, id(1, TimerKind::SingleShot));
        assert_eq!(queue.pop_expired(9).map(|t| t.0), None);
        assert_eq!(queue.pop_expired(30).map(|t| t.0), Some(10));
        assert_eq!(queue.pop_expired(30).map(|t| t.0), Some(30));
        assert!(queue.pop_expired(u64::MAX).is_none() && queue.is_empty());
    }
}
