//! What one room takes of its publishers: so many messages a second in all, so many of a type; and what it does otherwise
//! for some types. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::bucket::Bucket;
use super::id::TypeName;
use super::message::{Class, Message, ShedReason};
use super::pace::{RoomRules, RoomSettings};
use super::policy::{Merge, PolicyChange, TypeRate};
use super::tally::RoomTally;
use crate::limits::COUNT_WIRE_BYTES;

/// What a room takes at once of a rate that names no burst.
const BURST: Duration = Duration::from_secs(1);

/// The limits of one room.
#[derive(Debug, Default)]
pub struct Limits {
    changes: BTreeMap<TypeName, PolicyChange>,
    /// Of types with a rate, once they were used: those of the configuration, and those that the room treats otherwise.
    of_types: BTreeMap<TypeName, (TypeRate, Bucket)>,
    /// Of the room, with its rate.
    of_room: Option<(u32, Bucket)>,
}

impl Limits {
    /// Takes over what `settings` say of types.
    pub fn configure(&mut self, settings: &RoomSettings) {
        for (type_name, change) in &settings.types {
            let before = self.changes.get(type_name).copied().unwrap_or_default();
            self.changes.insert(type_name.clone(), before.then(change));
        }
    }

    /// What it does otherwise, by type.
    pub fn changes(&self) -> impl Iterator<Item = (&TypeName, &PolicyChange)> {
        self.changes.iter()
    }

    /// How many types it treats otherwise once `settings` are taken over.
    #[must_use]
    pub fn changes_with(&self, settings: &RoomSettings) -> usize {
        let more = settings.types.iter().filter(|(type_name, _)| !self.changes.contains_key(type_name));
        self.changes.len() + more.count()
    }

    /// Gives a message the policy that its type has here.
    pub fn apply(&self, message: &mut Message) {
        if self.changes.is_empty() {
            return;
        }
        let Some(change) = self.changes.get(&message.type_name) else { return };
        let before = message.policy;
        message.policy = before.with(change);
        if message.ttl == before.ttl {
            message.ttl = message.policy.ttl;
        }
        if message.policy.merge == Merge::Sum && before.merge != Merge::Sum {
            message.wire_bytes += COUNT_WIRE_BYTES;
        }
    }

    /// Takes a message's place in the rates, if it has one in each. `Some`: it is past this one. In the room's rate reliable
    /// messages go first: chat may not keep a coupon out.
    pub fn refuses(
        &mut self,
        message: &Message,
        rules: &RoomRules,
        now: Instant,
        tally: &mut RoomTally,
    ) -> Option<ShedReason> {
        let is_reliable = message.class() == Class::Reliable;
        let has_place = |bucket: &Bucket| {
            if is_reliable { bucket.has_place_for_first(now) } else { bucket.has_place(now) }
        };
        let mut of_type = self.of_type(message, now);
        let mut of_room = self.of_room(rules.messages_per_second, now);
        let reason = if of_type.as_ref().is_some_and(|bucket| !bucket.has_place(now)) {
            tally.over_type_rate += 1;
            ShedReason::TypeRate
        } else if of_room.as_ref().is_some_and(|bucket| !has_place(bucket)) {
            tally.over_room_rate += 1;
            ShedReason::RoomRate
        } else {
            of_type.iter_mut().chain(&mut of_room).for_each(|bucket| bucket.charge(now));
            if let (Some(bucket), Some(known)) = (of_type, self.of_types.get_mut(&message.type_name)) {
                known.1 = bucket;
            }
            if let (Some(bucket), Some(known)) = (of_room, &mut self.of_room) {
                known.1 = bucket;
            }
            return None;
        };
        (!rules.observe_only).then_some(reason)
    }

    /// The bucket of a message's type, new if its rate is; `None`: as many as come.
    fn of_type(&mut self, message: &Message, now: Instant) -> Option<Bucket> {
        let rate = message.policy.rate?;
        let fresh = || (rate, Bucket::with_burst(rate.per_second, rate.burst, now));
        if let Some(known) = self.of_types.get_mut(&message.type_name) {
            if known.0 != rate {
                *known = fresh();
            }
            return Some(known.1);
        }
        Some(self.of_types.entry(message.type_name.clone()).or_insert_with(fresh).1)
    }

    /// The room's bucket, new if its rate is; `None`: as many as come.
    fn of_room(&mut self, per_second: u32, now: Instant) -> Option<Bucket> {
        self.of_room = self.of_room.filter(|(rate, _)| *rate == per_second);
        if per_second > 0 {
            self.of_room.get_or_insert_with(|| (per_second, Bucket::new(per_second, BURST, now)));
        }
        self.of_room.map(|(_, bucket)| bucket)
    }
}
