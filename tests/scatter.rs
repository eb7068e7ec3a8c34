//! Hot rooms from outside. Devices are placed as a room grows and cools down, and nobody misses a message
//! meanwhile. A room on many shards is one room to all its users.
#![expect(clippy::unwrap_used, reason = "clippy sees only #[test] functions as tests, and these serve them")]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use futures_util::future::join_all;
use serde_json::{Value, json};
use support::device::{list, offsets, published};
use support::{Device, Doors, Encoding, Heard, Node, comes, until};

const SHARDS: usize = 4;
/// `shards.hot_members` of a node under test.
const HOT_MEMBERS: &str = "10";

fn node() -> Node {
    Node::with(SHARDS, &[("SHARDS__HOT_MEMBERS", HOT_MEMBERS)])
}

async fn join_many(doors: &Doors, room: &str, count: usize) -> Vec<Device> {
    let mut devices = Vec::new();
    for n in 0..count {
        devices.push(Device::join(doors, room, Encoding::ALL[n % 2]).await);
    }
    devices
}

/// The members in a view, by shard.
fn members(view: &Value) -> Vec<u64> {
    let mut members = vec![0; SHARDS];
    for segment in list(view, "shards") {
        members[usize::try_from(segment["shard"].as_u64().unwrap()).unwrap()] =
            segment["members"].as_u64().unwrap();
    }
    members
}

fn numbers(messages: &[Value]) -> impl Iterator<Item = u64> {
    messages.iter().map(|message| message["payload"].as_u64().unwrap())
}

/// Hears the numbers in order, from the first of the history until `last`. Returns the number of frames with
/// batches.
async fn hear_all(device: &mut Device, last: u64) -> u64 {
    let history = list(&device.welcome, "history");
    let mut next = numbers(&history).next().unwrap_or(0);
    let mut take = |messages: &[Value]| {
        for number in numbers(messages) {
            assert_eq!(number, next, "no gap, in order, none twice");
            next += 1;
        }
        next
    };
    let mut batches = 0;
    let mut reached = take(&history);
    while reached <= last {
        let frame = device.frame().await;
        assert_eq!((&frame["kind"], &frame["skipped"]), (&json!("batch"), &Value::Null), "{frame}");
        reached = take(&published(&frame));
        batches += 1;
    }
    batches
}

#[tokio::test]
async fn a_room_is_promoted_under_load_and_nobody_misses_a_message() {
    const DEVICES: usize = 60;
    let node = node();
    let room = "launch";
    node.configure(room, &json!({"flush": {"direct_members": 0, "gather_ms": 5}})).await;
    let doors = node.doors;
    let has_all = AtomicBool::new(false);
    let publishing = async {
        let mut next = 0;
        // Ten more requests once all devices are members.
        let mut after = 0;
        while after < 10 {
            after += u64::from(has_all.load(Relaxed));
            node.chat(room, next..next + 3).await;
            next += 3;
        }
        next - 1
    };
    let joining = async {
        let mut devices = join_many(&doors, room, 8).await;
        assert_eq!(node.view(room).await["hot"], false, "not yet");
        devices.extend(join_many(&doors, room, DEVICES - 8).await);
        has_all.store(true, Relaxed);
        devices
    };
    let (last, mut devices) = tokio::join!(publishing, joining);
    join_all(devices.iter_mut().map(async |device| hear_all(device, last).await)).await;

    let view = node.view_when(room, |view| view["members"] == DEVICES).await;
    assert_eq!((&view["hot"], &view["placed_on"].as_array().unwrap().len()), (&json!(true), &SHARDS));
    let by_shard = members(&view);
    assert!(by_shard.iter().all(|members| (10..=25).contains(members)), "scattered evenly: {by_shard:?}");
    let segments = list(&view, "shards");
    let written: u64 = segments.iter().map(|segment| segment["counts"]["written"].as_u64().unwrap()).sum();
    assert!(segments.iter().all(|segment| segment["counts"]["written"].as_u64() > Some(0)), "{view}");
    assert_eq!(view["counts"]["written"], written, "nobody has left");
    assert_eq!((&view["counts"]["skipped"], view["load_permille"].is_u64()), (&json!(0), true), "{view}");

    check_the_list(&node, room).await;
    let metrics = node
        .metrics_when("the shards' last word", |metrics| {
            metrics.sum("roomcast_members", &[]) == DEVICES as u64
                && metrics.sum("roomcast_rooms_hot", &[]) == 1
        })
        .await;
    assert!((1..=3).contains(&metrics.sum("roomcast_rooms_promoted_total", &[])), "{}", metrics.0);
    assert_eq!(metrics.sum("roomcast_rooms_demoted_total", &[]), 0);
    for name in ["roomcast_shards_members_max_over_mean", "roomcast_shards_busy_max_over_mean"] {
        assert!((1..=2).contains(&metrics.sum(name, &[])), "{name}: {}", metrics.0);
    }
    Box::pin(it_cools_down(&node, room, devices)).await;
}

