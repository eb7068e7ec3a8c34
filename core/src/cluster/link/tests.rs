//! Two links over a simulated bus, and the bytes of their messages.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use fastrand::Rng;

use super::message::{LinkAck, Shape, Sort};
use super::*;
use crate::limits::{
    LINK_BATCHES_MAX, LINK_BUNDLE_BYTES_MAX, LINK_BUNDLED_BYTES_MAX, LINK_KEPT_BYTES_MAX,
    LINK_MESSAGE_BYTES_MAX, LINK_WAITING_ENTRIES_MAX,
};
use crate::now::Now;

const SEEDS: u64 = 500;

/// Times that each rare branch was reached.
#[derive(Debug, Default)]
struct Reached {
    resets: u64,
    lapses: u64,
    skips: u64,
    repeats: u64,
    bundles: u64,
    joined: u64,
    stripped: u64,
    held: u64,
}

/// The words of one side, and the other side's account of them.
#[derive(Debug, Default)]
struct Said {
    next: u64,
    /// Number -> the life of the link at the push, as the owner knew it.
    kept: BTreeMap<u64, u64>,
    batches: BTreeMap<u64, u64>,
    lapsed: BTreeSet<u64>,
    life: u64,
    heard: Vec<u64>,
    heard_kept: BTreeSet<u64>,
}

struct World {
    links: [Link<u64>; 2],
    said: [Said; 2],
    /// Messages on their way, by the moment of their arrival.
    bus: BTreeMap<(Instant, u64), (usize, Bytes)>,
    sent: u64,
    now: Instant,
    rng: Rng,
    loss: f64,
    delay_ms: u64,
    is_cut: [bool; 2],
    is_stopped: [bool; 2],
    /// The owner takes no entries.
    is_idle: [bool; 2],
    reached: Reached,
}

