//! The log's thread: takes the requests of shards and the orders of the cluster, drives the machine of each slot,
//! and has the client perform their operations.
//!
//! The loop waits for one of {answer of the client, request or order, deadline, stop} and takes a bounded turn. The
//! client's tasks run on the same thread, between two turns.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as handover;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::{AbortHandle, yield_now};
use tokio::time::sleep_until;

use roomcast_core::cluster::node::NODE_VERSION_OLDEST;
use roomcast_core::cluster::{SLOTS, Slot};
use roomcast_core::limits::{
    LOG_HEARD_MAX, LOG_NODE_PAYLOADS_BYTES_MAX, LOG_ORDERS_MAX, LOG_SIZE_INTERVAL, LOG_STOP_AGE_MAX,
    LOG_STREAMS, STORE_BYTES_MAX,
};
use roomcast_core::now::Now;
use roomcast_core::room::id::NameKey;

use super::desks::Desks;
use super::guard::Guard;
use super::holds::Holds;
use super::log::{HeardOp, LogClient};
use super::open::{LogStartError, OpenLog, open};
use super::ops::{LogHeard, LogOp, LogOpKind, OpId};
use super::orders::LogOrder;
use super::slot::{Claimant, SlotLog};
use super::turns::AppendTurns;
use super::way::{LogWay, WayToCluster};
use crate::clock;
use crate::config::cluster::ClusterConfig;
use crate::store::desk::Wake;
use crate::store::handle::{RunningStore, StoreHandle};
use crate::store::health::Health;
use crate::store::time::{LastTimes, StoreClock};
use crate::store::{StoreError, StoreHoldings, StoreRequest};

/// Hears of each acknowledged record: the time from the append to its answer, and the messages. Called on the log's
/// thread, so the function must not wait.
pub type Committed = Box<dyn Fn(Duration, usize) + Send>;

/// The running log. The thread ends once its owner calls [`LogThread::stop`].
#[derive(Debug)]
pub(in crate::store) struct LogThread {
    stop: Arc<AtomicBool>,
    wake: Arc<Notify>,
    /// `None` from the start of the stop.
    thread: Option<JoinHandle<()>>,
}

/// The parts of a log that has started.
struct Started {
    store: Vec<crate::store::port::Port>,
    health: Arc<Health>,
    way: LogWay,
}

/// Opens the log of a cluster and starts its thread, with a port for each of `wakes`. No slot is held before it is
/// ordered. `incarnation` is the random number of the node's life.
///
/// # Errors
/// [`LogStartError`]; then no thread runs.
pub fn start(
    config: &ClusterConfig,
    incarnation: u64,
    wakes: Vec<Wake>,
    committed: Committed,
) -> Result<(StoreHandle, LogWay), LogStartError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let stop = Arc::new(AtomicBool::new(false));
    let wake = Arc::new(Notify::new());
    let (ready, is_ready) = handover::sync_channel(1);
    let config = config.clone();
    let ends = (Arc::clone(&stop), Arc::clone(&wake));
    let thread = thread::Builder::new().name("log".into()).spawn(move || {
        let (stop, wake) = ends;
        runtime.block_on(async move {
            let opened = match open(&config).await {
                Ok(opened) => opened,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let own = Claimant { node: config.node.clone(), incarnation };
            let (shell, started, heard) = LogShell::new(&config.name, &opened, &own, wakes, &wake, committed);
            let health = Arc::clone(&shell.health);
            shell.watch(opened, config.name);
            if ready.send(Ok(started)).is_err() {
                return;
            }
            // A bug ends the log, and the node has to say so. The panic was printed.
            let running = AssertUnwindSafe(Box::pin(shell.run(heard, &wake, &stop))).catch_unwind();
            if running.await.is_err() {
                health.failed(
                    "a bug in the log: its panic was printed, and the node has to be restarted",
                    clock::now(),
                );
            }
        });
    })?;
    let mut running = LogThread { stop, wake, thread: Some(thread) };
    let gone = || Err(std::io::Error::other("its thread ended: the panic was printed").into());
    match is_ready.recv().unwrap_or_else(|_| gone()) {
        Ok(Started { store, health, way }) => {
            Ok((StoreHandle::new(store, health, RunningStore::Log(running)), way))
        }
        Err(error) => {
            running.stop();
            Err(error)
        }
    }
}

impl LogThread {
    /// Has sent requests answered for `LOG_STOP_AGE_MAX`, and ends the thread.
    pub(in crate::store) fn stop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic was printed by the thread.
            thread.join().ok();
        }
    }
}

/// The state of the log's thread.
struct LogShell {
    /// Slot -> its machine.
    machines: Vec<SlotLog>,
    /// Slot -> the append of rows under way, if any.
    commits: Vec<Option<CommitUnderWay>>,
    turns: AppendTurns,
    /// Slot -> the read of its claim, if any, with what ends the client's task.
    reads: Vec<Option<(OpId, AbortHandle)>>,
    holds: Holds,
    desks: Desks,
    way: WayToCluster,
    client: LogClient,
    /// The way back of the client's answers.
    hear: Sender<HeardOp>,
    slot_key: NameKey,
    guard: Arc<Guard>,
    health: Arc<Health>,
    committed: Committed,
    /// The next look at the sizes of all slots.
    sized_at: Instant,
    /// The version of new entries.
    version: u8,
}

