//! The page of a search along an axis: the knee. Pure.

use maud::{Markup, html};

use crate::figures::ratio;
use crate::report::html::chart::{Chart, ChartLimit, ChartPoint, Line, Look, X};
use crate::report::html::{
    Cell, Figure, Page, Tone, charts, decimal, figures, grouped, lines, note, places, section, table,
};

/// The result of a search along an axis.
#[derive(Debug, Clone)]
pub(crate) struct SearchFound {
    /// The unit of the axis: `devices`.
    pub(crate) axis: String,
    /// The objective as text.
    pub(crate) asked: String,
    /// The largest p99 of the objective, if the objective has a p99.
    pub(crate) p99_most_ms: Option<f64>,
    /// In the order of the search.
    pub(crate) probes: Vec<Probed>,
    /// The largest value within the objective; `None` if the search found no such value.
    pub(crate) knee: Option<u64>,
    /// True if the generator reached a limit before the node did.
    pub(crate) is_lower_bound: bool,
    /// The shortage above the knee, in a sentence.
    pub(crate) ended_by: String,
    pub(crate) command: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Probed {
    pub(crate) value: u64,
    pub(crate) p99_ms: Option<f64>,
    /// Processors kept busy by the node.
    pub(crate) cpu: Option<f64>,
    pub(crate) mark: Mark,
    /// The reason of a failure; empty for a value within the objective.
    pub(crate) because: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Held,
    Failed,
    /// The generator was at its limit, so the value says nothing about the node.
    Limited,
}

/// The page of a search. `held` has the sections of the last run within the objective.
pub(crate) fn page(search: &SearchFound, held: Option<Markup>) -> Page {
    // At the limit of the generator the node may do more, so no number is good.
    let (tone, verdict) = match (search.knee, search.is_lower_bound) {
        (Some(knee), false) => (Tone::Good, format!("{} {}", grouped(knee), search.axis)),
        (Some(knee), true) => (Tone::Odd, format!("at least {} {}", grouped(knee), search.axis)),
        (None, true) => (Tone::Odd, "Not known".to_owned()),
        (None, false) => (Tone::Bad, "Nothing that was tried holds".to_owned()),
    };
    Page {
        title: format!("roomcast-loadgen find-max: {}", search.axis),
        tone,
        verdict,
        words: format!("the most that holds {}. {}", search.asked, search.ended_by),
        sections: html! {
            (section("The knee", &knee(search)))
            (section("Tried, in turn", &tried(search)))
            (section("To repeat it", &lines(&search.command)))
            @if let Some(held) = held {
                (section("The run below the knee", &note("The last run that held:")))
                (held)
            }
        },
    }
}

fn knee(search: &SearchFound) -> Markup {
    let limit =
        search.p99_most_ms.map(|at| ChartLimit { at, name: format!("at most {} ms", decimal(Some(at))) });
    let most = if search.is_lower_bound { "Holds at least" } else { "The most that holds" };
    html! {
        (figures(&[
            Figure::new(most, search.knee.map_or_else(|| decimal(None), grouped), "").with_note(&search.axis),
            Figure::new("Tried", grouped(search.probes.len() as u64), "")
                .with_note("values, or the same again"),
        ]))
        (charts(&[
            Chart { limit, ..chart(search, "Latency p99", "ms", |probed| probed.p99_ms) },
            chart(search, "Processors the node kept busy", "", |probed| probed.cpu),
        ]))
    }
}

/// A chart with the marks of each outcome; without a line where nothing was measured.
fn chart(search: &SearchFound, title: &str, unit: &'static str, of: fn(&Probed) -> Option<f64>) -> Chart {
    let outcomes = [
        (Mark::Held, "held", 2, Look::Dots),
        (Mark::Failed, "failed", 1, Look::Rings),
        (Mark::Limited, "limited", 0, Look::Rings),
    ];
    let lines = outcomes.map(|(mark, name, colour, look)| {
        let probes = search.probes.iter().filter(|probed| probed.mark == mark);
        let points = probes.filter_map(|probed| Some(ChartPoint::at(ratio(probed.value, 1), of(probed)?)));
        let mut points: Vec<ChartPoint> = points.collect();
        // Probes come in the order of the search, which jumps.
        points.sort_by(|one, other| one.x.total_cmp(&other.x));
        Line { name: name.to_owned(), colour, points, look }
    });
    Chart {
        title: title.to_owned(),
        unit,
        x: X::Named(search.axis.clone()),
        lines: lines.into_iter().filter(|line| !line.points.is_empty()).collect(),
        limit: None,
    }
}

fn tried(search: &SearchFound) -> Markup {
    let rows = search.probes.iter().map(|probed| {
        let (word, tone) = match probed.mark {
            Mark::Held => ("✓ held", Tone::Good),
            Mark::Failed => ("✗ failed", Tone::Bad),
            Mark::Limited => ("! limited", Tone::Odd),
        };
        vec![
            Cell::toned(word, tone),
            (&probed.because).into(),
            grouped(probed.value).into(),
            places(probed.p99_ms, 1).into(),
            places(probed.cpu, 2).into(),
        ]
    });
    table(&["", "because", &search.axis, "p99 ms", "processors"], 2, rows)
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
