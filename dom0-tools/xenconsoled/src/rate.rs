//! How much of a guest's output is taken per time.

use std::time::{Duration, Instant};

/// The allowance is renewed so often.
const PERIOD: Duration = Duration::from_millis(100);
const PERIODS_PER_SECOND: u64 = 10;
/// What an event costs that brings nothing: events cost the daemon time too.
const EVENT_COST: u64 = 64;

/// An allowance in bytes that grows with time up to a limit, so that a guest may write much at once, for instance while it boots, but
/// not for long.
#[derive(Debug)]
pub struct Rate {
    per_period: u64,
    limit: u64,
    left: u64,
    renewal: Instant,
}

impl Rate {
    /// An allowance of `per_second` bytes, and of `burst` bytes at once.
    pub fn new(per_second: u64, burst: u64, now: Instant) -> Self {
        let per_period = (per_second / PERIODS_PER_SECOND).max(EVENT_COST);
        let limit = burst.max(per_period);
        Self { per_period, limit, left: limit, renewal: now + PERIOD }
    }

    /// When there is something left: `None` at once, otherwise the time from which on.
    pub fn wait_until(&mut self, now: Instant) -> Option<Instant> {
        if now >= self.renewal {
            let late = now.duration_since(self.renewal).as_millis() / PERIOD.as_millis();
            let periods = u64::try_from(late).unwrap_or(u64::MAX).saturating_add(1);
            self.left = self.left.saturating_add(self.per_period.saturating_mul(periods)).min(self.limit);
            self.renewal = now + PERIOD;
        }
        (self.left == 0).then_some(self.renewal)
    }

    /// Takes the cost of an event that brought `len` bytes.
    pub fn charge(&mut self, len: usize) {
        self.left = self.left.saturating_sub(EVENT_COST.max(len as u64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_time_no_more_than_the_rate_gets_through() {
        let start = Instant::now();
        let mut rate = Rate::new(100_000, 300_000, start);
        let mut taken = 0;
        for ms in 0..2000 {
            let now = start + Duration::from_millis(ms);
            while rate.wait_until(now).is_none() {
                rate.charge(2048);
                taken += 2048;
            }
        }
        assert!((490_000..560_000).contains(&taken), "{taken} bytes in 2 s");
    }

    #[test]
    fn empty_events_run_out_too() {
        let now = Instant::now();
        let mut rate = Rate::new(64_000, 0, now);
        for _ in 0..100 {
            assert_eq!(rate.wait_until(now), None);
            rate.charge(0);
        }
        assert_eq!(rate.wait_until(now), Some(now + PERIOD));
        assert_eq!(rate.wait_until(now + PERIOD), None);
    }
}
