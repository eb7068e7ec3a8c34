//! The writer: gathering, the order of answers, failure and healing. Some tests run its body turn by turn,
//! others its thread.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use roomcast::store::memory::Memory;
use roomcast::store::port::Port;
use roomcast::store::time::{Stamp, StoreNow};
use roomcast::store::writer::{Next, Wake, Writer, start};
use roomcast::store::{
    Append, Asked, FaultOf, Page, Purged, Store, StoreAnswer, StoreError, StoreHoldings, StoreRequest, Stored,
};
use roomcast_core::limits::{
    STORE_ASIDE_AFTER, STORE_ASIDE_PAUSE_MIN, STORE_AWAY_MAX, STORE_CLOCK_INTERVAL,
    STORE_COMMIT_MESSAGES_MAX, STORE_PROOF_BYTES, STORE_PURGE_HOLD, STORE_PURGE_INTERVAL,
    STORE_PURGE_ROWS_MIN, STORE_REOPEN_PAUSE_MAX, STORE_REOPEN_PAUSE_MIN, STORE_TURN_READS_MAX,
    STORE_WAITING_MAX,
};
use roomcast_core::now::Now;

use super::disk::{Disk, Fault, FaultKind};
use super::{append, room};
use roomcast_core::room::id::RoomName;

/// A store in memory that counts its commits, and fails or panics when told.
#[derive(Debug, Clone, Default)]
struct Watched(Arc<Mutex<Watch>>);

#[derive(Debug, Default)]
struct Watch {
    memory: Memory,
    /// The number of messages in each commit.
    commits: Vec<usize>,
    purges: Vec<usize>,
    /// The bytes of each proof.
    proofs: Vec<usize>,
    reads: usize,
    /// The rooms with reads that fail.
    unreadable: BTreeSet<RoomName>,
    /// True: the next append is stored, and reported as failed.
    fail_after_storing: bool,
    fail_next_write: bool,
    panic_next: bool,
    purges_that_fail: usize,
    proofs_that_fail: usize,
    reopenings_that_fail: usize,
    down: bool,
    /// The part at fault in each failure. `None`: the disk.
    fault: Option<FaultOf>,
    /// True: each purge says that more rows are due.
    has_endless_purges: bool,
}

impl Watched {
    fn with<T>(&self, change: impl FnOnce(&mut Watch) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn read<T>(
        &self,
        room: &RoomName,
        ask: impl FnOnce(&mut Memory) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with(|watch| {
            watch.reads += 1;
            let fails = watch.down || watch.unreadable.contains(room);
            if fails { Err(StoreError::Failing) } else { ask(&mut watch.memory) }
        })
    }

    fn write<T>(&self, ask: impl FnOnce(&mut Memory) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.with(|watch| {
            if std::mem::take(&mut watch.panic_next) {
                watch.down = true;
                panic!("as told");
            }
            watch.down |= std::mem::take(&mut watch.fail_next_write);
            if watch.down { Err(StoreError::Failing) } else { ask(&mut watch.memory) }
        })
    }
}

/// Takes one of the failures that are left. True if there was one.
fn take_one(left: &mut usize) -> bool {
    let was_left = *left > 0;
    *left -= usize::from(was_left);
    was_left
}

impl Store for Watched {
    fn load(&mut self, room: &RoomName, whole: u64, now: StoreNow) -> Result<Option<Stored>, StoreError> {
        self.read(room, |memory| memory.load(room, whole, now))
    }

    fn page(&mut self, room: &RoomName, after: u64, bytes_max: usize) -> Result<Page, StoreError> {
        self.read(room, |memory| memory.page(room, after, bytes_max))
    }

    fn append(
        &mut self,
        appends: &[Append],
        now: StoreNow,
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        self.with(|watch| watch.commits.push(appends.iter().map(|append| append.messages.len()).sum()));
        let outcomes = self.write(|memory| memory.append(appends, now));
        if self.with(|watch| std::mem::take(&mut watch.fail_after_storing)) {
            self.with(|watch| watch.down = true);
            return Err(StoreError::Failing);
        }
        outcomes
    }

    fn forget(&mut self, room: &RoomName) -> Result<bool, StoreError> {
        self.write(|memory| memory.forget(room))
    }

