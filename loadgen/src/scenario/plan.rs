//! A checked run: published types, audience and node. Made by `resolve`, carried out by `run`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::scenario::audience::Audience;
use crate::scenario::faults::Fault;
use crate::scenario::habits::{Awkward, Storm};
use crate::scenario::mix::{Limit, Load, ReliableTypes};
use crate::scenario::payload::Length;
use crate::scenario::schedule::Schedule;
use crate::scenario::seating::Sizes;
use crate::scenario::thresholds::Condition;
use crate::wire::doors::Door;
use crate::wire::frame::Encoding;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reliable {
    pub(crate) schedule: Schedule,
    pub(crate) types: ReliableTypes,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) length: Length,
}

/// Workers get the whole plan in their orders, but for the fields that only the coordinator needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    /// Names of the nodes, in the order of the operator doors.
    #[serde(skip)]
    pub(crate) nodes: Vec<String>,
    #[serde(skip)]
    pub(crate) faults: Vec<Fault>,
    #[serde(skip)]
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
    #[serde(skip)]
    pub(crate) scenario: String,
    pub(crate) target: Target,
}

/// The node under load, the machines of the workers, and the files of the report: the flags of `run` beside the
/// scenario.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub(crate) struct Target {
    /// File for the report as JSON.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) json: Option<PathBuf>,
    /// File for the report as an HTML page.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) html: Option<PathBuf>,
    /// File for the verdict and the thresholds as JUnit's XML.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) junit: Option<PathBuf>,
    /// Address for devices, once for each node of a cluster: the devices of each room are spread evenly. The
    /// default is ws://127.0.0.1:7600.
    // Filled in with the scenario's doors or the default when the flags are resolved.
    #[arg(long = "viewer-door", value_name = "URL")]
    pub(crate) viewer_doors: Vec<Door>,
    /// Address for publishes, once for each node of a cluster, used in turn. The default is
    /// http://127.0.0.1:7601.
    #[arg(long = "publisher-door", value_name = "URL")]
    pub(crate) publisher_doors: Vec<Door>,
    /// Address for operators, once for each node of a cluster; the figures of the nodes are added up. The
    /// default is http://127.0.0.1:7602.
    #[arg(long = "ops-door", value_name = "URL")]
    pub(crate) ops_doors: Vec<Door>,
    /// A viewer door to ask for the nodes of each room (`GET /v1/route`), instead of --viewer-door:
    /// http://127.0.0.1:7600.
    #[arg(long, value_name = "URL")]
    pub(crate) route: Option<Door>,
    /// Beginning of every room name, before a part unique to the run.
    #[arg(long, default_value = "lg")]
    pub(crate) room_prefix: String,
    /// Beginning of every room name, without a unique part: other runs with the same stem publish to the same
    /// rooms.
    // Empty until the flags are resolved, where the flag is not typed.
    #[arg(long, conflicts_with = "room_prefix", default_value = "", hide_default_value = true)]
    pub(crate) room_stem: String,
    /// Least number of worker processes for the devices; more start if descriptors are short.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=250))]
    pub(crate) workers: u32,
    /// A machine for a part of the devices, any number of times: `HOST:PORT` of `worker --listen` there. The
    /// key is in `ROOMCAST_WORKER_KEY`. Without this flag all devices are on this machine.
    #[arg(long = "worker", value_name = "HOST:PORT")]
    pub(crate) remote_workers: Vec<String>,
    /// A source address for devices, used in turn with other --source addresses, for a viewer door off
    /// loopback.
    #[arg(long = "source", value_name = "ADDRESS")]
    pub(crate) sources: Vec<IpAddr>,
    /// Seconds for all devices to join; past them the run gives up.
    #[arg(long, default_value_t = 120)]
    pub(crate) connect_seconds: u64,
    /// Skip the floor after the run. The floor takes at most 3 s, and needs a node on loopback.
    #[arg(long)]
    pub(crate) no_floor: bool,
    /// Bearer key for the publisher door; the default is `ROOMCAST_PUBLISHER_KEY`.
    // No worker publishes, and a key has no place on other machines.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) publisher_key: Option<String>,
    /// Token for the viewer door; the default is `ROOMCAST_DEVICE_TOKEN`.
    #[arg(long)]
    pub(crate) device_token: Option<String>,
    /// The command line that repeats the run.
    #[arg(skip)]
    #[serde(skip)]
    pub(crate) command: String,
}

impl Target {
    /// The viewer door of questions that any node answers.
    pub(crate) fn viewer_door(&self) -> &Door {
        self.viewer_doors.first().expect("resolved flags name a viewer door")
    }

    /// The operator door of questions to one node.
    pub(crate) fn ops_door(&self) -> &Door {
        self.ops_doors.first().expect("resolved flags name an operator door")
    }

    /// All nodes are on this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        self.viewer_doors.iter().all(Door::is_loopback)
    }
}

pub(crate) fn room_name(stem: &str, room: u32) -> String {
    format!("{stem}-{room}")
}
