//! Which shard a room lives on, and where a joining connection is placed. Pure.
//!
//! Placement is advice for what comes: a connection stays where it was placed, and a room has members on any shard. So
//! nothing here can lose, double or reorder a message.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use roomcast_core::room::id::{RoomName, mix};
use roomcast_core::room::ladder::Step;

/// The shard that orders a room: the one with the highest score for it (rendezvous hashing, Thaler and Ravishankar
/// 1998), so that another number of shards moves as few rooms as possible.
#[must_use]
pub fn home(room: &RoomName, shards: usize) -> usize {
    let name = fnv1a(room.as_str().as_bytes());
    let score = |shard: &usize| mix(name ^ mix(*shard as u64 + 1));
    (0..shards).max_by_key(score).expect("a node has at least one shard")
}

/// What a home says of a room that is hot, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spread {
    /// Which room.
    pub room: RoomName,
    /// Shards that further members are to be placed on; 1: its home alone.
    pub width: usize,
    /// The shards that hold members of it, each with their count.
    pub members: Vec<(usize, u64)>,
}

/// How busy a shard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Load {
    /// Processor time it took of the last second, in tenths: finer would be noise.
    pub busy_tenths: u64,
    /// Connections placed on it.
    pub connections: u64,
}

/// Where rooms are placed.
#[derive(Debug)]
pub struct Directory {
    loads: Vec<Load>,
    /// Hot from the first device on.
    listed: Arc<BTreeSet<RoomName>>,
    hot: BTreeMap<RoomName, Hot>,
    /// Steps of the ladder that an operator gave to open rooms.
    steps: BTreeMap<RoomName, Step>,
}

/// An operator gave an open room a step of its own, or took it back, or the room is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnStep {
    /// Which room.
    pub room: RoomName,
    /// Its own step; `None`: its shard's counts.
    pub step: Option<Step>,
}

/// Where a hot room is placed.
#[derive(Debug)]
struct Hot {
    /// In the order they were added, the home first.
    shards: Vec<usize>,
    /// By shard: as the home said last, and those that were placed since. Who was placed and had not joined when it spoke is
    /// not among them; as many of those are on their way to each shard.
    members: Vec<u64>,
}

impl Directory {
    /// Of so many shards, all idle; `listed` rooms are hot before they are open.
    #[must_use]
    pub fn new(shards: usize, listed: Arc<BTreeSet<RoomName>>) -> Self {
        Self { loads: vec![Load::default(); shards], listed, hot: BTreeMap::new(), steps: BTreeMap::new() }
    }

    /// The shard for a connection that joins `room`, of those that have `space`: a cold room's home, so that small rooms live
    /// on one thread; of a hot room's shards the one with fewest of its members, then the least loaded. `None`: all are full.
    #[must_use]
    pub fn find(&self, room: &RoomName, space: impl Fn(usize) -> bool) -> Option<usize> {
        let shards = self.loads.len();
        match self.hot.get(room) {
            Some(hot) => {
                self.least_of(hot.shards.iter().copied().filter(|shard| space(*shard)), &hot.members)
            }
            None if self.listed.contains(room) => {
                self.least_of((0..shards).filter(|shard| space(*shard)), &[])
            }
            None => Some(home(room, shards)).filter(|shard| space(*shard)),
        }
    }

    /// A connection that joins `room` was placed there.
    pub fn placed(&mut self, room: &RoomName, shard: usize) {
        self.loads[shard].connections += 1;
        if let Some(hot) = self.hot.get_mut(room) {
            hot.members[shard] += 1;
        } else if self.listed.contains(room) {
            self.spread(Spread { room: room.clone(), width: self.loads.len(), members: vec![(shard, 1)] });
        }
    }

    fn least_of(&self, shards: impl Iterator<Item = usize>, members: &[u64]) -> Option<usize> {
        shards.min_by_key(|shard| (members.get(*shard).copied().unwrap_or(0), self.loads[*shard]))
    }

    /// A home says how hot a room is, and where its members are.
    pub fn spread(&mut self, spread: Spread) {
        let Spread { room, width, members: told } = spread;
        let count = self.loads.len();
        if width <= 1 {
            self.hot.remove(&room);
            return;
        }
        let mut members = vec![0; count];
        for (shard, held) in told {
            members[shard] = held;
        }
        let mut shards = self.hot.remove(&room).map_or_else(|| vec![home(&room, count)], |hot| hot.shards);
        shards.truncate(width);
        while shards.len() < width.min(count) {
            let free = (0..count).filter(|shard| !shards.contains(shard));
            let least = free.min_by_key(|shard| (self.loads[*shard], *shard));
            shards.push(least.expect("no more shards are wanted than there are"));
        }
        self.hot.insert(room, Hot { shards, members });
    }

    /// A home says which step a room has of its own.
    pub fn own_step(&mut self, own: OwnStep) {
        match own.step {
            Some(step) => self.steps.insert(own.room, step),
            None => self.steps.remove(&own.room),
        };
    }

    /// The step that a room has of its own.
    #[must_use]
    pub fn step_of(&self, room: &RoomName) -> Option<Step> {
        self.steps.get(room).copied()
    }

