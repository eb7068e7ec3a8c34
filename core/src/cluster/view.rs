//! The cluster as one node sees it: which nodes live, which node is the home of each slot, and which slots this
//! node may order.
//!
//! The view takes heartbeats, claims, answers to probes and the news of the log, each with `now`. After each input
//! the caller drains [`View::poll_word`] to `None`, and calls [`View::due`] at [`View::poll_deadline`]. Pure.
//!
//! - The highest term heard of a slot wins. A node that holds a slot under a lower term freezes it, and asks the log.
//! - Without a living home that has its echo, the first living node in the slot's rendezvous order claims the slot
//!   in its log.
//! - The right to order: an echo within `RIGHT_AGE_MAX`, and either more than half of the known nodes within that time,
//!   or an acknowledged append to the slot's log within it. The hearing is mutual: a node counts that hears this one.
//! - A frozen slot thaws with an append that was sent after the freeze: until then nobody else has claimed the slot.

use std::collections::VecDeque;
use std::time::Instant;

use super::members::{MemberWord, Members, OwnNode, Peer};
use super::node::{Claim, Heartbeat, HeldSlot, NODE_VERSION, NodeLoad, NodeName, spoken_to_all};
use super::{NodeKey, SLOTS, Slot, SlotHome, SlotStanding, Term};
use crate::limits::{
    BALANCE_CALM_AGE, BEAT_INTERVAL, CLAIM_GRACE, FENCED_PAUSE, FROZEN_AGE_MAX, HEARING_AGE_MAX,
    LOOK_AGE_MAX, RENEWAL_INTERVAL, RENEWAL_INTERVAL_MAX, RIGHT_AGE_MAX, SETTLED_AFTER, VIEW_INTERVAL,
};

/// A word of the view to its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ViewWord {
    /// A node lives, or lives again: links to it can begin. Said before any slot stands with the node.
    Met {
        /// The node.
        node: NodeKey,
        /// Its life.
        incarnation: u64,
        /// The version of the words with it.
        version: u8,
    },
    /// A node is dead, or has said goodbye. Said once no slot stands with the node.
    Parted {
        /// The node.
        node: NodeKey,
    },
    /// The standing of a slot has changed.
    Stands {
        /// The slot.
        slot: Slot,
        /// The new standing.
        standing: SlotStanding,
    },
    /// The next standing of the slot comes by a hand-over: nothing was ordered in between.
    Handed {
        /// The slot.
        slot: Slot,
    },
    /// An order for the log: claim the slot. Answered by [`View::claimed`] or [`View::fenced`].
    Claim {
        /// The slot.
        slot: Slot,
        /// The highest term heard of the slot.
        heard: Term,
    },
    /// An order for the log: hold the slot, or claim it, no longer.
    Release {
        /// The slot.
        slot: Slot,
    },
    /// An order for the log: prove the slot by an append. Answered by [`View::proven`] or [`View::fenced`].
    Renew {
        /// The slot.
        slot: Slot,
    },
    /// A claim for all nodes, at once.
    Tell(Claim),
    /// A heartbeat is due: [`View::heartbeat`].
    Beat,
    /// A message to the node's subject, to find out if anybody listens. Answered by [`View::no_responder`].
    Probe {
        /// The node.
        name: NodeName,
        /// The number of the probe.
        number: u64,
    },
    /// Connect to another NATS server: this one does not bring what others hear.
    Reconnect,
    /// A later process uses the name of this node.
    NameTaken,
}

/// The cluster, as this node sees it.
#[derive(Debug)]
pub struct View {
    members: Members,
    /// By slot.
    seats: Vec<SlotSeat>,
    stage: NodeStage,
    /// The newest version in which this node may have written entries to the logs of its slots; 0: it has held none.
    written: u8,
    /// The last moment at which a node came or went.
    members_changed: Instant,
    next_beat: Instant,
    next_look: Instant,
    words: VecDeque<ViewWord>,
}

/// The stage of this node's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NodeStage {
    Serving,
    Draining,
    Leaving,
}

