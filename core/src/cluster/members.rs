//! The nodes of a cluster, as one of them hears the others: who lives, and how well this node hears.
//!
//! Each node judges for itself. A node without its own echo is the deaf one, and judges nobody. A node that another
//! living node hears is not dead, so the judge looks for a better NATS server instead.
//!
//! Pure: no clock and no socket. The [`View`](super::view::View) drives it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::node::{HeardNode, Heartbeat, NODE_VERSION, NodeLoad, NodeName, spoken};
use super::{NodeKey, Slot, rendezvous};
use crate::limits::{
    BEATS_WAITING_MAX, ECHO_AGE_MAX, NODE_KNOWN_AGE, NODE_SILENCE_MAX, NODES_MAX, PROBE_INTERVAL,
    RECONNECT_PAUSE, UNHEARD_RECONNECT_PAUSE,
};

/// This node, as the others know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnNode {
    /// The name of the node.
    pub name: NodeName,
    /// The life of the node.
    pub incarnation: u64,
    /// Number of shards, the weight of the node in the order of each slot.
    pub shards: u32,
    /// Silence after which another node counts as dead, whatever its probes say.
    pub dead_after: Duration,
}

/// A word about membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MemberWord {
    Met { node: NodeKey, incarnation: u64, version: u8 },
    Parted { node: NodeKey },
    Probe { name: NodeName, number: u64 },
    Reconnect,
    NameTaken,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The number of the node in its present life.
    pub key: NodeKey,
    /// The facts of its last heartbeat.
    pub load: NodeLoad,
    /// True for a node that takes no further slots and devices.
    pub is_draining: bool,
    /// False once this node counts the other one as dead, or has heard its goodbye.
    pub is_alive: bool,
    /// True for a node without its own echo, which orders nothing.
    pub is_deaf: bool,
    /// The newest version that it speaks.
    pub version: u8,
    /// The last moment at which this node heard the other one.
    pub heard_at: Instant,
    incarnation: u64,
    /// The number of the last heartbeat.
    number: u64,
    has_left: bool,
    /// The last moment at which a third node heard this one.
    told_at: Option<Instant>,
    /// The last moment at which the other node heard this one, as it says.
    hears_us_at: Instant,
    silence: Silence,
}

/// The probes of a silent node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Silence {
    /// The number of the first probe since the node was heard.
    first_probe: Option<u64>,
    probed_at: Option<Instant>,
    /// No responder took a probe.
    is_unanswered: bool,
}

impl Peer {
    /// True for a dead node to whose subject nobody listens: its process has ended, or has lost its connection to NATS.
    /// NATS keeps the subject of a process that stands still, and for some minutes that of a lost machine.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        !self.is_alive && self.silence.is_unanswered
    }
}

/// All nodes that this one knows, itself included.
#[derive(Debug)]
pub(super) struct Members {
    own: OwnNode,
    /// Name -> node. Nodes that are silent for `NODE_KNOWN_AGE` are gone.
    peers: BTreeMap<NodeName, Peer>,
    next_key: u32,
    next_probe: u64,
    /// The number of the last heartbeat.
    beats: u64,
    /// Number -> time of sending, oldest first, of heartbeats whose echo may still come.
    waiting: VecDeque<Beat>,
    /// The time of sending of the newest heartbeat with an echo.
    echo_at: Option<Instant>,
    /// Begin of the time in which echoes came without a pause.
    listening_since: Option<Instant>,
    reconnected_at: Instant,
    /// The last foreign life of this node's own name.
    twin: Option<u64>,
    ignored: u64,
    words: VecDeque<MemberWord>,
}

/// A heartbeat on its way.
#[derive(Debug, Clone, Copy)]
struct Beat {
    number: u64,
    sent: Instant,
}

impl Members {
    pub(super) fn new(own: OwnNode, now: Instant) -> Self {
        Self {
            own,
            peers: BTreeMap::new(),
            next_key: 0,
            next_probe: 0,
            beats: 0,
            waiting: VecDeque::new(),
            echo_at: None,
            listening_since: None,
            reconnected_at: now,
            twin: None,
            ignored: 0,
            words: VecDeque::new(),
        }
    }

    pub(super) fn own(&self) -> &OwnNode {
        &self.own
    }

    /// The next word, to be drained after each input.
    pub(super) fn poll_word(&mut self) -> Option<MemberWord> {
        self.words.pop_front()
    }

