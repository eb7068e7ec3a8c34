//! A worker process: a part of the run's devices, with orders on stdin and words on stdout, one JSON line
//! each.
//!
//! One process may open about 20 000 descriptors, so larger crowds need several processes. A worker ends when
//! its stdin closes, so no worker outlives its coordinator.

use std::io::{BufRead as _, Write as _};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;

use crate::clock::{self, monotonic_ns, thread_processor_ns};
use crate::devices::assignment::Assignment;
use crate::devices::known::Known;
use crate::devices::readable::Readers;
use crate::devices::streams::{Original, Streams};
use crate::devices::viewer::Devices;
use crate::devices::watch::Watch;
use crate::fleet::words::{Order, Progress, Word, WorkerResult};
use crate::ledger::APPLY_AGE_MAX_NS;
use crate::machine::busy::Busiest;
use crate::machine::environment::{file, memory_bytes};
use crate::machine::sockets;

/// Longest wait of one turn: pings, retries and deadlines are checked between turns.
const TURN: Duration = Duration::from_millis(50);
/// Watching time for repeated messages after every device has everything.
pub(crate) const SETTLE_NS: u64 = 300_000_000;
/// The same for a worker with rooms without a device present throughout: longer than a node gathers.
const QUIET_NS: u64 = 1_500_000_000;
/// Longest extension of the deadline: a device that returned before the deadline has its 3 s and the watch for
/// repeats. Later returns are judged by the time that they had.
const RETURN_MAX_NS: u64 = APPLY_AGE_MAX_NS + SETTLE_NS;
const PROGRESS_EVERY_NS: u64 = 1_000_000_000;

