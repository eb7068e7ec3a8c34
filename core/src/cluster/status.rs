//! The cluster over all nodes, as an operator sees it: `GET /v1/ops/cluster`. The field names are the contract
//! (`docs/protocol.md`). Pure.
//!
//! The asked node puts the answer together from the heartbeats that it hears, and from the word of each node that
//! answers. The troubles follow from the answer alone, so the door and `roomcast cluster status` say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{Slot, Term};
use crate::limits::{LINK_LAG_MAX, NODES_MAX};
use crate::now::millis;

/// Characters of a text from another node: enough for its reason, and no megabyte.
const TEXT_CHARS_MAX: usize = 200;
/// Ranges of slots in a trouble's sentence. The others are left out.
const TROUBLE_RANGES_SHOWN: usize = 8;

/// The answer of `GET /v1/ops/cluster`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// `cluster.name`.
    pub cluster: String,
    /// The name of the asked node.
    pub node: String,
    /// The time of the answer by the asked node's clock, unix milliseconds.
    pub at: u64,
    /// All known nodes, by name.
    pub nodes: Vec<ClusterNodeView>,
    /// The names of the nodes without a `said`.
    pub silent: Vec<String>,
    /// All slots, rising.
    pub slots: Vec<SlotView>,
    /// The troubles of the cluster. None: all is well.
    pub troubles: Vec<TroubleView>,
}

/// A node: its heartbeat as the asked node heard it, and its own word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterNodeView {
    /// The name of the node.
    pub node: String,
    /// The state of the node.
    pub state: NodeState,
    /// `cluster.region` of the node.
    pub region: String,
    /// Places for devices.
    pub seats: u64,
    /// Places that are free.
    pub free_seats: u64,
    /// The processor time of the node's busiest shard, in thousandths.
    pub busy_permille: u64,
    /// The version of the node's words to other nodes.
    pub words_version: u8,
    /// The age of the node's last heartbeat, in milliseconds; of the asked node: as it came back from NATS.
    pub heard_ms: u64,
    /// The node's own word; absent without an answer within a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<NodeSaid>,
}

/// The state of a node, as another one finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// The node takes devices and orders rooms.
    Serving,
    /// The node stops, and takes no further slots and devices.
    Draining,
    /// The node does not hear its own heartbeat from NATS, so it orders nothing.
    Deaf,
    /// The node lives, and no link leads there: its version and this node's are further apart than one.
    Unlinked,
    /// The node's heartbeats have stopped, or it does not answer.
    Silent,
    /// The node's heartbeats have stopped without a goodbye, and NATS knows of no process that listens: it has ended,
    /// or has lost NATS.
    Ended,
}

impl NodeState {
    /// The name of the state in the answer.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Deaf => "deaf",
            Self::Unlinked => "unlinked",
            Self::Silent => "silent",
            Self::Ended => "ended",
        }
    }

    /// True for a node whose heartbeats come.
    fn is_heard(self) -> bool {
        !matches!(self, Self::Silent | Self::Ended)
    }
}

/// A node's own word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSaid {
    /// The version of the program.
    pub version: String,
    /// The start of the process by its own clock, unix milliseconds.
    pub started_at: u64,
    /// Members of rooms on the node.
    pub members: u64,
    /// Rooms that the node orders.
    pub rooms: u64,
    /// The other nodes as this one finds them, and the links to them.
    pub links: Vec<LinkView>,
    /// The node's part of the log.
    pub log: LogView,
}

/// A link from a node to another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkView {
    /// The name of the other node.
    pub node: String,
    /// The state of the other node.
    pub state: NodeState,
    /// The age of the oldest entry without an acknowledgement, in milliseconds; absent: no link leads there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<u64>,
    /// Bytes of entries without an acknowledgement.
    pub kept_bytes: u64,
}

/// A node's part of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogView {
    /// Slots that are claimed and not held yet.
    pub claiming: u64,
    /// Slots whose last operation failed or had no answer.
    pub troubled: Vec<Slot>,
    /// The trouble of the log; absent while it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing: Option<FailingView>,
}

/// A trouble of a node's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailingView {
    /// The time of the first failure, unix milliseconds.
    pub since: u64,
    /// The last error.
    pub why: String,
}

/// A slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotView {
    /// The number of the slot.
    pub slot: Slot,
    /// The state of the slot.
    pub state: SlotState,
    /// The name of the home; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// The highest term heard of the slot.
    pub term: Term,
}

/// The state of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// No living node has the slot.
    Nobody,
    /// The home does not answer.
    Silent,
    /// The home has no right to order at present.
    Frozen,
    /// The home orders the rooms.
    Ordered,
}

