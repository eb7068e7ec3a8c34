//! The gathering of a room: messages before a flush, the moment and the reason of the flush, and the budget
//! of a batch.
//!
//! This part cuts and counts. The state seen by devices and waiting increments are `RoomState`'s, and the
//! reliable stream is `Stream`'s.

use std::time::Instant;

use super::buffer::{Allowance, Budget, Buffer, Cut};
use super::ladder::{COUNTERS_INTERVAL, Step};
use super::message::{Message, Verdict};
use super::pace::{Pace, RoomRules, Waiting};
use super::rate::Rate;
use super::shown::Shown;
use crate::limits::SEGMENT_QUEUED_MAX;

/// The reason for cutting a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The window is over, or enough waits.
    Due,
    /// Something urgent waits.
    Early,
    /// Everything has to leave.
    Flush,
}

/// The gathering of a room, and its pace.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    pub(super) pace: Pace,
    pub(super) buffer: Buffer,
    /// The arrival of the oldest counter message before the next batch; `None` exactly when none waits.
    pub(super) counting_since: Option<Instant>,
    /// The last batch with a change of counters.
    counters_told_at: Option<Instant>,
    /// Messages of normal and low priority shown to devices in the last second.
    shown_normal: Shown,
    /// Messages of high priority shown to devices in the last second.
    shown_high: Shown,
    /// The ladder's step in force for the room.
    pub(super) step: Step,
    pub(super) batch_rate: Rate,
}

impl Gathering {
    pub(super) fn new(rules: RoomRules) -> Self {
        Self { pace: Pace::new(rules), ..Self::default() }
    }

    pub(super) fn degrade(&mut self, step: Step) {
        self.step = step;
        self.pace.degrade(step);
    }

    /// Takes in a message without need of the store. `seed` makes lots differ from room to room.
    pub(super) fn push(&mut self, message: Message, seed: u64, now: Instant) -> Verdict {
        let verdict = self.buffer.push(message, now);
        let shown = self.normal_per_second();
        if shown > 0 {
            // Past what devices are shown a second, a flood would fill the buffer for nothing.
            self.buffer.thin(shown as usize, seed, now);
        }
        verdict
    }

