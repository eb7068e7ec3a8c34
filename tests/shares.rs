//! The places of a node are shared by address: no address keeps the others out of half-open connections,
//! seats or pages, and behind a trusted proxy the address is the one that the proxy names.
#![expect(clippy::unwrap_used, reason = "clippy sees only #[test] functions as tests, and these serve them")]

mod support;

use std::net::SocketAddr;

use futures_util::future::{join_all, select_all};
use roomcast_core::limits::{BODY_AGE_MAX, DOOR_CONNECTIONS_MAX, FULL_DOOR_GRACE, HALF_OPEN_MAX, PULLS_MAX};
use serde_json::json;
use support::publisher::read_answer;
use support::raw::handshake_head;
use support::{
    Answer, Device, Doors, Encoding, Metrics, Node, Process, RawDevice, comes, one_and_four_shards, until,
};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

one_and_four_shards!(
    silence_from_one_address_keeps_no_other_out_of_a_door,
    bodies_that_do_not_come_keep_no_other_out_of_a_door,
    silence_from_one_address_keeps_no_other_out_of_a_node_with_few_descriptors,
    a_large_address_waits_at_a_door_that_others_hold,
    pages_that_one_address_does_not_read_keep_no_other_from_reading,
    an_address_with_all_seats_gives_way_to_another,
    a_trusted_proxy_names_the_address_and_a_stranger_does_not,
);

/// Addresses of this machine: a crowd's, and that of somebody else.
const CROWD: [u8; 4] = [127, 0, 0, 1];
const OTHER: [u8; 4] = [127, 0, 0, 2];

/// Connects from an address of this machine, with a small receive buffer.
async fn connect(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    comes("a connection", socket.connect(to)).await.unwrap()
}

/// Sends a request from an address, and reads the answer.
async fn ask(from: [u8; 4], to: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = connect(from, to).await;
    stream.write_all(request).await.unwrap();
    comes("an answer", read_answer(&mut stream)).await.unwrap()
}

/// A handshake from an address: its answer, and the socket of the device.
async fn handshake(from: [u8; 4], doors: &Doors) -> (Answer, TcpStream) {
    let mut stream = connect(from, doors.viewer).await;
    let head = format!("{}\r\n", handshake_head(doors, "/v1/rooms/r1/ws"));
    stream.write_all(head.as_bytes()).await.unwrap();
    (comes("an answer", read_answer(&mut stream)).await.unwrap(), stream)
}

/// The beginning of a publish, up to the length of its body.
const PUBLISH: &str = "POST /v1/rooms/r1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
     content-length: ";

/// A whole publish.
fn publish() -> String {
    let body = json!({"type": "chat", "payload": 1}).to_string();
    format!("{PUBLISH}{}\r\n\r\n{body}", body.len())
}

/// A publish of which one byte of the body has come.
async fn begin_publish(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let mut stream = connect(from, to).await;
    stream.write_all(format!("{PUBLISH}9999\r\n\r\n{{").as_bytes()).await.unwrap();
    stream
}

async fn silence_from_one_address_keeps_no_other_out_of_a_door(shards: usize) {
    let node = Node::start(shards);
    let mut silent = Vec::new();
    for (door, places) in [(node.viewer, HALF_OPEN_MAX), (node.publisher, DOOR_CONNECTIONS_MAX)] {
        // As many as there are places, and a hundred in line.
        for _ in 0..places + 100 {
            silent.push(connect(CROWD, door).await);
        }
    }
    let (answer, _device) = handshake(OTHER, &node).await;
    assert_eq!(answer.status, 101, "{answer:?}");
    assert_eq!(ask(OTHER, node.publisher, publish().as_bytes()).await.status, 200);
    // The crowd made room out of its own places, at both doors.
    for door in ["door=\"viewer\"", "door=\"publisher\""] {
        node.metrics_when("who gave way", |metrics| {
            metrics.sum("roomcast_door_connections_dropped_total", &[door, "reason=\"full\""]) >= 100
        })
        .await;
    }
}

