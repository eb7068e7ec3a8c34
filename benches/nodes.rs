//! Many nodes over a real NATS server: the price of a home on another node.
//!
//! `NATS_SERVER` is the path of a nats-server (`scripts/nats.sh` prints one). Build the load generator first:
//! `cargo build --release --workspace && NATS_SERVER=$(bash scripts/nats.sh) cargo bench --bench nodes`.
//! `cargo bench --bench nodes -- fanout` runs one part. `BENCH_SERVER_CORE` and `BENCH_LOAD_CORE`, both or none,
//! pin the measured node to one core, and everything else to the other: the server, the other nodes, the load.
//!
//! | part | figure | target |
//! |---|---|---|
//! | `fanout` | processor time per device and frame with the home on another node, over the same on one node | 1.10 |
//! | `publish` | p99 of a publish at another node, less the p99 at the home of its room | 3 ms |
//! | `join` | processor time of the home's node for a join elsewhere, less a shard's for a local join | 2 µs |
//! | `storm` | the same at 20 000 joins a second, of devices that are connected already | 2 µs |
//! | `cold` | entries on links per flush of rooms of one routed device | 0 |
//! | `cold` | processor time of an idle node in a cluster, less the time of an idle node alone | 3 % of a core |
//! | `hot` | entries on links per flush of a room with members on three nodes | 2 |
//!
//! `NODES_DEVICES` (5 000) are the devices of `fanout`, `hot` and `storm`, `NODES_JOINS` (15 000) those of `join`,
//! `NODES_STORM` (20 000) the joins of `storm` a second, `NODES_ROOMS` (20 000) the rooms of `cold`, `NODES_SECONDS`
//! (12) the length of a load.

#[path = "../tests/support/nats.rs"]
mod nats;
#[expect(dead_code, reason = "other benches use the rest")]
#[path = "support/sockets.rs"]
mod sockets;
mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::{self, park_timeout};
use std::time::{Duration, Instant};

use roomcast::shard::lane;
use roomcast_core::room::id::RoomName;

use nats::{NatsServers, NatsSetting};
use sockets::Driven;
use support::{Answer, Node, percentile, pin_the_load, print};

const REPETITIONS: usize = 3;
/// Messages a second of `fanout`. Each is a batch of its own: they come more than a window apart.
const RATE: u64 = 8;
const PUBLISHES: usize = 1000;
/// Rooms of `storm`, which each device joins one after the other.
const STORM_ROOMS: usize = 4;
/// Messages a second of `cold`, over all rooms.
const COLD_RATE: u64 = 2000;
/// Devices of a worker of the load generator, within the descriptors of a process.
const WORKER_DEVICES: u64 = 15_000;
/// Time to measure a node that is left alone.
const IDLE: Duration = Duration::from_secs(10);
/// Longest wait for a server, a node, a home or devices.
const READY_AGE_MAX: Duration = Duration::from_secs(60);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let wanted = args.iter().find(|arg| !arg.starts_with('-'));
    let runs = |name: &str| wanted.is_none_or(|wanted| name.contains(wanted.as_str()));
    pin_the_load();
    let parts = [
        ("fanout", fanout as fn()),
        ("publish", publish),
        ("join", join),
        ("storm", storm),
        ("cold", cold),
        ("hot", hot),
    ];
    for (name, measure) in parts {
        if runs(name) {
            measure();
        }
    }
}

fn now() -> Instant {
    roomcast::clock::now().instant
}

/// A number from the environment.
fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |value| value.parse().expect("a whole number"))
}

/// The seconds of a load.
fn load_seconds() -> u64 {
    number("NODES_SECONDS", 12).max(6)
}

/// A server that takes clients.
fn server() -> NatsServers {
    let server = NatsServers::spawn("bench nodes", NatsSetting::ONE).expect("a nats-server");
    until("the server listens", || server.are_open());
    server
}

