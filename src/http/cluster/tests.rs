//! A node beside a peer that the test plays: the calls to it are popped off their queue, and its own calls go
//! in.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU8;
use std::thread::JoinHandle;

use hyper::StatusCode;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::parts::NodePart;
use super::*;
use crate::cluster::calls::{CallIn, CallOut, CallOutcome, calls_in};
use crate::cluster::shown::{ClusterShown, LinkLag, PeerShown};
use crate::config::Config;
use crate::config::args::Args;
use crate::http::accept::places::Places;
use crate::http::accept::{Descriptors, Door, Doorway, accept};
use crate::http::ops::OperatorDoor;
use crate::http::publisher::PublisherDoor;
use crate::http::viewer::ViewerDoor;
use crate::http::viewer::admission::Admission;
use crate::http::{InForce, Stage};
use crate::metrics::Metrics;
use crate::seat::{Seat, Seats};
use crate::shard::handle::Shards;
use crate::store::memory::Memory;
use crate::store::writer::{self, StoreHandle};
use roomcast_core::cluster::{Slot, SlotStanding, Term};
use roomcast_core::limits::{NODE_CALLS_MAX, STORE_BYTES_MAX};
use roomcast_core::room::id::{Epoch, NameKey};
use roomcast_core::room::receipt::{HomeReceipt, SegmentReceipt};
use roomcast_core::room::view::ReceiptView;

const PEER: NodeKey = NodeKey(1);
const OTHER: NodeKey = NodeKey(2);
const CHAT: &str = r#"{"type":"chat","payload":"hello"}"#;

/// A node with its doors open.
struct TwoNodes {
    node: Arc<Node>,
    slots: Arc<Slots>,
    shown: Arc<ShownCell>,
    calls: Calls,
    called: Arc<Notify>,
    calls_in: mpsc::Sender<CallIn>,
    publisher: SocketAddr,
    viewer: SocketAddr,
    ops: SocketAddr,
    _stop: watch::Sender<bool>,
    _threads: Vec<JoinHandle<()>>,
    _store: StoreHandle,
}

impl Drop for TwoNodes {
    fn drop(&mut self) {
        self.node.shards.stop();
    }
}

/// An answer at a door.
#[derive(Debug)]
struct AtDoor {
    status: u16,
    head: String,
    body: Value,
}

impl AtDoor {
    fn code(&self) -> (u16, &str) {
        (self.status, self.body["code"].as_str().unwrap_or_default())
    }
}

fn peer_shown(key: NodeKey, name: &str) -> PeerShown {
    PeerShown {
        key,
        name: name.to_owned(),
        viewer_url: format!("wss://{name}"),
        region: "eu".to_owned(),
        seats: 1000,
        free_seats: 900,
        busy_permille: 0,
        is_draining: false,
        is_deaf: false,
        is_alive: true,
        has_ended: false,
        words_version: 1,
        heard_at: clock::now().instant,
        link: Some(LinkLag::default()),
    }
}

fn standing(home: SlotHome) -> SlotStanding {
    SlotStanding { home, term: Term { generation: 1, sequence: 1 } }
}

fn room(name: &str) -> RoomName {
    RoomName::parse(name).unwrap()
}

