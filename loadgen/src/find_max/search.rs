//! Which value to probe next: upwards until one fails, halving between the two, and then the same again until it is sure.
//! Pure.
//!
//! One probe that fails may be chance, so a value fails when it failed twice before it held; that favours high values, and
//! the end corrects it: the value that was found has to hold in most of its repetitions, or the next lower one is taken.

use std::collections::BTreeMap;

use serde::Serialize;

/// How much higher each step upwards goes.
const STEP: u64 = 2;
/// So many probes of a value that did not hold are believed.
const BELIEVED: u32 = 2;

/// What a probe came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Held,
    Failed,
    /// It says more about the generator than about the node.
    Limited,
}

/// Where to look, and how closely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The first value; at least 1.
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// How far apart what holds and what fails may be in the end, in thousandths.
    pub(crate) precision_permille: u64,
    /// Probes of which most must hold.
    pub(crate) repeat: u32,
}

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The highest value that holds, and in how many of its probes it did.
    Knee { value: u64, held: u32, of: u32 },
    /// Not even the first value holds.
    NothingHolds,
    /// The generator could do no more; the node may do more than this.
    Limited { at_least: Option<u64> },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    held: u32,
    of: u32,
}

impl Tally {
    fn failed(self) -> u32 {
        self.of - self.held
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Between what holds and what does not.
    Bracket(u64),
    /// The value that was found, again.
    Confirm(u64),
    Over(End),
}

/// A search under way.
#[derive(Debug)]
pub(crate) struct Search {
    bounds: Bounds,
    stage: Stage,
    tallies: BTreeMap<u64, Tally>,
    best: Option<u64>,
    worst: Option<u64>,
}

impl Search {
    /// Begins at the lower bound.
    #[must_use]
    pub(crate) fn new(bounds: Bounds) -> Self {
        let stage = Stage::Bracket(bounds.from);
        Self { bounds, stage, tallies: BTreeMap::new(), best: None, worst: None }
    }

    /// The value to probe now; `None`: it is over.
    #[must_use]
    pub(crate) fn value(&self) -> Option<u64> {
        match self.stage {
            Stage::Bracket(value) | Stage::Confirm(value) => Some(value),
            Stage::Over(_) => None,
        }
    }

    /// How it ended; `None`: it has not.
    #[must_use]
    pub(crate) fn end(&self) -> Option<End> {
        match self.stage {
            Stage::Over(end) => Some(end),
            Stage::Bracket(_) | Stage::Confirm(_) => None,
        }
    }

    /// Takes in what the probe of [`Self::value`] came to.
    pub(crate) fn record(&mut self, outcome: Outcome) {
        let Some(value) = self.value() else { return };
        let tally = self.tallies.entry(value).or_default();
        tally.of += 1;
        tally.held += u32::from(outcome == Outcome::Held);
        let tally = *tally;
        self.stage = match (self.stage, outcome) {
            (Stage::Over(end), _) => Stage::Over(end),
            (Stage::Bracket(_), Outcome::Held) => {
                self.best = Some(value);
                self.between()
            }
            (Stage::Bracket(_), _) if tally.failed() < BELIEVED => self.stage,
            (_, Outcome::Limited) if tally.failed() >= BELIEVED => {
                let below = self.best.filter(|best| *best < value);
                Stage::Over(End::Limited { at_least: below })
            }
            (Stage::Bracket(_), _) if self.best.is_none() => Stage::Over(End::NothingHolds),
            (Stage::Bracket(_), _) => {
                self.worst = Some(value);
                self.between()
            }
            (Stage::Confirm(_), _) => self.confirm(value),
        };
    }

    /// Where to go between the best that holds and the worst that does not.
    fn between(&self) -> Stage {
        let Bounds { from, to, precision_permille, .. } = self.bounds;
        let best = self.best.unwrap_or(from);
        let Some(worst) = self.worst else {
            let higher = best.saturating_mul(STEP).min(to);
            return if best >= to { self.confirm(best) } else { Stage::Bracket(higher) };
        };
        if worst - best <= (best * precision_permille / 1_000).max(1) {
            return self.confirm(best);
        }
        Stage::Bracket(best + (worst - best) / 2)
    }

