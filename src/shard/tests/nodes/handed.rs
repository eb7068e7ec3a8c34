//! Hand-overs in the world of nodes: the part of the clusters' threads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use super::device::Device;
use super::world::{CLUSTER_KEY, Node, ROOMS, World, key, name};
use crate::shard::slots::SlotArrival;
use crate::shard::ways::{FromNode, NodeWord, OWN_PLACE};
use roomcast_core::cluster::{Slot, SlotHome, SlotStanding, node_place};
use roomcast_core::limits::HAND_OVER_PACK_AGE_MAX;
use roomcast_core::room::id::RoomName;
use roomcast_core::room::message::Homeless;

/// The slots on their way.
#[derive(Default)]
pub(super) struct HandOversUnderWay {
    pub(super) under_way: BTreeMap<Slot, HandOverUnderWay>,
    attempts: u64,
}

pub(super) struct HandOverUnderWay {
    from: usize,
    to: usize,
    attempt: u64,
    /// Shards that have not said all their rooms.
    left: BTreeSet<usize>,
    since: Instant,
}

impl Node {
    /// Takes a room of another node, as the exchange would.
    pub(super) fn take_room(&mut self, from: usize, own: usize, word: NodeWord) {
        let NodeWord::Room { slot, attempt, mut state } = word else { panic!("a room") };
        for place in &mut state.places {
            if place.incarnation == OWN_PLACE {
                place.incarnation = node_place(key(from)) as u64;
            } else if place.incarnation == node_place(key(own)) as u64 {
                place.incarnation = OWN_PLACE;
            }
        }
        let shard = self.home(&RoomName::parse(&state.room).unwrap());
        self.backlog[shard].push_back(FromNode::Arrived { node: key(from), slot, attempt, state });
    }
}

impl World {
    /// The home of a slot begins to hand it over, unless it is in doubt.
    pub(super) fn hand_over(&mut self, slot: Slot, to: usize) {
        let from = self.claimants[&slot];
        let is_sure = self.nodes[from].slots.standing(slot).home == SlotHome::Here
            && self.standings.get(&(from, slot)).is_none_or(VecDeque::is_empty);
        if from == to || !is_sure || self.hand_overs.under_way.contains_key(&slot) {
            return;
        }
        self.hand_overs.attempts += 1;
        let attempt = self.hand_overs.attempts;
        let left = (0..self.nodes[from].shards.len()).collect();
        let since = self.now.instant;
        self.hand_overs.under_way.insert(slot, HandOverUnderWay { from, to, attempt, left, since });
        for backlog in &mut self.nodes[from].backlog {
            backlog.push_back(FromNode::HandOver { slot, to: key(to), attempt });
        }
    }

    /// A shard has said all its rooms of a slot.
    pub(super) fn packed(&mut self, from: usize, shard: usize, slot: Slot, attempt: u64, is_whole: bool) {
        let Some(one) = self.hand_overs.under_way.get_mut(&slot).filter(|one| one.attempt == attempt) else {
            return;
        };
        one.left.remove(&shard);
        let to = one.to;
        let is_packed = one.left.is_empty();
        // A drain goes on without the rooms that can't go along, and balance gives up.
        if !is_whole && self.chance(50) || is_packed && !self.is_calm && self.chance(15) {
            self.resume(slot);
        } else if is_packed {
            // Behind the rooms.
            self.push_word(from, to, NodeWord::Packed { slot, attempt, is_whole: true });
        }
    }

    /// The next home takes the offer, or declines.
    pub(super) fn take_offer(&mut self, slot: Slot, attempt: u64) {
        let Some(one) = self.hand_overs.under_way.get(&slot).filter(|one| one.attempt == attempt) else {
            return;
        };
        let HandOverUnderWay { from, to, .. } = *one;
        if !self.is_calm && self.chance(10) {
            return self.resume(slot);
        }
        let term = self.begin_term(slot, to);
        // Standings of former terms come too late.
        for node in 0..self.nodes.len() {
            let late = self.standings.entry((node, slot)).or_default();
            late.clear();
            if node != to {
                self.stand(node, slot, SlotStanding { home: SlotHome::There(key(to)), term });
            }
        }
        // The rooms were told before.
        let next = &mut self.nodes[to];
        for (backlog, way) in next.backlog.iter_mut().zip(&next.ways) {
            while let Some(word) = backlog.pop_front() {
                way.back.push(word).expect("the way is long");
            }
        }
        let arrival = Some(SlotArrival { node: key(from), attempt });
        next.slots.set_handed(slot, SlotStanding { home: SlotHome::Here, term }, arrival);
    }