/// A slot, as this node sees it.
#[derive(Debug, Clone)]
struct SlotSeat {
    /// As last said.
    standing: SlotStanding,
    /// The highest term heard.
    term: Term,
    /// The other node that holds the slot under this term, alive or not.
    home: Option<NodeKey>,
    /// The moment at which `term` or `home` last changed.
    since: Instant,
    /// The last fence against this node.
    fenced_at: Option<Instant>,
    /// The node to which this one hands the slot over.
    giving: Option<NodeKey>,
    own: Own,
}

/// This node's part in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    Not,
    /// The log is claiming.
    Claiming(ClaimWhy),
    Held(Hold),
}

/// The reason for a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClaimWhy {
    /// This node is the first choice, as long as it is.
    Preferred,
    /// A claim of this node has come to light, for which others take this node for the home.
    Met,
    /// The home hands the slot over, which it held under this term.
    Handed(Term),
}

/// A slot that this node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hold {
    term: Term,
    /// The time of sending of the newest acknowledged append.
    proven: Instant,
    /// The last order of a renewal; `None`: one is due.
    renewed: Option<Instant>,
    frozen: Option<Instant>,
}

/// The state of this node that all slots share, at one moment.
#[derive(Debug, Clone, Copy)]
struct Outlook {
    now: Instant,
    has_echo: bool,
    hears_most: bool,
    hears_all: bool,
    may_claim: bool,
}

impl View {
    /// The view of a node that has heard nothing. The first heartbeat is due at once.
    #[must_use]
    pub fn new(own: OwnNode, now: Instant) -> Self {
        let seat = SlotSeat {
            standing: SlotStanding::default(),
            term: Term::default(),
            home: None,
            since: now,
            fenced_at: None,
            giving: None,
            own: Own::Not,
        };
        Self {
            members: Members::new(own, now),
            seats: vec![seat; SLOTS],
            stage: NodeStage::Serving,
            written: 0,
            members_changed: now,
            next_beat: now,
            next_look: now,
            words: VecDeque::new(),
        }
    }

    /// Takes a heartbeat, also an own one: the echo.
    pub fn hear(&mut self, beat: &Heartbeat, now: Instant) {
        let speaker = self.members.hear(beat, now);
        // Met before the slots of the node, parted behind them.
        self.take_members(now);
        if let Some(node) = speaker {
            self.take_slots(node, &beat.slots, now);
        }
    }

    /// Takes a claim that a node tells.
    pub fn hear_claim(&mut self, claim: &Claim, now: Instant) {
        let Claim { slot, term, node } = claim;
        if *node == self.members.own().name {
            self.meet_own_claim(*slot, *term, now);
        } else {
            self.adopt(*slot, *term, self.members.key_of(node), now);
        }
        self.settle(*slot, self.outlook(now));
    }

    /// Takes the answer of a NATS server to a probe: nobody listens to the node's subject.
    pub fn no_responder(&mut self, name: &NodeName, number: u64, now: Instant) {
        self.members.no_responder(name, number);
        self.next_look = now;
    }

    /// Takes news of the log: the slot is held under `term`. `behind`: the term of the last claim of another node.
    pub fn claimed(&mut self, slot: Slot, term: Term, behind: Term, now: Instant) {
        let seat = &mut self.seats[slot.index()];
        let why = match seat.own {
            // Given up before the news came. The log may have been told before its claim, so it is told again.
            Own::Not => return self.give_up(slot),
            Own::Claiming(why) => why,
            Own::Held(hold) if hold.term < seat.term && seat.term < term => {
                // Another node has held the slot meanwhile, so the rooms here end, and begin anew.
                seat.term = term;
                seat.home = None;
                self.give_up(slot);
                return self.settle(slot, self.outlook(now));
            }
            Own::Held(_) => ClaimWhy::Preferred,
        };
        if term > seat.term {
            seat.term = term;
            seat.home = None;
            seat.since = now;
            seat.own = Own::Held(Hold { term, proven: now, renewed: Some(now), frozen: None });
            // With any other claim in between, somebody may have ordered meanwhile.
            if why == ClaimWhy::Handed(behind) {
                self.words.push_back(ViewWord::Handed { slot });
            }
            let node = self.members.own().name.clone();
            self.words.push_back(ViewWord::Tell(Claim { slot, term, node }));
        } else if seat.home.is_none_or(|home| !self.members.can_order(home)) {
            // The log has shrunk: the claim is repeated with the next generation.
            seat.own = Own::Claiming(why);
            self.words.push_back(ViewWord::Claim { slot, heard: seat.term });
        }
        self.settle(slot, self.outlook(now));
    }

