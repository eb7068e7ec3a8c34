//! The shard in a cluster: the standings of slots, the way to other nodes, and the words that come from there.

use std::sync::Arc;

use super::branches::Branches;
use super::homes::moves::SlotTurn;
use super::lane::{Control, LaneEnd, LaneSent};
use super::residents::connection::Socket;
use super::slots::{SlotArrival, Slots, Stood};
use super::ways::{FromNode, NodeWord, ToNode, WayOut};
use super::{Shard, TURN_ENTRIES_MAX};
use roomcast_core::cluster::{NodeKey, SLOTS, Slot, SlotHome, SlotStanding, Term};
use roomcast_core::now::Now;
use roomcast_core::room::SegmentSaid;
use roomcast_core::room::id::{RoomName, Run};

/// The standings of slots as the shard has followed them, and the way to other nodes.
pub(super) struct Nodes {
    slots: Arc<Slots>,
    /// The number of changes at the last look.
    changes: u64,
    stood: Stood,
    way: LaneEnd<ToNode, FromNode>,
    /// The last word of the turn, while a further join or welcome may join it. It leaves before any other word.
    last: Option<ToNode>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Nodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nodes")
            .field("changes", &self.changes)
            .field("way", &self.way)
            .finish_non_exhaustive()
    }
}

impl Nodes {
    fn new(slots: Arc<Slots>, out: WayOut) -> Self {
        let WayOut { way, wake } = out;
        let way = LaneEnd::new(Arc::clone(&way.out), Arc::clone(&way.back));
        // Slots that have a home already are news as well.
        Self { slots, changes: 0, stood: Stood::default(), way, last: None, wake }
    }

    /// The home of a room's slot.
    pub(super) fn home_of(&self, room: &RoomName) -> SlotHome {
        self.stood.standings[self.slots.of(room).index()].home
    }

    /// The slot of a room.
    pub(super) fn slot_of(&self, room: &RoomName) -> Slot {
        self.slots.of(room)
    }

    /// The node that would take a slot of this node over, and the term of this node.
    pub(super) fn heir_of(&self, slot: Slot) -> Option<(NodeKey, Term)> {
        let SlotStanding { home, term } = self.stood.standings[slot.index()];
        // The term of a frozen slot may be another node's.
        self.stood.heirs[slot.index()].filter(|_| home == SlotHome::Here).map(|heir| (heir, term))
    }

    /// True if this node orders a slot, or did until its right to order was in doubt.
    pub(super) fn is_own(&self, slot: Slot) -> bool {
        self.stood.standings[slot.index()].home.is_own()
    }

    /// True if this node holds a slot now, and the rooms here are those of that hold.
    pub(super) fn still_holds(&self, slot: Slot) -> bool {
        self.slots.still_holds(slot, self.stood.losses[slot.index()])
    }

    /// True if a node takes joins of a room.
    pub(super) fn has_home(&self, room: &RoomName) -> bool {
        self.home_of(room).takes_joins()
    }

    /// Sends a word, behind all waiting ones.
    pub(super) fn send(&mut self, said: ToNode) -> LaneSent {
        let ToNode { node, mut word } = said;
        if let Some(last) = self.last.as_mut().filter(|last| last.node == node) {
            match last.word.absorb(word) {
                None => return LaneSent::Yes,
                Some(apart) => word = apart,
            }
        }
        self.send_last();
        if word.is_of_storm() {
            self.last = Some(ToNode { node, word });
            return LaneSent::Yes;
        }
        self.way.send(ToNode { node, word })
    }

    fn send_last(&mut self) {
        if let Some(last) = self.last.take() {
            // No batch, so it never lapses.
            self.way.send(last);
        }
    }

    /// True if so much waits for the way that newcomers are refused.
    pub(super) fn is_overloaded(&self) -> bool {
        self.way.is_overloaded()
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.last.is_none() && self.way.is_quiet()
    }

    /// Sends waiting words, and wakes the cluster's thread. True if words still wait.
    fn pump(&mut self) -> bool {
        self.send_last();
        let is_stuck = self.way.pump() || self.way.pump_gaps();
        if std::mem::take(&mut self.way.touched) {
            (self.wake)();
        }
        is_stuck
    }
}

/// The change of a slot between two looks.
fn slot_turn(former: SlotHome, home: SlotHome, was_lost: bool) -> Option<SlotTurn> {
    match (former, home) {
        _ if was_lost => Some(SlotTurn::Lose),
        (SlotHome::Here, SlotHome::Frozen) => Some(SlotTurn::Freeze),
        (SlotHome::Frozen, SlotHome::Here) => Some(SlotTurn::Thaw),
        _ => None,
    }
}

