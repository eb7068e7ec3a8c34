//! A shard: one thread's worth of rooms, segments and connections, and the turns they take.
//!
//! [`Shard`] is the whole of it but the waiting: no task, timer, clock or runtime, generic over the socket. Whoever
//! drives it (the shell in `run`, or a simulated world) gives it connections, bytes, publishes and `now`, calls
//! [`Shard::turn`] while it is busy, and sleeps until [`Shard::poll_deadline`] otherwise.

pub mod board;
pub mod connection;
pub mod directory;
pub mod handle;
pub mod heat;
pub mod inbox;
pub mod ladder;
pub mod lane;
pub mod publishers;
pub mod run;
pub mod strain;

mod acks;
mod devices;
mod homes;
mod joins;
mod socket;
mod steps;
mod way_in;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use slab::Slab;

use self::directory::{OwnStep, Spread};
use self::heat::HeatRules;
use self::homes::HomeRoom;
use self::lane::{Control, Peer};
use self::strain::{Strain, Windows};
use crate::metrics::tally::{Holdings, Tally};
use crate::shard::connection::{Connection, Socket};
use crate::store::Request;
use roomcast_core::fanout::segment::Segment;
use roomcast_core::fanout::{Offer, Sink};
use roomcast_core::limits::{HOT_MEMBERS, PASS_TURN_MEMBERS};
use roomcast_core::now::Now;
use roomcast_core::room::id::RoomName;
use roomcast_core::room::ladder::Step;
use roomcast_core::room::message::Published;
use roomcast_core::room::pace::RoomRules;
use roomcast_core::room::{Counts, Told, WriteCost};

/// Deliveries, control entries and rooms of one turn, each at most; so that no source starves another.
const TURN_ENTRIES_MAX: usize = 256;
/// How often deadlines of waiting connections are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// How long to leave a full lane alone.
const PUMP_INTERVAL: Duration = Duration::from_millis(2);

/// Hash tables with fixed seeds: the same order of events gives the same shard.
type Table<K, V> = HashMap<K, V, ahash::RandomState>;

fn table<K, V>() -> Table<K, V> {
    HashMap::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4))
}

/// What a shard is told when it starts.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its own index.
    pub index: usize,
    /// How many there are.
    pub shards: usize,
    /// The flush policy of rooms that say nothing else.
    pub rules: RoomRules,
    /// How often devices are to ping.
    pub heartbeat: Duration,
    /// Where the numbers of runs come from; another one each time a node starts.
    pub run_seed: u64,
    /// Rooms it may hold.
    pub rooms_max: usize,
    /// Members a turn visits.
    pub turn_members: usize,
    /// When a room is hot.
    pub heat: HeatRules,
    /// Rooms that are hot whatever they say of themselves.
    pub hot_rooms: Arc<BTreeSet<RoomName>>,
    /// The processor time that the shard's thread has used; in a simulated world, whatever time costs there.
    pub meter: fn() -> Duration,
}

impl Plan {
    /// The plan of one of `shards` shards, with the bounds of `limits`. No room is listed as hot, and passes cost nothing.
    #[must_use]
    pub fn new(index: usize, shards: usize, rules: RoomRules, heartbeat: Duration, run_seed: u64) -> Self {
        let rooms_max = roomcast_core::limits::ROOMS_MAX.div_ceil(shards);
        // Half of what passes may take: a room gets its second shard before its window has to widen.
        let hot_permille = u64::from(rules.cpu_permille / 2);
        Self {
            index,
            shards,
            rules,
            heartbeat,
            run_seed,
            rooms_max,
            turn_members: PASS_TURN_MEMBERS,
            heat: HeatRules { shards, hot_members: HOT_MEMBERS, hot_permille },
            hot_rooms: Arc::default(),
            meter: || Duration::ZERO,
        }
    }
}

/// One shard.
#[derive(Debug)]
pub struct Shard<S> {
    plan: Plan,
    peers: Vec<Peer>,

    /// What this shard tells itself as a home: its own control lane. Each turn empties it, and what fills it is one
    /// turn's doing.
    control: VecDeque<Control>,

    rooms: Slab<HomeRoom>,
    room_of: Table<RoomName, usize>,
    /// The moment each room asked for.
    deadlines: BTreeSet<(Instant, usize)>,
    runs: u64,
    answers: VecDeque<(u64, Published)>,
    told: VecDeque<(u64, Told)>,
    store_requests: VecDeque<Request>,
    spreads: VecDeque<Spread>,
    /// The step in force for rooms that have none of their own; each is told when it is told something else.
    step: Step,
    own_steps: VecDeque<OwnStep>,

    segments: Slab<Placed>,
    segment_of: Table<RoomName, u32>,
    /// Segments that want turns, in order.
    active: VecDeque<u32>,
    /// When segments want to look for members that did not acknowledge in time.
    looks: BTreeSet<(Instant, u32)>,

