//! The connections placed on this shard, and their members: what devices say, what arrives for them, how they leave.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::lane::{Control, Delivery, HomeSaid};
use super::{Drain, Placed, SWEEP_INTERVAL, Shard, directory};
use crate::auth::Grant;
use crate::seat::Seat;
use crate::shard::connection::{Connection, Drained, Place, Rest, Socket};
use roomcast_core::fanout::segment::{RefreshFrame, Segment};
use roomcast_core::limits::CLOSE_LINGER;
use roomcast_core::now::Now;

use roomcast_core::room::id::{Encoding, RoomName, Run, Seq};
use roomcast_core::room::{Counts, RefreshWant, SegmentSaid, WriteCost};
use roomcast_core::wire::close::CloseReason;
use roomcast_core::wire::device::{self, DeviceFrame, Refusal};
use roomcast_core::wire::frame::{self, Notice};
use roomcast_core::wire::reader::{Incoming, ReaderLimits};

impl<S: Socket> Shard<S> {
    /// Takes in a connection. Its key, valid until it is gone.
    pub fn connect(&mut self, socket: S, encoding: Encoding, grant: Grant, seat: Seat, now: Now) -> u64 {
        self.generation = self.generation.wrapping_add(1);
        let connection = Connection::new(socket, self.generation, encoding, grant, seat, now.instant);
        let index = self.connections.all.insert(connection);
        key_of(index, self.generation)
    }

    /// Bytes came off the connection's socket. Afterwards `bytes` holds nothing of use.
    pub fn receive(&mut self, key: u64, bytes: &mut [u8], now: Now) {
        let Some(index) = self.index_of(key) else { return };
        let mut reader = std::mem::take(&mut self.connections.all[index as usize].reader);
        let read =
            reader.feed(bytes, ReaderLimits::default(), &mut |incoming| self.hear(key, &incoming, now));
        // It may be gone by its own doing.
        let Some(index) = self.index_of(key) else { return };
        self.connections.all[index as usize].reader = reader;
        if let Err(reason) = read {
            self.close(index, reason, now);
        }
    }

    /// The connection's socket takes more.
    pub fn writable(&mut self, key: u64, now: Now) {
        if let Some(index) = self.index_of(key) {
            self.drain_connection(index, now);
        }
    }

    /// The connection's socket ended or failed.
    pub fn hang_up(&mut self, key: u64, now: Now) {
        let Some(index) = self.index_of(key) else { return };
        self.close(index, CloseReason::Gone, now);
        self.connections.ended.push(index);
    }

    /// The connection is cut because of a defect of the engine.
    pub fn abort(&mut self, key: u64, now: Now) {
        if let Some(index) = self.index_of(key) {
            self.close(index, CloseReason::Internal, now);
        }
    }

    /// The connection of a key, while it lives.
    pub fn connection(&mut self, key: u64) -> Option<&mut Connection<S>> {
        let index = self.index_of(key)?;
        self.connections.all.get_mut(index as usize)
    }

    /// Takes what a home sent.
    pub(super) fn take_delivery(&mut self, delivery: Delivery, now: Now) {
        let Delivery { room, run, said } = delivery;
        match said {
            HomeSaid::Level(level) => match self.segment_in(&room, run) {
                Some(key) if self.segments[key as usize].segment.arrive(level) => self.activate(key),
                // No member here needs the batch, or the segment is gone. The home counts on a word all the same.
                _ => self.tell(room, run, SegmentSaid::Taken { batches: 1, cost: None }),
            },
            HomeSaid::Welcome(welcome) => self.take_welcome(&room, run, &welcome, now),
            HomeSaid::Refused { connection, join, code } => {
                self.take_refusal(&room, (connection, join), code, now);
            }
            HomeSaid::Refresh { want, frame } => {
                if let Some(key) = self.segment_in(&room, run) {
                    self.take_refresh(key, want, frame.map(|frame| *frame), now);
                }
            }
            HomeSaid::Carry { want, seq, frame, floor } => {
                if let Some(key) = self.segment_in(&room, run) {
                    self.segments[key as usize].segment.carried(want, seq, frame, floor);
                    self.activate(key);
                }
            }
            HomeSaid::StreamChanged => self.take_stream_changed(&room, run, now),
            HomeSaid::Gap { seq } => {
                if let Some(key) = self.segment_in(&room, run) {
                    self.segments[key as usize].segment.gap(seq);
                    self.activate(key);
                }
            }
            HomeSaid::Closed => self.take_closed(&room, run, now),
        }
    }

