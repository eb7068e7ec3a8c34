//! Threads of two nodes over a real NATS server, with real logs.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tokio::time::sleep;

use super::*;
use crate::store::jetstream;
use crate::store::writer::StoreHandle;
use roomcast_core::cluster::SlotHome;

/// A nats-server on loopback with a folder of its own, killed on drop.
struct Server {
    child: Child,
    folder: PathBuf,
    url: String,
}

impl Server {
    /// `None`: this machine has no nats-server, and the caller's test has not run.
    async fn start(test: &str) -> Option<Self> {
        let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/nats/bin/nats-server");
        let named = std::env::var_os("NATS_SERVER").map(PathBuf::from);
        let Some(program) = named.or_else(|| installed.is_file().then_some(installed)) else {
            let line =
                format!("skipped: TC {test}: NOT RUN: NATS_SERVER names no nats-server (scripts/nats.sh)");
            writeln!(io::stderr(), "{line}").ok();
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = std::env::temp_dir().join(format!("roomcast-cluster-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("server.conf");
        let store = folder.display();
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\n\
             jetstream {{ store_dir: \"{store}\", max_file_store: 100GB, sync_interval: 2m }}\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(program);
        command.arg("--config").arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        let server =
            Self { child: command.spawn().unwrap(), folder, url: format!("nats://127.0.0.1:{port}") };
        until(10, async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await;
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// Waits for a fact, for some seconds at most. The result is the time that it took.
async fn until(seconds: u64, mut fact: impl AsyncFnMut() -> bool) -> Duration {
    let begin = clock::now().instant;
    let held = timeout(Duration::from_secs(seconds), async {
        while !fact().await {
            sleep(Duration::from_millis(5)).await;
        }
    });
    held.await.expect("the fact becomes true in time");
    clock::now().instant - begin
}

/// A node without shards and doors. The log ends after the thread.
struct TestNode {
    handle: ClusterHandle,
    log: StoreHandle,
}

impl TestNode {
    fn start(server: &Server, name: &str) -> Self {
        let config = ClusterConfig {
            servers: vec![server.url.clone()],
            name: "rc".to_owned(),
            node: name.to_owned(),
            region: "eu".to_owned(),
            viewer_url: format!("ws://{name}"),
            credentials: None,
            system_credentials: None,
            replicas: 1,
            dead_after: Duration::from_secs(3),
            allow_unsynced: true,
            insecure: false,
        };
        let incarnation = draw_incarnation(clock::now()).unwrap();
        let (log, way) =
            jetstream::start(&config, incarnation, vec![Box::new(|| ())], Box::new(|_, _| {})).unwrap();
        let plan = ClusterPlan {
            config,
            incarnation,
            shards: 2,
            slots: Arc::new(Slots::new(way.slot_key())),
            log: way,
            home_key: NameKey::default(),
            ways: Vec::new(),
            calls_in: mpsc::channel(1).0,
            bell: ClusterBell::default(),
            report: Box::new(|_| ()),
            load: Box::new(|| NodeLoad { shards: 2, seats: 10, free_seats: 7, ..NodeLoad::default() }),
        };
        Self { handle: start(plan).unwrap(), log }
    }

    fn holds(&self) -> usize {
        self.handle.slots.all().standings.iter().filter(|standing| standing.home == SlotHome::Here).count()
    }

    /// The number of the living nodes that this one hears.
    fn living(&self) -> usize {
        self.handle.shown.newest().peers.iter().filter(|peer| peer.is_alive).count()
    }

    /// True if all slots have a home, and this many are here.
    fn has_homes(&self) -> bool {
        self.handle.slots.all().standings.iter().all(|standing| standing.home != SlotHome::Nobody)
    }
}

#[tokio::test]
async fn a_killed_node_is_missed_within_one_and_a_half_seconds_and_its_slots_move() {
    let Some(server) = Server::start("killed").await else { return };
    let one = TestNode::start(&server, "node-1");
    let two = TestNode::start(&server, "node-2");
    until(5, async || one.living() == 1 && two.living() == 1).await;
    let seen = Arc::clone(&one.handle.shown.newest());
    assert_eq!((seen.peers[0].name.as_str(), seen.peers[0].viewer_url.as_str()), ("node-2", "ws://node-2"));
    assert_eq!((seen.peers[0].seats, seen.peers[0].free_seats), (10, 7));
    until(20, async || one.has_homes() && two.has_homes()).await;
    assert_eq!(one.holds() + two.holds(), 256);
    assert!(two.holds() > 0, "{}", two.holds());
    // Its connections end, as those of a killed process.
    let TestNode { handle, log } = two;
    drop(handle);
    let missed = until(5, async || one.living() == 0).await;
    assert!(missed < Duration::from_millis(1500), "{missed:?}");
    until(10, async || one.holds() == 256).await;
    drop(log);
}

#[tokio::test]
async fn a_goodbye_is_heard_at_once() {
    let Some(server) = Server::start("goodbye").await else { return };
    let one = TestNode::start(&server, "node-1");
    let two = TestNode::start(&server, "node-2");
    until(5, async || one.living() == 1 && two.living() == 1).await;
    two.handle.drain();
    until(5, async || one.handle.shown.newest().peers[0].is_draining).await;
    let TestNode { handle, log } = two;
    handle.stop();
    let heard = until(5, async || one.living() == 0).await;
    assert!(heard < Duration::from_millis(500), "{heard:?}");
    drop(log);
}
