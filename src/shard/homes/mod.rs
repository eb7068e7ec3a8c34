//! The homes of a shard: the rooms that the shard orders, and the way of their outputs to segments,
//! publishers, the store and the directory.
//!
//! Homes know nothing of connections. They hear segments through control lanes and answer through frame
//! lanes.

pub mod heat;
pub mod publishers;

mod frames;
mod handed;
mod kept;
pub(super) mod moves;
mod steps;
mod stored;
mod welcome;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use slab::Slab;

use self::handed::{Arriving, Leaving, Pausing};
use self::heat::{Fuel, Heat};
use self::kept::Keeping;
use self::welcome::Welcomes;
use super::directory::{OwnStep, Scatter};
use super::lane::{Control, Delivery, HomeLanes, HomeSaid, JoinRefusal, JoinRefused, LaneSent};
use super::nodes::Nodes;
use super::{Plan, TURN_ENTRIES_MAX, Table, table};
use crate::metrics::tally::{Holdings, HomesTally};
use crate::store::{Append, StoreRequest};
use roomcast_core::cluster::kept::KeptRooms;
use roomcast_core::cluster::{HandedOut, Slot, node_of_place};
use roomcast_core::limits::{KEPT_BYTES_MAX, SCATTER_INTERVAL};
use roomcast_core::now::Now;
use roomcast_core::room::id::{RoomName, Run, mix};
use roomcast_core::room::ladder::Step;
use roomcast_core::room::message::Published;
use roomcast_core::room::view::RoomLine;
use roomcast_core::room::{Input, Join, Output, Room, SegmentSaid, Told};

/// Time until a room that is hot for the cost of its passes is looked at again, if no segment reports a pass:
/// the cost is smoothed over as long.
const COOL_INTERVAL: Duration = Duration::from_secs(10);

/// The rooms that a shard orders.
#[derive(Debug)]
pub struct Homes {
    plan: Plan,
    pub(super) lanes: HomeLanes,
    /// The standings of slots, and the way to other nodes. `None`: the node is alone.
    pub(super) nodes: Option<Nodes>,
    rooms: Slab<HomeRoom>,
    room_of: Table<RoomName, usize>,
    /// Rooms that no publisher has used. Invariant: the count over `rooms`.
    device_rooms: usize,
    /// Closed rooms, without a name and without members: their publishers wait for answers of the store.
    leaving: Vec<Room>,
    /// Deadline -> room. Invariant: one entry per room that has a deadline.
    deadlines: BTreeSet<(Instant, usize)>,
    /// Runs begun so far; the next run's number is made of it.
    runs: u64,
    /// The step in force for rooms without a step of their own. Each room hears of a change with its next
    /// input.
    pub(super) step: Step,
    is_draining: bool,
    answers: VecDeque<(u64, Published)>,
    told: VecDeque<(u64, Told)>,
    store_requests: VecDeque<StoreRequest>,
    pub(super) scatters: VecDeque<Scatter>,
    own_steps: VecDeque<OwnStep>,
    /// Joins of segments here that rooms have not taken, with their shards: another node has become the home.
    gave_back: VecDeque<(usize, Control)>,
    /// Joins of segments here for rooms that pause, with their shards: they are for whoever has the room next.
    held_joins: VecDeque<(usize, Control)>,
    /// Slots on their way to other nodes.
    leaving_slots: BTreeMap<Slot, Leaving>,
    /// Rooms for which a branch is to stand in.
    handed_out: VecDeque<(RoomName, HandedOut)>,
    /// Rooms that have gone another way than the members of their branches here.
    parted: VecDeque<(RoomName, Run)>,
    /// Rooms of slots that may come from other nodes.
    arriving: Arriving,
    /// The rooms that other nodes would take over, as those know them.
    keeping: Keeping,
    /// The rooms of other nodes that this one would take over.
    kept: KeptRooms,
    pub(super) tally: HomesTally,
}

/// A room and what its home keeps beside it.
#[derive(Debug)]
struct HomeRoom {
    room: Room,
    /// The room's entry in `deadlines`.
    deadline: Option<Instant>,
    welcomes: Welcomes,
    heat: Heat,
    /// Moment to see whether the room has cooled down without a word of its segments: the cost of passes
    /// fades.
    cool_at: Option<Instant>,
    scattered: Option<LastScatter>,
    /// The step an operator gave to the room.
    own_step: Option<Step>,
    /// The step the room was last told.
    told_step: Step,
    opened_by: Opener,
    /// The room pauses before its hand-over.
    pausing: Option<Pausing>,
    /// Nodes that have not said whether their members go on with a room that was handed over. Until then they have no
    /// other members: a node whose members went another way has all of its place counted off.
    unconfirmed: BTreeSet<usize>,
}

