//! Several nodes over real nats-servers, from outside: a room is the same at each of them, and outlives its home.
//!
//! Without a nats-server on this machine each test says loudly that it was not run (`scripts/nats.sh`).

mod support;

use std::collections::BTreeSet;
use std::io::{Write as _, stderr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use roomcast::clock;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::cluster::life;
use support::cut::Open;
use support::device::{list, published, reliable};
use support::{Cluster, Device, Door, Doors, Encoding, Heard, comes, until};
use tokio::sync::{Mutex, watch};
use tokio::task::spawn_blocking;

/// One cluster at a time: each has up to six processes.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

fn coupon(id: &str) -> Value {
    json!({"type": "coupon", "payload": id, "id": id})
}

/// A device at each node, in turn of either encoding.
async fn one_at_each(cluster: &Cluster, room: &str) -> Vec<Device> {
    let mut devices = Vec::new();
    for (node, doors) in cluster.doors.iter().enumerate() {
        devices.push(Device::join(doors, room, Encoding::ALL[node % Encoding::ALL.len()]).await);
    }
    devices
}

/// The next frame with reliable messages: a batch, a welcome of a takeover, or a carry.
async fn next_reliable(device: &mut Device) -> Vec<Value> {
    loop {
        let frame = device.frame().await;
        let messages = reliable(&frame);
        if !messages.is_empty() {
            return messages;
        }
    }
}

#[tokio::test]
async fn a_room_is_the_same_at_every_node() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let Some(cluster) = Cluster::start("TC a room at every node", 1, 3).await else { return };
    let mut devices = one_at_each(&cluster, "r1").await;
    let runs: BTreeSet<_> = devices.iter().map(|device| life(&device.welcome).1).collect();
    assert_eq!(runs.len(), 1, "one room has one run");
    // Chat published at each node reaches the devices at all nodes, in one order.
    for (node, doors) in cluster.doors.iter().enumerate() {
        let from = 10 * node as u64;
        doors.chat("r1", from..from + 10).await;
        for device in &mut devices {
            assert_eq!(device.numbers(10).await, (from..from + 10).collect::<Vec<_>>());
        }
    }
    // A coupon has one offset and one id everywhere, whichever node took it.
    let mut offsets = Vec::new();
    for (node, doors) in cluster.doors.iter().enumerate() {
        let id = format!("c-{node}");
        let offset = doors.durable("r1", &coupon(&id)).await;
        offsets.push(offset);
        for device in &mut devices {
            let told = next_reliable(device).await;
            assert_eq!((&told[0]["offset"], &told[0]["id"]), (&offset.into(), &Value::from(id.clone())));
        }
        for other in &cluster.doors {
            let again = other.publisher_door().publish("r1", &coupon(&id)).await;
            assert_eq!(again.results(), ["duplicate"], "{again:?}");
            assert_eq!(again.json()["results"][0]["offset"], offset);
        }
    }
    assert_eq!(offsets, [1, 2, 3]);
    pages_and_receipts(&cluster, &mut devices).await;
    settings_and_the_end(&cluster, devices).await;
}

/// Pulls, history and receipts are the same at each node.
async fn pages_and_receipts(cluster: &Cluster, devices: &mut [Device]) {
    for doors in &cluster.doors {
        let page = doors.pull("r1", None).await;
        let ids: Vec<Value> = list(&page, "reliable").iter().map(|message| message["id"].clone()).collect();
        assert_eq!(ids, ["c-0", "c-1", "c-2"]);
        let answer = doors.viewer_door().get("/v1/rooms/r1/history").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(list(&answer.json(), "history").len(), 30);
    }
    let epoch = devices[0].welcome["epoch"].clone();
    for device in devices.iter_mut() {
        device.ack("r1", &epoch, 3).await;
    }
    for doors in &cluster.doors {
        let receipt = doors.receipt_of("r1", 3, [3, 3, 0, 0]).await;
        assert!(receipt["partial"].as_array().is_none_or(Vec::is_empty), "{receipt}");
    }
}

