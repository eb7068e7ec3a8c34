//! One hot room on one shard and on two: the deliveries a second to all members, through the engine's shards,
//! directory and lanes, with sockets in memory.
//!
//! Each shard is a thread on a core of its own (0, 1, …), which spins on turns instead of sleeping. The home
//! publishes as fast as its own segment passes. Prints the best round of each run, then the best of all and
//! their ratio: by the clock on the wall, and by the processor time of the busier shard, for a machine with
//! other work.

#[path = "support/sockets.rs"]
mod support;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use roomcast::shard::directory::{self, Directory};
use roomcast::shard::lane::{self, LaneBounds, Lanes};
use roomcast_core::room::id::{NameKey, RoomName};

use support::{Driven, chat, print};

const MEMBERS: usize = 200_000;
/// Flushes of one round.
const FLUSHES: u64 = 40;
const ROUNDS: usize = 15;
const PAIRS: usize = 4;
/// Batches before the home's own segment: a pass of one, and the next. With more, a pass would write several
/// batches to each member at once, unlike a usual flush.
const UNDER_WAY: u64 = 2;
/// The audience has been told by then.
const AUDIENCE_TOLD: Duration = Duration::from_millis(1500);
/// Joins of one shard that wait for their answers.
const JOINS_UNDER_WAY: usize = 256;

fn main() {
    let mut best = [Rate::default(); 2];
    for pair in 1..=PAIRS {
        for (best, shards) in best.iter_mut().zip([1, 2]) {
            let rates = rates(shards);
            let of_run = rates.iter().copied().fold(Rate::default(), Rate::max);
            print(&format!("scatter {pair}: {shards} shards: {of_run}"));
            *best = best.max(of_run);
        }
    }
    let [one, two] = best;
    print(&format!(
        "scatter: best on one shard {one}; on two {two}: {:.2} x by processor time, {:.2} x by the clock",
        two.by_processor / one.by_processor,
        two.by_clock / one.by_clock
    ));
}

/// Millions of deliveries a second.
#[derive(Debug, Clone, Copy, Default)]
struct Rate {
    /// Per second of the busier shard's work. Other programs on its core do not stretch this time.
    by_processor: f64,
    /// Per second on the wall.
    by_clock: f64,
}

impl Rate {
    fn max(self, other: Self) -> Self {
        Self {
            by_processor: self.by_processor.max(other.by_processor),
            by_clock: self.by_clock.max(other.by_clock),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by_processor, by_clock } = self;
        write!(f, "{by_processor:.1} M deliveries/s by processor time, {by_clock:.1} by the clock")
    }
}

/// Shard -> the room's members on it, as the directory places them.
fn placed(room: &RoomName, shards: usize) -> Vec<usize> {
    let mut directory = Directory::new(shards, NameKey::default(), Arc::new([room.clone()].into()));
    let mut members = vec![0; shards];
    for _ in 0..MEMBERS {
        let shard = directory.find(room, |_| true).expect("no shard is full");
        directory.placed(room, shard);
        members[shard] += 1;
    }
    members
}

/// The rate of each round, with the room's members on `shards` shards.
fn rates(shards: usize) -> Vec<Rate> {
    let mut rooms = (0..).map(|n| RoomName::parse(&format!("room-{n}")).expect("a name"));
    let room = rooms
        .find(|room| directory::home(room, NameKey::default(), shards) == 0)
        .expect("one has its home there");
    let stage = Stage { members: placed(&room, shards), shards, arrivals: AtomicUsize::new(0) };
    let spans: Vec<Vec<Span>> = std::thread::scope(|scope| {
        let drive = |(index, lanes)| {
            let room = &room;
            let stage = &stage;
            scope.spawn(move || drive(index, lanes, room, stage))
        };
        let mesh = lane::mesh(shards, LaneBounds::default());
        let threads: Vec<_> = mesh.into_iter().enumerate().map(drive).collect();
        threads.into_iter().map(|thread| thread.join().expect("no shard panics")).collect()
    });
    let rate = |round: usize| {
        let of = |part: fn(&Span) -> Duration| spans.iter().map(move |spans| part(&spans[round])).max();
        let per_second = |took: Option<Duration>| {
            MEMBERS as f64 * FLUSHES as f64 / took.expect("there is a shard").as_secs_f64() / 1e6
        };
        Rate { by_processor: per_second(of(|span| span.worked)), by_clock: per_second(of(|span| span.took)) }
    };
    (0..ROUNDS).map(rate).collect()
}

