//! What a node costs: rows that a sweep measured, and the models fitted to them. Pure: no socket, no clock, no file.
//!
//! A [`RunShape`] is what was asked, [`Features`] are what came of it and cost something, and [`cost`] says how much.
//! [`flushes`] gets from a shape to its features without a run.

pub(crate) mod cost;
pub(crate) mod flushes;
pub(crate) mod nnls;
pub(crate) mod usl;

use serde::{Deserialize, Serialize};

use crate::machine::environment::Environment;
use crate::scenario::shape::RunShape;

/// What a node did in a second, on average, that its cost follows from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Features {
    pub(crate) connections: f64,
    /// Rooms of the run.
    pub(crate) rooms: f64,
    /// Publish requests.
    pub(crate) publishes_per_s: f64,
    /// Messages in them.
    pub(crate) messages_per_s: f64,
    /// Frames to devices: flushes, each for all devices of its room.
    pub(crate) frames_per_s: f64,
    /// Messages to devices.
    pub(crate) deliveries_per_s: f64,
    /// Bytes of those frames, WebSocket headers included.
    pub(crate) bytes_per_s: f64,
    /// Devices that came in.
    pub(crate) joins_per_s: f64,
    /// Acknowledgements of reliable messages.
    pub(crate) acks_per_s: f64,
    /// Flushes, each counted once whatever its room's size: a pass over few devices costs more than its frames.
    pub(crate) flushes_per_s: f64,
    /// Rooms that are alive and that nobody is in any more: those of runs before, until the node tidies them. They hold
    /// memory, and a plan has none.
    #[serde(default)]
    pub(crate) idle_rooms: f64,
}

/// One of the features.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) of: fn(&Features) -> f64,
}

impl Features {
    /// What a sweep leaves behind, and nobody asks for.
    pub(crate) const IDLE_ROOMS: Column = Column { name: "idle rooms", of: |features| features.idle_rooms };
    /// All that may be asked for, in the order in which they are shown.
    pub(crate) const COLUMNS: [Column; 10] = [
        Column { name: "connections", of: |features| features.connections },
        Column { name: "rooms", of: |features| features.rooms },
        Column { name: "publishes/s", of: |features| features.publishes_per_s },
        Column { name: "messages/s", of: |features| features.messages_per_s },
        Column { name: "frames/s", of: |features| features.frames_per_s },
        Column { name: "deliveries/s", of: |features| features.deliveries_per_s },
        Column { name: "bytes/s", of: |features| features.bytes_per_s },
        Column { name: "joins/s", of: |features| features.joins_per_s },
        Column { name: "acks/s", of: |features| features.acks_per_s },
        Column { name: "flushes/s", of: |features| features.flushes_per_s },
    ];

    /// Both together.
    #[must_use]
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            rooms: self.rooms + other.rooms,
            publishes_per_s: self.publishes_per_s + other.publishes_per_s,
            messages_per_s: self.messages_per_s + other.messages_per_s,
            frames_per_s: self.frames_per_s + other.frames_per_s,
            deliveries_per_s: self.deliveries_per_s + other.deliveries_per_s,
            bytes_per_s: self.bytes_per_s + other.bytes_per_s,
            joins_per_s: self.joins_per_s + other.joins_per_s,
            acks_per_s: self.acks_per_s + other.acks_per_s,
            flushes_per_s: self.flushes_per_s + other.flushes_per_s,
            idle_rooms: self.idle_rooms + other.idle_rooms,
        }
    }

    /// So many times as much.
    #[must_use]
    pub(crate) fn times(self, factor: f64) -> Self {
        Self {
            connections: self.connections * factor,
            rooms: self.rooms * factor,
            publishes_per_s: self.publishes_per_s * factor,
            messages_per_s: self.messages_per_s * factor,
            frames_per_s: self.frames_per_s * factor,
            deliveries_per_s: self.deliveries_per_s * factor,
            bytes_per_s: self.bytes_per_s * factor,
            joins_per_s: self.joins_per_s * factor,
            acks_per_s: self.acks_per_s * factor,
            flushes_per_s: self.flushes_per_s * factor,
            idle_rooms: self.idle_rooms * factor,
        }
    }
}

/// One point of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// What was asked.
    pub(crate) shape: RunShape,
    /// What came of it.
    pub(crate) features: Features,
    /// Processors that the node kept busy.
    pub(crate) cpu: f64,
    /// The node's memory at the end of the point.
    pub(crate) memory_bytes: f64,
    /// What the kernel held for TCP sockets of the whole machine, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) socket_bytes: Option<f64>,
    pub(crate) p99_ms: f64,
    /// Why the model can't learn from the point; such a row is shown and left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unusable_because: Option<String>,
}

/// A sweep: the file between `sweep` and `plan`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sweep {
    pub(crate) started_unix_ms: u64,
    /// Processors that the node had: its shards, where nobody said otherwise.
    pub(crate) processors: u32,
    /// The generator's machine; the node's, too, where its doors are on loopback.
    pub(crate) environment: Environment,
    /// What repeats it.
    pub(crate) command: String,
    pub(crate) rows: Vec<Row>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_column_is_another_feature_and_sums_and_multiples_reach_all() {
        let ones = Features::default();
        let ones =
            Features { connections: 1.0, rooms: 2.0, publishes_per_s: 3.0, messages_per_s: 4.0, ..ones };
        let some = Features { frames_per_s: 5.0, deliveries_per_s: 6.0, bytes_per_s: 7.0, ..ones };
        let some = Features { joins_per_s: 8.0, acks_per_s: 9.0, flushes_per_s: 10.0, ..some };
        let all = Features { idle_rooms: 11.0, ..some };
        let doubled = all.plus(all);
        assert_eq!(doubled, all.times(2.0));
        let columns = Features::COLUMNS.into_iter().chain([Features::IDLE_ROOMS]);
        for (place, column) in (1_u32..).zip(columns) {
            assert_eq!((column.of)(&doubled), 2.0 * f64::from(place), "{}", column.name);
        }
    }

    #[test]
    fn a_point_needs_devices_and_a_rate_alone_and_nothing_it_does_not_know() {
        let shape: RunShape = toml::from_str("devices = 10\nrate = 2.5").unwrap();
        assert_eq!((shape.rooms, shape.payload_bytes, shape.rate_milli()), (1, 300, 2_500));
        let wrong = toml::from_str::<RunShape>("devices = 10\nrate = 2\nspeed = 3").unwrap_err();
        assert!(wrong.to_string().contains("speed"), "{wrong}");
    }
}
