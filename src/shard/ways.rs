//! The ways between a shard and the cluster's thread: bounded FIFOs that are never awaited, as the lanes
//! between shards.
//!
//! A home speaks to the branches of its rooms on other nodes, and a branch to its home, in the words of a
//! segment and its home on one node.

use std::fmt;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::lane::{Control, Delivery, Frames, HomeSaid};
use super::slots::Slots;
use roomcast_core::cluster::{NodeKey, Slot, Term};
use roomcast_core::limits::{NODE_WAY_ENTRIES_MAX, NODE_WORD_JOINS_MAX};
use roomcast_core::node_proto::{Keep, KeptRoom, RoomState};
use roomcast_core::room::Join;
use roomcast_core::room::id::{RoomName, Run, Seq};

/// Words of a room between two nodes.
#[derive(Debug)]
pub(crate) enum NodeWord {
    /// Joins of a branch, in order, for the home of its room. At most `NODE_WORD_JOINS_MAX`.
    Joins {
        /// The room.
        room: RoomName,
        /// The joins.
        joins: Vec<Join>,
    },
    /// A branch says anything else to the home of its room.
    ToHome(Control),
    /// A home speaks to a branch of its room.
    ToBranch(Delivery),
    /// The shard has taken [`FromNode::Reset`] of the node. Words to the node before this one belong to the former
    /// link, and are dropped: a departure among them would be counted off a member of the new link. No other node
    /// says this.
    ResetTaken,
    /// A room of a slot, for the next home of the slot. Its places are those of this node.
    Room {
        /// The slot.
        slot: Slot,
        /// The number of the attempt.
        attempt: u64,
        /// The room.
        state: Box<RoomState>,
    },
    /// Rooms of a slot, for the node that would take the slot over.
    Keep(Box<Keep>),
    /// The shard has said all its rooms of a slot. The cluster's thread hears this, and no other node.
    Packed {
        /// The slot.
        slot: Slot,
        /// The number of the attempt.
        attempt: u64,
        /// False: a room has to begin another run at the next home.
        is_whole: bool,
    },
}

impl NodeWord {
    /// The room of the word. `None` for a word to the cluster's thread.
    pub(crate) fn room(&self) -> Option<&RoomName> {
        match self {
            Self::Joins { room, .. }
            | Self::ToHome(Control { room, .. })
            | Self::ToBranch(Delivery { room, .. }) => Some(room),
            Self::ResetTaken | Self::Room { .. } | Self::Keep(_) | Self::Packed { .. } => None,
        }
    }

    /// True for words that come by the thousand in a storm of joins, and are told together.
    pub(crate) fn is_of_storm(&self) -> bool {
        matches!(self, Self::Joins { .. } | Self::ToBranch(Delivery { said: HomeSaid::Welcome(_), .. }))
    }

    /// The joins, or the members of the welcome. 1 for other words.
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Joins { joins, .. } => joins.len(),
            Self::ToBranch(Delivery { said: HomeSaid::Welcome(welcome), .. }) => 1 + welcome.also.len(),
            _ => 1,
        }
    }

    /// Takes in the next word of the same room: joins behind joins, or a welcome behind one with the same bytes. Each
    /// join keeps its ticket and its answer. Gives the word back if the two stay apart.
    pub(crate) fn absorb(&mut self, next: Self) -> Option<Self> {
        match (self, next) {
            (Self::Joins { room, joins }, Self::Joins { room: of, joins: more })
                if *room == of && joins.len() + more.len() <= NODE_WORD_JOINS_MAX =>
            {
                joins.extend(more);
                None
            }
            (
                Self::ToBranch(Delivery { room, run, said: HomeSaid::Welcome(welcome) }),
                Self::ToBranch(Delivery { room: of, run: in_run, said: HomeSaid::Welcome(more) }),
            ) if *room == of && *run == in_run && welcome.may_absorb(&more) => {
                welcome.absorb(&more);
                None
            }
            (_, next) => Some(next),
        }
    }
}