    /// A segment took `taken` batches into a pass, and may want refreshes.
    pub(super) fn report_turn(&mut self, key: u32, taken: usize) {
        self.note_look(key);
        self.hand_over_tallies(key);
        if taken > 0 {
            let placed = &mut self.segments[key as usize];
            let cost = Some(placed.pass_begins(self.strain.stretch_permille()));
            self.tell_home(key, SegmentSaid::Taken { batches: taken, cost });
        }
        self.send_wants(key);
    }

    /// Looks for connections past a deadline: those that wait each time, silent ones a slice at a time.
    pub(super) fn sweep(&mut self, now: Instant) {
        while let Some((_, key)) = self.closing.front().copied().filter(|(at, _)| *at <= now) {
            self.closing.pop_front();
            if let Some(index) = self.index_of(key) {
                self.drop_connection(index);
            }
        }
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + SWEEP_INTERVAL;
        let now = Now { instant: now, unix_ms: 0 };
        let waiting = self.connections.waiting.iter();
        let overdue =
            |index: &u32| Some((*index, self.connections.all[*index as usize].overdue(now.instant)?));
        let overdue: Vec<(u32, CloseReason)> = waiting.filter_map(overdue).collect();
        for (index, reason) in overdue {
            self.close(index, reason, now);
        }
        self.close_silent(now);
    }

    /// Drops the connections that have said their last, or whose socket failed.
    pub(super) fn drop_ended(&mut self, now: Instant) {
        while let Some(index) = self.connections.ended.pop() {
            if self.connections.all.contains(index as usize) {
                self.close(index, CloseReason::Gone, Now { instant: now, unix_ms: 0 });
                self.drop_connection(index);
            }
        }
    }

    /// Says goodbye to a turn's worth of connections, once the drain has come so far.
    pub(super) fn take_farewells(&mut self, now: Instant) -> bool {
        let Drain::Farewell(from) = self.drain else { return false };
        let to = (from + self.plan.turn_members).min(self.connections.all.capacity());
        for index in from..to {
            if self.connections.all.contains(index) {
                let index = u32::try_from(index).expect("a shard has fewer than 2^32 connections");
                self.close(index, CloseReason::Draining, Now { instant: now, unix_ms: 0 });
            }
        }
        self.drain = Drain::Farewell(to);
        to > from
    }

    /// One frame of a device.
    fn hear(&mut self, key: u64, incoming: &Incoming<'_>, now: Now) -> ControlFlow<()> {
        let Some(index) = self.index_of(key) else { return ControlFlow::Break(()) };
        let connection = &mut self.connections.all[index as usize];
        if connection.closing.is_some() {
            return ControlFlow::Break(());
        }
        if !connection.hear(now.instant) {
            self.close(index, CloseReason::FrameFlood, now);
            return ControlFlow::Break(());
        }
        match incoming {
            Incoming::Ping(payload) => self.answer(index, &frame::websocket_pong(payload), now),
            Incoming::Close(_) => {
                self.close(index, CloseReason::DeviceClosed, now);
                return ControlFlow::Break(());
            }
            Incoming::Pong | Incoming::Fragment => {}
            Incoming::Text(_) | Incoming::Binary(_) => match device::parse(connection.encoding, incoming) {
                Ok(frame) => frame.into_iter().for_each(|frame| self.obey(key, index, frame, now)),
                Err(Refusal::Answer(bad)) => {
                    let error = Notice::Error { code: bad.code, room: None, field: bad.field };
                    self.notify(index, error, now);
                }
                Err(Refusal::Close(reason)) => {
                    self.close(index, reason, now);
                    return ControlFlow::Break(());
                }
            },
        }
        ControlFlow::Continue(())
    }

