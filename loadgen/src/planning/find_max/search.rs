//! The order of probes: upwards until a value fails, then halving the distance, then confirming the found
//! value. Pure.
//!
//! The next probe follows from the outcomes of all probes so far, by these rules:
//!
//! - The search goes on from a value that held once. A value fails after two failures without a success. So
//!   one failure by chance costs little.
//! - The search ends only at a confirmed value: most of its `repeat` probes held. If most failed, the value
//!   fails after all, and the search goes on below.
//! - A value is past the generator once the generator limited two of its probes, and at least half of them.
//!   The highest value below is confirmed like a knee, and is a lower bound.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use serde::Serialize;

/// Factor of each step upwards.
const STEP: u64 = 2;
/// Probes with the same bad outcome before the outcome is believed.
const BELIEVED: u32 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProbeOutcome {
    Held,
    Failed,
    /// The generator was the limit, so the probe says nothing about the node.
    Limited,
}

/// The range and the precision of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The first value; at least 1.
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Largest distance at the end between a value that holds and a value that fails, in thousandths.
    pub(crate) precision_permille: u64,
    /// Probes that confirm a value; most must hold.
    pub(crate) repeat: u32,
}

/// The end of a search. Without a knee the first value failed, or was already past the generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// The highest confirmed value.
    pub(crate) knee: Option<u64>,
    /// The lowest value at which the node failed.
    pub(crate) fails_at: Option<u64>,
    /// The generator ended the search, so the node may hold more than `knee`.
    pub(crate) is_lower_bound: bool,
}

/// The outcomes of all probes of a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ProbeTally {
    pub(crate) held: u32,
    pub(crate) failed: u32,
    pub(crate) limited: u32,
}

/// The search's opinion of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The value needs another probe.
    Open,
    /// The value held, and is not confirmed yet.
    Held,
    Confirmed,
    Fails,
    Limited,
}

impl ProbeTally {
    fn add(&mut self, outcome: ProbeOutcome) {
        match outcome {
            ProbeOutcome::Held => self.held += 1,
            ProbeOutcome::Failed => self.failed += 1,
            ProbeOutcome::Limited => self.limited += 1,
        }
    }

    /// The standing of a value. Further probes turn `Open` and `Held` into another standing: at the latest
    /// after `repeat` probes (and at least three) that the generator did not limit.
    fn standing(self, repeat: u32) -> Standing {
        let Self { held, failed, limited } = self;
        let most = repeat / 2 + 1;
        // A value that held once gets the whole vote; the first failures of another value are believed
        // sooner.
        let enough = if held == 0 { BELIEVED } else { most };
        if held >= most && held > failed {
            Standing::Confirmed
        } else if failed >= enough && failed > held {
            Standing::Fails
        } else if limited >= BELIEVED && limited >= held + failed {
            Standing::Limited
        } else if held > 0 {
            Standing::Held
        } else {
            Standing::Open
        }
    }
}

#[derive(Debug)]
pub(crate) struct Search {
    pub(crate) bounds: Bounds,
    tallies: BTreeMap<u64, ProbeTally>,
}

