//! The figures by which two reports are compared: the value in the report, and its course over the run. Pure.

use std::collections::BTreeMap;

use crate::figures::latency::Percentiles;
use crate::figures::ratio;
use crate::figures::timeline::Moment;
use crate::node::samples::Sample;
use crate::report::Report;

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
    pub(crate) far: Option<f64>,
    /// The value in the report. `None`: not measured.
    pub(crate) said: FigureOf,
    /// Pairs of seconds and values; empty for a figure without a series.
    pub(crate) series: SeriesOf,
}

/// All compared figures, in printed order.
///
/// The last device has no series of its own. The maximum of each quarter second stands for the last device of
/// the slowest message in that quarter.
pub(crate) const FIGURES: [ComparedFigure; 13] = [
    time(
        "p50",
        |report| said(&report.latency, |all| all.p50_ms),
        |report| moments(report, |moment| moment.p50_ms),
    ),
    time(
        "p99",
        |report| said(&report.latency, |all| all.p99_ms),
        |report| moments(report, |moment| moment.p99_ms),
    ),
    time("p99.9", |report| said(&report.latency, |all| all.p999_ms), |_| Vec::new()),
    time(
        "last p99",
        |report| said(&report.first_to_last.last, |all| all.p99_ms),
        |report| moments(report, |moment| moment.max_ms),
    ),
    time("apply p99", |report| said(&report.reliable.as_ref()?.apply, |all| all.p99_ms), |_| Vec::new()),
    time("answer p99", |report| said(&report.answer, |all| all.p99_ms), answers),
    time("join p99", |report| said(&report.join, |all| all.p99_ms), |_| Vec::new()),
    share("refused", |report| report.refused_share().map(|share| 100.0 * share)),
    share("skipped", |report| {
        let offered = report.seen.deliveries + report.seen.skipped;
        (offered > 0).then(|| 100.0 * ratio(report.seen.skipped, offered))
    }),
    ComparedFigure {
        worse: Worse::Less,
        ..figure(
            "deliveries",
            "/s",
            |report| (report.seen.deliveries > 0).then(|| report.deliveries_per_s()),
            deliveries,
        )
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
            |report| report.node_bytes_most().map(|bytes| ratio(bytes, 1 << 20)),
            |report| {
                let readings = report.memory.readings.iter();
                readings.map(|reading| (ratio(reading.at_ms, 1_000), ratio(reading.bytes, 1 << 20))).collect()
            },
        )
    },
];

type FigureOf = fn(&Report) -> Option<f64>;
type SeriesOf = fn(&Report) -> Vec<(f64, f64)>;

const fn figure(name: &'static str, unit: &'static str, said: FigureOf, series: SeriesOf) -> ComparedFigure {
    ComparedFigure { name, unit, worse: Worse::More, least: 0.0, far: None, said, series }
}

const fn time(name: &'static str, said: FigureOf, series: SeriesOf) -> ComparedFigure {
    ComparedFigure { least: TIME_MS_MIN, far: Some(FAR_MS), ..figure(name, "ms", said, series) }
}

/// A share of messages, in percent. A report has only the total, so the series is empty.
const fn share(name: &'static str, said: FigureOf) -> ComparedFigure {
    ComparedFigure { least: PERCENT_MIN, far: Some(FAR_PERCENT), ..figure(name, "%", said, |_| Vec::new()) }
}

impl ComparedFigure {
    /// The figure is worse by far more than chance explains.
    pub(crate) fn is_far_worse(&self, old: f64, new: f64) -> bool {
        self.far.is_some_and(|far| new - old >= far && new >= old * FAR_TIMES)
    }
}

fn said(figures: &Percentiles, at: fn(&Percentiles) -> f64) -> Option<f64> {
    (figures.count > 0).then(|| at(figures))
}

/// Latency over time: the mean over all types, weighted by their deliveries.
fn moments(report: &Report, of: fn(&Moment) -> f64) -> Vec<(f64, f64)> {
    weighed(report.types.rows().iter().flat_map(|row| &row.latency_over_time), of)
}

fn answers(report: &Report) -> Vec<(f64, f64)> {
    weighed(report.types.rows().iter().flat_map(|row| &row.answer_over_time), |moment| moment.p99_ms)
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

/// Deliveries by the second in which their messages were due.
fn deliveries(report: &Report) -> Vec<(f64, f64)> {
    let mut seconds = BTreeMap::<u64, u64>::new();
    for moment in report.types.rows().iter().flat_map(|row| &row.latency_over_time) {
        *seconds.entry(moment.at_ms / 1_000).or_default() += moment.count;
    }
    // The last second may be incomplete, and would look like a drop.
    let whole = seconds.into_iter().filter(|(second, _)| ratio(*second, 1) + 1.0 <= report.seconds);
    whole.map(|(second, count)| (ratio(second, 1), ratio(count, 1))).collect()
}

/// A figure of the node over the time of publishing.
fn samples(report: &Report, of: fn(&Sample) -> Option<f64>) -> Vec<(f64, f64)> {
    let at = |sample: &Sample| ratio(sample.at_ms.unsigned_abs(), 1_000);
    report.node_at_work().filter_map(|sample| Some((at(sample), of(sample)?))).collect()
}
