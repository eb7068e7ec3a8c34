//! The hand-overs of a node: the slots on their way to their next homes. A node that drains gives all its slots, a few
//! at a time. Another one gives slots that a different node should hold: one in each `BALANCE_INTERVAL`.
//!
//! ```text
//! packing ── all rooms are said ──▶ offered ── claim of the next home ──▶ given
//!    │ too slow, declined              │ declined: goes on
//!    ▼                                 ▼ too slow
//!  goes on                          reclaiming ── own claim, nobody in between ──▶ goes on
//!                                      └── another claim: a takeover
//! ```
//!
//! Before the offer nobody else can have claimed, so the home simply goes on. Behind it the home can't know whether the
//! claim of the next home exists. It claims by itself, and its log tells: with no claim in between it goes on in the
//! same run, and a claim of the next home that comes later finds one in between, and begins another run.
//!
//! Pure: the caller drains [`HandOvers::poll_word`] after each input, and calls [`HandOvers::due`] at
//! [`HandOvers::poll_deadline`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use super::view::View;
use super::{NodeKey, Slot, SlotHome, SlotStanding, Term};
use crate::limits::{
    BALANCE_CALM_AGE, BALANCE_INTERVAL, HAND_OVER_AGE_MAX, HAND_OVER_PACK_AGE_MAX, HAND_OVER_RETRY,
    HAND_OVERS_MAX,
};

/// A word of the hand-overs to their node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandOverWord {
    /// For the shards: settle the rooms of the slot, and say them to the next home.
    Pack {
        /// The slot.
        slot: Slot,
        /// The next home.
        to: NodeKey,
        /// The number of the attempt.
        attempt: u64,
    },
    /// For the next home: all rooms have been said.
    Offer {
        /// The slot.
        slot: Slot,
        /// The next home.
        to: NodeKey,
        /// The number of the attempt.
        attempt: u64,
        /// The term of this node.
        term: Term,
    },
    /// For the shards: the rooms of the slot go on here.
    Resume {
        /// The slot.
        slot: Slot,
    },
    /// For the shards: the hand-over has ended, and the slot is another node's.
    End {
        /// The slot.
        slot: Slot,
        /// True: it is the next home's.
        is_given: bool,
    },
    /// For the log: claim the slot, and tell of claims in between.
    Reclaim {
        /// The slot.
        slot: Slot,
    },
}

/// The slots on their way.
#[derive(Debug)]
pub struct HandOvers {
    shards: usize,
    slots: BTreeMap<Slot, HandOver>,
    /// Slots whose last hand-over was given up, with the moment of the next one.
    resting: BTreeMap<Slot, Instant>,
    attempts: u64,
    /// True: the slots of this node are handed over, one after another.
    gives_all: bool,
    /// The next look for a slot that another node should hold.
    balance_at: Instant,
    words: VecDeque<HandOverWord>,
}

#[derive(Debug)]
struct HandOver {
    to: NodeKey,
    term: Term,
    attempt: u64,
    began: Instant,
    stage: HandOverStage,
}

#[derive(Debug)]
enum HandOverStage {
    /// The shards that have not said all their rooms.
    Packing(BTreeSet<usize>),
    Offered,
    Reclaiming,
}

impl HandOver {
    fn until(&self) -> Option<Instant> {
        match self.stage {
            HandOverStage::Packing(_) => Some(self.began + HAND_OVER_PACK_AGE_MAX),
            HandOverStage::Offered => Some(self.began + HAND_OVER_AGE_MAX),
            // The log claims until it has an answer.
            HandOverStage::Reclaiming => None,
        }
    }
}

impl HandOvers {
    /// No hand-overs, of a node of so many shards.
    #[must_use]
    pub fn new(shards: usize, now: Instant) -> Self {
        Self {
            shards,
            slots: BTreeMap::new(),
            resting: BTreeMap::new(),
            attempts: 0,
            gives_all: false,
            balance_at: now + BALANCE_INTERVAL,
            words: VecDeque::new(),
        }
    }

    /// Hands over all slots from now on: the node drains.
    pub fn give_all(&mut self) {
        self.gives_all = true;
        // Those that balance leaves alone as well.
        self.resting.clear();
    }

    /// Begins the hand-overs whose time has come. Returns their slots.
    pub fn begin_next(&mut self, view: &mut View, now: Instant) -> Vec<Slot> {
        let mut begun = Vec::new();
        let is_due = self.balance_at <= now;
        if is_due {
            // Without a place, too: a look that stays due would come again at once, for as long as the log is silent.
            self.balance_at = now + BALANCE_INTERVAL;
        }
        if !self.has_place() {
            return begun;
        }
        let next: Vec<_> = if self.gives_all {
            view.to_hand_over().collect()
        } else if is_due {
            view.to_balance(now).filter(|(slot, ..)| self.may_begin(*slot, now)).take(1).collect()
        } else {
            return begun;
        };
        for (slot, to, term) in next {
            if self.may_begin(slot, now) {
                view.give(slot, to);
                self.begin(slot, to, term, now);
                begun.push(slot);
            }
        }
        begun
    }

