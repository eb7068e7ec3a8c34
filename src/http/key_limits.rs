//! How many messages each publisher key may publish a second, over the whole node. Pure but for the locks: `now` is an
//! argument. A room's own limits are the room's.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

use roomcast_core::room::bucket::Bucket;

/// How much of a second's worth may come at once.
const BURST: Duration = Duration::from_secs(1);

/// The limit of each publisher key; asked by every publish.
#[derive(Debug)]
pub struct KeyLimits {
    /// By key; one for everybody where the door is open. Empty: as much as comes.
    buckets: Vec<Mutex<Bucket>>,
    /// Nothing is refused.
    observe_only: bool,
}

/// What of a request is within its key's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within {
    /// This many reliable messages, from the first on, may go on to the room.
    pub reliable: usize,
    /// This many others, from the first on, may.
    pub others: usize,
    /// This many are past the limit, whether or not they are refused for it.
    pub over: usize,
}

impl KeyLimits {
    /// Limits of `messages_per_second` for so many keys, of which the door has none if it is open; 0: no limit.
    #[must_use]
    pub fn new(messages_per_second: u32, keys: usize, now: Instant) -> Self {
        let keys = if messages_per_second == 0 { 0 } else { keys.max(1) };
        let bucket = || Mutex::new(Bucket::new(messages_per_second, BURST, now));
        Self { buckets: (0..keys).map(|_| bucket()).collect(), observe_only: false }
    }

    /// The same, but nothing is refused any more.
    #[must_use]
    pub fn observing(self) -> Self {
        Self { observe_only: true, ..self }
    }

    /// Takes the messages of one request out of its key's limit, in which reliable ones go first.
    pub fn take(&self, key: usize, reliable: usize, others: usize, now: Instant) -> Within {
        let all = Within { reliable, others, over: 0 };
        let Some(bucket) = self.buckets.get(key) else { return all };
        // A bucket is whole between any two of its lines.
        let mut bucket = bucket.lock();
        // At one moment: after the first that finds no place none does. Reliable ones last, since they have more of them.
        let taken = (0..others).take_while(|_| bucket.take(now)).count();
        let first = (0..reliable).take_while(|_| bucket.take_first(now)).count();
        let over = others - taken + reliable - first;
        if self.observe_only {
            Within { over, ..all }
        } else {
            Within { reliable: first, others: taken, over }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_second_s_worth_comes_at_once_and_as_much_each_second() {
        let now = clock::now().instant;
        for rate in [1, 3, 10, 999, 1_000_000] {
            let limits = KeyLimits::new(rate, 1, now);
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
        let limits = KeyLimits::new(2, 2, now);
        for key in [0, 1] {
            assert_eq!(limits.take(key, 0, 3, now), Within { reliable: 0, others: 2, over: 1 });
        }
        let open = KeyLimits::new(2, 0, now);
        assert_eq!(open.take(0, 0, 3, now), Within { reliable: 0, others: 2, over: 1 });
        assert_eq!(open.take(0, 0, 1, now), Within { reliable: 0, others: 0, over: 1 });
    }

    #[test]
    fn reliable_messages_go_first_and_the_others_wait_for_them() {
        let now = clock::now().instant;
        let limits = KeyLimits::new(5, 1, now);
        assert_eq!(limits.take(0, 1, 9, now), Within { reliable: 1, others: 5, over: 4 });
        assert_eq!(limits.take(0, 9, 1, now), Within { reliable: 4, others: 0, over: 6 });
        let later = now + Duration::from_millis(400);
        assert_eq!(limits.take(0, 0, 1, later).over, 1, "they used up more than a second's worth");
        assert_eq!(limits.take(0, 3, 0, later), Within { reliable: 2, others: 0, over: 1 });
    }

    #[test]
    fn without_a_limit_or_while_observing_everything_is_taken() {
        let now = clock::now().instant;
        let none = KeyLimits::new(0, 2, now);
        assert_eq!(none.take(1, 0, 1000, now), Within { reliable: 0, others: 1000, over: 0 });
        let observed = KeyLimits::new(2, 1, now).observing();
        assert_eq!(observed.take(0, 0, 3, now), Within { reliable: 0, others: 3, over: 1 });
        assert_eq!(observed.take(0, 0, 3, now), Within { reliable: 0, others: 3, over: 3 });
        let half_a_second = now + Duration::from_millis(500);
        assert_eq!(observed.take(0, 0, 3, half_a_second).over, 2, "what was past it took no place");
    }
}
