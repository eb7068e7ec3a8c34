//! The room's reliable stream: which offsets there are, which of them are alive, what is on its way to the store, and
//! which messages are at hand.
//!
//! It knows the store's answers and never the store. Offsets are given out when a message is sent to the store; only
//! what is durable may leave the room, and what is said here of *sent* is what has left in batches.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::departed::Departed;
use super::entry::Entry;
use super::exchange::{Reach, Span};
use super::found::Found;
use super::id::{Cursor, Epoch, MessageId, Run};
use super::ids::{Fingerprint, Known};
use super::message::{Message, Unavailable};
use super::receipt::Receipt;
use super::stored::Stored;
use crate::limits::{
    ID_AGE_MAX, RECEIPT_DEVICES_MAX, RECEIPTS_MAX, STORE_PATIENCE, STORE_RETRY, STREAM_BYTES_MAX,
    STREAM_MESSAGES_MAX, TAIL_BYTES_MAX, TAIL_MESSAGES_MAX,
};
use crate::now::millis;

/// How a room stands with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was asked yet.
    Cold,
    /// What is stored was asked for.
    Loading {
        /// When.
        since: Instant,
    },
    /// What is stored is known, and more may be stored.
    Ready,
    /// The last request failed: the store is left alone until then.
    Failing {
        /// When it may be asked again.
        retry: Instant,
        /// What publishers hear until then.
        reason: Unavailable,
        /// What is stored is known all the same.
        is_known: bool,
    },
}

/// A room's reliable stream.
#[derive(Debug)]
pub struct Stream {
    phase: Phase,
    /// Numbers the loads: answers to what was asked before the last one are of no interest.
    life: u64,
    epoch: Option<Epoch>,
    /// The last offset given out.
    head: u64,
    /// The last offset that is durable.
    durable: u64,
    /// The last offset that has left in a batch.
    sent: u64,
    /// In order of offset: what is alive or on its way to the store, and what receipts are kept of.
    entries: VecDeque<Entry>,
    /// When each entry that is not dead expires.
    expiries: BTreeSet<(u64, u64)>,
    /// Invariant: the bytes of the entries that are not dead.
    alive_bytes: usize,
    /// The newest messages, in order of offset.
    tail: VecDeque<Arc<Message>>,
    tail_bytes: usize,
    ids: BTreeMap<MessageId, KnownId>,
    /// When ids were published, oldest first: those of `ids`, and some that are not known any more.
    ids_in_order: VecDeque<(u64, MessageId)>,
    /// Since when receipts count, unix milliseconds.
    counted_since_ms: u64,
    /// Names of devices that receipts remember, at most `RECEIPT_DEVICES_MAX`.
    names: usize,
    /// Members without a name that left, in no receipt yet.
    departed: Departed,
}

/// An id that counts.
#[derive(Debug, Clone, Copy)]
struct KnownId {
    fingerprint: Fingerprint,
    offset: u64,
    at_ms: u64,
}

/// What is known of a message's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Twin {
    /// Nothing: it is new.
    No,
    /// It is durable under this offset.
    Durable(u64),
    /// It is on its way to the store with this offset.
    InFlight(u64),
}

/// A join's place in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// The member has everything up to this.
    pub after: u64,
    /// Why its cursor was not honoured.
    pub reset: Option<&'static str>,
    /// It comes back, rather than for the first time.
    pub returns: bool,
}

/// What came of a load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// The stream is what it was; these messages turned out to be durable and have not been sent.
    Same(Vec<Arc<Message>>),
    /// It is another stream than members were told.
    Another,
}

impl Stream {
    /// A stream nothing is known of. `run` numbers its loads.
    #[must_use]
    pub fn new(run: Run) -> Self {
        Self {
            phase: Phase::Cold,
            life: run.0,
            epoch: None,
            head: 0,
            durable: 0,
            sent: 0,
            entries: VecDeque::new(),
            expiries: BTreeSet::new(),
            alive_bytes: 0,
            tail: VecDeque::new(),
            tail_bytes: 0,
            ids: BTreeMap::new(),
            ids_in_order: VecDeque::new(),
            counted_since_ms: 0,
            names: 0,
            departed: Departed::default(),
        }
    }

    /// How the room stands with the store.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What answers of the store are to name.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }

