//! C5: the nodes of a cluster under load are restarted one after the other. No room begins another run, nothing that
//! was answered is lost, and nothing is refused but at the doors of the node that drains.
//!
//! `ROOMCAST_ROLLS=50` makes the long run, and judges times as well. `ROOMCAST_NEXT`: the path of another build, for
//! example of the feature `next-version`. Two of the nodes then change between the builds with each round, and the last
//! round ends with the other build alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::{Mutex as Turn, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::support::device::list;
use super::support::{Cluster, Doors};
use super::{Crowd, FEW, Plan, Waits, print, room_name};

/// Longest wait of a publish while a node hands its rooms over, but for one in a hundred.
const WAITS_MAX: Duration = Duration::from_millis(500);
/// Least slots of each of three nodes, of 256.
const SLOTS_LEAST: usize = 60;
/// Longest time until the slots are where they should be: the last node to come back has none.
const BALANCED_WITHIN: Duration = Duration::from_secs(240);
/// Rooms of the publishers that must not be refused.
const STEADY_ROOMS: usize = 6;
/// Pause between two of their publishes.
const STEADY_EVERY: Duration = Duration::from_millis(15);

/// A publisher at each node. All its answers have to be good, as long as the node serves.
struct Steady {
    /// Held while a publish is under way, and while the node is away.
    turns: Vec<Arc<Turn<()>>>,
    /// The longest wait for an answer since the last look.
    longest: Arc<Mutex<Duration>>,
    stop: watch::Sender<bool>,
    publishing: Vec<JoinHandle<SteadyEnd>>,
}

/// The answers of a publisher.
#[derive(Debug, Default)]
struct SteadyEnd {
    answers: usize,
    /// Answers that were not good.
    refused: Vec<String>,
}

impl Steady {
    fn begin(doors: &[Doors]) -> Self {
        let (stop, stopped) = watch::channel(false);
        let turns: Vec<_> = doors.iter().map(|_| Arc::<Turn<()>>::default()).collect();
        let longest = Arc::<Mutex<Duration>>::default();
        let publishing = doors.iter().zip(&turns).enumerate().map(|(node, (doors, turn))| {
            let publishing =
                publish_on(node, *doors, Arc::clone(turn), Arc::clone(&longest), stopped.clone());
            tokio::spawn(publishing)
        });
        Self { publishing: publishing.collect(), turns, longest, stop }
    }

    fn take_longest(&self) -> Duration {
        std::mem::take(&mut *self.longest.lock().unwrap())
    }

    async fn end(self) -> Vec<SteadyEnd> {
        self.stop.send_replace(true);
        join_all(self.publishing).await.into_iter().map(Result::unwrap).collect()
    }
}

fn steady_room(number: usize) -> String {
    format!("steady-{}", number % STEADY_ROOMS)
}

async fn publish_on(
    node: usize,
    doors: Doors,
    turn: Arc<Turn<()>>,
    longest: Arc<Mutex<Duration>>,
    stopped: watch::Receiver<bool>,
) -> SteadyEnd {
    let mut end = SteadyEnd::default();
    while !*stopped.borrow() {
        let message = if end.answers.is_multiple_of(2) {
            json!({"type": "chat", "payload": end.answers})
        } else {
            json!({"type": "coupon", "payload": 1, "id": format!("{node}-{}", end.answers)})
        };
        {
            let _turn = turn.lock().await;
            let began = roomcast::clock::now().instant;
            let answer = doors.publisher_door().try_publish(&steady_room(end.answers), &message).await;
            let mut longest = longest.lock().unwrap();
            *longest = longest.max(began.elapsed());
            if answer.as_ref().is_none_or(|answer| answer.status != 200) {
                end.refused.push(format!("node {node}: {answer:?}"));
            }
        }
        end.answers += 1;
        sleep(STEADY_EVERY).await;
    }
    end
}

/// Room -> its run, as these doors tell it.
async fn runs(plan: &Plan, doors: &Doors) -> BTreeMap<String, Value> {
    let mut runs = BTreeMap::new();
    for room in (0..plan.rooms).map(room_name).chain((0..STEADY_ROOMS).map(steady_room)) {
        runs.insert(room.clone(), doors.view(&room).await["run"].clone());
    }
    runs
}

