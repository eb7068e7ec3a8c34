//! The homes and the hand-over of slots: rooms that settle and are said to their next home, and rooms that come from
//! a former one.
//!
//! A room is *packed* in three steps. It flushes what waits in it. It pauses, and each node with members answers
//! behind its earlier words; segments of this node tell their members. Then its state is final, and goes to the next
//! home. A branch stands in for the room here, and its segments speak to the branch from then on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use prost::Message as _;

use super::{HomeRoom, Homes, Opener};
use crate::shard::lane::{Control, Delivery, HomeSaid};
use crate::shard::slots::SlotArrival;
use crate::shard::ways::{NodeWord, OWN_PLACE, ToNode};
use roomcast_core::cluster::{HandedIn, HandedOut, NodeKey, Slot, SlotHome, node_of_place};
use roomcast_core::limits::{ARRIVING_AGE_MAX, ARRIVING_BYTES_MAX, SLOT_STATES_BYTES_MAX};
use roomcast_core::node_proto::RoomState;
use roomcast_core::now::Now;
use roomcast_core::room::id::{RoomName, Run};
use roomcast_core::room::ladder::Step;
use roomcast_core::room::{Input, Room};

/// A slot whose rooms are said to its next home.
#[derive(Debug)]
pub(super) struct Leaving {
    to: NodeKey,
    attempt: u64,
    /// Rooms that are not said yet.
    left: VecDeque<RoomName>,
    /// Bytes of the rooms that were said.
    bytes: usize,
    /// False: a room could not be said, and begins another run at its next home.
    is_whole: bool,
    /// True: the cluster's thread knows that all are said.
    is_told: bool,
}

/// The pause of a room before its hand-over.
#[derive(Debug)]
pub(super) struct Pausing {
    /// The number of the attempt.
    attempt: u64,
    /// Places without an answer.
    awaited: BTreeSet<usize>,
    /// The next home that was told the room.
    said_to: Option<NodeKey>,
    /// A branch stands in for the room, which has members here.
    is_stood_in: bool,
}

impl Pausing {
    /// True if a branch stands in for the room.
    pub(super) fn is_stood_in(&self) -> bool {
        self.is_stood_in
    }
}

/// The rooms of slots that this node may get. Bounded by `ARRIVING_BYTES_MAX` and `ARRIVING_AGE_MAX`.
#[derive(Debug, Default)]
pub(super) struct Arriving {
    rooms: BTreeMap<Slot, Vec<ArrivingRoom>>,
    bytes: usize,
}

#[derive(Debug)]
struct ArrivingRoom {
    from: SlotArrival,
    at: Instant,
    state: Box<RoomState>,
}

impl Arriving {
    /// Drops the rooms for which `is_over` holds.
    fn drop_if(&mut self, is_over: impl Fn(&ArrivingRoom) -> bool) {
        for rooms in self.rooms.values_mut() {
            for dropped in rooms.extract_if(.., |room| is_over(room)) {
                self.bytes -= dropped.state.encoded_len();
            }
        }
        self.rooms.retain(|_, rooms| !rooms.is_empty());
    }

    /// Takes out the rooms of a slot.
    fn take_slot(&mut self, slot: Slot) -> Vec<ArrivingRoom> {
        let rooms = self.rooms.remove(&slot).unwrap_or_default();
        self.bytes -= rooms.iter().map(|room| room.state.encoded_len()).sum::<usize>();
        rooms
    }
}

impl Homes {
    /// Begins to settle the rooms of a slot for its next home.
    pub(in crate::shard) fn hand_over(&mut self, slot: Slot, to: NodeKey, attempt: u64) {
        // A late word: the slot is lost by now.
        let Some(nodes) = self.nodes.as_ref().filter(|nodes| nodes.still_holds(slot)) else { return };
        let of_slot = self.rooms.iter().filter(|(_, home)| nodes.slot_of(home.room.name()) == slot);
        let left = of_slot.map(|(_, home)| home.room.name().clone()).collect();
        self.leaving_slots
            .insert(slot, Leaving { to, attempt, left, bytes: 0, is_whole: true, is_told: false });
    }

    /// True while slots are handed over.
    pub(in crate::shard) fn has_leaving(&self) -> bool {
        !self.leaving_slots.is_empty()
    }

    /// True while rooms settle.
    pub(in crate::shard) fn is_packing(&self) -> bool {
        self.leaving_slots.values().any(|leaving| !leaving.is_told)
    }

