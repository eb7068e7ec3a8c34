//! The exchange: the words of this node's shards and doors, over one link to each other node.
//!
//! The cluster's thread owns the exchange, gives it the messages of the bus, and sends the messages that the
//! exchange makes. The exchange waits for nothing and reads no clock.
//!
//! A reset loses all words on their way. Words that a shard had said before it took the reset are dropped here, up to
//! its `ResetTaken`.

mod crowd;
mod peer;
mod shards;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;
use tokio::sync::mpsc;

pub(super) use self::peer::OfferHeard;
use self::peer::{Around, BatchTag, Peer};
use self::shards::ShardEnds;
use super::calls::{CallFailed, CallIn, CallOut};
use super::shown::LinkLag;
use super::wire::HandOverSaid;
use crate::metrics::tally::LinkTally;
use crate::shard::lane::{Delivery, HomeSaid};
use crate::shard::ways::{FromNode, NodeWord, OWN_PLACE, ToNode, WayOut};
use roomcast_core::cluster::link::{BadMessage, LinkEnds, LinkMessage};
use roomcast_core::cluster::{NodeKey, Slot, node_of_place};
use roomcast_core::limits::{EXCHANGE_PUMP_INTERVAL, EXCHANGE_TURN_WORDS_MAX, LINKS_PARTED_MAX};
use roomcast_core::node_proto::RoomState;
use roomcast_core::now::Now;
use roomcast_core::room::id::NameKey;

/// The parts of the node that an exchange connects with other nodes.
#[derive(Clone)]
pub(crate) struct ExchangePlan {
    /// The incarnation of this node.
    pub(crate) incarnation: u64,
    /// The key of `directory::home` on this node.
    pub(crate) home_key: NameKey,
    /// The way of each shard, in order. `wake` wakes the shard.
    pub(crate) ways: Vec<WayOut>,
    /// Calls of the doors.
    pub(crate) calls: Arc<ArrayQueue<CallOut>>,
    /// Calls of other nodes, for the doors.
    pub(crate) calls_in: mpsc::Sender<CallIn>,
    /// Wakes the thread of the exchange.
    pub(crate) wake: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for ExchangePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExchangePlan").field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}

/// The links of a node.
#[derive(Debug)]
pub(crate) struct Exchange {
    plan: ExchangePlan,
    peers: BTreeMap<NodeKey, Peer>,
    /// Incarnation -> the number of the node.
    nodes: BTreeMap<u64, NodeKey>,
    /// Former links, the oldest first. A node that comes back in the same life may still hold its end.
    parted: VecDeque<PartedLink>,
    /// The generation of a link to an incarnation that is not among `parted`.
    first_generation: u32,
    shards: ShardEnds,
    /// The number of the next call.
    next_call: u64,
    bell: Arc<AnswerBell>,
    /// The shards that have said all their rooms of a slot.
    packed: VecDeque<SlotPacked>,
    /// Nodes whose links have begun anew: rooms on their way were lost.
    resets: BTreeSet<NodeKey>,
    /// The link that sends next.
    sending: Option<NodeKey>,
    /// The last moment heard of.
    now: Option<Instant>,
    pump_at: Option<Instant>,
}

/// A shard has said all its rooms of a slot to the link of the next home.
#[derive(Debug, Clone, Copy)]
pub(super) struct SlotPacked {
    pub(super) shard: usize,
    pub(super) slot: Slot,
    pub(super) attempt: u64,
    /// False: a room has to begin another run at the next home.
    pub(super) is_whole: bool,
}

/// The last generation of a link that has ended.
#[derive(Debug, Clone, Copy)]
struct PartedLink {
    incarnation: u64,
    generation: u32,
}

/// Rings when a door has answered a call of another node.
struct AnswerBell {
    is_rung: AtomicBool,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for AnswerBell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerBell").field("is_rung", &self.is_rung).finish_non_exhaustive()
    }
}

impl Wake for AnswerBell {
    fn wake(self: Arc<Self>) {
        self.is_rung.store(true, Ordering::Release);
        (self.wake)();
    }
}

impl Exchange {
    /// An exchange without links.
    pub(crate) fn new(plan: ExchangePlan) -> Self {
        let shards = ShardEnds::new(plan.ways.clone(), plan.home_key);
        let bell = Arc::new(AnswerBell { is_rung: AtomicBool::new(false), wake: Arc::clone(&plan.wake) });
        Self {
            plan,
            peers: BTreeMap::new(),
            nodes: BTreeMap::new(),
            parted: VecDeque::new(),
            first_generation: 1,
            shards,
            next_call: 1,
            bell,
            packed: VecDeque::new(),
            resets: BTreeSet::new(),
            sending: None,
            now: None,
            pump_at: None,
        }
    }

