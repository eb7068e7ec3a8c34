//! The last messages of a room, for late joiners and for repair. Bounded in messages, bytes and age.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::id::Seq;
use super::message::Message;
use crate::limits::{HISTORY_AGE_MAX, HISTORY_BYTES_MAX, HISTORY_MESSAGES_MAX};

/// A message of the history.
#[derive(Debug, Clone)]
pub struct Past {
    /// The batch of the message.
    pub seq: Seq,
    /// The message as it left.
    pub message: Arc<Message>,
    /// The time at which the batch was cut.
    at: Instant,
}

/// The history of a room.
#[derive(Debug, Default)]
pub struct History {
    /// Oldest first.
    past: VecDeque<Past>,
    /// Invariant: the sum of `wire_bytes` over `past`.
    bytes: usize,
    /// The seq behind which the history is whole.
    whole_after: Seq,
}

impl History {
    /// Takes in a message of the batch `seq`. Past a bound, the oldest go.
    pub fn push(&mut self, seq: Seq, message: Arc<Message>, now: Instant) {
        self.bytes += message.wire_bytes;
        self.past.push_back(Past { seq, message, at: now });
        while self.past.len() > HISTORY_MESSAGES_MAX || self.bytes > HISTORY_BYTES_MAX {
            self.forget_oldest();
        }
    }

    /// Notes that a message of the batch `seq`, or of an earlier batch, is not kept.
    pub(super) fn pass_over(&mut self, seq: Seq) {
        self.whole_after = self.whole_after.max(seq);
    }

    /// Lets go of outdated messages.
    pub(super) fn age(&mut self, now: Instant) -> bool {
        while self.past.front().is_some_and(|past| now.saturating_duration_since(past.at) > HISTORY_AGE_MAX) {
            self.forget_oldest();
        }
        !self.past.is_empty()
    }

    /// The messages newer than `seq`, oldest first.
    pub fn since(&self, seq: Seq) -> impl DoubleEndedIterator<Item = &Past> + ExactSizeIterator {
        let newer = self.past.partition_point(|past| past.seq <= seq);
        self.past.range(newer..)
    }

    /// The seq of the newest message up to `seq`; 0 without such a message. `since` gives the same for both
    /// seqs.
    pub(super) fn last_before(&self, seq: Seq) -> Seq {
        let newer = self.past.partition_point(|past| past.seq <= seq);
        newer.checked_sub(1).map_or(Seq(0), |last| self.past[last].seq)
    }

    /// Returns true if `since(seq)` is everything sent to devices after `seq`.
    pub(super) fn is_whole_after(&self, seq: Seq) -> bool {
        seq >= self.whole_after
    }

    fn forget_oldest(&mut self) {
        let Some(past) = self.past.pop_front() else { return };
        self.bytes -= past.message.wire_bytes;
        self.whole_after = self.whole_after.max(past.seq);
        // A quiet room gives its memory back: there are tens of thousands of them.
        if self.past.is_empty() {
            self.past = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::now::Now;
    use crate::room::message::sample;

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let mut history = History::default();
        let now = Now::made_up().instant;
        for n in 1..=HISTORY_MESSAGES_MAX as u64 + 5 {
            history.push(Seq(n), Arc::new(sample("chat", "1")), now);
        }
        assert_eq!(history.since(Seq(0)).len(), HISTORY_MESSAGES_MAX);
        assert_eq!(history.since(Seq(0)).next().unwrap().seq, Seq(6));
        assert!(!history.is_whole_after(Seq(4)));
        assert!(history.is_whole_after(Seq(5)));
    }

    #[test]
    fn the_oldest_go_when_they_are_too_large_or_too_old() {
        let mut history = History::default();
        let now = Now::made_up().instant;
        let large = Message { wire_bytes: HISTORY_BYTES_MAX / 2, ..sample("chat", "1") };
        for n in 1..=3 {
            history.push(Seq(n), Arc::new(large.clone()), now);
        }
        assert_eq!(history.since(Seq(0)).len(), 2);
        history.push(Seq(4), Arc::new(sample("chat", "1")), now + HISTORY_AGE_MAX);
        history.age(now + HISTORY_AGE_MAX + Duration::from_millis(1));
        assert_eq!(history.since(Seq(0)).len(), 1);
    }
}
