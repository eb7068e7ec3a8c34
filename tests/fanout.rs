//! From a publish to the devices: order, batches, merges, counters, welcomes, rooms joined and left, and
//! rooms that close.
#![expect(clippy::unwrap_used, reason = "clippy sees only #[test] functions as tests, and these serve them")]

mod support;

use std::collections::BTreeSet;

use futures_util::future::join_all;
use roomcast_core::limits::{HISTORY_MESSAGES_MAX, ROOMS_PER_CONNECTION_MAX, WELCOME_FIRST_BYTES_MAX};
use serde_json::{Value, json};
use support::device::{list, offsets, published};
use support::{Device, Doors, Encoding, Handshake, Heard, Node, one_and_four_shards};

one_and_four_shards!(
    every_device_hears_the_same_in_the_same_order_in_both_encodings,
    messages_published_together_arrive_in_one_batch,
    messages_gather_until_the_window_of_the_first_is_over,
    the_remainder_leads_the_next_batch,
    a_batch_is_cut_by_its_bytes,
    a_small_room_does_not_wait,
    an_urgent_message_takes_those_that_wait_along,
    the_newest_value_of_a_key_takes_the_place_of_the_waiting_one,
    counters_tell_what_was_added_and_the_exact_total,
    payloads_arrive_as_they_were_published,
    a_welcome_tells_the_history_the_latest_values_and_the_totals,
    latest_values_without_room_in_a_welcome_follow,
    seen_trims_the_history_to_what_is_newer,
    history_is_pulled_from_where_a_reader_left_off,
    a_history_keeps_its_newest_messages,
    the_audience_is_told,
    one_connection_hears_many_rooms_wherever_they_live,
    joins_and_leaves_that_make_no_sense_are_answered,
    a_closed_room_is_told_and_ends_connections_that_have_no_other,
    what_is_still_gathered_when_its_room_closes_reaches_its_members_first,
    devices_that_come_and_go_miss_nothing_while_they_are_there,
    a_ping_is_answered,
);

/// Settings with which no room flushes before its window is over, however small the room.
fn gathering(window_ms: u64) -> Value {
    json!({"flush": {"direct_members": 0, "gather_ms": window_ms}})
}

async fn both(doors: &Doors, room: &str) -> [Device; 2] {
    [Device::join(doors, room, Encoding::Json).await, Device::join(doors, room, Encoding::Proto).await]
}

async fn every_device_hears_the_same_in_the_same_order_in_both_encodings(shards: usize) {
    let node = Node::start(shards);
    node.configure("r1", &gathering(5)).await;
    let mut devices = Vec::new();
    for _ in 0..20 {
        devices.extend(both(&node, "r1").await);
    }
    let messages = 500;
    let publishing = async {
        for n in (0..messages).step_by(10) {
            node.chat("r1", n..n + 10).await;
        }
    };
    let hearing = join_all(devices.iter_mut().map(async |device| {
        let mut batches = Vec::new();
        let mut heard = 0;
        while heard < messages {
            let batch = device.batch().await;
            heard += list(&batch, "messages").len() as u64;
            batches.push(batch);
        }
        batches
    }));
    let ((), heard) = tokio::join!(publishing, hearing);
    let messages_of = |batches: &[Value]| -> Vec<Value> {
        batches.iter().flat_map(|batch| list(batch, "messages")).collect()
    };
    let numbers: Vec<u64> =
        messages_of(&heard[0]).iter().map(|message| message["payload"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..messages).collect::<Vec<_>>());
    for other in &heard[1..] {
        assert_eq!(other, &heard[0], "the same batches with the same seqs, whatever the encoding");
    }
}

async fn messages_published_together_arrive_in_one_batch(shards: usize) {
    let node = Node::start(shards);
    node.configure("r1", &gathering(50)).await;
    let mut devices = both(&node, "r1").await;
    node.chat("r1", 0..60).await;
    for device in &mut devices {
        assert_eq!(list(&device.batch().await, "messages").len(), 60);
    }
}

