//! The threads that read: loads and pages, beside the writer and in read transactions of their own.
//!
//! The writer hands a read over once every earlier append of the room is committed. So a read sees the appends
//! that its shard sent before. A read that meets damage goes back to the writer, which may repair. A read that
//! fails is answered as failed, and nothing else is.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle, Thread};

use parking_lot::{Condvar, Mutex};

use super::desk::Outlet;
use super::health::{Health, WRITER};
use super::time::StoreClock;
use super::{ReadError, Reader, StoreAnswer, StoreError, StoreRequest};
use crate::clock;
use roomcast_core::limits::STORE_READERS;

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
    waiting: VecDeque<DueRead>,
    /// Reads that met damage, for the writer.
    handed_back: VecDeque<DueRead>,
    is_stopping: bool,
}

impl ReadQueue {
    pub(super) fn push(&self, read: DueRead) {
        self.state.lock().waiting.push_back(read);
        self.changed.notify_one();
    }

    /// The next read for the writer.
    pub(super) fn next_handed_back(&self) -> Option<DueRead> {
        self.state.lock().handed_back.pop_front()
    }

    fn hand_back(&self, read: DueRead) {
        self.state.lock().handed_back.push_back(read);
    }

    /// Waits for the next read. `None`: the readers stop, and none waits.
    fn next(&self) -> Option<DueRead> {
        let mut state = self.state.lock();
        loop {
            if let Some(read) = state.waiting.pop_front() {
                return Some(read);
            }
            if state.is_stopping {
                return None;
            }
            self.changed.wait(&mut state);
        }
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
                    parts.read(WRITER + number, read, &writer);
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

impl ReaderParts {
    fn read(&self, thread: usize, read: DueRead, writer: &Thread) {
        let now = clock::now();
        let outlet = &self.outlets[read.desk];
        let room = read.request.room().clone();
        if !self.health.may_read(&room, now) {
            outlet.answer(read.request.failed(StoreError::Failing));
            return outlet.wake();
        }
        self.health.call_begins(thread, now);
        let outcome = self.ask(&read.request);
        self.health.call_ended(thread, None);
        match outcome {
            Ok(answer) => {
                self.health.read_succeeded(&room);
                outlet.answer(answer);
            }
            Err(ReadError::Damaged) => {
                self.queue.hand_back(read);
                return writer.unpark();
            }
            Err(ReadError::Closed) => outlet.answer(read.request.failed(StoreError::Failing)),
            Err(ReadError::Failed(why)) => {
                self.health.read_failed(&room, &why, now);
                outlet.answer(read.request.failed(StoreError::Failing));
                // The writer opens a file that its disk failed.
                writer.unpark();
            }
        }
        outlet.wake();
    }

    fn ask(&self, request: &StoreRequest) -> Result<StoreAnswer, ReadError> {
        match request {
            StoreRequest::Load { room, life, whole_after } => {
                let stream = self.reader.load(room, *whole_after, self.clock.now(clock::now()))?;
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