async fn check_the_list(node: &Node, room: &str) {
    // Shards report their members once a second.
    let rooms = until("the shards' last word", async || {
        let rooms = node.publisher_door().get("/v1/rooms").await.json();
        let members =
            list(&rooms, "shards").iter().map(|shard| shard["members"].as_u64().unwrap()).sum::<u64>();
        (rooms["rooms"][0]["members"] == members).then_some(rooms)
    })
    .await;
    let line = &rooms["rooms"][0];
    assert_eq!((&line["room"], &line["hot"], &line["shards"]), (&json!(room), &json!(true), &json!(SHARDS)));
    let shards = list(&rooms, "shards");
    assert_eq!(shards.len(), SHARDS);
    for (index, shard) in shards.iter().enumerate() {
        assert_eq!(shard["shard"], index);
        for load in ["connections", "rooms", "busy_permille", "passes_permille"] {
            assert!(shard[load].is_u64(), "{load}: {shard}");
        }
    }
}

/// All but four devices leave, and some of the four are not at the room's home. New devices come to the home
/// again, and the four still hear everything.
async fn it_cools_down(node: &Node, room: &str, mut devices: Vec<Device>) {
    let written = node.view(room).await["counts"]["written"].as_u64().unwrap();
    for device in devices.drain(1..devices.len() - 3) {
        device.close().await;
    }
    let view = node.view_when(room, |view| view["members"] == 4).await;
    let home = &view["home"];
    assert_eq!((&view["hot"], &view["placed_on"]), (&json!(false), &json!([home])), "{view}");
    let counted = view["counts"]["written"].as_u64().unwrap();
    assert!(counted >= written, "what segments counted that are gone is not forgotten: {view}");
    let before = members(&view);
    assert!(before.iter().filter(|members| **members > 0).count() > 1, "they stay where they are: {view}");
    devices.push(Device::join(node, room, Encoding::Json).await);
    let view = node.view_when(room, |view| view["members"] == 5).await;
    let at = usize::try_from(home.as_u64().unwrap()).unwrap();
    assert_eq!(members(&view)[at], before[at] + 1, "{view}");
    node.publish(room, &json!({"type": "chat", "payload": "still here"})).await;
    for device in &mut devices {
        assert_eq!(device.messages(1).await[0]["payload"], "still here");
    }
    let metrics =
        node.metrics_when("a cold room", |metrics| metrics.sum("roomcast_rooms_hot", &[]) == 0).await;
    assert!((1..=3).contains(&metrics.sum("roomcast_rooms_demoted_total", &[])), "{}", metrics.0);
}

#[tokio::test]
async fn a_room_whose_audience_is_declared_is_scattered_from_the_first_device_on() {
    let node = node();
    let view = node.configure("declared", &json!({"expected_audience": 31})).await;
    assert_eq!((&view["hot"], view["placed_on"].as_array().unwrap().len()), (&json!(true), 4), "{view}");
    let devices = join_many(&node, "declared", SHARDS).await;
    let view = node.view_when("declared", |view| view["members"] == SHARDS).await;
    assert_eq!(members(&view), [1; SHARDS]);
    let view = node.configure("twofold", &json!({"expected_audience": 20})).await;
    assert_eq!(view["placed_on"].as_array().unwrap().len(), 2, "as many shards as it asks for: {view}");
    let view = node.configure("small", &json!({"expected_audience": 10})).await;
    assert_eq!((&view["hot"], &view["placed_on"]), (&json!(false), &json!([view["home"]])), "{view}");
    drop(devices);
}

