//! Rooms over the nodes of a cluster: the home of a room, and branches with further members. Pure.
//!
//! A room of V members on p nodes has a home and p − 1 branches.
//!
//! - Members cost their node the same everywhere.
//! - The home alone orders and encodes, and sends each frame to each branch.
//! - Each node passes each frame on to its members, so each has the flushes of the room.
//!
//! Example: a node has room for 10 processors, 1 000 members need 1, the home's order 2, and a link 0.1. Of 25 000
//! members on 3 nodes the home carries at most (10 − 2 − 2 × 0.1) × 1 000 = 7 800, and each branch nearly 10 000.
//! The sum is enough, so the room takes 3 nodes: 7 800 at its home, 8 600 at each branch.

use roomcast_core::limits::{HOT_MEMBERS, LINK_CROWD_PAUSE};

use super::links::{ENTRY_BYTES, JOIN_ORDER_S, LinkLoad, Messages};
use super::models::{Models, Resources};
use super::packing::{Alike, NODES_MAX, Packing, pack};
use crate::planning::model::Features;
use crate::planning::model::cost::most;

/// The part by which a node stays below its resources, so that rounding does not overfill it.
const ROUNDING: f64 = 1e-9;

/// A room, before its spread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole {
    pub(crate) rooms: u32,
    pub(crate) members: u32,
    /// The load of each room.
    pub(crate) load: Features,
    pub(crate) payload_bytes: f64,
}

/// The members of a room, node by node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) nodes: u32,
    /// Members at the home.
    pub(crate) home: u32,
    /// Members at each branch; at the first `larger` of them one more.
    pub(crate) branch: u32,
    pub(crate) larger: u32,
}

/// The nodes that rooms are spread over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) models: &'a Models,
    /// Processors of each node.
    pub(crate) processors: f64,
    /// The resources of each node for rooms.
    pub(crate) room: Resources,
    /// Number of nodes.
    pub(crate) nodes: u32,
}

/// All rooms on nodes.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    /// For each size of room; `None`: the home alone needs more than a node.
    pub(crate) splits: Vec<Option<Split>>,
    pub(crate) packing: Packing,
}

impl Whole {
    /// The part of the load that belongs to so many members.
    pub(crate) fn of_members(&self, members: f64) -> Features {
        let part = members / f64::from(self.members);
        Features {
            connections: self.load.connections * part,
            frames_per_s: self.load.frames_per_s * part,
            deliveries_per_s: self.load.deliveries_per_s * part,
            bytes_per_s: self.load.bytes_per_s * part,
            joins_per_s: self.load.joins_per_s * part,
            acks_per_s: self.load.acks_per_s * part,
            ..Features::default()
        }
    }

    /// The load of a node with the room, as far as no member counts. A part has the memory of a room.
    fn of_node(&self) -> Features {
        let Features { rooms, flushes_per_s, .. } = self.load;
        Features { rooms, flushes_per_s, ..Features::default() }
    }

    /// The load of the home for the order of the room.
    pub(crate) fn of_order(&self) -> Features {
        let Features { publishes_per_s, messages_per_s, flushes_per_s, .. } = self.load;
        Features { publishes_per_s, messages_per_s, flushes_per_s, ..Features::default() }
    }

    /// Size of a frame on a link, the entry's own bytes included.
    pub(crate) fn link_frame_bytes(&self) -> f64 {
        self.load.bytes_per_s / self.load.frames_per_s.max(f64::MIN_POSITIVE) + ENTRY_BYTES
    }
}

impl Split {
    /// Members of the node with the most.
    pub(crate) fn members_max(&self) -> u32 {
        self.home.max(self.branch + u32::from(self.larger > 0))
    }

    /// The branches, by members: the number of them, and the members of each.
    fn branches(&self) -> [(u32, u32); 2] {
        let branches = self.nodes - 1;
        [(self.larger, self.branch + 1), (branches - self.larger, self.branch)]
    }
}

