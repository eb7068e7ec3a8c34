//! Reliable messages over real sockets: durable before the answer, carried until the acknowledgement, each in
//! its place. Also ids, receipts, recall, expiry, the pull side, and the bounds.
#![expect(clippy::unwrap_used, reason = "clippy sees only #[test] functions as tests, and these serve them")]

mod support;

use futures_util::future::join_all;
use roomcast_core::limits::{
    PULL_BYTES_MAX, REQUEST_MESSAGES_MAX, STREAM_MESSAGES_MAX, WELCOME_RELIABLE_BYTES_MAX,
};
use serde_json::{Value, json};
use support::device::{list, offsets, published, reliable, span};
use support::{Device, Doors, Encoding, Handshake, Node, Place, in_memory_and_on_disk, until};

in_memory_and_on_disk!(
    a_durable_message_reaches_every_device_with_its_place_in_the_stream,
    what_is_not_acknowledged_is_carried_until_it_is,
    an_acknowledgement_that_can_not_be_is_ignored_and_counted,
    what_follows_a_reliable_message_in_its_request_waits_for_it,
    an_id_is_published_once,
    one_id_for_two_messages_is_refused_with_all_of_its_request,
    a_receipt_tells_who_has_a_message,
    a_device_that_changes_its_network_counts_once,
    connections_without_a_name_count_one_by_one,
    an_ended_stream_begins_another_epoch,
    a_receipt_or_a_recall_of_what_there_is_not_is_refused,
    a_recall_reaches_every_device_and_takes_its_message_out,
    what_has_expired_is_a_hole,
    a_newcomer_is_told_everything_that_is_alive,
    pages_of_the_pull_side_join_up,
    a_newcomer_who_lacks_much_catches_up_while_chat_goes_on,
    a_device_that_was_behind_gets_reliable_messages_with_its_refresh,
    a_full_stream_refuses_and_takes_the_rest,
    what_is_never_old_has_no_life_of_its_own,
);

/// One message of class reliable.
fn coupon(payload: impl Into<Value>) -> Value {
    json!({"type": "coupon", "payload": payload.into()})
}

/// Publishes `count` reliable messages of `bytes` bytes, all durable.
async fn fill(doors: &Doors, room: &str, count: usize, bytes: usize) {
    let messages: Vec<Value> = (0..count).map(|n| coupon(format!("{n} {}", "x".repeat(bytes)))).collect();
    let per_request = (900_000 / (bytes + 100)).min(REQUEST_MESSAGES_MAX);
    for messages in messages.chunks(per_request) {
        let results = doors.publish(room, &json!({ "messages": messages })).await;
        assert_eq!(results, vec!["durable"; messages.len()]);
    }
}

/// Waits until messages up to this offset have left. A message is durable a moment before that.
async fn all_sent(doors: &Doors, room: &str, offset: u64) {
    let sent = async || (doors.pull(room, None).await["offset"] == offset).then_some(());
    until("the last message's flush", sent).await;
}

async fn both(doors: &Doors, room: &str) -> [Device; 2] {
    [Device::join(doors, room, Encoding::Json).await, Device::join(doors, room, Encoding::Proto).await]
}

/// The cursor that an unnamed device joins with.
fn cursor(epoch: &Value, offset: u64) -> String {
    format!("{}:{offset}", epoch.as_str().unwrap())
}

async fn a_durable_message_reaches_every_device_with_its_place_in_the_stream(place: &Place) {
    let node = place.start();
    let devices = both(&node, "r1").await;
    let epoch = devices[0].welcome["epoch"].clone();
    assert_eq!(epoch.as_str().unwrap().len(), 16, "{epoch}");
    for device in &devices {
        let stands = (&device.welcome["epoch"], &device.welcome["offset"], span(&device.welcome));
        assert_eq!(stands, (&epoch, &json!(0), (0, 0)));
        assert_eq!(device.welcome["reset"], Value::Null);
    }
    for (n, mut device) in (1..).zip(devices) {
        let message = json!({"type": "red_packet", "payload": {"n": n}, "id": format!("p-{n}")});
        assert_eq!(node.durable("r1", &message).await, n);
        let batch = loop {
            let batch = device.told().await;
            if span(&batch).1 == n {
                break batch;
            }
        };
        assert_eq!((span(&batch), &batch["ack_within_ms"]), ((n - 1, n), &json!(200)), "{batch}");
        let message = &published(&batch)[0];
        assert_eq!(message["offset"], n, "{batch}");
        assert_eq!((&message["type"], &message["payload"]["n"]), (&json!("red_packet"), &json!(n)));
        assert_eq!(message["id"], format!("p-{n}"));
        device.close().await;
        if n == 1 {
            continue;
        }
        let view = node.view("r1").await;
        assert_eq!((&view["head"]["epoch"], &view["head"]["offset"]), (&epoch, &json!(2)), "{view}");
        assert_eq!(view["backlog"]["not_durable"], 0);
        assert_eq!(view["account"]["red_packet"]["delivered"], 2, "{view}");
    }
    assert_eq!(node.ops_door().get("/readyz").await.status, 200);
}