impl TwoNodes {
    async fn new(key_messages_per_second: u32) -> Self {
        let mut config = Config::load(&Args::default(), std::iter::empty()).unwrap();
        config.shards = 2;
        config.key_messages_per_second = key_messages_per_second;
        let metrics = Metrics::new(config.shards).unwrap();
        let store = Box::new(Memory::new(STORE_BYTES_MAX));
        let (shards, threads, store) =
            Shards::start(&config, |wakes| writer::start(store, wakes).map(|store| (store, None)), &metrics)
                .unwrap();
        let slots = Arc::new(Slots::new(NameKey([1, 2])));
        let called = Arc::new(Notify::new());
        let wake = Arc::clone(&called);
        let calls = Calls::new(Arc::new(move || wake.notify_one()));
        let shown = Arc::new(ShownCell::new(clock::now().instant));
        let seats = Seats::new(1000);
        let descriptors = Descriptors::new(seats.clone(), 4096);
        let cluster = ClusterDoors {
            slots: Arc::clone(&slots),
            calls: calls.clone(),
            shown: Arc::clone(&shown),
            meters: Arc::new(QuotaMeters::new(NameKey([1, 2]), "eu")),
            cluster: "rc".to_owned(),
            started_at: 1_795_243_015_617,
            name: "node-1".to_owned(),
            region: "eu".to_owned(),
            viewer_url: "wss://node-1".to_owned(),
            routes: Routes::default(),
        };
        let node = Arc::new(Node {
            shards,
            admission: Mutex::new(Admission::new(config.joins_per_second, None, clock::now().instant)),
            in_force: RwLock::new(Arc::new(InForce::new(config, None))),
            seats,
            descriptors: descriptors.clone(),
            pulls: Places::new(8),
            store: Arc::clone(&store.health),
            cluster: Some(cluster),
            metrics: metrics.clone(),
            stage: AtomicU8::new(Stage::Serving as u8),
        });
        let (stop, stopped) = watch::channel(false);
        let doorway = Doorway { metrics, descriptors, proxies: Arc::default(), stop: stopped.clone() };
        let publisher = open(PublisherDoor { node: Arc::clone(&node) }, &doorway).await;
        let viewer = open(ViewerDoor { node: Arc::clone(&node) }, &doorway).await;
        let ops = open(OperatorDoor { node: Arc::clone(&node) }, &doorway).await;
        let (to_doors, from_peers) = calls_in();
        serve(&node, from_peers, &stopped);
        let stage = Self {
            node,
            slots,
            shown,
            calls,
            called,
            calls_in: to_doors,
            publisher,
            viewer,
            ops,
            _stop: stop,
            _threads: threads,
            _store: store,
        };
        stage.show(vec![peer_shown(PEER, "node-2"), peer_shown(OTHER, "node-3")]);
        stage
    }

    fn show(&self, peers: Vec<PeerShown>) {
        let heirs = vec![SlotHome::There(OTHER); 256];
        self.shown.show(ClusterShown { echo_at: clock::now().instant, peers, heirs });
    }

    fn place(&self, name: &str, home: SlotHome) {
        self.slots.set(self.slots.of(&room(name)), standing(home));
    }

    /// The next call to a peer.
    async fn next_call(&self) -> CallOut {
        loop {
            if let Some(call) = self.calls.queue.pop() {
                return call;
            }
            self.called.notified().await;
        }
    }

    /// Plays the peer for one call.
    async fn answer_next(&self, outcome: CallOutcome) -> (NodeKey, NodeRequest) {
        let CallOut { node, request, reply } = self.next_call().await;
        reply.send(outcome).ok();
        (node, request)
    }

    /// The answer to a call of a peer.
    async fn answers(&self, method: Method, target: &str, body: &str, shed: &[u32]) -> NodeAnswer {
        let request = NodeRequest {
            method,
            target: target.to_owned(),
            content_type: Some("application/json".to_owned()),
            body: Bytes::copy_from_slice(body.as_bytes()),
            shed: shed.to_vec(),
        };
        let (reply, answer) = oneshot::channel();
        self.calls_in.send(CallIn { request, reply }).await.unwrap();
        answer.await.unwrap()
    }
}

async fn open<D: Door>(door: D, doorway: &Doorway) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(accept(listener, Arc::new(door), doorway.clone()));
    address
}

async fn ask(door: SocketAddr, method: &str, target: &str, body: &str) -> AtDoor {
    let mut stream = TcpStream::connect(door).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: {door}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    AtDoor {
        status,
        head: head.to_ascii_lowercase(),
        body: serde_json::from_str(body).unwrap_or(Value::Null),
    }
}

fn ok(body: &Value) -> CallOutcome {
    Ok(NodeAnswer {
        status: StatusCode::OK,
        content_type: "application/json".to_owned(),
        retry_after: None,
        body: body.to_string().into(),
    })
}

