//! The world: shards, lanes, rooms, segments, a store and devices under one seeded generator and a virtual
//! clock. Every step is drawn. A turn visits one member of a pass at most, so any step may come between two
//! members.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use roomcast::metrics::tally::Tally;
use roomcast::seat::Seats;
use roomcast::shard::directory::Directory;
use roomcast::shard::homes::heat::HeatRules;
use roomcast::shard::lane::{LaneBounds, mesh};
use roomcast::shard::{Plan, Shard, directory};
use roomcast::store::port::Port;
use roomcast::store::reads::ReaderByHand;
use roomcast::store::writer::{Next, Wake, Writer};
use roomcast::store::{Asked as AskedOfStore, StoreAnswer, StoreError, StoreRequest};
use roomcast_core::now::Now;
use roomcast_core::room::id::{NameKey, RoomName, TypeName, mix};
use roomcast_core::room::message::Class;
use roomcast_core::room::pace::RoomRules;
use roomcast_core::room::policy::{Merge, Priority, TypePolicy, Types};

use crate::device::Device;
use crate::disk::{Fault, SimStore};
use crate::keeps::Kept;
use crate::ledger::{Ledger, Mark};
use crate::publisher::{Asked, Since};
use crate::scatter::Scatter;
use crate::socket::{SimSocket, meter};

/// The rooms with a witness, so that every device's story can be checked.
pub(crate) const ROOMS: [&str; 4] = ["r0", "r1", "r2", "r3"];
/// A room without a witness that is closed now and then, members and all.
pub(crate) const CLOSING: &str = "closing";
/// A room with a few messages and then silence, until the room is forgotten.
pub(crate) const QUIET: &str = "quiet";
const STEPS: usize = 900;
/// The head start of the virtual clock on the real clock, longer than any test. The writer never mixes the
/// two.
const AHEAD: Duration = Duration::from_secs(36_000);