/// Settings, a recall and the end of a room reach all nodes from any of them.
async fn settings_and_the_end(cluster: &Cluster, mut devices: Vec<Device>) {
    cluster.doors[1].configure("r1", &json!({"flush": {"gather_ms": 250, "direct_members": 0}})).await;
    for doors in &cluster.doors {
        let view = doors.view_when("r1", |view| view["rules"]["flush"]["gather_ms"] == 250).await;
        assert_eq!(view["rules"]["flush"]["direct_members"], 0, "{view}");
    }
    let recall = cluster.doors[2].publisher_door().delete("/v1/rooms/r1/reliable/2").await;
    assert_eq!(recall.json()["offset"], 4, "{recall:?}");
    for device in &mut devices {
        assert_eq!(next_reliable(device).await[0]["recall"], 2);
    }
    let closed = cluster.doors[0].publisher_door().delete("/v1/rooms/r1").await;
    assert_eq!(closed.status, 200, "{closed:?}");
    for device in &mut devices {
        assert_eq!(device.end().await, Heard::Closed(4003));
    }
}

#[tokio::test]
async fn a_route_names_the_home_of_a_room() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let Some(cluster) = Cluster::start("TC routes", 1, 2).await else { return };
    let mut homes = BTreeSet::new();
    for doors in &cluster.doors {
        let answer = doors.viewer_door().get("/v1/route?room=r1").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let route = answer.json();
        assert_eq!(route["room"], "r1");
        assert!(route["ttl_ms"].as_u64() > Some(0), "{route}");
        let nodes = list(&route, "nodes");
        assert!(nodes[0]["weight"].as_u64() > Some(0) && nodes[0]["region"].is_string(), "{route}");
        homes.insert(nodes[0]["url"].as_str().unwrap().to_owned());
    }
    assert_eq!(homes.len(), 1, "both name the same home");
    assert_eq!(cluster.doors[0].viewer_door().get("/v1/route").await.status, 400);
}

/// Messages a second of the limit below.
const KEY_RATE: u64 = 300;

/// Publishes at a door until then, far more than the limit. The result is the number of messages that were taken.
async fn hammer(doors: &Doors, until: Instant) -> u64 {
    let likes = json!({"messages": vec![json!({"type": "like"}); 50]});
    let mut taken = 0;
    while clock::now().instant < until {
        let results = doors.publisher_door().publish("r1", &likes).await.results();
        taken += results.iter().filter(|result| *result == "accepted").count() as u64;
    }
    taken
}

/// The share of the limit at each node, in messages a second.
async fn shares(cluster: &Cluster) -> Vec<u64> {
    let share =
        async |doors: &Doors| doors.metrics().await.sum("roomcast_quota_allocation", &["key_index=\"0\""]);
    join_all(cluster.doors.iter().map(share)).await
}

/// The messages that these nodes take of publishers for so long, with far more offered than the limit, by the seconds
/// that the limit needs for them.
async fn passed(cluster: &Cluster, nodes: &[usize], time: Duration) -> f64 {
    let began = clock::now().instant;
    let hammers = nodes.iter().map(|node| hammer(&cluster.doors[*node], began + time));
    let taken = join_all(hammers).await;
    let seconds = (clock::now().instant - began).as_secs_f64();
    // Each node alone with the limit would take as much as all of them may.
    let passed = taken.iter().sum::<u64>() as f64 / KEY_RATE as f64;
    assert!(passed <= (seconds + 1.0) * 1.02, "{nodes:?} took {taken:?} in {seconds} s");
    assert!(passed >= seconds * 0.8, "{nodes:?} took {taken:?} in {seconds} s");
    passed
}