/// A trouble of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TroubleView {
    /// The stable name of the trouble.
    pub code: String,
    /// The trouble as a sentence, whose wording may change.
    pub text: String,
}

/// The word of a node to the asked one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The part that the answer shows.
    pub said: NodeSaid,
    /// The slots that the node holds.
    pub slots: Vec<OwnSlot>,
}

/// A slot of the node that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnSlot {
    /// The slot.
    pub slot: Slot,
    /// The term of the node's claim.
    pub term: Term,
    /// True without the right to order.
    pub is_frozen: bool,
}

/// A node of the answer, and the slots that it says it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterPart {
    /// The node.
    pub view: ClusterNodeView,
    /// The slots of the node. None without an answer.
    pub slots: Vec<OwnSlot>,
}

/// A slot as the asked node has heard of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeardSlot {
    /// The name of the home, another node.
    pub home: Option<String>,
    /// The highest term heard.
    pub term: Term,
}

impl NodeSaid {
    /// The word as far as an honest node goes: peers are strangers.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.links.truncate(NODES_MAX);
        self.log.troubled.sort_unstable();
        self.log.troubled.dedup();
        let texts = self.links.iter_mut().map(|link| &mut link.node);
        let why = self.log.failing.iter_mut().map(|failing| &mut failing.why);
        for text in texts.chain(why).chain([&mut self.version]) {
            *text = text.chars().take(TEXT_CHARS_MAX).collect();
        }
        self
    }
}

impl ClusterView {
    /// Puts the answer of `node` together. `heard` has the slots in order, as that node has heard of them before it
    /// asked the others.
    #[must_use]
    pub fn new(cluster: &str, node: &str, at: u64, mut parts: Vec<ClusterPart>, heard: &[HeardSlot]) -> Self {
        parts.sort_by(|a, b| a.view.node.cmp(&b.view.node));
        let slots = slot_lines(&parts, heard);
        let nodes: Vec<ClusterNodeView> = parts.into_iter().map(|part| part.view).collect();
        let silent = nodes.iter().filter(|node| node.said.is_none()).map(|node| node.node.clone()).collect();
        let mut view = Self {
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            at,
            nodes,
            silent,
            slots,
            troubles: Vec::new(),
        };
        let mut troubles = view.troubles_of_nodes();
        troubles.extend(view.troubles_of_slots());
        troubles.extend(view.troubles_of_links());
        troubles.extend(view.troubles_of_logs());
        view.troubles = troubles;
        view
    }

    /// The slots in a state, rising.
    pub fn slots_in(&self, state: SlotState) -> impl Iterator<Item = Slot> {
        self.slots.iter().filter(move |slot| slot.state == state).map(|slot| slot.slot)
    }

    fn troubles_of_nodes(&self) -> Vec<TroubleView> {
        let told = |view: &ClusterNodeView| {
            let ClusterNodeView { node, heard_ms, words_version, .. } = view;
            let age = in_seconds(*heard_ms);
            let asked = &self.node;
            let (code, text) = match view.state {
                NodeState::Serving | NodeState::Draining => return None,
                NodeState::Deaf => (
                    "node_deaf",
                    format!("{node} does not hear its own heartbeats from NATS: it orders nothing"),
                ),
                NodeState::Unlinked => (
                    "node_unlinked",
                    format!("{node} has no link to {asked}: its words are of version {words_version}"),
                ),
                NodeState::Silent => {
                    ("node_silent", format!("{node} does not answer: its last heartbeat is {age} old"))
                }
                NodeState::Ended => (
                    "node_ended",
                    format!("{node} has ended, or has lost NATS: its last heartbeat is {age} old"),
                ),
            };
            Some(trouble(code, text))
        };
        self.nodes.iter().filter_map(told).collect()
    }

    fn troubles_of_slots(&self) -> Vec<TroubleView> {
        let states = [
            (SlotState::Nobody, "slots_without_home", "without a home: no node orders their rooms"),
            (SlotState::Silent, "slots_silent", "with a home that does not answer"),
            (SlotState::Frozen, "slots_frozen", "frozen: their home has no right to order now"),
        ];
        let told = |(state, code, means)| {
            let slots: Vec<Slot> = self.slots_in(state).collect();
            let text = format!("{} {means} ({})", counted(slots.len()), first_ranges(&slots));
            (!slots.is_empty()).then(|| trouble(code, text))
        };
        states.into_iter().filter_map(told).collect()
    }

