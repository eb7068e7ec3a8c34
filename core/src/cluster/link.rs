//! The link: one FIFO to another node and back, over a bus that loses, delays, repeats and reorders messages. Pure.
//!
//! The owner pushes entries, gives messages of the bus to [`Link::take`], and sends the messages of
//! [`Link::poll_send`]. Entries come out of [`Link::poll_entry`] in the order of their push.
//!
//! - A *kept* entry is repeated until an ack. Everything behind a lost message with kept entries waits for it: a
//!   welcome at seq 5 comes before batch 6.
//! - A *batch* is never repeated. A lost batch is skipped and lapses. So does a batch without an ack in time, and
//!   such a batch may have come all the same.
//! - A link that can't keep its kept entries begins anew. The next generation tells the other node, and both
//!   owners hear [`LinkEvent::Reset`] once: everything on its way is lost in both directions.

mod incoming;
mod message;
mod outgoing;
mod round_trip;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::incoming::{PastBound, TakingHalf};
pub use self::message::{BadMessage, LinkEnds, LinkMessage};
use self::outgoing::{Pushed, Ready, SendingHalf};
use self::round_trip::RoundTrip;
use crate::limits::{LINK_ACK_AGE_MAX, LINK_KEPT_AGE_MAX};

/// A link to another node. `T` names a batch to the owner.
#[derive(Debug)]
pub struct Link<T> {
    ends: LinkEnds,
    /// The number of the link among the links of the two incarnations. The higher one counts.
    generation: u32,
    outgoing: SendingHalf<T>,
    incoming: TakingHalf,
    events: VecDeque<LinkEvent<T>>,
    /// The owner has pushed entries in this generation.
    is_used: bool,
    tally: LinkTally,
}

/// An entry of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEntry<T> {
    /// A batch, never repeated.
    Batch {
        /// The entry.
        bytes: Bytes,
        /// The name of the batch, for [`LinkEvent::Lapsed`].
        tag: T,
    },
    /// An entry that is repeated until an ack.
    Kept(Bytes),
}

/// News of a link for the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent<T> {
    /// The link begins anew. Entries on their way are lost in both directions.
    Reset,
    /// A batch was left out, or has no ack in time.
    Lapsed {
        /// The name of the batch.
        tag: T,
    },
}

/// The counts of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkTally {
    /// Bytes of messages sent.
    pub bytes: u64,
    /// Entries sent, without repeats.
    pub entries: u64,
    /// Batches left out, or without an ack in time.
    pub lapsed: u64,
    /// Messages sent again.
    pub repeated: u64,
    /// Begins anew, on word of either side.
    pub resets: u64,
    /// Messages of a former generation, and impossible ones.
    pub stale: u64,
}

impl<T> Link<T> {
    /// A link between two incarnations. `generation` is 1 at their first meeting, and later the next one after the
    /// generation of their former link.
    pub fn new(ends: LinkEnds, generation: u32, now: Instant) -> Self {
        let mut outgoing = SendingHalf::new(RoundTrip::default());
        if generation > 1 {
            outgoing.greet(now);
        }
        Self {
            ends,
            generation,
            outgoing,
            incoming: TakingHalf::default(),
            events: VecDeque::new(),
            is_used: false,
            tally: LinkTally::default(),
        }
    }

    /// The number of the link among the links of the two incarnations. It changes with each reset.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Bytes of kept entries that wait or have no ack.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.outgoing.kept_bytes
    }

    /// The age of the oldest kept entry without an ack.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        self.outgoing.oldest_kept().map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Takes an entry to send. A batch past a bound lapses. A kept entry past a bound is lost with a reset.
    pub fn push(&mut self, entry: LinkEntry<T>, now: Instant) {
        self.is_used = true;
        match self.outgoing.push(entry, &mut self.events, now) {
            Pushed::Waits => {}
            Pushed::Lapsed => self.tally.lapsed += 1,
            Pushed::Full => self.reset(now),
        }
    }

    /// Takes a message of the bus, from the other node and for this one.
    pub fn take(&mut self, message: LinkMessage, now: Instant) {
        debug_assert!(message.from == self.ends.peer && message.to == self.ends.own, "the owner has looked");
        if message.generation < self.generation {
            self.tally.stale += 1;
            // The other node has not heard of the reset.
            self.incoming.ack_by(now + LINK_ACK_AGE_MAX);
            return;
        }
        if message.generation > self.generation {
            // A link without a word in either direction loses nothing.
            if self.is_used || self.incoming.is_begun() {
                self.tell_reset();
            }
            self.begin(message.generation);
        }
        if message.ack.through > self.outgoing.seq {
            self.tally.stale += 1;
            return;
        }
        let told = self.events.len();
        self.outgoing.acked(&message.ack, &mut self.events, now);
        self.tally.lapsed += (self.events.len() - told) as u64;
        if message.seq > 0 && self.incoming.take(message, now) == Err(PastBound) {
            self.reset(now);
        }
    }

    /// Begins anew: entries on their way are lost in both directions.
    pub fn reset(&mut self, now: Instant) {
        self.tell_reset();
        self.begin(self.generation.saturating_add(1));
        self.outgoing.greet(now);
    }

    fn tell_reset(&mut self) {
        self.tally.resets += 1;
        // Lapses of the former link are covered, and so is a reset that the owner has not yet heard of.
        self.events.clear();
        self.events.push_back(LinkEvent::Reset);
    }

    fn begin(&mut self, generation: u32) {
        self.generation = generation;
        self.outgoing = SendingHalf::new(self.outgoing.trip.without_attempts());
        self.incoming = TakingHalf::default();
        self.is_used = false;
    }

    /// Does what is due at [`Link::poll_deadline`]: repeats, lapses, and the reset of a link without acks.
    pub fn due(&mut self, now: Instant) {
        if self.age(now) >= LINK_KEPT_AGE_MAX {
            return self.reset(now);
        }
        let told = self.events.len();
        self.outgoing.due(&mut self.events, now);
        self.tally.lapsed += (self.events.len() - told) as u64;
    }

    /// The next message for the bus. An ack leaves alone if no other message has taken it along in time.
    pub fn poll_send(&mut self, now: Instant) -> Option<Bytes> {
        let ready = match self.outgoing.poll_ready(&mut self.tally, now) {
            Some(ready) => ready,
            None if self.incoming.ack_at.is_some_and(|at| at <= now) => Ready::ACK,
            None => return None,
        };
        let Ready { seq, kept_before, sort, shape, entries, bytes } = ready;
        let message = LinkMessage {
            version: self.ends.version,
            from: self.ends.own,
            to: self.ends.peer,
            generation: self.generation,
            seq,
            sort,
            shape,
            kept_before,
            floor: self.outgoing.floor(),
            ack: self.incoming.take_ack(),
            entries,
            bytes,
        };
        let message = message.encode();
        self.tally.bytes += message.len() as u64;
        Some(message)
    }

    /// The next entry of the other node.
    pub fn poll_entry(&mut self) -> Option<Bytes> {
        self.incoming.poll_entry()
    }

    /// The next event. The owner takes all events before entries.
    pub fn poll_event(&mut self) -> Option<LinkEvent<T>> {
        self.events.pop_front()
    }

    /// The moment of the next [`Link::due`] and [`Link::poll_send`].
    pub fn poll_deadline(&self) -> Option<Instant> {
        self.outgoing.poll_deadline().into_iter().chain(self.incoming.ack_at).min()
    }

    /// The counts since the last call.
    pub fn take_tally(&mut self) -> LinkTally {
        std::mem::take(&mut self.tally)
    }
}
