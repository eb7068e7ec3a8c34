//! A worker process: some of the run's devices, told what to do on stdin, answering on stdout, one JSON line each.
//!
//! One process may open about 20 000 descriptors, so larger crowds need several. A worker ends when its stdin does, so
//! none outlives its coordinator.

use std::io::{BufRead as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::audience::Audience;
use crate::awkward::{Awkward, Moves};
use crate::clock::{self, monotonic_ns, thread_processor_ns};
use crate::doors::Door;
use crate::figures::{TypeCounts, TypeFigures};
use crate::frame::Encoding;
use crate::generator::{Busiest, peak_bytes};
use crate::handshake::Handshake;
use crate::known::Known;
use crate::latency::Buckets;
use crate::ledger::{RoomSeen, StreamSeen, Violations};
use crate::mix::{Limit, Load};
use crate::payload::{Payloads, reliable_seed};
use crate::plan::{Reliable, Storm};
use crate::readable::{Readers, Reading};
use crate::seating::{Seating, Sizes};
use crate::sockets;
use crate::streams::{APPLY_AGE_MAX_NS, Original, StreamTally, Streams};
use crate::viewer::{Crowd, Seats, Viewers};
use crate::watch::{RoomToWatch, Tally, Watch};

/// Longest wait of one turn, so that pings, retries and deadlines are looked at.
const TURN: Duration = Duration::from_millis(50);
/// After every device has everything, how long to watch for what comes twice.
pub(crate) const SETTLE_NS: u64 = 300_000_000;
/// The same of a worker that has rooms in which nobody was there throughout: longer than a node gathers, and then some.
const QUIET_NS: u64 = 1_500_000_000;
/// How much later than its deadline a run may end, so that devices that came back have their 3 s.
const RETURN_MAX_NS: u64 = 10_000_000_000;
/// How often a worker says how far it is, from the start on.
const PROGRESS_EVERY_NS: u64 = 1_000_000_000;

/// What one worker is to hold.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) loads: Vec<Load>,
    pub(crate) rooms: u32,
    pub(crate) limits: Vec<Limit>,
    pub(crate) others: bool,
    pub(crate) reliable: Option<Reliable>,
    pub(crate) awkward: Awkward,
    pub(crate) encoding: Encoding,
    pub(crate) seed: u64,
    pub(crate) room_stem: String,
    pub(crate) viewer_door: Door,
    pub(crate) device_token: Option<String>,
    /// Which of the run's workers this is, and how many there are: device n is of worker n modulo that.
    pub(crate) worker: u32,
    pub(crate) workers: u32,
    /// Devices of the whole run.
    pub(crate) devices: u32,
    pub(crate) audience: Audience,
    pub(crate) sizes: Sizes,
    pub(crate) storms: Vec<Storm>,
    /// What is due so soon after the start is in the ledger and not in the figures of time.
    pub(crate) warm_up_ms: u64,
    pub(crate) source: Ipv4Addr,
    pub(crate) handshakes_max: u32,
}

impl Assignment {
    /// Devices of this worker.
    #[must_use]
    pub(crate) fn own_devices(&self) -> u32 {
        self.devices.saturating_sub(self.worker).div_ceil(self.workers.max(1))
    }

    fn seating(&self) -> Seating {
        Seating::new(self.sizes, self.devices, self.rooms, self.seed)
    }

    /// The rooms that this worker's devices may come to, each once, in order.
    #[must_use]
    pub(crate) fn own_rooms(&self) -> Vec<u32> {
        if self.awkward.hop_share > 0 {
            return (0..self.rooms.min(self.devices)).collect();
        }
        let mut rooms = self.seats();
        rooms.sort_unstable();
        rooms.dedup();
        rooms
    }

    /// The room of each of this worker's devices.
    fn seats(&self) -> Vec<u32> {
        let seating = self.seating();
        let own = (self.worker..self.devices).step_by(self.workers.max(1) as usize);
        own.map(|device| seating.room_of(device)).collect()
    }
}

/// The name of a room of a run.
#[must_use]
pub(crate) fn room_name(stem: &str, room: u32) -> String {
    format!("{stem}-{room}")
}

