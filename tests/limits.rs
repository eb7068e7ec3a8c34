//! The limits of publishers from outside: rates of keys, rooms and types, and settings that a room refuses.
#![expect(clippy::unwrap_used, reason = "clippy sees only #[test] functions as tests, and these serve them")]

mod support;

use prost::Message as _;
use roomcast_core::limits::{DESCRIPTORS_KEPT, STORE_BYTES_MAX, TYPES_CHANGED_MAX};
use roomcast_core::proto;
use serde_json::{Map, Value, json};
use support::publisher::{JSON, PROTO};
use support::{Answer, Device, Encoding, Metrics, Node, Process, one_and_four_shards};

one_and_four_shards!(
    what_is_past_a_keys_limit_is_shed_and_the_rest_goes_on,
    a_request_that_is_past_the_limit_whole_is_429_and_says_when_to_come_back,
    each_key_has_a_limit_of_its_own,
    a_request_with_a_mistake_takes_nothing_of_the_limit,
    a_node_that_observes_counts_and_refuses_nothing,
    a_room_and_a_type_in_it_take_so_many_a_second,
    settings_that_fit_are_taken,
    settings_that_are_none_are_refused_and_open_no_room,
    the_metrics_show_the_node_and_each_limit_beside_what_is_used,
);

const TWO_A_SECOND: (&str, &str) = ("LIMITS__KEY_MESSAGES_PER_SECOND", "2");
const OVER_LIMIT: &str = "roomcast_messages_over_limit_total";

/// Five messages, of which a key with two messages a second may publish two.
fn five() -> Value {
    json!({"messages": [
        {"type": "chat", "payload": 0}, {"type": "like", "count": 7}, {"type": "like", "count": 1_000},
        {"type": "chat", "payload": 3}, {"type": "coupon", "payload": 4},
    ]})
}

/// The results of `five`: reliable messages go first.
const TWO_OF_FIVE: [&str; 5] = ["accepted", "accepted", "shed: key_rate", "shed: key_rate", "durable"];

/// Publishes until a request is refused whole. Two requests within half a second are enough for that.
async fn refused(publish: impl AsyncFn() -> Answer) -> Answer {
    let until_refused = async {
        loop {
            let answer = publish().await;
            if answer.status != 200 {
                return answer;
            }
        }
    };
    support::comes("a publish past the limit", Box::pin(until_refused)).await
}

async fn what_is_past_a_keys_limit_is_shed_and_the_rest_goes_on(shards: usize) {
    let node = Node::with(shards, &[TWO_A_SECOND]);
    let answer = node.publisher_door().publish("r1", &five()).await;
    assert_eq!((answer.status, answer.results()), (200, TWO_OF_FIVE.map(str::to_owned).into()));
    let results = answer.json()["results"].clone();
    assert_eq!((&results[0]["retry_after_ms"], &results[2]["retry_after_ms"]), (&Value::Null, &json!(1000)));
    let view = node.view("r1").await;
    assert_eq!(view["account"]["chat"]["accepted"], 1);
    assert_eq!(view["account"]["coupon"]["accepted"], 1, "a reliable message goes first");
    node.metrics_when("what was past the limit, counted", |metrics| {
        let shed = |class| metrics.sum("roomcast_messages_shed_total", &[class, "reason=\"key_rate\""]);
        metrics.sum(OVER_LIMIT, &["limit=\"key_rate\""]) == 2
            && metrics.sum(OVER_LIMIT, &[]) == 2
            && (shed("class=\"normal\""), shed("class=\"counter\""), shed("class=\"reliable\"")) == (1, 1, 0)
            && metrics.sum("roomcast_messages_published_total", &[]) == 3
    })
    .await;
}

async fn a_request_that_is_past_the_limit_whole_is_429_and_says_when_to_come_back(shards: usize) {
    let node = Node::with(shards, &[TWO_A_SECOND]);
    let door = node.publisher_door();
    let answer = refused(async || door.publish("r1", &five()).await).await;
    answer.is_problem(429, "key_rate", None);
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.results(), ["shed: key_rate"; 5]);
    assert_eq!(answer.json()["results"][0]["retry_after_ms"], 1000);
    assert!(answer.json()["detail"].as_str().unwrap().contains("limits.key_messages_per_second"));

    let message = proto::PublishMessage { r#type: "chat".into(), payload: "1".into(), ..Default::default() };
    let answer = refused(async || door.publish_proto("r1", vec![message.clone(); 3]).await).await;
    assert_eq!((answer.status, answer.header("content-type")), (429, Some(PROTO)), "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let results = proto::PublishAnswer::decode(&*answer.body).unwrap().results;
    assert!(
        results.iter().all(|one| (&*one.reason, one.retry_after_ms) == ("key_rate", 1000)),
        "{results:?}"
    );
    assert_eq!(results.len(), 3);
    // A publisher that waits is let in again.
    let let_in = async { while door.publish("r1", &json!({"type": "like"})).await.status != 200 {} };
    support::comes("a publish after the wait", Box::pin(let_in)).await;
}

async fn each_key_has_a_limit_of_its_own(shards: usize) {
    // The SHA-256 of `secret` and of `key`.
    let keys = r#"["sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b",
                   "sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683"]"#;
    let node = Node::with(shards, &[TWO_A_SECOND, ("PUBLISHER__KEYS", keys)]);
    let door = node.publisher_door();
    let body = five().to_string();
    for (room, key) in [("r1", "Bearer secret"), ("r2", "Bearer key")] {
        let headers = [("content-type", JSON), ("authorization", key)];
        let path = format!("/v1/rooms/{room}/messages");
        let answer = door.request("POST", &path, &headers, body.as_bytes()).await;
        assert_eq!((answer.status, answer.results()), (200, TWO_OF_FIVE.map(str::to_owned).into()), "{key}");
    }
    door.publish("r1", &five()).await.is_problem(401, "key_missing", Some("authorization"));
}

