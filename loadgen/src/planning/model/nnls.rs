//! Least squares with coefficients ≥ 0. A negative cost for a frame would be nonsense, however well the value
//! fits.
//!
//! The active set method of Lawson and Hanson, Solving Least Squares Problems (1974), chapter 23, on normal
//! equations of columns scaled to length 1. Small and dense: a dozen columns, hundreds of rows. Pure.

/// Turns of the outer loop for each column. The method ends after about one; the bound is for rounding
/// errors.
const TURNS_PER_COLUMN_MAX: usize = 10;
/// A gradient below this part of the largest target is a rounding error.
const GRADIENT_MIN: f64 = 1e-10;
/// Sweeps of the eigenvalue iteration, which converges in about six.
const SWEEPS_MAX: usize = 60;

/// The x ≥ 0 with the least |`rows`·x − `wanted`|. All rows have the same length. A column of zeros gets 0.
pub(crate) fn solve(rows: &[Vec<f64>], wanted: &[f64]) -> Vec<f64> {
    let columns = rows.first().map_or(0, Vec::len);
    let lengths = lengths(rows, columns);
    let gram = gram(rows, &lengths);
    let target: Vec<f64> = (0..columns)
        .map(|column| rows.iter().zip(wanted).map(|(row, y)| row[column] / lengths[column] * y).sum())
        .collect();
    let solution = active_set(&gram, &target);
    solution.iter().zip(&lengths).map(|(x, length)| x / length).collect()
}

/// The largest singular value over the smallest, of columns scaled to length 1. Infinite for a column of
/// zeros, and for columns that follow from others.
pub(crate) fn condition_number(rows: &[Vec<f64>]) -> f64 {
    let columns = rows.first().map_or(0, Vec::len);
    let eigenvalues = eigenvalues(gram(rows, &lengths(rows, columns)));
    let most = eigenvalues.iter().copied().fold(0.0, f64::max);
    let least = eigenvalues.iter().copied().fold(f64::INFINITY, f64::min);
    // A column of zeros has the eigenvalue 0. Any smaller ratio is a rounding error: doubles can't tell the
    // columns from collinear columns.
    if least <= most * 1e-14 { f64::INFINITY } else { (most / least).sqrt() }
}

/// Euclidean lengths of the columns; 1 for a column of zeros, which is safe to divide by.
fn lengths(rows: &[Vec<f64>], columns: usize) -> Vec<f64> {
    let length = |column: usize| rows.iter().map(|row| row[column] * row[column]).sum::<f64>().sqrt();
    (0..columns).map(|column| Some(length(column)).filter(|length| *length > 0.0).unwrap_or(1.0)).collect()
}

/// The products of the scaled columns with each other.
fn gram(rows: &[Vec<f64>], lengths: &[f64]) -> Vec<Vec<f64>> {
    let product = |one: usize, other: usize| {
        rows.iter().map(|row| row[one] / lengths[one] * (row[other] / lengths[other])).sum()
    };
    let columns = lengths.len();
    (0..columns).map(|one| (0..columns).map(|other| product(one, other)).collect()).collect()
}

fn active_set(gram: &[Vec<f64>], target: &[f64]) -> Vec<f64> {
    let columns = target.len();
    let mut x = vec![0.0; columns];
    // The columns with a coefficient above 0; the others are held at 0.
    let mut passive: Vec<usize> = Vec::new();
    let tolerance = GRADIENT_MIN * target.iter().map(|y| y.abs()).fold(0.0, f64::max);
    for _ in 0..columns * TURNS_PER_COLUMN_MAX {
        let gradient =
            |column: usize| target[column] - gram[column].iter().zip(&x).map(|(g, x)| g * x).sum::<f64>();
        let candidates =
            (0..columns).filter(|column| !passive.contains(column) && gram[*column][*column] > 0.0);
        let steepest = candidates.max_by(|one, other| gradient(*one).total_cmp(&gradient(*other)));
        // No column at 0 would lower the error by rising: this point is the best.
        let Some(steepest) = steepest.filter(|column| gradient(*column) > tolerance) else { break };
        passive.push(steepest);
        settle(gram, target, &mut passive, &mut x);
    }
    x
}