    fn resume(&mut self, slot: Slot) {
        let Some(one) = self.hand_overs.under_way.remove(&slot) else { return };
        self.cover.resumed += 1;
        for backlog in &mut self.nodes[one.from].backlog {
            backlog.push_back(FromNode::Resume { slot });
        }
    }

    /// Gives up hand-overs whose rooms do not settle.
    pub(super) fn give_up_late(&mut self) {
        let now = self.now.instant;
        let is_late = |one: &HandOverUnderWay| {
            !one.left.is_empty() && now.saturating_duration_since(one.since) >= HAND_OVER_PACK_AGE_MAX
        };
        let late = self.hand_overs.under_way.iter().filter(|(_, one)| is_late(one)).map(|(slot, _)| *slot);
        late.collect::<Vec<_>>().into_iter().for_each(|slot| self.resume(slot));
    }

    /// The link between two nodes is lost, and offers with it.
    pub(super) fn give_up_between(&mut self, one: usize, other: usize) {
        let is_between = |hand_over: &HandOverUnderWay| {
            [(one, other), (other, one)].contains(&(hand_over.from, hand_over.to))
        };
        let slots = self.hand_overs.under_way.iter().filter(|(_, hand_over)| is_between(hand_over));
        for slot in slots.map(|(slot, _)| *slot).collect::<Vec<_>>() {
            self.resume(slot);
        }
    }

    /// A world without faults: the rooms move between nodes that all have members of them. Returns the number of rooms
    /// that were handed over.
    pub(super) fn quiet_moves(seed: u64) -> u64 {
        let mut world = Self::of_nodes(seed, 4, fastrand::Rng::with_seed(seed));
        world.is_calm = true;
        for room in ROOMS {
            world.claim(Slot::of(&name(room), CLUSTER_KEY), 0);
        }
        world.steps(40);
        for index in 0..16 {
            let named = (index % 2 == 0).then(|| format!("device-{index}"));
            world.devices.push(Device::new(index / 2 % 4, ROOMS[index / 8], named, 1 << 20));
            world.connect(index);
            world.steps(2);
        }
        world.steps(40);
        let runs = world.runs();
        assert_eq!(runs.len(), 16, "all are welcomed");
        for to in [1, 0, 2] {
            for room in ROOMS {
                world.hand_over(Slot::of(&name(room), CLUSTER_KEY), to);
            }
            world.steps(100);
            assert!(ROOMS.iter().all(|room| world.claimants[&Slot::of(&name(room), CLUSTER_KEY)] == to));
        }
        world.calm();
        world.check();
        assert_eq!(world.runs(), runs, "seed {seed}: nobody was welcomed again");
        world.cover.handed
    }

    fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.now = self.now.later(std::time::Duration::from_millis(self.random.u64(1..=8)));
            if self.chance(40) && !self.devices.is_empty() {
                self.publish();
            }
            self.step();
        }
    }

    /// The run of each device's room, and its further welcomes.
    fn runs(&self) -> Vec<(String, u64)> {
        let known = self.devices.iter().filter_map(|device| device.rooms.values().next());
        let run = |known: &super::device::Known| {
            let again = known.rewelcomed + known.rewelcomed_in_run;
            known.stands.as_ref().map(|(run, _)| (run.clone(), again))
        };
        known.filter_map(run).collect()
    }
}

#[test]
fn a_request_that_waited_for_the_end_of_a_hand_over_finds_the_room_that_goes_on() {
    let mut world = World::of_nodes(1, 2, fastrand::Rng::with_seed(1));
    world.is_calm = true;
    let room = name(ROOMS[0]);
    let slot = Slot::of(&room, CLUSTER_KEY);
    world.claim(slot, 0);
    world.steps(40);
    let now = world.now;
    let node = &mut world.nodes[0];
    let at = node.home(&room);
    let way = &node.ways[at];
    let shard = &mut node.shards[at];
    way.back.push(FromNode::HandOver { slot, to: key(1), attempt: 1 }).unwrap();
    shard.turn(now);
    assert_eq!(shard.homes.homeless(&room), Some(Homeless::NoHome));
    way.back.push(FromNode::Resume { slot }).unwrap();
    // As before each request of a door.
    shard.follow_slots(now);
    assert_eq!(shard.homes.homeless(&room), None);
}
