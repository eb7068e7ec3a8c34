//! Judges whether two series differ by more than their own noise. Pure; the same input gives the same answer.
//!
//! Neighbouring points of a series are alike, so a series is cut into blocks, and each block counts once. The
//! blocks of both runs are drawn again and again (Efron's bootstrap). The ratio of their medians gives an
//! interval that holds 95 % of the draws. For example 0.98 to 1.31: the new run may be 2 % better or 31 %
//! worse.
//!
//! The interval knows the variation within a run, and not the variation between two starts of a node. A close
//! call needs a second run of each.

use serde::Serialize;

use crate::planning::model::cost::median;

/// Longest block. Short runs have shorter blocks: at least [`PER_RUN`] for each run.
const BLOCK_S_MAX: f64 = 5.0;
const PER_RUN: f64 = 8.0;
/// With fewer blocks the draws are too much alike for an interval.
const BLOCKS_MIN: usize = 6;
const RESAMPLES: usize = 2_000;
/// Seed of the draws. Any fixed value, so that the same reports give the same answer.
const SEED: u64 = 0x0072_6f6f_6d63;

/// Judgement of a figure, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    Better,
    Same,
    /// The figure varies too much, or too little is known.
    Unclear,
    Worse,
}

impl Change {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Same => "same",
            Self::Unclear => "unclear",
            Self::Worse => "worse",
        }
    }
}

/// The direction in which a figure gets worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worse {
    More,
    Less,
}

/// The ratio of the new to the old figure, with the bounds that the noise allows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) middle: f64,
    pub(crate) high: f64,
}

/// The means of the blocks of a series. `points` are pairs of seconds and figures, of a run of `seconds`.
pub(crate) fn blocks(points: &[(f64, f64)], seconds: f64) -> Vec<f64> {
    // The lower bound keeps a report without a length from dividing by 0.
    let block_s = BLOCK_S_MAX.min(seconds / PER_RUN).max(0.001);
    let mut blocks = std::collections::BTreeMap::<u64, (f64, f64)>::new();
    // Points before the first publish do not belong to the run.
    for (at_s, figure) in points.iter().filter(|(at_s, figure)| *at_s >= 0.0 && figure.is_finite()) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative; a cast saturates"
        )]
        let block = (at_s / block_s) as u64;
        let (sum, count) = blocks.entry(block).or_default();
        *sum += figure;
        *count += 1.0;
    }
    blocks.into_values().map(|(sum, count)| sum / count).collect()
}

/// The interval of the ratio of medians, new to old. `None` for too few blocks, and for a median of 0.
pub(crate) fn interval(old: &[f64], new: &[f64]) -> Option<Interval> {
    if old.len().min(new.len()) < BLOCKS_MIN {
        return None;
    }
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut draw = |blocks: &[f64]| median(blocks.iter().map(|_| blocks[random.usize(..blocks.len())]));
    let mut ratios: Vec<f64> = (0..RESAMPLES).map(|_| draw(new) / draw(old)).collect();
    // Some draw of the old run had a median of 0.
    if ratios.iter().any(|ratio| !ratio.is_finite()) {
        return None;
    }
    ratios.sort_by(f64::total_cmp);
    let at = |part: usize| ratios[(RESAMPLES * part / 1_000).min(RESAMPLES - 1)];
    Some(Interval { low: at(25), middle: at(500), high: at(975) })
}

impl Interval {
    /// Judges the interval; changes below `tolerance` (0.05: 5 %) do not count.
    ///
    /// *Worse* and *better*: the whole interval is past the tolerance. *Same*: the middle is within the
    /// tolerance, and the interval is at most twice as wide. Everything else is *unclear*.
    pub(crate) fn change(self, worse: Worse, tolerance: f64) -> Change {
        let Self { low, middle, high } = match worse {
            Worse::More => self,
            Worse::Less => Self { low: 1.0 / self.high, middle: 1.0 / self.middle, high: 1.0 / self.low },
        };
        let more = 1.0 + tolerance;
        let less = 1.0 / (1.0 + tolerance);
        if low > more {
            Change::Worse
        } else if high < less {
            Change::Better
        } else if (less..=more).contains(&middle) && high - low <= 2.0 * tolerance {
            Change::Same
        } else {
            Change::Unclear
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minute of quarter seconds about `level`, each up to `noise` (0.1: 10 %) off.
    fn series(seed: u64, level: f64, noise: f64) -> Vec<f64> {
        let mut random = fastrand::Rng::with_seed(seed);
        let points = (0..240)
            .map(|place| (f64::from(place) / 4.0, level * (1.0 + noise * (2.0 * random.f64() - 1.0))));
        blocks(&points.collect::<Vec<_>>(), 60.0)
    }

    fn change(old: &[f64], new: &[f64], worse: Worse) -> Change {
        interval(old, new).map_or(Change::Unclear, |interval| interval.change(worse, 0.05))
    }

    #[test]
    fn the_same_noise_is_the_same_and_three_percent_too_but_twenty_are_worse() {
        for seed in 0..50 {
            let old = series(seed, 100.0, 0.1);
            let told = |level: f64, worse| change(&old, &series(seed + 1_000, level, 0.1), worse);
            assert_eq!(told(100.0, Worse::More), Change::Same, "seed {seed}");
            assert_ne!(told(103.0, Worse::More), Change::Worse, "seed {seed}");
            assert_eq!(told(120.0, Worse::More), Change::Worse, "seed {seed}");
            assert_eq!(told(80.0, Worse::More), Change::Better, "seed {seed}");
            assert_eq!(told(120.0, Worse::Less), Change::Better, "seed {seed}");
            assert_eq!(told(80.0, Worse::Less), Change::Worse, "seed {seed}");
        }
        let old = series(1, 100.0, 0.05);
        let new = series(2, 103.0, 0.05);
        assert_eq!(change(&old, &new, Worse::More), Change::Same);
    }

    #[test]
    fn what_varies_more_than_it_differs_is_unclear_and_so_is_what_is_short() {
        let wild = |seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            (0..12).map(|_| 50.0 + 100.0 * random.f64()).collect::<Vec<_>>()
        };
        for seed in 0..20 {
            let told = change(&wild(seed), &wild(seed + 1_000), Worse::More);
            assert_ne!(told, Change::Same, "seed {seed}");
        }
        assert_eq!(change(&[100.0; 5], &[200.0; 5], Worse::More), Change::Unclear);
        assert_eq!(change(&[0.0; 9], &[200.0; 9], Worse::More), Change::Unclear);
    }

    #[test]
    fn a_block_counts_once_however_many_points_it_has() {
        let points: Vec<(f64, f64)> =
            (0..4_000).map(|place| (f64::from(place) / 100.0, f64::from(place / 500))).collect();
        assert_eq!(blocks(&points, 40.0), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(blocks(&points[..1_000], 10.0).len(), 8);
        assert_eq!(blocks(&[(-1.0, 5.0), (0.0, f64::NAN)], 10.0), [0.0; 0]);
    }
}
