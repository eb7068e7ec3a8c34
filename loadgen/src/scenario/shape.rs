//! The shape of a run, for `sweep` and `plan`: chat of one size over equal rooms. Pure.

use serde::{Deserialize, Serialize};

use crate::figures::rounded;
use crate::scenario::mix;
use crate::wire::frame::Encoding;

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
    /// Reliable messages a second besides the chat, over all rooms.
    #[serde(default)]
    pub(crate) reliable_rate: f64,
    /// Share of devices cutting their connection every 2 to 12 s, from 0 to 1.
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
    pub(crate) fn rate_milli(&self) -> u64 {
        rounded(self.rate * 1_000.0)
    }

    pub(crate) fn reliable_rate_milli(&self) -> u64 {
        rounded(self.reliable_rate * 1_000.0)
    }

    pub(crate) fn reconnect_share_millionths(&self) -> u32 {
        u32::try_from(rounded(self.reconnect_share * 1_000_000.0)).unwrap_or(u32::MAX)
    }

    /// Messages of a request, bounded to 10 ms of the rate as in `run`.
    pub(crate) fn messages_of_a_request(&self) -> u32 {
        mix::messages_per_request(self.rate_milli(), self.messages_per_request)
    }

    /// Publish requests a second, over all rooms.
    pub(crate) fn requests_per_s(&self) -> f64 {
        self.rate / f64::from(self.messages_of_a_request())
    }

    /// Devices of each room.
    pub(crate) fn members(&self) -> f64 {
        f64::from(self.devices) / f64::from(self.rooms.max(1))
    }
}
