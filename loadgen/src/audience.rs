//! How many devices of a run are there when: a line through points, and when each device comes and goes. Pure.

use serde::{Deserialize, Serialize};

/// Where the line turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// After the first publish is due.
    pub(crate) at_ms: u64,
    /// Devices that are there then.
    pub(crate) devices: u32,
}

/// How many devices are there when. Device n is there while the line is above n.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Audience {
    /// The first is at 0; times do not fall. Between two points the line is straight, after the last it is level.
    pub(crate) points: Vec<Point>,
}

impl Audience {
    /// So many, from before the first publish to the end.
    #[must_use]
    pub(crate) fn steady(devices: u32) -> Self {
        Self { points: vec![Point { at_ms: 0, devices }] }
    }

    /// Devices that are there before the first publish.
    #[must_use]
    pub(crate) fn at_start(&self) -> u32 {
        self.points.first().map_or(0, |point| point.devices)
    }

    /// The most that are ever there.
    #[must_use]
    pub(crate) fn most(&self) -> u32 {
        self.points.iter().map(|point| point.devices).max().unwrap_or(0)
    }
}
