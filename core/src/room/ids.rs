//! Idempotency: which publishers' ids a room has seen in the last five minutes, and with what payload.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::time::Instant;

use super::id::MessageId;
use super::message::Message;
use crate::limits::{ID_AGE_MAX, IDS_MAX};

/// What is known of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing: it is new.
    No,
    /// It was published with the same message.
    Same,
    /// It was published with another message.
    Other,
}

/// A digest of what a message says, to tell a retry from a reused id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Of type, key, count and payload.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        // Fixed seeds: the room is deterministic. A publisher who forges a collision fools only itself.
        let hasher = ahash::RandomState::with_seeds(1, 2, 3, 4);
        let mut state = hasher.build_hasher();
        (&message.type_name, &message.key, message.count, &message.payload).hash(&mut state);
        Self(std::hash::Hasher::finish(&state))
    }
}

/// The ids one room remembers.
#[derive(Debug, Default)]
pub struct Ids {
    known: BTreeMap<MessageId, Fingerprint>,
    /// Oldest first; exactly the keys of `known`.
    order: VecDeque<(Instant, MessageId)>,
}

impl Ids {
    /// What is known of `id`, published with this fingerprint.
    #[must_use]
    pub fn know(&self, id: &MessageId, fingerprint: Fingerprint) -> Known {
        match self.known.get(id) {
            None => Known::No,
            Some(known) if *known == fingerprint => Known::Same,
            Some(_) => Known::Other,
        }
    }

    /// Remembers a new id. How many others had to go before their time: 0 or 1.
    pub fn remember(&mut self, id: MessageId, fingerprint: Fingerprint, now: Instant) -> u64 {
        let full = self.order.len() >= IDS_MAX;
        if full {
            self.forget_oldest();
        }
        self.known.insert(id.clone(), fingerprint);
        self.order.push_back((now, id));
        u64::from(full)
    }

    /// Whether it knows none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Forgets what is older than five minutes.
    pub fn age(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > ID_AGE_MAX) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.order.pop_front() {
            self.known.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::now::Now;
    use crate::room::message::sample;

    #[test]
    fn a_retry_is_the_same_and_a_reused_id_is_not() {
        let (mut ids, now) = (Ids::default(), Now::made_up().instant);
        let id = MessageId::parse("a").unwrap();
        let (one, two) = (Fingerprint::of(&sample("chat", "1")), Fingerprint::of(&sample("chat", "2")));
        assert_eq!(ids.know(&id, one), Known::No);
        ids.remember(id.clone(), one, now);
        assert_eq!(ids.know(&id, one), Known::Same);
        assert_eq!(ids.know(&id, two), Known::Other);
        ids.age(now + ID_AGE_MAX + Duration::from_millis(1));
        assert_eq!(ids.know(&id, one), Known::No);
    }

    #[test]
    fn past_the_bound_the_oldest_go_and_are_counted() {
        let (mut ids, now) = (Ids::default(), Now::made_up().instant);
        let one = Fingerprint::of(&sample("chat", "1"));
        let evicted: u64 =
            (0..IDS_MAX + 3).map(|n| ids.remember(MessageId::parse(&n.to_string()).unwrap(), one, now)).sum();
        assert_eq!(evicted, 3);
        assert_eq!(ids.know(&MessageId::parse("2").unwrap(), one), Known::No);
        assert_eq!(ids.know(&MessageId::parse("3").unwrap(), one), Known::Same);
    }
}