    /// Begins a link to a node. `incarnation` is that of the other node, `version` that of the words with it. A second
    /// meeting changes nothing.
    pub(crate) fn meet(&mut self, node: NodeKey, incarnation: u64, version: u8, now: Now) {
        self.now = Some(now.instant);
        if self.peers.contains_key(&node) || self.nodes.contains_key(&incarnation) {
            return;
        }
        let former = self.parted.iter().position(|parted| parted.incarnation == incarnation);
        let former = former.and_then(|at| self.parted.remove(at));
        // The other end may hold the former link. A number above its generation tells of a reset.
        let generation = former.map_or(self.first_generation, |parted| parted.generation.saturating_add(1));
        let ends = LinkEnds { own: self.plan.incarnation, peer: incarnation, version };
        self.peers.insert(node, Peer::new(node, ends, generation, now.instant));
        self.nodes.insert(incarnation, node);
    }

    /// Ends the link to a node, which is dead or has said goodbye. ShardEnds hear a reset, and calls are unknown.
    /// Returns the last counts of the link.
    pub(crate) fn part(&mut self, node: NodeKey, now: Now) -> Option<LinkTally> {
        self.now = Some(now.instant);
        let mut peer = self.peers.remove(&node)?;
        peer.give_up();
        let incarnation = peer.incarnation();
        self.nodes.remove(&incarnation);
        self.parted.push_back(PartedLink { incarnation, generation: peer.generation() });
        if self.parted.len() > LINKS_PARTED_MAX
            && let Some(forgotten) = self.parted.pop_front()
        {
            self.first_generation = self.first_generation.max(forgotten.generation.saturating_add(1));
        }
        self.shards.tell_reset(node);
        Some(peer.take_tally())
    }

    /// Takes a message of the bus. Bytes of strangers, of former lives and of unknown versions are dropped. The
    /// caller takes a turn behind its messages.
    pub(crate) fn take(&mut self, message: Bytes, now: Now) {
        self.now = Some(now.instant);
        match LinkMessage::parse(message) {
            Ok(message) => {
                let Some(node) = self.nodes.get(&message.from).copied() else { return };
                let Some(peer) = self.peers.get_mut(&node) else { return };
                if message.to != self.plan.incarnation {
                    // The other node has not heard of this life.
                    return peer.drop_word();
                }
                peer.take(message, now.instant);
                self.hear(node, now.instant);
                // Shards hear of their words with the turn. A shard with a full way holds up all words of the link.
                if self.peers.get(&node).is_some_and(Peer::is_stuck) {
                    self.shards.wake();
                }
            }
            Err(BadMessage::Version { version, from }) => {
                if let Some(node) = self.nodes.get(&from).copied()
                    && let Some(peer) = self.peers.get_mut(&node)
                    && peer.close()
                {
                    tracing::warn!(node = node.0, version, "the link is closed: another version of links");
                    self.shards.tell_reset(node);
                }
            }
            // The sender of such bytes is unknown.
            Err(BadMessage::Malformed) => {}
        }
    }

