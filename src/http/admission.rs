//! How fast devices may come in: a token bucket for the handshakes of the whole node, and when those past it are to come
//! back.
//!
//! A show that begins, or a network that comes back, brings more devices at once than a node can take in beside its
//! fan-out. Whoever is past the rate is told so before anything was done for it, and told a moment of its own, so that the
//! same storm does not come again a second later. Pure but for the lock around it: `now` is an argument, and jitter is a
//! mixed count.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

use roomcast_core::limits::{JOIN_BURST, JOIN_RETRY_AFTER_MAX, JOIN_RETRY_AFTER_SLACK};
use roomcast_core::room::bucket::Bucket;
use roomcast_core::room::id::mix;

/// The node's admission, asked by every handshake.
#[derive(Debug)]
pub struct Admission(Mutex<Line>);

/// This handshake is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooFast {
    /// When to come back: whole seconds, from 1 to [`JOIN_RETRY_AFTER_MAX`], another one for each that is refused.
    pub retry_after: Duration,
}

impl Admission {
    /// Lets in `joins_per_second`, at least 1. Of those that come at once, a quarter of a second's worth.
    #[must_use]
    pub fn new(joins_per_second: u32, now: Instant) -> Self {
        Self(Mutex::new(Line::new(joins_per_second, now)))
    }

    /// Whether a handshake that is otherwise in order may come in; takes its place in the rate.
    ///
    /// # Errors
    /// [`TooFast`] past the rate.
    pub fn admit(&self, now: Instant) -> Result<(), TooFast> {
        self.with(|line| line.admit(now))
    }

    /// A device that may come in but finds no place: when it is to come back.
    pub fn put_off(&self, now: Instant) -> TooFast {
        self.with(|line| line.refuse(now))
    }

    fn with<T>(&self, ask: impl FnOnce(&mut Line) -> T) -> T {
        // A line is whole between any two of its lines.
        ask(&mut self.0.lock())
    }
}

/// Who may come in now, and those that were refused, as if they stood in line.
#[derive(Debug)]
struct Line {
    bucket: Bucket,
    /// Between two joins at the full rate.
    interval: Duration,
    /// When all that were refused could have been let in, had they stood in line.
    caught_up_at: Instant,
    refused: u64,
}

impl Line {
    fn new(joins_per_second: u32, now: Instant) -> Self {
        let interval = Duration::from_secs(1) / joins_per_second.max(1);
        Self {
            bucket: Bucket::new(joins_per_second, JOIN_BURST, now),
            interval,
            caught_up_at: now,
            refused: 0,
        }
    }

    fn admit(&mut self, now: Instant) -> Result<(), TooFast> {
        if self.bucket.take(now) { Ok(()) } else { Err(self.refuse(now)) }
    }

    /// Draws evenly over the time that those refused lately need to come in at the full rate, and a little more: others
    /// come meanwhile, too.
    fn refuse(&mut self, now: Instant) -> TooFast {
        let ahead = (self.caught_up_at.max(now) + self.interval).min(now + JOIN_RETRY_AFTER_MAX);
        self.caught_up_at = ahead;
        self.refused = self.refused.wrapping_add(1);
        let needed = ahead.saturating_duration_since(now) + Duration::from_nanos(999_999_999);
        let within = Duration::from_secs(needed.as_secs()) + JOIN_RETRY_AFTER_SLACK;
        let within = within.min(JOIN_RETRY_AFTER_MAX).as_secs();
        TooFast { retry_after: Duration::from_secs(1 + mix(self.refused) % within) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::clock;

    fn line(joins_per_second: u32) -> (Line, Instant) {
        let now = clock::now().instant;
        (Line::new(joins_per_second, now), now)
    }

    fn let_in(line: &mut Line, asking: usize, now: Instant) -> usize {
        (0..asking).filter(|_| line.admit(now).is_ok()).count()
    }

    #[test]
    fn a_quarter_of_a_seconds_worth_may_come_at_once_and_one_always_may() {
        for (rate, burst) in [(20_000, 5000), (1_000_000, 250_000), (4, 1), (3, 1), (1, 1)] {
            let (mut line, now) = line(rate);
            assert_eq!(let_in(&mut line, 1_100_000, now), burst, "at {rate} a second");
            assert_eq!(let_in(&mut line, 10, now), 0);
        }
    }

    #[test]
    fn however_they_come_no_more_than_the_rate_and_one_burst_are_let_in() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..50 {
            let rate = random.u32(1..50_000);
            let (mut line, began) = line(rate);
            let (mut now, mut came_in) = (began, 0);
            for _ in 0..200 {
                now += Duration::from_micros(random.u64(0..200_000));
                came_in += let_in(&mut line, random.usize(0..20_000), now);
            }
            let seconds = (now - began).as_secs_f64();
            let most = f64::from(rate) * seconds + f64::from(rate / 4).max(1.0) + 1.0;
            assert!(f64::from(u32::try_from(came_in).unwrap()) <= most, "seed {seed}: {came_in} of {most}");
        }
    }

    #[test]
    fn a_steady_stream_at_the_rate_is_never_refused() {
        let (mut line, mut now) = line(20_000);
        for _ in 0..100_000 {
            assert_eq!(line.admit(now), Ok(()));
            now += Duration::from_micros(50);
        }
    }

    #[test]
    fn once_the_time_has_passed_joins_work_again() {
        let (mut line, now) = line(1);
        assert_eq!(let_in(&mut line, 2, now), 1);
        assert_eq!(let_in(&mut line, 1, now + Duration::from_millis(700)), 0);
        assert_eq!(let_in(&mut line, 2, now + Duration::from_secs(1)), 1);
    }

    #[test]
    fn those_refused_are_spread_over_the_time_that_the_rate_needs_for_them() {
        let (mut line, now) = line(1000);
        let mut moments = BTreeMap::new();
        for _ in 0..10_250 {
            if let Err(TooFast { retry_after }) = line.admit(now) {
                *moments.entry(retry_after.as_secs()).or_insert(0) += 1;
            }
        }
        assert_eq!(moments.values().sum::<u32>(), 10_000);
        let within = 10 + JOIN_RETRY_AFTER_SLACK.as_secs();
        assert!(moments.keys().all(|second| (1..=within).contains(second)), "{moments:?}");
        // The first ones saw a shorter line than the last: a second near the beginning is drawn up to three times as
        // often as its share. Never is it the whole storm again.
        assert_eq!(moments.len(), usize::try_from(within).unwrap(), "{moments:?}");
        assert!(moments.values().all(|devices| *devices < 3000), "{moments:?}");
    }

    #[test]
    fn nobody_is_sent_away_for_longer_than_the_longest_and_the_line_is_forgotten() {
        let (mut line, now) = line(1);
        let longest = (0..100_000).filter_map(|_| line.admit(now).err()).map(|it| it.retry_after).max();
        assert_eq!(longest, Some(JOIN_RETRY_AFTER_MAX));
        let later = now + JOIN_RETRY_AFTER_MAX * 2;
        assert_eq!(line.admit(later), Ok(()));
        let refused = line.admit(later).unwrap_err();
        assert!(refused.retry_after <= Duration::from_secs(1) + JOIN_RETRY_AFTER_SLACK, "{refused:?}");
    }
}
