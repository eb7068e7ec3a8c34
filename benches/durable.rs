//! The rate of durable messages through a whole node, over HTTP like a publisher, and the time of a node's
//! return after a kill.
//!
//! Starts the real program on free ports with an empty store, in the system's directory for temporary files
//! or in `ROOMCAST_BENCH_FOLDER`: the figures are of that disk. `cargo bench --bench durable -- batches` runs
//! one part. `BENCH_SERVER_CORE` and `BENCH_LOAD_CORE`, both or none, pin the node and the load to a core
//! each. `BENCH_NATS='["nats://127.0.0.1:4222"]'` stores on JetStream, with `BENCH_NATS_COPIES` (1) copies, and the
//! part `jetstream` appends to such streams without the node: the yardstick for the other parts.
//!
//! The load is one thread of closed loops: each publisher sends its next request after the answer to the last
//! one. Each line says how busy that thread was. Near 100 %, the figure is of the load and not of the node.

mod support;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::Config;
use async_nats::{HeaderMap, jetstream};
use support::{Answer, Node, cpu, percentile, pin_the_load, print};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

const REPETITIONS: usize = 3;
const REPETITION: Duration = Duration::from_secs(3);
/// Opens the rooms and the connections, and is not counted.
const WARM_UP: Duration = Duration::from_secs(1);
/// The messages that a killed node must bring back.
const STORED: Load =
    Load { publishers: 20, rooms_each: 50, messages: 50, payload_bytes: 4096, ttl_ms: 3_600_000 };
const STORED_ROUNDS: usize = 2;
const RESTARTS: usize = 5;
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let wanted = args.iter().find(|arg| !arg.starts_with('-'));
    let runs = |name: &str| wanted.is_none_or(|wanted| name.contains(wanted.as_str()));
    pin_the_load();
    if ["single", "publishers", "batches", "rooms", "restart"].into_iter().any(runs) {
        disk();
    }
    // With so many rooms, none has 1 024 messages alive at ten times the wanted rate: no answer is
    // `stream_full`.
    let coupons = Load { publishers: 64, rooms_each: 2, messages: 1, payload_bytes: 300, ttl_ms: 1000 };
    for (name, load) in [
        ("single", Load { publishers: 1, ..coupons }),
        ("publishers", coupons),
        ("batches", Load { messages: 50, rooms_each: 10, ..coupons }),
        ("rooms", Load { publishers: 500, rooms_each: 1, ..coupons }),
    ] {
        if runs(name) {
            measure(name, load);
        }
    }
    if runs("restart") {
        restart();
    }
    if runs("jetstream") && std::env::var_os("BENCH_NATS").is_some() {
        for (publishers, are_records) in [(1, true), (64, true), (1024, true), (64, false)] {
            jetstream(publishers, are_records);
        }
    }
}

