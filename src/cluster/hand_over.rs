//! The hand-overs of this node: between the view, the log, the shards and the links. The two sides are the home that
//! gives slots away ([`HandOvers`]), and the next home, which takes offers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tracing::{debug, info, warn};

use super::exchange::{Exchange, OfferHeard, SlotPacked};
use super::tenure::Tenure;
use super::wire::HandOverSaid;
use crate::metrics::tally::HandOverOutcome;
use crate::shard::slots::{SlotArrival, Slots};
use crate::shard::ways::FromNode;
use roomcast_core::cluster::handover::{HandOverWord, HandOvers};
use roomcast_core::cluster::{NodeKey, Slot, SlotHome, SlotStanding};
use roomcast_core::now::Now;

/// The slots on their way from this node, and to it.
#[derive(Debug)]
pub(super) struct HandOverDesk {
    giving: HandOvers,
    /// Slot -> the offer that this node has taken, until the slot stands here.
    taking: BTreeMap<Slot, SlotArrival>,
    /// Slot -> the offer of a slot that stands here next.
    came: BTreeMap<Slot, SlotArrival>,
    /// The ends of hand-overs since the last report.
    outcomes: Vec<HandOverOutcome>,
    slots: Arc<Slots>,
}

/// The parts of the cluster's thread that hand-overs move.
pub(super) struct Moving<'a> {
    pub(super) tenure: &'a mut Tenure,
    pub(super) exchange: &'a mut Exchange,
}

impl HandOverDesk {
    pub(super) fn new(shards: usize, slots: Arc<Slots>, now: Instant) -> Self {
        let giving = HandOvers::new(shards, now);
        Self { giving, taking: BTreeMap::new(), came: BTreeMap::new(), outcomes: Vec::new(), slots }
    }

    /// Hands over all slots from now on.
    pub(super) fn give_all(&mut self) {
        self.giving.give_all();
    }

    /// True if no slot is left that another node could take.
    pub(super) fn is_done(&self, tenure: &Tenure) -> bool {
        !tenure.view.has_to_give()
    }

    /// The moment of the next [`HandOverDesk::turn`].
    pub(super) fn poll_deadline(&self) -> Option<Instant> {
        self.giving.poll_deadline()
    }

    /// Takes what shards and other nodes have said, begins further hand-overs, and gives up late ones.
    pub(super) fn turn(&mut self, moving: &mut Moving<'_>, now: Now) {
        while let Some(node) = moving.exchange.poll_reset() {
            // Rooms that were said are lost, and an offer without them would have them begin another run.
            self.giving.lost(node, now.instant);
        }
        while let Some(packed) = moving.exchange.poll_packed() {
            let SlotPacked { shard, slot, attempt, is_whole } = packed;
            self.giving.packed(slot, attempt, shard, is_whole, now.instant);
        }
        while let Some(heard) = moving.exchange.poll_offer() {
            self.hear(&heard, moving, now);
        }
        self.giving.due(now.instant);
        for slot in self.giving.begin_next(&mut moving.tenure.view, now.instant) {
            self.slots.leave(slot);
        }
        self.take_words(moving, now);
    }

    fn hear(&mut self, heard: &OfferHeard, moving: &mut Moving<'_>, now: Now) {
        let OfferHeard { node, slot, attempt, term } = *heard;
        let Some(term) = term else { return self.giving.declined(node, slot, attempt, now.instant) };
        if moving.tenure.view.accept(slot, node, term, now.instant) {
            self.taking.insert(slot, SlotArrival { node, attempt });
        } else {
            moving.exchange.say_hand_over(node, slot, attempt, HandOverSaid::Declined, now);
        }
    }

    fn take_words(&mut self, moving: &mut Moving<'_>, now: Now) {
        while let Some(word) = self.giving.poll_word() {
            match word {
                HandOverWord::Pack { slot, to, attempt } => {
                    debug!(slot = slot.0, attempt, "a slot is handed over");
                    moving.exchange.tell_shards(|| FromNode::HandOver { slot, to, attempt });
                }
                HandOverWord::Offer { slot, to, attempt, term } => {
                    moving.exchange.say_hand_over(to, slot, attempt, HandOverSaid::Offer(term), now);
                }
                HandOverWord::Resume { slot } => {
                    info!(slot = slot.0, "the hand-over of a slot was given up: its rooms go on here");
                    self.outcomes.push(HandOverOutcome::Kept);
                    moving.tenure.view.keep_on(slot);
                    moving.exchange.tell_shards(|| FromNode::Resume { slot });
                    self.slots.end_leave(slot, None);
                }
                HandOverWord::End { slot, is_given } => {
                    self.outcomes.push(if is_given { HandOverOutcome::Given } else { HandOverOutcome::Lost });
                    // Behind the standing: shards that see this word find the slot lost.
                    moving.exchange.tell_shards(|| FromNode::Resume { slot });
                }
                HandOverWord::Reclaim { slot } => {
                    warn!(
                        slot = slot.0,
                        "the next home of a slot is silent: this node claims the slot again"
                    );
                    moving.tenure.reclaim(slot);
                }
            }
        }
    }

    /// The slot that stands next was handed over to this node.
    pub(super) fn handed(&mut self, slot: Slot) {
        self.came.extend(self.taking.remove(&slot).map(|arrival| (slot, arrival)));
    }

    /// A slot stands anew: writes the standing.
    pub(super) fn stands(&mut self, slot: Slot, standing: SlotStanding, now: Instant) {
        let arrival = self.came.remove(&slot).filter(|_| standing.home == SlotHome::Here);
        if standing.home.is_own() {
            self.taking.remove(&slot);
        }
        let was_leaving = self.slots.is_leaving(slot);
        let is_given = self.giving.stands(slot, standing, now);
        self.slots.set_handed(slot, standing, arrival);
        if was_leaving && !standing.home.is_own() {
            // Behind the standing: a request that goes on finds the next home.
            self.slots.end_leave(slot, standing.home.other().filter(|_| is_given));
        }
    }

    /// The ends of hand-overs since the last call.
    pub(super) fn take_outcomes(&mut self) -> Vec<HandOverOutcome> {
        std::mem::take(&mut self.outcomes)
    }

    /// The way to a node is lost.
    pub(super) fn lost(&mut self, node: NodeKey, now: Instant) {
        self.giving.lost(node, now);
    }
}