    /// Numbers a heartbeat that is sent now.
    pub(super) fn next_beat(&mut self, now: Instant) -> u64 {
        self.beats += 1;
        if self.waiting.len() == BEATS_WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Beat { number: self.beats, sent: now });
        self.beats
    }

    /// The nodes heard within `NODE_SILENCE_MAX`, for a heartbeat.
    pub(super) fn heard(&self, now: Instant) -> Vec<HeardNode> {
        let heard = self.peers.iter().filter(|(_, peer)| {
            peer.is_alive && now.saturating_duration_since(peer.heard_at) < NODE_SILENCE_MAX
        });
        let node = |(name, peer): (&NodeName, &Peer)| HeardNode {
            name: name.clone(),
            incarnation: peer.incarnation,
            age: now.saturating_duration_since(peer.heard_at),
        };
        heard.map(node).collect()
    }

    /// Takes a heartbeat. The result is the living node that has sent it; `None`: nobody's slots change.
    pub(super) fn hear(&mut self, beat: &Heartbeat, now: Instant) -> Option<NodeKey> {
        if beat.node == self.own.name {
            self.hear_own(beat, now);
            return None;
        }
        let key = self.hear_peer(beat, now)?;
        self.take_told(beat, now);
        Some(key)
    }

    fn hear_own(&mut self, beat: &Heartbeat, now: Instant) {
        if beat.incarnation != self.own.incarnation {
            // A late word of a former life has a lower number, as far as clocks rise.
            if beat.incarnation > self.own.incarnation && self.twin != Some(beat.incarnation) {
                self.twin = Some(beat.incarnation);
                self.words.push_back(MemberWord::NameTaken);
            }
            return;
        }
        // The time of sending counts: a stopped process finds old echoes once it goes on.
        let Some(sent) = self.waiting.iter().find(|sent| sent.number == beat.number).map(|beat| beat.sent)
        else {
            return;
        };
        self.waiting.retain(|waiting| waiting.number > beat.number);
        let was_deaf = self.is_deaf(now);
        self.echo_at = self.echo_at.max(Some(sent));
        if was_deaf && !self.is_deaf(now) {
            self.listening_since = Some(now);
        }
    }

    fn hear_peer(&mut self, beat: &Heartbeat, now: Instant) -> Option<NodeKey> {
        let known = self.peers.get(&beat.node);
        let is_new_life = known.is_none_or(|peer| peer.incarnation != beat.incarnation);
        if let Some(peer) = known {
            // A late word of a former life, or of a node that has said goodbye.
            let is_former = beat.incarnation < peer.incarnation && peer.is_alive;
            if is_former || !is_new_life && (peer.has_left || beat.number <= peer.number) {
                return None;
            }
        } else if self.peers.len() == NODES_MAX {
            self.ignored += 1;
            return None;
        }
        if is_new_life {
            self.begin_life(beat, now);
        }
        let peer = self.peers.get_mut(&beat.node).expect("the node is known by now");
        let was_alive = peer.is_alive && !is_new_life;
        peer.load = beat.load.clone();
        peer.is_draining = beat.is_draining;
        peer.version = beat.version;
        peer.number = beat.number;
        peer.is_deaf = beat.is_deaf;
        peer.heard_at = now;
        peer.silence = Silence::default();
        peer.is_alive = !beat.is_leaving;
        peer.has_left = beat.is_leaving;
        let node = peer.key;
        if peer.is_alive
            && !was_alive
            && let Some(version) = spoken(NODE_VERSION, peer.version)
        {
            self.words.push_back(MemberWord::Met { node, incarnation: beat.incarnation, version });
        } else if was_alive && beat.is_leaving {
            self.words.push_back(MemberWord::Parted { node });
        }
        (!beat.is_leaving).then_some(node)
    }

    /// Gives a node a key for its new life, and ends the former one.
    fn begin_life(&mut self, beat: &Heartbeat, now: Instant) {
        let key = NodeKey(self.next_key);
        self.next_key += 1;
        let peer = Peer {
            key,
            load: NodeLoad::default(),
            is_draining: false,
            is_alive: false,
            incarnation: beat.incarnation,
            version: 0,
            number: 0,
            is_deaf: false,
            has_left: false,
            heard_at: now,
            told_at: None,
            // Time to hear this node: a newcomer must not freeze the slots of a node that was alone.
            hears_us_at: now,
            silence: Silence::default(),
        };
        if let Some(former) = self.peers.insert(beat.node.clone(), peer)
            && former.is_alive
        {
            self.words.push_back(MemberWord::Parted { node: former.key });
        }
    }

    /// Takes what a living node says about the nodes that it hears.
    fn take_told(&mut self, beat: &Heartbeat, now: Instant) {
        for heard in &beat.heard {
            let Some(at) = now.checked_sub(heard.age) else { continue };
            if heard.name == self.own.name {
                let speaker = self.peers.get_mut(&beat.node);
                if let Some(peer) = speaker.filter(|_| heard.incarnation == self.own.incarnation) {
                    peer.hears_us_at = peer.hears_us_at.max(at);
                }
            } else if let Some(peer) = self.peers.get_mut(&heard.name)
                && peer.incarnation == heard.incarnation
            {
                peer.told_at = peer.told_at.max(Some(at));
            }
        }
    }

    /// Forgets the echoes: the clock stood still, and they are older than they seem.
    pub(super) fn forget_echoes(&mut self) {
        self.waiting.clear();
        self.echo_at = None;
        self.listening_since = None;
    }

    /// Takes a sign of life of a node that came another way: a claim of its own in a log.
    pub(super) fn told(&mut self, name: &NodeName, now: Instant) {
        if let Some(peer) = self.peers.get_mut(name) {
            peer.told_at = Some(now);
        }
    }

    /// Takes the word of a NATS server that nobody listens to a node's subject.
    pub(super) fn no_responder(&mut self, name: &NodeName, number: u64) {
        if let Some(peer) = self.peers.get_mut(name)
            && peer.silence.first_probe.is_some_and(|first| number >= first)
        {
            peer.silence.is_unanswered = true;
        }
    }

    /// Judges the silence of this node and of the others.
    pub(super) fn judge(&mut self, now: Instant) {
        let listening = self.listening_since.filter(|_| !self.is_deaf(now));
        let Some(since) = listening else {
            self.reconnect(RECONNECT_PAUSE, now);
            return;
        };
        let mut is_unheard = false;
        for (name, peer) in self.peers.iter_mut().filter(|(_, peer)| !peer.has_left) {
            // What was said while this node was deaf is no silence.
            let silence = now.saturating_duration_since(peer.heard_at.max(since));
            if silence < NODE_SILENCE_MAX {
                continue;
            }
            if !peer.is_alive {
                // Probed on: an operator wants to know if the process stands still or has ended.
                if peer.silence.is_unanswered {
                    continue;
                }
            } else if peer.told_at.is_some_and(|at| now.saturating_duration_since(at) < NODE_SILENCE_MAX) {
                is_unheard = true;
            } else if peer.silence.is_unanswered || silence >= self.own.dead_after {
                peer.is_alive = false;
                self.words.push_back(MemberWord::Parted { node: peer.key });
                continue;
            }
            let probed = peer.silence.probed_at;
            if probed.is_none_or(|at| now.saturating_duration_since(at) >= PROBE_INTERVAL) {
                self.next_probe += 1;
                let number = self.next_probe;
                peer.silence.first_probe.get_or_insert(number);
                peer.silence.probed_at = Some(now);
                self.words.push_back(MemberWord::Probe { name: name.clone(), number });
            }
        }
        self.peers.retain(|_, peer| {
            peer.is_alive || now.saturating_duration_since(peer.heard_at.max(since)) < NODE_KNOWN_AGE
        });
        if is_unheard {
            self.reconnect(UNHEARD_RECONNECT_PAUSE, now);
        }
    }

    /// Asks for another NATS server, unless the last one is younger than `pause`.
    fn reconnect(&mut self, pause: Duration, now: Instant) {
        if now.saturating_duration_since(self.reconnected_at) >= pause {
            self.reconnected_at = now;
            self.words.push_back(MemberWord::Reconnect);
        }
    }

    /// Time since the sending of the newest heartbeat with an echo. `None`: none has come yet.
    pub(super) fn echo_age(&self, now: Instant) -> Option<Duration> {
        self.echo_at.map(|at| now.saturating_duration_since(at))
    }

    /// The sending of the newest heartbeat with an echo.
    pub(super) fn echo_at(&self) -> Option<Instant> {
        self.echo_at
    }

    /// True while the node has no fresh echo: what it does not hear may have been said.
    pub(super) fn is_deaf(&self, now: Instant) -> bool {
        self.echo_age(now).is_none_or(|age| age >= ECHO_AGE_MAX)
    }

    /// Time for which echoes have come without a pause.
    pub(super) fn listening_for(&self, now: Instant) -> Duration {
        let since = self.listening_since.filter(|_| !self.is_deaf(now));
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Counts the known nodes, and those that this node hears and that hear this one, each within `age`. Both counts
    /// include this node.
    pub(super) fn hearing(&self, age: Duration, now: Instant) -> Hearing {
        let mut hearing = Hearing { known: 1, heard: 1 };
        for peer in self.peers.values().filter(|peer| !peer.has_left) {
            hearing.known += 1;
            // Both ways: a node that nobody hears may have lost its slots, whatever it hears.
            let mutual = peer.heard_at.min(peer.hears_us_at);
            if now.saturating_duration_since(mutual) < age {
                hearing.heard += 1;
            }
        }
        hearing
    }

    /// True for a node that can be the home of slots: it lives in this life, and has its echo.
    pub(super) fn can_order(&self, key: NodeKey) -> bool {
        self.peers.values().any(|peer| peer.key == key && peer.is_alive && !peer.is_deaf)
    }

    /// The number of a known node, alive or not.
    pub(super) fn key_of(&self, name: &NodeName) -> Option<NodeKey> {
        self.peers.get(name).map(|peer| peer.key)
    }

    /// The name of a known node.
    pub(super) fn name_of(&self, key: NodeKey) -> Option<&NodeName> {
        self.peers.iter().find(|(_, peer)| peer.key == key).map(|(name, _)| name)
    }

    pub(super) fn heard_at(&self, key: NodeKey) -> Option<Instant> {
        self.peers.values().find(|peer| peer.key == key).map(|peer| peer.heard_at)
    }

    /// The known nodes that said no goodbye, alive or not.
    pub(super) fn peers(&self) -> impl Iterator<Item = (&NodeName, &Peer)> {
        self.peers.iter().filter(|(_, peer)| !peer.has_left)
    }

    /// The newest version of each known node. A node that has said goodbye may be back in a moment, as it was.
    pub(super) fn versions(&self) -> impl Iterator<Item = u8> {
        self.peers.values().map(|peer| peer.version)
    }

    /// Heartbeats of nodes past `NODES_MAX`.
    pub(super) fn ignored(&self) -> u64 {
        self.ignored
    }

    /// The others that may take slots.
    fn takers(&self) -> impl Iterator<Item = (&NodeName, &Peer)> {
        self.peers.iter().filter(|(_, peer)| peer.is_alive && !peer.is_deaf && !peer.is_draining)
    }

    /// The nodes that may take a slot, first choice first. `own_too` puts this node among them, as `None`.
    pub(super) fn order_of(&self, slot: Slot, own_too: bool) -> Vec<Option<NodeKey>> {
        let own = own_too.then(|| (rendezvous::score(&self.own.name, slot, self.own.shards), None));
        let peers = self
            .takers()
            .map(|(name, peer)| (rendezvous::score(name, slot, peer.load.shards), Some(peer.key)));
        let mut scored: Vec<_> = own.into_iter().chain(peers).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        scored.into_iter().map(|(_, node)| node).collect()
    }

    /// The nodes that may take slots of this node: a hand-over needs a link. `written`: the newest version of entries
    /// in the slots' logs, which an older node could not read.
    fn linked_takers(&self, written: u8) -> impl Iterator<Item = (&NodeName, &Peer)> {
        self.takers()
            .filter(move |(_, peer)| spoken(NODE_VERSION, peer.version).is_some() && peer.version >= written)
    }

    /// True if another node may take slots of this one.
    pub(super) fn has_taker(&self, written: u8) -> bool {
        self.linked_takers(written).next().is_some()
    }

    /// The first choice for a slot among the others that may take it.
    pub(super) fn taker_of(&self, slot: Slot, written: u8) -> Option<NodeKey> {
        self.scored_taker(slot, written).map(|(_, key)| key)
    }

    /// The first choice for a slot among the others that may take it, if it comes before this node.
    pub(super) fn better_taker_of(&self, slot: Slot, written: u8) -> Option<NodeKey> {
        let own = rendezvous::score(&self.own.name, slot, self.own.shards);
        self.scored_taker(slot, written).filter(|(score, _)| *score > own).map(|(_, key)| key)
    }

    fn scored_taker(&self, slot: Slot, written: u8) -> Option<(f64, NodeKey)> {
        let scored =
            |(name, peer): (&NodeName, &Peer)| (rendezvous::score(name, slot, peer.load.shards), peer.key);
        self.linked_takers(written).map(scored).max_by(|one, other| one.0.total_cmp(&other.0))
    }

    /// True if this node comes before all living nodes in the order of a slot.
    pub(super) fn is_first_choice(&self, slot: Slot) -> bool {
        let own = rendezvous::score(&self.own.name, slot, self.own.shards);
        self.takers().all(|(name, peer)| rendezvous::score(name, slot, peer.load.shards) < own)
    }
}

/// The number of known nodes, and of those heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hearing {
    pub(super) known: usize,
    pub(super) heard: usize,
}

impl Hearing {
    /// True if more than half of the known nodes are heard.
    pub(super) fn is_most(self) -> bool {
        2 * self.heard > self.known
    }

    /// True if each known node is heard.
    pub(super) fn is_all(self) -> bool {
        self.heard == self.known
    }
}
