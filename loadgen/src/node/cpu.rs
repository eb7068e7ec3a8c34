//! The node's processor time per frame, and its ratio to the floor.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::monotonic_ns;
use crate::figures::ratio;
use crate::ledger::Tally;
use crate::machine::descriptors::devices_per_process;
use crate::node::floor::{Floor, FloorShape};
use crate::scenario::plan::Plan;
use crate::wire::doors::{ANSWER_AGE_MAX, ANSWER_AGE_MAX_AFTER};
use crate::wire::frame::header_bytes;

const PROCESSOR_TIME: &str = "roomcast_cpu_microseconds_total";
const LET_IN: &str = "roomcast_handshakes_accepted_total";
/// Length of a floor measurement. A shorter run has a floor of its own length, and at least a second.
const FLOOR_MS: u64 = 3_000;
const FLOOR_MS_MIN: u64 = 1_000;
/// Least rounds of a floor, for slow runs.
const FLOOR_ROUNDS_MIN: u64 = 5;

/// The node's use from before the first publish was due until the last frame had arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spent {
    /// Processor time over all threads.
    pub(crate) cpu_us: u64,
    /// Time between the two readings.
    pub(crate) took_us: u64,
    /// Devices let in meanwhile, so devices that came back.
    pub(crate) joins: u64,
}

impl Spent {
    /// Processors kept busy, on average.
    pub(crate) fn processors(&self) -> f64 {
        ratio(self.cpu_us, self.took_us)
    }
}

/// A reading of the counters of the node, or of all nodes together.
#[derive(Debug)]
pub(crate) struct Meter {
    cpu_us: u64,
    joins: u64,
    at_ns: u64,
}

impl Meter {
    /// Reads the processor time before the first publish is due, with every device in its room.
    ///
    /// # Errors
    /// A sentence with the reason for the missing figure.
    pub(crate) fn begin(plan: &Plan) -> Result<Self, String> {
        if plan.awkward.through_restarts {
            return Err("a node that is restarted counts its processor time anew".into());
        }
        Self::take(plan, ANSWER_AGE_MAX)
    }

    /// Reads again, after the last frame and before the devices leave.
    ///
    /// # Errors
    /// A sentence with the reason for the missing figure.
    pub(crate) fn end(self, plan: &Plan) -> Result<Spent, String> {
        let after = Self::take(plan, ANSWER_AGE_MAX_AFTER)?;
        let spent_us = after.cpu_us.checked_sub(self.cpu_us);
        Ok(Spent {
            cpu_us: spent_us.ok_or_else(|| "the node was restarted during the run".to_owned())?,
            took_us: after.at_ns.saturating_sub(self.at_ns) / 1_000,
            joins: after.joins.saturating_sub(self.joins),
        })
    }

    fn take(plan: &Plan, age_max: Duration) -> Result<Self, String> {
        let mut sum = Self { cpu_us: 0, joins: 0, at_ns: 0 };
        for door in &plan.target.ops_doors {
            let [cpu_us, joins] = door.metrics([PROCESSOR_TIME, LET_IN], age_max)?;
            let none = || format!("operator door {door}: no {PROCESSOR_TIME} in /metrics");
            sum.cpu_us += cpu_us.ok_or_else(none)?;
            // A node without this counter has let nobody in, as far as can be told.
            sum.joins += joins.unwrap_or(0);
        }
        Ok(Self { at_ns: monotonic_ns(), ..sum })
    }
}

/// The node's processor time per delivered frame, beside the floor.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct CpuFigures {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) spent: Option<Spent>,
    /// `cpu_us` / frames delivered. The time includes all the node's other work: publishes, heartbeats,
    /// acknowledgements and returning devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_per_frame_ns: Option<f64>,
    /// Measured after the run, in the run's shape.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) floor: Option<Floor>,
    /// `cpu_per_frame / floor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_per_frame_over_floor: Option<f64>,
    /// The reason for the first missing figure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) missing_because: Option<String>,
}

impl CpuFigures {
    /// Measures the floor, so nothing else may run on this machine. No floor is begun that would end past
    /// `until_ns`.
    pub(crate) fn of(spent: Result<Spent, String>, seen: &Tally, plan: &Plan, until_ns: u64) -> Self {
        let mut figures = Self::default();
        let measured = spent.and_then(|spent| {
            figures.spent = Some(spent);
            let shape = floor_shape(seen, plan).ok_or("no frame arrived")?;
            figures.cpu_per_frame_ns = Some(ratio(spent.cpu_us * 1_000, seen.frames));
            if plan.target.no_floor {
                return Err("--no-floor".into());
            }
            // A node that answered late has used up the time of the report.
            if monotonic_ns() + FLOOR_MS * 1_000_000 > until_ns {
                return Err("the end of the run left no time for a floor".into());
            }
            // The floor of this machine says nothing about another.
            if !plan.target.is_loopback() {
                return Err(format!("the node at {} is not on this machine", plan.target.viewer_door()));
            }
            Floor::measure(FloorShape { devices: shape.devices.min(devices_per_process()?), ..shape })
        });
        match measured {
            Ok(floor) => {
                figures.cpu_per_frame_over_floor =
                    figures.cpu_per_frame_ns.map(|per_frame_ns| per_frame_ns / floor.cpu_per_send_ns);
                figures.floor = Some(floor);
            }
            Err(reason) => figures.missing_because = Some(reason),
        }
        figures
    }
}