async fn what_is_not_acknowledged_is_carried_until_it_is(place: &Place) {
    let node = place.start();
    join_all(Encoding::ALL.map(|encoding| is_carried_until_it_acknowledges(&node, encoding))).await;
    let metrics = node.metrics().await;
    assert_eq!(metrics.sum("roomcast_acks_ignored_total", &[]), 0);
}

async fn is_carried_until_it_acknowledges(node: &Node, encoding: Encoding) {
    let room = encoding.subprotocol();
    let mut careless = Device::join(node, room, encoding).await;
    let mut device = Device::join(node, room, encoding).await;
    let epoch = device.welcome["epoch"].clone();
    node.durable(room, &coupon(1)).await;
    assert_eq!(offsets(&device.told().await), [1]);
    // The device says nothing: the same message comes again, although the room is silent.
    let seq = node.view(room).await["head"]["seq"].clone();
    let carry = device.told().await;
    assert_eq!((span(&carry), list(&carry, "messages").len()), ((0, 1), 0), "{carry}");
    assert!(carry["seq"].as_u64() <= seq.as_u64(), "{carry} at {seq}");
    assert_eq!(carry["carried"][0]["payload"], 1, "{carry}");
    assert!(carry["skipped"].is_null() && carry["counters"].is_null(), "{carry}");
    // The device acknowledges twice. The silent device beside it is carried the message three times more
    // meanwhile.
    device.ack(room, &epoch, 1).await;
    device.say(&json!({"kind": "ack", "offset": 1})).await;
    device.until_pong().await;
    let _level = careless.told().await;
    for _ in 0..4 {
        assert_eq!(offsets(&careless.told().await), [1]);
    }
    let heard = device.until_pong().await;
    assert!(heard.iter().all(|frame| frame["through"].is_null()), "{heard:?}");
    // The next message is carried alone.
    node.durable(room, &coupon(2)).await;
    assert_eq!(span(&device.told().await), (1, 2));
    let carry = device.told().await;
    assert_eq!((span(&carry), offsets(&carry)), ((1, 2), vec![2]), "{carry}");
}

async fn an_acknowledgement_that_can_not_be_is_ignored_and_counted(place: &Place) {
    let node = place.start();
    for (encoding, before) in Encoding::ALL.into_iter().zip([0, 7]) {
        let room = encoding.subprotocol();
        let mut device = Device::join(&node, room, encoding).await;
        let epoch = device.welcome["epoch"].clone();
        device.ack(room, &epoch, 1).await;
        device.until_pong().await;
        node.durable(room, &coupon(1)).await;
        node.durable(room, &coupon(2)).await;
        while span(&device.told().await).1 < 2 {}
        // Acknowledgements past the head, of another epoch, for a room without this member, and for an
        // unknown room.
        device.ack(room, &epoch, 3).await;
        device.ack(room, &json!("0123456789abcdef"), 2).await;
        device.ack("elsewhere", &epoch, 2).await;
        device.say(&json!({"kind": "ack", "acks": [
            {"room": "elsewhere", "epoch": epoch, "offset": 1}, {"room": room, "epoch": epoch, "offset": 1},
            {"room": room, "epoch": epoch, "offset": 0},
            {"room": room, "epoch": epoch, "offset": 9_007_199_254_740_991_u64},
        ]})).await;
        let ignored = "roomcast_acks_ignored_total";
        node.metrics_when("ignored acks", |metrics| metrics.sum(ignored, &[]) >= before + 7).await;
        assert_eq!(node.metrics().await.sum(ignored, &[]), before + 7);
        // The one good acknowledgement among the others counts: offset 1 is acknowledged, and 2 is not.
        let mut carry = device.told().await;
        while span(&carry) == (0, 2) {
            carry = device.told().await; // On a slow machine it was on its way before the acknowledgement.
        }
        assert_eq!((span(&carry), offsets(&carry)), ((1, 2), vec![2]), "{carry}");
        assert_eq!(node.receipt(room, 1).await["acknowledged"], 1);
        assert_eq!(node.receipt(room, 2).await["pending"], 1);
    }
}

