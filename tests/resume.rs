//! Coming back. A device with a cursor gets exactly what it misses, or is told that its cursor can't be
//! honoured. It may come back to the same shard or another, and to the same node or a restarted one.
#![expect(clippy::unwrap_used, reason = "clippy sees only #[test] functions as tests, and these serve them")]

mod support;

use serde_json::{Value, json};
use support::device::{list, offsets, published, reliable, span};
use support::{Device, Doors, Encoding, Handshake, Node, Place, in_memory_and_on_disk, until};

in_memory_and_on_disk!(
    a_device_that_comes_back_gets_exactly_what_it_misses,
    a_further_room_is_resumed_wherever_it_lives,
    a_cursor_that_can_not_be_honoured_is_reset_to_everything_alive,
    offset_0_is_never_a_reset,
    a_room_that_is_closed_and_opened_anew_keeps_its_stream,
    what_has_expired_or_was_recalled_meanwhile_is_a_hole,
    a_restart_keeps_the_stream_on_disk_alone,
    an_id_lasts_as_long_as_its_store,
    receipts_begin_anew_with_the_node,
);

fn coupon(payload: impl Into<Value>) -> Value {
    json!({"type": "coupon", "payload": payload.into()})
}

fn cursor(epoch: &Value, offset: u64) -> String {
    format!("{}:{offset}", epoch.as_str().unwrap())
}

/// Joins with a cursor.
async fn come_back(doors: &Doors, room: &str, encoding: Encoding, cursor: &str) -> Device {
    Device::join_with(doors, room, Handshake::new(encoding).query(format!("cursor={cursor}"))).await
}

/// Publishes coupons with these payloads, and waits until they have left.
async fn publish(doors: &Doors, room: &str, payloads: std::ops::RangeInclusive<u64>) -> u64 {
    let mut last = 0;
    for n in payloads {
        last = doors.durable(room, &json!({"type": "coupon", "payload": n, "id": format!("c-{n}")})).await;
    }
    let sent = async || (doors.pull(room, None).await["offset"] == last).then_some(());
    until("the last message's flush", sent).await;
    last
}

/// Ends a node, so that another node may have its folder.
async fn stop(node: Node) {
    node.server.drain().await;
}

async fn a_device_that_comes_back_gets_exactly_what_it_misses(place: &Place) {
    let node = place.start();
    publish(&node, "r1", 1..=9).await;
    let epoch = node.pull("r1", None).await["epoch"].clone();
    for encoding in Encoding::ALL {
        for has in 0..=9 {
            let mut device = come_back(&node, "r1", encoding, &cursor(&epoch, has)).await;
            let welcome = &device.welcome;
            let missing: Vec<u64> = (has + 1..=9).collect();
            assert_eq!((span(welcome), offsets(welcome)), ((has, 9), missing.clone()), "{welcome}");
            assert_eq!((&welcome["reset"], &welcome["offset"]), (&Value::Null, &json!(9)));
            let payloads =
                reliable(welcome).iter().map(|it| it["payload"].as_u64().unwrap()).collect::<Vec<_>>();
            assert_eq!(payloads, missing);
            let page = node.pull("r1", Some(&cursor(&epoch, has))).await;
            assert_eq!((span(&page), offsets(&page)), ((has, 9), missing));
            // A device that has everything may acknowledge at once, or never.
            device.ack("r1", &epoch, has).await;
            device.until_pong().await;
            device.close().await;
        }
    }
    assert_eq!(node.metrics().await.sum("roomcast_acks_ignored_total", &[]), 0);
    // Without a cursor, the device is a newcomer.
    let newcomer = Device::join(&node, "r1", Encoding::Json).await;
    assert_eq!(offsets(&newcomer.welcome), (1..=9).collect::<Vec<_>>());
}

async fn a_further_room_is_resumed_wherever_it_lives(place: &Place) {
    let node = place.start();
    for encoding in Encoding::ALL {
        let rooms = node.rooms_apart(encoding.subprotocol(), 4, place.shards).await;
        let mut epochs = Vec::new();
        for room in &rooms {
            publish(&node, room, 1..=5).await;
            epochs.push(node.pull(room, None).await["epoch"].clone());
        }
        let mut device = come_back(&node, &rooms[0], encoding, &cursor(&epochs[0], 2)).await;
        assert_eq!(offsets(&device.welcome), [3, 4, 5]);
        for ((room, epoch), has) in rooms.iter().zip(&epochs).zip(0..).skip(1) {
            let welcome = device.join_further_from(room, Some(&cursor(epoch, has))).await;
            assert_eq!((span(&welcome).0, &welcome["epoch"]), (has, epoch), "{welcome}");
            assert_eq!(offsets(&welcome), (has + 1..=5).collect::<Vec<_>>());
        }
        // One acknowledgement for all rooms; the next messages are each room's own.
        let acks: Vec<Value> = rooms
            .iter()
            .zip(&epochs)
            .map(|(room, epoch)| json!({"room": room, "epoch": epoch, "offset": 5}))
            .collect();
        device.say(&json!({"kind": "ack", "acks": acks})).await;
        device.until_pong().await;
        for (room, epoch) in rooms.iter().zip(&epochs) {
            let receipt = node.receipt(room, 5).await;
            assert_eq!(receipt["pending"], 0, "{room}: {receipt}");
            let offset = node.durable(room, &coupon("more")).await;
            let told = device.told().await;
            assert_eq!((told["room"].as_str(), span(&told).1), (Some(room.as_str()), offset), "{told}");
            assert_eq!(published(&told)[0]["offset"], offset);
            device.ack(room, epoch, offset).await;
        }
        // A cursor of another room names another epoch.
        device.leave(&rooms[1]).await;
        let welcome = device.join_further_from(&rooms[1], Some(&cursor(&epochs[2], 3))).await;
        assert_eq!((&welcome["reset"], span(&welcome).0), (&json!("epoch_changed"), 0), "{welcome}");
        device.close().await;
    }
}

