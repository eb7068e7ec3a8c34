//! The pure core: the order of a room, and the room's answer to every input.
//!
//! A [`Room`] is driven by its home shard. Every input goes through [`Room::handle`], together with the time
//! `now`. Outputs leave through [`Room::poll_output`], to be drained to `None` after each input.
//! [`Room::poll_deadline`] names the moment of the next [`Input::Due`]. The room holds no socket, task,
//! clock, lock or random number, so a simulated world can run a room through thousands of schedules.
//!
//! A room is made of parts, each with state and a file of its own:
//!
//! | part | holds |
//! |---|---|
//! | `Limits`, `Ids` | the treatment of types, rates, and the ids already used |
//! | `Gathering` | waiting messages, and the pace of flushes |
//! | `RoomState` | the state seen by devices, as of one seq, and waiting increments |
//! | `Stream` | the reliable stream: offsets, entries with receipts, the tail |
//! | `PendingPublishes`, `Parked`, `Readers` | the three queues before the store |
//! | `Segments` | members, batches on their way, the cost of passes |
//! | `Audience` | the number of members told to devices |
//! | `Life` | uses, closing and dropping |
//!
//! `handed` has the words of all parts for the next home of the room, and makes a room of them. `kept` has the words
//! for the node that would take the room over.
//!
//! No part holds another. `Room` routes each input to the parts concerned, and carries values between parts.

pub mod account;
pub mod audience;
pub mod bucket;
pub mod buffer;
pub mod counters;
pub mod cumulative;
pub mod entry;
pub mod history;
pub mod id;
pub mod ids;
pub mod ladder;
pub mod limit;
pub mod message;
pub mod pace;
pub mod policy;
pub mod receipt;
pub mod shown;
pub mod stored;
pub mod tally;
pub mod view;

mod ask;
mod departed;
mod entries;
mod exchange;
mod flush;
mod gathering;
mod handed;
mod kept;
mod latest;
mod life;
mod members;
mod moves;
mod parked;
mod pending;
mod publish;
mod rate;
mod readers;
mod reliable;
mod report;
mod segments;
mod state;
mod stream;
mod stream_ids;
mod tail;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use self::exchange::{
    Ask, Batch, Carried, CarryWant, Census, Counts, Departure, EarlyAck, Input, Join, Opening, Output, Reach,
    Refresh, RefreshWant, SegmentSaid, Snapshot, Span, Stands, Told, Welcomed, WriteCost,
};

pub use self::handed::{LocalSegment, NotHanded};
pub use self::latest::LatestPlace;
pub use self::segments::Roll;

use self::ask::Ending;
use self::audience::Audience;
use self::gathering::Gathering;
use self::id::{RoomName, Run, Seen, Seq};
use self::ids::Ids;
use self::life::{End, Life};
use self::limit::Limits;
use self::message::{Class, Message, Verdict};
use self::moves::enrolled;
use self::pace::{RoomRules, RoomSettings, Unfit};
use self::parked::Parked;
use self::pending::PendingPublishes;
use self::rate::Rate;
use self::readers::Readers;
use self::segments::Segments;
use self::state::RoomState;
use self::stored::Asked;
use self::stream::{Phase, Stream};
use self::tally::RoomTally;
use crate::now::{Now, millis};

/// A room, at its home.
#[derive(Debug)]
pub struct Room {
    name: RoomName,
    run: Run,
    limits: Limits,
    /// Ids of messages below class reliable. The stream knows the others.
    ids: Ids,
    message_rate: Rate,
    gathering: Gathering,
    state: RoomState,
    stream: Stream,
    pending: PendingPublishes,
    parked: Parked,
    readers: Readers,
    segments: Segments,
    audience: Audience,
    life: Life,
    /// The end of the stream, until the store has answered. Boxed: few rooms have one.
    ending: Option<Box<Ending>>,
    outputs: VecDeque<Output>,
}

impl Room {
    /// A new room, empty, at seq 0 of `run`.
    pub fn new(name: RoomName, run: Run, rules: RoomRules, now: Instant) -> Self {
        Self {
            name,
            run,
            limits: Limits::default(),
            ids: Ids::default(),
            message_rate: Rate::default(),
            gathering: Gathering::new(rules),
            state: RoomState::default(),
            stream: Stream::new(run),
            pending: PendingPublishes::default(),
            parked: Parked::default(),
            readers: Readers::default(),
            segments: Segments::default(),
            audience: Audience::default(),
            life: Life::new(now),
            ending: None,
            outputs: VecDeque::new(),
        }
    }