/// The side that a room is there for: devices alone, or a publisher that has used the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opener {
    Device,
    Publisher,
}

/// The last word to the directory about a room's members.
#[derive(Debug, Clone, Copy)]
struct LastScatter {
    at: Instant,
    members: u64,
}

impl HomeRoom {
    fn line(&self, home: usize, now: Instant) -> RoomLine {
        RoomLine { hot: self.heat.width() > 1, ..self.room.line(home, now) }
    }
}

impl Homes {
    pub(super) fn new(plan: Plan, lanes: HomeLanes) -> Self {
        Self {
            room_of: table(plan.home_key),
            kept: KeptRooms::new(KEPT_BYTES_MAX / plan.shards),
            keeping: Keeping::default(),
            plan,
            lanes,
            nodes: None,
            rooms: Slab::new(),
            device_rooms: 0,
            leaving: Vec::new(),
            deadlines: BTreeSet::new(),
            runs: 0,
            step: Step::Calm,
            is_draining: false,
            answers: VecDeque::new(),
            told: VecDeque::new(),
            store_requests: VecDeque::new(),
            scatters: VecDeque::new(),
            own_steps: VecDeque::new(),
            gave_back: VecDeque::new(),
            held_joins: VecDeque::new(),
            leaving_slots: BTreeMap::new(),
            handed_out: VecDeque::new(),
            parted: VecDeque::new(),
            arriving: Arriving::default(),
            tally: HomesTally::default(),
        }
    }

    /// The plan of the shard.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The next answer to a publish, with the publish's ticket.
    pub fn poll_answer(&mut self) -> Option<(u64, Published)> {
        self.answers.pop_front()
    }

    /// The next room whose placement changes.
    pub fn poll_scatter(&mut self) -> Option<Scatter> {
        self.scatters.pop_front()
    }

    /// The next room whose own step of the ladder changes.
    pub fn poll_own_step(&mut self) -> Option<OwnStep> {
        self.own_steps.pop_front()
    }

    /// The next deadline of a room; `None` while draining, since rooms then wait for segments and not for
    /// time.
    pub(super) fn poll_deadline(&self) -> Option<Instant> {
        if self.is_draining {
            // A node that takes no batch must not hold up the drain.
            return self.rooms.iter().filter_map(|(_, home)| home.room.lapse_due()).min();
        }
        let room = self.deadlines.first().map(|(at, _)| *at);
        [room, self.keeping.poll_deadline()].into_iter().flatten().min()
    }

    /// Counts since the last call.
    pub(super) fn take_tally(&mut self) -> HomesTally {
        self.tally.kept_left_out += self.kept.take_left_out();
        std::mem::take(&mut self.tally)
    }

    /// Adds the homes' part to the holdings of a shard.
    pub(super) fn hold(&self, holdings: Holdings) -> Holdings {
        let leaving = self.leaving.iter().map(Room::not_durable).sum::<u64>();
        Holdings {
            rooms: self.rooms.len() as u64,
            gathered: self.rooms.iter().map(|(_, home)| home.room.gathered() as u64).sum(),
            kept_bytes: self.kept.bytes(),
            not_durable: self.rooms.iter().map(|(_, home)| home.room.not_durable()).sum::<u64>() + leaving,
            ..holdings
        }
    }

    /// From now on publishes, joins and new settings are refused.
    pub(super) fn take_no_more(&mut self) {
        self.is_draining = true;
    }

    /// True if every room is empty and nothing is on a lane.
    pub(super) fn is_flushed(&self) -> bool {
        self.leaving.is_empty()
            && self.rooms.iter().all(|(_, home)| home.room.is_flushed())
            && self.lanes.is_quiet()
            && self.nodes.as_ref().is_none_or(Nodes::is_quiet)
    }

    pub(super) fn check_invariants(&self) {
        let asked = self.rooms.iter().filter(|(_, home)| home.deadline.is_some()).count();
        assert_eq!(asked, self.deadlines.len(), "each room's deadline is kept");
        assert_eq!(self.room_of.len(), self.rooms.len(), "each room is found by its name");
        let of_devices = self.rooms.iter().filter(|(_, home)| home.opened_by == Opener::Device).count();
        assert_eq!(of_devices, self.device_rooms, "each room that only devices use is counted");
        assert!(
            self.keeping.rooms().all(|key| self.rooms.contains(key)),
            "the rooms that heirs know are open"
        );
    }