async fn messages_gather_until_the_window_of_the_first_is_over(shards: usize) {
    let node = Node::start(shards);
    node.configure("r1", &gathering(1500)).await;
    let mut device = Device::join(&node, "r1", Encoding::Json).await;
    for n in 0..10 {
        node.chat("r1", n..n + 1).await;
    }
    let backlog = node.view("r1").await["backlog"]["gathered"].as_u64().unwrap();
    assert!(backlog >= 10, "{backlog} of ten requests wait together");
    assert_eq!(list(&device.batch().await, "messages").len(), 10);
}

async fn the_remainder_leads_the_next_batch(shards: usize) {
    let node = Node::start(shards);
    node.configure("r1", &json!({"flush": {"direct_members": 0, "gather_ms": 400, "max_messages": 7}})).await;
    let mut device = Device::join(&node, "r1", Encoding::Proto).await;
    node.chat("r1", 0..16).await;
    let sizes_and_first = |batch: &Value| {
        let messages = list(batch, "messages");
        (messages.len(), messages[0]["payload"].as_u64().unwrap())
    };
    let mut batches = Vec::new();
    for _ in 0..3 {
        batches.push(device.batch().await);
    }
    let cut: Vec<_> = batches.iter().map(sizes_and_first).collect();
    assert_eq!(cut, [(7, 0), (7, 7), (2, 14)]);
}

async fn a_batch_is_cut_by_its_bytes(shards: usize) {
    let node = Node::start(shards);
    node.configure("r1", &json!({"flush": {"direct_members": 0, "gather_ms": 20, "max_bytes": 4096}})).await;
    let mut device = Device::join(&node, "r1", Encoding::Json).await;
    let messages = vec![json!({"type": "chat", "payload": "x".repeat(1000)}); 10];
    node.publish("r1", &json!({ "messages": messages })).await;
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < 10 {
        sizes.push(list(&device.batch().await, "messages").len());
    }
    assert_eq!(sizes, [3, 3, 3, 1]);
    // One message that is larger than a batch still leaves.
    node.publish("r1", &json!({"type": "chat", "payload": "x".repeat(9000)})).await;
    assert_eq!(list(&device.batch().await, "messages").len(), 1);
}

async fn a_small_room_does_not_wait(shards: usize) {
    let node = Node::start(shards);
    node.configure("r1", &json!({"flush": {"gather_ms": 10_000, "direct_members": 2}})).await;
    let mut devices = both(&node, "r1").await;
    for n in 0..20 {
        node.chat("r1", n..n + 1).await;
        for device in &mut devices {
            assert_eq!(device.numbers(1).await, [n]);
        }
    }
    // With a third member the room gathers: the window holds the message back, not a device.
    let third = Device::join(&node, "r1", Encoding::Json).await;
    node.chat("r1", 20..21).await;
    assert_eq!(node.view("r1").await["window_ms"], 10_000);
    third.close().await;
    assert_eq!(devices[0].numbers(1).await, [20]);
}

async fn an_urgent_message_takes_those_that_wait_along(shards: usize) {
    let keys = [("TYPES__ALERT__CLASS", "normal"), ("TYPES__ALERT__URGENT", "true")];
    let node = Node::with(shards, &keys);
    node.configure("r1", &gathering(10_000)).await;
    let mut devices = both(&node, "r1").await;
    node.chat("r1", 0..3).await;
    node.publish("r1", &json!({"type": "alert", "payload": 3})).await;
    // A burst of urgent messages waits for its spacing, and no longer.
    node.publish("r1", &json!({"messages": vec![json!({"type": "alert", "payload": 4}); 3]})).await;
    for device in &mut devices {
        assert_eq!(device.numbers(7).await, [0, 1, 2, 3, 4, 4, 4]);
    }
}

