//! The rules by which a room takes messages in: the treatment of types, rate limits, and the ids already
//! used.

use std::collections::BTreeMap;
use std::time::Instant;

use super::id::{MessageId, TypeName};
use super::ids::{Fingerprint, Ids, Known};
use super::limit::Limits;
use super::message::{Message, ShedReason};
use super::pace::{RoomRules, RoomSettings};
use super::policy::PolicyChange;
use super::rate::Rate;
use super::stream::Stream;
use super::tally::RoomTally;

/// The intake of a room.
#[derive(Debug, Default)]
pub(super) struct Intake {
    limits: Limits,
    /// Ids of messages below class reliable. The stream knows the others.
    ids: Ids,
    message_rate: Rate,
}

impl Intake {
    pub(super) fn configure(&mut self, settings: &RoomSettings) {
        self.limits.configure(settings);
    }

    /// Changes to the node's treatment of types.
    pub(super) fn changes(&self) -> impl Iterator<Item = (&TypeName, &PolicyChange)> {
        self.limits.changes()
    }

    /// Types treated otherwise than by the node, once `settings` are taken over.
    pub(super) fn changes_with(&self, settings: &RoomSettings) -> usize {
        self.limits.changes_with(settings)
    }

    pub(super) fn messages_per_second(&self, now: Instant) -> f64 {
        self.message_rate.per_second(now)
    }

    /// Counts the messages of a publish for the rate.
    pub(super) fn offered(&mut self, messages: usize, now: Instant) {
        self.message_rate.add(messages as f64, now);
    }

    /// Gives a message the policy of its type in this room.
    pub(super) fn apply(&self, message: &mut Message) {
        self.limits.apply(message);
    }

    /// Takes a message's place in the rates. Returns the reason if the message is past a rate.
    pub(super) fn over_rate(
        &mut self,
        message: &Message,
        rules: &RoomRules,
        now: Instant,
        tally: &mut RoomTally,
    ) -> Option<ShedReason> {
        self.limits.refuses(message, rules, now, tally)
    }

    /// Forgets outdated ids. Returns whether some are left.
    pub(super) fn age(&mut self, now: Instant) -> bool {
        self.ids.age(now);
        !self.ids.is_empty()
    }

    /// Returns true if the same message was taken in before under this id. Reliable messages are the stream's
    /// to know.
    pub(super) fn is_duplicate(&self, id: &MessageId, fingerprint: Fingerprint) -> bool {
        self.ids.know(id, fingerprint) == Known::Same
    }

    /// Remembers the id of a message taken in. Returns the number of ids forgotten before their time.
    pub(super) fn remember(&mut self, id: MessageId, fingerprint: Fingerprint, now: Instant) -> u64 {
        self.ids.remember(id, fingerprint, now)
    }

    /// The first message whose id was used for another message, earlier or within this request.
    pub(super) fn reused_id(&self, messages: &[Message], stream: &Stream) -> Option<usize> {
        let mut here = BTreeMap::new();
        messages.iter().position(|message| {
            let Some(id) = &message.id else { return false };
            let fingerprint = Fingerprint::of(message);
            // Within one request, a repeated id is fine only for a repeated message.
            let first_here = *here.entry(id).or_insert(fingerprint);
            first_here != fingerprint
                || self.ids.know(id, fingerprint) == Known::Other
                || stream.twin(id, fingerprint).is_err()
        })
    }
}
