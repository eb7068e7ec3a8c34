//! What the page of a search for the most has: the knee. Pure.

use crate::figures::ratio;
use crate::report::html::{
    Block, Cell, Chart, ChartLimit, Figure, Line, Look, Page, Section, Table, Tone, X, decimal, grouped,
    places,
};

/// What a search along one axis came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SearchFound {
    /// What was turned up, with its unit: `devices`.
    pub(crate) axis: String,
    /// The objective, as it was written.
    pub(crate) asked: String,
    /// The most p99 it allows, where it says that.
    pub(crate) p99_most_ms: Option<f64>,
    /// In the order in which they were tried.
    pub(crate) probes: Vec<Probed>,
    /// The most that held; `None`: nothing did, or nothing is known.
    pub(crate) knee: Option<u64>,
    /// The generator could do no more, so the node may.
    pub(crate) is_lower_bound: bool,
    /// What was short above it, in a sentence.
    pub(crate) ended_by: String,
    /// What repeats it.
    pub(crate) command: String,
}

/// One value that was tried.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Probed {
    pub(crate) value: u64,
    /// `None`: not measured.
    pub(crate) p99_ms: Option<f64>,
    /// Processors that the node kept busy.
    pub(crate) cpu: Option<f64>,
    pub(crate) mark: Mark,
    /// Why it did not hold; empty where it did.
    pub(crate) because: String,
}

/// What a value that was tried came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Held,
    Failed,
    /// It says more about the generator than about the node.
    Limited,
}

/// The page of a search, and below it what the page of the last run that held has, if any did.
#[must_use]
pub(crate) fn page(search: &SearchFound, held: Option<Vec<Section>>) -> Page {
    let (tone, verdict) = match (search.knee, search.is_lower_bound) {
        (Some(knee), false) => (Tone::Good, format!("{} {}", grouped(knee), search.axis)),
        (Some(knee), true) => (Tone::Odd, format!("at least {} {}", grouped(knee), search.axis)),
        (None, true) => (Tone::Odd, "Not known".to_owned()),
        (None, false) => (Tone::Bad, "Nothing that was tried holds".to_owned()),
    };
    let words = format!("the most that holds {}. {}", search.asked, search.ended_by);
    let section = |title: &str, blocks: Vec<Block>| Section { title: title.to_owned(), blocks };
    let mut sections =
        vec![section("The knee", knee(search)), section("Tried, in turn", vec![tried(search)])];
    sections.push(section("To repeat it", vec![Block::Text(search.command.clone())]));
    if let Some(held) = held {
        let note = "What follows is of the last run that held.".to_owned();
        sections.push(section("The run below the knee", vec![Block::Note(note)]));
        sections.extend(held);
    }
    Page { title: format!("roomcast-loadgen find-max: {}", search.axis), tone, verdict, words, sections }
}

fn knee(search: &SearchFound) -> Vec<Block> {
    let limit =
        || search.p99_most_ms.map(|at| ChartLimit { at, name: format!("at most {} ms", decimal(Some(at))) });
    let chart =
        |title: &str, unit: &'static str, of: fn(&Probed) -> Option<f64>, limit: Option<ChartLimit>| {
            let points = |mark: Mark| {
                let these = search.probes.iter().filter(|probed| probed.mark == mark);
                let mut points: Vec<(f64, f64)> =
                    these.filter_map(|probed| Some((ratio(probed.value, 1), of(probed)?))).collect();
                points.sort_by(|one, other| one.0.total_cmp(&other.0));
                points
            };
            let lines = [
                (Mark::Held, "held", 2, Look::Dots),
                (Mark::Failed, "failed", 1, Look::Rings),
                (Mark::Limited, "limited", 0, Look::Rings),
            ];
            let lines = lines.map(|(mark, name, colour, look)| Line {
                name: name.to_owned(),
                colour,
                points: points(mark),
                look,
            });
            let lines = lines.into_iter().filter(|line| !line.points.is_empty()).collect();
            Chart { title: title.to_owned(), unit, x: X::Named(search.axis.clone()), lines, limit }
        };
    let mut charts = vec![
        chart("Latency p99", "ms", |probed| probed.p99_ms, limit()),
        chart("Processors the node kept busy", "", |probed| probed.cpu, None),
    ];
    charts.retain(|chart| !chart.lines.is_empty());
    let most = if search.is_lower_bound { "Holds at least" } else { "The most that holds" };
    let figures = vec![
        Figure::new(most, search.knee.map_or_else(|| decimal(None), grouped), "")
            .with_note(search.axis.clone()),
        Figure::new("Tried", grouped(search.probes.len() as u64), "")
            .with_note("values, or the same again".to_owned()),
    ];
    vec![Block::Figures(figures), Block::Charts(charts)]
}