async fn the_newest_value_of_a_key_takes_the_place_of_the_waiting_one(shards: usize) {
    let node = Node::with(shards, &[("TYPES__PRICE__CLASS", "latest")]);
    node.configure("r1", &gathering(500)).await;
    let mut devices = both(&node, "r1").await;
    let price = |key: &str, amount: u64| json!({"type": "price", "payload": amount, "key": key});
    let chat = json!({"type": "chat", "payload": 0});
    let request = json!({"messages": [price("a", 1), chat, price("b", 1), price("a", 2)]});
    assert_eq!(node.publish("r1", &request).await, ["accepted", "accepted", "accepted", "merged"]);
    assert_eq!(node.publish("r1", &price("a", 3)).await, ["merged"]);
    // Without a key, the type is the key.
    assert_eq!(node.publish("r1", &json!({"type": "price", "payload": 7})).await, ["accepted"]);
    assert_eq!(node.publish("r1", &price("price", 8)).await, ["merged"]);
    for device in &mut devices {
        let batch = device.batch().await;
        let values: Vec<(String, u64)> = list(&batch, "messages")
            .iter()
            .map(|it| (it["key"].as_str().unwrap_or("chat").to_owned(), it["payload"].as_u64().unwrap()))
            .collect();
        let told = [("a", 3), ("chat", 0), ("b", 1), ("price", 8)].map(|(key, it)| (key.to_owned(), it));
        assert_eq!(values, told);
        assert_eq!(batch["merged"], json!({"price": 3}));
    }
}

async fn counters_tell_what_was_added_and_the_exact_total(shards: usize) {
    let node = Node::with(shards, &[("TYPES__CLAP__CLASS", "counter")]);
    node.configure("r1", &gathering(300)).await;
    let mut devices = both(&node, "r1").await;
    let like = |count: u64| json!({"type": "like", "count": count});
    node.publish("r1", &json!({"messages": [like(5), {"type": "clap"}, like(7), like(1)]})).await;
    for device in &mut devices {
        let batch = device.batch().await;
        assert_eq!(
            batch["counters"],
            json!({"like": {"add": 13, "total": 13}, "clap": {"add": 1, "total": 1}})
        );
    }
    node.publish("r1", &like(2)).await;
    for device in &mut devices {
        assert_eq!(device.batch().await["counters"], json!({"like": {"add": 2, "total": 15}}));
    }
}

async fn payloads_arrive_as_they_were_published(shards: usize) {
    let node = Node::start(shards);
    let mut devices = both(&node, "r1").await;
    let payloads = [
        json!(null),
        json!("quotes \" and \\ and \u{2028} and 🎁"),
        json!({"nested": [1, 2.5, {"a": []}], "large": 9_007_199_254_740_991_u64}),
        json!(-0.125),
    ];
    let mut messages: Vec<Value> =
        payloads.iter().map(|payload| json!({"type": "chat", "payload": payload})).collect();
    messages.push(json!({"type": "gift", "payload_b64": "AAH/", "id": "i\"1", "key": "k\\"}));
    node.publish("r1", &json!({ "messages": messages })).await;
    for device in &mut devices {
        let heard = device.messages(5).await;
        for (message, payload) in heard.iter().zip(&payloads) {
            assert_eq!(&message["payload"], payload);
            assert!(message["at"].as_u64().unwrap() > 1_600_000_000_000, "{message}");
        }
        let gift = &heard[4];
        assert_eq!(
            (&gift["payload_b64"], &gift["id"], &gift["key"]),
            (&json!("AAH/"), &json!("i\"1"), &json!("k\\"))
        );
    }
}

