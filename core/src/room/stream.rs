//! The room's reliable stream: offsets, the life in the store, and the messages for frames.
//!
//! The stream knows the store's answers and never the store. A message gets an offset on the way to the
//! store, may leave the room once durable, and is *sent* once in a batch: sent ≤ durable ≤ head.

use std::sync::Arc;
use std::time::Instant;

use super::entries::Entries;
use super::entry::Entry;
use super::exchange::{Join, Reach, Span, Stands};
use super::found::Found;
use super::id::{Cursor, Epoch, MessageId, Run};
use super::ids::{Fingerprint, Known};
use super::message::{Message, Unavailable};
use super::receipt::Acks;
use super::stored::{Page, Stored};
use super::stream_ids::StreamIds;
use super::tail::Tail;
use crate::limits::{STORE_PATIENCE, STORE_RETRY, TAIL_MESSAGES_MAX};

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
    phase: Phase,
    /// The number of the last load or failure. Answers to earlier requests are ignored.
    life: u64,
    /// `None` before the first load.
    epoch: Option<Epoch>,
    /// The last offset given out.
    head: u64,
    /// The last durable offset.
    durable: u64,
    /// The last offset sent in a batch.
    sent: u64,
    pub(super) entries: Entries,
    tail: Tail,
    ids: StreamIds,
    /// The time since which receipts count, unix milliseconds.
    pub(super) counted_since_ms: u64,
    /// The store holds, or held, messages of the room.
    is_stored: bool,
    /// Members were welcomed before the first load, without a place in the stream.
    has_blind_members: bool,
}

/// An earlier message with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Twin {
    /// There is none.
    No,
    /// The twin is durable, at this offset.
    Durable(u64),
    /// The twin is on the way to the store, with this offset.
    InFlight(u64),
}

/// The place in the stream proven by a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judged {
    /// The device has everything up to this offset.
    pub(super) after: u64,
    /// The reason why the cursor was not honoured.
    pub(super) reset: Option<&'static str>,
    /// The device has been a member of this epoch before.
    returns: bool,
}

/// The outcome of a load.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Loaded {
    /// The stream is known for the first time.
    First { has_blind_members: bool },
    /// The stream is as told to members. `unsent` messages turned out to be durable and were not sent yet.
    Same { unsent: Vec<Arc<Message>> },
    /// The stream is not as told to members.
    Another,
}