fn ends(side: usize) -> LinkEnds {
    let all = [11, 22];
    LinkEnds { own: all[side], peer: all[1 - side], version: 1 }
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Now::made_up().instant;
        let mut rng = Rng::with_seed(seed);
        Self {
            links: [0, 1].map(|side| Link::new(ends(side), 1, now)),
            said: Default::default(),
            bus: BTreeMap::new(),
            sent: 0,
            now,
            loss: [0.0, 0.0, 0.05, 0.3][rng.usize(..4)],
            delay_ms: [0, 1, 5, 40][rng.usize(..4)],
            rng,
            is_cut: [false; 2],
            is_stopped: [false; 2],
            is_idle: [false; 2],
            reached: Reached::default(),
        }
    }

    /// Pushes an entry. The caller has the side send, so that entries of a turn are bundled.
    fn push(&mut self, side: usize, is_batch: bool, length: usize) {
        let said = &mut self.said[side];
        said.next += 1;
        let number = said.next;
        let mut bytes = BytesMut::with_capacity(length.max(9));
        bytes.put_u64(number);
        bytes.put_u8(u8::from(is_batch));
        bytes.resize(length.max(9), 0);
        let bytes = bytes.freeze();
        let entry = if is_batch {
            said.batches.insert(number, said.life);
            LinkEntry::Batch { bytes, tag: number }
        } else {
            said.kept.insert(number, said.life);
            LinkEntry::Kept(bytes)
        };
        self.links[side].push(entry, self.now);
    }

    /// Takes events and entries of a side.
    fn hear(&mut self, side: usize) {
        let link = &mut self.links[side];
        while let Some(event) = link.poll_event() {
            match event {
                LinkEvent::Reset => self.said[side].life += 1,
                LinkEvent::Lapsed { tag } => {
                    assert!(self.said[side].lapsed.insert(tag), "a batch lapses once");
                }
            }
        }
        while let Some(entry) = if self.is_idle[side] { None } else { link.poll_entry() } {
            let number = u64::from_be_bytes(entry[..8].try_into().unwrap());
            let said = &mut self.said[1 - side];
            assert!(said.heard.last().is_none_or(|last| *last < number), "in order, and once");
            said.heard.push(number);
            let is_batch = entry[8] == 1;
            let life = if is_batch { said.batches[&number] } else { said.kept[&number] };
            let before = said.kept.range(..number).rev().take_while(|(_, of)| **of >= life);
            for (earlier, of) in before {
                assert!(
                    *of != life || said.heard_kept.contains(earlier),
                    "kept {earlier} is before {number}"
                );
            }
            if !is_batch {
                said.heard_kept.insert(number);
            }
        }
        link.outgoing.check_invariants();
        link.incoming.check_invariants();
        self.pump(side);
    }

    /// Puts the messages of a side on the bus.
    fn pump(&mut self, side: usize) {
        while let Some(bytes) = self.links[side].poll_send(self.now) {
            assert!(bytes.len() <= LINK_MESSAGE_BYTES_MAX);
            let message = LinkMessage::parse(bytes.clone()).unwrap();
            self.reached.stripped += u64::from(message.sort == Sort::Stripped);
            self.reached.skips += u64::from(!message.ack.skips.is_empty());
            self.reached.joined +=
                u64::from(matches!(message.shape, Shape::Part { is_first: false, is_last: true }));
            if message.entries.len() > 1 {
                self.reached.bundles += 1;
                assert!(message.bytes <= LINK_BUNDLE_BYTES_MAX);
                assert!(message.entries.iter().all(|entry| entry.len() < LINK_BUNDLED_BYTES_MAX));
            }
            if self.is_cut[side] || self.rng.f64() < self.loss {
                continue;
            }
            let copies = 1 + usize::from(self.loss > 0.0 && self.rng.u8(..20) == 0);
            for _ in 0..copies {
                self.sent += 1;
                let delay = Duration::from_micros(200 + self.rng.u64(..=self.delay_ms * 1000));
                self.bus.insert((self.now + delay, self.sent), (1 - side, bytes.clone()));
            }
        }
    }

    fn advance(&mut self, by: Duration) {
        let target = self.now + by;
        for turn in 0.. {
            assert!(turn < 100_000, "time goes on");
            let arrival = self.bus.keys().next().map(|(at, _)| *at);
            let due = |side: usize| self.links[side].poll_deadline().filter(|_| !self.is_stopped[side]);
            let next = [arrival, due(0), due(1)].into_iter().flatten().min().filter(|at| *at <= target);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let (_, (side, bytes)) = self.bus.pop_first().unwrap();
                if !self.is_stopped[side] {
                    self.links[side].take(LinkMessage::parse(bytes).unwrap(), self.now);
                    self.reached.held += u64::from(self.links[side].incoming.is_holding());
                    self.hear(side);
                }
            }
            for side in 0..2 {
                if self.links[side].poll_deadline().is_some_and(|at| at <= self.now) && !self.is_stopped[side]
                {
                    self.links[side].due(self.now);
                    self.hear(side);
                }
            }
        }
        self.now = target;
    }

    fn run(&mut self) {
        for _ in 0..self.rng.usize(20..60) {
            let side = self.rng.usize(..2);
            match self.rng.u8(..100) {
                0..6 => self.is_cut[side] = !self.is_cut[side],
                6..9 => self.is_stopped[side] = !self.is_stopped[side],
                9 => self.is_idle[side] = !self.is_idle[side],
                10..12 => {
                    let by = Duration::from_millis(self.rng.u64(500..2500));
                    self.advance(by);
                }
                12 => {
                    let is_batch = self.rng.bool();
                    let length = self.rng.usize(LINK_MESSAGE_BYTES_MAX..3 << 20);
                    self.push(side, is_batch, length);
                }
                13..18 => {
                    let batches = self.rng.usize(1..2 * LINK_BATCHES_MAX);
                    (0..batches).for_each(|_| self.push(side, true, 100));
                }
                18..20 => self.links[side].reset(self.now),
                _ => {
                    let length = [20, 200, 5_000, 20_000][self.rng.usize(..4)];
                    for _ in 0..self.rng.usize(..12) {
                        let is_batch = self.rng.bool();
                        self.push(side, is_batch, length);
                    }
                }
            }
            self.hear(side);
            let by = Duration::from_millis(self.rng.u64(..30));
            self.advance(by);
        }
        self.heal();
    }

    /// Ends all faults, and checks that nothing is missing.
    fn heal(&mut self) {
        self.is_cut = [false; 2];
        self.is_stopped = [false; 2];
        self.is_idle = [false; 2];
        self.loss = 0.0;
        self.delay_ms = 1;
        self.advance(Duration::from_secs(3));
        let lives = [0, 1].map(|side| self.said[side].life);
        for side in 0..2 {
            self.push(side, false, 50);
            self.push(side, true, 50);
            self.hear(side);
        }
        self.advance(Duration::from_secs(3));
        assert_eq!(lives, [0, 1].map(|side| self.said[side].life), "a healed link stays");
        assert_eq!(self.links[0].generation(), self.links[1].generation());
        for side in 0..2 {
            let said = &self.said[side];
            let present = |life: &u64| *life == said.life;
            let missing = said.kept.iter().filter(|(_, life)| present(life));
            for (number, _) in missing {
                assert!(said.heard_kept.contains(number), "kept {number} of {side} is missing");
            }
            let heard: BTreeSet<u64> = said.heard.iter().copied().collect();
            for (number, _) in said.batches.iter().filter(|(_, life)| present(life)) {
                assert!(heard.contains(number) || said.lapsed.contains(number), "batch {number} of {side}");
            }
            assert_eq!(self.links[side].kept_bytes(), 0);
            let tally = self.links[side].take_tally();
            self.reached.resets += tally.resets;
            self.reached.lapses += tally.lapsed;
            self.reached.repeats += tally.repeated;
            assert!(tally.lapsed >= said.lapsed.len() as u64, "all lapses are counted");
        }
    }
}