async fn a_welcome_tells_the_history_the_latest_values_and_the_totals(shards: usize) {
    let node = Node::with(shards, &[("TYPES__PRICE__CLASS", "latest")]);
    let mut first = Device::join(&node, "r1", Encoding::Json).await;
    assert_eq!((&first.welcome["seq"], &first.welcome["history"]), (&json!(0), &json!([])));
    assert_eq!(first.welcome["heartbeat_ms"], 25_000);
    let request = json!({"messages": [
        {"type": "chat", "payload": "one", "id": "c1"}, {"type": "enter", "payload": "gone"},
        {"type": "price", "payload": 3, "key": "a"}, {"type": "like", "count": 4},
        {"type": "price", "payload": 5, "key": "b"}, {"type": "gift", "payload": "two"},
    ]});
    node.publish("r1", &request).await;
    let batch = first.batch().await;
    let history = |welcome: &Value| -> Vec<(Value, Value)> {
        list(welcome, "history").iter().map(|it| (it["payload"].clone(), it["seq"].clone())).collect()
    };
    for device in both(&node, "r1").await {
        let welcome = &device.welcome;
        assert_eq!(welcome["run"], batch["run"]);
        assert!(welcome["seq"].as_u64() >= batch["seq"].as_u64());
        // Lossy messages, latest values and counters are no history.
        let told = [("one", &batch["seq"]), ("two", &batch["seq"])].map(|(it, seq)| (json!(it), seq.clone()));
        assert_eq!(history(welcome), told);
        assert_eq!(welcome["history"][0]["id"], "c1");
        let latest = list(welcome, "latest").into_iter().filter(|it| it["type"] == "price");
        let latest: Vec<Value> = latest.map(|it| it["payload"].clone()).collect();
        assert_eq!(latest, [json!(3), json!(5)]);
        assert_eq!(welcome["counters"], json!({"like": 4}));
        assert_eq!((&welcome["resumed"], &welcome["reset"]), (&json!(false), &Value::Null));
    }
}

async fn latest_values_without_room_in_a_welcome_follow(shards: usize) {
    let node = Node::with(shards, &[("TYPES__PRICE__CLASS", "latest")]);
    let price = |key: usize| json!({"type": "price", "key": format!("k{key}"), "payload": "a".repeat(2048)});
    for key in 0..64 {
        node.publish("r1", &price(key)).await;
    }
    for encoding in [Encoding::Json, Encoding::Proto] {
        let mut device = Device::join(&node, "r1", encoding).await;
        assert!(device.welcome.to_string().len() <= WELCOME_FIRST_BYTES_MAX);
        let mut held = BTreeSet::new();
        let mut told = list(&device.welcome, "latest");
        loop {
            let prices = told.iter().filter(|it| it["type"] == "price");
            held.extend(prices.map(|it| it["key"].as_str().expect("a key").to_owned()));
            if held.len() == 64 {
                break;
            }
            let frame = device.batch().await;
            told = [list(&frame, "latest"), published(&frame)].concat();
        }
        // A reliable message: chat may be skipped while the last refresh is under way, and is told as skipped then.
        let offset = node.durable("r1", &json!({"type": "coupon", "payload": 1})).await;
        while !offsets(&device.told().await).contains(&offset) {}
    }
}

async fn seen_trims_the_history_to_what_is_newer(shards: usize) {
    let node = Node::start(shards);
    let mut first = Device::join(&node, "r1", Encoding::Json).await;
    let mut seqs = Vec::new();
    for n in 0..3 {
        node.chat("r1", n..n + 1).await;
        seqs.push(first.batch().await["seq"].as_u64().unwrap());
    }
    let run = first.welcome["run"].as_str().unwrap().to_owned();
    let other_run = format!("{:016x}", u64::from_str_radix(&run, 16).unwrap() ^ 1);
    for (seen, payloads, resumed) in [
        (format!("{run}:{}", seqs[0]), vec![1, 2], true),
        (format!("{run}:{}", seqs[2]), vec![], true),
        (format!("{run}:0"), vec![0, 1, 2], true),
        (format!("{run}:99999"), vec![0, 1, 2], false),
        (format!("{other_run}:{}", seqs[1]), vec![0, 1, 2], false),
    ] {
        for encoding in Encoding::ALL {
            let handshake = Handshake::new(encoding).query(format!("seen={seen}"));
            let device = Device::join_with(&node, "r1", handshake).await;
            let history = list(&device.welcome, "history");
            let history: Vec<u64> = history.iter().map(|it| it["payload"].as_u64().unwrap()).collect();
            assert_eq!((&history, &device.welcome["resumed"]), (&payloads, &json!(resumed)), "{seen}");
        }
    }
    // No stream exists yet for a cursor to name.
    let handshake = Handshake::new(Encoding::Json).query("cursor=00000000000000ff:7");
    assert_eq!(Device::join_with(&node, "r1", handshake).await.welcome["reset"], "epoch_changed");
    let handshake = Handshake::new(Encoding::Proto).query("cursor=00000000000000ff:0");
    assert_eq!(Device::join_with(&node, "r1", handshake).await.welcome["reset"], Value::Null);
}