/// A word of a shard to another node.
#[derive(Debug)]
pub(crate) struct ToNode {
    pub(crate) node: NodeKey,
    pub(crate) word: NodeWord,
}

impl Frames for ToNode {
    fn delivery(&self) -> Option<(Option<NodeKey>, &Delivery)> {
        if let NodeWord::ToBranch(delivery) = &self.word { Some((Some(self.node), delivery)) } else { None }
    }

    fn of(node: Option<NodeKey>, delivery: Delivery) -> Self {
        let node = node.expect("each delivery on the way has a node");
        Self { node, word: NodeWord::ToBranch(delivery) }
    }
}

/// A word of the cluster's thread to a shard. The shard is the one that orders the room, or has its branch.
#[derive(Debug)]
pub(crate) enum FromNode {
    /// A word of a shard of another node.
    Word {
        /// The other node.
        node: NodeKey,
        /// The word.
        word: NodeWord,
    },
    /// The link to the node begins anew, or has ended. Words on their way are lost in both directions: homes
    /// lose the node's members, and branches with their home there join again. Said to every shard, which answers
    /// with [`NodeWord::ResetTaken`] before any other word to the node.
    Reset {
        /// The other node.
        node: NodeKey,
    },
    /// A batch was left out of the link, and the branch will hear of a gap: the home awaits nothing for it.
    Lapsed {
        /// The other node.
        node: NodeKey,
        /// The room of the batch.
        room: RoomName,
        /// The life of the room.
        run: Run,
        /// The batch.
        seq: Seq,
    },
    /// Settle the rooms of a slot, and say them to its next home. Said to every shard.
    HandOver {
        /// The slot.
        slot: Slot,
        /// The next home.
        to: NodeKey,
        /// The number of the attempt.
        attempt: u64,
    },
    /// The hand-over of a slot has ended: its rooms go on here, unless the slot is lost by now. Said to every shard.
    Resume {
        /// The slot.
        slot: Slot,
    },
    /// A room of a slot that this node may get. Its places are those of this node.
    Arrived {
        /// The present home.
        node: NodeKey,
        /// The slot.
        slot: Slot,
        /// The number of the attempt.
        attempt: u64,
        /// The room.
        state: Box<RoomState>,
    },
    /// The home of a slot says rooms that this node would have after a takeover.
    Keep {
        /// The slot.
        slot: Slot,
        /// The term of the home.
        term: Term,
        /// The rooms.
        rooms: Vec<(RoomName, KeptRoom)>,
    },
}

/// The place of the node itself among the places of a room's state. The others are those of `node_place`.
pub(crate) const OWN_PLACE: u64 = u64::MAX;

/// The queues between a shard and the cluster's thread.
#[derive(Debug)]
pub(crate) struct Way {
    /// To the cluster's thread.
    pub(crate) out: Arc<ArrayQueue<ToNode>>,
    /// From the cluster's thread.
    pub(crate) back: Arc<ArrayQueue<FromNode>>,
}

impl Way {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            out: Arc::new(ArrayQueue::new(NODE_WAY_ENTRIES_MAX)),
            back: Arc::new(ArrayQueue::new(NODE_WAY_ENTRIES_MAX)),
        })
    }
}

/// The part of all shards in a cluster.
#[derive(Debug)]
pub(crate) struct ToNodes {
    /// The standings of slots.
    pub(crate) slots: Arc<Slots>,
    /// Shard -> its way to other nodes.
    pub(crate) ways: Vec<WayOut>,
}

/// A shard's end of the way, and what wakes the cluster's thread.
#[derive(Clone)]
pub(crate) struct WayOut {
    pub(crate) way: Arc<Way>,
    pub(crate) wake: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for WayOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WayOut").field("way", &self.way).finish_non_exhaustive()
    }
}