#[test]
fn a_link_keeps_order_and_loses_nothing_kept_between_resets() {
    let mut all = Reached::default();
    let one = std::env::var("ROOMCAST_LINK").ok().map(|seed| seed.parse().unwrap());
    for seed in one.map_or(0..SEEDS, |seed| seed..seed + 1) {
        let mut world = World::new(seed);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
        assert!(outcome.is_ok(), "ROOMCAST_LINK={seed}");
        let Reached { resets, lapses, skips, repeats, bundles, joined, stripped, held } = world.reached;
        all.resets += resets;
        all.lapses += lapses;
        all.skips += skips;
        all.repeats += repeats;
        all.bundles += bundles;
        all.joined += joined;
        all.stripped += stripped;
        all.held += held;
    }
    let Reached { resets, lapses, skips, repeats, bundles, joined, stripped, held } = all;
    let least = [resets, lapses, skips, repeats, bundles, joined, stripped, held].into_iter().min();
    assert!(one.is_some() || least >= Some(50), "{all:?}");
}

/// A message with two entries, and an ack with a skip.
fn sample() -> LinkMessage {
    LinkMessage {
        version: 1,
        from: 0x0102,
        to: 0x0304,
        generation: 5,
        seq: 300,
        sort: Sort::Kept,
        shape: Shape::Whole,
        kept_before: 299,
        floor: 7,
        ack: LinkAck { through: 9, skips: vec![4..=6] },
        entries: vec![Bytes::from_static(b"abc"), Bytes::from_static(b"")],
        bytes: 6,
    }
}

