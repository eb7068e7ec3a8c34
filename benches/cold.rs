//! The flush of twenty thousand cold rooms with one member each, all due at the same moment, through a whole shard:
//! from the turn in which they are due until every member has its frame and the shard is quiet.
//!
//! Prints the best and the median of its rounds. The time of publishing is not in them.

#[path = "support/sockets.rs"]
mod support;

use std::time::Duration;

use roomcast::shard::lane;
use roomcast_core::now::Now;
use roomcast_core::room::id::RoomName;

use support::{Driven, chat, print};

const ROOMS: usize = 20_000;
const ROUNDS: usize = 40;
/// Between two rounds, in made-up time.
const ROUND: Duration = Duration::from_secs(1);
/// Within the spacing of two flushes of a small room, so that what is published then is gathered.
const SHORTLY: Duration = Duration::from_millis(1);
/// By then it is due.
const DUE: Duration = Duration::from_millis(200);

fn main() {
    let mut now = roomcast::clock::now();
    let peers = lane::mesh(1, lane::LaneBounds::default()).remove(0);
    let mut driven = Driven::new(0, 1, peers, now);
    let rooms: Vec<RoomName> =
        (0..ROOMS).map(|room| RoomName::parse(&format!("room-{room}")).expect("a name")).collect();
    for room in &rooms {
        driven.join(room, now);
    }
    // Rooms tell their audience once, a second after it changed.
    for _ in 0..3 {
        quiet(&mut driven, now);
        now = later(now, ROUND);
    }
    let mut took: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            now = later(now, ROUND);
            round(&mut driven, &rooms, now)
        })
        .collect();
    took.sort_unstable();
    let (best, median, worst) = (took[0], took[ROUNDS / 2], took[ROUNDS - 1]);
    let per_room = best.as_nanos() / ROOMS as u128;
    print(&format!(
        "cold: {ROOMS} rooms of one member: best {best:.1?}, median {median:.1?}, worst {worst:.1?} of {ROUNDS}; \
         {per_room} ns per room"
    ));
}

/// Publishes twice in every room: the first message leaves at once, the second is gathered. What its flush took.
fn round(driven: &mut Driven, rooms: &[RoomName], now: Now) -> Duration {
    publish(driven, rooms, now);
    quiet(driven, now);
    publish(driven, rooms, later(now, SHORTLY));
    let before = driven.frames_each();
    let due = later(now, DUE);
    let began = roomcast::clock::now().instant;
    quiet(driven, due);
    let took = roomcast::clock::now().instant - began;
    let after = driven.frames_each();
    assert!(
        before.iter().zip(&after).all(|(before, after)| before + 1 == *after),
        "each member has its frame"
    );
    took
}

fn publish(driven: &mut Driven, rooms: &[RoomName], now: Now) {
    for (ticket, room) in (0..).zip(rooms) {
        driven.shard.publish(ticket, room, vec![chat()], now);
    }
}

/// Gives the shard its turns until there is nothing to do at that moment.
fn quiet(driven: &mut Driven, now: Now) {
    while driven.turn(now) {}
    drop(driven.shard.take_tally());
}

fn later(now: Now, by: Duration) -> Now {
    let by_ms = u64::try_from(by.as_millis()).expect("a moment");
    Now { instant: now.instant + by, unix_ms: now.unix_ms + by_ms }
}