/// Branch -> the number of times reached.
#[derive(Debug, Clone, Default)]
pub(crate) struct Coverage(pub(crate) BTreeMap<&'static str, u64>);

impl Coverage {
    pub(crate) fn count(&mut self, branch: &'static str, times: u64) {
        *self.0.entry(branch).or_default() += times;
    }
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: Now,
    pub(crate) shards: Vec<Shard<SimSocket>>,
    /// True for a shard with something left to do after its last turn, or with a new input.
    pub(crate) busy: Vec<bool>,
    pub(crate) store: SimStore,
    pub(crate) writer: Writer,
    /// The store's readers: loads and pages come later than appends of other rooms, as drawn.
    reader: Option<ReaderByHand>,
    ports: Vec<Port>,
    /// The store does nothing before this moment.
    frozen_until: Instant,
    /// The rooms whose stream was asked for and has not come.
    pub(crate) loading: BTreeSet<String>,
    /// The devices of this life of the node.
    pub(crate) devices: Vec<Device>,
    /// Shard and key of connections whose device has another one since.
    pub(crate) lingering: Vec<(usize, u64)>,
    /// Each device's memory by room, over all lives of the node.
    pub(crate) kept: Vec<BTreeMap<String, Kept>>,
    /// Room -> its witnesses in `devices`. A gone witness has a successor.
    pub(crate) witnesses: BTreeMap<&'static str, Vec<usize>>,
    /// Witness -> the number of its frames that were checked for lateness.
    pub(crate) heeded: BTreeMap<usize, usize>,
    pub(crate) ledger: Ledger,
    /// Payload -> the state at the entry of a normal message, to check its window.
    pub(crate) chat: BTreeMap<String, Since>,
    /// Room -> the messages that were given an id.
    pub(crate) ids: BTreeMap<String, Vec<Mark>>,
    pub(crate) asked: BTreeMap<u64, Asked>,
    /// Room and offset -> the missing acknowledgements in the last receipt.
    pub(crate) pending: BTreeMap<(String, u64), u64>,
    pub(crate) ticket: u64,
    pub(crate) number: u64,
    pub(crate) types: Types,
    pub(crate) seats: Seats,
    pub(crate) plan: Plan,
    pub(crate) scatter: Scatter,
    bounds: LaneBounds,
    pub(crate) window: Duration,
    pub(crate) messages_max: usize,
    /// True: the store fails, the node crashes and the clock jumps.
    pub(crate) is_troubled: bool,
    /// True: coupons come by the dozen.
    pub(crate) is_bulky: bool,
    pub(crate) is_draining: bool,
    /// The last moment at which nothing was on its way to a device.
    pub(crate) idle_at: Instant,
    /// The time that passed while a shard had something to do.
    pub(crate) held_back: Duration,
    pub(crate) lapses: u64,
    pub(crate) coverage: Coverage,
    pub(crate) trace: VecDeque<String>,
    /// The most lines of the trace that are kept.
    pub(crate) trace_max: usize,
    /// A digest of the whole trace, for the test of determinism.
    pub(crate) digest: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let now = Now { unix_ms: 1_800_000_000_000, ..roomcast::clock::now().later(AHEAD) };
        let count = rng.usize(1..=3);
        let is_bulky = rng.u8(..4) == 0;
        let messages_max = if is_bulky { rng.usize(10..=30) } else { rng.usize(3..=6) };
        let rules = RoomRules {
            gather: Duration::from_millis(100),
            messages_max,
            bytes_max: if is_bulky { rng.usize(5_000..20_000) } else { rng.usize(300..2000) },
            direct_members: rng.u64(0..=3),
            urgent_spacing: Duration::from_millis(20),
            ..RoomRules::default()
        };
        let bounds = LaneBounds { frames_max: rng.usize(2..=6), control_max: rng.usize(1..=6) };
        let plan =
            Plan { turn_members: 1, meter, ..Plan::new(0, count, rules, Duration::from_secs(36_000), seed) };
        let heat = HeatRules { hot_members: rng.u64(3..=6), ..plan.heat };
        let hot_rooms = ROOMS.into_iter().filter(|_| rng.u8(..16) == 0).map(name).collect();
        let plan = Plan { heat, hot_rooms: Arc::new(hot_rooms), ..plan };
        let is_metered = rng.u8(..3) == 0;
        let is_counting = rng.u8(..4) == 0;
        let directory = Directory::new(count, plan.home_key, plan.hot_rooms.clone());
        let store = SimStore::new(now);
        let mut world = Self {
            is_troubled: rng.u8(..5) > 1,
            rng,
            now,
            busy: Vec::new(),
            shards: Vec::new(),
            writer: Writer::new(Box::new(store.clone()), Vec::new(), now),
            reader: None,
            ports: Vec::new(),
            store,
            frozen_until: now.instant,
            loading: BTreeSet::new(),
            devices: Vec::new(),
            lingering: Vec::new(),
            kept: Vec::new(),
            witnesses: BTreeMap::new(),
            heeded: BTreeMap::new(),
            ledger: Ledger::default(),
            chat: BTreeMap::new(),
            ids: BTreeMap::new(),
            asked: BTreeMap::new(),
            pending: BTreeMap::new(),
            ticket: 0,
            number: 0,
            types: types(),
            seats: Seats::new(10_000),
            plan,
            scatter: Scatter::new(directory, is_metered, is_counting),
            bounds,
            window: rules.gather,
            messages_max,
            is_bulky,
            is_draining: false,
            idle_at: now.instant,
            held_back: Duration::ZERO,
            lapses: 0,
            coverage: Coverage::default(),
            trace: VecDeque::new(),
            trace_max: 400,
            digest: seed,
        };
        world.start();
        // The witnesses hear everything only if they are members before the first step.
        world.turn_until_idle();
        world
    }

    /// The node starts over the same disk.
    pub(crate) fn start(&mut self) {
        let count = self.plan.shards;
        let run_seed = self.rng.u64(..);
        let peers = mesh(count, self.bounds).into_iter().enumerate();
        let plan = self.plan.clone();
        let shard =
            |(index, peers)| Shard::new(Plan { index, run_seed, ..plan.clone() }, peers, self.now.instant);
        self.shards = peers.map(shard).collect();
        self.busy = vec![true; count];
        self.store.disk().start();
        let wakes: Vec<Wake> = (0..count).map(|_| Box::new(|| ()) as Wake).collect();
        self.writer = Writer::new(Box::new(self.store.clone()), wakes, self.now);
        self.reader = self.writer.reader_by_hand();
        self.ports = self.writer.ports();
        self.start_scatter();
        for room in ROOMS {
            self.witnesses.insert(room, Vec::new());
            self.send_witness(room);
        }
    }

    /// Lives one life: many steps, then quiet and its checks, sometimes a drain at the end.
    pub(crate) fn run(&mut self) {
        let steps = self.rng.usize(STEPS / 3..STEPS);
        for _ in 0..steps {
            self.step();
        }
        self.settle();
        self.check_everybody_is_level();
        self.check_placement();
        self.check_counts();
        self.check_receipts();
        self.check_silence();
        if self.rng.u8(..4) == 0 {
            self.drain();
        }
        self.check_stories(false);
    }

    fn step(&mut self) {
        match self.rng.u32(..1000) {
            0..430 => {
                let shard = self.rng.usize(..self.shards.len());
                self.turn(shard);
            }
            430..500 => self.store_works(),
            500..620 => self.publish(),
            620..632 => self.publish_again(),
            632..640 => self.recall(),
            640..646 => self.ask_receipt(),
            646..652 => self.pull(),
            652..690 => self.join_afresh(),
            690..710 => self.join_further(),
            710..740 => self.leave(),
            740..840 => self.read(),
            840..862 => self.acknowledge(),
            862..873 => self.stall(),
            873..877 => self.long_pause(),
            877..888 => self.publish_to(CLOSING),
            888..893 => self.close_room(),
            893..898 => self.reset(),
            898..905 => self.ping(),
            905..908 if self.is_bulky => self.publish_many(),
            908..915 if self.is_troubled => self.draw_trouble(),
            915..919 => self.expect_audience(),
            919..923 => self.load_changes(),
            923..929 => self.find_dead(),
            _ => self.move_clock(),
        }
    }

    pub(crate) fn say(&mut self, line: String) {
        self.digest = mix_of(self.digest, &line);
        if self.trace.len() == self.trace_max {
            self.trace.pop_front();
        }
        self.trace.push_back(line);
    }

    pub(crate) fn turn(&mut self, index: usize) {
        let shard = &mut self.shards[index];
        self.busy[index] = shard.turn(self.now);
        shard.check_invariants();
        let wakes: Vec<usize> = shard.poll_wakes().collect();
        for peer in wakes {
            self.busy[peer] = true;
        }
        self.give_out(index);
        self.heed_witnesses();
    }

    /// Hands out a shard's outputs.
    pub(crate) fn give_out(&mut self, index: usize) {
        while let Some(request) = self.shards[index].homes.poll_store() {
            match &request {
                StoreRequest::Load { room, .. } => {
                    self.loading.insert(room.to_string());
                }
                StoreRequest::Page { .. } => self.coverage.count("read from store", 1),
                StoreRequest::Append(_) | StoreRequest::Forget { .. } => {}
            }
            self.say(format!("shard {index} asks the store: {}", asked_of_store(&request)));
            self.ports[index].send(request).expect("few requests are under way");
        }
        let tally = self.shards[index].take_tally();
        self.note(&tally);
        self.tell_directory(index);
        self.note_windows(index);
        self.take_answers(index);
    }

    pub(crate) fn note(&mut self, tally: &Tally) {
        self.lapses += tally.homes.lane_full;
        self.note_load(tally);
        for (branch, times) in [
            ("lane full", tally.homes.lane_full),
            ("refresh", tally.frames_refresh),
            ("behind", tally.frames_skipped),
            ("forgotten room", tally.homes.rooms_forgotten),
            ("carry", tally.frames_carried),
            ("catching up", tally.frames_catching_up),
        ] {
            self.coverage.count(branch, times);
        }
    }

    /// The store does a piece of work, or a shard takes some of its answers.
    fn store_works(&mut self) {
        if self.rng.bool() && self.frozen_until <= self.now.instant {
            if self.rng.bool() {
                self.writer.turn(self.now);
            } else if self.reader.as_ref().is_some_and(|reader| reader.read_next(self.now)) {
                self.coverage.count("read beside the writer", 1);
            }
        } else {
            let shard = self.rng.usize(..self.shards.len());
            for _ in 0..self.rng.usize(1..4) {
                self.take_stored(shard);
            }
        }
    }

    /// A shard takes an answer of the store. True if there was an answer.
    fn take_stored(&mut self, shard: usize) -> bool {
        let Some(answer) = self.ports[shard].next_answer() else { return false };
        self.say(format!("shard {shard} hears of the store: {}", heard_of_store(&answer)));
        match &answer {
            StoreAnswer::Loaded { room, .. } => {
                self.loading.remove(room.as_str());
            }
            StoreAnswer::Failed { room, asked, error, .. } => {
                if *asked == AskedOfStore::Load {
                    self.loading.remove(room.as_str());
                }
                let disk = self.store.disk();
                // A read that fails is answered alone: no append fails with it.
                let is_of_read = *asked != AskedOfStore::Append || *error != StoreError::Failing;
                let aside = self.writer.health().rooms_aside();
                let is_aside = aside.iter().any(|aside| aside.room == *room);
                self.coverage.count("room aside", u64::from(is_aside));
                assert!(is_of_read || disk.writes_failed > 0, "an append to {room} failed");
                drop(disk);
                let view = self.shards[shard].homes.describe(room, self.now.instant);
                let in_flight = view.is_some_and(|view| view.backlog.not_durable > 0);
                self.coverage.count("store error in flight", u64::from(in_flight));
            }
            StoreAnswer::Durable { .. } | StoreAnswer::Paged { .. } => {}
            StoreAnswer::Forgotten { .. } => self.coverage.count("forgotten stream", 1),
        }
        self.shards[shard].homes.take_stored(answer, self.now);
        self.busy[shard] = true;
        self.give_out(shard);
        true
    }

    /// The store works until idle at this moment, and the shards take the answers. True if there was work.
    pub(crate) fn store_works_off(&mut self) -> bool {
        let mut worked = false;
        if self.frozen_until <= self.now.instant {
            for _ in 0..100 {
                let has_read = self.reader.as_ref().is_some_and(|reader| reader.read_next(self.now));
                if self.writer.turn(self.now) != Next::Again && !has_read {
                    break;
                }
            }
        }
        for shard in 0..self.shards.len() {
            while self.take_stored(shard) {
                worked = true;
            }
        }
        worked
    }

    fn draw_trouble(&mut self) {
        let heals_at = self.now.instant + Duration::from_millis(self.rng.u64(0..4000));
        let trouble = self.rng.u8(..14);
        self.say(format!("trouble {trouble}"));
        let fault = match trouble {
            0 | 1 => Fault::AppendBefore,
            2..=4 => Fault::AppendAfter,
            5 => Fault::Read,
            6 => Fault::Any,
            7 => {
                let mut disk = self.store.disk();
                disk.full = !disk.full;
                return;
            }
            8 => return self.frozen_until = heals_at,
            9 => return self.jump(),
            10 | 11 => return self.damage(heals_at),
            _ => return self.crash(),
        };
        let mut disk = self.store.disk();
        disk.fault = Some(fault);
        disk.heals_at = heals_at;
    }

    /// The pages of a room's stream can't be read for a while.
    pub(crate) fn damage(&mut self, heals_at: Instant) {
        let room = self.rng.choice(ROOMS).unwrap();
        self.say(format!("the pages of {room} are damaged"));
        self.store.disk().unreadable.insert(name(room), heals_at);
        self.coverage.count("bad page", 1);
    }

    /// Ends every fault of the store.
    pub(crate) fn heal(&mut self) {
        self.store.disk().heal();
        self.frozen_until = self.now.instant;
    }
}

