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

/// Longest time until a bucket that follows a rate is full again: a debt of one second at the highest rate is none at
/// the lowest.
const DEBT_AGE_MAX: Duration = Duration::from_secs(3600);

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

    /// Changes the rate to a place each `interval`, and the places at once to those of `burst` at the new rate, at
    /// least one. Free places and debts stay, in places, as far as the burst has room: a rate that moves between two
    /// buckets gives no place twice.
    pub fn follow(&mut self, interval: Duration, burst: Duration, now: Instant) {
        let interval = interval.max(Duration::from_nanos(1));
        let tolerance = burst.saturating_sub(interval);
        if (interval, tolerance) == (self.interval, self.tolerance) {
            return;
        }
        let nanos = |time: Duration| i128::try_from(time.as_nanos()).unwrap_or(i128::MAX);
        let lead = nanos(self.full_at.saturating_duration_since(now));
        // In the time of the new rate. Below zero: a debt of askers that went first.
        let free = (nanos(self.tolerance + self.interval) - lead).saturating_mul(nanos(interval))
            / nanos(self.interval).max(1);
        let lead = (nanos(tolerance + interval) - free).clamp(0, nanos(DEBT_AGE_MAX));
        self.interval = interval;
        self.tolerance = tolerance;
        self.full_at = now + Duration::from_nanos(u64::try_from(lead).unwrap_or(0));
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
    fn a_bucket_that_follows_a_rate_keeps_its_places_as_far_as_the_burst_has_room() {
        let now = Now::made_up().instant;
        let second = Duration::from_secs(1);
        let mut bucket = Bucket::new(100, second, now);
        assert_eq!(taken(&mut bucket, 40, now), 40);
        bucket.follow(second / 1000, second, now);
        assert_eq!(bucket.free_places(now), 60, "a larger burst fills up with time");
        bucket.follow(second / 10, second, now);
        assert_eq!(bucket.free_places(now), 10, "a smaller burst holds no more");
        bucket.follow(second * 5, second, now);
        assert_eq!((bucket.free_places(now), taken(&mut bucket, 5, now)), (1, 1), "at least one place");
        assert!(!bucket.take(now + second * 4) && bucket.take(now + second * 5));
    }

    #[test]
    fn a_debt_stays_when_the_rate_moves() {
        let now = Now::made_up().instant;
        let second = Duration::from_secs(1);
        let mut bucket = Bucket::new(100, second, now);
        assert_eq!(taken(&mut bucket, 200, now), 100);
        assert_eq!((0..200).take_while(|_| bucket.take_first(now)).count(), 100);
        bucket.follow(second / 50, second, now);
        assert!(!bucket.has_place(now + second * 2), "100 places at 50 a second are owed");
        assert!(bucket.has_place(now + second * 2 + second / 50));
        bucket.follow(second / 1_000_000, second, now);
        assert_eq!(bucket.wait(now), Duration::from_micros(101));
    }

    /// Two buckets that share a rate, and move it to the busier one. With free places kept as time in place of number,
    /// nearly twice the rate would pass.
    #[test]
    fn a_rate_that_moves_between_buckets_lets_no_more_through_than_the_rate_and_one_burst() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut now = Now::made_up().instant;
        let second = Duration::from_secs(1);
        let mut buckets = [Bucket::new(500, second, now), Bucket::new(500, second, now)];
        let mut through = 0;
        for turn in 0..100 {
            let busy = turn % 2;
            let rates = if busy == 0 { [900, 100] } else { [100, 900] };
            for (bucket, rate) in buckets.iter_mut().zip(rates) {
                bucket.follow(second / rate, second, now);
            }
            for _ in 0..10 {
                now += Duration::from_millis(random.u64(50..150));
                through += taken(&mut buckets[busy], random.usize(0..2000), now);
            }
        }
        assert!(through <= 1000 * 101 + 20_000, "seed {seed}: {through}");
        assert!(through >= 80_000, "seed {seed}: {through}");
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
