//! The room's reliable stream: offsets, the life in the store, and the messages for frames.
//!
//! The stream knows the store's answers and never the store. A message gets an offset on the way to the
//! store, may leave the room once durable, and is *sent* once in a batch: sent ≤ durable ≤ head.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::entries::Entries;
use super::entry::Entry;
use super::exchange::{Departure, Join, Reach, Span, Stands};
use super::id::{Cursor, Epoch, MessageId, Run};
use super::ids::Fingerprint;
use super::members::{CountedAs, NamedCounts, StreamMembers};
use super::message::{Message, Unavailable};
use super::receipt::{Acks, Receipt};
use super::stored::{Page, Record, Stored};
use super::stream_ids::StreamIds;
use super::tail::Tail;
use crate::limits::{INTEGER_MAX, RECEIPTS_MAX, STORE_PATIENCE, STORE_RETRY, TAIL_MESSAGES_MAX};
use crate::node_proto as pb;
use crate::now::Now;

/// The room's standing with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// Nothing was asked yet.
    #[default]
    Cold,
    /// The store was asked at `since` for everything stored.
    Loading { since: Instant },
    /// The stored part is known, and more may be stored.
    Ready,
    /// The last request failed. The store is left alone until `retry`, and publishers hear `reason` until
    /// then.
    Failing {
        retry: Instant,
        reason: Unavailable,
        /// The stored part is known all the same, so no load is needed.
        is_known: bool,
    },
}

/// A room's reliable stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) phase: Phase,
    /// The number of the last load or failure. Answers to earlier requests are ignored.
    pub(super) life: u64,
    /// `None` before the first load.
    pub(super) epoch: Option<Epoch>,
    /// The last offset given out.
    pub(super) head: u64,
    /// The last durable offset.
    pub(super) durable: u64,
    /// The last offset sent in a batch.
    pub(super) sent: u64,
    pub(super) entries: Entries,
    pub(super) members: StreamMembers,
    tail: Tail,
    ids: StreamIds,
    /// The time since which receipts count, unix milliseconds.
    pub(super) counted_since_ms: u64,
    /// The store holds, or held, messages of the room.
    pub(super) is_stored: bool,
    /// Members were welcomed before the first load, without a place in the stream.
    has_blind_members: bool,
    /// The receipts of a former home, until the store has given the entries.
    handed: Option<Box<HandedReceipts>>,
}

/// Offset -> the receipt of a former home.
type HandedReceipts = BTreeMap<u64, (Receipt, Acks)>;

/// An earlier message with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Twin {
    /// There is none.
    No,
    /// The twin is durable, at this offset.
    Durable(u64),
    /// The twin is on the way to the store, with this offset.
    InFlight(u64),
    /// The earlier message differs: a mistake of the publisher.
    Other,
}

impl Stream {
    /// A stream of which nothing is known. `run` numbers its lives.
    pub(super) fn new(run: Run) -> Self {
        Self { life: run.0, ..Self::default() }
    }

