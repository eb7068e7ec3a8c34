//! The rules by which a room takes messages in: the treatment of types, rate limits, and the ids already
//! used.

use std::collections::BTreeMap;
use std::time::Instant;

use super::id::MessageId;
use super::ids::{Fingerprint, Ids, Known};
use super::limit::Limits;
use super::message::Message;
use super::rate::Rate;
use super::stream::Stream;

/// The intake of a room.
#[derive(Debug, Default)]
pub(super) struct Intake {
    pub(super) limits: Limits,
    /// Ids of messages below class reliable. The stream knows the others.
    pub(super) ids: Ids,
    pub(super) message_rate: Rate,
}

impl Intake {
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
