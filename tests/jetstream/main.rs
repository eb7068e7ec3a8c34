//! A node whose store is JetStream, on real NATS servers: one, and three with three copies of each stream.
#![expect(clippy::unwrap_used, reason = "clippy sees only #[test] functions as tests, and these serve them")]

#[path = "../support/mod.rs"]
mod support;

mod servers;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use roomcast::config::Config;
use roomcast::config::args::Args;
use roomcast::server::Server;
use roomcast_core::limits::LOG_RESERVE_BYTES;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{interval, timeout};

use self::support::device::{list, reliable};
use self::support::nats::{NatsServers, NatsSetting};
use self::support::{Device, Doors, Encoding, Metrics, Node, until};

/// Longest time of one test, on a machine with much other work.
const TEST_AGE_MAX: Duration = Duration::from_secs(120);

/// The time between two tries to publish a message whose outcome is unknown.
const TRY_EVERY: Duration = Duration::from_millis(20);
/// The time between two messages of a room, while servers are killed: a stream of 1 024 messages must outlast the
/// test.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);

/// Prints a line that no harness holds back.
fn print(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}

/// The configuration of a node on these servers, with some keys changed.
fn config(servers: &NatsServers, keys: &[(&str, &str)]) -> Config {
    let mut args = Args::default();
    let free = || Some("127.0.0.1:0".to_owned());
    args.flags.viewer_listen = free();
    args.flags.publisher_listen = free();
    args.flags.ops_listen = free();
    args.flags.shards = Some("2".to_owned());
    let urls = servers.toml();
    let keys = [("CLUSTER__NATS", urls.as_str()), ("CLUSTER__NODE", "node-1")]
        .into_iter()
        .chain(keys.iter().copied());
    let environment = keys.map(|(key, value)| (format!("ROOMCAST__{key}"), value.to_owned()));
    Config::load(&args, environment.collect::<BTreeMap<_, _>>().into_iter()).unwrap()
}

/// A node on one server.
fn node(servers: &NatsServers, keys: &[(&str, &str)]) -> Node {
    let one_copy = [("CLUSTER__REPLICAS", "1")];
    Node::of(config(servers, &one_copy.iter().chain(keys).copied().collect::<Vec<_>>()))
}

/// The text of a start that is refused.
fn refused(config: Config) -> String {
    Server::start(config).unwrap_err().to_string()
}

fn coupon(room: &str, number: usize) -> Value {
    json!({"type": "coupon", "payload": {"room": room, "n": number}, "id": format!("{room}-{number}")})
}

/// Every stored message of a room: offset -> payload.
async fn stored(doors: &Doors, room: &str) -> BTreeMap<u64, Value> {
    let mut stored = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let page = doors.pull(room, after.as_deref()).await;
        for message in list(&page, "reliable") {
            stored.insert(message["offset"].as_u64().unwrap(), message["payload"].clone());
        }
        if page["through"] == page["offset"] {
            return stored;
        }
        after = Some(format!("{}:{}", page["epoch"].as_str().unwrap(), page["through"]));
    }
}

/// Publishes a message again and again until its outcome is known, and returns its offset.
async fn publish_until_known(doors: &Doors, room: &str, message: &Value) -> u64 {
    // Not `until`, whose look can't move to another thread.
    let mut tries = interval(TRY_EVERY);
    loop {
        tries.tick().await;
        let answer = doors.publisher_door().try_publish(room, message).await;
        if let Some(answer) = answer.filter(|answer| answer.status != 503) {
            assert_eq!(answer.status, 200, "{answer:?}");
            let result = answer.json()["results"][0].clone();
            assert!(result["result"] == "durable" || result["result"] == "duplicate", "{result}");
            return result["offset"].as_u64().unwrap();
        }
    }
}

/// Publishes to a room again and again, and tells the newest offset. Returns all: offset -> payload.
async fn publish_until_stopped(
    doors: Doors,
    room: String,
    newest: watch::Sender<u64>,
    stopped: watch::Receiver<bool>,
) -> BTreeMap<u64, Value> {
    let mut acked = BTreeMap::new();
    let mut turns = interval(PUBLISH_EVERY);
    for number in 0.. {
        turns.tick().await;
        let message = coupon(&room, number);
        let offset = publish_until_known(&doors, &room, &message).await;
        acked.insert(offset, message["payload"].clone());
        newest.send_replace(offset);
        if *stopped.borrow() {
            break;
        }
    }
    acked
}

