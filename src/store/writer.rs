//! The thread that owns the store. A turn takes waiting requests from all shards, makes one commit of all
//! appends, and answers.
//!
//! [`Writer`] is the body of the loop, driven with `now`; [`start`] puts threads around it.
//!
//! The appends of one shard are done and answered in their order. A load or a page of a room that comes here
//! waits for the commit of the room's earlier appends, and then goes to the readers. After a failed
//! append, later appends of the room and life fail as well: the shard sent these before the failure was known,
//! and they would leave a hole.
//!
//! **Failures.** A failed append closes the store for a pause, and everything that waits is answered as
//! failed. Nobody waits for a purge, a proof or a read, so after such a failure the store is opened again at
//! once, and the queue goes on. A store that failed counts as well after a write and a sync that succeed:
//! those of an append, or else of a proof, tried again and again.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use crate::clock;
use roomcast_core::limits::{
    STORE_CLOCK_INTERVAL, STORE_CLOCK_STEP_MAX, STORE_PROOF_BYTES, STORE_PURGE_HOLD, STORE_PURGE_INTERVAL,
    STORE_PURGE_PAUSE_MAX, STORE_PURGE_ROWS_MAX, STORE_PURGE_ROWS_MIN, STORE_REOPEN_PAUSE_MAX,
    STORE_REOPEN_PAUSE_MIN, STORE_TURN_READS_MAX,
};
use roomcast_core::now::Now;

use super::aside::{RoomCall, Standing};
use super::desk::{AnswerDue, Desk, Gathered};
use super::handle::RunningStore;
use super::health::{Health, WRITER};
use super::port::{Port, SentRequest, WayToReaders};
use super::reads::{DueRead, ReadQueue, ReaderByHand, ReaderParts, Readers};
use super::time::{LastTimes, StoreClock, WallClock};
use super::{Append, FaultOf, Store, StoreAnswer, StoreError, StoreRequest};

mod commit;

pub use super::desk::Wake;
pub use super::handle::StoreHandle;

/// The threads of a running store. They stop once the owner calls [`StoreThreads::stop`].
#[derive(Debug)]
pub(super) struct StoreThreads {
    stop: Arc<AtomicBool>,
    /// `None` from the start of the stop, or for a store without readers.
    readers: Option<Readers>,
    /// `None` from the start of the stop.
    thread: Option<JoinHandle<()>>,
}

/// Starts the writer and the readers, with a port for each of `wakes`.
///
/// # Errors
/// The system cannot start a thread.
pub fn start(store: Box<dyn Store>, wakes: Vec<Wake>) -> io::Result<StoreHandle> {
    let mut writer = Writer::new(store, wakes, clock::now());
    let health = Arc::clone(&writer.health);
    let reader_parts = writer.hand_out_reads();
    let passages: Vec<_> = writer.desks.iter().map(|desk| Arc::clone(&desk.outlet.passage)).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = thread::Builder::new().name("store".into()).spawn(move || {
        loop {
            // Read before the turn, so that the last turn takes every request sent before the stop.
            let stopping = stopped.load(Ordering::Acquire);
            let now = clock::now();
            match writer.turn(now) {
                Next::At(_) if stopping => break,
                // The next start goes on with a purge that has more to do.
                Next::Again if stopping && writer.taken == 0 => break,
                Next::Again => {}
                Next::At(at) => thread::park_timeout(at.saturating_duration_since(now.instant)),
            }
        }
    })?;
    let writer = thread.thread().clone();
    let queue = reader_parts.as_ref().map(|parts| &parts.queue);
    let port = |(desk, passage)| {
        let reads = queue.map(|queue| WayToReaders { queue: Arc::clone(queue), desk });
        Port::new(passage, unparks(writer.clone()), reads)
    };
    let ports = passages.into_iter().enumerate().map(port).collect();
    let mut threads = StoreThreads { stop, readers: None, thread: Some(thread) };
    if let Some(parts) = reader_parts {
        match Readers::start(&parts, &writer) {
            Ok(readers) => threads.readers = Some(readers),
            Err(error) => {
                // The file must not stay locked.
                threads.stop();
                return Err(error);
            }
        }
    }
    Ok(StoreHandle::new(ports, health, RunningStore::Writer(threads)))
}

