//! One room's trouble stays its own: damaged pages, a large room, a commit that hangs, and a purge over damaged
//! pages.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use roomcast::store::memory::Memory;
use roomcast::store::port::Port;
use roomcast::store::redb::Redb;
use roomcast::store::writer::{Next, StoreHandle, Writer, start};
use roomcast::store::{Append, Store, StoreAnswer, StoreRequest};
use roomcast_core::limits::{
    STORE_ASIDE_AFTER, STORE_ASIDE_LISTED_MAX, STORE_ASIDE_PAUSE_MIN, STORE_COMMITS_FAILED_MAX,
    STORE_PURGE_INTERVAL, STORE_PURGE_PUT_OFF,
};
use roomcast_core::now::Now;
use roomcast_core::room::message::Message;

use super::disk::{Disk, Fault, FaultKind};
use super::{AT_MS, AtThatTime, EPOCH, append, at, message, room};

/// The size of a page of redb.
const PAGE: usize = 4096;
/// The first byte of a leaf page.
const LEAF: u8 = 1;

/// A threaded store with a single shard.
struct Running {
    port: Port,
    wakes: Receiver<()>,
    handle: StoreHandle,
}

impl Running {
    fn over(store: Box<dyn Store>) -> Self {
        let (woken, wakes) = channel();
        let mut handle = start(store, vec![Box::new(move || woken.send(()).unwrap_or_default())]).unwrap();
        Self { port: handle.ports.pop().unwrap(), wakes, handle }
    }

    fn send(&mut self, request: StoreRequest) {
        self.port.send(request).unwrap();
    }

    #[track_caller]
    fn next(&mut self) -> StoreAnswer {
        loop {
            if let Some(answer) = self.port.next_answer() {
                return answer;
            }
            self.wakes.recv_timeout(Duration::from_secs(20)).expect("an answer wakes its shard");
        }
    }

    /// True if the room's next coupon is durable.
    fn publish(&mut self, name: &str, offset: u64) -> bool {
        self.send(StoreRequest::Append(Append {
            accepted: roomcast::clock::now().instant,
            ..append(name, offset..=offset)
        }));
        matches!(self.next(), StoreAnswer::Durable { .. })
    }

    /// True if the room is loaded.
    fn load(&mut self, name: &str) -> bool {
        self.send(StoreRequest::Load { room: room(name), life: 1, whole_after: u64::MAX });
        matches!(self.next(), StoreAnswer::Loaded { stream: Some(_), .. })
    }
}

/// An open store with these messages. On each leaf page with messages of room a from this range alone, the bit
/// that says leaf or branch is turned.
fn damaged(appends: &[Append], range: RangeInclusive<u64>) -> Redb {
    let disk = Disk::default();
    // A build with debug assertions of redb looks at all pages as it opens a file: they turn afterwards.
    let mut store = disk.store_without_cache().unwrap();
    store.put(appends).unwrap();
    let bytes = disk.bytes();
    let pages = (0..bytes.len() / PAGE).filter(|page| {
        let page = &bytes[page * PAGE..(page + 1) * PAGE];
        let text = String::from_utf8_lossy(page);
        let mut offsets = text.split("id-").skip(1).map(|id| {
            let digits: String = id.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u64>().unwrap()
        });
        page[0] == LEAF
            && text.contains("id-")
            && !text.contains("b 1 ")
            && offsets.all(|id| range.contains(&id))
    });
    let pages: Vec<usize> = pages.collect();
    assert!(pages.len() > 20, "{pages:?}");
    pages.iter().for_each(|page| disk.turn(page * PAGE, 0b100));
    store
}

#[test]
fn the_damaged_pages_of_one_room_cost_another_room_no_publish() {
    let store = damaged(&[append("a", 1..=1000), append("b", 1..=10)], 1..=1000);
    let mut store = Running::over(Box::new(store));
    let health = Arc::clone(&store.handle.health);
    assert!(store.load("b"));
    for offset in 11..=50 {
        // A device in room a asks for the room's stream again and again.
        assert!(!store.load("a"));
        assert!(store.publish("b", offset), "coupon {offset} of room b");
    }
    assert_eq!(health.trouble(), None);
    let aside = health.rooms_aside();
    assert_eq!(aside.iter().map(|aside| aside.room.as_str()).collect::<Vec<_>>(), ["a"]);
    assert!(aside[0].why.contains("damaged") || aside[0].why.contains("orrupt"), "{}", aside[0].why);
    let failed = health.tally().reads_failed;
    assert!((STORE_ASIDE_AFTER.into()..10).contains(&failed), "{failed}: then it is left alone");
    drop(store);
}

