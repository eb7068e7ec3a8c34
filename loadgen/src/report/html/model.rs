//! What the page of a plan has of each model: its terms, and how far it was from what was measured. Pure.

use crate::report::html::{Block, Cell, Chart, Line, Look, Section, Table, X, decimal, places};

/// A model that was fitted to what was measured.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fitted {
    /// What it is of: `Processor time`.
    pub(crate) name: String,
    /// Of what it is of.
    pub(crate) unit: &'static str,
    /// Each with its factor, as it is to be read, and the unit of that.
    pub(crate) terms: Vec<(String, String, String)>,
    /// Each point's name, what was measured there, and what the model says.
    pub(crate) points: Vec<(String, f64, f64)>,
}

/// The section of a model. A point on the line is one that the model meets.
#[must_use]
pub(crate) fn section(fitted: &Fitted) -> Section {
    let terms = fitted
        .terms
        .iter()
        .map(|(name, factor, unit)| [name, unit, factor].map(|text| Cell::from(&**text)).to_vec());
    let columns = ["term", "unit of the factor", "factor"].map(str::to_owned).to_vec();
    let terms = Table { groups: Vec::new(), columns, words: 2, rows: terms.collect() };
    let most = fitted.points.iter().map(|(_, measured, _)| *measured).fold(0.0, f64::max);
    let line = |name: &str, colour, points, look| Line { name: name.to_owned(), colour, points, look };
    let lines = vec![
        line("as measured", 1, vec![(0.0, 0.0), (most, most)], Look::Line),
        line("modelled", 0, fitted.points.iter().map(|point| (point.1, point.2)).collect(), Look::Dots),
    ];
    let x = X::Named(format!("measured, {}", fitted.unit));
    let chart = Chart { title: "What the model says".to_owned(), unit: fitted.unit, x, lines, limit: None };
    let rows = fitted.points.iter().map(|(name, measured, modelled)| {
        let off = (*measured > 0.0).then(|| 100.0 * (modelled / measured - 1.0));
        let numbers = [decimal(Some(*measured)), decimal(Some(*modelled)), places(off, 1)].map(Cell::from);
        [vec![Cell::from(&**name)], numbers.to_vec()].concat()
    });
    let columns = ["point", "measured", "modelled", "off by %"].map(str::to_owned).to_vec();
    let residuals = Table { groups: Vec::new(), columns, words: 1, rows: rows.collect() };
    let mut blocks = vec![Block::Table(terms)];
    if !fitted.points.is_empty() {
        blocks.extend([Block::Charts(vec![chart]), Block::Table(residuals)]);
    }
    Section { title: fitted.name.clone(), blocks }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_point_has_its_residual_and_each_term_its_factor() {
        let fitted = Fitted {
            name: "Processor time".to_owned(),
            unit: "processors",
            terms: vec![("frames".to_owned(), "0.00425".to_owned(), "µs".to_owned())],
            points: vec![("1 000 devices".to_owned(), 0.5, 0.55), ("none".to_owned(), 0.0, 0.1)],
        };
        let section = section(&fitted).to_string();
        for said in
            ["0.00425", ">unit of the factor<", "1 000 devices", ">10.0<", "measured, processors", ">–<"]
        {
            assert!(section.contains(said), "{said}: {section}");
        }
    }
}
