//! Which shard a room lives on, and where a joining connection is placed. Pure.

use crate::room::id::{RoomName, mix};

/// The shard that orders a room: the one with the highest score for it (rendezvous hashing, Thaler and Ravishankar
/// 1998), so that another number of shards moves as few rooms as possible.
#[must_use]
pub fn home(room: &RoomName, shards: usize) -> usize {
    let name = fnv1a(room.as_str().as_bytes());
    let score = |shard: &usize| mix(name ^ mix(*shard as u64 + 1));
    (0..shards).max_by_key(score).expect("a node has at least one shard")
}

/// The shard a joining connection is placed on: for a cold room its home, so that small rooms live on one thread.
#[must_use]
pub fn placement(room: &RoomName, shards: usize) -> usize {
    home(room, shards)
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
