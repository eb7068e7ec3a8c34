//! The shape of a run that `sweep` measures and `plan` is asked about: chat of one size, over rooms that are alike. Pure.

use serde::{Deserialize, Serialize};

use crate::figures::rounded;
use crate::scenario::mix;
use crate::wire::frame::Encoding;

/// What a node is asked to carry: chat of one size, over rooms that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(crate) struct RunShape {
    pub(crate) devices: u32,
    #[serde(default = "one")]
    pub(crate) rooms: u32,
    /// Messages a second, over all rooms.
    pub(crate) rate: f64,
    #[serde(default = "payload_bytes")]
    pub(crate) payload_bytes: usize,
    #[serde(default = "one")]
    pub(crate) messages_per_request: u32,
    /// Reliable messages a second beside it, over all rooms.
    #[serde(default)]
    pub(crate) reliable_rate: f64,
    /// Part of the devices that cut their connection every 2 to 12 s and come back.
    #[serde(default)]
    pub(crate) reconnect_share: f64,
    #[serde(default = "encoding")]
    pub(crate) encoding: Encoding,
}

fn one() -> u32 {
    1
}

fn payload_bytes() -> usize {
    300
}

fn encoding() -> Encoding {
    Encoding::Json
}

impl RunShape {
    /// `rate` in thousandths.
    #[must_use]
    pub(crate) fn rate_milli(&self) -> u64 {
        rounded(self.rate * 1_000.0)
    }

    /// `reliable_rate` in thousandths.
    #[must_use]
    pub(crate) fn reliable_rate_milli(&self) -> u64 {
        rounded(self.reliable_rate * 1_000.0)
    }

    /// `reconnect_share` in millionths.
    #[must_use]
    pub(crate) fn reconnect_share_millionths(&self) -> u32 {
        u32::try_from(rounded(self.reconnect_share * 1_000_000.0)).unwrap_or(u32::MAX)
    }

    /// Messages that a request holds: as `run` makes them, no more than are due in 10 ms.
    #[must_use]
    pub(crate) fn messages_of_a_request(&self) -> u32 {
        mix::messages_per_request(self.rate_milli(), self.messages_per_request)
    }

    /// Publish requests of all rooms.
    #[must_use]
    pub(crate) fn requests_per_s(&self) -> f64 {
        self.rate / f64::from(self.messages_of_a_request())
    }

    /// Devices of a room; the rooms are alike.
    #[must_use]
    pub(crate) fn members(&self) -> f64 {
        f64::from(self.devices) / f64::from(self.rooms.max(1))
    }
}
