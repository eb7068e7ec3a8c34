//! One node at one point: what it needs for exactly the shape of a `run`, and how far a run that was made is from it.

use std::fmt;

use serde::Serialize;

use super::answer::write_models;
use super::asked::At;
use super::models::{Models, Need};
use super::{Beyond, beyond};
use crate::model::Features;
use crate::model::flushes::Arrivals;
use crate::report::Report;
use crate::sweep;

/// What is told of a point, and what a run found there.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PointAnswer {
    pub(crate) models: Models,
    at: At,
    features: Features,
    pub(super) need: Need,
    /// The processors, less and more by the error of rows that the model had not seen, twice its root mean square.
    processors_low: f64,
    processors_high: f64,
    pub(crate) beyond: Vec<Beyond>,
    #[serde(skip_serializing_if = "Option::is_none")]
    measured: Option<Measured>,
}

/// What a run found.
#[derive(Debug, Clone, Copy, Serialize)]
struct Measured {
    features: Features,
    processors: f64,
    memory_bytes: f64,
    /// What was told of the processors over what they were, less 1.
    processors_off: f64,
    memory_off: f64,
}

impl PointAnswer {
    /// Tells the point, and holds `report` against it.
    ///
    /// # Errors
    /// One line, when nothing is known of the encoding, or the report says nothing of the node.
    pub(crate) fn of(models: Models, at: At, report: Option<&Report>) -> Result<Self, String> {
        let features = models.flushes.features(&at.shape, at.joins_per_s, Arrivals::Steady)?;
        let need = models.need(&features, models.processors);
        let measured = report.map(|report| {
            let row = sweep::row(&at.shape, report, f64::from(report.rooms), models.processors);
            if let Some(reason) = row.unusable_because {
                return Err(format!("--against: {reason}"));
            }
            Ok(Measured {
                features: row.features,
                processors: row.cpu,
                memory_bytes: row.memory_bytes,
                processors_off: need.processors / row.cpu - 1.0,
                memory_off: need.memory_bytes / row.memory_bytes - 1.0,
            })
        });
        let error = 2.0 * models.cpu.left_out_rms;
        Ok(Self {
            at,
            features,
            need,
            processors_low: need.processors * (1.0 - error).max(0.0),
            processors_high: need.processors * (1.0 + error),
            beyond: beyond(&models, &features),
            measured: measured.transpose()?,
            models,
        })
    }
}

impl fmt::Display for PointAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_models(f, &self.models)?;
        writeln!(f, "features     {:>14} {:>14} {:>10}", "told", "measured", "× largest")?;
        for column in Features::COLUMNS {
            let told = (column.of)(&self.features);
            let measured = self.measured.as_ref().map(|measured| (column.of)(&measured.features));
            let measured = measured.map_or_else(|| "-".to_owned(), |measured| format!("{measured:.1}"));
            let beyond = self.beyond.iter().find(|beyond| beyond.feature == column.name);
            let times = beyond.and_then(|beyond| beyond.times).unwrap_or(0.0);
            writeln!(f, "  {:<12} {told:>12.1} {measured:>14} {times:>10.2}", column.name)?;
        }
        let Need { processors, memory_bytes, nic_bits_per_s } = self.need;
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        writeln!(
            f,
            "processors   {processors:.3} ({:.3} to {:.3})",
            self.processors_low, self.processors_high
        )?;
        writeln!(f, "memory       {:.1} MiB", mib(memory_bytes))?;
        writeln!(f, "network      {:.1} Mbit/s", nic_bits_per_s / 1e6)?;
        if let Some(measured) = &self.measured {
            writeln!(
                f,
                "measured     {:.3} processors (told {:+.1} %), {:.1} MiB (told {:+.1} %)",
                measured.processors,
                100.0 * measured.processors_off,
                mib(measured.memory_bytes),
                100.0 * measured.memory_off
            )?;
        }
        Ok(())
    }
}
