//! The pure core: one room's order, and everything that follows from it.
//!
//! A [`Room`] is driven by its home shard. Every input goes through [`Room::handle`], which is given `now`; what
//! follows leaves through [`Room::poll_output`], to be drained to `None` after each input; [`Room::poll_deadline`]
//! says when the room wants [`Input::Due`]. It holds no socket, task, clock, lock or random number, so a simulated
//! world can run it through thousands of schedules.
//!
//! State that devices see (latest values, counter totals, history, accounts) changes only when a batch is cut: it
//! is always the state as of one seq, and a welcome or a refresh at that seq is consistent with the batches around it.

pub mod account;
pub mod audience;
pub mod bucket;
pub mod buffer;
pub mod counters;
pub mod cumulative;
pub mod departed;
pub mod entry;
pub mod found;
pub mod history;
pub mod id;
pub mod ids;
pub mod ladder;
pub mod latest;
pub mod limit;
pub mod message;
pub mod pace;
pub mod policy;
pub mod receipt;
pub mod shown;
pub mod stored;
pub mod stream;
pub mod tally;
pub mod view;

mod exchange;
mod flush;
mod publish;
mod reliable;
mod report;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::exchange::{
    Ask, Batch, Carried, CarryWant, Census, Counts, Departure, Input, Join, Opening, Output, Reach, Refresh,
    RefreshWant, SegmentSaid, Snapshot, Span, Stands, Told, Welcomed, WriteCost,
};

use self::account::Account;
use self::audience::Audience;
use self::buffer::Buffer;
use self::counters::Counters;
use self::history::{History, Past};
use self::id::{RoomName, Run, Seen, Seq, TypeName};
use self::ids::Ids;
use self::ladder::Step;
use self::latest::Latest;
use self::limit::Limits;
use self::message::{Class, Message};
use self::pace::{Pace, PassCost, RoomRules, RoomSettings, Unfit};
use self::publish::{Pending, WaitingForStore};
use self::reliable::{Parked, Reader};
use self::report::Rate;
use self::shown::Shown;
use self::stream::{Phase, Stream};
use self::tally::RoomTally;
use crate::limits::{HISTORY_AGE_MAX, ROOM_IDLE, SEGMENT_QUEUED_MAX, WELCOME_BYTES_MAX};
use crate::now::Now;

/// How often a room lets go of history and ids that are too old.
const TIDY_INTERVAL: Duration = HISTORY_AGE_MAX;

/// What the home knows of one segment.
#[derive(Debug, Clone, Copy, Default)]
struct Segment {
    census: Census,
    /// Batches on their way to it or queued there, not yet in a pass.
    untaken: usize,
    cost: WriteCost,
}

/// One room, at its home.
#[derive(Debug)]
pub struct Room {
    name: RoomName,
    run: Run,
    seq: Seq,
    pace: Pace,
    buffer: Buffer,
    /// When the oldest counter increment that waits came.
    counted_since: Option<Instant>,
    /// Increments that wait, by type.
    increments: BTreeMap<TypeName, u64>,
    /// When counters were last told.
    counters_told: Option<Instant>,
    limits: Limits,
    /// What devices were shown in the last second, of normal and low priority, and of high.
    shown_normal: Shown,
    shown_high: Shown,
    counters: Counters,
    latest: Latest,
    history: History,
    account: Account,
    ids: Ids,
    stream: Stream,
    /// Publishes that wait for the store, in the order of what they wait for.
    pending: VecDeque<Pending>,
    waiting_for_store: WaitingForStore,
    /// What waits for the stream to be loaded.
    parked: Parked,
    /// Who waits for messages from the store. Bounded by the states segments ask for, and by the pulls of the node.
    readers: Vec<Reader>,
    /// The offsets behind which the store was asked to read.
    pages_asked: Vec<u64>,
    /// When to read again what the store failed to.
    read_retry: Option<Instant>,
    /// Something of it is, or was, in the store.
    is_stored: bool,
    /// Members were welcomed while nobody could say where the stream stands.
    has_blind_members: bool,
    /// It is to be closed as soon as nothing waits for the store.
    is_closing: bool,
    audience: Audience,
    segments: BTreeMap<usize, Segment>,
    /// What segments had counted that are no more.
    counts: Counts,
    /// Seconds of processor time that passes take, of all shards together.
    pass_rate: Rate,
    step: Step,
    expected_audience: Option<u64>,
    idle_close: Option<Duration>,
    /// When to let go of what is too old, while there is anything that ages.
    tidy_due: Option<Instant>,
    /// A publisher has published to it or configured it.
    is_published: bool,
    last_published: Instant,
    last_used: Instant,
    message_rate: Rate,
    batch_rate: Rate,
    outputs: VecDeque<Output>,
}

