//! The home of each room, and the shard for each joining connection. Pure.
//!
//! Placement is advice for what comes: a connection stays where it was placed, and a room has members on any
//! shard. So nothing here can lose, double or reorder a message.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use roomcast_core::room::id::{NameKey, RoomName, mix};
use roomcast_core::room::ladder::Step;

/// A random key of `home()`, for the life of a node.
///
/// # Errors
/// The system gives no random numbers.
pub fn draw_home_key() -> io::Result<NameKey> {
    let half = || getrandom::u64().map_err(io::Error::other);
    Ok(NameKey([half()?, half()?]))
}

/// The shard that orders a room: the one with the highest score for it (rendezvous hashing, Thaler and
/// Ravishankar 1998), so that another number of shards moves as few rooms as possible.
#[must_use]
pub fn home(room: &RoomName, key: NameKey, shards: usize) -> usize {
    // A node with one shard has nothing to choose, and hashes no name for it.
    if shards == 1 {
        return 0;
    }
    let name = key.hash(room);
    let score = |shard: &usize| mix(name ^ mix(*shard as u64 + 1));
    (0..shards).max_by_key(score).expect("a node has at least one shard")
}

/// The words of a home about the placement of a room that is hot, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scatter {
    /// The room.
    pub room: RoomName,
    /// Number of shards for further members; 1: the home alone.
    pub width: usize,
    /// Shards that hold members of the room, with their counts.
    pub members: Vec<(usize, u64)>,
}

/// The load of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Load {
    /// Processor time of the last second, in tenths: finer would be noise.
    pub busy_tenths: u64,
    /// Connections placed on the shard.
    pub connections: u64,
}

/// The placement of rooms, and their own steps of the ladder.
#[derive(Debug)]
pub struct Directory {
    loads: Vec<Load>,
    home_key: NameKey,
    /// Rooms that are hot from the first device on.
    listed: Arc<BTreeSet<RoomName>>,
    hot: BTreeMap<RoomName, Hot>,
    /// Steps of the ladder given to open rooms by an operator.
    steps: BTreeMap<RoomName, Step>,
}

/// A change of a room's own step: an operator gave or took the step, or the room has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnStep {
    /// The room.
    pub room: RoomName,
    /// The room's own step; `None`: the shard's step counts.
    pub step: Option<Step>,
}

/// The placement of a hot room.
#[derive(Debug)]
struct Hot {
    /// In the order of joining the set, the home first.
    shards: Vec<usize>,
    /// By shard: the home's last count, plus connections placed since. Connections that were placed but had
    /// not joined at the home's word are not counted; about as many are on their way to each shard.
    members: Vec<u64>,
}

impl Directory {
    /// The directory of `shards` idle shards. `listed` rooms are hot before they are open.
    #[must_use]
    pub fn new(shards: usize, home_key: NameKey, listed: Arc<BTreeSet<RoomName>>) -> Self {
        let loads = vec![Load::default(); shards];
        Self { loads, home_key, listed, hot: BTreeMap::new(), steps: BTreeMap::new() }
    }

    /// The home of a room.
    #[must_use]
    pub fn home(&self, room: &RoomName) -> usize {
        home(room, self.home_key, self.loads.len())
    }

    /// The shard for a connection that joins `room`, among shards with `space`. A cold room's connections go
    /// to its home, so that small rooms live on one thread. A hot room's go to the shard with fewest of its
    /// members, then to the least loaded. `None`: all are full.
    #[must_use]
    pub fn find(&self, room: &RoomName, space: impl Fn(usize) -> bool) -> Option<usize> {
        let hot = self.hot.get(room);
        let members = |shard: &usize| hot.map_or(0, |hot| hot.members[*shard]);
        let shards = self.shards_of(room).into_iter().filter(|shard| space(*shard));
        shards.min_by_key(|shard| (members(shard), self.loads[*shard]))
    }

    /// Counts a connection that joins `room` and was placed on `shard`.
    pub fn placed(&mut self, room: &RoomName, shard: usize) {
        self.loads[shard].connections += 1;
        if let Some(hot) = self.hot.get_mut(room) {
            hot.members[shard] += 1;
        } else if self.listed.contains(room) {
            self.scatter(Scatter { room: room.clone(), width: self.loads.len(), members: vec![(shard, 1)] });
        }
    }

    /// Takes the words of a home about a room's width and members.
    pub fn scatter(&mut self, scatter: Scatter) {
        let Scatter { room, width, members: told } = scatter;
        let count = self.loads.len();
        if width <= 1 {
            self.hot.remove(&room);
            return;
        }
        let mut members = vec![0; count];
        for (shard, held) in told {
            members[shard] = held;
        }
        let mut shards = self.hot.remove(&room).map_or_else(|| vec![self.home(&room)], |hot| hot.shards);
        shards.truncate(width);
        while shards.len() < width.min(count) {
            let free = (0..count).filter(|shard| !shards.contains(shard));
            let least = free.min_by_key(|shard| (self.loads[*shard], *shard));
            shards.push(least.expect("no more shards are wanted than there are"));
        }
        self.hot.insert(room, Hot { shards, members });
    }

