//! Two exchanges over a simulated bus, with shards and doors that are played here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fastrand::Rng;
use hyper::{Method, StatusCode};
use tokio::sync::oneshot;

use super::*;
use crate::cluster::calls::{CallOutcome, NodeAnswer, NodeRequest};
use crate::shard::directory;
use crate::shard::lane::{Control, Delivery, HomeSaid};
use crate::shard::ways::{FromNode, OWN_PLACE, Way};
use roomcast_core::cluster::{Term, node_place};
use roomcast_core::fanout::segment::Level;
use roomcast_core::limits::{
    LINK_CALLS_MAX, LINK_KEEPS_BYTES_MAX, LINK_KEEPS_WAITING_BYTES_MAX, LINK_KEPT_AGE_MAX, NODE_CALL_AGE_MAX,
};
use roomcast_core::node_proto as pb;
use roomcast_core::room::id::{Encoding, RoomName, Run, Seq};
use roomcast_core::room::{CarryWant, Join, Reach, RefreshWant, SegmentSaid};

const SEEDS: u64 = 500;
const SHARDS: usize = 2;
const ROOMS: usize = 12;
const KEYS: [NameKey; 2] = [NameKey([1, 2]), NameKey([3, 4])];
/// The number of the other node, by side.
const OTHER: [NodeKey; 2] = [NodeKey(7), NodeKey(9)];

/// The words of one side in one room, and the account of the other side.
#[derive(Debug, Default)]
struct Spoken {
    next: u64,
    /// Number -> the resets that the shard had taken at the word.
    kept: BTreeMap<u64, u64>,
    batches: BTreeMap<u64, u64>,
    heard: BTreeSet<u64>,
    lapsed: BTreeSet<u64>,
    last: u64,
    last_life: u64,
    /// Resets that the hearing shard had taken at the last word.
    resets_at_last: u64,
    gap: u64,
}

#[derive(Debug, Default)]
struct PlayedShard {
    /// Words that found the way full.
    waiting: VecDeque<ToNode>,
    resets: u64,
    is_stopped: bool,
}

struct Side {
    exchange: Exchange,
    ways: Vec<WayOut>,
    shards: Vec<PlayedShard>,
    calls: Arc<ArrayQueue<CallOut>>,
    calls_in: mpsc::Receiver<CallIn>,
    /// Calls of this side, with their bodies.
    made: Vec<(Bytes, oneshot::Receiver<CallOutcome>)>,
    asked: Vec<CallIn>,
    is_stopped: bool,
}

#[derive(Debug, Default)]
struct Reached {
    resets: u64,
    lapses: u64,
    repeats: u64,
    stale: u64,
    full_ways: u64,
    together: u64,
    answered: u64,
    unknown: u64,
    busy: u64,
    partings: u64,
}

struct World {
    sides: [Side; 2],
    spoken: [BTreeMap<RoomName, Spoken>; 2],
    rooms: Vec<RoomName>,
    /// Frames that words have in common.
    frames: Vec<Bytes>,
    bus: BTreeMap<(Instant, u64), (usize, Bytes)>,
    sent: u64,
    now: Now,
    rng: Rng,
    loss: f64,
    delay_ms: u64,
    is_cut: [bool; 2],
    reached: Reached,
}

fn join(connection: u64) -> Join {
    let encoding = Encoding::Json;
    Join { shard: 0, connection, join: 1, encoding, seen: None, cursor: None, device: 0, moved: false }
}

fn side(index: usize) -> Side {
    side_that_wakes(index, || {})
}

