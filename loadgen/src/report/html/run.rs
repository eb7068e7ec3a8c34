//! The sections of a run's page. Pure.

use maud::{Markup, html};

use crate::figures::latency::Percentiles;
use crate::figures::mib;
use crate::report::html::chart::{Chart, ChartPoint, Line, Look, X, nines};
use crate::report::html::{
    Cell, Figure, Page, Tone, charts, decimal, figures, grouped, grouped_table, lines, note, places, row,
    section, table, time,
};
use crate::report::last_device::FirstToLast;
use crate::report::types::TypeReport;
use crate::report::{ReliableFigures, Report, Verdict};
use crate::scenario::thresholds::Quantile;

pub(crate) fn page(report: &Report) -> Page {
    let (tone, verdict) = match report.verdict {
        Verdict::Ok => (Tone::Good, "Every promise was kept"),
        Verdict::GeneratorLimited => (Tone::Odd, "Generator-limited"),
        Verdict::Partial => (Tone::Odd, "Stopped early"),
        Verdict::ThresholdFailed => (Tone::Bad, "A threshold failed"),
        Verdict::NothingPublished => (Tone::Bad, "Nothing was published"),
        Verdict::NothingJudged => (Tone::Bad, "Nothing was judged"),
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
        // The page says the part before the colon larger, as `verdict`.
        words: words.split_once(": ").map_or(&*words, |(_, words)| words).to_owned(),
        sections: sections(report),
    }
}

/// The page of a run without the verdict. `find-max` shows the run below the knee by the same sections.
pub(crate) fn sections(report: &Report) -> Markup {
    html! {
        (section("Violations", &violations(report)))
        (section("Thresholds", &thresholds(report)))
        (section("Key figures", &key_figures(report)))
        (section("Latency", &latency(report)))
        (section("Faults", &time::faults(report)))
        (section("Over time", &time::of_devices(report)))
        (section("Each node", &time::of_each_node(report)))
        (section(if report.nodes.is_empty() { "The node" } else { "All nodes" }, &time::of_node(report)))
        (section("By type", &types(report)))
        @if let Some(of) = &report.reliable { (section("Reliable messages", &reliable(of))) }
        (section("Rooms, joins and publishes", &rooms(report)))
        (section("The generator", &generator(report)))
        (section("Environment", &environment(report)))
        (section("Scenario", &lines(&report.scenario)))
        (section("To repeat it", &lines(&report.command)))
    }
}

fn thresholds(report: &Report) -> Markup {
    let rows = report.thresholds.iter().map(|judged| {
        let (word, tone) = if judged.holds { ("✓ holds", Tone::Good) } else { ("✗ failed", Tone::Bad) };
        vec![Cell::toned(word, tone), (&judged.condition).into(), (&judged.found_text).into()]
    });
    table(&["", "asked", "found"], 3, rows)
}

fn violations(report: &Report) -> Markup {
    let rows = report.violations.found().map(|(kind, found)| {
        vec![
            kind.to_string().into(),
            found.examples.join(" · ").into(),
            Cell::toned(grouped(found.count), Tone::Bad),
        ]
    });
    table(&["promise", "the first of them", "times"], 2, rows)
}

fn key_figures(report: &Report) -> Markup {
    let ms = |name, figures, at: Quantile| Figure::new(name, decimal(at.of(figures)), "ms");
    let per_frame_note = match (report.cpu.cpu_per_frame_over_floor, &report.cpu.missing_because) {
        (Some(over), _) => format!("{} times the floor", decimal(Some(over))),
        (None, Some(why)) => format!("no floor: {why}"),
        (None, None) => String::new(),
    };
    // Without restarts and further nodes a room has one run.
    let runs_changed = report.awkward.through_restarts.then(|| grouped(report.runs_changed));
    let mut known = vec![
        Figure::new("Devices", grouped(report.devices.into()), "")
            .with_note(format!("in {} rooms", grouped(report.rooms.into()))),
        Figure::new("Deliveries", decimal(Some(report.deliveries_per_s())), "/s").with_note(format!(
            "{} in {} frames, {} messages each",
            grouped(report.seen.deliveries),
            grouped(report.seen.frames),
            decimal(Some(report.messages_per_frame))
        )),
        ms("Latency p50", &report.latency, Quantile::P50),
        ms("Latency p99", &report.latency, Quantile::P99).with_note("every device and message"),
        ms("Last device p99", &report.first_to_last.last, Quantile::P99).with_note("of each message"),
        ms("Latency max", &report.latency, Quantile::Max),
        Figure::new("Violations", grouped(report.violations.total()), "")
            .with_note("lost, twice, out of order, altered"),
        Figure::new("Runs changed", runs_changed.unwrap_or_else(|| decimal(None)), "")
            .with_note("by restarts and takeovers"),
        Figure::new("Refused", decimal(report.refused_share().map(|share| 100.0 * share)), "%")
            .with_note(format!("of {} messages", grouped(report.sent()))),
        Figure::new("Node", decimal(report.node_cpu()), "processors").with_note("busy on average"),
        Figure::new("Node memory", decimal(report.node_bytes_most().map(mib)), "MiB").with_note("at most"),
        Figure::new("Processor per frame", decimal(report.cpu.cpu_per_frame_ns.map(|ns| ns / 1_000.0)), "µs")
            .with_note(per_frame_note),
    ];
    known.retain(|figure| figure.value != decimal(None));
    let of_reliable = report.reliable.iter().flat_map(|reliable| &reliable.troubles);
    let troubles: Vec<&str> =
        report.published.troubles.iter().chain(of_reliable).map(|text| &**text).collect();
    html! {
        (figures(&known))
        @if !troubles.is_empty() {
            (note("The first refusals and failures of publishes:"))
            (lines(&troubles.join("\n")))
        }
    }
}