/// The answers to the appends of one turn: the names of the rooms whose append is durable, and of the others.
fn append_at_once(writer: &mut Writer, port: &mut Port, appends: Vec<Append>, now: Now) -> [Vec<String>; 2] {
    let sent = appends.len();
    appends.into_iter().for_each(|append| port.send(StoreRequest::Append(append)).unwrap());
    writer.turn(now);
    let mut heard = [Vec::new(), Vec::new()];
    for _ in 0..sent {
        match port.next_answer().expect("every append is answered in its turn") {
            StoreAnswer::Durable { room, .. } => heard[0].push(room.to_string()),
            StoreAnswer::Failed { room, .. } => heard[1].push(room.to_string()),
            other => panic!("{other:?}"),
        }
    }
    heard
}

#[test]
fn an_append_into_a_damaged_page_costs_the_commit_of_no_other_room() {
    // The last page of room z, into which the next message of the room goes, is damaged.
    let store = damaged(&[append("b", 1..=10), append("z", 1..=1000)], 1..=1000);
    let mut now = roomcast::clock::now();
    let mut writer = Writer::new(Box::new(store), vec![Box::new(|| {})], now);
    let mut port = writer.ports().pop().unwrap();
    let others: Vec<String> = (0..100).map(|number| format!("c{number:02}")).collect();
    for turn in 1..=u64::from(STORE_ASIDE_AFTER) {
        let mut appends = vec![Append { life: turn, ..append("z", 1001..=1001) }];
        appends.push(append("b", 10 + turn..=10 + turn));
        appends.extend(others.iter().map(|name| append(name, turn..=turn)));
        let before = writer.health().tally();
        let [durable, failed] = append_at_once(&mut writer, &mut port, appends, now);
        assert_eq!((durable.len(), failed.as_slice()), (101, &["z".to_owned()][..]));
        let tally = writer.health().tally();
        let reopenings = tally.reopenings - before.reopenings;
        // The first commit is halved until room z stands alone. Later ones are without room z.
        assert!(reopenings <= if turn == 1 { 8 } else { 1 }, "{reopenings} in turn {turn}");
        assert_eq!((tally.failures, tally.writes_failed), (0, turn));
        assert_eq!(writer.health().trouble(), None);
    }
    let aside =
        || writer.health().rooms_aside().iter().map(|aside| aside.room.to_string()).collect::<Vec<_>>();
    assert_eq!(aside(), ["z"]);
    let tally = writer.health().tally();
    let appends = vec![Append { life: 9, ..append("z", 1001..=1001) }, append("b", 14..=14)];
    let heard = append_at_once(&mut writer, &mut port, appends, now);
    assert_eq!(heard, [vec!["b".to_owned()], vec!["z".to_owned()]]);
    assert_eq!(writer.health().tally().reopenings, tally.reopenings, "a room aside is left alone");
    now = now.later(STORE_ASIDE_PAUSE_MIN);
    let appends = vec![Append { life: 10, ..append("z", 1001..=1001) }, append("b", 15..=15)];
    append_at_once(&mut writer, &mut port, appends, now);
    assert_eq!(writer.health().tally().writes_failed, tally.writes_failed + 1, "and tried after a pause");
}

#[test]
fn a_recall_of_a_message_on_a_damaged_page_costs_no_other_room_a_publish() {
    let store = damaged(&[append("a", 1..=1000), append("b", 1..=10)], 1..=800);
    let now = roomcast::clock::now();
    let mut writer = Writer::new(Box::new(store), vec![Box::new(|| {})], now);
    let mut port = writer.ports().pop().unwrap();
    let recall = Message { recall: 400, ..Message::clone(&message(&room("a"), 1001, 600)) };
    let recall = Append { messages: vec![Arc::new(recall)], ..append("a", 1..=1) };
    // The recall is stored without a mark on the recalled row.
    let heard = append_at_once(&mut writer, &mut port, vec![recall, append("b", 11..=11)], now);
    assert_eq!(heard, [vec!["a".to_owned(), "b".to_owned()], Vec::new()]);
    assert_eq!(writer.health().tally().reopenings, 0);
    let appends = vec![append("a", 1002..=1002), append("b", 12..=12)];
    let heard = append_at_once(&mut writer, &mut port, appends, now);
    assert_eq!(heard, [vec!["a".to_owned(), "b".to_owned()], Vec::new()]);
    assert_eq!(writer.health().trouble(), None);
}