/// `wake` wakes the shards.
fn side_that_wakes(index: usize, wake: impl Fn() + Send + Sync + 'static) -> Side {
    let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(wake);
    let way = |_| WayOut {
        // Short, so that they are full now and then.
        way: Arc::new(Way { out: Arc::new(ArrayQueue::new(32)), back: Arc::new(ArrayQueue::new(16)) }),
        wake: Arc::clone(&wake),
    };
    let ways: Vec<WayOut> = (0..SHARDS).map(way).collect();
    let calls = Arc::new(ArrayQueue::new(LINK_CALLS_MAX));
    let (door, calls_in) = mpsc::channel(8);
    let plan = ExchangePlan {
        incarnation: 100 + index as u64,
        home_key: KEYS[index],
        ways: ways.clone(),
        calls: Arc::clone(&calls),
        calls_in: door,
        wake: Arc::new(|| {}),
    };
    Side {
        exchange: Exchange::new(plan),
        ways,
        shards: (0..SHARDS).map(|_| PlayedShard::default()).collect(),
        calls,
        calls_in,
        made: Vec::new(),
        asked: Vec::new(),
        is_stopped: false,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let rooms: Vec<RoomName> =
            (0..ROOMS).map(|n| RoomName::parse(&format!("room-{n}")).unwrap()).collect();
        let spoken = || rooms.iter().map(|room| (room.clone(), Spoken::default())).collect();
        let mut world = Self {
            sides: [side(0), side(1)],
            spoken: [spoken(), spoken()],
            frames: (0..8_u8).map(|n| Bytes::from(vec![n; 300 << (n % 4)])).collect(),
            rooms,
            bus: BTreeMap::new(),
            sent: 0,
            now: crate::clock::now(),
            loss: [0.0, 0.0, 0.05, 0.2][rng.usize(..4)],
            delay_ms: [0, 1, 30][rng.usize(..3)],
            rng,
            is_cut: [false; 2],
            reached: Reached::default(),
        };
        (0..2).for_each(|side| world.meet(side));
        world
    }

    fn meet(&mut self, side: usize) {
        self.sides[side].exchange.meet(OTHER[side], 100 + (1 - side) as u64, 1, self.now);
    }

    /// A shard of a side says a word in a room.
    fn say(&mut self, side: usize) {
        let room = self.rooms[self.rng.usize(..ROOMS)].clone();
        let shard = directory::home(&room, KEYS[side], SHARDS);
        let life = self.sides[side].shards[shard].resets;
        let spoken = self.spoken[side].get_mut(&room).unwrap();
        spoken.next += 1;
        let number = spoken.next;
        let sort = self.rng.u8(..5);
        if sort < 2 { &mut spoken.batches } else { &mut spoken.kept }.insert(number, life);
        let run = Run(life);
        let frame = self.frames[self.rng.usize(..self.frames.len())].clone();
        let word = match sort {
            0 | 1 => {
                let level = Level {
                    seq: Seq(number),
                    frames: [frame, Bytes::new()],
                    reach: Reach::default(),
                    ack_within: Duration::ZERO,
                    oldest: self.now.instant,
                    skipped: 0,
                };
                NodeWord::ToBranch(Delivery { room, run, said: HomeSaid::Level(Arc::new(level)) })
            }
            2 => {
                let want = CarryWant { encoding: Encoding::Json, reach: Reach::default() };
                // The floor names the frame to the listener.
                let floor = u64::from(frame[0]);
                let said = HomeSaid::Carry { want, seq: Seq(number), frame: Some(frame), floor };
                NodeWord::ToBranch(Delivery { room, run, said })
            }
            // A word of a crowd. The device names the life to the listener.
            3 => NodeWord::Joins { room, joins: vec![Join { device: life, ..join(number) }] },
            _ => {
                let want = RefreshWant {
                    encoding: Encoding::Json,
                    since: Seq(number),
                    sent: 0,
                    small: false,
                    latest: None,
                };
                NodeWord::ToHome(Control { room, run: Some(run), said: SegmentSaid::Refresh(want) })
            }
        };
        self.sides[side].shards[shard].waiting.push_back(ToNode { node: OTHER[side], word });
        self.play(side);
    }

    /// The shards of a side take what is told, and send what waits.
    fn play(&mut self, side: usize) {
        for shard in 0..SHARDS {
            let played = &mut self.sides[side].shards[shard];
            if played.is_stopped {
                continue;
            }
            let way = Arc::clone(&self.sides[side].ways[shard].way);
            self.reached.full_ways += u64::from(way.back.is_full());
            while let Some(told) = way.back.pop() {
                self.hear(side, shard, told);
            }
            let waiting = &mut self.sides[side].shards[shard].waiting;
            while let Some(word) = waiting.pop_front() {
                if let Err(word) = way.out.push(word) {
                    waiting.push_front(word);
                    break;
                }
            }
        }
    }

    fn hear(&mut self, side: usize, shard: usize, told: FromNode) {
        let word = match told {
            FromNode::Reset { node } => {
                assert_eq!(node, OTHER[side]);
                let played = &mut self.sides[side].shards[shard];
                played.resets += 1;
                played.waiting.push_back(ToNode { node, word: NodeWord::ResetTaken });
                self.reached.resets += 1;
                return;
            }
            FromNode::Lapsed { node, room, seq, .. } => {
                assert_eq!(node, OTHER[side]);
                self.reached.lapses += 1;
                let spoken = self.spoken[side].get_mut(&room).unwrap();
                assert!(spoken.lapsed.insert(seq.0), "a batch lapses once");
                assert_eq!(shard, directory::home(&room, KEYS[side], SHARDS), "at its home");
                return;
            }
            FromNode::Word { node, word } => {
                assert_eq!(node, OTHER[side]);
                word
            }
            FromNode::HandOver { .. }
            | FromNode::Resume { .. }
            | FromNode::Arrived { .. }
            | FromNode::Keep { .. } => panic!("nothing is handed over or kept here"),
        };
        let (room, run, number) = match word {
            NodeWord::Joins { room, joins } => {
                self.reached.together += u64::from(joins.len() > 1);
                for Join { device, connection, .. } in joins {
                    self.note(side, shard, &room, Run(device), connection);
                }
                return;
            }
            NodeWord::ToHome(Control { room, run, said: SegmentSaid::Refresh(want) }) => {
                (room, run.unwrap(), want.since.0)
            }
            NodeWord::ToBranch(Delivery { room, run, said }) => match said {
                HomeSaid::Level(level) => (room, run, level.seq.0),
                HomeSaid::Carry { seq, frame, floor, .. } => {
                    let frame = frame.unwrap();
                    assert!(frame.iter().all(|byte| u64::from(*byte) == floor), "the frame of the word");
                    (room, run, seq.0)
                }
                HomeSaid::Gap { seq } => {
                    let spoken = self.spoken[1 - side].get_mut(&room).unwrap();
                    spoken.gap = spoken.gap.max(seq.0);
                    return;
                }
                said => panic!("nobody said {said:?}"),
            },
            word => panic!("nobody said {word:?}"),
        };
        self.note(side, shard, &room, run, number);
    }

    fn note(&mut self, side: usize, shard: usize, room: &RoomName, run: Run, number: u64) {
        assert_eq!(shard, directory::home(room, KEYS[side], SHARDS), "the shard of the room");
        let resets = self.sides[side].shards[shard].resets;
        let spoken = self.spoken[1 - side].get_mut(room).unwrap();
        assert!(number > spoken.last, "in order, and once");
        if spoken.last > 0 && spoken.last_life != run.0 {
            assert!(resets > spoken.resets_at_last, "the hearer was told of the reset");
        }
        (spoken.last, spoken.last_life, spoken.resets_at_last) = (number, run.0, resets);
        let before = spoken.kept.range(..number).rev().take_while(|(_, life)| **life >= run.0);
        for (earlier, life) in before {
            assert!(*life != run.0 || spoken.heard.contains(earlier), "kept {earlier} is before {number}");
        }
        spoken.heard.insert(number);
    }

    fn call(&mut self, side: usize) {
        let body = Bytes::from(self.rng.u64(..).to_be_bytes().repeat(self.rng.usize(1..400)));
        let (reply, answer) = oneshot::channel();
        let request = NodeRequest {
            method: Method::POST,
            target: "/v1/rooms/r1/messages".into(),
            content_type: None,
            body: body.clone(),
            shed: Vec::new(),
        };
        self.sides[side].calls.push(CallOut { node: OTHER[side], request, reply }).unwrap();
        self.sides[side].made.push((body, answer));
    }

    /// The doors of a side answer some calls, in any order.
    fn answer(&mut self, side: usize) {
        let Side { calls_in, asked, .. } = &mut self.sides[side];
        while let Ok(call) = calls_in.try_recv() {
            asked.push(call);
        }
        while !asked.is_empty() && self.rng.u8(..4) > 0 {
            let call = asked.swap_remove(self.rng.usize(..asked.len()));
            if self.rng.u8(..10) > 0 {
                let body = call.request.body;
                let status = StatusCode::OK;
                let content_type = "text/plain".to_owned();
                // The link may have begun anew.
                let _gone = call.reply.send(NodeAnswer { status, content_type, retry_after: None, body });
            }
        }
    }

    /// A turn of a side, and its messages.
    fn turn(&mut self, side: usize) {
        if self.sides[side].is_stopped {
            return;
        }
        for _ in 0..100 {
            let is_busy = self.sides[side].exchange.turn(self.now);
            while let Some((node, bytes)) = self.sides[side].exchange.poll_send() {
                assert_eq!(node, OTHER[side]);
                if self.is_cut[side] || self.rng.f64() < self.loss {
                    continue;
                }
                let delay = Duration::from_micros(200 + self.rng.u64(..=self.delay_ms * 1000));
                self.sent += 1;
                self.bus.insert((self.now.instant + delay, self.sent), (1 - side, bytes));
            }
            self.play(side);
            // A shard with words wakes the thread of the exchange.
            if !is_busy && self.sides[side].ways.iter().all(|way| way.way.out.is_empty()) {
                return;
            }
        }
        panic!("a turn ends");
    }

    fn advance(&mut self, by: Duration) {
        let target = self.now.instant + by;
        for step in 0.. {
            assert!(step < 100_000, "time goes on");
            let arrival = self.bus.keys().next().map(|(at, _)| *at);
            let due = |side: &Side| side.exchange.poll_deadline().filter(|_| !side.is_stopped);
            let [one, other] = &self.sides;
            let next = [arrival, due(one), due(other)].into_iter().flatten().min();
            let Some(next) = next.filter(|at| *at <= target) else { break };
            let later = next.saturating_duration_since(self.now.instant);
            self.now = self.now.later(later);
            if arrival == Some(next) {
                let (_, (side, bytes)) = self.bus.pop_first().unwrap();
                if !self.sides[side].is_stopped {
                    self.sides[side].exchange.take(bytes, self.now);
                    self.turn(side);
                }
            } else {
                (0..2).for_each(|side| self.turn(side));
            }
        }
        self.now = self.now.later(target.saturating_duration_since(self.now.instant));
    }

    fn run(&mut self) {
        for _ in 0..self.rng.usize(15..40) {
            let side = self.rng.usize(..2);
            match self.rng.u8(..100) {
                0..6 => self.is_cut[side] = !self.is_cut[side],
                6..10 => self.sides[side].is_stopped = !self.sides[side].is_stopped,
                10..16 => {
                    let shard = &mut self.sides[side].shards[self.rng.usize(..SHARDS)];
                    shard.is_stopped = !shard.is_stopped;
                }
                16..18 => {
                    self.reached.partings += 1;
                    self.note_counts();
                    self.sides[side].exchange.part(OTHER[side], self.now);
                    if self.rng.bool() {
                        let by = Duration::from_millis(self.rng.u64(..200));
                        self.advance(by);
                    }
                    self.meet(side);
                }
                18..21 => {
                    let by = Duration::from_millis(self.rng.u64(500..2500));
                    self.advance(by);
                }
                21..35 => (0..self.rng.usize(1..12)).for_each(|_| self.call(side)),
                _ => (0..self.rng.usize(1..40)).for_each(|_| self.say(side)),
            }
            self.answer(side);
            (0..2).for_each(|side| self.turn(side));
            let by = Duration::from_millis(self.rng.u64(..25));
            self.advance(by);
        }
        self.heal();
        self.note_counts();
    }

    fn note_counts(&mut self) {
        for side in &mut self.sides {
            let tallies = side.exchange.take_tallies(self.now).into_iter();
            let tally = tallies.map(|(_, tally, _)| tally).next().unwrap_or_default();
            self.reached.repeats += tally.repeated;
            self.reached.stale += tally.stale;
        }
    }

    /// Ends all faults, and checks that nothing is missing.
    fn heal(&mut self) {
        self.is_cut = [false; 2];
        self.loss = 0.0;
        self.delay_ms = 0;
        for side in &mut self.sides {
            side.is_stopped = false;
            side.shards.iter_mut().for_each(|shard| shard.is_stopped = false);
        }
        self.advance(Duration::from_secs(3));
        for side in 0..2 {
            (0..40).for_each(|_| self.say(side));
            self.turn(side);
        }
        for _ in 0..20 {
            for side in 0..2 {
                self.answer(side);
                self.turn(side);
            }
            self.advance(NODE_CALL_AGE_MAX / 10);
        }
        for (side, key) in KEYS.into_iter().enumerate() {
            for (room, spoken) in &self.spoken[side] {
                let shard = directory::home(room, key, SHARDS);
                let life = self.sides[side].shards[shard].resets;
                for (number, _) in spoken.kept.iter().filter(|(_, of)| **of == life) {
                    assert!(spoken.heard.contains(number), "{room} of {side}: kept {number} is missing");
                }
                for (number, _) in spoken.batches.iter().filter(|(_, of)| **of == life) {
                    let is_lapsed = spoken.lapsed.contains(number);
                    assert!(spoken.heard.contains(number) || is_lapsed, "{room} of {side}: batch {number}");
                    let is_told = spoken.gap.max(spoken.last) >= *number;
                    assert!(is_told, "{room} of {side}: no gap for batch {number}");
                }
            }
            for (body, mut answer) in std::mem::take(&mut self.sides[side].made) {
                match answer.try_recv().expect("each call is answered") {
                    Ok(answer) => {
                        assert_eq!(answer.body, body, "the answer to this call");
                        self.reached.answered += 1;
                    }
                    Err(CallFailed::Busy) => self.reached.busy += 1,
                    Err(CallFailed::Unknown) => self.reached.unknown += 1,
                }
            }
        }
    }
}

