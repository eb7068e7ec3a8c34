//! The room and its home: places lost, the right to order, and the end of this home's time.

use std::time::{Duration, Instant};

use super::Room;
use super::exchange::{Ask, Input, Join, Output, SegmentSaid, Stands, Told};
use super::id::Epoch;
use super::life::End;
use super::message::{Homeless, Published, Unavailable, Verdict};
use super::pending::PendingMessage;
use super::readers::Purpose;
use super::segments::{Enrolled, is_of_node};
use super::tally::RoomTally;
use super::view::StreamRefusal;
use crate::limits::NODE_BATCH_AGE_MIN;

/// A joining member, as receipts count it. `stands`: its place in the stream; `None` while the stream is unknown.
pub(super) fn enrolled(join: &Join, epoch: Option<Epoch>, stands: Option<&Stands>) -> Enrolled {
    // No receipt counts a member that was welcomed without a place in the stream.
    let counts_from = stands.map_or(u64::MAX, |stands| stands.counts_from);
    let device = stands.map_or(0, |stands| stands.device);
    Enrolled { encoding: join.encoding, epoch, counts_from, device }
}

impl Room {
    /// True if the room counts members at a place, awaits a word about a batch from there, or has joins of the place
    /// wait for its stream.
    #[must_use]
    pub fn has_place(&self, place: usize) -> bool {
        self.segments.has(place) || self.parked.has_joins_of(place)
    }

    /// Members at places of this node.
    #[must_use]
    pub fn local_members(&self) -> u64 {
        self.segments.local_members()
    }

    /// Counts off all members of a node's place, and gives up its joins.
    pub(super) fn lose_place(&mut self, place: usize, now: Instant, tally: &mut RoomTally) {
        if !self.has_place(place) {
            tally.stale_words += 1;
            return;
        }
        self.life.last_used = now;
        // Nobody at the place waits for their answers. Taken later, each would be a member that nobody counts off.
        // The joins of a local segment have connections that wait.
        if is_of_node(place) {
            self.parked.drop_joins_of(place);
        }
        for (member, count) in self.segments.lose(place) {
            for _ in 0..count {
                self.count_off(&member.departure());
            }
        }
        self.members_changed(now);
    }

    /// The age at which a batch without a word of its node lapses.
    pub(super) fn lapse_age(&self) -> Duration {
        NODE_BATCH_AGE_MIN.max(self.gathering.pace.window(self.members()) * 2)
    }

    /// Awaits nothing of nodes that took no batch into a pass for long. Their members heal by refresh.
    pub(super) fn lapse(&mut self, now: Instant) {
        let age_max = self.lapse_age();
        for (place, seq) in self.segments.lapse(age_max, now) {
            self.outputs.push_back(Output::Gap { place, seq });
        }
    }

    /// Refuses an input that a frozen room does not take. Any other input comes back.
    pub(super) fn unless_frozen(&mut self, input: Input) -> Option<Input> {
        // A room that waits for its stream takes requests, and parks them.
        if !self.life.is_frozen && (!self.life.is_paused || self.stream.is_handed()) {
            return Some(input);
        }
        match input {
            Input::Publish { ticket, .. } => {
                let published = Published::Homeless(Homeless::NoHome);
                self.outputs.push_back(Output::Published { ticket, published });
                None
            }
            // Receipts and pulls change nothing, and are answered from memory.
            Input::Ask { ticket, ask: ask @ (Ask::Recall { .. } | Ask::EndStream) } => {
                self.refuse_ask(ticket, ask);
                None
            }
            input => Some(input),
        }
    }

    /// Ends the room at this home. Everything on its way is answered now: later answers of the store come to a
    /// home that is no more.
    pub(super) fn lose(&mut self, tally: &mut RoomTally) {
        self.life.end = End::Closed;
        while let Some(message) = self.pending.pop(u64::MAX) {
            let verdict = match message {
                PendingMessage::Decided(verdict) => verdict,
                // The log may hold the message: the next home says `duplicate` to a repeat.
                _ => {
                    tally.unavailable[Unavailable::StoreFailing as usize] += 1;
                    Verdict::Unavailable(Unavailable::StoreFailing)
                }
            };
            if let Some(decided) = self.pending.decide(verdict) {
                self.answer(decided);
            }
        }
        let life = self.ending.as_ref().map(|ending| ending.life);
        life.into_iter().for_each(|life| self.not_forgotten(life, Unavailable::StoreFailing));
        for input in std::mem::take(&mut self.parked).inputs {
            match input {
                Input::Publish { ticket, .. } => {
                    let published = Published::Homeless(Homeless::NoHome);
                    self.outputs.push_back(Output::Published { ticket, published });
                }
                Input::Ask { ticket, ask } => self.refuse_ask(ticket, ask),
                Input::Segment { shard, said: SegmentSaid::Join(join) } => {
                    self.outputs.push_back(Output::GaveBack { place: shard, join });
                }
                // Nothing else is parked.
                _ => {}
            }
        }
        for reader in std::mem::take(&mut self.readers.waiting) {
            if let Purpose::Pull { ticket, .. } = reader.purpose {
                self.refuse_ask(ticket, Ask::Pull { after: None });
            }
        }
        self.outputs.push_back(Output::Lost);
    }

    fn refuse_ask(&mut self, ticket: u64, ask: Ask) {
        let told = Told::refused(ask, StreamRefusal::Homeless(Homeless::NoHome));
        self.outputs.push_back(Output::Told { ticket, told });
    }
}
