//! The page of a search along an axis: the knee. Pure.

use maud::{Markup, html};

use super::probe::{Probe, ProbeFigures};
use super::search::ProbeOutcome;
use super::{FoundMost, unit};
use crate::figures::ratio;
use crate::report::html::chart::{Chart, ChartLimit, ChartPoint, Line, Look, X};
use crate::report::html::{
    Cell, Figure, Page, Tone, charts, decimal, figures, grouped, lines, note, places, section, table,
};
use crate::scenario::thresholds::Condition;

impl FoundMost {
    /// `held` has the sections of the last run within the objective.
    pub(super) fn page(&self, conditions: &[Condition], held: Option<Markup>) -> Page {
        let axis = unit(self.axis);
        // At the limit of the generator the node may do more, so no number is good.
        let (tone, verdict) = match (self.found.knee, self.found.is_lower_bound) {
            (Some(knee), false) => (Tone::Good, format!("{} {axis}", grouped(knee))),
            (Some(knee), true) => (Tone::Odd, format!("at least {} {axis}", grouped(knee))),
            (None, true) => (Tone::Odd, "Not known".to_owned()),
            (None, false) => (Tone::Bad, "Nothing that was tried holds".to_owned()),
        };
        Page {
            title: format!("roomcast-loadgen find-max: {axis}"),
            tone,
            verdict,
            words: format!("the most that holds {}. {self}", self.slo),
            sections: html! {
                (section("The knee", &self.knee(conditions)))
                (section("Tried, in turn", &self.tried()))
                (section("To repeat it", &lines(&self.command)))
                @if let Some(held) = held {
                    (section("The run below the knee", &note("The last run that held:")))
                    (held)
                }
            },
        }
    }

    fn knee(&self, conditions: &[Condition]) -> Markup {
        let most_ms = conditions.iter().filter_map(Condition::p99_most_ms).reduce(f64::min);
        let limit = most_ms.map(|at| ChartLimit { at, name: format!("at most {} ms", decimal(Some(at))) });
        let most = if self.found.is_lower_bound { "Holds at least" } else { "The most that holds" };
        let knee = self.found.knee.map_or_else(|| decimal(None), grouped);
        html! {
            (figures(&[
                Figure::new(most, knee, "").with_note(unit(self.axis)),
                Figure::new("Tried", grouped(self.probes.len() as u64), "")
                    .with_note("values, or the same again"),
            ]))
            (charts(&[
                Chart { limit, ..self.chart("Latency p99", "ms", |measured| measured.p99_ms) },
                self.chart("Processors the node kept busy", "", |measured| measured.cpu),
            ]))
        }
    }

    /// A chart with the marks of each outcome; without a line where nothing was measured.
    fn chart(&self, title: &str, unit: &'static str, of: fn(&ProbeFigures) -> Option<f64>) -> Chart {
        let outcomes = [
            (ProbeOutcome::Held, "held", 2, Look::Dots),
            (ProbeOutcome::Failed, "failed", 1, Look::Rings),
            (ProbeOutcome::Limited, "limited", 0, Look::Rings),
        ];
        let lines = outcomes.map(|(outcome, name, colour, look)| {
            let probes = self.probes.iter().filter(|probe| probe.outcome == outcome);
            let point =
                |probe: &Probe| Some(ChartPoint::at(ratio(probe.value, 1), of(probe.measured.as_ref()?)?));
            let mut points: Vec<ChartPoint> = probes.filter_map(point).collect();
            // Probes come in the order of the search, which jumps.
            points.sort_by(|one, other| one.x.total_cmp(&other.x));
            Line { name: name.to_owned(), colour, points, look }
        });
        Chart {
            title: title.to_owned(),
            unit,
            x: X::Named(super::unit(self.axis).to_owned()),
            lines: lines.into_iter().filter(|line| !line.points.is_empty()).collect(),
            limit: None,
        }
    }

