//! The thread that owns the store. A turn takes waiting requests from all shards, makes one commit of all
//! appends, and answers.
//!
//! [`Writer`] is the body of the loop, driven with `now`; [`start`] puts a thread around it.
//!
//! The requests of one shard are done and answered in their order. Once an append of a shard waits for the
//! turn's commit, the shard's loads and pages wait for the next turn. After a failed append, later appends of
//! the room and life fail as well: the shard sent these before the failure was known, and they would leave a
//! hole.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::clock;
use roomcast_core::limits::{
    STORE_COMMIT_BYTES_MAX, STORE_COMMIT_MESSAGES_MAX, STORE_PURGE_INTERVAL, STORE_PURGE_ROWS_MAX,
    STORE_PURGE_ROWS_MIN, STORE_REOPEN_PAUSE_MAX, STORE_REOPEN_PAUSE_MIN, STORE_TURN_READS_MAX,
};
use roomcast_core::now::Now;
use roomcast_core::room::id::RoomName;

use super::health::Health;
use super::port::{Passage, Port, SentRequest};
use super::{Append, Asked, Store, StoreAnswer, StoreError, StoreRequest};

/// Wakes a shard whose answers wait. Called on the writer's thread, so the function must not wait.
pub type Wake = Box<dyn Fn() + Send>;

/// The running writer. Dropping the handle stores and answers every sent request, and then stops the thread.
/// The drop waits as long as the disk takes.
#[derive(Debug)]
pub struct StoreHandle {
    /// A port for each shard, in the order of the wakes.
    pub ports: Vec<Port>,
    /// The numbers and troubles of the store.
    pub health: Arc<Health>,
    stop: Arc<AtomicBool>,
    /// `None` from the start of the stop.
    thread: Option<JoinHandle<()>>,
}

/// Starts the writer, with a port for each of `wakes`.
///
/// # Errors
/// The system cannot start a thread.
pub fn start(store: Box<dyn Store>, wakes: Vec<Wake>) -> io::Result<StoreHandle> {
    let mut writer = Writer::new(store, wakes);
    let health = Arc::clone(&writer.health);
    let passages = writer.passages();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = thread::Builder::new().name("store".into()).spawn(move || {
        loop {
            // Read before the turn, so that the last turn takes every request sent before the stop.
            let stopping = stopped.load(Ordering::Acquire);
            let now = clock::now();
            match writer.turn(now) {
                Next::Again => {}
                Next::At(_) if stopping => break,
                Next::At(at) => thread::park_timeout(at.saturating_duration_since(now.instant)),
            }
        }
    })?;
    let ports = passages.into_iter().map(|passage| Port::new(passage, thread.thread().clone())).collect();
    Ok(StoreHandle { ports, health, stop, thread: Some(thread) })
}

// Also a start that failed drops the handle: the file must not stay locked.
impl Drop for StoreHandle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of the writer was printed by its thread. Its shards get no further answers, as in a
            // drain.
            thread.join().ok();
        }
    }
}

/// The time of the writer's next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once: the last turn had requests, so more may wait.
    Again,
    /// At this time, or as soon as a request is sent.
    At(Instant),
}

/// The store with a desk for each shard: the body of the writer's loop.
pub struct Writer {
    store: Box<dyn Store>,
    /// `Some` while the store fails.
    failing: Option<Failing>,
    desks: Vec<Desk>,
    /// The desk that comes first in the next turn. The place moves on, so no shard is always served last.
    first: usize,
    health: Arc<Health>,
    purge_at: Option<Instant>,
    /// Messages stored since the last purge.
    stored: usize,
}

#[derive(Debug, Clone, Copy)]
struct Failing {
    /// The time of the next reopening.
    again: Instant,
    /// The pause before the reopening, doubled by each failure.
    pause: Duration,
}

/// The writer's end of a shard's passage.
struct Desk {
    passage: Arc<Passage>,
    wake: Wake,
    /// A request taken from the queue, and kept for a later turn.
    held: Option<SentRequest>,
    /// Answers given so far.
    answered: u64,
    /// True: the shard has new answers since the last wake.
    touched: bool,
    /// Lives with a failed append, maybe not known to the shard yet.
    broken: BTreeMap<RoomName, Broken>,
}