/// Appends without the node: as many at once as publishers, each to a subject of its own, in as many streams as the
/// log has. A record of one message has about this size. `are_records`: with what the log asks of each append, its
/// number, its life and the sequence before.
fn jetstream(publishers: usize, are_records: bool) {
    const STREAMS: usize = roomcast_core::limits::LOG_STREAMS;
    const RECORD_BYTES: usize = 400;
    let servers = std::env::var("BENCH_NATS").expect("asked before");
    let servers: Vec<String> = serde_json::from_str(&servers).expect("a list of URLs");
    let copies = std::env::var("BENCH_NATS_COPIES").map_or(1, |text| text.parse().expect("a number"));
    let name = format!("yard-{}-{publishers}-{are_records}", std::process::id());
    runtime().block_on(async {
        let client = Box::pin(async_nats::connect(servers)).await.expect("the servers answer");
        let context = jetstream::new(client);
        for stream in 0..STREAMS {
            let subjects = vec![format!("{name}.{stream}.*")];
            let config = Config {
                name: format!("{name}-{stream}"),
                subjects,
                num_replicas: copies,
                allow_direct: true,
                allow_message_ttl: true,
                ..Config::default()
            };
            Box::pin(context.create_stream(config)).await.expect("the stream is made");
        }
        let until = roomcast::clock::now().instant + REPETITION;
        let append = |publisher: usize| {
            let context = context.clone();
            let subject = format!("{name}.{}.{publisher}", publisher % STREAMS);
            async move {
                let mut latencies = Vec::new();
                let mut last = 0;
                loop {
                    let began = roomcast::clock::now().instant;
                    if began >= until {
                        return latencies;
                    }
                    let mut headers = HeaderMap::new();
                    if are_records {
                        headers.insert("Nats-Expected-Last-Subject-Sequence", last.to_string());
                        headers.insert("Nats-Msg-Id", format!("{publisher}:{last}"));
                        headers.insert("Nats-TTL", "61s");
                    }
                    let body = vec![7; RECORD_BYTES].into();
                    let sent = context.publish_with_headers(subject.clone(), headers, body).await;
                    last = sent.expect("it is sent").await.expect("it is stored").sequence;
                    latencies.push(roomcast::clock::now().instant - began);
                }
            }
        };
        let mut latencies = (0..publishers).map(append).collect::<JoinSet<_>>().join_all().await.concat();
        for stream in 0..STREAMS {
            context.delete_stream(format!("{name}-{stream}")).await.expect("it was made");
        }
        latencies.sort_unstable();
        print(&format!(
            "jetstream: {publishers} × {RECORD_BYTES} bytes {} without the node: {:.0}/s, p50 {:.2?}, p99 {:.2?}",
            if are_records { "as records" } else { "alone" },
            latencies.len() as f64 / REPETITION.as_secs_f64(),
            percentile(&latencies, 500),
            percentile(&latencies, 990),
        ));
    });
}

/// Times a small write with its sync, without the node: the yardstick for all other figures. Milliseconds, on
/// a disk that needs a tenth of one, say that other programs hold the core.
fn disk() {
    let folder = Folder::new("disk");
    let mut file = File::create(folder.0.join("file")).expect("the folder is there");
    let mut times: Vec<_> = (0..300)
        .map(|_| {
            let began = roomcast::clock::now().instant;
            file.write_all(&[7; 4096]).expect("the disk works");
            file.sync_data().expect("the disk works");
            roomcast::clock::now().instant - began
        })
        .collect();
    times.sort_unstable();
    let p50 = percentile(&times, 500);
    let p99 = percentile(&times, 990);
    print(&format!("disk: 4 KiB written and synced: p50 {p50:.2?}, p99 {p99:.2?}"));
}

