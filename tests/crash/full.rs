//! T9: a disk that is full, and a disk that fails. Reliable messages are refused, everything else goes on,
//! and the node heals by itself once the cause is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::loopfs::LoopFs;
use super::support::device::{list, offsets, published};
use super::support::{Device, Doors, Encoding, Folder, Heard, Process, until};
use super::{SHARDS, print};

const MEBIBYTES: u64 = 24;

/// Messages stored while one call in a hundred fails. Each failure costs the store's pause of a second.
const MESSAGES: u64 = 60;

/// A message that takes its share of the disk.
pub(crate) fn large(number: u64) -> Value {
    json!({"type": "coupon", "payload": format!("{number} {}", "x".repeat(12_000)), "id": format!("c-{number}")})
}

/// Messages are spread over a few rooms, since one room may hold 8 MiB.
pub(crate) fn room_of(number: u64) -> String {
    format!("r{}", number % 4)
}

/// Writes a foreign file that takes all free space.
pub(crate) fn fill(path: &Path) {
    let mut ballast = File::create(path).unwrap();
    for block_bytes in [1 << 20, 1 << 12] {
        let block = vec![1; block_bytes];
        while ballast.write_all(&block).is_ok() {}
    }
    ballast.sync_all().ok();
}

/// Asserts that every message with an offset in its answer is at that offset.
pub(crate) async fn everything_is_there(doors: &Doors, durable: &BTreeMap<u64, u64>) {
    for (number, offset) in durable {
        let room = room_of(*number);
        let epoch = doors.pull(&room, None).await["epoch"].clone();
        let before = format!("{}:{}", epoch.as_str().unwrap(), offset - 1);
        let found = list(&doors.pull(&room, Some(&before)).await, "reliable");
        let found = found.first().unwrap_or_else(|| panic!("c-{number} is not at {offset}"));
        let message = large(*number);
        assert_eq!((&found["id"], &found["payload"]), (&message["id"], &message["payload"]));
    }
}

/// Publishes messages of these numbers until one is refused, and returns its number.
async fn publish(doors: &Doors, numbers: Range<u64>, durable: &mut BTreeMap<u64, u64>) -> Option<u64> {
    for number in numbers {
        let answer = doors.publisher_door().publish(&room_of(number), &large(number)).await;
        if answer.status != 200 {
            answer.is_problem(503, "store_failing", None);
            assert_eq!(answer.results(), ["unavailable: store_failing"]);
            return Some(number);
        }
        assert_eq!(answer.results(), ["durable"], "{answer:?}");
        durable.insert(number, answer.json()["results"][0]["offset"].as_u64().unwrap());
    }
    None
}

/// The messages that a device has heard in room r0: offsets of reliable ones, and numbers of chat.
#[derive(Debug, Default)]
struct Notes {
    offsets: BTreeSet<u64>,
    chat: BTreeSet<u64>,
}

/// Devices of both encodings, which listen and acknowledge until the drop.
#[derive(Debug)]
pub(crate) struct Audience {
    notes: Vec<Arc<Mutex<Notes>>>,
    listening: JoinSet<()>,
}

impl Audience {
    pub(crate) async fn join(doors: &Doors) -> Self {
        let mut audience = Self { notes: Vec::new(), listening: JoinSet::new() };
        for encoding in Encoding::ALL {
            let device = Device::join(doors, "r0", encoding).await;
            let notes = Arc::new(Mutex::new(Notes::default()));
            audience.notes.push(Arc::clone(&notes));
            audience.listening.spawn(listen(device, notes));
        }
        audience
    }

    /// Asserts that chat reaches all devices.
    pub(crate) async fn hears_chat(&self, doors: &Doors, number: u64) {
        doors.chat("r0", number..number + 1).await;
        for notes in &self.notes {
            let heard = async || notes.lock().unwrap().chat.contains(&number).then_some(());
            until("chat", heard).await;
        }
    }

    /// Asserts that all devices hear all of `offsets`.
    pub(crate) async fn hears_reliable(&self, offsets: &BTreeSet<u64>) {
        for notes in &self.notes {
            let heard = async || notes.lock().unwrap().offsets.is_superset(offsets).then_some(());
            until("reliable messages", heard).await;
        }
    }
}

async fn listen(mut device: Device, notes: Arc<Mutex<Notes>>) {
    let epoch = device.welcome["epoch"].clone();
    while let Heard::Frame(frame) = device.listen().await {
        if let Some(through) = frame["through"].as_u64() {
            device.ack("r0", &epoch, through).await;
        }
        let mut notes = notes.lock().unwrap();
        notes.offsets.extend(offsets(&frame));
        notes.chat.extend(published(&frame).iter().filter_map(|message| message["payload"].as_u64()));
    }
}

