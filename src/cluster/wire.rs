//! The words between nodes in bytes (`proto/cluster.proto`).
//!
//! A node reads the bytes of another node as a stranger's: names, numbers and sizes are checked here, so a shard
//! never sees a word that no shard can say. A word takes at most about 50 times its bytes in memory, and an
//! entry of a link has a bound.

mod calls;
mod codes;
mod control;
mod delivery;
mod frames;
mod hand_over;
mod keep;
mod numbers;
#[cfg(test)]
mod tests;

use std::time::Instant;

use bytes::Bytes;
use prost::Message;

use super::calls::{CallOutcome, NodeRequest};
use crate::shard::ways::NodeWord;
pub(super) use frames::{FramesSent, FramesTaken};
pub(super) use hand_over::HandOverSaid;
use roomcast_core::cluster::{Slot, Term};
use roomcast_core::limits::LINK_BUNDLED_BYTES_MAX;
use roomcast_core::node_proto as pb;
use roomcast_core::room::id::RoomName;

/// An entry of a link.
#[derive(Debug)]
pub(super) enum Word {
    /// A word of a shard.
    Node(NodeWord),
    /// A request for the doors.
    Call {
        /// The caller's number.
        number: u64,
        /// The request.
        request: NodeRequest,
    },
    /// The answer to a call.
    Answer {
        /// The number of the call.
        number: u64,
        /// The outcome.
        outcome: CallOutcome,
    },
    /// A word about the hand-over of a slot.
    HandOver {
        /// The slot.
        slot: Slot,
        /// The number of the attempt.
        attempt: u64,
        /// The word.
        said: HandOverSaid,
    },
    /// Rooms that this node would have after a takeover.
    Keep {
        /// The slot.
        slot: Slot,
        /// The term of the home.
        term: Term,
        /// The rooms.
        rooms: Vec<(RoomName, pb::KeptRoom)>,
    },
}

/// The bytes are no word of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadWord;

/// The bytes of a word of a shard. Ages are those at `now`.
pub(super) fn said(word: &NodeWord, frames: &mut FramesSent, now: Instant) -> Bytes {
    encode(match word {
        NodeWord::Joins { room, joins } => pb::word::Word::Joins(control::encode_joins(room, joins)),
        NodeWord::ToHome(control) => pb::word::Word::Control(control::encode(control)),
        NodeWord::ToBranch(delivery) => pb::word::Word::Delivery(delivery::encode(delivery, frames, now)),
        NodeWord::ResetTaken | NodeWord::Room { .. } | NodeWord::Keep(_) | NodeWord::Packed { .. } => {
            unreachable!("the exchange takes these words")
        }
    })
}

/// The bytes of a call.
pub(super) fn call(number: u64, request: &NodeRequest) -> Bytes {
    encode(pb::word::Word::Call(calls::encode_request(number, request)))
}

/// The bytes of an answer to a call.
pub(super) fn answer(number: u64, outcome: &CallOutcome) -> Bytes {
    encode(pb::word::Word::Answer(calls::encode_outcome(number, outcome)))
}

/// The bytes of a word about a hand-over.
pub(super) fn hand_over(slot: Slot, attempt: u64, said: HandOverSaid) -> Bytes {
    encode(pb::word::Word::HandOver(hand_over::encode(slot, attempt, said)))
}

/// The bytes of a word with rooms for the node that would take them over.
pub(super) fn keep(keep: pb::Keep) -> Bytes {
    encode(pb::word::Word::Keep(keep))
}

fn encode(word: pb::word::Word) -> Bytes {
    pb::Word { word: Some(word) }.encode_to_vec().into()
}

impl Word {
    /// Reads a word that came at `now`.
    ///
    /// # Errors
    /// [`BadWord`] for everything that no node says.
    pub(super) fn decode(entry: Bytes, frames: &mut FramesTaken, now: Instant) -> Result<Self, BadWord> {
        // Small entries share the bytes of a bundle.
        let shares = if entry.len() < LINK_BUNDLED_BYTES_MAX { usize::MAX } else { entry.len() };
        frames.begin_word(shares);
        let word = pb::Word::decode(entry).map_err(|_| BadWord)?.word.ok_or(BadWord)?;
        Ok(match word {
            pb::word::Word::Joins(joins) => Self::Node(control::decode_joins(&joins)?),
            pb::word::Word::Control(control) => Self::Node(NodeWord::ToHome(control::decode(control)?)),
            pb::word::Word::Delivery(delivery) => {
                Self::Node(NodeWord::ToBranch(delivery::decode(delivery, frames, now)?))
            }
            pb::word::Word::Call(call) => {
                Self::Call { number: call.number, request: calls::decode_request(call)? }
            }
            pb::word::Word::Answer(answer) => {
                Self::Answer { number: answer.number, outcome: calls::decode_outcome(answer)? }
            }
            pb::word::Word::HandOver(word) => hand_over::decode(word)?,
            pb::word::Word::Keep(word) => keep::decode(word)?,
        })
    }
}
