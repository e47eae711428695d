//! How long a vCPU has spent in each run state.

use oxen_abi::vcpu::{Runstate, RunstateInfo};

/// Counts nanoseconds per state.
#[derive(Clone, Copy, Debug)]
pub struct RunstateClock {
    info: RunstateInfo,
}

impl RunstateClock {
    /// A clock that starts in the state offline.
    #[must_use]
    pub fn new(now_ns: u64) -> Self {
        Self { info: RunstateInfo { state: Runstate::OFFLINE, state_entry_time: now_ns, ..RunstateInfo::default() } }
    }

    /// Enters `state` at system time `now_ns`.
    pub fn enter(&mut self, state: Runstate, now_ns: u64) {
        let spent = now_ns.saturating_sub(self.info.state_entry_time);
        if let Some(total) = self.info.time.get_mut(self.info.state.raw() as usize) {
            *total = total.wrapping_add(spent);
        }
        self.info.state = state;
        self.info.state_entry_time = now_ns;
    }

    /// The record as the guest sees it: totals up to the last change of state.
    #[must_use]
    pub fn info(&self) -> RunstateInfo {
        self.info
    }

    /// The record with the present state's time counted up to `now_ns`.
    #[must_use]
    pub fn info_at(&self, now_ns: u64) -> RunstateInfo {
        let mut copy = *self;
        copy.enter(self.info.state, now_ns);
        copy.info
    }

    /// Nanoseconds on a processor, up to `now_ns`.
    #[must_use]
    pub fn running_ns(&self, now_ns: u64) -> u64 {
        self.info_at(now_ns).time[Runstate::RUNNING.raw() as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up() {
        let mut clock = RunstateClock::new(100);
        clock.enter(Runstate::RUNNING, 150);
        clock.enter(Runstate::BLOCKED, 250);
        assert_eq!(clock.info().time, [100, 0, 0, 50]);
        assert_eq!(clock.info_at(260).time, [100, 0, 10, 50]);
        assert_eq!(clock.running_ns(260), 100);
    }
}
