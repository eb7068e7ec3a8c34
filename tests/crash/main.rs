//! T1 and T2: a node is killed under load, again and again, and once more with its disk cut off as by a loss
//! of power. The node keeps every message it has answered for, and every device that comes back applies each
//! of them once. `homes` does the same to the nodes and to the NATS servers of a cluster.
//!
//! The test command does a few rounds. `ROOMCAST_KILLS=200` and `ROOMCAST_SHUTDOWNS=100` do many, with 20
//! rooms of 100 devices, and look at times as well. A run of an hour judges nothing: its first messages have
//! expired, and would count as lost. `ROOMCAST_SEED` repeats a schedule.
#![expect(clippy::unwrap_used, reason = "clippy sees only #[test] functions as tests, and these serve them")]

#[path = "../support/loopfs.rs"]
mod loopfs;
#[path = "../support/mod.rs"]
mod support;

mod cuts;
mod full;
mod homes;
mod ledger;
mod power;
mod rolling;
mod slow;
mod space;
mod viewer;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ledger::{Found, Ledger, Outcome, Published, name_of, percentiles};
use loopfs::{CutOff, LoopFs};
use roomcast_core::limits::STREAM_MESSAGES_MAX;
use serde_json::{Value, json};
use support::device::list;
use support::{Doors, Folder, Process};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use viewer::Viewer;

/// Longest time for the last devices to get everything, on a machine with much other work.
const LEVEL_WITHIN: Duration = Duration::from_secs(60);
/// Longest time from the answer to the application on a connected device (assurance I2).
const APPLIED_WITHIN: Duration = Duration::from_secs(3);
/// The life of each message in milliseconds, longer than a run.
const TTL_MS: u64 = 3_600_000;
const SHARDS: usize = 2;

/// The size of a test.
#[derive(Debug, Clone)]
struct Plan {
    seed: u64,
    rooms: usize,
    devices: usize,
    crashes: usize,
    /// The life of the node before each crash.
    life_ms: std::ops::RangeInclusive<u64>,
    /// About the time from a crash until all is well again.
    heals_in_ms: u64,
    /// Times are judged as well.
    is_timed: bool,
}

