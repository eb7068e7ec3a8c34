//! C8: the power of all NATS servers fails at once, each on a disk of its own. With syncs everything answered is found
//! by nodes that start anew, in the logs alone. Without them it is not, so the test would see a loss.
//!
//! `ROOMCAST_POWER_CUTS=20` makes the long run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::loopfs::{CutOff, LoopFs};
use super::space::full_disks;
use super::support::device::list;
use super::support::nats::{NatsPlace, NatsServers, NatsSetting};
use super::support::{Cluster, Doors};
use super::{FEW, Plan, print};

const VARIABLE: &str = "ROOMCAST_POWER_CUTS";

const ROOMS: usize = 16;

/// The disk of a server: eight streams, their copies' logs, and an eighth of them in a message.
const MEBIBYTES: u64 = 128;

/// Longest time for servers to come back, elections included.
const HEALTHY_WITHIN: Duration = Duration::from_secs(15);
/// A page that was not served until then is lost, as a node without its log never serves it.
const SERVED_WITHIN: Duration = Duration::from_secs(10);

/// Disks for NATS servers. `None`, and a line on stderr: this machine makes none.
pub(crate) fn disks(test: &str, name: &str, count: usize, mebibytes: u64) -> Option<Vec<LoopFs>> {
    let disks: Result<_, _> =
        (0..count).map(|disk| LoopFs::new(&format!("{name}-{disk}"), mebibytes)).collect();
    disks.map_err(|why| print(&format!("skipped: {test}: NOT RUN: {why}"))).ok()
}

/// A cluster of so many nodes whose NATS servers store on these disks.
pub(crate) async fn cluster_on(test: &str, disks: &[LoopFs], syncs: bool, nodes: usize) -> Option<Cluster> {
    let place = |disk: &LoopFs| NatsPlace { namespace: None, store: Some(disk.path().join("nats")) };
    let setting = NatsSetting { count: disks.len(), syncs, ..NatsSetting::ONE };
    let servers = NatsServers::start_at(test, setting, disks.iter().map(place).collect()).await?;
    let settings: &[_] = if syncs { &[] } else { &[("ROOMCAST__CLUSTER__ALLOW_UNSYNCED", "true")] };
    Some(Box::pin(Cluster::on(servers, nodes, settings, None)).await)
}

/// The messages of a room that were answered: offset -> payload.
type Answered = BTreeMap<u64, Value>;

/// Publishes coupons to a room until the stop, one after the other.
async fn publish(doors: Vec<Doors>, room: String, stopped: watch::Receiver<bool>) -> Answered {
    let mut answered = Answered::new();
    for number in 0.. {
        if *stopped.borrow() {
            break;
        }
        let payload = json!(format!("{room} {number}"));
        let message = json!({"type": "coupon", "payload": payload, "id": format!("c-{number}")});
        let door = doors[number % doors.len()].publisher_door();
        let answer = door.try_publish(&room, &message).await;
        // The outcome of any other is unknown, and the next message has another id.
        if let Some(answer) = answer.filter(|answer| answer.status == 200) {
            answered.insert(answer.json()["results"][0]["offset"].as_u64().unwrap(), payload);
        }
    }
    answered
}

/// The room's messages at these doors: offset -> payload. Empty: its pages are not served.
async fn found(doors: &Doors, room: &str) -> Answered {
    let mut found = Answered::new();
    let mut after = String::new();
    loop {
        let path = format!("/v1/rooms/{room}/reliable{after}");
        let answer = doors.viewer_door().try_request("GET", &path, &[], b"").await;
        // Nobody has heard of the room: all of it is lost.
        if answer.as_ref().is_some_and(|answer| answer.status == 404) {
            return found;
        }
        let Some(answer) = answer.filter(|answer| answer.status == 200) else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        let page = answer.json();
        for message in list(&page, "reliable") {
            found.insert(message["offset"].as_u64().unwrap(), message["payload"].clone());
        }
        if page["through"] == page["offset"] {
            return found;
        }
        after = format!("?after={}:{}", page["epoch"].as_str().unwrap(), page["through"]);
    }
}

/// Messages that were answered before power cuts, and the lost ones.
#[derive(Debug, Default)]
struct Outcome {
    answered: usize,
    lost: usize,
}