/// Nodes of a cluster on this server, each on its core, once all slots have homes.
fn nodes<const N: usize>(server: &NatsServers, names: [(&str, Option<&str>); N]) -> [Node; N] {
    // All at once: the first one would claim all slots.
    let started = thread::scope(|scope| {
        let starting = names.map(|(name, core)| {
            scope.spawn(move || {
                let variables = [
                    ("ROOMCAST__CLUSTER__NATS", server.toml()),
                    ("ROOMCAST__CLUSTER__NODE", name.to_owned()),
                    ("ROOMCAST__CLUSTER__REPLICAS", "1".to_owned()),
                ];
                let variables: Vec<(&str, &str)> =
                    variables.iter().map(|(key, value)| (*key, value.as_str())).collect();
                Node::start_pinned("127.0.0.1:0", core, &["--shards", "1"], &variables)
            })
        });
        starting.map(|node| node.join().expect("it prints its panic"))
    });
    for node in &started {
        until("the node is ready", || get(node.ops_door, "/readyz").is_some_and(|answer| answer.code == 200));
        until("all slots have homes", || {
            let slots = |state: &str| series(node, &format!("roomcast_slots{{state=\"{state}\"}}"));
            slots("nobody") + slots("frozen") == 0.0
        });
    }
    started
}

/// Waits so long. A park alone may end before: threads that have ended wake their maker.
fn rest(time: Duration) {
    let end = now() + time;
    while now() < end {
        park_timeout(end.saturating_duration_since(now()));
    }
}

/// Waits until `is_so`.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = now();
    while !is_so() {
        assert!(now() - began < READY_AGE_MAX, "in vain: {what}");
        rest(Duration::from_millis(20));
    }
}

/// One request without a body over a connection of its own.
fn get(door: SocketAddr, path: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(door).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    Answer::of(&bytes)
}

/// The sum of a metric over its labels.
fn metric(node: &Node, name: &str) -> f64 {
    sum_of(node, |line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
}

/// The value of one series.
fn series(node: &Node, name: &str) -> f64 {
    sum_of(node, |line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))
}

fn sum_of(node: &Node, is_meant: impl Fn(&str) -> bool) -> f64 {
    let text = get(node.ops_door, "/metrics").expect("the door answers").body;
    text.lines()
        .filter(|line| is_meant(line))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// A run of the load generator against these nodes.
struct Load<'a> {
    devices: u64,
    devices_at: Vec<&'a Node>,
    publishes_at: &'a Node,
    flags: Vec<String>,
}

impl Load<'_> {
    fn start(&self) -> Child {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_roomcast")).with_file_name("roomcast-loadgen");
        let mut command = Command::new(&program);
        command.args(["run", "--no-floor", "--encoding", "proto"]).args(&self.flags);
        command.arg(format!("--workers={}", self.devices.div_ceil(WORKER_DEVICES).max(1)));
        command.arg(format!("--devices={}", self.devices));
        if !self.flags.iter().any(|flag| flag.starts_with("--route")) {
            for node in &self.devices_at {
                command.arg(format!("--viewer-door=ws://{}", node.viewer_door));
            }
        }
        command.arg(format!("--publisher-door=http://{}", self.publishes_at.publisher_door));
        command.arg(format!("--ops-door=http://{}", self.devices_at[0].ops_door));
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().unwrap_or_else(|error| {
            panic!("{}: {error}: cargo build --release --workspace", program.display())
        })
    }
}

/// Says what a load generator has said, if it found a broken promise.
fn judge(load: Child) {
    let out = load.wait_with_output().expect("it is ours");
    // Exit code 3: every promise was kept, and the generator was too slow to say how fast.
    if !matches!(out.status.code(), Some(0 | 3)) {
        print(&format!("the load ended with {}: {}", out.status, String::from_utf8_lossy(&out.stdout)));
    }
}

/// The flags of a load.
fn flags(pairs: &[(&str, String)]) -> Vec<String> {
    pairs.iter().flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()]).collect()
}

