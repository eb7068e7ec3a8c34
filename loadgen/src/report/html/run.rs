//! What the page of a run has. Pure.

use crate::figures::latency::Percentiles;
use crate::figures::ratio;
use crate::report::html::chart::nines;
use crate::report::html::{
    Block, Cell, Chart, Figure, Line, Look, Page, Section, Table, Tone, X, decimal, grouped, places, time,
    types,
};
use crate::report::last_device::FirstToLast;
use crate::report::{ReliableFigures, Report, Verdict};

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
pub(crate) fn sections(report: &Report) -> Vec<Section> {
    let section = |title: &str, blocks: Vec<Block>| Section { title: title.to_owned(), blocks };
    vec![
        section("Violations", violations(report)),
        section("Thresholds", thresholds(report)),
        section("Key figures", key_figures(report)),
        section("Latency", latency(report)),
        section("Over time", time::of_devices(report)),
        section("The node", time::of_node(report)),
        section("By type", types::tables(report)),
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
        ms("Last device p99", &report.first_to_last.last, p99).with_note("of each message".to_owned()),
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
    figures.retain(|figure| figure.value != decimal(None));
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
        let FirstToLast { first, half, p99, last } = &report.first_to_last;
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
        time::by_type(report, "The longest of each quarter second", |moment| moment.max_ms),
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
        ("due to applied", &reliable.apply_from_due),
        ("return to applied", &reliable.after_return),
    ]);
    [vec![Block::Figures(figures)], rows].concat()
}

fn rooms(report: &Report) -> Vec<Block> {
    let mut blocks =
        latencies(&[("join: to the welcome", &report.join), ("publish: to the answer", &report.answer)]);
    let moves = report.moves.to_string();
    if let Some((_, moves)) = moves.trim_end().split_once("moves") {
        blocks.push(Block::Note(format!("While messages were published: {}.", moves.trim())));
    }
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
        let busiest = |name: &str, share: f64| {
            Figure::new(name, decimal(Some(100.0 * share)), "%").with_note("of a processor".to_owned())
        };
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
        ("descriptors of a process", about.descriptors_max.to_string()),
        ("clocks of workers elsewhere", format!("at most {:.3} ms off", report.workers_clock_error_ms)),
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

pub(super) fn named(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|name| (*name).to_owned()).collect()
}

fn durable(report: &Report) -> u64 {
    report.reliable.as_ref().map_or(0, |reliable| reliable.sent)
}

pub(super) fn measured(figures: &Percentiles, at: fn(&Percentiles) -> f64) -> Option<f64> {
    (figures.count > 0).then(|| at(figures))
}

pub(super) fn p50(figures: &Percentiles) -> f64 {
    figures.p50_ms
}

pub(super) fn p99(figures: &Percentiles) -> f64 {
    figures.p99_ms
}

pub(super) fn max(figures: &Percentiles) -> f64 {
    figures.max_ms
}

pub(super) fn mib(bytes: u64) -> f64 {
    ratio(bytes, 1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::made_up;

    #[test]
    fn the_page_says_what_the_report_says() {
        let report = made_up().held_to(&crate::scenario::thresholds::parse_all("p99<1ms,loss=0").unwrap());
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
        assert!(!page.contains("<h2>Violations</h2>"), "there is nothing to say of them");
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
