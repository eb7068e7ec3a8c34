//! The frames and messages of all devices, counted.

use serde::{Deserialize, Serialize};

/// What was counted since publishing began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Batch frames.
    pub(crate) frames: u64,
    /// Messages of ours in them, over all devices.
    pub(crate) deliveries: u64,
    /// Messages of ours that devices were told they missed.
    pub(crate) skipped: u64,
    /// Frames that were decoded; the others equalled one of these.
    pub(crate) decoded: u64,
    /// Bytes of frames, without WebSocket headers.
    pub(crate) bytes: u64,
}
