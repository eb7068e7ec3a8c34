//! The reliable stream as this shard's members have it: their acknowledgements, what is carried again to them, and what
//! their home is to count.

use std::time::Instant;

use super::{Shard, TURN_ENTRIES_MAX};
use crate::shard::connection::{Place, Socket};
use roomcast_core::now::Now;
use roomcast_core::room::id::{RoomName, Run};
use roomcast_core::room::{Counts, SegmentSaid};
use roomcast_core::wire::close::CloseReason;
use roomcast_core::wire::device::Ack;

impl<S: Socket> Shard<S> {
    /// A device says up to where it has applied. Whether that can be: of a room it hears, in the stream's present life,
    /// not backward, and not past what it was sent.
    pub(super) fn acknowledge(&mut self, index: u32, ack: &Ack, now: Instant) -> bool {
        let places = &self.connections.all[index as usize].places;
        let places_len = places.len();
        let place = match &ack.room {
            Some(room) => {
                let segment = self.segment_of.get(room).copied();
                places.iter().find(|place| Some(place.segment) == segment)
            }
            None if places.len() == 1 => places.first(),
            None => None,
        };
        let Some(Place { segment: key, slot: Some(slot), .. }) = place.copied() else { return false };
        let segment = &mut self.segments[key as usize].segment;
        let is_epoch_right = match ack.epoch {
            Some(epoch) => segment.epoch() == Some(epoch),
            None => places_len == 1,
        };
        if !is_epoch_right || !segment.acknowledge(slot, ack.offset, now) {
            return false;
        }
        self.segments[key as usize].counts.acked += 1;
        let segment = &mut self.segments[key as usize].segment;
        let early = segment.take_early_acks();
        if !early.is_empty() {
            let epoch = segment.epoch();
            for reach in early {
                self.tell_home(key, SegmentSaid::AckedEarly { epoch, reach });
            }
        }
        true
    }

    /// What members know of the reliable stream is not so: they come back with their cursor and hear how it is.
    pub(super) fn take_stream_changed(&mut self, room: &RoomName, run: Run, now: Now) {
        let Some(key) = self.segment_in(room, run) else { return };
        let members: Vec<u32> = self.segments[key as usize].segment.connections().collect();
        for index in members {
            self.close(index, CloseReason::StreamChanged, now);
        }
    }

    /// What a segment does not count any more, its home does.
    pub(super) fn hand_over_tallies(&mut self, key: u32) {
        let segment = &mut self.segments[key as usize].segment;
        let acks = segment.give_up_tallies();
        if !acks.is_empty() {
            let epoch = segment.epoch();
            self.tell_home(key, SegmentSaid::Acked { epoch, acks });
        }
    }

    /// What a segment has counted of its room's members goes to the home: it is no more, or of another life of the room.
    pub(super) fn hand_over_counts(&mut self, key: u32) {
        let placed = &mut self.segments[key as usize];
        let counts = std::mem::take(&mut placed.counts);
        if counts != Counts::default() {
            self.tell_home(key, SegmentSaid::Counted(counts));
        }
    }

    /// Segments whose moment has come look for members that did not acknowledge in time. Whether more are due.
    pub(super) fn take_looks(&mut self, now: Now) -> bool {
        for _ in 0..TURN_ENTRIES_MAX {
            let Some((_, key)) = self.looks.first().copied().filter(|(at, _)| *at <= now.instant) else {
                return false;
            };
            self.segments[key as usize].segment.look(&self.connections, now.instant);
            self.note_look(key);
            self.send_wants(key);
        }
        true
    }

    /// Keeps the moment at which a segment wants to look.
    pub(super) fn note_look(&mut self, key: u32) {
        let placed = &mut self.segments[key as usize];
        let look_at = placed.segment.poll_look();
        let before = std::mem::replace(&mut placed.look_at, look_at);
        if before != look_at {
            before.map(|at| self.looks.remove(&(at, key)));
            look_at.map(|at| self.looks.insert((at, key)));
        }
    }
}
