//! The world: nodes of a few shards each, one log, and a pump in place of the clusters' threads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::AddAssign;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::device::{Device, SimSocket};
use super::handed::HandOversUnderWay;
use crate::auth::Grant;
use crate::clock;
use crate::seat::Seats;
use crate::shard::lane::{Delivery, HomeSaid, LaneBounds, mesh};
use crate::shard::slots::Slots;
use crate::shard::ways::{FromNode, NodeWord, ToNode, Way, WayOut};
use crate::shard::{Plan, Shard, directory};
use crate::store::memory::Memory;
use crate::store::time::{Stamp, StoreNow};
use crate::store::{Store as _, StoreAnswer, StoreError, StoreRequest};
use roomcast_core::cluster::{NodeKey, Slot, SlotHome, SlotStanding, Term};
use roomcast_core::now::Now;
use roomcast_core::room::id::{Cursor, DeviceName, Encoding, NameKey, RoomName, Seen, TypeName};
use roomcast_core::room::message::{Class, Published, Verdict};
use roomcast_core::room::pace::RoomRules;
use roomcast_core::room::policy::{TypePolicy, Types};
use roomcast_core::room::{Ask, SegmentSaid, Told};
use roomcast_core::wire::publish;

pub(super) const CLUSTER_KEY: NameKey = NameKey([9, 9]);
pub(super) const ROOMS: [&str; 2] = ["r1", "r2"];

/// Times that each event came.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cover {
    moved: u64,
    places_lost: u64,
    joins_waited: u64,
    frozen: u64,
    thawed: u64,
    lapsed: u64,
    joins_together: u64,
    welcomes_together: u64,
    rewelcomed: u64,
    rewelcomed_in_run: u64,
    refresh_of_two_shards: u64,
    unknown: u64,
    homeless: u64,
    durable: u64,
    pub(super) handed: u64,
    pub(super) resumed: u64,
    pub(super) kept: u64,
}

impl Cover {
    fn all(&mut self) -> [&mut u64; 14] {
        let Self { moved, places_lost, joins_waited, frozen, thawed, lapsed, .. } = self;
        let Self { joins_together, welcomes_together, .. } = self;
        let Self { rewelcomed, rewelcomed_in_run, refresh_of_two_shards, unknown, homeless, durable, .. } =
            self;
        [
            moved,
            places_lost,
            joins_waited,
            frozen,
            thawed,
            lapsed,
            joins_together,
            welcomes_together,
            rewelcomed,
            rewelcomed_in_run,
            refresh_of_two_shards,
            unknown,
            homeless,
            durable,
        ]
    }

    pub(super) fn least(mut self) -> u64 {
        self.all().into_iter().map(|count| *count).min().unwrap()
    }
}

impl AddAssign for Cover {
    fn add_assign(&mut self, mut other: Self) {
        for (count, more) in self.all().into_iter().zip(other.all()) {
            *count += *more;
        }
        self.handed += other.handed;
        self.resumed += other.resumed;
        self.kept += other.kept;
    }
}

pub(super) struct Node {
    pub(super) shards: Vec<Shard<SimSocket>>,
    busy: Vec<bool>,
    pub(super) ways: Vec<Arc<Way>>,
    /// Words for a shard whose way back is full.
    pub(super) backlog: Vec<VecDeque<FromNode>>,
    pub(super) slots: Arc<Slots>,
    home_key: NameKey,
}

impl Node {
    pub(super) fn home(&self, room: &RoomName) -> usize {
        directory::home(room, self.home_key, self.shards.len())
    }

    fn holds(&self, room: &RoomName, run: &str) -> usize {
        let counts = self.shards.iter().filter_map(|shard| shard.residents.counts(room));
        counts.filter(|(of, _)| of.to_string() == run).count()
    }
}

/// A request of a shard to the log, or the answer on its way back.
enum Errand {
    Request(StoreRequest),
    Answer(StoreAnswer),
}

