//! One other node: its link, the calls in both directions, and the frames that have numbers.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use super::crowd::Crowd;
use super::shards::ShardEnds;
use crate::cluster::calls::{CallFailed, CallIn, CallOut, CallOutcome, NodeAnswer, NodeRequest};
use crate::cluster::shown::LinkLag;
use crate::cluster::wire::{self, FramesSent, FramesTaken, HandOverSaid, Word};
use crate::metrics::tally::LinkTally;
use crate::shard::lane::{Delivery, HomeSaid};
use crate::shard::ways::{FromNode, NodeWord, OWN_PLACE};
use roomcast_core::cluster::link::{Link, LinkEnds, LinkEntry, LinkEvent, LinkMessage};
use roomcast_core::cluster::{NodeKey, SLOTS, Slot, Term, node_place};
use roomcast_core::limits::{
    LINK_ANSWERS_BYTES_MAX, LINK_BESIDE_ANSWER_BYTES, LINK_CALL_BYTES_MAX, LINK_CALLS_MAX,
    LINK_ENTRY_BYTES_MAX, LINK_KEEPS_BYTES_MAX, LINK_KEEPS_WAITING_BYTES_MAX, LINK_KEPT_BYTES_MAX,
    LINK_STATES_BYTES_MAX, LINK_STATES_WAITING_BYTES_MAX, NODE_CALL_AGE_MAX,
};
use roomcast_core::node_proto::{Keep, RoomState};
use roomcast_core::room::id::{RoomName, Run, Seq};

/// The batch of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BatchTag {
    /// The shard with the home.
    pub(super) shard: usize,
    pub(super) room: RoomName,
    pub(super) run: Run,
    pub(super) seq: Seq,
}

/// Another node.
#[derive(Debug)]
pub(super) struct Peer {
    node: NodeKey,
    incarnation: u64,
    link: Link<BatchTag>,
    /// Words that gather before they are given to the link.
    crowd: Crowd,
    /// The other node speaks another version: nothing is sent or taken.
    is_closed: bool,
    sent: FramesSent,
    taken: FramesTaken,
    /// Calls of this node, by number: rising in time.
    calls: BTreeMap<u64, WaitingCall>,
    /// Calls of the other node that the doors have, by its number.
    asked: BTreeMap<u64, oneshot::Receiver<NodeAnswer>>,
    /// Answers of the doors that wait for room in the link, in order.
    answers: VecDeque<Bytes>,
    answers_bytes: usize,
    /// Words about hand-overs that wait for room in the link, in order: rooms are large.
    states: VecDeque<Bytes>,
    states_bytes: usize,
    /// Words with rooms for takeovers that wait for room in the link, behind those about hand-overs.
    keeps: VecDeque<Bytes>,
    keeps_bytes: usize,
    /// Words about hand-overs from the other node, for the cluster's thread.
    offers: VecDeque<OfferHeard>,
    /// A word that found the way of its shard full. Further words wait in the link.
    stuck: Option<StuckWord>,
    /// Messages and words dropped since the last look.
    dropped: u64,
}

#[derive(Debug)]
struct WaitingCall {
    reply: oneshot::Sender<CallOutcome>,
    until: Instant,
}

/// A word about the hand-over of a slot, from another node. All earlier rooms have been told to their shards.
#[derive(Debug)]
pub(in crate::cluster) struct OfferHeard {
    pub(in crate::cluster) node: NodeKey,
    pub(in crate::cluster) slot: Slot,
    pub(in crate::cluster) attempt: u64,
    /// `None`: the other node declines.
    pub(in crate::cluster) term: Option<Term>,
}

#[derive(Debug)]
struct StuckWord {
    room: RoomName,
    told: FromNode,
}