/// An append of rows without an answer.
#[derive(Debug, Clone, Copy)]
struct CommitUnderWay {
    id: OpId,
    began: Instant,
    rows: usize,
}

impl LogShell {
    fn new(
        name: &str,
        opened: &OpenLog,
        own: &Claimant,
        wakes: Vec<Wake>,
        wake: &Arc<Notify>,
        committed: Committed,
    ) -> (Self, Started, Receiver<HeardOp>) {
        let now = clock::now();
        let clock = StoreClock::start(LastTimes { stamp: None, newest_ms: None }, now);
        let slot_key = opened.streams.identity.key;
        let health = Arc::new(Health::new(StoreHoldings::default()));
        let desks = Desks::new(wakes);
        let (way, cluster) = WayToCluster::pair(Arc::clone(wake), slot_key);
        let ports = desks.ports(|| {
            let wake = Arc::clone(wake);
            Box::new(move || wake.notify_one())
        });
        let (hear, heard) = mpsc::channel(LOG_HEARD_MAX);
        let machine = |slot| SlotLog::new(slot, own.clone(), clock, STORE_BYTES_MAX / LOG_STREAMS as u64);
        let shell = Self {
            machines: Slot::all().map(machine).collect(),
            commits: vec![None; SLOTS],
            turns: AppendTurns::default(),
            reads: vec![None; SLOTS],
            holds: Holds::new(now.instant),
            desks,
            way,
            client: LogClient::new(opened.client.clone(), name),
            hear,
            slot_key,
            guard: Arc::new(Guard::new()),
            health: Arc::clone(&health),
            committed,
            sized_at: now.instant,
            version: NODE_VERSION_OLDEST,
        };
        (shell, Started { store: ports, health, way: cluster }, heard)
    }

    /// Starts the tasks that watch the servers.
    fn watch(&self, opened: OpenLog, name: String) {
        let OpenLog { login, jetstream, streams, proven, reconnected, .. } = opened;
        tokio::spawn(Arc::clone(&self.guard).keep_measuring(jetstream, name));
        if let Some(proven) = proven {
            tokio::spawn(Arc::clone(&self.guard).keep_proving(login, streams, reconnected, proven));
        }
    }

    async fn run(mut self, mut heard: Receiver<HeardOp>, wake: &Notify, stop: &AtomicBool) {
        let mut is_busy = false;
        let mut stop_by = None;
        loop {
            let mut first = None;
            if is_busy {
                // The client's tasks get their turn between two of ours.
                yield_now().await;
            } else {
                let deadline = self.deadline(stop_by);
                tokio::select! {
                    answer = heard.recv() => first = answer,
                    () = wake.notified() => {}
                    () = sleep_until(deadline.into()) => {}
                }
            }
            let now = clock::now();
            if stop.load(Ordering::Acquire) {
                let by = *stop_by.get_or_insert(now.instant + LOG_STOP_AGE_MAX);
                if self.desks.are_idle() || now.instant >= by {
                    return;
                }
            }
            is_busy = self.turn(first, &mut heard, now);
        }
    }

    fn deadline(&self, stop_by: Option<Instant>) -> Instant {
        let machines = self.machines.iter().filter_map(SlotLog::poll_deadline);
        machines.chain(stop_by).fold(self.sized_at, Instant::min)
    }

    /// Takes a turn. True if more waits.
    fn turn(&mut self, first: Option<HeardOp>, heard: &mut Receiver<HeardOp>, now: Now) -> bool {
        let rest = std::iter::from_fn(|| heard.try_recv().ok()).take(LOG_HEARD_MAX);
        for HeardOp { slot, id, heard } in first.into_iter().chain(rest) {
            // The answer to an operation that was given up comes late, and says nothing of the slot as it is now.
            if self.machines[slot.index()].awaits(id) {
                self.note_heard(slot, id, &heard, now);
            }
            self.turns.end(slot, id);
            self.machines[slot.index()].hear(id, heard, now);
        }
        let version = self.way.version();
        if std::mem::replace(&mut self.version, version) != version {
            self.machines.iter_mut().for_each(|machine| machine.write_version(version));
        }
        for _ in 0..LOG_ORDERS_MAX {
            let Some(order) = self.way.next_order() else { break };
            self.holds.ordered(&order, now.instant);
            self.machines[order.slot().index()].order(&order, now);
        }
        let is_more = self.take_requests(now);
        if now.instant >= self.sized_at {
            self.sized_at = now.instant + LOG_SIZE_INTERVAL;
            self.look_at_all(now);
        }
        for slot in Slot::all() {
            let machine = &mut self.machines[slot.index()];
            if machine.poll_deadline().is_some_and(|deadline| deadline <= now.instant) && machine.due(now) {
                self.holds.troubled(slot);
                self.health.failed("JetStream does not answer", now);
            }
            self.drain(slot, now);
        }
        self.send_appends(now);
        self.way.tell_late();
        self.desks.wake();
        is_more
    }