#[tokio::test]
async fn a_listed_room_is_scattered_from_the_first_device_on_in_each_of_its_lives() {
    let node = Node::with(SHARDS, &[("SHARDS__HOT_ROOMS", r#"["launch-7"]"#)]);
    for life in 0..2 {
        let mut devices = join_many(&node, "launch-7", 2 * SHARDS).await;
        let view = node.view_when("launch-7", |view| view["members"] == 2 * SHARDS).await;
        assert_eq!((&view["hot"], members(&view)), (&json!(true), vec![2; SHARDS]), "life {life}");
        assert_eq!(node.publisher_door().delete("/v1/rooms/launch-7").await.status, 200);
        for device in &mut devices {
            assert_eq!(device.notice("closed").await["room"], "launch-7");
            assert_eq!(device.end().await, Heard::Closed(4003));
        }
    }
    let device = Device::join(&node, "another", Encoding::Json).await;
    assert_eq!(node.view("another").await["hot"], false);
    drop(device);
}

#[tokio::test]
async fn a_coupon_reaches_all_shards_of_a_hot_room_and_its_receipt_adds_up() {
    const DEVICES: u64 = 24;
    let node = node();
    let room = "coupons";
    node.configure(room, &json!({"expected_audience": 1000})).await;
    let mut devices = join_many(&node, room, usize::try_from(DEVICES).unwrap()).await;
    let view = node.view_when(room, |view| view["members"] == DEVICES).await;
    assert_eq!(members(&view), [6; SHARDS]);
    let offset = node.durable(room, &json!({"type": "coupon", "payload": {"id": 7}})).await;
    let mut epochs = BTreeSet::new();
    for device in &mut devices {
        let told = device.told().await;
        assert_eq!(offsets(&told), [offset]);
        let epoch = device.welcome["epoch"].clone();
        epochs.insert(epoch.as_str().unwrap().to_owned());
        device.ack(room, &epoch, offset).await;
    }
    assert_eq!(epochs.len(), 1, "one stream, wherever a device is placed");
    node.receipt_of(room, offset, [DEVICES, DEVICES, 0, 0]).await;
    let view = node.view_when(room, |view| view["counts"]["acked"] == DEVICES).await;
    assert!(list(&view, "shards").iter().all(|segment| segment["counts"]["acked"] == 6), "{view}");
    // Half of the members on each shard leave without an acknowledgement of the next message.
    let second = node.durable(room, &json!({"type": "coupon", "payload": {"id": 8}})).await;
    for device in &mut devices {
        device.told().await;
    }
    for device in devices.drain(..12) {
        device.close().await;
    }
    node.receipt_of(room, second, [DEVICES, 0, 12, 12]).await;
    node.receipt_of(room, offset, [DEVICES, DEVICES, 0, 0]).await;
}

#[tokio::test]
async fn a_hot_room_that_closes_tells_its_members_on_all_shards() {
    let node = node();
    let room = "over";
    node.configure(room, &json!({"expected_audience": 1000})).await;
    let mut devices = join_many(&node, room, 12).await;
    node.chat(room, 0..50).await;
    let answer = node.publisher_door().delete(&format!("/v1/rooms/{room}")).await;
    assert_eq!((answer.status, &answer.json()["members"]), (200, &json!(12)));
    for device in &mut devices {
        assert_eq!(device.numbers(50).await, (0..50).collect::<Vec<_>>());
        assert_eq!(device.notice("closed").await["room"], room);
        assert_eq!(device.end().await, Heard::Closed(4003));
    }
    // The next life of the room begins cold.
    let device = Device::join(&node, room, Encoding::Json).await;
    assert_eq!(node.view(room).await["hot"], false);
    node.metrics_when("a cold room", |metrics| metrics.sum("roomcast_rooms_hot", &[]) == 0).await;
    drop(device);
}

#[tokio::test]
async fn a_drain_says_goodbye_to_the_members_of_a_hot_room_on_all_shards() {
    let node = node();
    let room = "drained";
    let settings = json!({"expected_audience": 1000, "flush": {"direct_members": 0, "gather_ms": 10_000}});
    node.configure(room, &settings).await;
    let mut devices = join_many(&node, room, 12).await;
    node.chat(room, 0..50).await;
    let draining = tokio::spawn(node.server.drain());
    for device in &mut devices {
        assert_eq!(device.numbers(50).await, (0..50).collect::<Vec<_>>(), "what was gathered comes first");
        assert_eq!(device.notice("bye").await["code"], "draining");
        assert_eq!(device.end().await, Heard::Closed(1012));
    }
    drop(devices);
    comes("the end of the drain", draining).await.unwrap();
}

#[tokio::test]
async fn on_one_shard_no_room_is_ever_hot() {
    let keys = [("SHARDS__HOT_MEMBERS", "2"), ("SHARDS__HOT_ROOMS", r#"["r1"]"#)];
    let node = Node::with(1, &keys);
    let view = node.configure("r1", &json!({"expected_audience": 1_000_000})).await;
    assert_eq!((&view["hot"], &view["placed_on"]), (&json!(false), &json!([0])), "{view}");
    let mut devices = join_many(&node, "r1", 8).await;
    node.chat("r1", 0..20).await;
    for device in &mut devices {
        assert_eq!(device.numbers(20).await, (0..20).collect::<Vec<_>>());
    }
    let view = node.view("r1").await;
    assert_eq!(
        (&view["hot"], &view["placed_on"], list(&view, "shards").len()),
        (&json!(false), &json!([0]), 1)
    );
    let metrics = node.metrics().await;
    assert_eq!(metrics.sum("roomcast_rooms_promoted_total", &[]), 0);
    assert_eq!(metrics.sum("roomcast_rooms_hot", &[]), 0);
}
