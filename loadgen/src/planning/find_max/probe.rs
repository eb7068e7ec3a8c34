//! What one run says of one value: whether it holds, and what was short where it does not. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::search::ProbeOutcome;
use crate::figures::timeline::Moment;
use crate::planning::model::cost::median;
use crate::report::{Judged, Report, Verdict};
use crate::scenario::thresholds::Condition;

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
    /// `None`: the run came to no verdict, so nothing was measured.
    #[serde(flatten)]
    pub(crate) measured: Option<ProbeFigures>,
    pub(crate) conditions: Vec<Judged>,
    /// Why it did not hold; empty where it did.
    pub(crate) because: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) short: Option<Short>,
    pub(crate) outcome: ProbeOutcome,
}

/// What a probe's run came to.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ProbeFigures {
    /// Of all devices and messages but reliable ones; `None`: there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_ms: Option<f64>,
    /// Violations of any promise.
    pub(crate) violations: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    /// Processors that the node kept busy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<f64>,
    pub(crate) frames: u64,
    pub(crate) deliveries: u64,
    pub(crate) verdict: Verdict,
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

impl ProbeFigures {
    fn of(report: &Report) -> Self {
        let published = &report.published;
        let reliable = report.reliable.as_ref();
        let timed = (report.latency.count > 0).then_some(report.latency);
        Self {
            p50_ms: timed.map(|latency| latency.p50_ms),
            p99_ms: timed.map(|latency| latency.p99_ms),
            violations: report.violations.total(),
            refused: published.failed + reliable.map_or(0, |reliable| reliable.refused),
            unknown: published.unknown + reliable.map_or(0, |reliable| reliable.unknown),
            cpu: report.cpu.spent.map(|spent| spent.processors()),
            frames: report.seen.frames,
            deliveries: report.seen.deliveries,
            verdict: report.verdict,
        }
    }
}

impl Probe {
    /// Holds a run at `value` to the conditions and to what every probe must be.
    #[must_use]
    pub(crate) fn of(value: u64, report: &Report, conditions: &[Condition], bar: Bar) -> Self {
        let judged: Vec<Judged> = conditions.iter().map(|condition| condition.judge(report)).collect();
        let measured = ProbeFigures::of(report);
        let mut because = broken_rules(report, &measured, bar);
        because.extend(judged.iter().filter(|judged| !judged.holds).map(|judged| judged.condition.clone()));
        let growing = growing(report, bar.warm_up_ms);
        let mut failed = conditions.iter().zip(&judged).filter(|(_, judged)| !judged.holds);
        let is_slow = growing.is_some() || failed.any(|(condition, _)| condition.is_of_time());
        because.extend(growing);
        let short = (!because.is_empty()).then(|| short_of(report, &measured, is_slow, bar.processors));
        let outcome = match short {
            None => ProbeOutcome::Held,
            Some(Short::Generator) => ProbeOutcome::Limited,
            Some(_) => ProbeOutcome::Failed,
        };
        Self { value, measured: Some(measured), conditions: judged, because, short, outcome }
    }

    /// A run that came to no verdict: `outcome` says whose fault that was.
    #[must_use]
    pub(crate) fn without_verdict(value: u64, reason: String, outcome: ProbeOutcome) -> Self {
        let short = if outcome == ProbeOutcome::Limited { Short::Generator } else { Short::NoVerdict };
        let conditions = Vec::new();
        let because = vec![reason];
        Self { value, measured: None, conditions, because, short: Some(short), outcome }
    }
}

/// What every probe must be, where it is not.
fn broken_rules(report: &Report, measured: &ProbeFigures, bar: Bar) -> Vec<String> {
    let limit = || report.generator.limit(report.lateness.p99_ms).unwrap_or_else(|| "the generator".into());
    let verdict = match report.verdict {
        Verdict::Violations => Some("a promise was broken".to_owned()),
        Verdict::NothingPublished => Some("nothing was published".to_owned()),
        Verdict::GeneratorLimited => Some(limit()),
        Verdict::Ok | Verdict::ThresholdFailed => None,
    };
    let ProbeFigures { refused, unknown, .. } = measured;
    let is_refused = !bar.may_refuse && refused + unknown > 0;
    let refusals = is_refused.then(|| format!("{refused} refused, {unknown} unknown"));
    verdict.into_iter().chain(refusals).collect()
}