/// A room stem whose first room has its home on `home`.
fn stem_at(home: &Node) -> String {
    stems_at(home).next().expect("one of 200 rooms")
}

fn stems_at(home: &Node) -> impl Iterator<Item = String> {
    let door = home.viewer_door;
    let is_there = move |stem: &String| {
        let answer = get(door, &format!("/v1/route?room={stem}-0")).expect("the door answers");
        answer.body.contains(&door.to_string())
    };
    (0..200).map(|n| format!("bench{n}")).filter(is_there)
}

/// Processor time of the node for each frame written to a device, over the middle of a run.
fn cost_per_frame(measured: &Node, load: &Load<'_>) -> Duration {
    let child = load.start();
    until("the devices have joined", || metric(measured, "roomcast_members") >= load.devices as f64);
    rest(Duration::from_secs(2));
    let frames = metric(measured, "roomcast_frames_total");
    let cpu = precise_cpu(measured);
    rest(Duration::from_secs(load_seconds() - 4));
    let spent = precise_cpu(measured) - cpu;
    let frames = metric(measured, "roomcast_frames_total") - frames;
    judge(child);
    spent.div_f64(frames.max(1.0))
}

/// Processor time of a node in all its threads, as the node itself tells it.
fn precise_cpu(node: &Node) -> Duration {
    Duration::from_secs_f64(metric(node, "roomcast_cpu_microseconds_total") / 1e6)
}

