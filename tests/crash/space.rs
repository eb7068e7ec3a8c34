//! C7: the disks of NATS servers are full. No message is answered that is not stored, chat goes on, and with space and
//! a restart of the servers all is well. (`tests/jetstream` has a full stream.)
//!
//! `ROOMCAST_FULL_DISKS=1` makes the long run: first one of three disks is full, then two. The test command has one.

use std::collections::BTreeMap;

use super::full::{Audience, everything_is_there, fill, large, room_of};
use super::power::{cluster_on, disks};
use super::print;
use super::support::{Cluster, until};

/// The disk of a server.
const MEBIBYTES: u64 = 96;

/// Messages before a disk is full, and while one of three is.
const MESSAGES: u64 = 40;
/// A cluster without space in most of its servers refuses a message before this one.
const REFUSED_BEFORE: u64 = 3000;
/// Tries at a cluster that refuses. A refusal takes a second.
const TRIES: u64 = 3;

/// Publishes a message at the nodes in turn until its outcome is known, and notes its offset. The result is the number
/// of refusals before.
async fn publish_until_known(cluster: &Cluster, number: u64, durable: &mut BTreeMap<u64, u64>) -> usize {
    let mut refused = 0;
    let answer = until("the message is durable", async || {
        let doors = cluster.doors[refused % cluster.doors.len()];
        let answer = doors.publisher_door().try_publish(&room_of(number), &large(number)).await?;
        refused += usize::from(answer.status != 200);
        (answer.status == 200).then_some(answer)
    })
    .await;
    durable.insert(number, answer.json()["results"][0]["offset"].as_u64().unwrap());
    refused
}

/// Publishes a message once, and notes its offset. The result is the code of a refusal.
async fn publish_once(cluster: &Cluster, number: u64, durable: &mut BTreeMap<u64, u64>) -> Option<String> {
    let answer = cluster.doors[0].publisher_door().publish(&room_of(number), &large(number)).await;
    if answer.status == 200 {
        durable.insert(number, answer.json()["results"][0]["offset"].as_u64().unwrap());
        return None;
    }
    assert_eq!(answer.status, 503, "{answer:?}");
    Some(answer.json()["code"].as_str().unwrap().to_owned())
}

/// Fills disks until messages are refused, and makes space again.
pub(crate) async fn full_disks(test: &str) {
    let count = if std::env::var("ROOMCAST_FULL_DISKS").is_ok() { 3 } else { 1 };
    let Some(disks) = disks(test, "full", count, MEBIBYTES) else { return };
    let Some(mut cluster) = cluster_on(test, &disks, true, count).await else { return };
    let audience = Audience::join(&cluster.doors[count - 1]).await;
    let ballast: Vec<_> = disks.iter().map(|disk| disk.path().join("ballast")).collect();
    let mut durable = BTreeMap::new();
    let mut next = 0;
    let full = count / 2 + 1;
    for (number, ballast) in ballast[..full].iter().enumerate() {
        let mut refused = 0;
        for _ in 0..MESSAGES {
            refused += publish_until_known(&cluster, next, &mut durable).await;
            next += 1;
        }
        print(&format!(
            "TC7: with {number} full disks {MESSAGES} messages are stored, and were refused {refused} times"
        ));
        fill(ballast);
    }
    let mut codes = BTreeMap::new();
    let mut tries = 0;
    while tries < TRIES {
        assert!(next < REFUSED_BEFORE, "{full} full disks hold all of {next} messages");
        match publish_once(&cluster, next, &mut durable).await {
            Some(code) => {
                tries += 1;
                *codes.entry(code).or_insert(0) += 1;
            }
            None => next += 1,
        }
    }
    print(&format!("TC7: {full} of {count} disks are full, and message {next} is refused: {codes:?}"));
    audience.hears_chat(&cluster.doors[0], 2).await;
    for (server, ballast) in ballast[..full].iter().enumerate() {
        std::fs::remove_file(ballast).unwrap();
        cluster.servers.kill(server);
        cluster.servers.start_one(server);
    }
    let freed = roomcast::clock::now().instant;
    publish_until_known(&cluster, next, &mut durable).await;
    print(&format!("TC7: {} messages; healed {:.1?} after there was space", durable.len(), freed.elapsed()));
    cluster.is_whole().await;
    cluster.renew().await;
    everything_is_there(&cluster.doors[0], &durable).await;
}
