//! The models of a plan, fitted to all given sweeps, and the measured range. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::machine::environment::Environment;
use crate::planning::model::cost::{BASE, Linear, Measured, mean, most};
use crate::planning::model::flushes::Flushes;
use crate::planning::model::usl::{Basis, Usl};
use crate::planning::model::{Column, Features, Row, Sweep};
use crate::planning::sweep::cpu_columns;

/// Bytes on an Ethernet for each TCP segment beside the payload: preamble, header, check and gap (38), IPv4
/// (20), TCP with timestamps (32).
pub(crate) const SEGMENT_BYTES: f64 = 90.0;
/// Payload of a full segment with timestamps, on a path with an MTU of 1 500 bytes.
pub(crate) const SEGMENT_PAYLOAD_BYTES: f64 = 1_448.0;

/// A sweep, in the answer.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Origin {
    pub(crate) file: String,
    pub(crate) started_unix_ms: u64,
    pub(crate) processors: u32,
    pub(crate) rows: usize,
    pub(crate) rows_used: usize,
    pub(crate) environment: Environment,
}

/// The resources that a node has, or that a load needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Resources {
    pub(crate) processors: f64,
    pub(crate) memory_bytes: f64,
    pub(crate) nic_bits_per_s: f64,
}

impl Resources {
    /// Names in the order of [`Self::parts`].
    pub(crate) const NAMES: [&str; 3] = ["processors", "memory", "network"];

    pub(crate) fn of(parts: [f64; 3]) -> Self {
        let [processors, memory_bytes, nic_bits_per_s] = parts;
        Self { processors, memory_bytes, nic_bits_per_s }
    }

    pub(crate) fn parts(&self) -> [f64; 3] {
        [self.processors, self.memory_bytes, self.nic_bits_per_s]
    }

    /// The part of `room` that these resources fill, by the scarcest resource; past 1 they do not fit.
    pub(crate) fn share_of(&self, room: Self) -> f64 {
        // A resource that the node itself uses up leaves 0.
        most(self.parts().iter().zip(room.parts()).map(|(need, room)| need / room.max(1e-9)))
    }
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Models {
    pub(crate) cpu: Linear,
    pub(crate) memory: Linear,
    /// Kernel buffers for each connection; for both ends of a connection within the same machine. `None`: not
    /// measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) socket_bytes_per_connection: Option<f64>,
    pub(crate) flushes: Flushes,
    pub(crate) usl: Usl,
    pub(crate) usl_basis: Basis,
    /// Numbers of processors whose sweeps are left out of the law, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) not_in_usl: Vec<String>,
    /// Processors of the node that `cpu` describes.
    pub(crate) processors: f64,
    pub(crate) origins: Vec<Origin>,
    /// The largest measured value of each feature, in the order of [`Features::COLUMNS`].
    pub(crate) measured_max: Vec<f64>,
}

impl Models {
    /// Fits all models. The sweeps with the most processors give the processor model; the other sweeps give
    /// the loss by further processors.
    pub(crate) fn fit(sweeps: &[(String, Sweep)], given: Option<Usl>) -> Result<Self, String> {
        let rows: Vec<&Row> = sweeps.iter().flat_map(|(_, sweep)| usable(sweep)).collect();
        let mut by_processors: BTreeMap<u32, Vec<Measured>> = BTreeMap::new();
        for (_, sweep) in sweeps {
            let measured = usable(sweep).map(|row| (row.features, row.cpu));
            by_processors.entry(sweep.processors).or_default().extend(measured);
        }
        let (largest, base) = by_processors.last_key_value().ok_or("no sweep")?;
        let cpu = Linear::fit(&cpu_columns(), base).map_err(|reason| format!("processors: {reason}"))?;
        let mut not_in_usl = Vec::new();
        let (usl, usl_basis) = match given {
            Some(usl) => (usl, Basis::Given),
            None => scaling(&by_processors, base, &mut not_in_usl)
                .unwrap_or_else(|| (Usl::default(), Basis::AssumedLinear)),
        };
        // A node on another machine may hide its memory, which then reads 0.
        let memory = rows.iter().filter(|row| row.memory_bytes > 0.0);
        let memory: Vec<Measured> = memory.map(|row| (row.features, row.memory_bytes)).collect();
        let columns: [Column; 4] = [BASE, Features::COLUMNS[0], Features::COLUMNS[1], Features::IDLE_ROOMS];
        let memory = Linear::fit(&columns, &memory).map_err(|reason| format!("memory: {reason}"))?;
        let largest_max = |column: &Column| most(base.iter().map(|(features, _)| (column.of)(features)));
        Ok(Self {
            cpu,
            memory,
            socket_bytes_per_connection: socket_bytes(&rows),
            flushes: Flushes::fit(&rows)?,
            usl,
            usl_basis,
            not_in_usl,
            processors: f64::from(*largest),
            origins: sweeps.iter().map(|(file, sweep)| origin(file, sweep)).collect(),
            measured_max: Features::COLUMNS.iter().map(largest_max).collect(),
        })
    }

