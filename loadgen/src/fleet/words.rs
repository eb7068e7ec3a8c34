//! The words between a coordinator and its workers: one JSON line each.

use serde::{Deserialize, Serialize};

use crate::devices::assignment::Assignment;
use crate::devices::moves::Moves;
use crate::devices::readable::Reading;
use crate::devices::streams::StreamTally;
use crate::devices::type_figures::TypeFigures;
use crate::figures::latency::Buckets;
use crate::ledger::{RoomSeen, StreamSeen, Tally, Violations, add_fields};

/// Coordinator to worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    Clock,
    Connect(Box<Assignment>),
    Start {
        start_ns: u64,
    },
    /// Publishing ended. `accepted` counts messages by type and room, `heads` gives each stream's durable
    /// end. The worker ends by itself, at the latest after `grace_ms` or 3 s after the last device came back.
    Finish {
        accepted: Vec<Vec<u64>>,
        heads: Vec<u64>,
        grace_ms: u64,
    },
}

/// Worker to coordinator.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    Clock {
        monotonic_ns: u64,
    },
    /// Devices in their rooms so far.
    Connected {
        devices: u64,
    },
    /// Every device of the start is in its room.
    Ready {
        devices: u64,
    },
    /// The worker knows the start.
    Started,
    /// About once a second from the start on.
    Progress(Progress),
    /// The devices could not be connected, or not all.
    Failed {
        reason: String,
    },
    Result(Box<WorkerResult>),
}

/// Progress of one worker, or the sum of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Devices in their rooms.
    pub(crate) watching: u64,
    /// Devices on their way to a room.
    pub(crate) joining: u64,
    /// Batch frames since the start.
    pub(crate) frames: u64,
    /// Messages of this run in these frames.
    pub(crate) deliveries: u64,
    /// Violations seen in arriving frames.
    pub(crate) violations: u64,
    /// Time from due to delivery since the last word, in buckets of 9 %.
    pub(crate) latency: Buckets,
}

impl Progress {
    /// Replaces all figures by a later word of the same worker, and adds the latencies.
    pub(crate) fn go_on(&mut self, mut later: Self) {
        add_buckets(&mut later.latency, &self.latency);
        *self = later;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        add_fields!(self, other; watching, joining, frames, deliveries, violations);
        add_buckets(&mut self.latency, &other.latency);
    }
}

/// Merges sorted buckets. `timeline`'s buckets are few, so inserting is cheap.
fn add_buckets(mine: &mut Buckets, theirs: &Buckets) {
    for (value_us, count) in theirs {
        match mine.binary_search_by_key(value_us, |(value_us, _)| *value_us) {
            Ok(at) => mine[at].1 += count,
            Err(at) => mine.insert(at, (*value_us, *count)),
        }
    }
}

/// The result of one worker's devices.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct WorkerResult {
    pub(crate) devices: u32,
    /// Largest memory of the worker's process.
    pub(crate) peak_bytes: u64,
    /// The thread's share of a processor in the busiest second of publishing.
    pub(crate) busy: f64,
    /// Time from the due join or return to the welcome.
    pub(crate) joins: Buckets,
    pub(crate) moves: Moves,
    /// `rooms` holds the ages of one batch in this many.
    pub(crate) ages_stride: u64,
    pub(crate) tally: Tally,
    pub(crate) types: Vec<TypeFigures>,
    pub(crate) readings: Vec<Reading>,
    pub(crate) violations: Violations,
    pub(crate) rooms: Vec<RoomSeen>,
    pub(crate) stream_tally: StreamTally,
    pub(crate) after_return: Buckets,
    pub(crate) streams: Vec<StreamSeen>,
}