fn fanout() {
    let devices = number("NODES_DEVICES", 5000);
    let of_stem = |stem: &str| {
        flags(&[
            ("--rate", RATE.to_string()),
            ("--seconds", load_seconds().to_string()),
            ("--room-stem", stem.to_owned()),
        ])
    };
    let server_core = std::env::var("BENCH_SERVER_CORE").ok();
    let load_core = std::env::var("BENCH_LOAD_CORE").ok();
    let mut ratios = Vec::new();
    for repetition in 0..REPETITIONS {
        let single = {
            let arguments = ["--ephemeral", "--shards", "1"];
            let node = Node::start_pinned("127.0.0.1:0", server_core.as_deref(), &arguments, &[]);
            let load =
                Load { devices, devices_at: vec![&node], publishes_at: &node, flags: of_stem("single") };
            cost_per_frame(&node, &load)
        };
        let server = server();
        let names = [("home", load_core.as_deref()), ("edge", server_core.as_deref())];
        let [home, edge] = nodes(&server, names);
        let stem = stem_at(&home);
        let load = Load { devices, devices_at: vec![&edge], publishes_at: &home, flags: of_stem(&stem) };
        let elsewhere = cost_per_frame(&edge, &load);
        let ratio = elsewhere.as_secs_f64() / single.as_secs_f64();
        print(&format!(
            "fanout {repetition}: {devices} devices: {single:.2?} a frame on a single node, {elsewhere:.2?} with the \
             home elsewhere: {ratio:.3}"
        ));
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    print(&format!(
        "fanout: median {:.3} ({:.3} … {:.3}), target at most 1.10",
        ratios[1], ratios[0], ratios[2]
    ));
}

/// Latencies of publishes in a closed loop over one connection.
fn latencies(door: SocketAddr, room: &str) -> Vec<Duration> {
    let mut stream = TcpStream::connect(door).expect("the door is open");
    stream.set_nodelay(true).expect("it is connected");
    let body = r#"{"type":"chat","payload":"hello"}"#;
    let request = format!(
        "POST /v1/rooms/{room}/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut all = Vec::with_capacity(PUBLISHES);
    for _ in 0..PUBLISHES {
        let began = now();
        stream.write_all(request.as_bytes()).expect("the door reads");
        let mut bytes = Vec::new();
        let answer = loop {
            let mut part = [0; 4096];
            let read = stream.read(&mut part).expect("the node answers");
            bytes.extend_from_slice(&part[..read]);
            if let Some(answer) = Answer::of(&bytes) {
                break answer;
            }
        };
        assert_eq!(answer.code, 200, "{}", answer.body);
        all.push(now() - began);
        rest(Duration::from_millis(2));
    }
    all.sort_unstable();
    all
}

fn publish() {
    let server = server();
    let server_core = std::env::var("BENCH_SERVER_CORE").ok();
    let [home, other] = nodes(&server, [("home", server_core.as_deref()), ("other", server_core.as_deref())]);
    let room = format!("{}-0", stem_at(&home));
    let mut more = Vec::new();
    for repetition in 0..REPETITIONS {
        let at_home = latencies(home.publisher_door, &room);
        let elsewhere = latencies(other.publisher_door, &room);
        let line = |name: &str, all: &[Duration]| {
            format!("{name} p50 {:.2?} p99 {:.2?}", percentile(all, 500), percentile(all, 990))
        };
        print(&format!(
            "publish {repetition}: {}, {}",
            line("at home", &at_home),
            line("elsewhere", &elsewhere)
        ));
        more.push(millis(percentile(&elsewhere, 990)) - millis(percentile(&at_home, 990)));
    }
    more.sort_by(f64::total_cmp);
    print(&format!(
        "publish: p99 elsewhere less p99 at home: median {:.2} ms ({:.2} … {:.2}), target at most 3 ms",
        more[1], more[0], more[2]
    ));
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Processor time of a shard in memory for each join to one room: no socket, and no handshake.
fn local_join(joins: u64) -> Duration {
    let now = roomcast::clock::now();
    let peers = lane::mesh(1, lane::LaneBounds::default()).remove(0);
    let mut driven = Driven::new(0, 1, peers, now);
    let room = RoomName::parse("bench-0").expect("a name");
    let began = thread_time();
    for _ in 0..joins {
        driven.join(&room, now);
        // As many as come in a turn of a busy node.
        if driven.keys.len().is_multiple_of(16) {
            while driven.turn(now) {}
        }
    }
    while driven.turn(now) {}
    (thread_time() - began) / u32::try_from(joins).expect("a few thousand")
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let read = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(read).expect("it counts up from 0")
}

fn join() {
    let devices = number("NODES_JOINS", 15_000);
    let server_core = std::env::var("BENCH_SERVER_CORE").ok();
    let load_core = std::env::var("BENCH_LOAD_CORE").ok();
    let mut more = Vec::new();
    for repetition in 0..REPETITIONS {
        let server = server();
        let names = [("home", server_core.as_deref()), ("edge", load_core.as_deref())];
        let [home, edge] = nodes(&server, names);
        let idle = idle_share(&home, || precise_cpu(&home));
        let of_load = flags(&[
            // The first message comes once all devices have joined.
            ("--rate", "1".to_owned()),
            ("--seconds", "6".to_owned()),
            ("--room-stem", stem_at(&home)),
        ]);
        let load = Load { devices, devices_at: vec![&edge], publishes_at: &home, flags: of_load };
        let began = now();
        let cpu = precise_cpu(&home);
        let child = load.start();
        until("the devices have joined", || metric(&edge, "roomcast_members") >= devices as f64);
        let spent = (precise_cpu(&home) - cpu).saturating_sub((now() - began).mul_f64(idle));
        judge(child);
        let forwarded = spent.div_f64(devices as f64);
        let local = local_join(devices);
        let beyond = (forwarded.as_secs_f64() - local.as_secs_f64()) * 1e6;
        print(&format!(
            "join {repetition}: {devices} joins: {forwarded:.2?} of the home's node for each, {local:.2?} of a shard \
             for a local one: {beyond:.2} µs more"
        ));
        more.push(beyond);
    }
    print_beyond("join", more);
}

/// Prints the median of the repetitions of a part about joins.
fn print_beyond(part: &str, mut more: Vec<f64>) {
    more.sort_by(f64::total_cmp);
    print(&format!(
        "{part}: median {:.2} µs beyond a local join ({:.2} … {:.2}), target at most 2 µs",
        more[1], more[0], more[2]
    ));
}

/// Devices that are connected to `node`, as members of `room`.
fn connected(node: &Node, room: &str, count: u64) -> Vec<TcpStream> {
    let request = format!(
        "GET /v1/rooms/{room}/ws?encoding=proto HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\n\
         connection: Upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let connect = |_| {
        let mut device = TcpStream::connect(node.viewer_door).expect("the door is open");
        device.set_nodelay(true).expect("it is connected");
        device.write_all(request.as_bytes()).expect("the door reads");
        device
    };
    let devices = (0..count).map(connect).collect();
    until("the devices are connected", || metric(node, "roomcast_members") >= count as f64);
    devices
}

/// The frame of a device that joins a further room.
fn join_frame(room: &str) -> Vec<u8> {
    const MASKED_TEXT: u8 = 0x81;
    const IS_MASKED: u8 = 0x80;
    let text = format!(r#"{{"kind":"join","room":"{room}"}}"#);
    let length = u8::try_from(text.len()).expect("a short name");
    // A mask of zeroes leaves the text as it is.
    let head = [MASKED_TEXT, IS_MASKED | length, 0, 0, 0, 0];
    [head.as_slice(), text.as_bytes()].concat()
}

fn storm() {
    let devices = number("NODES_DEVICES", 5000);
    let pause = Duration::from_secs(1) / u32::try_from(number("NODES_STORM", 20_000)).expect("few");
    let server_core = std::env::var("BENCH_SERVER_CORE").ok();
    let load_core = std::env::var("BENCH_LOAD_CORE").ok();
    let mut more = Vec::new();
    for repetition in 0..REPETITIONS {
        let server = server();
        let names = [("home", server_core.as_deref()), ("edge", load_core.as_deref())];
        let [home, edge] = nodes(&server, names);
        let idle = idle_share(&home, || precise_cpu(&home));
        let mut rooms = stems_at(&home).map(|stem| format!("{stem}-0"));
        let first = rooms.next().expect("one of 200 rooms");
        let mut connections = connected(&edge, &first, devices);
        let frames: Vec<_> = rooms.take(STORM_ROOMS).map(|room| join_frame(&room)).collect();
        let joins = devices * frames.len() as u64;
        let cpu = precise_cpu(&home);
        let began = now();
        let mut due = began;
        for frame in &frames {
            for device in &mut connections {
                rest(due.saturating_duration_since(now()));
                due += pause;
                device.write_all(frame).expect("the door reads");
            }
        }
        // The gauge of members moves once a second, so it tells nothing of the rate.
        let rate = joins as f64 / (now() - began).as_secs_f64();
        until("the devices have joined", || metric(&edge, "roomcast_members") >= (devices + joins) as f64);
        let took = now() - began;
        let spent = (precise_cpu(&home) - cpu).saturating_sub(took.mul_f64(idle));
        let forwarded = spent.div_f64(joins as f64);
        let local = local_join(joins);
        let beyond = (forwarded.as_secs_f64() - local.as_secs_f64()) * 1e6;
        print(&format!(
            "storm {repetition}: {joins} joins, {rate:.0} a second: {forwarded:.2?} of the home's node for each, \
             {local:.2?} of a shard for a local one: {beyond:.2} µs more"
        ));
        more.push(beyond);
    }
    print_beyond("storm", more);
}

/// The share of a core that a node takes while it is left alone.
fn idle_share(node: &Node, cpu: impl Fn() -> Duration) -> f64 {
    // A node that has just started still claims and reads.
    until("the node is up", || get(node.ops_door, "/readyz").is_some_and(|answer| answer.code == 200));
    let before = cpu();
    let began = now();
    rest(IDLE);
    (cpu() - before).as_secs_f64() / (now() - began).as_secs_f64()
}

/// Entries on links of these nodes that no call has caused: a forwarded publish, or a question for a route, makes a
/// call and an answer. Links are counted twice a second.
fn fan_out_entries(nodes: &[Node]) -> f64 {
    rest(Duration::from_secs(1));
    let sum = |name: &str| nodes.iter().map(|node| metric(node, name)).sum::<f64>();
    let calls = |outcome: &str| {
        let name = format!("roomcast_node_calls_total{{outcome=\"{outcome}\"}}");
        nodes.iter().map(|node| series(node, &name)).sum::<f64>()
    };
    sum("roomcast_link_frames_total") - 2.0 * (calls("answered") + calls("unknown"))
}

fn batches(nodes: &[Node]) -> f64 {
    nodes.iter().map(|node| metric(node, "roomcast_batches_total")).sum()
}

fn cold() {
    let devices = number("NODES_ROOMS", 20_000);
    let server = server();
    let nodes = nodes(&server, [("node-1", None), ("node-2", None)]);
    let alone = Node::start_pinned("127.0.0.1:0", None, &["--ephemeral", "--shards", "1"], &[]);
    let [alone_percent, cluster_percent] =
        [&alone, &nodes[0]].map(|node| 100.0 * idle_share(node, || precise_cpu(node)));
    drop(alone);
    print(&format!(
        "cold: an idle node takes {alone_percent:.2} % of a core alone, {cluster_percent:.2} % in a cluster of two: \
         {:.2} % more, target at most 3 %",
        cluster_percent - alone_percent
    ));
    let flags = flags(&[
        ("--rooms", devices.to_string()),
        ("--rate", COLD_RATE.to_string()),
        ("--seconds", load_seconds().to_string()),
        ("--route", format!("http://{}", nodes[0].viewer_door)),
    ]);
    let load = Load { devices, devices_at: nodes.iter().collect(), publishes_at: &nodes[0], flags };
    let child = load.start();
    let members = || nodes.iter().map(|node| metric(node, "roomcast_members")).sum::<f64>();
    until("the devices have joined", || members() >= devices as f64);
    // Devices ask for routes before they join, and leave at the end.
    let before = fan_out_entries(&nodes);
    let batches_before = batches(&nodes);
    rest(Duration::from_secs(load_seconds() - 5));
    let entries = fan_out_entries(&nodes) - before;
    let cut = batches(&nodes) - batches_before;
    judge(child);
    print(&format!(
        "cold: {devices} rooms of one routed device: {entries} entries on links for {cut} batches: {:.4} for each, \
         target 0",
        entries / cut.max(1.0)
    ));
}

fn hot() {
    let devices = number("NODES_DEVICES", 5000);
    let server = server();
    let nodes = nodes(&server, [("node-1", None), ("node-2", None), ("node-3", None)]);
    let home = &nodes[0];
    let flags = flags(&[
        ("--rate", RATE.to_string()),
        ("--seconds", load_seconds().to_string()),
        ("--room-stem", stem_at(home)),
    ]);
    let load = Load { devices, devices_at: nodes.iter().collect(), publishes_at: home, flags };
    let child = load.start();
    let members = || nodes.iter().map(|node| metric(node, "roomcast_members")).sum::<f64>();
    until("the devices have joined", || members() >= devices as f64);
    rest(Duration::from_secs(1));
    // The home sends batches, and hears of the passes.
    let sent = || metric(home, "roomcast_link_frames_total");
    let cut = || metric(home, "roomcast_batches_total");
    let sent_before = sent();
    let cut_before = cut();
    rest(Duration::from_secs(load_seconds() - 4));
    let per_batch = (sent() - sent_before) / (cut() - cut_before).max(1.0);
    judge(child);
    print(&format!(
        "hot: {devices} devices on three nodes: {per_batch:.2} entries on the home's links for each batch, target 2: \
         the nodes with members beside the home"
    ));
}