/// An empty folder, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let parent = std::env::var_os("ROOMCAST_BENCH_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
        let folder = parent.join(format!("rc-durable-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("the folder can be made");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A node with its store in a folder, or in the streams of a cluster of the folder's name.
fn node_over(folder: &Folder) -> Node {
    let Ok(servers) = std::env::var("BENCH_NATS") else {
        return Node::start(&["--data-dir", folder.0.to_str().expect("a folder's name is text")]);
    };
    let copies = std::env::var("BENCH_NATS_COPIES").unwrap_or_else(|_| "1".to_owned());
    let name = folder.0.file_name().and_then(|name| name.to_str()).expect("a folder's name is text");
    Node::start_with(
        &[],
        &[
            ("ROOMCAST__CLUSTER__NATS", &servers),
            ("ROOMCAST__CLUSTER__NAME", name),
            ("ROOMCAST__CLUSTER__REPLICAS", &copies),
        ],
    )
}

/// The work of the publishers of one part.
#[derive(Clone, Copy)]
struct Load {
    publishers: usize,
    /// Each publisher's requests go round these rooms, and no other publisher's do.
    rooms_each: usize,
    /// Messages of one request.
    messages: usize,
    payload_bytes: usize,
    ttl_ms: u64,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { publishers, rooms_each, messages, payload_bytes, .. } = self;
        let rooms = publishers * rooms_each;
        write!(f, "{publishers} × {messages} messages of {payload_bytes} bytes, {rooms} rooms")
    }
}

impl Load {
    fn room(publisher: usize, room: usize) -> String {
        format!("room-{publisher}-{room}")
    }

    /// The requests of one publisher, one for each of its rooms.
    fn requests(&self, publisher: usize) -> Vec<Vec<u8>> {
        let frame = r#"{"text":""}"#.len();
        let text = "x".repeat(self.payload_bytes - frame);
        let message =
            format!(r#"{{"type":"coupon","payload":{{"text":"{text}"}},"ttl_ms":{}}}"#, self.ttl_ms);
        let body = match self.messages {
            1 => message,
            messages => format!(r#"{{"messages":[{}]}}"#, vec![message; messages].join(",")),
        };
        let request = |room| {
            let head = format!(
                "POST /v1/rooms/{}/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\n\r\n",
                Self::room(publisher, room),
                body.len()
            );
            [head.as_bytes(), body.as_bytes()].concat()
        };
        (0..self.rooms_each).map(request).collect()
    }
}

/// The end of a publisher's work.
#[derive(Clone, Copy)]
enum Until {
    Time(Instant),
    /// A number of requests to each of the publisher's rooms.
    Rounds(usize),
    /// The end of the node.
    Killed,
}

/// The results of the published messages.
#[derive(Default)]
struct Outcome {
    durable: usize,
    /// Result other than durable, as the node names it -> messages.
    others: BTreeMap<String, usize>,
    /// From the request to its whole answer.
    latencies: Vec<Duration>,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.durable += other.durable;
        self.latencies.extend(other.latencies);
        for (word, messages) in other.others {
            *self.others.entry(word).or_default() += messages;
        }
    }

    fn answered(&mut self, answer: &Answer, messages: usize, latency: Duration) {
        self.latencies.push(latency);
        let durable = answer.body.matches(r#""result":"durable""#).count();
        self.durable += durable;
        if answer.code != 200 || durable != messages {
            self.note_others(answer, messages);
        }
    }

    #[cold]
    fn note_others(&mut self, answer: &Answer, messages: usize) {
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let word = |value: &serde_json::Value| value.as_str().unwrap_or("?").to_owned();
        let Some(results) = body["results"].as_array() else {
            *self.others.entry(format!("{} {}", answer.code, word(&body["code"]))).or_default() += messages;
            return;
        };
        for result in results.iter().filter(|result| result["result"] != "durable") {
            let what = format!("{} {}", word(&result["result"]), word(&result["reason"]));
            *self.others.entry(what).or_default() += 1;
        }
    }
}

/// Sends a request and waits for its whole answer.
async fn exchange(stream: &mut TcpStream, request: &[u8]) -> io::Result<Answer> {
    stream.write_all(request).await?;
    let mut bytes = Vec::with_capacity(4096);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(answer) = Answer::of(&bytes) {
            return Ok(answer);
        }
    }
}

async fn publisher(door: SocketAddr, load: Load, number: usize, until: Until) -> Outcome {
    let requests = load.requests(number);
    let mut outcome = Outcome::default();
    let mut stream = TcpStream::connect(door).await.expect("the door is open");
    stream.set_nodelay(true).expect("it is connected");
    for (sent, request) in requests.iter().cycle().enumerate() {
        let began = roomcast::clock::now().instant;
        let over = match until {
            Until::Time(end) => began >= end,
            Until::Rounds(rounds) => sent == rounds * requests.len(),
            Until::Killed => false,
        };
        if over {
            break;
        }
        match exchange(&mut stream, request).await {
            Ok(answer) => outcome.answered(&answer, load.messages, roomcast::clock::now().instant - began),
            Err(_) if matches!(until, Until::Killed) => break,
            Err(error) => panic!("publisher {number}: {error}"),
        }
    }
    outcome
}

async fn publish(door: SocketAddr, load: Load, until: Until) -> Outcome {
    let mut publishers: JoinSet<_> =
        (0..load.publishers).map(|number| publisher(door, load, number, until)).collect();
    let mut all = Outcome::default();
    while let Some(outcome) = publishers.join_next().await {
        all.add(outcome.expect("a publisher does not panic"));
    }
    all.latencies.sort_unstable();
    all
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("the system has descriptors")
}

/// The figures of one repetition.
struct Repetition {
    outcome: Outcome,
    took: Duration,
    node_cpu: Duration,
    load_cpu: Duration,
}

impl Repetition {
    fn of(runtime: &Runtime, node: &Node, load: Load) -> Self {
        let node_cpu = node.cpu();
        let load_cpu = cpu("self");
        let began = roomcast::clock::now().instant;
        let outcome = runtime.block_on(publish(node.publisher_door, load, Until::Time(began + REPETITION)));
        let took = roomcast::clock::now().instant - began;
        Self { outcome, took, node_cpu: node.cpu() - node_cpu, load_cpu: cpu("self") - load_cpu }
    }

    fn per_second(&self) -> u128 {
        self.outcome.durable as u128 * 1_000_000 / self.took.as_micros()
    }

    fn percent_of_a_core(&self, cpu: Duration) -> u128 {
        cpu.as_micros() * 100 / self.took.as_micros()
    }
}

fn measure(name: &str, load: Load) {
    let folder = Folder::new(name);
    let node = node_over(&folder);
    let runtime = runtime();
    let warm = roomcast::clock::now().instant + WARM_UP;
    runtime.block_on(publish(node.publisher_door, load, Until::Time(warm)));
    let mut all: Vec<_> = (0..REPETITIONS).map(|_| Repetition::of(&runtime, &node, load)).collect();
    all.sort_by_key(|it| it.outcome.durable);
    let worst = &all[0];
    let best = &all[REPETITIONS - 1];
    let latency = |per_mille: usize| {
        let mut each: Vec<_> = all.iter().map(|it| percentile(&it.outcome.latencies, per_mille)).collect();
        each.sort_unstable();
        format!("{:.2?} (… {:.2?})", each[0], each[REPETITIONS - 1])
    };
    let messages = u32::try_from(best.outcome.durable.max(1)).expect("fewer in three seconds");
    print(&format!(
        "{name}: {load}: best {}/s (worst {}/s), p50 {}, p99 {}; \
         CPU of the node {:.1?} a message, {} % of a core; load {} %",
        best.per_second(),
        worst.per_second(),
        latency(500),
        latency(990),
        best.node_cpu / messages,
        best.percent_of_a_core(best.node_cpu),
        best.percent_of_a_core(best.load_cpu),
    ));
    for it in all.iter().filter(|it| !it.outcome.others.is_empty()) {
        print(&format!("{name}: NOT DURABLE in one repetition: {:?}", it.outcome.others));
    }
}

/// Kills a node that holds many messages while a few publishers are at work, and times its return.
fn restart() {
    let folder = Folder::new("restart");
    let runtime = runtime();
    let mut node = node_over(&folder);
    let stored = runtime.block_on(publish(node.publisher_door, STORED, Until::Rounds(STORED_ROUNDS)));
    assert!(stored.others.is_empty(), "not durable: {:?}", stored.others);
    let bytes: u64 = fs::read_dir(&folder.0)
        .expect("it is there")
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .map(|file| file.len())
        .sum();
    print(&format!(
        "restart: {} messages of {} bytes stored, {} MiB",
        stored.durable,
        STORED.payload_bytes,
        bytes >> 20
    ));
    let mut times: Vec<Return> = Vec::new();
    for number in 0..RESTARTS {
        kill_at_work(&runtime, &mut node);
        let began = roomcast::clock::now().instant;
        node = node_over(&folder);
        times.push(runtime.block_on(Return::of(&node, number, began)));
    }
    let line = |what: &str, of: fn(&Return) -> Duration| {
        let mut each: Vec<_> = times.iter().map(of).collect();
        each.sort_unstable();
        print(&format!(
            "restart: {what}: best {:.1?}, worst {:.1?} of {RESTARTS}",
            each[0],
            each[RESTARTS - 1]
        ));
    };
    line("from exec to open doors", |it| it.open);
    line("then until a room's first reader has pulled its 100 messages", |it| it.read);
    line("then until a message to another such room is durable", |it| it.durable);
    kill_at_work(&runtime, &mut node);
    node = node_over(&folder);
    runtime.block_on(crowd(&node));
}

/// One device joins each stored room at once, just after the node's return. Prints the time until the welcomes
/// with an epoch: 3 s are promised.
async fn crowd(node: &Node) {
    let rooms = (0..STORED.publishers)
        .flat_map(|publisher| (0..STORED.rooms_each).map(move |room| Load::room(publisher, room)));
    let began = roomcast::clock::now().instant;
    let mut joining = JoinSet::new();
    for room in rooms {
        joining.spawn(join(node.viewer_door, room));
    }
    let mut times: Vec<Duration> =
        joining.join_all().await.into_iter().map(|welcomed| welcomed - began).collect();
    times.sort_unstable();
    let p50 = percentile(&times, 500);
    let p99 = percentile(&times, 990);
    print(&format!(
        "restart: {} devices join as many rooms at once: welcome with epoch p50 {p50:.1?}, p99 {p99:.1?}, last {:.1?}",
        times.len(),
        times[times.len() - 1]
    ));
}

/// Joins a room, and returns the moment of the whole welcome. The welcome has to name the epoch.
async fn join(door: SocketAddr, room: String) -> Instant {
    let mut stream = TcpStream::connect(door).await.expect("the door is open");
    let request = format!(
        "GET /v1/rooms/{room}/ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("the door reads");
    let mut bytes = Vec::new();
    loop {
        let read = stream.read_buf(&mut bytes).await.expect("the node answers");
        assert!(read > 0, "the device was sent away: {}", String::from_utf8_lossy(&bytes));
        let Some(head) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let frame = &bytes[head + 4..];
        // A welcome with 64 coupons of 4 KiB has a length of eight bytes.
        let Some(length) = frame.get(2..10).and_then(|length| length.try_into().ok()) else { continue };
        let whole = match frame[1] {
            127 => 10 + usize::try_from(u64::from_be_bytes(length)).expect("it fits"),
            126 => 4 + usize::from(u16::from_be_bytes([length[0], length[1]])),
            short => 2 + usize::from(short),
        };
        if frame.len() >= whole {
            let welcome = String::from_utf8_lossy(&frame[..whole]);
            assert!(welcome.contains(r#""epoch":"#), "{}", &welcome[..welcome.len().min(300)]);
            return roomcast::clock::now().instant;
        }
    }
}

fn kill_at_work(runtime: &Runtime, node: &mut Node) {
    let few = Load { publishers: 4, rooms_each: 50, messages: 1, payload_bytes: 300, ttl_ms: 1000 };
    let door = node.publisher_door;
    runtime.block_on(async {
        let publishers = tokio::spawn(publish(door, few, Until::Killed));
        tokio::time::sleep(Duration::from_millis(300)).await;
        node.kill();
        let outcome = publishers.await.expect("publishers end with the node");
        assert!(outcome.durable > 0, "it was killed before it worked");
    });
}

/// Reads all pages of a room's reliable messages, and returns their number.
async fn pull(door: SocketAddr, room: &str) -> usize {
    let mut messages = 0;
    let mut after = String::new();
    loop {
        // The viewer door ends a connection with its answer.
        let mut stream = TcpStream::connect(door).await.expect("the door is open");
        let request = format!("GET /v1/rooms/{room}/reliable{after} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let answer = exchange(&mut stream, request.as_bytes()).await.expect("the node answers");
        let page: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        messages += page["reliable"].as_array().map_or(0, Vec::len);
        if answer.code != 200 || page["through"] == page["offset"] {
            return messages;
        }
        after = format!("?after={}:{}", page["epoch"].as_str().expect("a string"), page["through"]);
    }
}

/// The time of each step of a node's return, from the end of the step before.
struct Return {
    open: Duration,
    read: Duration,
    durable: Duration,
}

impl Return {
    async fn of(node: &Node, number: usize, began: Instant) -> Self {
        drop(TcpStream::connect(node.viewer_door).await.expect("the door is open"));
        let mut publisher = TcpStream::connect(node.publisher_door).await.expect("the door is open");
        let opened = roomcast::clock::now().instant;
        // Other rooms each time, untouched by the publishers of the kills.
        let messages = pull(node.viewer_door, &Load::room(STORED.publishers - 1, number)).await;
        let read = roomcast::clock::now().instant;
        assert_eq!(messages, STORED.messages * STORED_ROUNDS, "what was durable is there");
        let request = &Load { messages: 1, ..STORED }.requests(STORED.publishers - 2)[number];
        let answer = exchange(&mut publisher, request).await.expect("the node answers");
        let durable = roomcast::clock::now().instant;
        assert_eq!(answer.code, 200, "{}", answer.body);
        Self { open: opened - began, read: read - opened, durable: durable - read }
    }
}