    /// Takes a change of a room's own step.
    pub fn own_step(&mut self, own: OwnStep) {
        match own.step {
            Some(step) => self.steps.insert(own.room, step),
            None => self.steps.remove(&own.room),
        };
    }

    /// A room's own step.
    #[must_use]
    pub fn step_of(&self, room: &RoomName) -> Option<Step> {
        self.steps.get(room).copied()
    }

    /// The load of a shard.
    pub fn loaded(&mut self, shard: usize, load: Load) {
        self.loads[shard] = load;
    }

    /// The shards for further members of a room.
    #[must_use]
    pub fn shards_of(&self, room: &RoomName) -> Vec<usize> {
        match self.hot.get(room) {
            Some(hot) => hot.shards.clone(),
            None if self.listed.contains(room) => (0..self.loads.len()).collect(),
            None => vec![self.home(room)],
        }
    }

    /// True if the room is hot before it is open.
    #[must_use]
    pub fn is_listed(&self, room: &RoomName) -> bool {
        self.listed.contains(room)
    }

    /// Rooms that are placed on more than one shard.
    #[must_use]
    pub fn hot_rooms(&self) -> usize {
        self.hot.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: NameKey = NameKey([1, 2]);

    fn room(name: &str) -> RoomName {
        RoomName::parse(name).unwrap()
    }

    fn directory(shards: usize, listed: &[&str]) -> Directory {
        Directory::new(shards, KEY, Arc::new(listed.iter().map(|name| room(name)).collect()))
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
        assert_eq!(placed(&mut directory, "r1", 100)[home(&room("r1"), KEY, 4)], 100);
        assert_eq!(directory.hot_rooms(), 0);
    }

    #[test]
    fn a_hot_room_grows_to_the_least_loaded_shards_first_and_fills_them_up() {
        let mut directory = directory(4, &[]);
        let home = home(&room("r1"), KEY, 4);
        let others: Vec<usize> = (0..4).filter(|shard| *shard != home).collect();
        for (busy_tenths, shard) in [9, 0, 4].into_iter().zip(&others) {
            directory.loaded(*shard, Load { busy_tenths, connections: 5 });
        }
        directory.scatter(Scatter { room: room("r1"), width: 2, members: vec![(home, 100)] });
        assert_eq!(directory.shards_of(&room("r1")), [home, others[1]]);
        let counts = placed(&mut directory, "r1", 300);
        assert_eq!((counts[home], counts[others[1]]), (100, 200), "as many on each in the end");
        let members = vec![(home, 200), (others[1], 200)];
        directory.scatter(Scatter { room: room("r1"), width: 4, members });
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
        directory.scatter(Scatter { room: room("r1"), width: 3, members: Vec::new() });
        directory.scatter(Scatter { room: room("r1"), width: 2, members: Vec::new() });
        assert_eq!(directory.shards_of(&room("r1")).len(), 2);
        directory.scatter(Scatter { room: room("r1"), width: 1, members: Vec::new() });
        let home = home(&room("r1"), KEY, 4);
        assert_eq!(directory.shards_of(&room("r1")), [home]);
        assert_eq!((placed(&mut directory, "r1", 10)[home], directory.hot_rooms()), (10, 0));
    }

    #[test]
    fn a_listed_room_is_scattered_from_its_first_device_on() {
        let mut directory = directory(4, &["r1"]);
        assert_eq!(placed(&mut directory, "r1", 40), [10; 4]);
        directory.scatter(Scatter { room: room("r1"), width: 1, members: Vec::new() });
        assert_eq!(placed(&mut directory, "r1", 40), [10; 4], "closed, and opened again");
    }

    #[test]
    fn rooms_that_share_a_shard_under_one_key_are_apart_under_another() {
        let rooms = (0..4_000).map(|n| room(&format!("room-{n}")));
        let aimed: Vec<RoomName> = rooms.filter(|room| home(room, KEY, 4) == 0).collect();
        assert!(aimed.len() > 900);
        let mut counts = [0; 4];
        for room in &aimed {
            counts[home(room, NameKey([1, 3]), 4)] += 1;
        }
        let fair = aimed.len() / 4;
        assert!(counts.iter().all(|count| (fair * 3 / 4..fair * 5 / 4).contains(count)), "{counts:?}");
    }

    #[test]
    fn rooms_have_their_homes_on_all_shards_alike_and_move_little() {
        let rooms: Vec<RoomName> =
            (0..10_000).map(|n| RoomName::parse(&format!("room-{n}")).unwrap()).collect();
        let mut counts = [0; 4];
        for room in &rooms {
            counts[home(room, KEY, 4)] += 1;
        }
        assert!(counts.iter().all(|count| (2300..2700).contains(count)), "{counts:?}");
        let moved = rooms.iter().filter(|room| home(room, KEY, 4) != home(room, KEY, 5)).count();
        assert!((1700..2300).contains(&moved), "a fifth moves to the fifth shard: {moved}");
        assert!(rooms.iter().all(|room| home(room, KEY, 5) == home(room, KEY, 4) || home(room, KEY, 5) == 4));
    }
}