    /// The room's name, unique on its node.
    pub fn name(&self) -> &RoomName {
        &self.name
    }

    /// The run of the seqs. A reopened room gets another run.
    pub fn run(&self) -> Run {
        self.run
    }

    /// The number of the newest batch.
    pub fn seq(&self) -> Seq {
        self.state.seq
    }

    /// Members at all places.
    pub fn members(&self) -> u64 {
        self.segments.members()
    }

    /// Devices with a name among the members, each once.
    #[must_use]
    pub fn devices(&self) -> u64 {
        self.stream.members.devices()
    }

    /// The members, or the audience expected by the publisher if larger.
    pub fn expected_members(&self) -> u64 {
        self.members().max(self.audience.expected.unwrap_or(0))
    }

    /// The places with members of the room, each with a count.
    pub fn segments(&self) -> impl Iterator<Item = (usize, Census)> {
        self.segments.held()
    }

    /// The processor time of the room's passes, all shards together, in thousandths of a processor. Smoothed
    /// over about ten seconds.
    pub fn load_permille(&self, now: Instant) -> u64 {
        millis(Duration::from_secs_f64(self.segments.pass_rate.per_second(now)))
    }

    /// Messages gathered for the next flush.
    pub fn gathered(&self) -> usize {
        self.gathering.buffer.len()
    }

    /// Reliable messages on their way to the store.
    pub fn not_durable(&self) -> u64 {
        self.stream.head - self.stream.durable
    }

    /// The time over which devices are to spread their acknowledgements.
    pub fn ack_within(&self) -> Duration {
        Duration::from_millis(reliable::ack_within_ms(self.members()).into())
    }

    /// Returns true if nothing waits in the room, for the store, or for a segment's pass.
    pub fn is_flushed(&self) -> bool {
        self.gathering.waiting().is_none() && !self.waits_for_store() && self.segments.have_taken_all()
    }

    /// Returns true if [`Input::Flush`] would cut something.
    pub fn may_flush(&self) -> bool {
        self.gathering.waiting().is_some() && self.may_cut()
    }

    /// The moment at which batches that a node does not take hold up the room no longer.
    pub fn lapse_due(&self) -> Option<Instant> {
        self.segments.lapse_due(|| self.lapse_age())
    }

    /// The reason why valid settings do not fit this room.
    pub fn unfit(&self, settings: &RoomSettings) -> Option<Unfit> {
        settings.unfit(&self.gathering.pace.rules, self.limits.changes_with(settings))
    }

    /// Takes an input. The caller drains the outputs afterwards, and adds `tally` to the metrics.
    pub fn handle(&mut self, input: Input, now: Now, tally: &mut RoomTally) {
        let is_join = input.is_join();
        let is_due = matches!(input, Input::Due);
        // The shard tells the step before the input for which it opened the room: that room is not idle.
        let is_preface = matches!(input, Input::Degrade(_));
        // First: nothing that follows from the input may hold a message that has expired.
        self.stream.age(now.instant);
        self.take_input(input, now, tally);
        match self.life.end {
            End::Open => {}
            End::Closing => return self.end(now, tally),
            // Only answers of the store come here, for publishers.
            End::Closed => return,
        }
        // Devices may name rooms as they please, so a room that devices alone have used leaves nothing
        // behind. A room that would have to be loaded again for the next of them stays for a while.
        let is_forgotten = is_due && self.life.drop_due() <= now.instant;
        let is_strangers = !self.life.is_published && !self.stream.is_stored;
        if self.may_idle() && (is_forgotten || is_strangers) && !is_preface {
            return self.outputs.push_back(Output::Idle);
        }
        // A welcome is a snapshot: no batch may leave between a join and its answer.
        if !is_join {
            self.flush_if_due(now.instant, tally);
        }
        self.check_invariants();
    }