impl Stream {
    /// A stream of which nothing is known. `run` numbers its lives.
    pub(super) fn new(run: Run) -> Self {
        Self { life: run.0, ..Self::default() }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// The number to be repeated in the store's answers.
    pub(super) fn life(&self) -> u64 {
        self.life
    }

    /// `None` before the first load.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// The last durable offset.
    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    /// The last offset sent in a batch.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Messages on the way to the store.
    pub(super) fn in_flight(&self) -> u64 {
        self.head - self.durable
    }

    /// Returns true if the store holds, or held, messages of the room.
    pub(super) fn is_stored(&self) -> bool {
        self.is_stored
    }

    /// Returns true if an input may wait for the load.
    pub(super) fn is_worth_waiting_for(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Loading { since } if now < since + STORE_PATIENCE)
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

    /// Takes the answer to a load; `None`: the store holds nothing of the room.
    pub(super) fn loaded(&mut self, stored: Option<Stored>, run: Run, now_ms: u64) -> Loaded {
        self.phase = Phase::Ready;
        self.is_stored |= stored.is_some();
        let empty = Stored { epoch: Epoch::begun_in(run, self.life), head: 0, messages: Vec::new() };
        // The first load: whatever the store holds is the stream.
        let Some(epoch) = self.epoch else {
            let has_blind_members = self.has_blind_members;
            self.begin(&stored.unwrap_or(empty), run, now_ms);
            return Loaded::First { has_blind_members };
        };
        let Some(stored) = stored else {
            // The store holds nothing, and nothing was ever durable: both agree.
            if self.durable == 0 {
                return Loaded::Same { unsent: Vec::new() };
            }
            // The store has lost durable messages that members may have.
            self.begin(&empty, run, now_ms);
            return Loaded::Another;
        };
        // The store was replaced, or has gone back in time: offsets above its head would be given out twice.
        if stored.epoch != epoch || stored.head < self.durable {
            self.begin(&stored, run, now_ms);
            return Loaded::Another;
        }
        let known = self.durable;
        let unsent: Vec<_> = stored.messages.into_iter().filter(|message| message.offset > known).collect();
        self.take_in_stored(&unsent, stored.head);
        self.age(now_ms);
        Loaded::Same { unsent }
    }

    /// Begins anew with `stored`.
    fn begin(&mut self, stored: &Stored, run: Run, now_ms: u64) {
        *self = Self {
            phase: Phase::Ready,
            life: self.life,
            epoch: Some(stored.epoch),
            sent: stored.head,
            counted_since_ms: now_ms,
            is_stored: self.is_stored,
            ..Self::new(run)
        };
        self.take_in_stored(&stored.messages, stored.head);
        // In this life of the room none of them is sent for the first time. Devices that have one got it in
        // an earlier life.
        self.entries.were_sent_before();
        self.age(now_ms);
    }

    fn take_in_stored(&mut self, messages: &[Arc<Message>], head: u64) {
        self.head = head;
        self.durable = head;
        for message in messages {
            self.take_in(message);
            self.entries.now_durable(message.offset);
        }
    }

    /// Gives up everything not reported durable, after a failed request.
    pub(super) fn failed(&mut self, reason: Unavailable, now: Instant) {
        self.life = self.life.wrapping_add(1);
        // A full store says so in the order of its requests: everything before is durable and was reported.
        // After any other failure a message may be stored although nobody said so, and only a load tells.
        let is_known = reason == Unavailable::StoreFull && self.epoch.is_some();
        self.phase = Phase::Failing { retry: now + STORE_RETRY, reason, is_known };
        for id in self.entries.give_up_after(self.durable) {
            self.ids.forget(&id);
        }
        self.tail.give_up_after(self.durable);
        self.head = self.durable;
    }

    /// Looks for an earlier message with this id.
    ///
    /// # Errors
    /// [`Known::Other`] if the earlier message differs.
    pub(super) fn twin(&self, id: &MessageId, fingerprint: Fingerprint) -> Result<Twin, Known> {
        match self.ids.known(id) {
            None => Ok(Twin::No),
            Some(known) if known.fingerprint != fingerprint => Err(Known::Other),
            Some(known) if known.offset > self.durable => Ok(Twin::InFlight(known.offset)),
            Some(known) => Ok(Twin::Durable(known.offset)),
        }
    }

    /// Gives a message an offset. The caller sends the message to the store.
    pub(super) fn append(&mut self, mut message: Message) -> Arc<Message> {
        self.head += 1;
        message.offset = self.head;
        let message = Arc::new(message);
        self.take_in(&message);
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

    /// Marks the reliable messages of a batch as sent to `members`. Returns the span for the batch's frame.
    pub(super) fn send(
        &mut self,
        messages: &[Arc<Message>],
        members: u64,
        ack_within_ms: u32,
    ) -> Option<Span> {
        let after = self.sent;
        if messages.iter().any(|message| message.offset > after) {
            // A member that left is not among those of this message.
            self.entries.settle_departed(after);
        }
        for message in messages.iter().filter(|message| message.offset > 0) {
            self.sent = message.offset;
            self.entries.sent_to(message.offset, members);
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
        let Judged { after, reset, returns } = self.judge(join.cursor);
        // A newcomer owes no acknowledgement for messages sent before.
        if !returns {
            return Some(Stands { after, reset, counts_from: self.sent });
        }
        self.entries.come_back(after, self.sent, join.device);
        Some(Stands { after, reset, counts_from: after })
    }

    /// Judges a device's cursor.
    pub(super) fn judge(&self, cursor: Option<Cursor>) -> Judged {
        let reset = |reason| Judged { after: 0, reset: Some(reason), returns: false };
        match cursor {
            None => Judged { after: 0, reset: None, returns: false },
            // At offset 0 a device has nothing, whatever the epoch. It may have been a member of this one.
            Some(Cursor { offset: 0, epoch }) => {
                Judged { after: 0, reset: None, returns: Some(epoch) == self.epoch }
            }
            // Offsets of another epoch name other messages.
            Some(Cursor { epoch, .. }) if Some(epoch) != self.epoch => reset("epoch_changed"),
            // The device has more than was sent: the stream has lost its end since, and the offsets will be
            // given out again.
            Some(Cursor { offset, .. }) if offset > self.sent => reset("ahead"),
            Some(Cursor { offset, .. }) => Judged { after: offset, reset: None, returns: true },
        }
    }

    /// Counts a departure after an acknowledgement up to `acked`.
    pub(super) fn leave(&mut self, acked: u64, device: u64) {
        self.entries.leave(acked, self.sent, device);
    }

    /// Members gone before an acknowledgement of the message, and not back since.
    pub(super) fn left(&self, entry: &Entry) -> u64 {
        self.entries.left(entry, self.sent)
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
    pub(super) fn find(&self, reach: Reach, bytes_max: usize) -> Found {
        let reach = Reach { through: reach.through.min(self.sent), ..reach };
        // Only a living message before the tail is worth a read: everything else in the reach is dead or at
        // hand.
        if let Some(first) = self.entries.first_alive(reach)
            && self.tail.begins_after(first)
        {
            return Found::InStore { from: first - 1 };
        }
        self.page(self.tail.after(reach.after), reach, bytes_max)
    }

    /// Cuts the page of [`Self::find`] from `messages`, which are complete behind `reach.after`.
    pub(super) fn page(
        &self,
        messages: impl IntoIterator<Item = Arc<Message>>,
        reach: Reach,
        bytes_max: usize,
    ) -> Found {
        let after = reach.after;
        let through = reach.through.min(self.sent);
        let mut page = Vec::new();
        let mut bytes = 0;
        let mut reached = after;
        for message in messages {
            let offset = message.offset;
            if offset > through {
                break;
            }
            if offset > after && self.entries.is_alive(offset) {
                bytes += message.wire_bytes;
                // One message is given in any case: a reader of a small page would otherwise never get past a
                // large one.
                if !page.is_empty() && (bytes > bytes_max || page.len() >= TAIL_MESSAGES_MAX) {
                    return Found::Here { messages: page, through: reached };
                }
                page.push(message);
            }
            reached = reached.max(offset);
        }
        Found::Here { messages: page, through: through.max(after) }
    }

    /// The largest offset at or before which nothing is alive.
    pub(super) fn floor(&self) -> u64 {
        self.entries.floor(self.sent)
    }

    /// Takes a page read by the store behind `after`. A missing message is damaged or lost, and dies.
    pub(super) fn paged(&mut self, after: u64, page: &Page) {
        let through = page.through.min(self.durable);
        self.entries.bury_missing(&page.messages, Reach { after, through });
    }

    /// The entry at a durable offset.
    pub(super) fn durable_entry(&self, offset: u64) -> Option<&Entry> {
        self.entries.entry(offset).filter(|entry| entry.offset <= self.durable)
    }

    /// Lets go of outdated state. Returns whether something is left to age.
    pub(super) fn age(&mut self, now_ms: u64) -> bool {
        self.entries.age(now_ms);
        self.ids.age(now_ms);
        !self.entries.is_empty() || !self.ids.is_empty()
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.sent <= self.durable && self.durable <= self.head, "sent, durable, given out");
        self.entries.check_invariants();
        self.ids.check_invariants();
        self.tail.check_invariants();
    }

    fn take_in(&mut self, message: &Arc<Message>) {
        self.entries.push(message);
        self.ids.remember(message);
        self.tail.push(Arc::clone(message));
    }
}
