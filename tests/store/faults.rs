//! A disk that fails at its n-th write or sync, for every n. After a loss of power, every message reported
//! durable is there, nothing unsent is there, and the disk heals.

use std::thread;

use roomcast::store::port::Port;
use roomcast::store::writer::Writer;
use roomcast::store::{Append, StoreAnswer, StoreRequest};
use roomcast_core::limits::STORE_REOPEN_PAUSE_MAX;
use roomcast_core::now::Now;

use super::disk::{Disk, Fault, FaultKind};
use super::{append, offsets, room};

const ROOMS: [&str; 2] = ["a", "b"];
const ROUNDS: usize = 10;

/// A shard's knowledge of one room.
#[derive(Debug)]
struct Known {
    name: &'static str,
    life: u64,
    /// `None`: the room has to load.
    head: Option<u64>,
    /// The last offset reported durable.
    reported: u64,
}

/// A shard with two rooms over a writer over a disk, in one thread and with a virtual clock.
struct World {
    disk: Disk,
    writer: Writer,
    port: Port,
    now: Now,
    rooms: [Known; 2],
}

impl World {
    fn new() -> Self {
        let disk = Disk::default();
        let writer = Writer::new(Box::new(disk.store().unwrap()), vec![Box::new(|| {})]);
        let port = writer.ports().pop().unwrap();
        let rooms = ROOMS.map(|name| Known { name, life: 1, head: None, reported: 0 });
        Self { disk, writer, port, now: roomcast::clock::now(), rooms }
    }

    /// Each room loads, or appends two messages in two requests.
    fn round(&mut self) {
        for known in &self.rooms {
            let room = room(known.name);
            let life = known.life;
            let Some(head) = known.head else {
                self.port.send(StoreRequest::Load { room, life }).unwrap();
                continue;
            };
            for offset in head + 1..=head + 2 {
                let append = Append { life, ..append(known.name, offset..=offset) };
                self.port.send(StoreRequest::Append(append)).unwrap();
            }
        }
        self.writer.turn(self.now);
        self.now = self.now.later(STORE_REOPEN_PAUSE_MAX);
        self.writer.turn(self.now);
        self.hear();
    }

    fn hear(&mut self) {
        while let Some(answer) = self.port.next_answer() {
            let (name, of_life) = match &answer {
                StoreAnswer::Loaded { room, life, .. }
                | StoreAnswer::Durable { room, life, .. }
                | StoreAnswer::Failed { room, life, .. }
                | StoreAnswer::Forgotten { room, life, .. }
                | StoreAnswer::Paged { room, life, .. } => (room.as_str().to_owned(), *life),
            };
            let known = self.rooms.iter_mut().find(|known| known.name == name).unwrap();
            if of_life != known.life {
                assert!(!matches!(answer, StoreAnswer::Durable { .. }), "a life that failed stays failed");
                continue;
            }
            match answer {
                StoreAnswer::Loaded { stream, .. } => {
                    let head = stream.map_or(0, |stream| stream.head);
                    assert!(head >= known.reported, "{name}: {head}, and {} was reported", known.reported);
                    known.head = Some(head);
                }
                StoreAnswer::Durable { through, .. } => {
                    known.reported = through;
                    known.head = Some(through);
                }
                StoreAnswer::Failed { .. } => {
                    known.life += 1;
                    known.head = None;
                }
                StoreAnswer::Paged { .. } | StoreAnswer::Forgotten { .. } => {
                    unreachable!("none was asked for")
                }
            }
        }
    }

    /// After a loss of power now, every message reported durable is there, without a hole.
    fn check(&self, fault: Option<Fault>) {
        let mut survived = self.disk.after_power_loss().store().unwrap();
        for known in &self.rooms {
            let found = offsets(&mut survived, known.name);
            assert!(found.len() as u64 >= known.reported, "{fault:?}: {found:?} of {known:?}");
            assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>(), "{fault:?}");
        }
    }
}

fn live(fault: Option<Fault>) -> usize {
    let mut world = World::new();
    world.disk.fail(fault);
    for _ in 0..ROUNDS {
        world.round();
        world.check(fault);
    }
    let steps = world.disk.steps();
    world.disk.fail(None);
    let before = world.rooms.each_ref().map(|known| known.reported);
    (0..3).for_each(|_| world.round());
    world.check(fault);
    for (known, before) in world.rooms.iter().zip(before) {
        assert!(known.reported > before, "{fault:?}: it heals, {known:?}");
    }
    assert!(world.writer.health().trouble().is_none());
    steps
}

#[test]
fn a_disk_that_fails_at_any_step_costs_no_message_that_was_reported() {
    let steps = live(None);
    assert!(steps > 50, "{steps}");
    for kind in [FaultKind::Io, FaultKind::Full] {
        for times in [1, 2, 25] {
            for after in 0..steps {
                live(Some(Fault { after, times, kind }));
            }
        }
    }
}

#[test]
fn a_disk_that_hangs_at_any_step_answers_nothing_until_it_goes_on() {
    let mut world = World::new();
    world.round();
    world.disk.fail(None);
    world.round();
    let steps = world.disk.steps();
    assert!(steps > 5, "{steps}");
    for after in 0..steps {
        let mut world = World::new();
        world.round();
        world.disk.fail(Some(Fault { after, times: 1, kind: FaultKind::Freeze }));
        let append = Append { life: 1, ..append("a", 1..=1) };
        world.port.send(StoreRequest::Append(append)).unwrap();
        let mut writer = world.writer;
        let now = world.now;
        let turning = thread::spawn(move || {
            writer.turn(now);
            writer
        });
        // A lone append may take fewer steps than the appends of two rooms did.
        let frozen = world.disk.wait_until_frozen_or(|| turning.is_finished());
        if frozen {
            assert!(world.port.next_answer().is_none(), "step {after}");
            world.disk.thaw();
        }
        world.writer = turning.join().unwrap();
        world.disk.fail(None);
        world.hear();
        (0..3).for_each(|_| world.round());
        world.check(None);
        assert!(world.rooms[0].reported >= 2, "step {after}: {:?}", world.rooms);
    }
}