#[test]
fn words_of_many_rooms_keep_their_order_and_each_call_has_one_answer() {
    let mut all = [0; 10];
    let one = std::env::var("ROOMCAST_EXCHANGE").ok().map(|seed| seed.parse().unwrap());
    for seed in one.map_or(0..SEEDS, |seed| seed..seed + 1) {
        let mut world = World::new(seed);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
        assert!(outcome.is_ok(), "ROOMCAST_EXCHANGE={seed}");
        let Reached { resets, lapses, repeats, stale, full_ways, together, .. } = world.reached;
        let Reached { answered, unknown, busy, partings, .. } = world.reached;
        let reached =
            [resets, lapses, repeats, stale, full_ways, together, answered, unknown, busy, partings];
        all.iter_mut().zip(reached).for_each(|(all, reached)| *all += reached);
    }
    assert!(one.is_some() || all.iter().all(|count| *count >= 50), "{all:?}");
}

#[test]
fn another_version_closes_the_link_once() {
    let mut side = side(0);
    let now = crate::clock::now();
    side.exchange.meet(OTHER[0], 101, 1, now);
    let mut message = vec![9, 0];
    message.extend(101_u64.to_be_bytes());
    message.extend(100_u64.to_be_bytes());
    message.extend([0; 8]);
    let (reply, mut answer) = oneshot::channel();
    let target = "/".to_owned();
    let method = Method::GET;
    let request = NodeRequest { method, target, content_type: None, body: Bytes::new(), shed: Vec::new() };
    side.exchange.take(message.clone().into(), now);
    side.exchange.take(message.into(), now);
    side.calls.push(CallOut { node: OTHER[0], request, reply }).unwrap();
    side.exchange.turn(now);
    assert_eq!(answer.try_recv().unwrap(), Err(CallFailed::Busy));
    assert!(matches!(side.ways[0].way.back.pop(), Some(FromNode::Reset { .. })));
    assert!(side.ways[0].way.back.is_empty(), "told once");
    assert_eq!(side.exchange.poll_send(), None);
}