/// Runs a worker until its result is sent or stdin closes.
///
/// # Errors
/// A broken pipe, or an invalid order.
pub(crate) fn run() -> std::io::Result<()> {
    let Some(assignment) = await_assignment()? else { return Ok(()) };
    let rooms = assignment.own_rooms();
    let own_devices = assignment.own_devices();
    let warm_up_ns = assignment.plan.warm_up_ms * 1_000_000;
    let mut viewers = crowd(*assignment, &rooms)?;
    let orders = listen(viewers.waker()?);
    let mut state = State::default();
    loop {
        if let Err(reason) = viewers.turn(TURN) {
            return say(&Word::Failed { reason });
        }
        state.report(&mut viewers)?;
        match orders.try_recv() {
            Ok(Order::Start { start_ns }) => {
                viewers.watch.start(start_ns, warm_up_ns);
                viewers.begin(start_ns);
                let now_ns = monotonic_ns();
                state.busiest = Some(Busiest::from(now_ns, thread_processor_ns()));
                state.progress_ns = now_ns + PROGRESS_EVERY_NS;
                say(&Word::Started)?;
            }
            Ok(Order::Finish { accepted, heads, grace_ms }) => {
                if let Some(busiest) = state.busiest.take() {
                    state.busy = busiest.end(monotonic_ns(), thread_processor_ns());
                }
                let rooms = || rooms.iter().map(|room| *room as usize);
                let in_room = |room: usize| {
                    accepted.iter().map(|rooms| rooms.get(room).copied().unwrap_or(0)).collect()
                };
                let accepted = rooms().map(in_room).collect();
                let heads = rooms().map(|room| heads.get(room).copied().unwrap_or(0)).collect();
                let deadline_ns = monotonic_ns() + grace_ms * 1_000_000;
                state.finish = Some(Finish { accepted, heads, deadline_ns, level_since_ns: None, newest: 0 });
                if let Err(reason) = viewers.calm() {
                    return say(&Word::Failed { reason });
                }
            }
            Ok(Order::Clock) => say_time()?,
            Ok(Order::Connect(_)) | Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
        if state.finish.as_mut().is_some_and(|finish| finish.is_over(&viewers)) {
            viewers.end();
            say(&Word::Result(Box::new(outcome(&mut viewers, own_devices, state.busy))))?;
            // The devices stay until the coordinator has read the node's cost: their leaving is no part of
            // the run.
            while let Ok(order) = orders.recv() {
                if matches!(order, Order::Clock) {
                    say_time()?;
                }
            }
            viewers.leave_all();
            return Ok(());
        }
    }
}

/// Obeys orders up to `Connect`. `None`: the coordinator is gone.
fn await_assignment() -> std::io::Result<Option<Box<Assignment>>> {
    let mut line = String::new();
    loop {
        line.clear();
        if std::io::stdin().lock().read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match serde_json::from_str(&line)? {
            Order::Clock => say_time()?,
            Order::Connect(assignment) => {
                clock::is_ahead_by(assignment.ahead_ns);
                sockets::come_from(assignment.plan.target.sources.clone());
                return Ok(Some(assignment));
            }
            Order::Start { .. } | Order::Finish { .. } => {
                return Err(std::io::Error::other("nothing starts or ends before it is connected"));
            }
        }
    }
}

fn say_time() -> std::io::Result<()> {
    say(&Word::Clock { monotonic_ns: monotonic_ns() })
}

fn outcome(viewers: &mut Devices, devices: u32, busy: f64) -> WorkerResult {
    let joins = viewers.joins.buckets();
    let moves = viewers.moves;
    let watch = &mut viewers.watch;
    let rooms = watch.finish();
    let streams = watch.streams.as_mut();
    let (stream_tally, after_return, streams) = streams.map_or_else(Default::default, |streams| {
        (streams.tally, streams.after_return.buckets(), streams.finish())
    });
    WorkerResult {
        devices,
        peak_bytes: memory_bytes(&file("/proc/self/status"), "VmHWM"),
        busy,
        joins,
        moves,
        ages_stride: watch.figures.kept_ages.stride,
        tally: watch.tally,
        types: std::mem::take(&mut watch.figures.types),
        readings: watch.readers.as_ref().map(Readers::readings).unwrap_or_default(),
        violations: std::mem::take(&mut watch.violations),
        rooms,
        stream_tally,
        after_return,
        streams,
    }
}

#[derive(Default)]
struct State {
    ready: bool,
    reported: usize,
    finish: Option<Finish>,
    /// Processor use of this thread; `Some` while messages are published.
    busiest: Option<Busiest>,
    /// Share of a processor in the busiest second; 0 until publishing ends.
    busy: f64,
    /// Due time of the next progress word; 0 before publishing.
    progress_ns: u64,
}

impl State {
    /// Before the start: a word for each 1 000 connected devices, and one when all are ready. After the
    /// start: progress.
    fn report(&mut self, viewers: &mut Devices) -> std::io::Result<()> {
        if self.ready {
            let now_ns = monotonic_ns();
            if let Some(busiest) = &mut self.busiest {
                busiest.look(now_ns, thread_processor_ns);
            }
            if self.progress_ns == 0 || now_ns < self.progress_ns {
                return Ok(());
            }
            self.progress_ns = now_ns + PROGRESS_EVERY_NS;
            return say(&Word::Progress(progress(viewers)));
        }
        if viewers.is_ready() {
            self.ready = true;
            return say(&Word::Ready { devices: viewers.watching as u64 });
        }
        if viewers.watching >= self.reported + 1_000 {
            self.reported = viewers.watching;
            say(&Word::Connected { devices: self.reported as u64 })?;
        }
        Ok(())
    }
}

fn progress(viewers: &mut Devices) -> Progress {
    let watching = viewers.watching as u64;
    let joining = viewers.joining() as u64;
    let watch = &mut viewers.watch;
    Progress {
        watching,
        joining,
        frames: watch.tally.frames,
        deliveries: watch.tally.deliveries,
        violations: watch.violations.total(),
        latency: watch.figures.take_recent(),
    }
}

struct Finish {
    /// Place -> type -> accepted messages.
    accepted: Vec<Vec<u64>>,
    /// Place -> durable end of the stream.
    heads: Vec<u64>,
    deadline_ns: u64,
    level_since_ns: Option<u64>,
    /// The newest news at the last check.
    newest: u64,
}

impl Finish {
    fn is_over(&mut self, viewers: &Devices) -> bool {
        let now_ns = monotonic_ns();
        let newest = viewers.watch.newest();
        // Any news restarts the watch for repeated messages.
        if newest != self.newest || !viewers.is_level(&self.accepted, &self.heads) {
            self.level_since_ns = None;
        } else if self.level_since_ns.is_none() {
            self.level_since_ns = Some(now_ns);
        }
        self.newest = newest;
        // No device leaves any more, so returns move the end by at most `RETURN_MAX_NS`.
        let last_ns = viewers.latest_return_ns + APPLY_AGE_MAX_NS + SETTLE_NS;
        now_ns >= self.deadline_ns.max(last_ns.min(self.deadline_ns + RETURN_MAX_NS))
            || self.level_since_ns.is_some_and(|since_ns| {
                // Without a device present throughout, the end of a room's messages is unknown, so wait as
                // long as rooms gather.
                now_ns >= since_ns + QUIET_NS || (now_ns >= since_ns + SETTLE_NS && viewers.knows_all_rooms())
            })
    }
}

fn crowd(assignment: Assignment, rooms: &[u32]) -> std::io::Result<Devices> {
    let Assignment { plan, worker, workers, .. } = &assignment;
    let mut known = Known::new(plan.loads.clone(), &plan.limits, plan.seed);
    known.others = plan.others;
    let mut watch = Watch::new(known, plan.encoding, &plan.target.room_stem, rooms);
    let slow_bytes_per_s = plan.awkward.slow_bytes_per_s;
    watch.streams =
        Original::of(plan).map(|original| Streams::new(original, rooms.iter().copied(), slow_bytes_per_s));
    let limits = plan.limits.len();
    watch.readers = (limits > 0).then(|| Readers::new(limits, assignment.own_devices(), *worker, *workers));
    watch.through_restarts = plan.awkward.through_restarts;
    Devices::new(assignment, rooms, watch)
}

/// Reads orders on a thread of its own. The thread ends, and with it the worker, when stdin closes.
fn listen(waker: mio::Waker) -> Receiver<Order> {
    let (sender, orders) = sync_channel(4);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(order) = line.and_then(|line| Ok(serde_json::from_str(&line)?)) else { break };
            if sender.send(order).is_err() {
                return;
            }
            drop(waker.wake());
        }
        drop(sender);
        drop(waker.wake());
    });
    orders
}

fn say(word: &Word) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer(&mut stdout, word)?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_word_says_what_is_and_its_latencies_are_added() {
        let mut all = Progress::default();
        let word = |watching, frames, latency| Progress { watching, frames, latency, ..Progress::default() };
        let mut worker = word(5, 10, vec![(100, 1), (300, 1)]);
        worker.go_on(word(4, 30, vec![(200, 2), (300, 2)]));
        assert_eq!(worker, word(4, 30, vec![(100, 1), (200, 2), (300, 3)]));
        all.add(&worker);
        all.add(&word(1, 1, vec![(100, 1)]));
        assert_eq!(all, word(5, 31, vec![(100, 2), (200, 2), (300, 3)]));
    }
}