/// Waits until each room has so many further messages.
async fn each_grows(heads: &mut [watch::Receiver<u64>], by: u64) {
    for head in heads {
        let goal = *head.borrow() + by;
        head.wait_for(|head| *head >= goal).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_durable_is_found_again_by_the_next_life_of_the_node() {
    let test = "what_is_durable_is_found_again_by_the_next_life_of_the_node";
    let Some(servers) = NatsServers::with_streams(test, NatsSetting::ONE).await else { return };
    let within = timeout(
        TEST_AGE_MAX,
        Box::pin(async {
            let rooms: Vec<String> = (0..20).map(|n| format!("room-{n}")).collect();
            let first = node(&servers, &[]);
            let is_whole = |metrics: &Metrics| metrics.sum("roomcast_log_slots", &["state=\"held\""]) == 256;
            first.metrics_when("all slots", is_whole).await;
            let mut device = Device::join(&first, "room-0", Encoding::Json).await;
            let mut published: BTreeMap<&str, BTreeMap<u64, Value>> = BTreeMap::new();
            for number in 1..=5 {
                for room in &rooms {
                    let message = coupon(room, number);
                    let offset = first.durable(room, &message).await;
                    published.entry(room).or_default().insert(offset, message["payload"].clone());
                }
            }
            // More records in a log than one answer to a read brings.
            for number in 6..=400 {
                let message = coupon("room-1", number);
                let offset = first.durable("room-1", &message).await;
                published.entry("room-1").or_default().insert(offset, message["payload"].clone());
            }
            let mut seen = BTreeMap::new();
            while seen.len() < 5 {
                for message in reliable(&device.batch().await) {
                    seen.insert(message["offset"].as_u64().unwrap(), message["payload"].clone());
                }
            }
            assert_eq!(seen, published["room-0"]);
            let epoch = first.pull("room-0", None).await["epoch"].clone();
            first.server.drain().await;

            let second = node(&servers, &[]);
            for (room, published) in &published {
                assert_eq!(stored(&second, room).await, *published, "{room}");
            }
            let rest = second.pull("room-0", Some(&format!("{}:3", epoch.as_str().unwrap()))).await;
            assert_eq!(rest["epoch"], epoch);
            assert_eq!(list(&rest, "reliable").len(), 2);
            let again = second.publisher_door().publish("room-0", &coupon("room-0", 2)).await;
            assert_eq!(again.results(), ["duplicate"]);
            assert_eq!(second.durable("room-0", &coupon("room-0", 9)).await, 6);
            let receipt = second.receipt("room-0", 6).await;
            assert_eq!(receipt["online"], 0);
        }),
    );
    within.await.expect(test);
}

#[tokio::test]
async fn a_living_node_keeps_its_slots_from_a_second_one_until_it_ends() {
    let test = "a_living_node_keeps_its_slots_from_a_second_one_until_it_ends";
    let Some(servers) = NatsServers::with_streams(test, NatsSetting::ONE).await else { return };
    let within = timeout(
        TEST_AGE_MAX,
        Box::pin(async {
            let first = node(&servers, &[]);
            assert_eq!(first.durable("r1", &coupon("r1", 1)).await, 1);
            let second = node(&servers, &[("CLUSTER__NODE", "node-2")]);
            assert_eq!(second.durable("r1", &coupon("r1", 2)).await, 2, "the first orders it");
            assert_eq!(first.metrics().await.sum("roomcast_fenced_total", &[]), 0);
            first.server.drain().await;
            let page = || async { second.viewer_door().get("/v1/rooms/r1/reliable").await.status };
            until("a home", async || (page().await == 200).then_some(())).await;
            assert_eq!(stored(&second, "r1").await.len(), 2);
            assert_eq!(second.durable("r1", &coupon("r1", 3)).await, 3);
            assert_eq!(second.metrics().await.sum("roomcast_out_of_term_total", &[]), 0);
        }),
    );
    within.await.expect(test);
}

#[tokio::test]
async fn a_node_does_not_start_on_servers_that_acknowledge_before_their_sync() {
    let test = "a_node_does_not_start_on_servers_that_acknowledge_before_their_sync";
    let Some(servers) =
        NatsServers::with_streams(test, NatsSetting { syncs: false, ..NatsSetting::ONE }).await
    else {
        return;
    };
    let copies = ("CLUSTER__REPLICAS", "1");
    let why = refused(config(&servers, &[copies]));
    assert!(
        why.starts_with("n0 acknowledges messages before its disk has them: set sync_interval: always"),
        "{why}"
    );
    let node = Node::of(config(&servers, &[copies, ("CLUSTER__ALLOW_UNSYNCED", "true")]));
    assert_eq!(node.durable("r1", &coupon("r1", 1)).await, 1);
    drop(node);

    let silent = NatsSetting { has_system_user: false, ..NatsSetting::ONE };
    let Some(servers) = NatsServers::with_streams(test, silent).await else { return };
    let why = refused(config(&servers, &[copies]));
    assert!(why.contains("can't be asked") && why.contains("cluster.system_credentials"), "{why}");
}

#[tokio::test]
async fn a_stream_of_another_shape_stops_the_start() {
    let test = "a_stream_of_another_shape_stops_the_start";
    let Some(servers) = NatsServers::with_streams(test, NatsSetting::ONE).await else { return };
    drop(node(&servers, &[]));
    let why = refused(config(&servers, &[("CLUSTER__REPLICAS", "3")]));
    assert!(
        why.starts_with(
            "the stream RC_LOG_0 can't be used: its num_replicas is 1, and cluster.replicas is 3"
        ),
        "{why}"
    );
    let foreign = async_nats::jetstream::stream::Config {
        name: "XY_LOG_0".to_owned(),
        subjects: vec!["xy.>".to_owned()],
        ..Default::default()
    };
    Box::pin(servers.jetstream().await.create_stream(foreign)).await.unwrap();
    let why = refused(config(&servers, &[("CLUSTER__REPLICAS", "1"), ("CLUSTER__NAME", "xy")]));
    assert!(why.contains("its metadata has roomcast_slots"), "{why}");
}

#[tokio::test]
async fn full_streams_refuse_messages_take_claims_and_heal() {
    let test = "full_streams_refuse_messages_take_claims_and_heal";
    let Some(servers) = NatsServers::with_streams(test, NatsSetting::ONE).await else { return };
    let within = timeout(
        TEST_AGE_MAX,
        Box::pin(async {
            drop(node(&servers, &[]));
            Box::pin(servers.limit_streams(LOG_RESERVE_BYTES + 500_000)).await;
            let first = node(&servers, &[]);
            let mut acked = BTreeMap::new();
            let full = until("a full stream", async || {
                let message = json!({"type": "coupon", "payload": "x".repeat(15_000)});
                let answer = first.publisher_door().publish("r1", &message).await;
                if answer.status != 200 {
                    return Some(answer);
                }
                acked.insert(
                    answer.json()["results"][0]["offset"].as_u64().unwrap(),
                    message["payload"].clone(),
                );
                None
            });
            let full = full.await;
            assert_eq!((full.status, full.text().contains("store_full")), (503, true), "{full:?}");
            // With space again, messages are taken.
            Box::pin(servers.limit_streams(LOG_RESERVE_BYTES + 5_000_000)).await;
            let message = coupon("r1", 0);
            let offset = publish_until_known(&first, "r1", &message).await;
            acked.insert(offset, message["payload"].clone());
            drop(first);
            let second = node(&servers, &[]);
            assert_eq!(stored(&second, "r1").await, acked);
        }),
    );
    within.await.expect(test);
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_while_servers_are_killed() {
    let test = "nothing_acknowledged_is_lost_while_servers_are_killed";
    let Some(mut servers) = NatsServers::with_streams(test, NatsSetting::THREE).await else { return };
    let within = timeout(
        TEST_AGE_MAX,
        Box::pin(async {
            let node = Node::of(config(&servers, &[]));
            let doors = node.doors;
            let rooms: Vec<String> = (0..16).map(|n| format!("room-{n}")).collect();
            let (stop, stopped) = watch::channel(false);
            let mut heads = Vec::new();
            let mut publishers = Vec::new();
            for room in rooms.clone() {
                let (newest, head) = watch::channel(0);
                heads.push(head);
                publishers.push(tokio::spawn(publish_until_stopped(doors, room, newest, stopped.clone())));
            }
            for stream in ["RC_LOG_0", "RC_LOG_5"] {
                each_grows(&mut heads, 5).await;
                let leader = servers.leader_of(stream).await;
                servers.kill(leader);
                let is_led = async || (servers.leader_of(stream).await != leader).then_some(());
                Box::pin(until("another leader", is_led)).await;
                servers.start_one(leader);
                // Before that, the loss of another server would leave one of three up to date.
                servers.is_healthy(leader).await;
                let is_ready = async || {
                    let answer = node.ops_door().get("/readyz").await;
                    (answer.status == 200).then_some(())
                };
                until("a node that is ready again", is_ready).await;
            }
            stop.send_replace(true);
            let mut acked = Vec::new();
            for publisher in publishers {
                acked.push(publisher.await.unwrap());
            }
            for (room, acked) in rooms.iter().zip(&acked) {
                assert_eq!(stored(&node, room).await, *acked, "{room}, as the node knows it");
            }
            let metrics = node.metrics().await;
            assert_eq!(metrics.sum("roomcast_out_of_term_total", &[]), 0);
            node.server.drain().await;
            let next = Node::of(config(&servers, &[("CLUSTER__NODE", "node-2")]));
            for (room, acked) in rooms.iter().zip(&acked) {
                assert_eq!(stored(&next, room).await, *acked, "{room}, as the log has it");
            }
            let messages: usize = acked.iter().map(BTreeMap::len).sum();
            print(&format!("{test}: {messages} messages acknowledged, none lost"));
        }),
    );
    within.await.expect(test);
}
