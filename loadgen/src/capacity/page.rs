//! The page of a plan: its answer as it is printed, and the models with their residuals. Pure.

use super::answer::Answer;
use super::models::Models;
use super::point::PointAnswer;
use crate::html::model::{Fitted, section};
use crate::html::{Block, Page, Section, Tone, grouped};
use crate::model::cost::Linear;

impl Answer {
    /// Its page.
    #[must_use]
    pub(crate) fn page(&self) -> Page {
        let fits = self.too_large.is_empty();
        Page {
            title: "roomcast-loadgen plan".to_owned(),
            tone: if fits { Tone::Good } else { Tone::Bad },
            verdict: if fits {
                format!("{} nodes", grouped(self.nodes as u64))
            } else {
                "A room is too large".to_owned()
            },
            words: format!("{} decide how many", self.binding),
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
            tone: Tone::Good,
            verdict: format!("{:.3} processors", self.need.processors),
            words: "what one node needs at this point".to_owned(),
            sections: sections(self.to_string(), &self.models),
        }
    }
}

fn sections(answer: String, models: &Models) -> Vec<Section> {
    let fitted = |name: &str, unit, per: &str, scale: f64, linear: &Linear| Fitted {
        name: name.to_owned(),
        unit,
        terms: linear
            .terms
            .iter()
            .map(|term| (term.name.to_owned(), term.coefficient * scale, per.to_owned()))
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