    fn purge(&mut self, now: StoreNow, rows_max: usize) -> Result<Purged, StoreError> {
        self.with(|watch| {
            watch.purges.push(rows_max);
            watch.down |= take_one(&mut watch.purges_that_fail);
        });
        let purged = self.write(|memory| memory.purge(now, rows_max))?;
        let is_endless = self.with(|watch| watch.has_endless_purges);
        Ok(Purged { looked_at: if is_endless { rows_max } else { purged.looked_at }, ..purged })
    }

    fn prove(&mut self, now: StoreNow, bytes: usize) -> Result<(), StoreError> {
        self.with(|watch| {
            watch.proofs.push(bytes);
            watch.down |= take_one(&mut watch.proofs_that_fail);
        });
        self.write(|memory| memory.prove(now, bytes))
    }

    fn stamp(&self) -> Option<Stamp> {
        self.with(|watch| watch.memory.stamp())
    }

    fn is_open(&self) -> bool {
        self.with(|watch| !watch.down)
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        self.with(|watch| {
            if take_one(&mut watch.reopenings_that_fail) {
                return Err(StoreError::Failing);
            }
            watch.down = false;
            Ok(())
        })
    }

    fn holdings(&self) -> StoreHoldings {
        self.with(|watch| watch.memory.holdings())
    }

    fn fault(&self) -> FaultOf {
        self.with(|watch| watch.fault.unwrap_or(FaultOf::Disk))
    }