#[derive(Debug, Clone, Copy)]
struct Broken {
    life: u64,
    error: StoreError,
    /// The number of the failing answer. A shard with this many answers taken knows of the failure.
    answer: u64,
}

/// The appends of one turn's commit.
#[derive(Debug, Default)]
struct Gathered {
    appends: Vec<Append>,
    /// The answers of the turn in order: those of gathered appends, and between them those of refused
    /// appends.
    order: Vec<AnswerDue>,
    messages: usize,
    bytes: usize,
}

#[derive(Debug)]
struct AnswerDue {
    desk: usize,
    /// The answer of a refused append. `None`: the answer follows from the outcome of the next append.
    refused: Option<StoreAnswer>,
}

impl Gathered {
    fn has_room_for(&self, append: &Append) -> bool {
        // The first append always fits: an append larger than a commit would wait for ever.
        self.appends.is_empty()
            || (self.messages + append.messages.len() <= STORE_COMMIT_MESSAGES_MAX
                && self.bytes + append.wire_bytes() <= STORE_COMMIT_BYTES_MAX)
    }

    fn is_from(&self, desk: usize) -> bool {
        self.order.iter().any(|place| place.desk == desk)
    }
}

/// The outcome of taking one request from a desk.
enum DeskTake {
    /// A request was gathered or answered.
    Taken,
    /// No request waits, or the waiting request is for a later turn.
    Nothing,
    /// A request was answered as failed: the store failed at a read.
    StoreFailed,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("store", &self.store)
            .field("failing", &self.failing)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// A writer over an open store, with a desk for each of `wakes`.
    #[must_use]
    pub fn new(store: Box<dyn Store>, wakes: Vec<Wake>) -> Self {
        let desk = |wake| Desk {
            passage: Passage::new(),
            wake,
            held: None,
            answered: 0,
            touched: false,
            broken: BTreeMap::new(),
        };
        let health = Arc::new(Health::new(store.holdings()));
        let desks = wakes.into_iter().map(desk).collect();
        Self { store, failing: None, desks, first: 0, health, purge_at: None, stored: 0 }
    }

    /// A port for each desk, for tests without threads. The current thread stands for the writer's.
    #[must_use]
    pub fn ports(&self) -> Vec<Port> {
        self.passages().into_iter().map(|passage| Port::new(passage, thread::current())).collect()
    }

    fn passages(&self) -> Vec<Arc<Passage>> {
        self.desks.iter().map(|desk| Arc::clone(&desk.passage)).collect()
    }

    /// The numbers and troubles of the store.
    #[must_use]
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Takes and answers a bounded number of requests. Reopens a failed store after its pause, and purges
    /// every `STORE_PURGE_INTERVAL`.
    pub fn turn(&mut self, now: Now) -> Next {
        // A failing store answers at once. Kept until the reopening, requests would hold publishers for
        // seconds.
        if let Some(failing) = self.failing {
            self.fail_all_queued();
            return self.reopen(failing, now);
        }
        let mut gathered = Gathered::default();
        let taken = self.take(&mut gathered, now);
        if self.failing.is_some() {
            self.fail(gathered);
        } else if !gathered.order.is_empty() {
            self.commit(gathered, now);
        }
        // Shards go on while the purge keeps the disk busy.
        self.wake();
        if self.failing.is_none() {
            self.purge(now);
        }
        match (self.failing, self.purge_at) {
            (Some(failing), _) => Next::At(failing.again),
            (None, Some(at)) if taken == 0 && at > now.instant => Next::At(at),
            (None, _) => Next::Again,
        }
    }

    /// Takes one request from each desk in turn, until no desk has one or the turn is full. Returns the
    /// number of requests taken. Reads are answered at once.
    fn take(&mut self, gathered: &mut Gathered, now: Now) -> usize {
        let desks = self.desks.len();
        let mut taken = 0;
        let mut reads = 0;
        let mut open: Vec<usize> = (0..desks).map(|i| (self.first + i) % desks).collect();
        self.first = (self.first + 1) % desks.max(1);
        while !open.is_empty() && self.failing.is_none() {
            open.retain(|&desk| match self.take_one(desk, gathered, &mut reads) {
                DeskTake::Taken => {
                    taken += 1;
                    true
                }
                DeskTake::Nothing => false,
                DeskTake::StoreFailed => {
                    taken += 1;
                    self.store_failed(now);
                    false
                }
            });
        }
        taken
    }