    /// Takes the words of the segment at a place: on a local shard, or the branch of another node.
    pub(super) fn take_control(&mut self, shard: usize, control: Control, now: Now) {
        let Control { room, run, said } = control;
        if let SegmentSaid::Join(join) = said {
            return self.take_join(shard, &room, join, now);
        }
        // Words about an earlier life of the room, or about a room that was closed, change nothing.
        let key = self.room_of.get(&room).copied();
        if let Some(key) = key.filter(|key| Some(self.rooms[*key].room.run()) == run) {
            if let SegmentSaid::Paused { attempt } = said {
                return self.note_paused(key, shard, Some(attempt));
            }
            if let SegmentSaid::Enrolled { attempt, .. } = said {
                self.note_paused(key, shard, Some(attempt));
            }
            if matches!(said, SegmentSaid::Moved) {
                self.rooms[key].unconfirmed.remove(&shard);
            }
            self.tell_room(key, Input::Segment { shard, said }, now);
        }
    }

    /// Has rooms cut what they hold, a turn's worth of rooms: the shard drains. True if more are left.
    pub(super) fn flush_all(&mut self, now: Now) -> bool {
        let may_go_on =
            |room: &Room| room.may_flush() || room.lapse_due().is_some_and(|at| at <= now.instant);
        let keys = self.rooms.iter().filter(|(_, home)| may_go_on(&home.room)).map(|(key, _)| key);
        let keys: Vec<usize> = keys.take(TURN_ENTRIES_MAX).collect();
        let busy = keys.len() == TURN_ENTRIES_MAX;
        for key in keys {
            self.tell_room(key, Input::Flush, now);
        }
        busy
    }

    /// Tells rooms that their deadline has come, a turn's worth of rooms. True if more are due.
    pub(super) fn take_due_rooms(&mut self, now: Now) -> bool {
        for _ in 0..TURN_ENTRIES_MAX {
            let Some((_, key)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now.instant) else {
                return false;
            };
            let home = &mut self.rooms[key];
            home.welcomes.forget_old(home.room.seq(), now.instant);
            self.tell_room(key, Input::Due, now);
        }
        true
    }

    fn take_join(&mut self, shard: usize, room: &RoomName, join: Join, now: Now) {
        let is_next_home_s = self.joins_next_home(room);
        if is_next_home_s && !self.is_draining && node_of_place(shard).is_none() {
            let control = Control { room: room.clone(), run: None, said: SegmentSaid::Join(join) };
            return self.held_joins.push_back((shard, control));
        }
        let opened = if self.is_draining || is_next_home_s || self.is_unconfirmed(room, shard) {
            // The connection of another node stays: it is to ask the next home.
            let is_of_node = node_of_place(shard).is_some();
            Err(if is_of_node { JoinRefusal::NotHome } else { JoinRefusal::Draining })
        } else if join.moved {
            Ok(self.reopen(room, now.instant))
        } else if self.step_for(room) == Step::JoinsRefused {
            Err(JoinRefusal::JoinsRefused)
        } else {
            self.open(room, Opener::Device, now.instant).ok_or(JoinRefusal::RoomsFull)
        };
        match opened {
            Ok(key) => self.tell_room(key, Input::Segment { shard, said: SegmentSaid::Join(join) }, now),
            Err(code) => {
                self.refuse_join(shard, room, &join, code);
            }
        }
    }

    fn refuse_join(&mut self, place: usize, room: &RoomName, join: &Join, code: JoinRefusal) {
        let refused = JoinRefused { shard: join.shard, connection: join.connection, join: join.join, code };
        // A refusal answers a join, which knows no run of the room.
        let said = HomeSaid::Refused(refused);
        self.send(place, Delivery { room: room.clone(), run: Run(0), said });
    }

    /// The room of that name, opened if need be. `None`: the shard holds as many rooms as this opener may open.
    fn open(&mut self, name: &RoomName, opener: Opener, now: Instant) -> Option<usize> {
        if let Some(key) = self.room_of.get(name).copied() {
            let opened_by = &mut self.rooms[key].opened_by;
            if opener == Opener::Publisher && *opened_by == Opener::Device {
                *opened_by = Opener::Publisher;
                self.device_rooms -= 1;
            }
            return Some(key);
        }
        // Any device may name any room. Without a reserve, devices alone would keep publishers out.
        let is_full = opener == Opener::Device && self.device_rooms >= self.plan.device_rooms_max;
        if is_full || self.rooms.len() >= self.plan.rooms_max {
            return None;
        }
        Some(self.make_room(name, opener, now))
    }

    fn make_room(&mut self, name: &RoomName, opener: Opener, now: Instant) -> usize {
        self.runs += 1;
        let run = Run(mix(self.plan.run_seed.wrapping_add(self.runs)));
        self.insert_room(Room::new(name.clone(), run, self.plan.rules, now), opener)
    }

