//! The node under load over the time of a run, second by second: what it says at its operator door, and what the kernel
//! holds for it where both are on one machine.

use serde::{Deserialize, Serialize};

/// One second of the node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// When, counted from the first publish; negative before it.
    pub(crate) at_ms: i64,
    /// Processors it kept busy since the sample before.
    pub(crate) cpu: f64,
    /// Its memory.
    pub(crate) resident_bytes: u64,
    /// What the kernel holds for all TCP sockets of this machine; `None` where the node is elsewhere.
    pub(crate) socket_bytes: Option<u64>,
    /// Connections it has.
    pub(crate) connections: u64,
    /// Messages it took, a second.
    pub(crate) published_per_s: f64,
    /// Frames it sent, a second.
    pub(crate) frames_per_s: f64,
    /// Messages to devices in them, a second.
    pub(crate) deliveries_per_s: f64,
    /// The highest step of its shards' ladders.
    pub(crate) ladder_step: u64,
}
