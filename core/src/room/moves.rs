//! The room and its home: places lost, the right to order, and the end of this home's time.

use std::time::Instant;

use super::Room;
use super::exchange::{Ask, Input, Join, Output, SegmentSaid, Stands, Told};
use super::id::Epoch;
use super::life::End;
use super::message::{Homeless, Published, Unavailable, Verdict};
use super::pending::PendingMessage;
use super::readers::Purpose;
use super::segments::Enrolled;
use super::tally::RoomTally;
use super::view::StreamRefusal;

/// A joining member, as receipts count it. `stands`: its place in the stream; `None` while the stream is unknown.
pub(super) fn enrolled(join: &Join, epoch: Option<Epoch>, stands: Option<&Stands>) -> Enrolled {
    // No receipt counts a member that was welcomed without a place in the stream.
    let counts_from = stands.map_or(u64::MAX, |stands| stands.counts_from);
    let device = stands.map_or(0, |stands| stands.device);
    Enrolled { encoding: join.encoding, epoch, counts_from, device }
}

impl Room {
    /// True if the room counts members at a place, or awaits a word about a batch from there.
    #[must_use]
    pub fn has_place(&self, place: usize) -> bool {
        self.segments.has(place)
    }

    /// Members at places of this node.
    #[must_use]
    pub fn local_members(&self) -> u64 {
        self.segments.local_members()
    }

    /// Counts off all members of a node's place.
    pub(super) fn lose_place(&mut self, place: usize, now: Instant, tally: &mut RoomTally) {
        if !self.segments.has(place) {
            tally.stale_words += 1;
            return;
        }
        self.life.last_used = now;
        for (member, count) in self.segments.lose(place) {
            for _ in 0..count {
                self.count_off(&member.departure());
            }
        }
        self.members_changed(now);
    }

    /// Refuses an input that a frozen room does not take. Any other input comes back.
    pub(super) fn unless_frozen(&mut self, input: Input) -> Option<Input> {
        if !self.life.is_frozen {
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
