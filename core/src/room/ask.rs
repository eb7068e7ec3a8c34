//! The asks of publishers about the reliable stream: receipts, recalls and pulls.

use std::time::Duration;

use bytes::Bytes;

use super::Room;
use super::entry::Entry;
use super::exchange::{Ask, Output, Told};
use super::id::Epoch;
use super::life::End;
use super::message::{Class, Message, Payload, Unavailable, Verdict};
use super::pending::{Pending, PendingMessage, Whose};
use super::policy::TypePolicy;
use super::receipt::HomeReceipt;
use super::tally::RoomTally;
use super::view::{ClosedView, RecallView, ReceiptView, StreamRefusal};
use crate::now::{Now, millis};

/// The wire size of a recall beside its type: `{"type":"","payload":null,"at":…,"offset":…,"recall":…},` with
/// the largest numbers.
const RECALL_BYTES: usize = 128;

/// The end of a stream, on its way to the store.
#[derive(Debug)]
pub(super) struct Ending {
    ticket: u64,
    /// The life in the request to the store.
    pub(super) life: u64,
    /// A publisher or a member has used this life of the room.
    is_open: bool,
    pub(super) view: ClosedView,
}

impl Room {
    /// Answers an ask. The stream is ready, or not worth waiting for.
    pub(super) fn ask(&mut self, ticket: u64, ask: Ask, now: Now, tally: &mut RoomTally) {
        let known = self.known_epoch();
        let told = match (ask, known) {
            (Ask::EndStream, _) => return self.end_stream(ticket),
            (Ask::Receipt { offset }, known) => Told::Receipt(known.and_then(|epoch| {
                let entry = self.stream.durable_entry(offset).ok_or(StreamRefusal::NoOffset)?;
                Ok(Box::new(self.receipt(epoch, entry)))
            })),
            (Ask::Recall { offset }, Ok(_)) => return self.recall(ticket, offset, now, tally),
            (Ask::Pull { after }, Ok(_)) => return self.pull(ticket, after),
            (Ask::Recall { .. }, Err(refusal)) => Told::Recalled(Err(refusal)),
            (Ask::Pull { .. }, Err(refusal)) => Told::Pulled(Err(refusal)),
        };
        self.outputs.push_back(Output::Told { ticket, told });
    }

    /// Closes the room. The publisher is answered once the store has forgotten the stream.
    fn end_stream(&mut self, ticket: u64) {
        let is_open = self.members() > 0 || self.life.is_published;
        let view = ClosedView { room: self.name.to_string(), members: self.members(), shed: 0 };
        self.ending = Some(Box::new(Ending { ticket, life: self.stream.life, is_open, view }));
        self.life.end = End::Closing;
    }

    /// The store holds nothing of the room any more.
    pub(super) fn forgotten(&mut self, life: u64, existed: bool) {
        if let Some(ending) = self.ending.take_if(|ending| ending.life == life) {
            let Ending { ticket, is_open, view, .. } = *ending;
            let told = if is_open || existed { Ok(view) } else { Err(StreamRefusal::NoRoom) };
            self.outputs.push_back(Output::Told { ticket, told: Told::StreamEnded(told) });
        }
    }

    /// The store may hold the stream all the same.
    pub(super) fn not_forgotten(&mut self, life: u64, reason: Unavailable) {
        if let Some(ending) = self.ending.take_if(|ending| ending.life == life) {
            let ticket = ending.ticket;
            let told = Told::StreamEnded(Err(StreamRefusal::Unavailable(reason)));
            self.outputs.push_back(Output::Told { ticket, told });
        }
    }

    /// The epoch of the stream, unless asks about the stream are refused.
    fn known_epoch(&self) -> Result<Epoch, StreamRefusal> {
        let Some(epoch) = self.stream.epoch else {
            return Err(StreamRefusal::Unavailable(self.stream.unavailable()));
        };
        // The ask itself opened the room: nobody publishes to it, is a member of it, or has anything stored
        // in it.
        if !self.stream.is_stored && self.members() == 0 && !self.life.is_published {
            return Err(StreamRefusal::NoRoom);
        }
        Ok(epoch)
    }

