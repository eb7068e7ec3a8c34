//! Idempotency: the ids of best-effort messages of the last five minutes, each with a fingerprint of the
//! message.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::Xxh3;

use super::id::{Key, MessageId};
use super::message::{Message, Payload};
use crate::limits::{ID_AGE_MAX, IDS_MAX};
use crate::node_proto as pb;
use crate::now::millis;

/// A digest of a message's content. Equal digests tell a retry from a reused id. The store keeps the digest,
/// so the digest is the same on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// The digest of type, key, count and payload.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        // A publisher who forges a collision fools only itself.
        let mut sum = Xxh3::new();
        for name in [message.type_name.as_str(), message.key.as_ref().map_or("", Key::as_str)] {
            // The length keeps a type with a key apart from a longer type.
            sum.update(&[u8::try_from(name.len()).expect("names are at most 128 bytes")]);
            sum.update(name.as_bytes());
        }
        sum.update(&message.count.to_le_bytes());
        sum.update(&[u8::from(matches!(message.payload, Payload::Opaque(_)))]);
        sum.update(message.payload.bytes());
        Self(sum.digest())
    }
}

/// The ids remembered by a room, at most `IDS_MAX`.
#[derive(Debug, Default)]
pub(super) struct Ids {
    /// Id -> the digest of the message published with the id.
    pub(super) known: BTreeMap<MessageId, Fingerprint>,
    /// Oldest first; exactly the keys of `known`.
    order: VecDeque<(Instant, MessageId)>,
}

impl Ids {
    /// Remembers a new id. Returns the ids forgotten before their time: 0 or 1.
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

    /// Forgets ids older than `ID_AGE_MAX`. Returns whether some are left.
    pub(super) fn age(&mut self, now: Instant) -> bool {
        while self.order.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > ID_AGE_MAX) {
            self.forget_oldest();
        }
        !self.known.is_empty()
    }

    /// The ids for the next home of the room, oldest first.
    pub(super) fn handed(&self, now: Instant) -> Vec<pb::UsedId> {
        let used = |(at, id): &(Instant, MessageId)| {
            let fingerprint = self.known.get(id)?;
            let age_ms = millis(now.saturating_duration_since(*at));
            Some(pb::UsedId { id: id.as_str().into(), fingerprint: fingerprint.0, age_ms })
        };
        self.order.iter().filter_map(used).collect()
    }

    /// The ids of a former home. `None`: no home says so.
    pub(super) fn of_handed(said: Vec<pb::UsedId>, now: Instant) -> Option<Self> {
        let mut ids = Self::default();
        if said.len() > IDS_MAX {
            return None;
        }
        for used in said {
            let age = Duration::from_millis(used.age_ms.min(millis(ID_AGE_MAX)));
            let id = MessageId::parse(&used.id).ok()?;
            if ids.known.insert(id.clone(), Fingerprint(used.fingerprint)).is_some() {
                return None;
            }
            ids.order.push_back((now.checked_sub(age).unwrap_or(now), id));
        }
        Some(ids)
    }

    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.order.pop_front() {
            self.known.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(ids.known.get(&id), None);
        ids.remember(id.clone(), one, now);
        assert_eq!(ids.known.get(&id), Some(&one));
        assert_ne!(ids.known.get(&id), Some(&two));
        ids.age(now + ID_AGE_MAX + Duration::from_millis(1));
        assert_eq!(ids.known.get(&id), None);
    }

    #[test]
    fn past_the_bound_the_oldest_go_and_are_counted() {
        let mut ids = Ids::default();
        let now = Now::made_up().instant;
        let one = Fingerprint::of(&sample("chat", "1"));
        let evicted: u64 =
            (0..IDS_MAX + 3).map(|n| ids.remember(MessageId::parse(&n.to_string()).unwrap(), one, now)).sum();
        assert_eq!(evicted, 3);
        assert_eq!(ids.known.get(&MessageId::parse("2").unwrap()), None);
        assert_eq!(ids.known.get(&MessageId::parse("3").unwrap()), Some(&one));
    }
}