impl<S: Socket> Shard<S> {
    /// Makes the shard one of a cluster: rooms belong to slots, and slots to nodes.
    #[must_use]
    pub(crate) fn in_cluster(mut self, slots: Arc<Slots>, out: WayOut) -> Self {
        let branches = Branches::new(self.homes.plan());
        self.homes.nodes = Some(Nodes::new(slots, out));
        self.branches = Some(branches);
        self
    }

    /// Takes a turn's worth of words of other nodes. True if more are there.
    pub(super) fn take_from_nodes(&mut self, now: Now) -> bool {
        if self.branches.is_none() {
            return false;
        }
        let mut taken = 0;
        while let Some(from) = self.homes.nodes.as_ref().and_then(|nodes| nodes.way.back.pop()) {
            taken += if let FromNode::Word { word, .. } = &from { word.count() } else { 1 };
            self.take_from_node(from, now);
            if taken >= TURN_ENTRIES_MAX {
                return true;
            }
        }
        if let (Some(branches), Some(nodes)) = (&mut self.branches, &self.homes.nodes) {
            branches.due(|room| nodes.home_of(room), &mut self.homes.lanes, now);
        }
        self.send_words(now);
        false
    }

    /// Takes the words of a segment here: the home of the room hears them, or its branch.
    pub(super) fn take_control(&mut self, shard: usize, control: Control, now: Now) {
        let (Some(branches), Some(nodes)) = (&mut self.branches, &self.homes.nodes) else {
            return self.homes.take_control(shard, control, now);
        };
        let home = nodes.home_of(&control.room);
        let is_join = matches!(control.said, SegmentSaid::Join(_));
        let is_own = home == SlotHome::Here || (home == SlotHome::Frozen && !is_join);
        if is_own && (is_join || !self.homes.is_stood_in(&control.room)) {
            self.homes.take_control(shard, control, now);
        } else {
            branches.is_overloaded = nodes.is_overloaded();
            branches.take_control(shard, control, home, &mut self.homes.lanes, now);
        }
        self.send_words(now);
    }

    /// Sends waiting words to other nodes. True if words still wait.
    pub(super) fn pump_nodes(&mut self, now: Now) -> bool {
        self.send_words(now);
        self.homes.nodes.as_mut().is_some_and(Nodes::pump)
    }

    fn take_from_node(&mut self, from: FromNode, now: Now) {
        let (Some(branches), Some(nodes)) = (&mut self.branches, &mut self.homes.nodes) else { return };
        match from {
            FromNode::Word { node, word: NodeWord::Joins { room, joins } } => {
                self.homes.hear_joins(node, &room, joins, now);
            }
            FromNode::Word { node, word: NodeWord::ToHome(control) } => {
                self.homes.hear_node(node, control, now);
            }
            FromNode::Word { node, word: NodeWord::ToBranch(delivery) } => {
                branches.take_delivery(node, delivery, &mut self.homes.lanes, now);
            }
            // The cluster's thread hears these words, and never says them.
            FromNode::Word {
                word:
                    NodeWord::ResetTaken | NodeWord::Room { .. } | NodeWord::Keep(_) | NodeWord::Packed { .. },
                ..
            } => {}
            FromNode::Reset { node } => {
                nodes.send(ToNode { node, word: NodeWord::ResetTaken });
                self.homes.lose_place(node, now);
                if let Some(nodes) = &self.homes.nodes {
                    branches.reset(node, |room| nodes.home_of(room), &mut self.homes.lanes, now);
                }
            }
            FromNode::Lapsed { node, room, run, seq } => self.homes.lapsed(node, &room, run, seq, now),
            FromNode::HandOver { slot, to, attempt } => self.homes.hand_over(slot, to, attempt),
            FromNode::Resume { slot } => {
                self.homes.resume(slot, |room, run| branches.hand_in(room, run), now);
            }
            FromNode::Arrived { node, slot, attempt, state } => {
                self.homes.arrive(SlotArrival { node, attempt }, slot, state, now);
            }
            FromNode::Keep { slot, term, rooms } => self.homes.keep(slot, term, rooms, now),
        }
        self.send_words(now);
    }

    /// Goes on with the rooms that are handed over. A branch stands in for each room with members here.
    pub(super) fn pack_rooms(&mut self, now: Now) {
        self.homes.pack_rooms(now);
        while let (Some(branches), Some((room, out))) = (&mut self.branches, self.homes.poll_handed_out()) {
            branches.stand_in(room, out, now);
        }
    }

    /// Takes all words of other nodes that are there: the rooms of a slot come before its standing.
    fn take_all_from_nodes(&mut self, now: Now) {
        while let Some(from) = self.homes.nodes.as_ref().and_then(|nodes| nodes.way.back.pop()) {
            self.take_from_node(from, now);
        }
    }

