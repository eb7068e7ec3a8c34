//! What a node's processors and memory are asked for: linear in what it does, with nothing below zero. Pure.
//!
//! Errors count relative to what was measured, so that a small point is as much worth as a large one. What is said of the
//! fit besides its residuals is how well each row is told by the others: a model of nine terms fits nine rows always.

use serde::Serialize;

use super::nnls;
use super::{Column, Features};

/// Below this part of the largest answer, errors count relative to that: what an idle node needs is mostly chance.
const WEIGHT_FLOOR: f64 = 0.05;

/// The constant term.
pub(crate) const BASE: Column = Column { name: "base", of: |_| 1.0 };

/// One term of a model.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Term {
    pub(crate) name: &'static str,
    /// Of the answer's unit for each of the feature's.
    pub(crate) coefficient: f64,
    #[serde(skip)]
    of: fn(&Features) -> f64,
}

/// A fitted model.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Linear {
    pub(crate) terms: Vec<Term>,
    /// By row: what the model says over what was measured, less 1.
    pub(crate) residuals: Vec<f64>,
    /// By row: what was measured, and what the model says.
    pub(crate) points: Vec<(f64, f64)>,
    /// The largest of them.
    pub(crate) residual_max: f64,
    /// The part of the variance that the model explains.
    pub(crate) r_squared: f64,
    /// The same as `residual_max` of models that had not seen the row; rows that alone have some feature aside.
    pub(crate) left_out_max: f64,
    /// Of those: the root of the mean square.
    pub(crate) left_out_rms: f64,
    /// How far from collinear the columns are; 1: not at all.
    pub(crate) condition_number: f64,
}

/// What was measured: features, and an answer.
pub(crate) type Measured = (Features, f64);

impl Linear {
    /// Fits `columns` to `rows`; a column that is 0 in all of them is left out, because nothing is known of it.
    ///
    /// # Errors
    /// A sentence, when there are too few rows, or columns follow from each other.
    pub(crate) fn fit(columns: &[Column], rows: &[Measured]) -> Result<Self, String> {
        let known = |column: &&Column| rows.iter().any(|(features, _)| (column.of)(features) > 0.0);
        let columns: Vec<Column> = columns.iter().filter(known).copied().collect();
        if rows.len() <= columns.len() {
            return Err(format!("{} usable rows are too few for {} terms", rows.len(), columns.len()));
        }
        let condition_number = nnls::condition_number(&matrix(&columns, rows));
        if !condition_number.is_finite() {
            let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
            return Err(format!("of {} one follows from the others: the rows can't tell", names.join(", ")));
        }
        let floor = floor(rows);
        let terms = terms(&columns, rows, floor);
        let residuals: Vec<f64> = rows.iter().map(|row| residual(&terms, row, floor)).collect();
        let left_out = (0..rows.len()).filter_map(|place| {
            let others = [&rows[..place], &rows[place + 1..]].concat();
            let is_zero = |column: &Column| others.iter().all(|(features, _)| (column.of)(features) == 0.0);
            // A row that alone has some feature can be told by no others.
            let is_alone = columns.iter().any(is_zero);
            (!is_alone).then(|| residual(&self::terms(&columns, &others, floor), &rows[place], floor).abs())
        });
        let left_out: Vec<f64> = left_out.collect();
        Ok(Self {
            points: rows.iter().map(|(features, answer)| (*answer, said(&terms, features))).collect(),
            residual_max: most(residuals.iter().map(|residual| residual.abs())),
            r_squared: r_squared(&terms, rows),
            left_out_max: most(left_out.iter().copied()),
            left_out_rms: mean(left_out.iter().map(|error| error * error)).sqrt(),
            terms,
            residuals,
            condition_number,
        })
    }

    /// What the model says of `features`.
    #[must_use]
    pub(crate) fn at(&self, features: &Features) -> f64 {
        said(&self.terms, features)
    }
}

fn said(terms: &[Term], features: &Features) -> f64 {
    terms.iter().map(|term| term.coefficient * (term.of)(features)).sum()
}

fn residual(terms: &[Term], measured: &Measured, floor: f64) -> f64 {
    let (features, answer) = measured;
    (said(terms, features) - answer) / answer.max(floor)
}

fn floor(rows: &[Measured]) -> f64 {
    (WEIGHT_FLOOR * most(rows.iter().map(|(_, answer)| *answer))).max(f64::MIN_POSITIVE)
}