#[test]
fn a_link_that_begins_anew_ends_the_hand_overs_whose_rooms_it_has_lost() {
    let mut side = side(0);
    let now = crate::clock::now();
    let room = RoomName::parse("room-1").unwrap();
    let way = Arc::clone(&side.ways[directory::home(&room, KEYS[0], SHARDS)].way);
    side.exchange.meet(OTHER[0], 101, 1, now);
    let word = NodeWord::ToHome(Control { room, run: Some(Run(1)), said: SegmentSaid::Moved });
    way.out.push(ToNode { node: OTHER[0], word }).unwrap();
    side.exchange.turn(now);
    while side.exchange.poll_send().is_some() {}
    assert_eq!(side.exchange.poll_reset(), None);
    side.exchange.turn(now.later(LINK_KEPT_AGE_MAX));
    assert_eq!(side.exchange.poll_reset(), Some(OTHER[0]));
    assert_eq!(side.exchange.poll_reset(), None, "told once");
}

/// A word of a home about a batch.
fn batch_word(room: &RoomName, seq: u64, now: Now) -> NodeWord {
    let frames = [Bytes::from_static(b"batch"), Bytes::new()];
    let reach = Reach::default();
    let level =
        Level { seq: Seq(seq), frames, reach, ack_within: Duration::ZERO, oldest: now.instant, skipped: 0 };
    NodeWord::ToBranch(Delivery { room: room.clone(), run: Run(1), said: HomeSaid::Level(Arc::new(level)) })
}