async fn a_request_with_a_mistake_takes_nothing_of_the_limit(shards: usize) {
    let node = Node::with(shards, &[TWO_A_SECOND]);
    for _ in 0..10 {
        let mistaken = json!({"messages": [{"type": "chat", "payload": 1}, {"type": "chat"}]});
        let answer = node.publisher_door().publish("r1", &mistaken).await;
        answer.is_problem(400, "missing_field", Some("messages[1].payload"));
    }
    assert_eq!(node.publish("r1", &five()).await, TWO_OF_FIVE);
}

async fn a_node_that_observes_counts_and_refuses_nothing(shards: usize) {
    let node = Node::with(shards, &[TWO_A_SECOND, ("LIMITS__OBSERVE_ONLY", "true")]);
    let results = node.publish("r1", &five()).await;
    assert_eq!(results, ["accepted", "accepted", "accepted", "accepted", "durable"]);
    node.metrics_when("what would have been refused, counted", |metrics| {
        metrics.sum(OVER_LIMIT, &["limit=\"key_rate\""]) == 2
            && metrics.sum("roomcast_messages_shed_total", &[]) == 0
            && metrics.sum("roomcast_messages_accepted_total", &[]) == 5
    })
    .await;
}

async fn settings_that_fit_are_taken(shards: usize) {
    let node = Node::start(shards);
    let mut types = Map::new();
    for n in 0..TYPES_CHANGED_MAX - 2 {
        types.insert(format!("t{n}"), json!({"weight": n + 1}));
    }
    types.insert("coupon".into(), json!({"ttl_ms": 5000, "priority": "high"}));
    types.insert("like".into(), json!({"rate": 50, "burst": 5}));
    let settings = json!({
        "flush": {"high_share": 0.9},
        "readable": {"normal_per_second": 30, "high_per_second": 10},
        "limits": {"room_messages_per_second": 500},
        "types": types,
    });
    let shown = node.configure("r1", &settings).await;
    let rules = &shown["rules"];
    assert_eq!((&rules["flush"]["high_share"], &rules["flush"]["normal_share"]), (&json!(0.9), &json!(0.0)));
    for section in ["readable", "limits"] {
        assert_eq!(rules[section], settings[section]);
    }
    assert_eq!(rules["types"]["like"], settings["types"]["like"]);
    // Beside them stand the three types that the configuration treats unlike their class.
    assert_eq!(rules["types"].as_object().unwrap().len(), TYPES_CHANGED_MAX + 3);
    assert_eq!(rules["types"]["gift"], json!({"priority": "high", "merge": "sum", "weight": 5}));
    // Earlier settings still count.
    let half = json!({"flush": {"normal_share": 0.5}});
    let answer = node.publisher_door().put("/v1/rooms/r1", &half).await;
    answer.is_problem(400, "bad_value", Some("flush.normal_share"));
    assert_eq!(node.view("r1").await["rules"], *rules, "nothing has changed");
    let tenth = json!({"flush": {"normal_share": 0.1}});
    assert_eq!(node.configure("r1", &tenth).await["rules"]["flush"]["high_share"], 0.9);
}

async fn a_room_and_a_type_in_it_take_so_many_a_second(shards: usize) {
    let node = Node::with(shards, &[("TYPES__ASK__CLASS", "normal"), ("TYPES__ASK__RATE", "2")]);
    let shown = node.configure("shown", &json!({})).await;
    assert_eq!(shown["rules"]["types"]["ask"], json!({"rate": 2, "burst": 2}), "the rules in force");
    let door = node.publisher_door();
    let asks = json!({"messages": vec![json!({"type": "ask", "payload": 1}); 3]});
    assert_eq!(node.publish("r1", &asks).await, ["accepted", "accepted", "shed: type_rate"]);
    let answer = refused(async || door.publish("r1", &asks).await).await;
    answer.is_problem(429, "type_rate", None);
    assert_eq!(answer.header("retry-after"), Some("1"));
    node.configure("r2", &json!({"limits": {"room_messages_per_second": 1}})).await;
    assert_eq!(node.publish("r2", &five()).await[..2], ["accepted", "shed: room_rate"]);
    let answer = refused(async || door.publish("r2", &five()).await).await;
    answer.is_problem(429, "room_rate", None);
    let view = node.view("r2").await;
    assert_eq!(view["account"]["like"]["refused"]["room_rate"].as_u64().unwrap() % 2, 0);
    node.metrics_when("what was past the limits, counted", |metrics| {
        let over = |limit| metrics.sum(OVER_LIMIT, &[limit]);
        over("limit=\"type_rate\"") >= 4 && over("limit=\"room_rate\"") >= 8
    })
    .await;
}

