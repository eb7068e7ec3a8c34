//! The charts of a run over time, all on the same axis. Pure.

use maud::{Markup, html};

use crate::figures::timeline::Moment;
use crate::figures::{mib, ratio, rounded};
use crate::node::samples::{NodeSample, Sample};
use crate::report::Report;
use crate::report::html::chart::{
    Chart, ChartLimit, ChartMark, ChartPoint, Line, Look, X, highest, mean, thinned,
};
use crate::report::html::{Cell, Tone, charts, decimal, grouped, note, places, table};
use crate::report::over_time::Wake;
use crate::scenario::thresholds::Condition;

pub(super) fn of_devices(report: &Report) -> Markup {
    // Fault conditions do not parse, and have no figure to draw.
    let asked = report.thresholds.iter().filter_map(|judged| judged.condition.parse::<Condition>().ok());
    let mut limits = asked.filter_map(|condition| {
        Some(ChartLimit { at: condition.p99_most_ms()?, name: condition.to_string() })
    });
    let p99 = Chart { limit: limits.next(), ..by_type(report, "Latency p99", |moment| moment.p99_ms) };
    let growth = report.server.windows(2).map(|pair| {
        let at_s = seconds(&pair[1]);
        let joined = pair[1].connections.saturating_sub(pair[0].connections);
        // Two samples of one millisecond would divide by 0.
        ChartPoint::at(at_s, ratio(joined, 1) / (at_s - seconds(&pair[0])).max(0.001))
    });
    let growth = over_time(report, "Growth of connections", "/s", 2, growth);
    let failed = (0..rounded(report.seconds.ceil())).map(|second| {
        let failed = report.failed_by_second.get(&second).copied().unwrap_or(0);
        ChartPoint::at(ratio(second, 1), ratio(failed, 1))
    });
    // A run without a refusal needs no chart of zeros.
    let failed = failed.filter(|_| !report.failed_by_second.is_empty());
    let deliveries = report.deliveries_by_second().into_iter();
    let deliveries = deliveries.map(|(second, count)| ChartPoint::at(ratio(second, 1), ratio(count, 1)));
    charts(&[
        p99,
        over_time(report, "Deliveries, by when they were due", "/s", 1, deliveries),
        in_steps(over_time(report, "Refused or unknown, by when they were due", "/s", 3, failed)),
        in_steps(growth),
        sampled(report, "Connections", "", 5, |sample| Some(ratio(sample.connections, 1))),
    ])
}

/// A chart with a line for each type, in milliseconds.
pub(super) fn by_type(report: &Report, title: &str, of: fn(&Moment) -> f64) -> Chart {
    let rows = report.types.rows().iter().enumerate();
    let lines = rows.filter(|(_, row)| !row.latency_over_time.is_empty()).map(|(colour, row)| {
        let moments = row.latency_over_time.iter();
        let points = moments.map(|moment| ChartPoint::at(ratio(moment.at_ms, 1_000), of(moment)));
        let points = thinned(&points.collect::<Vec<_>>(), highest);
        Line { name: row.type_name.clone(), colour, points, look: Look::Line }
    });
    Chart { title: title.to_owned(), unit: "ms", x: span(report), lines: lines.collect(), limit: None }
}

pub(super) fn of_node(report: &Report) -> Markup {
    // A node on another machine has no samples; its memory may have been read nevertheless.
    let memory = if report.server.is_empty() {
        let readings = report.memory.readings.iter();
        let points = readings.map(|reading| ChartPoint::at(ratio(reading.at_ms, 1_000), mib(reading.bytes)));
        over_time(report, "Memory", "MiB", 0, points)
    } else {
        sampled(report, "Memory", "MiB", 0, |sample| Some(mib(sample.resident_bytes)))
    };
    let socket_memory = "Kernel's memory for sockets, of this machine";
    let ladder = sampled(report, "Step of the ladder", "", 4, |sample| Some(ratio(sample.ladder_step, 1)));
    html! {
        (charts(&[
            sampled(report, "Processors kept busy", "", 1, |sample| Some(sample.cpu)),
            memory,
            sampled(report, socket_memory, "MiB", 3, |sample| sample.socket_bytes.map(mib)),
            sampled(report, "Frames sent", "/s", 2, |sample| Some(sample.frames_per_s)),
            sampled(report, "Messages taken", "/s", 5, |sample| Some(sample.published_per_s)),
            in_steps(ladder),
        ]))
        @if let Some(floor) = report.cpu.floor.as_ref().filter(|_| !report.server.is_empty()) {
            (note(&format!(
                "The floor: {} ns of processor time for a plain send of {} bytes to each of {} devices, {} times a \
                 second; {} of {} sends would have blocked.",
                decimal(Some(floor.cpu_per_send_ns)),
                grouped(floor.frame_bytes as u64),
                grouped(floor.devices.into()),
                decimal(Some(floor.rounds_per_s)),
                floor.blocked,
                grouped(floor.sends)
            )))
        }
    }
}

