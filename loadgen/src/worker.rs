//! A worker process: some of the run's devices, told what to do on stdin, answering on stdout, one JSON line each.
//!
//! One process may open about 20 000 descriptors, so larger crowds need several. A worker ends when its stdin does, so
//! none outlives its coordinator.

use std::io::{BufRead as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::args::Reliable;
use crate::awkward::Awkward;
use crate::clock::{self, monotonic_ns};
use crate::doors::Door;
use crate::figures::{TypeCounts, TypeFigures};
use crate::frame::Encoding;
use crate::handshake::Handshake;
use crate::known::Known;
use crate::latency::Buckets;
use crate::ledger::{RoomSeen, StreamSeen, Violations};
use crate::mix::{Limit, Load};
use crate::payload::{Payloads, reliable_seed};
use crate::readable::{Readers, Reading};
use crate::sockets;
use crate::streams::{APPLY_AGE_MAX_NS, Original, StreamTally, Streams};
use crate::viewer::{Crowd, Viewers};
use crate::watch::{RoomToWatch, Tally, Watch};

/// Longest wait of one turn, so that pings, retries and deadlines are looked at.
const TURN: Duration = Duration::from_millis(50);
/// After every device has everything, how long to watch for what comes twice.
pub(crate) const SETTLE_NS: u64 = 300_000_000;
/// How much later than its deadline a run may end, so that devices that came back have their 3 s.
const RETURN_MAX_NS: u64 = 10_000_000_000;

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
    pub(crate) payload_bytes: usize,
    pub(crate) seed: u64,
    pub(crate) room_stem: String,
    pub(crate) viewer_door: Door,
    pub(crate) device_token: Option<String>,
    pub(crate) first_device: u32,
    pub(crate) devices: u32,
    pub(crate) source: Ipv4Addr,
    pub(crate) handshakes_max: u32,
}

impl Assignment {
    /// How many rooms this worker's devices are in.
    fn places(&self) -> u32 {
        self.devices.min(self.rooms)
    }

    /// The room at `place`.
    fn room(&self, place: u32) -> u32 {
        (self.first_device + place) % self.rooms
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
    /// Every device is in its room.
    Ready,
    /// The start is known.
    Started,
    /// No device, or not all of them, could be connected.
    Failed { reason: String },
    /// What the devices saw.
    Result(Box<Outcome>),
}

/// What the devices of one worker saw.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
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
    let mut viewers = crowd(&assignment)?;
    let orders = listen(viewers.waker()?);
    let mut state = State { ready: false, reported: 0, finish: None };
    loop {
        if let Err(reason) = viewers.turn(TURN) {
            return say(&Word::Failed { reason });
        }
        state.report(&viewers)?;
        match orders.try_recv() {
            Ok(Order::Start { start_ns }) => {
                viewers.watch.start(start_ns);
                viewers.begin();
                say(&Word::Started)?;
            }
            Ok(Order::Finish { accepted, heads, grace_ms }) => {
                let rooms = || (0..assignment.places()).map(|place| assignment.room(place) as usize);
                let in_room = |room: usize| {
                    accepted.iter().map(|rooms| rooms.get(room).copied().unwrap_or(0)).collect()
                };
                let accepted = rooms().map(in_room).collect();
                let heads = rooms().map(|room| heads.get(room).copied().unwrap_or(0)).collect();
                let deadline_ns = monotonic_ns() + grace_ms * 1_000_000;
                state.finish = Some(Finish { accepted, heads, deadline_ns, level_since_ns: None });
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
            say(&Word::Result(Box::new(outcome(&mut viewers.watch))))?;
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

fn outcome(watch: &mut Watch) -> Outcome {
    let rooms = watch.finish();
    let streams = watch.streams.as_mut();
    let (stream_tally, after_return, streams) = streams.map_or_else(Default::default, |streams| {
        (streams.tally, streams.after_return.buckets(), streams.finish())
    });
    Outcome {
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
}

impl State {
    /// Says how far connecting is: each thousand, and the end.
    fn report(&mut self, viewers: &Viewers) -> std::io::Result<()> {
        if self.ready {
            return Ok(());
        }
        if viewers.is_ready() {
            self.ready = true;
            return say(&Word::Ready);
        }
        if viewers.watching() >= self.reported + 1_000 {
            self.reported = viewers.watching();
            say(&Word::Connected { devices: self.reported as u64 })?;
        }
        Ok(())
    }
}

struct Finish {
    /// What was accepted, by place and type.
    accepted: Vec<Vec<u64>>,
    /// How far each stream is durable, by place.
    heads: Vec<u64>,
    deadline_ns: u64,
    level_since_ns: Option<u64>,
}

impl Finish {
    fn is_over(&mut self, viewers: &Viewers) -> bool {
        let now_ns = monotonic_ns();
        if self.level_since_ns.is_none() && viewers.is_level(&self.accepted, &self.heads) {
            self.level_since_ns = Some(now_ns);
        }
        // Nobody goes away any more, so this moves the end by a few seconds at most, while the node is there.
        let last_ns = viewers.latest_return_ns() + APPLY_AGE_MAX_NS + SETTLE_NS;
        now_ns >= self.deadline_ns.max(last_ns.min(self.deadline_ns + RETURN_MAX_NS))
            || self.level_since_ns.is_some_and(|since_ns| now_ns >= since_ns + SETTLE_NS)
    }
}

fn crowd(assignment: &Assignment) -> std::io::Result<Viewers> {
    let places = assignment.places();
    let name = |place| room_name(&assignment.room_stem, assignment.room(place));
    let rooms = (0..places).map(|place| RoomToWatch {
        room: assignment.room(place),
        name: name(place),
        devices: (assignment.devices - place).div_ceil(places),
    });
    let known = Known::new(assignment.loads.clone(), (assignment.payload_bytes, assignment.seed))
        .with_limits(&assignment.limits)
        .with_others(assignment.others);
    let limits = assignment.limits.len();
    let readers = (limits > 0).then(|| Readers::new(limits, assignment.first_device, assignment.devices));
    let streams = assignment.reliable.as_ref().map(|reliable| {
        let original = Original {
            schedule: reliable.schedule,
            payloads: Payloads::new(assignment.payload_bytes, reliable_seed(assignment.seed)),
            type_name: reliable.type_name.clone(),
            ttl_ms: reliable.ttl_ms,
            others: assignment.others,
        };
        Streams::new(original, (0..places).map(|place| assignment.room(place)))
    });
    let watch = Watch::new(known, assignment.encoding, rooms)
        .with_streams(streams)
        .with_readers(readers)
        .through_restarts(assignment.awkward.through_restarts);
    let door = assignment.viewer_door.clone();
    let address = door.address();
    Viewers::new(
        Crowd {
            first_device: assignment.first_device,
            devices: assignment.devices,
            places,
            source: assignment.source,
            handshakes_max: assignment.handshakes_max,
            awkward: assignment.awkward,
            seed: assignment.seed,
        },
        address,
        Handshake::new(door, assignment.encoding, assignment.device_token.clone()),
        assignment.encoding.ping(),
        (0..places).map(name).collect(),
        watch,
    )
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
