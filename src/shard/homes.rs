//! The rooms whose home this shard is: what they are told, and where what follows from it goes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::directory::{OwnStep, Spread};
use super::heat::{Fuel, Heat};
use super::lane::{Control, Delivery, HomeSaid, Sent, Welcome};
use super::{Drain, Shard, TURN_ENTRIES_MAX};
use crate::shard::connection::Socket;
use crate::store::{Answer, Append, Request, StoreError};
use roomcast_core::fanout::segment::{Level, RefreshFrame, Refreshed, StreamPlace};
use roomcast_core::limits::SPREAD_INTERVAL;
use roomcast_core::now::Now;
use roomcast_core::room::id::{Encoding, Epoch, RoomName, Run, Seq, mix};
use roomcast_core::room::ladder::Step;
use roomcast_core::room::message::Unavailable;
use roomcast_core::room::view::RoomLine;
use roomcast_core::room::{
    self, Batch, Census, Input, Join, Output, Reach, RefreshWant, Room, SegmentSaid, Welcomed,
};
use roomcast_core::wire::frame::{self, Greeting, Head};

/// How long an encoded welcome may be handed to further joiners while no batch is cut. Its history ages meanwhile.
const WELCOME_AGE_MAX: Duration = Duration::from_secs(1);

/// How often a room that is hot for what its passes cost is looked at when nobody tells of any: they are smoothed over as
/// long.
const COOL_INTERVAL: Duration = Duration::from_secs(10);

/// Welcomes a room keeps for further joiners.
const WELCOMES_MAX: usize = 16;

/// A room and what its home keeps beside it.
#[derive(Debug)]
pub(super) struct HomeRoom {
    pub(super) room: Room,
    /// Its entry in the shard's deadlines.
    pub(super) deadline: Option<Instant>,
    /// The welcomes of the room's present seq: a join storm shares them. At most `WELCOMES_MAX`, the oldest go.
    welcomes: VecDeque<SharedWelcome>,
    pub(super) heat: Heat,
    /// When to see whether it has cooled down by itself: what its passes cost fades.
    cool_at: Option<Instant>,
    /// When the directory was last told where its members are, and how many they were.
    spread_at: Option<(Instant, u64)>,
    /// The step that an operator gave it.
    pub(super) own_step: Option<Step>,
    /// The step it was last told.
    pub(super) told_step: Step,
}

#[derive(Debug, Clone)]
struct SharedWelcome {
    like: WelcomeKey,
    encoded_at: Instant,
    /// What it brings of the reliable stream, and how far members are that have been there all the while.
    opening: Option<Reach>,
    frame: Bytes,
}

/// What makes two welcomes of a room the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WelcomeKey {
    seq: Seq,
    encoding: Encoding,
    history_after: Seq,
    resumed: bool,
    /// `None`: the stream is not known.
    epoch: Option<Epoch>,
    after: Option<u64>,
    reset: Option<&'static str>,
}

impl HomeRoom {
    pub(super) fn line(&self, home: usize, now: Instant) -> RoomLine {
        RoomLine { hot: self.heat.width() > 1, ..self.room.line(home, now) }
    }

    /// Lets go of welcomes that may not be handed out any more.
    fn forget_welcomes(&mut self, now: Instant) {
        let seq = self.room.seq();
        let fresh = |shared: &SharedWelcome| {
            shared.like.seq == seq && now.saturating_duration_since(shared.encoded_at) < WELCOME_AGE_MAX
        };
        self.welcomes.retain(fresh);
    }