fn asked_of_store(request: &StoreRequest) -> String {
    match request {
        StoreRequest::Append(append) => {
            let last = append.messages.last().map_or(0, |message| message.offset);
            format!("append {} life {} up to {last}", append.room, append.life)
        }
        other => format!("{other:?}"),
    }
}

fn heard_of_store(answer: &StoreAnswer) -> String {
    match answer {
        StoreAnswer::Loaded { room, life, stream } => {
            let head = stream.as_ref().map(|stream| (stream.epoch, stream.head, stream.records.len()));
            format!("loaded {room} life {life}: {head:?}")
        }
        StoreAnswer::Paged { room, after, page, .. } => {
            format!("page of {room} after {after}: {} up to {}", page.messages.len(), page.through)
        }
        other => format!("{other:?}"),
    }
}

/// Extends a digest by a text.
pub(crate) fn mix_of(digest: u64, text: &str) -> u64 {
    text.bytes().fold(digest, |hash, byte| mix(hash ^ u64::from(byte)))
}

pub(crate) fn name(room: &str) -> RoomName {
    RoomName::parse(room).expect("a room name")
}

pub(crate) fn home(room: &str, shards: usize) -> usize {
    directory::home(&name(room), NameKey::default(), shards)
}

pub(crate) fn types() -> Types {
    let policy = |class, urgent| TypePolicy { urgent, ..TypePolicy::of(class) };
    let named = |name: &str| TypeName::parse(name).expect("a type name");
    // gift and whisper have no history: history is in room order, and both may leave in another order.
    let plain = TypePolicy { history: false, ..TypePolicy::of(Class::Normal) };
    Types::new([
        (named("gift"), TypePolicy { priority: Priority::High, merge: Merge::Sum, ..plain }),
        (named("whisper"), TypePolicy { priority: Priority::Low, ..plain }),
        (named("coupon"), policy(Class::Reliable, true)),
        (named("chat"), policy(Class::Normal, false)),
        (named("alert"), policy(Class::Normal, true)),
        (named("price"), policy(Class::Latest, false)),
        (named("enter"), policy(Class::Lossy, false)),
        (named("like"), policy(Class::Counter, false)),
    ])
}