    /// Takes news of the log: an append sent at `sent` was acknowledged, and nobody else had claimed the slot before.
    pub fn proven(&mut self, slot: Slot, sent: Instant, now: Instant) {
        let outlook = self.outlook(now);
        let seat = &mut self.seats[slot.index()];
        let Own::Held(hold) = &mut seat.own else { return };
        hold.proven = hold.proven.max(sent);
        // An older append proves nothing about the time since the freeze.
        if hold.frozen.is_some_and(|frozen| sent >= frozen) && outlook.has_echo {
            if seat.term > hold.term {
                // The log does not have the term that was heard: it has shrunk. A new claim goes above the term.
                self.give_up(slot);
            } else {
                hold.frozen = None;
            }
        }
        self.settle(slot, outlook);
    }

    /// Takes news of the log: `node` has claimed the slot after this node, which serves it no longer.
    pub fn fenced(&mut self, slot: Slot, by: Term, node: &NodeName, now: Instant) {
        let seat = &mut self.seats[slot.index()];
        seat.own = Own::Not;
        seat.fenced_at = Some(now);
        if *node == self.members.own().name {
            self.meet_own_claim(slot, by, now);
        } else {
            // A node that claims is alive, whether this one hears it or not.
            self.members.told(node, now);
            let home = self.members.key_of(node);
            self.adopt(slot, by, home, now);
            self.words.push_back(ViewWord::Tell(Claim { slot, term: by, node: node.clone() }));
        }
        self.settle(slot, self.outlook(now));
    }

    /// Takes news of the log: somebody without a name has claimed the slot after this node.
    pub fn lost(&mut self, slot: Slot, by: Term, now: Instant) {
        let seat = &mut self.seats[slot.index()];
        seat.own = Own::Not;
        seat.fenced_at = Some(now);
        self.adopt(slot, by, None, now);
        self.settle(slot, self.outlook(now));
    }

    /// Takes that the clock has stood still, as in a suspended machine: all slots freeze until they are proven.
    pub fn slept(&mut self, now: Instant) {
        self.members.forget_echoes();
        self.next_beat = now;
        self.next_look = now;
    }

    /// Has the next heartbeat sent at once: a new connection has no echo yet.
    pub fn beat_now(&mut self, now: Instant) {
        self.next_beat = now;
    }

    /// Takes no further slots: the node drains.
    pub fn drain(&mut self, now: Instant) {
        if self.stage == NodeStage::Serving {
            self.stage = NodeStage::Draining;
            self.next_beat = now;
        }
    }

    /// The slots that this node hands over while it drains, each with its next home and the term of this node.
    pub fn to_hand_over(&self) -> impl Iterator<Item = (Slot, NodeKey, Term)> {
        let is_draining = self.stage == NodeStage::Draining;
        let given = self.givable().filter(move |_| is_draining);
        given.filter_map(|(slot, term)| Some((slot, self.members.taker_of(slot, self.written)?, term)))
    }

    /// The slots that another node should hold, each with that node and the term of this one. None soon after a node
    /// came or went: it may be back, or gone, in a moment.
    pub fn to_balance(&self, now: Instant) -> impl Iterator<Item = (Slot, NodeKey, Term)> {
        let Outlook { has_echo, hears_all, .. } = self.outlook(now);
        let is_calm = self.stage == NodeStage::Serving
            && has_echo
            && hears_all
            && now.saturating_duration_since(self.members_changed) >= BALANCE_CALM_AGE;
        let given = self.givable().filter(move |_| is_calm);
        given.filter_map(|(slot, term)| Some((slot, self.members.better_taker_of(slot, self.written)?, term)))
    }