async fn what_follows_a_reliable_message_in_its_request_waits_for_it(place: &Place) {
    let node = place.start();
    let mut devices = both(&node, "r1").await;
    let rounds = 20;
    for round in 0..rounds {
        let at = |n: u64| round * 6 + n;
        let chat = |n: u64| json!({"type": "chat", "payload": at(n)});
        let request = [chat(0), coupon(at(1)), chat(2), chat(3), coupon(at(4)), chat(5)];
        let results = node.publish("r1", &json!({"messages": request})).await;
        assert_eq!(results, ["accepted", "durable", "accepted", "accepted", "durable", "accepted"]);
    }
    for device in &mut devices {
        assert_eq!(device.numbers(rounds * 6).await, (0..rounds * 6).collect::<Vec<_>>());
    }
}

async fn an_id_is_published_once(place: &Place) {
    let node = place.start();
    let mut devices = both(&node, "r1").await;
    let message = json!({"type": "coupon", "payload": 1, "id": "c-1"});
    // At the same time, so that most requests find the first one on its way to the store.
    let door = node.publisher_door();
    let answers = join_all((0..20).map(async |_| door.publish("r1", &message).await)).await;
    let mut results: Vec<String> = answers.iter().flat_map(|answer| answer.results()).collect();
    results.sort();
    assert_eq!(results, [vec!["duplicate"; 19], vec!["durable"]].concat());
    for answer in &answers {
        assert_eq!((answer.status, &answer.json()["results"][0]["offset"]), (200, &json!(1)), "{answer:?}");
    }
    // Within one request, too.
    let request = json!({"messages": [{"type": "coupon", "payload": 2, "id": "c-2"}, message,
        {"type": "coupon", "payload": 2, "id": "c-2"}]});
    let answer = door.publish("r1", &request).await;
    assert_eq!(answer.results(), ["durable", "duplicate", "duplicate"]);
    let offsets: Vec<Value> = list(&answer.json(), "results").iter().map(|it| it["offset"].clone()).collect();
    assert_eq!(offsets, [2, 1, 2]);
    node.chat("r1", 3..4).await;
    for device in &mut devices {
        assert_eq!(device.numbers(3).await, [1, 2, 3]);
    }
    assert_eq!(node.view("r1").await["account"]["coupon"]["accepted"], 2);
}

async fn one_id_for_two_messages_is_refused_with_all_of_its_request(place: &Place) {
    let node = place.start();
    let door = node.publisher_door();
    node.durable("r1", &json!({"type": "coupon", "payload": 1, "id": "c-1"})).await;
    for other in [
        json!({"type": "coupon", "payload": 2, "id": "c-1"}),
        json!({"type": "red_packet", "payload": 1, "id": "c-1"}),
        json!({"type": "chat", "payload": 1, "id": "c-1"}),
    ] {
        door.publish("r1", &other).await.is_problem(409, "id_reused", Some("messages[0].id"));
        let request = json!({"messages": [coupon(9), other]});
        door.publish("r1", &request).await.is_problem(409, "id_reused", Some("messages[1].id"));
    }
    let request = json!({"messages": [{"type": "coupon", "payload": 1, "id": "c-2"},
        {"type": "coupon", "payload": 2, "id": "c-2"}]});
    door.publish("r1", &request).await.is_problem(409, "id_reused", Some("messages[1].id"));
    assert_eq!(node.pull("r1", None).await["offset"], 1);
}