/// One shard's part of a round.
struct Span {
    /// Until the last of its members had the last batch.
    took: Duration,
    /// Processor time of the turns with work.
    worked: Duration,
}

/// The meeting point of a run's shards.
struct Stage {
    shards: usize,
    /// Shard -> its members.
    members: Vec<usize>,
    arrivals: AtomicUsize,
}

impl Stage {
    /// Takes turns until all shards have come here, each for the `nth` time.
    fn meet(&self, nth: usize, driven: &mut Driven) {
        self.arrivals.fetch_add(1, Ordering::AcqRel);
        while self.arrivals.load(Ordering::Acquire) < nth * self.shards {
            turn(driven);
        }
    }
}

/// One shard's part of a run.
fn drive(index: usize, lanes: Lanes, room: &RoomName, stage: &Stage) -> Vec<Span> {
    pin(index);
    let mut driven = Driven::new(index, stage.shards, lanes, roomcast::clock::now());
    take_in(&mut driven, room, stage.members[index]);
    stage.meet(1, &mut driven);
    // The audience is told a second after the last join: that batch must not count.
    let joined = roomcast::clock::now().instant;
    while turn(&mut driven) || roomcast::clock::now().instant - joined < AUDIENCE_TOLD {}
    let round = |round| {
        let before = driven.frames_each();
        let whole = driven.frames.get() + driven.keys.len() as u64 * FLUSHES;
        stage.meet(2 * round, &mut driven);
        let began = roomcast::clock::now().instant;
        let worked = flush_all(&mut driven, (index == 0).then_some(room), whole);
        let took = roomcast::clock::now().instant - began;
        stage.meet(2 * round + 1, &mut driven);
        let after = driven.frames_each();
        assert!(
            before.iter().zip(&after).all(|(before, after)| before + FLUSHES == *after),
            "each member has every batch once"
        );
        Span { took, worked }
    };
    (1..=ROUNDS).map(round).collect()
}

/// Connects `members` members, a few at a time, until each has its welcome.
fn take_in(driven: &mut Driven, room: &RoomName, members: usize) {
    while driven.keys.len() < members {
        for _ in 0..JOINS_UNDER_WAY.min(members - driven.keys.len()) {
            driven.join(room, roomcast::clock::now());
        }
        while driven.frames.get() < driven.keys.len() as u64 {
            turn(driven);
        }
    }
}

/// The flushes of a round, until this shard's members have `whole` frames in all. `home` publishes. Returns
/// the processor time without idle turns.
fn flush_all(driven: &mut Driven, home: Option<&RoomName>, whole: u64) -> Duration {
    let mut published = 0;
    let mut passed = 0;
    drop(driven.shard.take_tally());
    let began = processor_time();
    let mut idle = Duration::ZERO;
    let mut idle_since = None;
    while driven.frames.get() < whole {
        if let Some(room) = home.filter(|_| published < FLUSHES && published < passed + UNDER_WAY) {
            driven.shard.homes.publish(published, room, vec![chat()], roomcast::clock::now());
            published += 1;
        }
        match (turn(driven), idle_since) {
            (false, None) => idle_since = Some(processor_time()),
            (true, Some(since)) => {
                idle += processor_time() - since;
                idle_since = None;
            }
            (true, None) | (false, Some(_)) => {}
        }
        passed += driven.shard.take_tally().written.len() as u64;
    }
    processor_time() - began - idle
}

/// The time that this thread had on its core.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("it is not negative")
}

fn turn(driven: &mut Driven) -> bool {
    driven.turn(roomcast::clock::now())
}

/// Keeps this thread on a core.
fn pin(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).expect("there is a core for each shard");
}
