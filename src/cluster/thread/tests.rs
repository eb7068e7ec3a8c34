//! Threads of two nodes over a real NATS server, with real logs.

use tokio::time::sleep;

use self::nats::{NatsServers, NatsSetting};
use super::*;
use crate::store::jetstream;
use crate::store::writer::StoreHandle;
use roomcast_core::cluster::SlotHome;

#[path = "../../../tests/support/nats.rs"]
mod nats;

/// A server that takes clients. `None`: this machine has none, and the caller's test has not run.
async fn server(test: &str) -> Option<NatsServers> {
    let servers =
        NatsServers::spawn(&format!("TC {test}"), NatsSetting { syncs: false, ..NatsSetting::ONE })?;
    until(10, async || servers.are_open()).await;
    Some(servers)
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
    fn start(server: &NatsServers, name: &str) -> Self {
        let config = ClusterConfig {
            servers: server.urls(),
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
        let meters = Arc::new(QuotaMeters::new(way.slot_key(), &config.region));
        let plan = ClusterPlan {
            config,
            incarnation,
            shards: 2,
            slots: Arc::new(Slots::new(way.slot_key())),
            meters,
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
    let Some(server) = server("killed").await else { return };
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
    let Some(server) = server("goodbye").await else { return };
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