    /// True if the room's slot is being handed over: nothing changes in its rooms.
    pub(super) fn is_leaving(&self, room: &RoomName) -> bool {
        !self.leaving_slots.is_empty()
            && self.nodes.as_ref().is_some_and(|nodes| self.leaving_slots.contains_key(&nodes.slot_of(room)))
    }

    /// True if a join of the room is for its next home.
    pub(super) fn joins_next_home(&self, room: &RoomName) -> bool {
        let is_open = |key: &usize| self.rooms[*key].pausing.is_none();
        self.is_leaving(room) && !self.room_of.get(room).is_some_and(is_open)
    }

    /// Goes on with the rooms that settle.
    pub(in crate::shard) fn pack_rooms(&mut self, now: Now) {
        let slots: Vec<Slot> = self.leaving_slots.keys().copied().collect();
        for slot in slots {
            let Some(leaving) = self.leaving_slots.get_mut(&slot).filter(|leaving| !leaving.is_told) else {
                continue;
            };
            let Leaving { to, attempt, .. } = *leaving;
            for room in std::mem::take(&mut leaving.left) {
                if !self.pack_room(slot, &room, now)
                    && let Some(leaving) = self.leaving_slots.get_mut(&slot)
                {
                    leaving.left.push_back(room);
                }
            }
            let is_done = |leaving: &&mut Leaving| leaving.left.is_empty();
            if let Some(leaving) = self.leaving_slots.get_mut(&slot).filter(is_done) {
                leaving.is_told = true;
                let is_whole = leaving.is_whole;
                self.send_word(to, NodeWord::Packed { slot, attempt, is_whole });
            }
        }
    }

    /// Goes on with a room that settles. True: nothing is left to be done for it.
    fn pack_room(&mut self, slot: Slot, name: &RoomName, now: Now) -> bool {
        let Some(key) = self.room_of.get(name).copied() else { return true };
        if self.rooms[key].pausing.is_none() {
            self.tell_room(key, Input::Flush, now);
            // The room may have ended with its last words.
            if self.room_of.get(name) != Some(&key) {
                return true;
            }
            if !self.rooms[key].room.is_settled() {
                return false;
            }
            self.pause(key, slot, now);
        }
        let is_answered = |pausing: &Pausing| pausing.awaited.is_empty();
        // The last words of members may have asked the store for something.
        let is_settled = self.rooms[key].room.is_settled();
        if !is_settled || !self.rooms[key].pausing.as_ref().is_some_and(is_answered) {
            return false;
        }
        let is_said = self.say_room(slot, key, now);
        if let Some(leaving) = self.leaving_slots.get_mut(&slot) {
            leaving.is_whole &= is_said;
        }
        true
    }

    /// Pauses a settled room. Each node with members is to answer, and each segment here.
    fn pause(&mut self, key: usize, slot: Slot, now: Now) {
        let attempt = self.leaving_slots.get(&slot).map_or(0, |leaving| leaving.attempt);
        self.tell_room(key, Input::Pause(true), now);
        let places = self.rooms[key].room.segments().map(|(place, _)| place);
        let awaited: BTreeSet<usize> = places.collect();
        for place in &awaited {
            self.deliver(key, *place, HomeSaid::Pause { attempt });
        }
        self.rooms[key].pausing = Some(Pausing { attempt, awaited, said_to: None, is_stood_in: false });
    }

    /// Says a paused room to its next home. False: its words have no place.
    fn say_room(&mut self, slot: Slot, key: usize, now: Now) -> bool {
        let Some(leaving) = self.leaving_slots.get(&slot) else { return false };
        let Leaving { to, attempt, bytes, .. } = *leaving;
        let home = &mut self.rooms[key];
        let place = |place| u64::try_from(place).ok();
        let Ok(mut state) = home.room.hand_over(place, OWN_PLACE, &self.plan.rules, now) else {
            return false;
        };
        state.own_step = home.own_step.map_or(0, |step| u32::from(step.number()) + 1);
        let bytes = bytes + state.encoded_len();
        if bytes > SLOT_STATES_BYTES_MAX {
            return false;
        }
        let room = &home.room;
        let segments: Vec<_> = room.segments().filter(|(place, _)| node_of_place(*place).is_none()).collect();
        if let Some(pausing) = &mut home.pausing {
            pausing.said_to = Some(to);
            pausing.is_stood_in = !segments.is_empty();
        }
        if !segments.is_empty() {
            let out = HandedOut { to, run: room.run(), epoch: room.epoch(), seq: room.seq(), segments };
            self.handed_out.push_back((room.name().clone(), out));
        }
        if let Some(leaving) = self.leaving_slots.get_mut(&slot) {
            leaving.bytes = bytes;
        }
        self.send_word(to, NodeWord::Room { slot, attempt, state: Box::new(state) });
        true
    }

