//! A node on free ports, its doors and their users: the base of every black-box test.
//!
//! Nothing here sleeps until something has probably happened, and nothing reads logs. A test waits for the
//! frame, the close, the answer or the metric itself, and each wait has a named bound.
#![allow(dead_code, unused_imports, unused_macros, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "clippy sees only #[test] functions as tests, and these serve them")]

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use roomcast::config::Config;
use roomcast::config::args::Args;
use roomcast::server::Server;
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval, timeout};

pub(crate) mod cluster;
pub(crate) mod cut;
pub(crate) mod device;
pub(crate) mod nats;
pub(crate) mod netns;
pub(crate) mod process;
pub(crate) mod publisher;
pub(crate) mod raw;

pub(crate) use cluster::Cluster;
pub(crate) use device::{Device, Handshake, Heard};
pub(crate) use process::Process;
pub(crate) use publisher::{Answer, Door};
pub(crate) use raw::RawDevice;
pub(crate) use roomcast_core::room::id::Encoding;

/// Longest wait for anything that must come, on a machine with much other work.
pub(crate) const COMES_WITHIN: Duration = Duration::from_secs(20);
/// The time between two looks at a metric or a view.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Runs each named test at one shard and at four: the shard of a room must make no visible difference.
macro_rules! one_and_four_shards {
    ($($name:ident),* $(,)?) => {
        mod at_1_shard {
            $(#[tokio::test] async fn $name() { super::$name(1).await })*
        }
        mod at_4_shards {
            $(#[tokio::test] async fn $name() { super::$name(4).await })*
        }
    };
}
pub(crate) use one_and_four_shards;

/// Runs each named test in memory and on disk, at one shard and at four.
macro_rules! in_memory_and_on_disk {
    ($($name:ident),* $(,)?) => {
        $crate::support::in_memory_and_on_disk!(@at in_memory_at_1_shard, 1, None, [$($name),*]);
        $crate::support::in_memory_and_on_disk!(@at in_memory_at_4_shards, 4, None, [$($name),*]);
        $crate::support::in_memory_and_on_disk!(
            @at on_disk_at_1_shard, 1, Some($crate::support::Folder::new()), [$($name),*]
        );
        $crate::support::in_memory_and_on_disk!(
            @at on_disk_at_4_shards, 4, Some($crate::support::Folder::new()), [$($name),*]
        );
    };
    (@at $place:ident, $shards:literal, $folder:expr, [$($name:ident),*]) => {
        mod $place {
            $(#[tokio::test] async fn $name() {
                super::$name(&$crate::support::Place { shards: $shards, folder: $folder }).await;
            })*
        }
    };
}
pub(crate) use in_memory_and_on_disk;

/// A node of this process.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) server: Server,
    pub(crate) doors: Doors,
}

/// The addresses of a node's doors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Doors {
    pub(crate) viewer: SocketAddr,
    pub(crate) publisher: SocketAddr,
    pub(crate) ops: SocketAddr,
}

impl Node {
    /// A node with the default configuration, on free ports.
    pub(crate) fn start(shards: usize) -> Self {
        Self::with(shards, &[])
    }

    /// A node with some keys changed, each as `SECTION__KEY` and a value in TOML's grammar.
    pub(crate) fn with(shards: usize, keys: &[(&str, &str)]) -> Self {
        Self::keeping(shards, keys, None)
    }

    /// A node with some keys changed, which keeps its reliable messages in this folder, or in memory.
    pub(crate) fn keeping(shards: usize, keys: &[(&str, &str)], data: Option<&Path>) -> Self {
        Self::of(config(shards, keys, data))
    }

    /// A node of this configuration.
    pub(crate) fn of(config: Config) -> Self {
        let server = Server::start(config).unwrap();
        let doors =
            Doors { viewer: server.viewer_addr, publisher: server.publisher_addr, ops: server.ops_addr };
        Self { server, doors }
    }
}

/// The configuration of a node on free ports, with some keys changed.
pub(crate) fn config(shards: usize, keys: &[(&str, &str)], data: Option<&Path>) -> Config {
    let mut args = Args::default();
    let free = || Some("127.0.0.1:0".to_owned());
    args.flags.viewer_listen = free();
    args.flags.publisher_listen = free();
    args.flags.ops_listen = free();
    args.flags.ephemeral = data.is_none();
    args.flags.data_dir = data.map(|folder| folder.to_str().unwrap().to_owned());
    args.flags.shards = Some(shards.to_string());
    let environment = keys.iter().map(|(key, value)| (format!("ROOMCAST__{key}"), (*value).to_owned()));
    Config::load(&args, environment).unwrap()
}

/// The shards of a test's node, and the place of its reliable messages.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) shards: usize,
    /// `None`: in memory.
    pub(crate) folder: Option<Folder>,
}

impl Place {
    /// Starts a node. Messages that an earlier node kept on disk are there again.
    pub(crate) fn start(&self) -> Node {
        self.start_with(&[])
    }

    /// Starts a node with some keys changed.
    pub(crate) fn start_with(&self, keys: &[(&str, &str)]) -> Node {
        Node::keeping(self.shards, keys, self.folder.as_ref().map(Folder::path))
    }
}