/// The type whose latency had not settled, and how it grew, in words.
fn growing(report: &Report, warm_up_ms: u64) -> Option<String> {
    let types = report.types.rows().iter().map(|row| (&*row.type_name, &row.latency_over_time));
    let reliable = report.reliable.iter().map(|reliable| ("reliable", &reliable.apply_over_time));
    types.chain(reliable).find_map(|(name, moments)| {
        let (before, after) = growth(moments, warm_up_ms)?;
        Some(format!("{name}: latency grew from {before:.0} to {after:.0} ms"))
    })
}

/// What was short in a run that did not hold; `is_slow`: for one thing its latency.
fn short_of(report: &Report, measured: &ProbeFigures, is_slow: bool, of: f64) -> Short {
    if report.verdict == Verdict::Violations {
        return Short::Promises;
    }
    if let Some(busy) = measured.cpu.filter(|busy| *busy >= BUSY_MAX * of) {
        return Short::Processors { busy, of };
    }
    if report.verdict == Verdict::GeneratorLimited {
        return Short::Generator;
    }
    if measured.refused + measured.unknown > 0 {
        return Short::Refusals { reasons: refusals(report) };
    }
    if is_slow { Short::Latency { busy: measured.cpu, of } } else { Short::Condition }
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
    let before = median(before.iter().copied());
    let after = median(after.iter().copied());
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
    use crate::report::tests::made_up;

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

    const BAR: Bar = Bar { may_refuse: true, warm_up_ms: 0, processors: 64.0 };

    /// A run of which nothing was refused.
    fn smooth() -> Report {
        let mut report = made_up();
        (report.published.failed, report.published.ok) = (0, report.published.sent);
        report
    }

    fn probe(report: &Report, slo: &str) -> Probe {
        Probe::of(7, report, &crate::scenario::thresholds::parse_all(slo).unwrap(), BAR)
    }

    #[test]
    fn every_condition_of_time_that_fails_is_latency_and_no_other_is() {
        for slow in ["max<1ms", "p99.9<1ms", "last_max<1ms", "chat.max<1ms", "answer_p99<1us"] {
            let short = probe(&smooth(), slow).short;
            assert!(matches!(short, Some(Short::Latency { .. })), "{slow}: {short:?}");
        }
        assert_eq!(probe(&smooth(), "memory<1KiB").short, Some(Short::Condition));
        assert_eq!(probe(&smooth(), "p99<10s").outcome, ProbeOutcome::Held);
    }

    #[test]
    fn a_run_that_the_generator_limited_says_by_what() {
        let mut report = smooth();
        report.verdict = Verdict::GeneratorLimited;
        report.generator.busiest_worker = 0.95;
        let limited = probe(&report, "p99<10s");
        assert_eq!((limited.outcome, limited.because.len()), (ProbeOutcome::Limited, 1));
        assert!(limited.because[0].starts_with("a worker used 0.95 of a processor"), "{limited:?}");
    }

    #[test]
    fn reliable_messages_have_to_be_in_a_steady_state_too() {
        let mut report = smooth();
        let reliable = report.reliable.as_mut().unwrap();
        reliable.apply_over_time = moments(|place| if place < 20 { 40.0 } else { 140.0 });
        let growing = probe(&report, "loss=0");
        assert_eq!((growing.outcome, growing.because.len()), (ProbeOutcome::Failed, 1));
        assert_eq!(growing.because[0], "reliable: latency grew from 40 to 140 ms");
    }

    #[test]
    fn what_was_not_measured_is_not_nothing() {
        let none = Probe::without_verdict(7, "it was gone".into(), ProbeOutcome::Failed);
        let said = serde_json::to_value(&none).unwrap();
        assert_eq!((said.get("p99_ms"), said.get("violations")), (None, None), "{said}");
        let mut report = smooth();
        report.latency = crate::figures::latency::Percentiles::default();
        let said = serde_json::to_value(probe(&report, "loss=0")).unwrap();
        assert_eq!((said.get("p99_ms"), said["violations"].as_u64()), (None, Some(0)), "{said}");
    }
}
