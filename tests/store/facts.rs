//! The promises of a store, checked with each form of it.

use std::sync::Arc;

use roomcast::store::memory::Memory;
use roomcast::store::redb::Redb;
use roomcast::store::{Append, Store, StoreError};
use roomcast_core::room::id::Epoch;
use roomcast_core::room::message::Message;

use super::disk::Disk;
use super::{AT_MS, EPOCH, append, message, offsets, print, room};

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
    a_forgotten_stream_leaves_nothing_and_another_begins,
);

fn a_forgotten_stream_leaves_nothing_and_another_begins(make: Make) {
    let mut store = make(u64::MAX);
    assert!(!store.forget(&room("a")).unwrap());
    store.append(&[append("a", 1..=3), append("ab", 1..=1)]).unwrap();
    let others = {
        let mut store = make(u64::MAX);
        store.append(&[append("ab", 1..=1)]).unwrap();
        store.holdings().bytes
    };
    assert!(store.forget(&room("a")).unwrap());
    assert_eq!(store.holdings().bytes, others);
    store.reopen().unwrap();
    assert!(store.load(&room("a")).unwrap().is_none());
    assert_eq!(offsets(&mut *store, "ab"), [1]);
    let later = Append { epoch: Epoch(5), ..append("a", 1..=2) };
    assert_eq!(store.append(&[later]).unwrap(), [Ok(())]);
    let stream = store.load(&room("a")).unwrap().unwrap();
    assert_eq!((stream.epoch, stream.head), (Epoch(5), 2));
}

fn what_was_stored_comes_back(make: Make) {
    let mut store = make(u64::MAX);
    assert!(store.load(&room("a")).unwrap().is_none());
    let outcomes = store.append(&[append("a", 1..=3), append("b", 1..=1), append("a", 4..=5)]).unwrap();
    assert_eq!(outcomes, [Ok(()); 3]);
    store.reopen().unwrap();
    assert_eq!(offsets(&mut *store, "a"), [1, 2, 3, 4, 5]);
    assert_eq!(offsets(&mut *store, "b"), [1]);
    let stream = store.load(&room("a")).unwrap().unwrap();
    assert_eq!((stream.epoch, stream.head), (EPOCH, 5));
    assert!(store.load(&room("c")).unwrap().is_none());
}

fn an_append_that_does_not_continue_the_stream_is_refused_alone(make: Make) {
    let mut store = make(u64::MAX);
    store.append(&[append("a", 1..=2)]).unwrap();
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
    let outcomes = store.append(&appends).unwrap();
    let moved = Err(StoreError::Moved);
    assert_eq!(outcomes, [moved, moved, moved, moved, Ok(()), Ok(())]);
    assert_eq!(offsets(&mut *store, "a"), [1, 2, 3]);
    assert_eq!(offsets(&mut *store, "b"), [1]);
}

fn a_life_that_was_refused_stays_refused(make: Make) {
    let mut store = make(u64::MAX);
    let outcomes = store.append(&[append("a", 2..=2), append("a", 1..=1)]).unwrap();
    assert_eq!(outcomes, [Err(StoreError::Moved); 2]);
    assert!(store.load(&room("a")).unwrap().is_none());
}

fn a_full_store_takes_nothing_and_loses_nothing(make: Make) {
    let mut store = make(400);
    let outcomes = store.append(&[append("a", 1..=1), append("a", 2..=9), append("b", 1..=1)]).unwrap();
    assert_eq!(outcomes, [Ok(()), Err(StoreError::Full), Ok(())]);
    assert_eq!(offsets(&mut *store, "a"), [1]);
    let bytes = store.holdings().bytes;
    assert!((200..=400).contains(&bytes), "{bytes}");
    store.reopen().unwrap();
    assert_eq!(store.holdings().bytes, bytes);
    assert_eq!(store.append(&[append("a", 2..=3)]).unwrap(), [Err(StoreError::Full)]);
    store.purge(AT_MS + DAY_MS, 100).unwrap();
    assert_eq!(store.holdings().bytes, 0);
    assert_eq!(store.append(&[append("a", 2..=2)]).unwrap(), [Ok(())]);
}