    /// Ends the room for its members. Publishers with messages on the way to the store are answered later: a
    /// store that hangs must not keep the room's name from its next life.
    fn end(&mut self, now: Now, tally: &mut RoomTally) {
        for input in std::mem::take(&mut self.parked).inputs {
            self.take_input_now(input, now, tally);
        }
        self.flush(now.instant, tally);
        self.turn_readers_away();
        let rest = self.rest();
        if let Some(ending) = &mut self.ending {
            ending.view.shed = rest;
            // Behind every append of this life, and before the load of the next.
            self.outputs.push_back(Output::Forget { life: ending.life });
        }
        self.life.end = End::Closed;
        self.outputs.push_back(Output::Closed);
    }

    /// Returns true if a closed room waits for this life's answers of the store.
    #[must_use]
    pub fn awaits(&self, life: u64) -> bool {
        let ends = self.ending.as_ref().is_some_and(|ending| ending.life == life);
        ends || (self.waits_for_store() && self.stream.life == life)
    }

    /// Takes the next output of the last input, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The moment at which the room wants [`Input::Due`].
    pub fn poll_deadline(&self) -> Option<Instant> {
        if self.life.is_paused {
            // Of a room without its stream the load alone is due.
            return self.poll_store_due();
        }
        // A room that must not cut waits for a segment, not for time.
        let waiting = self.gathering.waiting().filter(|_| self.may_cut());
        let flush = waiting.map(|waiting| self.gathering.pace.due(waiting, self.members()));
        let drop = self.may_idle().then(|| self.life.drop_due());
        let deadlines = [
            flush,
            self.audience.due,
            self.life.tidy_due,
            self.poll_store_due(),
            self.lapse_due(),
            drop,
            self.life.close_due().filter(|_| !self.life.is_frozen),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// The room at the newest seq, for a member with the history up to `history_after` and the reliable
    /// messages up to `stands`. `None`: the member's place in the stream is not known.
    pub fn snapshot(&mut self, history_after: Seq, stands: Option<u64>, now: Now) -> Snapshot {
        self.state.history.age(now.instant);
        self.stream.age(now.instant);
        let opening = self.opening(stands, self.state.first_bytes_left());
        self.state.snapshot(history_after, opening)
    }

    /// The seq behind which the history is new to a device, and whether the history begins there without a
    /// gap. At any seq there are no more answers than messages in the history, so welcomes can be shared.
    #[must_use]
    pub fn resume(&mut self, seen: Option<Seen>, now: Instant) -> (Seq, bool) {
        self.state.history.age(now);
        self.state.resume(seen, self.run)
    }

    /// Takes an input, or parks it until the stream is loaded.
    fn take_input(&mut self, input: Input, now: Now, tally: &mut RoomTally) {
        let Some(input) = self.unless_frozen(input) else { return };
        // A room at its end does not wait for a load.
        if self.life.end != End::Open || !self.is_early(&input) || !self.needs_stream(now) {
            return self.take_input_now(input, now, tally);
        }
        // Past the bound of what may be parked, an input makes do with what is known.
        if let Some(input) = self.parked.park(input) {
            if self.stream.is_handed() {
                // Nothing is known: all members join again.
                self.lose(tally);
            }
            self.take_input_now(input, now, tally);
        }
    }

    /// Returns true if an input needs the stream, and the stream is not there yet.
    fn is_early(&self, input: &Input) -> bool {
        if self.stream.is_handed() {
            // Without its stream the room knows neither what its members lack nor which ids were used.
            return matches!(input, Input::Publish { .. } | Input::Segment { .. } | Input::Ask { .. });
        }
        let is_reliable = |message: &Message| message.class() == Class::Reliable;
        match input {
            // These read the stream: once it is known they need no store that works.
            Input::Segment { said: SegmentSaid::Join(_), .. }
            | Input::Ask { ask: Ask::Receipt { .. } | Ask::Pull { .. }, .. } => self.stream.epoch.is_none(),
            // These append to it.
            Input::Ask { ask: Ask::Recall { .. }, .. } => self.stream.phase != Phase::Ready,
            Input::Publish { messages, .. } => {
                self.stream.phase != Phase::Ready && messages.iter().any(is_reliable)
            }
            _ => false,
        }
    }

    fn take_input_now(&mut self, input: Input, now: Now, tally: &mut RoomTally) {
        match input {
            Input::Publish { ticket, messages } => {
                self.life.used_by_publisher(now.instant);
                self.publish(ticket, messages, now, tally);
            }
            Input::Segment { shard, said } => self.hear_segment(shard, said, now, tally),
            Input::Ask { ticket, ask } => self.ask(ticket, ask, now, tally),
            Input::Forgotten { life, existed } => self.forgotten(life, existed),
            Input::StoreFailed { life, asked: Asked::Forget, reason } => self.not_forgotten(life, reason),
            // What an earlier life of the stream waited for was given up, asked again or dealt with when that
            // life ended.
            Input::Loaded { life, .. }
            | Input::Durable { life, .. }
            | Input::Paged { life, .. }
            | Input::StoreFailed { life, .. }
                if life != self.stream.life => {}
            Input::Loaded { stored, .. } => self.loaded(stored, now, tally),
            Input::Durable { through, .. } => {
                self.stream.durable_through(through);
                self.settle(None, now, tally);
            }
            Input::Paged { after, page, .. } => self.paged(after, &page, now, tally),
            Input::StoreFailed { asked, reason, .. } => self.store_failed(asked, reason, now, tally),
            Input::Configure(settings) => self.configure(&settings, now.instant),
            Input::Degrade(step) => self.gathering.degrade(step),
            Input::Due => self.due(now, tally),
            Input::Flush => {
                self.lapse(now.instant);
                self.flush(now.instant, tally);
            }
            Input::Close => self.life.end = End::Closing,
            Input::PlaceLost { place } => self.lose_place(place, now.instant, tally),
            Input::Lapsed { place, seq } => self.segments.lapsed(place, seq),
            Input::Freeze(is_frozen) => self.life.is_frozen = is_frozen,
            Input::Pause(is_paused) => {
                self.life.is_paused = is_paused;
                self.segments.forget_rolls();
            }
            Input::Lost => self.lose(tally),
        }
    }

    fn hear_segment(&mut self, shard: usize, said: SegmentSaid, now: Now, tally: &mut RoomTally) {
        match said {
            SegmentSaid::Join(join) => {
                // The welcome is a snapshot: batches that are due leave before it.
                self.flush_if_due(now.instant, tally);
                self.join(shard, join, now, tally);
            }
            SegmentSaid::Left(left) => self.leave(shard, left, now.instant, tally),
            SegmentSaid::Moved => self.lose_place(shard, now.instant, tally),
            // A pass costs more or less than before, or there is room for a further batch.
            SegmentSaid::Taken { batches, cost } => {
                let were_sent = self.segments.taken(shard, batches, cost, now.instant);
                tally.stale_words += u64::from(!were_sent);
                self.gathering.pace.passes_cost(self.segments.pass_cost());
            }
            SegmentSaid::TakenThrough { seq, cost } => {
                let were_awaited = self.segments.taken_through(shard, seq, cost);
                tally.stale_words += u64::from(!were_awaited);
                self.gathering.pace.passes_cost(self.segments.pass_cost());
            }
            SegmentSaid::Counted(counts) => self.segments.ended += counts,
            SegmentSaid::Refresh(want) => self.refresh(shard, want),
            SegmentSaid::Carry(want) => self.carry(shard, want),
            SegmentSaid::Acked { epoch, acks } if epoch == self.stream.epoch => self.stream.acked(&acks),
            SegmentSaid::AckedEarly { epoch, early } if epoch == self.stream.epoch => {
                self.stream.entries.acked_early(early, now.instant);
            }
            // These acknowledgements are of a stream that was replaced, and the room's shard counts pauses.
            SegmentSaid::Enrolled { roll, .. } => self.segments.enroll_here(shard, roll),
            SegmentSaid::Acked { .. } | SegmentSaid::AckedEarly { .. } | SegmentSaid::Paused { .. } => {}
        }
    }

    fn join(&mut self, shard: usize, join: Join, now: Now, tally: &mut RoomTally) {
        self.life.last_used = now.instant;
        let (history_after, resumed) = self.resume(join.seen, now.instant);
        let stands = self.stream.join(&join);
        self.segments.add_member(shard, enrolled(&join, self.stream.epoch, stands.as_ref()));
        self.members_changed(now.instant);
        tally.resets += u64::from(stands.is_some_and(|stands| stands.reset.is_some()));
        self.outputs.push_back(Output::Welcomed(Welcomed { shard, join, history_after, resumed, stands }));
    }

    fn leave(&mut self, shard: usize, left: Departure, now: Instant, tally: &mut RoomTally) {
        if !self.segments.remove_member(shard, &left) {
            tally.stale_words += 1;
            return;
        }
        self.life.last_used = now;
        self.count_off(&left);
        self.members_changed(now);
    }

    fn count_off(&mut self, left: &Departure) {
        // Offsets of a stream that was replaced mean nothing in this one.
        if left.epoch == self.stream.epoch {
            self.stream.leave(left);
        }
    }

    fn members_changed(&mut self, now: Instant) {
        self.gathering.pace.passes_cost(self.segments.pass_cost());
        self.audience.changed(self.segments.members(), now);
    }

    fn configure(&mut self, settings: &RoomSettings, now: Instant) {
        self.life.used_by_publisher(now);
        self.life.idle_close = settings.idle_close.or(self.life.idle_close);
        self.gathering.pace.configure(settings);
        self.limits.configure(settings);
        self.audience.expected = settings.expected_audience.or(self.audience.expected);
    }

    /// Follows a change of the node's rules, from the next input on. Rules of the room's own stay.
    pub fn follow(&mut self, from: &RoomRules, to: &RoomRules) {
        self.gathering.pace.follow(from, to);
    }

    /// Does what is due.
    fn due(&mut self, now: Now, tally: &mut RoomTally) {
        if self.life.is_paused {
            return self.store_due(now, tally);
        }
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now.instant);
        if is_due(self.life.tidy_due) {
            self.tidy(now);
        }
        if is_due(self.lapse_due()) {
            self.lapse(now.instant);
        }
        // Parked publishes are taken in first: a closing room would refuse them.
        self.store_due(now, tally);
        if is_due(self.audience.due) {
            self.tell_audience(now, tally);
        }
        if is_due(self.life.close_due()) && !self.life.is_frozen {
            self.life.end = End::Closing;
        }
    }

    /// Lets go of outdated state.
    fn tidy(&mut self, now: Now) {
        let holds = [
            self.ids.age(now.instant),
            self.state.history.age(now.instant),
            self.stream.age(now.instant),
            self.gathering.tidy(now.instant),
        ];
        self.life.tidy_due = None;
        if holds.contains(&true) {
            self.life.holds_what_ages(now.instant);
        }
    }

    /// Tells devices the number of members.
    fn tell_audience(&mut self, now: Now, tally: &mut RoomTally) {
        let members = self.members();
        let message = Audience::message(members);
        // Publishers' names must not keep the engine's own out, for the life of the room.
        self.state.make_place(&message);
        match self.accept(message, now, tally) {
            // The room may be full: the same message would be shed again at once.
            Verdict::Shed(_) => self.audience.shed(now.instant),
            _ => self.audience.told(members),
        }
    }

    /// Returns true if publishers or devices wait for an answer of the store.
    pub fn waits_for_store(&self) -> bool {
        !self.pending.queue.is_empty() || !self.parked.inputs.is_empty() || self.ending.is_some()
    }

    /// Returns true if nobody would miss the room now.
    fn may_idle(&self) -> bool {
        !self.life.is_paused
            && self.members() == 0
            && self.gathering.is_empty()
            && !self.waits_for_store()
            && self.readers.waiting.is_empty()
    }

    fn check_invariants(&self) {
        // Small buffers only: tests fill large ones, and a quadratic check helps nobody.
        if cfg!(debug_assertions) && self.gathering.buffer.len() <= 64 {
            for (type_name, column) in &self.state.account.columns {
                let view = self.type_view(type_name, column, &self.gathering.buffer.by_type());
                let accounted = view.delivered + view.merged + view.shed.values().sum::<u64>() + view.waiting;
                assert_eq!(column.accepted, accounted, "conservation of {type_name} in {}", self.name);
            }
            self.segments.check_invariants();
            self.stream.check_invariants();
        }
    }
}

#[cfg(test)]
mod tests;
