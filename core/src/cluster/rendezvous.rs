//! The order of nodes for a slot, the same on every node: weighted rendezvous hashing. A node that comes or goes
//! moves the slots of its own share alone.
//!
//! The score of a node with weight w is w / −ln u, with u drawn from (0, 1) by the hash of name and slot
//! (Schindelhauer and Schomaker, 2005). The highest score comes first. Example: of two nodes with 2 and 6 shards
//! the second one is first for three of four slots.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Slot;
use super::node::NodeName;

/// The score of a node for a slot.
pub(super) fn score(name: &NodeName, slot: Slot, weight: u32) -> f64 {
    let hash = xxh3_64_with_seed(name.as_str().as_bytes(), u64::from(slot.0));
    // The 53 upper bits fill a float, and the half keeps the draw above 0.
    let drawn = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    f64::from(weight.max(1)) / -drawn.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_shared_by_weight_and_only_those_of_a_gone_node_move() {
        let nodes =
            [("a", 2), ("b", 2), ("c", 4)].map(|(name, weight)| (NodeName::parse(name).unwrap(), weight));
        let first = |among: &[(NodeName, u32)], slot| {
            let best = among.iter().max_by(|x, y| score(&x.0, slot, x.1).total_cmp(&score(&y.0, slot, y.1)));
            best.unwrap().0.clone()
        };
        let mut counts = [0; 3];
        for slot in Slot::all() {
            let home = first(&nodes, slot);
            let index = nodes.iter().position(|(name, _)| *name == home).unwrap();
            counts[index] += 1;
            if index != 0 {
                assert_eq!(first(&nodes[1..], slot), home, "a gone node moves its own slots alone");
            }
        }
        assert!((45..85).contains(&counts[0]) && (45..85).contains(&counts[1]), "{counts:?}");
        assert!((105..150).contains(&counts[2]), "{counts:?}");
    }
}
