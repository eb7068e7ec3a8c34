//! The homes in a cluster: rooms that come and go with their slots, and places on other nodes.

use std::time::Instant;

use super::handed::Pausing;
use super::{Homes, Opener};
use crate::shard::lane::JoinRefusal;
use crate::shard::lane::{Control, Delivery, HomeSaid, LaneSent};
use crate::shard::ways::{NodeWord, ToNode};
use roomcast_core::cluster::{NodeKey, SlotHome, node_of_place, node_place};
use roomcast_core::now::Now;
use roomcast_core::room::id::{RoomName, Run, Seq};
use roomcast_core::room::message::Homeless;
use roomcast_core::room::{Ask, Input, Join, SegmentSaid};

/// A change of a slot, for the rooms that this node orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::shard) enum SlotTurn {
    /// The right to order is in doubt.
    Freeze,
    /// The right to order is certain again.
    Thaw,
    /// Another node has the slot now, or nobody.
    Lose,
}

impl Homes {
    /// The reason why this node takes no request about a room; `None`: it does.
    pub(in crate::shard) fn homeless(&self, room: &RoomName) -> Option<Homeless> {
        // Nothing was taken, and the doors ask the next home.
        let leaving = self.is_leaving(room).then_some(Homeless::NoHome);
        leaving.or_else(|| self.nodes.as_ref().and_then(|nodes| nodes.home_of(room).refusal()))
    }

    /// The reason why this node takes no ask about a room: a frozen home still answers readers.
    pub(super) fn homeless_for(&self, room: &RoomName, ask: Ask) -> Option<Homeless> {
        let is_reader = matches!(ask, Ask::Receipt { .. } | Ask::Pull { .. });
        let is_known = || self.room_of.contains_key(room);
        if self.is_leaving(room) {
            return Some(Homeless::NoHome);
        }
        match self.nodes.as_ref()?.home_of(room) {
            SlotHome::Frozen if is_reader && is_known() => None,
            home => home.refusal(),
        }
    }

    /// The room of that name for a member of its former life. Bounds for newcomers do not hold.
    pub(super) fn reopen(&mut self, name: &RoomName, now: Instant) -> usize {
        let known = self.room_of.get(name).copied();
        known.unwrap_or_else(|| self.make_room(name, Opener::Device, now))
    }

    /// Sends to a place: the frame lane of a local shard, or the way to another node.
    pub(super) fn send(&mut self, place: usize, delivery: Delivery) -> LaneSent {
        match (node_of_place(place), &mut self.nodes) {
            (None, _) => self.lanes.send(place, delivery),
            (Some(node), Some(nodes)) => nodes.send(ToNode { node, word: NodeWord::ToBranch(delivery) }),
            // A node that is alone has no such place.
            (Some(_), None) => LaneSent::Yes,
        }
    }

    /// Takes the words of a branch on another node.
    pub(in crate::shard) fn hear_node(&mut self, node: NodeKey, control: Control, now: Now) {
        self.take_control(node_place(node), control, now);
    }

    /// Takes the joins of a branch on another node. Each of them has an answer of its own.
    pub(in crate::shard) fn hear_joins(
        &mut self,
        node: NodeKey,
        room: &RoomName,
        joins: Vec<Join>,
        now: Now,
    ) {
        let is_here = self.nodes.as_ref().is_some_and(|nodes| nodes.home_of(room) == SlotHome::Here);
        for join in joins {
            if is_here {
                self.take_join(node_place(node), room, join, now);
            } else {
                // The branch asks again, here or at the next home.
                self.refuse_join(node_place(node), room, &join, JoinRefusal::NotHome);
            }
        }
    }

    /// A batch was left out of the link to a node: nothing is awaited for it.
    pub(in crate::shard) fn lapsed(&mut self, node: NodeKey, room: &RoomName, run: Run, seq: Seq, now: Now) {
        self.tally.lane_full += 1;
        let key = self.room_of.get(room).copied();
        // A room that lives anew was not the one that sent the batch.
        if let Some(key) = key.filter(|key| self.rooms[*key].room.run() == run) {
            self.tell_room(key, Input::Lapsed { place: node_place(node), seq }, now);
        }
    }

    /// All rooms lose the members on a node.
    pub(in crate::shard) fn lose_place(&mut self, node: NodeKey, now: Now) {
        let place = node_place(node);
        let held = self.rooms.iter().filter(|(_, home)| home.room.has_place(place));
        let keys: Vec<usize> = held.map(|(key, _)| key).collect();
        for key in keys {
            self.note_paused(key, place, None);
            self.tell_room(key, Input::PlaceLost { place }, now);
        }
        self.drop_arriving(node);
        self.say_kept_anew(node);
    }

    /// Tells rooms of the changes of their slots.
    pub(in crate::shard) fn turn_slots(&mut self, turn: impl Fn(&RoomName) -> Option<SlotTurn>, now: Now) {
        let turning = self.rooms.iter().filter_map(|(key, home)| Some((key, turn(home.room.name())?)));
        let turning: Vec<(usize, SlotTurn)> = turning.collect();
        for (key, turn) in turning {
            let input = match turn {
                SlotTurn::Freeze => Input::Freeze(true),
                SlotTurn::Thaw => Input::Freeze(false),
                SlotTurn::Lose => Input::Lost,
            };
            self.tell_room(key, input, now);
        }
    }

    /// The next room that has gone another way than the branch here that stands in for it.
    pub(in crate::shard) fn poll_parted(&mut self) -> Option<(RoomName, Run)> {
        self.parted.pop_front()
    }

    /// The next join that a room has not taken, with the shard of its segment.
    pub(in crate::shard) fn poll_gave_back(&mut self) -> Option<(usize, Control)> {
        self.gave_back.pop_front()
    }

    pub(super) fn give_back(&mut self, key: usize, place: usize, join: Join) {
        let room = self.rooms[key].room.name().clone();
        if node_of_place(place).is_some() {
            return self.refuse_join(place, &room, &join, JoinRefusal::NotHome);
        }
        self.gave_back.push_back((place, Control { room, run: None, said: SegmentSaid::Join(join) }));
    }

    /// Drops a room that another node orders from now on. Its members join again there.
    pub(super) fn lose_room(&mut self, key: usize) {
        let home = self.take_room(key);
        let is_handed = self.is_handed(&home);
        let is_stood_in = home.pausing.as_ref().is_some_and(Pausing::is_stood_in);
        let room = home.room;
        if is_stood_in && !is_handed {
            self.parted.push_back((room.name().clone(), room.run()));
        }
        for (place, _) in room.segments() {
            // Others hear from the next home, or from the branch that stands in.
            let hears_it = if node_of_place(place).is_some() { is_handed } else { is_stood_in };
            if hears_it {
                continue;
            }
            let delivery = Delivery { room: room.name().clone(), run: room.run(), said: HomeSaid::Moved };
            self.send(place, delivery);
        }
        room.shed_rest(&mut self.tally.rooms);
    }
}
