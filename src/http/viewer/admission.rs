//! The rate of handshakes over the whole node, and the moment at which a refused device may come back. In a cluster
//! the rate is that of a region, and this node follows its share.
//!
//! The start of a show, or the return of a network, brings more devices at once than a node can take in
//! beside its fan-out. A token bucket limits the joins. A device past the rate is refused before the node has
//! spent anything on the join.
//!
//! Each refused device gets a different `Retry-After`, or the same storm would come again a second later.
//! The refused devices stand in an imaginary line, served at the full rate. Example: at 1 000
//! joins a second, 10 000 refused devices need 10 s. With [`JOIN_RETRY_AFTER_SLACK`] of 2 s, the last device
//! draws 1 to 12 s.
//!
//! Shares: past 80 % of the burst, an address that has joined more often within the last second than there
//! are places left is refused first, if others join beside it. A loop of joins from one address so leaves the
//! last fifth to the others.
//!
//! Pure but for the key of the shares: `now` is an argument, and the jitter is a mixed count.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::quotas::meter::QuotaMeter;
use crate::seat::Address;
use roomcast_core::cluster::quota::QuotaRate;
use roomcast_core::limits::{JOIN_BURST, JOIN_RETRY_AFTER_MAX, JOIN_RETRY_AFTER_SLACK};
use roomcast_core::room::bucket::Bucket;
use roomcast_core::room::id::mix;

/// Counters of joins by address.
const SHARES: usize = 4096;
/// Time over which the joins of an address are counted.
const SHARES_AGE_MAX: Duration = Duration::from_secs(1);

/// The node's admission: the rate, and the imaginary line of the refused devices. Every handshake asks, after
/// all other checks.
#[derive(Debug)]
pub(crate) struct Admission {
    bucket: Bucket,
    /// The time between two joins at the full rate.
    interval: Duration,
    /// The moment at which the last refused device could join, if the line were real.
    caught_up_at: Instant,
    /// Refusals so far: the seed of the next draw.
    refused: u64,
    shares: JoinShares,
    /// This node's share of the joins of its region. `None`: this node is alone.
    meter: Option<Arc<QuotaMeter>>,
}

/// Joins of the present second by address.
#[derive(Debug)]
struct JoinShares {
    /// Addresses whose hashes meet count as one. Nobody can choose such a meeting: the hash has a key.
    joined: Box<[u32; SHARES]>,
    all: u32,
    key: RandomState,
    began: Instant,
}

impl JoinShares {
    /// The joins of an address, as a place to count in.
    fn of(&mut self, address: Address, now: Instant) -> &mut u32 {
        if self.began + SHARES_AGE_MAX <= now {
            self.began = now;
            self.all = 0;
            self.joined.fill(0);
        }
        let at = self.key.hash_one(address) % SHARES as u64;
        &mut self.joined[usize::try_from(at).unwrap_or_default()]
    }
}

impl Admission {
    /// Admits `joins_per_second`, at least 1, or as many as `meter` says. A quarter of a second's worth may come at
    /// once.
    pub(crate) fn new(joins_per_second: u32, meter: Option<Arc<QuotaMeter>>, now: Instant) -> Self {
        let interval = Duration::from_secs(1) / joins_per_second.max(1);
        Self {
            bucket: Bucket::new(joins_per_second, JOIN_BURST, now),
            interval,
            caught_up_at: now,
            refused: 0,
            shares: JoinShares { joined: Box::new([0; SHARES]), all: 0, key: RandomState::new(), began: now },
            meter,
        }
    }

    /// The share of this node. `None`: this node is alone.
    pub(crate) fn share(&self) -> Option<QuotaRate> {
        self.meter.as_ref().map(|meter| meter.rate())
    }

    /// Takes a place in the rate for a handshake from `address`. `None`: nobody has named the address.
    ///
    /// # Errors
    /// Past the rate, or past the share of the address: the wait of this device, as from
    /// [`Admission::put_off`].
    pub(super) fn admit(&mut self, address: Option<Address>, now: Instant) -> Result<(), Duration> {
        if let Some(meter) = &self.meter {
            meter.ask(0, 1);
            self.interval = meter.rate().interval();
            self.bucket.follow(self.interval, JOIN_BURST, now);
        }
        if address.is_some_and(|address| self.is_past_share(address, now)) || !self.bucket.take(now) {
            return Err(self.put_off(now));
        }
        if let Some(address) = address {
            *self.shares.of(address, now) += 1;
            self.shares.all += 1;
        }
        Ok(())
    }

    fn is_past_share(&mut self, address: Address, now: Instant) -> bool {
        let joined = *self.shares.of(address, now);
        let free = self.bucket.free_places(now);
        // Alone at the door, an address takes nothing from others.
        let has_others = joined < self.shares.all;
        has_others && free < self.bucket.burst_places() / 5 && u64::from(joined) > free
    }