async fn a_receipt_tells_who_has_a_message(place: &Place) {
    let node = place.start();
    let named = |name: &str| Handshake::new(Encoding::Json).query(format!("device={name}"));
    let mut a = Device::join_with(&node, "r1", named("a")).await;
    let b = Device::join_with(&node, "r1", named("b")).await;
    let mut c = Device::join(&node, "r1", Encoding::Proto).await;
    let epoch = a.welcome["epoch"].clone();
    node.view_when("r1", |view| view["members"] == 3).await;
    let message = json!({"type": "coupon", "payload": 1, "id": "c-1", "ttl_ms": 60_000});
    node.durable("r1", &message).await;
    let receipt = node.receipt_of("r1", 1, [3, 0, 0, 3]).await;
    assert_eq!(
        (&receipt["epoch"], &receipt["type"], &receipt["id"]),
        (&epoch, &json!("coupon"), &json!("c-1"))
    );
    let at = receipt["at"].as_u64().unwrap();
    assert_eq!(receipt["expires_at"], at + 60_000, "{receipt}");
    assert_eq!((&receipt["expired"], &receipt["recalled"]), (&json!(false), &json!(false)));
    assert!(receipt["since"].as_u64().unwrap() <= at && receipt["ack_ms"].is_null(), "{receipt}");
    a.told().await;
    a.ack("r1", &epoch, 1).await;
    a.ack("r1", &epoch, 1).await;
    let receipt = node.receipt_of("r1", 1, [3, 1, 0, 2]).await;
    let ack_ms = ["p50", "p99", "max"].map(|figure| receipt["ack_ms"][figure].as_u64().unwrap());
    assert!(ack_ms[0] <= ack_ms[1] && ack_ms[1] <= ack_ms[2], "{receipt}");
    b.close().await;
    node.receipt_of("r1", 1, [3, 1, 1, 1]).await;
    // The device comes back with nothing, and counts as the same device. Then it comes again with the message
    // applied.
    let beginning = Handshake::new(Encoding::Proto).query(format!("device=b&cursor={}", cursor(&epoch, 0)));
    let b = Device::join_with(&node, "r1", beginning).await;
    assert_eq!(offsets(&b.welcome), [1]);
    node.receipt_of("r1", 1, [3, 1, 0, 2]).await;
    b.close().await;
    node.receipt_of("r1", 1, [3, 1, 1, 1]).await;
    let level = Handshake::new(Encoding::Proto).query(format!("device=b&cursor={}", cursor(&epoch, 1)));
    let b = Device::join_with(&node, "r1", level).await;
    assert_eq!(offsets(&b.welcome), [0; 0]);
    node.receipt_of("r1", 1, [3, 2, 0, 1]).await;
    c.told().await;
    c.ack("r1", &epoch, 1).await;
    node.receipt_of("r1", 1, [3, 3, 0, 0]).await;
    // A device that has the message and leaves still has it.
    for device in [a, b, c] {
        device.close().await;
    }
    node.view_when("r1", |view| view["members"] == 0).await;
    node.receipt_of("r1", 1, [3, 3, 0, 0]).await;
}

async fn a_device_that_changes_its_network_counts_once(place: &Place) {
    let node = place.start();
    let phone = || Handshake::new(Encoding::Json).query("device=ph".to_owned());
    let old = Device::join_with(&node, "r1", phone()).await;
    let other = Handshake::new(Encoding::Json).query("device=tv".to_owned());
    let mut other = Device::join_with(&node, "r1", other).await;
    let epoch = old.welcome["epoch"].clone();
    node.view_when("r1", |view| view["members"] == 2).await;
    node.durable("r1", &coupon(1)).await;
    node.receipt_of("r1", 1, [2, 0, 0, 2]).await;
    let cursor = cursor(&epoch, 0);
    let new = Handshake::new(Encoding::Proto).query(format!("device=ph&cursor={cursor}"));
    let mut new = Device::join_with(&node, "r1", new).await;
    let view = node.view_when("r1", |view| view["members"] == 3).await;
    assert_eq!(view["devices"], 2, "{view}");
    new.ack("r1", &epoch, 1).await;
    node.receipt_of("r1", 1, [2, 1, 0, 1]).await;
    old.close().await;
    node.view_when("r1", |view| view["members"] == 2).await;
    other.told().await;
    other.ack("r1", &epoch, 1).await;
    let receipt = node.receipt_of("r1", 1, [2, 2, 0, 0]).await;
    assert_eq!(receipt["devices"], 2, "{receipt}");
}

