//! The world: shards, lanes, rooms, segments and devices under one seeded generator and a virtual clock. Every step
//! is drawn; a turn visits one member of a pass at most, so that anything may happen between two of them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use fastrand::Rng;
use roomcast::clock::Now;
use roomcast::connection::{Grant, Seats};
use roomcast::room::id::{Encoding, RoomName, TypeName, mix};
use roomcast::room::message::{Class, Published, TypePolicy, Types, Verdict};
use roomcast::room::pace::FlushRules;
use roomcast::shard::lane::{LaneBounds, mesh};
use roomcast::shard::tally::Tally;
use roomcast::shard::{Plan, Shard, directory};
use roomcast::store::{Answer, Request};
use roomcast::wire::publish;

use crate::device::{Device, Heard};
use crate::oracle::{Record, check_lives, stands_at};
use crate::socket::SimSocket;

/// Rooms with a witness, so that every device's story can be checked.
const ROOMS: [&str; 4] = ["r0", "r1", "r2", "r3"];
/// A room without a witness that is closed now and then, with whoever is in it.
const CLOSING: &str = "closing";
/// A room that is published to and then left alone until it is forgotten.
const QUIET: &str = "quiet";
const DEVICES_MAX: usize = 24;
const STEPS: usize = 900;
/// A message may leave this much later than its window: the clock moves in steps of up to 10 ms.
const SLACK: Duration = Duration::from_millis(15);