    fn obey(&mut self, key: u64, index: u32, frame: DeviceFrame, now: Now) {
        match frame {
            DeviceFrame::Ping => self.notify(index, Notice::Pong, now),
            DeviceFrame::Ack(acks) => {
                for ack in acks {
                    let taken = self.acknowledge(index, &ack, now.instant);
                    *(if taken { &mut self.tally.acks } else { &mut self.tally.acks_ignored }) += 1;
                }
            }
            DeviceFrame::Join { room, cursor } => self.join(key, &room, None, cursor, now),
            DeviceFrame::Leave { room } => self.leave(index, &room, now),
        }
    }

    fn leave(&mut self, index: u32, room: &RoomName, now: Now) {
        let segment = self.segment_of.get(room).copied();
        let connection = &mut self.connections.all[index as usize];
        let at = connection.places.iter().position(|place| Some(place.segment) == segment);
        if let Some(at) = at {
            let place = connection.places.remove(at);
            self.give_up_place(place);
        } else if connection.has_deferred(room) {
            connection.forget_deferred(room);
        } else {
            let error = Notice::Error { code: "not_joined", room: Some(room), field: Some("room") };
            return self.notify(index, error, now);
        }
        self.notify(index, Notice::Left(room), now);
        self.send_deferred_join(index);
    }

    fn take_refresh(&mut self, key: u32, want: RefreshWant, frame: Option<RefreshFrame>, now: Now) {
        let lost = self.segments[key as usize].segment.refreshed(want, frame);
        self.activate(key);
        self.send_wants(key);
        for index in lost {
            self.close(index, CloseReason::Behind, now);
        }
    }

    /// The room was closed: its members are told once they have been given what left before.
    fn take_closed(&mut self, room: &RoomName, run: Run, now: Now) {
        if let Some(key) = self.segment_in(room, run) {
            self.segments[key as usize].closing = true;
            self.finish_closing(key, now);
        }
    }

    /// Tells the members of a closed room, unless a pass over them is still to come: a connection without another
    /// room is closed.
    pub(super) fn finish_closing(&mut self, key: u32, now: Now) {
        let placed = &mut self.segments[key as usize];
        if !placed.closing || placed.segment.is_busy() {
            return;
        }
        let room = placed.segment.room().clone();
        let members: Vec<u32> = placed.segment.connections().collect();
        placed.segment = Segment::new(room.clone(), CLOSED, Seq(0), None);
        (placed.closing, placed.counts) = (false, Counts::default());
        let room = &room;
        for index in members {
            let connection = &mut self.connections.all[index as usize];
            connection.places.retain(|place| place.segment != key || place.slot.is_none());
            if connection.places.is_empty() {
                self.close_with(index, CloseReason::RoomClosed, Some(Notice::Closed(room)), now);
            } else {
                self.notify(index, Notice::Closed(room), now);
            }
        }
        self.drop_empty_segment(key);
    }

    fn close_silent(&mut self, now: Now) {
        let capacity = self.connections.all.capacity();
        let silence_max = self.plan.heartbeat.mul_f64(2.5);
        // The whole table within a quarter of a heartbeat.
        let sweeps = (self.plan.heartbeat.as_millis() / (4 * SWEEP_INTERVAL.as_millis())).max(1);
        let slice = capacity.div_ceil(usize::try_from(sweeps).unwrap_or(usize::MAX));
        for _ in 0..slice {
            self.silent_at = if self.silent_at + 1 < capacity { self.silent_at + 1 } else { 0 };
            let Some(connection) = self.connections.all.get(self.silent_at) else { continue };
            if now.instant.saturating_duration_since(connection.heard_at) >= silence_max {
                let index = u32::try_from(self.silent_at).expect("a shard has fewer than 2^32 connections");
                self.close(index, CloseReason::Silent, now);
            }
        }
    }

