//! What one room takes of its publishers: so many messages a second in all, so many of a type; and what it does otherwise
//! for some types. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::bucket::Bucket;
use super::id::TypeName;
use super::message::{Message, ShedReason};
use super::pace::{RoomRules, RoomSettings};
use super::policy::{Merge, PolicyChange, TypeRate};
use super::tally::RoomTally;
use crate::config::limits::COUNT_WIRE_BYTES;

/// What a room takes at once of a rate that names no burst.
const BURST: Duration = Duration::from_secs(1);

/// The limits of one room.
#[derive(Debug, Default)]
pub struct Limits {
    changes: BTreeMap<TypeName, PolicyChange>,
    /// Of types with a rate, once they were used. Bounded as the account's columns are, which come first.
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

    /// Takes a message's place in the rates. `Some`: it is past this one.
    pub fn refuses(
        &mut self,
        message: &Message,
        rules: &RoomRules,
        now: Instant,
        tally: &mut RoomTally,
    ) -> Option<ShedReason> {
        let reason = if !self.type_takes(message, now) {
            tally.over_type_rate += 1;
            ShedReason::TypeRate
        } else if !self.room_takes(rules.messages_per_second, now) {
            tally.over_room_rate += 1;
            ShedReason::RoomRate
        } else {
            return None;
        };
        (!rules.observe_only).then_some(reason)
    }

    fn type_takes(&mut self, message: &Message, now: Instant) -> bool {
        let Some(rate) = message.policy.rate else { return true };
        let fresh = || (rate, Bucket::with_burst(rate.per_second, rate.burst, now));
        if let Some(known) = self.of_types.get_mut(&message.type_name) {
            if known.0 != rate {
                *known = fresh();
            }
            return known.1.take(now);
        }
        self.of_types.entry(message.type_name.clone()).or_insert_with(fresh).1.take(now)
    }

    fn room_takes(&mut self, per_second: u32, now: Instant) -> bool {
        if per_second == 0 {
            return true;
        }
        let known = self.of_room.filter(|(rate, _)| *rate == per_second);
        let (_, mut bucket) = known.unwrap_or_else(|| (per_second, Bucket::new(per_second, BURST, now)));
        let takes = bucket.take(now);
        self.of_room = Some((per_second, bucket));
        takes
    }
}
