//! The schedule of carries: reliable messages go again to members without an acknowledgement.
//!
//! Pure, and by deadline: a segment with every message acknowledged looks at no member.
//!
//! Delay before the next attempt, after n attempts: min(`ack_within` + [`ACK_GRACE`] + max(0, n − 3) ×
//! [`CARRY_DELAY_STEP`], [`CARRY_DELAY_MAX`]), plus up to [`CARRY_JITTER_PERCENT`] percent of jitter. Example
//! for `ack_within` = 200 ms, jitter aside: 0.7 s four times, then 1.7 s, 2.7 s, … 30 s. The
//! jitter is a hash of room and attempt: members of one room become due together, so the frames stay shared.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits::{
    ACK_GRACE, CARRY_DELAY_MAX, CARRY_DELAY_STEP, CARRY_JITTER_PERCENT, CARRY_STEADY_ATTEMPTS,
    STREAM_MESSAGES_MAX,
};

use crate::room::id::{RoomName, mix};

/// Acknowledgements of one member, and the carries to the member.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acked {
    /// Last acknowledged offset. Before the first acknowledgement: the offset of the cursor at the join.
    pub(super) through: u64,
    /// No message up to this offset is alive, by the word of the home: nothing to carry there.
    pub(super) dead_through: u64,
    /// Receipts count the member for messages behind this offset.
    pub(super) counts_from: u64,
    /// Hash of the device's name. 0: the device has no name.
    pub(super) device: u64,
    /// Join, last refresh with reliable messages, or last request of a carry.
    pub(super) brought_at: Instant,
    /// Requests of carries since the last acknowledgement.
    pub(super) attempts: u32,
    /// The segment has asked the home for a carry, and the answer is still out.
    pub(super) is_asked_for: bool,
    /// The last look found the member without an acknowledgement that was due.
    pub(super) is_overdue: bool,
}

impl Acked {
    /// Last offset without need of a carry.
    pub(super) fn settled(&self) -> u64 {
        self.through.max(self.dead_through)
    }
}

/// Sendings of reliable messages to the members of a segment.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// Hash of the room's name, the seed of the jitter: rooms do not carry in step.
    room: u64,
    /// In order of offset, and so in order of time.
    sendings: VecDeque<Sending>,
}

/// Messages up to `offset` left for the first time.
#[derive(Debug, Clone, Copy)]
struct Sending {
    offset: u64,
    at: Instant,
    ack_within: Duration,
}

impl Schedule {
    pub(super) fn new(room: &RoomName) -> Self {
        let room = room.as_str().bytes().fold(0, |hash, byte| mix(hash ^ u64::from(byte)));
        Self { room, sendings: VecDeque::new() }
    }

    /// Notes that messages up to `offset` leave now. Returns the earliest moment of a carry for those
    /// messages.
    pub(super) fn sent(&mut self, offset: u64, ack_within: Duration, now: Instant) -> Instant {
        if self.sendings.back().is_none_or(|last| last.offset < offset) {
            self.sendings.push_back(Sending { offset, at: now, ack_within });
            if self.sendings.len() > STREAM_MESSAGES_MAX {
                // A member that lacks the dropped entry also lacks the next one, so one carry covers both.
                self.sendings.pop_front();
            }
        }
        now + self.delay(0, ack_within)
    }

    /// Moment of the next carry to a member. `None`: the member lacks nothing.
    pub(super) fn due(&self, acked: &Acked) -> Option<Instant> {
        let lacked = self.sendings.partition_point(|sending| sending.offset <= acked.settled());
        let first = self.sendings.get(lacked)?;
        Some(first.at.max(acked.brought_at) + self.delay(acked.attempts, first.ack_within))
    }

    /// Newest offset with an overdue acknowledgement. Younger messages are left out of a carry: their own
    /// acknowledgements are still under way.
    pub(super) fn overdue_through(&self, now: Instant) -> u64 {
        let overdue =
            self.sendings.iter().rev().find(|sending| sending.at + self.delay(0, sending.ack_within) <= now);
        overdue.map_or(0, |sending| sending.offset)
    }

    /// Forgets the sendings up to `offset`: acknowledged by every member, or dead.
    pub(super) fn forget_through(&mut self, offset: u64) {
        while self.sendings.front().is_some_and(|sending| sending.offset <= offset) {
            self.sendings.pop_front();
        }
    }

    /// Delay between an attempt and the next, by the formula in the head of this file.
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
            is_overdue: false,
        }
    }

    #[test]
    fn attempts_come_evenly_four_times_and_then_ever_more_slowly() {
        let schedule = schedule();
        let within = Duration::from_millis(200);
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
        let mut schedule = schedule();
        let now = Now::made_up().instant;
        let within = Duration::from_millis(200);
        let due = schedule.sent(7, within, now);
        assert_eq!(schedule.due(&acked(6, now)), Some(due));
        assert_eq!(schedule.due(&acked(7, now)), None);
        let later = now + Duration::from_secs(5);
        assert_eq!(schedule.due(&acked(0, later)), Some(later + (due - now)));
    }

    #[test]
    fn what_was_sent_just_now_is_not_carried_with_what_is_overdue() {
        let mut schedule = schedule();
        let now = Now::made_up().instant;
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
        let mut schedule = schedule();
        let now = Now::made_up().instant;
        schedule.sent(7, Duration::ZERO, now);
        assert_eq!(schedule.due(&Acked { dead_through: 7, ..acked(3, now) }), None);
    }
}
