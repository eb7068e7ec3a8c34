//! The cost of a node: the rows that a sweep measured, and the models fitted to the rows. Pure: no socket,
//! clock or file.
//!
//! ```text
//! RunShape (the load) --flushes--> Features (the node's work) --cost--> processors and memory
//! ```

pub(crate) mod cost;
pub(crate) mod flushes;
pub(crate) mod nnls;
pub(crate) mod usl;

use serde::{Deserialize, Serialize};

use crate::machine::environment::Environment;
use crate::scenario::shape::RunShape;

/// The work of a node, as averages per second or as counts. Every cost of the node follows from this work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Features {
    pub(crate) connections: f64,
    /// Rooms of the run.
    pub(crate) rooms: f64,
    /// Publish requests.
    pub(crate) publishes_per_s: f64,
    /// Published messages.
    pub(crate) messages_per_s: f64,
    /// Frames to devices: each flush counts as many as its room has devices.
    pub(crate) frames_per_s: f64,
    /// Messages to devices.
    pub(crate) deliveries_per_s: f64,
    /// Bytes of the frames to devices, WebSocket headers included.
    pub(crate) bytes_per_s: f64,
    pub(crate) joins_per_s: f64,
    /// Acknowledgements of reliable messages.
    pub(crate) acks_per_s: f64,
    /// Flushes, each counted once for any room size: a pass over few devices costs more than its frames.
    pub(crate) flushes_per_s: f64,
    /// Living rooms without a member, left from earlier runs until the node tidies up. The rooms hold memory,
    /// and a plan has none.
    #[serde(default)]
    pub(crate) idle_rooms: f64,
}

/// One of the features, as a column of a model's matrix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) of: fn(&Features) -> f64,
}

impl Features {
    /// Kept apart from [`Self::COLUMNS`]: idle rooms are a leftover of a sweep, and a plan can't ask for any.
    pub(crate) const IDLE_ROOMS: Column = Column { name: "idle rooms", of: |features| features.idle_rooms };
    /// The features that a plan can ask for, in printed order.
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

    /// Combines both loads feature by feature.
    pub(crate) fn with(self, other: Self, combine: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            connections: combine(self.connections, other.connections),
            rooms: combine(self.rooms, other.rooms),
            publishes_per_s: combine(self.publishes_per_s, other.publishes_per_s),
            messages_per_s: combine(self.messages_per_s, other.messages_per_s),
            frames_per_s: combine(self.frames_per_s, other.frames_per_s),
            deliveries_per_s: combine(self.deliveries_per_s, other.deliveries_per_s),
            bytes_per_s: combine(self.bytes_per_s, other.bytes_per_s),
            joins_per_s: combine(self.joins_per_s, other.joins_per_s),
            acks_per_s: combine(self.acks_per_s, other.acks_per_s),
            flushes_per_s: combine(self.flushes_per_s, other.flushes_per_s),
            idle_rooms: combine(self.idle_rooms, other.idle_rooms),
        }
    }
}

/// One measured point of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) shape: RunShape,
    pub(crate) features: Features,
    /// Processors that the node kept busy.
    pub(crate) cpu: f64,
    /// The node's memory at the end of the point.
    pub(crate) memory_bytes: f64,
    /// Kernel memory for all TCP sockets of the machine; `None` for a node on another machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) socket_bytes: Option<f64>,
    pub(crate) p99_ms: f64,
    /// The reason for leaving the row out of the models; such a row is only shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unusable_because: Option<String>,
}

/// The file between `sweep` and `plan`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sweep {
    pub(crate) started_unix_ms: u64,
    /// Processors of the node: --cores, or the number of the node's shards.
    pub(crate) processors: u32,
    /// The generator's machine; also the node's machine for doors on loopback.
    pub(crate) environment: Environment,
    /// The command line of the sweep.
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
        let doubled = all.with(all, |one, other| one + other);
        assert_eq!(doubled, all.with(all, |one, _| 2.0 * one));
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
