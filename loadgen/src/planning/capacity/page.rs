//! The page of a plan: the printed answer, and the fitted models with their residuals. Pure.

use maud::{Markup, html};

use super::answer::{PlanAnswer, digits};
use super::models::Models;
use super::past;
use super::point::PointAnswer;
use crate::planning::model::cost::Linear;
use crate::report::html::chart::{Chart, ChartPoint, Line, Look, X};
use crate::report::html::{Page, Tone, charts, decimal, grouped, lines, places, row, section, table};

impl PlanAnswer {
    pub(crate) fn page(&self) -> Page {
        Page {
            title: "roomcast-loadgen plan".to_owned(),
            // A figure past the measured range is a guess.
            tone: match (self.is_possible(), &self.past) {
                (false, _) => Tone::Bad,
                (true, Some(_)) => Tone::Odd,
                (true, None) => Tone::Good,
            },
            verdict: match (self.too_large.is_empty(), self.is_possible()) {
                (true, true) => format!("{} nodes", grouped(self.nodes as u64)),
                (true, false) => format!("{} nodes are too many", grouped(self.nodes as u64)),
                (false, _) => "A room is too large".to_owned(),
            },
            words: match &self.past {
                Some(past) => format!("{} decide how many; past what was measured: {past}", self.binding),
                None => format!("{} decide how many", self.binding),
            },
            sections: sections(&self.to_string(), &self.models),
        }
    }
}

impl PointAnswer {
    pub(crate) fn page(&self) -> Page {
        let past = past(&self.beyond);
        Page {
            title: "roomcast-loadgen plan: one node at one point".to_owned(),
            tone: if past.is_some() { Tone::Odd } else { Tone::Good },
            verdict: format!("{:.3} processors", self.need.processors),
            words: match past {
                Some(past) => format!("what one node needs at this point; past what was measured: {past}"),
                None => "what one node needs at this point".to_owned(),
            },
            sections: sections(&self.to_string(), &self.models),
        }
    }
}

fn sections(answer: &str, models: &Models) -> Markup {
    html! {
        (section("The answer", &lines(answer)))
        (section("Processors", &model("processors", "µs", 1e6, &models.cpu)))
        (section("Memory", &model("bytes", "KiB", 1.0 / 1_024.0, &models.memory)))
    }
}

/// The terms of a model, each factor times `scale` in `factor_unit`, and the model beside the measured rows.
/// A point on the line of the chart has no error.
fn model(unit: &'static str, factor_unit: &str, scale: f64, linear: &Linear) -> Markup {
    let most = linear.points.iter().map(|(measured, _)| *measured).fold(0.0, f64::max);
    let line = |name: &str, colour, points, look| Line { name: name.to_owned(), colour, points, look };
    let modelled = linear.points.iter().map(|(measured, modelled)| ChartPoint::at(*measured, *modelled));
    let chart = Chart {
        title: "What the model says".to_owned(),
        unit,
        x: X::Named(format!("measured, {unit}")),
        lines: vec![
            line("as measured", 1, vec![ChartPoint::at(0.0, 0.0), ChartPoint::at(most, most)], Look::Line),
            line("modelled", 0, modelled.collect(), Look::Dots),
        ],
        limit: None,
    };
    let terms = linear
        .terms
        .iter()
        .map(|term| row(term.name, [factor_unit.to_owned(), digits(term.coefficient * scale)]));
    let rows = (1..).zip(&linear.points).map(|(number, (measured, modelled))| {
        // A row where nothing was measured has no relative error.
        let off = (*measured > 0.0).then(|| 100.0 * (modelled / measured - 1.0));
        row(&format!("row {number}"), [decimal(Some(*measured)), decimal(Some(*modelled)), places(off, 1)])
    });
    html! {
        (table(&["term", "unit of the factor", "factor"], 2, terms))
        @if !linear.points.is_empty() {
            (charts(&[chart]))
            (table(&["point", "measured", "modelled", "off by %"], 1, rows))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planning::capacity::answer::tests::{demand, models};

    #[test]
    fn a_plan_past_what_was_measured_is_not_green() {
        let page = |rooms: &str, node: &str| PlanAnswer::of(models(), demand(rooms, node)).unwrap().page();
        let within = page("2:1000,10:50:0.5", "1c,1g,1gbit");
        assert_eq!((within.tone, &*within.words), (Tone::Good, "processors decide how many"));
        let past = page("40:1000", "16c,64g,10gbit");
        assert_eq!(past.tone, Tone::Odd);
        assert!(
            past.words.contains("past what was measured: ")
                && past.words.contains("× the largest measured, processors 16.0 × the"),
            "{}",
            past.words
        );
        let processors = page("2:1000", "4c,64g,10gbit");
        assert_eq!(processors.tone, Tone::Odd);
        assert!(processors.words.contains("processors 4.0 ×"), "{}", processors.words);
    }

    #[test]
    fn each_row_has_its_residual_and_each_term_its_factor() {
        let mut linear = models().cpu;
        linear.terms[0].coefficient = 4.25e-9;
        linear.points = vec![(0.5, 0.55), (0.0, 0.1)];
        let shown = model("processors", "µs", 1e6, &linear).0;
        for said in ["0.00425", ">unit of the factor<", ">µs<", ">10.0<", "measured, processors", ">–<"] {
            assert!(shown.contains(said), "{said}: {shown}");
        }
    }
}