/// Moves to the best point of the passive columns. Columns that would become negative return to 0.
fn settle(gram: &[Vec<f64>], target: &[f64], passive: &mut Vec<usize>, x: &mut [f64]) {
    while !passive.is_empty() {
        let sub =
            passive.iter().map(|one| passive.iter().map(|other| gram[*one][*other]).collect()).collect();
        let Some(best) = eliminate(sub, passive.iter().map(|column| target[*column]).collect()) else {
            // The newest column follows from the others and adds nothing.
            passive.pop();
            return;
        };
        if best.iter().all(|best| *best > 0.0) {
            passive.iter().zip(best).for_each(|(column, best)| x[*column] = best);
            return;
        }
        // Go towards the best point until the first coefficient reaches 0.
        let negative = passive.iter().zip(&best).filter(|(_, best)| **best <= 0.0);
        let step = negative.map(|(column, best)| x[*column] / (x[*column] - best)).fold(1.0, f64::min);
        for (column, best) in passive.iter().zip(&best) {
            x[*column] += step * (best - x[*column]);
        }
        let mut place = 0;
        passive.retain(|column| {
            let stays = best[place] > 0.0 || x[*column] > f64::EPSILON;
            place += 1;
            if !stays {
                x[*column] = 0.0;
            }
            stays
        });
    }
}

/// Solves a square system by Gaussian elimination with pivots. `None` for a singular matrix.
fn eliminate(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let size = right.len();
    for at in 0..size {
        let pivot =
            (at..size).max_by(|one, other| matrix[*one][at].abs().total_cmp(&matrix[*other][at].abs()))?;
        // Columns have length 1, so a pivot this small is a rounding error.
        if matrix[pivot][at].abs() < 1e-13 {
            return None;
        }
        matrix.swap(at, pivot);
        right.swap(at, pivot);
        for below in at + 1..size {
            let factor = matrix[below][at] / matrix[at][at];
            let upper = matrix[at].clone();
            matrix[below].iter_mut().zip(&upper).for_each(|(lower, upper)| *lower -= factor * upper);
            right[below] -= factor * right[at];
        }
    }
    for at in (0..size).rev() {
        let known: f64 = (at + 1..size).map(|later| matrix[at][later] * right[later]).sum();
        right[at] = (right[at] - known) / matrix[at][at];
    }
    Some(right)
}

/// Eigenvalues of a symmetric matrix, by Jacobi rotations (Golub and Van Loan, Matrix Computations, 8.5).
fn eigenvalues(mut matrix: Vec<Vec<f64>>) -> Vec<f64> {
    let size = matrix.len();
    for _ in 0..SWEEPS_MAX {
        for one in 0..size {
            for other in one + 1..size {
                rotate(&mut matrix, one, other);
            }
        }
    }
    (0..size).map(|at| matrix[at][at]).collect()
}

