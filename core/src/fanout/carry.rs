//! When reliable messages are carried again to members that have not acknowledged them.
//!
//! Pure, and by deadline: a segment whose members have acknowledged everything looks at nobody. The jitter is one for
//! all members of a room at one attempt, so that the frames stay shared.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits::{
    ACK_GRACE, CARRY_DELAY_MAX, CARRY_DELAY_STEP, CARRY_JITTER_PERCENT, CARRY_STEADY_ATTEMPTS,
    STREAM_MESSAGES_MAX,
};

use crate::room::id::{RoomName, mix};

/// What a member has acknowledged, and when it was last sent something again.
#[derive(Debug, Clone, Copy)]
pub struct Acked {
    /// Its last acknowledgement; what its cursor said before the first.
    pub through: u64,
    /// Nothing at or before this offset is alive, as far as was heard: it needs no carrying.
    pub dead_through: u64,
    /// Receipts count it for messages behind this offset.
    pub counts_from: u64,
    /// A hash of the device's name; 0: it gave none.
    pub device: u64,
    /// When it was last brought reliable messages other than in a level frame.
    pub brought_at: Instant,
    /// Times that was done since it last acknowledged something.
    pub attempts: u32,
    /// Its home was asked what to carry to it, and has not answered.
    pub is_asked_for: bool,
}

impl Acked {
    /// The last offset that it need not be carried.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.through.max(self.dead_through)
    }
}

/// When which messages were sent to a segment's members.
#[derive(Debug)]
pub struct Schedule {
    /// A hash of the room's name: what the jitter of an attempt is drawn from.
    room: u64,
    /// In order of offset, and of time.
    steps: VecDeque<Step>,
}

/// Messages up to an offset were sent.
#[derive(Debug, Clone, Copy)]
struct Step {
    offset: u64,
    at: Instant,
    ack_within: Duration,
}

impl Schedule {
    /// Nothing was sent.
    #[must_use]
    pub fn new(room: &RoomName) -> Self {
        let room = room.as_str().bytes().fold(0, |hash, byte| mix(hash ^ u64::from(byte)));
        Self { room, steps: VecDeque::new() }
    }

    /// Messages up to `offset` are sent now; devices acknowledge within `ack_within`. When the first of them may have to
    /// be carried.
    pub fn sent(&mut self, offset: u64, ack_within: Duration, now: Instant) -> Instant {
        if self.steps.back().is_none_or(|last| last.offset < offset) {
            self.steps.push_back(Step { offset, at: now, ack_within });
            if self.steps.len() > STREAM_MESSAGES_MAX {
                // Who lacks these lacks the next as well, and is carried both when that is due.
                self.steps.pop_front();
            }
        }
        now + self.delay(0, ack_within)
    }

    /// When a member is to be carried what it has not acknowledged; `None`: it lacks nothing.
    #[must_use]
    pub fn due(&self, acked: &Acked) -> Option<Instant> {
        let first = self.steps.get(self.steps.partition_point(|step| step.offset <= acked.settled()))?;
        Some(first.at.max(acked.brought_at) + self.delay(acked.attempts, first.ack_within))
    }

    /// The newest offset that was sent so long ago that an acknowledgement is overdue.
    #[must_use]
    pub fn overdue_through(&self, now: Instant) -> u64 {
        let overdue = self.steps.iter().rev().find(|step| step.at + self.delay(0, step.ack_within) <= now);
        overdue.map_or(0, |step| step.offset)
    }

    /// Forgets what nobody needs any more: everything up to `offset`.
    pub fn forget_through(&mut self, offset: u64) {
        while self.steps.front().is_some_and(|step| step.offset <= offset) {
            self.steps.pop_front();
        }
    }

    /// How long after one attempt the next comes: the time devices have to acknowledge and a grace, four times over;
    /// then a second more each time, up to half a minute.
    fn delay(&self, attempts: u32, ack_within: Duration) -> Duration {
        let longer = attempts.saturating_sub(CARRY_STEADY_ATTEMPTS - 1);
        let delay = (ack_within + ACK_GRACE + CARRY_DELAY_STEP.saturating_mul(longer)).min(CARRY_DELAY_MAX);
        let percent = mix(self.room ^ u64::from(attempts)) % (CARRY_JITTER_PERCENT + 1);
        delay.mul_f64(1.0 + percent as f64 / 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::now::Now;

    fn schedule() -> Schedule {
        Schedule::new(&RoomName::parse("r1").unwrap())
    }

    fn acked(through: u64, brought_at: Instant) -> Acked {
        Acked {
            through,
            dead_through: 0,
            counts_from: 0,
            device: 0,
            brought_at,
            attempts: 0,
            is_asked_for: false,
        }
    }

    #[test]
    fn attempts_come_evenly_four_times_and_then_ever_more_slowly() {
        let (schedule, within) = (schedule(), Duration::from_millis(200));
        let delays: Vec<f64> = (0..40).map(|attempt| schedule.delay(attempt, within).as_secs_f64()).collect();
        for (attempt, delay) in delays.iter().enumerate() {
            let longer = attempt.saturating_sub(3) as f64;
            let plain = (0.7 + longer).min(30.0);
            assert!((plain..=plain * 1.1 + 1e-6).contains(delay), "attempt {attempt} after {delay} s");
        }
        assert_eq!(delays[5], schedule.delay(5, within).as_secs_f64(), "the jitter is one for all");
    }

    #[test]
    fn who_came_late_is_given_its_own_time() {
        let (mut schedule, now) = (schedule(), Now::made_up().instant);
        let within = Duration::from_millis(200);
        let due = schedule.sent(7, within, now);
        assert_eq!(schedule.due(&acked(6, now)), Some(due));
        assert_eq!(schedule.due(&acked(7, now)), None);
        let later = now + Duration::from_secs(5);
        assert_eq!(schedule.due(&acked(0, later)), Some(later + (due - now)));
    }

    #[test]
    fn what_was_sent_just_now_is_not_carried_with_what_is_overdue() {
        let (mut schedule, now) = (schedule(), Now::made_up().instant);
        let within = Duration::from_millis(200);
        let due = schedule.sent(7, within, now);
        schedule.sent(8, within, due);
        assert_eq!(schedule.overdue_through(due), 7);
        assert_eq!(schedule.overdue_through(now), 0);
        schedule.forget_through(7);
        assert_eq!(schedule.due(&acked(0, now)), Some(due + (due - now)));
    }

    #[test]
    fn what_is_dead_needs_no_acknowledgement() {
        let (mut schedule, now) = (schedule(), Now::made_up().instant);
        schedule.sent(7, Duration::ZERO, now);
        assert_eq!(schedule.due(&Acked { dead_through: 7, ..acked(3, now) }), None);
    }
}
