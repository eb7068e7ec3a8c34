//! The entries of a reliable stream: an entry for each message alive, on the way to the store, or with a
//! receipt.
//!
//! An entry outlives the message, for the receipt's sake. Receipts count here as members come, leave and
//! return.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::departed::Departed;
use super::entry::Entry;
use super::exchange::{EarlyAck, Reach};
use super::id::MessageId;
use super::message::Message;
use super::receipt::{Acks, Receipt};
use super::stored::Record;
use crate::limits::{ID_AGE_MAX, RECEIPTS_MAX, STREAM_BYTES_MAX, STREAM_MESSAGES_MAX, STREAM_RECALLS_MAX};
use crate::node_proto as pb;

/// The entries of a stream.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// In order of offset.
    entries: VecDeque<Entry>,
    /// Expiry and offset of each living entry.
    expiries: BTreeSet<(Instant, u64)>,
    /// Messages that died so far.
    pub(super) deaths: u64,
    /// Invariant: the bytes of the living entries, recalls aside.
    alive_bytes: usize,
    /// Invariant: the number of living recalls.
    recalls: usize,
    /// Departures without a name, in no receipt yet.
    departed: Departed,
}

/// The part of a stream's bounds that a living entry holds.
struct Held {
    expiry: (Instant, u64),
    /// 0 for a recall.
    bytes: usize,
    /// 1 for a recall.
    recalls: usize,
}

impl Held {
    fn by(entry: &Entry) -> Self {
        let is_recall = entry.recall > 0;
        Self {
            expiry: (entry.expires, entry.offset),
            bytes: if is_recall { 0 } else { entry.bytes },
            recalls: usize::from(is_recall),
        }
    }
}

impl Entries {
    pub(super) fn entry(&self, offset: u64) -> Option<&Entry> {
        self.entries.get(self.index_of(offset)?)
    }

    pub(super) fn entry_mut(&mut self, offset: u64) -> Option<&mut Entry> {
        let index = self.index_of(offset)?;
        self.entries.get_mut(index)
    }

