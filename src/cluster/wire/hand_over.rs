//! Words about the hand-over of a slot. The parts of a room check their own words, at the next home.

use super::{BadWord, Word, pb};
use pb::hand_over::Said;
use roomcast_core::cluster::{Slot, Term};
use roomcast_core::limits::{NODES_MAX, ROOM_STATE_BYTES_MAX, TERM_PART_MAX};

/// A word between the home of a slot and the next one.
#[derive(Debug)]
pub(in crate::cluster) enum HandOverSaid {
    /// A room of the slot.
    Room(Box<pb::RoomState>),
    /// All rooms have been said, by the home of this term.
    Offer(Term),
    /// The next home does not claim.
    Declined,
}

pub(super) fn encode(slot: Slot, attempt: u64, said: HandOverSaid) -> pb::HandOver {
    let said = match said {
        HandOverSaid::Room(state) => Said::Room(state),
        HandOverSaid::Offer(Term { generation, sequence }) => Said::Offer(pb::Term { generation, sequence }),
        HandOverSaid::Declined => Said::Declined(pb::Nothing {}),
    };
    pb::HandOver { slot: slot.0.into(), attempt, said: Some(said) }
}

pub(super) fn decode(word: pb::HandOver) -> Result<Word, BadWord> {
    let pb::HandOver { slot, attempt, said } = word;
    let slot = u8::try_from(slot).map(Slot).map_err(|_| BadWord)?;
    let said = match said.ok_or(BadWord)? {
        Said::Room(state) => {
            let fits = prost::Message::encoded_len(&state) <= ROOM_STATE_BYTES_MAX;
            if !fits || state.places.len() > NODES_MAX + 1 {
                return Err(BadWord);
            }
            HandOverSaid::Room(state)
        }
        Said::Offer(pb::Term { generation, sequence }) => {
            if generation.max(sequence) > TERM_PART_MAX {
                return Err(BadWord);
            }
            HandOverSaid::Offer(Term { generation, sequence })
        }
        Said::Declined(pb::Nothing {}) => HandOverSaid::Declined,
    };
    Ok(Word::HandOver { slot, attempt, said })
}