    fn trouble(&self) -> &str {
        "as told"
    }
}

/// A writer without a thread, and a port for each shard.
fn writer(store: &Watched, shards: usize) -> (Writer, Vec<Port>) {
    let wakes = (0..shards).map(|_| Box::new(|| {}) as Wake).collect();
    let writer = Writer::new(Box::new(store.clone()), wakes, roomcast::clock::now());
    let ports = writer.ports();
    (writer, ports)
}

fn load(name: &str) -> StoreRequest {
    StoreRequest::Load { room: room(name), life: 1, whole_after: 0 }
}

fn store(name: &str, offsets: std::ops::RangeInclusive<u64>) -> StoreRequest {
    StoreRequest::Append(append(name, offsets))
}

fn page(name: &str, after: u64) -> StoreRequest {
    StoreRequest::Page { room: room(name), life: 1, after, bytes_max: 1000 }
}

/// Every waiting answer, in short.
fn answers(port: &mut Port) -> Vec<String> {
    std::iter::from_fn(|| port.next_answer()).map(|answer| short(&answer)).collect()
}

fn short(answer: &StoreAnswer) -> String {
    match answer {
        StoreAnswer::Loaded { room, stream, .. } => {
            format!("loaded {room} {}", stream.as_ref().map_or(0, |stream| stream.head))
        }
        StoreAnswer::Durable { room, through, .. } => format!("durable {room} {through}"),
        StoreAnswer::Paged { room, page, .. } => format!("paged {room} {}", page.through),
        StoreAnswer::Forgotten { room, existed, .. } => format!("forgotten {room} {existed}"),
        StoreAnswer::Failed { room, asked, error, .. } => {
            let asked = match asked {
                Asked::Load => "load",
                Asked::Append => "append",
                Asked::Forget => "forget",
                Asked::Page { .. } => "page",
            };
            format!("failed {room} {asked} {error:?}")
        }
    }
}

#[test]
fn what_waits_makes_one_commit_and_a_lone_append_is_committed_at_once() {
    let watched = Watched::default();
    let (mut writer, mut ports) = writer(&watched, 2);
    let now = roomcast::clock::now();
    ports[0].send(store("a", 1..=1)).unwrap();
    writer.turn(now);
    assert_eq!(answers(&mut ports[0]), ["durable a 1"]);
    for offset in 2..=9 {
        ports[0].send(store("a", offset..=offset)).unwrap();
    }
    ports[1].send(store("b", 1..=3)).unwrap();
    writer.turn(now);
    assert_eq!(watched.with(|watch| watch.commits.clone()), [1, 11]);
    assert_eq!(answers(&mut ports[0]).len(), 8);
    assert_eq!(answers(&mut ports[1]), ["durable b 3"]);
    let tally = writer.health().tally();
    assert_eq!((tally.commits, tally.messages), (2, 12));
    assert!(tally.bytes > 0);
}

#[test]
fn a_commit_is_bounded_and_takes_from_all_shards_in_turn() {
    let watched = Watched::default();
    let (mut writer, mut ports) = writer(&watched, 2);
    let each = STORE_COMMIT_MESSAGES_MAX as u64 / 4;
    for (port, name) in ports.iter_mut().zip(["a", "b"]) {
        for part in 0..4 {
            port.send(store(name, part * each + 1..=(part + 1) * each)).unwrap();
        }
    }
    assert_eq!(writer.turn(roomcast::clock::now()), Next::Again);
    let max = STORE_COMMIT_MESSAGES_MAX;
    assert_eq!(watched.with(|watch| watch.commits.clone()), [max]);
    let half = (1..=2).map(|part| part * each);
    assert_eq!(answers(&mut ports[0]), half.clone().map(|n| format!("durable a {n}")).collect::<Vec<_>>());
    assert_eq!(answers(&mut ports[1]), half.map(|n| format!("durable b {n}")).collect::<Vec<_>>());
    writer.turn(roomcast::clock::now());
    assert_eq!(watched.with(|watch| watch.commits.clone()), [max, max]);
}

#[test]
fn a_shard_s_requests_are_done_and_answered_in_order() {
    let watched = Watched::default();
    let (mut writer, mut ports) = writer(&watched, 1);
    let requests = [load("a"), store("a", 1..=2), load("a"), page("a", 0), store("a", 3..=3), page("a", 0)];
    for request in requests {
        ports[0].send(request).unwrap();
    }
    while writer.turn(roomcast::clock::now()) == Next::Again {}
    let expected = ["loaded a 0", "durable a 2", "loaded a 2", "paged a 2", "durable a 3", "paged a 3"];
    assert_eq!(answers(&mut ports[0]), expected);
}

#[test]
fn reads_of_one_shard_leave_room_for_the_appends_of_another() {
    let watched = Watched::default();
    let (mut writer, mut ports) = writer(&watched, 2);
    for _ in 0..2 * STORE_TURN_READS_MAX {
        ports[0].send(load("a")).unwrap();
    }
    ports[1].send(store("b", 1..=1)).unwrap();
    writer.turn(roomcast::clock::now());
    assert_eq!(answers(&mut ports[0]).len(), STORE_TURN_READS_MAX);
    assert_eq!(answers(&mut ports[1]), ["durable b 1"]);
    while writer.turn(roomcast::clock::now()) == Next::Again {}
    assert_eq!(answers(&mut ports[0]).len(), STORE_TURN_READS_MAX);
}

#[test]
fn a_shard_that_asks_too_much_at_once_is_told_so() {
    let watched = Watched::default();
    let (mut writer, mut ports) = writer(&watched, 1);
    for _ in 0..STORE_WAITING_MAX {
        ports[0].send(load("a")).unwrap();
    }
    assert_eq!(ports[0].send(load("a")).unwrap_err().1, StoreError::Busy);
    while writer.turn(roomcast::clock::now()) == Next::Again {}
    assert_eq!(ports[0].send(load("a")).unwrap_err().1, StoreError::Busy, "the answers have not been taken");
    ports[0].next_answer().unwrap();
    ports[0].send(load("a")).unwrap();
    while writer.turn(roomcast::clock::now()) == Next::Again {}
    assert_eq!(answers(&mut ports[0]).len(), STORE_WAITING_MAX);
}

#[test]
fn after_a_failure_all_that_waits_fails_until_it_is_open_again() {
    let watched = Watched::default();
    let (mut writer, mut ports) = writer(&watched, 2);
    let mut now = roomcast::clock::now();
    watched.with(|watch| {
        watch.fail_next_write = true;
        // The one at once, for a proof, and the one after the first pause.
        watch.reopenings_that_fail = 2;
    });
    ports[0].send(store("a", 1..=1)).unwrap();
    ports[0].send(load("a")).unwrap();
    ports[1].send(store("b", 1..=1)).unwrap();
    ports[1].send(load("b")).unwrap();
    assert_eq!(writer.turn(now), Next::At(now.instant + STORE_REOPEN_PAUSE_MIN));
    let mut heard = answers(&mut ports[0]);
    heard.extend(answers(&mut ports[1]));
    let failed = [
        "failed a append Failing",
        "failed a load Failing",
        "failed b append Failing",
        "failed b load Failing",
    ];
    assert_eq!(heard, failed);
    let trouble = writer.health().trouble().unwrap();
    assert_eq!(
        (trouble.since.unix_ms / 60_000, trouble.why.as_str()),
        (roomcast::clock::now().unix_ms / 60_000, "as told")
    );

    ports[0].send(load("a")).unwrap();
    writer.turn(now);
    assert_eq!(answers(&mut ports[0]), ["failed a load Failing"], "at once, not when it is open again");
    now = now.later(STORE_REOPEN_PAUSE_MIN);
    assert!(matches!(writer.turn(now), Next::At(at) if at >= now.instant + 2 * STORE_REOPEN_PAUSE_MIN));
    assert!(writer.health().trouble().is_some());
    now = now.later(STORE_REOPEN_PAUSE_MAX);
    assert_eq!(writer.turn(now), Next::Again);
    assert!(writer.health().trouble().is_some(), "a full disk can be opened, but not written");
    ports[0].send(store("a", 1..=1)).unwrap();
    writer.turn(now);
    assert_eq!(answers(&mut ports[0]), ["durable a 1"]);
    assert!(writer.health().trouble().is_none());
    let tally = writer.health().tally();
    assert_eq!((tally.failures, tally.reopenings), (3, 1));
}

#[test]
fn a_full_disk_that_nobody_writes_to_is_not_well_before_a_proof_is_synced() {
    // Hours of a full disk: a pause that doubled for ever would pass what a time can hold.
    const FAILURES: usize = 100;
    let watched = Watched::default();
    let (mut writer, mut ports) = writer(&watched, 1);
    let mut now = roomcast::clock::now();
    watched.with(|watch| {
        watch.fault = Some(FaultOf::FullDisk);
        watch.fail_next_write = true;
        watch.proofs_that_fail = FAILURES;
    });
    ports[0].send(store("a", 1..=1)).unwrap();
    let mut pauses = Vec::new();
    let mut read = Vec::new();
    for _ in 0..10 * FAILURES {
        let tried = watched.with(|watch| watch.proofs.len());
        let next = writer.turn(now);
        if watched.with(|watch| watch.proofs.len()) > tried {
            pauses.push(now.instant);
            let is_well = watched.with(|watch| watch.proofs.len()) > FAILURES;
            assert_eq!(writer.health().trouble().is_none(), is_well);
            // The disk is full, and can be read all the same.
            ports[0].send(load("a")).unwrap();
            writer.turn(now);
            read.extend(answers(&mut ports[0]));
        }
        if let Next::At(at) = next {
            now = now.later(at.saturating_duration_since(now.instant));
        }
    }
    assert_eq!(watched.with(|watch| watch.proofs.clone()), [STORE_PROOF_BYTES; FAILURES + 1]);
    assert!(pauses.windows(2).all(|pair| pair[1] - pair[0] <= STORE_REOPEN_PAUSE_MAX), "{pauses:?}");
    assert_eq!(read.iter().filter(|answer| *answer == "loaded a 0").count(), FAILURES + 1, "{read:?}");
}

#[test]
fn a_purge_or_a_proof_that_fails_costs_no_append_of_the_queue() {
    let watched = Watched::default();
    let (mut writer, mut ports) = writer(&watched, 1);
    let mut now = roomcast::clock::now();
    watched.with(|watch| {
        watch.purges_that_fail = 3;
        watch.proofs_that_fail = 3;
    });
    for offset in 1..=40 {
        ports[0].send(store("a", offset..=offset)).unwrap();
        writer.turn(now);
        assert_eq!(answers(&mut ports[0]), [format!("durable a {offset}")]);
        now = now.later(STORE_PURGE_INTERVAL / 2);
    }
    assert!(watched.with(|watch| watch.purges_that_fail + watch.proofs_that_fail) == 0);
    assert!(writer.health().trouble().is_none());
}

#[test]
fn damage_asks_for_no_proof_of_the_disk() {
    let watched = Watched::default();
    let (mut writer, mut ports) = writer(&watched, 1);
    let mut now = roomcast::clock::now();
    watched.with(|watch| {
        watch.fault = Some(FaultOf::Pages);
        watch.purges_that_fail = 1;
    });
    while writer.turn(now) == Next::Again {}
    watched.with(|watch| watch.fail_next_write = true);
    ports[0].send(StoreRequest::Forget { room: room("a"), life: 1 }).unwrap();
    now = now.later(STORE_PURGE_INTERVAL);
    while writer.turn(now) == Next::Again {}
    assert_eq!(answers(&mut ports[0]), ["failed a forget Failing"]);
    assert_eq!(writer.health().tally().reopenings, 2);
    assert!(watched.with(|watch| watch.proofs.is_empty()));
    // A disk at fault has to prove itself, and then the store goes on: nothing else fails.
    watched.with(|watch| {
        watch.fault = None;
        watch.fail_next_write = true;
    });
    ports[0].send(StoreRequest::Forget { room: room("a"), life: 1 }).unwrap();
    ports[0].send(load("b")).unwrap();
    while writer.turn(now) == Next::Again {}
    assert_eq!(answers(&mut ports[0]), ["failed a forget Failing", "loaded b 0"]);
    assert_eq!(watched.with(|watch| watch.proofs.clone()), [STORE_PROOF_BYTES]);
    assert!(writer.health().trouble().is_none());
}

#[test]
fn a_stream_that_was_removed_is_aside_for_no_sort_of_call() {
    let watched = Watched::default();
    let (mut writer, mut ports) = writer(&watched, 1);
    let now = roomcast::clock::now();
    watched.with(|watch| watch.unreadable.insert(room("a")));
    for _ in 0..STORE_ASIDE_AFTER {
        ports[0].send(load("a")).unwrap();
        ports[0].send(page("a", 0)).unwrap();
    }
    while writer.turn(now) == Next::Again {}
    assert_eq!(writer.health().rooms_aside().len(), 1);
    ports[0].send(StoreRequest::Forget { room: room("a"), life: 1 }).unwrap();
    while writer.turn(now) == Next::Again {}
    assert!(writer.health().rooms_aside().is_empty());
}

#[test]
fn a_failed_read_answers_that_request_alone() {
    let watched = Watched::default();
    let (mut writer, mut ports) = writer(&watched, 2);
    let now = roomcast::clock::now();
    watched.with(|watch| watch.unreadable.insert(room("a")));
    ports[0].send(load("a")).unwrap();
    ports[0].send(store("b", 1..=1)).unwrap();
    ports[0].send(page("a", 3)).unwrap();
    ports[1].send(load("c")).unwrap();
    ports[1].send(store("c", 1..=2)).unwrap();
    while writer.turn(now) == Next::Again {}
    let heard = ["failed a load Failing", "failed a page Failing", "durable b 1"];
    assert_eq!(answers(&mut ports[0]), heard);
    assert_eq!(answers(&mut ports[1]), ["loaded c 0", "durable c 2"]);
    assert_eq!(writer.health().trouble(), None, "the store is well");
    let tally = writer.health().tally();
    assert_eq!((tally.reads_failed, tally.failures, tally.reopenings), (2, 0, 0));
}

#[test]
fn a_room_that_can_not_be_read_is_put_aside_and_tried_again_after_a_pause() {
    let watched = Watched::default();
    let (mut writer, mut ports) = writer(&watched, 1);
    let now = roomcast::clock::now();
    watched.with(|watch| watch.unreadable.insert(room("a")));
    let mut ask = |now| {
        ports[0].send(load("a")).unwrap();
        ports[0].send(load("b")).unwrap();
        while writer.turn(now) == Next::Again {}
        let aside: Vec<_> =
            writer.health().rooms_aside().iter().map(|aside| aside.room.to_string()).collect();
        (answers(&mut ports[0]), aside, watched.with(|watch| std::mem::take(&mut watch.reads)))
    };
    let failed = ["failed a load Failing".to_owned(), "loaded b 0".to_owned()];
    for number in 1..=STORE_ASIDE_AFTER {
        let aside = if number == STORE_ASIDE_AFTER { vec!["a".to_owned()] } else { Vec::new() };
        assert_eq!(ask(now), (failed.to_vec(), aside, 2));
    }
    assert_eq!(ask(now), (failed.to_vec(), vec!["a".to_owned()], 1), "a is not read");
    let later = now.later(STORE_ASIDE_PAUSE_MIN);
    assert_eq!(ask(later), (failed.to_vec(), vec!["a".to_owned()], 2));
    watched.with(|watch| watch.unreadable.clear());
    let later = later.later(2 * STORE_ASIDE_PAUSE_MIN);
    assert_eq!(ask(later), (vec!["loaded a 0".to_owned(), "loaded b 0".to_owned()], Vec::new(), 2));
}

#[test]
fn the_clocks_are_written_once_a_minute_while_messages_are_stored_and_after_a_step_of_the_wall_clock() {
    let watched = Watched::default();
    let (mut writer, mut ports) = writer(&watched, 1);
    let now = roomcast::clock::now();
    let proofs = |writer: &mut Writer, now: Now| {
        while writer.turn(now) == Next::Again {}
        watched.with(|watch| std::mem::take(&mut watch.proofs))
    };
    let later = |seconds| now.later(Duration::from_secs(seconds));
    assert!(proofs(&mut writer, later(STORE_CLOCK_INTERVAL.as_secs())).is_empty(), "nothing is stored");
    let stored = now.later(2 * STORE_CLOCK_INTERVAL);
    ports[0].send(store("a", 1..=1)).unwrap();
    assert!(proofs(&mut writer, stored).is_empty(), "the commit has written them");
    assert!(proofs(&mut writer, stored.later(STORE_CLOCK_INTERVAL / 2)).is_empty());
    assert_eq!(proofs(&mut writer, stored.later(STORE_CLOCK_INTERVAL)), [0]);
    let stepped = stored.later(STORE_CLOCK_INTERVAL * 3 / 2);
    let stepped = Now { unix_ms: stepped.unix_ms + 3_600_000, ..stepped };
    assert_eq!(proofs(&mut writer, stepped), [0]);
    assert!(proofs(&mut writer, stepped.later(STORE_CLOCK_INTERVAL / 2)).is_empty());
}

#[test]
fn appends_behind_one_that_failed_fail_even_if_they_would_fit() {
    let watched = Watched::default();
    let (mut writer, mut ports) = writer(&watched, 1);
    let mut now = roomcast::clock::now();
    watched.with(|watch| watch.fail_after_storing = true);
    ports[0].send(store("a", 1..=1)).unwrap();
    writer.turn(now);
    now = now.later(STORE_REOPEN_PAUSE_MIN);
    writer.turn(now);
    // The append was sent before the shard took the failure, so its room believes 1 to be under way.
    ports[0].send(store("a", 2..=2)).unwrap();
    ports[0].send(store("b", 1..=1)).unwrap();
    writer.turn(now);
    let heard = ["failed a append Failing", "failed a append Failing", "durable b 1"];
    assert_eq!(answers(&mut ports[0]), heard);
    // Another life loads first, and so knows that 1 is stored.
    ports[0].send(StoreRequest::Append(Append { life: 2, ..append("a", 2..=2) })).unwrap();
    writer.turn(now);
    assert_eq!(answers(&mut ports[0]), ["durable a 2"]);
}

#[test]
fn a_refused_append_fails_the_rest_of_its_life_alone() {
    let watched = Watched::default();
    let (mut writer, mut ports) = writer(&watched, 1);
    let now = roomcast::clock::now();
    ports[0].send(store("a", 1..=3)).unwrap();
    writer.turn(now);
    ports[0].send(store("a", 3..=3)).unwrap();
    writer.turn(now);
    ports[0].send(store("a", 4..=4)).unwrap();
    ports[0].send(store("b", 1..=1)).unwrap();
    writer.turn(now);
    let heard = ["durable a 3", "failed a append Moved", "failed a append Moved", "durable b 1"];
    assert_eq!(answers(&mut ports[0]), heard);
}

#[test]
fn a_stream_is_forgotten_behind_its_own_appends_and_before_its_next_life() {
    let watched = Watched::default();
    let (mut writer, mut ports) = writer(&watched, 1);
    let now = roomcast::clock::now();
    ports[0].send(store("a", 1..=3)).unwrap();
    ports[0].send(StoreRequest::Forget { room: room("a"), life: 1 }).unwrap();
    ports[0].send(load("a")).unwrap();
    ports[0].send(StoreRequest::Append(Append { life: 2, ..append("a", 1..=1) })).unwrap();
    for _ in 0..4 {
        writer.turn(now);
    }
    assert_eq!(answers(&mut ports[0]), ["durable a 3", "forgotten a true", "loaded a 0", "durable a 1"]);
}

#[test]
fn a_panic_of_the_store_is_a_failure_of_the_store() {
    let watched = Watched::default();
    let (mut writer, mut ports) = writer(&watched, 1);
    let now = roomcast::clock::now();
    watched.with(|watch| watch.panic_next = true);
    ports[0].send(store("a", 1..=1)).unwrap();
    writer.turn(now);
    assert_eq!(answers(&mut ports[0]), ["failed a append Failing"]);
    writer.turn(now.later(STORE_REOPEN_PAUSE_MIN));
    ports[0].send(StoreRequest::Append(Append { life: 2, ..append("a", 1..=1) })).unwrap();
    writer.turn(now);
    assert_eq!(answers(&mut ports[0]), ["durable a 1"]);
}

#[test]
fn a_writer_purges_once_a_second_about_as_much_as_came() {
    let watched = Watched::default();
    let (mut writer, mut ports) = writer(&watched, 1);
    let now = roomcast::clock::now();
    assert_eq!(writer.turn(now), Next::At(now.instant + STORE_PURGE_INTERVAL));
    assert_eq!(writer.turn(now), Next::At(now.instant + STORE_PURGE_INTERVAL));
    let now = now.later(STORE_PURGE_INTERVAL);
    ports[0].send(store("a", 1..=100)).unwrap();
    writer.turn(now);
    let purges = watched.with(|watch| watch.purges.clone());
    assert_eq!(purges, [STORE_PURGE_ROWS_MIN, 200], "twice what came");
}

#[test]
fn the_purge_is_held_for_minutes_after_a_start_with_a_doubtful_wall_clock() {
    let now = roomcast::clock::now();
    let noted = |unix_ms| {
        let stamp = Stamp { store_ms: unix_ms, wall_ms: unix_ms };
        StoreNow { instant: now.instant, stamp, noted: stamp }
    };
    for (wall_ms, is_held) in [
        (now.unix_ms - 60_000, false),
        (now.unix_ms + 60_000, true),
        (now.unix_ms - 2 * u64::try_from(STORE_AWAY_MAX.as_millis()).unwrap(), true),
    ] {
        let watched = Watched::default();
        watched.with(|watch| watch.memory.append(&[append("a", 1..=1)], noted(wall_ms))).unwrap();
        let (mut writer, _ports) = writer(&watched, 1);
        let mut purges = |now| {
            while writer.turn(now) == Next::Again {}
            watched.with(|watch| watch.purges.len())
        };
        assert_eq!(purges(now) > 0, !is_held, "{wall_ms}");
        assert_eq!(purges(now.later(STORE_PURGE_HOLD / 2)) > 0, !is_held);
        assert!(purges(now.later(STORE_PURGE_HOLD + Duration::from_secs(5))) > 0);
    }
}

#[test]
fn a_wrong_wall_clock_at_a_start_costs_no_message_after_the_next_start() {
    let disk = Disk::default();
    let right = roomcast::clock::now();
    let start = |now| Writer::new(Box::new(disk.store().unwrap()), vec![Box::new(|| {})], now);
    let append_at = |writer: &mut Writer, name: &str, now: Now| {
        let mut port = writer.ports().pop().unwrap();
        let append = Append { accepted: now.instant, ..append(name, 1..=1) };
        port.send(StoreRequest::Append(append)).unwrap();
        while writer.turn(now) == Next::Again {}
        assert_eq!(answers(&mut port), [format!("durable {name} 1")]);
    };
    append_at(&mut start(right), "a", right);
    let wrong = Now { unix_ms: right.unix_ms + 30 * 86_400_000, ..right };
    for minute in 1..=3 {
        let now = wrong.later(Duration::from_secs(60 * minute));
        let mut writer = start(now);
        let room = format!("b{minute}");
        append_at(&mut writer, &room, now);
        while writer.turn(now.later(STORE_PURGE_HOLD / 2)) == Next::Again {}
        assert_eq!(writer.health().tally().purged, 0, "held after start {minute}");
    }
    let now = right.later(Duration::from_secs(300));
    let mut writer = start(now);
    while writer.turn(now) == Next::Again {}
    let mut port = writer.ports().pop().unwrap();
    port.send(load("a")).unwrap();
    while writer.turn(now) == Next::Again {}
    let Some(StoreAnswer::Loaded { stream: Some(stream), .. }) = port.next_answer() else { panic!("loaded") };
    let left = stream.records[0].expires.saturating_duration_since(now.instant);
    assert!((295..=300).contains(&left.as_secs()), "{left:?}");
    while writer.turn(now.later(Duration::from_secs(200))) == Next::Again {}
    assert_eq!(writer.health().tally().purged, 0);
}

#[test]
fn a_backlog_of_expired_rows_goes_turn_after_turn_with_appends_in_between() {
    let watched = Watched::default();
    let (mut writer, mut ports) = writer(&watched, 1);
    let rows = 3 * STORE_PURGE_ROWS_MIN as u64;
    let began = roomcast::clock::now();
    let stamp = Stamp { store_ms: began.unix_ms, wall_ms: began.unix_ms };
    let then = StoreNow { instant: began.instant, stamp, noted: stamp };
    watched.with(|watch| watch.memory.append(&[append("old", 1..=rows)], then)).unwrap();
    let now = roomcast::clock::now().later(Duration::from_secs(1000));
    for offset in 1..=3 {
        ports[0].send(store("a", offset..=offset)).unwrap();
        assert_eq!(writer.turn(now), Next::Again);
        assert_eq!(answers(&mut ports[0]), [format!("durable a {offset}")]);
    }
    while writer.turn(now) == Next::Again {}
    assert_eq!(writer.health().tally().purged, rows + 3, "those of room a are as old");
    assert_eq!(writer.health().tally().bytes, 0);
}

/// A thread's writer over `store`; each wake of its one shard is an entry of the channel.
fn started(store: Box<dyn Store>) -> (roomcast::store::writer::StoreHandle, Port, Receiver<()>) {
    let (woken, wakes) = channel();
    let mut handle = start(store, vec![Box::new(move || woken.send(()).unwrap_or_default())]).unwrap();
    let port = handle.ports.pop().unwrap();
    (handle, port, wakes)
}

/// Waits for the next answer.
#[track_caller]
fn next(port: &mut Port, wakes: &Receiver<()>) -> StoreAnswer {
    loop {
        if let Some(answer) = port.next_answer() {
            return answer;
        }
        wakes.recv_timeout(Duration::from_secs(20)).expect("an answer wakes its shard");
    }
}

#[test]
fn no_wake_up_is_lost_between_two_threads() {
    let (handle, mut port, wakes) = started(Box::new(Memory::default()));
    // The appends come singly, so that each finds the writer about to sleep, asleep, or on its way.
    for offset in 1..=20_000 {
        port.send(store("a", offset..=offset)).unwrap();
        assert_eq!(short(&next(&mut port, &wakes)), format!("durable a {offset}"));
    }
    drop(handle);
}

#[test]
fn what_was_sent_before_the_stop_is_durable_and_answered() {
    let store_in_file = Disk::default();
    let (handle, mut port, _wakes) = started(Box::new(store_in_file.store().unwrap()));
    for offset in 1..=500 {
        port.send(store("a", offset..=offset)).unwrap();
    }
    drop(handle);
    let expected: Vec<_> = (1..=500).map(|offset| format!("durable a {offset}")).collect();
    assert_eq!(answers(&mut port), expected);
    let mut again = store_in_file.after_power_loss().store().unwrap();
    assert_eq!(super::offsets(&mut again, "a"), (1..=500).collect::<Vec<_>>());
}

#[test]
fn a_purge_that_never_ends_does_not_hold_the_stop() {
    let watched = Watched::default();
    watched.with(|watch| watch.has_endless_purges = true);
    let (handle, mut port, _wakes) = started(Box::new(watched));
    port.send(store("a", 1..=1)).unwrap();
    let (ended, end) = channel();
    std::thread::spawn(move || {
        drop(handle);
        ended.send(()).unwrap_or_default();
    });
    end.recv_timeout(Duration::from_secs(20)).expect("the stop ends");
    assert_eq!(answers(&mut port), ["durable a 1"]);
}

#[test]
fn a_disk_that_hangs_shows_while_it_hangs() {
    let disk = Disk::default();
    let (handle, mut port, wakes) = started(Box::new(disk.store().unwrap()));
    let health = Arc::clone(&handle.health);
    disk.fail(Some(Fault { after: 0, times: 1, kind: FaultKind::Freeze }));
    port.send(store("a", 1..=1)).unwrap();
    disk.wait_until_frozen();
    assert!(health.under_way(roomcast::clock::now().later(Duration::from_secs(1))) >= Duration::from_secs(1));
    assert!(port.next_answer().is_none());
    disk.thaw();
    assert_eq!(short(&next(&mut port, &wakes)), "failed a append Failing");
    port.send(load("a")).unwrap();
    next(&mut port, &wakes);
    drop(handle);
}