/// The offsets in room r0 among the durable messages.
fn of_r0(durable: &BTreeMap<u64, u64>) -> BTreeSet<u64> {
    let of_r0 = durable.iter().filter(|(number, _)| room_of(**number) == "r0");
    of_r0.map(|(_, offset)| *offset).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t9_a_full_disk_stops_reliable_messages_alone_and_heals() {
    let disk = match LoopFs::new("t9", MEBIBYTES) {
        Ok(disk) => disk,
        Err(why) => return print(&format!("skipped: T9 a full disk: NOT RUN: {why}")),
    };
    let data = disk.path().join("data");
    let node = Process::keeping(SHARDS, &data, None).await;
    let doors = node.doors;
    let audience = Audience::join(&doors).await;
    assert_eq!(doors.ops_door().get("/readyz").await.status, 200);
    let ballast = disk.path().join("ballast");
    let mut durable = BTreeMap::new();
    assert_eq!(publish(&doors, 1..40, &mut durable).await, None);
    fill(&ballast);
    let refused = publish(&doors, 40..3000, &mut durable).await;
    let refused =
        refused.unwrap_or_else(|| panic!("{MEBIBYTES} MiB hold no more than {} of these", durable.len()));
    audience.hears_chat(&doors, 1).await;
    let reasons = async || {
        let answer = doors.ops_door().get("/readyz").await;
        (answer.status == 503).then(|| answer.json()["reasons"].clone())
    };
    assert_eq!(until("the balancer's notice", reasons).await, json!(["store_failing"]));
    // While the disk is full, the message is refused again, and chat in the same request is not.
    let request = json!({"messages": [large(refused), {"type": "chat", "payload": "with it"}]});
    let results = doors.publish(&room_of(refused), &request).await;
    assert_eq!(results, ["unavailable: store_failing", "accepted"]);
    audience.hears_chat(&doors, 2).await;
    std::fs::remove_file(&ballast).unwrap();
    let freed = roomcast::clock::now().instant;
    let answer = until("it heals", async || {
        let answer = doors.publisher_door().publish(&room_of(refused), &large(refused)).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    print(&format!(
        "T9: full after {} messages; healed {:.1?} after space was free",
        durable.len(),
        freed.elapsed()
    ));
    // The message may have been stored the first time: its outcome was unknown.
    assert!(["durable", "duplicate"].contains(&answer.results()[0].as_str()), "{answer:?}");
    durable.insert(refused, answer.json()["results"][0]["offset"].as_u64().unwrap());
    until("it is ready", async || (doors.ops_door().get("/readyz").await.status == 200).then_some(())).await;
    everything_is_there(&doors, &durable).await;
    audience.hears_reliable(&of_r0(&durable)).await;
    node.kill();
    let node = Process::keeping(SHARDS, &data, None).await;
    everything_is_there(&node.doors, &durable).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t9_failing_writes_and_syncs_break_no_promise() {
    if Command::new("fiu-run").arg("-h").output().is_err() {
        return print("skipped: T9 writes and syncs that fail: NOT RUN: fiu-run is not installed");
    }
    let folder = Folder::new();
    let data = folder.path().join("data");
    let mut fiu = Command::new("fiu-run");
    fiu.arg("-x");
    for call in
        ["posix/io/rw/pwrite", "posix/io/rw/pwrite64", "posix/io/sync/fdatasync", "posix/io/sync/fsync"]
    {
        fiu.args(["-c", &format!("enable_random name={call},probability=0.01,failinfo=5")]);
    }
    // Opening the store may fail, too. Such a node says so and ends.
    drop(Process::keeping(SHARDS, &data, None).await);
    fiu.arg(env!("CARGO_BIN_EXE_roomcast"));
    let node = Process::under(fiu, SHARDS, &data).await;
    let doors = node.doors;
    let audience = Audience::join(&doors).await;
    let mut durable = BTreeMap::new();
    let mut refused = 0;
    for number in 1..=MESSAGES {
        let answer = until("it is stored", async || {
            let answer = doors.publisher_door().publish(&room_of(number), &large(number)).await;
            refused += u32::from(answer.status != 200);
            (answer.status == 200).then_some(answer)
        })
        .await;
        durable.insert(number, answer.json()["results"][0]["offset"].as_u64().unwrap());
        if number % 20 == 0 {
            audience.hears_chat(&doors, number).await;
        }
    }
    print(&format!("T9: {MESSAGES} messages stored, refused {refused} times on the way"));
    assert!(refused > 0, "no call failed");
    everything_is_there(&doors, &durable).await;
    audience.hears_reliable(&of_r0(&durable)).await;
    node.kill();
    let node = Process::keeping(SHARDS, &data, None).await;
    everything_is_there(&node.doors, &durable).await;
}