    /// The slots that are without doubt here, each with its term.
    fn givable(&self) -> impl Iterator<Item = (Slot, Term)> {
        Slot::all().zip(&self.seats).filter_map(|(slot, seat)| match seat.own {
            Own::Held(Hold { term, frozen: None, .. }) if seat.giving.is_none() && seat.term == term => {
                Some((slot, term))
            }
            Own::Held(_) | Own::Claiming(_) | Own::Not => None,
        })
    }

    /// True if this node holds a slot that another node could take.
    #[must_use]
    pub fn has_to_give(&self) -> bool {
        let is_held = |seat: &SlotSeat| matches!(seat.own, Own::Held(_));
        self.seats.iter().any(is_held) && self.members.has_taker(self.written)
    }

    /// The slot is on its way to `to`: a claim of that node ends the hold at once.
    pub fn give(&mut self, slot: Slot, to: NodeKey) {
        self.seats[slot.index()].giving = Some(to);
    }

    /// The hand-over of the slot is given up.
    pub fn keep_on(&mut self, slot: Slot) {
        self.seats[slot.index()].giving = None;
    }

    /// Takes the offer of a slot by its home, which holds it under `term`. False: this node does not claim.
    #[must_use]
    pub fn accept(&mut self, slot: Slot, from: NodeKey, term: Term, now: Instant) -> bool {
        self.adopt(slot, term, Some(from), now);
        let Outlook { may_claim, has_echo, .. } = self.outlook(now);
        let seat = &mut self.seats[slot.index()];
        let is_home = seat.home == Some(from) && seat.term == term && seat.own == Own::Not;
        if !is_home || !may_claim || !has_echo {
            return false;
        }
        seat.own = Own::Claiming(ClaimWhy::Handed(term));
        self.words.push_back(ViewWord::Claim { slot, heard: term });
        true
    }

    /// Says goodbye: the next heartbeat is the last one, and the others take over the slots.
    pub fn leave(&mut self, now: Instant) {
        self.stage = NodeStage::Leaving;
        self.next_beat = now;
    }

    /// The heartbeat that is sent now. `load` is the node's own.
    pub fn heartbeat(&mut self, load: NodeLoad, now: Instant) -> Heartbeat {
        let OwnNode { name, incarnation, .. } = self.members.own().clone();
        let held = Slot::all().zip(&self.seats).filter_map(|(slot, seat)| match seat.own {
            Own::Held(hold) => Some(HeldSlot { slot, term: hold.term }),
            Own::Not | Own::Claiming(_) => None,
        });
        Heartbeat {
            node: name,
            incarnation,
            number: self.members.next_beat(now),
            version: NODE_VERSION,
            load,
            is_draining: self.stage != NodeStage::Serving,
            // A node that has just slept may have its echo in a moment.
            is_deaf: self.members.echo_age(now).is_some_and(|age| age >= RIGHT_AGE_MAX),
            is_leaving: self.stage == NodeStage::Leaving,
            slots: held.collect(),
            heard: self.members.heard(now),
        }
    }

    /// Acts on the time: heartbeats, silence, rights and claims.
    pub fn due(&mut self, now: Instant) {
        if now >= self.next_beat {
            self.next_beat = now + BEAT_INTERVAL;
            self.words.push_back(ViewWord::Beat);
        }
        if now >= self.next_look {
            self.next_look = now + VIEW_INTERVAL;
            self.members.judge(now);
            self.take_members(now);
            if self.seats.iter().any(|seat| matches!(seat.own, Own::Held(_))) {
                self.written = self.written.max(self.version());
            }
            let outlook = self.outlook(now);
            for slot in Slot::all() {
                // A home that parts says so.
                let seat = &self.seats[slot.index()];
                if !matches!((seat.own, seat.standing.home), (Own::Not, SlotHome::There(_))) {
                    self.settle(slot, outlook);
                }
            }
        }
    }