/// How often each rare branch was reached.
#[derive(Debug, Clone, Default)]
pub(crate) struct Coverage(pub(crate) BTreeMap<&'static str, u64>);

impl Coverage {
    fn count(&mut self, branch: &'static str, times: u64) {
        *self.0.entry(branch).or_default() += times;
    }
}

/// One room as the publisher knows it.
#[derive(Debug, Default)]
struct Accepted {
    /// Normal messages accepted, in order, with when, and how long the world had held shards back by then.
    chat: Vec<(String, Now, Duration)>,
    /// Messages of keyed types accepted, merged ones included.
    keyed: BTreeMap<String, u64>,
    likes: u64,
}

pub(crate) struct World {
    rng: Rng,
    now: Now,
    shards: Vec<Shard<SimSocket>>,
    /// Whether a shard's last turn left something to do, or something was done to it since.
    busy: Vec<bool>,
    devices: Vec<Device>,
    /// By room, its index in `devices`.
    witnesses: BTreeMap<&'static str, usize>,
    /// How much of each witness's story was looked at for lateness.
    heeded: BTreeMap<&'static str, usize>,
    accepted: BTreeMap<String, Accepted>,
    tickets: BTreeMap<u64, Vec<String>>,
    ticket: u64,
    number: u64,
    types: Types,
    seats: Seats,
    window: Duration,
    messages_max: usize,
    /// How long the clock has moved while a shard had something to do.
    held_back: Duration,
    lapses: u64,
    pub(crate) coverage: Coverage,
    pub(crate) trace: VecDeque<String>,
    /// Of the whole trace, for the test of determinism.
    pub(crate) digest: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let now = Now { unix_ms: 1_800_000_000_000, ..Now::read() };
        let count = rng.usize(1..=3);
        let window = Duration::from_millis(100);
        let messages_max = rng.usize(3..=6);
        let rules = FlushRules {
            gather: window,
            messages_max,
            bytes_max: rng.usize(300..2000),
            direct_members: rng.u64(0..=3),
            urgent_spacing: Duration::from_millis(20),
        };
        let bounds = LaneBounds { frames_max: rng.usize(2..=6), control_max: rng.usize(1..=6) };
        let plan = |index| Plan {
            turn_members: 1,
            ..Plan::new(index, count, rules, Duration::from_secs(36_000), seed)
        };
        let peers = mesh(count, bounds).into_iter().enumerate();
        let shards: Vec<_> =
            peers.map(|(index, peers)| Shard::new(plan(index), peers, now.instant)).collect();
        let mut world = Self {
            rng,
            now,
            busy: vec![false; shards.len()],
            shards,
            devices: Vec::new(),
            witnesses: BTreeMap::new(),
            heeded: BTreeMap::new(),
            accepted: BTreeMap::new(),
            tickets: BTreeMap::new(),
            ticket: 0,
            number: 0,
            types: types(),
            seats: Seats::new(1000),
            window,
            messages_max,
            held_back: Duration::ZERO,
            lapses: 0,
            coverage: Coverage::default(),
            trace: VecDeque::new(),
            digest: seed,
        };
        for room in ROOMS {
            let home = directory::home(&name(room), world.shards.len());
            let witness = world.connect(home, room, usize::MAX);
            world.witnesses.insert(room, witness);
        }
        // They see everything only if they are members before anything happens.
        world.turn_until_idle();
        world
    }

    /// One life: many steps, then quiet, then what must hold; sometimes a drain at the end.
    pub(crate) fn run(&mut self) {
        let steps = self.rng.usize(STEPS / 3..STEPS);
        for _ in 0..steps {
            self.step();
        }
        self.settle();
        self.check_everybody_is_level();
        if self.rng.u8(..4) == 0 {
            self.drain();
        }
        self.check_stories();
    }

    fn step(&mut self) {
        match self.rng.u32(..1000) {
            0..500 => {
                let shard = self.rng.usize(..self.shards.len());
                self.turn(shard);
            }
            500..650 => self.publish(),
            650..690 => self.join_afresh(),
            690..710 => self.join_further(),
            710..740 => self.leave(),
            740..860 => self.read(),
            860..875 => self.stall(),
            875..879 => self.long_pause(),
            879..890 => self.publish_to(CLOSING),
            890..897 => self.close_room(),
            897..902 => self.reset(),
            902..912 => self.ping(),
            _ => self.move_clock(),
        }
    }

    fn say(&mut self, line: String) {
        self.digest = line.bytes().fold(self.digest, |hash, byte| mix(hash ^ u64::from(byte)));
        if self.trace.len() == 400 {
            self.trace.pop_front();
        }
        self.trace.push_back(line);
    }

    fn turn(&mut self, index: usize) {
        let shard = &mut self.shards[index];
        self.busy[index] = shard.turn(self.now);
        shard.check_invariants();
        let wakes: Vec<usize> = shard.poll_wakes().collect();
        for peer in wakes {
            self.busy[peer] = true;
        }
        while let Some(request) = shard.poll_store() {
            let Request::Load { room, life } = request else { panic!("nothing reliable is published") };
            shard.take_stored(Answer::Loaded { room, life, stream: None }, self.now);
            self.busy[index] = true;
        }
        let tally = shard.take_tally();
        self.note(&tally);
        while let Some((ticket, published)) = self.shards[index].poll_answer() {
            self.take_answer(ticket, published);
        }
        self.heed_witnesses();
    }

    fn note(&mut self, tally: &Tally) {
        self.lapses += tally.lane_full;
        for (branch, times) in [
            ("lane full", tally.lane_full),
            ("refresh", tally.frames_refresh),
            ("behind", tally.frames_skipped),
            ("forgotten room", tally.rooms_forgotten),
        ] {
            self.coverage.count(branch, times);
        }
    }

    fn publish(&mut self) {
        let room = self.rng.choice(ROOMS).unwrap();
        self.publish_to(room);
    }

    fn publish_to(&mut self, room: &str) {
        let home = directory::home(&name(room), self.shards.len());
        let mut bodies = Vec::new();
        let mut texts = Vec::new();
        for _ in 0..self.rng.usize(1..=4) {
            self.number += 1;
            let number = self.number;
            let padding = "x".repeat(self.rng.usize(0..60));
            let (type_name, text) = match self.rng.u8(..12) {
                0..6 => ("chat", format!(r#"{{"type":"chat","payload":"{number}{padding}"}}"#)),
                6 => ("alert", format!(r#"{{"type":"alert","payload":"{number}"}}"#)),
                7 | 8 => {
                    let key = self.rng.u8(..3);
                    ("price", format!(r#"{{"type":"price","key":"k{key}","payload":{number}}}"#))
                }
                9 => ("enter", format!(r#"{{"type":"enter","key":"who","payload":{number}}}"#)),
                _ => ("like", format!(r#"{{"type":"like","count":{number}}}"#)),
            };
            bodies.push(text);
            texts.push(format!("{type_name} {number}"));
        }
        if texts.iter().any(|text| text.starts_with("alert")) && self.shards[home].is_passing(&name(room)) {
            self.coverage.count("urgent flush during a pass", 1);
        }
        let body = format!(r#"{{"messages":[{}]}}"#, bodies.join(","));
        let messages = publish::parse_json(body.as_bytes(), &self.types).expect("valid messages");
        let marks: Vec<String> = messages
            .iter()
            .map(|message| {
                let payload = String::from_utf8(message.payload.bytes().to_vec()).unwrap();
                let class = message.class.name();
                format!("{room}\t{class}\t{}\t{}\t{payload}", message.type_name, message.count)
            })
            .collect();
        self.ticket += 1;
        self.tickets.insert(self.ticket, marks);
        self.say(format!("publish {room} {texts:?}"));
        self.shards[home].publish(self.ticket, &name(room), messages, self.now);
        self.busy[home] = true;
        while let Some((ticket, published)) = self.shards[home].poll_answer() {
            self.take_answer(ticket, published);
        }
    }

    fn take_answer(&mut self, ticket: u64, published: Published) {
        let marks = self.tickets.remove(&ticket).expect("each publish is answered once");
        let Published::Taken(verdicts) = published else { panic!("refused: {published:?}") };
        for (mark, verdict) in marks.iter().zip(verdicts) {
            assert!(matches!(verdict, Verdict::Accepted | Verdict::Merged), "{verdict:?}");
            let parts: Vec<&str> = mark.split('\t').collect();
            let [room, class, type_name, count, payload] = parts[..] else { unreachable!() };
            let of_room = self.accepted.entry(room.to_owned()).or_default();
            match class {
                "normal" => of_room.chat.push((payload.to_owned(), self.now, self.held_back)),
                "counter" => of_room.likes += count.parse::<u64>().unwrap(),
                _ => *of_room.keyed.entry(type_name.to_owned()).or_default() += 1,
            }
        }
    }

    fn connect(&mut self, shard: usize, room: &str, capacity: usize) -> usize {
        let encoding = if self.rng.bool() { Encoding::Json } else { Encoding::Proto };
        let (socket, pipe) = SimSocket::new(capacity);
        let seat = self.seats.take().expect("a seat");
        if directory::home(&name(room), self.shards.len()) == shard
            && self.shards[shard].is_passing(&name(room))
        {
            self.coverage.count("join during a pass", 1);
        }
        let key = self.shards[shard].connect(socket, encoding, Grant::Any, seat, self.now);
        self.shards[shard].join(key, &name(room), None, None, self.now);
        self.busy[shard] = true;
        let mut device = Device::new(shard, key, encoding, pipe, capacity == usize::MAX);
        device.rooms.push(room.to_owned());
        self.devices.push(device);
        self.say(format!(
            "connect {} on shard {shard} to {room}, capacity {capacity}",
            self.devices.len() - 1
        ));
        self.devices.len() - 1
    }

    fn join_afresh(&mut self) {
        if self.devices.iter().filter(|device| device.is_open()).count() >= DEVICES_MAX {
            return;
        }
        let room = self.some_room();
        let shard = self.rng.usize(..self.shards.len());
        let capacity = if self.rng.bool() { usize::MAX } else { self.rng.usize(50..1500) };
        self.connect(shard, room, capacity);
    }

    /// The publisher closes a room: its members hear of it, those with no other room are closed.
    fn close_room(&mut self) {
        let home = directory::home(&name(CLOSING), self.shards.len());
        self.say("close".to_owned());
        self.shards[home].close_room(&name(CLOSING), self.now);
        self.busy[home] = true;
        self.accepted.remove(CLOSING);
        for device in &mut self.devices {
            device.rooms.retain(|room| room != CLOSING);
        }
    }

    /// A room to join: mostly one with a witness.
    fn some_room(&mut self) -> &'static str {
        if self.rng.u8(..8) == 0 { CLOSING } else { self.rng.choice(ROOMS).unwrap() }
    }

    fn join_further(&mut self) {
        let Some(index) = self.some_device() else { return };
        let room = self.some_room();
        let device = &mut self.devices[index];
        if device.rooms.iter().any(|joined| joined == room) {
            return;
        }
        device.rooms.push(room.to_owned());
        self.tell(index, &format!(r#"{{"kind":"join","room":"{room}"}}"#));
    }

    fn leave(&mut self) {
        let Some(index) = self.some_device() else { return };
        let device = &self.devices[index];
        let shard = device.shard;
        let passing = |room: &String| self.shards[shard].is_passing(&name(room));
        let passing = device.rooms.iter().any(passing);
        self.coverage.count("leave during a pass", u64::from(passing));
        if self.rng.bool() && !device.rooms.is_empty() {
            let room = self.devices[index].rooms.pop().unwrap();
            self.tell(index, &format!(r#"{{"kind":"leave","room":"{room}"}}"#));
        } else {
            self.say(format!("hang up {index}"));
            let device = &mut self.devices[index];
            device.rooms.clear();
            let (shard, key) = (device.shard, device.key);
            self.shards[shard].hang_up(key, self.now);
            self.busy[shard] = true;
        }
    }

    /// A device says something, in its own encoding, masked with zeros.
    fn tell(&mut self, index: usize, text: &str) {
        let device = &self.devices[index];
        let (opcode, payload) = match device.encoding {
            Encoding::Json => (0x81, text.as_bytes().to_vec()),
            Encoding::Proto => (0x82, proto_of(text)),
        };
        let mut frame = vec![opcode, 0x80 | u8::try_from(payload.len()).expect("short"), 0, 0, 0, 0];
        frame.extend(payload);
        let (shard, key) = (device.shard, device.key);
        self.say(format!("device {index} says {text}"));
        self.shards[shard].receive(key, &mut frame, self.now);
        self.busy[shard] = true;
    }

    fn read(&mut self) {
        let Some(index) = self.some_device() else { return };
        let bytes = self.rng.usize(1..600);
        if !self.devices[index].stalled {
            self.read_from(index, bytes);
        }
    }

    fn read_from(&mut self, index: usize, bytes: usize) {
        let device = &mut self.devices[index];
        let partial = std::mem::take(&mut device.pipe.borrow_mut().partial_writes);
        let tell = device.read(bytes);
        let (shard, key) = (device.shard, device.key);
        self.coverage.count("partial write", partial);
        if tell {
            self.shards[shard].writable(key, self.now);
            self.busy[shard] = true;
        }
    }

    /// A device's socket breaks; the shard finds out when it writes or is told to hang up.
    fn reset(&mut self) {
        let Some(index) = self.some_device() else { return };
        self.say(format!("reset {index}"));
        let device = &mut self.devices[index];
        device.rooms.clear();
        device.healthy = false;
        device.pipe.borrow_mut().broken = true;
    }

    /// A device asks for pongs, perhaps without reading them.
    fn ping(&mut self) {
        let Some(index) = self.some_device() else { return };
        for _ in 0..self.rng.usize(1..12) {
            self.tell(index, r#"{"kind":"ping"}"#);
        }
    }

    fn stall(&mut self) {
        let Some(index) = self.some_device() else { return };
        let device = &mut self.devices[index];
        if !device.healthy {
            device.stalled = !device.stalled;
            let stalled = device.stalled;
            self.say(format!("device {index} stalled: {stalled}"));
        }
    }

    /// Moves the clock: to the next deadline at most, unless shards are held back on purpose.
    fn move_clock(&mut self) {
        let by = Duration::from_millis(self.rng.u64(1..10));
        if self.rng.u8(..8) > 0 {
            self.turn_until_idle();
        }
        self.pass_time(by);
    }

    /// Long enough for deadlines of slow devices and for idle rooms.
    fn long_pause(&mut self) {
        self.turn_until_idle();
        let seconds = self.rng.choice([2, 11, 16, 601]).unwrap();
        if seconds == 601 {
            self.publish_to(QUIET);
        }
        self.say(format!("pause of {seconds} s"));
        let end = self.now.instant + Duration::from_secs(seconds);
        while self.now.instant < end {
            self.turn_until_idle();
            let next = self.shards.iter().map(Shard::poll_deadline).min().unwrap();
            let by = next.saturating_duration_since(self.now.instant).max(Duration::from_millis(1));
            self.pass_time(by.min(end.saturating_duration_since(self.now.instant)));
        }
    }

    fn pass_time(&mut self, by: Duration) {
        let idle = !self.busy.iter().any(|busy| *busy)
            && self.shards.iter().all(|shard| shard.poll_deadline() > self.now.instant);
        let next = self.shards.iter().map(Shard::poll_deadline).min().unwrap();
        let to_deadline = next.saturating_duration_since(self.now.instant);
        let by = if idle && !to_deadline.is_zero() { by.min(to_deadline) } else { by };
        if !idle {
            self.held_back += by;
        }
        self.now = self.now.later(by);
        self.say(format!("clock +{} us", by.as_micros()));
    }

    fn turn_until_idle(&mut self) {
        for _ in 0..100_000 {
            let due = |shard: &Shard<SimSocket>| shard.poll_deadline() <= self.now.instant;
            let Some(index) = (0..self.shards.len()).find(|at| self.busy[*at] || due(&self.shards[*at]))
            else {
                return;
            };
            self.turn(index);
        }
        panic!("the shards never come to rest");
    }

    /// Everybody reads, everything leaves.
    fn settle(&mut self) {
        self.say("settle".to_owned());
        for device in &mut self.devices {
            device.stalled = false;
            device.pipe.borrow_mut().capacity = usize::MAX;
        }
        for _ in 0..60 {
            self.turn_until_idle();
            for index in 0..self.devices.len() {
                self.read_from(index, usize::MAX);
            }
            self.pass_time(Duration::from_millis(50));
        }
    }

    fn drain(&mut self) {
        self.say("drain".to_owned());
        let room = ROOMS[0];
        self.publish_to(room);
        self.shards.iter_mut().for_each(Shard::drain);
        // As the handle does it: each shard answers when it is flushed for itself, and all are asked twice.
        for _ in 0..2 {
            let mut answered = vec![false; self.shards.len()];
            for _ in 0..100_000 {
                let index = self.rng.usize(..self.shards.len());
                self.turn(index);
                answered[index] |= self.shards[index].is_flushed();
                if answered.iter().all(|answered| *answered) {
                    break;
                }
            }
            assert!(answered.iter().all(|answered| *answered), "a drain flushes everything");
        }
        self.check_everybody_was_written();
        self.shards.iter_mut().for_each(Shard::bid_farewell);
        self.busy.fill(true);
        self.turn_until_idle();
        let late = self.connect(0, room, usize::MAX);
        for _ in 0..40 {
            self.busy.fill(true);
            self.turn_until_idle();
            (0..self.devices.len()).for_each(|index| self.read_from(index, usize::MAX));
            self.pass_time(Duration::from_millis(50));
        }
        assert!(self.shards.iter().all(Shard::is_deserted), "nobody is left after a drain");
        for index in self.witnesses.values().chain([&late]) {
            let device = &self.devices[*index];
            assert!(device.bye && device.closed == Some(1012), "a drained device hears bye and 1012");
        }
        self.coverage.count("drain", 1);
    }

    /// When a drain says that everything has left, every healthy member has been given it.
    fn check_everybody_was_written(&mut self) {
        for index in 0..self.devices.len() {
            self.devices[index].read(usize::MAX);
        }
        for room in ROOMS {
            let newest = stands_at(&self.devices[self.witnesses[room]], room);
            let healthy = self.devices.iter().filter(|device| device.healthy && device.is_open());
            for device in healthy.filter(|device| device.rooms.iter().any(|joined| joined == room)) {
                assert_eq!(
                    stands_at(device, room),
                    newest,
                    "the drain's last batch of {room} reached everybody"
                );
            }
        }
    }

    /// No message waits longer than its window, however many join it.
    fn heed_witnesses(&mut self) {
        for room in ROOMS {
            let Some(index) = self.witnesses.get(room).copied() else { continue };
            self.devices[index].read(usize::MAX);
            let device = &self.devices[index];
            let from = self.heeded.get(room).copied().unwrap_or(0);
            let mut seen = 0;
            let mut waited = false;
            let batches = device.heard.iter().filter_map(|(_, heard)| match heard {
                Heard::Batch { content, skipped, .. } => {
                    assert!(skipped.is_empty(), "the witness of {room} misses nothing: {heard:?}");
                    Some(content)
                }
                _ => None,
            });
            let Some(published) = self.accepted.get(room) else { continue };
            for (nth, content) in batches.enumerate() {
                let chats =
                    content.messages.iter().filter(|told| told.0 == "chat" || told.0 == "alert").count();
                if nth >= from {
                    for (payload, at, held_back) in &published.chat[seen..seen + chats] {
                        let age = self.now.instant - at.instant;
                        let held = self.held_back - *held_back;
                        assert!(
                            age <= self.window + SLACK + held,
                            "{payload} left after {age:?}, held back {held:?}"
                        );
                    }
                    let full = content.messages.len() >= self.messages_max;
                    waited |= full && published.chat.len() > seen + chats;
                }
                seen += chats;
            }
            let batches =
                device.heard.iter().filter(|(_, heard)| matches!(heard, Heard::Batch { .. })).count();
            self.heeded.insert(room, batches);
            self.coverage.count("remainder", u64::from(waited));
        }
    }

    /// After quiet every device that stayed holds its rooms' newest batch.
    fn check_everybody_is_level(&mut self) {
        for room in ROOMS {
            let newest = stands_at(&self.devices[self.witnesses[room]], room).expect("a witness stays");
            for (index, device) in self.devices.iter().enumerate().filter(|(_, device)| device.is_open()) {
                if device.rooms.iter().any(|joined| joined == room) {
                    assert_eq!(stands_at(device, room), Some(newest), "device {index} in {room} after quiet");
                }
            }
        }
        for (index, device) in self.devices.iter().enumerate() {
            let well = device.is_open() || !device.healthy || device.rooms.is_empty();
            assert!(well, "device {index} was healthy and is gone: {:?}", device.closed);
            // A room may be closed under a device that does not know it yet.
            let unexplained = device.errors.iter().find(|(room, _)| room != CLOSING);
            assert_eq!(unexplained, None, "device {index}");
        }
    }

    fn check_stories(&mut self) {
        assert!(self.tickets.is_empty(), "each publish was answered");
        for device in &self.devices {
            check_lives(device, CLOSING);
        }
        // What was heard is part of what has to be the same each time.
        for device in &self.devices {
            let heard = format!("{:?}", device.heard);
            self.digest = heard.bytes().fold(self.digest, |hash, byte| mix(hash ^ u64::from(byte)));
        }
        for room in ROOMS {
            let record = Record::of(&self.devices[self.witnesses[room]], room);
            let of_room = self.accepted.remove(room).unwrap_or_default();
            let accepted: Vec<&str> = of_room.chat.iter().map(|(payload, ..)| payload.as_str()).collect();
            let mut told: Vec<&str> = Vec::new();
            for batch in &record.batches {
                let normal = batch.messages.iter().filter(|told| told.0 == "chat" || told.0 == "alert");
                told.extend(normal.map(|told| told.1.as_str()));
            }
            assert_eq!(told, accepted, "{room}: normal messages arrive once and in order");
            for type_name in ["price", "enter"] {
                let arrived = record.payloads(type_name).len() as u64 + record.merged(type_name);
                assert_eq!(
                    arrived,
                    of_room.keyed.get(type_name).copied().unwrap_or(0),
                    "{room}: {type_name}"
                );
            }
            let likes = record.batches.iter().filter_map(|batch| batch.counters.get("like")).next_back();
            assert_eq!(likes.map_or(0, |change| change.1), of_room.likes, "{room}: likes are exact");
            for device in &self.devices {
                record.check(device, room);
                let skips = device.heard.iter().any(|(of, heard)| {
                    of == room && matches!(heard, Heard::Batch { skipped, .. } if !skipped.is_empty())
                });
                assert!(
                    !(skips && device.healthy && self.lapses == 0),
                    "a healthy device missed something in {room}"
                );
            }
        }
    }

    fn some_device(&mut self) -> Option<usize> {
        let witnesses: Vec<usize> = self.witnesses.values().copied().collect();
        let open: Vec<usize> = (0..self.devices.len())
            .filter(|index| self.devices[*index].is_open() && !witnesses.contains(index))
            .collect();
        self.rng.choice(open)
    }
}

pub(crate) fn name(room: &str) -> RoomName {
    RoomName::parse(room).expect("a room name")
}

pub(crate) fn types() -> Types {
    let policy = |class, urgent| TypePolicy { class, urgent, ttl: Duration::from_secs(600) };
    let named = |name: &str| TypeName::parse(name).expect("a type name");
    Types::new([
        (named("chat"), policy(Class::Normal, false)),
        (named("alert"), policy(Class::Normal, true)),
        (named("price"), policy(Class::Latest, false)),
        (named("enter"), policy(Class::Lossy, false)),
        (named("like"), policy(Class::Counter, false)),
    ])
}

fn proto_of(text: &str) -> Vec<u8> {
    use prost::Message as _;
    use roomcast::wire::proto::{DeviceFrame, Join, Leave, Ping, device_frame::Frame};
    let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let room = value["room"].as_str().unwrap_or_default().to_owned();
    let frame = match value["kind"].as_str() {
        Some("ping") => Frame::Ping(Ping {}),
        Some("join") => Frame::Join(Join { room, cursor: String::new() }),
        _ => Frame::Leave(Leave { room }),
    };
    DeviceFrame { frame: Some(frame) }.encode_to_vec()
}