/// C10. `ROOMCAST_QUOTA_NODES=10` makes the long run, whose demand moves and whose last node dies.
#[tokio::test]
async fn a_key_s_limit_holds_over_all_nodes_and_goes_where_it_is_asked_for() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let long = std::env::var("ROOMCAST_QUOTA_NODES").ok();
    let nodes = long.as_ref().map_or(3, |nodes| nodes.parse().expect("a number of nodes"));
    let settings = &[("ROOMCAST__LIMITS__KEY_MESSAGES_PER_SECOND", "300")];
    let Some(mut cluster) = Cluster::start_with("TC a key's limit", 1, nodes, settings).await else { return };
    // The first share of a new divider waits for those of the one before.
    until("most of the limit at the only busy node", async || {
        let soon = clock::now().instant + Duration::from_millis(50);
        hammer(&cluster.doors[0], soon).await;
        (shares(&cluster).await[0] >= KEY_RATE * 8 / 10).then_some(())
    })
    .await;
    let all: Vec<usize> = (0..nodes).collect();
    passed(&cluster, &all, Duration::from_millis(1700)).await;
    let even = KEY_RATE / nodes as u64;
    let shares = shares(&cluster).await;
    assert!(shares.iter().all(|share| (even * 8 / 10..=even * 12 / 10).contains(share)), "{shares:?}");
    if long.is_some() {
        let time = Duration::from_secs(10);
        for busy in [&all[..1], &all[1..4], &all[4..], &all[..]] {
            let passed = passed(&cluster, busy, time).await;
            writeln!(stderr(), "C10: {busy:?} took what the limit gives in {passed:.2} s").ok();
        }
        cluster.kill(nodes - 1);
        let living = &all[..nodes - 1];
        let passed = passed(&cluster, living, time).await;
        writeln!(stderr(), "C10: behind a node that died: {passed:.2} s").ok();
    }
}

#[tokio::test]
async fn devices_at_other_nodes_outlive_the_home_of_their_room() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let Some(mut cluster) = Cluster::start("TC the home of a room dies", 3, 3).await else { return };
    let home = cluster.home(0, "r1").await;
    let others = cluster.others(home);
    let mut devices = Vec::new();
    for node in &others {
        devices.push(Device::join(&cluster.doors[*node], "r1", Encoding::Json).await);
    }
    let before = cluster.doors[others[0]].durable("r1", &coupon("before")).await;
    for device in &mut devices {
        assert_eq!(next_reliable(device).await[0]["offset"], before);
    }
    cluster.kill(home);
    // The same id again and again, as a publisher does with an outcome that it doesn't know.
    let door = cluster.doors[others[1]].publisher_door();
    let taken = until("the coupon of the next home", async || {
        let answer = door.try_publish("r1", &coupon("after")).await?;
        (answer.status == 200).then(|| answer.json()["results"][0].clone())
    })
    .await;
    assert!(taken["result"] == "durable" || taken["result"] == "duplicate", "{taken}");
    assert_eq!(taken["offset"], before + 1, "the epoch holds, and so does its count");
    for device in &mut devices {
        let welcome = device.rewelcome().await;
        let mut told = reliable(&welcome);
        if told.iter().all(|message| message["id"] != "after") {
            told = next_reliable(device).await;
        }
        let ids: Vec<&Value> =
            told.iter().map(|message| &message["id"]).filter(|id| *id != "before").collect();
        assert_eq!(ids, ["after"], "{told:?}");
    }
    for node in &others {
        let page = cluster.doors[*node].pull("r1", None).await;
        let ids: Vec<Value> = list(&page, "reliable").iter().map(|message| message["id"].clone()).collect();
        assert_eq!(ids, ["before", "after"]);
    }
    // The dead node comes back as any other, with devices of its own.
    cluster.restart(home).await;
    cluster.is_whole().await;
    let mut late = Device::join(&cluster.doors[home], "r1", Encoding::Proto).await;
    assert_eq!(life(&late.welcome).0, life(&devices[0].welcome).0, "the epoch is the same");
    cluster.doors[home].chat("r1", 0..3).await;
    assert_eq!(late.numbers(3).await, [0, 1, 2]);
}

/// The exit code and the words of `roomcast cluster status` at these doors.
async fn status(doors: &Doors, more: &'static [&str]) -> (Option<i32>, String) {
    let url = format!("http://{}", doors.ops);
    let ask = move || {
        let mut status = Command::new(env!("CARGO_BIN_EXE_roomcast"));
        status.args(["cluster", "status", "--ops-door", &url]).args(more).env_clear().output()
    };
    let said = spawn_blocking(ask).await.expect("no panic").expect("the program is there");
    (said.status.code(), String::from_utf8_lossy(&said.stdout).into_owned())
}