    /// Returns true if neither a message nor an increment waits.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.counting_since.is_none()
    }

    /// The arrival of the oldest message or increment.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.buffer.oldest().into_iter().chain(self.counting_since).min()
    }

    /// The pace's view of the gathering; `None` if nothing could leave.
    pub(super) fn waiting(&self) -> Option<Waiting> {
        let mut waiting = self.buffer.waiting(&self.budget_at_rest(SEGMENT_QUEUED_MAX));
        if let Some(since) = self.counting_since {
            // Until the ladder lets counters go, they count as if they had come then.
            let oldest = self.counters_held_until().map_or(since, |until| until.max(since));
            let both = waiting.get_or_insert(Waiting { oldest, batches: 0, bytes: 0, urgent: false });
            both.oldest = both.oldest.min(oldest);
        }
        waiting
    }

    /// The reason for a flush now; `None` if none is due.
    pub(super) fn cause(&self, members: u64, now: Instant) -> Option<Cause> {
        let waiting = self.waiting()?;
        if waiting.urgent && self.pace.early_due(waiting.oldest, members) <= now {
            return Some(Cause::Early);
        }
        // Early flushes have a spacing of their own, and a window that is over does not wait for it.
        let unhurried = Waiting { urgent: false, ..waiting };
        (self.pace.due(unhurried, members) <= now).then_some(Cause::Due)
    }

    /// The reason for a further batch, in a flush begun for `began`; `None`: the rest may wait for the next
    /// flush.
    pub(super) fn next_cause(&mut self, began: Cause, members: u64, now: Instant) -> Option<Cause> {
        let waiting = self.waiting()?;
        // Urgent messages that fill more than one batch leave in this flush: the next early one is
        // `urgent_spacing` away.
        if began == Cause::Early && waiting.urgent {
            self.pace.last_early = Some(now);
            return Some(Cause::Early);
        }
        // Whole batches and urgent messages go along, since a pass goes out in any case and costs each member
        // one write.
        let may_stay = waiting.batches == 0 && !waiting.urgent;
        if may_stay && self.pace.may_wait(waiting.oldest, members, now) {
            return None;
        }
        Some(Cause::Due)
    }

    /// Takes the messages of a batch out of the buffer. `batches_left`: batches until the segments are full.
    pub(super) fn cut(&mut self, cause: Cause, batches_left: usize, seed: u64, now: Instant) -> Cut {
        let budget = self.budget(cause, batches_left, now);
        let cut = self.buffer.cut(&budget, seed, now);
        if budget.normal != Allowance::Any {
            self.shown_normal.take(cut.normal, now);
        }
        // A forced flush asks for no allowance, and yet counts in the second after it.
        if self.pace.rules.readable.high_per_second > 0 {
            self.shown_high.take(cut.high, now);
        }
        cut
    }

    /// Begins a batch with all increments. Returns the arrival of the oldest counter message; `None` if none
    /// waits, or if the ladder holds counters back.
    pub(super) fn cut_counters(&mut self, cause: Cause, now: Instant) -> Option<Instant> {
        let is_held = self.counters_held_until().is_some_and(|until| until > now);
        // A room that has to flush keeps nothing back: its node may be draining.
        if is_held && cause != Cause::Flush {
            return None;
        }
        self.counting_since.take()
    }

    /// The moment up to which the ladder holds counters back; `None`: counters leave with the next batch.
    fn counters_held_until(&self) -> Option<Instant> {
        let told_at = self.counters_told_at.filter(|_| self.step >= Step::CountersSlow)?;
        Some(told_at + COUNTERS_INTERVAL)
    }

    /// A batch left; `tells_counters`: with a change of counters.
    pub(super) fn flushed(&mut self, tells_counters: bool, now: Instant) {
        if tells_counters {
            self.counters_told_at = Some(now);
        }
        self.pace.flushed(now);
        self.batch_rate.add(1.0, now);
    }

    /// Forgets what was shown more than a second ago. Returns whether something is left to forget.
    pub(super) fn tidy(&mut self, now: Instant) -> bool {
        self.shown_normal.forget_what_is_past(now);
        self.shown_high.forget_what_is_past(now);
        self.remembers_shown()
    }

    /// Returns true if messages shown to devices are still remembered.
    pub(super) fn remembers_shown(&self) -> bool {
        !self.shown_normal.is_empty() || !self.shown_high.is_empty()
    }

    /// Messages of normal and low priority shown to devices each second; 0: all.
    fn normal_per_second(&self) -> u32 {
        self.step.normal_per_second(self.pace.rules.readable.normal_per_second)
    }

    /// The budget of a cut now.
    fn budget(&mut self, cause: Cause, batches_left: usize, now: Instant) -> Budget {
        let mut budget = self.budget_at_rest(batches_left);
        // An early flush leaves sampled messages to their window: a sample drawn at each would be no sample.
        if budget.normal != Allowance::Any && cause != Cause::Early {
            let sampled = self.buffer.sampled_len();
            budget.normal =
                Allowance::AtMost(self.shown_normal.allowance(self.normal_per_second(), sampled, now));
        }
        if budget.high != Allowance::Any {
            let per_second = self.pace.rules.readable.high_per_second;
            let shown = self.shown_high.allowance(per_second, usize::MAX, now);
            // A room that has to flush may leave no gift behind: its node may be draining.
            budget.high = if cause == Cause::Flush { Allowance::Any } else { Allowance::AtMost(shown) };
        }
        budget
    }

    /// The budget before the question how much devices may still be shown.
    fn budget_at_rest(&self, batches_left: usize) -> Budget {
        let rules = &self.pace.rules;
        let unless = |per_second, limited| if per_second == 0 { Allowance::Any } else { limited };
        Budget {
            messages_max: rules.messages_max,
            bytes_max: rules.bytes_max,
            batches: batches_left,
            quotas: rules.quotas,
            normal: unless(self.normal_per_second(), Allowance::Later),
            high: unless(rules.readable.high_per_second, Allowance::AtMost(0)),
        }
    }
}