fn latency(report: &Report) -> Markup {
    if report.curve.is_empty() {
        return html! {};
    }
    // All of the values lie at an infinite number of nines: the last point takes the place of the one before.
    let shares = report.curve.iter().map(|(share, _)| *share).filter(|share| *share < 1.0);
    let last = nines(shares.fold(0.0, f64::max));
    let points = report
        .curve
        .iter()
        .map(|(share, ms)| ChartPoint::at(if *share < 1.0 { nines(*share) } else { last }, *ms));
    let curve = Chart {
        title: "Every device and message, by percentile".to_owned(),
        unit: "ms",
        x: X::Nines,
        lines: vec![Line {
            name: "all types".to_owned(),
            colour: 0,
            points: points.collect(),
            look: Look::Line,
        }],
        limit: None,
    };
    let longest = time::by_type(report, "The longest of each quarter second", |moment| moment.max_ms);
    let FirstToLast { first, half, p99, last } = &report.first_to_last;
    let by_device =
        [("the first device", first), ("half of them", half), ("99 in 100", p99), ("the last device", last)];
    let rows = by_device.into_iter().filter(|(_, figures)| figures.count > 0).map(|(name, figures)| {
        row(name, [figures.p50_ms, figures.p99_ms, figures.max_ms].map(|ms| places(Some(ms), 1)))
    });
    let by_device = table(&["", "p50 of all messages", "p99", "max"], 1, rows);
    html! {
        (charts(&[curve, longest]))
        @if !by_device.0.is_empty() {
            (note("The devices of each message, in ms from the time the message was due until they had it:"))
            (by_device)
        }
    }
}

/// The counts and latencies of each type, and notes on refusals and readability.
fn types(report: &Report) -> Markup {
    let rows = report.types.rows();
    let groups: [(&str, &[&str]); 4] = [
        ("", &["type", "class", "rate/s"]),
        ("published", &["offered", "accepted", "refused", "unknown"]),
        ("what the rooms gave", &["given", "merged", "skipped"]),
        ("over all devices", &["delivered", "skipped"]),
    ];
    let counts = grouped_table(&groups, 2, rows.iter().map(type_counts));
    let groups: [(&str, &[&str]); 4] = [
        ("", &["type"]),
        ("latency, ms", &["p50", "p99", "p99.9", "max"]),
        ("when devices had it: p99, ms", &["first", "half", "99 in 100", "last", "last, max"]),
        ("ms", &["answer p99"]),
    ];
    let times = grouped_table(&groups, 1, rows.iter().map(type_times));
    html! {
        (counts)
        (times)
        @for words in rows.iter().flat_map(type_notes) { (note(&words)) }
    }
}

fn type_counts(of: &TypeReport) -> Vec<Cell> {
    let fine = |number: u64| Cell::from(grouped(number));
    let bad = |number: u64| Cell { tone: (number > 0).then_some(Tone::Bad), ..fine(number) };
    vec![
        (&of.type_name).into(),
        of.class.name().into(),
        decimal(Some(of.rate_per_s)).into(),
        fine(of.offered),
        fine(of.accepted),
        bad(of.refused),
        bad(of.unknown),
        fine(of.account.given),
        fine(of.account.merged),
        fine(of.account.skipped),
        fine(of.delivered),
        fine(of.skipped),
    ]
}

fn type_times(of: &TypeReport) -> Vec<Cell> {
    let FirstToLast { first, half, p99, last } = &of.first_to_last;
    let all = [
        Quantile::P50.of(&of.latency),
        Quantile::P99.of(&of.latency),
        Quantile::P999.of(&of.latency),
        Quantile::Max.of(&of.latency),
        Quantile::P99.of(first),
        Quantile::P99.of(half),
        Quantile::P99.of(p99),
        Quantile::P99.of(last),
        Quantile::Max.of(last),
        Quantile::P99.of(&of.answer),
    ];
    row(&of.type_name, all.map(|ms| places(ms, 1)))
}