/// The floor in the run's shape: average devices, mean frame, frames per device and second. `None` without
/// frames.
fn floor_shape(seen: &Tally, plan: &Plan) -> Option<FloorShape> {
    let payload_bytes = seen.bytes.checked_div(seen.frames)?;
    let duration_ms = plan.seconds_milli.clamp(FLOOR_MS_MIN, FLOOR_MS);
    let devices = plan.audience.mean(plan.seconds_milli);
    let device_ms = u128::from(devices) * u128::from(plan.seconds_milli);
    let rate_milli = (u128::from(seen.frames) * 1_000_000).checked_div(device_ms)?;
    let rate_milli = u64::try_from(rate_milli).ok()?.max(FLOOR_ROUNDS_MIN * 1_000_000 / duration_ms);
    let rounds = (rate_milli * duration_ms / 1_000_000).max(FLOOR_ROUNDS_MIN);
    let frame_bytes = usize::try_from(payload_bytes + header_bytes(payload_bytes)).ok()?;
    Some(FloorShape { devices, frame_bytes, rate_milli, rounds })
}

impl fmt::Display for CpuFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpu          ")?;
        if let Some(per_frame_ns) = self.cpu_per_frame_ns {
            write!(f, "{per_frame_ns:.0} ns of the node per frame; ")?;
        }
        if let (Some(floor), Some(over)) = (&self.floor, self.cpu_per_frame_over_floor) {
            let Floor { devices, frame_bytes, rounds_per_s, cpu_per_send_ns, blocked, .. } = floor;
            return writeln!(
                f,
                "floor {cpu_per_send_ns:.0} ns per send ({devices} devices, {frame_bytes} bytes, {rounds_per_s:.1}/s, \
                 {blocked} would block): cpu_per_frame / floor = {over:.2}"
            );
        }
        let missing = if self.cpu_per_frame_ns.is_some() { "floor" } else { "figure" };
        writeln!(f, "no {missing}: {}", self.missing_because.as_deref().unwrap_or("not measured"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::args::tests::resolve;

    const SPENT: Spent = Spent { cpu_us: 100, took_us: 400, joins: 3 };

    fn seen(frames: u64, bytes: u64) -> Tally {
        Tally { frames, bytes, ..Tally::default() }
    }

    #[test]
    fn the_floor_has_the_shape_of_the_run() {
        let plan = resolve("--devices 5000 --seconds 20").unwrap();
        let shape = floor_shape(&seen(2_000_000, 2_000_000 * 11_900), &plan).unwrap();
        assert_eq!(shape, FloorShape { devices: 5_000, frame_bytes: 11_904, rate_milli: 20_000, rounds: 60 });
    }

    #[test]
    fn a_floor_is_short_and_has_some_rounds_whatever_the_run_was() {
        let slow = resolve("--devices 10000 --seconds 100 --rate 1").unwrap();
        let shape = floor_shape(&seen(20_000, 20_000 * 100), &slow).unwrap();
        assert_eq!((shape.rounds, shape.frame_bytes), (FLOOR_ROUNDS_MIN, 102));
        assert!(shape.rounds * 1_000_000 / shape.rate_milli <= FLOOR_MS + 10);
        let short = resolve("--devices 10 --seconds 0.2").unwrap();
        let shape = floor_shape(&seen(100, 100), &short).unwrap();
        assert_eq!((shape.rate_milli, shape.rounds), (50_000, 50), "one second");
        assert_eq!(floor_shape(&seen(0, 0), &slow), None);
    }

    #[test]
    fn no_figure_without_a_reason() {
        let plan = resolve("--devices 10 --viewer-door ws://192.0.2.1:7600").unwrap();
        let afar = CpuFigures::of(Ok(SPENT), &seen(50, 5_000), &plan, u64::MAX);
        assert_eq!((afar.cpu_per_frame_ns, afar.cpu_per_frame_over_floor), (Some(2_000.0), None));
        assert_eq!(afar.spent.map(|spent| spent.processors()), Some(0.25));
        assert!(afar.to_string().contains("ws://192.0.2.1:7600 is not on this machine"), "{afar}");
        let silent = CpuFigures::of(Err("no such metric".into()), &seen(50, 5_000), &plan, u64::MAX);
        assert_eq!(silent.to_string(), "cpu          no figure: no such metric\n");
        let plan = resolve("--devices 10 --no-floor").unwrap();
        let unwanted = CpuFigures::of(Ok(SPENT), &seen(50, 5_000), &plan, u64::MAX);
        assert_eq!(
            unwanted.to_string(),
            "cpu          2000 ns of the node per frame; no floor: --no-floor\n"
        );
    }
}
