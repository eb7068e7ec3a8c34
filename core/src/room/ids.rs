//! Idempotency: the ids of best-effort messages of the last five minutes, each with a fingerprint of the
//! message.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::id::MessageId;
use super::message::Message;
use crate::limits::{ID_AGE_MAX, IDS_MAX};

/// A room's knowledge of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// The id is new.
    No,
    /// The id was published with the same message: a retry.
    Same,
    /// The id was published with another message: a mistake of the publisher.
    Other,
}

/// A digest of a message's content. Equal digests tell a retry from a reused id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// The digest of type, key, count and payload.
    pub(super) fn of(message: &Message) -> Self {
        // Fixed seeds: the room is deterministic. A publisher who forges a collision fools only itself.
        let content = (&message.type_name, &message.key, message.count, &message.payload);
        Self(ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(content))
    }
}

/// The ids remembered by a room, at most `IDS_MAX`.
#[derive(Debug, Default)]
pub(super) struct Ids {
    known: BTreeMap<MessageId, Fingerprint>,
    /// Oldest first; exactly the keys of `known`.
    order: VecDeque<(Instant, MessageId)>,
}

impl Ids {
    pub(super) fn know(&self, id: &MessageId, fingerprint: Fingerprint) -> Known {
        match self.known.get(id) {
            None => Known::No,
            Some(known) if *known == fingerprint => Known::Same,
            Some(_) => Known::Other,
        }
    }

    /// Remembers a new id ([`Known::No`]). Returns the ids forgotten before their time: 0 or 1.
    pub(super) fn remember(&mut self, id: MessageId, fingerprint: Fingerprint, now: Instant) -> u64 {
        // A flood of ids costs the oldest its protection, never memory. The tally counts each loss.
        let is_full = self.order.len() >= IDS_MAX;
        if is_full {
            self.forget_oldest();
        }
        self.known.insert(id.clone(), fingerprint);
        self.order.push_back((now, id));
        u64::from(is_full)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Forgets ids older than `ID_AGE_MAX`.
    pub(super) fn age(&mut self, now: Instant) {
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
        let mut ids = Ids::default();
        let now = Now::made_up().instant;
        let id = MessageId::parse("a").unwrap();
        let one = Fingerprint::of(&sample("chat", "1"));
        let two = Fingerprint::of(&sample("chat", "2"));
        assert_eq!(ids.know(&id, one), Known::No);
        ids.remember(id.clone(), one, now);
        assert_eq!(ids.know(&id, one), Known::Same);
        assert_eq!(ids.know(&id, two), Known::Other);
        ids.age(now + ID_AGE_MAX + Duration::from_millis(1));
        assert_eq!(ids.know(&id, one), Known::No);
    }

    #[test]
    fn past_the_bound_the_oldest_go_and_are_counted() {
        let mut ids = Ids::default();
        let now = Now::made_up().instant;
        let one = Fingerprint::of(&sample("chat", "1"));
        let evicted: u64 =
            (0..IDS_MAX + 3).map(|n| ids.remember(MessageId::parse(&n.to_string()).unwrap(), one, now)).sum();
        assert_eq!(evicted, 3);
        assert_eq!(ids.know(&MessageId::parse("2").unwrap(), one), Known::No);
        assert_eq!(ids.know(&MessageId::parse("3").unwrap(), one), Known::Same);
    }
}
