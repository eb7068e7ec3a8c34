//! How what waits leaves: when a flush is due, what a batch may hold, and where what it tells is kept for joiners and
//! refreshes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::account::Left;
use super::buffer::{Allowance, Budget, Cut};
use super::counters::CounterChange;
use super::id::{Seq, TypeName};
use super::ladder::{COUNTERS_INTERVAL, Step};
use super::message::Class;
use super::tally::RoomTally;
use super::{Batch, Output, Room, pace};
use crate::limits::SEGMENT_QUEUED_MAX;

/// Why a batch is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// The time has come, or enough waits.
    Due,
    /// Something urgent waits.
    Early,
    /// Everything has to leave.
    Flush,
}

impl Room {
    /// Cuts everything that waits, as far as the segments take it.
    pub(super) fn flush(&mut self, now: Instant, tally: &mut RoomTally) {
        while self.may_flush() && self.cut(Cause::Flush, now, tally) {}
    }

    /// When the next flush is due, if anything waits.
    pub(super) fn flush_due(&self) -> Option<Instant> {
        self.waiting().map(|waiting| self.pace.due(waiting, self.members()))
    }

    pub(super) fn waiting(&self) -> Option<pace::Waiting> {
        let mut waiting = self.buffer.waiting(&self.budget_at_rest());
        if let Some(since) = self.counted_since {
            // Before they may be told, nothing waits that could leave.
            let oldest = self.counters_due().map_or(since, |due| due.max(since));
            let both = waiting.get_or_insert(pace::Waiting { oldest, batches: 0, bytes: 0, urgent: false });
            both.oldest = both.oldest.min(oldest);
        }
        waiting
    }

    /// No segment has as many batches before it as it may.
    pub(super) fn may_cut(&self) -> bool {
        self.segments.values().all(|segment| segment.untaken < SEGMENT_QUEUED_MAX)
    }

    /// Flushes once what waits is due: whole batches, and what the next flush would come too late for, leave together and
    /// cost each member one write. The rest may wait; so may everything while a segment has enough before it.
    pub(super) fn flush_what_is_due(&mut self, now: Instant, tally: &mut RoomTally) {
        let Some(waiting) = self.waiting().filter(|_| self.may_cut()) else { return };
        let members = self.members();
        let early = waiting.urgent && self.pace.early_due(waiting.oldest, members) <= now;
        let unhurried = pace::Waiting { urgent: false, ..waiting };
        if !early && self.pace.due(unhurried, members) > now {
            return;
        }
        while let Some(waiting) = self.waiting().filter(|_| self.may_cut()) {
            let is_early = early && waiting.urgent;
            // A pass goes out in any case: what is urgent, and stands behind others of this flush, goes along.
            let may_stay = waiting.batches == 0 && !waiting.urgent;
            if !is_early && may_stay && self.pace.may_wait(waiting.oldest, members, now) {
                break;
            }
            if is_early {
                self.pace.flushed_early(now);
            }
            if !self.cut(if is_early { Cause::Early } else { Cause::Due }, now, tally) {
                break;
            }
        }
    }

    /// Something waits: cuts one batch, unless nothing of it may leave.
    fn cut(&mut self, cause: Cause, now: Instant, tally: &mut RoomTally) -> bool {
        let (seq, counted_since) = (self.seq.next(), self.counted_since);
        let budget = self.budget(cause, now);
        let cut = self.buffer.cut(&budget, self.run.0, now);
        if budget.normal != Allowance::Any {
            self.shown_normal.take(cut.normal, now);
        }
        if self.pace.rules().readable.high_per_second > 0 {
            self.shown_high.take(cut.high, now);
        }
        let tells_counters = cause == Cause::Flush || self.counters_due().is_none_or(|due| due <= now);
        let counters = if tells_counters { self.cut_counters(seq, now) } else { Vec::new() };
        if cut.messages.is_empty() && cut.dropped.is_empty() && counters.is_empty() {
            self.pace.idled(now);
            return false;
        }
        let told_since = counted_since.filter(|_| !counters.is_empty());
        let oldest = cut.oldest.into_iter().chain(told_since).min().unwrap_or(now);
        self.seq = seq;
        self.remember(seq, &cut, now, tally);
        let (members, ack_within_ms) = (self.members(), self.ack_within_ms());
        let span = self.stream.send(&cut.messages, members, ack_within_ms);
        self.pace.flushed(now);
        self.batch_rate.add(1.0, now);
        tally.batches += 1;
        tally.window = Some(self.pace.window(self.members()));
        for segment in self.segments.values_mut().filter(|segment| segment.census.members() > 0) {
            segment.untaken += 1;
        }
        let batch = Batch {
            seq,
            skipped: cut.dropped.by_type().map(|(name, count)| (name.clone(), count)).collect(),
            messages: cut.messages,
            merged: cut.merged.into_iter().collect(),
            counters,
            oldest,
            span,
        };
        let segments = self.segments().collect();
        self.outputs.push_back(Output::Batch { batch, segments, sent: self.stream.sent() });
        true
    }