    fn take_requests(&mut self, now: Now) -> bool {
        let Self { desks, machines, guard, slot_key, .. } = self;
        let is_unproven = guard.unproven().is_some();
        desks.take(|desks, desk, request| {
            let slot = Slot::of(request.room(), *slot_key);
            let refused = match &request {
                StoreRequest::Append(_) if is_unproven => Some(StoreError::Failing),
                StoreRequest::Append(_) if guard.is_full(slot) => Some(StoreError::Full),
                _ => None,
            };
            match refused {
                Some(error) => desks.answer(desk, request.failed(error)),
                None => machines[slot.index()].request(desk, request, now),
            }
        })
    }

    /// Takes all outputs of a slot's machine.
    fn drain(&mut self, slot: Slot, now: Now) {
        let machine = &mut self.machines[slot.index()];
        while let Some((desk, answer)) = machine.poll_answer() {
            self.desks.answer(desk, answer);
        }
        while let Some(news) = machine.poll_news() {
            self.holds.told(&news);
            self.way.tell(news);
        }
        // The rest of a long log would be read for nobody.
        if let Some((_, read)) = self.reads[slot.index()].take_if(|(id, _)| !machine.awaits(*id)) {
            read.abort();
        }
        while let Some(op) = machine.poll_op() {
            if matches!(op.kind, LogOpKind::Append { .. }) {
                self.commits[slot.index()] = commit(&op, now.instant).or_else(|| self.commits[slot.index()]);
                self.turns.wait(op);
                continue;
            }
            let id = op.id;
            let is_long = matches!(op.kind, LogOpKind::Read { .. });
            let task = tokio::spawn(self.client.clone().perform(op, self.hear.clone()));
            if is_long {
                self.reads[slot.index()] = Some((id, task.abort_handle()));
            }
        }
    }

    /// Sends the appends whose turn it is.
    fn send_appends(&mut self, now: Now) {
        let Self { turns, machines, .. } = self;
        while let Some(op) = turns.next(|slot, id| machines[slot.index()].awaits(id)) {
            machines[op.slot.index()].leaves(op.id, now);
            tokio::spawn(self.client.clone().perform(op, self.hear.clone()));
        }
    }

    /// Counts a commit, and notes a slot's trouble or its end.
    fn note_heard(&mut self, slot: Slot, id: OpId, heard: &LogHeard, now: Now) {
        match heard {
            LogHeard::Unknown(why) => {
                self.holds.troubled(slot);
                self.health.failed(why, now);
            }
            LogHeard::Appended { .. } => {
                let commit = self.commits[slot.index()].take_if(|commit| commit.id == id);
                if let Some(CommitUnderWay { began, rows, .. }) = commit {
                    let took = now.instant.saturating_duration_since(began);
                    self.health.counted(rows, took);
                    (self.committed)(took, rows);
                }
                self.holds.well(slot);
            }
            LogHeard::Last(_) | LogHeard::Read { .. } => self.holds.well(slot),
            LogHeard::Refused | LogHeard::Full => {}
        }
    }

    /// Tells the sizes and the troubles of all slots.
    fn look_at_all(&mut self, now: Now) {
        let mut holdings = StoreHoldings::default();
        let mut out_of_term = 0;
        let held = self.holds.tally(0).held.max(1);
        let payload_bytes =
            LOG_NODE_PAYLOADS_BYTES_MAX / usize::try_from(held).expect("at most as many as slots");
        for (slot, machine) in Slot::all().zip(&mut self.machines) {
            machine.bound_payloads(payload_bytes);
            // Nobody may publish to its rooms for hours, and a slot that is held again proves itself.
            if self.holds.is_troubled(slot) {
                machine.order(&LogOrder::Renew { slot }, now);
            }
            let StoreHoldings { bytes, quarantined } = machine.holdings();
            holdings.bytes += bytes;
            holdings.quarantined += quarantined;
            out_of_term += machine.out_of_term();
        }
        self.health.holds(holdings, self.holds.tally(out_of_term), self.holds.troubled_slots());
        let trouble = self.guard.unproven().or_else(|| self.holds.late(now.instant));
        if let Some(why) = trouble {
            self.health.failed(&why, now);
        } else if self.holds.are_well() {
            self.health.healed(now);
        }
    }
}

/// An operation that appends rows, as it begins.
fn commit(op: &LogOp, now: Instant) -> Option<CommitUnderWay> {
    match op.kind {
        LogOpKind::Append { rows, .. } if rows > 0 => Some(CommitUnderWay { id: op.id, began: now, rows }),
        _ => None,
    }
}