/// Publishes until the power of all servers fails, again and again. After each power cut all nodes start anew.
async fn cut_power(
    test: &str,
    cluster: &mut Cluster,
    disks: &mut [LoopFs],
    plan: &Plan,
    cuts: &[CutOff],
) -> Outcome {
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let mut answered: BTreeMap<String, Answered> = BTreeMap::new();
    let mut outcome = Outcome::default();
    for cut in 0..plan.crashes {
        let rooms: Vec<String> = (0..ROOMS).map(|room| format!("cut-{cut}-{room}")).collect();
        let (stop, stopped) = watch::channel(false);
        let publish =
            |room: &String| tokio::spawn(publish(cluster.doors.clone(), room.clone(), stopped.clone()));
        let publishers: Vec<_> = rooms.iter().map(publish).collect();
        sleep(Duration::from_millis(random.u64(plan.life_ms.clone()))).await;
        (0..disks.len()).for_each(|server| cluster.servers.kill(server));
        let how = cuts[random.usize(..cuts.len())];
        for disk in disks.iter_mut() {
            disk.cut_off(how).unwrap();
            disk.remount().unwrap();
        }
        stop.send_replace(true);
        for (room, publisher) in rooms.iter().zip(publishers) {
            answered.insert(room.clone(), publisher.await.unwrap());
        }
        let began: Instant = roomcast::clock::now().instant;
        (0..disks.len()).for_each(|server| cluster.servers.start_one(server));
        // Servers that lost what they had not synced may not come back at all.
        let healthy = join_all((0..disks.len()).map(|server| cluster.servers.is_healthy(server)));
        if timeout(HEALTHY_WITHIN, healthy).await.is_err() {
            print(&format!("{test}: power cut {cut} ({how:?}): the servers do not come back"));
            let answered = answered.values().map(BTreeMap::len).sum();
            return Outcome { answered, lost: answered };
        }
        let healthy = began.elapsed();
        cluster.renew().await;
        let whole = began.elapsed();
        let doors = cluster.doors[0];
        let pages = answered.keys().map(|room| timeout(SERVED_WITHIN, found(&doors, room)));
        let pages: Vec<Answered> = join_all(pages).await.into_iter().map(Result::unwrap_or_default).collect();
        let lost: usize = answered
            .values()
            .zip(&pages)
            .map(|(answered, page)| {
                answered.iter().filter(|(at, payload)| page.get(*at) != Some(*payload)).count()
            })
            .sum();
        outcome = Outcome { answered: answered.values().map(BTreeMap::len).sum(), lost };
        print(&format!(
            "{test}: power cut {cut} ({how:?}): servers healthy after {healthy:.1?}, nodes whole after {whole:.1?}, \
             {outcome:?}"
        ));
    }
    outcome
}

/// The size of the short form.
const FEW_CUTS: Plan = Plan { crashes: 1, life_ms: 300..=900, ..FEW };

/// Cuts the power of a cluster whose servers sync or not. `None`: not run.
async fn outcome(test: &str, syncs: bool, plan: &Plan) -> Option<Outcome> {
    // The test command has one server and one node, whose promise is the same.
    let count = if std::env::var(VARIABLE).is_ok() { 3 } else { 1 };
    let mut disks = disks(test, if syncs { "power" } else { "power-unsynced" }, count, MEBIBYTES)?;
    let mut cluster = cluster_on(test, &disks, syncs, count).await?;
    print(&format!("{test}: {} cuts of {count} servers, ROOMCAST_SEED={}", plan.crashes, plan.seed));
    // Without syncs, servers whose journal is written have streams that they can't recover, and never come back.
    let cuts = if syncs { &[CutOff::AtOnce, CutOff::AfterTheJournal][..] } else { &[CutOff::AtOnce] };
    let outcome = Box::pin(cut_power(test, &mut cluster, &mut disks, plan, cuts)).await;
    assert!(outcome.answered >= plan.crashes * ROOMS, "hardly anything was published: {outcome:?}");
    Some(outcome)
}

/// C7 and C8 at the same time: they wait for others most of the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tc7_tc8_full_disks_and_power_cuts_lose_nothing_that_was_answered() {
    let synced = Plan::of(VARIABLE, FEW_CUTS);
    let unsynced = Plan { crashes: 1, ..synced.clone() };
    let (synced, unsynced, ()) = Box::pin(async {
        tokio::join!(
            outcome("TC8 a power cut of all NATS servers", true, &synced),
            outcome("TC8 a power cut without syncs", false, &unsynced),
            full_disks("TC7 full disks of NATS servers"),
        )
    })
    .await;
    if let Some(outcome) = synced {
        assert_eq!(outcome.lost, 0, "{outcome:?}");
    }
    if let Some(outcome) = unsynced {
        assert!(outcome.lost > 0, "nothing was lost, so this test sees no loss: {outcome:?}");
    }
}
