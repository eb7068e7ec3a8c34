//! Moves: a room has another home from now on, and its members join again on their connections.
//!
//! A connection goes on as it is. Its device gets a further welcome, behind everything that is owed already, and
//! nothing from the former life after it.

use std::time::Instant;

use super::Residents;
use super::connection::{Deferred, Socket};
use roomcast_core::limits::NO_HOME_AGE_MAX;
use roomcast_core::now::Now;
use roomcast_core::room::id::{Cursor, RoomName, Run, Seen};
use roomcast_core::room::message::Homeless;
use roomcast_core::room::{Counts, SegmentSaid};
use roomcast_core::wire::frame::Notice;

/// The join of a newcomer to a room without a home.
#[derive(Debug)]
pub(super) struct HomelessNewcomer {
    /// The moment of the refusal.
    until: Instant,
    /// The key of the connection.
    connection: u64,
    room: RoomName,
}

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
            let is_here =
                |place: &super::connection::RoomPlace| place.segment == key && place.slot().is_some();
            let Some(at) = connection.places.iter().position(is_here) else { continue };
            let place = connection.places.remove(at);
            let Some(slot) = place.slot() else { continue };
            let (seq, acked) = self.segments[key].segment.stands(slot);
            // Not the last offset that was sent: a message may be in an outbox, and the device is to show that
            // it has it.
            let cursor = epoch.map(|epoch| Cursor { epoch, offset: acked });
            let seen = Some(Seen { run, seq });
            connection.forget_history(key);
            connection.deferred.push_back(Deferred {
                room: room.clone(),
                seen,
                cursor,
                moved: true,
                is_homeless: false,
            });
            self.connections.note_patient(index);
            self.moving.push_back(self.connections.key(index));
        }
        let placed = &mut self.segments[key];
        placed.end_life();
        placed.active = false;
        self.segments.note_look(key);
        counts
    }

    /// Sends deferred joins of moved members, and of newcomers that found no home, a turn's worth. True if more are to
    /// come.
    pub(in crate::shard) fn take_moves(&mut self, has_home: impl Fn(&RoomName) -> bool, now: Now) -> bool {
        for _ in 0..self.plan.turn_members {
            let Some(key) = self.moving.pop_front() else { return false };
            let Some(index) = self.connections.find(key) else { continue };
            let connection = &mut self.connections[index];
            if connection.closing.is_some() {
                continue;
            }
            for deferred in connection.deferred.iter_mut().filter(|deferred| !deferred.is_homeless) {
                if has_home(&deferred.room) {
                    continue;
                }
                deferred.is_homeless = true;
                let room = deferred.room.clone();
                self.homeless.entry(room.clone()).or_default().insert(key);
                if !deferred.moved {
                    let until = now.instant + NO_HOME_AGE_MAX;
                    self.newcomers.push_back(HomelessNewcomer { until, connection: key, room });
                }
            }
            // A connection that is owed frames, or has another join under way, sends the join behind these.
            self.send_deferred_join(index);
        }
        !self.moving.is_empty()
    }

    /// Has joins go on whose rooms have a home by now.
    pub(in crate::shard) fn find_homes(&mut self, has_home: impl Fn(&RoomName) -> bool) {
        for (room, keys) in self.homeless.extract_if(.., |room, _| has_home(room)) {
            for key in keys {
                let Some(index) = self.connections.find(key) else { continue };
                let deferred = self.connections[index].deferred.iter_mut();
                deferred.filter(|join| join.room == room).for_each(|join| join.is_homeless = false);
                self.moving.push_back(key);
            }
        }
    }

    /// Forgets a deferred join that is given up.
    pub(super) fn forget_homeless(&mut self, connection: u64, join: &Deferred) {
        if join.is_homeless
            && let Some(connections) = self.homeless.get_mut(&join.room)
        {
            connections.remove(&connection);
            if connections.is_empty() {
                self.homeless.remove(&join.room);
            }
        }
    }

    /// Refuses newcomers that have waited too long for a home. Members wait on.
    pub(super) fn refuse_homeless(&mut self, now: Now) {
        while let Some(late) = self.newcomers.pop_front_if(|newcomer| newcomer.until <= now.instant) {
            let HomelessNewcomer { connection, room, .. } = late;
            let Some(index) = self.connections.find(connection) else { continue };
            let deferred = &mut self.connections[index].deferred;
            let is_late = |join: &Deferred| join.room == room && join.is_homeless && !join.moved;
            // The join may have gone on meanwhile.
            let Some(at) = deferred.iter().position(is_late) else { continue };
            let Some(join) = deferred.remove(at) else { continue };
            self.forget_homeless(connection, &join);
            let code = Homeless::NoHome.name();
            self.notify(index, Notice::Error { code, room: Some(&room), field: Some("room") }, now);
        }
    }
}
