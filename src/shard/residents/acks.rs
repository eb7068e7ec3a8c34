//! Acknowledgements of the members here, their moments of lateness, and the counts that their homes keep.

use std::time::Instant;

use super::Residents;
use super::connection::{PlaceStands, RoomPlace, Socket};
use crate::shard::TURN_ENTRIES_MAX;
use roomcast_core::now::Now;
use roomcast_core::room::{Counts, SegmentSaid};
use roomcast_core::wire::device::Ack;

impl<S: Socket> Residents<S> {
    /// Takes an acknowledgement. `false`, and nothing changes, if it is not of a joined room, of the stream's
    /// present life, forward, and within what the member was sent.
    pub(super) fn acknowledge(&mut self, index: u32, ack: &Ack, now: Instant) -> bool {
        let places = &self.connections[index].places;
        let has_one_room = places.len() == 1;
        let place = match &ack.room {
            Some(room) => {
                let segment = self.segments.find(room);
                places.iter().find(|place| Some(place.segment) == segment)
            }
            None if has_one_room => places.first(),
            // Which of its rooms does the device mean?
            None => None,
        };
        let Some(RoomPlace { segment: key, stands: PlaceStands::Member(slot), .. }) = place.copied() else {
            return false;
        };
        let segment = &mut self.segments[key].segment;
        let is_epoch_right = match ack.epoch {
            Some(epoch) => segment.epoch() == Some(epoch),
            None => has_one_room,
        };
        if !is_epoch_right || !segment.acknowledge(slot, ack.offset, now) {
            return false;
        }
        self.segments[key].counts.acked += 1;
        let segment = &mut self.segments[key].segment;
        let epoch = segment.epoch();
        for early in segment.take_early_acks() {
            self.tell_home(key, SegmentSaid::AckedEarly { epoch, early });
        }
        true
    }

    /// Hands the home the tallies a segment keeps no longer.
    pub(super) fn hand_over_tallies(&mut self, key: u32) {
        let segment = &mut self.segments[key].segment;
        let acks = segment.give_up_tallies();
        if !acks.is_empty() {
            let epoch = segment.epoch();
            self.tell_home(key, SegmentSaid::Acked { epoch, acks });
        }
    }

    /// Hands the home a segment's counts: the segment ends, or goes over to another life of the room.
    pub(super) fn hand_over_counts(&mut self, key: u32) {
        let placed = &mut self.segments[key];
        let counts = std::mem::take(&mut placed.counts);
        if counts != Counts::default() {
            self.tell_home(key, SegmentSaid::Counted(counts));
        }
    }

    /// Has due segments look for members that did not acknowledge in time. True if more are due.
    pub(in crate::shard) fn take_looks(&mut self, now: Now) -> bool {
        for _ in 0..TURN_ENTRIES_MAX {
            let due = self.segments.next_look().filter(|(at, _)| *at <= now.instant);
            let Some((_, key)) = due else { return false };
            self.segments[key].segment.look(&self.connections, now.instant);
            self.segments.note_look(key);
            self.send_wants(key);
        }
        true
    }
}