    /// The troubles between nodes that answered both.
    fn troubles_of_links(&self) -> Vec<TroubleView> {
        let answered = || self.nodes.iter().filter_map(|node| Some((&node.node, node.said.as_ref()?)));
        let mut troubles = Vec::new();
        for (from, said) in answered() {
            let links: BTreeMap<&String, &LinkView> =
                said.links.iter().map(|link| (&link.node, link)).collect();
            for (to, _) in answered().filter(|(to, _)| *to != from) {
                if !links.get(to).is_some_and(|link| link.state.is_heard()) {
                    troubles.push(trouble("node_unheard", format!("{from} does not hear {to}")));
                }
            }
            for LinkView { node, lag_ms, .. } in &said.links {
                if let Some(lag_ms) = lag_ms.filter(|lag_ms| *lag_ms >= millis(LINK_LAG_MAX)) {
                    let lag = in_seconds(lag_ms);
                    troubles
                        .push(trouble("link_lags", format!("the link from {from} to {node} lags by {lag}")));
                }
            }
        }
        troubles
    }

    fn troubles_of_logs(&self) -> Vec<TroubleView> {
        let mut troubles = Vec::new();
        for (node, log) in self.nodes.iter().filter_map(|node| Some((&node.node, &node.said.as_ref()?.log))) {
            let LogView { troubled, failing, .. } = log;
            let slots = || format!("{} in trouble ({})", counted(troubled.len()), first_ranges(troubled));
            let text = match failing {
                Some(FailingView { since, why }) => {
                    // Another machine's clock may be ahead.
                    let age = in_seconds(self.at.saturating_sub(*since));
                    let slots = if troubled.is_empty() { String::new() } else { format!(", {}", slots()) };
                    format!("the log of {node} fails for {age}{slots}: {why}")
                }
                None if troubled.is_empty() => continue,
                None => format!("the log of {node} fails: {}", slots()),
            };
            troubles.push(trouble("log_failing", text));
        }
        troubles
    }
}

/// A line for each slot. The highest term names the home: a lower one was told before its node had heard of the higher.
fn slot_lines(parts: &[ClusterPart], heard: &[HeardSlot]) -> Vec<SlotView> {
    let without = |slot| SlotView { slot, state: SlotState::Nobody, home: None, term: Term::default() };
    let mut lines: Vec<SlotView> = Slot::all().map(without).collect();
    let mut told = |slot: Slot, term: Term, state: SlotState, home: &str| {
        let line = &mut lines[slot.index()];
        if (term, state) > (line.term, line.state) {
            *line = SlotView { slot, state, home: Some(home.to_owned()), term };
        }
    };
    for ClusterPart { view, slots } in parts {
        for OwnSlot { slot, term, is_frozen } in slots {
            let state = if *is_frozen { SlotState::Frozen } else { SlotState::Ordered };
            told(*slot, *term, state, &view.node);
        }
    }
    let silent: BTreeSet<&str> =
        parts.iter().filter(|part| part.view.said.is_none()).map(|part| part.view.node.as_str()).collect();
    for (slot, HeardSlot { home, term }) in Slot::all().zip(heard) {
        // A node that answers speaks for itself.
        if let Some(home) = home.as_deref().filter(|home| silent.contains(home)) {
            told(slot, *term, SlotState::Silent, home);
        }
    }
    for (line, heard) in lines.iter_mut().zip(heard) {
        line.term = line.term.max(heard.term);
    }
    lines
}

fn trouble(code: &str, text: String) -> TroubleView {
    TroubleView { code: code.to_owned(), text }
}

fn counted(slots: usize) -> String {
    if slots == 1 { "1 slot".to_owned() } else { format!("{slots} slots") }
}

/// A time of milliseconds, in seconds and tenths.
fn in_seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

/// Rising slots as a list of ranges: `3, 7-9`.
#[must_use]
pub fn ranges(slots: &[Slot]) -> String {
    let mut text = String::new();
    for run in slots.chunk_by(|a, b| a.index() + 1 == b.index()) {
        let comma = if text.is_empty() { "" } else { ", " };
        match run {
            [Slot(only)] => write!(text, "{comma}{only}"),
            [Slot(first), .., Slot(last)] => write!(text, "{comma}{first}-{last}"),
            [] => Ok(()),
        }
        .expect("a string takes every write");
    }
    text
}

/// The first ranges of rising slots: a sentence is for people, and the answer has them all.
fn first_ranges(slots: &[Slot]) -> String {
    let all = ranges(slots);
    match all.match_indices(", ").nth(TROUBLE_RANGES_SHOWN - 1) {
        Some((end, _)) => format!("{}, …", &all[..end]),
        None => all,
    }
}

#[cfg(test)]
mod tests;
