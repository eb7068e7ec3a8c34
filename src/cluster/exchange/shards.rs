//! The shards of this node, as the links see them.

use std::collections::{BTreeMap, VecDeque};

use super::peer::BatchTag;
use crate::shard::directory;
use crate::shard::ways::{FromNode, ToNode, WayOut};
use roomcast_core::cluster::{NodeKey, Slot, Term};
use roomcast_core::limits::LINK_WAITING_ENTRIES_MAX;
use roomcast_core::node_proto::KeptRoom;
use roomcast_core::room::id::{NameKey, RoomName};

/// The ways to the shards and back.
#[derive(Debug)]
pub(super) struct ShardEnds {
    home_key: NameKey,
    ends: Vec<ShardEnd>,
}

#[derive(Debug)]
struct ShardEnd {
    out: WayOut,
    /// Node -> resets of its link that the shard has been told of, or will be, and has not taken.
    awaited: BTreeMap<NodeKey, u32>,
    /// Resets and lapses that found the way full. One reset for each node at most.
    untold: VecDeque<FromNode>,
    /// Something was told since the shard was last woken.
    is_touched: bool,
}

impl ShardEnd {
    /// Tells what is untold, as far as the way takes it. True if something is left.
    fn pump(&mut self) -> bool {
        while let Some(told) = self.untold.pop_front() {
            if let Err(refused) = self.push(told) {
                self.untold.push_front(refused);
                return true;
            }
        }
        false
    }

    fn push(&mut self, told: FromNode) -> Result<(), FromNode> {
        self.out.way.back.push(told)?;
        self.is_touched = true;
        Ok(())
    }
}

impl ShardEnds {
    pub(super) fn new(ways: Vec<WayOut>, home_key: NameKey) -> Self {
        let end =
            |out| ShardEnd { out, awaited: BTreeMap::new(), untold: VecDeque::new(), is_touched: false };
        Self { home_key, ends: ways.into_iter().map(end).collect() }
    }

    pub(super) fn count(&self) -> usize {
        self.ends.len()
    }

    /// The next word of a shard.
    pub(super) fn next_from(&self, shard: usize) -> Option<ToNode> {
        self.ends[shard].out.way.out.pop()
    }

    pub(super) fn has_word(&self, shard: usize) -> bool {
        !self.ends[shard].out.way.out.is_empty()
    }

    /// True if the words of the shard to the node belong to a former link.
    pub(super) fn awaits(&self, shard: usize, node: NodeKey) -> bool {
        self.ends[shard].awaited.contains_key(&node)
    }

    /// The shard has taken a reset of the node's link.
    pub(super) fn reset_taken(&mut self, shard: usize, node: NodeKey) {
        let awaited = &mut self.ends[shard].awaited;
        if let Some(resets) = awaited.get_mut(&node) {
            *resets -= 1;
            if *resets == 0 {
                awaited.remove(&node);
            }
        }
    }

    /// Tells a word to the shard of its room. A full way gives the word back.
    pub(super) fn tell(&mut self, room: &RoomName, told: FromNode) -> Result<(), FromNode> {
        let shard = directory::home(room, self.home_key, self.ends.len());
        let end = &mut self.ends[shard];
        // A word never overtakes the reset before it.
        if end.untold.is_empty() { end.push(told) } else { Err(told) }
    }

    /// Tells the shards of these rooms what a home says of them. Returns the number of rooms that found a way full: the
    /// home says them again before long.
    pub(super) fn tell_kept(&mut self, slot: Slot, term: Term, rooms: Vec<(RoomName, KeptRoom)>) -> usize {
        let mut of_shards: Vec<Vec<_>> = self.ends.iter().map(|_| Vec::new()).collect();
        for room in rooms {
            of_shards[directory::home(&room.0, self.home_key, self.ends.len())].push(room);
        }
        let mut left_out = 0;
        for (end, rooms) in self.ends.iter_mut().zip(of_shards).filter(|(_, rooms)| !rooms.is_empty()) {
            let count = rooms.len();
            if !end.untold.is_empty() || end.push(FromNode::Keep { slot, term, rooms }).is_err() {
                left_out += count;
            }
        }
        left_out
    }

    /// Tells all shards of a reset.
    pub(super) fn tell_reset(&mut self, node: NodeKey) {
        for end in &mut self.ends {
            let is_reset = |told: &FromNode| matches!(told, FromNode::Reset { node: of } if *of == node);
            if end.untold.iter().any(is_reset) {
                continue;
            }
            *end.awaited.entry(node).or_default() += 1;
            end.untold.push_back(FromNode::Reset { node });
            end.pump();
        }
    }

    /// Tells all shards a word about a hand-over. Few of them are under way.
    pub(super) fn tell_all(&mut self, word: impl Fn() -> FromNode) {
        for end in &mut self.ends {
            end.untold.push_back(word());
            end.pump();
        }
    }

    /// Tells the shard of a lapse. False if too much is untold already.
    pub(super) fn tell_lapsed(&mut self, node: NodeKey, lapsed: BatchTag) -> bool {
        let BatchTag { shard, room, run, seq } = lapsed;
        let end = &mut self.ends[shard];
        if end.untold.len() >= LINK_WAITING_ENTRIES_MAX {
            return false;
        }
        end.untold.push_back(FromNode::Lapsed { node, room, run, seq });
        end.pump();
        true
    }

    /// Tells what found the ways full. True if something is left.
    pub(super) fn pump(&mut self) -> bool {
        self.ends.iter_mut().fold(false, |is_stuck, end| is_stuck | end.pump())
    }

    pub(super) fn is_touched(&self) -> bool {
        self.ends.iter().any(|end| end.is_touched)
    }

    /// Wakes the shards that were told something.
    pub(super) fn wake(&mut self) {
        for end in &mut self.ends {
            if std::mem::take(&mut end.is_touched) {
                (end.out.wake)();
            }
        }
    }
}
