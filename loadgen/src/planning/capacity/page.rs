//! The page of a plan: its answer as it is printed, and the models with their residuals. Pure.

use super::answer::{PlanAnswer, digits};
use super::models::Models;
use super::past;
use super::point::PointAnswer;
use crate::planning::model::cost::Linear;
use crate::report::html::model::{Fitted, section};
use crate::report::html::{Block, Page, Section, Tone, grouped};

impl PlanAnswer {
    /// Its page.
    #[must_use]
    pub(crate) fn page(&self) -> Page {
        let fits = self.too_large.is_empty();
        Page {
            title: "roomcast-loadgen plan".to_owned(),
            tone: match (fits, &self.past) {
                (false, _) => Tone::Bad,
                (true, Some(_)) => Tone::Odd,
                (true, None) => Tone::Good,
            },
            verdict: if fits {
                format!("{} nodes", grouped(self.nodes as u64))
            } else {
                "A room is too large".to_owned()
            },
            words: match &self.past {
                Some(past) => format!("{} decide how many; past what was measured: {past}", self.binding),
                None => format!("{} decide how many", self.binding),
            },
            sections: sections(self.to_string(), &self.models),
        }
    }
}

impl PointAnswer {
    /// Its page.
    #[must_use]
    pub(crate) fn page(&self) -> Page {
        Page {
            title: "roomcast-loadgen plan: one node at one point".to_owned(),
            tone: if past(&self.beyond).is_some() { Tone::Odd } else { Tone::Good },
            verdict: format!("{:.3} processors", self.need.processors),
            words: match past(&self.beyond) {
                Some(past) => format!("what one node needs at this point; past what was measured: {past}"),
                None => "what one node needs at this point".to_owned(),
            },
            sections: sections(self.to_string(), &self.models),
        }
    }
}

fn sections(answer: String, models: &Models) -> Vec<Section> {
    let fitted = |name: &str, unit, factor_unit: &str, scale: f64, linear: &Linear| Fitted {
        name: name.to_owned(),
        unit,
        terms: linear
            .terms
            .iter()
            .map(|term| (term.name.to_owned(), digits(term.coefficient * scale), factor_unit.to_owned()))
            .collect(),
        points: (1..)
            .zip(&linear.points)
            .map(|(row, (measured, said))| (format!("row {row}"), *measured, *said))
            .collect(),
    };
    let answer = Section { title: "The answer".to_owned(), blocks: vec![Block::Text(answer)] };
    vec![
        answer,
        section(&fitted("Processors", "processors", "µs", 1e6, &models.cpu)),
        section(&fitted("Memory", "bytes", "KiB", 1.0 / 1_024.0, &models.memory)),
    ]
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
    fn a_small_factor_has_digits_and_its_unit() {
        let mut models = models();
        models.cpu.terms[1].coefficient = 1.2e-9;
        let section = sections(String::new(), &models)[1].to_string();
        assert!(section.contains(">0.00120<") && section.contains(">µs<"), "{section}");
    }
}