/// Coordinator to worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Say what time it is.
    Clock,
    /// What to know before connecting: how far the clock is ahead of the coordinator's, and where devices come from.
    Prepare { ahead_ns: i64, sources: Vec<IpAddr> },
    /// Connect these devices.
    Connect(Box<Assignment>),
    /// Publishing begins at this time.
    Start { start_ns: u64 },
    /// Publishing ended; so much of each type was accepted in each room, and each stream is durable up to its head. End by
    /// yourself, at the latest after `grace_ms` or when the last device to come back had its 3 s.
    Finish { accepted: Vec<Vec<u64>>, heads: Vec<u64>, grace_ms: u64 },
}

/// Worker to coordinator.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    /// What time it is.
    Clock { monotonic_ns: u64 },
    /// So many devices are in their rooms; more are to come.
    Connected { devices: u64 },
    /// Every device is in its room that is to be there before the first publish.
    Ready { devices: u64 },
    /// The start is known.
    Started,
    /// How far it is; about once a second from the start on.
    Progress(Progress),
    /// No device, or not all of them, could be connected.
    Failed { reason: String },
    /// What the devices saw.
    Result(Box<Outcome>),
}

/// How far a worker, or all together, are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Devices that are in their rooms.
    pub(crate) watching: u64,
    /// Devices on their way there.
    pub(crate) joining: u64,
    /// Batch frames since the start.
    pub(crate) frames: u64,
    /// Messages of ours in them.
    pub(crate) deliveries: u64,
    /// Broken promises that show while frames arrive.
    pub(crate) violations: u64,
    /// From when messages were due to when devices had them, since this was last said; to 9 %.
    pub(crate) latency: Buckets,
}

impl Progress {
    /// Takes in a later word of the same worker: its latencies are added, and all else is as it says.
    pub(crate) fn go_on(&mut self, mut later: Self) {
        add_buckets(&mut later.latency, &self.latency);
        *self = later;
    }

    /// Adds another worker's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.watching += other.watching;
        self.joining += other.joining;
        self.frames += other.frames;
        self.deliveries += other.deliveries;
        self.violations += other.violations;
        add_buckets(&mut self.latency, &other.latency);
    }
}

/// Adds buckets to others. They are those of `timeline`'s steps, so there are never many.
fn add_buckets(mine: &mut Buckets, theirs: &Buckets) {
    for (value_us, count) in theirs {
        match mine.binary_search_by_key(value_us, |(value_us, _)| *value_us) {
            Ok(at) => mine[at].1 += count,
            Err(at) => mine.insert(at, (*value_us, *count)),
        }
    }
}

/// What the devices of one worker saw.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// How many devices they were.
    pub(crate) devices: u32,
    /// The most memory that the worker's process held.
    pub(crate) peak_bytes: u64,
    /// The part of a processor that its thread used in the busiest second of publishing.
    pub(crate) busy: f64,
    /// From when devices were to join, or to come back, to their welcome.
    pub(crate) joins: Buckets,
    pub(crate) moves: Moves,
    /// In `rooms` there are the spreads of one in so many batches.
    pub(crate) spread_stride: u64,
    pub(crate) tally: Tally,
    /// By type.
    pub(crate) types: Vec<TypeCounts>,
    /// By limit.
    pub(crate) readings: Vec<Reading>,
    pub(crate) violations: Violations,
    pub(crate) rooms: Vec<RoomSeen>,
    pub(crate) stream_tally: StreamTally,
    pub(crate) after_return: Buckets,
    pub(crate) streams: Vec<StreamSeen>,
}