async fn connections_without_a_name_count_one_by_one(place: &Place) {
    let node = place.start();
    let mut first = Device::join(&node, "r1", Encoding::Json).await;
    let silent = Device::join(&node, "r1", Encoding::Json).await;
    let epoch = first.welcome["epoch"].clone();
    node.view_when("r1", |view| view["members"] == 2).await;
    node.durable("r1", &coupon(1)).await;
    first.told().await;
    first.ack("r1", &epoch, 1).await;
    node.receipt_of("r1", 1, [2, 1, 0, 1]).await;
    silent.close().await;
    first.close().await;
    node.receipt_of("r1", 1, [2, 1, 1, 0]).await;
    // The device that acknowledged comes back, and is not taken for the one that did not.
    let back = Handshake::new(Encoding::Json).query(format!("cursor={}", cursor(&epoch, 1)));
    let back = Device::join_with(&node, "r1", back).await;
    let receipt = node.receipt_of("r1", 1, [2, 1, 1, 0]).await;
    assert_eq!(receipt["devices"], 0, "{receipt}");
    back.close().await;
}

async fn an_ended_stream_begins_another_epoch(place: &Place) {
    let node = place.start();
    let door = node.publisher_door();
    door.delete("/v1/rooms/r1?stream=true").await.is_problem(404, "room_not_open", Some("room"));
    door.delete("/v1/rooms/r1?stream=yes").await.is_problem(400, "bad_query", Some("stream"));
    let mut device = Device::join(&node, "r1", Encoding::Json).await;
    let epoch = device.welcome["epoch"].clone();
    node.durable("r1", &coupon(1)).await;
    device.told().await;
    let answer = door.delete("/v1/rooms/r1?stream=true").await;
    assert_eq!((answer.status, answer.json()), (200, json!({"room": "r1", "members": 1, "shed": 0})));
    assert_eq!(device.notice("closed").await["room"], "r1");
    let back = Handshake::new(Encoding::Json).query(format!("cursor={}", cursor(&epoch, 1)));
    let back = Device::join_with(&node, "r1", back).await;
    assert_eq!((&back.welcome["reset"], span(&back.welcome)), (&json!("epoch_changed"), (0, 0)));
    assert_ne!(back.welcome["epoch"], epoch);
    assert_eq!(node.durable("r1", &coupon(2)).await, 1);
    let page = node.pull("r1", None).await;
    assert_eq!((reliable(&page).len(), &page["offset"]), (1, &json!(1)), "{page}");
}

async fn a_receipt_or_a_recall_of_what_there_is_not_is_refused(place: &Place) {
    let node = place.start();
    let door = node.publisher_door();
    door.get("/v1/rooms/nobody/reliable/1").await.is_problem(404, "room_not_open", Some("room"));
    door.delete("/v1/rooms/nobody/reliable/1").await.is_problem(404, "room_not_open", Some("room"));
    assert_eq!(node.viewer_door().get("/v1/rooms/nobody/reliable").await.status, 404);
    node.durable("r1", &coupon(1)).await;
    for bad in ["0", "-1", "x", "1.5", "9007199254740992", ""] {
        let path = format!("/v1/rooms/r1/reliable/{bad}");
        door.get(&path).await.is_problem(400, "bad_offset", Some("offset"));
        door.delete(&path).await.is_problem(400, "bad_offset", Some("offset"));
    }
    for path in ["/v1/rooms/r1/reliable/2", "/v1/rooms/r1/reliable/9007199254740991"] {
        door.get(path).await.is_problem(404, "offset_unknown", Some("offset"));
        door.delete(path).await.is_problem(404, "offset_unknown", Some("offset"));
    }
}

