//! The promises of a store, checked with each form of it.

use std::sync::Arc;
use std::time::Duration;

use roomcast::store::memory::Memory;
use roomcast::store::redb::Redb;
use roomcast::store::{Append, Store, StoreError};
use roomcast_core::limits::TAIL_MESSAGES_MAX;
use roomcast_core::room::id::Epoch;
use roomcast_core::room::ids::Fingerprint;
use roomcast_core::room::message::{Message, Payload};

use super::disk::Disk;
use super::{AT_MS, AtThatTime, BEGAN, EPOCH, append, at, message, offsets, print, room};

const DAY_MS: u64 = 24 * 3600 * 1000;

type Make = fn(u64) -> Box<dyn Store>;

fn memory(bytes_max: u64) -> Box<dyn Store> {
    Box::new(Memory::new(bytes_max))
}

fn file(bytes_max: u64) -> Box<dyn Store> {
    Box::new(Redb::over(Disk::default().opener(), bytes_max).unwrap())
}

macro_rules! of_every_store {
    ($($name:ident),* $(,)?) => {
        mod of_memory {
            $(#[test] fn $name() { super::$name(super::memory) })*
        }
        mod of_redb {
            $(#[test] fn $name() { super::$name(super::file) })*
        }
    };
}

of_every_store!(
    what_was_stored_comes_back,
    an_append_that_does_not_continue_the_stream_is_refused_alone,
    a_life_that_was_refused_stays_refused,
    a_full_store_takes_nothing_and_loses_nothing,
    a_page_stops_before_its_bytes_but_not_before_its_first_message,
    rows_go_when_their_time_has_passed_in_any_order_of_offset,
    an_emptied_room_is_remembered_for_seven_days,
    a_room_that_was_used_again_is_not_forgotten,
    a_purge_is_bounded,
    a_recall_marks_the_row_that_it_recalls,
    an_append_recreates_the_entry_of_a_room_that_was_forgotten,
    a_load_has_a_record_of_each_message_and_the_tail_whole,
    rows_expire_by_the_time_of_acceptance_on_the_store_s_clock,
    a_forgotten_stream_leaves_nothing_and_another_begins,
);

fn a_forgotten_stream_leaves_nothing_and_another_begins(make: Make) {
    let mut store = make(u64::MAX);
    assert!(!store.forget(&room("a")).unwrap());
    store.put(&[append("a", 1..=3), append("ab", 1..=1)]).unwrap();
    let others = {
        let mut store = make(u64::MAX);
        store.put(&[append("ab", 1..=1)]).unwrap();
        store.holdings().bytes
    };
    assert!(store.forget(&room("a")).unwrap());
    assert_eq!(store.holdings().bytes, others);
    store.reopen().unwrap();
    assert!(store.whole(&room("a")).unwrap().is_none());
    assert_eq!(offsets(&mut *store, "ab"), [1]);
    let later = Append { epoch: Epoch(5), ..append("a", 1..=2) };
    assert_eq!(store.put(&[later]).unwrap(), [Ok(())]);
    let stream = store.whole(&room("a")).unwrap().unwrap();
    assert_eq!((stream.epoch, stream.head), (Epoch(5), 2));
}

fn what_was_stored_comes_back(make: Make) {
    let mut store = make(u64::MAX);
    assert!(store.whole(&room("a")).unwrap().is_none());
    let outcomes = store.put(&[append("a", 1..=3), append("b", 1..=1), append("a", 4..=5)]).unwrap();
    assert_eq!(outcomes, [Ok(()); 3]);
    store.reopen().unwrap();
    assert_eq!(offsets(&mut *store, "a"), [1, 2, 3, 4, 5]);
    assert_eq!(offsets(&mut *store, "b"), [1]);
    let stream = store.whole(&room("a")).unwrap().unwrap();
    assert_eq!((stream.epoch, stream.head), (EPOCH, 5));
    assert!(store.whole(&room("c")).unwrap().is_none());
}

fn an_append_that_does_not_continue_the_stream_is_refused_alone(make: Make) {
    let mut store = make(u64::MAX);
    store.put(&[append("a", 1..=2)]).unwrap();
    let other_epoch = Append { epoch: Epoch(5), ..append("a", 3..=3) };
    let lives = |append: Append, life| Append { life, ..append };
    let appends = [
        lives(append("a", 2..=3), 2),
        lives(append("a", 4..=4), 3),
        lives(other_epoch, 4),
        lives(append("b", 2..=2), 5),
        append("a", 3..=3),
        append("b", 1..=1),
    ];
    let outcomes = store.put(&appends).unwrap();
    let moved = Err(StoreError::Moved);
    assert_eq!(outcomes, [moved, moved, moved, moved, Ok(()), Ok(())]);
    assert_eq!(offsets(&mut *store, "a"), [1, 2, 3]);
    assert_eq!(offsets(&mut *store, "b"), [1]);
}

fn a_life_that_was_refused_stays_refused(make: Make) {
    let mut store = make(u64::MAX);
    let outcomes = store.put(&[append("a", 2..=2), append("a", 1..=1)]).unwrap();
    assert_eq!(outcomes, [Err(StoreError::Moved); 2]);
    assert!(store.whole(&room("a")).unwrap().is_none());
}

fn a_full_store_takes_nothing_and_loses_nothing(make: Make) {
    let mut store = make(400);
    let outcomes = store.put(&[append("a", 1..=1), append("a", 2..=9), append("b", 1..=1)]).unwrap();
    assert_eq!(outcomes, [Ok(()), Err(StoreError::Full), Ok(())]);
    assert_eq!(offsets(&mut *store, "a"), [1]);
    let bytes = store.holdings().bytes;
    assert!((200..=400).contains(&bytes), "{bytes}");
    store.reopen().unwrap();
    assert_eq!(store.holdings().bytes, bytes);
    assert_eq!(store.put(&[append("a", 2..=3)]).unwrap(), [Err(StoreError::Full)]);
    store.purge(at(AT_MS + DAY_MS), 100).unwrap();
    assert_eq!(store.holdings().bytes, 0);
    assert_eq!(store.put(&[append("a", 2..=2)]).unwrap(), [Ok(())]);
}

fn a_page_stops_before_its_bytes_but_not_before_its_first_message(make: Make) {
    let mut store = make(u64::MAX);
    store.put(&[append("a", 1..=5)]).unwrap();
    let mut page = |after, bytes_max| {
        let page = store.page(&room("a"), after, bytes_max).unwrap();
        (page.messages.iter().map(|message| message.offset).collect::<Vec<_>>(), page.through)
    };
    assert_eq!(page(0, 1), (vec![1], 1));
    assert_eq!(page(1, 200), (vec![2, 3], 3));
    assert_eq!(page(3, 200), (vec![4, 5], 5));
    assert_eq!(page(5, 200), (vec![], 5));
    assert_eq!(page(9, 200), (vec![], 9));
    assert!(store.page(&room("b"), 0, 1).unwrap().messages.is_empty());
}

fn rows_go_when_their_time_has_passed_in_any_order_of_offset(make: Make) {
    let mut store = make(u64::MAX);
    let a = room("a");
    // The ttl of the second message is shorter than the life of its id.
    let messages = [900, 10, 400].into_iter().zip(1..).map(|(ttl, offset)| message(&a, offset, ttl));
    store.put(&[Append { messages: messages.collect(), ..append("a", 1..=1) }]).unwrap();
    store.purge(at(AT_MS + 299_999), 100).unwrap();
    assert_eq!(offsets(&mut *store, "a"), [1, 2, 3]);
    assert_eq!(store.purge(at(AT_MS + 300_000), 100).unwrap().rows, 1);
    assert_eq!(offsets(&mut *store, "a"), [1, 3]);
    store.purge(at(AT_MS + 400_000), 100).unwrap();
    assert_eq!(offsets(&mut *store, "a"), [1]);
    let page = store.page(&a, 1, 1000).unwrap();
    assert_eq!((page.messages.len(), page.through), (0, 3), "the head stays where it was");
}

fn an_emptied_room_is_remembered_for_seven_days(make: Make) {
    let mut store = make(u64::MAX);
    store.put(&[append("a", 1..=3)]).unwrap();
    let emptied = AT_MS + 600_000;
    assert_eq!(store.purge(at(emptied), 100).unwrap().rows, 3);
    store.purge(at(emptied + 7 * DAY_MS - 1), 100).unwrap();
    let stream = store.whole(&room("a")).unwrap().unwrap();
    assert_eq!((stream.epoch, stream.head, stream.records.len()), (EPOCH, 3, 0));
    assert_eq!(store.purge(at(emptied + 7 * DAY_MS), 100).unwrap().rooms, 1);
    assert!(store.whole(&room("a")).unwrap().is_none());
    assert_eq!(store.put(&[append("a", 1..=1)]).unwrap(), [Ok(())], "its next stream begins anew");
}

fn a_room_that_was_used_again_is_not_forgotten(make: Make) {
    let mut store = make(u64::MAX);
    store.put(&[append("a", 1..=1)]).unwrap();
    store.purge(at(AT_MS + 600_000), 100).unwrap();
    store.put(&[append("a", 2..=2)]).unwrap();
    // The room is emptied again later: the first mark must not count.
    let emptied = AT_MS + DAY_MS;
    store.purge(at(emptied), 100).unwrap();
    store.purge(at(AT_MS + 600_000 + 7 * DAY_MS), 100).unwrap();
    assert_eq!(store.whole(&room("a")).unwrap().unwrap().head, 2);
    store.purge(at(emptied + 7 * DAY_MS), 100).unwrap();
    assert!(store.whole(&room("a")).unwrap().is_none());
}

fn a_purge_is_bounded(make: Make) {
    let mut store = make(u64::MAX);
    store.put(&[append("a", 1..=5)]).unwrap();
    let purged = store.purge(at(AT_MS + DAY_MS), 2).unwrap();
    assert_eq!((purged.looked_at, purged.rows), (2, 2));
    assert_eq!(offsets(&mut *store, "a"), [3, 4, 5]);
    let purged = store.purge(at(AT_MS + DAY_MS), 100).unwrap();
    assert_eq!((purged.looked_at, purged.rows), (3, 3));
}

fn a_recall_marks_the_row_that_it_recalls(make: Make) {
    let mut store = make(u64::MAX);
    store.put(&[append("a", 1..=3)]).unwrap();
    let recall = Arc::new(Message { recall: 2, ..Message::clone(&message(&room("a"), 4, 600)) });
    store.put(&[Append { messages: vec![recall], ..append("a", 4..=4) }]).unwrap();
    store.reopen().unwrap();
    let records = store.whole(&room("a")).unwrap().unwrap().records;
    let marks: Vec<_> = records.iter().map(|record| (record.recall, record.recalled_by)).collect();
    assert_eq!(marks, [(0, 0), (0, 4), (0, 0), (2, 0)]);
    store.purge(at(AT_MS + DAY_MS), 100).unwrap();
    assert_eq!(store.holdings().bytes, 0, "the mark takes no byte more");
}

fn an_append_recreates_the_entry_of_a_room_that_was_forgotten(make: Make) {
    let mut store = make(u64::MAX);
    store.put(&[append("a", 1..=3)]).unwrap();
    let emptied = AT_MS + 600_000;
    store.purge(at(emptied), 100).unwrap();
    assert_eq!(store.purge(at(emptied + 7 * DAY_MS), 100).unwrap().rooms, 1);
    // The room itself lives on, and knows its epoch and head.
    let unknown = append("a", 4..=4);
    assert_eq!(store.put(&[unknown]).unwrap(), [Err(StoreError::Moved)], "3 may be on its way");
    let known = Append { durable: 3, life: 2, ..append("a", 4..=4) };
    let next = Append { durable: 3, life: 2, ..append("a", 5..=5) };
    assert_eq!(store.put(&[known, next]).unwrap(), [Ok(()), Ok(())]);
    let stream = store.whole(&room("a")).unwrap().unwrap();
    assert_eq!((stream.epoch, stream.head, stream.records.len()), (EPOCH, 5, 2));
}

fn a_load_has_a_record_of_each_message_and_the_tail_whole(make: Make) {
    let mut store = make(u64::MAX);
    let a = room("a");
    let count = 2 * TAIL_MESSAGES_MAX as u64;
    let large = |offset: u64| {
        let payload = Payload::Opaque(vec![u8::try_from(offset % 251).unwrap(); 3000].into());
        Arc::new(Message { payload, wire_bytes: 4100, ..Message::clone(&message(&a, offset, 600)) })
    };
    let messages: Vec<_> = (1..=count).map(large).collect();
    store.put(&[Append { messages: messages.clone(), ..append("a", 1..=1) }]).unwrap();
    let held = store.holdings().bytes;
    let tail_begins = count + 1 - TAIL_MESSAGES_MAX as u64;
    for (whole_after, first) in [(u64::MAX, tail_begins), (count, tail_begins), (9, 10), (0, 1)] {
        let stream = store.load(&a, whole_after, at(AT_MS + 1000)).unwrap().unwrap();
        assert_eq!(stream.records.len() as u64, count);
        let told = &stream.records[4];
        assert_eq!((told.offset, told.id.as_ref(), told.wire_bytes), (5, messages[4].id.as_ref(), 4100));
        assert_eq!(told.fingerprint, Fingerprint::of(&messages[4]));
        assert_eq!(told.accepted, *BEGAN);
        assert_eq!(told.expires, *BEGAN + Duration::from_secs(600));
        assert_eq!(stream.tail, messages[usize::try_from(first).unwrap() - 1..], "behind {whole_after}");
    }
    let page = store.page(&a, 3, 10_000).unwrap();
    assert_eq!((&page.messages[..], page.through), (&messages[3..5], 5));
    assert_eq!(store.holdings().bytes, held);
    store.purge(at(AT_MS + DAY_MS), 1000).unwrap();
    assert_eq!(store.holdings().bytes, 0, "payloads apart go as well");
}

fn rows_expire_by_the_time_of_acceptance_on_the_store_s_clock(make: Make) {
    let mut store = make(u64::MAX);
    let a = room("a");
    // The wall clock was an hour ahead at the acceptance, and the commit came ten seconds late.
    let ahead = Arc::new(Message { at_ms: AT_MS + 3_600_000, ..Message::clone(&message(&a, 1, 600)) });
    store.append(&[Append { messages: vec![ahead], ..append("a", 1..=1) }], at(AT_MS + 10_000)).unwrap();
    let left = |store: &mut dyn Store, ms| {
        let stream = store.load(&a, 0, at(ms)).unwrap().unwrap();
        stream.records[0].expires.saturating_duration_since(at(ms).instant)
    };
    assert_eq!(left(&mut *store, AT_MS + 30_000), Duration::from_secs(570));
    assert_eq!(left(&mut *store, AT_MS - 7_000_000), Duration::from_secs(600), "never more than its ttl");
    assert_eq!(left(&mut *store, AT_MS + 7_000_000), Duration::ZERO);
    assert_eq!(store.stamp(), Some(at(AT_MS + 10_000).stamp));
    assert_eq!(store.purge(at(AT_MS + 599_999), 100).unwrap().rows, 0);
    assert_eq!(store.purge(at(AT_MS + 600_000), 100).unwrap().rows, 1);
}

#[test]
fn a_clone_of_a_memory_store_is_what_a_disk_would_hold() {
    let mut store = Memory::default();
    store.put(&[append("a", 1..=1)]).unwrap();
    let mut disk = store.clone();
    store.put(&[append("a", 2..=2)]).unwrap();
    assert_eq!(offsets(&mut disk, "a"), [1]);
    assert_eq!(offsets(&mut store, "a"), [1, 2]);
}

/// Two stores that get the same calls and are compared.
struct Twins {
    memory: Memory,
    file: Redb,
    random: fastrand::Rng,
    now_ms: u64,
    life: u64,
}

impl Twins {
    /// An append that mostly continues its room's stream.
    fn draw_append(&mut self) -> Append {
        let name = room(["a", "b", "c"][self.random.usize(..3)]);
        let stream = self.memory.whole(&name).unwrap();
        let head = stream.as_ref().map_or(0, |stream| stream.head);
        let epoch = stream.map_or_else(|| Epoch(self.random.u64(1..9)), |stream| stream.epoch);
        let foreign = self.random.u8(..20) == 0;
        let first = head + u64::from(self.random.u8(..20) != 0).max(u64::from(head == 0));
        let at_ms = self.now_ms;
        let messages = (first..first + self.random.u64(1..4)).map(|offset| {
            let ttl = self.random.u64(1..1000);
            Arc::new(Message { at_ms, ..Message::clone(&message(&name, offset, ttl)) })
        });
        let messages = messages.collect();
        self.life += u64::from(self.random.u8(..2));
        Append {
            room: name,
            life: self.life,
            epoch: if foreign { Epoch(99) } else { epoch },
            // A head that the store has forgotten, now and then.
            durable: if head == 0 { first - 1 } else { head },
            accepted: *BEGAN + Duration::from_millis(at_ms - AT_MS),
            messages,
        }
    }

    fn step(&mut self) {
        match self.random.u8(..10) {
            0..6 => {
                let appends: Vec<_> = (0..self.random.usize(1..5)).map(|_| self.draw_append()).collect();
                let now = at(self.now_ms);
                assert_eq!(self.memory.append(&appends, now), self.file.append(&appends, now));
            }
            6 => {
                self.now_ms += self.random.u64(..200_000);
                let rows_max = self.random.usize(1..20);
                let now = at(self.now_ms);
                assert_eq!(self.memory.purge(now, rows_max), self.file.purge(now, rows_max));
            }
            7 if self.random.u8(..10) == 0 => self.now_ms += 3 * DAY_MS,
            7 if self.random.u8(..10) == 0 => {
                let name = room(["a", "b", "c"][self.random.usize(..3)]);
                assert_eq!(self.memory.forget(&name), self.file.forget(&name));
            }
            8 => self.file.reopen().unwrap(),
            _ => {
                let name = room(["a", "b", "c"][self.random.usize(..3)]);
                let after = self.random.u64(..30);
                let bytes_max = self.random.usize(..1000);
                let pages =
                    [self.memory.page(&name, after, bytes_max), self.file.page(&name, after, bytes_max)];
                assert_eq!(format!("{:?}", pages[0]), format!("{:?}", pages[1]));
            }
        }
        assert_eq!(self.memory.holdings(), self.file.holdings());
        for name in ["a", "b", "c"].map(room) {
            let whole_after = self.random.u64(..40);
            let now = at(self.now_ms);
            let streams =
                [self.memory.load(&name, whole_after, now), self.file.load(&name, whole_after, now)];
            assert_eq!(format!("{:?}", streams[0]), format!("{:?}", streams[1]));
        }
    }
}

#[test]
fn both_stores_give_the_same_answers() {
    let seed = std::env::var("ROOMCAST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    print(&format!("ROOMCAST_SEED={seed}"));
    let bytes_max = 8000;
    for life in 0..8 {
        let file = Redb::over(Disk::default().opener(), bytes_max).unwrap();
        let random = fastrand::Rng::with_seed(seed + life);
        let mut twins = Twins { memory: Memory::new(bytes_max), file, random, now_ms: AT_MS, life: 1 };
        (0..200).for_each(|_| twins.step());
    }
}