#[test]
fn the_bad_sector_of_one_room_fails_the_reads_of_no_other_room() {
    let disk = Disk::default();
    let mut store = disk.store_without_cache().unwrap();
    let rooms = ["b", "c", "d", "e"];
    let mut appends = vec![append("a", 1..=1000)];
    appends.extend(rooms.map(|name| append(name, 1..=100)));
    store.put(&appends).unwrap();
    let bytes = disk.bytes();
    let payload = message(&room("a"), 500, 600).payload.bytes().clone();
    let place = (0..bytes.len()).find(|at| bytes[*at..].starts_with(&payload)).unwrap();
    let mut store = Running::over(Box::new(store));
    let health = Arc::clone(&store.handle.health);
    assert!(store.publish("e", 101), "the writer's first turn is over");
    disk.fail_reads(Some(place..place + 1));
    let mut failed = 0;
    for offset in 102..=121 {
        for name in ["a"].into_iter().chain(rooms) {
            store.send(StoreRequest::Load { room: room(name), life: 1, whole_after: u64::MAX });
        }
        store.send(StoreRequest::Append(append("e", offset..=offset)));
        for _ in 0..6 {
            match store.next() {
                StoreAnswer::Failed { room, .. } => {
                    assert_eq!(room.as_str(), "a");
                    failed += 1;
                }
                StoreAnswer::Loaded { .. } | StoreAnswer::Durable { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(failed, 20, "room a can't be read");
    let aside = health.rooms_aside();
    assert_eq!(aside.iter().map(|aside| aside.room.as_str()).collect::<Vec<_>>(), ["a"]);
    drop(store);
}

/// An open store with these messages, on a disk with a bad sector under a row of room a.
fn with_bad_sector(appends: &[Append], offset: u64) -> (Disk, Redb) {
    let disk = Disk::default();
    let mut store = disk.store_without_cache().unwrap();
    store.put(appends).unwrap();
    let bytes = disk.bytes();
    let payload = message(&room("a"), offset, 600).payload.bytes().clone();
    let place = (0..bytes.len()).find(|at| bytes[*at..].starts_with(&payload)).unwrap();
    disk.fail_reads(Some(place..place + 1));
    (disk, store)
}

#[test]
fn a_publish_onto_a_bad_sector_fails_alone() {
    let (_disk, store) = with_bad_sector(&[append("a", 1..=1000), append("b", 1..=100)], 1000);
    let now = roomcast::clock::now();
    let mut writer = Writer::new(Box::new(store), vec![Box::new(|| {})], now);
    let mut port = writer.ports().pop().unwrap();
    for turn in 1..=u64::from(STORE_ASIDE_AFTER) {
        let appends = vec![
            Append { life: turn, ..append("a", 1001..=1001) },
            append("c", turn..=turn),
            append("d", turn..=turn),
        ];
        let heard = append_at_once(&mut writer, &mut port, appends, now);
        assert_eq!(heard, [vec!["c".to_owned(), "d".to_owned()], vec!["a".to_owned()]], "turn {turn}");
        assert_eq!(writer.health().trouble(), None);
    }
    let aside = writer.health().rooms_aside();
    assert_eq!(aside.iter().map(|aside| aside.room.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(writer.health().tally().failures, 0);
}

#[test]
fn a_recall_of_a_message_on_a_bad_sector_is_stored_at_the_second_try() {
    let (_disk, store) = with_bad_sector(&[append("a", 1..=1000), append("b", 1..=10)], 400);
    let now = roomcast::clock::now();
    let mut writer = Writer::new(Box::new(store), vec![Box::new(|| {})], now);
    let mut port = writer.ports().pop().unwrap();
    let recall = Message { recall: 400, ..Message::clone(&message(&room("a"), 1001, 600)) };
    let recall = |life| Append { life, messages: vec![Arc::new(recall.clone())], ..append("a", 1..=1) };
    let heard = append_at_once(&mut writer, &mut port, vec![recall(1), append("b", 11..=11)], now);
    assert_eq!(heard, [vec!["a".to_owned(), "b".to_owned()], Vec::new()], "the halves are the second try");
    assert_eq!((writer.health().trouble(), writer.health().tally().reopenings), (None, 1));
}

#[test]
fn a_purge_over_a_bad_sector_removes_what_it_can_and_stops_no_append() {
    let (_disk, store) = with_bad_sector(&[append("a", 1..=1000), append("b", 1..=10)], 500);
    let mut now = roomcast::clock::now();
    let mut writer = Writer::new(Box::new(store), vec![Box::new(|| {})], now);
    let mut port = writer.ports().pop().unwrap();
    now = now.later(Duration::from_secs(700));
    let mut at_once = 0;
    for head in 1..=400 {
        let append = Append { accepted: now.instant, ..append("c", head..=head) };
        port.send(StoreRequest::Append(append)).unwrap();
        let before = writer.health().tally().reopenings;
        writer.turn(now);
        let answer = port.next_answer().unwrap();
        assert!(matches!(answer, StoreAnswer::Durable { .. }), "{answer:?}");
        assert_eq!(writer.health().trouble(), None);
        // No request waits: a failed purge has a pause all the same.
        if writer.health().tally().reopenings > before {
            at_once += usize::from(writer.turn(now) == Next::Again);
        }
        now = now.later(10 * STORE_PURGE_INTERVAL);
    }
    assert_eq!(at_once, 0);
    let tally = writer.health().tally();
    assert!(tally.purged >= 900, "{tally:?}");
}

#[test]
fn a_damaged_page_of_the_table_of_rooms_costs_its_rooms_alone() {
    let neighbours: Vec<String> = (0..200).map(|number| format!("n{number:03}")).collect();
    let healthy: Vec<String> = ('a'..='f').chain('w'..='z').map(|letter| format!("{letter}0")).collect();
    let all = || healthy.iter().chain(&neighbours);
    let disk = Disk::default();
    let mut store = disk.store_without_cache().unwrap();
    store.put(&all().map(|name| append(name, 1..=1)).collect::<Vec<_>>()).unwrap();
    let bytes = disk.bytes();
    let is_hit = |page: usize| {
        let page = &bytes[page * PAGE..(page + 1) * PAGE];
        let has = |text: &[u8]| page.windows(text.len()).any(|window| window == text);
        page[0] == LEAF && has(&EPOCH.0.to_le_bytes()) && !has(b"id-1") && has(b"n100")
    };
    let hits: Vec<usize> = (0..bytes.len() / PAGE).filter(|page| is_hit(*page)).collect();
    let page = hits[0];
    let text = String::from_utf8_lossy(&bytes[page * PAGE..(page + 1) * PAGE]).into_owned();
    let damaged: Vec<&String> = neighbours.iter().filter(|name| text.contains(name.as_str())).collect();
    assert!((40..120).contains(&damaged.len()), "{}", damaged.len());
    hits.iter().for_each(|page| disk.turn(page * PAGE, 0b100));
    let mut now = roomcast::clock::now();
    let mut writer = Writer::new(Box::new(store), vec![Box::new(|| {})], now);
    let mut port = writer.ports().pop().unwrap();
    let mut stored = std::collections::BTreeMap::<String, u64>::new();
    let mut life = 0;
    let mut turn = |stored: &mut std::collections::BTreeMap<String, u64>, now: Now| {
        life += 1;
        let next = |name: &String| {
            let offset = stored.get(name).copied().unwrap_or(1) + 1;
            Append { life, ..append(name, offset..=offset) }
        };
        let heard = append_at_once(&mut writer, &mut port, all().map(next).collect(), now);
        heard[0].iter().for_each(|name| *stored.entry(name.clone()).or_insert(1) += 1);
        assert_eq!(writer.health().trouble(), None);
        let hurt = heard[1].iter().filter(|name| !damaged.contains(name)).count();
        (hurt, writer.health().tally())
    };
    // Some turns find out the damaged rooms. Healthy rooms next to these may have to wait meanwhile.
    let mut reopenings = 0;
    for _ in 0..10 {
        let (_, tally) = turn(&mut stored, now);
        // The halves of the shared commit, the parts that are left at the bound, and one room known as damaged.
        assert!(tally.reopenings <= reopenings + STORE_COMMITS_FAILED_MAX as u64 + 12, "{tally:?}");
        reopenings = tally.reopenings;
    }
    let mut aside = 0;
    for number in 0..4 * damaged.len() {
        let before = turn(&mut stored, now).1.reopenings;
        let (hurt, tally) = turn(&mut stored, now);
        assert_eq!(hurt, 0, "turn {number}");
        assert!(tally.reopenings <= before + 1, "one room is tried at a time");
        aside = tally.rooms_aside;
        now = now.later(Duration::from_millis(1));
    }
    assert_eq!(aside, damaged.len() as u64);
    assert_eq!(writer.health().rooms_aside().len(), damaged.len().min(STORE_ASIDE_LISTED_MAX));
}

#[test]
fn a_purge_over_damaged_pages_removes_what_it_can_and_stops_no_append() {
    // The pages beside the damaged ones hold messages that live on: a removal looks at the neighbours as well.
    let living = |offset| message(&room("a"), offset, 100_000);
    let living = Append { messages: (701..=1000).map(living).collect(), ..append("a", 1..=1) };
    let appends = [append("a", 1..=700), living, append("b", 1..=10)];
    let store = damaged(&appends, 1..=800);
    let mut now = roomcast::clock::now();
    let mut writer = Writer::new(Box::new(store), vec![Box::new(|| {})], now);
    let mut port = writer.ports().pop().unwrap();
    now = now.later(Duration::from_secs(700));
    let mut head = 10;
    for _ in 0..300 {
        head += 1;
        let next = Append { accepted: now.instant, ..append("b", head..=head) };
        port.send(StoreRequest::Append(next)).unwrap();
        let next = writer.turn(now);
        let answer = port.next_answer().unwrap();
        assert!(matches!(answer, StoreAnswer::Durable { .. }), "{answer:?}");
        let by =
            if let Next::At(at) = next { at.saturating_duration_since(now.instant) } else { Duration::ZERO };
        now = now.later(by.min(STORE_PURGE_PUT_OFF / 100));
    }
    assert_eq!(writer.health().trouble(), None);
    let tally = writer.health().tally();
    assert!(tally.purged >= 10 && tally.failures == 0, "{tally:?}");
    port.send(StoreRequest::Load { room: room("b"), life: 1, whole_after: 0 }).unwrap();
    writer.turn(now);
    let Some(StoreAnswer::Loaded { stream: Some(stream), .. }) = port.next_answer() else {
        panic!("b is loaded")
    };
    assert!(stream.records[0].offset > 10 && stream.head == head, "those of room b have expired");
}

/// Turns a bit in the number of keys on the pages of the index of expiries with messages of room a from this
/// range alone.
fn damage_expiry(disk: &Disk, range: RangeInclusive<u64>) {
    let bytes = disk.bytes();
    let key = |offset: u64| [&(AT_MS + 600_000).to_be_bytes()[..], &offset.to_be_bytes(), b"a"].concat();
    let others: Vec<_> = (1..=3000).filter(|offset| !range.contains(offset)).map(key).collect();
    let keys: Vec<_> = range.map(key).collect();
    let is_hit = |page: usize| {
        let page = &bytes[page * PAGE..(page + 1) * PAGE];
        page[0] == LEAF
            && page.windows(17).any(|window| keys.iter().any(|key| key == window))
            && !page.windows(17).any(|window| others.iter().any(|key| key == window))
    };
    let hits: Vec<usize> = (0..bytes.len() / PAGE).filter(|page| is_hit(*page)).collect();
    assert!(!hits.is_empty());
    hits.iter().for_each(|page| disk.turn(page * PAGE + 3, 0b100_0000));
}

#[test]
fn a_damaged_page_of_the_index_of_expiries_stops_neither_the_purge_nor_an_append() {
    for damaged in [1..=1000, 1000..=2000] {
        let disk = Disk::default();
        disk.store().unwrap().put(&[append("a", 1..=3000)]).unwrap();
        damage_expiry(&disk, damaged.clone());
        let store = disk.store().unwrap();
        let mut now = roomcast::clock::now();
        let mut writer = Writer::new(Box::new(store), vec![Box::new(|| {})], now);
        let mut port = writer.ports().pop().unwrap();
        now = now.later(Duration::from_secs(700));
        for head in 1..=200 {
            let next = Append { accepted: now.instant, ..append("b", head..=head) };
            port.send(StoreRequest::Append(next)).unwrap();
            writer.turn(now);
            let answer = port.next_answer().unwrap();
            assert!(matches!(answer, StoreAnswer::Durable { .. }), "{answer:?}");
            assert_eq!(writer.health().trouble(), None);
            // After a failed purge the next one waits for up to a minute.
            now = now.later(10 * STORE_PURGE_INTERVAL);
        }
        let tally = writer.health().tally();
        assert!((1900..3150).contains(&tally.purged), "{damaged:?}: {tally:?}");
        assert_eq!(tally.quarantined, 1, "{damaged:?}: {tally:?}");
    }
}

#[test]
fn a_room_loads_while_the_sync_of_a_commit_hangs() {
    let disk = Disk::default();
    disk.store().unwrap().put(&[append("a", 1..=5)]).unwrap();
    let mut store = Running::over(Box::new(disk.store().unwrap()));
    // The writer's first turn is over, with all that it writes by itself.
    assert!(store.publish("c", 1));
    // While redb makes the file larger it lets no read begin, so a sync hangs here.
    disk.fail(Some(Fault { after: 0, times: 1, kind: FaultKind::FreezeSync }));
    store.send(StoreRequest::Append(append("b", 1..=1)));
    disk.wait_until_frozen();
    assert!(store.load("a"));
    // A load behind an append of its room waits for the append.
    store.send(StoreRequest::Load { room: room("b"), life: 1, whole_after: 0 });
    assert!(store.load("a"));
    disk.thaw();
    assert!(matches!(store.next(), StoreAnswer::Failed { .. }));
    drop(store);
}

#[test]
fn a_load_behind_appends_of_its_room_sees_them() {
    for memory in [true, false] {
        let disk = Disk::default();
        let store: Box<dyn Store> =
            if memory { Box::new(Memory::default()) } else { Box::new(disk.store().unwrap()) };
        let mut store = Running::over(store);
        for offset in 1..=300 {
            store.send(StoreRequest::Append(append("a", offset..=offset)));
            store.send(StoreRequest::Load { room: room("a"), life: 1, whole_after: 0 });
            let mut heads = [0; 2];
            for head in &mut heads {
                *head = match store.next() {
                    StoreAnswer::Durable { through, .. } => through,
                    StoreAnswer::Loaded { stream, .. } => stream.map_or(0, |stream| stream.head),
                    other => panic!("{other:?}"),
                };
            }
            assert_eq!(heads, [offset; 2]);
        }
        drop(store);
    }
}

#[test]
fn damage_that_a_reader_meets_is_put_aside_by_the_writer() {
    let disk = Disk::default();
    disk.store().unwrap().put(&[append("a", 1..=5)]).unwrap();
    let mut bytes = disk.bytes();
    let payload = message(&room("a"), 3, 600).payload.bytes().clone();
    for place in 0..bytes.len() - payload.len() {
        if bytes[place..].starts_with(&payload) {
            bytes[place] ^= 1;
        }
    }
    let disk = Disk::holding(bytes);
    let mut store = Running::over(Box::new(disk.store().unwrap()));
    store.send(StoreRequest::Load { room: room("a"), life: 1, whole_after: 0 });
    let StoreAnswer::Loaded { stream: Some(stream), .. } = store.next() else { panic!("it is loaded") };
    let read: Vec<u64> = stream.records.iter().map(|record| record.offset).collect();
    assert_eq!((read, stream.head), (vec![1, 2, 4, 5], 5));
    assert_eq!(store.handle.health.tally().quarantined, 1);
    assert!(store.handle.health.rooms_aside().is_empty());
    drop(store);
    let mut again = disk.store().unwrap();
    let read = again.load(&room("a"), 0, at(AT_MS)).unwrap().unwrap();
    assert_eq!((read.records.len(), again.holdings().quarantined), (4, 0), "for good");
}