/// The answer behind the status, once it satisfies `is_so`.
async fn status_when(what: &str, doors: &Doors, is_so: impl Fn(&Value) -> bool) -> Value {
    until(what, async || {
        let (_, said) = status(doors, &["--json"]).await;
        serde_json::from_str(&said).ok().filter(|view| is_so(view))
    })
    .await
}

/// The number of slots in a state.
fn slots_in(view: &Value, state: &str) -> usize {
    list(view, "slots").iter().filter(|slot| slot["state"] == state).count()
}

#[tokio::test]
async fn the_status_of_a_cluster_is_of_all_nodes_and_tells_a_silent_one_from_one_that_has_ended() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let Some(mut cluster) = Cluster::start("TC the status of a cluster", 1, 3).await else { return };
    let devices = one_at_each(&cluster, "r1").await;
    // Shards count their members once a second.
    let is_counted = |node: &Value| node["said"]["members"] == 1;
    let view = status_when("a member at each node", &cluster.doors[1], |view| {
        list(view, "nodes").iter().all(is_counted) && list(view, "troubles").is_empty()
    })
    .await;
    assert_eq!((&view["node"], slots_in(&view, "ordered")), (&json!("node-1"), 256), "{view}");
    for node in list(&view, "nodes") {
        assert_eq!((&node["state"], list(&node["said"], "links").len()), (&json!("serving"), 2), "{node}");
    }
    for doors in &cluster.doors {
        let (code, table) = status(doors, &[]).await;
        assert!(code == Some(0) && table.ends_with("\nall is well\n"), "{table}");
    }
    // A node that stands still keeps nobody waiting, and is named by each view.
    let at = &cluster.doors[0];
    cluster.signal(2, Signal::STOP);
    let view = status_when("a silent node", at, |view| view["silent"] == json!(["node-2"])).await;
    assert_eq!(view["nodes"][2]["state"], "silent", "{view}");
    let (code, table) = status(at, &[]).await;
    assert!(code == Some(3) && table.contains("\n- node-2 does not answer: "), "{table}");
    assert_eq!(at.publisher_door().get("/v1/rooms").await.json()["silent"], json!(["node-2"]));
    let ladders = at.ops_door().get("/v1/ops/ladder").await.json();
    assert_eq!((list(&ladders, "nodes").len(), &ladders["silent"]), (1, &json!(["node-2"])), "{ladders}");
    cluster.kill(2);
    let at = &cluster.doors[0];
    let is_taken_over = |view: &Value| slots_in(view, "ordered") == 256 && list(view, "troubles").len() == 1;
    let view = status_when("the slots elsewhere, and no other trouble", at, |view| {
        view["nodes"][2]["state"] == "ended" && is_taken_over(view)
    })
    .await;
    assert_eq!(view["troubles"][0]["code"], "node_ended", "{view}");
    let ready = at.ops_door().get("/readyz").await.json();
    assert_eq!(ready["cluster"]["silent"], json!(["node-2"]), "{ready}");
    drop(devices);
}

#[tokio::test]
async fn a_cluster_without_nats_for_a_while_refuses_and_goes_on_in_the_same_run() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let Some(cluster) = Cluster::start("TC all of NATS stands still", 1, 2).await else { return };
    let mut devices = one_at_each(&cluster, "r1").await;
    cluster.doors[0].chat("r1", 0..1).await;
    cluster.servers.signal_all(Signal::STOP);
    for doors in &cluster.doors {
        let refusal = until("a refusal", async || {
            let answer =
                doors.publisher_door().try_publish("r1", &json!({"type": "chat", "payload": 7})).await?;
            (answer.status == 503).then_some(answer)
        });
        let code = refusal.await.json()["code"].clone();
        assert!(["no_home", "cluster_unreachable", "node_silent"].iter().any(|it| code == **it), "{code}");
    }
    // Devices are heard as ever.
    for device in &mut devices {
        comes("a pong", device.until_pong()).await;
    }
    // They have failed for good, and nobody publishes to their rooms again.
    let door = &cluster.doors[0].publisher_door();
    let publish = |room| async move { door.try_publish(&format!("quiet-{room}"), &coupon("lost")).await };
    join_all((0..32).map(publish)).await;
    cluster.servers.signal_all(Signal::CONT);
    for doors in &cluster.doors {
        until("a node that is ready, though nobody publishes", async || {
            (doors.ops_door().get("/readyz").await.status == 200).then_some(())
        })
        .await;
        until("a node that takes messages again", async || {
            let answer = doors.publisher_door().try_publish("r1", &coupon("back")).await?;
            (answer.status == 200).then_some(())
        })
        .await;
    }
    let runs = life(&Device::join(&cluster.doors[0], "r1", Encoding::Json).await.welcome);
    assert_eq!(runs.1, life(&devices[0].welcome).1, "the same run");
    for device in &mut devices {
        assert_eq!(next_reliable(device).await[0]["id"], "back");
    }
}