impl Site<'_> {
    /// Spreads and packs `rooms` over as many nodes as they need. A link costs a home more with each node, so the
    /// number is raised until it is enough. Fails past [`NODES_MAX`].
    pub(crate) fn place(mut self, rooms: &[Whole]) -> Result<Placed, String> {
        loop {
            let splits: Vec<Option<Split>> = rooms.iter().map(|whole| self.split(whole)).collect();
            let both = rooms.iter().zip(&splits);
            let split = both.filter_map(|(whole, split)| Some((whole, split.as_ref()?)));
            let parts: Vec<Alike> = split.flat_map(|(whole, split)| self.parts(whole, split)).collect();
            let packing = pack(&parts, self.room)?;
            // The number rises each time, so NODES_MAX ends the loop.
            match u32::try_from(packing.nodes.len()) {
                Ok(nodes) if nodes > self.nodes => self.nodes = nodes,
                _ => return Ok(Placed { splits, packing }),
            }
        }
    }

    /// The members node by node, evenly but for a home that has less room. `None`: no number of nodes is enough.
    fn split(&self, whole: &Whole) -> Option<Split> {
        let branch_max = self.members_max(whole, &self.branch(whole, 1, 0))?;
        let home_max = |nodes: u32| self.members_max(whole, &self.home(whole, nodes, 0));
        let fits = |nodes: u32| {
            home_max(nodes)
                .filter(|home| *home + u64::from(nodes - 1) * branch_max >= u64::from(whole.members))
        };
        let nodes_max = u32::try_from(NODES_MAX).unwrap_or(u32::MAX);
        // A home without room for its links has even less for more of them.
        let mut counts = (1..=nodes_max).take_while(|nodes| home_max(*nodes).is_some());
        let least = counts.find(|nodes| fits(*nodes).is_some())?;
        let wide = self.hot_width(whole.members).max(least);
        // More links may leave the home less room. Then the nodes that are needed have to do.
        let (nodes, home_max) = [wide, least].into_iter().find_map(|nodes| Some((nodes, fits(nodes)?)))?;
        let home = u32::try_from(home_max).unwrap_or(u32::MAX).min(whole.members / nodes);
        // A home alone has all members, and no branch divides the rest.
        let rest = whole.members - home;
        let branches = (nodes - 1).max(1);
        Some(Split { nodes, home, branch: rest / branches, larger: rest % branches })
    }

    /// Nodes that the cluster's routes name for a room of so many members: one for each begun
    /// `shards.hot_members` on all shards of a node.
    fn hot_width(&self, members: u32) -> u32 {
        let of_node = HOT_MEMBERS.saturating_mul(crate::figures::rounded(self.processors.floor()).max(1));
        let width = u64::from(members).div_ceil(of_node);
        u32::try_from(width).unwrap_or(u32::MAX).clamp(1, self.nodes)
    }

    /// Members that fit a node beside `fixed`. `None`: not even `fixed` fits.
    fn members_max(&self, whole: &Whole, fixed: &Alike) -> Option<u64> {
        let each = self.need(&whole.of_members(1.0), &LinkLoad::default());
        let all = self.room.parts().into_iter().zip(fixed.need.parts()).zip(each.parts());
        let mut members = f64::from(whole.members);
        for ((room, fixed), each) in all {
            let left = room * (1.0 - ROUNDING) - fixed;
            if left < 0.0 {
                return None;
            }
            if each > 0.0 {
                members = members.min((left / each).floor());
            }
        }
        Some(crate::figures::rounded(members))
    }

    /// The need of a part of a room, without the own need of a node.
    fn need(&self, load: &Features, links: &LinkLoad) -> Resources {
        let with_own = self.models.need(load, self.processors).parts();
        let own = self.models.need(&Features::default(), self.processors).parts();
        let links = [links.processors, 0.0, links.nic_bits_per_s];
        Resources::of(std::array::from_fn(|at| with_own[at] - own[at] + links[at]))
    }

    /// The parts of a room.
    fn parts(&self, whole: &Whole, split: &Split) -> Vec<Alike> {
        let home = self.home(whole, split.nodes, split.home);
        let branches = split.branches().map(|(count, members)| self.branch(whole, count, members));
        std::iter::once(home).chain(branches).filter(|part| part.rooms > 0).collect()
    }

    fn home(&self, whole: &Whole, nodes: u32, members: u32) -> Alike {
        let all = [whole.of_members(f64::from(members)), whole.of_node()];
        let order = Features { flushes_per_s: 0.0, ..whole.of_order() };
        let load = all.into_iter().fold(order, |all, part| all.with(part, |one, other| one + other));
        let links = self.home_links(whole, nodes, members);
        Alike { rooms: whole.rooms, load, need: self.need(&load, &links), links }
    }

    fn branch(&self, whole: &Whole, count: u32, members: u32) -> Alike {
        let load = whole.of_members(f64::from(members)).with(whole.of_node(), |one, other| one + other);
        let mut links = LinkLoad::default();
        links.take(Messages { per_s: whole.load.flushes_per_s, bytes: whole.link_frame_bytes() });
        Alike { rooms: whole.rooms.saturating_mul(count), load, need: self.need(&load, &links), links }
    }

    /// The links of a home: frames to branches, publishes from other doors, and joins of branches.
    fn home_links(&self, whole: &Whole, nodes: u32, members: u32) -> LinkLoad {
        let branches = f64::from(nodes - 1);
        let frames = Messages { per_s: branches * whole.load.flushes_per_s, bytes: whole.link_frame_bytes() };
        let all_nodes = f64::from(self.nodes.max(nodes));
        let elsewhere = (all_nodes - 1.0) / all_nodes;
        let Features { publishes_per_s, messages_per_s, .. } = whole.load;
        let payloads = whole.payload_bytes * messages_per_s / publishes_per_s.max(f64::MIN_POSITIVE);
        let calls = Messages { per_s: elsewhere * publishes_per_s, bytes: payloads + ENTRY_BYTES };
        let answers = Messages { bytes: ENTRY_BYTES, ..calls };
        // Without a branch no join comes from elsewhere.
        let joins_per_s =
            whole.of_members(f64::from(whole.members - members)).joins_per_s * branches.min(1.0);
        let joins = bundled(joins_per_s, branches);
        let mut links = LinkLoad {
            frames_per_s: frames.per_s,
            calls_per_s: calls.per_s + answers.per_s,
            joins_per_s: 2.0 * joins.per_s,
            processors: joins_per_s * JOIN_ORDER_S,
            ..LinkLoad::default()
        };
        for sent in [frames, answers, joins] {
            links.send(sent);
            links.pass(sent);
        }
        for taken in [calls, joins] {
            links.take(taken);
            links.pass(taken);
        }
        links
    }
}

