//! The thread that owns the store. It takes what waits from all shards in turn, makes one commit of all appends, and answers.
//!
//! [`Writer`] is the loop's body, driven with `now`; [`start`] puts a thread around it.
//!
//! What one shard asks is done and answered in its order: once an append of a shard waits for the turn's commit, its
//! loads and pages wait for the next turn. After a failed append, later appends of that room and life fail as well, even
//! if they would fit: the shard had sent them before it could know.

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
use super::port::{Passage, Port, Sent};
use super::{Answer, Append, Asked, Request, Store, StoreError};

/// Tells a shard that answers wait for it. Called on the writer's thread; must not wait.
pub type Wake = Box<dyn Fn() + Send>;

/// The running writer.
#[derive(Debug)]
pub struct StoreHandle {
    ports: Vec<Port>,
    health: Arc<Health>,
    stop: Arc<AtomicBool>,
    /// `None` once it is being stopped.
    thread: Option<JoinHandle<()>>,
}

/// Starts the writer, with one port for each of `wakes`.
///
/// # Errors
/// The thread can't be started.
pub fn start(store: Box<dyn Store>, wakes: Vec<Wake>) -> io::Result<StoreHandle> {
    let mut writer = Writer::new(store, wakes);
    let (health, passages) = (Arc::clone(&writer.health), writer.passages());
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = thread::Builder::new().name("store".into()).spawn(move || {
        loop {
            // Read before the turn, so that the last turn takes all that was sent before the stop.
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

impl StoreHandle {
    /// The ports, in the order of the wakes; empty the second time.
    pub fn take_ports(&mut self) -> Vec<Port> {
        std::mem::take(&mut self.ports)
    }

    /// How it fares.
    #[must_use]
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Makes durable what was sent, answers it, and ends. Waits for that: as long as the disk takes.
    pub fn stop(self) {
        drop(self);
    }
}

/// A store that nobody holds any more must not keep its file locked.
impl Drop for StoreHandle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of the writer has been printed by its thread; its shards hear nothing more, and know that as a drain.
            thread.join().ok();
        }
    }
}

/// When the writer wants its next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// At once: there was something to do, so there may be more.
    Again,
    /// Then, or when something is sent.
    At(Instant),
}

/// The body of the writer's loop.
pub struct Writer {
    store: Box<dyn Store>,
    /// Set while the store fails.
    failing: Option<Failing>,
    desks: Vec<Desk>,
    /// Which desk comes first in the next turn.
    first: usize,
    health: Arc<Health>,
    purge_at: Option<Instant>,
    /// Messages stored since the last purge.
    stored: usize,
}

#[derive(Debug, Clone, Copy)]
struct Failing {
    again: Instant,
    pause: Duration,
}

/// The writer's end of one shard's way to it.
struct Desk {
    passage: Arc<Passage>,
    wake: Wake,
    /// Taken, but for a later turn.
    held: Option<Sent>,
    answered: u64,
    /// It got answers since it was last woken.
    touched: bool,
    /// Lives that had an append failed of which the shard may not know yet.
    broken: BTreeMap<RoomName, Broken>,
}

#[derive(Debug, Clone, Copy)]
struct Broken {
    life: u64,
    error: StoreError,
    /// The shard knows once it has taken this many answers.
    answer: u64,
}

/// What a turn takes into its commit, in the order in which it is answered.
#[derive(Debug, Default)]
struct Gathered {
    appends: Vec<Append>,
    /// For each append its desk; and between them those that fail unasked.
    order: Vec<Place>,
    messages: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Place {
    desk: usize,
    /// `None`: the next of `appends`.
    refused: Option<Answer>,
}

impl Gathered {
    fn has_room_for(&self, append: &Append) -> bool {
        self.appends.is_empty()
            || (self.messages + append.messages.len() <= STORE_COMMIT_MESSAGES_MAX
                && self.bytes + bytes_of(append) <= STORE_COMMIT_BYTES_MAX)
    }

    fn is_from(&self, desk: usize) -> bool {
        self.order.iter().any(|place| place.desk == desk)
    }
}

fn bytes_of(append: &Append) -> usize {
    append.messages.iter().map(|message| message.wire_bytes).sum()
}

/// What taking one request from a desk led to.
enum Taken {
    One,
    /// Nothing waits there, or what waits is for a later turn.
    None,
    /// The store failed at a read.
    Failed,
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
    /// A writer over an open store, with one desk for each of `wakes`.
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

    /// A port for each desk, for worlds without threads: there, the current thread stands for the writer's.
    #[must_use]
    pub fn ports(&self) -> Vec<Port> {
        self.passages().into_iter().map(|passage| Port::new(passage, thread::current())).collect()
    }

    fn passages(&self) -> Vec<Arc<Passage>> {
        self.desks.iter().map(|desk| Arc::clone(&desk.passage)).collect()
    }

