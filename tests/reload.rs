//! A node that reads its configuration again on SIGHUP, and a node with too few descriptors.
#![expect(clippy::unwrap_used, reason = "clippy sees only #[test] functions as tests, and these serve them")]

mod support;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use jsonwebtoken::{EncodingKey, Header, encode};
use roomcast_core::limits::DESCRIPTORS_KEPT;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::Signal;
use serde_json::json;
use support::publisher::read_answer;
use support::{
    Device, Door, Doors, Encoding, Folder, Handshake, Metrics, Process, comes, one_and_four_shards, until,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

one_and_four_shards!(
    a_hangup_changes_keys_types_and_limits_and_costs_no_device_its_connection,
    a_configuration_with_a_mistake_changes_nothing_and_stops_nothing,
    a_door_does_not_lose_its_keys_before_it_has_moved_to_loopback,
    a_device_of_an_open_door_needs_a_token_for_further_rooms_once_the_door_is_locked,
    a_stop_is_heard_while_a_reload_waits_for_its_file,
    a_file_that_does_not_end_is_refused_and_the_next_reload_is_heard,
    a_publish_under_way_keeps_the_limit_of_its_key,
    used_up_descriptors_are_told_by_readiness,
    a_crowd_of_viewers_takes_no_publisher_away,
);

/// The SHA-256 of `secret`, and of `key`.
const SECRET_HASH: &str = "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
const KEY_HASH: &str = "sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683";

const SECRET: &str = "thirty-two bytes are what HS256 asks for";

/// A node's file, which a test changes while the node runs.
struct File(PathBuf);

impl File {
    fn in_folder(folder: &Folder, text: &str) -> Self {
        let file = Self(folder.path().join("node.toml"));
        file.holds(text);
        file
    }

    fn holds(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }

    async fn serve(&self, folder: &Folder, shards: usize) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast"));
        command.arg("--config").arg(&self.0);
        Process::under(command, shards, &folder.path().join("data")).await
    }
}

/// Waits until so many reloads ended like this.
async fn reloads(doors: &Doors, outcome: &str, times: u64) {
    let label = format!("outcome=\"{outcome}\"");
    let is_so = |metrics: &Metrics| metrics.sum("roomcast_reloads_total", &[&label]) == times;
    doors.metrics_when("the reload", is_so).await;
}

