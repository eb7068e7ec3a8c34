//! The homes and takeovers. A home says the totals and latest values of its rooms to the heir of their slot, the node
//! that would take the slot over. A node that takes a slot over opens the rooms that were said to it.
//!
//! The heir gets each room whole at first, then the changes, and the whole again once in `KEEP_RENEWAL`. The changes of
//! a slot leave together, once in `KEEP_INTERVAL` at most. The end of a room is said at once: a closed room must not
//! come back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use prost::Message as _;

use super::{Homes, Opener};
use crate::shard::TURN_ENTRIES_MAX;
use crate::shard::ways::{NodeWord, ToNode};
use roomcast_core::cluster::{NodeKey, Slot, SlotHome, Term};
use roomcast_core::limits::{KEEP_INTERVAL, KEEP_RENEWAL, KEEP_WORD_BYTES_MAX, KEEP_WORD_ROOMS_MAX};
use roomcast_core::node_proto::{self as pb, Keep, KeptRoom};
use roomcast_core::now::Now;
use roomcast_core::room::id::{RoomName, Run, Seq, mix};
use roomcast_core::room::{Input, Room};

/// The rooms of this shard that their heirs know, or are to know.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    slots: BTreeMap<Slot, KeepingSlot>,
    /// The next word, or an earlier moment.
    due: Option<Instant>,
    /// Slots with news since the last look.
    is_touched: bool,
}

#[derive(Debug, Default)]
struct KeepingSlot {
    /// Room -> the batch up to which the heir knows it; 0: not at all.
    rooms: BTreeMap<usize, Seq>,
    /// Rooms that the heir does not know as they are.
    changed: BTreeSet<usize>,
    /// Rooms that have ended, and that the heir knows.
    ended: BTreeSet<RoomName>,
    /// The last word.
    said_at: Option<Instant>,
    renew_at: Option<Instant>,
}

impl KeepingSlot {
    fn due(&self, now: Instant) -> Option<Instant> {
        let changed = (!self.changed.is_empty()).then(|| self.changes_due(now));
        let ended = (!self.ended.is_empty()).then_some(now);
        changed.into_iter().chain(ended).chain(self.renew_at).min()
    }

    fn changes_due(&self, now: Instant) -> Instant {
        self.said_at.map_or(now, |at| at + KEEP_INTERVAL)
    }

    /// The heir knows nothing, and hears of all rooms at once.
    fn begin_anew(&mut self) {
        self.said_at = None;
        self.say_whole();
    }

    fn say_whole(&mut self) {
        self.rooms.values_mut().for_each(|known| *known = Seq(0));
        self.changed = self.rooms.keys().copied().collect();
    }
}

impl Keeping {
    /// The moment of the next look.
    pub(super) fn poll_deadline(&self) -> Option<Instant> {
        self.due
    }

    /// All rooms.
    pub(super) fn rooms(&self) -> impl Iterator<Item = usize> {
        self.slots.values().flat_map(|slot| slot.rooms.keys().copied())
    }

    /// A room is no more.
    pub(super) fn end(&mut self, slot: Slot, key: usize, room: &RoomName) {
        let Some(of_slot) = self.slots.get_mut(&slot) else { return };
        of_slot.changed.remove(&key);
        // Known or not: the heir may have heard of the room before its link began anew.
        if of_slot.rooms.remove(&key).is_some() {
            of_slot.ended.insert(room.clone());
            self.is_touched = true;
        }
    }
}

impl Homes {
    /// A room has changed in a way that its heir is to know.
    pub(super) fn note_kept(&mut self, key: usize) {
        let Some(nodes) = &self.nodes else { return };
        let slot = nodes.slot_of(self.rooms[key].room.name());
        let of_slot = self.keeping.slots.entry(slot).or_default();
        of_slot.rooms.entry(key).or_default();
        // Otherwise a word is due already.
        self.keeping.is_touched |= of_slot.changed.insert(key);
    }

    /// The link to a node begins anew, and words on their way are lost: its rooms are said anew.
    pub(super) fn say_kept_anew(&mut self, node: NodeKey) {
        let Some(nodes) = &self.nodes else { return };
        let is_heir = |slot: &Slot| nodes.heir_of(*slot).is_some_and(|(heir, _)| heir == node);
        self.keeping.slots.iter_mut().filter(|(slot, _)| is_heir(slot)).for_each(|(_, one)| one.begin_anew());
        self.keeping.is_touched = true;
    }

    /// Some slots have another heir.
    pub(in crate::shard) fn follow_heirs(&mut self, is_changed: impl Fn(Slot) -> bool) {
        let changed = self.keeping.slots.iter_mut().filter(|(slot, _)| is_changed(**slot));
        changed.for_each(|(_, one)| one.begin_anew());
        self.keeping.is_touched = true;
    }

    /// The slots that this node orders no longer.
    pub(in crate::shard) fn forget_keeping(&mut self, is_lost: impl Fn(Slot) -> bool) {
        self.keeping.slots.retain(|slot, _| !is_lost(*slot));
    }