    /// Goes on with the rooms of a slot that was handed over to this node.
    fn adopt_rooms(&mut self, slot: Slot, from: SlotArrival, now: Now) {
        for state in self.homes.take_arrived(slot, from) {
            let (Ok(name), run) = (RoomName::parse(&state.room), Run(state.run)) else { continue };
            let is_of_slot = self.homes.nodes.as_ref().is_some_and(|nodes| nodes.slot_of(&name) == slot);
            let Some(branches) = self.branches.as_mut().filter(|_| is_of_slot) else { continue };
            let here = branches.hand_in(&name, run);
            // The directory forgets the branch before it hears of the room: a hot room stays on its shards.
            self.homes.scatters.extend(std::iter::from_fn(|| branches.poll_scatter()));
            if self.homes.adopt(state, &here, now) {
                for (shard, said) in here.words {
                    self.homes.take_control(shard, Control { room: name.clone(), run: Some(run), said }, now);
                }
            } else {
                self.homes.move_segments(&name, run, &here);
            }
            for join in here.joins {
                let said = SegmentSaid::Join(join);
                let control = Control { room: name.clone(), run: None, said };
                self.homes.take_control(usize::from(join.shard), control, now);
            }
        }
    }

    /// Has rooms and branches follow the changes of their slots since the last look, and the right to order. Called
    /// before anything that may cut.
    pub(super) fn follow_slots(&mut self, now: Now) {
        if self.homes.has_leaving() {
            // A request that waited for the end of a hand-over comes behind the word of that end.
            self.take_all_from_nodes(now);
        }
        let Some(nodes) = &mut self.homes.nodes else { return };
        let changes = nodes.slots.changes();
        if changes == nodes.changes {
            return;
        }
        // The number first: a change behind it is found by the next look.
        nodes.changes = changes;
        let slots = Arc::clone(&nodes.slots);
        let stood = slots.all();
        let had = nodes.stood;
        let came = Slot::all().filter(|slot| {
            let is_new = !had.standings[slot.index()].home.is_own()
                || had.losses[slot.index()] != stood.losses[slot.index()];
            is_new && stood.standings[slot.index()].home.is_own()
        });
        let came: Vec<Slot> = came.collect();
        if !came.is_empty() {
            self.take_all_from_nodes(now);
        }
        let Some(nodes) = &mut self.homes.nodes else { return };
        let former = std::mem::replace(&mut nodes.stood, stood);
        let turns: [Option<SlotTurn>; SLOTS] = std::array::from_fn(|at| {
            let was_lost = former.losses[at] != stood.losses[at];
            slot_turn(former.standings[at].home, stood.standings[at].home, was_lost)
        });
        // A walk over all rooms, at most once per change.
        if turns.iter().any(Option::is_some) {
            self.homes.turn_slots(|room| turns[slots.of(room).index()], now);
            self.homes.forget_leaving(|slot| turns[slot.index()] == Some(SlotTurn::Lose));
            self.homes.forget_keeping(|slot| turns[slot.index()] == Some(SlotTurn::Lose));
        }
        while let (Some(branches), Some((room, run))) = (&mut self.branches, self.homes.poll_parted()) {
            branches.part(&room, run, &mut self.homes.lanes, now);
        }
        for slot in came {
            if let Some(from) = stood.arrivals[slot.index()] {
                self.adopt_rooms(slot, from, now);
            }
            // Also rooms that were not handed over: too large, for example.
            self.homes.open_kept(slot, now);
        }
        self.homes.follow_heirs(|slot| former.heirs[slot.index()] != stood.heirs[slot.index()]);
        let moved = |room: &RoomName| {
            let at = slots.of(room).index();
            (former.standings[at] != stood.standings[at]).then_some(stood.standings[at].home)
        };
        if let Some(branches) = &mut self.branches {
            branches.follow(moved, &mut self.homes.lanes, now);
        }
        if let Some(nodes) = &self.homes.nodes {
            self.residents.find_homes(|room| nodes.has_home(room));
        }
        self.send_words(now);
    }

    /// Sends on the words of branches, and hands joins from homes to branches and back.
    fn send_words(&mut self, now: Now) {
        let Some(branches) = &mut self.branches else { return };
        self.homes.scatters.extend(std::iter::from_fn(|| branches.poll_scatter()));
        loop {
            while let (Some(nodes), Some(word)) = (&mut self.homes.nodes, branches.poll_word()) {
                nodes.send(word);
            }
            if let Some((shard, control)) = branches.poll_own() {
                self.homes.take_control(shard, control, now);
            } else if let Some((shard, control)) = self.homes.poll_gave_back() {
                let home =
                    self.homes.nodes.as_ref().map_or(SlotHome::Here, |nodes| nodes.home_of(&control.room));
                if home == SlotHome::Here {
                    self.homes.take_control(shard, control, now);
                } else {
                    branches.take_control(shard, control, home, &mut self.homes.lanes, now);
                }
            } else {
                return;
            }
        }
    }
}
