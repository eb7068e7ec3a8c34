//! The publisher door from outside: taken messages, refusals and their problems, and a room's account that
//! agrees with every answer.
#![expect(clippy::unwrap_used, reason = "clippy sees only #[test] functions as tests, and these serve them")]

mod support;

use std::time::Duration;

use prost::Message as _;
use roomcast_core::limits::{
    GATHERED_MESSAGES_MAX, LATEST_KEYS_MAX, PAYLOAD_BYTES_MAX, REQUEST_BYTES_MAX, REQUEST_MESSAGES_MAX,
};
use roomcast_core::proto;
use serde_json::{Value, json};
use support::publisher::{JSON, PROTO};
use support::{Device, Encoding, Node, one_and_four_shards};
use tokio::time::sleep;

one_and_four_shards!(
    each_message_has_its_result_in_order,
    a_duplicate_is_taken_once,
    a_reused_id_is_named_and_nothing_of_its_request_is_taken,
    a_mistake_is_named_and_nothing_of_its_request_is_taken,
    sizes_past_their_limits_are_413,
    a_body_that_is_neither_json_nor_protobuf_is_415,
    receipts_and_recalls_want_an_offset,
    paths_and_methods_that_are_none_are_404_and_405,
    a_protobuf_request_has_a_protobuf_answer,
    only_holders_of_an_active_key_may_publish,
    a_room_is_opened_configured_looked_at_and_closed,
    settings_that_are_none_are_refused,
    rooms_are_listed_by_members,
    a_full_room_sheds_and_accounts_for_every_message,
    a_request_that_is_shed_whole_is_503_and_says_why,
    counters_are_exact,
    a_kept_alive_connection_is_answered_again_and_again,
    merged_messages_are_told_as_they_are_counted,
);

/// Keeps published messages gathered for longer than a test lasts.
const GATHERING: &[(&str, &str)] = &[("FLUSH__DIRECT_MEMBERS", "0"), ("FLUSH__GATHER_MS", "10000")];

/// True if the room has never taken a message: it is not even open.
async fn is_untouched(node: &Node, room: &str) {
    node.publisher_door().get(&format!("/v1/rooms/{room}")).await.is_problem(
        404,
        "room_not_open",
        Some("room"),
    );
}

fn chats(count: usize) -> Value {
    json!({ "messages": vec![json!({"type": "chat", "payload": 1}); count] })
}

fn account(view: &Value, type_name: &str, column: &str) -> u64 {
    view["account"][type_name][column].as_u64().unwrap_or_else(|| panic!("{type_name}.{column} in {view}"))
}

async fn each_message_has_its_result_in_order(shards: usize) {
    let node = Node::with(shards, &[GATHERING, &[("TYPES__PRICE__CLASS", "latest")]].concat());
    let results = node
        .publish(
            "r1",
            &json!({"messages": [
                {"type": "price", "payload": 1, "key": "a"},
                {"type": "chat", "payload": "hello", "id": "m1"},
                {"type": "price", "payload": 2, "key": "a"},
                {"type": "chat", "payload": "hello", "id": "m1"},
                {"type": "like", "count": 7},
                {"type": "enter", "payload": {"who": "x"}},
                {"type": "never_configured", "payload": [null]},
            ]}),
        )
        .await;
    assert_eq!(results, ["accepted", "accepted", "merged", "duplicate", "accepted", "accepted", "accepted"]);
    node.metrics_when("what was published, counted", |metrics| {
        metrics.sum("roomcast_messages_published_total", &[]) == 7
            && metrics.sum("roomcast_messages_duplicate_total", &[]) == 1
            && metrics.sum("roomcast_messages_merged_total", &["class=\"latest\""]) == 1
    })
    .await;
}

