//! The publishers' ids of a room's reliable messages, for as long as an id makes a publish idempotent.

use std::collections::{BTreeMap, VecDeque};

use super::id::MessageId;
use super::ids::Fingerprint;
use super::message::Message;
use crate::limits::ID_AGE_MAX;
use crate::now::millis;

/// A message with an id.
#[derive(Debug, Clone, Copy)]
pub(super) struct KnownId {
    pub(super) fingerprint: Fingerprint,
    pub(super) offset: u64,
    at_ms: u64,
    /// The store failed, and may have stored the message or not. The next load tells.
    pub(super) is_unsure: bool,
}

/// The ids of a stream.
#[derive(Debug, Default)]
pub(super) struct StreamIds {
    /// Id -> the last message of the id.
    pub(super) known: BTreeMap<MessageId, KnownId>,
    /// Publishing times (unix milliseconds) and ids, oldest first. Forgotten ids may still be listed.
    in_order: VecDeque<(u64, MessageId)>,
}

impl StreamIds {
    /// Remembers the id of a message, if any.
    pub(super) fn remember(&mut self, message: &Message) {
        let Some(id) = &message.id else { return };
        let at_ms = message.at_ms;
        let fingerprint = Fingerprint::of(message);
        self.known
            .insert(id.clone(), KnownId { fingerprint, offset: message.offset, at_ms, is_unsure: false });
        self.in_order.push_back((at_ms, id.clone()));
    }

    /// Notes that the message of an id may be stored or not.
    pub(super) fn doubt(&mut self, id: &MessageId) {
        if let Some(known) = self.known.get_mut(id) {
            known.is_unsure = true;
        }
    }

    /// Forgets the ids in doubt: the store has told what it holds.
    pub(super) fn end_doubt(&mut self) {
        self.known.retain(|_, known| !known.is_unsure);
    }

    /// Lets go of outdated ids. Returns whether some are left.
    pub(super) fn age(&mut self, now_ms: u64) -> bool {
        let is_old = |(at_ms, _): &mut (u64, MessageId)| *at_ms + millis(ID_AGE_MAX) < now_ms;
        while let Some((at_ms, id)) = self.in_order.pop_front_if(is_old) {
            // An id that was published again since, or given up, is not forgotten for its earlier use.
            if self.known.get(&id).is_some_and(|known| known.at_ms == at_ms) {
                self.known.remove(&id);
            }
        }
        !self.known.is_empty()
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.known.len() <= self.in_order.len(), "each id has its time");
    }
}
