//! The threads that read: loads and pages, beside the writer and in read transactions of their own.
//!
//! A port sends a read straight to the readers, unless a write of the room is under way: then the writer
//! hands the read over behind the commit. So a read sees the appends that its shard sent before. Rooms take
//! turns, and one read per room is under way: the slow loads of a room never take both readers. A read that
//! meets damage goes back to the writer, which may repair. A read that meets a closed store waits for the
//! reopening. A read that fails is answered as failed, and nothing else is.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle, Thread};

use parking_lot::{Condvar, Mutex};

use super::aside::Standing;
use super::desk::Outlet;
use super::health::{Health, WRITER};
use super::time::StoreClock;
use super::{ReadError, Reader, StoreAnswer, StoreError, StoreRequest};
use crate::clock;
use roomcast_core::limits::STORE_READERS;
use roomcast_core::now::Now;
use roomcast_core::room::id::RoomName;

/// A load or a page on its way to a reader.
#[derive(Debug)]
pub(super) struct DueRead {
    /// The asking shard.
    pub(super) desk: usize,
    /// A load or a page.
    pub(super) request: StoreRequest,
}

/// The queues between the writer and the readers. Each shard's port bounds them.
#[derive(Debug, Default)]
pub(super) struct ReadQueue {
    state: Mutex<QueuedReads>,
    /// Notified of each new read, and of the stop.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct QueuedReads {
    /// The rooms with a read that waits or is under way.
    rooms: BTreeMap<RoomName, ReadsOfRoom>,
    /// The rooms with a read that waits, and none under way. Each room stands here once.
    turns: VecDeque<RoomName>,
    /// Reads that met damage, for the writer. After the stop of the readers all reads are here.
    handed_back: VecDeque<DueRead>,
    /// Reads that met a closed store, until the writer has opened it.
    held: VecDeque<DueRead>,
    is_stopping: bool,
}

#[derive(Debug, Default)]
struct ReadsOfRoom {
    waiting: VecDeque<DueRead>,
    is_under_way: bool,
}

impl ReadQueue {
    pub(super) fn push(&self, read: DueRead) {
        self.state.lock().push(read);
        self.changed.notify_one();
    }

    /// The next read for the writer.
    pub(super) fn next_handed_back(&self) -> Option<DueRead> {
        self.state.lock().handed_back.pop_front()
    }

    /// All reads that met a closed store.
    pub(super) fn take_held(&self) -> VecDeque<DueRead> {
        std::mem::take(&mut self.state.lock().held)
    }

    /// The next read that met a closed store.
    pub(super) fn next_held(&self) -> Option<DueRead> {
        self.state.lock().held.pop_front()
    }

    fn hand_back(&self, read: DueRead) {
        self.state.lock().handed_back.push_back(read);
    }

    fn hold(&self, read: DueRead) {
        self.state.lock().held.push_back(read);
    }