#[tokio::test]
async fn a_home_that_is_cut_off_in_any_direction_orders_nothing_and_its_rooms_go_on_elsewhere() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let Some(cluster) = Cluster::start_on_ways("TC a home is cut off", 3).await else { return };
    cluster.doors[0].durable("r1", &coupon("before")).await;
    let mut devices = one_at_each(&cluster, "r1").await;
    let epoch = life(&devices[0].welcome).0;
    let mut published = BTreeSet::from(["before".to_owned()]);
    let mut heard = vec![BTreeSet::new(); devices.len()];
    let cuts = [
        ("both", Open::NONE),
        ("deaf", Open { to_client: false, ..Open::BOTH }),
        ("mute", Open { to_server: false, ..Open::BOTH }),
    ];
    for (name, cut) in cuts {
        let home = cluster.home(0, "r1").await;
        let other = cluster.others(home)[0];
        cluster.ways[home].set(cut);
        // The cut-off home refuses what it is asked, and does not say that it would have lost it.
        until("a refusal of the cut-off home", async || {
            let door = cluster.doors[home].publisher_door();
            let answer = door.try_publish("r1", &coupon(&format!("{name}-refused"))).await?;
            let codes = ["no_home", "not_home", "cluster_unreachable", "store_failing", "node_silent"];
            (answer.status == 503 && codes.iter().any(|code| answer.json()["code"] == **code)).then_some(())
        })
        .await;
        // The others go on without it.
        let id = format!("{name}-elsewhere");
        until("a coupon of the next home", async || {
            let door = cluster.doors[other].publisher_door();
            let answer = door.try_publish("r1", &coupon(&id)).await?;
            (answer.status == 200).then_some(())
        })
        .await;
        assert_ne!(cluster.home(other, "r1").await, home, "{name}");
        cluster.ways[home].set(Open::BOTH);
        // The refused coupon may have been stored: its outcome was unknown. The repeat says how it ended.
        for id in [format!("{name}-refused"), format!("{name}-healed")] {
            until("a coupon after the cut", async || {
                let door = cluster.doors[home].publisher_door();
                let answer = door.try_publish("r1", &coupon(&id)).await?;
                (answer.status == 200).then_some(())
            })
            .await;
            published.insert(id);
        }
        published.insert(id);
        for (device, ids) in devices.iter_mut().zip(&mut heard) {
            // Told by batches, carries and welcomes, again and again, since nothing is acknowledged.
            while !ids.contains(&format!("{name}-healed")) {
                let told = next_reliable(device).await.into_iter();
                ids.extend(told.filter_map(|message| Some(message["id"].as_str()?.to_owned())));
            }
        }
    }
    assert!(heard.iter().all(|ids| *ids == published), "{heard:?}");
    for doors in &cluster.doors {
        let page = doors.pull("r1", None).await;
        assert_eq!(page["epoch"], epoch.as_str(), "{page}");
        let messages = list(&page, "reliable");
        let ids: BTreeSet<&str> = messages.iter().filter_map(|message| message["id"].as_str()).collect();
        assert_eq!(ids.len(), messages.len(), "each once: {page}");
        assert_eq!(ids, published.iter().map(String::as_str).collect(), "{page}");
    }
}

