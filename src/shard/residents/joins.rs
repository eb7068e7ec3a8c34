//! Joins: connections become members. A join goes to the room's home, and a welcome comes back.

use super::Residents;
use super::connection::{Deferred, PlaceStands, RoomPlace, Socket};
use crate::auth::Grant;
use crate::shard::lane::{Control, JoinRefused, Welcome};
use roomcast_core::fanout::segment::{Entrant, Segment, StreamPlace};
use roomcast_core::limits::ROOMS_PER_CONNECTION_MAX;
use roomcast_core::now::Now;
use roomcast_core::room::id::{Cursor, RoomName, Run, Seen};
use roomcast_core::room::{Departure, Join, SegmentSaid};
use roomcast_core::wire::close::CloseReason;
use roomcast_core::wire::frame::Notice;

impl<S: Socket> Residents<S> {
    /// Has a connection join a room, or defers or refuses the join.
    pub fn join(&mut self, key: u64, room: &RoomName, seen: Option<Seen>, cursor: Option<Cursor>, now: Now) {
        let Some(index) = self.connections.find(key) else { return };
        if self.farewell.is_some() {
            // The connection was on its way when the others were told to go.
            return self.close(index, CloseReason::Draining, now);
        }
        let segment = self.segments.find(room);
        let connection = &mut self.connections[index];
        let is_joined = connection.places.iter().any(|place| Some(place.segment) == segment);
        let refusal = if is_joined || connection.has_deferred(room) {
            "already_joined"
        } else if connection.places.len() + connection.deferred.len() >= ROOMS_PER_CONNECTION_MAX {
            "too_many_rooms"
        } else if connection.grant.is_over(now.unix_ms) {
            "token_expired"
        } else if !connection.grant.covers(room) {
            "room_not_granted"
        } else if connection.grant == Grant::Any && !self.plan.device_keys.is_open() {
            // A reload has locked the door since the device came. The device keeps its rooms, and shows a token
            // for more.
            "token_missing"
        } else if self.lanes.is_overloaded(self.plan.home(room)) {
            "overloaded"
        } else if connection.may_join() {
            return self.send_join(index, &Deferred::new(room, seen, cursor));
        } else {
            return connection.deferred.push_back(Deferred::new(room, seen, cursor));
        };
        self.notify(index, Notice::Error { code: refusal, room: Some(room), field: Some("room") }, now);
    }

    fn send_join(&mut self, index: u32, wish: &Deferred) {
        let Deferred { room, seen, cursor, moved, .. } = wish;
        let seen = *seen;
        let cursor = *cursor;
        let moved = *moved;
        let home = self.plan.home(room);
        let segment = self.segments.find(room).unwrap_or_else(|| self.segments.place(room, home));
        self.segments[segment].joining += 1;
        let key = self.connections.key(index);
        let connection = &mut self.connections[index];
        connection.joins = connection.joins.wrapping_add(1);
        let join = connection.joins;
        // Nearly every connection has one room; a vector would begin with space for four.
        connection.places.reserve_exact(1);
        let stands = if moved { PlaceStands::Rejoining } else { PlaceStands::Joining };
        connection.places.push(RoomPlace { segment, stands, join });
        let encoding = connection.encoding;
        let device = connection.device;
        let shard = u16::try_from(self.plan.index).expect("at most SHARDS_MAX shards");
        let join = Join { shard, connection: key, join, encoding, seen, cursor, device, moved };
        self.lanes.tell(home, Control { room: room.clone(), run: None, said: SegmentSaid::Join(join) });
    }

    /// Sends the next deferred join, if its turn has come.
    pub(super) fn send_deferred_join(&mut self, index: u32) {
        let connection = &mut self.connections[index];
        if connection.may_join()
            && let Some(wish) = connection.next_deferred()
        {
            self.send_join(index, &wish);
        }
    }