    /// How busy a shard is.
    pub fn loaded(&mut self, shard: usize, load: Load) {
        self.loads[shard] = load;
    }

    /// The shards that further members of a room are placed on.
    #[must_use]
    pub fn shards_of(&self, room: &RoomName) -> Vec<usize> {
        match self.hot.get(room) {
            Some(hot) => hot.shards.clone(),
            None if self.listed.contains(room) => (0..self.loads.len()).collect(),
            None => vec![home(room, self.loads.len())],
        }
    }

    /// Rooms that are placed on more than one shard.
    #[must_use]
    pub fn hot_rooms(&self) -> usize {
        self.hot.len()
    }
}

/// FNV-1a, 64 bits: the same on every machine and in every release, as a home has to be.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str) -> RoomName {
        RoomName::parse(name).unwrap()
    }

    fn directory(shards: usize, listed: &[&str]) -> Directory {
        Directory::new(shards, Arc::new(listed.iter().map(|name| room(name)).collect()))
    }

    /// How many of `joins` devices each shard gets.
    fn placed(directory: &mut Directory, name: &str, joins: usize) -> Vec<usize> {
        let mut counts = vec![0; directory.loads.len()];
        for _ in 0..joins {
            let shard = directory.find(&room(name), |_| true).unwrap();
            directory.placed(&room(name), shard);
            counts[shard] += 1;
        }
        counts
    }

    #[test]
    fn a_cold_room_stays_on_its_home() {
        let mut directory = directory(4, &[]);
        assert_eq!(placed(&mut directory, "r1", 100)[home(&room("r1"), 4)], 100);
        assert_eq!(directory.hot_rooms(), 0);
    }

    #[test]
    fn a_hot_room_grows_to_the_least_loaded_shards_first_and_fills_them_up() {
        let mut directory = directory(4, &[]);
        let home = home(&room("r1"), 4);
        let others: Vec<usize> = (0..4).filter(|shard| *shard != home).collect();
        for (busy_tenths, shard) in [9, 0, 4].into_iter().zip(&others) {
            directory.loaded(*shard, Load { busy_tenths, connections: 5 });
        }
        directory.spread(Spread { room: room("r1"), width: 2, members: vec![(home, 100)] });
        assert_eq!(directory.shards_of(&room("r1")), [home, others[1]]);
        let counts = placed(&mut directory, "r1", 300);
        assert_eq!((counts[home], counts[others[1]]), (100, 200), "as many on each in the end");
        let members = vec![(home, 200), (others[1], 200)];
        directory.spread(Spread { room: room("r1"), width: 4, members });
        assert_eq!(directory.shards_of(&room("r1")), [home, others[1], others[2], others[0]]);
    }

    #[test]
    fn a_full_shard_is_passed_over_where_there_is_another() {
        let mut directory = directory(2, &["hot"]);
        for name in ["hot", "cold"] {
            let first = directory.find(&room(name), |_| true).unwrap();
            let other = directory.find(&room(name), |shard| shard != first);
            assert_eq!(other, (name == "hot").then_some(1 - first), "{name}");
            assert_eq!(directory.find(&room(name), |_| false), None);
            directory.placed(&room(name), first);
        }
    }

    #[test]
    fn a_room_that_cools_down_is_placed_on_its_home_again() {
        let mut directory = directory(4, &[]);
        directory.spread(Spread { room: room("r1"), width: 3, members: Vec::new() });
        directory.spread(Spread { room: room("r1"), width: 2, members: Vec::new() });
        assert_eq!(directory.shards_of(&room("r1")).len(), 2);
        directory.spread(Spread { room: room("r1"), width: 1, members: Vec::new() });
        let home = home(&room("r1"), 4);
        assert_eq!(directory.shards_of(&room("r1")), [home]);
        assert_eq!((placed(&mut directory, "r1", 10)[home], directory.hot_rooms()), (10, 0));
    }

    #[test]
    fn a_listed_room_is_scattered_from_its_first_device_on() {
        let mut directory = directory(4, &["r1"]);
        assert_eq!(placed(&mut directory, "r1", 40), [10; 4]);
        directory.spread(Spread { room: room("r1"), width: 1, members: Vec::new() });
        assert_eq!(placed(&mut directory, "r1", 40), [10; 4], "closed, and opened again");
    }

    #[test]
    fn homes_are_spread_evenly_and_move_little() {
        let rooms: Vec<RoomName> =
            (0..10_000).map(|n| RoomName::parse(&format!("room-{n}")).unwrap()).collect();
        let mut counts = [0; 4];
        for room in &rooms {
            counts[home(room, 4)] += 1;
        }
        assert!(counts.iter().all(|count| (2300..2700).contains(count)), "{counts:?}");
        let moved = rooms.iter().filter(|room| home(room, 4) != home(room, 5)).count();
        assert!((1700..2300).contains(&moved), "a fifth moves to the fifth shard: {moved}");
        assert!(rooms.iter().all(|room| home(room, 5) == home(room, 4) || home(room, 5) == 4));
    }
}