pub(super) struct World {
    seed: u64,
    pub(super) random: fastrand::Rng,
    pub(super) now: Now,
    pub(super) nodes: Vec<Node>,
    /// From and to -> words on their way, with the moment of arrival.
    links: BTreeMap<(usize, usize), VecDeque<(Instant, NodeWord)>>,
    /// From, shard and to -> resets that the shard has not seen.
    unseen: BTreeMap<(usize, usize, usize), u32>,
    /// Node and slot -> standings on their way.
    pub(super) standings: BTreeMap<(usize, Slot), VecDeque<(Instant, SlotStanding)>>,
    errands: VecDeque<(Instant, usize, usize, Errand)>,
    memory: Memory,
    pub(super) claimants: BTreeMap<Slot, usize>,
    pub(super) hand_overs: HandOversUnderWay,
    pub(super) terms: u64,
    pub(super) devices: Vec<Device>,
    seats: Seats,
    pub(super) tickets: u64,
    /// Ticket -> room and payload of a reliable publish.
    asked: BTreeMap<u64, (String, String)>,
    /// Room -> offset -> payload of each message that a publisher knows to be durable.
    durable: BTreeMap<String, BTreeMap<u64, String>>,
    /// Requests of branches without an answer.
    wants: BTreeSet<String>,
    pub(super) is_calm: bool,
    pub(super) cover: Cover,
}

pub(super) fn types() -> Types {
    let named = |name: &str| TypeName::parse(name).unwrap();
    let coupon = TypePolicy { urgent: true, ..TypePolicy::of(Class::Reliable) };
    let [chat, like, price] = [Class::Normal, Class::Counter, Class::Latest].map(TypePolicy::of);
    let others = [("chat", chat), ("like", like), ("price", price)];
    let others = others.map(|(name, policy)| (named(name), policy));
    Types::new(others.into_iter().chain([(named("coupon"), coupon)]))
}