impl Search {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, tallies: BTreeMap::new() }
    }

    /// The value of the next probe. `None`: the search is over.
    pub(crate) fn value(&self) -> Option<u64> {
        self.next().continue_value()
    }

    /// `None`: the search goes on.
    pub(crate) fn end(&self) -> Option<End> {
        self.next().break_value()
    }

    /// Records the outcome of the probe of [`Self::value`].
    pub(crate) fn record(&mut self, outcome: ProbeOutcome) {
        if let Some(value) = self.value() {
            self.tallies.entry(value).or_default().add(outcome);
        }
    }

    pub(crate) fn tally(&self, value: u64) -> ProbeTally {
        self.tallies.get(&value).copied().unwrap_or_default()
    }

    fn next(&self) -> ControlFlow<End, u64> {
        let Bounds { from, to, repeat, .. } = self.bounds;
        let standings: Vec<(u64, Standing)> =
            self.tallies.iter().map(|(value, tally)| (*value, tally.standing(repeat))).collect();
        let lowest =
            |wanted: &[Standing]| standings.iter().find(|(_, standing)| wanted.contains(standing)).copied();
        // An undecided value is decided first: every other step depends on its standing.
        if let Some((open, _)) = lowest(&[Standing::Open]) {
            return ControlFlow::Continue(open);
        }
        let fails_at = lowest(&[Standing::Fails]).map(|(value, _)| value);
        let ceiling = lowest(&[Standing::Fails, Standing::Limited]);
        let below = standings.iter().rev().filter(|(value, _)| ceiling.is_none_or(|(most, _)| *value < most));
        let mut held = below.filter(|(_, standing)| matches!(standing, Standing::Held | Standing::Confirmed));
        let is_lower_bound = ceiling.is_some_and(|(_, standing)| standing == Standing::Limited);
        let Some((best, standing)) = held.next().copied() else {
            // Nothing holds below a ceiling. Without a ceiling no value was tried.
            let end = End { knee: None, fails_at, is_lower_bound };
            return ceiling.map_or(ControlFlow::Continue(from), |_| ControlFlow::Break(end));
        };
        match ceiling {
            Some((worst, _)) if worst - best > self.step_at(best) => {
                return ControlFlow::Continue(best + (worst - best) / 2);
            }
            None if best < to => return ControlFlow::Continue(best.saturating_mul(STEP).min(to)),
            _ => {}
        }
        let end = End { knee: Some(best), fails_at, is_lower_bound };
        // One success may be chance, so the end has to be confirmed.
        if standing == Standing::Confirmed { ControlFlow::Break(end) } else { ControlFlow::Continue(best) }
    }

    /// The largest distance between `value`, which holds, and a value that fails.
    fn step_at(&self, value: u64) -> u64 {
        (value * self.bounds.precision_permille / 1_000).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { from: 100, to: 100_000, precision_permille: 50, repeat: 3 };

    /// Searches a node that `judge` stands for; gives the end, the search and how many probes it took.
    fn searched(bounds: Bounds, mut judge: impl FnMut(u64) -> ProbeOutcome) -> (End, Search, usize) {
        let mut search = Search::new(bounds);
        let mut probes = 0;
        while let Some(value) = search.value() {
            assert!((bounds.from..=bounds.to).contains(&value), "{value}");
            search.record(judge(value));
            probes += 1;
            assert!(probes < 500, "it ends");
        }
        (search.end().unwrap(), search, probes)
    }

    fn search(bounds: Bounds, judge: impl FnMut(u64) -> ProbeOutcome) -> (End, usize) {
        let (end, _, probes) = searched(bounds, judge);
        (end, probes)
    }

    /// A knee that the node ended.
    fn found(knee: u64, worst: u64) -> End {
        End { knee: Some(knee), fails_at: Some(worst), is_lower_bound: false }
    }

    fn up_to(most: u64) -> impl Fn(u64) -> ProbeOutcome {
        move |value| if value <= most { ProbeOutcome::Held } else { ProbeOutcome::Failed }
    }

    /// A node that answers as listed, `value: outcomes` in turn (`+`, `-`, `!` for what the generator
    /// limited), and holds up to 800 where nothing is listed.
    fn listed(list: &str) -> impl FnMut(u64) -> ProbeOutcome {
        let mut lists: BTreeMap<u64, Vec<char>> = BTreeMap::new();
        for (value, outcomes) in list.split_whitespace().filter_map(|part| part.split_once(':')) {
            lists.insert(value.parse().unwrap(), outcomes.chars().rev().collect());
        }
        move |value| match lists.get_mut(&value).and_then(Vec::pop) {
            Some('+') => ProbeOutcome::Held,
            Some('-') => ProbeOutcome::Failed,
            Some(_) => ProbeOutcome::Limited,
            None => up_to(800)(value),
        }
    }

    #[test]
    fn a_sharp_knee_is_found_to_the_precision() {
        for most in [100, 101, 137, 999, 4_321, 70_000, 99_999] {
            for repeat in [1, 2, 3, 9] {
                let (end, search, probes) = searched(Bounds { repeat, ..BOUNDS }, up_to(most));
                let End { knee: Some(value), fails_at, is_lower_bound: false } = end else {
                    panic!("{most}: {end:?}")
                };
                assert!(value <= most && value * 1_050 / 1_000 + 1 >= most, "{most}: {value}");
                assert!(fails_at.is_some_and(|worst| worst > most), "{most}: {fails_at:?}");
                let ProbeTally { held, failed, .. } = search.tally(value);
                assert!(
                    held > repeat / 2 && failed == 0 && probes < 45,
                    "{most}: {held}, {failed} in {probes}"
                );
            }
        }
    }

    #[test]
    fn the_end_of_the_axis_is_the_most_there_is() {
        let (end, _) = search(BOUNDS, |_| ProbeOutcome::Held);
        assert_eq!(end, End { knee: Some(100_000), fails_at: None, is_lower_bound: false });
    }

    #[test]
    fn what_the_search_comes_to_follows_from_what_the_probes_did() {
        let limited = |knee, fails_at| End { knee, fails_at, is_lower_bound: true };
        let nothing = End { knee: None, fails_at: Some(BOUNDS.from), is_lower_bound: false };
        for (list, end) in [
            // A first value that fails twice is the end, and once is chance.
            ("100:--", nothing),
            ("100:-", found(800, 825)),
            // One failure by chance costs one more probe; two in turn are believed.
            ("400:-", found(800, 825)),
            ("800:+-+", found(800, 825)),
            // What held, and then did not hold in most of its probes, does not; the next lower that held is
            // confirmed.
            ("800:+--", found(775, 800)),
            // The knee next to the first value is the first value.
            ("200:-- 150:-- 125:-- 112:-- 106:-- 103:+--", found(100, 103)),
            ("100:+-- 200:-- 150:-- 125:-- 112:-- 106:-- 103:--", nothing),
            // The generator can do no more: what held below is confirmed, and the node's own failure above is
            // named.
            ("400:!! 300:!! 250:!! 225:!! 212:!! 206:!!", limited(Some(200), None)),
            ("1600:-- 1200:!! 1000:!! 900:!! 850:!! 825:!!", limited(Some(800), Some(1_600))),
            ("1600:-- 1200:!! 1000:!! 900:!! 850:!! 825:!! 800:+--", found(775, 800)),
            // Its confirmation is limited: the next lower value that held.
            ("800:+!! 700:!! 600:!! 500:!! 450:!! 425:!! 412:!!", limited(Some(400), Some(825))),
            (
                "200:+!! 150:!! 125:!! 112:!! 106:!! 103:!! 100:+!! 400:!! 300:!! 250:!! 225:!! 212:!! 206:!!",
                limited(None, None),
            ),
            ("100:!!", limited(None, None)),
            ("100:+!! 200:-- 150:-- 125:-- 112:-- 106:-- 103:--", limited(None, Some(103))),
            // A limit and a failure: what comes twice decides, whichever was first.
            ("825:!-!", limited(Some(800), Some(850))),
            ("825:-!!", limited(Some(800), Some(850))),
            ("825:!--", found(800, 825)),
            ("1600:!++ 3200:-- 2400:-- 2000:-- 1800:-- 1700:-- 1650:--", found(1_600, 1_650)),
        ] {
            assert_eq!(search(BOUNDS, listed(list)).0, end, "{list}");
        }
    }

    #[test]
    fn of_many_repetitions_most_decide_whatever_a_few_came_to() {
        let often = Bounds { repeat: 9, ..BOUNDS };
        for list in ["800:+---++++", "800:+++!!++", "800:+!--++++"] {
            let (end, search, _) = searched(often, listed(list));
            assert_eq!(end, found(800, 825), "{list}");
            assert_eq!(search.tally(800).held, 5, "{list}");
        }
    }

    #[test]
    fn with_one_repetition_a_value_that_failed_and_held_is_asked_again() {
        let once = Bounds { repeat: 1, ..BOUNDS };
        let (end, search, _) = searched(once, listed("800:-+- 775:-++"));
        assert_eq!(end, found(775, 800));
        assert_eq!(search.tally(775), ProbeTally { held: 2, failed: 1, limited: 0 });
    }

    #[test]
    fn whatever_chance_does_the_search_ends_at_a_value_that_is_confirmed() {
        for seed in 0..2_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let knee = random.u64(50..120_000);
            let repeat = random.u32(1..=9);
            let failing = random.f64() * 0.4;
            let limiting = random.f64() * 0.4;
            let bounds = Bounds { repeat, ..BOUNDS };
            let (end, search, _) = searched(bounds, |value| {
                // Chance has a part only near the knee.
                let is_near = value.abs_diff(knee) * 5 <= knee;
                match random.f64() {
                    chance if is_near && chance < failing => ProbeOutcome::Failed,
                    chance if is_near && chance < failing + limiting => ProbeOutcome::Limited,
                    _ => up_to(knee)(value),
                }
            });
            let confirmed = |value: u64| {
                let ProbeTally { held, failed, .. } = search.tally(value);
                value <= knee && held > repeat / 2 && held > failed
            };
            let failed = |value: u64| search.tally(value).failed > search.tally(value).held;
            let End { knee, fails_at, is_lower_bound } = end;
            assert!(knee.is_none_or(confirmed) && fails_at.is_none_or(failed), "seed {seed}: {end:?}");
            match knee {
                _ if is_lower_bound => assert!(limiting > 0.0, "seed {seed}: {end:?}"),
                Some(value) => {
                    let end = fails_at.unwrap_or(bounds.to);
                    assert!(end - value <= (value / 20).max(1), "seed {seed}: {value} to {end}");
                    assert!(fails_at.is_some() || value == bounds.to, "seed {seed}");
                }
                None => assert!(failed(bounds.from), "seed {seed}"),
            }
        }
    }

    #[test]
    fn a_blurred_knee_is_found_within_a_tenth_again_and_again() {
        // What holds falls from always to never over ± 4 % of 5 000.
        let mut found = Vec::new();
        for seed in 0..100 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (end, search, _) = searched(BOUNDS, |value| {
                let most = 5_000 - 200 + random.u64(..400);
                up_to(most)(value)
            });
            let End { knee: Some(value), is_lower_bound: false, .. } = end else {
                panic!("seed {seed}: {end:?}")
            };
            assert!(search.tally(value).held > search.tally(value).failed, "seed {seed}");
            found.push(value);
        }
        let least = found.iter().min().unwrap();
        let most = found.iter().max().unwrap();
        assert!(most * 100 <= least * 112, "{least} to {most}");
        found.sort_unstable();
        assert!(found[95] * 100 <= found[5] * 110, "{found:?}");
    }
}