async fn bodies_that_do_not_come_keep_no_other_out_of_a_door(shards: usize) {
    let node = Node::start(shards);
    let began = roomcast::clock::now().instant;
    let mut crowd = Vec::new();
    for _ in 0..DOOR_CONNECTIONS_MAX + 50 {
        crowd.push(begin_publish(CROWD, node.publisher).await);
    }
    assert_eq!(ask(OTHER, node.publisher, publish().as_bytes()).await.status, 200);
    assert!(began.elapsed() < BODY_AGE_MAX, "nobody waited for the end of the bodies");
    let metrics = node.metrics().await;
    assert!(dropped(&metrics, "publisher", "full") > 0);
}

async fn silence_from_one_address_keeps_no_other_out_of_a_node_with_few_descriptors(shards: usize) {
    // 20 for devices, and as many as a node keeps back.
    let node = Process::with_descriptors(shards, 148).await;
    let doors = node.doors;
    let mut silent = Vec::new();
    for door in [doors.publisher, doors.viewer] {
        for _ in 0..170 {
            silent.push(connect(CROWD, door).await);
        }
    }
    let (answer, _device) = handshake(OTHER, &doors).await;
    assert_eq!(answer.status, 101, "{answer:?}");
    assert_eq!(ask(OTHER, doors.publisher, publish().as_bytes()).await.status, 200);
    assert!(node.descriptors() <= 148);
}

/// The connections of this door that were closed without an answer, for this reason.
fn dropped(metrics: &Metrics, door: &str, why: &str) -> u64 {
    let labels = [format!("door=\"{door}\""), format!("reason=\"{why}\"")];
    metrics.sum("roomcast_door_connections_dropped_total", &labels.each_ref().map(|label| &**label))
}

/// Many addresses hold the door by their silence. The address that holds most is a carrier's: its connections
/// are at work, and a further one waits like everybody.
async fn a_large_address_waits_at_a_door_that_others_hold(shards: usize) {
    const AT_WORK: usize = 24;
    let node = Node::start(shards);
    let mut at_work = Vec::new();
    for _ in 0..AT_WORK {
        at_work.push(begin_publish(CROWD, node.publisher).await);
    }
    // Their bodies come, byte by byte.
    let works = async {
        loop {
            for stream in &mut at_work {
                stream.write_all(b" ").await.unwrap();
            }
            sleep(FULL_DOOR_GRACE / 5).await;
        }
    };
    let waits = async {
        let silent = (0..DOOR_CONNECTIONS_MAX - AT_WORK)
            .map(|n| connect([127, 0, 1, u8::try_from(n % 250).unwrap()], node.publisher));
        let _silent = join_all(silent).await;
        // Who comes and goes holds none of the turns aside.
        drop(join_all((0..DOOR_CONNECTIONS_MAX / 3).map(|_| connect(CROWD, node.publisher))).await);
        sleep(FULL_DOOR_GRACE / 5).await;
        let before = node.metrics().await;
        let request = publish();
        let answers = join_all((0..8).map(|_| ask(CROWD, node.publisher, request.as_bytes())));
        assert!(answers.await.iter().all(|answer| answer.status == 200));
        [before, node.metrics().await]
    };
    let [before, metrics] = tokio::select! {
        metrics = waits => metrics,
        () = works => unreachable!("there is always more to send"),
    };
    let gave_way = dropped(&metrics, "publisher", "full") - dropped(&before, "publisher", "full");
    assert!(gave_way > 0, "silent ones made room");
    assert_eq!(dropped(&metrics, "publisher", "late"), 0, "nobody had to wait for their deadline");
}

/// Fills the room's history, so that a page is more than the kernel takes at once.
async fn fill_history(doors: &Doors) {
    let large = json!({"type": "chat", "payload": "x".repeat(16_000)});
    for _ in 0..15 {
        doors.publish("r1", &large).await;
    }
    until("the whole history", async || {
        let page = doors.viewer_door().get("/v1/rooms/r1/history").await.json();
        page["history"].as_array().filter(|history| history.len() == 15).map(Vec::len)
    })
    .await;
}

/// A request for a page that says where it comes from.
fn pull(forwarded_for: &str) -> String {
    format!(
        "GET /v1/rooms/r1/history HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: {forwarded_for}\r\n\r\n"
    )
}

/// Asks for as many pages as there are places, and reads none of them.
async fn take_all_pages(doors: &Doors, forwarded_for: &str) -> Vec<TcpStream> {
    let request = pull(forwarded_for);
    let unread = join_all((0..PULLS_MAX).map(async |_| {
        let mut stream = connect(CROWD, doors.viewer).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        comes("the beginning of an answer", stream.readable()).await.unwrap();
        stream
    }));
    unread.await
}