/// Wakes a parked thread.
fn unparks(thread: Thread) -> Wake {
    // A token for the next park, so no wake is lost between the writer's turn and its park. The call enters the
    // kernel only if the thread is parked.
    Box::new(move || thread.unpark())
}

impl StoreThreads {
    /// Stores and answers every sent request, and then ends the threads. Waits as long as the disk takes.
    pub(super) fn stop(&mut self) {
        // First the readers: a read that they hand back is for the writer.
        drop(self.readers.take());
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
    clock: StoreClock,
    /// `Some` while the store is closed.
    failing: Option<Retry>,
    /// `Some` while the store is open after a failure, and no write has succeeded since: the next proof.
    doubt: Option<Retry>,
    desks: Vec<Desk>,
    /// The readers' queue. `None`: the writer reads.
    reads: Option<Arc<ReadQueue>>,
    /// The desk that comes first in the next turn. The place moves on, so no shard is always served last.
    first: usize,
    /// Requests taken in the last turn.
    taken: usize,
    health: Arc<Health>,
    purge_at: Option<Instant>,
    /// `Some` after a start with a doubtful wall clock: no purge before this time.
    purge_held_until: Option<Instant>,
    /// The pause after a failed purge, doubled by each failure.
    purge_pause: Duration,
    /// Messages stored since the last purge.
    stored: usize,
}

/// A try that is made again and again.
#[derive(Debug, Clone, Copy)]
struct Retry {
    /// The time of the next try.
    again: Instant,
    /// The pause before that try, doubled by each failure.
    pause: Duration,
}

impl Retry {
    fn after(pause: Duration, now: Instant) -> Self {
        let pause = pause.min(STORE_REOPEN_PAUSE_MAX);
        Self { again: now + pause, pause }
    }

    /// The pause after a further failure. Bounded here: an idle node with a full disk doubles it for days.
    fn doubled(pause: Duration) -> Duration {
        (pause * 2).min(STORE_REOPEN_PAUSE_MAX)
    }
}

/// The outcome of taking one request from a desk.
#[derive(PartialEq, Eq)]
enum DeskTake {
    /// A request was gathered, handed on or answered.
    Taken,
    /// No request waits, or the waiting request is for a later turn.
    Nothing,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("store", &self.store)
            .field("failing", &self.failing)
            .field("doubt", &self.doubt)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// A writer over an open store, with a desk for each of `wakes`.
    #[must_use]
    pub fn new(store: Box<dyn Store>, wakes: Vec<Wake>, now: Now) -> Self {
        let last = LastTimes { stamp: store.stamp(), newest_ms: store.newest_ms() };
        let wall_clock = last.judge(now);
        if wall_clock != WallClock::Plausible {
            tracing::warn!(
                ?wall_clock,
                ?last,
                unix_ms = now.unix_ms,
                "the wall clock does not fit the stored times: is it right? Expired messages are kept for minutes"
            );
        }
        Self {
            clock: StoreClock::start(last, now),
            purge_held_until: (wall_clock != WallClock::Plausible).then(|| now.instant + STORE_PURGE_HOLD),
            failing: None,
            doubt: None,
            desks: wakes.into_iter().map(Desk::new).collect(),
            reads: None,
            first: 0,
            taken: 0,
            health: Arc::new(Health::new(store.holdings())),
            purge_at: None,
            purge_pause: STORE_PURGE_INTERVAL,
            stored: 0,
            store,
        }
    }

    /// A port for each desk, for tests without threads. The current thread stands for the writer's.
    #[must_use]
    pub fn ports(&self) -> Vec<Port> {
        let port = |(desk, of_desk): (usize, &Desk)| {
            let reads = self.reads.as_ref().map(|queue| WayToReaders { queue: Arc::clone(queue), desk });
            Port::new(Arc::clone(&of_desk.outlet.passage), unparks(thread::current()), reads)
        };
        self.desks.iter().enumerate().map(port).collect()
    }

    /// Hands reads to a reader without a thread, for tests. Called before [`Writer::ports`]. `None`: the store has
    /// no reader.
    pub fn reader_by_hand(&mut self) -> Option<ReaderByHand> {
        self.hand_out_reads().map(ReaderByHand)
    }