    /// Takes the welcome to a join: the connection is a member from here on, unless it left or ended
    /// meanwhile.
    pub(super) fn take_welcome(&mut self, room: &RoomName, run: Run, welcome: &Welcome, now: Now) {
        let Welcome { seq, connection: key, join, encoding, epoch, place, latest, frame, pieces, .. } =
            welcome;
        self.end_former_life(room, now);
        let settled = self.settle_join(room);
        let joining = settled.and_then(|segment| Some((segment, self.joining(*key, segment, *join)?)));
        let Some((segment, Joining { index, at })) = joining else {
            // The home has counted a member that nobody is: it counts the member off again.
            let StreamPlace { acked, counts_from, device, .. } = *place;
            let left = Departure { encoding: *encoding, epoch: *epoch, acked, counts_from, device };
            self.tell(room.clone(), run, SegmentSaid::Left(left));
            settled.into_iter().for_each(|segment| self.drop_empty_segment(segment));
            return;
        };
        let known = &self.segments[segment].segment;
        if known.run() != run || known.epoch() != *epoch {
            self.begin_life(segment, run, Segment::new(room.clone(), run, *seq, *epoch));
        }
        let entrant =
            Entrant { connection: index, encoding: *encoding, seq: *seq, place: *place, latest: *latest };
        let slot = self.segments[segment].segment.join(entrant, now.instant);
        self.segments.note_look(segment);
        let connection = &mut self.connections[index];
        let stands = &mut connection.places[at].stands;
        let is_new = std::mem::replace(stands, PlaceStands::Member(slot)) == PlaceStands::Joining;
        self.tally.rewelcomes += u64::from(!is_new);
        connection.keep_history(segment, false, pieces, now.instant);
        self.connections.note_patient(index);
        let connection = &self.connections[index];
        // A device with one room knows by its welcome, and a member of a moved room knew before.
        if connection.places.len() > 1 && is_new {
            self.notify(index, Notice::Joined(room), now);
            if self.connections[index].closing.is_some() {
                return; // That was one answer too many: it has left, and its segment may be gone.
            }
        }
        self.tally.frames_composed += 1;
        self.connections[index].welcome(frame, now.instant);
        self.connections.note_waiting(index);
        if !self.connections[index].is_waiting() {
            // There may be more reliable messages or latest values than a welcome holds.
            let speed = self.connections[index].speed();
            self.segments[segment].segment.drained(slot, speed);
            self.send_wants(segment);
        }
        self.send_deferred_join(index);
        self.go_on_with_history(index, now);
    }

    /// Has a segment without members begin in another life of the room, or with a stream that was unknown
    /// before.
    fn begin_life(&mut self, key: u32, run: Run, segment: Segment) {
        let former = &self.segments[key].segment;
        let former_run = former.run();
        let batches = former.queued_batches();
        self.hand_over_counts(key);
        let placed = &mut self.segments[key];
        placed.segment = segment;
        placed.active = false;
        // Nobody is left of the members that the batches were for, so these are not before the segment any
        // more.
        if former_run == run && batches > 0 {
            self.tell_home(key, SegmentSaid::Taken { batches, cost: None });
        }
    }

    /// Gives up the last pass of a room's former life, if the room lives anew before that pass is over.
    fn end_former_life(&mut self, room: &RoomName, now: Now) {
        let Some(key) = self.segments.find(room) else { return };
        let placed = &mut self.segments[key];
        if placed.closing {
            placed.active = false;
            self.tally.frames_skipped += placed.segment.give_up();
            self.finish_closing(key, now);
        }
    }

    /// Takes the refusal of a join.
    pub(super) fn take_refusal(&mut self, room: &RoomName, refused: JoinRefused, now: Now) {
        let JoinRefused { connection: key, join, code, .. } = refused;
        let Some(segment) = self.settle_join(room) else { return };
        if let Some(Joining { index, at }) = self.joining(key, segment, join) {
            self.connections[index].places.remove(at);
            self.notify(
                index,
                Notice::Error { code: code.name(), room: Some(room), field: Some("room") },
                now,
            );
            self.send_deferred_join(index);
        }
        self.drop_empty_segment(segment);
    }

    /// Takes a join back for which no node is known as the home: joins of the connection for other rooms go first.
    pub(super) fn take_back(&mut self, room: RoomName, join: &Join) {
        let Some(segment) = self.settle_join(&room) else { return };
        let Join { connection: key, seen, cursor, moved, .. } = *join;
        if let Some(Joining { index, at }) = self.joining(key, segment, join.join) {
            let connection = &mut self.connections[index];
            connection.places.remove(at);
            connection.deferred.push_back(Deferred { room, seen, cursor, moved, is_homeless: false });
            // A home may be known by now.
            self.moving.push_back(key);
        }
        self.drop_empty_segment(segment);
    }

    /// Counts an answered join off. The result is the room's segment, perhaps empty now. `None`: no join is on its
    /// way. Another node may answer twice.
    fn settle_join(&mut self, room: &RoomName) -> Option<u32> {
        let segment = self.segments.find(room)?;
        let placed = &mut self.segments[segment];
        placed.joining = placed.joining.checked_sub(1)?;
        Some(segment)
    }

    /// The connection of `key`, if one of its places still waits for the answer to this join.
    fn joining(&self, key: u64, segment: u32, join: u32) -> Option<Joining> {
        let index = self.connections.find(key)?;
        let waits =
            |place: &RoomPlace| place.segment == segment && place.slot().is_none() && place.join == join;
        let at = self.connections[index].places.iter().position(waits)?;
        Some(Joining { index, at })
    }
}

/// A place of a connection that waits for the answer to its join.
struct Joining {
    /// The connection.
    index: u32,
    /// Position among the connection's places.
    at: usize,
}