async fn a_recall_reaches_every_device_and_takes_its_message_out(place: &Place) {
    let node = place.start();
    let mut devices = both(&node, "r1").await;
    let epoch = devices[0].welcome["epoch"].clone();
    for n in 1..=3 {
        node.durable("r1", &coupon(n)).await;
    }
    let door = node.publisher_door();
    let recalls = join_all((0..5).map(async |_| door.delete("/v1/rooms/r1/reliable/2").await)).await;
    for answer in recalls {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json(), json!({"room": "r1", "offset": 4, "recalls": 2}));
    }
    for device in &mut devices {
        let mut heard = Vec::new();
        while heard.last().is_none_or(|last: &Value| last["offset"] != 4) {
            heard.extend(reliable(&device.told().await));
        }
        let recall = heard.last().unwrap();
        assert_eq!((&recall["recall"], &recall["type"]), (&json!(2), &json!("coupon")), "{recall}");
        assert_eq!(recall.get("payload"), Some(&Value::Null), "{recall}");
        // Never acknowledged, and carried without the recalled message.
        let carry = loop {
            let carry = device.told().await;
            assert!(!offsets(&carry).contains(&2), "{carry}");
            if span(&carry) == (0, 4) {
                break carry;
            }
        };
        assert_eq!(offsets(&carry), [1, 3, 4], "{carry}");
    }
    let newcomer = Device::join(&node, "r1", Encoding::Json).await;
    assert_eq!((span(&newcomer.welcome), offsets(&newcomer.welcome)), ((0, 4), vec![1, 3, 4]));
    let page = node.pull("r1", Some(&cursor(&epoch, 1))).await;
    assert_eq!((span(&page), offsets(&page)), ((1, 4), vec![3, 4]), "{page}");
    let receipt = node.receipt("r1", 2).await;
    assert_eq!((&receipt["recalled"], &receipt["recalled_by"]), (&json!(true), &json!(4)), "{receipt}");
    door.delete("/v1/rooms/r1/reliable/4").await.is_problem(409, "not_alive", Some("offset"));
}

async fn what_has_expired_is_a_hole(place: &Place) {
    let node = place.start();
    let mut device = Device::join(&node, "r1", Encoding::Json).await;
    let epoch = device.welcome["epoch"].clone();
    let brief = |n: u64| json!({"type": "coupon", "payload": n, "ttl_ms": 1000});
    for message in [coupon(1), brief(2), coupon(3), brief(4)] {
        node.durable("r1", &message).await;
    }
    let mut through = 0;
    while through < 4 {
        through = span(&device.told().await).1;
    }
    until("the expiry", async || {
        let page = node.pull("r1", None).await;
        assert_eq!(span(&page), (0, 4), "{page}");
        (offsets(&page) == [1, 3]).then_some(())
    })
    .await;
    for encoding in Encoding::ALL {
        let newcomer = Device::join(&node, "r1", encoding).await;
        assert_eq!((span(&newcomer.welcome), offsets(&newcomer.welcome)), ((0, 4), vec![1, 3]));
        assert_eq!(newcomer.welcome["reset"], Value::Null);
    }
    // A cursor at an expired message, and a cursor before one, are honoured.
    let page = node.pull("r1", Some(&cursor(&epoch, 3))).await;
    assert_eq!((span(&page), offsets(&page), &page["reset"]), ((3, 4), vec![], &Value::Null), "{page}");
    let receipt = node.receipt("r1", 2).await;
    assert_eq!((&receipt["expired"], &receipt["recalled"]), (&json!(true), &json!(false)), "{receipt}");
    node.publisher_door().delete("/v1/rooms/r1/reliable/2").await.is_problem(
        409,
        "not_alive",
        Some("offset"),
    );
    // The silent device is carried the expired message no more; earlier frames may still be on their way.
    let mut carry = device.told().await;
    while span(&carry) != (0, 4) || offsets(&carry) != [1, 3] {
        carry = device.told().await;
        assert!(list(&carry, "messages").is_empty(), "{carry}");
    }
}

async fn a_newcomer_is_told_everything_that_is_alive(place: &Place) {
    let node = place.start();
    for n in 1..=100 {
        node.durable("r1", &json!({"type": "coupon", "payload": n, "id": format!("c-{n}")})).await;
    }
    all_sent(&node, "r1", 100).await;
    for encoding in Encoding::ALL {
        let device = Device::join(&node, "r1", encoding).await;
        let welcome = &device.welcome;
        assert_eq!((span(welcome).0, &welcome["offset"], &welcome["reset"]), (0, &json!(100), &Value::Null));
        let mut device = device;
        let mut told = reliable(&device.welcome.clone());
        while told.len() < 100 {
            told.extend(reliable(&device.told().await));
        }
        for (n, message) in (1..).zip(&told) {
            let offset = &message["offset"];
            let payload = &message["payload"];
            assert_eq!((offset, payload), (&json!(n), &json!(n)), "{message}");
            assert_eq!(message["id"], format!("c-{n}"));
        }
    }
}

