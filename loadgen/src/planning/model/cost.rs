//! A linear model of a node's processors or memory, without negative coefficients. Pure.
//!
//! cost = base + Σ coefficient × feature. For example 0.01 processors + 3 µs for each frame/s: 100 000
//! frames/s need 0.31 processors. Errors are relative, so a small point counts as much as a large point.
//!
//! A model of nine terms always fits nine rows. So the quality of a fit is measured by leaving each row out
//! in turn and predicting the row from the others.

use serde::Serialize;

use super::nnls;
use super::{Column, Features};

/// Errors of answers below this part of the largest answer count relative to that part. The cost of an idle
/// node is mostly chance, and would otherwise outweigh every other row.
const WEIGHT_FLOOR: f64 = 0.05;

/// The constant term.
pub(crate) const BASE: Column = Column { name: "base", of: |_| 1.0 };

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Term {
    pub(crate) name: &'static str,
    /// Processors or bytes for each unit of the feature.
    pub(crate) coefficient: f64,
    #[serde(skip)]
    of: fn(&Features) -> f64,
}

/// A fitted model.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Linear {
    pub(crate) terms: Vec<Term>,
    /// By row: prediction / measured value − 1.
    pub(crate) residuals: Vec<f64>,
    /// By row: the measured value and the prediction.
    pub(crate) points: Vec<(f64, f64)>,
    /// The largest residual, without sign.
    pub(crate) residual_max: f64,
    /// The part of the variance that the model explains.
    pub(crate) r_squared: f64,
    /// The largest error of a row predicted by the other rows. Rows that alone have some feature are left
    /// out.
    pub(crate) left_out_max: f64,
    /// The root mean square of the same errors.
    pub(crate) left_out_rms: f64,
    /// Distance of the columns from collinear; 1 for orthogonal columns.
    pub(crate) condition_number: f64,
}

/// Features, and the measured cost.
pub(crate) type Measured = (Features, f64);

impl Linear {
    /// Fits `columns` to `rows`. A column of zeros is left out, because the rows say nothing about its cost.
    /// Fails with too few rows, or with columns that follow from each other.
    pub(crate) fn fit(columns: &[Column], rows: &[Measured]) -> Result<Self, String> {
        let known = |column: &&Column| rows.iter().any(|(features, _)| (column.of)(features) > 0.0);
        let columns: Vec<Column> = columns.iter().filter(known).copied().collect();
        // As many terms as rows fit any measurement exactly, and predict nothing.
        if rows.len() <= columns.len() {
            return Err(format!("{} usable rows are too few for {} terms", rows.len(), columns.len()));
        }
        let largest = most(rows.iter().map(|(_, answer)| *answer));
        let floor = (WEIGHT_FLOOR * largest).max(f64::MIN_POSITIVE);
        let condition_number = nnls::condition_number(&weighted(&columns, rows, floor));
        if !condition_number.is_finite() {
            let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
            return Err(format!(
                "the rows can't separate the costs of {}: one of them follows from the others",
                names.join(", ")
            ));
        }
        let terms = terms(&columns, rows, floor);
        let residuals: Vec<f64> = rows.iter().map(|row| residual(&terms, row, floor)).collect();
        let left_out = (0..rows.len()).filter_map(|place| {
            let others = [&rows[..place], &rows[place + 1..]].concat();
            let is_zero = |column: &Column| others.iter().all(|(features, _)| (column.of)(features) == 0.0);
            // No other row knows the cost of this row's feature.
            let is_alone = columns.iter().any(is_zero);
            (!is_alone).then(|| residual(&self::terms(&columns, &others, floor), &rows[place], floor).abs())
        });
        let left_out: Vec<f64> = left_out.collect();
        Ok(Self {
            points: rows.iter().map(|(features, answer)| (*answer, predicted(&terms, features))).collect(),
            residual_max: most(residuals.iter().map(|residual| residual.abs())),
            r_squared: r_squared(&terms, rows),
            left_out_max: most(left_out.iter().copied()),
            left_out_rms: mean(left_out.iter().map(|error| error * error)).sqrt(),
            terms,
            residuals,
            condition_number,
        })
    }

    pub(crate) fn at(&self, features: &Features) -> f64 {
        predicted(&self.terms, features)
    }
}

fn predicted(terms: &[Term], features: &Features) -> f64 {
    terms.iter().map(|term| term.coefficient * (term.of)(features)).sum()
}

fn residual(terms: &[Term], measured: &Measured, floor: f64) -> f64 {
    let (features, answer) = measured;
    (predicted(terms, features) - answer) / answer.max(floor)
}

/// The rows, each divided by its answer. Least squares over such rows minimises relative errors.
fn weighted(columns: &[Column], rows: &[Measured], floor: f64) -> Vec<Vec<f64>> {
    let row = |(features, answer): &Measured| {
        columns.iter().map(|column| (column.of)(features) / answer.max(floor)).collect()
    };
    rows.iter().map(row).collect()
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
    let left: f64 = rows.iter().map(|(features, answer)| (predicted(terms, features) - answer).powi(2)).sum();
    if total > 0.0 { 1.0 - left / total } else { 1.0 }
}

/// The largest number, and at least 0.
pub(crate) fn most(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, f64::max)
}

/// 0 for an empty list.
pub(crate) fn mean(numbers: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = numbers.fold((0.0, 0.0), |(count, sum), number| (count + 1.0, sum + number));
    if count > 0.0 { sum / count } else { 0.0 }
}

/// 0 for an empty list.
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
        assert!(refused.contains("one of them follows from the others"), "{refused}");
    }
}