    /// Returns true if a further message of so many bytes may be alive.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        // A recall takes no place, or a full stream could not be freed by recalls. Past their bound recalls
        // count as messages: a publisher that publishes and recalls in a loop must not fill the memory.
        let places = self.expiries.len() - self.recalls.min(STREAM_RECALLS_MAX);
        places < STREAM_MESSAGES_MAX && self.alive_bytes + bytes <= STREAM_BYTES_MAX
    }

    /// Returns true if the message at `offset` may still be sent.
    pub(super) fn is_alive(&self, offset: u64) -> bool {
        self.entry(offset).is_some_and(|entry| entry.is_alive)
    }

    /// Returns true if the message at `offset` has expired by `now`.
    pub(super) fn has_expired(&self, offset: u64, now: Instant) -> bool {
        self.entry(offset).is_none_or(|entry| entry.expires <= now)
    }

    /// The first offset in the reach whose message is alive.
    pub(super) fn first_alive(&self, reach: Reach) -> Option<u64> {
        self.within(reach).find(|entry| entry.is_alive).map(|entry| entry.offset)
    }

    /// Takes in a message with a new offset, or from the store.
    pub(super) fn push(&mut self, record: &Record, now: Instant) {
        let entry = Entry::of(record, now);
        if entry.is_alive {
            let held = Held::by(&entry);
            self.expiries.insert(held.expiry);
            self.alive_bytes += held.bytes;
            self.recalls += held.recalls;
        }
        self.entries.push_back(entry);
        // Of dead messages only receipts are kept, and those have a bound.
        while self.entries.len() > RECEIPTS_MAX
            && let Some(oldest) = self.entries.iter().position(|entry| !entry.is_alive)
        {
            self.entries.remove(oldest);
        }
    }

    /// Lets go of every entry behind `durable`: the store did not keep the messages. Returns their ids.
    pub(super) fn give_up_after(&mut self, durable: u64) -> Vec<MessageId> {
        let mut ids = Vec::new();
        while let Some(entry) = self.entries.pop_back_if(|entry| entry.offset > durable) {
            if entry.is_alive {
                self.release(&Held::by(&entry));
            }
            ids.extend(entry.id);
        }
        // These recalls were not stored, so their messages may be recalled again.
        for entry in self.entries.iter_mut().filter(|entry| entry.recalling > durable) {
            entry.recalling = 0;
        }
        ids
    }

    /// The message at `offset` is durable. A recall takes effect now.
    pub(super) fn now_durable(&mut self, offset: u64) {
        let recalls = self.entry(offset).map_or(0, |entry| entry.recall);
        if recalls == 0 {
            return;
        }
        if let Some(recalled) = self.entry_mut(recalls) {
            recalled.recalled_by = offset;
            recalled.recalling = 0;
            self.die(recalls);
        }
    }

    /// Lets go of messages in the reach missing from a read of the store: damaged or lost messages.
    pub(super) fn bury_missing(&mut self, found: &[Arc<Message>], reach: Reach) {
        let is_found = |offset: u64| found.binary_search_by_key(&offset, |message| message.offset).is_ok();
        let missing = self.within(reach).filter(|entry| entry.is_alive && !is_found(entry.offset));
        let missing: Vec<u64> = missing.map(|entry| entry.offset).collect();
        missing.into_iter().for_each(|offset| self.die(offset));
    }

    /// Ends the lives of expired messages, and lets go of outdated dead entries.
    pub(super) fn age(&mut self, now: Instant) -> bool {
        while let Some((expires, offset)) = self.expiries.first().copied()
            && expires <= now
        {
            self.die(offset);
        }
        let is_old =
            |entry: &mut Entry| !entry.is_alive && now.saturating_duration_since(entry.accepted) > ID_AGE_MAX;
        while self.entries.pop_front_if(is_old).is_some() {}
        !self.entries.is_empty()
    }

    /// The largest offset up to `sent` at or before which nothing is alive.
    pub(super) fn floor(&self, sent: u64) -> u64 {
        self.first_alive(Reach { after: 0, through: sent }).map_or(sent, |first| first - 1)
    }

    /// Moves departures into the receipts of everything sent, before the next message goes to fewer members.
    pub(super) fn settle_departed(&mut self, sent: u64) {
        let receipts = self.entries.iter_mut().take_while(|entry| entry.offset <= sent);
        self.departed.settle(receipts.map(|entry| (entry.offset, &mut entry.receipt)));
    }

    /// Marks all messages as sent in an earlier life of the room.
    pub(super) fn were_sent_before(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.receipt = Receipt::of_earlier_life());
    }

    /// The receipts for the next home of the room.
    pub(super) fn handed(&mut self, sent: u64) -> Vec<pb::MessageReceipt> {
        self.settle_departed(sent);
        self.entries.iter().map(|entry| entry.receipt.handed(entry.offset, &entry.acks)).collect()
    }

    /// Takes over the receipts of a former home, for messages up to `sent`. The store has given all entries.
    pub(super) fn take_over(&mut self, mut receipts: BTreeMap<u64, (Receipt, Acks)>, sent: u64) {
        for entry in self.entries.iter_mut().take_while(|entry| entry.offset <= sent) {
            match receipts.remove(&entry.offset) {
                Some((receipt, acks)) => (entry.receipt, entry.acks) = (receipt, acks),
                None => entry.receipt = Receipt::of_earlier_life(),
            }
        }
    }

    /// Counts a connection without a name back in: with everything up to `cursor`, and for the messages of
    /// `reach`.
    pub(super) fn come_back(&mut self, cursor: u64, reach: Reach) {
        for entry in self.entries.iter_mut().take_while(|entry| entry.offset <= reach.through) {
            if entry.offset <= cursor {
                entry.receipt.come_back_with();
            } else if entry.offset > reach.after {
                entry.receipt.come_back_for();
            }
        }
    }

    /// Counts the departure of a connection without a name and without an acknowledgement past `acked`.
    /// `sent`: the last offset sent.
    pub(super) fn leave(&mut self, acked: u64, sent: u64) {
        // Ten thousand members may leave at once and lack a thousand messages each, so a departure costs one
        // count.
        let first = self.entries.get(self.index_after(acked)).map(|entry| entry.offset);
        if let Some(first) = first.filter(|first| *first <= sent) {
            self.departed.leave(first);
        }
    }

    /// Connections without a name gone before an acknowledgement of the message.
    pub(super) fn left(&self, entry: &Entry, sent: u64) -> u64 {
        let lacking = if entry.offset <= sent { self.departed.lacking(entry.offset) } else { 0 };
        entry.receipt.left + lacking
    }

    /// Counts an acknowledgement of messages older than the member's segment.
    pub(super) fn acked_early(&mut self, early: EarlyAck, now: Instant) {
        let EarlyAck { reach, is_named } = early;
        let from = self.index_after(reach.after);
        for entry in self.entries.range_mut(from..).take_while(|entry| entry.offset <= reach.through) {
            entry.acks.add(now.saturating_duration_since(entry.accepted), is_named);
        }
    }

    /// The first offset with an entry.
    pub(super) fn first_offset(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.offset)
    }

    /// The offsets in the reach, the newest first.
    pub(super) fn offsets_down(&self, reach: Reach) -> impl Iterator<Item = u64> {
        let through = self.index_after(reach.through);
        let down = self.entries.range(..through).rev();
        down.map(|entry| entry.offset).take_while(move |offset| *offset > reach.after)
    }

    /// The runs of dead messages in the reach.
    pub(super) fn dead_runs(&self, reach: Reach) -> impl Iterator<Item = Reach> {
        let mut entries = self.within(reach).peekable();
        std::iter::from_fn(move || {
            let first = entries.find(|entry| !entry.is_alive)?;
            let mut through = first.offset;
            while let Some(next) = entries.next_if(|entry| !entry.is_alive) {
                through = next.offset;
            }
            Some(Reach { after: first.offset - 1, through })
        })
    }

    pub(super) fn check_invariants(&self) {
        let living = self.entries.iter().filter(|entry| entry.is_alive);
        assert_eq!(living.clone().count(), self.expiries.len(), "each living entry has an expiry");
        let recalls = living.clone().filter(|entry| entry.recall > 0).count();
        let messages = living.filter(|entry| entry.recall == 0);
        let bytes = messages.map(|entry| entry.bytes).sum::<usize>();
        assert_eq!((bytes, recalls), (self.alive_bytes, self.recalls), "what is alive is counted");
        assert!(self.entries.iter().zip(self.entries.iter().skip(1)).all(|(a, b)| a.offset < b.offset));
    }

    fn within(&self, reach: Reach) -> impl Iterator<Item = &Entry> {
        let from = self.index_after(reach.after);
        self.entries.range(from..).take_while(move |entry| entry.offset <= reach.through)
    }

    fn die(&mut self, offset: u64) {
        // A recall may find its message expired already.
        let Some(entry) = self.entry_mut(offset).filter(|entry| entry.is_alive) else { return };
        entry.is_alive = false;
        let held = Held::by(entry);
        self.release(&held);
        self.deaths += 1;
    }

    /// Gives back the place of a living entry.
    fn release(&mut self, held: &Held) {
        self.expiries.remove(&held.expiry);
        self.alive_bytes -= held.bytes;
        self.recalls -= held.recalls;
    }

    fn index_of(&self, offset: u64) -> Option<usize> {
        // Offsets follow one another but for dead entries that made way, so the first guess is mostly right.
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
