//! What one run says of one value: whether it holds, and what was short where it does not. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::search::Outcome;
use crate::model::cost::median;
use crate::report::{Report, Verdict};
use crate::slo::Judged;
use crate::timeline::Moment;

/// A node that keeps its processors so busy has none to spare.
const BUSY_MAX: f64 = 0.9;
/// Latency that is so much higher in the second half of a probe than in the first has not settled, if it is also more than
/// so many milliseconds: quarters of a second are told apart to 9 %, and a flush falls into one of them by chance.
const GROWTH_MAX: f64 = 1.5;
const GROWTH_MIN_MS: f64 = 20.0;
/// Below so many moments nothing is said of a probe's halves.
const MOMENTS_MIN: usize = 8;

/// What was short.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Short {
    /// The node's processors were busy, so many of so many.
    Processors { busy: f64, of: f64 },
    /// Messages were refused or shed, by reason.
    Refusals { reasons: BTreeMap<String, u64> },
    /// A promise was broken.
    Promises,
    /// It was too slow, or grew slower and slower, and not for want of a processor.
    Latency { busy: Option<f64>, of: f64 },
    /// A condition that is none of these.
    Condition,
    /// Publishing was late, or a device could not be made.
    Generator,
    /// The run came to no verdict.
    NoVerdict,
}

/// One probe.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Probe {
    pub(crate) value: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Violations of any promise.
    pub(crate) violations: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    /// Processors that the node kept busy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<f64>,
    pub(crate) frames: u64,
    pub(crate) deliveries: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) verdict: Option<Verdict>,
    pub(crate) conditions: Vec<Judged>,
    /// Why it did not hold; empty where it did.
    pub(crate) because: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) short: Option<Short>,
    pub(crate) outcome: Outcome,
}

/// What a probe is held to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bar {
    /// Whether a condition says how much may be refused; else nothing may.
    pub(crate) may_refuse: bool,
    /// What is due before it does not count for a steady state.
    pub(crate) warm_up_ms: u64,
    /// Processors that the node has.
    pub(crate) processors: f64,
}

impl Probe {
    /// Holds a run at `value` to the conditions, which were judged, and to what every probe must be.
    #[must_use]
    pub(crate) fn of(value: u64, report: &Report, conditions: Vec<Judged>, bar: Bar) -> Self {
        let published = &report.published;
        let reliable = report.reliable.as_ref();
        let refused = published.failed + reliable.map_or(0, |reliable| reliable.refused);
        let unknown = published.unknown + reliable.map_or(0, |reliable| reliable.unknown);
        let mut probe = Self {
            value,
            p50_ms: report.latency.p50_ms,
            p99_ms: report.latency.p99_ms,
            violations: report.violations.total(),
            refused,
            unknown,
            cpu: report.cpu.spent.map(|spent| spent.processors()),
            frames: report.seen.frames,
            deliveries: report.seen.deliveries,
            verdict: Some(report.verdict),
            because: Vec::new(),
            conditions,
            short: None,
            outcome: Outcome::Held,
        };
        probe.because = probe.reasons(report, bar);
        if !probe.because.is_empty() {
            let short = probe.short_of(report, bar);
            probe.outcome = if short == Short::Generator { Outcome::Limited } else { Outcome::Failed };
            probe.short = Some(short);
        }
        probe
    }

    /// A run that came to no verdict: `outcome` says whose fault that was.
    #[must_use]
    pub(crate) fn without_verdict(value: u64, reason: String, outcome: Outcome) -> Self {
        let short = if outcome == Outcome::Limited { Short::Generator } else { Short::NoVerdict };
        Self {
            value,
            p50_ms: 0.0,
            p99_ms: 0.0,
            violations: 0,
            refused: 0,
            unknown: 0,
            cpu: None,
            frames: 0,
            deliveries: 0,
            verdict: None,
            conditions: Vec::new(),
            because: vec![reason],
            short: Some(short),
            outcome,
        }
    }

    /// Why it does not hold; empty where it does.
    fn reasons(&self, report: &Report, bar: Bar) -> Vec<String> {
        let mut reasons = Vec::new();
        match report.verdict {
            Verdict::Violations => reasons.push("a promise was broken".to_owned()),
            Verdict::NothingPublished => reasons.push("nothing was published".to_owned()),
            Verdict::GeneratorLimited => reasons.push("published late".to_owned()),
            Verdict::Ok | Verdict::ThresholdFailed => {}
        }
        let broken = self.conditions.iter().filter(|judged| !judged.holds);
        reasons.extend(broken.map(|judged| judged.condition.clone()));
        if !bar.may_refuse && self.refused + self.unknown > 0 {
            reasons.push(format!("{} refused, {} unknown", self.refused, self.unknown));
        }
        let growing = report.types.rows().iter().find_map(|row| {
            let (before, after) = growth(&row.latency_over_time, bar.warm_up_ms)?;
            Some(format!("{}: latency grew from {before:.0} to {after:.0} ms", row.type_name))
        });
        reasons.extend(growing);
        reasons
    }

