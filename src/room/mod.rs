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
pub mod buffer;
pub mod counters;
pub mod cumulative;
pub mod history;
pub mod id;
pub mod ids;
pub mod latest;
pub mod message;
pub mod pace;
pub mod tally;
pub mod view;

mod exchange;
mod publish;
mod report;

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::exchange::{
    Batch, Carried, Census, Input, Join, Opening, Output, Refresh, Snapshot, Span, Welcomed,
};

use self::account::Account;
use self::audience::Audience;
use self::buffer::Buffer;
use self::counters::Counters;
use self::history::{History, Past};
use self::id::{Encoding, RoomName, Run, Seen, Seq, TypeName};
use self::ids::Ids;
use self::latest::Latest;
use self::message::Class;
use self::pace::{FlushRules, Pace, RoomSettings};
use self::report::Rate;
use self::tally::RoomTally;
use crate::clock::Now;
use crate::config::limits::{HISTORY_AGE_MAX, ROOM_IDLE, SEGMENT_QUEUED_MAX, WELCOME_BYTES_MAX};

/// How often a room lets go of history and ids that are too old.
const TIDY_INTERVAL: Duration = HISTORY_AGE_MAX;

/// What the home knows of one segment.
#[derive(Debug, Clone, Copy, Default)]
struct Segment {
    census: Census,
    /// Batches on their way to it or queued there, not yet in a pass.
    untaken: usize,
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
    /// How many increments wait.
    increments: u64,
    counters: Counters,
    latest: Latest,
    history: History,
    account: Account,
    ids: Ids,
    audience: Audience,
    segments: BTreeMap<usize, Segment>,
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
    pub fn new(name: RoomName, run: Run, rules: FlushRules, now: Instant) -> Self {
        Self {
            name,
            run,
            seq: Seq(0),
            pace: Pace::new(rules),
            buffer: Buffer::default(),
            counted_since: None,
            increments: 0,
            counters: Counters::default(),
            latest: Latest::default(),
            history: History::default(),
            account: Account::default(),
            ids: Ids::default(),
            audience: Audience::default(),
            segments: BTreeMap::new(),
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

    /// Whether nothing waits in it, nor on its way to a segment's pass.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.waiting().is_none() && self.segments.values().all(|segment| segment.untaken == 0)
    }

    /// Whether [`Input::Flush`] would cut something.
    #[must_use]
    pub fn may_flush(&self) -> bool {
        self.waiting().is_some() && self.may_cut()
    }

    /// The one way in. Outputs are to be drained afterwards.
    pub fn handle(&mut self, input: Input, now: Now, tally: &mut RoomTally) {
        match input {
            Input::Publish { ticket, messages } => {
                self.used_by_publisher(now.instant);
                let published = self.publish(messages, now, tally);
                self.outputs.push_back(Output::Published { ticket, published });
            }
            Input::Join(join) => {
                // The welcome is a snapshot: what is due leaves before it, and nothing between it and its answer.
                self.flush_what_is_due(now.instant, tally);
                self.join(join, now.instant);
                return self.check_invariants();
            }
            Input::Left { shard, left } => {
                self.leave(shard, left, now.instant);
                if !self.is_published && self.members() == 0 {
                    // Devices alone, who may name rooms as they please, leave nothing behind.
                    return self.outputs.push_back(Output::Idle);
                }
            }
            Input::Taken { shard, batches } => self.taken(shard, batches),
            Input::Refresh { shard, encoding, since } => self.refresh(shard, encoding, since),
            Input::Configure(settings) => self.configure(settings, now.instant),
            Input::Due => {
                if self.due(now, tally).is_break() {
                    return; // It has ended: nothing follows.
                }
            }
            Input::Flush => self.flush(now.instant, tally),
            Input::Close => {
                self.flush(now.instant, tally);
                return self.outputs.push_back(Output::Closed);
            }
        }
        self.flush_what_is_due(now.instant, tally);
        self.check_invariants();
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
        let idle = (self.members() == 0).then(|| self.last_used + ROOM_IDLE);
        let close = self.idle_close.map(|idle_close| self.last_published + idle_close);
        [flush, self.audience.due(), self.tidy_due, idle, close].into_iter().flatten().min()
    }

    /// The room as a member that has seen everything up to `history_after` finds it.
    pub fn snapshot(&mut self, history_after: Seq, now: Instant) -> Snapshot {
        self.history.age(now);
        let latest = self.latest.since(Seq(0));
        let mut bytes_left =
            WELCOME_BYTES_MAX.saturating_sub(latest.iter().map(|message| message.wire_bytes).sum());
        let newest_first = self.history.since(history_after).rev().take_while(|past| {
            let fits = past.message.wire_bytes <= bytes_left;
            bytes_left = bytes_left.saturating_sub(past.message.wire_bytes);
            fits
        });
        let mut history: Vec<Past> = newest_first.cloned().collect();
        history.reverse();
        let cut_short = history.len() < self.history.since(history_after).len();
        let counters = self.counters.totals().map(|(name, total)| (name.clone(), total)).collect();
        Snapshot { seq: self.seq, history, cut_short, latest, counters, stream: None }
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

    fn join(&mut self, join: Join, now: Instant) {
        self.last_used = now;
        self.segments.entry(join.shard).or_default().census.add(join.encoding);
        self.audience.changed(self.members(), now);
        let (history_after, resumed) = self.resume(join.seen, now);
        self.outputs.push_back(Output::Welcomed(Welcomed { join, history_after, resumed }));
    }

    fn leave(&mut self, shard: usize, left: Census, now: Instant) {
        self.last_used = now;
        self.segments.get_mut(&shard).expect("members leave where they joined").census.subtract(left);
        self.forget_empty_segment(shard);
        self.audience.changed(self.members(), now);
    }

    fn taken(&mut self, shard: usize, batches: usize) {
        if let Some(segment) = self.segments.get_mut(&shard) {
            segment.untaken = segment.untaken.checked_sub(batches).expect("only what was sent is taken");
        }
        self.forget_empty_segment(shard);
    }

    /// A segment is known as long as it has members or owes an answer for batches on their way.
    fn forget_empty_segment(&mut self, shard: usize) {
        let empty = |segment: &Segment| segment.census.members() == 0 && segment.untaken == 0;
        if self.segments.get(&shard).is_some_and(empty) {
            self.segments.remove(&shard);
        }
    }

    fn refresh(&mut self, shard: usize, encoding: Encoding, since: Seq) {
        let refresh = self.account.since(since).map(|missed| Refresh {
            missed,
            latest: self.latest.since(since),
            counters: self.counters.since(since),
            carried: None,
        });
        self.outputs.push_back(Output::Refreshed { shard, encoding, since, to: self.seq, refresh });
    }

    fn configure(&mut self, settings: RoomSettings, now: Instant) {
        self.used_by_publisher(now);
        self.pace.configure(&settings);
        self.expected_audience = settings.expected_audience.or(self.expected_audience);
        self.idle_close = settings.idle_close.or(self.idle_close);
    }

    /// Cuts everything that waits, as far as the segments take it.
    fn flush(&mut self, now: Instant, tally: &mut RoomTally) {
        while self.may_cut() && self.cut(now, tally) {}
    }

    /// Does what the time has come for. Breaks if the room has ended with it.
    fn due(&mut self, now: Now, tally: &mut RoomTally) -> ControlFlow<()> {
        if self.tidy_due.is_some_and(|due| due <= now.instant) {
            self.ids.age(now.instant);
            self.history.age(now.instant);
            let holds = !self.ids.is_empty() || !self.history.is_empty();
            self.tidy_due = holds.then(|| now.instant + TIDY_INTERVAL);
        }
        if self.audience.due().is_some_and(|due| due <= now.instant) {
            let told = self.audience.tell(self.members());
            self.accept(told, now, tally);
        }
        if self.idle_close.is_some_and(|idle_close| self.last_published + idle_close <= now.instant) {
            self.flush(now.instant, tally);
            self.outputs.push_back(Output::Closed);
            return ControlFlow::Break(());
        }
        if self.members() == 0 && self.last_used + ROOM_IDLE <= now.instant {
            self.outputs.push_back(Output::Idle);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// When the next flush is due, if anything waits.
    fn flush_due(&self) -> Option<Instant> {
        self.waiting().map(|waiting| self.pace.due(waiting, self.members()))
    }

    fn waiting(&self) -> Option<pace::Waiting> {
        let rules = self.pace.rules();
        let mut waiting = self.buffer.waiting(rules.messages_max, rules.bytes_max);
        if let Some(since) = self.counted_since {
            let counted = pace::Waiting { oldest: since, full: false, urgent: false };
            let both = waiting.get_or_insert(counted);
            both.oldest = both.oldest.min(since);
        }
        waiting
    }

    /// No segment has as many batches before it as it may.
    fn may_cut(&self) -> bool {
        self.segments.values().all(|segment| segment.untaken < SEGMENT_QUEUED_MAX)
    }

    /// Cuts batch after batch until what is left may wait, or a segment has enough before it.
    fn flush_what_is_due(&mut self, now: Instant, tally: &mut RoomTally) {
        // One early flush may take several cuts: whether it may start is asked once.
        let early = self.waiting().filter(|waiting| waiting.urgent);
        let early = early.is_some_and(|waiting| self.pace.early_due(waiting.oldest) <= now);
        while let Some(waiting) = self.waiting().filter(|_| self.may_cut()) {
            let is_early = early && waiting.urgent;
            if !is_early && self.pace.due(pace::Waiting { urgent: false, ..waiting }, self.members()) > now {
                break;
            }
            if is_early {
                self.pace.flushed_early(now);
            }
            self.cut(now, tally);
        }
    }

    /// Cuts one batch, unless nothing waits.
    fn cut(&mut self, now: Instant, tally: &mut RoomTally) -> bool {
        let Some(waiting) = self.waiting() else { return false };
        let seq = self.seq.next();
        let rules = *self.pace.rules();
        let cut = self.buffer.cut(rules.messages_max, rules.bytes_max);
        let counters = self.counters.cut(seq);
        (self.seq, self.counted_since, self.increments) = (seq, None, 0);
        self.remember(seq, &cut, now);
        self.pace.flushed(now);
        self.batch_rate.add(1.0, now);
        tally.batches += 1;
        tally.window = Some(self.pace.window(self.members()));
        for segment in self.segments.values_mut().filter(|segment| segment.census.members() > 0) {
            segment.untaken += 1;
        }
        let merged = cut.merged.into_iter().collect();
        let batch =
            Batch { seq, messages: cut.messages, merged, counters, oldest: waiting.oldest, span: None };
        let segments = self.segments().collect();
        self.outputs.push_back(Output::Batch { batch, segments });
        true
    }

    /// Moves what the batch `seq` tells into the state that joiners and refreshes are given.
    fn remember(&mut self, seq: Seq, cut: &buffer::Cut, now: Instant) {
        let mut delivered: BTreeMap<&TypeName, u64> = BTreeMap::new();
        for message in &cut.messages {
            *delivered.entry(&message.type_name).or_default() += 1;
            match message.class {
                Class::Latest => self.latest.record(seq, message),
                Class::Normal | Class::Reliable => self.history.push(seq, Arc::clone(message), now),
                Class::Counter | Class::Lossy => {}
            }
        }
        for (type_name, count) in delivered {
            let merged = cut.merged.get(type_name).copied().unwrap_or(0);
            self.account.record(seq, type_name, count, merged);
        }
        if let Some(floor) = self.account.trim(seq) {
            self.counters.forget_before(floor);
        }
    }

    fn check_invariants(&self) {
        // Small buffers only: tests fill large ones, and a quadratic check helps nobody.
        if cfg!(debug_assertions) && self.buffer.len() <= 64 {
            let waiting = self.buffer.by_type();
            for (type_name, column) in self.account.columns() {
                let backlog = waiting.get(type_name).copied().unwrap_or_default();
                let accounted = column.delivered() + column.merged() + backlog.messages + backlog.merged;
                assert_eq!(column.accepted, accounted, "conservation of {type_name} in {}", self.name);
            }
            assert!(self.segments.values().all(|segment| segment.untaken <= SEGMENT_QUEUED_MAX));
        }
    }
}

#[cfg(test)]
mod tests;
