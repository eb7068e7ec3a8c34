//! What the page of a run has. Pure.

use crate::html::chart::nines;
use crate::html::{
    Block, Cell, Chart, Figure, Limit, Line, Look, Page, Section, Table, Thinning, Tone, X, decimal, grouped,
    places,
};
use crate::latency::Percentiles;
use crate::report::{ReliableFigures, Report, Verdict, ratio};
use crate::server::Sample;
use crate::slo::Condition;
use crate::spread::SpreadFigures;
use crate::types::TypeReport;

/// The page of a run.
#[must_use]
pub(crate) fn page(report: &Report) -> Page {
    let (tone, verdict) = match report.verdict {
        Verdict::Ok => (Tone::Good, "Every promise was kept"),
        Verdict::GeneratorLimited => (Tone::Odd, "Generator-limited"),
        Verdict::ThresholdFailed => (Tone::Bad, "A threshold was not kept"),
        Verdict::NothingPublished => (Tone::Bad, "Nothing was published"),
        Verdict::Violations => (Tone::Bad, "Promises were broken"),
    };
    let words = report.verdict_words();
    Page {
        title: format!(
            "roomcast-loadgen run: {} devices, {} rooms",
            grouped(report.devices.into()),
            grouped(report.rooms.into())
        ),
        tone,
        verdict: verdict.to_owned(),
        words: words.split_once(": ").map_or(&*words, |(_, words)| words).to_owned(),
        sections: sections(report),
    }
}

/// What a run's page says below its verdict; pages of other commands may have it too.
#[must_use]
fn sections(report: &Report) -> Vec<Section> {
    let section = |title: &str, blocks: Vec<Block>| Section { title: title.to_owned(), blocks };
    vec![
        section("Violations", violations(report)),
        section("Thresholds", thresholds(report)),
        section("Key figures", key_figures(report)),
        section("Latency", latency(report)),
        section("Over time", over_time(report)),
        section("The node", node(report)),
        section("By type", types(report)),
        section("Reliable messages", report.reliable.as_ref().map(reliable).unwrap_or_default()),
        section("Rooms, joins and publishes", rooms(report)),
        section("The generator", generator(report)),
        section("Environment", environment(report)),
        section("Scenario", text(&report.scenario)),
        section("To repeat it", text(&report.command)),
    ]
}

fn thresholds(report: &Report) -> Vec<Block> {
    let rows = report.thresholds.iter().map(|judged| {
        let holds = if judged.holds {
            Cell::toned("✓ holds", Tone::Good)
        } else {
            Cell::toned("✗ failed", Tone::Bad)
        };
        vec![holds, judged.condition.clone().into(), judged.found_text.clone().into()]
    });
    table(&["", "asked", "found"], 3, rows.collect())
}

fn violations(report: &Report) -> Vec<Block> {
    let rows = report.violations.found().map(|(kind, found)| {
        let count = Cell::toned(&grouped(found.count), Tone::Bad);
        vec![kind.into(), found.examples.join(" · ").into(), count]
    });
    table(&["promise", "the first of them", "times"], 2, rows.collect())
}

fn key_figures(report: &Report) -> Vec<Block> {
    let ms = |name: &str, figures: &Percentiles, at: fn(&Percentiles) -> f64| {
        Figure::new(name, decimal(measured(figures, at)), "ms")
    };
    let refused = report.refused_share().map(|share| 100.0 * share);
    let mut figures = vec![
        Figure::new("Devices", grouped(report.devices.into()), "")
            .with_note(format!("in {} rooms", grouped(report.rooms.into()))),
        Figure::new("Deliveries", decimal(Some(report.deliveries_per_s())), "/s").with_note(format!(
            "{} in {} frames, {} messages each",
            grouped(report.seen.deliveries),
            grouped(report.seen.frames),
            decimal(Some(report.messages_per_frame))
        )),
        ms("Latency p50", &report.latency, p50),
        ms("Latency p99", &report.latency, p99).with_note("every device and message".to_owned()),
        ms("Last device p99", &report.spread.last, p99).with_note("of each message".to_owned()),
        ms("Latency max", &report.latency, max),
        Figure::new("Violations", grouped(report.violations.total()), "")
            .with_note("lost, twice, out of order, altered".to_owned()),
        Figure::new("Refused", decimal(refused), "%")
            .with_note(format!("of {} messages", grouped(report.published.sent + durable(report)))),
    ];
    if let Some(cpu) = report.node_cpu() {
        figures.push(
            Figure::new("Node", decimal(Some(cpu)), "processors").with_note("busy on average".to_owned()),
        );
    }
    if let Some(bytes) = report.node_bytes_most() {
        figures.push(
            Figure::new("Node memory", decimal(Some(mib(bytes))), "MiB").with_note("at most".to_owned()),
        );
    }
    if let Some(per_frame_ns) = report.cpu.cpu_per_frame_ns {
        let over = report
            .cpu
            .cpu_per_frame_over_floor
            .map(|over| format!("{} times the floor", decimal(Some(over))));
        let figure = Figure::new("Processor per frame", decimal(Some(per_frame_ns / 1_000.0)), "µs");
        let missing = || report.cpu.missing_because.as_ref().map(|why| format!("no floor: {why}"));
        figures.push(figure.with_note(over.or_else(missing).unwrap_or_default()));
    }
    let mut blocks = vec![Block::Figures(figures)];
    let troubles = report.published.troubles.iter();
    let troubles: Vec<String> =
        troubles.chain(report.reliable.iter().flat_map(|reliable| &reliable.troubles)).cloned().collect();
    if !troubles.is_empty() {
        blocks.push(Block::Note("The first refusals and failures of publishes:".to_owned()));
        blocks.push(Block::Text(troubles.join("\n")));
    }
    blocks
}

