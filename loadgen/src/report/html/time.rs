//! The charts of a run over its time, all on one axis. Pure.

use std::collections::BTreeMap;

use crate::figures::ratio;
use crate::figures::timeline::Moment;
use crate::node::samples::Sample;
use crate::report::Report;
use crate::report::html::run::mib;
use crate::report::html::{Block, Chart, ChartLimit, Line, Look, Thinning, X, decimal, grouped};
use crate::scenario::thresholds::Condition;

/// What devices saw.
#[must_use]
pub(super) fn of_devices(report: &Report) -> Vec<Block> {
    let mut p99 = by_type(report, "Latency p99", |moment| moment.p99_ms);
    let asked = report.thresholds.iter().filter_map(|judged| judged.condition.parse::<Condition>().ok());
    let mut asked = asked.filter_map(|condition| Some((condition.p99_most_ms()?, condition.to_string())));
    p99.limit = asked.next().map(|(at, name)| ChartLimit { at, name });
    let mut charts = vec![p99, deliveries(report)];
    if !report.server.is_empty() {
        let joins = report.server.windows(2).map(|pair| {
            let took_s = (seconds(&pair[1]) - seconds(&pair[0])).max(0.001);
            (seconds(&pair[1]), ratio(pair[1].connections.saturating_sub(pair[0].connections), 1) / took_s)
        });
        charts.push(one_line(
            report,
            "Growth of connections",
            "/s",
            2,
            &joins.collect::<Vec<_>>(),
            Look::Steps,
        ));
        charts.push(sampled(
            report,
            "Connections",
            "",
            5,
            |sample| Some(ratio(sample.connections, 1)),
            Look::Line,
        ));
    }
    charts.retain(|chart| !chart.lines.is_empty());
    if charts.is_empty() { Vec::new() } else { vec![Block::Charts(charts)] }
}

/// What devices were given, by when it was due: all types that have a latency.
fn deliveries(report: &Report) -> Chart {
    let mut by_second = BTreeMap::<u64, u64>::new();
    for moment in report.types.rows().iter().flat_map(|row| &row.latency_over_time) {
        *by_second.entry(moment.at_ms / 1_000).or_default() += moment.count;
    }
    let points = by_second.into_iter().map(|(second, count)| (ratio(second, 1), ratio(count, 1)));
    let points: Vec<_> = points.collect();
    one_line(report, "Deliveries, by when they were due", "/s", 1, &points, Look::Line)
}

/// A chart over time with a line for each type.
pub(super) fn by_type(report: &Report, title: &str, of: fn(&Moment) -> f64) -> Chart {
    let lines = report.types.rows().iter().enumerate().filter(|(_, row)| !row.latency_over_time.is_empty());
    let lines = lines.map(|(colour, row)| {
        let points: Vec<(f64, f64)> =
            row.latency_over_time.iter().map(|moment| (ratio(moment.at_ms, 1_000), of(moment))).collect();
        Line { name: row.type_name.clone(), colour, points: Thinning::Highest.of(&points), look: Look::Line }
    });
    Chart { title: title.to_owned(), unit: "ms", x: span(report), lines: lines.collect(), limit: None }
}

/// How the node was.
#[must_use]
pub(super) fn of_node(report: &Report) -> Vec<Block> {
    if report.server.is_empty() {
        let readings = report.memory.readings.iter();
        let points: Vec<_> =
            readings.map(|reading| (ratio(reading.at_ms, 1_000), mib(reading.bytes))).collect();
        let chart = one_line(report, "Memory", "MiB", 0, &points, Look::Line);
        return if chart.lines.is_empty() { Vec::new() } else { vec![Block::Charts(vec![chart])] };
    }
    let mut charts = vec![
        sampled(report, "Processors kept busy", "", 1, |sample| Some(sample.cpu), Look::Line),
        sampled(report, "Memory", "MiB", 0, |sample| Some(mib(sample.resident_bytes)), Look::Line),
        sampled(
            report,
            "Kernel's memory for sockets, of this machine",
            "MiB",
            3,
            |sample| sample.socket_bytes.map(mib),
            Look::Line,
        ),
        sampled(report, "Frames sent", "/s", 2, |sample| Some(sample.frames_per_s), Look::Line),
        sampled(report, "Messages taken", "/s", 5, |sample| Some(sample.published_per_s), Look::Line),
        sampled(
            report,
            "Step of the ladder",
            "",
            4,
            |sample| Some(ratio(sample.ladder_step, 1)),
            Look::Steps,
        ),
    ];
    charts.retain(|chart| !chart.lines.is_empty());
    let mut blocks = vec![Block::Charts(charts)];
    if let Some(floor) = &report.cpu.floor {
        blocks.push(Block::Note(format!(
            "The floor: {} ns of processor time for a plain send of {} bytes to each of {} devices, {} times a second; {} of \
             {} sends would have blocked.",
            decimal(Some(floor.cpu_per_send_ns)),
            grouped(floor.frame_bytes as u64),
            grouped(floor.devices.into()),
            decimal(Some(floor.rounds_per_s)),
            floor.blocked,
            grouped(floor.sends)
        )));
    }
    blocks
}

/// A chart of one thing over the run's time; without a line where there are no points.
fn one_line(
    report: &Report,
    title: &str,
    unit: &'static str,
    colour: usize,
    points: &[(f64, f64)],
    look: Look,
) -> Chart {
    let points = Thinning::Mean.of(points);
    let line = Line { name: title.to_owned(), colour, points, look };
    let lines = if line.points.is_empty() { Vec::new() } else { vec![line] };
    Chart { title: title.to_owned(), unit, x: span(report), lines, limit: None }
}

/// A chart of what the node was at each sample.
fn sampled(
    report: &Report,
    title: &str,
    unit: &'static str,
    colour: usize,
    of: fn(&Sample) -> Option<f64>,
    look: Look,
) -> Chart {
    let points = report.server.iter().filter_map(|sample| Some((seconds(sample), of(sample)?)));
    one_line(report, title, unit, colour, &points.collect::<Vec<_>>(), look)
}

/// The time that all charts of a run have.
fn span(report: &Report) -> X {
    let samples = || report.server.iter().map(seconds);
    let readings = report.memory.readings.iter().map(|reading| ratio(reading.at_ms, 1_000));
    let to = samples().chain(readings).fold(report.seconds, f64::max);
    let rows = report.types.rows();
    let letters = rows.iter().map(|row| row.type_name.chars().count()).max().filter(|_| rows.len() > 1);
    X::Seconds { from: samples().fold(0.0, f64::min), to, letters: letters.unwrap_or(0) }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a run fit a double exactly")]
fn seconds(sample: &Sample) -> f64 {
    sample.at_ms as f64 / 1_000.0
}