async fn history_is_pulled_from_where_a_reader_left_off(shards: usize) {
    let node = Node::start(shards);
    let mut device = Device::join(&node, "r1", Encoding::Json).await;
    let mut seqs = Vec::new();
    for n in 0..4 {
        node.chat("r1", n..n + 1).await;
        seqs.push(device.batch().await["seq"].as_u64().unwrap());
    }
    let run = device.welcome["run"].as_str().unwrap();
    let door = node.viewer_door();
    for (query, payloads, resumed) in [
        (String::new(), vec![0, 1, 2, 3], false),
        (format!("?after={run}:{}", seqs[1]), vec![2, 3], true),
        (format!("?after={run}:{}&limit=1", seqs[0]), vec![3], false),
        ("?limit=2".to_owned(), vec![2, 3], false),
    ] {
        let answer = door.get(&format!("/v1/rooms/r1/history{query}")).await;
        assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
        let page = answer.json();
        let history = list(&page, "history");
        let told: Vec<u64> = history.iter().map(|it| it["payload"].as_u64().unwrap()).collect();
        assert_eq!((&told, &page["resumed"]), (&payloads, &json!(resumed)), "{query}");
        assert_eq!((page["run"].as_str(), page["room"].as_str()), (Some(run), Some("r1")));
    }
    for (query, field) in [("after=7", "after"), ("limit=0", "limit"), ("limit=201", "limit")] {
        let answer = door.get(&format!("/v1/rooms/r1/history?{query}")).await;
        answer.is_problem(400, "bad_query", Some(field));
    }
    door.get("/v1/rooms/never/history").await.is_problem(404, "room_not_open", Some("room"));
    door.get("/v1/rooms/r1/reliable?after=7").await.is_problem(400, "bad_query", Some("after"));
}

async fn a_history_keeps_its_newest_messages(shards: usize) {
    let node = Node::start(shards);
    let mut device = Device::join(&node, "r1", Encoding::Proto).await;
    let most = HISTORY_MESSAGES_MAX as u64;
    node.chat("r1", 0..most + 50).await;
    assert_eq!(device.numbers(most + 50).await.len() as u64, most + 50);
    let handshake =
        Handshake::new(Encoding::Proto).query(format!("seen={}:0", device.welcome["run"].as_str().unwrap()));
    let welcome = Device::join_with(&node, "r1", handshake).await.welcome;
    let history: Vec<u64> =
        list(&welcome, "history").iter().map(|it| it["payload"].as_u64().unwrap()).collect();
    assert_eq!(history, (50..most + 50).collect::<Vec<_>>());
    assert_eq!(welcome["resumed"], false, "what has gone from the history is not told as resumed");
}

async fn the_audience_is_told(shards: usize) {
    let node = Node::start(shards);
    let mut device = Device::join(&node, "r1", Encoding::Json).await;
    let others = both(&node, "r1").await;
    let told = async |device: &mut Device| loop {
        let frame = device.frame().await;
        let online = list(&frame, "messages").into_iter().find(|it| it["type"] == "online");
        if let Some(online) = online {
            return online["payload"].as_u64().unwrap();
        }
    };
    while told(&mut device).await != 3 {}
    let welcome = Device::join(&node, "r1", Encoding::Proto).await.welcome;
    assert_eq!(welcome["latest"][0]["payload"], 3, "{welcome}");
    for other in others {
        other.close().await;
    }
    while told(&mut device).await != 1 {}
}

