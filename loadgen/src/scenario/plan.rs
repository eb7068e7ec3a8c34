//! A checked run: published types, audience and node. Made by `resolve`, carried out by `run`.

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
use crate::scenario::units::Span;
use crate::wire::doors::Door;
use crate::wire::frame::Encoding;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reliable {
    pub(crate) schedule: Schedule,
    pub(crate) types: ReliableTypes,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) length: Length,
}

/// A shell command on this machine, run against the node. With any fault, devices come back when their
/// connection ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    /// Time after the start.
    pub(crate) at: Span,
    pub(crate) run: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Published types except reliable ones. Their start is set when publishing begins.
    pub(crate) loads: Vec<Load>,
    pub(crate) rooms: u32,
    pub(crate) sizes: Sizes,
    pub(crate) messages_per_request: u32,
    /// Most messages a second that a device may be given, by type.
    pub(crate) limits: Vec<Limit>,
    /// Another run publishes to the same rooms.
    pub(crate) others: bool,
    /// The shared schedule of all reliable types. Its start is set when publishing begins.
    pub(crate) reliable: Option<Reliable>,
    pub(crate) awkward: Awkward,
    /// Most devices present at one time.
    pub(crate) devices: u32,
    pub(crate) audience: Audience,
    pub(crate) storms: Vec<Storm>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) thresholds: Vec<Condition>,
    /// Messages due before this time are in the ledger and in no latency figure.
    pub(crate) warm_up_ms: u64,
    pub(crate) settle_ms: u64,
    pub(crate) seconds_milli: u64,
    /// Median payload length of the first type.
    pub(crate) payload_bytes: usize,
    pub(crate) encoding: Encoding,
    pub(crate) seed: u64,
    /// The whole scenario, as TOML.
    pub(crate) scenario: String,
    pub(crate) target: Target,
}

/// The node under load, the machines of the workers, and the files of the report.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) viewer_door: Door,
    pub(crate) publisher_door: Door,
    pub(crate) ops_door: Door,
    pub(crate) publisher_key: Option<String>,
    pub(crate) device_token: Option<String>,
    /// Prefix of all room names of this run.
    pub(crate) room_stem: String,
    pub(crate) workers_min: u32,
    /// Workers on other machines, as `HOST:PORT`. Empty: all workers run on this machine.
    pub(crate) remote_workers: Vec<String>,
    /// Source addresses of devices, used in turn where the door is not on loopback. Empty: the kernel
    /// chooses.
    pub(crate) sources: Vec<IpAddr>,
    pub(crate) connect_seconds: u64,
    pub(crate) measures_floor: bool,
    pub(crate) json: Option<PathBuf>,
    pub(crate) html: Option<PathBuf>,
    pub(crate) junit: Option<PathBuf>,
    /// The command line that repeats the run.
    pub(crate) command: String,
}

pub(crate) fn room_name(stem: &str, room: u32) -> String {
    format!("{stem}-{room}")
}