async fn pages_of_the_pull_side_join_up(place: &Place) {
    let node = place.start();
    let count = 80;
    let bytes = 12_000;
    assert!(count * bytes > PULL_BYTES_MAX, "more than one page");
    fill(&node, "r1", count, bytes).await;
    all_sent(&node, "r1", 80).await;
    let mut page = node.pull("r1", None).await;
    let epoch = page["epoch"].clone();
    let mut told = offsets(&page);
    let mut pages = 1;
    assert!(told.len() < count, "{}", told.len());
    while page["through"] != page["offset"] {
        let through = span(&page).1;
        page = node.pull("r1", Some(&cursor(&epoch, through))).await;
        assert_eq!(span(&page).0, through, "{page}");
        told.extend(offsets(&page));
        pages += 1;
    }
    assert_eq!(told, (1..=80).collect::<Vec<_>>());
    assert!(pages > 1);
    // For a page of a listed origin, and not for a stranger's.
    let get = async |method, origin| {
        let headers = [("origin", origin)];
        node.viewer_door().request(method, "/v1/rooms/r1/reliable", &headers, b"").await
    };
    let allowed = get("GET", "http://localhost:3000").await;
    assert_eq!(allowed.header("access-control-allow-origin"), Some("http://localhost:3000"));
    assert_eq!(get("OPTIONS", "http://localhost:3000").await.status, 204);
    let refused = get("GET", "https://elsewhere.example").await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (403, None), "{refused:?}");
    for bad in ["x", "0123456789abcdef", "0123456789abcdef:", "0123456789abcde:1", ":1"] {
        let answer = node.viewer_door().get(&format!("/v1/rooms/r1/reliable?after={bad}")).await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("bad_query")), "{bad}: {answer:?}");
    }
}

async fn a_newcomer_who_lacks_much_catches_up_while_chat_goes_on(place: &Place) {
    let node = place.start();
    let count = 60;
    let bytes = 10_000;
    assert!(count * bytes > 2 * WELCOME_RELIABLE_BYTES_MAX, "several frames");
    for encoding in Encoding::ALL {
        let room = encoding.subprotocol();
        fill(&node, room, count, bytes).await;
        all_sent(&node, room, 60).await;
        let mut device = Device::join(&node, room, encoding).await;
        let mut cursor = span(&device.welcome).1;
        let mut told = offsets(&device.welcome);
        assert!(told.len() < count, "a welcome brings {}", told.len());
        let chatting = async {
            for n in 0..50 {
                node.chat(room, n..n + 1).await;
            }
        };
        let catching_up = async {
            let mut frames = 0;
            while told.len() < count {
                let frame = device.told().await;
                let (after, through) = span(&frame);
                assert!(after <= cursor, "at {cursor}: {after} to {through}");
                if through <= cursor {
                    continue; // On a slow machine something is carried meanwhile.
                }
                told.extend(offsets(&frame).into_iter().filter(|offset| *offset > cursor));
                cursor = through;
                frames += 1;
            }
            frames
        };
        let ((), frames) = tokio::join!(chatting, catching_up);
        assert!(frames > 1, "it came in {frames}");
        assert_eq!(told, (1..=60).collect::<Vec<_>>());
        let epoch = device.welcome["epoch"].clone();
        device.ack(room, &epoch, 60).await;
        device.until_pong().await;
        // The device is level: further messages come with the others' batch, and the chat before it is behind
        // it.
        assert_eq!(node.durable(room, &coupon("last")).await, 61);
        let last = device.told().await;
        assert_eq!((span(&last), published(&last)[0]["offset"].as_u64()), ((60, 61), Some(61)), "{last}");
        assert!(list(&last, "carried").is_empty(), "{last}");
    }
}