async fn one_connection_hears_many_rooms_wherever_they_live(shards: usize) {
    let node = Node::start(shards);
    let rooms = node.rooms_apart("far", 4, shards).await;
    for encoding in Encoding::ALL {
        let mut device = Device::join(&node, &rooms[0], encoding).await;
        for room in &rooms[1..] {
            let welcome = device.join_further(room).await;
            assert_eq!(welcome["resumed"], false);
        }
        // Each room keeps its own order and its own seqs, and nothing crosses over.
        for n in 0..10 {
            for room in &rooms {
                node.publish(room, &json!({"type": "chat", "payload": [room, n]})).await;
            }
        }
        let mut next = std::collections::BTreeMap::<String, u64>::new();
        let mut heard = 0;
        while heard < 10 * rooms.len() {
            let frame = device.frame().await;
            assert_eq!(frame["kind"], "batch");
            for message in published(&frame) {
                let room = frame["room"].as_str().unwrap();
                let n = next.entry(room.to_owned()).or_default();
                assert_eq!(message["payload"], json!([room, *n]));
                *n += 1;
                heard += 1;
            }
        }
        device.leave(&rooms[1]).await;
        node.publish(&rooms[1], &json!({"type": "chat", "payload": "unheard"})).await;
        node.publish(&rooms[2], &json!({"type": "chat", "payload": "heard"})).await;
        assert_eq!(device.messages(1).await[0]["payload"], "heard");
        // The device may come back, and stays in its other room meanwhile.
        node.view_when(&rooms[1], |view| view["backlog"]["gathered"] == 0).await;
        let welcome = device.join_further(&rooms[1]).await;
        assert_eq!(list(&welcome, "history").last().unwrap()["payload"], "unheard");
        device.close().await;
    }
    for room in &rooms {
        node.view_when(room, |view| view["members"] == 0 && view["shards"] == json!([])).await;
    }
}

async fn joins_and_leaves_that_make_no_sense_are_answered(shards: usize) {
    let node = Node::start(shards);
    for encoding in Encoding::ALL {
        let mut device = Device::join(&node, "r0", encoding).await;
        let mut says = async |kind: &str, room: &str| {
            device.say(&json!({"kind": kind, "room": room})).await;
            let error = device.notice("error").await;
            (error["code"].as_str().unwrap().to_owned(), error["field"].clone())
        };
        assert_eq!(says("join", "r0").await, ("already_joined".to_owned(), json!("room")));
        assert_eq!(says("leave", "never").await, ("not_joined".to_owned(), json!("room")));
        assert_eq!(says("join", "a/b").await, ("bad_room".to_owned(), json!("room")));
        for n in 1..ROOMS_PER_CONNECTION_MAX {
            device.join_further(&format!("r{n}")).await;
        }
        device.say(&json!({"kind": "join", "room": "one-too-many"})).await;
        let error = device.notice("error").await;
        assert_eq!((&error["code"], &error["room"]), (&json!("too_many_rooms"), &json!("one-too-many")));
        // The connection lives, and a place that was given back can be taken.
        device.leave("r3").await;
        device.join_further("one-too-many").await;
    }
}

async fn a_closed_room_is_told_and_ends_connections_that_have_no_other(shards: usize) {
    let node = Node::start(shards);
    let rooms = node.rooms_apart("ends", 2, shards).await;
    let mut alone = both(&node, &rooms[0]).await;
    let mut elsewhere = Device::join(&node, &rooms[1], Encoding::Json).await;
    elsewhere.join_further(&rooms[0]).await;
    let answer = node.publisher_door().delete(&format!("/v1/rooms/{}", rooms[0])).await;
    assert_eq!((answer.status, &answer.json()["members"]), (200, &json!(3)));
    for device in &mut alone {
        let closed = device.notice("closed").await;
        assert_eq!((&closed["room"], &closed["code"]), (&json!(rooms[0]), &json!("room_closed")));
        assert_eq!(device.end().await, Heard::Closed(4003));
    }
    assert_eq!(elsewhere.notice("closed").await["room"], rooms[0]);
    node.chat(&rooms[1], 0..1).await;
    assert_eq!(elsewhere.numbers(1).await, [0]);
    // The name is free for another life of the room.
    let welcome = elsewhere.join_further(&rooms[0]).await;
    assert_eq!((&welcome["seq"], &welcome["history"]), (&json!(0), &json!([])));
    node.metrics_when("closes counted", |metrics| metrics.closed("room_closed") == 2).await;
}