impl Plan {
    /// The number of rounds in this variable, with the full size, or `few`.
    fn of(variable: &str, few: Self) -> Self {
        let seed = std::env::var("ROOMCAST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        let many = std::env::var(variable).ok().and_then(|many| many.parse().ok());
        match many {
            Some(crashes) => {
                Self { seed, rooms: 20, devices: 100, crashes, life_ms: 200..=5000, is_timed: true, ..few }
            }
            None => Self { seed, ..few },
        }
    }

    /// The time between two publishes of a room, so that all published messages may be alive at once.
    fn pause(&self) -> Duration {
        let lives = (self.life_ms.start() + self.life_ms.end()) / 2 + self.heals_in_ms;
        let all = Duration::from_millis(lives * self.crashes as u64);
        let requests = u32::try_from(STREAM_MESSAGES_MAX / 3).unwrap();
        (all / requests).max(Duration::from_millis(25))
    }
}

/// The size of a run in the test command.
const FEW: Plan =
    Plan { seed: 0, rooms: 4, devices: 4, crashes: 6, life_ms: 150..=600, heals_in_ms: 250, is_timed: false };

/// Every user of the node.
#[derive(Debug, Clone)]
struct Stage {
    plan: Plan,
    /// The doors of all nodes.
    doors: Vec<Doors>,
    ledger: Arc<Mutex<Ledger>>,
}

fn print(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}

fn room_name(number: usize) -> String {
    format!("room-{number}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t1_what_was_answered_survives_kills() {
    let few = Plan { rooms: 6, devices: 10, crashes: 10, life_ms: 200..=1200, ..FEW };
    let plan = Plan::of("ROOMCAST_KILLS", few);
    let folder = Folder::new();
    let data = folder.path().join("data");
    Box::pin(run("T1", &plan, &data, || {})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t2_what_was_answered_is_on_the_disk() {
    let plan = Plan {
        rooms: 4,
        devices: 4,
        life_ms: 150..=600,
        is_timed: false,
        ..Plan::of("ROOMCAST_SHUTDOWNS", FEW)
    };
    let mut disk = match LoopFs::new("t2", 128) {
        Ok(disk) => disk,
        Err(why) => return print(&format!("skipped: T2 what was answered is on the disk: NOT RUN: {why}")),
    };
    let data = disk.path().join("data");
    let mut random = fastrand::Rng::with_seed(plan.seed);
    // The disk is cut off after the kill: a living process would notice, and say that nothing is durable any
    // more.
    let cut_off = || {
        disk.cut_off(if random.bool() { CutOff::AtOnce } else { CutOff::AfterTheJournal }).unwrap();
        disk.remount().unwrap();
    };
    Box::pin(run("T2", &plan, &data, cut_off)).await;
}

/// Publishes, kills, does `after_kill` and restarts, again and again. Then holds everything against the
/// answers.
async fn run(test: &str, plan: &Plan, data: &Path, mut after_kill: impl FnMut()) {
    print(&format!("{test}: {} crashes, ROOMCAST_SEED={}", plan.crashes, plan.seed));
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let mut node = Process::keeping(SHARDS, data, None).await;
    let doors = node.doors;
    let crowd = Crowd::gather(plan, vec![doors], &mut random);
    let mut restarts = Vec::new();
    for _ in 0..plan.crashes {
        sleep(Duration::from_millis(random.u64(plan.life_ms.clone()))).await;
        node.kill();
        after_kill();
        let began = roomcast::clock::now().instant;
        node = Process::keeping(SHARDS, data, Some(doors)).await;
        restarts.push(began.elapsed());
    }
    Box::pin(crowd.judge(test, plan, Waits { name: "restart to listening", times: restarts })).await;
}

/// The users of the nodes while a test lasts.
struct Crowd {
    began: Instant,
    stage: Stage,
    rooms: Vec<String>,
    viewers: Vec<JoinHandle<Viewer>>,
    publishers: Vec<JoinHandle<()>>,
    goal: watch::Sender<Option<BTreeMap<String, u64>>>,
    stop: watch::Sender<bool>,
}

impl Crowd {
    /// Devices and a publisher for each room, at the doors of all nodes.
    fn gather(plan: &Plan, doors: Vec<Doors>, random: &mut fastrand::Rng) -> Self {
        let stage = Stage { plan: plan.clone(), doors, ledger: Arc::default() };
        let (goal, goal_known) = watch::channel(None);
        let (stop, stopped) = watch::channel(false);
        let rooms: Vec<String> = (0..plan.rooms).map(room_name).collect();
        let mut viewers = Vec::new();
        for (room, number) in
            rooms.iter().flat_map(|room| (0..plan.devices).map(move |number| (room, number)))
        {
            let viewer = Viewer::new(room, number, stage.doors.clone(), random.fork());
            viewers.push(tokio::spawn(viewer.live(goal_known.clone())));
        }
        let publish =
            |room: &String| tokio::spawn(stage.clone().publish(room.clone(), random.fork(), stopped.clone()));
        let publishers = rooms.iter().map(publish).collect();
        Self { began: roomcast::clock::now().instant, stage, rooms, viewers, publishers, goal, stop }
    }

    /// Ends the publishing, waits for the devices, and holds everything against the answers.
    async fn judge(self, test: &str, plan: &Plan, waits: Waits) {
        let Self { began, stage, rooms, viewers, publishers, goal, stop } = self;
        let took = began.elapsed();
        assert!(
            took < Duration::from_millis(TTL_MS),
            "after {took:?} the first messages have expired, and nothing can be judged"
        );
        stop.send_replace(true);
        for publisher in publishers {
            publisher.await.unwrap();
        }
        let mut stored = BTreeMap::new();
        let mut last = BTreeMap::new();
        let by = roomcast::clock::now().instant + support::COMES_WITHIN;
        for room in &rooms {
            let found = stage.stored(room, by).await;
            // The last message is never recalled: a recall would be later still.
            last.insert(room.clone(), found.last_key_value().map_or(0, |(offset, _)| *offset));
            stored.insert(room.clone(), found);
        }
        goal.send_replace(Some(last));
        let mut ledger = std::mem::take(&mut *stage.ledger.lock().unwrap());
        for room in &rooms {
            ledger.check_store(room, &stored[room]);
        }
        let finished = timeout(LEVEL_WITHIN, join_all(viewers)).await;
        let finished =
            finished.unwrap_or_else(|_| panic!("I2: not every device is level within {LEVEL_WITHIN:?}"));
        for (viewer, room) in finished.into_iter().zip(rooms.iter().flat_map(|room| vec![room; plan.devices]))
        {
            ledger.check_viewer(&viewer.unwrap(), &stored[room]);
        }
        // A device that went to another node is counted there as well, until its old connection ends.
        let devices_max = (plan.devices * stage.doors.len()) as u64;
        for room in &rooms {
            for offset in stored[room].keys().rev().take(20) {
                ledger.check_receipt(&stage.doors[0].receipt(room, *offset).await, devices_max);
            }
        }
        verdict(test, plan, ledger, waits);
    }
}

/// Times of the nodes, with a name for them.
struct Waits {
    name: &'static str,
    times: Vec<Duration>,
}

/// Prints the figures, and fails if a promise was broken.
fn verdict(test: &str, plan: &Plan, mut ledger: Ledger, waits: Waits) {
    let durable = ledger.durable_messages();
    print(&format!(
        "{test}: {durable} messages answered for, {} applied by {} devices, {} duplicates on the wire, \
         {} returns, {} gaps pulled",
        ledger.applied,
        plan.rooms * plan.devices,
        ledger.duplicates,
        ledger.returns,
        ledger.gaps,
    ));
    let Waits { name, mut times } = waits;
    print(&format!("{test}: {name}: {}", percentiles(&mut times)));
    print(&format!("{test}: answer or return to applied: {}", percentiles(&mut ledger.lags)));
    let late = ledger.lags.iter().filter(|lag| **lag > APPLIED_WITHIN).count();
    if plan.is_timed && late > 0 {
        ledger.violated(format!("I2: {late} applications took longer than {APPLIED_WITHIN:?}"));
    }
    print(&format!("{test}: {} violations", ledger.violations.len()));
    assert!(durable >= plan.crashes * plan.rooms, "hardly anything was published: {durable}");
    let first: Vec<_> = ledger.violations.iter().take(10).collect();
    assert!(
        first.is_empty(),
        "seed {}: {} violations, among them {first:#?}",
        plan.seed,
        ledger.violations.len()
    );
}

impl Stage {
    /// The doors of the node for the next request. Each attempt goes to the next node.
    fn node(&self, turn: &mut usize) -> Doors {
        *turn += 1;
        self.doors[*turn % self.doors.len()]
    }

    /// Publishes to a room until the stop, each message until its outcome is known.
    async fn publish(self, room: String, mut random: fastrand::Rng, stopped: watch::Receiver<bool>) {
        let mut number = 0;
        let mut turn = 0;
        while !*stopped.borrow() {
            let mut waiting: Vec<Value> = (0..random.usize(1..=3))
                .map(|_| {
                    number += 1;
                    let payload = json!({"room": room, "n": number, "x": "x".repeat(random.usize(0..200))});
                    let id = format!("{room}-{number}");
                    json!({"type": "coupon", "payload": payload, "id": id, "ttl_ms": TTL_MS})
                })
                .collect();
            self.note(&room, &waiting, Outcome::Unknown);
            if random.u8(..) < 10 {
                self.publish_what_is_refused(&room, number, &mut turn).await;
            }
            while !waiting.is_empty() {
                let chat = json!({"type": "chat", "payload": number});
                let mut messages = vec![chat.clone()];
                messages.extend(waiting.iter().cloned());
                messages.push(chat);
                let door = self.node(&mut turn).publisher_door();
                let answer = door.try_publish(&room, &json!({ "messages": messages })).await;
                match answer.filter(|answer| answer.status != 503) {
                    Some(answer) => self.settle(&mut waiting, &answer),
                    None => sleep(Duration::from_millis(random.u64(5..50))).await,
                }
            }
            if random.u8(..) < 25 {
                self.recall(&room, number, &mut turn, &mut random).await;
            }
            sleep(self.plan.pause().mul_f64(random.f64() * 2.0)).await;
        }
    }

    fn note(&self, room: &str, messages: &[Value], outcome: Outcome) {
        let mut ledger = self.ledger.lock().unwrap();
        for message in messages {
            let id = message["id"].as_str().unwrap().to_owned();
            let payload = message["payload"].clone();
            ledger.published.insert(id, Published { room: room.to_owned(), payload, outcome });
        }
    }

    /// Takes the messages with an answer out of `waiting`.
    fn settle(&self, waiting: &mut Vec<Value>, answer: &support::Answer) {
        let mut ledger = self.ledger.lock().unwrap();
        if answer.status != 200 {
            ledger.violated(format!("a publish was answered with {answer:?}"));
            return waiting.clear();
        }
        let results = list(&answer.json(), "results");
        // The first and the last are chat.
        let mut results = results.iter().skip(1);
        waiting.retain(|message| {
            let result = results.next().unwrap();
            let done = result["result"] == "durable" || result["result"] == "duplicate";
            if done {
                let id = message["id"].as_str().unwrap();
                let offset = result["offset"].as_u64().unwrap();
                ledger.durable(id, offset, roomcast::clock::now().instant);
            }
            !done
        });
    }

    /// One good message beside a bad one: no device may ever see either.
    async fn publish_what_is_refused(&self, room: &str, number: u64, turn: &mut usize) {
        let good = json!({"type": "coupon", "payload": "refused", "id": format!("{room}-{number}-refused")});
        let bad = json!({"type": "coupon", "payload": 1, "ttl_ms": 1});
        self.note(room, std::slice::from_ref(&good), Outcome::Refused);
        let request = json!({"messages": [good, bad]});
        if let Some(answer) = self.node(turn).publisher_door().try_publish(room, &request).await {
            assert!(answer.status == 400 || answer.status == 503, "{answer:?}");
        }
    }

    /// Offset -> the store's message, for one room. Waits until `by` for the last message.
    async fn stored(&self, room: &str, by: Instant) -> BTreeMap<u64, Found> {
        let last = self.ledger.lock().unwrap().last_offset(room);
        let mut stored = BTreeMap::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.doors[0].pull(room, after.as_deref()).await;
            for message in list(&page, "reliable") {
                let offset = message["offset"].as_u64().unwrap();
                stored.insert(offset, (name_of(&message), message["payload"].clone()));
            }
            // A store that lost the last messages never gets there, and the ledger is to tell what is missing.
            let is_over = page["offset"].as_u64() >= Some(last) || roomcast::clock::now().instant >= by;
            if page["through"] == page["offset"] && is_over {
                return stored;
            }
            after = Some(format!("{}:{}", page["epoch"].as_str().unwrap(), page["through"]));
        }
    }

    /// Recalls a message that was answered for.
    async fn recall(&self, room: &str, number: u64, turn: &mut usize, random: &mut fastrand::Rng) {
        let id = format!("{room}-{number}");
        let Outcome::Durable { offset, .. } = self.ledger.lock().unwrap().published[&id].outcome else {
            return;
        };
        let path = format!("/v1/rooms/{room}/reliable/{offset}");
        loop {
            let door = self.node(turn).publisher_door();
            let answer = door.try_request("DELETE", &path, &[], b"").await;
            let answer = answer.filter(|answer| answer.status != 503);
            let recall =
                answer.as_ref().and_then(|answer| serde_json::from_slice::<Value>(&answer.body).ok());
            if let Some(answer) = answer
                && let Some(recall) = recall
            {
                let mut ledger = self.ledger.lock().unwrap();
                match recall["offset"].as_u64().filter(|_| answer.status == 200) {
                    Some(recall) => ledger.recalled(room, offset, recall),
                    None => ledger.violated(format!("I1: the recall of {room} {offset}: {answer:?}")),
                }
                return;
            }
            sleep(Duration::from_millis(random.u64(5..50))).await;
        }
    }
}