pub(super) fn name(room: &str) -> RoomName {
    RoomName::parse(room).unwrap()
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let count = random.usize(2..=3);
        Self::of_nodes(seed, count, random)
    }

    pub(super) fn of_nodes(seed: u64, count: usize, mut random: fastrand::Rng) -> Self {
        let now = clock::now();
        let nodes = (0..count).map(|node| Self::node(node, &mut random, now)).collect();
        let mut world = Self {
            seed,
            random,
            now,
            nodes,
            links: BTreeMap::new(),
            unseen: BTreeMap::new(),
            standings: BTreeMap::new(),
            errands: VecDeque::new(),
            memory: Memory::default(),
            claimants: BTreeMap::new(),
            hand_overs: HandOversUnderWay::default(),
            terms: 0,
            devices: Vec::new(),
            seats: Seats::new(1000),
            tickets: 0,
            asked: BTreeMap::new(),
            durable: BTreeMap::new(),
            wants: BTreeSet::new(),
            is_calm: false,
            cover: Cover::default(),
        };
        for (number, node) in world.nodes.iter().enumerate() {
            node.set_heirs(number, count);
        }
        for room in ROOMS {
            let to = world.random.usize(..count);
            world.claim(Slot::of(&name(room), CLUSTER_KEY), to);
        }
        world
    }

    fn node(node: usize, random: &mut fastrand::Rng, now: Now) -> Node {
        let shards = random.usize(1..=2);
        let home_key = NameKey([node as u64, 5]);
        let slots = Arc::new(Slots::new(CLUSTER_KEY));
        let ways: Vec<Arc<Way>> = (0..shards).map(|_| Way::new()).collect();
        let bounds = LaneBounds::default();
        let made = mesh(shards, bounds).into_iter().enumerate().map(|(index, lanes)| {
            let run_seed = random.u64(..);
            let plan = Plan::new(index, shards, RoomRules::default(), Duration::from_secs(36_000), run_seed);
            let plan = Plan { home_key, turn_members: 2, ..plan };
            let out = WayOut { way: Arc::clone(&ways[index]), wake: Arc::new(|| ()) };
            Shard::new(plan, lanes, now.instant).in_cluster(Arc::clone(&slots), out)
        });
        let backlog = (0..shards).map(|_| VecDeque::new()).collect();
        Node { shards: made.collect(), busy: vec![true; shards], ways, backlog, slots, home_key }
    }

    pub(super) fn chance(&mut self, percent: u8) -> bool {
        self.random.u8(..100) < percent
    }

    fn later(&mut self, ms_max: u64) -> Instant {
        let ms_max = if self.is_calm { 3 } else { ms_max };
        self.now.instant + Duration::from_millis(self.random.u64(..=ms_max))
    }

    /// A node claims a slot, under this term.
    pub(super) fn begin_term(&mut self, slot: Slot, to: usize) -> Term {
        // A node claims a slot only once it knows that it has lost it: its former rooms end before others hear.
        for (at, _) in self.standings.get_mut(&(to, slot)).into_iter().flatten() {
            *at = self.now.instant;
        }
        self.bring_standings();
        self.hand_overs.under_way.remove(&slot);
        self.claimants.insert(slot, to);
        self.terms += 1;
        Term { generation: 0, sequence: self.terms }
    }

    /// A node claims a slot, and all hear of it in their time.
    pub(super) fn claim(&mut self, slot: Slot, to: usize) {
        let term = self.begin_term(slot, to);
        for node in 0..self.nodes.len() {
            if node != to && self.chance(40) {
                self.stand(node, slot, SlotStanding { home: SlotHome::Nobody, term });
            }
            let home = if node == to { SlotHome::Here } else { SlotHome::There(key(to)) };
            self.stand(node, slot, SlotStanding { home, term });
        }
    }

    pub(super) fn stand(&mut self, node: usize, slot: Slot, standing: SlotStanding) {
        let at = self.later(150);
        let queue = self.standings.entry((node, slot)).or_default();
        let at = queue.back().map_or(at, |(last, _)| at.max(*last));
        queue.push_back((at, standing));
    }

    pub(super) fn reset(&mut self, one: usize, other: usize) {
        for room in ROOMS.map(name) {
            for (home, away) in [(one, other), (other, one)] {
                let shard = self.nodes[home].home(&room);
                let view = self.nodes[home].shards[shard].homes.describe(&room, self.now.instant);
                let held = view.map_or(0, |view| self.nodes[away].holds(&room, &view.run));
                self.cover.places_lost += u64::from(held > 0);
            }
        }
        for (from, to) in [(one, other), (other, one)] {
            self.links.remove(&(from, to));
            for shard in 0..self.nodes[from].shards.len() {
                *self.unseen.entry((from, shard, to)).or_default() += 1;
                self.nodes[from].backlog[shard].push_back(FromNode::Reset { node: key(to) });
            }
            self.wants.retain(|want| !want.starts_with(&format!("{from} ")));
        }
        self.give_up_between(one, other);
    }

    /// Some seconds with everything that may happen.
    pub(super) fn storm(&mut self, hands_over: bool) {
        for _ in 0..300 {
            let step = Duration::from_millis(self.random.u64(1..=20));
            self.now = self.now.later(step);
            match self.random.u8(..100) {
                0..=14 if self.devices.len() < 14 => self.connect_new(),
                15..=17 => {
                    let room = name(ROOMS[self.random.usize(..ROOMS.len())]);
                    let to = self.random.usize(..self.nodes.len());
                    let slot = Slot::of(&room, CLUSTER_KEY);
                    if self.claimants[&slot] != to {
                        self.claim(slot, to);
                        self.cover.moved += 1;
                    }
                }
                18..=20 => {
                    let one = self.random.usize(..self.nodes.len());
                    let other = (one + 1 + self.random.usize(..self.nodes.len() - 1)) % self.nodes.len();
                    self.reset(one, other);
                }
                21..=22 => self.freeze(),
                23..=26 if !self.devices.is_empty() => {
                    let index = self.random.usize(..self.devices.len());
                    let Device { node, shard, key, .. } = self.devices[index];
                    self.nodes[node].shards[shard].residents.hang_up(key, self.now);
                    self.nodes[node].busy[shard] = true;
                }
                27..=30 if !self.devices.is_empty() => self.join_another_room(),
                31..=65 => self.publish(),
                66..=71 if hands_over => {
                    let room = name(ROOMS[self.random.usize(..ROOMS.len())]);
                    let to = self.random.usize(..self.nodes.len());
                    self.hand_over(Slot::of(&room, CLUSTER_KEY), to);
                }
                _ => {}
            }
            self.step();
        }
    }

    fn freeze(&mut self) {
        let room = name(ROOMS[self.random.usize(..ROOMS.len())]);
        let slot = Slot::of(&room, CLUSTER_KEY);
        let node = self.claimants[&slot];
        let standing = self.nodes[node].slots.standing(slot);
        if standing.home == SlotHome::Here && self.standings.get(&(node, slot)).is_none_or(VecDeque::is_empty)
        {
            self.stand(node, slot, SlotStanding { home: SlotHome::Frozen, ..standing });
            self.stand(node, slot, SlotStanding { home: SlotHome::Here, ..standing });
            self.cover.frozen += 1;
        }
    }

    /// Time without faults, until all is told.
    pub(super) fn calm(&mut self) {
        self.is_calm = true;
        for _ in 0..300 {
            self.now = self.now.later(Duration::from_millis(20));
            self.step();
        }
    }

    pub(super) fn step(&mut self) {
        self.bring_standings();
        self.give_up_late();
        self.bring_words();
        self.run_errands();
        for _ in 0..3 {
            for node in 0..self.nodes.len() {
                for shard in 0..self.nodes[node].shards.len() {
                    self.turn(node, shard);
                }
            }
        }
        self.devices_act();
    }

    fn turn(&mut self, node: usize, shard: usize) {
        let at = &mut self.nodes[node];
        while let Some(word) = at.backlog[shard].pop_front() {
            if let Err(word) = at.ways[shard].back.push(word) {
                at.backlog[shard].push_front(word);
                break;
            }
        }
        let one = &mut at.shards[shard];
        at.busy[shard] = one.turn(self.now);
        one.check_invariants();
        one.poll_wakes().for_each(drop);
        drop(one.take_tally());
        while one.homes.poll_scatter().is_some() || one.homes.poll_own_step().is_some() {}
        let requests: Vec<StoreRequest> = std::iter::from_fn(|| one.homes.poll_store()).collect();
        let answers: Vec<(u64, Published)> = std::iter::from_fn(|| one.homes.poll_answer()).collect();
        for request in requests {
            // One thread serves a node's requests in order.
            let due = self.later(10).max(self.errands.back().map_or(self.now.instant, |errand| errand.0));
            self.errands.push_back((due, node, shard, Errand::Request(request)));
        }
        for (ticket, published) in answers {
            self.hear_published(ticket, published);
        }
        while let Some(ToNode { node: NodeKey(to), word }) = self.nodes[node].ways[shard].out.pop() {
            self.send(node, shard, to as usize, word);
        }
    }

    fn hear_published(&mut self, ticket: u64, published: Published) {
        let Some((room, payload)) = self.asked.remove(&ticket) else { return };
        match published {
            Published::Taken(verdicts) => match verdicts[..] {
                [Verdict::Durable { offset }] => {
                    self.cover.durable += 1;
                    self.durable.entry(room).or_default().insert(offset, payload);
                }
                [Verdict::Unavailable(reason)] => self.cover.unknown += u64::from(reason.is_unknown()),
                _ => {}
            },
            Published::Homeless(_) => self.cover.homeless += 1,
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, from: usize, shard: usize, to: usize, word: NodeWord) {
        if let NodeWord::Packed { slot, attempt, is_whole } = word {
            return self.packed(from, shard, slot, attempt, is_whole);
        }
        let unseen = self.unseen.entry((from, shard, to)).or_default();
        if matches!(word, NodeWord::ResetTaken) {
            *unseen -= 1;
            return;
        }
        if *unseen > 0 {
            return;
        }
        if let NodeWord::ToHome(control) = &word
            && let SegmentSaid::Refresh(want) = &control.said
        {
            let want = format!("{from} {to} {} {:?} {want:?}", control.room, control.run);
            assert!(self.wants.insert(want.clone()), "asked once: {want}");
        }
        let word = match word {
            NodeWord::ToBranch(Delivery { room, run, said: HomeSaid::Level(level) })
                if !self.is_calm && self.chance(10) =>
            {
                let seq = level.seq;
                self.cover.lapsed += 1;
                self.cover.refresh_of_two_shards +=
                    u64::from(self.nodes[to].holds(&room, &run.to_string()) > 1);
                let node = key(to);
                let lapsed = FromNode::Lapsed { node, room: room.clone(), run, seq };
                self.nodes[from].backlog[shard].push_back(lapsed);
                NodeWord::ToBranch(Delivery { room, run, said: HomeSaid::Gap { seq } })
            }
            word => word,
        };
        self.push_word(from, to, word);
    }

    pub(super) fn push_word(&mut self, from: usize, to: usize, word: NodeWord) {
        let at = self.later(30);
        let link = self.links.entry((from, to)).or_default();
        let at = link.back().map_or(at, |(last, _)| at.max(*last));
        // As the crowd of a link does.
        let word = match link.back_mut() {
            Some((_, last)) => last.absorb(word),
            None => Some(word),
        };
        link.extend(word.map(|word| (at, word)));
    }

    pub(super) fn bring_standings(&mut self) {
        for ((node, slot), queue) in &mut self.standings {
            while queue.front().is_some_and(|(at, _)| *at <= self.now.instant) {
                let Some((_, standing)) = queue.pop_front() else { break };
                let former = self.nodes[*node].slots.standing(*slot).home;
                self.cover.thawed += u64::from(former == SlotHome::Frozen && standing.home == SlotHome::Here);
                self.nodes[*node].slots.set(*slot, standing);
                if former.is_own() && !standing.home.is_own() {
                    let backlog = &mut self.nodes[*node].backlog;
                    backlog.iter_mut().for_each(|to| to.push_back(FromNode::Resume { slot: *slot }));
                }
            }
        }
    }

    fn bring_words(&mut self) {
        let mut offers = Vec::new();
        for ((from, to), link) in &mut self.links {
            while link.front().is_some_and(|(at, _)| *at <= self.now.instant) {
                let Some((_, word)) = link.pop_front() else { break };
                match &word {
                    NodeWord::Room { .. } => {
                        self.cover.handed += 1;
                        self.nodes[*to].take_room(*from, *to, word);
                        continue;
                    }
                    NodeWord::Packed { slot, attempt, .. } => {
                        offers.push((*slot, *attempt));
                        continue;
                    }
                    NodeWord::Keep(_) => {
                        self.cover.kept += 1;
                        self.nodes[*to].take_kept(word);
                        continue;
                    }
                    NodeWord::ToBranch(Delivery { room, run, said: HomeSaid::Refresh { want, .. } }) => {
                        self.wants.remove(&format!("{to} {from} {room} {:?} {want:?}", Some(run)));
                    }
                    _ => {}
                }
                let is_together = u64::from(word.count() > 1);
                if matches!(word, NodeWord::Joins { .. }) {
                    self.cover.joins_together += is_together;
                } else {
                    self.cover.welcomes_together += is_together;
                }
                let room = word.room().expect("never sent on without a room");
                let node = &mut self.nodes[*to];
                let shard = node.home(room);
                node.backlog[shard].push_back(FromNode::Word { node: key(*from), word });
            }
        }
        offers.into_iter().for_each(|(slot, attempt)| self.take_offer(slot, attempt));
    }

    fn run_errands(&mut self) {
        while self.errands.front().is_some_and(|errand| errand.0 <= self.now.instant) {
            let Some((_, node, shard, errand)) = self.errands.pop_front() else { break };
            match errand {
                Errand::Request(request) => {
                    let answer = self.perform(node, request);
                    // In order: behind all requests under way.
                    let due = self.errands.back().map_or(self.now.instant, |errand| errand.0);
                    self.errands.push_back((due, node, shard, Errand::Answer(answer)));
                }
                Errand::Answer(answer) => self.nodes[node].shards[shard].homes.take_stored(answer, self.now),
            }
        }
    }

    /// The log takes nothing of a node that another has superseded, and reads nothing for it.
    fn perform(&mut self, node: usize, request: StoreRequest) -> StoreAnswer {
        if self.claimants[&Slot::of(request.room(), CLUSTER_KEY)] != node {
            return request.failed(StoreError::Failing);
        }
        let now = StoreNow { instant: self.now.instant, stamp: Stamp::default(), noted: Stamp::default() };
        match request {
            StoreRequest::Load { room, life, whole_after } => {
                let stream = self.memory.load(&room, whole_after, now).unwrap();
                StoreAnswer::Loaded { room, life, stream }
            }
            StoreRequest::Append(append) => {
                let through = append.messages.last().unwrap().offset;
                let outcome = self.memory.append(std::slice::from_ref(&append), now).unwrap().remove(0);
                match outcome {
                    Ok(()) => StoreAnswer::Durable { room: append.room, life: append.life, through },
                    Err(error) => StoreRequest::Append(append).failed(error),
                }
            }
            StoreRequest::Page { room, life, after, bytes_max } => {
                let page = self.memory.page(&room, after, bytes_max).unwrap();
                StoreAnswer::Paged { room, life, after, page }
            }
            StoreRequest::Forget { room, life } => {
                let existed = self.memory.forget(&room).unwrap();
                StoreAnswer::Forgotten { room, life, existed }
            }
        }
    }

    pub(super) fn publish(&mut self) {
        let room = ROOMS[self.random.usize(..ROOMS.len())];
        self.tickets += 1;
        let ticket = self.tickets;
        let type_name = if self.chance(50) { "coupon" } else { "chat" };
        let body = format!(r#"{{"type":"{type_name}","payload":{ticket}}}"#);
        let messages = publish::parse_json(body.as_bytes(), &types()).unwrap();
        // The door of some node, and the home as that node knows it.
        let door = self.random.usize(..self.nodes.len());
        let slot = Slot::of(&name(room), CLUSTER_KEY);
        let node = match self.nodes[door].slots.standing(slot).home {
            SlotHome::There(NodeKey(node)) => node as usize,
            _ => door,
        };
        if type_name == "coupon" {
            self.asked.insert(ticket, (room.to_owned(), ticket.to_string()));
        }
        let node = &mut self.nodes[node];
        let shard = node.home(&name(room));
        node.shards[shard].homes.publish(ticket, &name(room), messages, self.now);
    }

    fn connect_new(&mut self) {
        let node = self.random.usize(..self.nodes.len());
        let room = ROOMS[self.random.usize(..ROOMS.len())];
        let named = self.chance(50).then(|| format!("device-{}", self.devices.len()));
        let capacity = if self.chance(30) { 400 } else { 1 << 20 };
        self.devices.push(Device::new(node, room, named, capacity));
        self.connect(self.devices.len() - 1);
    }

    pub(super) fn connect(&mut self, index: usize) {
        let device = &mut self.devices[index];
        let known = device.rooms.get(&device.first).cloned().unwrap_or_default();
        device.begin();
        let node = &mut self.nodes[device.node];
        let room = name(&device.first);
        let home = node.slots.standing(Slot::of(&room, CLUSTER_KEY)).home;
        self.cover.joins_waited += u64::from(matches!(home, SlotHome::Nobody | SlotHome::Frozen));
        device.shard = self.random.usize(..node.shards.len());
        let seat = self.seats.take().expect("a seat");
        let residents = &mut node.shards[device.shard].residents;
        let socket = SimSocket(Rc::clone(&device.pipe));
        device.key = residents.connect(socket, Encoding::Json, Grant::Any, seat, self.now);
        if let (Some(named), Some(connection)) = (&device.name, residents.connection(device.key)) {
            connection.device = DeviceName::parse(named).unwrap().digest();
        }
        let cursor = known.cursor.map(|(epoch, offset)| Cursor::parse(&format!("{epoch}:{offset}")).unwrap());
        let seen = known.stands.map(|(run, seq)| Seen::parse(&format!("{run}:{seq}")).unwrap());
        residents.join(device.key, &room, seen, cursor, self.now);
    }

    fn say(&mut self, index: usize, text: &str) {
        let Device { node, shard, key, .. } = self.devices[index];
        let mut frame = match text.len() {
            short @ ..126 => vec![0x81, 0x80 | byte(short), 0, 0, 0, 0],
            long => vec![0x81, 0xfe, byte(long >> 8), byte(long & 0xff), 0, 0, 0, 0],
        };
        frame.extend(text.as_bytes());
        self.nodes[node].shards[shard].residents.receive(key, &mut frame, self.now);
    }

    fn join_another_room(&mut self) {
        let index = self.random.usize(..self.devices.len());
        let room = ROOMS[self.random.usize(..ROOMS.len())];
        let device = &mut self.devices[index];
        if device.is_over() || device.rooms.contains_key(room) {
            return;
        }
        device.rooms.insert(room.to_owned(), super::device::Known::default());
        self.say(index, &format!(r#"{{"kind":"join","room":"{room}"}}"#));
    }

    fn devices_act(&mut self) {
        for index in 0..self.devices.len() {
            let device = &mut self.devices[index];
            let before: (u64, u64) = counted(device);
            if device.read() {
                let Device { node, shard, key, .. } = self.devices[index];
                self.nodes[node].shards[shard].residents.writable(key, self.now);
            }
            let after = counted(&self.devices[index]);
            self.cover.rewelcomed += after.0 - before.0;
            self.cover.rewelcomed_in_run += after.1 - before.1;
            if self.devices[index].is_over() {
                if self.is_calm || self.chance(20) {
                    self.connect(index);
                }
                continue;
            }
            if self.chance(10) {
                self.say(index, r#"{"kind":"ping"}"#);
            }
            let rooms: Vec<String> = self.devices[index].rooms.keys().cloned().collect();
            for room in rooms {
                let wants = self.is_calm || self.chance(20);
                let Some(known) = self.devices[index].rooms.get_mut(&room) else { continue };
                if let (true, true, Some((epoch, offset))) = (known.owes_ack, wants, known.cursor.clone()) {
                    known.owes_ack = false;
                    let ack =
                        format!(r#"{{"kind":"ack","room":"{room}","epoch":"{epoch}","offset":{offset}}}"#);
                    self.say(index, &ack);
                }
            }
        }
    }

    /// All is level: each member has every durable message, and the counts are exact.
    pub(super) fn check(&mut self) {
        for room in ROOMS {
            let slot = Slot::of(&name(room), CLUSTER_KEY);
            let node = self.claimants[&slot];
            let shard = self.nodes[node].home(&name(room));
            let members = self.devices.iter().filter(|device| device.rooms.contains_key(room)).count() as u64;
            let view = self.nodes[node].shards[shard].homes.describe(&name(room), self.now.instant);
            let Some(view) = view else {
                assert_eq!(members, 0, "seed {}: {room} is open", self.seed);
                continue;
            };
            assert_eq!(view.members, members, "seed {}: members of {room}", self.seed);
            let durable = self.durable.get(room).cloned().unwrap_or_default();
            for device in &self.devices {
                let Some(known) = device.rooms.get(room) else { continue };
                let why = format!("seed {}: {:?} in {room}: {:#?}", self.seed, device.name, device.trace);
                let stands = (view.run.clone(), view.head.seq);
                assert_eq!(known.stands.as_ref(), Some(&stands), "level: {why}");
                assert_eq!(known.online, Some(members), "online: {why}");
                assert_eq!(known.cursor.as_ref().map(|(_, offset)| *offset), Some(view.head.offset), "{why}");
                for (offset, payload) in &durable {
                    assert_eq!(known.applied.get(offset), Some(payload), "{offset} is applied: {why}");
                }
            }
            for offset in durable.keys() {
                self.check_receipt(node, shard, room, *offset);
            }
        }
    }

    fn check_receipt(&mut self, node: usize, shard: usize, room: &str, offset: u64) {
        let homes = &mut self.nodes[node].shards[shard].homes;
        homes.ask(0, &name(room), Ask::Receipt { offset }, self.now);
        let Some((_, Told::Receipt(Ok(receipt)))) = homes.poll_told() else {
            panic!("seed {}: a receipt of {offset}", self.seed)
        };
        let epoch = receipt.view.epoch;
        let shards = self.nodes.iter().flat_map(|node| &node.shards);
        let parts: Vec<_> =
            shards.filter_map(|shard| shard.residents.receipt(&name(room), epoch, offset)).collect();
        let view = receipt.with(parts);
        let named = self.devices.iter().filter(|device| device.name.is_some()).count() as u64;
        let why = format!("seed {}: {view:?}", self.seed);
        assert!(view.devices <= named, "no device counts twice: {why}");
        assert_eq!(view.online, view.acknowledged + view.left + view.pending, "{why}");
    }
}

fn counted(device: &Device) -> (u64, u64) {
    let rooms = || device.rooms.values();
    (rooms().map(|known| known.rewelcomed).sum(), rooms().map(|known| known.rewelcomed_in_run).sum())
}

/// The number of a node, as all others count it.
pub(super) fn key(node: usize) -> NodeKey {
    NodeKey(u32::try_from(node).unwrap())
}

fn byte(value: usize) -> u8 {
    u8::try_from(value).unwrap()
}

/// Shows the seed of a run that fails.
#[expect(clippy::print_stderr, reason = "the seed repeats the run")]
pub(super) fn note_seed(seed: u64) {
    eprintln!("ROOMCAST_NODES={seed}");
}
