//! How connections become members: joins on their way to the home, and the welcomes that answer them.

use super::lane::{Control, Welcome};
use super::{Drain, Shard, directory};
use crate::shard::connection::{Deferred, Place, Socket};
use roomcast_core::fanout::segment::{Entrant, Segment};
use roomcast_core::limits::ROOMS_PER_CONNECTION_MAX;
use roomcast_core::now::Now;
use roomcast_core::room::id::{Cursor, RoomName, Run, Seen};
use roomcast_core::room::{Departure, Join, SegmentSaid};
use roomcast_core::wire::close::CloseReason;
use roomcast_core::wire::frame::Notice;

use super::devices::key_of;

impl<S: Socket> Shard<S> {
    /// The connection wants to become a member of a room.
    pub fn join(&mut self, key: u64, room: &RoomName, seen: Option<Seen>, cursor: Option<Cursor>, now: Now) {
        let Some(index) = self.index_of(key) else { return };
        if matches!(self.drain, Drain::Farewell(_)) {
            // It was on its way when the others were told.
            return self.close(index, CloseReason::Draining, now);
        }
        let connection = &mut self.connections.all[index as usize];
        let segment = self.segment_of.get(room).copied();
        let joined = connection.places.iter().any(|place| Some(place.segment) == segment);
        let refusal = if joined || connection.has_deferred(room) {
            "already_joined"
        } else if connection.rooms() >= ROOMS_PER_CONNECTION_MAX {
            "too_many_rooms"
        } else if !connection.grant.covers(room) {
            "room_not_granted"
        } else if self.peers[directory::home(room, self.plan.shards)].is_overloaded() {
            "overloaded"
        } else if connection.may_join() {
            return self.send_join(index, room, seen, cursor);
        } else {
            return connection.defer(Deferred { room: room.clone(), cursor });
        };
        self.notify(index, Notice::Error { code: refusal, room: Some(room), field: Some("room") }, now);
    }

    pub(super) fn send_join(
        &mut self,
        index: u32,
        room: &RoomName,
        seen: Option<Seen>,
        cursor: Option<Cursor>,
    ) {
        let segment = self.segment_of.get(room).copied().unwrap_or_else(|| self.place_segment(room));
        self.segments[segment as usize].joining += 1;
        let connection = &mut self.connections.all[index as usize];
        connection.joins = connection.joins.wrapping_add(1);
        let join = connection.joins;
        // Nearly every connection has one room; a vector would begin with space for four.
        connection.places.reserve_exact(1);
        connection.places.push(Place { segment, slot: None, join });
        let (encoding, device) = (connection.encoding, connection.device);
        let connection = key_of(index as usize, connection.generation);
        let said = SegmentSaid::Join(Join { connection, join, encoding, seen, cursor, device });
        let home = self.segments[segment as usize].home;
        self.tell_shard(home, Control { room: room.clone(), run: None, said });
    }

    /// Sends the next join that waited for its turn, if its turn has come.
    pub(super) fn send_deferred_join(&mut self, index: u32) {
        let connection = &mut self.connections.all[index as usize];
        if connection.may_join()
            && let Some(Deferred { room, cursor }) = connection.next_deferred()
        {
            self.send_join(index, &room, None, cursor);
        }
    }

    /// A join was answered: the connection is a member from here on, unless it left or ended meanwhile.
    pub(super) fn take_welcome(&mut self, room: &RoomName, run: Run, welcome: &Welcome, now: Now) {
        let Welcome { seq, connection: key, join, encoding, epoch, place, frame } = welcome;
        self.end_former_life(room, now);
        let segment = self.settle_join(room);
        let Some((index, at)) = self.joining_place(*key, segment, *join) else {
            let acked = place.acked.max(place.counts_from);
            let left = Departure { encoding: *encoding, epoch: *epoch, acked, device: place.device };
            self.tell(room.clone(), run, SegmentSaid::Left(left));
            self.drop_empty_segment(segment);
            return;
        };
        let placed = &mut self.segments[segment as usize];
        if placed.segment.run() != run || placed.segment.epoch() != *epoch {
            // Nobody is left of those that knew the room otherwise; what waited for them is not before it any more.
            let former = placed.segment.run();
            let batches = placed.segment.queued_batches();
            self.hand_over_counts(segment);
            let placed = &mut self.segments[segment as usize];
            placed.segment = Segment::new(room.clone(), run, *seq, *epoch);
            placed.active = false;
            if former == run && batches > 0 {
                self.tell_home(segment, SegmentSaid::Taken { batches, cost: None });
            }
        }
        let placed = &mut self.segments[segment as usize];
        let entrant = Entrant { connection: index, encoding: *encoding, seq: *seq, place: *place };
        let slot = placed.segment.join(entrant, now.instant);
        self.note_look(segment);
        let connection = &mut self.connections.all[index as usize];
        connection.places[at].slot = Some(slot);
        if connection.places.len() > 1 {
            self.notify(index, Notice::Joined(room), now);
            if self.connections.all[index as usize].closing.is_some() {
                return; // That was one answer too many: it has left, and its segment may be gone.
            }
        }
        self.tally.frames_composed += 1;
        self.connections.all[index as usize].welcome(frame, now.instant);
        self.look_at(index);
        if !self.connections.all[index as usize].is_waiting() {
            // There may be more of the reliable stream than a welcome holds.
            self.segments[segment as usize].segment.drained(slot);
            self.send_wants(segment);
        }
        self.send_deferred_join(index);
    }

    /// The room lives anew before the last pass of its former life was over: that pass is given up.
    pub(super) fn end_former_life(&mut self, room: &RoomName, now: Now) {
        let key = *self.segment_of.get(room).expect("a segment stays while joins are on their way");
        let placed = &mut self.segments[key as usize];
        if placed.closing {
            placed.active = false;
            self.tally.frames_skipped += placed.segment.give_up();
            self.finish_closing(key, now);
        }
    }

    pub(super) fn take_refusal(
        &mut self,
        room: &RoomName,
        (key, join): (u64, u32),
        code: &'static str,
        now: Now,
    ) {
        let segment = self.settle_join(room);
        if let Some((index, at)) = self.joining_place(key, segment, join) {
            self.connections.all[index as usize].places.remove(at);
            self.notify(index, Notice::Error { code, room: Some(room), field: Some("room") }, now);
            self.send_deferred_join(index);
        }
        self.drop_empty_segment(segment);
    }

    /// Counts an answered join off. The room's segment, which may be empty now.
    pub(super) fn settle_join(&mut self, room: &RoomName) -> u32 {
        let segment = *self.segment_of.get(room).expect("a segment stays while joins are on their way");
        let placed = &mut self.segments[segment as usize];
        placed.joining = placed.joining.checked_sub(1).expect("each join is answered once");
        segment
    }

    /// The connection of `key`, if one of its places still waits for the answer to this join; and which.
    pub(super) fn joining_place(&self, key: u64, segment: u32, join: u32) -> Option<(u32, usize)> {
        let index = self.index_of(key)?;
        let waits = |place: &Place| place.segment == segment && place.slot.is_none() && place.join == join;
        let at = self.connections.all[index as usize].places.iter().position(waits)?;
        Some((index, at))
    }
}
