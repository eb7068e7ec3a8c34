//! Hand-overs in the world of views: one room stands for all rooms of a slot, and no batch of a run is cut twice.

use super::{Event, HandedRooms, MS, Message, Offer, S, SimRoom, World};
use crate::cluster::handover::HandOverWord;
use crate::cluster::view::*;

impl World {
    /// Has a node drain and hand its slots over.
    pub(in crate::cluster::view::tests) fn drain(&mut self, node: usize) {
        let now = self.clock(node);
        self.nodes[node].view.drain(now);
        self.nodes[node].handed.giving.give_all();
    }

    pub(super) fn hand_over_next(&mut self, node: usize, now: Instant) {
        let at = &mut self.nodes[node];
        at.handed.giving.due(now);
        at.handed.giving.begin_next(&mut at.view, now);
    }

    pub(super) fn take_hand_over_words(&mut self, node: usize) {
        while let Some(word) = self.nodes[node].handed.giving.poll_word() {
            match word {
                HandOverWord::Pack { slot, attempt, .. } => {
                    self.moved.insert(slot);
                    self.nodes[node].handed.paused.insert(slot);
                    let time = self.now + if self.rng.u8(..12) == 0 { S } else { self.rng.u64(MS..60 * MS) };
                    self.at(time, node, Event::Packed { slot, attempt });
                }
                HandOverWord::Offer { slot, to, attempt, term } => {
                    let at = &self.nodes[node];
                    let Some(room) = at.handed.rooms.get(&slot).copied() else { continue };
                    let Some(to) = at.view.name_of(to).cloned() else { continue };
                    let from = at.name.clone();
                    self.send_to(node, &to, Message::Offer(Offer { slot, from, attempt, term, room }));
                }
                HandOverWord::Resume { slot } => {
                    self.coverage.resumed += 1;
                    self.nodes[node].view.keep_on(slot);
                    self.nodes[node].handed.paused.remove(&slot);
                }
                HandOverWord::End { .. } => {}
                HandOverWord::Reclaim { slot } => {
                    self.coverage.reclaims += 1;
                    let machine = &mut self.nodes[node].machines[slot.index()];
                    if let Some(held) = machine.held {
                        machine.claiming = Some(held);
                        self.claim(node, slot, held);
                    }
                }
            }
        }
    }

    fn send_to(&mut self, from: usize, name: &NodeName, message: Message) {
        let Some(to) = self.nodes.iter().position(|node| node.name == *name) else { return };
        let is_cut = self.cuts[from][to] || !self.nodes[from].reaches_bus || !self.nodes[to].hears_bus;
        // A link repeats what is lost, so words come late, or never.
        let time =
            self.now + self.rng.u64(200..self.delay_max) + u64::from(self.rng.u8(..10) == 0) * 400 * MS;
        if !is_cut && self.rng.u8(..20) > 0 {
            self.at(time, to, Event::Deliver(message));
        }
    }

    pub(super) fn take_offer(&mut self, node: usize, offer: Offer, now: Instant) {
        let Offer { slot, from, attempt, term, room } = offer;
        let at = &mut self.nodes[node];
        let home = at.view.members.key_of(&from);
        let declines = self.rng.u8(..12) == 0;
        if !declines && home.is_some_and(|home| at.view.accept(slot, home, term, now)) {
            at.handed.taking.insert(slot, room);
        } else {
            self.coverage.declined += 1;
            let by = at.name.clone();
            self.send_to(node, &from, Message::Declined { slot, attempt, by });
        }
    }

    /// The rooms of a slot begin, go on or end with its standing.
    pub(super) fn stand_rooms(
        &mut self,
        node: usize,
        slot: Slot,
        former: SlotStanding,
        standing: SlotStanding,
    ) {
        let now = self.clock(node);
        let at = &mut self.nodes[node];
        let HandedRooms { giving, paused, rooms, taking, came, .. } = &mut at.handed;
        giving.stands(slot, standing, now);
        let came = came.remove(&slot);
        if !standing.home.is_own() {
            rooms.remove(&slot);
            paused.remove(&slot);
        } else if !former.home.is_own() || !rooms.contains_key(&slot) {
            self.coverage.handed += u64::from(came.is_some());
            self.coverage.void += u64::from(taking.remove(&slot).is_some());
            self.runs += 1;
            rooms.insert(slot, came.unwrap_or(SimRoom { run: self.runs, seq: 0 }));
        }
    }

    /// Cuts a batch in each room that has moved, if the node orders it.
    pub(super) fn cut(&mut self, node: usize) {
        let at = &mut self.nodes[node];
        if !at.is_up || at.paused_until > self.now {
            return;
        }
        for slot in &self.moved {
            let orders =
                at.standings[slot.index()].home == SlotHome::Here && !at.handed.paused.contains(slot);
            if let Some(room) = at.handed.rooms.get_mut(slot).filter(|_| orders) {
                room.seq += 1;
                let former = self.batches.insert((*slot, *room), node);
                if former.is_some() {
                    self.failed = Some(*slot);
                }
                assert_eq!(former, None, "{slot:?}: {room:?} was cut before node-{node} did");
            }
        }
    }
}