    fn tried(&self) -> Markup {
        let rows = self.probes.iter().map(|probe| {
            let (word, tone) = match probe.outcome {
                ProbeOutcome::Held => ("✓ held", Tone::Good),
                ProbeOutcome::Failed => ("✗ failed", Tone::Bad),
                ProbeOutcome::Limited => ("! limited", Tone::Odd),
            };
            let measured = probe.measured.as_ref();
            vec![
                Cell::toned(word, tone),
                probe.because.join("; ").into(),
                grouped(probe.value).into(),
                places(measured.and_then(|measured| measured.p99_ms), 1).into(),
                places(measured.and_then(|measured| measured.cpu), 2).into(),
            ]
        });
        table(&["", "because", unit(self.axis), "p99 ms", "processors"], 2, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::environment::Environment;
    use crate::planning::find_max::KneeFound;
    use crate::planning::find_max::probe::{Bar, Short};
    use crate::report::tests::made_up;
    use crate::run::args::Axis;
    use crate::scenario::thresholds::parse_all;

    const SLO: &str = "p99<300ms,loss=0";

    fn probe(value: u64, p99_ms: f64, because: &str) -> Probe {
        let mut report = made_up();
        report.latency.p99_ms = p99_ms;
        let bar = Bar { may_refuse: true, warm_up_ms: 0, processors: 64.0 };
        let mut probe = Probe::of(value, &report, &parse_all(SLO).unwrap(), bar);
        probe.measured.as_mut().unwrap().cpu = Some(ratio(value, 10_000));
        probe.outcome = if because.is_empty() { ProbeOutcome::Held } else { ProbeOutcome::Failed };
        probe.because = Some(because.to_owned()).into_iter().filter(|why| !why.is_empty()).collect();
        probe
    }

    fn search(knee: Option<u64>) -> FoundMost {
        let ended_by = Some(Short::Processors { busy: 1.9, of: 2.0 });
        FoundMost {
            partial: None,
            axis: Axis::Devices,
            slo: SLO.to_owned(),
            probes: vec![
                probe(4_000, 104.0, ""),
                probe(8_000, 131.0, ""),
                probe(16_000, 902.5, "p99<300ms: 902.5 ms"),
                probe(12_000, 240.0, ""),
                probe(14_000, 340.0, "p99<300ms: 340 ms"),
                probe(13_000, 270.0, ""),
            ],
            found: KneeFound { knee, ended_by, ..KneeFound::default() },
            processors: 2.0,
            environment: Environment::default(),
            command: "roomcast-loadgen find-max --axis devices --slo p99<300ms,loss=0".to_owned(),
        }
    }

    fn page(search: &FoundMost) -> Page {
        search.page(&parse_all(SLO).unwrap(), None)
    }

    #[test]
    fn the_knee_stands_on_top_and_every_probe_has_its_mark() {
        let page = page(&search(Some(13_000))).to_string();
        for said in
            ["13\u{202f}000 devices", "at most 300 ms", "✗ failed", "p99&lt;300ms: 340 ms", "1.90 of 2"]
        {
            assert!(page.contains(said), "{said}");
        }
        assert_eq!(page.matches("r=\"3.5\"").count(), 12, "six probes in two charts");
    }

    #[test]
    fn a_lower_bound_is_not_shown_as_a_knee() {
        let mut search = search(Some(8_000));
        search.found.is_lower_bound = true;
        search.probes[2].outcome = ProbeOutcome::Limited;
        let bound = page(&search);
        assert_eq!((bound.tone, &*bound.verdict), (Tone::Odd, "at least 8\u{202f}000 devices"));
        let said = bound.to_string();
        assert!(said.contains("! limited") && said.contains(">limited<"), "{said}");
        search.found.knee = None;
        let unknown = page(&search);
        assert_eq!((unknown.tone, &*unknown.verdict), (Tone::Odd, "Not known"));
    }

    #[test]
    fn what_was_not_measured_is_drawn_nowhere() {
        let mut search = search(Some(13_000));
        search.probes[2].measured = None;
        let page = page(&search).to_string();
        assert_eq!(page.matches("r=\"3.5\"").count(), 10, "five probes in two charts");
        assert!(!page.contains(">0.0<"), "{page}");
    }

    #[test]
    fn a_search_without_a_knee_says_so() {
        let page = page(&FoundMost { probes: Vec::new(), ..search(None) }).to_string();
        assert!(page.contains("Nothing that was tried holds") && !page.contains("NaN"));
    }
}
