//! The words between a coordinator and its workers, one JSON line each.

use std::net::{IpAddr, Ipv4Addr};

use crate::devices::moves::Moves;
use crate::devices::readable::Reading;
use crate::devices::streams::StreamTally;
use crate::devices::type_figures::TypeFigures;
use crate::figures::latency::Buckets;
use crate::ledger::{RoomSeen, StreamSeen, Tally, Violations};
use crate::scenario::audience::Audience;
use crate::scenario::habits::Awkward;
use crate::scenario::mix::Load;
use crate::scenario::plan::Reliable;
use crate::scenario::seating::Seating;
use crate::wire::doors::Door;
use crate::wire::frame::Encoding;
use serde::{Deserialize, Serialize};

use crate::scenario::habits::Storm;
use crate::scenario::mix::Limit;
use crate::scenario::seating::Sizes;

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

    /// The room of each device of the run.
    #[must_use]
    pub(crate) fn seating(&self) -> Seating {
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
    #[must_use]
    pub(crate) fn seats(&self) -> Vec<u32> {
        let seating = self.seating();
        let own = (self.worker..self.devices).step_by(self.workers.max(1) as usize);
        own.map(|device| seating.room_of(device)).collect()
    }
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
    Result(Box<WorkerResult>),
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
pub(crate) struct WorkerResult {
    /// How many devices they were.
    pub(crate) devices: u32,
    /// The most memory that the worker's process held.
    pub(crate) peak_bytes: u64,
    /// The part of a processor that its thread used in the busiest second of publishing.
    pub(crate) busy: f64,
    /// From when devices were to join, or to come back, to their welcome.
    pub(crate) joins: Buckets,
    pub(crate) moves: Moves,
    /// In `rooms` there are the ages of one in so many batches.
    pub(crate) ages_stride: u64,
    pub(crate) tally: Tally,
    /// By type.
    pub(crate) types: Vec<TypeFigures>,
    /// By limit.
    pub(crate) readings: Vec<Reading>,
    pub(crate) violations: Violations,
    pub(crate) rooms: Vec<RoomSeen>,
    pub(crate) stream_tally: StreamTally,
    pub(crate) after_return: Buckets,
    pub(crate) streams: Vec<StreamSeen>,
}
