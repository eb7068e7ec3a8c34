//! The predicted need of a single node for the shape of a `run`, and the distance from a run that was made.

use std::fmt;

use serde::Serialize;

use super::answer::{assumes, write_assumes, write_models};
use super::asked::At;
use super::models::{Models, Resources};
use super::{Beyond, beyond};
use crate::planning::compare::alike::reliable_per_s;
use crate::planning::model::Features;
use crate::planning::model::flushes::PublishRhythm;
use crate::planning::{places, sweep};
use crate::report::Report;

/// Part by which the reliable rates may differ. A report has only the number of reliable messages, and their
/// arrivals may be random.
const RELIABLE_OFF_MAX: f64 = 0.1;

#[derive(Debug, Clone, Serialize)]
pub(crate) struct PointAnswer {
    pub(crate) models: Models,
    at: At,
    features: Features,
    pub(super) need: Resources,
    /// The node's own part of the memory, without the kernel's buffers for its sockets.
    own_memory_bytes: f64,
    /// Processors, less twice the root mean square error of rows left out of the fit.
    processors_low: f64,
    /// Processors, plus the same.
    processors_high: f64,
    pub(crate) beyond: Vec<Beyond>,
    /// The conditions for a right answer, a line each.
    assumes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    measured: Option<RunFound>,
}

/// The measured values of a run at the point.
#[derive(Debug, Clone, Copy, Serialize)]
struct RunFound {
    features: Features,
    processors: f64,
    /// Prediction / measured value − 1.
    processors_off: f64,
    /// The node's own memory, without the kernel's buffers. `None`: the node did not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<f64>,
    /// Prediction of the own memory / measured value − 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_off: Option<f64>,
}

impl PointAnswer {
    /// Predicts the point, and compares the prediction with `report`. Fails for an encoding without a row,
    /// for a report of another shape, and for a report without figures of the node.
    pub(crate) fn of(models: Models, at: At, report: Option<&Report>) -> Result<Self, String> {
        let features = models.flushes.features(&at.shape, at.joins_per_s, PublishRhythm::Steady)?;
        let need = models.need(&features, models.processors);
        let own_memory_bytes = models.memory.at(&features);
        let measured = report.map(|report| {
            if let Some(what) = differs(&at, report) {
                return Err(format!("--against: {what}"));
            }
            // The number of idle rooms is not in a report; a model of processors does not need the number.
            let row = sweep::row(&at.shape, report, f64::from(report.rooms), models.processors);
            if let Some(reason) = row.unusable_because {
                return Err(format!("--against: {reason}"));
            }
            let memory_bytes = Some(row.memory_bytes).filter(|bytes| *bytes > 0.0);
            Ok(RunFound {
                features: row.features,
                processors: row.cpu,
                processors_off: need.processors / row.cpu - 1.0,
                memory_bytes,
                memory_off: memory_bytes.map(|bytes| own_memory_bytes / bytes - 1.0),
            })
        });
        let error = 2.0 * models.cpu.left_out_rms;
        Ok(Self {
            at,
            features,
            need,
            own_memory_bytes,
            assumes: assumes(&models, &[at.shape.members()], PublishRhythm::Steady),
            processors_low: need.processors * (1.0 - error).max(0.0),
            processors_high: need.processors * (1.0 + error),
            beyond: beyond(&models, &features),
            measured: measured.transpose()?,
            models,
        })
    }
}

/// The first difference between the point and the run. `None`: the same shape.
fn differs(at: &At, report: &Report) -> Option<String> {
    let shape = &at.shape;
    let reliable = reliable_per_s(report).unwrap_or(0.0);
    // A report has rates in thousandths.
    let rate_off = (shape.rate - report.rate_per_s).abs() > 0.001;
    let off = (shape.reliable_rate - reliable).abs();
    // The first and the last message add or take up to two messages, which matter in a short run.
    let reliable_off =
        off > 2.0 / report.seconds.max(1.0) && off > RELIABLE_OFF_MAX * shape.reliable_rate.max(reliable);
    let whole = [
        ("devices", shape.devices.to_string(), report.devices.to_string()),
        ("rooms", shape.rooms.to_string(), report.rooms.to_string()),
        ("payload", shape.payload_bytes.to_string(), report.payload_bytes.to_string()),
        ("encoding", shape.encoding.subprotocol().to_owned(), report.encoding.subprotocol().to_owned()),
        (
            "messages-per-request",
            shape.messages_per_request.to_string(),
            report.messages_per_request.to_string(),
        ),
    ];
    let rates = [
        rate_off.then_some(("rate", shape.rate, report.rate_per_s)),
        reliable_off.then_some(("reliable-rate", shape.reliable_rate, reliable)),
    ];
    let rates = rates.into_iter().flatten();
    let rates = rates.map(|(what, asked, found)| (what, asked.to_string(), found.to_string()));
    let (what, asked, found) = whole.into_iter().chain(rates).find(|(_, asked, found)| asked != found)?;
    Some(format!("{what}: --at asks {asked}, the run had {found}"))
}