/// The home would wait for a word about the batch for ever.
#[test]
fn a_batch_to_a_node_that_has_gone_lapses_at_once() {
    let mut side = side(0);
    let now = crate::clock::now();
    let room = RoomName::parse("room-1").unwrap();
    let way = Arc::clone(&side.ways[directory::home(&room, KEYS[0], SHARDS)].way);
    let say = |word| way.out.push(ToNode { node: OTHER[0], word }).unwrap();
    side.exchange.meet(OTHER[0], 101, 1, now);
    side.exchange.part(OTHER[0], now);
    say(batch_word(&room, 1, now));
    side.exchange.turn(now);
    assert!(matches!(way.back.pop(), Some(FromNode::Reset { .. })));
    assert!(way.back.is_empty(), "the reset covers a batch before it");
    say(NodeWord::ResetTaken);
    say(batch_word(&room, 2, now));
    side.exchange.turn(now);
    let lapsed = way.back.pop();
    assert!(matches!(&lapsed, Some(FromNode::Lapsed { seq: Seq(2), .. })), "{lapsed:?}");
}

/// Two sides that have met.
fn met(mut sides: [Side; 2], now: Now) -> [Side; 2] {
    sides.iter_mut().zip(OTHER).enumerate().for_each(|(index, (side, node))| {
        side.exchange.meet(node, 101 - index as u64, 1, now);
    });
    sides
}