async fn a_cursor_that_can_not_be_honoured_is_reset_to_everything_alive(place: &Place) {
    let node = place.start();
    publish(&node, "r1", 1..=4).await;
    let epoch = node.pull("r1", None).await["epoch"].clone();
    let foreign = json!("0123456789abcdef");
    for encoding in Encoding::ALL {
        for (asked, reset) in [
            (cursor(&foreign, 1), "epoch_changed"),
            (cursor(&foreign, 9_007_199_254_740_991), "epoch_changed"),
            (cursor(&epoch, 5), "ahead"),
            (cursor(&epoch, 9_007_199_254_740_991), "ahead"),
        ] {
            let device = come_back(&node, "r1", encoding, &asked).await;
            let page = node.pull("r1", Some(&asked)).await;
            for told in [&device.welcome, &page] {
                assert_eq!((&told["reset"], span(told)), (&json!(reset), (0, 4)), "{asked}: {told}");
                assert_eq!((offsets(told), &told["epoch"]), (vec![1, 2, 3, 4], &epoch));
            }
            device.close().await;
        }
    }
    for bad in ["x", "0123456789abcdef", "0123456789abcdef:x", "0123456789ABCDEF0:1"] {
        let handshake = Handshake::new(Encoding::Json).query(format!("cursor={bad}"));
        assert!(Device::try_join(&node, "r1", handshake).await.is_err(), "{bad}");
    }
}

async fn offset_0_is_never_a_reset(place: &Place) {
    let node = place.start();
    for room in ["empty", "r1"] {
        if room == "r1" {
            publish(&node, room, 1..=3).await;
        }
        let all: Vec<u64> = if room == "r1" { vec![1, 2, 3] } else { vec![] };
        for encoding in Encoding::ALL {
            let device = come_back(&node, room, encoding, "0123456789abcdef:0").await;
            assert_eq!((&device.welcome["reset"], offsets(&device.welcome)), (&Value::Null, all.clone()));
            let page = node.pull(room, Some("0123456789abcdef:0")).await;
            assert_eq!((&page["reset"], offsets(&page)), (&Value::Null, all.clone()));
        }
    }
}

async fn a_room_that_is_closed_and_opened_anew_keeps_its_stream(place: &Place) {
    let node = place.start();
    publish(&node, "r1", 1..=3).await;
    let before = Device::join(&node, "r1", Encoding::Json).await.welcome;
    assert_eq!(node.publisher_door().delete("/v1/rooms/r1").await.status, 200);
    let epoch = before["epoch"].clone();
    let mut device = come_back(&node, "r1", Encoding::Proto, &cursor(&epoch, 2)).await;
    let welcome = &device.welcome;
    assert_ne!(welcome["run"], before["run"]);
    assert_eq!((&welcome["epoch"], span(welcome), offsets(welcome)), (&epoch, (2, 3), vec![3]), "{welcome}");
    assert_eq!(publish(&node, "r1", 4..=4).await, 4);
    assert_eq!(span(&device.told().await), (3, 4));
    let again =
        node.publisher_door().publish("r1", &json!({"type": "coupon", "payload": 1, "id": "c-1"})).await;
    assert_eq!(
        (again.results(), &again.json()["results"][0]["offset"]),
        (vec!["duplicate".into()], &json!(1))
    );
}

async fn what_has_expired_or_was_recalled_meanwhile_is_a_hole(place: &Place) {
    let node = place.start();
    node.durable("r1", &coupon(1)).await;
    let epoch = node.pull("r1", None).await["epoch"].clone();
    node.durable("r1", &json!({"type": "coupon", "payload": 2, "ttl_ms": 1000})).await;
    node.durable("r1", &coupon(3)).await;
    node.durable("r1", &json!({"type": "coupon", "payload": 4, "ttl_ms": 1000})).await;
    assert_eq!(node.publisher_door().delete("/v1/rooms/r1/reliable/3").await.json()["offset"], 5);
    let gone = async || (offsets(&node.pull("r1", None).await) == [1, 5]).then_some(());
    until("the expiry", gone).await;
    for (has, misses) in
        [(0, vec![1, 5]), (1, vec![5]), (2, vec![5]), (3, vec![5]), (4, vec![5]), (5, vec![])]
    {
        for encoding in Encoding::ALL {
            let device = come_back(&node, "r1", encoding, &cursor(&epoch, has)).await;
            let welcome = &device.welcome;
            assert_eq!((&welcome["reset"], span(welcome)), (&Value::Null, (has, 5)), "{welcome}");
            assert_eq!(offsets(welcome), misses, "behind {has}");
        }
    }
}