/// Turns the element at (`one`, `other`) to 0.
fn rotate(matrix: &mut [Vec<f64>], one: usize, other: usize) {
    // Already 0; theta would divide by the element.
    if matrix[one][other].abs() < f64::MIN_POSITIVE {
        return;
    }
    let theta = (matrix[other][other] - matrix[one][one]) / (2.0 * matrix[one][other]);
    let tangent = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let cosine = 1.0 / tangent.hypot(1.0);
    let sine = tangent * cosine;
    for row in matrix.iter_mut() {
        let left = row[one];
        let right = row[other];
        row[one] = cosine * left - sine * right;
        row[other] = sine * left + cosine * right;
    }
    let (head, tail) = matrix.split_at_mut(other);
    for (upper, lower) in head[one].iter_mut().zip(tail[0].iter_mut()) {
        (*upper, *lower) = (cosine * *upper - sine * *lower, sine * *upper + cosine * *lower);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: &[f64], wanted: &[f64]) {
        assert_eq!(found.len(), wanted.len());
        for (found, wanted) in found.iter().zip(wanted) {
            assert!((found - wanted).abs() <= 1e-6 * wanted.abs().max(1e-3), "{found} for {wanted}");
        }
    }

    fn squared_error(rows: &[Vec<f64>], wanted: &[f64], x: &[f64]) -> f64 {
        let said = |row: &Vec<f64>| -> f64 { row.iter().zip(x).map(|(a, x)| a * x).sum() };
        rows.iter().zip(wanted).map(|(row, y)| (said(row) - y).powi(2)).sum()
    }

    #[test]
    fn what_is_exactly_so_is_found_whatever_the_units() {
        let seed = 11;
        let mut random = fastrand::Rng::with_seed(seed);
        let truth = [0.01, 2e-6, 0.0, 4e-9, 3.0];
        let scales = [1.0, 1e4, 1e6, 1e8, 0.1];
        let rows: Vec<Vec<f64>> =
            (0..20).map(|_| scales.iter().map(|scale| scale * random.f64()).collect()).collect();
        let wanted: Vec<f64> =
            rows.iter().map(|row| row.iter().zip(truth).map(|(a, x)| a * x).sum()).collect();
        let found = solve(&rows, &wanted);
        for (found, (wanted, scale)) in found.iter().zip(truth.iter().zip(scales)) {
            assert!((found - wanted).abs() * scale < 1e-9, "seed {seed}: {found} for {wanted}");
        }
    }

    #[test]
    fn where_plain_least_squares_goes_negative_the_best_point_has_a_zero() {
        // Plain least squares gives (2, −1).
        let rows = vec![vec![1.0, 0.0], vec![1.0, 1.0], vec![0.0, 1.0]];
        let wanted = [2.0, 1.0, -1.0];
        close(&solve(&rows, &wanted), &[1.5, 0.0]);
    }

    #[test]
    fn no_point_nearby_that_is_not_negative_is_better() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let rows: Vec<Vec<f64>> =
                (0..8).map(|_| (0..4).map(|_| random.f64() * 2.0 - 1.0).collect()).collect();
            let wanted: Vec<f64> = (0..8).map(|_| random.f64() * 2.0 - 1.0).collect();
            let found = solve(&rows, &wanted);
            let error = squared_error(&rows, &wanted, &found);
            assert!(found.iter().all(|x| *x >= 0.0), "seed {seed}: {found:?}");
            for column in 0..4 {
                for step in [-1e-4, 1e-4] {
                    let mut other = found.clone();
                    other[column] = (other[column] + step).max(0.0);
                    assert!(squared_error(&rows, &wanted, &other) >= error - 1e-12, "seed {seed}: {found:?}");
                }
            }
        }
    }

    #[test]
    fn a_column_that_follows_from_others_adds_nothing_and_is_told() {
        let rows: Vec<Vec<f64>> = (1..6).map(|n| vec![f64::from(n), f64::from(n) * 3.0, 1.0]).collect();
        assert_eq!(condition_number(&rows), f64::INFINITY);
        let found = solve(&rows, &[2.0, 4.0, 6.0, 8.0, 10.0]);
        assert!((found[0] + 3.0 * found[1] - 2.0).abs() < 1e-9, "{found:?}");
        assert!((condition_number(&[vec![1.0, 0.0], vec![0.0, 5.0]]) - 1.0).abs() < 1e-12);
        // Columns at 45°: eigenvalues 1 ± 1/√2.
        let oblique = condition_number(&[vec![1.0, 1.0], vec![0.0, 1.0]]);
        let known = ((1.0 + 0.5_f64.sqrt()) / (1.0 - 0.5_f64.sqrt())).sqrt();
        assert!((oblique - known).abs() < 1e-9, "{oblique} for {known}");
        assert_eq!(condition_number(&[vec![1.0, 0.0]]), f64::INFINITY);
    }
}