    /// The numbers and troubles of the store.
    #[must_use]
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }

    /// Hands reads to readers from now on. `None`: the store has none.
    fn hand_out_reads(&mut self) -> Option<ReaderParts> {
        let reader = self.store.reader()?;
        let queue = Arc::<ReadQueue>::default();
        self.reads = Some(Arc::clone(&queue));
        let outlets = self.desks.iter().map(|desk| Arc::clone(&desk.outlet)).collect();
        Some(ReaderParts { queue, reader, outlets, health: Arc::clone(&self.health), clock: self.clock })
    }

    /// Takes and answers a bounded number of requests. Reopens a failed store after its pause, purges every
    /// `STORE_PURGE_INTERVAL`, and writes the clocks.
    pub fn turn(&mut self, now: Now) -> Next {
        self.taken = 0;
        // A failing store answers at once. Kept until the reopening, requests would hold publishers for
        // seconds.
        if let Some(failing) = self.failing {
            self.fail_all_queued();
            return self.reopen(failing, now);
        }
        // A reader met an I/O error: redb refuses further calls of this handle.
        if !self.store.is_open() && !self.reopen_at_once(now) {
            self.fail_all_queued();
            return self.next_turn(now);
        }
        self.taken = self.resume_reads();
        let mut gathered = Gathered::default();
        self.taken += self.take(&mut gathered, now);
        if self.failing.is_some() {
            self.fail(gathered);
        } else if !gathered.order.is_empty() {
            self.commit(gathered, now);
        }
        // Shards go on while a repair or the purge keeps the disk busy.
        self.wake();
        if self.failing.is_none() {
            self.taken += self.take_handed_back(now);
        }
        if self.failing.is_none() {
            self.purge(now);
        }
        if self.failing.is_none() {
            self.prove(now);
        }
        self.next_turn(now)
    }

    fn next_turn(&self, now: Now) -> Next {
        if let Some(failing) = self.failing {
            return Next::At(failing.again);
        }
        let proof = self.doubt.map(|doubt| doubt.again);
        match self.purge_at.into_iter().chain(proof).min() {
            Some(at) if self.taken == 0 && at > now.instant => Next::At(at),
            _ => Next::Again,
        }
    }

    /// Gives reads that met a closed store to the readers again. Returns the number of reads.
    fn resume_reads(&mut self) -> usize {
        let Some(reads) = &self.reads else { return 0 };
        // Once: a reader may hold the same read again at once.
        let held = reads.take_held();
        let resumed = held.len();
        held.into_iter().for_each(|read| reads.push(read));
        resumed
    }

    /// Reads for a reader that met damage, since the writer alone may repair. One read per turn: a repair takes
    /// a sync, and the appends of the other rooms come in between. Returns the number of reads.
    fn take_handed_back(&mut self, now: Now) -> usize {
        let read = self.reads.as_ref().and_then(|reads| reads.next_handed_back());
        let Some(DueRead { desk, request }) = read else { return 0 };
        self.read(desk, request, now);
        self.desks[desk].outlet.wake();
        1
    }

    /// Takes one request from each desk in turn, until no desk has one or the turn is full. Returns the
    /// number of requests taken.
    fn take(&mut self, gathered: &mut Gathered, now: Now) -> usize {
        let desks = self.desks.len();
        let mut taken = 0;
        let mut reads = 0;
        let mut open: Vec<usize> = (0..desks).map(|i| (self.first + i) % desks).collect();
        self.first = (self.first + 1) % desks.max(1);
        while !open.is_empty() && self.failing.is_none() {
            open.retain(|&desk| {
                let is_taken = self.take_one(desk, gathered, &mut reads, now) == DeskTake::Taken;
                taken += usize::from(is_taken);
                is_taken
            });
        }
        taken
    }

