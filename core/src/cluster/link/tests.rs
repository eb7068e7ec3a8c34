//! Two links over a simulated bus, and the bytes of their messages.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use fastrand::Rng;

use super::message::{Shape, Sort};
use super::*;
use crate::limits::{
    LINK_BATCHES_MAX, LINK_BUNDLE_BYTES_MAX, LINK_BUNDLED_BYTES_MAX, LINK_MESSAGE_BYTES_MAX,
};
use crate::now::Now;

const SEEDS: u64 = 600;

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
    reached: Reached,
}

fn ends(side: usize) -> LinkEnds {
    let all = [11, 22];
    LinkEnds { own: all[side], peer: all[1 - side] }
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
        while let Some(entry) = link.poll_entry() {
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
                6..10 => self.is_stopped[side] = !self.is_stopped[side],
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