/// A turn of a side, with its messages to the other.
fn pass_on(sides: &mut [Side; 2], from: usize, now: Now) {
    while sides[from].exchange.turn(now) {}
    while let Some((_, message)) = sides[from].exchange.poll_send() {
        sides[1 - from].exchange.take(message, now);
    }
}

/// Answers past the bound of the link would reset it, and the answers would be lost.
#[test]
fn large_answers_take_turns_in_a_link() {
    let mut now = crate::clock::now();
    let mut sides = met([side(0), side(1)], now);
    let mut answers = Vec::new();
    for _ in 0..8 {
        let (reply, answer) = oneshot::channel();
        let target = "/v1/rooms/r1/reliable".to_owned();
        let request = NodeRequest {
            method: Method::GET,
            target,
            content_type: None,
            body: Bytes::new(),
            shed: Vec::new(),
        };
        sides[0].calls.push(CallOut { node: OTHER[0], request, reply }).unwrap();
        answers.push(answer);
    }
    pass_on(&mut sides, 0, now);
    // All of them are there at once.
    while let Ok(call) = sides[1].calls_in.try_recv() {
        let body = Bytes::from(vec![7; 5 << 20]);
        let content_type = "text/plain".to_owned();
        let answer = NodeAnswer { status: StatusCode::OK, content_type, retry_after: None, body };
        call.reply.send(answer).unwrap();
    }
    for _ in 0..200 {
        now = now.later(Duration::from_millis(1));
        pass_on(&mut sides, 1, now);
        pass_on(&mut sides, 0, now);
    }
    let is_answered = |answer: &mut oneshot::Receiver<CallOutcome>| matches!(answer.try_recv(), Ok(Ok(_)));
    let answered = answers.iter_mut().map(is_answered).filter(|is_answered| *is_answered).count();
    let tallies = sides.iter_mut().flat_map(|side| side.exchange.take_tallies(now));
    let resets = tallies.map(|(_, tally, _)| tally.resets).sum::<u64>();
    assert_eq!((answered, resets), (8, 0));
}

