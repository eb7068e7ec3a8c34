//! The figures by which two reports are compared: the value in the report, and its course over the run. Pure.

use std::collections::BTreeMap;

use crate::figures::timeline::Moment;
use crate::figures::{mib, ratio};
use crate::node::samples::Sample;
use crate::report::Report;
use crate::scenario::thresholds::{Metric, Quantile};

use super::noise::Worse;

/// Smaller differences of times do not count: timelines resolve times from 1 ms on.
const TIME_MS_MIN: f64 = 1.0;
/// Smaller differences of shares do not count.
const PERCENT_MIN: f64 = 0.1;
/// A figure that is [`FAR_TIMES`] as large as before, and larger by this much, is not chance: a processor
/// that other programs take for a moment costs less.
const FAR_MS: f64 = 20.0;
const FAR_MIB: f64 = 20.0;
const FAR_PERCENT: f64 = 1.0;
const FAR_TIMES: f64 = 2.0;

pub(crate) struct ComparedFigure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) worse: Worse,
    /// Smaller differences do not count, in the figure's unit.
    pub(crate) least: f64,
    /// A difference of this size is worse for any series, if the new value is also [`FAR_TIMES`] the old
    /// value. `None`: no difference is.
    far: Option<f64>,
    /// The value in the report. `None`: not measured.
    pub(crate) said: FigureOf,
    /// Pairs of seconds and values; empty for a figure without a series.
    pub(crate) series: SeriesOf,
}

type FigureOf = fn(&Report) -> Option<f64>;
type SeriesOf = fn(&Report) -> Vec<(f64, f64)>;

const NO_SERIES: SeriesOf = |_| Vec::new();

/// All compared figures, in printed order.
///
/// The last device has no series of its own. The maximum of each quarter second stands for the last device of
/// the slowest message in that quarter.
pub(crate) const FIGURES: [ComparedFigure; 13] = [
    time("p50", |report| Quantile::P50.of(&report.latency), |report| latencies(report, |at| at.p50_ms)),
    time("p99", |report| Quantile::P99.of(&report.latency), |report| latencies(report, |at| at.p99_ms)),
    time("p99.9", |report| Quantile::P999.of(&report.latency), NO_SERIES),
    time(
        "last p99",
        |report| Quantile::P99.of(&report.first_to_last.last),
        |report| latencies(report, |at| at.max_ms),
    ),
    time("apply p99", |report| Quantile::P99.of(&report.reliable.as_ref()?.apply), NO_SERIES),
    time(
        "answer p99",
        |report| Quantile::P99.of(&report.answer),
        |report| weighed(report.types.rows().iter().flat_map(|row| &row.answer_over_time), |at| at.p99_ms),
    ),
    time("join p99", |report| Quantile::P99.of(&report.join), NO_SERIES),
    share("refused", |report| Some(100.0 * report.refused_share()?)),
    share("skipped", |report| Some(100.0 * Metric::Skipped.of_run(report)?)),
    ComparedFigure {
        worse: Worse::Less,
        ..figure("deliveries", "/s", |report| Metric::Deliveries.of_run(report), deliveries)
    },
    figure(
        "cpu per frame",
        "ns",
        |report| report.cpu.cpu_per_frame_ns,
        |report| {
            samples(report, |sample| {
                (sample.frames_per_s > 0.0).then(|| 1e9 * sample.cpu / sample.frames_per_s)
            })
        },
    ),
    figure("node cpu", "cores", Report::node_cpu, |report| samples(report, |sample| Some(sample.cpu))),
    ComparedFigure {
        least: 1.0,
        far: Some(FAR_MIB),
        ..figure(
            "memory",
            "MiB",
            |report| Some(mib(report.node_bytes_most()?)),
            |report| {
                let readings = report.memory.readings.iter();
                readings.map(|reading| (ratio(reading.at_ms, 1_000), mib(reading.bytes))).collect()
            },
        )
    },
];

const fn figure(name: &'static str, unit: &'static str, said: FigureOf, series: SeriesOf) -> ComparedFigure {
    ComparedFigure { name, unit, worse: Worse::More, least: 0.0, far: None, said, series }
}

const fn time(name: &'static str, said: FigureOf, series: SeriesOf) -> ComparedFigure {
    ComparedFigure { least: TIME_MS_MIN, far: Some(FAR_MS), ..figure(name, "ms", said, series) }
}

/// A share of messages, in percent. A report has only the total, so the series is empty.
const fn share(name: &'static str, said: FigureOf) -> ComparedFigure {
    ComparedFigure { least: PERCENT_MIN, far: Some(FAR_PERCENT), ..figure(name, "%", said, NO_SERIES) }
}

impl ComparedFigure {
    /// The figure is worse by far more than chance explains.
    pub(crate) fn is_far_worse(&self, old: f64, new: f64) -> bool {
        self.far.is_some_and(|far| new - old >= far && new >= old * FAR_TIMES)
    }
}

/// Latency over time: the mean over all types, weighted by their deliveries.
fn latencies(report: &Report, of: fn(&Moment) -> f64) -> Vec<(f64, f64)> {
    weighed(report.types.rows().iter().flat_map(|row| &row.latency_over_time), of)
}

fn weighed<'a>(moments: impl Iterator<Item = &'a Moment>, of: fn(&Moment) -> f64) -> Vec<(f64, f64)> {
    let mut slots = BTreeMap::<u64, (f64, u64)>::new();
    // A value that an older report lacks reads as 0, and no real latency is 0.
    for moment in moments.filter(|moment| of(moment) > 0.0) {
        let (sum, count) = slots.entry(moment.at_ms).or_default();
        *sum += of(moment) * ratio(moment.count, 1);
        *count += moment.count;
    }
    slots.into_iter().map(|(at_ms, (sum, count))| (ratio(at_ms, 1_000), sum / ratio(count, 1))).collect()
}

fn deliveries(report: &Report) -> Vec<(f64, f64)> {
    let seconds = report.deliveries_by_second().into_iter();
    // The last second may be incomplete, and would look like a drop.
    let whole = seconds.filter(|(second, _)| ratio(*second, 1) + 1.0 <= report.seconds);
    whole.map(|(second, count)| (ratio(second, 1), ratio(count, 1))).collect()
}

/// A figure of the node over the time of publishing.
fn samples(report: &Report, of: fn(&Sample) -> Option<f64>) -> Vec<(f64, f64)> {
    let at = |sample: &Sample| ratio(sample.at_ms.unsigned_abs(), 1_000);
    report.node_at_work().filter_map(|sample| Some((at(sample), of(sample)?))).collect()
}
