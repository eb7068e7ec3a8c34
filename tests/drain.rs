//! A graceful stop: gathered messages still arrive, devices hear goodbye, and publishers and balancers hear
//! no.
#![expect(clippy::unwrap_used, reason = "clippy sees only #[test] functions as tests, and these serve them")]

mod support;

use rustix::process::Signal;
use serde_json::json;
use support::device::list;
use support::{Device, Doors, Encoding, Heard, Node, Process, RawDevice, one_and_four_shards, until};

one_and_four_shards!(
    what_was_gathered_arrives_before_the_goodbye,
    a_draining_node_refuses_and_says_so_until_it_is_gone,
    a_device_that_takes_nothing_does_not_hold_the_drain_up,
    a_signal_drains_the_process_and_it_exits_with_0,
    a_second_signal_stops_the_process_at_once,
);

/// Makes a room gather for longer than any test lasts.
async fn gathering(doors: &Doors, room: &str) {
    doors.configure(room, &json!({"flush": {"direct_members": 0, "gather_ms": 10_000}})).await;
}

/// Asserts that the goodbye, frame and close, is all that a device hears.
async fn hears_goodbye(device: &mut Device) {
    let bye = device.notice("bye").await;
    assert_eq!((&bye["code"], &bye["reconnect_within_ms"]), (&json!("draining"), &json!(30_000)));
    assert_eq!(device.end().await, Heard::Closed(1012));
}

async fn what_was_gathered_arrives_before_the_goodbye(shards: usize) {
    let node = Node::start(shards);
    let rooms = node.rooms_apart("r", 4, shards).await;
    let mut devices = Vec::new();
    for room in &rooms {
        gathering(&node, room).await;
        for encoding in Encoding::ALL {
            // Two rooms each, so that the last batches cross shards.
            let mut device = Device::join(&node, room, encoding).await;
            if *room != rooms[0] {
                device.join_further(&rooms[0]).await;
            }
            devices.push((room.clone(), device));
        }
    }
    for room in &rooms {
        // More than a batch, and no more than a device of unknown rate is given at once.
        node.chat(room, 0..120).await;
        node.publish(room, &json!({"type": "like", "count": 9})).await;
    }
    let doors = node.doors;
    let draining = tokio::spawn(node.server.drain());
    for (room, device) in &mut devices {
        let expected = if *room == rooms[0] { 1 } else { 2 };
        let mut numbers = std::collections::BTreeMap::<String, Vec<u64>>::new();
        let mut likes = 0;
        loop {
            let frame = device.frame().await;
            if frame["kind"] == "bye" {
                break;
            }
            likes += frame["counters"]["like"]["add"].as_u64().unwrap_or(0);
            let of_room = numbers.entry(frame["room"].as_str().unwrap().to_owned()).or_default();
            let chats = list(&frame, "messages").into_iter().filter(|it| it["type"] == "chat");
            of_room.extend(chats.map(|it| it["payload"].as_u64().unwrap()));
        }
        assert_eq!((numbers.len(), likes), (expected, 9 * expected as u64));
        for of_room in numbers.values() {
            assert_eq!(of_room, &(0..120).collect::<Vec<_>>());
        }
        assert_eq!(device.end().await, Heard::Closed(1012));
    }
    drop(devices);
    support::comes("the end of the drain", draining).await.unwrap();
    for door in [doors.viewer, doors.publisher, doors.ops] {
        assert!(tokio::net::TcpStream::connect(door).await.is_err(), "{door} is closed");
    }
}

async fn a_draining_node_refuses_and_says_so_until_it_is_gone(shards: usize) {
    let node = Node::start(shards);
    // A device that does not answer the goodbye holds the drain up for the time of a goodbye.
    let mut lingering = RawDevice::join(&node, "r1", Encoding::Json).await;
    assert!(lingering.frame().await.is_some(), "a welcome: it has reached its shard");
    let doors = node.doors;
    let draining = tokio::spawn(node.server.drain());
    let refused = until("a refusal", async || {
        let answer = doors.publisher_door().publish("r1", &json!({"type": "chat", "payload": 1})).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    refused.is_problem(503, "draining", None);
    let ready = doors.ops_door().get("/readyz").await;
    assert_eq!((ready.status, ready.json()), (503, json!({"status": "not_ready", "reasons": ["draining"]})));
    assert_eq!(doors.ops_door().get("/healthz").await.status, 200);
    doors.publisher_door().put("/v1/rooms/r2", &json!({})).await.is_problem(503, "draining", None);
    let handshake = support::raw::handshake_head(&doors, "/v1/rooms/r1/ws");
    let answer = doors.viewer_door().say(format!("{handshake}\r\n").as_bytes()).await.unwrap();
    answer.is_problem(503, "draining", None);
    assert_eq!(doors.metrics().await.sum("roomcast_draining", &[]), 1);
    assert_eq!(lingering.close_code().await, Some(1012));
    support::comes("the end of the drain", draining).await.unwrap();
}

async fn a_device_that_takes_nothing_does_not_hold_the_drain_up(shards: usize) {
    let node = Node::start(shards);
    let stuck = RawDevice::join(&node, "r1", Encoding::Json).await;
    let mut device = Device::join(&node, "r1", Encoding::Proto).await;
    let large = json!({"type": "chat", "payload": "x".repeat(16_000)});
    let mut published = 0;
    while node.metrics().await.sum("roomcast_frames_skipped_total", &[]) == 0 {
        node.publish("r1", &large).await;
        published += 1;
        assert_eq!(device.messages(1).await.len(), 1);
        assert!(published < 1000, "the kernel's memory for one device has an end");
    }
    let draining = tokio::spawn(node.server.drain());
    hears_goodbye(&mut device).await;
    drop(device);
    support::comes("the end of the drain", draining).await.unwrap();
    drop(stuck);
}

async fn a_signal_drains_the_process_and_it_exits_with_0(shards: usize) {
    for signal in [Signal::TERM, Signal::INT] {
        let mut process = Process::start(shards).await;
        gathering(&process.doors, "r1").await;
        let mut device = Device::join(&process.doors, "r1", Encoding::Json).await;
        process.doors.chat("r1", 0..3).await;
        process.signal(signal);
        assert_eq!(device.numbers(3).await, [0, 1, 2]);
        hears_goodbye(&mut device).await;
        drop(device);
        assert_eq!(process.exit_code().await, Some(0));
    }
}

async fn a_second_signal_stops_the_process_at_once(shards: usize) {
    let mut process = Process::start(shards).await;
    let mut lingering = RawDevice::join(&process.doors, "r1", Encoding::Json).await;
    assert!(lingering.frame().await.is_some(), "a welcome: it has reached its shard");
    process.signal(Signal::TERM);
    let doors = process.doors;
    until("the drain", async || (doors.ops_door().get("/readyz").await.status == 503).then_some(())).await;
    process.signal(Signal::TERM);
    assert_eq!(process.exit_code().await, Some(3), "cut short, and said so");
    drop(lingering);
}