    pub(super) fn close(&mut self, index: u32, reason: CloseReason, now: Now) {
        let notice = (reason == CloseReason::Draining).then_some(Notice::Bye);
        self.close_with(index, reason, notice, now);
    }

    /// Takes a connection out of its rooms, and lets it finish what it has begun and say goodbye.
    fn close_with(&mut self, index: u32, reason: CloseReason, notice: Option<Notice<'_>>, now: Now) {
        let Some(connection) = self.connections.all.get_mut(index as usize) else { return };
        if connection.closing.replace(reason).is_some() {
            return;
        }
        self.tally.closed[reason.index()] += 1;
        let places = std::mem::take(&mut connection.places);
        if reason == CloseReason::Gone {
            // Nobody is there to hear a goodbye, and whoever found out has it dropped at the end of the turn.
            return places.into_iter().for_each(|place| self.give_up_place(place));
        }
        let notice = notice.map(|notice| frame::notice(notice, connection.encoding));
        // Who is told to go for the node's or the publisher's reasons gets what it was given before.
        let rest = match reason {
            CloseReason::Draining | CloseReason::RoomClosed => Rest::Deliver,
            _ => Rest::Drop,
        };
        connection.say_last(rest, notice.into_iter().chain(frame::close(reason)), now.instant);
        self.connections.waiting.insert(index);
        let key = key_of(index as usize, connection.generation);
        self.closing.push_back((now.instant + CLOSE_LINGER, key));
        for place in places {
            self.give_up_place(place);
        }
        self.drain_connection(index, now);
    }

    fn drain_connection(&mut self, index: u32, now: Now) {
        let connection = &mut self.connections.all[index as usize];
        let drained = connection.drain(now.instant);
        if drained == Drained::No {
            return;
        }
        self.connections.waiting.remove(&index);
        match (drained, connection.closing) {
            (Drained::Broken, None) => {
                self.close(index, CloseReason::Gone, now);
                self.connections.ended.push(index);
            }
            // Dropped at the end of the turn: whoever had it closed may still be looking at it.
            (Drained::Broken, Some(_)) | (_, Some(CloseReason::DeviceClosed)) => {
                self.connections.ended.push(index);
            }
            // The device is to end first, so that it reads why; the linger bounds how long that may take.
            (_, Some(_)) => connection.socket.finish(),
            (_, None) => self.tell_segments_drained(index),
        }
    }

    fn tell_segments_drained(&mut self, index: u32) {
        for at in 0..self.connections.all[index as usize].places.len() {
            let Place { segment, slot, .. } = self.connections.all[index as usize].places[at];
            if let Some(slot) = slot {
                self.segments[segment as usize].segment.drained(slot);
                self.send_wants(segment);
            }
        }
        self.send_deferred_join(index);
    }

    fn drop_connection(&mut self, index: u32) {
        self.connections.waiting.remove(&index);
        self.connections.all.try_remove(index as usize);
    }

    /// Gives a place in a room back; a join on its way is given up when its answer comes.
    fn give_up_place(&mut self, place: Place) {
        let Some(slot) = place.slot else { return };
        let segment = &mut self.segments[place.segment as usize].segment;
        let left = segment.leave(slot);
        self.tell_home(place.segment, SegmentSaid::Left(left));
        self.drop_empty_segment(place.segment);
    }

    pub(super) fn place_segment(&mut self, room: &RoomName) -> u32 {
        let segment = Segment::new(room.clone(), CLOSED, Seq(0), None);
        let home = directory::home(room, self.plan.shards);
        let key = self.segments.insert(Placed {
            segment,
            home,
            joining: 0,
            active: false,
            look_at: None,
            closing: false,
            counts: Counts::default(),
            cost: WriteCost::default(),
            spent: Duration::ZERO,
            offered: 0,
            passed: false,
        });
        let key = u32::try_from(key).expect("a shard has fewer than 2^32 segments");
        self.segment_of.insert(room.clone(), key);
        key
    }