async fn a_duplicate_is_taken_once(shards: usize) {
    let node = Node::start(shards);
    let mut device = Device::join(&node, "r1", Encoding::Json).await;
    let message = json!({"type": "chat", "payload": 1, "id": "again"});
    assert_eq!(node.publish("r1", &message).await, ["accepted"]);
    assert_eq!(node.publish("r1", &message).await, ["duplicate"]);
    // Ids belong to one room.
    assert_eq!(node.publish("r2", &message).await, ["accepted"]);
    node.chat("r1", 2..3).await;
    assert_eq!(device.numbers(2).await, [1, 2]);
}

async fn a_reused_id_is_named_and_nothing_of_its_request_is_taken(shards: usize) {
    let node = Node::with(shards, GATHERING);
    node.publish("r1", &json!({"type": "chat", "payload": 1, "id": "a"})).await;
    let earlier = json!({"messages": [
        {"type": "chat", "payload": 2}, {"type": "chat", "payload": "other", "id": "a"},
    ]});
    let answer = node.publisher_door().publish("r1", &earlier).await;
    answer.is_problem(409, "id_reused", Some("messages[1].id"));
    let within = json!({"messages": [
        {"type": "chat", "payload": 3, "id": "b"}, {"type": "chat", "payload": 4},
        {"type": "gift", "payload": 3, "id": "b"},
    ]});
    let answer = node.publisher_door().publish("r1", &within).await;
    answer.is_problem(409, "id_reused", Some("messages[2].id"));
    let view = node.view("r1").await;
    assert_eq!(account(&view, "chat", "accepted"), 1);
    assert_eq!(view["account"]["gift"], Value::Null);
    // The ids were not taken either.
    assert_eq!(node.publish("r1", &json!({"type": "chat", "payload": 9, "id": "b"})).await, ["accepted"]);
}