#[test]
fn the_bytes_of_a_message_stay() {
    let golden: Vec<u8> = [
        &[1, 1][..],               // version, flags: kept
        &[0, 0, 0, 0, 0, 0, 1, 2], // sender
        &[0, 0, 0, 0, 0, 0, 3, 4], // addressee
        &[0, 0, 0, 5],             // generation
        &[0xac, 2, 0xab, 2, 7],    // seq, kept before, floor
        &[9, 1, 4, 2],             // ack, number of skips, first skip and two more
        &[3, b'a', b'b', b'c', 0], // entries
    ]
    .concat();
    assert_eq!(sample().encode(), golden);
    assert_eq!(LinkMessage::parse(golden.into()).unwrap().entries, sample().entries);
}

#[test]
fn bytes_that_are_no_message_are_refused_and_never_panic() {
    let whole = sample().encode();
    let mut read = 0;
    for seed in 0..20_000 {
        let mut rng = Rng::with_seed(seed);
        let mut bytes = whole.to_vec();
        match rng.u8(..3) {
            0 => bytes.truncate(rng.usize(..bytes.len())),
            1 => {
                for _ in 0..rng.usize(1..4) {
                    let at = rng.usize(..bytes.len());
                    bytes[at] = rng.u8(..);
                }
            }
            _ => {
                bytes.truncate(22);
                bytes.extend((0..rng.usize(..40)).map(|_| rng.u8(..)));
            }
        }
        let Ok(mut message) = LinkMessage::parse(bytes.into()) else { continue };
        read += 1;
        let now = Now::made_up().instant;
        let mut link: Link<u64> = Link::new(ends(0), 1, now);
        (message.from, message.to) = (ends(0).peer, ends(0).own);
        link.take(message, now);
        link.due(now);
        while link.poll_send(now).is_some() || link.poll_entry().is_some() {}
    }
    assert!(read > 1_000, "{read} were read");
    let other = LinkMessage::parse([&[9], &whole[1..]].concat().into());
    assert_eq!(other, Err(BadMessage::Version { version: 9, from: 0x0102 }));
}

#[test]
fn a_batch_in_time_has_not_lapsed_and_a_lost_batch_lapses_by_the_ack() {
    let now = Now::made_up().instant;
    let mut links = [0, 1].map(|side| Link::<u64>::new(ends(side), 1, now));
    let mut messages = Vec::new();
    for tag in [1, 2, 3] {
        links[0].push(LinkEntry::Batch { bytes: Bytes::from(vec![0; 10_000]), tag }, now);
    }
    while let Some(message) = links[0].poll_send(now) {
        messages.push(LinkMessage::parse(message).unwrap());
    }
    messages.remove(1);
    for message in messages {
        links[1].take(message, now);
    }
    assert_eq!(std::iter::from_fn(|| links[1].poll_entry()).count(), 2, "no wait for a batch");
    let later = now + Duration::from_millis(10);
    let ack = LinkMessage::parse(links[1].poll_send(later).unwrap()).unwrap();
    links[0].take(ack, later);
    assert_eq!(links[0].poll_event(), Some(LinkEvent::Lapsed { tag: 2 }));
    assert_eq!(links[0].poll_event(), None);
    assert_eq!(links[0].poll_deadline(), None, "nothing is open");
}

#[test]
fn an_owner_that_takes_nothing_for_a_while_loses_nothing_and_the_link_stays() {
    const ENTRIES: usize = 3 * LINK_WAITING_ENTRIES_MAX;
    for length in [20, 2000] {
        let mut world = World::new(0);
        (world.loss, world.delay_ms) = (0.0, 1);
        world.is_idle[1] = true;
        // Less than a link keeps.
        let count = ENTRIES.min(LINK_KEPT_BYTES_MAX / length);
        (0..count).for_each(|_| world.push(0, false, length));
        world.hear(0);
        world.advance(Duration::from_secs(1));
        assert!(world.links[0].kept_bytes() > 0, "the rest comes again");
        world.is_idle[1] = false;
        world.hear(1);
        world.advance(Duration::from_secs(3));
        assert_eq!((world.said[0].heard.len(), world.said[0].life, world.said[1].life), (count, 0, 0));
    }
}