    /// The welcome for a join like this one: one that is at hand, or a new one.
    fn welcome(&mut self, like: WelcomeKey, heartbeat_ms: u32, encoded: &mut u64, now: Now) -> SharedWelcome {
        self.forget_welcomes(now.instant);
        if let Some(shared) = self.welcomes.iter().find(|shared| shared.like == like) {
            return shared.clone();
        }
        *encoded += 1;
        let WelcomeKey { seq, encoding, history_after, resumed, epoch: _, after, reset } = like;
        let snapshot = self.room.snapshot(history_after, after, now);
        let greeting = Greeting { heartbeat_ms, resumed: resumed && !snapshot.cut_short, reset };
        let head = Head { room: self.room.name(), run: self.room.run(), seq };
        let frame = frame::welcome(head, greeting, &snapshot, encoding);
        let opening = snapshot.stream.as_ref();
        let opening =
            opening.map(|opening| Reach { after: opening.carried.span.through, through: opening.offset });
        let shared = SharedWelcome { like, encoded_at: now.instant, opening, frame };
        // The first member of a small room is followed by none: tens of thousands of those must cost little.
        if self.room.members() > 1 {
            self.keep_welcome(shared.clone());
        }
        shared
    }

    /// Keeps a welcome for further joiners. Of devices that come back there may be as many kinds as there are: the one
    /// for those that come for the first time is never let go for their sake.
    fn keep_welcome(&mut self, shared: SharedWelcome) {
        if self.welcomes.len() == WELCOMES_MAX {
            let oldest = self.welcomes.iter().rposition(|kept| !kept.like.is_first());
            self.welcomes.remove(oldest.unwrap_or(WELCOMES_MAX - 1));
        }
        self.welcomes.push_front(shared);
    }
}

impl WelcomeKey {
    /// Whether it is for devices that bring nothing along.
    fn is_first(&self) -> bool {
        !self.resumed && self.history_after == Seq(0) && self.after.unwrap_or(0) == 0 && self.reset.is_none()
    }
}

impl<S: Socket> Shard<S> {
    /// The next request to the store.
    pub fn poll_store(&mut self) -> Option<Request> {
        self.store_requests.pop_front()
    }

    /// A request that the store has no place for now. An append fails: its publisher is to hear so at once. Others wait; they
    /// are no more than rooms to be loaded, and readers.
    pub fn store_is_busy(&mut self, request: Request, now: Now) {
        match request {
            Request::Append(_) => self.take_stored(request.failed(StoreError::Busy), now),
            Request::Load { .. } | Request::Page { .. } => self.store_requests.push_front(request),
        }
    }

    /// Takes an answer of the store.
    pub fn take_stored(&mut self, answer: Answer, now: Now) {
        let (room, input) = match answer {
            Answer::Loaded { room, life, stream } => (room, Input::Loaded { life, stored: stream }),
            Answer::Durable { room, life, through } => (room, Input::Durable { life, through }),
            Answer::Paged { room, life, after, page } => (room, Input::Paged { life, after, page }),
            Answer::Failed { room, life, asked, error } => {
                let reason = match error {
                    StoreError::Failing | StoreError::Moved => Unavailable::StoreFailing,
                    StoreError::Full => Unavailable::StoreFull,
                    StoreError::Busy => Unavailable::StoreBusy,
                };
                (room, Input::StoreFailed { life, asked, reason })
            }
        };
        // Of a room that is no more, or of an earlier life, nobody waits for an answer.
        if let Some(key) = self.room_of.get(&room).copied() {
            self.tell_room(key, input, now);
        }
    }

    /// Takes what a segment's shard says.
    pub(super) fn take_control(&mut self, shard: usize, control: Control, now: Now) {
        let Control { room, run, said } = control;
        if let SegmentSaid::Join(join) = said {
            return self.take_join(shard, &room, join, now);
        }
        // Nobody waits for words about an earlier life of the room, or about a room that was closed.
        let key = self.room_of.get(&room).copied();
        if let Some(key) = key.filter(|key| Some(self.rooms[*key].room.run()) == run) {
            self.tell_room(key, Input::Segment { shard, said }, now);
        }
    }