    connections: Connections<S>,
    generation: u32,
    /// Connections that have said goodbye, with the moment at which they are dropped: rising, since all linger as long.
    closing: VecDeque<(Instant, u64)>,
    next_sweep: Instant,
    /// Where the search for silent connections goes on.
    silent_at: usize,

    /// When to try again to send what found a lane full.
    pump_again: Option<Instant>,

    strain: Strain,
    /// Segments that have had turns since the meter was read, with the members that were offered frames.
    turns: Vec<(u32, u32)>,
    drain: Drain,
    tally: Tally,
}

/// A segment and what the shard keeps beside it.
#[derive(Debug)]
struct Placed {
    segment: Segment,
    home: usize,
    /// Joins on their way to the home: the segment stays until they are answered.
    joining: u32,
    /// It stands in `active`.
    active: bool,
    /// Its entry in the shard's looks.
    look_at: Option<Instant>,
    /// The room is closed: its members are told when what left before has been passed.
    closing: bool,
    /// Since its members came, and not yet told to the home.
    counts: Counts,
    cost: WriteCost,
    /// What the present pass cost so far.
    spent: Duration,
    /// Members that it has offered frames to.
    offered: u32,
    /// It had a pass since the strain was last weighed.
    passed: bool,
}

impl Placed {
    /// The window that its room needs for the passes here alone.
    fn window(&self, rules: &RoomRules) -> Duration {
        rules.spacing(self.cost.pass(self.segment.census())).max(rules.gather)
    }

    /// A pass begins: what the one before cost counts for a quarter of what is known.
    fn pass_begins(&mut self, stretch_permille: u32) -> WriteCost {
        let spent = std::mem::take(&mut self.spent);
        let offered = std::mem::take(&mut self.offered);
        if offered > 0 && !spent.is_zero() {
            self.cost.per_member = (self.cost.per_member * 3 + spent / offered) / 4;
        }
        self.cost.stretch_permille = stretch_permille;
        self.cost
    }
}

/// How far a drain has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    No,
    /// Nothing is taken in; buffers are flushed.
    Flushing,
    /// Connections from this index on have still to be told.
    Farewell(usize),
}

/// The connections of a shard, as passes write to them.
#[derive(Debug)]
struct Connections<S> {
    all: Slab<Connection<S>>,
    /// Those that are owed something.
    waiting: BTreeSet<u32>,
    /// Those to drop at the end of the turn: they have said their last, or their socket failed. Until then nobody gets
    /// their index, so each entry means the connection it was made for.
    ended: Vec<u32>,
}

impl<S: Socket> Sink for Connections<S> {
    #[inline]
    fn offer(&mut self, connection: u32, frames: &[Bytes], now: Instant) -> Offer {
        debug_assert!(frames.iter().all(|frame| !frame.is_empty()), "a frame for each encoding in use");
        let placed = &mut self.all[connection as usize];
        let offer = placed.offer(frames, now);
        if offer != Offer::Written {
            self.waits(connection);
        }
        offer
    }

    fn is_waiting(&self, connection: u32) -> bool {
        self.all[connection as usize].is_waiting()
    }
}

impl<S: Socket> Connections<S> {
    #[cold]
    fn waits(&mut self, connection: u32) {
        self.waiting.insert(connection);
        if self.all[connection as usize].is_broken() {
            self.ended.push(connection);
        }
    }
}

impl<S: Socket> Shard<S> {
    /// A shard without rooms or connections. `peers` is its row of [`lane::mesh`].
    #[must_use]
    pub fn new(plan: Plan, peers: Vec<Peer>, now: Instant) -> Self {
        Self {
            strain: Strain::new(&plan.rules, now),
            turns: Vec::new(),
            spreads: VecDeque::new(),
            step: Step::Calm,
            own_steps: VecDeque::new(),
            plan,
            peers,
            control: VecDeque::new(),
            rooms: Slab::new(),
            room_of: table(),
            deadlines: BTreeSet::new(),
            runs: 0,
            answers: VecDeque::new(),
            told: VecDeque::new(),
            store_requests: VecDeque::new(),
            segments: Slab::new(),
            segment_of: table(),
            active: VecDeque::new(),
            looks: BTreeSet::new(),
            connections: Connections { all: Slab::new(), waiting: BTreeSet::new(), ended: Vec::new() },
            generation: 0,
            closing: VecDeque::new(),
            next_sweep: now + SWEEP_INTERVAL,
            silent_at: 0,
            pump_again: None,
            drain: Drain::No,
            tally: Tally::default(),
        }
    }