fn a_page_stops_before_its_bytes_but_not_before_its_first_message(make: Make) {
    let mut store = make(u64::MAX);
    store.append(&[append("a", 1..=5)]).unwrap();
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
    store.append(&[Append { room: a.clone(), life: 1, epoch: EPOCH, messages: messages.collect() }]).unwrap();
    store.purge(AT_MS + 299_999, 100).unwrap();
    assert_eq!(offsets(&mut *store, "a"), [1, 2, 3]);
    assert_eq!(store.purge(AT_MS + 300_000, 100).unwrap().rows, 1);
    assert_eq!(offsets(&mut *store, "a"), [1, 3]);
    store.purge(AT_MS + 400_000, 100).unwrap();
    assert_eq!(offsets(&mut *store, "a"), [1]);
    let page = store.page(&a, 1, 1000).unwrap();
    assert_eq!((page.messages.len(), page.through), (0, 3), "the head stays where it was");
}

fn an_emptied_room_is_remembered_for_seven_days(make: Make) {
    let mut store = make(u64::MAX);
    store.append(&[append("a", 1..=3)]).unwrap();
    let emptied = AT_MS + 600_000;
    assert_eq!(store.purge(emptied, 100).unwrap().rows, 3);
    store.purge(emptied + 7 * DAY_MS - 1, 100).unwrap();
    let stream = store.load(&room("a")).unwrap().unwrap();
    assert_eq!((stream.epoch, stream.head, stream.messages.len()), (EPOCH, 3, 0));
    assert_eq!(store.purge(emptied + 7 * DAY_MS, 100).unwrap().rooms, 1);
    assert!(store.load(&room("a")).unwrap().is_none());
    assert_eq!(store.append(&[append("a", 1..=1)]).unwrap(), [Ok(())], "its next stream begins anew");
}

fn a_room_that_was_used_again_is_not_forgotten(make: Make) {
    let mut store = make(u64::MAX);
    store.append(&[append("a", 1..=1)]).unwrap();
    store.purge(AT_MS + 600_000, 100).unwrap();
    store.append(&[append("a", 2..=2)]).unwrap();
    // The room is emptied again later: the first mark must not count.
    let emptied = AT_MS + DAY_MS;
    store.purge(emptied, 100).unwrap();
    store.purge(AT_MS + 600_000 + 7 * DAY_MS, 100).unwrap();
    assert_eq!(store.load(&room("a")).unwrap().unwrap().head, 2);
    store.purge(emptied + 7 * DAY_MS, 100).unwrap();
    assert!(store.load(&room("a")).unwrap().is_none());
}

fn a_purge_is_bounded(make: Make) {
    let mut store = make(u64::MAX);
    store.append(&[append("a", 1..=5)]).unwrap();
    let purged = store.purge(AT_MS + DAY_MS, 2).unwrap();
    assert_eq!((purged.looked_at, purged.rows), (2, 2));
    assert_eq!(offsets(&mut *store, "a"), [3, 4, 5]);
    let purged = store.purge(AT_MS + DAY_MS, 100).unwrap();
    assert_eq!((purged.looked_at, purged.rows), (3, 3));
}

#[test]
fn a_clone_of_a_memory_store_is_what_a_disk_would_hold() {
    let mut store = Memory::default();
    store.append(&[append("a", 1..=1)]).unwrap();
    let mut disk = store.clone();
    store.append(&[append("a", 2..=2)]).unwrap();
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
        let stream = self.memory.load(&name).unwrap();
        let head = stream.as_ref().map_or(0, |stream| stream.head);
        let epoch = stream.map_or_else(|| Epoch(self.random.u64(1..9)), |stream| stream.epoch);
        let foreign = self.random.u8(..20) == 0;
        let first = head + u64::from(self.random.u8(..20) != 0);
        let at_ms = self.now_ms;
        let messages = (first..first + self.random.u64(1..4)).map(|offset| {
            let ttl = self.random.u64(1..1000);
            Arc::new(Message { at_ms, ..Message::clone(&message(&name, offset, ttl)) })
        });
        let messages = messages.collect();
        self.life += u64::from(self.random.u8(..2));
        Append { room: name, life: self.life, epoch: if foreign { Epoch(99) } else { epoch }, messages }
    }

    fn step(&mut self) {
        match self.random.u8(..10) {
            0..6 => {
                let appends: Vec<_> = (0..self.random.usize(1..5)).map(|_| self.draw_append()).collect();
                assert_eq!(self.memory.append(&appends), self.file.append(&appends));
            }
            6 => {
                self.now_ms += self.random.u64(..200_000);
                let rows_max = self.random.usize(1..20);
                assert_eq!(self.memory.purge(self.now_ms, rows_max), self.file.purge(self.now_ms, rows_max));
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
            let streams = [self.memory.load(&name), self.file.load(&name)];
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