/// A folder, removed on drop.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// An empty folder.
    pub(crate) fn new() -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let number = MADE.fetch_add(1, Relaxed);
        let path = std::env::temp_dir().join(format!("roomcast-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

impl std::ops::Deref for Node {
    type Target = Doors;

    fn deref(&self) -> &Doors {
        &self.doors
    }
}

impl Doors {
    /// The publisher door.
    pub(crate) fn publisher_door(&self) -> Door {
        Door(self.publisher)
    }

    /// The operator door.
    pub(crate) fn ops_door(&self) -> Door {
        Door(self.ops)
    }

    /// The viewer door, for requests other than handshakes.
    pub(crate) fn viewer_door(&self) -> Door {
        Door(self.viewer)
    }

    /// Publishes a JSON request that must be taken, and returns its results.
    pub(crate) async fn publish(&self, room: &str, request: &Value) -> Vec<String> {
        let answer = self.publisher_door().publish(room, request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.results()
    }

    /// Publishes chat messages whose payloads are these numbers, in one request.
    pub(crate) async fn chat(&self, room: &str, payloads: std::ops::Range<u64>) {
        let messages: Vec<Value> =
            payloads.map(|n| serde_json::json!({"type": "chat", "payload": n})).collect();
        let count = messages.len();
        let results = self.publish(room, &serde_json::json!({ "messages": messages })).await;
        assert_eq!(results, vec!["accepted"; count]);
    }

    /// Publishes one message that must become durable, and returns its offset.
    pub(crate) async fn durable(&self, room: &str, message: &Value) -> u64 {
        let answer = self.publisher_door().publish(room, message).await;
        assert_eq!(answer.results(), ["durable"], "{answer:?}");
        answer.json()["results"][0]["offset"].as_u64().unwrap()
    }

    /// A page of a room's reliable messages, after a cursor if there is one.
    pub(crate) async fn pull(&self, room: &str, after: Option<&str>) -> Value {
        let after = after.map_or(String::new(), |after| format!("?after={after}"));
        let answer = self.viewer_door().get(&format!("/v1/rooms/{room}/reliable{after}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// A message's receipt.
    pub(crate) async fn receipt(&self, room: &str, offset: u64) -> Value {
        let answer = self.publisher_door().get(&format!("/v1/rooms/{room}/reliable/{offset}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// A message's receipt, once its online, acknowledged, left and pending are these.
    pub(crate) async fn receipt_of(&self, room: &str, offset: u64, counts: [u64; 4]) -> Value {
        let mut last = Value::Null;
        let found = timeout(COMES_WITHIN, async {
            loop {
                last = self.receipt(room, offset).await;
                let members = ["online", "acknowledged", "left", "pending"];
                if members.map(|member| last[member].as_u64().unwrap()) == counts {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        assert!(found.await.is_ok(), "online, acknowledged, left, pending: {counts:?} expected: {last}");
        last
    }

    /// `PUT`s a room's settings.
    pub(crate) async fn configure(&self, room: &str, settings: &Value) -> Value {
        let answer = self.publisher_door().put(&format!("/v1/rooms/{room}"), settings).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// A room's view.
    pub(crate) async fn view(&self, room: &str) -> Value {
        let answer = self.publisher_door().get(&format!("/v1/rooms/{room}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// A room's view, once it satisfies `is_so`.
    pub(crate) async fn view_when(&self, room: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        until(&format!("the view of {room}"), async || Some(self.view(room).await).filter(|view| is_so(view)))
            .await
    }

    /// All metrics. A shard counts after its answer, so the effect of a test may take a moment to show.
    pub(crate) async fn metrics(&self) -> Metrics {
        let answer = self.ops_door().get("/metrics").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        Metrics(answer.text())
    }

    /// All metrics, once they satisfy `is_so`.
    pub(crate) async fn metrics_when(&self, what: &str, is_so: impl Fn(&Metrics) -> bool) -> Metrics {
        until(what, async || Some(self.metrics().await).filter(|metrics| is_so(metrics))).await
    }

    /// Names of `count` rooms, each with another home as long as the node has shards left.
    pub(crate) async fn rooms_apart(&self, name: &str, count: usize, shards: usize) -> Vec<String> {
        let mut rooms: Vec<(u64, String)> = Vec::new();
        for n in 0.. {
            let room = format!("{name}-{n}");
            let home = self.configure(&room, &serde_json::json!({})).await["home"].as_u64().unwrap();
            let taken = rooms.iter().filter(|(other, _)| *other == home).count();
            if taken < count.div_ceil(shards) {
                rooms.push((home, room));
            }
            if rooms.len() == count {
                break;
            }
        }
        rooms.into_iter().map(|(_, room)| room).collect()
    }
}

/// Looks again and again until there is something to see, within [`COMES_WITHIN`].
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let seen = timeout(COMES_WITHIN, async {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if let Some(seen) = look().await {
                return seen;
            }
        }
    });
    seen.await.unwrap_or_else(|_| panic!("{what}: not within {COMES_WITHIN:?}"))
}

/// Waits for `it`, at most [`COMES_WITHIN`].
pub(crate) async fn comes<T>(what: &str, it: impl Future<Output = T>) -> T {
    timeout(COMES_WITHIN, it).await.unwrap_or_else(|_| panic!("{what}: not within {COMES_WITHIN:?}"))
}

/// One scrape.
#[derive(Debug)]
pub(crate) struct Metrics(pub(crate) String);

impl Metrics {
    /// The sum over all series of a metric whose labels hold each of `labels` (as `name="value"`).
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> u64 {
        let of_name = self.0.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
        });
        let matching = of_name.filter(|line| labels.iter().all(|label| line.contains(label)));
        let values = matching.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of a test")]
        let sum = values.sum::<f64>() as u64;
        sum
    }

    /// Connections closed for a reason.
    pub(crate) fn closed(&self, reason: &str) -> u64 {
        self.sum("roomcast_connections_closed_total", &[&format!("reason=\"{reason}\"")])
    }
}