    /// The next room for which a branch is to stand in.
    pub(in crate::shard) fn poll_handed_out(&mut self) -> Option<(RoomName, HandedOut)> {
        self.handed_out.pop_front()
    }

    /// True if the words of the room's segments here are for the branch that stands in for it.
    pub(in crate::shard) fn is_stood_in(&self, room: &RoomName) -> bool {
        let is_stood_in =
            |key: &usize| self.rooms[*key].pausing.as_ref().is_some_and(|pausing| pausing.is_stood_in);
        !self.leaving_slots.is_empty() && self.room_of.get(room).is_some_and(is_stood_in)
    }

    fn send_word(&mut self, node: NodeKey, word: NodeWord) {
        if let Some(nodes) = &mut self.nodes {
            nodes.send(ToNode { node, word });
        }
    }

    /// True if a node has not answered that its members go on with the room.
    pub(super) fn is_unconfirmed(&self, room: &RoomName, place: usize) -> bool {
        self.room_of.get(room).is_some_and(|key| self.rooms[*key].unconfirmed.contains(&place))
    }

    /// A node has answered the pause of a room, or that its members go on. `None`: the node is lost.
    pub(super) fn note_paused(&mut self, key: usize, place: usize, attempt: Option<u64>) {
        self.rooms[key].unconfirmed.remove(&place);
        let pausing = self.rooms[key].pausing.as_mut();
        // The answer to an earlier pause says nothing about the words since.
        let is_one = |pausing: &&mut Pausing| attempt.is_none_or(|attempt| attempt == pausing.attempt);
        if let Some(pausing) = pausing.filter(is_one) {
            pausing.awaited.remove(&place);
        }
    }

    /// Has the rooms of a slot go on: it is not handed over. `hand_in` takes out the branch that stands in for a room.
    pub(in crate::shard) fn resume(
        &mut self,
        slot: Slot,
        mut hand_in: impl FnMut(&RoomName, Run) -> HandedIn,
        now: Now,
    ) {
        // Otherwise another node orders the rooms by now, and they end with the next look at the slots.
        let Some(nodes) = self.nodes.as_ref().filter(|nodes| nodes.still_holds(slot)) else { return };
        self.leaving_slots.remove(&slot);
        let is_paused = |home: &HomeRoom| home.pausing.is_some() && nodes.slot_of(home.room.name()) == slot;
        let keys = self.rooms.iter().filter(|(_, home)| is_paused(home)).map(|(key, _)| key);
        for key in keys.collect::<Vec<_>>() {
            let is_stood_in = self.rooms[key].pausing.take().is_some_and(|pausing| pausing.is_stood_in);
            let name = self.rooms[key].room.name().clone();
            let run = self.rooms[key].room.run();
            let here = if is_stood_in { hand_in(&name, run) } else { HandedIn::default() };
            let is_lost = is_stood_in && here.segments.is_empty() && here.words.is_empty();
            let places: Vec<usize> = self.rooms[key].room.segments().map(|(place, _)| place).collect();
            for place in places {
                if node_of_place(place).is_some() {
                    self.deliver(key, place, HomeSaid::Resumed);
                } else if is_lost {
                    // Its members have gone on with the next home.
                    self.tell_room(key, Input::PlaceLost { place }, now);
                }
            }
            self.tell_room(key, Input::Pause(false), now);
            for (shard, said) in here.words {
                self.take_control(shard, Control { room: name.clone(), run: Some(run), said }, now);
            }
        }
        // Those of other slots are held again.
        for (shard, control) in std::mem::take(&mut self.held_joins) {
            self.take_control(shard, control, now);
        }
    }

    /// The slots that this node no longer hands over.
    pub(in crate::shard) fn forget_leaving(&mut self, is_lost: impl Fn(Slot) -> bool) {
        self.leaving_slots.retain(|slot, _| !is_lost(*slot));
        let Some(nodes) = &self.nodes else { return };
        let is_over = |(_, control): &(usize, Control)| is_lost(nodes.slot_of(&control.room));
        let (over, held) = std::mem::take(&mut self.held_joins).into_iter().partition(is_over);
        self.held_joins = held;
        self.gave_back.extend::<VecDeque<_>>(over);
    }

    /// True if the nodes with members of a room hear of it from its next home, and not from this node.
    pub(super) fn is_handed(&self, home: &HomeRoom) -> bool {
        let next = home.pausing.as_ref().and_then(|pausing| pausing.said_to);
        let stands = self.nodes.as_ref().map(|nodes| nodes.home_of(home.room.name()));
        next.is_some_and(|next| stands == Some(SlotHome::There(next)))
    }

