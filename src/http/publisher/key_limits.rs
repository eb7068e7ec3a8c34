//! The rate limit of each publisher key, over the whole node. In a cluster the limit is that of all nodes, and this
//! node follows its share. The limits of a room and of a type are the room's.
//!
//! Pure but for the locks: `now` is an argument.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::auth::{BearerKeys, KeyHash};
use crate::cluster::quotas::meter::{QuotaMeter, QuotaMeters};
use roomcast_core::cluster::quota::QuotaRate;
use roomcast_core::room::bucket::Bucket;

/// One second's worth of messages may come at once.
const BURST: Duration = Duration::from_secs(1);

/// The limit of each publisher key.
#[derive(Debug)]
pub(crate) struct KeyLimits {
    /// Messages of each key per second. 0: no limit.
    messages_per_second: u32,
    /// Key -> bucket. Empty without a limit.
    buckets: Vec<KeyBucket>,
    /// The limits of the cluster. `None`: this node is alone.
    meters: Option<Arc<QuotaMeters>>,
    /// Messages past the limit are counted and pass all the same.
    pub(crate) observe_only: bool,
}

/// The bucket of a key, or the single one of an open door. A reload that keeps the limit shares the bucket with
/// the configuration before.
#[derive(Debug, Clone)]
struct KeyBucket {
    key: Option<KeyHash>,
    bucket: Arc<Mutex<Bucket>>,
    /// This node's share. `None`: this node is alone.
    meter: Option<Arc<QuotaMeter>>,
}

/// The messages of a request within the limit, and the number past the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Within {
    /// Reliable messages within the limit, from the first on.
    pub(super) reliable: usize,
    /// Other messages within the limit, from the first on.
    pub(super) others: usize,
    /// Messages past the limit. With `limits.observe_only`, all messages go on.
    pub(super) over: usize,
}

impl Within {
    const NOTHING: Self = Self { reliable: 0, others: 0, over: 0 };
}

impl KeyLimits {
    /// A limit of `messages_per_second` for each of `keys`. An open door has no keys. A rate of 0 is no limit. `meters`
    /// has the limits of the cluster around the node.
    pub(crate) fn new(
        messages_per_second: u32,
        keys: &BearerKeys,
        meters: Option<Arc<QuotaMeters>>,
        now: Instant,
    ) -> Self {
        let none = Self { messages_per_second, buckets: Vec::new(), meters, observe_only: false };
        none.replaced_by(messages_per_second, keys, now)
    }

    /// The limits after a reload. A key that had the same limit before keeps its bucket.
    pub(crate) fn replaced_by(&self, messages_per_second: u32, keys: &BearerKeys, now: Instant) -> Self {
        let hashes = keys.hashes();
        let places = if messages_per_second == 0 { 0 } else { hashes.len().max(1) };
        let buckets = (0..places).map(|place| {
            let key = hashes.get(place).copied();
            let former = self.buckets.iter().find(|former| former.key == key);
            let former = former.filter(|_| self.messages_per_second == messages_per_second);
            former.cloned().unwrap_or_else(|| {
                let bucket = Bucket::new(messages_per_second, BURST, now);
                let hash = key.as_ref().map_or(&[][..], KeyHash::as_bytes);
                let meter = self.meters.as_ref().map(|meters| meters.of_key(hash, messages_per_second));
                KeyBucket { key, bucket: Arc::new(Mutex::new(bucket)), meter }
            })
        });
        let buckets = buckets.collect();
        Self { messages_per_second, buckets, meters: self.meters.clone(), observe_only: false }
    }

    /// Takes the messages of a request out of the key's limit. Reliable messages are shed last.
    pub(super) fn take(&self, key: usize, reliable: usize, others: usize, now: Instant) -> Within {
        let all = Within { reliable, others, over: 0 };
        if self.messages_per_second == 0 {
            return all;
        }
        // A key that these limits do not know has no share of them: under a limit, nothing is unlimited.
        let Some(KeyBucket { bucket, meter, .. }) = self.buckets.get(key) else {
            return self.within(all, Within::NOTHING);
        };
        let mut bucket = bucket.lock();
        if let Some(meter) = meter {
            meter.ask(reliable, others);
            bucket.follow(meter.rate().interval(), BURST, now);
        }
        // All at one moment, so nothing fits after the first refusal. Reliable messages come last, because
        // `take_first` gives them a second burst of their own.
        let taken = (0..others).take_while(|_| bucket.take(now)).count();
        let first = (0..reliable).take_while(|_| bucket.take_first(now)).count();
        self.within(all, Within { reliable: first, others: taken, over: 0 })
    }

    /// The rate of each key at this node, by the place of the key. Empty without a limit, and without a cluster.
    pub(crate) fn shares(&self) -> impl Iterator<Item = QuotaRate> {
        self.buckets.iter().filter_map(|bucket| Some(bucket.meter.as_ref()?.rate()))
    }