    /// Takes a bounded turn: words of shards, calls, answers, and deadlines. True if there is more to do at
    /// once. The caller sends everything of [`Exchange::poll_send`] behind each turn.
    pub(crate) fn turn(&mut self, now: Now) -> bool {
        let now = now.instant;
        self.now = Some(now);
        let mut is_busy = self.take_words(now);
        is_busy |= self.take_calls(now);
        if self.bell.is_rung.swap(false, Ordering::AcqRel) {
            for peer in self.peers.values_mut() {
                peer.take_answers(now);
            }
        }
        let nodes: Vec<NodeKey> = self.peers.keys().copied().collect();
        for node in nodes {
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.due(now);
            }
            self.hear(node, now);
        }
        let is_stuck = self.shards.pump() | self.peers.values().any(Peer::is_stuck);
        self.pump_at = is_stuck.then(|| now + EXCHANGE_PUMP_INTERVAL);
        self.shards.wake();
        is_busy
    }

    /// Takes words of the shards, each with the same share of the turn. True if words are left.
    fn take_words(&mut self, now: Instant) -> bool {
        for shard in 0..self.shards.count() {
            for _ in 0..EXCHANGE_TURN_WORDS_MAX {
                let Some(word) = self.shards.next_from(shard) else { break };
                self.take_word(shard, word, now);
            }
        }
        (0..self.shards.count()).any(|shard| self.shards.has_word(shard))
    }

    fn take_word(&mut self, shard: usize, said: ToNode, now: Instant) {
        let ToNode { node, word } = said;
        if matches!(word, NodeWord::ResetTaken) {
            return self.shards.reset_taken(shard, node);
        }
        if let NodeWord::Packed { slot, attempt, is_whole } = word {
            return self.packed.push_back(SlotPacked { shard, slot, attempt, is_whole });
        }
        let mut word = word;
        if let NodeWord::Room { state, .. } = &mut word {
            self.place_everywhere(state);
        }
        let is_of_former_link = self.shards.awaits(shard, node);
        match self.peers.get_mut(&node) {
            Some(peer) if !is_of_former_link && !peer.is_closed() => {
                peer.say(shard, word, now);
                return self.hear(node, now);
            }
            peer => peer.into_iter().for_each(Peer::drop_word),
        }
        // The home waits for a word about each batch. A reset on its way to the shard covers the batch.
        if let NodeWord::ToBranch(Delivery { room, run, said: HomeSaid::Level(level) }) = word
            && !is_of_former_link
            && !self.shards.tell_lapsed(node, BatchTag { shard, room, run, seq: level.seq })
        {
            // A shard that takes nothing loses the node again, which covers the lapse.
            self.shards.tell_reset(node);
        }
    }

    /// Names the places of a room by the lives of their nodes. The members of a node without a link are in no place.
    fn place_everywhere(&self, state: &mut RoomState) {
        for place in &mut state.places {
            if place.incarnation == OWN_PLACE {
                place.incarnation = self.plan.incarnation;
                continue;
            }
            let node = usize::try_from(place.incarnation).ok().and_then(node_of_place);
            place.incarnation = node.and_then(|node| self.peers.get(&node)).map_or(0, Peer::incarnation);
        }
    }

    /// The next shard that has said all its rooms of a slot.
    pub(super) fn poll_packed(&mut self) -> Option<SlotPacked> {
        self.packed.pop_front()
    }

    /// The next node whose link has begun anew.
    pub(super) fn poll_reset(&mut self) -> Option<NodeKey> {
        self.resets.pop_first()
    }

    /// The next word of another node about a hand-over.
    pub(super) fn poll_offer(&mut self) -> Option<OfferHeard> {
        self.peers.values_mut().find_map(Peer::poll_offer)
    }

    /// Says a word about a hand-over to a node, behind the rooms.
    pub(super) fn say_hand_over(
        &mut self,
        to: NodeKey,
        slot: Slot,
        attempt: u64,
        said: HandOverSaid,
        now: Now,
    ) {
        if let Some(peer) = self.peers.get_mut(&to).filter(|peer| !peer.is_closed()) {
            peer.say_hand_over(slot, attempt, said, now.instant);
            self.hear(to, now.instant);
        }
    }

    /// Tells all shards a word about a hand-over.
    pub(super) fn tell_shards(&mut self, word: impl Fn() -> FromNode) {
        self.shards.tell_all(word);
    }

    /// Takes calls of the doors. True if calls are left.
    fn take_calls(&mut self, now: Instant) -> bool {
        for _ in 0..EXCHANGE_TURN_WORDS_MAX {
            let Some(call) = self.plan.calls.pop() else { break };
            let node = call.node;
            let Some(peer) = self.peers.get_mut(&node) else {
                refuse(call);
                continue;
            };
            peer.call(self.next_call, call, now);
            self.next_call += 1;
            self.hear(node, now);
        }
        !self.plan.calls.is_empty()
    }

    /// Takes events and words of a link.
    fn hear(&mut self, node: NodeKey, now: Instant) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let mut news = peer.take_news(now);
        for lapsed in news.lapsed {
            // A shard that takes nothing loses the whole link, which covers the lapse.
            let is_full = !self.shards.tell_lapsed(node, lapsed);
            if is_full && !news.is_reset {
                peer.reset(now);
                news.is_reset = true;
            }
        }
        if news.is_reset {
            self.resets.insert(node);
            self.shards.tell_reset(node);
        }
        // An ack may have made room for them, and a reset has dropped them.
        peer.send_answers(now);
        peer.send_states(now);
        let waker = Waker::from(Arc::clone(&self.bell));
        let around = Around { doors: &self.plan.calls_in, nodes: &self.nodes, own: self.plan.incarnation };
        peer.deliver(&mut self.shards, &around, &waker, now);
    }

    /// The next message for a node's subject.
    pub(crate) fn poll_send(&mut self) -> Option<(NodeKey, Bytes)> {
        let now = self.now?;
        let from = self.sending.take().unwrap_or(NodeKey(0));
        for (node, peer) in self.peers.range_mut(from..) {
            if let Some(message) = peer.poll_send(now) {
                self.sending = Some(*node);
                return Some((*node, message));
            }
        }
        None
    }

    /// The moment of the next [`Exchange::turn`], unless something happens before.
    pub(crate) fn poll_deadline(&self) -> Option<Instant> {
        let untold = if self.shards.is_touched() { self.now } else { None };
        let peers = self.peers.values().filter_map(Peer::poll_deadline);
        peers.chain(self.pump_at).chain(untold).min()
    }

    /// The lag of the link to a node; `None`: no link leads there.
    pub(crate) fn lag(&self, node: NodeKey, now: Instant) -> Option<LinkLag> {
        self.peers.get(&node).filter(|peer| !peer.is_closed()).map(|peer| peer.lag(now))
    }

    /// Each link, for metrics: the counts since the last call, and the age of the oldest kept entry without an ack.
    pub(crate) fn take_tallies(&mut self, now: Now) -> Vec<(NodeKey, LinkTally, Duration)> {
        let tally =
            |(node, peer): (&NodeKey, &mut Peer)| (*node, peer.take_tally(), peer.lag(now.instant).age);
        self.peers.iter_mut().map(tally).collect()
    }
}

/// Answers a call that leads nowhere.
fn refuse(call: CallOut) {
    // The door may have given up.
    let _gone = call.reply.send(Err(CallFailed::Busy));
}
