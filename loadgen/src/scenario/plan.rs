//! A checked run: what is published, who watches, where the node is. Made by `scenario`, carried out by `run`.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::scenario::audience::Audience;
use crate::scenario::habits::{Awkward, Storm};
use crate::scenario::mix::{Limit, Load, ReliableTypes};
use crate::scenario::payload::Length;
use crate::scenario::schedule::Schedule;
use crate::scenario::seating::Sizes;
use crate::scenario::thresholds::Condition;
use crate::wire::doors::Door;
use crate::wire::frame::Encoding;

/// What is published reliably.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reliable {
    pub(crate) schedule: Schedule,
    pub(crate) types: ReliableTypes,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) length: Length,
}

/// Something that is done to the node, by a command of the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// After the start.
    pub(crate) at_ms: u64,
    pub(crate) run: String,
}

/// A checked run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// What is published of each type but reliable ones; their start is not set yet.
    pub(crate) loads: Vec<Load>,
    pub(crate) rooms: u32,
    pub(crate) sizes: Sizes,
    pub(crate) messages_per_request: u32,
    /// What devices may be given at most.
    pub(crate) limits: Vec<Limit>,
    /// Another run publishes to the same rooms.
    pub(crate) others: bool,
    /// What is published reliably, if anything; its start is not set yet.
    pub(crate) reliable: Option<Reliable>,
    pub(crate) awkward: Awkward,
    /// The most devices that are there at one time.
    pub(crate) devices: u32,
    /// How many of them are there when.
    pub(crate) audience: Audience,
    pub(crate) storms: Vec<Storm>,
    pub(crate) faults: Vec<Fault>,
    /// What the run is held to.
    pub(crate) thresholds: Vec<Condition>,
    /// What is due before it is in the ledger and in no latency.
    pub(crate) warm_up_ms: u64,
    pub(crate) settle_ms: u64,
    pub(crate) seconds_milli: u64,
    /// Of the first type's payloads, the one in the middle.
    pub(crate) payload_bytes: usize,
    pub(crate) encoding: Encoding,
    pub(crate) seed: u64,
    /// The whole scenario, as a scenario file.
    pub(crate) scenario: String,
    pub(crate) target: Target,
}

/// What is loaded, and from where; and where it is reported.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) viewer_door: Door,
    pub(crate) publisher_door: Door,
    pub(crate) ops_door: Door,
    pub(crate) publisher_key: Option<String>,
    pub(crate) device_token: Option<String>,
    /// What the names of this run's rooms begin with.
    pub(crate) room_stem: String,
    pub(crate) workers_min: u32,
    /// Workers on other machines, `HOST:PORT`; none: on this one.
    pub(crate) remote_workers: Vec<String>,
    /// Addresses that devices come from, in turn, where the door is not on loopback; none: the kernel's choice.
    pub(crate) sources: Vec<IpAddr>,
    pub(crate) connect_seconds: u64,
    /// Whether the floor is measured after the run.
    pub(crate) measures_floor: bool,
    pub(crate) json: Option<PathBuf>,
    pub(crate) html: Option<PathBuf>,
    pub(crate) junit: Option<PathBuf>,
    /// What repeats the run.
    pub(crate) command: String,
}

/// The name of a room of a run.
#[must_use]
pub(crate) fn room_name(stem: &str, room: u32) -> String {
    format!("{stem}-{room}")
}