fn tried(search: &SearchFound) -> Block {
    let rows = search.probes.iter().map(|probed| {
        let (word, tone) = match probed.mark {
            Mark::Held => ("✓ held", Tone::Good),
            Mark::Failed => ("✗ failed", Tone::Bad),
            Mark::Limited => ("! limited", Tone::Odd),
        };
        vec![
            Cell::toned(word, tone),
            probed.because.clone().into(),
            grouped(probed.value).into(),
            places(probed.p99_ms, 1).into(),
            places(probed.cpu, 2).into(),
        ]
    });
    let columns = ["", "because", &search.axis, "p99 ms", "processors"].map(str::to_owned).to_vec();
    Block::Table(Table { groups: Vec::new(), columns, words: 2, rows: rows.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(knee: Option<u64>) -> SearchFound {
        let probed = |value: u64, p99_ms: f64, because: &str| Probed {
            value,
            p99_ms: Some(p99_ms),
            mark: if because.is_empty() { Mark::Held } else { Mark::Failed },
            cpu: Some(ratio(value, 10_000)),
            because: because.to_owned(),
        };
        SearchFound {
            axis: "devices".to_owned(),
            asked: "p99<300ms,loss=0".to_owned(),
            p99_most_ms: Some(300.0),
            probes: vec![
                probed(4_000, 104.0, ""),
                probed(8_000, 131.0, ""),
                probed(16_000, 902.5, "p99<300ms: 902.5 ms"),
                probed(12_000, 240.0, ""),
                probed(14_000, 340.0, "p99<300ms: 340 ms"),
                probed(13_000, 270.0, ""),
            ],
            knee,
            is_lower_bound: false,
            ended_by: "The node's processors were busy: 1.9 of 2.".to_owned(),
            command: "roomcast-loadgen find-max --axis devices --slo p99<300ms,loss=0".to_owned(),
        }
    }

    #[test]
    fn the_knee_stands_on_top_and_every_probe_has_its_mark() {
        let page = page(&search(Some(13_000)), None).to_string();
        for said in
            ["13\u{202f}000 devices", "at most 300 ms", "✗ failed", "p99&lt;300ms: 340 ms", "1.9 of 2"]
        {
            assert!(page.contains(said), "{said}");
        }
        assert_eq!(page.matches("r=\"3.5\"").count(), 12, "six probes in two charts");
    }

    #[test]
    fn a_lower_bound_is_not_shown_as_a_knee() {
        let mut search = search(Some(8_000));
        search.is_lower_bound = true;
        (search.probes[2].mark, search.probes[2].because) = (Mark::Limited, "a worker was busy".to_owned());
        let bound = page(&search, None);
        assert_eq!((bound.tone, &*bound.verdict), (Tone::Odd, "at least 8\u{202f}000 devices"));
        let said = bound.to_string();
        assert!(said.contains("! limited") && said.contains(">limited<"), "{said}");
        let unknown = page(&SearchFound { knee: None, ..search }, None);
        assert_eq!((unknown.tone, &*unknown.verdict), (Tone::Odd, "Not known"));
    }

    #[test]
    fn what_was_not_measured_is_drawn_nowhere() {
        let mut search = search(Some(13_000));
        (search.probes[2].p99_ms, search.probes[2].cpu) = (None, None);
        let page = page(&search, None).to_string();
        assert_eq!(page.matches("r=\"3.5\"").count(), 10, "five probes in two charts");
        assert!(!page.contains(">0.0<"), "{page}");
    }

    #[test]
    fn a_search_without_a_knee_says_so() {
        let page = page(&SearchFound { probes: Vec::new(), ..search(None) }, None).to_string();
        assert!(page.contains("Nothing that was tried holds") && !page.contains("NaN"));
    }
}