    /// Tells rooms whose moment has come; while draining, those that still hold something.
    pub(super) fn take_due_rooms(&mut self, now: Now) -> bool {
        if self.drain == Drain::Flushing {
            let keys = self.rooms.iter().filter(|(_, home)| home.room.may_flush()).map(|(key, _)| key);
            let keys: Vec<usize> = keys.take(TURN_ENTRIES_MAX).collect();
            let busy = keys.len() == TURN_ENTRIES_MAX;
            for key in keys {
                self.tell_room(key, Input::Flush, now);
            }
            return busy;
        }
        for _ in 0..TURN_ENTRIES_MAX {
            let Some((_, key)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now.instant) else {
                return false;
            };
            self.rooms[key].forget_welcomes(now.instant);
            self.tell_room(key, Input::Due, now);
        }
        true
    }

    fn take_join(&mut self, shard: usize, room: &RoomName, join: Join, now: Now) {
        let opened = if self.is_draining() {
            Err("draining")
        } else if self.step_for(room) == Step::JoinsRefused {
            Err("joins_refused")
        } else {
            self.open(room, now.instant).ok_or("rooms_full")
        };
        match opened {
            Ok(key) => self.tell_room(key, Input::Segment { shard, said: SegmentSaid::Join(join) }, now),
            Err(code) => {
                let said = HomeSaid::Refused { connection: join.connection, join: join.join, code };
                // The room is not open, so it has no run.
                self.deliver(shard, Delivery { room: room.clone(), run: Run(0), said }, now);
            }
        }
    }

    /// The room of that name, opened if need be. `None`: the shard holds as many as it may.
    pub(super) fn open(&mut self, name: &RoomName, now: Instant) -> Option<usize> {
        if let Some(key) = self.room_of.get(name) {
            return Some(*key);
        }
        if self.rooms.len() >= self.plan.rooms_max {
            return None;
        }
        self.runs += 1;
        let run = Run(mix(self.plan.run_seed.wrapping_add(self.runs)));
        let room = Room::new(name.clone(), run, self.plan.rules, now);
        let is_listed = self.plan.hot_rooms.contains(name);
        let heat = if is_listed { Heat::listed(self.plan.shards) } else { Heat::COLD };
        self.tally.rooms_promoted += u64::from(heat.width() > 1);
        let home = HomeRoom {
            room,
            deadline: None,
            welcomes: VecDeque::new(),
            heat,
            cool_at: None,
            spread_at: None,
            own_step: None,
            told_step: Step::Calm,
        };
        let key = self.rooms.insert(home);
        self.room_of.insert(name.clone(), key);
        Some(key)
    }

    pub(super) fn tell_room(&mut self, key: usize, input: Input, now: Now) {
        self.tell_step(key, now);
        let is_fuel = match &input {
            Input::Segment { said, .. } => {
                matches!(said, SegmentSaid::Join(_) | SegmentSaid::Left(_) | SegmentSaid::Taken { .. })
            }
            Input::Configure(_) => true,
            Input::Due => self.rooms[key].cool_at.is_some_and(|at| at <= now.instant),
            _ => false,
        };
        self.rooms[key].room.handle(input, now, &mut self.tally.rooms);
        if is_fuel {
            self.feed_heat(key, now.instant);
        }
        self.take_outputs(key, now);
    }

    /// Sees how hot a room has become, and has the directory know.
    fn feed_heat(&mut self, key: usize, now: Instant) {
        let HomeRoom { room, heat, cool_at, spread_at, .. } = &mut self.rooms[key];
        let fuel = Fuel { members: room.audience(), permille: room.load_permille(now) };
        let (width, members) = (heat.width(), room.members());
        let changed = heat.feed(fuel, &self.plan.heat);
        let mut silent = *heat;
        let by_cost = silent.feed(Fuel { permille: 0, ..fuel }, &self.plan.heat);
        *cool_at = by_cost.then(|| now + COOL_INTERVAL);
        let stale = |(at, told): (Instant, u64)| told != members && at + SPREAD_INTERVAL <= now;
        if !changed && (width == 1 || !spread_at.is_none_or(stale)) {
            return;
        }
        *spread_at = Some((now, members));
        let segments = room.segments().map(|(shard, census)| (shard, census.members())).collect();
        let spread = Spread { room: room.name().clone(), width: heat.width(), members: segments };
        self.tally.rooms_promoted += u64::from(heat.width() > width);
        self.tally.rooms_demoted += u64::from(heat.width() < width);
        self.spreads.push_back(spread);
    }

