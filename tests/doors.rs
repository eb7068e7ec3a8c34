//! The doors before a device or a publisher is let in: handshakes, origins, tokens, limits, and the
//! operator's view.
#![expect(clippy::unwrap_used, reason = "clippy sees only #[test] functions as tests, and these serve them")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, OnceLock};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use roomcast::metrics::DEFINITIONS;
use roomcast_core::limits::{HEAD_BYTES_MAX, JOIN_RETRY_AFTER_MAX, PULLS_MAX};
use serde_json::{Value, json};
use support::raw::handshake_head;
use support::{
    Answer, Device, Doors, Encoding, Folder, Handshake, Node, Process, comes, one_and_four_shards, until,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tracing_subscriber::fmt::MakeWriter;

one_and_four_shards!(
    a_handshake_is_answered_as_rfc_6455_says,
    what_is_no_handshake_is_refused_with_its_reason,
    the_subprotocol_chosen_is_the_first_that_is_ours,
    only_listed_origins_may_join_and_read,
    by_default_only_pages_of_this_machine_may_join,
    a_page_of_a_listed_origin_may_read_what_was_sent,
    a_token_opens_the_rooms_it_names,
    a_token_may_come_in_the_header_the_query_or_as_a_subprotocol,
    a_token_is_in_no_answer_no_metric_and_no_log,
    a_request_has_exactly_one_host_at_every_door,
    a_head_too_large_is_refused,
    the_viewer_doors_page_is_read_and_nothing_else,
    the_viewer_door_answers_once_per_connection,
    health_and_readiness_are_told,
    a_store_that_fails_is_told_to_balancers_and_heals,
    every_metric_that_is_defined_is_shown,
    pages_that_nobody_reads_are_bounded_in_number,
    connections_past_the_seats_are_refused_before_they_are_upgraded,
    joins_past_the_rate_are_told_when_to_come_back_and_nothing_else_suffers,
    a_stranger_takes_no_place_in_the_rate,
);

/// Sends a handshake with further header lines to the viewer door.
async fn handshake(doors: &Doors, target: &str, lines: &str) -> Answer {
    let request = format!("{}{lines}\r\n", handshake_head(doors, target));
    doors.viewer_door().say(request.as_bytes()).await.unwrap()
}

async fn a_handshake_is_answered_as_rfc_6455_says(shards: usize) {
    let node = Node::start(shards);
    let extensions = "sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n";
    let answer = handshake(&node, "/v1/rooms/r1/ws", extensions).await;
    assert_eq!(answer.status, 101);
    // The example of RFC 6455, section 1.3.
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert!(answer.header("connection").unwrap().eq_ignore_ascii_case("upgrade"));
    assert_eq!(answer.header("sec-websocket-protocol"), None, "none was offered");
    assert_eq!(answer.header("sec-websocket-extensions"), None, "nothing is compressed");
}

async fn what_is_no_handshake_is_refused_with_its_reason(shards: usize) {
    let node = Node::start(shards);
    let good = handshake_head(&node, "/v1/rooms/r1/ws");
    for (line, instead, status, code, field) in [
        ("upgrade: websocket\r\n", "upgrade: h2c\r\n", 426, "upgrade_required", None),
        ("connection: Upgrade\r\n", "connection: close\r\n", 426, "upgrade_required", None),
        ("version: 13", "version: 8", 426, "websocket_version", Some("sec-websocket-version")),
        ("key: dGhl", "key: !", 400, "bad_websocket_key", Some("sec-websocket-key")),
        (
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "",
            400,
            "bad_websocket_key",
            Some("sec-websocket-key"),
        ),
    ] {
        let head = good.replace(line, instead);
        assert_ne!(head, good);
        let answer = node.viewer_door().say(format!("{head}\r\n").as_bytes()).await.unwrap();
        answer.is_problem(status, code, field);
        let version = (code == "websocket_version").then_some("13");
        assert_eq!(answer.header("sec-websocket-version"), version);
    }
    for (query, field) in [
        ("cursor=7", "cursor"),
        ("cursor=00000000000000ff:", "cursor"),
        ("seen=xyz:1", "seen"),
        ("seen=00000000000000ff:9007199254740992", "seen"),
        ("device=%00", "device"),
        ("device=%ff", "device"),
    ] {
        let answer = handshake(&node, &format!("/v1/rooms/r1/ws?{query}"), "").await;
        answer.is_problem(400, "bad_query", Some(field));
    }
    let long = format!("/v1/rooms/r1/ws?device={}", "d".repeat(65));
    handshake(&node, &long, "").await.is_problem(400, "bad_query", Some("device"));
    for room in ["a%20b", "%2e", ".%2E"] {
        let answer = handshake(&node, &format!("/v1/rooms/{room}/ws"), "").await;
        answer.is_problem(400, "bad_room", Some("room"));
    }
    let room = "r".repeat(129);
    handshake(&node, &format!("/v1/rooms/{room}/ws"), "").await.is_problem(400, "bad_room", Some("room"));
    handshake(&node, "/v1/rooms/r1/chat", "").await.is_problem(404, "not_found", None);
    let posted = node.viewer_door().request("POST", "/v1/rooms/r1/ws", &[], b"").await;
    posted.is_problem(405, "method_not_allowed", None);
    let refused = "roomcast_handshakes_refused_total";
    node.metrics_when("refusals", |metrics| metrics.sum(refused, &["bad_request"]) == 17).await;
    assert_eq!(node.metrics().await.sum("roomcast_handshakes_accepted_total", &[]), 0);
}

async fn the_subprotocol_chosen_is_the_first_that_is_ours(shards: usize) {
    let node = Node::start(shards);
    for (offered, chosen) in [
        ("roomcast.v1.json", "roomcast.v1.json"),
        ("roomcast.v1.proto", "roomcast.v1.proto"),
        ("chat, roomcast.v1.proto, roomcast.v1.json", "roomcast.v1.proto"),
    ] {
        let lines = format!("sec-websocket-protocol: {offered}\r\n");
        let answer = handshake(&node, "/v1/rooms/r1/ws", &lines).await;
        assert_eq!(
            (answer.status, answer.header("sec-websocket-protocol")),
            (101, Some(chosen)),
            "{offered}"
        );
    }
    // A token alone can't be echoed: a browser would drop the connection without a reason.
    for foreign in ["graphql-ws", "roomcast.token.abc"] {
        let line = format!("sec-websocket-protocol: {foreign}\r\n");
        let answer = handshake(&node, "/v1/rooms/r1/ws", &line).await;
        answer.is_problem(400, "no_subprotocol", Some("sec-websocket-protocol"));
    }
    // Without an offer, the encoding is JSON.
    let silent = Handshake { headers: Vec::new(), ..Handshake::new(Encoding::Json) };
    assert_eq!(Device::join_with(&node, "r1", silent).await.subprotocol, None);
}

async fn only_listed_origins_may_join_and_read(shards: usize) {
    let node = Node::with(shards, &[("VIEWER__ORIGINS", r#"["https://shop.example"]"#)]);
    node.configure("r1", &json!({})).await;
    for (origin, is_listed) in [
        ("https://shop.example", true),
        ("https://shop.example.evil", false),
        ("http://shop.example", false),
        ("https://SHOP.example", false),
        ("http://localhost", false),
        ("null", false),
        ("", false),
    ] {
        let line = format!("origin: {origin}\r\n");
        let answer = handshake(&node, "/v1/rooms/r1/ws", &line).await;
        let read =
            node.viewer_door().request("GET", "/v1/rooms/r1/history", &[("origin", origin)], b"").await;
        let twice = format!("origin: https://shop.example\r\n{line}");
        let twice = handshake(&node, "/v1/rooms/r1/ws", &twice).await;
        twice.is_problem(403, "origin_not_allowed", Some("origin"));
        if is_listed {
            assert_eq!((answer.status, read.status), (101, 200), "{origin}");
        } else {
            answer.is_problem(403, "origin_not_allowed", Some("origin"));
            read.is_problem(403, "origin_not_allowed", Some("origin"));
            assert_eq!(read.header("access-control-allow-origin"), None);
        }
    }
    // Apps are no pages and send no origin.
    assert_eq!(handshake(&node, "/v1/rooms/r1/ws", "").await.status, 101);
}

async fn by_default_only_pages_of_this_machine_may_join(shards: usize) {
    let node = Node::start(shards);
    for (origin, status) in [
        ("http://localhost:3000", 101),
        ("http://127.0.0.1", 101),
        // Any page can have a frame without an origin of its own.
        ("null", 403),
        ("https://shop.example", 403),
        ("http://localhost.evil.example", 403),
    ] {
        let answer = handshake(&node, "/v1/rooms/r1/ws", &format!("origin: {origin}\r\n")).await;
        assert_eq!(answer.status, status, "{origin}");
    }
}

async fn a_page_of_a_listed_origin_may_read_what_was_sent(shards: usize) {
    let node = Node::with(shards, &[("VIEWER__ORIGINS", r#"["https://shop.example"]"#)]);
    node.chat("r1", 0..1).await;
    let headers = [("origin", "https://shop.example")];
    let answer = node.viewer_door().request("GET", "/v1/rooms/r1/history", &headers, b"").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.example"));
    assert_eq!(answer.header("vary"), Some("Origin"));
    assert_eq!(answer.header("access-control-expose-headers"), Some("Retry-After"));
    let headers = [("origin", "https://shop.example"), ("access-control-request-method", "GET")];
    let answer = node.viewer_door().request("OPTIONS", "/v1/rooms/r1/history", &headers, b"").await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.example"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("authorization"));
    // A page reads problems as well.
    let headers = [("origin", "https://shop.example")];
    let answer = node.viewer_door().request("GET", "/v1/rooms/none/history", &headers, b"").await;
    answer.is_problem(404, "room_not_open", Some("room"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.example"));
    // Reliable messages are read in the same way.
    let door = node.viewer_door();
    let answer = door.request("OPTIONS", "/v1/rooms/r1/reliable", &headers, b"").await;
    assert_eq!((answer.status, answer.header("access-control-allow-methods")), (204, Some("GET")));
    let answer = door.request("GET", "/v1/rooms/r1/reliable?after=7", &headers, b"").await;
    answer.is_problem(400, "bad_query", Some("after"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.example"));
    let stranger = [("origin", "https://elsewhere.example")];
    let answer = door.request("GET", "/v1/rooms/r1/reliable", &stranger, b"").await;
    answer.is_problem(403, "origin_not_allowed", Some("origin"));
}

const SECRET: &str = "thirty-two bytes are what HS256 asks for";
const KEYS: &str = r#"[{alg = "HS256", secret = "thirty-two bytes are what HS256 asks for"}]"#;

/// A token with these claims, signed with the node's key.
fn token(claims: &Value) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

/// A claim: the moment `seconds` from now, in Unix seconds.
fn in_seconds(seconds: i64) -> i64 {
    i64::try_from(roomcast::clock::now().unix_ms / 1000).unwrap() + seconds
}

async fn a_token_opens_the_rooms_it_names(shards: usize) {
    let node = Node::with(shards, &[("AUTH__DEVICE_KEYS", KEYS)]);
    node.configure("r1", &json!({})).await;
    let soon = in_seconds(600);
    let good = json!({"exp": soon, "rooms": ["r1", "live-*"]});
    let other_key = EncodingKey::from_secret(b"some other secret of at least 32 bytes");
    let forged = encode(&Header::new(Algorithm::HS256), &good, &other_key).unwrap();
    let unsigned = "eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTksInJvb21zIjpbInIxIl19.".to_owned();
    for (token, status, code) in [
        (String::new(), 401, "token_missing"),
        ("garbage".to_owned(), 401, "token_invalid"),
        (forged, 401, "token_invalid"),
        (unsigned, 401, "token_invalid"),
        (token(&json!({"exp": in_seconds(-600), "rooms": ["r1"]})), 401, "token_expired"),
        (token(&json!({"rooms": ["r1"]})), 401, "token_invalid"),
        (token(&json!({"exp": soon.to_string(), "rooms": ["r1"]})), 401, "token_invalid"),
        (token(&json!({"exp": soon})), 401, "token_invalid"),
        (token(&json!({"exp": soon, "rooms": ["r2", "r"]})), 403, "room_not_granted"),
    ] {
        let field = if status == 401 { "token" } else { "room" };
        let answer = handshake(&node, &format!("/v1/rooms/r1/ws?token={token}"), "").await;
        answer.is_problem(status, code, Some(field));
        assert!(answer.json()["allowed"].is_string(), "{answer:?}");
        for page in ["history", "reliable"] {
            let read = node.viewer_door().get(&format!("/v1/rooms/r1/{page}?token={token}")).await;
            read.is_problem(status, code, Some(field));
        }
    }
    let good = token(&good);
    let read = node.viewer_door().get(&format!("/v1/rooms/r1/history?token={good}")).await;
    assert_eq!(read.status, 200);
    // A room outside the token can't be joined later on either.
    let handshake = Handshake::new(Encoding::Proto).query(format!("token={good}"));
    let mut device = Device::join_with(&node, "r1", handshake).await;
    device.join_further("live-7").await;
    device.say(&json!({"kind": "join", "room": "r2"})).await;
    let error = device.notice("error").await;
    assert_eq!((&error["code"], &error["room"]), (&json!("room_not_granted"), &json!("r2")));
}

async fn a_token_may_come_in_the_header_the_query_or_as_a_subprotocol(shards: usize) {
    let node = Node::with(shards, &[("AUTH__DEVICE_KEYS", KEYS)]);
    let token = token(&json!({"exp": in_seconds(600), "rooms": ["*"]}));
    for (query, lines) in [
        (format!("?token={token}"), String::new()),
        (String::new(), format!("authorization: Bearer {token}\r\n")),
        (String::new(), format!("sec-websocket-protocol: roomcast.v1.json, roomcast.token.{token}\r\n")),
    ] {
        let answer = handshake(&node, &format!("/v1/rooms/r1/ws{query}"), &lines).await;
        assert_eq!(answer.status, 101, "{query}{lines}");
        let echoed = lines.contains("v1.json").then_some("roomcast.v1.json");
        assert_eq!(answer.header("sec-websocket-protocol"), echoed, "the token is not echoed");
    }
}

/// Every log line of this process, at every level.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<u8>>>);

impl io::Write for Logs {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Logs {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn logs() -> &'static Logs {
    static LOGS: OnceLock<Logs> = OnceLock::new();
    LOGS.get_or_init(|| {
        let logs = Logs::default();
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(logs.clone())
            .try_init()
            .unwrap();
        logs
    })
}

async fn a_token_is_in_no_answer_no_metric_and_no_log(shards: usize) {
    const CANARY: &str = "canary-that-must-not-sing";
    let logs = logs();
    let hash = r#"["sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"]"#;
    let node = Node::with(shards, &[("AUTH__DEVICE_KEYS", KEYS), ("PUBLISHER__KEYS", hash)]);
    // One token is refused and one is let in. The canary is in the claims of the second, and so in its text.
    let granted = token(&json!({"exp": in_seconds(600), "rooms": ["r1"], "sub": CANARY}));
    let mut answers = Vec::new();
    for canary in [CANARY, &granted] {
        for (query, lines) in [
            (format!("?token={canary}"), String::new()),
            (String::new(), format!("authorization: Bearer {canary}\r\n")),
            (String::new(), format!("authorization: {canary}\r\n")),
            (String::new(), format!("sec-websocket-protocol: roomcast.v1.json, roomcast.token.{canary}\r\n")),
            (format!("?token={canary}&seen={canary}"), String::new()),
        ] {
            answers.push(handshake(&node, &format!("/v1/rooms/r1/ws{query}"), &lines).await);
            answers.push(handshake(&node, &format!("/v1/rooms/r2/ws{query}"), &lines).await);
            answers.push(node.viewer_door().get(&format!("/v1/rooms/r1/history{query}")).await);
        }
        let authorization = format!("Bearer {canary}");
        let headers = [("authorization", authorization.as_str())];
        answers.push(node.publisher_door().request("GET", "/v1/rooms", &headers, b"").await);
    }
    assert!(answers.iter().any(|answer| answer.status == 101));
    assert!(answers.iter().any(|answer| answer.status == 401));
    let told = answers
        .iter()
        .map(|answer| format!("{:?} {}", answer.headers, String::from_utf8_lossy(&answer.body)));
    let told: String = told.chain([node.metrics().await.0]).collect();
    let logged = String::from_utf8(logs.0.lock().unwrap().clone()).unwrap();
    assert!(!logged.is_empty(), "the logs were captured");
    for canary in [CANARY, &granted, SECRET] {
        assert!(!told.contains(canary), "told: {canary}");
        assert!(!logged.contains(canary), "logged: {canary}");
    }
}

async fn a_request_has_exactly_one_host_at_every_door(shards: usize) {
    let node = Node::start(shards);
    for (door, path) in [
        (node.viewer_door(), "/v1/rooms/r1/ws"),
        (node.viewer_door(), "/v1/rooms/r1/history"),
        (node.publisher_door(), "/v1/rooms"),
        (node.ops_door(), "/healthz"),
    ] {
        for hosts in ["", "host: localhost\r\nhost: localhost\r\n", "host: a b/@?#\r\n"] {
            let request = format!("GET {path} HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
            door.say(request.as_bytes()).await.unwrap().is_problem(400, "bad_host", Some("host"));
        }
    }
}

async fn a_head_too_large_is_refused(shards: usize) {
    let node = Node::start(shards);
    for door in [node.viewer_door(), node.publisher_door(), node.ops_door()] {
        let long = "x".repeat(HEAD_BYTES_MAX);
        let request = format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nlong: {long}\r\n\r\n");
        let answer = door.say(request.as_bytes()).await;
        answer.unwrap().is_problem(431, "head_too_large", None);
    }
    for door in ["viewer", "publisher", "operator"] {
        let door = format!("door=\"{door}\"");
        node.metrics_when("what hyper refused by itself counts", |metrics| {
            metrics.sum("roomcast_http_requests_total", &[&door, "status=\"4xx\""]) == 1
        })
        .await;
    }
}

async fn the_viewer_doors_page_is_read_and_nothing_else(shards: usize) {
    let node = Node::start(shards);
    for (method, status) in [("GET", 200), ("HEAD", 200), ("POST", 405), ("DELETE", 405)] {
        let answer = node.viewer_door().request(method, "/", &[], b"").await;
        assert_eq!(answer.status, status, "{method}");
        assert_eq!(answer.header("allow"), (status == 405).then_some("GET, HEAD"), "{method}");
    }
}

async fn the_viewer_door_answers_once_per_connection(shards: usize) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let node = Node::start(shards);
    let mut stream = tokio::net::TcpStream::connect(node.viewer).await.unwrap();
    let request = "GET /v1/rooms/r1/history HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = comes("an answer", support::publisher::read_answer(&mut stream)).await.unwrap();
    answer.is_problem(404, "room_not_open", Some("room"));
    assert_eq!(answer.header("connection"), Some("close"));
    let mut rest = Vec::new();
    comes("the end", stream.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
}

async fn health_and_readiness_are_told(shards: usize) {
    let node = Node::start(shards);
    let door = node.ops_door();
    let health = door.get("/healthz").await;
    assert_eq!((health.status, health.json()), (200, json!({"status": "ok"})));
    let ready = door.get("/readyz").await;
    assert_eq!((ready.status, ready.json()), (200, json!({"status": "ready"})));
    let metrics = door.get("/metrics").await;
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let metrics = node.metrics().await;
    assert!(metrics.sum("roomcast_cpu_microseconds_total", &[]) > 0, "it has started");
    assert!(metrics.sum("roomcast_resident_bytes", &[]) > 1 << 20, "as much as its program");
    assert_eq!(door.request("HEAD", "/healthz", &[], b"").await.status, 200);
    door.request("POST", "/healthz", &[], b"").await.is_problem(405, "method_not_allowed", None);
    door.get("/v1/rooms").await.is_problem(404, "not_found", None);
}

/// The image of a container has no other program that could ask.
#[tokio::test]
async fn a_container_asks_its_own_node_for_its_health() {
    let node = Node::start(1);
    let ask = |ops_listen: String| {
        let mut health = Command::new(env!("CARGO_BIN_EXE_roomcast"));
        health.args(["health", "--insecure", "--ops-listen", &ops_listen]).output().unwrap()
    };
    let healthy = ask(format!("0.0.0.0:{}", node.ops.port()));
    assert_eq!((healthy.status.code(), &*healthy.stdout), (Some(0), &b"{\"status\":\"ok\"}\n"[..]));
    let other = ask(node.publisher.to_string());
    assert_eq!(other.status.code(), Some(1), "no operator door answers there");
    assert!(String::from_utf8_lossy(&other.stderr).contains("404"), "{other:?}");
}

/// `roomcast cluster status` with these arguments.
fn cluster_status(args: &[&str]) -> Output {
    let mut status = Command::new(env!("CARGO_BIN_EXE_roomcast"));
    status.args(["cluster", "status"]).args(args).env_clear().output().unwrap()
}

#[tokio::test]
async fn a_lone_node_says_that_it_has_no_cluster() {
    // The hash of "secret".
    let hash = "['sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b']";
    let node = Node::with(1, &[("OPS__KEYS", hash)]);
    let folder = Folder::new();
    let key = folder.path().join("key");
    fs::write(&key, "secret\n").unwrap();
    let with_key = &[("authorization", "Bearer secret")];
    let answer = node.ops_door().request("GET", "/v1/ops/cluster", with_key, b"").await;
    answer.is_problem(404, "no_cluster", None);
    let posted = node.ops_door().request("POST", "/v1/ops/cluster", with_key, b"").await;
    posted.is_problem(405, "method_not_allowed", None);
    let url = format!("http://{}", node.ops);
    let ops_listen = node.ops.to_string();
    let key = key.to_str().unwrap();
    for (args, code, why) in [
        (&["--ops-door", &url, "--ops-key-file", key][..], 2, "404 no_cluster: this node is alone"),
        (&["--ops-listen", &ops_listen, "--ops-key-file", key], 2, "404 no_cluster: this node is alone"),
        (&["--ops-door", &url], 2, "401 key_missing: "),
        (&["--ops-door", "ftp://nowhere"], 1, "--ops-door: \"ftp://nowhere\" is no URL of a door"),
        (&["--ops-door", &url, "--ops-key-file", "/nowhere"], 1, "--ops-key-file: /nowhere can't be read"),
        (&["--ops-listen", "nowhere"], 1, "ops.listen"),
        (&["--ops-doors", &url], 1, "--ops-doors"),
    ] {
        let said = cluster_status(args);
        let stderr = String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(why) && said.stdout.is_empty(), "{args:?}: {stderr}");
    }
}

/// A full disk: every write of the store fails, until the limit is lifted.
async fn a_store_that_fails_is_told_to_balancers_and_heals(shards: usize) {
    let name = format!("failing-store-{shards}-{}", std::process::id());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let node = Process::storing_in(&folder, shards).await;
    let doors = node.doors;
    let coupon = |n: u64| json!({"type": "coupon", "payload": n, "id": format!("c-{n}")});
    assert_eq!(doors.publish("r1", &coupon(1)).await, ["durable"]);
    node.limit_files(Some(4096));
    let refused = doors.publisher_door().publish("r1", &coupon(2)).await;
    refused.is_problem(503, "store_failing", None);
    assert_eq!(refused.results(), ["unavailable: store_failing"]);
    let not_ready = doors.ops_door().get("/readyz").await;
    assert_eq!(not_ready.status, 503);
    let not_ready = not_ready.json();
    assert_eq!(not_ready["reasons"], json!(["store_failing"]));
    assert!(not_ready["store_failing"]["since"].as_u64() > Some(1_700_000_000_000), "{not_ready}");
    assert!(!not_ready["store_failing"]["why"].as_str().unwrap().is_empty(), "{not_ready}");
    doors.chat("r1", 0..1).await;
    let metrics = doors.metrics().await;
    assert_eq!(metrics.sum("roomcast_store_failing", &[]), 1);
    assert!(metrics.sum("roomcast_store_failures_total", &[]) >= 1);
    doors
        .metrics_when("what was refused", |metrics| {
            metrics.sum("roomcast_messages_unavailable_total", &["store_failing"]) >= 1
        })
        .await;
    node.limit_files(None);
    until("a coupon", async || {
        let answer = doors.publisher_door().publish("r1", &coupon(2)).await;
        (answer.status == 200).then_some(())
    })
    .await;
    let ready = doors.ops_door().get("/readyz").await;
    assert_eq!((ready.status, ready.json()), (200, json!({"status": "ready"})));
    assert_eq!(doors.metrics().await.sum("roomcast_store_failing", &[]), 0);
    assert!(doors.metrics().await.sum("roomcast_store_reopenings_total", &[]) >= 1);
    drop(node);
    fs::remove_dir_all(folder).unwrap();
}

async fn every_metric_that_is_defined_is_shown(shards: usize) {
    let node = Node::start(shards);
    let mut device = Device::join(&node, "r1", Encoding::Json).await;
    node.chat("r1", 0..1).await;
    assert_eq!(device.numbers(1).await, [0]);
    let coupon = json!({"type": "coupon", "payload": 5});
    assert_eq!(node.publish("r1", &coupon).await, ["durable"]);
    device.say(&json!({"kind": "ack", "offset": 9})).await;
    // A lone node has no link to another one.
    let rows = || DEFINITIONS.iter().filter(|row| !row.labels.contains(&"peer"));
    let metrics = node
        .metrics_when("all metrics", |metrics| {
            rows().all(|row| metrics.0.contains(&format!("# TYPE {} ", row.name)))
        })
        .await;
    for row in rows() {
        assert!(metrics.0.contains(&format!("# HELP {} {}", row.name, row.help)), "{}", row.name);
        let series: Vec<&str> =
            metrics.0.lines().filter(|line| !line.starts_with('#') && line.starts_with(row.name)).collect();
        assert!(!series.is_empty(), "{} has a series from the start", row.name);
    }
    let metrics = node
        .metrics_when("what this device caused", |metrics| {
            let is_one = |name| metrics.sum(name, &[]) == 1;
            let of_class = |class| metrics.sum("roomcast_messages_accepted_total", &[class]);
            // The room's audience is accepted too, once its second has come.
            is_one("roomcast_handshakes_accepted_total")
                && of_class("class=\"normal\"") == 1
                && of_class("class=\"reliable\"") == 1
                && is_one("roomcast_store_commits_total")
                && is_one("roomcast_store_messages_total")
                && is_one("roomcast_acks_ignored_total")
                && is_one("roomcast_connections")
                && is_one("roomcast_members")
                && is_one("roomcast_rooms")
                && metrics.sum("roomcast_publish_to_write_seconds_count", &[]) >= 1
        })
        .await;
    assert!(!metrics.0.contains("r1"), "no label tells a room");
}

async fn pages_that_nobody_reads_are_bounded_in_number(shards: usize) {
    let node = Node::start(shards);
    let large = json!({"type": "chat", "payload": "x".repeat(16_000)});
    for _ in 0..15 {
        node.publish("r1", &large).await;
    }
    // Only the whole history makes a page that is too large for the kernel to take at once.
    until("the whole history", async || {
        let page = node.viewer_door().get("/v1/rooms/r1/history").await.json();
        page["history"].as_array().filter(|history| history.len() == 15).map(Vec::len)
    })
    .await;
    let request = format!("GET /v1/rooms/r1/history HTTP/1.1\r\nhost: {}\r\n\r\n", node.viewer);
    let mut unread = Vec::new();
    // More than there are places, and than may wait for one.
    for _ in 0..PULLS_MAX * 2 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(node.viewer).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        unread.push(stream);
    }
    let mut refused = 0;
    for stream in &unread {
        let mut head = [0; 64];
        comes("the beginning of an answer", stream.readable()).await.unwrap();
        let read = stream.try_read(&mut head).unwrap();
        refused += usize::from(head[..read].starts_with(b"HTTP/1.1 503"));
    }
    assert!(refused >= 1, "the places are bounded");
    let page = until("a page", async || {
        Some(node.viewer_door().get("/v1/rooms/r1/history").await).filter(|answer| answer.status == 200)
    });
    assert!(!page.await.json()["history"].as_array().unwrap().is_empty());
}

async fn connections_past_the_seats_are_refused_before_they_are_upgraded(shards: usize) {
    // As many descriptors as a node keeps back, and 20 for devices.
    let node = Process::with_descriptors(shards, 148).await;
    let doors = node.doors;
    let mut devices = Vec::new();
    for _ in 0..20 {
        devices.push(Device::join(&doors, "r1", Encoding::Json).await);
    }
    handshake(&doors, "/v1/rooms/r1/ws", "").await.is_problem(503, "connections_full", None);
    // The other doors stay open, and the connected devices hear on.
    doors.chat("r1", 0..1).await;
    for device in &mut devices {
        assert_eq!(device.numbers(1).await, [0]);
    }
    // A place that was given back can be taken.
    devices.pop().unwrap().close().await;
    until("a free seat", async || Device::try_join(&doors, "r1", Handshake::new(Encoding::Proto)).await.ok())
        .await;
}

async fn joins_past_the_rate_are_told_when_to_come_back_and_nothing_else_suffers(shards: usize) {
    let node = Node::with(shards, &[("VIEWER__JOINS_PER_SECOND", "1")]);
    let mut device = Device::join(&node, "r1", Encoding::Json).await;
    let mut moments = BTreeSet::new();
    let mut let_in = 0;
    // A slow machine may need long for 40 refusals; the node may let a device in each second meanwhile.
    let mut refused = 0;
    while refused < 40 {
        let answer = handshake(&node, "/v1/rooms/r1/ws", "").await;
        if answer.status == 101 {
            let_in += 1;
            continue;
        }
        answer.is_problem(503, "joining_too_fast", None);
        assert_eq!(answer.header("connection"), Some("close"));
        let moment: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=JOIN_RETRY_AFTER_MAX.as_secs()).contains(&moment), "{moment}");
        moments.insert(moment);
        refused += 1;
    }
    assert!(moments.len() > 5, "they are to come back one by one: {moments:?}");
    // Connected devices hear on, and join further rooms.
    node.chat("r1", 0..3).await;
    assert_eq!(device.numbers(3).await, [0, 1, 2]);
    for room in ["r2", "r3", "r4"] {
        device.join_further(room).await;
    }
    let metrics = node.metrics().await;
    assert_eq!(metrics.sum("roomcast_handshakes_refused_total", &["too_fast"]), refused);
    // After the wait, joins work again.
    until("a place in the rate", async || {
        Device::try_join(&node, "r1", Handshake::new(Encoding::Proto)).await.ok()
    })
    .await;
    let came_in = node.metrics().await.sum("roomcast_handshakes_accepted_total", &[]);
    assert!(came_in >= let_in + 2, "{came_in} of at least {let_in} and two");
}

async fn a_stranger_takes_no_place_in_the_rate(shards: usize) {
    let node = Node::with(shards, &[("AUTH__DEVICE_KEYS", KEYS), ("VIEWER__JOINS_PER_SECOND", "1")]);
    for _ in 0..20 {
        handshake(&node, "/v1/rooms/r1/ws", "").await.is_problem(401, "token_missing", Some("token"));
    }
    let token = token(&json!({"exp": in_seconds(600), "rooms": ["r1"]}));
    assert_eq!(handshake(&node, &format!("/v1/rooms/r1/ws?token={token}"), "").await.status, 101);
}