/// Waits until each node orders a good part of the slots: balance moves one of each node in a second.
async fn are_balanced(doors: &Doors) -> Duration {
    let began = roomcast::clock::now().instant;
    loop {
        let status = doors.ops_door().get("/v1/ops/cluster").await.json();
        let mut held = BTreeMap::<String, usize>::new();
        for slot in list(&status, "slots") {
            *held.entry(slot["home"].to_string()).or_default() += 1;
        }
        let took = began.elapsed();
        if held.len() == 3 && held.values().all(|slots| *slots >= SLOTS_LEAST) {
            return took;
        }
        assert!(took < BALANCED_WITHIN, "slots after {took:?}: {held:?}");
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tc5_no_run_ends_with_a_rolling_restart() {
    let few = Plan { devices: 6, crashes: 1, life_ms: 500..=1500, heals_in_ms: 30_000, ..FEW };
    // Devices of a node that drains come back at another one, which takes its time.
    let plan = Plan { is_timed: false, ..Plan::of("ROOMCAST_ROLLS", few) };
    let name = "TC5";
    let Some(mut cluster) = Cluster::start("TC5 nodes are restarted one by one", 3, 3).await else { return };
    let next = std::env::var_os("ROOMCAST_NEXT").map(PathBuf::from);
    let builds = [Some(Path::new(env!("CARGO_BIN_EXE_roomcast"))), next.as_deref()];
    let builds: Vec<&Path> = builds.into_iter().flatten().collect();
    print(&format!(
        "{name}: {} rounds over {} builds, ROOMCAST_SEED={}",
        plan.crashes,
        builds.len(),
        plan.seed
    ));
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let crowd = Crowd::gather(&plan, cluster.doors.clone(), &mut random);
    let steady = Steady::begin(&cluster.doors);
    sleep(Duration::from_millis(*plan.life_ms.end())).await;
    let before = runs(&plan, &cluster.doors[0]).await;
    let mut waits = Vec::new();
    for round in 1..=plan.crashes {
        for node in 0..3 {
            sleep(Duration::from_millis(random.u64(plan.life_ms.clone()))).await;
            let turn = Arc::clone(&steady.turns[node]);
            let away = turn.lock().await;
            steady.take_longest();
            cluster.drain(node).await;
            waits.push(steady.take_longest());
            // Only the last round ends with the other build alone: its entries of the log let no former node back.
            let is_other = round == plan.crashes || node < 2 && round % 2 == 1;
            let build = if is_other { builds[builds.len() - 1] } else { builds[0] };
            cluster.restart_as(build, node).await;
            cluster.is_whole().await;
            drop(away);
            let now = runs(&plan, &cluster.doors[(node + 1) % 3]).await;
            assert_eq!(now, before, "seed {}: round {round}, behind node {node}", plan.seed);
        }
    }
    let is_long = std::env::var("ROOMCAST_ROLLS").is_ok();
    if is_long {
        let took = are_balanced(&cluster.doors[0]).await;
        let now = runs(&plan, &cluster.doors[1]).await;
        assert_eq!(now, before, "seed {}: behind the moves of balance", plan.seed);
        print(&format!("{name}: each node has its slots again after {took:.0?}"));
    }
    for SteadyEnd { answers, refused } in steady.end().await {
        print(&format!("{name}: {answers} publishes at a node that served, {} refused", refused.len()));
        assert_eq!(refused, [""; 0], "seed {}", plan.seed);
    }
    waits.sort_unstable();
    let p99 = waits[(waits.len() * 99 / 100).min(waits.len() - 1)];
    let waits = Waits { name: "longest wait of a publish, for each node that drained", times: waits };
    // The ledger wants to know how much must have been published at least.
    Box::pin(crowd.judge(name, &plan, waits)).await;
    assert!(!is_long || p99 <= WAITS_MAX, "waited for {p99:?}");
}