    /// Draws the wait of a device without a place on the node: whole seconds, from 1 to
    /// [`JOIN_RETRY_AFTER_MAX`], evenly over the time of the whole line at the full rate, plus the slack.
    pub(super) fn put_off(&mut self, now: Instant) -> Duration {
        // Past the longest wait the line is cut short: a device must not be sent away for an hour.
        let ahead = (self.caught_up_at.max(now) + self.interval).min(now + JOIN_RETRY_AFTER_MAX);
        self.caught_up_at = ahead;
        self.refused = self.refused.wrapping_add(1);
        // `Retry-After` knows whole seconds only, so the need is rounded up.
        let needed = ahead.saturating_duration_since(now) + Duration::from_nanos(999_999_999);
        // New devices come meanwhile and take part of the rate: hence the slack.
        let within = Duration::from_secs(needed.as_secs()) + JOIN_RETRY_AFTER_SLACK;
        let within = within.min(JOIN_RETRY_AFTER_MAX).as_secs();
        Duration::from_secs(1 + mix(self.refused) % within)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::clock;
    use crate::cluster::quotas::meter::QuotaMeters;
    use roomcast_core::room::id::NameKey;

    fn line(joins_per_second: u32) -> (Admission, Instant) {
        let now = clock::now().instant;
        (Admission::new(joins_per_second, None, now), now)
    }

    fn let_in(line: &mut Admission, asking: usize, now: Instant) -> usize {
        (0..asking).filter(|_| line.admit(None, now).is_ok()).count()
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
            let mut now = began;
            let mut came_in = 0;
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
            assert_eq!(line.admit(None, now), Ok(()));
            now += Duration::from_micros(50);
        }
    }

    #[test]
    fn an_address_that_joins_most_leaves_the_last_fifth_to_others() {
        let (mut line, now) = line(20_000);
        let loud = Some(Address::of([192, 0, 2, 1].into()));
        let quiet = |n: u8| Some(Address::of([192, 0, 2, n].into()));
        assert_eq!(line.admit(quiet(2), now), Ok(()));
        let let_in = (0..10_000).filter(|_| line.admit(loud, now).is_ok()).count();
        assert_eq!(let_in, 4000, "all but a fifth of the burst of 5 000");
        let others = (3..=203).filter(|n| line.admit(quiet(*n), now).is_ok()).count();
        // The key of the hash is drawn: an address or two may count as the loud one.
        assert!(others >= 197, "{others} of 201");
        // The next second is anybody's again.
        let later = now + SHARES_AGE_MAX;
        assert_eq!(line.admit(loud, later), Ok(()));
        let (mut line, now) = self::line(20_000);
        let alone = (0..10_000).filter(|_| line.admit(loud, now).is_ok()).count();
        assert_eq!(alone, 5000, "nobody else wants them");
    }

    #[test]
    fn in_a_cluster_joins_follow_the_share_of_the_node() {
        let now = clock::now().instant;
        let meters = QuotaMeters::new(NameKey([1, 2]), "eu");
        let mut line = Admission::new(1000, Some(meters.of_joins(1000)), now);
        assert_eq!(let_in(&mut line, 100, now), 100);
        meters.of_joins(100);
        assert_eq!(let_in(&mut line, 100, now), 25, "a quarter of a second's worth");
        assert_eq!(line.share().map(|share| share.permille()), Some(100_000));
        assert_eq!(line.interval, Duration::from_millis(10), "the line of the refused is served as fast");
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
            if let Err(retry_after) = line.admit(None, now) {
                *moments.entry(retry_after.as_secs()).or_insert(0) += 1;
            }
        }
        assert_eq!(moments.values().sum::<u32>(), 10_000);
        let within = 10 + JOIN_RETRY_AFTER_SLACK.as_secs();
        assert!(moments.keys().all(|second| (1..=within).contains(second)), "{moments:?}");
        // The first devices saw a shorter line than the last ones, so an early second is drawn up to three
        // times as often as its share. No second gets the whole storm again.
        assert_eq!(moments.len(), usize::try_from(within).unwrap(), "{moments:?}");
        assert!(moments.values().all(|devices| *devices < 3000), "{moments:?}");
    }

    #[test]
    fn nobody_is_sent_away_for_longer_than_the_longest_and_the_line_is_forgotten() {
        let (mut line, now) = line(1);
        let longest = (0..100_000).filter_map(|_| line.admit(None, now).err()).max();
        assert_eq!(longest, Some(JOIN_RETRY_AFTER_MAX));
        let later = now + JOIN_RETRY_AFTER_MAX * 2;
        assert_eq!(line.admit(None, later), Ok(()));
        let refused = line.admit(None, later).unwrap_err();
        assert!(refused <= Duration::from_secs(1) + JOIN_RETRY_AFTER_SLACK, "{refused:?}");
    }
}