    fn short_of(&self, report: &Report, bar: Bar) -> Short {
        let Bar { processors: of, .. } = bar;
        let busy = self.cpu.filter(|busy| *busy >= BUSY_MAX * of);
        if report.verdict == Verdict::Violations {
            return Short::Promises;
        }
        if let Some(busy) = busy {
            return Short::Processors { busy, of };
        }
        if report.verdict == Verdict::GeneratorLimited {
            return Short::Generator;
        }
        if self.refused + self.unknown > 0 {
            return Short::Refusals { reasons: refusals(report) };
        }
        let is_slow =
            |reason: &String| reason.contains("latency") || reason.contains("p50") || reason.contains("p99");
        if self.because.iter().any(is_slow) {
            return Short::Latency { busy: self.cpu, of };
        }
        Short::Condition
    }
}

/// What was refused, by reason and by status.
fn refusals(report: &Report) -> BTreeMap<String, u64> {
    let mut reasons = BTreeMap::new();
    for row in report.types.rows() {
        for (reason, count) in &row.shed {
            *reasons.entry(reason.clone()).or_insert(0) += count;
        }
        for (status, count) in row.answers.iter().filter(|(status, _)| **status >= 400) {
            *reasons.entry(format!("status {status}")).or_insert(0) += count;
        }
    }
    reasons
}

/// The middle p99 of the first half of these moments and of the second, where it grew past chance.
fn growth(moments: &[Moment], warm_up_ms: u64) -> Option<(f64, f64)> {
    let settled: Vec<f64> =
        moments.iter().filter(|moment| moment.at_ms >= warm_up_ms).map(|moment| moment.p99_ms).collect();
    if settled.len() < MOMENTS_MIN {
        return None;
    }
    let (before, after) = settled.split_at(settled.len() / 2);
    let (before, after) = (median(before.iter().copied()), median(after.iter().copied()));
    (after > before * GROWTH_MAX && after > before + GROWTH_MIN_MS).then_some((before, after))
}

impl std::fmt::Display for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Processors { busy, of } => {
                write!(f, "the node's processors: {busy:.2} of {of} busy")
            }
            Self::Refusals { reasons } => {
                let reasons: Vec<String> =
                    reasons.iter().map(|(why, count)| format!("{why} {count}")).collect();
                let reasons = if reasons.is_empty() { "no answer".into() } else { reasons.join(", ") };
                write!(f, "refusals: {reasons}")
            }
            Self::Promises => write!(f, "a broken promise: the run at that value says which"),
            Self::Latency { busy: Some(busy), of } => {
                write!(f, "latency, with the node's processors not full: {busy:.2} of {of} busy")
            }
            Self::Latency { busy: None, .. } => write!(f, "latency; the node's processors are not known"),
            Self::Condition => write!(f, "the objective itself"),
            Self::Generator => write!(f, "the generator, not the node"),
            Self::NoVerdict => write!(f, "the run came to no verdict"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(p99_ms: impl Fn(u64) -> f64) -> Vec<Moment> {
        (0..40)
            .map(|place| Moment {
                at_ms: place * 250,
                count: 9,
                p50_ms: 0.0,
                p99_ms: p99_ms(place),
                max_ms: 0.0,
            })
            .collect()
    }

    #[test]
    fn latency_that_grows_is_no_steady_state_and_a_warm_up_is_no_growth() {
        let (before, after) =
            growth(&moments(|place| 50.0 + 10.0 * f64::from(u32::try_from(place).unwrap())), 0).unwrap();
        assert!(before < after);
        assert_eq!(growth(&moments(|place| if place % 5 == 0 { 300.0 } else { 100.0 }), 0), None);
        assert_eq!(growth(&moments(|_| 5.0)[..7], 0), None, "too few");
        let cold = moments(|place| if place < 8 { 10.0 } else { 110.0 });
        assert_eq!(growth(&cold[..16], 2_000), None);
        assert_eq!(growth(&moments(|place| if place < 20 { 2.0 } else { 9.0 }), 0), None, "milliseconds");
    }

    #[test]
    fn what_was_short_reads_as_a_sentence() {
        let said = Short::Processors { busy: 0.953, of: 1.0 }.to_string();
        assert_eq!(said, "the node's processors: 0.95 of 1 busy");
        let reasons = BTreeMap::from([("room_full".to_owned(), 7)]);
        assert_eq!(Short::Refusals { reasons }.to_string(), "refusals: room_full 7");
    }
}