#[test]
fn a_shard_whose_way_is_full_is_woken_before_the_turn() {
    let woken = Arc::new(AtomicBool::new(false));
    let bell = Arc::clone(&woken);
    let now = crate::clock::now();
    let ring = move || bell.store(true, Ordering::Release);
    let mut sides = met([side(0), side_that_wakes(1, ring)], now);
    let room = RoomName::parse("room-1").unwrap();
    let out = Arc::clone(&sides[0].ways[directory::home(&room, KEYS[0], SHARDS)].way.out);
    let back = Arc::clone(&sides[1].ways[directory::home(&room, KEYS[1], SHARDS)].way.back);
    for seq in 1..=back.capacity() as u64 + 1 {
        assert!(!woken.load(Ordering::Acquire), "the way takes {seq}");
        out.push(ToNode { node: OTHER[0], word: batch_word(&room, seq, now) }).unwrap();
        pass_on(&mut sides, 0, now);
    }
    assert!(back.is_full() && woken.load(Ordering::Acquire));
}

#[test]
fn the_rooms_of_a_slot_and_its_offer_reach_the_next_home_in_order_with_its_own_places() {
    let mut now = crate::clock::now();
    let mut sides = [side(0), side(1)];
    for (at, side) in sides.iter_mut().enumerate() {
        side.exchange.meet(OTHER[at], 101 - at as u64, 1, now);
    }
    let places = [OTHER[0], NodeKey(99)].map(|node| node_place(node) as u64);
    let places = places.map(|incarnation| pb::RoomPlace { incarnation, members: Vec::new() });
    let state = Box::new(RoomState { room: "r1".into(), places: places.into(), ..RoomState::default() });
    let slot = Slot(3);
    let attempt = 5;
    for word in [NodeWord::Room { slot, attempt, state }, NodeWord::Packed { slot, attempt, is_whole: true }]
    {
        sides[0].ways[1].way.out.push(ToNode { node: OTHER[0], word }).unwrap();
    }
    sides[0].exchange.turn(now);
    let packed = sides[0].exchange.poll_packed().unwrap();
    assert_eq!((packed.shard, packed.slot, packed.attempt), (1, slot, attempt));
    let term = Term { generation: 0, sequence: 8 };
    sides[0].exchange.say_hand_over(OTHER[0], slot, attempt, HandOverSaid::Offer(term), now);
    let mut arrived = Vec::new();
    let heard = loop {
        now = now.later(Duration::from_millis(1));
        for from in 0..2 {
            sides[from].exchange.turn(now);
            while let Some((_, message)) = sides[from].exchange.poll_send() {
                sides[1 - from].exchange.take(message, now);
            }
        }
        arrived.extend(sides[1].ways.iter().filter_map(|way| way.way.back.pop()));
        if let Some(heard) = sides[1].exchange.poll_offer() {
            break heard;
        }
    };
    assert_eq!((heard.node, heard.slot, heard.attempt, heard.term), (OTHER[1], slot, attempt, Some(term)));
    let Some(FromNode::Arrived { node, state, .. }) = arrived.pop() else { panic!("the room comes before") };
    assert_eq!((node, state.places[0].incarnation), (OTHER[1], OWN_PLACE));
    let nowhere = usize::try_from(state.places[1].incarnation).ok().and_then(node_of_place);
    assert_eq!(nowhere, None, "a node that nobody knows");
}

