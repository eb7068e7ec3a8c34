//! When the first, the middle and the last device of a message's room had it, message by message. Pure.

use serde::{Deserialize, Serialize};

use crate::latency::Percentiles;

/// Over the messages of a type: when their devices had them, counted from when each was due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SpreadFigures {
    /// The first device of each message.
    pub(crate) first: Percentiles,
    /// Half of the devices of each message.
    pub(crate) half: Percentiles,
    /// 99 in 100 of the devices of each message.
    pub(crate) p99: Percentiles,
    /// The last device of each message.
    pub(crate) last: Percentiles,
}

/// How far apart rooms are: the p99 over the devices and messages of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Skew {
    /// Rooms that were given messages.
    pub(crate) rooms: u64,
    /// Of the rooms in the middle.
    pub(crate) median_p99_ms: f64,
    /// Of the worst room.
    pub(crate) worst_p99_ms: f64,
    /// Which that is.
    pub(crate) worst_room: u32,
}