    /// The moment of the next [`View::due`].
    #[must_use]
    pub fn poll_deadline(&self) -> Instant {
        self.next_beat.min(self.next_look)
    }

    /// The next word, in order.
    pub fn poll_word(&mut self) -> Option<ViewWord> {
        self.words.pop_front()
    }

    /// The other nodes that said no goodbye, by name.
    pub fn peers(&self) -> impl Iterator<Item = (&NodeName, &Peer)> {
        self.members.peers()
    }

    /// The newest version that every known node speaks, or the oldest one of this node: for words to all of them, and
    /// for entries in the log. Each of them may order a slot before long.
    #[must_use]
    pub fn version(&self) -> u8 {
        spoken_to_all(NODE_VERSION, self.members.versions())
    }

    /// The name of a node.
    #[must_use]
    pub fn name_of(&self, node: NodeKey) -> Option<&NodeName> {
        self.members.name_of(node)
    }

    /// The last heartbeat of a node. `None`: no such node is known.
    #[must_use]
    pub fn heard_at(&self, node: NodeKey) -> Option<Instant> {
        self.members.heard_at(node)
    }

    /// The sending of the newest heartbeat whose echo has come. `None`: no echo has come yet.
    #[must_use]
    pub fn echo_at(&self) -> Option<Instant> {
        self.members.echo_at()
    }

    /// The end of the right to order, unless this view looks again before. Whoever orders compares its own clock, since
    /// the thread of the view may sleep.
    #[must_use]
    pub fn right_until(&self, now: Instant) -> Instant {
        let of_echo = self.echo_at().map_or(now, |echo| echo + RIGHT_AGE_MAX);
        let until = of_echo.min(now + LOOK_AGE_MAX);
        if self.members.hearing(RIGHT_AGE_MAX, now).is_most() {
            return until;
        }
        // The right of each slot is its last proof's. The oldest one counts for all: the view looks again soon.
        let proven = self.seats.iter().filter_map(|seat| match &seat.own {
            Own::Held(Hold { frozen: None, proven, .. }) => Some(*proven + RIGHT_AGE_MAX),
            Own::Held(_) | Own::Claiming(_) | Own::Not => None,
        });
        proven.fold(until, Instant::min)
    }

    /// Slot -> the first living node in the slot's rendezvous order that is not its home.
    #[must_use]
    pub fn heirs(&self) -> Vec<SlotHome> {
        let heir = |slot: Slot| {
            let seat = &self.seats[slot.index()];
            let is_here = matches!(seat.own, Own::Held(_));
            let order = self.members.order_of(slot, self.stage == NodeStage::Serving);
            let heir = order.into_iter().find(|node| match node {
                None => !is_here,
                Some(node) => is_here || seat.home != Some(*node),
            });
            heir.map_or(SlotHome::Nobody, |node| node.map_or(SlotHome::Here, SlotHome::There))
        };
        Slot::all().map(heir).collect()
    }

    /// Heartbeats of nodes past `NODES_MAX`, which have no account.
    #[must_use]
    pub fn ignored(&self) -> u64 {
        self.members.ignored()
    }

    fn outlook(&self, now: Instant) -> Outlook {
        let hearing = self.members.hearing(RIGHT_AGE_MAX, now);
        Outlook {
            now,
            has_echo: self.members.echo_age(now).is_some_and(|age| age < RIGHT_AGE_MAX),
            hears_most: hearing.is_most(),
            hears_all: self.members.hearing(HEARING_AGE_MAX, now).is_all(),
            may_claim: self.stage == NodeStage::Serving && self.members.listening_for(now) >= SETTLED_AFTER,
        }
    }

