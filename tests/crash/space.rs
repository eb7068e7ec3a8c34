//! C7: disks of NATS servers are full, first one of three, then two. No message is answered that is not stored, chat
//! goes on, and with space and a restart of the servers all is well. (`tests/jetstream` has a full stream.)

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::sleep;

use super::full::{Audience, everything_is_there, fill, large, room_of};
use super::power::{cluster_on, disks};
use super::print;
use super::support::{Cluster, until};

/// The disk of a server.
const MEBIBYTES: u64 = 96;

/// Messages that are published to a cluster with one full disk, and to one with two, until one is refused.
const MESSAGES: u64 = 40;
const REFUSED_BEFORE: u64 = 3000;

/// Publishes a message at the nodes in turn until its outcome is known, and notes its offset.
async fn publish_until_known(cluster: &Cluster, number: u64, durable: &mut BTreeMap<u64, u64>) -> u32 {
    let mut refused = 0;
    let answer = until("the message is durable", async || {
        let doors = cluster.doors[refused as usize % cluster.doors.len()];
        let answer = doors.publisher_door().try_publish(&room_of(number), &large(number)).await?;
        refused += u32::from(answer.status != 200);
        (answer.status == 200).then_some(answer)
    })
    .await;
    durable.insert(number, answer.json()["results"][0]["offset"].as_u64().unwrap());
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tc7_full_disks_of_nats_servers_lose_nothing_and_heal() {
    let test = "TC7 full disks of NATS servers";
    let Some(disks) = disks(test, "tc7", 3, MEBIBYTES) else { return };
    let Some(mut cluster) = cluster_on(test, &disks, true, 2).await else { return };
    let audience = Audience::join(&cluster.doors[1]).await;
    let mut durable = BTreeMap::new();
    let mut refused = 0;
    for number in 0..MESSAGES {
        publish_until_known(&cluster, number, &mut durable).await;
    }
    let ballast: Vec<_> = disks.iter().map(|disk| disk.path().join("ballast")).collect();
    fill(&ballast[0]);
    for number in MESSAGES..2 * MESSAGES {
        refused += publish_until_known(&cluster, number, &mut durable).await;
    }
    print(&format!("TC7: one disk full: {MESSAGES} messages stored, refused {refused} times on the way"));
    audience.hears_chat(&cluster.doors[0], 1).await;
    fill(&ballast[1]);
    let mut next = 2 * MESSAGES;
    let answer = loop {
        assert!(next < REFUSED_BEFORE, "two full disks hold all of {next} messages");
        let answer = cluster.doors[0].publisher_door().publish(&room_of(next), &large(next)).await;
        if answer.status != 200 {
            break answer;
        }
        durable.insert(next, answer.json()["results"][0]["offset"].as_u64().unwrap());
        next += 1;
    };
    print(&format!("TC7: two disks full: message {next} is refused with {answer:?}"));
    sleep(Duration::from_secs(2)).await;
    audience.hears_chat(&cluster.doors[0], 2).await;
    for server in 0..2 {
        std::fs::remove_file(&ballast[server]).unwrap();
        cluster.servers.kill(server);
        cluster.servers.start_one(server);
    }
    let freed = roomcast::clock::now().instant;
    publish_until_known(&cluster, next, &mut durable).await;
    print(&format!("TC7: {} messages; healed {:.1?} after there was space", durable.len(), freed.elapsed()));
    cluster.is_whole().await;
    for node in 0..cluster.doors.len() {
        cluster.kill(node);
    }
    for node in 0..cluster.doors.len() {
        cluster.restart(node).await;
    }
    cluster.is_whole().await;
    everything_is_there(&cluster.doors[0], &durable).await;
}
