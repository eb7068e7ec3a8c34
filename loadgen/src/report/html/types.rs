//! The tables of a run's types. Pure.

use maud::{Markup, html};

use crate::report::Report;
use crate::report::html::{Cell, Tone, decimal, grouped, grouped_table, note, places, row};
use crate::report::last_device::FirstToLast;
use crate::report::types::TypeReport;
use crate::scenario::thresholds::Quantile;

/// The counts and latencies of each type, and notes on refusals and readability.
pub(super) fn tables(report: &Report) -> Markup {
    let rows = report.types.rows();
    let groups: [(&str, &[&str]); 4] = [
        ("", &["type", "class", "rate/s"]),
        ("published", &["offered", "accepted", "refused", "unknown"]),
        ("what the rooms gave", &["given", "merged", "skipped"]),
        ("over all devices", &["delivered", "skipped"]),
    ];
    let counts = grouped_table(&groups, 2, rows.iter().map(counts));
    let groups: [(&str, &[&str]); 4] = [
        ("", &["type"]),
        ("latency, ms", &["p50", "p99", "p99.9", "max"]),
        ("when devices had it: p99, ms", &["first", "half", "99 in 100", "last", "last, max"]),
        ("ms", &["answer p99"]),
    ];
    let times = grouped_table(&groups, 1, rows.iter().map(times));
    html! {
        (counts)
        (times)
        @for words in rows.iter().flat_map(notes) { (note(&words)) }
    }
}

fn counts(of: &TypeReport) -> Vec<Cell> {
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

fn times(of: &TypeReport) -> Vec<Cell> {
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
fn notes(of: &TypeReport) -> Vec<String> {
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