async fn a_device_that_was_behind_gets_reliable_messages_with_its_refresh(place: &Place) {
    let node = place.start();
    for encoding in Encoding::ALL {
        let room = encoding.subprotocol();
        let slow = Handshake { receive_buffer_bytes: Some(4096), ..Handshake::new(encoding) };
        let mut device = Device::join_with(&node, room, slow).await;
        let epoch = device.welcome["epoch"].clone();
        let behind = async |node: &Node| node.metrics().await.sum("roomcast_connections_behind", &[]) > 0;
        let mut sent = 0;
        while !behind(&node).await {
            node.publish(room, &json!({"type": "chat", "payload": "x".repeat(12_000)})).await;
            sent += 1;
        }
        for n in 1..=3 {
            node.durable(room, &coupon(n)).await;
        }
        let mut chats = 0;
        let mut skipped = 0;
        let mut told = Vec::new();
        while told.len() < 3 || chats + skipped < sent {
            let frame = device.frame().await;
            chats += published(&frame).iter().filter(|message| message["type"] == "chat").count();
            skipped += usize::try_from(frame["skipped"]["chat"].as_u64().unwrap_or(0)).unwrap();
            if let Some(through) = frame["through"].as_u64() {
                let after = u64::try_from(told.len()).unwrap();
                assert!(frame["after"].as_u64() <= Some(after), "{frame}");
                told.extend(offsets(&frame).into_iter().filter(|offset| *offset > after));
                device.ack(room, &epoch, through).await;
            }
        }
        assert_eq!((told, chats + skipped), (vec![1, 2, 3], sent));
        assert!(skipped > 0, "it was behind");
        node.receipt_of(room, 3, [1, 1, 0, 0]).await;
        device.close().await;
        node.metrics_when("nobody behind", |metrics| metrics.sum("roomcast_connections_behind", &[]) == 0)
            .await;
    }
}

async fn a_full_stream_refuses_and_takes_the_rest(place: &Place) {
    let node = place.start();
    let door = node.publisher_door();
    fill(&node, "r1", STREAM_MESSAGES_MAX, 10).await;
    let refused = door.publish("r1", &coupon("one too many")).await;
    refused.is_problem(503, "stream_full", None);
    assert_eq!(refused.results(), ["unavailable: stream_full"]);
    let request = json!({"messages": [coupon(1), {"type": "chat", "payload": 1}]});
    assert_eq!(node.publish("r1", &request).await, ["unavailable: stream_full", "accepted"]);
    let recalled = door.delete("/v1/rooms/r1/reliable/7").await;
    assert_eq!(recalled.status, 200, "room can always be made: {recalled:?}");
    assert_eq!(node.publish("r1", &coupon(1)).await, ["durable"], "in the place of the recalled one");
    door.publish("r1", &coupon(1)).await.is_problem(503, "stream_full", None);
    // Bytes have a bound as well.
    let count = 8 * 1024 / 16;
    let bytes = 16_000;
    fill(&node, "r2", count, bytes).await;
    let mut more = 0;
    while node.publisher_door().publish("r2", &coupon("x".repeat(bytes))).await.status == 200 {
        more += 1;
        assert!(more < 30, "8 MiB are full by now");
    }
    assert_eq!(node.view("r2").await["head"]["offset"], count + more);
}

async fn what_is_never_old_has_no_life_of_its_own(place: &Place) {
    let node = place.start();
    let door = node.publisher_door();
    for type_name in ["like", "online"] {
        let message = json!({"type": type_name, "payload": 1, "ttl_ms": 2000});
        let answer = door.publish("r1", &message).await;
        answer.is_problem(400, "bad_value", Some("ttl_ms"));
    }
    // The bound on the wait of these messages.
    for type_name in ["chat", "enter", "unheard-of"] {
        let message = json!({"type": type_name, "payload": 1, "ttl_ms": 2000});
        assert_eq!(node.publish("r1", &message).await, ["accepted"], "{type_name}");
    }
    for bad in [json!(999), json!(604_800_001), json!(0), json!(-1), json!("2000"), json!(1000.5)] {
        let answer = door.publish("r1", &json!({"type": "coupon", "payload": 1, "ttl_ms": bad})).await;
        answer.is_problem(400, "bad_value", Some("ttl_ms"));
    }
    for good in [1000, 604_800_000] {
        node.durable("r1", &json!({"type": "coupon", "payload": 1, "ttl_ms": good})).await;
    }
    assert_eq!(node.receipt("r1", 2).await["type"], "coupon");
}