    /// The need of `load` on a node with `processors` processors, the node's own need included.
    pub(crate) fn need(&self, load: &Features, processors: f64) -> Resources {
        let dearer = self.usl.inflation(processors) / self.usl.inflation(self.processors);
        let sockets = self.socket_bytes_per_connection.unwrap_or(0.0) * load.connections;
        Resources {
            processors: self.cpu.at(load) * dearer,
            memory_bytes: self.memory.at(load) + sockets,
            nic_bits_per_s: 8.0 * wire_bytes(load.frames_per_s, load.bytes_per_s),
        }
    }
}

/// Bytes on an Ethernet for `bytes` in `frames`.
pub(crate) fn wire_bytes(frames: f64, bytes: f64) -> f64 {
    // Each frame ends with a partial segment, so the number of segments is rounded up for each frame.
    let segments = frames + bytes / SEGMENT_PAYLOAD_BYTES;
    bytes + SEGMENT_BYTES * segments
}

/// Fits the law to the cost of the same work, the rows of `base`, on each number of processors. Rows that fit
/// no model are left out, with the reason in `left_out`.
fn scaling(
    by_processors: &BTreeMap<u32, Vec<Measured>>,
    base: &[Measured],
    left_out: &mut Vec<String>,
) -> Option<(Usl, Basis)> {
    let cost = |(count, rows): (&u32, &Vec<Measured>)| {
        let model = Linear::fit(&cpu_columns(), rows)
            .map_err(|reason| left_out.push(format!("{count} processors: {reason}")))
            .ok()?;
        let part = |(features, cpu): &Measured| model.at(features) / cpu.max(f64::MIN_POSITIVE);
        Some((f64::from(*count), mean(base.iter().map(part))))
    };
    Usl::fit(&by_processors.iter().filter_map(cost).collect::<Vec<_>>())
}

fn usable(sweep: &Sweep) -> impl Iterator<Item = &Row> {
    sweep.rows.iter().filter(|row| row.unusable_because.is_none())
}

fn origin(file: &str, sweep: &Sweep) -> Origin {
    Origin {
        file: file.to_owned(),
        started_unix_ms: sweep.started_unix_ms,
        processors: sweep.processors,
        rows: sweep.rows.len(),
        rows_used: usable(sweep).count(),
        environment: sweep.environment.clone(),
    }
}

/// Kernel bytes for each connection, by least squares without a constant.
fn socket_bytes(rows: &[&Row]) -> Option<f64> {
    let known = rows.iter().filter_map(|row| Some((row.features.connections, row.socket_bytes?)));
    let (up, down) = known.fold((0.0, 0.0), |(up, down), (connections, bytes)| {
        (up + connections * bytes, down + connections * connections)
    });
    (down > 0.0).then(|| up / down)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::planning::model::flushes::tests::row;
    use crate::planning::sweep::design::built_in;
    use crate::wire::frame::Encoding;

    /// A sweep of a node whose costs are known.
    pub(crate) fn sweep(processors: u32, usl: Usl) -> (String, Sweep) {
        let dearer = usl.inflation(f64::from(processors));
        let mut idle_rooms = 0.0;
        let rows = built_in(4_000, 500, Encoding::Json).into_iter().map(|shape| {
            let mut row = row(crate::scenario::shape::RunShape { reliable_rate: 0.0, ..shape }, 0.1);
            row.features.joins_per_s = shape.reconnect_share * 10.0;
            row.features.idle_rooms = idle_rooms;
            idle_rooms += row.features.rooms;
            let features = row.features;
            row.cpu = dearer
                * (0.004
                    + 2e-6 * features.connections
                    + 5e-5 * features.publishes_per_s
                    + 4e-6 * features.frames_per_s);
            row.memory_bytes = 2e7
                + 3_000.0 * features.connections
                + 9_000.0 * features.rooms
                + 1_000.0 * features.idle_rooms;
            row
        });
        let sweep = Sweep {
            started_unix_ms: 1_700_000_000_000,
            processors,
            environment: Environment::default(),
            command: String::new(),
            rows: rows.collect(),
        };
        (format!("sweep-{processors}.json"), sweep)
    }

    #[test]
    fn costs_and_the_law_over_processors_are_found_again() {
        let law = Usl { sigma: 0.05, kappa: 0.001 };
        let models = Models::fit(&[sweep(1, law), sweep(2, law), sweep(8, law)], None).unwrap();
        assert_eq!(models.usl_basis, Basis::Fitted);
        assert!(
            (models.usl.sigma - 0.05).abs() < 1e-6 && (models.usl.kappa - 0.001).abs() < 1e-6,
            "{:?}",
            models.usl
        );
        let load = Features { connections: 1e4, frames_per_s: 1e5, ..Features::default() };
        let need = models.need(&load, 16.0);
        let wanted = (0.004 + 0.02 + 0.4) * law.inflation(16.0);
        assert!((need.processors / wanted - 1.0).abs() < 1e-6, "{need:?} for {wanted}");
        assert!((need.memory_bytes / (2e7 + 3e7) - 1.0).abs() < 1e-6);
        assert!((need.nic_bits_per_s - 8.0 * 90.0 * 1e5).abs() < 1.0, "frames have headers");
    }

    #[test]
    fn a_room_in_use_and_one_left_behind_are_told_apart_and_no_plan_is_of_the_latter() {
        let models = Models::fit(&[sweep(1, Usl::default())], None).unwrap();
        let of = |name: &str| {
            let term = models.memory.terms.iter().find(|term| term.name == name);
            term.map(|term| term.coefficient.round())
        };
        assert_eq!((of("rooms"), of("idle rooms")), (Some(9_000.0), Some(1_000.0)), "{:?}", models.memory);
        assert_eq!(models.measured_max[1], 400.0, "rooms of one run, and not all that are alive");
    }

    #[test]
    fn a_sweep_that_no_model_fits_is_named_and_its_law_is_not_told() {
        let law = Usl { sigma: 0.05, kappa: 0.001 };
        let (file, mut few) = sweep(2, law);
        few.rows.truncate(3);
        let models = Models::fit(&[sweep(8, law), (file, few)], None).unwrap();
        assert_eq!(models.usl_basis, Basis::AssumedLinear);
        assert_eq!(models.not_in_usl.len(), 1);
        assert!(models.not_in_usl[0].starts_with("2 processors: 3 usable rows are too few"), "{models:?}");
    }

    #[test]
    fn one_number_of_processors_says_nothing_of_others() {
        let models = Models::fit(&[sweep(1, Usl::default())], None).unwrap();
        assert_eq!((models.usl, models.usl_basis), (Usl::default(), Basis::AssumedLinear));
        let given = Usl { sigma: 0.1, kappa: 0.0 };
        let models = Models::fit(&[sweep(1, Usl::default())], Some(given)).unwrap();
        assert_eq!((models.usl, models.usl_basis), (given, Basis::Given));
    }
}
