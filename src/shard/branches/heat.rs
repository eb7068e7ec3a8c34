//! The heat of rooms with their homes on other nodes: members here are spread over the shards of this node, as those
//! of a home are. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::shard::directory::Scatter;
use crate::shard::homes::heat::{Fuel, Heat, HeatRules};
use roomcast_core::limits::SCATTER_INTERVAL;
use roomcast_core::room::id::RoomName;

/// The hot rooms among a shard's branches.
#[derive(Debug)]
pub(super) struct BranchHeats {
    rules: HeatRules,
    /// Rooms that are on all shards from the first device on.
    listed: Arc<BTreeSet<RoomName>>,
    rooms: BTreeMap<RoomName, HotBranch>,
    /// Words for the directory.
    scatters: VecDeque<Scatter>,
}

/// A hot room, as the directory was last told.
#[derive(Debug)]
struct HotBranch {
    heat: Heat,
    members: u64,
    at: Instant,
}

impl BranchHeats {
    pub(super) fn new(rules: HeatRules, listed: Arc<BTreeSet<RoomName>>) -> Self {
        Self { rules, listed, rooms: BTreeMap::new(), scatters: VecDeque::new() }
    }

    /// Takes the members of a room, by shard. The directory is told of a change of width, and at most once in
    /// `SCATTER_INTERVAL` of a hot room's numbers.
    pub(super) fn feed(&mut self, room: &RoomName, by_shard: Vec<(usize, u64)>, now: Instant) {
        let members = by_shard.iter().map(|(_, members)| members).sum();
        if self.listed.contains(room) {
            return;
        }
        // The cost of passes is known for the slowest shard alone, so members are the only fuel.
        let fuel = Fuel { members, permille: 0 };
        let known = self.rooms.get(room);
        let mut heat = known.map_or(Heat::COLD, |hot| hot.heat);
        let is_changed = heat.feed(fuel, &self.rules);
        let is_stale = known.is_some_and(|hot| hot.members != members && hot.at + SCATTER_INTERVAL <= now);
        if !is_changed && !is_stale {
            return;
        }
        if heat.width() > 1 {
            self.rooms.insert(room.clone(), HotBranch { heat, members, at: now });
        } else {
            self.rooms.remove(room);
        }
        self.scatters.push_back(Scatter { room: room.clone(), width: heat.width(), members: by_shard });
    }

    /// The room has no branch any more.
    pub(super) fn forget(&mut self, room: &RoomName) {
        if self.rooms.remove(room).is_some() {
            self.scatters.push_back(Scatter { room: room.clone(), width: 1, members: Vec::new() });
        }
    }

    /// The next word for the directory.
    pub(super) fn poll_scatter(&mut self) -> Option<Scatter> {
        self.scatters.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_hot_room_of_another_home_takes_further_shards_and_gives_them_back() {
        let room = RoomName::parse("r1").unwrap();
        let mut now = clock::now().instant;
        let mut heats =
            BranchHeats::new(HeatRules { shards: 4, hot_members: 100, hot_permille: 300 }, Arc::default());
        let mut told = |by_shard: &[(usize, u64)], now: Instant| {
            heats.feed(&room, by_shard.to_vec(), now);
            heats.poll_scatter().map(|scatter| (scatter.width, scatter.members))
        };
        assert_eq!(told(&[(1, 100)], now), None, "a cold room is no matter of the directory");
        assert_eq!(told(&[(1, 101)], now), Some((2, vec![(1, 101)])));
        assert_eq!(told(&[(1, 101), (2, 30)], now), None, "not so soon again");
        now += SCATTER_INTERVAL;
        assert_eq!(told(&[(1, 101), (2, 31)], now), Some((2, vec![(1, 101), (2, 31)])));
        assert_eq!(told(&[(1, 101), (2, 200)], now), Some((4, vec![(1, 101), (2, 200)])));
        assert_eq!(told(&[(2, 50)], now), Some((1, vec![(2, 50)])));
        assert_eq!(told(&[(2, 150)], now), Some((2, vec![(2, 150)])));
        heats.forget(&room);
        assert_eq!(heats.poll_scatter().map(|scatter| scatter.width), Some(1));
        heats.forget(&room);
        assert_eq!(heats.poll_scatter(), None);
    }
}