    /// Keeps a room that this node may get.
    pub(in crate::shard) fn arrive(
        &mut self,
        from: SlotArrival,
        slot: Slot,
        state: Box<RoomState>,
        now: Now,
    ) {
        let at = now.instant;
        self.arriving.drop_if(|room| at.saturating_duration_since(room.at) >= ARRIVING_AGE_MAX);
        // An earlier attempt was given up: its rooms would take the place of these.
        let rooms = self.arriving.rooms.get(&slot);
        let is_earlier =
            |room: &ArrivingRoom| room.from.node == from.node && room.from.attempt < from.attempt;
        if rooms.is_some_and(|rooms| rooms.iter().any(is_earlier)) {
            self.arriving.take_slot(slot);
        }
        let bytes = self.arriving.bytes + state.encoded_len();
        if bytes > ARRIVING_BYTES_MAX {
            // The room lives anew here, if the slot comes.
            self.tally.rooms.stale_words += 1;
            return;
        }
        self.arriving.bytes = bytes;
        self.arriving.rooms.entry(slot).or_default().push(ArrivingRoom { from, at, state });
    }

    /// Drops the rooms of a node that is lost.
    pub(in crate::shard) fn drop_arriving(&mut self, node: NodeKey) {
        self.arriving.drop_if(|room| room.from.node == node);
    }

    /// The rooms that came with a slot.
    pub(in crate::shard) fn take_arrived(&mut self, slot: Slot, from: SlotArrival) -> Vec<RoomState> {
        let rooms = self.arriving.take_slot(slot);
        let of_offer = rooms.into_iter().filter(|room| room.from == from);
        of_offer.map(|room| *room.state).collect()
    }

    /// Goes on with a room of a former home. True: the segments here have their home here from now on.
    pub(in crate::shard) fn adopt(&mut self, state: RoomState, here: &HandedIn, now: Now) -> bool {
        let own_step =
            state.own_step.checked_sub(1).and_then(|number| Step::numbered(u8::try_from(number).ok()?));
        let opener = if state.is_published { Opener::Publisher } else { Opener::Device };
        let place = |place: u64| usize::try_from(place).ok().filter(|place| node_of_place(*place).is_some());
        let made = Room::of_handed(state, place, OWN_PLACE, &here.segments, self.plan.rules, now);
        let Ok(room) = made else {
            self.tally.rooms.stale_words += 1;
            return false;
        };
        if self.room_of.contains_key(room.name()) {
            return false;
        }
        let members_here = here.segments.iter().map(|segment| segment.census.members()).sum::<u64>();
        let takes_here = room.local_members() == members_here;
        let seq = room.seq();
        let name = room.name().clone();
        let run = room.run();
        let places = room.segments().map(|(place, _)| place);
        let unconfirmed = places.filter(|place| node_of_place(*place).is_some()).collect();
        let key = self.insert_room(room, opener);
        self.rooms[key].unconfirmed = unconfirmed;
        if self.rooms[key].room.has_to_keep() {
            self.note_kept(key);
        }
        if self.nodes.as_ref().is_some_and(|nodes| nodes.home_of(&name) == SlotHome::Frozen) {
            self.tell_room(key, Input::Freeze(true), now);
        }
        if own_step.is_some() {
            self.set_own_step(&name, own_step, now);
        }
        if takes_here && here.seq < seq {
            for segment in &here.segments {
                let said = HomeSaid::Gap { seq };
                self.send(segment.shard, Delivery { room: name.clone(), run, said });
            }
        }
        self.feed_heat(key, now.instant);
        self.take_outputs(key, now);
        takes_here
    }

    /// Has the members of segments join again, which this node's rooms do not count.
    pub(in crate::shard) fn move_segments(&mut self, room: &RoomName, run: Run, here: &HandedIn) {
        for segment in &here.segments {
            self.send(segment.shard, Delivery { room: room.clone(), run, said: HomeSaid::Moved });
        }
    }

    /// Tells the nodes with members that this node has the room.
    pub(super) fn tell_adopted(&mut self, key: usize) {
        let seq = self.rooms[key].room.seq();
        let places: Vec<usize> = self.rooms[key].room.segments().map(|(place, _)| place).collect();
        for place in places.into_iter().filter(|place| node_of_place(*place).is_some()) {
            self.deliver(key, place, HomeSaid::Adopted { seq });
        }
    }
}
