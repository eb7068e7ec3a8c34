//! The tables of a run's types. Pure.

use crate::figures::latency::Percentiles;
use crate::report::Report;
use crate::report::html::run::{max, measured, named, p50, p99};
use crate::report::html::{Block, Cell, Table, Tone, decimal, grouped, places};
use crate::report::last_device::FirstToLast;
use crate::report::types::TypeReport;

/// What was counted of each type, how late it was, and what else there is to say of some.
#[must_use]
pub(super) fn tables(report: &Report) -> Vec<Block> {
    let rows = report.types.rows();
    if rows.is_empty() {
        return Vec::new();
    }
    let group = |title: &str, columns| (title.to_owned(), columns);
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
    let groups = vec![
        group("", 3),
        group("published", 4),
        group("what the rooms gave", 3),
        group("over all devices", 2),
    ];
    let counts =
        Table { groups, columns: named(&columns), words: 2, rows: rows.iter().map(counts).collect() };
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
    [vec![Block::Table(counts), Block::Table(times)], rows.iter().flat_map(notes).map(Block::Note).collect()]
        .concat()
}

fn counts(row: &TypeReport) -> Vec<Cell> {
    let bad = |number: u64| {
        let text = grouped(number);
        if number > 0 { Cell::toned(&text, Tone::Bad) } else { text.into() }
    };
    let fine = |number: u64| Cell::from(grouped(number));
    vec![
        row.type_name.clone().into(),
        row.class.name().into(),
        decimal(Some(row.rate_per_s)).into(),
        fine(row.offered),
        fine(row.accepted),
        bad(row.refused),
        bad(row.unknown),
        fine(row.account.given),
        fine(row.account.merged),
        fine(row.account.skipped),
        fine(row.delivered),
        fine(row.skipped),
    ]
}

fn times(row: &TypeReport) -> Vec<Cell> {
    let FirstToLast { first, half, p99: most, last } = &row.first_to_last;
    let p999 = |figures: &Percentiles| figures.p999_ms;
    let all = [
        measured(&row.latency, p50),
        measured(&row.latency, p99),
        measured(&row.latency, p999),
        measured(&row.latency, max),
        measured(first, p99),
        measured(half, p99),
        measured(most, p99),
        measured(last, p99),
        measured(last, max),
        measured(&row.answer, p99),
    ];
    let cells = all.into_iter().map(|ms| Cell::from(places(ms, 1)));
    std::iter::once(row.type_name.clone().into()).chain(cells).collect()
}

/// What was refused and why, and what devices were given where that was asked.
fn notes(row: &TypeReport) -> Vec<String> {
    let mut notes = Vec::new();
    if row.refused > 0 {
        let reasons = row.shed.iter().map(|(reason, count)| format!("{} × {reason}", grouped(*count)));
        let answers = row.answers.iter().map(|(code, count)| format!("{} × {code}", grouped(*count)));
        let reasons = reasons.collect::<Vec<_>>().join(", ");
        let answers = answers.collect::<Vec<_>>().join(", ");
        notes.push(format!("{} refused: {reasons}; answers by status: {answers}.", row.type_name));
    }
    if let Some(readable) = &row.readable {
        notes.push(format!(
            "{} given to one device: at most {} within a second, {} a second on average; {} were asked.",
            row.type_name,
            readable.reading.most_in_a_second,
            decimal(Some(readable.most_per_s_on_average)),
            readable.per_second_max
        ));
    }
    notes
}
