//! The end of connections: leaving their rooms, the last words, and the end of a room for its members.

use bytes::Bytes;

use super::Residents;
use super::connection::{Drained, Rest, RoomPlace, Socket};
use roomcast_core::now::Now;
use roomcast_core::room::SegmentSaid;
use roomcast_core::wire::close::CloseReason;
use roomcast_core::wire::frame::{self, Notice};

impl<S: Socket> Residents<S> {
    pub(super) fn close(&mut self, index: u32, reason: CloseReason, now: Now) {
        let notice = (reason == CloseReason::Draining).then_some(Notice::Bye);
        self.close_with(index, reason, notice, now);
    }

    /// Closes a connection whose device is to come back at `url`, another node.
    pub(super) fn send_away(&mut self, index: u32, url: &str, now: Now) {
        self.part(index, CloseReason::Elsewhere, None, frame::close_elsewhere(url), now);
    }

    /// Closes the connections of all members of a segment.
    pub(super) fn close_members(&mut self, key: u32, reason: CloseReason, now: Now) {
        let members: Vec<u32> = self.segments[key].segment.connections().collect();
        for index in members {
            self.close(index, reason, now);
        }
    }

    fn close_with(&mut self, index: u32, reason: CloseReason, notice: Option<Notice<'_>>, now: Now) {
        self.part(index, reason, notice, frame::close(reason), now);
    }

    /// Takes a connection out of its rooms, and lets it finish the frame that it has begun and say goodbye.
    fn part(
        &mut self,
        index: u32,
        reason: CloseReason,
        notice: Option<Notice<'_>>,
        goodbye: Option<Bytes>,
        now: Now,
    ) {
        let Some(connection) = self.connections.living(index) else { return };
        // The first reason counts: it is what the device hears.
        if connection.closing.replace(reason).is_some() {
            return;
        }
        self.tally.closed[reason as usize] += 1;
        let places = std::mem::take(&mut connection.places);
        let deferred = std::mem::take(&mut connection.deferred);
        let key = self.connections.key(index);
        deferred.iter().for_each(|join| self.forget_homeless(key, join));
        let connection = &mut self.connections[index];
        if reason == CloseReason::Gone {
            // Nobody is there to hear a goodbye, and the caller has the connection dropped at the end of the
            // turn.
            return places.into_iter().for_each(|place| self.give_up_place(place));
        }
        let notice = notice.map(|notice| frame::notice(notice, connection.encoding));
        // A device that goes for the node's or the publisher's reasons gets everything that it was given
        // before.
        let rest = match reason {
            CloseReason::Draining
            | CloseReason::RoomClosed
            | CloseReason::Elsewhere
            | CloseReason::TokenExpired => Rest::Deliver,
            _ => Rest::Drop,
        };
        connection.say_last(rest, notice.into_iter().chain(goodbye), now.instant);
        self.connections.note_patient(index);
        self.connections.linger(index, now.instant);
        for place in places {
            self.give_up_place(place);
        }
        self.drain_connection(index, now);
    }

    /// Writes what a connection is owed, and tells its segments when nothing is left.
    pub(super) fn drain_connection(&mut self, index: u32, now: Now) {
        let connection = &mut self.connections[index];
        let drained = connection.drain(now.instant);
        if drained == Drained::No {
            return;
        }
        let closing = connection.closing;
        self.connections.has_drained(index);
        match (drained, closing) {
            (Drained::Broken, None) => {
                self.close(index, CloseReason::Gone, now);
                self.connections.ended.push(index);
            }
            // Dropped at the end of the turn: the function that closed the connection may still be looking at
            // it.
            (Drained::Broken, Some(_)) | (_, Some(CloseReason::DeviceClosed)) => {
                self.connections.ended.push(index);
            }
            // The device is to end first, so that it reads the reason; the linger bounds how long that may
            // take.
            (_, Some(_)) => self.connections[index].socket.finish(),
            (_, None) => self.tell_segments_drained(index, now),
        }
    }

    fn tell_segments_drained(&mut self, index: u32, now: Now) {
        let speed = self.connections[index].speed();
        // The first to ask is the first to get a refresh, and keeps the others waiting: another one next time.
        let places = &mut self.connections[index].places;
        if !places.is_empty() {
            places.rotate_left(1);
        }
        for at in 0..self.connections[index].places.len() {
            let place = self.connections[index].places[at];
            let segment = place.segment;
            if let Some(slot) = place.slot() {
                self.segments[segment].segment.drained(slot, speed);
                self.send_wants(segment);
            }
        }
        self.send_deferred_join(index);
        self.go_on_with_history(index, now);
    }

    /// Begins history that waits for its turn, unless something else is to come first: owed frames, or a
    /// refresh.
    pub(super) fn go_on_with_history(&mut self, index: u32, now: Now) {
        let Some(connection) = self.connections.living(index) else { return };
        connection.age_history(now.instant);
        if !connection.has_history() {
            return self.connections.note_patient(index);
        }
        if connection.is_waiting() {
            return;
        }
        let places = connection.places.iter();
        let mut joined = places.filter_map(|place| Some((place.segment, place.slot()?)));
        if !joined.all(|(segment, slot)| self.segments[segment].segment.is_level(slot)) {
            return;
        }
        connection.begin_history(now.instant);
        self.connections.note_patient(index);
        self.connections.note_waiting(index);
    }

    /// Gives a place in a room back. A join on its way is given up when its answer comes.
    pub(super) fn give_up_place(&mut self, place: RoomPlace) {
        let Some(slot) = place.slot() else { return };
        let left = self.segments[place.segment].segment.leave(slot);
        self.tell_home(place.segment, SegmentSaid::Left(left));
        self.drop_empty_segment(place.segment);
    }

    /// Tells the members of a closed room, unless a pass over them is still to come. A connection without
    /// another room is closed.
    pub(super) fn finish_closing(&mut self, key: u32, now: Now) {
        let placed = &mut self.segments[key];
        // Batches that were cut before the room was closed come first.
        if !placed.closing || placed.segment.is_busy() {
            return;
        }
        let room = placed.segment.room().clone();
        let members: Vec<u32> = placed.segment.connections().collect();
        placed.end_life();
        for index in members {
            let connection = &mut self.connections[index];
            // A join on its way is one to the room's next life.
            connection.places.retain(|place| place.segment != key || place.slot().is_none());
            connection.forget_history(key);
            self.connections.note_patient(index);
            let connection = &self.connections[index];
            let notice = Notice::Closed(&room);
            if connection.places.is_empty() && connection.deferred.is_empty() {
                self.close_with(index, CloseReason::RoomClosed, Some(notice), now);
            } else {
                self.notify(index, notice, now);
            }
        }
        self.drop_empty_segment(key);
    }
}