/// The figures of each of several nodes; nothing for a lone node.
pub(super) fn of_each_node(report: &Report) -> Markup {
    charts(&[
        by_node(report, "Connections", "", Look::Line, |sample| Some(ratio(sample.connections, 1))),
        by_node(report, "Processors kept busy", "", Look::Line, |sample| Some(sample.cpu)),
        by_node(report, "Slots ordered", "", Look::Steps, |sample| Some(ratio(sample.slots?, 1))),
        by_node(report, "Messages taken", "/s", Look::Line, |sample| Some(sample.published_per_s)),
        by_node(report, "Frames sent", "/s", Look::Line, |sample| Some(sample.frames_per_s)),
        by_node(report, "Memory", "MiB", Look::Line, |sample| Some(mib(sample.resident_bytes))),
    ])
}

/// A chart with a line for each node, which breaks while the node is silent.
fn by_node(
    report: &Report,
    title: &str,
    unit: &'static str,
    look: Look,
    of: fn(&NodeSample) -> Option<f64>,
) -> Chart {
    let lines = report.nodes.iter().enumerate().filter_map(|(colour, node)| {
        let mut samples = node.samples.iter().peekable();
        let points = report.server.iter().map(|all| {
            let figure = samples.next_if(|sample| sample.at_ms <= all.at_ms).and_then(of);
            ChartPoint::at(seconds(all), figure.unwrap_or(f64::NAN))
        });
        let points = thinned(&points.collect::<Vec<_>>(), mean);
        let is_known = points.iter().any(|point| point.y.is_finite());
        is_known.then(|| Line { name: node.name.clone(), colour, points, look })
    });
    Chart { title: title.to_owned(), unit, x: span(report), lines: lines.collect(), limit: None }
}

/// The faults in a table, by the signs of their marks.
pub(super) fn faults(report: &Report) -> Markup {
    let rows = report.wakes().map(|Wake { number, fault, failed, longest_ms }| {
        let tone = if fault.holds { Tone::Good } else { Tone::Bad };
        let took = fault.took_ms.map(|took_ms| ratio(took_ms, 1_000));
        vec![
            number.to_string().into(),
            fault.title().into(),
            fault.run.clone().into(),
            Cell::toned(fault.ended.clone(), tone),
            places(Some(ratio(fault.at_ms, 1_000)), 1).into(),
            places(took, 1).into(),
            grouped(failed).into(),
            places(longest_ms, 0).into(),
        ]
    });
    let columns: [&str; 8] =
        ["", "fault", "command", "ended", "at s", "took s", "refused or unknown", "longest latency ms"];
    let table = table(&columns, 4, rows);
    html! {
        (table)
        @if !report.faults.is_empty() {
            (note(
                "The last two columns tell of the messages due from a fault (or just before) until the next one. \
                 Each chart over time has a mark with the number of the fault, as long as the command took."
            ))
        }
    }
}

/// A chart of a single figure; without a line if there is no point.
fn over_time(
    report: &Report,
    title: &str,
    unit: &'static str,
    colour: usize,
    points: impl Iterator<Item = ChartPoint>,
) -> Chart {
    let points = thinned(&points.collect::<Vec<_>>(), mean);
    let line = Line { name: title.to_owned(), colour, points, look: Look::Line };
    let lines = Some(line).filter(|line| !line.points.is_empty()).into_iter().collect();
    Chart { title: title.to_owned(), unit, x: span(report), lines, limit: None }
}

fn in_steps(mut chart: Chart) -> Chart {
    chart.lines.iter_mut().for_each(|line| line.look = Look::Steps);
    chart
}

/// A chart of a figure of the node, by sample.
fn sampled(
    report: &Report,
    title: &str,
    unit: &'static str,
    colour: usize,
    of: fn(&Sample) -> Option<f64>,
) -> Chart {
    let points = report.server.iter().filter_map(|sample| Some(ChartPoint::at(seconds(sample), of(sample)?)));
    over_time(report, title, unit, colour, points)
}

/// The axis of every chart of a run. Samples begin before the first publish and end after the last.
fn span(report: &Report) -> X {
    let samples = || report.server.iter().map(seconds);
    let readings = report.memory.readings.iter().map(|reading| ratio(reading.at_ms, 1_000));
    let to = samples().chain(readings).fold(report.seconds, f64::max);
    let rows = report.types.rows();
    let letters = rows.iter().map(|row| row.type_name.chars().count()).max().filter(|_| rows.len() > 1);
    let nodes = report.nodes.iter().map(|node| node.name.chars().count());
    let letters = nodes.chain(letters).max().unwrap_or(0);
    let begun = report.wakes().filter_map(|wake| Some((wake, wake.fault.took_ms?)));
    let marks = begun.map(|(Wake { number, fault, .. }, took_ms)| ChartMark {
        from: ratio(fault.at_ms, 1_000),
        to: ratio(fault.at_ms + took_ms, 1_000),
        sign: number.to_string(),
        name: fault.title().to_owned(),
    });
    X::Seconds { from: samples().fold(0.0, f64::min), to, letters, marks: marks.collect() }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a run fit a double exactly")]
fn seconds(sample: &Sample) -> f64 {
    sample.at_ms as f64 / 1_000.0
}