    /// Whether most of `value`'s probes held; if not, the next lower value has to.
    fn confirm(&self, mut value: u64) -> Stage {
        let most = self.bounds.repeat / 2 + 1;
        loop {
            let tally = self.tallies.get(&value).copied().unwrap_or_default();
            if tally.held >= most {
                return Stage::Over(End::Knee { value, held: tally.held, of: tally.of });
            }
            if tally.failed() < most {
                return Stage::Confirm(value);
            }
            let lower = (value * 1_000 / (1_000 + self.bounds.precision_permille)).min(value - 1);
            if lower < self.bounds.from {
                return Stage::Over(End::NothingHolds);
            }
            value = lower;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { from: 100, to: 100_000, precision_permille: 50, repeat: 3 };

    /// Searches a node that `judge` stands for; gives the end and how many probes it took.
    fn search(bounds: Bounds, mut judge: impl FnMut(u64) -> Outcome) -> (End, usize) {
        let mut search = Search::new(bounds);
        let mut probes = 0;
        while let Some(value) = search.value() {
            assert!((bounds.from..=bounds.to).contains(&value), "{value}");
            search.record(judge(value));
            probes += 1;
            assert!(probes < 500, "it ends");
        }
        (search.end().unwrap(), probes)
    }

    fn up_to(most: u64) -> impl Fn(u64) -> Outcome {
        move |value| if value <= most { Outcome::Held } else { Outcome::Failed }
    }

    #[test]
    fn a_sharp_knee_is_found_to_the_precision() {
        for most in [100, 101, 137, 999, 4_321, 70_000, 99_999] {
            let (end, probes) = search(BOUNDS, up_to(most));
            let End::Knee { value, held, of } = end else { panic!("{most}: {end:?}") };
            assert!(value <= most && value * 1_050 / 1_000 + 1 >= most, "{most}: {value}");
            assert!(held >= 2 && held == of && probes < 40, "{most}: {held} of {of} in {probes}");
        }
    }

    #[test]
    fn the_end_of_the_axis_is_the_most_there_is() {
        let (end, _) = search(BOUNDS, |_| Outcome::Held);
        assert_eq!(end, End::Knee { value: 100_000, held: 2, of: 2 });
    }

    #[test]
    fn a_first_value_that_fails_twice_is_the_end_and_once_is_chance() {
        assert_eq!(search(BOUNDS, |_| Outcome::Failed), (End::NothingHolds, 2));
        let mut first = true;
        let (end, _) =
            search(
                BOUNDS,
                |value| {
                    if std::mem::take(&mut first) { Outcome::Failed } else { up_to(800)(value) }
                },
            );
        assert_eq!(end, End::Knee { value: 800, held: 2, of: 2 });
    }

    #[test]
    fn the_generators_limit_is_a_lower_bound() {
        let limited = |value| if value > 1_000 { Outcome::Limited } else { Outcome::Held };
        assert_eq!(search(BOUNDS, limited).0, End::Limited { at_least: Some(800) });
        assert_eq!(search(BOUNDS, |_| Outcome::Limited).0, End::Limited { at_least: None });
    }

    #[test]
    fn a_blurred_knee_is_found_within_a_tenth_again_and_again() {
        // What holds falls from always to never over ± 4 % of 5 000.
        let mut found = Vec::new();
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (end, _) = search(BOUNDS, |value| {
                let most = 5_000 - 200 + random.u64(..400);
                up_to(most)(value)
            });
            let End::Knee { value, held, of } = end else { panic!("seed {seed}: {end:?}") };
            assert!(held * 2 > of || held >= 2, "seed {seed}: {held} of {of}");
            found.push(value);
        }
        let (least, most) = (found.iter().min().unwrap(), found.iter().max().unwrap());
        assert!(most * 100 <= least * 112, "{least} to {most}");
        found.sort_unstable();
        assert!(found[95] * 100 <= found[5] * 110, "{found:?}");
    }
}
