//! A token bucket: so many a second in the long run, and some at once. Pure: `now` is an argument.

use std::time::{Duration, Instant};

/// The bucket, as one moment instead of a level that somebody would have to refill (the generic cell rate algorithm).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Between two at the full rate.
    interval: Duration,
    /// How far `full_at` may lie ahead of one that is let through.
    burst: Duration,
    /// When nothing of the burst is used any more.
    full_at: Instant,
}

impl Bucket {
    /// Lets `per_second` through in the long run, and as many as come within `burst` at that rate at once; at least 1 of
    /// each. Past 1 000 000 a second its intervals, whole nanoseconds, are off by more than a tenth of a percent.
    #[must_use]
    pub fn new(per_second: u32, burst: Duration, now: Instant) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        // The one that is asking is not counted: at least that one is always let through.
        Self { interval, burst: burst.saturating_sub(interval), full_at: now }
    }

    /// Lets `per_second` through in the long run and `at_once` at once; at least 1 of each.
    #[must_use]
    pub fn with_burst(per_second: u32, at_once: u32, now: Instant) -> Self {
        Self::new(per_second, Duration::from_secs(1) / per_second.max(1) * at_once.max(1), now)
    }

    /// Whether one more would be let through.
    #[must_use]
    pub fn has_place(&self, now: Instant) -> bool {
        self.wait(now).is_zero()
    }

    /// Whether one more is let through; takes its place.
    #[must_use]
    pub fn take(&mut self, now: Instant) -> bool {
        let has_place = self.has_place(now);
        if has_place {
            self.charge(now);
        }
        has_place
    }

    /// Whether one more of those that go first would be let through: they have a second burst of their own, and whatever they
    /// take the others wait for.
    #[must_use]
    pub fn has_place_for_first(&self, now: Instant) -> bool {
        self.wait(now) <= self.burst + self.interval
    }

    /// Whether one more of those that go first is let through; takes its place.
    #[must_use]
    pub fn take_first(&mut self, now: Instant) -> bool {
        let has_place = self.has_place_for_first(now);
        if has_place {
            self.charge(now);
        }
        has_place
    }

    /// Takes a place, whether or not there is one.
    pub fn charge(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.interval;
    }

    /// How long until one more is let through.
    #[must_use]
    pub fn wait(&self, now: Instant) -> Duration {
        self.full_at.saturating_duration_since(now).saturating_sub(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::now::Now;

    fn taken(bucket: &mut Bucket, offered: usize, now: Instant) -> usize {
        (0..offered).filter(|_| bucket.take(now)).count()
    }

    #[test]
    fn it_lets_its_burst_through_at_once_and_its_rate_in_the_long_run() {
        let now = Now::made_up().instant;
        for (per_second, at_once) in [(1, 1), (10, 10), (10, 3), (1000, 250), (1_000_000, 7)] {
            let mut bucket = Bucket::with_burst(per_second, at_once, now);
            assert_eq!(taken(&mut bucket, 2 * at_once as usize, now), at_once as usize, "{per_second}/s");
            assert_eq!(taken(&mut bucket, 5, now), 0);
            let mut later = 0;
            for n in 1..=1000 {
                later += taken(&mut bucket, 10_000, now + Duration::from_millis(10) * n);
            }
            let rate = per_second as usize;
            let least = (10 * rate).min(1000 * at_once as usize);
            assert!(
                later.abs_diff(least) <= 1 + at_once as usize,
                "{later} in ten seconds at {per_second}/s"
            );
        }
    }

    #[test]
    fn those_that_go_first_find_a_place_when_the_others_have_used_up_theirs() {
        let now = Now::made_up().instant;
        let mut bucket = Bucket::with_burst(10, 10, now);
        assert_eq!(taken(&mut bucket, 20, now), 10);
        let first = (0..20).take_while(|_| bucket.take_first(now)).count();
        assert_eq!(first, 10);
        assert_eq!(bucket.wait(now), Duration::from_millis(1100), "and the others wait for them");
    }

    #[test]
    fn it_says_when_the_next_one_is_let_through() {
        let now = Now::made_up().instant;
        let mut bucket = Bucket::with_burst(10, 1, now);
        assert_eq!(bucket.wait(now), Duration::ZERO);
        assert!(bucket.take(now));
        assert_eq!(bucket.wait(now), Duration::from_millis(100));
        assert!(!bucket.take(now + Duration::from_millis(99)));
        assert!(bucket.take(now + Duration::from_millis(100)));
    }
}