impl fmt::Display for PointAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_models(f, &self.models)?;
        writeln!(f, "features     {:>14} {:>14} {:>13}", "predicted", "measured", "/ largest row")?;
        for column in Features::COLUMNS {
            let predicted = (column.of)(&self.features);
            let measured = places(self.measured.map(|measured| (column.of)(&measured.features)), 1);
            let beyond = self.beyond.iter().find(|beyond| beyond.feature == column.name);
            let times = beyond.and_then(|beyond| beyond.times).unwrap_or(0.0);
            writeln!(f, "  {:<12} {predicted:>12.1} {measured:>14} {times:>13.2}", column.name)?;
        }
        let Self { processors_low, processors_high, .. } = self;
        let Resources { processors, memory_bytes, nic_bits_per_s } = self.need;
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        writeln!(f, "processors   {processors:.3} ({processors_low:.3} to {processors_high:.3})")?;
        let all = mib(memory_bytes);
        let own = mib(self.own_memory_bytes);
        writeln!(
            f,
            "memory       {all:.1} MiB: {own:.1} MiB of the node, the rest kernel buffers of its sockets"
        )?;
        writeln!(f, "network      {:.1} Mbit/s", nic_bits_per_s / 1e6)?;
        if let Some(RunFound { processors, processors_off, memory_bytes, memory_off, .. }) = self.measured {
            let off = 100.0 * processors_off;
            write!(f, "measured     {processors:.3} processors (prediction {off:+.1} %), ")?;
            match memory_bytes.zip(memory_off) {
                Some((bytes, off)) => {
                    writeln!(f, "{:.1} MiB of the node (prediction {:+.1} %)", mib(bytes), 100.0 * off)
                }
                None => writeln!(f, "memory not measured"),
            }?;
        }
        write_assumes(f, &self.assumes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planning::capacity::answer::tests::models;
    use crate::report::tests::made_up;

    const AT: &str = "devices=1000,rooms=4,rate=500,payload=300";

    /// A run of that shape.
    fn report() -> Report {
        let mut report = made_up();
        report.published.ok = report.published.sent;
        report.reliable = None;
        let spent = r#"{"cpu_us": 6000000, "took_us": 12000000, "joins": 0}"#;
        report.cpu.spent = serde_json::from_str(spent).unwrap();
        report
    }

    fn told(models: Models, at: &str, report: &Report) -> Result<PointAnswer, String> {
        PointAnswer::of(models, at.parse().unwrap(), Some(report))
    }

    #[test]
    fn a_run_of_another_shape_is_not_held_against_a_point() {
        told(models(), AT, &report()).unwrap();
        for (other, named) in [
            (
                AT.replace("devices=1000", "devices=900"),
                "--against: devices: --at asks 900, the run had 1000",
            ),
            (AT.replace("rooms=4", "rooms=1"), "rooms: "),
            (AT.replace("rate=500", "rate=490"), "rate: --at asks 490, the run had 500"),
            (AT.replace("payload=300", "payload=299"), "payload: "),
            (format!("{AT},messages-per-request=2"), "messages-per-request: "),
            (format!("{AT},reliable-rate=2"), "reliable-rate: --at asks 2, the run had 0"),
        ] {
            let refused = told(models(), &other, &report()).unwrap_err();
            assert!(refused.contains(named), "{refused}");
        }
    }

    #[test]
    fn memory_is_held_against_the_same_memory_and_where_there_is_none_against_nothing() {
        let mut models = models();
        models.socket_bytes_per_connection = Some(1e6);
        let own = models.memory.at(&models
            .flushes
            .features(&AT.parse::<At>().unwrap().shape, 0.0, PublishRhythm::Steady)
            .unwrap());
        let mut report = report();
        report.memory.readings[1].bytes = crate::figures::rounded(own);
        let answer = told(models.clone(), AT, &report).unwrap();
        let measured = answer.measured.unwrap();
        assert!(measured.memory_off.unwrap().abs() < 1e-6, "{measured:?}");
        assert!(answer.need.memory_bytes > own + 9e8, "the kernel's is told, too");
        report.memory.readings.clear();
        let answer = told(models, AT, &report).unwrap();
        assert!(answer.to_string().contains("memory not measured"), "{answer}");
        assert_eq!(answer.measured.unwrap().memory_off, None);
    }
}