fn latency(report: &Report) -> Vec<Block> {
    if report.curve.is_empty() {
        return Vec::new();
    }
    let last =
        nines(report.curve.iter().map(|(share, _)| *share).filter(|share| *share < 1.0).fold(0.0, f64::max));
    let points: Vec<(f64, f64)> = report
        .curve
        .iter()
        .map(|(share, ms)| (if *share < 1.0 { nines(*share) } else { last }, *ms))
        .collect();
    let curve = Chart {
        title: "Every device and message, by percentile".to_owned(),
        unit: "ms",
        x: X::Nines,
        lines: vec![Line { name: "all types".to_owned(), colour: 0, points, look: Look::Line }],
        limit: None,
    };
    let points = |at: fn(&Percentiles) -> f64| {
        let SpreadFigures { first, half, p99, last } = &report.spread;
        let places = [
            ("the first device", first),
            ("half of them", half),
            ("99 in 100", p99),
            ("the last device", last),
        ];
        let row = places.map(|(name, figures)| (name, measured(figures, at)));
        row.into_iter().filter_map(|(name, ms)| Some((name, ms?))).collect::<Vec<_>>()
    };
    let mut blocks = vec![Block::Charts(vec![
        curve,
        by_type(report, "The longest of each quarter second", |moment| moment.max_ms),
    ])];
    if !points(p50).is_empty() {
        let rows = points(p50).into_iter().zip(points(p99)).zip(points(max));
        let rows = rows.map(|(((name, p50), (_, p99)), (_, max))| {
            [vec![Cell::from(name)], [p50, p99, max].map(|ms| places(Some(ms), 1).into()).to_vec()].concat()
        });
        blocks.push(Block::Note(
            "When the devices of each message had it, in ms from when it was due:".to_owned(),
        ));
        blocks.extend(table(&["", "p50 of all messages", "p99", "max"], 1, rows.collect()));
    }
    blocks
}

/// A chart over time with a line for each type.
fn by_type(report: &Report, title: &str, of: fn(&crate::timeline::Moment) -> f64) -> Chart {
    let lines = report.types.rows().iter().enumerate().filter(|(_, row)| !row.latency_over_time.is_empty());
    let lines = lines.map(|(colour, row)| {
        let points: Vec<(f64, f64)> =
            row.latency_over_time.iter().map(|moment| (ratio(moment.at_ms, 1_000), of(moment))).collect();
        Line { name: row.type_name.clone(), colour, points: Thinning::Highest.of(&points), look: Look::Line }
    });
    Chart { title: title.to_owned(), unit: "ms", x: span(report), lines: lines.collect(), limit: None }
}

fn over_time(report: &Report) -> Vec<Block> {
    let mut p99 = by_type(report, "Latency p99", |moment| moment.p99_ms);
    let asked = report.thresholds.iter().filter_map(|judged| judged.condition.parse::<Condition>().ok());
    let mut asked = asked.filter_map(|condition| Some((condition.p99_most_ms()?, condition.to_string())));
    p99.limit = asked.next().map(|(at, name)| Limit { at, name });
    let mut charts = vec![p99, deliveries(report)];
    if !report.server.is_empty() {
        let joins = report.server.windows(2).map(|pair| {
            let took_s = (seconds(&pair[1]) - seconds(&pair[0])).max(0.001);
            (seconds(&pair[1]), ratio(pair[1].connections.saturating_sub(pair[0].connections), 1) / took_s)
        });
        charts.push(one_line(report, "New connections", "/s", (2, joins.collect()), Look::Steps));
        charts.push(sampled(
            report,
            "Connections",
            "",
            (5, |sample| Some(ratio(sample.connections, 1))),
            Look::Line,
        ));
    }
    charts.retain(|chart| !chart.lines.is_empty());
    if charts.is_empty() { Vec::new() } else { vec![Block::Charts(charts)] }
}