    /// How it fares.
    #[must_use]
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Takes a bounded part of what waits, does and answers it; opens a failed store again when its pause is over;
    /// purges when it is time.
    pub fn turn(&mut self, now: Now) -> Next {
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

    /// Takes one request from each desk in turn, until nothing waits or the turn is full. Reads are answered at once.
    fn take(&mut self, gathered: &mut Gathered, now: Now) -> usize {
        let desks = self.desks.len();
        let (mut taken, mut reads) = (0, 0);
        let mut open: Vec<usize> = (0..desks).map(|i| (self.first + i) % desks).collect();
        self.first = (self.first + 1) % desks.max(1);
        while !open.is_empty() && self.failing.is_none() {
            open.retain(|&desk| match self.take_one(desk, gathered, &mut reads) {
                Taken::One => {
                    taken += 1;
                    true
                }
                Taken::None => false,
                Taken::Failed => {
                    taken += 1;
                    self.store_failed(now);
                    false
                }
            });
        }
        taken
    }

    fn take_one(&mut self, index: usize, gathered: &mut Gathered, reads: &mut usize) -> Taken {
        // One that failed in this round ends the turn for all.
        if self.failing.is_some() {
            return Taken::None;
        }
        let desk = &mut self.desks[index];
        let Some(sent) = desk.held.take().or_else(|| desk.passage.requests.pop()) else { return Taken::None };
        let append = match sent.request {
            Request::Append(append) => append,
            request => {
                if *reads == STORE_TURN_READS_MAX || gathered.is_from(index) {
                    desk.held = Some(Sent { request, taken: sent.taken });
                    return Taken::None;
                }
                *reads += 1;
                return self.read(index, request);
            }
        };
        if let Some(error) = desk.broken_life(&append, sent.taken) {
            let refused = Some(Request::Append(append).failed(error));
            gathered.order.push(Place { desk: index, refused });
        } else if gathered.has_room_for(&append) {
            gathered.messages += append.messages.len();
            gathered.bytes += bytes_of(&append);
            gathered.appends.push(append);
            gathered.order.push(Place { desk: index, refused: None });
        } else {
            desk.held = Some(Sent { request: Request::Append(append), taken: sent.taken });
            return Taken::None;
        }
        Taken::One
    }

    fn read(&mut self, desk: usize, request: Request) -> Taken {
        let answer = match &request {
            Request::Load { room, life } => self
                .call(|store| store.load(room))
                .map(|stream| Answer::Loaded { room: room.clone(), life: *life, stream }),
            Request::Page { room, life, after, bytes_max } => self
                .call(|store| store.page(room, *after, *bytes_max))
                .map(|page| Answer::Paged { room: room.clone(), life: *life, after: *after, page }),
            Request::Append(_) => unreachable!("an append is gathered"),
        };
        let (answer, taken) = match answer {
            Ok(answer) => (answer, Taken::One),
            Err(error) => (request.failed(error), Taken::Failed),
        };
        self.desks[desk].answer(answer);
        taken
    }

    fn commit(&mut self, gathered: Gathered, now: Now) {
        if gathered.appends.is_empty() {
            return self.answer(gathered, &[]);
        }
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

    /// Answers what was gathered, in its order.
    fn answer(&mut self, gathered: Gathered, outcomes: &[Result<(), StoreError>]) {
        let mut appends = gathered.appends.into_iter().zip(outcomes);
        for place in gathered.order {
            let answer = match place.refused {
                Some(refused) => refused,
                None => match appends.next().expect("one append and outcome per place") {
                    (append, Ok(())) => durable(append),
                    (append, Err(error)) => Request::Append(append).failed(*error),
                },
            };
            self.desks[place.desk].answer(answer);
        }
    }

    /// Answers what was gathered, and what waits, as failed.
    fn fail(&mut self, gathered: Gathered) {
        let outcomes = vec![Err(StoreError::Failing); gathered.appends.len()];
        self.answer(gathered, &outcomes);
        self.fail_all_queued();
    }

    fn fail_all_queued(&mut self) {
        for desk in &mut self.desks {
            // What is sent from now on is for the next turn.
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
        let pause = (failing.pause * 2).min(STORE_REOPEN_PAUSE_MAX);
        let again = clock::now().instant.max(now.instant) + pause;
        self.failing = Some(Failing { again, pause });
        Next::At(again)
    }

    /// A purge removes at most twice as many rows as came since the last one: so it keeps up, and what comes waits little.
    fn purge(&mut self, now: Now) {
        let at = *self.purge_at.get_or_insert(now.instant);
        if now.instant < at {
            return;
        }
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

    /// Calls the store. A panic in it counts as its failure: it ends this call, not the thread.
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
    fn answer(&mut self, answer: Answer) {
        self.answered += 1;
        if let Answer::Failed { room, life, asked: Asked::Append, error } = &answer {
            let broken = Broken { life: *life, error: *error, answer: self.answered };
            self.broken.insert(room.clone(), broken);
        }
        self.touched = true;
        self.passage.answers.push(answer).expect("as many places as requests that may be under way");
    }

    /// Why an append fails unasked: an earlier one of its life has failed, or will within this turn.
    fn broken_life(&mut self, append: &Append, taken: u64) -> Option<StoreError> {
        if self.broken.is_empty() {
            return None;
        }
        // What the shard knows needs no keeping: it has begun another life.
        self.broken.retain(|_, broken| broken.answer > taken);
        self.broken.get(&append.room).filter(|broken| broken.life == append.life).map(|broken| broken.error)
    }
}

fn durable(append: Append) -> Answer {
    let through = append.messages.last().map_or(0, |message| message.offset);
    Answer::Durable { room: append.room, life: append.life, through }
}
