//! A slot's log and the store in memory get the same requests, and give the same answers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use super::{Bench, EPOCH, SECOND, claim, message, room};
use crate::store::memory::Memory;
use crate::store::time::StoreNow;
use crate::store::{Append, Store, StoreAnswer, StoreError, StoreRequest};
use roomcast_core::cluster::Term;
use roomcast_core::room::id::{Epoch, RoomName};
use roomcast_core::room::message::Message;

const ROOMS: [&str; 3] = ["a", "b", "c"];

struct Twins {
    memory: Memory,
    bench: Bench,
    bytes_max: u64,
    random: fastrand::Rng,
    life: u64,
    generation: u64,
}

impl Twins {
    fn store_now(&self) -> StoreNow {
        self.bench.clock.now(self.bench.now)
    }

    /// An append that mostly continues its room's stream, behind `ahead` messages of the same batch.
    fn draw_append(&mut self, ahead: &mut BTreeMap<RoomName, u64>) -> Append {
        let now = self.store_now();
        let name = room(ROOMS[self.random.usize(..3)]);
        let stream = self.memory.load(&name, u64::MAX, now).unwrap();
        let head =
            ahead.get(&name).copied().or_else(|| stream.as_ref().map(|stream| stream.head)).unwrap_or(0);
        let epoch = stream.map_or(EPOCH, |stream| stream.epoch);
        let is_foreign = self.random.u8(..20) == 0;
        let first = head + u64::from(self.random.u8(..20) != 0).max(u64::from(head == 0));
        let messages: Vec<_> = (first..first + self.random.u64(1..4))
            .map(|offset| {
                let ttl = [1, 400, 1000, 5000, 90_000][self.random.usize(..5)];
                let text = format!("{name} {offset} {}", "x".repeat(self.random.usize(..1500)));
                let recall = if self.random.u8(..6) == 0 { self.random.u64(..offset) } else { 0 };
                let plain = message(offset, Duration::from_secs(ttl), text.as_bytes());
                Arc::new(Message { recall, ..Message::clone(&plain) })
            })
            .collect();
        self.life += u64::from(self.random.u8(..2));
        ahead.insert(name.clone(), first + messages.len() as u64 - 1);
        Append {
            room: name,
            life: self.life,
            epoch: if is_foreign { Epoch(99) } else { epoch },
            durable: head,
            accepted: self.bench.now.instant,
            messages,
        }
    }

    fn append(&mut self) {
        // Appends of other rooms may pass one another, so only one decides at the bound of bytes.
        let is_near_full = self.memory.holdings().bytes * 2 > self.bytes_max;
        let count = if is_near_full { 1 } else { self.random.usize(1..5) };
        let mut ahead = BTreeMap::new();
        let appends: Vec<_> = (0..count).map(|_| self.draw_append(&mut ahead)).collect();
        let outcomes = self.memory.append(&appends, self.store_now()).unwrap();
        let mut expected = BTreeMap::<RoomName, Vec<_>>::new();
        for (append, outcome) in appends.iter().zip(outcomes) {
            expected.entry(append.room.clone()).or_default().push(outcome);
        }
        let mut given = BTreeMap::<RoomName, Vec<Result<(), StoreError>>>::new();
        let mut broken = BTreeSet::new();
        let mut answers = Vec::new();
        for append in appends {
            // As the desk does.
            if broken.contains(&(append.room.clone(), append.life)) {
                answers.push(StoreRequest::Append(append).failed(StoreError::Moved));
                continue;
            }
            self.bench.machine.request(0, StoreRequest::Append(append), self.bench.now);
            while let Some((_, answer)) = self.bench.machine.poll_answer() {
                if let StoreAnswer::Failed { room, life, .. } = &answer {
                    broken.insert((room.clone(), *life));
                }
                answers.push(answer);
            }
        }
        self.bench.settle();
        answers.extend(self.bench.answers());
        for answer in answers {
            let (room, outcome) = match answer {
                StoreAnswer::Durable { room, .. } => (room, Ok(())),
                StoreAnswer::Failed { room, error, .. } => (room, Err(error)),
                other => panic!("{other:?}"),
            };
            given.entry(room).or_default().push(outcome);
        }
        assert_eq!(given, expected);
    }

    fn step(&mut self) {
        let name = room(ROOMS[self.random.usize(..3)]);
        match self.random.u8(..12) {
            0..6 => self.append(),
            6 | 7 => {
                let by = [5, 200, 400, 4000, 100_000, 300_000][self.random.usize(..6)];
                self.bench.now = self.bench.now.later(by * SECOND);
                self.bench.machine.due(self.bench.now);
                self.bench.settle();
                self.memory.purge(self.store_now(), usize::MAX).unwrap();
            }
            8 if self.random.u8(..6) == 0 => {
                self.bench.request(StoreRequest::Forget { room: name.clone(), life: 1 });
                let expected = self.memory.forget(&name).unwrap();
                let answers = self.bench.answers();
                assert!(
                    matches!(answers[..], [StoreAnswer::Forgotten { existed, .. }] if existed == expected)
                );
            }
            9 => {
                self.generation += 1;
                let heard = Term { generation: self.generation, sequence: 0 };
                self.bench.order(&claim(heard));
            }
            _ => {
                let after = self.random.u64(..30);
                let bytes_max = self.random.usize(..4000);
                self.bench.request(StoreRequest::Page { room: name.clone(), life: 1, after, bytes_max });
                let expected = self.memory.page(&name, after, bytes_max).unwrap();
                match &self.bench.answers()[..] {
                    [StoreAnswer::Paged { page, .. }] => assert_eq!(*page, expected),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(self.bench.machine.holdings(), self.memory.holdings());
        for name in ROOMS.map(room) {
            let whole_after = self.random.u64(..40);
            let expected = self.memory.load(&name, whole_after, self.store_now()).unwrap();
            self.bench.request(StoreRequest::Load { room: name, life: 1, whole_after });
            match &self.bench.answers()[..] {
                [StoreAnswer::Loaded { stream, .. }] => assert_eq!(*stream, expected),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_slot_gives_the_same_answers_as_the_store_in_memory() {
    let seed = std::env::var("ROOMCAST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    for life in 0..24 {
        writeln!(std::io::stderr(), "ROOMCAST_SEED={}", seed + life).ok();
        let bytes_max = 40_000;
        let mut bench = Bench::held(bytes_max);
        let mut random = fastrand::Rng::with_seed(seed + life);
        bench.machine.bound_payloads(random.usize(..20_000));
        let memory = Memory::new(bytes_max);
        let mut twins = Twins { memory, bench, bytes_max, random, life: 1, generation: 0 };
        (0..100).for_each(|_| twins.step());
    }
}