    fn insert_room(&mut self, room: Room, opener: Opener) -> usize {
        self.device_rooms += usize::from(opener == Opener::Device);
        let name = room.name().clone();
        let is_listed = self.plan.hot_rooms.contains(&name);
        let heat = if is_listed { Heat::listed(self.plan.shards) } else { Heat::COLD };
        self.tally.rooms_promoted += u64::from(heat.width() > 1);
        let key = self.rooms.insert(HomeRoom {
            room,
            deadline: None,
            welcomes: Welcomes::default(),
            heat,
            cool_at: None,
            scattered: None,
            own_step: None,
            told_step: Step::Calm,
            opened_by: opener,
            pausing: None,
            unconfirmed: BTreeSet::new(),
        });
        self.room_of.insert(name, key);
        key
    }

    /// Gives a room an input, and takes its outputs.
    fn tell_room(&mut self, key: usize, input: Input, now: Now) {
        // First, so that the room decides on this input by the step in force.
        self.tell_step(key, now);
        let is_fuel = match &input {
            Input::Segment { said, .. } => {
                matches!(said, SegmentSaid::Join(_) | SegmentSaid::Left(_) | SegmentSaid::Taken { .. })
            }
            Input::Configure(_) => true,
            Input::Due => self.rooms[key].cool_at.is_some_and(|at| at <= now.instant),
            _ => false,
        };
        self.rooms[key].room.handle(input, now, &mut self.tally.rooms);
        if is_fuel {
            self.feed_heat(key, now.instant);
        }
        self.take_outputs(key, now);
    }

    /// Feeds a room's heat with its present members and cost, and tells the directory of a change.
    fn feed_heat(&mut self, key: usize, now: Instant) {
        let HomeRoom { room, heat, cool_at, scattered, .. } = &mut self.rooms[key];
        // Members of other nodes are no burden of this one.
        let members_here = room.expected_members() - (room.members() - room.local_members());
        let fuel = Fuel { members: members_here, permille: room.load_permille(now) };
        let width = heat.width();
        let members = room.members();
        let changed = heat.feed(fuel, &self.plan.heat);
        // Would the members alone keep the room this hot? If not, its cost does, and cost fades without a
        // word.
        let mut without_cost = *heat;
        let is_hot_by_cost = without_cost.feed(Fuel { permille: 0, ..fuel }, &self.plan.heat);
        *cool_at = is_hot_by_cost.then(|| now + COOL_INTERVAL);
        let is_stale = |last: LastScatter| last.members != members && last.at + SCATTER_INTERVAL <= now;
        // A cold room is on its home, whatever its members: the directory need not know how many. A hot
        // room's numbers are told at most once per interval, or each of 20 000 joins a second would take the
        // directory's lock.
        if !changed && (width == 1 || !scattered.is_none_or(is_stale)) {
            return;
        }
        *scattered = Some(LastScatter { at: now, members });
        let local = room.segments().filter(|(place, _)| node_of_place(*place).is_none());
        let segments = local.map(|(shard, census)| (shard, census.members())).collect();
        let scatter = Scatter { room: room.name().clone(), width: heat.width(), members: segments };
        self.tally.rooms_promoted += u64::from(heat.width() > width);
        self.tally.rooms_demoted += u64::from(heat.width() < width);
        self.scatters.push_back(scatter);
    }