    /// Says changed rooms to their heirs, a turn's worth. True if more are due.
    pub(in crate::shard) fn say_kept(&mut self, now: Now) -> bool {
        let at = now.instant;
        let is_due = self.keeping.is_touched || self.keeping.due.is_some_and(|due| due <= at);
        // The heirs of a node that drains hear of its rooms by their hand-over.
        if !is_due || self.is_draining {
            return false;
        }
        let is_due = |one: &KeepingSlot| one.due(at).is_some_and(|due| due <= at);
        let due = self.keeping.slots.iter().filter(|(_, one)| is_due(one)).map(|(slot, _)| *slot);
        let mut said = 0;
        for slot in due.collect::<Vec<_>>() {
            if said >= TURN_ENTRIES_MAX {
                return true;
            }
            said += self.say_slot(slot, now);
        }
        self.keeping.is_touched = false;
        self.keeping.due = self.keeping.slots.values().filter_map(|one| one.due(at)).min();
        false
    }

    /// Says the news of a slot to its heir. Returns the number of rooms.
    fn say_slot(&mut self, slot: Slot, now: Now) -> usize {
        let Self { keeping, nodes: Some(nodes), rooms, .. } = self else { return 0 };
        let Some(one) = keeping.slots.get_mut(&slot) else { return 0 };
        if one.renew_at.is_none_or(|at| at <= now.instant) {
            // Slots that have begun together are not said whole together again.
            let shift = KEEP_RENEWAL * u32::from(slot.0) / 512;
            let pause = if one.renew_at.is_none() { KEEP_RENEWAL - shift } else { KEEP_RENEWAL };
            one.renew_at = Some(now.instant + pause);
            one.say_whole();
        }
        let ended = std::mem::take(&mut one.ended);
        let mut changed = BTreeSet::new();
        let heir = nodes.heir_of(slot);
        if one.changes_due(now.instant) <= now.instant {
            one.said_at = Some(now.instant);
            // A new heir has all rooms said anew.
            if heir.is_some() {
                changed = std::mem::take(&mut one.changed);
            }
        }
        let Some((heir, term)) = heir else { return 0 };
        let count = changed.len() + ended.len();
        let mut words = KeepWords::new(slot, term);
        for room in ended {
            // First: a room of the same name may have begun.
            words.push(KeptRoom { room: room.as_str().into(), ..KeptRoom::default() });
        }
        for key in changed {
            let room = &rooms[key].room;
            let Some(known) = one.rooms.get_mut(&key) else { continue };
            words.push(room.kept(*known));
            *known = room.seq();
        }
        for keep in words.all {
            nodes.send(ToNode { node: heir, word: NodeWord::Keep(Box::new(keep)) });
        }
        if one.rooms.is_empty() {
            keeping.slots.remove(&slot);
        }
        count
    }

    /// Keeps rooms of another node, which holds their slot under `term`.
    pub(in crate::shard) fn keep(
        &mut self,
        slot: Slot,
        term: Term,
        rooms: Vec<(RoomName, KeptRoom)>,
        now: Now,
    ) {
        let Some(nodes) = &self.nodes else { return };
        for (name, said) in rooms {
            // A late word of a former home, or of a node that has another idea of the slots.
            if nodes.is_own(slot) || nodes.slot_of(&name) != slot {
                self.tally.rooms.stale_words += 1;
                continue;
            }
            self.kept.keep(slot, term, &name, said, now.instant);
        }
    }

    /// Opens the rooms of a slot that this node has heard of: it orders them from now on.
    pub(in crate::shard) fn open_kept(&mut self, slot: Slot, now: Now) {
        for state in self.kept.take(slot, now.instant) {
            self.runs += 1;
            let run = Run(mix(self.plan.run_seed.wrapping_add(self.runs)));
            let made = Room::of_kept(state, run, self.plan.rules, now);
            let is_open = |room: &Room| self.room_of.contains_key(room.name());
            let Ok(room) = made else {
                self.tally.rooms.stale_words += 1;
                continue;
            };
            if is_open(&room) {
                continue;
            }
            if self.rooms.len() >= self.plan.rooms_max {
                self.tally.kept_left_out += 1;
                continue;
            }
            let key = self.insert_room(room, Opener::Publisher);
            self.note_kept(key);
            let home = self.nodes.as_ref().map(|nodes| nodes.home_of(self.rooms[key].room.name()));
            if home == Some(SlotHome::Frozen) {
                self.tell_room(key, Input::Freeze(true), now);
            }
            self.take_outputs(key, now);
        }
    }
}

/// Rooms of a slot, in as many words as they need.
struct KeepWords {
    slot: Slot,
    term: Term,
    all: Vec<Keep>,
    /// Bytes of the last word.
    bytes: usize,
}

impl KeepWords {
    fn new(slot: Slot, term: Term) -> Self {
        Self { slot, term, all: Vec::new(), bytes: 0 }
    }

    fn push(&mut self, room: KeptRoom) {
        let bytes = room.encoded_len();
        let is_full =
            |last: &Keep| self.bytes + bytes > KEEP_WORD_BYTES_MAX || last.rooms.len() >= KEEP_WORD_ROOMS_MAX;
        match self.all.last_mut() {
            Some(last) if !is_full(last) => {
                self.bytes += bytes;
                last.rooms.push(room);
            }
            _ => {
                let Term { generation, sequence } = self.term;
                let term = Some(pb::Term { generation, sequence });
                self.bytes = bytes;
                self.all.push(Keep { slot: self.slot.0.into(), term, rooms: vec![room] });
            }
        }
    }
}