/// Publishes with this key, and returns the status.
async fn status_with(door: Door, key: &str) -> u16 {
    let authorization = format!("Bearer {key}");
    let headers = [("content-type", "application/json"), ("authorization", authorization.as_str())];
    door.request("POST", "/v1/rooms/r1/messages", &headers, br#"{"type":"chat","payload":1}"#).await.status
}

async fn a_hangup_changes_keys_types_and_limits_and_costs_no_device_its_connection(shards: usize) {
    let folder = Folder::new();
    let file = File::in_folder(&folder, &format!("publisher.keys = ['{SECRET_HASH}']"));
    let node = file.serve(&folder, shards).await;
    let doors = node.doors;
    let mut device = Device::join(&doors, "r1", Encoding::Json).await;
    assert_eq!(status_with(doors.publisher_door(), "secret").await, 200);
    assert_eq!(status_with(doors.publisher_door(), "key").await, 401);
    file.holds(&format!(
        "publisher.keys = ['{KEY_HASH}']\nshards.hot_members = 7\n[types]\nvote = {{ class = 'counter' }}\n\
         [limits]\nroom_messages_per_second = 1\n[viewer]\norigins = ['https://shop.example']"
    ));
    node.signal(Signal::HUP);
    until("the new key", async || (status_with(doors.publisher_door(), "key").await != 401).then_some(()))
        .await;
    assert_eq!(status_with(doors.publisher_door(), "secret").await, 401, "the old key is no key any more");
    let headers = [("content-type", "application/json"), ("authorization", "Bearer key")];
    let publish = async |room: &str, body: &[u8]| {
        doors.publisher_door().request("POST", &format!("/v1/rooms/{room}/messages"), &headers, body).await
    };
    // A counter needs no payload, a type that is not configured does.
    assert_eq!(publish("r2", br#"{"type":"vote","count":3}"#).await.status, 200);
    // The open room follows the node's limit, and a new room has it.
    for room in ["r1", "r3"] {
        let statuses = until("the limit of the room", async || {
            let answer = publish(room, br#"{"type":"chat","payload":2}"#).await;
            (answer.status == 429).then_some(answer)
        });
        statuses.await.is_problem(429, "room_rate", None);
    }
    let preflight = |origin| {
        let door = doors.viewer_door();
        async move { door.request("GET", "/v1/rooms/r1/history", &[("origin", origin)], b"").await.status }
    };
    assert_eq!(preflight("https://shop.example").await, 200);
    assert_eq!(preflight("http://localhost:3000").await, 403);
    assert!(!device.numbers(1).await.is_empty(), "the device hears on");
    drop(node);
}

async fn a_configuration_with_a_mistake_changes_nothing_and_stops_nothing(shards: usize) {
    let folder = Folder::new();
    let file = File::in_folder(&folder, &format!("publisher.keys = ['{SECRET_HASH}']"));
    let mut node = file.serve(&folder, shards).await;
    let doors = node.doors;
    // The last file is what a reload finds that comes while the file is written.
    let wrong = format!("publisher.keys = ['{KEY_HASH}']\nflush.gather_ms = 0");
    let mistaken = [wrong, "publisher.keys = [".to_owned(), String::new()];
    for (before, mistaken) in mistaken.iter().enumerate() {
        file.holds(mistaken);
        node.signal(Signal::HUP);
        reloads(&doors, "refused", before as u64 + 1).await;
    }
    std::fs::remove_file(&file.0).unwrap();
    node.signal(Signal::HUP);
    reloads(&doors, "refused", mistaken.len() as u64 + 1).await;
    assert_eq!(status_with(doors.publisher_door(), "secret").await, 200);
    assert_eq!(status_with(doors.publisher_door(), "key").await, 401);
    node.signal(Signal::TERM);
    assert_eq!(node.exit_code().await, Some(0), "the drain came to its end");
}

async fn a_door_does_not_lose_its_keys_before_it_has_moved_to_loopback(shards: usize) {
    let folder = Folder::new();
    let file = File::in_folder(&folder, &format!("publisher.keys = ['{SECRET_HASH}']"));
    let mut command = Command::new("sh");
    // The flags of the test's node name doors on loopback, so this one takes its doors from its file alone.
    let listen = "listen = '0.0.0.0:0'";
    file.holds(&format!("[publisher]\n{listen}\nkeys = ['{SECRET_HASH}']\ninsecure = false"));
    command.args([
        "-c",
        "exec \"$0\" --config \"$1\" --viewer-listen 127.0.0.1:0 --ops-listen 127.0.0.1:0 \
        --shards \"$2\" --ephemeral",
    ]);
    command.arg(env!("CARGO_BIN_EXE_roomcast")).arg(&file.0).arg(shards.to_string());
    let node = Process::as_typed(command).await;
    let door = Door(([127, 0, 0, 1], node.doors.publisher.port()).into());
    assert_eq!(status_with(door, "secret").await, 200);
    file.holds("publisher.listen = '127.0.0.1:0'");
    node.signal(Signal::HUP);
    reloads(&node.doors, "refused", 1).await;
    assert_eq!(status_with(door, "none").await, 401, "the door is still on every address");
    assert_eq!(status_with(door, "secret").await, 200);
}

async fn a_device_of_an_open_door_needs_a_token_for_further_rooms_once_the_door_is_locked(shards: usize) {
    let folder = Folder::new();
    let file = File::in_folder(&folder, "[auth]");
    let node = file.serve(&folder, shards).await;
    let doors = node.doors;
    let mut device = Device::join(&doors, "r1", Encoding::Json).await;
    device.join_further("r2").await;
    file.holds(&format!("auth.device_keys = [{{ alg = 'HS256', secret = '{SECRET}' }}]"));
    node.signal(Signal::HUP);
    reloads(&doors, "done", 1).await;
    let refused = Device::try_join(&doors, "r1", Handshake::new(Encoding::Json)).await;
    assert!(refused.is_err(), "the door is locked");
    device.say(&json!({"kind": "join", "room": "r3"})).await;
    let error = device.notice("error").await;
    assert_eq!(error, json!({"kind": "error", "code": "token_missing", "room": "r3", "field": "room"}));
    doors.chat("r2", 0..3).await;
    assert_eq!(device.numbers(3).await, [0, 1, 2], "it keeps its rooms");
    let exp = roomcast::clock::now().unix_ms / 1000 + 600;
    let claims = json!({"exp": exp, "rooms": ["r*"]});
    let token = encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap();
    device.say(&json!({"kind": "token", "token": token})).await;
    assert_eq!(device.notice("token").await["exp"], exp);
    device.join_further("r3").await;
}

async fn a_stop_is_heard_while_a_reload_waits_for_its_file(shards: usize) {
    let folder = Folder::new();
    let file = File::in_folder(&folder, "");
    let mut node = file.serve(&folder, shards).await;
    // A pipe that nobody writes to, as a disk that hangs.
    std::fs::remove_file(&file.0).unwrap();
    assert!(Command::new("mkfifo").arg(&file.0).status().unwrap().success());
    node.signal(Signal::HUP);
    // A pipe opens for a writer that does not wait once a reader is there. A reload that comes after the stop
    // would meet a node that drains. The open end keeps the reader waiting.
    let flags = OFlags::WRONLY | OFlags::NONBLOCK;
    let _pipe = until("the reload opens its file", async || open(&file.0, flags, Mode::empty()).ok()).await;
    let answer = node.doors.ops_door().get("/healthz").await;
    assert_eq!(answer.status, 200);
    node.signal(Signal::TERM);
    assert_eq!(node.exit_code().await, Some(0));
}

async fn a_file_that_does_not_end_is_refused_and_the_next_reload_is_heard(shards: usize) {
    let folder = Folder::new();
    let file = File::in_folder(&folder, &format!("publisher.keys = ['{SECRET_HASH}']"));
    let node = file.serve(&folder, shards).await;
    let doors = node.doors;
    std::fs::remove_file(&file.0).unwrap();
    assert!(Command::new("mkfifo").arg(&file.0).status().unwrap().success());
    node.signal(Signal::HUP);
    reloads(&doors, "refused", 1).await;
    assert_eq!(status_with(doors.publisher_door(), "secret").await, 200);
    std::fs::remove_file(&file.0).unwrap();
    file.holds(&format!("publisher.keys = ['{KEY_HASH}']"));
    node.signal(Signal::HUP);
    reloads(&doors, "done", 1).await;
    assert_eq!(status_with(doors.publisher_door(), "key").await, 200);
}

/// The key stands at another place after the reload, which comes between the head and the body of a publish.
async fn a_publish_under_way_keeps_the_limit_of_its_key(shards: usize) {
    let folder = Folder::new();
    let limit = "limits.key_messages_per_second = 2";
    let file =
        File::in_folder(&folder, &format!("publisher.keys = ['{SECRET_HASH}', '{KEY_HASH}']\n{limit}"));
    let node = file.serve(&folder, shards).await;
    let body = json!({"messages": vec![json!({"type": "chat", "payload": 1}); 5]}).to_string();
    let mut stream = TcpStream::connect(node.doors.publisher).await.unwrap();
    let head = format!(
        "POST /v1/rooms/r1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         authorization: Bearer key\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The door says that it awaits the body, so it knows the key.
    let mut awaited = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    comes("the wait for the body", stream.read_exact(&mut awaited)).await.unwrap();
    file.holds(&format!("publisher.keys = ['{KEY_HASH}']\n{limit}"));
    node.signal(Signal::HUP);
    reloads(&node.doors, "done", 1).await;
    stream.write_all(body.as_bytes()).await.unwrap();
    let answer = comes("an answer", read_answer(&mut stream)).await.unwrap();
    let shed = "shed: key_rate";
    assert_eq!(answer.results(), ["accepted", "accepted", shed, shed, shed], "{answer:?}");
}

async fn a_crowd_of_viewers_takes_no_publisher_away(shards: usize) {
    let node = Process::with_descriptors(shards, 148).await;
    let doors = node.doors;
    let mut idle = Vec::new();
    // As many as the publisher door has for itself.
    for _ in 0..48 {
        let mut publisher = TcpStream::connect(doors.publisher).await.unwrap();
        publisher.write_all(b"GET /v1/rooms HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        assert_eq!(comes("an answer", read_answer(&mut publisher)).await.unwrap().status, 200);
        idle.push(publisher);
    }
    let mut crowd = Vec::new();
    for _ in 0..DESCRIPTORS_KEPT {
        crowd.push(TcpStream::connect(doors.viewer).await.unwrap());
    }
    let told = until("the crowd", async || {
        let answer = doors.ops_door().get("/readyz").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        Some(answer.json()).filter(|told| told.get("states").is_some())
    });
    let told = told.await;
    assert_eq!(
        (&told["states"], &told["descriptors"]["connections"]),
        (&json!(["viewer_door_full"]), &json!(0))
    );
    assert_eq!(status_with(doors.publisher_door(), "none").await, 200, "publishers go on");
}

async fn used_up_descriptors_are_told_by_readiness(shards: usize) {
    let node = Process::with_descriptors(shards, 148).await;
    let doors = node.doors;
    assert_eq!(doors.ops_door().get("/readyz").await.status, 200);
    let mut devices = Vec::new();
    for _ in 0..20 {
        devices.push(Device::join(&doors, "r1", Encoding::Json).await);
    }
    // Without a place for a device the node says so, and keeps the publishers of its rooms.
    let full = doors.ops_door().get("/readyz").await;
    assert_eq!(full.status, 200);
    let full = full.json();
    assert_eq!((&full["status"], &full["states"]), (&json!("ready"), &json!(["connections_full"])), "{full}");
    assert_eq!((&full["descriptors"]["connections"], &full["descriptors"]["max"]), (&json!(20), &json!(148)));
    assert_eq!(status_with(doors.publisher_door(), "none").await, 200);
    // Publishers who keep their connections use up what is left.
    let mut publishers = Vec::new();
    for _ in 0..DESCRIPTORS_KEPT {
        publishers.push(TcpStream::connect(doors.publisher).await.unwrap());
    }
    let used_up = until("all descriptors taken", async || {
        let answer = doors.ops_door().get("/readyz").await;
        (answer.status == 503).then_some(answer)
    });
    assert_eq!(used_up.await.json()["reasons"], json!(["descriptors_used_up"]));
    drop(publishers);
    devices.pop().unwrap().close().await;
    until("a free place", async || {
        let answer = doors.ops_door().get("/readyz").await;
        (answer.status == 200 && answer.json().get("states").is_none()).then_some(())
    })
    .await;
}

#[test]
fn a_node_with_too_few_descriptors_does_not_start_and_says_how_many_it_needs() {
    let start = |descriptors: u32, connections: &str| {
        let script = format!(
            "ulimit -n {descriptors}; exec \"$0\" --ephemeral --viewer-listen 127.0.0.1:0 \
            --publisher-listen 127.0.0.1:0 --ops-listen 127.0.0.1:0"
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_roomcast")]);
        shell.env("ROOMCAST__LIMITS__CONNECTIONS", connections).stdout(Stdio::null());
        shell.output().unwrap()
    };
    for (descriptors, connections, needed) in [(128, "0", "129"), (100, "0", "129"), (500, "1000", "1128")] {
        let ended = start(descriptors, connections);
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(2), "{told}");
        assert!(told.contains(&format!("is {descriptors},")) && told.contains(needed), "{told}");
    }
}