    /// What a cut may take now.
    fn budget(&mut self, cause: Cause, now: Instant) -> Budget {
        let mut budget = self.budget_at_rest();
        if budget.normal != Allowance::Any && cause != Cause::Early {
            let shown = self.shown_normal.allowance(self.normal_per_second(), self.buffer.sampled_len(), now);
            budget.normal = Allowance::AtMost(shown);
        }
        if budget.high != Allowance::Any {
            let shown =
                self.shown_high.allowance(self.pace.rules().readable.high_per_second, usize::MAX, now);
            budget.high = if cause == Cause::Flush { Allowance::Any } else { Allowance::AtMost(shown) };
        }
        budget
    }

    /// What a cut may take when nobody has asked how much devices may be shown.
    fn budget_at_rest(&self) -> Budget {
        let rules = self.pace.rules();
        let unless = |per_second, limited| if per_second == 0 { Allowance::Any } else { limited };
        Budget {
            messages_max: rules.messages_max,
            bytes_max: rules.bytes_max,
            batches: SEGMENT_QUEUED_MAX
                - self.segments.values().map(|segment| segment.untaken).max().unwrap_or(0),
            quotas: rules.quotas,
            normal: unless(self.normal_per_second(), Allowance::Later),
            high: unless(rules.readable.high_per_second, Allowance::AtMost(0)),
        }
    }

    /// What devices are shown a second of normal and low priority; 0: as much as comes.
    pub(super) fn normal_per_second(&self) -> u32 {
        self.step.normal_per_second(self.pace.rules().readable.normal_per_second)
    }

    /// Until when the ladder has counters wait; `None`: they leave with the next batch.
    fn counters_due(&self) -> Option<Instant> {
        let told = self.counters_told.filter(|_| self.step >= Step::CountersSlow)?;
        Some(told + COUNTERS_INTERVAL)
    }

    /// Tells the counters' increments with the batch `seq`.
    fn cut_counters(&mut self, seq: Seq, now: Instant) -> Vec<CounterChange> {
        let changes = self.counters.cut(seq);
        for (type_name, increments) in std::mem::take(&mut self.increments) {
            let left = Left { delivered: increments, ..Left::default() };
            self.account.record(seq, &type_name, left);
        }
        self.counted_since = None;
        if !changes.is_empty() {
            self.counters_told = Some(now);
        }
        changes
    }

    /// Moves what the batch `seq` tells into the state that joiners and refreshes are given.
    fn remember(&mut self, seq: Seq, cut: &Cut, now: Instant, tally: &mut RoomTally) {
        let mut left: BTreeMap<&TypeName, Left> = BTreeMap::new();
        for message in &cut.messages {
            left.entry(&message.type_name).or_default().delivered += 1;
            if message.class() == Class::Latest {
                self.latest.record(seq, message);
            } else if message.policy.history {
                self.history.push(seq, Arc::clone(message), now);
            } else if message.class() == Class::Normal {
                self.history.pass_over(seq);
            }
        }
        for (type_name, merged) in &cut.merged {
            left.entry(type_name).or_default().merged += merged;
        }
        for (type_name, class, reason, count) in cut.dropped.reasons() {
            left.entry(type_name).or_default().skipped += count;
            if class == Class::Normal {
                self.history.pass_over(seq);
            }
            tally.shed[reason as usize].add(class, count);
            if let Some(column) = self.account.column(type_name) {
                column.shed[reason as usize] += count;
            }
        }
        for (type_name, left) in left {
            self.account.record(seq, type_name, left);
        }
        if let Some(floor) = self.account.trim(seq) {
            self.counters.forget_before(floor);
        }
    }
}