    /// Takes one bounded turn: what came on the lanes, rooms whose moment has come, members of passes under way,
    /// connections past a deadline. Whether there is more to do at once.
    pub fn turn(&mut self, now: Now) -> bool {
        let mut busy = self.take_from_lanes(now);
        self.take_own_control(now);
        busy |= self.take_due_rooms(now);
        busy |= self.take_looks(now);
        busy |= self.take_metered_passes(now);
        busy |= self.take_farewells(now.instant);
        self.sweep(now.instant);
        self.drop_ended(now.instant);
        self.take_own_control(now);
        // A full lane empties by the other shard's doing: there is nothing to do at once, but soon.
        let mut stuck = false;
        for peer in &mut self.peers {
            stuck |= peer.pump();
        }
        self.pump_again = stuck.then(|| now.instant + PUMP_INTERVAL);
        busy || !self.active.is_empty()
    }

    /// When the shard next wants a turn, if nothing happens before.
    #[must_use]
    pub fn poll_deadline(&self) -> Instant {
        // While draining rooms wait for segments, not for time.
        let room = self.deadlines.first().map(|(at, _)| *at).filter(|_| !self.is_draining());
        let look = self.looks.first().map(|(at, _)| *at);
        let dropped = self.closing.front().map(|(at, _)| *at);
        let sweep = if self.connections.all.is_empty() { None } else { Some(self.next_sweep) };
        let far = self.next_sweep + Duration::from_secs(3600);
        [room, look, dropped, sweep, self.pump_again].into_iter().flatten().min().unwrap_or(far)
    }

    /// The next answer to a publish, with the ticket it came with.
    pub fn poll_answer(&mut self) -> Option<(u64, Published)> {
        self.answers.pop_front()
    }

    /// Where a room is to be placed from now on.
    pub fn poll_spread(&mut self) -> Option<Spread> {
        self.spreads.pop_front()
    }

    /// Which step a room has of its own from now on.
    pub fn poll_own_step(&mut self) -> Option<OwnStep> {
        self.own_steps.pop_front()
    }

    /// The shards to wake because something was sent to them.
    pub fn poll_wakes(&mut self) -> impl Iterator<Item = usize> {
        self.peers.iter_mut().enumerate().filter_map(|(index, peer)| peer.take_touched().then_some(index))
    }

    /// What happened since this was last called.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Bytes its devices are owed, welcomes included. Walks those that wait: for every now and then, not for a turn.
    #[must_use]
    pub fn owed_bytes(&self) -> u64 {
        let waiting = self.connections.waiting.iter();
        waiting.map(|index| self.connections.all[*index as usize].owed_bytes() as u64).sum()
    }

    /// What it holds now. Walks rooms and waiting connections: for a gauge once a second, not for a turn.
    #[must_use]
    pub fn holdings(&self) -> Holdings {
        let waiting = &self.connections.waiting;
        let behind = waiting.iter().filter(|index| self.connections.all[**index as usize].is_behind());
        Holdings {
            connections: self.connections.all.len() as u64,
            members: self.segments.iter().map(|(_, placed)| placed.segment.census().members()).sum(),
            rooms: self.rooms.len() as u64,
            waiting: waiting.len() as u64,
            behind: behind.count() as u64,
            gathered: self.rooms.iter().map(|(_, home)| home.room.gathered() as u64).sum(),
            not_durable: self.rooms.iter().map(|(_, home)| home.room.not_durable()).sum(),
            busy_permille: 0,
            passes_permille: self.strain.permille().into(),
            stretch_permille: self.strain.stretch_permille().into(),
            window_needed: self.strain.window_needed(),
        }
    }

    /// The widest windows that rooms which had passes here lately need so that those alone keep to their share.
    fn widest_windows(&mut self) -> Windows {
        let mut windows = Windows::default();
        for (_, placed) in &mut self.segments {
            if !std::mem::take(&mut placed.passed) {
                continue;
            }
            let window = placed.window(&self.plan.rules);
            windows.of_all = windows.of_all.max(window);
            if self.strain.is_helped(window) {
                windows.of_helped = windows.of_helped.max(window);
            }
        }
        windows
    }

    /// Begins to drain: nothing is taken in any more, and what waits in rooms has to leave.
    pub fn drain(&mut self) {
        if self.drain == Drain::No {
            self.drain = Drain::Flushing;
        }
    }