    fn take_one(&mut self, index: usize, gathered: &mut Gathered, reads: &mut usize) -> DeskTake {
        // The store failed at an earlier desk of this round: the turn ends for all desks.
        if self.failing.is_some() {
            return DeskTake::Nothing;
        }
        let desk = &mut self.desks[index];
        let Some(sent) = desk.held.take().or_else(|| desk.passage.requests.pop()) else {
            return DeskTake::Nothing;
        };
        let append = match sent.request {
            StoreRequest::Append(append) => append,
            request => {
                // A read must see the shard's own appends, which are stored at the end of the turn. The bound
                // keeps a storm of loads from delaying the commit of all other shards.
                if *reads == STORE_TURN_READS_MAX || gathered.is_from(index) {
                    desk.held = Some(SentRequest { request, taken: sent.taken });
                    return DeskTake::Nothing;
                }
                *reads += 1;
                return self.read(index, request);
            }
        };
        if let Some(error) = desk.broken_life(&append, sent.taken) {
            let refused = Some(StoreRequest::Append(append).failed(error));
            gathered.order.push(AnswerDue { desk: index, refused });
        } else if gathered.has_room_for(&append) {
            gathered.messages += append.messages.len();
            gathered.bytes += append.wire_bytes();
            gathered.appends.push(append);
            gathered.order.push(AnswerDue { desk: index, refused: None });
        } else {
            desk.held = Some(SentRequest { request: StoreRequest::Append(append), taken: sent.taken });
            return DeskTake::Nothing;
        }
        DeskTake::Taken
    }

    fn read(&mut self, desk: usize, request: StoreRequest) -> DeskTake {
        let answer = match &request {
            StoreRequest::Load { room, life } => self
                .call(|store| store.load(room))
                .map(|stream| StoreAnswer::Loaded { room: room.clone(), life: *life, stream }),
            StoreRequest::Page { room, life, after, bytes_max } => self
                .call(|store| store.page(room, *after, *bytes_max))
                .map(|page| StoreAnswer::Paged { room: room.clone(), life: *life, after: *after, page }),
            StoreRequest::Forget { room, life } => self
                .call(|store| store.forget(room))
                .map(|existed| StoreAnswer::Forgotten { room: room.clone(), life: *life, existed }),
            StoreRequest::Append(_) => unreachable!("an append is gathered"),
        };
        let (answer, taken) = match answer {
            Ok(answer) => (answer, DeskTake::Taken),
            Err(error) => (request.failed(error), DeskTake::StoreFailed),
        };
        self.desks[desk].answer(answer);
        taken
    }