    /// The part `taken` of `all` messages, or all of them while the node observes.
    fn within(&self, all: Within, taken: Within) -> Within {
        let over = all.others - taken.others + all.reliable - taken.reliable;
        Within { over, ..if self.observe_only { all } else { taken } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use roomcast_core::room::id::NameKey;

    /// Keys with these digits as their hashes.
    fn keys(digits: &[u8]) -> BearerKeys {
        let hash = |digit| KeyHash::parse(&format!("sha256:{}", format!("{digit:02x}").repeat(32))).unwrap();
        BearerKeys::new(digits.iter().map(hash).collect())
    }

    /// Limits of a node alone.
    fn lone(rate: u32, keys: &BearerKeys, now: Instant) -> KeyLimits {
        KeyLimits::new(rate, keys, None, now)
    }

    /// Each SIGHUP used to give every publisher a further second's worth.
    #[test]
    fn a_reload_gives_no_key_a_further_burst_unless_its_limit_changes() {
        let now = clock::now().instant;
        let none_left = Within { reliable: 0, others: 0, over: 1 };
        let before = lone(2, &keys(&[1, 2]), now);
        assert_eq!(before.take(1, 0, 2, now).over, 0);
        let rotated = before.replaced_by(2, &keys(&[2, 3]), now);
        assert_eq!(rotated.take(0, 0, 1, now), none_left, "the same key, at another place");
        assert_eq!(rotated.take(1, 0, 2, now).over, 0, "a new key");
        assert_eq!(before.take(1, 0, 1, now), none_left, "for requests under way, too");
        assert_eq!(rotated.replaced_by(3, &keys(&[2]), now).take(0, 0, 3, now).over, 0, "another limit");
        let open = lone(2, &keys(&[]), now);
        assert_eq!(open.take(0, 0, 2, now).over, 0);
        assert_eq!(open.replaced_by(2, &keys(&[]), now).take(0, 0, 1, now), none_left);
        assert_eq!(open.replaced_by(2, &keys(&[1]), now).take(0, 0, 2, now).over, 0);
    }

    #[test]
    fn a_second_s_worth_comes_at_once_and_as_much_each_second() {
        let now = clock::now().instant;
        for rate in [1, 3, 10, 999, 1_000_000] {
            let limits = lone(rate, &keys(&[1]), now);
            let rate = rate as usize;
            assert_eq!(
                limits.take(0, 0, rate + 7, now),
                Within { reliable: 0, others: rate, over: 7 },
                "{rate}/s"
            );
            assert_eq!(limits.take(0, 0, 1, now), Within { reliable: 0, others: 0, over: 1 }, "{rate}/s");
            let later = now + Duration::from_secs(1);
            assert!(limits.take(0, 0, rate, later).over <= 1, "{rate}/s: intervals are whole nanoseconds");
        }
    }

    #[test]
    fn each_key_has_a_limit_of_its_own_and_an_open_door_has_one() {
        let now = clock::now().instant;
        let limits = lone(2, &keys(&[1, 2]), now);
        for key in [0, 1] {
            assert_eq!(limits.take(key, 0, 3, now), Within { reliable: 0, others: 2, over: 1 });
        }
        let open = lone(2, &keys(&[]), now);
        assert_eq!(open.take(0, 0, 3, now), Within { reliable: 0, others: 2, over: 1 });
        assert_eq!(open.take(0, 0, 1, now), Within { reliable: 0, others: 0, over: 1 });
    }

    #[test]
    fn reliable_messages_go_first_and_the_others_wait_for_them() {
        let now = clock::now().instant;
        let limits = lone(5, &keys(&[1]), now);
        assert_eq!(limits.take(0, 1, 9, now), Within { reliable: 1, others: 5, over: 4 });
        assert_eq!(limits.take(0, 9, 1, now), Within { reliable: 4, others: 0, over: 6 });
        let later = now + Duration::from_millis(400);
        assert_eq!(limits.take(0, 0, 1, later).over, 1, "they used up more than a second's worth");
        assert_eq!(limits.take(0, 3, 0, later), Within { reliable: 2, others: 0, over: 1 });
    }

    #[test]
    fn without_a_limit_or_while_observing_everything_is_taken() {
        let now = clock::now().instant;
        let none = lone(0, &keys(&[1, 2]), now);
        assert_eq!(none.take(1, 0, 1000, now), Within { reliable: 0, others: 1000, over: 0 });
        let observed = KeyLimits { observe_only: true, ..lone(2, &keys(&[1]), now) };
        assert_eq!(observed.take(0, 0, 3, now), Within { reliable: 0, others: 3, over: 1 });
        assert_eq!(observed.take(0, 0, 3, now), Within { reliable: 0, others: 3, over: 3 });
        let half_a_second = now + Duration::from_millis(500);
        assert_eq!(observed.take(0, 0, 3, half_a_second).over, 2, "what was past it took no place");
    }

    #[test]
    fn in_a_cluster_a_key_follows_its_share_and_its_demand_is_counted() {
        let now = clock::now().instant;
        let meters = Arc::new(QuotaMeters::new(NameKey([1, 2]), ""));
        let limits = KeyLimits::new(10, &keys(&[1]), Some(Arc::clone(&meters)), now);
        assert_eq!(limits.take(0, 0, 4, now).over, 0, "one node, so the whole limit");
        let hash = [1; 32];
        let halved = limits.replaced_by(5, &keys(&[1]), now);
        assert_eq!(halved.take(0, 0, 6, now), Within { reliable: 0, others: 5, over: 1 }, "a reload");
        let share = |limits: &KeyLimits| limits.shares().map(|rate| rate.permille()).collect::<Vec<_>>();
        assert_eq!(share(&halved), [5000]);
        assert!(Arc::ptr_eq(halved.buckets[0].meter.as_ref().unwrap(), &meters.of_key(&hash, 5)));
        assert_eq!(share(&halved.replaced_by(0, &keys(&[1]), now)), [0; 0]);
    }

    #[test]
    fn a_key_without_a_bucket_is_not_unlimited() {
        let now = clock::now().instant;
        let limits = lone(2, &keys(&[1]), now);
        assert_eq!(limits.take(1, 1, 2, now), Within { over: 3, ..Within::NOTHING });
        let observed = KeyLimits { observe_only: true, ..limits };
        assert_eq!(observed.take(1, 1, 2, now), Within { reliable: 1, others: 2, over: 3 });
    }
}