    fn has_place(&self) -> bool {
        self.slots.len() < HAND_OVERS_MAX
    }

    fn may_begin(&self, slot: Slot, now: Instant) -> bool {
        let is_resting = self.resting.get(&slot).is_some_and(|until| now < *until);
        self.has_place() && !self.slots.contains_key(&slot) && !is_resting
    }

    /// Begins to hand a slot over, which this node holds under `term`.
    fn begin(&mut self, slot: Slot, to: NodeKey, term: Term, now: Instant) {
        self.attempts += 1;
        let attempt = self.attempts;
        let stage = HandOverStage::Packing((0..self.shards).collect());
        self.slots.insert(slot, HandOver { to, term, attempt, began: now, stage });
        self.words.push_back(HandOverWord::Pack { slot, to, attempt });
    }

    /// A shard has said all its rooms of a slot. `is_whole`: no room had to be left out.
    pub fn packed(&mut self, slot: Slot, attempt: u64, shard: usize, is_whole: bool, now: Instant) {
        let Some(one) = self.slots.get_mut(&slot).filter(|one| one.attempt == attempt) else { return };
        let HandOverStage::Packing(left) = &mut one.stage else { return };
        if !is_whole && !self.gives_all {
            // A room would begin another run for the sake of balance.
            self.resume(slot, now + BALANCE_CALM_AGE);
            return;
        }
        left.remove(&shard);
        if left.is_empty() {
            one.stage = HandOverStage::Offered;
            let HandOver { to, term, .. } = *one;
            self.words.push_back(HandOverWord::Offer { slot, to, attempt, term });
        }
    }

    /// The next home does not claim.
    pub fn declined(&mut self, node: NodeKey, slot: Slot, attempt: u64, now: Instant) {
        let is_one = |one: &HandOver| one.to == node && one.attempt == attempt;
        if self.slots.get(&slot).is_some_and(is_one) {
            self.give_up(slot, now);
        }
    }

    /// The way to a node is lost.
    pub fn lost(&mut self, node: NodeKey, now: Instant) {
        let slots = self.slots.iter().filter(|(_, one)| one.to == node).map(|(slot, _)| *slot);
        for slot in slots.collect::<Vec<_>>() {
            self.end(slot, now);
        }
    }

    /// The slot stands anew. True: it was handed over.
    pub fn stands(&mut self, slot: Slot, standing: SlotStanding, now: Instant) -> bool {
        let Some(one) = self.slots.get(&slot) else { return false };
        if !standing.home.is_own() {
            let is_given = standing.home == SlotHome::There(one.to);
            self.slots.remove(&slot);
            self.words.push_back(HandOverWord::End { slot, is_given });
            return is_given;
        }
        if standing.term > one.term {
            // Claimed by this node itself, and nobody in between. Before the offer, too: a repaired log.
            self.resume(slot, now + HAND_OVER_RETRY);
        }
        false
    }

    /// Gives up what has taken too long.
    pub fn due(&mut self, now: Instant) {
        let late = self.slots.iter().filter(|(_, one)| one.until().is_some_and(|until| until <= now));
        for slot in late.map(|(slot, _)| *slot).collect::<Vec<_>>() {
            self.end(slot, now);
        }
        self.resting.retain(|_, until| *until > now);
    }

    /// The moment of the next [`HandOvers::due`].
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Instant> {
        let balance = (!self.gives_all).then_some(self.balance_at);
        self.slots
            .values()
            .filter_map(HandOver::until)
            .chain(self.resting.values().copied())
            .chain(balance)
            .min()
    }

    /// The next word, in order.
    pub fn poll_word(&mut self) -> Option<HandOverWord> {
        self.words.pop_front()
    }

    /// Ends a hand-over without an answer of the next home.
    fn end(&mut self, slot: Slot, now: Instant) {
        let Some(one) = self.slots.get_mut(&slot) else { return };
        match one.stage {
            HandOverStage::Packing(_) => self.give_up(slot, now),
            HandOverStage::Offered => {
                one.stage = HandOverStage::Reclaiming;
                self.words.push_back(HandOverWord::Reclaim { slot });
            }
            HandOverStage::Reclaiming => {}
        }
    }

    /// Goes on, as nobody else has claimed or will. A claim of this node that is under way decides by itself.
    fn give_up(&mut self, slot: Slot, now: Instant) {
        if self.slots.get(&slot).is_some_and(|one| !matches!(one.stage, HandOverStage::Reclaiming)) {
            self.resume(slot, now + HAND_OVER_RETRY);
        }
    }

    fn resume(&mut self, slot: Slot, rests_until: Instant) {
        self.slots.remove(&slot);
        self.resting.insert(slot, rests_until);
        self.words.push_back(HandOverWord::Resume { slot });
    }
}

#[cfg(test)]
mod tests;