impl Room {
    /// A new room, empty, at seq 0 of `run`.
    #[must_use]
    pub fn new(name: RoomName, run: Run, rules: RoomRules, now: Instant) -> Self {
        Self {
            name,
            run,
            seq: Seq(0),
            pace: Pace::new(rules),
            buffer: Buffer::default(),
            counted_since: None,
            increments: BTreeMap::new(),
            counters_told: None,
            limits: Limits::default(),
            shown_normal: Shown::default(),
            shown_high: Shown::default(),
            counters: Counters::default(),
            latest: Latest::default(),
            history: History::default(),
            account: Account::default(),
            ids: Ids::default(),
            stream: Stream::new(run),
            pending: VecDeque::new(),
            waiting_for_store: WaitingForStore::default(),
            parked: Parked::default(),
            readers: Vec::new(),
            pages_asked: Vec::new(),
            read_retry: None,
            is_stored: false,
            has_blind_members: false,
            is_closing: false,
            audience: Audience::default(),
            segments: BTreeMap::new(),
            counts: Counts::default(),
            pass_rate: Rate::default(),
            step: Step::Calm,
            expected_audience: None,
            idle_close: None,
            tidy_due: None,
            is_published: false,
            last_published: now,
            last_used: now,
            message_rate: Rate::default(),
            batch_rate: Rate::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &RoomName {
        &self.name
    }

    /// This life of it.
    #[must_use]
    pub fn run(&self) -> Run {
        self.run
    }

    /// The newest batch.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Members on all shards.
    #[must_use]
    pub fn members(&self) -> u64 {
        self.segments.values().map(|segment| segment.census.members()).sum()
    }

    /// The shards that hold members of it, each with their count.
    pub fn segments(&self) -> impl Iterator<Item = (usize, Census)> {
        let held = self.segments.iter().filter(|(_, segment)| segment.census.members() > 0);
        held.map(|(shard, segment)| (*shard, segment.census))
    }

    /// Messages gathered for the next flush.
    #[must_use]
    pub fn gathered(&self) -> usize {
        self.buffer.len()
    }

    /// Reliable messages on their way to the store.
    #[must_use]
    pub fn not_durable(&self) -> u64 {
        self.stream.in_flight()
    }

    /// Whether nothing waits in it, for the store, or on its way to a segment's pass.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.waiting().is_none()
            && !self.waits_for_store()
            && self.segments.values().all(|segment| segment.untaken == 0)
    }

    /// Whether [`Input::Flush`] would cut something.
    #[must_use]
    pub fn may_flush(&self) -> bool {
        self.waiting().is_some() && self.may_cut()
    }

    /// The one way in. Outputs are to be drained afterwards.
    pub fn handle(&mut self, input: Input, now: Now, tally: &mut RoomTally) {
        let is_join = input.is_join();
        let is_due = matches!(input, Input::Due);
        // What it is told before another input: a room that was opened for that one is not idle.
        let is_preface = matches!(input, Input::Degrade(_));
        self.take_input(input, now, tally);
        if self.is_closing && !self.waits_for_store() {
            self.flush(now.instant, tally);
            self.turn_readers_away();
            return self.outputs.push_back(Output::Closed);
        }
        // Devices alone, who may name rooms as they please, leave nothing behind. But a room that would have to be loaded
        // again for the next of them stays for a while.
        let is_forgotten = is_due && self.last_used + ROOM_IDLE <= now.instant;
        let is_strangers = !self.is_published && !self.is_stored;
        if self.may_idle() && (is_forgotten || is_strangers) && !is_preface {
            return self.outputs.push_back(Output::Idle);
        }
        if !is_join {
            // A welcome is a snapshot: nothing leaves between a join and its answer.
            self.flush_what_is_due(now.instant, tally);
        }
        self.check_invariants();
    }

    fn take_input(&mut self, input: Input, now: Now, tally: &mut RoomTally) {
        let early = !self.is_closing && self.is_early(&input) && self.needs_stream(now);
        let input = if early { self.park(input) } else { Some(input) };
        if let Some(input) = input {
            self.take_input_now(input, now, tally);
        }
    }

    /// Whether an input needs the stream, and the stream is not there yet.
    fn is_early(&self, input: &Input) -> bool {
        let is_reliable = |message: &Message| message.class() == Class::Reliable;
        match input {
            Input::Segment { said: SegmentSaid::Join(_), .. }
            | Input::Ask { ask: Ask::Receipt { .. } | Ask::Pull { .. }, .. } => self.stream.epoch().is_none(),
            Input::Ask { ask: Ask::Recall { .. }, .. } => self.stream.phase() != Phase::Ready,
            Input::Publish { messages, .. } => {
                self.stream.phase() != Phase::Ready && messages.iter().any(is_reliable)
            }
            _ => false,
        }
    }

    fn take_input_now(&mut self, input: Input, now: Now, tally: &mut RoomTally) {
        match input {
            Input::Publish { ticket, messages } => {
                self.used_by_publisher(now.instant);
                self.publish(ticket, messages, now, tally);
            }
            Input::Segment { shard, said } => self.hear_segment(shard, said, now, tally),
            Input::Ask { ticket, ask } => self.ask(ticket, ask, now, tally),
            Input::Loaded { life, stored } => self.loaded(life, stored, now, tally),
            Input::Durable { life, through } => self.durable(life, through, now, tally),
            Input::Paged { life, after, page } => self.paged(life, after, &page, now, tally),
            Input::StoreFailed { life, asked, reason } => self.store_failed(life, asked, reason, now, tally),
            Input::Configure(settings) => self.configure(&settings, now.instant),
            Input::Degrade(step) => {
                self.step = step;
                self.pace.degrade(step);
            }
            Input::Due => self.due(now, tally),
            Input::Flush => self.flush(now.instant, tally),
            Input::Close => self.is_closing = true,
        }
    }

    fn hear_segment(&mut self, shard: usize, said: SegmentSaid, now: Now, tally: &mut RoomTally) {
        match said {
            SegmentSaid::Join(join) => {
                // The welcome is a snapshot: batches that are due leave before it.
                self.flush_what_is_due(now.instant, tally);
                self.join(shard, join, now, tally);
            }
            SegmentSaid::Left(left) => self.leave(shard, left, now.instant),
            SegmentSaid::Taken { batches, cost } => self.taken(shard, batches, cost, now.instant),
            SegmentSaid::Counted(counts) => self.counts += counts,
            SegmentSaid::Refresh(want) => self.refresh(shard, want),
            SegmentSaid::Carry(want) => self.carry(shard, want, now),
            SegmentSaid::Acked { epoch, acks } if epoch == self.stream.epoch() => self.acked(&acks),
            SegmentSaid::AckedEarly { epoch, reach } if epoch == self.stream.epoch() => {
                self.stream.acked_early(reach, now.unix_ms);
            }
            // These acknowledgements are of a stream that was replaced.
            SegmentSaid::Acked { .. } | SegmentSaid::AckedEarly { .. } => {}
        }
    }

    /// Publishers or devices wait until the store has answered.
    fn waits_for_store(&self) -> bool {
        !self.pending.is_empty() || !self.parked.is_empty()
    }

    /// What follows from the last input, one after the other.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When the room wants [`Input::Due`].
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Instant> {
        // A room that must not cut waits for a segment, not for time.
        let flush = if self.may_cut() { self.flush_due() } else { None };
        let idle = self.may_idle().then(|| self.last_used + ROOM_IDLE);
        // One that is closing waits for the store, not for time.
        let close = self.idle_close.filter(|_| !self.is_closing);
        let close = close.map(|idle_close| self.last_published + idle_close);
        [flush, self.audience.due(), self.tidy_due, self.poll_store_due(), idle, close]
            .into_iter()
            .flatten()
            .min()
    }

    fn may_idle(&self) -> bool {
        let waits = !self.buffer.is_empty() || self.counted_since.is_some() || self.waits_for_store();
        self.members() == 0 && !waits && self.readers.is_empty()
    }

    /// The room as a member finds it that has seen everything up to `history_after`, and has the reliable messages up to
    /// `stands`; `None`: nobody can say.
    pub fn snapshot(&mut self, history_after: Seq, stands: Option<u64>, now: Now) -> Snapshot {
        self.history.age(now.instant);
        self.stream.age(now.unix_ms);
        let latest = self.latest.since(Seq(0));
        let bytes =
            |messages: &[Arc<Message>]| messages.iter().map(|message| message.wire_bytes).sum::<usize>();
        let mut bytes_left = WELCOME_BYTES_MAX.saturating_sub(bytes(&latest));
        let stream = self.opening(stands, bytes_left);
        bytes_left =
            bytes_left.saturating_sub(stream.as_ref().map_or(0, |stream| bytes(&stream.carried.messages)));
        let newest_first = self.history.since(history_after).rev().take_while(|past| {
            let fits = past.message.wire_bytes <= bytes_left;
            bytes_left = bytes_left.saturating_sub(past.message.wire_bytes);
            fits
        });
        let mut history: Vec<Past> = newest_first.cloned().collect();
        history.reverse();
        let cut_short = history.len() < self.history.since(history_after).len();
        let counters = self.counters.totals().map(|(name, total)| (name.clone(), total)).collect();
        Snapshot { seq: self.seq, history, cut_short, latest, counters, stream }
    }

    /// What of the history is newer than `seen`, and whether it continues there exactly. There are no more answers at
    /// one seq than messages in the history, so that welcomes can be shared.
    #[must_use]
    pub fn resume(&mut self, seen: Option<Seen>, now: Instant) -> (Seq, bool) {
        self.history.age(now);
        match seen {
            Some(seen) if seen.run == self.run && seen.seq <= self.seq => {
                (self.history.last_before(seen.seq), self.history.is_whole_after(seen.seq))
            }
            _ => (Seq(0), false),
        }
    }

    fn used_by_publisher(&mut self, now: Instant) {
        (self.last_published, self.last_used, self.is_published) = (now, now, true);
        self.tidy_due.get_or_insert(now + TIDY_INTERVAL);
    }

    fn join(&mut self, shard: usize, join: Join, now: Now, tally: &mut RoomTally) {
        self.last_used = now.instant;
        self.segments.entry(shard).or_default().census.add(join.encoding);
        self.pace.passes_cost(self.pass_cost());
        self.audience.changed(self.members(), now.instant);
        self.stream.age(now.unix_ms);
        let (history_after, resumed) = self.resume(join.seen, now.instant);
        let stands = self.stands(&join);
        tally.resets += u64::from(stands.is_some_and(|stands| stands.reset.is_some()));
        self.outputs.push_back(Output::Welcomed(Welcomed { shard, join, history_after, resumed, stands }));
    }

    fn leave(&mut self, shard: usize, left: Departure, now: Instant) {
        self.last_used = now;
        self.segments.get_mut(&shard).expect("members leave where they joined").census.remove(left.encoding);
        if left.epoch == self.stream.epoch() {
            self.stream.leave(left.acked, left.device);
        }
        self.forget_empty_segment(shard);
        self.pace.passes_cost(self.pass_cost());
        self.audience.changed(self.members(), now);
    }

    fn taken(&mut self, shard: usize, batches: usize, cost: Option<WriteCost>, now: Instant) {
        if let Some(segment) = self.segments.get_mut(&shard) {
            segment.untaken = segment.untaken.checked_sub(batches).expect("only what was sent is taken");
            if let Some(cost) = cost {
                segment.cost = cost;
                let pass = cost.pass(segment.census);
                self.pass_rate.add(pass.as_secs_f64(), now);
            }
        }
        self.forget_empty_segment(shard);
        self.pace.passes_cost(self.pass_cost());
    }

    /// What the room's passes cost on the shard where they have to be farthest apart.
    fn pass_cost(&self) -> PassCost {
        let costs = self.segments.values().map(|segment| PassCost {
            pass: segment.cost.pass(segment.census),
            stretch_permille: segment.cost.stretch_permille,
        });
        costs.max_by_key(|cost| cost.pass.saturating_mul(cost.stretch_permille)).unwrap_or_default()
    }

    /// Its members, or those that are expected.
    #[must_use]
    pub fn audience(&self) -> u64 {
        self.members().max(self.expected_audience.unwrap_or(0))
    }

    /// What its passes take of all shards together, in thousandths of one; smoothed over about ten seconds.
    #[must_use]
    pub fn load_permille(&self, now: Instant) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "small, and never negative"
        )]
        let permille = (self.pass_rate.per_second(now) * 1000.0) as u64;
        permille
    }

    /// A segment is known as long as it has members or owes an answer for batches on their way.
    fn forget_empty_segment(&mut self, shard: usize) {
        let empty = |segment: &Segment| segment.census.members() == 0 && segment.untaken == 0;
        if self.segments.get(&shard).is_some_and(empty) {
            self.segments.remove(&shard);
        }
    }

    /// Why it can't be configured so.
    #[must_use]
    pub fn unfit(&self, settings: &RoomSettings) -> Option<Unfit> {
        settings.unfit(self.pace.rules(), self.limits.changes_with(settings))
    }

    fn configure(&mut self, settings: &RoomSettings, now: Instant) {
        self.used_by_publisher(now);
        self.pace.configure(settings);
        self.limits.configure(settings);
        self.expected_audience = settings.expected_audience.or(self.expected_audience);
        self.idle_close = settings.idle_close.or(self.idle_close);
    }

    /// Does what the time has come for.
    fn due(&mut self, now: Now, tally: &mut RoomTally) {
        if self.tidy_due.is_some_and(|due| due <= now.instant) {
            self.ids.age(now.instant);
            self.history.age(now.instant);
            self.stream.age(now.unix_ms);
            self.shown_normal.forget_what_is_past(now.instant);
            self.shown_high.forget_what_is_past(now.instant);
            let shown = !self.shown_normal.is_empty() || !self.shown_high.is_empty();
            let holds = shown || !self.ids.is_empty() || !self.history.is_empty() || !self.stream.is_empty();
            self.tidy_due = holds.then(|| now.instant + TIDY_INTERVAL);
        }
        self.store_due(now, tally);
        if self.audience.due().is_some_and(|due| due <= now.instant) {
            let told = self.audience.tell(self.members());
            self.accept(told, now, tally);
        }
        if self.idle_close.is_some_and(|idle_close| self.last_published + idle_close <= now.instant) {
            self.is_closing = true;
        }
    }

    fn check_invariants(&self) {
        // Small buffers only: tests fill large ones, and a quadratic check helps nobody.
        if cfg!(debug_assertions) && self.buffer.len() <= 64 {
            for (type_name, column) in self.account.columns() {
                let view = self.type_view(type_name, column, &self.buffer.by_type());
                let accounted = view.delivered + view.merged + view.shed.values().sum::<u64>() + view.waiting;
                assert_eq!(column.accepted, accounted, "conservation of {type_name} in {}", self.name);
            }
            assert!(self.segments.values().all(|segment| segment.untaken <= SEGMENT_QUEUED_MAX));
            self.stream.check_invariants();
        }
    }
}

#[cfg(test)]
mod tests;