async fn a_mistake_is_named_and_nothing_of_its_request_is_taken(shards: usize) {
    let node = Node::start(shards);
    let good = r#"{"type":"chat","payload":1}"#;
    let deep = format!("{}1{}", "[".repeat(65), "]".repeat(65));
    let long_key = "k".repeat(129);
    for (bad, code, field) in [
        (r#"{"payload":1}"#, "missing_field", "type"),
        (r#"{"type":"chat"}"#, "missing_field", "payload"),
        (r#"{"type":"Chat!","payload":1}"#, "bad_value", "type"),
        (r#"{"type":7,"payload":1}"#, "bad_value", "type"),
        (r#"{"type":"chat","payload":1,"id":""}"#, "bad_value", "id"),
        (&format!(r#"{{"type":"chat","payload":1,"key":"{long_key}"}}"#), "bad_value", "key"),
        (r#"{"type":"like","count":0}"#, "bad_value", "count"),
        (r#"{"type":"like","count":1000000001}"#, "bad_value", "count"),
        (r#"{"type":"like","count":1.5}"#, "bad_value", "count"),
        (r#"{"type":"chat","payload":1,"count":2}"#, "bad_value", "count"),
        (r#"{"type":"gift","payload":1,"count":-1}"#, "bad_value", "count"),
        (r#"{"type":"chat","payload":1,"ttl_ms":999}"#, "bad_value", "ttl_ms"),
        (r#"{"type":"like","ttl_ms":5000}"#, "bad_value", "ttl_ms"),
        (r#"{"type":"chat","payload":1,"colour":2}"#, "unknown_field", "colour"),
        (&format!(r#"{{"type":"chat","payload":{deep}}}"#), "payload_not_json", "payload"),
        (r#"{"type":"chat","payload":}"#, "payload_not_json", "payload"),
        (r#"{"type":"chat","payload":"\ud83d"}"#, "payload_not_json", "payload"),
        (r#"{"type":"coupon","payload":{"a":1,"a":2}}"#, "payload_not_json", "payload"),
        (r#"{"type":"online","payload":3}"#, "bad_value", "type"),
        (r#"{"type":"chat","payload_b64":"*"}"#, "bad_value", "payload_b64"),
    ] {
        let alone = node.publisher_door().publish_bytes("r1", JSON, bad.as_bytes()).await;
        alone.is_problem(400, code, Some(field));
        let among = format!(r#"{{"messages":[{good},{good},{bad},{good}]}}"#);
        let among = node.publisher_door().publish_bytes("r1", JSON, among.as_bytes()).await;
        among.is_problem(400, code, Some(&format!("messages[2].{field}")));
    }
    for (body, code, field) in [
        ("", "bad_json", None),
        ("{", "bad_json", None),
        ("[]", "bad_value", None),
        (r#"{"messages":[]}"#, "bad_value", Some("messages")),
        (r#"{"messages":{}}"#, "bad_value", Some("messages")),
    ] {
        let answer = node.publisher_door().publish_bytes("r1", JSON, body.as_bytes()).await;
        answer.is_problem(400, code, field);
    }
    let many = node.publisher_door().publish("r1", &chats(REQUEST_MESSAGES_MAX + 1)).await;
    many.is_problem(400, "bad_value", Some("messages"));
    let room = node.publisher_door().publish("a%2Fb", &chats(1)).await;
    room.is_problem(400, "bad_room", Some("room"));
    let not_utf8 =
        node.publisher_door().publish_bytes("r1", JSON, b"{\"type\":\"chat\",\"payload\":\"\xff\"}").await;
    assert_eq!(not_utf8.status, 400);
    is_untouched(&node, "r1").await;
}

async fn sizes_past_their_limits_are_413(shards: usize) {
    let node = Node::start(shards);
    let payload = |bytes: usize| json!({"type": "chat", "payload": "x".repeat(bytes - 2)});
    let answer = node.publisher_door().publish("r1", &payload(PAYLOAD_BYTES_MAX + 1)).await;
    answer.is_problem(413, "payload_too_large", Some("payload"));
    is_untouched(&node, "r1").await;
    // One body announces its size, and one does not.
    let announced = format!(
        "POST /v1/rooms/r1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        REQUEST_BYTES_MAX + 1
    );
    let answer = node.publisher_door().say(announced.as_bytes()).await.unwrap();
    answer.is_problem(413, "request_too_large", None);
    let mut chunked =
        b"POST /v1/rooms/r1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
        transfer-encoding: chunked\r\n\r\n"
            .to_vec();
    for _ in 0..=REQUEST_BYTES_MAX / 0x1_0000 {
        chunked.extend_from_slice(b"10000\r\n");
        chunked.resize(chunked.len() + 0x1_0000, b' ');
        chunked.extend_from_slice(b"\r\n");
    }
    let answer = node.publisher_door().say(&chunked).await.unwrap();
    answer.is_problem(413, "request_too_large", None);
    is_untouched(&node, "r1").await;
    assert_eq!(node.publish("r1", &payload(PAYLOAD_BYTES_MAX)).await, ["accepted"]);
}

async fn a_body_that_is_neither_json_nor_protobuf_is_415(shards: usize) {
    let node = Node::start(shards);
    let body = chats(1).to_string();
    for content_type in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let answer = node.publisher_door().publish_bytes("r1", content_type, body.as_bytes()).await;
        answer.is_problem(415, "content_type", Some("content-type"));
    }
    for encoding in ["gzip", "identity"] {
        let headers = [("content-type", JSON), ("content-encoding", encoding)];
        let path = "/v1/rooms/r1/messages";
        let answer = node.publisher_door().request("POST", path, &headers, body.as_bytes()).await;
        answer.is_problem(415, "content_encoding", Some("content-encoding"));
    }
    is_untouched(&node, "r1").await;
}

async fn receipts_and_recalls_want_an_offset(shards: usize) {
    let node = Node::start(shards);
    for bad in ["0", "-1", "x", "", "9007199254740992"] {
        let path = format!("/v1/rooms/r1/reliable/{bad}");
        for method in ["GET", "DELETE"] {
            let answer = node.publisher_door().request(method, &path, &[], b"").await;
            answer.is_problem(400, "bad_offset", Some("offset"));
        }
    }
    is_untouched(&node, "r1").await;
}

async fn paths_and_methods_that_are_none_are_404_and_405(shards: usize) {
    let node = Node::start(shards);
    for path in ["/", "/v1", "/v1/rooms/r1/chat", "/v1/rooms/r1/ws", "/v2/rooms", "/metrics"] {
        node.publisher_door().get(path).await.is_problem(404, "not_found", None);
    }
    for (method, path, allow) in [
        ("GET", "/v1/rooms/r1/messages", "POST"),
        ("PATCH", "/v1/rooms/r1", "GET, HEAD, PUT, DELETE"),
        ("POST", "/v1/rooms", "GET, HEAD"),
        ("PUT", "/v1/rooms/r1/reliable/1", "GET, HEAD, DELETE"),
    ] {
        let answer = node.publisher_door().request(method, path, &[], b"").await;
        answer.is_problem(405, "method_not_allowed", None);
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
}

async fn a_protobuf_request_has_a_protobuf_answer(shards: usize) {
    let node = Node::start(shards);
    let mut device = Device::join(&node, "r1", Encoding::Proto).await;
    let message = |type_name: &str, payload: &[u8]| proto::PublishMessage {
        r#type: type_name.to_owned(),
        payload: payload.to_vec().into(),
        ..Default::default()
    };
    let opaque = message("chat", &[0, 255, 7]);
    let marked = proto::PublishMessage { json: true, id: "m".into(), ..message("chat", b"{\"a\":1}") };
    let counted = proto::PublishMessage { count: Some(5), ..message("like", b"") };
    let request = vec![opaque, marked.clone(), counted, marked];
    let answer = node.publisher_door().publish_proto("r1", request).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(PROTO)), "{answer:?}");
    let results = proto::PublishAnswer::decode(&*answer.body).unwrap().results;
    let results: Vec<&str> = results.iter().map(|one| one.result.as_str()).collect();
    assert_eq!(results, ["accepted", "accepted", "accepted", "duplicate"]);
    let heard = device.messages(2).await;
    assert_eq!(heard[0]["payload_b64"], "AP8H");
    assert_eq!((&heard[1]["payload"], &heard[1]["id"]), (&json!({"a": 1}), &json!("m")));
    let not_json = proto::PublishMessage { json: true, ..message("chat", b"{") };
    let answer = node.publisher_door().publish_proto("r2", vec![message("chat", b"1"), not_json]).await;
    answer.is_problem(400, "payload_not_json", Some("messages[1].payload"));
    let answer = node.publisher_door().publish_bytes("r2", PROTO, b"\xff\xff").await;
    answer.is_problem(400, "bad_proto", None);
    is_untouched(&node, "r2").await;
}

async fn only_holders_of_an_active_key_may_publish(shards: usize) {
    // The SHA-256 of `secret`.
    let keys = r#"["sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"]"#;
    let node = Node::with(shards, &[("PUBLISHER__KEYS", keys)]);
    let door = node.publisher_door();
    let body = chats(1).to_string();
    let with = |authorization: &'static str| {
        let headers = [("content-type", JSON), ("authorization", authorization)];
        let body = body.clone();
        async move { door.request("POST", "/v1/rooms/r1/messages", &headers, body.as_bytes()).await }
    };
    let answer = door.publish("r1", &chats(1)).await;
    answer.is_problem(401, "key_missing", Some("authorization"));
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    // A stranger keeps no connection.
    let anonymous = format!("GET /v1/rooms HTTP/1.1\r\nhost: {}\r\n\r\n", node.publisher);
    let answer = door.say(anonymous.as_bytes()).await.unwrap();
    assert_eq!(answer.header("connection"), Some("close"));
    let twice = "GET /v1/rooms HTTP/1.1\r\nhost: localhost\r\n\
                 authorization: Bearer secret\r\nauthorization: Bearer secret\r\n\r\n";
    door.say(twice.as_bytes()).await.unwrap().is_problem(401, "key_missing", Some("authorization"));
    with("Basic secret").await.is_problem(401, "key_missing", Some("authorization"));
    with("Bearer secrets").await.is_problem(401, "key_unknown", Some("authorization"));
    // A stranger learns nothing of rooms and paths.
    for path in ["/v1/rooms", "/v1/rooms/r1", "/nothing"] {
        door.get(path).await.is_problem(401, "key_missing", Some("authorization"));
    }
    door.delete("/v1/rooms/r1").await.is_problem(401, "key_missing", Some("authorization"));
    assert_eq!(with("Bearer secret").await.status, 200);
    assert_eq!(with("bearer  secret").await.status, 200);
}

async fn a_room_is_opened_configured_looked_at_and_closed(shards: usize) {
    let node = Node::start(shards);
    let settings = json!({"expected_audience": 5000, "flush": {"gather_ms": 250, "direct_members": 0}});
    let opened = node.configure("r1", &settings).await;
    assert_eq!((&opened["room"], &opened["expected_audience"]), (&json!("r1"), &json!(5000)));
    assert_eq!(opened["members"], 0);
    assert_eq!(opened["run"].as_str().map(str::len), Some(16));
    assert!(opened["home"].as_u64().unwrap() < shards as u64);
    let mut device = Device::join(&node, "r1", Encoding::Json).await;
    assert_eq!(node.view("r1").await["window_ms"], 250);
    // A `PUT` leaves other settings as they are.
    let again = node.configure("r1", &json!({"idle_close_s": 600})).await;
    assert_eq!((&again["window_ms"], &again["run"]), (&json!(250), &opened["run"]));
    node.chat("r1", 0..3).await;
    assert_eq!(device.numbers(3).await, [0, 1, 2]);
    let view = node.view("r1").await;
    assert_eq!((&view["members"], &view["backlog"]["gathered"]), (&json!(1), &json!(0)));
    let on = &view["shards"][0];
    assert_eq!(
        (view["shards"].as_array().map(Vec::len), &on["shard"], &on["members"]),
        (Some(1), &view["home"], &json!(1))
    );
    // Five thousand are expected: two and a half times the size of a hot room.
    let placed_on = view["placed_on"].as_array().unwrap();
    assert_eq!((&view["hot"], placed_on.len()), (&json!(shards > 1), shards.min(3)));
    assert_eq!(placed_on[0], view["home"]);
    assert!(on["counts"]["written"].as_u64().unwrap() > 0 && on["counts"] == view["counts"], "{view}");
    assert_eq!(account(&view, "chat", "delivered"), 3);
    let closed = node.publisher_door().delete("/v1/rooms/r1").await;
    assert_eq!((closed.status, closed.json()), (200, json!({"room": "r1", "members": 1, "shed": 0})));
    is_untouched(&node, "r1").await;
    node.publisher_door().delete("/v1/rooms/r1").await.is_problem(404, "room_not_open", Some("room"));
    let fresh = node.configure("r1", &json!({})).await;
    assert_ne!(fresh["run"], opened["run"], "another life of the room is another run");
}

async fn settings_that_are_none_are_refused(shards: usize) {
    let node = Node::start(shards);
    for (settings, code, field) in [
        (json!({"flush": {"gather": 1}}), "unknown_field", "flush.gather"),
        (json!({"flush": {"gather_ms": 10_001}}), "bad_value", "flush.gather_ms"),
        (json!({"flush": {"max_bytes": 1}}), "bad_value", "flush.max_bytes"),
        (json!({"audience": 1}), "unknown_field", "audience"),
        (json!({"idle_close_s": 0}), "bad_value", "idle_close_s"),
        (json!([]), "bad_json", "body"),
    ] {
        let answer = node.publisher_door().put("/v1/rooms/r1", &settings).await;
        answer.is_problem(400, code, Some(field));
    }
    is_untouched(&node, "r1").await;
}

async fn rooms_are_listed_by_members(shards: usize) {
    let node = Node::start(shards);
    let mut devices = Vec::new();
    for (room, members) in [("small", 1), ("large", 3), ("middle-b", 2), ("middle-a", 2)] {
        for _ in 0..members {
            devices.push(Device::join(&node, room, Encoding::Json).await);
        }
    }
    node.configure("empty", &json!({})).await;
    let door = node.publisher_door();
    let listed = |query: &'static str| async move { door.get(&format!("/v1/rooms{query}")).await };
    let names = |answer: &support::Answer| -> Vec<(String, u64)> {
        let rooms = answer.json()["rooms"].as_array().unwrap().clone();
        let lines = rooms.iter();
        lines.map(|it| (it["room"].as_str().unwrap().to_owned(), it["members"].as_u64().unwrap())).collect()
    };
    let all: Vec<(String, u64)> =
        [("large", 3), ("middle-a", 2), ("middle-b", 2), ("small", 1), ("empty", 0)]
            .map(|(room, members)| (room.to_owned(), members))
            .into();
    let whole = listed("?sort=members").await;
    let first = listed("?limit=3").await;
    assert_eq!(names(&whole), all);
    assert_eq!(names(&first), all[..3]);
    assert_eq!(names(&listed("").await), all);
    listed("?sort=name").await.is_problem(400, "bad_query", Some("sort"));
    listed("?limit=0").await.is_problem(400, "bad_query", Some("limit"));
}

async fn a_full_room_sheds_and_accounts_for_every_message(shards: usize) {
    let node = Node::with(shards, GATHERING);
    let most = GATHERED_MESSAGES_MAX as u64;
    node.configure("r1", &json!({"flush": {"max_messages": most, "max_bytes": 1_048_576}})).await;
    let mut device = Device::join(&node, "r1", Encoding::Proto).await;
    // A device of unknown rate is given no batch this large. Bursts 100 ms apart prove its rate.
    for _ in 0..5 {
        let results = node.publish("r1", &json!({"type": "coupon", "payload": "x".repeat(8_000)})).await;
        assert_eq!(results, ["durable"]);
        device.frame().await;
        sleep(Duration::from_millis(150)).await;
    }
    // One short of full: another message would complete a batch, and the room would flush.
    let per_request = REQUEST_MESSAGES_MAX as u64;
    for from in (0..most - per_request).step_by(REQUEST_MESSAGES_MAX) {
        node.chat("r1", from..from + per_request).await;
    }
    node.chat("r1", most - per_request..most - 1).await;
    let view = node.view("r1").await;
    assert_eq!((account(&view, "chat", "waiting"), account(&view, "chat", "delivered")), (most - 1, 0));
    let last: Vec<Value> = (0..per_request)
        .map(|n| json!({"type": "chat", "payload": most - 1 + n, "id": n.to_string()}))
        .collect();
    let results = node.publish("r1", &json!({ "messages": last })).await;
    assert_eq!(results[0], "accepted");
    assert!(results[1..].iter().all(|result| result == "shed: room_full"), "{results:?}");
    // All taken messages arrive, in order, and no shed ones.
    assert_eq!(device.numbers(most).await, (0..most).collect::<Vec<_>>());
    let view = node.view("r1").await;
    assert_eq!(account(&view, "chat", "accepted"), most);
    assert_eq!(account(&view, "chat", "delivered"), most);
    assert_eq!(view["account"]["chat"]["refused"], json!({"room_full": per_request - 1}));
    node.metrics_when("what was shed, counted", |metrics| {
        let labels = ["class=\"normal\"", "reason=\"room_full\""];
        metrics.sum("roomcast_messages_shed_total", &labels) == per_request - 1
    })
    .await;
    // A shed message may be published again under its id.
    let again = json!({"type": "chat", "payload": most, "id": "1"});
    assert_eq!(node.publish("r1", &again).await, ["accepted"]);
}

async fn a_request_that_is_shed_whole_is_503_and_says_why(shards: usize) {
    let node = Node::with(shards, &[("TYPES__PRICE__CLASS", "latest")]);
    let price = |key: usize| json!({"type": "price", "payload": key, "key": key.to_string()});
    let known: Vec<Value> = (0..LATEST_KEYS_MAX).map(price).collect();
    node.publish("r1", &json!({ "messages": known })).await;
    let answer = node.publisher_door().publish("r1", &price(LATEST_KEYS_MAX)).await;
    answer.is_problem(503, "shed", None);
    assert_eq!(answer.results(), ["shed: latest_keys_full"]);
    let half = json!({"messages": [price(LATEST_KEYS_MAX), price(0)]});
    assert_eq!(node.publish("r1", &half).await[0], "shed: latest_keys_full");
    let message = proto::PublishMessage {
        r#type: "price".into(),
        payload: "1".into(),
        key: "new".into(),
        ..Default::default()
    };
    let answer = node.publisher_door().publish_proto("r1", vec![message]).await;
    assert_eq!((answer.status, answer.header("content-type")), (503, Some(PROTO)));
    let results = proto::PublishAnswer::decode(&*answer.body).unwrap().results;
    assert_eq!(results[0].reason, "latest_keys_full");
}

async fn counters_are_exact(shards: usize) {
    let node = Node::start(shards);
    let mut device = Device::join(&node, "r1", Encoding::Json).await;
    let counts = [1_u64, 1_000_000_000, 7, 3, 40, 1_000_000_000];
    for count in counts {
        node.publish("r1", &json!({"type": "like", "count": count})).await;
    }
    node.publish("r1", &json!({"messages": [{"type": "like"}, {"type": "like", "payload": "unread"}]})).await;
    let total = counts.iter().sum::<u64>() + 2;
    let mut added = 0;
    let mut told = 0;
    while told < total {
        let batch = device.batch().await;
        added += batch["counters"]["like"]["add"].as_u64().unwrap();
        told = batch["counters"]["like"]["total"].as_u64().unwrap();
        assert_eq!(added, told, "what was added is what is told: {batch}");
    }
    assert_eq!(told, total);
    assert_eq!(node.view("r1").await["counters"], json!({ "like": total }));
}

async fn a_kept_alive_connection_is_answered_again_and_again(shards: usize) {
    use tokio::io::AsyncWriteExt;
    let node = Node::start(shards);
    let mut stream = tokio::net::TcpStream::connect(node.publisher).await.unwrap();
    let body = chats(2).to_string();
    let request = format!(
        "POST /v1/rooms/r1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..50 {
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = support::comes("an answer", support::publisher::read_answer(&mut stream)).await.unwrap();
        assert_eq!(answer.results(), ["accepted", "accepted"]);
    }
    assert_eq!(account(&node.view("r1").await, "chat", "accepted"), 100);
}

async fn merged_messages_are_told_as_they_are_counted(shards: usize) {
    let gathering =
        [("FLUSH__DIRECT_MEMBERS", "0"), ("FLUSH__GATHER_MS", "300"), ("TYPES__ENTER__MERGE", "latest")];
    let node = Node::with(shards, &gathering);
    let mut device = Device::join(&node, "r1", Encoding::Json).await;
    let enters: Vec<Value> =
        (0..20).map(|n| json!({"type": "enter", "payload": n, "key": format!("k{}", n % 4)})).collect();
    let results = node.publish("r1", &json!({ "messages": enters })).await;
    assert_eq!(results.iter().filter(|it| *it == "merged").count(), 16);
    let batch = device.batch().await;
    assert_eq!(batch["merged"], json!({"enter": 16}));
    let payloads: Vec<u64> =
        support::device::list(&batch, "messages").iter().map(|it| it["payload"].as_u64().unwrap()).collect();
    assert_eq!(payloads, [16, 17, 18, 19]);
    let view = node.view("r1").await;
    assert_eq!((account(&view, "enter", "accepted"), account(&view, "enter", "delivered")), (20, 4));
    assert_eq!(account(&view, "enter", "merged"), 16);
}