    pub(super) fn drop_empty_segment(&mut self, key: u32) {
        let placed = &self.segments[key as usize];
        if placed.joining > 0 || placed.segment.census().members() > 0 {
            return;
        }
        self.hand_over_tallies(key);
        self.hand_over_counts(key);
        let placed = self.segments.remove(key as usize);
        placed.look_at.map(|at| self.looks.remove(&(at, key)));
        let room = placed.segment.room().clone();
        let batches = placed.segment.queued_batches();
        self.segment_of.remove(&room);
        if batches > 0 {
            self.tell(room, placed.segment.run(), SegmentSaid::Taken { batches, cost: None });
        }
    }

    pub(super) fn activate(&mut self, key: u32) {
        let placed = &mut self.segments[key as usize];
        if !placed.active && placed.segment.is_busy() {
            placed.active = true;
            self.active.push_back(key);
        }
    }

    pub(super) fn send_wants(&mut self, key: u32) {
        let segment = &mut self.segments[key as usize].segment;
        let (wants, carries) = (segment.take_wants(), segment.take_carry_wants());
        if wants.is_empty() && carries.is_empty() {
            return;
        }
        for want in wants {
            self.tell_home(key, SegmentSaid::Refresh(want));
        }
        for want in carries {
            self.tell_home(key, SegmentSaid::Carry(want));
        }
    }

    pub(super) fn tell_home(&mut self, segment: u32, said: SegmentSaid) {
        let placed = &self.segments[segment as usize];
        let room = placed.segment.room().clone();
        self.tell_shard(placed.home, Control { room, run: Some(placed.segment.run()), said });
    }

    pub(super) fn tell(&mut self, room: RoomName, run: Run, said: SegmentSaid) {
        let home = directory::home(&room, self.plan.shards);
        self.tell_shard(home, Control { room, run: Some(run), said });
    }

    pub(super) fn tell_shard(&mut self, home: usize, control: Control) {
        if home == self.plan.index {
            // Not at once: a room may be in the middle of telling what followed from its last input.
            self.control.push_back(control);
        } else {
            self.peers[home].tell(control);
        }
    }

    /// The segment of that room in that life, unless it is ending.
    pub(super) fn segment_in(&self, room: &RoomName, run: Run) -> Option<u32> {
        let key = *self.segment_of.get(room)?;
        let placed = &self.segments[key as usize];
        (placed.segment.run() == run && !placed.closing).then_some(key)
    }

    /// Sends a connection what it has asked for, or closes it if it has asked for too much without reading any of it.
    pub(super) fn notify(&mut self, index: u32, notice: Notice<'_>, now: Now) {
        let frame = frame::notice(notice, self.connections.all[index as usize].encoding);
        self.answer(index, &frame, now);
    }

    fn answer(&mut self, index: u32, frame: &Bytes, now: Now) {
        let fits = self.connections.all[index as usize].answer(frame, now.instant);
        self.look_at(index);
        if !fits {
            self.close(index, CloseReason::FrameFlood, now);
        }
    }

    /// Something was offered to a connection beside a pass.
    pub(super) fn look_at(&mut self, index: u32) {
        if self.connections.all[index as usize].is_waiting() {
            self.connections.waits(index);
        }
    }

    pub(super) fn index_of(&self, key: u64) -> Option<u32> {
        let index = u32::try_from(key & u64::from(u32::MAX)).expect("masked");
        let generation = u32::try_from(key >> 32).expect("shifted");
        let connection = self.connections.all.get(index as usize)?;
        (connection.generation == generation).then_some(index)
    }
}

/// The run of a segment whose room is not open, as far as this shard knows.
const CLOSED: Run = Run(0);

/// What names a connection between shards: its index, and which of those that had this index it is.
pub(super) fn key_of(index: usize, generation: u32) -> u64 {
    u64::from(generation) << 32 | index as u64
}