/// Runs a worker until its result is given or its stdin ends.
///
/// # Errors
/// When a pipe to the coordinator breaks, or it says something that is no order.
pub(crate) fn run() -> std::io::Result<()> {
    let Some(assignment) = await_assignment()? else { return Ok(()) };
    let rooms = assignment.own_rooms();
    let mut viewers = crowd(&assignment, &rooms)?;
    let orders = listen(viewers.waker()?);
    let mut state = State { ready: false, reported: 0, finish: None, use_of: Use::default() };
    loop {
        if let Err(reason) = viewers.turn(TURN) {
            return say(&Word::Failed { reason });
        }
        state.report(&mut viewers)?;
        match orders.try_recv() {
            Ok(Order::Start { start_ns }) => {
                viewers.watch.start(start_ns, assignment.warm_up_ms * 1_000_000);
                viewers.begin(start_ns);
                state.use_of.begin(monotonic_ns());
                say(&Word::Started)?;
            }
            Ok(Order::Finish { accepted, heads, grace_ms }) => {
                state.use_of.end(monotonic_ns());
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
            Ok(Order::Connect(_) | Order::Prepare { .. }) | Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
        if state.finish.as_mut().is_some_and(|finish| finish.is_over(&viewers)) {
            viewers.end();
            say(&Word::Result(Box::new(outcome(&mut viewers, assignment.own_devices(), state.use_of.busy))))?;
            // The devices stay until the coordinator has asked the node what the run cost: their leaving is no part of it.
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

/// Does what is asked before connecting; `None` when the coordinator went away.
fn await_assignment() -> std::io::Result<Option<Box<Assignment>>> {
    let mut line = String::new();
    loop {
        line.clear();
        if std::io::stdin().lock().read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match serde_json::from_str(&line)? {
            Order::Clock => say_time()?,
            Order::Prepare { ahead_ns, sources } => {
                clock::is_ahead_by(ahead_ns);
                sockets::come_from(sources);
            }
            Order::Connect(assignment) => return Ok(Some(assignment)),
            Order::Start { .. } | Order::Finish { .. } => {
                return Err(std::io::Error::other("nothing starts or ends before it is connected"));
            }
        }
    }
}

fn say_time() -> std::io::Result<()> {
    say(&Word::Clock { monotonic_ns: monotonic_ns() })
}

fn outcome(viewers: &mut Viewers, devices: u32, busy: f64) -> Outcome {
    let (joins, moves, watch) = (viewers.joins.buckets(), viewers.moves, &mut viewers.watch);
    let rooms = watch.finish();
    let streams = watch.streams.as_mut();
    let (stream_tally, after_return, streams) = streams.map_or_else(Default::default, |streams| {
        (streams.tally, streams.after_return.buckets(), streams.finish())
    });
    Outcome {
        devices,
        peak_bytes: peak_bytes(&std::fs::read_to_string("/proc/self/status").unwrap_or_default()),
        busy,
        joins,
        moves,
        spread_stride: watch.figures.spreads.stride(),
        tally: watch.tally,
        types: watch.figures.types.iter().map(TypeFigures::counts).collect(),
        readings: watch.readers.as_ref().map(Readers::readings).unwrap_or_default(),
        violations: std::mem::take(&mut watch.violations),
        rooms,
        stream_tally,
        after_return,
        streams,
    }
}

struct State {
    ready: bool,
    reported: usize,
    finish: Option<Finish>,
    use_of: Use,
}

/// The processor time that this thread uses while messages are published.
#[derive(Debug, Default)]
struct Use {
    /// From when publishing began until it is over.
    busiest: Option<Busiest>,
    /// The part of a processor in the busiest second, once it is over.
    busy: f64,
    /// When the next word of progress is due; 0: publishing has not begun.
    progress_ns: u64,
}

impl Use {
    fn begin(&mut self, now_ns: u64) {
        self.busiest = Some(Busiest::from(now_ns, thread_processor_ns()));
        self.progress_ns = now_ns + PROGRESS_EVERY_NS;
    }

    /// Looked at after every turn.
    fn read(&mut self, now_ns: u64) {
        if let Some(busiest) = self.busiest.as_mut().filter(|busiest| busiest.is_due(now_ns)) {
            busiest.read(now_ns, thread_processor_ns());
        }
    }

    fn end(&mut self, now_ns: u64) {
        if let Some(busiest) = self.busiest.take() {
            self.busy = busiest.end(now_ns, thread_processor_ns());
        }
    }
}

impl State {
    /// Says how far connecting is: each thousand, and the end; after the start, how far the run is.
    fn report(&mut self, viewers: &mut Viewers) -> std::io::Result<()> {
        if self.ready {
            let now_ns = monotonic_ns();
            self.use_of.read(now_ns);
            if self.use_of.progress_ns == 0 || now_ns < self.use_of.progress_ns {
                return Ok(());
            }
            self.use_of.progress_ns = now_ns + PROGRESS_EVERY_NS;
            return say(&Word::Progress(progress(viewers)));
        }
        if viewers.is_ready() {
            self.ready = true;
            return say(&Word::Ready { devices: viewers.watching() as u64 });
        }
        if viewers.watching() >= self.reported + 1_000 {
            self.reported = viewers.watching();
            say(&Word::Connected { devices: self.reported as u64 })?;
        }
        Ok(())
    }
}

fn progress(viewers: &mut Viewers) -> Progress {
    let (watching, joining) = (viewers.watching() as u64, viewers.joining() as u64);
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
    /// What was accepted, by place and type.
    accepted: Vec<Vec<u64>>,
    /// How far each stream is durable, by place.
    heads: Vec<u64>,
    deadline_ns: u64,
    level_since_ns: Option<u64>,
    /// What was heard of when this was last asked.
    newest: u64,
}

impl Finish {
    fn is_over(&mut self, viewers: &Viewers) -> bool {
        let now_ns = monotonic_ns();
        let newest = viewers.watch.newest();
        if newest != self.newest || !viewers.is_level(&self.accepted, &self.heads) {
            self.level_since_ns = None;
        } else if self.level_since_ns.is_none() {
            self.level_since_ns = Some(now_ns);
        }
        self.newest = newest;
        // Nobody goes away any more, so this moves the end by a few seconds at most, while the node is there.
        let last_ns = viewers.latest_return_ns() + APPLY_AGE_MAX_NS + SETTLE_NS;
        now_ns >= self.deadline_ns.max(last_ns.min(self.deadline_ns + RETURN_MAX_NS))
            || self.level_since_ns.is_some_and(|since_ns| {
                // Where nobody was there throughout, nobody can tell when all has come: it is awaited as long as rooms gather.
                now_ns >= since_ns + QUIET_NS || (now_ns >= since_ns + SETTLE_NS && viewers.knows_all_rooms())
            })
    }
}

/// The devices of an assignment; `rooms` are theirs, each once, in order.
fn crowd(assignment: &Assignment, rooms: &[u32]) -> std::io::Result<Viewers> {
    let name = |room: &u32| room_name(&assignment.room_stem, *room);
    let places = assignment.seats().into_iter().map(|room| rooms.partition_point(|other| *other < room));
    let seats = Seats {
        room_names: rooms.iter().map(name).collect(),
        places: places.map(|place| u32::try_from(place).unwrap_or(u32::MAX)).collect(),
    };
    let to_watch = rooms.iter().map(|room| RoomToWatch { room: *room, name: name(room) });
    let known = Known::new(assignment.loads.clone(), assignment.seed)
        .with_limits(&assignment.limits)
        .with_others(assignment.others);
    let limits = assignment.limits.len();
    let numbers = (assignment.worker, assignment.workers.max(1));
    let readers = (limits > 0).then(|| Readers::new(limits, assignment.own_devices(), numbers));
    let streams = assignment.reliable.as_ref().map(|reliable| {
        let original = Original {
            schedule: reliable.schedule.clone(),
            payloads: Payloads::new(reliable.length, reliable_seed(assignment.seed)),
            types: reliable.types.clone(),
            ttl_ms: reliable.ttl_ms,
            others: assignment.others,
        };
        Streams::new(original, rooms.iter().copied())
    });
    let watch = Watch::new(known, assignment.encoding, to_watch)
        .with_streams(streams)
        .with_readers(readers)
        .through_restarts(assignment.awkward.through_restarts);
    let door = assignment.viewer_door.clone();
    let address = door.address();
    let crowd = Crowd {
        worker: assignment.worker,
        workers: assignment.workers.max(1),
        rooms: assignment.rooms,
        seating: assignment.seating(),
        audience: assignment.audience.clone(),
        storms: assignment.storms.clone(),
        source: assignment.source,
        handshakes_max: assignment.handshakes_max,
        awkward: assignment.awkward,
        seed: assignment.seed,
    };
    let handshake = Handshake::new(door, assignment.encoding, assignment.device_token.clone());
    Viewers::new(crowd, address, handshake, assignment.encoding.ping(), seats, watch)
}

/// Reads orders on a thread of its own. It ends, and with it the worker, when stdin does.
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