    /// Sends on a room's outputs, and keeps its next deadline.
    fn take_outputs(&mut self, key: usize, now: Now) {
        while let Some(output) = self.rooms[key].room.poll_output() {
            match output {
                Output::Published { ticket, published } => self.answers.push_back((ticket, published)),
                Output::Told { ticket, told } => self.told.push_back((ticket, told)),
                Output::Batch { batch, segments, sent } => {
                    if batch.changes_kept() {
                        self.note_kept(key);
                    }
                    self.send_batch(key, &batch, &segments, sent, now);
                }
                Output::Welcomed(welcomed) => self.send_welcome(key, welcomed, now),
                Output::Refreshed { shard, want, to, head, refresh } => {
                    let room = &self.rooms[key].room;
                    let frame = refresh.map(|refresh| frames::refresh(room, want, &refresh, to, head));
                    self.deliver(key, shard, HomeSaid::Refresh { want, frame: frame.map(Box::new) });
                }
                Output::Carried { shard, want, seq, carried, floor } => {
                    let room = &self.rooms[key].room;
                    let frame = carried.map(|carried| frames::carry(room, want, seq, &carried));
                    self.deliver(key, shard, HomeSaid::Carry { want, seq, frame, floor });
                }
                Output::Load { life, whole_after } => {
                    self.ask_store(key, |room| StoreRequest::Load { room, life, whole_after });
                }
                Output::Append { life, epoch, durable, accepted, messages } => {
                    let append = |room| Append { room, life, epoch, durable, accepted, messages };
                    self.ask_store(key, |room| StoreRequest::Append(append(room)));
                }
                Output::Page { life, after, bytes_max } => {
                    self.ask_store(key, |room| StoreRequest::Page { room, life, after, bytes_max });
                }
                Output::Forget { life } => {
                    let room = self.rooms[key].room.name().clone();
                    self.store_requests.push_back(StoreRequest::Forget { room, life });
                }
                Output::Gap { place, seq } => {
                    self.tally.lane_full += 1;
                    self.deliver(key, place, HomeSaid::Gap { seq });
                }
                Output::StreamChanged => self.send_stream_changed(key),
                Output::GaveBack { place, join } => self.give_back(key, place, join),
                Output::Adopted => self.tell_adopted(key),
                // The room ends here: its key may be another room's with the next `open`.
                Output::Lost => return self.lose_room(key),
                Output::Closed => return self.close(key),
                Output::Idle => return self.forget(key),
            }
        }
        self.keep_deadline(key);
    }

    fn ask_store(&mut self, key: usize, request: impl FnOnce(RoomName) -> StoreRequest) {
        self.store_requests.push_back(request(self.rooms[key].room.name().clone()));
    }

    fn keep_deadline(&mut self, key: usize) {
        let home = &mut self.rooms[key];
        let deadline = [home.room.poll_deadline(), home.cool_at].into_iter().flatten().min();
        let before = std::mem::replace(&mut home.deadline, deadline);
        // Most inputs leave the deadline as it was: no change of the tree for those.
        if before != deadline {
            before.map(|at| self.deadlines.remove(&(at, key)));
            deadline.map(|at| self.deadlines.insert((at, key)));
        }
    }

    /// Takes the name from a room that was closed, and tells its segments.
    fn close(&mut self, key: usize) {
        let HomeRoom { room, .. } = self.take_room(key);
        for (shard, _) in room.segments() {
            let delivery = Delivery { room: room.name().clone(), run: room.run(), said: HomeSaid::Closed };
            self.send(shard, delivery);
        }
        if room.waits_for_store() {
            self.leaving.push(room);
        } else {
            room.shed_rest(&mut self.tally.rooms);
        }
    }

    /// Gives an answer of the store to a closed room.
    fn tell_leaving(&mut self, at: usize, input: Input, now: Now) {
        let room = &mut self.leaving[at];
        room.handle(input, now, &mut self.tally.rooms);
        while let Some(output) = room.poll_output() {
            match output {
                Output::Published { ticket, published } => self.answers.push_back((ticket, published)),
                Output::Told { ticket, told } => self.told.push_back((ticket, told)),
                // The room has neither members nor readers any more, and the store belongs to its next life.
                _ => {}
            }
        }
        if !room.waits_for_store() {
            self.leaving.swap_remove(at).shed_rest(&mut self.tally.rooms);
        }
    }

    /// Drops a room that nobody has used for a while. The room has no members, so nobody is told.
    fn forget(&mut self, key: usize) {
        self.take_room(key).room.shed_rest(&mut self.tally.rooms);
        self.tally.rooms_forgotten += 1;
    }

    fn take_room(&mut self, key: usize) -> HomeRoom {
        let home = self.rooms.remove(key);
        self.room_of.remove(home.room.name());
        self.device_rooms -= usize::from(home.opened_by == Opener::Device);
        home.deadline.map(|at| self.deadlines.remove(&(at, key)));
        if let Some(nodes) = &self.nodes {
            self.keeping.end(nodes.slot_of(home.room.name()), key, home.room.name());
        }
        // The next room of this name begins without what the directory knows of this one.
        if home.own_step.is_some() {
            self.own_steps.push_back(OwnStep { room: home.room.name().clone(), step: None });
        }
        if home.heat.width() > 1 {
            self.tally.rooms_demoted += 1;
            let room = home.room.name().clone();
            self.scatters.push_back(Scatter { room, width: 1, members: Vec::new() });
        }
        home
    }

    /// Sends the words of a room to a place: its segment on a local shard, or its branch on another node.
    fn deliver(&mut self, key: usize, shard: usize, said: HomeSaid) -> LaneSent {
        let room = &self.rooms[key].room;
        let delivery = Delivery { room: room.name().clone(), run: room.run(), said };
        self.send(shard, delivery)
    }
}