    /// Waits for the next read. [`ReadQueue::ended`] has to follow. `None`: the readers stop, and none waits.
    fn next(&self) -> Option<DueRead> {
        let mut state = self.state.lock();
        loop {
            if let Some(read) = state.next() {
                return Some(read);
            }
            if state.is_stopping {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Notes the end of the room's read under way. The next read of the room waits for the room's next turn.
    fn ended(&self, room: RoomName) {
        let mut state = self.state.lock();
        let Some(reads) = state.rooms.get_mut(&room) else { return };
        reads.is_under_way = false;
        if reads.waiting.is_empty() {
            state.rooms.remove(&room);
        } else {
            state.turns.push_back(room);
            self.changed.notify_one();
        }
    }
}

impl QueuedReads {
    fn push(&mut self, read: DueRead) {
        // A read behind an append may come after the last reader has ended.
        if self.is_stopping {
            return self.handed_back.push_back(read);
        }
        let room = read.request.room();
        if !self.rooms.contains_key(room) {
            self.turns.push_back(room.clone());
        }
        self.rooms.entry(room.clone()).or_default().waiting.push_back(read);
    }

    fn next(&mut self) -> Option<DueRead> {
        let room = self.turns.pop_front()?;
        let reads = self.rooms.get_mut(&room)?;
        reads.is_under_way = true;
        reads.waiting.pop_front()
    }
}

/// The running readers. Dropping the handle ends them, after every waiting read.
#[derive(Debug)]
pub(super) struct Readers {
    queue: Arc<ReadQueue>,
    threads: Vec<JoinHandle<()>>,
}

/// The parts that each reader works with.
#[derive(Debug, Clone)]
pub(super) struct ReaderParts {
    pub(super) queue: Arc<ReadQueue>,
    pub(super) reader: Arc<dyn Reader>,
    pub(super) outlets: Vec<Arc<Outlet>>,
    pub(super) health: Arc<Health>,
    pub(super) clock: StoreClock,
}

impl Readers {
    /// Starts `STORE_READERS` threads. `writer` is woken for reads that are handed back.
    pub(super) fn start(parts: &ReaderParts, writer: &Thread) -> io::Result<Self> {
        let queue = Arc::clone(&parts.queue);
        let mut readers = Self { queue, threads: Vec::new() };
        for number in 1..=STORE_READERS {
            let parts = parts.clone();
            let writer = writer.clone();
            let thread = thread::Builder::new().name(format!("store-read-{number}")).spawn(move || {
                while let Some(read) = parts.queue.next() {
                    let room = read.request.room().clone();
                    parts.read(WRITER + number, read, clock::now(), &writer);
                    parts.queue.ended(room);
                }
            })?;
            readers.threads.push(thread);
        }
        Ok(readers)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.queue.state.lock().is_stopping = true;
        self.queue.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A panic of a reader was printed by its thread.
            thread.join().ok();
        }
    }
}

/// A reader without a thread, for tests with a virtual clock. The caller stands for the writer's thread.
#[derive(Debug)]
pub struct ReaderByHand(pub(super) ReaderParts);

impl ReaderByHand {
    /// Makes the next read that waits, and answers. False: none waits.
    pub fn read_next(&self, now: Now) -> bool {
        let Some(read) = self.0.queue.state.lock().next() else { return false };
        let room = read.request.room().clone();
        self.0.read(WRITER + 1, read, now, &thread::current());
        self.0.queue.ended(room);
        true
    }
}

impl ReaderParts {
    fn read(&self, thread: usize, read: DueRead, now: Now, writer: &Thread) {
        let outlet = &self.outlets[read.desk];
        let room = read.request.room().clone();
        let call = read.request.call();
        if self.health.standing(&room, call, now) == Standing::Aside {
            outlet.answer(read.request.failed(StoreError::Failing));
            return outlet.wake();
        }
        self.health.call_begins(thread, now);
        let outcome = self.ask(&read.request, now);
        self.health.call_ended(thread, None);
        match outcome {
            Ok(answer) => {
                self.health.room_succeeded(&room, call);
                outlet.answer(answer);
            }
            Err(ReadError::Damaged) => {
                self.queue.hand_back(read);
                return writer.unpark();
            }
            // The writer opens the store, if nobody has meanwhile.
            Err(ReadError::Closed) => {
                self.queue.hold(read);
                return writer.unpark();
            }
            Err(ReadError::Failed(why)) => {
                self.health.room_failed(&room, call, &why, now);
                outlet.answer(read.request.failed(StoreError::Failing));
                // The writer opens a file that its disk failed.
                writer.unpark();
            }
        }
        outlet.wake();
    }

    fn ask(&self, request: &StoreRequest, now: Now) -> Result<StoreAnswer, ReadError> {
        match request {
            StoreRequest::Load { room, life, whole_after } => {
                let stream = self.reader.load(room, *whole_after, self.clock.now(now))?;
                Ok(StoreAnswer::Loaded { room: room.clone(), life: *life, stream })
            }
            StoreRequest::Page { room, life, after, bytes_max } => {
                let page = self.reader.page(room, *after, *bytes_max)?;
                Ok(StoreAnswer::Paged { room: room.clone(), life: *life, after: *after, page })
            }
            StoreRequest::Append(_) | StoreRequest::Forget { .. } => unreachable!("the writer writes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(name: &str, after: u64) -> DueRead {
        let room = RoomName::parse(name).unwrap();
        DueRead { desk: 0, request: StoreRequest::Page { room, life: 1, after, bytes_max: 1 } }
    }

    fn short(read: Option<DueRead>) -> Option<(String, u64)> {
        match read?.request {
            StoreRequest::Page { room, after, .. } => Some((room.to_string(), after)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rooms_take_turns_and_one_read_of_a_room_is_under_way() {
        let queue = ReadQueue::default();
        for after in 1..=3 {
            queue.push(page("a", after));
        }
        queue.push(page("b", 1));
        let next = || short(queue.state.lock().next());
        assert_eq!(next(), Some(("a".into(), 1)));
        assert_eq!(next(), Some(("b".into(), 1)));
        assert_eq!(next(), None, "the other reads of room a wait for the first");
        queue.push(page("c", 1));
        queue.ended(RoomName::parse("a").unwrap());
        assert_eq!([next(), next()], [Some(("c".into(), 1)), Some(("a".into(), 2))]);
        queue.ended(RoomName::parse("a").unwrap());
        assert_eq!(next(), Some(("a".into(), 3)));
        for name in ["a", "b", "c"] {
            queue.ended(RoomName::parse(name).unwrap());
        }
        assert!(queue.state.lock().rooms.is_empty());
    }

    #[test]
    fn a_read_behind_the_stop_of_the_readers_is_the_writer_s() {
        let queue = ReadQueue::default();
        queue.push(page("a", 1));
        queue.state.lock().is_stopping = true;
        queue.push(page("b", 1));
        assert_eq!(short(queue.next()), Some(("a".into(), 1)), "the last readers end what waits");
        assert_eq!(short(queue.next()), None);
        assert_eq!(short(queue.next_handed_back()), Some(("b".into(), 1)));
    }
}