    /// The end of the patience of parked inputs, or of the pause after a failure.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Loading { since } => Some(since + STORE_PATIENCE),
            Phase::Failing { retry, .. } => Some(retry),
            Phase::Cold | Phase::Ready => None,
        }
    }

    /// The reason told to publishers while the stream is not ready.
    pub(super) fn unavailable(&self) -> Unavailable {
        match self.phase {
            Phase::Failing { reason, .. } => reason,
            Phase::Cold | Phase::Loading { .. } | Phase::Ready => Unavailable::StoreFailing,
        }
    }

    /// Begins a load if need be, and if the store may be asked. Returns the life to ask with.
    pub(super) fn load(&mut self, now: Instant) -> Option<u64> {
        match self.phase {
            Phase::Cold => {}
            // The pause is over, and nothing is unknown: the next append shows whether the store has room
            // again.
            Phase::Failing { retry, is_known: true, .. } if retry <= now => {
                self.phase = Phase::Ready;
                return None;
            }
            Phase::Failing { retry, .. } if retry <= now => {}
            Phase::Loading { .. } | Phase::Ready | Phase::Failing { .. } => return None,
        }
        self.phase = Phase::Loading { since: now };
        self.life = self.life.wrapping_add(1);
        Some(self.life)
    }

    /// Takes the answer to a load; `None`: the store holds nothing of the room. Returns the messages that
    /// turned out to be durable and were not sent yet; `None`: the stream is not as told to members.
    pub(super) fn loaded(&mut self, stored: Option<Stored>, run: Run, now: Now) -> Option<Vec<Arc<Message>>> {
        self.phase = Phase::Ready;
        self.ids.end_doubt();
        self.is_stored |= stored.is_some();
        let handed = self.handed.take();
        let epoch = Epoch::begun_in(run, self.life);
        let empty = Stored { epoch, head: 0, records: Vec::new(), tail: Vec::new() };
        // The first load: whatever the store holds is the stream.
        let Some(epoch) = self.epoch else {
            // Blind members have no place in the stream: each gets one with a new welcome.
            let is_as_told = !self.has_blind_members;
            self.begin(&stored.unwrap_or(empty), run, now);
            return is_as_told.then(Vec::new);
        };
        let Some(stored) = stored else {
            // The store holds nothing, and nothing was ever durable: both agree.
            if self.durable == 0 {
                return Some(Vec::new());
            }
            // The store has lost durable messages that members may have.
            self.begin(&empty, run, now);
            return None;
        };
        // The store was replaced, or has gone back in time: offsets above its head would be given out twice.
        if stored.epoch != epoch || stored.head < self.durable {
            self.begin(&stored, run, now);
            return None;
        }
        let known = self.durable;
        let Stored { head, mut records, mut tail, .. } = stored;
        if handed.is_none() {
            records.retain(|record| record.offset > known);
            tail.retain(|message| message.offset > known);
        }
        self.take_in_stored(&records, &tail, head, now.instant);
        if let Some(receipts) = handed {
            self.entries.take_over(*receipts, self.sent);
            // An append whose outcome the former home did not know.
            tail.retain(|message| message.offset > known);
        }
        self.age(now.instant);
        Some(tail)
    }

    /// True while a former home's stream waits for its load.
    pub(super) fn is_handed(&self) -> bool {
        self.handed.is_some()
    }

    /// The stream for the next home of the room. Nothing is on its way to the store.
    pub(super) fn hand_over(&mut self) -> pb::RoomStream {
        let mut stream = pb::RoomStream {
            life: self.life,
            epoch: self.epoch.map(|epoch| epoch.0),
            durable: self.durable,
            sent: self.sent,
            counted_since_ms: self.counted_since_ms,
            is_stored: self.is_stored,
            receipts: self.entries.handed(self.sent),
            ..pb::RoomStream::default()
        };
        self.members.hand_over(&mut stream);
        stream
    }

    /// The stream of a former home, to be loaded before any member hears of it. `None`: no home says so.
    pub(super) fn of_handed(mut said: pb::RoomStream) -> Option<Self> {
        let members = StreamMembers::of_handed(&mut said)?;
        let pb::RoomStream { life, epoch, durable, sent, counted_since_ms, is_stored, receipts, .. } = said;
        if sent > durable || durable > INTEGER_MAX || receipts.len() > RECEIPTS_MAX {
            return None;
        }
        let receipt =
            |said| Receipt::of_handed(said).map(|(offset, receipt, acks)| (offset, (receipt, acks)));
        let receipts: HandedReceipts = receipts.into_iter().map(receipt).collect::<Option<_>>()?;
        Some(Self {
            life,
            epoch: epoch.map(Epoch),
            head: durable,
            durable,
            sent,
            members,
            counted_since_ms,
            is_stored,
            // Without an epoch nobody has asked for the stream.
            handed: epoch.map(|_| Box::new(receipts)),
            ..Self::default()
        })
    }

    /// Begins anew with `stored`.
    fn begin(&mut self, stored: &Stored, run: Run, now: Now) {
        // Under another epoch, departures of former members are told apart by theirs.
        let is_same = self.epoch == Some(stored.epoch);
        let members = if is_same {
            StreamMembers::following(&self.members, stored.head)
        } else {
            StreamMembers::new(stored.head)
        };
        *self = Self {
            members,
            phase: Phase::Ready,
            life: self.life,
            epoch: Some(stored.epoch),
            sent: stored.head,
            counted_since_ms: now.unix_ms,
            is_stored: self.is_stored,
            ..Self::new(run)
        };
        self.take_in_stored(&stored.records, &stored.tail, stored.head, now.instant);
        // In this life of the room none of them is sent for the first time. Devices that have one got it in
        // an earlier life.
        self.entries.were_sent_before();
        self.age(now.instant);
    }

    fn take_in_stored(&mut self, records: &[Record], tail: &[Arc<Message>], head: u64, now: Instant) {
        self.head = head;
        self.durable = head;
        for record in records {
            self.take_in(record, now);
            self.entries.now_durable(record.offset);
        }
        tail.iter().cloned().for_each(|message| self.tail.push(message));
    }

    /// Gives up everything not reported durable, after a failed request.
    pub(super) fn failed(&mut self, reason: Unavailable, now: Instant) {
        self.life = self.life.wrapping_add(1);
        // A full store says so in the order of its requests: everything before is durable and was reported.
        // After any other failure a message may be stored although nobody said so, and only a load tells.
        let is_known = reason == Unavailable::StoreFull && self.epoch.is_some();
        self.phase = Phase::Failing { retry: now + STORE_RETRY, reason, is_known };
        for id in self.entries.give_up_after(self.durable) {
            // An id whose message may be stored is not free for another message.
            if is_known {
                self.ids.known.remove(&id);
            } else {
                self.ids.doubt(&id);
            }
        }
        self.tail.give_up_after(self.durable);
        self.head = self.durable;
    }

    /// Looks for an earlier message with this id.
    pub(super) fn twin(&self, id: &MessageId, fingerprint: Fingerprint) -> Twin {
        match self.ids.known.get(id) {
            None => Twin::No,
            Some(known) if known.fingerprint != fingerprint => Twin::Other,
            Some(known) if known.is_unsure => Twin::No,
            Some(known) if known.offset > self.durable => Twin::InFlight(known.offset),
            Some(known) => Twin::Durable(known.offset),
        }
    }

    /// Gives a message an offset. The caller sends the message to the store.
    pub(super) fn append(&mut self, mut message: Message, now: Instant) -> Arc<Message> {
        self.head += 1;
        message.offset = self.head;
        let message = Arc::new(message);
        self.take_in(&Record::of(&message, now), now);
        self.tail.push(Arc::clone(&message));
        // A second recall of the same message shares the fate of this one, and takes no offset of its own.
        if let Some(recalled) = self.entries.entry_mut(message.recall) {
            recalled.recalling = message.offset;
        }
        message
    }

    /// Everything up to `through` is durable.
    pub(super) fn durable_through(&mut self, through: u64) {
        self.is_stored = true;
        let through = through.min(self.head);
        for offset in self.durable + 1..=through {
            self.entries.now_durable(offset);
        }
        self.durable = self.durable.max(through);
    }

    /// Marks the reliable messages of a batch as sent to all members. Returns the span for the batch's frame.
    pub(super) fn send(&mut self, messages: &[Arc<Message>], ack_within_ms: u32) -> Option<Span> {
        let after = self.sent;
        if messages.iter().any(|message| message.offset > after) {
            // A member that left is not among those of this message.
            self.entries.settle_departed(after);
        }
        for message in messages.iter().filter(|message| message.offset > 0) {
            self.sent = message.offset;
            if let Some(entry) = self.entries.entry_mut(message.offset) {
                entry.receipt.online += self.members.unnamed;
            }
        }
        (self.sent > after).then_some(Span { after, through: self.sent, ack_within_ms })
    }

    /// Takes in a joining member. Returns the member's place in the stream; `None` while the stream is
    /// unknown.
    pub(super) fn join(&mut self, join: &Join) -> Option<Stands> {
        // The member keeps its cursor, and is sent for a new welcome after the load.
        if self.epoch.is_none() {
            self.has_blind_members = true;
            return None;
        }
        let stands = self.judge(join.cursor);
        // Receipts of a newcomer count from `sent`: the device proved no place.
        let cursor = (stands.counts_from == stands.after).then_some(stands.after);
        let CountedAs { device, from } = self.members.join(join.device, cursor, self.sent, &mut self.entries);
        Some(Stands { counts_from: from, device, ..stands })
    }

    /// The place in the stream proven by a device's cursor.
    pub(super) fn judge(&self, cursor: Option<Cursor>) -> Stands {
        let newcomer = |reset| Stands { after: 0, reset, counts_from: self.sent, device: 0 };
        match cursor {
            None => newcomer(None),
            // Offsets of another epoch name other messages. At offset 0 a device has nothing, whatever the
            // epoch.
            Some(Cursor { epoch, offset }) if Some(epoch) != self.epoch => {
                newcomer((offset > 0).then_some("epoch_changed"))
            }
            // The device has more than was sent: the stream has lost its end since, and the offsets will be
            // given out again.
            Some(Cursor { offset, .. }) if offset > self.sent => newcomer(Some("ahead")),
            // A member of this epoch before.
            Some(Cursor { offset, .. }) => {
                Stands { after: offset, reset: None, counts_from: offset, device: 0 }
            }
        }
    }

    /// Counts a departure.
    pub(super) fn leave(&mut self, left: &Departure) {
        self.members.leave(left, self.sent, &mut self.entries);
    }

    /// The devices with a name in the receipt of a message.
    pub(super) fn named(&self, entry: &Entry) -> NamedCounts {
        // A message on its way to the members is on its way to all who join meanwhile as well.
        if entry.offset > self.sent { NamedCounts::default() } else { self.members.count(entry.offset) }
    }

    /// Adds acknowledgements no longer kept by a segment.
    pub(super) fn acked(&mut self, acks: &[(u64, Acks)]) {
        for (offset, acks) in acks {
            if let Some(entry) = self.entries.entry_mut(*offset) {
                entry.acks.merge(acks);
            }
        }
    }

    /// Finds the living, sent messages in the reach, up to `bytes_max`, but at least the first.
    ///
    /// # Errors
    /// The offset to read behind, if memory does not reach back far enough and the store has to be read.
    /// Nothing between `reach.after` and this offset is alive.
    pub(super) fn find(&self, reach: Reach, bytes_max: usize) -> Result<Page, u64> {
        let reach = Reach { through: reach.through.min(self.sent), ..reach };
        // Only a living message before the tail is worth a read: everything else in the reach is dead or at
        // hand.
        if let Some(first) = self.entries.first_alive(reach)
            && self.tail.begins_after(first)
        {
            return Err(first - 1);
        }
        Ok(self.page(self.tail.after(reach.after), reach, bytes_max))
    }

    /// Cuts the page of [`Self::find`] from `messages`, which are complete behind `reach.after`.
    pub(super) fn page(
        &self,
        messages: impl IntoIterator<Item = Arc<Message>>,
        reach: Reach,
        bytes_max: usize,
    ) -> Page {
        let after = reach.after;
        let through = reach.through.min(self.sent);
        let mut page = Page { messages: Vec::new(), through: after };
        let mut bytes = 0;
        for message in messages {
            let offset = message.offset;
            if offset > through {
                break;
            }
            if offset > after && self.entries.is_alive(offset) {
                bytes += message.wire_bytes;
                // One message is given in any case: a reader of a small page would otherwise never get past a
                // large one.
                let given = page.messages.len();
                if given > 0 && (bytes > bytes_max || given >= TAIL_MESSAGES_MAX) {
                    return page;
                }
                page.messages.push(message);
            }
            page.through = page.through.max(offset);
        }
        page.through = through.max(after);
        page
    }

    /// The entry at a durable offset.
    pub(super) fn durable_entry(&self, offset: u64) -> Option<&Entry> {
        self.entries.entry(offset).filter(|entry| entry.offset <= self.durable)
    }

    /// Lets go of outdated state. Returns whether something is left to age.
    pub(super) fn age(&mut self, now: Instant) -> bool {
        let has_entries = self.entries.age(now);
        self.members.age(self.entries.first_offset());
        has_entries | self.ids.age(now)
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.sent <= self.durable && self.durable <= self.head, "sent, durable, given out");
        self.entries.check_invariants();
        self.members.check_invariants();
        self.ids.check_invariants();
        self.tail.check_invariants();
    }

    fn take_in(&mut self, record: &Record, now: Instant) {
        self.entries.push(record, now);
        self.ids.remember(record);
    }
}