async fn a_restart_keeps_the_stream_on_disk_alone(place: &Place) {
    let node = place.start();
    publish(&node, "r1", 1..=5).await;
    assert_eq!(node.publisher_door().delete("/v1/rooms/r1/reliable/4").await.json()["offset"], 6);
    let mut device = Device::join(&node, "r1", Encoding::Json).await;
    let before = device.welcome.clone();
    let epoch = before["epoch"].clone();
    device.ack("r1", &epoch, 2).await;
    device.until_pong().await;
    stop(node).await;
    let node = place.start();
    let kept = place.folder.is_some();
    for encoding in Encoding::ALL {
        let device = come_back(&node, "r1", encoding, &cursor(&epoch, 2)).await;
        let welcome = &device.welcome;
        assert_ne!(welcome["run"], before["run"]);
        if kept {
            let told = (&welcome["epoch"], &welcome["reset"], span(welcome), offsets(welcome));
            assert_eq!(told, (&epoch, &Value::Null, (2, 6), vec![3, 5, 6]), "{welcome}");
            assert_eq!(reliable(welcome)[2]["recall"], 4);
            assert_eq!(reliable(welcome)[0], list(&before, "reliable")[2], "to the letter");
        } else {
            assert_eq!((&welcome["reset"], span(welcome)), (&json!("epoch_changed"), (0, 0)), "{welcome}");
            assert_ne!(welcome["epoch"], epoch);
        }
        device.close().await;
    }
    let next = node.durable("r1", &coupon("next")).await;
    assert_eq!(next, if kept { 7 } else { 1 });
    if kept {
        let recall = node.publisher_door().delete("/v1/rooms/r1/reliable/4").await;
        assert_eq!((recall.status, &recall.json()["offset"]), (200, &json!(6)), "{recall:?}");
        // The pull side also looks a room up in the store if no device has asked for it.
        stop(node).await;
        let node = place.start();
        let page = node.pull("r1", Some(&cursor(&epoch, 5))).await;
        assert_eq!((span(&page), offsets(&page)), ((5, 7), vec![6, 7]), "{page}");
    }
}

async fn an_id_lasts_as_long_as_its_store(place: &Place) {
    let message = json!({"type": "coupon", "payload": 1, "id": "c-1"});
    let node = place.start();
    node.durable("r1", &coupon(0)).await;
    assert_eq!(node.durable("r1", &message).await, 2);
    // A recalled message is still known.
    node.publisher_door().delete("/v1/rooms/r1/reliable/2").await;
    stop(node).await;
    let node = place.start();
    let answer = node.publisher_door().publish("r1", &message).await;
    if place.folder.is_none() {
        return assert_eq!(answer.results(), ["durable"]);
    }
    assert_eq!(answer.results(), ["duplicate"], "{answer:?}");
    assert_eq!(answer.json()["results"][0]["offset"], 2);
    let other = json!({"type": "coupon", "payload": 2, "id": "c-1"});
    let answer = node.publisher_door().publish("r1", &other).await;
    assert_eq!((answer.status, &answer.json()["code"]), (409, &json!("id_reused")), "{answer:?}");
    assert_eq!(node.durable("r1", &coupon(3)).await, 4);
}

async fn receipts_begin_anew_with_the_node(place: &Place) {
    let node = place.start();
    let named =
        |name: &str, more: String| Handshake::new(Encoding::Json).query(format!("device={name}{more}"));
    let mut device = Device::join_with(&node, "r1", named("a", String::new())).await;
    let epoch = device.welcome["epoch"].clone();
    publish(&node, "r1", 1..=1).await;
    device.told().await;
    device.ack("r1", &epoch, 1).await;
    let before = node.receipt_of("r1", 1, [1, 1, 0, 0]).await;
    stop(node).await;
    let node = place.start();
    if place.folder.is_none() {
        let answer = node.publisher_door().get("/v1/rooms/r1/reliable/1").await;
        return assert_eq!(answer.status, 404, "{answer:?}");
    }
    let after = node.receipt_of("r1", 1, [0, 0, 0, 0]).await;
    assert!(after["since"].as_u64() > before["since"].as_u64(), "{before} {after}");
    for same in ["at", "expires_at", "type", "id", "epoch"] {
        assert_eq!(after[same], before[same]);
    }
    // A device that comes back for the message counts.
    let returned = named("b", format!("&cursor={}", cursor(&epoch, 0)));
    let mut device = Device::join_with(&node, "r1", returned).await;
    node.receipt_of("r1", 1, [1, 0, 0, 1]).await;
    device.ack("r1", &epoch, 1).await;
    node.receipt_of("r1", 1, [1, 1, 0, 0]).await;
}