/// Joins of `branches` in as few messages as links allow: those of a pause share a message.
fn bundled(joins_per_s: f64, branches: f64) -> Messages {
    let per_s = joins_per_s.min(branches / LINK_CROWD_PAUSE.as_secs_f64());
    Messages { per_s, bytes: ENTRY_BYTES * joins_per_s / per_s.max(f64::MIN_POSITIVE) }
}

impl Placed {
    /// Number of nodes with rooms.
    pub(crate) fn nodes(&self) -> usize {
        self.packing.nodes.len()
    }

    /// The links of all nodes.
    pub(crate) fn links(&self) -> LinkLoad {
        self.packing.nodes.iter().fold(LinkLoad::default(), |all, node| all.with(node.links, 1.0))
    }

    /// The largest value of any node.
    pub(crate) fn busiest(&self, of: fn(&LinkLoad) -> f64) -> f64 {
        most(self.packing.nodes.iter().map(|node| of(&node.links)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::planning::capacity::answer::tests::models;

    /// 1 000 members need 1 processor, the order 2, and 10 000 flushes/s are 0.1 for each link.
    pub(crate) fn heavy(members: u32) -> Whole {
        let load = Features {
            connections: f64::from(members),
            // The known node needs 2 µs for a connection, 4 µs for a frame, and 50 µs for a publish.
            frames_per_s: f64::from(members) * 249.5,
            bytes_per_s: f64::from(members) * 249.5 * 200.0,
            rooms: 1.0,
            publishes_per_s: 40_000.0,
            messages_per_s: 40_000.0,
            flushes_per_s: 10_000.0,
            ..Features::default()
        };
        Whole { rooms: 1, members, load, payload_bytes: 300.0 }
    }

    pub(crate) const ROOM: Resources =
        Resources { processors: 10.0, memory_bytes: 1e12, nic_bits_per_s: 1e15 };

    fn site(models: &Models, nodes: u32) -> Site<'_> {
        Site { models, processors: 10.0, room: ROOM, nodes }
    }

    fn off_by_one(one: u32, other: u32) -> bool {
        one.abs_diff(other) <= 1
    }

    #[test]
    fn a_home_has_less_room_for_members_than_a_branch() {
        let models = models();
        let split = site(&models, 3).split(&heavy(25_000)).unwrap();
        // 10 − 2 for the order − 2 × 0.1 for links − 40 000 × 2/3 publishes from other doors, 20 µs each with its
        // answer: 7.267.
        assert_eq!(split.nodes, 3);
        assert!(off_by_one(split.home, 7_266), "{split:?}");
        assert!(off_by_one(split.branch, 8_867), "{split:?}");
        let parts = site(&models, 3).parts(&heavy(25_000), &split);
        assert!((parts[0].need.processors - 10.0).abs() < 2e-3, "{parts:?}");
        // 8.867 for its members, and 0.1 for its link.
        assert!((parts[1].need.processors - 8.967).abs() < 2e-3, "{parts:?}");
        assert!((parts[0].links.frames_per_s - 20_000.0).abs() < 1e-6, "a frame for each flush and branch");
    }

    #[test]
    fn a_room_that_fits_a_node_is_whole_and_even_parts_are_even() {
        let models = models();
        let split = site(&models, 9).split(&heavy(7_000)).unwrap();
        assert_eq!(split, Split { nodes: 1, home: 7_000, branch: 0, larger: 0 });
        let light =
            Whole { load: Features { connections: 100_003.0, ..Features::default() }, ..heavy(100_003) };
        // A node takes 20 000 devices of a hot room on its ten shards, and six are asked for.
        let split = site(&models, 9).split(&light).unwrap();
        assert_eq!(split, Split { nodes: 6, home: 16_667, branch: 16_667, larger: 1 });
        assert_eq!(site(&models, 4).split(&light).unwrap().nodes, 4, "there are no more");
    }

    #[test]
    fn members_and_publishes_over_all_nodes_are_those_of_the_rooms() {
        let models = models();
        let rooms = [heavy(50_001), Whole { rooms: 3, ..heavy(17_000) }, Whole { rooms: 40, ..heavy(5) }];
        let placed = site(&models, 1).place(&rooms).unwrap();
        let sum = |of: fn(&Features) -> f64| -> f64 {
            placed.packing.nodes.iter().map(|node| of(&node.load)).sum()
        };
        let asked = |of: fn(&Features) -> f64| -> f64 {
            rooms.iter().map(|whole| f64::from(whole.rooms) * of(&whole.load)).sum()
        };
        for of in [
            (|load: &Features| load.connections) as fn(&Features) -> f64,
            |load| load.frames_per_s,
            |load| load.bytes_per_s,
            |load| load.publishes_per_s,
        ] {
            assert!((sum(of) / asked(of) - 1.0).abs() < 1e-9, "{} of {}", sum(of), asked(of));
        }
        let members = |(whole, split): (&Whole, &Option<Split>)| {
            let split = split.unwrap();
            let branches = split.branches().map(|(count, members)| count * members);
            assert_eq!(split.home + branches.iter().sum::<u32>(), whole.members, "{split:?}");
        };
        rooms.iter().zip(&placed.splits).for_each(members);
        assert!(placed.packing.too_large.is_empty());
        assert!(placed.packing.nodes.iter().all(|node| node.left.iter().all(|left| *left > -1e-3)));
    }

    #[test]
    fn what_homes_send_branches_take() {
        let models = models();
        let placed = site(&models, 1).place(&[heavy(50_000), Whole { rooms: 2, ..heavy(15_000) }]).unwrap();
        let links = placed.links();
        let calls = links.calls_per_s / 2.0;
        // Of a publish the home takes the payload. Its answer goes to a door, which no node counts.
        let expected = links.sent_bytes_per_s - calls * 100.0 + calls * 400.0;
        assert!((links.taken_bytes_per_s / expected - 1.0).abs() < 1e-9, "{links:?}");
    }

    #[test]
    fn more_members_never_need_fewer_nodes() {
        let models = models();
        let nodes = |members: u32| site(&models, 1).place(&[heavy(members)]).unwrap().nodes();
        let all: Vec<usize> = (1..60).map(|step| nodes(step * 3_001)).collect();
        assert!(all.is_sorted() && all[0] == 1 && all[58] > 15, "{all:?}");
    }

    #[test]
    fn a_home_that_its_order_fills_is_on_no_number_of_nodes() {
        let models = models();
        let order = Features { publishes_per_s: 201_000.0, ..heavy(10).load };
        let placed = site(&models, 1).place(&[Whole { load: order, ..heavy(10) }, heavy(10)]).unwrap();
        assert!(placed.splits[0].is_none() && placed.splits[1].is_some());
        // Its links fill it before the branches have room for all members.
        assert_eq!(site(&models, 1).split(&heavy(900_000)), None);
    }

    #[test]
    fn joins_share_messages() {
        let few = bundled(50.0, 2.0);
        assert_eq!((few.per_s, few.bytes), (50.0, 100.0));
        let many = bundled(20_000.0, 2.0);
        assert_eq!((many.per_s, many.bytes), (200.0, 10_000.0), "a message each 10 ms and link");
        assert_eq!(bundled(0.0, 2.0).bytes_per_s(), 0.0);
    }
}