#[test]
fn rooms_for_a_takeover_reach_the_shards_of_their_names_and_no_more_of_them_wait_than_the_bound() {
    let mut now = crate::clock::now();
    let mut sides = met([side(0), side(1)], now);
    let room = |number: usize, bytes: usize| pb::KeptRoom {
        room: format!("room-{number}"),
        run: 7,
        seq: 9,
        latest: vec![pb::ShownMessage { payload: vec![b'1'; bytes].into(), ..pb::ShownMessage::default() }],
        ..pb::KeptRoom::default()
    };
    let term = Term { generation: 0, sequence: 8 };
    let say = |rooms: Vec<pb::KeptRoom>, side: &mut Side| {
        let said = Some(pb::Term { generation: term.generation, sequence: term.sequence });
        let word = NodeWord::Keep(Box::new(pb::Keep { slot: 3, term: said, rooms }));
        assert!(side.ways[0].way.out.push(ToNode { node: OTHER[0], word }).is_ok());
        side.exchange.turn(now);
    };
    say((0..20).map(|number| room(number, 10)).collect(), &mut sides[0]);
    // The link takes them a few at a time, and the last ones have no place to wait.
    let words = LINK_KEEPS_WAITING_BYTES_MAX / LINK_KEEPS_BYTES_MAX + 8;
    for number in 0..words {
        say(vec![room(20 + number, LINK_KEEPS_BYTES_MAX)], &mut sides[0]);
    }
    let mut heard = BTreeMap::new();
    for _ in 0..2_000 {
        now = now.later(Duration::from_millis(1));
        for from in 0..2 {
            sides[from].exchange.turn(now);
            assert!(
                sides[0].exchange.lag(OTHER[0], now.instant).unwrap().kept_bytes < 3 * LINK_KEEPS_BYTES_MAX
            );
            while let Some((_, message)) = sides[from].exchange.poll_send() {
                sides[1 - from].exchange.take(message, now);
            }
        }
        for (shard, way) in sides[1].ways.iter().enumerate() {
            while let Some(told) = way.way.back.pop() {
                let FromNode::Keep { slot, term: of, rooms } = told else { panic!("{told:?}") };
                assert_eq!((slot, of), (Slot(3), term));
                for (name, _) in rooms {
                    assert_eq!(directory::home(&name, KEYS[1], SHARDS), shard);
                    *heard.entry(name).or_insert(0) += 1;
                }
            }
        }
    }
    assert!(heard.values().all(|times| *times == 1));
    let [(_, tally, _)] = sides[0].exchange.take_tallies(now)[..] else { panic!("one link") };
    assert!(tally.stale >= 4 && tally.resets == 0, "{tally:?}");
    assert_eq!(heard.len() as u64 + tally.stale, 20 + words as u64);
}