    fn take_one(&mut self, index: usize, gathered: &mut Gathered, reads: &mut usize, now: Now) -> DeskTake {
        // The store failed at an earlier desk of this round: the turn ends for all desks.
        if self.failing.is_some() {
            return DeskTake::Nothing;
        }
        let desk = &mut self.desks[index];
        let Some(sent) = desk.held.take().or_else(|| desk.outlet.passage.requests.pop()) else {
            return DeskTake::Nothing;
        };
        let SentRequest { request, writes_taken } = sent;
        let append = match request {
            StoreRequest::Append(append) => append,
            request => {
                // A read must see the earlier appends of its room, which are stored at the end of the turn, and
                // a removal is answered behind all earlier appends of its shard. The bound keeps a storm of
                // loads from delaying the commit of all other shards, where the writer reads by itself.
                let is_forget = matches!(request, StoreRequest::Forget { .. });
                let is_full = self.reads.is_none() && *reads == STORE_TURN_READS_MAX;
                if is_full || gathered.is_of(request.room()) || (is_forget && gathered.is_from(index)) {
                    desk.held = Some(SentRequest { request, writes_taken });
                    return DeskTake::Nothing;
                }
                *reads += 1;
                match &self.reads {
                    _ if is_forget => self.forget(index, request, now),
                    Some(readers) => readers.push(DueRead { desk: index, request }),
                    None => self.read(index, request, now),
                }
                return DeskTake::Taken;
            }
        };
        if let Some(error) = desk.broken_life(&append, writes_taken) {
            let refused = Some(StoreRequest::Append(append).failed(error));
            gathered.order.push(AnswerDue { desk: index, refused });
        } else if gathered.has_room_for(&append) {
            gathered.push(index, append);
        } else {
            desk.held = Some(SentRequest { request: StoreRequest::Append(append), writes_taken });
            return DeskTake::Nothing;
        }
        DeskTake::Taken
    }

    /// Reads and answers. A failure is the room's alone, unless the store can't be opened again.
    fn read(&mut self, desk: usize, request: StoreRequest, now: Now) {
        let room = request.room().clone();
        if self.health.standing(&room, request.call(), now) == Standing::Aside {
            return self.desks[desk].answer(request.failed(StoreError::Failing));
        }
        let answer = match self.ask_for(&request, now) {
            Ok(answer) => {
                self.health.room_succeeded(&room, request.call());
                answer
            }
            Err(why) => {
                let fault = self.store.fault();
                if fault != FaultOf::EarlierCall {
                    self.health.room_failed(&room, request.call(), &why, now);
                }
                self.reopen_after(fault, now);
                request.failed(StoreError::Failing)
            }
        };
        self.desks[desk].answer(answer);
    }

    /// The answer to a read or a removal, from a store that is opened again if need be.
    fn ask_for(&mut self, request: &StoreRequest, now: Now) -> Result<StoreAnswer, String> {
        let answer = self.ask_once(request, now);
        // A reader's error made the handle useless in between.
        if answer.is_err() && self.store.fault() == FaultOf::EarlierCall && self.reopen_at_once(now) {
            return self.ask_once(request, now);
        }
        answer
    }

    fn ask_once(&mut self, request: &StoreRequest, now: Now) -> Result<StoreAnswer, String> {
        let store_now = self.clock.now(now);
        match request {
            StoreRequest::Load { room, life, whole_after } => self
                .call(|store| store.load(room, *whole_after, store_now))
                .map(|stream| StoreAnswer::Loaded { room: room.clone(), life: *life, stream }),
            StoreRequest::Page { room, life, after, bytes_max } => self
                .call(|store| store.page(room, *after, *bytes_max))
                .map(|page| StoreAnswer::Paged { room: room.clone(), life: *life, after: *after, page }),
            StoreRequest::Forget { room, life } => self
                .call(|store| store.forget(room))
                .map(|existed| StoreAnswer::Forgotten { room: room.clone(), life: *life, existed }),
            StoreRequest::Append(_) => unreachable!("appends are gathered"),
        }
    }