    fn recall(&mut self, ticket: u64, offset: u64, now: Now, tally: &mut RoomTally) {
        let refused = |refusal| Output::Told { ticket, told: Told::Recalled(Err(refusal)) };
        let Some(entry) = self.stream.durable_entry(offset) else {
            return self.outputs.push_back(refused(StreamRefusal::NoOffset));
        };
        // Durable, or on the way to the store.
        let recall = entry.recalled_by.max(entry.recalling);
        // A recall can't be recalled, and what has expired is gone already.
        if recall == 0 && (entry.recall > 0 || !entry.is_alive) {
            return self.outputs.push_back(refused(StreamRefusal::NotAlive));
        }
        // A retry of a recall that is durable.
        if recall > 0 && recall <= self.stream.durable {
            return self.tell_recalled(ticket, offset, &[Verdict::Durable { offset: recall }]);
        }
        // A recall of the same message is on its way to the store: both have one outcome.
        if recall > 0 {
            let mut pending = Pending::new(Whose::Recall { ticket, offset });
            pending.push(PendingMessage::Twin(recall));
            return self.pending.push(pending);
        }
        let type_name = entry.type_name.clone();
        let payload = Payload::Json(Bytes::from_static(b"null"));
        let message = Message {
            // The recall lives as long as what it takes back would have: devices that come back until then
            // must hear of it.
            ttl: Duration::from_millis(millis(entry.expires.saturating_duration_since(now.instant))),
            recall: offset,
            wire_bytes: RECALL_BYTES + entry.type_name.as_str().len(),
            ..Message::new(type_name, TypePolicy::of(Class::Reliable), payload)
        };
        self.life.used_by_publisher(now.instant);
        self.take(Whose::Recall { ticket, offset }, vec![message], now, tally);
    }

    pub(super) fn tell_recalled(&mut self, ticket: u64, recalls: u64, verdicts: &[Verdict]) {
        let told = match verdicts {
            [Verdict::Durable { offset } | Verdict::Duplicate { offset: Some(offset) }] => {
                Ok(RecallView { room: self.name.to_string(), offset: *offset, recalls })
            }
            [Verdict::Unavailable(reason)] => Err(StreamRefusal::Unavailable(*reason)),
            _ => Err(StreamRefusal::Unavailable(Unavailable::RoomFull)),
        };
        self.outputs.push_back(Output::Told { ticket, told: Told::Recalled(told) });
    }

    /// The home's part of a receipt.
    fn receipt(&self, epoch: Epoch, entry: &Entry) -> HomeReceipt {
        let named = self.stream.named(entry);
        let unless_unsent = |count| if entry.is_unsent { 0 } else { count };
        let view = ReceiptView {
            room: self.name.to_string(),
            epoch,
            offset: entry.offset,
            r#type: entry.type_name.to_string(),
            id: entry.id.as_ref().map(ToString::to_string),
            at: entry.at_ms,
            expires_at: entry.expires_ms,
            expired: !entry.is_alive && entry.recalled_by == 0,
            recalled: entry.recalled_by > 0,
            recalled_by: (entry.recalled_by > 0).then_some(entry.recalled_by),
            since: self.stream.counted_since_ms,
            // Devices acknowledge the offset of a message that went to nobody together with its successor.
            online: unless_unsent(entry.receipt.online + named.counted),
            devices: unless_unsent(named.counted),
            acknowledged: unless_unsent(entry.receipt.returned + named.acknowledged),
            left: unless_unsent(self.stream.entries.left(entry, self.stream.sent) + named.left),
            pending: 0,
            ack_ms: None,
            partial: Vec::new(),
        };
        HomeReceipt { view, acks: entry.acks.clone(), waiting: named.waiting }
    }
}
