//! The turns of appends: those of a stream leave together, a bounded number at a time, and the next ones leave once
//! all of them are answered or given up. Pure.
//!
//! The servers agree on what comes together in one round, and sync it once. Were all slots of a stream to append at
//! once, a slow disk would answer the last of them behind the patience of its slot. The slot would claim again, and
//! so would the others, which makes the disk's work more.

use std::collections::VecDeque;

use roomcast_core::cluster::Slot;
use roomcast_core::limits::{LOG_STREAM_APPENDS_MAX, LOG_STREAMS};

use super::ops::{LogOp, OpId};

/// The appends of all slots on their way to JetStream.
#[derive(Debug, Default)]
pub(super) struct AppendTurns {
    streams: [StreamTurns; LOG_STREAMS],
}

/// The appends of a stream. A slot has one of them that counts; of the others its machine awaits no answer.
#[derive(Debug, Default)]
struct StreamTurns {
    under_way: Vec<(Slot, OpId)>,
    /// Appends in line that leave with those under way.
    leaving: usize,
    waiting: VecDeque<LogOp>,
}

impl AppendTurns {
    /// Puts an append at the end of its stream's line.
    pub(super) fn wait(&mut self, op: LogOp) {
        self.stream(op.slot).waiting.push_back(op);
    }

    /// Ends the turn of an append that was answered.
    pub(super) fn end(&mut self, slot: Slot, id: OpId) {
        self.stream(slot).under_way.retain(|turn| turn.1 != id);
    }

    /// The next append whose turn has come. An append that no machine awaits has no turn.
    pub(super) fn next(&mut self, is_awaited: impl Fn(Slot, OpId) -> bool) -> Option<LogOp> {
        self.streams.iter_mut().find_map(|stream| {
            stream.waiting.retain(|op| is_awaited(op.slot, op.id));
            stream.under_way.retain(|(slot, id)| is_awaited(*slot, *id));
            if stream.under_way.is_empty() {
                stream.leaving = stream.waiting.len().min(LOG_STREAM_APPENDS_MAX);
            }
            stream.leaving = stream.leaving.checked_sub(1)?;
            let op = stream.waiting.pop_front()?;
            stream.under_way.push((op.slot, op.id));
            Some(op)
        })
    }

    fn stream(&mut self, slot: Slot) -> &mut StreamTurns {
        &mut self.streams[slot.index() % LOG_STREAMS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::jetstream::ops::LogOpKind;
    use std::collections::BTreeSet;

    fn op(slot: u8, id: u64) -> LogOp {
        LogOp { id: OpId(id), slot: Slot(slot), kind: LogOpKind::Last }
    }

    /// The slots whose appends leave.
    fn leave(turns: &mut AppendTurns, given_up: &BTreeSet<u64>) -> Vec<u8> {
        let next = || turns.next(|_, OpId(id)| !given_up.contains(&id)).map(|op| op.slot.0);
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn the_appends_of_a_stream_leave_together_and_the_others_follow_in_order() {
        let mut turns = AppendTurns::default();
        let slots: Vec<u8> = (0..16).map(|n| n * 8).collect();
        slots.iter().for_each(|slot| turns.wait(op(*slot, u64::from(*slot))));
        turns.wait(op(1, 1));
        let mut given_up = BTreeSet::new();
        let (first, rest) = slots.split_at(LOG_STREAM_APPENDS_MAX);
        assert_eq!(leave(&mut turns, &given_up), [first, &[1]].concat(), "each stream has its own line");
        turns.end(Slot(1), OpId(1));
        let (last, others) = first.split_last().expect("some left");
        for slot in others {
            turns.end(Slot(*slot), OpId(u64::from(*slot)));
            assert!(leave(&mut turns, &given_up).is_empty(), "one is under way");
        }
        // A given up append is under way no more, and leaves no more.
        given_up.extend([u64::from(*last), u64::from(rest[1])]);
        assert_eq!(leave(&mut turns, &given_up), [&rest[..1], &rest[2..]].concat());
        assert!(leave(&mut turns, &given_up).is_empty());
    }
}
