//! The rooms that a node keeps for takeovers: what the homes of other nodes have said of them last.
//!
//! A home says each of its rooms to the heir of its slot: whole at first, then the changes. The newest word counts, by
//! term and then by batch. A change on top of a word that never came is left out. The home says the room whole again
//! before long.
//!
//! Pure. The rooms have a bound in bytes: past it those that were not heard of for longest are forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use prost::Message as _;

use super::{Slot, Term};
use crate::limits::{KEPT_AGE_MAX, ROOM_STATE_BYTES_MAX};
use crate::node_proto as pb;
use crate::room::id::RoomName;

/// Bytes of a kept room, a total or a latest value in memory beside its words: an upper bound for usual names.
const BESIDE_WORDS_BYTES: usize = 256;

/// The rooms of other nodes' slots.
#[derive(Debug)]
pub struct KeptRooms {
    bytes_max: usize,
    rooms: BTreeMap<Slot, BTreeMap<RoomName, KeptRoom>>,
    /// Number of the last word -> its room: the longest unheard first.
    heard: BTreeMap<u64, (Slot, RoomName)>,
    /// The number of the last word.
    words: u64,
    /// Invariant: the sum of `bytes` over all rooms.
    bytes: usize,
    left_out: u64,
}

#[derive(Debug)]
struct KeptRoom {
    term: Term,
    /// Whole.
    state: pb::KeptRoom,
    bytes: usize,
    /// The number of the last word.
    word: u64,
    at: Instant,
}

impl KeptRooms {
    /// No rooms, and at most so many bytes of them.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, rooms: BTreeMap::new(), heard: BTreeMap::new(), words: 0, bytes: 0, left_out: 0 }
    }

    /// Takes the word of a home about a room of a slot, which it holds under `term`.
    pub fn keep(&mut self, slot: Slot, term: Term, room: &RoomName, mut said: pb::KeptRoom, now: Instant) {
        self.forget_old(now);
        let known = self.rooms.get(&slot).and_then(|rooms| rooms.get(room));
        let is_of_run = known.is_some_and(|known| known.state.run == said.run);
        let is_stale = known.is_some_and(|known| {
            term < known.term
                || term == known.term && is_of_run && said.seq != 0 && said.seq < known.state.seq
        });
        if is_stale {
            return;
        }
        if said.seq == 0 {
            return self.forget(slot, room);
        }
        if said.since > 0 {
            let Some(known) = known.filter(|known| is_of_run && known.state.seq >= said.since) else {
                // What was known, if anything, is older and whole.
                self.left_out += 1;
                return;
            };
            add(&known.state, &mut said);
        }
        own(&mut said);
        let bytes = size(&said);
        self.forget(slot, room);
        if bytes > ROOM_STATE_BYTES_MAX.min(self.bytes_max) {
            self.left_out += 1;
            return;
        }
        self.words += 1;
        let word = self.words;
        self.heard.insert(word, (slot, room.clone()));
        self.bytes += bytes;
        let kept = KeptRoom { term, state: said, bytes, word, at: now };
        self.rooms.entry(slot).or_default().insert(room.clone(), kept);
        while self.bytes > self.bytes_max && self.forget_oldest() {
            self.left_out += 1;
        }
    }

    /// Takes out the rooms of a slot: this node orders them from now on.
    pub fn take(&mut self, slot: Slot, now: Instant) -> Vec<pb::KeptRoom> {
        self.forget_old(now);
        let rooms = self.rooms.remove(&slot).unwrap_or_default();
        for kept in rooms.values() {
            self.bytes -= kept.bytes;
            self.heard.remove(&kept.word);
        }
        rooms.into_values().map(|kept| kept.state).collect()
    }

    /// Bytes of all rooms.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Words that were left out, and rooms that were forgotten for the bound, since the last call.
    pub fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }

    fn forget(&mut self, slot: Slot, room: &RoomName) {
        let Some(rooms) = self.rooms.get_mut(&slot) else { return };
        if let Some(kept) = rooms.remove(room) {
            self.bytes -= kept.bytes;
            self.heard.remove(&kept.word);
        }
        if rooms.is_empty() {
            self.rooms.remove(&slot);
        }
    }

    fn forget_oldest(&mut self) -> bool {
        let Some((_, (slot, room))) = self.heard.pop_first() else { return false };
        self.forget(slot, &room);
        true
    }

    /// Forgets rooms that nobody speaks of any more: their home has another heir, or has lost them.
    fn forget_old(&mut self, now: Instant) {
        while let Some((_, (slot, room))) = self.heard.first_key_value() {
            let kept = self.rooms.get(slot).and_then(|rooms| rooms.get(room));
            if kept.is_some_and(|kept| now.saturating_duration_since(kept.at) < KEPT_AGE_MAX) {
                return;
            }
            self.forget_oldest();
        }
    }
}