async fn what_is_still_gathered_when_its_room_closes_reaches_its_members_first(shards: usize) {
    let node = Node::start(shards);
    node.configure("r1", &gathering(10_000)).await;
    let mut device = Device::join(&node, "r1", Encoding::Json).await;
    node.chat("r1", 0..90).await;
    let answer = node.publisher_door().delete("/v1/rooms/r1").await;
    assert_eq!((answer.status, &answer.json()["shed"]), (200, &json!(0)), "{answer:?}");
    assert_eq!(device.numbers(90).await, (0..90).collect::<Vec<_>>());
    assert_eq!(device.notice("closed").await["room"], "r1");
}

async fn devices_that_come_and_go_miss_nothing_while_they_are_there(shards: usize) {
    const STAYING: usize = 100;
    const PASSING: usize = 100;
    let node = Node::start(shards);
    node.configure("busy", &gathering(5)).await;
    let rooms = node.rooms_apart("start", 4, shards).await;
    let doors = node.doors;
    let seed = fastrand::u64(..);
    let mut staying = Vec::new();
    for n in 0..STAYING {
        // Members of one room on every shard: they came in through rooms that live there.
        let mut device = Device::join(&doors, &rooms[n % 4], Encoding::ALL[n % 2]).await;
        device.join_further("busy").await;
        staying.push(device);
    }
    let messages = 400;
    let publishing = async {
        for n in (0..messages).step_by(2) {
            node.chat("busy", n..n + 2).await;
        }
    };
    let hearing = join_all(staying.iter_mut().map(async |device| device.numbers(messages).await));
    let passing = join_all((0..PASSING).map(async |n| {
        let mut rng = fastrand::Rng::with_seed(seed ^ n as u64);
        let mut device = Device::join(&doors, &rooms[n % 4], Encoding::ALL[n / 2 % 2]).await;
        for _ in 0..3 {
            let welcome = device.join_further("busy").await;
            let mut newest = list(&welcome, "history").last().and_then(|it| it["payload"].as_u64());
            for _ in 0..rng.u32(0..4) {
                if newest == Some(messages - 1) {
                    break;
                }
                let batch = device.batch().await;
                assert_eq!(batch["skipped"], Value::Null, "seed {seed}, device {n}: {batch}");
                for message in list(&batch, "messages") {
                    let number = message["payload"].as_u64();
                    let next = newest.map_or(0, |newest| newest + 1);
                    assert_eq!(number, Some(next), "seed {seed}, device {n}: {welcome} then {batch}");
                    newest = number;
                }
            }
            device.leave("busy").await;
        }
        device.close().await;
    }));
    let ((), heard, _) = tokio::join!(publishing, hearing, passing);
    for numbers in heard {
        assert_eq!(numbers, (0..messages).collect::<Vec<_>>(), "seed {seed}");
    }
    let view = node.view_when("busy", |view| view["members"] == STAYING).await;
    assert_eq!(view["shards"].as_array().unwrap().len(), shards);
    let metrics = node.metrics().await;
    assert_eq!(metrics.sum("roomcast_frames_skipped_total", &[]), 0);
    assert_eq!(metrics.sum("roomcast_lane_full_total", &[]), 0);
}

async fn a_ping_is_answered(shards: usize) {
    let node = Node::start(shards);
    for mut device in both(&node, "r1").await {
        device.say(&json!({"kind": "ping"})).await;
        assert_eq!(device.notice("pong").await, json!({"kind": "pong"}));
    }
}