    /// Takes over words about members, and has all slots follow.
    fn take_members(&mut self, now: Instant) {
        while let Some(word) = self.members.poll_word() {
            if matches!(word, MemberWord::Met { .. } | MemberWord::Parted { .. }) {
                self.members_changed = now;
            }
            let word = match word {
                MemberWord::Met { node, incarnation, version } => {
                    ViewWord::Met { node, incarnation, version }
                }
                MemberWord::Parted { node } => {
                    // Parted behind the slots: nobody must find a home that has no link.
                    let outlook = self.outlook(now);
                    Slot::all().for_each(|slot| self.settle(slot, outlook));
                    ViewWord::Parted { node }
                }
                MemberWord::Probe { name, number } => ViewWord::Probe { name, number },
                MemberWord::Reconnect => ViewWord::Reconnect,
                MemberWord::NameTaken => ViewWord::NameTaken,
            };
            self.words.push_back(word);
        }
    }

    /// Takes the list of a living node's slots.
    fn take_slots(&mut self, node: NodeKey, held: &[HeldSlot], now: Instant) {
        let mut listed = [None; SLOTS];
        for held in held {
            listed[held.slot.index()] = Some(held.term);
            self.adopt(held.slot, held.term, Some(node), now);
        }
        let outlook = self.outlook(now);
        for slot in Slot::all() {
            let seat = &mut self.seats[slot.index()];
            if seat.home != Some(node) {
                continue;
            }
            // A claimant that does not hold the slot in time has ended its claim, or has another life.
            let is_listed = listed[slot.index()].is_some_and(|term| term >= seat.term);
            let is_over = !is_listed && now.saturating_duration_since(seat.since) >= CLAIM_GRACE;
            if is_over {
                seat.home = None;
            }
            // A node that has turned deaf, or is not deaf any more, changes all its slots.
            let stands_there = seat.standing.home == SlotHome::There(node);
            if is_over || stands_there != self.members.can_order(node) {
                self.settle(slot, outlook);
            }
        }
    }

    /// Follows a term, if it is the highest one of the slot. `home`: a node other than this one, if it is known.
    fn adopt(&mut self, slot: Slot, term: Term, home: Option<NodeKey>, now: Instant) {
        let seat = &mut self.seats[slot.index()];
        let is_own = matches!(seat.own, Own::Held(hold) if hold.term == term);
        // The claim was heard before the life of its node.
        let lacks_home = seat.home.is_none_or(|home| !self.members.can_order(home));
        if term > seat.term || term == seat.term && lacks_home && home.is_some() && !is_own {
            seat.term = term;
            seat.home = home;
            seat.since = now;
        }
    }

    /// Meets a claim of this node itself. Others take this node for the home, so it claims again, unless it holds the
    /// slot or a higher term is known.
    fn meet_own_claim(&mut self, slot: Slot, term: Term, now: Instant) {
        let seat = &mut self.seats[slot.index()];
        if term > seat.term && seat.own == Own::Not && self.stage == NodeStage::Serving {
            seat.term = term;
            seat.home = None;
            seat.since = now;
            seat.own = Own::Claiming(ClaimWhy::Met);
            self.words.push_back(ViewWord::Claim { slot, heard: term });
        }
    }

    /// Gives a slot back, or a claim up.
    fn give_up(&mut self, slot: Slot) {
        self.seats[slot.index()].own = Own::Not;
        self.words.push_back(ViewWord::Release { slot });
    }

    /// Brings a slot's part and standing up to the moment.
    fn settle(&mut self, slot: Slot, outlook: Outlook) {
        match self.seats[slot.index()].own {
            Own::Held(_) => self.keep(slot, outlook),
            Own::Claiming(why) => self.claim_on(slot, why),
            Own::Not => self.claim_if_free(slot, outlook),
        }
        let seat = &mut self.seats[slot.index()];
        if !matches!(seat.own, Own::Held(_)) {
            seat.giving = None;
        }
        let home = match seat.own {
            Own::Held(Hold { frozen: None, .. }) => SlotHome::Here,
            Own::Held(_) => SlotHome::Frozen,
            Own::Not | Own::Claiming(_) => match seat.home.filter(|home| self.members.can_order(*home)) {
                Some(home) => SlotHome::There(home),
                None => SlotHome::Nobody,
            },
        };
        let standing = SlotStanding { home, term: seat.term };
        if standing != seat.standing {
            seat.standing = standing;
            self.words.push_back(ViewWord::Stands { slot, standing });
        }
    }

