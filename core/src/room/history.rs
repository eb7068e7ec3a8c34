//! The last messages of a room, for late joiners and for repair. Bounded in messages, bytes and age.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handed;
use super::id::Seq;
use super::message::Message;
use crate::limits::{HISTORY_AGE_MAX, HISTORY_BYTES_MAX, HISTORY_MESSAGES_MAX, HISTORY_PIECE_BYTES_MAX};
use crate::node_proto as pb;
use crate::now::millis;

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

/// Bytes of `,"seq":` and the largest seq, in the larger encoding.
const SEQ_WIRE_BYTES: usize = 7 + 16;
/// Bytes of a piece beside the messages: head, brackets and the WebSocket header, with room to spare.
const PIECE_HEAD_BYTES: usize = 300;

impl Past {
    /// Bytes of the message in a frame, in the larger encoding: an upper bound.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        self.message.wire_bytes + SEQ_WIRE_BYTES
    }
}

/// A history cut into a first part and pieces, so that no frame keeps others waiting for long.
#[derive(Debug, Default)]
pub struct CutHistory {
    /// The newest messages, oldest first.
    pub first: Vec<Past>,
    /// The older messages, the piece with the newest first. Oldest first within a piece.
    pub pieces: Vec<Vec<Past>>,
    /// A message too large for any piece was left out.
    pub left_out: bool,
}

/// Cuts a history (oldest first): the newest messages up to `first_bytes` on the wire, and pieces of
/// [`HISTORY_PIECE_BYTES_MAX`] of the others.
#[must_use]
pub fn cut_history(history: Vec<Past>, first_bytes: usize) -> CutHistory {
    let mut cut = CutHistory::default();
    let mut left = first_bytes;
    let mut is_first = true;
    let mut piece = Vec::new();
    for past in history.into_iter().rev() {
        let bytes = past.wire_bytes();
        is_first &= bytes <= left;
        if is_first {
            left -= bytes;
            cut.first.push(past);
            continue;
        }
        if bytes > HISTORY_PIECE_BYTES_MAX - PIECE_HEAD_BYTES {
            // At the slowest promised rate such a piece would keep a reliable message waiting for seconds.
            cut.left_out = true;
            continue;
        }
        if piece.is_empty() || bytes > left {
            cut.pieces.extend((!piece.is_empty()).then(|| std::mem::take(&mut piece)));
            left = HISTORY_PIECE_BYTES_MAX - PIECE_HEAD_BYTES;
        }
        left -= bytes;
        piece.push(past);
    }
    cut.pieces.extend((!piece.is_empty()).then_some(piece));
    cut.first.reverse();
    cut.pieces.iter_mut().for_each(|piece| piece.reverse());
    cut
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

    /// The history for the next home of the room, oldest first.
    pub(super) fn handed(&self, now: Instant) -> Vec<pb::ShownMessage> {
        let handed = |past: &Past| pb::ShownMessage {
            age_ms: millis(now.saturating_duration_since(past.at)),
            ..handed::message(past.seq, &past.message)
        };
        self.past.iter().map(handed).collect()
    }

    /// The seq behind which the history is whole.
    pub(super) fn whole_after(&self) -> Seq {
        self.whole_after
    }

    /// The history of a former home, as of the batch `head`. `None`: no home says so.
    pub(super) fn of_handed(
        said: Vec<pb::ShownMessage>,
        whole_after: Seq,
        head: Seq,
        now: Instant,
    ) -> Option<Self> {
        let mut history = Self { whole_after, ..Self::default() };
        for said in said {
            let age = Duration::from_millis(said.age_ms.min(millis(HISTORY_AGE_MAX)));
            let (seq, message) = handed::of_message(said, head)?;
            if history.past.back().is_some_and(|last| last.seq > seq) {
                return None;
            }
            // A machine that has just started has no moment as long ago.
            history.push(seq, Arc::new(message), now.checked_sub(age).unwrap_or(now));
        }
        Some(history)
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
    fn a_history_is_cut_into_pieces_newest_first_and_a_small_one_stays_whole() {
        let now = Now::made_up().instant;
        let of = |sizes: &[usize]| -> Vec<Past> {
            let past = |(seq, bytes): (u64, &usize)| Past {
                seq: Seq(seq),
                message: Arc::new(Message { wire_bytes: *bytes, ..sample("chat", "1") }),
                at: now,
            };
            (1..).zip(sizes).map(past).collect()
        };
        let seqs = |part: &[Past]| part.iter().map(|past| past.seq.0).collect::<Vec<_>>();
        let cut_of = |sizes: &[usize]| {
            let cut = cut_history(of(sizes), 10_000);
            let pieces: Vec<Vec<u64>> = cut.pieces.iter().map(|piece| seqs(piece)).collect();
            (seqs(&cut.first), pieces, cut.left_out)
        };
        assert_eq!(cut_of(&[3_000; 3]), (vec![1, 2, 3], vec![], false));
        assert_eq!(cut_of(&[3_000; 8]), (vec![6, 7, 8], vec![vec![4, 5], vec![2, 3], vec![1]], false));
        let sizes = [3_000, 16_000, 3_000, 9_000];
        assert_eq!(cut_of(&sizes), (vec![4], vec![vec![1, 3]], true), "a large message is in no piece");
        assert_eq!(cut_of(&[16_000]), (vec![], vec![], true));
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