/// What devices were given, by when it was due: all types that have a latency.
fn deliveries(report: &Report) -> Chart {
    let mut by_second = std::collections::BTreeMap::<u64, u64>::new();
    for moment in report.types.rows().iter().flat_map(|row| &row.latency_over_time) {
        *by_second.entry(moment.at_ms / 1_000).or_default() += moment.count;
    }
    let points = by_second.into_iter().map(|(second, count)| (ratio(second, 1), ratio(count, 1))).collect();
    one_line(report, "Deliveries, by when they were due", "/s", (1, points), Look::Line)
}

fn node(report: &Report) -> Vec<Block> {
    if report.server.is_empty() {
        let readings = report.memory.readings.iter();
        let points: Vec<_> =
            readings.map(|reading| (ratio(reading.at_ms, 1_000), mib(reading.bytes))).collect();
        let chart = one_line(report, "Memory", "MiB", (0, points), Look::Line);
        return if chart.lines.is_empty() { Vec::new() } else { vec![Block::Charts(vec![chart])] };
    }
    let mut charts = vec![
        sampled(report, "Processors kept busy", "", (1, |sample| Some(sample.cpu)), Look::Line),
        sampled(report, "Memory", "MiB", (0, |sample| Some(mib(sample.resident_bytes))), Look::Line),
        sampled(
            report,
            "Kernel's memory for sockets, of this machine",
            "MiB",
            (3, |sample| sample.socket_bytes.map(mib)),
            Look::Line,
        ),
        sampled(report, "Frames sent", "/s", (2, |sample| Some(sample.frames_per_s)), Look::Line),
        sampled(report, "Messages taken", "/s", (5, |sample| Some(sample.published_per_s)), Look::Line),
        sampled(
            report,
            "Step of the ladder",
            "",
            (4, |sample| Some(ratio(sample.ladder_step, 1))),
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

fn types(report: &Report) -> Vec<Block> {
    let rows = report.types.rows();
    let counts = rows.iter().map(|row| {
        let mut cells: Vec<Cell> = vec![row.type_name.clone().into(), row.class.name().into()];
        cells.push(decimal(Some(row.rate_per_s)).into());
        let account = row.account;
        for (number, is_bad) in [
            (row.offered, false),
            (row.accepted, false),
            (row.refused, true),
            (row.unknown, true),
            (account.given, false),
            (account.merged, false),
            (account.skipped, false),
            (row.delivered, false),
            (row.skipped, false),
        ] {
            let text = grouped(number);
            cells.push(if is_bad && number > 0 { Cell::toned(&text, Tone::Bad) } else { text.into() });
        }
        cells
    });
    let columns = [
        "type",
        "class",
        "rate/s",
        "offered",
        "accepted",
        "refused",
        "unknown",
        "given",
        "merged",
        "skipped",
        "delivered",
        "skipped",
    ];
    let group = |title: &str, columns| (title.to_owned(), columns);
    let groups = vec![
        group("", 3),
        group("published", 4),
        group("what the rooms gave", 3),
        group("over all devices", 2),
    ];
    let mut counts = Table { groups, columns: named(&columns), words: 2, rows: counts.collect() };
    counts.rows.retain(|row| !row.is_empty());
    let columns = [
        "type",
        "p50",
        "p99",
        "p99.9",
        "max",
        "first",
        "half",
        "99 in 100",
        "last",
        "last, max",
        "answer p99",
    ];
    let groups =
        vec![group("", 1), group("latency, ms", 4), group("when devices had it: p99, ms", 5), group("ms", 1)];
    let times = Table { groups, columns: named(&columns), words: 1, rows: rows.iter().map(times).collect() };
    let mut blocks = vec![Block::Table(counts), Block::Table(times)];
    for row in rows.iter().filter(|row| row.refused > 0) {
        let reasons = row.shed.iter().map(|(reason, count)| format!("{} × {reason}", grouped(*count)));
        let answers = row.answers.iter().map(|(code, count)| format!("{} × {code}", grouped(*count)));
        let (reasons, answers) =
            (reasons.collect::<Vec<_>>().join(", "), answers.collect::<Vec<_>>().join(", "));
        blocks.push(Block::Note(format!(
            "{} refused: {reasons}; answers by status: {answers}.",
            row.type_name
        )));
    }
    for (row, readable) in rows.iter().filter_map(|row| Some((row, row.readable.as_ref()?))) {
        blocks.push(Block::Note(format!(
            "{} given to one device: at most {} within a second, {} a second on average; {} were asked.",
            row.type_name,
            readable.reading.most_in_a_second,
            decimal(Some(readable.most_per_s_on_average)),
            readable.per_second_max
        )));
    }
    if rows.is_empty() { Vec::new() } else { blocks }
}

fn times(row: &TypeReport) -> Vec<Cell> {
    let SpreadFigures { first, half, p99: most, last } = &row.spread;
    let figures: [(&Percentiles, fn(&Percentiles) -> f64); 10] = [
        (&row.latency, p50),
        (&row.latency, p99),
        (&row.latency, |figures| figures.p999_ms),
        (&row.latency, max),
        (first, p99),
        (half, p99),
        (most, p99),
        (last, p99),
        (last, max),
        (&row.answer, p99),
    ];
    let cells = figures.into_iter().map(|(figures, at)| Cell::from(places(measured(figures, at), 1)));
    std::iter::once(row.type_name.clone().into()).chain(cells).collect()
}

fn reliable(reliable: &ReliableFigures) -> Vec<Block> {
    let devices = &reliable.devices;
    let of = |name: &str, number: u64| Figure::new(name, grouped(number), "");
    let figures = vec![
        of("Published", reliable.sent),
        of("Durable", reliable.durable).with_note(format!(
            "{} a second; {} attempts repeated",
            decimal(Some(reliable.durable_per_s)),
            reliable.retried
        )),
        of("Refused, unknown", reliable.refused + reliable.unknown),
        of("Applied", devices.applied).with_note(format!("{} came again", grouped(devices.duplicates))),
        of("Acknowledgements", devices.acks_sent)
            .with_note(format!("{} dropped", grouped(devices.acks_dropped))),
        of("Came back", devices.reconnects).with_note(format!("{} stalls", grouped(devices.stalls))),
        of("Pulls", devices.pulls).with_note(format!("{} failed", grouped(devices.pulls_failed))),
        of("Resets, recalls", devices.resets + devices.recalls),
    ];
    let rows = latencies(&[
        ("publish to answer", &reliable.publish),
        ("answer to applied", &reliable.apply),
        ("first sending to applied", &reliable.apply_from_sending),
        ("return to applied", &reliable.after_return),
    ]);
    [vec![Block::Figures(figures)], rows].concat()
}

fn rooms(report: &Report) -> Vec<Block> {
    let mut blocks =
        latencies(&[("join: to the welcome", &report.join), ("publish: to the answer", &report.answer)]);
    let skew = &report.skew;
    if skew.rooms > 0 {
        blocks.push(Block::Note(format!(
            "Of {} rooms the one in the middle had a p99 of {} ms, the worst (room {}) of {} ms.",
            grouped(skew.rooms),
            decimal(Some(skew.median_p99_ms)),
            skew.worst_room,
            decimal(Some(skew.worst_p99_ms))
        )));
    }
    blocks
}

fn generator(report: &Report) -> Vec<Block> {
    let used = &report.generator;
    let mut figures = vec![
        Figure::new("Workers", grouped(report.workers as u64), ""),
        Figure::new("Devices connected in", grouped(report.connect_ms), "ms"),
    ];
    if used.worker_devices > 0 {
        let busiest =
            |name: &str, share: f64| Figure::new(name, decimal(Some(100.0 * share)), "% of a processor");
        figures.push(busiest("Busiest worker", used.busiest_worker));
        figures.push(busiest("Busiest publisher", used.busiest_publisher));
        let held = Figure::new("Largest worker", decimal(Some(mib(used.worker_bytes_max))), "MiB");
        figures.push(held.with_note(format!("holds {} devices", grouped(used.worker_devices.into()))));
    }
    let lateness = latencies(&[("lateness: from due to leaving", &report.lateness)]);
    [vec![Block::Figures(figures)], lateness].concat()
}

fn environment(report: &Report) -> Vec<Block> {
    let about = &report.environment;
    let mut rows: Vec<(&str, String)> = vec![
        ("encoding", report.encoding.subprotocol().to_owned()),
        ("payload", format!("{} bytes", report.payload_bytes)),
        ("messages per request", report.messages_per_request.to_string()),
        ("roomcast-loadgen", about.loadgen.clone()),
        ("kernel", about.kernel.clone()),
        ("processor", format!("{} × {}", about.processors, about.processor)),
        ("memory", format!("{} MiB", decimal(Some(mib(about.memory_bytes))))),
    ];
    rows.extend(about.sysctls.iter().map(|(name, value)| (&**name, value.clone())));
    rows.retain(|(name, value)| {
        !value.is_empty() && (about.processors > 0 || !["processor", "memory"].contains(name))
    });
    let rows = rows.into_iter().map(|(name, value)| vec![name.into(), value.into()]).collect();
    table(&["", ""], 2, rows)
}

fn text(text: &str) -> Vec<Block> {
    if text.is_empty() { Vec::new() } else { vec![Block::Text(text.to_owned())] }
}

/// A table of those that were measured.
fn latencies(all: &[(&str, &Percentiles)]) -> Vec<Block> {
    let measured = all.iter().filter(|(_, figures)| figures.count > 0);
    let rows = measured.map(|(name, figures)| {
        let Percentiles { count, p50_ms, p99_ms, p999_ms, max_ms } = **figures;
        let times = [p50_ms, p99_ms, p999_ms, max_ms].map(|ms| Cell::from(places(Some(ms), 2)));
        [vec![Cell::from(*name), grouped(count).into()], times.to_vec()].concat()
    });
    table(&["", "count", "p50 ms", "p99 ms", "p99.9 ms", "max ms"], 1, rows.collect())
}

/// A table, where there is anything in it.
fn table(columns: &[&str], words: usize, rows: Vec<Vec<Cell>>) -> Vec<Block> {
    if rows.is_empty() {
        return Vec::new();
    }
    vec![Block::Table(Table { groups: Vec::new(), columns: named(columns), words, rows })]
}

fn named(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|name| (*name).to_owned()).collect()
}

/// A chart of one thing over the run's time; without a line where there are no points.
fn one_line(
    report: &Report,
    title: &str,
    unit: &'static str,
    (colour, points): (usize, Vec<(f64, f64)>),
    look: Look,
) -> Chart {
    let points = Thinning::Mean.of(&points);
    let line = Line { name: title.to_owned(), colour, points, look };
    let lines = if line.points.is_empty() { Vec::new() } else { vec![line] };
    Chart { title: title.to_owned(), unit, x: span(report), lines, limit: None }
}

/// A chart of what the node was at each sample.
fn sampled(
    report: &Report,
    title: &str,
    unit: &'static str,
    (colour, of): (usize, fn(&Sample) -> Option<f64>),
    look: Look,
) -> Chart {
    let points = report.server.iter().filter_map(|sample| Some((seconds(sample), of(sample)?)));
    one_line(report, title, unit, (colour, points.collect()), look)
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

fn durable(report: &Report) -> u64 {
    report.reliable.as_ref().map_or(0, |reliable| reliable.sent)
}

fn measured(figures: &Percentiles, at: fn(&Percentiles) -> f64) -> Option<f64> {
    (figures.count > 0).then(|| at(figures))
}

fn p50(figures: &Percentiles) -> f64 {
    figures.p50_ms
}

fn p99(figures: &Percentiles) -> f64 {
    figures.p99_ms
}

fn max(figures: &Percentiles) -> f64 {
    figures.max_ms
}

fn mib(bytes: u64) -> f64 {
    ratio(bytes, 1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::made_up;

    #[test]
    fn the_page_says_what_the_report_says() {
        let report = made_up().held_to(&crate::slo::parse_all("p99<1ms,loss=0").unwrap());
        let page = page(&report).to_string();
        for said in [
            "A threshold was not kept",
            "✗ failed",
            "p99&lt;1ms",
            "120 ms",
            "chat",
            "Kernel&#39;s memory for sockets",
            "double-eleven",
            "To repeat it",
            "room 2",
        ] {
            assert!(page.contains(said), "{said}");
        }
        for title in ["Violations"] {
            assert!(!page.contains(&format!("<h2>{title}</h2>")), "{title} has nothing to say");
        }
    }

    #[test]
    fn a_run_of_which_little_is_known_has_a_page_too() {
        let mut report = made_up();
        report.server.clear();
        report.memory.readings.clear();
        report.curve.clear();
        report.reliable = None;
        report.scenario.clear();
        let page = page(&report).to_string();
        assert!(!page.contains("NaN") && !page.contains("<h2>The node</h2>"), "{page}");
    }
}
