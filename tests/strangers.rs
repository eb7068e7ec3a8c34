//! Doors without keys and strangers' web pages; the operators' keys; devices whose token ends.
#![expect(clippy::unwrap_used, reason = "clippy sees only #[test] functions as tests, and these serve them")]

mod support;

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;
use support::{Device, Door, Encoding, Handshake, Heard, Node, one_and_four_shards};

one_and_four_shards!(
    an_open_door_answers_no_stranger_s_page,
    a_door_with_keys_takes_any_host_and_asks_for_a_key,
    a_configured_host_reaches_the_open_doors,
    a_device_whose_token_ends_is_closed_unless_it_sends_a_fresh_one,
);

/// The SHA-256 of `secret`.
const SECRET_HASH: &str = "['sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b']";

/// A request without a body and with exactly these header lines, and its status and code.
async fn outcome(door: Door, method: &str, path: &str, lines: &str) -> (u16, String) {
    let request = format!("{method} {path} HTTP/1.1\r\n{lines}connection: close\r\n\r\n");
    let answer = door.say(request.as_bytes()).await.unwrap();
    let is_problem = answer.status >= 400;
    (
        answer.status,
        if is_problem { answer.json()["code"].as_str().unwrap().to_owned() } else { String::new() },
    )
}

async fn an_open_door_answers_no_stranger_s_page(shards: usize) {
    let node = Node::start(shards);
    let own = format!("host: {}\r\n", node.publisher);
    let doors = [
        (node.publisher_door(), "PUT", "/v1/rooms/r1"),
        (node.ops_door(), "GET", "/metrics"),
        (node.ops_door(), "GET", "/v1/ops/ladder"),
    ];
    for (door, method, path) in doors {
        for lines in [&own, "host: localhost\r\n", "host: [::1]:9\r\n", "host: LocalHost:7601\r\n"] {
            assert_eq!(outcome(door, method, path, lines).await.0, 200, "{path} {lines}");
        }
        for host in ["evil.example", "evil.example:7601", "localhost.evil.example", "10.9.9.9"] {
            let refused = outcome(door, method, path, &format!("host: {host}\r\n")).await;
            assert_eq!(refused, (421, "host_not_allowed".to_owned()), "{path} {host}");
        }
        let from = |page: &str| format!("{own}origin: {page}\r\n");
        for page in ["http://localhost:3000", "http://127.0.0.1:7601"] {
            assert_eq!(outcome(door, method, path, &from(page)).await.0, 200, "{path} {page}");
        }
        for page in ["https://evil.example", "null", "http://localhost.evil.example"] {
            let refused = outcome(door, method, path, &from(page)).await;
            assert_eq!(refused, (403, "origin_not_allowed".to_owned()), "{path} {page}");
        }
    }
    // A page under a name of its own could read a room's history: its own requests have no Origin.
    let (door, page) = (node.viewer_door(), "/v1/rooms/r1/history");
    assert_eq!(outcome(door, "GET", page, "host: evil.example\r\n").await.0, 421);
    assert_eq!(outcome(door, "GET", page, &own).await.0, 200);
    // Balancers ask by any name.
    for path in ["/healthz", "/readyz"] {
        assert_eq!(outcome(node.ops_door(), "GET", path, "host: balancer.example\r\n").await.0, 200);
    }
}

async fn a_door_with_keys_takes_any_host_and_asks_for_a_key(shards: usize) {
    let node = Node::with(shards, &[("OPS__KEYS", SECRET_HASH), ("PUBLISHER__KEYS", SECRET_HASH)]);
    let stranger = "host: node.example\r\n";
    let with_key = "host: node.example\r\nauthorization: Bearer secret\r\n";
    let wrong = "host: node.example\r\nauthorization: Bearer sesame\r\n";
    for (door, method, path) in [
        (node.ops_door(), "GET", "/metrics"),
        (node.ops_door(), "GET", "/v1/ops/ladder"),
        (node.ops_door(), "GET", "/nothing"),
        (node.publisher_door(), "PUT", "/v1/rooms/r1"),
    ] {
        assert_eq!(outcome(door, method, path, stranger).await, (401, "key_missing".to_owned()), "{path}");
        assert_eq!(outcome(door, method, path, wrong).await, (401, "key_unknown".to_owned()), "{path}");
        assert_ne!(outcome(door, method, path, with_key).await.0, 401, "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(outcome(node.ops_door(), "GET", path, stranger).await.0, 200, "{path} asks nobody");
    }
}

async fn a_configured_host_reaches_the_open_doors(shards: usize) {
    let node = Node::with(shards, &[("HOSTS", "['node.example']")]);
    let lines = "host: Node.example:80\r\norigin: https://node.example\r\n";
    assert_eq!(outcome(node.publisher_door(), "PUT", "/v1/rooms/r1", lines).await.0, 200);
    let other = "host: other.example\r\n";
    assert_eq!(outcome(node.publisher_door(), "PUT", "/v1/rooms/r1", other).await.0, 421);
}

const SECRET: &str = "thirty-two bytes are what HS256 asks for";
const KEYS: &str = r#"[{alg = "HS256", secret = "thirty-two bytes are what HS256 asks for"}]"#;

/// A token for every room that ends in `seconds`.
fn token(seconds: u64) -> String {
    let exp = roomcast::clock::now().unix_ms / 1000 + seconds;
    let claims = json!({"exp": exp, "rooms": ["*"]});
    encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

async fn a_device_whose_token_ends_is_closed_unless_it_sends_a_fresh_one(shards: usize) {
    let node = Node::with(shards, &[("AUTH__DEVICE_KEYS", KEYS)]);
    let mut leaving = Vec::new();
    let mut staying = Vec::new();
    for encoding in Encoding::ALL {
        let handshake = || Handshake::new(encoding).query(format!("token={}", token(3)));
        leaving.push(Device::join_with(&node, "r1", handshake()).await);
        let mut device = Device::join_with(&node, "r1", handshake()).await;
        device.say(&json!({"kind": "token", "token": token(600)})).await;
        assert!(device.notice("token").await["exp"].as_u64().unwrap() > 600);
        staying.push(device);
    }
    for device in &mut leaving {
        assert_eq!(device.end().await, Heard::Closed(4006));
    }
    node.chat("r1", 0..1).await;
    for device in &mut staying {
        assert_eq!(device.numbers(1).await, [0]);
    }
}