    /// Its life; `None` while nothing was loaded.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// The last durable offset.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The last offset that has left in a batch.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Messages on their way to the store.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.head - self.durable
    }

    /// Since when receipts count, unix milliseconds.
    #[must_use]
    pub fn counted_since_ms(&self) -> u64 {
        self.counted_since_ms
    }

    /// Whether whoever needs the stream may wait for it to be loaded.
    #[must_use]
    pub fn is_worth_waiting_for(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Loading { since } if now < since + STORE_PATIENCE)
    }

    /// When something is to be done about the store although nothing happens: those who wait have waited long enough, or
    /// it may be asked again.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Loading { since } => Some(since + STORE_PATIENCE),
            Phase::Failing { retry, .. } => Some(retry),
            Phase::Cold | Phase::Ready => None,
        }
    }

    /// What a publisher hears that the stream can't take a message from now.
    #[must_use]
    pub fn unavailable(&self) -> Unavailable {
        match self.phase {
            Phase::Failing { reason, .. } => reason,
            Phase::Cold | Phase::Loading { .. } | Phase::Ready => Unavailable::StoreFailing,
        }
    }

    /// Begins a load, unless one is under way or it is too early for another. Its life, to be asked with.
    pub fn load(&mut self, now: Instant) -> Option<u64> {
        match self.phase {
            Phase::Cold => {}
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

    /// The load's answer. A room whose stream begins calls its epoch after its `run`.
    pub fn loaded(&mut self, stored: Option<Stored>, run: Run, now_ms: u64) -> Loaded {
        self.phase = Phase::Ready;
        let fresh = self.epoch.is_none();
        let same = match (&stored, self.epoch) {
            (Some(stored), Some(epoch)) => stored.epoch == epoch && stored.head >= self.durable,
            (None, Some(_)) => self.durable == 0,
            (_, None) => true,
        };
        let (epoch, head, messages) = match stored {
            Some(Stored { epoch, head, messages }) => (epoch, head, messages),
            None if same && !fresh => return Loaded::Same(Vec::new()),
            None => (Epoch::begun_in(run, self.life), 0, Vec::new()),
        };
        if fresh || !same {
            *self = Self {
                phase: Phase::Ready,
                epoch: Some(epoch),
                ..Self { life: self.life, ..Self::new(run) }
            };
            (self.counted_since_ms, self.sent) = (now_ms, head);
        }
        let known = self.durable;
        (self.head, self.durable) = (head, head);
        let new: Vec<_> = messages.into_iter().filter(|message| message.offset > known).collect();
        for message in &new {
            self.take_in(message);
            self.now_durable(message.offset);
        }
        if fresh || !same {
            // Nothing of it was sent in this life; who had it had it in an earlier life of the room.
            self.entries.iter_mut().for_each(|entry| entry.receipt = Receipt::of_earlier_life());
        }
        self.age(now_ms);
        if same { Loaded::Same(if fresh { Vec::new() } else { new }) } else { Loaded::Another }
    }

    /// A request failed: whatever was not reported durable is given up, and has to be learnt from the store again.
    pub fn failed(&mut self, reason: Unavailable, now: Instant) {
        self.life = self.life.wrapping_add(1);
        // A full store has said so in the order of what it was asked: everything before is durable and was reported.
        let is_known = reason == Unavailable::StoreFull && self.epoch.is_some();
        self.phase = Phase::Failing { retry: now + STORE_RETRY, reason, is_known };
        while self.entries.back().is_some_and(|entry| entry.offset > self.durable) {
            let entry = self.entries.pop_back().expect("seen");
            self.bury(&entry);
            if let Some(id) = &entry.id {
                self.ids.remove(id);
            }
        }
        for entry in self.entries.iter_mut().filter(|entry| entry.recalling > self.durable) {
            entry.recalling = 0;
        }
        while self.tail.back().is_some_and(|message| message.offset > self.durable) {
            let message = self.tail.pop_back().expect("seen");
            self.tail_bytes -= message.wire_bytes;
        }
        self.head = self.durable;
    }

    /// What is known of an id; `Err` if it was published with another message.
    ///
    /// # Errors
    /// [`Known::Other`].
    pub fn twin(&self, id: &MessageId, fingerprint: Fingerprint) -> Result<Twin, Known> {
        match self.ids.get(id) {
            None => Ok(Twin::No),
            Some(known) if known.fingerprint != fingerprint => Err(Known::Other),
            Some(known) if known.offset > self.durable => Ok(Twin::InFlight(known.offset)),
            Some(known) => Ok(Twin::Durable(known.offset)),
        }
    }

    /// Whether one more message of that size may be alive.
    #[must_use]
    pub fn has_room_for(&self, bytes: usize) -> bool {
        self.expiries.len() < STREAM_MESSAGES_MAX && self.alive_bytes + bytes <= STREAM_BYTES_MAX
    }

    /// Gives a message its offset; it is to be sent to the store.
    pub fn append(&mut self, mut message: Message) -> Arc<Message> {
        self.head += 1;
        message.offset = self.head;
        let message = Arc::new(message);
        self.take_in(&message);
        if let Some(recalled) = self.entry_mut(message.recall) {
            recalled.recalling = message.offset;
        }
        message
    }

    /// Everything up to `through` is durable.
    pub fn durable_through(&mut self, through: u64) {
        for offset in self.durable + 1..=through.min(self.head) {
            self.now_durable(offset);
        }
        self.durable = self.durable.max(through.min(self.head));
    }

    /// A batch is cut with these messages of the stream, while the room has `members`. What its frame says of them.
    pub fn send(&mut self, messages: &[Arc<Message>], members: u64, ack_within_ms: u32) -> Option<Span> {
        let after = self.sent;
        if messages.iter().any(|message| message.offset > after) {
            self.settle_departed();
        }
        for message in messages.iter().filter(|message| message.offset > 0) {
            self.sent = message.offset;
            if let Some(entry) = self.entry_mut(message.offset) {
                entry.receipt.online += members;
            }
        }
        (self.sent > after).then_some(Span { after, through: self.sent, ack_within_ms })
    }

    /// Where a joining device stands.
    #[must_use]
    pub fn judge(&self, cursor: Option<Cursor>) -> Judged {
        let reset = |reason| Judged { after: 0, reset: Some(reason), returns: false };
        match cursor {
            None => Judged { after: 0, reset: None, returns: false },
            // Whatever its epoch, it has nothing; of this one it may have been a member.
            Some(Cursor { offset: 0, epoch }) => {
                Judged { after: 0, reset: None, returns: Some(epoch) == self.epoch }
            }
            Some(Cursor { epoch, .. }) if Some(epoch) != self.epoch => reset("epoch_changed"),
            Some(Cursor { offset, .. }) if offset > self.sent => reset("ahead"),
            Some(Cursor { offset, .. }) => Judged { after: offset, reset: None, returns: true },
        }
    }

    /// A device came back that has everything up to `after`.
    pub fn come_back(&mut self, after: u64, device: u64) {
        let sent = self.sent;
        self.settle_departed();
        for entry in self.entries.iter_mut().take_while(|entry| entry.offset <= sent) {
            self.names -= entry.receipt.names();
            let names_max = RECEIPT_DEVICES_MAX.saturating_sub(self.names + entry.receipt.names());
            if entry.offset <= after {
                entry.receipt.come_back_with(device, names_max);
            } else {
                entry.receipt.come_back_for(device, names_max);
            }
            self.names += entry.receipt.names();
        }
    }

    /// A member left that had acknowledged everything up to `acked`. Without a name, or once as many names are known as may
    /// be, it costs the same however many messages it lacked.
    pub fn leave(&mut self, acked: u64, device: u64) {
        let sent = self.sent;
        let from = self.index_after(acked);
        let Some(first) = self.entries.get(from).filter(|entry| entry.offset <= sent) else { return };
        if device == 0 || self.names + self.entries.len() - from > RECEIPT_DEVICES_MAX {
            return self.departed.leave(first.offset);
        }
        for entry in self.entries.range_mut(from..).take_while(|entry| entry.offset <= sent) {
            let known = entry.receipt.names();
            entry.receipt.leave(device);
            self.names += entry.receipt.names() - known;
        }
    }

    /// Members that left before they had acknowledged a message, and did not come back.
    #[must_use]
    pub fn left(&self, entry: &Entry) -> u64 {
        let is_sent = entry.offset <= self.sent;
        entry.receipt.left() + if is_sent { self.departed.lacking(entry.offset) } else { 0 }
    }

    fn settle_departed(&mut self) {
        let sent = self.sent;
        let receipts = self.entries.iter_mut().take_while(|entry| entry.offset <= sent);
        self.departed.settle(receipts.map(|entry| (entry.offset, &mut entry.receipt)));
    }

    /// A member acknowledged what no segment counts.
    pub fn acked_early(&mut self, reach: Reach, now_ms: u64) {
        let from = self.index_after(reach.after);
        for entry in self.entries.range_mut(from..).take_while(|entry| entry.offset <= reach.through) {
            entry.acks.add(Duration::from_millis(now_ms.saturating_sub(entry.at_ms)));
        }
    }

    /// What is alive and was sent in (after, through], as far as `bytes_max` allows, but at least one message.
    #[must_use]
    pub fn find(&self, after: u64, through: u64, bytes_max: usize) -> Found {
        let through = through.min(self.sent);
        let from = self.index_after(after);
        let wanted = self.entries.range(from..).take_while(|entry| entry.offset <= through);
        let first = wanted.filter(|entry| !entry.dead).map(|entry| entry.offset).next();
        let first = first.filter(|first| self.tail.front().is_none_or(|tail| *first < tail.offset));
        if let Some(first) = first {
            return Found::InStore { from: first - 1 };
        }
        let from = self.tail.partition_point(|message| message.offset <= after);
        self.page(self.tail.range(from..).cloned(), after, through, bytes_max)
    }

    /// As much of `messages`, which are all there are behind `after`, as [`Self::find`] would give.
    pub fn page(
        &self,
        messages: impl IntoIterator<Item = Arc<Message>>,
        after: u64,
        through: u64,
        bytes_max: usize,
    ) -> Found {
        let (mut page, mut bytes) = (Vec::new(), 0);
        let (through, mut reached) = (through.min(self.sent), after);
        for message in messages {
            let offset = message.offset;
            if offset > through {
                break;
            }
            if offset > after && self.entry(offset).is_some_and(|entry| !entry.dead) {
                bytes += message.wire_bytes;
                if !page.is_empty() && (bytes > bytes_max || page.len() >= TAIL_MESSAGES_MAX) {
                    return Found::Here { messages: page, through: reached };
                }
                page.push(message);
            }
            reached = reached.max(offset);
        }
        Found::Here { messages: page, through: through.max(after) }
    }

    /// Nothing at or before this offset is alive.
    #[must_use]
    pub fn floor(&self) -> u64 {
        let alive = self.entries.iter().find(|entry| !entry.dead && entry.offset <= self.sent);
        alive.map_or(self.sent, |entry| entry.offset - 1)
    }

    /// Takes out what the store has found damaged or lost: it was to be in a page of everything in (after, through].
    pub fn bury_missing(&mut self, found: &[Arc<Message>], after: u64, through: u64) {
        let (from, durable) = (self.index_after(after), self.durable);
        let mut missing = Vec::new();
        for entry in self.entries.range(from..).take_while(|entry| entry.offset <= through.min(durable)) {
            let is_found = found.binary_search_by_key(&entry.offset, |message| message.offset).is_ok();
            if !entry.dead && !is_found {
                missing.push(entry.offset);
            }
        }
        missing.into_iter().for_each(|offset| self.die(offset));
    }

    /// What is kept of an offset.
    #[must_use]
    pub fn entry(&self, offset: u64) -> Option<&Entry> {
        self.entries.get(self.index_of(offset)?)
    }

    /// What is kept of an offset, to count on.
    pub fn entry_mut(&mut self, offset: u64) -> Option<&mut Entry> {
        let index = self.index_of(offset)?;
        self.entries.get_mut(index)
    }

    /// Lets go of what is too old.
    pub fn age(&mut self, now_ms: u64) {
        while let Some((expires_ms, offset)) = self.expiries.first().copied()
            && expires_ms <= now_ms
        {
            self.die(offset);
        }
        let id_age_ms = millis(ID_AGE_MAX);
        while self.ids_in_order.front().is_some_and(|(at_ms, _)| at_ms + id_age_ms < now_ms) {
            // It may have been used again since, or given up.
            if let Some((at_ms, id)) = self.ids_in_order.pop_front()
                && self.ids.get(&id).is_some_and(|known| known.at_ms == at_ms)
            {
                self.ids.remove(&id);
            }
        }
        while self.entries.front().is_some_and(|entry| entry.dead && entry.at_ms + id_age_ms < now_ms) {
            if let Some(entry) = self.entries.pop_front() {
                self.names -= entry.receipt.names();
            }
        }
    }

    /// Whether it holds anything that ages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.ids.is_empty()
    }

    /// Asserts what every mutation keeps.
    pub fn check_invariants(&self) {
        assert!(self.sent <= self.durable && self.durable <= self.head, "sent, durable, given out");
        let living = self.entries.iter().filter(|entry| !entry.dead);
        let bytes: usize = living.clone().map(|entry| entry.bytes).sum();
        assert_eq!(
            (living.count(), bytes),
            (self.expiries.len(), self.alive_bytes),
            "what is alive is counted"
        );
        assert!(self.entries.iter().zip(self.entries.iter().skip(1)).all(|(a, b)| a.offset < b.offset));
        assert!(self.ids.len() <= self.ids_in_order.len(), "each id has its time");
        let names: usize = self.entries.iter().map(|entry| entry.receipt.names()).sum();
        assert_eq!(names, self.names);
        assert!(self.tail.len() <= TAIL_MESSAGES_MAX);
        let bytes: usize = self.tail.iter().map(|message| message.wire_bytes).sum();
        assert_eq!(bytes, self.tail_bytes);
    }

    fn take_in(&mut self, message: &Arc<Message>) {
        let entry = Entry::of(message);
        self.expiries.insert((entry.expires_ms, entry.offset));
        self.alive_bytes += entry.bytes;
        self.entries.push_back(entry);
        if let Some(id) = &message.id {
            let (fingerprint, offset, at_ms) = (Fingerprint::of(message), message.offset, message.at_ms);
            self.ids.insert(id.clone(), KnownId { fingerprint, offset, at_ms });
            self.ids_in_order.push_back((at_ms, id.clone()));
        }
        self.tail_bytes += message.wire_bytes;
        self.tail.push_back(Arc::clone(message));
        while self.tail.len() > TAIL_MESSAGES_MAX || self.tail_bytes > TAIL_BYTES_MAX {
            let Some(oldest) = self.tail.pop_front() else { break };
            self.tail_bytes -= oldest.wire_bytes;
        }
        while self.entries.len() > RECEIPTS_MAX
            && let Some(oldest) = self.entries.iter().position(|entry| entry.dead)
        {
            if let Some(entry) = self.entries.remove(oldest) {
                self.names -= entry.receipt.names();
            }
        }
    }

    /// A recall takes effect when it is durable.
    fn now_durable(&mut self, offset: u64) {
        let Some(recall) = self.entry(offset).map(|entry| entry.recall).filter(|recall| *recall > 0) else {
            return;
        };
        if let Some(recalled) = self.entry_mut(recall) {
            (recalled.recalled_by, recalled.recalling) = (offset, 0);
            self.die(recall);
        }
    }

    fn die(&mut self, offset: u64) {
        let Some(entry) = self.entry_mut(offset).filter(|entry| !entry.dead) else { return };
        entry.dead = true;
        let (expires_ms, bytes) = (entry.expires_ms, entry.bytes);
        self.expiries.remove(&(expires_ms, offset));
        self.alive_bytes -= bytes;
    }

    /// The accounts of an entry that is taken out.
    fn bury(&mut self, entry: &Entry) {
        if !entry.dead {
            self.expiries.remove(&(entry.expires_ms, entry.offset));
            self.alive_bytes -= entry.bytes;
        }
    }

    /// Offsets follow one another but for the dead that made way, so the first guess is mostly right.
    fn index_of(&self, offset: u64) -> Option<usize> {
        let guess = usize::try_from(offset.checked_sub(self.entries.front()?.offset)?).ok()?;
        match self.entries.get(guess) {
            Some(entry) if entry.offset == offset => Some(guess),
            _ => self.entries.binary_search_by_key(&offset, |entry| entry.offset).ok(),
        }
    }

    fn index_after(&self, offset: u64) -> usize {
        self.entries.partition_point(|entry| entry.offset <= offset)
    }
}