async fn settings_that_are_none_are_refused_and_open_no_room(shards: usize) {
    let node = Node::start(shards);
    let too_many: Map<String, Value> =
        (0..=TYPES_CHANGED_MAX).map(|n| (format!("t{n}"), json!({"weight": 2}))).collect();
    for (settings, code, field) in [
        (json!({"flush": {"high_share": 1.5}}), "bad_value", "flush.high_share"),
        (json!({"flush": {"low_share": 0.501}}), "bad_value", "flush.low_share"),
        (json!({"flush": {"share": 1}}), "unknown_field", "flush.share"),
        (json!({"readable": {"high_per_second": -1}}), "bad_value", "readable.high_per_second"),
        (json!({"readable": 30}), "bad_value", "readable"),
        (json!({"limits": {"outbound_bytes": 1}}), "unknown_field", "limits.outbound_bytes"),
        (
            json!({"limits": {"room_messages_per_second": 1_000_001}}),
            "bad_value",
            "limits.room_messages_per_second",
        ),
        (json!({ "types": too_many }), "bad_value", "types"),
        (json!({"types": {"chat": {"class": "lossy"}}}), "bad_value", "types.chat.class"),
        (json!({"types": {"chat": {"weight": 0}}}), "bad_value", "types.chat.weight"),
        (json!({"types": {"chat": {"wait": 0}}}), "unknown_field", "types.chat.wait"),
        (json!({"types": {"coupon": {"priority": "low"}}}), "bad_value", "types.coupon.priority"),
        (json!({"types": {"like": {"burst": 5}}}), "bad_value", "types.like.burst"),
        (json!({"types": {"a b": {"weight": 1}}}), "bad_value", "types.a b"),
    ] {
        let answer = node.publisher_door().put("/v1/rooms/r1", &settings).await;
        answer.is_problem(400, code, Some(field));
        assert!(answer.json()["allowed"].as_str().is_some_and(|allowed| !allowed.is_empty()), "{answer:?}");
    }
    let answer = node.publisher_door().put("/v1/rooms/no%20room", &json!({})).await;
    answer.is_problem(400, "bad_room", Some("room"));
    node.publisher_door().get("/v1/rooms/r1").await.is_problem(404, "room_not_open", Some("room"));
}

async fn the_metrics_show_the_node_and_each_limit_beside_what_is_used(shards: usize) {
    let unix_s = || roomcast::clock::now().unix_ms / 1000;
    let before = unix_s();
    let node = Process::with_descriptors(shards, 148).await;
    let doors = node.doors;
    let after = unix_s();
    let mut devices = Vec::new();
    for _ in 0..3 {
        devices.push(Device::join(&doors, "r1", Encoding::Json).await);
    }
    doors.durable("r1", &json!({"type": "coupon", "payload": "x".repeat(5_000)})).await;
    let is_counted = |metrics: &Metrics| metrics.sum("roomcast_connections", &[]) == 3;
    let metrics = doors.metrics_when("the devices", is_counted).await;
    let gauge = |name: &str| metrics.sum(name, &[]);
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert_eq!(metrics.sum("roomcast_build_info", &[&version]), 1);
    let began = gauge("roomcast_start_time_seconds");
    assert!((before..=after).contains(&began), "{before} ≤ {began} ≤ {after}");
    assert_eq!(gauge("roomcast_connections_max"), 148 - DESCRIPTORS_KEPT);
    assert_eq!(gauge("roomcast_descriptors_max"), 148);
    // The devices, and the connection of this very question.
    let used = gauge("roomcast_descriptors");
    assert!((4..=node.descriptors()).contains(&used), "{used} of {}", node.descriptors());
    assert_eq!(gauge("roomcast_store_bytes_max"), STORE_BYTES_MAX);
    assert!((5_000..6_000).contains(&gauge("roomcast_store_bytes")));
    assert_eq!(gauge("roomcast_outbound_owed_bytes_max"), 1 << 30, "the default of limits.outbound_bytes");
    let resident = gauge("roomcast_resident_bytes") / 1024;
    let now = node.memory_kib("VmRSS");
    assert!((now / 2..=node.memory_kib("VmHWM")).contains(&resident), "{resident} KiB of {now}");
}
