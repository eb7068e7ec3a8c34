//! Many devices that come or go at once: a shard works for all of them together, not for each.

use std::collections::BTreeSet;
use std::time::Duration;

use roomcast_core::room::id::Cursor;

use crate::regressions::Bench;
use crate::world::name;

/// Chat, reliable messages and the audience, which the joins themselves change, flow at the same time.
#[test]
fn devices_that_come_for_the_first_time_share_one_welcome_between_two_batches() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bench = Bench::new(128);
    let room = name("r");
    for _ in 0..2 {
        bench.join(&room, None, usize::MAX);
    }
    bench.rest();
    bench.shard.take_tally();
    let mut joined = 0;
    let mut encoded = 0;
    let mut batches = 0;
    for _ in 0..400 {
        match random.u32(..6) {
            0 => bench.publish(&room, r#"{"type":"chat","payload":"hello"}"#),
            1 => bench.publish(&room, r#"{"type":"coupon","payload":1}"#),
            2 => bench.wait(Duration::from_millis(random.u64(..60))),
            _ => {
                for _ in 0..random.usize(1..20) {
                    bench.join(&room, None, usize::MAX);
                    joined += 1;
                }
            }
        }
        bench.rest();
        let tally = bench.shard.take_tally();
        encoded += tally.homes.welcomes_encoded;
        batches += tally.homes.rooms.batches;
    }
    assert!(joined > 10 * batches, "seed {seed}: {joined} joins, {batches} batches");
    // One welcome before the first batch, and one after each batch. The schedule has no second without a
    // batch, so the audience never changes between batches.
    assert!(encoded <= batches + 1, "seed {seed}: {encoded} welcomes, {batches} batches");
}

/// A network comes back. Each cut device lacks something else, and first-time visitors join among them.
#[test]
fn devices_that_come_back_do_not_take_the_shared_welcome_away() {
    let mut bench = Bench::new(128);
    let room = name("r");
    bench.join(&room, None, usize::MAX);
    bench.rest();
    for _ in 0..60 {
        bench.publish(&room, r#"{"type":"coupon","payload":1}"#);
        bench.wait(Duration::from_millis(20));
    }
    let epoch = bench.epoch(&room);
    let mut welcomes = BTreeSet::new();
    let mut pipes = Vec::new();
    for offset in 1..=60 {
        let (_, first_time) = bench.join(&room, None, usize::MAX);
        bench.join(&room, Some(Cursor { epoch, offset }), usize::MAX);
        bench.rest();
        welcomes.extend(first_time.borrow().frames_at.iter().copied());
        pipes.push(first_time);
    }
    assert_eq!(welcomes.len(), 1, "one encoding for {} devices", pipes.len());
}