    /// Freezes, renews or gives up a slot that this node holds.
    fn keep(&mut self, slot: Slot, outlook: Outlook) {
        let Outlook { now, has_echo, .. } = outlook;
        let seat = &mut self.seats[slot.index()];
        // As it was asked to: there is no doubt that the slot is there.
        let is_given =
            |hold: Hold| seat.term > hold.term && seat.giving.is_some() && seat.giving == seat.home;
        if matches!(seat.own, Own::Held(hold) if is_given(hold)) {
            return self.give_up(slot);
        }
        let Own::Held(hold) = &mut seat.own else { return };
        let age = |since: Instant| now.saturating_duration_since(since);
        let is_superseded = seat.term > hold.term;
        let has_right = has_echo && (outlook.hears_most || age(hold.proven) < RIGHT_AGE_MAX);
        if hold.frozen.is_none() && (is_superseded || !has_right) {
            hold.frozen = Some(now);
            hold.renewed = None;
        }
        if let Some(frozen) = hold.frozen {
            // The log says in time that it has the later claim. If it is silent, the living home is believed.
            let is_elsewhere = is_superseded && seat.home.is_some_and(|home| self.members.can_order(home));
            if age(frozen) >= FROZEN_AGE_MAX || is_elsewhere && age(seat.since) >= CLAIM_GRACE {
                return self.give_up(slot);
            }
        }
        // A node that is not heard may be cut off, and claim: the log tells soon.
        let is_calm = outlook.hears_all && hold.frozen.is_none();
        let interval = if is_calm { RENEWAL_INTERVAL_MAX } else { RENEWAL_INTERVAL };
        if has_echo && hold.renewed.is_none_or(|renewed| age(renewed) >= interval) {
            hold.renewed = Some(now);
            self.words.push_back(ViewWord::Renew { slot });
        }
    }

    /// Gives up a claim that is another node's by now.
    fn claim_on(&mut self, slot: Slot, why: ClaimWhy) {
        let seat = &self.seats[slot.index()];
        if let ClaimWhy::Handed(from) = why {
            // A later claim of the home ends its hand-over.
            if seat.term > from || self.stage != NodeStage::Serving {
                self.give_up(slot);
            }
            return;
        }
        let has_home = seat.home.is_some_and(|home| self.members.can_order(home));
        if has_home || why == ClaimWhy::Preferred && !self.is_first_choice(slot) {
            self.give_up(slot);
        }
    }

    /// Claims a slot without a living home, if this node is the first choice.
    fn claim_if_free(&mut self, slot: Slot, outlook: Outlook) {
        let Outlook { now, hears_most, may_claim, .. } = outlook;
        let seat = &self.seats[slot.index()];
        let is_within = |since: Instant, time| now.saturating_duration_since(since) < time;
        // A claimant that nobody knows yet: its heartbeat is on its way.
        let is_promised =
            seat.home.is_none() && seat.term > Term::default() && is_within(seat.since, CLAIM_GRACE);
        let has_home = seat.home.is_some_and(|home| self.members.can_order(home));
        let is_fenced = !hears_most && seat.fenced_at.is_some_and(|at| is_within(at, FENCED_PAUSE));
        if may_claim && !has_home && !is_promised && !is_fenced && self.is_first_choice(slot) {
            let seat = &mut self.seats[slot.index()];
            seat.own = Own::Claiming(ClaimWhy::Preferred);
            self.words.push_back(ViewWord::Claim { slot, heard: seat.term });
        }
    }

    fn is_first_choice(&self, slot: Slot) -> bool {
        self.stage == NodeStage::Serving && self.members.is_first_choice(slot)
    }
}

#[cfg(test)]
mod tests;
