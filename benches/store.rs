//! The cost of durable messages, and the time to open a store after its process was killed.
//!
//! Prints a line per figure. The bench works in the system's directory for temporary files, or in
//! `ROOMCAST_BENCH_FOLDER`: the figures are of that disk. `cargo bench --bench store -- lone` runs the parts
//! with that text in their name.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use roomcast::store::redb::Redb;
use roomcast::store::time::{LastTimes, StoreClock, StoreNow};
use roomcast::store::{Append, Store};
use roomcast_core::room::id::{Epoch, MessageId, RoomName};
use roomcast_core::room::message::{Class, Message, Payload, sample};
use roomcast_core::room::policy::TypePolicy;

const ROOMS: u64 = 1000;
const MESSAGES: u64 = 100_000;
const COMMITS: u64 = 1000;
/// Makes the program fill the folder in the next argument, and then wait for its end.
const FILL: &str = "--fill";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [first, folder] = &args[..]
        && first == FILL
    {
        return fill(Path::new(folder));
    }
    let wanted = args.iter().find(|arg| !arg.starts_with('-'));
    let runs = |name: &str| wanted.is_none_or(|wanted| name.contains(wanted.as_str()));
    if runs("lone") {
        lone_commits();
    }
    for (rooms, messages) in [(1, 1), (16, 1), (64, 1), (256, 1), (500, 1), (1, 64), (20, 50)] {
        if runs("commits") {
            commits_of(rooms, messages);
        }
    }
    if runs("purge") {
        purges_of(128);
        purges_of(1024);
    }
    if runs("open") {
        open_after_a_kill();
    }
}

fn print(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("the terminal is there");
}

/// An empty folder, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let parent = std::env::var_os("ROOMCAST_BENCH_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
        let folder = parent.join(format!("roomcast-bench-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn room(number: u64) -> RoomName {
    RoomName::parse(&format!("room-{number}")).expect("a constant")
}

fn append(room: &RoomName, offsets: RangeInclusive<u64>, payload_bytes: usize) -> Append {
    let message = |offset| Message {
        policy: TypePolicy::of(Class::Reliable),
        id: Some(MessageId::parse(&format!("order-{offset}")).expect("a constant")),
        payload: Payload::Opaque(Bytes::from(vec![7; payload_bytes])),
        ttl: Duration::from_secs(3600),
        offset,
        at_ms: roomcast::clock::now().unix_ms,
        wire_bytes: payload_bytes + 80,
        ..sample("coupon", "")
    };
    let messages = offsets.map(|offset| Arc::new(message(offset))).collect();
    let accepted = roomcast::clock::now().instant;
    Append { room: room.clone(), life: 1, epoch: Epoch(1), durable: 0, accepted, messages }
}

/// The present moment, on a clock that goes with the wall clock.
fn now() -> StoreNow {
    let now = roomcast::clock::now();
    StoreClock::start(LastTimes::default(), now).now(now)
}

fn commit(store: &mut Redb, appends: &[Append]) -> Duration {
    let began = roomcast::clock::now().instant;
    let outcomes = store.append(appends, now()).expect("the disk works");
    let took = roomcast::clock::now().instant - began;
    assert!(outcomes.iter().all(Result::is_ok));
    took
}

fn percentile(sorted: &[Duration], per_mille: usize) -> Duration {
    sorted[(sorted.len() - 1) * per_mille / 1000]
}

fn lone_commits() {
    let folder = Folder::new("lone");
    let mut store = Redb::open(&folder.0).expect("the folder is empty");
    let room = room(1);
    let mut times: Vec<_> = (1..=COMMITS).map(|n| commit(&mut store, &[append(&room, n..=n, 300)])).collect();
    times.sort_unstable();
    let p50 = percentile(&times, 500);
    let p99 = percentile(&times, 990);
    print(&format!(
        "lone commit of 300 bytes: p50 {p50:.2?}, p99 {p99:.2?}, max {:.2?}",
        times[times.len() - 1]
    ));
}

/// Commits of `rooms` appends, each of `messages` messages.
fn commits_of(rooms: u64, messages: u64) {
    let folder = Folder::new("commits");
    let mut store = Redb::open(&folder.0).expect("the folder is empty");
    let rooms: Vec<_> = (0..rooms).map(room).collect();
    let commits = COMMITS / 4;
    let time: Duration = (0..commits)
        .map(|round| {
            let offsets = round * messages + 1..=(round + 1) * messages;
            let appends: Vec<_> = rooms.iter().map(|room| append(room, offsets.clone(), 300)).collect();
            commit(&mut store, &appends)
        })
        .sum();
    let per_second = u128::from(commits) * 1_000_000 / time.as_micros();
    let each = rooms.len() as u128 * u128::from(messages);
    print(&format!(
        "commits of {} rooms × {messages} × 300 bytes: {per_second}/s, {} messages/s",
        rooms.len(),
        per_second * each
    ));
}

/// Purges of `rows` rows each, spread over many rooms.
fn purges_of(rows: usize) {
    let folder = Folder::new("purge");
    let mut store = Redb::open(&folder.0).expect("the folder is empty");
    for offset in 1..=20 {
        let appends: Vec<_> = (0..ROOMS).map(|number| append(&room(number), offset..=offset, 300)).collect();
        commit(&mut store, &appends);
    }
    let mut times: Vec<_> = (0..10)
        .map(|_| {
            let began = roomcast::clock::now().instant;
            let mut later = now();
            later.stamp.store_ms = u64::MAX / 2;
            let purged = store.purge(later, rows).expect("the disk works");
            assert_eq!(purged.rows, rows);
            roomcast::clock::now().instant - began
        })
        .collect();
    times.sort_unstable();
    print(&format!("purge of {rows} rows of 300 bytes: p50 {:.2?}, max {:.2?}", times[5], times[9]));
}

fn fill(folder: &Path) {
    let mut store = Redb::open(folder).expect("the folder is empty");
    for offset in 1..=MESSAGES / ROOMS {
        let appends: Vec<_> = (0..ROOMS).map(|number| append(&room(number), offset..=offset, 4096)).collect();
        commit(&mut store, &appends);
    }
    print("full");
    std::io::stdin().read_line(&mut String::new()).ok();
}

fn open_after_a_kill() {
    let folder = Folder::new("open");
    let program = std::env::current_exe().expect("it runs");
    let mut child = Command::new(program)
        .args([FILL.as_ref(), folder.0.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program can be started");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("it prints");
    assert_eq!(line.trim(), "full");
    child.kill().expect("it runs");
    child.wait().expect("it was killed");

    let began = roomcast::clock::now().instant;
    let mut store = Redb::open(&folder.0).expect("a kill leaves nothing broken");
    let opened = roomcast::clock::now().instant - began;
    let began = roomcast::clock::now().instant;
    let stream = store.load(&room(7), u64::MAX, now()).expect("the disk works").expect("it was stored");
    let loaded = roomcast::clock::now().instant - began;
    assert_eq!(stream.records.len() as u64, MESSAGES / ROOMS);
    black_box(stream);
    print(&format!(
        "open after a kill, {MESSAGES} × 4 KiB in {ROOMS} rooms: {opened:.2?}; loading a room of {}: {loaded:.2?}",
        MESSAGES / ROOMS
    ));
}