/// The link begins anew: the news tell of it.
struct LinkReset;
/// The parts of a node around its links.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around<'a> {
    /// Calls of other nodes, for the doors.
    pub(super) doors: &'a mpsc::Sender<CallIn>,
    /// Incarnation -> the number of the node.
    pub(super) nodes: &'a BTreeMap<u64, NodeKey>,
    /// The incarnation of this node.
    pub(super) own: u64,
}

/// The events of a link since the last look.
#[derive(Debug, Default)]
pub(super) struct PeerNews {
    pub(super) is_reset: bool,
    pub(super) lapsed: Vec<BatchTag>,
}

impl Peer {
    pub(super) fn new(node: NodeKey, ends: LinkEnds, generation: u32, now: Instant) -> Self {
        Self {
            node,
            incarnation: ends.peer,
            link: Link::new(ends, generation, now),
            crowd: Crowd::default(),
            is_closed: false,
            sent: FramesSent::default(),
            taken: FramesTaken::default(),
            calls: BTreeMap::new(),
            asked: BTreeMap::new(),
            answers: VecDeque::new(),
            answers_bytes: 0,
            states: VecDeque::new(),
            states_bytes: 0,
            keeps: VecDeque::new(),
            keeps_bytes: 0,
            offers: VecDeque::new(),
            stuck: None,
            dropped: 0,
        }
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub(super) fn generation(&self) -> u32 {
        self.link.generation()
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.is_some()
    }

    pub(super) fn lag(&self, now: Instant) -> LinkLag {
        LinkLag { age: self.link.age(now), kept_bytes: self.link.kept_bytes() }
    }

    /// Counts a word or a message that was dropped.
    pub(super) fn drop_word(&mut self) {
        self.dropped += 1;
    }

    /// True if nothing is sent or taken any more.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Closes the link for the life of both nodes. False if it is closed already.
    pub(super) fn close(&mut self) -> bool {
        let is_first = !std::mem::replace(&mut self.is_closed, true);
        self.give_up();
        is_first
    }

    /// Gives up everything on its way: the outcome of calls is unknown, and the other node waits for no answer.
    pub(super) fn give_up(&mut self) {
        self.crowd.forget();
        self.stuck = None;
        self.asked.clear();
        self.answers.clear();
        self.answers_bytes = 0;
        self.states.clear();
        self.states_bytes = 0;
        self.keeps.clear();
        self.keeps_bytes = 0;
        for call in std::mem::take(&mut self.calls).into_values() {
            // The door may have given up.
            let _gone = call.reply.send(Err(CallFailed::Unknown));
        }
    }

    pub(super) fn take(&mut self, message: LinkMessage, now: Instant) {
        if self.is_closed {
            return self.drop_word();
        }
        self.link.take(message, now);
    }

    pub(super) fn reset(&mut self, now: Instant) {
        self.link.reset(now);
        while self.link.poll_event().is_some() {}
        self.give_up();
    }

    /// Says a word of a shard.
    pub(super) fn say(&mut self, shard: usize, word: NodeWord, now: Instant) {
        if Crowd::takes(&word) {
            return self.crowd.push(word);
        }
        if let NodeWord::Keep(keep) = word {
            return self.say_keep(*keep, now);
        }
        // In order: a welcome at seq 5 comes before batch 6.
        if self.send_crowd(now).is_err() {
            return;
        }
        if let NodeWord::Room { slot, attempt, state } = word {
            return self.say_hand_over(slot, attempt, HandOverSaid::Room(state), now);
        }
        let bytes = self.encode(&word, now);
        let entry = match word {
            NodeWord::ToBranch(Delivery { room, run, said: HomeSaid::Level(level) }) => {
                LinkEntry::Batch { bytes, tag: BatchTag { shard, room, run, seq: level.seq } }
            }
            _ => LinkEntry::Kept(bytes),
        };
        self.link.push(entry, now);
    }

    /// Gives the crowd to the link. An error: the link has begun anew, and words of before are lost.
    fn send_crowd(&mut self, now: Instant) -> Result<(), LinkReset> {
        let generation = self.link.generation();
        for word in self.crowd.leave(now) {
            let bytes = self.encode(&word, now);
            self.link.push(LinkEntry::Kept(bytes), now);
            if self.link.generation() != generation {
                return Err(LinkReset);
            }
        }
        Ok(())
    }

    fn encode(&mut self, word: &NodeWord, now: Instant) -> Bytes {
        self.sent.begin(self.link.generation());
        wire::said(word, &mut self.sent, now)
    }

    /// Says a word about a hand-over, behind the earlier ones.
    pub(super) fn say_hand_over(&mut self, slot: Slot, attempt: u64, said: HandOverSaid, now: Instant) {
        let bytes = wire::hand_over(slot, attempt, said);
        if self.states_bytes + bytes.len() > LINK_STATES_WAITING_BYTES_MAX {
            // A room that is left out lives anew at its next home, and an offer is given up in time.
            return self.drop_word();
        }
        self.states_bytes += bytes.len();
        self.states.push_back(bytes);
        self.send_states(now);
    }

    /// Says rooms to the node that would take them over, once nothing else waits.
    fn say_keep(&mut self, keep: Keep, now: Instant) {
        let bytes = wire::keep(keep);
        if self.keeps_bytes + bytes.len() > LINK_KEEPS_WAITING_BYTES_MAX {
            // The home says the rooms whole again before long.
            return self.drop_word();
        }
        self.keeps_bytes += bytes.len();
        self.keeps.push_back(bytes);
        self.send_states(now);
    }

    /// Gives words with the state of rooms to the link, as far as it has room for them beside all else.
    pub(super) fn send_states(&mut self, now: Instant) {
        while let Some(state) = self.states.pop_front_if(|_| self.link.kept_bytes() < LINK_STATES_BYTES_MAX) {
            self.states_bytes -= state.len();
            self.link.push(LinkEntry::Kept(state), now);
        }
        let has_room = |link: &Link<BatchTag>| link.kept_bytes() < LINK_KEEPS_BYTES_MAX;
        while self.states.is_empty()
            && let Some(keep) = self.keeps.pop_front_if(|_| has_room(&self.link))
        {
            self.keeps_bytes -= keep.len();
            self.link.push(LinkEntry::Kept(keep), now);
        }
    }

    /// The next word about a hand-over.
    pub(super) fn poll_offer(&mut self) -> Option<OfferHeard> {
        self.offers.pop_front()
    }

    /// Makes a call, or refuses it.
    pub(super) fn call(&mut self, number: u64, call: CallOut, now: Instant) {
        let CallOut { request, reply, .. } = call;
        let is_full = self.link.kept_bytes() + request.body.len() > LINK_CALL_BYTES_MAX
            || self.calls.len() >= LINK_CALLS_MAX;
        if self.is_closed || is_full {
            // The door may have given up.
            let _gone = reply.send(Err(CallFailed::Busy));
            return;
        }
        self.calls.insert(number, WaitingCall { reply, until: now + NODE_CALL_AGE_MAX });
        self.link.push(LinkEntry::Kept(wire::call(number, &request)), now);
    }

    /// Sends the answers of the doors.
    pub(super) fn take_answers(&mut self, now: Instant) {
        let answered = |_: &u64, answer: &mut oneshot::Receiver<NodeAnswer>| match answer.try_recv() {
            Ok(answer) => Some(Ok(answer)),
            Err(TryRecvError::Closed) => Some(Err(CallFailed::Unknown)),
            Err(TryRecvError::Empty) => None,
        };
        let mut answers = Vec::new();
        self.asked.retain(|number, answer| {
            let outcome = answered(number, answer);
            let is_waiting = outcome.is_none();
            answers.extend(outcome.map(|outcome| (*number, outcome)));
            is_waiting
        });
        for (number, outcome) in answers {
            self.answer(number, &outcome, now);
        }
    }

    fn answer(&mut self, number: u64, outcome: &CallOutcome, now: Instant) {
        let mut bytes = wire::answer(number, outcome);
        if bytes.len() > LINK_ENTRY_BYTES_MAX || self.answers_bytes + bytes.len() > LINK_ANSWERS_BYTES_MAX {
            bytes = wire::answer(number, &Err(CallFailed::Unknown));
        }
        self.answers_bytes += bytes.len();
        self.answers.push_back(bytes);
        self.send_answers(now);
    }

    /// Gives answers to the link, as far as it has room for them: past its bound the link would begin anew, and all
    /// words on their way be lost.
    pub(super) fn send_answers(&mut self, now: Instant) {
        let room = |answer: &Bytes| LINK_CALL_BYTES_MAX.max(answer.len() + LINK_BESIDE_ANSWER_BYTES);
        while let Some(answer) =
            self.answers.pop_front_if(|answer| self.link.kept_bytes() + answer.len() <= room(answer))
        {
            self.answers_bytes -= answer.len();
            self.link.push(LinkEntry::Kept(answer), now);
        }
    }

    /// Does what is due.
    pub(super) fn due(&mut self, now: Instant) {
        if self.is_closed {
            return;
        }
        if self.crowd.is_due(now) {
            // The caller hears of a reset by the news.
            let _reset = self.send_crowd(now);
        }
        self.link.due(now);
        while let Some(call) = self.calls.first_entry().filter(|call| call.get().until <= now) {
            // The door may have given up.
            let _gone = call.remove().reply.send(Err(CallFailed::Unknown));
        }
    }

    /// Takes the events of the link. Branches hear of a gap for each room with lapses.
    pub(super) fn take_news(&mut self, now: Instant) -> PeerNews {
        let mut news = PeerNews::default();
        let mut gaps: BTreeMap<RoomName, (Run, Seq)> = BTreeMap::new();
        loop {
            while let Some(event) = self.link.poll_event() {
                match event {
                    LinkEvent::Reset => {
                        self.give_up();
                        gaps.clear();
                        news = PeerNews { is_reset: true, lapsed: Vec::new() };
                    }
                    LinkEvent::Lapsed { tag } => {
                        let newest = gaps.entry(tag.room.clone()).or_insert((tag.run, tag.seq));
                        // Batches of a room lapse in order, but for a change of its run.
                        *newest =
                            (tag.run, if newest.0 == tag.run { newest.1.max(tag.seq) } else { tag.seq });
                        news.lapsed.push(tag);
                    }
                }
            }
            // A gap past the bound of the link is the reset's own event.
            let Some((room, (run, seq))) = gaps.pop_first() else { return news };
            let gap = Delivery { room, run, said: HomeSaid::Gap { seq } };
            let bytes = self.encode(&NodeWord::ToBranch(gap), now);
            self.link.push(LinkEntry::Kept(bytes), now);
        }
    }

    /// Gives the words of the other node to shards and doors, as far as those take them.
    pub(super) fn deliver(
        &mut self,
        shards: &mut ShardEnds,
        around: &Around<'_>,
        waker: &Waker,
        now: Instant,
    ) {
        let Around { doors, nodes, own } = *around;
        if let Some(StuckWord { room, told }) = self.stuck.take()
            && let Err(told) = shards.tell(&room, told)
        {
            self.stuck = Some(StuckWord { room, told });
            return;
        }
        while let Some(entry) = self.link.poll_entry() {
            self.taken.begin(self.link.generation());
            match Word::decode(entry, &mut self.taken, now) {
                Ok(Word::Node(word)) => {
                    let Some(room) = word.room().cloned() else { continue };
                    let told = FromNode::Word { node: self.node, word };
                    if let Err(told) = shards.tell(&room, told) {
                        self.stuck = Some(StuckWord { room, told });
                        return;
                    }
                }
                Ok(Word::Call { number, request }) => self.ask(number, request, doors, waker, now),
                Ok(Word::Answer { number, outcome }) => {
                    if let Some(call) = self.calls.remove(&number) {
                        // The door may have given up.
                        let _gone = call.reply.send(outcome);
                    }
                }
                Ok(Word::HandOver { slot, attempt, said }) => {
                    let node = self.node;
                    let term = match said {
                        HandOverSaid::Room(mut state) => {
                            let Ok(room) = RoomName::parse(&state.room) else {
                                self.drop_word();
                                continue;
                            };
                            place_here(&mut state, nodes, own);
                            let told = FromNode::Arrived { node, slot, attempt, state };
                            if let Err(told) = shards.tell(&room, told) {
                                self.stuck = Some(StuckWord { room, told });
                                return;
                            }
                            continue;
                        }
                        HandOverSaid::Offer(term) => Some(term),
                        HandOverSaid::Declined => None,
                    };
                    if self.offers.len() < SLOTS {
                        self.offers.push_back(OfferHeard { node, slot, attempt, term });
                    }
                }
                Ok(Word::Keep { slot, term, rooms }) => {
                    self.dropped += shards.tell_kept(slot, term, rooms) as u64;
                }
                Err(wire::BadWord) => self.drop_word(),
            }
        }
    }

    /// Gives a call to the doors. Full doors answer at once.
    fn ask(
        &mut self,
        number: u64,
        request: NodeRequest,
        doors: &mpsc::Sender<CallIn>,
        waker: &Waker,
        now: Instant,
    ) {
        let (reply, mut answer) = oneshot::channel();
        if self.asked.len() + self.answers.len() >= LINK_CALLS_MAX {
            // Not behind the answers: the other node may call on and on.
            let busy = wire::answer(number, &Err(CallFailed::Busy));
            return self.link.push(LinkEntry::Kept(busy), now);
        }
        if doors.try_send(CallIn { request, reply }).is_err() {
            return self.answer(number, &Err(CallFailed::Busy), now);
        }
        // Leaves the waker with the answer. Without the budget of a task, which would be used up by many calls.
        let mut first_look = tokio::task::unconstrained(&mut answer);
        if let Poll::Ready(answer) = Pin::new(&mut first_look).poll(&mut Context::from_waker(waker)) {
            return self.answer(number, &answer.map_err(|_| CallFailed::Unknown), now);
        }
        self.asked.insert(number, answer);
    }

    pub(super) fn poll_send(&mut self, now: Instant) -> Option<Bytes> {
        if self.is_closed { None } else { self.link.poll_send(now) }
    }

    pub(super) fn poll_deadline(&self) -> Option<Instant> {
        if self.is_closed {
            return None;
        }
        let call = self.calls.first_key_value().map(|(_, call)| call.until);
        self.link.poll_deadline().into_iter().chain(self.crowd.poll_deadline()).chain(call).min()
    }

    pub(super) fn take_tally(&mut self) -> LinkTally {
        let tally = self.link.take_tally();
        LinkTally {
            bytes: tally.bytes,
            frames: tally.entries,
            lapsed: tally.lapsed,
            repeated: tally.repeated,
            resets: tally.resets,
            stale: tally.stale + std::mem::take(&mut self.dropped),
        }
    }
}

/// Names the places of a room by the numbers of this node. The members of a node without a link are in no place.
fn place_here(state: &mut RoomState, nodes: &BTreeMap<u64, NodeKey>, own: u64) {
    const NO_PLACE: u64 = u64::MAX - 1;
    for place in &mut state.places {
        let known = || nodes.get(&place.incarnation).map_or(NO_PLACE, |node| node_place(*node) as u64);
        place.incarnation = if place.incarnation == own { OWN_PLACE } else { known() };
    }
}

const _: () =
    assert!(LINK_ENTRY_BYTES_MAX + LINK_BESIDE_ANSWER_BYTES < LINK_KEPT_BYTES_MAX, "an answer fits");