fn body_of(answer: &NodeAnswer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn a_request_goes_to_the_home_and_the_answer_passes_on_as_it_came() {
    let stage = TwoNodes::new(0).await;
    stage.place("r1", SlotHome::There(PEER));
    let strange = json!({"strange": [1, 2]});
    for (door, method, target, sent, body) in [
        (stage.publisher, "POST", "/v1/rooms/r1/messages", "/v1/rooms/r1/messages", CHAT),
        (stage.publisher, "PUT", "/v1/rooms/r1", "/v1/rooms/r1", r#"{"idle_close_s":60}"#),
        (stage.publisher, "GET", "/v1/rooms/r1", "/v1/rooms/r1", ""),
        (stage.publisher, "DELETE", "/v1/rooms/r1?stream=true", "/v1/rooms/r1?stream=true", ""),
        (stage.publisher, "GET", "/v1/rooms/r1/reliable/7", "/v1/rooms/r1/reliable/7", ""),
        (stage.publisher, "DELETE", "/v1/rooms/r1/reliable/7", "/v1/rooms/r1/reliable/7", ""),
        (stage.viewer, "GET", "/v1/rooms/r1/history?limit=3&token=T", "/v1/rooms/r1/history?limit=3", ""),
        (stage.viewer, "GET", "/v1/rooms/r1/reliable?token=T", "/v1/rooms/r1/reliable", ""),
        (stage.ops, "PUT", "/v1/ops/rooms/r1/ladder", "/v1/ops/rooms/r1/ladder", r#"{"step":1}"#),
        (stage.ops, "GET", "/v1/ops/rooms/r1/ladder", "/v1/ops/rooms/r1/ladder", ""),
    ] {
        let (heard, (node, request)) =
            tokio::join!(ask(door, method, target, body), stage.answer_next(ok(&strange)));
        assert_eq!((heard.status, &heard.body), (200, &strange), "{method} {target}");
        assert_eq!((node, request.target.as_str(), &*request.body), (PEER, sent, body.as_bytes()));
        assert_eq!((request.method.as_str(), request.shed.len()), (method, 0));
    }
    let refused = NodeAnswer {
        status: StatusCode::SERVICE_UNAVAILABLE,
        content_type: "application/problem+json".to_owned(),
        retry_after: Some(7),
        body: r#"{"code":"store_full"}"#.into(),
    };
    let (heard, _) = tokio::join!(
        ask(stage.publisher, "POST", "/v1/rooms/r1/messages", CHAT),
        stage.answer_next(Ok(refused))
    );
    assert_eq!(heard.code(), (503, "store_full"));
    assert!(heard.head.contains("retry-after: 7") && heard.head.contains("problem+json"), "{}", heard.head);
}

#[tokio::test]
async fn bad_input_is_refused_before_anything_is_sent() {
    let stage = TwoNodes::new(0).await;
    stage.place("r1", SlotHome::There(PEER));
    for (door, method, target, body, code) in [
        (stage.publisher, "POST", "/v1/rooms/r1/messages", "{}", (400, "missing_field")),
        (stage.viewer, "GET", "/v1/rooms/r1/history?limit=x", "", (400, "bad_query")),
        (stage.ops, "PUT", "/v1/ops/rooms/r1/ladder", r#"{"step":9}"#, (400, "bad_value")),
        (stage.publisher, "PATCH", "/v1/rooms/r1", "", (405, "method_not_allowed")),
        (stage.publisher, "GET", "/v1/node/rooms", "", (404, "not_found")),
    ] {
        assert_eq!(ask(door, method, target, body).await.code(), code, "{method} {target}");
    }
    assert!(stage.calls.queue.is_empty());
}

#[tokio::test]
async fn what_was_not_sent_is_inbox_full_and_what_was_not_answered_is_unknown() {
    let stage = TwoNodes::new(0).await;
    stage.place("r1", SlotHome::There(PEER));
    let publish = || ask(stage.publisher, "POST", "/v1/rooms/r1/messages", CHAT);
    for outcome in [Err(CallFailed::Unknown), Err(CallFailed::Busy)] {
        let code = if outcome == Err(CallFailed::Busy) { "inbox_full" } else { "node_silent" };
        let (heard, _) = tokio::join!(publish(), stage.answer_next(outcome));
        assert_eq!(heard.code(), (503, code));
        assert!(heard.head.contains("retry-after: 1"));
    }
    let (heard, ()) = tokio::join!(publish(), async { drop(stage.next_call().await) });
    assert_eq!(heard.code(), (503, "node_silent"), "the cluster's thread has ended");
    let not_http = NodeAnswer { status: StatusCode::CONTINUE, ..ok(&Value::Null).unwrap() };
    let (heard, _) = tokio::join!(publish(), stage.answer_next(Ok(not_http)));
    assert_eq!(heard.code(), (503, "node_silent"), "no answer of HTTP");
    for _ in 0..NODE_CALLS_MAX {
        let request = sent_on(&Method::GET, &Uri::from_static("/"), None, Bytes::new());
        drop(stage.calls.send(PEER, request));
    }
    assert_eq!(publish().await.code(), (503, "inbox_full"));
    assert!(publish().await.head.contains("retry-after: 1"));
    let counted = stage.node.metrics.render();
    for line in [r#"outcome="busy"} 3"#, r#"outcome="unknown"} 2"#, r#"outcome="answered"} 1"#] {
        assert!(counted.contains(&format!("roomcast_node_calls_total{{{line}")), "{line}\n{counted}");
    }
}

#[tokio::test]
async fn without_a_home_changes_are_refused_and_a_frozen_home_is_still_read() {
    let stage = TwoNodes::new(0).await;
    let publish = || ask(stage.publisher, "POST", "/v1/rooms/r1/messages", CHAT);
    let read = || ask(stage.viewer, "GET", "/v1/rooms/r1/history", "");
    for (home, of_read) in [(SlotHome::Nobody, (503, "no_home")), (SlotHome::Frozen, (404, "room_not_open"))]
    {
        stage.place("r1", home);
        let refused = publish().await;
        assert_eq!(refused.code(), (503, "no_home"), "{home:?}");
        assert!(refused.head.contains("retry-after: 1"));
        assert_eq!(read().await.code(), of_read, "{home:?}");
    }
    stage.place("r1", SlotHome::Here);
    assert_eq!(publish().await.status, 200);
    assert!(stage.calls.queue.is_empty(), "no call for a room of this node");
}

#[tokio::test]
async fn a_node_that_does_not_hear_itself_sends_nothing() {
    let stage = TwoNodes::new(0).await;
    stage.place("r1", SlotHome::There(PEER));
    let echo_at = clock::now().instant - UNREACHABLE_AFTER * 2;
    stage.shown.show(ClusterShown { echo_at, peers: Vec::new(), heirs: Vec::new() });
    let heard = ask(stage.publisher, "POST", "/v1/rooms/r1/messages", CHAT).await;
    assert_eq!(heard.code(), (503, "cluster_unreachable"));
    assert!(stage.calls.queue.is_empty());
    let ready = ask(stage.ops, "GET", "/readyz", "").await;
    assert_eq!((ready.status, &ready.body["reasons"]), (503, &json!(["cluster_unreachable"])));
    assert_eq!(ready.body["cluster"]["there"], 1);
    assert_eq!(ready.body["cluster"]["nobody"], 255);
}

#[tokio::test]
async fn a_draining_node_sends_no_change_on() {
    let stage = TwoNodes::new(0).await;
    stage.place("r1", SlotHome::There(PEER));
    stage.node.begin(Stage::Draining);
    assert_eq!(ask(stage.publisher, "DELETE", "/v1/rooms/r1", "").await.code(), (503, "draining"));
    let (heard, _) =
        tokio::join!(ask(stage.publisher, "GET", "/v1/rooms/r1", ""), stage.answer_next(ok(&json!({}))));
    assert_eq!(heard.status, 200);
}

#[tokio::test]
async fn what_the_key_s_limit_sheds_is_named_and_the_home_adds_its_verdicts() {
    let stage = TwoNodes::new(2).await;
    stage.place("r1", SlotHome::There(PEER));
    let four = format!(r#"{{"messages":[{CHAT},{CHAT},{CHAT},{CHAT}]}}"#);
    let publish = ask(stage.publisher, "POST", "/v1/rooms/r1/messages", &four);
    let (heard, (_, request)) = tokio::join!(publish, stage.answer_next(ok(&json!({}))));
    assert_eq!((heard.status, request.shed.as_slice()), (200, [2, 3].as_slice()));
    // The home's side, on this node.
    stage.place("r2", SlotHome::Here);
    let target = "/v1/rooms/r2/messages";
    let answer = stage.answers(Method::POST, target, &four, &[0, 2]).await;
    let result = |at: usize| body_of(&answer)["results"][at]["result"].clone();
    assert_eq!((answer.status, result(0), result(2)), (StatusCode::OK, json!("shed"), json!("shed")));
    assert_eq!((result(1), result(3), result(4)), (json!("accepted"), json!("accepted"), Value::Null));
    for shed in [&[4][..], &[1, 0], &[1, 1]] {
        let answer = stage.answers(Method::POST, target, &four, shed).await;
        assert_eq!((answer.status.as_u16(), &body_of(&answer)["field"]), (400, &json!("shed")));
    }
}

#[tokio::test]
async fn a_request_that_is_all_shed_is_answered_without_the_home() {
    let stage = TwoNodes::new(1).await;
    stage.place("r1", SlotHome::There(PEER));
    let publish = || ask(stage.publisher, "POST", "/v1/rooms/r1/messages", CHAT);
    let (first, _) = tokio::join!(publish(), stage.answer_next(ok(&json!({}))));
    assert_eq!(first.status, 200);
    assert_eq!(publish().await.code(), (429, "key_rate"));
}

#[tokio::test]
async fn calls_of_other_nodes_are_answered_as_at_the_doors_and_never_sent_on() {
    let stage = TwoNodes::new(0).await;
    stage.place("r1", SlotHome::Here);
    stage.place("r9", SlotHome::There(PEER));
    let answer = stage.answers(Method::PUT, "/v1/rooms/r1", r#"{"expected_audience":7}"#, &[]).await;
    assert_eq!((answer.status, &body_of(&answer)["node"]), (StatusCode::OK, &json!("node-1")));
    assert_eq!(body_of(&answer)["expected_audience"], 7);
    for (method, target, body, status) in [
        (Method::POST, "/v1/rooms/r1/messages", CHAT, 200),
        (Method::GET, "/v1/rooms/r1", "", 200),
        (Method::GET, "/v1/rooms/r1/history", "", 200),
        (Method::GET, "/v1/rooms/r1/reliable", "", 200),
        (Method::PUT, "/v1/ops/rooms/r1/ladder", r#"{"step":1}"#, 200),
        (Method::GET, "/v1/rooms/r1/reliable/1", "", 404),
        (Method::POST, "/v1/rooms/r1/messages", "{", 400),
        (Method::GET, "/v1/rooms", "", 404),
        (Method::PUT, "/v1/ops/ladder", r#"{"step":5}"#, 404),
        (Method::GET, "no path", "", 400),
        (Method::DELETE, "/v1/rooms/r1", "", 200),
    ] {
        let answer = stage.answers(method.clone(), target, body, &[]).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {target}: {:?}", answer.body);
    }
    for (method, target, body) in [
        (Method::POST, "/v1/rooms/r9/messages", CHAT),
        (Method::PUT, "/v1/rooms/r9", ""),
        (Method::GET, "/v1/rooms/r9", ""),
        (Method::GET, "/v1/rooms/r9/history", ""),
        (Method::GET, "/v1/ops/rooms/r9/ladder", ""),
        (Method::GET, "/v1/node/route?room=r9", ""),
    ] {
        let answer = stage.answers(method, target, body, &[]).await;
        assert_eq!(
            (answer.status.as_u16(), &body_of(&answer)["code"]),
            (503, &json!("not_home")),
            "{target}"
        );
        assert_eq!(answer.retry_after, Some(1));
    }
    stage.place("r1", SlotHome::Frozen);
    let answer = stage.answers(Method::POST, "/v1/rooms/r1/messages", CHAT, &[]).await;
    assert_eq!(body_of(&answer)["code"], "no_home");
    assert!(stage.calls.queue.is_empty());
}

#[tokio::test]
async fn a_request_at_a_door_of_the_home_waits_for_the_end_of_a_hand_over_and_goes_where_the_room_is() {
    let stage = TwoNodes::new(0).await;
    stage.place("r1", SlotHome::Here);
    let slot = stage.slots.of(&room("r1"));
    for (home, status) in [(SlotHome::There(PEER), 200), (SlotHome::Here, 404)] {
        stage.slots.leave(slot);
        let asking = ask(stage.publisher, "GET", "/v1/rooms/r1", "");
        let mut asking = std::pin::pin!(asking);
        let is_early = timeout(std::time::Duration::from_millis(50), &mut asking).await.is_ok();
        assert!(!is_early, "the room moves");
        stage.slots.set_handed(slot, standing(home), None);
        stage.slots.end_leave(slot, home.other());
        let answer = if home == SlotHome::Here {
            asking.await
        } else {
            let (answer, (node, request)) = tokio::join!(asking, stage.answer_next(ok(&json!({"seq": 7}))));
            assert_eq!((node, request.target.as_str()), (PEER, "/v1/rooms/r1"));
            answer
        };
        assert_eq!(answer.status, status, "{home:?}: {:?}", answer.body);
    }
}

#[tokio::test]
async fn the_list_of_rooms_is_of_all_nodes_and_names_the_silent() {
    let stage = TwoNodes::new(0).await;
    stage.place("r1", SlotHome::Here);
    assert_eq!(ask(stage.publisher, "PUT", "/v1/rooms/r1", "").await.status, 200);
    let mut dead = peer_shown(NodeKey(3), "node-4");
    dead.is_alive = false;
    stage.show(vec![peer_shown(PEER, "node-2"), peer_shown(OTHER, "node-3"), dead]);
    let line = |room: &str, members: u64| {
        json!({"room": room, "members": members, "home": 0, "shards": 1, "seq": 9, "window_ms": 100, "hot": false,
               "load_permille": 1, "node": "not its own word"})
    };
    let lines = json!([line("b", 7), line("a", 7), line("c", 1)]);
    let peers = async {
        let (node, request) = stage.answer_next(ok(&lines)).await;
        assert_eq!((node, request.target.as_str()), (PEER, "/v1/node/rooms?limit=3"));
        stage.answer_next(ok(&json!({"strange": true}))).await;
    };
    let (heard, ()) = tokio::join!(ask(stage.publisher, "GET", "/v1/rooms?limit=3", ""), peers);
    assert_eq!(heard.body["silent"], json!(["node-3", "node-4"]));
    let rooms: Vec<_> = (0..3).map(|at| heard.body["rooms"][at]["room"].clone()).collect();
    assert_eq!((rooms, &heard.body["rooms"][3]), (vec![json!("a"), json!("b"), json!("c")], &Value::Null));
    assert_eq!(heard.body["rooms"][0]["node"], "node-2");
    // The part of this node, as another one hears it.
    let part = stage.answers(Method::GET, "/v1/node/rooms?limit=5", "", &[]).await;
    assert_eq!(body_of(&part)[0]["room"], "r1");
}

/// The word of a node that holds the slot, with a lag of its link to this node.
fn report(slot: Slot, lag_ms: u64) -> Value {
    json!({
        "said": {
            "version": "0.1.0", "started_at": 1, "members": 7, "rooms": 2,
            "links": [{"node": "node-1", "state": "serving", "lag_ms": lag_ms, "kept_bytes": 9}],
            "log": {"claiming": 0, "troubled": []},
        },
        "slots": [{"slot": slot, "term": {"generation": 1, "sequence": 4}, "is_frozen": false}],
    })
}

#[tokio::test]
async fn the_cluster_is_shown_over_all_nodes_and_names_the_silent() {
    let stage = TwoNodes::new(0).await;
    stage.place("r1", SlotHome::Here);
    stage.place("r2", SlotHome::There(OTHER));
    let mut ended = peer_shown(NodeKey(3), "node-4");
    ended.is_alive = false;
    ended.has_ended = true;
    ended.link = None;
    stage.show(vec![peer_shown(PEER, "node-2"), peer_shown(OTHER, "node-3"), ended]);
    let slot = |name| stage.slots.of(&room(name));
    let peers = async {
        let (node, request) = stage.answer_next(ok(&report(slot("r3"), 1500))).await;
        assert_eq!((node, request.target.as_str()), (PEER, "/v1/node/report"));
        stage.answer_next(Err(CallFailed::Unknown)).await;
    };
    let (heard, ()) = tokio::join!(ask(stage.ops, "GET", "/v1/ops/cluster", ""), peers);
    assert_eq!(heard.status, 200, "{heard:?}");
    assert_eq!((&heard.body["cluster"], &heard.body["node"]), (&json!("rc"), &json!("node-1")));
    assert_eq!(heard.body["silent"], json!(["node-3", "node-4"]));
    let of_nodes = |field: &str| (0..4).map(|at| heard.body["nodes"][at][field].clone()).collect::<Vec<_>>();
    assert_eq!(of_nodes("state"), ["serving", "serving", "silent", "ended"]);
    assert_eq!(of_nodes("free_seats"), [1000, 900, 900, 900]);
    let said = &heard.body["nodes"][0]["said"];
    assert_eq!((&said["version"], &said["started_at"]), (&json!("0.1.0"), &json!(1_795_243_015_617_u64)));
    assert_eq!(said["links"][2], json!({"node": "node-4", "state": "ended", "kept_bytes": 0}));
    let home = |name| &heard.body["slots"][slot(name).index()];
    assert_eq!((&home("r1")["home"], &home("r1")["state"]), (&json!("node-1"), &json!("ordered")));
    assert_eq!((&home("r2")["home"], &home("r2")["state"]), (&json!("node-3"), &json!("silent")));
    assert_eq!(home("r3")["term"], json!({"generation": 1, "sequence": 4}));
    let troubles = heard.body["troubles"].as_array().unwrap();
    let codes: Vec<_> = troubles.iter().map(|trouble| trouble["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["node_silent", "node_ended", "slots_without_home", "slots_silent", "link_lags"]);
    // The word of this node, as another one hears it.
    let word = body_of(&stage.answers(Method::GET, "/v1/node/report", "", &[]).await);
    let own = json!({"slot": slot("r1"), "term": {"generation": 1, "sequence": 1}, "is_frozen": false});
    assert_eq!((&word["slots"], word["said"]["links"].as_array().map(Vec::len)), (&json!([own]), Some(3)));
}

#[tokio::test]
async fn the_ladder_is_shown_over_all_nodes_and_set_at_this_one() {
    let stage = TwoNodes::new(0).await;
    let ladder = json!({"override": 2, "outbound_permille": 7, "shards": [
        {"shard": 0, "automatic": 0, "step": 2, "name": "counters_slow", "delay_ms": 3, "outbound_permille": 7},
    ]});
    let peers = async {
        let (_, request) = stage.answer_next(ok(&ladder)).await;
        assert_eq!(request.target, "/v1/node/ladder");
        stage.answer_next(ok(&json!({"shards": "strange"}))).await;
    };
    let (heard, ()) = tokio::join!(ask(stage.ops, "GET", "/v1/ops/ladder", ""), peers);
    assert_eq!((heard.status, &heard.body["shards"][1]["step"]), (200, &json!(0)), "{heard:?}");
    let mut shown = ladder;
    shown["node"] = json!("node-2");
    assert_eq!((&heard.body["nodes"], &heard.body["silent"]), (&json!([shown]), &json!(["node-3"])));
    // An operator in an emergency waits for no other node, and sets no other one.
    let set = ask(stage.ops, "PUT", "/v1/ops/ladder", r#"{"step":4}"#).await;
    assert_eq!((&set.body["override"], &set.body["nodes"]), (&json!(4), &Value::Null));
    assert!(stage.calls.queue.is_empty());
    let part = body_of(&stage.answers(Method::GET, "/v1/node/ladder", "", &[]).await);
    assert_eq!((&part["override"], part["shards"].as_array().map(Vec::len)), (&json!(4), Some(2)));
}

#[tokio::test]
async fn a_receipt_adds_the_parts_of_other_nodes_and_names_the_silent() {
    let stage = TwoNodes::new(0).await;
    let cluster = stage.node.cluster.as_ref().unwrap();
    let view = ReceiptView {
        room: "r1".to_owned(),
        epoch: Epoch(1),
        offset: 1,
        r#type: "coupon".to_owned(),
        id: None,
        at: 0,
        expires_at: 0,
        expired: false,
        recalled: false,
        recalled_by: None,
        since: 0,
        online: 10,
        devices: 3,
        acknowledged: 1,
        left: 0,
        pending: 0,
        ack_ms: None,
        partial: Vec::new(),
    };
    let home = HomeReceipt { view, acks: Default::default(), waiting: vec![5, 6, 7] };
    let part = NodePart::Receipt { room: std::borrow::Cow::Owned(room("r1")), epoch: Epoch(1), offset: 1 };
    let mut there = SegmentReceipt { devices: vec![6, 8], ..Default::default() };
    there.acks.add(std::time::Duration::from_millis(30), false);
    let peers = async {
        let (node, request) = stage.answer_next(ok(&serde_json::to_value(&there).unwrap())).await;
        assert_eq!(node, PEER);
        assert_eq!(request.target, "/v1/node/receipt?room=r1&cursor=0000000000000001:1");
        // The other one's link begins anew.
        stage.answer_next(Err(CallFailed::Unknown)).await;
    };
    let others = [(PEER, 4), (OTHER, 4), (NodeKey(9), 1)];
    let here = SegmentReceipt { devices: vec![5, 6], ..Default::default() };
    let (receipt, ()) = tokio::join!(cluster.with_others(home, here, &others, &part), peers);
    assert_eq!((receipt.acknowledged, receipt.pending), (1 + 1 + 2, 6), "{receipt:?}");
    assert_eq!(receipt.ack_ms.map(|times| times.max), Some(30));
    assert_eq!(receipt.partial, ["node-3", "unknown"]);
    // This node's own part, as another one hears it: nobody here knows the stream.
    let part =
        stage.answers(Method::GET, "/v1/node/receipt?room=r1&cursor=0000000000000001:1", "", &[]).await;
    assert_eq!(serde_json::from_slice::<SegmentReceipt>(&part.body).unwrap(), SegmentReceipt::default());
}

#[tokio::test]
async fn a_receipt_and_a_view_of_a_room_without_other_nodes_ask_nobody() {
    let stage = TwoNodes::new(0).await;
    stage.place("r1", SlotHome::Here);
    let coupon = r#"{"type":"coupon","payload":"x","id":"c1"}"#;
    assert_eq!(ask(stage.publisher, "POST", "/v1/rooms/r1/messages", coupon).await.status, 200);
    let receipt = ask(stage.publisher, "GET", "/v1/rooms/r1/reliable/1", "").await;
    assert_eq!((receipt.status, &receipt.body["partial"]), (200, &Value::Null));
    let view = ask(stage.publisher, "GET", "/v1/rooms/r1", "").await;
    assert_eq!((&view.body["node"], &view.body["nodes"]), (&json!("node-1"), &Value::Null));
    assert!(stage.calls.queue.is_empty());
}

#[tokio::test]
async fn a_route_is_the_home_s_word_or_the_home_itself_and_counted() {
    let stage = TwoNodes::new(0).await;
    stage.place("r1", SlotHome::There(PEER));
    let hot = json!({"is_hot": true, "nodes": [{"url": "wss://x", "region": "us", "weight": 70}]});
    let target = "/v1/route?room=r1&region=us&token=T";
    let (heard, (node, request)) =
        tokio::join!(ask(stage.viewer, "GET", target, ""), stage.answer_next(ok(&hot)));
    assert_eq!((node, request.target.as_str()), (PEER, "/v1/node/route?room=r1&region=us"));
    let shown = json!({"room": "r1", "nodes": hot["nodes"], "ttl_ms": 10_000});
    assert_eq!((heard.status, &heard.body), (200, &shown));
    assert_eq!(ask(stage.viewer, "GET", target, "").await.body, shown, "kept for a second");
    // Another region is another route; a silent home counts as cold.
    let silent = stage.answer_next(Err(CallFailed::Unknown));
    let (heard, _) = tokio::join!(ask(stage.viewer, "GET", "/v1/route?room=r1", ""), silent);
    let home = json!([{"url": "wss://node-2", "region": "eu", "weight": 900}]);
    assert_eq!(heard.body["nodes"], home);
    stage.place("r2", SlotHome::Nobody);
    let heard = ask(stage.viewer, "GET", "/v1/route?room=r2", "").await;
    assert_eq!(heard.body["nodes"][0]["url"], "wss://node-3", "the heir");
    stage.place("r3", SlotHome::Here);
    let heard = ask(stage.viewer, "GET", "/v1/route?room=r3", "").await;
    assert_eq!(
        (&heard.body["nodes"][0]["url"], &heard.body["nodes"][1]),
        (&json!("wss://node-1"), &Value::Null)
    );
    let counted = stage.node.metrics.render();
    assert!(counted.contains(r#"roomcast_route_answers_total{kind="hot"} 2"#), "{counted}");
    assert!(counted.contains(r#"roomcast_route_answers_total{kind="cold"} 3"#), "{counted}");
    for (target, code, field) in [
        ("/v1/route", "bad_room", "room"),
        ("/v1/route?room=a%20b", "bad_room", "room"),
        ("/v1/route?room=r1&region=EU", "bad_query", "region"),
    ] {
        let heard = ask(stage.viewer, "GET", target, "").await;
        assert_eq!((heard.code(), &heard.body["field"]), ((400, code), &json!(field)), "{target}");
    }
}

#[tokio::test]
async fn an_expected_audience_makes_a_room_hot_at_its_home() {
    let stage = TwoNodes::new(0).await;
    stage.place("r1", SlotHome::Here);
    let of_node = stage.node.in_force().config.hot_members * 2;
    let put = |audience: u64| format!(r#"{{"expected_audience":{audience}}}"#);
    assert_eq!(ask(stage.publisher, "PUT", "/v1/rooms/r1", &put(of_node + 1)).await.status, 200);
    let part = stage.answers(Method::GET, "/v1/node/route?room=r1&region=eu", "", &[]).await;
    let nodes = body_of(&part)["nodes"].clone();
    let mut urls: Vec<_> = nodes.as_array().unwrap().iter().filter_map(|node| node["url"].as_str()).collect();
    urls.sort_unstable();
    assert_eq!(urls, ["wss://node-1", "wss://node-2"], "two nodes for two nodes' worth");
    assert_eq!(body_of(&part)["is_hot"], true);
}

#[tokio::test]
async fn a_node_short_of_seats_names_the_homes_that_have_room() {
    let stage = TwoNodes::new(0).await;
    stage.place("r1", SlotHome::There(PEER));
    stage.place("r2", SlotHome::There(OTHER));
    stage.place("r3", SlotHome::Here);
    let mut full = peer_shown(OTHER, "node-3");
    full.free_seats = 199;
    stage.show(vec![peer_shown(PEER, "node-2"), full]);
    let cluster = stage.node.cluster.as_ref().unwrap();
    assert!(cluster.elsewhere(&stage.node).is_none(), "this node has room");
    let taken: Vec<Seat> = (0..801).map(|_| stage.node.seats.take().unwrap()).collect();
    let url_of = cluster.elsewhere(&stage.node).unwrap();
    assert_eq!(url_of(&room("r1")).as_deref(), Some("wss://node-2"));
    assert_eq!(url_of(&room("r2")), None, "its home is short, too");
    assert_eq!(url_of(&room("r3")), None, "its home is here");
    drop(taken);
    assert!(cluster.elsewhere(&stage.node).is_none());
}