/// Adds what was known to the changes behind it.
fn add(known: &pb::KeptRoom, said: &mut pb::KeptRoom) {
    let totals: BTreeSet<&str> = said.totals.iter().map(|total| &*total.r#type).collect();
    let keys: BTreeSet<(&str, &str)> =
        said.latest.iter().map(|value| (&*value.r#type, &*value.key)).collect();
    let totals: Vec<_> =
        known.totals.iter().filter(|total| !totals.contains(&*total.r#type)).cloned().collect();
    let latest: Vec<_> =
        known.latest.iter().filter(|value| !keys.contains(&(&*value.r#type, &*value.key))).cloned().collect();
    said.totals.extend(totals);
    said.latest.extend(latest);
    said.since = 0;
}

/// Copies the payloads: each is a slice of a message with words about many rooms, and would keep all of it.
fn own(said: &mut pb::KeptRoom) {
    for value in &mut said.latest {
        value.payload = Bytes::copy_from_slice(&value.payload);
    }
}

fn size(said: &pb::KeptRoom) -> usize {
    said.encoded_len() + BESIDE_WORDS_BYTES * (1 + said.totals.len() + said.latest.len())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::now::Now;

    const SLOT: Slot = Slot(3);

    fn name(room: &str) -> RoomName {
        RoomName::parse(room).unwrap()
    }

    fn term(sequence: u64) -> Term {
        Term { generation: 0, sequence }
    }

    /// A word about one counter.
    fn said(run: u64, seq: u64, since: u64, likes: u64) -> pb::KeptRoom {
        let totals = vec![pb::KeptTotal { r#type: "like".into(), total: likes }];
        pb::KeptRoom { room: "r1".into(), run, seq, since, totals, latest: Vec::new() }
    }

    /// The seq and the likes of the only kept room.
    fn taken(kept: &mut KeptRooms, now: Instant) -> Option<(u64, u64)> {
        let rooms = kept.take(SLOT, now);
        assert!(rooms.len() < 2 && kept.bytes() == 0 && kept.heard.is_empty());
        rooms.first().map(|room| (room.seq, room.totals[0].total))
    }

    #[test]
    fn the_newest_word_counts_by_term_and_then_by_batch() {
        let now = Now::made_up().instant;
        let r1 = name("r1");
        let of = |words: &[(u64, pb::KeptRoom)]| {
            let mut kept = KeptRooms::new(10_000);
            for (sequence, word) in words {
                kept.keep(SLOT, term(*sequence), &r1, word.clone(), now);
            }
            taken(&mut kept, now)
        };
        assert_eq!(of(&[(1, said(7, 5, 0, 50)), (1, said(7, 4, 0, 40))]), Some((5, 50)));
        assert_eq!(of(&[(2, said(7, 5, 0, 50)), (1, said(8, 9, 0, 90))]), Some((5, 50)), "of a former home");
        assert_eq!(of(&[(1, said(7, 5, 0, 50)), (2, said(8, 2, 0, 20))]), Some((2, 20)));
        assert_eq!(of(&[(1, said(7, 5, 0, 50)), (1, said(8, 1, 0, 10))]), Some((1, 10)), "opened again");
        assert_eq!(of(&[(1, said(7, 5, 0, 50)), (1, said(7, 0, 0, 0))]), None, "ended");
        assert_eq!(of(&[(2, said(7, 5, 0, 50)), (1, said(7, 0, 0, 0))]), Some((5, 50)));
        assert_eq!(of(&[(1, said(7, 5, 0, 50)), (1, said(7, 6, 5, 60))]), Some((6, 60)));
    }

    #[test]
    fn a_change_on_top_of_a_word_that_never_came_leaves_the_older_whole() {
        let now = Now::made_up().instant;
        let mut kept = KeptRooms::new(10_000);
        kept.keep(SLOT, term(1), &name("r1"), said(7, 9, 5, 90), now);
        assert_eq!(kept.bytes(), 0);
        kept.keep(SLOT, term(1), &name("r1"), said(7, 5, 0, 50), now);
        kept.keep(SLOT, term(1), &name("r1"), said(7, 9, 8, 90), now);
        kept.keep(SLOT, term(1), &name("r1"), said(8, 9, 5, 90), now);
        assert_eq!(kept.take_left_out(), 3);
        assert_eq!(taken(&mut kept, now), Some((5, 50)));
    }

    #[test]
    fn rooms_past_the_bound_are_forgotten_the_longest_unheard_first() {
        let now = Now::made_up().instant;
        let one = size(&said(7, 5, 0, 50));
        let mut kept = KeptRooms::new(one * 10 + 1);
        for n in 0..30 {
            let word = said(7, 5, 0, n);
            kept.keep(Slot(u8::try_from(n % 2).unwrap()), term(1), &name(&format!("r{n}")), word, now);
            kept.keep(Slot(0), term(1), &name("r0"), said(7, 5 + n, 0, n), now);
            assert!(kept.bytes() <= kept.bytes_max as u64);
        }
        assert_eq!(kept.take_left_out(), 20);
        let mut left: Vec<u64> = kept.take(Slot(0), now).iter().map(|room| room.totals[0].total).collect();
        left.extend(kept.take(Slot(1), now).iter().map(|room| room.totals[0].total));
        left.sort_unstable();
        assert_eq!(left, [21, 22, 23, 24, 25, 26, 27, 28, 29, 29], "with r0, of which each word tells");
        let large = pb::KeptRoom { room: "x".repeat(one * 20), ..said(7, 5, 0, 50) };
        kept.keep(SLOT, term(1), &name("r1"), large, now);
        assert_eq!((kept.bytes(), kept.take_left_out()), (0, 1));
    }

    #[test]
    fn rooms_of_which_nobody_speaks_are_forgotten() {
        let mut now = Now::made_up().instant;
        let mut kept = KeptRooms::new(10_000);
        kept.keep(SLOT, term(1), &name("r1"), said(7, 5, 0, 50), now);
        now += KEPT_AGE_MAX - Duration::from_secs(1);
        kept.keep(SLOT, term(1), &name("r1"), said(7, 6, 5, 60), now);
        now += KEPT_AGE_MAX - Duration::from_secs(1);
        assert_eq!(taken(&mut kept, now), Some((6, 60)));
        kept.keep(SLOT, term(1), &name("r1"), said(7, 7, 0, 70), now);
        assert_eq!(taken(&mut kept, now + KEPT_AGE_MAX), None);
    }

    #[test]
    fn a_kept_value_holds_no_more_than_its_own_bytes() {
        let now = Now::made_up().instant;
        let message = Bytes::from(vec![b'1'; 60_000]);
        let value =
            pb::ShownMessage { r#type: "price".into(), payload: message.slice(..2), ..Default::default() };
        let mut kept = KeptRooms::new(10_000);
        let word = pb::KeptRoom { latest: vec![value], ..said(7, 5, 0, 50) };
        kept.keep(SLOT, term(1), &name("r1"), word, now);
        assert!(message.try_into_mut().is_ok(), "nobody holds the message");
    }
}
