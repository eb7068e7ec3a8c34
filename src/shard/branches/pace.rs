//! The pace of joins: a node that takes over many rooms gets the joins of their members a few at a time. All at once,
//! they would be more than a link keeps.

use std::collections::{BTreeMap, VecDeque};

use roomcast_core::cluster::{Branch, NodeKey};
use roomcast_core::limits::{NODE_JOINS_MAX, NODE_ROOM_JOINS_MAX};
use roomcast_core::room::id::RoomName;

/// The joins of a shard's branches on their way to other nodes, and the rooms with further joins.
#[derive(Debug, Default)]
pub(super) struct JoinPace {
    nodes: BTreeMap<NodeKey, NodePace>,
    /// Room -> its part of the joins on their way, as its branch last said.
    of_room: BTreeMap<RoomName, (NodeKey, usize)>,
    /// Room -> the line in which the room stands. The room may be left in former lines, and is skipped there.
    in_line: BTreeMap<RoomName, NodeKey>,
}

/// The joins to a node.
#[derive(Debug, Default)]
struct NodePace {
    /// Invariant: the sum of the rooms' parts.
    sent: usize,
    /// Rooms with joins to send. Each room sends one in its turn.
    line: VecDeque<RoomName>,
}

impl JoinPace {
    /// Notes the joins of a room. `None`: the room has no branch any more.
    pub(super) fn note(&mut self, room: &RoomName, branch: Option<&Branch>) {
        let sent = branch.and_then(Branch::joins_sent);
        if self.of_room.get(room).copied() != sent {
            let former = match sent {
                Some(sent) => self.of_room.insert(room.clone(), sent),
                None => self.of_room.remove(room),
            };
            if let Some((node, count)) = sent {
                self.nodes.entry(node).or_default().sent += count;
            }
            if let Some((node, count)) = former {
                let pace = self.nodes.entry(node).or_default();
                pace.sent -= count;
                if pace.sent == 0 && pace.line.is_empty() {
                    self.nodes.remove(&node);
                }
            }
        }
        match branch.and_then(Branch::sends_to) {
            None => {
                self.in_line.remove(room);
            }
            // A room whose answers are slow would take the places of all others.
            Some(_) if sent.is_some_and(|(_, sent)| sent >= NODE_ROOM_JOINS_MAX) => {
                self.in_line.remove(room);
            }
            Some(node) if self.in_line.get(room) != Some(&node) => {
                self.in_line.insert(room.clone(), node);
                self.nodes.entry(node).or_default().line.push_back(room.clone());
            }
            Some(_) => {}
        }
    }

    /// The next room to send a join.
    pub(super) fn next(&mut self) -> Option<RoomName> {
        // Most words bring no join.
        if self.in_line.is_empty() {
            return None;
        }
        for (node, pace) in &mut self.nodes {
            while pace.sent < NODE_JOINS_MAX
                && let Some(room) = pace.line.pop_front()
            {
                if self.in_line.get(&room) == Some(node) {
                    self.in_line.remove(&room);
                    return Some(room);
                }
            }
        }
        // Most nodes of the past never come back.
        self.nodes.retain(|_, pace| pace.sent > 0 || !pace.line.is_empty());
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use roomcast_core::cluster::{BranchSaid, JoinKey, SlotHome, Welcoming};
    use roomcast_core::room::id::{Encoding, Run};
    use roomcast_core::room::{Departure, Join, SegmentSaid};

    const HOME: NodeKey = NodeKey(7);

    struct World {
        branches: BTreeMap<RoomName, Branch>,
        pace: JoinPace,
        /// Joins without an answer, the oldest first.
        asked: VecDeque<(RoomName, JoinKey)>,
    }

    impl World {
        /// Sends joins as far as their home has places.
        fn send(&mut self) {
            while let Some(room) = self.pace.next() {
                let branch = self.branches.get_mut(&room).unwrap();
                branch.send_join(clock::now().instant);
                while let Some(said) = branch.poll_said() {
                    let BranchSaid::ToHome { said: SegmentSaid::Join(join), .. } = said else { continue };
                    let Join { shard, connection, join, .. } = join;
                    self.asked.push_back((room.clone(), JoinKey { shard, connection, join }));
                }
                self.pace.note(&room, Some(branch));
            }
        }

        /// The home welcomes the member of the oldest join.
        fn answer(&mut self) -> RoomName {
            let (room, key) = self.asked.pop_front().unwrap();
            let encoding = Encoding::Json;
            let departure = Departure { encoding, epoch: None, acked: 0, counts_from: 0, device: 0 };
            let branch = self.branches.get_mut(&room).unwrap();
            assert!(
                branch.welcome(HOME, Run(1), &Welcoming { key, epoch: None, encoding, departure }).is_some()
            );
            self.pace.note(&room, Some(branch));
            self.send();
            room
        }
    }

    /// Rooms with members that join again.
    fn world(rooms: usize, members: u64) -> World {
        let rooms = (0..rooms).map(|room| RoomName::parse(&format!("r{room}")).unwrap());
        let mut world =
            World { branches: BTreeMap::new(), pace: JoinPace::default(), asked: VecDeque::new() };
        for room in rooms {
            let mut branch = Branch::default();
            for connection in 0..members {
                let encoding = Encoding::Json;
                let join = Join {
                    shard: 0,
                    connection,
                    join: 1,
                    encoding,
                    seen: None,
                    cursor: None,
                    device: 0,
                    moved: true,
                };
                branch.hear(0, None, SegmentSaid::Join(join), SlotHome::There(HOME), clock::now().instant);
            }
            world.pace.note(&room, Some(&branch));
            world.branches.insert(room, branch);
        }
        world.send();
        world
    }

    #[test]
    fn a_node_gets_so_many_joins_at_once_and_the_others_as_it_answers_a_room_each_in_turn() {
        let mut world = world(5, 400);
        assert_eq!(world.asked.len(), NODE_JOINS_MAX);
        let answered: Vec<RoomName> = (0..500).map(|_| world.answer()).collect();
        assert_eq!(world.asked.len(), NODE_JOINS_MAX);
        let first = answered.iter().filter(|room| **room == answered[0]).count();
        assert_eq!(first, 100, "a fifth of each room");
        (0..1500).for_each(|_| drop(world.answer()));
        assert!(world.asked.is_empty() && world.pace.nodes.is_empty(), "each join was answered once");
    }

    #[test]
    fn one_room_leaves_places_to_the_others_and_goes_on_as_it_is_answered() {
        let mut world = world(1, 1000);
        assert_eq!(world.asked.len(), NODE_ROOM_JOINS_MAX);
        (0..1000).for_each(|_| drop(world.answer()));
        assert!(world.asked.is_empty() && world.pace.nodes.is_empty(), "each join was answered once");
    }

    #[test]
    fn rooms_that_move_give_their_places_back_and_stand_in_the_line_of_their_next_home() {
        let mut world = world(5, 400);
        let next = NodeKey(8);
        for (room, branch) in &mut world.branches {
            branch.follow(SlotHome::There(next));
            world.pace.note(room, Some(branch));
        }
        world.asked.clear();
        world.send();
        assert_eq!(world.asked.len(), NODE_JOINS_MAX);
        assert_eq!(world.pace.nodes.keys().copied().collect::<Vec<_>>(), [next]);
        for room in world.branches.keys() {
            world.pace.note(room, None);
        }
        assert!(world.pace.nodes.values().all(|node| node.sent == 0) && world.pace.next().is_none());
    }
}