    /// Removes the stream of a room and answers. Nothing else fails with a removal that fails.
    fn forget(&mut self, desk: usize, request: StoreRequest, now: Now) {
        let room = request.room().clone();
        // Each removal that fails closes the store, and a publisher may ask for one again and again.
        if self.health.standing(&room, RoomCall::Write, now) == Standing::Aside {
            return self.desks[desk].answer(request.failed(StoreError::Failing));
        }
        let answer = match self.ask_for(&request, now) {
            Ok(answer) => {
                // The damage went with the rows.
                for call in [RoomCall::Write, RoomCall::Load, RoomCall::Page] {
                    self.health.room_succeeded(&room, call);
                }
                answer
            }
            Err(why) => {
                let fault = self.fault_behind(now);
                match fault {
                    FaultOf::Disk | FaultOf::FullDisk => self.health.failed(&why, now),
                    FaultOf::Pages => self.health.room_failed(&room, RoomCall::Write, &why, now),
                    FaultOf::EarlierCall => {}
                }
                self.reopen_after(fault, now);
                request.failed(StoreError::Failing)
            }
        };
        self.desks[desk].answer(answer);
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
        if let Some(reads) = &self.reads {
            while let Some(DueRead { desk, request }) = reads.next_handed_back().or_else(|| reads.next_held())
            {
                self.desks[desk].answer(request.failed(StoreError::Failing));
            }
        }
        for desk in &mut self.desks {
            // Requests sent from now on are for the next turn: a shard that asks again at once must not keep
            // us here.
            let queued = desk.outlet.passage.requests.len();
            if let Some(held) = desk.held.take() {
                desk.answer(held.request.failed(StoreError::Failing));
            }
            for _ in 0..queued {
                let Some(sent) = desk.outlet.passage.requests.pop() else { break };
                desk.answer(sent.request.failed(StoreError::Failing));
            }
        }
        self.wake();
    }

    /// Opens a closed store after its pause.
    fn reopen(&mut self, failing: Retry, now: Now) -> Next {
        if now.instant < failing.again {
            return Next::At(failing.again);
        }
        if self.try_to_reopen(Retry::doubled(failing.pause), now) {
            self.failing = None;
            return Next::Again;
        }
        // The clock, not `now`: opening a sick disk takes time, and the pause begins after it.
        let retry = Retry::after(Retry::doubled(failing.pause), clock::now().instant.max(now.instant));
        self.failing = Some(retry);
        Next::At(retry.again)
    }

    /// Opens the store again while the queue waits: nothing of the queue has failed. Returns false if the
    /// store can't be opened now, and is failing.
    fn reopen_at_once(&mut self, now: Now) -> bool {
        let pause = self.doubt.map_or(STORE_REOPEN_PAUSE_MIN, |doubt| doubt.pause);
        if self.try_to_reopen(Retry::doubled(pause), now) {
            return true;
        }
        self.failing = Some(Retry::after(pause, now.instant));
        false
    }

    /// Opens the store again after a failed call, unless the store is open. False: the store is failing.
    fn reopen_after(&mut self, fault: FaultOf, now: Now) -> bool {
        if self.failing.is_some() {
            return false;
        }
        let doubt = self.doubt;
        if !self.store.is_open() && !self.reopen_at_once(now) {
            return false;
        }
        // Damage is no trouble of the disk: nothing is to be proven.
        if fault == FaultOf::Pages {
            self.doubt = doubt;
        }
        true
    }

    /// The part at fault in a call that failed. An I/O error of a disk that takes a proof comes from a bad sector
    /// under some pages. Only a `Disk` at fault opens the store here.
    fn fault_behind(&mut self, now: Now) -> FaultOf {
        let fault = self.store.fault();
        if fault == FaultOf::Disk && self.reopen_at_once(now) {
            self.prove(now);
            if self.failing.is_none() && self.doubt.is_none() {
                return FaultOf::Pages;
            }
        }
        fault
    }

    /// Opens the store again, in doubt. `pause`: the pause after a first proof that fails.
    fn try_to_reopen(&mut self, pause: Duration, now: Now) -> bool {
        match self.call(|store| store.reopen()) {
            Ok(()) => {
                self.health.reopened();
                self.doubt = Some(Retry { again: now.instant, pause });
                true
            }
            Err(why) => {
                self.health.failed(&why, now);
                self.doubt = None;
                false
            }
        }
    }

