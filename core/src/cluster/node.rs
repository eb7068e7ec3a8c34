//! Nodes by their names, and their words to one another: heartbeats and claims.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Slot, Term};
use crate::limits::NODE_NAME_MAX;

/// The newest version of the words between nodes, and of entries in the log, that this build speaks. It speaks the
/// version before as well, so that the nodes of a cluster can be replaced one after the other.
pub const NODE_VERSION: u8 = if cfg!(feature = "next-version") { 2 } else { 1 };

/// The oldest version that this build speaks.
pub const NODE_VERSION_OLDEST: u8 = oldest(NODE_VERSION);

/// The oldest version that a node speaks beside `newest`.
const fn oldest(newest: u8) -> u8 {
    if newest > 1 { newest - 1 } else { 1 }
}

/// The version that two nodes speak with one another: the older one of both. `None`: they are further apart than one.
/// Then each counts the other one as a member, and there is no link.
#[must_use]
pub fn spoken(own: u8, other: u8) -> Option<u8> {
    (own.abs_diff(other) <= 1).then_some(own.min(other)).filter(|version| *version > 0)
}

/// The version of words to all nodes at once, and of entries in the log: the newest one that each of `others` speaks,
/// or the oldest one of this node.
#[must_use]
pub(super) fn spoken_to_all(own: u8, others: impl Iterator<Item = u8>) -> u8 {
    others.fold(own, u8::min).max(oldest(own))
}

/// The name of a node, unique in its cluster: 1 to [`NODE_NAME_MAX`] letters, digits, `-` and `_`. Such a name is
/// one word of a NATS subject.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// Checks a name. `None`: the text is no name of a node.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_allowed = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_');
        let is_name = (1..=NODE_NAME_MAX).contains(&text.len()) && text.bytes().all(is_allowed);
        is_name.then(|| Self(text.into()))
    }

    /// The text of the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A sign of life from a node, each [`BEAT_INTERVAL`](crate::limits::BEAT_INTERVAL).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The node.
    pub node: NodeName,
    /// The life of the node. A later life has a higher number, as far as the node's wall clock rises.
    pub incarnation: u64,
    /// The number of the heartbeat in its life, from 1.
    pub number: u64,
    /// The version of the node's words.
    pub version: u8,
    /// The facts that routes and placement need.
    pub load: NodeLoad,
    /// The node takes no further slots and devices.
    pub is_draining: bool,
    /// The node has no echo, so it orders nothing, and others take its slots.
    pub is_deaf: bool,
    /// A goodbye: the node ends, and its slots are free.
    pub is_leaving: bool,
    /// All slots that the node holds.
    pub slots: Vec<HeldSlot>,
    /// The nodes that the node has heard lately.
    pub heard: Vec<HeardNode>,
}

/// The place and the load of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeLoad {
    /// The region of the node.
    pub region: String,
    /// The URL for devices. Empty: none can be sent there.
    pub viewer_url: String,
    /// Number of shards, the weight of the node in the order of each slot.
    pub shards: u32,
    /// Connections that the node may hold.
    pub seats: u64,
    /// Connections that the node may still take.
    pub free_seats: u64,
    /// Processor time of the busiest shard in the last second, in thousandths.
    pub busy_permille: u64,
}

/// A slot, and the claim with which a node holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldSlot {
    /// The slot.
    pub slot: Slot,
    /// The term of the claim.
    pub term: Term,
}

/// A node that the sender of a heartbeat has heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeardNode {
    /// The name of the heard node.
    pub name: NodeName,
    /// The life of the heard node.
    pub incarnation: u64,
    /// Time between the last heartbeat of that node and the sending of this one.
    pub age: Duration,
}

/// A claim in the log of a slot, told to all nodes at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The slot.
    pub slot: Slot,
    /// The term of the claim.
    pub term: Term,
    /// The node that has claimed.
    pub node: NodeName,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word_of_a_subject() {
        for name in ["a", "node-1", "Node_2", &"x".repeat(NODE_NAME_MAX)] {
            assert_eq!(NodeName::parse(name).unwrap().as_str(), name);
        }
        for text in ["", "a.b", "a b", "*", ">", "ä", &"x".repeat(NODE_NAME_MAX + 1)] {
            assert_eq!(NodeName::parse(text), None, "{text}");
        }
    }
}