/// The reasons of refusals, and the most messages of a device if the type has a limit.
fn type_notes(of: &TypeReport) -> Vec<String> {
    let mut notes = Vec::new();
    if of.refused > 0 {
        let reasons = of.shed.iter().map(|(reason, count)| format!("{} × {reason}", grouped(*count)));
        let answers = of.answers.iter().map(|(code, count)| format!("{} × {code}", grouped(*count)));
        let reasons = reasons.collect::<Vec<_>>().join(", ");
        let answers = answers.collect::<Vec<_>>().join(", ");
        notes.push(format!("{} refused: {reasons}; answers by status: {answers}.", of.type_name));
    }
    if let Some(readable) = &of.readable {
        notes.push(format!(
            "{} given to one device: at most {} within a second, {} a second on average; {} were asked.",
            of.type_name,
            readable.reading.most_in_a_second,
            decimal(Some(readable.most_per_s_on_average)),
            readable.per_second_max
        ));
    }
    notes
}

fn reliable(reliable: &ReliableFigures) -> Markup {
    let devices = &reliable.devices;
    let of = |name, number: u64| Figure::new(name, grouped(number), "");
    let counts = [
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
    html! {
        (figures(&counts))
        (latencies([
            ("publish to answer", &reliable.publish),
            ("answer to applied", &reliable.apply),
            ("due to applied", &reliable.apply_from_due),
            ("return to applied", &reliable.after_return),
        ]))
    }
}

fn rooms(report: &Report) -> Markup {
    let moves = report.moves.to_string();
    let skew = &report.skew;
    html! {
        (latencies([("join: to the welcome", &report.join), ("publish: to the answer", &report.answer)]))
        @if let Some((_, moves)) = moves.trim_end().split_once("moves") {
            (note(&format!("While messages were published: {}.", moves.trim())))
        }
        @if skew.rooms > 0 {
            (note(&format!(
                "The median of {} rooms had a p99 of {} ms, the worst (room {}) {} ms.",
                grouped(skew.rooms),
                decimal(Some(skew.median_p99_ms)),
                skew.worst_room,
                decimal(Some(skew.worst_p99_ms))
            )))
        }
    }
}

fn generator(report: &Report) -> Markup {
    let used = &report.generator;
    let mut own = vec![
        Figure::new("Workers", grouped(report.workers as u64), ""),
        Figure::new("Devices connected in", grouped(report.connect_ms), "ms"),
    ];
    if used.worker_devices > 0 {
        let busiest = |name, share: f64| {
            Figure::new(name, decimal(Some(100.0 * share)), "%").with_note("of a processor")
        };
        own.extend([
            busiest("Busiest worker", used.busiest_worker),
            busiest("Busiest publisher", used.busiest_publisher),
            Figure::new("Largest worker", decimal(Some(mib(used.worker_bytes_max))), "MiB")
                .with_note(format!("holds {} devices", grouped(used.worker_devices.into()))),
        ]);
    }
    html! {
        (figures(&own))
        (latencies([("lateness: from due to leaving", &report.lateness)]))
    }
}

fn environment(report: &Report) -> Markup {
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
    // Without a count of processors the environment was not read, and neither were these two.
    rows.retain(|(name, value)| {
        !value.is_empty() && (about.processors > 0 || !["processor", "memory"].contains(name))
    });
    table(&["", ""], 2, rows.into_iter().map(|(name, value)| row(name, [value])))
}

/// A table of the measured latencies.
fn latencies<'a>(all: impl IntoIterator<Item = (&'a str, &'a Percentiles)>) -> Markup {
    let measured = all.into_iter().filter(|(_, figures)| figures.count > 0);
    let rows = measured.map(|(name, figures)| {
        let Percentiles { count, p50_ms, p99_ms, p999_ms, max_ms } = *figures;
        let times = [p50_ms, p99_ms, p999_ms, max_ms].map(|ms| places(Some(ms), 2));
        row(name, std::iter::once(grouped(count)).chain(times))
    });
    table(&["", "count", "p50 ms", "p99 ms", "p99.9 ms", "max ms"], 1, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::over_time::tests::with_faults;
    use crate::report::tests::made_up;

    #[test]
    fn the_page_says_what_the_report_says() {
        let report = made_up().held_to(&crate::scenario::thresholds::parse_all("p99<1ms,loss=0").unwrap());
        let page = page(&report).to_string();
        for said in [
            "A threshold failed",
            "✗ failed",
            "p99&lt;1ms",
            "120 ms",
            "chat",
            "Kernel's memory for sockets",
            "double-eleven",
            "To repeat it",
            "room 2",
        ] {
            assert!(page.contains(said), "{said}");
        }
        assert!(!page.contains("<h2>Violations</h2>"), "there is nothing to say of them");
    }

    #[test]
    fn a_run_with_faults_shows_each_node_and_marks_the_faults_on_every_chart_over_time() {
        let page = page(&with_faults()).to_string();
        for said in
            ["<h2>Faults</h2>", "<h2>Each node</h2>", "<h2>All nodes</h2>", "node-2</text>", "Slots ordered"]
        {
            assert!(page.contains(said), "{said}");
        }
        let over_time = page.matches("from the first publish</text>").count();
        assert!(over_time > 10, "{over_time}");
        assert_eq!(page.matches("<title>1: kill node-2</title>").count(), over_time);
        assert!(!self::page(&made_up()).to_string().contains("<h2>Faults</h2>"));
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