    /// Sends on what followed, and asks for the room's next deadline.
    pub(super) fn take_outputs(&mut self, key: usize, now: Now) {
        while let Some(output) = self.rooms[key].room.poll_output() {
            match output {
                Output::Published { ticket, published } => self.answers.push_back((ticket, published)),
                Output::Told { ticket, told } => self.told.push_back((ticket, told)),
                Output::Batch { batch, segments, sent } => self.send_batch(key, &batch, &segments, sent, now),
                Output::Welcomed(welcomed) => self.send_welcome(key, welcomed, now),
                Output::Refreshed { shard, want, to, head, refresh } => {
                    let refresh = refresh.map(|refresh| (refresh, to, head));
                    self.send_refresh(key, shard, want, refresh, now);
                }
                Output::Carried { shard, want, seq, carried, floor } => {
                    let room = &self.rooms[key].room;
                    let head = Head { room: room.name(), run: room.run(), seq };
                    let frame = carried.map(|carried| frame::carry(head, &carried, want.encoding));
                    self.deliver_of(key, shard, HomeSaid::Carry { want, seq, frame, floor }, now);
                }
                Output::Load { life } => {
                    let room = self.rooms[key].room.name().clone();
                    self.store_requests.push_back(Request::Load { room, life });
                }
                Output::Append { life, epoch, messages } => {
                    let room = self.rooms[key].room.name().clone();
                    self.store_requests.push_back(Request::Append(Append { room, life, epoch, messages }));
                }
                Output::Page { life, after, bytes_max } => {
                    let room = self.rooms[key].room.name().clone();
                    self.store_requests.push_back(Request::Page { room, life, after, bytes_max });
                }
                Output::StreamChanged => self.send_stream_changed(key, now),
                Output::Closed => return self.drop_room(key, true, now),
                Output::Idle => return self.drop_room(key, false, now),
            }
        }
        let home = &mut self.rooms[key];
        let deadline = [home.room.poll_deadline(), home.cool_at].into_iter().flatten().min();
        let before = std::mem::replace(&mut home.deadline, deadline);
        if before != deadline {
            before.map(|at| self.deadlines.remove(&(at, key)));
            deadline.map(|at| self.deadlines.insert((at, key)));
        }
    }

    fn send_refresh(
        &mut self,
        key: usize,
        shard: usize,
        want: RefreshWant,
        refresh: Option<(room::Refresh, Seq, u64)>,
        now: Now,
    ) {
        let room = &self.rooms[key].room;
        let frame = refresh.map(|(refresh, to, sent)| {
            let head = Head { room: room.name(), run: room.run(), seq: to };
            let span = refresh.carried.as_ref().map(|carried| carried.span);
            let to = Refreshed {
                seq: to,
                sent: span.map_or(want.sent, |span| span.through),
                head: sent,
                ack_within: span
                    .map_or(Duration::ZERO, |span| Duration::from_millis(span.ack_within_ms.into())),
                skipped: refresh.missed.skipped.iter().map(|(_, count)| count).sum(),
            };
            RefreshFrame { frame: frame::refresh(head, &refresh, want.encoding), to }
        });
        self.deliver_of(key, shard, HomeSaid::Refresh { want, frame: frame.map(Box::new) }, now);
    }

    /// What a room's members were told of the reliable stream is not so: all of them are to come back.
    fn send_stream_changed(&mut self, key: usize, now: Now) {
        let shards: Vec<usize> = self.rooms[key].room.segments().map(|(shard, _)| shard).collect();
        for shard in shards {
            self.deliver_of(key, shard, HomeSaid::StreamChanged, now);
        }
    }