/// A publisher of one room: numbered chat, and a coupon now and then, one request after another.
struct Numbers {
    door: Door,
    room: String,
    /// Answers so far.
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

/// The longest wait for an answer, and the answers that were no 200.
#[derive(Debug, Default)]
struct Waits {
    longest: Duration,
    refused: Vec<String>,
}

impl Numbers {
    async fn publish(self) -> Waits {
        let mut waits = Waits::default();
        for number in 0.. {
            let chat = json!({"type": "chat", "payload": number});
            let id = format!("{}-{number}", self.room);
            let message = if number % 10 == 9 { coupon(&id) } else { chat };
            let began = clock::now().instant;
            let answer = self.door.publish(&self.room, &message).await;
            waits.longest = waits.longest.max(clock::now().instant - began);
            if answer.status != 200 {
                waits.refused.push(answer.text());
            }
            self.count.store(number + 1, Ordering::Relaxed);
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        waits
    }
}

/// A device that must notice nothing: it reads up to the last of so many numbers, each once and in order. It reads all
/// the time: a slow device is told of skipped chat.
async fn reads_all(mut device: Device, mut count: watch::Receiver<Option<u64>>) {
    let mut next = 0;
    loop {
        let known = *count.borrow();
        // The last number may be a coupon's.
        let last = next + u64::from(next % 10 == 9);
        if known.is_some_and(|count| last >= count) {
            return;
        }
        let frame = tokio::select! {
            frame = device.frame() => frame,
            _ = count.changed() => continue,
        };
        assert_eq!(frame["kind"], "batch", "a device at another node notices nothing: {frame}");
        // A link that is slow for a moment leaves a batch out, and then the device is told of each message.
        for _ in 0..frame["skipped"]["chat"].as_u64().unwrap_or(0) {
            next += u64::from(next % 10 == 9) + 1;
        }
        // Coupons come by carries and refreshes as well.
        for message in published(&frame).iter().filter(|message| message["type"] == "chat") {
            next += u64::from(next % 10 == 9);
            assert_eq!(message["payload"], next, "{frame}");
            next += 1;
        }
    }
}

#[tokio::test]
async fn a_node_that_drains_hands_its_rooms_over_and_devices_elsewhere_notice_nothing() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let Some(mut cluster) = Cluster::start("TC a hand-over", 1, 3).await else { return };
    let home = cluster.any_home("r1").await;
    let others = cluster.others(home);
    let mut rooms = Vec::new();
    for number in 0..4 {
        rooms.push(cluster.room_at(home, &format!("moving-{number}")).await);
    }
    let door = &cluster.doors[others[0]];
    door.configure(&rooms[0], &json!({"flush": {"gather_ms": 40}})).await;
    door.publish(&rooms[0], &json!({"type": "like", "payload": null})).await;
    let mut runs = Vec::new();
    let mut reading = Vec::new();
    let mut known = Vec::new();
    for room in &rooms {
        let (count, read) = watch::channel(None);
        for node in &others {
            let device = Device::join(&cluster.doors[*node], room, Encoding::ALL[*node % 2]).await;
            reading.push(tokio::spawn(reads_all(device, read.clone())));
        }
        known.push(count);
        runs.push(door.view(room).await["run"].clone());
    }
    let mut own = Device::join(&cluster.doors[home], &rooms[0], Encoding::Json).await;
    let stop = Arc::<AtomicBool>::default();
    let mut counts = Vec::new();
    let mut publishing = Vec::new();
    for (at, room) in rooms.iter().enumerate() {
        let count = Arc::<AtomicU64>::default();
        counts.push(Arc::clone(&count));
        let door = cluster.doors[others[at % 2]].publisher_door();
        let numbers = Numbers { door, room: room.clone(), count, stop: Arc::clone(&stop) };
        publishing.push(tokio::spawn(numbers.publish()));
    }
    let reached = async |least: u64| {
        for count in &counts {
            until("answers", async || (count.load(Ordering::Relaxed) >= least).then_some(())).await;
        }
    };
    reached(20).await;
    cluster.drain(home).await;
    let then = counts.iter().map(|count| count.load(Ordering::Relaxed)).max().unwrap_or(0);
    reached(then + 20).await;
    stop.store(true, Ordering::Relaxed);
    assert_eq!(own.end().await, Heard::Closed(1012), "the node says goodbye to its own devices");
    let mut longest = Duration::ZERO;
    for publisher in publishing {
        let waits = publisher.await.unwrap();
        assert_eq!(waits.refused, [""; 0]);
        longest = longest.max(waits.longest);
    }
    writeln!(stderr(), "the longest wait of a publish over a hand-over: {longest:?}").ok();
    for (known, count) in known.iter().zip(&counts) {
        known.send_replace(Some(count.load(Ordering::Relaxed)));
    }
    join_all(reading).await.into_iter().for_each(Result::unwrap);
    for ((room, run), count) in rooms.iter().zip(&runs).zip(&counts) {
        let coupons = count.load(Ordering::Relaxed) / 10;
        goes_on(&cluster.doors[others[1]], room, run, coupons).await;
    }
    let view = cluster.doors[others[1]].view(&rooms[0]).await;
    assert_eq!(view["rules"]["flush"]["gather_ms"], 40, "{view}");
    assert_eq!(view["counters"]["like"], 1, "{view}");
}

/// A room is in the same run, with each of its coupons once.
async fn goes_on(doors: &Doors, room: &str, run: &Value, coupons: u64) {
    assert_eq!(doors.view(room).await["run"], *run, "the run goes on");
    let offset = |message: &Value| message["offset"].as_u64().expect("an offset");
    let mut offsets: Vec<u64> = Vec::new();
    let mut after = None;
    loop {
        let page = doors.pull(room, after.as_deref()).await;
        offsets.extend(list(&page, "reliable").iter().map(offset));
        if page["through"] == page["offset"] {
            break;
        }
        after = Some(format!("{}:{}", page["epoch"].as_str().expect("an epoch"), page["through"]));
    }
    assert_eq!(offsets, (1..=coupons).collect::<Vec<_>>(), "each once");
}

#[tokio::test]
async fn the_next_home_of_a_killed_one_goes_on_with_the_totals_and_latest_values_that_it_was_told() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let settings = &[("ROOMCAST__TYPES__PRICE__CLASS", "latest")];
    let Some(mut cluster) = Cluster::start_with("TC a warm takeover", 1, 3, settings).await else { return };
    let home = cluster.any_home("r1").await;
    let others = cluster.others(home);
    let room = cluster.room_at(home, "warm").await;
    let door = &cluster.doors[others[0]];
    let mut device = Device::join(door, &room, Encoding::Json).await;
    let run = door.view(&room).await["run"].clone();
    // One request, so that the first word to the heir has all of it.
    let likes = json!({"type": "like", "count": 7});
    let price = json!({"type": "price", "key": "p", "payload": 42});
    door.publish(&room, &json!({"messages": [likes, price, coupon("before")]})).await;
    assert_eq!(device.batch().await["counters"]["like"]["total"], 7);
    until("a node that keeps the room", async || {
        let kept = others.iter().map(|node| cluster.doors[*node].metrics());
        let bytes =
            join_all(kept).await.iter().map(|metrics| metrics.sum("roomcast_kept_bytes", &[])).sum::<u64>();
        (bytes > 0).then_some(())
    })
    .await;
    // Told to the heir within 5 s, or not at all.
    door.publish(&room, &json!({"type": "like", "count": 2})).await;
    cluster.kill(home);
    let welcome = device.rewelcome().await;
    let told = welcome["counters"]["like"].as_u64().unwrap_or(0);
    assert!(told == 7 || told == 9, "{welcome}");
    let latest = list(&welcome, "latest").into_iter().find(|value| value["type"] == "price");
    assert_eq!(latest.map(|value| value["payload"].clone()), Some(json!(42)), "{welcome}");
    let door = &cluster.doors[others[1]];
    let view = door.view(&room).await;
    assert!(view["run"] != run && view["counters"]["like"] == told, "{view}");
    assert_eq!(view["account"]["like"], Value::Null, "the account is that of the new run: {view}");
    // It counts on, and the room has its reliable stream.
    door.publish(&room, &json!({"type": "like", "count": 3})).await;
    let view = door.view_when(&room, |view| view["counters"]["like"] != told).await;
    assert_eq!(view["counters"]["like"], told + 3, "{view}");
    assert_eq!(view["head"]["offset"], 1, "{view}");
}