    /// Whether everything that waited has left: the rooms are empty, the lanes quiet, and no pass is under way.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.rooms.iter().all(|(_, home)| home.room.is_flushed())
            && self.active.is_empty()
            && self.segments.iter().all(|(_, placed)| !placed.segment.awaits_refresh())
            && self.control.is_empty()
            && self.peers.iter().all(Peer::is_quiet)
    }

    /// Says goodbye to every connection, a turn's worth at a time.
    pub fn bid_farewell(&mut self) {
        if !matches!(self.drain, Drain::Farewell(_)) {
            self.drain = Drain::Farewell(0);
        }
    }

    /// Whether no connection is left.
    #[must_use]
    pub fn is_deserted(&self) -> bool {
        self.connections.all.is_empty()
    }

    /// Whether a pass over the room's segment here is under way.
    #[must_use]
    pub fn is_passing(&self, room: &RoomName) -> bool {
        let key = self.segment_of.get(room);
        key.is_some_and(|key| self.segments[*key as usize].segment.is_passing())
    }

    /// Asserts what every turn keeps; for the simulated world.
    pub fn check_invariants(&self) {
        for (_, placed) in &self.segments {
            placed.segment.check_invariants();
            assert_eq!(placed.active, placed.segment.is_busy(), "a busy segment stands in line for its turn");
        }
        for (index, connection) in &self.connections.all {
            let index = u32::try_from(index).expect("a shard has fewer than 2^32 connections");
            assert_eq!(
                connection.is_waiting(),
                self.connections.waiting.contains(&index),
                "who waits is known"
            );
        }
        let asked = self.rooms.iter().filter(|(_, home)| home.deadline.is_some()).count();
        assert_eq!(asked, self.deadlines.len(), "each room's deadline is kept");
    }

    fn is_draining(&self) -> bool {
        self.drain != Drain::No
    }

    fn take_own_control(&mut self, now: Now) {
        while let Some(control) = self.control.pop_front() {
            self.take_control(self.plan.index, control, now);
        }
    }

    fn take_from_lanes(&mut self, now: Now) -> bool {
        let mut busy = false;
        for from in 0..self.peers.len() {
            let mut left = TURN_ENTRIES_MAX;
            while let Some(delivery) = self.peers[from].next_delivery() {
                self.take_delivery(delivery, now);
                left -= 1;
                if left == 0 {
                    busy = true;
                    break;
                }
            }
            let mut left = TURN_ENTRIES_MAX;
            while let Some(control) = self.peers[from].next_control() {
                self.take_control(from, control, now);
                left -= 1;
                if left == 0 {
                    busy = true;
                    break;
                }
            }
        }
        busy
    }

    /// Gives segments their turns, and has each bear its part of what they cost. Whether more are to come.
    fn take_metered_passes(&mut self, now: Now) -> bool {
        if self.strain.is_due(now.instant) {
            let windows = self.widest_windows();
            self.strain.weigh(windows, now.instant);
        }
        if self.active.is_empty() {
            return false;
        }
        let before = (self.plan.meter)();
        let busy = self.take_passes(now);
        let spent = (self.plan.meter)().saturating_sub(before);
        let offered: u32 = self.turns.iter().map(|(_, offered)| offered).sum();
        let mut turns = std::mem::take(&mut self.turns);
        for (key, of_it) in turns.drain(..) {
            // The goodbyes of the one before may have emptied it.
            let Some(placed) = self.segments.get_mut(key as usize) else { continue };
            let of_it_spent = spent.saturating_mul(of_it) / offered.max(1);
            self.strain.spend(of_it_spent, placed.window(&self.plan.rules));
            placed.spent += of_it_spent;
            placed.offered = placed.offered.saturating_add(of_it);
            placed.passed = true;
            // Not before the meter was read: goodbyes are no part of a pass.
            self.finish_closing(key, now);
        }
        self.turns = turns;
        busy
    }

    /// Gives segments their turns until a turn's worth of members has been visited.
    fn take_passes(&mut self, now: Now) -> bool {
        let mut left = self.plan.turn_members;
        while left > 0 {
            let Some(key) = self.active.pop_front() else { return false };
            left = left.saturating_sub(self.take_segment_turn(key, left, now));
        }
        !self.active.is_empty()
    }

    /// Gives one segment a turn. What it cost, in members; at least one.
    fn take_segment_turn(&mut self, key: u32, members_max: usize, now: Now) -> usize {
        let Some(placed) = self.segments.get_mut(key as usize).filter(|placed| placed.active) else {
            return 1;
        };
        let turn = placed.segment.turn(members_max, &mut self.connections, now.instant);
        placed.active = placed.segment.is_busy();
        if placed.active {
            self.active.push_back(key);
        }
        placed.counts += turn.counts();
        self.turns.push((key, u32::try_from(turn.offered).unwrap_or(u32::MAX)));
        self.tally.frames_level += turn.level;
        self.tally.frames_refresh += turn.refreshed;
        self.tally.frames_carried += turn.carried;
        self.tally.frames_catching_up += turn.catching_up;
        self.tally.messages_skipped += turn.messages_skipped;
        self.tally.frames_queued += turn.queued;
        self.tally.frames_skipped += turn.skipped;
        self.tally.written.extend(turn.written);
        self.report_turn(key, turn.taken);
        turn.visited.max(1)
    }
}

#[cfg(test)]
mod tests;
