//! Packs rooms, or parts of rooms, on nodes: each whole, the largest first, each on the first node with enough
//! left. Pure.
//!
//! First fit decreasing needs at most 22 % more nodes than the best packing, for a single resource (Johnson,
//! 1973). The rooms here are many and small beside a node, or too large for any node.

use super::links::LinkLoad;
use super::models::Resources;
use crate::planning::model::Features;

/// Bounds time and memory for an absurd question.
pub(crate) const NODES_MAX: usize = 100_000;
/// The part of a room by which rounding may overfill a node. Without this tolerance an exact fit could fail.
const ROUNDING: f64 = 1e-9;

/// Rooms that are alike.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Alike {
    pub(crate) rooms: u32,
    /// The load of each room.
    pub(crate) load: Features,
    /// The need of each room, without the own need of a node. The need of its links is in it.
    pub(crate) need: Resources,
    /// The links of each room; nothing without a cluster.
    pub(crate) links: LinkLoad,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Packed {
    pub(crate) left: [f64; 3],
    pub(crate) load: Features,
    pub(crate) links: LinkLoad,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Packing {
    pub(crate) nodes: Vec<Packed>,
    /// Indexes of the sizes that do not fit an empty node.
    pub(crate) too_large: Vec<usize>,
}

/// Packs `sizes` on nodes with `room` each. Fails past [`NODES_MAX`].
pub(crate) fn pack(sizes: &[Alike], room: Resources) -> Result<Packing, String> {
    let share = |alike: &Alike| alike.need.share_of(room);
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by(|one, other| share(&sizes[*other]).total_cmp(&share(&sizes[*one])));
    let mut packing = Packing::default();
    for place in order {
        let alike = &sizes[place];
        // No number of nodes helps: a room is on a single node.
        if share(alike) > 1.0 {
            packing.too_large.push(place);
            continue;
        }
        let mut rooms = alike.rooms;
        for at in 0..=NODES_MAX {
            if rooms == 0 {
                break;
            }
            // Bounds time and memory for an absurd question, such as a million viewers a room on a tiny node.
            if at == NODES_MAX {
                return Err(format!("more than {NODES_MAX} nodes"));
            }
            if at == packing.nodes.len() {
                packing.nodes.push(Packed::empty(room));
            }
            rooms -= packing.nodes[at].take(alike, rooms);
        }
    }
    Ok(packing)
}

impl Packed {
    fn empty(room: Resources) -> Self {
        Self { left: room.parts(), load: Features::default(), links: LinkLoad::default() }
    }

    /// Takes as many of `rooms` rooms as fit, and returns their number.
    fn take(&mut self, alike: &Alike, rooms: u32) -> u32 {
        let needs = alike.need.parts();
        // A resource that a room does not need fits any number of rooms.
        let fit = needs.iter().zip(self.left).filter(|(need, _)| **need > 0.0);
        let fit = fit.map(|(need, left)| ((left / need) + ROUNDING).floor()).fold(f64::from(rooms), f64::min);
        let taken = u32::try_from(crate::figures::rounded(fit.max(0.0))).unwrap_or(0).min(rooms);
        let count = f64::from(taken);
        for (left, need) in self.left.iter_mut().zip(needs) {
            *left -= need * count;
        }
        self.load = self.load.with(alike.load, |all, each| all + each * count);
        self.links = self.links.with(alike.links, count);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Resources = Resources { processors: 10.0, memory_bytes: 100.0, nic_bits_per_s: 1_000.0 };

    fn alike(rooms: u32, processors: f64, memory_bytes: f64) -> Alike {
        let load = Features { connections: processors, ..Features::default() };
        let need = Resources { processors, memory_bytes, nic_bits_per_s: 0.0 };
        Alike { rooms, load, need, links: LinkLoad::default() }
    }

    #[test]
    fn rooms_fill_nodes_and_small_ones_fill_what_large_ones_leave() {
        let packing = pack(&[alike(100, 0.1, 0.1), alike(3, 6.0, 1.0)], ROOM).unwrap();
        assert_eq!(packing.nodes.len(), 3, "three large ones leave room for the small ones");
        let all: f64 = packing.nodes.iter().map(|node| node.load.connections).sum();
        assert!((all - 28.0).abs() < 1e-9);
        assert!(packing.nodes.iter().all(|node| node.load.connections <= 10.0 + 1e-6));
        let exact = pack(&[alike(1_000, 0.1, 0.0)], ROOM).unwrap();
        assert_eq!(exact.nodes.len(), 10, "what fits exactly fits");
        let by_memory = pack(&[alike(10, 0.1, 60.0)], ROOM).unwrap();
        assert_eq!(by_memory.nodes.len(), 10, "any resource can be the one");
    }

    #[test]
    fn a_room_larger_than_a_node_is_named_and_not_packed() {
        let packing = pack(&[alike(1, 11.0, 1.0), alike(2, 1.0, 1.0)], ROOM).unwrap();
        assert_eq!((packing.too_large, packing.nodes.len()), (vec![0], 1));
        assert!(pack(&[alike(200_000, 10.0, 1.0)], ROOM).is_err(), "bounded");
    }
}
