//! A room's limits for publishers: a rate of messages for the room, and for each type. Also a room's changes
//! to the policies of types. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::bucket::Bucket;
use super::id::TypeName;
use super::message::{Class, Message, ShedReason};
use super::pace::{RoomRules, RoomSettings};
use super::policy::{Merge, PolicyChange, TypeRate};
use super::tally::RoomTally;
use crate::limits::COUNT_WIRE_BYTES;

/// Burst of the room's rate. The configuration has no key for this burst.
const BURST: Duration = Duration::from_secs(1);

/// The limits of a room.
#[derive(Debug, Default)]
pub(super) struct Limits {
    pub(super) changes: BTreeMap<TypeName, PolicyChange>,
    /// Types with a rate, from their first message on. Only a configured or changed type has a rate.
    of_types: BTreeMap<TypeName, Metered<TypeRate>>,
    /// The room's own rate, in messages a second.
    of_room: Option<Metered<u32>>,
}

/// A bucket, and the rate behind the bucket.
#[derive(Debug, Clone, Copy)]
struct Metered<R> {
    rate: R,
    bucket: Bucket,
}

impl Limits {
    /// Takes over the type changes of `settings`.
    pub(super) fn configure(&mut self, settings: &RoomSettings) {
        for (type_name, change) in &settings.types {
            let before = self.changes.get(type_name).copied().unwrap_or_default();
            self.changes.insert(type_name.clone(), before.then(change));
        }
    }

    /// The number of changed types once `settings` are taken over.
    pub(super) fn changes_with(&self, settings: &RoomSettings) -> usize {
        let more = settings.types.iter().filter(|(type_name, _)| !self.changes.contains_key(type_name));
        self.changes.len() + more.count()
    }

    /// Gives a message the room's policy of the type.
    pub(super) fn apply(&self, message: &mut Message) {
        // Most rooms change nothing: no look-up for them.
        if self.changes.is_empty() {
            return;
        }
        let Some(change) = self.changes.get(&message.type_name) else { return };
        let before = message.policy;
        message.policy = before.with(change);
        // A ttl that differs from the node's default came from the publisher, and counts for more than the
        // room's.
        if message.ttl == before.ttl {
            message.ttl = message.policy.ttl;
        }
        // The door measured the message without a count; a summed message travels with one.
        if message.policy.merge == Merge::Sum && before.merge != Merge::Sum {
            message.wire_bytes += COUNT_WIRE_BYTES;
        }
    }

    /// Takes the message's place in the rates of the type and of the room. `Some`: the message is past this
    /// rate, and takes no place in either.
    pub(super) fn refuses(
        &mut self,
        message: &Message,
        rules: &RoomRules,
        now: Instant,
        tally: &mut RoomTally,
    ) -> Option<ShedReason> {
        // Reliable messages are preferred in the room's rate: chat may not keep a coupon out.
        let is_reliable = message.class() == Class::Reliable;
        let has_place = |bucket: &Bucket| {
            if is_reliable { bucket.has_place_for_first(now) } else { bucket.has_place(now) }
        };
        // Both rates are asked before either is charged: a message refused by one costs nothing in the other.
        let of_type = self.of_type(message, now);
        let of_room = self.of_room(rules.messages_per_second, now);
        let reason = if of_type.is_some_and(|bucket| !bucket.has_place(now)) {
            tally.over_type_rate += 1;
            ShedReason::TypeRate
        } else if of_room.is_some_and(|bucket| !has_place(&bucket)) {
            tally.over_room_rate += 1;
            ShedReason::RoomRate
        } else {
            if of_type.is_some()
                && let Some(known) = self.of_types.get_mut(&message.type_name)
            {
                known.bucket.charge(now);
            }
            if let Some(known) = &mut self.of_room {
                known.bucket.charge(now);
            }
            return None;
        };
        // `observe_only` shows an operator the effect of a rate before the rate takes effect.
        (!rules.observe_only).then_some(reason)
    }

    /// The bucket of a message's type; `None`: the type has no rate.
    fn of_type(&mut self, message: &Message, now: Instant) -> Option<Bucket> {
        let rate = message.policy.rate?;
        let fresh = || Metered { rate, bucket: Bucket::with_burst(rate.per_second, rate.burst, now) };
        // A known type first: `entry` would clone the name for each message.
        if let Some(known) = self.of_types.get_mut(&message.type_name) {
            // A `PUT` may have changed the rate. The debt of the old rate means nothing at the new one.
            if known.rate != rate {
                *known = fresh();
            }
            return Some(known.bucket);
        }
        Some(self.of_types.entry(message.type_name.clone()).or_insert_with(fresh).bucket)
    }

    /// The room's bucket; `None`: the room has no rate.
    fn of_room(&mut self, per_second: u32, now: Instant) -> Option<Bucket> {
        self.of_room = self.of_room.filter(|known| known.rate == per_second);
        if per_second > 0 {
            let fresh = || Metered { rate: per_second, bucket: Bucket::new(per_second, BURST, now) };
            self.of_room.get_or_insert_with(fresh);
        }
        self.of_room.map(|known| known.bucket)
    }
}
