//! Many nodes: the slots of rooms, and the standing of each slot. Pure.
//!
//! A room belongs to a slot. The rooms of a slot share their home node, the log of their reliable messages, and
//! the term of that home.

mod branch;
pub mod handover;
pub mod kept;
pub mod link;
mod members;
pub mod node;
pub mod quota;
mod rendezvous;
pub mod status;
pub mod view;

pub use branch::{Branch, BranchSaid, HandedIn, HandedOut, JoinKey, Welcoming};
pub use members::{OwnNode, Peer};

use serde::{Deserialize, Serialize};

use crate::limits::SHARDS_MAX;
use crate::room::id::{NameKey, RoomName};
use crate::room::message::Homeless;

/// Number of slots of a cluster, fixed for the life of its streams.
pub const SLOTS: usize = 256;

/// The share of rooms that moves between nodes as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u8);

impl Slot {
    /// The slot of a room. `key` is drawn by the node that makes the streams of the cluster, and kept in their
    /// metadata.
    #[must_use]
    pub fn of(room: &RoomName, key: NameKey) -> Self {
        // The low byte: `home()` of a node mixes all 64 bits with another key.
        Self(key.hash(room).to_le_bytes()[0])
    }

    /// All slots, rising.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Slot)
    }

    /// The place in a list of all slots.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A fencing token: the claim with which a node became the home of a slot. The higher wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Term {
    /// Begins anew when the log has shrunk: a claim whose sequence is not above every term heard of its slot is
    /// repeated with the next generation.
    pub generation: u64,
    /// The stream sequence of the claim. 0: no claim was ever heard of.
    pub sequence: u64,
}

/// The number of another node in one of its lives, as this process counts them. A node that restarts gets
/// another number, and no number is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKey(pub u32);

/// The place of a node among the segments of a room. Places below `SHARDS_MAX` are local shards.
#[must_use]
pub const fn node_place(node: NodeKey) -> usize {
    SHARDS_MAX + node.0 as usize
}

/// The node of a place; `None`: the place is a local shard.
#[must_use]
pub fn node_of_place(place: usize) -> Option<NodeKey> {
    u32::try_from(place.checked_sub(SHARDS_MAX)?).ok().map(NodeKey)
}

impl SlotHome {
    /// True if this node orders the rooms, or did until its right to order was in doubt.
    #[must_use]
    pub fn is_own(self) -> bool {
        matches!(self, Self::Here | Self::Frozen)
    }

    /// The node that orders the rooms, if it is another one.
    #[must_use]
    pub fn other(self) -> Option<NodeKey> {
        if let Self::There(node) = self { Some(node) } else { None }
    }

    /// True if a node takes joins of the rooms.
    #[must_use]
    pub fn takes_joins(self) -> bool {
        matches!(self, Self::Here | Self::There(_))
    }

    /// The reason why a request can't be taken here; `None`: this node orders the rooms.
    #[must_use]
    pub fn refusal(self) -> Option<Homeless> {
        match self {
            Self::Here => None,
            Self::Nobody | Self::Frozen => Some(Homeless::NoHome),
            Self::There(_) => Some(Homeless::NotHome),
        }
    }
}

/// The standing of a slot, as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotStanding {
    /// The node that orders the rooms of the slot.
    pub home: SlotHome,
    /// The highest term heard of the slot.
    pub term: Term,
}

/// The node that orders the rooms of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlotHome {
    /// No living node is known to hold the slot.
    #[default]
    Nobody,
    /// This node.
    Here,
    /// This node, without the right to order at present: rooms cut nothing, and publishes are refused.
    Frozen,
    /// Another node.
    There(NodeKey),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_fall_into_all_slots_alike() {
        let mut counts = [0; SLOTS];
        for n in 0..25_600 {
            let room = RoomName::parse(&format!("room-{n}")).unwrap();
            counts[Slot::of(&room, NameKey([1, 2])).index()] += 1;
        }
        assert!(counts.iter().all(|count| (50..150).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_later_generation_beats_any_sequence() {
        assert!(Term { generation: 1, sequence: 1 } > Term { generation: 0, sequence: 9 });
        assert!(Term { generation: 1, sequence: 2 } > Term { generation: 1, sequence: 1 });
    }
}
