//! Moves: a room has another home from now on, and its members join again on their connections.
//!
//! A connection goes on as it is. Its device gets a further welcome, behind everything that is owed already, and
//! nothing from the former life after it.

use super::Residents;
use super::connection::{Deferred, Socket};
use roomcast_core::room::id::{Cursor, RoomName, Run, Seen};
use roomcast_core::room::{Counts, SegmentSaid};

impl<S: Socket> Residents<S> {
    /// Has all members of a segment join again. `key`: the segment, if it has members in that life of the room.
    pub(super) fn take_move(&mut self, room: &RoomName, run: Run, key: Option<u32>) {
        let counts = key.map(|key| self.move_members(key));
        // Also without members: the home awaits the word, and drops all words before it.
        self.tell(room.clone(), run, SegmentSaid::Moved);
        // A life that goes on at its home keeps its counts.
        if let Some(counts) = counts.filter(|counts| *counts != Counts::default()) {
            self.tell(room.clone(), run, SegmentSaid::Counted(counts));
        }
        key.into_iter().for_each(|key| self.drop_empty_segment(key));
    }

    /// Takes the members out of a segment. Returns the counts of the life that ends.
    fn move_members(&mut self, key: u32) -> Counts {
        let placed = &mut self.segments[key];
        // The next welcome brings what the batches and carries of this life would have brought.
        self.tally.frames_skipped += placed.segment.give_up();
        let counts = placed.counts;
        let run = placed.segment.run();
        let epoch = placed.segment.epoch();
        let room = placed.segment.room().clone();
        let members: Vec<u32> = placed.segment.connections().collect();
        for index in members {
            let connection = &mut self.connections[index];
            let is_here = |place: &super::connection::RoomPlace| place.segment == key && place.slot.is_some();
            let Some(at) = connection.places.iter().position(is_here) else { continue };
            let place = connection.places.remove(at);
            let Some(slot) = place.slot else { continue };
            let (seq, acked) = self.segments[key].segment.stands(slot);
            // Not the last offset that was sent: a message may be in an outbox, and the device is to show that
            // it has it.
            let cursor = epoch.map(|epoch| Cursor { epoch, offset: acked });
            let seen = Some(Seen { run, seq });
            connection.forget_history(key);
            connection.deferred.push_back(Deferred { room: room.clone(), seen, cursor, moved: true });
            self.connections.note_patient(index);
            self.moving.push_back(self.connections.key(index));
        }
        let placed = &mut self.segments[key];
        placed.end_life();
        placed.active = false;
        self.segments.note_look(key);
        counts
    }

    /// Sends joins of moved members, a turn's worth. True if more are to come.
    pub(in crate::shard) fn take_moves(&mut self) -> bool {
        for _ in 0..self.plan.turn_members {
            let Some(key) = self.moving.pop_front() else { return false };
            // A connection that is owed frames, or has another join under way, sends the join behind these.
            if let Some(index) = self.connections.find(key)
                && self.connections[index].closing.is_none()
            {
                self.send_deferred_join(index);
            }
        }
        !self.moving.is_empty()
    }
}
