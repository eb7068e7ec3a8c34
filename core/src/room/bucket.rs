//! A token bucket: a rate in the long run, and a burst at once.
//!
//! The bucket is the generic cell rate algorithm in virtual scheduling form (ITU-T I.371). The whole state is
//! the moment `full_at`, so no level has to be refilled. With T = 1 s ÷ rate and τ = burst − T:
//!
//! - A place is free while `full_at − now ≤ τ`.
//! - A taken place sets `full_at = max(full_at, now) + T`.
//!
//! Example: 10 places a second, 3 at once, give T = 100 ms and τ = 200 ms. At 0 ms three places are taken,
//! which sets `full_at` to 300 ms. The next place is free at 100 ms, and another every 100 ms.
//!
//! Pure: `now` is an argument.

use std::time::{Duration, Instant};

/// A bucket of places. A message or a join takes a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// T: the distance of two places at the full rate.
    interval: Duration,
    /// τ: the largest lead of `full_at` over `now` at which a place is free.
    tolerance: Duration,
    /// From this moment on the whole burst is free.
    full_at: Instant,
}

impl Bucket {
    /// A full bucket with `per_second` places in the long run and `per_second` × `burst` at once. Each of the
    /// two numbers is at least one. T is in whole nanoseconds: above 1 000 000 a second the rate is off by
    /// more than 0.1 %.
    pub fn new(per_second: u32, burst: Duration, now: Instant) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        // The place that is asked for is part of the burst. A burst shorter than T still gives one place.
        Self { interval, tolerance: burst.saturating_sub(interval), full_at: now }
    }

    /// A full bucket with `per_second` places in the long run and `at_once` places at once, each at least 1.
    pub(super) fn with_burst(per_second: u32, at_once: u32, now: Instant) -> Self {
        Self::new(per_second, Duration::from_secs(1) / per_second.max(1) * at_once.max(1), now)
    }

    /// True if a place is free.
    pub(super) fn has_place(&self, now: Instant) -> bool {
        self.wait(now).is_zero()
    }

    /// Takes a free place; false if there is none.
    #[must_use]
    pub fn take(&mut self, now: Instant) -> bool {
        let has_place = self.has_place(now);
        if has_place {
            self.charge(now);
        }
        has_place
    }

    /// True if a place is free for a preferred asker. Preferred askers have a second burst of the same size.
    pub(super) fn has_place_for_first(&self, now: Instant) -> bool {
        // τ + T is the whole burst: with the others' burst used up, `full_at` may lead by one burst more.
        self.wait(now) <= self.tolerance + self.interval
    }

    /// Takes a free place for a preferred asker; false if there is none. All other askers wait the longer.
    #[must_use]
    pub fn take_first(&mut self, now: Instant) -> bool {
        let has_place = self.has_place_for_first(now);
        if has_place {
            self.charge(now);
        }
        has_place
    }

    /// Places at once of a full bucket.
    pub fn burst_places(&self) -> u64 {
        self.places_in(self.tolerance + self.interval)
    }

    /// Places that are free now.
    pub fn free_places(&self, now: Instant) -> u64 {
        let lead = self.full_at.saturating_duration_since(now);
        self.places_in((self.tolerance + self.interval).saturating_sub(lead))
    }

    fn places_in(&self, time: Duration) -> u64 {
        u64::try_from(time.as_nanos() / self.interval.as_nanos().max(1)).unwrap_or(u64::MAX)
    }

    /// Takes a place without asking. The debt delays later askers.
    pub(super) fn charge(&mut self, now: Instant) {
        // `max`: idle time fills the bucket to its burst and no further.
        self.full_at = self.full_at.max(now) + self.interval;
    }

    /// The time until a place is free; zero for a free place.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.full_at.saturating_duration_since(now).saturating_sub(self.tolerance)
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
    fn it_counts_its_free_places() {
        let now = Now::made_up().instant;
        let mut bucket = Bucket::with_burst(10, 4, now);
        for free in (0..4).rev() {
            assert!(bucket.take(now));
            assert_eq!(bucket.free_places(now), free);
        }
        assert_eq!(bucket.free_places(now + Duration::from_millis(250)), 2);
        assert_eq!((bucket.burst_places(), bucket.free_places(now + Duration::from_secs(9))), (4, 4));
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