async fn pages_that_one_address_does_not_read_keep_no_other_from_reading(shards: usize) {
    let node = Node::start(shards);
    fill_history(&node).await;
    let _unread = take_all_pages(&node, "").await;
    // The crowd's further readers hear 503 at once, or take the place of a page that nobody took for a second.
    // A reader of another address outwaits the second.
    let request = pull("");
    let further = join_all((0..8).map(|_| ask(CROWD, node.viewer, request.as_bytes()))).await;
    assert!(further.iter().all(|answer| matches!(answer.status, 200 | 503)), "{further:?}");
    for _ in 0..3 {
        let answer = ask(OTHER, node.viewer, pull("").as_bytes()).await;
        assert_eq!((answer.status, answer.json()["history"].as_array().map(Vec::len)), (200, Some(15)));
    }
}

async fn an_address_with_all_seats_gives_way_to_another(shards: usize) {
    // As many descriptors as a node keeps back, and 20 for devices.
    let node = Process::with_descriptors(shards, 148).await;
    let doors = node.doors;
    let mut crowd = Vec::new();
    for _ in 0..20 {
        crowd.push(RawDevice::join(&doors, "r1", Encoding::Json).await);
    }
    let (answer, _) = handshake(OTHER, &doors).await;
    answer.is_problem(503, "connections_full", None);
    // Some of the crowd are told to come back later, and the other finds a seat meanwhile.
    let device = until("a seat for the other", async || {
        let (answer, device) = handshake(OTHER, &doors).await;
        (answer.status == 101).then_some(device)
    })
    .await;
    let (answer, _) = handshake(CROWD, &doors).await;
    answer.is_problem(503, "connections_full", None);
    let metrics = doors.metrics_when("who gave way", |metrics| metrics.closed("crowded") > 0).await;
    assert!(metrics.closed("crowded") <= 10, "no more than half of what it had too many");
    let (code, _, _) = select_all(crowd.iter_mut().map(|device| Box::pin(device.close_code()))).await;
    assert_eq!(code, Some(1013), "it is told why");
    drop(device);
}

async fn a_trusted_proxy_names_the_address_and_a_stranger_does_not(shards: usize) {
    let proxied = Node::with(shards, &[("PROXY__TRUSTED", r#"["127.0.0.1"]"#)]);
    fill_history(&proxied).await;
    let _unread = take_all_pages(&proxied, "203.0.113.1").await;
    let answer = ask(CROWD, proxied.viewer, pull("198.51.100.7, 203.0.113.2").as_bytes()).await;
    assert_eq!(answer.status, 200, "another address outwaits those that take nothing");
    // The same by the PROXY protocol: 203.0.113.3 through this machine.
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    header.extend_from_slice(&[203, 0, 113, 3, 127, 0, 0, 1, 0x12, 0x34, 0x1d, 0xb0]);
    header.extend_from_slice(pull("").as_bytes());
    assert_eq!(ask(CROWD, proxied.viewer, &header).await.status, 200);
    // A header that is cut off, or of another version, is no header.
    for broken in
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x04\x7f\0\0\x01"[..], b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0"]
    {
        let mut stream = connect(CROWD, proxied.viewer).await;
        stream.write_all(broken).await.unwrap();
        assert!(comes("the end", read_answer(&mut stream)).await.is_none());
    }
    // Untrusted, the header of a request is a claim: all of it is one address.
    let open = Node::start(shards);
    fill_history(&open).await;
    let _unread = take_all_pages(&open, "203.0.113.1").await;
    let answers = join_all(
        (2..66)
            .map(async |n| ask(CROWD, open.viewer, pull(&format!("203.0.113.{n}")).as_bytes()).await.status),
    );
    assert!(answers.await.contains(&503), "it holds most, and few of it wait for a place");
    // A stranger's PROXY header is no request.
    let answer = ask(CROWD, open.viewer, &header).await;
    answer.is_problem(400, "bad_request", None);
    let device = Device::join(&open, "r1", Encoding::Json).await;
    assert_eq!(device.welcome["room"], "r1");
}