    fn commit(&mut self, gathered: Gathered, now: Now) {
        if gathered.appends.is_empty() {
            return self.answer(gathered, &[]);
        }
        // The clock, not `now`: the reads of this turn may have taken a while.
        let began = clock::now();
        match self.call(|store| store.append(&gathered.appends)) {
            Ok(outcomes) => {
                assert_eq!(outcomes.len(), gathered.appends.len(), "one outcome per append");
                let kept = gathered.appends.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok());
                let messages = kept.map(|(append, _)| append.messages.len()).sum();
                let took = clock::now().instant.saturating_duration_since(began.instant);
                self.health.committed(messages, took, began);
                self.stored += messages;
                self.answer(gathered, &outcomes);
            }
            Err(_) => {
                self.store_failed(now);
                self.fail(gathered);
            }
        }
    }

    /// Answers the gathered requests, in order.
    fn answer(&mut self, gathered: Gathered, outcomes: &[Result<(), StoreError>]) {
        let mut appends = gathered.appends.into_iter().zip(outcomes);
        for place in gathered.order {
            let answer = match place.refused {
                Some(refused) => refused,
                None => match appends.next().expect("one append and outcome per place") {
                    (append, Ok(())) => durable(append),
                    (append, Err(error)) => StoreRequest::Append(append).failed(*error),
                },
            };
            self.desks[place.desk].answer(answer);
        }
    }

    /// Answers the gathered and the waiting requests as failed.
    fn fail(&mut self, gathered: Gathered) {
        let outcomes = vec![Err(StoreError::Failing); gathered.appends.len()];
        self.answer(gathered, &outcomes);
        self.fail_all_queued();
    }

    fn fail_all_queued(&mut self) {
        for desk in &mut self.desks {
            // Requests sent from now on are for the next turn: a shard that asks again at once must not keep
            // us here.
            let queued = desk.passage.requests.len();
            if let Some(held) = desk.held.take() {
                desk.answer(held.request.failed(StoreError::Failing));
            }
            for _ in 0..queued {
                let Some(sent) = desk.passage.requests.pop() else { break };
                desk.answer(sent.request.failed(StoreError::Failing));
            }
        }
        self.wake();
    }

    fn store_failed(&mut self, now: Now) {
        let pause = STORE_REOPEN_PAUSE_MIN;
        self.failing = Some(Failing { again: now.instant + pause, pause });
    }

    fn reopen(&mut self, failing: Failing, now: Now) -> Next {
        if now.instant < failing.again {
            return Next::At(failing.again);
        }
        if self.call(|store| store.reopen()).is_ok() {
            self.health.reopened(now);
            self.failing = None;
            return Next::Again;
        }
        // The clock, not `now`: opening a sick disk takes time, and the pause begins after it.
        let pause = (failing.pause * 2).min(STORE_REOPEN_PAUSE_MAX);
        let again = clock::now().instant.max(now.instant) + pause;
        self.failing = Some(Failing { again, pause });
        Next::At(again)
    }

    /// Removes expired rows, once per `STORE_PURGE_INTERVAL`, or at once again if more are due.
    fn purge(&mut self, now: Now) {
        let at = *self.purge_at.get_or_insert(now.instant);
        if now.instant < at {
            return;
        }
        // Twice the rows stored since the last purge: the purge keeps up, and new appends wait little.
        let rows_max = (2 * self.stored).clamp(STORE_PURGE_ROWS_MIN, STORE_PURGE_ROWS_MAX);
        self.stored = 0;
        match self.call(|store| store.purge(now.unix_ms, rows_max)) {
            Ok(purged) => {
                self.health.purged(purged.rows);
                self.health.heal_in_time(now);
                let more = purged.looked_at >= rows_max;
                self.purge_at = Some(now.instant + if more { Duration::ZERO } else { STORE_PURGE_INTERVAL });
            }
            Err(_) => {
                self.store_failed(now);
                self.fail_all_queued();
            }
        }
    }

    /// Calls the store, and notes the start, the end and the failure. A panic of the store ends this call,
    /// not the thread.
    fn call<T>(
        &mut self,
        ask: impl FnOnce(&mut dyn Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let began = clock::now();
        self.health.call_begins(began);
        let store = &mut *self.store;
        let outcome = catch_unwind(AssertUnwindSafe(|| ask(store)));
        self.health.call_ended(self.store.holdings());
        match outcome {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => {
                self.health.failed(self.store.trouble(), began);
                Err(StoreError::Failing)
            }
            Err(_) => {
                self.health.failed("a bug in the store: its panic was printed", began);
                Err(StoreError::Failing)
            }
        }
    }

    fn wake(&mut self) {
        for desk in self.desks.iter_mut().filter(|desk| desk.touched) {
            desk.touched = false;
            (desk.wake)();
        }
    }
}

impl Desk {
    fn answer(&mut self, answer: StoreAnswer) {
        self.answered += 1;
        if let StoreAnswer::Failed { room, life, asked: Asked::Append, error } = &answer {
            let broken = Broken { life: *life, error: *error, answer: self.answered };
            self.broken.insert(room.clone(), broken);
        }
        self.touched = true;
        self.passage.answers.push(answer).expect("as many places as requests that may be under way");
    }

    /// The error of an earlier append of the same life, if one failed. `taken` counts the answers taken by
    /// the shard before the append.
    fn broken_life(&mut self, append: &Append, taken: u64) -> Option<StoreError> {
        if self.broken.is_empty() {
            return None;
        }
        // A shard that has taken the failing answer has begun another life.
        self.broken.retain(|_, broken| broken.answer > taken);
        self.broken.get(&append.room).filter(|broken| broken.life == append.life).map(|broken| broken.error)
    }
}

fn durable(append: Append) -> StoreAnswer {
    let through = append.messages.last().map_or(0, |message| message.offset);
    StoreAnswer::Durable { room: append.room, life: append.life, through }
}
