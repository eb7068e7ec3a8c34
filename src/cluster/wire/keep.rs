//! Words with rooms for the node that would take them over. A room that begins with them checks its own words.

use super::{BadWord, Word, pb};
use roomcast_core::cluster::{Slot, Term};
use roomcast_core::limits::{INTEGER_MAX, KEEP_WORD_ROOMS_MAX, TERM_PART_MAX};
use roomcast_core::room::id::RoomName;

pub(super) fn decode(word: pb::Keep) -> Result<Word, BadWord> {
    let pb::Keep { slot, term, rooms } = word;
    let slot = u8::try_from(slot).map(Slot).map_err(|_| BadWord)?;
    let pb::Term { generation, sequence } = term.ok_or(BadWord)?;
    if generation.max(sequence) > TERM_PART_MAX || !(1..=KEEP_WORD_ROOMS_MAX).contains(&rooms.len()) {
        return Err(BadWord);
    }
    let room = |said: pb::KeptRoom| {
        let name = RoomName::parse(&said.room).map_err(|_| BadWord)?;
        if said.seq.max(said.since) <= INTEGER_MAX { Ok((name, said)) } else { Err(BadWord) }
    };
    let rooms = rooms.into_iter().map(room).collect::<Result<_, _>>()?;
    Ok(Word::Keep { slot, term: Term { generation, sequence }, rooms })
}
