//! Many nodes over a real NATS server: the price of a home on another node.
//!
//! `NATS_SERVER` is the path of a nats-server (`scripts/nats.sh` prints one). Build the load generator first:
//! `cargo build --release --workspace && NATS_SERVER=$(bash scripts/nats.sh) cargo bench --bench nodes`.
//! `cargo bench --bench nodes -- fanout` runs one part. `BENCH_SERVER_CORE` and `BENCH_LOAD_CORE`, both or none,
//! pin the measured node to one core, and everything else to the other: the server, the other nodes, the load.
//!
//! | part | figure |
//! |---|---|
//! | `fanout` | processor time per device and frame, on a node whose room has its home on another node, over the same on a single node |
//! | `publish` | latency of a publish at the home of its room, and at another node |
//! | `cold` | entries on links per flush of 20 000 rooms of one device, and the processor time of an idle node |
//! | `hot` | frames on links per batch of a room with members on three nodes |
//!
//! `NODES_DEVICES` (5 000) are the devices of `fanout` and `hot`, `NODES_ROOMS` (20 000) the rooms of `cold`.

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use support::{Answer, Node, percentile, pin_the_load, print};

const REPETITIONS: usize = 3;
const LOAD_SECONDS: u64 = 12;
/// Messages a second of `fanout`. Each is a batch of its own: they come more than a window apart.
const RATE: u64 = 8;
const PUBLISHES: usize = 1000;
/// Longest wait for a server, a node or a home.
const READY_AGE_MAX: Duration = Duration::from_secs(20);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let wanted = args.iter().find(|arg| !arg.starts_with('-'));
    let runs = |name: &str| wanted.is_none_or(|wanted| name.contains(wanted.as_str()));
    pin_the_load();
    for (name, measure) in [("fanout", fanout as fn()), ("publish", publish), ("cold", cold), ("hot", hot)] {
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

/// A nats-server with JetStream in an empty folder. Killed on drop, and the folder removed.
struct Server {
    process: Child,
    url: String,
    folder: PathBuf,
}

impl Server {
    fn start(name: &str) -> Self {
        let program = std::env::var("NATS_SERVER").expect("NATS_SERVER names a nats-server");
        let folder = std::env::temp_dir().join(format!("roomcast-nodes-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("the folder can be made");
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let config = folder.join("server.conf");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\nno_fast_producer_stall: true\nmax_pending: 64MB\n\
             jetstream {{ store_dir: {:?}, max_file_store: 100GB, sync_interval: always }}\n",
            folder.join("store")
        );
        fs::write(&config, text).expect("the folder is there");
        let mut command = Command::new(program);
        command.arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("the server can be started");
        let server = Self { process, url: format!("nats://127.0.0.1:{port}"), folder };
        until("the server listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        server
    }

    /// A node of the cluster on this server, once its slots have homes. `home_first`: the first node claims all
    /// slots, since it is alone.
    fn node(&self, name: &str, core: Option<&str>) -> Node {
        let variables = [
            ("ROOMCAST__CLUSTER__NATS", format!("[\"{}\"]", self.url)),
            ("ROOMCAST__CLUSTER__NODE", name.to_owned()),
            ("ROOMCAST__CLUSTER__REPLICAS", "1".to_owned()),
            ("ROOMCAST__CLUSTER__ALLOW_UNSYNCED", "true".to_owned()),
        ];
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let node = Node::start_pinned("127.0.0.1:0", core, &["--shards", "1"], &variables);
        until("the node is ready", || get(node.ops_door, "/readyz").is_some_and(|answer| answer.code == 200));
        node
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().expect("it was killed");
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// Waits until `is_so`.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = now();
    while !is_so() {
        assert!(now() - began < READY_AGE_MAX, "in vain: {what}");
        park_timeout(Duration::from_millis(20));
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
    let text = get(node.ops_door, "/metrics").expect("the door answers").body;
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    text.lines().filter(of_name).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// A run of the load generator against these nodes: devices at the first, publishes at the second.
struct Load<'a> {
    devices_at: Vec<&'a Node>,
    publishes_at: &'a Node,
    flags: Vec<String>,
}

impl Load<'_> {
    fn start(&self) -> Child {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_roomcast")).with_file_name("roomcast-loadgen");
        let mut command = Command::new(&program);
        command.args(["run", "--no-floor", "--encoding", "proto"]).args(&self.flags);
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

/// A room stem whose first room has its home on `home`. The node that is asked is its own home or names it.
fn stem_at(home: &Node, other: &Node) -> String {
    let url = |node: &Node| node.viewer_door.to_string();
    (0..200)
        .map(|n| format!("bench{n}"))
        .find(|stem| {
            let answer =
                get(other.viewer_door, &format!("/v1/route?room={stem}-0")).expect("the door answers");
            answer.body.contains(&url(home))
        })
        .expect("one of 200 rooms")
}

/// Processor time of the node for each frame written to a device, over the middle of a run.
fn cost_per_frame(measured: &Node, load: &Load<'_>, devices: u64) -> Duration {
    let child = load.start();
    until("the devices have joined", || metric(measured, "roomcast_members") >= devices as f64);
    park_timeout(Duration::from_secs(2));
    let frames = metric(measured, "roomcast_frames_total");
    let cpu = measured.cpu();
    park_timeout(Duration::from_secs(LOAD_SECONDS - 4));
    let spent = measured.cpu() - cpu;
    let frames = metric(measured, "roomcast_frames_total") - frames;
    judge(child);
    spent.div_f64(frames.max(1.0))
}

fn fanout() {
    let devices = number("NODES_DEVICES", 5000);
    let flags = |stem: &str| {
        [
            ("--devices", devices.to_string()),
            ("--rate", RATE.to_string()),
            ("--seconds", LOAD_SECONDS.to_string()),
            ("--room-stem", stem.to_owned()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect::<Vec<_>>()
    };
    let server_core = std::env::var("BENCH_SERVER_CORE").ok();
    let load_core = std::env::var("BENCH_LOAD_CORE").ok();
    let mut ratios = Vec::new();
    for repetition in 0..REPETITIONS {
        let single = {
            let node = Node::start_pinned(
                "127.0.0.1:0",
                server_core.as_deref(),
                &["--ephemeral", "--shards", "1"],
                &[],
            );
            let load = Load { devices_at: vec![&node], publishes_at: &node, flags: flags("single") };
            cost_per_frame(&node, &load, devices)
        };
        let server = Server::start("fanout");
        let home = server.node("home", load_core.as_deref());
        let edge = server.node("edge", server_core.as_deref());
        let stem = stem_at(&home, &edge);
        let load = Load { devices_at: vec![&edge], publishes_at: &home, flags: flags(&stem) };
        let elsewhere = cost_per_frame(&edge, &load, devices);
        let ratio = elsewhere.as_secs_f64() / single.as_secs_f64();
        print(&format!(
            "fanout {repetition}: {devices} devices: {single:.2?} a frame on a single node, {elsewhere:.2?} with the \
             home elsewhere: {ratio:.3}"
        ));
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    print(&format!("fanout: median {:.3} ({:.3} … {:.3})", ratios[1], ratios[0], ratios[2]));
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
        park_timeout(Duration::from_millis(2));
    }
    all.sort_unstable();
    all
}

fn publish() {
    let server = Server::start("publish");
    let server_core = std::env::var("BENCH_SERVER_CORE").ok();
    let home = server.node("home", server_core.as_deref());
    let other = server.node("other", server_core.as_deref());
    let room = format!("{}-0", stem_at(&home, &other));
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
    }
}

/// Processor time of a node that is left alone, in thousandths of a core.
fn idle_permille(node: &Node) -> u128 {
    let cpu = node.cpu();
    let began = now();
    park_timeout(Duration::from_secs(10));
    (node.cpu() - cpu).as_micros() * 1000 / (now() - began).as_micros()
}

fn cold() {
    let rooms = number("NODES_ROOMS", 20_000);
    let devices = rooms.min(9000);
    let server = Server::start("cold");
    let nodes = [server.node("node-1", None), server.node("node-2", None)];
    let alone = Node::start_pinned("127.0.0.1:0", None, &["--ephemeral", "--shards", "1"], &[]);
    print(&format!(
        "cold: an idle node takes {} ‰ of a core alone, {} ‰ in a cluster of two",
        idle_permille(&alone),
        idle_permille(&nodes[0])
    ));
    let mut flags: Vec<String> = Vec::new();
    for (flag, value) in [("--devices", devices), ("--rooms", devices), ("--rate", 2000), ("--seconds", 10)] {
        flags.extend([flag.to_owned(), value.to_string()]);
    }
    flags.push(format!("--route=http://{}", nodes[0].viewer_door));
    let before: f64 = nodes.iter().map(|node| metric(node, "roomcast_link_frames_total")).sum();
    let batches: f64 = nodes.iter().map(|node| metric(node, "roomcast_batches_total")).sum();
    let load = Load { devices_at: nodes.iter().collect(), publishes_at: &nodes[0], flags };
    judge(load.start());
    let frames: f64 =
        nodes.iter().map(|node| metric(node, "roomcast_link_frames_total")).sum::<f64>() - before;
    let batches: f64 = nodes.iter().map(|node| metric(node, "roomcast_batches_total")).sum::<f64>() - batches;
    print(&format!(
        "cold: {devices} rooms of one routed device: {frames} entries on links for {batches} batches"
    ));
}

fn hot() {
    let devices = number("NODES_DEVICES", 5000);
    let server = Server::start("hot");
    let nodes = [server.node("node-1", None), server.node("node-2", None), server.node("node-3", None)];
    let mut flags: Vec<String> = Vec::new();
    for (flag, value) in [("--devices", devices), ("--rate", RATE), ("--seconds", LOAD_SECONDS)] {
        flags.extend([flag.to_owned(), value.to_string()]);
    }
    flags.extend(["--room-stem".to_owned(), "hot".to_owned()]);
    let load = Load { devices_at: nodes.iter().collect(), publishes_at: &nodes[0], flags };
    let child = load.start();
    let members = || nodes.iter().map(|node| metric(node, "roomcast_members")).sum::<f64>();
    until("the devices have joined", || members() >= devices as f64);
    park_timeout(Duration::from_secs(1));
    let link = || nodes.iter().map(|node| metric(node, "roomcast_link_batches_total")).sum::<f64>();
    let cut = || nodes.iter().map(|node| metric(node, "roomcast_batches_total")).sum::<f64>();
    let before = (link(), cut());
    park_timeout(Duration::from_secs(LOAD_SECONDS - 4));
    let after = (link(), cut());
    judge(child);
    print(&format!(
        "hot: {devices} devices on three nodes: {:.2} batches on links per batch cut (nodes beside the home: 2)",
        (after.0 - before.0) / (after.1 - before.1).max(1.0)
    ));
}
