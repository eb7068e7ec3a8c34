//! The degradation ladder from outside: the operator's view and orders, and the effect of each step on
//! devices and publishers.
#![expect(clippy::unwrap_used, reason = "clippy sees only #[test] functions as tests, and these serve them")]

mod support;

use serde_json::{Value, json};
use support::raw::handshake_head;
use support::{Answer, Device, Doors, Encoding, Handshake, Node, config, one_and_four_shards, until};

one_and_four_shards!(
    a_calm_node_says_so,
    the_last_step_refuses_devices_and_leaves_those_alone_that_are_there,
    a_rooms_own_step_counts_before_the_nodes,
    a_rooms_own_step_dies_with_it,
    lossy_messages_are_shed_on_the_first_step_and_no_others,
    a_mistake_is_named,
    devices_that_read_nothing_take_the_node_up_the_ladder_and_down_again_when_they_are_gone,
);

const LADDER: &str = "/v1/ops/ladder";

fn ladder_of(room: &str) -> String {
    format!("/v1/ops/rooms/{room}/ladder")
}

/// Sets a step, and returns the view after the change.
async fn say(doors: &Doors, path: &str, step: Value) -> Value {
    let answer = doors.ops_door().put(path, &json!({ "step": step })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let shown = doors.ops_door().get(path).await.json();
    assert_eq!(answer.json()["override"], shown["override"]);
    shown
}

async fn readiness(doors: &Doors) -> Value {
    let answer = doors.ops_door().get("/readyz").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// The viewer door's answer to a device.
async fn handshake(doors: &Doors, room: &str) -> Answer {
    let request = format!("{}\r\n", handshake_head(doors, &format!("/v1/rooms/{room}/ws")));
    doors.viewer_door().say(request.as_bytes()).await.unwrap()
}

#[track_caller]
fn is_refused(answer: &Answer) {
    answer.is_problem(503, "joins_refused", None);
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
}

async fn a_calm_node_says_so(shards: usize) {
    let node = Node::start(shards);
    let calm = |shard| {
        json!({
            "shard": shard, "automatic": 0, "step": 0, "name": "calm", "delay_ms": 0, "outbound_permille": 0
        })
    };
    let shown = node.ops_door().get(LADDER).await;
    let all: Vec<Value> = (0..shards).map(calm).collect();
    assert_eq!(shown.json(), json!({"override": null, "outbound_permille": 0, "shards": all}));
    assert_eq!(readiness(&node).await, json!({"status": "ready"}));
    node.configure("r1", &json!({})).await;
    let shown = node.ops_door().get(&ladder_of("r1")).await;
    assert_eq!(shown.json(), json!({"room": "r1", "override": null, "step": 0, "name": "calm"}));
}

async fn lossy_messages_are_shed_on_the_first_step_and_no_others(shards: usize) {
    let node = Node::with(shards, &[("TYPES__ENTER__MERGE", "none")]);
    let all = json!({"messages": [
        {"type": "enter", "payload": 1}, {"type": "chat", "payload": 2}, {"type": "like", "count": 3},
        {"type": "coupon", "payload": 4},
    ]});
    node.configure("r1", &json!({})).await;
    for path in [LADDER.to_owned(), ladder_of("r1")] {
        say(&node, &path, 1.into()).await;
        let results = node.publish("r1", &all).await;
        assert_eq!(results, ["shed: lossy_off", "accepted", "accepted", "durable"], "{path}");
        say(&node, &path, Value::Null).await;
        assert_eq!(node.publish("r1", &all).await, ["accepted", "accepted", "accepted", "durable"], "{path}");
    }
}

async fn the_last_step_refuses_devices_and_leaves_those_alone_that_are_there(shards: usize) {
    let node = Node::start(shards);
    let mut device = Device::join(&node, "r1", Encoding::Json).await;
    let shown = say(&node, LADDER, 5.into()).await;
    assert_eq!(shown["override"], 5);
    for shard in shown["shards"].as_array().unwrap() {
        assert_eq!([&shard["step"], &shard["automatic"]], [5, 0]);
        assert_eq!(shard["name"], "joins_refused");
    }
    for room in ["r1", "another"] {
        is_refused(&handshake(&node, room).await);
    }
    device.say(&json!({"kind": "join", "room": "another"})).await;
    let error = device.notice("error").await;
    let refused = json!({"kind": "error", "code": "joins_refused", "room": "another", "field": "room"});
    assert_eq!(error, refused);
    node.chat("r1", 0..3).await;
    assert_eq!(device.numbers(3).await, [0, 1, 2], "who is there goes on");
    let named = |shard| json!({"shard": shard, "step": 5, "name": "joins_refused"});
    let degraded: Vec<Value> = (0..shards).map(named).collect();
    assert_eq!(readiness(&node).await, json!({"status": "ready", "shards_degraded": degraded}));
    let refusals = "roomcast_handshakes_refused_total";
    let steps = 5 * shards as u64;
    node.metrics_when("the step", |metrics| {
        metrics.sum("roomcast_ladder_step", &[]) == steps && metrics.sum(refusals, &["joins_refused"]) == 2
    })
    .await;

    assert_eq!(say(&node, LADDER, Value::Null).await["override"], Value::Null);
    assert_eq!(readiness(&node).await, json!({"status": "ready"}));
    device.join_further("another").await;
    Device::join(&node, "r1", Encoding::Proto).await;
}

async fn a_rooms_own_step_counts_before_the_nodes(shards: usize) {
    let node = Node::start(shards);
    let mut device = Device::join(&node, "open", Encoding::Json).await;
    node.configure("shut", &json!({})).await;
    let shown = say(&node, &ladder_of("shut"), 5.into()).await;
    assert_eq!(shown, json!({"room": "shut", "override": 5, "step": 5, "name": "joins_refused"}));
    is_refused(&handshake(&node, "shut").await);
    device.say(&json!({"kind": "join", "room": "shut"})).await;
    assert_eq!(device.notice("error").await["code"], "joins_refused");
    Device::join(&node, "open", Encoding::Json).await;
    assert_eq!(readiness(&node).await, json!({"status": "ready"}), "a room's step is no shard's");

    say(&node, LADDER, 5.into()).await;
    is_refused(&handshake(&node, "open").await);
    let shown = say(&node, &ladder_of("open"), 0.into()).await;
    assert_eq!(shown, json!({"room": "open", "override": 0, "step": 0, "name": "calm"}));
    Device::join(&node, "open", Encoding::Json).await;
    is_refused(&handshake(&node, "shut").await);
    let shown = say(&node, &ladder_of("open"), Value::Null).await;
    assert_eq!(shown, json!({"room": "open", "override": null, "step": 5, "name": "joins_refused"}));
    is_refused(&handshake(&node, "open").await);
}

async fn a_rooms_own_step_dies_with_it(shards: usize) {
    let node = Node::start(shards);
    node.configure("r1", &json!({})).await;
    say(&node, &ladder_of("r1"), 5.into()).await;
    assert_eq!(node.publisher_door().delete("/v1/rooms/r1").await.status, 200);
    node.ops_door().get(&ladder_of("r1")).await.is_problem(404, "room_not_open", Some("room"));
    until("the viewer door hears of it", async || (handshake(&node, "r1").await.status == 101).then_some(()))
        .await;
    node.configure("r1", &json!({})).await;
    assert_eq!(node.ops_door().get(&ladder_of("r1")).await.json()["override"], Value::Null);
}

async fn a_mistake_is_named(shards: usize) {
    let node = Node::start(shards);
    node.configure("r1", &json!({})).await;
    let door = node.ops_door();
    for path in [LADDER.to_owned(), ladder_of("r1")] {
        for (body, code, field) in [
            (json!({"step": 6}), "bad_value", "step"),
            (json!({"step": "calm"}), "bad_value", "step"),
            (json!({"step": 1.5}), "bad_value", "step"),
            (json!({"step": 1, "room": "r1"}), "unknown_field", "room"),
            (json!({}), "missing_field", "step"),
            (json!([]), "bad_json", "body"),
        ] {
            let answer = door.put(&path, &body).await;
            answer.is_problem(400, code, Some(field));
            assert!(!answer.json()["allowed"].as_str().unwrap().is_empty(), "{body}");
        }
        door.request("PUT", &path, &[], b"{\"step\":1}").await.is_problem(
            415,
            "content_type",
            Some("content-type"),
        );
        let proto = [("content-type", support::publisher::PROTO)];
        door.request("PUT", &path, &proto, b"x").await.is_problem(415, "content_type", Some("content-type"));
        for method in ["POST", "DELETE", "PATCH"] {
            let answer = door.request(method, &path, &[], b"").await;
            answer.is_problem(405, "method_not_allowed", None);
            assert_eq!(answer.header("allow"), Some("GET, HEAD, PUT"));
        }
        assert_eq!(door.get(&path).await.json()["override"], Value::Null, "nothing was taken");
    }
    for path in ["/v1/ops/rooms/a%20b/ladder", "/v1/ops/rooms//ladder"] {
        door.get(path).await.is_problem(400, "bad_room", Some("room"));
        door.put(path, &json!({"step": 1})).await.is_problem(400, "bad_room", Some("room"));
    }
    let closed = ladder_of("nobody-is-here");
    door.get(&closed).await.is_problem(404, "room_not_open", Some("room"));
    door.put(&closed, &json!({"step": 1})).await.is_problem(404, "room_not_open", Some("room"));
    door.get("/v1/ops").await.is_problem(404, "not_found", None);
    for door in [node.viewer_door(), node.publisher_door()] {
        door.get(LADDER).await.is_problem(404, "not_found", None);
    }
}

async fn devices_that_read_nothing_take_the_node_up_the_ladder_and_down_again_when_they_are_gone(
    shards: usize,
) {
    const DEVICES: u64 = 8;
    let mut config = config(shards, &[], None);
    // Frames of 1.5 KB go to the kernel in writes of 1 200 bytes, so a device that takes nothing owes 270 bytes
    // at least: the end of a frame. Where the kernel stops depends on how the messages met in frames.
    config.outbound_bytes_max = 2 * 1024;
    let node = Node::of(config);
    let deaf = || Handshake { receive_buffer_bytes: Some(4096), ..Handshake::new(Encoding::Json) };
    let mut devices = Vec::new();
    for _ in 0..DEVICES {
        devices.push(Device::join_with(&node, "r1", deaf()).await);
    }
    let page = json!({"type": "chat", "payload": "x".repeat(1_400)});
    let all_shards = |shown: &Value, step: u64| {
        let shards = shown["shards"].as_array().unwrap();
        shards.iter().all(|shard| shard["step"] == step && shard["automatic"] == step)
    };
    let shown = until("the last step", async || {
        node.publisher_door().publish("r1", &page).await;
        Some(node.ops_door().get(LADDER).await.json()).filter(|shown| all_shards(shown, 5))
    })
    .await;
    assert!(shown["outbound_permille"].as_u64().unwrap() >= 850, "{shown}");
    for room in ["r1", "another", "further"] {
        is_refused(&handshake(&node, room).await);
    }
    assert_eq!(readiness(&node).await["shards_degraded"].as_array().unwrap().len(), shards);
    let metrics = node.metrics().await;
    assert!(metrics.sum("roomcast_outbound_owed_bytes", &[]) > 0);
    assert!(metrics.sum("roomcast_ladder_changes_total", &["up"]) >= shards as u64, "each shard went up");

    drop(devices);
    until("calm", async || {
        Some(node.ops_door().get(LADDER).await.json()).filter(|shown| all_shards(shown, 0))
    })
    .await;
    assert_eq!(readiness(&node).await, json!({"status": "ready"}));
    Device::join(&node, "r1", Encoding::Json).await;
}