    /// Encodes a batch once for each encoding in use, and sends the same bytes to every segment.
    fn send_batch(&mut self, key: usize, batch: &Batch, segments: &[(usize, Census)], sent: u64, now: Now) {
        if segments.is_empty() {
            return;
        }
        let room = &self.rooms[key].room;
        let head = Head { room: room.name(), run: room.run(), seq: batch.seq };
        let used = |encoding| segments.iter().any(|(_, census)| census.uses(encoding));
        let frames = Encoding::ALL
            .map(|encoding| if used(encoding) { frame::level(head, batch, encoding) } else { Bytes::new() });
        let level = Level {
            seq: batch.seq,
            frames,
            reach: Reach { after: batch.span.map_or(sent, |span| span.after), through: sent },
            ack_within: Duration::from_millis(batch.span.map_or(0, |span| span.ack_within_ms).into()),
            oldest: batch.oldest,
        };
        let level = Arc::new(level);
        for &(shard, _) in segments {
            if self.deliver_of(key, shard, HomeSaid::Level(Arc::clone(&level)), now) == Sent::Lapsed {
                self.tally.lane_full += 1;
                // The segment will never take it, so it is not before it any more.
                let room = &mut self.rooms[key].room;
                let said = SegmentSaid::Taken { batches: 1, cost: None };
                room.handle(Input::Segment { shard, said }, now, &mut self.tally.rooms);
            }
        }
    }

    fn send_welcome(&mut self, key: usize, welcomed: Welcomed, now: Now) {
        let Welcomed { shard, join, history_after, resumed, stands } = welcomed;
        let heartbeat_ms = u32::try_from(self.plan.heartbeat.as_millis()).unwrap_or(u32::MAX);
        let home = &mut self.rooms[key];
        let seq = home.room.seq();
        let after = stands.map(|stands| stands.after);
        let reset = stands.and_then(|stands| stands.reset);
        let epoch = home.room.epoch();
        let like = WelcomeKey { seq, encoding: join.encoding, history_after, resumed, epoch, after, reset };
        let SharedWelcome { opening, frame, .. } =
            home.welcome(like, heartbeat_ms, &mut self.tally.welcomes_encoded, now);
        let place = opening.zip(stands).map(|(opening, stands)| StreamPlace {
            sent: opening.after,
            head: opening.through,
            acked: stands.after,
            counts_from: stands.counts_from,
            device: join.device,
            ack_within: home.room.ack_within(),
        });
        let welcome = Welcome {
            seq,
            connection: join.connection,
            join: join.join,
            encoding: join.encoding,
            epoch,
            place: place.unwrap_or(StreamPlace::UNKNOWN),
            frame,
        };
        self.deliver_of(key, shard, HomeSaid::Welcome(Box::new(welcome)), now);
    }

    /// Forgets a room; if it was closed, its segments are told.
    fn drop_room(&mut self, key: usize, closed: bool, now: Now) {
        let home = self.rooms.remove(key);
        self.room_of.remove(home.room.name());
        home.deadline.map(|at| self.deadlines.remove(&(at, key)));
        if home.own_step.is_some() {
            self.own_steps.push_back(OwnStep { room: home.room.name().clone(), step: None });
        }
        if home.heat.width() > 1 {
            self.tally.rooms_demoted += 1;
            let room = home.room.name().clone();
            self.spreads.push_back(Spread { room, width: 1, members: Vec::new() });
        }
        home.room.shed_rest(&mut self.tally.rooms);
        if !closed {
            self.tally.rooms_forgotten += 1;
            return;
        }
        for (shard, _) in home.room.segments() {
            let room = home.room.name().clone();
            self.deliver(shard, Delivery { room, run: home.room.run(), said: HomeSaid::Closed }, now);
        }
    }

    fn deliver_of(&mut self, key: usize, shard: usize, said: HomeSaid, now: Now) -> Sent {
        let room = &self.rooms[key].room;
        let delivery = Delivery { room: room.name().clone(), run: room.run(), said };
        self.deliver(shard, delivery, now)
    }

    fn deliver(&mut self, shard: usize, delivery: Delivery, now: Now) -> Sent {
        if shard == self.plan.index {
            self.take_delivery(delivery, now);
            return Sent::Yes;
        }
        self.peers[shard].send(delivery)
    }
}