    /// Removes expired rows, once per `STORE_PURGE_INTERVAL`, or at once again if more are due. After a
    /// failure the pause grows: a damaged page must not close the store each second.
    fn purge(&mut self, now: Now) {
        let at = *self.purge_at.get_or_insert_with(|| self.purge_held_until.unwrap_or(now.instant));
        if now.instant < at {
            return;
        }
        // Twice the rows stored since the last purge: the purge keeps up, and new appends wait little.
        let rows_max = (2 * self.stored).clamp(STORE_PURGE_ROWS_MIN, STORE_PURGE_ROWS_MAX);
        self.stored = 0;
        self.health.forget_old(now);
        let store_now = self.clock.now(now);
        match self.call(|store| store.purge(store_now, rows_max)) {
            Ok(purged) => {
                self.health.purged(purged.rows);
                self.purge_pause = STORE_PURGE_INTERVAL;
                let more = purged.looked_at >= rows_max;
                self.purge_at = Some(now.instant + if more { Duration::ZERO } else { STORE_PURGE_INTERVAL });
            }
            // A reader's error made the handle useless: this purge follows after a pause.
            Err(_) if self.store.fault() == FaultOf::EarlierCall => {
                self.purge_at = Some(now.instant + self.purge_pause);
                self.reopen_at_once(now);
            }
            Err(why) => {
                self.purge_at = Some(now.instant + self.purge_pause);
                self.purge_pause = (self.purge_pause * 2).min(STORE_PURGE_PAUSE_MAX);
                let fault = self.fault_behind(now);
                match fault {
                    FaultOf::Pages => self.health.purge_failed(&why),
                    FaultOf::Disk | FaultOf::FullDisk | FaultOf::EarlierCall => self.health.failed(&why, now),
                }
                self.reopen_after(fault, now);
            }
        }
    }

    /// Proves by a write and a sync that a store in doubt is well. Also writes the clocks of a store with
    /// messages now and then, so that a restart knows how far the messages have aged.
    fn prove(&mut self, now: Now) {
        let store_now = self.clock.now(now);
        let bytes = match self.doubt {
            Some(doubt) if doubt.again <= now.instant => STORE_PROOF_BYTES,
            Some(_) => return,
            None => {
                let is_due = self.store.stamp().is_none_or(|last| {
                    let passed = store_now.noted.store_ms.saturating_sub(last.store_ms);
                    Duration::from_millis(passed) >= STORE_CLOCK_INTERVAL
                        || store_now.noted.step_since(last) > STORE_CLOCK_STEP_MAX
                });
                if !is_due || self.store.holdings().bytes == 0 {
                    return;
                }
                0
            }
        };
        match self.call(|store| store.prove(store_now, bytes)) {
            Ok(()) => {
                self.doubt = None;
                self.health.healed(now);
            }
            // A reader's error made the handle useless: the next turn proves.
            Err(_) if self.store.fault() == FaultOf::EarlierCall => {
                self.reopen_at_once(now);
            }
            Err(why) => {
                self.health.failed(&why, now);
                let pause = self.doubt.map_or(STORE_REOPEN_PAUSE_MIN, |doubt| doubt.pause);
                if self.reopen_at_once(now) {
                    self.doubt =
                        Some(Retry { pause: Retry::doubled(pause), ..Retry::after(pause, now.instant) });
                }
            }
        }
    }

    /// Calls the store, and notes the start and the end. The error is for operators. A panic of the store ends
    /// this call, not the thread.
    fn call<T>(&mut self, ask: impl FnOnce(&mut dyn Store) -> Result<T, StoreError>) -> Result<T, String> {
        self.health.call_begins(WRITER, clock::now());
        let store = &mut *self.store;
        let outcome = catch_unwind(AssertUnwindSafe(|| ask(store)));
        self.health.call_ended(WRITER, Some(self.store.holdings()));
        match outcome {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(self.store.trouble().to_owned()),
            Err(_) => Err("a bug in the store: its panic was printed".to_owned()),
        }
    }

    fn wake(&self) {
        self.desks.iter().for_each(|desk| desk.outlet.wake());
    }
}

fn durable(append: Append) -> StoreAnswer {
    let through = append.messages.last().map_or(0, |message| message.offset);
    StoreAnswer::Durable { room: append.room, life: append.life, through }
}