/// The rows, each over its answer.
fn weighted(columns: &[Column], rows: &[Measured], floor: f64) -> Vec<Vec<f64>> {
    let row = |(features, answer): &Measured| {
        columns.iter().map(|column| (column.of)(features) / answer.max(floor)).collect()
    };
    rows.iter().map(row).collect()
}

fn matrix(columns: &[Column], rows: &[Measured]) -> Vec<Vec<f64>> {
    weighted(columns, rows, floor(rows))
}

fn terms(columns: &[Column], rows: &[Measured], floor: f64) -> Vec<Term> {
    let wanted: Vec<f64> = rows.iter().map(|(_, answer)| answer / answer.max(floor)).collect();
    let found = nnls::solve(&weighted(columns, rows, floor), &wanted);
    let term = |(column, coefficient): (&Column, f64)| Term { name: column.name, coefficient, of: column.of };
    columns.iter().zip(found).map(term).collect()
}

fn r_squared(terms: &[Term], rows: &[Measured]) -> f64 {
    let middle = mean(rows.iter().map(|(_, answer)| *answer));
    let total: f64 = rows.iter().map(|(_, answer)| (answer - middle).powi(2)).sum();
    let left: f64 = rows.iter().map(|(features, answer)| (said(terms, features) - answer).powi(2)).sum();
    if total > 0.0 { 1.0 - left / total } else { 1.0 }
}

/// The largest, and at least 0.
pub(crate) fn most(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, f64::max)
}

/// The mean; 0 of none.
pub(crate) fn mean(numbers: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = numbers.fold((0.0, 0.0), |(count, sum), number| (count + 1.0, sum + number));
    if count > 0.0 { sum / count } else { 0.0 }
}

/// The middle one, or the mean of the two there; 0 of none.
pub(crate) fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [BASE, Features::COLUMNS[0], Features::COLUMNS[4], Features::COLUMNS[8]];

    fn rows(noise: f64) -> Vec<Measured> {
        let mut random = fastrand::Rng::with_seed(5);
        let row = |number: u32| {
            let frames_per_s = f64::from(number * number) * 900.0;
            let features =
                Features { connections: f64::from(number % 4 * 1_000), frames_per_s, ..Features::default() };
            let cost = 0.01 + 5e-6 * features.connections + 3e-6 * frames_per_s;
            (features, cost * (1.0 + noise * (random.f64() * 2.0 - 1.0)))
        };
        (1..=12).map(row).collect()
    }

    #[test]
    fn a_cost_that_is_linear_is_found_with_all_it_was_fitted_to() {
        let model = Linear::fit(&COLUMNS, &rows(0.0)).unwrap();
        let names: Vec<&str> = model.terms.iter().map(|term| term.name).collect();
        assert_eq!(names, ["base", "connections", "frames/s"], "of acks nothing is known");
        assert!((model.terms[2].coefficient - 3e-6).abs() < 1e-12, "{model:?}");
        assert!(model.residual_max < 1e-9 && model.left_out_max < 1e-9 && model.r_squared > 0.999_999);
        let asked = Features { connections: 500.0, frames_per_s: 10_000.0, ..Features::default() };
        assert!((model.at(&asked) - 0.0425).abs() < 1e-9);
    }

    #[test]
    fn a_median_is_in_the_middle() {
        let of = |numbers: &[f64]| median(numbers.iter().copied());
        assert_eq!([of(&[]), of(&[3.0]), of(&[9.0, 1.0]), of(&[9.0, 1.0, 2.0])], [0.0, 3.0, 5.0, 2.0]);
    }

    #[test]
    fn a_row_that_was_left_out_is_told_worse_than_one_that_was_not() {
        let model = Linear::fit(&COLUMNS, &rows(0.1)).unwrap();
        assert!(model.residual_max > 0.01 && model.residual_max < 0.12, "{model:?}");
        assert!(model.left_out_max > model.residual_max && model.left_out_rms <= model.left_out_max);
    }

    #[test]
    fn rows_that_can_not_tell_columns_apart_are_refused() {
        let all = rows(0.0);
        let few = Linear::fit(&COLUMNS, &all[..3]).unwrap_err();
        assert!(few.contains("3 usable rows are too few"), "{few}");
        let same = |(features, cost): &Measured| {
            (Features { connections: features.frames_per_s * 2.0, ..*features }, *cost)
        };
        let same: Vec<Measured> = all.iter().map(same).collect();
        let refused = Linear::fit(&COLUMNS, &same).unwrap_err();
        assert!(refused.contains("follows from the others"), "{refused}");
    }
}
