//! The ladder, the inbox and the way in together.

mod nodes;

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::inbox::{InboxTaken, Left, Queue};
use super::ladder::{Ladder, Pressure};
use super::way_in::{PublishRequest, WayIn};
use crate::clock;
use roomcast_core::room::id::RoomName;
use roomcast_core::room::ladder::Step;
use roomcast_core::room::message::sample;

/// Every 100 ms five requests of 1000 messages come at once; the shard takes a message in 5 µs. What it takes
/// of a second, in permille, and the steps it stands on after each interval.
fn simulated() -> (u64, Vec<u8>) {
    let began: Instant = clock::now().instant;
    let way_in = WayIn::new();
    let mut queue = Queue::default();
    let mut ladder = Ladder::new(began);
    let mut steps = Vec::new();
    let mut busy_us = 0_u64;
    let mut now = began;
    let mut burst_at = began;
    while now < began + Duration::from_secs(5) {
        if now >= burst_at {
            for _ in 0..5 {
                let messages = vec![sample("chat", "1"); 1000];
                let bytes = messages.iter().map(|message| message.wire_bytes).sum();
                let room = RoomName::parse("r1").unwrap();
                let reply = oneshot::channel().0;
                way_in.push_publish(PublishRequest { room, messages, bytes, at: now, reply }).ok();
            }
            burst_at += Duration::from_millis(100);
        }
        let mut taken = InboxTaken::default();
        if let Some(request) = way_in.publishes.pop() {
            way_in.release(request.messages.len(), request.bytes);
            taken = InboxTaken { messages: request.messages.len(), least: Some(now - request.at) };
        }
        let left = if way_in.publishes.is_empty() { Left::Nothing } else { Left::Some };
        queue.took(taken, left, now);
        if way_in.take_turned_away() {
            queue.turned_away(now);
        }
        way_in.keep_to(queue.per_message_to_keep(ladder.step()));
        if now >= ladder.due() {
            let delay = queue.take_least();
            let turned_away = queue.take_turned_away();
            ladder.weigh(Pressure { delay, turned_away, owed_permille: 0 }, now);
            steps.push(ladder.step().number());
        }
        let took = Duration::from_micros(5) * u32::try_from(taken.messages).unwrap();
        busy_us += u64::try_from(took.as_micros()).unwrap();
        now += took.max(Duration::from_millis(1));
    }
    (busy_us * 1000 / 5_000_000, steps)
}

#[test]
fn a_shard_that_has_little_to_do_refuses_no_joins() {
    let (busy_permille, steps) = simulated();
    assert!(steps.last() < Some(&Step::JoinsRefused.number()), "{busy_permille} permille busy: {steps:?}");
}
